//! Whether the log is still what the service wrote and signed: for who has the database; others verify a bundle.
//!
//! Two walks. Along each partition, every event is held against its code, and the end of the chain against what is known of it
//! outside of the database. Along each organization, every event is held against its sealed hash, the hashes against the newest
//! signed head, and that against the head that is known outside.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aggregates::PRUNED;

use super::access::AccessCheck;
use super::heads::{ChainHead, Heads, TreeHead};
use super::merkle::{Frontier, Hash};
use super::note::{VerifierKey, checkpoint_of};
use super::proofs::{hashes, root_at, there};
use super::seal::TILE;
use super::trail::{ACCESS, Entry, Trail, select};
use crate::log::alarms::About;
use crate::log::chain::{ChainKey, Columns, Cursor, Mac};
use crate::log::{COLUMNS, Log, LogError};

/// How many organizations are listed at once.
const PAGE: i64 = 1_000;
/// How many events of a partition are read at once.
const PARTITION_PAGE: i64 = 500;
/// The most findings of one organization or partition.
const FINDINGS_MAX: usize = 10;
/// A head is known outside before it is in the database: how often it is looked again in a whole walk, and after how long. A
/// database that was rolled back as a whole is not waited for at each of its trails.
const LOOK_AGAIN: u32 = 5;
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// The events of an organization by which others of it may have lost their content.
const SAID: [&str; 2] = ["OrgPurged", "OrgPruned"];

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
    /// The head of the tree, where nothing is wrong with it: to be known from now on.
    pub head: Option<TreeHead>,
}

/// How fast is read.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So many events a second at most; 0 is no limit.
    pub events_per_second: u32,
}

impl Pace {
    pub(super) async fn after(self, events: usize) {
        if self.events_per_second > 0 {
            tokio::time::sleep(Duration::from_secs_f64(events as f64 / f64::from(self.events_per_second))).await;
        }
    }
}

/// A walk along a partition's chain.
struct Walk<'a> {
    key: &'a ChainKey,
    cursor: Cursor,
    known: Option<ChainHead>,
    at: i64,
    mac: Mac,
    events: u64,
    wrong: Vec<String>,
    /// What is to be said to whose event it is.
    own: Vec<Wrong>,
}

impl Walk<'_> {
    fn step(&mut self, row: &Entry) {
        let (partition, offset, id) = (self.cursor.partition, row.event.offset, &row.event.event_id);
        if offset != self.at + 1 {
            self.wrong.push(format!("offset {offset} of partition {partition} follows {}: events are gone", self.at));
        }
        let written = match offset <= self.cursor.without_mac {
            true => Mac::new(),
            false => self.key.of_event(&self.mac, &Columns::of(&row.event, &row.metadata)),
        };
        // That an event may have lost its content is looked at where its organization is.
        if row.mac != written && row.event.event_type != PRUNED.name {
            let text = format!("event {id} is not what the service wrote");
            let about = row.event.organization_id.clone().filter(|_| self.own.len() < FINDINGS_MAX);
            self.own.extend(about.map(|id| Wrong { about: About::Organization(id), text }));
            self.wrong.push(format!("event {id} at offset {offset} of partition {partition} is not what was written"));
        }
        if self.known.as_ref().is_some_and(|known| known.offset == offset && known.mac != row.mac) {
            self.wrong.push(format!("offset {offset} of partition {partition} is another event than was sealed"));
        }
        (self.at, self.mac) = (offset, row.mac.clone());
        self.events += 1;
    }

    fn end(mut self) -> Checked {
        let (partition, end) = (self.cursor.partition, self.cursor.offset);
        if let Some(known) = self.known.as_ref().filter(|known| known.offset > end) {
            let sealed = known.offset;
            self.wrong
                .push(format!("partition {partition} was sealed up to offset {sealed}, and is said to be up to {end}"));
        }
        if self.at < end {
            self.wrong.push(format!("partition {partition} was sealed up to {end} and ends at {}", self.at));
        } else if self.mac != self.cursor.mac {
            self.wrong.push(format!("offset {end} of partition {partition} is another event than was sealed"));
        }
        self.wrong.truncate(FINDINGS_MAX);
        let mut wrong = self.own;
        wrong.extend(self.wrong.into_iter().map(|text| Wrong { about: About::Partition(partition), text }));
        Checked { events: self.events, wrong, head: None }
    }
}

/// Checks a log.
pub struct Check<'a> {
    log: &'a Log,
    keys: &'a [VerifierKey],
    heads: &'a Heads,
    pace: Pace,
    looked_again: AtomicU32,
}

impl<'a> Check<'a> {
    /// A check of this log. `keys` are those of which one has to have signed each head.
    pub fn new(log: &'a Log, keys: &'a [VerifierKey], heads: &'a Heads, pace: Pace) -> Self {
        Self { log, keys, heads, pace, looked_again: AtomicU32::new(0) }
    }

    /// Walks along a partition, as far as it was sealed.
    pub async fn partition(&self, partition: i16) -> Result<Checked, LogError> {
        let key = self.log.keys().chain();
        let (known, row) = loop {
            let known = self.heads.chain(partition).filter(|known| known.epoch == self.log.epoch());
            let row =
                sqlx::query!(r#"SELECT "offset", without_mac, mac, code FROM seals WHERE partition = $1"#, partition)
                    .fetch_optional(self.log.pool())
                    .await?;
            let Some(row) = row else { return Ok(Checked::default()) };
            if known.as_ref().is_none_or(|known| known.offset <= row.offset) || !self.looks_again().await {
                break (known, row);
            }
        };
        let cursor = Cursor { partition, offset: row.offset, without_mac: row.without_mac, mac: row.mac };
        let signed = (cursor.offset == 0 && cursor.without_mac == 0) || row.code == key.of_cursor(&cursor);
        let mut walk = Walk { key, cursor, known, at: 0, mac: Mac::new(), events: 0, wrong: vec![], own: vec![] };
        if !signed {
            walk.wrong.push(format!("the service did not write how far partition {partition} is sealed"));
        }
        let statement = format!(
            r#"SELECT 0::bigint AS number, metadata::text AS metadata, mac, {COLUMNS} FROM events
               WHERE partition = $1 AND "offset" > $2 AND "offset" <= $3 ORDER BY "offset" LIMIT {PARTITION_PAGE}"#
        );
        while walk.at < walk.cursor.offset {
            let query = sqlx::query_as(&statement).bind(partition).bind(walk.at).bind(walk.cursor.offset);
            let rows: Vec<Entry> = query.fetch_all(self.log.pool()).await?;
            self.in_trail(partition, &rows, &mut walk.wrong).await?;
            if rows.is_empty() {
                break;
            }
            rows.iter().for_each(|row| walk.step(row));
            self.pace.after(rows.len()).await;
        }
        Ok(walk.end())
    }

    /// Waits for a moment, if it has not waited long already in this walk.
    async fn looks_again(&self) -> bool {
        if self.looked_again.fetch_add(1, Ordering::Relaxed) >= LOOK_AGAIN {
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        true
    }

    /// Whether those of these events that belong to no organization are in the installation's trail.
    async fn in_trail(&self, partition: i16, rows: &[Entry], wrong: &mut Vec<String>) -> Result<(), LogError> {
        let outside = rows.iter().filter(|row| row.event.organization_id.is_none());
        let offsets: Vec<i64> = outside.map(|row| row.event.offset).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let missing = sqlx::query_scalar!(
            r#"SELECT o.at AS "at!" FROM unnest($2::bigint[]) AS o(at)
               WHERE NOT EXISTS (SELECT FROM installation_trail WHERE partition = $1 AND "offset" = o.at)"#,
            partition,
            &offsets
        );
        for offset in missing.fetch_all(self.log.pool()).await? {
            wrong.push(format!("offset {offset} of partition {partition} is gone from the installation's trail"));
        }
        Ok(())
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

    /// Walks along an organization's trail, as far as it was sealed. Trees are written without waiting for the disk: a server that
    /// dies in the middle of a walk takes some of what was read, which is sealed again soon. So findings have to be found twice.
    pub async fn organization(&self, id: &str) -> Result<Checked, LogError> {
        let checked = self.walk(id).await?;
        if checked.wrong.is_empty() || !self.looks_again().await {
            return Ok(checked);
        }
        self.walk(id).await
    }

    async fn walk(&self, id: &str) -> Result<Checked, LogError> {
        let mut wrong = vec![];
        let (known, tree) = loop {
            let known = self.heads.tree(id).filter(|known| known.epoch == self.log.epoch());
            let tree = sqlx::query!("SELECT size, note, failure FROM sealed_trees WHERE organization_id = $1", id)
                .fetch_optional(self.log.pool())
                .await?;
            let size = tree.as_ref().map_or(0, |tree| tree.size.unsigned_abs());
            if known.as_ref().is_none_or(|known| known.size <= size) || !self.looks_again().await {
                break (known, tree);
            }
        };
        let size = tree.as_ref().map_or(0, |tree| tree.size.unsigned_abs());
        if let Some(known) = known.as_ref().filter(|known| known.size > size) {
            wrong.push(format!("a tree of {} events was signed, and there is one of {size}", known.size));
        }
        let (mut events, mut new) = (0, None);
        if let Some(tree) = tree {
            wrong.extend(tree.failure.as_ref().map(|failure| format!("it is not sealed any further: {failure}")));
            let root;
            (events, root) = match id {
                ACCESS => AccessCheck { log: self.log, pace: self.pace }.compare(id, size, &mut wrong).await?,
                id => self.compare(id, size, &mut wrong).await?,
            };
            match checkpoint_of(&tree.note, self.keys, id) {
                Err(error) => wrong.push(format!("the newest head does not count: {error}")),
                Ok(head) if head.size != size || root.is_some_and(|root| head.root != root) => {
                    wrong.push(format!("what is sealed does not add up to the newest head, of {} events", head.size));
                }
                Ok(head) => {
                    let (size, root) = (head.size, head.root);
                    let then = known.filter(|known| known.size <= size);
                    if let Some(then) = then
                        && there(root_at(self.log.pool(), id, then.size).await)? != Some(then.root)
                    {
                        wrong.push(format!("another tree of {} events was signed before", then.size));
                    }
                    new = Some(TreeHead { epoch: self.log.epoch(), size, root });
                }
            }
        }
        let head = new.filter(|_| wrong.is_empty());
        wrong.truncate(FINDINGS_MAX);
        let wrong = wrong.into_iter().map(|text| Wrong { about: About::Organization(id.to_owned()), text });
        Ok(Checked { events, wrong: wrong.collect(), head })
    }

    /// Compares the events of an organization; gives how many, and the root that the sealed hashes add up to.
    async fn compare(&self, id: &str, size: u64, wrong: &mut Vec<String>) -> Result<(u64, Option<Hash>), LogError> {
        let pool = self.log.pool();
        let statement = format!("{} AND number > $2 AND number <= $3 ORDER BY number", select(id));
        let (mut frontier, mut events) = (Frontier::default(), 0);
        // Events without content, and what says that they may have lost it, as it was sealed.
        let (mut pruned, mut said): (Option<u64>, HashSet<&str>) = (None, HashSet::new());
        while frontier.size() < size {
            let from = frontier.size();
            let to = (from + TILE).min(size);
            let leaves: Vec<(u64, u64)> = (from..to).map(|index| (index, index + 1)).collect();
            let Some(sealed) = there(hashes(pool, id, &leaves).await)? else {
                wrong.push(format!("hashes of events {} to {to} are gone", from + 1));
                return Ok((events, None));
            };
            let query = sqlx::query_as(&statement).bind(id).bind(from.cast_signed()).bind(to.cast_signed());
            let rows: Vec<Entry> = query.fetch_all(pool).await?;
            self.pace.after(rows.len()).await;
            let mut rows = rows.into_iter().peekable();
            for (sequence, hash) in (from + 1..).zip(&sealed) {
                frontier.push(*hash, |_, _| {});
                match rows.next_if(|row| row.number == sequence.cast_signed()) {
                    None => wrong.push(format!("event {sequence} is gone")),
                    Some(row) if row.event.event_type == PRUNED.name => pruned = Some(sequence),
                    Some(row) if row.leaf().hash() != *hash => {
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

    /// Everything, or one trail.
    pub async fn all(&self, trail: Option<&Trail>) -> Result<Checked, LogError> {
        if let Some(trail) = trail {
            return self.organization(trail.as_ref()).await;
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
