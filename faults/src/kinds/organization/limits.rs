//! Plans, limits and what is counted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{self as kinds, After, By, Rule, Status};
use super::{OWNERS, Organization};
use crate::check::case::Case;
use crate::check::event::Event;
use crate::check::findings::Findings;
use crate::check::fold::Fold;

pub const RULES: &[Rule] = &[
    Rule::of("OrgLimitSet", Status::Remove, &[By::Operator]),
    Rule::of("OrgPlanChanged", Status::Remove, &[By::Operator]),
    // A command was refused, by anybody, in any status.
    Rule::of("LimitReached", Status::Any, &[By::If(|_| true)]).also(is_true),
];

/// The maxima of a plan, as an event names them.
fn planned(value: &Value) -> BTreeMap<String, Option<i64>> {
    value.as_object().into_iter().flatten().map(|(name, maximum)| (name.clone(), maximum.as_i64())).collect()
}

/// The maximum that a plan sets; the usual one where it says nothing.
fn maximum_of(plan: &BTreeMap<String, Option<i64>>, name: &str) -> Option<i64> {
    let default = || kinds::limits().find(|limit| limit.name == name).and_then(|limit| limit.default);
    plan.get(name).copied().unwrap_or_else(default)
}

fn set_maximum(state: &mut Organization, name: &str, maximum: Option<i64>) {
    let tally = state.tallies.entry(name.to_owned()).or_default();
    (tally.maximum, tally.reached) = (maximum, false);
}

/// A new organization has the maxima of its plan, and needs an owner.
pub fn begin(state: &mut Organization, event: &Event) {
    state.plan_limits = planned(&event.body["limits"]);
    for limit in kinds::limits() {
        set_maximum(state, limit.name, maximum_of(&state.plan_limits, limit.name));
    }
    state.tallies.entry(OWNERS.to_owned()).or_default().floor = 1;
}

pub fn set(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    let name = event.text("limit").to_owned();
    let to = event.body["maximum"].as_i64();
    let before = state.tallies.get(&name).and_then(|tally| tally.maximum);
    fold.expect(kinds::limits().any(|limit| limit.name == name));
    fold.expect(event.body["previous_maximum"].as_i64() == before);
    if event.body["from_plan"] == Value::Bool(true) {
        fold.expect(to == maximum_of(&state.plan_limits, &name));
        state.overrides.remove(&name);
    } else {
        state.overrides.insert(name.clone(), to);
    }
    set_maximum(state, &name, to);
}

pub fn change_plan(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    fold.expect(event.text("previous_plan") == state.plan);
    state.plan = event.text("plan").to_owned();
    state.plan_limits = planned(&event.body["limits"]);
    let said = planned(&event.body["maximums"]);
    for limit in kinds::limits() {
        let to = maximum_of(&said, limit.name);
        let by_plan = maximum_of(&state.plan_limits, limit.name);
        fold.expect(to == state.overrides.get(limit.name).copied().unwrap_or(by_plan));
        set_maximum(state, limit.name, to);
    }
}

pub fn reach(state: &mut Organization, fold: &mut Fold<'_>) {
    if let Some(tally) = state.tallies.get_mut(fold.event.text("limit")) {
        tally.reached = true;
    }
}

/// A `LimitReached` says how it was, and comes once between two moments of room.
fn is_true(case: &Case<'_>, findings: &mut Findings) {
    let event = case.event;
    let name = event.text("limit");
    let known = kinds::limits().any(|limit| limit.name == name);
    let Some(tally) = case.organization.tallies.get(name).filter(|_| known) else {
        return findings.add("LimitReached is about a limit", || event.place());
    };
    let number = |field: &str| event.body[field].as_i64();
    let (said, asked) = (number("used").unwrap_or_default(), number("requested").unwrap_or_default());
    let true_then = number("maximum") == tally.maximum && said == tally.used && asked > 0;
    if !true_then || tally.maximum.is_none_or(|maximum| tally.used + asked <= maximum) {
        let found = || format!("{}: {} but {} of {:?}", event.place(), event.body, tally.used, tally.maximum);
        findings.add("LimitReached says what is true then", found);
    }
    if tally.reached {
        findings.add("LimitReached is recorded once for each time that room ran out", || event.place());
    }
}

/// Nothing grows beyond its maximum by a command.
pub fn hold(after: &After<'_>, findings: &mut Findings) {
    for (name, tally) in &after.organization.tallies {
        let before = after.before.get(name).map_or(0, |tally| tally.used);
        if tally.maximum.is_some_and(|maximum| tally.used > before && tally.used > maximum) {
            let found = || format!("{}: {} {name} of at most {:?}", after.group[0].place(), tally.used, tally.maximum);
            findings.add("nothing grows beyond its maximum", found);
        }
        if tally.used < 0 {
            findings.add("nothing is used less than not at all", || format!("{}: {name}", after.group[0].place()));
        }
    }
}
