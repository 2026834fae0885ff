//! How long one command takes when nothing else happens.
//!
//! Ours: one connection to the service's process, one `createProject` after the other over HTTP with authentication,
//! projections running, the time from the request's first byte to the answer's last. And the same without HTTP, by
//! `Commands::execute` in this process. The reference: pgbench with one client, one single-row INSERT after the other,
//! each one's time by its log. In turn in each round; the 99th percentile of each round.
//!
//! Before that, every organization and its owner are met once by both of ours: reading them from the log and
//! verifying a token for the first time is a line of its own, and not what a command costs in a service that runs.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tenancy::database::embedded::Purpose;
use tenancy::service::Core;

use super::commands::{Mix, one, slug};
use super::requests::{create_project, create_project_of, created};
use crate::http::Connection;
use crate::process::Service;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::stats::{median, percentile};
use crate::world::{World, accept, project};

const GROUP: &str = "idle";

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    context.prepare_rows().await;
    let world = context.world().await;
    let service = Service::start(&context.program, &world.database).await;
    super::audit::wait_for_read_models(&world.database.pool(1).await).await;
    let core = Core::open(&world.database.config(), Purpose::Command).await.expect("the service opens");
    let time = context.options.time() / 2;
    let first = (first_over_http(&service, &world).await, first_direct(&core, &world).await);
    let (mut over_http, mut in_process) = (Percentiles::default(), Percentiles::default());
    let (mut reference, mut reference_middle) = (Ok(vec![]), vec![]);
    for _ in 0..context.options.rounds {
        over_http.push(&http(&service, &world, time).await);
        insert(context, time, &mut reference, &mut reference_middle).await;
        in_process.push(&direct(&core, &world, time).await);
    }
    core.close().await.expect("the service closes");
    service.stop().await;
    let title = "single-row INSERT";
    let middle = reference.clone().map(|_| reference_middle);
    vec![
        Figure::alone(GROUP, "p99 of a single command over HTTP", "ms", over_http.high, Goal::Over(2.0))
            .beside(title, &reference),
        Figure::alone(GROUP, "… without HTTP", "ms", in_process.high, Goal::Over(2.0)).beside(title, &reference),
        Figure::alone(GROUP, "… median over HTTP", "ms", over_http.middle, Goal::Shown).beside(title, &middle),
        Figure::alone(GROUP, "… median without HTTP", "ms", in_process.middle, Goal::Shown).beside(title, &middle),
        Figure::alone(
            GROUP,
            "… the first of each organization and owner, over HTTP, median",
            "ms",
            first.0,
            Goal::Shown,
        ),
        Figure::alone(GROUP, "… the same without HTTP", "ms", first.1, Goal::Shown),
    ]
}

#[derive(Default)]
struct Percentiles {
    high: Vec<f64>,
    middle: Vec<f64>,
}

impl Percentiles {
    fn push(&mut self, latencies: &[f64]) {
        self.high.push(percentile(latencies, 99.0));
        self.middle.push(median(latencies));
    }
}

async fn insert(context: &Context, time: Duration, high: &mut Result<Vec<f64>, String>, middle: &mut Vec<f64>) {
    let Ok(known) = high else { return };
    match context.single_latencies(time.as_secs_f64()).await {
        Ok(latencies) => {
            known.push(percentile(&latencies, 99.0));
            middle.push(median(&latencies));
        }
        Err(why) => *high = Err(why),
    }
}

/// One command in every organization, each the first that the service sees of it and of its owner.
async fn first_over_http(service: &Service, world: &World) -> Vec<f64> {
    let mut connection = Connection::open(service.address).await;
    let mut latencies = vec![];
    for tenant in &world.tenants {
        let (token, body) = create_project_of(tenant);
        let sent = Instant::now();
        let answer = connection.post(&token, &body).await;
        latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
        assert!(created(answer), "not created: {}", String::from_utf8_lossy(answer));
    }
    vec![median(&latencies)]
}

async fn first_direct(core: &Core, world: &World) -> Vec<f64> {
    let mut latencies = vec![];
    for tenant in &world.tenants {
        let given = Instant::now();
        accept(&core.commands, &tenant.owner, &project(&tenant.id, &slug())).await;
        latencies.push(given.elapsed().as_secs_f64() * 1000.0);
    }
    vec![median(&latencies)]
}

async fn http(service: &Service, world: &World, time: Duration) -> Vec<f64> {
    let mut random = StdRng::from_os_rng();
    let mut connection = Connection::open(service.address).await;
    let mut latencies = vec![];
    let begin = Instant::now();
    while begin.elapsed() < time {
        let (token, body) = create_project(world, &mut random);
        let sent = Instant::now();
        let answer = connection.post(&token, &body).await;
        latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
        assert!(created(answer), "not created: {}", String::from_utf8_lossy(answer));
    }
    latencies
}

async fn direct(core: &Core, world: &World, time: Duration) -> Vec<f64> {
    let mut random = StdRng::from_os_rng();
    let mut latencies = vec![];
    let begin = Instant::now();
    while begin.elapsed() < time {
        let given = Instant::now();
        one(&core.commands, world, Mix::Both, &mut random).await;
        latencies.push(given.elapsed().as_secs_f64() * 1000.0);
    }
    latencies
}
