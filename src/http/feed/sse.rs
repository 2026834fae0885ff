//! Subscriptions as server-sent events: one request a feed, the "distinct connections mode" of
//! <https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md>.
//!
//! Every item is an event `next` whose `id` is its position, so whoever comes again with `Last-Event-ID` goes on
//! there. A refusal before the stream begins is an HTTP status; one afterwards is the last `next`, before `complete`.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::ServerError;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::graphql::{self, Call};
use super::super::{Sender, Shared, sender};
use super::{Admitted, Place, Told, admit, count, cut_off, execute};
use crate::requests::rate_limits::Meter;

/// By which a client says where it was cut off.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long nothing is sent before a comment is, for proxies that would close a silent connection.
const COMMENT_EVERY: Duration = Duration::from_secs(5);
const COMMENT: &str = ":\n\n";
const COMPLETE: &str = "event: complete\ndata:\n\n";

/// Answers one request with a feed.
pub async fn sse(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let sender = sender(&request);
    let headers = sender.0.clone();
    let meter = Arc::new(Meter::new(shared.rate_limits.clone()));
    let entered = match enter(&shared, &sender, meter).await {
        Ok(entered) => entered,
        Err(error) => return graphql::refuse(&headers, error),
    };
    match graphql::subscription(request, &shared.documents).await {
        Ok(call) => begin(shared, &headers, entered, call).await,
        Err(response) => response,
    }
}

/// Answers a subscription that came to where all operations are answered, and counts it by what counts that request.
pub async fn stream(shared: Arc<Shared>, sender: Sender, meter: Arc<Meter>, call: Call) -> Response {
    match enter(&shared, &sender, meter).await {
        Ok(entered) => begin(shared, &sender.0, entered, call).await,
        Err(error) => graphql::refuse(&sender.0, error),
    }
}

/// Lets a caller in who has room for one more connection.
async fn enter(
    shared: &Arc<Shared>,
    (headers, peer): &Sender,
    meter: Arc<Meter>,
) -> Result<(Admitted, Place), ServerError> {
    let admitted = admit(shared, headers, *peer).await?;
    let place = Place::for_caller(shared, &admitted.caller.actor(false))?;
    Ok((count(&admitted, meter)?, place))
}

async fn begin(shared: Arc<Shared>, headers: &HeaderMap, (admitted, place): (Admitted, Place), call: Call) -> Response {
    let told = match execute(&shared, admitted, call, last_event_id(headers)).await {
        Ok(told) => told,
        Err(error) => return graphql::refuse(headers, error),
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(shared, place, told, sender));
    let body = stream::unfold(receiver, |mut receiver| async move {
        let bytes: Bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(bytes), receiver))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    // Some proxies would collect events before they pass them on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn last_event_id(headers: &HeaderMap) -> Option<String> {
    headers.get(LAST_EVENT_ID)?.to_str().ok().filter(|id| !id.is_empty()).map(str::to_owned)
}

/// Sends until the feed ends, or the client goes or does not take what it is sent.
async fn send(shared: Arc<Shared>, place: Place, mut told: BoxStream<'static, Told>, sender: mpsc::Sender<Bytes>) {
    let _in_flight = shared.in_flight.token();
    let limit = shared.feeds.send_timeout;
    let mut text = COMMENT.to_owned();
    loop {
        let last = text.ends_with(COMPLETE);
        match timeout(limit, sender.send(Bytes::from(text))).await {
            Ok(Ok(())) if !last => {}
            Ok(Ok(()) | Err(_)) => break,
            Err(_) => {
                cut_off();
                break;
            }
        }
        text = tokio::select! {
            next = told.next() => match next {
                Some(told) => event(&told),
                None => COMPLETE.to_owned(),
            },
            () = tokio::time::sleep(COMMENT_EVERY) => COMMENT.to_owned(),
            () = sender.closed() => break,
        };
    }
    drop(place);
}

fn event(told: &Told) -> String {
    let mut text = "event: next\n".to_owned();
    if let Some(position) = &told.position {
        let _ = writeln!(text, "id: {position}");
    }
    let response = serde_json::to_string(&told.response).unwrap_or_default();
    let _ = write!(text, "data: {response}\n\n");
    if told.last {
        text.push_str(COMPLETE);
    }
    text
}
