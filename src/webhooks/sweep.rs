//! What becomes of what is done: deliveries are forgotten, and so are those of endpoints that are gone, and secrets.

use std::sync::Arc;
use std::time::Duration;

use aggregates::ids::{OrganizationId, WebhookEndpointId};
use aggregates::{Organization, WebhookEndpoint};
use sqlx::PgPool;
use tokio::sync::watch;

use super::signature::key_name;
use crate::commands::{Commands, Fault};
use crate::log::LogError;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(20);
/// How many deliveries are forgotten by one statement.
const BATCH_MAX: i64 = 5_000;
/// How many secrets are looked at by one statement.
const SECRETS_MAX: i64 = 1_000;

/// Forgets until `stop` says so. On several replicas at once it does no harm.
pub async fn run(pool: PgPool, commands: Arc<Commands>, retention_days: i32, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if let Err(error) = sweep(&pool, &commands, retention_days).await {
            tracing::warn!(%error, "what is done of webhooks could not be forgotten; it will be tried again");
        }
        let _ = tokio::time::timeout(EVERY, stop.changed()).await;
    }
}

/// Does what is due now.
pub async fn sweep(pool: &PgPool, commands: &Commands, retention_days: i32) -> Result<(), Fault> {
    forget_finished(pool, retention_days).await.map_err(LogError::from)?;
    forget_gone(pool, commands).await?;
    retire_secrets(commands).await
}

/// Deliveries that were finished long ago. Their ids rise with the time of their events, so they are found from the
/// beginning of the primary key.
async fn forget_finished(pool: &PgPool, retention_days: i32) -> Result<(), sqlx::Error> {
    loop {
        let forgotten = sqlx::query!(
            "DELETE FROM webhook_deliveries WHERE id IN (
                 SELECT id FROM webhook_deliveries
                 WHERE due_at IS NULL AND created_at < now() - make_interval(days => $1)
                   AND finished_at < now() - make_interval(days => $1)
                 ORDER BY id LIMIT $2
             )",
            retention_days,
            BATCH_MAX
        )
        .execute(pool)
        .await?
        .rows_affected();
        if forgotten < BATCH_MAX.unsigned_abs() {
            return Ok(());
        }
    }
}

/// What is left of endpoints that are gone. That they are is asked of the log: what a read model does not show may be
/// shown again.
async fn forget_gone(pool: &PgPool, commands: &Commands) -> Result<(), Fault> {
    let gone = sqlx::query_scalar!(
        r#"WITH RECURSIVE known AS (
               (SELECT endpoint_id FROM webhook_deliveries ORDER BY endpoint_id LIMIT 1)
               UNION ALL
               SELECT n.endpoint_id FROM known k CROSS JOIN LATERAL (
                   SELECT d.endpoint_id FROM webhook_deliveries d
                   WHERE d.endpoint_id > k.endpoint_id ORDER BY d.endpoint_id LIMIT 1
               ) n
           )
           SELECT k.endpoint_id AS "endpoint_id!" FROM known k
           WHERE NOT EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = k.endpoint_id AND NOT e.deleted)"#
    )
    .fetch_all(pool)
    .await
    .map_err(LogError::from)?;
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
async fn is_gone(commands: &Commands, endpoint: &str) -> Result<bool, LogError> {
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

/// Destroys secrets that sign nothing any more: replaced ones, and those of endpoints that are gone.
async fn retire_secrets(commands: &Commands) -> Result<(), Fault> {
    let log = commands.log();
    let mut after = String::new();
    loop {
        // An hour is time enough for a command that has made a secret and not recorded its endpoint yet.
        let names = sqlx::query_scalar!(
            "SELECT k.subject_id FROM subject_keys k
             WHERE k.subject_id > GREATEST($1, 'whk_') AND k.subject_id < 'whk`' AND k.wrapped IS NOT NULL
               AND k.created_at < now() - interval '1 hour'
               AND NOT EXISTS (
                   SELECT FROM webhook_endpoints e CROSS JOIN LATERAL json_array_elements(e.secrets) s
                   WHERE e.id = split_part(k.subject_id, '#', 1) AND NOT e.deleted
                     AND s ->> 'number' = split_part(k.subject_id, '#', 2)
                     AND COALESCE((s ->> 'until')::timestamptz > now(), true)
               )
             ORDER BY k.subject_id LIMIT $2",
            after,
            SECRETS_MAX
        )
        .fetch_all(log.pool())
        .await
        .map_err(LogError::from)?;
        let Some(last) = names.last() else { return Ok(()) };
        after.clone_from(last);
        let mut retired = vec![];
        for name in &names {
            if !signs(commands, name).await? {
                retired.push(name.as_str());
            }
        }
        log.keys().retire(&retired).await?;
    }
}

/// Whether the secret of this name still signs, by the log.
async fn signs(commands: &Commands, name: &str) -> Result<bool, LogError> {
    let Some((endpoint, _)) = name.split_once('#') else { return Ok(false) };
    if is_gone(commands, endpoint).await? {
        return Ok(false);
    }
    let Ok(id) = endpoint.parse::<WebhookEndpointId>() else { return Ok(false) };
    let state = commands.log().load::<WebhookEndpoint>(&id).await?.state;
    let now = chrono::Utc::now();
    Ok(state.signing_at(now).any(|number| key_name(endpoint, number) == name))
}
