//! The form of the log, whatever it says: everything dense, in order, once, and in one place.

use std::collections::{HashMap, HashSet};

use super::event::Event;
use super::findings::Findings;

/// Checks the form. The events come by partition and offset.
pub fn check(events: &[Event], findings: &mut Findings) {
    partitions(events, findings);
    streams(events, findings);
    commands(events, findings);
}

fn partitions(events: &[Event], findings: &mut Findings) {
    let mut last: Option<&Event> = None;
    let is_left = is_left(events);
    for event in events {
        if event.is_pruned() && !event.organization.as_deref().is_some_and(&is_left) {
            findings.add("only what the log calls pruned loses its content", || event.place());
        }
        let before = last.filter(|last| last.partition == event.partition);
        let expected = before.map_or(1, |before| before.offset + 1);
        if event.offset != expected {
            findings.add("offsets are dense in a partition", || format!("{}: expected {expected}", event.place()));
        }
        if let Some(before) = before {
            if event.at < before.at {
                let found = || format!("{} at {} follows {}", event.place(), event.at, before.at);
                findings.add("recorded_at never goes back in a partition", found);
            }
            // What was pruned was written anew.
            if event.transaction < before.transaction && !event.is_pruned() && !before.is_pruned() {
                let found =
                    || format!("{}: transaction {} follows {}", event.place(), event.transaction, before.transaction);
                findings.add("a partition is written by one transaction after the other", found);
            }
        }
        last = Some(event);
    }
}

/// Whether nothing but places is left of an organization's trail, by what the log says.
fn is_left(events: &[Event]) -> impl Fn(&str) -> bool {
    let pruned: HashSet<&str> =
        events.iter().filter(|event| event.name == "OrgPruned").map(|event| event.stream.as_str()).collect();
    move |organization| pruned.contains(organization)
}

fn streams(events: &[Event], findings: &mut Findings) {
    let mut ids: HashSet<&str> = HashSet::new();
    let mut versions: HashMap<&str, (i64, &Event)> = HashMap::new();
    let mut audits: HashMap<&str, (i64, i16)> = HashMap::new();
    for event in events {
        if !ids.insert(&event.id) {
            findings.add("an event is there once", || event.place());
        }
        let (version, first) = versions.entry(&event.stream).or_insert((0, event));
        if event.version != *version + 1 {
            findings.add("versions are dense in a stream", || {
                format!("{}: {} follows {version}", event.place(), event.version)
            });
        }
        *version = event.version;
        if (&event.kind, event.partition, &event.organization) != (&first.kind, first.partition, &first.organization) {
            findings.add("a stream is of one kind, organization and partition", || event.place());
        }
        let (Some(organization), Some(number)) = (&event.organization, event.audit) else {
            if event.kind != "User" || event.audit.is_some() || event.organization.is_some() {
                findings.add("only users are of no organization", || event.place());
            }
            continue;
        };
        let (audit, partition) = audits.entry(organization).or_insert((0, event.partition));
        if *partition != event.partition {
            findings.add("an organization is in one partition", || event.place());
        }
        if number != *audit + 1 {
            findings.add("audit sequences are dense in an organization", || {
                format!("{}: {number} follows {audit}", event.place())
            });
        }
        *audit = number;
    }
}

fn commands(events: &[Event], findings: &mut Findings) {
    let mut seen: HashSet<&str> = HashSet::new();
    for group in groups(events) {
        let [first, ..] = group else { continue };
        // What was pruned says nothing of its command.
        if first.is_pruned() {
            continue;
        }
        if !seen.insert(&first.command) {
            let found = || format!("command {}: again at {}", first.command, first.place());
            findings.add("a command's events are in one place, once", found);
        }
        let differs = |event: &&Event| {
            (event.transaction, event.at, &event.actor, &event.request)
                != (first.transaction, first.at, &first.actor, &first.request)
        };
        if let Some(event) = group.iter().find(differs) {
            findings.add("a command's events are of one transaction, time, actor and request", || event.place());
        }
    }
}

/// The events of one command after the other, as they lie in the log.
pub fn groups(events: &[Event]) -> impl Iterator<Item = &[Event]> {
    events.chunk_by(|one, next| one.command == next.command && one.partition == next.partition)
}
