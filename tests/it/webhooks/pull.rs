//! `GET /events` and the catalogue: the same events to be fetched, and what they look like.

use std::collections::HashMap;
use std::time::Duration;

use aggregates::webhook::WebhookContent;
use serde_json::{Value, json};
use tenancy::webhooks::message::Message;
use tokio::time::Instant;

use super::World;
use crate::support::Client;

async fn get(client: &Client, query: &str) -> (u16, Value) {
    let base = client.url.trim_end_matches("/graphql");
    let mut request = client.http.get(format!("{base}/events?{query}"));
    if let Some(token) = &client.token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn page(client: &Client, query: &str) -> Value {
    let (status, body) = get(client, query).await;
    assert_eq!(status, 200, "{body}");
    body
}

fn kinds(page: &Value) -> Vec<&str> {
    page["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// An API token that may read the audit trail.
async fn reader(world: &World) -> Client {
    let created = world.owner.create_token(&world.organization, &["organization:read", "audit:read"]).await;
    world.server.bearer(&created.text("/secret"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_fetches_the_same_events_from_where_he_stopped() {
    let world = World::new().await;
    world.endpoint("hook", json!({"events": ["*"]})).await;
    let reader = reader(&world).await;
    let organization = &world.organization;
    let first = page(&reader, &format!("organization={organization}&limit=2")).await;
    assert_eq!(kinds(&first), ["org.created", "member.joined"]);
    assert_eq!(first["more"], true);
    let mut all = kinds(&first).iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
    let mut after = first["position"].as_str().unwrap().to_owned();
    world.projects(0..5).await;
    loop {
        let next = page(&reader, &format!("organization={organization}&limit=2&after={after}")).await;
        all.extend(kinds(&next).iter().map(|kind| (*kind).to_owned()));
        after = next["position"].as_str().unwrap().to_owned();
        if next["more"] == false {
            break;
        }
    }
    assert_eq!(all, world.owner.audit(organization).await, "everything, once, in order");

    // What is pushed is what is fetched, byte for byte.
    let whole = page(&reader, &format!("organization={organization}&limit=1000")).await;
    let pushed = world.receiver.wait("hook", 6).await;
    let fetched: HashMap<&str, &Value> = whole["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["data"]["id"].as_str().unwrap(), event))
        .collect();
    for got in pushed {
        assert_eq!(&got.json(), fetched[got.id()]);
    }
    let thin = page(&reader, &format!("organization={organization}&types=project.*&content=thin")).await;
    assert_eq!(kinds(&thin), ["project.created"; 5]);
    assert_eq!(thin["events"][0]["data"].get("fields"), None);
    // A position of an event or a command will do as well.
    let renamed = world.rename("Later").await;
    world.rename("Last").await;
    let rest = page(&reader, &format!("organization={organization}&after={}", renamed.text("/position"))).await;
    assert_eq!(kinds(&rest), ["org.renamed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_for_something_new() {
    let world = World::new().await;
    let reader = reader(&world).await;
    let organization = &world.organization;
    let now = page(&reader, &format!("organization={organization}&limit=1000")).await["position"].clone();
    let now = now.as_str().unwrap();
    let started = Instant::now();
    let nothing = page(&reader, &format!("organization={organization}&after={now}&wait=1")).await;
    assert_eq!((nothing["events"].as_array().unwrap().len(), &nothing["more"]), (0, &json!(false)));
    assert!(started.elapsed() >= Duration::from_millis(950));

    let query = format!("organization={organization}&after={now}&wait=20&types=org.*");
    let waiting = tokio::spawn(async move { (page(&reader, &query).await, Instant::now()) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What is not asked for wakes nobody.
    world.projects(0..1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    let renamed = Instant::now();
    world.rename("Something").await;
    let (answer, answered) = waiting.await.unwrap();
    assert_eq!(kinds(&answer), ["org.renamed"]);
    assert!(answered - renamed < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_whoever_may_read_the_audit_trail_fetches_events() {
    let world = World::new().await;
    let organization = &world.organization;
    let query = format!("organization={organization}");
    let code = |answer: (u16, Value)| (answer.0, answer.1["error"]["code"].as_str().unwrap().to_owned());
    assert_eq!(code(get(&world.server.nobody(), &query).await), (401, "UNAUTHENTICATED".into()));
    let stranger = world.server.user("stranger@example.com");
    let nothing = aggregates::ids::Id::random();
    let nothing: aggregates::ids::OrganizationId = nothing;
    let hidden = get(&stranger, &query).await;
    assert_eq!(hidden, get(&stranger, &format!("organization={nothing}")).await, "as if it did not exist");
    assert_eq!(code(hidden), (404, "NOT_FOUND".into()));
    let member = world.server.user("member@example.com");
    let membership = world.owner.bring_in(organization, &member, "member@example.com", &["auditor"]).await;
    let waiting = {
        let (member, now) = (member.clone(), page(&member, &format!("{query}&limit=1000")).await["position"].clone());
        let query = format!("{query}&after={}&wait=30", now.as_str().unwrap());
        tokio::spawn(async move { get(&member, &query).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.owner.member("removeMember", &membership).await;
    assert_eq!(code(waiting.await.unwrap()), (404, "NOT_FOUND".into()), "who was removed is told nothing more");
    let few = world.owner.create_token(organization, &["organization:read"]).await.text("/secret");
    assert_eq!(code(get(&world.server.bearer(&few), &query).await), (403, "FORBIDDEN".into()));

    let trail =
        "query($id: ID!) { organization(by: {id: $id}) { accessTrail(last: 50) { nodes { kind operation } } } }";
    crate::support::eventually("reading is on record", || async {
        let trail = world.owner.query(trail, json!({"id": organization})).await;
        trail.0.to_string().contains("AUDIT_READ")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_refused_with_what_would_be_right() {
    let world = World::new().await;
    let query = format!("organization={}", world.organization);
    let wrong = [
        ("limit=0", "give 1 to 1000"),
        ("limit=1001", "give 1 to 1000"),
        ("limit=x", "limit"),
        ("wait=61", "at most 60"),
        ("types=nothing", "names no event"),
        ("types=*.created", "names no event"),
        ("types=user.*", "names no event"),
        ("content=much", "neither"),
        ("after=x", "no position"),
        ("after=MS4wLTk5OTk5OTk", "another time"),
        ("from=1", "unknown field"),
    ];
    for (parameter, reason) in wrong {
        let (status, body) = get(&world.owner, &format!("{query}&{parameter}")).await;
        assert_eq!(status, 400, "{parameter}: {body}");
        let position_of_another_partition =
            parameter.starts_with("after=MS") && body.to_string().contains("this organization");
        assert!(body.to_string().contains(reason) || position_of_another_partition, "{parameter}: {body}");
    }
    assert_eq!(get(&world.owner, "organization=prj_x").await.0, 400);
}

/// Every event that there is, as it was stored once, against the schema that the catalogue has for it.
#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_as_the_catalogue_says() {
    let world = World::new().await;
    let base = world.owner.url.trim_end_matches("/graphql").to_owned();
    let catalog: Value =
        world.owner.http.get(format!("{base}/webhooks/catalog")).send().await.unwrap().json().await.unwrap();
    let schemas: HashMap<String, jsonschema::Validator> = catalog["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|each| (each["type"].as_str().unwrap().to_owned(), jsonschema::validator_for(&each["schema"]).unwrap()))
        .collect();
    let query = "{ webhookEventTypes { name description version schema } }";
    let by_graphql = world.owner.query(query, json!({})).await;
    assert_eq!(by_graphql.at("/webhookEventTypes").as_array().unwrap().len(), schemas.len());

    world.endpoint("hook", json!({"events": ["*"]})).await;
    world.owner.invite(&world.organization, "eve@example.com", &["member"]).await;
    world.projects(0..1).await;
    let events = world.server.service().core().commands.log();
    let pool = world.database.pool().await;
    let ids: Vec<String> = sqlx::query_scalar("SELECT event_id FROM events WHERE organization_id IS NOT NULL")
        .fetch_all(&pool)
        .await
        .unwrap();
    let mut recorded = events.events(&ids).await.unwrap();
    let like = recorded[0].clone();
    for golden in golden() {
        recorded.push(aggregates::Recorded { event: golden, ..like.clone() });
    }
    let mut seen = std::collections::BTreeSet::new();
    for event in &recorded {
        for content in [WebhookContent::Full, WebhookContent::Thin] {
            let message: Value = serde_json::from_slice(&Message::of(event, 1, content).to_bytes()).unwrap();
            let kind = message["type"].as_str().unwrap().to_owned();
            let errors: Vec<String> =
                schemas[&kind].iter_errors(&message).map(|error| format!("{kind}: {error}")).collect();
            assert_eq!(errors, Vec::<String>::new(), "{message}");
            seen.insert(kind);
        }
    }
    assert_eq!(seen.len(), schemas.len(), "every type was tried");
    // A schema that takes anything would be none.
    let mut wrong: Value = serde_json::from_slice(&Message::of(&like, 1, WebhookContent::Full).to_bytes()).unwrap();
    let kind = wrong["type"].as_str().unwrap().to_owned();
    wrong["data"]["fields"]["plan"] = json!(1);
    assert!(!schemas[&kind].is_valid(&wrong));
}

/// The events of the golden files that belong to organizations.
fn golden() -> Vec<aggregates::Event> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/aggregates/tests/golden");
    let mut events = vec![];
    for file in std::fs::read_dir(folder).unwrap() {
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        let name = golden["event_type"].as_str().unwrap();
        let stream = golden["aggregate_id"].as_str().and_then(aggregates::StreamId::from_id).unwrap();
        if !aggregates::descriptors_of_organizations().any(|event| event.name == name) {
            continue;
        }
        let payload = golden["opened"].to_string();
        let version = golden["event_version"].as_str().unwrap();
        events
            .push(aggregates::Event::from_stored(&stream, name, version, &payload, &aggregates::upcasters()).unwrap());
    }
    assert!(events.len() > 50);
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_say_how_webhooks_stand() {
    let world = World::new().await;
    let (endpoint, _) = world.endpoint("hook", json!({"events": ["org.renamed"]})).await;
    world.rename("Once").await;
    world.settled(&endpoint, 1, "SUCCEEDED").await;
    world.act("disableWebhookEndpoint", &endpoint).await;
    let base = world.owner.url.trim_end_matches("/graphql");
    let metrics = async || world.owner.http.get(format!("{base}/metrics")).send().await.unwrap().text().await.unwrap();
    let disabled = "tenancy_webhook_endpoints_disabled 1";
    crate::support::eventually("the read model has it", || async { metrics().await.contains(disabled) }).await;
    let metrics = metrics().await;
    for name in [
        "tenancy_webhook_oldest_due_seconds",
        disabled,
        "tenancy_webhook_endpoints_failing",
        "tenancy_webhook_attempts_total{outcome=\"succeeded\"}",
        "tenancy_webhook_late_seconds",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
}
