//! The end of what a purge leaves: when a purged organization's trail was kept for long enough, the log says that it
//! goes, and then its events lose their content.

use aggregates::Organization;
use aggregates::ids::OrganizationId;
use aggregates::organization::OrganizationCommand;
use sqlx::PgPool;

use super::{Commands, Fault, home};
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
        let now = self.log().current(&[home(id)]).await?.get::<Organization>(id);
        let kept_days = kept_days.into();
        match now.state.decide(OrganizationCommand::Prune { kept_days }) {
            Ok(events) => self.append_as_system(id, home(id), now.version, events, vec![]).await?,
            Err(_) => return Ok(now.state.pruned),
        }
        // Somebody else may have been faster, at this or at something else.
        Ok(self.log().current(&[home(id)]).await?.get::<Organization>(id).state.pruned)
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
