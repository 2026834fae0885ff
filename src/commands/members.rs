//! Commands of memberships.

use std::sync::Arc;

use aggregates::ids::{MembershipId, OrganizationId, UserId};
use aggregates::membership::{MembershipCommand, MembershipSource, MembershipState};
use aggregates::roles::Permission;
use aggregates::status::Capability;
use aggregates::user::UserState;
use aggregates::{ApiToken, Membership, Organization, Refusal, User};
use serde::Serialize;

use super::departures::Ended;
use super::standing::{Insider, Standing};
use super::work::{Entity, Stop, Work};
use super::{Fault, Principal, UseCase, departures, ownership, sole};
use crate::log::{Loaded, Log, LogError};

/// Adds a user whom the caller can already see.
#[derive(Debug, Serialize)]
pub struct AddMember {
    /// To which organization.
    pub organization: OrganizationId,
    /// Whom.
    pub user: UserId,
    /// With which roles.
    pub roles: Vec<String>,
    /// How.
    pub source: MembershipSource,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for AddMember {
    const OPERATION: &'static str = "addMember";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let rights =
            standing.require(work, Some(Capability::AddMembers), Permission::MemberAdd, self.reason.as_deref())?;
        work.must_not_be_behind(Some(&self.user))?;
        let user = work.load::<User>(&self.user).await?;
        let id = MembershipId::of(&self.organization, &self.user);
        let membership = work.load::<Membership>(&id).await?;
        let visible = rights.operator
            || membership.version > 0
            || sees_user(work.log(), &work.caller()?.principal, &self.user).await?;
        if user.version == 0 || user.state.state == UserState::Erased || !visible {
            return Err(Fault::NotFound.into());
        }
        let join = MembershipCommand::Join {
            user: self.user.clone(),
            roles: self.roles.clone(),
            source: self.source,
            invitation: None,
            by: rights.grantor,
            reason: self.reason.clone(),
            at: work.now,
        };
        let joined = membership.state.decide(join).map_err(|refusal| named(refusal, &id))?;
        let joined = sole::bind(work, &self.organization, &membership, joined).await?;
        finish(work, id, &membership, joined);
        // Its seat is free again, and it is no second way in.
        let ended = Ended { by_member: None, to_member: "the invited person was added as a member" };
        departures::revoke_invitations(work, &standing.id, &standing.organization, Some(&self.user), ended).await
    }
}

/// What is done to one membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Change {
    /// Other roles.
    Roles(Vec<String>),
    /// Kept out for a while.
    Suspend(Option<String>),
    /// In again.
    Reinstate(Option<String>),
    /// Removed.
    Remove(Option<String>),
}

/// Changes one membership.
#[derive(Debug, Serialize)]
pub struct ChangeMember {
    /// Which membership.
    pub membership: MembershipId,
    /// What is done.
    pub change: Change,
    /// Why, where an operator changes roles.
    pub reason: Option<String>,
}

impl UseCase for ChangeMember {
    const OPERATION: &'static str = "changeMember";

    fn operation(&self) -> &'static str {
        match self.change {
            Change::Roles(_) => "changeMemberRoles",
            Change::Suspend(_) => "suspendMember",
            Change::Reinstate(_) => "reinstateMember",
            Change::Remove(_) => "removeMember",
        }
    }

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let membership = work.load::<Membership>(&self.membership).await?;
        let owner = membership.organization.as_ref();
        let standing = Standing::of_owner(work, owner, self.membership.as_ref()).await?;
        if !standing.may(Permission::MemberRead) && !standing.operator {
            return Err(Fault::NotFound.into());
        }
        let (capability, permission, reason) = match &self.change {
            // What the roles are worth decides which capability is needed; unknown names are refused as such below.
            Change::Roles(roles) => {
                let roles = standing.own_roles().normal(roles).unwrap_or_default();
                (membership.state.change_needs(&roles, standing.own_roles()), Permission::MemberUpdate, &self.reason)
            }
            Change::Suspend(reason) => (Capability::RemoveMembers, Permission::MemberSuspend, reason),
            Change::Reinstate(reason) => (Capability::AddMembers, Permission::MemberSuspend, reason),
            Change::Remove(reason) => (Capability::RemoveMembers, Permission::MemberRemove, reason),
        };
        let rights = standing.require(work, Some(capability), permission, reason.as_deref())?;
        match &self.change {
            Change::Roles(_) | Change::Reinstate(_) => work.must_not_be_behind(membership.state.user_id.as_ref())?,
            Change::Suspend(_) | Change::Remove(_) => {}
        }
        work.expect_version(membership.version)?;
        let (by, reason) = (rights.grantor, reason.clone());
        let command = match &self.change {
            Change::Roles(roles) => MembershipCommand::ChangeRoles { roles: roles.clone(), by, reason },
            Change::Suspend(_) => MembershipCommand::Suspend { reason, by },
            Change::Reinstate(_) => MembershipCommand::Reinstate { reason, by },
            Change::Remove(_) => MembershipCommand::Remove { reason, by },
        };
        let events = membership.state.decide(command)?;
        let after = finish(work, self.membership.clone(), &membership, events);
        let user = membership.state.user_id.as_ref();
        if let (Change::Reinstate(_), Some(user)) = (&self.change, user) {
            sole::must_be_nowhere_else(work, &standing.id, user).await?;
        }
        ownership::end_void_offer(work, &standing.id, &standing.organization, user, &after)?;
        match &self.change {
            Change::Remove(_) => {
                let ended = Ended {
                    by_member: Some("who invited was removed from the organization"),
                    to_member: "the invited person was removed from the organization",
                };
                departures::revoke_invitations(work, &standing.id, &standing.organization, user, ended).await?;
                let reason = "who answers for it was removed from the organization";
                departures::revoke_tokens(work, &standing.id, &standing.organization, user, reason).await
            }
            Change::Suspend(_) => {
                let ended = Ended { by_member: None, to_member: "the invited person was suspended as a member" };
                departures::revoke_invitations(work, &standing.id, &standing.organization, user, ended).await
            }
            // A role taken by a demotion does not come back by an older promise.
            Change::Roles(_) if membership.state.roles.iter().any(|held| !after.roles.contains(held)) => {
                let ended = Ended { by_member: None, to_member: "the invited person's roles as a member were lowered" };
                departures::revoke_invitations(work, &standing.id, &standing.organization, user, ended).await
            }
            Change::Roles(_) | Change::Reinstate(_) => Ok(()),
        }
    }
}

/// Leaves an organization.
#[derive(Debug, Serialize)]
pub struct LeaveOrganization {
    /// Which organization.
    pub organization: OrganizationId,
    /// Why.
    pub reason: Option<String>,
}

impl UseCase for LeaveOrganization {
    const OPERATION: &'static str = "leaveOrganization";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let caller = work.person()?;
        let standing = Standing::of_member(work, &self.organization).await?;
        // Somebody who does not see the organization learns nothing of its status either.
        if !standing.is_visible() && standing.require_capability(Capability::Leave, false).is_err() {
            return Err(Fault::NotFound.into());
        }
        standing.require_capability(Capability::Leave, false)?;
        work.expect_version(standing.organization.version)?;
        let id = MembershipId::of(&self.organization, &caller.user);
        let membership = standing.membership()?;
        let events = membership.state.decide(MembershipCommand::Leave { reason: self.reason.clone() })?;
        let after = finish(work, id, membership, events);
        let user = membership.state.user_id.as_ref();
        ownership::end_void_offer(work, &standing.id, &standing.organization, user, &after)?;
        let ended = Ended {
            by_member: Some("who invited left the organization"),
            to_member: "the invited person left the organization",
        };
        departures::revoke_invitations(work, &standing.id, &standing.organization, user, ended).await?;
        departures::revoke_tokens(
            work,
            &standing.id,
            &standing.organization,
            user,
            "who answers for it left the organization",
        )
        .await
    }
}

fn finish(
    work: &mut Work<'_>,
    id: MembershipId,
    before: &Loaded<Membership>,
    events: Vec<aggregates::membership::MembershipEvent>,
) -> Arc<Membership> {
    let after = work.record(&id, before, events);
    let state = after.state.clone();
    work.entities = vec![Entity::new(id, after)];
    state
}

/// Names the membership that exists already: the aggregate does not know its own id.
fn named(refusal: Refusal, id: &MembershipId) -> Refusal {
    match refusal {
        Refusal::AlreadyExists { path, message, .. } => {
            Refusal::AlreadyExists { path, message, existing: id.to_string() }
        }
        refusal => refusal,
    }
}

/// Whether `caller` sees `user`: a user through any organization, a token through its own.
pub async fn sees_user(log: &Log, caller: &Principal, user: &UserId) -> Result<bool, LogError> {
    match caller {
        Principal::User(person) => shares_an_organization(log, caller, &person.user, user).await,
        Principal::Token(id) => {
            let organization = log.current(&[id.clone().into()]).await?.get::<ApiToken>(id).organization;
            match organization {
                Some(organization) => meets(log, &organization, caller, user).await,
                None => Ok(false),
            }
        }
    }
}

/// Whether `caller` sees `user` through some organization. The read model only proposes where to look; what counts
/// are both memberships as the log has them.
async fn shares_an_organization(log: &Log, caller: &Principal, own: &UserId, user: &UserId) -> Result<bool, LogError> {
    if own == user {
        return Ok(true);
    }
    let candidates = sqlx::query_scalar!(
        "SELECT mine.organization_id FROM members mine
         JOIN members theirs ON theirs.organization_id = mine.organization_id AND theirs.user_id = $2
         WHERE mine.user_id = $1 AND mine.state = 'ACTIVE' AND theirs.state <> 'REMOVED' ORDER BY mine.id LIMIT 100",
        own.as_ref(),
        user.as_ref()
    )
    .fetch_all(log.pool())
    .await?;
    for organization in candidates.iter().filter_map(|id| id.parse::<OrganizationId>().ok()) {
        if meets(log, &organization, caller, user).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `caller` sees `user` among the members of `organization`, as the log has it now.
async fn meets(log: &Log, organization: &OrganizationId, caller: &Principal, user: &UserId) -> Result<bool, LogError> {
    let theirs = MembershipId::of(organization, user);
    let streams = [organization.clone().into(), Insider::stream(caller, organization), theirs.clone().into()];
    let now = log.current(&streams).await?;
    let (place, insider) = (now.get::<Organization>(organization), Insider::read(caller, organization, &now));
    let there = now.get::<Membership>(&theirs).state.state != MembershipState::Removed;
    Ok(there && insider.sees(&place.state) && insider.permissions(&place.state.roles).contains(Permission::MemberRead))
}
