//! Commands of invitations.

use aggregates::ids::{InvitationId, MembershipId, OrganizationId};
use aggregates::invitation::{InvitationCommand, InvitationState, Recipient};
use aggregates::membership::{MembershipCommand, MembershipSource};
use aggregates::roles::Permission;
use aggregates::status::Capability;
use aggregates::{Digest, Invitation, Membership, Organization, Refusal, text};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::standing::Standing;
use super::work::{Entity, Stop, Work};
use super::{Fault, UseCase, grants, later, ownership, sole};
use crate::log::{KeyRing, Loaded};

/// How the token of an invitation begins, so that scanners can find leaked ones.
pub const TOKEN_PREFIX: &str = "tni_";

/// Why an invitation is not accepted whose inviter could not make it any more.
const VOID: &str = "the inviter may not give you these roles any more: ask for another invitation";
/// Why it is not made then.
const NOBODY_IN: &str =
    "the user responsible for this API token is no active member any more: its invitations could not be accepted";
/// Why it is not sent again then.
const NOT_AGAIN: &str = "the inviter may not give these roles any more: revoke the invitation, and invite anew";
/// Why an invitation from before the end of a membership is not accepted.
const OLDER: &str = "this invitation is older than the end of your membership: ask for another one";

/// The invitation that a token is for; what is no token is for none.
pub fn invitation_of_token(token: &str) -> Option<InvitationId> {
    let (id, secret) = token.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    (secret.len() == 43).then(|| format!("inv_{id}").parse().ok())?
}

/// A new token for an invitation: its id, and 256 random bits.
fn new_token(invitation: &InvitationId) -> String {
    let id = invitation.as_ref().trim_start_matches("inv_");
    format!("{TOKEN_PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// A token as it is kept: a keyed hash.
pub fn token_digest(keys: &KeyRing, token: &str) -> Digest {
    keys.digest(&["invitation token", token])
}

/// An address as claims and comparisons know it.
pub fn email_claim(keys: &KeyRing, address: &str) -> Digest {
    keys.digest(&["e-mail address", &text::email_key(address)])
}

/// Invites an address.
#[derive(Debug, Serialize)]
pub struct InviteMember {
    /// To which organization.
    pub organization: OrganizationId,
    /// The address.
    pub email: String,
    /// With which roles.
    pub roles: Vec<String>,
    /// For how long, in hours.
    pub expires_in_hours: Option<i64>,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for InviteMember {
    const OPERATION: &'static str = "inviteMember";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let rights =
            standing.require(work, Some(Capability::AddMembers), Permission::MemberInvite, self.reason.as_deref())?;
        let by = work.caller()?.actor(rights.operator);
        // What nobody could accept is not sent: the token of somebody who is out.
        let place = &standing.organization.state;
        if grants::present_grantor(work, &self.organization, place, &by).await?.is_none() {
            return Err(Refusal::InvalidState(NOBODY_IN.to_owned()).into());
        }
        let (default, max) = (work.rules().invitation_hours_default, work.rules().invitation_hours_max);
        let hours = self.expires_in_hours.unwrap_or(default);
        if !(1..=max).contains(&hours) {
            return Err(Refusal::input("expiresInHours", format!("expiresInHours is {hours}: give 1 to {max}")).into());
        }
        let (id, before) = work.create::<Invitation>().await?;
        let token = new_token(&id);
        let keys = work.log().keys();
        let (email_claim, token_digest) = (email_claim(keys, &self.email), token_digest(keys, &token));
        let events = before.state.decide(InvitationCommand::Invite {
            id: id.clone(),
            email: self.email.clone(),
            email_claim,
            token: token_digest,
            roles: self.roles.clone(),
            invited_by: by,
            by: rights.grantor,
            expires_at: later(work.now, chrono::Duration::hours(hours)),
            reason: self.reason.clone(),
            at: work.now,
        })?;
        finish(work, id, &before, events);
        work.secret_to_show = Some(token);
        Ok(())
    }
}

/// Sends an invitation again: a new token, a new end; the old token is dead.
#[derive(Debug, Serialize)]
pub struct ResendInvitation {
    /// Which invitation.
    pub invitation: InvitationId,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for ResendInvitation {
    const OPERATION: &'static str = "resendInvitation";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let (invitation, standing) = visible(work, &self.invitation).await?;
        let reason = self.reason.as_deref();
        let rights = standing.require(work, Some(Capability::AddMembers), Permission::MemberInvite, reason)?;
        work.expect_version(invitation.version)?;
        // What nobody could accept is not sent again.
        let (place, state) = (&standing.organization.state, &invitation.state);
        if state.state_at(work.now) == InvitationState::Pending {
            let (id, roles) = (&standing.id, &state.roles);
            grants::inviter_must_still_give(work, id, place, &state.invited_by, roles, NOT_AGAIN).await?;
        }
        let token = new_token(&self.invitation);
        let events = invitation.state.decide(InvitationCommand::Resend {
            token: token_digest(work.log().keys(), &token),
            by: rights.grantor,
            expires_at: later(work.now, chrono::Duration::hours(work.rules().invitation_hours_default)),
            reason: self.reason.clone(),
            at: work.now,
        })?;
        finish(work, self.invitation.clone(), &invitation, events);
        work.secret_to_show = Some(token);
        Ok(())
    }
}

/// Takes an invitation back.
#[derive(Debug, Serialize)]
pub struct RevokeInvitation {
    /// Which invitation.
    pub invitation: InvitationId,
    /// Why.
    pub reason: Option<String>,
}

impl UseCase for RevokeInvitation {
    const OPERATION: &'static str = "revokeInvitation";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let (invitation, standing) = visible(work, &self.invitation).await?;
        let reason = self.reason.as_deref();
        standing.require(work, Some(Capability::RemoveMembers), Permission::MemberInvite, reason)?;
        work.expect_version(invitation.version)?;
        let command = InvitationCommand::Revoke { reason: self.reason.clone(), at: work.now };
        let events = invitation.state.decide(command)?;
        finish(work, self.invitation.clone(), &invitation, events);
        Ok(())
    }
}

/// By what an invited person names the invitation.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub enum By {
    /// The token that was sent.
    Token(String),
    /// The id, as the viewer's own invitations show it.
    Id(InvitationId),
}

/// Without the token.
impl std::fmt::Debug for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Id(id) => f.debug_tuple("Id").field(id).finish(),
        }
    }
}

/// Joins by an invitation.
#[derive(Debug, Serialize)]
pub struct AcceptInvitation {
    /// Which invitation.
    pub by: By,
}

impl UseCase for AcceptInvitation {
    const OPERATION: &'static str = "acceptInvitation";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let Invited { id, invitation, organization, recipient } = invited(work, &self.by).await?;
        let membership_id = MembershipId::of(&organization, &recipient.user);
        let membership = work.load::<Membership>(&membership_id).await?;
        let command = InvitationCommand::Accept {
            recipient: recipient.clone(),
            membership: membership_id.clone(),
            member_already: membership.state.is_active(),
            at: work.now,
        };
        let accepted = invitation.state.decide(command)?;
        let (joined, place) = if accepted.is_empty() {
            (vec![], None)
        } else {
            let place = require(work, &organization, Capability::AcceptInvitations).await?;
            let roles = &place.state.roles;
            let invited_by = &invitation.state.invited_by;
            grants::inviter_must_be_another(work, invited_by, &recipient.user).await?;
            if let Some(gone) = invitation.state.roles.iter().find(|role| !roles.has(role)) {
                let message = format!("the role '{gone}' of this invitation is no more: ask for another invitation");
                return Err(Refusal::InvalidState(message).into());
            }
            let promised = &invitation.state.roles;
            let by =
                grants::inviter_must_still_give(work, &organization, &place.state, invited_by, promised, VOID).await?;
            must_be_newer(work, &id, &membership_id, &membership).await?;
            let joined = membership.state.decide(MembershipCommand::Join {
                user: recipient.user.clone(),
                roles: invitation.state.roles.clone(),
                source: MembershipSource::Invitation,
                invitation: Some(id.clone()),
                by,
                reason: None,
                at: work.now,
            })?;
            (sole::bind(work, &organization, &membership, joined).await?, Some(place))
        };
        finish(work, id, &invitation, accepted);
        let after = work.record(&membership_id, &membership, joined);
        if let Some(place) = place {
            // A user who becomes an owner by an invitation has no ownership to accept any more.
            ownership::end_void_offer(work, &organization, &place, Some(&recipient.user), &after.state)?;
        }
        work.entities.push(Entity::new(membership_id, after));
        Ok(())
    }
}

/// Turns an invitation down.
#[derive(Debug, Serialize)]
pub struct DeclineInvitation {
    /// Which invitation.
    pub by: By,
}

impl UseCase for DeclineInvitation {
    const OPERATION: &'static str = "declineInvitation";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let Invited { id, invitation, recipient, .. } = invited(work, &self.by).await?;
        let events = invitation.state.decide(InvitationCommand::Decline { recipient, at: work.now })?;
        finish(work, id, &invitation, events);
        Ok(())
    }
}

/// Refuses an invitation that was made before the invited person's last membership ended: it would undo the removal.
/// Sending it again makes it no newer, because that grants nothing.
async fn must_be_newer(
    work: &Work<'_>,
    id: &InvitationId,
    membership_id: &MembershipId,
    membership: &Loaded<Membership>,
) -> Result<(), Stop> {
    if membership.version == 0 {
        return Ok(());
    }
    let made = work.log().last_of(&id.clone().into(), &["MemberInvited"]).await?;
    let ended = work.log().last_of(&membership_id.clone().into(), &["MemberRemoved", "MemberLeft"]).await?;
    if made > ended { Ok(()) } else { Err(Refusal::InvalidState(OLDER.to_owned()).into()) }
}

struct Invited {
    id: InvitationId,
    invitation: Loaded<Invitation>,
    organization: OrganizationId,
    recipient: Recipient,
}

/// The invitation that the caller names, for its recipient. By id alone, who is not the recipient learns nothing.
async fn invited(work: &mut Work<'_>, by: &By) -> Result<Invited, Stop> {
    let caller = work.person()?;
    let (id, token) = match by {
        By::Id(id) => (id.clone(), None),
        By::Token(token) => {
            let id = invitation_of_token(token).ok_or(Fault::NotFound)?;
            (id, Some(token_digest(work.log().keys(), token)))
        }
    };
    let invitation = work.load::<Invitation>(&id).await?;
    let (Some(organization), Some(invited)) = (invitation.organization.clone(), &invitation.state.email_claim) else {
        return Err(Fault::NotFound.into());
    };
    let email_claim = caller.email.as_deref().map(|email| email_claim(work.log().keys(), email));
    let own = email_claim.as_ref().is_some_and(|own| own.matches(invited));
    let dead =
        token.as_ref().zip(invitation.state.token_digest.as_ref()).is_some_and(|(one, other)| !one.matches(other));
    if dead || (token.is_none() && !own) {
        return Err(Fault::NotFound.into());
    }
    let recipient = Recipient { user: caller.user.clone(), email_claim, token };
    work.organization = Some(organization.clone());
    Ok(Invited { id, invitation, organization, recipient })
}

/// Requires a capability of an organization that the caller need not see yet.
async fn require(
    work: &mut Work<'_>,
    organization: &OrganizationId,
    capability: Capability,
) -> Result<Loaded<Organization>, Stop> {
    let loaded = work.load::<Organization>(organization).await?;
    let status = loaded.state.status;
    if !loaded.state.is_present() {
        return Err(Fault::NotFound.into());
    }
    if status.allows(capability, false) { Ok(loaded) } else { Err(Refusal::EntityStatus { status, capability }.into()) }
}

/// An invitation that the caller sees as one of the organization's.
async fn visible(work: &mut Work<'_>, id: &InvitationId) -> Result<(Loaded<Invitation>, Standing), Stop> {
    let invitation = work.load::<Invitation>(id).await?;
    let standing = Standing::of_owner(work, invitation.organization.as_ref(), id.as_ref()).await?;
    if !standing.may(Permission::InvitationRead) && !standing.operator {
        return Err(Fault::NotFound.into());
    }
    Ok((invitation, standing))
}

fn finish(
    work: &mut Work<'_>,
    id: InvitationId,
    before: &Loaded<Invitation>,
    events: Vec<aggregates::invitation::InvitationEvent>,
) {
    let after = work.record(&id, before, events);
    work.entities = vec![Entity::new(id, after)];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Receipt;

    #[test]
    fn no_debug_output_shows_a_secret() {
        let receipt = Receipt { secret: Some("tni_secret".into()), ..Receipt::default() };
        let shown = format!("{receipt:?} {:?}", AcceptInvitation { by: By::Token("tni_secret".into()) });
        assert!(!shown.contains("tni_secret"), "{shown}");
    }
}
