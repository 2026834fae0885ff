//! The steps that follow an erasure, each a command in a partition of its own.

use aggregates::ids::{InvitationId, MembershipId, OrganizationId, UserId};
use aggregates::invitation::InvitationCommand;
use aggregates::membership::{Grantor, MembershipCommand, MembershipState};
use aggregates::organization::OrganizationCommand;
use aggregates::user::UserCommand;
use aggregates::{Digest, Erasure, Invitation, Membership, Organization, Refusal, User};
use serde::Serialize;

use super::traces::Known;
use crate::commands::departures::Ended;
use crate::commands::invitations::email_claim;
use crate::commands::work::{Stop, Work};
use crate::commands::{UseCase, departures, ownership};

/// Ends a membership of somebody who was erased, with what ends when a member is removed.
#[derive(Debug, Serialize)]
pub(super) struct EndMembership {
    pub organization: OrganizationId,
    pub user: UserId,
}

impl UseCase for EndMembership {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.organization = Some(self.organization.clone());
        let id = MembershipId::of(&self.organization, &self.user);
        work.log().warm(&[self.organization.clone().into(), id.clone().into()]).await?;
        let organization = work.load::<Organization>(&self.organization).await?;
        let before = work.load::<Membership>(&id).await?;
        if before.state.state == MembershipState::Removed || !organization.state.is_present() {
            return Ok(());
        }
        let by = Grantor::unbounded().knowing(&organization.state.roles);
        let events = before.state.decide(MembershipCommand::Remove { reason: None, by })?;
        let after = work.record(&id, &before, events);
        let (id, user) = (&self.organization, Some(&self.user));
        ownership::end_void_offer(work, id, &organization, user, &after.state)?;
        let ended = Ended { by_member: Some("who invited was erased"), to_member: "the invited person was erased" };
        departures::revoke_invitations(work, id, &organization, user, ended).await?;
        departures::revoke_tokens(work, id, &organization, user, "who answers for it was erased").await
    }
}

/// Clears the contact address of an organization where it is one of somebody who was erased.
#[derive(Debug, Serialize)]
pub(super) struct ClearContact {
    pub organization: OrganizationId,
    pub user: UserId,
    pub email_claims: Vec<Digest>,
}

impl UseCase for ClearContact {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.organization = Some(self.organization.clone());
        let before = work.load::<Organization>(&self.organization).await?;
        let keys = work.log().keys();
        let is_theirs = before.state.contact_email.as_ref().is_some_and(|contact| {
            let claim = contact.value().map(|address| email_claim(keys, address));
            let known = claim.is_some_and(|claim| self.email_claims.iter().any(|own| own.matches(&claim)));
            known || contact.of() == self.user.as_ref()
        });
        if is_theirs && before.state.is_present() {
            let events = before.state.decide(OrganizationCommand::ClearContact)?;
            work.record(&self.organization, &before, events);
        }
        Ok(())
    }
}

/// Records an erasure anew of which the log says nothing: the database was restored, and the person is on the list.
#[derive(Debug, Serialize)]
pub(super) struct EraseUserAgain {
    pub user: UserId,
    #[serde(skip)]
    pub erasure: Erasure,
}

impl UseCase for EraseUserAgain {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let before = work.load::<User>(&self.user).await?;
        if before.version > 0 {
            let known = Known::of(&work.log().history(&self.user.clone().into()).await?, before.version);
            let email_claims = known.claims(work.log().keys());
            let erasure = self.erasure.clone();
            let events = before.state.decide(UserCommand::Erase { email_claims, erasure })?;
            work.record(&self.user, &before, events);
        }
        Ok(())
    }
}

/// Erases what an invitation says of its invitee, unless its organization is held: what is held stays, also where the
/// hold came after the erasure. A person erased before a database was restored is erased in spite of a hold.
#[derive(Debug, Serialize)]
pub(super) struct EraseInvitee {
    pub invitation: InvitationId,
    /// What was recorded of it before the database was restored.
    #[serde(skip)]
    pub again: Option<Erasure>,
}

impl UseCase for EraseInvitee {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let before = work.load::<Invitation>(&self.invitation).await?;
        let Some(organization) = before.organization.clone() else { return Ok(()) };
        work.organization = Some(organization.clone());
        let events = before
            .state
            .decide(InvitationCommand::Erase { erasure: self.again.clone().unwrap_or_default(), at: work.now })?;
        if !events.is_empty()
            && self.again.is_none()
            && work.load::<Organization>(&organization).await?.state.legal_hold.is_some()
        {
            return Err(Refusal::InvalidState("a legal hold stands on the organization".into()).into());
        }
        work.record(&self.invitation, &before, events);
        Ok(())
    }
}
