//! What goes wrong during a run, and when: each fault is chosen and measured by the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use sqlx::{Connection, Row};

use crate::clients::Office;
use crate::cluster::{Cluster, Ending};
use crate::proxy::{Cut, Direction, Proxy};
use crate::readers;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// kill -9 of a service.
    KillService,
    /// kill -9 of one process of PostgreSQL, or the end of one of its sessions.
    KillBackend,
    /// kill -9 of the whole of PostgreSQL.
    KillServer,
    /// A bad network between a service and its database.
    Proxy,
    /// Transactions of others that stay open, or lock what the service needs.
    LongTransaction,
    /// A service's clock that steps forth and back.
    Clock,
    /// A full disk.
    Disk,
    /// Consumers that take what they asked for slowly.
    SlowConsumer,
}

impl Kind {
    /// All of them, with how often each comes in a round.
    pub const ALL: [(Self, &'static str, usize); 8] = [
        (Self::KillService, "kill-service", 4),
        (Self::KillBackend, "kill-backend", 4),
        (Self::KillServer, "kill-server", 2),
        (Self::Proxy, "proxy", 9),
        (Self::LongTransaction, "long-transaction", 3),
        (Self::Clock, "clock", 3),
        (Self::Disk, "disk", 1),
        (Self::SlowConsumer, "slow-consumer", 2),
    ];
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name, _)| *name == text).map(|(kind, ..)| *kind);
        let names = || Self::ALL.map(|(_, name, _)| name).join(", ");
        known.ok_or_else(|| format!("there is no fault {text:?}: give some of {}, or none", names()))
    }
}

/// Injects faults.
pub struct Injector {
    /// The database.
    pub cluster: Arc<Cluster>,
    /// The replicas, and who speaks to them.
    pub office: Arc<Office>,
    /// The networks.
    pub proxies: Vec<Proxy>,
    /// What may go wrong.
    pub kinds: BTreeSet<Kind>,
    /// Its decisions.
    pub random: StdRng,
    /// How often what went wrong.
    pub counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Injector {
    /// Injects faults until told to stop, and leaves everything as good as it can.
    pub async fn run(mut self, stop: Arc<AtomicBool>) -> Self {
        // By rounds, as cards are dealt: so each kind comes even in a short run.
        let mut round: Vec<Kind> = vec![];
        while !stop.load(Ordering::Relaxed) && !self.kinds.is_empty() {
            if round.is_empty() {
                round = self.round();
            }
            if let Some(kind) = round.pop() {
                self.inject(kind).await;
            }
            let pause = Duration::from_millis(self.random.random_range(200..1800));
            tokio::time::sleep(pause).await;
        }
        self.heal();
        let made = self.proxies.iter().map(|proxy| proxy.controls.cuts_made.load(Ordering::Relaxed)).sum();
        self.counts.lock().unwrap().insert("(cuts that met a message)".to_owned(), made);
        let full = self.proxies.iter().map(|proxy| proxy.controls.full_played.load(Ordering::Relaxed)).sum();
        self.counts.lock().unwrap().insert("(times that a full disk was played)".to_owned(), full);
        self
    }

    fn round(&mut self) -> Vec<Kind> {
        let chosen = Kind::ALL.iter().filter(|(kind, ..)| self.kinds.contains(kind));
        let mut round: Vec<Kind> = chosen.flat_map(|(kind, _, times)| vec![*kind; *times]).collect();
        round.shuffle(&mut self.random);
        round
    }

    /// Ends all faults that last.
    pub fn heal(&self) {
        self.proxies.iter().for_each(|proxy| proxy.controls.heal());
        self.cluster.volume.empty();
        for replica in &self.office.replicas {
            let _ = replica.set_clock(0);
        }
    }

    fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    fn seconds(&mut self, from: f64, to: f64) -> Duration {
        Duration::from_secs_f64(self.random.random_range(from..to))
    }

    async fn inject(&mut self, kind: Kind) {
        match kind {
            Kind::KillService => self.kill_service(),
            Kind::KillBackend => self.kill_backend().await,
            Kind::KillServer => self.kill_server(),
            Kind::Proxy => self.disturb_network(),
            Kind::LongTransaction => self.open_transaction(),
            Kind::Clock => self.step_clock(),
            Kind::Disk => self.fill_disk().await,
            Kind::SlowConsumer => self.consume_slowly(),
        }
    }

    fn kill_service(&mut self) {
        let pause = self.seconds(0.0, 2.0);
        if let Some(replica) = self.office.replicas.choose(&mut self.random) {
            replica.kill(pause);
            self.count("kill-service: kill -9 of a service");
        }
    }

    async fn kill_backend(&mut self) {
        // Killing one process makes the server end them all; ending a session ends it alone.
        let hard = self.random.random_bool(0.35);
        let Ok(mut connection) = self.cluster.connect().await else { return };
        let own = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tenancy%' ORDER BY pid";
        let any = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tenancy%'
                   OR backend_type IN ('walwriter', 'checkpointer', 'background writer') ORDER BY pid";
        let writers = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tenancy writer' ORDER BY pid";
        let statement = *[own, any, writers, writers].choose(&mut self.random).unwrap_or(&own);
        let Ok(rows) = sqlx::query(statement).fetch_all(&mut connection).await else { return };
        let pids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        let Some(pid) = pids.choose(&mut self.random).copied() else { return };
        if hard {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            self.count("kill-backend: kill -9 of a process of PostgreSQL");
        } else {
            let _ = sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut connection).await;
            self.count("kill-backend: end of a session");
        }
    }

    fn kill_server(&mut self) {
        let ending = if self.random.random_bool(0.7) { Ending::All } else { Ending::First };
        let pause = self.seconds(0.0, 1.5);
        self.cluster.kill(ending, pause);
        self.count(match ending {
            Ending::All => "kill-server: kill -9 of all of PostgreSQL",
            Ending::First => "kill-server: kill -9 of PostgreSQL's first process",
        });
    }

    fn disturb_network(&mut self) {
        let draw = self.random.random_range(0..14);
        let span = self.seconds(0.2, 4.0);
        let Some(proxy) = self.proxies.choose(&mut self.random) else { return };
        let controls = proxy.controls.clone();
        let what = match draw {
            0 => {
                controls.delay(self.random.random_range(1..40));
                tokio::spawn(async move {
                    tokio::time::sleep(span).await;
                    controls.delay(0);
                });
                "delay"
            }
            1 => {
                controls.stall(span);
                "stall"
            }
            2 => {
                controls.refuse(span.min(Duration::from_secs(2)));
                controls.drop_all();
                "all connections dropped, and none taken for a while"
            }
            3 => {
                controls.drop_all();
                "all connections dropped"
            }
            4..6 => {
                controls.cut(Cut::Within(Direction::ToServer));
                "cut within a message to the server"
            }
            6..8 => {
                controls.cut(Cut::Within(Direction::ToClient));
                "cut within a message from the server"
            }
            8 => {
                controls.cut(Cut::BeforeCommit);
                "cut within a COMMIT"
            }
            _ => {
                controls.cut(Cut::AfterCommit);
                "cut between a COMMIT and its answer"
            }
        };
        self.count(format!("proxy: {what}"));
    }

    fn open_transaction(&mut self) {
        let (statement, what, longest) = *[
            ("SELECT count(*) FROM events", "a snapshot held", 6.0),
            ("SELECT pg_current_xact_id()", "a transaction id held", 6.0),
            ("LOCK TABLE events IN SHARE MODE", "the events locked against writing", 1.5),
            ("LOCK TABLE tallies IN EXCLUSIVE MODE", "the tallies locked", 1.5),
            ("SELECT * FROM checkpoints FOR UPDATE", "the checkpoints locked", 3.0),
        ]
        .choose(&mut self.random)
        .unwrap_or(&("SELECT 1", "", 1.0));
        let span = self.seconds(0.2, longest);
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            let Ok(mut connection) = cluster.connect().await else { return };
            for statement in ["BEGIN ISOLATION LEVEL REPEATABLE READ", "SET LOCAL lock_timeout = '5s'", statement] {
                let _ = sqlx::query(statement).execute(&mut connection).await;
            }
            tokio::time::sleep(span).await;
            let _ = connection.close().await;
        });
        self.count(format!("long-transaction: {what}"));
    }

    fn step_clock(&mut self) {
        let seconds = match self.random.random_range(0..10) {
            // So far that invitations run out, or that what was deleted is purged.
            0 => 2 * 3600,
            1 => 26 * 3600,
            2..6 => self.random.random_range(1..300),
            _ => -self.random.random_range(1..300),
        };
        let span = self.seconds(0.5, 8.0);
        let Some(replica) = self.office.replicas.choose(&mut self.random).cloned() else { return };
        let _ = replica.set_clock(seconds);
        tokio::spawn(async move {
            tokio::time::sleep(span).await;
            let _ = replica.set_clock(0);
        });
        self.count(format!("clock: {}, and back", if seconds < 0 { "back" } else { "forth" }));
    }

    async fn fill_disk(&mut self) {
        let span = self.seconds(1.0, 4.0);
        if !self.cluster.volume.can_be_filled() {
            self.proxies.iter().for_each(|proxy| proxy.controls.play_full(span / 2));
            tokio::time::sleep(span / 2).await;
            return self.count("disk: full, as played by the proxies");
        }
        let before = self.full_errors();
        if let Err(error) = self.cluster.volume.fill() {
            eprintln!("faults: the disk cannot be filled: {error}");
        }
        let until = Instant::now() + span;
        // Once it was felt it may end soon: nothing more happens while everything is refused.
        while Instant::now() < until && self.full_errors() < before + 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.cluster.volume.empty();
        self.count(if self.full_errors() > before { "disk: full, and felt" } else { "disk: full, and not felt" });
    }

    fn full_errors(&self) -> usize {
        let log = std::fs::read(self.cluster.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).matches(" 53100 ").count()
    }

    fn consume_slowly(&mut self) {
        let span = self.seconds(1.0, 6.0);
        if self.random.random_bool(0.5) {
            let replica = self.random.random_range(0..self.office.replicas.len());
            tokio::spawn(readers::read_slowly(self.office.clone(), replica, span));
            self.count("slow-consumer: an answer taken slowly");
        } else {
            tokio::spawn(readers::hold_cursor(self.cluster.clone(), span));
            self.count("slow-consumer: a cursor held");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn kinds_are_known_by_their_names() {
        for (kind, name, _) in Kind::ALL {
            assert_eq!(name.parse(), Ok(kind));
        }
        assert!("flood".parse::<Kind>().unwrap_err().contains("kill-service"));
    }
}
