//! The access trail as leaves of a tree, and whether its rows are still those that were sealed.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::check::Pace;
use super::leaf::{push, time};
use super::merkle::{Frontier, Hash, leaf_hash};
use super::proofs::{hashes, there};
use super::seal::TILE;
use crate::log::access::{ACCESS_ROWS, AccessRow, Numbered, dropped, sealed};
use crate::log::{Log, LogError, open_disclosed};

/// The version of the encoding: an event's leaf begins with another byte.
const VERSION: u8 = 2;
/// How many rows are read at once.
const PAGE: i64 = 500;
/// By how much later than the first row that was sealed one may be that carries no code.
const CLOCKS: TimeDelta = TimeDelta::hours(1);
/// The most findings.
const FINDINGS_MAX: usize = 10;

/// The columns of a row that are hashed, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// `record`, or `repeat` for how often it came again.
    pub part: Option<String>,
    /// Its id; a repetition has that of its record.
    pub id: Option<String>,
    /// When it began.
    pub created_at: Option<String>,
    /// What kind of access.
    pub kind: Option<String>,
    /// The caller.
    pub actor: Option<String>,
    /// By which operation.
    pub operation: Option<String>,
    /// In whose trail it stands.
    pub organization_id: Option<String>,
    /// Whom it was for, of a reach across tenants.
    pub reached_organization_id: Option<String>,
    /// The id that the caller gave.
    pub target_id: Option<String>,
    /// How often.
    pub times: Option<String>,
    /// From which address, as ciphertext.
    pub ip: Option<String>,
}

impl Record {
    /// Those of a stored row.
    pub fn of(row: &AccessRow) -> Self {
        let part = if row.part == 1 { "record" } else { "repeat" };
        Self {
            part: Some(part.to_owned()),
            id: Some(row.id.clone()),
            created_at: Some(time(row.created_at)),
            kind: row.kind.clone(),
            actor: row.actor.clone(),
            operation: row.operation.clone(),
            organization_id: row.organization_id.clone(),
            reached_organization_id: row.reached_organization_id.clone(),
            target_id: row.target_id.clone(),
            times: Some(row.times.to_string()),
            ip: row.ip.clone(),
        }
    }

    /// The hash of the leaf: the byte 2, then each column as an event's are.
    pub fn hash(&self) -> Hash {
        let mut bytes = vec![VERSION];
        let columns = [
            &self.part,
            &self.id,
            &self.created_at,
            &self.kind,
            &self.actor,
            &self.operation,
            &self.organization_id,
            &self.reached_organization_id,
            &self.target_id,
            &self.times,
            &self.ip,
        ];
        columns.into_iter().for_each(|column| push(&mut bytes, column.as_deref()));
        leaf_hash(&bytes)
    }

    /// A column that every record has, and this one has not.
    pub fn missing(&self) -> Option<&'static str> {
        let due = [("part", &self.part), ("id", &self.id), ("createdAt", &self.created_at), ("times", &self.times)];
        due.into_iter().find(|(_, value)| value.is_none()).map(|(name, _)| name)
    }
}

/// What is readable of the address of each of these rows: the address, and what opens it and nothing else.
pub async fn disclose(log: &Log, rows: &[Numbered]) -> Result<Vec<Option<(String, [u8; 32])>>, LogError> {
    let subject = |row: &AccessRow| Some(row.actor.as_deref()?.split_once(':')?.1.to_owned());
    let with_address: Vec<String> =
        rows.iter().filter(|row| row.row.ip.is_some()).filter_map(|row| subject(&row.row)).collect();
    let keys = log.keys().find(with_address.iter().map(String::as_str)).await?;
    let open = |Numbered { row, .. }: &Numbered| {
        let place = address_place(&row.id);
        let key = keys.of_place(&subject(row)?, &place)?;
        Some((open_disclosed(&key, &place, row.ip.as_deref()?)?, key))
    };
    Ok(rows.iter().map(open).collect())
}

/// Where the address of a record is sealed for.
pub fn address_place(id: &str) -> String {
    format!("{id}/ip")
}

/// Checks the rows of the access trail.
pub(super) struct AccessCheck<'a> {
    pub log: &'a Log,
    pub pace: Pace,
}

impl AccessCheck<'_> {
    /// Compares the rows with their sealed hashes; gives how many, and the root that the hashes add up to.
    pub(super) async fn compare(
        &self,
        trail: &str,
        size: u64,
        wrong: &mut Vec<String>,
    ) -> Result<(u64, Option<Hash>), LogError> {
        let pool = self.log.pool();
        let (mut frontier, mut seen) = (Frontier::default(), 0);
        let key = self.log.keys().chain();
        let (mut gone, is_own) = dropped(pool, key).await?;
        if !is_own {
            wrong.push(format!("the service did not drop the records up to {gone}"));
        }
        while frontier.size() < size {
            let from = frontier.size();
            let to = (from + TILE).min(size);
            let leaves: Vec<(u64, u64)> = (from..to).map(|index| (index, index + 1)).collect();
            let Some(due) = there(hashes(pool, trail, &leaves).await)? else {
                wrong.push(format!("hashes of records {} to {to} are gone", from + 1));
                return Ok((seen, None));
            };
            let rows = sealed(pool, (from.cast_signed(), to.cast_signed()), TILE.cast_signed()).await?;
            self.pace.after(rows.len()).await;
            let mut rows = rows.into_iter().peekable();
            for (number, hash) in (from + 1..).zip(&due) {
                frontier.push(*hash, |_, _| {});
                let Some(Numbered { row, .. }) = rows.next_if(|row| row.number == number.cast_signed()) else {
                    if number > gone.unsigned_abs() && is_own {
                        // Some may have been dropped meanwhile.
                        gone = dropped(pool, key).await?.0;
                    }
                    if number > gone.unsigned_abs() {
                        wrong.push(format!("record {number} is gone"));
                        wrong.truncate(FINDINGS_MAX);
                    }
                    continue;
                };
                seen += 1;
                if Record::of(&row).hash() != *hash {
                    wrong.push(format!("record {number} ({}) is not what was sealed", row.id));
                }
                wrong.truncate(FINDINGS_MAX);
            }
        }
        self.unsealed(wrong).await?;
        Ok((seen, Some(frontier.root())))
    }

    /// Whether every row is one that the service wrote, and sealed or about to be.
    async fn unsealed(&self, wrong: &mut Vec<String>) -> Result<(), LogError> {
        #[derive(sqlx::FromRow)]
        struct Found {
            known: bool,
            #[sqlx(flatten)]
            row: AccessRow,
        }
        let key = self.log.keys().chain();
        let first =
            sealed(self.log.pool(), (0, i64::MAX), 1).await?.into_iter().next().map(|first| first.row.created_at);
        for part in [1i16, 2] {
            let statement = format!(
                "SELECT a.*, EXISTS (SELECT FROM access_seals s WHERE s.id = a.id AND s.part = a.part)
                     OR EXISTS (SELECT FROM access_unsealed u WHERE u.id = a.id AND u.part = a.part) AS known
                 FROM {ACCESS_ROWS} a WHERE a.part = $1 AND a.id > $2 ORDER BY a.id LIMIT {PAGE}"
            );
            let mut after = String::new();
            loop {
                let page: Vec<Found> =
                    sqlx::query_as(&statement).bind(part).bind(&after).fetch_all(self.log.pool()).await?;
                let Some(last) = page.last() else { break };
                after.clone_from(&last.row.id);
                self.pace.after(page.len()).await;
                for Found { known, row } in page {
                    let is_before = row.mac.is_empty() && is_before(row.created_at, first);
                    if !is_before && !row.is_own(key) {
                        wrong.push(format!("record {} is not what the service wrote", row.id));
                    } else if !is_before && !known {
                        wrong.push(format!("record {} was taken out of what is sealed", row.id));
                    }
                    wrong.truncate(FINDINGS_MAX);
                }
            }
        }
        Ok(())
    }
}

/// Whether a row without a code may be one of before there were codes.
fn is_before(at: DateTime<Utc>, first: Option<DateTime<Utc>>) -> bool {
    first.is_none_or(|first| at <= first + CLOCKS)
}
