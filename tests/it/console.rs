//! The console as browsers are given it, and signing in to it by a one-time code.

use std::process::Output;

use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::support::{self, Database, Server, check_log};

async fn link(database: &Database, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.env_clear().envs(database.variables(variables)).arg("console").args(arguments).output().await.unwrap()
}

/// A code, from the link that the command prints.
async fn code(database: &Database, arguments: &[&str]) -> String {
    let output = link(database, arguments, &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().split_once("/console/#code=").unwrap_or_else(|| panic!("{text}")).1.to_owned()
}

fn ask(server: &Server, body: &Value) -> RequestBuilder {
    Client::new().post(server.url("/console/session")).header("tenancy-console", "1").json(body)
}

fn cookie(answer: &Response) -> String {
    answer.headers()[header::SET_COOKIE].to_str().unwrap().to_owned()
}

async fn get(server: &Server, path: &str) -> Response {
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    client.get(server.url(path)).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_leads_to_the_console_which_may_load_nothing_from_elsewhere() {
    let database = Database::new().await;
    let server = database.serve().await;
    let root = get(&server, "/").await;
    assert!(root.status().is_redirection() && root.headers()[header::LOCATION] == "/console/");
    let page = get(&server, "/console/").await;
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';") && !policy.contains("unsafe")
    );
    assert!(policy.contains("connect-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
    // A page of the console begins as the first one; a file that is none does not.
    assert_eq!(get(&server, "/console/organizations/acme/members").await.status(), StatusCode::OK);
    assert_eq!(get(&server, "/console/assets/gone.js").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&server, "/graphiql").await.status(), StatusCode::OK);
    let config: Value = get(&server, "/console/config.json").await.json().await.unwrap();
    assert_eq!(config["signIn"], json!({"kind": "local"}));
    server.stop().await;

    let server = database.serve_with(&[("TENANCY_HTTP__CONSOLE", "false")]).await;
    assert_eq!(get(&server, "/").await.headers()[header::LOCATION], "/graphiql");
    for path in ["/console/", "/console/config.json"] {
        assert_eq!(get(&server, path).await.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(ask(&server, &json!({})).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_signs_an_operator_in_once_and_the_session_gives_tokens() {
    let database = Database::new().await;
    let server = database.serve().await;
    let code = code(&database, &["--email", "ada@example.com", "--name", "Ada"]).await;
    let answer = ask(&server, &json!({"code": code})).send().await.unwrap();
    assert_eq!(
        (answer.status(), answer.headers()[header::CACHE_CONTROL].to_str().unwrap()),
        (StatusCode::OK, "no-store")
    );
    let set = cookie(&answer);
    assert!(
        set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Path=/console/session"),
        "{set}"
    );
    let given: Value = answer.json().await.unwrap();
    let with = |token: &Value| support::Client { token: Some(token.as_str().unwrap().to_owned()), ..server.operator() };
    let ada = with(&given["token"]).query("{ viewer { operator user { email } } }", json!({})).await;
    assert_eq!(ada.at("/viewer/operator"), &json!(true));
    assert_eq!(ada.at("/viewer/user/email"), &json!("ada@example.com"));
    // Once.
    assert_eq!(ask(&server, &json!({"code": code})).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    // The cookie gives tokens, and is none.
    let session = set.split(';').next().unwrap().to_owned();
    let again = ask(&server, &json!({})).header(header::COOKIE, &session).send().await.unwrap();
    assert!(again.status() == StatusCode::OK && again.headers().get(header::SET_COOKIE).is_none());
    let again: Value = again.json().await.unwrap();
    assert_eq!(
        with(&again["token"]).query("{ viewer { operator } }", json!({})).await.at("/viewer/operator"),
        &json!(true)
    );
    let value = session.split_once('=').unwrap().1;
    let refused = with(&json!(value)).send("{ viewer { operator } }", json!({})).await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], json!("UNAUTHENTICATED"), "{refused}");
    // A token of the API is no session either.
    let token = format!("tenancy-console={}", given["token"].as_str().unwrap());
    let answer = ask(&server, &json!({})).header(header::COOKIE, token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    // A page of another site has neither the header nor, by itself, JSON.
    let url = server.url("/console/session");
    let bare = Client::new().post(&url).header(header::COOKIE, &session).json(&json!({}));
    assert_eq!(bare.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let form = Client::new().post(&url).header(header::COOKIE, &session).header("tenancy-console", "1").body("{}");
    assert_eq!(form.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(Client::new().delete(&url).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let ended = Client::new().delete(&url).header("tenancy-console", "1").send().await.unwrap();
    assert!(ended.status() == StatusCode::NO_CONTENT && cookie(&ended).contains("Max-Age=0"));
    for wrong in [json!({"code": 1}), json!([]), json!({"code": "x", "more": true})] {
        assert_eq!(ask(&server, &wrong).send().await.unwrap().status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    let long = json!({"code": "x".repeat(5_000)});
    assert_eq!(ask(&server, &long).send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_are_for_a_service_that_only_this_machine_reaches() {
    let database = Database::new().await;
    let provider =
        r#"[{issuer = "https://login.example.com", audience = ["tenancy", "console"], console_client = "console"}]"#;
    let variables = [("TENANCY_LISTEN", "0.0.0.0:0"), ("TENANCY_ACCESS__PROVIDERS", provider)];
    let server = database.serve_with(&variables).await;
    let config: Value = get(&server, "/console/config.json").await.json().await.unwrap();
    let expected = json!({
        "kind": "oidc", "issuer": "https://login.example.com", "clientId": "console", "scopes": "openid email profile offline_access"
    });
    assert_eq!(config["signIn"], expected);
    let page = get(&server, "/console/").await;
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("connect-src 'self' https://login.example.com;"), "{policy}");
    let code = code(&database, &[]).await;
    assert!(!ask(&server, &json!({"code": code})).send().await.unwrap().status().is_success());
    let output = link(&database, &[], &variables).await;
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("console_client"),
        "{output:?}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demonstration_fills_a_fresh_installation_and_no_other() {
    let database = Database::new().await;
    let demo = async || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenancy"));
        command.env_clear().envs(database.variables(&[])).arg("demo").output().await.unwrap()
    };
    let output = demo().await;
    assert!(output.status.success(), "{output:?}");
    let server = database.serve().await;
    let query = "{ organizations(first: 50) { nodes { slug verification } } }";
    let found = server.operator().query(query, json!({})).await;
    let nodes = found.at("/organizations/nodes").as_array().unwrap().clone();
    for verification in ["IN_SETUP", "PENDING", "WAITLISTED", "VERIFIED", "REJECTED", "BLOCKED"] {
        assert!(
            nodes.iter().any(|node| node["verification"] == json!(verification)),
            "none is {verification}: {nodes:?}"
        );
    }
    check_log(&database.pool().await).await;
    let output = demo().await;
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--data-dir"), "{output:?}");
    server.stop().await;
}
