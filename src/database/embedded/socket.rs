//! The private directory of the server's socket.
//!
//! Everybody who reaches the socket is let in, so the directory is closed to everybody
//! but the server's account (and root). A socket's path must also fit into
//! about a hundred bytes, which a data directory deep in a tree does not.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::libc::{O_DIRECTORY, O_NOFOLLOW};

use super::account::Account;
use super::cluster::Site;
use super::error::Error;

/// Part of the socket's name; nothing listens on TCP.
pub(super) const PORT: u16 = 5432;

/// macOS allows 104 bytes with the final zero, Linux 108.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Chooses and makes the directory. The order prefers what lives as long as the
/// data: a session's directory goes away when its user logs out, and temporary
/// directories are cleaned, or private to a systemd unit. Others find the place
/// in `postmaster.pid`, so it may differ from start to start; but the one that
/// clients of a killed server know comes first.
pub(super) fn choose(site: &Site, known: Option<PathBuf>) -> Result<PathBuf, Error> {
    let mut tried = Vec::new();
    for dir in known.into_iter().chain(candidates(&site.data_dir, &site.account)) {
        match make(&dir, site) {
            Ok(()) => return Ok(dir),
            Err(error) => tried.push(format!("{}: {error}", dir.display())),
        }
    }
    Err(Error::NoSocketDir { tried })
}

/// Makes the directory, or takes it over if it is ours; and empties it of the
/// socket of a server that was killed.
fn make(dir: &Path, site: &Site) -> std::io::Result<()> {
    let account = &site.account;
    if socket_in(dir).as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
        return Err(IoError::new(ErrorKind::InvalidInput, "the path is too long for a socket"));
    }
    if dir.parent().is_some_and(|parent| !account.can_enter(parent)) {
        return Err(IoError::new(ErrorKind::PermissionDenied, format!("closed to {}", account.name)));
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    own(dir, account)?;
    // PostgreSQL does so itself, unless the number in the lock file belongs to
    // another process by now.
    remove_if_there(&socket_in(dir))?;
    remove_if_there(&dir.join(format!(".s.PGSQL.{PORT}.lock")))?;
    prove(dir)
}

fn candidates(data_dir: &Path, account: &Account) -> Vec<PathBuf> {
    let name = format!("tenancy-{}-{:012x}", account.uid, short_hash(data_dir));
    let mut dirs = Vec::new();
    if account.drops {
        dirs.push(Path::new("/run").join(&name));
    } else {
        dirs.push(data_dir.join("socket"));
        dirs.extend(std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join(&name)));
    }
    dirs.extend([std::env::temp_dir().join(&name), Path::new("/tmp").join(&name)]);
    dirs.retain(|dir| dir.is_absolute());
    dirs.dedup();
    dirs
}

/// In a shared directory anybody could have made this name before us, also as a
/// link: so what was opened is checked and changed, not what the path says by then.
fn own(dir: &Path, account: &Account) -> std::io::Result<()> {
    let opened: File = OpenOptions::new().read(true).custom_flags(O_DIRECTORY | O_NOFOLLOW).open(dir)?;
    let owner = opened.metadata()?.uid();
    if owner != account.uid {
        if !(account.drops && owner == 0) {
            return Err(IoError::new(ErrorKind::PermissionDenied, format!("belongs to uid {owner}")));
        }
        fchown(&opened, Some(account.uid), Some(account.gid))?;
    }
    opened.set_permissions(Permissions::from_mode(0o700))
}

/// Some file systems (shared folders of virtual machines) cannot hold sockets;
/// PostgreSQL would find that out too late for another choice.
fn prove(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(".probe");
    remove_if_there(&probe)?;
    let listener = UnixListener::bind(&probe)?;
    fs::set_permissions(&probe, Permissions::from_mode(0o700))?;
    drop(listener);
    fs::remove_file(&probe)
}

fn socket_in(dir: &Path) -> PathBuf {
    dir.join(format!(".s.PGSQL.{PORT}"))
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// FNV-1a, folded to 48 bits: tells the data directories of one machine apart.
fn short_hash(path: &Path) -> u64 {
    let hash =
        path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    (hash >> 48) ^ (hash & 0xffff_ffff_ffff)
}
