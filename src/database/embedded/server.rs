//! One running server: adopted or started, and stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::libc::O_NOFOLLOW;
use nix::sys::signal::Signal;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection, Error as SqlError};
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{NAME, Site, complaint};
use super::error::{Error, io};
use super::postmaster::{self, Postmaster};
use super::{find, locks, socket, tuning};

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How often a server that is not our child is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const START_TIME_MAX: Duration = Duration::from_secs(60);
const START_SILENCE_MAX: Duration = Duration::from_secs(5);
/// A server that says it is ready and cannot be reached for so long has lost its socket.
const UNREACHABLE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long processes of a killed server may need to finish their statements.
const UNSEEN_TIME_MAX: Duration = Duration::from_secs(15);
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
const STOP_NOW_TIME_MAX: Duration = Duration::from_secs(10);
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `invalid_catalog_name`.
const NO_DATABASE: &str = "3D000";
/// It starts or stops (`cannot_connect_now`), has too many connections, or the
/// database is still in the making.
const NOT_NOW: [&str; 3] = ["57P03", "53300", NO_DATABASE];
/// The server of a process that was killed may still be at the same statement:
/// `duplicate_database`, `unique_violation`, `object_in_use` (the template).
const CREATED_BY_ANOTHER: [&str; 3] = ["42P04", "23505", "55006"];

#[derive(Debug)]
pub(super) struct Server {
    pub socket_dir: PathBuf,
    /// Like "15.18".
    pub version: String,
    postmaster: Postmaster,
    /// The process, if it is our child.
    child: Option<Child>,
}

impl Server {
    /// The server on this cluster: the one that runs, or a new one. Wants
    /// `start.lock` held. `alone` says that nobody else uses it; `socket_dir` is
    /// given where clients know it already.
    pub async fn run(site: &Site, alone: bool, socket_dir: Option<&Path>) -> Result<Self, Error> {
        let mut patience = Patience::new();
        loop {
            if let Some(server) = Self::adopt(site, alone).await? {
                return Ok(server);
            }
            if let Some(lock) = locks::server(&site.data_dir)? {
                return Self::start(site, lock, socket_dir).await;
            }
            // It has just been started by somebody who was killed, or it was killed
            // and some of its processes have not noticed; or it is not ours to see.
            if patience.since.elapsed() > UNSEEN_TIME_MAX {
                return Err(elsewhere(site));
            }
            patience.wait(site, POLL_INTERVAL).await?;
        }
    }

    /// The server that runs already, if we see one. Waits while it starts or stops.
    async fn adopt(site: &Site, alone: bool) -> Result<Option<Self>, Error> {
        let mut patience = Patience::new();
        let mut unreachable_since = None;
        while let Some(postmaster) = running(site) {
            if postmaster.ready {
                if let Some((socket_dir, version)) = reach(&postmaster).await? {
                    tracing::debug!(pid = postmaster.pid, "using the PostgreSQL that runs already");
                    return Ok(Some(Self { socket_dir, version, postmaster, child: None }));
                }
                if unreachable_since.get_or_insert_with(Instant::now).elapsed() > UNREACHABLE_TIME_MAX {
                    // Others may reach it: the socket of a systemd unit can be private to it.
                    if !alone {
                        return Err(elsewhere(site));
                    }
                    tracing::warn!("the running PostgreSQL cannot be reached: starting it anew");
                    stop(site).await?;
                    return Ok(None);
                }
            }
            patience.wait(site, POLL_INTERVAL).await?;
        }
        Ok(None)
    }

    /// Starts a server, and makes cluster and database first where they are missing.
    async fn start(site: &Site, lock: File, socket_dir: Option<&Path>) -> Result<Self, Error> {
        let programs = find::find(site).await?;
        site.init(&programs).await?;
        let killed = remove_stale(site)?;
        let known = socket_dir.map(Path::to_path_buf);
        let socket_dir = socket::choose(site, known.or_else(|| killed?.socket_dir))?;
        let mut command = site.account.command(programs.path("postgres"));
        command.arg("-D").arg(&site.cluster);
        for (name, value) in tuning::settings(&socket_dir) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let (log, log_start) = open_log(site)?;
        let output = log.try_clone().map_err(io("share the log file"))?;
        // All its processes inherit the lock, so it is free when the last of them is gone.
        command.stdin(lock).stdout(output).stderr(log);
        let child = command.spawn().map_err(io("run postgres"))?;
        Self::ready(site, child, log_start).await
    }

    /// Returns when the server has ended.
    pub async fn ended(&mut self, site: &Site) {
        if let Some(child) = &mut self.child {
            // An error would mean that it is no child of ours any more.
            let _ = child.wait().await;
            return;
        }
        while self.postmaster.lives(&site.cluster) {
            sleep(WATCH_INTERVAL).await;
        }
    }

    /// Waits until the server takes connections.
    async fn ready(site: &Site, mut child: Child, log_start: u64) -> Result<Self, Error> {
        let mut patience = Patience::new();
        loop {
            if let Some(status) = child.try_wait().map_err(io("watch postgres"))? {
                return Err(ended_early(site, status, log_start));
            }
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
            let ours = Postmaster::read(&site.cluster).filter(|found| found.ready && Some(found.pid) == pid);
            if let Some(postmaster) = ours
                && let Some((socket_dir, version)) = reach(&postmaster).await?
            {
                return Ok(Self { socket_dir, version, postmaster, child: Some(child) });
            }
            // An error leaves the server running, for the next one to adopt.
            patience.wait(site, POLL_INTERVAL).await?;
        }
    }
}

/// Connects, and sees that the service's database is there: gives the socket's
/// directory and the version; nothing if the server cannot serve us now.
async fn reach(postmaster: &Postmaster) -> Result<Option<(PathBuf, String)>, Error> {
    let Some(socket_dir) = postmaster.socket_dir.clone() else {
        return Ok(None);
    };
    let connection = match connect(&socket_dir, NAME).await {
        Err(error) if has_code(&error, &[NO_DATABASE]) => {
            create_database(&socket_dir).await?;
            connect(&socket_dir, NAME).await
        }
        result => result,
    };
    match connection {
        Ok(connection) => {
            let version = version_of(&connection);
            // The answer does not matter: we have what we wanted.
            let _ = connection.close().await;
            Ok(Some((socket_dir, version)))
        }
        Err(SqlError::Io(_)) => Ok(None),
        Err(error) if has_code(&error, &NOT_NOW) => Ok(None),
        Err(source) => Err(Error::Sql { doing: "let us in", source }),
    }
}

/// Whether a server runs on this cluster.
pub(super) fn is_running(site: &Site) -> bool {
    running(site).is_some()
}

/// Stops the server on this cluster, if one runs: at first so that it finishes
/// its work (mode "fast"), in the end so that the next start has to recover.
pub(super) async fn stop(site: &Site) -> Result<(), Error> {
    for (signal, time_max) in [(Signal::SIGINT, STOP_TIME_MAX), (Signal::SIGQUIT, STOP_NOW_TIME_MAX)] {
        let Some(postmaster) = running(site) else {
            return Ok(());
        };
        postmaster
            .signal(signal)
            .map_err(|errno| io(format!("stop PostgreSQL (pid {})", postmaster.pid))(errno.into()))?;
        let since = Instant::now();
        while running(site).is_some_and(|found| found.pid == postmaster.pid) {
            if since.elapsed() > time_max {
                tracing::warn!(pid = postmaster.pid, %signal, "PostgreSQL takes long to stop");
                break;
            }
            sleep(POLL_INTERVAL).await;
        }
    }
    match running(site) {
        None => Ok(()),
        Some(postmaster) => Err(Error::NotStopped { pid: postmaster.pid, log: site.log.clone() }),
    }
}

/// Keeps the log within its limit, with the older part in a second file. The
/// server appends, so it goes on at the beginning of the emptied file.
pub(super) fn bound_log(log: &Path) {
    if !fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        return;
    }
    let emptied = fs::copy(log, log.with_extension("log.old"))
        .and_then(|_| OpenOptions::new().write(true).custom_flags(O_NOFOLLOW).open(log)?.set_len(0));
    if let Err(error) = emptied {
        tracing::warn!(%error, log = %log.display(), "could not shorten the log of PostgreSQL");
    }
}

/// How the service connects. Everything is said here, so that nothing comes
/// from the environment.
pub(super) fn options(socket_dir: &Path, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(socket::PORT)
        .username(NAME)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

fn running(site: &Site) -> Option<Postmaster> {
    Postmaster::read(&site.cluster).filter(|postmaster| postmaster.lives(&site.cluster))
}

/// Removes the `postmaster.pid` of a server that was killed, and says what was in
/// it. Wants the lock of the server: so it is dead, whoever has its number now.
fn remove_stale(site: &Site) -> Result<Option<Postmaster>, Error> {
    let killed = Postmaster::read(&site.cluster);
    let file = postmaster::file(&site.cluster);
    match fs::remove_file(&file) {
        Ok(()) => tracing::info!("PostgreSQL was killed: it recovers at this start"),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io(format!("remove {}", file.display()))(error)),
    }
    Ok(killed)
}

fn elsewhere(site: &Site) -> Error {
    Error::ServerElsewhere { data_dir: site.data_dir.clone() }
}

/// The log is ours and not the server's: it is opened before privileges are
/// dropped, and appending keeps it right when it is shortened.
fn open_log(site: &Site) -> Result<(File, u64), Error> {
    bound_log(&site.log);
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(O_NOFOLLOW);
    let opened = options.open(&site.log).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (length, file) = opened.map_err(io(format!("open {}", site.log.display())))?;
    Ok((file, length))
}

fn ended_early(site: &Site, status: ExitStatus, log_start: u64) -> Error {
    let mut text = String::new();
    // Without the log the status must do.
    let _ = File::open(&site.log).and_then(|mut file| {
        file.seek(SeekFrom::Start(log_start))?;
        file.read_to_string(&mut text)
    });
    Error::ServerEnded { status: status.to_string(), reason: complaint(&text), log: site.log.clone() }
}

async fn connect(socket_dir: &Path, database: &str) -> Result<PgConnection, SqlError> {
    let options = options(socket_dir, database);
    match timeout(CONNECT_TIME_MAX, options.connect()).await {
        Ok(result) => result,
        Err(_) => Err(SqlError::Io(ErrorKind::TimedOut.into())),
    }
}

async fn create_database(socket_dir: &Path) -> Result<(), Error> {
    let doing = "create the database";
    let mut connection = connect(socket_dir, "postgres").await.map_err(|source| Error::Sql { doing, source })?;
    match sqlx::query("CREATE DATABASE tenancy").execute(&mut connection).await {
        Err(source) if !has_code(&source, &CREATED_BY_ANOTHER) => Err(Error::Sql { doing, source }),
        _ => Ok(()),
    }
}

fn has_code(error: &SqlError, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|found| codes.contains(&found.as_ref()))
}

fn version_of(connection: &PgConnection) -> String {
    let number = connection.server_version_num().unwrap_or(0);
    format!("{}.{}", number / 10_000, number % 10_000)
}

/// Waits within the limit of a start, and says so when it takes long.
struct Patience {
    since: Instant,
    said: bool,
}

impl Patience {
    fn new() -> Self {
        Self { since: Instant::now(), said: false }
    }

    async fn wait(&mut self, site: &Site, interval: Duration) -> Result<(), Error> {
        let waited = self.since.elapsed();
        if waited > START_TIME_MAX {
            return Err(Error::NotReady { waited, log: site.log.clone() });
        }
        if waited > START_SILENCE_MAX && !self.said {
            self.said = true;
            tracing::warn!(log = %site.log.display(), "waiting for PostgreSQL, which may be recovering after a crash");
        }
        sleep(interval).await;
        Ok(())
    }
}
