//! The root of mutations: those of each aggregate together.

use async_graphql::MergedObject;

use super::api_token::ApiTokenMutation;
use super::erasure::ErasureMutation;
use super::invitation::InvitationMutation;
use super::membership::MembershipMutation;
use super::organization::OrganizationMutation;
use super::ownership::OwnershipMutation;
use super::project::ProjectMutation;
use super::role::RoleMutation;
use super::user::UserMutation;
use super::webhook::WebhookMutation;

/// Commands. Each takes one input and answers with the entity after it, the events that it recorded, the position
/// to read at, and the refusals.
#[derive(MergedObject, Default)]
pub struct Mutation(
    OrganizationMutation,
    InvitationMutation,
    MembershipMutation,
    ProjectMutation,
    UserMutation,
    RoleMutation,
    OwnershipMutation,
    ApiTokenMutation,
    ErasureMutation,
    WebhookMutation,
);
