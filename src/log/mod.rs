//! The event store: append, load, read.
//!
//! An organization lives in one *partition*, which follows from its id. Within a partition *offsets* are dense and
//! become visible in order, because an append holds the partition's advisory lock until it has committed. Hence a
//! reader's cursor is one number a partition, nothing can be skipped, and lag is a subtraction.
//!
//! What is always so:
//! - only the writer inserts into `events`, nobody deletes there, and the one update is `prune`'s;
//! - nothing is believed from a cache that the append does not check under the lock;
//! - a refused command leaves nothing, but a `LimitReached` once for each time that room ran out.

pub mod access;
pub mod alarms;
mod append;
mod batch;
pub mod chain;
mod erasure;
mod insert;
mod keys;
pub mod ledger;
mod load;
mod look_up;
mod position;
pub mod prune;
mod read;
mod reasons;
pub mod scope;
mod settle;
mod source;
mod stand;
mod stored;
mod tail;
mod trail;
pub mod verify;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use aggregates::ids::{EventId, Id};
use aggregates::{Event, Origin, StreamId};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::database::Connections;

pub use append::{Append, Idempotency, Outcome, StoredOutcome, Write, partition_of};
pub use erasure::Unfinished;
pub use keys::{KeyRing, Keys, MasterKeys, TRUSTED_FOR, open_disclosed};
pub use load::{Cached, Current, Loaded};
pub use position::{InvalidPosition, Position};
pub use read::NamedTally;
pub use settle::Bound;
pub use stand::{Sources, Stand};
pub use stored::{COLUMNS, Datum, Reader, StoredEvent, place as personal_place};
pub use trail::{AuditCursor, AuditFilter, AuditPage, AuditSlice, Direction, EventsOf, push_filter};

/// The last offset of each partition, as far as this process has heard.
pub type Heads = BTreeMap<i16, i64>;

/// The channel on which replicas tell each other that there is something new.
pub const CHANNEL: &str = "tenancy_log";

/// A fault of the log: nothing is known to have been recorded.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database refused or could not be reached.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// It did not answer in time.
    #[error("the database did not answer in time")]
    TimedOut,
    /// The queue is full or closed.
    #[error("the service is not taking commands: {0}")]
    Busy(&'static str),
    /// A key does not fit.
    #[error("a key does not fit what it should open: is this the master key of this database?")]
    Cipher,
    /// A master key is in use that this service was not given.
    #[error("keys of people are wrapped by the master key {0}, which this service was not given")]
    MasterKey(String),
    /// What has to be kept beside the database cannot be.
    #[error("{0}")]
    Unkept(String),
    /// The log holds something that it should not.
    #[error("the log holds what cannot be: {0}")]
    Corrupt(String),
}

/// How large the log's queue and batches may become.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Writers, each with partitions of its own.
    pub writers: usize,
    /// Commands that wait for one writer.
    pub queue_commands_max: usize,
    /// Commands in one transaction.
    pub batch_commands_max: usize,
    /// Partitions, if the database is new.
    pub partitions: i16,
}

/// How the database is reached, each under a role of its own.
#[derive(Clone)]
pub struct Pools {
    /// For the log's own look-ups.
    pub own: Connections,
    /// For what belongs to organizations: sees what a statement puts in scope.
    pub readers: Connections,
    /// For what operators read over all organizations.
    pub operators: Connections,
}

/// The log. Cheap to share.
pub struct Log {
    pool: Connections,
    readers: Connections,
    operators: Connections,
    keys: KeyRing,
    reader: Reader,
    /// One queue a writer; which one follows from the partition.
    queues: Vec<mpsc::Sender<writer::Submission>>,
    heads: watch::Receiver<Heads>,
    states: Arc<load::States>,
    partitions: i16,
    era: Arc<Era>,
    alarms: Arc<alarms::Alarms>,
    /// At which the states in memory were read.
    ledger_revision: AtomicI64,
}

/// Which epoch of the database this replica knows, for everybody who gives or takes positions.
pub(crate) struct Era(watch::Sender<i64>);

impl Era {
    fn epoch(&self) -> i64 {
        *self.0.borrow()
    }

    fn enter(&self, epoch: i64) -> bool {
        self.0.send_if_modified(|known| std::mem::replace(known, epoch) != epoch)
    }
}

/// What a command wants recorded, readable; the log seals and serialises it.
pub struct Draft {
    /// The organization whose partition it is written to.
    pub organization: Option<aggregates::ids::OrganizationId>,
    /// Streams that the decision relied upon, with their versions.
    pub relied: Vec<(StreamId, u64)>,
    /// A user whose stream nobody may write to meanwhile. What is relied upon in another partition is otherwise only
    /// looked at, so that two commands that undo what the other relies upon would both pass.
    pub held: Option<aggregates::ids::UserId>,
    /// Streams and their new events, with the versions that they are expected to be at.
    pub writes: Vec<(StreamId, u64, Vec<Event>)>,
    /// How it came about.
    pub origin: Origin,
}

impl Log {
    /// Opens the log over an up-to-date database, and starts its writers, which end when every handle is gone.
    /// `options` is how they connect, each for itself.
    pub async fn open(
        pools: Pools,
        options: PgConnectOptions,
        master_keys: &MasterKeys,
        sizes: Sizes,
    ) -> Result<(Arc<Self>, JoinSet<()>), LogError> {
        let Pools { own: pool, readers, operators } = pools;
        sqlx::query!("INSERT INTO installation (partitions) VALUES ($1) ON CONFLICT DO NOTHING", sizes.partitions)
            .execute(&pool)
            .await?;
        let keys = KeyRing::open(pool.clone(), master_keys).await?;
        let installation =
            sqlx::query!("SELECT epoch, partitions, ledger_revision FROM installation").fetch_one(&pool).await?;
        let (heads_sender, heads) = watch::channel(Heads::new());
        let states = Arc::new(load::states());
        let era = Arc::new(Era(watch::channel(installation.epoch).0));
        let alarms = Arc::new(alarms::Alarms::default());
        let shared = writer::Shared {
            heads: heads_sender,
            states: states.clone(),
            era: era.clone(),
            chain: keys.chain().clone(),
            alarms: alarms.clone(),
        };
        let (mut queues, mut writers) = (vec![], JoinSet::new());
        for _ in 0..sizes.writers.clamp(1, installation.partitions.unsigned_abs().into()) {
            let (sender, queue) = mpsc::channel(sizes.queue_commands_max);
            let sizes = (installation.partitions, sizes.batch_commands_max);
            let writer = writer::Writer::new(options.clone(), sizes, queue, shared.clone());
            queues.push(sender);
            writers.spawn(writer.run());
        }
        let log = Self {
            pool,
            readers,
            operators,
            keys,
            reader: Reader::default(),
            queues,
            heads,
            states,
            partitions: installation.partitions,
            era,
            alarms,
            ledger_revision: AtomicI64::new(installation.ledger_revision),
        };
        Ok((Arc::new(log), writers))
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> i16 {
        self.partitions
    }

    /// The epoch of the positions that this log gives and takes.
    pub fn epoch(&self) -> i64 {
        self.era.epoch()
    }

    /// The epoch, and a change when the database went back to an earlier point.
    pub fn epochs(&self) -> watch::Receiver<i64> {
        self.era.0.subscribe()
    }

    /// Looks whether the database went back to an earlier point, and forgets states where the log was pruned.
    pub async fn look_at_epoch(&self) -> Result<(), LogError> {
        let now = sqlx::query!("SELECT epoch, ledger_revision FROM installation").fetch_one(&self.pool).await?;
        if self.ledger_revision.swap(now.ledger_revision, Ordering::Relaxed) != now.ledger_revision {
            self.states.clear();
        }
        self.era.enter(now.epoch);
        Ok(())
    }

    /// Forgets everything that was in memory and came from the database.
    pub fn forget(&self) {
        self.states.clear();
        self.keys.forget();
    }

    /// The keys of persons and of hashes.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// What reads stored events.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What was noticed that the service did not do.
    pub fn alarms(&self) -> &Arc<alarms::Alarms> {
        &self.alarms
    }

    /// The last offsets that this replica wrote, and a change for each commit.
    pub fn heads(&self) -> watch::Receiver<Heads> {
        self.heads.clone()
    }

    /// The pool of the log's own look-ups, which see everything.
    pub fn pool(&self) -> &Connections {
        &self.pool
    }

    /// The pool for what belongs to organizations; see [`scope`].
    pub fn readers(&self) -> &Connections {
        &self.readers
    }

    /// The pool for what operators read over all organizations.
    pub fn operators(&self) -> &Connections {
        &self.operators
    }

    /// Seals a draft, so that it can be appended as often as it takes: its event ids stay the same.
    pub async fn seal(&self, draft: Draft) -> Result<Append, LogError> {
        let mut people = vec![];
        let mut writes = draft.writes;
        for event in writes.iter_mut().flat_map(|(_, _, events)| events) {
            stored::subjects(event, &mut people);
        }
        let origin = &draft.origin;
        if origin.ip.is_some() || origin.user_agent.is_some() {
            people.extend(stored::subject_of_origin(origin).map(str::to_owned));
        }
        let keys = self.keys.find_or_make(people.iter().map(String::as_str)).await?;
        let seal_all = |events: Vec<Event>| {
            events
                .into_iter()
                .map(|event| stored::NewEvent::seal(EventId::random(), event, &keys))
                .collect::<Result<_, _>>()
        };
        Ok(Append {
            organization: draft.organization,
            relied: draft.relied,
            held: draft.held,
            writes: writes
                .into_iter()
                .map(|(stream, expected, events)| Ok(Write { stream, expected, events: seal_all(events)? }))
                .collect::<Result<_, LogError>>()?,
            idempotency: None,
            origin: stored::seal_origin(draft.origin, &keys),
            last_try: true,
        })
    }

    /// Appends, and waits until it is durable. An error says nothing about whether it was recorded; appending the
    /// same again finds out.
    pub async fn append(&self, append: Append) -> Result<Outcome, LogError> {
        let (reply, answer) = oneshot::channel();
        let queue = &self.queues[usize::from(append.partition(self.partitions).unsigned_abs()) % self.queues.len()];
        let queued = queue.try_send(writer::Submission { at: Instant::now(), append, reply });
        queued.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LogError::Busy("too many commands are waiting"),
            mpsc::error::TrySendError::Closed(_) => LogError::Busy("it is stopping"),
        })?;
        let outcome = answer.await.map_err(|_| LogError::Busy("it is stopping"))??;
        if let Outcome::Accepted { events } = &outcome {
            if events.iter().any(|recorded| recorded.event.destroys_key()) {
                self.keys.forget();
            }
            self.keep_up(events);
        }
        if let Outcome::Limit { event: Some(event), .. } = &outcome {
            self.keep_up(std::slice::from_ref(event));
        }
        Ok(outcome)
    }

    /// Ends when a writer has ended, after which nothing can be appended any more.
    pub async fn closed(&self) {
        // One that died takes its partitions with it; the others cannot do without.
        let closed = self.queues.iter().map(|queue| Box::pin(queue.closed()));
        futures_util::future::select_all(closed).await;
    }

    /// Whether a writer has ended.
    pub fn is_closed(&self) -> bool {
        self.queues.iter().any(mpsc::Sender::is_closed)
    }

    /// The partition that an organization or a user lives in.
    pub fn partition_of(&self, id: &str) -> i16 {
        partition_of(id, self.partitions)
    }
}
