//! What is left of a request when its answer is known before its body was read: too long, without a valid token, of
//! another type.
//!
//! Closing a connection on which the other side still sends resets it, and the reset overtakes the answer
//! (RFC 9112, section 9.6): the client would see a broken connection instead of why it was refused. So the rest is read
//! and thrown away before the answer goes out, as far as the limits here allow.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};

/// How much of a body is thrown away after its request was answered, in bytes.
const UNREAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long the rest of a body may take to come.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Answers a request, and does not let the answer go out before its body has come in.
pub(super) async fn take_in(request: Request, next: Next) -> Response {
    // HTTP/2 ends a stream by itself, and its connection goes on.
    if request.body().is_end_stream() || request.version() == Version::HTTP_2 {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let asks = head.headers.contains_key(header::EXPECT);
    let rest = Rest(Arc::new(Mutex::new((body, false))));
    let response = next.run(Request::from_parts(head, Body::new(rest.clone()))).await;
    // A client that asks whether it may send is told to when its body is read, and else learns by the answer that it
    // need not. A client that was too slow once was waited for already.
    let unasked = asks && !rest.was_read();
    if unasked || response.status() == StatusCode::REQUEST_TIMEOUT {
        return response;
    }
    // Past the limits the connection breaks, as it would without this.
    let _ = tokio::time::timeout(UNREAD_TIME_MAX, rest.throw_away()).await;
    response
}

/// A body of which the handler reads as much as it wants, and whether it did at all.
#[derive(Clone)]
struct Rest(Arc<Mutex<(Body, bool)>>);

impl Rest {
    fn lock(&self) -> MutexGuard<'_, (Body, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_read(&self) -> bool {
        self.lock().1
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let (body, read) = &mut *self.lock();
        *read = true;
        Pin::new(body).poll_frame(context)
    }

    async fn throw_away(&self) {
        let mut left = UNREAD_BYTES_MAX;
        while !self.is_end_stream() {
            let frame = poll_fn(|context| self.poll(context)).await;
            let Some(Ok(frame)) = frame else { return };
            let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = less;
        }
    }
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.poll(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().0.size_hint()
    }
}
