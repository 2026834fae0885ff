//! What clients of other makers expect: pages of other origins, requests that hold for a whole operation, persisted
//! documents, subscriptions at the usual address.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Client, Database, Server};

async fn post(client: &Client, body: Value, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = client.http.post(&client.url).json(&body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(token) = &client.token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_configured_origins_may_call_and_no_others() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_HTTP__CORS_ORIGINS", "https://app.example.com")]).await;
    let http = reqwest::Client::new();
    let preflight = async |server: &Server, origin: &str| {
        http.request(reqwest::Method::OPTIONS, server.url("/graphql"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, content-type")
            .send()
            .await
            .unwrap()
    };
    let header = |response: &reqwest::Response, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_ascii_lowercase())
    };
    let allowed = preflight(&server, "https://app.example.com").await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(header(&allowed, "access-control-allow-origin").as_deref(), Some("https://app.example.com"));
    assert!(header(&allowed, "access-control-allow-methods").unwrap().contains("post"));
    let headers = header(&allowed, "access-control-allow-headers").unwrap();
    assert!(headers.contains("authorization") && headers.contains("content-type"), "{headers}");
    // A token is no cookie.
    assert_eq!(header(&allowed, "access-control-allow-credentials"), None);
    for origin in ["https://evil.example.com", "https://app.example.com.evil.example", "http://app.example.com", "null"]
    {
        assert_eq!(header(&preflight(&server, origin).await, "access-control-allow-origin"), None, "{origin}");
    }
    let ada = server.user("ada@example.com");
    let answer =
        post(&ada, json!({"query": "{ viewer { user { id } } }"}), &[("origin", "https://app.example.com")]).await;
    assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some("https://app.example.com"));
    let vary: Vec<_> = answer.headers().get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(vary.iter().any(|value| value.contains("origin")), "{vary:?}");
    assert!(header(&answer, "access-control-expose-headers").unwrap().contains("x-request-id"));
    server.stop().await;

    // Off by default.
    let server = database.serve().await;
    assert_eq!(header(&preflight(&server, "https://app.example.com").await, "access-control-allow-origin"), None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_in_the_extensions_holds_for_the_whole_operation() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_LIMITS__AT_LEAST_WAIT_MS_MAX", "300")]).await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let query = "query($id: ID!) { node(id: $id) { id } viewer { user { id } }
        organization(by: {id: $id}) { projects { nodes { slug } } } }";
    for number in 0..5 {
        let created = ada.create_project(&id, &format!("p{number}")).await;
        let extensions = json!({"atLeast": [created.text("/position")]});
        let body = json!({"query": query, "variables": {"id": id}, "extensions": extensions});
        let answer: Value = post(&ada, body, &[]).await.json().await.unwrap();
        assert_eq!(answer.get("errors"), None, "{answer}");
        let shown = answer["data"]["organization"]["projects"]["nodes"].as_array().unwrap();
        assert_eq!(shown.len(), number + 1, "what was just made is there: {answer}");
    }
    let code = async |at_least: Value| {
        let body = json!({"query": query, "variables": {"id": id}, "extensions": {"atLeast": at_least}});
        let answer: Value = post(&ada, body, &[]).await.json().await.unwrap();
        assert_eq!(answer.get("data"), None, "nothing is executed");
        answer["errors"][0]["extensions"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(json!("now")).await, "BAD_USER_INPUT");
    assert_eq!(code(json!(["nonsense"])).await, "BAD_USER_INPUT");
    assert_eq!(code(json!([7])).await, "BAD_USER_INPUT");
    // Relay asks for nodes without any other argument.
    assert_eq!(
        ada.fault("query($id: ID!) { node(id: $id, atLeast: []) { id } }", json!({"id": id})).await,
        "GRAPHQL_VALIDATION_FAILED"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_persisted_queries_fall_back() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let persisted = json!({"persistedQuery": {"version": 1, "sha256Hash": "0".repeat(64)}});
    let answer: Value = post(&ada, json!({"extensions": persisted}), &[]).await.json().await.unwrap();
    assert_eq!(answer["errors"][0]["message"], "PersistedQueryNotSupported");
    assert_eq!(answer["errors"][0]["extensions"]["code"], "PERSISTED_QUERY_NOT_SUPPORTED");
    // With the document it is executed.
    let body = json!({"query": "{ viewer { user { email } } }", "extensions": persisted});
    let answer: Value = post(&ada, body, &[]).await.json().await.unwrap();
    assert_eq!(answer["data"]["viewer"]["user"]["email"], "ada@example.com");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_answered_where_queries_are() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let query = "subscription($id: ID!) { auditEvents(organizationId: $id) { event { action } } }";
    let body = json!({"query": query, "variables": {"id": id}});
    for accept in ["text/event-stream", "application/graphql-response+json, application/json, text/event-stream"] {
        let mut response = post(&ada, body.clone(), &[("accept", accept)]).await;
        assert_eq!(response.status(), 200, "{accept}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        ada.create_project(&id, &format!("p{}", accept.len())).await;
        let mut text = String::new();
        while !text.contains("project.created") {
            let chunk =
                tokio::time::timeout(Duration::from_secs(10), response.chunk()).await.unwrap().unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        assert!(text.contains("event: next"), "{text}");
    }
    // A query of such a client is answered as any, and a subscription of another one is not.
    let both = [("accept", "application/json, text/event-stream")];
    let answer: Value =
        post(&ada, json!({"query": "{ viewer { user { email } } }"}), &both).await.json().await.unwrap();
    assert_eq!(answer["data"]["viewer"]["user"]["email"], "ada@example.com");
    assert_eq!(post(&ada, body.clone(), &[("accept", "application/json")]).await.status(), 400);
    assert_eq!(post(&server.nobody(), body, &[("accept", "text/event-stream")]).await.status(), 401);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_names_its_headers_as_the_rfc_does() {
    let database = Database::new().await;
    let server = database.serve().await;
    let mut stream = tokio::net::TcpStream::connect(server.service().address).await.unwrap();
    let head = "GET /graphql/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = [0; 2048];
    let read = stream.read(&mut buffer).await.unwrap();
    let answer = String::from_utf8_lossy(&buffer[..read]);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for line in
        ["Sec-WebSocket-Protocol: graphql-transport-ws\r\n", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"]
    {
        assert!(answer.contains(line), "{answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_stand_in_the_order_of_the_document() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, eve) = (server.user("ada@example.com"), server.user("eve@example.com"));
    let id = server.verified("acme", &ada).await;
    let hidden = ada.create_project(&id, "hidden").await.text("/project/id");
    let ghost = "prj_00000000000000000000000000";
    for (first, second) in [(hidden.as_str(), ghost), (ghost, hidden.as_str())] {
        for _ in 0..30 {
            let query = format!("{{ x: project(id: \"{first}\") {{ id }} y: project(id: \"{second}\") {{ id }} }}");
            let answer = eve.send(&query, json!({})).await;
            let paths: Vec<&Value> = answer["errors"].as_array().unwrap().iter().map(|error| &error["path"]).collect();
            assert_eq!(paths, [&json!(["x"]), &json!(["y"])], "{answer}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_name_what_they_are_about() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let message = async |query: &str, variables: Value| {
        let answer = ada.send(query, variables).await;
        answer["errors"][0]["message"].as_str().unwrap().to_owned()
    };
    let missing = message("mutation { createOrganization { __typename } }", json!({})).await;
    assert_eq!(missing, "Field \"createOrganization\" argument \"input\" is missing: it has to be given");
    let both = message("{ organization(by: {id: \"a\", slug: \"b\"}) { id } }", json!({})).await;
    assert!(both.ends_with("give exactly one of its fields, and not null"), "{both}");
    let query =
        reqwest::Client::new().get(server.url("/events")).bearer_auth(ada.token.as_deref().unwrap()).send().await;
    let text = query.unwrap().text().await.unwrap();
    assert!(text.contains("the query string cannot be read: missing field `organization`"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_would_not_be_understood_are_refused() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let set = async |namespace: &str, value: Value| {
        let input = json!({"organizationId": id, "namespace": namespace, "value": value});
        ada.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, "__typename").await
    };
    let refused = set("policies", json!({"tokensOfRemovedMember": "revoke"})).await;
    assert_eq!(refused.refusal(), Some("INVALID_INPUT"));
    assert!(refused.text("/errors/0/message").contains("tokensOfRemovedMembers"), "{refused:?}");
    assert!(set("policies", json!({"tokensOfRemovedMembers": "revoke"})).await.accepted());
    assert!(set("branding", json!({"tokensOfRemovedMember": 1})).await.accepted());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_address_takes_an_invitation() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_ACCESS__OPERATORS", "mike@example.com")]).await;
    let ada = server.user("ada@example.com");
    let id = server.verified("acme", &ada).await;
    let token = ada.invite(&id, "mike@example.com", &["member"]).await.text("/token");
    // U+212A, the Kelvin sign, folds to k.
    let kelvin = server.user("mi\u{212a}e@example.com");
    assert_eq!(kelvin.accept(&token).await.refusal(), Some("INVITATION_WRONG_RECIPIENT"));
    let operator = "{ viewer { operator } }";
    assert_eq!(kelvin.query(operator, json!({})).await.at("/viewer/operator"), &json!(false));
    let mike = server.user("MIKE@Example.com");
    assert_eq!(mike.query(operator, json!({})).await.at("/viewer/operator"), &json!(true));
    assert!(mike.accept(&token).await.accepted());
    assert_eq!(ada.invite(&id, " joe@example.com", &["member"]).await.refusal(), Some("INVALID_INPUT"));
    server.stop().await;
}
