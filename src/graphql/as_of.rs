//! Organizations as they were.

use std::sync::Arc;

use aggregates::ids::{InvitationId, MembershipId, ProjectId};
use async_graphql::connection::{Connection, Edge};
use async_graphql::{Context, Error, ID, Object, OneofObject, OutputType, SimpleObject};
use chrono::SubsecRound;
use serde_json::Value;

use super::connection::{Cursor, Opaque, Page, PageArguments, Slice, cost};
use super::errors::{bad_input, coded, log_fault};
use super::organization::Limit;
use super::proofs::audited;
use super::scalars::{
    Document, InvitationState, Long, MembershipState, OrganizationLifecycle, OrganizationVerification, PositionText,
    ProjectState, Time,
};
use super::session::Session;
use crate::audit::as_of::{self, AsOf, NoAnswer, Part, Snapshot, Window};
use crate::log::{InvalidPosition, Position};

/// As of when.
#[derive(OneofObject)]
pub enum AsOfInput {
    /// After the event at this place in the log.
    Position(PositionText),
    /// After everything that was recorded at this time or before; the time must have come.
    Time(Time),
    /// After the organization's event of this number.
    AuditSequence(Long),
}

impl AsOfInput {
    fn point(self) -> Result<AsOf, Error> {
        Ok(match self {
            Self::Position(text) => {
                let position = text.0.parse::<Position>();
                AsOf::Position(position.map_err(|error: InvalidPosition| bad_input(error.to_string()))?)
            }
            Self::Time(time) => AsOf::Time(time.0.trunc_subsecs(6)),
            Self::AuditSequence(number) => AsOf::AuditSequence(number.0.unsigned_abs()),
        })
    }
}

/// An organization as it was.
pub struct OrganizationSnapshot(Snapshot);

/// Somebody who was a member.
#[derive(SimpleObject)]
pub struct MemberSnapshot {
    /// The id of the membership.
    membership_id: ID,
    /// The id of the user.
    user_id: ID,
    /// The roles (the last ones, when removed).
    roles: Vec<String>,
    /// Whether the member was in.
    state: MembershipState,
}

/// An invitation as it was.
#[derive(SimpleObject)]
pub struct InvitationSnapshot {
    /// The id of the invitation.
    invitation_id: ID,
    /// The invited address; null where erased.
    email: Option<String>,
    /// The roles that the person would have had.
    roles: Vec<String>,
    /// Where it stood, by the clock of that moment: past its time it reads EXPIRED.
    state: InvitationState,
    /// Until when it could be accepted.
    expires_at: Time,
}

/// A project as it was.
#[derive(SimpleObject)]
pub struct ProjectSnapshot {
    /// The id of the project.
    project_id: ID,
    /// The short name.
    slug: String,
    /// The display name.
    name: String,
    /// Where it stood.
    state: ProjectState,
}

/// The place of a part in a list: the number of the event that began it.
#[derive(Debug, Clone)]
struct Place(u64);

impl Cursor for Place {
    fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("as-of ")?.parse().ok().map(Self)
    }

    fn text(&self) -> String {
        format!("as-of {}", self.0)
    }
}

fn page(ctx: &Context<'_>, wanted: PageArguments) -> Result<Page<Place>, Error> {
    wanted.page(Session::of(ctx).page_size_max())
}

fn connection<Id, T, N: OutputType>(
    parts: Vec<(Id, Part<T>)>,
    page: &Page<Place>,
    node: impl Fn(Id, T) -> N,
) -> Connection<Opaque, N> {
    let slice = Slice::new(parts, page);
    let mut connection = Connection::new(slice.has_previous, slice.has_next);
    let edges = slice.rows.into_iter();
    connection.edges =
        edges.map(|(id, part)| Edge::new(Opaque::of(&Place(part.begun)), node(id, part.state))).collect();
    connection
}

fn window(page: &Page<Place>) -> Window {
    let place = |place: &Option<Place>| place.as_ref().map(|place| place.0);
    Window { after: place(&page.after), before: place(&page.before), forward: page.forward, limit: page.limit }
}

/// An organization as it was, folded from the log.
#[Object]
impl OrganizationSnapshot {
    /// The id of the organization.
    async fn id(&self) -> ID {
        ID(self.0.id.to_string())
    }
    /// The number of the last event that is in it.
    async fn audit_sequence(&self) -> Long {
        self.0.fold.audit_sequence.into()
    }
    /// When that event was recorded.
    async fn recorded_at(&self) -> Time {
        Time(self.0.fold.recorded_at)
    }
    /// The unique short name.
    async fn slug(&self) -> &str {
        &self.0.fold.organization.slug
    }
    /// The display name.
    async fn name(&self) -> &str {
        &self.0.fold.organization.name
    }
    /// Whether somebody had looked at it.
    async fn verification(&self) -> OrganizationVerification {
        self.0.fold.organization.status.verification.into()
    }
    /// Whether it was in use.
    async fn lifecycle(&self) -> OrganizationLifecycle {
        self.0.fold.organization.status.lifecycle.into()
    }
    /// Its plan.
    async fn plan(&self) -> &str {
        &self.0.fold.organization.plan
    }
    /// What it could have and what it used.
    async fn limits(&self) -> Vec<Limit> {
        let tally = |name: &str| self.0.fold.tallies.get(name).copied().unwrap_or_default();
        aggregates::limits().map(|limit| Limit::of(limit.name, tally(limit.name))).collect()
    }
    /// The settings documents by namespace.
    async fn settings(&self) -> Document<Value> {
        Document(Value::Object(self.0.fold.organization.settings.clone().into_iter().collect()))
    }

    /// Everybody who was or had been a member, by when they first came.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn members(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> async_graphql::Result<Connection<Opaque, MemberSnapshot>> {
        let page = page(ctx, PageArguments { first, after, last, before })?;
        let node = |id: MembershipId, member: Arc<aggregates::Membership>| MemberSnapshot {
            membership_id: ID(id.to_string()),
            user_id: ID(member.user_id.as_ref().map(|user| user.to_string()).unwrap_or_default()),
            roles: member.roles.clone(),
            state: member.state.into(),
        };
        Ok(connection(self.0.fold.page(window(&page)), &page, node))
    }

    /// Invitations, by creation.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn invitations(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> async_graphql::Result<Connection<Opaque, InvitationSnapshot>> {
        let page = page(ctx, PageArguments { first, after, last, before })?;
        let mut found = self.0.fold.page(window(&page));
        as_of::emails(Session::of(ctx).log(), &mut found).await.map_err(log_fault)?;
        let node = |id: InvitationId, invitation: Arc<aggregates::Invitation>| InvitationSnapshot {
            invitation_id: ID(id.to_string()),
            email: aggregates::personal::readable(&invitation.email).map(str::to_owned),
            state: invitation.state_at(self.0.moment).into(),
            expires_at: Time(invitation.expires_at),
            roles: invitation.roles.clone(),
        };
        Ok(connection(found, &page, node))
    }

    /// Projects, by creation; those of a deleted organization too.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn projects(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> async_graphql::Result<Connection<Opaque, ProjectSnapshot>> {
        let page = page(ctx, PageArguments { first, after, last, before })?;
        let node = |id: ProjectId, project: Arc<aggregates::Project>| ProjectSnapshot {
            project_id: ID(id.to_string()),
            slug: project.slug.clone(),
            name: project.name.clone(),
            state: project.state.into(),
        };
        Ok(connection(self.0.fold.page(window(&page)), &page, node))
    }
}

/// The organization as it was, for whoever may read its audit trail.
pub async fn snapshot(ctx: &Context<'_>, id: &ID, as_of: AsOfInput) -> Result<Option<OrganizationSnapshot>, Error> {
    let Some(organization) = audited(ctx, "id", id).await? else { return Ok(None) };
    let session = Session::of(ctx);
    if session.see_unpruned(&organization).await?.is_none() {
        return Ok(None);
    }
    match session.folds().snapshot(session.log(), &organization, &as_of.point()?).await {
        Ok(snapshot) => Ok(Some(OrganizationSnapshot(snapshot))),
        Err(NoAnswer::NotThere) => Ok(None),
        Err(error @ NoAnswer::PositionUnknown) => Err(coded("POSITION_UNKNOWN", error.to_string())),
        Err(NoAnswer::Point(message)) => Err(bad_input(message)),
        Err(NoAnswer::Log(error)) => Err(log_fault(error)),
    }
}
