//! Commands a second through the command path, without HTTP.
//!
//! Ours: 128 tasks in this process, each giving one command after the other to `Commands::execute`: half of them
//! create a project in one of the tenants (a new stream; an event, a claim on the slug, a tally), half rename one of
//! the tenants' first projects (an existing stream; an event). Everything is on that is on in the service: standing
//! and permission of the caller, versions of all that was relied upon, claims, tallies, encryption of what is
//! personal (the caller's address and program), one fsync before any answer. Every command has to be accepted.
//!
//! The references, in turn with ours in each round, in databases of the same server:
//! - pgbench, 128 clients, one INSERT a transaction, into the same table with the same indexes (see `sql`);
//! - pgbench, 128 clients, the same rows as those commands leave: event, claim and tally in one transaction for a new
//!   project, the event for a renamed one; and, as a further line, all three rows every time against creations only;
//! - cqrs-es with postgres-es as shipped (its own table, its own `PostgresCqrs`), with the same aggregate and the same
//!   mix, 128 tasks. The size of its pool is tried out first, and the best is taken.
//!
//! Both sides draw from as many organizations (1,000; 200 with `--quick`), so rows are contended for as much: in the
//! second reference two transactions wait for each other when they count the same organization's projects.
//!
//! Generators run on the same machine as what they load: ours in this process, with the service itself; pgbench's in
//! its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aggregates::ids::{Id, ProjectId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tenancy::commands::Commands;
use tenancy::commands::projects::{Change, ChangeProject};
use tenancy::database::embedded::Purpose;
use tenancy::service::{Core, Service};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::crates::Shipped;
use crate::http::{Counted, count};
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::world::{World, accept, project};

const GROUP: &str = "commands";
/// How many commands are in flight.
pub const IN_FLIGHT: usize = 128;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Half creations, half renamings.
    Both,
    /// Creations.
    Creations,
}

/// A slug that was never there.
pub fn slug() -> String {
    ProjectId::from_uuid(Uuid::new_v4()).to_string().replace('_', "-")
}

/// One command of the mix.
pub async fn one(commands: &Commands, world: &World, mix: Mix, random: &mut StdRng) {
    let tenant = &world.tenants[random.random_range(0..world.tenants.len())];
    if mix == Mix::Creations || random.random() {
        accept(commands, &tenant.owner, &project(&tenant.id, &slug())).await;
    } else {
        let renamed = ChangeProject {
            project: tenant.projects[random.random_range(0..tenant.projects.len())].clone(),
            change: Change::Update { name: Some(format!("Project {}", slug())), slug: None, metadata: None },
            reason: None,
        };
        accept(commands, &tenant.owner, &renamed).await;
    }
}

/// Commands a second, with as many in flight.
pub async fn rate(commands: &Arc<Commands>, world: &Arc<World>, mix: Mix, time: Duration) -> Counted {
    let (done, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (commands, world, done, over) = (commands.clone(), world.clone(), done.clone(), over.clone());
        tasks.spawn(async move {
            let mut random = StdRng::from_os_rng();
            while !over.load(Ordering::Relaxed) {
                one(&commands, &world, mix, &mut random).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let rate = count(&done, time).await;
    over.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.expect("commands are accepted");
    }
    Counted { rate, all: done.load(Ordering::Relaxed) }
}

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    context.prepare_rows().await;
    let world = context.world().await;
    let core = Core::open(&world.database.config(), Purpose::Command).await.expect("the service opens");
    let time = context.options.time();
    rate(&core.commands, &world, Mix::Both, Duration::from_secs(1)).await;
    let shipped = Shipped::new(&context.server, world.tenants.len()).await;
    let pool_size = shipped.best_pool(Duration::from_secs(1)).await;
    context.say(&format!("postgres-es is fastest with {pool_size} connections"));

    let mut ours = vec![];
    let (mut single, mut same_rows, mut crates) = (Ok(vec![]), Ok(vec![]), vec![]);
    let (mut creations, mut all_rows) = (vec![], Ok(vec![]));
    let mut costs = vec![];
    for round in 0..context.options.rounds {
        context.server.checkpoint().await;
        let before = context.spent(None);
        let counted = rate(&core.commands, &world, Mix::Both, time).await;
        costs.push(before.each(context.spent(None), counted.all));
        ours.push(counted.rate);
        context.rows(&mut single, |rows| &rows.single).await;
        context.rows(&mut same_rows, |rows| &rows.same_rows).await;
        crates.push(shipped.rate(pool_size, time).await);
        creations.push(rate(&core.commands, &world, Mix::Creations, time).await.rate);
        context.rows(&mut all_rows, |rows| &rows.all_rows).await;
        context.say(&format!("commands, round {}: {:.0}/s", round + 1, ours[round]));
    }
    core.close().await.expect("the service closes");
    let with_projections = with_projections(context, &world, time).await;
    let title = "commands, no HTTP, 128 in flight";
    let figure = |ours: &Vec<f64>| Figure::alone(GROUP, title, "/s", ours.clone(), Goal::Shown);
    let goal = |goal, figure: Figure| Figure { goal, ..figure };
    vec![
        goal(Goal::Times(1.5, 2.5), figure(&ours).beside("single-row INSERT", &single)),
        goal(Goal::Times(3.0, 3.0), figure(&ours).beside("same rows, a transaction each", &same_rows)),
        goal(Goal::Times(8.0, 8.0), figure(&ours).beside("cqrs-es + postgres-es", &Ok(crates)))
            .noted(format!("postgres-es had {pool_size} connections, the best of several sizes")),
        Figure::alone(GROUP, "… creations only", "/s", creations, Goal::Shown)
            .beside("event, claim, tally, a transaction each", &all_rows),
        context.cost(GROUP, &costs),
        Figure::alone(GROUP, "… with projections running", "/s", with_projections, Goal::Shown),
    ]
}

/// The same in a whole service, whose projections follow meanwhile.
async fn with_projections(context: &Context, world: &Arc<World>, time: Duration) -> Vec<f64> {
    let service = Service::start(&world.database.config()).await.expect("the service starts");
    super::audit::wait_for_read_models(&world.database.pool(1).await).await;
    let mut rates = vec![];
    for _ in 0..context.options.rounds {
        rates.push(rate(&service.core().commands, world, Mix::Both, time).await.rate);
    }
    service.stop().await.expect("the service stops");
    rates
}
