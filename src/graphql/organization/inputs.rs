//! The inputs of commands on organizations.

use async_graphql::{ID, InputObject, Json, MaybeUndefined, OneofObject};
use serde_json::Value;

use crate::graphql::scalars::Long;

/// A new organization.
#[derive(InputObject)]
pub struct CreateOrganizationInput {
    /// The display name.
    pub name: String,
    /// The slug: 1–63 of a–z, 0–9, "-", "_", "."; upper case is folded.
    pub slug: String,
    /// Where it can be reached.
    pub contact_email: Option<String>,
    /// Operators: its id in their own systems.
    pub external_id: Option<String>,
    /// Operators: who owns it, if not the caller.
    pub owner_id: Option<ID>,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
}

/// Changes of a profile; what is absent stays, null clears.
#[derive(InputObject)]
pub struct UpdateOrganizationInput {
    /// Which organization.
    pub organization_id: ID,
    /// The display name.
    pub name: Option<String>,
    /// The slug.
    pub slug: Option<String>,
    /// Where it can be reached.
    pub contact_email: MaybeUndefined<String>,
    /// Operators: its id in their own systems.
    pub external_id: MaybeUndefined<String>,
    /// Why; operators have to say.
    pub reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the organization must have.
    pub expected_version: Option<i32>,
}

/// A settings document.
#[derive(InputObject)]
pub struct UpdateOrganizationSettingsInput {
    /// Which organization.
    pub organization_id: ID,
    /// Which document.
    pub namespace: String,
    /// The document; an empty object clears it.
    pub value: Json<Value>,
    /// Why; operators have to say.
    pub reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the organization must have.
    pub expected_version: Option<i32>,
}

/// A command on an organization.
#[derive(InputObject)]
pub struct OrganizationCommandInput {
    /// Which organization.
    pub organization_id: ID,
    /// Why; operators have to say.
    pub reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the organization must have.
    pub expected_version: Option<i32>,
}

/// An operator's act on an organization.
#[derive(InputObject)]
pub struct OrganizationReviewInput {
    /// Which organization.
    pub organization_id: ID,
    /// Why; it stands in the audit trail.
    pub reason: String,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the organization must have.
    pub expected_version: Option<i32>,
}

/// A user's first organization.
#[derive(InputObject)]
pub struct EnsureHomeOrganizationInput {
    /// How the caller's own organization is called; without it, "Home".
    pub name: Option<String>,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
}

/// A limit of one organization.
#[derive(InputObject)]
pub struct SetOrganizationLimitInput {
    /// Which organization.
    pub organization_id: ID,
    /// Which limit: members, projects or tokens.
    pub limit: String,
    /// To what.
    pub value: LimitValue,
    /// Why; it stands in the audit trail.
    pub reason: String,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the organization must have.
    pub expected_version: Option<i32>,
}

/// The value of a limit.
#[derive(OneofObject)]
pub enum LimitValue {
    /// At most so many.
    Maximum(Long),
    /// No limit (true).
    Unlimited(bool),
    /// What the plan says (true).
    FromPlan(bool),
}

/// Another plan.
#[derive(InputObject)]
pub struct ChangeOrganizationPlanInput {
    /// Which organization.
    pub organization_id: ID,
    /// The plan.
    pub plan: String,
    /// Why; it stands in the audit trail.
    pub reason: String,
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the organization must have.
    pub expected_version: Option<i32>,
}
