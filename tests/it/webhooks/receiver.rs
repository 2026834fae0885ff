//! A receiver of webhooks that keeps what it gets and answers as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::time::Instant;

/// How a receiver answers.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// With this status.
    Status(u16),
    /// With 429 and this `Retry-After`.
    Busy(&'static str),
    /// So for what holds this text; after a moment with 200 for the rest.
    BusyOrSlow(&'static str, &'static str),
    /// With a redirect to this path.
    Redirect(&'static str),
    /// Not at all, for so long.
    Hang(Duration),
    /// With 200 and a byte now and then, for so long.
    Drip(Duration),
    /// With 200 and as much as is read.
    Flood,
    /// With 200 and what it was sent.
    Echo,
    /// With 500 for whatever holds this text, else 200.
    Refuse(String),
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// Whether the published library takes it with this secret.
    pub fn verifies(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(&self.body, &self.headers).is_ok()
    }
}

#[derive(Default)]
struct Inner {
    got: Vec<Got>,
    behaviours: Vec<(String, Behaviour)>,
}

/// A running receiver.
#[derive(Clone)]
pub struct Receiver {
    base: String,
    inner: Arc<Mutex<Inner>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let inner = Arc::<Mutex<Inner>>::default();
        let router = Router::new().route("/{*path}", post(receive)).with_state(inner.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, inner }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// From now on.
    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        let mut inner = self.inner.lock().unwrap();
        inner.behaviours.retain(|(known, _)| known != path);
        inner.behaviours.push((path.to_owned(), behaviour));
    }

    /// What came at a path, in order.
    pub fn at(&self, path: &str) -> Vec<Got> {
        self.inner.lock().unwrap().got.iter().filter(|got| got.path == path).cloned().collect()
    }

    /// The types of what came at a path.
    pub fn kinds(&self, path: &str) -> Vec<String> {
        self.at(path).iter().map(Got::kind).collect()
    }

    /// Waits until so many came at a path.
    pub async fn wait(&self, path: &str, count: usize) -> Vec<Got> {
        crate::support::eventually(&format!("{count} requests at {path}"), || async { self.at(path).len() >= count })
            .await;
        self.at(path)
    }
}

async fn receive(
    State(inner): State<Arc<Mutex<Inner>>>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let behaviour = {
        let mut inner = inner.lock().unwrap();
        inner.got.push(Got { path: path.clone(), headers, body: body.clone(), at: Instant::now() });
        inner.behaviours.iter().find(|(known, _)| *known == path).map(|(_, behaviour)| behaviour.clone())
    };
    let ok = StatusCode::OK.into_response();
    match behaviour {
        None => ok,
        Some(Behaviour::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Behaviour::Busy(after)) => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, after)]).into_response(),
        Some(Behaviour::BusyOrSlow(text, after)) if String::from_utf8_lossy(&body).contains(text) => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, after)]).into_response()
        }
        Some(Behaviour::BusyOrSlow(..)) => {
            tokio::time::sleep(Duration::from_millis(400)).await;
            ok
        }
        Some(Behaviour::Redirect(to)) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Some(Behaviour::Hang(time)) => {
            tokio::time::sleep(time).await;
            ok
        }
        Some(Behaviour::Drip(time)) => {
            let drops = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b".")), ()))
            });
            Body::from_stream(futures_util::StreamExt::take_until(drops, tokio::time::sleep(time))).into_response()
        }
        Some(Behaviour::Flood) => {
            let block = Bytes::from(vec![b'x'; 1 << 20]);
            let blocks = futures_util::stream::iter((0..4_096).map(move |_| Ok::<_, std::io::Error>(block.clone())));
            Body::from_stream(blocks).into_response()
        }
        Some(Behaviour::Echo) => body.into_response(),
        Some(Behaviour::Refuse(text)) => {
            let held = String::from_utf8_lossy(&body).contains(&text);
            if held { StatusCode::INTERNAL_SERVER_ERROR.into_response() } else { ok }
        }
    }
}
