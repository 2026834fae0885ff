//! Commands of API tokens.

use aggregates::api_token::{ApiTokenCommand, ApiTokenEvent, ApiTokenState, Creator};
use aggregates::ids::{ApiTokenId, MembershipId, OrganizationId, UserId};
use aggregates::membership::MembershipState;
use aggregates::roles::Permission;
use aggregates::status::Capability;
use aggregates::user::UserState;
use aggregates::{Actor, ApiToken, Membership, StreamId, User};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::standing::{Insider, Rights, Standing};
use super::work::{Entity, Stop, Work};
use super::{Commands, Fault, Principal, UseCase, token_secret};
use crate::log::Loaded;

/// Creates an API token.
#[derive(Debug, Serialize)]
pub struct CreateApiToken {
    /// Of which organization.
    pub organization: OrganizationId,
    /// For what it is.
    pub name: String,
    /// What it permits.
    pub permissions: Vec<String>,
    /// Until when; none is for ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for CreateApiToken {
    const OPERATION: &'static str = "createApiToken";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let reason = self.reason.as_deref();
        let rights = standing.require(work, Some(Capability::CreateResources), Permission::TokenManage, reason)?;
        let (id, before) = work.create::<ApiToken>().await?;
        let secret = token_secret::new();
        let events = before.state.decide(ApiTokenCommand::Create {
            name: self.name.clone(),
            permissions: self.permissions.clone(),
            hint: token_secret::hint(&secret),
            secret: token_secret::digest(work.log().keys(), &secret),
            by: creator(work, &standing, &rights)?,
            expires_at: self.expires_at,
            reason: self.reason.clone(),
            at: work.now,
        })?;
        finish(work, id, &before, events);
        work.secret_to_show = Some(secret);
        Ok(())
    }
}

fn creator(work: &Work<'_>, standing: &Standing, rights: &Rights) -> Result<Creator, Stop> {
    let actor = work.caller()?.actor(rights.operator);
    let (responsible, until) = match &standing.insider {
        Insider::Member(_) => (actor.clone(), None),
        // Else a token would be a way to stay for whoever made it.
        Insider::Token(token) => (token.state.responsible.clone(), token.state.expires_at),
    };
    Ok(Creator { actor, responsible, permissions: rights.grantor.permissions, until })
}

/// Takes an API token back.
#[derive(Debug, Serialize)]
pub struct RevokeApiToken {
    /// Which token.
    pub token: ApiTokenId,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for RevokeApiToken {
    const OPERATION: &'static str = "revokeApiToken";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let token = work.load::<ApiToken>(&self.token).await?;
        let standing = Standing::of_owner(work, token.organization.as_ref(), self.token.as_ref()).await?;
        if !standing.may(Permission::TokenRead) && !standing.operator {
            return Err(Fault::NotFound.into());
        }
        // Like the removal of a member: what has leaked must be stopped in whatever state the organization is. And
        // also where it permits more than the caller may do: taking away is not granting.
        let reason = self.reason.as_deref();
        standing.require(work, Some(Capability::RemoveMembers), Permission::TokenManage, reason)?;
        work.expect_version(token.version)?;
        let command = ApiTokenCommand::Revoke { reason: self.reason.clone(), at: work.now };
        let events = token.state.decide(command)?;
        finish(work, self.token.clone(), &token, events);
        Ok(())
    }
}

/// The user who answers for a token. Limits of the user hold for the token: it would else be a way back in.
pub(super) fn person_behind(token: &ApiToken) -> Option<&UserId> {
    match &token.responsible {
        Actor::User(user) | Actor::Operator(user) => Some(user),
        // One that a token created has that one's; the service itself creates none.
        Actor::Token(_) | Actor::System => None,
    }
}

/// Where it stands whether the person behind a token is shut out: as a user, and as a member of its organization.
pub(super) fn behind(token: &Loaded<ApiToken>) -> Option<(UserId, MembershipId)> {
    let (user, organization) = (person_behind(&token.state)?, token.organization.as_ref()?);
    Some((user.clone(), MembershipId::of(organization, user)))
}

/// Refuses a token whose user is shut out: suspended, revoked or erased. A member who was removed, or left, leaves the
/// tokens to the organization, as its policy says; unless they were suspended then, for a suspension outlives the
/// membership.
pub(super) fn admit_behind(user: &User, membership: &Membership) -> Result<(), Fault> {
    match user.state {
        UserState::Revoked | UserState::Erased => Err(Fault::TokenEnded("is of a user who was revoked or erased")),
        UserState::Active | UserState::Pending => match membership.state {
            MembershipState::Suspended => {
                Err(Fault::TokenEnded("rests while the member who answers for it is suspended"))
            }
            MembershipState::Removed if membership.barred => {
                Err(Fault::TokenEnded("rests: the member who answers for it was suspended when the membership ended"))
            }
            MembershipState::Active | MembershipState::Removed => Ok(()),
        },
    }
}

/// Lets in a token that may be used at `now`.
pub(super) fn admit(token: &Loaded<ApiToken>, now: DateTime<Utc>) -> Result<(), Fault> {
    match token.state.state_at(now) {
        _ if token.version == 0 => Err(Fault::TokenEnded("is not known any more")),
        ApiTokenState::Active => Ok(()),
        ApiTokenState::Revoked => Err(Fault::TokenEnded("was revoked")),
        ApiTokenState::Expired => Err(Fault::TokenEnded("has expired")),
    }
}

impl Commands {
    /// Until when the token is valid; `None` for ever.
    pub async fn token_expires_at(&self, id: &ApiTokenId) -> Result<Option<DateTime<Utc>>, Fault> {
        Ok(self.log().current(&[id.clone().into()]).await?.get::<ApiToken>(id).state.expires_at)
    }

    /// Lets the token in, by what the log has now of it and of the person behind it: by one statement where the token is
    /// known, since who answers for it never changes.
    pub(super) async fn admit_token_now(&self, id: &ApiTokenId, now: DateTime<Utc>) -> Result<(), Fault> {
        let behind = behind(&self.log().load::<ApiToken>(id).await?);
        let mut streams: Vec<StreamId> = vec![id.clone().into()];
        streams.extend(behind.iter().flat_map(|(user, member)| [user.clone().into(), member.clone().into()]));
        let current = self.log().current(&streams).await?;
        admit(&current.get::<ApiToken>(id), now)?;
        if let Some((user, member)) = behind {
            admit_behind(&current.get::<User>(&user).state, &current.get::<Membership>(&member).state)?;
        }
        Ok(())
    }

    /// The user who calls, or who answers for the token that calls.
    pub async fn person_behind(&self, caller: &Principal) -> Result<Option<UserId>, Fault> {
        match caller {
            Principal::User(person) => Ok(Some(person.user.clone())),
            Principal::Token(id) => Ok(person_behind(&self.log().load::<ApiToken>(id).await?.state).cloned()),
        }
    }

    /// The living token of this secret, which has to be well formed.
    pub async fn token_of(&self, secret: &str) -> Result<Option<ApiTokenId>, Fault> {
        let digest = token_secret::digest(self.log().keys(), secret);
        let holder = self.log().claim(ApiToken::SECRET, &digest.0, None).await?;
        Ok(holder.and_then(|holder| holder.parse().ok()))
    }
}

fn finish(work: &mut Work<'_>, id: ApiTokenId, before: &Loaded<ApiToken>, events: Vec<ApiTokenEvent>) {
    let after = work.record(&id, before, events);
    work.entities = vec![Entity::new(id, after)];
}
