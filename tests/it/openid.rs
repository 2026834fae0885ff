//! Tokens of OpenID providers through the whole service: one that is there, and one that is not.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Database, Server};

/// The status, and the answer.
async fn viewer(server: &Server, token: &str) -> (u16, Value) {
    let request = reqwest::Client::new().post(server.url("/graphql")).bearer_auth(token);
    let request = request.header("accept", "application/graphql-response+json");
    let response = request.json(&json!({"query": "{ viewer { user { email } operator } }"})).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn code(response: &Value) -> &str {
    response["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{response}"))
}

async fn serve_provider(listener: TcpListener, issuer: &str, key: &SigningKey) {
    let discovery = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}).to_string();
    let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]}).to_string();
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(async move || discovery))
        .route("/keys", get(async move || keys));
    tokio::spawn(async move { axum::serve(listener, router).await });
}

fn token(issuer: &str, key: &SigningKey) -> String {
    let now = chrono::Utc::now().timestamp();
    let claims = json!({
        "iss": issuer, "aud": "tenancy", "sub": "ada", "iat": now, "exp": now + 600,
        "email": "Ada@example.com", "email_verified": "true", "operator": true,
    });
    let header = Header { kid: Some("1".to_owned()), ..Header::new(Algorithm::EdDSA) };
    let key = EncodingKey::from_ed_der(key.to_pkcs8_der().unwrap().as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_provider_count_and_another_that_is_away_holds_up_nobody() {
    let (here, key) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), SigningKey::from_bytes(&rand::random()));
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let address = |address: SocketAddr| format!("http://{address}");
    let (issuer, away) = (address(here.local_addr().unwrap()), address(away));
    serve_provider(here, &issuer, &key).await;
    let providers = json!([{"issuer": away, "audience": "tenancy"}, {"issuer": issuer, "audience": ["tenancy"]}]);
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_ACCESS__PROVIDERS", &providers.to_string())]).await;

    let (status, response) = viewer(&server, &token(&issuer, &key)).await;
    let expected = json!({"user": {"email": "Ada@example.com"}, "operator": false});
    assert_eq!((status, &response["data"]["viewer"]), (200, &expected), "{response}");
    let (status, response) = viewer(&server, &token(&away, &key)).await;
    assert_eq!((status, code(&response)), (503, "UNAVAILABLE"), "{response}");
    let stranger = SigningKey::from_bytes(&rand::random());
    for refused in [token(&issuer, &stranger), token("https://elsewhere.example.com", &key)] {
        let (status, response) = viewer(&server, &refused).await;
        assert_eq!((status, code(&response)), (401, "UNAUTHENTICATED"), "{response}");
    }
    assert_eq!(
        viewer(&server, &server.token("ben@example.com", false)).await.0,
        200,
        "the built-in issuer is there too"
    );
    server.stop().await;
}
