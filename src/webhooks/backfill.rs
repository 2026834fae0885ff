//! Parts of audit trails that endpoints missed, or are to be sent again: turned into deliveries a page at a time, by
//! whoever is free, so that nothing long holds anything up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aggregates::descriptors_of_organizations;
use aggregates::ids::{EventId, WebhookDeliveryId, WebhookEndpointId};
use aggregates::webhook::types_wanted;
use chrono::{DateTime, Utc};
use projections::{lock_endpoints, make_due};
use sqlx::{Acquire, PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::commands::Commands;
use crate::log::LogError;

/// How many events, deliveries or subjects are looked at in one transaction.
const PAGE: i64 = 1_000;
/// How many deliveries of an endpoint are open before a backfill waits for them.
const OPEN_MAX: i64 = 5_000;
/// How often is looked without having been woken.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait for a database that is away.
const BACK_OFF: Duration = Duration::from_millis(500);
/// How long a backfill waits that has no room or cannot go on, in seconds.
const PUT_OFF_SECONDS: f64 = 2.0;

/// Works on backfills until `stop` says so; `woken` changes when there may be a new one.
pub async fn run(pool: PgPool, commands: Arc<Commands>, mut woken: watch::Receiver<()>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        woken.mark_unchanged();
        let pause = match step(&pool, &commands).await {
            Ok(true) => continue,
            Ok(false) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!(%error, "webhooks that were missed cannot be written now");
                BACK_OFF
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            Ok(()) = woken.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Backfill {
    id: i64,
    endpoint_id: String,
    organization_id: String,
    kind: String,
    patterns: Option<Vec<String>>,
    stage: String,
    cursor: i64,
    until: i64,
    subject: String,
    wanted: Option<Vec<String>>,
    in_order: Option<bool>,
}

/// A step of a backfill that is not somebody else's, of each endpoint the oldest; whether there was one.
async fn step(pool: &PgPool, commands: &Commands) -> Result<bool, LogError> {
    let mut transaction = pool.begin().await?;
    let backfill = sqlx::query_as!(
        Backfill,
        r#"SELECT b.id, b.endpoint_id, b.organization_id, b.kind, b.patterns, b.stage, b.cursor, b.until, b.subject,
                  e.patterns AS "wanted?", e.ordering = 'PER_SUBJECT' AS in_order
           FROM webhook_backfills b
           LEFT JOIN LATERAL (SELECT * FROM webhook_endpoints e WHERE e.id = b.endpoint_id AND NOT e.deleted) e ON true
           WHERE b.look_at <= now()
             AND NOT EXISTS (SELECT FROM webhook_backfills o WHERE o.endpoint_id = b.endpoint_id AND o.id < b.id)
           ORDER BY b.look_at LIMIT 1 FOR UPDATE OF b SKIP LOCKED"#
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(backfill) = backfill else { return Ok(false) };
    let stepped = async {
        let mut attempt = transaction.begin().await?;
        carry_on(&mut attempt, commands, &backfill).await?;
        attempt.commit().await?;
        Ok::<_, LogError>(())
    };
    if let Err(error) = stepped.await {
        tracing::warn!(%error, endpoint = backfill.endpoint_id, "webhooks that were missed cannot be written now");
        put_off(&mut transaction, backfill.id).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// One step. What writes deliveries or makes them due holds the endpoint's lock, whatever its order is: it may have been
/// another when rows were written.
async fn carry_on(connection: &mut PgConnection, commands: &Commands, backfill: &Backfill) -> Result<(), LogError> {
    let Some(wanted) = &backfill.wanted else {
        // An endpoint that a read model does not show may be shown again; the log knows.
        return match super::sweep::is_gone(commands, &backfill.endpoint_id).await? {
            true => Ok(end(connection, backfill.id).await?),
            false => Ok(put_off(connection, backfill.id).await?),
        };
    };
    if backfill.stage == "FORGET" {
        return Ok(forget(connection, backfill).await?);
    }
    lock_endpoints(connection, &BTreeSet::from([backfill.endpoint_id.as_str()])).await?;
    match backfill.stage.as_str() {
        "EVENTS" if !has_room(connection, backfill).await? => Ok(put_off(connection, backfill.id).await?),
        "EVENTS" => Ok(events(connection, backfill, wanted).await?),
        _ => Ok(release(connection, backfill).await?),
    }
}

async fn put_off(connection: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE webhook_backfills SET look_at = now() + make_interval(secs => $2) WHERE id = $1",
        id,
        PUT_OFF_SECONDS
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn end(connection: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM webhook_backfills WHERE id = $1", id).execute(connection).await?;
    Ok(())
}

async fn enter(connection: &mut PgConnection, id: i64, stage: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE webhook_backfills SET stage = $2, look_at = now() WHERE id = $1", id, stage)
        .execute(connection)
        .await?;
    Ok(())
}

/// What waits behind others counts as far as it could be the backfill's own: anything later may wait for its very end.
async fn has_room(connection: &mut PgConnection, backfill: &Backfill) -> Result<bool, sqlx::Error> {
    let open = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM (
               SELECT FROM webhook_deliveries
               WHERE endpoint_id = $1 AND due_at IS NOT NULL AND (due_at < 'infinity' OR audit_sequence <= $3) LIMIT $2
           ) open"#,
        backfill.endpoint_id,
        OPEN_MAX,
        backfill.until
    );
    Ok(open.fetch_one(connection).await? < OPEN_MAX)
}

/// Deliveries that failed before the endpoint was enabled are tried now, and as if for the first time.
async fn forget(connection: &mut PgConnection, backfill: &Backfill) -> Result<(), sqlx::Error> {
    let forgotten = sqlx::query!(
        "UPDATE webhook_deliveries SET tries = 0, due_at = LEAST(due_at, clock_timestamp()) WHERE id IN (
             SELECT id FROM webhook_deliveries
             WHERE endpoint_id = $1 AND due_at < 'infinity' AND tries > 0 LIMIT $2
         ) AND due_at < 'infinity'",
        backfill.endpoint_id,
        PAGE
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if forgotten < PAGE.unsigned_abs() {
        enter(connection, backfill.id, "EVENTS").await?;
    }
    Ok(())
}

/// A page of events.
async fn events(connection: &mut PgConnection, backfill: &Backfill, wanted: &[String]) -> Result<(), sqlx::Error> {
    let Some(page) = page(connection, backfill, wanted).await? else {
        // There are events that this program does not know; another one does.
        return put_off(connection, backfill.id).await;
    };
    write(connection, backfill, &page.events).await?;
    sqlx::query!(
        "UPDATE webhook_backfills SET cursor = $2, look_at = now() WHERE id = $1",
        backfill.id,
        page.next.unwrap_or(backfill.until)
    )
    .execute(&mut *connection)
    .await?;
    if page.next.is_none() {
        enter(connection, backfill.id, "RELEASE").await?;
    }
    Ok(())
}

/// A page of subjects: of each the first that is open becomes due. What comes now waits for nothing but those before it.
async fn release(connection: &mut PgConnection, backfill: &Backfill) -> Result<(), sqlx::Error> {
    let subjects = sqlx::query_file_scalar!(
        "src/webhooks/subjects.sql",
        backfill.endpoint_id,
        backfill.subject,
        i32::try_from(PAGE).unwrap_or(i32::MAX)
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(last) = subjects.last() else { return end(connection, backfill.id).await };
    let own = subjects.iter().map(|subject| (backfill.endpoint_id.as_str(), subject.as_str()));
    make_due(connection, &own.collect()).await?;
    sqlx::query!("UPDATE webhook_backfills SET subject = $2, look_at = now() WHERE id = $1", backfill.id, last)
        .execute(connection)
        .await?;
    Ok(())
}

struct Passed {
    event_id: String,
    event_type: String,
    audit_sequence: i64,
    aggregate_id: String,
    recorded_at: DateTime<Utc>,
}

struct Page {
    events: Vec<Passed>,
    /// Where to go on; `None` at the end.
    next: Option<i64>,
}

/// The next events, as far as they are wanted; `None` where some are of kinds that this program does not know.
async fn page(
    connection: &mut PgConnection,
    backfill: &Backfill,
    wanted: &[String],
) -> Result<Option<Page>, sqlx::Error> {
    let mut events = sqlx::query_as!(
        Passed,
        r#"SELECT event_id, event_type, audit_sequence AS "audit_sequence!", aggregate_id, recorded_at FROM events
           WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3
           ORDER BY audit_sequence LIMIT $4"#,
        backfill.organization_id,
        backfill.cursor,
        backfill.until,
        PAGE
    )
    .fetch_all(connection)
    .await?;
    let known = |event: &Passed| descriptors_of_organizations().any(|known| known.name == event.event_type);
    if !events.iter().all(known) {
        return Ok(None);
    }
    let full = events.len() as i64 >= PAGE;
    let next = events.last().map(|last| last.audit_sequence).filter(|last| full && *last < backfill.until);
    let types = types_wanted(wanted, backfill.patterns.as_deref());
    events.retain(|event| event.aggregate_id != backfill.endpoint_id && types.contains(&event.event_type.as_str()));
    Ok(Some(Page { events, next }))
}

/// Writes the deliveries of a page, or makes those due again that are there. Of one subject the first becomes due, the
/// others when it is done.
async fn write(connection: &mut PgConnection, backfill: &Backfill, events: &[Passed]) -> Result<(), sqlx::Error> {
    let in_order = backfill.in_order == Some(true);
    let Ok(endpoint) = backfill.endpoint_id.parse::<WebhookEndpointId>() else { return Ok(()) };
    let id = |event: &Passed| {
        let event: Option<EventId> = event.event_id.parse().ok();
        event.map(|event| WebhookDeliveryId::of(&endpoint, &event).to_string()).unwrap_or_default()
    };
    let ids: Vec<String> = events.iter().map(id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    if backfill.kind != "FAILED" {
        sqlx::query!(
            r#"INSERT INTO webhook_deliveries
                   (id, endpoint_id, organization_id, event_id, event_type, audit_sequence, subject_id, created_at, due_at)
               SELECT n.id, $1, $2, n.event_id, n.event_type, n.audit_sequence, n.subject_id, n.created_at,
                      CASE WHEN n.subject_id IS NOT NULL THEN 'infinity' ELSE clock_timestamp() END
               FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::timestamptz[])
                    AS n(id, event_id, event_type, audit_sequence, subject_id, created_at)
               ON CONFLICT (id) DO NOTHING"#,
            backfill.endpoint_id,
            backfill.organization_id,
            &ids,
            &events.iter().map(|event| event.event_id.clone()).collect::<Vec<_>>(),
            &events.iter().map(|event| event.event_type.clone()).collect::<Vec<_>>(),
            &events.iter().map(|event| event.audit_sequence).collect::<Vec<_>>(),
            &events.iter().map(|event| in_order.then(|| event.aggregate_id.clone())).collect::<Vec<_>>()
                as &[Option<String>],
            &events.iter().map(|event| event.recorded_at).collect::<Vec<_>>()
        )
        .execute(&mut *connection)
        .await?;
    }
    if backfill.kind != "MISSED" {
        sqlx::query!(
            "UPDATE webhook_deliveries SET state = 'PENDING', tries = 0, finished_at = NULL,
                 due_at = CASE WHEN subject_id IS NOT NULL THEN 'infinity' ELSE clock_timestamp() END
             WHERE id = ANY($1) AND due_at IS NULL AND (state = 'FAILED' OR $2)",
            &ids,
            backfill.kind == "AGAIN"
        )
        .execute(&mut *connection)
        .await?;
    }
    // Rows keep the order that they were written for.
    let subjects = sqlx::query_scalar!(
        r#"SELECT DISTINCT subject_id AS "subject_id!" FROM webhook_deliveries
           WHERE id = ANY($1) AND due_at IS NOT NULL AND subject_id IS NOT NULL"#,
        &ids
    )
    .fetch_all(&mut *connection)
    .await?;
    let last = events.iter().map(|event| event.audit_sequence).max().unwrap_or_default();
    sqlx::query!("UPDATE webhook_backfills SET cursor = $2 WHERE id = $1", backfill.id, last)
        .execute(&mut *connection)
        .await?;
    let own = subjects.iter().map(|subject| (backfill.endpoint_id.as_str(), subject.as_str()));
    make_due(connection, &own.collect()).await
}
