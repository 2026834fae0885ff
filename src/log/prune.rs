//! Taking the content of events away, when the time for which the trail of a purged organization is kept is over.
//!
//! Only the owner of the database may, so the service does it where it knows him, on connections apart, and elsewhere
//! whoever runs `tenancy prune` as the owner. Rows stay: an event that was pruned keeps its places, its id, its time and
//! its hash in the sealed tree, and nothing else.

use std::collections::BTreeSet;

use aggregates::PRUNED;
use aggregates::ids::OrganizationId;
use chrono::{DateTime, Utc};
use projections::{Projection, Term, actor_id};
use sqlx::PgPool;
use uuid::Uuid;

use super::writer;
use super::{Log, LogError};

/// How many events lose their content in one transaction.
const BATCH_EVENTS: i64 = 1_000;

/// A purged organization whose trail is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpruned {
    /// Which.
    pub organization: OrganizationId,
    /// Since when the owner of the database knows that it is purged, by the clock of the database.
    pub seen_at: DateTime<Utc>,
    /// Whether it has been kept for long enough.
    pub due: bool,
}

/// Why a trail is not pruned yet, though its time is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// What is not sealed could never be proven to anybody who has it.
    #[error("it is not sealed to its end")]
    NotSealed,
    /// Why it will not be without somebody's doing.
    #[error("it is not sealed any further: {0}")]
    SealFailed(String),
    /// The index by which its events are found.
    #[error("the read model `audit` has not come to its end, or is being rebuilt")]
    NotIndexed,
}

/// The purged organizations that are not pruned, of which those that are new are put on record. `kept_days` is how long
/// they are kept.
pub async fn unpruned(owner: &PgPool, kept_days: u32) -> Result<Vec<Unpruned>, LogError> {
    // An organization's key is destroyed by its purge, and by nothing else.
    sqlx::query(
        r"INSERT INTO prunings (organization_id)
          SELECT subject_id FROM tombstones WHERE subject_id LIKE 'org\_%' AND finished_at IS NOT NULL
          ON CONFLICT DO NOTHING",
    )
    .execute(owner)
    .await?;
    let rows: Vec<(String, DateTime<Utc>, bool)> = sqlx::query_as(
        "SELECT organization_id, seen_at, seen_at + make_interval(days => $1) <= now() FROM prunings
         WHERE pruned_at IS NULL ORDER BY seen_at, organization_id",
    )
    .bind(i32::try_from(kept_days).unwrap_or(i32::MAX))
    .fetch_all(owner)
    .await?;
    let unpruned = |(organization, seen_at, due): (String, DateTime<Utc>, bool)| {
        Some(Unpruned { organization: organization.parse().ok()?, seen_at, due })
    };
    Ok(rows.into_iter().filter_map(unpruned).collect())
}

/// What the index has to forget of an event, and where it stands.
#[derive(sqlx::FromRow)]
struct Indexed {
    event_type: String,
    actor: String,
    correlation_id: Uuid,
    offset: i64,
    audit_sequence: i64,
}

impl Indexed {
    fn terms(&self, organization: &str) -> [i64; 3] {
        [
            Term::Action { organization, event_type: &self.event_type }.hash(),
            Term::Actor { organization, actor: actor_id(&self.actor) }.hash(),
            Term::Correlation(self.correlation_id.as_bytes()).hash(),
        ]
    }
}

/// Takes away the content of this organization's events, of which the log has to say so already, and everything that is
/// kept beside the log of it but the proofs; says how many events that were. One that was cut off is gone on with.
pub async fn prune(owner: &PgPool, log: &Log, organization: &OrganizationId) -> Result<Result<u64, NotYet>, LogError> {
    let (id, partition) = (organization.as_ref() as &str, log.partition_of(organization.as_ref()));
    if let Some(not_yet) = not_yet(owner, id, partition).await? {
        return Ok(Err(not_yet));
    }
    let mut after = 0;
    loop {
        let events: Vec<Indexed> = sqlx::query_as(
            r#"SELECT event_type, actor, correlation_id, "offset", audit_sequence FROM events
               WHERE organization_id = $1 AND audit_sequence > $2 ORDER BY audit_sequence LIMIT $3"#,
        )
        .bind(id)
        .bind(after)
        .bind(BATCH_EVENTS)
        .fetch_all(owner)
        .await?;
        let Some(last) = events.last().map(|event| event.audit_sequence) else { break };
        prune_batch(owner, id, partition, &events).await?;
        after = last;
    }
    finish(owner, id, partition).await.map(Ok)
}

async fn not_yet(owner: &PgPool, id: &str, partition: i16) -> Result<Option<NotYet>, LogError> {
    let (newest, offset): (i64, i64) = sqlx::query_as(
        r#"SELECT audit_sequence, "offset" FROM events WHERE organization_id = $1 ORDER BY audit_sequence DESC LIMIT 1"#,
    )
    .bind(id)
    .fetch_optional(owner)
    .await?
    .unwrap_or_default();
    let sealed: Option<(i64, Option<String>)> =
        sqlx::query_as("SELECT size, failure FROM sealed_trees WHERE organization_id = $1")
            .bind(id)
            .fetch_optional(owner)
            .await?;
    match sealed {
        Some((_, Some(failure))) => return Ok(Some(NotYet::SealFailed(failure))),
        Some((size, None)) if size >= newest => {}
        Some(_) | None => return Ok(Some(NotYet::NotSealed)),
    }
    let indexed = projections::complete(owner, Projection::Audit, &[partition]).await?;
    let rebuilt = projections::rebuild::unfinished(owner).await?.contains(&Projection::Audit);
    let behind = indexed.get(&partition).is_none_or(|indexed| *indexed < offset);
    Ok((rebuilt || behind).then_some(NotYet::NotIndexed))
}

/// What may be lost of these events, together with what leads to them.
async fn prune_batch(owner: &PgPool, id: &str, partition: i16, events: &[Indexed]) -> Result<(), LogError> {
    let goes = |event: &&Indexed| !["OrgPurged", "OrgPruned", PRUNED.name].contains(&event.event_type.as_str());
    let events: Vec<&Indexed> = events.iter().filter(goes).collect();
    let terms: Vec<i64> = events.iter().flat_map(|event| event.terms(id)).collect();
    let offsets: Vec<i64> = events.iter().flat_map(|event| [event.offset; 3]).collect();
    let sequences: Vec<i64> = events.iter().map(|event| event.audit_sequence).collect();
    let mut transaction = owner.begin().await?;
    sqlx::query(
        r#"DELETE FROM terms t USING unnest($1::bigint[], $2::bigint[]) AS gone(term, at)
           WHERE t.term = gone.term AND t.partition = $3 AND t."offset" = gone.at"#,
    )
    .bind(&terms)
    .bind(&offsets)
    .bind(partition)
    .execute(&mut *transaction)
    .await?;
    // As the trigger wants it, which refuses everything else.
    sqlx::query(
        "UPDATE events e SET event_type = p.event_type, event_version = p.event_version, payload = p.payload,
                metadata = p.metadata, actor = p.actor, on_behalf_of = p.on_behalf_of, ip = p.ip, user_agent = p.user_agent,
                request_id = p.request_id, command_id = p.command_id, correlation_id = p.correlation_id,
                causation_id = p.causation_id
         FROM events o CROSS JOIN LATERAL jsonb_populate_record(o, pruned(o)) AS p
         WHERE o.organization_id = $1 AND o.audit_sequence = ANY($2)
           AND e.organization_id = o.organization_id AND e.audit_sequence = o.audit_sequence",
    )
    .bind(id)
    .bind(&sequences)
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

/// What was kept beside the log. Writers forget what they remember of it.
async fn finish(owner: &PgPool, id: &str, partition: i16) -> Result<u64, LogError> {
    let mut connection = owner.acquire().await?;
    writer::lock(&mut connection, &BTreeSet::from([partition]), &BTreeSet::new()).await?;
    let finished = async {
        for table in ["claims", "tallies", "snapshots"] {
            let statement = format!("DELETE FROM {table} WHERE organization_id = $1");
            sqlx::query(&statement).bind(id).execute(&mut *connection).await?;
        }
        sqlx::query("UPDATE installation SET ledger_revision = ledger_revision + 1").execute(&mut *connection).await?;
        let events: i64 = sqlx::query_scalar(
            "UPDATE prunings SET pruned_at = now(), events = (
                 SELECT count(*) FROM events WHERE organization_id = $1 AND event_type = $2
             ) WHERE organization_id = $1 RETURNING events",
        )
        .bind(id)
        .bind(PRUNED.name)
        .fetch_one(&mut *connection)
        .await?;
        Ok(events.unsigned_abs())
    };
    let finished: Result<u64, LogError> = finished.await;
    let end = if finished.is_ok() { "COMMIT" } else { "ROLLBACK" };
    sqlx::query(end).execute(&mut *connection).await?;
    finished
}
