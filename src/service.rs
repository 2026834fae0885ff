//! The service put together: database, log, projections, sweeper, HTTP; started and stopped in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use projections::rebuild::{Rebuilder, Rebuilt, Stage, unfinished};
use projections::{Reach, Runtime, Step};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use crate::access::issuer::{BuiltinIssuer, IssuerError};
use crate::access::openid::Provider;
use crate::access::rate_limits::RateLimits;
use crate::access::{Access, Operator, Verifier, Verifiers};
use crate::audit;
use crate::audit::note::Signer;
use crate::audit::seal::Sealer;
use crate::commands::home::Home;
use crate::commands::prune::Pruned;
use crate::commands::{Commands, Fault, Rules};
use crate::config::{self, Config};
use crate::database::embedded::Purpose;
use crate::database::presence::Presence;
use crate::database::roles::Role;
use crate::database::{self, Database, Owner};
use crate::erased::{self, ErasedList};
use crate::feed::{self, Feeds};
use crate::graphql::{App, Introspection, schema};
use crate::http::{self, ConnectionLimits, Health, Shared};
use crate::log::{CHANNEL, Log, LogError, MasterKeys, Pools, Sizes};
use crate::private_file;
use crate::webhooks::{self, Deliverer, Schedule, Sender, Targets};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;
const LOOK_FOR_REBUILDS: Duration = Duration::from_secs(5);
const LOOK_AT_EPOCH: Duration = Duration::from_secs(1);
const LOOK_IF_FILLED: Duration = Duration::from_millis(20);
/// How often it is looked whose trail was kept for long enough, and how soon again where something has to wait: each time
/// twice as long.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
const PRUNE_AGAIN: Duration = Duration::from_secs(1);
/// The file of the master key, in the data directory.
const MASTER_KEY_FILE: &str = "master.key";
/// The file of the one before, or of the one to come.
const OTHER_MASTER_KEY_FILE: &str = "master.key.other";

/// Why the service cannot start or stop. The text says what is wrong; [`Error::remedy`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The built-in issuer.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// What asks OpenID providers, or sends webhooks.
    #[error("cannot prepare to call others over HTTP: {0}")]
    Provider(#[from] reqwest::Error),
    /// A private file.
    #[error(transparent)]
    File(#[from] private_file::Error),
    /// The list of erased people.
    #[error(transparent)]
    Erased(#[from] erased::Error),
    /// A command of the service itself.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The data directory.
    #[error("cannot make the data directory {path}: {source}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The master key's file.
    #[error("{0} holds no master key")]
    MasterKey(PathBuf),
    /// The keys of the audit trail.
    #[error(transparent)]
    AuditKey(#[from] audit::keys::KeyError),
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Database(database::Error::Embedded(error)) => error.remedy(),
            Self::Database(database::Error::Database(_)) => {
                Some("look whether the database runs and whether DATABASE_URL is right".into())
            }
            Self::Database(database::Error::Settings) => {
                Some("connect to PostgreSQL itself; the service pools its connections".into())
            }
            Self::Database(database::Error::Roles { statements, .. }) => {
                Some(format!("let somebody who may make roles run this in the database, and start again:{statements}"))
            }
            Self::Database(database::Error::NoRoles(_) | database::Error::NoMember(_) | database::Error::Behind(_)) => Some(
                "run `tenancy migrate` with the owner's address in TENANCY_DATABASE__OWNER_URL: it brings the database up to date and makes the login a member of the roles".into(),
            ),
            Self::Database(database::Error::TooFree) => Some(
                "take from tenancy_writer, tenancy_projector, tenancy_reader and tenancy_operator what docs/operating.md does not give them".into(),
            ),
            Self::Database(database::Error::TooOld(_)) => Some("use PostgreSQL 15 or newer".into()),
            Self::Database(database::Error::Migration(_)) => {
                Some("look whether the database was made by a newer version of this program".into())
            }
            Self::Log(LogError::Cipher) => Some(format!(
                "give the master key that this database was set up with, as TENANCY_SECRETS__MASTER_KEY or in {MASTER_KEY_FILE} of the data directory"
            )),
            Self::Log(LogError::MasterKey(_)) => Some(format!(
                "give that one too, as TENANCY_SECRETS__MASTER_KEY_OTHER or in {OTHER_MASTER_KEY_FILE} of the data directory, until `tenancy rotate-master-key` is done"
            )),
            Self::Erased(_) => Some("it says who was erased when a database is restored: give the service a directory that lasts with TENANCY_DATA_DIR".into()),
            Self::Listen { .. } => Some("free the address, or set another with --listen or TENANCY_LISTEN".into()),
            Self::AuditKey(audit::keys::KeyError::None(_) | audit::keys::KeyError::Unknown(_)) => Some(
                "give it the key of the service that began this database: its audit.pem in the data directory, or TENANCY_SECRETS__AUDIT_KEYS"
                    .into(),
            ),
            Self::DataDir { .. } => Some("set another with TENANCY_DATA_DIR".into()),
            Self::Fault(_)
            | Self::Log(_)
            | Self::Issuer(_)
            | Self::Provider(_)
            | Self::File(_)
            | Self::MasterKey(_)
            | Self::AuditKey(_) => None,
        }
    }
}

/// What commands need, with or without HTTP: a migrated database, the log, and who runs projections.
pub struct Core {
    /// The database.
    pub database: Database,
    /// Takes commands.
    pub commands: Arc<Commands>,
    /// Runs projections.
    pub runtime: Arc<Runtime<Log>>,
    writers: JoinSet<()>,
}

impl Core {
    /// Opens the database, brings it up to date, and opens the log.
    pub async fn open(config: &Config, purpose: Purpose) -> Result<Self, Error> {
        Self::over(Database::open(config, purpose).await?, config).await
    }

    /// The same over a database that was opened.
    pub async fn over(database: Database, config: &Config) -> Result<Self, Error> {
        for migration in database.migrate().await? {
            tracing::info!(%migration, "migrated");
        }
        let master_keys = master_keys(config)?;
        make_data_dir(config)?;
        let erased = ErasedList::open(&config.data_dir)?;
        let sizes = Sizes {
            writers: config.database.writers as usize,
            queue_commands_max: config.limits.queue_commands_max,
            batch_commands_max: config.limits.batch_commands_max,
            partitions: i16::try_from(config.database.partitions).unwrap_or(i16::MAX),
        };
        let pools = Pools {
            own: database.pool.clone(),
            readers: database.readers.clone(),
            operators: database.operators.clone(),
        };
        let (log, writers) = Log::open(pools, database.options(Role::Writer), &master_keys, sizes).await?;
        let runtime = Runtime::new(database.projections.clone(), log.clone(), log.partitions()).await;
        let runtime = Arc::new(runtime.map_err(LogError::from)?);
        let commands = Arc::new(Commands::new(log, rules(config), erased));
        // A database that was restored has forgotten whom this directory remembers.
        commands.erase_again(&[]).await?;
        Ok(Self { database, commands, runtime, writers })
    }

    /// Brings all read models up to the log, beside whoever else does.
    pub async fn catch_up(&self) -> Result<(), Error> {
        while self.runtime.step().await.map_err(failure)? == Step::More {}
        Ok(())
    }

    /// What seals the audit trail, by the keys of this service.
    pub async fn sealer(&self, config: &Config) -> Result<Sealer, Error> {
        make_data_dir(config)?;
        let (directory, configured) = (&config.data_dir, audit_keys(config));
        let signers = audit::keys::signers(&self.database.pool, directory, &config.audit.name, &configured).await?;
        Ok(Sealer::new(self.database.projections.clone(), self.commands.log().clone(), signers))
    }

    /// What rebuilds read models.
    pub fn rebuilder(&self) -> Arc<Rebuilder<Log>> {
        let log = self.commands.log();
        Arc::new(Rebuilder::new(self.database.options(Role::Projector), log.clone(), log.partitions()))
    }

    /// Lets the writers finish, and closes the database.
    pub async fn close(self) -> Result<(), Error> {
        let Self { database, commands, runtime, mut writers } = self;
        drop(runtime);
        commands.trail().finish(commands.log()).await;
        commands.uses().finish(commands.log().pool()).await;
        drop(commands);
        // The writers end when the last handle to the log is gone; whoever keeps one does not keep the service.
        let ended = async { while writers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(10), ended).await;
        database.close().await?;
        Ok(())
    }
}

/// A failure of projections as one of the service.
pub fn failure(failure: projections::Failure) -> Error {
    Error::Log(match failure {
        projections::Failure::Database(error) => LogError::Database(error),
        failure @ (projections::Failure::Gap { .. }
        | projections::Failure::Worse { .. }
        | projections::Failure::Behind(_)
        | projections::Failure::HeldBack(_)
        | projections::Failure::Superseded(_)) => LogError::Corrupt(failure.to_string()),
    })
}

/// A running service.
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    /// The built-in issuer, where it is on.
    pub issuer: Option<Arc<BuiltinIssuer>>,
    core: Core,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    server: JoinHandle<std::io::Result<()>>,
    in_flight: mpsc::Receiver<()>,
    grace: Duration,
}

impl Service {
    /// Starts everything, and returns when requests are answered.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let metrics = http::install_metrics();
        // First what most often fails, and costs nothing: another service that has the address.
        let unavailable = |source| Error::Listen { address: config.listen, source };
        let socket = claim_address(config.listen).map_err(unavailable)?;
        let database = Database::open(config, Purpose::Serve).await?;
        // Before anything is written: it waits here while the database is being recovered.
        let presence = Presence::announce(database.login()).await.map_err(database::Error::from)?;
        let core = Core::over(database, config).await?;
        let issuer = if config.builtin_issuer() { Some(Arc::new(builtin_issuer(config)?)) } else { None };
        let providers = providers(config)?;
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(presence.keep(stopping.clone()));
        let woken = run_projections(&core, &stopping, &mut tasks);
        let feeds = feeds(config, &core, &stopping);
        let (following, until) = (feeds.clone(), stopping.clone());
        tasks.spawn(async move { following.run(woken, until).await });
        run_rebuilds(&core, &stopping, &mut tasks);
        follow_epoch(&core, &stopping, &mut tasks);
        let filled = wait_until_filled(&core, &stopping, &mut tasks).await?;
        let sweeper = core.commands.clone();
        let until = stopping.clone();
        tasks.spawn(async move { sweeper.run_sweeper(until).await });
        run_webhooks(config, &core, &stopping, &mut tasks)?;
        run_pruning(config, &core, &stopping, &mut tasks);
        let sealer = core.sealer(config).await?;
        let until = stopping.clone();
        tasks.spawn(async move { sealer.run(until).await });
        let (trail, until) = (core.commands.clone(), stopping.clone());
        tasks.spawn(async move { trail.trail().run(trail.log(), until).await });
        let (uses, until) = (core.commands.clone(), stopping.clone());
        tasks.spawn(async move { uses.uses().run(uses.log().pool(), until).await });

        let mut verifiers: Vec<Verifier> = issuer.clone().map(Verifier::Builtin).into_iter().collect();
        for provider in providers {
            tasks.spawn(provider.clone().run(stopping.clone()));
            verifiers.push(Verifier::OpenId(provider));
        }
        let limits = limits(config);
        let rate_limits = Arc::new(RateLimits::new(&config.rate_limits));
        let (pruned, mut until) = (rate_limits.clone(), stopping.clone());
        tasks.spawn(async move {
            tokio::select! {
                _ = until.changed() => {}
                () = pruned.run_pruner() => {}
            }
        });
        let (in_flight_sender, in_flight) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            schema: schema(
                limits.complexity_max,
                limits.nesting_max,
                Introspection {
                    bytes_max: usize::try_from(config.limits.introspection_bytes_max).unwrap_or(usize::MAX),
                    without_token: config.http.introspection_without_token,
                },
            ),
            app: Arc::new(App {
                commands: core.commands.clone(),
                progress: core.runtime.progress(),
                at_least_wait: Duration::from_millis(config.limits.at_least_wait_ms_max),
                page_size_max: i32::try_from(config.limits.page_size_max).unwrap_or(i32::MAX),
                feeds,
                folds: audit::as_of::Folds::default(),
            }),
            access: Access::new(core.commands.clone(), Verifiers(verifiers), operators(config)),
            limits,
            rate_limits,
            feeds: http::FeedLimits::new(&config.feed),
            trusted_proxies: usize::from(config.http.trusted_proxies),
            health: Health { pool: core.database.pool.clone(), stopping: stopping.clone(), filled, metrics },
            in_flight: in_flight_sender,
        });
        let origins: Vec<_> = config.http.cors_origins.iter().map(|origin| origin.0.clone()).collect();
        let router = http::router(shared, config.http.graphiql, &origins);
        let listener = socket.listen(BACKLOG).map_err(unavailable)?;
        let address = listener.local_addr().map_err(unavailable)?;
        let server = tokio::spawn(http::serve(listener, router, connection_limits(config), stopping));
        let grace = Duration::from_secs(config.http.shutdown_grace_seconds);
        Ok(Self { address, issuer, core, stop, tasks, server, in_flight, grace })
    }

    /// What the database is, for people.
    pub fn describe_database(&self) -> String {
        self.core.database.describe()
    }

    /// What commands need.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Stops: takes no new requests, finishes what was accepted (for as long as the configuration allows), then
    /// closes the log and the database.
    pub async fn stop(mut self) -> Result<(), Error> {
        let _ = self.stop.send(true);
        let finish = async {
            let _ = (&mut self.server).await;
            // Ends when nobody holds the other side any more: every command has had its answer.
            while self.in_flight.recv().await.is_some() {}
        };
        if tokio::time::timeout(self.grace, finish).await.is_err() {
            tracing::warn!("some requests were still open when the time for stopping was over");
            self.server.abort();
        }
        while self.tasks.join_next().await.is_some() {}
        self.core.close().await
    }
}

/// The address, on which nobody is answered yet.
fn claim_address(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of a service that was here before may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Carries on with rebuilds that somebody asked for and left behind.
fn run_rebuilds(core: &Core, stopping: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
    let (rebuilder, pool, mut until) = (core.rebuilder(), core.database.projections.clone(), stopping.clone());
    tasks.spawn(async move {
        tokio::select! {
            _ = until.changed() => {}
            () = carry_on_rebuilds(rebuilder, pool) => {}
        }
    });
}

async fn carry_on_rebuilds(rebuilder: Arc<Rebuilder<Log>>, pool: PgPool) {
    loop {
        tokio::time::sleep(LOOK_FOR_REBUILDS).await;
        for projection in unfinished(&pool).await.unwrap_or_default() {
            let name = projection.name();
            match rebuilder.clone().run(vec![projection], watch::channel(Stage::default()).0).await {
                Ok(Rebuilt::Elsewhere) => {}
                Ok(Rebuilt::Done { events, differences, .. }) => {
                    for difference in differences {
                        tracing::warn!(projection = name, %difference, "the old read model was different");
                    }
                    tracing::info!(projection = name, events, "finished a rebuild that was left behind");
                }
                Err(error) => tracing::warn!(projection = name, %error, "a rebuild could not go on"),
            }
        }
    }
}

/// Takes away the content of purged organizations' trails when their time is over, where the owner of the database is
/// known.
fn run_pruning(config: &Config, core: &Core, stopping: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
    let kept_days = config.audit.purged_kept_days;
    if kept_days == 0 {
        return;
    }
    let (owner, projector) = (core.database.owner(), core.database.projections.clone());
    let (commands, mut until) = (core.commands.clone(), stopping.clone());
    let look = async move {
        let mut again = PRUNE_AGAIN;
        loop {
            let pause = match prune(&owner, &projector, &commands, kept_days).await {
                Ok(Some(pruned)) if pruned.iter().any(|(_, outcome)| outcome.is_err()) => {
                    again = (again * 2).min(PRUNE_EVERY);
                    again
                }
                Ok(Some(_)) => {
                    again = PRUNE_AGAIN;
                    PRUNE_EVERY
                }
                Ok(None) => {
                    tracing::info!(
                        "trails of purged organizations are left to `tenancy prune`: who owns the database is not known here"
                    );
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "trails of purged organizations could not be pruned; it will be tried again");
                    PRUNE_EVERY
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tasks.spawn(async move {
        tokio::select! {
            _ = until.changed() => {}
            () = look => {}
        }
    });
}

/// `None` where nobody who is known owns the database.
async fn prune(
    owner: &Owner,
    projector: &PgPool,
    commands: &Commands,
    kept_days: u32,
) -> Result<Option<Vec<Pruned>>, Error> {
    let Some(owner) = owner.to_prune().await? else { return Ok(None) };
    let due = commands.record_prunings(&owner, kept_days).await?;
    let pruned = commands.prune(&owner, projector, due).await;
    owner.close().await;
    for (organization, outcome) in &pruned {
        match outcome {
            Ok(events) => tracing::info!(%organization, events, "the trail of a purged organization was pruned"),
            Err(why) => tracing::info!(%organization, %why, "the trail of a purged organization is not pruned yet"),
        }
    }
    Ok(Some(pruned))
}

/// Looks whether the database went back to an earlier point, and forgets then what was in memory.
fn follow_epoch(core: &Core, stopping: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
    let (log, runtime, mut until) = (Arc::downgrade(core.commands.log()), core.runtime.clone(), stopping.clone());
    let mut epochs = core.commands.log().epochs();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                _ = until.changed() => return,
                changed = epochs.changed() => {
                    let (Ok(()), Some(log)) = (changed, log.upgrade()) else { return };
                    tracing::warn!(epoch = log.epoch(), "the database is an earlier one: a new epoch began");
                    log.forget();
                    runtime.forget_progress();
                }
                () = tokio::time::sleep(LOOK_AT_EPOCH) => {
                    let Some(log) = log.upgrade() else { return };
                    if let Err(error) = log.look_at_epoch().await {
                        tracing::debug!(%error, "cannot look at the epoch");
                    }
                }
            }
        }
    });
}

/// Says when the read models show what the log holds now; new tables of a new version have to be filled first.
async fn wait_until_filled(
    core: &Core,
    stopping: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<watch::Receiver<bool>, Error> {
    let (log, pool) = (core.commands.log(), core.database.pool.clone());
    let heads = log.heads_now(&[]).await?;
    let is_filled = async move || matches!(projections::reached(&pool, &heads).await, Ok(Reach::Level | Reach::Parked));
    let (filled, wait) = watch::channel(is_filled().await);
    let mut until = stopping.clone();
    tasks.spawn(async move {
        let looked = async {
            while !is_filled().await {
                tokio::time::sleep(LOOK_IF_FILLED).await;
            }
            filled.send_replace(true);
        };
        tokio::select! {
            _ = until.changed() => {}
            () = looked => {}
        }
    });
    Ok(wait)
}

/// Sends webhooks, where this replica does, and forgets what is done of them.
fn run_webhooks(
    config: &Config,
    core: &Core,
    stopping: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let (settings, pool, written) = (&config.webhooks, &core.database.deliveries, core.runtime.written());
    let terms = webhooks::sweep::Terms {
        warn_after: chrono::Duration::hours(settings.warn_after_hours.into()),
        disable_after: chrono::Duration::hours(settings.disable_after_hours.into()),
        retention_days: settings.retention_days,
    };
    let commands = &core.commands;
    tasks.spawn(webhooks::sweep::run(pool.clone(), commands.clone(), terms, stopping.clone()));
    tasks.spawn(webhooks::backfill::run(pool.clone(), commands.clone(), written.clone(), stopping.clone()));
    if !settings.send {
        return Ok(());
    }
    let whole_max = Duration::from_millis(settings.timeout_ms);
    let connect_max = Duration::from_millis(settings.connect_timeout_ms);
    let sender = Sender::new(commands.rules().webhook_targets.clone(), connect_max, whole_max)?;
    let terms = webhooks::Terms {
        in_flight_max: webhooks_in_flight_max(config),
        endpoint_in_flight_max: settings.endpoint_in_flight_max,
        endpoint_rate_per_second: settings.endpoint_rate_per_second,
        whole_max,
        schedule: Schedule(settings.retry_seconds.iter().map(|pause| Duration::from_secs((*pause).into())).collect()),
    };
    let deliverer = Arc::new(Deliverer::new(pool.clone(), commands.clone(), sender, terms));
    tasks.spawn(deliverer.run(written, stopping.clone()));
    Ok(())
}

fn feeds(config: &Config, core: &Core, stopping: &watch::Receiver<bool>) -> Arc<Feeds> {
    let sizes = feed::Sizes { events: config.feed.buffer_events, bytes: config.feed.buffer_bytes };
    let heartbeat = Duration::from_secs(config.feed.heartbeat_seconds.into());
    Arc::new(Feeds::new(core.commands.clone(), sizes, heartbeat, stopping.clone()))
}

/// Runs every projection, woken by this replica's commits and by other replicas' notifications; gives what wakes others
/// who follow the log.
fn run_projections(core: &Core, stopping: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) -> watch::Receiver<()> {
    let (wake, woken) = watch::channel(());
    let others = woken.clone();
    let (runtime, until) = (core.runtime.clone(), stopping.clone());
    tasks.spawn(async move { runtime.run(woken, until).await });
    let (runtime, until) = (core.runtime.clone(), stopping.clone());
    tasks.spawn(async move { runtime.help(until).await });
    let (runtime, until) = (core.runtime.clone(), stopping.clone());
    tasks.spawn(async move { runtime.run_retries(until).await });
    let wake = Arc::new(wake);
    let replica = Uuid::new_v4().to_string();
    let own = replica.clone();
    let mut heads = core.commands.log().heads();
    let (pool, sender, mut until) = (core.database.projections.clone(), wake.clone(), stopping.clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                _ = until.changed() => return,
                changed = heads.changed() => if changed.is_err() { return },
            }
            sender.send_replace(());
            // After the commit, and many commits by one notification: it is only a hint.
            let notified = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(&own).execute(&pool).await;
            if let Err(error) = notified {
                tracing::debug!(%error, "other replicas were not notified; they will look by themselves");
            }
        }
    });
    let (pool, mut until) = (core.database.projections.clone(), stopping.clone());
    tasks.spawn(async move {
        tokio::select! {
            _ = until.changed() => {}
            () = listen(pool, &replica, wake) => {}
        }
    });
    others
}

/// Passes on notifications of other replicas, for ever; while the connection is gone, the clock wakes projections.
async fn listen(pool: PgPool, replica: &str, wake: Arc<watch::Sender<()>>) {
    loop {
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            loop {
                // Its own say nothing new.
                if listener.recv().await?.payload() != replica {
                    wake.send_replace(());
                }
            }
        };
        let result: Result<(), sqlx::Error> = listening.await;
        if let Err(error) = result {
            tracing::debug!(%error, "cannot hear other replicas");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The built-in issuer with the key of the data directory.
pub fn builtin_issuer(config: &Config) -> Result<BuiltinIssuer, Error> {
    make_data_dir(config)?;
    let access = &config.access;
    let leeway = u64::from(access.clock_leeway_seconds);
    Ok(BuiltinIssuer::open(&config.data_dir, &access.issuer, &access.audience, leeway)?)
}

/// The keys that sign the audit trail's checkpoints, as far as they are here. Where the database is the service's own
/// there is one from the beginning; of another database a service that runs may have made it, and may not be here.
pub fn audit_signers(config: &Config) -> Result<Vec<Signer>, Error> {
    make_data_dir(config)?;
    let make = config.database.url.is_none();
    Ok(audit::keys::open(&config.data_dir, &config.audit.name, &audit_keys(config), make)?)
}

fn audit_keys(config: &Config) -> Vec<[u8; 32]> {
    config.secrets.audit_keys.iter().map(|key| *key.expose()).collect()
}

/// The OpenID providers of the configuration. None of them is asked yet, so none has to be there.
fn providers(config: &Config) -> Result<Vec<Arc<Provider>>, Error> {
    let access = &config.access;
    let provider = |settings: &config::Provider| Provider::new(settings.clone(), access.clock_leeway_seconds);
    let providers = access.providers.0.iter().map(|settings| provider(settings).map(Arc::new));
    Ok(providers.collect::<Result<_, _>>()?)
}

/// The keys that everything encrypted hangs on.
fn master_keys(config: &Config) -> Result<MasterKeys, Error> {
    let other = match &config.secrets.master_key_other {
        Some(key) => Some(*key.expose()),
        None => {
            let path = config.data_dir.join(OTHER_MASTER_KEY_FILE);
            private_file::read(&path)?.map(|text| master_key_of(text, path)).transpose()?
        }
    };
    Ok(MasterKeys { current: master_key(config)?, other })
}

/// The one that wraps: configured, or made at the first start.
fn master_key(config: &Config) -> Result<[u8; 32], Error> {
    if let Some(key) = &config.secrets.master_key {
        return Ok(*key.expose());
    }
    make_data_dir(config)?;
    let path = config.data_dir.join(MASTER_KEY_FILE);
    let text = private_file::read_or_create(&path, || {
        Ok(format!("{}\n", STANDARD.encode(rand::random::<[u8; 32]>())).into_bytes())
    })?;
    master_key_of(text, path)
}

fn master_key_of(text: Vec<u8>, path: PathBuf) -> Result<[u8; 32], Error> {
    let text = String::from_utf8(text).unwrap_or_default();
    STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(Error::MasterKey(path))
}

fn make_data_dir(config: &Config) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    if config.data_dir.is_dir() {
        return Ok(());
    }
    // Others may pass through (the private server runs under another account when started as root), not look.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&config.data_dir);
    made.map_err(|source| Error::DataDir { path: config.data_dir.clone(), source })
}

fn rules(config: &Config) -> Rules {
    let organizations = &config.organizations;
    let plans = config.plans.iter().map(|(name, plan)| {
        let limits = plan.limits.iter().map(|(name, maximum)| (name.clone(), Some(*maximum))).collect();
        (name.as_str().to_owned(), limits)
    });
    Rules {
        approval_required: config.access.approval_required,
        home: match (organizations.home, &organizations.home_organization) {
            (config::Home::Own, _) => Home::Own,
            (config::Home::Default, Some(organization)) => {
                Home::Default { organization: organization.clone(), role: organizations.home_role.clone() }
            }
            (config::Home::Nothing | config::Home::Default, _) => Home::Nothing,
        },
        created_by_operators: organizations.created_by_operators,
        created_per_user_max: Some(organizations.created_per_user_max.into()).filter(|maximum| *maximum > 0),
        one_per_user: organizations.one_per_user,
        verification_required: organizations.verification_required,
        slug_reserved: organizations.slug_reserved.clone(),
        restore: chrono::Duration::days(i64::from(organizations.restore_days)),
        invitation_hours_default: i64::from(organizations.invitation_hours_default),
        invitation_hours_max: i64::from(organizations.invitation_hours_max),
        default_plan: organizations.default_plan.as_str().to_owned(),
        webhook_targets: Arc::new(Targets {
            http_allowed: config.webhooks.http_allowed,
            ports: config.webhooks.ports.iter().map(|ports| ports.0.clone()).collect(),
            allowed: config.webhooks.addresses_allowed.iter().map(|network| network.0).collect(),
        }),
        access_trail_days: i32::try_from(config.access.trail_days).unwrap_or(i32::MAX),
        plans: plans.collect(),
    }
}

fn operators(config: &Config) -> Vec<Operator> {
    let operator = |operator: &config::Operator| match operator {
        config::Operator::Email(email) => Operator::Email(email.clone()),
        config::Operator::Subject { issuer, subject } => {
            Operator::Subject { issuer: issuer.clone(), subject: subject.clone() }
        }
    };
    config.access.operators.iter().map(operator).collect()
}

/// Descriptors that are kept for files and whatever else is opened for a moment.
const DESCRIPTORS_KEPT: u64 = 64;

/// How many descriptors this process may have.
fn descriptors_max() -> u64 {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limit.map_or(1_024, |(soft, _)| soft)
}

/// Webhooks that may be under way: each is a connection, and a quarter of the descriptors is for them.
fn webhooks_in_flight_max(config: &Config) -> usize {
    usize::try_from(u64::from(config.webhooks.in_flight_max).min(descriptors_max() / 4)).unwrap_or(usize::MAX)
}

fn connection_limits(config: &Config) -> ConnectionLimits {
    let descriptors = descriptors_max();
    let (database, webhooks) = (&config.database, &config.webhooks);
    let sending = if webhooks.send { webhooks_in_flight_max(config) as u64 } else { 0 };
    let pools = u64::from(database.connections_max) + 2 * u64::from(database.writers) + 16;
    let room = descriptors.saturating_sub(pools + sending + DESCRIPTORS_KEPT).max(16);
    let settings = &config.http;
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    ConnectionLimits {
        connections_max: count(room.min(settings.connections_max.into())),
        per_address_max: Some(settings.connections_per_address_max as usize).filter(|_| settings.trusted_proxies == 0),
        header_time: Duration::from_secs(settings.header_timeout_seconds),
        idle_time: Duration::from_secs(settings.idle_timeout_seconds),
    }
}

fn limits(config: &Config) -> http::Limits {
    let limits = &config.limits;
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    http::Limits {
        body_bytes_max: size(limits.body_bytes_max),
        query_bytes_max: size(limits.query_bytes_max),
        tokens_max: limits.tokens_max as usize,
        nesting_max: limits.nesting_max as usize,
        depth_max: limits.depth_max as usize,
        selections_max: limits.selections_max as usize,
        aliases_max: limits.aliases_max as usize,
        root_fields_max: limits.root_fields_max as usize,
        directives_max: limits.directives_max as usize,
        complexity_max: size(limits.complexity_max),
        answer_bytes_max: size(limits.answer_bytes_max),
        request_timeout_ms: limits.request_timeout_ms,
    }
}
