//! What time does by itself: invitations and API tokens run out, deleted things are purged, outcomes are forgotten.

use std::time::Duration;

use aggregates::api_token::ApiTokenCommand;
use aggregates::ids::{ApiTokenId, MembershipId, OrganizationId, UserId};
use aggregates::membership::MembershipState;
use aggregates::{Actor, ApiToken, Event, Membership, Organization, StreamId};
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
        crate::requests::trail::forget(self.log().pool(), self.rules().access_trail_days).await?;
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
        let (Ok(organization), Some(stream)) = (organization.parse::<OrganizationId>(), StreamId::from_id(holder))
        else {
            return Ok(());
        };
        let now = self.log().current(std::slice::from_ref(&stream)).await?;
        let Some(known) = now.state(&stream) else { return Ok(()) };
        match known.state.expired(Utc::now()) {
            Some(events) => self.append_as_system(&organization, stream, known.version, events, vec![]).await,
            None => Ok(()),
        }
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
                if let Err(error) = self.purge(&id, now).await {
                    tracing::warn!(%error, id, "what was deleted could not be purged");
                }
            }
        }
    }

    /// Purges something whose time has come; what is held, or was restored meanwhile, stays. That nobody holds the
    /// organization is relied upon: a hold at the same time wins or loses.
    async fn purge(&self, id: &str, at: DateTime<Utc>) -> Result<(), Fault> {
        let Some(stream) = StreamId::from_id(id) else { return Ok(()) };
        let now = self.log().current(std::slice::from_ref(&stream)).await?;
        let Some(known) = now.state(&stream) else { return Ok(()) };
        let Some(events) = known.state.purged(at) else { return Ok(()) };
        let Some(place) = known.organization.clone() else { return Ok(()) };
        if stream == home(&place) {
            return self.append_as_system(&place, stream, known.version, events, vec![]).await;
        }
        let organization = self.log().current(&[home(&place)]).await?.get::<Organization>(&place);
        if organization.state.legal_hold.is_some() {
            return Ok(());
        }
        let relied = vec![(home(&place), organization.version)];
        self.append_as_system(&place, stream, known.version, events, relied).await
    }

    /// Appends what the service itself decided. A replica that comes too late leaves it: another one has done it.
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
