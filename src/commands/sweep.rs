//! What time does by itself: invitations run out, deleted things are purged, outcomes are forgotten.

use std::time::Duration;

use aggregates::ids::{InvitationId, OrganizationId, ProjectId};
use aggregates::invitation::InvitationCommand;
use aggregates::organization::OrganizationCommand;
use aggregates::project::ProjectCommand;
use aggregates::{Event, Invitation, Organization, Project, Scope, StreamId};
use chrono::Utc;
use tokio::sync::watch;

use super::{Commands, Fault, home, system_origin};
use crate::log::{Draft, LogError, Outcome};

/// How often the sweeper looks.
const EVERY: Duration = Duration::from_secs(10);
/// How many things of a kind it does in one go.
const BATCH_MAX: i64 = 200;
/// How many outcomes it forgets in one go.
const OUTCOMES_BATCH_MAX: i64 = 10_000;
/// How long outcomes of commands with an idempotency key are kept.
const OUTCOMES_KEPT_DAYS: i32 = 7;

impl Commands {
    /// Sweeps until `stop` says so. On several replicas at once it does no harm: the log decides each thing once.
    pub async fn run_sweeper(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "sweeping failed; it will be tried again");
            }
            let _ = tokio::time::timeout(EVERY, stop.changed()).await;
        }
    }

    /// Does what is due now.
    pub async fn sweep(&self) -> Result<(), Fault> {
        let overdue = sqlx::query!(
            r#"SELECT holder, organization_id AS "organization!" FROM claims
               WHERE scope = $1 AND until <= $2 AND organization_id IS NOT NULL ORDER BY until LIMIT $3"#,
            Scope::OpenInvitation.as_str(),
            Utc::now(),
            BATCH_MAX
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        for row in overdue {
            // One that cannot be expired must not keep the others from it.
            if let Err(error) = self.expire(&row.organization, &row.holder).await {
                tracing::warn!(%error, invitation = row.holder, "an invitation could not be expired");
            }
        }
        let purged = self.purge_due().await;
        sqlx::query!(
            "DELETE FROM outcomes WHERE ctid IN (
                 SELECT ctid FROM outcomes WHERE created_at < now() - make_interval(days => $1) LIMIT $2
             )",
            OUTCOMES_KEPT_DAYS,
            OUTCOMES_BATCH_MAX
        )
        .execute(self.log().pool())
        .await
        .map_err(LogError::from)?;
        crate::access::trail::forget(self.log().pool(), self.rules().access_trail_days).await?;
        purged
    }

    /// Records that the open invitations of an organization that are past their time are so, and frees their seats.
    pub(super) async fn expire_overdue(&self, organization: &OrganizationId) -> Result<(), Fault> {
        let overdue = sqlx::query_scalar!(
            "SELECT holder FROM claims WHERE scope = $1 AND organization_id = $2 AND until <= $3 ORDER BY until LIMIT $4",
            Scope::OpenInvitation.as_str(),
            organization.as_ref(),
            Utc::now(),
            BATCH_MAX
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        for holder in overdue {
            self.expire(organization.as_ref(), &holder).await?;
        }
        Ok(())
    }

    async fn expire(&self, organization: &str, holder: &str) -> Result<(), Fault> {
        let (Ok(organization), Ok(id)) = (organization.parse::<OrganizationId>(), holder.parse::<InvitationId>())
        else {
            return Ok(());
        };
        let stream: StreamId = id.clone().into();
        self.log().bring_up_to_date(std::slice::from_ref(&stream)).await?;
        let invitation = self.log().load::<Invitation>(&id).await?;
        match invitation.state.decide(InvitationCommand::Expire { at: Utc::now() }) {
            Ok(events) => self.append_as_system(&organization, stream, invitation.version, events).await,
            // Somebody settled it meanwhile.
            Err(_) => Ok(()),
        }
    }

    async fn purge_due(&self) -> Result<(), Fault> {
        let now = Utc::now();
        let organizations = sqlx::query_scalar!(
            "SELECT id FROM organizations WHERE purge_at <= $1 ORDER BY purge_at LIMIT $2",
            now,
            BATCH_MAX
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        for id in organizations.iter().filter_map(|id| id.parse::<OrganizationId>().ok()) {
            self.log().bring_up_to_date(&[home(&id)]).await?;
            let organization = self.log().load::<Organization>(&id).await?;
            if let Ok(events) = organization.state.decide(OrganizationCommand::Purge { at: now }) {
                self.append_as_system(&id, home(&id), organization.version, events).await?;
            }
        }
        let projects = sqlx::query_scalar!(
            "SELECT id FROM projects WHERE purge_at <= $1 ORDER BY purge_at LIMIT $2",
            now,
            BATCH_MAX
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        for id in projects.iter().filter_map(|id| id.parse::<ProjectId>().ok()) {
            let stream: StreamId = id.clone().into();
            self.log().bring_up_to_date(std::slice::from_ref(&stream)).await?;
            let project = self.log().load::<Project>(&id).await?;
            if let (Ok(events), Some(organization)) =
                (project.state.decide(ProjectCommand::Purge { at: now }), &project.organization)
            {
                self.append_as_system(organization, stream, project.version, events).await?;
            }
        }
        Ok(())
    }

    /// Appends what the service itself decided. Who comes too late leaves it: the other one has done it.
    pub(super) async fn append_as_system<E: Into<Event>>(
        &self,
        organization: &OrganizationId,
        stream: StreamId,
        version: u64,
        events: Vec<E>,
    ) -> Result<(), Fault> {
        let draft = Draft {
            organization: Some(organization.clone()),
            relied: vec![],
            held: None,
            writes: vec![(stream, version, events.into_iter().map(Into::into).collect())],
            origin: system_origin(),
        };
        match self.log().append(self.log().seal(draft).await?).await? {
            Outcome::Accepted { .. } | Outcome::Conflict { .. } => Ok(()),
            other => Err(LogError::Corrupt(format!("sweeping gave {other:?}")).into()),
        }
    }
}
