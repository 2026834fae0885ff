//! PostgreSQL refuses to run as root. Where the harness is root, the server runs under an account without rights.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, chown, geteuid};

/// The account of the server; none where the harness's own will do.
#[derive(Debug, Clone, Copy)]
pub struct Account(Option<(Uid, Gid)>);

impl Account {
    /// As root `postgres`, or else `nobody`; otherwise whoever runs this.
    pub fn find() -> Result<Self, String> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        let found = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = found.ok_or("as root this needs an account 'postgres' or 'nobody' to run PostgreSQL under")?;
        Ok(Self(Some((user.uid, user.gid))))
    }

    /// Lets `command` run under it.
    pub fn apply(self, command: &mut Command) {
        if let Some((uid, gid)) = self.0 {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
    }

    /// Gives it `path`.
    pub fn own(self, path: &Path) -> Result<(), String> {
        let Some((uid, gid)) = self.0 else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).map_err(|error| format!("cannot give away {}: {error}", path.display()))
    }
}
