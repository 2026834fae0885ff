//! Checking read models against the log: a fresh fold of it, and every row compared.
//!
//! All in one snapshot of the database, on one connection: the fold goes into temporary tables, which the search
//! path finds before any other, so the same statements fill them. Nothing is locked, and nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::checkpoints::{self, Tables};
use crate::fold::{Outbox, Parking, apply_apart, fold};
use crate::rebuild::REBUILD_LOCKS;
use crate::source::{Failure, Range, Source};
use crate::tables::{Difference, Rows, copy_layout, difference, tables};
use crate::{BATCH_EVENTS_MAX, Projection, directory, parked, search_path};

/// What came out of checking a projection.
#[derive(Debug)]
pub struct Verified {
    /// Which projection.
    pub projection: Projection,
    /// Events that were folded.
    pub events: u64,
    /// Partitions in which it claims to show more than there is: partition, its offset, the end of the log. The log
    /// was restored to an earlier point, and it was not.
    pub ahead: Vec<(i16, i64, i64)>,
    /// Where its tables are not what the log says.
    pub differences: Vec<Difference>,
    /// How many streams it leaves out, by its own account.
    pub parked: usize,
}

/// Checks a projection against the log, all of it or an organization's part. `done` counts events as they are folded. `None` where the projection shows nothing of organizations.
pub async fn verify<S: Source>(
    options: &PgConnectOptions,
    source: &Arc<S>,
    projection: Projection,
    organization: Option<(&str, i16)>,
    done: &AtomicU64,
) -> Result<Option<Verified>, Failure> {
    if organization.is_some() && projection == Projection::Users {
        return Ok(None);
    }
    let settings = [
        ("search_path", search_path()),
        ("statement_timeout", "0".to_owned()),
        ("idle_in_transaction_session_timeout", "0".to_owned()),
    ];
    let options = options.clone().options(settings).application_name("tenancy verify");
    let mut connection = options.connect().await?;
    // A rebuild that swaps meanwhile would put tables under the names that this snapshot does not show.
    sqlx::query("SELECT pg_advisory_lock_shared($1, $2)")
        .bind(REBUILD_LOCKS)
        .bind(projection.lock())
        .execute(&mut connection)
        .await?;
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let verified = in_snapshot(&mut snapshot, &**source, projection, organization, done).await?;
    snapshot.rollback().await?;
    connection.close().await?;
    Ok(Some(verified))
}

async fn in_snapshot<S: Source>(
    snapshot: &mut PgConnection,
    source: &S,
    projection: Projection,
    organization: Option<(&str, i16)>,
    done: &AtomicU64,
) -> Result<Verified, Failure> {
    let schema = projection.schema();
    let shown = checkpoints::offsets(snapshot, projection, Tables::Serving, false).await?;
    let partitions: Vec<i16> = shown.keys().copied().collect();
    // What is parked is left out here too, from the same event on: it is known, and no difference.
    let mut parking = parked::load(snapshot, projection, Tables::Serving, &partitions).await?;
    let known = match organization {
        None => parking.len(),
        Some((owner, _)) => parked::of_owner(snapshot, projection, owner).await?,
    };
    copy_layout(snapshot, &schema, "pg_temp").await?;
    let heads = source.heads(snapshot).await?;
    let head = |partition: i16| heads.get(&partition).copied().unwrap_or_default();
    let ahead = shown.iter().filter(|(partition, offset)| **offset > head(**partition));
    let ahead = ahead.map(|(partition, offset)| (*partition, *offset, head(*partition))).collect();
    let before = done.load(Ordering::Relaxed);
    for (partition, until) in shown {
        let range = Range { partition, after: 0, until };
        match organization {
            None => {
                fold(snapshot, source, projection, range, &mut parking, done).await?;
            }
            Some((owner, own_partition)) if own_partition == partition => {
                fold_owner(snapshot, source, projection, (owner, range), &mut parking, done).await?;
            }
            Some(_) => {}
        }
    }
    let rows = organization.map_or(Rows::All, |(id, _)| Rows::Organization(id));
    let mut differences = vec![];
    for table in tables(snapshot, &schema).await? {
        differences.extend(difference(snapshot, &table, &schema, "pg_temp", rows).await?);
    }
    if projection == Projection::Members {
        differences.extend(directory::difference(snapshot, organization.map(|(id, _)| id)).await?);
    }
    let events = done.load(Ordering::Relaxed) - before;
    Ok(Verified { projection, events, ahead, differences, parked: known })
}

async fn fold_owner<S: Source>(
    snapshot: &mut PgConnection,
    source: &S,
    projection: Projection,
    (owner, mut range): (&str, Range),
    parking: &mut Parking,
    done: &AtomicU64,
) -> Result<(), Failure> {
    loop {
        let page = source.read_owner(snapshot, owner, range, BATCH_EVENTS_MAX).await?;
        let Some(last) = page.last() else { return Ok(()) };
        range.after = last.offset();
        apply_apart(snapshot, projection, page.iter(), parking, &Outbox::closed()).await?;
        done.fetch_add(page.len() as u64, Ordering::Relaxed);
    }
}
