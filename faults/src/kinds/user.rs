//! Users, who are in no organization: the only kind whose rules are judged without one.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::{By, Kind, Rule, Status};
use crate::check::case::Case;
use crate::check::fold::Fold;
use crate::check::model::{Model, Place};
use crate::check::tables::{Rows, Table};

/// A user.
#[derive(Debug, Clone, Default)]
pub struct User {
    pub place: Place,
    pub state: String,
    pub identity: String,
    /// When the user was let in or shut out, in order.
    pub states: Vec<(DateTime<Utc>, String)>,
    pub created_at: Option<DateTime<Utc>>,
}

impl User {
    /// Whether the user was not let in at any moment of so long before `at`.
    pub fn is_shut_out(&self, at: DateTime<Utc>, for_so_long: TimeDelta) -> bool {
        let from = at - for_so_long;
        let before = self.states.iter().rev().find(|(since, _)| *since <= from);
        let within = self.states.iter().filter(|(since, _)| *since > from && *since <= at);
        before.is_some() && before.into_iter().chain(within).all(|(_, state)| state != "ACTIVE")
    }
}

pub static KIND: Kind = Kind {
    name: "User",
    prefix: "usr",
    rules: &[RULES],
    fold,
    after: &[],
    limit: None,
    tables: &[Table {
        name: "users",
        check: "the read model of users equals a fold of the log",
        statement: "SELECT id, to_jsonb(t) - 'email' - 'name' FROM users_1.users t",
        rows,
    }],
};

const OPERATOR: By = By::If(is_another_operator);

const RULES: &[Rule] = &[
    Rule::of("UserRegistered", Status::Any, &[By::If(is_oneself)]),
    Rule::of("UserProfileChanged", Status::Any, &[By::If(is_oneself)]),
    Rule::of("UserHeld", Status::Any, &[By::If(|case| case.beside(&["UserRegistered"]))]),
    Rule::of("UserApproved", Status::Any, &[OPERATOR]),
    Rule::of("UserRevoked", Status::Any, &[OPERATOR]),
    Rule::of("UserReinstated", Status::Any, &[OPERATOR]),
    // By the service, where a restored database had forgotten it.
    Rule::of("UserErased", Status::Any, &[OPERATOR, By::Service]),
];

fn is_oneself(case: &Case<'_>) -> bool {
    case.actor() == ("user", case.event.stream.as_str())
}

/// Nobody does it to themselves, for then nobody could undo it. An operator who is let in does it: the append holds that
/// against the operator's own stream, but the order of partitions is not known here.
fn is_another_operator(case: &Case<'_>) -> bool {
    case.is_operator() && case.actor().1 != case.event.stream
}

fn fold(fold: &mut Fold<'_>) {
    let event = fold.event;
    let mut state: User = fold.take();
    fold.expect(state.place.is_new() == (event.name == "UserRegistered") && state.state != "ERASED");
    state.place.move_to(event);
    let before = state.state.clone();
    let to = event.text("user_state").to_owned();
    match event.name.as_str() {
        "UserRegistered" => {
            state.created_at = Some(event.at);
            state.identity = event.text("identity_claim").to_owned();
            state.enter(event.at, "ACTIVE");
            fold.claim_global("identity", &state.identity, None);
        }
        "UserProfileChanged" => fold.expect(before != "REVOKED"),
        "UserHeld" => fold.expect(event.version == 2 && to == "PENDING"),
        "UserApproved" => fold.expect(before == "PENDING" && to == "ACTIVE"),
        "UserRevoked" => {
            fold.expect(event.text("previous_user_state") == before && before != "REVOKED" && to == "REVOKED");
        }
        "UserReinstated" => fold.expect(before == "REVOKED" && to == "ACTIVE"),
        "UserErased" => {
            fold.expect(event.text("previous_user_state") == before && event.text("identity_claim") == state.identity);
            fold.model.keys_destroyed.insert(event.stream.clone());
            fold.release_global("identity", &state.identity);
        }
        _ => fold.unknown(),
    }
    if !to.is_empty() {
        state.enter(event.at, &to);
    }
    let shown = state.state.clone();
    fold.put(state, &shown, "");
}

impl User {
    fn enter(&mut self, at: DateTime<Utc>, state: &str) {
        self.state = state.to_owned();
        self.states.push((at, state.to_owned()));
    }
}

fn rows(model: &Model) -> Rows {
    let row = |user: &User| user.place.row(json!({"created_at": user.created_at}));
    model.all::<User>().map(|(id, user)| (id.clone(), row(user))).collect()
}

/// What the clients do with it.
pub mod plans {
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::clients::world::User;
use crate::clients::plans::{List, Plan, Planned, Planner, give};

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
        let stranger = crate::kinds::invitation::plans::stranger(planner);
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
}
