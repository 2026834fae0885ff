//! A page of the audit trail from the middle of a long log, and a bundle of all of it.
//!
//! Ours: `auditTrail(first: 50, after: cursor)` over HTTP, one request after the other on one connection, at a random
//! place in the middle half; the trail of the one large organization by its owner, and the trail of all
//! organizations by an operator (whose cursors are of time). The reference is the same on a log of 10,000 events, by
//! another process of the service on another database of the same server, in turn in each round; medians.
//!
//! The bundle: `GET /audit/{organization}/export` of the one large organization, read as fast as it comes and thrown
//! away, once all of it is sealed. Memory is the most that the service ever took, pages and sealing included.
//!
//! Both logs are written by COPY (see `fill`); their personal data is really sealed, and opened for each page.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{Connection, body};
use crate::logs::Log;
use crate::process::Service;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::stats::median;
use crate::world::token;

const GROUP: &str = "audit";
/// How many places there are to start from.
const PLACES: usize = 40;
const FIELDS: &str =
    "edges { cursor node { id action subjectId auditSequence recordedAt actor { id } ip userAgent data } }
    pageInfo { hasNextPage endCursor }";

/// A log with a service, and where pages of it can begin.
struct Side {
    service: Service,
    connection: Connection,
    owner: String,
    operator: String,
    organization: String,
    of_organization: Vec<String>,
    of_all: Vec<String>,
}

/// Waits until every read model of the database is where its log is.
pub async fn wait_for_read_models(pool: &PgPool) {
    let statement = "SELECT coalesce(bool_and(c.\"offset\" >= h.head), true) FROM checkpoints c JOIN LATERAL (
        SELECT coalesce(max(\"offset\"), 0) AS head FROM events WHERE partition = c.partition) h ON true";
    while !sqlx::query_scalar::<_, bool>(statement).fetch_one(pool).await.expect("checkpoints can be read") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    let logs = context.logs().await;
    let mut small = Side::new(context, &logs.0).await;
    let mut large = Side::new(context, &logs.1).await;
    wait_for_read_models(&logs.1.database.pool(1).await).await;
    let time = context.options.time() / 4;
    let (mut one, mut all) = ((vec![], vec![]), (vec![], vec![]));
    for _ in 0..context.options.rounds {
        one.0.push(large.pages(true, time).await);
        one.1.push(small.pages(true, time).await);
        all.0.push(large.pages(false, time).await);
        all.1.push(small.pages(false, time).await);
    }
    let events = large.wait_until_sealed(&logs.1.database.pool(1).await).await;
    let mut exported = vec![];
    for _ in 0..context.options.rounds {
        exported.push(large.export(events).await);
    }
    let memory = vec![large.service.memory("VmHWM")];
    small.service.stop().await;
    large.service.stop().await;
    context.audit_page = Some(median(&one.0));
    let (few, many) = (logs.0.events, logs.1.events);
    let title = format!("in a log of {few}");
    let ours = |what: &str| format!("audit page, deep cursor, {what}, in a log of {many} events");
    vec![
        Figure::alone(GROUP, ours("one organization"), "ms", one.0, Goal::AtMostTimes(1.3)).beside(&title, &Ok(one.1)),
        Figure::alone(GROUP, ours("all organizations"), "ms", all.0, Goal::AtMostTimes(1.3)).beside(&title, &Ok(all.1)),
        Figure::alone(GROUP, format!("bundle of {events} events"), "events/s", exported, Goal::Shown),
        Figure::alone(GROUP, "resident memory, most with pages and bundles", "MiB", memory, Goal::AtMost(250.0)),
    ]
}

impl Side {
    async fn new(context: &Context, log: &Log) -> Self {
        let service = Service::start(&context.program, &log.database).await;
        let connection = Connection::open(service.address).await;
        let owner = token(&log.database, &log.large.email, false);
        let operator = token(&log.database, "operator@example.com", true);
        let organization = log.large.id.to_string();
        let (of_organization, of_all) = (vec![], vec![]);
        let mut side = Self { service, connection, owner, operator, organization, of_organization, of_all };
        side.find_places(log).await;
        side
    }

    /// Cursors that the service itself gave, from the middle half: those of an organization by filtering for some
    /// of its streams, those of all by time.
    async fn find_places(&mut self, log: &Log) {
        let members = &log.large.members;
        for place in 0..PLACES {
            let member = &members[members.len() / 4 + place * members.len() / 2 / PLACES];
            let filter = json!({"subjectIds": [member.as_ref()]});
            let cursor = self.page(true, None, filter).await.1;
            self.of_organization.push(cursor);
            let usual = &log.usual[log.usual.len() / 4 + place * log.usual.len() / 2 / PLACES];
            let filter = json!({"subjectIds": [usual.id.as_ref()]});
            let cursor = self.page(false, None, filter).await.1;
            self.of_all.push(cursor);
        }
    }

    /// A page: how many milliseconds it took, and its last cursor.
    async fn page(&mut self, organization: bool, after: Option<&str>, filter: Value) -> (f64, String) {
        let (query, token) = if organization {
            let query = "query($id: ID!, $after: String, $filter: AuditFilter) { organization(by: {id: $id}) {
                auditTrail(first: 50, after: $after, filter: $filter) {";
            (format!("{query} {FIELDS} }} }} }}"), self.owner.clone())
        } else {
            let query = "query($after: String, $filter: AuditFilter) {
                auditTrail(first: 50, after: $after, filter: $filter) {";
            (format!("{query} {FIELDS} }} }}"), self.operator.clone())
        };
        let variables: HashMap<&str, Value> =
            [("id", json!(self.organization)), ("after", json!(after)), ("filter", filter)]
                .into_iter()
                .filter(|(name, _)| organization || *name != "id")
                .collect();
        let request = body(&query, &json!(variables));
        let sent = Instant::now();
        let answer = self.connection.post(&token, &request).await;
        let took = sent.elapsed().as_secs_f64() * 1000.0;
        let answer: Value = serde_json::from_slice(answer).expect("an answer is JSON");
        let trail = if organization { "/data/organization/auditTrail" } else { "/data/auditTrail" };
        let cursor = answer.pointer(&format!("{trail}/pageInfo/endCursor")).and_then(Value::as_str);
        (took, cursor.unwrap_or_else(|| panic!("no page: {answer}")).to_owned())
    }

    /// Waits until the whole trail of the organization is sealed; how many events it has.
    async fn wait_until_sealed(&self, pool: &PgPool) -> i64 {
        let statement = "SELECT count(*), coalesce((SELECT size FROM sealed_trees WHERE organization_id = $1), 0)
            FROM events WHERE organization_id = $1";
        loop {
            let row: (i64, i64) =
                sqlx::query_as(statement).bind(&self.organization).fetch_one(pool).await.expect("seals can be read");
            if row.0 == row.1 {
                return row.0;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Exports the whole trail: how many events a second.
    async fn export(&self, events: i64) -> f64 {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(self.service.address).await.expect("the service takes connections");
        let request = format!(
            "GET /audit/{}/export HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            self.organization, self.owner
        );
        stream.write_all(request.as_bytes()).await.expect("a request can be sent");
        let (mut buffer, mut end) = (vec![0; 256 * 1024], vec![]);
        loop {
            let count = stream.read(&mut buffer).await.expect("an answer can be read");
            if count == 0 {
                break;
            }
            end.extend_from_slice(&buffer[..count]);
            end.drain(..end.len().saturating_sub(64));
        }
        let end = String::from_utf8_lossy(&end).into_owned();
        assert!(end.contains(r#"{"type":"end"}"#), "the bundle is whole: {end}");
        events as f64 / begin.elapsed().as_secs_f64()
    }

    /// The median of pages from random places.
    async fn pages(&mut self, organization: bool, time: Duration) -> f64 {
        let mut random = StdRng::from_os_rng();
        let (begin, mut latencies) = (Instant::now(), vec![]);
        while begin.elapsed() < time {
            let places = if organization { &self.of_organization } else { &self.of_all };
            let after = places[random.random_range(0..places.len())].clone();
            latencies.push(self.page(organization, Some(&after), Value::Null).await.0);
        }
        median(&latencies)
    }
}
