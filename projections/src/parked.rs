//! Streams that are set aside, and how they come back: by making the rows of their owner afresh from the log.
//!
//! A row may show several streams (an organization counts its members), and what was left out lies before what was
//! applied since. So nothing is patched: the owner's rows are removed and folded again, in one transaction.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection};

use crate::checkpoints::{Tables, names};
use crate::fold::{Outbox, Parked, Parking, apply_apart};
use crate::source::{Failure, Range, Source};
use crate::{BATCH_EVENTS_MAX, Projection, directory};

/// When a parked stream is tried again: after this long, and twice as long after each time, up to an hour.
const RETRY_AFTER_SECONDS: f64 = 30.0;

/// What became of parked streams that were tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retried {
    /// So many are shown again.
    pub level: u64,
    /// So many are still parked.
    pub parked: u64,
}

/// The streams of a projection that are parked in these partitions.
pub(crate) async fn load(
    connection: &mut PgConnection,
    projection: Projection,
    tables: Tables,
    partitions: &[i16],
) -> Result<Parking, sqlx::Error> {
    let mut parkings = load_each(connection, &[projection], tables, partitions).await?;
    Ok(parkings.remove(&projection).unwrap_or_default())
}

/// The streams that are parked in these partitions, by projection.
pub(crate) async fn load_each(
    connection: &mut PgConnection,
    projections: &[Projection],
    tables: Tables,
    partitions: &[i16],
) -> Result<HashMap<Projection, Parking>, sqlx::Error> {
    let (names, versions) = names(projections);
    let rows = sqlx::query!(
        r#"SELECT k.projection, k.aggregate_id, k.partition, k."offset" FROM parked k
           JOIN unnest($1::text[], $2::int[]) AS p(name, version) ON p.name = k.projection AND p.version = k.version
           WHERE k.shadow = $3 AND k.partition = ANY($4)"#,
        &names as &[&str],
        &versions,
        tables == Tables::Shadow,
        partitions
    )
    .fetch_all(connection)
    .await?;
    let of = |projection: &Projection| {
        let own = rows.iter().filter(|row| row.projection == projection.name());
        Parking::new(own.map(|row| (row.aggregate_id.clone(), (row.partition, row.offset))))
    };
    Ok(projections.iter().map(|projection| (*projection, of(projection))).collect())
}

/// How many streams of an owner are parked.
pub(crate) async fn of_owner(
    connection: &mut PgConnection,
    projection: Projection,
    owner: &str,
) -> Result<usize, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM parked WHERE projection = $1 AND version = $2 AND NOT shadow AND owner = $3"#,
        projection.name(),
        projection.version(),
        owner
    )
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Records streams as parked.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    projection: Projection,
    tables: Tables,
    parked: &[Parked],
) -> Result<(), sqlx::Error> {
    for stream in parked {
        tracing::error!(
            projection = projection.name(),
            stream = stream.aggregate_id,
            partition = stream.partition,
            offset = stream.offset,
            failure = stream.failure,
            "an event cannot be shown; its stream is parked in this projection"
        );
        sqlx::query!(
            r#"INSERT INTO parked (projection, version, shadow, aggregate_type, aggregate_id, owner, partition, "offset", failure, retry_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + make_interval(secs => $10))
               ON CONFLICT (projection, version, shadow, aggregate_type, aggregate_id) DO UPDATE
               SET "offset" = EXCLUDED."offset", failure = EXCLUDED.failure, tries = parked.tries + 1,
                   retry_at = now() + make_interval(secs => LEAST(3600, $10 * 2 ^ LEAST(parked.tries, 20)))"#,
            projection.name(),
            projection.version(),
            tables == Tables::Shadow,
            stream.aggregate_type,
            stream.aggregate_id,
            stream.owner,
            stream.partition,
            stream.offset,
            stream.failure,
            RETRY_AFTER_SECONDS
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Whose streams are parked: owner and partition; only those whose time has come, or all.
pub(crate) async fn owners(
    connection: &mut PgConnection,
    projection: Projection,
    due_only: bool,
) -> Result<Vec<(String, i16)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT DISTINCT owner, partition FROM parked
         WHERE projection = $1 AND version = $2 AND NOT shadow AND (NOT $3 OR retry_at <= now()) ORDER BY 1",
        projection.name(),
        projection.version(),
        due_only
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.owner, row.partition)).collect())
}

/// Makes the rows of an owner afresh, while nobody else works on its partition; streams that still cannot be applied
/// stay parked, and are tried again later.
pub(crate) async fn retry<S: Source>(
    connection: &mut PgConnection,
    source: &S,
    projection: Projection,
    (owner, partition): (&str, i16),
) -> Result<Retried, Failure> {
    let mut transaction = connection.begin().await?;
    let cursor = sqlx::query_scalar!(
        r#"SELECT "offset" FROM checkpoints
           WHERE projection = $1 AND version = $2 AND NOT shadow AND partition = $3 FOR UPDATE"#,
        projection.name(),
        projection.version(),
        partition
    )
    .fetch_one(&mut *transaction)
    .await?;
    let before: Vec<String> = sqlx::query_scalar!(
        "SELECT aggregate_id FROM parked
         WHERE projection = $1 AND version = $2 AND NOT shadow AND owner = $3 AND partition = $4",
        projection.name(),
        projection.version(),
        owner,
        partition
    )
    .fetch_all(&mut *transaction)
    .await?;
    if before.is_empty() {
        // Somebody else was faster.
        return Ok(Retried::default());
    }
    let range = Range { partition, after: 0, until: cursor };
    let mut attempt = transaction.begin().await?;
    let left_out = load(&mut attempt, projection, Tables::Serving, &[partition]).await?;
    let parking = refold(&mut attempt, source, projection, owner, range, &Outbox::of_left_out(&left_out)).await?;
    // Making it worse than it is would be no help: then what is shown, and what is parked, stays as it is.
    if !parking.fresh.iter().all(|parked| before.contains(&parked.aggregate_id)) {
        attempt.rollback().await?;
        put_off(&mut transaction, projection, &before).await?;
        transaction.commit().await?;
        return Ok(Retried { level: 0, parked: before.len() as u64 });
    }
    attempt.commit().await?;
    if projection.is_of_people() {
        directory::refill(&mut transaction).await?;
    }
    let still: Vec<&str> = parking.fresh.iter().map(|parked| parked.aggregate_id.as_str()).collect();
    sqlx::query!(
        "DELETE FROM parked WHERE projection = $1 AND version = $2 AND NOT shadow AND aggregate_id = ANY($3) AND NOT aggregate_id = ANY($4)",
        projection.name(),
        projection.version(),
        &before,
        &still as &[&str]
    )
    .execute(&mut *transaction)
    .await?;
    keep(&mut transaction, projection, Tables::Serving, &parking.fresh).await?;
    transaction.commit().await?;
    let parked = parking.fresh.len();
    Ok(Retried { level: before.len().saturating_sub(parked) as u64, parked: parked as u64 })
}

/// Puts off the next try of these streams.
async fn put_off(connection: &mut PgConnection, projection: Projection, streams: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE parked SET tries = tries + 1, retry_at = now() + make_interval(secs => LEAST(3600, $4 * 2 ^ LEAST(tries, 20)))
         WHERE projection = $1 AND version = $2 AND NOT shadow AND aggregate_id = ANY($3)",
        projection.name(),
        projection.version(),
        streams,
        RETRY_AFTER_SECONDS
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn refold<S: Source>(
    connection: &mut PgConnection,
    source: &S,
    projection: Projection,
    owner: &str,
    mut range: Range,
    outbox: &Outbox<'_>,
) -> Result<Parking, Failure> {
    projection.forget(connection, owner).await?;
    let mut parking = Parking::default();
    loop {
        let entries = source.read_owner(connection, owner, range, BATCH_EVENTS_MAX).await?;
        let Some(last) = entries.last() else { return Ok(parking) };
        range.after = last.offset();
        apply_apart(connection, projection, entries.iter(), &mut parking, outbox).await?;
    }
}
