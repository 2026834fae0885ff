//! The rules, held against every command of the log in turn: not only what is left at the end.
//!
//! A command is judged as a whole, by the state before its first event: by whom each event may be caused, whether the
//! organization's status allows it, and what else its rule in [`crate::kinds`] says. Then it is folded: whether each event
//! fits the state that it changes (it names the old value). At last comes what has to be so after a command.

use std::collections::BTreeMap;

use super::case::Case;
use super::event::Event;
use super::findings::Findings;
use super::fold;
use super::log::groups;
use super::model::{Model, Tally};
use crate::kinds::organization::Organization;
use crate::kinds::{self, After, KINDS};

/// What a deployment of this kind leaves to the checker to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings {
    /// Whether clocks of services were set during the run: then what time does is not compared with times.
    pub clocks_were_set: bool,
}

/// Folds the whole log, and holds each command against the rules.
pub fn check(events: &[Event], surroundings: Surroundings, findings: &mut Findings) -> Model {
    let mut model = Model::default();
    let pruned = events.iter().filter(|event| event.name == "OrgPruned").map(|event| event.stream.clone());
    model.pruned = pruned.collect();
    model.half_pruned.clone_from(&model.pruned);
    // Users are in partitions of their own, and others ask for them.
    let of_users = |group: &&[Event]| group[0].organization.is_none();
    for group in groups(events).filter(of_users) {
        command(&mut model, group, surroundings, findings);
    }
    for group in groups(events).filter(|group| !of_users(group)) {
        // Nothing is left of a pruned organization that could be folded.
        if !group[0].organization.as_ref().is_some_and(|id| model.pruned.contains(id)) {
            command(&mut model, group, surroundings, findings);
        }
    }
    model
}

fn command(model: &mut Model, group: &[Event], surroundings: Surroundings, findings: &mut Findings) {
    let id = group[0].organization.clone().unwrap_or_default();
    let before = model.organizations.get(&id).map(|organization| organization.tallies.clone()).unwrap_or_default();
    for event in group {
        judge(model, group, event, surroundings, findings);
    }
    for event in group {
        fold::apply(model, event, findings);
    }
    hold_after(model, group, &id, &before, findings);
}

fn judge(model: &Model, group: &[Event], event: &Event, surroundings: Surroundings, findings: &mut Findings) {
    // A creation is one decision: what its other events need is in its first.
    if group.iter().any(|other| other.name == "OrgCreated") {
        return;
    }
    let nowhere = Organization::default();
    let id = event.organization.as_deref().unwrap_or_default();
    let organization = match &event.organization {
        Some(id) => model.organizations.get(id),
        None => Some(&nowhere),
    };
    let Some(organization) = organization else {
        return findings.add("everything belongs to an organization that exists", || event.place());
    };
    let Some(rule) = kinds::rule(event) else {
        return findings.add(fold::KNOWN, || event.place());
    };
    let clocks_agree = !surroundings.clocks_were_set;
    let case = Case { model, organization, id, group, event, clocks_agree };
    if organization.purged && !rule.after_purge {
        findings.add("nothing is done in a purged organization", || event.place());
    }
    if !rule.status.allows(&case) {
        let found = || format!("{}: {} {}", event.place(), organization.lifecycle, organization.verification);
        findings.add("an organization's status allows what is done", found);
    }
    if !rule.by.iter().any(|by| by.holds(&case)) {
        findings.add("who acts may do it, at that moment", || format!("{} by {}", event.place(), event.actor));
    }
    if let Some(also) = rule.also {
        also(&case, findings);
    }
    if let Some(due) = rule.due.filter(|_| clocks_agree) {
        let due = due(&case);
        if due.is_none_or(|due| due > event.at) {
            let found = || format!("{} at {}, due {due:?}", event.place(), event.at);
            findings.add("nothing runs out before its time", found);
        }
    }
}

fn hold_after(model: &Model, group: &[Event], id: &str, before: &BTreeMap<String, Tally>, findings: &mut Findings) {
    let Some(organization) = model.organizations.get(id) else { return };
    let after = After { model, group, id, organization, before };
    for hold in KINDS.iter().flat_map(|kind| kind.after) {
        hold(&after, findings);
    }
}
