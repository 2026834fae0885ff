//! A membership: what one user is in one organization, from the first joining on.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::event::{Field, Kind, shown};
use crate::guard::{Effect, MEMBERS, OWNERS};
use crate::ids::{InvitationId, MembershipId, UserId};
use crate::personal::Personal;
use crate::roles::{self, OWNER, Permissions};
use crate::status::Capability;
use crate::{aggregate, text};

/// Whether the member is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MembershipState {
    /// In.
    Active,
    /// Kept out for a while.
    Suspended,
    /// Out: removed, or gone.
    #[default]
    Removed,
}

/// How the member came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MembershipSource {
    /// Created the organization, or was named its owner when it was created.
    Founder,
    /// Accepted an invitation.
    Invitation,
    /// Was added by somebody who could see him.
    #[default]
    Direct,
    /// Was imported by an operator.
    Import,
}

impl Field for MembershipState {
    const KIND: Kind = Kind { name: "MembershipState", list: false, nullable: false, hidden: false };
}
impl Field for MembershipSource {
    const KIND: Kind = Kind { name: "MembershipSource", list: false, nullable: false, hidden: false };
}

crate::events! {
    /// What can happen to a membership.
    pub enum MembershipEvent {
        /// A user is a member from here on, for the first time or again.
        MemberJoined "1.0" {
            /// Who.
            user_id: UserId,
            /// With which roles.
            roles: Vec<String>,
            /// How.
            source: MembershipSource,
            /// By which invitation, where there was one.
            invitation_id: Option<InvitationId>,
            /// When.
            joined_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The member has other roles.
        MemberRolesChanged "1.0" {
            /// Who.
            user_id: UserId,
            /// The roles from now on.
            roles: Vec<String>,
            /// The roles before.
            previous_roles: Vec<String>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The member is kept out for a while; the seat is free.
        MemberSuspended "1.0" {
            /// Who.
            user_id: UserId,
            /// The roles that rest meanwhile.
            roles: Vec<String>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The suspended member is in again.
        MemberReinstated "1.0" {
            /// Who.
            user_id: UserId,
            /// The roles that hold again.
            roles: Vec<String>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The member was removed.
        MemberRemoved "1.0" {
            /// Who.
            user_id: UserId,
            /// The roles that ended.
            roles: Vec<String>,
            /// The state before.
            previous_state: MembershipState,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The member left.
        MemberLeft "1.0" {
            /// Who.
            user_id: UserId,
            /// The roles that ended.
            roles: Vec<String>,
            /// The state before.
            previous_state: MembershipState,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
    }
}

impl MembershipEvent {
    /// Which claims and tallies this event changes: a seat, and whether there is one owner more or less.
    pub fn effects(&self) -> Vec<Effect> {
        use MembershipEvent as E;
        let seat = |roles: &[String], by: i64| {
            let owner = roles::is_owner(roles).then(|| Effect::tally(OWNERS, by));
            std::iter::once(Effect::tally(MEMBERS, by)).chain(owner).collect()
        };
        match self {
            // The seat was kept while the invitation was open, and goes over.
            E::MemberJoined { roles, invitation_id: Some(_), .. } => {
                if roles::is_owner(roles) {
                    vec![Effect::tally(OWNERS, 1)]
                } else {
                    vec![]
                }
            }
            E::MemberJoined { roles, invitation_id: None, .. } | E::MemberReinstated { roles, .. } => seat(roles, 1),
            E::MemberSuspended { roles, .. } => seat(roles, -1),
            E::MemberRemoved { roles, previous_state, .. } | E::MemberLeft { roles, previous_state, .. } => {
                if *previous_state == MembershipState::Active {
                    seat(roles, -1)
                } else {
                    vec![]
                }
            }
            E::MemberRolesChanged { roles, previous_roles, .. } => {
                match i64::from(roles::is_owner(roles)) - i64::from(roles::is_owner(previous_roles)) {
                    0 => vec![],
                    by => vec![Effect::tally(OWNERS, by)],
                }
            }
        }
    }
}

/// What is known of a membership.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Whose it is; `None` before the first joining.
    pub user_id: Option<UserId>,
    /// Whether the member is in.
    pub state: MembershipState,
    /// The roles at organization scope (the last ones, when removed).
    pub roles: Vec<String>,
    /// How the member came in last.
    pub source: MembershipSource,
    /// When the member came in last.
    pub joined_at: DateTime<Utc>,
}

/// Whoever gives roles, and what he has himself: a grant never exceeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grantor {
    /// What he may do himself.
    pub permissions: Permissions,
    /// Whether he may touch owners.
    pub owner: bool,
}

impl Grantor {
    /// Operators and the service itself.
    pub fn unbounded() -> Self {
        Self { permissions: Permissions::all(), owner: true }
    }

    /// A member with these roles.
    pub fn with_roles(roles: &[String]) -> Self {
        Self { permissions: roles::permissions_of(roles), owner: roles::is_owner(roles) }
    }

    /// Refuses what he does not have himself.
    pub fn may_grant(&self, roles: &[String]) -> Result<(), Refusal> {
        for name in roles {
            if name == OWNER && !self.owner {
                return Err(Refusal::RoleNotGrantable("only an owner can make somebody an owner".into()));
            }
            if !roles::permissions_of(&[name]).is_subset(self.permissions) {
                return Err(Refusal::RoleNotGrantable(format!(
                    "the role '{name}' permits more than you may do yourself"
                )));
            }
        }
        Ok(())
    }
}

/// What can be asked of a membership.
#[derive(Debug, Clone, PartialEq)]
pub enum MembershipCommand {
    /// Come in; also unites the roles of a member who is in already, when an invitation says so.
    Join {
        /// Who.
        user: UserId,
        /// With which roles.
        roles: Vec<String>,
        /// How.
        source: MembershipSource,
        /// By which invitation.
        invitation: Option<InvitationId>,
        /// By whom; an accepted invitation was granted by who invited.
        by: Grantor,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Hold other roles.
    ChangeRoles {
        /// The roles from now on.
        roles: Vec<String>,
        /// By whom.
        by: Grantor,
        /// Why.
        reason: Option<String>,
    },
    /// Stay out for a while.
    Suspend {
        /// Why.
        reason: Option<String>,
        /// By whom.
        by: Grantor,
    },
    /// Come in again.
    Reinstate {
        /// Why.
        reason: Option<String>,
        /// By whom.
        by: Grantor,
    },
    /// Be removed.
    Remove {
        /// Why.
        reason: Option<String>,
        /// By whom.
        by: Grantor,
    },
    /// Leave.
    Leave {
        /// Why.
        reason: Option<String>,
    },
}

/// Roles as they are stored: known, without repetition, the most powerful first.
pub fn normal_roles(names: &[String]) -> Result<Vec<String>, Refusal> {
    if let Some(unknown) = names.iter().find(|name| roles::role(name).is_none()) {
        let known: Vec<_> = roles::ROLES.iter().map(|role| role.name).collect();
        let shown: String = unknown.chars().take(80).collect();
        return Err(Refusal::input("roles", format!("there is no role {shown:?}: give some of {}", known.join(", "))));
    }
    let normal: Vec<_> =
        roles::ROLES.iter().map(|role| role.name.to_owned()).filter(|name| names.contains(name)).collect();
    if normal.is_empty() {
        return Err(Refusal::input("roles", "no role was given: give at least one"));
    }
    Ok(normal)
}

impl Membership {
    /// Whether the member is in.
    pub fn is_active(&self) -> bool {
        self.state == MembershipState::Active
    }

    /// What the member may do; nothing unless active.
    pub fn permissions(&self) -> Permissions {
        if self.is_active() { roles::permissions_of(&self.roles) } else { Permissions::default() }
    }

    /// Which of the organization's capabilities a change to `roles` needs: granting more adds, granting less removes.
    pub fn change_needs(&self, roles: &[String]) -> Capability {
        let more = !roles::permissions_of(roles).is_subset(roles::permissions_of(&self.roles));
        if more { Capability::AddMembers } else { Capability::RemoveMembers }
    }

    /// The events that `command` makes of this state.
    pub fn decide(&self, command: MembershipCommand) -> Result<Vec<MembershipEvent>, Refusal> {
        use MembershipCommand as C;
        use MembershipEvent as E;
        if let C::Join { user, roles, source, invitation, by, reason, at } = command {
            return self.join(user, roles, source, invitation, by, reason, at);
        }
        let Some(user_id) = self.user_id.clone() else { return Err(Refusal::NotFound) };
        let about = |reason: Option<String>| -> Result<Option<Personal>, Refusal> {
            Ok(text::reason("reason", reason.as_deref())?.map(|reason| Personal::new(user_id.as_ref(), reason)))
        };
        let roles = self.roles.clone();
        let previous_state = self.state;
        match (command, self.state) {
            (C::ChangeRoles { roles, by, reason }, MembershipState::Active) => {
                self.change_roles(&roles, by, about(reason)?, user_id)
            }
            (C::Suspend { reason, by }, MembershipState::Active) => {
                self.may_touch(by)?;
                Ok(vec![E::MemberSuspended { reason: about(reason)?, user_id, roles }])
            }
            (C::Reinstate { reason, by }, MembershipState::Suspended) => {
                self.may_touch(by)?;
                by.may_grant(&roles)?;
                Ok(vec![E::MemberReinstated { reason: about(reason)?, user_id, roles }])
            }
            (C::Remove { reason, by }, MembershipState::Active | MembershipState::Suspended) => {
                self.may_touch(by)?;
                Ok(vec![E::MemberRemoved { reason: about(reason)?, user_id, roles, previous_state }])
            }
            (C::Leave { reason }, MembershipState::Active | MembershipState::Suspended) => {
                Ok(vec![E::MemberLeft { reason: about(reason)?, user_id, roles, previous_state }])
            }
            (C::ChangeRoles { .. } | C::Suspend { .. }, state) => {
                Err(Refusal::InvalidState(format!("the member is {} and not ACTIVE", shown(state))))
            }
            (C::Reinstate { .. }, state) => {
                Err(Refusal::InvalidState(format!("the member is {} and not SUSPENDED", shown(state))))
            }
            (C::Remove { .. } | C::Leave { .. }, MembershipState::Removed) => {
                Err(Refusal::InvalidState("the member is out already".into()))
            }
            (C::Join { .. }, _) => unreachable!("answered above"),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn join(
        &self,
        user_id: UserId,
        roles: Vec<String>,
        source: MembershipSource,
        invitation_id: Option<InvitationId>,
        by: Grantor,
        reason: Option<String>,
        joined_at: DateTime<Utc>,
    ) -> Result<Vec<MembershipEvent>, Refusal> {
        let roles = normal_roles(&roles)?;
        by.may_grant(&roles)?;
        let reason = text::reason("reason", reason.as_deref())?.map(|reason| Personal::new(user_id.as_ref(), reason));
        match self.state {
            MembershipState::Removed => {
                Ok(vec![MembershipEvent::MemberJoined { user_id, roles, source, invitation_id, joined_at, reason }])
            }
            MembershipState::Active if invitation_id.is_some() => {
                let united = normal_roles(&[self.roles.clone(), roles].concat())?;
                if united == self.roles {
                    return Ok(vec![]);
                }
                Ok(vec![MembershipEvent::MemberRolesChanged {
                    user_id,
                    roles: united,
                    previous_roles: self.roles.clone(),
                    reason,
                }])
            }
            MembershipState::Active => Err(Refusal::AlreadyExists {
                path: "userId",
                message: "this user is a member already".into(),
                existing: String::new(),
            }),
            MembershipState::Suspended => {
                Err(Refusal::InvalidState("this member is suspended: reinstate the member instead".into()))
            }
        }
    }

    fn change_roles(
        &self,
        roles: &[String],
        by: Grantor,
        reason: Option<Personal>,
        user_id: UserId,
    ) -> Result<Vec<MembershipEvent>, Refusal> {
        let roles = normal_roles(roles)?;
        if roles == self.roles {
            return Ok(vec![]);
        }
        if roles::is_owner(&self.roles) && !by.owner {
            return Err(Refusal::RoleNotGrantable("only an owner can change the roles of an owner".into()));
        }
        let added: Vec<_> = roles.iter().filter(|role| !self.roles.contains(role)).cloned().collect();
        by.may_grant(&added)?;
        Ok(vec![MembershipEvent::MemberRolesChanged { user_id, roles, previous_roles: self.roles.clone(), reason }])
    }

    fn may_touch(&self, by: Grantor) -> Result<(), Refusal> {
        if roles::is_owner(&self.roles) && !by.owner {
            return Err(Refusal::Forbidden("only an owner can do this to an owner".into()));
        }
        Ok(())
    }

    fn apply(&mut self, event: MembershipEvent) {
        use MembershipEvent as E;
        match event {
            E::MemberJoined { user_id, roles, source, joined_at, .. } => {
                *self = Self { user_id: Some(user_id), state: MembershipState::Active, roles, source, joined_at };
            }
            E::MemberRolesChanged { roles, .. } => self.roles = roles,
            E::MemberSuspended { .. } => self.state = MembershipState::Suspended,
            E::MemberReinstated { .. } => self.state = MembershipState::Active,
            E::MemberRemoved { .. } | E::MemberLeft { .. } => self.state = MembershipState::Removed,
        }
    }
}

/// The id of the membership that `existing` refers to, for refusals.
pub fn existing(organization: &crate::ids::OrganizationId, user: &UserId) -> String {
    MembershipId::of(organization, user).to_string()
}

aggregate!(Membership, "Membership", MembershipCommand, MembershipEvent, shape 1, personal []);
