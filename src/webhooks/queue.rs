//! The queue of deliveries: taking what is due, and recording what became of it.
//!
//! What is taken is leased, for longer than sending it may take: whoever dies with it leaves it to others. Neither taking
//! nor finishing waits for a flush of the database: a server that dies forgets at worst that something was sent, and it
//! is sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::types::Json;

use super::schedule::{DOWN_AFTER_FAILURES, peace};

/// How many attempts a delivery shows: the last ones.
pub const ATTEMPTS_MAX: usize = 20;

/// An attempt to deliver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it began.
    pub at: DateTime<Utc>,
    /// How long it took.
    pub duration_ms: u32,
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// What went wrong, if something did.
    pub error: Option<String>,
    /// The beginning of what the receiver answered.
    pub response_excerpt: Option<String>,
}

/// A delivery that was taken.
#[derive(Debug)]
pub struct Taken {
    /// Which.
    pub id: String,
    /// To which endpoint.
    pub endpoint: String,
    /// Which event.
    pub event: String,
    /// The stream in whose order it stands, if it stands in one.
    pub subject: Option<String>,
    /// Until when it is ours.
    pub leased_until: DateTime<Utc>,
    /// How often it failed.
    pub tries: i16,
    /// What was tried.
    pub attempts: Json<Vec<Attempt>>,
    /// For how long it has been due.
    pub late_seconds: f64,
    /// Where to.
    pub url: String,
    /// How much of the event.
    pub content: String,
    /// Which secrets the endpoint has.
    pub secrets: Json<Vec<aggregates::webhook::Secret>>,
}

/// How much may be taken.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// By this replica, now.
    pub own: usize,
    /// Of one endpoint at a time, by all replicas.
    pub endpoint: u32,
    /// How many events a second an endpoint is sent where it says nothing itself; 0 is no limit.
    pub rate_per_second: u32,
    /// For how long.
    pub lease: Duration,
}

/// Takes deliveries that are due.
pub async fn take(pool: &PgPool, room: Room) -> Result<Vec<Taken>, sqlx::Error> {
    sqlx::query_file_as!(
        Taken,
        "src/webhooks/claim.sql",
        i64::try_from(room.own).unwrap_or(i64::MAX),
        room.lease.as_secs_f64(),
        i64::from(room.endpoint),
        DOWN_AFTER_FAILURES,
        i64::from(room.rate_per_second)
    )
    .fetch_all(pool)
    .await
}

/// What became of a delivery.
#[derive(Debug)]
pub struct Done {
    /// Which.
    pub taken: Taken,
    /// How it went.
    pub outcome: Outcome,
}

/// How an attempt went, as far as the queue is concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It arrived.
    Arrived,
    /// It did not: again after this pause, or never.
    Failed {
        /// How long to wait; `None`: it was the last attempt.
        pause: Option<Duration>,
        /// Whether the receiver asks to be left in peace.
        busy: bool,
        /// For how long, where it says so.
        retry_after: Option<Duration>,
    },
    /// It was not tried, for a reason of ours: again after this pause.
    PutOff(Duration),
}

impl Outcome {
    fn state(self, tries: i16) -> &'static str {
        match self {
            Self::Arrived => "SUCCEEDED",
            Self::Failed { pause: None, .. } => "FAILED",
            Self::Failed { pause: Some(_), .. } => "RETRYING",
            Self::PutOff(_) if tries == 0 => "PENDING",
            Self::PutOff(_) => "RETRYING",
        }
    }

    fn pause(self) -> Option<f64> {
        match self {
            Self::Arrived => None,
            Self::Failed { pause, .. } => pause.map(|pause| pause.as_secs_f64()),
            Self::PutOff(pause) => Some(pause.as_secs_f64()),
        }
    }
}

/// A receiver that takes nothing.
#[derive(Debug, Clone)]
pub struct Failing {
    /// Whose.
    pub endpoint: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// Records what became of deliveries, and says which receivers are failing.
pub async fn finish(pool: &PgPool, results: &[Done]) -> Result<Vec<Failing>, sqlx::Error> {
    let in_order = || results.iter().filter(|result| result.taken.subject.is_some());
    let ordered: BTreeSet<&str> = in_order().map(|result| result.taken.endpoint.as_str()).collect();
    if ordered.is_empty() {
        return record(&mut *pool.acquire().await?, results).await;
    }
    let mut transaction = pool.begin().await?;
    projections::lock_endpoints(&mut transaction, &ordered).await?;
    let failing = record(&mut transaction, results).await?;
    let (endpoints, subjects): (Vec<&str>, Vec<&str>) = in_order()
        .filter(|result| result.outcome.pause().is_none())
        .filter_map(|result| Some((result.taken.endpoint.as_str(), result.taken.subject.as_deref()?)))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .unzip();
    // The next one of each subject; not one behind what is still to be written of the time when it was disabled.
    sqlx::query!(
        "UPDATE webhook_deliveries d SET due_at = clock_timestamp()
         FROM unnest($1::text[], $2::text[]) AS s(endpoint_id, subject_id)
         CROSS JOIN LATERAL (
             SELECT n.id, n.audit_sequence, n.due_at FROM webhook_deliveries n
             WHERE n.endpoint_id = s.endpoint_id AND n.subject_id = s.subject_id AND n.due_at IS NOT NULL
             ORDER BY n.audit_sequence LIMIT 1
         ) next
         WHERE d.id = next.id AND next.due_at = 'infinity' AND NOT EXISTS (
             SELECT FROM webhook_backfills b
             WHERE b.endpoint_id = s.endpoint_id AND b.kind = 'MISSED' AND b.cursor < next.audit_sequence
         )",
        &endpoints as &[&str],
        &subjects as &[&str]
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(failing)
}

async fn record(connection: &mut sqlx::PgConnection, results: &[Done]) -> Result<Vec<Failing>, sqlx::Error> {
    let receivers = Receivers::of(results);
    let attempts: Vec<String> =
        results.iter().map(|result| serde_json::to_string(&result.taken.attempts.0).unwrap_or_default()).collect();
    let rows = sqlx::query_file!(
        "src/webhooks/finish.sql",
        &results.iter().map(|result| result.taken.id.clone()).collect::<Vec<_>>(),
        &results.iter().map(|result| result.outcome.state(result.taken.tries).to_owned()).collect::<Vec<_>>(),
        &results.iter().map(|result| result.outcome.pause()).collect::<Vec<_>>() as &[Option<f64>],
        &results.iter().map(|result| result.taken.leased_until).collect::<Vec<_>>(),
        &results.iter().map(|result| result.taken.tries).collect::<Vec<_>>(),
        &attempts,
        &receivers.well,
        &receivers.ill.keys().map(|endpoint| (*endpoint).to_owned()).collect::<Vec<_>>(),
        &receivers.ill.values().map(|ill| ill.failures).collect::<Vec<_>>(),
        &receivers.ill.values().map(|ill| ill.peace.as_secs_f64()).collect::<Vec<_>>()
    )
    .fetch_all(&mut *connection)
    .await?;
    // How long a receiver that is down is left in peace follows from how often it failed, which only the row knows.
    let down = rows.iter().filter_map(|row| Some((row.endpoint_id.clone(), peace(row.failures, false)?.as_secs_f64())));
    let (endpoints, pauses): (Vec<String>, Vec<f64>) = down.unzip();
    if !endpoints.is_empty() {
        sqlx::query!(
            "UPDATE webhook_receivers r
             SET not_before = GREATEST(r.not_before, clock_timestamp() + make_interval(secs => d.pause))
             FROM unnest($1::text[], $2::float8[]) AS d(endpoint_id, pause) WHERE r.endpoint_id = d.endpoint_id",
            &endpoints,
            &pauses
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(rows.into_iter().map(|row| Failing { endpoint: row.endpoint_id, since: row.failing_since }).collect())
}

/// How webhooks stand, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// For how long the oldest delivery that could be sent has been due; 0 where there is none.
    pub oldest_due_seconds: f64,
    /// Endpoints that are disabled.
    pub endpoints_disabled: i64,
    /// Endpoints of which the last attempt failed.
    pub endpoints_failing: i64,
}

/// How webhooks stand.
pub async fn standing(pool: &PgPool) -> Result<Standing, sqlx::Error> {
    sqlx::query_as!(
        Standing,
        r#"WITH RECURSIVE waiting AS (
               (SELECT endpoint_id FROM webhook_deliveries WHERE due_at IS NOT NULL ORDER BY endpoint_id LIMIT 1)
               UNION ALL
               SELECT n.endpoint_id FROM waiting w CROSS JOIN LATERAL (
                   SELECT d.endpoint_id FROM webhook_deliveries d
                   WHERE d.due_at IS NOT NULL AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1
               ) n
           )
           SELECT GREATEST(0, COALESCE(extract(epoch FROM clock_timestamp() - min(first.due_at)), 0))::float8
                      AS "oldest_due_seconds!",
                  (SELECT count(*) FROM webhook_endpoints WHERE state = 'DISABLED' AND NOT deleted) AS "endpoints_disabled!",
                  (SELECT count(*) FROM webhook_receivers WHERE failing_since IS NOT NULL) AS "endpoints_failing!"
           FROM waiting w JOIN webhook_endpoints e ON e.id = w.endpoint_id AND e.state = 'ENABLED' AND NOT e.deleted
           CROSS JOIN LATERAL (
               SELECT d.due_at FROM webhook_deliveries d
               WHERE d.endpoint_id = e.id AND d.due_at <= clock_timestamp() ORDER BY d.due_at LIMIT 1
           ) first"#
    )
    .fetch_one(pool)
    .await
}

/// How the receivers of some results behaved.
struct Receivers<'a> {
    well: Vec<String>,
    ill: BTreeMap<&'a str, Ill>,
}

#[derive(Default)]
struct Ill {
    failures: i32,
    peace: Duration,
}

impl<'a> Receivers<'a> {
    /// One that took anything is well. What a receiver refuses again and again, while it is asked for nothing else, says
    /// nothing of the others: so only first attempts count towards its being down, but what it says of itself does.
    fn of(results: &'a [Done]) -> Self {
        let arrived = results.iter().filter(|result| result.outcome == Outcome::Arrived);
        let well: BTreeSet<&str> = arrived.map(|result| result.taken.endpoint.as_str()).collect();
        let mut ill: BTreeMap<&str, Ill> = BTreeMap::new();
        for result in results.iter().filter(|result| !well.contains(result.taken.endpoint.as_str())) {
            let Outcome::Failed { busy, retry_after, .. } = result.outcome else { continue };
            let entry = ill.entry(&result.taken.endpoint).or_default();
            entry.failures += i32::from(result.taken.tries <= 1 || busy);
            let asked = if busy { peace(entry.failures.max(1), true).max(retry_after) } else { None };
            entry.peace = entry.peace.max(asked.unwrap_or_default());
        }
        Self { well: well.into_iter().map(str::to_owned).collect(), ill }
    }
}
