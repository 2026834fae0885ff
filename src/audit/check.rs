//! Whether the log is still what the service wrote and signed: for who has the database; others verify a bundle.
//!
//! Two walks. Along each partition, every event is held against its code, and the end of the chain against what is known of it
//! outside of the database. Along each organization, every event is held against its sealed hash, the hashes against the newest
//! signed head, and that against the head that is known outside.

use std::collections::HashSet;
use std::time::Duration;

use aggregates::PRUNED;
use aggregates::ids::OrganizationId;

use super::heads::{Heads, TreeHead};
use super::leaf::Leaf;
use super::merkle::{Frontier, Hash};
use super::note::{VerifierKey, checkpoint_of};
use super::proofs::{hashes, root_at};
use super::seal::TILE;
use crate::log::alarms::About;
use crate::log::chain::{Columns, Cursor, Mac};
use crate::log::{COLUMNS, Log, LogError, StoredEvent};

/// How many organizations are listed at once.
const PAGE: i64 = 1_000;
/// How many events of a partition are read at once.
const PARTITION_PAGE: i64 = 500;
/// The most findings of one organization or partition.
const FINDINGS_MAX: usize = 10;
/// A head is known outside before it is in the database: how often it is looked again, and after how long.
const LOOK_AGAIN: u32 = 5;
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// The events of an organization by which others of it may have lost their content.
const SAID: [&str; 2] = ["OrgPurged", "OrgPruned"];

#[derive(sqlx::FromRow)]
struct Row {
    metadata: String,
    mac: Mac,
    #[sqlx(flatten)]
    event: StoredEvent,
}

/// Something that is not as it was written or signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// About what.
    pub about: About,
    /// What is wrong.
    pub text: String,
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Checked {
    /// How many events were looked at.
    pub events: u64,
    /// What is wrong.
    pub wrong: Vec<Wrong>,
}

/// How fast is read.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So many events a second at most; 0 is no limit.
    pub events_per_second: u32,
}

impl Pace {
    async fn after(self, events: usize) {
        if self.events_per_second > 0 {
            tokio::time::sleep(Duration::from_secs_f64(events as f64 / f64::from(self.events_per_second))).await;
        }
    }
}

/// Checks a log.
pub struct Check<'a> {
    /// The log.
    pub log: &'a Log,
    /// Keys of which one has to have signed each head.
    pub keys: &'a [VerifierKey],
    /// What is known outside of the database.
    pub heads: &'a Heads,
    /// How fast.
    pub pace: Pace,
}

impl Check<'_> {
    /// Walks along a partition, as far as it was sealed.
    pub async fn partition(&self, partition: i16) -> Result<Checked, LogError> {
        let mut checked = Checked::default();
        let key = self.log.keys().chain();
        let known = self.heads.chain(partition);
        let row = sqlx::query!(r#"SELECT "offset", without_mac, mac, code FROM seals WHERE partition = $1"#, partition)
            .fetch_optional(self.log.pool())
            .await?;
        let Some(row) = row else { return Ok(checked) };
        let cursor = Cursor { partition, offset: row.offset, without_mac: row.without_mac, mac: row.mac };
        let mut wrong = vec![];
        if (cursor.offset > 0 || cursor.without_mac > 0) && row.code != key.of_cursor(&cursor) {
            wrong.push(format!("the service did not write how far partition {partition} is sealed"));
        }
        let statement = format!(
            r#"SELECT metadata::text AS metadata, mac, {COLUMNS} FROM events
               WHERE partition = $1 AND "offset" > $2 AND "offset" <= $3 ORDER BY "offset" LIMIT {PARTITION_PAGE}"#
        );
        let (mut at, mut mac) = (0, Mac::new());
        while at < cursor.offset {
            let query = sqlx::query_as(&statement).bind(partition).bind(at).bind(cursor.offset);
            let rows: Vec<Row> = query.fetch_all(self.log.pool()).await?;
            for row in &rows {
                let (offset, id) = (row.event.offset, &row.event.event_id);
                if offset != at + 1 {
                    wrong.push(format!("offset {offset} of partition {partition} follows {at}: events are gone"));
                }
                let written = match offset <= cursor.without_mac {
                    true => Mac::new(),
                    false => key.of_event(&mac, &Columns::of(&row.event, &row.metadata)),
                };
                // That an event may have lost its content is looked at where its organization is.
                if row.mac != written && row.event.event_type != PRUNED.name {
                    let text =
                        format!("event {id} at offset {offset} of partition {partition} is not what was written");
                    let organization = row.event.organization_id.clone();
                    checked.wrong.extend(organization.filter(|_| wrong.len() < FINDINGS_MAX).map(|organization| {
                        Wrong {
                            about: About::Organization(organization),
                            text: format!("event {id} is not what the service wrote"),
                        }
                    }));
                    wrong.push(text);
                }
                if known.as_ref().is_some_and(|known| known.offset == offset && known.mac != row.mac)
                    && known.as_ref().is_some_and(|known| known.epoch == self.log.epoch())
                {
                    wrong.push(format!("offset {offset} of partition {partition} is another event than was sealed"));
                }
                (at, mac) = (offset, row.mac.clone());
            }
            checked.events += rows.len() as u64;
            if rows.is_empty() {
                wrong.push(format!("partition {partition} was sealed up to {} and ends at {at}", cursor.offset));
                break;
            }
            self.pace.after(rows.len()).await;
        }
        if at == cursor.offset && mac != cursor.mac {
            wrong.push(format!("offset {at} of partition {partition} is another event than was sealed"));
        }
        wrong.truncate(FINDINGS_MAX);
        checked.wrong.extend(wrong.into_iter().map(|text| Wrong { about: About::Partition(partition), text }));
        Ok(checked)
    }

    /// Organizations after this one, by id, of which there is a tree, in the database or outside; some of them.
    pub async fn organizations(&self, after: &str) -> Result<Vec<String>, LogError> {
        let mut ids = sqlx::query_scalar!(
            "SELECT organization_id FROM sealed_trees WHERE organization_id > $1 ORDER BY organization_id LIMIT $2",
            after,
            PAGE
        )
        .fetch_all(self.log.pool())
        .await?;
        let last = ids.last().cloned().filter(|_| ids.len() as i64 == PAGE);
        let outside = self.heads.organizations(self.log.epoch()).into_iter();
        let near = |id: &String| id.as_str() > after && last.as_ref().is_none_or(|last| id <= last);
        ids.extend(outside.filter(near));
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Walks along an organization's trail, as far as it was sealed.
    pub async fn organization(&self, id: &str) -> Result<Checked, LogError> {
        let mut wrong = vec![];
        let mut looked = 0;
        let (known, tree) = loop {
            let known = self.heads.tree(id).filter(|known| known.epoch == self.log.epoch());
            let tree = sqlx::query!("SELECT size, note, failure FROM sealed_trees WHERE organization_id = $1", id)
                .fetch_optional(self.log.pool())
                .await?;
            let size = tree.as_ref().map_or(0, |tree| tree.size.unsigned_abs());
            if looked == LOOK_AGAIN || known.as_ref().is_none_or(|known| known.size <= size) {
                break (known, tree);
            }
            looked += 1;
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        };
        let size = tree.as_ref().map_or(0, |tree| tree.size.unsigned_abs());
        if let Some(known) = known.as_ref().filter(|known| known.size > size) {
            wrong.push(format!("a tree of {} events was signed, and there is one of {size}", known.size));
        }
        let mut events = 0;
        if let Some(tree) = tree {
            wrong.extend(tree.failure.as_ref().map(|failure| format!("it is not sealed any further: {failure}")));
            let root;
            (events, root) = self.compare(id, size, &mut wrong).await?;
            match checkpoint_of(&tree.note, self.keys, id) {
                Err(error) => wrong.push(format!("the newest head does not count: {error}")),
                Ok(head) if head.size != size || root.is_some_and(|root| head.root != root) => {
                    wrong.push(format!("what is sealed does not add up to the newest head, of {} events", head.size));
                }
                Ok(head) => self.hold_against(id, known, head.size, head.root, &mut wrong).await?,
            }
        }
        wrong.truncate(FINDINGS_MAX);
        let wrong = wrong.into_iter().map(|text| Wrong { about: About::Organization(id.to_owned()), text });
        Ok(Checked { events, wrong: wrong.collect() })
    }

    /// Holds a signed head against the one that was known, and keeps it if it continues that one.
    async fn hold_against(
        &self,
        id: &str,
        known: Option<TreeHead>,
        size: u64,
        root: Hash,
        wrong: &mut Vec<String>,
    ) -> Result<(), LogError> {
        if let Some(known) = known.filter(|known| known.size <= size)
            && root_at(self.log.pool(), id, known.size).await.ok() != Some(known.root)
        {
            wrong.push(format!("another tree of {} events was signed before", known.size));
        }
        if wrong.is_empty() {
            let head = TreeHead { epoch: self.log.epoch(), size, root };
            let kept = self.heads.keep(&[(id.to_owned(), head)], &[]);
            kept.map_err(|error| LogError::Unkept(error.to_string()))?;
        }
        Ok(())
    }

    /// Compares the events of an organization; gives how many, and the root that the sealed hashes add up to.
    async fn compare(&self, id: &str, size: u64, wrong: &mut Vec<String>) -> Result<(u64, Option<Hash>), LogError> {
        let pool = self.log.pool();
        let statement = format!(
            "SELECT metadata::text AS metadata, mac, {COLUMNS} FROM events
             WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3 ORDER BY audit_sequence"
        );
        let (mut frontier, mut events) = (Frontier::default(), 0);
        // Events without content, and what says that they may have lost it, as it was sealed.
        let (mut pruned, mut said): (Option<u64>, HashSet<&str>) = (None, HashSet::new());
        while frontier.size() < size {
            let from = frontier.size();
            let to = (from + TILE).min(size);
            let leaves: Vec<(u64, u64)> = (from..to).map(|index| (index, index + 1)).collect();
            let Ok(sealed) = hashes(pool, id, &leaves).await else {
                wrong.push(format!("hashes of events {} to {to} are gone", from + 1));
                return Ok((events, None));
            };
            let query = sqlx::query_as(&statement).bind(id).bind(from.cast_signed()).bind(to.cast_signed());
            let rows: Vec<Row> = query.fetch_all(pool).await?;
            self.pace.after(rows.len()).await;
            let mut rows = rows.into_iter().peekable();
            for (sequence, hash) in (from + 1..).zip(&sealed) {
                frontier.push(*hash, |_, _| {});
                match rows.next_if(|row| row.event.audit_sequence == Some(sequence.cast_signed())) {
                    None => wrong.push(format!("event {sequence} is gone")),
                    Some(row) if row.event.event_type == PRUNED.name => pruned = Some(sequence),
                    Some(row) if Leaf::new(&row.event, &row.metadata).hash() != *hash => {
                        let id = row.event.event_id;
                        wrong.push(format!("event {sequence} ({id}) is not what was sealed"));
                    }
                    Some(row) => {
                        events += 1;
                        let own = |name: &&&str| row.event.event_type == **name && row.event.aggregate_id == id;
                        said.extend(SAID.iter().find(own));
                    }
                }
            }
        }
        if let Some(sequence) = pruned.filter(|_| said.len() < SAID.len()) {
            wrong.push(format!("event {sequence} has no content, and nothing says that it may be pruned"));
        }
        Ok((events, Some(frontier.root())))
    }

    /// Everything, or one organization.
    pub async fn all(&self, organization: Option<&OrganizationId>) -> Result<Checked, LogError> {
        if let Some(organization) = organization {
            return self.organization(organization.as_ref()).await;
        }
        let mut all = Checked::default();
        for partition in 0..self.log.partitions() {
            // These events are looked at once more, where their organization is.
            all.wrong.extend(self.partition(partition).await?.wrong);
        }
        let mut after = String::new();
        loop {
            let ids = self.organizations(&after).await?;
            let Some(last) = ids.last() else { return Ok(all) };
            after.clone_from(last);
            for id in &ids {
                let checked = self.organization(id).await?;
                all.events += checked.events;
                all.wrong.extend(checked.wrong);
            }
        }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.about {
            About::Organization(id) => write!(f, "{id}: {}", self.text),
            About::Partition(_) => f.write_str(&self.text),
        }
    }
}
