//! The checker's table is complete: held against the events that the schema of the service names.

use std::collections::BTreeSet;

use super::super::fold::{self, KNOWN};
use super::*;

const SCHEMA: &str = include_str!("../../../../schema.graphql");

/// The names of all events, as the types of the audit trail have them.
fn events_of_schema() -> BTreeSet<&'static str> {
    let types = SCHEMA.lines().filter_map(|line| line.strip_prefix("type ")?.split_once(" implements AuditEvent"));
    types.filter_map(|(name, _)| name.strip_suffix("Event")).collect()
}

#[test]
fn every_event_has_a_rule_in_the_checker() {
    let rules = KINDS.iter().flat_map(|kind| kind.rules).copied().flatten().map(|rule| rule.event);
    let (events, ruled) = (events_of_schema(), rules.collect::<BTreeSet<_>>());
    assert!(events.len() > 70, "schema.graphql is read wrongly: {events:?}");
    let without: Vec<_> = events.difference(&ruled).collect();
    assert!(without.is_empty(), "no rule in kinds for {without:?}");
    let unknown: Vec<_> = ruled.difference(&events).collect();
    assert!(unknown.is_empty(), "rules for what is no event: {unknown:?}");
}

#[test]
fn every_event_with_a_rule_has_a_fold() {
    for kind in KINDS {
        for rule in kind.rules.iter().copied().flatten() {
            let mut log = Log::default();
            log.command().add("system", "org_a", &format!("{}_a", kind.prefix), rule.event, json!({}));
            let (mut model, mut findings) = (Model::default(), Findings::default());
            fold::apply(&mut model, log.last(), &mut findings);
            assert!(!findings.checks().contains(&KNOWN), "no fold for {}", rule.event);
        }
    }
}
