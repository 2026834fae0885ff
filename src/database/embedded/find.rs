//! Finds PostgreSQL's server programs on this machine.
//!
//! Distributions keep them out of PATH, each in its own place, and often
//! several major versions side by side. A cluster can only be opened by the
//! major version that made it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::account::Account;
use super::error::{Error, io};

/// The oldest major version that the service is tested with.
pub(super) const OLDEST_MAJOR: u32 = 15;

const PROBE_TIME_MAX: Duration = Duration::from_secs(5);

/// Directories of versions: each child that starts with the prefix may have a `bin`.
const VERSIONED: [(&str, &str); 6] = [
    ("/usr/lib/postgresql", ""),         // Debian, Ubuntu
    ("/usr", "pgsql-"),                  // Fedora, RHEL (PostgreSQL's own packages)
    ("/opt/homebrew/opt", "postgresql"), // Homebrew, Apple silicon
    ("/usr/local/opt", "postgresql"),    // Homebrew, Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql"),
    ("/usr/libexec", "postgresql"), // Alpine (the programs lie without `bin`)
];

/// How each packager installs PostgreSQL; the first that the machine has is named.
const PACKAGERS: [(&str, &str); 5] = [
    ("apt-get", "apt-get install postgresql"),
    ("dnf", "dnf install postgresql-server"),
    ("brew", "brew install postgresql@17"),
    ("apk", "apk add postgresql"),
    ("pacman", "pacman -S postgresql"),
];

/// One installation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Programs {
    major: u32,
    minor: u32,
    dir: PathBuf,
}

impl Programs {
    pub fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }

    fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// The newest installation that fits: of the major that made the cluster, if
/// there is one; else 15 or newer.
pub(super) async fn find(configured: Option<&Path>, cluster: &Path, account: &Account) -> Result<Programs, Error> {
    let made_by = major_of_cluster(cluster)?;
    let installed = match configured {
        Some(dir) => BTreeSet::from([probe_configured(dir, account).await?]),
        None => probe_all(account).await,
    };
    let versions = || installed.iter().map(Programs::version).collect();
    if let Some(made) = made_by {
        let fitting = installed.iter().rfind(|programs| programs.major == made && made >= OLDEST_MAJOR);
        return fitting.cloned().ok_or_else(|| Error::WrongMajor {
            cluster: cluster.to_path_buf(),
            made,
            found: versions(),
        });
    }
    match (installed.last(), configured) {
        (Some(newest), _) if newest.major >= OLDEST_MAJOR => Ok(newest.clone()),
        (Some(old), Some(dir)) => Err(Error::BadProgramDir {
            dir: dir.to_path_buf(),
            reason: format!("holds PostgreSQL {}, which is too old", old.version()),
        }),
        _ => Err(Error::NoPrograms { older: versions() }),
    }
}

/// One line on how to get PostgreSQL on this machine.
pub(super) fn how_to_install() -> String {
    let command = PACKAGERS.iter().find(|(program, _)| in_path(program).next().is_some());
    let install = match command {
        Some((_, command)) => {
            format!("install it with `{command}` (version {OLDEST_MAJOR} or newer)")
        }
        None => format!("install the PostgreSQL server, version {OLDEST_MAJOR} or newer"),
    };
    format!("{install}, or set DATABASE_URL to a PostgreSQL that runs elsewhere")
}

fn major_of_cluster(cluster: &Path) -> Result<Option<u32>, Error> {
    let file = cluster.join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(leading_number(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(format!("read {}", file.display()))(error)),
    }
}

async fn probe_configured(dir: &Path, account: &Account) -> Result<Programs, Error> {
    let bad = |reason: &str| Error::BadProgramDir { dir: dir.to_path_buf(), reason: reason.into() };
    let dir = std::path::absolute(dir).map_err(io(format!("find {}", dir.display())))?;
    if !holds_server(&dir) {
        return Err(bad("does not hold `postgres` and `initdb`"));
    }
    let reason = format!("holds a `postgres` that the account `{}` cannot run", account.name);
    probe(&dir, account).await.ok_or_else(|| bad(&reason))
}

async fn probe_all(account: &Account) -> BTreeSet<Programs> {
    let mut dirs: BTreeSet<PathBuf> = in_path("postgres").filter_map(|path| real_dir_of(&path)).collect();
    for pg_config in in_path("pg_config") {
        let bindir = output(account, &pg_config, "--bindir").await;
        dirs.extend(bindir.and_then(|dir| real_dir_of(&Path::new(dir.trim()).join("postgres"))));
    }
    dirs.extend(usual_places().iter().filter_map(|dir| real_dir_of(&dir.join("postgres"))));
    let mut found = BTreeSet::new();
    for dir in dirs.iter().filter(|dir| holds_server(dir)) {
        found.extend(probe(dir, account).await);
    }
    found
}

/// Where the program really lies: `/usr/local/bin/postgres` is often a link, and
/// `initdb` is beside its target.
fn real_dir_of(program: &Path) -> Option<PathBuf> {
    Some(fs::canonicalize(program).ok()?.parent()?.to_path_buf())
}

fn usual_places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = vec!["/usr/bin".into(), "/usr/local/bin".into(), "/usr/local/pgsql/bin".into()];
    for (base, prefix) in VERSIONED {
        let children = fs::read_dir(base).into_iter().flatten().flatten();
        for child in children.filter(|child| child.file_name().to_string_lossy().starts_with(prefix)) {
            places.extend([child.path(), child.path().join("bin")]);
        }
    }
    places
}

fn in_path(program: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    dirs.into_iter().map(move |dir| dir.join(program)).filter(|path| path.is_file())
}

fn holds_server(dir: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|program| dir.join(program).is_file())
}

/// Asks the program itself, as the account that will run it: so what that
/// account cannot reach is not chosen.
async fn probe(dir: &Path, account: &Account) -> Option<Programs> {
    let (major, minor) = parse_version(&output(account, &dir.join("postgres"), "--version").await?)?;
    Some(Programs { major, minor, dir: dir.to_path_buf() })
}

async fn output(account: &Account, program: &Path, argument: &str) -> Option<String> {
    let mut command = account.command(program);
    let output = timeout(PROBE_TIME_MAX, command.arg(argument).kill_on_drop(true).output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)` → (15, 18); a beta has minor 0.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    let minor = version.split_once('.').and_then(|(_, rest)| leading_number(rest));
    Some((leading_number(version)?, minor.unwrap_or(0)))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{leading_number, parse_version};

    #[test]
    fn reads_the_versions_that_packagers_write() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(parse_version("postgres (PostgreSQL) 17.2\n"), Some((17, 2)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some((18, 0)));
        assert_eq!(parse_version("mysqld 8.0"), None);
    }

    #[test]
    fn reads_the_major_of_old_and_new_clusters() {
        assert_eq!(leading_number("15\n"), Some(15));
        assert_eq!(leading_number("9.6\n"), Some(9));
        assert_eq!(leading_number(""), None);
    }
}
