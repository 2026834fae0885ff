//! What is new in the log, read once for all live feeds of this replica.
//!
//! One reader follows the partitions that feeds are about, woken as projections are: in process, by notifications of
//! other replicas, and by a clock behind both. What it reads lies in a bounded ring a partition, where every feed
//! finds it by its own cursor. A feed has no queue: one that falls behind the ring reads pages of the log by itself.
//!
//! Whether a feed may go on follows from the log too. What its organization and its membership are stands in the same
//! partition as the events, in order; a user stands in another one. So the reader also follows the partitions of the
//! users, all by one statement, and says who was shut out before it hands on any event of the same moment.
//!
//! The rings hold what is stored, sealed: each feed opens it for itself, so nothing of an erased person stays readable
//! here.

mod ring;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aggregates::ids::{OrganizationId, UserId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::commands::{Commands, Fault, Principal};
use crate::log::{Heads, LogError, StoredEvent};
pub use ring::{Next, Ring};

/// How many events of a partition are read at once.
const PAGE_EVENTS: usize = 200;
/// How often is looked without having been woken.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long commits are let come together.
const PACE: Duration = Duration::from_millis(5);
/// How long to wait for a database that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How many users are looked at by one statement.
const USERS_AT_ONCE: usize = 500;

/// How much of a partition is kept for feeds.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Events.
    pub events: usize,
    /// Bytes, about.
    pub bytes: usize,
}

/// What all live feeds of this replica share.
pub struct Feeds {
    commands: Arc<Commands>,
    sizes: Sizes,
    heartbeat: Duration,
    stopping: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is known is of this epoch.
    epoch: i64,
    partitions: HashMap<i16, Followed>,
    /// By the id of the user who calls or answers for the token that calls; else by the token's, of which nothing is told
    /// here: its events are its organization's.
    callers: HashMap<String, Watched>,
}

struct Followed {
    ring: Arc<Ring>,
    seats: usize,
}

struct Watched {
    seats: usize,
    shut_out: watch::Sender<bool>,
}

impl State {
    /// Forgets the rings of another epoch; every holder of one finds out by itself.
    fn enter(&mut self, epoch: i64) {
        // Epochs rise, so whoever looked before the last one changes nothing.
        if self.epoch < epoch {
            self.epoch = epoch;
            self.partitions.clear();
        }
    }
}

impl Feeds {
    /// Nothing is read before there is a feed. A feed says that it is there at least every `heartbeat`.
    pub fn new(commands: Arc<Commands>, sizes: Sizes, heartbeat: Duration, stopping: CancellationToken) -> Self {
        Self { commands, sizes, heartbeat, stopping, state: Mutex::default() }
    }

    /// How long a feed may be silent.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Cancelled when the service stops.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// A seat for a caller at the partition of an organization. When it is there, the caller was let in, and everything
    /// that is written from then on will be told.
    pub async fn seat(self: &Arc<Self>, organization: &OrganizationId, caller: &Principal) -> Result<Seat, Fault> {
        let log = self.commands.log();
        let of = log.partition_of(organization.as_ref());
        // The person behind a token is watched for it.
        let person = self.commands.person_behind(caller).await?;
        let of_caller = person.as_ref().map_or(of, |user| log.partition_of(user.as_ref()));
        let epoch = log.epoch();
        let heads = log.heads_now(&[of, of_caller]).await?;
        let seat = self.take(epoch, of, of_caller, person, caller.id(), &heads);
        // After the caller is watched: what happens between this look and the first page is told.
        self.commands.admit_now(caller).await?;
        Ok(seat)
    }

    fn take(
        self: &Arc<Self>,
        epoch: i64,
        of: i16,
        of_caller: i16,
        person: Option<UserId>,
        caller: &str,
        heads: &Heads,
    ) -> Seat {
        let caller = person.as_ref().map_or(caller, AsRef::as_ref);
        let mut state = self.state();
        state.enter(epoch);
        let mut follow = |partition: i16| {
            let head = heads.get(&partition).copied().unwrap_or_default();
            let new = || Followed { ring: Arc::new(Ring::new(head, self.sizes)), seats: 0 };
            let followed = state.partitions.entry(partition).or_insert_with(new);
            followed.seats += 1;
            followed.ring.clone()
        };
        let (ring, callers_ring) = (follow(of), follow(of_caller));
        let new = || Watched { seats: 0, shut_out: watch::channel(false).0 };
        let watched = state.callers.entry(caller.to_owned()).or_insert_with(new);
        watched.seats += 1;
        let shut_out = watched.shut_out.subscribe();
        metrics::gauge!("tenancy_feeds_open").increment(1.0);
        let head = heads.get(&of).copied().unwrap_or_default();
        let partitions = [(of, ring.clone()), (of_caller, callers_ring)];
        let caller = caller.to_owned();
        Seat { feeds: self.clone(), epoch, partition: of, head, ring, shut_out, person, caller, partitions }
    }

    /// Follows the log until `stop` says so.
    pub async fn run(&self, mut woken: watch::Receiver<()>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.round().await {
                Ok(true) => continue,
                Ok(false) => PACE,
                Err(error) => {
                    tracing::debug!(%error, "the feeds wait for the database");
                    RETRY_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
            tokio::select! {
                () = stop.cancelled() => {}
                Ok(()) = woken.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Reads what is new and hands it on; whether there may be more.
    async fn round(&self) -> Result<bool, LogError> {
        let log = self.commands.log();
        let epoch = log.epoch();
        let rings: HashMap<i16, Arc<Ring>> = {
            let mut state = self.state();
            state.enter(epoch);
            state.partitions.iter().map(|(number, followed)| (*number, followed.ring.clone())).collect()
        };
        if rings.is_empty() {
            return Ok(false);
        }
        let cursors: Vec<(i16, i64)> = rings.iter().map(|(number, ring)| (*number, ring.head())).collect();
        let limit = i64::try_from(PAGE_EVENTS).unwrap_or(i64::MAX);
        let events = log.after_offsets(&cursors, limit).await?;
        if events.is_empty() {
            return Ok(false);
        }
        // Events that were read may be of a restored database, where the same offsets are other events.
        log.look_at_epoch().await?;
        if log.epoch() != epoch {
            return Ok(true);
        }
        let mut pages: HashMap<i16, Vec<StoredEvent>> = HashMap::new();
        for event in events {
            pages.entry(event.partition).or_default().push(event);
        }
        let full = pages.values().any(|page| page.len() >= PAGE_EVENTS);
        self.look_at_users(pages.values().flatten(), full).await?;
        for (number, page) in pages {
            if let Some(ring) = rings.get(&number) {
                ring.push(page);
            }
        }
        Ok(full)
    }

    /// Shuts out the users whom these events, or what may lie beyond a full page, shut out.
    async fn look_at_users(&self, events: impl Iterator<Item = &StoredEvent>, all: bool) -> Result<(), LogError> {
        let mentioned: HashSet<&str> = events.map(|event| event.aggregate_id.as_str()).collect();
        let of_interest = |id: &&String| all || mentioned.contains(id.as_str());
        let users: Vec<UserId> =
            self.state().callers.keys().filter(of_interest).filter_map(|id| id.parse().ok()).collect();
        for users in users.chunks(USERS_AT_ONCE) {
            let admitted = self.commands.admitted_now(users).await?;
            let mut state = self.state();
            for user in users.iter().filter(|user| !admitted.contains(*user)) {
                // The next one who sits down in this user's name is asked for anew.
                if let Some(watched) = state.callers.remove(user.as_ref() as &str) {
                    watched.shut_out.send_replace(true);
                }
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place from which a feed follows its partition. A holder that leaves it is not waited for.
pub struct Seat {
    feeds: Arc<Feeds>,
    /// The epoch that it began in.
    pub epoch: i64,
    /// The organization's partition.
    pub partition: i16,
    /// Where the partition ended when the seat was taken.
    pub head: i64,
    /// What is new there.
    pub ring: Arc<Ring>,
    /// Whether the user was shut out.
    pub shut_out: watch::Receiver<bool>,
    /// The user, or who answers for the token.
    pub person: Option<UserId>,
    caller: String,
    partitions: [(i16, Arc<Ring>); 2],
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::gauge!("tenancy_feeds_open").decrement(1.0);
        let mut state = self.feeds.state();
        for (number, ring) in &self.partitions {
            let Some(followed) = state.partitions.get_mut(number) else { continue };
            if Arc::ptr_eq(&followed.ring, ring) {
                followed.seats -= 1;
                if followed.seats == 0 {
                    state.partitions.remove(number);
                }
            }
        }
        let Some(watched) = state.callers.get_mut(&self.caller) else { return };
        if watched.shut_out.subscribe().same_channel(&self.shut_out) {
            watched.seats -= 1;
            if watched.seats == 0 {
                state.callers.remove(&self.caller);
            }
        }
    }
}
