//! What `postmaster.pid` says, and whether it is still true.
//!
//! After kill -9 the file stays behind, and its number may by then belong to a
//! process that has nothing to do with PostgreSQL. PostgreSQL itself then refuses
//! to start, so we have to tell the cases apart.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// The lines of `postmaster.pid` that we need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub pid: i32,
    /// The data directory that the server was started on: another one than ours
    /// if the directory was copied with the file in it.
    started_on: PathBuf,
    pub socket_dir: Option<PathBuf>,
    /// Whether it accepts connections.
    pub ready: bool,
}

impl Postmaster {
    /// What the file says; nothing if there is none or it is not written yet.
    pub fn read(cluster: &Path) -> Option<Self> {
        let text = fs::read_to_string(file(cluster)).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok().filter(|pid| *pid > 0)?,
            started_on: PathBuf::from(*lines.get(1)?),
            socket_dir: lines.get(4).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            ready: lines.get(7).is_some_and(|status| *status == "ready"),
        })
    }

    /// Whether the process lives and is the server of this cluster.
    pub fn lives(&self, cluster: &Path) -> bool {
        exists(self.pid) && looks_like_postgres(self.pid) && self.is_on(cluster)
    }

    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match signal::kill(Pid::from_raw(self.pid), signal) {
            Err(Errno::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// A server works in its data directory. Where the system does not tell
    /// (containers without the right to trace, macOS), the file's word counts.
    fn is_on(&self, cluster: &Path) -> bool {
        match fs::read_link(format!("/proc/{}/cwd", self.pid)) {
            Ok(dir) => dir == cluster,
            Err(_) => self.started_on == cluster,
        }
    }
}

/// Where the file is.
pub(super) fn file(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

fn exists(pid: i32) -> bool {
    !matches!(signal::kill(Pid::from_raw(pid), None), Err(Errno::ESRCH))
}

/// A zombie (killed, and its parent does not ask) is no server any more.
#[cfg(target_os = "linux")]
fn looks_like_postgres(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        // Gone in this moment, or no /proc: then to be alive must do.
        return !Path::new("/proc/self/stat").exists();
    };
    let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else {
        return true;
    };
    name.starts_with("post") && !rest.trim_start().starts_with(['Z', 'X'])
}

/// A zombie (killed, and its parent does not ask) is no server any more.
#[cfg(not(target_os = "linux"))]
fn looks_like_postgres(pid: i32) -> bool {
    let output = std::process::Command::new("/bin/ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output();
    let Ok(output) = output else { return true };
    let line = String::from_utf8_lossy(&output.stdout);
    line.contains("postgres") && !line.trim_start().starts_with('Z')
}
