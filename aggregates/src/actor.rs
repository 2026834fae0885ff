//! Actors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{Field, Kind};
use crate::ids::{ApiTokenId, Id, UserId};

/// A principal who does something, or the service. Its text is `user:usr_…`, `operator:usr_…`, `token:tok_…` or
/// `system`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Actor {
    /// A user, in their own name.
    User(UserId),
    /// A user who runs the service, as an operator.
    Operator(UserId),
    /// An organization's API token.
    Token(ApiTokenId),
    /// The service itself.
    #[default]
    System,
}

impl Actor {
    /// The id of the user or the token; the service itself has none.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::User(id) | Self::Operator(id) => Some(id.as_ref()),
            Self::Token(id) => Some(id.as_ref()),
            Self::System => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Operator(id) => write!(f, "operator:{id}"),
            Self::Token(id) => write!(f, "token:{id}"),
            Self::System => f.write_str("system"),
        }
    }
}

impl FromStr for Actor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        fn id<I: Id>(id: &str) -> Result<I, String> {
            id.parse().map_err(|error: crate::ids::InvalidId| error.to_string())
        }
        match text.split_once(':') {
            Some(("user", user)) => Ok(Self::User(id(user)?)),
            Some(("operator", user)) => Ok(Self::Operator(id(user)?)),
            Some(("token", token)) => Ok(Self::Token(id(token)?)),
            None if text == "system" => Ok(Self::System),
            _ => Err(format!("'{text}' is no actor")),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Field for Actor {
    const KIND: Kind = Kind { name: "String", list: false, nullable: false, hidden: false };
}
