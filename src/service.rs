//! The service put together: database, log, projections, sweeper, HTTP; started and stopped in order.

mod background;
mod core;
mod error;
mod keys;
mod pruning;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use self::background::Background;
pub use self::core::Core;
pub use self::error::{Error, failure};
pub use self::keys::{audit_signers, builtin_issuer};
use crate::access::issuer::BuiltinIssuer;
use crate::access::openid::Provider;
use crate::access::{Access, Verifier, Verifiers};
use crate::audit;
use crate::config::Config;
use crate::database::embedded::Purpose;
use crate::database::presence::Presence;
use crate::database::{self, Database};
use crate::feed::Feeds;
use crate::graphql::{Answers, App, schema};
use crate::http::{self, Health, Shared};
use crate::requests::rate_limits::RateLimits;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A running service.
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    /// The built-in issuer, where it is on.
    pub issuer: Option<Arc<BuiltinIssuer>>,
    core: Core,
    background: Background,
    server: JoinHandle<()>,
    /// What was accepted and is not finished.
    in_flight: TaskTracker,
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
        let providers = settings::providers(config)?;
        let background = Background::new();
        background.run(|stop| presence.keep(stop));
        let (sizes, heartbeat) = settings::feeds(config);
        let feeds = Arc::new(Feeds::new(core.commands.clone(), sizes, heartbeat, background.stop().clone()));
        let verified = background::run_all(&background, config, &core, &feeds).await?;
        let health = Health {
            pool: core.database.pool.clone(),
            stopping: background.stop().clone(),
            streams: config.audit.streams.0.iter().map(|stream| stream.name.clone()).collect(),
            filled: background::wait_until_filled(&background, &core).await?,
            metrics,
        };
        let rate_limits = Arc::new(RateLimits::new(&config.rate_limits));
        let pruned = rate_limits.clone();
        background.run_until_stop(async move { pruned.run_pruner().await });
        let verifiers = verifiers(&background, issuer.as_ref(), providers);
        let in_flight = TaskTracker::new();
        let limits = settings::limits(config);
        let shared = Arc::new(Shared {
            schema: schema(limits.complexity_max, limits.nesting_max, settings::introspection(config)),
            app: Arc::new(App {
                commands: core.commands.clone(),
                progress: core.runtime.progress(),
                at_least_wait: Duration::from_millis(config.limits.at_least_wait_ms_max),
                page_size_max: i32::try_from(config.limits.page_size_max).unwrap_or(i32::MAX),
                feeds,
                folds: audit::as_of::Folds::default(),
                verified,
                answers: Answers::new(config.limits.answers_kept_bytes_max, core.runtime.progress()),
                witnesses: core.asked.clone(),
            }),
            access: Access::new(core.commands.clone(), verifiers, settings::operators(config)),
            documents: settings::documents(config, limits)?,
            rate_limits,
            feeds: http::FeedLimits::new(&config.feed),
            trusted_proxies: usize::from(config.http.trusted_proxies),
            health,
            in_flight: in_flight.clone(),
        });
        let origins: Vec<_> = config.http.cors_origins.iter().map(|origin| origin.0.clone()).collect();
        let router = http::router(shared, settings::pages(config, issuer.as_ref()), &origins);
        let listener = socket.listen(BACKLOG).map_err(unavailable)?;
        let address = listener.local_addr().map_err(unavailable)?;
        let connections = settings::connection_limits(config);
        let server = tokio::spawn(http::serve(listener, router, connections, background.stop().clone()));
        let grace = Duration::from_secs(config.http.shutdown_grace_seconds);
        Ok(Self { address, issuer, core, background, server, in_flight, grace })
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
    pub async fn stop(self) -> Result<(), Error> {
        let Self { core, background, mut server, in_flight, grace, .. } = self;
        background.stop().cancel();
        let finish = async {
            let _ = (&mut server).await;
            // Every command has had its answer, also where its client has gone.
            in_flight.close();
            in_flight.wait().await;
        };
        if tokio::time::timeout(grace, finish).await.is_err() {
            tracing::warn!("some requests were still open when the time for stopping was over");
            server.abort();
        }
        background.ended().await;
        core.close().await
    }
}

/// Those who check tokens, in the order in which they are asked. Each provider keeps its keys fresh.
fn verifiers(background: &Background, issuer: Option<&Arc<BuiltinIssuer>>, providers: Vec<Arc<Provider>>) -> Verifiers {
    for provider in &providers {
        let provider = provider.clone();
        background.run(|stop| provider.run(stop));
    }
    let builtin = issuer.cloned().map(Verifier::Builtin);
    Verifiers(builtin.into_iter().chain(providers.into_iter().map(Verifier::OpenId)).collect())
}

/// The address, on which nobody is answered yet.
fn claim_address(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of a service that was here before may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
