//! Connections: how many there may be, and for how long one may hold its place without asking for anything.
//!
//! A connection costs a descriptor, and descriptors are also what the database and health checks need. So there is a
//! bound in all and one an address, both below the limit of the process, and a connection is closed that
//! - has not begun its first request in time (nothing sent, or headers that drip),
//! - has begun no other request for a while, or does not take its answer.
//!
//! Where there is no room, connections that ask for nothing make room, the ones first that have done so longest. Where
//! all of them are at work, a few more are accepted and answered about health only, so that whoever watches the service
//! sees that it lives.

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
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;

use crate::access::rate_limits::network;

/// Connections beyond the bound that are answered about health.
const HEALTH_ONLY_MAX: usize = 16;
/// Of the connections that ask for nothing, this part makes room at once, so that looking for them stays cheap.
const MAKE_ROOM_PART: usize = 32;
/// How long nothing is accepted when the process has no descriptor left.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(20);
/// How long a stopping service leaves an answer that was written to be taken.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Requests that one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 128;
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
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let places = Arc::new(Places { limits, held: Mutex::default(), next: AtomicUsize::new(0) });
    let mut connections = JoinSet::new();
    while !*stopping.borrow() {
        let accepted = tokio::select! {
            _ = stopping.changed() => continue,
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
    Ok(())
}

/// Whether the error is of the one connection that was to be accepted.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers the requests of one connection.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    place: Arc<Place>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    let held = place.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (router, exchange) = (router.clone(), Exchange::begin(&held));
        async move { Ok::<_, std::convert::Infallible>(exchange.answer(router, request.map(Body::new), peer).await) }
    });
    let io = TokioIo::new(Held { stream, upgraded: false, _place: place.clone() });
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut stops = *stopping.borrow();
    if stops {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        let wake = place.ends_at(stops);
        tokio::select! {
            // An upgraded connection goes on without this, and keeps its place.
            _ = &mut connection => break place.retire(),
            () = place.close.notified() => if place.gives_way() {
                return;
            },
            () = sleep_until(wake) => if place.ends_at(stops) <= Instant::now() {
                return;
            },
            () = place.settled.notified(), if stops => {}
            changed = stopping.changed(), if !stops => {
                stops = true;
                if changed.is_ok() {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Who holds a connection.
struct Places {
    limits: ConnectionLimits,
    held: Mutex<Registry>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Registry {
    by_number: HashMap<usize, Arc<Shown>>,
    by_address: HashMap<IpAddr, usize>,
    /// How many of all are answered about health only.
    health_only: usize,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of this peer; `None` where there is none even for health.
    fn take(self: &Arc<Self>, peer: SocketAddr) -> Option<Arc<Place>> {
        let address = network(Some(peer.ip()));
        let (all, of_health, of_address) = {
            let held = self.lock();
            let of_address = held.by_address.get(&address).copied().unwrap_or(0);
            (held.by_number.len() - held.health_only, held.health_only, of_address)
        };
        let refuse =
            |why: &'static str| metrics::counter!("tenancy_connections_refused_total", "why" => why).increment(1);
        let too_many = self.limits.per_address_max.is_some_and(|maximum| of_address >= maximum);
        if too_many && self.make_room(|shown| shown.address == address) == 0 {
            refuse("address");
            return None;
        }
        let health_only = all >= self.limits.connections_max && self.make_room(|shown| !shown.health_only) == 0;
        if health_only && of_health >= HEALTH_ONLY_MAX && self.make_room(|shown| shown.health_only) == 0 {
            refuse("all");
            return None;
        }
        let shown = Arc::new(Shown {
            address,
            health_only,
            state: Mutex::new(Activity { open: 0, at_work: 0, began: false, since: Instant::now(), gone: false }),
            close: Notify::new(),
            settled: Notify::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut held = self.lock();
        held.by_number.insert(number, shown.clone());
        *held.by_address.entry(address).or_default() += 1;
        held.health_only += usize::from(health_only);
        metrics::gauge!("tenancy_connections").set(held.by_number.len() as f64);
        Some(Arc::new(Place { shown, number, places: self.clone() }))
    }

    /// Closes some of those connections that ask for nothing, and says how many.
    fn make_room(&self, among: impl Fn(&Shown) -> bool) -> usize {
        let held = self.lock();
        let asked = held.by_number.values().filter(|shown| among(shown));
        let mut idle: Vec<(Instant, &Arc<Shown>)> =
            asked.filter_map(|shown| shown.idle_since().map(|since| (since, shown))).collect();
        idle.sort_by_key(|(since, _)| *since);
        let number = idle.len().div_ceil(MAKE_ROOM_PART);
        for (_, shown) in idle.iter().take(number) {
            shown.lock().gone = true;
            shown.close.notify_one();
        }
        number
    }

    fn give_back(&self, number: usize, shown: &Shown) {
        let mut held = self.lock();
        held.by_number.remove(&number);
        held.health_only -= usize::from(shown.health_only);
        if let Some(count) = held.by_address.get_mut(&shown.address) {
            *count -= 1;
            if *count == 0 {
                held.by_address.remove(&shown.address);
            }
        }
        metrics::gauge!("tenancy_connections").set(held.by_number.len() as f64);
    }
}

/// What is known of a connection.
struct Shown {
    address: IpAddr,
    health_only: bool,
    state: Mutex<Activity>,
    /// It is to be closed.
    close: Notify,
    /// A request of it is done.
    settled: Notify,
}

struct Activity {
    /// Requests whose answer is not through.
    open: usize,
    /// Requests for which the service owes something; not those whose client does not take what there is.
    at_work: usize,
    /// Whether it has ever begun a request.
    began: bool,
    /// When it began a request or took something last.
    since: Instant,
    /// It is being closed, or was upgraded to something with times of its own.
    gone: bool,
}

impl Shown {
    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.at_work == 0 && !state.gone).then_some(state.since)
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
        match (state.at_work, state.began) {
            (0, _) if stops && state.open == 0 => state.since + LAST_WORDS,
            (0, false) => state.since + limits.header_time,
            (0, true) => state.since + limits.idle_time,
            (_, _) => Instant::now() + limits.idle_time,
        }
    }

    /// Whether it still makes room: it may have begun a request since it was asked to.
    fn gives_way(&self) -> bool {
        let mut state = self.lock();
        state.gone = state.at_work == 0;
        state.gone
    }

    /// Its times are its own from here on.
    fn retire(&self) {
        self.lock().gone = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(self.number, &self.shown);
    }
}

/// A request that was begun: at work, until its answer waits for the client to take it.
struct Exchange {
    place: Arc<Place>,
    at_work: AtomicBool,
}

impl Exchange {
    fn begin(place: &Arc<Place>) -> Self {
        let exchange = Self { place: place.clone(), at_work: AtomicBool::new(false) };
        {
            let mut state = place.lock();
            state.began = true;
            state.open += 1;
        }
        exchange.work(true);
        exchange
    }

    fn work(&self, at_work: bool) {
        let changed = self.at_work.swap(at_work, Ordering::Relaxed) != at_work;
        let mut state = self.place.lock();
        state.since = Instant::now();
        match (changed, at_work) {
            (false, _) => {}
            (true, true) => state.at_work += 1,
            (true, false) => state.at_work -= 1,
        }
    }

    async fn answer(self, router: Router, mut request: Request, peer: SocketAddr) -> Response {
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = if self.place.health_only && !request.uri().path().starts_with("/health/") {
            crowded()
        } else {
            let Ok(response) = router.oneshot(request).await;
            response
        };
        // From here on it is for the client to take it; see `Answer`.
        self.work(false);
        response.map(|body| Body::new(Answer { body, exchange: self }))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.place.lock().open -= 1;
        self.work(false);
        self.place.settled.notify_one();
    }
}

/// All places are taken by requests at work.
fn crowded() -> Response {
    let text = "All connections are at work (http.connections_max). Try again in a moment.\n";
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The body of an answer. The service is at work on it while a part of it is awaited; a part that is there waits for the
/// client.
struct Answer {
    body: Body,
    exchange: Exchange,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.exchange.work(true);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.exchange.work(false);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
