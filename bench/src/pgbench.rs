//! pgbench, PostgreSQL's own load generator, as the references use it: `-M prepared -n`, over the unix socket.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::server::{Database, Server};

/// Where it is not in the path of programs.
const VERSIONS: &str = "/usr/lib/postgresql";

/// What a run of it takes.
pub struct Run<'a> {
    /// In which database.
    pub database: &'a Database,
    /// Scripts, chosen with equal chances.
    pub scripts: &'a [String],
    /// How many clients.
    pub clients: u32,
    /// For how long.
    pub seconds: f64,
    /// Variables.
    pub define: &'a [(&'static str, i64)],
}

/// What a run gave.
pub struct Gave {
    /// Transactions a second, without the time for connecting.
    pub rate: f64,
    /// Transactions.
    pub all: u64,
    /// Milliseconds of each transaction.
    pub latencies: Vec<f64>,
}

/// The program.
#[derive(Clone)]
pub struct Pgbench {
    program: PathBuf,
    socket: PathBuf,
    user: String,
}

impl Pgbench {
    /// Finds it.
    pub fn find(server: &Server) -> Result<Self, String> {
        let mut places: Vec<PathBuf> = std::fs::read_dir(VERSIONS)
            .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
            .unwrap_or_default();
        places.sort();
        places.reverse();
        places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let found = places.into_iter().map(|place| place.join("pgbench")).find(|program| program.is_file());
        let program = found.ok_or(
            "no pgbench: install the package that holds it (Debian: postgresql or postgresql-contrib; Fedora: \
             postgresql-contrib; Homebrew: postgresql)",
        )?;
        let (socket, user) = server.address();
        Ok(Self { program, socket, user })
    }

    /// How many transactions a second.
    pub async fn rate(&self, run: Run<'_>) -> Result<Gave, String> {
        self.run(run, None).await
    }

    /// With the time of each transaction.
    pub async fn latencies(&self, run: Run<'_>) -> Result<Vec<f64>, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        Ok(self.run(run, Some(directory.path())).await?.latencies)
    }

    async fn run(&self, run: Run<'_>, log: Option<&Path>) -> Result<Gave, String> {
        let scripts = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.program);
        command.arg("-h").arg(&self.socket).args(["-U", &self.user, "-M", "prepared", "-n"]);
        command.env("PGOPTIONS", format!("-c search_path={}", crate::progress::search_path()));
        command.args(["-c", &run.clients.to_string(), "-j", &run.clients.min(2).to_string()]);
        command.args(["-T", &format!("{}", run.seconds.round().max(1.0))]);
        for (number, script) in run.scripts.iter().enumerate() {
            let path = scripts.path().join(format!("{number}.sql"));
            std::fs::write(&path, script).map_err(|error| error.to_string())?;
            command.arg("-f").arg(path);
        }
        for (name, value) in run.define {
            command.args(["-D", &format!("{name}={value}")]);
        }
        if let Some(directory) = log {
            command.arg("-l").arg(format!("--log-prefix={}", directory.join("log").display()));
        }
        command.arg(&run.database.name).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let after = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split([' ', '(']).find_map(|word| word.parse::<f64>().ok())
        };
        let failed = after("number of failed transactions:").unwrap_or_default();
        let all = after("number of transactions actually processed:").unwrap_or_default() as u64;
        match after("tps =") {
            Some(rate) if output.status.success() && failed == 0.0 => {
                Ok(Gave { rate, all, latencies: log.map(read_log).transpose()?.unwrap_or_default() })
            }
            _ => Err(format!("pgbench failed: {text}{}", String::from_utf8_lossy(&output.stderr))),
        }
    }
}

/// The third column of each line is the transaction's time in microseconds.
fn read_log(directory: &Path) -> Result<Vec<f64>, String> {
    let mut latencies = vec![];
    for entry in std::fs::read_dir(directory).map_err(|error| error.to_string())?.flatten() {
        let text = std::fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
        let times = text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok());
        latencies.extend(times.map(|micros| micros / 1000.0));
    }
    Ok(latencies)
}
