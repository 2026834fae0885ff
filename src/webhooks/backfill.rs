//! Parts of audit trails that endpoints missed, or are to be sent again: turned into deliveries a page at a time, by
//! whoever is free, so that nothing long holds anything up.

use std::collections::BTreeSet;
use std::time::Duration;

use aggregates::ids::{EventId, OrganizationId, WebhookDeliveryId, WebhookEndpointId};
use aggregates::webhook::{WebhookEndpointEvent, wants};
use aggregates::{WebhookEndpoint, descriptors_of_organizations};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;

use crate::log::{Log, LogError};

/// How many events are looked at in one transaction.
const PAGE_EVENTS: i64 = 1_000;
/// How many deliveries of an endpoint are open before a backfill waits for them.
const OPEN_MAX: i64 = 5_000;
/// How often is looked without having been woken.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait for a database that is away, or for a receiver that has enough.
const PAUSE: Duration = Duration::from_millis(500);

/// What a step did.
enum Step {
    /// There is nothing that could be done now.
    Nothing,
    /// A page.
    Page,
}

/// Works on backfills until `stop` says so; `woken` changes when there may be a new one.
pub async fn run(pool: PgPool, mut woken: watch::Receiver<()>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        woken.mark_unchanged();
        let pause = match step(&pool).await {
            Ok(Step::Page) => continue,
            Ok(Step::Nothing) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!(%error, "webhooks that were missed wait for the database");
                PAUSE
            }
        };
        tokio::select! {
            _ = stop.changed() => {}
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
    cursor: i64,
    until: i64,
    wanted: Option<Vec<String>>,
    in_order: Option<bool>,
}

/// One page of one backfill that is not somebody else's and has room.
async fn step(pool: &PgPool) -> Result<Step, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let backfill = sqlx::query_as!(
        Backfill,
        r#"SELECT b.id, b.endpoint_id, b.organization_id, b.kind, b.patterns, b.cursor, b.until,
                  e.patterns AS "wanted?", e.ordering = 'PER_SUBJECT' AS in_order
           FROM webhook_backfills b LEFT JOIN webhook_endpoints e ON e.id = b.endpoint_id AND NOT e.deleted
           WHERE (SELECT count(*) FROM (
                      SELECT FROM webhook_deliveries d WHERE d.endpoint_id = b.endpoint_id AND d.due_at IS NOT NULL LIMIT $1
                  ) open) < $1
           ORDER BY b.id LIMIT 1 FOR UPDATE OF b SKIP LOCKED"#,
        OPEN_MAX
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(backfill) = backfill else { return Ok(Step::Nothing) };
    let Some(wanted) = &backfill.wanted else {
        // The endpoint is gone.
        end(&mut transaction, backfill.id).await?;
        transaction.commit().await?;
        return Ok(Step::Page);
    };
    let page = page(&mut transaction, &backfill, wanted).await?;
    let in_order = backfill.in_order == Some(true);
    if in_order {
        projections::lock_endpoints(&mut transaction, &BTreeSet::from([backfill.endpoint_id.as_str()])).await?;
    }
    write(&mut transaction, &backfill, &page.events, in_order).await?;
    match page.next {
        Some(cursor) => {
            sqlx::query!("UPDATE webhook_backfills SET cursor = $2 WHERE id = $1", backfill.id, cursor)
                .execute(&mut *transaction)
                .await?;
        }
        None => {
            end(&mut transaction, backfill.id).await?;
            if in_order {
                release(&mut transaction, &backfill.endpoint_id).await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(Step::Page)
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

async fn page(connection: &mut PgConnection, backfill: &Backfill, wanted: &[String]) -> Result<Page, sqlx::Error> {
    let mut events = sqlx::query_as!(
        Passed,
        r#"SELECT event_id, event_type, audit_sequence AS "audit_sequence!", aggregate_id, recorded_at FROM events
           WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3
           ORDER BY audit_sequence LIMIT $4"#,
        backfill.organization_id,
        backfill.cursor,
        backfill.until,
        PAGE_EVENTS
    )
    .fetch_all(connection)
    .await?;
    let full = events.len() as i64 >= PAGE_EVENTS;
    let next = events.last().map(|last| last.audit_sequence).filter(|last| full && *last < backfill.until);
    let types = types(wanted, backfill.patterns.as_deref());
    events.retain(|event| event.aggregate_id != backfill.endpoint_id && types.contains(&event.event_type.as_str()));
    Ok(Page { events, next })
}

/// The stored names of the events that all of these patterns name; of tests only who asked for one hears.
pub fn types(wanted: &[String], patterns: Option<&[String]>) -> Vec<&'static str> {
    let named = descriptors_of_organizations().filter(|event| {
        let action = event.action();
        let both = wants(wanted, &action) && patterns.is_none_or(|patterns| wants(patterns, &action));
        both && event.name != "WebhookTested"
    });
    named.map(|event| event.name).collect()
}

/// How many deliveries a replay makes, by the event that asks for it.
pub async fn count(
    log: &Log,
    organization: &OrganizationId,
    endpoint: &WebhookEndpointId,
    event: &WebhookEndpointEvent,
) -> Result<u64, LogError> {
    let WebhookEndpointEvent::WebhookReplayed { replayed_after, replayed_until, event_patterns, failed_only, .. } =
        event
    else {
        return Ok(0);
    };
    let state = log.load::<WebhookEndpoint>(endpoint).await?.state;
    let types = types(&state.terms.patterns, Some(event_patterns));
    let (after, until) = (replayed_after.cast_signed(), replayed_until.cast_signed());
    let count = match failed_only {
        false => {
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM events
                   WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3 AND event_type = ANY($4)
                     AND aggregate_id <> $5"#,
                organization.as_ref(),
                after,
                until,
                &types as &[&str],
                endpoint.as_ref()
            )
            .fetch_one(log.pool())
            .await?
        }
        true => {
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM webhook_deliveries
                   WHERE endpoint_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3 AND event_type = ANY($4)
                     AND state = 'FAILED'"#,
                endpoint.as_ref(),
                after,
                until,
                &types as &[&str]
            )
            .fetch_one(log.pool())
            .await?
        }
    };
    Ok(count.unsigned_abs())
}

async fn end(connection: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM webhook_backfills WHERE id = $1", id).execute(connection).await?;
    Ok(())
}

/// Writes the deliveries of a page, or makes those due again that are there. Of one subject the first becomes due, the
/// others when it is done.
async fn write(
    connection: &mut PgConnection,
    backfill: &Backfill,
    events: &[Passed],
    in_order: bool,
) -> Result<(), sqlx::Error> {
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
    if in_order {
        let last = events.iter().map(|event| event.audit_sequence).max().unwrap_or_default();
        let subjects: BTreeSet<&str> = events.iter().map(|event| event.aggregate_id.as_str()).collect();
        sqlx::query!(
            "UPDATE webhook_deliveries d SET due_at = clock_timestamp()
             FROM unnest($2::text[]) AS s(subject_id)
             CROSS JOIN LATERAL (
                 SELECT n.id, n.due_at FROM webhook_deliveries n
                 WHERE n.endpoint_id = $1 AND n.subject_id = s.subject_id AND n.due_at IS NOT NULL AND n.audit_sequence <= $3
                 ORDER BY n.audit_sequence LIMIT 1
             ) first
             WHERE d.id = first.id AND first.due_at = 'infinity'",
            backfill.endpoint_id,
            &subjects.into_iter().collect::<Vec<_>>() as &[&str],
            last
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Nothing more comes in between: of each subject the first that is open becomes due.
async fn release(connection: &mut PgConnection, endpoint: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE webhook_deliveries d SET due_at = clock_timestamp()
         WHERE d.endpoint_id = $1 AND d.due_at = 'infinity'
           AND NOT EXISTS (SELECT FROM webhook_backfills b WHERE b.endpoint_id = $1 AND b.kind = 'MISSED')
           AND NOT EXISTS (
               SELECT FROM webhook_deliveries e
               WHERE e.endpoint_id = $1 AND e.subject_id = d.subject_id AND e.due_at IS NOT NULL
                 AND e.audit_sequence < d.audit_sequence
           )",
        endpoint
    )
    .execute(connection)
    .await?;
    Ok(())
}
