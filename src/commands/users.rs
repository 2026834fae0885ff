//! Users: known from their first authenticated call, or from an import, and let in or shut out by operators.

use std::collections::HashSet;

use aggregates::ids::{Id, UserId};
use aggregates::user::{Profile, UserCommand, UserState};
use aggregates::{Digest, Refusal, StreamId, User};
use chrono::Utc;
use serde::Serialize;

use super::work::{Entity, Stop, Work};
use super::{Commands, Fault, Person, Principal, Rejection, UseCase, authority};
use crate::log::{Loaded, LogError};

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
            Act::Revoke if work.caller()?.principal.user() == Some(&self.user) => {
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
        let case = RegisterUser {
            id: id.clone(),
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            identity: identity.clone(),
            profile: profile.clone(),
            held: self.rules().approval_required && !named_by_operator,
        };
        match self.act(authority::told_by(&id), &case).await?.rejections.pop() {
            None => Ok(id),
            // Another first call was faster.
            Some(Rejection::Rule(Refusal::AlreadyExists { existing, .. })) => {
                let id: UserId =
                    existing.parse().map_err(|_| LogError::Corrupt(format!("{existing} holds an identity")))?;
                self.follow_profile(&id, profile).await?;
                Ok(id)
            }
            Some(rejection) => Err(unexpected(rejection)),
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
        // Mostly it says nothing new.
        let user = self.log().load::<User>(id).await?;
        if user.state.decide(UserCommand::FollowProfile { profile: profile.clone() }).is_ok_and(|new| new.is_empty()) {
            return Ok(());
        }
        let case = FollowProfile { user: id.clone(), profile };
        match self.act(authority::told_by(id), &case).await?.rejections.pop() {
            None => Ok(()),
            Some(rejection) => Err(unexpected(rejection)),
        }
    }
}

/// Registers the user of an identity.
#[derive(Debug, Serialize)]
struct RegisterUser {
    id: UserId,
    issuer: String,
    subject: String,
    identity: Digest,
    profile: Profile,
    held: bool,
}

impl UseCase for RegisterUser {
    const OPERATION: &'static str = "registerUser";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let before = work.expect_nothing::<User>(&self.id);
        let events = before.state.decide(UserCommand::Register {
            id: self.id.clone(),
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            identity_claim: self.identity.clone(),
            profile: self.profile.clone(),
            held: self.held,
        })?;
        work.record(&self.id, &before, events);
        Ok(())
    }
}

/// Records what a token says of its user.
#[derive(Debug, Serialize)]
struct FollowProfile {
    user: UserId,
    profile: Profile,
}

impl UseCase for FollowProfile {
    const OPERATION: &'static str = "followProfile";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let before = work.load::<User>(&self.user).await?;
        let events = before.state.decide(UserCommand::FollowProfile { profile: self.profile.clone() })?;
        work.record(&self.user, &before, events);
        Ok(())
    }
}

fn unexpected(rejection: Rejection) -> Fault {
    match rejection {
        Rejection::Rule(refusal) => Fault::BadInput(refusal.to_string()),
        rejection @ (Rejection::Version { .. } | Rejection::Limit { .. } | Rejection::LastOwner) => {
            LogError::Corrupt(format!("what a token says of its user gave {rejection:?}")).into()
        }
    }
}
