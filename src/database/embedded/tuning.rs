//! The server's settings.
//!
//! They are given on the command line at every start: so they follow upgrades
//! of this program, nothing in the data directory overrides them, and root never
//! writes into a directory of another account. An operator who wants other settings has
//! outgrown the private server and sets DATABASE_URL.

use std::fs;
use std::path::Path;

use super::socket::PORT;

const MIB: u64 = 1024 * 1024;
/// What we suppose where the system does not say how much memory there is.
const MEMORY_UNKNOWN: u64 = 2048 * MIB;

/// Names and values for `postgres -c name=value`.
pub(super) fn settings(socket_dir: &Path) -> Vec<(&'static str, String)> {
    let memory = memory_bytes();
    let mib = |bytes: u64| format!("{}MB", bytes / MIB);
    let mut settings: Vec<(&'static str, String)> = vec![
        ("listen_addresses", String::new()),
        ("port", PORT.to_string()),
        ("unix_socket_directories", quoted(socket_dir)),
        // The machine is shared with the service and with whatever else runs there.
        ("shared_buffers", mib((memory / 8).clamp(32 * MIB, 1024 * MIB))),
        ("effective_cache_size", mib((memory / 2).max(64 * MIB))),
        ("maintenance_work_mem", mib((memory / 32).clamp(16 * MIB, 256 * MIB))),
    ];
    settings.extend(FIXED.map(|(name, value)| (name, value.to_owned())));
    settings
}

const FIXED: [(&str, &str); 20] = [
    ("cluster_name", "tenancy"),
    ("max_connections", "200"),
    ("unix_socket_permissions", "0700"),
    ("ssl", "off"),
    // Nothing that was acknowledged may be lost, whatever somebody tried in the data directory.
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("max_wal_size", "2GB"),
    ("wal_compression", "on"),
    // Short statements on a local disk: compiling them or seeking less does not pay.
    ("jit", "off"),
    ("random_page_cost", "1.1"),
    // The same results on every machine.
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    // The log is our file (see `server`). Errors of single statements go to the
    // service, which knows what they mean, and would fill the log under conflicts.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_min_messages", "log"),
    ("log_min_error_statement", "fatal"),
    ("log_line_prefix", "%m [%p] "),
    ("log_checkpoints", "off"),
];

/// The setting is a list, where a comma or a blank in a path would separate.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('"', "\"\""))
}

/// What this machine, or the container we are in, has.
fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of_meminfo(&text));
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(container).min().unwrap_or(MEMORY_UNKNOWN)
}

fn total_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::{quoted, total_of_meminfo};
    use std::path::Path;

    #[test]
    fn reads_the_memory_of_the_machine() {
        assert_eq!(total_of_meminfo("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), Some(24_684_092 * 1024));
        assert_eq!(total_of_meminfo("nonsense"), None);
    }

    #[test]
    fn quotes_a_path_with_separators() {
        assert_eq!(quoted(Path::new("/a, b/\"c\"")), "\"/a, b/\"\"c\"\"\"");
    }
}
