//! Roles and permissions: the only table of who may do what inside an organization.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::event::{Field, Kind};

/// Declares the permissions, each with its name for clients and with the built-in roles that have it. The owner has all.
macro_rules! permissions {
    ($( $(#[doc = $doc:literal])* $name:ident = $text:literal of [$($role:ident)*], )*) => {
        /// What a caller may do in an organization.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Permission { $( $(#[doc = $doc])* $name, )* }

        impl Permission {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name that clients see.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// What it allows, in a sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*).trim_ascii()),* }
            }

            /// The built-in roles that have it, beside the owner.
            const fn roles(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$(stringify!($role)),*]),* }
            }
        }
    };
}
pub(crate) use permissions;

pub use crate::Permission;

// A set of permissions is a number with a bit for each.
const _: () = assert!(Permission::ALL.len() <= u64::BITS as usize, "a set of permissions needs more bits");

impl Permission {
    /// The permission of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.as_str() == name)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u64);

impl Permissions {
    /// Everything.
    pub fn all() -> Self {
        Permission::ALL.iter().copied().collect()
    }

    /// Whether `permission` is in the set.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u64) != 0
    }

    /// Whether all of `self` is in `other`.
    pub fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The names, in the catalogue's order.
    pub fn names(self) -> Vec<String> {
        let own = Permission::ALL.iter().filter(|permission| self.contains(**permission));
        own.map(|permission| permission.as_str().to_owned()).collect()
    }

    /// Those of these names; unknown ones are left out.
    pub fn of_names(names: &[String]) -> Self {
        names.iter().filter_map(|name| Permission::named(name)).collect()
    }

    /// Those of these names, which all have to be known.
    pub fn named(names: &[String]) -> Result<Self, Refusal> {
        if let Some(unknown) = names.iter().find(|name| Permission::named(name).is_none()) {
            let known: Vec<&str> = Permission::ALL.iter().map(|permission| permission.as_str()).collect();
            let shown: String = unknown.chars().take(80).collect();
            let message = format!("there is no permission {shown:?}: give some of {}", known.join(", "));
            return Err(Refusal::input("permissions", message));
        }
        Ok(Self::of_names(names))
    }

    /// Both together.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |set, permission| set | (1 << permission as u64)))
    }
}

/// Where assigned roles hold. Teams and projects may come: then the compiler points at each place that has to tell
/// their roles from the organization's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RoleScope {
    /// In the whole organization. Not stored: an event without a scope means this one, for ever.
    #[default]
    Organization,
}

impl RoleScope {
    /// Whether it is the whole organization.
    pub fn is_organization(&self) -> bool {
        matches!(self, Self::Organization)
    }
}

impl Field for RoleScope {
    const KIND: Kind = Kind { name: "String", list: false, nullable: true, hidden: false };
}

/// The role that owns an organization: of it at least one active member is left on every path.
pub const OWNER: &str = "owner";

/// A role that every organization has.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Its name.
    pub name: &'static str,
    /// For whom it is.
    pub description: &'static str,
}

impl Role {
    /// What it permits.
    pub fn permissions(&self) -> Permissions {
        let permits = |permission: &Permission| self.name == OWNER || permission.roles().contains(&self.name);
        Permission::ALL.iter().copied().filter(permits).collect()
    }
}

/// The built-in roles, the most powerful first. Their names are closed: a later one is called as no organization can
/// call a role of its own (say "std.viewer"), so that nobody's role comes to mean something else by an update.
pub const ROLES: &[Role] = &[
    Role { name: OWNER, description: "May do everything, and alone may touch other owners." },
    Role { name: "admin", description: "Runs the organization day by day; cannot delete it." },
    Role { name: "billing", description: "Sees the organization, its limits and its members." },
    Role { name: "auditor", description: "Sees everything, the audit trail included; changes nothing." },
    Role { name: "member", description: "Works in projects." },
    Role { name: "guest", description: "Sees the organization and its projects." },
];

/// The built-in role of this name.
pub fn role(name: &str) -> Option<&'static Role> {
    ROLES.iter().find(|role| role.name == name)
}

/// The most roles that an organization may define itself.
pub const OWN_ROLES_MAX: usize = 64;

/// The most names that an organization may use for its own roles in all its life.
pub const ROLE_NAMES_MAX: usize = 256;

/// A role that an organization defined itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnRole {
    /// For whom it is.
    pub description: String,
    /// What it permits, in the catalogue's order.
    pub permissions: Vec<String>,
}

/// The roles that an organization defined itself, by name. With the built-in ones they are what a name can mean.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnRoles(pub BTreeMap<String, OwnRole>);

impl OwnRoles {
    /// What these roles permit together. Unknown names permit nothing.
    pub fn permissions_of<S: AsRef<str>>(&self, roles: &[S]) -> Permissions {
        roles.iter().fold(Permissions::default(), |all, name| all.union(self.permissions_of_one(name.as_ref())))
    }

    fn permissions_of_one(&self, name: &str) -> Permissions {
        match role(name) {
            Some(role) => role.permissions(),
            None => self.0.get(name).map(|own| Permissions::of_names(&own.permissions)).unwrap_or_default(),
        }
    }

    /// Whether a role has this name.
    pub fn has(&self, name: &str) -> bool {
        role(name).is_some() || self.0.contains_key(name)
    }

    /// Roles as they are stored: known, without repetition, the built-in ones first and the most powerful before.
    pub fn normal(&self, names: &[String]) -> Result<Vec<String>, Refusal> {
        let known = || ROLES.iter().map(|role| role.name).chain(self.0.keys().map(String::as_str));
        if let Some(unknown) = names.iter().find(|name| !self.has(name)) {
            let known: Vec<_> = known().collect();
            let shown: String = unknown.chars().take(80).collect();
            let message = format!("there is no role {shown:?}: give some of {}", known.join(", "));
            return Err(Refusal::input("roles", message));
        }
        let normal: Vec<String> =
            known().filter(|name| names.iter().any(|given| given == name)).map(str::to_owned).collect();
        if normal.is_empty() {
            return Err(Refusal::input("roles", "no role was given: give at least one"));
        }
        Ok(normal)
    }
}

/// The tally that counts who holds a role of an organization's own; built-in roles are not counted.
pub fn holders_tally(name: &str) -> Option<String> {
    role(name).is_none().then(|| format!("role/{name}"))
}

/// Whether `roles` hold ownership.
pub fn is_owner<S: AsRef<str>>(roles: &[S]) -> bool {
    roles.iter().any(|role| role.as_ref() == OWNER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_built_in_role_takes_no_name_that_an_organization_may_have_given() {
        let first = ["owner", "admin", "billing", "auditor", "member", "guest"];
        for role in ROLES.iter().filter(|role| !first.contains(&role.name)) {
            assert!(crate::text::role_name("name", role.name).is_err(), "{} may be somebody's own role", role.name);
        }
        assert!(crate::text::role_name("name", "std.viewer").is_err(), "there are names for later ones");
    }

    #[test]
    fn permissions_name_roles_that_there_are() {
        for permission in Permission::ALL {
            for name in permission.roles() {
                assert!(role(name).is_some(), "{permission} is of {name:?}, which is no built-in role");
            }
        }
    }

    #[test]
    fn each_role_permits_what_the_table_says() {
        let table = [
            ("owner", Permission::ALL.len()),
            ("admin", Permission::ALL.len() - 1),
            ("billing", 2),
            ("auditor", 7),
            ("member", 5),
            ("guest", 2),
        ];
        assert_eq!(table.map(|(name, _)| name).to_vec(), ROLES.iter().map(|role| role.name).collect::<Vec<_>>());
        for (name, count) in table {
            let permissions = OwnRoles::default().permissions_of(&[name]);
            assert_eq!(Permission::ALL.iter().filter(|p| permissions.contains(**p)).count(), count, "{name}");
            assert!(permissions.is_subset(Permissions::all()));
        }
        let permissions_of = |names: &[&str]| OwnRoles::default().permissions_of(names);
        assert!(!permissions_of(&["admin"]).contains(Permission::OrganizationDelete));
        assert!(!permissions_of(&["member"]).is_subset(permissions_of(&["billing"])));
        assert_eq!(permissions_of(&["nothing"]), Permissions::default());
    }
}
