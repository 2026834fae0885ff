//! What time does by itself: invitations and API tokens run out, deleted things are purged, outcomes are forgotten.

use std::time::Duration;

use aggregates::api_token::ApiTokenCommand;
use aggregates::ids::{ApiTokenId, MembershipId, OrganizationId, ProjectId, UserId};
use aggregates::invitation::InvitationCommand;
use aggregates::membership::MembershipState;
use aggregates::organization::OrganizationCommand;
use aggregates::project::ProjectCommand;
use aggregates::{Actor, ApiToken, Event, Invitation, Membership, Organization, Project, Scope, StreamId};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

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

/// Claims that run out.
const RUNNING_OUT: [Scope; 2] = [Scope::OpenInvitation, Scope::ApiToken];

impl Commands {
    /// Sweeps until `stop` says so. On several replicas at once it does no harm: the log decides each thing once.
    pub async fn run_sweeper(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "sweeping failed; it will be tried again");
            }
            stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
        }
    }

    /// Does what is due now.
    pub async fn sweep(&self) -> Result<(), Fault> {
        let now = Utc::now();
        // One that cannot be expired stays due, and must not keep the others from it.
        let mut after = (DateTime::<Utc>::UNIX_EPOCH, String::new());
        loop {
            let overdue = sqlx::query!(
                r#"SELECT holder, until AS "until!", organization_id AS "organization!" FROM claims
                   WHERE scope = ANY($1) AND until <= $2 AND organization_id IS NOT NULL AND (until, holder) > ($3, $4)
                   ORDER BY until, holder LIMIT $5"#,
                &RUNNING_OUT.map(|scope| scope.as_str().to_owned()),
                now,
                after.0,
                after.1,
                BATCH_MAX
            )
            .fetch_all(self.log().pool())
            .await
            .map_err(LogError::from)?;
            let Some(last) = overdue.last() else { break };
            after = (last.until, last.holder.clone());
            for row in overdue {
                if let Err(error) = self.expire(&row.organization, &row.holder).await {
                    tracing::warn!(%error, holder = row.holder, "what is past its time could not be expired");
                }
            }
        }
        let revoked = self.revoke_tokens_left_behind().await;
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
        revoked.and(purged).and(carried_on)
    }

    /// Records that the open invitations and the tokens of an organization that are past their time are so, and makes
    /// room.
    pub(super) async fn expire_overdue(&self, organization: &OrganizationId) -> Result<(), Fault> {
        let overdue = sqlx::query_scalar!(
            "SELECT holder FROM claims
             WHERE scope = ANY($1) AND organization_id = $2 AND until <= $3 ORDER BY until LIMIT $4",
            &RUNNING_OUT.map(|scope| scope.as_str().to_owned()),
            organization.as_ref(),
            Utc::now(),
            BATCH_MAX
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        for holder in overdue {
            if let Err(error) = self.expire(organization.as_ref(), &holder).await {
                tracing::warn!(%error, holder, "what is past its time could not be expired");
            }
        }
        Ok(())
    }

    async fn expire(&self, organization: &str, holder: &str) -> Result<(), Fault> {
        let (Ok(organization), Some(stream)) = (organization.parse::<OrganizationId>(), StreamId::from_id(holder))
        else {
            return Ok(());
        };
        self.log().bring_up_to_date(std::slice::from_ref(&stream)).await?;
        let at = Utc::now();
        // What somebody settled meanwhile is left.
        match &stream {
            StreamId::Invitation(id) => {
                let invitation = self.log().load::<Invitation>(id).await?;
                match invitation.state.decide(InvitationCommand::Expire { at }) {
                    Ok(events) => {
                        self.append_as_system(&organization, stream, invitation.version, events, vec![]).await
                    }
                    Err(_) => Ok(()),
                }
            }
            StreamId::ApiToken(id) => {
                let token = self.log().load::<ApiToken>(id).await?;
                match token.state.decide(ApiTokenCommand::Expire { at }) {
                    Ok(events) => self.append_as_system(&organization, stream, token.version, events, vec![]).await,
                    Err(_) => Ok(()),
                }
            }
            StreamId::Organization(_)
            | StreamId::Membership(_)
            | StreamId::Project(_)
            | StreamId::User(_)
            | StreamId::WebhookEndpoint(_) => Ok(()),
        }
    }

    /// Revokes the tokens of organizations that want it whose responsible member is out: those that were created while
    /// he was removed, and all of them where the policy came later. Which they may be, read models say; whether, the log.
    async fn revoke_tokens_left_behind(&self) -> Result<(), Fault> {
        let mut after = (DateTime::<Utc>::UNIX_EPOCH, String::new());
        loop {
            let candidates = sqlx::query!(
                "SELECT t.id, t.created_at, t.organization_id, m.user_id FROM settings s
                 JOIN api_tokens t ON t.organization_id = s.organization_id AND t.state = 'ACTIVE'
                 JOIN members m ON m.organization_id = t.organization_id AND 'user:' || m.user_id = t.responsible
                                   AND m.state = 'REMOVED'
                 WHERE s.namespace = 'policies' AND s.value ->> 'tokensOfRemovedMembers' = 'revoke'
                   AND (t.created_at, t.id) > ($1, $2)
                 ORDER BY t.created_at, t.id LIMIT $3",
                after.0,
                after.1,
                BATCH_MAX
            )
            .fetch_all(self.log().pool())
            .await
            .map_err(LogError::from)?;
            let Some(last) = candidates.last() else { return Ok(()) };
            after = (last.created_at, last.id.clone());
            for row in candidates {
                let (Ok(id), Ok(organization), Ok(user)) =
                    (row.id.parse::<ApiTokenId>(), row.organization_id.parse(), row.user_id.parse())
                else {
                    continue;
                };
                if let Err(error) = self.revoke_left_behind(&id, &organization, &user).await {
                    tracing::warn!(%error, token = row.id, "a token whose member is out could not be revoked");
                }
            }
        }
    }

    async fn revoke_left_behind(
        &self,
        id: &ApiTokenId,
        organization: &OrganizationId,
        user: &UserId,
    ) -> Result<(), Fault> {
        let (log, membership) = (self.log(), MembershipId::of(organization, user));
        log.bring_up_to_date(&[id.clone().into(), home(organization), membership.clone().into()]).await?;
        let token = log.load::<ApiToken>(id).await?;
        let place = log.load::<Organization>(organization).await?;
        let member = log.load::<Membership>(&membership).await?;
        let due = place.state.revokes_tokens_of_removed_members()
            && member.state.state == MembershipState::Removed
            && token.state.responsible == Actor::User(user.clone());
        let reason = Some("who answers for it is no member any more".to_owned());
        match token.state.decide(ApiTokenCommand::Revoke { reason, at: Utc::now() }) {
            Ok(events) if due => {
                let relied = vec![(home(organization), place.version), (membership.into(), member.version)];
                self.append_as_system(organization, id.clone().into(), token.version, events, relied).await
            }
            Ok(_) | Err(_) => Ok(()),
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
            Ok(events) => self.append_as_system(&id, home(&id), organization.version, events, vec![]).await,
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
                self.append_as_system(&place, stream, project.version, events, relied).await
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Appends what the service itself decided. Who comes too late leaves it: the other one has done it.
    pub(super) async fn append_as_system<E: Into<Event>>(
        &self,
        organization: &OrganizationId,
        stream: StreamId,
        version: u64,
        events: Vec<E>,
        relied: Vec<(StreamId, u64)>,
    ) -> Result<(), Fault> {
        let draft = Draft {
            organization: Some(organization.clone()),
            relied,
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
