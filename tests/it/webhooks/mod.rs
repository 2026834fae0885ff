//! Webhooks: pushed, signed, again where they failed, in order where that is asked for, and never where they must not go.

mod alarms;
mod pull;
mod receiver;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tenancy::audit::note::{Checkpoint, VerifierKey, open};
use tokio::time::Instant;

use crate::support::{Answer, Client, Database, Server, eventually};
pub use receiver::{Behaviour, Got, Receiver};

const OPEN: &[(&str, &str)] = &[
    ("TENANCY_WEBHOOKS__SEND", "true"),
    ("TENANCY_WEBHOOKS__HTTP_ALLOWED", "true"),
    ("TENANCY_WEBHOOKS__ADDRESSES_ALLOWED", "127.0.0.0/8"),
    ("TENANCY_WEBHOOKS__RETRY_SECONDS", "1,1,1"),
    ("TENANCY_WEBHOOKS__TIMEOUT_MS", "2000"),
];

const TERMS: tenancy::webhooks::sweep::SweepSettings = tenancy::webhooks::sweep::SweepSettings {
    warn_after: chrono::TimeDelta::hours(12),
    disable_after: chrono::TimeDelta::hours(60),
    retention_days: 30,
};

const DELIVERIES: &str = "query($id: ID!, $state: DeliveryState) { node(id: $id) { ... on WebhookEndpoint {
    state disabledReason deliveries(first: 100, state: $state) { nodes {
        id endpointId state nextAttemptAt event { id action } attempts { at durationMs status error responseExcerpt } } } } } }";

/// A service that may send to this machine, a receiver on it, and an organization with an owner.
struct World {
    database: Database,
    server: Server,
    receiver: Receiver,
    owner: Client,
    organization: String,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(variables: &[(&str, &str)]) -> Self {
        let database = Database::new().await;
        let mut all = OPEN.to_vec();
        all.retain(|(name, _)| !variables.iter().any(|(other, _)| other == name));
        let server = database.serve_with(&[&all[..], variables].concat()).await;
        let owner = server.user("owner@example.com");
        let organization = server.verified("acme", &owner).await;
        Self { database, server, receiver: Receiver::start().await, owner, organization }
    }

    async fn create(&self, input: Value) -> Answer {
        let mut whole = json!({"organizationId": self.organization, "events": ["*"]});
        whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        let select = "endpoint { id url description events ordering content ratePerSecond state version } secret";
        self.owner.run("createWebhookEndpoint", "CreateWebhookEndpointInput", whole, select).await
    }

    /// An endpoint at this path of the receiver; its id and secret.
    async fn endpoint(&self, path: &str, input: Value) -> (String, String) {
        let mut whole = json!({"url": self.receiver.url(path)});
        whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        let created = self.create(whole).await;
        assert!(created.accepted(), "{created:?}");
        (created.text("/endpoint/id"), created.text("/secret"))
    }

    async fn act(&self, mutation: &str, endpoint: &str) -> Answer {
        act(&self.owner, mutation, endpoint).await
    }

    async fn deliveries(&self, endpoint: &str) -> Vec<Value> {
        let answer = self.owner.query(DELIVERIES, json!({"id": endpoint})).await;
        answer.at("/node/deliveries/nodes").as_array().unwrap().clone()
    }

    /// Waits until every delivery of an endpoint has this state, and there are so many.
    async fn settled(&self, endpoint: &str, count: usize, state: &str) -> Vec<Value> {
        eventually(&format!("{count} deliveries {state}"), || async {
            let all = self.deliveries(endpoint).await;
            all.len() == count && all.iter().all(|delivery| delivery["state"] == state)
        })
        .await;
        self.deliveries(endpoint).await
    }

    async fn rename(&self, name: &str) -> Answer {
        let input = json!({"organizationId": self.organization, "name": name});
        self.owner.run("updateOrganization", "UpdateOrganizationInput", input, "organization { name }").await
    }

    async fn projects(&self, names: std::ops::Range<usize>) {
        for number in names {
            let created = self.owner.create_project(&self.organization, &format!("p{number}")).await;
            assert!(created.accepted(), "{created:?}");
        }
    }
}

async fn act(client: &Client, mutation: &str, endpoint: &str) -> Answer {
    let input = json!({"endpointId": endpoint});
    let select = match mutation {
        "sendTestWebhook" => "delivery { id state nextAttemptAt attempts { status } event { id action } }",
        "rotateWebhookSecret" => "endpoint { id version } secret",
        _ => "endpoint { id state disabledReason version }",
    };
    client.run(mutation, "WebhookEndpointCommandInput", input, select).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_as_the_standard_says_and_the_published_library_takes_it() {
    let world = World::new().await;
    let (endpoint, secret) =
        world.endpoint("hook", json!({"events": ["member.*"], "description": " Team chat "})).await;
    let invited = world.owner.invite(&world.organization, "Eve@Example.com", &["member"]).await;
    world.rename("Another name").await;
    let got = world.receiver.wait("hook", 1).await.remove(0);

    assert!(got.verifies(&secret));
    let body = got.json();
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(body["type"], "member.invited");
    assert_eq!(got.id(), body["data"]["id"]);
    assert_eq!(body["data"]["id"], invited.text("/events/0/id"));
    assert_eq!(body["data"]["organizationId"], world.organization);
    assert_eq!(body["data"]["subjectId"], invited.text("/invitation/id"));
    assert_eq!(body["data"]["fields"]["email"], "Eve@Example.com");
    assert_eq!(body["data"]["actor"], json!({"type": "user", "id": world.owner.user_id().await}));
    assert_eq!(body["data"]["position"], invited.text("/position"));
    assert!(!body.to_string().contains("127.0.0.1"), "where a caller came from is not told: {body}");
    assert!(body["data"]["fields"].get("emailClaim").is_none(), "no keyed hash is told: {body}");

    // One byte, one other secret, or six minutes.
    let mut changed = got.clone();
    changed.body = got.body.iter().map(|byte| if *byte == b'E' { b'F' } else { *byte }).collect();
    assert!(!changed.verifies(&secret));
    let (_, other) = world.endpoint("other", json!({})).await;
    assert!(!got.verifies(&other));
    let mut late = got.clone();
    let then = got.header("webhook-timestamp").parse::<i64>().unwrap() - 360;
    late.headers.insert("webhook-timestamp", then.to_string().parse().unwrap());
    assert!(!late.verifies(&secret));

    let delivery = world.settled(&endpoint, 1, "SUCCEEDED").await.remove(0);
    assert_eq!((&delivery["event"]["action"], &delivery["nextAttemptAt"]), (&json!("member.invited"), &Value::Null));
    assert_eq!(delivery["attempts"][0]["status"], 200);
    assert_eq!(world.receiver.kinds("hook"), ["member.invited"], "only what was asked for");
}

/// So that a receiver can tell whether the history that it was told of was changed afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_the_audit_trail_goes_out_with_each_message() {
    let world = World::new().await;
    world.endpoint("hook", json!({"content": "THIN"})).await;
    let signers = tenancy::service::audit_signers(&world.database.config(&[])).unwrap();
    let keys: Vec<VerifierKey> = signers.iter().map(|signer| signer.verifier().to_string().parse().unwrap()).collect();
    let checkpoint = |got: &Got| {
        let note = String::from_utf8(STANDARD.decode(got.header("tenancy-checkpoint")).unwrap()).unwrap();
        open(&note, &keys).unwrap().parse::<Checkpoint>().unwrap()
    };
    let sealed = async || {
        let query = "query($o: ID!) { auditCheckpoint(organizationId: $o) { treeSize } }";
        let answer = world.owner.send(query, json!({"o": world.organization})).await;
        answer["data"]["auditCheckpoint"]["treeSize"].as_u64().unwrap_or_default()
    };
    eventually("something is sealed", async || sealed().await > 0).await;
    for number in 1..=2 {
        let newest = sealed().await;
        let told = world.receiver.kinds("hook").len();
        world.rename(&format!("Name {number}")).await;
        let got = world.receiver.wait("hook", told + 1).await.pop().unwrap();
        let sequence = got.json()["data"]["auditSequence"].as_u64().unwrap();
        let head = checkpoint(&got);
        assert_eq!(head.origin, format!("tenancy.local/audit/{}", world.organization));
        assert!(head.size >= newest, "the newest one there is: {} of {newest}", head.size);
        eventually("the event is sealed", async || sealed().await >= sequence).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_lies_nowhere_readable() {
    let world = World::new().await;
    let input = json!({"url": world.receiver.url("hook"), "idempotencyKey": "once"});
    let created = world.create(input.clone()).await;
    let secret = created.text("/secret");
    assert!(secret.starts_with("whsec_"), "{secret}");
    let again = world.create(input).await;
    assert_eq!((again.at("/replayed"), again.at("/secret")), (&json!(true), &Value::Null));
    assert_eq!(again.at("/endpoint/id"), created.at("/endpoint/id"));
    let bare = secret.trim_start_matches("whsec_");
    let pool = world.database.pool().await;
    for table in ["events", "subject_keys", "webhook_endpoints", "outcomes", "snapshots"] {
        let held: bool =
            sqlx::query_scalar(&format!("SELECT EXISTS (SELECT FROM {table} t WHERE t::text LIKE '%' || $1 || '%')"))
                .bind(bare)
                .fetch_one(&pool)
                .await
                .unwrap();
        assert!(!held, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_both_secrets_sign_for_a_day() {
    let world = World::new().await;
    let (endpoint, first) = world.endpoint("hook", json!({"events": ["org.*"]})).await;
    let rotated = world.act("rotateWebhookSecret", &endpoint).await;
    let second = rotated.text("/secret");
    assert_ne!(first, second);
    world.rename("Both").await;
    let got = world.receiver.wait("hook", 1).await.remove(0);
    assert_eq!(got.header("webhook-signature").split(' ').count(), 2);
    assert!(got.verifies(&first) && got.verifies(&second));

    // A day later only the new one does, and the old one is destroyed.
    let pool = world.database.pool().await;
    let statement = "UPDATE webhook_endpoints SET secrets = json_build_array(secrets -> 0, json_build_object(
        'number', 1, 'until', now() - interval '1 second'))";
    sqlx::query(statement).execute(&pool).await.unwrap();
    world.rename("One").await;
    let got = world.receiver.wait("hook", 2).await.remove(1);
    assert!(!got.verifies(&first) && got.verifies(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn thin_content_names_things_and_tells_nothing() {
    let world = World::new().await;
    world.endpoint("thin", json!({"content": "THIN", "events": ["member.invited"]})).await;
    world.owner.invite(&world.organization, "eve@example.com", &["member"]).await;
    let body = world.receiver.wait("thin", 1).await.remove(0).json();
    let keys: Vec<&String> = body["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["auditSequence", "id", "organizationId", "position", "sequence", "subjectId"]);
    assert!(!body.to_string().contains("eve@"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_sent_again_as_the_same_message() {
    let world = World::new().await;
    let (endpoint, secret) = world.endpoint("hook", json!({"events": ["org.renamed"]})).await;
    world.receiver.behave("hook", Behaviour::Status(500));
    world.rename("Again").await;
    world.receiver.wait("hook", 2).await;
    world.receiver.behave("hook", Behaviour::Status(204));
    let got = world.receiver.wait("hook", 3).await;
    assert!(got.iter().all(|later| later.id() == got[0].id() && later.body == got[0].body));
    assert!(got.iter().all(|got| got.verifies(&secret)));
    let timestamps: Vec<i64> = got.iter().map(|got| got.header("webhook-timestamp").parse().unwrap()).collect();
    assert!(timestamps.is_sorted() && timestamps[0] < timestamps[2], "of each attempt: {timestamps:?}");
    let delivery = world.settled(&endpoint, 1, "SUCCEEDED").await.remove(0);
    let statuses: Vec<&Value> =
        delivery["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["status"]).collect();
    assert_eq!(statuses, [&json!(500), &json!(500), &json!(204)]);
    assert!(delivery["attempts"][0]["error"].as_str().unwrap().contains("500"), "{delivery}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_too_often_has_failed_and_can_be_driven_again() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.created"]})).await;
    let before = world.rename("Before").await.text("/position");
    // As a value: ids may hold these letters too.
    world.receiver.behave("hook", Behaviour::Refuse(r#""p1""#.into()));
    world.projects(0..3).await;
    eventually("one has failed", || async {
        world.deliveries(&endpoint).await.iter().any(|delivery| delivery["state"] == "FAILED")
    })
    .await;
    let failed = world.owner.query(DELIVERIES, json!({"id": endpoint, "state": "FAILED"})).await;
    let failed = failed.at("/node/deliveries/nodes").as_array().unwrap().clone();
    assert_eq!((failed.len(), failed[0]["attempts"].as_array().unwrap().len()), (1, 4));

    world.receiver.behave("hook", Behaviour::Status(200));
    let input = json!({"endpointId": endpoint, "after": before});
    let driven = world.owner.run("redriveWebhooks", "ReplayWebhooksInput", input.clone(), "scheduled").await;
    assert_eq!((driven.at("/scheduled"), driven.actions()), (&json!(1), vec!["webhook.replayed"]));
    world.settled(&endpoint, 3, "SUCCEEDED").await;
    let count = world.receiver.at("hook").len();
    let driven = world.owner.run("redriveWebhooks", "ReplayWebhooksInput", input.clone(), "scheduled").await;
    assert_eq!(driven.at("/scheduled"), &json!(0));

    let replayed = world.owner.run("replayWebhooks", "ReplayWebhooksInput", input, "scheduled").await;
    assert_eq!(replayed.at("/scheduled"), &json!(3));
    let got = world.receiver.wait("hook", count + 3).await;
    let mut ids: Vec<&str> = got[count..].iter().map(Got::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each once more, by the id that it had");

    let delivery = world.settled(&endpoint, 3, "SUCCEEDED").await.remove(0);
    let input = json!({"deliveryId": delivery["id"]});
    let select = "delivery { id state attempts { status } event { id } }";
    let again = world.owner.run("redeliverWebhook", "RedeliverWebhookInput", input, select).await;
    assert_eq!((again.at("/delivery/id"), again.at("/delivery/state")), (&delivery["id"], &json!("PENDING")));
    let got = world.receiver.wait("hook", count + 4).await;
    assert_eq!(got[count + 3].id(), delivery["event"]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_goes_the_way_of_everything_and_to_one_endpoint_only() {
    let world = World::new().await;
    let (endpoint, secret) = world.endpoint("hook", json!({"events": ["member.invited"]})).await;
    world.endpoint("other", json!({})).await;
    let sent = world.act("sendTestWebhook", &endpoint).await;
    assert_eq!(
        (sent.at("/delivery/state"), sent.at("/delivery/event/action")),
        (&json!("PENDING"), &json!("webhook.tested"))
    );
    let got = world.receiver.wait("hook", 1).await.remove(0);
    assert!(got.verifies(&secret) && got.kind() == "webhook.tested");
    let shown = world.settled(&endpoint, 1, "SUCCEEDED").await.remove(0);
    assert_eq!(&shown["id"], sent.at("/delivery/id"));
    let node = "query($id: ID!) { node(id: $id) { ... on WebhookDelivery { state event { action } } } }";
    let node = world.owner.query(node, json!({"id": shown["id"]})).await;
    assert_eq!(node.at("/node"), &json!({"state": "SUCCEEDED", "event": {"action": "webhook.tested"}}));
    assert!(!world.receiver.kinds("other").contains(&"webhook.tested".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_events_sent_without_reading_the_audit_trail() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.*"]})).await;
    let permissions = ["organization:read", "webhook:read", "webhook:manage"];
    let blind = world.owner.create_token(&world.organization, &permissions).await.text("/secret");
    let blind = Client { token: Some(blind), ..world.owner.clone() };
    // Disabling stops a leak; enabling would send what was missed.
    assert!(act(&blind, "disableWebhookEndpoint", &endpoint).await.accepted());
    assert_eq!(act(&blind, "enableWebhookEndpoint", &endpoint).await.fault(), Some("FORBIDDEN"));
    assert!(world.act("enableWebhookEndpoint", &endpoint).await.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_disabled_at_once_and_goes_on_where_it_stopped() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.*"], "ordering": "PER_SUBJECT"})).await;
    world.endpoint("watch", json!({"events": ["webhook.*"]})).await;
    world.projects(0..1).await;
    world.receiver.wait("hook", 1).await;
    world.receiver.behave("hook", Behaviour::Status(410));
    world.projects(1..2).await;
    let watch = world.receiver.wait("watch", 1).await.remove(0).json();
    assert_eq!((&watch["type"], &watch["data"]["fields"]["automatic"]), (&json!("webhook.disabled"), &json!(true)));
    assert_eq!(watch["data"]["actor"]["type"], "system");
    let answer = world.owner.query(DELIVERIES, json!({"id": endpoint})).await;
    assert_eq!(answer.at("/node/state"), &json!("DISABLED"));
    assert!(answer.text("/node/disabledReason").contains("410"));
    // What failed waits for the endpoint, and for no time.
    let waits = "query($id: ID!) { node(id: $id) { ... on WebhookEndpoint {
        deliveries(state: RETRYING) { nodes { state nextAttemptAt } } } } }";
    eventually("the failed delivery is shown", || async {
        let answer = world.owner.query(waits, json!({"id": endpoint})).await;
        *answer.at("/node/deliveries/nodes") == json!([{"state": "RETRYING", "nextAttemptAt": null}])
    })
    .await;
    assert_eq!(world.act("sendTestWebhook", &endpoint).await.refusal(), Some("INVALID_STATE"));

    // What happens meanwhile is not lost, nor sent.
    world.projects(2..7).await;
    let sent = world.receiver.at("hook").len();
    world.receiver.behave("hook", Behaviour::Status(200));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(world.receiver.at("hook").len(), sent);
    let enabled = world.act("enableWebhookEndpoint", &endpoint).await;
    assert_eq!(enabled.at("/endpoint/state"), &json!("ENABLED"));
    world.projects(7..9).await;
    world.settled(&endpoint, 9, "SUCCEEDED").await;
    let mut arrived: Vec<u64> =
        world.receiver.at("hook").iter().map(|got| got.json()["data"]["auditSequence"].as_u64().unwrap()).collect();
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived.len(), 9);
    assert_eq!(
        world.owner.audit(&world.organization).await.iter().filter(|action| *action == "webhook.disabled").count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_subject_events_arrive_in_order_and_a_failing_one_holds_back_only_itself() {
    let world = World::with(&[("TENANCY_WEBHOOKS__RETRY_SECONDS", "1,1,1,1,1,1,1,1")]).await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.*"], "ordering": "PER_SUBJECT"})).await;
    let mut projects = vec![];
    for number in 0..4 {
        let created = world.owner.create_project(&world.organization, &format!("p{number}")).await;
        projects.push(created.text("/project/id"));
    }
    world.receiver.wait("hook", 4).await;
    world.receiver.behave("hook", Behaviour::Refuse(projects[0].clone()));
    for round in 0..8 {
        for project in &projects {
            let input = json!({"projectId": project, "name": format!("Round {round}")});
            let changed = world.owner.run("updateProject", "UpdateProjectInput", input, "project { name }").await;
            assert!(changed.accepted(), "{changed:?}");
        }
    }
    let of = |project: &str| -> Vec<u64> {
        let all = world.receiver.at("hook").into_iter().map(|got| got.json());
        all.filter(|body| body["data"]["subjectId"] == project)
            .map(|body| body["data"]["sequence"].as_u64().unwrap())
            .collect()
    };
    eventually("the others are through", || async { projects[1..].iter().all(|project| of(project).len() == 9) }).await;
    for project in &projects[1..] {
        assert_eq!(of(project), (1..=9).collect::<Vec<u64>>());
    }
    let held = of(&projects[0]);
    assert!(held[1..].iter().all(|sequence| *sequence == 2), "the failing one keeps back the rest: {held:?}");
    world.receiver.behave("hook", Behaviour::Status(200));
    world.settled(&endpoint, 36, "SUCCEEDED").await;
    let mut whole = of(&projects[0]);
    whole.dedup();
    assert_eq!(whole, (1..=9).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_failures_and_answers_are_read_to_a_small_limit() {
    let world = World::with(&[("TENANCY_WEBHOOKS__RETRY_SECONDS", "60")]).await;
    for (path, behaviour) in [
        ("redirect", Behaviour::Redirect("/elsewhere")),
        ("flood", Behaviour::Flood),
        ("drip", Behaviour::Drip(Duration::from_secs(30))),
        ("hang", Behaviour::Hang(Duration::from_secs(30))),
    ] {
        world.receiver.behave(path, behaviour);
    }
    let mut endpoints = vec![];
    for path in ["redirect", "flood", "drip", "hang"] {
        endpoints.push(world.endpoint(path, json!({"events": ["org.renamed"]})).await.0);
    }
    let started = Instant::now();
    world.rename("Everywhere").await;
    let redirect = world.settled(&endpoints[0], 1, "RETRYING").await.remove(0);
    assert!(redirect["attempts"][0]["error"].as_str().unwrap().contains("redirects are not followed"), "{redirect}");
    assert_eq!(redirect["attempts"][0]["status"], 302);
    let flood = world.settled(&endpoints[1], 1, "SUCCEEDED").await.remove(0);
    assert_eq!(flood["attempts"][0]["responseExcerpt"].as_str().unwrap().len(), 500);
    let drip = world.settled(&endpoints[2], 1, "SUCCEEDED").await.remove(0);
    assert!(drip["attempts"][0]["responseExcerpt"].as_str().unwrap().len() < 20, "{drip}");
    let hang = world.settled(&endpoints[3], 1, "RETRYING").await.remove(0);
    assert!(hang["attempts"][0]["error"].as_str().unwrap().contains("no answer within 2000 ms"), "{hang}");
    assert!(started.elapsed() < Duration::from_secs(8));
    assert!(world.receiver.at("elsewhere").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_delays_no_other() {
    let world = World::with(&[("TENANCY_WEBHOOKS__TIMEOUT_MS", "5000")]).await;
    world.receiver.behave("hang", Behaviour::Hang(Duration::from_secs(60)));
    world.endpoint("hang", json!({"events": ["project.created"]})).await;
    world.endpoint("well", json!({"events": ["project.created"]})).await;
    let started = Instant::now();
    world.projects(0..40).await;
    world.receiver.wait("well", 40).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(world.receiver.at("hang").len() <= 16, "no more at once than an endpoint may have");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_for_peace_gets_it() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.created"]})).await;
    world.receiver.behave("hook", Behaviour::Busy("3"));
    world.projects(0..1).await;
    let first = world.receiver.wait("hook", 1).await.remove(0);
    world.receiver.behave("hook", Behaviour::Status(200));
    eventually("it is on record", || async { world.deliveries(&endpoint).await[0]["state"] == "RETRYING" }).await;
    world.projects(1..4).await;
    let got = world.receiver.wait("hook", 2).await;
    let waited = got[1].at - first.at;
    assert!(waited >= Duration::from_millis(2_900), "nothing is sent before, not even others: {waited:?}");
    world.settled(&endpoint, 4, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_sent_no_more_a_second_than_it_wants() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.created"], "ratePerSecond": 4})).await;
    world.projects(0..14).await;
    let got = world.receiver.wait("hook", 14).await;
    let took = got[13].at - got[0].at;
    assert!(took >= Duration::from_millis(2_000), "a burst of a second, and then four a second: {took:?}");
    world.settled(&endpoint, 14, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_for_long_is_warned_of_and_then_disabled() {
    let world = World::with(&[("TENANCY_WEBHOOKS__RETRY_SECONDS", &["1"; 50].join(","))]).await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["org.renamed"]})).await;
    world.endpoint("watch", json!({"events": ["webhook.*"]})).await;
    world.receiver.behave("hook", Behaviour::Status(500));
    world.rename("Failing").await;
    world.receiver.wait("hook", 1).await;
    let pool = world.database.pool().await;
    let long_ago = |hours: i32| {
        let pool = pool.clone();
        async move {
            let statement = "UPDATE webhook_receivers SET failing_since = now() - make_interval(hours => $1)";
            eventually("the failure is on record", || async {
                sqlx::query(statement).bind(hours).execute(&pool).await.unwrap().rows_affected() > 0
            })
            .await;
        }
    };
    long_ago(13).await;
    world.receiver.wait("watch", 1).await;
    assert_eq!(world.receiver.kinds("watch"), ["webhook.failing"]);
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(world.receiver.kinds("watch"), ["webhook.failing"], "once");
    long_ago(61).await;
    world.receiver.wait("watch", 2).await;
    assert_eq!(world.receiver.kinds("watch"), ["webhook.failing", "webhook.disabled"]);
    let answer = world.owner.query(DELIVERIES, json!({"id": endpoint})).await;
    assert!(answer.text("/node/disabledReason").contains("every attempt has failed since"), "{answer:?}");
    world.receiver.behave("hook", Behaviour::Status(200));
    world.act("enableWebhookEndpoint", &endpoint).await;
    world.settled(&endpoint, 1, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_addresses_inside() {
    let world = World::with(&[("TENANCY_WEBHOOKS__ADDRESSES_ALLOWED", "")]).await;
    for url in [
        world.receiver.url("hook"),
        world.receiver.url("hook").replace("127.0.0.1", "localhost"),
        world.receiver.url("hook").replace("127.0.0.1", "0x7f.1"),
        world.receiver.url("hook").replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://user:password@example.com/".to_owned(),
        "http://example.com:25/".to_owned(),
        "ftp://example.com/".to_owned(),
    ] {
        let refused = world.create(json!({"url": url})).await;
        assert_eq!(
            (refused.refusal(), refused.at("/errors/0/path")),
            (Some("INVALID_INPUT"), &json!(["input", "url"])),
            "{url}"
        );
    }
    // One that was taken under another configuration.
    let created = world.create(json!({"url": "http://example.com/hook", "events": ["org.renamed"]})).await;
    let endpoint = created.text("/endpoint/id");
    let pool = world.database.pool().await;
    eventually("it is shown", || async {
        let statement = "UPDATE webhook_endpoints SET url = $1";
        sqlx::query(statement).bind(world.receiver.url("hook")).execute(&pool).await.unwrap().rows_affected() == 1
    })
    .await;
    world.rename("Inside").await;
    let delivery = world.settled(&endpoint, 1, "RETRYING").await.remove(0);
    let attempt = &delivery["attempts"][0];
    assert!(attempt["error"].as_str().unwrap().contains("to which nothing is sent"), "{delivery}");
    assert_eq!((&attempt["status"], &attempt["responseExcerpt"]), (&Value::Null, &Value::Null));
    assert!(world.receiver.at("hook").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_deleted_takes_what_is_left_along() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["org.renamed"]})).await;
    world.receiver.behave("hook", Behaviour::Status(500));
    world.rename("Gone").await;
    world.receiver.wait("hook", 1).await;
    assert_eq!(world.owner.used(&world.organization, "webhooks").await, 1);
    assert!(world.act("deleteWebhookEndpoint", &endpoint).await.accepted());
    assert_eq!(world.owner.used(&world.organization, "webhooks").await, 0);
    assert_eq!(world.act("enableWebhookEndpoint", &endpoint).await.fault(), Some("NOT_FOUND"));
    let commands = world.server.service().core().commands.clone();
    let pool = world.server.service().core().database.deliveries.clone();
    eventually("its deliveries are forgotten", || async {
        tenancy::webhooks::sweep::sweep(&pool, &commands, TERMS, &mut Default::default()).await.unwrap();
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries").fetch_one(&pool).await.unwrap();
        left == 0
    })
    .await;
    // And its secret, but not one that a command is just making.
    let owner = world.database.pool().await;
    let secrets = || async {
        let statement = "SELECT subject_id FROM subject_keys WHERE subject_id LIKE 'whk%' AND wrapped IS NOT NULL";
        sqlx::query_scalar::<_, String>(statement).fetch_all(&owner).await.unwrap()
    };
    let coming: aggregates::ids::WebhookEndpointId = aggregates::ids::Id::random();
    let keys = world.server.service().core().commands.log().clone();
    tenancy::endpoints::signature::make(keys.keys(), &coming, 1).await.unwrap().unwrap();
    tenancy::webhooks::sweep::sweep(&pool, &commands, TERMS, &mut Default::default()).await.unwrap();
    assert_eq!(secrets().await, [format!("{coming}#1")]);
    // Unless that command was refused: then nothing comes of it.
    let aged = "UPDATE subject_keys SET created_at = now() - interval '2 hours'";
    sqlx::query(aged).execute(&owner).await.unwrap();
    tenancy::webhooks::sweep::sweep(&pool, &commands, TERMS, &mut Default::default()).await.unwrap();
    assert!(secrets().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_deliveries_are_forgotten_after_their_time_and_open_ones_are_not() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.created"]})).await;
    world.projects(0..3).await;
    world.settled(&endpoint, 3, "SUCCEEDED").await;
    world.receiver.behave("hook", Behaviour::Status(500));
    world.projects(3..4).await;
    world.receiver.wait("hook", 4).await;
    let pool = world.database.pool().await;
    // Ids begin with the time of the event.
    let aged =
        "UPDATE webhook_deliveries SET id = 'dlv_00' || substr(id, 7), finished_at = finished_at - interval '31 days'";
    sqlx::query(aged).execute(&pool).await.unwrap();
    let core = world.server.service().core();
    tenancy::webhooks::sweep::sweep(&core.database.deliveries, &core.commands, TERMS, &mut Default::default())
        .await
        .unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_read_the_audit_trail_has_nothing_of_it_sent() {
    let world = World::new().await;
    let input = json!({"organizationId": world.organization, "name": "hooks", "description": "Webhooks only.",
        "permissions": ["organization:read", "webhook:read", "webhook:manage"]});
    world.owner.run("defineRole", "DefineRoleInput", input, "role { name }").await;
    let helper = world.server.user("helper@example.com");
    world.owner.bring_in(&world.organization, &helper, "helper@example.com", &["hooks"]).await;
    let input = json!({"organizationId": world.organization, "url": world.receiver.url("x"), "events": ["*"]});
    let refused = helper.run("createWebhookEndpoint", "CreateWebhookEndpointInput", input, "endpoint { id }").await;
    assert_eq!(refused.fault(), Some("FORBIDDEN"));
    let (endpoint, _) = world.endpoint("hook", json!({})).await;
    let input = json!({"endpointId": endpoint, "url": world.receiver.url("mine")});
    let refused = helper.run("updateWebhookEndpoint", "UpdateWebhookEndpointInput", input, "endpoint { id }").await;
    assert_eq!(refused.fault(), Some("FORBIDDEN"));
    assert_eq!(helper.fault(DELIVERIES, json!({"id": endpoint})).await, "FORBIDDEN");
    assert!(act(&helper, "sendTestWebhook", &endpoint).await.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_is_in_no_answer_of_a_receiver() {
    let world = World::new().await;
    world.receiver.behave("echo", Behaviour::Echo);
    let (endpoint, _) = world.endpoint("echo", json!({"events": ["member.*", "invitation.*"]})).await;
    let eve = world.server.user("eve@example.com");
    world.owner.bring_in(&world.organization, &eve, "eve@example.com", &["member"]).await;
    let user = eve.user_id().await;
    world.settled(&endpoint, 3, "SUCCEEDED").await;
    assert!(format!("{:?}", world.deliveries(&endpoint).await).contains("eve@example.com"), "it was there");
    let input = json!({"subject": {"userId": user}, "reason": "asked for it"});
    let erased = world.server.operator().run("eraseSubject", "EraseSubjectInput", input, "__typename").await;
    assert!(erased.accepted(), "{erased:?}");
    let pool = world.database.pool().await;
    let held: i64 =
        sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries d WHERE d::text LIKE '%eve@example.com%'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(held, 0);
    let shown = world.deliveries(&endpoint).await;
    assert!(!format!("{shown:?}").contains("eve@example.com"), "{shown:?}");
}

/// Another replica takes what one that died had taken, when its lease is over.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_replica_had_taken_is_sent_by_another() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["org.renamed"]})).await;
    let pool = world.database.pool().await;
    world.act("disableWebhookEndpoint", &endpoint).await;
    world.rename("Taken").await;
    world.act("enableWebhookEndpoint", &endpoint).await;
    world.settled(&endpoint, 1, "SUCCEEDED").await;
    let taken = "UPDATE webhook_deliveries SET state = 'PENDING', due_at = now(), finished_at = NULL,
        leased_until = now() + interval '2 seconds'";
    sqlx::query(taken).execute(&pool).await.unwrap();
    let started = Instant::now();
    world.receiver.wait("hook", 2).await;
    assert!(started.elapsed() > Duration::from_millis(1_500), "not before the lease is over");
}

/// An event that this program cannot read yet keeps back its own stream; when it can, what was kept back is sent, and
/// nothing else again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_parked_is_sent_once_when_it_can_be_read() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.*", "org.renamed"]})).await;
    let created = world.owner.create_project(&world.organization, "poisoned").await;
    let project = created.text("/project/id");
    world.settled(&endpoint, 1, "SUCCEEDED").await;
    let pool = world.database.pool().await;
    let partition = world.server.service().core().commands.log().partition_of(&world.organization);
    crate::projections::poison(&pool, &world.organization, &project, partition).await;
    world.rename("Beside").await;
    world.settled(&endpoint, 2, "SUCCEEDED").await;
    // Those that are done are forgotten meanwhile.
    sqlx::query("DELETE FROM webhook_deliveries").execute(&pool).await.unwrap();
    let renamed = r#"{"ProjectRenamed": {"name": "Mended", "previous_name": "poisoned"}}"#;
    let mended = format!(
        "UPDATE events SET event_type = 'ProjectRenamed', payload = '{renamed}' WHERE event_type = 'ProjectExploded'"
    );
    crate::support::tamper(&pool, &mended).await;
    let runtime = world.server.service().core().runtime.clone();
    let retried = runtime.retry(::projections::Projection::Webhooks).await.unwrap();
    assert_eq!(retried, ::projections::Retried { level: 1, parked: 0 });
    world.settled(&endpoint, 1, "SUCCEEDED").await;
    assert_eq!(world.receiver.kinds("hook"), ["project.created", "org.renamed", "project.renamed"]);

    // Nor does making the tables afresh send anything.
    let core = world.server.service().core();
    let stage = tokio::sync::watch::channel(Default::default()).0;
    core.rebuilder().run(vec![::projections::Projection::Webhooks], stage).await.unwrap();
    world.rename("After").await;
    world.settled(&endpoint, 2, "SUCCEEDED").await;
    assert_eq!(world.receiver.kinds("hook").len(), 4);
}

/// What was written to be in order keeps its order, and nothing waits for ever when the endpoint wants another one.
#[tokio::test(flavor = "multi_thread")]
async fn another_ordering_leaves_nothing_behind() {
    let world = World::new().await;
    let terms = json!({"events": ["project.*"], "ordering": "PER_SUBJECT"});
    let (endpoint, _) = world.endpoint("hook", terms).await;
    let before = world.rename("Before").await.text("/position");
    world.projects(0..3).await;
    world.settled(&endpoint, 3, "SUCCEEDED").await;
    let change = async |ordering: &str| {
        let input = json!({"endpointId": endpoint, "ordering": ordering});
        let changed =
            world.owner.run("updateWebhookEndpoint", "UpdateWebhookEndpointInput", input, "endpoint { id }").await;
        assert!(changed.accepted(), "{changed:?}");
    };
    // Replayed as what it is not any more.
    change("PARALLEL").await;
    let input = json!({"endpointId": endpoint, "after": before});
    let replayed = world.owner.run("replayWebhooks", "ReplayWebhooksInput", input, "scheduled").await;
    assert_eq!(replayed.at("/scheduled"), &json!(3));
    world.receiver.wait("hook", 6).await;
    // And what passed while it was disabled, changed before it is written.
    change("PER_SUBJECT").await;
    world.act("disableWebhookEndpoint", &endpoint).await;
    world.projects(3..6).await;
    world.act("enableWebhookEndpoint", &endpoint).await;
    world.projects(6..7).await;
    change("PARALLEL").await;
    world.projects(7..8).await;
    world.settled(&endpoint, 8, "SUCCEEDED").await;
    let pool = world.database.pool().await;
    eventually("no backfill is left", || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM webhook_backfills").fetch_one(&pool).await.unwrap() == 0
    })
    .await;
}

/// A receiver that takes some and has enough of others is left in peace.
#[tokio::test(flavor = "multi_thread")]
async fn peace_that_is_asked_for_outlasts_what_is_taken_beside_it() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.created"]})).await;
    world.projects(0..1).await;
    world.settled(&endpoint, 1, "SUCCEEDED").await;
    world.receiver.behave("hook", Behaviour::BusyOrSlow("p1", "3"));
    let started = Instant::now();
    // One is refused with a time to wait, while another is on its way and arrives after that.
    world.projects(1..3).await;
    world.receiver.wait("hook", 3).await;
    world.receiver.behave("hook", Behaviour::Status(200));
    tokio::time::sleep(Duration::from_millis(800)).await;
    world.projects(3..4).await;
    world.settled(&endpoint, 4, "SUCCEEDED").await;
    assert!(started.elapsed() > Duration::from_millis(2_800), "{:?}", started.elapsed());
}

/// A redelivery asked for while the delivery is being tried makes one more.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_asked_for_while_it_is_tried_is_sent_again() {
    let world = World::with(&[("TENANCY_WEBHOOKS__RETRY_SECONDS", "")]).await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["org.renamed"]})).await;
    world.receiver.behave("hook", Behaviour::Hang(Duration::from_secs(30)));
    world.rename("Hangs").await;
    world.receiver.wait("hook", 1).await;
    world.receiver.behave("hook", Behaviour::Status(200));
    let delivery = world.deliveries(&endpoint).await.remove(0);
    let input = json!({"deliveryId": delivery["id"]});
    let again = world.owner.run("redeliverWebhook", "RedeliverWebhookInput", input, "delivery { id }").await;
    assert!(again.accepted(), "{again:?}");
    world.receiver.wait("hook", 2).await;
    // What the first attempt comes to has nothing to say any more.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    world.settled(&endpoint, 1, "SUCCEEDED").await;
}

/// While streams are held back, tables are not made afresh: what is held back would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_is_not_lost_by_a_rebuild() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.*"]})).await;
    let created = world.owner.create_project(&world.organization, "poisoned").await;
    world.settled(&endpoint, 1, "SUCCEEDED").await;
    let pool = world.database.pool().await;
    let partition = world.server.service().core().commands.log().partition_of(&world.organization);
    crate::projections::poison(&pool, &world.organization, &created.text("/project/id"), partition).await;
    eventually("it is held back", || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM parked WHERE projection = 'webhooks'")
            .fetch_one(&pool)
            .await
            .unwrap()
            == 1
    })
    .await;
    let core = world.server.service().core();
    let stage = || tokio::sync::watch::channel(Default::default()).0;
    let rebuilt = core.rebuilder().run(vec![::projections::Projection::Webhooks], stage()).await;
    assert!(rebuilt.unwrap_err().to_string().contains("projections retry webhooks"));
}

/// Many projects are created while the tables are made afresh and swapped, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_load_loses_no_delivery() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.created"]})).await;
    let writing = async { world.projects(0..80).await };
    let rebuilding = async {
        for _ in 0..3 {
            let core = world.server.service().core();
            let stage = tokio::sync::watch::channel(Default::default()).0;
            core.rebuilder().run(vec![::projections::Projection::Webhooks], stage).await.unwrap();
        }
    };
    tokio::join!(writing, rebuilding);
    let got = world.receiver.wait("hook", 80).await;
    let ids: std::collections::BTreeSet<&str> = got.iter().map(Got::id).collect();
    assert_eq!(ids.len(), 80);
    world.settled(&endpoint, 80, "SUCCEEDED").await;
}

/// What happens while a backfill has no room may wait for its end, and so must not take the room.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_backfill_does_not_hold_it_up() {
    let world = World::new().await;
    let terms = json!({"events": ["project.*"], "ordering": "PER_SUBJECT"});
    let (endpoint, _) = world.endpoint("hook", terms).await;
    world.act("disableWebhookEndpoint", &endpoint).await;
    world.projects(0..2).await;
    let pool = world.database.pool().await;
    // As if very much had happened after the endpoint is enabled, and before what it missed is written.
    let later = "INSERT INTO webhook_deliveries
            (id, endpoint_id, organization_id, event_id, event_type, audit_sequence, subject_id, created_at, due_at)
        SELECT 'dlv_later' || n, $1, $2, 'evt_later' || n, 'ProjectRenamed', 1000000 + n, 'prj_later', now(), 'infinity'
        FROM generate_series(1, 6000) n";
    sqlx::query(later).bind(&endpoint).bind(&world.organization).execute(&pool).await.unwrap();
    world.act("enableWebhookEndpoint", &endpoint).await;
    assert_eq!(world.receiver.wait("hook", 2).await.len(), 2);
}

/// A receiver that fails a whole batch is left in peace for a second, not for as many as there were deliveries in it; and
/// one that takes something again is not left in peace any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_failure_makes_a_short_pause() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["project.created"]})).await;
    world.act("disableWebhookEndpoint", &endpoint).await;
    world.projects(0..16).await;
    world.receiver.behave("hook", Behaviour::Status(500));
    world.act("enableWebhookEndpoint", &endpoint).await;
    let pool = world.database.pool().await;
    let standing = || async {
        let statement = "SELECT failures, extract(epoch FROM down_until - now())::float8 FROM webhook_receivers";
        let row: Option<(i32, Option<f64>)> = sqlx::query_as(statement).fetch_optional(&pool).await.unwrap();
        row.unwrap_or_default()
    };
    eventually("it is down", || async { standing().await.0 >= 5 }).await;
    let (failures, pause) = standing().await;
    assert!(failures <= 6 && pause.is_some_and(|pause| pause <= 2.1), "{failures} {pause:?}");
    world.receiver.behave("hook", Behaviour::Status(200));
    world.settled(&endpoint, 16, "SUCCEEDED").await;
    assert_eq!(standing().await, (0, None));
}

/// What a receiver has earned is not its successor's.
#[tokio::test(flavor = "multi_thread")]
async fn another_url_begins_anew() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("old", json!({"events": ["project.created"]})).await;
    world.receiver.behave("old", Behaviour::Busy("86400"));
    world.projects(0..1).await;
    world.receiver.wait("old", 1).await;
    eventually("it is on record", || async { world.deliveries(&endpoint).await[0]["state"] == "RETRYING" }).await;
    let input = json!({"endpointId": endpoint, "url": world.receiver.url("new")});
    let moved = world.owner.run("updateWebhookEndpoint", "UpdateWebhookEndpointInput", input, "endpoint { id }").await;
    assert!(moved.accepted(), "{moved:?}");
    world.projects(1..2).await;
    world.receiver.wait("new", 1).await;
}

/// A transaction that holds an endpoint's lock for long keeps nobody else's deliveries from being recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_for_long_holds_up_one_endpoint_only() {
    let world = World::new().await;
    let (held, _) = world.endpoint("held", json!({"events": ["org.renamed"], "ordering": "PER_SUBJECT"})).await;
    let (other, _) = world.endpoint("other", json!({"events": ["project.*"], "ordering": "PER_SUBJECT"})).await;
    world.receiver.behave("held", Behaviour::Hang(Duration::from_millis(700)));
    world.rename("Held").await;
    world.receiver.wait("held", 1).await;
    let pool = world.database.pool().await;
    let mut holder = pool.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock($1, hashtext($2))";
    sqlx::query(lock).bind(0x7eb0_i32).bind(&held).execute(&mut *holder).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    world.projects(0..3).await;
    world.settled(&other, 3, "SUCCEEDED").await;
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    world.receiver.behave("held", Behaviour::Status(200));
    assert_ne!(world.deliveries(&held).await[0]["state"], "SUCCEEDED");
    holder.rollback().await.unwrap();
    world.settled(&held, 1, "SUCCEEDED").await;
}

/// A deliverer that lost its lease has nothing to say of what failed: another one is at it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_whose_lease_is_over_is_not_recorded() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["org.renamed"]})).await;
    world.receiver.behave("hook", Behaviour::Hang(Duration::from_secs(30)));
    world.rename("Lost").await;
    world.receiver.wait("hook", 1).await;
    let pool = world.database.pool().await;
    let taken = "UPDATE webhook_deliveries SET leased_until = now() + interval '60 seconds'";
    assert_eq!(sqlx::query(taken).execute(&pool).await.unwrap().rows_affected(), 1);
    // Longer than an attempt may take.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let delivery = world.deliveries(&endpoint).await.remove(0);
    assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("PENDING"), &json!([])));
}

/// What a receiver answers while a person is erased is not kept either: it may repeat what it was sent before.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_after_an_erasure_is_not_kept() {
    let world = World::new().await;
    let eve = world.server.user("eve@example.com");
    world.owner.bring_in(&world.organization, &eve, "eve@example.com", &["member"]).await;
    let user = eve.user_id().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["org.renamed"]})).await;
    world.receiver.behave("hook", Behaviour::Drip(Duration::from_millis(900)));
    world.rename("Before").await;
    assert_eq!(
        world.settled(&endpoint, 1, "SUCCEEDED").await[0]["attempts"][0]["responseExcerpt"].as_str().map(|s| &s[..1]),
        Some(".")
    );
    world.rename("Meanwhile").await;
    world.receiver.wait("hook", 2).await;
    let input = json!({"subject": {"userId": user}, "reason": "asked for it"});
    let erased = world.server.operator().run("eraseSubject", "EraseSubjectInput", input, "__typename").await;
    assert!(erased.accepted(), "{erased:?}");
    for delivery in world.settled(&endpoint, 2, "SUCCEEDED").await {
        assert_eq!(delivery["attempts"][0]["responseExcerpt"], Value::Null, "{delivery}");
    }
}
