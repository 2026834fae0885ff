//! Finds PostgreSQL's server programs on this machine.
//!
//! Those that are installed come first, those that were fetched second (`fetch`).
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
use super::cluster::Site;
use super::error::{Error, NotFetched, io};

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

/// How each packager installs PostgreSQL, and a certain major of it ("%"); the first that the machine has is named.
const PACKAGERS: [(&str, &str, Option<&str>); 5] = [
    ("apt-get", "apt-get install postgresql", Some("apt-get install postgresql-%")),
    ("dnf", "dnf install postgresql-server", Some("dnf install postgresql%-server")),
    ("brew", "brew install postgresql@17", Some("brew install postgresql@%")),
    ("apk", "apk add postgresql", Some("apk add postgresql%")),
    ("pacman", "pacman -S postgresql", None),
];

/// One installation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Programs {
    major: u32,
    minor: u32,
    dir: PathBuf,
}

impl Programs {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }

    /// Small installations have the server alone.
    fn upgrades(&self, made: u32) -> bool {
        self.major > made && self.path("pg_upgrade").is_file()
    }

    fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// The newest programs that fit: of the major that made the cluster, if there is one; else 15 or newer. What is
/// configured counts alone; what is installed goes before what was fetched.
pub(super) async fn find(site: &Site) -> Result<Programs, Error> {
    let made_by = major_of_cluster(&site.cluster)?;
    let fits =
        |programs: &&Programs| programs.major >= OLDEST_MAJOR && made_by.is_none_or(|made| programs.major == made);
    let mut found = match &site.bin_dir {
        Some(dir) => BTreeSet::from([probe_configured(dir, &site.account).await?]),
        None if site.installed => probe_installed(&site.account).await,
        None => BTreeSet::new(),
    };
    if site.bin_dir.is_none() && !found.iter().any(|programs| fits(&programs)) {
        found.extend(probe_all(&fetched(site), &site.account).await);
    }
    let fitting = found.iter().rfind(fits).cloned();
    fitting.ok_or_else(|| missing(site, made_by, &found))
}

/// Nothing that was found fits.
fn missing(site: &Site, made_by: Option<u32>, found: &BTreeSet<Programs>) -> Error {
    let versions = found.iter().map(Programs::version).collect();
    match (made_by, found.last(), &site.bin_dir) {
        (Some(made), ..) => Error::WrongMajor {
            cluster: site.cluster.clone(),
            made,
            found: versions,
            newer: found.iter().rfind(|programs| programs.upgrades(made)).map(|programs| programs.dir.clone()),
            account: site.account.drops.then(|| site.account.name.clone()),
            not_fetched: site.bin_dir.as_ref().map(|_| NotFetched::Configured.into()),
        },
        (None, Some(old), Some(dir)) => Error::BadProgramDir {
            dir: dir.clone(),
            reason: format!("holds PostgreSQL {}, which is too old", old.version()),
        },
        _ => Error::NoPrograms { older: versions, not_fetched: None },
    }
}

/// The major version of the programs in this directory, if the account can run them; else why not.
pub(super) async fn try_out(dir: &Path, account: &Account) -> Result<u32, String> {
    let mut command = account.command(dir.join("postgres"));
    let output = timeout(PROBE_TIME_MAX, command.arg("--version").kill_on_drop(true).output()).await;
    match output {
        Err(_) => Err(format!("no answer in {} s", PROBE_TIME_MAX.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(output)) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            parse_version(&said).map(|(major, _)| major).ok_or_else(|| format!("it calls itself {}", said.trim()))
        }
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(said.lines().next().map_or_else(|| output.status.to_string(), str::to_owned))
        }
    }
}

/// One line on how to get PostgreSQL on this machine.
pub(super) fn how_to_install() -> String {
    let install = match packager() {
        Some((_, command, _)) => {
            format!("install it with `{command}` (version {OLDEST_MAJOR} or newer)")
        }
        None => format!("install the PostgreSQL server, version {OLDEST_MAJOR} or newer"),
    };
    format!("{install}, or set DATABASE_URL to a PostgreSQL that runs elsewhere")
}

/// How to get a certain major version, where the packager of this machine has several.
pub(super) fn install_command(major: u32) -> Option<String> {
    let (_, _, command) = packager()?;
    Some(command.as_ref()?.replace('%', &major.to_string()))
}

fn packager() -> Option<&'static (&'static str, &'static str, Option<&'static str>)> {
    PACKAGERS.iter().find(|(program, ..)| in_path(program).next().is_some())
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

async fn probe_installed(account: &Account) -> BTreeSet<Programs> {
    let mut dirs: BTreeSet<PathBuf> = in_path("postgres").filter_map(|path| real_dir_of(&path)).collect();
    for pg_config in in_path("pg_config") {
        let bindir = output(account, &pg_config, "--bindir").await;
        dirs.extend(bindir.and_then(|dir| real_dir_of(&Path::new(dir.trim()).join("postgres"))));
    }
    dirs.extend(usual_places().iter().filter_map(|dir| real_dir_of(&dir.join("postgres"))));
    probe_all(&dirs, account).await
}

async fn probe_all(dirs: &BTreeSet<PathBuf>, account: &Account) -> BTreeSet<Programs> {
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

/// The directories of fetched builds; one in the making starts with a dot.
fn fetched(site: &Site) -> BTreeSet<PathBuf> {
    let children = fs::read_dir(&site.fetched).into_iter().flatten().flatten();
    let whole = children.filter(|child| !child.file_name().to_string_lossy().starts_with('.'));
    whole.map(|child| child.path().join("bin")).collect()
}

fn in_path(program: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    dirs.into_iter().map(move |dir| dir.join(program)).filter(|path| path.is_file())
}

pub(super) fn holds_server(dir: &Path) -> bool {
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
