//! Keys that are unique over all partitions: slugs and external ids of organizations, identities of users.
//!
//! Partitions have no common order, but transactions have: whoever wants such a key takes its lock before the database
//! numbers the transaction. So the changes of a key, in the order of transactions, are a history with one holder at a
//! time. Within one transaction (a batch) each partition's changes have an order, and any way of threading them into
//! each other that obeys the rule will do.

use std::collections::{BTreeMap, VecDeque};

use super::findings::Findings;
use super::model::{Claim, GlobalChange, Model};

const UNIQUE: &str = "a slug, external id or identity has one holder";

/// Checks the changes and enters the last holders among the claims.
pub fn check(model: &mut Model, findings: &mut Findings) {
    let mut changes = std::mem::take(&mut model.global_changes);
    // Stable: within a transaction the order of each partition stays.
    changes.sort_by_key(|change| change.transaction);
    let mut keys: BTreeMap<(&'static str, String), Vec<GlobalChange>> = BTreeMap::new();
    for change in changes {
        keys.entry((change.scope, change.key.clone())).or_default().push(change);
    }
    for ((scope, key), changes) in keys {
        let mut holder: Option<Claim> = None;
        for batch in changes.chunk_by(|one, next| one.transaction == next.transaction) {
            holder = match thread(holder.clone(), queues(batch)) {
                Some(after) => after,
                None => {
                    let found = || {
                        let places: Vec<&str> = batch.iter().map(|change| change.place.as_str()).collect();
                        let held = holder.as_ref().map(|claim| claim.holder.as_str());
                        format!("{scope} {key}, held by {held:?}: {}", places.join("; "))
                    };
                    findings.add(UNIQUE, found);
                    batch.iter().rev().find_map(|change| change.claim.clone())
                }
            };
        }
        if let Some(claim) = holder {
            model.claims.insert((scope.to_owned(), key), claim);
        }
    }
}

type Queues<'a> = BTreeMap<i16, VecDeque<&'a GlobalChange>>;

fn queues(batch: &[GlobalChange]) -> Queues<'_> {
    let mut queues = Queues::new();
    for change in batch {
        queues.entry(change.partition).or_default().push_back(change);
    }
    queues
}

/// The holder after all these changes, in some order that obeys the rule; none where there is no such order.
fn thread(holder: Option<Claim>, queues: Queues<'_>) -> Option<Option<Claim>> {
    if queues.values().all(VecDeque::is_empty) {
        return Some(holder);
    }
    for (partition, queue) in &queues {
        let Some(change) = queue.front() else { continue };
        let own = holder.as_ref().is_some_and(|claim| claim.holder == change.holder);
        let obeys = if change.claim.is_some() { holder.is_none() || own } else { own };
        if !obeys {
            continue;
        }
        let mut rest = queues.clone();
        rest.get_mut(partition).map(VecDeque::pop_front);
        if let Some(after) = thread(change.claim.clone(), rest) {
            return Some(after);
        }
    }
    None
}
