//! Who acts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{Field, Kind};
use crate::ids::UserId;

/// Who does something. Its text is `user:usr_…`, `operator:usr_…` or `system`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Actor {
    /// A user, for himself.
    User(UserId),
    /// A user who runs the service, as an operator.
    Operator(UserId),
    /// The service itself.
    #[default]
    System,
}

impl Actor {
    /// The user behind it.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(id) | Self::Operator(id) => Some(id),
            Self::System => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Operator(id) => write!(f, "operator:{id}"),
            Self::System => f.write_str("system"),
        }
    }
}

impl FromStr for Actor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let id = |id: &str| id.parse().map_err(|error: crate::ids::InvalidId| error.to_string());
        match text.split_once(':') {
            Some(("user", user)) => Ok(Self::User(id(user)?)),
            Some(("operator", user)) => Ok(Self::Operator(id(user)?)),
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
