//! A batch of commands, decided one after the other in memory, and what is to be written of it.

use std::collections::HashMap;

use aggregates::{Effect, Recorded, StreamId};
use chrono::{DateTime, SubsecRound, Utc};

use super::append::{Append, Outcome, Write, limit_reached};
use super::chain::{ChainKey, Columns, METADATA, Mac};
use super::ledger::{self, Broken, Changes, Claim, ClaimKey, Entry, Partition};
use super::look_up::KnownOutcomes;
use super::stored::NewEvent;

/// An accepted event with its place.
pub(super) struct Placed<'a> {
    pub(super) append: &'a Append,
    pub(super) stream: StreamId,
    pub(super) sequence: u64,
    pub(super) offset: i64,
    pub(super) audit_sequence: Option<i64>,
    pub(super) recorded_at: DateTime<Utc>,
    pub(super) partition: i16,
    pub(super) event: NewEvent,
    pub(super) actor: String,
    pub(super) on_behalf_of: Option<String>,
    pub(super) mac: Mac,
}

impl Placed<'_> {
    /// The columns as they are written.
    fn columns(&self) -> Columns<'_> {
        let origin = self.append.origin();
        let described = self.event.event.descriptor();
        Columns {
            partition: self.partition,
            offset: self.offset,
            aggregate_type: self.stream.aggregate_type(),
            aggregate_id: self.stream.id(),
            sequence: self.sequence.cast_signed(),
            event_type: described.name,
            event_version: described.version,
            payload: &self.event.payload,
            metadata: METADATA,
            organization_id: self.append.organization.as_ref().map(AsRef::as_ref),
            audit_sequence: self.audit_sequence,
            event_id: self.event.id.as_ref(),
            command_id: origin.command_id,
            actor: &self.actor,
            on_behalf_of: self.on_behalf_of.as_deref(),
            ip: self.append.origin.ip.as_deref(),
            user_agent: self.append.origin.user_agent.as_deref(),
            request_id: origin.request_id.as_deref(),
            correlation_id: origin.correlation_id,
            causation_id: origin.causation_id.as_ref().map(AsRef::as_ref),
            recorded_at: self.recorded_at,
        }
    }
}

/// A batch being decided.
pub(super) struct Batch<'a> {
    chain: ChainKey,
    pub(super) now: DateTime<Utc>,
    pub(super) placed: Vec<Placed<'a>>,
    pub(super) changes: Changes,
    /// Outcomes that were kept before, by caller, operation and key; grows with the batch.
    known: KnownOutcomes,
    /// Appends whose outcomes are to be kept.
    pub(super) kept: Vec<&'a Append>,
}

/// An outcome whose events are still in the batch: from where, and how many.
pub(super) enum Decided {
    Accepted(std::ops::Range<usize>),
    Limit { name: String, maximum: i64, used: i64, requested: i64, event: Option<usize> },
    Other(Outcome),
}

impl<'a> Batch<'a> {
    pub(super) fn new(known: KnownOutcomes, chain: ChainKey) -> Self {
        // As precise as the database, so that an event is shown with one time and not with two.
        let now = Utc::now().trunc_subsecs(6);
        Self { chain, now, placed: vec![], changes: Changes::default(), known, kept: vec![] }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.placed.is_empty() && self.kept.is_empty()
    }

    /// How many events there are to write.
    pub(super) fn events(&self) -> usize {
        self.placed.len()
    }

    /// Whose keys go with the events.
    pub(super) fn destroyed_keys(&self) -> Vec<&str> {
        let destroys = |placed: &&Placed<'_>| placed.event.event.destroys_key();
        self.placed.iter().filter(destroys).map(|placed| placed.stream.id()).collect()
    }

    pub(super) fn decide(
        &mut self,
        append: &'a Append,
        number: i16,
        partition: &mut Partition,
        global: &mut HashMap<ClaimKey, Option<Claim>>,
        foreign: &mut HashMap<StreamId, u64>,
    ) -> Decided {
        let idempotency = append.idempotency.as_ref();
        let key = idempotency.map(|i| (i.caller.clone(), i.operation.clone(), i.key.clone()));
        if let Some((input, outcome)) = key.as_ref().and_then(|key| self.known.get(key)) {
            return Decided::Other(Outcome::Duplicate { input: input.clone(), outcome: outcome.clone() });
        }
        let effects_of = |write: &'a Write| {
            let effects = write.events.iter().flat_map(|event| &event.effects);
            effects.map(|effect| (write.stream.id(), effect))
        };
        let effects: Vec<(&str, &Effect)> = append.writes.iter().flat_map(effects_of).collect();
        let written: Vec<_> = append
            .writes
            .iter()
            .map(|write| (write.stream.clone(), write.expected + write.events.len() as u64))
            .collect();
        let entry = Entry {
            organization: append.organization.as_ref(),
            expected: &append.expected().collect::<Vec<_>>(),
            written: &written,
            effects: &effects,
        };
        match ledger::enter(partition, global, foreign, &entry, &mut self.changes) {
            Ok(()) => {
                // Another command of this batch may rely on it from a partition of its own.
                for (stream, version) in &written {
                    foreign.entry(stream.clone()).and_modify(|known| *known = *version);
                }
                let first = self.placed.len();
                for write in &append.writes {
                    for (sequence, event) in (write.expected + 1..).zip(&write.events) {
                        self.place(append, number, partition, write.stream.clone(), sequence, event.clone());
                    }
                }
                if let (Some(key), Some(idempotency)) = (key, idempotency) {
                    self.known.insert(key, (idempotency.input.clone(), idempotency.outcome.clone()));
                    self.kept.push(append);
                }
                Decided::Accepted(first..self.placed.len())
            }
            Err(Broken::Version { stream, actual, .. }) => Decided::Other(Outcome::Conflict { stream, actual }),
            Err(Broken::Taken { key, holder }) => Decided::Other(Outcome::Taken { key, holder }),
            Err(Broken::Floor { name }) => Decided::Other(Outcome::Floor { name }),
            Err(Broken::Occupied { name, used }) => {
                Decided::Other(Outcome::Occupied { name, used: used.unsigned_abs() })
            }
            Err(Broken::Limit { name, maximum, used, requested, recorded }) => {
                let event = if append.last_try && !recorded {
                    self.record_limit(append, number, partition, (&name, maximum, used, requested))
                } else {
                    None
                };
                Decided::Limit { name, maximum, used, requested, event }
            }
        }
    }

    /// The only thing that a refused command may leave: that the limit was reached, on the organization's stream.
    fn record_limit(
        &mut self,
        append: &'a Append,
        number: i16,
        partition: &mut Partition,
        (name, maximum, used, requested): (&str, i64, i64, i64),
    ) -> Option<usize> {
        let organization = append.organization.as_ref()?;
        let stream = StreamId::from(organization.clone());
        let version = partition.versions.get_mut(&stream).filter(|version| **version > 0)?;
        *version += 1;
        let sequence = *version;
        let event = limit_reached(name, maximum, used, requested);
        let event = NewEvent::seal(append.limit_event_id(), event, &super::keys::Keys::default()).ok()?;
        if let Some(tally) = partition.tallies.get_mut(organization).and_then(|tallies| tallies.get_mut(name)) {
            tally.reached = true;
            self.changes.tallies.insert((organization.clone(), name.to_owned()));
        }
        self.place(append, number, partition, stream, sequence, event);
        Some(self.placed.len() - 1)
    }

    fn place(
        &mut self,
        append: &'a Append,
        number: i16,
        partition: &mut Partition,
        stream: StreamId,
        sequence: u64,
        event: NewEvent,
    ) {
        partition.head += 1;
        // The clock may step back; a partition's time does not.
        partition.recorded_at = partition.recorded_at.max(self.now);
        let audit_sequence = append.organization.as_ref().map(|organization| {
            let audit = partition.audit.entry(organization.clone()).or_default();
            *audit += 1;
            *audit
        });
        let mut placed = Placed {
            append,
            stream,
            sequence,
            offset: partition.head,
            audit_sequence,
            recorded_at: partition.recorded_at,
            partition: number,
            event,
            actor: append.origin().actor.to_string(),
            on_behalf_of: append.origin().on_behalf_of.as_ref().map(ToString::to_string),
            mac: Mac::new(),
        };
        placed.mac = self.chain.of_event(&partition.mac, &placed.columns());
        partition.mac.clone_from(&placed.mac);
        self.placed.push(placed);
    }

    pub(super) fn answer(self, decided: Vec<Decided>) -> Vec<Outcome> {
        let recorded = |placed: &Placed<'_>| Recorded {
            id: placed.event.id.clone(),
            stream: placed.stream.clone(),
            sequence: placed.sequence,
            partition: placed.partition,
            offset: placed.offset,
            organization: placed.append.organization.clone(),
            audit_sequence: placed.audit_sequence.map(i64::unsigned_abs),
            recorded_at: placed.recorded_at,
            origin: placed.append.origin().clone(),
            event: placed.event.event.clone(),
        };
        let answer = |decided| match decided {
            Decided::Accepted(range) => Outcome::Accepted { events: self.placed[range].iter().map(recorded).collect() },
            Decided::Limit { name, maximum, used, requested, event } => Outcome::Limit {
                name,
                maximum: maximum.unsigned_abs(),
                used: used.unsigned_abs(),
                requested: requested.unsigned_abs(),
                event: event.and_then(|index| self.placed.get(index)).map(|placed| Box::new(recorded(placed))),
            },
            Decided::Other(outcome) => outcome,
        };
        decided.into_iter().map(answer).collect()
    }
}
