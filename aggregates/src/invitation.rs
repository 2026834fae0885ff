//! An invitation: an address is asked to join, by a token that is shown once. Exactly one ending wins.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::error::Refusal;
use crate::event::shown;
use crate::guard::{Effect, Scope, Taken};
use crate::ids::{EventId, InvitationId, MembershipId, UserId};
use crate::membership::{Grantor, MEMBERS};
use crate::personal::{Digest, Erasure, Personal};
use crate::resource::{Change, Limit, Place, Resource};
use crate::roles::RoleScope;
use crate::{aggregate, text};

/// Where an invitation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InvitationState {
    /// Open.
    #[default]
    Pending,
    /// Accepted.
    Accepted,
    /// Declined by the invited person.
    Declined,
    /// Taken back.
    Revoked,
    /// Past its time.
    Expired,
}

crate::events! {
    /// What can happen to an invitation.
    pub enum InvitationEvent {
        /// An address was invited; the seat is kept for it.
        MemberInvited "1.0" {
            /// The invited address.
            email: Personal,
            /// The address as a keyed hash: one open invitation an address.
            email_claim: Digest,
            /// The token as a keyed hash.
            token_digest: Digest,
            /// The roles that the person will have.
            roles: Vec<String>,
            /// Where they hold; none is the whole organization.
            #[serde(default, skip_serializing_if = "RoleScope::is_organization")]
            scope: RoleScope,
            /// The actor who invited.
            invited_by: Actor,
            /// Until when it can be accepted.
            expires_at: DateTime<Utc>,
            /// When it was created.
            created_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The invitation was sent again with a new token; the old one is dead.
        InvitationResent "1.0" {
            /// The address as a keyed hash.
            email_claim: Digest,
            /// The new token as a keyed hash.
            token_digest: Digest,
            /// Until when it can be accepted.
            expires_at: DateTime<Utc>,
            /// Until when it could be accepted before.
            previous_expires_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// A role of the organization's own ended, and the person will have another one.
        InvitationRolesChanged "1.0" {
            /// The roles that the person will have.
            roles: Vec<String>,
            /// The roles before.
            previous_roles: Vec<String>,
            /// Where they hold; none is the whole organization.
            #[serde(default, skip_serializing_if = "RoleScope::is_organization")]
            scope: RoleScope,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The invited person joined.
        InvitationAccepted "1.0" {
            /// The address as a keyed hash.
            email_claim: Digest,
            /// The user who accepted.
            user_id: UserId,
            /// The membership that came of it.
            membership_id: MembershipId,
            /// Whether the seat that was kept is free again, because the person was in already; else it went over.
            seat_freed: bool,
        }
        /// The invited person does not want to join.
        InvitationDeclined "1.0" {
            /// The address as a keyed hash.
            email_claim: Digest,
            /// The user who declined.
            user_id: UserId,
        }
        /// The invitation was taken back.
        InvitationRevoked "1.0" {
            /// The address as a keyed hash.
            email_claim: Digest,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The invitation's time is over; the seat is free.
        InvitationExpired "1.0" {
            /// The address as a keyed hash.
            email_claim: Digest,
            /// Until when it could be accepted.
            expires_at: DateTime<Utc>,
        }
        /// The invited person was erased: the key of the address is destroyed with this event.
        InviteeErased "1.0" {
            /// The address as a keyed hash.
            email_claim: Digest,
            /// Why, where an operator named this invitation. It is the operator's text and under the operator's key.
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

impl InvitationEvent {
    /// Which claims and tallies this event changes: the address and the seat are taken while it is open.
    pub fn effects(&self) -> Vec<Effect> {
        use InvitationEvent as E;
        let claim = |email: &Digest, until: &DateTime<Utc>| Effect::Claim {
            scope: Invitation::ADDRESS,
            key: email.0.clone(),
            until: Some(*until),
        };
        let release = |email: &Digest| Effect::Release { scope: Invitation::ADDRESS, key: email.0.clone() };
        match self {
            E::MemberInvited { email_claim, expires_at, .. } => {
                vec![claim(email_claim, expires_at), Effect::tally(MEMBERS, 1)]
            }
            E::InvitationResent { email_claim, expires_at, .. } => vec![claim(email_claim, expires_at)],
            E::InvitationRolesChanged { .. } | E::InviteeErased { .. } => vec![],
            E::InvitationAccepted { email_claim, seat_freed: false, .. } => vec![release(email_claim)],
            E::InvitationAccepted { email_claim, seat_freed: true, .. }
            | E::InvitationDeclined { email_claim, .. }
            | E::InvitationRevoked { email_claim, .. }
            | E::InvitationExpired { email_claim, .. } => vec![release(email_claim), Effect::tally(MEMBERS, -1)],
        }
    }
}

/// What is known of an invitation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Invitation {
    /// Its id; `None` before it was created.
    pub id: Option<InvitationId>,
    /// The invited address.
    pub email: Option<Personal>,
    /// The address as a keyed hash.
    pub email_claim: Option<Digest>,
    /// The living token as a keyed hash.
    pub token_digest: Option<Digest>,
    /// The roles that the person will have.
    pub roles: Vec<String>,
    /// The actor who invited.
    pub invited_by: Actor,
    /// Where it stands, as recorded; see [`Invitation::state_at`].
    pub state: InvitationState,
    /// The user who accepted.
    pub accepted_by: Option<UserId>,
    /// Whether the invited person was erased.
    pub erased: bool,
    /// Until when it can be accepted.
    pub expires_at: DateTime<Utc>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// By what somebody shows that the invitation is theirs.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipient {
    /// The user.
    pub user: UserId,
    /// Their verified address, as a keyed hash.
    pub email_claim: Option<Digest>,
    /// The token, as a keyed hash, where they came by it.
    pub token: Option<Digest>,
}

/// What can be asked of an invitation.
#[derive(Debug, Clone, PartialEq)]
pub enum InvitationCommand {
    /// Invite an address.
    Invite {
        /// The invitation's id.
        id: InvitationId,
        /// The address.
        email: String,
        /// The address as a keyed hash.
        email_claim: Digest,
        /// The token as a keyed hash.
        token: Digest,
        /// The roles that the person will have.
        roles: Vec<String>,
        /// The actor who invites.
        invited_by: Actor,
        /// What the inviting person may grant.
        by: Grantor,
        /// Until when it can be accepted.
        expires_at: DateTime<Utc>,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Send it again.
    Resend {
        /// The new token as a keyed hash.
        token: Digest,
        /// What the caller may grant.
        by: Grantor,
        /// Until when it can be accepted.
        expires_at: DateTime<Utc>,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Promise another role instead of one that ends.
    ReplaceRole {
        /// The role that ends.
        role: String,
        /// The role instead.
        with: String,
        /// By whom.
        by: Grantor,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Take it back.
    Revoke {
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Join.
    Accept {
        /// The recipient.
        recipient: Recipient,
        /// The membership that comes of it.
        membership: MembershipId,
        /// Whether the person is in already.
        member_already: bool,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Turn it down.
    Decline {
        /// The recipient.
        recipient: Recipient,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Record that its time is over.
    Expire {
        /// Now.
        at: DateTime<Utc>,
    },
    /// Erase the invited person; an open invitation ends with that.
    Erase {
        /// What is recorded with it; nothing where it follows from another erasure.
        erasure: Erasure,
        /// Now.
        at: DateTime<Utc>,
    },
}

impl Invitation {
    /// Open invitations of one organization, by keyed hash of the address.
    pub const ADDRESS: Scope = Scope::of_organization(
        "open_invitation",
        Taken::Exists("email", "this address has an open invitation already: resend or revoke it"),
    );

    /// Where it stands at `now`: an open invitation past its time reads as expired before that is recorded.
    pub fn state_at(&self, now: DateTime<Utc>) -> InvitationState {
        match self.state {
            InvitationState::Pending if self.expires_at <= now => InvitationState::Expired,
            state => state,
        }
    }

    /// The events that `command` makes of this state.
    pub fn decide(&self, command: InvitationCommand) -> Result<Vec<InvitationEvent>, Refusal> {
        use InvitationCommand as C;
        use InvitationEvent as E;
        if let C::Invite { .. } = command {
            return self.invite(command);
        }
        let (Some(id), Some(email_claim)) = (&self.id, self.email_claim.clone()) else { return Err(Refusal::NotFound) };
        match command {
            C::Invite { .. } => unreachable!("answered above"),
            C::Resend { token, by, expires_at, reason, at } => {
                self.must_be_pending(at)?;
                by.may_grant(&self.roles)?;
                let previous_expires_at = self.expires_at;
                let reason = about(id, reason)?;
                Ok(vec![E::InvitationResent {
                    email_claim,
                    token_digest: token,
                    expires_at,
                    previous_expires_at,
                    reason,
                }])
            }
            C::ReplaceRole { role, with, by, reason, at } => {
                self.must_be_pending(at)?;
                let kept = self.roles.iter().filter(|promised| **promised != role).cloned();
                let roles = by.own_roles.normal(&kept.chain([with]).collect::<Vec<_>>())?;
                let previous_roles = self.roles.clone();
                Ok(vec![E::InvitationRolesChanged {
                    roles,
                    previous_roles,
                    scope: RoleScope::Organization,
                    reason: about(id, reason)?,
                }])
            }
            C::Revoke { reason, at } => {
                self.must_be_pending(at)?;
                Ok(vec![E::InvitationRevoked { email_claim, reason: about(id, reason)? }])
            }
            C::Accept { recipient, membership, member_already, at } => {
                self.must_be_for(&recipient)?;
                if self.state == InvitationState::Accepted && self.accepted_by.as_ref() == Some(&recipient.user) {
                    return Ok(vec![]);
                }
                self.must_be_pending(at)?;
                Ok(vec![E::InvitationAccepted {
                    email_claim,
                    user_id: recipient.user,
                    membership_id: membership,
                    seat_freed: member_already,
                }])
            }
            C::Decline { recipient, at } => {
                self.must_be_for(&recipient)?;
                self.must_be_pending(at)?;
                Ok(vec![E::InvitationDeclined { email_claim, user_id: recipient.user }])
            }
            C::Expire { at } => match (self.state, self.state_at(at)) {
                (InvitationState::Pending, InvitationState::Expired) => {
                    Ok(vec![E::InvitationExpired { email_claim, expires_at: self.expires_at }])
                }
                _ => Err(Refusal::InvalidState("the invitation is not past its time".into())),
            },
            C::Erase { erasure, at } => self.erase(email_claim, erasure, at),
        }
    }

    fn invite(&self, command: InvitationCommand) -> Result<Vec<InvitationEvent>, Refusal> {
        let InvitationCommand::Invite { id, email, email_claim, token, roles, invited_by, by, expires_at, reason, at } =
            command
        else {
            unreachable!("called for Invite only");
        };
        if let Some(id) = &self.id {
            let message = "this invitation exists already".to_owned();
            return Err(Refusal::AlreadyExists { path: "email", message, existing: id.to_string() });
        }
        let roles = by.own_roles.normal(&roles)?;
        by.may_grant(&roles)?;
        let email = Personal::new(id.as_ref(), text::email("email", &email)?);
        let reason = about(&id, reason)?;
        Ok(vec![InvitationEvent::MemberInvited {
            scope: RoleScope::Organization,
            email,
            email_claim,
            token_digest: token,
            roles,
            invited_by,
            expires_at,
            created_at: at,
            reason,
        }])
    }

    /// Ends an open invitation, and erases what it says of its invitee.
    fn erase(&self, email_claim: Digest, erasure: Erasure, at: DateTime<Utc>) -> Result<Vec<InvitationEvent>, Refusal> {
        if self.erased {
            return Ok(vec![]);
        }
        let reason = text::reason_of_operator(erasure.because)?;
        let ended = match (self.state, self.state_at(at)) {
            (InvitationState::Pending, InvitationState::Pending) => {
                Some(InvitationEvent::InvitationRevoked { email_claim: email_claim.clone(), reason: None })
            }
            (InvitationState::Pending, _) => {
                let expires_at = self.expires_at;
                Some(InvitationEvent::InvitationExpired { email_claim: email_claim.clone(), expires_at })
            }
            _ => None,
        };
        let erased = InvitationEvent::InviteeErased {
            email_claim,
            reason,
            named_in: erasure.named_in,
            named_in_more: erasure.named_in_more,
            first_erased_at: erasure.first_at,
        };
        Ok(ended.into_iter().chain([erased]).collect())
    }

    fn must_be_pending(&self, at: DateTime<Utc>) -> Result<(), Refusal> {
        match self.state_at(at) {
            InvitationState::Pending => Ok(()),
            state => Err(Refusal::InvitationNotPending(state)),
        }
    }

    /// A dead token reads as one that never was; a living one in other hands says only that it is not theirs.
    fn must_be_for(&self, recipient: &Recipient) -> Result<(), Refusal> {
        if let (Some(given), Some(living)) = (&recipient.token, &self.token_digest)
            && !given.matches(living)
        {
            return Err(Refusal::NotFound);
        }
        match (&recipient.email_claim, &self.email_claim) {
            (Some(own), Some(invited)) if own.matches(invited) => Ok(()),
            _ => Err(Refusal::WrongRecipient),
        }
    }

    fn apply(&mut self, event: InvitationEvent) {
        use InvitationEvent as E;
        match event {
            E::MemberInvited {
                email,
                email_claim,
                token_digest,
                roles,
                scope: RoleScope::Organization,
                invited_by,
                expires_at,
                created_at,
                ..
            } => {
                *self = Self {
                    id: email.of().parse().ok(),
                    email: Some(email),
                    email_claim: Some(email_claim),
                    token_digest: Some(token_digest),
                    roles,
                    invited_by,
                    state: InvitationState::Pending,
                    accepted_by: None,
                    erased: false,
                    expires_at,
                    created_at,
                };
            }
            E::InvitationResent { token_digest, expires_at, .. } => {
                self.token_digest = Some(token_digest);
                self.expires_at = expires_at;
            }
            E::InvitationRolesChanged { roles, scope: RoleScope::Organization, .. } => self.roles = roles,
            E::InvitationAccepted { user_id, .. } => {
                self.state = InvitationState::Accepted;
                self.accepted_by = Some(user_id);
            }
            E::InvitationDeclined { .. } => self.state = InvitationState::Declined,
            E::InvitationRevoked { .. } => self.state = InvitationState::Revoked,
            E::InvitationExpired { .. } => self.state = InvitationState::Expired,
            E::InviteeErased { .. } => {
                self.email = None;
                self.erased = true;
            }
        }
    }
}

/// A reason is about the invited person.
fn about(id: &InvitationId, reason: Option<String>) -> Result<Option<Personal>, Refusal> {
    Ok(text::reason("reason", reason.as_deref())?.map(|reason| Personal::new(id.as_ref(), reason)))
}

impl Resource for Invitation {
    const PLACE: Place = Place::WithinOrganization;
    const LIMIT: Option<Limit> = None;
    const CLAIMS: &'static [Scope] = &[Self::ADDRESS];
    const HAS_KEY: bool = true;
    const DECIDES_ACCESS: bool = false;
    const HEADING: Option<&'static str> = Some("invitations");

    fn destroys_key(event: &InvitationEvent) -> bool {
        matches!(event, InvitationEvent::InviteeErased { .. })
    }

    fn expiry(at: DateTime<Utc>) -> Option<InvitationCommand> {
        Some(InvitationCommand::Expire { at })
    }

    fn purge(_: DateTime<Utc>) -> Option<InvitationCommand> {
        None
    }

    fn change(event: &InvitationEvent) -> Change {
        use Change as C;
        use InvitationEvent as E;
        match event {
            E::MemberInvited { .. } => C::Create,
            E::InvitationResent { .. } | E::InvitationRolesChanged { .. } => C::Update,
            E::InvitationAccepted { .. } => C::Other("Accept"),
            E::InvitationDeclined { .. } => C::Other("Decline"),
            E::InvitationRevoked { .. } | E::InvitationExpired { .. } => C::Deactivate,
            E::InviteeErased { .. } => C::Other("Erase"),
        }
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn facts(&self, at: DateTime<Utc>) -> Vec<(&'static str, String)> {
        vec![
            ("roles", self.roles.join(", ")),
            ("state", shown(self.state_at(at))),
            ("expires", self.expires_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
        ]
    }

    fn document_bytes(&self) -> usize {
        0
    }
}

aggregate!(Invitation, "Invitation", InvitationCommand, InvitationEvent, shape 2, personal [email]);
