//! What receivers of webhooks got, against the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::event::Event;
use super::findings::Findings;
use super::model::Model;
use crate::history::Received;
use crate::kinds::webhook::Endpoint;

/// Checks that each endpoint that is enabled at the end took every event of its organization since it was created, got
/// none that is not in the log, and, where it wants that, took those of one subject in order.
///
/// What was taken is what the receiver decided to take, though its sender may not have heard so; then it comes again.
pub fn check(received: &[Received], events: &[Event], model: &Model, findings: &mut Findings) {
    let by_id: HashMap<&str, &Event> = events.iter().map(|event| (event.id.as_str(), event)).collect();
    let mut by_path: BTreeMap<&str, Vec<&Received>> = BTreeMap::new();
    for one in received {
        by_path.entry(one.path.split('?').next().unwrap_or_default()).or_default().push(one);
    }
    for (id, endpoint) in model.all::<Endpoint>() {
        let organization = &endpoint.place.organization;
        if !endpoint.enabled || endpoint.deleted || !model.shows(organization) {
            continue;
        }
        let got = by_path.get(endpoint.path()).map_or(&[][..], Vec::as_slice);
        let taken: HashSet<&str> = got.iter().filter(|one| one.taken).map(|one| one.event.as_str()).collect();
        let wanted = events.iter().filter(|event| {
            event.organization.as_ref() == Some(organization)
                && event.audit > Some(endpoint.created)
                && endpoint.wants(id, event)
                && !endpoint.wanted_otherwise
        });
        for event in wanted.filter(|event| !taken.contains(event.id.as_str())) {
            findings.add("every event reaches the endpoints that want it", || format!("{} at {id}", event.place()));
        }
        for one in got {
            let there = by_id.get(one.event.as_str());
            if there.is_none_or(|event| event.organization.as_ref() != Some(organization)) {
                findings.add("an endpoint gets only events of its organization", || format!("{one:?} at {id}"));
            }
        }
        if endpoint.in_order() && !endpoint.wanted_otherwise {
            // What is from before its creation comes by a replay, beside the others.
            let is_new = |event: &Event| event.audit > Some(endpoint.created);
            in_order(id, got, |one| by_id.get(one).copied().filter(|event| is_new(event)), findings);
        }
    }
}

/// Of each subject the events are taken for the first time in the order of the log.
fn in_order<'a>(id: &str, got: &[&Received], event_of: impl Fn(&str) -> Option<&'a Event>, findings: &mut Findings) {
    let mut last: HashMap<&'a str, i64> = HashMap::new();
    let mut known: HashSet<&str> = HashSet::new();
    for one in got.iter().filter(|one| one.taken && known.insert(one.event.as_str())) {
        let Some(event) = event_of(&one.event) else { continue };
        let before = last.insert(&event.stream, event.version).unwrap_or_default();
        if before > event.version {
            let found = || format!("{} after version {before}, at {id}, {} ms", event.place(), one.at_ms);
            findings.add("events of one subject arrive in order where that is asked for", found);
        }
    }
}
