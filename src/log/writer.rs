//! The writer of this replica: takes whatever is queued, locks the partitions concerned, decides in memory, writes
//! everything in one statement and commits once.
//!
//! Why a lock: offsets are dense and become visible in order only if nobody else can take one before this commit.
//! Why batches: the lock, the look at the tail and the flush cost the same for one command and for five hundred.
//! There is no timer; an idle writer waits, a loaded one finds a queue.
//! Why several writers: while one waits for the database, another decides. Each has partitions of its own, so they
//! share nothing and never wait for each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregates::Effect;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};
use tokio::sync::{mpsc, oneshot, watch};

use super::alarms::{About, Alarms, NoticedBy};
use super::append::{Append, Outcome};
use super::batch::{Batch, Decided};
use super::chain::ChainKey;
use super::insert::insert;
use super::keys::destroy;
use super::ledger::{ClaimKey, Partition};
use super::load::States;
use super::look_up::Seen;
use super::stored::Reader;
use super::{Era, Heads, LogError};

/// The first half of the advisory lock of a partition; the second is its number.
pub(super) const PARTITION_LOCKS: i32 = 0x7e9a;
/// How long a replica may hold a partition's lock without a word before the server ends its connection.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// How long a batch waits for other replicas.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How many columns a SELECT of PostgreSQL may have is 1,664.
const COLUMNS_MAX: usize = 1_000;
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a batch may take in all: longer than its statements may, so that only a silent network runs into it.
const BATCH_WAIT: Duration = Duration::from_secs(45);
/// How long commands wait for a database that is away, and how often it is asked for meanwhile.
const DATABASE_AWAY: Duration = Duration::from_secs(8);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Submission {
    pub at: Instant,
    pub append: Append,
    pub reply: oneshot::Sender<Result<Outcome, LogError>>,
}

/// What all writers of a log have in common.
#[derive(Clone)]
pub(super) struct Shared {
    /// Tells readers in this process how far each partition is.
    pub heads: watch::Sender<Heads>,
    /// The aggregates in memory.
    pub states: Arc<States>,
    pub era: Arc<Era>,
    pub chain: ChainKey,
    pub alarms: Arc<Alarms>,
}

pub(super) struct Writer {
    options: PgConnectOptions,
    pub(super) partitions: i16,
    batch_max: usize,
    queue: mpsc::Receiver<Submission>,
    /// Tells readers in this process how far each partition is.
    heads: watch::Sender<Heads>,
    connection: Option<PgConnection>,
    /// The aggregates in memory, which a lost connection makes doubtful.
    pub(super) states: Arc<States>,
    pub(super) era: Arc<Era>,
    chain: ChainKey,
    alarms: Arc<Alarms>,
    /// The epoch and the ledger's revision that what is in the ledger is of.
    pub(super) seen: (i64, i64),
    pub(super) ledger: HashMap<i16, Partition>,
    pub(super) reader: Reader,
}

impl Writer {
    pub fn new(
        options: PgConnectOptions,
        (partitions, batch_max): (i16, usize),
        queue: mpsc::Receiver<Submission>,
        shared: Shared,
    ) -> Self {
        let Shared { heads, states, era, chain, alarms } = shared;
        Self {
            options,
            partitions,
            batch_max,
            queue,
            heads,
            connection: None,
            states,
            era,
            chain,
            alarms,
            seen: (0, 0),
            ledger: HashMap::new(),
            reader: Reader::default(),
        }
    }

    /// Runs until every handle to the log is gone and the queue is empty.
    pub async fn run(mut self) {
        let mut submissions = Vec::new();
        while self.queue.recv_many(&mut submissions, self.batch_max).await > 0 {
            let oldest = submissions.iter().map(|submission| submission.at).min().unwrap_or_else(Instant::now);
            let (appends, replies): (Vec<_>, Vec<_>) =
                submissions.drain(..).map(|submission| (submission.append, submission.reply)).unzip();
            metrics::histogram!("tenancy_append_batch_commands").record(appends.len() as f64);
            let outcomes = self.commit_or_retry(&appends, oldest + DATABASE_AWAY).await;
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // The caller may be gone; what was recorded stays recorded.
                let _ = reply.send(outcome);
            }
        }
        if let Some(connection) = self.connection.take() {
            let _ = connection.close().await;
        }
    }

    /// Commits the batch, whatever it takes: while the database is away, waits for it and tries the batch again; when
    /// a command is to blame, tries each alone, so that it hurts only itself. What was in doubt is looked up first.
    /// The time counts from when the commands came, so those that queued meanwhile do not wait once more.
    async fn commit_or_retry(&mut self, appends: &[Append], deadline: Instant) -> Vec<Result<Outcome, LogError>> {
        let mut in_doubt = false;
        loop {
            let error = match self.commit(appends, in_doubt).await {
                Ok(outcomes) => return outcomes.into_iter().map(Ok).collect(),
                Err(error) => error,
            };
            tracing::warn!(%error, commands = appends.len(), "a batch failed");
            metrics::counter!("tenancy_append_batches_failed_total").increment(1);
            in_doubt = true;
            if blames_command(&error) {
                return self.commit_one_by_one(appends).await;
            }
            if Instant::now() >= deadline {
                return appends.iter().map(|_| Err(LogError::TimedOut)).collect();
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn commit_one_by_one(&mut self, appends: &[Append]) -> Vec<Result<Outcome, LogError>> {
        let mut outcomes = Vec::with_capacity(appends.len());
        for append in appends {
            let outcome = self.commit(std::slice::from_ref(append), true).await;
            outcomes.push(outcome.and_then(|mut outcomes| outcomes.pop().ok_or(LogError::TimedOut)));
        }
        outcomes
    }

    /// One try. After any failure nothing is believed any more that was in memory: the connection is dropped, and
    /// with it the transaction and its locks.
    async fn commit(&mut self, appends: &[Append], in_doubt: bool) -> Result<Vec<Outcome>, LogError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                // The database that answers now may have lost what was committed before (a failover, a restored
                // backup).
                self.ledger.clear();
                self.states.clear();
                tokio::time::timeout(CONNECT_WAIT, connect(&self.options)).await.map_err(|_| LogError::TimedOut)??
            }
        };
        let committed = tokio::time::timeout(BATCH_WAIT, self.commit_on(&mut connection, appends, in_doubt)).await;
        match committed.map_err(|_| LogError::TimedOut).and_then(|outcomes| outcomes) {
            Ok(outcomes) => {
                self.connection = Some(connection);
                Ok(outcomes)
            }
            Err(error) => {
                self.ledger.clear();
                Err(error)
            }
        }
    }

    async fn commit_on(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
        in_doubt: bool,
    ) -> Result<Vec<Outcome>, LogError> {
        let partitions: BTreeSet<i16> = appends.iter().map(|append| append.partition(self.partitions)).collect();
        let global_keys = global_keys(appends);
        let locked = appends.iter().flat_map(|append| append.locked(self.partitions)).collect();
        lock(connection, &locked, &global_keys).await?;
        let Seen { mut foreign, mut global, outcomes } =
            self.look_up(connection, appends, &partitions, &global_keys).await?;
        let mut recorded = if in_doubt { self.already_recorded(connection, appends).await? } else { HashMap::new() };

        let mut batch = Batch::new(outcomes, self.chain.clone());
        let mut decided = Vec::with_capacity(appends.len());
        for append in appends {
            let number = append.partition(self.partitions);
            let partition = self.ledger.entry(number).or_default();
            decided.push(match recorded.remove(&append.origin().command_id) {
                Some(outcome) => Decided::Other(outcome),
                None => batch.decide(append, number, partition, &mut global, &mut foreign),
            });
        }
        if batch.is_empty() {
            connection.execute("ROLLBACK").await?;
        } else {
            insert(connection, &batch, &global, &self.ledger).await?;
            let erased = batch.destroyed_keys();
            if !erased.is_empty() {
                destroy(connection, &erased).await?;
            }
            connection.execute("COMMIT").await?;
        }
        metrics::counter!("tenancy_events_appended_total").increment(batch.events() as u64);
        self.publish(&partitions, in_doubt || !batch.is_empty());
        Ok(batch.answer(decided))
    }

    /// Tells that a partition does not end any more as this writer knew it, on the same connection and in the same epoch: no
    /// server that lost its newest commits does that.
    pub(super) fn alarm(&self, partition: i16, text: String) {
        self.alarms.raise(About::Partition(partition), NoticedBy::Writer, text);
    }

    /// Tells readers how far the partitions are, and drops what has grown too large.
    fn publish(&mut self, partitions: &BTreeSet<i16>, changed: bool) {
        if changed {
            self.heads.send_modify(|heads| {
                for partition in partitions {
                    if let Some(known) = self.ledger.get(partition) {
                        heads.insert(*partition, known.head);
                    }
                }
            });
        }
        for partition in partitions {
            if self.ledger.get(partition).is_some_and(|known| known.is_full(self.partitions.unsigned_abs().into())) {
                self.ledger.remove(partition);
            }
        }
    }
}

/// Whether a command may be to blame, so that others should not suffer for it: bad data, a broken constraint, a
/// limit of the database, or an error of our own. A lost connection or a time-out blames nobody.
fn blames_command(error: &LogError) -> bool {
    match error {
        LogError::Database(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| ["21", "22", "23", "42", "54"].contains(&code.get(..2).unwrap_or_default()))
        }
        LogError::Database(error) => matches!(error, sqlx::Error::Encode(_) | sqlx::Error::Decode(_)),
        LogError::Corrupt(_) | LogError::Cipher | LogError::MasterKey(_) => true,
        LogError::TimedOut | LogError::Busy(_) | LogError::Unkept(_) => false,
    }
}

/// A connection of the writer: small look-ups by arrays, of whose size the planner knows nothing. Without these
/// settings it scans or hashes where it should probe an index.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let idle = IDLE_IN_TRANSACTION.as_millis().to_string();
    let lock = LOCK_WAIT.as_millis().to_string();
    let settings = [
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("synchronous_commit", "on"),
        ("idle_in_transaction_session_timeout", &idle),
        ("lock_timeout", &lock),
        ("statement_timeout", "30000"),
        ("search_path", "public"),
    ];
    PgConnection::connect_with(&options.clone().application_name("tenancy writer").options(settings)).await
}

pub(super) fn claim_keys(append: &Append) -> impl Iterator<Item = ClaimKey> + '_ {
    let effects = append.writes.iter().flat_map(|write| &write.events).flat_map(|event| &event.effects);
    effects.filter_map(|effect| match effect {
        Effect::Claim { scope, key, .. } | Effect::Release { scope, key } => {
            Some(ClaimKey::new(*scope, key, append.organization.as_ref()))
        }
        Effect::Tally { .. }
        | Effect::Maximum { .. }
        | Effect::Floor { .. }
        | Effect::Reached { .. }
        | Effect::Vacant { .. } => None,
    })
}

fn global_keys(appends: &[Append]) -> BTreeSet<ClaimKey> {
    appends.iter().flat_map(claim_keys).filter(|key| key.scope.is_global()).collect()
}

/// Begins the transaction and takes its locks, partitions first, each kind in ascending order: all writers do so,
/// hence none waits for another in a circle.
pub(super) async fn lock(
    connection: &mut PgConnection,
    partitions: &BTreeSet<i16>,
    keys: &BTreeSet<ClaimKey>,
) -> Result<(), LogError> {
    use sha2::{Digest, Sha256};
    let hash = |key: &ClaimKey| {
        let hash = Sha256::digest(format!("{}/{}", key.scope.as_str(), key.key).as_bytes());
        hash.iter().take(8).fold(0i64, |number, byte| number << 8 | i64::from(*byte))
    };
    let hashes: BTreeSet<i64> = keys.iter().map(hash).collect();
    let mut script = String::from("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;");
    // Without a table, a statement is planned in no time, and what it selects is evaluated from left to right.
    let mut take = |locks: Vec<String>| {
        for locks in locks.chunks(COLUMNS_MAX) {
            script.push_str(&format!("SELECT {};", locks.join(",")));
        }
    };
    take(partitions.iter().map(|partition| format!("pg_advisory_xact_lock({PARTITION_LOCKS},{partition})")).collect());
    take(hashes.iter().map(|hash| format!("pg_advisory_xact_lock({hash})")).collect());
    connection.execute(sqlx::raw_sql(&script)).await?;
    Ok(())
}
