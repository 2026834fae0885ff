//! What is handed to the writer, and what it answers.

use aggregates::ids::{EventId, Id, OrganizationId, UserId};
use aggregates::{Event, Origin, Recorded, StreamId};
use serde::{Deserialize, Serialize};

use super::ledger::ClaimKey;
use super::stored::{NewEvent, StoredOrigin};

/// A command's outcome, to be recorded whole or not at all.
#[derive(Debug, Clone)]
pub struct Append {
    /// The organization whose partition it is written to; without one, the partition follows from the stream.
    pub organization: Option<OrganizationId>,
    /// Streams that the decision relied upon, with their versions.
    pub relied: Vec<(StreamId, u64)>,
    /// A user whose stream is held while this is appended, see [`super::Draft::held`].
    pub held: Option<UserId>,
    /// Streams that get events, with the versions that they are expected to be at.
    pub writes: Vec<Write>,
    /// The key by which a repetition finds this outcome.
    pub idempotency: Option<Idempotency>,
    /// How it came about.
    pub(super) origin: StoredOrigin,
    /// On `taken` and `limit`: whether to refuse for good (and record that a limit was reached), or to answer
    /// without a trace, so that invitations past their time can be swept first.
    pub last_try: bool,
}

/// New events of one stream.
#[derive(Debug, Clone)]
pub struct Write {
    /// Which stream.
    pub stream: StreamId,
    /// The version that it is expected to be at; 0 for a new one.
    pub expected: u64,
    /// The events.
    pub events: Vec<NewEvent>,
}

/// The key by which a repeated command finds its first outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller.
    pub caller: String,
    /// Which operation.
    pub operation: String,
    /// The caller's key.
    pub key: String,
    /// A keyed hash of the input: the same key with other input is a mistake.
    pub input: String,
    /// What to remember.
    pub outcome: StoredOutcome,
}

/// What is remembered of an accepted command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredOutcome {
    /// The events that it recorded.
    pub events: Vec<String>,
    /// The streams that it answers with, at their versions.
    pub streams: Vec<(String, u64)>,
}

/// What became of an append.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Recorded.
    Accepted {
        /// The events, as recorded.
        events: Vec<Recorded>,
    },
    /// A command of this key was accepted before.
    Duplicate {
        /// The keyed hash of its input.
        input: String,
        /// What it recorded.
        outcome: StoredOutcome,
    },
    /// A stream was not at the expected version.
    Conflict {
        /// Which stream.
        stream: StreamId,
        /// What it is at.
        actual: u64,
    },
    /// Somebody else holds a key.
    Taken {
        /// Which key.
        key: ClaimKey,
        /// The holder.
        holder: String,
    },
    /// A maximum would be exceeded.
    Limit {
        /// What is counted.
        name: String,
        /// The maximum.
        maximum: u64,
        /// What is used.
        used: u64,
        /// How much more was asked for.
        requested: u64,
        /// The `LimitReached` that this refusal recorded, if it did.
        event: Option<Box<Recorded>>,
    },
    /// Too little would be left.
    Floor {
        /// What is counted.
        name: String,
    },
    /// Something of it is still used.
    Occupied {
        /// What is counted.
        name: String,
        /// How much is used.
        used: u64,
    },
}

impl Append {
    /// Everything that must be at its expected version.
    pub(super) fn expected(&self) -> impl Iterator<Item = (&StreamId, u64)> {
        let written = self.writes.iter().map(|write| (&write.stream, write.expected));
        self.relied.iter().map(|(stream, version)| (stream, *version)).chain(written)
    }

    /// The partition that it is written to.
    pub(super) fn partition(&self, partitions: i16) -> i16 {
        let home = self.organization.as_ref().map(AsRef::as_ref);
        let stream = || self.writes.first().map(|write| write.stream.id());
        partition_of(home.or_else(stream).unwrap_or_default(), partitions)
    }

    /// The partitions that are locked while it is decided: where it is written to, and where whom it holds lives.
    pub(super) fn locked(&self, partitions: i16) -> impl Iterator<Item = i16> {
        let held = self.held.as_ref().map(|user| partition_of(user.as_ref(), partitions));
        std::iter::once(self.partition(partitions)).chain(held)
    }

    /// The id of the event that records, for this append, that a limit was reached: the same at every try.
    pub(super) fn limit_event_id(&self) -> EventId {
        EventId::derived(&["limit reached", &self.origin.origin.command_id.to_string()])
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin.origin
    }
}

/// The partition of whatever has this id: the first eight bytes of its SHA-256, modulo the number of partitions.
pub fn partition_of(id: &str, partitions: i16) -> i16 {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(id.as_bytes());
    let number = hash.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    i16::try_from(number % u64::from(partitions.unsigned_abs().max(1))).unwrap_or_default()
}

/// The partition of a stream, where that follows from the stream alone: an organization's and a user's.
pub(super) fn own_partition(stream: &StreamId, partitions: i16) -> Option<i16> {
    stream.place().is_own_partition().then(|| partition_of(stream.id(), partitions))
}

/// An event that says that a limit was reached.
pub(super) fn limit_reached(name: &str, maximum: i64, used: i64, requested: i64) -> Event {
    aggregates::organization::OrganizationEvent::LimitReached {
        limit: name.to_owned(),
        maximum: Some(maximum.unsigned_abs()),
        used: used.unsigned_abs(),
        requested: requested.unsigned_abs(),
    }
    .into()
}
