//! Checking what the append keeps beside the log: offsets, sequences and versions dense, claims and tallies equal to
//! a fold of all events. And mending claims and tallies, which are the log's to say.
//!
//! Looking takes one snapshot of the database and keeps nobody from anything. Mending folds on from there under the
//! partition's lock, so that nothing is written meanwhile, and tells all writers to forget what they remember.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use aggregates::ids::OrganizationId;
use aggregates::organization::OrganizationEvent;
use aggregates::{Effect, Event, StreamId};
use chrono::{DateTime, SubsecRound, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use super::append::partition_of;
use super::chain::ChainKey;
use super::ledger::{Claim, ClaimKey, Tally, apply_to_tally, tally_of};
use super::stored::{COLUMNS, Reader, StoredEvent};
use super::{LogError, writer};

/// How many events are read at a time.
const PAGE_EVENTS: i64 = 5_000;

/// What is kept beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerPart {
    /// Unique keys and their holders.
    Claims,
    /// What organizations use.
    Tallies,
}

/// A row that is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerDifference {
    /// Of which table.
    pub part: LedgerPart,
    /// The partition.
    pub partition: i16,
    /// Scope and key, or organization and name.
    pub key: String,
    /// What the table holds; `None` where it has no row.
    pub shown: Option<String>,
    /// What it should hold; `None` where there should be no row.
    pub expected: Option<String>,
}

/// What came out of checking claims and tallies.
#[derive(Debug, Default)]
pub struct LedgerVerified {
    /// Events that were folded.
    pub events: u64,
    /// Rows that are not what the log says.
    pub differences: Vec<LedgerDifference>,
    /// Events that cannot be read, or that take a key which somebody else holds: no fold can make that right.
    pub broken: Vec<String>,
    /// Rows that were mended.
    pub repaired: u64,
}

impl std::fmt::Display for LedgerDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let table = match self.part {
            LedgerPart::Claims => "claims",
            LedgerPart::Tallies => "tallies",
        };
        let text = |row: &Option<String>| row.clone().unwrap_or_else(|| "no row".to_owned());
        write!(f, "{table} {}: there is {}, and by the log {}", self.key, text(&self.shown), text(&self.expected))
    }
}

/// Claims and tallies of a partition.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Fold {
    head: i64,
    claims: BTreeMap<ClaimKey, Claim>,
    tallies: BTreeMap<(OrganizationId, String), Tally>,
    /// Nobody can say any more what events said that are pruned, or are just being.
    pruned: BTreeSet<OrganizationId>,
    broken: Vec<String>,
    events: u64,
}

impl Fold {
    /// Folds on, to the end of the partition that `connection` sees.
    async fn go_on(
        &mut self,
        connection: &mut PgConnection,
        reader: &Reader,
        partition: i16,
        done: &AtomicU64,
    ) -> Result<(), LogError> {
        let statement = format!(
            r#"SELECT {COLUMNS} FROM events WHERE partition = $1 AND "offset" > $2 ORDER BY "offset" LIMIT {PAGE_EVENTS}"#
        );
        loop {
            let query = sqlx::query_as(&statement).bind(partition).bind(self.head);
            let rows: Vec<StoredEvent> = query.fetch_all(&mut *connection).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            self.head = last.offset;
            self.events += rows.len() as u64;
            done.fetch_add(rows.len() as u64, Ordering::Relaxed);
            for row in &rows {
                if let Err(error) = self.follow(reader, row) {
                    self.broken.push(format!("partition {partition}, offset {}: {error}", row.offset));
                }
            }
        }
    }

    fn follow(&mut self, reader: &Reader, row: &StoredEvent) -> Result<(), LogError> {
        let stream = Reader::stream(row)?;
        let organization: Option<OrganizationId> = row.organization_id.as_deref().and_then(|id| id.parse().ok());
        let event = reader.parse(row)?;
        if matches!(event, Event::Organization(OrganizationEvent::OrgPruned { .. })) {
            self.pruned.extend(organization.clone());
        }
        for effect in event.effects() {
            self.take(&stream, organization.as_ref(), &effect).map_err(LogError::Corrupt)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        stream: &StreamId,
        organization: Option<&OrganizationId>,
        effect: &Effect,
    ) -> Result<(), String> {
        match effect {
            Effect::Claim { scope, key, until } => {
                let key = ClaimKey::new(*scope, key, organization);
                let until = until.map(|time| time.trunc_subsecs(6));
                let claim = Claim { holder: stream.id().to_owned(), organization: organization.cloned(), until };
                match self.claims.insert(key.clone(), claim) {
                    Some(before) if before.holder != stream.id() => Err(format!(
                        "{} takes {} {}, which {} holds",
                        stream.id(),
                        key.scope.as_str(),
                        key.key,
                        before.holder
                    )),
                    _ => Ok(()),
                }
            }
            Effect::Release { scope, key } => {
                let key = ClaimKey::new(*scope, key, organization);
                if self.claims.get(&key).is_some_and(|claim| claim.holder == stream.id()) {
                    self.claims.remove(&key);
                }
                Ok(())
            }
            Effect::Vacant { .. } => Ok(()),
            Effect::Tally { .. } | Effect::Maximum { .. } | Effect::Floor { .. } | Effect::Reached { .. } => {
                if let (Some(organization), Some(name)) = (organization, tally_of(effect)) {
                    let key = (organization.clone(), name.to_owned());
                    apply_to_tally(effect, self.tallies.entry(key).or_default());
                }
                Ok(())
            }
        }
    }

    fn leave_out(&mut self, pruned: &BTreeSet<OrganizationId>) {
        self.claims.retain(|_, claim| claim.organization.as_ref().is_none_or(|owner| !pruned.contains(owner)));
        self.tallies.retain(|(owner, _), _| !pruned.contains(owner));
    }

    fn only(&mut self, organization: &OrganizationId) {
        self.claims.retain(|_, claim| claim.organization.as_ref() == Some(organization));
        self.tallies.retain(|(owner, _), _| owner == organization);
    }
}

/// What the tables hold of a partition.
async fn shown(connection: &mut PgConnection, partition: i16) -> Result<Fold, LogError> {
    type ClaimRow = (String, String, String, Option<String>, Option<DateTime<Utc>>);
    let claims: Vec<ClaimRow> =
        sqlx::query_as("SELECT scope, key, holder, organization_id, until FROM claims WHERE partition = $1")
            .bind(partition)
            .fetch_all(&mut *connection)
            .await?;
    type TallyRow = (String, String, i64, Option<i64>, i64, bool);
    let tallies: Vec<TallyRow> =
        sqlx::query_as("SELECT organization_id, name, used, maximum, floor, reached FROM tallies WHERE partition = $1")
            .bind(partition)
            .fetch_all(&mut *connection)
            .await?;
    let mut fold = Fold::default();
    for (scope, key, holder, organization, until) in claims {
        let Some(scope) = aggregates::Scope::named(&scope) else {
            fold.broken.push(format!("claims {scope} {key}: there is no such scope"));
            continue;
        };
        let organization = organization.and_then(|id| id.parse().ok());
        fold.claims.insert(ClaimKey { scope, key }, Claim { holder, organization, until });
    }
    for (organization, name, used, maximum, floor, reached) in tallies {
        match organization.parse() {
            Ok(organization) => {
                fold.tallies.insert((organization, name), Tally { used, maximum, floor, reached });
            }
            Err(_) => fold.broken.push(format!("tallies {organization}: that is no organization")),
        }
    }
    Ok(fold)
}

fn differences(partition: i16, shown: &Fold, expected: &Fold) -> Vec<LedgerDifference> {
    let mut found = vec![];
    let keys: BTreeSet<&ClaimKey> = shown.claims.keys().chain(expected.claims.keys()).collect();
    for key in keys {
        let (is, should) = (shown.claims.get(key), expected.claims.get(key));
        if is != should {
            let text = |claim: &Claim| match claim.until {
                Some(until) => format!("holder {} until {until}", claim.holder),
                None => format!("holder {}", claim.holder),
            };
            found.push(LedgerDifference {
                part: LedgerPart::Claims,
                partition,
                key: format!("{} {}", key.scope.as_str(), key.key),
                shown: is.map(text),
                expected: should.map(text),
            });
        }
    }
    let keys: BTreeSet<_> = shown.tallies.keys().chain(expected.tallies.keys()).collect();
    for key in keys {
        let (is, should) = (shown.tallies.get(key), expected.tallies.get(key));
        // A tally without a row counts nothing and allows everything.
        if is.copied().unwrap_or_default() != should.copied().unwrap_or_default() {
            let text = |tally: &Tally| {
                let maximum = tally.maximum.map_or("none".to_owned(), |maximum| maximum.to_string());
                format!("used {} (maximum {maximum}, floor {}, reached {})", tally.used, tally.floor, tally.reached)
            };
            found.push(LedgerDifference {
                part: LedgerPart::Tallies,
                partition,
                key: format!("{} {}", key.0, key.1),
                shown: is.map(text),
                expected: should.map(text),
            });
        }
    }
    found
}

/// A connection for long looks.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, LogError> {
    let settings =
        [("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0"), ("search_path", "public")];
    Ok(options.clone().options(settings).application_name("tenancy verify").connect().await?)
}

/// Folds the log afresh and compares claims and tallies with it: all, or one organization's. With `repair`, rows that
/// differ are written as the log says; appends to a partition wait while it is mended.
pub async fn verify(
    options: &PgConnectOptions,
    partitions: i16,
    organization: Option<&OrganizationId>,
    repair: bool,
    done: &AtomicU64,
) -> Result<LedgerVerified, LogError> {
    let reader = Reader::default();
    let mut connection = connect(options).await?;
    let mut verified = LedgerVerified::default();
    let mut to_mend = vec![];
    for partition in 0..partitions {
        if organization.is_some_and(|id| partition_of(id.as_ref(), partitions) != partition) {
            continue;
        }
        let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        let mut expected = Fold::default();
        expected.go_on(&mut snapshot, &reader, partition, done).await?;
        let mut shown = shown(&mut snapshot, partition).await?;
        snapshot.rollback().await?;
        let mut narrow = expected.clone();
        shown.leave_out(&expected.pruned);
        narrow.leave_out(&expected.pruned);
        if let Some(organization) = organization {
            shown.only(organization);
            narrow.only(organization);
        }
        let found = differences(partition, &shown, &narrow);
        verified.events += expected.events;
        verified.broken.extend(shown.broken.into_iter().chain(expected.broken.iter().cloned()));
        // An unreadable event may say something about any of them.
        if repair && !found.is_empty() && expected.broken.is_empty() {
            to_mend.push((partition, expected));
        }
        verified.differences.extend(found);
    }
    if !to_mend.is_empty() {
        verified.repaired = mend(&mut connection, &reader, partitions, to_mend).await?;
    }
    connection.close().await?;
    Ok(verified)
}

/// Writes claims and tallies of these partitions as the log says. All partitions are locked meanwhile: a key that is
/// unique over all of them may stand under the wrong one.
async fn mend(
    connection: &mut PgConnection,
    reader: &Reader,
    partitions: i16,
    folds: Vec<(i16, Fold)>,
) -> Result<u64, LogError> {
    writer::lock(connection, &(0..partitions).collect(), &BTreeSet::new()).await?;
    let result = mend_locked(connection, reader, folds).await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    sqlx::raw_sql(end).execute(connection).await?;
    result
}

async fn mend_locked(connection: &mut PgConnection, reader: &Reader, folds: Vec<(i16, Fold)>) -> Result<u64, LogError> {
    let mut rows = 0;
    let mut wrong = vec![];
    // Wrong rows go first everywhere: they may stand in the way of right ones.
    for (partition, mut expected) in folds {
        expected.go_on(connection, reader, partition, &AtomicU64::new(0)).await?;
        let mut shown = shown(connection, partition).await?;
        shown.leave_out(&expected.pruned);
        expected.leave_out(&expected.pruned.clone());
        rows += remove(connection, partition, &shown, &expected).await?;
        wrong.push((partition, shown, expected));
    }
    for (partition, shown, expected) in wrong {
        rows += write(connection, partition, &shown, &expected).await?;
    }
    // The memory of writers came from the rows that were wrong.
    sqlx::query("UPDATE installation SET ledger_revision = ledger_revision + 1").execute(connection).await?;
    Ok(rows)
}

async fn remove(connection: &mut PgConnection, partition: i16, shown: &Fold, expected: &Fold) -> Result<u64, LogError> {
    let keys = shown.claims.keys().filter(|key| !expected.claims.contains_key(key));
    let (scopes, keys): (Vec<&str>, Vec<&str>) = keys.map(|key| (key.scope.as_str(), key.key.as_str())).unzip();
    let claims = sqlx::query(
        "DELETE FROM claims USING unnest($1::text[], $2::text[]) AS d(scope, key)
         WHERE claims.scope = d.scope AND claims.key = d.key AND claims.partition = $3",
    );
    let claims = claims.bind(&scopes).bind(&keys).bind(partition).execute(&mut *connection).await?.rows_affected();
    let tallies = shown.tallies.keys().filter(|key| !expected.tallies.contains_key(key));
    let (organizations, names): (Vec<&str>, Vec<&str>) =
        tallies.map(|(organization, name)| (organization.as_ref(), name.as_str())).unzip();
    let tallies = sqlx::query(
        "DELETE FROM tallies USING unnest($1::text[], $2::text[]) AS d(organization_id, name)
         WHERE tallies.organization_id = d.organization_id AND tallies.name = d.name",
    );
    Ok(claims + tallies.bind(&organizations).bind(&names).execute(connection).await?.rows_affected())
}

async fn write(connection: &mut PgConnection, partition: i16, shown: &Fold, expected: &Fold) -> Result<u64, LogError> {
    let claims: Vec<(&ClaimKey, &Claim)> =
        expected.claims.iter().filter(|(key, claim)| shown.claims.get(key) != Some(claim)).collect();
    let upsert = sqlx::query(
        "INSERT INTO claims (scope, key, holder, organization_id, until, partition)
         SELECT r.*, $6 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) AS r
         ON CONFLICT (scope, key) DO UPDATE SET holder = EXCLUDED.holder, organization_id = EXCLUDED.organization_id,
             until = EXCLUDED.until, partition = EXCLUDED.partition",
    );
    let organization = |claim: &Claim| claim.organization.as_ref().map(ToString::to_string);
    let upsert = upsert.bind(claims.iter().map(|(key, _)| key.scope.as_str()).collect::<Vec<_>>());
    let upsert = upsert.bind(claims.iter().map(|(key, _)| key.key.as_str()).collect::<Vec<_>>());
    let upsert = upsert.bind(claims.iter().map(|(_, claim)| claim.holder.as_str()).collect::<Vec<_>>());
    let upsert = upsert.bind(claims.iter().map(|(_, claim)| organization(claim)).collect::<Vec<_>>());
    let upsert = upsert.bind(claims.iter().map(|(_, claim)| claim.until).collect::<Vec<_>>()).bind(partition);
    let rows = upsert.execute(&mut *connection).await?.rows_affected();

    let tallies: Vec<_> =
        expected.tallies.iter().filter(|(key, tally)| shown.tallies.get(key) != Some(tally)).collect();
    let upsert = sqlx::query(
        "INSERT INTO tallies (organization_id, name, used, maximum, floor, reached, partition)
         SELECT r.*, $7 FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[]) AS r
         ON CONFLICT (organization_id, name) DO UPDATE
         SET used = EXCLUDED.used, maximum = EXCLUDED.maximum, floor = EXCLUDED.floor, reached = EXCLUDED.reached",
    );
    let upsert = upsert.bind(tallies.iter().map(|((id, _), _)| id.as_ref()).collect::<Vec<&str>>());
    let upsert = upsert.bind(tallies.iter().map(|((_, name), _)| name.as_str()).collect::<Vec<_>>());
    let upsert = upsert.bind(tallies.iter().map(|(_, tally)| tally.used).collect::<Vec<_>>());
    let upsert = upsert.bind(tallies.iter().map(|(_, tally)| tally.maximum).collect::<Vec<_>>());
    let upsert = upsert.bind(tallies.iter().map(|(_, tally)| tally.floor).collect::<Vec<_>>());
    let upsert = upsert.bind(tallies.iter().map(|(_, tally)| tally.reached).collect::<Vec<_>>()).bind(partition);
    Ok(rows + upsert.execute(connection).await?.rows_affected())
}

/// Checks the log by itself, in one snapshot: offsets dense by partition, audit sequences by organization and versions
/// by stream, every organization in its own partition, time never going back. Says what is wrong.
pub async fn check(options: &PgConnectOptions, partitions: i16) -> Result<Vec<String>, LogError> {
    let mut connection = connect(options).await?;
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let statements = [
        r#"SELECT 'partition ' || partition || ' has ' || count(*) || ' events up to offset ' || max("offset")
           FROM events GROUP BY partition HAVING count(*) <> max("offset")"#,
        "SELECT organization_id || ' has ' || count(*) || ' events up to audit sequence ' || max(audit_sequence)
         FROM events WHERE organization_id IS NOT NULL GROUP BY organization_id HAVING count(*) <> max(audit_sequence)",
        "SELECT aggregate_id || ' has ' || count(*) || ' events up to version ' || max(sequence)
         FROM events GROUP BY aggregate_type, aggregate_id HAVING count(*) <> max(sequence)",
        r#"SELECT 'partition ' || partition || ': offset ' || "offset" || ' was recorded before the one before it'
           FROM (SELECT partition, "offset", recorded_at, lag(recorded_at) OVER (PARTITION BY partition ORDER BY "offset") AS before
                 FROM events) e WHERE recorded_at < before"#,
        r#"SELECT organization_id || ': audit sequence ' || audit_sequence || ' comes after a later one'
           FROM (SELECT organization_id, audit_sequence, lag(audit_sequence) OVER (PARTITION BY organization_id ORDER BY partition, "offset") AS before
                 FROM events WHERE organization_id IS NOT NULL) e WHERE audit_sequence <> COALESCE(before, 0) + 1"#,
    ];
    let mut wrong: Vec<String> = vec![];
    for statement in statements {
        wrong.extend(sqlx::query_scalar::<_, String>(statement).fetch_all(&mut *snapshot).await?);
    }
    let homes: Vec<(String, i16)> =
        sqlx::query_as("SELECT DISTINCT COALESCE(organization_id, aggregate_id), partition FROM events")
            .fetch_all(&mut *snapshot)
            .await?;
    let strayed = homes.iter().filter(|(id, partition)| partition_of(id, partitions) != *partition);
    wrong.extend(
        strayed.map(|(id, partition)| format!("{id} has events in partition {partition}, which is not its own")),
    );
    snapshot.rollback().await?;
    connection.close().await?;
    Ok(wrong)
}

/// What raising the epoch did.
#[derive(Debug)]
pub struct Recovered {
    /// The epoch now.
    pub epoch: i64,
    /// Keys of erased people that had come back, and were destroyed again.
    pub erased_again: u64,
}

/// After the database was restored to an earlier point: raises the epoch, so that positions of before are known as
/// such, and destroys again the keys of people who were erased. Tells running replicas.
pub async fn recover(options: &PgConnectOptions, key: &ChainKey) -> Result<Recovered, LogError> {
    let mut connection = connect(options).await?;
    let mut transaction = connection.begin().await?;
    let epoch = sqlx::query_scalar(
        // Counting from what was restored would give an epoch again that was given after an earlier restore of it.
        "UPDATE installation SET epoch = GREATEST(epoch + 1, EXTRACT(EPOCH FROM clock_timestamp())::bigint),
                                 keys_revision = keys_revision + 1,
                                 ledger_revision = GREATEST(ledger_revision + 1, EXTRACT(EPOCH FROM clock_timestamp())::bigint)
         RETURNING epoch",
    )
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query("UPDATE installation SET epoch_code = $1").bind(key.of_epoch(epoch)).execute(&mut *transaction).await?;
    let erased_again = sqlx::query(
        "UPDATE subject_keys k SET wrapped = NULL, wrapped_by = NULL, erased_at = t.erased_at FROM tombstones t
         WHERE t.subject_id = k.subject_id AND k.wrapped IS NOT NULL",
    )
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    // States that were folded from events which are no more.
    sqlx::query(
        "DELETE FROM snapshots s WHERE NOT EXISTS (
             SELECT FROM events e WHERE e.aggregate_type = s.aggregate_type AND e.aggregate_id = s.aggregate_id AND e.sequence = s.version
         )",
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(super::CHANNEL).execute(&mut *transaction).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(Recovered { epoch, erased_again })
}
