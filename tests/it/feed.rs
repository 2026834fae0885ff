//! The live feed: nothing missing and nothing twice, over both transports, for exactly those who may read it.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tenancy::access::issuer::Grant;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{Client, Database, eventually};

const FEED: &str = "subscription($o: ID!, $a: Position, $f: [AuditAction!]) {
    auditEvents(organizationId: $o, after: $a, actions: $f) { position event { id action auditSequence } } }";
/// Longer than anything takes that is going to happen.
const LONG: Duration = Duration::from_secs(20);

/// A feed over server-sent events.
pub struct Sse {
    response: reqwest::Response,
    buffer: String,
    pub last_id: Option<String>,
}

impl Sse {
    pub async fn open(client: &Client, variables: Value) -> Self {
        Self::request(client, variables, None).await.unwrap()
    }

    /// The answer as JSON, where it is no stream.
    async fn request(client: &Client, variables: Value, last_event_id: Option<&str>) -> Result<Self, Value> {
        Self::document(client, FEED, variables, last_event_id).await
    }

    pub async fn document(
        client: &Client,
        document: &str,
        variables: Value,
        last_event_id: Option<&str>,
    ) -> Result<Self, Value> {
        let body = json!({"query": document, "variables": variables});
        let mut request = client.http.post(format!("{}/sse", client.url)).json(&body);
        if let Some(token) = &client.token {
            request = request.bearer_auth(token);
        }
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        if response.headers()["content-type"] != "text/event-stream" {
            assert!(!response.status().is_success());
            return Err(response.json().await.unwrap());
        }
        Ok(Self { response, buffer: String::new(), last_id: None })
    }

    /// The next event: its name and data.
    pub async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                let (mut name, mut data) = (None, String::new());
                for (field, value) in block.lines().filter_map(|line| line.split_once(':')) {
                    match field {
                        "event" => name = Some(value.trim().to_owned()),
                        "data" => data = value.trim().to_owned(),
                        "id" => self.last_id = Some(value.trim().to_owned()),
                        _ => {}
                    }
                }
                if let Some(name) = name {
                    return Some((name, serde_json::from_str(&data).unwrap_or_default()));
                }
            }
            let chunk = tokio::time::timeout(LONG, self.response.chunk()).await.expect("the feed is silent");
            self.buffer.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    /// The next item.
    async fn item(&mut self) -> Value {
        let (name, response) = self.event().await.unwrap();
        assert_eq!(name, "next");
        assert_eq!(response.get("errors"), None, "{response}");
        let item = response["data"]["auditEvents"].clone();
        assert_eq!(self.last_id.as_deref(), item["position"].as_str());
        item
    }

    /// The action of the next event; items that only move the position are passed over.
    async fn action(&mut self) -> String {
        loop {
            if let Some(action) = self.item().await["event"]["action"].as_str() {
                return action.to_owned();
            }
        }
    }

    /// The error with which it ends; nothing but progress may come before.
    async fn end(&mut self) -> Value {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < LONG, "it does not end");
            let (name, response) = self.event().await.unwrap();
            assert_eq!(name, "next");
            if let Some(error) = response.get("errors") {
                assert_eq!(self.event().await.unwrap().0, "complete");
                assert!(self.event().await.is_none());
                return error[0].clone();
            }
            assert_eq!(response["data"]["auditEvents"]["event"], Value::Null, "this is later than the end");
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A client of the WebSocket.
struct Ws(Socket);

async fn connect(client: &Client, protocol: Option<&str>) -> Result<Socket, WsError> {
    let url = format!("{}/ws", client.url.replacen("http", "ws", 1));
    let mut request = url.into_client_request().unwrap();
    if let Some(protocol) = protocol {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    connect_async(request).await.map(|(socket, _)| socket)
}

impl Ws {
    async fn raw(client: &Client) -> Self {
        Self(connect(client, Some("graphql-transport-ws")).await.unwrap())
    }

    async fn open(client: &Client) -> Self {
        let mut ws = Self::raw(client).await;
        let token = format!("Bearer {}", client.token.as_deref().unwrap());
        ws.send(json!({"type": "connection_init", "payload": {"Authorization": token}})).await;
        assert_eq!(ws.next().await, json!({"type": "connection_ack"}));
        ws
    }

    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn subscribe(&mut self, id: &str, variables: Value) {
        self.send(json!({"type": "subscribe", "id": id, "payload": {"query": FEED, "variables": variables}})).await;
    }

    async fn message(&mut self) -> Option<Message> {
        loop {
            match tokio::time::timeout(LONG, self.0.next()).await.expect("the socket is silent") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn next(&mut self) -> Value {
        match self.message().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The code and reason with which it is closed, after whatever comes before.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.message().await {
                Some(Message::Close(Some(CloseFrame { code, reason }))) => return (code.into(), reason.to_string()),
                Some(_) => {}
                None => panic!("it ended without a close"),
            }
        }
    }
}

fn code(error: &Value) -> &str {
    error["extensions"]["code"].as_str().unwrap()
}

/// The ids of an organization's events, by audit sequence.
async fn trail(client: &Client, organization: &str) -> Vec<String> {
    let query = "query($o: ID!, $a: String) { organization(by: {id: $o}) { auditTrail(first: 100, after: $a) {
        pageInfo { hasNextPage endCursor } nodes { id } } } }";
    let (mut ids, mut after) = (vec![], Value::Null);
    loop {
        let answer = client.query(query, json!({"o": organization, "a": after})).await;
        let page = answer.at("/organization/auditTrail");
        ids.extend(page["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().to_owned()));
        if page["pageInfo"]["hasNextPage"] == false {
            return ids;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
}

/// The position after the last event so far.
async fn position(client: &Client, organization: &str) -> String {
    let query = "query($o: ID!) { organization(by: {id: $o}) { auditTrail(last: 1) { nodes { position } } } }";
    client.query(query, json!({"o": organization})).await.text("/organization/auditTrail/nodes/0/position")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_feed_holds_everything_once_and_in_order() {
    let database = Database::new().await;
    // A ring that is soon too small, so that the seam between log and ring is met often.
    let first = database.serve_with(&[("TENANCY_FEED__BUFFER_EVENTS", "7")]).await;
    let second = database.serve().await;
    let ada = [first.user("ada@example.com"), second.user("ada@example.com")];
    let id = first.verified("acme", &ada[0]).await;
    let other = first.verified("other", &ada[0]).await;
    let start = position(&ada[0], &id).await;
    let before = trail(&ada[0], &id).await.len();
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let (client, id, other) = (ada[writer % 2].clone(), id.clone(), other.clone());
            tokio::spawn(async move {
                for number in 0..60 {
                    let of = if number % 5 == 4 { &other } else { &id };
                    assert!(client.create_project(of, &format!("p-{writer}-{number}")).await.accepted());
                }
            })
        })
        .collect();
    let readers = (0..4).map(|reader| {
        let (ada, id, mut at) = (ada.clone(), id.clone(), start.clone());
        tokio::spawn(async move {
            let (mut seen, mut round) = (vec![], reader);
            while seen.len() < 6 * 48 {
                let client = &ada[round % 2];
                let mut left = 1 + rand::random_range(0..40);
                if reader == 3 {
                    // Over the WebSocket.
                    let mut ws = Ws::open(client).await;
                    ws.subscribe("1", json!({"o": id, "a": at})).await;
                    while left > 0 && seen.len() < 6 * 48 {
                        let message = ws.next().await;
                        let item = &message["payload"]["data"]["auditEvents"];
                        at = item["position"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned();
                        if let Some(event) = item["event"]["id"].as_str() {
                            seen.push(event.to_owned());
                            left -= 1;
                        }
                    }
                } else {
                    // By the header, as a browser does, or by the argument.
                    let mut sse = match round % 3 {
                        0 => Sse::request(client, json!({"o": id}), Some(&at)).await.unwrap(),
                        _ => Sse::open(client, json!({"o": id, "a": at})).await,
                    };
                    while left > 0 && seen.len() < 6 * 48 {
                        let item = sse.item().await;
                        at = item["position"].as_str().unwrap().to_owned();
                        if let Some(event) = item["event"]["id"].as_str() {
                            seen.push(event.to_owned());
                            left -= 1;
                        }
                    }
                }
                round += 1;
            }
            seen
        })
    });
    let readers: Vec<_> = readers.collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let whole = trail(&ada[0], &id).await;
    for reader in readers {
        let seen = tokio::time::timeout(3 * LONG, reader).await.expect("something is missing");
        assert_eq!(seen.unwrap(), whole[before..]);
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_filtered_out_moves_the_position() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_FEED__HEARTBEAT_SECONDS", "1")]).await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let mut sse = Sse::open(&ada, json!({"o": id, "f": ["PROJECT_DELETED"]})).await;
    let begin = sse.item().await;
    assert_eq!(begin["event"], Value::Null);
    assert_eq!(begin["position"], position(&ada, &id).await);
    let project = ada.create_project(&id, "one").await.text("/project/id");
    let there = position(&ada, &id).await;
    let began = Instant::now();
    loop {
        let item = sse.item().await;
        assert_eq!(item["event"], Value::Null);
        if item["position"] == there {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(3), "a heartbeat says where it is");
    ada.run("deleteProject", "ProjectCommandInput", json!({"projectId": project}), "__typename").await;
    assert_eq!(sse.action().await, "project.deleted");
    // From the past: the page that is filtered out, and then what is wanted.
    let mut again = Sse::open(&ada, json!({"o": id, "a": there, "f": ["PROJECT_DELETED"]})).await;
    assert_eq!(again.action().await, "project.deleted");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_no_longer_read_it_is_sent_nothing_later_on_any_replica() {
    let database = Database::new().await;
    let (here, there) = (database.serve().await, database.serve().await);
    let (ada, operator) = (here.user("ada@example.com"), here.operator());
    let acts = ["remove", "suspend", "demote", "revoke", "block", "delete"];
    for (number, act) in acts.into_iter().enumerate() {
        let id = here.verified(&format!("acme-{number}"), &ada).await;
        let email = format!("bob-{number}@example.com");
        let bob = there.user(&email);
        let membership = ada.bring_in(&id, &here.user(&email), &email, &["auditor"]).await;
        let user = bob.user_id().await;
        let mut sse = Sse::open(&bob, json!({"o": id})).await;
        let mut ws = Ws::open(&bob).await;
        ws.subscribe("f", json!({"o": id})).await;
        // From then on they are told everything.
        sse.item().await;
        ws.next().await;
        ada.create_project(&id, "before").await;
        assert_eq!(sse.action().await, "project.created");
        while ws.next().await["payload"]["data"]["auditEvents"]["event"]["action"] != "project.created" {}
        let done = match act {
            "remove" => ada.member("removeMember", &membership).await,
            "suspend" => ada.member("suspendMember", &membership).await,
            "demote" => ada.change_roles(&membership, &["guest"]).await,
            "revoke" => {
                let input = json!({"userId": user, "reason": "a test"});
                operator.run("revokeUser", "UserReviewInput", input, "__typename").await
            }
            "block" => operator.review("blockOrganization", &id).await,
            _ => ada.organization_command("deleteOrganization", &id).await,
        };
        assert!(done.accepted(), "{act}: {done:?}");
        // Something later, which is not theirs to see; where the organization is blocked, by an operator.
        let input = json!({"organizationId": id, "limit": "projects", "value": {"maximum": 5}, "reason": "a test"});
        operator.run("setOrganizationLimit", "SetOrganizationLimitInput", input, "__typename").await;
        let expected = match act {
            "demote" => "FORBIDDEN",
            "revoke" => "UNAUTHENTICATED",
            _ => "NOT_FOUND",
        };
        let end = sse.end().await;
        assert_eq!(code(&end), expected, "{act}");
        assert!(end["extensions"]["position"].is_string(), "{end}");
        let message = loop {
            let message = ws.next().await;
            if message["type"] == "error" {
                break message;
            }
            assert_eq!(message["payload"]["data"]["auditEvents"]["event"], Value::Null, "{act}: {message}");
        };
        assert_eq!((code(&message["payload"][0]), &message["id"]), (expected, &json!("f")), "{act}");
    }
    // An owner reads on in a blocked organization.
    let id = here.verified("blocked", &ada).await;
    let mut sse = Sse::open(&there.user("ada@example.com"), json!({"o": id})).await;
    sse.item().await;
    operator.review("blockOrganization", &id).await;
    assert_eq!(sse.action().await, "org.blocked");
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off_and_goes_on_where_it_was() {
    let database = Database::new().await;
    let small = [("TENANCY_FEED__SEND_TIMEOUT_SECONDS", "1"), ("TENANCY_FEED__BUFFER_EVENTS", "5")];
    let server = database.serve_with(&small).await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let start = position(&ada, &id).await;
    let before = trail(&ada, &id).await.len();
    let wide = "subscription($o: ID!, $a: Position) { auditEvents(organizationId: $o, after: $a) {
        position event { id a: data b: data c: data d: data } } }";
    let mut slow = Ws::open(&ada).await;
    let payload = json!({"query": wide, "variables": {"o": id, "a": start}});
    slow.send(json!({"type": "subscribe", "id": "1", "payload": payload})).await;
    let mut stuck = Sse::document(&ada, wide, json!({"o": id, "a": start}), None).await.unwrap();
    let text = "x".repeat(15_000);
    for number in 0..300 {
        let input = json!({"organizationId": id, "namespace": "theme", "value": {"number": number, "text": text}});
        let set = ada.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, "__typename").await;
        assert!(set.accepted(), "{set:?}");
    }
    eventually("both are cut off", async || {
        let metrics = ada.http.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with("tenancy_feeds_ended_total{reason=\"SLOW\"}"));
        line.is_some_and(|line| line.ends_with(" 2"))
    })
    .await;
    // What came is the beginning; the rest is there at the last position.
    let (mut seen, mut at) = (vec![], start);
    while let Some(Message::Text(text)) = slow.message().await {
        let message: Value = serde_json::from_str(&text).unwrap();
        let item = &message["payload"]["data"]["auditEvents"];
        at = item["position"].as_str().unwrap().to_owned();
        seen.extend(item["event"]["id"].as_str().map(str::to_owned));
    }
    let mut count = 0;
    while stuck.event().await.is_some() {
        count += 1;
    }
    assert!(seen.len() < 300 && count < 300, "{} and {count} came", seen.len());
    let mut sse = Sse::open(&ada, json!({"o": id, "a": at})).await;
    while seen.len() < 300 {
        seen.extend(sse.item().await["event"]["id"].as_str().map(str::to_owned));
    }
    assert_eq!(seen, trail(&ada, &id).await[before..]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_of_another_epoch_and_of_other_places_are_refused() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let start = position(&ada, &id).await;
    let mut sse = Sse::open(&ada, json!({"o": id, "a": start})).await;
    sse.item().await;
    let pool = database.pool().await;
    sqlx::query("UPDATE installation SET epoch = epoch + 1").execute(&pool).await.unwrap();
    assert_eq!(code(&sse.end().await), "POSITION_UNKNOWN");
    assert_eq!(code(&Sse::open(&ada, json!({"o": id, "a": start})).await.end().await), "POSITION_UNKNOWN");
    assert_eq!(code(&Sse::open(&ada, json!({"o": id, "a": "nonsense"})).await.end().await), "BAD_USER_INPUT");
    let mut sse = Sse::open(&ada, json!({"o": id})).await;
    sse.item().await;
    ada.create_project(&id, "after").await;
    assert_eq!(sse.action().await, "project.created");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_ends_with_its_token_and_with_the_service() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let grant = Grant { email: "ada@example.com".into(), name: None, operator: false, ttl: TimeDelta::seconds(2) };
    let token = server.service().issuer.as_ref().unwrap().mint(&grant).unwrap();
    let brief = Client { token: Some(token), ..ada.clone() };
    let mut sse = Sse::open(&brief, json!({"o": id})).await;
    let mut ws = Ws::open(&brief).await;
    ws.subscribe("1", json!({"o": id})).await;
    let at = sse.item().await["position"].clone();
    let end = sse.end().await;
    assert_eq!((code(&end), &end["extensions"]["position"]), ("UNAUTHENTICATED", &at));
    assert_eq!(ws.next().await["type"], "next");
    let message = ws.next().await;
    assert_eq!((code(&message["payload"][0]), &message["type"]), ("UNAUTHENTICATED", &json!("error")));
    assert_eq!(ws.closed().await.0, 4403);

    let mut sse = Sse::open(&ada, json!({"o": id, "a": at})).await;
    let mut ws = Ws::open(&ada).await;
    ws.subscribe("1", json!({"o": id, "a": at})).await;
    sse.item().await;
    ws.next().await;
    let began = Instant::now();
    let stopped = tokio::spawn(server.stop());
    let end = sse.end().await;
    assert_eq!((code(&end), &end["extensions"]["position"]), ("UNAVAILABLE", &at));
    let message = ws.next().await;
    assert_eq!(code(&message["payload"][0]), "UNAVAILABLE");
    assert_eq!(ws.closed().await.0, 1001);
    drop((sse, ws));
    stopped.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "feeds do not keep the service: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_feeds_are_one_reader_of_the_log() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_FEED__CONNECTIONS_PER_USER_MAX", "1000")]).await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let pool = database.pool().await;
    // Index scans of the log, which every statement that reads it makes.
    let scans = async || {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let sum = "SELECT sum(idx_scan)::bigint FROM pg_stat_user_indexes WHERE relname = 'events'";
        sqlx::query_scalar::<_, i64>(sum).fetch_one(&pool).await.unwrap()
    };
    let write = async |prefix: &str| {
        for number in 0..20 {
            assert!(ada.create_project(&id, &format!("{prefix}-{number}")).await.accepted());
        }
    };
    let mut costs = vec![];
    let mut feeds: Vec<Sse> = vec![];
    for wanted in [1, 200] {
        while feeds.len() < wanted {
            feeds.push(Sse::open(&ada, json!({"o": id})).await);
            feeds.last_mut().unwrap().item().await;
        }
        let before = scans().await;
        write(&format!("of-{wanted}")).await;
        for feed in &mut feeds {
            for _ in 0..20 {
                assert_eq!(feed.action().await, "project.created");
            }
        }
        costs.push(scans().await - before);
    }
    // Reading by themselves, the 200 would make 4,000 of 20 events; opening them makes some that are counted late.
    assert!(costs[1] < costs[0] + 1_000, "index scans with 1 and with 200 feeds: {costs:?}");
    drop(feeds);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_websocket_speaks_graphql_transport_ws() {
    let database = Database::new().await;
    let variables = [("TENANCY_FEED__INIT_TIMEOUT_SECONDS", "1"), ("TENANCY_FEED__FEEDS_PER_CONNECTION_MAX", "2")];
    let server = database.serve_with(&variables).await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    for protocol in [None, Some("graphql-ws")] {
        let refused = connect(&ada, protocol).await;
        assert!(matches!(refused, Err(WsError::Http(response)) if response.status() == 400), "{protocol:?}");
    }
    assert_eq!(Ws::raw(&ada).await.closed().await.0, 4408);
    for (message, code) in [
        (json!("nothing"), 4400),
        (json!({"type": "start", "id": "1"}), 4400),
        (json!({"type": "subscribe", "payload": {"query": FEED}}), 4400),
        (json!({"type": "subscribe", "id": "1", "payload": {"query": FEED}}), 4401),
        (json!({"type": "connection_init"}), 4403),
        (json!({"type": "connection_init", "payload": {"Authorization": "Bearer nonsense"}}), 4403),
        (json!({"type": "connection_init", "payload": 7}), 4400),
    ] {
        let mut ws = Ws::raw(&ada).await;
        ws.send(message.clone()).await;
        assert_eq!(ws.closed().await.0, code, "{message}");
    }
    let mut ws = Ws::raw(&ada).await;
    ws.0.send(Message::binary(b"{}".to_vec())).await.unwrap();
    assert_eq!(ws.closed().await.0, 4400);
    let mut ws = Ws::open(&ada).await;
    ws.send(json!({"type": "connection_init"})).await;
    assert_eq!(ws.closed().await.0, 4429);

    let mut ws = Ws::open(&ada).await;
    ws.send(json!({"type": "ping", "payload": {"a": 1}})).await;
    assert_eq!(ws.next().await, json!({"type": "pong", "payload": {"a": 1}}));
    for (document, expected) in [
        ("{ viewer { operator } }", "BAD_USER_INPUT"),
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription {", "GRAPHQL_PARSE_FAILED"),
        (
            "subscription { a: auditEvents(organizationId: \"x\") { position } b: auditEvents(organizationId: \"x\") { position } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("subscription { auditEvents(organizationId: \"x\") { position } }", "BAD_USER_INPUT"),
    ] {
        ws.send(json!({"type": "subscribe", "id": "q", "payload": {"query": document}})).await;
        let message = ws.next().await;
        assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!("q")), "{document}");
        assert_eq!(code(&message["payload"][0]), expected, "{document}");
    }
    ws.subscribe("a", json!({"o": id})).await;
    ws.subscribe("b", json!({"o": id})).await;
    let begun = [ws.next().await, ws.next().await];
    assert!(begun.iter().all(|message| message["type"] == "next"), "{begun:?}");
    ws.subscribe("c", json!({"o": id})).await;
    assert_eq!(code(&ws.next().await["payload"][0]), "RATE_LIMITED");
    ws.send(json!({"type": "complete", "id": "a"})).await;
    ada.create_project(&id, "one").await;
    let message = ws.next().await;
    assert_eq!(message["id"], "b");
    assert_eq!(message["payload"]["data"]["auditEvents"]["event"]["action"], "project.created");
    // The id is free again, and what is open is not opened twice.
    ws.subscribe("a", json!({"o": id})).await;
    assert_eq!(ws.next().await["id"], "a");
    ws.subscribe("b", json!({"o": id})).await;
    assert_eq!(ws.closed().await, (4409, "Subscriber for b already exists".to_owned()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_and_those_that_are_closed_make_room() {
    let database = Database::new().await;
    let variables = [("TENANCY_FEED__CONNECTIONS_MAX", "3"), ("TENANCY_FEED__CONNECTIONS_PER_USER_MAX", "2")];
    let server = database.serve_with(&variables).await;
    let (ada, eve) = (server.user("ada@example.com"), server.user("eve@example.com"));
    let (acme, other) = (server.verified("acme", &ada).await, server.verified("other", &eve).await);
    let refusal = async |client: &Client, id: &str| match Sse::request(client, json!({"o": id}), None).await {
        Ok(sse) => Ok(sse),
        Err(answer) => Err(code(&answer["errors"][0]).to_owned()),
    };
    let first = Sse::open(&ada, json!({"o": acme})).await;
    let _second = Ws::open(&ada).await;
    assert_eq!(refusal(&ada, &acme).await.err().as_deref(), Some("RATE_LIMITED"));
    let _third = Sse::open(&eve, json!({"o": other})).await;
    assert_eq!(refusal(&eve, &other).await.err().as_deref(), Some("UNAVAILABLE"));
    let mut late = Ws::raw(&eve).await;
    let payload = json!({"Authorization": format!("Bearer {}", eve.token.as_deref().unwrap())});
    late.send(json!({"type": "connection_init", "payload": payload})).await;
    assert_eq!(late.closed().await.0, 1013);
    drop(first);
    eventually("there is room again", async || refusal(&ada, &acme).await.is_ok()).await;
    // Nobody, and who is none of theirs.
    let nobody = server.nobody();
    assert_eq!(refusal(&nobody, &acme).await.err().as_deref(), Some("UNAUTHENTICATED"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_said_who_he_is_takes_no_place_and_is_counted() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_FEED__CONNECTIONS_MAX", "1")]).await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let mut silent = vec![];
    for _ in 0..100 {
        silent.push(Ws::raw(&ada).await);
    }
    assert!(matches!(connect(&ada, Some("graphql-transport-ws")).await, Err(WsError::Http(_))));
    Sse::open(&ada, json!({"o": id})).await.item().await;
    silent.pop();
    eventually("there is room again", async || connect(&ada, Some("graphql-transport-ws")).await.is_ok()).await;
    server.stop().await;

    let quotas = [
        ("TENANCY_RATE_LIMITS__ENABLED", "true"),
        ("TENANCY_RATE_LIMITS__ADDRESS_PER_MINUTE", "1"),
        ("TENANCY_RATE_LIMITS__ADDRESS_BURST", "2"),
        ("TENANCY_RATE_LIMITS__PRINCIPAL_READ_PER_MINUTE", "1"),
        ("TENANCY_RATE_LIMITS__PRINCIPAL_READ_BURST", "3"),
    ];
    let server = database.serve_with(&quotas).await;
    let (ada, eve) = (server.user("ada@example.com"), server.user("eve@example.com"));
    let mut ws = Ws::open(&eve).await;
    connect(&ada, Some("graphql-transport-ws")).await.unwrap();
    match connect(&ada, Some("graphql-transport-ws")).await {
        Err(WsError::Http(response)) => assert_eq!(response.status(), 429),
        other => panic!("{other:?}"),
    }
    // What cannot be parsed counts like what can.
    for expected in ["GRAPHQL_PARSE_FAILED", "GRAPHQL_PARSE_FAILED", "GRAPHQL_PARSE_FAILED", "RATE_LIMITED"] {
        let answer = Sse::document(&ada, "subscription {", json!({}), None).await.err().unwrap();
        assert_eq!(code(&answer["errors"][0]), expected, "{answer}");
        ws.send(json!({"type": "subscribe", "id": "a", "payload": {"query": "subscription {"}})).await;
        assert_eq!(code(&ws.next().await["payload"][0]), expected);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_cannot_be_read_is_shut_out_and_nobody_else() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, eve) = (server.user("ada@example.com"), server.user("eve@example.com"));
    let (ada, eve) = (ada.user_id().await.parse::<aggregates::ids::UserId>().unwrap(), eve.user_id().await);
    server.stop().await;
    let pool = database.pool().await;
    sqlx::raw_sql("ALTER TABLE events DISABLE TRIGGER USER").execute(&pool).await.unwrap();
    let spoilt = "UPDATE events SET payload = '{}' WHERE aggregate_id = $1";
    sqlx::query(spoilt).bind(&eve).execute(&pool).await.unwrap();
    let server = database.serve().await;
    let commands = &server.service().core().commands;
    let admitted = commands.admitted_now(&[eve.parse().unwrap(), ada.clone()]).await.unwrap();
    assert_eq!(admitted.into_iter().collect::<Vec<_>>(), [ada]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_the_feed_is_on_record_and_feeds_nothing() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let mut sse = Sse::open(&ada, json!({"o": id})).await;
    sse.item().await;
    for number in 0..5 {
        ada.create_project(&id, &format!("p-{number}")).await;
        assert_eq!(sse.action().await, "project.created");
    }
    let query =
        "query($o: ID!) { organization(by: {id: $o}) { accessTrail(last: 9) { nodes { kind operation times } } } }";
    eventually("it is on record", async || {
        let answer = ada.query(query, json!({"o": id})).await;
        *answer.at("/organization/accessTrail/nodes")
            == json!([
                {"kind": "AUDIT_READ", "operation": "auditEvents", "times": 1}
            ])
    })
    .await;
    drop(sse);
    server.stop().await;
}

/// The first thing that a subscription answers, as a response.
pub async fn first_answer(client: &Client, document: &str, variables: Value) -> Value {
    match Sse::document(client, document, variables, None).await {
        Ok(mut sse) => sse.event().await.unwrap().1,
        Err(answer) => answer,
    }
}
