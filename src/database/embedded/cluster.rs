//! The cluster's place on disk, and its making.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::time::timeout;

use super::Settings;
use super::account::Account;
use super::error::{Error, io};
use super::find::Programs;

/// The superuser of the cluster, and the database of the service.
pub(super) const NAME: &str = "tenancy";

const INIT_TIME_MAX: Duration = Duration::from_secs(120);
const INIT_PREFIX: &str = "postgres.init.";

/// Where everything is, and who runs it.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// Absolute and without links.
    pub data_dir: PathBuf,
    /// The cluster: PostgreSQL's own "data directory".
    pub cluster: PathBuf,
    pub log: PathBuf,
    /// The only directory of programs that counts, if one is configured.
    pub bin_dir: Option<PathBuf>,
    /// Whether programs that are installed on this machine may be used.
    pub installed: bool,
    /// Builds that were fetched: a directory for each version.
    pub fetched: PathBuf,
    /// Where builds are fetched from, if that is allowed.
    pub fetch_from: Option<String>,
    pub account: Account,
}

impl Site {
    /// Makes the data directory if need be, and sees that the server can reach it.
    pub fn prepare(settings: &Settings) -> Result<Self, Error> {
        let wanted = &settings.data_dir;
        let doing = || format!("use {} as data directory", wanted.display());
        let absolute = std::path::absolute(wanted).map_err(io(doing()))?;
        make_dirs(&absolute, true).map_err(io(doing()))?;
        let data_dir = fs::canonicalize(&absolute).map_err(io(doing()))?;
        let cluster = data_dir.join("postgres");
        let account = Account::for_cluster(&cluster)?;
        account.ensure_reaches(&data_dir)?;
        Ok(Self {
            log: data_dir.join("postgres.log"),
            fetched: data_dir.join("postgresql"),
            bin_dir: settings.bin_dir.clone(),
            installed: settings.installed,
            fetch_from: settings.fetch_from.clone(),
            data_dir,
            cluster,
            account,
        })
    }

    /// Makes the cluster unless it is there. It is made under another name and
    /// then renamed, so it is there either whole or not at all. Wants `start.lock`.
    pub async fn init(&self, programs: &Programs) -> Result<(), Error> {
        self.remove_unfinished()?;
        if self.cluster.join("PG_VERSION").exists() {
            return Ok(());
        }
        match fs::remove_dir(&self.cluster) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::NotACluster { cluster: self.cluster.clone() });
            }
            _ => {}
        }
        tracing::info!(data = %self.cluster.display(), "making a new database");
        let unfinished = self.data_dir.join(format!("{INIT_PREFIX}{}", std::process::id()));
        self.run_initdb(programs, &unfinished).await?;
        fs::rename(&unfinished, &self.cluster)
            .and_then(|()| File::open(&self.data_dir)?.sync_all())
            .map_err(io(format!("put the new database at {}", self.cluster.display())))
    }

    /// The C locale sorts the same on every machine and after every upgrade of
    /// the system, so no index goes bad; what people see is sorted by the service.
    async fn run_initdb(&self, programs: &Programs, dir: &Path) -> Result<(), Error> {
        DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .and_then(|()| {
                if self.account.drops { chown(dir, Some(self.account.uid), Some(self.account.gid)) } else { Ok(()) }
            })
            .map_err(io(format!("make {}", dir.display())))?;
        let program = programs.path("initdb");
        let mut command = self.account.command(&program);
        command.args(["--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"]);
        command.args(["--auth-local=trust", "--auth-host=reject"]).arg(format!("--username={NAME}"));
        command.arg("--pgdata").arg(dir).kill_on_drop(true);
        let output = match timeout(INIT_TIME_MAX, command.output()).await {
            Ok(output) => output.map_err(io(format!("run {}", program.display())))?,
            Err(_) => {
                return Err(Error::Initdb { output: format!("not done after {} s", INIT_TIME_MAX.as_secs()) });
            }
        };
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Initdb { output: complaint(&String::from_utf8_lossy(&output.stderr)) })
    }

    /// Removes what a killed initdb left.
    fn remove_unfinished(&self) -> Result<(), Error> {
        let doing = || format!("clean up {}", self.data_dir.display());
        for entry in fs::read_dir(&self.data_dir).map_err(io(doing()))? {
            let entry = entry.map_err(io(doing()))?;
            if entry.file_name().to_string_lossy().starts_with(INIT_PREFIX) {
                remove_stubborn(&entry.path()).map_err(io(doing()))?;
            }
        }
        Ok(())
    }
}

/// Like `create_dir_all`, but with modes that do not depend on the umask: the
/// server's account has to pass through what root makes here.
fn make_dirs(dir: &Path, last: bool) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent, false)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
        result => result?,
    }
    let mode = match (last, geteuid().is_root()) {
        (false, _) => 0o755,
        (true, true) => 0o711,
        (true, false) => 0o700,
    };
    fs::set_permissions(dir, Permissions::from_mode(mode))
}

/// An initdb that outlived its parent may still be writing while we remove;
/// without its directory it soon ends.
fn remove_stubborn(dir: &Path) -> std::io::Result<()> {
    for _ in 0..20 {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
    fs::remove_dir_all(dir)
}

/// What is wrong, out of a program's output: without dates, and without hints, which
/// are for people who run PostgreSQL by hand ("you need to initdb").
pub(super) fn complaint(output: &str) -> String {
    let telling = |line| {
        ["FATAL:", "PANIC:", "error:"].iter().find_map(|mark| str::split_once(line, *mark)).map(|(_, text)| text.trim())
    };
    let lines: Vec<&str> = output.lines().filter_map(telling).collect();
    if lines.is_empty() { output.trim().to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn tells_what_is_wrong_and_not_what_to_do_by_hand() {
        let log = "2026-01-01 UTC [7] LOG:  starting\n\
                   2026-01-01 UTC [7] FATAL:  database files are incompatible with server\n\
                   2026-01-01 UTC [7] HINT:  It looks like you need to initdb.\n";
        assert_eq!(complaint(log), "database files are incompatible with server");
        assert_eq!(complaint("initdb: error: no room\n"), "no room");
        assert_eq!(complaint("what is this\n"), "what is this");
    }
}
