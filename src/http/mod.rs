//! What is served over HTTP: GraphQL, GraphiQL, health and metrics.

mod graphiql;
mod graphql;
mod limits;
mod operation;

use std::net::SocketAddr;
use std::sync::Arc;

use aggregates::user::UserState;
use async_graphql::parser::types::OperationType;
use async_graphql::{Request as GraphqlRequest, Response as GraphqlResponse};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get};
use tracing::Instrument;
use uuid::Uuid;

use crate::access::{Access, Denied};
use crate::commands::Caller;
use crate::graphql::{App, Session, TenancySchema};

pub use limits::Limits;
pub use operation::{Health, install_metrics};

/// The header that names a request in logs and in the audit.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
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
    /// Limits of requests.
    pub limits: Limits,
    /// How many proxies in front can be trusted with X-Forwarded-For.
    pub trusted_proxies: usize,
    /// How the service is.
    pub health: Health,
    /// Held by whatever must be finished before the service stops.
    pub in_flight: tokio::sync::mpsc::Sender<()>,
}

/// All routes.
pub fn router(shared: Arc<Shared>, with_graphiql: bool) -> Router {
    let mut router = Router::new()
        .route("/graphql", any(graphql))
        .route("/health/live", get(operation::live))
        .route("/health/ready", get(operation::ready))
        .route("/metrics", get(operation::metrics));
    if with_graphiql {
        router = router.merge(graphiql::routes());
    }
    router.fallback(operation::no_such_route).layer(middleware::from_fn(name_request)).with_state(shared)
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
    let headers = request.headers().clone();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    let limits = shared.limits.clone();
    let started = std::time::Instant::now();
    let response = graphql::answer(request, &limits, move |request, operation| {
        execute(shared, request, operation, headers, peer).instrument(tracing::Span::current())
    })
    .await;
    metrics::histogram!("tenancy_graphql_request_seconds").record(started.elapsed().as_secs_f64());
    metrics::counter!("tenancy_graphql_requests_total", "status" => response.status().as_str().to_owned()).increment(1);
    response
}

async fn execute(
    shared: Arc<Shared>,
    request: GraphqlRequest,
    operation: OperationType,
    headers: HeaderMap,
    peer: Option<SocketAddr>,
) -> GraphqlResponse {
    // Held until this is done: a stopping service finishes what it accepted, also when the client has gone.
    let _in_flight = shared.in_flight.clone();
    let caller = match caller(&shared, &headers, peer).await {
        Ok(caller) => caller,
        Err(error) => return GraphqlResponse::from_errors(vec![error]),
    };
    // A command looks by itself, and relies on what it sees.
    let state = match &caller {
        Some(caller) if operation != OperationType::Mutation => shared.access.state_of(&caller.principal).await,
        _ => Ok(UserState::Active),
    };
    let pending = match state {
        Ok(state) => state == UserState::Pending,
        Err(fault) => {
            let error = crate::graphql::fault(fault).into_server_error(Default::default());
            return GraphqlResponse::from_errors(vec![error]);
        }
    };
    let session = Session::new(shared.app.clone(), caller, pending);
    shared.schema.execute(request.data(session)).await
}

/// Who calls, by the request's token; `None` without one.
async fn caller(
    shared: &Shared,
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
) -> Result<Option<Caller>, async_graphql::ServerError> {
    let Some(authorization) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let unauthenticated = |message: String| graphql::coded(graphql::code::UNAUTHENTICATED, message, None);
    let token = authorization
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| unauthenticated("the Authorization header is not `Bearer <token>`".to_owned()))?;
    let principal = shared.access.authenticate(token).await.map_err(|denied| match denied {
        Denied::Refused(refused) => unauthenticated(refused.to_string()),
        Denied::Fault(fault) => crate::graphql::fault(fault).into_server_error(Default::default()),
    })?;
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let request_id = text(&REQUEST_ID).map(str::to_owned);
    let correlation_id = request_id.as_deref().and_then(|id| id.parse().ok()).unwrap_or_else(Uuid::new_v4);
    Ok(Some(Caller {
        principal,
        ip: address(headers, peer, shared.trusted_proxies),
        user_agent: text(&header::USER_AGENT).map(|agent| agent.chars().take(USER_AGENT_BYTES_MAX).collect()),
        request_id,
        correlation_id,
    }))
}

/// The client's address: the peer's, or what the outermost trusted proxy says of its own peer.
fn address(headers: &HeaderMap, peer: Option<SocketAddr>, trusted_proxies: usize) -> Option<String> {
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let named = trusted_proxies.checked_sub(1).and_then(|back| forwarded.iter().rev().nth(back));
    let named = named.and_then(|text| text.parse::<std::net::IpAddr>().ok());
    named.or(peer.map(|peer| peer.ip())).map(|ip| ip.to_canonical().to_string())
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
        assert_eq!(address(&headers, peer, 0).as_deref(), Some("10.0.0.1"));
        assert_eq!(address(&headers, peer, 1).as_deref(), Some("3.3.3.3"));
        assert_eq!(address(&headers, peer, 2).as_deref(), Some("2.2.2.2"));
        assert_eq!(address(&headers, peer, 9).as_deref(), Some("10.0.0.1"));
        headers.insert("x-forwarded-for", HeaderValue::from_static("not an address"));
        assert_eq!(address(&headers, peer, 1).as_deref(), Some("10.0.0.1"));
    }
}
