//! Memberships.

use std::sync::Arc;

use aggregates::ids::{Id, MembershipId};
use aggregates::roles::Permission;
use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Enum, ID, InputObject, Object};
use chrono::{DateTime, Utc};
use projections::directory::folded;
use sqlx::{Postgres, QueryBuilder};

use super::Organization;
use super::connection::{BY_CREATION, Called, Created, Opaque, PageArguments, cost};
use super::lists::{Holds, List, Sorted, row};
use super::node::{Seeing, Shown};
use super::organization::{OrganizationCommandInput, Profile};
use super::payload::{Answer, payloads, run};
use super::scalars::{MembershipSource, MembershipState, Time, int, name, named, stored};
use super::session::{Session, id};
use super::user::{User, user};
use crate::commands::members::{self as cases, Change};
use crate::log::Loaded;

/// Which members.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MemberList {
    /// With this role.
    pub role: Option<String>,
    /// In this state; else those who are not removed.
    pub state: Option<String>,
}

impl List for MemberList {
    type Row = Membership;
    type Node = Membership;
    const PREFIX: &'static str = MembershipId::PREFIX;
    const SELECT: &'static [&'static str] = Membership::SELECT;
    const READ: &'static [Permission] = &[Permission::MemberRead];
    type Place = Created;
    const BY: (&'static str, &'static str) = BY_CREATION;
    type Extra = EmptyFields;

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        match &self.state {
            Some(state) => query.push(" AND state = ").push_bind(state.clone()),
            None => query.push(" AND state <> 'REMOVED'"),
        };
        if let Some(role) = &self.role {
            query.push(" AND ").push_bind(role.clone()).push(" = ANY(roles)");
        }
    }

    fn holds(&self, _: &[Self::Row]) -> Holds {
        Holds::UntilEvents
    }

    fn place(row: &Self::Row) -> Created {
        Created { at: row.created_at, id: row.id.clone() }
    }
}

/// Members by what they are called: all of them by their names, or those who are found by the beginning of a word.
#[derive(Debug, Clone)]
pub struct MembersCalled {
    members: MemberList,
    /// The beginning, folded.
    beginning: Option<String>,
}

impl List for MembersCalled {
    type Row = Sorted<Membership>;
    type Node = Membership;
    const PREFIX: &'static str = MembershipId::PREFIX;
    const SELECT: &'static [&'static str] =
        &[Membership::COLUMNS, ", word FROM directory.people JOIN members USING (organization_id)"];
    const READ: &'static [Permission] = MemberList::READ;
    type Place = Called;
    const BY: (&'static str, &'static str) = ("word", "entry");
    type Extra = EmptyFields;

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        query.push(" AND id = entry");
        self.members.push(query);
        push_beginning(query, self.beginning.as_deref());
    }

    fn holds(&self, _: &[Self::Row]) -> Holds {
        // Names change without an event of the organization.
        Holds::Unknown
    }

    fn place(row: &Self::Row) -> Called {
        row.place(|member| &member.id)
    }
}

impl From<Sorted<Membership>> for Membership {
    fn from(sorted: Sorted<Self>) -> Self {
        sorted.into_row()
    }
}

/// Adds which entries of the directory are meant: those that a word leads to which begins so, each at its first one; or all,
/// by their names.
pub fn push_beginning(query: &mut QueryBuilder<'_, Postgres>, beginning: Option<&str>) {
    let Some(beginning) = beginning else {
        query.push(" AND is_name");
        return;
    };
    let end = format!("{beginning}{}", char::MAX);
    query.push(" AND word >= ").push_bind(beginning.to_owned()).push(" AND word < ").push_bind(end);
    query.push(
        " AND NOT EXISTS (
              SELECT FROM directory.people e
              WHERE e.person = people.person AND e.organization_id = people.organization_id AND e.entry = people.entry
                AND e.word < people.word AND e.word >= ",
    );
    query.push_bind(beginning.to_owned()).push(")");
}

row! {
    /// What one user is in one organization.
    pub struct Membership of "members" {
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
}

impl Shown for Membership {
    type Of = aggregates::Membership;

    /// `None` where nobody ever joined.
    fn new(id: MembershipId, loaded: &Loaded<aggregates::Membership>) -> Option<Self> {
        let state = &loaded.state;
        Some(Self {
            id: id.into(),
            organization_id: loaded.organization.clone()?.into(),
            user_id: state.user_id.clone()?.into(),
            roles: state.roles.clone(),
            state: name(state.state),
            source: name(state.source),
            joined_at: state.joined_at,
            version: loaded.version.cast_signed(),
            // Only lists go by it, and they come from the read model.
            created_at: state.joined_at,
        })
    }

    async fn is_visible(session: &Session, id: &MembershipId, loaded: &Loaded<aggregates::Membership>) -> Seeing {
        let own = loaded.state.user_id.as_ref().is_some_and(|user| session.is(user));
        let kept = own && loaded.state.state != aggregates::membership::MembershipState::Removed;
        // Somebody suspended sees that much, as the viewer's own memberships show it.
        match session.see_owner(loaded.organization.as_ref(), id.as_ref()).await? {
            Some(seen) => Ok(kept || seen.may(Permission::MemberRead)),
            None => Ok(kept && session.is_live(loaded.organization.as_ref()).await?),
        }
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
        Organization::of(ctx, &self.organization_id).await
    }
    /// The user.
    async fn user(&self) -> User {
        user(&self.user_id)
    }
    /// The roles at organization scope, the most powerful first.
    async fn roles(&self) -> &[String] {
        &self.roles
    }
    /// Whether the member is in.
    async fn state(&self) -> MembershipState {
        named::<aggregates::membership::MembershipState>(&self.state).into()
    }
    /// How the member came in last.
    async fn source(&self) -> MembershipSource {
        named::<aggregates::membership::MembershipSource>(&self.source).into()
    }
    /// When the member came in last.
    async fn joined_at(&self) -> Time {
        Time(self.joined_at)
    }
    /// How often it was changed.
    async fn version(&self) -> i32 {
        int(self.version.unsigned_abs())
    }
}

/// How members are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Enum)]
pub enum MemberOrder {
    /// By when they first came.
    #[default]
    Created,
    /// By name; by address those without one.
    Name,
}

/// What an organization shows of its members.
#[derive(Clone)]
pub struct Members(pub Arc<Profile>);

#[Object]
impl Members {
    /// Members; without a state, those who are not removed.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn members(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        role: Option<String>,
        state: Option<MembershipState>,
        #[graphql(
            desc = "Only those with a name, a later word of it or an address that begins so; case does not count. They \
                          come in the order of what was found."
        )]
        search: Option<String>,
        #[graphql(desc = "In which order, where nothing is searched for.", default)] order_by: MemberOrder,
    ) -> Option<async_graphql::Result<Connection<Opaque, Membership>>> {
        let members = MemberList { role, state: state.map(stored) };
        let page = PageArguments { first, after, last, before };
        let beginning = search.map(|text| folded(&text)).filter(|text| !text.is_empty());
        Some(match (beginning, order_by) {
            (None, MemberOrder::Created) => self.0.list(ctx, members, page).await,
            (beginning, _) => self.0.list(ctx, MembersCalled { members, beginning }, page).await,
        })
    }
}

payloads! {
    /// What became of a command on a membership.
    MembershipPayload {
        /// The membership after the command.
        membership: Option<Membership> = Membership::after,
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
