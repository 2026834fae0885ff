//! One event with all that its rule may ask: the state before its command, the command's other events, and what its
//! actor may do.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::event::Event;
use super::model::Model;
use crate::kinds::membership::Member;
use crate::kinds::organization::Organization;
use crate::kinds::token::Token;
use crate::kinds::user::User;

/// A command that began before somebody was shut out in another partition has ended after so long.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(60);

pub const OWNER: &str = "owner";

/// All permissions.
pub const CATALOGUE: [&str; 21] = [
    "organization:read",
    "organization:update",
    "organization:submit",
    "organization:delete",
    "member:read",
    "member:invite",
    "member:add",
    "member:update",
    "member:suspend",
    "member:remove",
    "invitation:read",
    "project:read",
    "project:create",
    "project:update",
    "project:delete",
    "audit:read",
    "role:manage",
    "token:read",
    "token:manage",
    "webhook:read",
    "webhook:manage",
];

/// The permissions of the roles that every organization has.
fn built_in(role: &str) -> Option<Vec<&'static str>> {
    Some(match role {
        OWNER => CATALOGUE.to_vec(),
        "admin" => CATALOGUE.into_iter().filter(|name| *name != "organization:delete").collect(),
        "billing" => vec!["organization:read", "member:read"],
        "auditor" => vec![
            "organization:read",
            "member:read",
            "invitation:read",
            "project:read",
            "audit:read",
            "token:read",
            "webhook:read",
        ],
        "member" => vec!["organization:read", "member:read", "project:read", "project:create", "project:update"],
        "guest" => vec!["organization:read", "project:read"],
        _ => return None,
    })
}

/// Whether an organization can define a role of this name.
pub fn is_built_in(role: &str) -> bool {
    built_in(role).is_some()
}

pub type Permissions = BTreeSet<String>;

impl Organization {
    /// The permissions of these roles together. A name that is no role permits nothing.
    pub fn permissions_of(&self, roles: &[String]) -> Permissions {
        let own = |role: &String| self.roles.get(role).map(|own| own.permissions.clone()).unwrap_or_default();
        let one = |role| built_in(role).map(|names| names.into_iter().map(str::to_owned).collect());
        roles.iter().flat_map(|role| one(role).unwrap_or_else(|| own(role))).collect()
    }

    /// Whether a role has this name.
    pub fn has_role(&self, role: &str) -> bool {
        is_built_in(role) || self.roles.contains_key(role)
    }
}

/// What an actor may do.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    pub permissions: Permissions,
    pub owner: bool,
}

impl Rights {
    fn unbounded() -> Self {
        Self { permissions: CATALOGUE.map(str::to_owned).into(), owner: true }
    }

    pub fn has(&self, permissions: &[&str]) -> bool {
        permissions.iter().all(|name| self.permissions.contains(*name))
    }

    /// A grant never exceeds the rights of its giver, and roles are taken by somebody who may do as much.
    pub fn cover(&self, organization: &Organization, roles: &[String]) -> bool {
        self.may_touch(roles) && organization.permissions_of(roles).is_subset(&self.permissions)
    }

    /// Only owners touch owners.
    pub fn may_touch(&self, roles: &[String]) -> bool {
        self.owner || !is_owner(roles)
    }
}

pub fn is_owner(roles: &[String]) -> bool {
    roles.iter().any(|role| role == OWNER)
}

/// An event that is judged, before its command is folded.
pub struct Case<'a> {
    pub model: &'a Model,
    pub organization: &'a Organization,
    pub id: &'a str,
    pub group: &'a [Event],
    pub event: &'a Event,
    /// Whether times can be compared.
    pub clocks_agree: bool,
}

impl<'a> Case<'a> {
    /// The kind of actor (`user`, `operator`, `token`, `system`) and its id.
    pub fn actor(&self) -> (&'a str, &'a str) {
        self.event.actor.split_once(':').unwrap_or((&self.event.actor, ""))
    }

    pub fn is_operator(&self) -> bool {
        self.actor().0 == "operator"
    }

    pub fn is_service(&self) -> bool {
        self.event.actor == "system"
    }

    /// The membership of a user in the event's organization.
    pub fn member(&self, user: &str) -> Option<&'a Member> {
        let membership = self.model.membership_of.get(&(self.id.to_owned(), user.to_owned()));
        membership.and_then(|id| self.model.get(id))
    }

    /// The state of the event's stream before the command.
    pub fn before<T: Send + 'static>(&self) -> Option<&'a T> {
        self.model.get(&self.event.stream)
    }

    /// Whether the command has an event of one of these names.
    pub fn beside(&self, names: &[&str]) -> bool {
        self.group.iter().any(|other| names.contains(&other.name.as_str()))
    }

    /// Whether the user was shut out then, and for so long that no command from before is still under way.
    pub fn is_shut_out(&self, user: &str) -> bool {
        self.clocks_agree
            && self.model.get::<User>(user).is_some_and(|user| user.is_shut_out(self.event.at, SETTLED_AFTER))
    }

    /// Whether the user is erased; users are folded before everything else.
    pub fn is_erased(&self, user: &str) -> bool {
        self.model.get::<User>(user).is_some_and(|user| user.state == "ERASED")
    }

    /// The rights of the actor; none of somebody who is not in. Operators have all.
    pub fn rights(&self) -> Option<Rights> {
        match self.actor() {
            ("operator", user) => Some(Rights::unbounded()).filter(|_| !self.is_shut_out(user)),
            ("user", user) => self.rights_of_member(self.member(user).filter(|member| member.is_active())?),
            ("token", id) => self.rights_of_token(id),
            _ => None,
        }
    }

    fn rights_of_member(&self, member: &Member) -> Option<Rights> {
        let rights = self.rights_by_roles(&member.roles);
        let sees = rights.has(&["organization:read"]) && (rights.owner || !self.organization.is_hidden());
        (sees && !self.is_shut_out(&member.user)).then_some(rights)
    }

    /// The rights that these roles give.
    pub fn rights_by_roles(&self, roles: &[String]) -> Rights {
        Rights { permissions: self.organization.permissions_of(roles), owner: is_owner(roles) }
    }

    fn rights_of_token(&self, id: &str) -> Option<Rights> {
        let token = self.model.get::<Token>(id).filter(|token| token.place.organization == self.id)?;
        let in_time = !self.clocks_agree || token.expires_at.is_none_or(|end| end > self.event.at - SETTLED_AFTER);
        let person = token.person();
        let rests = self.member(person).is_some_and(|member| member.state == "SUSPENDED" || member.barred);
        let sees = token.permissions.iter().any(|name| name == "organization:read") && !self.organization.is_hidden();
        let counts = token.state == "ACTIVE" && in_time && !rests && sees && !self.is_shut_out(person);
        counts.then(|| Rights { permissions: token.permissions.iter().cloned().collect(), owner: false })
    }

    /// The token that acts, if one does.
    pub fn token(&self) -> Option<&'a Token> {
        match self.actor() {
            ("token", id) => self.model.get(id),
            _ => None,
        }
    }

    /// A token does nothing to the user who answers for it.
    pub fn is_behind_token(&self, user: &str) -> bool {
        self.token().is_some_and(|token| token.person() == user)
    }

    /// The rights by which `giver` may still give what was promised; none where nothing that they gave counts any more.
    pub fn rights_of_giver(&self, giver: &str) -> Option<Rights> {
        match giver.split_once(':').unwrap_or((giver, "")) {
            ("system", _) => Some(Rights::unbounded()),
            ("operator", user) => Some(Rights::unbounded()).filter(|_| !self.is_shut_out(user)),
            ("user", user) => self.counts(user).map(|member| self.rights_by_roles(&member.roles)),
            (_, token) => {
                let token = self.model.get::<Token>(token).filter(|token| token.state != "REVOKED")?;
                let person = token.person();
                let stands = match token.responsible.split_once(':') {
                    Some(("user", user)) => self.counts(user).is_some(),
                    _ => {
                        let rests = |member: &Member| member.state == "SUSPENDED" || member.barred;
                        !self.is_shut_out(person) && !self.member(person).is_some_and(rests)
                    }
                };
                let permissions = token.permissions.iter().cloned().collect();
                stands.then_some(Rights { permissions, owner: false })
            }
        }
    }

    /// The membership by which a user's grants count.
    fn counts(&self, user: &str) -> Option<&'a Member> {
        let member = self.member(user)?;
        let stands = match member.state.as_str() {
            "ACTIVE" => true,
            "REMOVED" => self.organization.keeps_invitations() && !member.barred,
            _ => false,
        };
        Some(member).filter(|_| stands && !self.is_shut_out(user))
    }
}
