//! Streams of the audit trail to systems that watch (SIEM): every sealed event as OCSF, by syslog or HTTP.
//!
//! A stream is a consumer of the log, like a projection: it reads partitions from where it stands and remembers how far it
//! is. One replica at a time has a stream: the lock is its database session's, and its position moves in that session only,
//! so a replica that lost the lock cannot move it. A position moves when the receiver has what is before it. So every event
//! is sent at least once, those of a partition in order.
//!
//! What is always so:
//! - only what is sealed is sent, as with exports: an event that the service did not write reaches no receiver;
//! - a receiver that is away, or refuses, holds up its own stream and nothing else; nothing is left out for it;
//! - a batch is bounded in events and bytes, and there is one at a time of each stream;
//! - neither a token nor what may stand in an address' query is in a message, a log or a row.
//!
//! Operators configure receivers, so private addresses are connected to like any other.

mod http;
mod place;
mod syslog;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use self::place::Place;
use crate::audit::ocsf;
use crate::log::{Log, LogError, StoredEvent};

pub use http::Http;
pub use place::{StreamStatus, status};
pub use syslog::Syslog;
pub use tls::{Error as TlsError, Files};

/// How much a batch holds, in bytes; one line more at most.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many events are read by one statement.
const READ_ONCE: usize = 100;
/// How long a replica waits that does not have the stream, or whose database is away.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long it waits after a failure, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a service that stops waits for the batch that is under way.
const GRACE: Duration = Duration::from_secs(2);
/// How much is said of what went wrong, in characters.
const FAILURE_CHARS_MAX: usize = 300;

/// How a stream goes.
#[derive(Debug, Clone)]
pub struct Terms {
    /// By which its position is remembered.
    pub name: String,
    /// Whether events of organizations are sent.
    pub organizations: bool,
    /// Whether events of the installation are sent.
    pub installation: bool,
    /// Whether a new stream begins with what is recorded from now on.
    pub from_now: bool,
    /// Most events that are sent together.
    pub batch_events_max: usize,
    /// How long events are gathered.
    pub batch_wait: Duration,
    /// Longest time of sending them.
    pub send_max: Duration,
}

/// Where a stream goes.
pub enum Receiver {
    /// Syslog over TLS.
    Syslog(Syslog),
    /// HTTP.
    Http(Http),
}

/// Why a batch did not get through.
#[derive(Debug)]
pub struct Failed {
    text: String,
    /// Whether fewer events may get through.
    too_large: bool,
}

impl Failed {
    fn new(text: impl std::fmt::Display) -> Self {
        let text = aggregates::text::legible(&text.to_string()).chars().take(FAILURE_CHARS_MAX).collect();
        Self { text, too_large: false }
    }
}

/// An event as it is sent.
#[derive(Debug)]
struct Line {
    recorded_at: DateTime<Utc>,
    event_type: String,
    /// OCSF, without the end of the line.
    json: String,
}

/// What is sent together, and up to where the stream is when it has come.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<Line>,
    /// By partition: the last offset, and how many events of it are in the batch.
    upto: Vec<(i16, i64, i64)>,
    /// How many events were read for it.
    events: usize,
    /// Whether there may be more right now.
    full: bool,
}

/// One stream.
pub struct Stream {
    terms: Terms,
    receiver: Receiver,
    log: Arc<Log>,
    /// As the role that owns positions.
    database: PgConnectOptions,
}

impl Stream {
    /// Of this log, to this receiver.
    pub fn new(terms: Terms, receiver: Receiver, log: Arc<Log>, database: PgConnectOptions) -> Self {
        Self { terms, receiver, log, database }
    }

    /// Sends until the service stops.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.have(&stop).await {
                tracing::warn!(stream = self.terms.name, %error, "a stream of the audit trail cannot go on now");
            }
            stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
        }
    }

    /// Sends for as long as this replica has the stream; returns at once where another one has it.
    async fn have(&self, stop: &CancellationToken) -> Result<(), LogError> {
        let epoch = self.log.epoch();
        let taken = Place::take(&self.database, &self.terms, self.log.partitions());
        let Some(taken) = stop.run_until_cancelled(taken).await else { return Ok(()) };
        let Some(mut place) = taken? else { return Ok(()) };
        let (mut pause, mut events_max) = (BACK_OFF.0, self.terms.batch_events_max);
        // Positions are of one history: after a restore they are read anew.
        while !stop.is_cancelled() && self.log.epoch() == epoch {
            let batch = self.batch(&mut place, events_max).await?;
            let full = batch.full;
            let sent = tokio::select! {
                sent = self.send(&batch) => sent,
                () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => return Ok(()),
            };
            let wait = match sent {
                Ok(()) => {
                    place.move_on(&batch).await?;
                    self.sent(&batch);
                    // By one: each try that is too large costs a batch.
                    (pause, events_max) = (BACK_OFF.0, (events_max + 1).min(self.terms.batch_events_max));
                    if full { Duration::ZERO } else { self.terms.batch_wait }
                }
                Err(failed) if failed.too_large && batch.events > 1 => {
                    events_max = batch.events / 2;
                    Duration::ZERO
                }
                Err(failed) => {
                    place.fail(&batch, &failed.text).await?;
                    let wait = pause.mul_f64(0.75 + 0.5 * rand::random::<f64>());
                    pause = (pause * 2).min(BACK_OFF.1);
                    wait
                }
            };
            stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
        place.leave().await
    }

    async fn send(&self, batch: &Batch) -> Result<(), Failed> {
        if batch.lines.is_empty() {
            return Ok(());
        }
        let send = async {
            match &self.receiver {
                Receiver::Syslog(syslog) => syslog.send(&batch.lines).await,
                Receiver::Http(http) => http.send(&batch.lines).await,
            }
        };
        let sent = tokio::time::timeout(self.terms.send_max, send).await;
        let late =
            || Failed::new(format!("the receiver did not take it within {} ms", self.terms.send_max.as_millis()));
        let sent = sent.unwrap_or_else(|_| Err(late()));
        if sent.is_err() {
            metrics::counter!("tenancy_audit_stream_failures_total", "stream" => self.terms.name.clone()).increment(1);
        }
        sent
    }

    fn sent(&self, batch: &Batch) {
        let (name, events) = (self.terms.name.clone(), batch.lines.len() as u64);
        metrics::counter!("tenancy_audit_stream_events_total", "stream" => name).increment(events);
    }

    /// What comes next, of the partitions in turn, so that a busy one keeps back no other.
    async fn batch(&self, place: &mut Place, events_max: usize) -> Result<Batch, LogError> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for (partition, mut after, until) in place.behind().await? {
            while after < until && !batch.full {
                let limit = READ_ONCE.min(events_max - batch.events);
                let mut rows = self.log.after_offsets(&[(partition, after)], limit as i64).await?;
                rows.retain(|row| row.offset <= until);
                let Some(last) = rows.last().map(|row| row.offset) else { break };
                batch.events += rows.len();
                let count = batch.lines.len();
                for line in self.lines(rows).await? {
                    bytes += line.json.len();
                    batch.lines.push(line);
                }
                let added = (batch.lines.len() - count) as i64;
                match batch.upto.last_mut().filter(|(known, ..)| *known == partition) {
                    Some(known) => *known = (partition, last, known.2 + added),
                    None => batch.upto.push((partition, last, added)),
                }
                after = last;
                batch.full = batch.events >= events_max || bytes >= BATCH_BYTES_MAX;
            }
            if batch.full {
                break;
            }
        }
        Ok(batch)
    }

    /// Those that are wanted, and that were not pruned.
    async fn lines(&self, rows: Vec<StoredEvent>) -> Result<Vec<Line>, LogError> {
        let wanted = |row: &StoredEvent| match row.organization_id {
            Some(_) => self.terms.organizations,
            None => self.terms.installation,
        };
        let mut rows: Vec<StoredEvent> = rows.into_iter().filter(wanted).collect();
        rows.retain(|row| row.event_type != aggregates::PRUNED.name);
        self.log.number_installation(&mut rows).await?;
        let read = self.log.reader().read_each(&rows, self.log.keys()).await?;
        let line = |(row, read): (StoredEvent, Result<_, _>)| Line {
            recorded_at: row.recorded_at,
            json: ocsf::line(&row, read.as_ref().ok()).trim_end().to_owned(),
            event_type: row.event_type,
        };
        Ok(rows.into_iter().zip(read).map(line).collect())
    }
}
