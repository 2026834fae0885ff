//! Streams of the audit trail, to real receivers.

mod receivers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use self::receivers::{A_MOMENT, Authority, Posts, SyslogReceiver, http_receiver, syslog};
use crate::support::{Client, Database, Server, check_log, eventually};

const STREAMS: &str = "TENANCY_AUDIT__STREAMS";

fn list(streams: &[String]) -> String {
    format!("[{}]", streams.join(", "))
}

async fn run(database: &Database, streams: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.args(arguments).envs(database.variables(&[(STREAMS, streams)])).env_remove("TENANCY_LOG");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// How one stream stands, as `tenancy audit streams --json` says, and the exit code.
async fn stands(database: &Database, streams: &str, name: &str) -> (Value, Option<i32>) {
    let output = run(database, streams, &["audit", "streams", "--json"]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.into_iter().find(|line| line["name"] == name);
    (line.unwrap_or_else(|| panic!("{said} {:?}", String::from_utf8(output.stderr))), output.status.code())
}

async fn count(pool: &PgPool) -> usize {
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM events").fetch_one(pool).await.unwrap();
    usize::try_from(count).unwrap()
}

/// A world with a few events of each kind of trail.
async fn some_events(server: &Server, slug: &str) -> String {
    let (operator, owner) = (server.operator(), server.user("ada@example.com"));
    let organization = server.verified(slug, &owner).await;
    owner.invite(&organization, "eve@example.com", &["guest"]).await;
    let input = json!({"organizationId": organization, "reason": "a “reason” with\nlines and ] brackets"});
    assert!(operator.run("blockOrganization", "OrganizationReviewInput", input, "__typename").await.accepted());
    organization
}

fn uid(line: &str) -> String {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    line["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// The lines of this trail, in the order in which they came.
fn of_trail(lines: &[String], organization: Option<&str>) -> Vec<String> {
    let is_of = |line: &&String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["metadata"]["tenant_uid"].as_str() == organization
    };
    lines.iter().filter(is_of).cloned().collect()
}

/// Whether every event of the log came, each trail's in order, when repetitions are left out.
async fn came_in_order(pool: &PgPool, lines: &[String]) {
    let rows: Vec<(String, i16)> =
        sqlx::query_as(r#"SELECT event_id, partition FROM events ORDER BY partition, "offset""#)
            .fetch_all(pool)
            .await
            .unwrap();
    let partitions: BTreeMap<&str, i16> = rows.iter().map(|(id, partition)| (id.as_str(), *partition)).collect();
    let mut came: BTreeMap<i16, Vec<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for id in lines.iter().map(|line| uid(line)) {
        if seen.insert(id.clone()) {
            came.entry(partitions[id.as_str()]).or_default().push(id);
        }
    }
    let came: Vec<String> = came.into_values().flatten().collect();
    let log: Vec<String> = rows.into_iter().map(|(id, _)| id).collect();
    assert_eq!(came, log);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_comes_by_syslog_once_as_it_is_exported() {
    let (database, authority) = (Database::new().await, Authority::new());
    let receiver = SyslogReceiver::start(&authority).await;
    let (certificate, key) = authority.client();
    let shown = format!(", certificate = '{}', key = '{}'", certificate.display(), key.display());
    let streams = list(&[syslog("siem", receiver.address, &authority.file(), &shown)]);
    let server = database.serve_with(&[(STREAMS, &streams)]).await;
    let organization = some_events(&server, "acme").await;
    let pool = database.pool().await;
    let taken = receiver.taken.clone();
    eventually("all events came", || async { taken.count() >= count(&pool).await }).await;
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(taken.count(), count(&pool).await, "once");

    let first = taken.messages.lock().unwrap()[0].clone();
    let head: Vec<&str> = first.splitn(8, ' ').collect();
    assert_eq!(
        (head[0], head[2], head[3], head[4], head[6]),
        ("<110>1", "tenancy.local", "tenancy", "-", "-"),
        "{first}"
    );
    chrono::DateTime::parse_from_rfc3339(head[1]).unwrap();
    let event: Value = serde_json::from_str(head[7]).unwrap();
    assert_eq!(event["metadata"]["event_code"], head[5]);
    // The very lines of an export, numbers in the installation's trail included.
    for trail in [Some(organization.as_str()), None] {
        let name = trail.unwrap_or("installation");
        let arguments = ["audit", "export", "--organization", name, "--format", "ocsf", "--out", "-"];
        let exported = String::from_utf8(run(&database, &streams, &arguments).await.stdout).unwrap();
        let mut came = of_trail(&taken.texts(), trail);
        let number = |line: &String| serde_json::from_str::<Value>(line).unwrap()["metadata"]["sequence"].as_i64();
        // The installation's trail is numbered over partitions, and each partition comes for itself.
        came.sort_by_key(number);
        assert_eq!(came, exported.lines().collect::<Vec<_>>(), "{name}");
    }

    let (stands, code) = stands(&database, &streams, "siem").await;
    assert_eq!((&stands["state"], &stands["lagEvents"], code), (&json!("sending"), &json!(0), Some(0)), "{stands}");
    assert_eq!(stands["sent"], json!(count(&pool).await));
    let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    for metric in
        ["tenancy_audit_stream_lag_events{stream=\"siem\"} 0", "tenancy_audit_stream_events_total{stream=\"siem\"}"]
    {
        assert!(metrics.contains(metric), "{metric}");
    }
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_holds_up_its_own_stream_and_gets_everything_when_it_is_back() {
    let (database, authority, other) = (Database::new().await, Authority::new(), Authority::new());
    // One that is away, one that cuts connections, and one of somebody else.
    let (address, _) = SyslogReceiver::start(&authority).await.stop();
    let cutting = SyslogReceiver::start(&authority).await;
    cutting.taken.cuts.store(2, Ordering::Relaxed);
    let strange = SyslogReceiver::start(&other).await;
    // And one that wants to see a certificate.
    let careful = SyslogReceiver::at(&authority, "127.0.0.1:0".parse().unwrap(), Arc::default(), true).await;
    let ca = authority.file();
    let streams = list(&[
        syslog("away", address, &ca, ""),
        syslog("cutting", cutting.address, &ca, ""),
        syslog("strange", strange.address, &ca, ""),
        syslog("careful", careful.address, &ca, ""),
    ]);
    let server = database.serve_with(&[(STREAMS, &streams)]).await;
    some_events(&server, "acme").await;
    let pool = database.pool().await;
    eventually("what is cut is sent again", || async {
        let came: BTreeSet<String> = cutting.taken.texts().iter().map(|line| uid(line)).collect();
        came.len() == count(&pool).await
    })
    .await;
    came_in_order(&pool, &cutting.taken.texts()).await;
    let failure = async |name: &str| {
        let failure = "SELECT failure FROM audit_streams WHERE name = $1 AND failure IS NOT NULL LIMIT 1";
        let failure: Option<String> = sqlx::query_scalar(failure).bind(name).fetch_optional(&pool).await.unwrap();
        failure.unwrap_or_default()
    };
    for (name, why) in [
        ("away", "no connection came about: Connection refused"),
        ("strange", "invalid peer certificate: UnknownIssuer"),
        ("careful", "CertificateRequired"),
    ] {
        eventually(name, || async { failure(name).await.contains(why) }).await;
    }
    assert_eq!((strange.taken.count(), careful.taken.count()), (0, 0));
    let ready: Value = reqwest::get(server.url("/health/ready")).await.unwrap().json().await.unwrap();
    assert_eq!(ready["status"], "degraded", "{ready}");
    assert!(ready["reasons"].to_string().contains("audit stream away does not get through"), "{ready}");
    assert!(!ready["reasons"].to_string().contains("cutting"), "{ready}");
    let (stands, code) = stands(&database, &streams, "away").await;
    assert_eq!((&stands["state"], &stands["sent"], code), (&json!("failing"), &json!(0), Some(1)), "{stands}");
    assert!(stands["lagEvents"].as_i64().unwrap() > 0 && stands["lagSeconds"].as_f64().unwrap() > 0.0, "{stands}");

    let receiver = SyslogReceiver::at(&authority, address, Arc::default(), false).await;
    eventually("it gets everything", || async { receiver.taken.count() >= count(&pool).await }).await;
    came_in_order(&pool, &receiver.taken.texts()).await;
    eventually("nothing is failing of it", || async { failure("away").await.is_empty() }).await;
    let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tenancy_audit_stream_failures_total{stream=\"strange\"}"), "{metrics}");
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_go_by_http_as_the_stream_says_and_shrink_where_they_are_too_large() {
    let database = Database::new().await;
    let (lines, arrays): (Arc<Posts>, Arc<Posts>) = (Arc::default(), Arc::default());
    lines.answers.lock().unwrap().extend([500, 302, 401]);
    arrays.bytes_max.store(3_000, Ordering::Relaxed);
    let stream = |name: &str, address, more: &str| {
        format!(
            "{{name = '{name}', kind = 'http', url = 'http://{address}/ingest?key=s3cret-q', batch_wait_ms = 50{more}}}"
        )
    };
    let streams = list(&[
        stream("lines", http_receiver(lines.clone()).await, ", gzip = true, token = 'Bearer s3cret-t'"),
        stream("arrays", http_receiver(arrays.clone()).await, ", format = 'array', trails = ['organizations']"),
        stream("late", http_receiver(Arc::default()).await, ", start = 'now', trails = ['installation']"),
    ]);
    // Nothing was configured when the first of it happened.
    let server = database.serve().await;
    let organization = some_events(&server, "acme").await;
    server.stop().await;
    let server = database.serve_with(&[(STREAMS, &streams)]).await;
    let pool = database.pool().await;
    let of_lines = || -> Vec<String> {
        let posted = lines.taken.lock().unwrap();
        let mut text = String::new();
        for post in posted.iter() {
            assert_eq!(post.headers["authorization"], "Bearer s3cret-t");
            assert_eq!(post.headers["content-type"], "application/x-ndjson");
            flate2::read::GzDecoder::new(&post.body[..]).read_to_string(&mut text).unwrap();
        }
        text.lines().map(str::to_owned).collect()
    };
    eventually("all lines came", || async { of_lines().len() >= count(&pool).await }).await;
    came_in_order(&pool, &of_lines()).await;
    let of_arrays = || -> Vec<String> {
        let posted = arrays.taken.lock().unwrap();
        let of = |body: &[u8]| serde_json::from_slice::<Vec<Value>>(body).unwrap();
        posted.iter().flat_map(|post| of(&post.body)).map(|event| event.to_string()).collect()
    };
    let organizations = async || {
        let events = "SELECT count(*) FROM events WHERE organization_id IS NOT NULL";
        usize::try_from(sqlx::query_scalar::<_, i64>(events).fetch_one(&pool).await.unwrap()).unwrap()
    };
    eventually("all arrays came", || async { of_arrays().len() >= organizations().await }).await;
    assert_eq!(of_trail(&of_arrays(), Some(&organization)).len(), organizations().await, "and nothing else");
    let (stands, code) = stands(&database, &streams, "late").await;
    assert_eq!((&stands["sent"], &stands["lagEvents"], code), (&json!(0), &json!(0), Some(0)), "{stands}");

    // Secrets are nowhere but in the request.
    let shown = run(&database, &streams, &["config"]).await;
    let rows: Vec<String> = sqlx::query_scalar("SELECT s::text FROM audit_streams s").fetch_all(&pool).await.unwrap();
    let shown = format!("{}{}", String::from_utf8(shown.stdout).unwrap(), rows.join("\n"));
    assert!(shown.contains("token = \"***\"") && shown.contains("?***"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
    for wrong in ["token = 5", "url = 'http://u:s3cret@siem.example'", "name = 'lines', token = 's3cret\n'"] {
        let output = run(&database, &format!("[{{name = 'x', kind = 'http', {wrong}}}]"), &["config"]).await;
        assert!(!format!("{output:?}").contains("s3cret"), "{output:?}");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_sends_and_another_goes_on_where_it_stopped() {
    let (database, authority) = (Database::new().await, Authority::new());
    let receiver = SyslogReceiver::start(&authority).await;
    let streams = list(&[syslog("siem", receiver.address, &authority.file(), "")]);
    let (one, other) =
        (database.serve_with(&[(STREAMS, &streams)]).await, database.serve_with(&[(STREAMS, &streams)]).await);
    some_events(&one, "acme").await;
    some_events(&other, "bolt").await;
    let pool = database.pool().await;
    let taken = receiver.taken.clone();
    eventually("all events came", || async { taken.count() >= count(&pool).await }).await;
    one.stop().await;
    some_events(&other, "core").await;
    eventually("the other one goes on", || async { taken.count() >= count(&pool).await }).await;
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(taken.count(), count(&pool).await, "nothing came twice");
    came_in_order(&pool, &taken.texts()).await;
    other.stop().await;

    // Restarted, it begins where it was.
    let again = database.serve_with(&[(STREAMS, &streams)]).await;
    some_events(&again, "dome").await;
    eventually("it goes on", || async { taken.count() >= count(&pool).await }).await;
    assert_eq!(taken.count(), count(&pool).await, "nothing came twice");
    pool.close().await;
    again.stop().await;
}

struct Running {
    child: Child,
    url: String,
}

impl Running {
    fn start(database: &Database, streams: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tenancy"))
            .args(["serve"])
            .envs(database.variables(&[(STREAMS, streams)]))
            .env_remove("TENANCY_LOG")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let url = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {said}")).unwrap();
            if let Some((_, url)) = line.split_once("listens on ") {
                break url.to_owned();
            }
            said.push_str(&line);
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, url }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_service_is_killed_in_the_middle_and_the_receiver_cuts_connections() {
    let (database, authority) = (Database::new().await, Authority::new());
    let receiver = SyslogReceiver::start(&authority).await;
    let more = ", batch_events_max = 7";
    let streams = list(&[syslog("siem", receiver.address, &authority.file(), more)]);
    // The data directory has the key that signs tokens once a service was there.
    let server = database.serve().await;
    let (token, organization) = {
        let owner = server.user("ada@example.com");
        (owner.token.clone(), server.verified("acme", &owner).await)
    };
    server.stop().await;
    let pool = database.pool().await;
    for round in 0..4 {
        let running = Running::start(&database, &streams);
        let client =
            Client { url: format!("{}/graphql", running.url), token: token.clone(), http: reqwest::Client::new() };
        let (stop, organization) = (Arc::new(AtomicBool::new(false)), organization.clone());
        let stopped = stop.clone();
        let load = tokio::spawn(async move {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let input = json!({"input": {"organizationId": organization, "name": "p", "slug": format!("p-{round}-{number}")}});
                let create =
                    "mutation($input: CreateProjectInput!) { createProject(input: $input) { project { id } } }";
                let body = json!({"query": create, "variables": input});
                let request = client.http.post(&client.url).bearer_auth(client.token.as_ref().unwrap()).json(&body);
                let _ = request.send().await;
            }
        });
        let before = receiver.taken.count();
        eventually("some came", || async { receiver.taken.count() > before + 10 }).await;
        receiver.taken.cuts.store(1, Ordering::Relaxed);
        running.kill();
        stop.store(true, Ordering::Relaxed);
        load.await.unwrap();
    }
    receiver.taken.cuts.store(0, Ordering::Relaxed);
    let running = Running::start(&database, &streams);
    let left = r#"SELECT count(*) FROM seals s JOIN audit_streams a USING (partition)
                  WHERE a."offset" < (SELECT COALESCE(max("offset"), 0) FROM events WHERE partition = s.partition)"#;
    eventually("everything is sent", || async {
        sqlx::query_scalar::<_, i64>(left).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    came_in_order(&pool, &receiver.taken.texts()).await;
    running.kill();
    check_log(&pool).await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sealed_is_not_sent_and_a_file_that_is_missing_keeps_the_service_from_starting() {
    let (database, authority) = (Database::new().await, Authority::new());
    let receiver = SyslogReceiver::start(&authority).await;
    let streams = list(&[syslog("siem", receiver.address, &authority.file(), "")]);
    let server = database.serve_with(&[(STREAMS, &streams)]).await;
    some_events(&server, "acme").await;
    let pool = database.pool().await;
    let taken = receiver.taken.clone();
    eventually("all events came", || async { taken.count() >= count(&pool).await }).await;
    // Whoever has the database writes an event at the end.
    let forged = r#"INSERT INTO events
        SELECT (jsonb_populate_record(e, jsonb_build_object('sequence', 1000, 'event_id', 'evt_01h455vb4pex5vsknk084sn02q',
            'offset', e."offset" + 1, 'audit_sequence', e.audit_sequence + 1))).*
        FROM events e WHERE organization_id IS NOT NULL ORDER BY "offset" DESC LIMIT 1"#;
    sqlx::raw_sql(forged).execute(&pool).await.unwrap();
    let before = taken.count();
    eventually("it is noticed", || async { server.service().core().commands.log().alarms().is_raised() }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(taken.count(), before, "{:?}", taken.texts().last());
    pool.close().await;
    server.stop().await;

    let missing = streams.replace("ca.pem", "gone.pem");
    let output = run(&database, &missing, &["serve"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the audit stream siem cannot use") && said.contains("gone.pem"), "{said}");
}
