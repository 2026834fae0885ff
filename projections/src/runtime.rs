//! What runs projections: leases, batches, checkpoints, failures.
//!
//! A projection's checkpoint rows, one a partition, are locked with `FOR UPDATE SKIP LOCKED` by whichever replica
//! works on them; that lock is the lease, and ends with the transaction or with its holder. Wake-up comes from this
//! process at once, from other replicas by notification, and from a clock behind both.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aggregates::Recorded;
use chrono::{DateTime, Utc};
use sqlx::{Acquire, PgConnection, PgPool};
use tokio::sync::watch;

use crate::Projection;

/// The most events in one transaction; fewer after one that failed for reasons of its own, until some succeed.
const BATCH_EVENTS_MAX: i64 = 4_000;
/// The most events that are applied one by one in one transaction.
const CAREFUL_EVENTS_MAX: i64 = 500;
/// How long a projection sleeps when nobody wakes it.
const POLL: Duration = Duration::from_millis(500);
/// How long it waits after the database failed.
const BACK_OFF: Duration = Duration::from_millis(500);
/// When a partition that an event stopped is tried again.
const RETRY_FAILED_AFTER_SECONDS: f64 = 30.0;

/// Why events could not be had or applied.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The database failed; the events may be good.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The log holds something unreadable.
    #[error("{0}")]
    Unreadable(String),
}

impl Failure {
    /// Whether the events themselves are to blame. Then trying again is of no use, while a lost connection, a
    /// time-out or a full disk says nothing about them.
    fn blames_events(&self) -> bool {
        match self {
            Self::Unreadable(_) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                // Classes of SQLSTATE: data exceptions, constraint violations, and the like.
                error.code().is_some_and(|code| ["21", "22", "23", "42"].contains(&code.get(..2).unwrap_or_default()))
            }
            Self::Database(sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) => true,
            Self::Database(_) => false,
        }
    }
}

/// Where events come from.
pub trait Source: Send + Sync + 'static {
    /// Up to `limit` events of each partition after the given offset, readable, in order of partition and offset.
    fn read_after(
        &self,
        connection: &mut PgConnection,
        after: &BTreeMap<i16, i64>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Recorded>, Failure>> + Send;
}

/// How far each projection is, as far as this process knows.
pub type Progress = HashMap<(Projection, i16), i64>;

/// Runs all projections of this replica.
pub struct Runtime<S> {
    pool: PgPool,
    source: Arc<S>,
    progress: watch::Sender<Progress>,
    /// How many events each projection takes at a time, now.
    batch_events: [AtomicI64; Projection::ALL.len()],
}

impl<S: Source> Runtime<S> {
    /// Makes sure that there is a checkpoint for each projection and partition.
    pub async fn new(pool: PgPool, source: Arc<S>, partitions: i16) -> Result<Self, sqlx::Error> {
        for projection in Projection::ALL {
            sqlx::query!(
                "INSERT INTO checkpoints (projection, version, partition)
                 SELECT $1, $2, number FROM generate_series(0, $3::int - 1) AS number ON CONFLICT DO NOTHING",
                projection.name(),
                projection.version(),
                i32::from(partitions)
            )
            .execute(&pool)
            .await?;
        }
        let batch_events = [const { AtomicI64::new(BATCH_EVENTS_MAX) }; _];
        Ok(Self { pool, source, progress: watch::channel(Progress::new()).0, batch_events })
    }

    /// How far the projections are, and a change for each step.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Runs one projection until `stop` says so. `wake` changes whenever there may be something new.
    pub async fn run<W: Clone + Send + Sync>(
        &self,
        projection: Projection,
        mut wake: watch::Receiver<W>,
        mut stop: watch::Receiver<bool>,
    ) {
        while !*stop.borrow_and_update() {
            wake.mark_unchanged();
            let pause = match self.step(projection).await {
                Ok(true) => continue,
                Ok(false) => POLL,
                Err(error) => {
                    tracing::warn!(projection = projection.name(), %error, "a projection could not go on; it will try again");
                    BACK_OFF
                }
            };
            tokio::select! {
                _ = stop.changed() => {}
                changed = wake.changed() => if changed.is_err() { tokio::time::sleep(pause).await },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Applies what is new, once. Says whether there may be more.
    pub async fn step(&self, projection: Projection) -> Result<bool, Failure> {
        let mut transaction = self.pool.begin().await?;
        let cursors = lease(&mut transaction, projection).await?;
        if cursors.is_empty() {
            return Ok(false);
        }
        let batch = &self.batch_events[projection as usize];
        let each = (batch.load(Ordering::Relaxed) / cursors.len() as i64).max(1);
        let applied = self.apply_all(&mut transaction, projection, &cursors, each).await;
        match applied {
            Ok(reached) => {
                transaction.commit().await?;
                batch.store((batch.load(Ordering::Relaxed) * 2).min(BATCH_EVENTS_MAX), Ordering::Relaxed);
                self.note(projection, &cursors, &reached);
                Ok(reached.iter().any(|(partition, to)| to - cursors.get(partition).unwrap_or(to) >= each))
            }
            Err(error) if error.blames_events() => {
                transaction.rollback().await?;
                for partition in cursors.keys() {
                    self.step_partition(projection, *partition).await?;
                }
                Ok(true)
            }
            Err(error) => {
                // It may have been too much at once: for the time of a statement, or for the memory of either side.
                batch.store((batch.load(Ordering::Relaxed) / 2).max(1), Ordering::Relaxed);
                Err(error)
            }
        }
    }

    async fn apply_all(
        &self,
        connection: &mut PgConnection,
        projection: Projection,
        cursors: &BTreeMap<i16, i64>,
        each: i64,
    ) -> Result<BTreeMap<i16, i64>, Failure> {
        let events = self.source.read_after(connection, cursors, each).await?;
        let reached = cursors_after(cursors, &events)?;
        if !events.is_empty() {
            projection.apply(connection, &events).await?;
            save(connection, projection, &reached).await?;
            metrics::counter!("tenancy_projection_events_total", "projection" => projection.name())
                .increment(events.len() as u64);
        }
        Ok(reached)
    }

    /// After a batch failed by its events: one partition alone, one event at a time, up to the one that is to
    /// blame. What came before it stays applied; the partition stops there, and says why.
    async fn step_partition(&self, projection: Projection, partition: i16) -> Result<(), Failure> {
        let mut transaction = self.pool.begin().await?;
        let Some(cursor) = lease(&mut transaction, projection).await?.remove(&partition) else { return Ok(()) };
        let mut at = cursor;
        let failure = loop {
            if at - cursor >= CAREFUL_EVENTS_MAX {
                break None;
            }
            let mut attempt = transaction.begin().await?;
            let one = BTreeMap::from([(partition, at)]);
            let result = match self.source.read_after(&mut attempt, &one, 1).await {
                Ok(events) if events.is_empty() => break None,
                Ok(events) => match cursors_after(&one, &events) {
                    Ok(_) => projection.apply(&mut attempt, &events).await.map_err(Failure::from),
                    Err(failure) => Err(failure),
                },
                Err(failure) => Err(failure),
            };
            match result {
                Ok(()) => {
                    attempt.commit().await?;
                    at += 1;
                }
                Err(failure) if failure.blames_events() => break Some(failure),
                Err(failure) => return Err(failure),
            }
        };
        let reached = BTreeMap::from([(partition, at)]);
        save(&mut transaction, projection, &reached).await?;
        if let Some(failure) = failure {
            let failure = format!("offset {}: {failure}", at + 1);
            tracing::error!(projection = projection.name(), partition, %failure, "an event stops its partition of a projection");
            stop_partition(&mut transaction, projection, partition, &failure).await?;
        }
        transaction.commit().await?;
        self.note(projection, &BTreeMap::from([(partition, cursor)]), &reached);
        Ok(())
    }

    fn note(&self, projection: Projection, before: &BTreeMap<i16, i64>, reached: &BTreeMap<i16, i64>) {
        self.progress.send_if_modified(|progress| {
            let mut changed = false;
            for (partition, offset) in before.iter().chain(reached) {
                let known = progress.entry((projection, *partition)).or_insert(-1);
                changed |= *offset > *known;
                *known = (*known).max(*offset);
            }
            changed
        });
    }
}

/// The cursors of the partitions that nobody else works on and no event has stopped, locked.
async fn lease(connection: &mut PgConnection, projection: Projection) -> Result<BTreeMap<i16, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT partition, "offset" FROM checkpoints
           WHERE projection = $1 AND version = $2
             AND (failed_at IS NULL OR failed_at < now() - make_interval(secs => $3))
           ORDER BY partition FOR UPDATE SKIP LOCKED"#,
        projection.name(),
        projection.version(),
        RETRY_FAILED_AFTER_SECONDS
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.partition, row.offset)).collect())
}

/// Where the cursors are after these events; offsets are dense, so a gap is a fault of the log or of its reader.
fn cursors_after(cursors: &BTreeMap<i16, i64>, events: &[Recorded]) -> Result<BTreeMap<i16, i64>, Failure> {
    let mut reached = cursors.clone();
    for event in events {
        let cursor = reached.entry(event.partition).or_default();
        if event.offset != *cursor + 1 {
            let message = format!("partition {}: offset {} follows {cursor}", event.partition, event.offset);
            return Err(Failure::Unreadable(message));
        }
        *cursor = event.offset;
    }
    Ok(reached)
}

async fn save(
    connection: &mut PgConnection,
    projection: Projection,
    reached: &BTreeMap<i16, i64>,
) -> Result<(), sqlx::Error> {
    let (partitions, offsets): (Vec<i16>, Vec<i64>) = reached.iter().unzip();
    sqlx::query!(
        r#"UPDATE checkpoints c SET "offset" = r.at, failed_at = NULL, failure = NULL, updated_at = now()
           FROM unnest($3::smallint[], $4::bigint[]) AS r(partition, at)
           WHERE c.projection = $1 AND c.version = $2 AND c.partition = r.partition
             AND (c."offset" <> r.at OR c.failed_at IS NOT NULL)"#,
        projection.name(),
        projection.version(),
        &partitions,
        &offsets
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn stop_partition(
    connection: &mut PgConnection,
    projection: Projection,
    partition: i16,
    failure: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE checkpoints SET failed_at = now(), failure = $4 WHERE projection = $1 AND version = $2 AND partition = $3",
        projection.name(),
        projection.version(),
        partition,
        failure
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How a projection stands in one partition.
#[derive(Debug, Clone)]
pub struct Status {
    /// Which projection.
    pub projection: String,
    /// The version of its tables.
    pub version: i32,
    /// Which partition.
    pub partition: i16,
    /// The last offset that it shows.
    pub offset: i64,
    /// The last offset of the log.
    pub head: i64,
    /// When the event that stopped it was met.
    pub failed_at: Option<DateTime<Utc>>,
    /// What was wrong with that event.
    pub failure: Option<String>,
}

impl Status {
    /// How many events it is behind.
    pub fn lag_events(&self) -> i64 {
        self.head - self.offset
    }
}

/// Whether all projections of this program's versions have reached these offsets, by the database.
pub async fn reached(pool: &PgPool, wanted: &BTreeMap<i16, i64>) -> Result<bool, sqlx::Error> {
    let (partitions, offsets): (Vec<i16>, Vec<i64>) = wanted.iter().unzip();
    let names: Vec<&str> = Projection::ALL.iter().map(|projection| projection.name()).collect();
    let versions: Vec<i32> = Projection::ALL.iter().map(|projection| projection.version()).collect();
    sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM unnest($1::text[], $2::int[]) AS p(name, version)
               CROSS JOIN unnest($3::smallint[], $4::bigint[]) AS w(number, at)
               JOIN checkpoints c ON c.projection = p.name AND c.version = p.version AND c.partition = w.number
               WHERE c."offset" < w.at
           ) AS "reached!" "#,
        &names as &[&str],
        &versions,
        &partitions,
        &offsets
    )
    .fetch_one(pool)
    .await
}

/// How all projections of this program's versions stand, by the database.
pub async fn status(pool: &PgPool) -> Result<Vec<Status>, sqlx::Error> {
    let names: Vec<&str> = Projection::ALL.iter().map(|projection| projection.name()).collect();
    let versions: Vec<i32> = Projection::ALL.iter().map(|projection| projection.version()).collect();
    sqlx::query_as!(
        Status,
        r#"SELECT c.projection, c.version, c.partition, c."offset", COALESCE(e.head, 0) AS "head!", c.failed_at, c.failure
           FROM unnest($1::text[], $2::int[]) AS p(name, version)
           JOIN checkpoints c ON c.projection = p.name AND c.version = p.version
           LEFT JOIN LATERAL (
               SELECT "offset" AS head FROM events WHERE partition = c.partition ORDER BY "offset" DESC LIMIT 1
           ) e ON true
           ORDER BY c.projection, c.partition"#,
        &names as &[&str],
        &versions
    )
    .fetch_all(pool)
    .await
}
