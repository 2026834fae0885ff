//! Rows of the access trail as they are stored, coded and sealed.
//!
//! They are no events, and lie beside the log: `requests` writes them, `audit` seals them.

use chrono::{DateTime, Utc};

use super::chain::{ChainKey, Mac};

/// The rows of both tables as one: `part` is 1 for what happened first in a minute, and 2 for how often it came again.
pub const ACCESS_ROWS: &str = "(
    SELECT 1::smallint AS part, id, created_at, kind, actor, operation, organization_id, reached_organization_id, target_id, times,
           ip, mac
    FROM access_trail
    UNION ALL
    SELECT 2::smallint, id, created_at, NULL, NULL, NULL, NULL, NULL, NULL, times, NULL, mac FROM access_repeats
)";

/// A row. Of a repetition there are id, time and number only.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
#[allow(missing_docs)]
pub struct AccessRow {
    pub part: i16,
    pub id: String,
    pub created_at: DateTime<Utc>,
    pub kind: Option<String>,
    pub actor: Option<String>,
    pub operation: Option<String>,
    pub organization_id: Option<String>,
    pub reached_organization_id: Option<String>,
    pub target_id: Option<String>,
    pub times: i64,
    pub ip: Option<String>,
    /// Its code; empty for one of before there were codes.
    pub mac: Mac,
}

impl AccessRow {
    /// The row with its code.
    pub fn coded(mut self, key: &ChainKey) -> Self {
        self.mac = key.of_access(&self);
        self
    }

    /// Whether the service wrote it.
    pub fn is_own(&self, key: &ChainKey) -> bool {
        self.mac == key.of_access(self)
    }
}
