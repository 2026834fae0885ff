//! How projections stand, for operators.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use crate::Projection;
use crate::checkpoints::names;

/// How a projection stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// Which projection.
    pub projection: Projection,
    /// How it stands in each partition.
    pub partitions: Vec<PartitionStatus>,
    /// The streams that it leaves out.
    pub parked: Vec<ParkedStream>,
    /// How far its rebuild is, in events of the log, if there is one.
    pub rebuild: Option<RebuildStatus>,
}

/// How a projection stands in one partition.
#[derive(Debug, Clone)]
pub struct PartitionStatus {
    /// Which partition.
    pub partition: i16,
    /// The last offset that it shows.
    pub offset: i64,
    /// The last offset of the log.
    pub head: i64,
    /// How long ago the first event that it does not show was recorded, in seconds; 0 if it shows all.
    pub lag_seconds: f64,
}

/// A stream that a projection leaves out, from an event on that could not be applied.
#[derive(Debug, Clone)]
pub struct ParkedStream {
    /// Its kind.
    pub aggregate_type: String,
    /// Its id.
    pub aggregate_id: String,
    /// The partition.
    pub partition: i16,
    /// The offset of that event.
    pub offset: i64,
    /// What was wrong.
    pub failure: String,
    /// Since when.
    pub parked_at: DateTime<Utc>,
    /// How often it was tried again.
    pub tries: i32,
    /// When it will be tried again by itself.
    pub retry_at: DateTime<Utc>,
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildStatus {
    /// Events that the new tables show.
    pub events: i64,
    /// Events in the log.
    pub of: i64,
}

impl PartitionStatus {
    /// How many events it is behind.
    pub fn lag_events(&self) -> i64 {
        (self.head - self.offset).max(0)
    }
}

impl Status {
    /// How many events it is behind, over all partitions.
    pub fn lag_events(&self) -> i64 {
        self.partitions.iter().map(PartitionStatus::lag_events).sum()
    }

    /// The longest time that it is behind in a partition, in seconds.
    pub fn lag_seconds(&self) -> f64 {
        self.partitions.iter().map(|partition| partition.lag_seconds).fold(0.0, f64::max)
    }
}

/// How all projections of this program's versions stand, by the database.
pub async fn status(pool: impl PgExecutor<'_> + Copy) -> Result<Vec<Status>, sqlx::Error> {
    let (names, versions) = names(Projection::ALL);
    let checkpoints = sqlx::query_file!("src/status.sql", &names as &[&str], &versions).fetch_all(pool).await?;
    let parked = sqlx::query!(
        r#"SELECT k.projection, k.aggregate_type, k.aggregate_id, k.partition, k."offset", k.failure, k.parked_at, k.tries, k.retry_at
           FROM unnest($1::text[], $2::int[]) AS p(name, version)
           JOIN parked k ON k.projection = p.name AND k.version = p.version AND NOT k.shadow
           ORDER BY k.projection, k.partition, k."offset""#,
        &names as &[&str],
        &versions
    )
    .fetch_all(pool)
    .await?;
    let rebuilds = sqlx::query_scalar!(
        "SELECT r.projection FROM unnest($1::text[], $2::int[]) AS p(name, version)
         JOIN rebuilds r ON r.projection = p.name AND r.version = p.version",
        &names as &[&str],
        &versions
    )
    .fetch_all(pool)
    .await?;
    let one = |projection: Projection| {
        let own = checkpoints.iter().filter(|row| row.projection == projection.name());
        let (shadow, serving): (Vec<_>, Vec<_>) = own.partition(|row| row.shadow);
        let of = serving.iter().map(|row| row.head).sum();
        let built = shadow.iter().map(|row| row.offset).sum();
        let partitions = serving.iter().map(|row| PartitionStatus {
            partition: row.partition,
            offset: row.offset,
            head: row.head,
            lag_seconds: row.lag_seconds,
        });
        let parked = parked.iter().filter(|row| row.projection == projection.name()).map(|row| ParkedStream {
            aggregate_type: row.aggregate_type.clone(),
            aggregate_id: row.aggregate_id.clone(),
            partition: row.partition,
            offset: row.offset,
            failure: row.failure.clone(),
            parked_at: row.parked_at,
            tries: row.tries,
            retry_at: row.retry_at,
        });
        Status {
            projection,
            partitions: partitions.collect(),
            parked: parked.collect(),
            rebuild: rebuilds
                .iter()
                .any(|name| name == projection.name())
                .then_some(RebuildStatus { events: built, of }),
        }
    };
    Ok(Projection::ALL.iter().copied().map(one).collect())
}
