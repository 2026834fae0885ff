//! How a caller stands towards an organization: whether he sees it, and what he may do there. One order of checks
//! for every operation: visible → lifecycle and verification → permission.

use aggregates::ids::{MembershipId, OrganizationId};
use aggregates::membership::Grantor;
use aggregates::roles::{self, OwnRoles, Permission};
use aggregates::status::Capability;
use aggregates::{Membership, Organization, Refusal, Scope, text};

use super::work::{Stop, Work};
use super::{Fault, Rejection};
use crate::log::Loaded;

/// A caller and an organization that he may see.
pub struct Standing {
    /// The organization.
    pub organization: Loaded<Organization>,
    /// Its id.
    pub id: OrganizationId,
    /// The caller's membership; not active for operators who are none.
    pub membership: Loaded<Membership>,
    /// Whether the caller operates the service.
    pub operator: bool,
}

/// By which right a caller acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Whether as an operator.
    pub operator: bool,
    /// What he may grant.
    pub grantor: Grantor,
}

/// Whether a member with this state of things sees the organization.
pub fn sees(organization: &Organization, membership: &Membership) -> bool {
    organization.is_present()
        && membership.permissions(&organization.roles).contains(Permission::OrganizationRead)
        && (!organization.status.hidden_from_members() || roles::is_owner(&membership.roles))
}

impl Standing {
    /// The caller's standing in `id`; NOT_FOUND where he may not see it, exactly as if it did not exist.
    pub async fn of(work: &mut Work<'_>, id: &OrganizationId) -> Result<Self, Stop> {
        let standing = Self::load(work, id).await?;
        let visible = sees(&standing.organization.state, &standing.membership.state)
            || (standing.operator && standing.organization.state.is_present());
        if !visible {
            work.hidden = Some(id.clone()).filter(|_| standing.organization.state.is_present());
            return Err(Fault::NotFound.into());
        }
        work.seen = Some(id.clone());
        work.count(id)?;
        Ok(standing)
    }

    /// The standing of a member who need not see the organization itself: leaving is open to whoever is in.
    pub async fn of_member(work: &mut Work<'_>, id: &OrganizationId) -> Result<Self, Stop> {
        let standing = Self::load(work, id).await?;
        let member = standing.membership.state.state != aggregates::membership::MembershipState::Removed;
        if !member || !standing.organization.state.is_present() {
            work.hidden = Some(id.clone()).filter(|_| standing.organization.state.is_present());
            return Err(Fault::NotFound.into());
        }
        work.seen = Some(id.clone());
        work.count(id)?;
        Ok(standing)
    }

    async fn load(work: &mut Work<'_>, id: &OrganizationId) -> Result<Self, Stop> {
        work.organization = Some(id.clone());
        let membership = MembershipId::of(id, &work.caller.principal.user);
        work.log().warm(&[id.clone().into(), membership.clone().into()]).await?;
        let organization = work.load::<Organization>(id).await?;
        let membership = work.load::<Membership>(&membership).await?;
        Ok(Self { organization, id: id.clone(), membership, operator: work.caller.principal.operator })
    }

    /// The organization's own roles.
    pub fn own_roles(&self) -> &OwnRoles {
        &self.organization.state.roles
    }

    /// Whether the caller may do it as a member.
    pub fn may(&self, permission: Permission) -> bool {
        self.membership.state.permissions(self.own_roles()).contains(permission)
    }

    /// Requires that the organization's status allows `capability` and that the caller may do it: as a member with
    /// `permission`, or as an operator who says why.
    pub fn require(
        &self,
        work: &mut Work<'_>,
        capability: Option<Capability>,
        permission: Permission,
        reason: Option<&str>,
    ) -> Result<Rights, Stop> {
        let lacking = || format!("this needs the permission {permission}, which none of your roles has");
        self.rights(work, capability, self.may(permission), lacking, reason)
    }

    /// The same for what only owners do, whatever the organization's own roles permit.
    pub fn require_owner(
        &self,
        work: &mut Work<'_>,
        capability: Capability,
        reason: Option<&str>,
    ) -> Result<Rights, Stop> {
        let lacking = || "only an owner of the organization can do this".to_owned();
        self.rights(work, Some(capability), self.membership.state.is_active_owner(), lacking, reason)
    }

    fn rights(
        &self,
        work: &mut Work<'_>,
        capability: Option<Capability>,
        as_member: bool,
        lacking: impl FnOnce() -> String,
        reason: Option<&str>,
    ) -> Result<Rights, Stop> {
        let as_operator = self.operator && !as_member;
        if let Some(capability) = capability {
            self.require_capability(capability, as_operator)?;
        }
        if as_member {
            return Ok(Rights {
                operator: false,
                grantor: Grantor::with_roles(&self.membership.state.roles, self.own_roles()),
            });
        }
        if !as_operator {
            return Err(Fault::Forbidden(lacking()).into());
        }
        if text::reason("reason", reason)?.is_none() {
            return Err(Fault::Forbidden(
                "an operator acts in an organization only with a reason: give one, or act as a member".into(),
            )
            .into());
        }
        work.act_as_operator();
        Ok(Rights { operator: true, grantor: Grantor::unbounded().knowing(self.own_roles()) })
    }

    /// Requires an operator with a reason.
    pub fn require_operator(&self, work: &mut Work<'_>, reason: &str) -> Result<Rights, Stop> {
        work.require_operator(reason)?;
        Ok(Rights { operator: true, grantor: Grantor::unbounded().knowing(self.own_roles()) })
    }

    /// Requires that the organization's status allows `capability`.
    pub fn require_capability(&self, capability: Capability, operator: bool) -> Result<(), Stop> {
        let status = self.organization.state.status;
        if status.allows(capability, operator) {
            return Ok(());
        }
        Err(Stop::Refusal(Rejection::Rule(Refusal::EntityStatus { status, capability })))
    }
}

/// How a key that somebody else holds is refused; the holder is named if the caller may know.
pub(super) fn taken(scope: Scope, holder: Option<String>) -> Refusal {
    let (path, message) = match scope {
        Scope::OrganizationSlug | Scope::ProjectSlug => ("slug", "this slug is taken: choose another"),
        Scope::ExternalId => ("externalId", "another organization has this external id"),
        Scope::Identity => ("userId", "this user is registered already"),
        Scope::Home => return Refusal::InvalidState(super::sole::ELSEWHERE.to_owned()),
        Scope::OpenInvitation => ("email", "this address has an open invitation already: resend or revoke it"),
    };
    Refusal::AlreadyExists { path, message: message.to_owned(), existing: holder.unwrap_or_default() }
}
