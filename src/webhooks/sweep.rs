//! What time does: receivers that fail are spoken of, and what is done is forgotten: deliveries, those of endpoints that are
//! gone, and secrets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregates::ids::{Id, OrganizationId, WebhookDeliveryId, WebhookEndpointId};
use aggregates::{Organization, WebhookEndpoint};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::commands::{Commands, Fault};
use crate::log::LogError;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(5);
/// How many deliveries are forgotten by one statement.
const BATCH_MAX: i64 = 5_000;
/// How often deliveries are gone through from the beginning that may be forgotten.
const AGAIN_EVERY: Duration = Duration::from_secs(3600);
/// How long a command may take from making a secret to putting it on record.
const SECRET_UNRECORDED_MAX: chrono::Duration = chrono::Duration::hours(1);
/// How many secrets are looked at by one statement.
const SECRETS_MAX: i64 = 1_000;

/// When receivers that fail are spoken of, and for how long is kept what is done.
#[derive(Debug, Clone, Copy)]
pub struct SweepSettings {
    /// After how long of nothing but failures an endpoint's organization is warned.
    pub warn_after: chrono::Duration,
    /// After how long of nothing but failures an endpoint is disabled.
    pub disable_after: chrono::Duration,
    /// For how many days deliveries that are done are kept.
    pub retention_days: u32,
}

/// Sweeps until `stop` says so. On several replicas at once it does no harm.
pub async fn run(pool: PgPool, commands: Arc<Commands>, settings: SweepSettings, stop: CancellationToken) {
    let mut walk = Walk::default();
    while !stop.is_cancelled() {
        let Some(swept) = stop.run_until_cancelled(sweep(&pool, &commands, settings, &mut walk)).await else { return };
        if let Err(error) = swept {
            tracing::warn!(%error, "webhooks could not be swept; it will be tried again");
        }
        stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}

/// Does what is due now. What fails keeps nothing else from being done.
pub async fn sweep(pool: &PgPool, commands: &Commands, settings: SweepSettings, walk: &mut Walk) -> Result<(), Fault> {
    let failing = look_after_failing(pool, commands, settings).await;
    let finished = forget_finished(pool, settings.retention_days, walk).await.map_err(LogError::from);
    let gone = forget_gone(pool, commands).await;
    let retired = retire_secrets(commands).await;
    failing.and(finished.map_err(Fault::from)).and(gone).and(retired)
}

/// Warns of receivers that fail for long, and disables their endpoints if that goes on, whether anything is due to them or
/// not.
async fn look_after_failing(pool: &PgPool, commands: &Commands, settings: SweepSettings) -> Result<(), Fault> {
    let failing = sqlx::query!(
        r#"SELECT r.endpoint_id, r.failing_since AS "failing_since!" FROM webhook_receivers r
           JOIN webhook_endpoints e ON e.id = r.endpoint_id AND e.state = 'ENABLED' AND NOT e.deleted
           WHERE r.failing_since < $1"#,
        Utc::now() - settings.warn_after.min(settings.disable_after)
    )
    .fetch_all(pool)
    .await
    .map_err(LogError::from)?;
    for row in failing {
        let since = row.failing_since;
        let disabled_from = since.checked_add_signed(settings.disable_after).unwrap_or(since);
        let settled = if Utc::now() >= disabled_from {
            let reason = format!("every attempt has failed since {}", since.format("%Y-%m-%d %H:%M UTC"));
            commands.disable_webhook(&row.endpoint_id, None, reason).await
        } else {
            commands.warn_of_webhook(&row.endpoint_id, since, disabled_from).await
        };
        if let Err(error) = settled {
            tracing::warn!(%error, endpoint = row.endpoint_id, "a failing webhook could not be put on record");
        }
    }
    Ok(())
}

/// How far the deliveries have been gone through that may be forgotten.
#[derive(Default)]
pub struct Walk {
    after: String,
    began: Option<Instant>,
}

/// Deliveries that were finished long ago. Their ids begin with the time of their events, so they are found from the
/// beginning of the primary key. What may not go yet, because it was sent again lately, is not looked at each time.
async fn forget_finished(pool: &PgPool, retention_days: u32, walk: &mut Walk) -> Result<(), sqlx::Error> {
    if walk.began.is_none_or(|began| began.elapsed() >= AGAIN_EVERY) {
        *walk = Walk { after: String::new(), began: Some(Instant::now()) };
    }
    let before = Utc::now() - chrono::Duration::days(retention_days.into());
    let bound =
        WebhookDeliveryId::from_uuid(Uuid::from_u128(u128::from(before.timestamp_millis().unsigned_abs()) << 80));
    loop {
        let looked = sqlx::query!(
            r#"WITH looked AS MATERIALIZED (
                   SELECT id FROM webhook_deliveries WHERE id > $1 AND id < $2 ORDER BY id LIMIT $4
               ), forgotten AS (
                   DELETE FROM webhook_deliveries d USING looked l
                   WHERE d.id = l.id AND d.due_at IS NULL AND d.finished_at < $3
               )
               SELECT max(id) AS last, count(*) AS "count!" FROM looked"#,
            walk.after,
            bound.as_ref(),
            before,
            BATCH_MAX
        )
        .fetch_one(pool)
        .await?;
        let Some(last) = looked.last else { return Ok(()) };
        walk.after = last;
        if looked.count < BATCH_MAX {
            return Ok(());
        }
    }
}

/// What is left of endpoints that are gone. That they are is asked of the log: what a read model does not show may be
/// shown again.
async fn forget_gone(pool: &PgPool, commands: &Commands) -> Result<(), Fault> {
    let gone = sqlx::query_file_scalar!("src/webhooks/gone.sql").fetch_all(pool).await.map_err(LogError::from)?;
    for endpoint in gone {
        if !is_gone(commands, &endpoint).await? {
            continue;
        }
        while sqlx::query!(
            "DELETE FROM webhook_deliveries WHERE id IN (
                 SELECT id FROM webhook_deliveries WHERE endpoint_id = $1 ORDER BY created_at, id LIMIT $2
             )",
            endpoint,
            BATCH_MAX
        )
        .execute(pool)
        .await
        .map_err(LogError::from)?
        .rows_affected()
            > 0
        {}
        sqlx::query!("DELETE FROM webhook_receivers WHERE endpoint_id = $1", endpoint)
            .execute(pool)
            .await
            .map_err(LogError::from)?;
    }
    Ok(())
}

/// Whether an endpoint was deleted, or its organization is gone for good, or it never came to be.
pub(super) async fn is_gone(commands: &Commands, endpoint: &str) -> Result<bool, LogError> {
    let Ok(id) = endpoint.parse::<WebhookEndpointId>() else { return Ok(true) };
    let now = commands.log().current(&[id.clone().into()]).await?;
    let loaded = now.get::<WebhookEndpoint>(&id);
    let Some(organization) = loaded.organization.filter(|_| loaded.state.is_present()) else { return Ok(true) };
    is_purged(commands, &organization).await
}

async fn is_purged(commands: &Commands, organization: &OrganizationId) -> Result<bool, LogError> {
    let now = commands.log().current(&[organization.clone().into()]).await?;
    Ok(now.get::<Organization>(organization).state.purged)
}

/// Destroys secrets that sign nothing any more: replaced ones, and those of endpoints that are gone. Which these may be, the
/// read model says; whether, the log.
async fn retire_secrets(commands: &Commands) -> Result<(), Fault> {
    let log = commands.log();
    let mut after = String::new();
    loop {
        let keys = sqlx::query_file!("src/webhooks/secrets.sql", after, SECRETS_MAX)
            .fetch_all(log.pool())
            .await
            .map_err(LogError::from)?;
        let Some(last) = keys.last() else { return Ok(()) };
        after.clone_from(&last.subject_id);
        let mut retired = vec![];
        for key in &keys {
            if is_over(commands, &key.subject_id, key.created_at, key.now).await? {
                retired.push(key.subject_id.as_str());
            }
        }
        log.keys().retire(&retired).await?;
    }
}

/// Whether the secret of this name has had its time. One whose endpoint is not on record, or has not come to its number, may
/// be just about to be: a command makes it first, and may be refused after that. `now` is the database's time, by which `created_at`
/// is too: the clock of a replica that is ahead would destroy what is needed.
async fn is_over(
    commands: &Commands,
    name: &str,
    created_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<bool, LogError> {
    let named = name.split_once('#').and_then(|(id, number)| Some((id.parse().ok()?, number.parse::<u64>().ok()?)));
    let Some((id, number)): Option<(WebhookEndpointId, u64)> = named else { return Ok(false) };
    let current = commands.log().current(&[id.clone().into()]).await?;
    let endpoint = current.get::<WebhookEndpoint>(&id);
    let newest = endpoint.state.secrets.first().map_or(0, |secret| secret.number);
    if number > newest {
        return Ok(created_at < now - SECRET_UNRECORDED_MAX);
    }
    let signs = endpoint.state.signing_at(now).any(|own| own == number);
    Ok(!signs || is_gone(commands, id.as_ref()).await?)
}
