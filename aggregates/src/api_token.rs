//! An API token: a service acts in its organization by a secret that is shown once, within the permissions that it
//! was given. It has no user behind it, belongs to no other organization, and never owns.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::error::Refusal;
use crate::guard::{Effect, Scope, Taken};
use crate::personal::{Digest, Personal};
use crate::resource::{Change, Limit, Place, Resource};
use crate::roles::Permissions;
use crate::{aggregate, text};

/// Living API tokens.
pub const TOKENS: Limit = Limit { name: "tokens", maximum_min: 0, maximum_default: Some(100) };

/// How long a token that ends may live, in days: ten years.
pub const LIFETIME_DAYS_MAX: i64 = 3_653;

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ApiTokenState {
    /// It may be used.
    #[default]
    Active,
    /// Taken back.
    Revoked,
    /// Past its time.
    Expired,
}

crate::events! {
    /// What can happen to an API token.
    pub enum ApiTokenEvent {
        /// A service may act by the token from here on.
        TokenCreated "1.0" {
            /// For what it is.
            name: String,
            /// How the secret begins and ends, to recognise it by.
            hint: String,
            /// The secret as a keyed hash.
            secret_digest: Digest,
            /// What it permits.
            permissions: Vec<String>,
            /// The actor who created it.
            created_by: Actor,
            /// The user who answers for it: its creator or, where a token created it, the user who answers for that.
            responsible: Actor,
            /// Until when it can be used; none is for ever.
            token_expires_at: Option<DateTime<Utc>>,
            /// When it was created.
            created_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The token was taken back; it is refused from the next request on.
        TokenRevoked "1.1" {
            /// The secret as a keyed hash.
            secret_digest: Digest,
            /// When it was taken back.
            revoked_at: DateTime<Utc>,
            /// Why, where a reason was given. It is about the user who answers for the token.
            reason: Option<Personal>,
        }
        /// The token's time is over.
        TokenExpired "1.0" {
            /// The secret as a keyed hash.
            secret_digest: Digest,
            /// Until when it could be used.
            expires_at: DateTime<Utc>,
        }
    }
}

impl ApiTokenEvent {
    /// Which claims and tallies this event changes: a living token is found by its secret's hash, and counted.
    pub fn effects(&self) -> Vec<Effect> {
        use ApiTokenEvent as E;
        match self {
            E::TokenCreated { secret_digest, token_expires_at, .. } => vec![
                Effect::Claim { scope: ApiToken::SECRET, key: secret_digest.0.clone(), until: *token_expires_at },
                Effect::tally(TOKENS, 1),
            ],
            E::TokenRevoked { secret_digest, .. } | E::TokenExpired { secret_digest, .. } => vec![
                Effect::Release { scope: ApiToken::SECRET, key: secret_digest.0.clone() },
                Effect::tally(TOKENS, -1),
            ],
        }
    }
}

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ApiToken {
    /// For what it is.
    pub name: String,
    /// How the secret begins and ends.
    pub hint: String,
    /// The secret as a keyed hash; `None` before the token was created.
    pub secret_digest: Option<Digest>,
    /// What it permits, by name.
    pub permissions: Vec<String>,
    /// The actor who created it.
    pub created_by: Actor,
    /// The user who answers for it.
    pub responsible: Actor,
    /// Where it stands, as recorded; see [`ApiToken::state_at`].
    pub state: ApiTokenState,
    /// Until when it can be used.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was taken back.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// The creator of a token, and the bounds: a grant never exceeds what the grantor has, in time neither.
#[derive(Debug, Clone, PartialEq)]
pub struct Creator {
    /// The creator.
    pub actor: Actor,
    /// The user who answers for it.
    pub responsible: Actor,
    /// What the creator may do.
    pub permissions: Permissions,
    /// Until when they may do so, where that is known: of a token, its end.
    pub until: Option<DateTime<Utc>>,
}

/// What can be asked of a token.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiTokenCommand {
    /// Come to be.
    Create {
        /// For what it is.
        name: String,
        /// What it permits, by name.
        permissions: Vec<String>,
        /// How the secret begins and ends.
        hint: String,
        /// The secret as a keyed hash.
        secret: Digest,
        /// By whom.
        by: Creator,
        /// Until when it can be used.
        expires_at: Option<DateTime<Utc>>,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Be taken back.
    Revoke {
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Have it recorded that its time is over.
    Expire {
        /// Now.
        at: DateTime<Utc>,
    },
}

impl ApiToken {
    /// Secrets of living API tokens, by keyed hash. Nobody chooses one, so that one is taken is the service's own doing.
    pub const SECRET: Scope =
        Scope::global("api_token", Taken::Exists("name", "this token is there already: try again"));

    /// Where it stands at `now`: a token past its time reads as expired before that is recorded.
    pub fn state_at(&self, now: DateTime<Utc>) -> ApiTokenState {
        match self.state {
            ApiTokenState::Active if self.expires_at.is_some_and(|end| end <= now) => ApiTokenState::Expired,
            state => state,
        }
    }

    /// What it permits; nothing unless it may be used, as recorded.
    pub fn permissions(&self) -> Permissions {
        let active = self.secret_digest.is_some() && self.state == ApiTokenState::Active;
        if active { Permissions::of_names(&self.permissions) } else { Permissions::default() }
    }

    /// The events that `command` makes of this state.
    pub fn decide(&self, command: ApiTokenCommand) -> Result<Vec<ApiTokenEvent>, Refusal> {
        use ApiTokenCommand as C;
        use ApiTokenEvent as E;
        match (command, self.secret_digest.clone()) {
            (C::Create { name, permissions, hint, secret, by, expires_at, reason, at }, None) => {
                Ok(vec![E::TokenCreated {
                    name: text::name("name", &name)?,
                    hint,
                    secret_digest: secret,
                    permissions: granted(&permissions, &by)?,
                    token_expires_at: end(expires_at, &by, at)?,
                    created_by: by.actor,
                    responsible: by.responsible,
                    created_at: at,
                    reason: text::reason("reason", reason.as_deref())?,
                }])
            }
            (C::Create { .. }, Some(_)) => Err(Refusal::AlreadyExists {
                path: "name",
                message: "this token exists already".into(),
                existing: String::new(),
            }),
            (C::Revoke { .. } | C::Expire { .. }, None) => Err(Refusal::NotFound),
            (C::Revoke { reason, at }, Some(secret_digest)) => match self.state {
                // Also one past its time, as long as that is not recorded: whoever takes it back must not be told no.
                ApiTokenState::Active => {
                    let reason = text::reason("reason", reason.as_deref())?;
                    // Only the service itself is nobody, and it creates no token.
                    let reason = self.responsible.id().zip(reason).map(|(of, reason)| Personal::new(of, reason));
                    Ok(vec![E::TokenRevoked { secret_digest, revoked_at: at, reason }])
                }
                ApiTokenState::Revoked => Err(Refusal::InvalidState("the token was revoked already".into())),
                ApiTokenState::Expired => Err(Refusal::InvalidState("the token has expired already".into())),
            },
            (C::Expire { at }, Some(secret_digest)) => match (self.state, self.expires_at) {
                (ApiTokenState::Active, Some(expires_at)) if expires_at <= at => {
                    Ok(vec![E::TokenExpired { secret_digest, expires_at }])
                }
                _ => Err(Refusal::InvalidState("the token is not past its time".into())),
            },
        }
    }

    fn apply(&mut self, event: ApiTokenEvent) {
        use ApiTokenEvent as E;
        match event {
            E::TokenCreated {
                name,
                hint,
                secret_digest,
                permissions,
                created_by,
                responsible,
                token_expires_at,
                created_at,
                reason: _,
            } => {
                *self = Self {
                    name,
                    hint,
                    secret_digest: Some(secret_digest),
                    permissions,
                    created_by,
                    responsible,
                    state: ApiTokenState::Active,
                    expires_at: token_expires_at,
                    revoked_at: None,
                    created_at,
                };
            }
            E::TokenRevoked { revoked_at, .. } => {
                self.state = ApiTokenState::Revoked;
                self.revoked_at = Some(revoked_at);
            }
            E::TokenExpired { .. } => self.state = ApiTokenState::Expired,
        }
    }
}

/// Permissions as they are stored: known, within the creator's, in the catalogue's order.
fn granted(names: &[String], by: &Creator) -> Result<Vec<String>, Refusal> {
    let wanted = Permissions::named(names)?;
    if wanted == Permissions::default() {
        return Err(Refusal::input("permissions", "no permission was given: give at least one"));
    }
    if !wanted.is_subset(by.permissions) {
        return Err(Refusal::RoleNotGrantable("the token would permit more than you may do yourself".into()));
    }
    Ok(wanted.names())
}

fn end(expires_at: Option<DateTime<Utc>>, by: &Creator, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Refusal> {
    let latest = now.checked_add_signed(TimeDelta::days(LIFETIME_DAYS_MAX));
    match (expires_at, by.until) {
        (Some(end), _) if end <= now => Err(Refusal::input("expiresAt", "expiresAt is not in the future")),
        (Some(end), _) if latest.is_some_and(|latest| end > latest) => {
            let message =
                format!("expiresAt is more than {LIFETIME_DAYS_MAX} days from now: give less, or leave it out");
            Err(Refusal::input("expiresAt", message))
        }
        (end, Some(until)) if end.is_none_or(|end| end > until) => {
            Err(Refusal::input("expiresAt", "a token creates no token that outlives it: give an earlier expiresAt"))
        }
        (end, _) => Ok(end),
    }
}

impl Resource for ApiToken {
    const PLACE: Place = Place::WithinOrganization;
    const LIMIT: Option<Limit> = Some(TOKENS);
    const CLAIMS: &'static [Scope] = &[Self::SECRET];
    const HAS_KEY: bool = true;
    const DECIDES_ACCESS: bool = true;
    const HEADING: Option<&'static str> = None;

    fn destroys_key(_: &ApiTokenEvent) -> bool {
        false
    }

    fn expiry(at: DateTime<Utc>) -> Option<ApiTokenCommand> {
        Some(ApiTokenCommand::Expire { at })
    }

    fn purge(_: DateTime<Utc>) -> Option<ApiTokenCommand> {
        None
    }

    fn change(event: &ApiTokenEvent) -> Change {
        use ApiTokenEvent as E;
        use Change as C;
        match event {
            E::TokenCreated { .. } => C::Create,
            E::TokenRevoked { .. } | E::TokenExpired { .. } => C::Deactivate,
        }
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn facts(&self, _: DateTime<Utc>) -> Vec<(&'static str, String)> {
        vec![]
    }

    fn document_bytes(&self) -> usize {
        0
    }
}

aggregate!(ApiToken, "ApiToken", ApiTokenCommand, ApiTokenEvent, shape 1, personal []);
