//! The database: the operators' own, or a private one; its pools and its migrations.

mod connections;
pub mod embedded;
pub mod presence;
pub mod roles;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

use crate::config::Config;
use connections::{ACQUIRE_WAIT, pool_options};
use embedded::{Embedded, Purpose, Settings};
use roles::DatabaseRole;

pub use connections::{Connections, Lease};

/// The migrations, built into the program; forward only.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The oldest PostgreSQL that will do.
const SERVER_VERSION_MIN: i32 = 150_000;
/// Connections of the projections: one a projection, and some for looking.
const PROJECTION_CONNECTIONS: u32 = 8;
const DELIVERY_CONNECTIONS: u32 = 4;
/// The login of the service in the private database; its superuser only migrates.
const EMBEDDED_LOGIN: &str = "tenancy_service";

/// A connection that holds locks and does not answer is cut off, so that a lease ends with its holder.
const LEASED: [(&str, &str); 4] = [
    ("idle_in_transaction_session_timeout", "10000"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
];

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
    /// The owner may not make the roles that the service works under.
    #[error("the roles of the service cannot be made: {source}")]
    Roles {
        /// What the database says.
        source: sqlx::Error,
        /// What somebody who may has to run.
        statements: String,
    },
    /// The login may not work under them, or they are not there.
    #[error("the login of the service may not work under its roles: {0}")]
    NoRoles(#[source] sqlx::Error),
    /// The login may not work under all of them.
    #[error("the login {0} is not a member of all roles of the service")]
    NoMember(String),
    /// They may do more than they should.
    #[error("a role of the service may change the log")]
    TooFree,
    /// The login may not migrate, and there is something to migrate.
    #[error("the database is not up to date, and the login of the service may not change that: {0} is missing")]
    Behind(String),
    /// It is too old.
    #[error("the database is PostgreSQL {0}, and 15 is the oldest that will do")]
    TooOld(String),
}

/// Our use of the private server, which ends on every way out. [`Private::close`] stops the server politely; dropping it,
/// because a start failed or was given up, stops the server there and then.
struct Private {
    embedded: Option<Embedded>,
    settings: Settings,
}

impl Private {
    async fn open(settings: Settings, purpose: Purpose) -> Result<Self, embedded::Error> {
        Ok(Self { embedded: Some(Embedded::open(&settings, purpose).await?), settings })
    }

    fn options(&self) -> PgConnectOptions {
        self.embedded.as_ref().map(Embedded::connect_options).unwrap_or_default()
    }

    fn describe(&self) -> String {
        self.embedded.as_ref().map(Embedded::describe).unwrap_or_default()
    }

    async fn close(mut self) -> Result<(), embedded::Error> {
        match self.embedded.take() {
            Some(embedded) => embedded.close().await,
            None => Ok(()),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let Some(embedded) = self.embedded.take() else { return };
        drop(embedded);
        let settings = self.settings.clone();
        // A drop cannot wait for a future, so the stopping runs on a thread of its own.
        let stopped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(embedded::stop_unused(&settings)))
        });
        if !matches!(stopped.join(), Ok(Ok(Ok(())))) {
            tracing::warn!("the private PostgreSQL could not be stopped; the next start adopts it");
        }
    }
}

/// What the private server needs to know.
fn private_settings(config: &Config) -> Settings {
    let database = &config.database;
    Settings {
        data_dir: config.data_dir.clone(),
        bin_dir: database.postgres_bin_dir.clone(),
        installed: database.postgres_installed,
        fetch_from: database.postgres_fetch.then(|| database.postgres_fetch_url.as_str().to_owned()),
    }
}

/// Stops the private server if nobody uses it, after a start that was given up.
pub async fn stop_unused(config: &Config) -> Result<(), Error> {
    match config.database.url {
        Some(_) => Ok(()),
        None => Ok(embedded::stop_unused(&private_settings(config)).await?),
    }
}

/// A database that can be connected to.
pub struct Database {
    private: Option<Private>,
    options: PgConnectOptions,
    /// How the owner connects, where that is not the service's own login.
    owner: Option<PgConnectOptions>,
    /// For commands, and for what requests read of single things.
    pub pool: Connections,
    /// For lists and audit trails of organizations, by row-level security.
    pub readers: Connections,
    /// For what operators read over all organizations.
    pub operators: Connections,
    /// For projections, so that neither can starve the other.
    pub projections: PgPool,
    /// For whoever delivers webhooks, for the same reason.
    pub deliveries: PgPool,
}

impl Database {
    /// Opens the configured database, or the private one.
    pub async fn open(config: &Config, purpose: Purpose) -> Result<Self, Error> {
        let (private, options, owner) = match &config.database.url {
            Some(url) => {
                let owner = config.database.owner_url.as_ref().map(|url| url.expose().parse()).transpose()?;
                (None, url.expose().parse::<PgConnectOptions>()?, owner)
            }
            None => {
                let private = Private::open(private_settings(config), purpose).await?;
                let owner = private.options();
                // Here and not with the migrations: a service announces itself by this login before it writes anything.
                roles::make_login(&owner, EMBEDDED_LOGIN).await?;
                (Some(private), owner.clone().username(EMBEDDED_LOGIN), Some(owner))
            }
        };
        let quiet = |options: PgConnectOptions| options.log_statements(tracing::log::LevelFilter::Trace);
        let (options, owner) = (quiet(options), owner.map(quiet));
        check_version(owner.as_ref().unwrap_or(&options)).await?;
        let statement_timeout = config.database.statement_timeout_ms.to_string();
        let settings = [
            ("search_path", projections::search_path()),
            ("statement_timeout", statement_timeout),
            // Small statements that are prepared once: planning them again each time costs more than running them, and
            // compiling them costs a hundred times as much. They look things up by arrays, of whose size the planner
            // knows nothing: without these settings it hashes whole tables where it should probe an index, or scans
            // one that was small when the statement was prepared.
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("jit", "off".to_owned()),
            ("enable_seqscan", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
        ];
        let configured = options.clone().options(settings).options(LEASED).application_name("tenancy");
        // What is only made from the log need not be flushed: a server that dies takes a read model's rows and the
        // checkpoint that goes with them, and both are made again. What a notification says needs no flush either.
        let made_again = configured.clone().options([("synchronous_commit", "off")]);
        let requests = |maximum: u32, role: DatabaseRole| Connections::new(maximum, role.of(&configured));
        let background =
            |maximum: u32| pool_options(maximum).connect_lazy_with(DatabaseRole::Projector.of(&made_again));
        // A connection has the role that it began with: changing it would take a round trip each time.
        let connections_max = config.database.connections_max;
        let (operators, readers) = ((connections_max / 8).max(1), (connections_max * 3 / 8).max(1));
        let rest = connections_max.saturating_sub(operators + readers).max(1);
        Ok(Self {
            private,
            pool: requests(rest, DatabaseRole::Writer),
            readers: requests(readers, DatabaseRole::Reader),
            operators: requests(operators, DatabaseRole::Operator),
            projections: background(PROJECTION_CONNECTIONS),
            deliveries: background(DELIVERY_CONNECTIONS),
            options,
            owner,
        })
    }

    /// How to connect as the service's login, under no role.
    pub fn login(&self) -> PgConnectOptions {
        self.options.clone().options(LEASED).application_name("tenancy")
    }

    /// How to connect beside the pools, under a role.
    pub fn options(&self, role: DatabaseRole) -> PgConnectOptions {
        role.of(&self.options)
    }

    /// Brings the database up to date as its owner, and says which migrations that took. Several processes may do it at
    /// once. A login that is not the owner only looks whether it is.
    pub async fn migrate(&self) -> Result<Vec<String>, Error> {
        let migrated = match self.owner().to_migrate().await? {
            Some(owner) => {
                let before = migrations(&owner).await?;
                MIGRATIONS.run(&owner).await?;
                roles::prepare(&owner, self.options.get_username()).await?;
                owner.close().await;
                missing(&before)
            }
            None => match missing(&roles::applied(&self.options).await?).first() {
                Some(first) => return Err(Error::Behind(first.clone())),
                None => vec![],
            },
        };
        roles::check(&self.options).await?;
        Ok(migrated)
    }

    /// How to connect as whoever owns the database.
    pub fn owner(&self) -> Owner {
        Owner { options: self.owner.as_ref().unwrap_or(&self.options).clone(), known: self.owner.is_some() }
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match &self.private {
            Some(private) => private.describe(),
            None => format!("PostgreSQL at {}", self.options.get_host()),
        }
    }

    /// Closes the pools, and stops the private server if nobody else uses it.
    pub async fn close(self) -> Result<(), Error> {
        for pool in [&self.deliveries, &self.projections] {
            pool.close().await;
        }
        for connections in [&self.readers, &self.operators, &self.pool] {
            connections.close().await;
        }
        if let Some(private) = self.private {
            private.close().await?;
        }
        Ok(())
    }
}

/// The owner of the database, as far as that is known.
pub struct Owner {
    options: PgConnectOptions,
    /// Or it is the service's own login, which may own it or not.
    known: bool,
}

impl Owner {
    /// One connection that makes what is missing; `None` where nobody who is known owns the database.
    async fn to_migrate(&self) -> Result<Option<PgPool>, Error> {
        self.connect([("search_path", projections::search_path().as_str())]).await
    }

    /// One connection that changes rows, for a short time each. It does not even see the schemas of the read models: they are
    /// a lesser role's, whose triggers and functions it would run.
    pub async fn to_prune(&self) -> Result<Option<PgPool>, Error> {
        let short = [("statement_timeout", "60000"), ("lock_timeout", "10000")];
        self.connect(LEASED.into_iter().chain(short).chain([("search_path", "public")])).await
    }

    async fn connect<'a>(
        &self,
        settings: impl IntoIterator<Item = (&'static str, &'a str)>,
    ) -> Result<Option<PgPool>, Error> {
        let options = self.options.clone().options(settings).application_name("tenancy owner");
        let owner = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_WAIT).connect_with(options).await?;
        if !self.known {
            // A database without tables may be filled by whoever may make some.
            let owns: bool = sqlx::query_scalar(
                "SELECT COALESCE(
                     (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('public.events')),
                     has_schema_privilege('public', 'CREATE'))",
            )
            .fetch_one(&owner)
            .await?;
            if !owns {
                owner.close().await;
                return Ok(None);
            }
        }
        Ok(Some(owner))
    }
}

/// The migrations that were applied.
async fn migrations(owner: &PgPool) -> Result<Vec<i64>, sqlx::Error> {
    let known: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text").fetch_one(owner).await?;
    match known {
        None => Ok(vec![]),
        Some(_) => sqlx::query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(owner).await,
    }
}

/// The migrations that are not among these.
fn missing(applied: &[i64]) -> Vec<String> {
    let new = MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version));
    new.map(|migration| format!("{:04} {}", migration.version, migration.description)).collect()
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
