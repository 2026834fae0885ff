//! Witnesses: heads are cosigned outside of the installation, and what was once cosigned is held against it.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use tenancy::audit::cosignature::{Cosigned, Quorum, WitnessKey};
use tenancy::audit::note::VerifierKey;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{Client, Database, Server};

/// Waits until `condition` holds: a witness that was away is left alone for some seconds.
async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A witness that runs as a program of its own.
struct Witness {
    directory: TempDir,
    name: &'static str,
    log: VerifierKey,
    address: String,
    key: WitnessKey,
    child: Child,
}

/// Starts one; gives its key and its address.
async fn start(directory: &Path, name: &str, log: &VerifierKey, listen: &str) -> (Child, WitnessKey, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.env_clear().env("HOME", directory).args(["witness", "--name", name, "--listen", listen]);
    command.arg("--state").arg(directory).arg("--log-key").arg(log.to_string());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = told.next_line().await.unwrap().expect("the witness has ended");
        if let Some((_, address)) = line.split_once("listens on http://") {
            break address.to_owned();
        }
    };
    // What it says besides would fill the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = told.next_line().await {} });
    let key = BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    (child, key.parse().unwrap(), address)
}

impl Witness {
    async fn start(name: &'static str, log: &VerifierKey) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (child, key, address) = start(directory.path(), name, log, "127.0.0.1:0").await;
        Self { directory, name, log: log.clone(), address, key, child }
    }

    /// At once, as by `kill -9`.
    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Again, with the same state and at the same address.
    async fn restart(&mut self) {
        let (child, key, address) = start(self.directory.path(), self.name, &self.log, &self.address).await;
        assert_eq!((&key, &address), (&self.key, &self.address));
        self.child = child;
    }

    async fn submit(&self, body: String) -> (u16, String, String) {
        let url = format!("http://{}/add-checkpoint", self.address);
        let answer = reqwest::Client::new().post(url).body(body).send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    }
}

/// The key that signs the audit trail of this database, which is made here.
fn log_key(database: &Database) -> VerifierKey {
    let config = database.config(&[]);
    let signers = tenancy::audit::keys::open(&config.data_dir, &config.audit.name, &[], true).unwrap();
    signers[0].verifier().clone()
}

/// A service that these witnesses watch.
async fn serve(database: &Database, witnesses: &[&Witness], quorum: u8) -> Server {
    let entry =
        |witness: &&Witness| json!({"url": format!("http://{}", witness.address), "key": witness.key.to_string()});
    let witnesses = Value::from(witnesses.iter().map(entry).collect::<Vec<_>>()).to_string();
    let (quorum, variables) = (quorum.to_string(), "TENANCY_AUDIT__VERIFY_REST_SECONDS");
    let variables = [
        (variables, "1"),
        ("TENANCY_AUDIT__WITNESSES", witnesses.as_str()),
        ("TENANCY_AUDIT__WITNESS_QUORUM", quorum.as_str()),
    ];
    database.serve_with(&variables).await
}

async fn checkpoint(client: &Client, organization: &str) -> Value {
    let query = "query($o: ID!) { auditCheckpoint(organizationId: $o) { note witnessedNote treeSize failure } }";
    client.send(query, json!({"o": organization})).await["data"]["auditCheckpoint"].clone()
}

fn quorum(witnesses: &[&Witness], least: usize) -> Quorum {
    Quorum::new(witnesses.iter().map(|witness| witness.key.clone()).collect(), Some(least)).unwrap()
}

/// The cosignatures of the newest head, when there are so many and it has this size.
async fn cosigned(client: &Client, organization: &str, size: i64, quorum: &Quorum) -> Vec<Cosigned> {
    let found = async || {
        let found = checkpoint(client, organization).await;
        let note = found["note"].as_str().filter(|_| found["treeSize"].as_i64() >= Some(size));
        note.and_then(|note| quorum.of(note).ok())
    };
    eventually("the head is cosigned", async || found().await.is_some()).await;
    found().await.unwrap()
}

async fn standings(server: &Server) -> Vec<Value> {
    let query = "{ auditStatus { witnesses { name cosignedAt failure } } }";
    server.operator().query(query, json!({})).await.at("/auditStatus/witnesses").as_array().unwrap().clone()
}

async fn alarms(server: &Server) -> Vec<Value> {
    let query = "{ auditStatus { alarms { organizationId noticedBy message } } }";
    server.operator().query(query, json!({})).await.at("/auditStatus/alarms").as_array().unwrap().clone()
}

async fn newest(pool: &PgPool, organization: &str) -> i64 {
    let statement = "SELECT max(audit_sequence) FROM events WHERE organization_id = $1";
    sqlx::query_scalar(statement).bind(organization).fetch_one(pool).await.unwrap()
}

/// Runs statements with all triggers off.
async fn as_superuser(pool: &PgPool, statements: &str) {
    let script = format!("SET LOCAL session_replication_role = replica; {statements}");
    let mut transaction = pool.begin().await.unwrap();
    sqlx::raw_sql(&script).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

const KEEP: &str = "CREATE TABLE old_events AS TABLE events; CREATE TABLE old_trees AS TABLE sealed_trees;
    CREATE TABLE old_hashes AS TABLE sealed_hashes; CREATE TABLE old_seals AS TABLE seals;
    CREATE TABLE old_witnessed AS TABLE witnessed_trees; CREATE TABLE old_trail AS TABLE installation_trail";
const PUT_BACK: &str = "DELETE FROM events; INSERT INTO events SELECT * FROM old_events;
    DELETE FROM sealed_trees; INSERT INTO sealed_trees SELECT * FROM old_trees;
    DELETE FROM sealed_hashes; INSERT INTO sealed_hashes SELECT * FROM old_hashes;
    DELETE FROM seals; INSERT INTO seals SELECT * FROM old_seals;
    DELETE FROM witnessed_trees; INSERT INTO witnessed_trees SELECT * FROM old_witnessed;
    DELETE FROM installation_trail; INSERT INTO installation_trail SELECT * FROM old_trail;
    DELETE FROM tallies WHERE name = 'projects'; DELETE FROM claims WHERE scope LIKE 'project%'; DELETE FROM snapshots;";

async fn verify(bundle: &Path, arguments: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.env_clear().args(["audit", "verify"]).arg(bundle).args(arguments).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_enough_witnesses_cosigned_goes_out_and_is_verified_offline() {
    let database = Database::new().await;
    let log = log_key(&database);
    let (one, two) = (Witness::start("w1.example", &log).await, Witness::start("w2.example", &log).await);
    let server = serve(&database, &[&one, &two], 0).await;
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    let size = newest(&database.pool().await, &acme).await;
    let both = quorum(&[&one, &two], 2);
    let found = cosigned(&ada, &acme, size, &both).await;
    assert_eq!(found.iter().map(|found| found.witness.as_str()).collect::<Vec<_>>(), ["w1.example", "w2.example"]);

    // An export waits for them.
    assert!(ada.create_project(&acme, "one").await.accepted());
    let export = reqwest::Client::new().get(server.url(&format!("/audit/{acme}/export")));
    let export = export.bearer_auth(ada.token.as_ref().unwrap()).send().await.unwrap().text().await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let bundle = files.path().join("acme.ndjson");
    std::fs::write(&bundle, &export).unwrap();
    let key = |key: &dyn ToString| ["--witness".to_owned(), key.to_string()];
    let known = ["--key".to_owned(), log.to_string()];
    let witnesses = [key(&one.key), key(&two.key)].concat();
    let output = verify(&bundle, &[&known[..], &witnesses].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("cosigned by w2.example at 20"), "{output:?}");

    // One whose key nobody trusts does not count, nor does one that is not there.
    let stranger = Witness::start("w3.example", &log).await;
    let strange = [key(&one.key), key(&stranger.key)].concat();
    let output = verify(&bundle, &[&known[..], &strange].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("too few witnesses: 1 (w1.example)"), "{output:?}");
    let least = ["--quorum".to_owned(), "1".to_owned()];
    assert!(verify(&bundle, &[&known[..], &strange, &least].concat()).await.status.success());
    let twice = [key(&one.key), key(&one.key)].concat();
    assert_eq!(verify(&bundle, &[&known[..], &twice].concat()).await.status.code(), Some(2));
    std::fs::write(&bundle, export.replace("\\n\u{2014} w2.example ", "\\n\u{2014} w4.example ")).unwrap();
    assert!(!verify(&bundle, &[&known[..], &witnesses].concat()).await.status.success());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_rolled_back_is_revealed_where_nothing_else_is_left() {
    let database = Database::new().await;
    let log = log_key(&database);
    let one = Witness::start("w1.example", &log).await;
    let server = serve(&database, &[&one], 1).await;
    let ada = server.user("ada@example.com");
    let (acme, pool) = (server.verified("acme", &ada).await, database.pool().await);
    let trusted = quorum(&[&one], 1);
    let before = newest(&pool, &acme).await;
    cosigned(&ada, &acme, before, &trusted).await;
    sqlx::raw_sql(KEEP).execute(&pool).await.unwrap();
    assert!(ada.create_project(&acme, "one").await.accepted());
    let size = newest(&pool, &acme).await;
    cosigned(&ada, &acme, size, &trusted).await;
    server.stop().await;
    // The owner puts everything back, and the data directory has lost its heads: here nothing shows it any more.
    as_superuser(&pool, PUT_BACK).await;
    std::fs::remove_file(database.config(&[]).data_dir.join("audit.heads")).unwrap();

    let server = serve(&database, &[&one], 1).await;
    let ada = server.user("ada@example.com");
    eventually("the witness is heard", async || !checkpoint(&ada, &acme).await["failure"].is_null()).await;
    let failure = checkpoint(&ada, &acme).await["failure"].as_str().unwrap().to_owned();
    assert!(failure.contains(&format!("w1.example cosigned a tree of {size} events")), "{failure}");
    let noticed = alarms(&server).await;
    let own = noticed.iter().find(|alarm| alarm["noticedBy"] == "WITNESS" && alarm["organizationId"] == acme.as_str());
    assert!(own.is_some(), "{noticed:?}");
    let health: Value = reqwest::get(server.url("/health/ready")).await.unwrap().json().await.unwrap();
    assert_eq!(health["status"], "degraded", "{health}");
    // Nothing of the other history was signed, and nothing is.
    assert!(ada.create_project(&acme, "other").await.accepted());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(checkpoint(&ada, &acme).await["treeSize"], before);
    server.stop().await;

    // Those who do not ask that witness any more take its word back.
    let server = serve(&database, &[], 0).await;
    let ada = server.user("ada@example.com");
    assert!(ada.create_project(&acme, "again").await.accepted());
    eventually("the tree goes on", async || checkpoint(&ada, &acme).await["treeSize"].as_i64() > Some(before)).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_away_keeps_nothing_back_and_catches_up() {
    let database = Database::new().await;
    let log = log_key(&database);
    let (one, mut two) = (Witness::start("w1.example", &log).await, Witness::start("w2.example", &log).await);
    let server = serve(&database, &[&one, &two], 1).await;
    let ada = server.user("ada@example.com");
    let (acme, pool) = (server.verified("acme", &ada).await, database.pool().await);
    cosigned(&ada, &acme, newest(&pool, &acme).await, &quorum(&[&one, &two], 2)).await;
    two.kill().await;
    assert!(ada.create_project(&acme, "one").await.accepted());
    let size = newest(&pool, &acme).await;
    let found = cosigned(&ada, &acme, size, &quorum(&[&one, &two], 1)).await;
    assert_eq!(found.len(), 1, "{found:?}");
    eventually("its absence is told", async || !standings(&server).await[1]["failure"].is_null()).await;
    assert!(alarms(&server).await.is_empty(), "it is no alarm that somebody is away");

    // It was killed, and remembers. The head that it missed is shown to it again.
    two.restart().await;
    cosigned(&ada, &acme, size, &quorum(&[&one, &two], 2)).await;
    eventually("its return is told", async || standings(&server).await[1]["failure"].is_null()).await;
    let note = checkpoint(&ada, &acme).await["note"].as_str().unwrap().to_owned();
    two.kill().await;
    two.restart().await;
    let (status, kind, answer) = two.submit(format!("old 0\n\n{note}")).await;
    assert_eq!((status, kind.as_str(), answer), (409, "text/x.tlog.size", format!("{size}\n")));
    assert_eq!(two.submit(format!("old {size}\n\n{note}")).await.0, 200);
    assert_eq!(
        two.submit(format!("old {size}\n\n{}", note.replace("\u{2014} tenancy", "\u{2014} other"))).await.0,
        403
    );
    assert_eq!(two.submit(format!("old {size}\n\n{}", note.replace("tenancy.local", "other.local"))).await.0, 404);
    assert_eq!(two.submit("x".repeat(100_000)).await.0, 413);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_handed_out_as_witnessed_and_everything_else_goes_on() {
    let database = Database::new().await;
    let log = log_key(&database);
    let (one, mut two) = (Witness::start("w1.example", &log).await, Witness::start("w2.example", &log).await);
    two.kill().await;
    let server = serve(&database, &[&one, &two], 2).await;
    let ada = server.user("ada@example.com");
    let (acme, pool) = (server.verified("acme", &ada).await, database.pool().await);
    let size = newest(&pool, &acme).await;
    eventually("it is sealed", async || checkpoint(&ada, &acme).await["treeSize"].as_i64() >= Some(size)).await;
    eventually("one has cosigned", async || !standings(&server).await[0]["cosignedAt"].is_null()).await;
    let found = checkpoint(&ada, &acme).await;
    assert!(found["witnessedNote"].is_null() && found["failure"].is_null(), "{found}");
    two.restart().await;
    cosigned(&ada, &acme, size, &quorum(&[&one, &two], 2)).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_witnesses_that_cannot_be_is_refused() {
    let database = Database::new().await;
    let log = log_key(&database);
    let one = Witness::start("w1.example", &log).await;
    let entry = json!({"url": format!("http://{}", one.address), "key": one.key.to_string()});
    let refused = async |witnesses: Value, quorum: &str| {
        let witnesses = witnesses.to_string();
        let variables = [("TENANCY_AUDIT__WITNESSES", witnesses.as_str()), ("TENANCY_AUDIT__WITNESS_QUORUM", quorum)];
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
        let output = command.env_clear().envs(database.variables(&variables)).arg("serve").kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(30), output).await.expect("it is refused").unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(json!([entry]), "2").await.contains("a quorum of 2 is more than the 1"));
    assert!(refused(json!([entry, entry]), "0").await.contains("stands there twice"));
    let log = json!({"url": "https://w.example", "key": log.to_string()});
    assert!(refused(json!([log]), "0").await.contains("not that of witnesses"));
    let open = json!({"url": "http://w.example", "key": one.key.to_string()});
    assert!(refused(json!([open]), "0").await.contains("http:// only on this machine"));
}

/// A Python that has a witness and a log which others wrote.
fn python() -> Option<String> {
    let own = std::env::var("PYTHON").ok();
    let named = own.into_iter().chain(["python3", "python3.12", "python3.13", "python3.14"].map(str::to_owned));
    let has = |python: &String| {
        let found = std::process::Command::new(python).args(["-c", "import aics_witness, aics_tlog"]).output();
        found.is_ok_and(|output| output.status.success())
    };
    let found = { named }.find(has);
    if found.is_none() {
        println!("left out: there is no Python with what tests/witness/requirements.txt names");
    }
    found
}

/// Runs a program of the package to its end; gives what it printed.
async fn of_python(python: &str, arguments: &[&str]) -> String {
    let output = Command::new(python).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_others_wrote_is_cosigned_by_ours() {
    let Some(python) = python() else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness/log.py");
    let log = of_python(&python, &["-B", script, "key"]).await.parse().unwrap();
    let witness = Witness::start("w1.example", &log).await;
    let url = format!("http://{}", witness.address);
    let told = of_python(&python, &["-B", script, "show", &url, &witness.key.to_string()]).await;
    assert!(told.contains("16 checkpoints were cosigned"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_others_wrote_cosigns_and_reveals_a_rollback() {
    let Some(python) = python() else { return };
    let database = Database::new().await;
    let log = log_key(&database);
    let server = serve(&database, &[], 0).await;
    let ada = server.user("ada@example.com");
    let (acme, pool) = (server.verified("acme", &ada).await, database.pool().await);
    server.stop().await;

    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json").display().to_string();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fn own<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["-m", "aics_witness"], arguments].concat()
    }
    let made = of_python(&python, &own(&["init", "--config", &config, "--name", "w.example"])).await;
    let key: WitnessKey = made.split_whitespace().find_map(|word| word.parse().ok()).expect("it prints its key");
    let (origin, log) = (format!("{}/{acme}", log.name()), log.to_string());
    of_python(&python, &own(&["add-log", "--config", &config, "--origin", &origin, "--vkey", &log])).await;
    let serving = own(&["serve", "--config", &config, "--listen", &address]);
    let _child = Command::new(&python).args(serving).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();

    let witnesses = json!([{"url": format!("http://{address}"), "key": key.to_string()}]).to_string();
    let variables = [("TENANCY_AUDIT__VERIFY_REST_SECONDS", "1"), ("TENANCY_AUDIT__WITNESSES", witnesses.as_str())];
    let server = database.serve_with(&variables).await;
    let ada = server.user("ada@example.com");
    let trusted = Quorum::new(vec![key], None).unwrap();
    cosigned(&ada, &acme, newest(&pool, &acme).await, &trusted).await;
    sqlx::raw_sql(KEEP).execute(&pool).await.unwrap();
    for slug in ["one", "two", "three"] {
        assert!(ada.create_project(&acme, slug).await.accepted());
        cosigned(&ada, &acme, newest(&pool, &acme).await, &trusted).await;
    }
    server.stop().await;
    as_superuser(&pool, PUT_BACK).await;
    std::fs::remove_file(database.config(&[]).data_dir.join("audit.heads")).unwrap();
    let server = database.serve_with(&variables).await;
    let ada = server.user("ada@example.com");
    eventually("the witness is heard", async || !checkpoint(&ada, &acme).await["failure"].is_null()).await;
    let failure = checkpoint(&ada, &acme).await["failure"].as_str().unwrap().to_owned();
    assert!(failure.contains("w.example cosigned a tree of"), "{failure}");
    server.stop().await;
}
