//! What the writer reads under its locks, before it decides: what other replicas wrote, and what the ledger does not
//! know of what the commands touch. The database has a fresh view for each statement, so all of this is read after
//! the locks were taken; and by one statement, because a round trip costs more than most of what it fetches.

use std::collections::{BTreeSet, HashMap, HashSet};

use aggregates::ids::OrganizationId;
use aggregates::organization::OrganizationEvent;
use aggregates::{Recorded, Scope, StreamId};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::LogError;
use super::append::{Append, Outcome, StoredOutcome, own_partition};
use super::ledger::{self, Claim, ClaimKey, Partition, Tally};
use super::stored::{COLUMNS, Reader, StoredEvent};
use super::writer::{Writer, claim_keys};

/// The longest tail of a partition that is followed event by event.
const TAIL_EVENTS_MAX: i64 = 2_000;

/// Kept outcomes by caller, operation and key: the keyed hash of the input, and what to answer.
pub(super) type KnownOutcomes = HashMap<(String, String, String), (String, StoredOutcome)>;

/// What a batch is decided by beside the ledger, and what is not kept after it.
#[derive(Default)]
pub(super) struct Seen {
    /// Versions of streams in other partitions (users). They are not protected by the locks held here; visible at
    /// that moment is what is asked of them.
    pub foreign: HashMap<StreamId, u64>,
    /// Claims on keys that are unique over all partitions.
    pub global: HashMap<ClaimKey, Option<Claim>>,
    /// Outcomes that were kept.
    pub outcomes: KnownOutcomes,
}

/// What has to be looked up for a batch.
#[derive(Default)]
struct Wanted {
    /// Streams of locked partitions that the ledger does not know, with their partition.
    homes: HashMap<StreamId, i16>,
    /// Streams of other partitions. A user may be written by one command of a batch and relied upon by another: then
    /// both places learn it.
    abroad: HashSet<StreamId>,
    organizations: HashMap<OrganizationId, i16>,
    /// Those within organizations as far as the ledger does not know them, global ones always.
    claims: HashMap<ClaimKey, i16>,
}

/// A row of the look-up; what its columns hold depends on `what`, see `look_up.sql`.
struct Row {
    what: String,
    a: Option<String>,
    b: Option<String>,
    c: Option<String>,
    d: Option<String>,
    e: Option<String>,
    n: Option<i64>,
    used: Option<i64>,
    maximum: Option<i64>,
    floor: Option<i64>,
    reached: Option<bool>,
    at: Option<DateTime<Utc>>,
}

impl Writer {
    /// Reads what the batch is decided by. What other replicas wrote to the locked partitions since this writer last
    /// looked keeps the ledger true; where it cannot, the ledger is emptied, and all is read again under the same
    /// locks.
    pub(super) async fn look_up(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
        partitions: &BTreeSet<i16>,
        global_keys: &BTreeSet<ClaimKey>,
    ) -> Result<Seen, LogError> {
        loop {
            let wanted = self.wanted(appends, global_keys);
            let rows = read(connection, partitions, &wanted, appends).await?;
            if self.is_of_this_era(&rows)? && self.follow_tails(connection, &rows).await? {
                self.keep_time(&rows);
                return self.take_in(rows, &wanted);
            }
        }
    }

    fn wanted(&self, appends: &[Append], global_keys: &BTreeSet<ClaimKey>) -> Wanted {
        let mut wanted = Wanted::default();
        wanted.claims.extend(global_keys.iter().map(|key| (key.clone(), 0)));
        for append in appends {
            let home = append.partition(self.partitions);
            let known = self.ledger.get(&home);
            for (stream, _) in append.expected() {
                if own_partition(stream, self.partitions).is_some_and(|own| own != home) {
                    wanted.abroad.insert(stream.clone());
                } else if !known.is_some_and(|known| known.versions.contains_key(stream)) {
                    wanted.homes.insert(stream.clone(), home);
                }
            }
            if let Some(organization) = &append.organization
                && !known.is_some_and(|known| known.audit.contains_key(organization))
            {
                wanted.organizations.insert(organization.clone(), home);
            }
            for key in claim_keys(append).filter(|key| !key.scope.is_global()) {
                if !known.is_some_and(|known| known.claims.contains_key(&key)) {
                    wanted.claims.insert(key, home);
                }
            }
        }
        wanted
    }

    /// Whether the ledger is of the database as it is. If the tables were repaired, or the whole database is an
    /// earlier one, everything in memory is forgotten.
    fn is_of_this_era(&mut self, rows: &[Row]) -> Result<bool, LogError> {
        let installation = rows.iter().find(|row| row.what == "installation").ok_or(sqlx::Error::RowNotFound)?;
        let seen = (installation.n.unwrap_or_default(), installation.used.unwrap_or_default());
        if self.seen == seen {
            return Ok(true);
        }
        // Who remembered nothing has asked for everything.
        let knew_nothing = self.ledger.is_empty();
        self.ledger.clear();
        self.states.clear();
        self.era.enter(seen.0);
        self.seen = seen;
        Ok(knew_nothing)
    }

    /// Follows what is new in the locked partitions. False where a tail is too long, or was written by a newer
    /// program: that partition is forgotten, and has to be read afresh as far as it is asked for.
    async fn follow_tails(&mut self, connection: &mut PgConnection, rows: &[Row]) -> Result<bool, LogError> {
        let mut behind = vec![];
        for row in rows.iter().filter(|row| row.what == "partition") {
            let number = i16::try_from(row.n.unwrap_or_default()).unwrap_or_default();
            let (head, recorded_at) = (row.used.unwrap_or_default(), row.at.unwrap_or_default());
            let new = || Partition { head, recorded_at, ..Partition::default() };
            let known = self.ledger.entry(number).or_insert_with(new);
            if known.head != head {
                behind.push((number, known.head));
            }
        }
        if behind.is_empty() {
            return Ok(true);
        }
        let mut followed = true;
        let mut counts: HashMap<i16, i64> = HashMap::new();
        for row in read_tails(connection, &behind).await? {
            let count = counts.entry(row.partition).or_default();
            *count += 1;
            if *count >= TAIL_EVENTS_MAX || self.follow(&row).is_err() {
                self.ledger.remove(&row.partition);
                followed = false;
            }
        }
        // A head that went back is another database than the one that the ledger was read from.
        for (number, _) in behind.iter().filter(|(number, _)| !counts.contains_key(number)) {
            self.ledger.remove(number);
            followed = false;
        }
        Ok(followed)
    }

    /// Nothing is recorded before what was recorded, or answered for.
    fn keep_time(&mut self, rows: &[Row]) {
        for row in rows.iter().filter(|row| row.what == "partition") {
            let number = i16::try_from(row.n.unwrap_or_default()).unwrap_or_default();
            if let Some(known) = self.ledger.get_mut(&number) {
                known.recorded_at = known.recorded_at.max(row.at.unwrap_or_default());
            }
        }
    }

    /// Puts what was read where it belongs.
    fn take_in(&mut self, rows: Vec<Row>, wanted: &Wanted) -> Result<Seen, LogError> {
        let mut seen = Seen::default();
        for row in rows {
            let text = |column: &Option<String>| column.clone().unwrap_or_default();
            match row.what.as_str() {
                "stream" => {
                    let Some(stream) = StreamId::from_stored(&text(&row.a), &text(&row.b)) else { continue };
                    let version = row.n.unwrap_or_default().unsigned_abs();
                    if let Some(home) = wanted.homes.get(&stream) {
                        self.ledger.entry(*home).or_default().versions.insert(stream.clone(), version);
                    }
                    if wanted.abroad.contains(&stream) {
                        seen.foreign.insert(stream, version);
                    }
                }
                "organization" => {
                    let organization = row.a.as_ref().and_then(|id| id.parse::<OrganizationId>().ok());
                    let Some(organization) = organization else { continue };
                    let Some(home) = wanted.organizations.get(&organization) else { continue };
                    let partition = self.ledger.entry(*home).or_default();
                    partition.audit.insert(organization.clone(), row.n.unwrap_or_default());
                    let tallies = partition.tallies.entry(organization).or_default();
                    if let (Some(name), Some(used), Some(floor), Some(reached)) =
                        (row.b, row.used, row.floor, row.reached)
                    {
                        tallies.insert(name, Tally { used, maximum: row.maximum, floor, reached });
                    }
                }
                "claim" => {
                    let Some(scope) = Scope::named(&text(&row.a)) else { continue };
                    let key = ClaimKey { scope, key: text(&row.b) };
                    let Some(home) = wanted.claims.get(&key) else { continue };
                    let organization = row.d.and_then(|id| id.parse().ok());
                    let claim = row.c.map(|holder| Claim { holder, organization, until: row.at });
                    if scope.is_global() {
                        seen.global.insert(key, claim);
                    } else {
                        self.ledger.entry(*home).or_default().claims.insert(key, claim);
                    }
                }
                "outcome" => {
                    let corrupt = |error: serde_json::Error| LogError::Corrupt(format!("an outcome: {error}"));
                    let outcome = serde_json::from_str(&text(&row.e)).map_err(corrupt)?;
                    seen.outcomes.insert((text(&row.a), text(&row.b), text(&row.c)), (text(&row.d), outcome));
                }
                _ => {}
            }
        }
        Ok(seen)
    }

    fn follow(&mut self, row: &StoredEvent) -> Result<(), LogError> {
        let gap = || LogError::Corrupt(format!("partition {} has no offset before {}", row.partition, row.offset));
        let partition =
            self.ledger.get_mut(&row.partition).filter(|known| row.offset == known.head + 1).ok_or_else(gap)?;
        let stream = Reader::stream(row)?;
        let organization = row.organization_id.as_deref().and_then(|id| id.parse::<OrganizationId>().ok());
        let effects = self.reader.parse(row)?.effects();
        partition.head = row.offset;
        partition.recorded_at = row.recorded_at;
        if let Some(version) = partition.versions.get_mut(&stream) {
            *version = row.sequence.unsigned_abs();
        }
        if let (Some(organization), Some(sequence)) = (&organization, row.audit_sequence)
            && let Some(audit) = partition.audit.get_mut(organization)
        {
            *audit = sequence;
        }
        ledger::follow(partition, organization.as_ref(), &stream, &effects);
        Ok(())
    }

    /// After a commit in doubt: what is in the log already of these commands, by command.
    pub(super) async fn already_recorded(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
    ) -> Result<HashMap<Uuid, Outcome>, LogError> {
        let written = |append: &Append| -> Vec<String> {
            let events = append.writes.iter().flat_map(|write| &write.events).map(|event| event.id.to_string());
            events.chain([append.limit_event_id().to_string()]).collect()
        };
        let ids: Vec<String> = appends.iter().flat_map(written).collect();
        let statement =
            format!(r#"SELECT {COLUMNS} FROM events WHERE event_id = ANY($1) ORDER BY partition, "offset""#);
        let rows: Vec<StoredEvent> = sqlx::query_as(&statement).bind(&ids).fetch_all(connection).await?;
        let mut outcomes = HashMap::new();
        for append in appends {
            let own: Vec<&StoredEvent> =
                rows.iter().filter(|row| row.command_id == append.origin().command_id).collect();
            if !own.is_empty() {
                outcomes.insert(append.origin().command_id, self.outcome_of(append, &own)?);
            }
        }
        Ok(outcomes)
    }

    fn outcome_of(&self, append: &Append, rows: &[&StoredEvent]) -> Result<Outcome, LogError> {
        let corrupt = |row: &StoredEvent| LogError::Corrupt(row.event_id.clone());
        let recorded = |row: &StoredEvent, event: aggregates::Event| {
            Ok::<_, LogError>(Recorded {
                id: row.event_id.parse().map_err(|_| corrupt(row))?,
                stream: Reader::stream(row)?,
                sequence: row.sequence.unsigned_abs(),
                partition: row.partition,
                offset: row.offset,
                organization: append.organization.clone(),
                audit_sequence: row.audit_sequence.map(i64::unsigned_abs),
                recorded_at: row.recorded_at,
                origin: append.origin().clone(),
                event,
            })
        };
        let limit = append.limit_event_id();
        if let Some(row) = rows.iter().find(|row| row.event_id == limit.as_ref()) {
            let event = self.reader.parse(row)?;
            let aggregates::Event::Organization(OrganizationEvent::LimitReached { limit, maximum, used, requested }) =
                &event
            else {
                return Err(corrupt(row));
            };
            let (name, maximum, used, requested) = (limit.clone(), maximum.unwrap_or_default(), *used, *requested);
            return Ok(Outcome::Limit { name, maximum, used, requested, event: Some(Box::new(recorded(row, event)?)) });
        }
        let mut events = vec![];
        for event in append.writes.iter().flat_map(|write| &write.events) {
            if let Some(row) = rows.iter().find(|row| row.event_id == event.id.as_ref()) {
                events.push(recorded(row, event.event.clone())?);
            }
        }
        Ok(Outcome::Accepted { events })
    }
}

async fn read(
    connection: &mut PgConnection,
    partitions: &BTreeSet<i16>,
    wanted: &Wanted,
    appends: &[Append],
) -> Result<Vec<Row>, LogError> {
    let partitions: Vec<i16> = partitions.iter().copied().collect();
    let streams: HashSet<&StreamId> = wanted.homes.keys().chain(&wanted.abroad).collect();
    let (types, ids): (Vec<&str>, Vec<&str>) =
        streams.iter().map(|stream| (stream.aggregate_type(), stream.id())).unzip();
    let organizations: Vec<&str> = wanted.organizations.keys().map(AsRef::as_ref).collect();
    let (scopes, keys): (Vec<&str>, Vec<&str>) =
        wanted.claims.keys().map(|key| (key.scope.as_str(), key.key.as_str())).unzip();
    let kept: Vec<_> = appends.iter().filter_map(|append| append.idempotency.as_ref()).collect();
    let rows = sqlx::query_file_as!(
        Row,
        "src/log/look_up.sql",
        &partitions,
        &types as &[&str],
        &ids as &[&str],
        &organizations as &[&str],
        &scopes as &[&str],
        &keys as &[&str],
        &kept.iter().map(|i| i.caller.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|i| i.operation.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|i| i.key.as_str()).collect::<Vec<_>>() as &[&str],
    );
    Ok(rows.fetch_all(connection).await?)
}

/// What came after these heads, up to [`TAIL_EVENTS_MAX`] events each.
async fn read_tails(connection: &mut PgConnection, heads: &[(i16, i64)]) -> Result<Vec<StoredEvent>, LogError> {
    let (numbers, after): (Vec<i16>, Vec<i64>) = heads.iter().copied().unzip();
    let statement = format!(
        r#"SELECT e.* FROM unnest($1::smallint[], $2::bigint[]) AS p(number, after)
           CROSS JOIN LATERAL (
               SELECT {COLUMNS} FROM events WHERE partition = p.number AND "offset" > p.after ORDER BY "offset" LIMIT $3
           ) e"#
    );
    Ok(sqlx::query_as(&statement).bind(numbers).bind(after).bind(TAIL_EVENTS_MAX).fetch_all(connection).await?)
}
