//! The page that people look at most: an organization with its limits, first 10 members with names, first 5
//! projects, open invitations, last 10 audit events with who acted.
//!
//! Ours: one GraphQL query over HTTP, 128 connections to the service's process, each with the token of the owner of
//! the organization that it asks for. It authenticates, looks at the caller's standing in the log, holds every list
//! against permissions, and opens what is encrypted in the events. Three ways of asking, see [`Mode`].
//!
//! The reference: one SQL statement that makes the same JSON from the same tables in the same database, prepared, by
//! pgbench, for a random organization; it authenticates nobody. Before anything is measured, the answers of both are
//! compared for some organizations, and have to be equal (times as points in time). pgbench runs with several numbers
//! of clients first, and the best is taken: 128 processes on a small machine would slow the reference down.

use std::sync::Arc;
use std::time::Duration;

use aggregates::descriptors;
use chrono::{DateTime, Utc};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::http::{Connection, Counted, body, each_once, find, load};
use crate::pgbench::Run;
use crate::process::Service;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::world::{Tenant, World};

const GROUP: &str = "dashboard";
const CONNECTIONS: usize = 128;
/// Numbers of clients that the reference is tried with.
const CLIENTS: [u32; 4] = [4, 8, 32, 128];
const COMPARED: usize = 20;
/// How many dashboards are read for each mutation in a busy time.
const READS_A_MUTATION: u32 = 10;

const QUERY: &str = "query Dashboard($id: ID!) { organization(by: {id: $id}) {
    id slug name verification lifecycle plan version createdAt limits { name maximum used }
    members(first: 10) { nodes { id roles state source joinedAt user { id name email } } pageInfo { hasNextPage } }
    projects(first: 5) { nodes { id slug name state metadata createdAt version } pageInfo { hasNextPage } }
    invitations(first: 10, state: PENDING) { nodes { id email roles state expiresAt } pageInfo { hasNextPage } }
    auditTrail(last: 10) { nodes { id action subjectId sequence auditSequence recordedAt actor { id label } } } } }";

const MUTATION: &str =
    "mutation($input: UpdateOrganizationInput!) { updateOrganization(input: $input) { errors { code message } } }";

/// What the query answers, in one statement. `:number` is which of the organizations.
const STATEMENT: &str = include_str!("dashboard.sql");

/// How the service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Each organization once, by a service that was just started.
    Cold,
    /// One of them at random, again and again.
    Warm,
    /// The same, with a mutation of one of them after every ten.
    Busy,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Cold, Self::Warm, Self::Busy];

    fn name(self) -> &'static str {
        match self {
            Self::Cold => "dashboard over HTTP, cold: each organization once",
            Self::Warm => "dashboard over HTTP, warm: 1,000 organizations at random",
            Self::Busy => "dashboard over HTTP, busy: warm, and a mutation for every ten",
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::Cold => Goal::Times(0.45, 0.6),
            Self::Warm => Goal::Times(0.9, 1.5),
            Self::Busy => Goal::Times(0.7, 1.0),
        }
    }

    /// What has to be asked before it is measured: a service keeps an answer on the second time.
    async fn warm_up(self, service: &Service, world: &Arc<World>) {
        if self != Self::Cold {
            for _ in 0..2 {
                once(service, world).await;
            }
        }
    }

    async fn rate(self, service: &Service, world: &Arc<World>, time: Duration) -> Counted {
        match self {
            Self::Cold => once(service, world).await,
            Self::Warm => rate(service, world, time, None).await,
            Self::Busy => {
                let all = rate(service, world, time, Some(READS_A_MUTATION)).await;
                let reads = READS_A_MUTATION as f64 / (READS_A_MUTATION + 1) as f64;
                Counted { rate: all.rate * reads, all: (all.all as f64 * reads) as u64 }
            }
        }
    }
}

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    let world = context.world().await;
    let pool = world.database.pool(1).await;
    prepare(&pool, &world).await;
    let service = Service::start(&context.program, &world.database).await;
    compare(&pool, &service, &world).await;
    service.stop().await;
    let script = script(&world);
    let clients = best_clients(context, &world, &script).await;
    let mut figures = vec![];
    for mode in Mode::ALL {
        figures.extend(in_mode(context, &world, mode, (&script, &clients)).await);
    }
    figures
}

async fn in_mode(
    context: &mut Context,
    world: &Arc<World>,
    mode: Mode,
    (script, clients): (&str, &Result<u32, String>),
) -> Vec<Figure> {
    let time = context.options.time();
    let (mut ours, mut costs, mut memory, mut reference) = (vec![], vec![], vec![], Ok(vec![]));
    for round in 0..context.options.rounds {
        let service = Service::start(&context.program, &world.database).await;
        mode.warm_up(&service, world).await;
        let before = context.spent(Some(&service));
        let counted = mode.rate(&service, world, time).await;
        costs.push(before.each(context.spent(Some(&service)), counted.all));
        ours.push(counted.rate);
        memory.push(service.memory("VmHWM"));
        service.stop().await;
        if let (Ok(known), Ok(clients)) = (&mut reference, clients) {
            match sql(context, world, script, *clients, time).await {
                Ok(rate) => known.push(rate),
                Err(why) => reference = Err(why),
            }
        }
        context.say(&format!("{}, round {}: {:.0}/s", mode.name(), round + 1, ours[round]));
    }
    let note = clients
        .as_ref()
        .map_or_else(Clone::clone, |clients| format!("pgbench had {clients} clients, the best of several"));
    vec![
        Figure::alone(GROUP, mode.name(), "/s", ours, mode.goal()).beside("one SQL statement", &reference).noted(note),
        context.cost(GROUP, &costs),
        Figure::alone(GROUP, "resident memory, most with these", "MiB", memory, Goal::AtMost(300.0)),
    ]
}

/// The organizations by number, and the actions of events: what the statement needs and the service knows by itself.
async fn prepare(pool: &PgPool, world: &World) {
    let ids: Vec<&str> = world.tenants.iter().map(|tenant| tenant.id.as_ref()).collect();
    let (types, actions): (Vec<&str>, Vec<String>) =
        descriptors().map(|descriptor| (descriptor.name, descriptor.action())).unzip();
    let make = |text| sqlx::query(text).execute(pool);
    make("CREATE TABLE IF NOT EXISTS bench_picks (number int PRIMARY KEY, id text COLLATE \"C\" NOT NULL)")
        .await
        .unwrap();
    make("CREATE TABLE IF NOT EXISTS bench_actions (event_type text COLLATE \"C\" PRIMARY KEY, action text NOT NULL)")
        .await
        .unwrap();
    let picks = "INSERT INTO bench_picks SELECT n, id FROM unnest($1::text[]) WITH ORDINALITY AS o(id, n)";
    sqlx::query(picks).bind(&ids).execute(pool).await.unwrap();
    let kinds = "INSERT INTO bench_actions SELECT * FROM unnest($1::text[], $2::text[])";
    sqlx::query(kinds).bind(&types).bind(&actions).execute(pool).await.unwrap();
    make("VACUUM ANALYZE").await.unwrap();
}

fn script(world: &World) -> String {
    let statement = STATEMENT.split_whitespace().collect::<Vec<_>>().join(" ");
    // A colon before a letter is a variable of pgbench; there is no other in the statement.
    format!("\\set number random(1, {})\n{statement};\n", world.tenants.len())
}

/// Both have to answer the same.
async fn compare(pool: &PgPool, service: &Service, world: &World) {
    crate::figures::audit::wait_for_read_models(pool).await;
    let mut connection = Connection::open(service.address).await;
    for (place, tenant) in world.tenants.iter().enumerate().take(COMPARED) {
        let ask = body(QUERY, &json!({"id": tenant.id.as_ref()}));
        let ours: Value = serde_json::from_slice(connection.post(&tenant.token, &ask).await).unwrap();
        let statement = STATEMENT.replace(":number", "$1");
        let number = i32::try_from(place + 1).unwrap_or(i32::MAX);
        let theirs: Value = sqlx::query_scalar(&statement).bind(number).fetch_one(pool).await.unwrap();
        assert_eq!(normal(ours), normal(theirs), "the reference does not answer the same");
    }
}

/// The same point in time as the same text.
fn normal(value: Value) -> Value {
    match value {
        Value::String(text) => match text.parse::<DateTime<Utc>>() {
            Ok(time) => time.timestamp_micros().into(),
            Err(_) => text.into(),
        },
        Value::Array(values) => values.into_iter().map(normal).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, normal(value))).collect(),
        value => value,
    }
}

/// Each organization, once.
async fn once(service: &Service, world: &World) -> Counted {
    let requests = world.tenants.iter().map(question).collect();
    each_once(service.address, CONNECTIONS, requests).await
}

fn question(tenant: &Tenant) -> (String, String) {
    (tenant.token.clone(), body(QUERY, &json!({"id": tenant.id.as_ref()})))
}

fn mutation(tenant: &Tenant, random: &mut StdRng) -> (String, String) {
    let input =
        json!({"organizationId": tenant.id.as_ref(), "name": format!("Organization {}", random.random::<u32>())});
    (tenant.token.clone(), body(MUTATION, &json!({"input": input})))
}

async fn rate(service: &Service, world: &Arc<World>, time: Duration, mutate_after: Option<u32>) -> Counted {
    let world = world.clone();
    let next = move |random: &mut StdRng| {
        let tenant = &world.tenants[random.random_range(0..world.tenants.len())];
        match mutate_after {
            Some(reads) if random.random_ratio(1, reads + 1) => mutation(tenant, random),
            Some(_) | None => question(tenant),
        }
    };
    let check = |answer: &[u8]| {
        find(answer, b"\"auditTrail\":{\"nodes\":[{").is_some() || find(answer, b"\"errors\":[]").is_some()
    };
    load(service.address, CONNECTIONS, time, next, check).await
}

async fn sql(context: &Context, world: &World, script: &str, clients: u32, time: Duration) -> Result<f64, String> {
    let (database, scripts) = (&world.database, &[script.to_owned()]);
    context.bench(Run { database, scripts, clients, seconds: time.as_secs_f64(), define: &[] }).await
}

async fn best_clients(context: &Context, world: &World, script: &str) -> Result<u32, String> {
    let (mut best, mut why) = ((0, 0.0), String::new());
    for clients in CLIENTS {
        match sql(context, world, script, clients, Duration::from_secs(1)).await {
            Ok(rate) if rate > best.1 => best = (clients, rate),
            Ok(_) => {}
            // On a busy machine a second may be too short for many clients; others were long enough.
            Err(error) => why = error,
        }
    }
    if best.0 == 0 { Err(why) } else { Ok(best.0) }
}
