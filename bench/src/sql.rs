//! The references in SQL: the rows that a command leaves, written by pgbench into tables that the service's own
//! migrations made. So columns, indexes, constraints and collations are the same, to the letter.
//!
//! Constants are taken from events that commands really recorded, so every row is as wide as ours (what is encrypted
//! is as long, too). Ids ascend as ours do (they begin with the time), so the reference's indexes grow at their right
//! end and not everywhere: random ids would be slower. Organizations are drawn from as many as ours has.

use sqlx::{Executor, PgPool, Row};
use tenancy::database::MIGRATIONS;

use crate::server::{Database, Server};

/// The first key: all have as many digits, and ascend as text.
const FIRST_KEY: i64 = 1_000_000_000_000_000;
/// How ids begin: as long as a real one together with a key.
const ORGANIZATION: &str = "org_01m7wcg65f";
const PROJECT: &str = "prj_01m7wcg65f";
const EVENT: &str = "evt_01m7wcg65f";
/// Keys of a run.
const KEYS_OF_A_RUN: i64 = 1_000_000_000_000;

/// What single rows cost.
pub struct Rows {
    /// Where.
    pub database: Database,
    /// One INSERT a transaction: the event.
    pub single: Vec<String>,
    /// The same rows as a command leaves in one transaction: event, claim and tally of a new project; the event alone
    /// of a changed one.
    pub same_rows: Vec<String>,
    /// Event, claim and tally every time.
    pub all_rows: Vec<String>,
    runs: std::sync::atomic::AtomicI64,
}

struct Sample {
    payload: String,
    actor: String,
    ip: String,
    user_agent: String,
    request_id: String,
}

impl Rows {
    /// Makes the tables; `like` is a pool of a database where commands recorded events.
    pub async fn new(server: &Server, like: &PgPool, organizations: usize) -> Self {
        let database = server.database("bench_rows").await;
        let pool = database.pool(1).await;
        MIGRATIONS.run(&pool).await.expect("the migrations run");
        let created = sample(like, "ProjectCreated").await;
        let renamed = sample(like, "ProjectRenamed").await;
        let tallies = format!(
            "INSERT INTO tallies (organization_id, name, partition)
             SELECT '{ORGANIZATION}' || {FIRST_KEY} + n, name, n % 16
             FROM generate_series(1, {organizations}) AS n, unnest(ARRAY['members', 'owners', 'projects']) AS name"
        );
        pool.execute(tallies.as_str()).await.expect("tallies can be written");
        pool.execute("VACUUM ANALYZE").await.expect("the planner learns the tables");
        let (new, existing) = (insert("ProjectCreated", &created, true), insert("ProjectRenamed", &renamed, false));
        let claim = format!(
            "INSERT INTO claims (scope, key, holder, organization_id, partition)
             VALUES ('project_slug', '{ORGANIZATION}' || :organization || '/p-' || :key, '{PROJECT}' || :key,
                     '{ORGANIZATION}' || :organization, :partition);"
        );
        let tally = format!(
            "UPDATE tallies SET used = used + 1
             WHERE organization_id = '{ORGANIZATION}' || :organization AND name = 'projects';"
        );
        let begin = variables(organizations);
        let whole = format!("{begin}BEGIN;\n{new}\n{}\n{}\nCOMMIT;\n", one_line(&claim), one_line(&tally));
        let (new, existing) = (format!("{begin}{new}\n"), format!("{begin}{existing}\n"));
        Self {
            database,
            single: vec![new, existing.clone()],
            same_rows: vec![whole.clone(), existing],
            all_rows: vec![whole],
            runs: 0.into(),
        }
    }

    /// Variables of the next run: no key comes twice.
    pub fn define(&self) -> Vec<(&'static str, i64)> {
        let run = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        vec![("base", FIRST_KEY + run * KEYS_OF_A_RUN), ("n", 0)]
    }
}

fn variables(organizations: usize) -> String {
    format!(
        "\\set n :n + 1\n\\set key :base + :n * 256 + :client_id\n\\set partition random(0, 15)\n\
         \\set organization {FIRST_KEY} + random(1, {organizations})\n\
         \\set project {FIRST_KEY} + random(1, {})\n",
        organizations * 10
    )
}

fn insert(event_type: &str, sample: &Sample, new: bool) -> String {
    let Sample { payload, actor, ip, user_agent, request_id } = sample;
    let payload = without_variables(&payload.replace('\'', "''"));
    let actor = actor.replace(':', ".");
    let (project, sequence) = if new { (":key", "1") } else { (":project", ":key") };
    one_line(&format!(
        "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition,
             \"offset\", organization_id, audit_sequence, event_id, command_id, actor, ip, user_agent, request_id,
             correlation_id, recorded_at, mac)
         VALUES ('Project', '{PROJECT}' || {project}, {sequence}, '{event_type}', '1.0', '{payload}', :partition, :key,
             '{ORGANIZATION}' || :organization, :key, '{EVENT}' || :key, gen_random_uuid(), '{actor}', '{ip}',
             '{user_agent}', '{request_id}', gen_random_uuid(), now(), '\\x000102030405060708090a0b0c0d0e0f');"
    ))
}

/// A colon before a letter would be a variable of pgbench; JSON may have a blank between.
fn without_variables(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 16);
    let mut after_colon = false;
    for letter in json.chars() {
        if after_colon && (letter.is_ascii_alphabetic() || letter == '_') {
            text.push(' ');
        }
        text.push(letter);
        after_colon = letter == ':';
    }
    text
}

/// pgbench ends a statement where its line ends, unless a backslash follows.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn sample(pool: &PgPool, event_type: &str) -> Sample {
    let row = sqlx::query(
        "SELECT payload::text, actor, ip, user_agent, request_id FROM events
         WHERE event_type = $1 AND ip IS NOT NULL AND request_id IS NOT NULL ORDER BY \"offset\" DESC LIMIT 1",
    )
    .bind(event_type)
    .fetch_one(pool)
    .await
    .expect("such an event was recorded");
    let get = |column: usize| row.get::<String, _>(column);
    Sample { payload: get(0), actor: get(1), ip: get(2), user_agent: get(3), request_id: get(4) }
}
