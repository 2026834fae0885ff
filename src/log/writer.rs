//! The writer of this replica: takes whatever is queued, locks the partitions concerned, decides in memory, writes
//! everything in one statement and commits once.
//!
//! Why a lock: offsets are dense and become visible in order only if nobody else can take one before this commit.
//! Why batches: the lock, the look at the tail and the flush cost the same for one command and for five hundred.
//! There is no timer; an idle writer waits, a loaded one finds a queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use aggregates::ids::OrganizationId;
use aggregates::{Effect, Recorded, StreamId};
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};
use tokio::sync::{mpsc, oneshot, watch};

use super::append::{Append, Outcome, StoredOutcome, limit_reached, own_partition};
use super::ledger::{self, Broken, Changes, Claim, ClaimKey, Entry, Partition, Tally};
use super::stored::{COLUMNS, NewEvent, Reader, StoredEvent};
use super::{Heads, LogError};

/// The first half of the advisory lock of a partition; the second is its number.
pub(super) const PARTITION_LOCKS: i32 = 0x7e9a;
/// How long a replica may hold a partition's lock without a word before the server ends its connection.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// How long a batch waits for other replicas.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const CONNECT_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Submission {
    pub append: Append,
    pub reply: oneshot::Sender<Result<Outcome, LogError>>,
}

pub(super) struct Writer {
    pub options: PgConnectOptions,
    pub partitions: i16,
    pub batch_max: usize,
    pub queue: mpsc::Receiver<Submission>,
    /// Tells readers in this process how far each partition is.
    pub heads: watch::Sender<Heads>,
    connection: Option<PgConnection>,
    ledger: HashMap<i16, Partition>,
    reader: Reader,
}

/// An accepted event with its place.
struct Placed<'a> {
    append: &'a Append,
    stream: StreamId,
    sequence: u64,
    offset: i64,
    audit_sequence: Option<i64>,
    recorded_at: DateTime<Utc>,
    partition: i16,
    event: NewEvent,
}

impl Writer {
    pub fn new(
        options: PgConnectOptions,
        partitions: i16,
        batch_max: usize,
        queue: mpsc::Receiver<Submission>,
        heads: watch::Sender<Heads>,
    ) -> Self {
        Self {
            options,
            partitions,
            batch_max,
            queue,
            heads,
            connection: None,
            ledger: HashMap::new(),
            reader: Reader::default(),
        }
    }

    /// Runs until every handle to the log is gone and the queue is empty.
    pub async fn run(mut self) {
        let mut submissions = Vec::new();
        while self.queue.recv_many(&mut submissions, self.batch_max).await > 0 {
            let (appends, replies): (Vec<_>, Vec<_>) =
                submissions.drain(..).map(|submission| (submission.append, submission.reply)).unzip();
            metrics::histogram!("tenancy_append_batch_commands").record(appends.len() as f64);
            let outcomes = self.commit_or_retry(&appends).await;
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // Whoever asked may be gone; what was recorded stays recorded.
                let _ = reply.send(outcome);
            }
        }
        if let Some(connection) = self.connection.take() {
            let _ = connection.close().await;
        }
    }

    /// Commits the batch; after any failure, forgets what it believed and tries each command alone, so that one
    /// bad command hurts only itself. A command whose commit was in doubt is looked up first.
    async fn commit_or_retry(&mut self, appends: &[Append]) -> Vec<Result<Outcome, LogError>> {
        let error = match self.commit(appends, false).await {
            Ok(outcomes) => return outcomes.into_iter().map(Ok).collect(),
            Err(error) => error,
        };
        tracing::warn!(%error, commands = appends.len(), "a batch failed; its commands are tried one by one");
        metrics::counter!("tenancy_append_batches_failed_total").increment(1);
        let mut outcomes = Vec::with_capacity(appends.len());
        for append in appends {
            self.forget(append);
            let outcome = self.commit(std::slice::from_ref(append), true).await;
            if outcome.is_err() {
                self.forget(append);
            }
            outcomes.push(outcome.and_then(|mut outcomes| outcomes.pop().ok_or(LogError::Cipher)));
        }
        outcomes
    }

    fn forget(&mut self, append: &Append) {
        self.ledger.remove(&append.partition(self.partitions));
        self.connection = None;
    }

    async fn commit(&mut self, appends: &[Append], in_doubt: bool) -> Result<Vec<Outcome>, LogError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                tokio::time::timeout(CONNECT_WAIT, connect(&self.options)).await.map_err(|_| LogError::TimedOut)??
            }
        };
        // Until the commit went through, an error drops the connection, and with it the transaction and the locks.
        let outcomes = self.commit_on(&mut connection, appends, in_doubt).await?;
        self.connection = Some(connection);
        Ok(outcomes)
    }

    async fn commit_on(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
        in_doubt: bool,
    ) -> Result<Vec<Outcome>, LogError> {
        let partitions: BTreeSet<i16> = appends.iter().map(|append| append.partition(self.partitions)).collect();
        let global_keys = global_keys(appends);
        lock(connection, &partitions, &global_keys).await?;
        self.look_at_tails(connection, &partitions).await?;
        if in_doubt && let Some(outcomes) = self.already_recorded(connection, appends).await? {
            connection.execute("ROLLBACK").await?;
            return Ok(outcomes);
        }
        let foreign = self.look_up_streams(connection, appends).await?;
        self.look_up_organizations(connection, appends).await?;
        let mut global = self.look_up_claims(connection, appends, &global_keys).await?;
        let known = look_up_outcomes(connection, appends).await?;

        let mut batch = Batch { now: Utc::now(), placed: vec![], changes: Changes::default(), known, kept: vec![] };
        let mut outcomes = Vec::with_capacity(appends.len());
        for append in appends {
            let number = append.partition(self.partitions);
            let partition = self.ledger.entry(number).or_default();
            outcomes.push(batch.decide(append, number, partition, &mut global, &foreign));
        }
        let changed = !batch.placed.is_empty() || !batch.kept.is_empty();
        if changed {
            let written = write(connection, &batch, &global, &self.ledger).await;
            let committed = match written {
                Ok(()) => connection.execute("COMMIT").await.map(|_| ()).map_err(LogError::from),
                Err(error) => Err(error),
            };
            if let Err(error) = committed {
                partitions.iter().for_each(|partition| drop(self.ledger.remove(partition)));
                return Err(error);
            }
        } else {
            connection.execute("ROLLBACK").await?;
        }
        metrics::counter!("tenancy_events_appended_total").increment(batch.placed.len() as u64);
        self.publish(&partitions, changed);
        Ok(batch.answer(outcomes))
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
            if self.ledger.get(partition).is_some_and(Partition::is_full) {
                self.ledger.remove(partition);
            }
        }
    }

    /// Reads what other replicas wrote to the locked partitions since this writer last looked, and keeps the
    /// ledger true by it. Of a partition that is not in the ledger, only the head is read.
    async fn look_at_tails(
        &mut self,
        connection: &mut PgConnection,
        partitions: &BTreeSet<i16>,
    ) -> Result<(), LogError> {
        let numbers: Vec<i16> = partitions.iter().copied().collect();
        let after: Vec<i64> =
            numbers.iter().map(|partition| self.ledger.get(partition).map_or(-1, |known| known.head)).collect();
        // A partition that is known is read from its head on, one that is not (-1) only at its newest event.
        let statement = format!(
            r#"SELECT e.* FROM unnest($1::smallint[], $2::bigint[]) AS p(number, after)
               CROSS JOIN LATERAL (
                   (SELECT {COLUMNS} FROM events WHERE p.after >= 0 AND partition = p.number AND "offset" > p.after ORDER BY "offset")
                   UNION ALL
                   (SELECT {COLUMNS} FROM events WHERE p.after < 0 AND partition = p.number ORDER BY "offset" DESC LIMIT 1)
               ) e"#
        );
        let rows: Vec<StoredEvent> =
            sqlx::query_as(&statement).bind(&numbers).bind(&after).fetch_all(&mut *connection).await?;
        for partition in numbers {
            self.ledger.entry(partition).or_default();
        }
        let mut fresh: HashSet<i16> = HashSet::new();
        for (partition, after) in partitions.iter().zip(after) {
            if after < 0 {
                fresh.insert(*partition);
            }
        }
        for row in rows {
            self.follow(&row, fresh.contains(&row.partition))?;
        }
        Ok(())
    }

    fn follow(&mut self, row: &StoredEvent, head_only: bool) -> Result<(), LogError> {
        let partition = self.ledger.entry(row.partition).or_default();
        if !head_only && row.offset != partition.head + 1 {
            return Err(LogError::Corrupt(format!("partition {} has no offset {}", row.partition, partition.head + 1)));
        }
        partition.head = row.offset;
        partition.recorded_at = row.recorded_at;
        if head_only {
            return Ok(());
        }
        let stream = Reader::stream(row)?;
        let organization = row.organization_id.as_deref().and_then(|id| id.parse::<OrganizationId>().ok());
        let effects = self.reader.parse(row)?.effects();
        if let Some(version) = partition.versions.get_mut(&stream) {
            *version = row.sequence.unsigned_abs();
        }
        if let (Some(organization), Some(sequence)) = (&organization, row.audit_sequence)
            && let Some(audit) = partition.audit.get_mut(organization)
        {
            *audit = sequence;
        }
        ledger::follow(partition, organization.as_ref(), &stream, &effects);
        Ok(())
    }

    /// After a commit in doubt: whether these commands (each alone) are in the log already.
    async fn already_recorded(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
    ) -> Result<Option<Vec<Outcome>>, LogError> {
        let [append] = appends else { return Ok(None) };
        let written: Vec<&NewEvent> = append.writes.iter().flat_map(|write| &write.events).collect();
        let limit = append.limit_event_id();
        let ids: Vec<&str> = written.iter().map(|event| event.id.as_ref()).chain([limit.as_ref()]).collect();
        let statement = format!("SELECT {COLUMNS} FROM events WHERE event_id = ANY($1)");
        let rows: Vec<StoredEvent> = sqlx::query_as(&statement).bind(&ids).fetch_all(connection).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let recorded = |row: &StoredEvent, event: aggregates::Event| {
            Ok::<_, LogError>(Recorded {
                id: row.event_id.parse().map_err(|_| LogError::Corrupt(row.event_id.clone()))?,
                stream: Reader::stream(row)?,
                sequence: row.sequence.unsigned_abs(),
                partition: row.partition,
                offset: row.offset,
                organization: append.organization.clone(),
                audit_sequence: row.audit_sequence.map(i64::unsigned_abs),
                recorded_at: row.recorded_at,
                origin: append.origin().clone(),
                event,
            })
        };
        if let Some(row) = rows.iter().find(|row| row.event_id == limit.as_ref()) {
            let event = self.reader.parse(row)?;
            let aggregates::Event::Organization(aggregates::organization::OrganizationEvent::LimitReached {
                limit: name,
                maximum,
                used,
                requested,
            }) = &event
            else {
                return Err(LogError::Corrupt(row.event_id.clone()));
            };
            let (name, maximum, used, requested) = (name.clone(), maximum.unwrap_or_default(), *used, *requested);
            let event = Some(Box::new(recorded(row, event)?));
            return Ok(Some(vec![Outcome::Limit { name, maximum, used, requested, event }]));
        }
        let mut events = vec![];
        for event in written {
            if let Some(row) = rows.iter().find(|row| row.event_id == event.id.as_ref()) {
                events.push(recorded(row, event.event.clone())?);
            }
        }
        Ok(Some(vec![Outcome::Accepted { events }]))
    }

    /// Versions of streams that the ledger does not know. Those of other partitions (users) are not protected by
    /// the locks held here, so they are looked up each time: visible at that moment is what is asked of them.
    async fn look_up_streams(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
    ) -> Result<HashMap<StreamId, u64>, LogError> {
        let mut wanted: HashMap<StreamId, Option<i16>> = HashMap::new();
        for append in appends {
            let home = append.partition(self.partitions);
            let known = self.ledger.get(&home);
            for (stream, _) in append.expected() {
                let foreign = own_partition(&stream, self.partitions).is_some_and(|own| own != home);
                if foreign {
                    wanted.insert(stream, None);
                } else if !known.is_some_and(|known| known.versions.contains_key(&stream)) {
                    wanted.insert(stream, Some(home));
                }
            }
        }
        // A user may be written in one command and relied upon in another of the same batch: then the lock is held
        // and the ledger's answer counts, so both places learn it.
        let mut foreign = HashMap::new();
        if wanted.is_empty() {
            return Ok(foreign);
        }
        let (types, ids): (Vec<&str>, Vec<&str>) =
            wanted.keys().map(|stream| (stream.aggregate_type(), stream.id())).unzip();
        let rows = sqlx::query!(
            r#"SELECT s.type AS "kind!", s.id AS "id!", COALESCE(e.sequence, 0) AS "version!"
               FROM unnest($1::text[], $2::text[]) AS s(type, id)
               LEFT JOIN LATERAL (
                   SELECT sequence FROM events WHERE aggregate_type = s.type AND aggregate_id = s.id
                   ORDER BY sequence DESC LIMIT 1
               ) e ON true"#,
            &types as &[&str],
            &ids as &[&str]
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let Some(stream) = StreamId::from_stored(&row.kind, &row.id) else { continue };
            match wanted.get(&stream) {
                Some(Some(home)) => {
                    self.ledger.entry(*home).or_default().versions.insert(stream, row.version.unsigned_abs());
                }
                _ => {
                    foreign.insert(stream, row.version.unsigned_abs());
                }
            }
        }
        Ok(foreign)
    }

    /// Audit sequences and tallies of organizations that the ledger does not know.
    async fn look_up_organizations(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
    ) -> Result<(), LogError> {
        let mut wanted: BTreeMap<OrganizationId, i16> = BTreeMap::new();
        for append in appends {
            if let Some(organization) = &append.organization {
                let home = append.partition(self.partitions);
                if !self.ledger.get(&home).is_some_and(|known| known.audit.contains_key(organization)) {
                    wanted.insert(organization.clone(), home);
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = wanted.keys().map(AsRef::as_ref).collect();
        let rows = sqlx::query!(
            r#"SELECT o.id AS "id!", COALESCE(e.audit_sequence, 0) AS "audit!", t.name AS "name?", t.used AS "used?",
                      t.maximum, t.floor AS "floor?", t.reached AS "reached?"
               FROM unnest($1::text[]) AS o(id)
               LEFT JOIN LATERAL (
                   SELECT audit_sequence FROM events WHERE organization_id = o.id ORDER BY audit_sequence DESC LIMIT 1
               ) e ON true
               LEFT JOIN LATERAL (SELECT * FROM tallies WHERE organization_id = o.id) t ON true"#,
            &ids as &[&str]
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let Some((organization, home)) =
                row.id.parse().ok().and_then(|id: OrganizationId| wanted.get_key_value(&id))
            else {
                continue;
            };
            let partition = self.ledger.entry(*home).or_default();
            partition.audit.insert(organization.clone(), row.audit);
            let tallies = partition.tallies.entry(organization.clone()).or_default();
            if let (Some(name), Some(used), Some(floor), Some(reached)) = (row.name, row.used, row.floor, row.reached) {
                tallies.insert(name, Tally { used, maximum: row.maximum, floor, reached });
            }
        }
        Ok(())
    }

    /// Claims: those within organizations as far as the ledger does not know them, global ones always.
    async fn look_up_claims(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
        global_keys: &BTreeSet<ClaimKey>,
    ) -> Result<HashMap<ClaimKey, Option<Claim>>, LogError> {
        let mut wanted: HashMap<ClaimKey, i16> = global_keys.iter().map(|key| (key.clone(), 0)).collect();
        for append in appends {
            let home = append.partition(self.partitions);
            for key in claim_keys(append).filter(|key| !key.scope.is_global()) {
                if !self.ledger.get(&home).is_some_and(|known| known.claims.contains_key(&key)) {
                    wanted.insert(key, home);
                }
            }
        }
        let mut global = HashMap::new();
        if wanted.is_empty() {
            return Ok(global);
        }
        let (scopes, keys): (Vec<&str>, Vec<&str>) =
            wanted.keys().map(|key| (key.scope.as_str(), key.key.as_str())).unzip();
        let rows = sqlx::query!(
            r#"SELECT k.scope AS "scope!", k.key AS "key!", c.holder AS "holder?", c.organization_id, c.until
               FROM unnest($1::text[], $2::text[]) AS k(scope, key)
               LEFT JOIN LATERAL (SELECT * FROM claims WHERE scope = k.scope AND key = k.key) c ON true"#,
            &scopes as &[&str],
            &keys as &[&str]
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let Some((key, home)) =
                wanted.iter().find(|(key, _)| key.key == row.key && key.scope.as_str() == row.scope)
            else {
                continue;
            };
            let organization = row.organization_id.as_deref().and_then(|id| id.parse().ok());
            let claim = row.holder.map(|holder| Claim { holder, organization, until: row.until });
            if key.scope.is_global() {
                global.insert(key.clone(), claim);
            } else {
                self.ledger.entry(*home).or_default().claims.insert(key.clone(), claim);
            }
        }
        Ok(global)
    }
}

/// A batch being decided.
struct Batch<'a> {
    now: DateTime<Utc>,
    placed: Vec<Placed<'a>>,
    changes: Changes,
    /// Outcomes that were kept before, by caller, operation and key; grows with the batch.
    known: HashMap<(String, String, String), (String, StoredOutcome)>,
    /// Appends whose outcomes are to be kept.
    kept: Vec<&'a Append>,
}

/// An outcome whose events are still in the batch: from where, and how many.
enum Decided {
    Accepted(std::ops::Range<usize>),
    Limit { name: String, maximum: i64, used: i64, requested: i64, event: Option<usize> },
    Other(Outcome),
}

impl<'a> Batch<'a> {
    fn decide(
        &mut self,
        append: &'a Append,
        number: i16,
        partition: &mut Partition,
        global: &mut HashMap<ClaimKey, Option<Claim>>,
        foreign: &HashMap<StreamId, u64>,
    ) -> Decided {
        let idempotency = append.idempotency.as_ref();
        let key = idempotency.map(|i| (i.caller.clone(), i.operation.clone(), i.key.clone()));
        if let Some((input, outcome)) = key.as_ref().and_then(|key| self.known.get(key)) {
            return Decided::Other(Outcome::Duplicate { input: input.clone(), outcome: outcome.clone() });
        }
        let effects: Vec<(String, &Effect)> = append
            .writes
            .iter()
            .flat_map(|write| {
                write
                    .events
                    .iter()
                    .flat_map(|event| &event.effects)
                    .map(|effect| (write.stream.id().to_owned(), effect))
            })
            .collect();
        let written: Vec<_> =
            append.writes.iter().map(|write| (write.stream.clone(), write.events.len() as u64)).collect();
        let entry = Entry {
            organization: append.organization.as_ref(),
            expected: &append.expected(),
            written: &written,
            effects: &effects,
        };
        match ledger::enter(partition, global, foreign, &entry, &mut self.changes) {
            Ok(()) => {
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
        self.placed.push(Placed {
            append,
            stream,
            sequence,
            offset: partition.head,
            audit_sequence,
            recorded_at: partition.recorded_at,
            partition: number,
            event,
        });
    }

    fn answer(self, decided: Vec<Decided>) -> Vec<Outcome> {
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
        ("synchronous_commit", "on"),
        ("idle_in_transaction_session_timeout", &idle),
        ("lock_timeout", &lock),
        ("statement_timeout", "30000"),
    ];
    PgConnection::connect_with(&options.clone().application_name("tenancy writer").options(settings)).await
}

fn claim_keys(append: &Append) -> impl Iterator<Item = ClaimKey> + '_ {
    let effects = append.writes.iter().flat_map(|write| &write.events).flat_map(|event| &event.effects);
    effects.filter_map(|effect| match effect {
        Effect::Claim { scope, key, .. } | Effect::Release { scope, key } => {
            Some(ClaimKey::new(*scope, key, append.organization.as_ref()))
        }
        Effect::Tally { .. } | Effect::Maximum { .. } | Effect::Floor { .. } | Effect::Reached { .. } => None,
    })
}

fn global_keys(appends: &[Append]) -> BTreeSet<ClaimKey> {
    appends.iter().flat_map(claim_keys).filter(|key| key.scope.is_global()).collect()
}

/// Begins the transaction and takes its locks, partitions first, each kind in ascending order: all writers do so,
/// hence none waits for another in a circle.
async fn lock(
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
    let mut script = String::from("BEGIN;");
    for partition in partitions {
        script.push_str(&format!("SELECT pg_advisory_xact_lock({PARTITION_LOCKS},{partition});"));
    }
    for hash in hashes {
        script.push_str(&format!("SELECT pg_advisory_xact_lock({hash});"));
    }
    connection.execute(sqlx::raw_sql(&script)).await?;
    Ok(())
}

async fn look_up_outcomes(
    connection: &mut PgConnection,
    appends: &[Append],
) -> Result<HashMap<(String, String, String), (String, StoredOutcome)>, LogError> {
    let wanted: Vec<_> = appends.iter().filter_map(|append| append.idempotency.as_ref()).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let callers: Vec<&str> = wanted.iter().map(|i| i.caller.as_str()).collect();
    let operations: Vec<&str> = wanted.iter().map(|i| i.operation.as_str()).collect();
    let keys: Vec<&str> = wanted.iter().map(|i| i.key.as_str()).collect();
    let rows = sqlx::query!(
        r#"SELECT o.caller, o.operation, o.key, o.input, o.outcome AS "outcome: sqlx::types::Json<StoredOutcome>"
           FROM unnest($1::text[], $2::text[], $3::text[]) AS w(caller, operation, key)
           CROSS JOIN LATERAL (
               SELECT * FROM outcomes WHERE caller = w.caller AND operation = w.operation AND key = w.key
           ) o"#,
        &callers as &[&str],
        &operations as &[&str],
        &keys as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.caller, row.operation, row.key), (row.input, row.outcome.0))).collect())
}

/// Writes events, claims, tallies and outcomes of the batch in one statement.
async fn write(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    global: &HashMap<ClaimKey, Option<Claim>>,
    ledger: &HashMap<i16, Partition>,
) -> Result<(), LogError> {
    let events = &batch.placed;
    macro_rules! column {
        ($get:expr) => {
            events.iter().map($get).collect::<Vec<_>>()
        };
    }
    let claims = ClaimRows::new(batch, global, ledger);
    let tallies = TallyRows::new(batch, ledger);
    let kept: Vec<_> = batch.kept.iter().filter_map(|append| append.idempotency.as_ref()).collect();
    let outcomes: Vec<String> = kept
        .iter()
        .map(|i| serde_json::to_string(&i.outcome))
        .collect::<Result<_, _>>()
        .map_err(|e| LogError::Corrupt(e.to_string()))?;
    sqlx::query_file!(
        "src/log/append.sql",
        &column!(|e| e.stream.aggregate_type()) as &[&str],
        &column!(|e| e.stream.id()) as &[&str],
        &column!(|e| e.sequence.cast_signed()),
        &column!(|e| e.event.event.descriptor().name) as &[&str],
        &column!(|e| e.event.event.descriptor().version) as &[&str],
        &column!(|e| e.event.payload.as_str()) as &[&str],
        &column!(|e| e.partition),
        &column!(|e| e.offset),
        &column!(|e| e.append.organization.as_ref().map(AsRef::as_ref)) as &[Option<&str>],
        &column!(|e| e.audit_sequence) as &[Option<i64>],
        &column!(|e| e.event.id.as_ref()) as &[&str],
        &column!(|e| e.append.origin().command_id),
        &column!(|e| e.append.origin().actor.to_string()),
        &column!(|e| e.append.origin().on_behalf_of.as_ref().map(ToString::to_string)) as &[Option<String>],
        &column!(|e| e.append.origin.ip.as_deref()) as &[Option<&str>],
        &column!(|e| e.append.origin.user_agent.as_deref()) as &[Option<&str>],
        &column!(|e| e.append.origin().request_id.as_deref()) as &[Option<&str>],
        &column!(|e| e.append.origin().correlation_id),
        &column!(|e| e.append.origin().causation_id.as_ref().map(AsRef::as_ref)) as &[Option<&str>],
        &column!(|e| e.recorded_at),
        &claims.change as &[&str],
        &claims.scope as &[&str],
        &claims.key as &[&str],
        &claims.holder as &[&str],
        &claims.organization as &[Option<&str>],
        &claims.partition,
        &claims.until as &[Option<DateTime<Utc>>],
        &tallies.organization as &[&str],
        &tallies.name as &[&str],
        &tallies.used,
        &tallies.maximum as &[Option<i64>],
        &tallies.floor,
        &tallies.reached,
        &tallies.partition,
        &kept.iter().map(|i| i.caller.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|i| i.operation.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|i| i.key.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|i| i.input.as_str()).collect::<Vec<_>>() as &[&str],
        &outcomes,
        batch.now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The claims that the batch changed, net: a new key is inserted, and fails if it is there.
#[derive(Default)]
struct ClaimRows<'a> {
    change: Vec<&'static str>,
    scope: Vec<&'a str>,
    key: Vec<&'a str>,
    holder: Vec<&'a str>,
    organization: Vec<Option<&'a str>>,
    partition: Vec<i16>,
    until: Vec<Option<DateTime<Utc>>>,
}

impl<'a> ClaimRows<'a> {
    fn new(
        batch: &'a Batch<'_>,
        global: &'a HashMap<ClaimKey, Option<Claim>>,
        ledger: &'a HashMap<i16, Partition>,
    ) -> Self {
        let mut rows = Self::default();
        let homes: HashMap<&str, i16> = batch
            .placed
            .iter()
            .filter_map(|placed| Some((placed.append.organization.as_ref()?.as_ref(), placed.partition)))
            .collect();
        for (key, before) in &batch.changes.claims {
            let local = || ledger.values().find_map(|partition| partition.claims.get(key));
            let after = if key.scope.is_global() { global.get(key) } else { local() }.and_then(Option::as_ref);
            let change = match (before, after) {
                (None, Some(_)) => "insert",
                (Some(_), None) => "delete",
                (Some(before), Some(after)) if before != after => "update",
                _ => continue,
            };
            let claim = after.or(before.as_ref());
            let organization = claim.and_then(|claim| claim.organization.as_ref()).map(AsRef::as_ref);
            rows.change.push(change);
            rows.scope.push(key.scope.as_str());
            rows.key.push(&key.key);
            rows.holder.push(claim.map_or("", |claim| claim.holder.as_str()));
            rows.organization.push(organization);
            rows.partition.push(organization.and_then(|id| homes.get(id)).copied().unwrap_or_default());
            rows.until.push(claim.and_then(|claim| claim.until));
        }
        rows
    }
}

/// The tallies that the batch changed, as they are now.
#[derive(Default)]
struct TallyRows<'a> {
    organization: Vec<&'a str>,
    name: Vec<&'a str>,
    used: Vec<i64>,
    maximum: Vec<Option<i64>>,
    floor: Vec<i64>,
    reached: Vec<bool>,
    partition: Vec<i16>,
}

impl<'a> TallyRows<'a> {
    fn new(batch: &'a Batch<'_>, ledger: &'a HashMap<i16, Partition>) -> Self {
        let mut rows = Self::default();
        for (organization, name) in &batch.changes.tallies {
            for (number, partition) in ledger {
                if let Some(tally) = partition.tallies.get(organization).and_then(|tallies| tallies.get(name)) {
                    rows.organization.push(organization.as_ref());
                    rows.name.push(name);
                    rows.used.push(tally.used);
                    rows.maximum.push(tally.maximum);
                    rows.floor.push(tally.floor);
                    rows.reached.push(tally.reached);
                    rows.partition.push(*number);
                }
            }
        }
        rows
    }
}
