//! The deliverer: takes what is due, sends it, and records what came of it.
//!
//! Sending is a task for each delivery, so that none waits for another; recording is done for all that are through by
//! then, by one statement. A loop of takes is woken by whoever has written something, by whoever is through with
//! something, and by a clock behind both.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aggregates::Recorded;
use aggregates::webhook::{WebhookContent, WebhookEndpoint};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::message::Message;
use super::queue::{Attempt, Done, Room, Taken, Verdict, finish_free, finish_in_order, take};
use super::schedule::Schedule;
use super::sender::{Answer, Checkpoints, Letter, Sender};
use crate::audit::proofs;
use crate::commands::Commands;
use crate::endpoints::signature::{Secret, key_name};
use crate::log::Keys;

/// How often is looked without having been woken.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long to wait for a database that is away.
const BACK_OFF: Duration = Duration::from_millis(500);
/// How many deliveries are recorded by one statement.
const FINISHED_MAX: usize = 500;
/// For how long it is tried to record what is through: less than `LEASE_MARGIN`.
const RECORD_MAX: Duration = Duration::from_secs(10);
/// How long what could not be recorded waits for the next try.
const RECORD_AGAIN: Duration = Duration::from_millis(100);
/// Into how many shares what may be under way is divided; an organization has one at most.
const SHARES: usize = 4;
/// How long what is under way may take when the service stops.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// For how much longer a delivery is leased than sending it may take.
const LEASE_MARGIN: Duration = Duration::from_secs(15);
/// How long a delivery is put off whose event or secret cannot be had now.
const PUT_OFF: Duration = Duration::from_secs(5);
/// The answer by which a receiver says that it is gone for good.
const GONE: u16 = 410;
/// Answers by which a receiver says that it is too much.
const BUSY: [u16; 4] = [429, 502, 503, 504];

/// Limits of delivering, and when what failed is tried again.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// How many at once, by this replica.
    pub in_flight_max: usize,
    /// How many at once to one endpoint, by all replicas.
    pub endpoint_in_flight_max: u32,
    /// How many a second to one endpoint that says nothing itself; 0 is no limit.
    pub endpoint_rate_per_second: u32,
    /// How long one may take.
    pub whole_max: Duration,
    /// When what failed is tried again.
    pub schedule: Schedule,
}

/// Delivers.
pub struct Deliverer {
    pool: PgPool,
    commands: Arc<Commands>,
    sender: Sender,
    settings: DeliverySettings,
    /// What is under way, by organization.
    in_flight: Mutex<HashMap<String, usize>>,
    /// Something is through: there may be room for more.
    through: Notify,
}

impl Deliverer {
    /// Over the database that `pool` leads to.
    pub fn new(pool: PgPool, commands: Arc<Commands>, sender: Sender, settings: DeliverySettings) -> Self {
        Self { pool, commands, sender, settings, in_flight: Mutex::default(), through: Notify::new() }
    }

    /// Delivers until `stop` says so; `written` changes whenever there may be something new.
    pub async fn run(self: Arc<Self>, mut written: watch::Receiver<()>, stop: CancellationToken) {
        let (done, finished) = mpsc::unbounded_channel();
        let recorder = tokio::spawn(self.clone().record(finished));
        let mut letters = JoinSet::new();
        while !stop.is_cancelled() {
            written.mark_unchanged();
            while letters.try_join_next().is_some() {}
            let pause = match self.round(&mut letters, &done).await {
                // There may be more of what was just taken.
                Ok(true) => continue,
                Ok(false) => LOOK_EVERY,
                Err(error) => {
                    tracing::warn!(%error, "webhooks wait for the database");
                    BACK_OFF
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                Ok(()) = written.changed() => {}
                () = self.through.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let rest = async { while letters.join_next().await.is_some() {} };
        // A delivery that is cut off here is sent again when its lease is over.
        let _ = tokio::time::timeout(STOP_WAIT, rest).await;
        letters.abort_all();
        drop(done);
        let _ = recorder.await;
    }

    /// Takes what there is room for and sends it on its way; whether that was something.
    async fn round(
        self: &Arc<Self>,
        letters: &mut JoinSet<()>,
        done: &mpsc::UnboundedSender<Done>,
    ) -> Result<bool, sqlx::Error> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let share = count((self.settings.in_flight_max / SHARES).max(1));
        let (busy, under_way): (Vec<_>, Vec<_>) =
            self.in_flight().iter().map(|(of, n)| (of.clone(), count(*n))).unzip();
        let own = count(self.settings.in_flight_max).saturating_sub(under_way.iter().sum());
        if own <= 0 {
            return Ok(false);
        }
        let room = Room {
            own,
            share,
            busy,
            under_way,
            endpoint: self.settings.endpoint_in_flight_max,
            rate_per_second: self.settings.endpoint_rate_per_second,
            lease: self.settings.whole_max + LEASE_MARGIN,
        };
        let taken = take(&self.pool, room).await?;
        if taken.is_empty() {
            return Ok(false);
        }
        let post = Post::of(&self.commands, &taken).await;
        for taken in taken {
            *self.in_flight().entry(taken.organization.clone()).or_default() += 1;
            let letter = post.letter(&taken);
            let (deliverer, done) = (self.clone(), done.clone());
            letters.spawn(async move {
                let finished = deliverer.deliver(taken, letter).await;
                let _ = done.send(finished);
            });
        }
        Ok(true)
    }

    async fn deliver(&self, mut taken: Taken, letter: Result<Letter, Undeliverable>) -> Done {
        metrics::histogram!("tenancy_webhook_late_seconds").record(taken.late_seconds.max(0.0));
        let at = Utc::now();
        let answer = match letter {
            Ok(letter) => self.sender.send(&letter, at).await,
            Err(Undeliverable::Now) => return Done { taken, verdict: Verdict::PutOff(PUT_OFF), attempt: None },
            // It counts as failed, and is tried as often: somebody may give it another.
            Err(Undeliverable::Unsigned) => Answer::failed("the endpoint has no secret any more: rotate it"),
            Err(Undeliverable::Never(error)) => {
                let attempt = Attempt { at, duration_ms: 0, status: None, error: Some(error), response_excerpt: None };
                return Done { taken, verdict: Verdict::Undeliverable, attempt: Some(attempt) };
            }
        };
        let verdict = self.judge(&mut taken, &answer);
        let label = match verdict {
            Verdict::Arrived => "succeeded",
            Verdict::Failed { pause: Some(_), .. } | Verdict::PutOff(_) => "retrying",
            Verdict::Failed { pause: None, .. } | Verdict::Undeliverable => "failed",
        };
        metrics::counter!("tenancy_webhook_attempts_total", "outcome" => label).increment(1);
        metrics::histogram!("tenancy_webhook_attempt_seconds").record(answer.took.as_secs_f64());
        if answer.status == Some(GONE) {
            let reason = "the receiver answered 410: it is gone".to_owned();
            if let Err(error) = self.commands.disable_webhook(&taken.endpoint, Some(&taken.url), reason).await {
                tracing::warn!(%error, endpoint = taken.endpoint, "a webhook endpoint could not be disabled");
            }
        }
        let attempt = Attempt {
            at,
            duration_ms: u32::try_from(answer.took.as_millis()).unwrap_or(u32::MAX),
            status: answer.status,
            error: answer.error,
            response_excerpt: answer.excerpt,
        };
        Done { taken, verdict, attempt: Some(attempt) }
    }

    fn judge(&self, taken: &mut Taken, answer: &Answer) -> Verdict {
        if answer.error.is_none() {
            return Verdict::Arrived;
        }
        let failed = usize::try_from(taken.tries).unwrap_or_default();
        taken.tries = taken.tries.saturating_add(1);
        let busy = answer.status.is_some_and(|status| BUSY.contains(&status));
        let retry_after = answer.retry_after.filter(|_| busy);
        // One that is gone is disabled, and goes on with this one if it is enabled.
        let pause = match self.settings.schedule.pause(failed, rand::random()) {
            None if answer.status == Some(GONE) => Some(PUT_OFF),
            pause => pause.map(|pause| pause.max(retry_after.unwrap_or_default())),
        };
        Verdict::Failed { pause, busy, retry_after }
    }

    /// Records what is through, as much at once as there is. What cannot be recorded now is tried again beside what comes;
    /// what could not be for long is sent again when its lease is over.
    async fn record(self: Arc<Self>, mut finished: mpsc::UnboundedReceiver<Done>) {
        let mut left: Vec<(Instant, Done)> = vec![];
        loop {
            let mut batch = vec![];
            let next = finished.recv_many(&mut batch, FINISHED_MAX);
            let ended = match left.is_empty() {
                true => next.await == 0,
                false => matches!(tokio::time::timeout(RECORD_AGAIN, next).await, Ok(0)),
            };
            if ended && left.is_empty() {
                return;
            }
            if ended {
                tokio::time::sleep(RECORD_AGAIN).await;
            }
            let (since, again): (Vec<_>, Vec<_>) = left.drain(..).unzip();
            let since: Vec<Instant> =
                since.into_iter().chain(std::iter::repeat_n(Instant::now(), batch.len())).collect();
            let batch: Vec<Done> = again.into_iter().chain(batch).collect();
            let recorded = self.finish(&batch).await;
            let (mut through, mut lost) = (vec![], 0_usize);
            for ((since, done), recorded) in since.into_iter().zip(batch).zip(recorded) {
                let given_up = !recorded && since.elapsed() >= RECORD_MAX;
                lost += usize::from(given_up);
                match recorded || given_up {
                    true => through.push(done.taken.organization),
                    false => left.push((since, done)),
                }
            }
            if lost > 0 {
                tracing::warn!(deliveries = lost, "webhooks were sent, and it could not be recorded");
            }
            self.settle(&through);
        }
    }

    /// Of each of these, whether what became of it is on record now.
    async fn finish(&self, batch: &[Done]) -> Vec<bool> {
        let later = |error: &sqlx::Error| tracing::debug!(%error, "what became of webhooks could not be recorded yet");
        let free = finish_free(&self.pool, batch).await.inspect_err(later).is_ok();
        let in_order = finish_in_order(&self.pool, batch).await.inspect_err(later).unwrap_or_default();
        batch.iter().map(|done| if done.is_free() { free } else { in_order.contains(&done.taken.endpoint) }).collect()
    }

    /// These are not under way any more.
    fn settle(&self, organizations: &[String]) {
        {
            let mut in_flight = self.in_flight();
            for organization in organizations {
                if let Some(count) = in_flight.get_mut(organization) {
                    *count = count.saturating_sub(1);
                }
            }
            in_flight.retain(|_, count| *count > 0);
        }
        if !organizations.is_empty() {
            self.through.notify_one();
        }
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is nothing to send.
#[derive(Debug, Clone)]
enum Undeliverable {
    /// It cannot be had at the moment.
    Now,
    /// There is no secret to sign it by.
    Unsigned,
    /// It will never be there.
    Never(String),
}

/// What is needed to write the letters of some deliveries: their events, each of which many may want, and secrets.
struct Post {
    /// Each as far as it can be read; none where nobody can be asked.
    events: Option<HashMap<String, Option<Recorded>>>,
    keys: Option<Keys>,
    /// The newest signed heads of the audit trails, in base64, by organization: whoever keeps one can later tell whether
    /// what it covers was changed.
    checkpoints: HashMap<String, Checkpoints>,
    epoch: i64,
    bodies: std::cell::RefCell<HashMap<(String, WebhookContent), Bytes>>,
    now: DateTime<Utc>,
}

impl Post {
    async fn of(commands: &Commands, taken: &[Taken]) -> Self {
        let (log, now) = (commands.log(), Utc::now());
        let ids: HashSet<&str> = taken.iter().map(|taken| taken.event.as_str()).collect();
        let ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
        let organizations: HashSet<&str> = taken.iter().map(|taken| taken.organization.as_str()).collect();
        let (events, notes) = tokio::join!(log.each_event(&ids), proofs::notes(log.pool(), organizations));
        let events = events.inspect_err(|error| {
            tracing::warn!(%error, "events of webhooks cannot be read now");
        });
        // Without one the next message brings it.
        let notes = notes.unwrap_or_default().into_iter();
        let checkpoints = notes.map(|(organization, notes)| {
            let (newest, witnessed) =
                (STANDARD.encode(notes.newest), notes.witnessed.map(|note| STANDARD.encode(note)));
            (organization, Checkpoints { newest, witnessed })
        });
        let checkpoints = checkpoints.collect();
        let names: HashSet<String> = taken.iter().flat_map(|taken| names(taken, now)).collect();
        let keys = log.keys().find(names.iter().map(String::as_str)).await.inspect_err(|error| {
            tracing::warn!(%error, "secrets of webhooks cannot be read now");
        });
        let bodies = Default::default();
        Self { events: events.ok(), keys: keys.ok(), checkpoints, epoch: log.epoch(), bodies, now }
    }

    fn letter(&self, taken: &Taken) -> Result<Letter, Undeliverable> {
        let (Some(events), Some(keys)) = (&self.events, &self.keys) else { return Err(Undeliverable::Now) };
        let event = match events.get(&taken.event) {
            Some(Some(event)) => event,
            // Another program may be able to.
            Some(None) => return Err(Undeliverable::Now),
            None => return Err(Undeliverable::Never("the event is not in the log any more".into())),
        };
        let content = if taken.content == "THIN" { WebhookContent::Thin } else { WebhookContent::Full };
        let body = || Bytes::from(Message::of(event, self.epoch, content).to_bytes());
        let body = self.bodies.borrow_mut().entry((taken.event.clone(), content)).or_insert_with(body).clone();
        let timestamp = self.now.timestamp();
        let secrets = names(taken, self.now).filter_map(|name| Secret::among(keys, &name));
        let signatures: Vec<String> = secrets.map(|secret| secret.sign(&taken.event, timestamp, &body)).collect();
        if signatures.is_empty() {
            return Err(Undeliverable::Unsigned);
        }
        let signatures = signatures.join(" ");
        let checkpoints = self.checkpoints.get(&taken.organization).cloned();
        Ok(Letter { url: taken.url.clone(), id: taken.event.clone(), timestamp, signatures, checkpoints, body })
    }
}

/// Under which names the secrets lie that sign a delivery now.
fn names(taken: &Taken, now: DateTime<Utc>) -> impl Iterator<Item = String> {
    let endpoint = WebhookEndpoint { secrets: taken.secrets.0.clone(), ..WebhookEndpoint::default() };
    let numbers: Vec<u64> = endpoint.signing_at(now).collect();
    numbers.into_iter().map(|number| key_name(&taken.endpoint, number))
}
