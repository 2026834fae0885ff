//! What the writer reads under its locks, before it decides: what other replicas wrote, and what the ledger does not
//! know of what the commands touch. The database has a fresh view for each statement, so all of this is read after
//! the locks were taken.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aggregates::ids::OrganizationId;
use aggregates::organization::OrganizationEvent;
use aggregates::{Recorded, StreamId};
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

impl Writer {
    /// Reads what other replicas wrote to the locked partitions since this writer last looked, and keeps the
    /// ledger true by it. Of a partition that is not in the ledger, only the head is read.
    pub(super) async fn look_at_tails(
        &mut self,
        connection: &mut PgConnection,
        partitions: &BTreeSet<i16>,
    ) -> Result<(), LogError> {
        let mut unknown = vec![];
        let mut known = vec![];
        for partition in partitions {
            match self.ledger.get(partition) {
                Some(ledger) => known.push((*partition, ledger.head)),
                None => unknown.push(*partition),
            }
        }
        let rows = read_tails(connection, &known).await?;
        let mut counts: HashMap<i16, i64> = HashMap::new();
        for row in rows {
            let count = counts.entry(row.partition).or_default();
            *count += 1;
            // A tail that is too long, or that a newer program wrote, is not followed: the partition is forgotten, and
            // read afresh as far as it is asked for.
            if *count >= TAIL_EVENTS_MAX || self.follow(&row).is_err() {
                self.ledger.remove(&row.partition);
                unknown.push(row.partition);
            }
        }
        unknown.sort_unstable();
        unknown.dedup();
        for (number, head, recorded_at) in read_heads(connection, &unknown).await? {
            self.ledger.insert(number, Partition { head, recorded_at, ..Partition::default() });
        }
        Ok(())
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

    /// Versions of streams that the ledger does not know. Those of other partitions (users) are not protected by
    /// the locks held here, so they are looked up each time: visible at that moment is what is asked of them.
    pub(super) async fn look_up_streams(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
    ) -> Result<HashMap<StreamId, u64>, LogError> {
        // A user may be written by one command of a batch and relied upon by another: then both places learn it.
        let mut homes: HashMap<StreamId, i16> = HashMap::new();
        let mut abroad: HashSet<StreamId> = HashSet::new();
        for append in appends {
            let home = append.partition(self.partitions);
            let known = self.ledger.get(&home);
            for (stream, _) in append.expected() {
                if own_partition(&stream, self.partitions).is_some_and(|own| own != home) {
                    abroad.insert(stream);
                } else if !known.is_some_and(|known| known.versions.contains_key(&stream)) {
                    homes.insert(stream, home);
                }
            }
        }
        let mut foreign = HashMap::new();
        let wanted: HashSet<&StreamId> = homes.keys().chain(&abroad).collect();
        if wanted.is_empty() {
            return Ok(foreign);
        }
        let (types, ids): (Vec<&str>, Vec<&str>) =
            wanted.iter().map(|stream| (stream.aggregate_type(), stream.id())).unzip();
        let rows = sqlx::query!(
            r#"SELECT s.type AS "kind!", s.id AS "id!", COALESCE(e.sequence, 0) AS "version!"
               FROM unnest($1::text[], $2::text[]) AS s(type, id)
               LEFT JOIN LATERAL (
                   SELECT sequence FROM events WHERE aggregate_type = s.type AND aggregate_id = s.id
                   ORDER BY sequence DESC LIMIT 1
               ) e ON true"#,
            &types as &[&str],
            &ids as &[&str]
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let Some(stream) = StreamId::from_stored(&row.kind, &row.id) else { continue };
            let version = row.version.unsigned_abs();
            if let Some(home) = homes.get(&stream) {
                self.ledger.entry(*home).or_default().versions.insert(stream.clone(), version);
            }
            if abroad.contains(&stream) {
                foreign.insert(stream, version);
            }
        }
        Ok(foreign)
    }

    /// Audit sequences and tallies of organizations that the ledger does not know.
    pub(super) async fn look_up_organizations(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
    ) -> Result<(), LogError> {
        let mut wanted: BTreeMap<OrganizationId, i16> = BTreeMap::new();
        for append in appends {
            if let Some(organization) = &append.organization {
                let home = append.partition(self.partitions);
                if !self.ledger.get(&home).is_some_and(|known| known.audit.contains_key(organization)) {
                    wanted.insert(organization.clone(), home);
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = wanted.keys().map(AsRef::as_ref).collect();
        let rows = sqlx::query!(
            r#"SELECT o.id AS "id!", COALESCE(e.audit_sequence, 0) AS "audit!", t.name AS "name?", t.used AS "used?",
                      t.maximum, t.floor AS "floor?", t.reached AS "reached?"
               FROM unnest($1::text[]) AS o(id)
               LEFT JOIN LATERAL (
                   SELECT audit_sequence FROM events WHERE organization_id = o.id ORDER BY audit_sequence DESC LIMIT 1
               ) e ON true
               LEFT JOIN LATERAL (SELECT * FROM tallies WHERE organization_id = o.id) t ON true"#,
            &ids as &[&str]
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let Some((organization, home)) =
                row.id.parse().ok().and_then(|id: OrganizationId| wanted.get_key_value(&id))
            else {
                continue;
            };
            let partition = self.ledger.entry(*home).or_default();
            partition.audit.insert(organization.clone(), row.audit);
            let tallies = partition.tallies.entry(organization.clone()).or_default();
            if let (Some(name), Some(used), Some(floor), Some(reached)) = (row.name, row.used, row.floor, row.reached) {
                tallies.insert(name, Tally { used, maximum: row.maximum, floor, reached });
            }
        }
        Ok(())
    }

    /// Claims: those within organizations as far as the ledger does not know them, global ones always.
    pub(super) async fn look_up_claims(
        &mut self,
        connection: &mut PgConnection,
        appends: &[Append],
        global_keys: &BTreeSet<ClaimKey>,
    ) -> Result<HashMap<ClaimKey, Option<Claim>>, LogError> {
        let mut wanted: HashMap<ClaimKey, i16> = global_keys.iter().map(|key| (key.clone(), 0)).collect();
        for append in appends {
            let home = append.partition(self.partitions);
            for key in claim_keys(append).filter(|key| !key.scope.is_global()) {
                if !self.ledger.get(&home).is_some_and(|known| known.claims.contains_key(&key)) {
                    wanted.insert(key, home);
                }
            }
        }
        let mut global = HashMap::new();
        if wanted.is_empty() {
            return Ok(global);
        }
        let (scopes, keys): (Vec<&str>, Vec<&str>) =
            wanted.keys().map(|key| (key.scope.as_str(), key.key.as_str())).unzip();
        let rows = sqlx::query!(
            r#"SELECT k.scope AS "scope!", k.key AS "key!", c.holder AS "holder?", c.organization_id, c.until
               FROM unnest($1::text[], $2::text[]) AS k(scope, key)
               LEFT JOIN LATERAL (SELECT * FROM claims WHERE scope = k.scope AND key = k.key) c ON true"#,
            &scopes as &[&str],
            &keys as &[&str]
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let Some((key, home)) =
                wanted.iter().find(|(key, _)| key.key == row.key && key.scope.as_str() == row.scope)
            else {
                continue;
            };
            let organization = row.organization_id.as_deref().and_then(|id| id.parse().ok());
            let claim = row.holder.map(|holder| Claim { holder, organization, until: row.until });
            if key.scope.is_global() {
                global.insert(key.clone(), claim);
            } else {
                self.ledger.entry(*home).or_default().claims.insert(key.clone(), claim);
            }
        }
        Ok(global)
    }
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

/// The last offset of each of these partitions, and when it was recorded.
async fn read_heads(
    connection: &mut PgConnection,
    partitions: &[i16],
) -> Result<Vec<(i16, i64, DateTime<Utc>)>, LogError> {
    if partitions.is_empty() {
        return Ok(vec![]);
    }
    let rows = sqlx::query!(
        r#"SELECT p.number AS "number!", COALESCE(e."offset", 0) AS "head!", e.recorded_at AS "recorded_at?"
           FROM unnest($1::smallint[]) AS p(number)
           LEFT JOIN LATERAL (
               SELECT "offset", recorded_at FROM events WHERE partition = p.number ORDER BY "offset" DESC LIMIT 1
           ) e ON true"#,
        partitions
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.number, row.head, row.recorded_at.unwrap_or_default())).collect())
}

pub(super) async fn look_up_outcomes(
    connection: &mut PgConnection,
    appends: &[Append],
) -> Result<KnownOutcomes, LogError> {
    let wanted: Vec<_> = appends.iter().filter_map(|append| append.idempotency.as_ref()).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let callers: Vec<&str> = wanted.iter().map(|i| i.caller.as_str()).collect();
    let operations: Vec<&str> = wanted.iter().map(|i| i.operation.as_str()).collect();
    let keys: Vec<&str> = wanted.iter().map(|i| i.key.as_str()).collect();
    let rows = sqlx::query!(
        r#"SELECT o.caller, o.operation, o.key, o.input, o.outcome AS "outcome: sqlx::types::Json<StoredOutcome>"
           FROM unnest($1::text[], $2::text[], $3::text[]) AS w(caller, operation, key)
           CROSS JOIN LATERAL (
               SELECT * FROM outcomes WHERE caller = w.caller AND operation = w.operation AND key = w.key
           ) o"#,
        &callers as &[&str],
        &operations as &[&str],
        &keys as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.caller, row.operation, row.key), (row.input, row.outcome.0))).collect())
}
