//! Erasing people, and legal holds: for operators.

use async_graphql::{Context, ID, InputObject, Object, OneofObject, SimpleObject};

use super::Organization;
use super::node::Shown;
use super::payload::{Answer, payloads, run};
use super::scalars::Time;
use super::session::{Session, conditions, id};
use crate::commands::Receipt;
use crate::commands::erasure::{EraseSubject as Case, HoldOrganization, named_in};

/// A legal hold: while it stands, nothing of the organization is purged, and nobody of its people is erased.
#[derive(Debug, Clone, SimpleObject)]
pub struct LegalHold {
    /// Since when.
    since: Time,
    /// Why.
    reason: String,
}

impl From<aggregates::organization::LegalHold> for LegalHold {
    fn from(hold: aggregates::organization::LegalHold) -> Self {
        Self { since: Time(hold.since), reason: hold.reason }
    }
}

payloads! {
    /// What became of an erasure.
    ErasePayload {
        /// Events that stay and whose reason names the person, at most 100: it is for an operator to decide about them.
        named_in: Vec<ID> = named,
        /// Whether there may be more of them: the erasure looks at half a million events of the trails where the person is,
        /// was or was invited, and of the installation's, and for three seconds.
        named_in_more: bool = |receipt: &Receipt| named_in(&receipt.events).1,
    }
    /// What became of a command about a legal hold.
    LegalHoldPayload {
        /// The organization after the command.
        organization: Option<Organization> = Organization::after,
    }
}

fn named(receipt: &Receipt) -> Vec<ID> {
    named_in(&receipt.events).0.into_iter().map(|event| ID(event.to_string())).collect()
}

/// The person to be erased.
#[derive(OneofObject)]
pub enum EraseSubject {
    /// A user.
    UserId(ID),
    /// Whom an invitation was for: everything that was sent to that address.
    InvitationId(ID),
}

/// An erasure.
#[derive(InputObject)]
pub struct EraseSubjectInput {
    /// The person.
    subject: EraseSubject,
    /// Why. It stays when everything else goes: one with the person's name or with an address is refused.
    reason: String,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
}

/// A legal hold that is set or released.
#[derive(InputObject)]
pub struct LegalHoldInput {
    /// On which organization.
    organization_id: ID,
    /// Why; it stands in the audit trail.
    reason: String,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the organization must have.
    expected_version: Option<i32>,
}

/// Mutations of erasure and legal hold.
#[derive(Default)]
pub struct ErasureMutation;

#[Object]
impl ErasureMutation {
    /// Operators: make everything that can be read of a person unreadable for ever, everywhere. Refused while the person
    /// is the last owner of an organization, or a legal hold stands where they are, were or were invited. What follows
    /// in organizations (memberships end, invitations are revoked) may take some seconds longer.
    async fn erase_subject(&self, ctx: &Context<'_>, input: EraseSubjectInput) -> Answer<ErasePayload> {
        let run = async {
            let session = Session::of(ctx);
            session.caller()?;
            let (user, invitation) = match &input.subject {
                EraseSubject::UserId(user) => (Some(id("userId", user)?), None),
                EraseSubject::InvitationId(invitation) => (None, Some(id("invitationId", invitation)?)),
            };
            let case = Case { user, invitation, reason: input.reason };
            Ok(session.erase(case, conditions(input.idempotency_key, None)?).await?.into())
        };
        Some(run.await)
    }

    /// Operators: nothing of the organization is purged, and nobody of its people erased, until the hold is released.
    async fn set_legal_hold(&self, ctx: &Context<'_>, input: LegalHoldInput) -> Answer<LegalHoldPayload> {
        hold(ctx, input, true).await
    }

    /// Operators: the organization is held no more.
    async fn release_legal_hold(&self, ctx: &Context<'_>, input: LegalHoldInput) -> Answer<LegalHoldPayload> {
        hold(ctx, input, false).await
    }
}

async fn hold(ctx: &Context<'_>, input: LegalHoldInput, hold: bool) -> Answer<LegalHoldPayload> {
    let organization = id("organizationId", &input.organization_id);
    let case = organization.map(|organization| HoldOrganization { organization, hold, reason: input.reason });
    run(ctx, input.idempotency_key, input.expected_version, case).await
}
