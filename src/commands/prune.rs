//! The end of what a purge leaves: when a purged organization's trail was kept for long enough, the log says that it
//! goes, and then its events lose their content.

use aggregates::Organization;
use aggregates::ids::OrganizationId;
use aggregates::organization::OrganizationCommand;
use serde::Serialize;
use sqlx::PgPool;

use super::work::{Stop, Work};
use super::{Commands, Fault, UseCase};
use crate::log::prune::{self, NotYet};

/// What came of one whose time is over: how many events have no content any more, or why some still do.
pub type Pruned = (OrganizationId, Result<u64, NotYet>);

impl Commands {
    /// Records of all purged organizations that were kept for `kept_days` that their trails go, and says which they are.
    /// `owner` connects as the owner of the database.
    pub async fn record_prunings(&self, owner: &PgPool, kept_days: u32) -> Result<Vec<OrganizationId>, Fault> {
        let mut due = vec![];
        for unpruned in prune::unpruned(owner, kept_days).await?.into_iter().filter(|unpruned| unpruned.due) {
            let id = unpruned.organization;
            // One of which it cannot be recorded keeps back no other.
            match self.record_pruning(&id, kept_days).await {
                Ok(true) => due.push(id),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, organization = %id, "it could not be recorded that a trail is pruned")
                }
            }
        }
        Ok(due)
    }

    /// Whether the log says of it that its trail goes.
    async fn record_pruning(&self, id: &OrganizationId, kept_days: u32) -> Result<bool, Fault> {
        self.act_by_itself(&RecordPruning { organization: id.clone(), kept_days: kept_days.into() }).await?;
        Ok(self.log().current(&[id.clone().into()]).await?.get::<Organization>(id).state.pruned)
    }

    /// Prunes these organizations, of which the log says so, each as far as that can be done now. `projector` owns the read
    /// models.
    pub async fn prune(&self, owner: &PgPool, projector: &PgPool, due: Vec<OrganizationId>) -> Vec<Pruned> {
        let mut pruned = vec![];
        for id in due {
            let events = prune::prune(owner, projector, self.log(), &id).await;
            pruned.push((id, events));
        }
        pruned
    }
}

/// Records of a purged organization that its trail goes.
#[derive(Debug, Serialize)]
struct RecordPruning {
    organization: OrganizationId,
    kept_days: u64,
}

impl UseCase for RecordPruning {
    const OPERATION: &'static str = "prune";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.organization = Some(self.organization.clone());
        let before = work.load::<Organization>(&self.organization).await?;
        // It is not due, or recorded already.
        let Ok(events) = before.state.decide(OrganizationCommand::Prune { kept_days: self.kept_days }) else {
            return Ok(());
        };
        work.record(&self.organization, &before, events);
        Ok(())
    }
}
