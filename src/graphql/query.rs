//! The root of queries.

use aggregates::ids::OrganizationId;
use async_graphql::connection::Connection;
use async_graphql::{Context, Error, ID, Object, OneofObject};

use super::Organization;
use super::access_trail::{AccessRecord, access_trail};
use super::as_of::{self, AsOfInput, OrganizationSnapshot};
use super::audit::{AuditConnection, AuditFilter, trail};
use super::audit_status::AuditStatus;
use super::connection::{Opaque, PAGE_MAX, PageArguments, cost};
use super::errors::{bad_input, fault, forbidden, not_found};
use super::invitation::{InvitationPreview, preview};
use super::node::{Node, look_up, node};
use super::organization::organizations;
use super::ownership::{RemovalImpact, removal_impact};
use super::project::Project;
use super::projection::{Projection, projections};
use super::proofs::{self, AuditCheckpoint, AuditConsistencyProof, AuditInclusionProof};
use super::role::{PermissionDescription, Role, catalogue, permissions, roles};
use super::scalars::{Long, OrganizationLifecycle, OrganizationVerification, PositionText};
use super::session::{Session, id};
use super::user::{User, Viewer, users};
use super::webhook::{WebhookEventType, event_types};

/// By what an organization is named.
#[derive(OneofObject)]
pub enum OrganizationBy {
    /// Its id.
    Id(ID),
    /// Its slug.
    Slug(String),
    /// Its id in the operators' own systems.
    ExternalId(String),
}

impl OrganizationBy {
    fn text(&self) -> &str {
        match self {
            Self::Id(text) => text,
            Self::Slug(text) | Self::ExternalId(text) => text,
        }
    }
}

/// Reads. `atLeast` waits (bounded) until the read models have reached all of these positions, else STALE_READ. As a
/// request extension (`"extensions": {"atLeast": […]}`) it holds for the whole operation; `node` and `viewer` take it only
/// so.
#[derive(Clone, Copy)]
pub struct Query;

/// A root field's answer: what is not there, or not for this caller, is NOT_FOUND.
fn found<T>(result: Result<Option<T>, Error>) -> Option<async_graphql::Result<T>> {
    Some(result.and_then(|found| found.ok_or_else(not_found)))
}

/// Reads. Lists are connections; what the caller may not see is NOT_FOUND, as if it did not exist.
#[Object]
impl Query {
    /// Anything, by its id.
    async fn node(&self, ctx: &Context<'_>, id: ID) -> Option<async_graphql::Result<Node>> {
        found(node(ctx, &id).await)
    }

    /// Several things, by their ids, in that order.
    #[graphql(complexity = "ids.len().saturating_mul(child_complexity).saturating_add(1)")]
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        ids: Vec<ID>,
        at_least: Option<Vec<PositionText>>,
    ) -> Option<async_graphql::Result<Vec<Option<async_graphql::Result<Node>>>>> {
        let read = async {
            if ids.len() > PAGE_MAX.unsigned_abs() as usize {
                return Err(bad_input(format!("{} ids were given: give at most {PAGE_MAX}", ids.len())));
            }
            Session::of(ctx).at_least(at_least).await?;
            let nodes = ids.iter().map(|id| async { found(node(ctx, id).await) });
            Ok(futures_util::future::join_all(nodes).await)
        };
        Some(read.await)
    }

    /// The calling user; FORBIDDEN for an API token.
    async fn viewer(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<Viewer>> {
        let session = Session::of(ctx);
        let person = session.caller_of_any_state().and_then(|caller| {
            let person = caller.principal.person().cloned();
            person.inspect_err(|_| session.note_refusal(None, None)).map_err(fault)
        });
        Some(person.map(Viewer))
    }

    /// An organization.
    async fn organization(
        &self,
        ctx: &Context<'_>,
        by: OrganizationBy,
        at_least: Option<Vec<PositionText>>,
    ) -> Option<async_graphql::Result<Organization>> {
        let read = async {
            let session = Session::of(ctx);
            session.at_least(at_least).await?;
            let typed = if let OrganizationBy::Id(id) = &by { Some(id.to_string()) } else { None };
            let text = by.text().to_owned();
            let Some(id) = named(session, by).await? else {
                session.see_owner(None, &text).await?;
                return Ok(None);
            };
            let seen = session.see(&id).await?;
            if seen.is_none() {
                session.note_reach(Some(&id), typed.as_deref());
            }
            Ok(seen.map(Organization::from))
        };
        found(read.await)
    }

    /// Operators: all organizations, by creation.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn organizations(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        verification: Option<OrganizationVerification>,
        lifecycle: Option<OrganizationLifecycle>,
        search: Option<String>,
        at_least: Option<Vec<PositionText>>,
    ) -> Option<async_graphql::Result<Connection<Opaque, Organization>>> {
        let read = async {
            operator(ctx)?;
            Session::of(ctx).at_least(at_least).await?;
            organizations(ctx, PageArguments { first, after, last, before }, verification, lifecycle, search).await
        };
        Some(read.await)
    }

    /// Operators: users who are found by the beginning of a name, of a later word of it, or of an address; in the order of
    /// what was found.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The beginning; case does not count, and nothing finds everybody.")] search: String,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        at_least: Option<Vec<PositionText>>,
    ) -> Option<async_graphql::Result<Connection<Opaque, User>>> {
        let read = async {
            operator(ctx)?;
            Session::of(ctx).at_least(at_least).await?;
            users(ctx, PageArguments { first, after, last, before }, &search).await
        };
        Some(read.await)
    }

    /// A project.
    async fn project(
        &self,
        ctx: &Context<'_>,
        id: ID,
        at_least: Option<Vec<PositionText>>,
    ) -> Option<async_graphql::Result<Project>> {
        let read = async {
            let id = super::session::id("id", &id)?;
            Session::of(ctx).at_least(at_least).await?;
            look_up(Session::of(ctx), id).await
        };
        found(read.await)
    }

    /// What the caller may do in an organization, by name; operators ask it of another user too, and API
    /// tokens that may read members.
    async fn permissions(
        &self,
        ctx: &Context<'_>,
        organization_id: ID,
        user_id: Option<ID>,
        at_least: Option<Vec<PositionText>>,
    ) -> Option<async_graphql::Result<Vec<String>>> {
        let read = async {
            let session = Session::of(ctx);
            let organization = id("organizationId", &organization_id)?;
            let user = user_id.map(|user| id("userId", &user)).transpose()?;
            session.at_least(at_least).await?;
            permissions(session, &organization, user).await
        };
        found(read.await)
    }

    /// The roles of an organization: the built-in ones, then its own.
    #[graphql(complexity = "1 + 70 * child_complexity")]
    async fn roles(&self, ctx: &Context<'_>, organization_id: ID) -> Option<async_graphql::Result<Vec<Role>>> {
        let read = async { roles(Session::of(ctx), &id("organizationId", &organization_id)?).await };
        found(read.await)
    }

    /// What removing this member would end, for whoever may remove members.
    async fn removal_impact(
        &self,
        ctx: &Context<'_>,
        membership_id: ID,
    ) -> Option<async_graphql::Result<RemovalImpact>> {
        let read = async { removal_impact(Session::of(ctx), &id("membershipId", &membership_id)?).await };
        found(read.await)
    }

    /// Everything that a role may permit.
    #[graphql(complexity = "1 + 20 * child_complexity")]
    async fn permission_catalogue(&self) -> Option<Vec<PermissionDescription>> {
        Some(catalogue())
    }

    /// Every type of event that webhooks are sent, with the JSON Schema of its body; also at /webhooks/catalog.
    #[graphql(complexity = "1 + 100 * child_complexity")]
    async fn webhook_event_types(&self) -> Option<Vec<WebhookEventType>> {
        Some(event_types())
    }

    /// What the holder of an invitation's token may know. Needs no authentication and never changes anything.
    async fn invitation_preview(
        &self,
        ctx: &Context<'_>,
        token: String,
    ) -> Option<async_graphql::Result<InvitationPreview>> {
        found(preview(ctx, &token).await)
    }

    /// Operators: how the read models stand.
    #[graphql(complexity = "1 + 100 * child_complexity")]
    async fn projections(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<Vec<Projection>>> {
        let read = async {
            operator(ctx)?;
            projections(Session::of(ctx)).await
        };
        Some(read.await)
    }

    /// Operators: whether the log is as the service wrote and signed it, as far as this replica has looked.
    async fn audit_status(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<AuditStatus>> {
        Some(operator(ctx).map(|()| AuditStatus::of(Session::of(ctx))))
    }

    /// Operators: the audit trail of all organizations and of users, by time.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn audit_trail(
        &self,
        ctx: &Context<'_>,
        filter: Option<AuditFilter>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<AuditConnection>> {
        let read = async {
            operator(ctx)?;
            trail(ctx, None, filter, PageArguments { first, after, last, before }).await
        };
        Some(read.await)
    }

    /// An organization as it was, folded from the log, for whoever may read its audit trail: the same answer for ever,
    /// but for what was erased.
    async fn organization_as_of(
        &self,
        ctx: &Context<'_>,
        id: ID,
        as_of: AsOfInput,
    ) -> Option<async_graphql::Result<OrganizationSnapshot>> {
        found(as_of::snapshot(ctx, &id, as_of).await)
    }

    /// The newest signed head of an organization's audit trail, for whoever may read that; a moment after the first event.
    async fn audit_checkpoint(
        &self,
        ctx: &Context<'_>,
        organization_id: ID,
    ) -> Option<async_graphql::Result<AuditCheckpoint>> {
        found(proofs::checkpoint(ctx, &organization_id).await)
    }

    /// The proof that an event is in the audit trail's tree of this size; in the newest, without.
    async fn audit_inclusion_proof(
        &self,
        ctx: &Context<'_>,
        organization_id: ID,
        audit_sequence: Long,
        tree_size: Option<Long>,
    ) -> Option<async_graphql::Result<AuditInclusionProof>> {
        found(proofs::inclusion(ctx, &organization_id, audit_sequence, tree_size).await)
    }

    /// The proof that the audit trail's tree of one size is the beginning of that of another; of the newest, without.
    async fn audit_consistency_proof(
        &self,
        ctx: &Context<'_>,
        organization_id: ID,
        from_size: Long,
        to_size: Option<Long>,
    ) -> Option<async_graphql::Result<AuditConsistencyProof>> {
        found(proofs::consistency(ctx, &organization_id, from_size, to_size).await)
    }

    /// Operators: the access trail of all organizations, with what was reached for across them, by time.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn access_trail(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<Connection<Opaque, AccessRecord>>> {
        let read = async {
            operator(ctx)?;
            access_trail(ctx, PageArguments { first, after, last, before }).await
        };
        Some(read.await)
    }
}

fn operator(ctx: &Context<'_>) -> Result<(), Error> {
    if Session::of(ctx).is_operator() {
        return Ok(());
    }
    Session::of(ctx).note_refusal(None, None);
    Err(forbidden("only operators of the service may read this"))
}

async fn named(session: &Session, by: OrganizationBy) -> Result<Option<OrganizationId>, Error> {
    let (scope, key) = match by {
        OrganizationBy::Id(text) => return id("id", &text).map(Some),
        OrganizationBy::Slug(slug) => (aggregates::Organization::SLUG, slug.to_ascii_lowercase()),
        OrganizationBy::ExternalId(external_id) => (aggregates::Organization::EXTERNAL_ID, external_id),
    };
    session.holder(scope, &key).await
}
