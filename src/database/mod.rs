//! The database: the operators' own, or a private one; its pools and its migrations.

pub mod embedded;

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

use crate::config::Config;
use embedded::{Embedded, Purpose, Settings};

/// The migrations, built into the program; forward only.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The oldest PostgreSQL that will do.
const SERVER_VERSION_MIN: i32 = 150_000;
/// A connection that rested for so long is asked whether it lives before it is used.
const PING_AFTER: Duration = Duration::from_secs(1);
/// How long a request waits for a connection.
const ACQUIRE_WAIT: Duration = Duration::from_secs(5);
/// Connections of the projections: one a projection, and some for looking.
const PROJECTION_CONNECTIONS: u32 = 8;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The private one.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
    /// It cannot be reached, or refuses.
    #[error("the database cannot be used: {0}")]
    Database(#[from] sqlx::Error),
    /// It cannot be brought up to date.
    #[error("the database cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Something between changes what connections ask for.
    #[error("the settings of connections do not reach the database: a pooler between leaves them out")]
    Settings,
    /// It is too old.
    #[error("the database is PostgreSQL {0}, and 15 is the oldest that will do")]
    TooOld(String),
}

/// A database that can be connected to.
pub struct Database {
    embedded: Option<Embedded>,
    options: PgConnectOptions,
    connections_max: u32,
    /// For requests and commands.
    pub pool: PgPool,
    /// For projections, so that neither can starve the other.
    pub projections: PgPool,
}

impl Database {
    /// Opens the configured database, or the private one.
    pub async fn open(config: &Config, purpose: Purpose) -> Result<Self, Error> {
        let (embedded, options) = match &config.database.url {
            Some(url) => (None, url.expose().parse::<PgConnectOptions>()?),
            None => {
                let database = &config.database;
                let settings = Settings {
                    data_dir: config.data_dir.clone(),
                    bin_dir: database.postgres_bin_dir.clone(),
                    installed: database.postgres_installed,
                    fetch_from: database.postgres_fetch.then(|| database.postgres_fetch_url.as_str().to_owned()),
                };
                let embedded = Embedded::open(&settings, purpose).await?;
                let options = embedded.connect_options();
                (Some(embedded), options)
            }
        };
        let options = options.log_statements(tracing::log::LevelFilter::Trace);
        check_version(&options).await?;
        let statement_timeout = config.database.statement_timeout_ms.to_string();
        let settings = [
            ("search_path", projections::search_path()),
            ("statement_timeout", statement_timeout),
            // Small statements that are prepared once: planning them again each time costs more than running them, and
            // compiling them costs a hundred times as much. They look things up by arrays, of whose size the planner
            // knows nothing: without these settings it hashes whole tables where it should probe an index.
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("jit", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
            // Whoever holds locks and does not answer is cut off, so that a lease ends with its holder.
            ("idle_in_transaction_session_timeout", "10000".to_owned()),
            ("tcp_keepalives_idle", "5".to_owned()),
            ("tcp_keepalives_interval", "2".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ];
        let configured = options.clone().options(settings).application_name("tenancy");
        // What is only made from the log need not be flushed: a server that dies takes a read model's rows and the
        // checkpoint that goes with them, and both are made again. What a notification says needs no flush either.
        let made_again = configured.clone().options([("synchronous_commit", "off")]);
        let pool = |connections: u32, configured: PgConnectOptions| {
            let options = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_WAIT);
            // A round trip before each use would double those of most requests; only a connection that nobody used for
            // a while is asked whether it still lives.
            let options = options.test_before_acquire(false).before_acquire(|connection, use_so_far| {
                Box::pin(async move {
                    let rested = use_so_far.idle_for > PING_AFTER;
                    Ok(!rested || connection.ping().await.is_ok())
                })
            });
            options.connect_lazy_with(configured)
        };
        let connections_max = config.database.connections_max;
        Ok(Self {
            embedded,
            options,
            connections_max,
            pool: pool(connections_max, configured),
            projections: pool(PROJECTION_CONNECTIONS, made_again),
        })
    }

    /// How to connect beside the pools.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// How many connections requests share.
    pub fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// Brings the database up to date, and says which migrations that took. Several processes may do it at once.
    pub async fn migrate(&self) -> Result<Vec<String>, Error> {
        let applied = |pool: PgPool| async move {
            let known: Option<String> =
                sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text").fetch_one(&pool).await?;
            let versions: Vec<i64> = match known {
                None => vec![],
                Some(_) => sqlx::query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(&pool).await?,
            };
            Ok::<_, sqlx::Error>(versions)
        };
        let before = applied(self.pool.clone()).await?;
        MIGRATIONS.run(&self.pool).await?;
        let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&self.pool).await?;
        if path.replace(' ', "") != projections::search_path() {
            return Err(Error::Settings);
        }
        let new = MIGRATIONS.iter().filter(|migration| !before.contains(&migration.version));
        Ok(new.map(|migration| format!("{:04} {}", migration.version, migration.description)).collect())
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match &self.embedded {
            Some(embedded) => embedded.describe(),
            None => format!("PostgreSQL at {}", self.options.get_host()),
        }
    }

    /// Closes the pools, and stops the private server if nobody else uses it.
    pub async fn close(self) -> Result<(), Error> {
        self.projections.close().await;
        self.pool.close().await;
        if let Some(embedded) = self.embedded {
            embedded.close().await?;
        }
        Ok(())
    }
}

async fn check_version(options: &PgConnectOptions) -> Result<(), Error> {
    let mut connection =
        tokio::time::timeout(ACQUIRE_WAIT, options.connect()).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
    let number: String = sqlx::query_scalar("SHOW server_version_num").fetch_one(&mut connection).await?;
    let text: String = sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection).await?;
    connection.close().await?;
    match number.parse::<i32>() {
        Ok(number) if number >= SERVER_VERSION_MIN => Ok(()),
        _ => Err(Error::TooOld(text)),
    }
}
