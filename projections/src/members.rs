//! Members of organizations, from the first joining on.

use aggregates::Recorded;
use aggregates::membership::{MembershipEvent, MembershipSource, MembershipState};
use aggregates::roles::RoleScope;
use chrono::{DateTime, Utc};

use crate::read_model::{Named, projection_of_rows, read_model};

read_model! {
    members of Membership in organization_id {
        user_id: String,
        roles: Vec<String>,
        state: Named<MembershipState>,
        source: Named<MembershipSource>,
        joined_at: DateTime<Utc>,
    }
    personal []
}

projection_of_rows!();

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &MembershipEvent) {
        use MembershipEvent as E;
        match event {
            E::MemberJoined { user_id, roles, scope: RoleScope::Organization, source, joined_at, .. } => {
                if self.id.is_empty() {
                    self.begin(recorded, *joined_at);
                    self.user_id = user_id.to_string();
                }
                self.roles = roles.clone();
                self.source = Named(*source);
                self.joined_at = *joined_at;
                self.state = Named(MembershipState::Active);
            }
            E::MemberBound { .. } => {}
            E::MemberRolesChanged { roles, scope: RoleScope::Organization, .. } => self.roles = roles.clone(),
            E::MemberSuspended { .. } => self.state = Named(MembershipState::Suspended),
            E::MemberReinstated { .. } => self.state = Named(MembershipState::Active),
            E::MemberRemoved { .. } | E::MemberLeft { .. } => self.state = Named(MembershipState::Removed),
        }
    }
}
