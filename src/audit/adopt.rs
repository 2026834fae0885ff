//! A database of before events carried codes, at the first start of a program that writes some.
//!
//! What it holds then is the beginning of each chain. That is believed once, and put on record under the key of the codes: by
//! a replica that knows no chain of this database, where the newest event of the partition has no code either.

use super::heads::{ChainHead, Error, Heads};
use crate::log::chain::Cursor;
use crate::log::{Log, LogError};

/// Puts the beginnings of chains on record that are not yet.
pub async fn adopt(log: &Log, heads: &Heads) -> Result<(), LogError> {
    let rows = sqlx::query!(
        r#"SELECT s.partition, s."offset", s.without_mac, i.epoch, i.epoch_code FROM seals s CROSS JOIN installation i
           WHERE s.code = '' AND s.mac = '' AND s.without_mac > 0 AND '' = (
               SELECT mac FROM events WHERE partition = s.partition ORDER BY "offset" DESC LIMIT 1
           )"#
    )
    .fetch_all(log.pool())
    .await?;
    let new = rows.iter().filter(|row| heads.chain(row.partition).is_none());
    let key = log.keys().chain();
    let mut ends = vec![];
    for row in new {
        let (partition, offset, without_mac) = (row.partition, row.offset, row.without_mac);
        let cursor = Cursor { partition, offset, without_mac, mac: vec![] };
        sqlx::query!(
            r#"UPDATE seals SET code = $4 WHERE partition = $1 AND "offset" = $2 AND without_mac = $3 AND code = ''"#,
            partition,
            offset,
            without_mac,
            key.of_cursor(&cursor)
        )
        .execute(log.pool())
        .await?;
        ends.push((partition, ChainHead { epoch: row.epoch, offset, mac: vec![] }));
    }
    if let (Some(row), false) = (rows.first(), ends.is_empty())
        && row.epoch > 1
        && row.epoch_code.is_empty()
    {
        sqlx::query!(
            "UPDATE installation SET epoch_code = $2 WHERE epoch = $1 AND epoch_code = ''",
            row.epoch,
            key.of_epoch(row.epoch)
        )
        .execute(log.pool())
        .await?;
    }
    heads.keep(&[], &ends).map_err(|error: Error| LogError::Unkept(error.to_string()))
}
