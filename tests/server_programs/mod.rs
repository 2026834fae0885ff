//! The programs of the PostgreSQL that tests run on: found or fetched as the service does, by the service's own settings
//! (`TENANCY_DATABASE__POSTGRES_…`). What is fetched is kept in `target/tmp`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tenancy::config::{Config, Flags, Surroundings, load_from};
use tenancy::database::embedded::{Error, Settings, programs};

/// Their directory. Without any, the process ends: one test after the other would say the same.
pub fn server_programs() -> &'static Path {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| match std::thread::spawn(find_or_fetch).join().unwrap() {
        Ok(dir) => dir,
        Err(error) => {
            let remedy = error.remedy().unwrap_or_default();
            // Not by a macro, whose output is shown only with the test's.
            let _ = writeln!(std::io::stderr(), "\nThere is no PostgreSQL for the tests: {error}\n{remedy}");
            std::process::exit(1)
        }
    });
    &DIR
}

/// In a thread of its own, because a test's thread has a runtime already.
#[tokio::main(flavor = "current_thread")]
async fn find_or_fetch() -> Result<PathBuf, Error> {
    // Looking is done for a data directory, and nothing stays in it.
    let nowhere = tempfile::tempdir().unwrap();
    let database = config(nowhere.path()).database;
    let installed = Settings {
        bin_dir: database.postgres_bin_dir,
        installed: database.postgres_installed,
        ..Settings::new(nowhere.path())
    };
    // First without `target`: the account that runs PostgreSQL need not reach that for programs that are installed.
    match programs(&installed).await {
        Err(_) if database.postgres_fetch => {
            let fetch_from = Some(database.postgres_fetch_url.as_str().to_owned());
            programs(&Settings { data_dir: env!("CARGO_TARGET_TMPDIR").into(), fetch_from, ..installed }).await
        }
        found => found,
    }
}

fn config(data_dir: &Path) -> Config {
    let own = |(name, _): &(String, String)| name.starts_with("TENANCY_DATABASE__POSTGRES_");
    let mut variables: BTreeMap<String, String> = std::env::vars().filter(own).collect();
    variables.insert("TENANCY_DATA_DIR".to_owned(), data_dir.display().to_string());
    load_from(&Flags::new(None), &Surroundings { variables, root: false, home: None }).unwrap().config
}
