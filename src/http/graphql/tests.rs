use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_graphql::{EmptySubscription, Error, InputObject, Object, Schema, futures_util::stream};

use super::*;

#[derive(InputObject)]
struct Tag {
    name: String,
    size: Option<i32>,
}

struct Query;

#[Object]
impl Query {
    async fn echo(&self, text: String) -> String {
        text
    }
    async fn number(&self, value: i32) -> i32 {
        value
    }
    async fn tags(&self, tags: Vec<Tag>) -> usize {
        tags.iter().map(|tag| tag.name.len() + usize::try_from(tag.size.unwrap_or(0)).unwrap_or(0)).sum()
    }
    async fn sleep(&self, ms: u64) -> bool {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        true
    }
    async fn panics(&self, really: bool) -> bool {
        assert!(!really, "the detail that nobody may read");
        true
    }
    async fn uncoded(&self) -> Option<Result<bool, Error>> {
        Some(Err(Error::new("relation \"secrets\" does not exist")))
    }
    async fn nested(&self) -> Query {
        Query
    }
}

struct Mutation(Arc<AtomicUsize>);

#[Object]
impl Mutation {
    async fn add(&self, ms: u64) -> usize {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

struct Service {
    schema: Schema<Query, Mutation, EmptySubscription>,
    added: Arc<AtomicUsize>,
    documents: Documents,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Json,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["errors"][0]["extensions"]["code"].as_str().unwrap_or_default()
    }
    fn message(&self) -> &str {
        self.body["errors"][0]["message"].as_str().unwrap_or_default()
    }
    #[track_caller]
    fn refused(&self, status: u16, code: &str, words: &str) {
        assert_eq!((self.status.as_u16(), self.code()), (status, code), "{}", self.body);
        assert!(self.message().contains(words), "{}", self.body);
        assert!(self.body.get("data").is_none(), "{}", self.body);
    }
}

impl Service {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits { request_timeout_ms: 200, ..Limits::default() };
        change(&mut limits);
        let added = Arc::new(AtomicUsize::new(0));
        let schema = Schema::build(Query, Mutation(added.clone()), EmptySubscription)
            .limit_complexity(limits.complexity_max)
            .limit_recursive_depth(limits.nesting_max)
            .finish();
        Self { schema, added, documents: Documents::new(limits) }
    }

    async fn send(&self, request: Request) -> Answer {
        let schema = self.schema.clone();
        let execute = |call: Call| async move { Executed::now(schema.execute(call.request()).await) };
        let response =
            answer(request, &self.documents, execute, |_| async { unreachable!("nothing streams here") }).await;
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body in memory");
        Answer { status: head.status, headers: head.headers, body: serde_json::from_slice(&body).expect("JSON") }
    }

    async fn post(&self, body: impl Into<Body>) -> Answer {
        self.send(post(body)).await
    }

    async fn query(&self, query: &str) -> Answer {
        self.post(serde_json::json!({ "query": query }).to_string()).await
    }

    async fn get(&self, query: &str) -> Answer {
        let request = Request::get(format!("/graphql?{query}")).body(Body::empty()).expect("a request");
        self.send(request).await
    }
}

fn service() -> Service {
    Service::new(|_| {})
}

fn post(body: impl Into<Body>) -> Request {
    Request::post("/graphql")
        .header("content-type", "application/json")
        .header("accept", "application/graphql-response+json")
        .body(body.into())
        .expect("a request")
}

/// A body that comes in pieces and announces no length, as with chunked transfer.
fn pieces(text: &str) -> Body {
    let pieces: Vec<_> = text.as_bytes().chunks(5).map(Bytes::copy_from_slice).map(Ok::<_, Infallible>).collect();
    Body::from_stream(stream::iter(pieces))
}

#[tokio::test]
async fn answers_a_query() {
    let answer = service().query("{ echo(text: \"ä\") }").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, serde_json::json!({ "data": { "echo": "ä" } }));
    assert_eq!(answer.headers["content-type"], "application/graphql-response+json; charset=utf-8");
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[test]
fn negotiates_the_media_type() {
    let negotiate = |accept: &str| {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(accept).expect("ascii"))]);
        Media::negotiate(&headers).ok()
    };
    for accept in ["", "*/*", "application/*", "Application/JSON; charset=UTF-8", "application/json, */*"] {
        assert_eq!(negotiate(accept), Some(Media::Json), "{accept}");
    }
    assert_eq!(negotiate("application/graphql-response+json;q=0.8, application/json;q=0.9"), Some(Media::Json));
    for accept in [
        "application/graphql-response+json",
        "application/json, application/graphql-response+json",
        "application/graphql-response+json, application/json;q=0.9",
        "text/html, application/json;q=0, */*;q=0.1",
    ] {
        assert_eq!(negotiate(accept), Some(Media::GraphQL), "{accept}");
    }
    for accept in ["text/html", "application/json;q=0", "application/json; charset=latin1", "application/json;q=x"] {
        assert_eq!(negotiate(accept), None, "{accept}");
    }
    assert_eq!(Media::negotiate(&HeaderMap::new()).ok(), Some(Media::Json));
}

#[tokio::test]
async fn refuses_bodies_that_are_no_request() {
    let service = service();
    let deep = format!("{{\"query\":\"{{a}}\",\"variables\":{{\"a\":{}", "[".repeat(100_000));
    for (body, words) in [
        ("", "empty"),
        ("{", "not JSON"),
        ("[]", "an array"),
        ("7", "is 7"),
        (r#"{"query":null}"#, "`query` is missing"),
        (r#"{"query":7}"#, "`query` is 7"),
        (r#"{"query":"{a}","variables":"x"}"#, "`variables` is the string \"x\""),
        (r#"{"query":"{a}","operationName":[]}"#, "`operationName` is an array"),
        (r#"{"query":"{a}","extensions":true}"#, "`extensions` is true"),
        (r#"{"query":"{a}","variables":{"a":1e999}}"#, "number out of range"),
        (deep.as_str(), "recursion limit"),
    ] {
        service.post(body.to_owned()).await.refused(400, code::BAD_USER_INPUT, words);
    }
    let answer = service.post(b"{\"query\":\"\xff\"}".to_vec()).await;
    answer.refused(400, code::BAD_USER_INPUT, "byte 10");
}

#[tokio::test]
async fn reads_a_body_up_to_its_limit_and_not_one_byte_more() {
    let body = r#"{"query":"{ __typename }"}"#;
    let exact = Service::new(|limits| limits.body_bytes_max = body.len());
    assert_eq!(exact.post(body).await.status, StatusCode::OK);
    assert_eq!(exact.post(pieces(body)).await.status, StatusCode::OK);
    let short = Service::new(|limits| limits.body_bytes_max = body.len() - 1);
    short.post(body).await.refused(413, code::BAD_USER_INPUT, "body_bytes_max");
    short.post(pieces(body)).await.refused(413, code::BAD_USER_INPUT, "longer than 25 bytes");
}

#[tokio::test]
async fn reads_a_query_string_up_to_its_limit() {
    let query = "query=%7B+__typename%7D&operationName=&variables=&other=1";
    let exact = Service::new(|limits| limits.query_bytes_max = query.len());
    assert_eq!(exact.get(query).await.body, serde_json::json!({ "data": { "__typename": "Query" } }));
    let short = Service::new(|limits| limits.query_bytes_max = query.len() - 1);
    short.get(query).await.refused(414, code::BAD_USER_INPUT, "query_bytes_max");
}

#[tokio::test]
async fn refuses_wrong_query_strings() {
    let service = service();
    for query in
        ["query=%zz", "query=%f", "query=%ff", "query=a&query=b", "", "query=a&variables={", "query=a&variables=[]"]
    {
        // application/json, since a GET here sends no Accept; still 400, as the request is no GraphQL request.
        service.get(query).await.refused(400, code::BAD_USER_INPUT, "");
    }
}

#[tokio::test]
async fn a_mutation_needs_post() {
    let service = service();
    let answer = service.get("query=mutation%7Badd(ms:0)%7D").await;
    answer.refused(405, code::BAD_USER_INPUT, "POST");
    assert_eq!(answer.headers["allow"], "POST");
    assert_eq!(service.added.load(Ordering::SeqCst), 0);
    assert_eq!(service.query("mutation { add(ms: 0) }").await.body["data"]["add"], 1);
}

#[tokio::test]
async fn a_mutation_named_twice_is_not_executed_twice() {
    let service = service();
    for query in [
        "mutation { add(ms: 0) add(ms: 0) }",
        "mutation { add(ms: 0) ...F } fragment F on Mutation { ... on Mutation { add(ms: 0) } }",
        "mutation { add(ms: 0) ...F ...F } fragment F on Mutation { b: add(ms: 0) }",
    ] {
        service.query(query).await.refused(400, code::GRAPHQL_VALIDATION_FAILED, "twice");
    }
    assert_eq!(service.added.load(Ordering::SeqCst), 0);
    assert_eq!(service.query("mutation { add(ms: 0) b: add(ms: 0) }").await.body["data"]["b"], 2);
}

#[tokio::test]
async fn refuses_subscriptions_other_methods_and_other_types() {
    let service = service();
    service.query("subscription { x }").await.refused(400, code::BAD_USER_INPUT, "/graphql/ws");
    let answer = service.send(Request::delete("/graphql").body(Body::empty()).expect("a request")).await;
    answer.refused(405, code::BAD_USER_INPUT, "DELETE");
    for content_type in ["text/plain", "application/json; charset=latin1", "multipart/form-data", "application/json+x"]
    {
        let mut request = post("{}");
        request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        service.send(request).await.refused(415, code::BAD_USER_INPUT, content_type);
    }
}

#[tokio::test]
async fn says_what_does_not_parse_and_where() {
    let service = service();
    for (query, words) in [
        ("", "it is empty"),
        (" # only this\n", "it is empty"),
        ("{", "line 1, column 2"),
        ("{\n  echo(text: )\n}", "line 2, column 14, before `)`"),
        ("fragment F on Query { a }", "fragments only"),
        ("{ a } { b }", "without a name"),
        ("query A { a } query A { b }", "A is defined twice"),
        ("{ number(value: 1e999) }", "number"),
        ("{ echo(text: \"x) }", "never closed"),
    ] {
        service.query(query).await.refused(400, code::GRAPHQL_PARSE_FAILED, words);
    }
}

#[tokio::test]
async fn finds_the_operation_that_is_meant() {
    let service = service();
    let send = |body: Json| service.post(body.to_string());
    let two = "query A { __typename } query B { b: __typename }";
    let answer = send(serde_json::json!({ "query": two, "operationName": "B" })).await;
    assert_eq!(answer.body["data"]["b"], "Query");
    service.query(two).await.refused(400, code::BAD_USER_INPUT, "A, B");
    let answer = send(serde_json::json!({ "query": two, "operationName": "C" })).await;
    answer.refused(400, code::BAD_USER_INPUT, "\"C\"");
    let answer = send(serde_json::json!({ "query": "{ __typename }", "operationName": "C" })).await;
    answer.refused(400, code::BAD_USER_INPUT, "has no name");
}

#[tokio::test]
async fn says_which_variable_is_wrong_and_how() {
    let service = service();
    for (declared, value, words) in [
        ("$v: Int!", serde_json::json!({}), "$v is missing. Its type is Int!"),
        ("$v: Int!", serde_json::json!({ "v": null }), "$v is null"),
        ("$v: Int", serde_json::json!({ "v": 1.5 }), "$v is 1.5, and Int holds"),
        ("$v: Int", serde_json::json!({ "v": 2_147_483_648_i64 }), "-2147483648 to 2147483647"),
        ("$v: [[String!]]", serde_json::json!({ "v": [["a"], ["b", 7]] }), "at index 1 at index 1 is 7"),
        ("$v: Boolean", serde_json::json!({ "v": "true" }), "$v is the string \"true\""),
    ] {
        let query = format!("query({declared}) {{ __typename }}");
        let answer = service.post(serde_json::json!({ "query": query, "variables": value }).to_string()).await;
        answer.refused(400, code::BAD_USER_INPUT, words);
    }
}

#[tokio::test]
async fn variables_inside_of_inputs_are_shown_too() {
    let query = "query($tags: [Tag!]!) { tags(tags: $tags) }";
    let variables = serde_json::json!({ "tags": [{ "name": "a" }, { "name": 7 }] });
    let answer = service().post(serde_json::json!({ "query": query, "variables": variables }).to_string()).await;
    answer.refused(400, code::BAD_USER_INPUT, "it is 7");
}

#[tokio::test]
async fn the_engines_errors_get_their_codes() {
    let service = Service::new(|limits| limits.complexity_max = 5);
    service.query("{ nope }").await.refused(400, code::GRAPHQL_VALIDATION_FAILED, "nope");
    service.query("{ echo(text: 7) }").await.refused(400, code::GRAPHQL_VALIDATION_FAILED, "\"text\"");
    service.query("{ echo }").await.refused(400, code::GRAPHQL_VALIDATION_FAILED, "text");

    let five = "{ nested { nested { nested { nested { echo(text: \"\") } } } } }";
    assert_eq!(service.query(five).await.status, StatusCode::OK);
    let six = "{ nested { nested { nested { nested { nested { echo(text: \"\") } } } } } }";
    service.query(six).await.refused(400, code::QUERY_TOO_EXPENSIVE, "more than 5 (complexity_max)");

    let answer = service.query("{ number(value: 2147483648) }").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::OK, code::BAD_USER_INPUT), "{}", answer.body);
}

#[tokio::test]
async fn other_limits_of_the_engine_are_recognized() {
    let schema = Schema::build(Query, Mutation(Arc::default()), EmptySubscription);
    let schema = schema.limit_depth(1).limit_recursive_depth(2).limit_directives(1).finish();
    for query in [
        "{ nested { echo(text: \"\") } }",
        "{ nested { nested { nested { __typename } } } }",
        "{ __typename @skip(if: false) @include(if: true) }",
    ] {
        let mut response = schema.execute(query).await;
        settle(&mut response, &Limits::default(), &Inputs::default());
        let error = response.errors.first().expect("a refusal");
        assert_eq!(code_of(error), Some(code::QUERY_TOO_EXPENSIVE), "{error}");
    }
}

#[tokio::test]
async fn what_happened_inside_stays_inside() {
    let service = service();
    service.query("{ panics(really: true) }").await.refused(500, code::INTERNAL, INTERNAL_MESSAGE);
    let answer = service.query("{ uncoded echo(text: \"still here\") }").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!((answer.code(), answer.message()), (code::INTERNAL, INTERNAL_MESSAGE));
    assert_eq!(answer.body["data"], serde_json::json!({ "uncoded": null, "echo": "still here" }));
}

#[tokio::test]
async fn a_query_past_its_time_is_given_up_and_a_mutation_is_finished() {
    let service = service();
    service.query("{ sleep(ms: 5000) }").await.refused(504, code::REQUEST_TIMEOUT, "200 ms");
    service.query("mutation { add(ms: 400) }").await.refused(504, code::REQUEST_TIMEOUT, "still runs");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(service.added.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_disconnects_does_not_stop_its_mutation() {
    let service = service();
    let gone = timeout(Duration::from_millis(20), service.query("mutation { add(ms: 100) }")).await;
    assert!(gone.is_err());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(service.added.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let answer = service().post(never).await;
    answer.refused(408, code::REQUEST_TIMEOUT, "did not arrive");
}

#[tokio::test]
async fn graphiqls_introspection_passes_the_default_limits() {
    let answer = service().query(include_str!("../graphiql/introspection.graphql")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["data"]["__schema"]["queryType"]["name"], "Query");
    assert!(answer.body.get("errors").is_none());
}

#[tokio::test]
async fn the_deepest_query_that_passes_is_executed() {
    let service = service();
    let depth = service.documents.limits.depth_max;
    let nested =
        |fields: usize| format!("{}echo(text: \"deep\"){}", "{ nested ".repeat(fields - 1) + "{ ", " }".repeat(fields));
    assert_eq!(service.query(&nested(depth)).await.status, StatusCode::OK);
    service.query(&nested(depth + 1)).await.refused(400, code::QUERY_TOO_EXPENSIVE, "depth_max");
    let lists = service.documents.limits.nesting_max - 2;
    let query = format!("{{ echo(text: {}{}) }}", "[".repeat(lists), "]".repeat(lists));
    service.query(&query).await.refused(400, code::GRAPHQL_VALIDATION_FAILED, "text");
}

/// Answers by GET of a persisted document, with what the client has.
async fn persisted(documents: &Documents, id: &str, known: &str) -> Response {
    let request = Request::get(format!("/graphql?documentId={id}")).header("if-none-match", known);
    let request = request.header("accept", "application/graphql-response+json");
    let request = request.body(Body::empty()).expect("a request");
    let execute = |_: Call| async { Executed::Kept(Bytes::from_static(br#"{"data":{}}"#)) };
    answer(request, documents, execute, |_| async { unreachable!("nothing streams here") }).await
}

#[tokio::test]
async fn a_persisted_document_is_named_by_its_hash_and_its_answer_by_a_tag() {
    let (text, id) = ("{ echo(text: \"a\") }", "e6bac8e8c65e0ff9a0cf4a2e8c0cd1c06b4ff4fbd1d3f2fb0f7b8a2a6e1a5a4d");
    let made = Documents::new(Limits::default()).with_persisted(&format!("{{{id:?}: {text:?}}}"), true);
    let why = made.err().expect("the hash is of another text");
    let id = why.rsplit_once("sha256:").expect("it says the right one").1.to_owned();
    for form in [id.clone(), format!("sha256:{id}")] {
        let manifest = format!("{{{form:?}: {text:?}}}");
        let documents = Documents::new(Limits::default()).with_persisted(&manifest, true).expect("its hash");
        let first = persisted(&documents, &id, "\"another\"").await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()["cache-control"], "private, no-cache");
        let tag = first.headers()["etag"].to_str().expect("text").to_owned();
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let again = persisted(&documents, &id, &known).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
            assert_eq!(again.headers()["etag"].as_bytes(), tag.as_bytes());
        }
        let unknown = persisted(&documents, &id.replace(['a', 'b', '1'], "0"), "").await;
        assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
        // Nothing else is answered, but the same text is the same document.
        let parameters =
            |query: &str| super::receive::from_body(serde_json::json!({"query": query}).to_string().as_bytes());
        let refused = check(parameters("{ echo(text: \"b\") }").expect("parameters"), &documents);
        assert_eq!(refused.err().as_ref().and_then(code_of), Some(code::PERSISTED_DOCUMENT_REQUIRED));
        assert!(check(parameters(text).expect("parameters"), &documents).is_ok());
    }
}

#[tokio::test]
async fn refusals_of_execute_get_their_status() {
    for (code, status) in [(code::UNAUTHENTICATED, 401), (code::RATE_LIMITED, 429), (code::UNAVAILABLE, 503)] {
        let error = coded(code, "no", None);
        let documents = Documents::new(Limits::default());
        let refuse = |_| async { Executed::now(GraphQLResponse::from_errors(vec![error])) };
        let stream = |_| async { unreachable!("nothing streams here") };
        let response = answer(post(r#"{"query":"{ __typename }"}"#), &documents, refuse, stream).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().contains_key("www-authenticate"), status == 401);
    }
}

#[test]
fn a_token_in_a_message_is_cut_and_words_are_not() {
    let token = "t".repeat(74);
    let message = format!("Expected input type \"X\", found \"{token}\" and {token}é: org_01m7xaaaxwefks2nggqyxsh7j4");
    let expected = "Expected input type \"X\", found \"tttttttt…\" and tttttttt…é: org_01m7xaaaxwefks2nggqyxsh7j4";
    assert_eq!(super::without_tokens(&message), expected);
    assert_eq!(super::without_tokens(&"s".repeat(63)), "s".repeat(63));
}
