//! What a run is told, and what its figures share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use tenancy::database::embedded::Purpose;
use tenancy::service::Core;

use crate::cpu::{Cost, Spent, postmaster};
use crate::figures::commands;
use crate::logs::Log;
use crate::pgbench::{Gave, Pgbench, Run};
use crate::process::Service;
use crate::report::{Figure, Goal};
use crate::server::Server;
use crate::sql::Rows;
use crate::stats::median;
use crate::world::{Size, World};

/// Measures tenancy beside references of the same run, on a PostgreSQL of its own.
#[derive(Debug, Clone, Parser)]
#[command(name = "bench", version)]
pub struct Options {
    /// A first look in about a minute: small, and once.
    #[arg(long)]
    pub quick: bool,
    /// The largest sizes: a log of 10,000,000 events.
    #[arg(long, conflicts_with = "quick")]
    pub full: bool,
    /// Only these groups.
    #[arg(long, value_delimiter = ',', value_parser = GROUPS)]
    pub only: Vec<String>,
    /// How often each figure is measured.
    #[arg(long)]
    rounds: Option<usize>,
    /// Where the JSON goes; bench.json beside the program's folder if not given.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where PostgreSQL's files go: on a disk.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// The service's program; built if not given.
    #[arg(long, value_name = "FILE")]
    pub service: Option<PathBuf>,
}

/// All groups, in the order in which they are measured: read models of the long log are made before its pages are
/// read, so that nothing else goes on then.
pub const GROUPS: [&str; 11] =
    ["commands", "idle", "lag", "requests", "dashboard", "process", "webhooks", "rebuild", "audit", "scope", "growth"];

/// The options of a run with what follows from them.
pub struct Settings {
    /// As given.
    pub given: Options,
    /// How often each figure is measured.
    pub rounds: usize,
}

impl Options {
    /// With what follows from them.
    pub fn settle(self) -> Settings {
        let rounds = self.rounds.unwrap_or(if self.quick { 1 } else { 3 }).max(1);
        Settings { given: self, rounds }
    }
}

impl Settings {
    /// For how long each side is measured in each round.
    pub fn time(&self) -> Duration {
        Duration::from_secs(if self.given.quick { 2 } else { 4 })
    }

    /// Whether a group is wanted.
    pub fn wants(&self, group: &str) -> bool {
        self.given.only.is_empty() || self.given.only.iter().any(|only| only == group)
    }

    /// How many events the large log has.
    pub fn large_log(&self) -> usize {
        match (self.given.quick, self.given.full) {
            (true, _) => 100_000,
            (_, true) => 10_000_000,
            _ => 1_000_000,
        }
    }

    /// How many members and events the large organization has.
    pub fn large_organization(&self) -> usize {
        if self.given.quick { 10_000 } else { 100_000 }
    }
}

/// What figures share.
pub struct Context {
    /// What was asked for.
    pub options: Settings,
    /// The server of both sides.
    pub server: Arc<Server>,
    /// The references' generator.
    pub pgbench: Result<Pgbench, String>,
    /// The service's program.
    pub program: PathBuf,
    /// Milliseconds of an audit page of one organization over HTTP, once it was measured.
    pub audit_page: Option<f64>,
    begin: Instant,
    world: Option<Arc<World>>,
    rows: Option<Rows>,
    logs: Option<Arc<(Log, Log)>>,
    single_costs: Mutex<Vec<Cost>>,
}

impl Context {
    /// With a server that runs.
    pub fn new(options: Settings, server: Arc<Server>, program: PathBuf) -> Self {
        let pgbench = Pgbench::find(&server);
        Self {
            options,
            server,
            pgbench,
            program,
            audit_page: None,
            begin: Instant::now(),
            world: None,
            rows: None,
            logs: None,
            single_costs: Mutex::default(),
        }
    }

    /// A line about what is done.
    pub fn say(&self, text: &str) {
        eprintln!("[{:>4.0} s] {text}", self.begin.elapsed().as_secs_f64());
    }

    /// The tenants.
    pub async fn world(&mut self) -> Arc<World> {
        if let Some(world) = &self.world {
            return world.clone();
        }
        let size = if self.options.given.quick { Size::QUICK } else { Size::FULL };
        self.say(&format!("making {} organizations by commands", size.organizations));
        let world = Arc::new(World::new(&self.server, size).await);
        self.world = Some(world.clone());
        world
    }

    /// The small log and the large one.
    pub async fn logs(&mut self) -> Arc<(Log, Log)> {
        if let Some(logs) = &self.logs {
            return logs.clone();
        }
        let (events, members) = (self.options.large_log(), self.options.large_organization());
        self.say(&format!("writing logs of 10000 and of {events} events"));
        let small = Log::write(&self.server, "bench_small", 10_000, 5_000).await;
        let large = Log::write(&self.server, "bench_large", events, members).await;
        self.say(&format!("{} events were written in {:.0} s", large.events, large.seconds));
        let logs = Arc::new((small, large));
        self.logs = Some(logs.clone());
        logs
    }

    /// The rows of the references in SQL.
    pub async fn prepare_rows(&mut self) {
        if self.rows.is_some() {
            return;
        }
        let world = self.world().await;
        let core = Core::open(&world.database.config(), Purpose::Command).await.expect("the service opens");
        // So that there is an event of each kind to be alike.
        commands::rate(&core.commands, &world, commands::Mix::Both, Duration::from_millis(100)).await;
        core.close().await.expect("the service closes");
        let pool = world.database.pool(1).await;
        self.rows = Some(Rows::new(&self.server, &pool, world.tenants.len()).await);
    }

    /// One round of a reference in SQL, by 128 clients.
    pub async fn rows(&self, rates: &mut Result<Vec<f64>, String>, scripts: impl Fn(&Rows) -> &Vec<String>) {
        let (Ok(known), Some(rows)) = (&mut *rates, &self.rows) else { return };
        let run = Run {
            database: &rows.database,
            scripts: scripts(rows),
            clients: 128,
            seconds: self.options.time().as_secs_f64(),
            define: &rows.define(),
        };
        let single = std::ptr::eq(run.scripts.as_ptr(), rows.single.as_ptr());
        let before = self.spent(None);
        match self.gave(run).await {
            Ok(gave) => {
                known.push(gave.rate);
                if single {
                    let cost = before.each(self.spent(None), gave.all);
                    self.single_costs.lock().expect("nobody panics here").push(cost);
                }
            }
            Err(why) => *rates = Err(why),
        }
    }

    /// One round of the single-row INSERT by one client: milliseconds of each.
    pub async fn single_latencies(&self, seconds: f64) -> Result<Vec<f64>, String> {
        let (pgbench, rows) = (self.pgbench.as_ref().map_err(Clone::clone)?, self.rows.as_ref().ok_or("no rows")?);
        let (database, scripts, define) = (&rows.database, &rows.single, rows.define());
        pgbench.latencies(Run { database, scripts, clients: 1, seconds, define: &define }).await
    }

    /// Transactions a second of a run.
    pub async fn bench(&self, run: Run<'_>) -> Result<f64, String> {
        Ok(self.gave(run).await?.rate)
    }

    async fn gave(&self, run: Run<'_>) -> Result<Gave, String> {
        self.pgbench.as_ref().map_err(Clone::clone)?.rate(run).await
    }

    /// CPU time until now, a service's process included.
    pub fn spent(&self, service: Option<&Service>) -> Spent {
        Spent::now(postmaster(&self.server.directory().join("server")), service.and_then(Service::pid))
    }

    /// A line on CPU time a command, beside that of a single-row INSERT.
    pub fn cost(&self, group: &'static str, costs: &[Cost]) -> Figure {
        let single = self.single_costs.lock().expect("nobody panics here").clone();
        let whole = |costs: &[Cost]| -> Vec<f64> { costs.iter().map(|cost| cost.server + cost.client).collect() };
        let middle = |costs: &[Cost], part: fn(&Cost) -> f64| median(&costs.iter().map(part).collect::<Vec<_>>());
        let parts = |costs: &[Cost]| {
            let (server, client) = (middle(costs, |cost| cost.server), middle(costs, |cost| cost.client));
            format!("{server:.0} µs in PostgreSQL and {client:.0} µs outside")
        };
        let note = format!("ours {}; the INSERT {}", parts(costs), parts(&single));
        let note = if single.is_empty() { parts(costs) } else { note };
        let last = single[single.len().saturating_sub(costs.len())..].to_vec();
        Figure::alone(group, "… CPU time of each, generator included", "µs", whole(costs), Goal::Shown)
            .beside("single-row INSERT", &Ok(whole(&last)))
            .noted(note)
    }
}
