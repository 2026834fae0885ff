//! The queue of deliveries: taking what is due, and recording what became of it.
//!
//! What is taken is leased, for longer than sending it may take: whoever dies with it leaves it to others. Neither taking
//! nor finishing waits for a flush of the database: a server that dies forgets at worst that something was sent, and it
//! is sent again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{PgExecutor, PgPool};

use super::schedule::{DOWN_AFTER_FAILURES, PEACE, PEACE_MAX};

/// How many attempts a delivery shows: the last ones.
const ATTEMPTS_MAX: i64 = 20;

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
    /// Of which organization.
    pub organization: String,
    /// Which event.
    pub event: String,
    /// The stream in whose order it stands, if it stands in one.
    pub subject: Option<String>,
    /// Until when it is ours.
    pub leased_until: DateTime<Utc>,
    /// How often it failed.
    pub tries: i16,
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
#[derive(Debug, Clone)]
pub struct Room {
    /// By this replica, now.
    pub own: i64,
    /// Of one endpoint at a time, by all replicas.
    pub endpoint: u32,
    /// How many events a second an endpoint is sent where it says nothing itself; 0 is no limit.
    pub rate_per_second: u32,
    /// For how long.
    pub lease: Duration,
    /// Of one organization, now.
    pub share: i64,
    /// Organizations of which something is under way.
    pub busy: Vec<String>,
    /// Of each how much.
    pub under_way: Vec<i64>,
}

/// Takes deliveries that are due.
pub async fn take(pool: &PgPool, room: Room) -> Result<Vec<Taken>, sqlx::Error> {
    sqlx::query_file_as!(
        Taken,
        "src/webhooks/claim.sql",
        room.own,
        room.lease.as_secs_f64(),
        i64::from(room.endpoint),
        DOWN_AFTER_FAILURES,
        i64::from(room.rate_per_second),
        &room.busy,
        room.share,
        &room.under_way
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
    pub verdict: Verdict,
    /// What was tried, if anything was.
    pub attempt: Option<Attempt>,
}

/// How an attempt went, as far as the queue is concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
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
    /// There is nothing to send, and never will be.
    Undeliverable,
}

impl Verdict {
    fn state(self, tries: i16) -> &'static str {
        match self {
            Self::Arrived => "SUCCEEDED",
            Self::Failed { pause: None, .. } | Self::Undeliverable => "FAILED",
            Self::Failed { pause: Some(_), .. } => "RETRYING",
            Self::PutOff(_) if tries == 0 => "PENDING",
            Self::PutOff(_) => "RETRYING",
        }
    }

    fn pause(self) -> Option<f64> {
        match self {
            Self::Arrived | Self::Undeliverable => None,
            Self::Failed { pause, .. } => pause.map(|pause| pause.as_secs_f64()),
            Self::PutOff(pause) => Some(pause.as_secs_f64()),
        }
    }
}

impl Done {
    /// Whether it stands in no order.
    pub fn is_free(&self) -> bool {
        self.taken.subject.is_none()
    }
}

/// Records what became of these that stand in no order.
pub async fn finish_free(pool: &PgPool, results: &[Done]) -> Result<(), sqlx::Error> {
    let free: Vec<&Done> = results.iter().filter(|done| done.is_free()).collect();
    if free.is_empty() {
        return Ok(());
    }
    record(&mut *pool.acquire().await?, &free).await
}

/// Records what became of these that stand in an order, of endpoints whose locks are to be had; whose these are. It waits
/// for no lock: what holds one for long keeps nobody else's deliveries from being recorded.
pub async fn finish_in_order(pool: &PgPool, results: &[Done]) -> Result<HashSet<String>, sqlx::Error> {
    let in_order = || results.iter().filter(|done| !done.is_free());
    if in_order().next().is_none() {
        return Ok(HashSet::new());
    }
    let mut transaction = pool.begin().await?;
    let endpoints: BTreeSet<&str> = in_order().map(|done| done.taken.endpoint.as_str()).collect();
    let locked = projections::try_lock_endpoints(&mut transaction, &endpoints).await?;
    let own: Vec<&Done> = in_order().filter(|done| locked.contains(&done.taken.endpoint)).collect();
    if !own.is_empty() {
        record(&mut transaction, &own).await?;
        let ended = own.iter().filter(|done| done.verdict.pause().is_none());
        let subjects = ended.filter_map(|done| Some((done.taken.endpoint.as_str(), done.taken.subject.as_deref()?)));
        projections::make_due(&mut transaction, &subjects.collect()).await?;
    }
    transaction.commit().await?;
    Ok(locked)
}

async fn record(connection: &mut sqlx::PgConnection, results: &[&Done]) -> Result<(), sqlx::Error> {
    let receivers = receivers(results);
    let attempt = |done: &&Done| done.attempt.as_ref().and_then(|attempt| serde_json::to_string(attempt).ok());
    sqlx::query_file!(
        "src/webhooks/finish.sql",
        &results.iter().map(|done| done.taken.id.clone()).collect::<Vec<_>>(),
        &results.iter().map(|done| done.verdict.state(done.taken.tries).to_owned()).collect::<Vec<_>>(),
        &results.iter().map(|done| done.verdict.pause()).collect::<Vec<_>>() as &[Option<f64>],
        &results.iter().map(|done| done.taken.leased_until).collect::<Vec<_>>(),
        &results.iter().map(|done| done.taken.tries).collect::<Vec<_>>(),
        &results.iter().map(attempt).collect::<Vec<_>>() as &[Option<String>],
        &receivers.keys().map(|endpoint| (*endpoint).to_owned()).collect::<Vec<_>>(),
        &receivers.values().map(|behaved| behaved.well).collect::<Vec<_>>(),
        &receivers.values().map(|behaved| behaved.failures).collect::<Vec<_>>(),
        &receivers.values().map(|behaved| behaved.peace.as_secs_f64()).collect::<Vec<_>>(),
        DOWN_AFTER_FAILURES,
        ATTEMPTS_MAX,
        PEACE_MAX.as_secs_f64()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How a receiver behaved.
#[derive(Debug, Default, PartialEq)]
struct Behaved {
    /// It took something.
    well: bool,
    /// How many deliveries failed that count towards its being down.
    failures: i32,
    /// For how long it asked to be left in peace.
    peace: Duration,
}

/// How receivers behaved. What one refuses again and again, while it is asked for nothing else, says nothing of the others:
/// so only first attempts count towards its being down, and what it says of itself.
fn receivers<'a>(results: &[&'a Done]) -> BTreeMap<&'a str, Behaved> {
    let mut receivers: BTreeMap<&str, Behaved> = BTreeMap::new();
    for done in results {
        let behaved = match done.verdict {
            Verdict::PutOff(_) | Verdict::Undeliverable => continue,
            Verdict::Arrived | Verdict::Failed { .. } => receivers.entry(&done.taken.endpoint).or_default(),
        };
        match done.verdict {
            Verdict::Arrived => behaved.well = true,
            Verdict::Failed { busy, retry_after, .. } => {
                behaved.failures += i32::from(done.taken.tries <= 1 || busy);
                let asked = if busy { retry_after.unwrap_or_default().max(PEACE) } else { Duration::ZERO };
                behaved.peace = behaved.peace.max(asked);
            }
            Verdict::PutOff(_) | Verdict::Undeliverable => {}
        }
    }
    receivers
}

/// The state of the queue, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct QueueState {
    /// For how long the oldest delivery that could be sent has been due; 0 where there is none.
    pub oldest_due_seconds: f64,
    /// Endpoints that are disabled.
    pub endpoints_disabled: i64,
    /// Endpoints of which the last attempt failed.
    pub endpoints_failing: i64,
}

/// The state of the queue.
pub async fn queue_state(pool: impl PgExecutor<'_>) -> Result<QueueState, sqlx::Error> {
    sqlx::query_file_as!(QueueState, "src/webhooks/queue_state.sql").fetch_one(pool).await
}
