//! Organizations and their settings.

use std::collections::BTreeMap;

use aggregates::organization::OrganizationEvent;
use aggregates::personal::readable;
use aggregates::status::{Lifecycle, Verification};
use aggregates::{Event, Recorded};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use crate::column;
use crate::fold::Outbox;
use crate::read_model::{self, Named, read_model};

read_model! {
    organizations of Organization {
        slug: String,
        name: String,
        contact_email: Option<String>,
        external_id: Option<String>,
        verification: Named<Verification>,
        verification_reason: Option<String>,
        before_block: Named<Verification>,
        once_verified: bool,
        lifecycle: Named<Lifecycle>,
        before_deletion: Named<Lifecycle>,
        deleted_by_operator: bool,
        purge_at: Option<DateTime<Utc>>,
        plan: String,
    }
    personal [name, contact_email, verification_reason]
}

/// Whether lists are read from it.
pub const IS_SHOWN: bool = true;
/// Whether something comes of its events that is kept nowhere else.
pub const HAS_OUTBOX: bool = false;

/// Whether events of streams of this kind change its tables.
pub fn reads(aggregate_type: &str) -> bool {
    read_model::reads::<Row>(aggregate_type)
}

/// The table in which deleted things wait to be purged.
pub fn purged_from() -> Option<&'static str> {
    read_model::purged_from::<Row>()
}

pub async fn apply(connection: &mut PgConnection, events: &[&Recorded], _: &Outbox<'_>) -> Result<(), sqlx::Error> {
    read_model::apply::<Row>(connection, events).await?;
    save_settings(connection, events).await?;
    // One whose trail is half pruned has no row, and may have settings.
    forget(connection, &read_model::purged(events.iter().copied())).await
}

/// Removes these organizations and their settings.
pub async fn forget(connection: &mut PgConnection, ids: &[&str]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    read_model::forget::<Row>(connection, ids).await?;
    sqlx::query!("DELETE FROM settings WHERE organization_id = ANY($1)", ids as &[&str]).execute(connection).await?;
    Ok(())
}

/// Writes the last document of each namespace that the events name.
async fn save_settings(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let mut last: BTreeMap<(&str, &str), (&Recorded, Option<&Value>)> = BTreeMap::new();
    for recorded in events {
        if let Event::Organization(OrganizationEvent::OrgSettingsUpdated { namespace, value, .. }) = &recorded.event {
            last.insert((recorded.stream.id(), namespace), (recorded, value.as_ref()));
        }
    }
    let written: Vec<(&str, &str, &Recorded, &Value)> = last
        .iter()
        .filter_map(|((organization, namespace), (recorded, value))| {
            Some((*organization, *namespace, *recorded, (*value)?))
        })
        .collect();
    let cleared: (Vec<&str>, Vec<&str>) =
        last.iter().filter(|(_, (_, value))| value.is_none()).map(|(key, _)| *key).unzip();
    if !written.is_empty() {
        sqlx::query!(
            r#"INSERT INTO settings (organization_id, namespace, value, partition, "offset")
               SELECT organization_id, namespace, value::json, partition, at
               FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::bigint[])
                    AS r(organization_id, namespace, value, partition, at)
               ON CONFLICT (organization_id, namespace) DO UPDATE SET value = EXCLUDED.value, "offset" = EXCLUDED."offset"
               WHERE settings."offset" < EXCLUDED."offset""#,
            column!(written, |(organization, ..)| *organization) as &[&str],
            column!(written, |(_, namespace, ..)| *namespace) as &[&str],
            column!(written, |(.., value)| value.to_string()),
            column!(written, |(_, _, recorded, _)| recorded.partition),
            column!(written, |(_, _, recorded, _)| recorded.offset)
        )
        .execute(&mut *connection)
        .await?;
    }
    if !cleared.0.is_empty() {
        sqlx::query!(
            "DELETE FROM settings USING unnest($1::text[], $2::text[]) AS c(organization_id, namespace)
             WHERE settings.organization_id = c.organization_id AND settings.namespace = c.namespace",
            &cleared.0 as &[&str],
            &cleared.1 as &[&str]
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &OrganizationEvent) {
        use OrganizationEvent as E;
        match event {
            E::OrgCreated { name, slug, contact_email, external_id, plan, created_at, limits: _, reason: _ } => {
                self.begin(recorded, *created_at);
                self.name = name.clone();
                self.slug = slug.clone();
                self.contact_email = readable(contact_email).map(str::to_owned);
                self.external_id = external_id.clone();
                self.plan = plan.clone();
            }
            E::OrgRenamed { name, .. } => self.name = name.clone(),
            E::OrgSlugChanged { slug, .. } => self.slug = slug.clone(),
            E::OrgContactChanged { contact_email, .. } => {
                self.contact_email = readable(contact_email).map(str::to_owned);
            }
            E::OrgExternalIdChanged { external_id, .. } => self.external_id = external_id.clone(),
            E::OrgBlocked { verification, previous_verification, reason } => {
                self.before_block = Named(*previous_verification);
                self.verified_as(*verification, reason);
            }
            E::OrgSubmitted { verification, reason, .. }
            | E::OrgVerified { verification, reason, .. }
            | E::OrgRejected { verification, reason, .. }
            | E::OrgWaitlisted { verification, reason, .. }
            | E::OrgReopened { verification, reason, .. }
            | E::OrgReviewRestarted { verification, reason, .. }
            | E::OrgUnblocked { verification, reason, .. } => self.verified_as(*verification, reason),
            E::OrgDeactivated { .. } => self.lifecycle = Named(Lifecycle::Inactive),
            E::OrgActivated { .. } => self.lifecycle = Named(Lifecycle::Active),
            E::OrgDeleted { previous_lifecycle, purge_at, by_operator, .. } => {
                self.before_deletion = Named(*previous_lifecycle);
                self.lifecycle = Named(Lifecycle::Deleted);
                self.deleted_by_operator = *by_operator;
                self.purge_at = Some(*purge_at);
            }
            E::OrgRestored { lifecycle, .. } => {
                self.lifecycle = Named(*lifecycle);
                self.deleted_by_operator = false;
                self.purge_at = None;
            }
            E::OrgPurged { .. } => self.gone = true,
            E::OrgPlanChanged { plan, .. } => self.plan = plan.clone(),
            // It has no row any more.
            E::OrgPruned { .. } => {}
            // Settings have a table of their own; limits are read where commands are held against them.
            E::OrgSettingsUpdated { .. }
            | E::OrgLimitSet { .. }
            | E::RoleDefined { .. }
            | E::RoleChanged { .. }
            | E::RoleRemoved { .. }
            | E::OwnershipOffered { .. }
            | E::OwnershipAccepted { .. }
            | E::OwnershipOfferWithdrawn { .. }
            // Holds are looked up in the log.
            | E::OrgLegalHoldSet { .. }
            | E::OrgLegalHoldReleased { .. }
            | E::LimitReached { .. } => {}
        }
    }

    fn verified_as(&mut self, verification: Verification, reason: &Option<String>) {
        self.verification = Named(verification);
        self.once_verified |= verification == Verification::Verified;
        self.verification_reason = reason.clone();
    }
}
