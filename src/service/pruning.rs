//! Takes away the content of purged organizations' trails when their time is over.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;

use super::Error;
use crate::commands::Commands;
use crate::commands::prune::Pruned;
use crate::database::Owner;

/// How often it is looked whose trail was kept for long enough, and how soon again where something has to wait: each time
/// twice as long.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
const PRUNE_AGAIN: Duration = Duration::from_secs(1);

/// Prunes for ever, or until it is known that this service does not know the owner of the database.
pub(super) async fn run(owner: Owner, projector: PgPool, commands: Arc<Commands>, kept_days: u32) {
    let mut again = PRUNE_AGAIN;
    loop {
        let pause = match prune(&owner, &projector, &commands, kept_days).await {
            Ok(Some(pruned)) if pruned.iter().any(|(_, outcome)| outcome.is_err()) => {
                again = (again * 2).min(PRUNE_EVERY);
                again
            }
            Ok(Some(_)) => {
                again = PRUNE_AGAIN;
                PRUNE_EVERY
            }
            Ok(None) => {
                tracing::info!(
                    "trails of purged organizations are left to `tenancy prune`: who owns the database is not known here"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "trails of purged organizations could not be pruned; it will be tried again");
                PRUNE_EVERY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// `None` where nobody who is known owns the database.
async fn prune(
    owner: &Owner,
    projector: &PgPool,
    commands: &Commands,
    kept_days: u32,
) -> Result<Option<Vec<Pruned>>, Error> {
    let Some(owner) = owner.to_prune().await? else { return Ok(None) };
    let due = commands.record_prunings(&owner, kept_days).await?;
    let pruned = commands.prune(&owner, projector, due).await;
    owner.close().await;
    for (organization, outcome) in &pruned {
        match outcome {
            Ok(events) => tracing::info!(%organization, events, "the trail of a purged organization was pruned"),
            Err(why) => tracing::info!(%organization, %why, "the trail of a purged organization is not pruned yet"),
        }
    }
    Ok(Some(pruned))
}
