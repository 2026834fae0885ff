//! What ends with a membership, or rests with it.
//!
//! - Open invitations *by* the member, made by themselves or by API tokens that they are responsible for, end with the
//!   membership, unless the organization's policy keeps them (`policies`: `{"invitationsOfRemovedMembers": "keep"}`).
//! - Open invitations *to* the member end with the membership and with a suspension: an older invitation is no way back.
//! - API tokens that the member is responsible for go on, unless the policy says otherwise (`{"tokensOfRemovedMembers":
//!   "revoke"}`). Those of a member who was suspended rest until the member is back.
//!
//! Those by the member are proposed by the read model, the one to the member by the claim on the address, and each is
//! held against the log. An invitation that neither showed yet stays open but is void: accepting asks whether the inviter
//! may still give it, and whether it is newer than the end of the membership. A token that the read model did not show yet is revoked by the sweeper, seconds later.

use std::collections::BTreeMap;

use aggregates::api_token::{ApiTokenCommand, ApiTokenState};
use aggregates::ids::{ApiTokenId, InvitationId, OrganizationId, UserId};
use aggregates::invitation::{InvitationCommand, InvitationState};
use aggregates::{Actor, ApiToken, Invitation, Organization, StreamId, User};

use super::invitations::email_claim;
use super::roles::wait_for_read_models;
use super::work::{Stop, Work};
use crate::log::{Loaded, Log, LogError, scope};

/// The most invitations that one command revokes. What is beyond it cannot be accepted any more and expires.
const REVOKED_MAX: i64 = 200;
/// The most API tokens that one removal revokes itself. What is beyond it is left to the sweeper.
const TOKENS_REVOKED_MAX: i64 = 200;

/// Why open invitations end with a change of a membership; the text stands in the audit trail.
pub(super) struct Ended {
    /// Of those that the member made; `None` where they stay.
    pub by_member: Option<&'static str>,
    /// Of those to the member.
    pub to_member: &'static str,
}

/// Revokes the open invitations by and to `user`.
pub(super) async fn revoke_invitations(
    work: &mut Work<'_>,
    id: &OrganizationId,
    organization: &Loaded<Organization>,
    user: Option<&UserId>,
    ended: Ended,
) -> Result<(), Stop> {
    let Some(user) = user else { return Ok(()) };
    let mut reasons = BTreeMap::new();
    let kept = organization.state.keeps_invitations_of_removed_members();
    if let Some(reason) = ended.by_member.filter(|_| !kept) {
        wait_for_read_models(work.log(), &[work.log().partition_of(id.as_ref())]).await?;
        let made = open_invitations_by(work.log(), id, user).await?;
        reasons.extend(made.into_iter().map(|invitation| (invitation, reason)));
    }
    reasons.extend(open_invitation_to(work, id, user).await?.map(|invitation| (invitation, ended.to_member)));
    let streams: Vec<StreamId> = reasons.keys().cloned().map(Into::into).collect();
    work.log().warm(&streams).await?;
    for (invitation, reason) in reasons {
        let before = work.load::<Invitation>(&invitation).await?;
        if before.state.state_at(work.now) == InvitationState::Pending {
            let command = InvitationCommand::Revoke { reason: Some(reason.to_owned()), at: work.now };
            let events = before.state.decide(command)?;
            work.record(&invitation, &before, events);
        }
    }
    Ok(())
}

/// Revokes the API tokens that `user`, who is out from now on, answers for, where the policy wants it.
pub(super) async fn revoke_tokens(
    work: &mut Work<'_>,
    id: &OrganizationId,
    organization: &Loaded<Organization>,
    user: Option<&UserId>,
    reason: &str,
) -> Result<(), Stop> {
    let Some(user) = user.filter(|_| organization.state.revokes_tokens_of_removed_members()) else {
        return Ok(());
    };
    wait_for_read_models(work.log(), &[work.log().partition_of(id.as_ref())]).await?;
    let tokens = living_tokens(work.log(), id, user).await?;
    let streams: Vec<StreamId> = tokens.iter().cloned().map(Into::into).collect();
    work.log().warm(&streams).await?;
    for token in tokens {
        let before = work.load::<ApiToken>(&token).await?;
        if before.state.state == ApiTokenState::Active {
            let command = ApiTokenCommand::Revoke { reason: Some(reason.to_owned()), at: work.now };
            let events = before.state.decide(command)?;
            work.record(&token, &before, events);
        }
    }
    Ok(())
}

async fn living_tokens(log: &Log, organization: &OrganizationId, user: &UserId) -> Result<Vec<ApiTokenId>, LogError> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM api_tokens WHERE organization_id = $1 AND responsible = $2 AND state = 'ACTIVE'
         ORDER BY created_at, id LIMIT $3",
        organization.as_ref(),
        Actor::User(user.clone()).to_string(),
        TOKENS_REVOKED_MAX
    )
    .fetch_all(log.pool())
    .await?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// How many API tokens that may be used `user` answers for, as the read model has it.
pub async fn count_living_tokens(log: &Log, organization: &OrganizationId, user: &UserId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM api_tokens
           WHERE organization_id = $1 AND responsible = $2 AND state = 'ACTIVE'
             AND (expires_at IS NULL OR expires_at > now())"#,
        organization.as_ref(),
        Actor::User(user.clone()).to_string()
    )
    .fetch_one(log.pool())
    .await
}

async fn open_invitations_by(
    log: &Log,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<Vec<InvitationId>, LogError> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM invitations
         WHERE organization_id = $1 AND state = 'PENDING' AND expires_at > now()
           AND invited_by = ANY (ARRAY(
               SELECT $2 UNION ALL SELECT 'token:' || id FROM api_tokens WHERE organization_id = $1 AND responsible = $2
           ))
         ORDER BY created_at, id LIMIT $3",
        organization.as_ref(),
        Actor::User(user.clone()).to_string(),
        REVOKED_MAX
    )
    .fetch_all(log.pool())
    .await?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// The open invitation to the address that `user` has now: there is one at most, and it claims the address.
pub(super) async fn open_invitation_to(
    work: &mut Work<'_>,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<Option<InvitationId>, LogError> {
    let known = work.load::<User>(user).await?;
    let Some(address) = known.state.email.as_ref().and_then(|email| email.value()) else { return Ok(None) };
    let claim = email_claim(work.log().keys(), address);
    let holder = work.log().claim(Invitation::ADDRESS, &claim.0, Some(organization)).await?;
    Ok(holder.and_then(|holder| holder.parse().ok()))
}

/// How many open invitations `user` made, directly or by tokens that they answer for, as the read model has it.
pub async fn count_open_invitations(
    log: &Log,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<i64, sqlx::Error> {
    let mut query = scope::begin("open.count", &[organization]);
    let own = Actor::User(user.clone()).to_string();
    query.push(
        " CROSS JOIN LATERAL (SELECT count(*) FROM invitations
          WHERE organization_id = wanted.id AND state = 'PENDING' AND expires_at > now()
            AND invited_by = ANY (ARRAY(SELECT ",
    );
    query.push_bind(own.clone());
    query.push(" UNION ALL SELECT 'token:' || id FROM api_tokens WHERE organization_id = wanted.id AND responsible = ");
    query.push_bind(own);
    query.push("))) open");
    query.build_query_scalar().fetch_one(log.readers()).await
}
