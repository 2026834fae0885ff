//! The private PostgreSQL: the service's own database where no `DATABASE_URL` is given.
//!
//! One command has to bring up the service on a machine where nothing is
//! configured, and any process may be killed at any moment. So nothing here is
//! remembered between runs except what the system keeps true by itself:
//!
//! * The server is a process of its own, not part of ours. It survives us, and
//!   whoever comes next adopts it. What it is doing stands in its `postmaster.pid`.
//! * File locks, which die with their holders, tell which processes use it (`locks`).
//!   The last one to leave stops the server.
//! * What is made, is made under another name and renamed (`cluster`).
//!
//! In the data directory lie `postgres/` (the cluster), `postgres.log`, the lock
//! files, for an ordinary user `socket/` and, where the machine has no PostgreSQL,
//! `postgresql/` (its programs, which were fetched; `fetch`). There is no TCP. Everybody
//! who can enter the socket's directory is let in, and that is the account of the
//! server and root (`socket`, `account`).

mod account;
mod cluster;
mod error;
mod fetch;
mod find;
mod locks;
mod postmaster;
mod server;
mod socket;
mod tuning;
mod unpack;
mod ways_on;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

pub use error::{Error, NotFetched};

use cluster::{NAME, Site};
use locks::{Held, Users};
use server::Server;

const RESTART_DELAY_MIN: Duration = Duration::from_millis(100);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);
/// A server that lived so long was well: the next restart does not wait.
const WELL_TIME_MIN: Duration = Duration::from_secs(30);
/// How long a server that was begun takes to say where it is.
const BEGUN_TIME_MAX: Duration = Duration::from_secs(3);
const LOG_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// What the private server needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the service keeps what is its own; made if it is missing. May be relative.
    pub data_dir: PathBuf,
    /// Where `postgres` and `initdb` are; searched in the usual places if not given.
    pub bin_dir: Option<PathBuf>,
    /// Whether to search this machine for them; if not, only what was fetched counts.
    pub installed: bool,
    /// Where they are fetched from if they are not found: [`crate::config::POSTGRES_RELEASES`] or a mirror of it, without a slash at the
    /// end. Not at all if not given.
    pub fetch_from: Option<String>,
}

impl Settings {
    /// What is installed on this machine and nothing else.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), bin_dir: None, installed: true, fetch_from: None }
    }
}

/// What the server is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The service: one at a time on a data directory. Starts the server again when it dies.
    Serve,
    /// A command, beside the service or without it.
    Command,
}

/// Our use of the private server. End it with [`Embedded::close`]; when it is
/// only dropped, the server stays, and the next one to open it adopts it.
#[derive(Debug)]
pub struct Embedded {
    site: Site,
    socket_dir: PathBuf,
    version: String,
    users: Users,
    server: Keeper,
    /// Held until the server is stopped.
    _serve: Option<Held>,
}

/// The holder of the server's process.
#[derive(Debug)]
enum Keeper {
    /// Nobody looks after it: a command is short.
    Unwatched(Box<Server>),
    /// A task that ends when the sender is dropped.
    Watched { task: JoinHandle<Server>, stop: watch::Sender<()> },
}

impl Embedded {
    /// Adopts the server that runs on the data directory, or starts one.
    ///
    /// Takes at most about two minutes (a new database, a recovery), a fraction of a
    /// second as a rule; where PostgreSQL has to be fetched, as long as that takes, at most
    /// half an hour. Has to be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Everything in [`Error`]; `AlreadyServing` only for [`Purpose::Serve`].
    pub async fn open(settings: &Settings, purpose: Purpose) -> Result<Self, Error> {
        let site = Site::prepare(settings)?;
        let serve = match purpose {
            Purpose::Serve => Some(locks::serve(&site.data_dir).await?),
            Purpose::Command => None,
        };
        let users = Users::open(&site.data_dir)?;
        let server = match enter(&site, &users).await {
            // Others wait for a start as long as a start may take, and fetching takes longer: so it comes between.
            Err(missing) => {
                fetch_missing(&site, missing).await?;
                enter(&site, &users).await?
            }
            Ok(server) => server,
        };
        unpack::clean_up(&site);
        let (socket_dir, version) = (server.socket_dir.clone(), server.version.clone());
        let server = match purpose {
            Purpose::Command => Keeper::Unwatched(Box::new(server)),
            Purpose::Serve => {
                let (stop, stopped) = watch::channel(());
                Keeper::Watched { task: tokio::spawn(watch_over(site.clone(), server, stopped)), stop }
            }
        };
        Ok(Self { site, socket_dir, version, users, server, _serve: serve })
    }

    /// How to connect to the service's database. Stays right when the server is started again.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        server::options(&self.socket_dir, NAME)
    }

    /// For people: "PostgreSQL 15.18, data in /var/lib/tenancy/postgres".
    #[must_use]
    pub fn describe(&self) -> String {
        format!("PostgreSQL {}, data in {}", self.version, self.site.cluster.display())
    }

    /// Ends our use, and stops the server if nobody else uses it.
    ///
    /// Close the connections first: those that are left are cut.
    ///
    /// # Errors
    ///
    /// `Busy` and `NotStopped`, each after its time limit, and `Io`.
    pub async fn close(self) -> Result<(), Error> {
        let mut server = match self.server {
            Keeper::Unwatched(server) => Some(*server),
            Keeper::Watched { task, stop } => {
                drop(stop);
                // A task that panicked has no server to give, which is no reason not to stop it.
                task.await.ok()
            }
        };
        let start = locks::start(&self.site.data_dir).await?;
        if self.users.leave(&start)? {
            server::stop(&self.site).await?;
            if let Some(server) = &mut server {
                server.ended(&self.site).await;
            }
            // It is empty now; the next start makes it again.
            let _ = std::fs::remove_dir(&self.socket_dir);
        }
        Ok(())
    }
}

/// The directory of the programs that would run on the data directory. Fetches them if need be, and starts nothing.
///
/// # Errors
///
/// As [`Embedded::open`].
pub async fn programs(settings: &Settings) -> Result<PathBuf, Error> {
    let site = Site::prepare(settings)?;
    let found = match find::find(&site).await {
        Err(missing) => {
            fetch_missing(&site, missing).await?;
            find::find(&site).await?
        }
        Ok(found) => found,
    };
    Ok(found.dir().to_path_buf())
}

/// Fetches the programs, if that is what is missing.
async fn fetch_missing(site: &Site, missing: Error) -> Result<(), Error> {
    if !missing.lacks_programs() || site.bin_dir.is_some() {
        return Err(missing);
    }
    fetch::fetch(site, missing.made_by()).await.map_err(|why| missing.although_fetching(why))
}

/// Stops the server on the data directory if nobody uses it. For a start that was given up on the way.
///
/// # Errors
///
/// As [`Embedded::close`].
pub async fn stop_unused(settings: &Settings) -> Result<(), Error> {
    let site = Site::prepare(settings)?;
    let users = Users::open(&site.data_dir)?;
    let start = locks::start(&site.data_dir).await?;
    if !users.none(&start)? {
        return Ok(());
    }
    // One that was begun a moment ago has its lock, and not yet the file by which it is found.
    let since = Instant::now();
    while locks::server(&site.data_dir)?.is_none() && !server::is_running(&site) && since.elapsed() < BEGUN_TIME_MAX {
        sleep(RESTART_DELAY_MIN / 10).await;
    }
    server::stop(&site).await
}

/// Takes our place among the users of the server, and sees that it runs.
async fn enter(site: &Site, users: &Users) -> Result<Server, Error> {
    let start = locks::start(&site.data_dir).await?;
    let alone = users.none(&start)?;
    let server = Server::run(site, alone, None).await?;
    users.enter(&start)?;
    Ok(server)
}

/// Starts the server again whenever it ends, until told to stop; then gives it back.
async fn watch_over(site: Site, mut server: Server, mut stop: watch::Receiver<()>) -> Server {
    let mut log_check = interval(LOG_CHECK_INTERVAL);
    let mut delay = RESTART_DELAY_MIN;
    let mut since = Instant::now();
    loop {
        tokio::select! {
            _ = stop.changed() => return server,
            _ = log_check.tick() => server::bound_log(&site.log),
            () = server.ended(&site) => {
                tracing::error!(log = %site.log.display(), "PostgreSQL ended unexpectedly: starting it again");
                if since.elapsed() > WELL_TIME_MIN {
                    delay = RESTART_DELAY_MIN;
                }
                tokio::select! {
                    _ = stop.changed() => return server,
                    () = sleep(delay) => delay = (delay * 2).min(RESTART_DELAY_MAX),
                }
                // Not interrupted: nobody would know of a server that is half started.
                match start_again(&site, &server.socket_dir).await {
                    Ok(started) => server = started,
                    Err(error) => tracing::error!(%error, "PostgreSQL does not start; trying again"),
                }
                since = Instant::now();
            }
        }
    }
}

async fn start_again(site: &Site, socket_dir: &Path) -> Result<Server, Error> {
    let _start = locks::start(&site.data_dir).await?;
    let server = Server::run(site, false, Some(socket_dir)).await?;
    tracing::info!(version = %server.version, "PostgreSQL runs again");
    Ok(server)
}
