//! Asking one witness. What it answers is bounded in time and size, and believed only as far as it is signed; of sizes its word
//! is enough for an alarm.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::database::Connections;

use super::super::cosignature::{Cosigned, WitnessKey, cosignatures};
use super::super::proofs::consistency;
use super::super::submission::{Submission, size_of_answer};
use super::Address;

/// How long a connection may take, and everything together.
const CONNECT_MAX: Duration = Duration::from_secs(3);
const WHOLE_MAX: Duration = Duration::from_secs(5);
/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How much of a refusal is told, in characters.
const TOLD_CHARS_MAX: usize = 200;
/// How often a witness is asked again that knows another size than was thought: another replica may show heads too.
const TRIES: usize = 3;
/// How long a witness that cannot be reached is left alone, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// After how long a head is shown again that a witness refused: its operators may have to make a log known to it.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);

/// A head that is shown.
pub(super) struct Shown<'a> {
    pub pool: &'a Connections,
    pub name: &'a str,
    pub note: &'a str,
    pub size: u64,
}

/// What a witness says of it.
pub(super) enum Said {
    /// It cosigned it.
    Cosigned(Cosigned),
    /// It cosigned a larger tree.
    Knows(u64),
    /// It cosigned another history.
    Contradicts(String),
    /// Nothing; it is to be asked again after so long.
    Nothing(Option<Duration>),
}

/// How a witness stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Its name.
    pub name: String,
    /// When it cosigned something last.
    pub cosigned_at: Option<DateTime<Utc>>,
    /// Why it did not cosign what it was shown last.
    pub failure: Option<String>,
}

/// Those who are asked.
#[derive(Debug, Default)]
pub struct Asked {
    witnesses: Vec<Witness>,
    quorum: usize,
}

impl Asked {
    /// These, of which so many have to cosign.
    pub fn new(addresses: Vec<Address>, quorum: usize) -> reqwest::Result<Self> {
        let witnesses = addresses.into_iter().map(Witness::new).collect::<Result<_, _>>()?;
        Ok(Self { witnesses, quorum })
    }

    /// How many have to cosign.
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// Whether nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.witnesses.is_empty()
    }

    /// How each of them stands.
    pub fn all(&self) -> Vec<State> {
        let state = |witness: &Witness| {
            let standing = witness.standing();
            let (cosigned_at, failure) = (standing.cosigned_at, standing.failure.clone());
            State { name: witness.key.name().to_owned(), cosigned_at, failure }
        };
        self.witnesses.iter().map(state).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Witness> {
        self.witnesses.iter()
    }
}

/// One that is asked.
#[derive(Debug)]
pub(super) struct Witness {
    url: Url,
    key: WitnessKey,
    client: Client,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    cosigned_at: Option<DateTime<Utc>>,
    failure: Option<String>,
    /// Until when it is left alone, and how long the next time.
    until: Option<Instant>,
    pause: Duration,
}

impl Witness {
    fn new(Address { url, key }: Address) -> reqwest::Result<Self> {
        let mut client = Client::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(WHOLE_MAX)
            .redirect(Policy::none())
            .user_agent(concat!("tenancy/", env!("CARGO_PKG_VERSION")));
        // An address on this machine; nobody between may see or change what goes there.
        if url.scheme() == "http" {
            client = client.no_proxy();
        }
        let text = format!("{}/add-checkpoint", url.as_str().trim_end_matches('/'));
        let url = text.parse().unwrap_or(url);
        Ok(Self { url, key, client: client.build()?, standing: Mutex::default() })
    }

    pub(super) fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// Shows it a head, beginning with the size that it is thought to know.
    pub(super) async fn ask(&self, shown: &Shown<'_>, mut old: u64) -> Said {
        if let Some(until) = self.standing().until
            && until > Instant::now()
        {
            return Said::Nothing(Some(until - Instant::now()));
        }
        for _ in 0..TRIES {
            let proof = match old {
                0 => Ok((0, vec![])),
                old => consistency(shown.pool, shown.name, old, Some(shown.size)).await,
            };
            let proof = match proof {
                Ok((_, proof)) => proof,
                Err(error) => return self.refused(format!("there is no proof for it: {error}")),
            };
            let body = Submission { old, proof, note: shown.note }.text();
            let answered = tokio::time::timeout(WHOLE_MAX, self.post(body)).await;
            let (status, text) = match answered.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(answer) => answer,
                Err(error) => return self.unreachable(error),
            };
            match (status, size_of_answer(&text)) {
                (StatusCode::OK, _) => return self.cosigned(shown, &text),
                (StatusCode::CONFLICT, Some(size)) if size > shown.size => return Said::Knows(size),
                (StatusCode::CONFLICT, Some(size)) if size == old => {
                    return Said::Contradicts(format!("it cosigned another tree of {size} events"));
                }
                (StatusCode::CONFLICT, Some(size)) => old = size,
                (StatusCode::UNPROCESSABLE_ENTITY, _) if old > 0 => {
                    let size = shown.size;
                    return Said::Contradicts(format!(
                        "the tree of {size} events does not continue the one of {old} that it cosigned"
                    ));
                }
                (status, _) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    return self.unreachable(format!("it answers {status}"));
                }
                (status, _) => {
                    let text: String = aggregates::text::legible(&text).chars().take(TOLD_CHARS_MAX).collect();
                    return self.refused(format!("it answers {status}: {text}"));
                }
            }
        }
        // Others show it heads of the same tree, faster than this one.
        Said::Nothing(Some(PAUSE_MIN))
    }

    async fn post(&self, body: String) -> Result<(StatusCode, String), String> {
        let failed = |error: reqwest::Error| {
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            causes.last().map(ToString::to_string).unwrap_or_default()
        };
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "text/plain; charset=utf-8").body(body);
        let mut response = request.send().await.map_err(failed)?;
        let mut answer = vec![];
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            answer.extend_from_slice(&chunk);
            if answer.len() > ANSWER_BYTES_MAX {
                return Err(format!("its answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        let text = String::from_utf8(answer).map_err(|_| "its answer is not UTF-8".to_owned())?;
        Ok((response.status(), text))
    }

    fn cosigned(&self, shown: &Shown<'_>, lines: &str) -> Said {
        let found = cosignatures(&format!("{}{lines}", shown.note), std::slice::from_ref(&self.key));
        match found.map(|found| found.into_iter().next()) {
            Ok(Some(cosigned)) => {
                metrics::counter!("tenancy_audit_cosignatures_total", "witness" => self.key.name().to_owned())
                    .increment(1);
                let mut standing = self.standing();
                if standing.failure.is_some() {
                    tracing::info!(witness = self.key.name(), "the witness cosigns again");
                }
                *standing = Standing { cosigned_at: Some(Utc::now()), ..Standing::default() };
                Said::Cosigned(cosigned)
            }
            Ok(None) => self.refused("its answer has no cosignature of its key".into()),
            Err(error) => self.refused(format!("its cosignature does not count: {error}")),
        }
    }

    /// It is left alone for a while, each time for longer.
    fn unreachable(&self, why: String) -> Said {
        self.failed(&why);
        let mut standing = self.standing();
        standing.pause = (standing.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        standing.until = Some(Instant::now() + standing.pause);
        Said::Nothing(Some(standing.pause))
    }

    fn refused(&self, why: String) -> Said {
        self.failed(&why);
        Said::Nothing(Some(REFUSED_PAUSE))
    }

    fn failed(&self, why: &str) {
        metrics::counter!("tenancy_audit_witness_failures_total", "witness" => self.key.name().to_owned()).increment(1);
        let mut standing = self.standing();
        if standing.failure.as_deref() != Some(why) {
            tracing::warn!(witness = self.key.name(), %why, "the witness does not cosign");
            standing.failure = Some(why.to_owned());
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
