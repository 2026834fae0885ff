//! The trail of a purged organization is kept for its time, and then loses its content: the rest of the log, its places
//! and all proofs stay as they are.

use std::process::{Command, Output};

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::secrets::everything_stored;
use crate::support::{Client, Database, Server, check_log, eventually, tamper};

const RESTORE_DAYS: (&str, &str) = ("TENANCY_ORGANIZATIONS__RESTORE_DAYS", "0");
const KEPT: (&str, &str) = ("TENANCY_AUDIT__PURGED_KEPT_DAYS", "400");

async fn run(database: &Database, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.args(arguments).envs(database.variables(&[RESTORE_DAYS, KEPT])).env_remove("TENANCY_LOG");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn said(database: &Database, arguments: &[&str]) -> String {
    let output = run(database, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn level(pool: &PgPool) {
    eventually("the read models are level", || async {
        projections::status(pool).await.unwrap().iter().all(|status| status.lag_events() == 0)
    })
    .await;
}

/// An organization in which something was said that should not be found any more when its time is over.
async fn filled(server: &Server, slug: &str, owner: &Client) -> String {
    let id = server.verified(slug, owner).await;
    let project = json!({"organizationId": id, "slug": format!("dry-dock-{slug}"), "name": format!("Dry dock of {slug}"),
        "metadata": {"note": format!("leak of {slug}")}});
    assert!(owner.run("createProject", "CreateProjectInput", project, "__typename").await.accepted());
    let settings =
        json!({"organizationId": id, "namespace": "branding", "value": {"motto": format!("motto of {slug}")}});
    owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", settings, "__typename").await;
    let address = format!("eve@{slug}.example");
    owner.bring_in(&id, &server.user(&address), &address, &["member"]).await;
    owner.invite(&id, &format!("zoe@{slug}.example"), &["guest"]).await;
    owner.create_token(&id, &["project:read"]).await;
    id
}

/// Deletes an organization and lets it be purged.
async fn purge(server: &Server, pool: &PgPool, owner: &Client, id: &str) {
    assert!(owner.organization_command("deleteOrganization", id).await.accepted());
    // The second time for what follows a purge.
    for _ in 0..2 {
        level(pool).await;
        server.service().core().commands.sweep().await.unwrap();
    }
    level(pool).await;
}

/// As if the purge had been seen so many days ago.
async fn seen_before(pool: &PgPool, days: i32) {
    let aged = "UPDATE prunings SET seen_at = now() - make_interval(days => $1)";
    sqlx::query(aged).bind(days).execute(pool).await.unwrap();
}

async fn number_of_events(pool: &PgPool, organization: &str) -> i64 {
    let count = "SELECT count(*) FROM events WHERE organization_id = $1";
    sqlx::query_scalar(count).bind(organization).fetch_one(pool).await.unwrap()
}

/// Has it recorded of what is due that it is pruned, and waits until that is sealed.
async fn record(server: &Server, pool: &PgPool) {
    let due = server.service().core().commands.record_prunings(pool, 400).await.unwrap();
    assert_eq!(due.len(), 1);
    let sealed = "SELECT bool_and(size = (SELECT count(*) FROM events WHERE organization_id = t.organization_id)) FROM sealed_trees t WHERE organization_id NOT IN ('installation', 'access')";
    eventually("all is sealed", || async { sqlx::query_scalar::<_, bool>(sealed).fetch_one(pool).await.unwrap() })
        .await;
}

/// The change of events that pruning makes, of those among an organization's.
fn blank(id: &str, among: &str) -> String {
    format!(
        "UPDATE events e SET event_type = p.event_type, event_version = p.event_version, payload = p.payload,
             actor = p.actor, on_behalf_of = p.on_behalf_of, ip = p.ip, user_agent = p.user_agent,
             metadata = p.metadata, request_id = p.request_id, command_id = p.command_id,
             correlation_id = p.correlation_id, causation_id = p.causation_id
         FROM events o, jsonb_populate_record(o, pruned(o)) p
         WHERE o.organization_id = '{id}' AND e.event_id = o.event_id AND {among}"
    )
}

async fn fails(pool: &PgPool, statement: &str) {
    let error = sqlx::query(statement).execute(pool).await.unwrap_err();
    assert!(error.to_string().contains("the log is append-only"), "{statement}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_whose_time_is_over_loses_its_content_and_nothing_else_changes() {
    let database = Database::new().await;
    let server = database.serve_with(&[RESTORE_DAYS]).await;
    let (owner, operator) = (server.user("owner@example.com"), server.operator());
    let (gone, stays) = (filled(&server, "gone", &owner).await, filled(&server, "stays", &owner).await);
    let pool = database.pool().await;
    purge(&server, &pool, &owner, &gone).await;
    let events = number_of_events(&pool, &gone).await;
    let directory = tempfile::tempdir().unwrap();
    let before = directory.path().join("gone.ndjson").to_str().unwrap().to_owned();
    let bundle = ["audit", "export", "--organization", &gone, "--out", &before];
    said(&database, &bundle).await;
    let as_of = "query($o: ID!) { organizationAsOf(id: $o, asOf: {auditSequence: 8}) { name } }";
    assert_eq!(operator.query(as_of, json!({"o": gone})).await.text("/organizationAsOf/name"), "gone");

    // Not before its time, which begins when the owner of the database sees the purge.
    let kept = said(&database, &["prune", "--dry-run"]).await;
    assert!(kept.starts_with(&format!("{gone} is kept until 20")) && kept.lines().count() == 1, "{kept}");
    seen_before(&pool, 399).await;
    assert_eq!(said(&database, &["prune"]).await, "");
    seen_before(&pool, 400).await;
    assert_eq!(said(&database, &["prune", "--dry-run"]).await, format!("{gone} would be pruned\n"));
    assert_eq!(number_of_events(&pool, &gone).await, events);
    assert!(everything_stored(&pool).await.contains("Dry dock of gone"));

    let pruned = said(&database, &["prune"]).await;
    assert_eq!(pruned, format!("{gone} pruned: {} events\n", events - 1));
    assert_eq!(said(&database, &["prune"]).await, "");
    // Beside the running service, whose read models and caches follow.
    let stored = everything_stored(&pool).await;
    for text in ["Dry dock of ", "dry-dock-", "leak of ", "motto of "] {
        assert!(!stored.contains(&format!("{text}gone")), "{text}");
        assert!(stored.contains(&format!("{text}stays")), "{text}");
    }
    check_log(&pool).await;
    let verified = run(&database, &["projections", "verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
    let rebuilt = said(&database, &["projections", "rebuild", "--all"]).await;
    assert!(!rebuilt.contains("differ"), "{rebuilt}");
    check_what_operators_see(&database, &operator, &gone, &before).await;

    // After a restart too, and with what comes afterwards.
    server.stop().await;
    let server = database.serve_with(&[RESTORE_DAYS]).await;
    let (owner, operator) = (server.user("owner@example.com"), server.operator());
    check_what_operators_see(&database, &operator, &gone, &before).await;
    assert!(server.organization("gone", &owner).await.starts_with("org_"), "the slug is free");
    assert!(owner.create_project(&stays, "more").await.accepted());
    let look = "query($id: ID!) { organization(by: {id: $id}) { slug } }";
    assert_eq!(owner.fault(look, json!({"id": gone})).await, "NOT_FOUND");
    server.stop().await;
    let verified = run(&database, &["projections", "verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
}

/// What is left: that it was there, when it was purged and pruned, and what an export of before is proven by.
async fn check_what_operators_see(database: &Database, operator: &Client, id: &str, before: &str) {
    let look = "query($id: ID!) { organization(by: {id: $id}) { purged slug name createdAt
        auditTrail(last: 100) { nodes { action auditSequence } } } }";
    let left = operator.query(look, json!({"id": id})).await;
    let nodes = left.at("/organization/auditTrail/nodes").as_array().unwrap();
    let actions: Vec<&Value> = nodes.iter().map(|node| &node["action"]).collect();
    assert_eq!(actions, ["org.purged", "org.pruned"]);
    let organization = left.at("/organization");
    assert_eq!(
        (&organization["purged"], &organization["slug"], &organization["name"]),
        (&json!(true), &json!("gone"), &json!(""))
    );
    assert!(organization["createdAt"].as_str().unwrap() > "2020", "{organization}");
    let all = "{ auditTrail(last: 100) { nodes { action organizationId } } }";
    let all = operator.query(all, json!({})).await;
    let nodes = all.at("/auditTrail/nodes").as_array().unwrap();
    let own = nodes.iter().filter(|node| node["organizationId"] == id).count();
    assert_eq!(own, 2, "{nodes:?}");

    let as_of = "query($o: ID!) { organizationAsOf(id: $o, asOf: {auditSequence: 8}) { name } }";
    assert_eq!(operator.fault(as_of, json!({"o": id})).await, "NOT_FOUND");
    let pool = database.pool().await;
    let streams =
        "SELECT DISTINCT aggregate_id FROM events WHERE organization_id = $1 AND aggregate_type <> 'Organization'";
    let streams: Vec<String> = sqlx::query_scalar(streams).bind(id).fetch_all(&pool).await.unwrap();
    assert!(streams.len() > 5, "{streams:?}");
    for stream in streams {
        let node = operator.send("query($i: ID!) { node(id: $i) { id } }", json!({"i": stream})).await;
        assert_eq!(node["data"]["node"], Value::Null, "{node}");
    }
    let proof = "query($o: ID!) { auditInclusionProof(organizationId: $o, auditSequence: 1) { leaf } }";
    assert_eq!(operator.fault(proof, json!({"o": id})).await, "BAD_USER_INPUT");
    let refused = run(database, &["audit", "export", "--organization", id, "--out", &format!("{before}.now")]).await;
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && reason.contains("there are only hashes"), "{reason}");

    // The tree goes on from what was exported.
    let keys = said(database, &["audit", "key"]).await;
    let old = said(database, &["audit", "verify", before, "--key", keys.trim()]).await;
    assert!(old.starts_with("verified: all events from 1 to "), "{old}");
    let exported: u64 =
        old.split_whitespace().nth(6).and_then(|word| word.trim_matches([':', ',', '.']).parse().ok()).unwrap();
    let consistency =
        "query($o: ID!, $f: Long!) { auditConsistencyProof(organizationId: $o, fromSize: $f) { toSize path } }";
    let proven = operator.query(consistency, json!({"o": id, "f": exported})).await;
    assert_eq!(proven.at("/auditConsistencyProof/toSize"), &json!(exported + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_pruned_trail_loses_its_content_whoever_tries() {
    let database = Database::new().await;
    let server = database.serve_with(&[RESTORE_DAYS]).await;
    let owner = server.user("owner@example.com");
    let (gone, stays) = (filled(&server, "gone", &owner).await, filled(&server, "stays", &owner).await);
    let pool = database.pool().await;
    purge(&server, &pool, &owner, &gone).await;
    // Neither while it lives nor before the log says that it goes.
    fails(&pool, &blank(&stays, "true")).await;
    fails(&pool, &blank(&gone, "true")).await;
    said(&database, &["prune"]).await;
    seen_before(&pool, 400).await;
    // Nor what could never be proven afterwards, because it is not sealed.
    record(&server, &pool).await;
    let fail = "UPDATE sealed_trees SET failure = $2 WHERE organization_id = $1";
    sqlx::query(fail).bind(&gone).bind("broken").execute(&pool).await.unwrap();
    let waits = run(&database, &["prune"]).await;
    let why = String::from_utf8_lossy(&waits.stdout).into_owned();
    assert!(waits.status.code() == Some(1) && why.contains("is not sealed any further: broken"), "{why}");
    assert!(everything_stored(&pool).await.contains("Dry dock of gone"));
    sqlx::query(fail).bind(&gone).bind(None::<String>).execute(&pool).await.unwrap();
    let pruned = said(&database, &["prune"]).await;
    assert!(pruned.contains(&format!("{gone} pruned")), "{pruned}");
    // What says so stays, and the rest of what there is of an event.
    fails(&pool, &blank(&gone, "e.event_type IN ('OrgPurged', 'OrgPruned')")).await;
    fails(&pool, &format!("UPDATE events SET recorded_at = now() WHERE organization_id = '{gone}'")).await;
    fails(&pool, &format!("DELETE FROM events WHERE organization_id = '{gone}'")).await;
    fails(&pool, "TRUNCATE events").await;
    // An owner who takes the trigger away is found out.
    tamper(&pool, &blank(&stays, "o.audit_sequence = 3")).await;
    let verified = run(&database, &["projections", "verify", "seals"]).await;
    let found = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(!verified.status.success() && found.contains("event 3 has no content, and nothing says"), "{found}");
    assert!(!found.contains(&gone), "{found}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_knows_the_owner_prunes_by_itself_and_of_several_each_trail_once() {
    let database = Database::new().await;
    let server = database.serve_with(&[RESTORE_DAYS]).await;
    let owner = server.user("owner@example.com");
    let gone = filled(&server, "gone", &owner).await;
    let pool = database.pool().await;
    purge(&server, &pool, &owner, &gone).await;
    said(&database, &["prune", "--dry-run"]).await;
    seen_before(&pool, 400).await;
    let events = number_of_events(&pool, &gone).await;
    let (one, two) =
        (database.serve_with(&[RESTORE_DAYS, KEPT]).await, database.serve_with(&[RESTORE_DAYS, KEPT]).await);
    eventually("the trail is pruned", || async {
        let pruned: Option<i64> = sqlx::query_scalar("SELECT events FROM prunings").fetch_one(&pool).await.unwrap();
        pruned == Some(events - 1)
    })
    .await;
    assert_eq!(number_of_events(&pool, &gone).await, events + 1);
    assert_eq!(one.operator().audit(&gone).await, ["org.purged", "org.pruned"]);
    check_log(&pool).await;
    for server in [one, two, server] {
        server.stop().await;
    }
    let verified = run(&database, &["projections", "verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
}

/// Between two batches, or after a kill there, some events have their content and others have none.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_pruned_trail_is_no_difference_and_is_gone_on_with() {
    let database = Database::new().await;
    let server = database.serve_with(&[RESTORE_DAYS]).await;
    let (owner, operator) = (server.user("owner@example.com"), server.operator());
    let gone = filled(&server, "gone", &owner).await;
    // Somebody joined and left: with one of both the sum is wrong.
    let joined = owner.bring_in(&gone, &server.user("tim@gone.example"), "tim@gone.example", &["member"]).await;
    assert!(owner.member("removeMember", &joined).await.accepted());
    let pool = database.pool().await;
    purge(&server, &pool, &owner, &gone).await;
    said(&database, &["prune", "--dry-run"]).await;
    seen_before(&pool, 400).await;
    record(&server, &pool).await;
    let settings = "SELECT audit_sequence FROM events WHERE event_type = 'OrgSettingsUpdated'";
    let settings: i64 = sqlx::query_scalar(settings).fetch_one(&pool).await.unwrap();
    for until in [settings - 1, number_of_events(&pool, &gone).await - 4] {
        let half = format!("o.audit_sequence <= {until} AND o.event_type NOT IN ('OrgPurged', 'Pruned')");
        sqlx::query("DELETE FROM terms").execute(&pool).await.unwrap();
        sqlx::query(&blank(&gone, &half)).execute(&pool).await.unwrap();
        level(&pool).await;
        said(&database, &["projections", "rebuild", "--all"]).await;
        let verified = run(&database, &["projections", "verify"]).await;
        assert!(verified.status.success(), "{verified:?}");
        let repaired = run(&database, &["projections", "verify", "--repair"]).await;
        assert!(repaired.status.success(), "{repaired:?}");
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM settings").fetch_one(&pool).await.unwrap();
        assert_eq!(left, 0);
        assert_eq!(operator.audit(&gone).await.last().unwrap(), "org.pruned");
        let as_of = "query($o: ID!) { organizationAsOf(id: $o, asOf: {auditSequence: 8}) { name } }";
        assert_eq!(operator.fault(as_of, json!({"o": gone})).await, "NOT_FOUND");
    }
    let pruned = said(&database, &["prune"]).await;
    assert_eq!(pruned, format!("{gone} pruned: {} events\n", number_of_events(&pool, &gone).await - 2));
    let verified = run(&database, &["projections", "verify"]).await;
    assert!(verified.status.success(), "{verified:?}");
    server.stop().await;
}

/// What the service itself may write neither prunes what is not purged nor runs as the owner of the database.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_services_login_prunes_nothing_and_becomes_nobody_by_it() {
    let database = Database::new().await;
    let server = database.serve_with(&[RESTORE_DAYS]).await;
    let owner = server.user("owner@example.com");
    let gone = filled(&server, "gone", &owner).await;
    let mut stays = filled(&server, "stays", &owner).await;
    // The forged event stops its partition, and the other one's has to be sealed to its end.
    let log = server.service().core().commands.log();
    for number in 1.. {
        if log.partition_of(&gone) != log.partition_of(&stays) {
            break;
        }
        stays = filled(&server, &format!("stays{number}"), &owner).await;
    }
    let pool = database.pool().await;
    purge(&server, &pool, &owner, &gone).await;
    let forged = format!(
        r#"SET ROLE tenancy_writer;
           INSERT INTO tombstones (subject_id, finished_at) VALUES ('{stays}', '2000-01-01');
           INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition, "offset",
               organization_id, audit_sequence, event_id, command_id, actor, correlation_id, recorded_at, mac)
           SELECT 'Organization', '{stays}', max(sequence) FILTER (WHERE aggregate_type = 'Organization') + 1, 'OrgPruned', '1.0',
               '{{"OrgPruned": {{"kept_days": 1, "created_at": "2000-01-01T00:00:00Z"}}}}', partition, max("offset") + 1, '{stays}',
               max(audit_sequence) + 1, 'evt_01h455vb4pex5vsknk084sn02q', gen_random_uuid(), 'system', gen_random_uuid(), now(), ''
           FROM events WHERE organization_id = '{stays}' GROUP BY partition;
           RESET ROLE; SET ROLE tenancy_projector;
           CREATE TABLE audit_1.runs_as (who text);
           CREATE FUNCTION audit_1.note() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO audit_1.runs_as VALUES (current_user); RETURN OLD; END';
           CREATE TRIGGER note AFTER DELETE ON audit_1.terms FOR EACH STATEMENT EXECUTE FUNCTION audit_1.note();
           RESET ROLE"#
    );
    // The offset has to be the partition's, or the log would have a gap.
    let forged = forged.replace(
        "max(\"offset\") + 1",
        "(SELECT max(\"offset\") + 1 FROM events a WHERE a.partition = events.partition)",
    );
    sqlx::raw_sql(&forged).execute(&pool).await.unwrap();
    level(&pool).await;
    said(&database, &["prune", "--dry-run"]).await;
    seen_before(&pool, 400).await;
    let pruned = said(&database, &["prune"]).await;
    assert!(pruned.contains(&gone) && !pruned.contains(&stays), "{pruned}");
    fails(&pool, &blank(&stays, "o.event_type NOT IN ('OrgPurged', 'OrgPruned')")).await;
    let ran: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT who FROM audit_1.runs_as").fetch_all(&pool).await.unwrap();
    assert_eq!(ran, ["tenancy_projector"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_time_nothing_is_pruned_and_it_is_said_why() {
    let database = Database::new().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.arg("prune").envs(database.variables(&[])).env_remove("TENANCY_LOG");
    let refused = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && reason.contains("audit.purged_kept_days is not set"), "{reason}");
}
