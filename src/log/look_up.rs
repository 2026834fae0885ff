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
use super::chain::Mac;
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

/// A row of the look-up as the database gives it: the parts of `look_up.sql` have their columns in common, and leave those
/// empty that they do not need.
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
    mac: Option<Vec<u8>>,
}

/// An event that another replica wrote.
#[derive(sqlx::FromRow)]
struct TailRow {
    mac: Mac,
    #[sqlx(flatten)]
    event: StoredEvent,
}

/// What a row says.
enum Found {
    /// How often the database went back to an earlier point, and how often its tables were repaired.
    Installation { epoch: i64, ledger_revision: i64 },
    /// Where a partition ends.
    Partition { number: i16, head: i64, mac: Mac, recorded_at: Option<DateTime<Utc>> },
    /// The version of a stream; 0 of one that is not there.
    Stream { stream: StreamId, version: u64 },
    /// How many events an organization has, and one of its tallies, if it has any.
    Organization { id: OrganizationId, audit_sequence: i64, tally: Option<(String, Tally)> },
    /// The holder of a key, if there is one.
    Claim { key: ClaimKey, claim: Option<Claim> },
    /// A kept outcome, by caller, operation and key.
    Outcome { of: (String, String, String), input: String, outcome: StoredOutcome },
}

impl TryFrom<Row> for Found {
    type Error = LogError;

    fn try_from(row: Row) -> Result<Self, LogError> {
        let what = row.what.clone();
        let missing = |name: &str| LogError::Corrupt(format!("a look-up of {what} without its {name}"));
        let need = |value: Option<String>, name: &str| value.ok_or_else(|| missing(name));
        let number = |value: Option<i64>, name: &str| value.ok_or_else(|| missing(name));
        Ok(match row.what.as_str() {
            "installation" => Self::Installation {
                epoch: number(row.n, "epoch")?,
                ledger_revision: number(row.used, "revision of the ledger")?,
            },
            "partition" => Self::Partition {
                number: i16::try_from(number(row.n, "number")?).map_err(|_| missing("number"))?,
                head: number(row.used, "head")?,
                mac: row.mac.unwrap_or_default(),
                recorded_at: row.at,
            },
            "stream" => {
                let (aggregate_type, id) = (need(row.a, "type")?, need(row.b, "id")?);
                let stream = StreamId::from_stored(&aggregate_type, &id).ok_or_else(|| missing("stream"))?;
                Self::Stream { stream, version: number(row.n, "version")?.unsigned_abs() }
            }
            "organization" => {
                let tally = match row.b {
                    None => None,
                    Some(name) => {
                        let (used, floor) = (number(row.used, "use")?, number(row.floor, "floor")?);
                        let reached = row.reached.ok_or_else(|| missing("mark"))?;
                        Some((name, Tally { used, maximum: row.maximum, floor, reached }))
                    }
                };
                let id = need(row.a, "id")?.parse().map_err(|_| missing("id"))?;
                Self::Organization { id, audit_sequence: number(row.n, "number of events")?, tally }
            }
            "claim" => {
                let scope = Scope::named(&need(row.a, "scope")?).ok_or_else(|| missing("scope"))?;
                let organization = row.d.and_then(|id| id.parse().ok());
                let claim = row.c.map(|holder| Claim { holder, organization, until: row.at });
                Self::Claim { key: ClaimKey { scope, key: need(row.b, "key")? }, claim }
            }
            "outcome" => {
                let corrupt = |error: serde_json::Error| LogError::Corrupt(format!("an outcome: {error}"));
                Self::Outcome {
                    of: (need(row.a, "caller")?, need(row.b, "operation")?, need(row.c, "key")?),
                    input: need(row.d, "input")?,
                    outcome: serde_json::from_str(&need(row.e, "outcome")?).map_err(corrupt)?,
                }
            }
            _ => return Err(missing("kind")),
        })
    }
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
            let found = read(connection, partitions, &wanted, appends).await?;
            if self.is_of_this_era(&found)? && self.follow_tails(connection, &found).await? {
                self.keep_time(&found);
                return Ok(self.take_in(found, &wanted));
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
    fn is_of_this_era(&mut self, found: &[Found]) -> Result<bool, LogError> {
        let installation = found.iter().find_map(|found| match found {
            Found::Installation { epoch, ledger_revision } => Some((*epoch, *ledger_revision)),
            _ => None,
        });
        let seen = installation.ok_or(sqlx::Error::RowNotFound)?;
        if self.seen == seen {
            return Ok(true);
        }
        // A writer that remembered nothing has asked for everything.
        let knew_nothing = self.ledger.is_empty();
        self.ledger.clear();
        self.states.clear();
        self.era.enter(seen.0);
        self.seen = seen;
        Ok(knew_nothing)
    }

    /// Follows what is new in the locked partitions. False where a tail is too long, or was written by a newer
    /// program: that partition is forgotten, and has to be read afresh as far as it is asked for.
    async fn follow_tails(&mut self, connection: &mut PgConnection, found: &[Found]) -> Result<bool, LogError> {
        let (mut behind, mut exchanged) = (vec![], vec![]);
        for found in found {
            let Found::Partition { number, head, mac, recorded_at } = found else { continue };
            let new = || Partition {
                head: *head,
                mac: mac.clone(),
                recorded_at: recorded_at.unwrap_or_default(),
                ..Partition::default()
            };
            let known = self.ledger.entry(*number).or_insert_with(new);
            if known.head != *head {
                behind.push((*number, known.head));
            } else if known.mac != *mac {
                exchanged.push(*number);
            }
        }
        for number in exchanged {
            // It goes on from the code that it knows, so that nothing continues what was put there.
            self.alarm(number, format!("the last event of partition {number} is another one than it was"));
        }
        if behind.is_empty() {
            return Ok(true);
        }
        let mut followed = true;
        let mut counts: HashMap<i16, i64> = HashMap::new();
        for row in read_tails(connection, &behind).await? {
            let partition = row.event.partition;
            let count = counts.entry(partition).or_default();
            *count += 1;
            if *count >= TAIL_EVENTS_MAX || self.follow(&row).is_err() {
                self.ledger.remove(&partition);
                followed = false;
            }
        }
        // A head that went back is another database than the one that the ledger was read from.
        for (number, head) in behind.iter().filter(|(number, _)| !counts.contains_key(number)) {
            self.alarm(*number, format!("the newest events of partition {number} are gone: it ended at offset {head}"));
            self.ledger.remove(number);
            followed = false;
        }
        Ok(followed)
    }

    /// Nothing is recorded before what was recorded, or answered for.
    fn keep_time(&mut self, found: &[Found]) {
        for found in found {
            if let Found::Partition { number, recorded_at: Some(recorded_at), .. } = found
                && let Some(known) = self.ledger.get_mut(number)
            {
                known.recorded_at = known.recorded_at.max(*recorded_at);
            }
        }
    }

    /// Puts what was read where it belongs.
    fn take_in(&mut self, found: Vec<Found>, wanted: &Wanted) -> Seen {
        let mut seen = Seen::default();
        for found in found {
            match found {
                Found::Stream { stream, version } => {
                    if let Some(home) = wanted.homes.get(&stream) {
                        self.ledger.entry(*home).or_default().versions.insert(stream.clone(), version);
                    }
                    if wanted.abroad.contains(&stream) {
                        seen.foreign.insert(stream, version);
                    }
                }
                Found::Organization { id, audit_sequence, tally } => {
                    let Some(home) = wanted.organizations.get(&id) else { continue };
                    let partition = self.ledger.entry(*home).or_default();
                    partition.audit.insert(id.clone(), audit_sequence);
                    partition.tallies.entry(id).or_default().extend(tally);
                }
                Found::Claim { key, claim } if key.scope.is_global() => {
                    if wanted.claims.contains_key(&key) {
                        seen.global.insert(key, claim);
                    }
                }
                Found::Claim { key, claim } => {
                    let Some(home) = wanted.claims.get(&key) else { continue };
                    self.ledger.entry(*home).or_default().claims.insert(key, claim);
                }
                Found::Outcome { of, input, outcome } => {
                    seen.outcomes.insert(of, (input, outcome));
                }
                // Looked at before.
                Found::Installation { .. } | Found::Partition { .. } => {}
            }
        }
        seen
    }

    fn follow(&mut self, TailRow { mac, event: row }: &TailRow) -> Result<(), LogError> {
        let gap = || LogError::Corrupt(format!("partition {} has no offset before {}", row.partition, row.offset));
        let partition =
            self.ledger.get_mut(&row.partition).filter(|known| row.offset == known.head + 1).ok_or_else(gap)?;
        let stream = Reader::stream(row)?;
        let organization = row.organization_id.as_deref().and_then(|id| id.parse::<OrganizationId>().ok());
        let effects = self.reader.parse(row)?.effects();
        partition.head = row.offset;
        partition.mac.clone_from(mac);
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
) -> Result<Vec<Found>, LogError> {
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
    rows.fetch_all(connection).await?.into_iter().map(Found::try_from).collect()
}

/// What came after these heads, up to [`TAIL_EVENTS_MAX`] events each.
async fn read_tails(connection: &mut PgConnection, heads: &[(i16, i64)]) -> Result<Vec<TailRow>, LogError> {
    let (numbers, after): (Vec<i16>, Vec<i64>) = heads.iter().copied().unzip();
    let statement = format!(
        r#"SELECT e.* FROM unnest($1::smallint[], $2::bigint[]) AS p(number, after)
           CROSS JOIN LATERAL (
               SELECT {COLUMNS}, mac FROM events WHERE partition = p.number AND "offset" > p.after ORDER BY "offset" LIMIT $3
           ) e"#
    );
    Ok(sqlx::query_as(&statement).bind(numbers).bind(after).bind(TAIL_EVENTS_MAX).fetch_all(connection).await?)
}
