//! Grants that are made now and taken later: invitations and offers of ownership. What somebody may still give is asked
//! when it is taken, of everything that let them give it: whether the user is let in, whether the membership is active,
//! whether the API token was revoked, and what their roles permit at that moment. The command relies on all of it, so a
//! removal, a suspension or a revocation at the same moment is a conflict.
//!
//! | who gave | what counts when it is taken |
//! |---|---|
//! | a member | the user is ACTIVE, the membership is ACTIVE, its roles |
//! | a member who was removed, where the policy keeps their invitations | the user is ACTIVE, the last roles |
//! | an API token | it was not revoked, what it permits, and that the user responsible for it counts as above |
//! | an operator | the user is ACTIVE |
//! | the service itself | nothing |
//!
//! A token's invitations outlive its planned end (`expiresAt`): nobody took anything back.

use aggregates::api_token::ApiTokenState;
use aggregates::ids::{MembershipId, OrganizationId, UserId};
use aggregates::membership::{Grantor, MembershipState};
use aggregates::roles::{Permission, Permissions};
use aggregates::user::UserState;
use aggregates::{Actor, ApiToken, Membership, Organization, Refusal, User};

use super::tokens;
use super::work::{Stop, Work};
use crate::log::LogError;

/// What `giver` could give in the organization now; `None` where nothing that they gave counts any more.
pub(super) async fn present_grantor(
    work: &mut Work<'_>,
    id: &OrganizationId,
    organization: &Organization,
    giver: &Actor,
) -> Result<Option<Grantor>, LogError> {
    let unbounded = || Grantor::unbounded().knowing(&organization.roles);
    Ok(match giver {
        Actor::System => Some(unbounded()),
        Actor::Operator(user) => is_let_in(work, user).await?.then(unbounded),
        Actor::User(user) => {
            let membership = counts(work, id, organization, user).await?;
            membership.map(|membership| Grantor::with_roles(&membership.roles, &organization.roles))
        }
        Actor::Token(token) => {
            let token = work.load::<ApiToken>(token).await?.state;
            let responsible = match &token.responsible {
                Actor::User(user) => counts(work, id, organization, user).await?.is_some(),
                Actor::Operator(user) => is_let_in(work, user).await? && !rests(work, id, user).await?,
                // A token that a token created has the responsible user of that one.
                Actor::Token(_) | Actor::System => true,
            };
            let permissions = Permissions::of_names(&token.permissions);
            let grantor = || Grantor { permissions, owner: false, own_roles: organization.roles.clone() };
            (responsible && token.state != ApiTokenState::Revoked).then(grantor)
        }
    })
}

/// What the inviter could give now; refuses with `otherwise` where that is less than `roles`.
pub(super) async fn inviter_must_still_give(
    work: &mut Work<'_>,
    id: &OrganizationId,
    organization: &Organization,
    inviter: &Actor,
    roles: &[String],
    otherwise: &str,
) -> Result<Grantor, Stop> {
    let grantor = present_grantor(work, id, organization, inviter).await?;
    let still = |by: &Grantor| by.permissions.contains(Permission::MemberInvite) && by.may_grant(roles).is_ok();
    grantor.filter(still).ok_or_else(|| Refusal::InvalidState(otherwise.to_owned()).into())
}

/// Refuses an invitation that a token made for the very user responsible for it, whatever the policy: they would let
/// themselves in.
pub(super) async fn inviter_must_be_another(
    work: &mut Work<'_>,
    invited_by: &Actor,
    recipient: &UserId,
) -> Result<(), Stop> {
    if let Actor::Token(token) = invited_by
        && tokens::person_behind(&work.load::<ApiToken>(token).await?.state) == Some(recipient)
    {
        let message = "an API token of your own made this invitation: ask a member for another one";
        return Err(Refusal::InvalidState(message.into()).into());
    }
    Ok(())
}

async fn is_let_in(work: &mut Work<'_>, user: &UserId) -> Result<bool, LogError> {
    Ok(work.load::<User>(user).await?.state.state == UserState::Active)
}

/// Whether API tokens of `user` rest, because a suspension stands.
async fn rests(work: &mut Work<'_>, id: &OrganizationId, user: &UserId) -> Result<bool, LogError> {
    let membership = work.load::<Membership>(&MembershipId::of(id, user)).await?.state;
    Ok(membership.state == MembershipState::Suspended || membership.barred)
}

/// The membership by which what `user` gave counts, if it does.
async fn counts(
    work: &mut Work<'_>,
    id: &OrganizationId,
    organization: &Organization,
    user: &UserId,
) -> Result<Option<std::sync::Arc<Membership>>, LogError> {
    let let_in = is_let_in(work, user).await?;
    let membership = work.load::<Membership>(&MembershipId::of(id, user)).await?.state;
    let stands = match membership.state {
        MembershipState::Active => true,
        MembershipState::Suspended => false,
        MembershipState::Removed => organization.keeps_invitations_of_removed_members() && !membership.barred,
    };
    Ok(Some(membership).filter(|_| let_in && stands))
}
