//! How often one may call, as clients meet it.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::{Client, Database, Server};

const ON: (&str, &str) = ("TENANCY_RATE_LIMITS__ENABLED", "true");

/// A service with these quotas: of a name, how many at once. It gives them again one a minute.
async fn serve(database: &Database, quotas: &[(&str, &str)]) -> Server {
    let variables: Vec<(String, String)> = quotas
        .iter()
        .flat_map(|(name, burst)| {
            let name = format!("TENANCY_RATE_LIMITS__{}", name.to_uppercase());
            [(format!("{name}_PER_MINUTE"), "1".to_owned()), (format!("{name}_BURST"), (*burst).to_owned())]
        })
        .collect();
    let named = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    database.serve_with(&[ON].into_iter().chain(named).collect::<Vec<_>>()).await
}

struct Response {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Response {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.json().await.unwrap() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The code of the first fault.
    fn code(&self) -> &str {
        self.body["errors"][0]["extensions"]["code"].as_str().unwrap_or_default()
    }

    /// The seconds to wait after a request that was refused whole; both places must say the same.
    fn refused(&self) -> u64 {
        let wait = self.body["errors"][0]["extensions"]["retryAfterSeconds"].as_u64().unwrap_or_default();
        assert_eq!(self.header("retry-after"), wait.to_string(), "{}", self.body);
        assert_eq!((self.status, self.code(), self.body.get("data")), (429, "RATE_LIMITED", None));
        wait
    }

    /// The same, of a quota of one a minute; a slow machine may have lost some of it.
    fn refused_for_a_minute(&self) {
        let wait = self.refused();
        assert!((30..=60).contains(&wait), "{wait}");
    }
}

async fn post(client: &Client, query: &str) -> Response {
    let request = client.http.post(&client.url).json(&json!({ "query": query }));
    Response::of(match &client.token {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
    .await
}

fn create(slug: &str) -> String {
    format!(
        "mutation {{ createOrganization(input: {{name: \"A\", slug: \"{slug}\"}}) {{ organization {{ id slug }} }} }}"
    )
}

fn rename(id: &str) -> String {
    format!(
        "mutation {{ updateOrganization(input: {{organizationId: \"{id}\", name: \"B\"}}) {{ errors {{ code }} }} }}"
    )
}

fn read(id: &str) -> String {
    format!("{{ organization(by: {{id: \"{id}\"}}) {{ id limits {{ used }} }} }}")
}

const VIEWER: &str = "{ viewer { user { id } } }";
const PREVIEW: &str = "{ invitationPreview(token: \"nothing\") { state } }";

#[tokio::test(flavor = "multi_thread")]
async fn one_mutation_past_the_limit_is_refused_and_works_again_after_waiting() {
    let database = Database::new().await;
    let quotas = [
        ON,
        ("TENANCY_RATE_LIMITS__PRINCIPAL_WRITE_PER_MINUTE", "20"),
        ("TENANCY_RATE_LIMITS__PRINCIPAL_WRITE_BURST", "2"),
    ];
    let server = database.serve_with(&quotas).await;
    let ann = server.user("ann@example.com");
    for slug in ["one", "two"] {
        let answer = post(&ann, &create(slug)).await;
        assert_eq!((answer.status, answer.code()), (200, ""), "{}", answer.body);
    }
    let answer = post(&ann, &create("three")).await;
    let wait = answer.refused();
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!(answer.header("ratelimit-policy"), "\"principal-write\";q=2;w=6");
    assert_eq!(answer.header("ratelimit"), format!("\"principal-write\";r=0;t={wait}"));
    // Others, and what is not a mutation, are not concerned.
    assert_eq!(post(&ann, VIEWER).await.status, 200);
    assert_eq!(post(&server.user("bob@example.com"), &create("four")).await.code(), "");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    let answer = post(&ann, &create("three")).await;
    assert_eq!(answer.body["data"]["createOrganization"]["organization"]["slug"], "three", "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_counts_against_the_address_and_a_good_one_does_not() {
    let database = Database::new().await;
    let server = serve(&database, &[("address", "3")]).await;
    let (nobody, ann) = (server.nobody(), server.user("ann@example.com"));
    let impostor = Client { token: Some("not.a.token".to_owned()), ..nobody.clone() };
    for _ in 0..5 {
        assert_eq!(post(&ann, VIEWER).await.status, 200);
    }
    assert_eq!(post(&nobody, PREVIEW).await.code(), "NOT_FOUND");
    assert_eq!(post(&impostor, VIEWER).await.status, 401);
    let scheme = nobody.http.post(&nobody.url).header("authorization", "Basic YTpi").json(&json!({ "query": VIEWER }));
    let answer = Response::of(scheme).await;
    assert_eq!((answer.status, answer.header("ratelimit")), (401, "\"address\";r=0;t=180"));

    post(&impostor, VIEWER).await.refused_for_a_minute();
    post(&nobody, PREVIEW).await.refused_for_a_minute();
    // Nobody becomes another by saying so.
    let elsewhere = nobody.http.post(&nobody.url).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(Response::of(elsewhere.json(&json!({ "query": PREVIEW }))).await.status, 429);
    assert_eq!(post(&ann, VIEWER).await.status, 200);

    let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("tenancy_rate_limited_total{scope=\"address\""));
    assert!(line.unwrap().starts_with("tenancy_rate_limited_total{scope=\"address\",class=\"unauthenticated\"} "));
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_client_is_counted() {
    let database = Database::new().await;
    let quotas = [
        ON,
        ("TENANCY_HTTP__TRUSTED_PROXIES", "1"),
        ("TENANCY_RATE_LIMITS__ADDRESS_PER_MINUTE", "1"),
        ("TENANCY_RATE_LIMITS__ADDRESS_BURST", "1"),
    ];
    let server = database.serve_with(&quotas).await;
    let from = async |address: &str| {
        let request = server.nobody().http.post(server.url("/graphql")).header("x-forwarded-for", address);
        Response::of(request.json(&json!({ "query": PREVIEW }))).await.status
    };
    assert_eq!([from("192.0.2.1").await, from("192.0.2.1").await, from("192.0.2.2").await], [200, 429, 200]);
    assert_eq!([from("2001:db8::1").await, from("2001:db8::2").await, from("2001:db8:0:1::1").await], [200, 429, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_use_up_another_organizations_quota_nor_learn_of_it() {
    let database = Database::new().await;
    let server = serve(&database, &[("organization_write", "2"), ("organization_read", "2")]).await;
    let (owner, stranger) = (server.user("owner@example.com"), server.user("stranger@example.com"));
    let id = server.organization("acme", &owner).await;
    for _ in 0..4 {
        for query in [rename(&id), read(&id)] {
            assert_eq!(post(&stranger, &query).await.code(), "NOT_FOUND");
        }
    }
    for query in [rename(&id), read(&id)] {
        for _ in 0..2 {
            let answer = post(&owner, &query).await;
            assert_eq!((answer.status, answer.code()), (200, ""), "{}", answer.body);
        }
        post(&owner, &query).await.refused_for_a_minute();
    }
    // And still: the stranger learns nothing, an operator gets through, and other organizations are not concerned.
    for query in [rename(&id), read(&id)] {
        let answer = post(&stranger, &query).await;
        assert_eq!((answer.status, answer.code()), (200, "NOT_FOUND"));
        assert!(!answer.header("ratelimit").contains("organization"), "{}", answer.header("ratelimit"));
    }
    assert_eq!(post(&server.operator(), &read(&id)).await.code(), "");
    assert_eq!(server.operator().review("blockOrganization", &id).await.fault(), None);
    let other = server.organization("other", &owner).await;
    let answer = post(&owner, &rename(&other)).await;
    assert_eq!((answer.code(), answer.header("ratelimit")), ("", "\"organization-write\";r=1;t=60"));
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_of_a_mutation_count_each_and_are_refused_together() {
    let database = Database::new().await;
    let server = serve(&database, &[("principal_write", "4")]).await;
    let ann = server.user("ann@example.com");
    let several = |slugs: &[&str]| {
        let one = |slug: &&str| {
            format!("{slug}: createOrganization(input: {{name: \"A\", slug: \"{slug}\"}}) {{ errors {{ code }} }}")
        };
        let (first, rest) = slugs.split_first().unwrap();
        let rest: String = rest.iter().map(one).collect();
        format!("mutation {{ {} ...F }} fragment F on Mutation {{ {rest} }}", one(first))
    };
    // More than there ever are at once.
    let answer = post(&ann, &several(&["a", "b", "c", "d", "e"])).await;
    assert_eq!((answer.status, answer.code()), (429, "RATE_LIMITED"), "{}", answer.body);
    let answer = post(&ann, &several(&["a", "b", "c"])).await;
    assert_eq!((answer.status, answer.header("ratelimit")), (200, "\"principal-write\";r=1;t=180"));
    for slug in ["a", "b", "c"] {
        assert_eq!(answer.body["data"][slug], json!({ "errors": [] }), "it was not executed before");
    }
    post(&ann, &several(&["f", "g"])).await.refused_for_a_minute();
    let answer = post(&ann, &create("f")).await;
    assert_eq!(answer.body["data"]["createOrganization"]["organization"]["slug"], "f", "it was not executed before");
    assert_eq!(post(&ann, &create("g")).await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_in_part_is_answered_in_part() {
    let database = Database::new().await;
    let server = serve(&database, &[("organization_read", "1")]).await;
    let owner = server.user("owner@example.com");
    let (one, two) = (server.organization("one", &owner).await, server.organization("two", &owner).await);
    let both = format!(
        "{{ a: organization(by: {{id: \"{one}\"}}) {{ slug }} b: organization(by: {{id: \"{two}\"}}) {{ slug }} }}"
    );
    assert_eq!(post(&owner, &read(&one)).await.status, 200);
    let answer = post(&owner, &both).await;
    assert_eq!((answer.status, answer.code(), answer.header("retry-after")), (200, "RATE_LIMITED", ""));
    assert_eq!(answer.body["data"], json!({"a": null, "b": {"slug": "two"}}));
    assert!(answer.body["errors"][0]["extensions"]["retryAfterSeconds"].as_u64().unwrap() > 30);
    let answer = post(&owner, &both).await;
    answer.refused_for_a_minute();
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_have_quotas_of_their_own() {
    let database = Database::new().await;
    let server = serve(&database, &[("principal_invite", "3"), ("organization_invite", "4")]).await;
    let (owner, second) = (server.user("owner@example.com"), server.user("second@example.com"));
    let id = server.verified("acme", &owner).await;
    let invited = owner.invite(&id, "second@example.com", &["admin"]).await;
    assert!(second.accept(&invited.text("/token")).await.accepted());
    assert!(owner.invite(&id, "b@example.com", &["guest"]).await.accepted());
    let invitation = owner.invite(&id, "c@example.com", &["guest"]).await.text("/invitation/id");
    let resend = format!("mutation {{ resendInvitation(input: {{invitationId: \"{invitation}\"}}) {{ token }} }}");
    post(&owner, &resend).await.refused_for_a_minute();
    assert!(owner.create_project(&id, "still").await.accepted());
    // The other one has their own, and the organization has one left.
    assert_eq!(post(&second, &resend).await.code(), "");
    let answer = post(&second, &resend).await;
    assert_eq!(answer.header("ratelimit-policy"), "\"organization-invite\";q=4;w=240");
    answer.refused_for_a_minute();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_is_left() {
    let database = Database::new().await;
    let server = serve(&database, &[("principal_read", "3"), ("address", "3")]).await;
    let (ann, nobody) = (server.user("ann@example.com"), server.nobody());
    let token = ann.token.clone().unwrap();
    let answer = post(&ann, VIEWER).await;
    assert_eq!(answer.header("ratelimit-policy"), "\"principal-read\";q=3;w=180");
    assert_eq!(answer.header("ratelimit"), "\"principal-read\";r=2;t=60");
    // What cannot be executed had to be read.
    let answer = post(&ann, "{").await;
    assert_eq!((answer.code(), answer.header("ratelimit")), ("GRAPHQL_PARSE_FAILED", "\"principal-read\";r=1;t=120"));
    let answer = Response::of(ann.http.delete(&ann.url).bearer_auth(&token)).await;
    assert_eq!((answer.status, answer.header("ratelimit")), (405, "\"principal-read\";r=0;t=180"));
    post(&ann, "{").await.refused_for_a_minute();
    let answer = Response::of(nobody.http.delete(&ann.url)).await;
    assert_eq!((answer.status, answer.header("ratelimit-policy")), (405, "\"address\";q=3;w=180"));
    // Health and metrics are not limited.
    for _ in 0..5 {
        assert_eq!(reqwest::get(server.url("/health/live")).await.unwrap().status(), 200);
    }
}
