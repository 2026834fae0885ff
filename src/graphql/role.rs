//! Roles and permissions.

use aggregates::ids::{OrganizationId, UserId};
use aggregates::organization::OrganizationEvent;
use aggregates::roles::{OwnRoles, Permission, Permissions, ROLES, is_owner};
use aggregates::{Event, Membership};
use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};

use super::errors::{forbidden, log_fault};
use super::payload::{Answer, payloads, run};
use super::session::{Session, id};
use crate::commands::Receipt;
use crate::commands::roles::{DefineRole, RemoveRole};

/// A role that members of an organization can have.
#[derive(Debug, Clone, SimpleObject)]
pub struct Role {
    /// Its name.
    name: String,
    /// For whom it is.
    description: String,
    /// What it permits.
    permissions: Vec<String>,
    /// Whether every organization has it; else it is the organization's own.
    built_in: bool,
}

/// Something that a role may permit.
#[derive(Debug, Clone, SimpleObject)]
pub struct PermissionDescription {
    /// Its name.
    name: String,
    /// What it allows.
    description: String,
}

/// Everything that roles may permit.
pub fn catalogue() -> Vec<PermissionDescription> {
    let described = |permission: &Permission| PermissionDescription {
        name: permission.as_str().to_owned(),
        description: permission.description().to_owned(),
    };
    Permission::ALL.iter().map(described).collect()
}

/// The roles of an organization: the built-in ones, then its own by name.
pub async fn roles(session: &Session, organization: &OrganizationId) -> Result<Option<Vec<Role>>, Error> {
    let Some(seen) = session.see(organization).await? else {
        session.note_reach(Some(organization), Some(organization.as_ref()));
        return Ok(None);
    };
    let built_in = ROLES.iter().map(|role| Role {
        name: role.name.to_owned(),
        description: role.description.to_owned(),
        permissions: role.permissions().names(),
        built_in: true,
    });
    let OwnRoles(own) = &seen.organization.state.roles;
    let own = own.iter().map(|(name, role)| Role {
        name: name.clone(),
        description: role.description.clone(),
        permissions: role.permissions.clone(),
        built_in: false,
    });
    Ok(Some(built_in.chain(own).collect()))
}

/// What the caller may do in an organization as a member; or another user, where an operator asks, or a token that
/// may read members: the services of an organization look there what its people may do.
pub async fn permissions(
    session: &Session,
    organization: &OrganizationId,
    user: Option<UserId>,
) -> Result<Option<Vec<String>>, Error> {
    let Some(seen) = session.see(organization).await? else {
        session.note_reach(Some(organization), Some(organization.as_ref()));
        return Ok(None);
    };
    let Some(user) = user.filter(|user| !session.is(user)) else { return Ok(Some(seen.permissions().names())) };
    let as_token = session.is_token() && seen.may(Permission::MemberRead);
    if !session.is_operator() && !as_token {
        session.note_refusal(Some(organization), Some(user.as_ref()));
        return Err(forbidden(
            "only operators of the service, and API tokens that may read members, may ask what others may do",
        ));
    }
    let membership = aggregates::ids::MembershipId::of(organization, &user);
    let now = session.log().current(&[membership.clone().into()]).await.map_err(log_fault)?;
    let permissions = now.get::<Membership>(&membership).state.permissions(&seen.organization.state.roles);
    let organization = &seen.organization.state;
    let hidden =
        organization.status.hidden_from_members() && !is_owner(&now.get::<Membership>(&membership).state.roles);
    Ok(Some(if hidden { vec![] } else { permissions.names() }))
}

payloads! {
    /// What became of a command on a role.
    RolePayload {
        /// The role after the command; a removed one as it was.
        role: Option<Role> = |receipt: &Receipt| receipt.events.iter().find_map(|recorded| recorded_role(&recorded.event)),
    }
}

fn recorded_role(event: &Event) -> Option<Role> {
    use OrganizationEvent as E;
    match event {
        Event::Organization(
            E::RoleDefined { role, description, permissions, .. }
            | E::RoleChanged { role, description, permissions, .. }
            | E::RoleRemoved { role, description, permissions, .. },
        ) => Some(Role {
            name: role.clone(),
            description: description.clone(),
            permissions: permissions.clone(),
            built_in: false,
        }),
        _ => None,
    }
}

/// A role of an organization's own.
#[derive(InputObject)]
pub struct DefineRoleInput {
    /// Of which organization.
    organization_id: ID,
    /// Its name: 1 to 40 of a-z, 0-9, "-", "_", the first a letter.
    name: String,
    /// For whom it is.
    description: String,
    /// What it permits, never more than the caller may do; see `permissionCatalogue`.
    permissions: Vec<String>,
    /// Why; operators have to say it.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the organization must have.
    expected_version: Option<i32>,
}

/// The removal of a role of an organization's own.
#[derive(InputObject)]
pub struct RemoveRoleInput {
    /// Of which organization.
    organization_id: ID,
    /// Its name.
    name: String,
    /// The role that its holders, and those who are invited with it, get in the same commit.
    replace_with: Option<String>,
    /// Why; operators have to say it.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the organization must have.
    expected_version: Option<i32>,
}

/// Mutations of roles.
#[derive(Default)]
pub struct RoleMutation;

#[Object]
impl RoleMutation {
    /// Defines a role of the organization's own, or changes what it means.
    async fn define_role(&self, ctx: &Context<'_>, input: DefineRoleInput) -> Answer<RolePayload> {
        // Where it is so already, nothing is recorded.
        let as_it_is = Role {
            name: input.name.clone(),
            description: input.description.trim().to_owned(),
            permissions: Permissions::of_names(&input.permissions).names(),
            built_in: false,
        };
        let case = id("organizationId", &input.organization_id).map(|organization| DefineRole {
            organization,
            name: input.name,
            description: input.description,
            permissions: input.permissions,
            reason: input.reason,
        });
        let answer: Answer<RolePayload> = run(ctx, input.idempotency_key, input.expected_version, case).await;
        answer.map(|payload| {
            payload.map(|mut payload| {
                if payload.errors.is_empty() {
                    payload.role.get_or_insert(as_it_is);
                }
                payload
            })
        })
    }

    /// Removes a role of the organization's own; refused while it is in use, unless `replaceWith` is given.
    async fn remove_role(&self, ctx: &Context<'_>, input: RemoveRoleInput) -> Answer<RolePayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| RemoveRole {
            organization,
            name: input.name,
            replace_with: input.replace_with,
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }
}
