//! Subscriptions: over a WebSocket (`ws`) and as server-sent events (`sse`).
//!
//! Both are the same underneath: a caller who was let in, a stream of responses that each say where they are, and a
//! deadline by which the client has to have taken each of them. Nothing is queued for a client but the one response
//! that it is being sent.

mod sse;
mod ws;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
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
use crate::commands::Caller;
use crate::config;
use crate::graphql::{FeedTransport, Session, fault};
use crate::requests::rate_limits::Meter;

pub use sse::{LAST_EVENT_ID, sse, stream};
pub use ws::websocket;

/// How many WebSockets may wait for their client to authenticate, which takes a moment: in all, and from one address
/// (of IPv6, one network), where many may come through one gateway.
const STRANGERS_MAX: usize = 1_000;
const STRANGERS_PER_ADDRESS_MAX: usize = 100;

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
    /// WebSockets whose client has not authenticated yet.
    strangers: usize,
    strangers_by_address: HashMap<IpAddr, usize>,
}

/// One WebSocket among those whose client has not authenticated yet. They are not among those of callers, so that
/// strangers keep nobody out.
struct Threshold {
    shared: Arc<Shared>,
    address: IpAddr,
}

/// One connection among those that are open.
pub(super) struct Place {
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

    /// Of this caller.
    pub(super) fn for_caller(shared: &Arc<Shared>, caller: &Actor) -> Result<Self, ServerError> {
        let mut place = Self::take(shared)?;
        place.of(caller)?;
        Ok(place)
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

impl Threshold {
    /// For a client of this address; UNAVAILABLE where there are too many, RATE_LIMITED where they are its own.
    fn take(shared: &Arc<Shared>, address: IpAddr) -> Result<Self, ServerError> {
        let mut open = shared.feeds.open();
        if open.strangers >= STRANGERS_MAX {
            let message = "Too many connections for feeds wait here for their client to sign in. Try again later.";
            return Err(coded(code::UNAVAILABLE, message, None));
        }
        let own = open.strangers_by_address.entry(address).or_default();
        if *own >= STRANGERS_PER_ADDRESS_MAX {
            let message = format!(
                "{own} connections for feeds of this address wait for their client to sign in, and no more are allowed. \
                 Send connection_init on one, or close it."
            );
            return Err(coded(code::RATE_LIMITED, message, None));
        }
        *own += 1;
        open.strangers += 1;
        drop(open);
        Ok(Self { shared: shared.clone(), address })
    }
}

impl Drop for Threshold {
    fn drop(&mut self) {
        let mut open = self.shared.feeds.open();
        open.strangers -= 1;
        if let Some(own) = open.strangers_by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.strangers_by_address.remove(&self.address);
            }
        }
    }
}

/// A caller, and until when their token is valid.
#[derive(Clone)]
struct Admitted {
    caller: Caller,
    until: DateTime<Utc>,
}

/// The caller, by the headers; without one nothing is let in.
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

/// Counts a subscription as a query of its caller: before it is parsed, so that one that is no good counts too.
fn count(admitted: &Admitted, meter: Arc<Meter>) -> Result<Admitted, ServerError> {
    let mut admitted = admitted.clone();
    meter.query(&admitted.caller.actor(false)).map_err(rate_limited)?;
    admitted.caller.meter = Some(meter);
    Ok(admitted)
}

/// Executes a subscription that was counted.
async fn execute(
    shared: &Arc<Shared>,
    admitted: Admitted,
    call: Call,
    resume: Option<String>,
) -> Result<BoxStream<'static, Told>, ServerError> {
    let Admitted { caller, until } = admitted;
    let pending = shared.access.is_pending(&caller.principal).await;
    let pending = pending.map_err(|error| fault(error).into_server_error(Default::default()))?;
    let session = Session::new(shared.app.clone(), Some(caller), pending, call.name());
    let (request, inputs) = (call.request(), call.inputs());
    let transport = FeedTransport::new(until, resume);
    let responses = shared.schema.execute_stream(request.data(session).data(transport.clone()));
    let limits = shared.documents.limits.clone();
    let told = stream::unfold(Some((responses.boxed(), None)), move |state| {
        let (transport, limits, inputs) = (transport.clone(), limits.clone(), inputs.clone());
        async move {
            let (mut responses, before): (BoxStream<'static, GraphqlResponse>, Option<String>) = state?;
            let mut response = responses.next().await?;
            graphql::settle(&mut response, &limits, &inputs);
            // Without data there was an error at the root, and the feed is over.
            let last = response.data == Value::Null;
            let position = if last { before } else { transport.position() };
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
