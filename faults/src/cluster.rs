//! The PostgreSQL of a run: started here, killed here, and started again, with nothing set that would spare it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use crate::account::Account;
use crate::volume::Volume;

/// The name of the database and of its only user.
pub const NAME: &str = "tenancy";

/// How the server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGKILL to the first process only: the others find out by themselves.
    First,
    /// SIGKILL to all of them at once.
    All,
}

/// A PostgreSQL server.
pub struct Cluster {
    programs: PathBuf,
    account: Account,
    /// Where its data lies.
    pub volume: Volume,
    sockets: PathBuf,
    log: PathBuf,
    /// The port on 127.0.0.1, and in the name of the socket.
    pub port: u16,
    state: Mutex<State>,
}

struct State {
    child: Option<Child>,
    /// Not before this moment is it started again.
    not_before: Instant,
    wanted: bool,
}

impl Cluster {
    /// Makes a cluster below `directory`.
    pub fn make(directory: &Path, volume: Volume, port: u16) -> Result<Self, String> {
        let account = Account::find()?;
        let sockets = directory.join("s");
        std::fs::create_dir_all(&sockets).map_err(|error| error.to_string())?;
        account.own(&sockets)?;
        account.own(volume.path())?;
        let cluster = Self {
            programs: programs()?,
            account,
            volume,
            sockets,
            log: directory.join("postgres.log"),
            port,
            state: Mutex::new(State { child: None, not_before: Instant::now(), wanted: true }),
        };
        let mut initdb = Command::new(cluster.programs.join("initdb"));
        initdb.args(["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--username", NAME, "-D"]);
        initdb.arg(cluster.data()).current_dir("/").stdout(Stdio::null());
        account.apply(&mut initdb);
        let output = initdb.output().map_err(|error| format!("initdb cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(cluster)
    }

    fn data(&self) -> PathBuf {
        self.volume.path().join("data")
    }

    /// Its log; each line says the program that asked, and the SQLSTATE.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn start(&self) -> Result<Child, String> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| format!("cannot write {}: {error}", self.log.display()))?;
        let mut server = Command::new(self.programs.join("postgres"));
        server.arg("-D").arg(self.data()).arg("-k").arg(&self.sockets).arg("-p").arg(self.port.to_string());
        let settings = [
            "listen_addresses=127.0.0.1",
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
            "max_connections=300",
            "shared_buffers=64MB",
            "min_wal_size=32MB",
            "max_wal_size=96MB",
            "checkpoint_timeout=30s",
            "log_line_prefix=%m [%p] (%a) %e ",
            "log_checkpoints=off",
            "restart_after_crash=on",
        ];
        for setting in settings {
            server.arg("-c").arg(setting);
        }
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/").process_group(0);
        self.account.apply(&mut server);
        server.spawn().map_err(|error| format!("postgres cannot be run: {error}"))
    }

    /// Starts the server, and again whenever it is gone, until it is stopped.
    pub async fn supervise(&self) {
        loop {
            {
                let mut state = self.state.lock().unwrap();
                if !state.wanted {
                    return;
                }
                let gone = state.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
                if gone && Instant::now() >= state.not_before {
                    state.child = self.start().ok();
                    state.not_before = Instant::now() + Duration::from_millis(300);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills the server; it is started again after `pause`.
    pub fn kill(&self, ending: Ending, pause: Duration) {
        let mut state = self.state.lock().unwrap();
        state.not_before = Instant::now() + pause;
        let Some(child) = &mut state.child else { return };
        let first = Pid::from_raw(child.id().cast_signed());
        let others = if ending == Ending::All { children_of(first) } else { vec![] };
        let _ = kill(first, Signal::SIGKILL);
        for other in others {
            let _ = kill(other, Signal::SIGKILL);
        }
        let _ = child.wait();
    }

    /// Stops the server for good.
    pub fn stop(&self) {
        let mut state = self.state.lock().unwrap();
        state.wanted = false;
        if let Some(mut child) = state.child.take() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT);
            let _ = child.wait();
        }
    }

    /// How to connect on the server's own socket, beside all proxies.
    pub fn options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.sockets).port(self.port);
        options.username(NAME).database(NAME).application_name("faults").statement_cache_capacity(20)
    }

    /// The address for the checker, to be typed.
    pub fn url(&self) -> String {
        format!("postgres://{NAME}@localhost:{}/{NAME}?host={}", self.port, self.sockets.display())
    }

    /// A connection beside all proxies.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connected = tokio::time::timeout(Duration::from_secs(3), self.options().connect()).await;
        connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// A pool beside all proxies.
    pub async fn pool(&self) -> Result<PgPool, sqlx::Error> {
        PgPoolOptions::new().max_connections(4).connect_with(self.options()).await
    }

    /// Waits until it answers, and makes the database if it is not there.
    pub async fn ready(&self, wait: Duration) -> Result<(), String> {
        let deadline = Instant::now() + wait;
        loop {
            match self.options().database("postgres").connect().await {
                Ok(mut connection) => {
                    let _ = sqlx::query(&format!("CREATE DATABASE {NAME}")).execute(&mut connection).await;
                    let _ = connection.close().await;
                    if self.connect().await.is_ok() {
                        return Ok(());
                    }
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(format!("PostgreSQL does not answer: {error}; its log is {}", self.log.display()));
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where the programs of PostgreSQL are: the newest version of the system's, or those in the path.
fn programs() -> Result<PathBuf, String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, path)| path.join("initdb").exists())
        .collect();
    found.sort();
    let in_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|folder| folder.join("initdb").exists())
    };
    found
        .pop()
        .map(|(_, path)| path)
        .or_else(in_path)
        .ok_or_else(|| "there is no PostgreSQL here: install the package postgresql".to_owned())
}

/// The processes that `parent` has started.
fn children_of(parent: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parent_of = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(parent.as_raw()))
        .map(Pid::from_raw)
        .collect()
}
