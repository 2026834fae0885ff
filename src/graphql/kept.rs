//! Answers that are given again as long as they are what the service would answer anew.
//!
//! An answer is made from organizations and users ([`Sources`]); the log tells by one statement how many events each of
//! them has. While that is what it was, the same question of the same caller has the same answer, byte by byte: nothing
//! is parsed, checked, read or written again. The statement also tells of what changes without an event, see
//! [`Stand`], and is the look at whether the caller is let in: they are among the sources.
//!
//! What is always so:
//! - an answer is kept of what its session vouches for ([`Reads`]), and of nothing else: whatever reads the log or a
//!   table without saying which organization or user it belongs to makes its answer one that is not kept;
//! - the stand was read before anything of the answer was, and the read models had come so far by then;
//! - it is of one caller, with all that their token says, and of a user: API tokens are let in by more than one stream;
//! - rate limits and the access trail see a request that is answered this way as they see any other.
//!
//! The first question of a kind leaves only what it was made from, so the second knows what to look at beforehand, and a
//! crawler that asks everything once fills no memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aggregates::ids::{OrganizationId, UserId};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use projections::{Progress, Projection, Reach};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::commands::{Caller, Principal};
use crate::log::{Heads, Log, LogError, Sources, Stand};
use crate::requests::trail::{Occurrence, Trail};

/// How long an answer is given again: a repair without an event (a stream that was parked, a read model that was built
/// again) shows by then.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// An answer that is made from more is not kept: looking at all of it would cost as much as making it.
const SOURCES_MAX: usize = 200;
/// What an entry weighs without its text.
const ENTRY_BYTES: u64 = 512;

/// A question: the caller with all that is known of them, the document, the operation, and the variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question([u8; 32]);

impl Question {
    /// What this caller asks with these parts; `None` of callers whose answers are not kept.
    pub fn of(caller: &Caller, parts: &[&[u8]]) -> Option<Self> {
        let Principal::User(person) = &caller.principal else { return None };
        let mut hash = Sha256::new();
        for part in std::iter::once(&format!("{person:?}").as_bytes()).chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Some(Self(hash.finalize().into()))
    }
}

/// The reads of a session, by which its answer may be kept.
#[derive(Default)]
pub struct Reads(Mutex<Read>);

/// What an answer was made from.
#[derive(Debug, Clone, Default)]
struct Read {
    sources: Sources,
    /// Something was read that no organization or user stands for.
    other: bool,
    /// Until when it is so by the clock.
    until: Option<DateTime<Utc>>,
    occurrences: Vec<Occurrence>,
}

impl Reads {
    fn change(&self, change: impl FnOnce(&mut Read)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What follows from the events of an organization.
    pub fn organization(&self, id: &OrganizationId) {
        self.change(|read| {
            if !read.sources.organizations.contains(id) {
                read.sources.organizations.insert(id.clone());
            }
        });
    }

    /// What follows from the events of a user.
    pub fn user(&self, id: &UserId) {
        self.change(|read| {
            if !read.sources.users.contains(id) {
                read.sources.users.insert(id.clone());
            }
        });
    }

    /// What may change without an event of an organization or user that was named.
    pub fn other(&self) {
        self.change(|read| read.other = true);
    }

    /// What is so until then.
    pub fn until(&self, time: DateTime<Utc>) {
        self.change(|read| read.until = Some(read.until.map_or(time, |until| until.min(time))));
    }

    /// What was put on record.
    pub fn occurrence(&self, occurrence: &Occurrence) {
        self.change(|read| read.occurrences.push(occurrence.clone()));
    }
}

struct Entry {
    read: Read,
    given: Option<Given>,
}

struct Given {
    stand: Stand,
    at: Instant,
    text: Bytes,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Question, Arc<Entry>> for Weight {
    fn weight(&self, _: &Question, entry: &Arc<Entry>) -> u64 {
        let text = entry.given.as_ref().map_or(0, |given| given.text.len());
        ENTRY_BYTES + 64 * entry.read.sources.count() as u64 + text as u64
    }
}

/// Answers in memory.
pub struct Answers {
    entries: Cache<Question, Arc<Entry>, Weight>,
    progress: watch::Receiver<Progress>,
}

/// What is known of a question.
pub enum Looked {
    /// Its answer, which was put on record again.
    Answer(Bytes),
    /// Nothing; with what an answer that is made now may be kept.
    Nothing(Option<Before>),
}

/// How things stood before an answer was made.
pub struct Before {
    sources: Sources,
    stand: Stand,
}

impl Answers {
    /// Of so many bytes at most, over read models that are so far; `None` keeps none.
    pub fn new(bytes_max: u64, progress: watch::Receiver<Progress>) -> Option<Self> {
        let entries = usize::try_from(bytes_max / 4096).unwrap_or(usize::MAX);
        (bytes_max > 0).then(|| Self { entries: Cache::with_weighter(entries, bytes_max, Weight), progress })
    }

    /// The answer to a question, if it is still what would be answered.
    pub async fn look(
        &self,
        question: Question,
        caller: &Caller,
        (log, trail): (&Log, &Trail),
    ) -> Result<Looked, LogError> {
        let Some(entry) = self.entries.get(&question) else { return Ok(Looked::Nothing(None)) };
        let (stand, heads) = log.stand(&entry.read.sources).await?;
        let holds = |given: &&Given| {
            let in_time = entry.read.until.is_none_or(|until| Utc::now() < until);
            given.stand == stand && given.at.elapsed() < KEPT_FOR && in_time
        };
        if let Some(given) = entry.given.as_ref().filter(holds)
            && self.count(caller, &entry.read)
        {
            for occurrence in &entry.read.occurrences {
                trail.note(Occurrence { ip: caller.ip.clone(), ..occurrence.clone() });
            }
            metrics::counter!("tenancy_answers_kept_total").increment(1);
            return Ok(Looked::Answer(given.text.clone()));
        }
        let level = self.are_level(log, &heads).await?;
        Ok(Looked::Nothing(level.then(|| Before { sources: entry.read.sources.clone(), stand })))
    }

    /// Counts the organizations that are read, as a session does; whether there is room for all.
    fn count(&self, caller: &Caller, read: &Read) -> bool {
        let meter = caller.member_meter();
        meter.is_none_or(|meter| read.sources.organizations.iter().all(|id| meter.read_of(id).is_ok()))
    }

    /// Whether the read models show everything up to there.
    async fn are_level(&self, log: &Log, heads: &Heads) -> Result<bool, LogError> {
        let own = {
            let progress = self.progress.borrow();
            heads.iter().all(|(partition, offset)| {
                Projection::shown().all(|shown| progress.get(&(shown, *partition)).is_some_and(|at| at >= offset))
            })
        };
        Ok(own || projections::reached(log.pool(), heads).await? == Reach::Level)
    }

    /// Keeps an answer without errors, if it may be, or what the next one will be made from.
    pub fn keep(&self, question: Question, reads: &Reads, before: Option<Before>, text: &Bytes) {
        let read = reads.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if read.other || read.sources.count() > SOURCES_MAX {
            return;
        }
        let before = before.filter(|before| read.sources == before.sources);
        let at = Instant::now();
        let given = before.map(|before| Given { stand: before.stand, at, text: text.clone() });
        self.entries.insert(question, Arc::new(Entry { read, given }));
    }
}
