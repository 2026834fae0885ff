//! Writes a batch: one statement for everything.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;

use super::LogError;
use super::batch::Batch;
use super::ledger::{Claim, ClaimKey, Partition};

/// Writes events, claims, tallies and outcomes of the batch in one statement.
pub(super) async fn insert(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    global: &HashMap<ClaimKey, Option<Claim>>,
    ledger: &HashMap<i16, Partition>,
) -> Result<(), LogError> {
    let events = &batch.placed;
    macro_rules! column {
        ($get:expr) => {
            events.iter().map($get).collect::<Vec<_>>()
        };
    }
    let claims = ClaimRows::new(batch, global, ledger);
    let tallies = TallyRows::new(batch, ledger);
    let kept: Vec<_> = batch.kept.iter().filter_map(|append| append.idempotency.as_ref()).collect();
    let outcomes: Vec<String> = kept
        .iter()
        .map(|i| serde_json::to_string(&i.outcome))
        .collect::<Result<_, _>>()
        .map_err(|e| LogError::Corrupt(e.to_string()))?;
    sqlx::query_file!(
        "src/log/append.sql",
        &column!(|e| e.stream.aggregate_type()) as &[&str],
        &column!(|e| e.stream.id()) as &[&str],
        &column!(|e| e.sequence.cast_signed()),
        &column!(|e| e.event.event.descriptor().name) as &[&str],
        &column!(|e| e.event.event.descriptor().version) as &[&str],
        &column!(|e| e.event.payload.as_str()) as &[&str],
        &column!(|e| e.partition),
        &column!(|e| e.offset),
        &column!(|e| e.append.organization.as_ref().map(AsRef::as_ref)) as &[Option<&str>],
        &column!(|e| e.audit_sequence) as &[Option<i64>],
        &column!(|e| e.event.id.as_ref()) as &[&str],
        &column!(|e| e.append.origin().command_id),
        &column!(|e| e.actor.as_str()) as &[&str],
        &column!(|e| e.on_behalf_of.as_deref()) as &[Option<&str>],
        &column!(|e| e.append.origin.ip.as_deref()) as &[Option<&str>],
        &column!(|e| e.append.origin.user_agent.as_deref()) as &[Option<&str>],
        &column!(|e| e.append.origin().request_id.as_deref()) as &[Option<&str>],
        &column!(|e| e.append.origin().correlation_id),
        &column!(|e| e.append.origin().causation_id.as_ref().map(AsRef::as_ref)) as &[Option<&str>],
        &column!(|e| e.recorded_at),
        &claims.change as &[&str],
        &claims.scope as &[&str],
        &claims.key as &[&str],
        &claims.holder as &[&str],
        &claims.organization as &[Option<&str>],
        &claims.partition,
        &claims.until as &[Option<DateTime<Utc>>],
        &tallies.organization as &[&str],
        &tallies.name as &[&str],
        &tallies.used,
        &tallies.maximum as &[Option<i64>],
        &tallies.floor,
        &tallies.reached,
        &tallies.partition,
        &kept.iter().map(|i| i.caller.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|i| i.operation.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|i| i.key.as_str()).collect::<Vec<_>>() as &[&str],
        &kept.iter().map(|i| i.input.as_str()).collect::<Vec<_>>() as &[&str],
        &outcomes,
        batch.now,
        &column!(|e| e.mac.as_slice()) as &[&[u8]]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The claims that the batch changed, net: a new key is inserted, and fails if it is there.
#[derive(Default)]
struct ClaimRows<'a> {
    change: Vec<&'static str>,
    scope: Vec<&'a str>,
    key: Vec<&'a str>,
    holder: Vec<&'a str>,
    organization: Vec<Option<&'a str>>,
    partition: Vec<i16>,
    until: Vec<Option<DateTime<Utc>>>,
}

impl<'a> ClaimRows<'a> {
    fn new(
        batch: &'a Batch<'_>,
        global: &'a HashMap<ClaimKey, Option<Claim>>,
        ledger: &'a HashMap<i16, Partition>,
    ) -> Self {
        let mut rows = Self::default();
        let mut homes: HashMap<&str, i16> = HashMap::new();
        for placed in &batch.placed {
            homes.insert(placed.stream.id(), placed.partition);
        }
        for (key, before) in &batch.changes.claims {
            let local = || ledger.values().find_map(|partition| partition.claims.get(key));
            let after = if key.scope.is_global() { global.get(key) } else { local() }.and_then(Option::as_ref);
            let change = match (before, after) {
                (None, Some(_)) => "insert",
                (Some(_), None) => "delete",
                (Some(before), Some(after)) if before != after => "update",
                _ => continue,
            };
            let claim = after.or(before.as_ref());
            let organization = claim.and_then(|claim| claim.organization.as_ref()).map(AsRef::as_ref);
            rows.change.push(change);
            rows.scope.push(key.scope.as_str());
            rows.key.push(&key.key);
            rows.holder.push(claim.map_or("", |claim| claim.holder.as_str()));
            rows.organization.push(organization);
            // A claim changes by an event of its holder.
            let holder = claim.map(|claim| claim.holder.as_str());
            rows.partition.push(holder.and_then(|id| homes.get(id)).copied().unwrap_or_default());
            rows.until.push(claim.and_then(|claim| claim.until));
        }
        rows
    }
}

/// The tallies that the batch changed, as they are now.
#[derive(Default)]
struct TallyRows<'a> {
    organization: Vec<&'a str>,
    name: Vec<&'a str>,
    used: Vec<i64>,
    maximum: Vec<Option<i64>>,
    floor: Vec<i64>,
    reached: Vec<bool>,
    partition: Vec<i16>,
}

impl<'a> TallyRows<'a> {
    fn new(batch: &'a Batch<'_>, ledger: &'a HashMap<i16, Partition>) -> Self {
        let mut rows = Self::default();
        for (organization, name) in &batch.changes.tallies {
            for (number, partition) in ledger {
                if let Some(tally) = partition.tallies.get(organization).and_then(|tallies| tallies.get(name)) {
                    rows.organization.push(organization.as_ref());
                    rows.name.push(name);
                    rows.used.push(tally.used);
                    rows.maximum.push(tally.maximum);
                    rows.floor.push(tally.floor);
                    rows.reached.push(tally.reached);
                    rows.partition.push(*number);
                }
            }
        }
        rows
    }
}
