//! Connections: how many there may be, and for how long one may hold its place without asking for anything.
//!
//! A connection costs a descriptor, and descriptors are also what the database and health checks need. So there is a
//! bound in all and one an address, both below the limit of the process, and a connection is closed that
//! - has not begun its first request in time (nothing sent, or headers that drip),
//! - has begun no other request for a while, or does not take its answer.
//!
//! Where there is no room, connections that ask for nothing make room, the ones first that have done so longest. Where
//! all of them are at work, a few more are accepted and answered about health only, so that a monitor sees that the service
//! lives.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::requests::rate_limits::network;

/// Connections beyond the bound that are answered about health.
const HEALTH_ONLY_MAX: usize = 16;
/// Of the connections that ask for nothing, this part makes room at once, so that looking for them stays cheap.
const MAKE_ROOM_PART: usize = 32;
/// How long nothing is accepted when the process has no descriptor left.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(20);
/// How long a stopping service leaves the end of an answer to be taken.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The parts in which answers are handed out, in bytes.
const PART_BYTES_MAX: usize = 64 * 1024;
/// Requests that one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 32;
/// Largest list of headers, in bytes.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// What is read ahead of a connection, in bytes: the longest head of a request.
const BUFFER_BYTES_MAX: usize = 192 * 1024;
/// How often an HTTP/2 connection is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Bounds of connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Most connections.
    pub connections_max: usize,
    /// Most connections of one address (of IPv6, one /64); none where a proxy stands in front.
    pub per_address_max: Option<usize>,
    /// Longest time from connecting to the end of the first request's headers.
    pub header_time: Duration,
    /// Longest time between requests, and for taking a part of an answer.
    pub idle_time: Duration,
}

/// Accepts connections and answers their requests until `stopping`, then finishes what has begun.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, stopping: CancellationToken) {
    let places = Arc::new(Places { limits, held: Mutex::default(), next: AtomicUsize::new(0) });
    // A set and no tracker: where this is aborted, so are they.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            // Otherwise what has ended would be kept.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = places.take(peer) else { continue };
                // Answers are written as a whole; waiting for more would only delay them.
                let _ = stream.set_nodelay(true);
                connections.spawn(converse(stream, peer, place, router.clone(), stopping.clone()));
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted; those that ask for nothing make room");
                places.make_room(|_| true);
                sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Whether the error is of the one connection that was to be accepted.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers the requests of one connection.
async fn converse(stream: TcpStream, peer: SocketAddr, place: Arc<Place>, router: Router, stopping: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    // How long anything may take is this module's to say: see `Place::ends_at`.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    let held = place.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (router, exchange) = (router.clone(), Arc::new(Exchange::begin(&held)));
        async move { Ok::<_, std::convert::Infallible>(answer(exchange, router, request.map(Body::new), peer).await) }
    });
    let io = TokioIo::new(Held { stream, upgraded: false, _place: place.clone() });
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut stops = stopping.is_cancelled();
    if stops {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        let wake = place.ends_at(stops);
        tokio::select! {
            // First, so that what is written is written before anything else is looked at.
            biased;
            // An upgraded connection goes on without this, and keeps its place.
            _ = &mut connection => break place.retire(),
            () = place.close.notified() => if place.gives_way() {
                return;
            },
            () = stopping.cancelled(), if !stops => {
                stops = true;
                connection.as_mut().graceful_shutdown();
            }
            () = place.settled.notified(), if stops => {}
            () = sleep_until(wake) => if place.ends_at(stops) <= Instant::now() {
                return;
            },
        }
    }
}

/// The places for connections, and what holds them.
struct Places {
    limits: ConnectionLimits,
    held: Mutex<Registry>,
    next: AtomicUsize,
}

/// The connections that are there. One that was asked to make room is not among them any more.
#[derive(Default)]
struct Registry {
    by_number: HashMap<usize, Arc<Shown>>,
    by_address: HashMap<IpAddr, usize>,
    /// How many of all are answered about health only.
    health_only: usize,
}

impl Registry {
    fn enter(&mut self, number: usize, shown: Arc<Shown>) {
        *self.by_address.entry(shown.address).or_default() += 1;
        self.health_only += usize::from(shown.is_health_only());
        self.by_number.insert(number, shown);
    }

    fn leave(&mut self, number: usize) {
        let Some(shown) = self.by_number.remove(&number) else { return };
        self.health_only -= usize::from(shown.is_health_only());
        if let Some(count) = self.by_address.get_mut(&shown.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&shown.address);
            }
        }
    }

    /// How many are answered about everything.
    fn whole(&self) -> usize {
        self.by_number.len() - self.health_only
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of this peer; `None` where there is none even for health.
    fn take(self: &Arc<Self>, peer: SocketAddr) -> Option<Arc<Place>> {
        let address = network(Some(peer.ip()));
        let (whole, of_health, of_address) = {
            let held = self.lock();
            (held.whole(), held.health_only, held.by_address.get(&address).copied().unwrap_or(0))
        };
        let refuse =
            |why: &'static str| metrics::counter!("tenancy_connections_refused_total", "why" => why).increment(1);
        let too_many = self.limits.per_address_max.is_some_and(|maximum| of_address >= maximum);
        if too_many && self.make_room(|shown| shown.address == address) == 0 {
            refuse("address");
            return None;
        }
        let health_only = whole >= self.limits.connections_max && self.make_room(|shown| !shown.is_health_only()) == 0;
        if health_only && of_health >= HEALTH_ONLY_MAX && self.make_room(Shown::is_health_only) == 0 {
            refuse("all");
            return None;
        }
        let shown = Arc::new(Shown {
            address,
            health_only: AtomicBool::new(health_only),
            state: Mutex::new(Activity::new()),
            close: Notify::new(),
            settled: Notify::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut held = self.lock();
        held.enter(number, shown.clone());
        metrics::gauge!("tenancy_connections").set(held.by_number.len() as f64);
        Some(Arc::new(Place { shown, number, places: self.clone() }))
    }

    /// Closes some of those connections that ask for nothing, and says how many.
    fn make_room(&self, among: impl Fn(&Shown) -> bool) -> usize {
        let mut held = self.lock();
        let asked = held.by_number.iter().filter(|(_, shown)| among(shown));
        let mut idle: Vec<(Instant, usize)> =
            asked.filter_map(|(number, shown)| shown.idle_since().map(|since| (since, *number))).collect();
        idle.sort_unstable();
        idle.truncate(idle.len().div_ceil(MAKE_ROOM_PART));
        for (_, number) in &idle {
            if let Some(shown) = held.by_number.get(number) {
                shown.close.notify_one();
            }
            held.leave(*number);
        }
        idle.len()
    }
}

/// What is known of a connection.
struct Shown {
    address: IpAddr,
    health_only: AtomicBool,
    state: Mutex<Activity>,
    /// It is to be closed.
    close: Notify,
    /// A request of it is done.
    settled: Notify,
}

struct Activity {
    /// Requests whose answer is not through.
    open: usize,
    /// Those of them for which the service owes something: not those whose client does not send or take what there is.
    at_work: usize,
    /// Since when each of the others has waited for its client.
    waiting: HashMap<usize, Instant>,
    /// The number of the next request.
    next: usize,
    /// Whether it has ever begun a request.
    began: bool,
    /// When it began a request, or something of one went on, last.
    since: Instant,
    /// It was upgraded to something with times of its own.
    upgraded: bool,
}

impl Activity {
    fn new() -> Self {
        let (open, at_work, next) = (0, 0, 0);
        Self { open, at_work, waiting: HashMap::new(), next, began: false, since: Instant::now(), upgraded: false }
    }
}

impl Shown {
    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_health_only(&self) -> bool {
        self.health_only.load(Ordering::Relaxed)
    }

    fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.at_work == 0 && !state.upgraded).then_some(state.since)
    }
}

/// A connection's place, given back when the last of what holds it is gone.
struct Place {
    shown: Arc<Shown>,
    number: usize,
    places: Arc<Places>,
}

impl std::ops::Deref for Place {
    type Target = Shown;

    fn deref(&self) -> &Shown {
        &self.shown
    }
}

impl Place {
    /// When it is to be closed, if nothing happens until then. When the service stops, what has not begun a request has
    /// nothing to lose, and what was answered a moment ago may still be on its way.
    fn ends_at(&self, stops: bool) -> Instant {
        let (state, limits) = (self.lock(), self.places.limits);
        let usual = match (state.at_work, state.began) {
            (0, false) if stops => state.since,
            (0, _) if stops && state.open == 0 => state.since + LAST_WORDS,
            (0, false) => state.since + limits.header_time,
            (0, true) => state.since + limits.idle_time,
            (_, _) => Instant::now() + limits.idle_time,
        };
        // One request of many that stands still holds what it has for no longer than one alone.
        let still = state.waiting.values().min().map(|since| *since + limits.idle_time);
        still.map_or(usual, |still| usual.min(still))
    }

    /// Whether it still makes room. It does not when it has begun a request since it was asked to.
    fn gives_way(&self) -> bool {
        let idle = self.idle_since().is_some();
        if !idle {
            self.places.lock().enter(self.number, self.shown.clone());
        }
        idle
    }

    /// Whether it is answered about health only: as long as there is no other room.
    fn is_for_health(&self) -> bool {
        if !self.is_health_only() {
            return false;
        }
        let mut held = self.places.lock();
        let stays = held.whole() >= self.places.limits.connections_max;
        if !stays && held.by_number.contains_key(&self.number) && self.shown.health_only.swap(false, Ordering::Relaxed)
        {
            held.health_only -= 1;
        }
        stays
    }

    /// Its times are its own from here on.
    fn retire(&self) {
        self.lock().upgraded = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        held.leave(self.number);
        metrics::gauge!("tenancy_connections").set(held.by_number.len() as f64);
    }
}

/// A request that was begun: at work, or waiting for its client to send or take something.
struct Exchange {
    place: Arc<Place>,
    number: usize,
    at_work: AtomicBool,
}

impl Exchange {
    /// Not at work before its answer is asked for: a request that came behind others may have to wait for those.
    fn begin(place: &Arc<Place>) -> Self {
        let mut state = place.lock();
        let number = state.next;
        state.next += 1;
        state.began = true;
        state.open += 1;
        state.since = Instant::now();
        let since = state.since;
        state.waiting.insert(number, since);
        drop(state);
        Self { place: place.clone(), number, at_work: AtomicBool::new(false) }
    }

    fn work(&self, at_work: bool) {
        let changed = self.at_work.swap(at_work, Ordering::Relaxed) != at_work;
        let mut state = self.place.lock();
        state.since = Instant::now();
        let since = state.since;
        match (changed, at_work) {
            (true, true) => {
                state.at_work += 1;
                state.waiting.remove(&self.number);
            }
            (true, false) => {
                state.at_work -= 1;
                state.waiting.insert(self.number, since);
            }
            (false, _) => {}
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.work(false);
        let mut state = self.place.lock();
        state.open -= 1;
        state.waiting.remove(&self.number);
        drop(state);
        self.place.settled.notify_one();
    }
}

/// Marks a request that is answered only where it is about health.
#[derive(Clone, Copy)]
struct Crowded;

async fn answer(exchange: Arc<Exchange>, router: Router, request: Request, peer: SocketAddr) -> Response {
    exchange.work(true);
    let mut request = request.map(|body| Body::new(Received { body, exchange: exchange.clone() }));
    request.extensions_mut().insert(ConnectInfo(peer));
    if exchange.place.is_for_health() {
        request.extensions_mut().insert(Crowded);
    }
    let Ok(response) = router.oneshot(request).await;
    // From here on it is for the client to take it; see `Answer`.
    exchange.work(false);
    response.map(|body| Body::new(Answer { body, rest: Bytes::new(), exchange }))
}

/// Refuses whatever is not about health while all places are taken by requests at work.
pub(super) async fn refuse_if_crowded(request: Request, next: Next) -> Response {
    let crowded = request.extensions().get::<Crowded>().is_some();
    if !crowded || request.uri().path().starts_with("/health/") {
        return next.run(request).await;
    }
    let text = "All connections are at work (http.connections_max). Try again in a moment.\n";
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The body of a request. While it is awaited, it is the client who owes something.
struct Received {
    body: Body,
    exchange: Arc<Exchange>,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.exchange.work(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, handed out in small parts so that it shows how far the client has taken it. The service is at
/// work on it while a part of it is awaited; a part that is there waits for the client.
struct Answer {
    body: Body,
    /// What is there already.
    rest: Bytes,
    exchange: Arc<Exchange>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.exchange.work(true);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => {
                    self.exchange.work(false);
                    return Poll::Ready(Some(Ok(other)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.exchange.work(false);
                    return Poll::Ready(None);
                }
            }
        }
        self.exchange.work(false);
        let length = self.rest.len().min(PART_BYTES_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(of_body.lower() + rest);
        hint
    }
}

/// A stream that holds its connection's place, also when it was upgraded.
struct Held {
    stream: TcpStream,
    /// Whether it was upgraded: what follows is no head of an answer.
    upgraded: bool,
    _place: Arc<Place>,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// The names of an upgrade's headers as RFC 6455 writes them: some clients look for just that.
const UPGRADE_NAMES: [&str; 4] = ["Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Connection", "Upgrade"];

/// The head of an answer that upgrades, with its headers' names as some clients look for them; nothing of another answer.
fn upgrade_head(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bytes.strip_suffix(b"\r\n\r\n")?).ok()?;
    if !head.starts_with("HTTP/1.1 101 ") {
        return None;
    }
    let renamed = head.split("\r\n").map(|line| {
        let name =
            UPGRADE_NAMES.iter().find(|name| line.split(':').next().is_some_and(|own| own.eq_ignore_ascii_case(name)));
        name.map_or_else(|| line.to_owned(), |name| format!("{name}{}", &line[name.len()..]))
    });
    Some((renamed.collect::<Vec<_>>().join("\r\n") + "\r\n\r\n").into_bytes())
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // An answer that upgrades is written at once, before anything else; the names are as long as before.
        let renamed = if self.upgraded { None } else { upgrade_head(bytes) };
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, renamed.as_deref().unwrap_or(bytes)));
        self.upgraded |= renamed.is_some();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = slices.iter().find(|slice| !slice.is_empty())
            && !self.upgraded
            && first.starts_with(b"HTTP/1.1 101 ")
        {
            return self.poll_write(context, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upgrade_has_its_headers_renamed() {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nsec-websocket-protocol: a\r\nx: sec-websocket-accept\r\n\r\n";
        let renamed = upgrade_head(answer.as_bytes()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let wanted = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nSec-WebSocket-Protocol: a\r\nx: sec-websocket-accept\r\n\r\n";
        assert_eq!(renamed.as_deref(), Some(wanted));
        assert_eq!(upgrade_head(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"), None);
        assert_eq!(upgrade_head(b"HTTP/1.1 101 Switching"), None);
    }
}
