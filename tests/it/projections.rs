//! Read models: exactly once, stopped where an event cannot be applied, one statement a level.

use std::cell::Cell;

use serde_json::{Value, json};
use sqlx::PgPool;
use tenancy::database::embedded::Purpose;
use tenancy::service::Core;

use crate::support::{Database, eventually};

async fn tables(pool: &PgPool) -> Vec<String> {
    let mut all = vec![];
    for table in
        ["organizations", "settings", "members", "invitations", "projects", "users", "api_tokens", "webhook_endpoints"]
    {
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
    assert!(owner.create_token(&id, &["project:read"]).await.accepted());
    let revoked = owner.create_token(&id, &["organization:read", "project:read"]).await.text("/token/id");
    assert!(owner.revoke_token(&revoked).await.accepted());
    let endpoint = owner.create_webhook(&id, "https://example.com/a").await.text("/endpoint/id");
    assert!(owner.create_webhook(&id, "https://example.com/b").await.accepted());
    for command in ["disableWebhookEndpoint", "enableWebhookEndpoint", "rotateWebhookSecret", "deleteWebhookEndpoint"] {
        let done =
            owner.run(command, "WebhookEndpointCommandInput", json!({"endpointId": endpoint}), "__typename").await;
        assert!(done.accepted(), "{done:?}");
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
    for table in
        ["organizations", "settings", "members", "invitations", "projects", "users", "api_tokens", "webhook_endpoints"]
    {
        sqlx::query(&format!("TRUNCATE {table}")).execute(&pool).await.unwrap();
    }
    sqlx::query(r#"UPDATE checkpoints SET "offset" = 0"#).execute(&pool).await.unwrap();
    core.catch_up().await.unwrap();
    assert_eq!(tables(&pool).await, once);
    core.close().await.unwrap();
}

/// Puts an event at the end of an organization's partition that no program can read, in the stream of `project`.
pub async fn poison(pool: &PgPool, organization: &str, project: &str, partition: i16) {
    let inserted = sqlx::query(
        r#"INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, "offset",
                organization_id, audit_sequence, event_id, command_id, actor, correlation_id, recorded_at, mac)
           SELECT 'Project', $3, (SELECT count(*) + 1 FROM events WHERE aggregate_id = $3), 'ProjectExploded', '1.0',
                '{"ProjectExploded": {}}', $1, max("offset") + 1,
                $2, (SELECT max(audit_sequence) + 1 FROM events WHERE organization_id = $2), 'evt_01h455vb4pex5vsknk084sn02q',
                gen_random_uuid(), 'system', gen_random_uuid(), now(), '' FROM events WHERE partition = $1"#,
    );
    inserted.bind(partition).bind(organization).bind(project).execute(pool).await.unwrap();
}

/// Makes the log let itself be changed, which the service never does.
async fn change_event(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(&format!(
        "ALTER TABLE events DISABLE TRIGGER events_are_never_changed; {statement};
         ALTER TABLE events ENABLE TRIGGER events_are_never_changed"
    ))
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_parks_its_stream_and_nothing_else() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let created = owner.create_project(&id, "poisoned").await;
    let (project, seen) = (created.text("/project/id"), created.text("/position"));
    let partition = server.service().core().commands.log().partition_of(&id);
    let pool = database.pool().await;
    let query = "query($id: ID!, $at: [Position!]) { organization(by: {id: $id}, atLeast: $at) { projects { nodes { slug name } } } }";
    owner.query(query, json!({"id": id, "at": [seen]})).await;
    poison(&pool, &id, &project, partition).await;
    eventually("the projections that read projects park the stream", || async {
        let status = ::projections::status(&pool).await.unwrap();
        let parked: Vec<_> = status.iter().filter(|s| !s.parked.is_empty()).map(|s| s.projection.name()).collect();
        parked == ["projects", "audit", "webhooks"]
    })
    .await;

    // Other streams go on, of the same organization too.
    let other = server.user("other@example.com");
    let elsewhere = server.verified("elsewhere", &other).await;
    let there = other.create_project(&elsewhere, "fine").await.text("/position");
    other.query(query, json!({"id": elsewhere, "at": [there]})).await;
    let beside = owner.create_project(&id, "beside").await.text("/position");
    eventually("another project of the organization is shown", || async {
        let read = owner.query(query, json!({"id": id})).await;
        read.at("/organization/projects/nodes").as_array().unwrap().len() == 2
    })
    .await;
    // A caller who asks for what cannot come is told so.
    assert_eq!(owner.fault(query, json!({"id": id, "at": [beside]})).await, "STALE_READ");

    // And it shows: in health, in metrics, to operators.
    let ready: Value = reqwest::get(server.url("/health/ready")).await.unwrap().json().await.unwrap();
    assert_eq!(ready["status"], "degraded");
    assert!(ready["reasons"][0].as_str().unwrap().contains("ProjectExploded"), "{ready}");
    let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tenancy_projection_parked_streams{projection=\"projects\"} 1"), "{metrics}");
    let listed = "{ projections { name version state lagEvents lagSeconds partitions { partition offset head } parked { stream failure } } }";
    let shown = server.operator().query(listed, json!({})).await;
    let projects =
        shown.at("/projections").as_array().unwrap().iter().find(|p| p["name"] == "projects").unwrap().clone();
    assert_eq!((&projects["state"], &projects["lagEvents"]), (&json!("PARKED"), &json!(0)));
    assert_eq!(projects["parked"][0]["stream"], json!(project));
    assert_eq!(owner.fault(listed, json!({})).await, "FORBIDDEN");

    // After a fix it is tried again, and level: the event is one that the program can read now.
    let renamed = r#"{"ProjectRenamed": {"name": "Mended", "previous_name": "poisoned"}}"#;
    change_event(
        &pool,
        &format!("UPDATE events SET event_type = 'ProjectRenamed', payload = '{renamed}' WHERE event_type = 'ProjectExploded'"),
    )
    .await;
    let runtime = server.service().core().runtime.clone();
    for projection in [::projections::Projection::Projects, ::projections::Projection::Webhooks] {
        let retried = runtime.retry(projection).await.unwrap();
        assert_eq!(retried, ::projections::Retried { level: 1, parked: 0 });
    }
    let read = owner.query(query, json!({"id": id, "at": [beside]})).await;
    let names: Vec<&str> = read
        .at("/organization/projects/nodes")
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Mended", "beside"]);
    drop(runtime);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_is_broken_keeps_back_no_other() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let pool = database.pool().await;
    sqlx::query("ALTER TABLE members RENAME TO elsewhere").execute(&pool).await.unwrap();
    let ada = server.user("ada@example.com");
    owner.bring_in(&id, &ada, "ada@example.com", &["member"]).await;
    owner.create_project(&id, "shown").await;
    eventually("the project is shown", || async {
        sqlx::query_scalar("SELECT count(*) FROM projects").fetch_one(&pool).await.unwrap_or(0_i64) == 1
    })
    .await;
    let status = ::projections::status(&pool).await.unwrap();
    assert!(status.iter().all(|status| status.parked.is_empty()), "a missing table is no event's fault");
    // Mended, it catches up by itself.
    sqlx::query("ALTER TABLE elsewhere RENAME TO members").execute(&pool).await.unwrap();
    eventually("the member is shown", || async {
        sqlx::query_scalar("SELECT count(*) FROM members").fetch_one(&pool).await.unwrap_or(0_i64) == 2
    })
    .await;
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
    /// Of lists.
    static STATEMENTS: Cell<usize> = const { Cell::new(0) };
    /// All that a request for a dashboard sends.
    static OF_REQUESTS: Cell<usize> = const { Cell::new(0) };
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
        let is_one_of = |marks: &[&str]| marks.iter().any(|mark| text.0.contains(mark));
        if is_one_of(&["wanted.id, ARRAY[", "FROM organizations WHERE true"]) {
            STATEMENTS.set(STATEMENTS.get() + 1);
        }
        if is_one_of(&["AS wanted(id)", "AS s(type, id, version)", "FROM tallies", "array_agg(n.number"]) {
            OF_REQUESTS.set(OF_REQUESTS.get() + 1);
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
        assert_eq!(STATEMENTS.get(), 2, "one for the organizations, one for all three lists");
    }
    let dashboard = "query($at: String!) { organization(by: {slug: $at}) { name limits { name used }
        members { nodes { id user { name } } } projects { nodes { slug } } invitations { nodes { id } }
        auditTrail(last: 10) { nodes { action actor { label } } } } }";
    let mut counts = vec![];
    for _ in 0..4 {
        OF_REQUESTS.set(0);
        owner.query(dashboard, json!({"at": "acme-0"})).await;
        counts.push(OF_REQUESTS.get());
    }
    // People may be asked for twice: actors are known a moment later, where keys have to be read first.
    assert!(counts[0] <= 6, "the caller, the organization, the lists with the trail, tallies, people: {counts:?}");
    assert_eq!(counts[3], 1, "then a look at whether it is still so: {counts:?}");
    server.stop().await;
}
