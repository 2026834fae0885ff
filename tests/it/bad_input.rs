//! Bad input gets the contract's code and a message that says what was wrong and what would be right; never a 500,
//! never a panic, nothing written.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Database, Server, nobody_id};

async fn events(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&database.pool().await).await.unwrap()
}

async fn post(server: &Server, body: &str, token: Option<&str>) -> (u16, Value) {
    let mut request = reqwest::Client::new()
        .post(server.url("/graphql"))
        .header("content-type", "application/json")
        .header("accept", "application/graphql-response+json")
        .body(body.to_owned());
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn code(response: &Value) -> &str {
    response["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{response}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_and_tokens_that_cannot_be_read() {
    let database = Database::new().await;
    let server = database.serve().await;
    let query = |text: &str| json!({"query": text}).to_string();
    let deep = "{a".repeat(5_000);
    let cases = [
        ("{", 400, "BAD_USER_INPUT"),
        ("[]", 400, "BAD_USER_INPUT"),
        (r#"{"query": 5}"#, 400, "BAD_USER_INPUT"),
        (&query("{ viewer {"), 400, "GRAPHQL_PARSE_FAILED"),
        (&query(&deep), 400, "QUERY_TOO_EXPENSIVE"),
        (&query("{ nothing }"), 400, "GRAPHQL_VALIDATION_FAILED"),
        (&query("mutation { createProject(input: {}) { replayed } }"), 400, "GRAPHQL_VALIDATION_FAILED"),
        (&query("{ viewer { operator } }"), 200, "UNAUTHENTICATED"),
    ];
    for (body, status, expected) in cases {
        let (found, response) = post(&server, body, None).await;
        assert_eq!((found, code(&response)), (status, expected), "{:.80}", body);
    }
    let good = server.token("ada@example.com", false);
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("no token") };
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{claims}.", encode(json!({"alg": "none", "typ": "JWT"})));
    let hs256 = format!("{}.{claims}.{signature}", encode(json!({"alg": "HS256", "typ": "JWT"})));
    let mut forged: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    forged["operator"] = json!(true);
    let forged = format!("{header}.{}.{signature}", encode(forged));
    let issuer = server.service().issuer.as_ref().unwrap();
    let grant = |seconds: i64| tenancy::access::issuer::Grant {
        email: "ada@example.com".into(),
        name: None,
        operator: false,
        ttl: chrono::TimeDelta::seconds(seconds),
    };
    let expired = issuer.mint(&grant(-120)).unwrap();
    let bearer = |token: &str| format!("Bearer {token}");
    let long = "x".repeat(10_000);
    for token in [none, hs256, forged, expired, String::new(), "x".into(), long] {
        let (status, response) = post(&server, &query("{ viewer { operator } }"), Some(&bearer(&token))).await;
        assert_eq!((status, code(&response)), (401, "UNAUTHENTICATED"), "{:.60}", token);
    }
    assert_eq!(post(&server, &query("{ viewer { operator } }"), Some("Basic eDp5")).await.0, 401);
    assert_eq!(events(&database).await, 0, "nobody was let in, so nobody was registered");
    let too_large = query(&" ".repeat(300_000));
    let (status, _) = post(&server, &too_large, None).await;
    assert_eq!(status, 413);
    server.stop().await;
}

/// A connection that is closed while somebody sends is reset, and the sender never sees why it was refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_though_the_body_is_still_on_its_way() {
    let database = Database::new().await;
    let server = database.serve().await;
    let host = server.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let cases = [
        ("content-type: application/json\r\n", "413"),
        ("content-type: application/json\r\nauthorization: Bearer x\r\n", "401"),
        ("content-type: text/plain\r\n", "415"),
    ];
    for (headers, status) in cases {
        let mut connection = TcpStream::connect(&host).await.unwrap();
        let piece = [b' '; 40_000];
        let head = format!("POST /graphql HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: 400000\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..10 {
            // Long enough for a refusal to be ready, and for a server that hung up to have done so.
            tokio::time::sleep(Duration::from_millis(50)).await;
            connection.write_all(&piece).await.unwrap_or_else(|error| panic!("{status}: {error}"));
        }
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_cannot_be_accepted() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let operator = server.operator();
    let id = server.verified("acme", &owner).await;
    operator.user_id().await;
    let before = events(&database).await;

    let page = "query($id: ID!, $first: Int, $last: Int, $after: String, $at: [Position!]) { organization(by: {id: $id}, atLeast: $at) {
        members(first: $first, last: $last, after: $after) { nodes { id } } } }";
    let other_epoch = URL_SAFE_NO_PAD.encode("9.0-1");
    let no_partition = URL_SAFE_NO_PAD.encode("1.4000-1");
    let queries = [
        (json!({"id": id, "first": 0}), "BAD_USER_INPUT"),
        (json!({"id": id, "first": -1}), "BAD_USER_INPUT"),
        (json!({"id": id, "last": 101}), "BAD_USER_INPUT"),
        (json!({"id": id, "first": 1, "last": 1}), "BAD_USER_INPUT"),
        (json!({"id": id, "first": 4_294_967_296_u64}), "BAD_USER_INPUT"),
        (json!({"id": id, "after": "nonsense"}), "BAD_USER_INPUT"),
        (json!({"id": id, "after": URL_SAFE_NO_PAD.encode("#5")}), "BAD_USER_INPUT"),
        (json!({"id": id, "at": ["nonsense"]}), "BAD_USER_INPUT"),
        (json!({"id": id, "at": [other_epoch]}), "POSITION_UNKNOWN"),
        (json!({"id": id, "at": [no_partition]}), "POSITION_UNKNOWN"),
        (json!({"id": "org_x"}), "BAD_USER_INPUT"),
        (json!({"id": nobody_id()}), "BAD_USER_INPUT"),
    ];
    for (variables, expected) in queries {
        assert_eq!(owner.fault(page, variables.clone()).await, expected, "{variables}");
    }

    let small = database.serve_with(&[("TENANCY_LIMITS__PAGE_SIZE_MAX", "3")]).await;
    let owner_there = small.user("owner@example.com");
    owner_there.query(page, json!({"id": id, "first": 3})).await;
    assert_eq!(owner_there.fault(page, json!({"id": id, "first": 4})).await, "BAD_USER_INPUT");
    small.stop().await;

    let long = |length: usize| "x".repeat(length);
    let project = |name: &str, slug: &str, metadata: Value| json!({"organizationId": id, "name": name, "slug": slug, "metadata": metadata});
    let inputs = [
        (project("", "a", json!({})), "name"),
        (project(&long(201), "a", json!({})), "name"),
        (project("a\u{0}b", "a", json!({})), "name"),
        (project("Pаypal", "a", json!({})), "name"),
        (project("a", "", json!({})), "slug"),
        (project("a", "-a", json!({})), "slug"),
        (project("a", &long(64), json!({})), "slug"),
        (project("a", "a", json!({"a": long(17_000)})), "metadata"),
        (project("a", "a", json!({"a": "b\u{0}"})), "metadata"),
        (project("a", "a", json!([1])), "metadata"),
    ];
    for (input, field) in inputs {
        let answer = owner.run("createProject", "CreateProjectInput", input.clone(), "project { id }").await;
        assert_eq!(answer.refusal(), Some("INVALID_INPUT"), "{:.200} {answer:?}", input.to_string());
        assert_eq!(answer.at("/errors/0/path"), &json!(["input", field]));
        assert!(answer.text("/errors/0/message").len() > 20);
    }
    for slug in ["admin", "GraphQL"] {
        let answer = owner
            .run("createOrganization", "CreateOrganizationInput", json!({"name": "x", "slug": slug}), "__typename")
            .await;
        assert_eq!(answer.refusal(), Some("INVALID_INPUT"), "{slug}");
    }
    for (email, roles) in [("nobody", vec!["member"]), ("a@example.com", vec![]), ("a@example.com", vec!["king"])] {
        assert_eq!(owner.invite(&id, email, &roles).await.refusal(), Some("INVALID_INPUT"), "{email} {roles:?}");
    }
    let limit = |value: Value| json!({"organizationId": id, "limit": "members", "value": value, "reason": "x"});
    for value in [json!({"maximum": -1}), json!({"maximum": 1_u64 << 60}), json!({"maximum": 1, "unlimited": true})] {
        let answer =
            operator.run("setOrganizationLimit", "SetOrganizationLimitInput", limit(value.clone()), "__typename").await;
        assert!(
            ["BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"].contains(&answer.fault().unwrap()),
            "{value}: {answer:?}"
        );
    }
    let far = operator
        .run(
            "setOrganizationLimit",
            "SetOrganizationLimitInput",
            limit(json!({"maximum": 5_000_000_000_u64})),
            "organization { limits { maximum } }",
        )
        .await;
    assert_eq!(far.at("/organization/limits/0/maximum"), &json!(5_000_000_000_u64));
    let key = json!({"organizationId": id, "name": "x", "slug": "x", "idempotencyKey": ""});
    assert_eq!(
        owner.run("createProject", "CreateProjectInput", key, "__typename").await.fault(),
        Some("BAD_USER_INPUT")
    );
    assert_eq!(owner.accept("nonsense").await.fault(), Some("NOT_FOUND"));
    assert_eq!(operator.review("blockOrganization", "usr_x").await.fault(), Some("BAD_USER_INPUT"));
    let silent = json!({"organizationId": id, "reason": "  "});
    let answer = operator.run("blockOrganization", "OrganizationReviewInput", silent, "__typename").await;
    assert_eq!(answer.refusal(), Some("INVALID_INPUT"));
    assert_eq!(events(&database).await, before + 1, "only the one limit was set");
    server.stop().await;
}
