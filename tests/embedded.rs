//! The private PostgreSQL, with real servers and real kill -9.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server_programs;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};
use tenancy::database::embedded::{Embedded, Error, Purpose, Settings};

use server_programs::server_programs;

fn settings(data_dir: impl Into<PathBuf>) -> Settings {
    Settings { bin_dir: Some(server_programs().to_path_buf()), ..Settings::new(data_dir) }
}

/// A data directory whose server is killed at the end, whatever the test did.
struct Home {
    _root: tempfile::TempDir,
    data_dir: PathBuf,
}

impl Home {
    fn new() -> Self {
        Self::at("data")
    }

    fn at(below: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        if nix::unistd::geteuid().is_root() {
            fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).unwrap();
        }
        let data_dir = root.path().canonicalize().unwrap().join(below);
        Self { _root: root, data_dir }
    }

    fn settings(&self) -> Settings {
        settings(&self.data_dir)
    }

    async fn open(&self, purpose: Purpose) -> Embedded {
        Embedded::open(&self.settings(), purpose).await.unwrap()
    }

    fn pid_file(&self) -> PathBuf {
        self.data_dir.join("postgres/postmaster.pid")
    }

    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        text.lines().next()?.parse().ok().map(Pid::from_raw)
    }

    fn kill_postmaster(&self) {
        kill(self.postmaster().unwrap(), Signal::SIGKILL).unwrap();
    }

    /// Starts a process that opens the server and holds it until its input ends.
    fn holder(&self, purpose: &str) -> Holder {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holds_the_server_for_another_test", "--ignored", "--nocapture"])
            .env("EMBEDDED_TEST_DATA_DIR", &self.data_dir)
            .env("EMBEDDED_TEST_PURPOSE", purpose)
            .env("TENANCY_DATABASE__POSTGRES_BIN_DIR", server_programs())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Holder { child, output }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(pid) = self.postmaster() {
            let _ = kill(pid, Signal::SIGQUIT);
        }
    }
}

struct Holder {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Holder {
    /// Waits until it holds the server: "ready"; or what it says instead.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, answer)) = line.split_once("answer: ") {
                return answer.trim().to_owned();
            }
            line.clear();
        }
        panic!("the holder ended without an answer");
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

async fn connect(embedded: &Embedded) -> PgConnection {
    embedded.connect_options().connect().await.unwrap()
}

async fn write(embedded: &Embedded, value: i32) {
    let mut connection = connect(embedded).await;
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (value int)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES ($1)").bind(value).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn read(embedded: &Embedded) -> Vec<i32> {
    let mut connection = connect(embedded).await;
    sqlx::query_scalar("SELECT value FROM kept ORDER BY value").fetch_all(&mut connection).await.unwrap()
}

async fn show(embedded: &Embedded, setting: &str) -> String {
    let mut connection = connect(embedded).await;
    sqlx::query_scalar(&format!("SHOW {setting}")).fetch_one(&mut connection).await.unwrap()
}

/// Since PostgreSQL 16 it is no setting any more.
async fn collation(embedded: &Embedded) -> String {
    let mut connection = connect(embedded).await;
    let query = "SELECT datcollate::text FROM pg_database WHERE datname = current_database()";
    sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
}

/// Connects again and again until the supervisor has brought the server back.
async fn eventually_reachable(embedded: &Embedded) {
    let since = Instant::now();
    while embedded.connect_options().connect().await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(20), "the server did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "not a test: the other process of the tests below"]
async fn holds_the_server_for_another_test() {
    let Some(data_dir) = std::env::var_os("EMBEDDED_TEST_DATA_DIR") else {
        return;
    };
    let purpose = match std::env::var("EMBEDDED_TEST_PURPOSE").as_deref() {
        Ok("serve") => Purpose::Serve,
        _ => Purpose::Command,
    };
    let settings = settings(data_dir);
    match Embedded::open(&settings, purpose).await {
        Ok(embedded) => {
            println!("answer: ready");
            std::io::stdout().flush().unwrap();
            tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
            embedded.close().await.unwrap();
        }
        Err(error) => println!("answer: {error} | {}", error.remedy().unwrap_or_default()),
    }
}

#[tokio::test]
async fn makes_and_keeps_a_database_with_full_durability() {
    let home = Home::at("not/there/yet");
    let embedded = home.open(Purpose::Serve).await;
    assert!(embedded.describe().starts_with("PostgreSQL 1"), "{}", embedded.describe());
    assert_eq!(show(&embedded, "fsync").await, "on");
    assert_eq!(show(&embedded, "listen_addresses").await, "");
    assert_eq!(show(&embedded, "data_checksums").await, "on");
    assert_eq!(show(&embedded, "server_encoding").await, "UTF8");
    assert_eq!(collation(&embedded).await, "C");
    assert_eq!(show(&embedded, "max_connections").await, "200");
    assert_has_its_own_process_group(home.postmaster().unwrap());
    write(&embedded, 1).await;
    embedded.close().await.unwrap();
    assert!(home.postmaster().is_none(), "the last to leave stops the server");

    let since = Instant::now();
    let embedded = home.open(Purpose::Command).await;
    println!("warm start: {:?}", since.elapsed());
    assert_eq!(read(&embedded).await, [1]);
    let since = Instant::now();
    embedded.close().await.unwrap();
    println!("stop: {:?}", since.elapsed());
}

#[tokio::test]
async fn refuses_a_second_service_and_names_the_first() {
    let home = Home::new();
    let embedded = home.open(Purpose::Serve).await;
    let answer = home.holder("serve").answer();
    let expected = format!("already runs on {} (pid {})", home.data_dir.display(), std::process::id());
    assert!(answer.contains(&expected), "{answer}");
    assert!(answer.contains("TENANCY_DATA_DIR"), "{answer}");
    embedded.close().await.unwrap();
}

#[tokio::test]
async fn leaves_the_server_to_those_who_still_use_it() {
    let home = Home::new();
    let service = home.open(Purpose::Serve).await;
    let mut command = home.holder("command");
    assert_eq!(command.answer(), "ready");
    let first = home.postmaster();
    service.close().await.unwrap();
    assert_eq!(home.postmaster(), first, "the command still uses it");
    let service = home.open(Purpose::Serve).await;
    command.finish();
    assert_eq!(home.postmaster(), first, "the service uses it again");
    write(&service, 1).await;
    service.close().await.unwrap();
    assert!(home.postmaster().is_none());
}

#[tokio::test]
async fn lets_many_commands_start_at_once() {
    let home = Home::new();
    let mut holders: Vec<Holder> = (0..6).map(|_| home.holder("command")).collect();
    for holder in &mut holders {
        assert_eq!(holder.answer(), "ready");
    }
    holders.into_iter().for_each(Holder::finish);
    assert!(home.postmaster().is_none());
}

#[tokio::test]
async fn survives_commands_that_come_and_go_without_pause() {
    let home = Home::new();
    // The table has to be there: PostgreSQL's IF NOT EXISTS is not safe against others.
    let embedded = home.open(Purpose::Command).await;
    write(&embedded, -1).await;
    embedded.close().await.unwrap();
    let tasks = (0..4).map(|task| {
        let settings = home.settings();
        tokio::spawn(async move {
            for round in 0..8 {
                let embedded = Embedded::open(&settings, Purpose::Command).await.unwrap();
                write(&embedded, task * 100 + round).await;
                embedded.close().await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let embedded = home.open(Purpose::Command).await;
    assert_eq!(read(&embedded).await.len(), 33);
    embedded.close().await.unwrap();
}

#[tokio::test]
async fn adopts_the_server_of_a_killed_service() {
    let home = Home::new();
    let mut service = home.holder("serve");
    assert_eq!(service.answer(), "ready");
    let left_behind = home.postmaster();
    service.kill();
    let embedded = home.open(Purpose::Serve).await;
    assert_eq!(home.postmaster(), left_behind);
    write(&embedded, 1).await;
    // An adopted server is watched like a child.
    home.kill_postmaster();
    tokio::time::sleep(Duration::from_millis(50)).await;
    eventually_reachable(&embedded).await;
    assert_eq!(read(&embedded).await, [1]);
    embedded.close().await.unwrap();
    assert!(home.postmaster().is_none());
}

#[tokio::test]
async fn starts_the_server_again_when_it_is_killed() {
    let home = Home::new();
    let embedded = home.open(Purpose::Serve).await;
    for round in 0..3 {
        write(&embedded, round).await;
        let killed = home.postmaster();
        home.kill_postmaster();
        while home.postmaster() == killed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        eventually_reachable(&embedded).await;
    }
    assert_eq!(read(&embedded).await, [0, 1, 2]);
    embedded.close().await.unwrap();
}

#[tokio::test]
async fn recovers_when_both_were_killed_with_work_in_flight() {
    let home = Home::new();
    let mut service = home.holder("serve");
    assert_eq!(service.answer(), "ready");
    let beside = home.open(Purpose::Command).await;
    write(&beside, 1).await;
    // A backend that is busy outlives its postmaster for a while.
    let mut busy = connect(&beside).await;
    let busy = tokio::spawn(async move {
        sqlx::query("SELECT count(*) FROM generate_series(1, 20000000) a").execute(&mut busy).await.ok();
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.kill();
    home.kill_postmaster();
    drop(beside);
    let since = Instant::now();
    let embedded = home.open(Purpose::Serve).await;
    println!("recovered in {:?}", since.elapsed());
    assert_eq!(read(&embedded).await, [1]);
    embedded.close().await.unwrap();
    busy.await.unwrap();
}

#[tokio::test]
async fn ignores_a_pid_that_belongs_to_another_process_by_now() {
    let home = Home::new();
    let embedded = home.open(Purpose::Command).await;
    write(&embedded, 1).await;
    let text = fs::read_to_string(home.pid_file()).unwrap();
    let killed = home.postmaster().unwrap();
    home.kill_postmaster();
    drop(embedded);
    while fs::read_to_string(format!("/proc/{killed}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A process of the same account that is no PostgreSQL, and not our parent either.
    let owner = fs::metadata(home.data_dir.join("postgres")).unwrap().uid();
    let mut other = Command::new("sleep").arg("60").uid(owner).spawn().unwrap();
    let rest = text.split_once('\n').unwrap().1;
    fs::write(home.pid_file(), format!("{}\n{rest}", other.id())).unwrap();
    let embedded = home.open(Purpose::Command).await;
    assert_eq!(read(&embedded).await, [1]);
    other.kill().unwrap();
    other.wait().unwrap();
    embedded.close().await.unwrap();
}

#[tokio::test]
async fn recovers_from_a_start_that_was_killed_in_the_middle() {
    let home = Home::new();
    for delay in [20, 150, 400, 700, 900] {
        let mut first = home.holder("command");
        tokio::time::sleep(Duration::from_millis(delay)).await;
        first.child.kill().unwrap();
        first.child.wait().unwrap();
    }
    let embedded = home.open(Purpose::Command).await;
    write(&embedded, 1).await;
    embedded.close().await.unwrap();
    let leftovers = fs::read_dir(&home.data_dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("postgres.init."));
    assert_eq!(leftovers.count(), 0);
}

#[tokio::test]
async fn starts_anew_when_the_socket_is_lost() {
    let home = Home::new();
    let mut service = home.holder("serve");
    assert_eq!(service.answer(), "ready");
    service.kill();
    let pid_file = fs::read_to_string(home.pid_file()).unwrap();
    fs::remove_dir_all(pid_file.lines().nth(4).unwrap()).unwrap();
    let embedded = home.open(Purpose::Serve).await;
    write(&embedded, 1).await;
    embedded.close().await.unwrap();
}

#[tokio::test]
async fn never_starts_a_second_server_beside_one_that_it_does_not_see() {
    let home = Home::new();
    let embedded = home.open(Purpose::Command).await;
    // What somebody in another container sees: the locks, but no such process.
    let text = fs::read_to_string(home.pid_file()).unwrap();
    let rest = text.split_once('\n').unwrap().1;
    fs::write(home.pid_file(), format!("999999999\n{rest}")).unwrap();
    let answer = home.holder("serve").answer();
    assert!(answer.contains("cannot be reached from here"), "{answer}");
    fs::write(home.pid_file(), text).unwrap();
    embedded.close().await.unwrap();
    assert!(home.postmaster().is_none());
}

#[tokio::test]
async fn works_in_a_directory_too_deep_for_a_socket() {
    let home = Home::at(&format!("{}/{}", "long name, with blanks".repeat(5), "deep".repeat(40)));
    assert!(home.data_dir.as_os_str().len() > 250);
    let embedded = home.open(Purpose::Serve).await;
    write(&embedded, 1).await;
    embedded.close().await.unwrap();
}

#[tokio::test]
async fn says_which_major_version_made_the_data() {
    let home = Home::new();
    fs::create_dir_all(home.data_dir.join("postgres")).unwrap();
    fs::write(home.data_dir.join("postgres/PG_VERSION"), "99\n").unwrap();
    if nix::unistd::geteuid().is_root() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        std::os::unix::fs::chown(home.data_dir.join("postgres"), Some(nobody.uid.as_raw()), None).unwrap();
        fs::set_permissions(home.data_dir.join("postgres"), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let error = Embedded::open(&home.settings(), Purpose::Serve).await.unwrap_err();
    assert!(error.to_string().contains("made by PostgreSQL 99; at hand: "), "{error}");
    let remedy = error.remedy().unwrap();
    assert!(remedy.contains("Go on with PostgreSQL 99") && remedy.contains("pg_dump"), "{remedy}");
}

#[tokio::test]
async fn says_what_is_wrong_with_a_configured_directory() {
    let home = Home::new();
    let settings = Settings { bin_dir: Some("/nowhere".into()), ..home.settings() };
    let error = Embedded::open(&settings, Purpose::Serve).await.unwrap_err();
    assert!(matches!(error, Error::BadProgramDir { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere does not hold"), "{error}");
}

#[tokio::test]
async fn leaves_a_foreign_directory_alone() {
    let home = Home::new();
    let cluster = home.data_dir.join("postgres");
    fs::create_dir_all(&cluster).unwrap();
    if nix::unistd::geteuid().is_root() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        std::os::unix::fs::chown(&cluster, Some(nobody.uid.as_raw()), None).unwrap();
    }
    fs::write(cluster.join("thesis.txt"), "precious").unwrap();
    let error = Embedded::open(&home.settings(), Purpose::Serve).await.unwrap_err();
    assert!(matches!(error, Error::NotACluster { .. }), "{error}");
    assert!(exists(&cluster.join("thesis.txt")));
}

#[tokio::test]
async fn as_root_names_the_directory_that_is_closed_to_the_server() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let home = Home::at("closed/data");
    let closed = home.data_dir.parent().unwrap();
    fs::create_dir(closed).unwrap();
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = Embedded::open(&home.settings(), Purpose::Serve).await.unwrap_err();
    assert!(error.to_string().ends_with(&format!("may not pass through {}", closed.display())), "{error}");
    assert!(error.remedy().unwrap().contains("TENANCY_DATA_DIR"));
}

/// So ctrl-c in the service's terminal does not reach it.
fn assert_has_its_own_process_group(pid: Pid) {
    let output = Command::new("ps").args(["-o", "pgid=", "-p", &pid.to_string()]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), pid.to_string());
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}

#[tokio::test]
async fn loses_nothing_whatever_is_killed_whenever() {
    let home = Home::new();
    let mut acknowledged = Vec::new();
    for round in 0..12_i32 {
        let mut service = home.holder("serve");
        assert_eq!(service.answer(), "ready");
        let beside = home.open(Purpose::Command).await;
        let until = Instant::now() + Duration::from_millis(u64::try_from(round * 7).unwrap());
        let mut connection = connect(&beside).await;
        sqlx::query("CREATE TABLE IF NOT EXISTS kept (value int)").execute(&mut connection).await.unwrap();
        for number in 0.. {
            let value = round * 100_000 + number;
            sqlx::query("INSERT INTO kept VALUES ($1)").bind(value).execute(&mut connection).await.unwrap();
            acknowledged.push(value);
            if Instant::now() > until {
                break;
            }
        }
        match round % 4 {
            0 => service.kill(),
            1 => {
                home.kill_postmaster();
                service.kill();
            }
            2 => {
                service.kill();
                home.kill_postmaster();
            }
            _ => {
                home.kill_postmaster();
                // In the middle of the restart.
                tokio::time::sleep(Duration::from_millis(u64::try_from(90 + round * 10).unwrap())).await;
                service.kill();
            }
        }
    }
    let embedded = home.open(Purpose::Serve).await;
    assert_eq!(read(&embedded).await, acknowledged);
    embedded.close().await.unwrap();
}
