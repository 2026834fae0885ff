//! Somebody has the database, as superuser and with its triggers off, and nothing else: no altered history is signed, and the
//! running service notices what was altered.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Client, Database, Server, tamper};

/// Waits until `condition` holds: a round may wait ten seconds for a head that is on its way, and machines are busy.
async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A service that reads everything again every second.
async fn serve(database: &Database) -> Server {
    database.serve_with(&[("TENANCY_AUDIT__VERIFY_REST_SECONDS", "1")]).await
}

async fn checkpoint(client: &Client, organization: &str) -> (i64, Value) {
    let query = "query($o: ID!) { auditCheckpoint(organizationId: $o) { treeSize failure } }";
    // A read model may not show the organization yet.
    let answer = client.send(query, json!({"o": organization})).await;
    let found = &answer["data"]["auditCheckpoint"];
    (found["treeSize"].as_i64().unwrap_or_default(), found["failure"].clone())
}

async fn sealed(client: &Client, organization: &str, size: i64) {
    eventually("the events are sealed", async || checkpoint(client, organization).await.0 >= size).await;
}

/// A service with an organization of Ada's whose first events are sealed.
async fn sealed_acme(database: &Database) -> (Server, Client, String, PgPool) {
    let server = serve(database).await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    sealed(&ada, &acme, 4).await;
    (server, ada, acme, database.pool().await)
}

async fn failed(client: &Client, organization: &str) -> String {
    eventually("the failure is told", async || !checkpoint(client, organization).await.1.is_null()).await;
    checkpoint(client, organization).await.1.as_str().unwrap().to_owned()
}

async fn alarms(server: &Server) -> Vec<Value> {
    let query = "{ auditStatus { lastRound { events } alarms { organizationId partition noticedBy message } } }";
    server.operator().query(query, json!({})).await.at("/auditStatus/alarms").as_array().unwrap().clone()
}

/// Runs statements with all triggers off.
async fn as_superuser(pool: &PgPool, statements: &str) {
    let script = format!("SET LOCAL session_replication_role = replica; {statements}");
    let mut transaction = pool.begin().await.unwrap();
    sqlx::raw_sql(&script).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

async fn number(pool: &PgPool, statement: &str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

async fn command(database: &Database, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.env_clear().envs(database.variables(&[])).args(arguments);
    command.output().await.unwrap()
}

/// An event's payload changed, its seals gone, and the cursor set back.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_altered_is_not_signed_again() {
    let database = Database::new().await;
    let (server, ada, acme, pool) = sealed_acme(&database).await;
    let partition =
        number(&pool, &format!("SELECT partition::bigint FROM sealed_trees WHERE organization_id = '{acme}'")).await;
    as_superuser(
        &pool,
        &format!(
            r#"UPDATE events SET payload = replace(payload::text, 'acme', 'evil')::json
               WHERE organization_id = '{acme}' AND audit_sequence = 1;
               DELETE FROM sealed_hashes WHERE organization_id = '{acme}';
               DELETE FROM sealed_trees WHERE organization_id = '{acme}';
               UPDATE seals SET "offset" = 0, mac = '', code = '' WHERE partition = {partition};"#
        ),
    )
    .await;
    assert!(ada.create_project(&acme, "one").await.accepted());
    eventually("an alarm is raised", async || !alarms(&server).await.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        number(
            &pool,
            &format!("SELECT COALESCE(sum(size), 0)::bigint FROM sealed_trees WHERE organization_id = '{acme}'")
        )
        .await,
        0
    );
    server.stop().await;

    // Nor where the data directory has forgotten what was signed: the event carries the code of another one.
    std::fs::remove_file(database.config(&[]).data_dir.join("audit.heads")).unwrap();
    let server = serve(&database).await;
    eventually("an alarm is raised", async || !alarms(&server).await.is_empty()).await;
    assert_eq!(
        number(
            &pool,
            &format!("SELECT COALESCE(sum(size), 0)::bigint FROM sealed_trees WHERE organization_id = '{acme}'")
        )
        .await,
        0
    );
    server.stop().await;
}

/// The head of a tree is gone and its hashes are not, so that it would be begun where it is already.
#[tokio::test(flavor = "multi_thread")]
async fn seals_that_are_half_gone_are_told() {
    let database = Database::new().await;
    let (server, ada, acme, pool) = sealed_acme(&database).await;
    as_superuser(&pool, r#"DELETE FROM sealed_trees; UPDATE seals SET "offset" = 0, mac = '', code = ''"#).await;
    assert!(ada.create_project(&acme, "one").await.accepted());
    eventually("an alarm is raised", async || !alarms(&server).await.is_empty()).await;
    server.stop().await;
}

/// What was there earlier, put back: every row of it is the service's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_rolled_back_is_not_continued() {
    let database = Database::new().await;
    let (server, ada, acme, pool) = sealed_acme(&database).await;
    sqlx::raw_sql("CREATE TABLE old_trees AS TABLE sealed_trees; CREATE TABLE old_hashes AS TABLE sealed_hashes; CREATE TABLE old_seals AS TABLE seals; CREATE TABLE old_events AS TABLE events").execute(&pool).await.unwrap();
    assert!(ada.create_project(&acme, "one").await.accepted());
    let size = number(&pool, &format!("SELECT max(audit_sequence) FROM events WHERE organization_id = '{acme}'")).await;
    sealed(&ada, &acme, size).await;
    server.stop().await;
    as_superuser(
        &pool,
        "DELETE FROM events; INSERT INTO events SELECT * FROM old_events;
         DELETE FROM sealed_trees; INSERT INTO sealed_trees SELECT * FROM old_trees;
         DELETE FROM sealed_hashes; INSERT INTO sealed_hashes SELECT * FROM old_hashes;
         DELETE FROM seals; INSERT INTO seals SELECT * FROM old_seals;
         DELETE FROM tallies WHERE name = 'projects'; DELETE FROM claims WHERE scope LIKE 'project%'; DELETE FROM snapshots;",
    )
    .await;
    let server = serve(&database).await;
    let text = failed(&ada_again(&server), &acme).await;
    assert!(text.contains("was signed") || text.contains("other means"), "{text}");
    let (before, _) = checkpoint(&ada_again(&server), &acme).await;
    assert!(ada_again(&server).create_project(&acme, "two").await.accepted());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(checkpoint(&ada_again(&server), &acme).await.0, before, "the other branch is not signed");
    let found = alarms(&server).await;
    assert!(found.iter().any(|alarm| alarm["partition"].is_number()), "{found:?}");
    server.stop().await;

    // The operators believe the earlier point: an epoch begins, and the tree goes on under another name.
    let output = command(&database, &["recover", "--repair"]).await;
    assert!(output.status.success(), "{output:?}");
    let server = serve(&database).await;
    sealed(&ada_again(&server), &acme, before + 1).await;
    eventually("no alarm is left", async || alarms(&server).await.is_empty()).await;
    assert!(checkpoint(&ada_again(&server), &acme).await.1.is_null());
    server.stop().await;
}

fn ada_again(server: &Server) -> Client {
    server.user("ada@example.com")
}

/// A well-formed event at the end, that names another actor.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_service_did_not_write_is_not_signed() {
    let database = Database::new().await;
    let server = serve(&database).await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    sealed(&ada, &acme, 4).await;
    let (before, _) = checkpoint(&ada, &acme).await;
    let pool = database.pool().await;
    as_superuser(
        &pool,
        &format!(
            r#"INSERT INTO events SELECT (e).* FROM (
                 SELECT jsonb_populate_record(l, jsonb_build_object(
                     'offset', l."offset" + 1, 'sequence', l.sequence + 1, 'audit_sequence', l.audit_sequence + 1,
                     'event_id', 'evt_01m8rvt39kex0sy8jpf34jqsvq', 'actor', 'operator:usr_01m8p2bwfaerdavkym1chx0xps')) AS e
                 FROM events l WHERE organization_id = '{acme}' ORDER BY audit_sequence DESC LIMIT 1
             ) forged"#
        ),
    )
    .await;
    let text = failed(&ada, &acme).await;
    assert!(text.contains("other means"), "{text}");
    assert_eq!(checkpoint(&ada, &acme).await.0, before);
    let alarms = alarms(&server).await;
    assert!(alarms[0]["message"].as_str().unwrap().contains("evt_01m8rvt39kex0sy8jpf34jqsvq"), "{alarms:?}");
    assert_eq!(alarms[0]["noticedBy"], "SEALER");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_used_again_after_its_event_was_deleted_is_noticed() {
    let database = Database::new().await;
    let server = serve(&database).await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    let pool = database.pool().await;
    let last = number(&pool, &format!("SELECT max(audit_sequence) FROM events WHERE organization_id = '{acme}'")).await;
    sealed(&ada, &acme, last).await;
    let (size, _) = checkpoint(&ada, &acme).await;
    as_superuser(&pool, &format!("DELETE FROM events WHERE organization_id = '{acme}' AND audit_sequence = {last}"))
        .await;
    // Each of them may be refused: states in memory are newer than the log. One takes the number of the deleted event.
    for slug in ["one", "two", "three"] {
        let _ = ada.create_project(&acme, slug).await;
    }
    failed(&ada, &acme).await;
    assert_eq!(checkpoint(&ada, &acme).await.0, size);
    assert!(!alarms(&server).await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_long_ago_is_told_everywhere_and_taken_back_when_it_is_mended() {
    let database = Database::new().await;
    let server = serve(&database).await;
    let ada = server.user("ada@example.com");
    let (acme, other) = (server.verified("acme", &ada).await, server.verified("other", &ada).await);
    sealed(&ada, &acme, 4).await;
    sealed(&ada, &other, 4).await;
    let pool = database.pool().await;
    sqlx::raw_sql("CREATE TABLE kept AS TABLE events").execute(&pool).await.unwrap();
    tamper(
        &pool,
        &format!("UPDATE events SET actor = 'system' WHERE organization_id = '{acme}' AND audit_sequence = 2"),
    )
    .await;
    let text = failed(&ada, &acme).await;
    assert!(text.contains("is not what"), "{text}");
    // In exports, in health, to operators, on the command line.
    let export = reqwest::Client::new()
        .get(server.url(&format!("/audit/{acme}/export?format=csv")))
        .bearer_auth(server.token("ada@example.com", false))
        .send()
        .await
        .unwrap();
    assert!(export.headers().contains_key("tenancy-export-not-sealed"), "{export:?}");
    let health: Value = reqwest::get(server.url("/health/ready")).await.unwrap().json().await.unwrap();
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(!health.to_string().contains(&acme), "anybody may ask for it: {health}");
    assert!(alarms(&server).await.iter().any(|alarm| alarm["organizationId"] == acme.as_str()));
    eventually("the status is written", async || {
        let output = command(&database, &["audit", "status"]).await;
        !output.status.success() && String::from_utf8_lossy(&output.stdout).contains(&acme)
    })
    .await;
    let nobody = server.user("nobody@example.com").send("{ auditStatus { alarms { message } } }", json!({})).await;
    assert_eq!(nobody["errors"][0]["extensions"]["code"], "FORBIDDEN", "{nobody}");
    // The tree stands still, and other organizations' do not, unless they lie in the same partition.
    let (size, _) = checkpoint(&ada, &acme).await;
    assert!(ada.create_project(&acme, "one").await.accepted());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(checkpoint(&ada, &acme).await.0, size);

    as_superuser(
        &pool,
        &format!(
            "UPDATE events e SET actor = k.actor FROM kept k
             WHERE e.organization_id = '{acme}' AND e.audit_sequence = 2 AND k.event_id = e.event_id"
        ),
    )
    .await;
    eventually("the alarm is taken back", async || alarms(&server).await.is_empty()).await;
    assert!(ada.create_project(&acme, "two").await.accepted());
    let newest =
        number(&pool, &format!("SELECT max(audit_sequence) FROM events WHERE organization_id = '{acme}'")).await;
    sealed(&ada, &acme, newest).await;
    assert!(checkpoint(&ada, &acme).await.1.is_null());
    eventually("the status is written", async || command(&database, &["audit", "status"]).await.status.success()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_nobody_recovered_is_not_signed() {
    let database = Database::new().await;
    let (server, ada, acme, pool) = sealed_acme(&database).await;
    sqlx::raw_sql("UPDATE installation SET epoch = epoch + 1").execute(&pool).await.unwrap();
    let (size, _) = checkpoint(&ada, &acme).await;
    // A command of the moment at which the epoch changes may be lost.
    eventually("commands are taken again", async || ada.create_project(&acme, "one").await.accepted()).await;
    failed(&ada, &acme).await;
    assert_eq!(checkpoint(&ada, &acme).await.0, size);
    assert!(alarms(&server).await[0]["message"].as_str().unwrap().contains("epoch"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_refused_on_an_alarm_where_that_is_wanted() {
    let database = Database::new().await;
    let variables = [("TENANCY_AUDIT__VERIFY_REST_SECONDS", "1"), ("TENANCY_AUDIT__REFUSE_ON_ALARM", "true")];
    let server = database.serve_with(&variables).await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    sealed(&ada, &acme, 4).await;
    assert!(ada.create_project(&acme, "one").await.accepted());
    let pool = database.pool().await;
    tamper(
        &pool,
        &format!("UPDATE events SET actor = 'system' WHERE organization_id = '{acme}' AND audit_sequence = 2"),
    )
    .await;
    eventually("commands are refused", async || ada.create_project(&acme, "two").await.fault() == Some("UNAVAILABLE"))
        .await;
    assert!(checkpoint(&ada, &acme).await.0 > 0, "it is still read from");
    server.stop().await;
}

/// A database of a version that wrote no codes.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_before_there_were_codes_are_the_beginning_of_their_chain() {
    let database = Database::new().await;
    let server = serve(&database).await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    sealed(&ada, &acme, 4).await;
    server.stop().await;
    let pool = database.pool().await;
    let as_it_was = r#"UPDATE events SET mac = '';
        UPDATE seals s SET mac = '', code = '', failure = NULL, without_mac = COALESCE((
            SELECT "offset" FROM events WHERE partition = s.partition ORDER BY "offset" DESC LIMIT 1), 0)"#;
    as_superuser(&pool, as_it_was).await;
    let heads = database.config(&[]).data_dir.join("audit.heads");
    let known = std::fs::read(&heads).unwrap();
    std::fs::remove_file(&heads).unwrap();
    let server = serve(&database).await;
    let ada = ada_again(&server);
    let (size, _) = checkpoint(&ada, &acme).await;
    assert!(ada.create_project(&acme, "one").await.accepted());
    sealed(&ada, &acme, size + 1).await;
    assert!(alarms(&server).await.is_empty());
    server.stop().await;

    // A replica that has seen codes of this database does not believe that there were none.
    as_superuser(&pool, as_it_was).await;
    std::fs::write(&heads, known).unwrap();
    let server = serve(&database).await;
    let ada = ada_again(&server);
    let (size, _) = checkpoint(&ada, &acme).await;
    assert!(ada.create_project(&acme, "two").await.accepted());
    failed(&ada, &acme).await;
    assert_eq!(checkpoint(&ada, &acme).await.0, size);
    server.stop().await;
}

/// What operators do to people is proven as what happens in organizations is.
#[tokio::test(flavor = "multi_thread")]
async fn what_operators_do_to_users_is_exported_and_proven() {
    let database = Database::new().await;
    let server = serve(&database).await;
    let ada = server.user("ada@example.com");
    server.organization("acme", &ada).await;
    let (user, operator) = (ada.user_id().await, server.operator());
    let input = json!({"userId": user, "reason": "left the company"});
    assert!(operator.run("revokeUser", "UserReviewInput", input, "user { id }").await.accepted());
    let checkpoint = async || {
        let query = "{ auditStatus { installationCheckpoint { treeSize failure } } }";
        operator.query(query, json!({})).await.at("/auditStatus/installationCheckpoint").clone()
    };
    eventually("the revocation is sealed", async || checkpoint().await["treeSize"].as_i64() >= Some(3)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("installation.ndjson");
    let path = file.to_str().unwrap();
    let exported =
        async || command(&database, &["audit", "export", "--organization", "installation", "--out", path]).await;
    let output = exported().await;
    assert!(output.status.success(), "{output:?}");
    let bundle = std::fs::read_to_string(&file).unwrap();
    assert!(bundle.contains("UserRevoked") && bundle.contains("left the company"), "{bundle}");
    let keys = command(&database, &["audit", "key"]).await;
    let key = String::from_utf8(keys.stdout).unwrap().trim().to_owned();
    let verified = async || command(&database, &["audit", "verify", path, "--key", &key]).await;
    assert!(verified().await.status.success(), "{:?}", verified().await);
    if let Some(python) = crate::export::python() {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verify_audit.py");
        let output = std::process::Command::new(python).arg(script).arg(&file).arg(&key).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    // Two lines exchanged, and one that is left out.
    let lines: Vec<&str> = bundle.lines().collect();
    let (mut moved, mut cut) = (lines.clone(), lines.clone());
    moved.swap(2, 3);
    cut.remove(3);
    for altered in [moved, cut] {
        std::fs::write(&file, altered.join("\n") + "\n").unwrap();
        assert!(!verified().await.status.success());
    }
    // Over HTTP it is for operators, and does not exist for anybody else.
    let get = async |token: String| {
        let url = server.url("/audit/installation/export");
        reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap()
    };
    assert_eq!(get(server.token("operator@example.com", true)).await.text().await.unwrap(), bundle);
    assert_eq!(get(server.token("bob@example.com", false)).await.status(), 404);

    let pool = database.pool().await;
    tamper(&pool, "UPDATE events SET actor = 'system' WHERE event_type = 'UserRevoked'").await;
    eventually("it is told", async || !checkpoint().await["failure"].is_null()).await;
    assert!(exported().await.status.success());
    let output = verified().await;
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stdout).contains("is altered"), "{output:?}");
    server.stop().await;
}
