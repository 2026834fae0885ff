//! What the figures were measured on.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sqlx::PgPool;

/// Settings of PostgreSQL that decide what a figure is worth; both sides use the same server.
const SETTINGS: [&str; 16] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "wal_compression",
    "commit_delay",
    "shared_buffers",
    "effective_cache_size",
    "maintenance_work_mem",
    "work_mem",
    "max_wal_size",
    "checkpoint_timeout",
    "max_connections",
    "random_page_cost",
    "autovacuum",
];

/// The value of a setting.
pub async fn setting(pool: &PgPool, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(pool).await.expect("a setting can be read")
}

/// The machine, for the JSON. `directory` is where PostgreSQL has its files.
pub async fn describe(pool: &PgPool, directory: &Path) -> Value {
    let mut settings = serde_json::Map::new();
    for name in SETTINGS {
        settings.insert(name.to_owned(), setting(pool, name).await.into());
    }
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": line_of("/proc/cpuinfo", "model name"),
        "memory": line_of("/proc/meminfo", "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "file_system": file_system(directory),
        "load_before": read("/proc/loadavg"),
        "postgresql": settings,
    })
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn line_of(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
}

/// The type of the file system that holds `directory`.
pub fn file_system(directory: &Path) -> String {
    let directory = directory.canonicalize().unwrap_or_default();
    let mounts = read("/proc/mounts");
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holding = mounts.filter(|(place, _)| directory.starts_with(place)).max_by_key(|(place, _)| place.len());
    holding.map_or(String::new(), |(_, kind)| kind.to_owned())
}
