//! No secret is where it does not belong: logs, errors, answers, metrics, events, tables.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Database, eventually};
use crate::webhooks::Receiver;

const PASSWORD: &str = "correct-horse-battery-staple";

/// The program itself, and all that it logs.
struct Program {
    child: Child,
    url: String,
    logged: Arc<Mutex<String>>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = String::new();
        let url = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {said}"));
            said.push_str(&line);
            said.push('\n');
            if let Some((_, url)) = line.split_once("listens on ") {
                break url.trim().to_owned();
            }
        };
        let logged = Arc::new(Mutex::new(said));
        let rest = logged.clone();
        std::thread::spawn(move || {
            for line in lines {
                let mut logged = rest.lock().unwrap();
                logged.push_str(&line);
                logged.push('\n');
            }
        });
        Self { child, url, logged }
    }

    fn stop(mut self) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
        // The reader has the last line when the other end is closed.
        std::thread::sleep(std::time::Duration::from_millis(200));
        self.logged.lock().unwrap().clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every row of every table, as text.
pub async fn everything_stored(pool: &PgPool) -> String {
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT schemaname::text, tablename::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(tables.len() > 8, "{tables:?}");
    let mut stored = String::new();
    for (schema, table) in tables {
        let rows = format!(r#"SELECT t::text FROM "{schema}"."{table}" t"#);
        let rows: Vec<String> = sqlx::query_scalar(&rows).fetch_all(pool).await.unwrap();
        stored.push_str(&rows.join("\n"));
    }
    stored
}

/// Asks with this token, and keeps what is answered, headers included.
struct Caller<'a> {
    program: &'a Program,
    answers: &'a Mutex<String>,
    http: reqwest::Client,
}

impl Caller<'_> {
    async fn post(&self, authorization: &str, body: impl Into<reqwest::Body>) -> Value {
        let request = self.http.post(format!("{}/graphql", self.program.url)).body(body);
        let request = request.header("content-type", "application/json").header("authorization", authorization);
        let response = request.send().await.unwrap();
        let headers = format!("{:?}", response.headers());
        let text = response.text().await.unwrap();
        let mut answers = self.answers.lock().unwrap();
        answers.push_str(&headers);
        answers.push_str(&text);
        answers.push('\n');
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Opens a WebSocket of the feed with this token.
    async fn websocket(&self, token: &str) {
        use futures_util::{SinkExt, StreamExt};
        use tokio_tungstenite::tungstenite::Message;
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let url = format!("{}/graphql/ws", self.program.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let init = json!({"type": "connection_init", "payload": {"Authorization": format!("Bearer {token}")}});
        socket.send(Message::text(init.to_string())).await.unwrap();
        let acknowledged = socket.next().await.unwrap().unwrap();
        assert!(acknowledged.to_text().unwrap().contains("connection_ack"), "{acknowledged}");
    }

    async fn ask(&self, token: &str, query: &str, variables: Value) -> Value {
        self.post(&format!("Bearer {token}"), json!({"query": query, "variables": variables}).to_string()).await
    }

    /// An answer that shows a secret as it should, and so is not kept.
    async fn invite(&self, token: &str, organization: &str, email: &str, key: &str) -> String {
        let query = "mutation($i: InviteMemberInput!) { inviteMember(input: $i) { token errors { message } } }";
        let input = json!({"organizationId": organization, "email": email, "roles": ["member"], "idempotencyKey": key});
        let body = json!({"query": query, "variables": {"i": input}});
        let request = self.http.post(format!("{}/graphql", self.program.url)).bearer_auth(token).json(&body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["data"]["inviteMember"]["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// The same for a webhook endpoint: its id, and the secret.
    async fn webhook(&self, token: &str, mutation: &str, of: &str, input: Value) -> (String, String) {
        let query = format!("mutation($i: {of}!) {{ {mutation}(input: $i) {{ endpoint {{ id }} secret }} }}");
        let body = json!({"query": query, "variables": {"i": input}});
        let request = self.http.post(format!("{}/graphql", self.program.url)).bearer_auth(token).json(&body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let text = |name: &str| answer["data"][mutation].pointer(name).and_then(Value::as_str).map(str::to_owned);
        let secret = text("/secret").unwrap_or_else(|| panic!("{answer}"));
        (text("/endpoint/id").unwrap(), secret.trim_start_matches("whsec_").to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_log_no_answer_no_event_and_no_table() {
    let database = Database::new().await;
    let master_key = STANDARD.encode([0x5a_u8; 32]);
    let mut variables = database.variables(&[
        ("TENANCY_SECRETS__MASTER_KEY", master_key.as_str()),
        ("TENANCY_LOG", "trace"),
        ("TENANCY_WEBHOOKS__SEND", "true"),
        ("TENANCY_WEBHOOKS__HTTP_ALLOWED", "true"),
        ("TENANCY_WEBHOOKS__ADDRESSES_ALLOWED", "127.0.0.1"),
        ("RUST_BACKTRACE", "1"),
    ]);
    let url = if database.url.contains("password=") || database.url.matches('@').count() != 1 {
        database.url.clone()
    } else {
        let (before, after) = database.url.split_once('@').unwrap();
        let user = before.trim_start_matches("postgres://").split(':').next().unwrap();
        // A server that asks for a password has its own; ours asks for none.
        if before.matches(':').count() > 1 {
            database.url.clone()
        } else {
            format!("postgres://{user}:{PASSWORD}@{after}")
        }
    };
    variables.insert("DATABASE_URL".to_owned(), url);
    let data_dir = std::path::PathBuf::from(&variables["TENANCY_DATA_DIR"]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
        command.args(arguments).envs(&variables).stdin(Stdio::null());
        command
    };
    let program = Program::start(&mut run(&["serve"]));
    let mint = |arguments: &[&str]| {
        let output = run(&[&["token", "--email"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (ada, bob) = (mint(&["ada@example.com"]), mint(&["bob@example.com"]));
    let operator = mint(&["ops@example.com", "--operator"]);
    let answers = Mutex::new(String::new());
    let caller = Caller { program: &program, answers: &answers, http: reqwest::Client::new() };

    // A token in the first message of a WebSocket.
    caller.websocket(&ada).await;

    // What works.
    let create = "mutation { createOrganization(input: {name: \"Acme\", slug: \"acme\"}) { organization { id } } }";
    let created = caller.ask(&ada, create, json!({})).await;
    let acme = created["data"]["createOrganization"]["organization"]["id"].as_str().unwrap().to_owned();
    let submit =
        "mutation($o: ID!) { submitOrganizationForVerification(input: {organizationId: $o}) { errors { message } } }";
    caller.ask(&ada, submit, json!({"o": acme})).await;
    let verify =
        "mutation($o: ID!) { verifyOrganization(input: {organizationId: $o, reason: \"ok\"}) { errors { message } } }";
    caller.ask(&operator, verify, json!({"o": acme})).await;
    let receiver = Receiver::start().await;
    let (endpoint, signing) = caller
        .webhook(
            &ada,
            "createWebhookEndpoint",
            "CreateWebhookEndpointInput",
            json!({
                "organizationId": acme, "url": receiver.url("hook"), "events": ["*"],
            }),
        )
        .await;
    let input = json!({"endpointId": endpoint});
    let (_, rotated) = caller.webhook(&ada, "rotateWebhookSecret", "WebhookEndpointCommandInput", input).await;
    let invitation = caller.invite(&ada, &acme, "bob@example.com", "key-1").await;
    let other = caller.invite(&ada, &acme, "eve@example.com", "key-2").await;
    // By its length: the secret's own alphabet has `_`.
    let secret = |token: &str| token[token.len() - 43..].to_owned();
    // A repetition is answered without the secret.
    let again = "mutation($i: InviteMemberInput!) { inviteMember(input: $i) { token replayed invitation { id } } }";
    let input =
        json!({"organizationId": acme, "email": "bob@example.com", "roles": ["member"], "idempotencyKey": "key-1"});
    let replayed = caller.ask(&ada, again, json!({"i": input})).await;
    assert_eq!(replayed["data"]["inviteMember"]["replayed"], true, "{replayed}");
    let preview = "query($t: String!) { invitationPreview(token: $t) { organizationName } }";
    caller.ask(&bob, preview, json!({"t": invitation})).await;
    let accept =
        "mutation($t: String!) { acceptInvitation(input: {token: $t}) { membership { id } errors { message } } }";
    // For somebody else; twice; a token that is wrong at its end.
    caller.ask(&bob, accept, json!({"t": other})).await;
    let accepted = caller.ask(&bob, accept, json!({"t": invitation})).await;
    assert!(accepted["data"]["acceptInvitation"]["membership"]["id"].is_string(), "{accepted}");
    caller.ask(&bob, accept, json!({"t": invitation})).await;
    caller.ask(&bob, accept, json!({"t": format!("{}A", &other[..other.len() - 1])})).await;

    // What fails, with secrets where one sends them by mistake.
    let inline = format!(
        "mutation {{ acceptInvitation(input: {{token: \"{other}\"}}) {{ membership {{ id }} errors {{ message }} }} }}"
    );
    caller.ask(&bob, &inline, json!({})).await;
    caller.ask(&bob, &inline[..inline.len() - 3], json!({})).await;
    caller.ask(&bob, &inline.replace("membership", "nothing"), json!({})).await;
    let broken = format!("{{\"query\": \"{{ viewer {{ user {{ id }} }} }}\", \"variables\": {{\"t\": \"{other}\"");
    caller.post(&format!("Bearer {bob}"), broken).await;
    let typed = "mutation($i: InvitationTokenInput!) { acceptInvitation(input: $i) { errors { message } } }";
    for input in [json!({"token": {"x": other}}), json!({"token": [other]}), json!({other.clone(): 1}), json!(other)] {
        caller.ask(&bob, typed, json!({"i": input})).await;
    }
    caller.post(&format!("Bearer {bob}"), format!("\"{}{}\"", other, " ".repeat(400_000))).await;
    caller.ask(&bob, "query($i: ID!) { node(id: $i) { id } }", json!({"i": other})).await;
    let forged = format!("{}AAAA", &ada[..ada.len() - 4]);
    for authorization in [
        format!("Bearer {forged}"),
        format!("Bearer {ada} {ada}"),
        format!("Basic {ada}"),
        ada.clone(),
        format!("Bearer {ada}{ada}"),
    ] {
        caller.post(&authorization, json!({"query": "{ viewer { user { id } } }"}).to_string()).await;
    }
    let everything = "query($o: ID!) { viewer { user { id email } } organization(by: {id: $o}) {
        auditTrail(last: 100) { nodes { action data } } invitations { nodes { id email state } } accessTrail(last: 50) { nodes { targetId } } } }";
    let read = caller.ask(&ada, everything, json!({"o": acme})).await;
    assert!(read["data"]["organization"]["auditTrail"]["nodes"].as_array().unwrap().len() > 5, "{read}");

    // A database that is cut off, again and again while it is asked.
    let pool = database.pool().await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&pool).await.unwrap();
    for _ in 0..3 {
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid() AND application_name <> ''",
        )
        .bind(&name)
        .execute(&pool)
        .await
        .unwrap();
        caller.ask(&bob, accept, json!({"t": other})).await;
        caller.ask(&ada, everything, json!({"o": acme})).await;
    }
    eventually("it is there again", async || !caller.ask(&ada, everything, json!({"o": acme})).await["data"].is_null())
        .await;
    for path in ["/metrics", "/health/ready", &format!("/nothing?token={other}")] {
        let text = caller.http.get(format!("{}{path}", program.url)).send().await.unwrap().text().await.unwrap();
        answers.lock().unwrap().push_str(&text);
    }

    let pem = std::fs::read_to_string(data_dir.join("issuer.pem")).unwrap();
    let signing_key = pem.lines().find(|line| !line.starts_with('-')).unwrap().to_owned();
    let signature = |token: &str| token.rsplit_once('.').unwrap().1.to_owned();
    let secrets = [
        ("a user's token", signature(&ada)),
        ("another user's token", signature(&bob)),
        ("an operator's token", signature(&operator)),
        ("an accepted invitation's token", secret(&invitation)),
        ("an open invitation's token", secret(&other)),
        ("a webhook's secret", rotated),
        ("a webhook's secret that was replaced", signing),
        ("the issuer's key", signing_key),
        ("the master key", master_key.clone()),
        ("the database's password", PASSWORD.to_owned()),
    ];
    receiver.wait("hook", 2).await;
    let stored = everything_stored(&pool).await;
    let digests: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT m[1] FROM events, regexp_matches(payload::text, '_(?:digest|claim)\\\\?\": ?\\\\?\"([^\"\\\\]+)', 'g') AS m",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(digests.len() >= 5, "{digests:?}");
    let configuration = run(&["config"]).output().unwrap();
    let configuration = String::from_utf8_lossy(&[configuration.stdout, configuration.stderr].concat()).into_owned();
    assert!(configuration.contains("master_key"), "{configuration}");
    let surroundings = tenancy::config::Surroundings { variables: variables.clone(), root: false, home: None };
    let loaded = tenancy::config::load_from(&tenancy::config::Flags::new(None), &surroundings).unwrap();
    let logged = program.stop();
    assert!(logged.contains("TRACE"), "everything is logged");
    let answers = answers.into_inner().unwrap();
    let places = [
        ("the log", logged),
        ("answers", answers.clone()),
        ("tables", stored),
        ("the configuration as it is shown", configuration),
        ("the configuration in memory, as it would be logged", format!("{loaded:?}")),
    ];
    for (what, secret) in &secrets {
        for (place, text) in &places {
            let at = text.find(secret.as_str());
            let shown = at
                .map(|at| text[..at].chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect::<String>());
            assert_eq!(shown, None, "{what} is in {place}");
        }
    }
    for digest in digests {
        assert!(!answers.contains(&digest), "the keyed hash {digest} is in an answer");
    }
}
