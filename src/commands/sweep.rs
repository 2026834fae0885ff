//! What time does by itself: invitations run out, deleted things are purged, outcomes are forgotten.

use std::time::Duration;

use aggregates::ids::{InvitationId, OrganizationId, ProjectId};
use aggregates::invitation::InvitationCommand;
use aggregates::organization::OrganizationCommand;
use aggregates::project::ProjectCommand;
use aggregates::{Event, Invitation, Organization, Project, Scope, StreamId};
use chrono::{DateTime, Utc};
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
        let carried_on = self.carry_on_erasures().await;
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
        purged.and(carried_on)
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
            Ok(events) => self.append_as_system(&organization, stream, invitation.version, vec![], events).await,
            // Somebody settled it meanwhile.
            Err(_) => Ok(()),
        }
    }

    async fn purge_due(&self) -> Result<(), Fault> {
        let now = Utc::now();
        // What is held stays due, so whole pages may have to be passed by.
        let mut after = (DateTime::<Utc>::UNIX_EPOCH, String::new());
        loop {
            let due = sqlx::query!(
                r#"SELECT id, purge_at AS "purge_at!" FROM organizations
                   WHERE purge_at <= $1 AND (purge_at, id) > ($2, $3) ORDER BY purge_at, id LIMIT $4"#,
                now,
                after.0,
                after.1,
                BATCH_MAX
            )
            .fetch_all(self.log().pool())
            .await
            .map_err(LogError::from)?;
            let Some(last) = due.last() else { break };
            after = (last.purge_at, last.id.clone());
            for row in due {
                if let Err(error) = self.purge_organization(&row.id, now).await {
                    tracing::warn!(%error, organization = row.id, "an organization could not be purged");
                }
            }
        }
        let mut after = (DateTime::<Utc>::UNIX_EPOCH, String::new());
        loop {
            let due = sqlx::query!(
                r#"SELECT id, purge_at AS "purge_at!" FROM projects
                   WHERE purge_at <= $1 AND (purge_at, id) > ($2, $3) ORDER BY purge_at, id LIMIT $4"#,
                now,
                after.0,
                after.1,
                BATCH_MAX
            )
            .fetch_all(self.log().pool())
            .await
            .map_err(LogError::from)?;
            let Some(last) = due.last() else { break };
            after = (last.purge_at, last.id.clone());
            for row in due {
                if let Err(error) = self.purge_project(&row.id, now).await {
                    tracing::warn!(%error, project = row.id, "a project could not be purged");
                }
            }
        }
        Ok(())
    }

    /// Purges an organization whose time has come; one that is held, or was restored meanwhile, stays.
    async fn purge_organization(&self, id: &str, now: DateTime<Utc>) -> Result<(), Fault> {
        let Ok(id) = id.parse::<OrganizationId>() else { return Ok(()) };
        self.log().bring_up_to_date(&[home(&id)]).await?;
        let organization = self.log().load::<Organization>(&id).await?;
        match organization.state.decide(OrganizationCommand::Purge { at: now }) {
            Ok(events) => self.append_as_system(&id, home(&id), organization.version, vec![], events).await,
            Err(_) => Ok(()),
        }
    }

    /// The same of a project. That nobody holds its organization is relied upon: a hold at the same time wins or loses.
    async fn purge_project(&self, id: &str, now: DateTime<Utc>) -> Result<(), Fault> {
        let Ok(id) = id.parse::<ProjectId>() else { return Ok(()) };
        let stream: StreamId = id.clone().into();
        self.log().bring_up_to_date(std::slice::from_ref(&stream)).await?;
        let project = self.log().load::<Project>(&id).await?;
        let Some(place) = project.organization.clone() else { return Ok(()) };
        self.log().bring_up_to_date(&[home(&place)]).await?;
        let organization = self.log().load::<Organization>(&place).await?;
        match project.state.decide(ProjectCommand::Purge { at: now }) {
            Ok(events) if organization.state.legal_hold.is_none() => {
                let relied = vec![(home(&place), organization.version)];
                self.append_as_system(&place, stream, project.version, relied, events).await
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Appends what the service itself decided. Who comes too late leaves it: the other one has done it.
    async fn append_as_system<E: Into<Event>>(
        &self,
        organization: &OrganizationId,
        stream: StreamId,
        version: u64,
        relied: Vec<(StreamId, u64)>,
        events: Vec<E>,
    ) -> Result<(), Fault> {
        let draft = Draft {
            organization: Some(organization.clone()),
            relied,
            writes: vec![(stream, version, events.into_iter().map(Into::into).collect())],
            origin: system_origin(),
        };
        match self.log().append(self.log().seal(draft).await?).await? {
            Outcome::Accepted { .. } | Outcome::Conflict { .. } => Ok(()),
            other => Err(LogError::Corrupt(format!("sweeping gave {other:?}")).into()),
        }
    }
}
