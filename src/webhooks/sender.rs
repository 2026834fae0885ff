//! Sending one request to one receiver, and taking as little as possible from it.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use super::schedule::retry_after;
use crate::endpoints::Targets;

/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4_096;
/// How much of it is kept, in characters.
const EXCERPT_CHARS_MAX: usize = 500;
/// How much is said of what went wrong, in characters.
const ERROR_CHARS_MAX: usize = 500;
/// How long an answer may take from its first line to its end; what is not there by then is not kept.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How many connections to a receiver are kept open, and for how long.
const IDLE_CONNECTIONS_MAX: usize = 4;
const IDLE_MAX: Duration = Duration::from_secs(15);
/// How many look-ups of one name may be under way: each takes a thread, for as long as the name's servers like.
const LOOKUPS_MAX: usize = 2;

/// What is sent.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Where to.
    pub url: String,
    /// The id of the message.
    pub id: String,
    /// When this attempt is made, in seconds since 1970.
    pub timestamp: i64,
    /// One signature for each secret, separated by spaces.
    pub signatures: String,
    /// Signed heads of the organization's audit trail, if there are any.
    pub checkpoints: Option<Checkpoints>,
    /// The body.
    pub body: Bytes,
}

/// Signed heads, in base64.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    /// The newest one.
    pub newest: String,
    /// The newest one that enough witnesses have cosigned, if that is another one.
    pub witnessed: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// How long it took.
    pub took: Duration,
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// Why it counts as failed, if it does.
    pub error: Option<String>,
    /// The beginning of the answer.
    pub excerpt: Option<String>,
    /// For how long the receiver wants to be left in peace.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Nothing came of it, and this is why.
    pub fn failed(error: impl Into<String>) -> Self {
        let error = error.into().chars().take(ERROR_CHARS_MAX).collect();
        Self { took: Duration::ZERO, status: None, error: Some(error), excerpt: None, retry_after: None }
    }
}

/// Sends. Cheap to share.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    targets: Arc<Targets>,
    whole_max: Duration,
}

/// Looks names up and gives only addresses that may be connected to: what a name leads to is judged where the connection
/// is made, so nobody can show one address and lead to another.
struct Resolver {
    targets: Arc<Targets>,
    /// By name: who looks it up, or waits to.
    lookups: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl Resolver {
    fn turns(&self, name: &str) -> Arc<Semaphore> {
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        lookups.retain(|known, turns| known == name || Arc::strong_count(turns) > 1);
        lookups.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(LOOKUPS_MAX))).clone()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the host leads to an address to which nothing is sent here (webhooks.addresses_allowed)")]
struct Refused;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (targets, turns) = (self.targets.clone(), self.turns(name.as_str()));
        Box::pin(async move {
            // A sender that gives up leaves a thread behind, so the turn goes with the look-up and not with its waiter.
            let turn = turns.acquire_owned().await?;
            let lookup = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect::<Vec<SocketAddr>>);
                drop(turn);
                found
            });
            let found = lookup.await??.into_iter();
            let permitted: Vec<SocketAddr> = found.filter(|address| targets.permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(Box::new(Refused) as Box<dyn StdError + Send + Sync>);
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

impl Sender {
    /// To these targets; connecting may take so long, and everything together so long.
    pub fn new(targets: Arc<Targets>, connect_max: Duration, whole_max: Duration) -> reqwest::Result<Self> {
        let client = Client::builder()
            .dns_resolver(Arc::new(Resolver { targets: targets.clone(), lookups: Arc::default() }))
            // A proxy would connect for us, and look at nothing.
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(connect_max)
            .timeout(whole_max)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            .user_agent(concat!("tenancy-webhooks/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, targets, whole_max })
    }

    /// Sends, and says what came of it.
    pub async fn send(&self, letter: &Letter, now: DateTime<Utc>) -> Answer {
        let started = Instant::now();
        let failed = |error: String| Answer { took: started.elapsed(), ..Answer::failed(error) };
        // Once more: the configuration may be another than when it was taken, and an address that stands in a URL is looked
        // up by nobody.
        let url = match self.targets.url(&letter.url) {
            Ok(url) => url,
            Err(error) => return failed(error),
        };
        // A name that hangs is none of the client's time-outs.
        match tokio::time::timeout(self.whole_max, self.exchange(url, letter)).await {
            Err(_) => failed(self.too_late()),
            Ok(Err(error)) => failed(self.describe(&error)),
            Ok(Ok((status, asked, excerpt))) => Answer {
                took: started.elapsed(),
                status: Some(status.as_u16()),
                error: refusal(status),
                excerpt,
                retry_after: asked.and_then(|text| retry_after(&text, now)),
            },
        }
    }

    async fn exchange(
        &self,
        url: Url,
        letter: &Letter,
    ) -> reqwest::Result<(StatusCode, Option<String>, Option<String>)> {
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", &letter.id)
            .header("webhook-timestamp", letter.timestamp)
            .header("webhook-signature", &letter.signatures)
            .body(letter.body.clone());
        let (newest, witnessed) = match &letter.checkpoints {
            Some(checkpoints) => (Some(&checkpoints.newest), checkpoints.witnessed.as_ref()),
            None => (None, None),
        };
        let heads = [("tenancy-checkpoint", newest), ("tenancy-checkpoint-witnessed", witnessed)];
        let heads = heads.into_iter().filter_map(|(name, head)| Some((name, head?)));
        let request = heads.fold(request, |request, (name, head)| request.header(name, head));
        let response = request.send().await?;
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status();
        Ok((status, asked, excerpt(response).await))
    }

    fn too_late(&self) -> String {
        format!("there was no answer within {} ms", self.whole_max.as_millis())
    }

    /// What went wrong, for whoever owns the endpoint.
    fn describe(&self, error: &reqwest::Error) -> String {
        let causes = || std::iter::successors(error.source(), |cause: &&(dyn StdError + 'static)| (*cause).source());
        if causes().any(|cause| cause.is::<Refused>()) {
            return Refused.to_string();
        }
        let innermost = causes().last().map(ToString::to_string).unwrap_or_default();
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => "no connection came about in time".to_owned(),
            (true, false) => format!("no connection came about: {innermost}"),
            (false, true) => self.too_late(),
            (false, false) => format!("the exchange broke off: {innermost}"),
        }
    }
}

/// The beginning of an answer; the rest stays where it is.
async fn excerpt(mut response: Response) -> Option<String> {
    let mut body = Vec::new();
    let read = async {
        while body.len() < ANSWER_BYTES_MAX {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())]),
                Ok(None) | Err(_) => break,
            }
        }
    };
    let _ = tokio::time::timeout(ANSWER_WAIT, read).await;
    let text = aggregates::text::legible(&String::from_utf8_lossy(&body));
    let text: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// Why a status counts as failed; 2xx does not.
fn refusal(status: StatusCode) -> Option<String> {
    match status {
        status if status.is_success() => None,
        status if status.is_redirection() => {
            Some(format!("the receiver answered {status}: redirects are not followed"))
        }
        status => Some(format!("the receiver answered {status}")),
    }
}
