//! The access trail: refusals, operators' reads of tenants, reads of audit trails.
//!
//! Noting something costs a look into a map; writing happens behind it. What is the same in caller, kind, operation and
//! organization within one minute is one record, so nobody fills the disk by asking again and again. A record is
//! written within a second or so, and how often it came again once its minute is over: two rows at most, both only
//! inserted. (Raising a counter in place would be one row, but then the table could not refuse every UPDATE.)
//!
//! A reach for what is not the caller's stands in two places: for operators with whom it was for, if it was there; and
//! in the organizations that the caller is in, where the record is the same for an id of another tenant and for an id of
//! nothing, so that it tells nobody which of them exist. Which organizations these are is looked up behind the request.
//!
//! What waits is bounded; past that, new keys are counted as dropped and not kept. A database that is away delays what
//! waits, and a process that is killed loses at most what was not yet written. Each replica counts for itself.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aggregates::Actor;
use aggregates::ids::OrganizationId;
use chrono::{DateTime, SubsecRound, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::log::access::{AccessRow, drop_old};
use crate::log::{Log, LogError};

/// How ids of records begin.
pub const PREFIX: &str = "acc";
/// How many keys are kept in memory.
const WAITING_MAX: usize = 10_000;
/// In how many organizations of its caller a reach stands at most: the oldest memberships.
const OWN_MAX: i64 = 10;
/// How many rows one statement writes.
const ROWS_MAX: usize = 1_000;
/// How often is written.
const EVERY: Duration = Duration::from_secs(1);
/// How long a service that stops tries to write what is left.
const LAST_WRITE_MAX: Duration = Duration::from_secs(5);
/// How many rows are forgotten in one go.
const FORGOTTEN_MAX: i64 = 10_000;

/// What kind of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Refused for lack of permission, or because it is another tenant's.
    Refused,
    /// An operator read what is a tenant's, without the tenant's permission.
    OperatorRead,
    /// An audit trail was read.
    AuditRead,
    /// An audit trail was exported.
    AuditExport,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Refused, Self::OperatorRead, Self::AuditRead, Self::AuditExport];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "REFUSED",
            Self::OperatorRead => "OPERATOR_READ",
            Self::AuditRead => "AUDIT_READ",
            Self::AuditExport => "AUDIT_EXPORT",
        }
    }

    /// The kind of a stored text.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Something that is to be on record.
#[derive(Debug, Clone)]
pub struct Occurrence {
    /// What kind.
    pub kind: Kind,
    /// The caller.
    pub actor: Actor,
    /// By which operation.
    pub operation: String,
    /// In whose trail it stands; none is for operators only.
    pub organization: Option<OrganizationId>,
    /// Of a reach across tenants, whom it was for.
    pub reached: Option<OrganizationId>,
    /// The id that the caller gave.
    pub target: Option<String>,
    /// From which address.
    pub ip: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    minute: i64,
    kind: Kind,
    actor: String,
    operation: String,
    organization: Option<OrganizationId>,
    reached: Option<OrganizationId>,
}

/// A record of one minute. Target and address are those of its first time.
struct Entry {
    id: String,
    at: DateTime<Utc>,
    target: Option<String>,
    ip: Option<String>,
    /// How often, as far as it is not written.
    times: u64,
    /// What was handed to the database last, until that is known to be there: a repetition hands over the same.
    writing: Option<u64>,
    /// Whether the record's first row is there.
    written: bool,
}

impl Entry {
    fn new(at: DateTime<Utc>, target: Option<String>, ip: Option<String>, times: u64) -> Self {
        let id = format!("{PREFIX}_{}", Uuid::now_v7().simple());
        Self { id, at, target, ip, times, writing: None, written: false }
    }
}

/// A row that is due.
struct Row {
    key: Key,
    id: String,
    at: DateTime<Utc>,
    target: Option<String>,
    ip: Option<String>,
    times: u64,
    first: bool,
}

impl Row {
    /// As it is stored, with its sealed address.
    fn record(&self, ip: Option<String>) -> AccessRow {
        AccessRow {
            part: 1,
            kind: Some(self.key.kind.as_str().to_owned()),
            actor: Some(self.key.actor.clone()),
            operation: Some(self.key.operation.clone()),
            organization_id: self.key.organization.as_ref().map(ToString::to_string),
            reached_organization_id: self.key.reached.as_ref().map(ToString::to_string),
            target_id: self.target.clone(),
            ip,
            ..self.repeat()
        }
    }

    /// How often it came again, as that is stored.
    fn repeat(&self) -> AccessRow {
        AccessRow {
            part: 2,
            id: self.id.clone(),
            created_at: self.at,
            times: self.times.cast_signed(),
            kind: None,
            actor: None,
            operation: None,
            organization_id: None,
            reached_organization_id: None,
            target_id: None,
            ip: None,
            mac: vec![],
        }
    }
}

/// Reaches of one minute by a caller and an operation, before it is known in which organizations they stand.
struct Reach {
    at: DateTime<Utc>,
    target: String,
    ip: Option<String>,
    times: u64,
}

type Reaches = HashMap<(i64, Actor, String), Reach>;

/// What waits to be written.
#[derive(Default)]
pub struct Trail {
    waiting: Mutex<HashMap<Key, Entry>>,
    reaches: Mutex<Reaches>,
    /// Held by whoever writes: a row is handed over by one at a time.
    writer: tokio::sync::Mutex<()>,
    /// Whether it was said that records are dropped.
    overflowed: AtomicBool,
}

impl Trail {
    /// Notes something. Never waits.
    pub fn note(&self, occurrence: Occurrence) {
        self.note_at(occurrence, Utc::now().trunc_subsecs(6), 1);
    }

    /// Notes, for the organizations that `actor` is in, that it gave an id of nothing or of another tenant. The code
    /// that calls this does not say which, and must not know.
    pub fn note_reach(&self, actor: Actor, operation: &str, target: &str, ip: Option<String>) {
        let at = Utc::now().trunc_subsecs(6);
        let reach = Reach { at, target: target.to_owned(), ip, times: 1 };
        self.reached([((minute(at), actor, operation.to_owned()), reach)]);
    }

    fn reached(&self, new: impl IntoIterator<Item = ((i64, Actor, String), Reach)>) {
        let mut reaches = self.reaches.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, reach) in new {
            if let Some(known) = reaches.get_mut(&key) {
                known.times += reach.times;
            } else if reaches.len() < WAITING_MAX {
                reaches.insert(key, reach);
            } else {
                metrics::counter!("tenancy_access_trail_dropped_total").increment(1);
            }
        }
    }

    fn note_at(&self, occurrence: Occurrence, at: DateTime<Utc>, times: u64) {
        let Occurrence { kind, actor, operation, organization, reached, target, ip } = occurrence;
        let key = Key { minute: minute(at), kind, actor: actor.to_string(), operation, organization, reached };
        let mut waiting = self.waiting();
        if let Some(entry) = waiting.get_mut(&key) {
            entry.times += times;
        } else if waiting.len() < WAITING_MAX {
            waiting.insert(key, Entry::new(at, target, ip, times));
        } else {
            drop(waiting);
            metrics::counter!("tenancy_access_trail_dropped_total").increment(1);
            if !self.overflowed.swap(true, Ordering::Relaxed) {
                tracing::warn!(waiting = WAITING_MAX, "the access trail is full: what is new is counted and not kept");
            }
        }
    }

    /// Writes until `stop` says so; what is left then is for [`Self::finish`].
    pub async fn run(&self, log: &Log, stop: CancellationToken) {
        let mut failing = false;
        while !stop.is_cancelled() {
            stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
            match self.write(log, false).await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::warn!(%error, "the access trail could not be written; it waits");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Writes everything that is left, for as long as a service that stops has time.
    pub async fn finish(&self, log: &Log) {
        match tokio::time::timeout(LAST_WRITE_MAX, self.write(log, true)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the end of the access trail could not be written"),
            Err(_) => tracing::warn!("there was no time to write the end of the access trail"),
        }
    }

    /// Writes what is due, or everything; the oldest minute first.
    async fn write(&self, log: &Log, everything: bool) -> Result<(), LogError> {
        let _one = self.writer.lock().await;
        self.place_reaches(log).await?;
        loop {
            let rows = self.due(everything, minute(Utc::now()));
            if !rows.is_empty() {
                insert(log, &rows).await?;
                self.settle(&rows);
            }
            if rows.len() < ROWS_MAX {
                return Ok(());
            }
        }
    }

    /// Finds the organizations in which reaches stand; what cannot be found out now waits.
    async fn place_reaches(&self, log: &Log) -> Result<(), LogError> {
        let reaches = std::mem::take(&mut *self.reaches.lock().unwrap_or_else(PoisonError::into_inner));
        if reaches.is_empty() {
            return Ok(());
        }
        let actors: HashSet<&str> = reaches.keys().filter_map(|(_, actor, _)| actor.id()).collect();
        let actors: Vec<&str> = actors.into_iter().collect();
        let own = sqlx::query!(
            r#"SELECT a.id AS "actor!", o.organization_id AS "organization!" FROM unnest($1::text[]) AS a(id)
               CROSS JOIN LATERAL (
                   (SELECT organization_id FROM members WHERE user_id = a.id AND state = 'ACTIVE'
                    ORDER BY created_at, id LIMIT $2)
                   UNION ALL SELECT organization_id FROM api_tokens WHERE id = a.id
               ) o"#,
            &actors as &[&str],
            OWN_MAX
        );
        let own = match own.fetch_all(log.pool()).await {
            Ok(own) => own,
            Err(error) => {
                self.reached(reaches);
                return Err(error.into());
            }
        };
        for ((_, actor, operation), reach) in reaches {
            for organization in own.iter().filter(|own| Some(own.actor.as_str()) == actor.id()) {
                let occurrence = Occurrence {
                    kind: Kind::Refused,
                    actor: actor.clone(),
                    operation: operation.clone(),
                    organization: organization.organization.parse().ok(),
                    reached: None,
                    target: Some(reach.target.clone()),
                    ip: reach.ip.clone(),
                };
                self.note_at(occurrence, reach.at, reach.times);
            }
        }
        Ok(())
    }

    fn due(&self, everything: bool, now: i64) -> Vec<Row> {
        let mut waiting = self.waiting();
        // While there is much, minutes end early: that makes more records, and room.
        let crowded = waiting.len() > WAITING_MAX / 2;
        let over = |key: &Key| everything || crowded || key.minute < now;
        waiting.retain(|key, entry| !entry.written || entry.times > 0 || !over(key));
        if waiting.len() < WAITING_MAX / 2 {
            self.overflowed.store(false, Ordering::Relaxed);
        }
        let is_due = |key: &Key, entry: &Entry| !entry.written || (entry.times > 0 && over(key));
        let mut due: Vec<_> = waiting.iter_mut().filter(|(key, entry)| is_due(key, entry)).collect();
        due.sort_unstable_by_key(|(key, entry)| (key.minute, entry.at));
        due.truncate(ROWS_MAX);
        let row = |(key, entry): (&Key, &mut Entry)| Row {
            key: key.clone(),
            id: entry.id.clone(),
            at: entry.at,
            target: entry.target.clone(),
            ip: entry.ip.clone(),
            times: *entry.writing.get_or_insert(entry.times),
            first: !entry.written,
        };
        due.into_iter().map(row).collect()
    }

    /// Takes off what was written.
    fn settle(&self, rows: &[Row]) {
        let mut waiting = self.waiting();
        for row in rows {
            let Some(entry) = waiting.get_mut(&row.key) else { continue };
            let left = entry.times.saturating_sub(row.times);
            if row.first {
                (entry.times, entry.writing, entry.written) = (left, None, true);
            } else if left > 0 {
                // It came again after its end had been written: a record of its own.
                *entry = Entry::new(Utc::now().trunc_subsecs(6), entry.target.clone(), entry.ip.clone(), left);
            } else {
                waiting.remove(&row.key);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn minute(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(60)
}

/// Where an address is sealed for.
fn place(id: &str) -> String {
    format!("{id}/ip")
}

/// The id of a stored actor, under whose key an address is kept.
fn subject(actor: &str) -> Option<&str> {
    actor.split_once(':').map(|(_, id)| id)
}

/// Inserts rows, each with its code; those that are there already stay as they are.
async fn insert(log: &Log, rows: &[Row]) -> Result<(), LogError> {
    let (first, again): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.first);
    let key = log.keys().chain();
    if !first.is_empty() {
        let with_address = first.iter().filter(|row| row.ip.is_some());
        let keys = log.keys().find_or_make(with_address.filter_map(|row| subject(&row.key.actor))).await?;
        let sealed = |row: &Row| keys.seal(subject(&row.key.actor)?, &place(&row.id), row.ip.as_deref()?);
        let rows: Vec<AccessRow> = first.iter().map(|row| row.record(sealed(row)).coded(key)).collect();
        let text =
            |column: fn(&AccessRow) -> &Option<String>| rows.iter().map(|row| column(row).clone()).collect::<Vec<_>>();
        sqlx::query_file!(
            "src/requests/trail.sql",
            &rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.created_at).collect::<Vec<_>>(),
            &text(|row| &row.kind) as &[Option<String>],
            &text(|row| &row.actor) as &[Option<String>],
            &text(|row| &row.operation) as &[Option<String>],
            &text(|row| &row.organization_id) as &[Option<String>],
            &text(|row| &row.reached_organization_id) as &[Option<String>],
            &text(|row| &row.target_id) as &[Option<String>],
            &rows.iter().map(|row| row.times).collect::<Vec<_>>(),
            &text(|row| &row.ip) as &[Option<String>],
            &rows.iter().map(|row| row.mac.clone()).collect::<Vec<_>>()
        )
        .execute(log.pool())
        .await?;
    }
    if !again.is_empty() {
        let rows: Vec<AccessRow> = again.iter().map(|row| row.repeat().coded(key)).collect();
        sqlx::query_file!(
            "src/requests/repeats.sql",
            &rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.created_at).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.times).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.mac.clone()).collect::<Vec<_>>()
        )
        .execute(log.pool())
        .await?;
    }
    Ok(())
}

/// An address as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SealedAddress {
    /// Of which record.
    pub id: String,
    /// Whose.
    pub actor: String,
    /// The ciphertext.
    pub sealed: String,
}

/// The addresses, without those of people who were erased.
pub async fn open(log: &Log, sealed: &[SealedAddress]) -> Result<HashMap<SealedAddress, String>, LogError> {
    let keys = log.keys().find(sealed.iter().filter_map(|address| subject(&address.actor))).await?;
    let open = |address: &SealedAddress| keys.open(subject(&address.actor)?, &place(&address.id), &address.sealed);
    Ok(sealed.iter().filter_map(|address| Some((address.clone(), open(address)?))).collect())
}

/// Records of one kind, operation and caller.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Group {
    /// What kind, as it is stored.
    pub kind: String,
    /// By which operation.
    pub operation: String,
    /// The caller, as stored.
    pub actor: String,
    /// How often.
    pub times: i64,
    /// When the first one began.
    pub first: DateTime<Utc>,
    /// When the last one began.
    pub last: DateTime<Utc>,
    /// How many groups there are.
    groups: i64,
}

/// Which records of an organization's trail are wanted.
#[derive(Debug, Clone)]
pub struct Groups<'a> {
    /// In whose trail.
    pub organization: &'a OrganizationId,
    /// From when on; from the beginning, without.
    pub since: Option<DateTime<Utc>>,
    /// Up to and with this time.
    pub until: DateTime<Utc>,
    /// Of which kinds.
    pub kinds: &'a [Kind],
    /// Each record by itself, the newest ones; else those alike as one group, the most frequent ones.
    pub each: bool,
    /// How many at most.
    pub limit: usize,
}

impl Groups<'_> {
    /// Reads them, and how many there are beyond the limit.
    pub async fn read(&self, log: &Log) -> Result<(Vec<Group>, u64), LogError> {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.as_str()).collect();
        let query = sqlx::query_as(include_str!("groups.sql")).bind(self.organization.as_ref()).bind(self.since);
        let query = query.bind(self.until).bind(kinds).bind(self.each).bind(self.limit as i64);
        let mut groups: Vec<Group> = query.fetch_all(log.pool()).await?;
        let all = groups.first().map_or(0, |group| group.groups.unsigned_abs());
        let more = all.saturating_sub(groups.len() as u64);
        if self.each {
            groups.reverse();
        }
        Ok((groups, more))
    }
}

/// Forgets some of what is older than so many days.
pub async fn forget(log: &Log, days: i32) -> Result<(), LogError> {
    drop_old(log, days, FORGOTTEN_MAX).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aggregates::ids::{Id, UserId};

    use super::*;

    fn refused(user: &UserId) -> Occurrence {
        Occurrence {
            kind: Kind::Refused,
            actor: Actor::User(user.clone()),
            operation: "createProject".to_owned(),
            organization: None,
            reached: None,
            target: None,
            ip: None,
        }
    }

    #[test]
    fn a_minute_is_two_rows_however_often() {
        let (trail, user, at) = (Trail::default(), UserId::random(), Utc::now());
        (0..7).for_each(|_| trail.note_at(refused(&user), at, 1));
        let first = trail.due(false, minute(at));
        assert_eq!(first.iter().map(|row| (row.first, row.times)).collect::<Vec<_>>(), [(true, 7)]);
        // A database that was away gets the same again.
        (0..5).for_each(|_| trail.note_at(refused(&user), at, 1));
        assert_eq!(trail.due(false, minute(at))[0].times, 7);
        trail.settle(&first);
        assert!(trail.due(false, minute(at)).is_empty(), "the minute is not over");
        let again = trail.due(false, minute(at) + 1);
        assert_eq!(again.iter().map(|row| (row.first, row.times)).collect::<Vec<_>>(), [(false, 5)]);
        assert_eq!(again[0].id, first[0].id);
        trail.settle(&again);
        assert!(trail.due(true, minute(at) + 1).is_empty() && trail.waiting().is_empty());
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_minute_goes_first() {
        let (trail, at) = (Trail::default(), Utc::now());
        for number in 0..WAITING_MAX + 5 {
            let minutes_ago = if number == 42 { 1 } else { 0 };
            trail.note_at(refused(&UserId::random()), at - chrono::Duration::minutes(minutes_ago), 1);
        }
        assert_eq!(trail.waiting().len(), WAITING_MAX);
        assert!(trail.overflowed.load(Ordering::Relaxed));
        let rows = trail.due(false, minute(at));
        assert_eq!((rows.len(), rows[0].key.minute), (ROWS_MAX, minute(at) - 1));
        trail.settle(&rows);
        trail.due(false, minute(at));
        assert_eq!(trail.waiting().len(), WAITING_MAX - ROWS_MAX, "what is crowded is let go once it is written");
    }
}
