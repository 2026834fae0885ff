//! Subscriptions: over a WebSocket (`ws`) and as server-sent events (`sse`).
//!
//! Both are the same underneath: a caller who was let in, a stream of responses that each say where they are, and a
//! deadline by which the client has to have taken each of them. Nothing is queued for a client but the one response
//! that it is being sent.

mod sse;
mod ws;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aggregates::Actor;
use async_graphql::{Response as GraphqlResponse, ServerError, Value};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, header};
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};

use super::graphql::{self, Call, code, coded};
use super::{Shared, bearer, caller, rate_limited};
use crate::access::rate_limits::Meter;
use crate::commands::Caller;
use crate::config;
use crate::graphql::{Session, Terms, fault};

pub use sse::sse;
pub use ws::websocket;

/// How many feeds may be open, and how long things may take.
pub struct FeedLimits {
    connections_max: usize,
    connections_per_user_max: usize,
    feeds_per_connection_max: usize,
    send_timeout: Duration,
    init_timeout: Duration,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_caller: HashMap<Actor, usize>,
}

/// One connection among those that are open.
struct Place {
    shared: Arc<Shared>,
    caller: Option<Actor>,
}

impl FeedLimits {
    /// As configured; nothing is open.
    pub fn new(config: &config::Feed) -> Self {
        Self {
            connections_max: config.connections_max as usize,
            connections_per_user_max: config.connections_per_user_max as usize,
            feeds_per_connection_max: config.feeds_per_connection_max as usize,
            send_timeout: Duration::from_secs(config.send_timeout_seconds.into()),
            init_timeout: Duration::from_secs(config.init_timeout_seconds.into()),
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Of whomever; UNAVAILABLE where there is none.
    fn take(shared: &Arc<Shared>) -> Result<Self, ServerError> {
        let limits = &shared.feeds;
        let mut open = limits.open();
        if open.all >= limits.connections_max {
            let message = format!(
                "{} connections for feeds are open here, and no more are allowed (feed.connections_max). Try again later.",
                open.all
            );
            return Err(coded(code::UNAVAILABLE, message, None));
        }
        open.all += 1;
        metrics::gauge!("tenancy_feed_connections").increment(1.0);
        Ok(Self { shared: shared.clone(), caller: None })
    }

    /// Counts it for this caller; RATE_LIMITED where that is too much.
    fn of(&mut self, caller: &Actor) -> Result<(), ServerError> {
        let limits = &self.shared.feeds;
        let mut open = limits.open();
        let own = open.by_caller.entry(caller.clone()).or_default();
        if *own >= limits.connections_per_user_max {
            let message = format!(
                "You have {own} connections for feeds, and no more are allowed (feed.connections_per_user_max). Close one."
            );
            return Err(coded(code::RATE_LIMITED, message, None));
        }
        *own += 1;
        drop(open);
        self.caller = Some(caller.clone());
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("tenancy_feed_connections").decrement(1.0);
        let mut open = self.shared.feeds.open();
        open.all -= 1;
        let Some(caller) = &self.caller else { return };
        if let Some(own) = open.by_caller.get_mut(caller) {
            *own -= 1;
            if *own == 0 {
                open.by_caller.remove(caller);
            }
        }
    }
}

/// A caller, and until when his token is valid.
#[derive(Clone)]
struct Admitted {
    caller: Caller,
    until: DateTime<Utc>,
}

/// Who calls, by the headers; nobody is not let in.
async fn admit(shared: &Arc<Shared>, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Admitted, ServerError> {
    let meter = Arc::new(Meter::new(shared.rate_limits.clone()));
    let missing = || coded(code::UNAUTHENTICATED, "sign in first: send `Authorization: Bearer <token>`", None);
    let caller = caller(shared, headers, peer, &meter).await?.ok_or_else(missing)?;
    let token = headers.get(header::AUTHORIZATION).and_then(bearer).ok_or_else(missing)?;
    let until = shared.access.valid_until(token).await;
    let until = until.map_err(|denied| coded(code::UNAUTHENTICATED, denied.to_string(), None))?;
    let until = until.unwrap_or(DateTime::<Utc>::MAX_UTC);
    Ok(Admitted { caller, until })
}

fn peer(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer)
}

/// A response of a feed.
struct Told {
    response: GraphqlResponse,
    /// Where to go on after it.
    position: Option<String>,
    /// Whether it is a refusal or the end: nothing follows.
    last: bool,
}

/// Executes a subscription. Each time it is counted as a query.
async fn execute(
    shared: &Arc<Shared>,
    admitted: &Admitted,
    call: Call,
    resume: Option<String>,
) -> Result<BoxStream<'static, Told>, ServerError> {
    let Admitted { mut caller, until } = admitted.clone();
    let Call { mut request, inputs, .. } = call;
    let meter = Arc::new(Meter::new(shared.rate_limits.clone()));
    meter.query(&caller.actor(false)).map_err(rate_limited)?;
    caller.meter = Some(meter);
    let pending = shared.access.is_pending(&caller.principal).await;
    let pending = pending.map_err(|error| fault(error).into_server_error(Default::default()))?;
    let operation = graphql::operation_name(&mut request);
    let session = Session::new(shared.app.clone(), Some(caller), pending, operation);
    let terms = Terms::new(until, resume);
    let responses = shared.schema.execute_stream(request.data(session).data(terms.clone()));
    let limits = shared.limits.clone();
    let told = stream::unfold(Some((responses.boxed(), None)), move |state| {
        let (terms, limits, inputs) = (terms.clone(), limits.clone(), inputs.clone());
        async move {
            let (mut responses, before): (BoxStream<'static, GraphqlResponse>, Option<String>) = state?;
            let mut response = responses.next().await?;
            graphql::settle(&mut response, &limits, &inputs);
            // Without data there was an error at the root, and the feed is over.
            let last = response.data == Value::Null;
            let position = if last { before } else { terms.position() };
            if last {
                end(&mut response, position.as_deref());
            }
            let next = (!last).then(|| (responses, position.clone()));
            Some((Told { response, position, last }, next))
        }
    });
    Ok(told.boxed())
}

/// Counts the end, and says where to go on if nobody has said so.
fn end(response: &mut GraphqlResponse, position: Option<&str>) {
    for error in &mut response.errors {
        let extensions = error.extensions.get_or_insert_default();
        let reason = match extensions.get("code") {
            Some(Value::String(code)) => code.clone(),
            _ => String::new(),
        };
        metrics::counter!("tenancy_feeds_ended_total", "reason" => reason.clone()).increment(1);
        if let Some(position) = position.filter(|_| extensions.get("position").is_none())
            && reason != "POSITION_UNKNOWN"
        {
            extensions.set("position", position);
        }
    }
}

/// Counts a client that did not take what it was sent.
fn cut_off() {
    metrics::counter!("tenancy_feeds_ended_total", "reason" => "SLOW").increment(1);
    tracing::info!("a feed was cut off: its client did not take what it was sent");
}
