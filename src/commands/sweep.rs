//! What time does by itself: invitations and API tokens run out, deleted things are purged, outcomes are forgotten.

use std::time::Duration;

use aggregates::api_token::ApiTokenCommand;
use aggregates::ids::{ApiTokenId, MembershipId, OrganizationId, UserId};
use aggregates::membership::MembershipState;
use aggregates::{Actor, ApiToken, Membership, Organization, StreamId};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::work::{Stop, Work};
use super::{Commands, Fault, UseCase};
use crate::log::LogError;

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
                   WHERE until <= $1 AND organization_id IS NOT NULL AND (until, holder) > ($2, $3)
                   ORDER BY until, holder LIMIT $4"#,
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
        crate::requests::trail::forget(self.log(), self.rules().access_trail_days).await?;
        revoked.and(purged).and(carried_on)
    }

    /// Records that what is past its time in an organization is so, and makes room.
    pub(super) async fn expire_overdue(&self, organization: &OrganizationId) -> Result<(), Fault> {
        let overdue = sqlx::query_scalar!(
            "SELECT holder FROM claims
             WHERE organization_id = $1 AND until <= $2 ORDER BY until LIMIT $3",
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
        let Ok(organization) = organization.parse::<OrganizationId>() else { return Ok(()) };
        self.act_by_itself(&Expire { organization, holder: holder.to_owned() }).await
    }

    /// Revokes the tokens of organizations that want it whose responsible member is out: those that were created while
    /// the member was removed, and all of them where the policy came later. Which they may be, read models say;
    /// whether, the log.
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
                let (Ok(token), Ok(organization), Ok(user)) =
                    (row.id.parse(), row.organization_id.parse(), row.user_id.parse())
                else {
                    continue;
                };
                if let Err(error) = self.act_by_itself(&RevokeLeftBehind { token, organization, user }).await {
                    tracing::warn!(%error, token = row.id, "a token whose member is out could not be revoked");
                }
            }
        }
    }

    /// Lets go for good of what was deleted and whose time has come. What that may be, read models say; whether, the log.
    async fn purge_due(&self) -> Result<(), Fault> {
        let now = Utc::now();
        // An organization under hold stays due, so whole pages may have to be passed by.
        let mut after = (DateTime::<Utc>::UNIX_EPOCH, String::new());
        loop {
            let due =
                projections::due_for_purge(self.log().pool(), now, &after, BATCH_MAX).await.map_err(LogError::from)?;
            let Some(last) = due.last() else { return Ok(()) };
            after = last.clone();
            for (_, id) in due {
                if let Err(error) = self.act_by_itself(&Purge { id: id.clone() }).await {
                    tracing::warn!(%error, id, "what was deleted could not be purged");
                }
            }
        }
    }
}

/// Records that something is past its time.
#[derive(Debug, Serialize)]
struct Expire {
    organization: OrganizationId,
    holder: String,
}

impl UseCase for Expire {
    const OPERATION: &'static str = "expire";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.organization = Some(self.organization.clone());
        let Some(stream) = StreamId::from_id(&self.holder) else { return Ok(()) };
        let Some(known) = work.load_any(&stream).await? else { return Ok(()) };
        if let Some(events) = known.state.expired(work.now) {
            work.record_any(stream, known.version, events);
        }
        Ok(())
    }
}

/// Revokes a token whose responsible member is out, where the organization wants that.
#[derive(Debug, Serialize)]
struct RevokeLeftBehind {
    token: ApiTokenId,
    organization: OrganizationId,
    user: UserId,
}

impl UseCase for RevokeLeftBehind {
    const OPERATION: &'static str = "revokeLeftBehind";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        work.organization = Some(self.organization.clone());
        let membership = MembershipId::of(&self.organization, &self.user);
        work.log()
            .warm(&[self.token.clone().into(), self.organization.clone().into(), membership.clone().into()])
            .await?;
        let token = work.load::<ApiToken>(&self.token).await?;
        let organization = work.load::<Organization>(&self.organization).await?;
        let member = work.load::<Membership>(&membership).await?;
        let is_due = organization.state.revokes_tokens_of_removed_members()
            && member.state.state == MembershipState::Removed
            && token.state.responsible == Actor::User(self.user.clone());
        let reason = Some("who answers for it is no member any more".to_owned());
        match token.state.decide(ApiTokenCommand::Revoke { reason, at: work.now }) {
            Ok(events) if is_due => {
                work.record(&self.token, &token, events);
            }
            // It does not concern the token any more.
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }
}

/// Purges something whose time has come; what is held, or was restored meanwhile, stays. That nobody holds the
/// organization is relied upon: a hold at the same time wins or loses.
#[derive(Debug, Serialize)]
struct Purge {
    id: String,
}

impl UseCase for Purge {
    const OPERATION: &'static str = "purge";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let Some(stream) = StreamId::from_id(&self.id) else { return Ok(()) };
        let Some(known) = work.load_any(&stream).await? else { return Ok(()) };
        let (Some(events), Some(organization)) = (known.state.purged(work.now), known.organization) else {
            return Ok(());
        };
        work.organization = Some(organization.clone());
        // The organization's own rule looks at its hold itself.
        let is_held = stream != StreamId::from(organization.clone())
            && work.load::<Organization>(&organization).await?.state.legal_hold.is_some();
        if !is_held {
            work.record_any(stream, known.version, events);
        }
        Ok(())
    }
}
