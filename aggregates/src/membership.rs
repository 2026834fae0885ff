//! A membership: what one user is in one organization, from the first joining on.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::event::{Field, Kind, shown};
use crate::guard::{Effect, OWNERS, Scope, Taken};
use crate::ids::{InvitationId, MembershipId, UserId};
use crate::personal::Personal;
use crate::resource::{Change, Limit, Place, Resource};
use crate::roles::{self, OWNER, OwnRoles, Permission, Permissions, RoleScope};
use crate::status::Capability;
use crate::{aggregate, text};

/// Active members and open invitations.
pub const MEMBERS: Limit = Limit { name: "members", maximum_min: 1, maximum_default: None };

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
    /// Was added by somebody who could see them.
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
            /// The user.
            user_id: UserId,
            /// With which roles.
            roles: Vec<String>,
            /// Where they hold; none is the whole organization.
            #[serde(default, skip_serializing_if = "RoleScope::is_organization")]
            scope: RoleScope,
            /// How.
            source: MembershipSource,
            /// By which invitation, where there was one.
            invitation_id: Option<InvitationId>,
            /// When.
            joined_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The member joins no other organization while this membership lasts: the deployment allows one a user.
        MemberBound "1.0" {
            /// The user.
            user_id: UserId,
        }
        /// The member has other roles.
        MemberRolesChanged "1.0" {
            /// The user.
            user_id: UserId,
            /// The roles from now on.
            roles: Vec<String>,
            /// The roles before.
            previous_roles: Vec<String>,
            /// Where they hold; none is the whole organization.
            #[serde(default, skip_serializing_if = "RoleScope::is_organization")]
            scope: RoleScope,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The member is kept out for a while; the seat is free.
        MemberSuspended "1.0" {
            /// The user.
            user_id: UserId,
            /// The roles that rest meanwhile.
            roles: Vec<String>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The suspended member is in again.
        MemberReinstated "1.0" {
            /// The user.
            user_id: UserId,
            /// The roles that hold again.
            roles: Vec<String>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The member was removed.
        MemberRemoved "1.0" {
            /// The user.
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
            /// The user.
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
        let owner = |roles: &[String], by: i64| roles::is_owner(roles).then(|| Effect::tally(OWNERS, by));
        let seat = |roles: &[String], by: i64| std::iter::once(Effect::tally(MEMBERS, by)).chain(owner(roles, by));
        // A role of the organization's own is held from joining to going, also while it rests.
        let held = |roles: &[String], by: i64| {
            let own: Vec<_> = roles.iter().filter_map(|role| roles::holders_tally(role)).collect();
            own.into_iter().map(move |name| Effect::tally(name, by))
        };
        let only_one = |user: &UserId| user.to_string();
        match self {
            // The seat was kept while the invitation was open, and goes over.
            E::MemberJoined { roles, scope: RoleScope::Organization, invitation_id: Some(_), .. } => {
                owner(roles, 1).into_iter().chain(held(roles, 1)).collect()
            }
            E::MemberJoined { roles, scope: RoleScope::Organization, invitation_id: None, .. } => {
                seat(roles, 1).chain(held(roles, 1)).collect()
            }
            E::MemberBound { user_id } => {
                vec![Effect::Claim { scope: Membership::ONLY_ONE, key: only_one(user_id), until: None }]
            }
            E::MemberReinstated { roles, .. } => seat(roles, 1).collect(),
            E::MemberSuspended { roles, .. } => seat(roles, -1).collect(),
            E::MemberRemoved { user_id, roles, previous_state, .. }
            | E::MemberLeft { user_id, roles, previous_state, .. } => {
                let active = *previous_state == MembershipState::Active;
                let seats = active.then(|| seat(roles, -1)).into_iter().flatten();
                // Released only where this membership bound the user.
                let released = Effect::Release { scope: Membership::ONLY_ONE, key: only_one(user_id) };
                seats.chain(held(roles, -1)).chain([released]).collect()
            }
            E::MemberRolesChanged { roles, previous_roles, scope: RoleScope::Organization, .. } => {
                let owners = match i64::from(roles::is_owner(roles)) - i64::from(roles::is_owner(previous_roles)) {
                    0 => None,
                    by => Some(Effect::tally(OWNERS, by)),
                };
                owners.into_iter().chain(held(roles, 1)).chain(held(previous_roles, -1)).collect()
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
    /// Whether the member was suspended when the membership ended. The suspension outlives the membership: only
    /// somebody who may lift it (`member:suspend`) lets this user in again, and API tokens of the user stay at rest.
    pub barred: bool,
}

/// The rights of the principal who gives roles: a grant never exceeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grantor {
    /// What the grantor may do.
    pub permissions: Permissions,
    /// Whether the grantor may touch owners.
    pub owner: bool,
    /// The organization's own roles: with the built-in ones, what the grantor can name.
    pub own_roles: OwnRoles,
}

impl Grantor {
    /// Operators and the service itself.
    pub fn unbounded() -> Self {
        Self { permissions: Permissions::all(), owner: true, own_roles: OwnRoles::default() }
    }

    /// The same in an organization with roles of its own.
    pub fn knowing(self, own_roles: &OwnRoles) -> Self {
        Self { own_roles: own_roles.clone(), ..self }
    }

    /// A member with these roles.
    pub fn with_roles(roles: &[String], own_roles: &OwnRoles) -> Self {
        let permissions = own_roles.permissions_of(roles);
        Self { permissions, owner: roles::is_owner(roles), own_roles: own_roles.clone() }
    }

    /// Refuses what the grantor does not have.
    pub fn may_grant(&self, roles: &[String]) -> Result<(), Refusal> {
        for name in roles {
            if name == OWNER && !self.owner {
                return Err(Refusal::RoleNotGrantable("only an owner can make somebody an owner".into()));
            }
            if !self.own_roles.permissions_of(&[name]).is_subset(self.permissions) {
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
        /// The user.
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
    /// Be the only membership of its user while it lasts.
    Bind,
    /// Hold other roles.
    ChangeRoles {
        /// The roles from now on.
        roles: Vec<String>,
        /// By whom.
        by: Grantor,
        /// Why.
        reason: Option<String>,
    },
    /// Hold another role instead of one that ends.
    ReplaceRole {
        /// The role that ends.
        role: String,
        /// The role instead.
        with: String,
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

impl Membership {
    /// Users whom one membership binds: where the deployment allows one organization a user.
    pub const ONLY_ONE: Scope = Scope::global(
        "home",
        Taken::State(
            "this user is a member of another organization, and this service allows one a user: the membership there has \
             to end first",
        ),
    );

    /// Whether the member is in.
    pub fn is_active(&self) -> bool {
        self.state == MembershipState::Active
    }

    /// What the member may do; nothing unless active.
    pub fn permissions(&self, own_roles: &OwnRoles) -> Permissions {
        if self.is_active() { own_roles.permissions_of(&self.roles) } else { Permissions::default() }
    }

    /// Which of the organization's capabilities a change to `roles` needs: granting more adds, granting less removes.
    pub fn change_needs(&self, roles: &[String], own_roles: &OwnRoles) -> Capability {
        let more = !own_roles.permissions_of(roles).is_subset(own_roles.permissions_of(&self.roles));
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
            // Also of a suspended member: nobody owns by a role of the organization's own.
            (C::ReplaceRole { role, with, .. }, _) if role == OWNER || with == OWNER => {
                Err(Refusal::RoleNotGrantable("ownership is not given or taken in passing".into()))
            }
            // What the replaced role permits is within what the actor may do, which the organization has looked at. The
            // member's other roles stay.
            (C::ReplaceRole { role, with, by, reason }, MembershipState::Active | MembershipState::Suspended) => {
                self.may_touch_owner(&by)?;
                let kept = roles.iter().filter(|held| **held != role).cloned();
                let changed = by.own_roles.normal(&kept.chain([with]).collect::<Vec<_>>())?;
                Ok(vec![E::MemberRolesChanged {
                    scope: RoleScope::Organization,
                    reason: about(reason)?,
                    user_id,
                    roles: changed,
                    previous_roles: roles,
                }])
            }
            (C::Suspend { reason, by }, MembershipState::Active) => {
                self.may_take_from(&by)?;
                Ok(vec![E::MemberSuspended { reason: about(reason)?, user_id, roles }])
            }
            (C::Reinstate { reason, by }, MembershipState::Suspended) => {
                self.may_touch_owner(&by)?;
                by.may_grant(&roles)?;
                Ok(vec![E::MemberReinstated { reason: about(reason)?, user_id, roles }])
            }
            (C::Remove { reason, by }, MembershipState::Active | MembershipState::Suspended) => {
                self.may_take_from(&by)?;
                Ok(vec![E::MemberRemoved { reason: about(reason)?, user_id, roles, previous_state }])
            }
            (C::Leave { reason }, MembershipState::Active | MembershipState::Suspended) => {
                Ok(vec![E::MemberLeft { reason: about(reason)?, user_id, roles, previous_state }])
            }
            (C::Bind, MembershipState::Active) => Ok(vec![E::MemberBound { user_id }]),
            (C::Bind | C::ChangeRoles { .. } | C::Suspend { .. }, state) => {
                Err(Refusal::InvalidState(format!("the member is {} and not ACTIVE", shown(state))))
            }
            (C::Reinstate { .. }, state) => {
                Err(Refusal::InvalidState(format!("the member is {} and not SUSPENDED", shown(state))))
            }
            (C::Remove { .. } | C::Leave { .. } | C::ReplaceRole { .. }, MembershipState::Removed) => {
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
        let roles = by.own_roles.normal(&roles)?;
        by.may_grant(&roles)?;
        let reason = text::reason("reason", reason.as_deref())?.map(|reason| Personal::new(user_id.as_ref(), reason));
        match self.state {
            MembershipState::Removed if self.barred && !by.permissions.contains(Permission::MemberSuspend) => {
                Err(Refusal::InvalidState(
                    "this user was suspended when the membership ended: only somebody with the permission \
                     member:suspend lets them in again"
                        .into(),
                ))
            }
            MembershipState::Removed => Ok(vec![MembershipEvent::MemberJoined {
                user_id,
                roles,
                scope: RoleScope::Organization,
                source,
                invitation_id,
                joined_at,
                reason,
            }]),
            MembershipState::Active if invitation_id.is_some() => {
                let united = by.own_roles.normal(&[self.roles.clone(), roles].concat())?;
                if united == self.roles {
                    return Ok(vec![]);
                }
                Ok(vec![MembershipEvent::MemberRolesChanged {
                    scope: RoleScope::Organization,
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
        let roles = by.own_roles.normal(roles)?;
        if roles == self.roles {
            return Ok(vec![]);
        }
        match self.roles.iter().all(|held| roles.contains(held)) {
            true => self.may_touch_owner(&by)?,
            false => self.may_take_from(&by)?,
        }
        let added: Vec<_> = roles.iter().filter(|role| !self.roles.contains(role)).cloned().collect();
        by.may_grant(&added)?;
        Ok(vec![MembershipEvent::MemberRolesChanged {
            user_id,
            roles,
            previous_roles: self.roles.clone(),
            scope: RoleScope::Organization,
            reason,
        }])
    }

    fn may_touch_owner(&self, by: &Grantor) -> Result<(), Refusal> {
        if roles::is_owner(&self.roles) && !by.owner {
            return Err(Refusal::Forbidden("only an owner can do this to an owner".into()));
        }
        Ok(())
    }

    /// A member's roles are taken, for a while or for good, by somebody who may do all that they permit. Only owners
    /// take them from owners.
    fn may_take_from(&self, by: &Grantor) -> Result<(), Refusal> {
        self.may_touch_owner(by)?;
        if by.own_roles.permissions_of(&self.roles).is_subset(by.permissions) {
            return Ok(());
        }
        let message = "this member's roles permit more than you may do yourself: ask somebody who may do as much";
        Err(Refusal::Forbidden(message.into()))
    }

    fn apply(&mut self, event: MembershipEvent) {
        use MembershipEvent as E;
        match event {
            E::MemberJoined { user_id, roles, scope: RoleScope::Organization, source, joined_at, .. } => {
                let state = MembershipState::Active;
                *self = Self { user_id: Some(user_id), state, roles, source, joined_at, barred: false };
            }
            E::MemberBound { .. } => {}
            E::MemberRolesChanged { roles, scope: RoleScope::Organization, .. } => self.roles = roles,
            E::MemberSuspended { .. } => self.state = MembershipState::Suspended,
            E::MemberReinstated { .. } => self.state = MembershipState::Active,
            E::MemberRemoved { previous_state, .. } | E::MemberLeft { previous_state, .. } => {
                self.state = MembershipState::Removed;
                self.barred = previous_state == MembershipState::Suspended;
            }
        }
    }
}

/// The id of the membership that `existing` refers to, for refusals.
pub fn existing(organization: &crate::ids::OrganizationId, user: &UserId) -> String {
    MembershipId::of(organization, user).to_string()
}

impl Resource for Membership {
    const PLACE: Place = Place::WithinOrganization;
    const LIMIT: Option<Limit> = Some(MEMBERS);
    const CLAIMS: &'static [Scope] = &[Self::ONLY_ONE];
    const HAS_KEY: bool = false;
    const DECIDES_ACCESS: bool = true;
    const HEADING: Option<&'static str> = Some("members");

    fn destroys_key(_: &MembershipEvent) -> bool {
        false
    }

    fn expiry(_: DateTime<Utc>) -> Option<MembershipCommand> {
        None
    }

    fn purge(_: DateTime<Utc>) -> Option<MembershipCommand> {
        None
    }

    fn change(event: &MembershipEvent) -> Change {
        use Change as C;
        use MembershipEvent as E;
        match event {
            E::MemberJoined { .. } => C::Create,
            E::MemberRolesChanged { .. } => C::Update,
            E::MemberSuspended { .. } => C::Disable,
            E::MemberReinstated { .. } => C::Enable,
            E::MemberRemoved { .. } | E::MemberLeft { .. } => C::Delete,
            E::MemberBound { .. } => C::Other("Bind"),
        }
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn facts(&self, _: DateTime<Utc>) -> Vec<(&'static str, String)> {
        vec![
            ("user", self.user_id.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("roles", self.roles.join(", ")),
            ("state", shown(self.state)),
        ]
    }

    fn document_bytes(&self) -> usize {
        0
    }
}

aggregate!(Membership, "Membership", MembershipCommand, MembershipEvent, shape 2, personal []);
