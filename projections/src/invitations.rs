//! Invitations.

use aggregates::Recorded;
use aggregates::invitation::{InvitationEvent, InvitationState};
use aggregates::roles::RoleScope;
use chrono::{DateTime, Utc};

use crate::read_model::{Named, projection_of_rows, read_model};

read_model! {
    invitations of Invitation in organization_id {
        email: Option<String>,
        email_claim: String,
        roles: Vec<String>,
        state: Named<InvitationState>,
        invited_by: String,
        accepted_by: Option<String>,
        expires_at: DateTime<Utc>,
    }
    personal [email]
}

projection_of_rows!();

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &InvitationEvent) {
        use InvitationEvent as E;
        match event {
            E::MemberInvited {
                email,
                email_claim,
                roles,
                scope: RoleScope::Organization,
                invited_by,
                expires_at,
                created_at,
                token_digest: _,
                reason: _,
            } => {
                self.begin(recorded, *created_at);
                self.email = email.value().map(str::to_owned);
                self.email_claim = email_claim.0.clone();
                self.roles = roles.clone();
                self.invited_by = invited_by.to_string();
                self.expires_at = *expires_at;
                self.state = Named(InvitationState::Pending);
            }
            E::InvitationResent { expires_at, .. } => self.expires_at = *expires_at,
            E::InvitationRolesChanged { roles, scope: RoleScope::Organization, .. } => self.roles = roles.clone(),
            E::InvitationAccepted { user_id, .. } => {
                self.state = Named(InvitationState::Accepted);
                self.accepted_by = Some(user_id.to_string());
            }
            E::InvitationDeclined { .. } => self.state = Named(InvitationState::Declined),
            E::InvitationRevoked { .. } => self.state = Named(InvitationState::Revoked),
            E::InvitationExpired { .. } => self.state = Named(InvitationState::Expired),
            E::InviteeErased { .. } => self.email = None,
        }
    }
}
