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

/// What the clients do with it.
pub mod plans {
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::clients::world::Member;
use crate::clients::plans::{Plan, Planned, Planner, give};


const MEMBERSHIP: &str = "membership { id version }";

pub const PLANS: &[Plan] = &[
    Plan { mutation: "offerOwnership", weight: 5, input: "MembershipCommandInput", select: MEMBERSHIP, make: offer },
    Plan { mutation: "acceptOwnership", weight: 4, input: "OrganizationCommandInput", select: MEMBERSHIP, make: accept },
    Plan {
        mutation: "withdrawOwnershipOffer",
        weight: 2,
        input: "OrganizationCommandInput",
        select: MEMBERSHIP,
        make: withdraw,
    },
];

fn offer(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let usual = planner.chance(0.9);
    let fits = |member: &Member| !usual || (member.state == "ACTIVE" && !member.owner);
    let fitting: Vec<Member> = planner.organization.members().into_iter().filter(fits).collect();
    let member = fitting.choose(planner.random)?.clone();
    Some(give(mutation, planner.actor()?, json!({"membershipId": member.id}), Some(member.version)))
}

/// Mostly the recipient.
fn accept(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let offered = planner.organization.offered_to()?;
    let members = planner.organization.members();
    let recipient = members.iter().find(|member| member.id == offered)?;
    let user = match planner.world.user(&recipient.user).cloned() {
        Some(user) if planner.chance(0.9) => user,
        _ => planner.person()?,
    };
    planner.command_organization(mutation, user)
}

fn withdraw(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    planner.organization.offered_to()?;
    let user = planner.actor()?;
    planner.command_organization(mutation, user)
}

/// An offer is accepted, twice, while it is withdrawn and its recipient is changed.
pub fn rush_for_an_offer(planner: &mut Planner<'_>) -> Vec<Option<Planned>> {
    let Some(offered) = planner.organization.offered_to() else { return vec![offer(planner, "offerOwnership")] };
    let change = planner.operator().map(|operator| {
        give("changeMemberRoles", operator, json!({"membershipId": offered, "roles": ["admin", "owner"]}), None)
    });
    let accept_once = accept(planner, "acceptOwnership");
    vec![accept_once.clone(), accept_once, withdraw(planner, "withdrawOwnershipOffer"), change]
}
}
