//! A user: an (issuer, subject) that has called, with what its tokens say of it, and whether it is let in.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::event::{Field, Kind, shown};
use crate::guard::{Effect, Scope, Taken};
use crate::ids::{EventId, UserId};
use crate::personal::{Digest, Erasure, Personal, readable};
use crate::resource::{Change, Limit, Place, Resource};
use crate::{aggregate, text};

/// Whether the user is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UserState {
    /// Let in.
    #[default]
    Active,
    /// Waits for an operator.
    Pending,
    /// Refused everywhere.
    Revoked,
    /// Gone for good: nothing that could be read of the person is left.
    Erased,
}

impl Field for UserState {
    const KIND: Kind = Kind { name: "UserState", list: false, nullable: false, hidden: false };
}

crate::events! {
    /// What can happen to a user.
    pub enum UserEvent {
        /// A user called for the first time, or was imported.
        UserRegistered "1.0" {
            /// The issuer that vouches for the user.
            issuer: String,
            /// The user's id at the issuer.
            subject: Personal,
            /// Issuer and subject as a keyed hash: one user each.
            identity_claim: Digest,
            /// The user's verified address, where the token has one.
            email: Option<Personal>,
            /// The user's name, where the token has one.
            display_name: Option<Personal>,
        }
        /// The user's token says another address or name.
        UserProfileChanged "1.0" {
            /// The user's verified address.
            email: Option<Personal>,
            /// The address before.
            previous_email: Option<Personal>,
            /// The user's name.
            display_name: Option<Personal>,
            /// The name before.
            previous_display_name: Option<Personal>,
        }
        /// The new user waits until an operator approves.
        UserHeld "1.0" {
            /// The state from now on.
            user_state: UserState,
        }
        /// An operator let the waiting user in.
        UserApproved "1.0" {
            /// The state from now on.
            user_state: UserState,
            /// Why.
            reason: Option<Personal>,
        }
        /// An operator shut the user out, everywhere and at once.
        UserRevoked "1.0" {
            /// The state from now on.
            user_state: UserState,
            /// The state before.
            previous_user_state: UserState,
            /// Why.
            reason: Option<Personal>,
        }
        /// An operator let the revoked user in again.
        UserReinstated "1.0" {
            /// The state from now on.
            user_state: UserState,
            /// Why.
            reason: Option<Personal>,
        }
        /// An operator erased the person: the key of everything personal is destroyed with this event.
        UserErased "1.0" {
            /// The state from now on.
            user_state: UserState,
            /// The state before.
            previous_user_state: UserState,
            /// Issuer and subject as a keyed hash; free from now on.
            identity_claim: Digest,
            /// The addresses that the person had, as keyed hashes: by them the invitations to them are found.
            email_claims: Vec<Digest>,
            /// Why. It is the operator's text and under the operator's key: the person's own is destroyed.
            reason: Option<Personal>,
            /// Events that stay and whose reason names the person, at most 100; null where none was looked for.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            named_in: Option<Vec<EventId>>,
            /// Whether there may be more of them than these; null where none was looked for.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            named_in_more: Option<bool>,
            /// When the person was erased first, where a restored database had forgotten that.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            first_erased_at: Option<DateTime<Utc>>,
        }
    }
}

impl UserEvent {
    /// Which claims and tallies this event changes.
    pub fn effects(&self) -> Vec<Effect> {
        match self {
            Self::UserRegistered { identity_claim, .. } => {
                vec![Effect::Claim { scope: User::IDENTITY, key: identity_claim.0.clone(), until: None }]
            }
            // The same person coming back is somebody new.
            Self::UserErased { identity_claim, .. } => {
                vec![Effect::Release { scope: User::IDENTITY, key: identity_claim.0.clone() }]
            }
            Self::UserProfileChanged { .. }
            | Self::UserHeld { .. }
            | Self::UserApproved { .. }
            | Self::UserRevoked { .. }
            | Self::UserReinstated { .. } => vec![],
        }
    }
}

/// What is known of a user.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct User {
    /// Its id; `None` before it was registered.
    pub id: Option<UserId>,
    /// Issuer and subject as a keyed hash.
    pub identity_claim: Option<Digest>,
    /// The verified address.
    pub email: Option<Personal>,
    /// The name.
    pub display_name: Option<Personal>,
    /// Whether the user is let in.
    pub state: UserState,
}

/// What a token says of its user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Profile {
    /// The verified address.
    pub email: Option<String>,
    /// The name.
    pub display_name: Option<String>,
}

/// What can be asked of a user.
#[derive(Debug, Clone, PartialEq)]
pub enum UserCommand {
    /// Know the user from now on.
    Register {
        /// The user's id.
        id: UserId,
        /// The issuer that vouches for the user.
        issuer: String,
        /// The user's id at the issuer.
        subject: String,
        /// Issuer and subject as a keyed hash.
        identity_claim: Digest,
        /// What the token says.
        profile: Profile,
        /// Whether an operator has to approve first.
        held: bool,
    },
    /// Follow what the token says.
    FollowProfile {
        /// What the token says.
        profile: Profile,
    },
    /// Let the waiting user in.
    Approve {
        /// Why.
        reason: Option<String>,
    },
    /// Shut the user out.
    Revoke {
        /// Why.
        reason: Option<String>,
    },
    /// Let the revoked user in again.
    Reinstate {
        /// Why.
        reason: Option<String>,
    },
    /// Erase the person.
    Erase {
        /// The addresses that the person had, as keyed hashes.
        email_claims: Vec<Digest>,
        /// What is recorded with it.
        erasure: Erasure,
    },
}

impl User {
    /// (issuer, subject) of users, by keyed hash.
    pub const IDENTITY: Scope = Scope::global("identity", Taken::Exists("userId", "this user is registered already"));

    /// The events that `command` makes of this state.
    pub fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, Refusal> {
        match command {
            UserCommand::Register { id, .. } if self.id.is_some() => {
                let message = "this user is registered already".to_owned();
                Err(Refusal::AlreadyExists { path: "userId", message, existing: id.to_string() })
            }
            UserCommand::Register { id, issuer, subject, identity_claim, profile, held } => {
                let (email, display_name) = personal(&id, profile);
                let subject = Personal::new(id.as_ref(), subject);
                let registered = UserEvent::UserRegistered { issuer, subject, identity_claim, email, display_name };
                let held = held.then_some(UserEvent::UserHeld { user_state: UserState::Pending });
                Ok(std::iter::once(registered).chain(held).collect())
            }
            UserCommand::FollowProfile { profile } => {
                let Some(id) = &self.id else { return Err(Refusal::NotFound) };
                // A user who is shut out does not write.
                if matches!(self.state, UserState::Revoked | UserState::Erased) {
                    return Ok(vec![]);
                }
                let (email, display_name) = personal(id, profile);
                // A token without a name or an address says nothing about them.
                let email = email.or_else(|| self.email.clone());
                let display_name = display_name.or_else(|| self.display_name.clone());
                if readable(&email) == readable(&self.email) && readable(&display_name) == readable(&self.display_name)
                {
                    return Ok(vec![]);
                }
                Ok(vec![UserEvent::UserProfileChanged {
                    email,
                    previous_email: self.email.clone(),
                    display_name,
                    previous_display_name: self.display_name.clone(),
                }])
            }
            UserCommand::Approve { reason } => {
                let reason = self.reviewed(UserState::Pending, reason)?;
                Ok(vec![UserEvent::UserApproved { user_state: UserState::Active, reason }])
            }
            UserCommand::Revoke { reason } => {
                if matches!(self.state, UserState::Revoked | UserState::Erased) {
                    return Err(Refusal::InvalidState(format!("the user is {} already", shown(self.state))));
                }
                let reason = self.reviewed(self.state, reason)?;
                Ok(vec![UserEvent::UserRevoked {
                    user_state: UserState::Revoked,
                    previous_user_state: self.state,
                    reason,
                }])
            }
            UserCommand::Reinstate { reason } => {
                let reason = self.reviewed(UserState::Revoked, reason)?;
                Ok(vec![UserEvent::UserReinstated { user_state: UserState::Active, reason }])
            }
            UserCommand::Erase { email_claims, erasure } => self.erase(email_claims, erasure),
        }
    }

    fn erase(&self, email_claims: Vec<Digest>, erasure: Erasure) -> Result<Vec<UserEvent>, Refusal> {
        let Some(identity_claim) = self.identity_claim.clone() else { return Err(Refusal::NotFound) };
        if self.state == UserState::Erased {
            return Ok(vec![]);
        }
        Ok(vec![UserEvent::UserErased {
            user_state: UserState::Erased,
            previous_user_state: self.state,
            identity_claim,
            email_claims,
            reason: text::reason_of_operator(erasure.because)?,
            named_in: erasure.named_in,
            named_in_more: erasure.named_in_more,
            first_erased_at: erasure.first_at,
        }])
    }

    /// The reason of an operator's step from `state`, which the user must be in.
    fn reviewed(&self, state: UserState, reason: Option<String>) -> Result<Option<Personal>, Refusal> {
        let Some(id) = &self.id else { return Err(Refusal::NotFound) };
        if self.state != state {
            let message = format!("the user is {} and not {}", shown(self.state), shown(state));
            return Err(Refusal::InvalidState(message));
        }
        Ok(text::reason("reason", reason.as_deref())?.map(|reason| Personal::new(id.as_ref(), reason)))
    }

    fn apply(&mut self, event: UserEvent) {
        match event {
            UserEvent::UserRegistered { subject, identity_claim, email, display_name, .. } => {
                let (id, identity_claim) = (subject.of().parse().ok(), Some(identity_claim));
                *self = Self { id, identity_claim, email, display_name, state: UserState::Active };
            }
            UserEvent::UserProfileChanged { email, display_name, .. } => {
                self.email = email;
                self.display_name = display_name;
            }
            UserEvent::UserHeld { user_state }
            | UserEvent::UserApproved { user_state, .. }
            | UserEvent::UserRevoked { user_state, .. }
            | UserEvent::UserReinstated { user_state, .. } => self.state = user_state,
            UserEvent::UserErased { user_state, .. } => {
                (self.email, self.display_name) = (None, None);
                self.state = user_state;
            }
        }
    }
}

/// What the token says, as far as it is usable: an issuer's odd name is no reason to turn a user away.
fn personal(id: &UserId, profile: Profile) -> (Option<Personal>, Option<Personal>) {
    let email = profile.email.and_then(|email| text::email("email", &email).ok());
    let name = profile.display_name.and_then(|name| text::name("name", &name).ok());
    (email.map(|email| Personal::new(id.as_ref(), email)), name.map(|name| Personal::new(id.as_ref(), name)))
}

impl Resource for User {
    const PLACE: Place = Place::Outside;
    const LIMIT: Option<Limit> = None;
    const CLAIMS: &'static [Scope] = &[Self::IDENTITY];
    const HAS_KEY: bool = true;
    const DECIDES_ACCESS: bool = false;
    const HEADING: Option<&'static str> = None;

    fn destroys_key(event: &UserEvent) -> bool {
        matches!(event, UserEvent::UserErased { .. })
    }

    fn expiry(_: DateTime<Utc>) -> Option<UserCommand> {
        None
    }

    fn purge(_: DateTime<Utc>) -> Option<UserCommand> {
        None
    }

    fn change(event: &UserEvent) -> Change {
        use Change as C;
        use UserEvent as E;
        match event {
            E::UserRegistered { .. } => C::Create,
            E::UserProfileChanged { .. } => C::Update,
            E::UserHeld { .. } | E::UserRevoked { .. } => C::Disable,
            E::UserApproved { .. } | E::UserReinstated { .. } => C::Enable,
            E::UserErased { .. } => C::Delete,
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

aggregate!(User, "User", UserCommand, UserEvent, shape 3, personal [email, display_name]);
