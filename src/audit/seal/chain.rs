//! The chain of a partition, as it is sealed.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::super::heads::ChainHead;
use super::super::trail::Entry;
use super::{EVENTS_MAX, PARTITIONS_MAX};
use crate::log::COLUMNS;
use crate::log::chain::{ChainKey, Columns, Cursor, Mac};

/// A partition that is being sealed: where its chain stands, and how far it holds.
pub(super) struct Chain {
    pub(super) cursor: Cursor,
    /// The part of the chain that was known elsewhere and is still to come.
    pub(super) known: Option<ChainHead>,
    /// Why it does not go on.
    pub(super) failure: Option<String>,
    /// What was on record of that before.
    pub(super) failed_before: Option<String>,
    /// Where it stood at first.
    pub(super) before: Cursor,
}

impl Chain {
    /// Begins where the last one sealed ended; `code` is what says that it did.
    pub(super) fn begin(key: &ChainKey, leased: Leased, known: Option<ChainHead>) -> Self {
        let Leased { cursor, code, failure, epoch, epoch_code } = leased;
        let partition = cursor.partition;
        let began = cursor.offset > 0 || cursor.without_mac > 0;
        let newer = known.as_ref().map(|known| known.epoch).filter(|known| *known > epoch);
        let failed = if let Some(newer) = newer {
            Some(format!("the database is of epoch {epoch}, and epoch {newer} was known"))
        } else if began && code != key.of_cursor(&cursor) {
            Some(format!("the service did not write how far partition {partition} is sealed"))
        } else if epoch > 1 && epoch_code != key.of_epoch(epoch) {
            Some(format!("epoch {epoch} was not begun by `tenancy recover`"))
        } else {
            None
        };
        let before = cursor.clone();
        let mut chain = Self { cursor, known: None, failure: failed, failed_before: failure, before };
        match known.filter(|known| known.epoch == epoch) {
            Some(known) if known.offset > chain.cursor.offset => chain.known = Some(known),
            Some(known) if known.offset == chain.cursor.offset && known.mac != chain.cursor.mac => {
                chain
                    .fail(format!("offset {} of partition {partition} is another event than was sealed", known.offset));
            }
            Some(_) | None => {}
        }
        chain
    }

    /// Takes the next event in, if it is what the service wrote after the one before.
    pub(super) fn follow(&mut self, key: &ChainKey, row: &Entry) {
        if self.failure.is_some() {
            return;
        }
        let (event, at) = (&row.event, row.event.offset);
        let (partition, before) = (self.cursor.partition, self.cursor.offset);
        let written = match at <= self.cursor.without_mac {
            true => Mac::new(),
            false => key.of_event(&self.cursor.mac, &Columns::of(event, &row.metadata)),
        };
        let exchanged = |known: &ChainHead| known.offset == at && known.mac != row.mac;
        if at != before + 1 {
            self.fail(format!("offset {at} of partition {partition} follows {before}: the log has a gap"));
        } else if row.mac != written {
            let id = &event.event_id;
            self.fail(format!(
                "event {id} at offset {at} of partition {partition} is not what the service wrote there"
            ));
        } else if self.known.as_ref().is_some_and(exchanged) {
            self.fail(format!("offset {at} of partition {partition} is another event than was sealed"));
        } else {
            (self.cursor.offset, self.cursor.mac) = (at, row.mac.clone());
            self.known.take_if(|known| known.offset <= at);
        }
    }

    /// At the end of what was read, which is all that there is unless it is `more`.
    pub(super) fn end(&mut self, more: bool) {
        if let Some(known) = self.known.as_ref().filter(|_| !more && self.failure.is_none()) {
            let (partition, offset, at) = (self.cursor.partition, known.offset, self.cursor.offset);
            // Nothing of it is signed: it may be another history from anywhere on.
            self.cursor = self.before.clone();
            self.fail(format!("partition {partition} was sealed up to offset {offset}, and ends at {at}"));
        }
    }

    pub(super) fn fail(&mut self, failure: String) {
        _ = self.failure.get_or_insert(failure);
    }

    /// Whether an event of the batch may be sealed.
    pub(super) fn holds(&self, offset: i64) -> bool {
        offset <= self.cursor.offset
    }

    pub(super) fn moved(&self) -> bool {
        self.cursor.offset > self.before.offset
    }
}

/// A partition that this transaction seals.
pub(super) struct Leased {
    pub(super) cursor: Cursor,
    pub(super) code: Mac,
    pub(super) failure: Option<String>,
    pub(super) epoch: i64,
    pub(super) epoch_code: Mac,
}

/// The partitions, or this one, that have something new and that nobody else seals. Those that failed come last.
pub(super) async fn lease(connection: &mut PgConnection, partition: Option<i16>) -> Result<Vec<Leased>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT s.partition, s."offset", s.without_mac, s.mac, s.code, s.failure, i.epoch, i.epoch_code
           FROM seals s CROSS JOIN installation i
           WHERE (SELECT "offset" FROM events WHERE partition = s.partition ORDER BY "offset" DESC LIMIT 1) > s."offset"
             AND ($1::smallint IS NULL OR s.partition = $1)
           ORDER BY s.failure IS NOT NULL, s.partition LIMIT $2 FOR UPDATE OF s SKIP LOCKED"#,
        partition,
        PARTITIONS_MAX
    )
    .fetch_all(connection)
    .await?;
    let leased = rows.into_iter().map(|row| Leased {
        cursor: Cursor { partition: row.partition, offset: row.offset, without_mac: row.without_mac, mac: row.mac },
        code: row.code,
        failure: row.failure,
        epoch: row.epoch,
        epoch_code: row.epoch_code,
    });
    Ok(leased.collect())
}

pub(super) async fn read(
    connection: &mut PgConnection,
    chains: &HashMap<i16, Chain>,
) -> Result<Vec<Entry>, sqlx::Error> {
    let (partitions, offsets): (Vec<i16>, Vec<i64>) =
        chains.values().map(|c| (c.cursor.partition, c.cursor.offset)).unzip();
    let statement = format!(
        r#"SELECT e.* FROM unnest($1::smallint[], $2::bigint[]) AS c(number, at)
           CROSS JOIN LATERAL (
               SELECT COALESCE(audit_sequence, 0) AS number, metadata::text AS metadata, mac, {COLUMNS} FROM events
               WHERE partition = c.number AND "offset" > c.at ORDER BY "offset" LIMIT $3
           ) e ORDER BY e.partition, e."offset""#
    );
    sqlx::query_as(&statement).bind(&partitions).bind(&offsets).bind(EVENTS_MAX).fetch_all(connection).await
}

/// Follows these events along their chains; gives the partitions of which there may be more.
pub(super) fn follow(chains: &mut HashMap<i16, Chain>, rows: &[Entry], key: &ChainKey) -> HashSet<i16> {
    let mut counts: HashMap<i16, i64> = HashMap::new();
    for row in rows {
        *counts.entry(row.event.partition).or_default() += 1;
        if let Some(chain) = chains.get_mut(&row.event.partition) {
            chain.follow(key, row);
        }
    }
    let full: HashSet<i16> = counts.into_iter().filter(|(_, count)| *count == EVENTS_MAX).map(|(of, _)| of).collect();
    chains.iter_mut().for_each(|(number, chain)| chain.end(full.contains(number)));
    full
}

/// Writes how far partitions are sealed, and what keeps them from going on; gives the ends of chains that moved.
pub(super) async fn save_cursors<'a>(
    connection: &mut PgConnection,
    key: &ChainKey,
    chains: impl Iterator<Item = &'a Chain>,
    epoch: i64,
) -> Result<Vec<(i16, ChainHead)>, sqlx::Error> {
    let changed: Vec<&Chain> = chains.filter(|chain| chain.moved() || chain.failure != chain.failed_before).collect();
    // One whose very beginning is doubtful stays as it was found.
    let moved = |chain: &&&Chain| chain.moved();
    let ends = changed.iter().filter(moved).map(|chain| {
        let Cursor { partition, offset, mac, .. } = &chain.cursor;
        (*partition, ChainHead { epoch, offset: *offset, mac: mac.clone() })
    });
    let ends = ends.collect();
    sqlx::query!(
        r#"UPDATE seals s SET "offset" = r.at, mac = r.mac, code = COALESCE(r.code, s.code), failure = r.failure
           FROM unnest($1::smallint[], $2::bigint[], $3::bytea[], $4::bytea[], $5::text[])
                AS r(number, at, mac, code, failure)
           WHERE s.partition = r.number"#,
        &changed.iter().map(|chain| chain.cursor.partition).collect::<Vec<_>>(),
        &changed.iter().map(|chain| chain.cursor.offset).collect::<Vec<_>>(),
        &changed.iter().map(|chain| chain.cursor.mac.clone()).collect::<Vec<_>>(),
        &changed.iter().map(|chain| chain.moved().then(|| key.of_cursor(&chain.cursor))).collect::<Vec<_>>()
            as &[Option<Vec<u8>>],
        &changed.iter().map(|chain| chain.failure.clone()).collect::<Vec<_>>() as &[Option<String>]
    )
    .execute(connection)
    .await?;
    Ok(ends)
}
