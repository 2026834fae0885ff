//! Ids are [TypeIDs](https://github.com/jetify-com/typeid): a lower-case prefix, `_`, and 26 characters of base32
//! over a UUID. The same text stands in the log, in SQL, in GraphQL and in exports.
//!
//! Random ids are UUIDv7. Some ids are derived, so that a rule becomes the stream's own optimistic lock: a
//! membership's id follows from organization and user, and the id of something that a command creates follows
//! from the caller and the idempotency key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use type_safe_id::{DynamicType, TypeSafeId};
use uuid::Uuid;

/// The name space under which ids are derived (UUIDv5). Never change it: ids of existing memberships follow from it.
const DERIVED: Uuid = Uuid::from_u128(0x6ba3_f1d2_8c1e_4b57_9a0d_7e5c_21f4_90ab);

/// Text that is no id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{shown}' is not an id of this kind: expected '{prefix}_' and 26 characters of base32")]
pub struct InvalidId {
    /// The prefix that was expected.
    pub prefix: &'static str,
    /// The beginning of what was given.
    pub shown: String,
}

/// What all ids have in common.
pub trait Id: Sized + fmt::Display + AsRef<str> + FromStr<Err = InvalidId> {
    /// The prefix, for example `org`.
    const PREFIX: &'static str;
    /// The id over this UUID.
    fn from_uuid(uuid: Uuid) -> Self;
    /// The UUID below the id.
    fn uuid(&self) -> Uuid;
    /// A fresh id, sortable by time.
    fn random() -> Self {
        Self::from_uuid(Uuid::now_v7())
    }
    /// The id that follows from `parts`: equal parts give equal ids.
    fn derived(parts: &[&str]) -> Self {
        let mut name = Vec::new();
        for part in parts {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        Self::from_uuid(Uuid::new_v5(&DERIVED, &name))
    }
}

fn render(prefix: &'static str, uuid: Uuid) -> String {
    match DynamicType::new(prefix) {
        Ok(kind) => TypeSafeId::from_type_and_uuid(kind, uuid).to_string(),
        Err(_) => unreachable!("prefixes are constants of this file"),
    }
}

fn parse(prefix: &'static str, text: &str) -> Result<Uuid, InvalidId> {
    let invalid = || InvalidId { prefix, shown: text.chars().take(40).collect() };
    let id: TypeSafeId<DynamicType> = text.parse().map_err(|_| invalid())?;
    if id.type_prefix() == prefix { Ok(id.uuid()) } else { Err(invalid()) }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
            fn from_uuid(uuid: Uuid) -> Self { Self(render($prefix, uuid)) }
            fn uuid(&self) -> Uuid { parse($prefix, &self.0).unwrap_or_default() }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse($prefix, text).map(|_| Self(text.to_owned()))
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str { &self.0 }
        }
        impl crate::event::Field for $name {
            const KIND: crate::event::Kind = crate::event::Kind::scalar("ID");
        }
        impl From<$name> for String {
            fn from(id: $name) -> String { id.0 }
        }
    )*};
}

/// Ids of registered aggregates.
macro_rules! of_resources {
    ($($(#[$doc:meta])* $name:ident: $id:ident = $prefix:literal;)*) => {
        ids! { $($(#[$doc])* $id = $prefix;)* }

        /// How the ids of registered aggregates begin.
        pub const PREFIXES: &[&str] = &[$($prefix),*];
    };
}

crate::for_each_resource!(of_resources);

ids! {
    /// An event on its way to a webhook endpoint.
    WebhookDeliveryId = "dlv";
    /// An event of the log.
    EventId = "evt";
}

impl MembershipId {
    /// The one membership that `user` has in `organization`: leaving and coming back is one history.
    pub fn of(organization: &OrganizationId, user: &UserId) -> Self {
        Self::derived(&["membership", organization.as_ref(), user.as_ref()])
    }
}

impl WebhookDeliveryId {
    /// The one delivery of an event to an endpoint: sent again, it is the same. Sortable by the time of the event.
    pub fn of(endpoint: &WebhookEndpointId, event: &EventId) -> Self {
        let mut bytes = Self::derived(&["delivery", endpoint.as_ref(), event.as_ref()]).uuid().into_bytes();
        // The time of a UUIDv7 stands first.
        bytes[..6].copy_from_slice(&event.uuid().as_bytes()[..6]);
        Self::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_survives_text() {
        let id = OrganizationId::random();
        assert_eq!(id.to_string().parse::<OrganizationId>().unwrap(), id);
        assert_eq!(OrganizationId::from_uuid(id.uuid()), id);
    }

    #[test]
    fn refuses_another_kind_and_what_is_no_id() {
        let user = UserId::random().to_string();
        let upper = OrganizationId::random().to_string().to_uppercase();
        for text in [user.as_str(), "", "org_", "org_zzz", "org_8zzzzzzzzzzzzzzzzzzzzzzzzz", upper.as_str()] {
            assert!(text.parse::<OrganizationId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_membership_follows_from_organization_and_user() {
        let (organization, user) = (OrganizationId::random(), UserId::random());
        assert_eq!(MembershipId::of(&organization, &user), MembershipId::of(&organization, &user));
        assert_ne!(MembershipId::of(&organization, &user), MembershipId::of(&organization, &UserId::random()));
        assert_ne!(MembershipId::derived(&["a", "bc"]), MembershipId::derived(&["ab", "c"]));
    }
}
