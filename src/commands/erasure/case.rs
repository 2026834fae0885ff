//! The command by which an operator erases somebody.

use aggregates::ids::{InvitationId, UserId};
use aggregates::invitation::InvitationCommand;
use aggregates::personal::readable;
use aggregates::user::{UserCommand, UserEvent, UserState};
use aggregates::{Digest, Event, Invitation, Organization, Personal, Recorded, Refusal, User};
use serde::Serialize;

use super::needed::must_not_be_needed;
use crate::commands::invitations::email_claim;
use crate::commands::work::{Entity, Stop, Work};
use crate::commands::{Fault, UseCase};

/// How many addresses of a person are remembered.
const ADDRESSES_MAX: usize = 100;

/// Erases a user, or whom an invitation was for.
#[derive(Debug, Serialize)]
pub struct EraseSubject {
    /// The user.
    pub user: Option<UserId>,
    /// The invitation.
    pub invitation: Option<InvitationId>,
    /// Why.
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
        let known = known_of(work.log().history(&id.clone().into()).await?, before.version);
        let email_claims = claims_of(work.log().keys(), &known.addresses);
        must_not_be_needed(work, Some(id), &email_claims).await?;
        let because = Some((operator, without(reason, &known)));
        let events = before.state.decide(UserCommand::Erase { email_claims, because })?;
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
    must_not_be_needed(work, None, &[claim]).await?;
    let addresses = readable(&before.state.email).map(str::to_owned).into_iter().collect();
    let known = Known { addresses, others: vec![] };
    let because = Some((work.person()?.user.clone(), without(reason, &known)));
    let events = before.state.decide(InvitationCommand::Erase { because, at: work.now })?;
    let after = work.record(id, &before, events);
    work.entities = vec![Entity::new(id.clone(), after)];
    Ok(())
}

/// What can be read of a person.
#[derive(Default)]
pub(super) struct Known {
    pub addresses: Vec<String>,
    /// Names, and the ids at issuers.
    others: Vec<String>,
}

/// What the log says of a user, up to this version.
pub(super) fn known_of(history: Vec<Recorded>, version: u64) -> Known {
    let mut known = Known::default();
    let mut add = |list: fn(&mut Known) -> &mut Vec<String>, personal: Option<&Personal>| {
        let list = list(&mut known);
        if let Some(text) = personal.and_then(Personal::value)
            && list.len() < ADDRESSES_MAX
            && !list.iter().any(|known| known == text)
        {
            list.push(text.to_owned());
        }
    };
    for recorded in history.iter().filter(|recorded| recorded.sequence <= version).rev() {
        let Event::User(event) = &recorded.event else { continue };
        match event {
            UserEvent::UserRegistered { subject, email, display_name, .. } => {
                add(|known| &mut known.addresses, email.as_ref());
                add(|known| &mut known.others, display_name.as_ref());
                add(|known| &mut known.others, Some(subject));
            }
            UserEvent::UserProfileChanged { email, display_name, .. } => {
                add(|known| &mut known.addresses, email.as_ref());
                add(|known| &mut known.others, display_name.as_ref());
            }
            UserEvent::UserHeld { .. }
            | UserEvent::UserApproved { .. }
            | UserEvent::UserRevoked { .. }
            | UserEvent::UserReinstated { .. }
            | UserEvent::UserErased { .. } => {}
        }
    }
    known
}

pub(super) fn claims_of(keys: &crate::log::KeyRing, addresses: &[String]) -> Vec<Digest> {
    addresses.iter().map(|address| email_claim(keys, address)).collect()
}

/// The reason without what it says of the person: it is the only text about them that stays.
fn without(reason: &str, known: &Known) -> String {
    let mut reason = reason.to_owned();
    for text in known.addresses.iter().chain(&known.others).filter(|text| text.chars().count() > 2) {
        let wanted = text.to_ascii_lowercase();
        while let Some(at) = reason.to_ascii_lowercase().find(&wanted) {
            reason.replace_range(at..at + wanted.len(), "…");
        }
    }
    reason
}
