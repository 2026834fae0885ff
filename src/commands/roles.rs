//! Commands of an organization's own roles.

use aggregates::ids::{InvitationId, MembershipId, OrganizationId};
use aggregates::invitation::{InvitationCommand, InvitationState};
use aggregates::membership::{Grantor, MembershipCommand, MembershipState};
use aggregates::organization::OrganizationCommand;
use aggregates::roles::{OWNER, OwnRoles, Permission, Permissions, role};
use aggregates::status::Capability;
use aggregates::{Invitation, Membership, Refusal, StreamId};
use chrono::{DateTime, Utc};
use projections::Reach;
use serde::Serialize;

use super::UseCase;
use super::execution::READ_MODEL_PAUSE;
use super::standing::Standing;
use super::work::{Entity, Stop, Work};
use crate::log::{Log, LogError};

/// The most holders that one command gives another role.
const REPLACED_MAX: usize = 500;
/// How often it is looked whether the read models are level.
const READ_MODEL_LOOKS: usize = 50;
/// How many holders a refusal names.
const NAMED_MAX: usize = 5;

/// Defines a role of the organization's own, or changes it.
#[derive(Debug, Serialize)]
pub struct DefineRole {
    /// Of which organization.
    pub organization: OrganizationId,
    /// Its name.
    pub name: String,
    /// For whom it is.
    pub description: String,
    /// What it permits.
    pub permissions: Vec<String>,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for DefineRole {
    const OPERATION: &'static str = "defineRole";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let roles = &standing.organization.state.roles;
        // Its holders may do more by it, or only less; a new one is there to be granted.
        let less = roles.0.contains_key(&self.name)
            && Permissions::of_names(&self.permissions).is_subset(roles.permissions_of(&[&self.name]));
        let capability = if less { Capability::RemoveMembers } else { Capability::AddMembers };
        let rights = standing.require(work, Some(capability), Permission::RoleManage, self.reason.as_deref())?;
        work.must_not_hold_behind(&self.organization, &self.name).await?;
        work.expect_version(standing.organization.version)?;
        let events = standing.organization.state.decide(OrganizationCommand::DefineRole {
            name: self.name.clone(),
            description: self.description.clone(),
            permissions: self.permissions.clone(),
            by: rights.grantor.permissions,
            reason: self.reason.clone(),
        })?;
        finish(work, standing, events)
    }
}

/// Removes a role of the organization's own; whoever holds it gets another one instead, in the same commit.
#[derive(Debug, Serialize)]
pub struct RemoveRole {
    /// Of which organization.
    pub organization: OrganizationId,
    /// Its name.
    pub name: String,
    /// The role instead; without one, nobody may hold it.
    pub replace_with: Option<String>,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for RemoveRole {
    const OPERATION: &'static str = "removeRole";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let roles = &standing.organization.state.roles;
        let instead: Vec<&str> = self.replace_with.as_deref().into_iter().collect();
        let less = roles.permissions_of(&instead).is_subset(roles.permissions_of(&[&self.name]));
        let capability = if less { Capability::RemoveMembers } else { Capability::AddMembers };
        let rights = standing.require(work, Some(capability), Permission::RoleManage, self.reason.as_deref())?;
        work.must_not_hold_behind(&self.organization, &self.name).await?;
        work.expect_version(standing.organization.version)?;
        let removed = standing.organization.state.decide(OrganizationCommand::RemoveRole {
            name: self.name.clone(),
            replaced_with: self.replace_with.clone(),
            by: rights.grantor.permissions,
            reason: self.reason.clone(),
        })?;
        if let Some(with) = &self.replace_with {
            // The holders' roles change by it.
            standing.require(work, None, Permission::MemberUpdate, self.reason.as_deref())?;
            standing.require(work, None, Permission::MemberInvite, self.reason.as_deref())?;
            may_replace(&self.name, with, roles, &rights.grantor)?;
        }
        let holders = Holders::find(work, &self.organization, &self.name).await?;
        match &self.replace_with {
            None => holders.must_be_none(&self.name, standing.operator || standing.may(Permission::MemberRead))?,
            Some(with) => self.replace(work, with, holders, &rights.grantor).await?,
        }
        finish(work, standing, removed)
    }
}

impl RemoveRole {
    async fn replace(&self, work: &mut Work<'_>, with: &str, holders: Holders, by: &Grantor) -> Result<(), Stop> {
        let count = holders.members.len() + holders.invitations.len();
        if count > REPLACED_MAX {
            let message = format!(
                "the role is in use {count} times, and one command replaces {REPLACED_MAX}: change some of them first"
            );
            return Err(Refusal::InvalidState(message).into());
        }
        for id in holders.members {
            let before = work.load::<Membership>(&id).await?;
            if holds(&before.state, &self.name) {
                let (role, with, by) = (self.name.clone(), with.to_owned(), by.clone());
                let command = MembershipCommand::ReplaceRole { role, with, by, reason: self.reason.clone() };
                let events = before.state.decide(command)?;
                work.record(&id, &before, events);
            }
        }
        for id in holders.invitations {
            let before = work.load::<Invitation>(&id).await?;
            if promises(&before.state, &self.name, work.now) {
                let (role, with, by) = (self.name.clone(), with.to_owned(), by.clone());
                let (reason, at) = (self.reason.clone(), work.now);
                let events = before.state.decide(InvitationCommand::ReplaceRole { role, with, by, reason, at })?;
                work.record(&id, &before, events);
            }
        }
        Ok(())
    }
}

/// Whether `with` can take the place of `name`. Owners are not made in passing.
fn may_replace(name: &str, with: &str, roles: &OwnRoles, by: &Grantor) -> Result<(), Refusal> {
    if with == name || with == OWNER || !roles.has(with) {
        let shown: String = with.chars().take(80).collect();
        let message =
            format!("{shown:?} cannot take its place: give another role of this organization, not the owner's");
        return Err(Refusal::input("replaceWith", message));
    }
    by.may_grant(&[with.to_owned()])
}

/// Waits a moment until the read models show what the log holds now in these partitions; in all, where none is named.
/// What they still miss is found by the append, or later.
pub(super) async fn wait_for_read_models(log: &Log, partitions: &[i16]) -> Result<(), LogError> {
    let heads = log.heads_now(partitions).await?;
    for _ in 0..READ_MODEL_LOOKS {
        if projections::reached(log.pool(), &heads).await? != Reach::Behind {
            break;
        }
        tokio::time::sleep(READ_MODEL_PAUSE).await;
    }
    Ok(())
}

/// The holders of a role and those who are promised it: proposed by the read models, which may be a moment behind, and
/// looked up in the log. Whom they leave out is counted by the append, or found when the invitation is accepted.
struct Holders {
    members: Vec<MembershipId>,
    invitations: Vec<InvitationId>,
}

impl Holders {
    async fn find(work: &Work<'_>, organization: &OrganizationId, name: &str) -> Result<Self, LogError> {
        let log = work.log();
        if role(name).is_some() {
            return Ok(Self { members: vec![], invitations: vec![] });
        }
        wait_for_read_models(log, &[log.partition_of(organization.as_ref())]).await?;
        let rows = sqlx::query_scalar!(
            r#"(SELECT id AS "id!" FROM members WHERE organization_id = $1 AND state <> 'REMOVED' AND $2 = ANY(roles)
                ORDER BY created_at, id LIMIT $3)
               UNION ALL
               (SELECT id FROM invitations
                WHERE organization_id = $1 AND state = 'PENDING' AND expires_at > now() AND $2 = ANY(roles)
                ORDER BY created_at, id LIMIT $3)"#,
            organization.as_ref(),
            name,
            REPLACED_MAX as i64 + 1
        )
        .fetch_all(log.pool())
        .await?;
        let mut holders = Self {
            members: rows.iter().filter_map(|id| id.parse().ok()).collect(),
            invitations: rows.iter().filter_map(|id| id.parse().ok()).collect(),
        };
        let members = holders.members.iter().cloned().map(Into::into);
        let streams: Vec<StreamId> = members.chain(holders.invitations.iter().cloned().map(Into::into)).collect();
        if !streams.is_empty() {
            let now = log.current(&streams).await?;
            holders.members.retain(|id| holds(&now.get::<Membership>(id).state, name));
            holders.invitations.retain(|id| promises(&now.get::<Invitation>(id).state, name, work.now));
        }
        Ok(holders)
    }

    /// Ids are for who may see them.
    fn must_be_none(&self, name: &str, shown: bool) -> Result<(), Refusal> {
        let ids = self.members.iter().map(AsRef::as_ref).chain(self.invitations.iter().map(AsRef::as_ref));
        let ids: Vec<&str> = ids.collect();
        if ids.is_empty() {
            return Ok(());
        }
        let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
        let named = ids.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let named = if shown { format!(": {named}{more}") } else { String::new() };
        Err(Refusal::InvalidState(format!(
            "the role '{name}' is in use ({} members, {} open invitations{named}): give replaceWith, or change them first",
            self.members.len(),
            self.invitations.len()
        )))
    }
}

fn holds(membership: &Membership, name: &str) -> bool {
    membership.state != MembershipState::Removed && membership.roles.iter().any(|role| role == name)
}

fn promises(invitation: &Invitation, name: &str, now: DateTime<Utc>) -> bool {
    invitation.state_at(now) == InvitationState::Pending && invitation.roles.iter().any(|role| role == name)
}

fn finish(
    work: &mut Work<'_>,
    standing: Standing,
    events: Vec<aggregates::organization::OrganizationEvent>,
) -> Result<(), Stop> {
    let after = work.record(&standing.id, &standing.organization, events);
    work.entities = vec![Entity::new(standing.id, after)];
    Ok(())
}
