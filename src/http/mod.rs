//! What is served over HTTP: GraphQL, the console, GraphiQL, exports, the pull feed, health and metrics.

mod assets;
mod connections;
pub mod console;
mod events;
mod export;
mod feed;
mod graphiql;
mod graphql;
mod limits;
mod operation;
mod tiles;
mod unread;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::{Response as GraphqlResponse, ServerError};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Redirect, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;
use uuid::Uuid;

use crate::access::{Access, Denied};
use crate::commands::{Caller, Fault};
use crate::graphql::{App, Looked, Question, Session, TenancySchema};
use crate::http::graphql::{Call, Executed, Keep};
use crate::requests::rate_limits::{Meter, RateLimited, RateLimits};

pub use connections::{ConnectionLimits, serve};
pub use feed::FeedLimits;
pub use graphql::Documents;
pub use limits::Limits;
pub use operation::{Health, install_metrics};

/// The header that names a request in logs and in the audit.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The quota that has the least left, and how much: draft-ietf-httpapi-ratelimit-headers-10.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// For how long a browser remembers what it may call.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);
/// The longest request id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// The longest user agent that is recorded, in bytes.
const USER_AGENT_BYTES_MAX: usize = 512;

/// What the routes share.
pub struct Shared {
    /// The schema.
    pub schema: TenancySchema,
    /// What sessions share.
    pub app: Arc<App>,
    /// Lets callers in.
    pub access: Access,
    /// Documents that are known, and the limits of requests.
    pub documents: Documents,
    /// How often one may call.
    pub rate_limits: Arc<RateLimits>,
    /// How many feeds may be open.
    pub feeds: FeedLimits,
    /// How many proxies in front can be trusted with X-Forwarded-For.
    pub trusted_proxies: usize,
    /// How the service is.
    pub health: Health,
    /// Everything that must be finished before the service stops holds a token of it.
    pub in_flight: TaskTracker,
}

/// Pages for browsers, which may be left out.
pub struct Pages {
    /// How people sign in to the console; `None` where it is not served.
    pub console: Option<console::SignIn>,
    /// Whether GraphiQL is served.
    pub graphiql: bool,
}

/// All routes.
pub fn router(shared: Arc<Shared>, pages: Pages, cors_origins: &[HeaderValue]) -> Router {
    let mut router = Router::new()
        .route("/graphql", any(graphql))
        .route("/audit/{organization}/export", get(export::export))
        .route("/audit/{organization}/log/checkpoint", get(tiles::checkpoint))
        .route("/audit/{organization}/log/tile/{*path}", get(tiles::tile))
        .route("/events", get(events::events))
        .route("/webhooks/catalog", get(events::webhook_catalog))
        .route("/graphql/ws", get(feed::websocket))
        .route("/graphql/sse", any(feed::sse))
        .route("/health/live", get(operation::live))
        .route("/health/ready", get(operation::ready))
        .route("/metrics", get(operation::metrics));
    let first = if pages.console.is_some() { "/console/" } else { "/graphiql" };
    if pages.console.is_some() || pages.graphiql {
        router = router.route("/", get(move || async move { Redirect::temporary(first) }));
    }
    if let Some(sign_in) = pages.console {
        router = router.merge(console::routes(sign_in));
    }
    if pages.graphiql {
        router = router.merge(graphiql::routes());
    }
    router
        .fallback(operation::no_such_route)
        .layer(middleware::from_fn(connections::refuse_if_crowded))
        .layer(middleware::from_fn(require_one_of_each))
        .layer(middleware::from_fn(unread::take_in))
        .layer(cors(cors_origins))
        .layer(middleware::from_fn(name_request))
        .with_state(shared)
}

/// Routes of another program, with what bounds its connections.
pub fn guarded(router: Router) -> Router {
    router.layer(middleware::from_fn(connections::refuse_if_crowded)).layer(middleware::from_fn(unread::take_in))
}

/// What pages of these origins may call: everything, with a token of their own, for no cookie means anything here. Without
/// any, pages of other origins call nothing.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    if origins.is_empty() {
        return CorsLayer::new();
    }
    let asked = [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT, feed::LAST_EVENT_ID, REQUEST_ID];
    let told = [REQUEST_ID, RATE_LIMIT, RATE_LIMIT_POLICY, header::RETRY_AFTER, header::CONTENT_DISPOSITION];
    let told = told.into_iter().chain(export::HEADERS).collect::<Vec<_>>();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers(asked)
        .expose_headers(told)
        .max_age(PREFLIGHT_AGE)
}

/// Refuses what two readers of one request could read differently: HTTP/1.1 without exactly one Host (RFC 9112, section
/// 3.2), and more than one Authorization.
async fn require_one_of_each(request: Request, next: Next) -> Response {
    match ambiguity(&request) {
        Some(problem) => graphql::refuse_malformed(request.headers(), problem),
        None => next.run(request).await,
    }
}

fn ambiguity(request: &Request) -> Option<String> {
    let count = |name: &HeaderName| request.headers().get_all(name).iter().count();
    let (hosts, authorizations) = (count(&header::HOST), count(&header::AUTHORIZATION));
    if request.version() == axum::http::Version::HTTP_11 && hosts != 1 {
        return Some(format!("The request has {hosts} Host headers: HTTP/1.1 wants exactly one."));
    }
    (authorizations > 1).then(|| format!("The request has {authorizations} Authorization headers: send one."))
}

/// Gives each request an id, taken from the client where it is usable, and hands it back.
async fn name_request(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable =
        |id: &&str| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = given.filter(usable).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let Ok(value) = HeaderValue::from_str(&id) else { return next.run(request).await };
    request.headers_mut().insert(REQUEST_ID, value.clone());
    let span = tracing::info_span!("request", id = %id, method = %request.method(), path = %request.uri().path());
    let started = std::time::Instant::now();
    let mut response = async {
        let response = next.run(request).await;
        tracing::debug!(status = response.status().as_u16(), micros = started.elapsed().as_micros() as u64, "answered");
        response
    }
    .instrument(span)
    .await;
    response.headers_mut().insert(REQUEST_ID, value);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn graphql(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let meter = Arc::new(Meter::new(shared.rate_limits.clone()));
    let started = std::time::Instant::now();
    let mut response = admit(shared, request, &meter).await;
    metrics::histogram!("tenancy_graphql_request_seconds").record(started.elapsed().as_secs_f64());
    metrics::counter!("tenancy_graphql_requests_total", "status" => response.status().as_str().to_owned()).increment(1);
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(meter.retry_after_seconds()));
    }
    if let Some((policy, state)) = meter.fields() {
        response.headers_mut().extend(HeaderValue::try_from(policy).ok().map(|policy| (RATE_LIMIT_POLICY, policy)));
        response.headers_mut().extend(HeaderValue::try_from(state).ok().map(|state| (RATE_LIMIT, state)));
    }
    response
}

/// Lets the caller in before the body is read, so that strangers cost little, and counts the request for them.
async fn admit(shared: Arc<Shared>, request: Request, meter: &Arc<Meter>) -> Response {
    let (headers, peer) = sender(&request);
    let request_timeout_ms = shared.documents.limits.request_timeout_ms;
    // A stopping service waits for this as for every open connection; the database may make it long.
    let time = Duration::from_millis(request_timeout_ms);
    let caller = match tokio::time::timeout(time, caller(&shared, &headers, peer, meter)).await {
        Ok(Ok(caller)) => caller,
        Ok(Err(error)) => return graphql::refuse(&headers, error),
        Err(_) => {
            let message = format!(
                "who calls could not be found out within {request_timeout_ms} ms (request_timeout_ms): nothing was done, \
                 try again later"
            );
            return graphql::refuse(&headers, graphql::coded(graphql::code::REQUEST_TIMEOUT, message, None));
        }
    };
    let actor = caller.as_ref().map(|caller| caller.actor(false));
    let (sender, feeds, counted) = ((headers.clone(), peer), shared.clone(), meter.clone());
    let executing = shared.clone();
    let response = graphql::answer(
        request,
        &shared.documents,
        // Counted from here on, not from its first step: a stopping service finishes what it accepted, also when the client
        // has gone.
        move |call| {
            let requests = executing.in_flight.clone();
            let execution = execute(executing, call, caller).instrument(tracing::Span::current());
            requests.track_future(execution)
        },
        move |call| feed::stream(feeds, sender, counted, call),
    )
    .await;
    // What never came to be executed had to be read all the same.
    match actor.filter(|_| !meter.by_principal()).map(|actor| meter.query(&actor)) {
        Some(Err(refused)) => graphql::refuse(&headers, rate_limited(refused)),
        Some(Ok(())) | None => response,
    }
}

async fn execute(shared: Arc<Shared>, call: Call, caller: Option<Caller>) -> Executed {
    match answer(&shared, call, caller).await {
        Ok(executed) => executed,
        Err(error) => Executed::now(GraphqlResponse::from_errors(vec![error])),
    }
}

async fn answer(shared: &Arc<Shared>, call: Call, caller: Option<Caller>) -> Result<Executed, ServerError> {
    if let Some((meter, caller)) = caller.as_ref().and_then(|caller| Some((caller.meter.as_ref()?, caller))) {
        let actor = caller.actor(false);
        let counted = match call.mutations() {
            Some(fields) => meter.mutation(&actor, fields.iter().map(|field| field.as_str())),
            None => meter.query(&actor),
        };
        counted.map_err(rate_limited)?;
    }
    let (question, before) = match look(shared, &call, caller.as_ref()).await? {
        (_, Looked::Answer(text)) => return Ok(Executed::Kept(text)),
        (question, Looked::Nothing(before)) => (question, before),
    };
    // A command looks by itself, and relies on what it sees.
    let pending = match &caller {
        Some(caller) if call.operation != OperationType::Mutation => {
            let pending = shared.access.is_pending(&caller.principal).await;
            pending.map_err(|fault| crate::graphql::fault(fault).into_server_error(Default::default()))?
        }
        Some(_) | None => false,
    };
    let session = Session::new(shared.app.clone(), caller, pending, call.name());
    let session = session.within(shared.documents.limits.answer_bytes_max);
    let request = call.request();
    let reached = session.at_least_for_all(request.extensions.get("atLeast")).await;
    reached.map_err(|error| error.into_server_error(Default::default()))?;
    let reads = session.reads().clone();
    // The schema answers introspection itself.
    let request = request.data(session).disable_introspection();
    let mut response = shared.schema.execute(request, call.document.is_valid()).await;
    if response.errors.is_empty() {
        call.document.accepted();
    }
    graphql::refuse_whole(&mut response);
    let app = shared.app.clone();
    let keep = question.map(|question| {
        let keep = move |text: &Bytes| {
            if let Some(answers) = &app.answers {
                answers.keep(question, &reads, before, text);
            }
        };
        Box::new(keep) as Keep
    });
    Ok(Executed::Now(Box::new(response), keep))
}

/// Looks for a kept answer to a query. One that has to be as new as a position waits for that first, and is made anew.
async fn look(
    shared: &Shared,
    call: &Call,
    caller: Option<&Caller>,
) -> Result<(Option<Question>, Looked), ServerError> {
    let nothing = (None, Looked::Nothing(None));
    let (Some(answers), Some(caller)) = (&shared.app.answers, caller) else { return Ok(nothing) };
    if call.operation != OperationType::Query || call.extensions.contains_key("atLeast") {
        return Ok(nothing);
    }
    let (name, variables) = (call.operation_name.clone().unwrap_or_default(), serde_json::to_vec(&call.variables));
    let Some(question) =
        variables.ok().and_then(|variables| Question::of(caller, &[&call.document.hash, name.as_bytes(), &variables]))
    else {
        return Ok(nothing);
    };
    let commands = &shared.app.commands;
    let looked = answers.look(question, caller, (commands.log(), commands.trail())).await;
    let looked = looked.map_err(|fault| crate::graphql::log_fault(fault).into_server_error(Default::default()))?;
    Ok((Some(question), looked))
}

fn rate_limited(refused: RateLimited) -> ServerError {
    crate::graphql::fault(Fault::RateLimited(refused)).into_server_error(Default::default())
}

/// What is wrong with a query string, without the library's own words around it.
fn unreadable(rejection: &axum::extract::rejection::QueryRejection) -> String {
    let cause = std::iter::successors(std::error::Error::source(rejection), |error| error.source()).last();
    let cause = cause.map_or_else(|| rejection.body_text(), ToString::to_string);
    format!("the query string cannot be read: {cause}")
}

/// What a request says of its sender: its headers, and from where it came.
type Sender = (HeaderMap, Option<SocketAddr>);

fn sender(request: &Request) -> Sender {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    (request.headers().clone(), peer)
}

/// The caller, by the request's token; `None` without one. Without a valid one the call counts against its address.
async fn caller(
    shared: &Shared,
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    meter: &Arc<Meter>,
) -> Result<Option<Caller>, ServerError> {
    let address = address(headers, peer, shared.trusted_proxies);
    let Some(authorization) = headers.get(header::AUTHORIZATION) else {
        return meter.unauthenticated(address).map(|()| None).map_err(rate_limited);
    };
    let unauthenticated = |message: String| match meter.unauthenticated(address) {
        Ok(()) => graphql::coded(graphql::code::UNAUTHENTICATED, message, None),
        Err(refused) => rate_limited(refused),
    };
    let token = bearer(authorization)
        .ok_or_else(|| unauthenticated("the Authorization header is not `Bearer <token>`".to_owned()))?;
    let principal = shared.access.authenticate(token).await.map_err(|denied| match denied {
        Denied::Refused(refused) => unauthenticated(refused.to_string()),
        Denied::Unavailable(message) => graphql::coded(graphql::code::UNAVAILABLE, message, None),
        Denied::Fault(fault) => crate::graphql::fault(fault).into_server_error(Default::default()),
    })?;
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let request_id = text(&REQUEST_ID).map(str::to_owned);
    let correlation_id = request_id.as_deref().and_then(|id| id.parse().ok()).unwrap_or_else(Uuid::new_v4);
    Ok(Some(Caller {
        principal,
        ip: address.map(|address| address.to_string()),
        user_agent: text(&header::USER_AGENT).map(|agent| agent.chars().take(USER_AGENT_BYTES_MAX).collect()),
        request_id,
        correlation_id,
        meter: Some(meter.clone()),
    }))
}

/// The token in an Authorization header.
fn bearer(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The client's address: the peer's, or what the outermost trusted proxy says of its own peer.
fn address(headers: &HeaderMap, peer: Option<SocketAddr>, trusted_proxies: usize) -> Option<IpAddr> {
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let named = trusted_proxies.checked_sub(1).and_then(|back| forwarded.iter().rev().nth(back));
    let named = named.and_then(|text| text.parse::<IpAddr>().ok());
    named.or(peer.map(|peer| peer.ip())).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_trusted_proxies_name_the_client() {
        let peer = Some("10.0.0.1:9".parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("1.1.1.1, 2.2.2.2, 3.3.3.3"));
        assert_eq!(address(&headers, peer, 0), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(address(&headers, peer, 1), Some("3.3.3.3".parse().unwrap()));
        assert_eq!(address(&headers, peer, 2), Some("2.2.2.2".parse().unwrap()));
        assert_eq!(address(&headers, peer, 9), Some("10.0.0.1".parse().unwrap()));
        headers.insert("x-forwarded-for", HeaderValue::from_static("not an address"));
        assert_eq!(address(&headers, peer, 1), Some("10.0.0.1".parse().unwrap()));
    }
}
