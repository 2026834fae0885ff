//! The GraphQL layer: reads go through the log (for what may be seen) and read models (for lists), commands through
//! [`crate::commands`]. Resolvers hold no SQL that writes.
//!
//! One file per aggregate holds its types, its lists and its mutations; `session` is what a request carries;
//! `audit` makes the audit types from the event declarations.

mod access_trail;
mod api_token;
mod as_of;
mod audit;
mod audit_status;
mod batch;
mod budget;
mod connection;
mod delivery;
mod described;
mod erasure;
mod errors;
mod feed;
mod introspection;
mod invitation;
mod kept;
mod lists;
mod loaders;
mod membership;
mod node;
mod organization;
mod ownership;
mod payload;
mod project;
mod projection;
mod proofs;
mod query;
mod role;
mod scalars;
mod session;
mod user;
mod webhook;

use async_graphql::{MergedObject, Request, Response, Schema, SchemaBuilder, ValidationMode};
use futures_util::Stream;

pub use errors::{describe, fault, log_fault};
pub use feed::FeedTransport;
pub use introspection::{Root, Rules as Introspection};
pub use kept::{Answers, Looked, Question};
pub use session::{App, Session};

use api_token::ApiToken;
use invitation::Invitation;
use membership::Membership;
use project::Project;
use user::User;
use webhook::WebhookEndpoint;

// Each aggregate adds its fields to the organization that it belongs to, in its own file.
organization::merged! {
    organization::Own,
    membership::Members,
    invitation::Invitations,
    project::Projects,
    api_token::ApiTokens,
    webhook::WebhookEndpoints,
    organization::Trails,
}

/// Commands. Each takes one input and answers with the entity after it, the events that it recorded, the position
/// to read at, and the refusals.
#[derive(MergedObject, Default)]
pub struct Mutation(
    organization::OrganizationMutation,
    invitation::InvitationMutation,
    membership::MembershipMutation,
    project::ProjectMutation,
    user::UserMutation,
    role::RoleMutation,
    ownership::OwnershipMutation,
    api_token::ApiTokenMutation,
    erasure::ErasureMutation,
    webhook::WebhookMutation,
);

type Types = Schema<Root, Mutation, feed::Subscription>;

/// The schema of the service.
pub struct TenancySchema {
    strict: Types,
    /// Takes documents as valid, and looks only at what they cost.
    fast: Types,
}

impl TenancySchema {
    /// Executes a query or a mutation; `valid` documents were accepted before.
    pub async fn execute(&self, request: Request, valid: bool) -> Response {
        if valid { self.fast.execute(request).await } else { self.strict.execute(request).await }
    }

    /// Executes a subscription.
    pub fn execute_stream(&self, request: Request) -> impl Stream<Item = Response> + Send + Unpin + use<> {
        self.strict.execute_stream(request)
    }
}

fn builder(root: Root) -> SchemaBuilder<Root, Mutation, feed::Subscription> {
    Schema::build(root, Mutation::default(), feed::Subscription)
        .register_output_type::<audit::AuditEvent>()
        .register_output_type::<node::Node>()
        .register_output_type::<errors::UserError>()
        .register_output_type::<user::Actor>()
        .disable_suggestions()
}

/// The schema that executes requests; a query may cost `complexity_max`, and nest `nesting_max` levels of text. Requests
/// come to it with the engine's own introspection switched off.
pub fn schema(complexity_max: usize, nesting_max: usize, introspection: Introspection) -> TenancySchema {
    let root = Root::new(query::Query, introspection);
    let model = root.model();
    let whole = builder(Root::new(query::Query, introspection)).finish();
    if let Err(error) = introspection::learn(&whole, &model) {
        tracing::error!(error, "the schema cannot say what it holds; introspection is not answered");
    }
    let limited = |root| builder(root).limit_complexity(complexity_max).limit_recursive_depth(nesting_max);
    TenancySchema {
        fast: limited(root.clone()).validation_mode(ValidationMode::Fast).finish(),
        strict: limited(root).finish(),
    }
}

/// The schema as text, as `schema.graphql` holds it.
pub fn sdl() -> String {
    let introspection = Introspection { bytes_max: 0, without_token: false };
    let schema = builder(Root::new(query::Query, introspection)).finish();
    schema.sdl_with_options(async_graphql::SDLExportOptions::new().sorted_fields().sorted_enum_items())
}
