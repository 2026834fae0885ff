//! Personal data inside events.
//!
//! The log is immutable, so what can be read of a person in it must be able to become unreadable later. A
//! [`Personal`] field says whose datum it is; the log encrypts it under that person's key before storing and
//! hashing, and opens it when reading. Erasing the person destroys the key: the event stays as it is, its proof
//! holds, and the field reads as erased.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::ids::{EventId, UserId};

/// A datum about somebody: readable, sealed (as it is stored) or erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personal {
    /// Whose it is: a `usr_…`, an `inv_…` (an invitee who is no user yet) or an `org_…` (a contact address, unless it
    /// is the own one of the user who set it).
    of: String,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Content {
    Value(String),
    Sealed(String),
    Erased(bool),
}

impl Personal {
    /// A readable datum of `of`.
    pub fn new(of: impl Into<String>, value: impl Into<String>) -> Self {
        Self { of: of.into(), content: Content::Value(value.into()) }
    }

    /// Whose datum it is.
    pub fn of(&self) -> &str {
        &self.of
    }

    /// The same datum, as one of `of`.
    pub fn owned_by(self, of: impl Into<String>) -> Self {
        Self { of: of.into(), ..self }
    }

    /// The datum, or `None` where it is erased (or still sealed).
    pub fn value(&self) -> Option<&str> {
        match &self.content {
            Content::Value(value) => Some(value),
            Content::Sealed(_) | Content::Erased(_) => None,
        }
    }

    /// Replaces a readable datum by `seal(datum)`; `None` erases it. Does nothing to what is sealed or erased.
    pub fn seal(&mut self, seal: impl FnOnce(&str) -> Option<String>) {
        if let Content::Value(value) = &self.content {
            self.content = seal(value).map_or(Content::Erased(true), Content::Sealed);
        }
    }

    /// Replaces a sealed datum by `open(text)`; `None` means that its key is gone, and erases it.
    pub fn open(&mut self, open: impl FnOnce(&str) -> Option<String>) {
        if let Content::Sealed(text) = &self.content {
            self.content = open(text).map_or(Content::Erased(true), Content::Value);
        }
    }

    /// Whether the datum is still sealed.
    pub fn is_sealed(&self) -> bool {
        matches!(self.content, Content::Sealed(_))
    }
}

/// What an erasure records beside that it happened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Erasure {
    /// The operator, and why; nobody where it follows from another erasure.
    pub because: Option<(UserId, String)>,
    /// Events that stay and whose reason names the person.
    pub named_in: Option<Vec<EventId>>,
    /// Whether there may be more.
    pub named_in_more: Option<bool>,
    /// When the person was erased first, where a restored database had forgotten that.
    pub first_at: Option<DateTime<Utc>>,
}

/// The readable datum of an optional field.
pub fn readable(personal: &Option<Personal>) -> Option<&str> {
    personal.as_ref().and_then(Personal::value)
}

/// A keyed hash that stands in an event so that a claim can be rebuilt, or a secret be recognised, without the
/// datum itself. It is part of the log and of nothing that anybody is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sealing_and_opening_are_inverse_and_a_lost_key_erases() {
        let mut personal = Personal::new("usr_x", "ada@example.com");
        personal.seal(|value| Some(value.chars().rev().collect()));
        assert_eq!(personal.value(), None);
        let stored = serde_json::to_string(&personal).unwrap();
        assert_eq!(stored, r#"{"of":"usr_x","sealed":"moc.elpmaxe@ada"}"#);

        let mut opened: Personal = serde_json::from_str(&stored).unwrap();
        opened.open(|text| Some(text.chars().rev().collect()));
        assert_eq!(opened.value(), Some("ada@example.com"));

        let mut erased: Personal = serde_json::from_str(&stored).unwrap();
        erased.open(|_| None);
        assert_eq!((erased.value(), erased.of()), (None, "usr_x"));
    }
}
