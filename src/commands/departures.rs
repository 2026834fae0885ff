//! What ends with a membership beside itself: the invitations that the member made, himself or by API tokens that he
//! answers for, and that are open still, unless the organization's policy keeps them (`policies`: `{"invitationsOfRemovedMembers": "keep"}`).
//!
//! Which they are is proposed by the read model, and each is held against the log. One that the read model did not
//! show yet stays open, but is not accepted any more: accepting looks whether who invited is still there.
//!
//! API tokens that the member answers for go on, unless the policy says otherwise (`{"tokensOfRemovedMembers":
//! "revoke"}`). One that the read model did not show yet is revoked by the sweeper, seconds later.

use aggregates::api_token::{ApiTokenCommand, ApiTokenState};
use aggregates::ids::{ApiTokenId, InvitationId, MembershipId, OrganizationId, UserId};
use aggregates::invitation::{InvitationCommand, InvitationState};
use aggregates::membership::MembershipState;
use aggregates::{Actor, ApiToken, Invitation, Membership, Organization, Refusal, StreamId};

use super::roles::wait_for_read_models;
use super::standing::Standing;
use super::tokens;
use super::work::{Stop, Work};
use crate::log::{Log, LogError, scope};

/// The most invitations that one removal revokes. What is beyond it cannot be accepted any more and expires.
const REVOKED_MAX: i64 = 200;
/// The most API tokens that one removal revokes itself. What is beyond it is left to the sweeper.
const TOKENS_REVOKED_MAX: i64 = 200;

/// Revokes the open invitations of `user`, who is out from now on; `reason` says so.
pub(super) async fn revoke_invitations(
    work: &mut Work<'_>,
    standing: &Standing,
    user: Option<&UserId>,
    reason: &str,
) -> Result<(), Stop> {
    let Some(user) = user.filter(|_| !standing.organization.state.keeps_invitations_of_removed_members()) else {
        return Ok(());
    };
    wait_for_read_models(work.log(), &[work.log().partition_of(standing.id.as_ref())]).await?;
    let ids = open_invitations(work.log(), &standing.id, user).await?;
    let streams: Vec<StreamId> = ids.iter().cloned().map(Into::into).collect();
    work.log().warm(&streams).await?;
    for id in ids {
        let before = work.load::<Invitation>(&id).await?;
        if before.state.state_at(work.now) == InvitationState::Pending {
            let command = InvitationCommand::Revoke { reason: Some(reason.to_owned()), at: work.now };
            let events = before.state.decide(command)?;
            work.record(&id, &before, events);
        }
    }
    Ok(())
}

/// Revokes the API tokens that `user`, who is out from now on, answers for, where the policy wants it.
pub(super) async fn revoke_tokens(
    work: &mut Work<'_>,
    standing: &Standing,
    user: Option<&UserId>,
    reason: &str,
) -> Result<(), Stop> {
    let Some(user) = user.filter(|_| standing.organization.state.revokes_tokens_of_removed_members()) else {
        return Ok(());
    };
    wait_for_read_models(work.log(), &[work.log().partition_of(standing.id.as_ref())]).await?;
    let ids = living_tokens(work.log(), &standing.id, user).await?;
    let streams: Vec<StreamId> = ids.iter().cloned().map(Into::into).collect();
    work.log().warm(&streams).await?;
    for id in ids {
        let before = work.load::<ApiToken>(&id).await?;
        if before.state.state == ApiTokenState::Active {
            let command = ApiTokenCommand::Revoke { reason: Some(reason.to_owned()), at: work.now };
            let events = before.state.decide(command)?;
            work.record(&id, &before, events);
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

async fn open_invitations(
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

/// How many open invitations `user` made, himself or by tokens that he answers for, as the read model has it.
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

/// Requires that who invited is still there, or that the policy does not mind; of a token, who answers for it. The
/// command relies on it: a removal at the same time is a conflict.
pub(super) async fn inviter_must_be_in(
    work: &mut Work<'_>,
    id: &OrganizationId,
    organization: &Organization,
    invited_by: &Actor,
    otherwise: &str,
) -> Result<(), Stop> {
    let inviter = match invited_by {
        Actor::User(user) => Some(user.clone()),
        Actor::Token(token) => match &work.load::<ApiToken>(token).await?.state.responsible {
            Actor::User(user) => Some(user.clone()),
            Actor::Operator(_) | Actor::Token(_) | Actor::System => None,
        },
        Actor::Operator(_) | Actor::System => None,
    };
    let Some(user) = inviter.filter(|_| !organization.keeps_invitations_of_removed_members()) else { return Ok(()) };
    let inviter = work.load::<Membership>(&MembershipId::of(id, &user)).await?;
    if inviter.state.state == MembershipState::Removed {
        return Err(Refusal::InvalidState(otherwise.to_owned()).into());
    }
    Ok(())
}

/// Refuses an invitation that a token made for the very user who answers for it, whatever the policy: he would let
/// himself in.
pub(super) async fn inviter_must_be_another(
    work: &mut Work<'_>,
    invited_by: &Actor,
    recipient: &UserId,
) -> Result<(), Stop> {
    if let Actor::Token(token) = invited_by
        && tokens::person_behind(&work.load::<ApiToken>(token).await?.state) == Some(recipient)
    {
        let message = "an API token of your own made this invitation: ask a member for another one";
        return Err(Refusal::InvalidState(message.into()).into());
    }
    Ok(())
}
