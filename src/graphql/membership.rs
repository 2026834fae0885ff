//! Memberships.

use aggregates::ids::{Id, MembershipId, OrganizationId};
use async_graphql::connection::Connection;
use async_graphql::{Context, ID, InputObject, Object};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, Postgres, QueryBuilder};

use super::connection::{Created, Opaque, Slice};
use super::loaders::ListFilter;
use super::loaders::{Lists, Loaders};
use super::organization::{Organization, OrganizationCommandInput};
use super::payload::{Answer, payloads, run};
use super::scalars::{MembershipSource, MembershipState, Time, int};
use super::session::{Session, id};
use super::user::{User, connection, user};
use crate::commands::members::{self as cases, Change};
use crate::commands::{Entity, Receipt};
use crate::log::Loaded;

/// A membership as the read model has it.
#[derive(Debug, Clone, FromRow)]
pub struct MembershipRow {
    id: String,
    organization_id: String,
    user_id: String,
    roles: Vec<String>,
    state: String,
    source: String,
    joined_at: DateTime<Utc>,
    version: i64,
    created_at: DateTime<Utc>,
}

impl MembershipRow {
    /// Its columns and its table.
    pub const SELECT: &'static str =
        "id, organization_id, user_id, roles, state, source, joined_at, version, created_at FROM members";
}

/// Which members.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MemberFilter {
    /// With this role.
    pub role: Option<String>,
    /// In this state; else those who are not removed.
    pub state: Option<String>,
}

impl ListFilter for MemberFilter {
    type Row = MembershipRow;
    const PREFIX: &'static str = MembershipId::PREFIX;
    const SELECT: &'static str = MembershipRow::SELECT;
    fn lists(loaders: &Loaders) -> &Lists<Self> {
        &loaders.members
    }

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        match &self.state {
            Some(state) => query.push(" AND state = ").push_bind(state.clone()),
            None => query.push(" AND state <> 'REMOVED'"),
        };
        if let Some(role) = &self.role {
            query.push(" AND ").push_bind(role.clone()).push(" = ANY(roles)");
        }
    }
}

/// What one user is in one organization.
#[derive(Debug, Clone)]
pub struct Membership {
    id: String,
    organization: Option<OrganizationId>,
    user: User,
    roles: Vec<String>,
    state: MembershipState,
    source: MembershipSource,
    joined_at: DateTime<Utc>,
    version: u64,
}

fn parse<T: serde::de::DeserializeOwned + Default>(text: String) -> T {
    serde_json::from_value(serde_json::Value::String(text)).unwrap_or_default()
}

impl From<MembershipRow> for Membership {
    fn from(row: MembershipRow) -> Self {
        Self {
            id: row.id,
            organization: row.organization_id.parse().ok(),
            user: user(&row.user_id),
            roles: row.roles,
            state: parse::<aggregates::membership::MembershipState>(row.state).into(),
            source: parse::<aggregates::membership::MembershipSource>(row.source).into(),
            joined_at: row.joined_at,
            version: row.version.unsigned_abs(),
        }
    }
}

impl Membership {
    /// From the log's side; `None` where nobody ever joined.
    pub fn new(id: MembershipId, loaded: &Loaded<aggregates::Membership>) -> Option<Self> {
        Some(Self {
            id: id.into(),
            organization: loaded.organization.clone(),
            user: User::new(loaded.state.user_id.clone()?),
            roles: loaded.state.roles.clone(),
            state: loaded.state.state.into(),
            source: loaded.state.source.into(),
            joined_at: loaded.state.joined_at,
            version: loaded.version,
        })
    }

    /// A connection of rows.
    pub fn connection(slice: Slice<MembershipRow>) -> Connection<Opaque, Self> {
        connection(slice, |row| Created { at: row.created_at, id: row.id.clone() }, Self::from)
    }
}

/// What one user is in one organization, from the first joining on.
#[Object]
impl Membership {
    /// The id; it follows from organization and user.
    pub async fn id(&self) -> ID {
        ID(self.id.clone())
    }
    /// The organization, where the caller sees it.
    async fn organization(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<Organization>> {
        let id = self.organization.as_ref()?;
        let seen = Session::of(ctx).see(id).await.transpose()?;
        Some(seen.map(|seen| Organization::new(seen.id, &seen.organization)))
    }
    /// The user.
    async fn user(&self) -> User {
        self.user.clone()
    }
    /// The roles at organization scope, the most powerful first.
    async fn roles(&self) -> &[String] {
        &self.roles
    }
    /// Whether the member is in.
    async fn state(&self) -> MembershipState {
        self.state
    }
    /// How the member came in last.
    async fn source(&self) -> MembershipSource {
        self.source
    }
    /// When the member came in last.
    async fn joined_at(&self) -> Time {
        Time(self.joined_at)
    }
    /// How often it was changed.
    async fn version(&self) -> i32 {
        int(self.version)
    }
}

/// The membership among what a command answers with.
pub fn among(entities: &[Entity]) -> Option<Membership> {
    entities.iter().find_map(|entity| match entity {
        Entity::Membership(id, loaded) => Membership::new(id.clone(), loaded),
        Entity::Organization(..)
        | Entity::Invitation(..)
        | Entity::Project(..)
        | Entity::User(..)
        | Entity::ApiToken(..)
        | Entity::WebhookEndpoint(..) => None,
    })
}

payloads! {
    /// What became of a command on a membership.
    MembershipPayload {
        /// The membership after the command.
        membership: Option<Membership> = |receipt: &Receipt| among(&receipt.entities),
    }
}

/// A user whom the caller can already see.
#[derive(InputObject)]
pub struct AddMemberInput {
    /// To which organization.
    organization_id: ID,
    /// Whom.
    user_id: ID,
    /// With which roles.
    roles: Vec<String>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
}

/// Other roles of a member.
#[derive(InputObject)]
pub struct ChangeMemberRolesInput {
    /// Which membership.
    membership_id: ID,
    /// The roles from now on.
    roles: Vec<String>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the membership must have.
    expected_version: Option<i32>,
}

/// A command on a membership.
#[derive(InputObject)]
pub struct MembershipCommandInput {
    /// Which membership.
    pub membership_id: ID,
    /// Why; operators have to say.
    pub reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the membership must have.
    pub expected_version: Option<i32>,
}

/// Commands on memberships.
#[derive(Default)]
pub struct MembershipMutation;

async fn change(
    ctx: &Context<'_>,
    input: MembershipCommandInput,
    change: fn(Option<String>) -> Change,
) -> Answer<MembershipPayload> {
    let case = id("membershipId", &input.membership_id).map(|membership| cases::ChangeMember {
        membership,
        change: change(input.reason),
        reason: None,
    });
    run(ctx, input.idempotency_key, input.expected_version, case).await
}

#[Object]
impl MembershipMutation {
    /// Adds a user whom the caller can already see.
    async fn add_member(&self, ctx: &Context<'_>, input: AddMemberInput) -> Answer<MembershipPayload> {
        let case = id("organizationId", &input.organization_id).and_then(|organization| {
            Ok(cases::AddMember {
                organization,
                user: id("userId", &input.user_id)?,
                roles: input.roles,
                source: aggregates::membership::MembershipSource::Direct,
                reason: input.reason,
            })
        });
        run(ctx, input.idempotency_key, None, case).await
    }

    /// Gives a member other roles.
    async fn change_member_roles(&self, ctx: &Context<'_>, input: ChangeMemberRolesInput) -> Answer<MembershipPayload> {
        let case = id("membershipId", &input.membership_id).map(|membership| cases::ChangeMember {
            membership,
            change: Change::Roles(input.roles),
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Keeps a member out for a while; the seat is free.
    async fn suspend_member(&self, ctx: &Context<'_>, input: MembershipCommandInput) -> Answer<MembershipPayload> {
        change(ctx, input, Change::Suspend).await
    }

    /// Lets a suspended member in again.
    async fn reinstate_member(&self, ctx: &Context<'_>, input: MembershipCommandInput) -> Answer<MembershipPayload> {
        change(ctx, input, Change::Reinstate).await
    }

    /// Removes a member.
    async fn remove_member(&self, ctx: &Context<'_>, input: MembershipCommandInput) -> Answer<MembershipPayload> {
        change(ctx, input, Change::Remove).await
    }

    /// Leaves an organization.
    async fn leave_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationCommandInput,
    ) -> Answer<MembershipPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::LeaveOrganization { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }
}
