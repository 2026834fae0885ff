//! How far read models are behind the log.
//!
//! The service runs in this process with everything on. First it takes as many commands as it can (128 in flight, the
//! mix of the commands' figure), with projections running: the highest rate. Then, when the read models have caught
//! up, commands are given by the clock, half as many a second, whether earlier ones have been answered or not.
//!
//! Each command's lag is the time from its acknowledgement until *all five* read models have committed its event's
//! offset. The time of that commit is heard from the runtime's own progress, in this process, so nothing is polled;
//! one that was shown before its acknowledgement arrived counts as zero. Waiting is never left out: what is not
//! shown at the end of the time is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tenancy::commands::Commands;
use tenancy::commands::projects::{Change, ChangeProject};
use tenancy::service::Service;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::commands::{Mix, rate, slug};
use crate::progress::Shown;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::stats::{median, percentile};
use crate::world::{World, accept, project};

const GROUP: &str = "lag";
/// How often commands are given.
const TICK: Duration = Duration::from_millis(1);

/// When an event was acknowledged, and where it is.
struct Acknowledged {
    at: Instant,
    partition: i16,
    offset: i64,
}

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    let world = context.world().await;
    let service = Service::start(&world.database.config()).await.expect("the service starts");
    super::audit::wait_for_read_models(&world.database.pool(1).await).await;
    let shown = Shown::of(service.core());
    let commands = service.core().commands.clone();
    let (mut highest, mut half, mut high, mut middle) = (vec![], vec![], vec![], vec![]);
    for round in 0..context.options.rounds {
        let most = rate(&commands, &world, Mix::Both, context.options.time()).await.rate;
        caught_up(&commands, &mut shown.clone()).await;
        let (given, lags) = open_loop(&commands, &world, shown.clone(), most / 2.0, context.options.time()).await;
        highest.push(most);
        half.push(given);
        high.push(percentile(&lags, 99.0));
        middle.push(median(&lags));
        context.say(&format!("lag, round {}: p99 {:.1} ms at {given:.0}/s", round + 1, high[round]));
    }
    drop(commands);
    service.stop().await.expect("the service stops");
    let note = format!("given {:.0}/s, of at most {:.0}/s with projections running", median(&half), median(&highest));
    vec![
        Figure::alone(GROUP, "projection lag p99 at half of the highest rate", "ms", high, Goal::AtMost(50.0))
            .noted(note),
        Figure::alone(GROUP, "… median", "ms", middle, Goal::Shown),
    ]
}

/// Waits until all read models are where the log is.
async fn caught_up(commands: &Commands, shown: &mut Shown) {
    let heads = commands.log().heads_now(&[]).await.expect("the log can be read");
    while heads.iter().any(|(partition, head)| shown.in_all(*partition) < *head) {
        let _ = tokio::time::timeout(Duration::from_millis(100), shown.changed()).await;
    }
}

/// Gives commands by the clock; gives how many a second those were, and the lag of each in milliseconds.
async fn open_loop(
    commands: &Arc<Commands>,
    world: &Arc<World>,
    shown: Shown,
    rate: f64,
    time: Duration,
) -> (f64, Vec<f64>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let watcher = tokio::spawn(watch(shown, receiver));
    let (begin, mut given) = (Instant::now(), 0_u64);
    let mut clock = tokio::time::interval(TICK);
    let mut running = JoinSet::new();
    while begin.elapsed() < time {
        clock.tick().await;
        let due = (begin.elapsed().as_secs_f64() * rate) as u64;
        for _ in given..due {
            running.spawn(give(commands.clone(), world.clone(), sender.clone()));
        }
        given = given.max(due);
        while running.try_join_next().is_some() {}
    }
    let rate = given as f64 / begin.elapsed().as_secs_f64();
    while running.join_next().await.is_some() {}
    drop(sender);
    (rate, watcher.await.expect("lags are known"))
}

async fn give(commands: Arc<Commands>, world: Arc<World>, sender: mpsc::UnboundedSender<Acknowledged>) {
    let mut random = StdRng::from_os_rng();
    let tenant = &world.tenants[random.random_range(0..world.tenants.len())];
    let receipt = if random.random() {
        accept(&commands, &tenant.owner, &project(&tenant.id, &slug())).await
    } else {
        let project = tenant.projects[random.random_range(0..tenant.projects.len())].clone();
        let change = Change::Update { name: Some(format!("Project {}", slug())), slug: None, metadata: None };
        accept(&commands, &tenant.owner, &ChangeProject { project, change, reason: None }).await
    };
    let at = Instant::now();
    for event in receipt.events {
        let _ = sender.send(Acknowledged { at, partition: event.partition, offset: event.offset });
    }
}

/// Holds what was acknowledged against what is shown, until everything is.
async fn watch(mut shown: Shown, mut acknowledged: mpsc::UnboundedReceiver<Acknowledged>) -> Vec<f64> {
    let mut waiting: BTreeMap<i16, BTreeMap<i64, Instant>> = BTreeMap::new();
    let (mut lags, mut open) = (vec![], true);
    while open || waiting.values().any(|offsets| !offsets.is_empty()) {
        tokio::select! {
            next = acknowledged.recv(), if open => match next {
                None => open = false,
                Some(Acknowledged { at, partition, offset }) => {
                    if shown.in_all(partition) >= offset {
                        lags.push(0.0);
                    } else {
                        waiting.entry(partition).or_default().insert(offset, at);
                    }
                }
            },
            () = shown.changed() => {
                let now = Instant::now();
                for (partition, offsets) in &mut waiting {
                    let later = offsets.split_off(&(shown.in_all(*partition) + 1));
                    let reached = std::mem::replace(offsets, later);
                    lags.extend(reached.values().map(|at| now.duration_since(*at).as_secs_f64() * 1000.0));
                }
            }
        }
    }
    lags
}
