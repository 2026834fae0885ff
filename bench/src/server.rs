//! The PostgreSQL of this run: one private server, started as the service starts its own, for both sides.
//!
//! Ours and every reference have a database each in the same server, so settings, disk and what else the machine
//! does are the same for both. The run refuses to begin unless commits are durable.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgPool};
use tenancy::config::{Config, Flags, Surroundings, load_from};
use tenancy::database::embedded::{Embedded, Purpose, Settings};

use crate::machine::{file_system, setting};

/// 32 bytes in base64. Nothing here outlives the run.
const MASTER_KEY: &str = "YmVuY2ggYmVuY2ggYmVuY2ggYmVuY2ggYmVuY2ggYmU=";

/// A running PostgreSQL.
pub struct Server {
    embedded: Mutex<Option<Embedded>>,
    options: PgConnectOptions,
    /// Connected to the first database, as whoever owns everything.
    pub pool: PgPool,
    directory: PathBuf,
}

/// A database in it.
#[derive(Clone)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Its address.
    pub url: String,
    /// Where its service has its files.
    pub data_dir: PathBuf,
    options: PgConnectOptions,
}

impl Server {
    /// Starts one with its files below `parent`, and refuses what would not be durable.
    pub async fn start(parent: &Path) -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("tenancy-bench-").tempdir_in(parent);
        let directory = directory.map_err(|error| format!("no directory in {}: {error}", parent.display()))?;
        // The account of the server passes through.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).map_err(|error| error.to_string())?;
        if file_system(directory.path()) == "tmpfs" {
            return Err(format!("{} is memory, where nothing is durable: give another --dir", parent.display()));
        }
        let settings = Settings::new(directory.path().join("server"));
        std::fs::create_dir(&settings.data_dir).map_err(|error| error.to_string())?;
        std::fs::set_permissions(&settings.data_dir, Permissions::from_mode(0o711))
            .map_err(|error| error.to_string())?;
        let embedded = Embedded::open(&settings, Purpose::Command).await.map_err(|error| error.to_string())?;
        let options = embedded.connect_options().disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(4).connect_with(options.clone()).await;
        let pool = pool.map_err(|error| error.to_string())?;
        let server = Self { embedded: Mutex::new(Some(embedded)), options, pool, directory: directory.keep() };
        match server.refuse_what_is_not_durable().await {
            Ok(()) => Ok(server),
            Err(why) => {
                server.stop().await;
                Err(why)
            }
        }
    }

    async fn refuse_what_is_not_durable(&self) -> Result<(), String> {
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value = setting(&self.pool, name).await;
            if value != "on" {
                return Err(format!("{name} is {value}: figures without durable commits say nothing"));
            }
        }
        Ok(())
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of its socket, and the user, as pgbench wants them.
    pub fn address(&self) -> (PathBuf, String) {
        (self.options.get_socket().cloned().unwrap_or_default(), self.options.get_username().to_owned())
    }

    /// A new database.
    pub async fn database(&self, name: &str) -> Database {
        let mut connection = self.options.connect().await.expect("the server answers");
        let statement = format!("CREATE DATABASE {name} TEMPLATE template0");
        connection.execute(statement.as_str()).await.expect("a database can be made");
        connection.close().await.expect("the server answers");
        self.nowhere(name)
    }

    /// A database that is not there, and a directory for a service.
    pub fn nowhere(&self, name: &str) -> Database {
        let (socket, user) = self.address();
        let data_dir = self.directory.join(name);
        std::fs::create_dir(&data_dir).expect("a directory can be made");
        std::fs::set_permissions(&data_dir, Permissions::from_mode(0o711)).expect("a directory can be opened");
        Database {
            name: name.to_owned(),
            url: format!("postgres://{user}@localhost/{name}?host={}", socket.display()),
            data_dir,
            options: self.options.clone().database(name),
        }
    }

    /// Writes everything out, so that no side pays for what the other one left.
    pub async fn checkpoint(&self) {
        self.pool.execute("CHECKPOINT").await.expect("a checkpoint");
    }

    /// Stops it, and removes its files.
    pub async fn stop(&self) {
        self.pool.close().await;
        let embedded = self.embedded.lock().expect("nobody panics here").take();
        if let Some(embedded) = embedded
            && let Err(error) = embedded.close().await
        {
            eprintln!("PostgreSQL did not stop: {error}");
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Database {
    /// The environment of a service on this database: the defaults, but for what a run of many tenants needs.
    pub fn environment(&self) -> BTreeMap<String, String> {
        [
            ("DATABASE_URL", self.url.as_str()),
            ("TENANCY_LISTEN", "127.0.0.1:0"),
            ("TENANCY_ACCESS__BUILTIN_ISSUER", "true"),
            ("TENANCY_ORGANIZATIONS__VERIFICATION_REQUIRED", "false"),
            ("TENANCY_SECRETS__MASTER_KEY", MASTER_KEY),
            ("TENANCY_SECRETS__AUDIT_KEYS", MASTER_KEY),
            ("TENANCY_DATA_DIR", &self.data_dir.display().to_string()),
            ("TENANCY_LOG", "warn"),
            // One caller at one address is the load here.
            ("TENANCY_RATE_LIMITS__ENABLED", "false"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The same as a configuration.
    pub fn config(&self) -> Config {
        let surroundings = Surroundings { variables: self.environment(), root: false, home: None };
        load_from(&Flags::new(None), &surroundings).expect("the configuration is right").config
    }

    /// Connections to it that find read models as the service does.
    pub async fn pool(&self, connections: u32) -> PgPool {
        let options = self.options.clone().options([("search_path", crate::progress::search_path())]);
        PgPoolOptions::new().max_connections(connections).connect_with(options).await.expect("the server answers")
    }
}
