//! Handing ownership over: an owner offers it to a member, who accepts it; at most one offer is open.
//!
//! The offer stands in the organization's stream, so that of all that can become of it exactly one wins. It ends with
//! what makes it void (the giver or the recipient is removed, leaves, is suspended or loses ownership), by an event in
//! the same append: what is shown as open is open, and nothing that ended comes back. Accepting looks once more.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::error::Refusal;
use crate::ids::{MembershipId, UserId};
use crate::membership::{Membership, MembershipState};
use crate::organization::{Organization, OrganizationEvent};
use crate::personal::Personal;
use crate::roles::{self, OWNER};
use crate::text;

/// The role that is left to an owner who hands over and has no other.
const AFTERWARDS: &str = "admin";

/// An open offer of ownership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnershipOffer {
    /// The recipient's membership.
    pub membership_id: MembershipId,
    /// The recipient.
    pub user_id: UserId,
    /// The actor who offers. A user offers their own ownership; an operator offers it beside those who have it.
    pub offered_by: Actor,
    /// Since when.
    pub offered_at: DateTime<Utc>,
}

impl OwnershipOffer {
    /// The owner who will be none any more.
    pub fn giver(&self) -> Option<&UserId> {
        match &self.offered_by {
            Actor::User(user) => Some(user),
            Actor::Operator(_) | Actor::Token(_) | Actor::System => None,
        }
    }

    /// Whether it ends because `user` stands like this from now on.
    pub fn ends_with(&self, user: &UserId, after: &Membership) -> bool {
        let void_recipient = self.user_id == *user && (!after.is_active() || roles::is_owner(&after.roles));
        let void_giver = self.giver() == Some(user) && !after.is_active_owner();
        void_recipient || void_giver
    }
}

impl Membership {
    /// Whether the member is in, as an owner.
    pub fn is_active_owner(&self) -> bool {
        self.is_active() && roles::is_owner(&self.roles)
    }

    /// The roles with ownership.
    pub fn roles_with_ownership(&self) -> Vec<String> {
        std::iter::once(OWNER.to_owned()).chain(self.roles.iter().cloned()).collect()
    }

    /// The roles without ownership; never none.
    pub fn roles_without_ownership(&self) -> Vec<String> {
        let kept: Vec<String> = self.roles.iter().filter(|role| *role != OWNER).cloned().collect();
        if kept.is_empty() { vec![AFTERWARDS.to_owned()] } else { kept }
    }
}

impl Organization {
    pub(crate) fn offer_ownership(
        &self,
        membership_id: MembershipId,
        recipient: &Membership,
        offered_by: Actor,
        reason: Option<&str>,
        offered_at: DateTime<Utc>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let user_id = may_receive(recipient)?;
        if let Some(open) = &self.ownership_offer {
            if open.user_id == user_id && open.offered_by == offered_by {
                return Ok(vec![]);
            }
            let message = "there is an open offer of ownership already: withdraw it first";
            return Err(Refusal::InvalidState(message.into()));
        }
        let reason = about(&user_id, reason)?;
        Ok(vec![OrganizationEvent::OwnershipOffered { membership_id, user_id, offered_by, offered_at, reason }])
    }

    pub(crate) fn accept_ownership(
        &self,
        user: &UserId,
        recipient: &Membership,
        giver: Option<&Membership>,
        reason: Option<&str>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        // To whom else it may be offered is nobody else's business.
        let Some(offer) = self.ownership_offer.clone().filter(|offer| offer.user_id == *user) else {
            return Err(Refusal::InvalidState("there is no open offer of ownership to you".into()));
        };
        may_receive(recipient)?;
        let of_giver = giver.is_some_and(|giver| giver.user_id.as_ref() == offer.giver() && giver.is_active_owner());
        if offer.giver().is_some() && !of_giver {
            let message = "the offer is void: who made it is no owner any more";
            return Err(Refusal::InvalidState(message.into()));
        }
        let OwnershipOffer { membership_id, user_id, offered_by, offered_at: _ } = offer;
        let reason = about(&user_id, reason)?;
        Ok(vec![OrganizationEvent::OwnershipAccepted { membership_id, user_id, offered_by, reason }])
    }

    pub(crate) fn withdraw_ownership_offer(&self, reason: Option<&str>) -> Result<Vec<OrganizationEvent>, Refusal> {
        let Some(OwnershipOffer { membership_id, user_id, offered_by, offered_at: _ }) = self.ownership_offer.clone()
        else {
            return Err(Refusal::InvalidState("there is no open offer of ownership".into()));
        };
        let reason = about(&user_id, reason)?;
        Ok(vec![OrganizationEvent::OwnershipOfferWithdrawn { membership_id, user_id, offered_by, reason }])
    }
}

fn may_receive(recipient: &Membership) -> Result<UserId, Refusal> {
    let Some(user_id) = recipient.user_id.clone() else { return Err(Refusal::NotFound) };
    match recipient.state {
        MembershipState::Active if roles::is_owner(&recipient.roles) => {
            Err(Refusal::InvalidState("this member is an owner already".into()))
        }
        MembershipState::Active => Ok(user_id),
        MembershipState::Suspended | MembershipState::Removed => Err(Refusal::InvalidState(format!(
            "the member who would get the ownership is {} and not ACTIVE",
            crate::event::shown(recipient.state)
        ))),
    }
}

/// A reason is about who gets the ownership.
fn about(user: &UserId, reason: Option<&str>) -> Result<Option<Personal>, Refusal> {
    Ok(text::reason("reason", reason)?.map(|reason| Personal::new(user.as_ref(), reason)))
}
