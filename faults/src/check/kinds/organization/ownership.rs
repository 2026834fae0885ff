//! Offers of ownership: made by an owner or an operator, and open until they are accepted or end.

use super::super::membership::{Member, is_changed};
use super::super::{After, By, Rule, Status};
use super::Organization;
use crate::check::case::{Case, is_owner};
use crate::check::findings::Findings;
use crate::check::fold::Fold;

/// An open offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    pub membership: String,
    pub user: String,
    pub offered_by: String,
}

impl Offer {
    /// The owner who will be none any more; an operator's offer takes nobody's ownership.
    fn giver(&self) -> Option<&str> {
        self.offered_by.strip_prefix("user:")
    }
}

pub const RULES: &[Rule] = &[
    Rule::of("OwnershipOffered", Status::Add, &[By::Owner]).also(says_by_whom),
    Rule::of("OwnershipAccepted", Status::Add, &[By::Oneself]).also(is_still_offered),
    Rule::of("OwnershipOfferWithdrawn", Status::If(may_end), &[By::Owner, By::Oneself, By::If(is_changed)]),
];

/// An offer ends with a membership also where that ends by an erasure, whatever the status is.
fn may_end(case: &Case<'_>) -> bool {
    Status::Remove.allows(case) || is_changed(case)
}

fn says_by_whom(case: &Case<'_>, findings: &mut Findings) {
    if case.event.text("offered_by") != case.event.actor || case.token().is_some() {
        findings.add("an offer of ownership says by whom it is", || case.event.place());
    }
}

/// The giver may still give it.
fn is_still_offered(case: &Case<'_>, findings: &mut Findings) {
    let giver = case.rights_of_giver(case.event.text("offered_by"));
    if !giver.is_some_and(|rights| rights.owner) {
        findings.add("what is taken could still be given", || case.event.place());
    }
}

pub fn fold(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    let offer = Offer {
        membership: super::named(event, "membership_id"),
        user: super::named(event, "user_id"),
        offered_by: super::named(event, "offered_by"),
    };
    match event.name.as_str() {
        "OwnershipOffered" => {
            fold.expect(state.offer.is_none());
            state.offer = Some(offer);
        }
        _ => {
            fold.expect(state.offer.as_ref() == Some(&offer));
            state.offer = None;
        }
    }
}

/// An open offer can be accepted; an accepted one made an owner of the recipient, and none of a user who gave it.
pub fn stands(after: &After<'_>, findings: &mut Findings) {
    let is_in = |member: Option<&Member>, owns: bool| {
        member.is_some_and(|member| member.is_active() && is_owner(&member.roles) == owns)
    };
    if let Some(offer) = after.organization.offer.as_ref().filter(|_| !after.organization.purged) {
        let gives = offer.giver().is_none_or(|giver| is_in(after.member(giver), true));
        if !gives || !is_in(after.member(&offer.user), false) {
            findings.add("an open offer of ownership can be accepted", || format!("{}: {offer:?}", after.group[0].place()));
        }
    }
    for event in after.group.iter().filter(|event| event.name == "OwnershipAccepted") {
        let giver = event.text("offered_by").strip_prefix("user:");
        let gave = giver.is_none_or(|giver| is_in(after.member(giver), false));
        if !gave || !is_in(after.member(event.text("user_id")), true) {
            findings.add("ownership goes over by one command", || event.place());
        }
    }
}
