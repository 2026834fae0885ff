//! How fast webhooks go out.
//!
//! The service runs in this process, on a database of its own with one organization that has one endpoint, or a hundred;
//! their receiver is a task in this process that answers 200 as cheaply as it can. Everything shares two cores.
//!
//! - *Draining.* Events are recorded while nobody sends; then a service starts that does, and the time is taken from the
//!   first message to the last. Beside it, in each round: as many requests with the same headers and a body as long, sent
//!   by the same client to the same receiver, as many at once, from memory: no queue, no database, no signatures.
//! - *Commit to receipt.* Projects are created by the clock, so many a second, whether earlier ones have arrived or not;
//!   the time is from a command's acknowledgement to the receiver's having read its message.
//! - *One that hangs.* The same with a hundred endpoints at two events a second, once with all of them well and once with
//!   one whose receiver never answers: the time of the others.
//! - *Bytes.* The write-ahead log that the database writes while a backlog is made and drained, less what it writes for
//!   the same events with no endpoint, for each delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregates::ids::OrganizationId;
use sqlx::PgPool;
use tenancy::commands::organizations::CreateOrganization;
use tenancy::commands::webhooks::{CreateWebhookEndpoint, Wishes};
use tenancy::commands::{Caller, Commands};
use tenancy::config::{Config, Network, Ports};
use tenancy::database::embedded::Purpose;
use tenancy::endpoints::Targets;
use tenancy::service::{Core, Service};
use tenancy::webhooks::{Checkpoints, Letter, Sender};
use tokio::task::JoinSet;

use super::commands::slug;
use crate::parallel::each;
use crate::receiver::Receiver;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::server::Database;
use crate::stats::percentile;
use crate::world::{accept, project, user};

const GROUP: &str = "webhooks";
/// How many attempts to one endpoint are under way at once: the configuration's own.
const AT_ONCE: usize = 16;
/// A body as long as that of `project.created`.
const BODY_BYTES: usize = 760;

/// An organization with so many endpoints.
struct Scene {
    database: Database,
    receiver: Receiver,
    owner: Caller,
    organization: OrganizationId,
    endpoints: usize,
}

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    let deliveries = if context.options.given.quick { 5_000 } else { 20_000 };
    let mut figures = vec![];
    let mut bytes = vec![];
    for (endpoints, backlog, title) in [
        (1, deliveries, "deliveries to 1 endpoint"),
        (100, 5 * deliveries, "deliveries to 100 endpoints, draining a backlog"),
    ] {
        let mut scene = Scene::new(context, &format!("bench_webhooks_{endpoints}"), endpoints, false).await;
        let (mut ours, mut plain) = (vec![], vec![]);
        for round in 0..context.options.rounds {
            let (rate, written) = scene.drain(backlog).await;
            ours.push(rate);
            bytes.push(written);
            plain.push(scene.plain(backlog.min(20_000)).await);
            context.say(&format!("{title}, round {}: {rate:.0}/s, plain {:.0}/s", round + 1, plain[round]));
        }
        let figure = Figure::alone(GROUP, title, "/s", ours, Goal::Shown);
        figures.push(figure.beside("the same client without a queue", &Ok(plain)).noted(format!("{backlog} a round")));
    }
    figures.push(Figure::alone(GROUP, "… write-ahead log of a delivery", "bytes", bytes, Goal::Shown));
    for rate in [50.0, 200.0] {
        let name = format!("bench_webhooks_at_{rate}");
        let mut scene = Scene::new(context, &name, 1, false).await;
        let times = scene.rounds(context, rate).await;
        let of = |percent: f64| times.iter().map(|times| percentile(times, percent)).collect::<Vec<_>>();
        let title = format!("commit to receipt at {rate:.0}/s");
        figures.push(Figure::alone(GROUP, format!("{title}, p50"), "ms", of(50.0), Goal::Shown));
        figures.push(Figure::alone(GROUP, format!("{title}, p95"), "ms", of(95.0), Goal::AtMost(50.0)));
        figures.push(Figure::alone(GROUP, format!("{title}, p99"), "ms", of(99.0), Goal::Shown));
    }
    let mut well = Scene::new(context, "bench_webhooks_well", 100, false).await;
    let well = well.rounds(context, 2.0).await;
    let mut hangs = Scene::new(context, "bench_webhooks_hangs", 100, true).await;
    let hangs = hangs.rounds(context, 2.0).await;
    let high = |all: &[Vec<f64>]| all.iter().map(|times| percentile(times, 95.0)).collect::<Vec<_>>();
    let figure =
        Figure::alone(GROUP, "p95 of 99 endpoints while one hangs", "ms", high(&hangs), Goal::AtMostTimes(1.1));
    figures.push(figure.beside("while all are well", &Ok(high(&well))));
    figures
}

impl Scene {
    async fn new(context: &Context, name: &str, endpoints: usize, one_hangs: bool) -> Self {
        let database = context.server.database(&name.replace('.', "_")).await;
        let receiver = Receiver::start().await;
        let core = Core::open(&config(&database, false), Purpose::Command).await.expect("the service opens");
        let owner = user(&core, &database, "owner@example.com").await;
        let create = CreateOrganization {
            name: "Acme".to_owned(),
            slug: "acme".to_owned(),
            contact_email: None,
            external_id: None,
            owner: None,
            reason: None,
            source: aggregates::membership::MembershipSource::Founder,
        };
        let created = accept(&core.commands, &owner, &create).await;
        let Some((organization, _)) = created.entity::<aggregates::Organization>() else { panic!("no organization") };
        for number in 0..endpoints {
            let path = if one_hangs && number == 0 { "hang".to_owned() } else { format!("hook{number}") };
            let create = CreateWebhookEndpoint {
                organization: organization.clone(),
                wishes: Wishes {
                    url: Some(format!("http://{}/{path}", receiver.address)),
                    events: Some(vec!["project.created".to_owned()]),
                    ..Wishes::default()
                },
                reason: None,
            };
            accept(&core.commands, &owner, &create).await;
        }
        core.catch_up().await.expect("read models can be made");
        core.close().await.expect("the service closes");
        Self { database, receiver, owner, organization, endpoints }
    }

    /// Makes a backlog of so many deliveries and drains it: how many a second that were, and how many bytes the database
    /// wrote for each.
    async fn drain(&mut self, deliveries: usize) -> (f64, f64) {
        let pool = self.database.pool(1).await;
        let events = deliveries / self.endpoints;
        let core = Core::open(&config(&self.database, false), Purpose::Command).await.expect("the service opens");
        let before = written(&pool).await;
        self.record(&core.commands, events).await;
        core.catch_up().await.expect("read models can be made");
        let made = written(&pool).await - before;
        core.close().await.expect("the service closes");
        let alone = self.without_endpoints(events).await;
        let begun = self.receiver.received();
        let before = written(&pool).await;
        let service = Service::start(&config(&self.database, true)).await.expect("the service starts");
        while self.receiver.received() == begun {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let begin = Instant::now();
        while self.receiver.received() - begun < deliveries as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let rate = (deliveries - 1) as f64 / begin.elapsed().as_secs_f64();
        wait_until_recorded(&pool).await;
        let drained = written(&pool).await - before;
        service.stop().await.expect("the service stops");
        (rate, (made - alone + drained) / deliveries as f64)
    }

    /// What the database writes for the same events where nobody wants them.
    async fn without_endpoints(&self, events: usize) -> f64 {
        let pool = self.database.pool(1).await;
        let core = Core::open(&config(&self.database, false), Purpose::Command).await.expect("the service opens");
        let create = CreateOrganization {
            name: "Bolt".to_owned(),
            slug: slug(),
            contact_email: None,
            external_id: None,
            owner: None,
            reason: None,
            source: aggregates::membership::MembershipSource::Founder,
        };
        let created = accept(&core.commands, &self.owner, &create).await;
        let Some((other, _)) = created.entity::<aggregates::Organization>() else { panic!("no organization") };
        let before = written(&pool).await;
        record(&core.commands, &self.owner, &other, events).await;
        core.catch_up().await.expect("read models can be made");
        let after = written(&pool).await;
        core.close().await.expect("the service closes");
        after - before
    }

    async fn record(&self, commands: &Arc<Commands>, events: usize) {
        record(commands, &self.owner, &self.organization, events).await;
    }

    /// So many requests by the same client, from memory: how many a second.
    async fn plain(&self, requests: usize) -> f64 {
        let targets = Targets {
            http_allowed: true,
            ports: vec![1..=65_535],
            allowed: vec!["127.0.0.0/8".parse().expect("a block")],
        };
        let sender = Sender::new(Arc::new(targets), Duration::from_secs(5), Duration::from_secs(15));
        let sender = sender.expect("a client can be made");
        let letter = Letter {
            url: format!("http://{}/plain", self.receiver.address),
            id: "evt_01h455vb4pex5vsknk084sn02q".to_owned(),
            timestamp: 1_700_000_000,
            signatures: format!("v1,{}", "x".repeat(44)),
            checkpoints: Some(Checkpoints { newest: "x".repeat(360), witnessed: None }),
            body: vec![b'x'; BODY_BYTES].into(),
        };
        let at_once = if self.endpoints == 1 { AT_ONCE } else { 512 };
        let (begin, before) = (Instant::now(), self.receiver.received());
        each(at_once, 0..requests, move |_| {
            let (sender, letter) = (sender.clone(), letter.clone());
            async move { assert_eq!(sender.send(&letter, chrono::Utc::now()).await.status, Some(200)) }
        })
        .await;
        assert_eq!(self.receiver.received() - before, requests as u64, "all of them came");
        requests as f64 / begin.elapsed().as_secs_f64()
    }

    /// The times from commit to receipt in milliseconds, at so many events a second, of each round.
    async fn rounds(&mut self, context: &Context, rate: f64) -> Vec<Vec<f64>> {
        let service = Service::start(&config(&self.database, true)).await.expect("the service starts");
        let commands = service.core().commands.clone();
        let mut rounds = vec![];
        // The first round warms up, and a receiver that hangs is known to by then.
        for round in 0..=context.options.rounds {
            let times = self.round(&commands, rate, context.options.time().max(Duration::from_secs(4))).await;
            if round > 0 {
                context.say(&format!(
                    "{} endpoints at {rate}/s: p95 {:.1} ms",
                    self.endpoints,
                    percentile(&times, 95.0)
                ));
                rounds.push(times);
            }
        }
        drop(commands);
        service.stop().await.expect("the service stops");
        rounds
    }

    async fn round(&mut self, commands: &Arc<Commands>, rate: f64, time: Duration) -> Vec<f64> {
        self.receiver.rest();
        self.receiver.tell(true);
        let (begin, mut given) = (Instant::now(), 0_u64);
        let mut running: JoinSet<(String, Instant)> = JoinSet::new();
        let mut clock = tokio::time::interval(Duration::from_millis(1));
        while begin.elapsed() < time {
            clock.tick().await;
            let due = (begin.elapsed().as_secs_f64() * rate) as u64;
            for _ in given..due {
                let (commands, owner, organization) = (commands.clone(), self.owner.clone(), self.organization.clone());
                running.spawn(async move {
                    let receipt = accept(&commands, &owner, &project(&organization, &slug())).await;
                    (receipt.events[0].id.to_string(), Instant::now())
                });
            }
            given = given.max(due);
        }
        let mut acknowledged = HashMap::new();
        while let Some(done) = running.join_next().await {
            let (id, at) = done.expect("a command is carried out");
            acknowledged.insert(id, at);
        }
        // Of those that hang nobody waits.
        let well = self.endpoints - usize::from(self.database.name.ends_with("hangs"));
        let wanted = acknowledged.len() * well;
        let mut times = Vec::with_capacity(wanted);
        while times.len() < wanted {
            let came = tokio::time::timeout(Duration::from_secs(30), self.receiver.next()).await;
            let came = came.expect("every message arrives");
            if came.path != "/hang"
                && let Some(at) = acknowledged.get(&came.id)
            {
                times.push(came.at.saturating_duration_since(*at).as_secs_f64() * 1_000.0);
            }
        }
        self.receiver.tell(false);
        times
    }
}

async fn record(commands: &Arc<Commands>, owner: &Caller, organization: &OrganizationId, events: usize) {
    let (commands, owner, organization) = (commands.clone(), owner.clone(), organization.clone());
    each(128, 0..events, move |_| {
        let (commands, owner, organization) = (commands.clone(), owner.clone(), organization.clone());
        async move {
            accept(&commands, &owner, &project(&organization, &slug())).await;
        }
    })
    .await;
}

fn config(database: &Database, send: bool) -> Config {
    let mut config = database.config();
    config.webhooks.send = send;
    config.webhooks.http_allowed = true;
    config.webhooks.ports = vec![Ports(1..=65_535)];
    config.webhooks.addresses_allowed = vec![Network("127.0.0.0/8".parse().expect("a block"))];
    config
}

/// How many bytes of write-ahead log there are.
async fn written(pool: &PgPool) -> f64 {
    sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8")
        .fetch_one(pool)
        .await
        .expect("the database answers")
}

async fn wait_until_recorded(pool: &PgPool) {
    loop {
        let open: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries WHERE due_at IS NOT NULL")
            .fetch_one(pool)
            .await
            .expect("the database answers");
        if open == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
