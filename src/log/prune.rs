//! Taking the content of events away, when the time for which the trail of a purged organization is kept is over.
//!
//! Only the owner of the database may, so the service does it where it knows the owner, on connections apart, and
//! elsewhere an operator who runs `tenancy prune` as the owner. Rows stay: an event that was pruned keeps its places,
//! its id, its time and its hash in the sealed tree, and nothing else.

use std::collections::BTreeSet;

use aggregates::PRUNED;
use aggregates::ids::OrganizationId;
use chrono::{DateTime, Utc};
use projections::{Projection, Term, actor_id};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::writer;
use super::{Log, LogError};

/// How many events lose their content in one transaction.
const BATCH_EVENTS: i64 = 1_000;
/// How often it is gone on with what came meanwhile, before it is left for the next time.
const TRIES: usize = 3;

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
#[derive(Debug, thiserror::Error)]
pub enum NotYet {
    /// An event that is not sealed could never be proven to anybody who has it.
    #[error("it is not sealed to its end")]
    NotSealed,
    /// Why it will not be without somebody's doing.
    #[error("it is not sealed any further: {0}")]
    SealFailed(String),
    /// The index by which its events are found.
    #[error("the read model `audit` has not come to its end, or is being rebuilt")]
    NotIndexed,
    /// Somebody who had decided before still wrote something.
    #[error("something was appended to it meanwhile")]
    Written,
    /// The log failed.
    #[error(transparent)]
    Failed(#[from] LogError),
}

impl From<sqlx::Error> for NotYet {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// The purged organizations that are not pruned, of which those that are new are put on record. `kept_days` is how long
/// they are kept.
pub async fn unpruned(owner: &PgPool, kept_days: u32) -> Result<Vec<Unpruned>, LogError> {
    // Tombstones only say where to look: the service may write them as it likes.
    sqlx::query(
        r"INSERT INTO prunings (organization_id)
          SELECT subject_id FROM tombstones t WHERE subject_id LIKE 'org\_%' AND finished_at IS NOT NULL AND EXISTS (
              SELECT FROM events WHERE aggregate_type = 'Organization' AND aggregate_id = t.subject_id
              AND event_type = 'OrgPurged'
          )
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
    /// Whether its content is to go: it has one, and is not what says that it goes.
    fn goes(&self) -> bool {
        !["OrgPurged", "OrgPruned", PRUNED.name].contains(&self.event_type.as_str())
    }

    fn terms(&self, organization: &str) -> [i64; 3] {
        [
            Term::Action { organization, event_type: &self.event_type }.hash(),
            Term::Actor { organization, actor: actor_id(&self.actor) }.hash(),
            Term::Correlation(self.correlation_id.as_bytes()).hash(),
        ]
    }
}

/// Takes away the content of this organization's events, of which the log has to say so already, and everything that is
/// kept beside the log of it but the proofs; says how many events have none any more. One that was cut off is gone on with.
///
/// `owner` does not touch read models: they are the projector's, whose triggers would run as the owner.
pub async fn prune(
    owner: &PgPool,
    projector: &PgPool,
    log: &Log,
    organization: &OrganizationId,
) -> Result<u64, NotYet> {
    let (id, partition) = (organization.as_ref() as &str, log.partition_of(organization.as_ref()));
    ready(owner, id, partition).await?;
    let mut after = 0;
    for _ in 0..TRIES {
        after = prune_after(after, owner, projector, id, partition).await?;
        if let Some(events) = finish(owner, id, partition, after).await? {
            return Ok(events);
        }
    }
    Err(NotYet::Written)
}

/// Whether everything has come to the end of the trail that will be asked for it.
async fn ready(owner: &PgPool, id: &str, partition: i16) -> Result<(), NotYet> {
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
        Some((_, Some(failure))) => return Err(NotYet::SealFailed(failure)),
        Some((size, None)) if size >= newest => {}
        Some(_) | None => return Err(NotYet::NotSealed),
    }
    let indexed = projections::complete(owner, Projection::Audit, &[partition]).await?;
    match indexed.get(&partition) {
        Some(indexed) if *indexed >= offset => Ok(()),
        Some(_) | None => Err(NotYet::NotIndexed),
    }
}

/// Takes away what may be lost of the events after this audit sequence, a batch at a time; says up to which.
async fn prune_after(
    mut after: i64,
    owner: &PgPool,
    projector: &PgPool,
    id: &str,
    partition: i16,
) -> Result<i64, NotYet> {
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
        let Some(last) = events.last().map(|event| event.audit_sequence) else { return Ok(after) };
        let going: Vec<&Indexed> = events.iter().filter(|event| event.goes()).collect();
        let entries: Vec<(i64, i64)> =
            going.iter().flat_map(|event| event.terms(id).map(|term| (term, event.offset))).collect();
        // What leads to them goes first: afterwards nobody could say what that was.
        let forgotten = projections::forget_terms(projector, partition, &entries).await?.ok_or(NotYet::NotIndexed)?;
        blank(owner, id, going.iter().map(|event| event.audit_sequence).collect()).await?;
        forgotten.let_go().await?;
        after = last;
    }
}

async fn blank(owner: &PgPool, id: &str, sequences: Vec<i64>) -> Result<(), NotYet> {
    // As the trigger wants it, which refuses everything else.
    let blanked = sqlx::query(
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
    .execute(owner)
    .await?;
    match blanked.rows_affected() == sequences.len() as u64 {
        true => Ok(()),
        false => Err(LogError::Corrupt(format!("the owner of the database does not see all events of {id}")).into()),
    }
}

/// Lets go of what was kept beside the log, if nothing came after that audit sequence, and says how many events have no
/// content. Writers forget what they remember of the organization.
async fn finish(owner: &PgPool, id: &str, partition: i16, after: i64) -> Result<Option<u64>, NotYet> {
    let count = "SELECT count(*) FROM events WHERE organization_id = $1 AND event_type = $2";
    let events: i64 = sqlx::query_scalar(count).bind(id).bind(PRUNED.name).fetch_one(owner).await?;
    // There is no index for either, so it is done while nobody waits.
    sqlx::query("DELETE FROM snapshots WHERE organization_id = $1").bind(id).execute(owner).await?;
    let claims: Vec<(String, String)> =
        sqlx::query_as("SELECT scope, key FROM claims WHERE organization_id = $1").bind(id).fetch_all(owner).await?;
    let mut connection = owner.acquire().await?;
    writer::lock(&mut connection, &BTreeSet::from([partition]), &BTreeSet::new()).await?;
    let finished = finish_locked(&mut connection, id, after, claims, events).await;
    let end = if matches!(finished, Ok(true)) { "COMMIT" } else { "ROLLBACK" };
    sqlx::query(end).execute(&mut *connection).await?;
    Ok(finished?.then_some(events.unsigned_abs()))
}

async fn finish_locked(
    connection: &mut PgConnection,
    id: &str,
    after: i64,
    claims: Vec<(String, String)>,
    events: i64,
) -> Result<bool, LogError> {
    let newest: i64 = sqlx::query_scalar(
        "SELECT audit_sequence FROM events WHERE organization_id = $1 ORDER BY audit_sequence DESC LIMIT 1",
    )
    .bind(id)
    .fetch_one(&mut *connection)
    .await?;
    if newest > after {
        return Ok(false);
    }
    let (scopes, keys): (Vec<String>, Vec<String>) = claims.into_iter().unzip();
    sqlx::query(
        "DELETE FROM claims c USING unnest($2::text[], $3::text[]) AS gone(scope, key)
         WHERE c.scope = gone.scope AND c.key = gone.key AND c.organization_id = $1",
    )
    .bind(id)
    .bind(&scopes)
    .bind(&keys)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM tallies WHERE organization_id = $1").bind(id).execute(&mut *connection).await?;
    sqlx::query("UPDATE installation SET ledger_revision = ledger_revision + 1").execute(&mut *connection).await?;
    sqlx::query("UPDATE prunings SET pruned_at = now(), events = $2 WHERE organization_id = $1")
        .bind(id)
        .bind(events)
        .execute(connection)
        .await?;
    Ok(true)
}
