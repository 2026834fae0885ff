//! Handing ownership over, and what the removal of a member would end.

use aggregates::guard::OWNERS;
use aggregates::ids::MembershipId;
use aggregates::roles::Permission;
use async_graphql::{Context, Error, ID, Object, SimpleObject};

use super::errors::{database_fault, log_fault};
use super::membership::{MembershipCommandInput, MembershipPayload};
use super::organization::OrganizationCommandInput;
use super::payload::{Answer, run};
use super::scalars::Time;
use super::session::{Session, id};
use super::user::Actor;
use crate::commands::{departures, ownership as cases};

/// An open offer of ownership.
#[derive(Debug, Clone)]
pub struct OwnershipOffer(pub aggregates::ownership::OwnershipOffer);

/// An offer of ownership that its recipient may accept.
#[Object]
impl OwnershipOffer {
    /// The recipient's membership.
    async fn membership_id(&self) -> ID {
        ID(self.0.membership_id.to_string())
    }
    /// The actor who offers; an owner will be none any more when it is accepted.
    async fn offered_by(&self, ctx: &Context<'_>) -> async_graphql::Result<Actor> {
        Actor::named(ctx, &self.0.offered_by).await
    }
    /// Since when.
    async fn offered_at(&self) -> Time {
        Time(self.0.offered_at)
    }
}

/// What the removal of a member would end.
#[derive(Debug, Clone, SimpleObject)]
pub struct RemovalImpact {
    /// Whether this is the last active owner, who cannot be removed.
    last_owner: bool,
    /// How many open invitations of this member would be revoked; none where the policy keeps them.
    open_invitations: i32,
    /// How many living API tokens this member answers for: created by the member, or by a token of theirs. They are
    /// revoked only where the policy says so.
    api_tokens: i32,
}

/// What removing this member would end, for whoever may remove members.
pub async fn removal_impact(session: &Session, id: &MembershipId) -> Result<Option<RemovalImpact>, Error> {
    let now = session.log().current(&[id.clone().into()]).await.map_err(log_fault)?;
    let membership = now.get::<aggregates::Membership>(id);
    let owner = membership.organization.as_ref();
    let seen = session.see_owner(owner, id.as_ref()).await?;
    let (Some(organization), Some(user)) = (owner, &membership.state.user_id) else { return Ok(None) };
    let Some(seen) = seen.filter(|seen| seen.may(Permission::MemberRead)) else {
        return Ok(None);
    };
    if !seen.may(Permission::MemberRemove) {
        let permission = Permission::MemberRemove;
        return Err(session.lacks(permission));
    }
    let tallies = session.tallies(organization).await?;
    let owners = tallies.iter().find(|(name, _)| name == OWNERS).map_or(0, |(_, tally)| tally.used);
    let open_invitations = if seen.organization.state.keeps_invitations_of_removed_members() {
        0
    } else {
        departures::count_open_invitations(session.log(), organization, user).await.map_err(database_fault)?
    };
    let api_tokens =
        departures::count_living_tokens(session.log(), organization, user).await.map_err(database_fault)?;
    Ok(Some(RemovalImpact {
        last_owner: membership.state.is_active_owner() && owners <= 1,
        open_invitations: i32::try_from(open_invitations).unwrap_or(i32::MAX),
        api_tokens: i32::try_from(api_tokens).unwrap_or(i32::MAX),
    }))
}

/// Commands that hand ownership over.
#[derive(Default)]
pub struct OwnershipMutation;

#[Object]
impl OwnershipMutation {
    /// Offers ownership to a member. When it is accepted, the owner who offered it is none any more, and keeps the
    /// other roles (`admin`, if there are none). What an operator offers is given beside the owners that there are.
    async fn offer_ownership(&self, ctx: &Context<'_>, input: MembershipCommandInput) -> Answer<MembershipPayload> {
        let case = id("membershipId", &input.membership_id)
            .map(|membership| cases::OfferOwnership { membership, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Accepts the ownership that the caller was offered.
    async fn accept_ownership(&self, ctx: &Context<'_>, input: OrganizationCommandInput) -> Answer<MembershipPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::AcceptOwnership { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Withdraws the open offer, for owners; its recipient declines by it.
    async fn withdraw_ownership_offer(
        &self,
        ctx: &Context<'_>,
        input: OrganizationCommandInput,
    ) -> Answer<MembershipPayload> {
        let case = id("organizationId", &input.organization_id)
            .map(|organization| cases::WithdrawOwnershipOffer { organization, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }
}
