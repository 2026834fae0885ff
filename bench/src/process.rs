//! The service as a process of its own, as it runs in life.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::server::Database;

const START_WAIT: Duration = Duration::from_secs(60);

/// A running service.
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

/// The program: given, or built now beside this one, so that it is never an old one.
pub async fn program(given: Option<PathBuf>) -> Result<PathBuf, String> {
    if let Some(program) = given {
        return Ok(program);
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = own.parent().map(Path::to_path_buf).unwrap_or_default();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // Together with this program, so that both are built from the same libraries.
    build.args(["build", "--quiet", "--package", "tenancy", "--package", "bench", "--bin", "tenancy"]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    // What `cargo run` set for this program would make cargo take everything for changed.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG") || name == "SQLX_OFFLINE") {
        build.env_remove(name);
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().await.is_ok_and(|status| status.success());
    let program = profile.join("tenancy");
    match (built, program.is_file()) {
        (true, true) => Ok(program),
        _ => Err("the service was not built: run this by `cargo run --release -p bench`, or give --service".to_owned()),
    }
}

impl Service {
    /// Starts it on a database, and waits until it listens.
    pub async fn start(program: &Path, database: &Database) -> Self {
        Self::start_with(program, database, false).await
    }

    /// The same, or with a private PostgreSQL of its own in the data directory.
    pub async fn start_with(program: &Path, database: &Database, private: bool) -> Self {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TENANCY_")) {
            command.env_remove(name);
        }
        let mut environment = database.environment();
        if private {
            environment.remove("DATABASE_URL");
        }
        command
            .env_remove("DATABASE_URL")
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("the service starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it has an error stream")).lines();
        let listening = async {
            loop {
                let line = lines.next_line().await.expect("it can be read").expect("the service does not end");
                if let Some((_, address)) = line.split_once(" listens on http://") {
                    return address.parse().expect("an address");
                }
                eprintln!("  service: {line}");
            }
        };
        let address = tokio::time::timeout(START_WAIT, listening).await.expect("the service listens in time");
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                // What it greets with is indented, what it complains of is not.
                if !line.starts_with(' ') {
                    eprintln!("  service: {line}");
                }
            }
        });
        Self { address, child }
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// A line of `/proc/PID/status` in MiB: `VmRSS`, or `VmHWM` for the most that there ever was.
    pub fn memory(&self, line: &str) -> f64 {
        let path = format!("/proc/{}/status", self.child.id().unwrap_or_default());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map_or(f64::NAN, |kib| kib / 1024.0)
    }

    /// Stops it as an operator would.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = tokio::time::timeout(START_WAIT, self.child.wait()).await;
    }
}
