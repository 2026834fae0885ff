//! Commands that hand ownership over: see [`aggregates::ownership`].

use aggregates::ids::{MembershipId, OrganizationId, UserId};
use aggregates::membership::{Grantor, MembershipCommand};
use aggregates::organization::OrganizationCommand;
use aggregates::roles::Permission;
use aggregates::status::Capability;
use aggregates::{Membership, Organization, Refusal};
use serde::Serialize;

use super::standing::Standing;
use super::work::{Entity, Stop, Work};
use super::{Fault, UseCase, grants};
use crate::log::Loaded;

/// Why an offer ended that nobody withdrew.
const VOID: &str = "who would give or get the ownership is not in, gave it up, or has it already";

/// Why an offer is not accepted whose giver is out.
const NO_GIVER: &str = "the offer is void: the user who made it may not give it any more";

/// Offers ownership to a member.
#[derive(Debug, Serialize)]
pub struct OfferOwnership {
    /// The recipient's membership.
    pub membership: MembershipId,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for OfferOwnership {
    const OPERATION: &'static str = "offerOwnership";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.person()?;
        let recipient = work.load::<Membership>(&self.membership).await?;
        let owner = recipient.organization.as_ref();
        let standing = Standing::of_owner(work, owner, self.membership.as_ref()).await?;
        if !standing.may(Permission::MemberRead) && !standing.operator {
            return Err(Fault::NotFound.into());
        }
        let rights = standing.require_owner(work, Capability::AddMembers, self.reason.as_deref())?;
        work.expect_version(recipient.version)?;
        let events = standing.organization.state.decide(OrganizationCommand::OfferOwnership {
            membership: self.membership.clone(),
            recipient: (*recipient.state).clone(),
            by: work.caller()?.actor(rights.operator),
            reason: self.reason.clone(),
            at: work.now,
        })?;
        work.record(&standing.id, &standing.organization, events);
        work.entities = vec![Entity::new(self.membership.clone(), recipient)];
        Ok(())
    }
}

/// Accepts the ownership that the caller was offered.
#[derive(Debug, Serialize)]
pub struct AcceptOwnership {
    /// Of which organization.
    pub organization: OrganizationId,
    /// Why.
    pub reason: Option<String>,
}

impl UseCase for AcceptOwnership {
    const OPERATION: &'static str = "acceptOwnership";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let user = work.person()?.user.clone();
        let standing = Standing::of(work, &self.organization).await?;
        standing.require_capability(Capability::AddMembers, false)?;
        work.expect_version(standing.organization.version)?;
        let offer = standing.organization.state.ownership_offer.clone();
        // To whom else it may be offered is nobody else's business, so nobody else learns what became of it.
        if let Some(offer) = offer.filter(|offer| offer.user_id == user) {
            let place = &standing.organization.state;
            if grants::present_grantor(work, &self.organization, place, &offer.offered_by).await?.is_none() {
                return Err(Refusal::InvalidState(NO_GIVER.into()).into());
            }
        }
        let giver = standing.organization.state.ownership_offer.as_ref().and_then(|offer| offer.giver().cloned());
        let giver = match giver.map(|giver| MembershipId::of(&self.organization, &giver)) {
            Some(id) => Some((id.clone(), work.load::<Membership>(&id).await?)),
            None => None,
        };
        let accepted = standing.organization.state.decide(OrganizationCommand::AcceptOwnership {
            user: user.clone(),
            recipient: (*standing.membership()?.state).clone(),
            giver: giver.as_ref().map(|(_, giver)| (*giver.state).clone()),
            reason: self.reason.clone(),
        })?;
        work.record(&self.organization, &standing.organization, accepted);
        // One owner more and one less in one append: on no way between is there none.
        let id = MembershipId::of(&self.organization, &user);
        let roles = standing.membership()?.state.roles_with_ownership();
        let after = self.change(work, &standing, &id, standing.membership()?, roles)?;
        if let Some((id, giver)) = giver {
            self.change(work, &standing, &id, &giver, giver.state.roles_without_ownership())?;
        }
        work.entities = vec![Entity::new(id, after)];
        Ok(())
    }
}

impl AcceptOwnership {
    fn change(
        &self,
        work: &mut Work<'_>,
        standing: &Standing,
        id: &MembershipId,
        before: &Loaded<Membership>,
        roles: Vec<String>,
    ) -> Result<Loaded<Membership>, Stop> {
        // The ownership was the giver's to give; that the giver still is an owner was looked at.
        let by = Grantor::unbounded().knowing(standing.own_roles());
        let command = MembershipCommand::ChangeRoles { roles, by, reason: self.reason.clone() };
        let events = before.state.decide(command)?;
        Ok(work.record(id, before, events))
    }
}

/// Withdraws the offer as an owner, or declines it as its recipient.
#[derive(Debug, Serialize)]
pub struct WithdrawOwnershipOffer {
    /// Of which organization.
    pub organization: OrganizationId,
    /// Why.
    pub reason: Option<String>,
}

impl UseCase for WithdrawOwnershipOffer {
    const OPERATION: &'static str = "withdrawOwnershipOffer";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let caller = work.person()?;
        let standing = Standing::of(work, &self.organization).await?;
        let offer = standing.organization.state.ownership_offer.clone();
        if offer.as_ref().is_some_and(|offer| offer.user_id == caller.user) {
            standing.require_capability(Capability::RemoveMembers, false)?;
        } else {
            standing.require_owner(work, Capability::RemoveMembers, self.reason.as_deref())?;
        }
        work.expect_version(standing.organization.version)?;
        let command = OrganizationCommand::WithdrawOwnershipOffer { reason: self.reason.clone() };
        let events = standing.organization.state.decide(command)?;
        work.record(&self.organization, &standing.organization, events);
        if let Some(offer) = offer {
            let recipient = work.load::<Membership>(&offer.membership_id).await?;
            work.entities = vec![Entity::new(offer.membership_id, recipient)];
        }
        Ok(())
    }
}

/// Ends the open offer where `user`, who stands like `after` from now on, makes it void.
pub(super) fn end_void_offer(
    work: &mut Work<'_>,
    id: &OrganizationId,
    organization: &Loaded<Organization>,
    user: Option<&UserId>,
    after: &Membership,
) -> Result<(), Refusal> {
    let (Some(user), Some(offer)) = (user, &organization.state.ownership_offer) else { return Ok(()) };
    if offer.ends_with(user, after) {
        let command = OrganizationCommand::WithdrawOwnershipOffer { reason: Some(VOID.to_owned()) };
        let events = organization.state.decide(command)?;
        work.record(id, organization, events);
    }
    Ok(())
}
