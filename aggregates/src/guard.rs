//! Rules that span streams, said by the events themselves.
//!
//! *Claims* are unique: one (scope, key) has one holder. *Tallies* count, between a floor and a maximum. Each
//! event says by a pure function which of them it changes; the log enforces them when it appends, and both can be
//! rebuilt from the log and checked against it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use chrono::{DateTime, Utc};

use crate::error::Refusal;
use crate::resource::Limit;

/// Among what a claimed key is unique. Aggregates declare theirs, and list them by [`Resource::CLAIMS`].
///
/// [`Resource::CLAIMS`]: crate::resource::Resource::CLAIMS
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    name: &'static str,
    global: bool,
    taken: Taken,
}

// The name is the scope: the writer compares and hashes it for each claim.
impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Scope {}

impl Hash for Scope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for Scope {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scope {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(other.name)
    }
}

/// How a key that somebody else holds is refused.
#[derive(Debug, Clone, Copy)]
pub enum Taken {
    /// What this field of the input names exists already, with a message.
    Exists(&'static str, &'static str),
    /// The state does not allow it.
    State(&'static str),
}

impl Scope {
    /// Keys that are unique within an organization, under this stored name, which never changes.
    pub const fn of_organization(name: &'static str, taken: Taken) -> Self {
        Self { name, global: false, taken }
    }

    /// The same of keys that are unique over all organizations.
    pub const fn global(name: &'static str, taken: Taken) -> Self {
        Self { name, global: true, taken }
    }

    /// The one of this stored name.
    pub fn named(name: &str) -> Option<Self> {
        crate::resource::scopes().find(|scope| scope.name == name)
    }

    /// The stored name.
    pub const fn as_str(self) -> &'static str {
        self.name
    }

    /// Whether keys are unique over all organizations, not within one. Such keys are locked beside the partition.
    pub const fn is_global(self) -> bool {
        self.global
    }

    /// How a key that `holder` has is refused to another.
    pub fn taken_by(self, holder: String) -> Refusal {
        match self.taken {
            Taken::Exists(path, message) => {
                Refusal::AlreadyExists { path, message: message.to_owned(), existing: holder }
            }
            Taken::State(message) => Refusal::InvalidState(message.to_owned()),
        }
    }
}

/// Active owners.
pub const OWNERS: &str = "owners";

/// A change to a claim or a tally, made by an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The event's stream holds the key from now on.
    Claim {
        /// Among what it is unique.
        scope: Scope,
        /// The key.
        key: String,
        /// When the claim has run out: not released by itself, but may be swept.
        until: Option<DateTime<Utc>>,
    },
    /// Nobody holds the key any more.
    Release {
        /// Among what it was unique.
        scope: Scope,
        /// The key.
        key: String,
    },
    /// So many more (or less) are used.
    Tally {
        /// What is counted.
        name: Cow<'static, str>,
        /// The change.
        by: i64,
    },
    /// A new maximum; `None` is no limit.
    Maximum {
        /// What is counted.
        name: String,
        /// The maximum.
        maximum: Option<u64>,
    },
    /// A new floor.
    Floor {
        /// What is counted.
        name: &'static str,
        /// The floor.
        floor: u64,
    },
    /// It is on record that the maximum was reached.
    Reached {
        /// What is counted.
        name: String,
    },
    /// Nothing of it may be used when this is recorded, all changes of the same command counted.
    Vacant {
        /// What is counted.
        name: String,
    },
}

impl Effect {
    /// One more or less of `name`.
    pub fn tally(name: impl Into<Cow<'static, str>>, by: i64) -> Self {
        Self::Tally { name: name.into(), by }
    }
}

impl From<Limit> for Cow<'static, str> {
    fn from(limit: Limit) -> Self {
        Self::Borrowed(limit.name)
    }
}
