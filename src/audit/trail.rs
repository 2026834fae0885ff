//! Whose audit trail: an organization's, or the installation's.
//!
//! The installation's trail holds what belongs to no organization: users, and what operators do to them. Its events have no
//! audit sequence; the sealer numbers them as it comes upon them, in `installation_trail`.

use std::str::FromStr;

use aggregates::ids::{InvalidId, OrganizationId};

use super::leaf::Leaf;
use crate::log::{COLUMNS, StoredEvent};

/// The name under which the installation's trail lies where others lie under an organization's id.
pub const INSTALLATION: &str = "installation";

/// The name under which the access trail lies.
pub const ACCESS: &str = "access";

/// Whose audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trail {
    /// An organization's.
    Organization(OrganizationId),
    /// The installation's.
    Installation,
    /// The access trail: it holds no events.
    Access,
}

impl Trail {
    /// The organization, if it is one's.
    pub fn organization(&self) -> Option<&OrganizationId> {
        match self {
            Self::Organization(id) => Some(id),
            Self::Installation | Self::Access => None,
        }
    }
}

impl AsRef<str> for Trail {
    fn as_ref(&self) -> &str {
        match self {
            Self::Organization(id) => id.as_ref(),
            Self::Installation => INSTALLATION,
            Self::Access => ACCESS,
        }
    }
}

impl std::fmt::Display for Trail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_ref())
    }
}

impl FromStr for Trail {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            INSTALLATION => Ok(Self::Installation),
            ACCESS => Ok(Self::Access),
            id => id.parse().map(Self::Organization),
        }
    }
}

impl From<OrganizationId> for Trail {
    fn from(id: OrganizationId) -> Self {
        Self::Organization(id)
    }
}

/// A stored event with what is needed to prove it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Entry {
    /// Its number in the trail, from 1.
    pub number: i64,
    /// Its metadata, as text.
    pub metadata: String,
    /// Its code.
    pub mac: Vec<u8>,
    /// The event.
    #[sqlx(flatten)]
    pub event: StoredEvent,
}

impl Entry {
    /// What is hashed of it.
    pub fn leaf(&self) -> Leaf {
        Leaf::new(&self.event, &self.metadata)
    }
}

/// The beginning of a statement over the entries of the trail of this name (the first parameter), as `t`; further conditions
/// follow, on `t.number` and on columns of events.
pub fn select(trail: &str) -> String {
    let columns = format!("metadata::text AS metadata, mac, {COLUMNS}");
    match trail {
        // The name is asked for so that both have the same parameters.
        INSTALLATION => format!(
            r#"SELECT * FROM (
                   SELECT i.number, {columns} FROM installation_trail i JOIN events USING (partition, "offset")
               ) t WHERE $1::text IS NOT NULL"#
        ),
        _ => format!(
            "SELECT * FROM (SELECT audit_sequence AS number, organization_id AS of, {columns} FROM events) t WHERE of = $1"
        ),
    }
}
