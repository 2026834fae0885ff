//! The access trail is sealed as the log is: what is altered, deleted or put in is noticed, and a bundle of it is verified by
//! nothing but a key.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use tenancy::log::access::AccessRow;
use tenancy::requests::trail::forget;
use tenancy::service::audit_signers;

use crate::support::{Client, Database, Server};

/// Waits until `condition` holds: the sealer looks every five seconds.
async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn serve(database: &Database) -> Server {
    database.serve_with(&[("TENANCY_AUDIT__VERIFY_REST_SECONDS", "1")]).await
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

const SIZE: &str = "SELECT COALESCE((SELECT size FROM sealed_trees WHERE organization_id = 'access'), 0)";

/// Records of a refusal and of operators' reads, which are sealed.
async fn records(server: &Server, pool: &PgPool) -> String {
    let (ada, bob) = (server.user("ada@example.com"), server.user("bob@example.com"));
    let acme = server.verified("acme", &ada).await;
    ada.bring_in(&acme, &bob, "bob@example.com", &["guest"]).await;
    assert_eq!(bob.create_project(&acme, "no").await.fault(), Some("FORBIDDEN"));
    let query = "query($o: ID!) { organization(by: {id: $o}) { name auditTrail(last: 1) { nodes { id } } } }";
    server.operator().query(query, json!({"o": acme})).await;
    eventually("records are sealed", async || {
        let waiting =
            "SELECT count(*) FROM access_trail t WHERE NOT EXISTS (SELECT FROM access_seals s WHERE s.id = t.id)";
        let numbered = number(pool, "SELECT COALESCE(max(number), 0) FROM access_seals").await;
        numbered >= 2 && number(pool, waiting).await == 0 && number(pool, SIZE).await == numbered
    })
    .await;
    acme
}

async fn alarms(operator: &Client) -> Vec<String> {
    let answer =
        operator.query("{ auditStatus { alarms { message } accessCheckpoint { treeSize } } }", json!({})).await;
    let alarms = answer.at("/auditStatus/alarms").as_array().unwrap().clone();
    alarms.iter().map(|alarm: &Value| alarm["message"].as_str().unwrap().to_owned()).collect()
}

async fn told(server: &Server, part: &str) {
    eventually(part, async || alarms(&server.operator()).await.iter().any(|alarm| alarm.contains(part))).await;
}

async fn export(server: &Server) -> (u16, String) {
    let request = reqwest::Client::new().get(server.url("/audit/access/export"));
    let answer = request.bearer_auth(server.operator().token.unwrap()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap_or_default())
}

async fn verify(database: &Database, files: &TempDir, bundle: &str) -> Output {
    let key = audit_signers(&database.config(&[])).unwrap()[0].verifier().to_string();
    let path = files.path().join("access.ndjson");
    std::fs::write(&path, bundle).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.env_clear().args(["audit", "verify"]).arg(&path).args(["--key", &key]).output().await.unwrap()
}

/// The same by the example that was written from the page; true where there is no Python for it.
fn verifies_in_python(database: &Database, files: &TempDir) -> bool {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let run = |arguments: &[&str]| std::process::Command::new(&python).args(arguments).output();
    if !run(&["-c", "import cryptography"]).is_ok_and(|output| output.status.success()) {
        return true;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verify_audit.py");
    let key = audit_signers(&database.config(&[])).unwrap()[0].verifier().to_string();
    let path = files.path().join("access.ndjson");
    let output = run(&["-B", script.to_str().unwrap(), path.to_str().unwrap(), &key]).unwrap();
    output.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_the_access_trail_is_verified_by_nothing_but_a_key() {
    let (database, files) = (Database::new().await, tempfile::tempdir().unwrap());
    let server = serve(&database).await;
    let pool = database.pool().await;
    let acme = records(&server, &pool).await;
    let (status, bundle) = export(&server).await;
    assert_eq!(status, 200);
    let output = verify(&database, &files, &bundle).await;
    assert!(output.status.success(), "{output:?}\n{bundle}");
    assert!(verifies_in_python(&database, &files));
    let record = bundle.lines().find(|line| line.contains("createProject")).unwrap();
    assert!(record.contains(&acme) && record.contains("\"personal\":{\"ip\":{\"value\":\"127.0.0.1\""), "{record}");
    let wrong = [
        (bundle.replacen("createProject", "deleteProject", 1), "is altered"),
        (bundle.replacen("\"value\":\"127.0.0.1\"", "\"value\":\"127.0.0.2\"", 1), "its readable ip is altered"),
        (bundle.replacen(&format!("{record}\n"), "", 1), "is"),
        (bundle.replacen(record, &format!("{record}\n{record}"), 1), "altered"),
        (bundle.replacen("\"organization\":\"access\"", "\"organization\":\"installation\"", 1), "access"),
    ];
    for (bundle, part) in wrong {
        let output = verify(&database, &files, &bundle).await;
        assert!(
            !output.status.success() && String::from_utf8_lossy(&output.stdout).contains(part),
            "{part}: {output:?}"
        );
        assert!(!verifies_in_python(&database, &files) || std::env::var_os("PYTHON").is_none());
    }
    // It is for operators only, and whole.
    let ada = reqwest::Client::new().get(server.url("/audit/access/export"));
    let ada = ada.bearer_auth(server.token("ada@example.com", false)).send().await.unwrap();
    assert_eq!(ada.status(), 404);
    let some = reqwest::Client::new().get(server.url("/audit/access/export?format=csv"));
    let some = some.bearer_auth(server.operator().token.unwrap()).send().await.unwrap();
    assert_eq!(some.status(), 400);
    assert!(alarms(&server.operator()).await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_altered_or_deleted_is_noticed_and_taken_back_when_it_is_mended() {
    let database = Database::new().await;
    let server = serve(&database).await;
    let pool = database.pool().await;
    records(&server, &pool).await;
    sqlx::raw_sql("CREATE TABLE kept AS TABLE access_trail; CREATE TABLE kept_seals AS TABLE access_seals")
        .execute(&pool)
        .await
        .unwrap();
    as_superuser(&pool, "UPDATE access_trail SET actor = 'system' WHERE operation = 'createProject'").await;
    told(&server, "is not what was sealed").await;
    let mend = "DELETE FROM access_trail t USING kept k WHERE t.id = k.id; INSERT INTO access_trail SELECT * FROM kept";
    as_superuser(&pool, mend).await;
    eventually("the alarm is taken back", async || alarms(&server.operator()).await.is_empty()).await;
    as_superuser(&pool, "DELETE FROM access_trail WHERE operation = 'createProject'").await;
    told(&server, "is gone").await;
    as_superuser(&pool, mend).await;
    eventually("the alarm is taken back", async || alarms(&server.operator()).await.is_empty()).await;
    // All of them, with what says that they were sealed, as if they had been dropped with age.
    as_superuser(
        &pool,
        "DELETE FROM access_trail; DELETE FROM access_repeats; DELETE FROM access_seals;
         INSERT INTO access_dropped (number, code) VALUES (1000, '') ON CONFLICT (single) DO UPDATE SET number = 1000",
    )
    .await;
    told(&server, "did not drop the records up to 1000").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_service_did_not_write_is_not_sealed() {
    let database = Database::new().await;
    let server = serve(&database).await;
    let pool = database.pool().await;
    records(&server, &pool).await;
    let size = number(&pool, SIZE).await;
    // One that names somebody else, and waits to be sealed.
    let forge = |code: &str| {
        format!(
            "INSERT INTO access_trail SELECT 'acc_forged', now(), kind, 'user:usr_forged', operation, organization_id,
                 reached_organization_id, target_id, times, NULL, {code} FROM access_trail LIMIT 1;"
        )
    };
    as_superuser(&pool, &(forge("mac") + "INSERT INTO access_unsealed VALUES ('acc_forged', 1)")).await;
    told(&server, "record acc_forged is not what the service wrote").await;
    assert_eq!(number(&pool, SIZE).await, size);
    as_superuser(&pool, "DELETE FROM access_trail WHERE id = 'acc_forged'; DELETE FROM access_unsealed").await;
    eventually("the alarm is taken back", async || alarms(&server.operator()).await.is_empty()).await;
    // One that pretends to be of before there were codes, but is young.
    let later = "UPDATE access_trail SET created_at = now() + interval '2 hours' WHERE id = 'acc_forged'";
    as_superuser(&pool, &(forge("''") + later)).await;
    told(&server, "record acc_forged is not what the service wrote").await;
    as_superuser(&pool, "DELETE FROM access_trail WHERE id = 'acc_forged'").await;
    eventually("the alarm is taken back", async || alarms(&server.operator()).await.is_empty()).await;
    // A good one of which nothing says any more that it was sealed.
    as_superuser(&pool, "DELETE FROM access_seals WHERE number = 1").await;
    told(&server, "was taken out of what is sealed").await;
    server.stop().await;
}

/// Writes a record of so many days ago as the service does, which waits to be sealed.
async fn record(server: &Server, pool: &PgPool, number: i64, days: i64) {
    let row = AccessRow {
        part: 1,
        id: format!("acc_{number:032}"),
        created_at: chrono::SubsecRound::trunc_subsecs(Utc::now() - TimeDelta::days(days), 6),
        kind: Some("REFUSED".into()),
        actor: Some("system".into()),
        operation: Some("createProject".into()),
        organization_id: None,
        reached_organization_id: None,
        target_id: None,
        times: 1,
        ip: None,
        mac: vec![],
    };
    let row = row.coded(server.service().core().commands.log().keys().chain());
    let AccessRow { id, created_at, kind, actor, operation, times, mac, .. } = row;
    let statement = "WITH new AS (INSERT INTO access_trail (id, created_at, kind, actor, operation, times, mac)
        VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id) INSERT INTO access_unsealed SELECT id, 1 FROM new";
    let query = sqlx::query(statement).bind(id).bind(created_at).bind(kind).bind(actor).bind(operation);
    query.bind(times).bind(mac).execute(pool).await.unwrap();
}

/// A head is known outside before the database has it. If the commit that goes with it is lost and other records and events come
/// meanwhile, which sort before, the trail still continues that head.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_whose_commit_was_lost_is_continued() {
    let database = Database::new().await;
    let server = serve(&database).await;
    let pool = database.pool().await;
    let lose = "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'lost'; END $$;
        CREATE CONSTRAINT TRIGGER lose AFTER INSERT OR UPDATE ON sealed_trees DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION lose()";
    sqlx::raw_sql(lose).execute(&pool).await.unwrap();
    let heads = database.config(&[]).data_dir.join("audit.heads");
    let known = || std::fs::metadata(&heads).map_or(0, |file| file.len());
    let grows = async |what: &str| {
        let before = known();
        eventually(what, async || known() > before).await;
    };
    record(&server, &pool, 9, 0).await;
    grows("a head of the access trail is known").await;
    for number in 1..9 {
        server.user(&format!("user{number}@example.com")).user_id().await;
        grows("a head of the installation's trail is known").await;
        record(&server, &pool, 9 - number, 0).await;
    }
    const INSTALLATION: &str =
        "SELECT COALESCE((SELECT size FROM sealed_trees WHERE organization_id = 'installation'), 0)";
    assert_eq!((number(&pool, SIZE).await, number(&pool, INSTALLATION).await), (0, 0));
    sqlx::raw_sql("DROP TRIGGER lose ON sealed_trees").execute(&pool).await.unwrap();
    eventually("the trails are sealed", async || {
        number(&pool, SIZE).await >= 9 && number(&pool, INSTALLATION).await >= 8
    })
    .await;
    assert_eq!(alarms(&server.operator()).await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_with_age_leaves_its_hash_and_raises_no_alarm() {
    let (database, files) = (Database::new().await, tempfile::tempdir().unwrap());
    let server = serve(&database).await;
    let pool = database.pool().await;
    for (number, days) in [(1, 400), (2, 390), (3, 380), (4, 20), (5, 0)] {
        record(&server, &pool, number, days).await;
    }
    eventually("they are sealed", async || number(&pool, SIZE).await >= 5).await;
    forget(server.service().core().commands.log(), 365).await.unwrap();
    assert_eq!(number(&pool, "SELECT min(number) FROM access_seals").await, 4);
    let rounds = "{ auditStatus { lastRound { endedAt } } }";
    let last = async || server.operator().query(rounds, json!({})).await.at("/auditStatus/lastRound/endedAt").clone();
    for _ in 0..2 {
        let before = last().await;
        eventually("a round ends", async || last().await != before).await;
    }
    assert_eq!(alarms(&server.operator()).await, Vec::<String>::new());
    let (status, bundle) = export(&server).await;
    assert!(
        status == 200
            && bundle.starts_with(
                "{\"type\":\"header\",\"format\":\"tenancy-audit/1\",\"organization\":\"access\",\"from\":4,"
            ),
        "{bundle}"
    );
    let output = verify(&database, &files, &bundle).await;
    assert!(output.status.success() && verifies_in_python(&database, &files), "{output:?}");
    // One that was to be kept is missed.
    as_superuser(&pool, "DELETE FROM access_trail WHERE id LIKE '%4'; DELETE FROM access_seals WHERE number = 4").await;
    told(&server, "record 4 is gone").await;
    server.stop().await;
}
