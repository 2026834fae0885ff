//! A webhook endpoint: where an organization's events are sent to, which of them, and in what shape.
//!
//! What is here is what somebody decided. What became of single deliveries is none of the log's business: they are made
//! from the log, and there may be very many.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::event::{Field, Kind};
use crate::guard::{Effect, Scope};
use crate::ids::EventId;
use crate::resource::{Change, Limit, Place, Resource};
use crate::{aggregate, descriptors_of_organizations, stream, text};

/// Webhook endpoints.
pub const WEBHOOKS: Limit = Limit { name: "webhooks", maximum_min: 0, maximum_default: Some(100) };

/// The longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// The most patterns of an endpoint.
pub const PATTERNS_MAX: usize = 100;
/// The most events a second that an endpoint may ask to be held to.
pub const RATE_PER_SECOND_MAX: u64 = 10_000;
/// For how long a secret that was replaced still signs beside the new one, in hours.
pub const SECRET_OVERLAP_HOURS: i64 = 24;
/// How many replaced secrets may sign beside the newest one.
const REPLACED_SECRETS_MAX: usize = 4;

/// Whether an endpoint is sent anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WebhookEndpointState {
    /// It is.
    #[default]
    Enabled,
    /// It is not, and goes on where it stopped when it is enabled.
    Disabled,
}

/// In which order an endpoint is sent events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WebhookOrdering {
    /// As fast as it takes them.
    #[default]
    Parallel,
    /// Those of one subject one after the other, as they happened.
    PerSubject,
}

/// How much an endpoint is sent of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WebhookContent {
    /// All that readers of the audit trail see of it, but for addresses of callers.
    #[default]
    Full,
    /// What it was and what it was about, by ids.
    Thin,
}

impl Field for WebhookOrdering {
    const KIND: Kind = Kind { name: "WebhookOrdering", list: false, nullable: false, hidden: false };
}
impl Field for WebhookContent {
    const KIND: Kind = Kind { name: "WebhookContent", list: false, nullable: false, hidden: false };
}

crate::events! {
    /// What can happen to a webhook endpoint.
    pub enum WebhookEndpointEvent {
        /// Events are sent to an address from here on.
        WebhookCreated "1.0" {
            /// Where to.
            url: String,
            /// For what it is.
            about: Option<String>,
            /// Which events: `*`, `org.*`, `member.invited`.
            event_patterns: Vec<String>,
            /// In which order.
            ordering: WebhookOrdering,
            /// How much of them.
            content: WebhookContent,
            /// How many a second at most, where that is held to less than the deployment's.
            rate_per_second: Option<u64>,
            /// Which of the endpoint's secrets signs: the first.
            secret_number: u64,
            /// When it was created.
            created_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// Events are sent elsewhere, or others, or otherwise.
        WebhookChanged "1.0" {
            /// Where to.
            url: String,
            /// Where to before.
            previous_url: String,
            /// For what it is.
            about: Option<String>,
            /// For what it was.
            previous_about: Option<String>,
            /// Which events.
            event_patterns: Vec<String>,
            /// Which events before.
            previous_event_patterns: Vec<String>,
            /// In which order.
            ordering: WebhookOrdering,
            /// In which order before.
            previous_ordering: WebhookOrdering,
            /// How much of them.
            content: WebhookContent,
            /// How much before.
            previous_content: WebhookContent,
            /// How many a second at most.
            rate_per_second: Option<u64>,
            /// How many before.
            previous_rate_per_second: Option<u64>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// Another secret signs; the one before signs beside it for a while.
        WebhookSecretRotated "1.0" {
            /// Which of the endpoint's secrets signs from here on.
            secret_number: u64,
            /// Until when the one before signs too.
            previous_secret_until: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// Nothing is sent there any more until it is enabled.
        WebhookDisabled "1.0" {
            /// Whether the service did it, because of how the receiver answered.
            automatic: bool,
            /// Why.
            reason: Option<String>,
        }
        /// Events are sent there again, from where that stopped.
        WebhookEnabled "1.0" {
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The receiver has taken nothing for long; if that goes on the endpoint is disabled.
        WebhookFailing "1.0" {
            /// Since when every attempt failed.
            failing_since: DateTime<Utc>,
            /// From when on it is disabled, if nothing is taken until then.
            disabled_from: DateTime<Utc>,
        }
        /// Somebody asked for a test: this event is sent to the endpoint, whatever events it wants.
        WebhookTested "1.0" {
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// One event is sent to the endpoint again.
        WebhookRedelivered "1.0" {
            /// Which event.
            redelivered_event_id: EventId,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// A part of the audit trail is sent to the endpoint again.
        WebhookReplayed "1.0" {
            /// What follows this audit sequence.
            replayed_after: u64,
            /// The last audit sequence of that part.
            replayed_until: u64,
            /// Which events of it.
            event_patterns: Vec<String>,
            /// Whether only what could not be delivered.
            failed_only: bool,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The endpoint is gone, and with it what was not delivered.
        WebhookDeleted "1.0" {
            /// Where to it was sent.
            url: String,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
    }
}

impl WebhookEndpointEvent {
    /// Which claims and tallies this event changes: endpoints are counted.
    pub fn effects(&self) -> Vec<Effect> {
        use WebhookEndpointEvent as E;
        match self {
            E::WebhookCreated { .. } => vec![Effect::tally(WEBHOOKS, 1)],
            E::WebhookDeleted { .. } => vec![Effect::tally(WEBHOOKS, -1)],
            E::WebhookChanged { .. }
            | E::WebhookSecretRotated { .. }
            | E::WebhookDisabled { .. }
            | E::WebhookEnabled { .. }
            | E::WebhookFailing { .. }
            | E::WebhookTested { .. }
            | E::WebhookRedelivered { .. }
            | E::WebhookReplayed { .. } => vec![],
        }
    }
}

/// A secret that signs, by its number; what it is stands elsewhere, encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The first of an endpoint is 1.
    pub number: u64,
    /// Until when it signs; the newest one for ever.
    pub until: Option<DateTime<Utc>>,
}

/// What of an endpoint its owner chooses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms {
    /// Where to, checked by whoever knows what addresses this deployment sends to.
    pub url: String,
    /// For what it is.
    pub about: Option<String>,
    /// Which events.
    pub patterns: Vec<String>,
    /// In which order.
    pub ordering: WebhookOrdering,
    /// How much of them.
    pub content: WebhookContent,
    /// How many a second at most.
    pub rate_per_second: Option<u64>,
}

/// What is known of an endpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WebhookEndpoint {
    /// What its owner chose.
    pub terms: Terms,
    /// Whether it is sent anything.
    pub state: WebhookEndpointState,
    /// Why it is disabled.
    pub disabled_reason: Option<String>,
    /// Which secrets sign, the newest first; empty before it was created.
    pub secrets: Vec<Secret>,
    /// Since when every attempt failed, by the last warning.
    pub warned_of: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Whether it is gone.
    pub deleted: bool,
}

/// What is to be changed; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// Where to.
    pub url: Option<String>,
    /// For what it is.
    pub about: Option<Option<String>>,
    /// Which events.
    pub patterns: Option<Vec<String>>,
    /// In which order.
    pub ordering: Option<WebhookOrdering>,
    /// How much of them.
    pub content: Option<WebhookContent>,
    /// How many a second at most.
    pub rate_per_second: Option<Option<u64>>,
}

/// What can be asked of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum WebhookEndpointCommand {
    /// Come to be.
    Create {
        /// What its owner chooses.
        terms: Terms,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Be another.
    Change {
        /// What is to be changed.
        changes: Changes,
        /// Why.
        reason: Option<String>,
    },
    /// Have another secret.
    RotateSecret {
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Be sent nothing any more.
    Disable {
        /// Whether the service does it.
        automatic: bool,
        /// Why.
        reason: Option<String>,
    },
    /// Be sent events again.
    Enable {
        /// Why.
        reason: Option<String>,
    },
    /// Have it recorded that the receiver has taken nothing for long.
    Warn {
        /// Since when every attempt failed.
        failing_since: DateTime<Utc>,
        /// From when on it is disabled.
        disabled_from: DateTime<Utc>,
    },
    /// Be sent an event that says nothing else.
    Test {
        /// Why.
        reason: Option<String>,
    },
    /// Be sent one event again.
    Redeliver {
        /// Which event.
        event: EventId,
        /// Why.
        reason: Option<String>,
    },
    /// Be sent a part of the audit trail again.
    Replay {
        /// What follows this audit sequence.
        after: u64,
        /// The last audit sequence of that part.
        until: u64,
        /// Which events of it; all that the endpoint wants, where nothing is said.
        patterns: Option<Vec<String>>,
        /// Whether only what could not be delivered.
        failed_only: bool,
        /// Why.
        reason: Option<String>,
    },
    /// Go.
    Delete {
        /// Why.
        reason: Option<String>,
    },
}

/// Whether one of these patterns names the action.
pub fn wants(patterns: &[String], action: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => action.starts_with(beginning),
        None => pattern == action,
    })
}

/// The stored names of the events that an endpoint wants and, where there are narrower patterns, that those name too.
/// Tests of endpoints are never among them.
pub fn types_wanted(wanted: &[String], narrower: Option<&[String]>) -> Vec<&'static str> {
    let named = descriptors_of_organizations().filter(|event| {
        let action = event.action();
        let both = wants(wanted, &action) && narrower.is_none_or(|patterns| wants(patterns, &action));
        both && event.name != "WebhookTested"
    });
    named.map(|event| event.name).collect()
}

impl WebhookEndpoint {
    /// Whether it is there.
    pub fn is_present(&self) -> bool {
        !self.secrets.is_empty() && !self.deleted
    }

    /// Which of its secrets sign at `now`, the newest first.
    pub fn signing_at(&self, now: DateTime<Utc>) -> impl Iterator<Item = u64> {
        self.secrets.iter().filter(move |secret| secret.until.is_none_or(|end| end > now)).map(|secret| secret.number)
    }

    /// The events that `command` makes of this state.
    pub fn decide(&self, command: WebhookEndpointCommand) -> Result<Vec<WebhookEndpointEvent>, Refusal> {
        use WebhookEndpointCommand as C;
        use WebhookEndpointEvent as E;
        use WebhookEndpointState as S;
        let why = |reason: Option<String>| text::reason("reason", reason.as_deref());
        match (command, self.is_present()) {
            (C::Create { terms, reason, at }, false) if self.secrets.is_empty() => {
                let terms = checked(terms)?;
                Ok(vec![E::WebhookCreated {
                    url: terms.url,
                    about: terms.about,
                    event_patterns: terms.patterns,
                    ordering: terms.ordering,
                    content: terms.content,
                    rate_per_second: terms.rate_per_second,
                    secret_number: 1,
                    created_at: at,
                    reason: why(reason)?,
                }])
            }
            (C::Create { .. }, _) => Err(Refusal::AlreadyExists {
                path: "url",
                message: "this endpoint exists already".into(),
                existing: String::new(),
            }),
            (_, false) => Err(Refusal::NotFound),
            (C::Change { changes, reason }, true) => self.change(changes, why(reason)?),
            (C::RotateSecret { reason, at }, true) => self.rotate(why(reason)?, at),
            (C::Disable { automatic, reason }, true) => match self.state {
                S::Enabled => Ok(vec![E::WebhookDisabled { automatic, reason: why(reason)? }]),
                S::Disabled => Err(Refusal::InvalidState("the endpoint is disabled already".into())),
            },
            (C::Enable { reason }, true) => match self.state {
                S::Disabled => Ok(vec![E::WebhookEnabled { reason: why(reason)? }]),
                S::Enabled => Err(Refusal::InvalidState("the endpoint is enabled already".into())),
            },
            (C::Warn { failing_since, disabled_from }, true) => match (self.state, self.warned_of) {
                (S::Enabled, before) if before.is_none_or(|before| before < failing_since) => {
                    Ok(vec![E::WebhookFailing { failing_since, disabled_from }])
                }
                _ => Err(Refusal::InvalidState("there is no need to warn again".into())),
            },
            (C::Test { .. } | C::Redeliver { .. } | C::Replay { .. }, true) if self.state == S::Disabled => {
                Err(Refusal::InvalidState("the endpoint is disabled: enable it first".into()))
            }
            (C::Test { reason }, true) => Ok(vec![E::WebhookTested { reason: why(reason)? }]),
            (C::Redeliver { event, reason }, true) => {
                Ok(vec![E::WebhookRedelivered { redelivered_event_id: event, reason: why(reason)? }])
            }
            (C::Replay { after, until, patterns, failed_only, reason }, true) => {
                if after >= until {
                    let message = "nothing is between these positions: give an `after` that lies before `until`";
                    return Err(Refusal::input("after", message));
                }
                Ok(vec![E::WebhookReplayed {
                    replayed_after: after,
                    replayed_until: until,
                    event_patterns: match patterns {
                        Some(given) => self::patterns(&given)?,
                        None => self.terms.patterns.clone(),
                    },
                    failed_only,
                    reason: why(reason)?,
                }])
            }
            (C::Delete { reason }, true) => {
                Ok(vec![E::WebhookDeleted { url: self.terms.url.clone(), reason: why(reason)? }])
            }
        }
    }

    fn change(&self, changes: Changes, reason: Option<String>) -> Result<Vec<WebhookEndpointEvent>, Refusal> {
        let before = &self.terms;
        let after = checked(Terms {
            url: changes.url.unwrap_or_else(|| before.url.clone()),
            about: changes.about.unwrap_or_else(|| before.about.clone()),
            patterns: changes.patterns.unwrap_or_else(|| before.patterns.clone()),
            ordering: changes.ordering.unwrap_or(before.ordering),
            content: changes.content.unwrap_or(before.content),
            rate_per_second: changes.rate_per_second.unwrap_or(before.rate_per_second),
        })?;
        if after == *before {
            return Ok(vec![]);
        }
        Ok(vec![WebhookEndpointEvent::WebhookChanged {
            url: after.url,
            previous_url: before.url.clone(),
            about: after.about,
            previous_about: before.about.clone(),
            event_patterns: after.patterns,
            previous_event_patterns: before.patterns.clone(),
            ordering: after.ordering,
            previous_ordering: before.ordering,
            content: after.content,
            previous_content: before.content,
            rate_per_second: after.rate_per_second,
            previous_rate_per_second: before.rate_per_second,
            reason,
        }])
    }

    fn rotate(&self, reason: Option<String>, at: DateTime<Utc>) -> Result<Vec<WebhookEndpointEvent>, Refusal> {
        if self.signing_at(at).count() > REPLACED_SECRETS_MAX {
            let message = format!("{REPLACED_SECRETS_MAX} replaced secrets still sign: wait until one of them ends");
            return Err(Refusal::InvalidState(message));
        }
        Ok(vec![WebhookEndpointEvent::WebhookSecretRotated {
            secret_number: self.secrets.first().map_or(0, |newest| newest.number) + 1,
            previous_secret_until: at.checked_add_signed(TimeDelta::hours(SECRET_OVERLAP_HOURS)).unwrap_or(at),
            reason,
        }])
    }

    fn apply(&mut self, event: WebhookEndpointEvent) {
        use WebhookEndpointEvent as E;
        match event {
            E::WebhookCreated {
                url,
                about,
                event_patterns,
                ordering,
                content,
                rate_per_second,
                secret_number,
                created_at,
                reason: _,
            } => {
                *self = Self {
                    terms: Terms { url, about, patterns: event_patterns, ordering, content, rate_per_second },
                    secrets: vec![Secret { number: secret_number, until: None }],
                    created_at,
                    ..Self::default()
                };
            }
            E::WebhookChanged { url, about, event_patterns, ordering, content, rate_per_second, .. } => {
                self.terms = Terms { url, about, patterns: event_patterns, ordering, content, rate_per_second };
            }
            E::WebhookSecretRotated { secret_number, previous_secret_until, reason: _ } => {
                self.secrets = rotated(std::mem::take(&mut self.secrets), secret_number, previous_secret_until);
            }
            E::WebhookDisabled { automatic: _, reason } => {
                self.state = WebhookEndpointState::Disabled;
                self.disabled_reason = reason;
            }
            E::WebhookEnabled { reason: _ } => {
                self.state = WebhookEndpointState::Enabled;
                self.disabled_reason = None;
            }
            E::WebhookFailing { failing_since, .. } => self.warned_of = Some(failing_since),
            E::WebhookTested { .. } | E::WebhookRedelivered { .. } | E::WebhookReplayed { .. } => {}
            E::WebhookDeleted { .. } => self.deleted = true,
        }
    }
}

/// What signs after a rotation. Those that had ended by then are forgotten.
pub fn rotated(mut secrets: Vec<Secret>, number: u64, previous_until: DateTime<Utc>) -> Vec<Secret> {
    let rotated_at = previous_until.checked_sub_signed(TimeDelta::hours(SECRET_OVERLAP_HOURS));
    secrets.retain(|secret| secret.until.is_none_or(|end| rotated_at.is_none_or(|at| end > at)));
    for secret in secrets.iter_mut().filter(|secret| secret.until.is_none()) {
        secret.until = Some(previous_until);
    }
    secrets.insert(0, Secret { number, until: None });
    secrets
}

fn checked(terms: Terms) -> Result<Terms, Refusal> {
    if terms.url.is_empty() || terms.url.len() > URL_BYTES_MAX {
        let message = format!("url has {} bytes: give 1 to {URL_BYTES_MAX}", terms.url.len());
        return Err(Refusal::input("url", message));
    }
    if let Some(rate) = terms.rate_per_second.filter(|rate| !(1..=RATE_PER_SECOND_MAX).contains(rate)) {
        let message = format!("ratePerSecond is {rate}: give 1 to {RATE_PER_SECOND_MAX}, or null");
        return Err(Refusal::input("ratePerSecond", message));
    }
    let about = text::reason("description", terms.about.as_deref())?;
    Ok(Terms { about, patterns: patterns(&terms.patterns)?, ..terms })
}

/// Patterns as they are stored: 1 to [`PATTERNS_MAX`], each of which names at least one event that an organization can have,
/// and none stands twice.
pub fn patterns(given: &[String]) -> Result<Vec<String>, Refusal> {
    if given.is_empty() || given.len() > PATTERNS_MAX {
        let message = format!("{} patterns of events were given: give 1 to {PATTERNS_MAX}, such as \"*\"", given.len());
        return Err(Refusal::input("events", message));
    }
    let mut kept: Vec<String> = vec![];
    for pattern in given.iter().map(|pattern| pattern.trim()) {
        let whole = pattern == "*" || pattern.ends_with(".*") || !pattern.contains('*');
        let own = [pattern.to_owned()];
        if !whole || !stream::descriptors_of_organizations().any(|event| wants(&own, &event.action())) {
            let shown: String = pattern.chars().take(80).collect();
            let right =
                "give \"*\", the beginning of a type such as \"member.*\", or a type such as \"member.invited\"";
            return Err(Refusal::input("events", format!("{shown:?} names no event of an organization: {right}")));
        }
        if !kept.iter().any(|known| known == pattern) {
            kept.push(pattern.to_owned());
        }
    }
    Ok(kept)
}

impl Resource for WebhookEndpoint {
    const PLACE: Place = Place::WithinOrganization;
    const LIMIT: Option<Limit> = Some(WEBHOOKS);
    const CLAIMS: &'static [Scope] = &[];
    const HAS_KEY: bool = false;
    const DECIDES_ACCESS: bool = false;
    const HEADING: Option<&'static str> = None;

    fn destroys_key(_: &WebhookEndpointEvent) -> bool {
        false
    }

    fn expiry(_: DateTime<Utc>) -> Option<WebhookEndpointCommand> {
        None
    }

    fn purge(_: DateTime<Utc>) -> Option<WebhookEndpointCommand> {
        None
    }

    fn change(event: &WebhookEndpointEvent) -> Change {
        use Change as C;
        use WebhookEndpointEvent as E;
        match event {
            E::WebhookCreated { .. } => C::Create,
            E::WebhookChanged { .. } | E::WebhookSecretRotated { .. } => C::Update,
            E::WebhookDisabled { .. } => C::Disable,
            E::WebhookEnabled { .. } => C::Enable,
            E::WebhookFailing { .. } => C::Other("Fail"),
            E::WebhookTested { .. } => C::Other("Test"),
            E::WebhookRedelivered { .. } => C::Other("Redeliver"),
            E::WebhookReplayed { .. } => C::Other("Replay"),
            E::WebhookDeleted { .. } => C::Delete,
        }
    }

    fn is_gone(&self) -> bool {
        self.deleted
    }

    fn facts(&self, _: DateTime<Utc>) -> Vec<(&'static str, String)> {
        vec![]
    }

    fn document_bytes(&self) -> usize {
        0
    }
}

aggregate!(WebhookEndpoint, "WebhookEndpoint", WebhookEndpointCommand, WebhookEndpointEvent, shape 1, personal []);
