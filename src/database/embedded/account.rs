//! The account under which PostgreSQL's programs run, and whether it can reach
//! the data.
//!
//! PostgreSQL refuses to run as root. The service does not, so as root it gives
//! the server, and nothing else, to an unprivileged account.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{Uid, User, getegid, geteuid};
use tokio::process::Command;

use super::error::{Error, io};

/// Accounts that root gives the server to, the best first. `_postgres` is macOS's.
const UNPRIVILEGED: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// The variables that the server's programs inherit. Everything else stays
/// here: the service's environment may hold secrets, and PG* would change what
/// the programs do.
const INHERITED: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"];

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
    /// Whether we are root and have to become this account.
    pub drops: bool,
}

impl Account {
    /// The account that runs the server on this cluster: ourselves; as root, the owner of the
    /// cluster, so that `sudo tenancy …` fits a service that an ordinary user runs.
    pub fn for_cluster(cluster: &Path) -> Result<Self, Error> {
        let owner = match fs::metadata(cluster) {
            Ok(metadata) => Some(metadata.uid()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(format!("look at {}", cluster.display()))(error)),
        };
        let own = geteuid();
        let foreign = |owner: u32| Error::ForeignCluster {
            cluster: cluster.to_path_buf(),
            owner: name_of(owner),
            caller: name_of(own.as_raw()),
        };
        match owner {
            None if own.is_root() => Self::unprivileged(),
            Some(0) if own.is_root() => Err(foreign(0)),
            Some(owner) if own.is_root() => Ok(Self::dropping_to(owner)),
            Some(owner) if owner != own.as_raw() => Err(foreign(owner)),
            _ => Ok(Self { uid: own.as_raw(), gid: getegid().as_raw(), name: name_of(own.as_raw()), drops: false }),
        }
    }

    /// A command that runs as this account: away from our working directory
    /// (which it may not be able to read) and from our terminal's ctrl-c (the
    /// service needs its database until the end of a graceful stop).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null()).process_group(0);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if self.drops {
            // The standard library also gives up root's supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes sure that this account can pass through every directory down to
    /// `data_dir`. The last one is ours, so we open it for passing (not for
    /// listing); its parents are somebody's decision, so we only name the
    /// one that is closed.
    pub fn ensure_reaches(&self, data_dir: &Path) -> Result<(), Error> {
        if !self.drops {
            return Ok(());
        }
        let mut way: Vec<&Path> = data_dir.ancestors().collect();
        way.reverse();
        for dir in way {
            let metadata = fs::metadata(dir).map_err(io(format!("look at {}", dir.display())))?;
            if self.may_pass_by_mode(&metadata) || self.can_enter(dir) {
                continue;
            }
            if dir != data_dir {
                return Err(Error::NotTraversable { account: self.name.clone(), dir: dir.to_path_buf() });
            }
            tracing::info!(dir = %dir.display(), account = %self.name, "letting the database's account pass through");
            fs::set_permissions(dir, Permissions::from_mode((metadata.mode() & 0o7777) | 0o011))
                .map_err(io(format!("change the mode of {}", dir.display())))?;
        }
        Ok(())
    }

    /// Whether the account gets into the directory, by trying: what counts in
    /// the end, but it costs a process.
    pub fn can_enter(&self, dir: &Path) -> bool {
        if !self.drops {
            return true;
        }
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "exit 0"]).uid(self.uid).gid(self.gid).current_dir(dir);
        command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// What the mode bits say. Access control lists may say otherwise.
    fn may_pass_by_mode(&self, metadata: &fs::Metadata) -> bool {
        let bit = if metadata.uid() == self.uid {
            0o100
        } else if metadata.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        metadata.mode() & bit != 0
    }

    fn unprivileged() -> Result<Self, Error> {
        UNPRIVILEGED
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(Self::from_user)
            .ok_or(Error::NoAccount)
    }

    fn dropping_to(uid: u32) -> Self {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Self::from_user(user),
            _ => Self { uid, gid: uid, name: uid.to_string(), drops: true },
        }
    }

    fn from_user(user: User) -> Self {
        Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name, drops: true }
    }
}

fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}
