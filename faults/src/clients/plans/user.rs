//! Users: let in, shut out, and erased.
//!
//! The first operator is never shut out: by them the run learns how things stand. Only passers-by are erased, who use no
//! idempotency keys: somebody erased comes back as somebody new, with other keys.

use rand::seq::IndexedRandom;
use serde_json::json;

use super::super::world::User;
use super::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] = &[];

/// How many users are shut out at a time.
const REVOKED_MAX: usize = 2;

const fn review(mutation: &'static str, weight: u32) -> Plan {
    Plan { mutation, weight, input: "UserReviewInput", select: "__typename", make: act }
}

pub const PLANS: &[Plan] = &[
    review("approveUser", 3),
    review("revokeUser", 1),
    review("reinstateUser", 6),
    Plan { mutation: "eraseSubject", weight: 3, input: "EraseSubjectInput", select: "__typename", make: erase },
];

fn act(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let (world, usual) = (planner.world, planner.chance(0.95));
    let everybody = || world.users.iter().chain(world.operators.iter().skip(1));
    let wanted = match mutation {
        "approveUser" => "PENDING",
        "reinstateUser" => "REVOKED",
        _ => "ACTIVE",
    };
    let revoked = everybody().filter(|user| user.state() == "REVOKED").count();
    if mutation == "revokeUser" && revoked >= REVOKED_MAX {
        return None;
    }
    let fitting: Vec<&User> = everybody().filter(|user| !usual || user.state() == wanted).collect();
    let user = fitting.choose(planner.random)?;
    let by = if planner.chance(0.5) { world.operators.first().cloned() } else { planner.operator() };
    Some(give(mutation, by?, json!({"userId": user.id()}), None))
}

fn erase(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let subject = if planner.chance(0.5) {
        let passers_by: Vec<&User> = planner.world.users.iter().filter(|user| user.passes_by).collect();
        json!({"userId": passers_by.choose(planner.random)?.id()})
    } else {
        let stranger = super::invitation::stranger(planner);
        let invitation = planner.thing("invitations", 1.0, |invitation| invitation.text("email") == stranger)?;
        json!({"invitationId": invitation.id})
    };
    Some(give(mutation, planner.operator()?, json!({"subject": subject}), None))
}

/// Two operators shut each other out: one of them is left.
pub fn rush_of_operators(planner: &mut Planner<'_>) -> Vec<Option<Planned>> {
    let [_, one, other, ..] = planner.world.operators.as_slice() else { return vec![] };
    let revoke = |by: &User, whom: &User| Some(give("revokeUser", by.clone(), json!({"userId": whom.id()}), None));
    vec![revoke(one, other), revoke(other, one)]
}
