//! What all parts of an organization's type go by: the profile, from the log or from the read model.

use aggregates::ids::OrganizationId;
use aggregates::roles::Permission;
use aggregates::status::{Lifecycle, Status, Verification};
use async_graphql::{Context, Error};
use chrono::{DateTime, Utc};
use sqlx::FromRow;

use crate::graphql::connection::PageArguments;
use crate::graphql::lists::{self, ConnectionOf, List};
use crate::graphql::scalars::named;
use crate::log::Loaded;

/// What all parts of an organization's type know of it.
#[derive(Debug, Clone)]
pub struct Profile {
    pub(super) id: OrganizationId,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) contact_email: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) status: Status,
    pub(super) verification_reason: Option<String>,
    pub(super) purge_at: Option<DateTime<Utc>>,
    pub(super) purged: bool,
    pub(super) plan: String,
    pub(super) version: u64,
    pub(super) created_at: DateTime<Utc>,
}

impl Profile {
    /// From the log's side.
    pub(super) fn new(id: OrganizationId, loaded: &Loaded<aggregates::Organization>) -> Self {
        let state = &loaded.state;
        Self {
            id,
            slug: state.slug.clone(),
            name: state.name.clone(),
            contact_email: aggregates::personal::readable(&state.contact_email).map(str::to_owned),
            external_id: state.external_id.clone(),
            status: state.status,
            verification_reason: state.verification_reason.clone(),
            purge_at: state.purge_at,
            purged: state.purged,
            plan: state.plan.clone(),
            version: loaded.version,
            created_at: state.created_at,
        }
    }

    /// Whether it is deleted.
    pub fn is_deleted(&self) -> bool {
        self.status.lifecycle == Lifecycle::Deleted
    }

    /// Requires that the caller may read what needs these permissions.
    pub async fn require(&self, ctx: &Context<'_>, all: &[Permission]) -> Result<(), Error> {
        lists::require(ctx, &self.id, self.id.as_ref(), all).await
    }

    /// A page of a list.
    pub async fn list<L: List>(
        &self,
        ctx: &Context<'_>,
        list: L,
        page: PageArguments,
    ) -> Result<ConnectionOf<L>, Error> {
        lists::list(ctx, &self.id, self.id.as_ref(), list, page).await
    }
}

/// An organization as the read model has it.
#[derive(Debug, Clone, FromRow)]
pub(super) struct OrganizationRow {
    pub(super) id: String,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) contact_email: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) verification: String,
    pub(super) verification_reason: Option<String>,
    pub(super) once_verified: bool,
    pub(super) lifecycle: String,
    pub(super) deleted_by_operator: bool,
    pub(super) purge_at: Option<DateTime<Utc>>,
    pub(super) plan: String,
    pub(super) version: i64,
    pub(super) created_at: DateTime<Utc>,
}

impl From<OrganizationRow> for Profile {
    fn from(row: OrganizationRow) -> Self {
        Self {
            id: row.id.parse().unwrap_or_else(|_| aggregates::ids::Id::from_uuid(uuid::Uuid::nil())),
            slug: row.slug,
            name: row.name,
            contact_email: row.contact_email,
            external_id: row.external_id,
            status: Status {
                verification: named::<Verification>(&row.verification),
                lifecycle: named::<Lifecycle>(&row.lifecycle),
                once_verified: row.once_verified,
                deleted_by_operator: row.deleted_by_operator,
            },
            verification_reason: row.verification_reason,
            purge_at: row.purge_at,
            // A purged organization has no row.
            purged: false,
            plan: row.plan,
            version: row.version.unsigned_abs(),
            created_at: row.created_at,
        }
    }
}
