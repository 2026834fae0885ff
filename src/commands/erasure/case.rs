//! The command by which an operator erases somebody.

use aggregates::ids::{InvitationId, UserId};
use aggregates::invitation::InvitationCommand;
use aggregates::personal::readable;
use aggregates::user::{UserCommand, UserState};
use aggregates::{Erasure, Invitation, Organization, Refusal, User};
use serde::Serialize;

use super::needed::{invitations_to, must_not_be_needed};
use super::traces::{Known, look, names_nobody};
use crate::commands::work::{Entity, Stop, Work};
use crate::commands::{Fault, UseCase};

/// Erases a user, or whom an invitation was for.
#[derive(Debug, Serialize)]
pub struct EraseSubject {
    /// The user.
    pub user: Option<UserId>,
    /// The invitation.
    pub invitation: Option<InvitationId>,
    /// Why. It stays, so it must not name the person.
    pub reason: String,
}

impl UseCase for EraseSubject {
    const OPERATION: &'static str = "eraseSubject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.require_operator(&self.reason)?;
        match (&self.user, &self.invitation) {
            (Some(user), _) => erase_user(work, user, &self.reason).await,
            (None, Some(invitation)) => erase_invitee(work, invitation, &self.reason).await,
            (None, None) => Err(Fault::NotFound.into()),
        }
    }
}

async fn erase_user(work: &mut Work<'_>, id: &UserId, reason: &str) -> Result<(), Stop> {
    let before = work.load::<User>(id).await?;
    if before.version == 0 {
        return Err(Fault::NotFound.into());
    }
    let operator = work.person()?.user.clone();
    if before.state.state != UserState::Erased {
        if *id == operator {
            // The reason would go with the key, and nobody could say why.
            return Err(Refusal::InvalidState("nobody erases their own user: ask another operator".into()).into());
        }
        let known = Known::of(&work.log().history(&id.clone().into()).await?, before.version);
        names_nobody(reason, &known)?;
        let email_claims = known.claims(work.log().keys());
        let places = must_not_be_needed(work, Some(id), &email_claims).await?;
        let invited = invitations_to(work.log(), Some(id), &email_claims).await?;
        let goes = |of: &str| of == id.as_ref() || invited.contains(of);
        let look = look(work.log(), &known, &places, goes).await?;
        let erasure = Erasure { because: Some((operator, reason.to_owned())), ..look };
        let events = before.state.decide(UserCommand::Erase { email_claims, erasure })?;
        let after = work.record(id, &before, events);
        work.entities = vec![Entity::new(id.clone(), after)];
        return Ok(());
    }
    work.entities = vec![Entity::new(id.clone(), before)];
    Ok(())
}

async fn erase_invitee(work: &mut Work<'_>, id: &InvitationId, reason: &str) -> Result<(), Stop> {
    let before = work.load::<Invitation>(id).await?;
    let (Some(organization), Some(claim)) = (before.organization.clone(), before.state.email_claim.clone()) else {
        return Err(Fault::NotFound.into());
    };
    work.organization = Some(organization.clone());
    if !work.load::<Organization>(&organization).await?.state.is_present() {
        return Err(Fault::NotFound.into());
    }
    if before.state.erased {
        work.entities = vec![Entity::new(id.clone(), before)];
        return Ok(());
    }
    let known = Known::at(readable(&before.state.email));
    names_nobody(reason, &known)?;
    let claims = [claim];
    let places = must_not_be_needed(work, None, &claims).await?;
    let invited = invitations_to(work.log(), None, &claims).await?;
    let look = look(work.log(), &known, &places, |of| of == id.as_ref() || invited.contains(of)).await?;
    let erasure = Erasure { because: Some((work.person()?.user.clone(), reason.to_owned())), ..look };
    let events = before.state.decide(InvitationCommand::Erase { erasure, at: work.now })?;
    let after = work.record(id, &before, events);
    work.entities = vec![Entity::new(id.clone(), after)];
    Ok(())
}
