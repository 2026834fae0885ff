//! Subscriptions over a WebSocket: the sub-protocol `graphql-transport-ws` of
//! <https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>, with its close codes.
//!
//! One task a connection reads and writes; each feed has a task of its own that hands over one message at a time. So a
//! client that takes nothing stops its feeds where they are, and is cut off when its time is over.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_graphql::{Response as GraphqlResponse, ServerError};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::super::{Shared, address, graphql, rate_limited};
use super::graphql::{code, coded};
use super::{Admitted, Place, Threshold, admit, count, cut_off, execute, peer};
use crate::requests::rate_limits::{Meter, network};

const PROTOCOL: &str = "graphql-transport-ws";
/// The close code for a service that is full (registry of RFC 6455).
const TRY_AGAIN_LATER: u16 = 1013;
/// The longest id of a subscription, in bytes.
const ID_BYTES_MAX: usize = 128;
/// What a close frame's reason may have at most, in bytes (RFC 6455, section 5.5).
const REASON_BYTES_MAX: usize = 123;
/// How much is read from a connection at once, in bytes.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// How long the feeds of a connection have to say why they end, before it is closed under them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a connection is closed: a code of the protocol, or of RFC 6455, and words.
struct Close(u16, String);

fn bad_request(message: impl Into<String>) -> Close {
    Close(4400, message.into())
}

/// Upgrades to a WebSocket.
pub async fn websocket(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (headers, peer) = (request.headers().clone(), peer(&request));
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    if !offered.flat_map(|value| value.split(',')).any(|protocol| protocol.trim() == PROTOCOL) {
        let text = format!("Speak the sub-protocol {PROTOCOL}: send Sec-WebSocket-Protocol: {PROTOCOL}\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    // The caller comes later, by a message: until then it is a call without a valid token.
    let address = address(&headers, peer, shared.trusted_proxies);
    let counted = Meter::new(shared.rate_limits.clone()).unauthenticated(address).map_err(rate_limited);
    let threshold = match counted.and_then(|()| Threshold::take(&shared, network(address))) {
        Ok(threshold) => threshold,
        Err(error) => return graphql::refuse(&headers, error),
    };
    let message_max = shared.documents.limits.body_bytes_max;
    let requests = shared.in_flight.clone();
    upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(message_max)
        .max_frame_size(message_max)
        // Counted from here on, so that a stopping service says goodbye to it.
        .on_upgrade({
            let counted = requests.token();
            async move |socket| {
                let _counted = counted;
                Connection::new(shared, threshold, headers, peer).run(socket).await;
            }
        })
}

/// A message to the client.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Reply<'a> {
    ConnectionAck,
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<Value>,
    },
    Next {
        id: &'a str,
        payload: &'a GraphqlResponse,
    },
    Error {
        id: &'a str,
        payload: &'a [ServerError],
    },
    Complete {
        id: &'a str,
    },
}

impl Reply<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What a feed hands over.
struct Outgoing {
    id: String,
    /// Which of the feeds that had this id.
    number: u64,
    text: String,
    last: bool,
}

/// One connection.
struct Connection {
    shared: Arc<Shared>,
    /// Where it waits until its client has authenticated.
    threshold: Option<Threshold>,
    /// From then on.
    place: Option<Place>,
    headers: HeaderMap,
    peer: Option<SocketAddr>,
    admitted: Option<Admitted>,
    feeds: HashMap<String, (u64, AbortHandle)>,
    numbers: u64,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Outgoing>,
    outgoing: mpsc::Receiver<Outgoing>,
    /// When it is closed, and why.
    deadline: Option<(Instant, u16, &'static str)>,
}

impl Connection {
    fn new(shared: Arc<Shared>, threshold: Threshold, headers: HeaderMap, peer: Option<SocketAddr>) -> Self {
        let (sender, outgoing) = mpsc::channel(1);
        let until = Instant::now() + shared.feeds.init_timeout;
        Self {
            shared,
            threshold: Some(threshold),
            place: None,
            headers,
            peer,
            admitted: None,
            feeds: HashMap::new(),
            numbers: 0,
            tasks: JoinSet::new(),
            sender,
            outgoing,
            deadline: Some((until, 4408, "Connection initialisation timeout")),
        }
    }

    /// Serves it to its end. Everything that it started ends with it.
    async fn run(mut self, mut socket: WebSocket) {
        let limit = self.shared.feeds.send_timeout;
        let Some(Close(code, reason)) = self.serve(&mut socket).await else { return };
        self.tasks.abort_all();
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame { code, reason: reason[..end].into() };
        let closing = async {
            if socket.send(Message::Close(Some(frame))).await.is_ok() {
                // Until the other side has closed too, so that what was sent last arrives.
                while let Some(Ok(_)) = socket.recv().await {}
            }
        };
        let _ = timeout(limit.min(Duration::from_secs(5)), closing).await;
    }

    /// Reads and writes until there is a reason to close; without one, where nobody is there any more to hear it.
    async fn serve(&mut self, socket: &mut WebSocket) -> Option<Close> {
        let (heartbeat, limit) = (self.shared.app.feeds.heartbeat(), self.shared.feeds.send_timeout);
        let stopping = self.shared.app.feeds.stopping().clone();
        let mut stopped = false;
        let mut look = Instant::now() + heartbeat;
        let mut heard = Instant::now();
        loop {
            if !stopped && stopping.is_cancelled() {
                stopped = true;
                self.deadline = Some((Instant::now() + LAST_WORDS, 1001, "The service is stopping"));
            }
            if stopped && self.tasks.is_empty() && self.feeds.is_empty() {
                return Some(Close(1001, "The service is stopping".to_owned()));
            }
            let far = look + Duration::from_secs(24 * 3600);
            let (deadline, code, reason) = self.deadline.unwrap_or((far, 1000, ""));
            let reply = tokio::select! {
                message = socket.recv() => {
                    heard = Instant::now();
                    let Some(Ok(message)) = message else { return None };
                    match self.receive(message).await {
                        Ok(reply) => reply.map(Message::from),
                        Err(close) => return Some(close),
                    }
                }
                Some(out) = self.outgoing.recv() => self.pass(out).map(Message::from),
                Some(_) = self.tasks.join_next() => None,
                () = sleep_until(deadline) => return Some(Close(code, reason.to_owned())),
                () = stopping.cancelled(), if !stopped => None,
                () = sleep_until(look) => {
                    look = Instant::now() + heartbeat;
                    if heard.elapsed() > heartbeat * 3 {
                        return None;
                    }
                    Some(Message::Ping(Default::default()))
                }
            };
            let Some(reply) = reply else { continue };
            match timeout(limit, socket.send(reply)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => {
                    cut_off();
                    return None;
                }
            }
        }
    }

    /// What a feed has to say, if it still runs.
    fn pass(&mut self, out: Outgoing) -> Option<String> {
        let current = self.feeds.get(&out.id).is_some_and(|(number, _)| *number == out.number);
        if current && out.last {
            self.feeds.remove(&out.id);
        }
        current.then_some(out.text)
    }

    /// Does what the client says; what to answer.
    async fn receive(&mut self, message: Message) -> Result<Option<String>, Close> {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(bad_request("Messages are text")),
            // Answered below this; a close ends the stream of messages.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return Ok(None),
        };
        let Ok(Value::Object(mut message)) = serde_json::from_str(&text) else {
            return Err(bad_request("A message is a JSON object"));
        };
        let payload = message.remove("payload");
        let id = match message.get("id") {
            Some(Value::String(id)) if (1..=ID_BYTES_MAX).contains(&id.len()) => Some(id.clone()),
            Some(_) => return Err(bad_request(format!("An id is a text of 1 to {ID_BYTES_MAX} bytes"))),
            None => None,
        };
        let missing = || bad_request("The id is missing");
        match message.get("type").and_then(Value::as_str) {
            Some("connection_init") => self.initialise(payload).await.map(Some),
            Some("ping") => Ok(Some(Reply::Pong { payload }.text())),
            Some("pong") => Ok(None),
            Some("subscribe") => self.subscribe(id.ok_or_else(missing)?, payload).await,
            Some("complete") => {
                if let Some((_, task)) = self.feeds.remove(&id.ok_or_else(missing)?) {
                    task.abort();
                }
                Ok(None)
            }
            _ => Err(bad_request("There is no such type of message")),
        }
    }

    async fn initialise(&mut self, payload: Option<Value>) -> Result<String, Close> {
        if self.admitted.is_some() {
            return Err(Close(4429, "Too many initialisation requests".to_owned()));
        }
        let mut headers = self.headers.clone();
        if let Some(token) = token(payload)? {
            headers.insert(header::AUTHORIZATION, token);
        }
        let admitted = admit(&self.shared, &headers, self.peer).await.map_err(forbidden)?;
        let mut place = Place::take(&self.shared).map_err(|error| Close(TRY_AGAIN_LATER, error.message))?;
        place.of(&admitted.caller.actor(false)).map_err(forbidden)?;
        self.place = Some(place);
        self.threshold = None;
        let left = (admitted.until - chrono::Utc::now()).to_std().unwrap_or_default();
        // The feeds themselves say that the token has expired; the connection follows.
        let until = Instant::now().checked_add(left.saturating_add(LAST_WORDS));
        self.deadline = until.map(|until| (until, 4403, "Forbidden: the token has expired"));
        self.admitted = Some(admitted);
        Ok(Reply::ConnectionAck.text())
    }

    async fn subscribe(&mut self, id: String, payload: Option<Value>) -> Result<Option<String>, Close> {
        let Some(admitted) = self.admitted.clone() else { return Err(Close(4401, "Unauthorized".to_owned())) };
        if self.feeds.contains_key(&id) {
            return Err(Close(4409, format!("Subscriber for {id} already exists")));
        }
        let Some(Value::Object(payload)) = payload else { return Err(bad_request("The payload is missing")) };
        let refused = |error: ServerError| Ok(Some(Reply::Error { id: &id, payload: &[error] }.text()));
        let maximum = self.shared.feeds.feeds_per_connection_max;
        if self.feeds.len() >= maximum {
            let message = format!(
                "This connection has {maximum} subscriptions, and no more are allowed (feed.feeds_per_connection_max). \
                 Complete one, or open another connection."
            );
            return refused(coded(code::RATE_LIMITED, message, None));
        }
        let meter = Arc::new(Meter::new(self.shared.rate_limits.clone()));
        let admitted = match count(&admitted, meter) {
            Ok(admitted) => admitted,
            Err(error) => return refused(error),
        };
        let call = match graphql::subscription_of(payload, &self.shared.documents) {
            Ok(call) => call,
            Err(error) => return refused(error),
        };
        let mut told = match execute(&self.shared, admitted, call, None).await {
            Ok(told) => told,
            Err(error) => return refused(error),
        };
        self.numbers += 1;
        let (number, sender, name) = (self.numbers, self.sender.clone(), id.clone());
        let task = self.tasks.spawn(async move {
            let id = name;
            while let Some(told) = told.next().await {
                let reply = match told.last {
                    true => Reply::Error { id: &id, payload: &told.response.errors },
                    false => Reply::Next { id: &id, payload: &told.response },
                };
                let out = Outgoing { id: id.clone(), number, text: reply.text(), last: told.last };
                if sender.send(out).await.is_err() || told.last {
                    return;
                }
            }
            let text = Reply::Complete { id: &id }.text();
            let _ = sender.send(Outgoing { id, number, text, last: true }).await;
        });
        self.feeds.insert(id, (number, task));
        Ok(None)
    }
}

/// A connection that is not let in.
fn forbidden(error: ServerError) -> Close {
    Close(4403, format!("Forbidden: {}", error.message))
}

/// The token in the payload of `connection_init`, where there is one.
fn token(payload: Option<Value>) -> Result<Option<HeaderValue>, Close> {
    let payload: Map<String, Value> = match payload {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(payload)) => payload,
        Some(_) => return Err(bad_request("The payload of connection_init is an object")),
    };
    let given = payload.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let Some((_, given)) = given else { return Ok(None) };
    let value = given.as_str().and_then(|text| HeaderValue::from_str(text).ok());
    value.map(Some).ok_or_else(|| bad_request("Authorization is a text such as `Bearer <token>`"))
}
