//! The checker: the whole log, what is made from it, and what was seen from outside, held against each other.
//!
//! It shares no code with the service. It reads the rows and their JSON, and has a model of the rules of its own
//! ([`rules`], [`fold`]), so that a mistake in the service's idea of a rule is not made here again. Personal data stays
//! sealed: it has no key, and needs none.
//!
//! # What is established
//!
//! - [`log`]: offsets are dense in a partition, audit sequences in an organization, versions in a stream; events are
//!   there once; a command's events lie together, of one transaction; times and transactions do not go back.
//! - [`crate::kinds`], the table of all events: for each kind of stream in which statuses of an organization an event may be
//!   recorded, who may cause it, what it makes of the state, and the rows that follow. [`rules`] holds each command
//!   against it, at every event and not only at the end, with what [`case`] says of rights at that moment: seats,
//!   owners, projects, API tokens, endpoints, and holders of own roles are counted; no grant exceeds its giver, when it
//!   is made and when it is taken; what ends with a membership or an erasure ends; `LimitReached` is true and comes once
//!   for each time that room ran out. [`fold`]: each event says rightly what was before.
//! - [`global`]: slugs and external ids of organizations, identities of users, secrets of API tokens and users who are
//!   bound to one organization have one holder at a time, in the order of the transactions that wrote them.
//! - [`tables`]: claims, tallies and read models equal the fold; projections are at the end of the log; an erasure has
//!   destroyed the key and left a tombstone.
//! - [`outcomes`]: what was acknowledged is there once; what was refused left nothing, but a `LimitReached`; what is
//!   unknown is wholly there or wholly absent; a key has one outcome, in all answers and in the table.
//! - [`watchers`]: followers saw the log in order and once; `atLeast` never showed anything older than promised.
//! - [`webhooks`]: every event reached every endpoint that wants it, and those of one subject in order where that is
//!   asked for, whatever became of services, database and receivers.
//! - [`crate::health`]: the append did not rely on the unique keys behind it.
//!
//! The order of transactions is that of their numbers (`xmin`). PostgreSQL gives a transaction its number when it first
//! writes, which an append does under all its locks; so those that have anything to do with each other are numbered in
//! the order in which they committed. A database that was dumped and restored has lost that order.
//!
//! Partitions have no common order, so users are folded first, and a user who was shut out in another partition counts
//! as shut out a minute later: a command that had begun by then has ended.
//!
//! Of an organization whose trail was pruned only the places of its events are checked.
//!
//! # Whether it would notice
//!
//! The service was broken on purpose, one thing at a time, and run for 25 to 40 seconds, most with all faults. The
//! break of what was in doubt was drawn only in the fourth run, with `--faults proxy`, and the one of global keys in the
//! third, without faults. To look for such a thing, run longer, or with that fault alone:
//!
//! | broken | noticed by |
//! |---|---|
//! | the append does not take the lock of its partitions | "the append does not rely on the keys behind it" within two seconds; also "LimitReached says what is true then", "nothing grows beyond its maximum", "tallies equal a fold of the log": two writers count the same seat |
//! | it trusts its cache without reading the tail | "the append does not rely on the keys behind it" within two seconds, and only that: the unique keys and the second try hide the rest |
//! | it checks no versions | "an organization's status allows what is done", "who acts may do it, at that moment"; "the append does not rely on the keys behind it" within three seconds |
//! | it checks the versions of what it writes, but not of what it relied upon | "an organization's status allows what is done", "who acts may do it, at that moment", "who accepts is in, by the same command" |
//! | a projection saves its checkpoint in a transaction of its own, before it applies the events | "the read model of … equals a fold of the log", "atLeast never shows less than it promised", "what is shown at a version was so at that version" |
//! | it keeps its cache after a batch has failed | "offsets are dense in a partition", "audit sequences are dense in an organization"; then "no event stops a projection" and the read models |
//! | a floor is not held | "a living organization has an owner" |
//! | it does not wait for the flush of its commit (`synchronous_commit=off`) | "what was acknowledged is in the log", "a follower misses, doubles and reorders nothing", "a key has one outcome", as soon as the server is killed |
//! | `atLeast` does not wait | "atLeast never shows less than it promised" |
//! | it does not look up what was in doubt before it tries again | "a command leaves what it was told, once", "a refused command leaves nothing": once for each connection that is cut between a COMMIT and its answer |
//! | it does not lock the keys that are unique over all partitions | "the append does not rely on the keys behind it", each time that two replicas take a free slug in the same milliseconds: about once in half a minute, so a short run may miss it |
//!
//! A batch that fails with an error of class 23 is a violation although nothing wrong is left of it; why that cannot
//! happen without a defect stands in [`crate::health`]. What this checker does not see: whether sealed data can be
//! opened, whether a refusal was justified (only that it left nothing), whether invitations past their time were
//! swept before a refusal by a limit, whether a legal hold stood in an organization of somebody who was erased at that
//! moment, and what the configuration of the deployment forbids.

pub mod case;
pub mod event;
pub mod findings;
pub mod fold;
mod global;
mod log;
pub mod model;
mod outcomes;
mod rules;
pub mod tables;
#[cfg(test)]
mod tests;
mod watchers;
mod webhooks;

use std::collections::BTreeMap;

use sqlx::PgPool;

use crate::history::History;

pub use findings::Findings;
pub use rules::Surroundings;
pub use tables::behind;

/// What was checked, and what was wrong.
#[derive(Debug, Default)]
pub struct Report {
    /// What was wrong.
    pub findings: Findings,
    /// How many events there are.
    pub events: usize,
    /// How many of each kind.
    pub kinds: BTreeMap<String, u64>,
}

/// Checks a database, and a history of what was seen from outside if there is one.
pub async fn check(
    pool: &PgPool,
    history: Option<&History>,
    surroundings: Surroundings,
) -> Result<Report, sqlx::Error> {
    let events = event::load(pool).await?;
    let found = tables::load(pool).await?;
    let kept = outcomes::load(pool).await?;
    let mut report = Report { events: events.len(), ..Report::default() };
    for event in &events {
        *report.kinds.entry(event.name.clone()).or_default() += 1;
    }
    let findings = &mut report.findings;
    for behind in tables::behind(pool).await? {
        findings.add("projections come to the end of the log", || behind);
    }
    log::check(&events, findings);
    let mut model = rules::check(&events, surroundings, findings);
    global::check(&mut model, findings);
    model.half_pruned.retain(|id| !found.pruned.contains(id));
    tables::check(&model, &found, findings);
    outcomes::check_kept(&events, &kept, findings);
    if let Some(history) = history {
        outcomes::check(&history.commands, &events, &kept, findings);
        outcomes::check_origins(&history.commands, &events, findings);
        watchers::followers(&history.followed, &events, findings);
        watchers::reads(&history.reads, &model, findings);
        webhooks::check(&history.received, &events, &model, findings);
    }
    Ok(report)
}
