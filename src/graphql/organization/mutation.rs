//! Commands on organizations.

use aggregates::membership::MembershipSource;
use async_graphql::{Context, Error, MaybeUndefined, Object};

use super::OrganizationPayload;
use super::inputs::{
    ChangeOrganizationPlanInput, CreateOrganizationInput, EnsureHomeOrganizationInput, LimitValue,
    OrganizationCommandInput, OrganizationReviewInput, SetOrganizationLimitInput, UpdateOrganizationInput,
    UpdateOrganizationSettingsInput,
};
use crate::commands::first_organization::EnsureHomeOrganization;
use crate::commands::organizations as cases;
use crate::graphql::errors::bad_input;
use crate::graphql::payload::{Answer, run};
use crate::graphql::scalars::Long;
use crate::graphql::session::id;

/// Commands on organizations.
#[derive(Default)]
pub struct OrganizationMutation;

#[Object]
impl OrganizationMutation {
    /// Creates an organization; its owner joins in the same commit.
    async fn create_organization(
        &self,
        ctx: &Context<'_>,
        input: CreateOrganizationInput,
    ) -> Answer<OrganizationPayload> {
        let owner = input.owner_id.map(|owner| id("ownerId", &owner)).transpose();
        let case = owner.map(|owner| cases::CreateOrganization {
            name: input.name,
            slug: input.slug,
            contact_email: input.contact_email,
            external_id: input.external_id,
            owner,
            reason: None,
            source: MembershipSource::Founder,
        });
        run(ctx, input.idempotency_key, None, case).await
    }

    /// Gives an organization to a caller who has none, as this deployment says: their own, or membership in one that
    /// their token or the configuration names. However often it is called, there is one outcome; null where there is
    /// none.
    async fn ensure_home_organization(
        &self,
        ctx: &Context<'_>,
        input: EnsureHomeOrganizationInput,
    ) -> Answer<OrganizationPayload> {
        run(ctx, input.idempotency_key, None, Ok(EnsureHomeOrganization { name: input.name })).await
    }

    /// Changes name, slug or contact address; operators also the external id.
    async fn update_organization(
        &self,
        ctx: &Context<'_>,
        input: UpdateOrganizationInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::UpdateOrganization {
            organization,
            name: input.name,
            slug: input.slug,
            contact_email: undefined_or(input.contact_email),
            external_id: undefined_or(input.external_id),
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Writes the settings document of a namespace.
    async fn update_organization_settings(
        &self,
        ctx: &Context<'_>,
        input: UpdateOrganizationSettingsInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::UpdateOrganizationSettings {
            organization,
            namespace: input.namespace,
            value: input.value.0,
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Asks for verification.
    async fn submit_organization_for_verification(
        &self,
        ctx: &Context<'_>,
        input: OrganizationCommandInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::SubmitOrganization { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Deletes an organization; it can be restored until purgeAt.
    async fn delete_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationCommandInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::DeleteOrganization { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Restores a deleted organization; what an operator deleted, only an operator restores.
    async fn restore_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationCommandInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::RestoreOrganization { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Operators: PENDING → VERIFIED.
    async fn verify_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Verify).await
    }

    /// Operators: PENDING → REJECTED.
    async fn reject_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Reject).await
    }

    /// Operators: IN_SETUP, PENDING → WAITLISTED.
    async fn waitlist_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Waitlist).await
    }

    /// Operators: REJECTED, WAITLISTED, PENDING → IN_SETUP.
    async fn reopen_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Reopen).await
    }

    /// Operators: VERIFIED → PENDING; resources stay usable.
    async fn review_organization_again(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::ReviewAgain).await
    }

    /// Operators: any → BLOCKED.
    async fn block_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Block).await
    }

    /// Operators: BLOCKED → the status before the block.
    async fn unblock_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Unblock).await
    }

    /// Operators: ACTIVE → INACTIVE.
    async fn deactivate_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Deactivate).await
    }

    /// Operators: INACTIVE → ACTIVE.
    async fn activate_organization(
        &self,
        ctx: &Context<'_>,
        input: OrganizationReviewInput,
    ) -> Answer<OrganizationPayload> {
        review(ctx, input, cases::Act::Activate).await
    }

    /// Operators: sets a limit of one organization, or gives it back to the plan.
    async fn set_organization_limit(
        &self,
        ctx: &Context<'_>,
        input: SetOrganizationLimitInput,
    ) -> Answer<OrganizationPayload> {
        let case = maximum(input.value).and_then(|(maximum, from_plan)| {
            let organization = id("organizationId", &input.organization_id)?;
            Ok(cases::SetOrganizationLimit {
                organization,
                limit: input.limit,
                maximum,
                from_plan,
                reason: input.reason,
            })
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Operators: another plan; its limits are written into the event.
    async fn change_organization_plan(
        &self,
        ctx: &Context<'_>,
        input: ChangeOrganizationPlanInput,
    ) -> Answer<OrganizationPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::ChangeOrganizationPlan {
            organization,
            plan: input.plan,
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }
}

async fn review(ctx: &Context<'_>, input: OrganizationReviewInput, act: cases::Act) -> Answer<OrganizationPayload> {
    let case = id("organizationId", &input.organization_id).map(|organization| cases::ReviewOrganization {
        organization,
        act,
        reason: input.reason,
    });
    run(ctx, input.idempotency_key, input.expected_version, case).await
}

fn undefined_or<T>(value: MaybeUndefined<T>) -> Option<Option<T>> {
    match value {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value)),
    }
}

/// The maximum, and whether it is the plan's.
fn maximum(value: LimitValue) -> Result<(Option<u64>, bool), Error> {
    match value {
        LimitValue::Maximum(Long(maximum)) => Ok((Some(maximum.unsigned_abs()), false)),
        LimitValue::Unlimited(true) => Ok((None, false)),
        LimitValue::FromPlan(true) => Ok((None, true)),
        LimitValue::Unlimited(false) | LimitValue::FromPlan(false) => {
            Err(bad_input("value: unlimited and fromPlan can only be true; give a maximum instead"))
        }
    }
}
