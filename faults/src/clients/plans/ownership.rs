//! Offers of ownership.

use rand::seq::IndexedRandom;
use serde_json::json;

use super::super::world::Member;
use super::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] = &[];

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
