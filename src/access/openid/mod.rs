//! OpenID providers: tokens that others sign, checked by the keys that they publish.
//!
//! Keys are held in memory. They are fetched at the start and again, in the background, before their time is over; a
//! token of an unknown key asks for them at once, but all such tokens together no more often than every ten seconds,
//! so that nobody can make this service hammer a provider. All who wait for a fetch wait for the same one, and only
//! tokens that need it do: those whose key is known, and those of other providers, are answered meanwhile.
//!
//! A provider that is away changes nothing for the keys that are held, until a day after they were last fetched. Tokens
//! that cannot be checked are then a fault of the moment ([`Denied::Unavailable`]) and not refused.

mod fetch;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::fetch::Source;
use self::keys::{Keys, Missing};
use super::claims::{Claims, Expected, Head, Unread, shown, usable_address};
use super::{Denied, Identity, NamedOrganization, Refused};
use crate::config;

/// How fast and how often.
#[derive(Debug, Clone)]
struct Pace {
    /// Longest wait for a connection.
    connect_max: Duration,
    /// Longest time of one fetch, discovery included.
    fetch_max: Duration,
    /// From the end of one fetch to the next.
    gap: Duration,
    /// How long keys are fresh at least and at most, whatever the provider says.
    fresh: (Duration, Duration),
    /// How long they are fresh if it says nothing.
    fresh_default: Duration,
    /// How long they count after they were last fetched.
    kept: Duration,
}

const PACE: Pace = Pace {
    connect_max: Duration::from_secs(2),
    fetch_max: Duration::from_secs(5),
    gap: Duration::from_secs(10),
    // The longest leaves half of the time that they are kept to reach a provider that is away.
    fresh: (Duration::from_secs(5 * 60), Duration::from_secs(12 * 60 * 60)),
    fresh_default: Duration::from_secs(60 * 60),
    kept: Duration::from_secs(24 * 60 * 60),
};
/// How often the time between two tries of the background is doubled: up to five minutes.
const DOUBLED_MAX: u32 = 5;

/// Verifies tokens of one provider.
pub struct Provider {
    settings: config::Provider,
    expected: Expected,
    source: Source,
    pace: Pace,
    held: watch::Sender<Option<Arc<Held>>>,
    /// The last fetch. Locked while one is under way.
    last: Arc<Mutex<Option<Attempt>>>,
}

struct Held {
    keys: Keys,
    fetched_at: Instant,
    fresh_for: Duration,
}

struct Attempt {
    ended_at: Instant,
    outcome: Result<(), Away>,
}

/// The provider does not give its keys; why is in the log, for the operators.
#[derive(Debug, Clone, Copy)]
struct Away;

enum Unverified {
    /// By a key that is not known, and may be a new one.
    UnknownKey,
    Refused(Refused),
}

impl Provider {
    /// With these settings; what they leave open is `leeway_seconds`. Asks nobody yet.
    pub fn new(settings: config::Provider, leeway_seconds: u32) -> reqwest::Result<Self> {
        Self::paced(settings, leeway_seconds, PACE)
    }

    fn paced(settings: config::Provider, leeway_seconds: u32, pace: Pace) -> reqwest::Result<Self> {
        let expected = Expected {
            issuer: settings.issuer.clone(),
            audiences: settings.audience.clone(),
            leeway_seconds: settings.clock_leeway_seconds.unwrap_or(leeway_seconds).into(),
            subject_claim: settings.subject_claim.clone(),
        };
        let source = Source::new(&settings, &pace)?;
        Ok(Self { settings, expected, source, pace, held: watch::channel(None).0, last: Arc::default() })
    }

    /// The issuer.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Keeps the keys fresh until the service stops.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        stopping.run_until_cancelled(self.keep_fresh()).await;
    }

    async fn keep_fresh(self: &Arc<Self>) {
        let mut failures = 0;
        loop {
            let due = self.held().map_or(Duration::ZERO, |held| {
                // A fifth of the time is left for tries that fail.
                (held.fetched_at + held.fresh_for * 4 / 5).saturating_duration_since(Instant::now())
            });
            tokio::time::sleep(due).await;
            if !due.is_zero() {
                // A token may have asked for them meanwhile.
                continue;
            }
            failures = if self.refresh().await.is_ok() { 0 } else { failures + 1 };
            tokio::time::sleep(self.pace.gap * 2_u32.pow(failures.clamp(1, DOUBLED_MAX + 1) - 1)).await;
        }
    }

    /// What the token says; refused unless signature, algorithm, issuer, audience and time are right.
    pub async fn verify(self: &Arc<Self>, token: &str) -> Result<Identity, Denied> {
        let head = Head::read(token, &self.settings.algorithms)?;
        let claims = match self.read(token, &head) {
            Err(Unverified::UnknownKey) => {
                let asked = self.refresh().await;
                match (self.read(token, &head), asked) {
                    (Err(Unverified::UnknownKey), Err(Away)) => return Err(self.away()),
                    (again, _) => again,
                }
            }
            read => read,
        };
        match claims {
            Ok(claims) => Ok(self.identity(claims)),
            Err(Unverified::Refused(refused)) => Err(refused.into()),
            Err(Unverified::UnknownKey) => {
                let key = head.kid.as_deref().map_or_else(String::new, |kid| format!(" ({})", shown(kid)));
                let why = format!("the token is not signed by a key that {} publishes{key}", self.issuer());
                Err(Refused(why).into())
            }
        }
    }

    /// By the keys that are held.
    fn read(&self, token: &str, head: &Head) -> Result<Claims, Unverified> {
        let refused = |why: String| Unverified::Refused(Refused(why));
        let held = self.held().ok_or(Unverified::UnknownKey)?;
        let key = held.keys.find(head.kid.as_deref(), head.algorithm).map_err(|missing| match missing {
            Missing::Unknown => Unverified::UnknownKey,
            Missing::Unfit => refused(format!("the token's key is not one for {:?}", head.algorithm)),
            Missing::Ambiguous => refused(format!("{} has several keys that the token could mean", self.issuer())),
        })?;
        self.expected.read(token, head.algorithm, key).map_err(|unread| match unread {
            Unread::Refused(refused) => Unverified::Refused(refused),
            // A token that names no key may have taken another one since.
            Unread::Signature if head.kid.is_none() => Unverified::UnknownKey,
            Unread::Signature => {
                refused(format!("the token is not signed by the key of {} that it names", self.issuer()))
            }
        })
    }

    fn held(&self) -> Option<Arc<Held>> {
        self.held.borrow().clone().filter(|held| held.fetched_at.elapsed() < self.pace.kept)
    }

    /// Fetches the keys, unless that was just done: then its outcome counts. Callers meanwhile wait for it.
    async fn refresh(self: &Arc<Self>) -> Result<(), Away> {
        let mut last = self.last.clone().lock_owned().await;
        if let Some(attempt) = last.as_ref().filter(|attempt| attempt.ended_at.elapsed() < self.pace.gap) {
            return attempt.outcome;
        }
        let provider = self.clone();
        // In a task of its own, because a caller that hangs up must not take the answer from all who wait.
        let fetching = tokio::spawn(async move {
            let outcome = provider.fetch().await;
            *last = Some(Attempt { ended_at: Instant::now(), outcome });
            outcome
        });
        fetching.await.unwrap_or(Err(Away))
    }

    async fn fetch(&self) -> Result<(), Away> {
        let fetched = self.source.fetch().await.map_err(|why| {
            tracing::warn!(issuer = self.issuer(), why, "cannot fetch the keys of an OpenID provider");
            Away
        })?;
        let (least, most) = self.pace.fresh;
        let fresh_for = fetched.max_age.unwrap_or(self.pace.fresh_default).clamp(least, most);
        let number = fetched.keys.len();
        if number == 0 {
            tracing::warn!(issuer = self.issuer(), "an OpenID provider publishes no key that can be used");
        }
        tracing::debug!(issuer = self.issuer(), keys = number, ?fresh_for, "fetched the keys of an OpenID provider");
        self.held.send_replace(Some(Arc::new(Held { keys: fetched.keys, fetched_at: Instant::now(), fresh_for })));
        Ok(())
    }

    fn away(&self) -> Denied {
        let issuer = self.issuer();
        Denied::Unavailable(format!(
            "the provider {issuer} cannot be reached, so its tokens cannot be checked: try again in a few seconds"
        ))
    }

    fn identity(&self, claims: Claims) -> Identity {
        let Claims { subject, expires_at, all } = claims;
        let text = |name: &str| all.get(name).and_then(Value::as_str).map(str::to_owned);
        // Some providers write booleans as text.
        let verified = all.get(&self.settings.email_verified_claim);
        let verified = verified.is_some_and(|value| *value == Value::Bool(true) || value.as_str() == Some("true"));
        Identity {
            issuer: self.issuer().to_owned(),
            subject,
            email: usable_address(text(&self.settings.email_claim).filter(|_| verified)),
            name: text(&self.settings.name_claim),
            operator: false,
            organization: self.settings.organization.as_ref().and_then(|claim| named(claim, &all)),
            expires_at,
        }
    }
}

/// The organization that a token names. A name that cannot be one is none: that is no reason to turn a user away.
fn named(claim: &config::OrganizationClaim, all: &serde_json::Map<String, Value>) -> Option<NamedOrganization> {
    let (first, rest) = claim.path.split_first()?;
    let value = rest.iter().try_fold(all.get(first)?, |value, key| value.get(key))?;
    let external_id = value.as_str().and_then(|text| aggregates::text::external_id(text).ok());
    if external_id.is_none() && !value.is_null() {
        tracing::debug!(claim = ?claim.path, "the claim of a token's organization is no external id");
    }
    external_id.map(|external_id| NamedOrganization { external_id, role: claim.role.clone() })
}

#[cfg(test)]
mod tests;
