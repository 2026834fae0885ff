//! What can go wrong with the private server, and what a person does about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::find::OLDEST_MAJOR;
use super::ways_on::{self, Situation};

/// Why the private PostgreSQL cannot be used. The message says what was wrong,
/// [`Error::remedy`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A `serve` already runs on this data directory.
    #[error("the service already runs on {} ({})", .data_dir.display(), holder(*.pid))]
    AlreadyServing {
        /// The data directory in question.
        data_dir: PathBuf,
        /// The process that holds it, if it has written its number yet.
        pid: Option<u32>,
    },
    /// Another process has been starting or stopping the server for too long.
    #[error("another process ({}) has been starting or stopping the database in {} for {} s", holder(*.pid), .data_dir.display(), .waited.as_secs())]
    Busy {
        /// The data directory in question.
        data_dir: PathBuf,
        /// The process that holds the lock, if known.
        pid: Option<u32>,
        /// How long we waited for it.
        waited: Duration,
    },
    /// A server lives on the data directory, but it cannot be reached from here.
    #[error("a PostgreSQL that cannot be reached from here still uses {}", .data_dir.display())]
    ServerElsewhere {
        /// The data directory in question.
        data_dir: PathBuf,
    },
    /// No server programs that are new enough.
    #[error("no PostgreSQL {OLDEST_MAJOR} or newer on this machine{}{}", found(.older), although(.not_fetched.as_deref()))]
    NoPrograms {
        /// Versions that were found, but are too old.
        older: Vec<String>,
        /// Why none was fetched.
        not_fetched: Option<Box<NotFetched>>,
    },
    /// The configured directory of server programs is of no use.
    #[error("the configured directory {} {reason}", .dir.display())]
    BadProgramDir {
        /// The directory as configured.
        dir: PathBuf,
        /// The second half of the sentence.
        reason: String,
    },
    /// The cluster needs another major version than those at hand.
    #[error("the data in {} was made by PostgreSQL {made}; {}{}", .cluster.display(), at_hand(.found), although(.not_fetched.as_deref()))]
    WrongMajor {
        /// The cluster's directory.
        cluster: PathBuf,
        /// The major version that made the data.
        made: u32,
        /// The versions that are at hand.
        found: Vec<String>,
        /// Where the programs of a newer major are, to which the data could be moved.
        newer: Option<PathBuf>,
        /// The account that PostgreSQL's programs have to run as, if that is another one.
        account: Option<String>,
        /// Why the version that would fit was not fetched.
        not_fetched: Option<Box<NotFetched>>,
    },
    /// Root has no unprivileged account to give the server to.
    #[error("PostgreSQL refuses to run as root, and this machine has neither an account `postgres` nor `nobody`")]
    NoAccount,
    /// The account of the server cannot pass through a directory.
    #[error("the database runs under the account `{account}`, which may not pass through {}", .dir.display())]
    NotTraversable {
        /// The account of the server.
        account: String,
        /// The first directory on the way that is closed to it.
        dir: PathBuf,
    },
    /// The cluster belongs to somebody else.
    #[error("the data in {} belongs to {owner}, not to {caller}", .cluster.display())]
    ForeignCluster {
        /// The cluster's directory.
        cluster: PathBuf,
        /// The owner.
        owner: String,
        /// Our own account.
        caller: String,
    },
    /// Something else lies where the cluster should be.
    #[error("{} is neither empty nor a PostgreSQL data directory", .cluster.display())]
    NotACluster {
        /// The cluster's directory.
        cluster: PathBuf,
    },
    /// No directory for the socket could be used.
    #[error("no private directory for the database's socket: {}", .tried.join("; "))]
    NoSocketDir {
        /// Each place that was tried, with its reason.
        tried: Vec<String>,
    },
    /// A new cluster could not be made.
    #[error("initdb could not make a new database: {output}")]
    Initdb {
        /// What it complained of.
        output: String,
    },
    /// The server ended instead of becoming ready.
    #[error("PostgreSQL did not start ({status}): {reason}")]
    ServerEnded {
        /// Its exit status.
        status: String,
        /// What its log calls fatal.
        reason: String,
        /// Where the whole log is.
        log: PathBuf,
    },
    /// The server is not ready within the limit. It is left running.
    #[error("PostgreSQL is not ready after {} s", .waited.as_secs())]
    NotReady {
        /// How long we waited.
        waited: Duration,
        /// Where the log is.
        log: PathBuf,
    },
    /// The server does not stop.
    #[error("PostgreSQL (pid {pid}) does not stop")]
    NotStopped {
        /// The postmaster.
        pid: i32,
        /// Where the log is.
        log: PathBuf,
    },
    /// A file or a process could not be handled.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried, with the path.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server answers, but not as it should.
    #[error("PostgreSQL refused to {doing}: {source}")]
    Sql {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: sqlx::Error,
    },
}

/// Why no build of PostgreSQL was fetched.
#[derive(Debug, thiserror::Error)]
pub enum NotFetched {
    /// It is not allowed.
    #[error("fetching one is switched off")]
    Forbidden,
    /// A directory of programs is configured.
    #[error("the configured directory of programs counts alone")]
    Configured,
    /// No build is known for this major version.
    #[error("no build of PostgreSQL {major} is known to this program")]
    NoBuild {
        /// The major version in question.
        major: u32,
    },
    /// Nobody builds for this kind of machine.
    #[error("no build is published for {machine}")]
    NoMachine {
        /// System and processor.
        machine: String,
    },
    /// The data directory is not ours, so nothing is written there on behalf of others.
    #[error("{} belongs to another account, for which none is fetched", .data_dir.display())]
    ForeignDir {
        /// The data directory in question.
        data_dir: PathBuf,
    },
    /// The other side cannot be reached, does not have it, or broke off.
    #[error("{url} cannot be fetched: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The file that came is not the one that should. Nothing of it was kept.
    #[error("{url} was fetched and is refused: {reason}")]
    Refused {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is there, but this machine cannot run it.
    #[error("the one that was fetched into {} does not run here: {reason}", .dir.display())]
    DoesNotRun {
        /// Where it lies.
        dir: PathBuf,
        /// What it said.
        reason: String,
    },
    /// Something of this machine was in the way.
    #[error(transparent)]
    Here(Box<Error>),
}

impl NotFetched {
    pub(super) fn no_machine() -> Self {
        Self::NoMachine { machine: format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH) }
    }

    /// What would make fetching work, as the end of a sentence on other ways.
    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Forbidden => "let it be fetched: TENANCY_DATABASE__POSTGRES_FETCH=true".into(),
            Self::Configured => {
                "leave TENANCY_DATABASE__POSTGRES_BIN_DIR out, so that it is searched for, and fetched if need be"
                    .into()
            }
            Self::Unreachable { .. } | Self::Refused { .. } => {
                "name a mirror of the builds in TENANCY_DATABASE__POSTGRES_FETCH_URL".into()
            }
            Self::DoesNotRun { .. } => "install the libraries that it misses".into(),
            Self::ForeignDir { data_dir } => {
                format!("start it once as the account that owns {}", data_dir.display())
            }
            Self::NoBuild { .. } | Self::NoMachine { .. } | Self::Here(_) => return None,
        })
    }
}

impl From<Error> for NotFetched {
    fn from(error: Error) -> Self {
        Self::Here(Box::new(error))
    }
}

impl Error {
    /// Whether a build of PostgreSQL would help.
    pub(super) fn lacks_programs(&self) -> bool {
        matches!(self, Self::NoPrograms { .. } | Self::WrongMajor { .. })
    }

    /// The major version that made the data, if it is that one which is missing.
    pub(super) fn made_by(&self) -> Option<u32> {
        match self {
            Self::WrongMajor { made, .. } => Some(*made),
            _ => None,
        }
    }

    /// The same, with the reason why fetching did not help.
    pub(super) fn although_fetching(mut self, why: NotFetched) -> Self {
        match (&mut self, why) {
            (_, NotFetched::Here(error)) => return *error,
            (Self::NoPrograms { not_fetched, .. } | Self::WrongMajor { not_fetched, .. }, why) => {
                *not_fetched = Some(why.into());
            }
            _ => {}
        }
        self
    }

    /// What the reader can do about it, if there is something.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        const OTHER_DIR: &str = "set TENANCY_DATA_DIR to another directory";
        Some(match self {
            Self::AlreadyServing { .. } => format!("stop that one first, or {OTHER_DIR}"),
            Self::Busy { .. } => "look at what that process does; if it hangs, end it and try again".into(),
            Self::ServerElsewhere { .. } => {
                "if the service runs in another container, run this there or stop it first; \
                 if it was killed, its last statements are still running: try again soon"
                    .into()
            }
            Self::NoPrograms { not_fetched, .. } => {
                let fetch = not_fetched.as_deref().and_then(NotFetched::remedy).map(|remedy| format!("; or {remedy}"));
                format!("{}{}", super::find::how_to_install(), fetch.unwrap_or_default())
            }
            Self::BadProgramDir { .. } => format!(
                "name the directory that holds `postgres` and `initdb` of PostgreSQL {OLDEST_MAJOR} or newer, \
                 or leave the setting out to have them searched"
            ),
            Self::WrongMajor { cluster, made, newer, account, not_fetched, .. } => ways_on::both(&Situation {
                cluster,
                made: *made,
                newer: newer.as_deref(),
                account: account.as_deref(),
                to_fetch: not_fetched.as_deref().and_then(NotFetched::remedy),
            }),
            Self::NoAccount => "create an account `postgres`, or run as an ordinary user".into(),
            Self::NotTraversable { dir, .. } => {
                format!("set TENANCY_DATA_DIR to a directory that is open to it, or `chmod o+x {}`", dir.display())
            }
            Self::ForeignCluster { cluster, .. } => format!(
                "run as the account that the service runs as, or {OTHER_DIR}; \
                 if the data was copied, give it its owner again: `chown -R ACCOUNT {}`",
                cluster.display()
            ),
            Self::NotACluster { .. } => format!("move it away, or {OTHER_DIR}"),
            Self::NoSocketDir { .. } => "give a shorter TENANCY_DATA_DIR, or a private XDG_RUNTIME_DIR".into(),
            Self::Initdb { output } if output.contains("effective user ID") => {
                "PostgreSQL wants its account to have a name: add this user id to /etc/passwd, or run as another user"
                    .into()
            }
            Self::Initdb { .. } => return None,
            Self::ServerEnded { log, .. } | Self::NotStopped { log, .. } => {
                format!("the whole story is in {}", log.display())
            }
            Self::NotReady { log, .. } => format!(
                "it goes on by itself (recovery after a crash can take long): see {} and try again later",
                log.display()
            ),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("run as the account that owns it, or {OTHER_DIR}")
            }
            Self::Io { .. } | Self::Sql { .. } => return None,
        })
    }
}

/// Turns an I/O error into ours, for `map_err`.
pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let doing = doing.into();
    move |source| Error::Io { doing, source }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "pid not known".into(), |pid| format!("pid {pid}"))
}

fn found(older: &[String]) -> String {
    if older.is_empty() { String::new() } else { format!(" (too old: {})", older.join(", ")) }
}

fn at_hand(found: &[String]) -> String {
    if found.is_empty() { "no version is at hand".into() } else { format!("at hand: {}", found.join(", ")) }
}

fn although(not_fetched: Option<&NotFetched>) -> String {
    not_fetched.map(|why| format!(", and {why}")).unwrap_or_default()
}
