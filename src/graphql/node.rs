//! Anything with an id.

use std::borrow::Cow;

use aggregates::ids::{
    ApiTokenId, EventId, Id, InvitationId, MembershipId, OrganizationId, ProjectId, UserId, WebhookDeliveryId,
    WebhookEndpointId,
};
use aggregates::roles::Permission;
use aggregates::{StreamId, descriptors};
use async_graphql::parser::types::Field;
use async_graphql::registry::{MetaTypeId, Registry};
use async_graphql::resolver_utils::ContainerType;
use async_graphql::{Context, ContextSelectionSet, Error, OutputType, Positioned, ServerResult, Value};

use super::api_token::ApiToken;
use super::audit::{AuditEvent, event, meta_interface};
use super::delivery::{WebhookDelivery, WebhookRow};
use super::errors::{bad_input, log_fault};
use super::invitation::Invitation;
use super::membership::Membership;
use super::organization::Organization;
use super::project::Project;
use super::session::Session;
use super::user::User;
use super::webhook::WebhookEndpoint;
use crate::commands::invitations::email_claim;
use crate::commands::members::sees_user;
use crate::commands::nowhere;

/// The name of the interface.
pub const INTERFACE: &str = "Node";

/// Anything with an id.
#[allow(clippy::large_enum_variant)]
pub enum Node {
    /// An organization.
    Organization(Organization),
    /// A user.
    User(User),
    /// A membership.
    Membership(Membership),
    /// An invitation.
    Invitation(Invitation),
    /// A project.
    Project(Project),
    /// An API token.
    ApiToken(ApiToken),
    /// A webhook endpoint.
    WebhookEndpoint(WebhookEndpoint),
    /// An event on its way to one.
    WebhookDelivery(WebhookDelivery),
    /// An event.
    Event(AuditEvent),
}

macro_rules! each {
    ($node:expr, $inner:ident => $answer:expr) => {
        match $node {
            Node::Organization($inner) => $answer,
            Node::User($inner) => $answer,
            Node::Membership($inner) => $answer,
            Node::Invitation($inner) => $answer,
            Node::Project($inner) => $answer,
            Node::ApiToken($inner) => $answer,
            Node::WebhookEndpoint($inner) => $answer,
            Node::WebhookDelivery($inner) => $answer,
            Node::Event($inner) => $answer,
        }
    };
}

impl OutputType for Node {
    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed(INTERFACE)
    }

    fn introspection_type_name(&self) -> Cow<'static, str> {
        each!(self, node => node.introspection_type_name())
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Interface, |registry| {
            <Organization as OutputType>::create_type_info(registry);
            <User as OutputType>::create_type_info(registry);
            <Membership as OutputType>::create_type_info(registry);
            <Invitation as OutputType>::create_type_info(registry);
            <Project as OutputType>::create_type_info(registry);
            <ApiToken as OutputType>::create_type_info(registry);
            <WebhookEndpoint as OutputType>::create_type_info(registry);
            <WebhookDelivery as OutputType>::create_type_info(registry);
            <AuditEvent as OutputType>::create_type_info(registry);
            let own = [
                "Organization",
                "User",
                "Membership",
                "Invitation",
                "Project",
                "ApiToken",
                "WebhookEndpoint",
                "WebhookDelivery",
            ]
            .map(str::to_owned);
            own.iter().for_each(|name| registry.add_implements(name, INTERFACE));
            let id = super::audit::id_field();
            let possible = own.into_iter().chain(descriptors().map(|descriptor| descriptor.object_type())).collect();
            let fields = [("id".to_owned(), id)].into_iter().collect();
            meta_interface(INTERFACE, "Anything with an id.", fields, possible, std::any::type_name::<Self>())
        })
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _field: &Positioned<Field>) -> ServerResult<Value> {
        async_graphql::resolver_utils::resolve_container(ctx, self).await
    }
}

impl ContainerType for Node {
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<Value>> {
        each!(self, node => node.resolve_field(ctx).await)
    }

    fn collect_all_fields<'a>(
        &'a self,
        ctx: &ContextSelectionSet<'a>,
        fields: &mut async_graphql::resolver_utils::Fields<'a>,
    ) -> ServerResult<()> {
        each!(self, node => node.collect_all_fields(ctx, fields))
    }
}

/// The node of an id; `None` where there is none that the caller may see.
pub async fn node(ctx: &Context<'_>, id: &str) -> Result<Option<Node>, Error> {
    let session = Session::of(ctx);
    session.caller()?;
    if id.starts_with("evt_") {
        return Ok(event(session, id).await?.map(Node::Event));
    }
    if let Ok(id) = id.parse::<WebhookDeliveryId>() {
        return webhook_delivery(session, &id).await;
    }
    match StreamId::from_id(id) {
        Some(StreamId::Organization(id)) => organization(session, &id).await,
        Some(StreamId::Membership(id)) => membership(session, id).await,
        Some(StreamId::Invitation(id)) => invitation(session, id).await,
        Some(StreamId::Project(id)) => Ok(project(session, id).await?.map(Node::Project)),
        Some(StreamId::User(id)) => user(session, id).await,
        Some(StreamId::ApiToken(id)) => api_token(session, &id).await,
        Some(StreamId::WebhookEndpoint(id)) => webhook_endpoint(session, &id).await,
        None => {
            let kinds = [
                OrganizationId::PREFIX,
                UserId::PREFIX,
                MembershipId::PREFIX,
                InvitationId::PREFIX,
                ProjectId::PREFIX,
                ApiTokenId::PREFIX,
                WebhookEndpointId::PREFIX,
                WebhookDeliveryId::PREFIX,
                EventId::PREFIX,
            ];
            let shown: String = id.chars().take(40).collect();
            Err(bad_input(format!(
                "{shown:?} is no id: ids begin with one of {}, then '_' and 26 characters",
                kinds.join(", ")
            )))
        }
    }
}

async fn organization(session: &Session, id: &OrganizationId) -> Result<Option<Node>, Error> {
    let seen = session.see(id).await?;
    if seen.is_none() {
        session.note_reach(Some(id), Some(id.as_ref()));
    }
    Ok(seen.map(|seen| Node::Organization(Organization::new(seen.id, &seen.organization))))
}

async fn membership(session: &Session, id: MembershipId) -> Result<Option<Node>, Error> {
    let now = session.log().current(&[id.clone().into()]).await.map_err(log_fault)?;
    let loaded = now.get::<aggregates::Membership>(&id);
    let own = loaded.state.user_id.as_ref().is_some_and(|user| session.is(user));
    let kept = own && loaded.state.state != aggregates::membership::MembershipState::Removed;
    // Somebody suspended sees that much, as the viewer's own memberships show it.
    let visible = match session.see_owner(loaded.organization.as_ref(), id.as_ref()).await? {
        Some(seen) => kept || seen.may(Permission::MemberRead),
        None => kept && session.is_live(loaded.organization.as_ref()).await?,
    };
    if !visible {
        session.note_reach(loaded.organization.as_ref(), Some(id.as_ref()));
    }
    Ok(Membership::new(id, &loaded).filter(|_| visible).map(Node::Membership))
}

async fn invitation(session: &Session, id: InvitationId) -> Result<Option<Node>, Error> {
    let now = session.log().current(&[id.clone().into()]).await.map_err(log_fault)?;
    let loaded = now.get::<aggregates::Invitation>(&id);
    let owner = loaded.organization.clone();
    let own = session.caller()?.principal.email().map(|email| email_claim(session.log().keys(), email));
    let own = own.zip(loaded.state.email_claim.as_ref()).is_some_and(|(own, invited)| own.matches(invited));
    let seen = session.see_owner(owner.as_ref(), id.as_ref()).await?;
    let there = session.is_there(&owner.clone().unwrap_or_else(|| nowhere(id.as_ref()))).await?;
    let visible = (there && own) || seen.is_some_and(|seen| seen.may(Permission::InvitationRead));
    if !visible {
        session.note_reach(owner.as_ref(), Some(id.as_ref()));
    }
    Ok(visible.then(|| Node::Invitation(Invitation::new(id, &loaded))))
}

/// The project of an id, where the caller may see it.
pub async fn project(session: &Session, id: ProjectId) -> Result<Option<Project>, Error> {
    session.caller()?;
    let now = session.log().current(&[id.clone().into()]).await.map_err(log_fault)?;
    let loaded = now.get::<aggregates::Project>(&id);
    let seen = session.see_owner(loaded.organization.as_ref(), id.as_ref()).await?;
    // While the organization is deleted, its projects are gone.
    let there = seen.is_some_and(|seen| {
        let deleted = seen.organization.state.status.lifecycle == aggregates::status::Lifecycle::Deleted;
        !deleted && seen.may(Permission::ProjectRead)
    });
    if !there {
        session.note_reach(loaded.organization.as_ref(), Some(id.as_ref()));
    }
    Ok((there && loaded.state.is_present()).then(|| Project::new(id, &loaded)))
}

async fn api_token(session: &Session, id: &ApiTokenId) -> Result<Option<Node>, Error> {
    session.caller()?;
    let now = session.log().current(&[id.clone().into()]).await.map_err(log_fault)?;
    let loaded = now.get::<aggregates::ApiToken>(id);
    let seen = session.see_owner(loaded.organization.as_ref(), id.as_ref()).await?;
    let visible = seen.is_some_and(|seen| seen.may(Permission::TokenRead));
    if !visible {
        session.note_reach(loaded.organization.as_ref(), Some(id.as_ref()));
    }
    Ok(visible.then(|| Node::ApiToken(ApiToken::new(id, &loaded))))
}

async fn webhook_endpoint(session: &Session, id: &WebhookEndpointId) -> Result<Option<Node>, Error> {
    let now = session.log().current(&[id.clone().into()]).await.map_err(log_fault)?;
    let loaded = now.get::<aggregates::WebhookEndpoint>(id);
    let seen = session.see_owner(loaded.organization.as_ref(), id.as_ref()).await?;
    let visible = loaded.state.is_present() && seen.is_some_and(|seen| seen.may(Permission::WebhookRead));
    if !visible {
        session.note_reach(loaded.organization.as_ref(), Some(id.as_ref()));
    }
    Ok(WebhookEndpoint::new(id, &loaded).filter(|_| visible).map(Node::WebhookEndpoint))
}

async fn webhook_delivery(session: &Session, id: &WebhookDeliveryId) -> Result<Option<Node>, Error> {
    let row = session.loaders().deliveries.load_one(id.to_string()).await?;
    let organization = row.as_ref().and_then(|row: &WebhookRow| row.organization());
    let seen = session.see_owner(organization.as_ref(), id.as_ref()).await?;
    // What was sent is what the audit trail says.
    let visible = seen.is_some_and(|seen| seen.may(Permission::WebhookRead) && seen.may(Permission::AuditRead));
    if !visible {
        session.note_reach(organization.as_ref(), Some(id.as_ref()));
    }
    Ok(row.filter(|_| visible).map(|row| Node::WebhookDelivery(row.into())))
}

async fn user(session: &Session, id: UserId) -> Result<Option<Node>, Error> {
    let caller = &session.caller()?.principal;
    let visible = session.is_operator() || sees_user(session.log(), caller, &id).await.map_err(log_fault)?;
    let now = session.log().current(&[id.clone().into()]).await.map_err(log_fault)?;
    let there = now.get::<aggregates::User>(&id).version > 0;
    Ok((visible && there).then_some(Node::User(User::new(id))))
}
