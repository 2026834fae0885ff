//! One organization a user, where the deployment says so (`organizations.one_per_user`).
//!
//! A membership that begins while the rule is in force binds its user: it holds a claim on that user that is unique
//! over all organizations, so of ten that begin at once, anywhere, one does. A membership from before the rule binds
//! nobody; the read model shows it, which such an old one has long reached. A deleted organization counts until it is
//! purged, so restoring one breaks no rule; what bound a user to a purged one ends when they join another.

use aggregates::ids::{MembershipId, OrganizationId, UserId};
use aggregates::membership::{Grantor, MembershipCommand, MembershipEvent, MembershipState};
use aggregates::{Membership, Organization, Refusal};
use cqrs_es::Aggregate;
use serde::Serialize;

use super::work::{Stop, Work};
use super::{Commands, Fault, UseCase};
use crate::log::{Loaded, LogError};

/// How a user who is in another organization is refused.
pub(super) const ELSEWHERE: &str = "this user is a member of another organization, and this service allows one a user: \
    the membership there has to end first";

/// What begins with `joined` binds its user, who must be in no other organization; where there is no such rule, or
/// nobody joins, nothing happens.
pub(super) async fn bind(
    work: &Work<'_>,
    organization: &OrganizationId,
    before: &Loaded<Membership>,
    mut joined: Vec<MembershipEvent>,
) -> Result<Vec<MembershipEvent>, Stop> {
    let user = joined.iter().find_map(|event| match event {
        MembershipEvent::MemberJoined { user_id, .. } => Some(user_id.clone()),
        MembershipEvent::MemberBound { .. }
        | MembershipEvent::MemberRolesChanged { .. }
        | MembershipEvent::MemberSuspended { .. }
        | MembershipEvent::MemberReinstated { .. }
        | MembershipEvent::MemberRemoved { .. }
        | MembershipEvent::MemberLeft { .. } => None,
    });
    let Some(user) = user.filter(|_| work.rules().one_per_user) else { return Ok(joined) };
    must_be_nowhere_else(work, organization, &user).await?;
    let mut after = (*before.state).clone();
    for event in &joined {
        after.apply(event.clone());
    }
    joined.extend(after.decide(MembershipCommand::Bind)?);
    Ok(joined)
}

/// Refuses a user who is a member of another organization than this one, also one who is suspended there. Where to
/// look, a read model says; whether it is so, the log.
pub(super) async fn must_be_nowhere_else(
    work: &Work<'_>,
    organization: &OrganizationId,
    user: &UserId,
) -> Result<(), Stop> {
    if !work.rules().one_per_user {
        return Ok(());
    }
    let elsewhere = sqlx::query_scalar!(
        "SELECT organization_id FROM members WHERE user_id = $1 AND state <> 'REMOVED' AND organization_id <> $2
         ORDER BY created_at, id",
        user.as_ref(),
        organization.as_ref()
    )
    .fetch_all(work.log().pool())
    .await
    .map_err(LogError::from)?;
    for id in elsewhere.iter().filter_map(|id| id.parse::<OrganizationId>().ok()) {
        let membership = MembershipId::of(&id, user);
        let now = work.log().current(&[id.clone().into(), membership.clone().into()]).await?;
        let member = now.get::<Membership>(&membership).state.state != MembershipState::Removed;
        if member && now.get::<Organization>(&id).state.is_present() {
            return Err(Refusal::InvalidState(ELSEWHERE.to_owned()).into());
        }
    }
    Ok(())
}

impl Commands {
    /// Ends the membership `holder`, which binds its user, if its organization is purged.
    pub(super) async fn free_from_purged(&self, holder: &str) -> Result<(), Fault> {
        let Ok(membership) = holder.parse::<MembershipId>() else { return Ok(()) };
        self.act_by_itself(&FreeFromPurged { membership }).await
    }
}

/// Ends a membership in an organization that is purged.
#[derive(Debug, Serialize)]
struct FreeFromPurged {
    membership: MembershipId,
}

impl UseCase for FreeFromPurged {
    const OPERATION: &'static str = "freeFromPurged";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let before = work.load::<Membership>(&self.membership).await?;
        let Some(organization) = before.organization.clone() else { return Ok(()) };
        work.organization = Some(organization.clone());
        if work.load::<Organization>(&organization).await?.state.is_present() {
            return Ok(());
        }
        let reason = Some("the organization was purged".to_owned());
        let command = MembershipCommand::Remove { reason, by: Grantor::unbounded() };
        // An error means that somebody ended it meanwhile.
        if let Ok(events) = before.state.decide(command) {
            work.record(&self.membership, &before, events);
        }
        Ok(())
    }
}
