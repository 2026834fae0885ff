//! The private PostgreSQL on a machine that has none: fetched from a server of this test, with the real programs of
//! this machine in the archive.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use sha2::{Digest, Sha256};
use sqlx::{ConnectOptions, Connection};
use tar::{Builder, EntryType, Header};
use tenancy::config::POSTGRES_RELEASES;
use tenancy::database::embedded::{Embedded, Error, Purpose, Settings, programs};

/// What a new database is made with.
const FRESH: &str = "17.11.0";

/// A data directory whose server is killed at the end, on a machine that seems to have no PostgreSQL.
struct Home {
    root: tempfile::TempDir,
    data_dir: PathBuf,
}

impl Home {
    fn new() -> Self {
        if INSTALLED.is_none() {
            // Not by a macro, whose output is shown only with the test's; and once.
            let left_out =
                "left out: tests/fetch.rs, which makes archives of an installed PostgreSQL, and there is none";
            let _ = writeln!(std::io::stderr(), "{left_out}");
            std::process::exit(0);
        }
        let root = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            fs::set_permissions(root.path(), Permissions::from_mode(0o711)).unwrap();
        }
        let data_dir = root.path().canonicalize().unwrap().join("data");
        Self { root, data_dir }
    }

    fn settings(&self, mirror: &Mirror) -> Settings {
        Settings { installed: false, fetch_from: Some(mirror.url()), ..Settings::new(&self.data_dir) }
    }

    async fn open(&self, mirror: &Mirror) -> Result<Embedded, Error> {
        Embedded::open(&self.settings(mirror), Purpose::Command).await
    }

    /// Why it does not open, for a person; nothing must be left of what was fetched.
    async fn refusal(&self, mirror: &Mirror) -> String {
        let error = self.open(mirror).await.unwrap_err();
        assert_eq!(self.fetched(), Vec::<String>::new(), "something is left");
        told(&error)
    }

    /// The names in the directory of fetched builds.
    fn fetched(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data_dir.join("postgresql")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn cluster(&self) -> PathBuf {
        self.data_dir.join("postgres")
    }

    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok().map(Pid::from_raw)
    }

    /// A directory that says who made it, and belongs to the account that would run it.
    fn pretend_cluster(&self, version: &str) {
        fs::create_dir_all(self.cluster()).unwrap();
        fs::write(self.cluster().join("PG_VERSION"), format!("{version}\n")).unwrap();
        fs::set_permissions(self.cluster(), Permissions::from_mode(0o700)).unwrap();
        if geteuid().is_root() {
            let nobody = User::from_name("nobody").unwrap().unwrap();
            std::os::unix::fs::chown(self.cluster(), Some(nobody.uid.as_raw()), None).unwrap();
        }
    }

    /// Another process that opens the database, closes it, and says how that went.
    fn opener(&self, mirror: &Mirror) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "opens_for_another_test", "--ignored", "--nocapture"])
            .env("FETCH_TEST_DATA_DIR", &self.data_dir)
            .env("FETCH_TEST_URL", mirror.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(pid) = self.postmaster() {
            let _ = kill(pid, Signal::SIGQUIT);
        }
    }
}

fn told(error: &Error) -> String {
    format!("{error}\n{}", error.remedy().unwrap_or_default())
}

#[tokio::test]
#[ignore = "not a test: the other process of the tests below"]
async fn opens_for_another_test() {
    let Some(data_dir) = std::env::var_os("FETCH_TEST_DATA_DIR") else {
        return;
    };
    let fetch_from = std::env::var("FETCH_TEST_URL").ok();
    let settings = Settings { installed: false, fetch_from, ..Settings::new(data_dir) };
    let embedded = Embedded::open(&settings, Purpose::Command).await.unwrap();
    println!("answer: {}", embedded.describe());
    embedded.close().await.unwrap();
}

/// How an answer is sent.
#[derive(Clone)]
enum Answer {
    Whole(Vec<u8>),
    /// Says the length of all, and sends the first half.
    Half(Vec<u8>),
    /// Sends the first half, without having said a length.
    HalfUnsized(Vec<u8>),
    /// Sends the first half, and then nothing while the test runs.
    HalfAndWait(Vec<u8>),
    /// Says a length and sends nothing of it.
    Sized(u64),
    /// Says no length, and goes on for 300 MiB.
    Unsized,
}

/// A place with builds, that counts what it is asked for.
struct Mirror {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    fn serve(answers: impl IntoIterator<Item = (String, Answer)>) -> Self {
        let answers: HashMap<String, Answer> = answers.into_iter().collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, log) = (answers.clone(), log.clone());
                std::thread::spawn(move || answer(stream, &answers, &log));
            }
        });
        Self { port, asked }
    }

    /// A build with the checksum that belongs to it.
    fn with(version: &str, archive: Vec<u8>) -> Self {
        let checksum = checksum(version, &archive);
        Self::serve([checksum, (path(version), Answer::Whole(archive))])
    }

    /// Nobody listens there any more.
    fn gone() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, asked: Arc::default() }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/builds", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, answers: &HashMap<String, Answer>, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)) else {
        return;
    };
    lines.by_ref().find(String::is_empty);
    log.lock().unwrap().push(path.clone());
    let sized = |length: u64| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let open = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned();
    let (head, body) = match answers.get(&path).cloned() {
        None => ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(), Vec::new()),
        Some(Answer::Whole(body)) => (sized(body.len() as u64), body),
        Some(Answer::Half(body) | Answer::HalfAndWait(body)) => (sized(body.len() as u64), half(&body)),
        Some(Answer::HalfUnsized(body)) => (open, half(&body)),
        Some(Answer::Sized(length)) => (sized(length), Vec::new()),
        Some(Answer::Unsized) => (open, Vec::new()),
    };
    // A client that has heard enough hangs up.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    match answers.get(&path) {
        Some(Answer::Unsized) => {
            let _ = (0..300 * 16).try_for_each(|_| stream.write_all(&[0; 65_536]));
        }
        Some(Answer::HalfAndWait(_)) => std::thread::sleep(Duration::from_secs(60)),
        _ => {}
    }
}

fn half(body: &[u8]) -> Vec<u8> {
    body[..body.len() / 2].to_vec()
}

fn target() -> String {
    let machine = std::env::consts::ARCH;
    match std::env::consts::OS {
        "macos" => format!("{machine}-apple-darwin"),
        _ if cfg!(target_env = "musl") => format!("{machine}-unknown-linux-musl"),
        _ => format!("{machine}-unknown-linux-gnu"),
    }
}

fn name(version: &str) -> String {
    format!("postgresql-{version}-{}", target())
}

fn path(version: &str) -> String {
    format!("/builds/{version}/{}.tar.gz", name(version))
}

/// As `sha256sum` writes it.
fn checksum(version: &str, archive: &[u8]) -> (String, Answer) {
    let hash: String = Sha256::digest(archive).iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!("{hash}  {}.tar.gz\n", name(version));
    (format!("{}.sha256", path(version)), Answer::Whole(line.into_bytes()))
}

/// An archive in the making, in which everything lies in the folder of this version.
struct Pack {
    builder: Builder<GzEncoder<Vec<u8>>>,
    top: String,
}

impl Pack {
    fn new(version: &str) -> Self {
        Self { builder: Builder::new(GzEncoder::new(Vec::new(), Compression::fast())), top: name(version) }
    }

    fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        let path = format!("{}/{path}", self.top);
        self.entry(EntryType::Regular, &path, "", mode, content);
        self
    }

    fn link(mut self, path: &str, to: &str) -> Self {
        let path = format!("{}/{path}", self.top);
        self.entry(EntryType::Symlink, &path, to, 0o777, b"");
        self
    }

    /// Written by hand: the builder would refuse such a path.
    fn entry(&mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.builder.append(&header, content).unwrap();
    }

    fn finish(self) -> Vec<u8> {
        self.builder.into_inner().unwrap().finish().unwrap()
    }
}

/// The real programs. They find the rest of PostgreSQL where it is installed. Because that may be of another major
/// version than the archive's, a script tells its version, until there is a database that tells the real one.
fn build(version: &str) -> Vec<u8> {
    let (major, minor) = version.trim_end_matches(".0").split_once('.').unwrap();
    let script = format!(
        "#!/bin/sh\nhere=$(dirname \"$0\")\n\
         [ \"$1\" = --version ] && ! [ -e \"$here/../../../postgres/PG_VERSION\" ] && \
         echo 'postgres (PostgreSQL) {major}.{minor}' && exit 0\n\
         exec \"$here/../lib/real/postgres\" \"$@\"\n"
    );
    let program = |program: &str| fs::read(installed().join(program)).unwrap();
    // Modes and order as an archive should rather not have them: readable to nobody else.
    Pack::new(version)
        .file("bin/postgres", 0o700, script.as_bytes())
        .file("bin/initdb", 0o700, &program("initdb"))
        .file("lib/real/postgres", 0o700, &program("postgres"))
        .link("lib/postgres", "real/postgres")
        .file("share/README", 0o600, b"for completeness")
        .finish()
}

static FRESH_BUILD: LazyLock<Vec<u8>> = LazyLock::new(|| build(FRESH));

/// Where the programs of this machine are.
static INSTALLED: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    dirs.sort();
    let output = Command::new("pg_config").arg("--bindir").output();
    dirs.extend(output.ok().map(|output| PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())));
    dirs.retain(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file());
    dirs.pop()
});

fn installed() -> &'static Path {
    INSTALLED.as_deref().unwrap()
}

fn installed_major() -> u32 {
    let output = Command::new(installed().join("postgres")).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_once(") ").unwrap().1.split('.').next().unwrap().trim().parse().unwrap()
}

async fn works(embedded: &Embedded) {
    let mut connection = embedded.connect_options().connect().await.unwrap();
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(one, 1);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn fetches_once_and_runs_what_it_fetched() {
    let home = Home::new();
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    let embedded = home.open(&mirror).await.unwrap();
    works(&embedded).await;
    assert_eq!(mirror.asked(), [format!("{}.sha256", path(FRESH)), path(FRESH)]);
    assert_eq!(home.fetched(), [FRESH]);
    let program = home.data_dir.join("postgresql").join(FRESH).join("lib/real/postgres");
    let server = home.postmaster().unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(fs::read_link(format!("/proc/{server}/exe")).unwrap(), program);
        let runs_as = fs::metadata(format!("/proc/{server}")).unwrap().uid();
        assert_ne!(runs_as, 0, "PostgreSQL runs under an unprivileged account");
    }
    // The account that runs it may not change it, and may read it whatever the archive said.
    assert_eq!(fs::metadata(&program).unwrap().uid(), geteuid().as_raw());
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o777, 0o755);
    embedded.close().await.unwrap();

    let embedded = home.open(&Mirror::gone()).await.unwrap();
    works(&embedded).await;
    embedded.close().await.unwrap();
    assert_eq!(mirror.asked().len(), 2);
}

#[tokio::test]
async fn programs_alone_are_fetched_without_a_database() {
    let home = Home::new();
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    let dir = programs(&home.settings(&mirror)).await.unwrap();
    assert_eq!(dir, home.data_dir.join("postgresql").join(FRESH).join("bin"));
    assert_eq!(programs(&home.settings(&Mirror::gone())).await.unwrap(), dir);
    assert!(!home.cluster().exists());
}

#[tokio::test]
async fn takes_what_is_installed_before_it_fetches() {
    let home = Home::new();
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    let settings = Settings { installed: true, ..home.settings(&mirror) };
    let embedded = Embedded::open(&settings, Purpose::Command).await.unwrap();
    embedded.close().await.unwrap();
    assert_eq!(mirror.asked(), Vec::<String>::new());
}

/// A machine whose distribution has moved on to the next major version.
#[tokio::test]
async fn fetches_the_major_that_made_the_data() {
    let home = Home::new();
    let embedded = Embedded::open(&Settings::new(&home.data_dir), Purpose::Command).await.unwrap();
    embedded.close().await.unwrap();
    let version = match installed_major() {
        15 => "15.19.0",
        16 => "16.15.0",
        17 => FRESH,
        18 => "18.6.0",
        other => panic!("no build of {other} is known"),
    };
    let mirror = Mirror::with(version, build(version));
    let embedded = home.open(&mirror).await.unwrap();
    works(&embedded).await;
    embedded.close().await.unwrap();
    assert_eq!(home.fetched(), [version]);
}

#[tokio::test]
async fn fetches_once_for_many_who_start_together() {
    let home = Home::new();
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    let openers: Vec<Child> = (0..4).map(|_| home.opener(&mirror)).collect();
    for opener in openers {
        let output = opener.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(mirror.asked().len(), 2);
}

#[tokio::test]
async fn goes_on_after_one_who_was_killed_in_the_middle() {
    let home = Home::new();
    let archive = FRESH_BUILD.clone();
    let slow = Mirror::serve([checksum(FRESH, &archive), (path(FRESH), Answer::HalfAndWait(archive.clone()))]);
    let mut opener = home.opener(&slow);
    let begun = || home.fetched().iter().any(|name| name.starts_with(".fetch."));
    let since = Instant::now();
    while !(begun() && slow.asked().len() == 2) {
        assert!(since.elapsed() < Duration::from_secs(20), "it does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    opener.kill().unwrap();
    opener.wait().unwrap();
    assert!(begun(), "what was half done lies there");
    let embedded = home.open(&Mirror::with(FRESH, archive)).await.unwrap();
    works(&embedded).await;
    embedded.close().await.unwrap();
    assert_eq!(home.fetched(), [FRESH]);
}

/// At whatever point: checksum, download, unpacking, flushing.
#[tokio::test]
async fn goes_on_wherever_it_was_killed() {
    let home = Home::new();
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    for delay in [30, 60, 90, 120, 160, 200, 260, 350] {
        let mut opener = home.opener(&mirror);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        opener.kill().unwrap();
        opener.wait().unwrap();
    }
    let embedded = home.open(&mirror).await.unwrap();
    works(&embedded).await;
    embedded.close().await.unwrap();
    assert_eq!(home.fetched(), [FRESH]);
}

/// Between putting the build in its place and removing what it was made from.
#[tokio::test]
async fn what_a_fetch_left_that_was_killed_at_its_end_is_removed_by_the_next_start() {
    let home = Home::new();
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    home.open(&mirror).await.unwrap().close().await.unwrap();
    let left = home.data_dir.join("postgresql/.fetch.4711");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("archive.tar.gz"), b"an archive").unwrap();
    home.open(&mirror).await.unwrap().close().await.unwrap();
    assert_eq!(home.fetched(), [FRESH]);
}

#[tokio::test]
async fn refuses_a_wrong_checksum_and_keeps_nothing() {
    let home = Home::new();
    let archive = FRESH_BUILD.clone();
    let mirror = Mirror::serve([checksum(FRESH, b"something else"), (path(FRESH), Answer::Whole(archive))]);
    let message = home.refusal(&mirror).await;
    assert!(message.contains("is refused: its SHA-256 is"), "{message}");
    assert!(message.contains("TENANCY_DATABASE__POSTGRES_FETCH_URL"), "{message}");
}

#[tokio::test]
async fn refuses_an_archive_without_a_checksum() {
    let home = Home::new();
    let mirror = Mirror::serve([(path(FRESH), Answer::Whole(FRESH_BUILD.clone()))]);
    let message = home.refusal(&mirror).await;
    assert!(message.contains(".sha256 cannot be fetched: the answer is 404 Not Found"), "{message}");
    let empty = (format!("{}.sha256", path(FRESH)), Answer::Whole(b"<html>no such file</html>".to_vec()));
    let message = home.refusal(&Mirror::serve([empty])).await;
    assert!(message.contains("it holds no SHA-256"), "{message}");
}

#[tokio::test]
async fn refuses_what_broke_off() {
    let home = Home::new();
    let archive = FRESH_BUILD.clone();
    let mirror = Mirror::serve([checksum(FRESH, &archive), (path(FRESH), Answer::Half(archive.clone()))]);
    let message = home.refusal(&mirror).await;
    assert!(message.contains("it broke off"), "{message}");
    let mirror = Mirror::serve([checksum(FRESH, &archive), (path(FRESH), Answer::HalfUnsized(archive))]);
    let message = home.refusal(&mirror).await;
    assert!(message.contains("its SHA-256 is"), "{message}");
}

#[tokio::test]
async fn refuses_what_is_too_large() {
    let home = Home::new();
    for answer in [Answer::Sized(257 * 1024 * 1024), Answer::Unsized] {
        let mirror = Mirror::serve([checksum(FRESH, b""), (path(FRESH), answer)]);
        let message = home.refusal(&mirror).await;
        assert!(message.contains("it is larger than 256.00 MiB"), "{message}");
    }
}

#[tokio::test]
async fn says_at_once_that_nobody_answers_and_what_to_do() {
    let home = Home::new();
    let since = Instant::now();
    let message = home.refusal(&Mirror::gone()).await;
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    let (reason, remedy) = message.split_once('\n').unwrap();
    assert!(reason.starts_with("no PostgreSQL 15 or newer on this machine, and http://127.0.0.1:"), "{message}");
    assert!(reason.to_lowercase().contains("connection refused"), "{message}");
    assert!(remedy.contains("install") && remedy.contains("DATABASE_URL") && remedy.contains("FETCH_URL"), "{message}");
    assert_eq!(remedy.lines().count(), 1, "{message}");
}

#[tokio::test]
async fn fetches_nothing_unless_allowed() {
    let home = Home::new();
    let settings = Settings { installed: false, ..Settings::new(&home.data_dir) };
    let error = Embedded::open(&settings, Purpose::Command).await.unwrap_err();
    let message = told(&error);
    assert!(message.contains("fetching one is switched off"), "{message}");
    assert!(message.contains("TENANCY_DATABASE__POSTGRES_FETCH=true"), "{message}");
}

#[tokio::test]
async fn refuses_an_archive_that_leads_out() {
    let home = Home::new();
    let outside = home.root.path().join("evil");
    let top = name(FRESH);
    let ways: [&[(EntryType, String, &str)]; 5] = [
        &[(EntryType::Regular, format!("{top}/../../../../evil"), "")],
        &[(EntryType::Regular, outside.display().to_string(), "")],
        &[(EntryType::Regular, "elsewhere/evil".to_owned(), "")],
        &[
            (EntryType::Symlink, format!("{top}/way"), "../../../.."),
            (EntryType::Regular, format!("{top}/way/evil"), ""),
        ],
        &[(EntryType::Link, format!("{top}/passwd"), "/etc/passwd")],
    ];
    for way in ways {
        let mut pack = Pack::new(FRESH).file("bin/initdb", 0o755, b"").file("bin/postgres", 0o755, b"");
        for (kind, path, link) in way {
            pack.entry(*kind, path, link, 0o644, if *kind == EntryType::Regular { b"evil" } else { b"" });
        }
        let message = home.refusal(&Mirror::with(FRESH, pack.finish())).await;
        assert!(message.contains("would lie outside") || message.contains("leads outside"), "{message}");
        assert!(!outside.exists(), "{way:?}");
    }
}

#[tokio::test]
async fn refuses_an_archive_of_something_else() {
    let home = Home::new();
    let message = home.refusal(&Mirror::with(FRESH, Pack::new(FRESH).file("bin/psql", 0o755, b"").finish())).await;
    assert!(message.contains("bin/postgres and initdb"), "{message}");
    let message = home.refusal(&Mirror::with(FRESH, b"no archive at all".to_vec())).await;
    assert!(message.contains("is refused"), "{message}");
    let other = Pack::new(FRESH)
        .file("bin/initdb", 0o755, b"")
        .file("bin/postgres", 0o755, b"#!/bin/sh\necho 'postgres (PostgreSQL) 16.15'\n")
        .finish();
    let message = home.refusal(&Mirror::with(FRESH, other)).await;
    assert!(message.contains("it holds PostgreSQL 16"), "{message}");
}

/// It will run when the library has been installed, so it is kept and not fetched again.
#[tokio::test]
async fn says_what_a_fetched_build_misses_and_keeps_it() {
    let home = Home::new();
    let script = b"#!/bin/sh\necho 'postgres: error while loading shared libraries: libxml2.so.2' >&2\nexit 127\n";
    let archive = Pack::new(FRESH).file("bin/initdb", 0o755, b"").file("bin/postgres", 0o755, script).finish();
    let mirror = Mirror::with(FRESH, archive);
    for _ in 0..2 {
        let error = home.open(&mirror).await.unwrap_err();
        let message = told(&error);
        assert!(message.contains("does not run here: postgres: error while loading"), "{message}");
        assert!(message.contains("install the libraries"), "{message}");
    }
    assert_eq!(mirror.asked().len(), 2);
}

#[tokio::test]
async fn names_both_ways_on_for_data_that_nothing_opens() {
    let home = Home::new();
    home.pretend_cluster("99");
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    let error = home.open(&mirror).await.unwrap_err();
    let cluster = home.cluster().display().to_string();
    let expected = format!(
        "the data in {cluster} was made by PostgreSQL 99; no version is at hand, and no build of PostgreSQL 99 is known \
         to this program"
    );
    assert_eq!(error.to_string(), expected);
    let remedy = error.remedy().unwrap();
    assert!(remedy.starts_with("Nothing was touched. There are two ways on"), "{remedy}");
    assert!(remedy.contains("1. Go on with PostgreSQL 99") && remedy.contains("POSTGRES_BIN_DIR=OLD"), "{remedy}");
    assert!(remedy.contains(&format!("OLD/pg_ctl -w -D {cluster}")) && remedy.contains("pg_dump"), "{remedy}");
    assert_eq!(mirror.asked(), Vec::<String>::new());
    assert_eq!(fs::read_dir(home.cluster()).unwrap().count(), 1, "nothing was touched");
}

#[tokio::test]
async fn names_the_upgrade_where_a_newer_major_is_installed() {
    let home = Home::new();
    home.pretend_cluster(&(installed_major() - 1).to_string());
    let settings = Settings { fetch_from: None, ..Settings::new(&home.data_dir) };
    let error = Embedded::open(&settings, Purpose::Command).await.unwrap_err();
    assert!(error.to_string().ends_with("fetching one is switched off"), "{error}");
    let (remedy, cluster) = (error.remedy().unwrap(), home.cluster().display().to_string());
    let upgrade = format!("-d {cluster}.{} -D {cluster}", installed_major() - 1);
    assert!(remedy.contains("pg_upgrade") && remedy.ends_with(&upgrade), "{remedy}");
}

#[tokio::test]
async fn does_not_fetch_past_a_configured_directory() {
    let home = Home::new();
    home.pretend_cluster("18");
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    let settings = Settings { bin_dir: Some(installed().to_path_buf()), ..home.settings(&mirror) };
    let error = Embedded::open(&settings, Purpose::Command).await.unwrap_err();
    let message = told(&error);
    assert!(message.contains("the configured directory of programs counts alone"), "{message}");
    assert!(message.contains("leave TENANCY_DATABASE__POSTGRES_BIN_DIR out"), "{message}");
    assert_eq!(mirror.asked(), Vec::<String>::new());
}

/// The owner of the directory could lead what root writes there elsewhere.
#[tokio::test]
async fn as_root_fetches_nothing_into_the_directory_of_another() {
    if !geteuid().is_root() {
        return;
    }
    let home = Home::new();
    fs::create_dir(&home.data_dir).unwrap();
    std::os::unix::fs::chown(&home.data_dir, Some(12_345), None).unwrap();
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    let message = home.refusal(&mirror).await;
    assert!(message.contains("belongs to another account"), "{message}");
    assert_eq!(mirror.asked(), Vec::<String>::new());
}

/// Through the program itself, with settings from the environment.
#[tokio::test]
async fn tells_of_its_progress_on_standard_error() {
    let home = Home::new();
    let mirror = Mirror::with(FRESH, FRESH_BUILD.clone());
    let output = Command::new(env!("CARGO_BIN_EXE_tenancy"))
        .arg("migrate")
        .env("TENANCY_DATA_DIR", &home.data_dir)
        .env("TENANCY_DATABASE__POSTGRES_INSTALLED", "false")
        .env("TENANCY_DATABASE__POSTGRES_FETCH_URL", format!("{}/", mirror.url()))
        .env_remove("DATABASE_URL")
        .env_remove("TENANCY_LOG")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains(&format!("fetching PostgreSQL {FRESH}, once")), "{stderr}");
    assert!(stderr.contains(&format!("PostgreSQL {FRESH} is fetched")), "{stderr}");
    assert!(stdout.contains("migrated"), "{stdout}");
}

#[test]
fn fetches_from_where_the_builds_are_published_unless_told_otherwise() {
    let config = tenancy::config::Config::default();
    assert!(config.database.postgres_fetch && config.database.postgres_installed);
    assert_eq!(config.database.postgres_fetch_url.as_str(), POSTGRES_RELEASES);
}
