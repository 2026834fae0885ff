//! Users: known from their first authenticated call, or from an import, and let in or shut out by operators.

use std::collections::HashSet;

use aggregates::ids::{Id, UserId};
use aggregates::user::{Profile, UserCommand, UserState};
use aggregates::{Actor, Digest, Event, Refusal, StreamId, User};
use chrono::Utc;
use serde::Serialize;

use super::work::{Entity, Stop, Work};
use super::{Commands, Fault, Person, Principal, UseCase, system_origin};
use crate::log::{Draft, Loaded, LogError, Outcome};

/// What an operator does to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Act {
    /// PENDING → ACTIVE.
    Approve,
    /// → REVOKED: refused everywhere, at once.
    Revoke,
    /// REVOKED → ACTIVE.
    Reinstate,
}

/// An operator's act on a user.
#[derive(Debug, Serialize)]
pub struct ReviewUser {
    /// Which user.
    pub user: UserId,
    /// What is done.
    pub act: Act,
    /// Why.
    pub reason: String,
}

impl UseCase for ReviewUser {
    const OPERATION: &'static str = "reviewUser";

    fn operation(&self) -> &'static str {
        match self.act {
            Act::Approve => "approveUser",
            Act::Revoke => "revokeUser",
            Act::Reinstate => "reinstateUser",
        }
    }

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.require_operator(&self.reason)?;
        // Two operators who revoke each other: one of them is out first.
        work.hold_caller();
        let before = work.load::<User>(&self.user).await?;
        if before.version == 0 {
            return Err(Fault::NotFound.into());
        }
        work.expect_version(before.version)?;
        let reason = Some(self.reason.clone());
        let command = match self.act {
            Act::Approve => UserCommand::Approve { reason },
            // Nobody could undo it for an operator who has done it to themselves.
            Act::Revoke if work.caller.principal.user() == Some(&self.user) => {
                return Err(Refusal::InvalidState("nobody revokes their own user: ask another operator".into()).into());
            }
            Act::Revoke => UserCommand::Revoke { reason },
            Act::Reinstate => UserCommand::Reinstate { reason },
        };
        let events = before.state.decide(command)?;
        let after = work.record(&self.user, &before, events);
        work.entities = vec![Entity::new(self.user.clone(), after)];
        Ok(())
    }
}

/// Lets a user in who may be. A user who is not in the log (any more: it was restored to an earlier point) has to
/// authenticate anew.
pub(super) fn admit(user: &Loaded<User>) -> Result<(), Fault> {
    match user.state.state {
        // An erased user is nobody any more; a caller with the same token is somebody new.
        _ if user.version == 0 => Err(Fault::UnknownUser),
        UserState::Erased => Err(Fault::UnknownUser),
        UserState::Active => Ok(()),
        UserState::Pending => Err(Fault::Pending),
        UserState::Revoked => Err(Fault::Revoked),
    }
}

/// How often a profile is followed again that another call has just changed.
const TRIES_MAX: usize = 16;

/// (issuer, subject), as the claim on it.
pub fn identity_claim(commands: &Commands, issuer: &str, subject: &str) -> Digest {
    commands.log().keys().digest(&["identity", issuer, subject])
}

impl Commands {
    /// The user of this identity, if there is one.
    pub async fn user_of(&self, identity: &Digest) -> Result<Option<UserId>, Fault> {
        let holder = self.log().claim(User::IDENTITY, &identity.0, None).await?;
        Ok(holder.and_then(|holder| holder.parse().ok()))
    }

    /// The user of (issuer, subject), registered now if that has not happened, and following what its token says.
    /// Ten first calls at once register one user.
    /// A user who has to be approved waits for an operator from then on; a user whom an operator names need not.
    pub async fn ensure_user(
        &self,
        issuer: &str,
        subject: &str,
        profile: Profile,
        named_by_operator: bool,
    ) -> Result<UserId, Fault> {
        let identity = identity_claim(self, issuer, subject);
        if let Some(id) = self.user_of(&identity).await? {
            self.follow_profile(&id, profile).await?;
            return Ok(id);
        }
        let id = UserId::random();
        let command = UserCommand::Register {
            id: id.clone(),
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            identity_claim: identity,
            profile: profile.clone(),
            held: self.rules().approval_required && !named_by_operator,
        };
        let events = User::default().decide(command).map_err(unexpected)?;
        match self.append_to_user(&id, 0, events).await? {
            Outcome::Accepted { .. } => Ok(id),
            Outcome::Taken { holder, .. } => {
                let id: UserId =
                    holder.parse().map_err(|_| LogError::Corrupt(format!("{holder} holds an identity")))?;
                self.follow_profile(&id, profile).await?;
                Ok(id)
            }
            other => Err(LogError::Corrupt(format!("registering a user gave {other:?}")).into()),
        }
    }

    /// Lets the caller in, by what the log has now.
    pub async fn admit_now(&self, caller: &Principal) -> Result<(), Fault> {
        match caller {
            Principal::User(Person { user, .. }) => {
                admit(&self.log().current(&[user.clone().into()]).await?.get::<User>(user))
            }
            Principal::Token(id) => {
                let now = Utc::now();
                self.admit_token_now(id, now).await?;
                self.uses().note(id, now);
                Ok(())
            }
        }
    }

    /// Those of these users who are let in, as the log has them now, by one statement. Where one cannot be read, each is
    /// asked for by itself, and who cannot be read is not let in.
    pub async fn admitted_now(&self, users: &[UserId]) -> Result<HashSet<UserId>, LogError> {
        match self.admitted_among(users).await {
            Err(LogError::Corrupt(_) | LogError::Cipher) => {}
            result => return result,
        }
        let mut admitted = HashSet::new();
        for user in users {
            match self.admitted_among(std::slice::from_ref(user)).await {
                Ok(one) => admitted.extend(one),
                Err(error @ (LogError::Corrupt(_) | LogError::Cipher)) => {
                    metrics::counter!("tenancy_feeds_unreadable_users_total").increment(1);
                    tracing::warn!(%user, %error, "a user cannot be read: the feeds of this user end");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(admitted)
    }

    async fn admitted_among(&self, users: &[UserId]) -> Result<HashSet<UserId>, LogError> {
        let streams: Vec<StreamId> = users.iter().cloned().map(StreamId::from).collect();
        let now = self.log().current(&streams).await?;
        Ok(users.iter().filter(|user| admit(&now.get::<User>(user)).is_ok()).cloned().collect())
    }

    /// Records what the token says of its user, where that is new. Two calls at once record it once.
    pub async fn follow_profile(&self, id: &UserId, profile: Profile) -> Result<(), Fault> {
        for _ in 0..TRIES_MAX {
            let user = self.log().load::<User>(id).await?;
            let command = UserCommand::FollowProfile { profile: profile.clone() };
            let events = user.state.decide(command).map_err(unexpected)?;
            if events.is_empty() {
                return Ok(());
            }
            match self.append_to_user(id, user.version, events).await? {
                Outcome::Accepted { .. } => return Ok(()),
                Outcome::Conflict { stream, .. } => self.log().bring_up_to_date(&[stream]).await?,
                other => return Err(LogError::Corrupt(format!("following a profile gave {other:?}")).into()),
            }
        }
        Err(Fault::Conflict)
    }

    async fn append_to_user<E: Into<Event>>(
        &self,
        id: &UserId,
        version: u64,
        events: Vec<E>,
    ) -> Result<Outcome, Fault> {
        let mut origin = system_origin();
        origin.actor = Actor::User(id.clone());
        let draft = Draft {
            organization: None,
            relied: vec![],
            held: None,
            writes: vec![(id.clone().into(), version, events.into_iter().map(Into::into).collect())],
            origin,
        };
        let append = self.log().seal(draft).await?;
        Ok(self.log().append(append).await?)
    }
}

fn unexpected(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::NotFound => Fault::NotFound,
        refusal => Fault::BadInput(refusal.to_string()),
    }
}
