//! The domain of tenancy.
//!
//! Each aggregate is one file, in this order: events, state, commands, `decide`, `apply`, and what it says of itself as a
//! [`Resource`]. It is registered once, by [`for_each_resource!`] below. Deciding is pure and synchronous: time, ids and
//! the caller's rights come in with the command.
//!
//! What is always so:
//! - an event's stored name and the meaning of its fields never change; a new shape gets a new version and an
//!   entry in [`upcasters`];
//! - matches that give each event its effect (here and in projections) have no wildcard, so the compiler finds the places
//!   that a new event touches; only a look for one kind of event may leave the others out;
//! - whatever can be read of a person is [`Personal`].

pub mod actor;
pub mod api_token;
pub mod error;
pub mod event;
pub mod guard;
pub mod ids;
pub mod invitation;
pub mod membership;
pub mod organization;
pub mod ownership;
pub mod personal;
pub mod project;
pub mod recorded;
pub mod resource;
pub mod roles;
pub mod status;
mod stream;
pub mod text;
pub mod user;
pub mod webhook;

pub use actor::Actor;
pub use api_token::ApiToken;
pub use cqrs_es::Aggregate;
pub use error::Refusal;
pub use event::{Declared, Descriptor, Snapshot};
pub use guard::{Effect, Scope};
pub use invitation::Invitation;
pub use membership::Membership;
pub use organization::Organization;
pub use personal::{Digest, Erasure, Personal};
pub use project::Project;
pub use recorded::{Origin, Recorded};
pub use resource::{Change, Limit, Place, Registered, Resource, State, limits};
pub use stream::{Event, PRUNED, StreamId, UnreadableEvent, descriptors, descriptors_of_organizations, upcasters};
pub use user::User;
pub use webhook::WebhookEndpoint;

/// Gives `$make!` the list of all aggregates: the type's name, its id's name, and how its ids begin. What the crates keep
/// for each aggregate is made from this list.
#[macro_export]
macro_rules! for_each_resource {
    ($($make:tt)+) => {
        $($make)+! {
            /// An organization.
            Organization: OrganizationId = "org";
            /// A membership: one for each organization and user, for ever.
            Membership: MembershipId = "mem";
            /// An invitation.
            Invitation: InvitationId = "inv";
            /// A project.
            Project: ProjectId = "prj";
            /// A user.
            User: UserId = "usr";
            /// An API token of an organization.
            ApiToken: ApiTokenId = "tok";
            /// A webhook endpoint.
            WebhookEndpoint: WebhookEndpointId = "whk";
        }
    };
}

roles::permissions! {
    /// See the organization itself, its limits and settings.
    OrganizationRead = "organization:read" of [admin billing auditor member guest],
    /// Change name, slug, contact and settings.
    OrganizationUpdate = "organization:update" of [admin],
    /// Submit the organization for verification.
    OrganizationSubmit = "organization:submit" of [admin],
    /// Delete and restore the organization.
    OrganizationDelete = "organization:delete" of [],
    /// See members.
    MemberRead = "member:read" of [admin billing auditor member],
    /// Invite, resend, revoke.
    MemberInvite = "member:invite" of [admin],
    /// Add a user whom the caller can see.
    MemberAdd = "member:add" of [admin],
    /// Change roles.
    MemberUpdate = "member:update" of [admin],
    /// Suspend and reinstate.
    MemberSuspend = "member:suspend" of [admin],
    /// Remove.
    MemberRemove = "member:remove" of [admin],
    /// See invitations.
    InvitationRead = "invitation:read" of [admin auditor],
    /// See projects.
    ProjectRead = "project:read" of [admin auditor member guest],
    /// Create projects.
    ProjectCreate = "project:create" of [admin member],
    /// Change and archive projects.
    ProjectUpdate = "project:update" of [admin member],
    /// Delete and restore projects.
    ProjectDelete = "project:delete" of [admin],
    /// Read the audit trail.
    AuditRead = "audit:read" of [admin auditor],
    /// Define, change and remove the organization's own roles.
    RoleManage = "role:manage" of [admin],
    /// See API tokens; never their secrets.
    TokenRead = "token:read" of [admin auditor],
    /// Create and revoke API tokens.
    TokenManage = "token:manage" of [admin],
    /// See webhook endpoints; never their secrets.
    WebhookRead = "webhook:read" of [admin auditor],
    /// Create, change, test and delete webhook endpoints. They receive what `audit:read` lets one read, so what they are
    /// sent, and where, needs that permission too.
    WebhookManage = "webhook:manage" of [admin],
}

/// Makes a type with `decide` and `apply` an aggregate of cqrs-es.
macro_rules! aggregate {
    ($aggregate:ident, $stream:literal, $command:ident, $event:ident, shape $shape:literal, personal [$($field:ident),*]) => {
        impl crate::event::Snapshot for $aggregate {
            const SHAPE: i32 = $shape;
            #[allow(unused_variables)]
            fn visit_personal(&mut self, visit: &mut crate::event::PersonalVisitor<'_>) {
                $( crate::event::Field::visit_personal(&mut self.$field, stringify!($field), visit); )*
            }
        }

        impl cqrs_es::Aggregate for $aggregate {
            const TYPE: &'static str = $stream;
            type Command = $command;
            type Event = $event;
            type Error = crate::error::Refusal;
            type Services = ();

            async fn handle(
                &mut self,
                command: Self::Command,
                (): &Self::Services,
                sink: &cqrs_es::event_sink::EventSink<Self>,
            ) -> Result<(), Self::Error> {
                for event in self.decide(command)? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: Self::Event) {
                Self::apply(self, event);
            }
        }
    };
}
use aggregate;
