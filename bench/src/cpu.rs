//! CPU time a command: what a figure costs, whatever else the machine does meanwhile.
//!
//! Rates of a machine that is shared say as much of the others as of us, and they favour whoever has more processes:
//! the scheduler gives each of pgbench's 128 servers as much as the one that serves our writer. Time on the CPU does
//! not. It counts both sides whole: the server (all processes of PostgreSQL) and the generator with what it needs
//! (ours: this program, with the service in it or beside it; the reference's: pgbench).

use std::path::Path;

/// Ticks a second, as `/proc` counts on every Linux.
const TICKS: f64 = 100.0;

/// Microseconds that were spent until now.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// By PostgreSQL.
    server: f64,
    /// By this program and what it started and waited for, the service's process too.
    client: f64,
}

/// Microseconds a command.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// In PostgreSQL.
    pub server: f64,
    /// Elsewhere.
    pub client: f64,
}

impl Spent {
    /// Until now, with the postmaster's and perhaps a service's process.
    pub fn now(postmaster: Option<u32>, service: Option<u32>) -> Self {
        let own = std::process::id();
        let of = |pid: u32| ticks(pid).map_or(0.0, |(own, waited, _)| own + waited);
        let children = |parent: u32| -> f64 {
            let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
            pids.filter_map(ticks).filter(|(_, _, of)| *of == parent).map(|(own, _, _)| own).sum()
        };
        let server = postmaster.map_or(0.0, |pid| of(pid) + children(pid));
        Self { server, client: of(own) + service.map_or(0.0, of) }
    }

    /// What each of so many commands cost since then.
    pub fn each(self, until: Self, commands: u64) -> Cost {
        let commands = commands.max(1) as f64;
        Cost { server: (until.server - self.server) / commands, client: (until.client - self.client) / commands }
    }
}

/// The process of the server whose files are here.
pub fn postmaster(data_dir: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Microseconds of a process, of those that it waited for, and its parent.
fn ticks(pid: u32) -> Option<(f64, f64, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number)?.parse::<f64>().ok();
    let micros = 1_000_000.0 / TICKS;
    Some(((field(11)? + field(12)?) * micros, (field(13)? + field(14)?) * micros, fields.get(1)?.parse().ok()?))
}
