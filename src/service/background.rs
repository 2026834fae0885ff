//! What runs behind the requests until the service stops.

use std::sync::{Arc, Weak};
use std::time::Duration;

use projections::rebuild::{Rebuilder, Rebuilt, unfinished};
use projections::{Reach, Runtime};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::settings::{streams, webhooks_in_flight_max};
use super::{Core, Error, pruning};
use crate::audit::watch::Progress;
use crate::audit::witnesses::forget;
use crate::config::Config;
use crate::endpoints::signature::Secret;
use crate::feed::Feeds;
use crate::log::{CHANNEL, Heads, Log};
use crate::webhooks::alarms::AlarmTeller;
use crate::webhooks::{self, Deliverer, Schedule, Sender};

const LOOK_FOR_REBUILDS: Duration = Duration::from_secs(5);
const LOOK_AT_EPOCH: Duration = Duration::from_secs(1);
const LOOK_IF_FILLED: Duration = Duration::from_millis(20);
/// How long nothing is sealed while witnesses are asked about a database of which nothing is known.
const ASK_WITNESSES_MAX: Duration = Duration::from_secs(60);

/// The tasks of a service, and the one signal that ends them. A service that is dropped gives it too.
pub(super) struct Background {
    stop: DropGuard,
    tasks: TaskTracker,
}

impl Background {
    pub(super) fn new() -> Self {
        Self { stop: CancellationToken::new().drop_guard(), tasks: TaskTracker::new() }
    }

    /// The signal.
    pub(super) fn stop(&self) -> &CancellationToken {
        self.stop.token()
    }

    /// Runs a task that looks at the signal itself: a step that it began is finished.
    pub(super) fn run<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(CancellationToken) -> F) {
        self.tasks.spawn(task(self.stop().clone()));
    }

    /// Runs a task that may be left anywhere.
    pub(super) fn run_until_stop<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        let stop = self.stop().clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// Waits for all tasks, after the signal.
    pub(super) async fn ended(self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Runs everything that needs no HTTP; gives how far standing verification is.
pub(super) async fn run_all(
    background: &Background,
    config: &Config,
    core: &Core,
    feeds: &Arc<Feeds>,
) -> Result<Arc<Progress>, Error> {
    let woken = run_projections(background, core);
    let following = feeds.clone();
    background.run(|stop| async move { following.run(woken, stop).await });
    background.run_until_stop(carry_on_rebuilds(core.rebuilder(), core.database.projections.clone()));
    let (log, epochs, runtime) =
        (Arc::downgrade(core.commands.log()), core.commands.log().epochs(), core.runtime.clone());
    background.run(|stop| follow_epoch(stop, log, epochs, runtime));
    let commands = core.commands.clone();
    background.run(|stop| async move { commands.run_sweeper(stop).await });
    run_webhooks(background, config, core)?;
    for stream in streams(config, core)? {
        background.run(|stop| async move { stream.run(stop).await });
    }
    if config.audit.purged_kept_days > 0 {
        let (owner, projector) = (core.database.owner(), core.database.projections.clone());
        background.run_until_stop(pruning::run(owner, projector, core.commands.clone(), config.audit.purged_kept_days));
    }
    let sealer = core.sealer(config).await?;
    let shown = run_witnesses(background, config, core)?;
    background.run(|stop| async move {
        stop.run_until_cancelled(shown).await;
        sealer.run(stop).await;
    });
    let watch = core.watch(config)?;
    let verified = watch.progress();
    tell_alarms(background, config, core, verified.clone())?;
    if config.audit.verify_events_per_second > 0 {
        background.run(|stop| async move { watch.run(stop).await });
    }
    let commands = core.commands.clone();
    background.run(|stop| async move { commands.trail().run(commands.log(), stop).await });
    let commands = core.commands.clone();
    background.run(|stop| async move { commands.uses().run(commands.log().pool(), stop).await });
    Ok(verified)
}

/// Shows heads to witnesses, where there are some. Gives what the sealer waits for: a data directory that knows no head has
/// lost what it knew, or is new, and then witnesses are asked before anything is signed, if they are there.
fn run_witnesses(
    background: &Background,
    config: &Config,
    core: &Core,
) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
    let mut shown = None;
    if core.asked.is_empty() {
        let projector = core.database.projections.clone();
        background.run_until_stop(async move {
            if let Err(error) = forget(&projector).await {
                tracing::warn!(%error, "what witnesses found that are not asked any more stays");
            }
        });
    } else {
        let witnesses = core.witnesses(config)?;
        shown = Some(witnesses.shown()).filter(|_| core.heads.trees() == 0);
        background.run(|stop| async move { witnesses.run(stop).await });
    }
    Ok(async move {
        if let Some(mut shown) = shown {
            let _ = tokio::time::timeout(ASK_WITNESSES_MAX, shown.wait_for(|shown| *shown)).await;
        }
    })
}

/// Runs every projection, woken by this replica's commits and by other replicas' notifications; gives what wakes others
/// who follow the log.
fn run_projections(background: &Background, core: &Core) -> watch::Receiver<()> {
    let (wake, woken) = watch::channel(());
    let others = woken.clone();
    let runtime = core.runtime.clone();
    background.run(|stop| async move { runtime.run(woken, stop).await });
    let runtime = core.runtime.clone();
    background.run(|stop| async move { runtime.help(stop).await });
    let runtime = core.runtime.clone();
    background.run(|stop| async move { runtime.run_retries(stop).await });
    let wake = Arc::new(wake);
    let replica = Uuid::new_v4().to_string();
    let (pool, own, waking) = (core.database.projections.clone(), replica.clone(), wake.clone());
    let heads = core.commands.log().heads();
    background.run(|stop| notify(stop, pool, own, heads, waking));
    background.run_until_stop(listen(core.database.projections.clone(), replica, wake));
    others
}

/// Tells other replicas of this one's commits.
async fn notify(
    stop: CancellationToken,
    pool: PgPool,
    replica: String,
    mut heads: watch::Receiver<Heads>,
    wake: Arc<watch::Sender<()>>,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(heads.changed()).await {
        wake.send_replace(());
        // After the commit, and many commits by one notification: it is only a hint.
        let notified = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(&replica).execute(&pool).await;
        if let Err(error) = notified {
            tracing::debug!(%error, "other replicas were not notified; they will look by themselves");
        }
    }
}

/// Passes on notifications of other replicas, for ever; while the connection is gone, the clock wakes projections.
async fn listen(pool: PgPool, replica: String, wake: Arc<watch::Sender<()>>) {
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

/// Carries on with rebuilds that somebody asked for and left behind.
async fn carry_on_rebuilds(rebuilder: Arc<Rebuilder<Log>>, pool: PgPool) {
    loop {
        tokio::time::sleep(LOOK_FOR_REBUILDS).await;
        for projection in unfinished(&pool).await.unwrap_or_default() {
            let name = projection.name();
            match rebuilder.clone().carry_on(projection).await {
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

/// Looks whether the database went back to an earlier point, and forgets then what was in memory.
async fn follow_epoch(
    stop: CancellationToken,
    log: Weak<Log>,
    mut epochs: watch::Receiver<i64>,
    runtime: Arc<Runtime<Log>>,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
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
}

/// Says when the read models show what the log holds now; new tables of a new version have to be filled first.
pub(super) async fn wait_until_filled(background: &Background, core: &Core) -> Result<watch::Receiver<bool>, Error> {
    let (log, pool) = (core.commands.log(), core.database.pool.clone());
    let heads = log.heads_now(&[]).await?;
    let is_filled = async move || matches!(projections::reached(&pool, &heads).await, Ok(Reach::Level | Reach::Parked));
    let (filled, wait) = watch::channel(is_filled().await);
    background.run_until_stop(async move {
        while !is_filled().await {
            tokio::time::sleep(LOOK_IF_FILLED).await;
        }
        filled.send_replace(true);
    });
    Ok(wait)
}

/// Tells alarms, where somebody wants to hear of them. Every replica tells its own, whether it sends other webhooks or not.
fn tell_alarms(background: &Background, config: &Config, core: &Core, verified: Arc<Progress>) -> Result<(), Error> {
    let (Some(url), Some(key)) = (&config.audit.alarm_webhook_url, &config.secrets.alarm_webhook_key) else {
        return Ok(());
    };
    core.commands.rules().webhook_targets.url(url).map_err(Error::AlarmWebhook)?;
    let to = (url.clone(), Secret::of(*key.expose()));
    let log = (core.commands.log().clone(), verified);
    let teller = AlarmTeller::open(log, sender(config, core)?, to, &config.data_dir)?;
    background.run(|stop| teller.run(stop));
    Ok(())
}

fn sender(config: &Config, core: &Core) -> Result<Sender, Error> {
    let whole_max = Duration::from_millis(config.webhooks.timeout_ms);
    let connect_max = Duration::from_millis(config.webhooks.connect_timeout_ms);
    Ok(Sender::new(core.commands.rules().webhook_targets.clone(), connect_max, whole_max)?)
}

/// Sends webhooks, where this replica does, and forgets what is done of them.
fn run_webhooks(background: &Background, config: &Config, core: &Core) -> Result<(), Error> {
    let (settings, written) = (&config.webhooks, core.runtime.written());
    let own = || (core.database.deliveries.clone(), core.commands.clone());
    let sweep = webhooks::sweep::SweepSettings {
        warn_after: chrono::Duration::hours(settings.warn_after_hours.into()),
        disable_after: chrono::Duration::hours(settings.disable_after_hours.into()),
        retention_days: settings.retention_days,
    };
    let (pool, commands) = own();
    background.run(|stop| webhooks::sweep::run(pool, commands, sweep, stop));
    let ((pool, commands), woken) = (own(), written.clone());
    background.run(|stop| webhooks::backfill::run(pool, commands, woken, stop));
    if !settings.send {
        return Ok(());
    }
    let delivery = webhooks::DeliverySettings {
        in_flight_max: webhooks_in_flight_max(config),
        endpoint_in_flight_max: settings.endpoint_in_flight_max,
        endpoint_rate_per_second: settings.endpoint_rate_per_second,
        whole_max: Duration::from_millis(settings.timeout_ms),
        schedule: Schedule(settings.retry_seconds.iter().map(|pause| Duration::from_secs((*pause).into())).collect()),
    };
    let (pool, commands) = own();
    let deliverer = Arc::new(Deliverer::new(pool, commands, sender(config, core)?, delivery));
    background.run(|stop| deliverer.run(written, stop));
    Ok(())
}
