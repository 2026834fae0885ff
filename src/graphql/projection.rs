//! How read models stand, for operators' dashboards.

use async_graphql::{Enum, Error, ID, Object, SimpleObject};

use super::errors::database_fault;
use super::scalars::{Long, Time};
use super::session::Session;

/// How a read model stands.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum ProjectionState {
    /// It shows everything.
    Ok,
    /// It is behind the log.
    Behind,
    /// It leaves out streams of which it cannot apply an event.
    Parked,
    /// It is made afresh, while it serves.
    Rebuilding,
}

/// A read model.
pub struct Projection(projections::Status);

/// How far a read model has followed the log.
#[Object]
impl Projection {
    /// Its name.
    async fn name(&self) -> &str {
        self.0.projection.name()
    }

    /// The version of its tables.
    async fn version(&self) -> i32 {
        self.0.projection.version()
    }

    /// How it stands.
    async fn state(&self) -> ProjectionState {
        match &self.0 {
            status if status.rebuild.is_some() => ProjectionState::Rebuilding,
            status if !status.parked.is_empty() => ProjectionState::Parked,
            status if status.lag_events() > 0 => ProjectionState::Behind,
            _ => ProjectionState::Ok,
        }
    }

    /// How many events of the log it does not show yet.
    async fn lag_events(&self) -> Long {
        Long(self.0.lag_events())
    }

    /// How long ago the first of them was recorded, in seconds.
    async fn lag_seconds(&self) -> f64 {
        self.0.lag_seconds()
    }

    /// How it stands in each partition of the log.
    async fn partitions(&self) -> Vec<ProjectionPartition> {
        let partition = |row: &projections::PartitionStatus| ProjectionPartition {
            partition: row.partition.into(),
            offset: Long(row.offset),
            head: Long(row.head),
            lag_events: Long(row.lag_events()),
            lag_seconds: row.lag_seconds,
        };
        self.0.partitions.iter().map(partition).collect()
    }

    /// The streams that it leaves out.
    async fn parked(&self) -> Vec<ParkedStream> {
        let stream = |row: &projections::ParkedStream| ParkedStream {
            stream: row.aggregate_id.clone().into(),
            partition: row.partition.into(),
            offset: Long(row.offset),
            failure: row.failure.clone(),
            parked_at: Time(row.parked_at),
            tries: row.tries,
            retry_at: Time(row.retry_at),
        };
        self.0.parked.iter().map(stream).collect()
    }

    /// How far its rebuild is, if there is one.
    async fn rebuild(&self) -> Option<ProjectionRebuild> {
        self.0.rebuild.map(|rebuild| ProjectionRebuild { events: Long(rebuild.events), of: Long(rebuild.of) })
    }
}

/// A read model in one partition of the log.
#[derive(SimpleObject)]
pub struct ProjectionPartition {
    /// The partition.
    partition: i32,
    /// The last offset that it shows.
    offset: Long,
    /// The last offset of the log.
    head: Long,
    /// How many events of it are not shown yet.
    lag_events: Long,
    /// How long ago the first of them was recorded, in seconds.
    lag_seconds: f64,
}

/// A stream that a read model leaves out, from an event on that it cannot apply.
#[derive(SimpleObject)]
pub struct ParkedStream {
    /// The id of the stream.
    stream: ID,
    /// The partition.
    partition: i32,
    /// The offset of that event.
    offset: Long,
    /// What is wrong.
    failure: String,
    /// Since when.
    parked_at: Time,
    /// How often it was tried again.
    tries: i32,
    /// When it will be tried again by itself.
    retry_at: Time,
}

/// How far a rebuild is.
#[derive(SimpleObject)]
pub struct ProjectionRebuild {
    /// Events that the new tables show.
    events: Long,
    /// Events of the log.
    of: Long,
}

/// All read models.
pub async fn projections(session: &Session) -> Result<Vec<Projection>, Error> {
    let all = projections::status(session.log().operators()).await.map_err(database_fault)?;
    Ok(all.into_iter().map(Projection).collect())
}
