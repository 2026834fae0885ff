//! What was read during the run, against the log: followers, and reads that asked to be as new as a position.

use std::collections::HashMap;

use super::event::Event;
use super::findings::Findings;
use super::model::Model;
use crate::history::{Followed, Read};

/// Checks the followers: each saw the log, in order, once, and up to where it ended then.
pub fn followers(followed: &[Followed], events: &[Event], findings: &mut Findings) {
    let mut partitions: HashMap<i16, Vec<(i64, &str)>> = HashMap::new();
    let mut trails: HashMap<&str, Vec<(i64, &str)>> = HashMap::new();
    for event in events {
        partitions.entry(event.partition).or_default().push((event.offset, &event.id));
        if let (Some(organization), Some(audit)) = (&event.organization, event.audit) {
            trails.entry(organization).or_default().push((audit, &event.id));
        }
    }
    let nothing = vec![];
    for follower in followed {
        let log = match (&follower.partition, &follower.organization) {
            (Some(partition), _) => partitions.get(partition),
            (_, Some(organization)) => trails.get(organization.as_str()),
            _ => None,
        };
        follow(follower, log.unwrap_or(&nothing), findings);
    }
}

fn follow(follower: &Followed, log: &[(i64, &str)], findings: &mut Findings) {
    let seen = follower.events.iter().map(|(number, id)| (*number, id.as_str()));
    let differs = seen.clone().zip(log).position(|(seen, logged)| seen != *logged);
    if let Some(place) = differs {
        let found = || format!("{}: saw {:?} where the log has {:?}", follower.who, follower.events[place], log[place]);
        return findings.add("a follower misses, doubles and reorders nothing", found);
    }
    let (seen, there) = (follower.events.len(), log.len());
    if seen > there {
        let found = || format!("{}: saw {seen} events, and the log has {there}", follower.who);
        findings.add("what a follower saw stays in the log", found);
    }
    let came = follower.events.last().map_or(0, |(number, _)| *number);
    if came < follower.end {
        let found = || format!("{}: came to {came}, and the log ended at {}", follower.who, follower.end);
        findings.add("a follower comes to the end of the log", found);
    }
}

/// Checks the reads: nothing older than what was promised, and what is shown was so at the version that is shown.
pub fn reads(reads: &[Read], model: &Model, findings: &mut Findings) {
    for read in reads {
        let said = || {
            format!("command {}: {} at {}, read at replica {}", read.command, read.entity, read.version, read.replica)
        };
        let faces = model.faces.get(&read.entity).map_or(&[][..], Vec::as_slice);
        let Some(shown) = &read.shown else {
            if read.whole && !may_be_hidden(read, model) {
                findings.add("atLeast never shows less than it promised", || format!("{}: not shown", said()));
            }
            continue;
        };
        if shown.version < read.version {
            findings
                .add("atLeast never shows less than it promised", || format!("{}: shown at {}", said(), shown.version));
        }
        let face = usize::try_from(shown.version - 1).ok().and_then(|index| faces.get(index));
        if face.is_none_or(|face| face.state != shown.state || face.more != shown.more) {
            // An invitation past its time reads as expired before that is recorded.
            let by_the_clock = shown.state == "EXPIRED" && face.is_some_and(|face| face.state == "PENDING");
            if !by_the_clock {
                findings.add("what is shown at a version was so at that version", || {
                    format!("{}: {shown:?}, {face:?}", said())
                });
            }
        }
    }
}

/// Whether a list may leave it out: it was deleted or removed at this version or later, or its organization was
/// deleted at some time.
fn may_be_hidden(read: &Read, model: &Model) -> bool {
    let from = usize::try_from(read.version - 1).unwrap_or_default();
    let faces = model.faces.get(&read.entity).map_or(&[][..], Vec::as_slice);
    let hidden = |face: &super::model::Face| face.state == "DELETED" || face.state == "REMOVED";
    let organization = model.organization_of.get(&read.entity).unwrap_or(&read.entity);
    let was_deleted = |faces: &Vec<super::model::Face>| faces.iter().any(|face| face.state.ends_with(" DELETED"));
    faces.iter().skip(from).any(hidden) || model.faces.get(organization).is_some_and(was_deleted)
}
