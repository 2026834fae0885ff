//! Read models: exactly once, stopped where an event cannot be applied, one statement a level.

use std::cell::Cell;

use serde_json::{Value, json};
use sqlx::PgPool;
use tenancy::database::embedded::Purpose;
use tenancy::service::Core;

use crate::support::{Database, eventually};

async fn tables(pool: &PgPool) -> Vec<String> {
    let mut all = vec![];
    for table in ["organizations", "settings", "members", "invitations", "projects", "users"] {
        let rows: Vec<String> =
            sqlx::query_scalar(&format!("SELECT t::text FROM {table} t ORDER BY 1")).fetch_all(pool).await.unwrap();
        assert!(!rows.is_empty(), "{table}");
        all.extend(rows);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_everything_again_changes_nothing() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let ada = server.user("ada@example.com");
    let membership = owner.bring_in(&id, &ada, "ada@example.com", &["member"]).await;
    owner.member("suspendMember", &membership).await;
    owner.invite(&id, "bob@example.com", &["guest"]).await;
    for slug in ["a", "b", "c"] {
        owner.create_project(&id, slug).await;
    }
    let settings = json!({"organizationId": id, "namespace": "branding", "value": {"color": "red"}});
    let written =
        owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", settings, "__typename").await;
    assert!(written.accepted(), "{written:?}");
    server.stop().await;

    let core = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    core.catch_up().await.unwrap();
    let pool = database.pool().await;
    let once = tables(&pool).await;
    sqlx::query(r#"UPDATE checkpoints SET "offset" = 0"#).execute(&pool).await.unwrap();
    core.catch_up().await.unwrap();
    assert_eq!(tables(&pool).await, once);

    // And from nothing, in other batches than the first time: the same.
    for table in ["organizations", "settings", "members", "invitations", "projects", "users"] {
        sqlx::query(&format!("TRUNCATE {table}")).execute(&pool).await.unwrap();
    }
    sqlx::query(r#"UPDATE checkpoints SET "offset" = 0"#).execute(&pool).await.unwrap();
    core.catch_up().await.unwrap();
    assert_eq!(tables(&pool).await, once);
    core.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_stops_its_partition_and_shows() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.organization("acme", &owner).await;
    let log = server.service().core().commands.log().clone();
    let partition = log.partition_of(&id);
    let pool = database.pool().await;
    sqlx::query(
        r#"INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, "offset",
                organization_id, audit_sequence, event_id, command_id, actor, correlation_id, recorded_at)
           SELECT 'Project', 'prj_01h455vb4pex5vsknk084sn02q', 1, 'ProjectExploded', '1.0', '{"ProjectExploded": {}}', $1, max("offset") + 1,
                $2, (SELECT max(audit_sequence) + 1 FROM events WHERE organization_id = $2), 'evt_01h455vb4pex5vsknk084sn02q',
                gen_random_uuid(), 'system', gen_random_uuid(), now() FROM events WHERE partition = $1"#,
    )
    .bind(partition)
    .bind(&id)
    .execute(&pool)
    .await
    .unwrap();
    let stopped = || async {
        let status = ::projections::status(&pool).await.unwrap();
        status.iter().filter(|row| row.failure.is_some()).count() == 5
    };
    eventually("all five projections stop in that partition", stopped).await;
    let status = ::projections::status(&pool).await.unwrap();
    assert!(status.iter().all(|row| row.failure.is_none() || row.partition == partition), "{status:?}");
    let ready: Value = reqwest::get(server.url("/health/ready")).await.unwrap().json().await.unwrap();
    assert_eq!(ready["status"], "degraded");
    assert!(ready["reasons"][0].as_str().unwrap().contains("ProjectExploded"), "{ready}");
    let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    let line = format!("tenancy_projection_stopped{{projection=\"members\",partition=\"{partition}\"}} 1");
    assert!(metrics.contains(&line), "{metrics}");
    // Whoever asks for what cannot come is told so, and other partitions go on.
    drop(log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_nothing_ran_is_shown_after_the_next_start() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    server.stop().await;
    let pool = database.pool().await;
    // As if the service had been killed between the commit and the projections.
    sqlx::query(r#"UPDATE checkpoints SET "offset" = 0"#).execute(&pool).await.unwrap();
    sqlx::query("TRUNCATE organizations").execute(&pool).await.unwrap();
    let server = database.serve().await;
    eventually("the organization is back", || async {
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM organizations WHERE id = $1")
            .bind(&id)
            .fetch_one(&pool)
            .await
            .unwrap();
        found == 1
    })
    .await;
    server.stop().await;
}

thread_local! {
    static STATEMENTS: Cell<usize> = const { Cell::new(0) };
}

/// Counts statements on the read models by thread; a service on a runtime of one thread runs on its test's own.
struct Counter;

impl tracing::Subscriber for Counter {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("sqlx::query")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{value:?} "));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        // The projections look for work all the time; what they do is not this request's.
        if text.0.contains("o.id AS of") || text.0.contains("FROM organizations WHERE true") {
            STATEMENTS.set(STATEMENTS.get() + 1);
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(flavor = "current_thread")]
async fn a_list_is_one_statement_a_level_however_many_parents_there_are() {
    tracing::subscriber::set_global_default(Counter).unwrap();
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let mut position = String::new();
    for number in 0..6 {
        let id = server.verified(&format!("acme-{number}"), &owner).await;
        position = owner.create_project(&id, "p").await.text("/position");
    }
    let operator = server.operator();
    let query = "query($at: [Position!], $first: Int) { organizations(first: $first, atLeast: $at) { nodes {
        members { nodes { id } } projects { nodes { slug } } invitations { nodes { id } } } } }";
    for parents in [1, 6] {
        operator.query(query, json!({"at": [position], "first": parents})).await;
        STATEMENTS.set(0);
        let read = operator.query(query, json!({"first": parents})).await;
        assert_eq!(read.at("/organizations/nodes").as_array().unwrap().len(), parents);
        assert_eq!(STATEMENTS.get(), 4, "one for the organizations, one for each of three lists");
    }
    server.stop().await;
}
