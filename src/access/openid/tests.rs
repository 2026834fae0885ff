//! A provider of our own on this machine. The private keys beside this file were made for these tests and nothing else.

use std::net::SocketAddr;
use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::SeqCst};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::access::{Verifier, Verifiers};

const RSA: &str = include_str!("testdata/rsa.pem");
const P256: &str = include_str!("testdata/p256.pem");
const P384: &str = include_str!("testdata/p384.pem");

/// A provider's server, and what it answers.
struct Mock {
    address: SocketAddr,
    answers: Arc<Answers>,
}

#[derive(Default)]
struct Answers {
    jwks: Lock<String>,
    /// What discovery says.
    issuer: Lock<String>,
    jwks_uri: Lock<String>,
    cache_control: Lock<String>,
    /// Where `/keys` sends on to.
    location: Lock<Option<String>>,
    status: AtomicU16,
    delay_ms: AtomicU64,
    /// How often the keys were asked for.
    asked: AtomicUsize,
}

async fn answer(State(answers): State<Arc<Answers>>, uri: Uri) -> Response {
    if uri.path() == "/keys" {
        answers.asked.fetch_add(1, SeqCst);
    }
    tokio::time::sleep(Duration::from_millis(answers.delay_ms.load(SeqCst))).await;
    let status = StatusCode::from_u16(answers.status.load(SeqCst)).unwrap();
    let text = |lock: &Lock<String>| lock.lock().unwrap().clone();
    match (uri.path(), answers.location.lock().unwrap().clone()) {
        ("/.well-known/openid-configuration", _) => {
            let found = json!({"issuer": text(&answers.issuer), "jwks_uri": text(&answers.jwks_uri)});
            (status, found.to_string()).into_response()
        }
        ("/keys", Some(location)) => (StatusCode::FOUND, [("location", location)]).into_response(),
        ("/keys" | "/moved", _) => {
            (status, [("cache-control", text(&answers.cache_control))], text(&answers.jwks)).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Mock {
    async fn start(signers: &[&Signer]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), signers).await
    }

    async fn start_at(address: SocketAddr, signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mock = Self { address, answers: Arc::default() };
        *mock.answers.issuer.lock().unwrap() = mock.issuer();
        *mock.answers.jwks_uri.lock().unwrap() = format!("{}/keys", mock.issuer());
        mock.answers.status.store(200, SeqCst);
        mock.publish(signers);
        let router = Router::new().fallback(answer).with_state(mock.answers.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        mock
    }

    fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk.clone()).collect();
        *self.answers.jwks.lock().unwrap() = json!({ "keys": keys }).to_string();
    }

    fn issuer(&self) -> String {
        issuer(self.address)
    }

    fn asked(&self) -> usize {
        self.answers.asked.load(SeqCst)
    }

    fn settings(&self) -> config::Provider {
        settings(&self.issuer())
    }

    fn provider(&self) -> Arc<Provider> {
        provider(self.settings(), PACE)
    }

    /// What a good token of it says.
    fn claims(&self) -> Value {
        claims(&self.issuer())
    }

    fn token(&self, signer: &Signer) -> String {
        signer.token(self.claims())
    }
}

fn issuer(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn settings(issuer: &str) -> config::Provider {
    config::Provider {
        issuer: issuer.to_owned(),
        audience: vec!["tenancy".to_owned(), "other".to_owned()],
        jwks_url: None,
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        clock_leeway_seconds: None,
        subject_claim: "sub".to_owned(),
        email_claim: "email".to_owned(),
        email_verified_claim: "email_verified".to_owned(),
        name_claim: "name".to_owned(),
        organization: None,
        console_client: None,
    }
}

fn provider(settings: config::Provider, pace: Pace) -> Arc<Provider> {
    Arc::new(Provider::paced(settings, 30, pace).unwrap())
}

fn claims(issuer: &str) -> Value {
    let now = Utc::now().timestamp();
    json!({"iss": issuer, "aud": ["else", "tenancy"], "sub": "ada", "iat": now, "exp": now + 600})
}

/// Signs tokens.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    kid: Option<&'static str>,
    jwk: Value,
}

impl Signer {
    fn rsa(kid: &'static str) -> Self {
        Self::of(Algorithm::RS256, EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(), kid)
    }

    fn p256(kid: &'static str) -> Self {
        Self::of(Algorithm::ES256, EncodingKey::from_ec_pem(P256.as_bytes()).unwrap(), kid)
    }

    fn p384(kid: &'static str) -> Self {
        Self::of(Algorithm::ES384, EncodingKey::from_ec_pem(P384.as_bytes()).unwrap(), kid)
    }

    fn of(algorithm: Algorithm, key: EncodingKey, kid: &'static str) -> Self {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        Self { algorithm, key, kid: Some(kid), jwk }
    }

    /// A new key each time.
    fn ed(kid: &'static str) -> Self {
        let secret = SigningKey::from_bytes(&rand::random());
        let key = EncodingKey::from_ed_der(secret.to_pkcs8_der().unwrap().as_bytes());
        let x = URL_SAFE_NO_PAD.encode(secret.verifying_key().as_bytes());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid});
        Self { algorithm: Algorithm::EdDSA, key, kid: Some(kid), jwk }
    }

    fn without_kid(mut self) -> Self {
        self.kid = None;
        self.jwk.as_object_mut().unwrap().remove("kid");
        self
    }

    fn head(&self) -> Value {
        let mut head = json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT"});
        if let Some(kid) = self.kid {
            head["kid"] = json!(kid);
        }
        head
    }

    fn token(&self, claims: Value) -> String {
        self.token_with(self.head(), claims)
    }

    fn token_with(&self, head: Value, claims: Value) -> String {
        signed(head, claims, |message| jsonwebtoken::crypto::sign(message, &self.key, self.algorithm).unwrap())
    }
}

fn signed(head: Value, claims: Value, sign: impl FnOnce(&[u8]) -> String) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(head), part(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{signature}")
}

fn with(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

fn refusal(result: Result<Identity, Denied>) -> String {
    match result {
        Err(Denied::Refused(refused)) => refused.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

fn is_away(result: Result<Identity, Denied>) -> bool {
    match result {
        Err(Denied::Unavailable(message)) => message.contains("cannot be reached"),
        _ => false,
    }
}

/// As if the time between two fetches were over.
async fn after_the_gap(provider: &Provider) {
    *provider.last.lock().await = None;
}

#[tokio::test]
async fn accepts_tokens_by_the_keys_that_discovery_leads_to() {
    let signers = [Signer::rsa("r"), Signer::p256("e"), Signer::p384("f"), Signer::ed("d")];
    let mock = Mock::start(&signers.iter().collect::<Vec<_>>()).await;
    let mut settings = mock.settings();
    settings.algorithms.extend([Algorithm::ES384]);
    let provider = provider(settings, PACE);
    for signer in &signers {
        let identity = provider.verify(&mock.token(signer)).await.unwrap();
        assert_eq!((identity.issuer, identity.subject), (mock.issuer(), "ada".to_owned()));
        assert!(!identity.operator);
    }
    let typed = signers[0].token_with(with(signers[0].head(), "typ", json!("application/at+JWT")), mock.claims());
    assert!(provider.verify(&typed).await.is_ok());
    assert_eq!(mock.asked(), 1);
}

#[tokio::test]
async fn accepts_tokens_by_the_keys_of_a_configured_address() {
    let signer = Signer::ed("d");
    let mock = Mock::start(&[&signer]).await;
    let mut settings = settings("https://login.example.com");
    settings.jwks_url = Some(format!("{}/keys", mock.issuer()).parse().unwrap());
    let provider = provider(settings, PACE);
    assert!(provider.verify(&signer.token(claims("https://login.example.com"))).await.is_ok());
    assert!(refusal(provider.verify(&mock.token(&signer)).await).contains("not of the issuer"));
}

#[tokio::test]
async fn refuses_what_is_forged_foreign_old_early_or_for_another_use() {
    let (rsa, ed, stranger) = (Signer::rsa("r"), Signer::ed("d"), Signer::ed("d"));
    let mock = Mock::start(&[&rsa, &ed]).await;
    let provider = mock.provider();
    let (now, good) = (Utc::now().timestamp(), || mock.claims());
    let said = |key: &str, to: Value| ed.token(with(good(), key, to));
    let headed = |key: &str, to: Value| ed.token_with(with(ed.head(), key, to), good());
    let secret = |jwk: &Value, part: &str| {
        let key = EncodingKey::from_secret(&URL_SAFE_NO_PAD.decode(jwk[part].as_str().unwrap()).unwrap());
        let head = json!({"alg": "HS256", "typ": "JWT", "kid": jwk["kid"]});
        signed(head, good(), |message| jsonwebtoken::crypto::sign(message, &key, Algorithm::HS256).unwrap())
    };
    let tampered = {
        let parts: Vec<String> = mock.token(&ed).split('.').map(str::to_owned).collect();
        let other = URL_SAFE_NO_PAD.encode(with(good(), "sub", json!("eve")).to_string());
        format!("{}.{other}.{}", parts[0], parts[2])
    };
    let rs512 = {
        let head = with(rsa.head(), "alg", json!("RS512"));
        signed(head, good(), |message| jsonwebtoken::crypto::sign(message, &rsa.key, Algorithm::RS512).unwrap())
    };
    let wrong = [
        (signed(json!({"alg": "none"}), good(), |_| String::new()), "signed by \"none\""),
        (secret(&rsa.jwk, "n"), "signed by \"HS256\""),
        (secret(&ed.jwk, "x"), "signed by \"HS256\""),
        (rs512, "signed by \"RS512\""),
        (headed("kid", json!("r")), "not one for EdDSA"),
        (stranger.token(good()), "not signed by the key"),
        (tampered, "not signed by the key"),
        (said("iss", json!("https://elsewhere")), "not of the issuer"),
        (said("iss", json!(null)), "nothing of iss"),
        (said("aud", json!("elsewhere")), "not made for tenancy or other"),
        (said("aud", json!([])), "not made for"),
        (said("aud", json!(null)), "nothing of aud"),
        (said("exp", json!(now - 60)), "expired"),
        (said("exp", json!(null)), "nothing of exp"),
        (said("nbf", json!(now + 60)), "not valid yet"),
        (said("nbf", json!("soon")), "nbf cannot be read"),
        (said("iat", json!(now + 60)), "future"),
        (said("iat", json!("now")), "iat cannot be read"),
        (said("sub", json!("")), "subject"),
        (said("sub", json!("a\u{0}")), "subject"),
        (said("sub", json!("x".repeat(256))), "subject"),
        (said("sub", json!(5)), "nothing of sub"),
        (headed("typ", json!("logout+jwt")), "is a \"logout+jwt\""),
        (headed("crit", json!(["exp"])), "critical"),
        ("a.b.c".to_owned(), "no token"),
        (String::new(), "no token"),
    ];
    for (token, why) in wrong {
        let refused = refusal(provider.verify(&token).await);
        assert!(refused.contains(why), "{why}: {refused}");
        let secret = token.split('.').nth(2).filter(|signature| signature.len() > 1);
        assert!(!secret.is_some_and(|signature| refused.contains(signature)), "{refused}");
    }
    // The clock may be off by a little.
    for token in [said("exp", json!(now - 20)), said("nbf", json!(now + 20)), said("iat", json!(now as f64 + 20.5))] {
        assert!(provider.verify(&token).await.is_ok());
    }
}

#[tokio::test]
async fn a_token_is_checked_by_the_keys_of_the_issuer_that_it_names_and_no_other() {
    let (one, other) = (Signer::ed("same"), Signer::ed("same"));
    let (first, second) = (Mock::start(&[&one]).await, Mock::start(&[&other]).await);
    let verifiers = Verifiers([&first, &second].map(|mock| Verifier::OpenId(mock.provider())).into_iter().collect());
    assert_eq!(verifiers.verify(&first.token(&one)).await.unwrap().issuer, first.issuer());
    assert_eq!(verifiers.verify(&second.token(&other)).await.unwrap().issuer, second.issuer());
    assert!(refusal(verifiers.verify(&first.token(&other)).await).contains("not signed by the key"));
    assert!(refusal(verifiers.verify(&one.token(claims("https://nobody"))).await).contains("not configured"));
}

#[tokio::test]
async fn ten_first_calls_at_once_fetch_once() {
    let signer = Signer::ed("d");
    let mock = Mock::start(&[&signer]).await;
    mock.answers.delay_ms.store(100, SeqCst);
    let (provider, token) = (mock.provider(), mock.token(&signer));
    let calls = (0..10).map(|_| provider.verify(&token));
    for result in futures_util::future::join_all(calls).await {
        assert!(result.is_ok(), "{result:?}");
    }
    assert_eq!(mock.asked(), 1);
}

#[tokio::test]
async fn a_caller_who_hangs_up_leaves_the_answer_to_those_who_wait() {
    let signer = Signer::ed("d");
    let mock = Mock::start(&[&signer]).await;
    mock.answers.delay_ms.store(200, SeqCst);
    let (provider, token) = (mock.provider(), mock.token(&signer));
    let hasty = tokio::time::timeout(Duration::from_millis(50), provider.verify(&token)).await;
    assert!(hasty.is_err());
    assert!(provider.verify(&token).await.is_ok());
    assert_eq!(mock.asked(), 1);
}

#[tokio::test]
async fn made_up_keys_make_it_ask_once_in_ten_seconds() {
    let (signer, made_up) = (Signer::ed("d"), Signer::ed("made up"));
    let mock = Mock::start(&[&signer]).await;
    let provider = mock.provider();
    assert!(provider.verify(&mock.token(&signer)).await.is_ok());
    assert_eq!(mock.asked(), 1);
    let token = mock.token(&made_up);
    for round in 2..4 {
        after_the_gap(&provider).await;
        for result in futures_util::future::join_all((0..20).map(|_| provider.verify(&token))).await {
            assert!(refusal(result).contains("not signed by a key"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(refusal(provider.verify(&token).await).contains("\"made up\""));
        assert_eq!(mock.asked(), round);
    }
}

#[tokio::test]
async fn a_new_key_counts_from_its_first_token_and_a_withdrawn_one_no_longer() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let mock = Mock::start(&[&old]).await;
    let provider = mock.provider();
    assert!(provider.verify(&mock.token(&old)).await.is_ok());
    mock.publish(&[&new]);
    after_the_gap(&provider).await;
    assert!(provider.verify(&mock.token(&new)).await.is_ok());
    assert!(refusal(provider.verify(&mock.token(&old)).await).contains("not signed by a key"));
}

#[tokio::test]
async fn a_token_without_a_kid_is_accepted_if_one_key_alone_fits() {
    let (rsa, one) = (Signer::rsa("r"), Signer::ed("d").without_kid());
    let mock = Mock::start(&[&rsa, &one]).await;
    let provider = mock.provider();
    assert!(provider.verify(&mock.token(&one)).await.is_ok());
    // Its key is another one now; nothing but the signature can tell.
    let next = Signer::ed("d").without_kid();
    mock.publish(&[&rsa, &next]);
    after_the_gap(&provider).await;
    assert!(provider.verify(&mock.token(&next)).await.is_ok());
    assert!(refusal(provider.verify(&mock.token(&one)).await).contains("not signed by a key"));
    mock.publish(&[&one, &next]);
    after_the_gap(&provider).await;
    assert!(provider.refresh().await.is_ok());
    assert!(refusal(provider.verify(&mock.token(&next)).await).contains("several keys"));
}

#[tokio::test]
async fn a_provider_that_is_down_at_the_start_is_found_when_it_comes_up() {
    let signer = Signer::ed("d");
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pace = Pace { gap: Duration::from_millis(50), ..PACE };
    let provider = provider(settings(&issuer(address)), pace);
    tokio::spawn(provider.clone().run(CancellationToken::new()));
    let token = signer.token(claims(&issuer(address)));
    assert!(is_away(provider.verify(&token).await));
    let mock = Mock::start_at(address, &[&signer]).await;
    // Nobody but the background asks.
    while provider.held().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(mock.asked(), 1);
    assert!(provider.verify(&token).await.is_ok());
}

#[tokio::test]
async fn a_slow_provider_delays_neither_others_nor_its_tokens_of_known_keys() {
    let (known, new, other) = (Signer::ed("known"), Signer::ed("new"), Signer::ed("other"));
    let (slow, quick) = (Mock::start(&[&known]).await, Mock::start(&[&other]).await);
    let pace = Pace { fetch_max: Duration::from_secs(2), ..PACE };
    let provider = provider(slow.settings(), pace);
    assert!(provider.verify(&slow.token(&known)).await.is_ok());
    slow.publish(&[&known, &new]);
    slow.answers.delay_ms.store(60_000, SeqCst);
    after_the_gap(&provider).await;
    let verifiers = Verifiers(vec![Verifier::OpenId(provider), Verifier::OpenId(quick.provider())]);
    let waiting = {
        let (verifiers, token) = (verifiers.clone(), slow.token(&new));
        tokio::spawn(async move { verifiers.verify(&token).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(verifiers.verify(&slow.token(&known)).await.is_ok());
    assert!(verifiers.verify(&quick.token(&other)).await.is_ok());
    assert!(!waiting.is_finished());
    assert!(is_away(waiting.await.unwrap()));
}

#[tokio::test]
async fn believes_no_answer_that_is_too_large_elsewhere_or_of_another() {
    let signer = Signer::ed("d");
    let elsewhere = Mock::start(&[&signer]).await;
    let change = |change: fn(&Answers, &Mock), why: &'static str| (change, why);
    let wrong = [
        change(|answers, _| answers.jwks.lock().unwrap().push_str(&" ".repeat(256 * 1024)), "more than 262144 bytes"),
        change(|answers, other| *answers.location.lock().unwrap() = Some(format!("{}/keys", other.issuer())), "302"),
        change(|answers, _| *answers.location.lock().unwrap() = Some("/keys".to_owned()), "302"),
        change(|answers, other| *answers.issuer.lock().unwrap() = other.issuer(), "is of the issuer"),
        change(|answers, _| answers.issuer.lock().unwrap().push('/'), "is of the issuer"),
        change(
            |answers, _| *answers.jwks_uri.lock().unwrap() = "http://192.0.2.1/keys".to_owned(),
            "jwks_uri cannot be",
        ),
        change(|answers, _| *answers.jwks.lock().unwrap() = "<html>".to_owned(), "no JWKS"),
        change(|answers, _| answers.status.store(500, SeqCst), "500"),
    ];
    for (wrong, why) in wrong {
        let mock = Mock::start(&[&signer]).await;
        wrong(&mock.answers, &elsewhere);
        let provider = mock.provider();
        assert!(is_away(provider.verify(&mock.token(&signer)).await), "{why}");
        let found = provider.source.fetch().await.err().unwrap();
        assert!(found.contains(why), "{why}: {found}");
    }
    assert_eq!(elsewhere.asked(), 0);
    let moved = Mock::start(&[&signer]).await;
    *moved.answers.location.lock().unwrap() = Some("/moved".to_owned());
    assert!(moved.provider().verify(&moved.token(&signer)).await.is_ok(), "within the same place");
}

#[tokio::test]
async fn keys_count_while_the_provider_is_away_but_not_for_ever() {
    let (signer, new) = (Signer::ed("d"), Signer::ed("new"));
    let mock = Mock::start(&[&signer]).await;
    let provider = provider(mock.settings(), Pace { kept: Duration::from_secs(1), ..PACE });
    let started = Instant::now();
    assert!(provider.verify(&mock.token(&signer)).await.is_ok());
    mock.answers.status.store(503, SeqCst);
    after_the_gap(&provider).await;
    assert!(is_away(provider.verify(&mock.token(&new)).await), "the key may be a new one");
    let held = provider.verify(&mock.token(&signer)).await;
    assert!(held.is_ok() || started.elapsed() > Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert!(is_away(provider.verify(&mock.token(&signer)).await));
}

#[tokio::test]
async fn keys_are_fetched_again_before_their_time_is_over() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let mock = Mock::start(&[&old]).await;
    let brief = Duration::from_millis(100);
    let provider = provider(mock.settings(), Pace { gap: brief / 10, fresh: (brief, brief), ..PACE });
    let stop = CancellationToken::new();
    let running = tokio::spawn(provider.clone().run(stop.clone()));
    mock.publish(&[&new]);
    let knows_new = || provider.held().is_some_and(|held| held.keys.find(Some("new"), Algorithm::EdDSA).is_ok());
    while !knows_new() {
        tokio::time::sleep(brief / 10).await;
    }
    // Each time well within the time of the last; never without a pause.
    tokio::time::sleep(brief * 10).await;
    assert!((3..=20).contains(&mock.asked()), "{}", mock.asked());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn keys_are_fresh_as_long_as_the_provider_says_within_bounds() {
    let signer = Signer::ed("d");
    let mock = Mock::start(&[&signer]).await;
    let provider = mock.provider();
    for (header, minutes) in
        [("", 60), ("max-age=1800", 30), ("max-age=1", 5), ("max-age=99999999", 720), ("no-store", 5)]
    {
        *mock.answers.cache_control.lock().unwrap() = header.to_owned();
        after_the_gap(&provider).await;
        assert!(provider.refresh().await.is_ok());
        assert_eq!(provider.held().unwrap().fresh_for, Duration::from_secs(60 * minutes), "{header}");
    }
}

#[tokio::test]
async fn only_a_verified_address_counts_however_the_provider_says_so() {
    let signer = Signer::ed("d");
    let mock = Mock::start(&[&signer]).await;
    let said = |verified: Value| {
        let claims = with(with(mock.claims(), "email", json!("ada@example.com")), "name", json!("Ada"));
        signer.token(with(claims, "email_verified", verified))
    };
    let provider = mock.provider();
    for (verified, counts) in [
        (json!(true), true),
        (json!("true"), true),
        (json!(false), false),
        (json!("false"), false),
        (json!("yes"), false),
        (json!(1), false),
        (json!(null), false),
    ] {
        let identity = provider.verify(&said(verified.clone())).await.unwrap();
        assert_eq!(identity.email.is_some(), counts, "{verified}");
        assert_eq!(identity.name.as_deref(), Some("Ada"));
    }
}

#[tokio::test]
async fn claims_have_the_names_that_are_configured() {
    let signer = Signer::ed("d");
    let mock = Mock::start(&[&signer]).await;
    let provider = provider(
        config::Provider {
            subject_claim: "oid".to_owned(),
            email_claim: "upn".to_owned(),
            email_verified_claim: "https://example.com/verified".to_owned(),
            name_claim: "nick.name".to_owned(),
            ..mock.settings()
        },
        PACE,
    );
    let mut claims = mock.claims();
    for (key, value) in [
        ("oid", json!("7")),
        ("upn", json!("a@b.example")),
        ("https://example.com/verified", json!(true)),
        ("nick.name", json!("A")),
    ] {
        claims[key] = value;
    }
    let identity = provider.verify(&signer.token(claims)).await.unwrap();
    assert_eq!(
        (identity.subject.as_str(), identity.email.as_deref(), identity.name.as_deref()),
        ("7", Some("a@b.example"), Some("A"))
    );
    assert!(refusal(provider.verify(&mock.token(&signer)).await).contains("nothing of oid"));
}

#[tokio::test]
async fn an_organization_is_named_by_one_key_or_by_a_path() {
    let signer = Signer::ed("d");
    let mock = Mock::start(&[&signer]).await;
    let claims = json!({
        "urn:zitadel:iam:org:id": "2847", "https://a.example/org": "acme", "org": {"main": {"id": "nested"}, "number": 5},
        "empty": "", "spaced": "a b", "null": null, "list": ["acme"],
    });
    let mut all = mock.claims();
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let token = signer.token(all);
    for (path, expected) in [
        (vec!["urn:zitadel:iam:org:id"], Some("2847")),
        (vec!["https://a.example/org"], Some("acme")),
        (vec!["org", "main", "id"], Some("nested")),
        (vec!["org", "number"], None),
        (vec!["org", "main"], None),
        (vec!["org", "main", "id", "more"], None),
        (vec!["org.main.id"], None),
        (vec!["empty"], None),
        (vec!["spaced"], None),
        (vec!["null"], None),
        (vec!["list"], None),
        (vec!["missing"], None),
    ] {
        let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
        let organization = Some(config::OrganizationClaim { path: path.clone(), role: "guest".to_owned() });
        let provider = provider(config::Provider { organization, ..mock.settings() }, PACE);
        let named = provider.verify(&token).await.unwrap().organization;
        let expected = expected.map(|id| NamedOrganization { external_id: id.to_owned(), role: "guest".to_owned() });
        assert_eq!(named, expected, "{path:?}");
    }
    assert_eq!(mock.provider().verify(&token).await.unwrap().organization, None);
}

#[test]
fn keys_check_only_what_they_are_published_for() {
    let (rsa, ec, ed) = (Signer::rsa("r"), Signer::p256("e"), Signer::ed("d"));
    let number = |jwk: Value| Keys::read(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap().len();
    for signer in [&rsa, &ec, &ed] {
        let changed = |key: &str, to: Value| number(with(signer.jwk.clone(), key, to));
        assert_eq!(number(signer.jwk.clone()), 1);
        assert_eq!(changed("key_ops", json!(["verify"])), 1);
        assert_eq!(changed("use", json!("enc")), 0);
        assert_eq!(changed("key_ops", json!(["sign", "encrypt"])), 0);
        assert_eq!(changed("alg", json!("HS256")), 0);
        assert_eq!(changed("alg", json!("ES384")), 0);
        assert_eq!(changed("alg", json!("RSA-OAEP")), 0);
        assert_eq!(changed("alg", json!("new")), 0);
        assert_eq!(changed("kty", json!("new")), 0);
    }
    assert_eq!(number(json!({"kty": "oct", "k": "c2VjcmV0", "kid": "o"})), 0);
    assert_eq!(number(with(ed.jwk.clone(), "x", json!("c2hvcnQ"))), 0, "the library would not look");
    assert_eq!(number(with(rsa.jwk.clone(), "n", json!(URL_SAFE_NO_PAD.encode([0xff; 128])))), 0, "1024 bits");
    assert_eq!(number(with(ec.jwk.clone(), "crv", json!("secp256k1"))), 0);

    let set = json!({"keys": [{"kty": "new"}, 5, with(rsa.jwk.clone(), "alg", json!("PS256")), ec.jwk, ed.jwk]});
    let keys = Keys::read(set.to_string().as_bytes()).unwrap();
    assert_eq!(keys.len(), 3, "one that nobody knows hides no other");
    let find = |kid, algorithm| keys.find(kid, algorithm).map(|_| ());
    assert_eq!(find(Some("r"), Algorithm::PS256), Ok(()));
    assert_eq!(find(Some("r"), Algorithm::RS256), Err(Missing::Unfit));
    assert_eq!(find(Some("e"), Algorithm::ES384), Err(Missing::Unfit));
    assert_eq!(find(Some("e"), Algorithm::EdDSA), Err(Missing::Unfit));
    assert_eq!(find(Some("x"), Algorithm::EdDSA), Err(Missing::Unknown));
    assert_eq!(find(None, Algorithm::EdDSA), Ok(()));
    assert_eq!(find(None, Algorithm::ES384), Err(Missing::Unknown));
}
