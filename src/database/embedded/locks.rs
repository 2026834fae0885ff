//! The file locks that tell which process may do what with one data directory.
//!
//! The kernel frees a lock with its process, so kill -9 leaves nothing to
//! clean up. (The standard library's file locks are `flock`, and its files are
//! closed in child processes: nobody inherits a lock who was not given it.)
//!
//! * `serve.lock`, exclusive: the one running service.
//! * `users.lock`, shared: everybody who uses the server. A holder that has
//!   it exclusively is alone, and may stop the server.
//! * `server.lock`, exclusive: the server, all its processes. They inherit it at the
//!   start, so it tells that one of them lives also where their numbers do not: in
//!   other containers, and when only the first process was killed.
//! * `fetch.lock`, exclusive: held while a build of PostgreSQL is fetched, which may take
//!   minutes; so not together with the next one.
//! * `start.lock`, exclusive: held while starting and stopping, and around every
//!   change of `users.lock`, so that nobody enters while the last one leaves.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;
use std::time::Duration;

use nix::libc::O_NOFOLLOW;
use nix::unistd::geteuid;
use tokio::time::{Instant, sleep};

use super::error::{Error, io};

/// Longer than the longest start or stop, which the holder is busy with.
const START_LOCK_WAIT_MAX: Duration = Duration::from_secs(100);
/// A service that was just killed has its lock until the kernel has taken its memory apart.
const SERVE_LOCK_WAIT_MAX: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
}

/// Takes the lock of the one service on this data directory, or says who has it.
pub(super) async fn serve(data_dir: &Path) -> Result<Held, Error> {
    match wait_for(data_dir, "serve.lock", SERVE_LOCK_WAIT_MAX).await {
        Err(Error::Busy { data_dir, pid, .. }) => Err(Error::AlreadyServing { data_dir, pid }),
        held => held,
    }
}

/// Waits for the lock around starting and stopping.
pub(super) async fn start(data_dir: &Path) -> Result<Held, Error> {
    wait_for(data_dir, "start.lock", START_LOCK_WAIT_MAX).await
}

/// Waits for the lock around fetching a build of PostgreSQL.
pub(super) async fn fetch(data_dir: &Path, wait_max: Duration) -> Result<Held, Error> {
    wait_for(data_dir, "fetch.lock", wait_max).await
}

/// The same if nobody fetches at the moment.
pub(super) fn fetch_at_once(data_dir: &Path) -> Result<Option<Held>, Error> {
    let mut file = open(data_dir, "fetch.lock")?;
    if !try_exclusive(&file)? {
        return Ok(None);
    }
    write_pid(&mut file);
    Ok(Some(Held { _file: file }))
}

async fn wait_for(data_dir: &Path, name: &str, wait_max: Duration) -> Result<Held, Error> {
    let mut file = open(data_dir, name)?;
    let since = Instant::now();
    while !try_exclusive(&file)? {
        let waited = since.elapsed();
        if waited > wait_max {
            return Err(Error::Busy { data_dir: data_dir.to_path_buf(), pid: read_pid(&mut file), waited });
        }
        sleep(POLL_INTERVAL).await;
    }
    write_pid(&mut file);
    Ok(Held { _file: file })
}

/// Takes the lock to be handed to a new server; nothing while one lives.
pub(super) fn server(data_dir: &Path) -> Result<Option<File>, Error> {
    let file = open(data_dir, "server.lock")?;
    Ok(try_exclusive(&file)?.then_some(file))
}

/// Our place among the users of the server. Every method wants `start.lock`
/// held, which the reference to it shows.
#[derive(Debug)]
pub(super) struct Users {
    file: File,
}

impl Users {
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        Ok(Self { file: open(data_dir, "users.lock")? })
    }

    /// Whether nobody else uses the server. Asked before [`Users::enter`].
    pub fn none(&self, _start: &Held) -> Result<bool, Error> {
        let alone = try_exclusive(&self.file)?;
        if alone {
            self.file.unlock().map_err(io("unlock users.lock"))?;
        }
        Ok(alone)
    }

    pub fn enter(&self, _start: &Held) -> Result<(), Error> {
        self.file.lock_shared().map_err(io("lock users.lock"))
    }

    /// Gives our place up, and says whether nobody is left.
    pub fn leave(self, _start: &Held) -> Result<bool, Error> {
        self.file.unlock().map_err(io("unlock users.lock"))?;
        try_exclusive(&self.file)
    }
}

fn try_exclusive(file: &File) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(io("lock a file of the data directory")(error)),
    }
}

fn open(data_dir: &Path, name: &str) -> Result<File, Error> {
    let path = data_dir.join(name);
    let doing = || format!("open {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(O_NOFOLLOW)
        .open(&path)
        .map_err(io(doing()))?;
    if geteuid().is_root() {
        // A root who helps in somebody's data directory must not lock them out of it.
        let owner = std::fs::metadata(data_dir).map_err(io(doing()))?;
        fchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(io(doing()))?;
    }
    Ok(file)
}

/// For the message of those who come later; so a failure is no reason to stop.
fn write_pid(file: &mut File) {
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    if let Err(error) = written {
        tracing::debug!(%error, "could not write our pid into a lock file");
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
