//! How far organizations and users are: one statement tells whether something that was made from them still holds.

use std::collections::BTreeSet;

use aggregates::ids::{OrganizationId, UserId};

use super::{Heads, Log, LogError};

/// Organizations and users that something was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Everything that happened in these.
    pub organizations: BTreeSet<OrganizationId>,
    /// Everything that happened to these.
    pub users: BTreeSet<UserId>,
}

impl Sources {
    /// Whether all of these are among `others`.
    pub fn are_among(&self, others: &Self) -> bool {
        self.organizations.is_subset(&others.organizations) && self.users.is_subset(&others.users)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.organizations.len() + self.users.len()
    }
}

/// How far some [`Sources`] are. Of two that are equal, everything that was made from them is equal too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    epoch: i64,
    ledger_revision: i64,
    keys_revision: i64,
    /// How many events each has, organizations first.
    numbers: Vec<i64>,
}

impl Log {
    /// How far these are now, and up to which offsets that is.
    pub async fn stand(&self, sources: &Sources) -> Result<(Stand, Heads), LogError> {
        let organizations: Vec<&str> = sources.organizations.iter().map(AsRef::as_ref).collect();
        let users: Vec<&str> = sources.users.iter().map(AsRef::as_ref).collect();
        let asked = std::time::Instant::now();
        let row = sqlx::query_file!("src/log/stand.sql", &organizations as &[&str], &users as &[&str]);
        let row = row.fetch_one(&self.pool).await?;
        // Whatever is made after this opens nothing by a key that was destroyed before.
        self.keys.saw(Some(asked), row.keys_revision);
        let mut heads = Heads::new();
        for (id, offset) in organizations.iter().chain(&users).zip(row.offsets) {
            let head = heads.entry(self.partition_of(id)).or_default();
            *head = offset.max(*head);
        }
        let (epoch, ledger_revision, keys_revision) = (row.epoch, row.ledger_revision, row.keys_revision);
        Ok((Stand { epoch, ledger_revision, keys_revision, numbers: row.numbers }, heads))
    }
}
