//! One PostgreSQL for the run, one database a test, services in this process.
//!
//! With `DATABASE_URL` the databases are made in that server, else in a private one that is started as the service
//! starts its own, and stopped when the process ends. With `KEEP_TEST_DATABASES` beside `DATABASE_URL` they stay there, each
//! with its test's name as the comment, for `scripts/check-kept`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aggregates::ids::{Id, UserId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgPool};
use tenancy::access::issuer::Grant;
use tenancy::config::{Config, Flags, Surroundings, load_from};
use tenancy::database::embedded::{Embedded, Purpose, Settings};
use tenancy::service::Service;

use crate::server_programs::server_programs;

struct Cluster {
    url_base: String,
    options: PgConnectOptions,
    data_dir: Option<PathBuf>,
    _embedded: Option<Embedded>,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(|| {
        let opened = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(open_cluster())
        });
        opened.join().unwrap()
    })
}

async fn open_cluster() -> Cluster {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return Cluster { options: url.parse().unwrap(), url_base: url, data_dir: None, _embedded: None };
    }
    let data_dir = tempfile::Builder::new().prefix("tenancy-tests-").tempdir().unwrap().keep();
    // SAFETY: the handler only stops a process and removes a directory, both of which are allowed at exit.
    #[allow(unsafe_code)]
    unsafe {
        libc::atexit(stop_cluster);
    }
    let bin_dir = Some(server_programs().to_path_buf());
    let settings = Settings { bin_dir, ..Settings::new(&data_dir) };
    let embedded = Embedded::open(&settings, Purpose::Command).await.unwrap();
    let options = embedded.connect_options();
    let socket = options.get_socket().unwrap().display().to_string();
    let url_base = format!("postgres://{}@localhost/tenancy?host={socket}", options.get_username());
    Cluster { url_base, options, data_dir: Some(data_dir), _embedded: Some(embedded) }
}

/// Nobody needs what is in it, so it need not be asked politely.
extern "C" fn stop_cluster() {
    let Some(data_dir) = CLUSTER.get().and_then(|cluster| cluster.data_dir.as_ref()) else { return };
    let pid_file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap_or_default();
    if let Some(pid) = pid_file.lines().next().and_then(|line| line.parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
    }
    let _ = std::fs::remove_dir_all(data_dir);
}

/// A database of its own, and the keys that go with it.
pub struct Database {
    pub url: String,
    name: String,
    test: String,
    data_dir: tempfile::TempDir,
}

impl Database {
    pub async fn new() -> Self {
        Self::from("template0").await
    }

    async fn from(template: &str) -> Self {
        let cluster = cluster();
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let mut connection = cluster.options.connect().await.unwrap();
        // A pool that was closed may be a moment late in letting its last connection go.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(end).bind(template).execute(&mut connection).await.unwrap();
        sqlx::query(&format!("CREATE DATABASE {name} TEMPLATE {template}")).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let (before, query) = cluster.url_base.split_once('?').unwrap_or((&cluster.url_base, ""));
        let server = before.rsplit_once('/').unwrap().0;
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        Self { url: format!("{server}/{name}?{query}"), name, test, data_dir: tempfile::tempdir().unwrap() }
    }

    /// Another one with the same content and the same keys. Nobody may be connected to this one.
    pub async fn copy(&self) -> Self {
        let copy = Self::from(&self.name).await;
        for file in std::fs::read_dir(self.data_dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.data_dir.path().join(file.file_name())).unwrap();
        }
        copy
    }

    /// The environment of a service on this database, with these variables besides.
    pub fn variables(&self, variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        let fixed = [
            ("DATABASE_URL", self.url.as_str()),
            ("TENANCY_LISTEN", "127.0.0.1:0"),
            ("TENANCY_ACCESS__BUILTIN_ISSUER", "true"),
            ("TENANCY_DATABASE__CONNECTIONS_MAX", "12"),
            ("TENANCY_DATABASE__PARTITIONS", "4"),
            // Tests call faster than people; those of the quotas switch them on.
            ("TENANCY_RATE_LIMITS__ENABLED", "false"),
            // Nothing leaves this machine; those of webhooks have a receiver on it.
            ("TENANCY_WEBHOOKS__SEND", "false"),
        ];
        let mut all: BTreeMap<String, String> =
            fixed.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.insert("TENANCY_DATA_DIR".to_owned(), self.data_dir.path().display().to_string());
        all
    }

    /// A configuration for a service on this database, with these environment variables besides.
    pub fn config(&self, variables: &[(&str, &str)]) -> Config {
        let surroundings = Surroundings { variables: self.variables(variables), root: false, home: None };
        load_from(&Flags::new(None), &surroundings).unwrap().config
    }

    pub async fn serve(&self) -> Server {
        self.serve_with(&[]).await
    }

    pub async fn serve_with(&self, variables: &[(&str, &str)]) -> Server {
        Server::start(&self.config(variables)).await
    }

    /// A token of the built-in issuer for the same user, whose address is another one meanwhile.
    pub fn renamed(&self, token: &str, email: &str) -> String {
        let payload = token.split('.').nth(1).unwrap();
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        claims["email"] = json!(email);
        let key = std::fs::read(self.data_dir.path().join("issuer.pem")).unwrap();
        let key = jsonwebtoken::EncodingKey::from_ed_pem(&key).unwrap();
        jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA), &claims, &key).unwrap()
    }

    pub async fn pool(&self) -> PgPool {
        let options: PgConnectOptions = self.url.parse().unwrap();
        let options = options.options([("search_path", projections::search_path())]);
        sqlx::postgres::PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
    }
}

/// How long a database that is kept may take to come to rest.
const REST_WITHIN: Duration = Duration::from_secs(15);
/// How long nothing may happen in it before that is believed.
const QUIET: Duration = Duration::from_millis(800);

impl Database {
    /// Lets a service show in the read models what the test left last, and names the test. Where no service starts, the
    /// test has seen to that, and the database stays as it is.
    fn keep(&self) {
        let (config, options) = (self.config(&[]), cluster().options.clone());
        let named = format!("COMMENT ON DATABASE {} IS '{}'", self.name, self.test);
        let (name, url) = (self.name.clone(), self.url.clone());
        let kept = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                if let Ok(service) = Service::start(&config).await {
                    wait_until_at_rest(&url).await;
                    let _ = service.stop().await;
                }
                sqlx::query(&named).execute(&mut options.connect().await.unwrap()).await.unwrap();
            });
        });
        if kept.join().is_err() {
            eprintln!("the database {name} could not be kept");
        }
    }
}

/// Waits until read models show everything and nothing more is appended: what follows an erasure comes a moment later.
async fn wait_until_at_rest(url: &str) {
    let mut connection = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    let stand = r#"SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM checkpoints c WHERE NOT shadow AND "offset" <
                   COALESCE((SELECT max("offset") FROM events e WHERE e.partition = c.partition), 0))"#;
    let (began, mut since, mut before) = (Instant::now(), Instant::now(), 0);
    while began.elapsed() < REST_WITHIN && since.elapsed() < QUIET {
        let (events, behind): (i64, i64) = sqlx::query_as(stand).fetch_one(&mut connection).await.unwrap_or_default();
        if behind > 0 || events != before {
            (since, before) = (Instant::now(), events);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::env::var_os("KEEP_TEST_DATABASES").is_some() && cluster().data_dir.is_none() {
            return self.keep();
        }
        let (options, name) = (cluster().options.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut connection = options.connect().await.map_err(std::io::Error::other)?;
                let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::query(&statement).execute(&mut connection).await.map_err(std::io::Error::other)
            })
        });
        let _ = dropped.join();
    }
}

/// A running service.
pub struct Server {
    service: Option<Service>,
    http: reqwest::Client,
}

impl Server {
    pub async fn start(config: &Config) -> Self {
        Self { service: Some(Service::start(config).await.unwrap()), http: reqwest::Client::new() }
    }

    pub fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.service().address)
    }

    pub async fn stop(mut self) {
        self.service.take().unwrap().stop().await.unwrap();
    }

    pub fn token(&self, email: &str, operator: bool) -> String {
        let grant = Grant { email: email.to_owned(), name: None, operator, ttl: TimeDelta::hours(1) };
        self.service().issuer.as_ref().unwrap().mint(&grant).unwrap()
    }

    /// A client with a token for this address.
    pub fn user(&self, email: &str) -> Client {
        Client { url: self.url("/graphql"), token: Some(self.token(email, false)), http: self.http.clone() }
    }

    pub fn operator(&self) -> Client {
        Client {
            url: self.url("/graphql"),
            token: Some(self.token("operator@example.com", true)),
            http: self.http.clone(),
        }
    }

    /// A client with this bearer token.
    pub fn bearer(&self, secret: &str) -> Client {
        Client { token: Some(secret.to_owned()), ..self.nobody() }
    }

    pub fn nobody(&self) -> Client {
        Client { url: self.url("/graphql"), token: None, http: self.http.clone() }
    }

    /// An organization with an owner, in any state of verification.
    pub async fn organization(&self, slug: &str, owner: &Client) -> String {
        let input = json!({"name": slug, "slug": slug});
        let created = owner.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await;
        created.text("/organization/id")
    }

    /// An organization that was submitted and verified.
    pub async fn verified(&self, slug: &str, owner: &Client) -> String {
        let id = self.organization(slug, owner).await;
        owner.organization_command("submitOrganizationForVerification", &id).await;
        self.operator().review("verifyOrganization", &id).await;
        id
    }
}

/// Somebody who calls.
#[derive(Clone)]
pub struct Client {
    pub url: String,
    pub token: Option<String>,
    pub http: reqwest::Client,
}

/// What a mutation or a query answered.
#[derive(Debug, Clone)]
pub struct Answer(pub Value);

impl Answer {
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    pub fn text(&self, pointer: &str) -> String {
        self.at(pointer).as_str().unwrap_or_else(|| panic!("no text at {pointer}: {}", self.0)).to_owned()
    }

    /// The code of the first refusal.
    pub fn refusal(&self) -> Option<&str> {
        self.at("/errors/0/code").as_str()
    }

    /// The code of the first fault.
    pub fn fault(&self) -> Option<&str> {
        self.at("/faults/0/extensions/code").as_str()
    }

    pub fn accepted(&self) -> bool {
        self.refusal().is_none() && self.fault().is_none()
    }

    pub fn actions(&self) -> Vec<&str> {
        self.at("/events").as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect()
    }
}

impl Client {
    /// Sends a request and gives the whole response.
    pub async fn send(&self, query: &str, variables: Value) -> Value {
        let mut request = self.http.post(&self.url).json(&json!({"query": query, "variables": variables}));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        assert_ne!(status.as_u16(), 500, "{query}");
        response.json().await.unwrap()
    }

    /// A query, which has to succeed.
    pub async fn query(&self, query: &str, variables: Value) -> Answer {
        let response = self.send(query, variables).await;
        assert_eq!(response.get("errors"), None, "{query}: {response}");
        Answer(response["data"].clone())
    }

    /// The code of the fault that a query answers with.
    pub async fn fault(&self, query: &str, variables: Value) -> String {
        let response = self.send(query, variables).await;
        response["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no fault: {response}"))
            .to_owned()
    }

    /// A mutation; faults stand under `faults`.
    pub async fn run(&self, mutation: &str, input_type: &str, input: Value, select: &str) -> Answer {
        let query = format!(
            "mutation($input: {input_type}!) {{ {mutation}(input: $input) {{ {select} position replayed
             events {{ id action organizationId auditSequence data actor {{ __typename id }} }}
             errors {{ __typename code message path
                 ... on LimitReachedError {{ limit maximum used requested }}
                 ... on EntityStatusError {{ verification lifecycle capability remedy }}
                 ... on AlreadyExistsError {{ existingId }}
                 ... on VersionConflictError {{ expected actual }} }} }} }}"
        );
        let response = self.send(&query, json!({"input": input})).await;
        let mut answer = response["data"][mutation].clone();
        if let Some(faults) = response.get("errors") {
            answer = json!({"faults": faults});
        }
        Answer(answer)
    }

    pub async fn organization_command(&self, mutation: &str, id: &str) -> Answer {
        self.run(mutation, "OrganizationCommandInput", json!({"organizationId": id}), "__typename").await
    }

    pub async fn review(&self, mutation: &str, id: &str) -> Answer {
        let input = json!({"organizationId": id, "reason": "a test"});
        self.run(mutation, "OrganizationReviewInput", input, "organization { verification lifecycle }").await
    }

    pub async fn set_limit(&self, id: &str, limit: &str, maximum: u64) -> Answer {
        let input = json!({"organizationId": id, "limit": limit, "value": {"maximum": maximum}, "reason": "a test"});
        let answer = self.run("setOrganizationLimit", "SetOrganizationLimitInput", input, "organization { id }").await;
        assert!(answer.accepted(), "{answer:?}");
        answer
    }

    pub async fn invite(&self, id: &str, email: &str, roles: &[&str]) -> Answer {
        let input = json!({"organizationId": id, "email": email, "roles": roles});
        self.run("inviteMember", "InviteMemberInput", input, "invitation { id state version } token").await
    }

    pub async fn accept(&self, token: &str) -> Answer {
        let select = "invitation { id state } membership { id state roles }";
        self.run("acceptInvitation", "InvitationTokenInput", json!({"token": token}), select).await
    }

    pub async fn member(&self, mutation: &str, membership: &str) -> Answer {
        let input = json!({"membershipId": membership});
        self.run(mutation, "MembershipCommandInput", input, "membership { id state roles }").await
    }

    pub async fn change_roles(&self, membership: &str, roles: &[&str]) -> Answer {
        let input = json!({"membershipId": membership, "roles": roles});
        self.run("changeMemberRoles", "ChangeMemberRolesInput", input, "membership { id state roles }").await
    }

    pub async fn create_project(&self, id: &str, slug: &str) -> Answer {
        let input = json!({"organizationId": id, "name": slug, "slug": slug});
        self.run("createProject", "CreateProjectInput", input, "project { id slug version }").await
    }

    pub async fn create_token(&self, id: &str, permissions: &[&str]) -> Answer {
        let input = json!({"organizationId": id, "name": "deploy", "permissions": permissions});
        self.run("createApiToken", "CreateApiTokenInput", input, "token { id name hint permissions version } secret")
            .await
    }

    pub async fn revoke_token(&self, token: &str) -> Answer {
        let input = json!({"tokenId": token});
        self.run("revokeApiToken", "ApiTokenCommandInput", input, "token { id revokedAt }").await
    }

    pub async fn create_webhook(&self, id: &str, url: &str) -> Answer {
        let input = json!({"organizationId": id, "url": url, "events": ["*"]});
        self.run("createWebhookEndpoint", "CreateWebhookEndpointInput", input, "endpoint { id version } secret").await
    }

    pub async fn user_id(&self) -> String {
        self.query("{ viewer { user { id } } }", json!({})).await.text("/viewer/user/id")
    }

    /// Invites `who` and lets them accept; gives the membership.
    pub async fn bring_in(&self, id: &str, who: &Client, email: &str, roles: &[&str]) -> String {
        let invited = self.invite(id, email, roles).await;
        assert!(invited.accepted(), "{invited:?}");
        let accepted = who.accept(&invited.text("/token")).await;
        assert!(accepted.accepted(), "{accepted:?}");
        accepted.text("/membership/id")
    }

    /// How much of a limit an organization uses, by what commands are held against.
    pub async fn used(&self, id: &str, limit: &str) -> i64 {
        let query = "query($id: ID!) { organization(by: {id: $id}) { limits { name used } } }";
        let answer = self.query(query, json!({"id": id})).await;
        let limits = answer.at("/organization/limits").as_array().unwrap().clone();
        limits.iter().find(|entry| entry["name"] == limit).unwrap()["used"].as_i64().unwrap()
    }

    /// The actions in an organization's audit trail, oldest first.
    pub async fn audit(&self, id: &str) -> Vec<String> {
        let query = "query($id: ID!) { organization(by: {id: $id}) { auditTrail(last: 100) { nodes { action } } } }";
        let answer = self.query(query, json!({"id": id})).await;
        let nodes = answer.at("/organization/auditTrail/nodes").as_array().unwrap().clone();
        nodes.iter().map(|node| node["action"].as_str().unwrap().to_owned()).collect()
    }
}

/// What must hold of a database at any time, by statements that share nothing with the program: offsets dense by
/// partition, audit sequences by organization, versions by stream; tallies and claims as the events say.
pub async fn check_log(pool: &PgPool) {
    let dense = [
        r#"SELECT partition::text FROM events GROUP BY partition HAVING count(*) <> max("offset") OR min("offset") <> 1"#,
        "SELECT organization_id FROM events WHERE organization_id IS NOT NULL GROUP BY organization_id
         HAVING count(*) <> max(audit_sequence) OR min(audit_sequence) <> 1",
        "SELECT aggregate_id FROM events GROUP BY aggregate_type, aggregate_id
         HAVING count(*) <> max(sequence) OR min(sequence) <> 1",
        r#"SELECT event_id FROM (SELECT event_id, recorded_at < lag(recorded_at) OVER (PARTITION BY partition ORDER BY "offset") AS back
           FROM events) e WHERE back"#,
    ];
    for statement in dense {
        let wrong: Vec<String> = sqlx::query_scalar(statement).fetch_all(pool).await.unwrap();
        assert_eq!(wrong, Vec::<String>::new(), "{statement}");
    }
    let members = "
        WITH last_state AS (
            SELECT DISTINCT ON (aggregate_id) organization_id, aggregate_type, event_type FROM events
            WHERE aggregate_type IN ('Membership', 'Invitation', 'Project', 'ApiToken', 'WebhookEndpoint')
              AND event_type NOT IN ('Pruned', 'MemberBound', 'MemberRolesChanged', 'InvitationResent', 'ProjectRenamed', 'ProjectSlugChanged',
                                     'ProjectMetadataChanged', 'ProjectArchived', 'ProjectUnarchived')
              AND (event_type NOT LIKE 'Webhook%' OR event_type IN ('WebhookCreated', 'WebhookDeleted'))
            ORDER BY aggregate_id, sequence DESC
        ), counted AS (
            SELECT organization_id, 'members' AS name,
                   count(*) FILTER (WHERE event_type IN ('MemberJoined', 'MemberReinstated', 'MemberInvited')) AS used
            FROM last_state WHERE aggregate_type IN ('Membership', 'Invitation') GROUP BY 1
            UNION ALL
            SELECT organization_id, 'projects', count(*) FILTER (WHERE event_type IN ('ProjectCreated', 'ProjectRestored'))
            FROM last_state WHERE aggregate_type = 'Project' GROUP BY 1
            UNION ALL
            SELECT organization_id, 'tokens', count(*) FILTER (WHERE event_type = 'TokenCreated')
            FROM last_state WHERE aggregate_type = 'ApiToken' GROUP BY 1
            UNION ALL
            SELECT organization_id, 'webhooks', count(*) FILTER (WHERE event_type = 'WebhookCreated')
            FROM last_state WHERE aggregate_type = 'WebhookEndpoint' GROUP BY 1
        )
        SELECT format('%s %s: %s, counted %s', c.organization_id, c.name, t.used, c.used)
        FROM counted c LEFT JOIN tallies t USING (organization_id, name) WHERE t.used IS DISTINCT FROM c.used";
    let wrong: Vec<String> = sqlx::query_scalar(members).fetch_all(pool).await.unwrap();
    assert_eq!(wrong, Vec::<String>::new());
}

/// Changes the log as only its owner can.
pub async fn tamper(pool: &PgPool, statement: &str) {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::raw_sql("ALTER TABLE events DISABLE TRIGGER USER").execute(&mut *transaction).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut *transaction).await.unwrap();
    sqlx::raw_sql("ALTER TABLE events ENABLE TRIGGER USER").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

/// Waits until `condition` holds, for at most ten seconds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An id of a user that is nobody.
pub fn nobody_id() -> String {
    UserId::random().to_string()
}
