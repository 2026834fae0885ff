//! How a caller stands towards an organization: whether they see it, and what they may do there. One order of checks
//! for every operation: visible → lifecycle and verification → permission.

use aggregates::ids::{Id, MembershipId, OrganizationId};
use aggregates::membership::Grantor;
use aggregates::roles::{OwnRoles, Permission, Permissions};
use aggregates::status::Capability;
use aggregates::{ApiToken, Membership, Organization, Refusal, StreamId, text};

use super::work::{Stop, Work};
use super::{Fault, Principal, Rejection};
use crate::log::{Current, Loaded, Log, LogError};

/// A caller and an organization that the caller may see.
pub struct Standing {
    /// The organization.
    pub organization: Loaded<Organization>,
    /// Its id.
    pub id: OrganizationId,
    /// What the caller is in it; nothing active for operators who are no members.
    pub insider: Insider,
    /// Whether the caller operates the service.
    pub operator: bool,
}

/// The id of an organization that is not there, for look-ups that have to cost the same as those of one that is.
pub fn nowhere(id: &str) -> OrganizationId {
    OrganizationId::derived(&["nowhere", id])
}

/// By which right a caller acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Whether as an operator.
    pub operator: bool,
    /// What the caller may grant.
    pub grantor: Grantor,
}

/// Whether a member with this state of things sees the organization.
pub fn sees(organization: &Organization, membership: &Membership) -> bool {
    is_visible(organization, membership.permissions(&organization.roles), membership.is_active_owner())
}

/// Whether `principal` sees the organization, as the log has both now; what is in none is for operators.
pub(super) async fn sees_now(
    log: &Log,
    principal: &Principal,
    organization: Option<&OrganizationId>,
) -> Result<bool, LogError> {
    let operator = principal.is_operator();
    let Some(id) = organization.filter(|_| !operator) else { return Ok(operator) };
    let now = log.current(&[id.clone().into(), Insider::stream(principal, id)]).await?;
    Ok(Insider::read(principal, id, &now).sees(&now.get::<Organization>(id).state))
}

fn is_visible(organization: &Organization, permissions: Permissions, owner: bool) -> bool {
    organization.is_present()
        && permissions.contains(Permission::OrganizationRead)
        && (!organization.status.hidden_from_members() || owner)
}

/// What a caller is in an organization: all that they may do there follows from it.
#[derive(Debug, Clone)]
pub enum Insider {
    /// A user, by the membership; a stranger's has not begun.
    Member(Loaded<Membership>),
    /// One of its API tokens; another organization's counts as one that does not exist. It never owns.
    Token(Loaded<ApiToken>),
}

impl Insider {
    /// The stream by which `principal` is in `organization`, if so.
    pub fn stream(principal: &Principal, organization: &OrganizationId) -> StreamId {
        match principal {
            Principal::User(person) => MembershipId::of(organization, &person.user).into(),
            Principal::Token(id) => id.clone().into(),
        }
    }

    /// What `principal` is in `organization` by the state of that stream.
    pub fn read(principal: &Principal, organization: &OrganizationId, now: &Current) -> Self {
        match principal {
            Principal::User(person) => Self::Member(now.get(&MembershipId::of(organization, &person.user))),
            Principal::Token(id) => Self::token(now.get(id), organization),
        }
    }

    async fn load(work: &mut Work<'_>, organization: &OrganizationId) -> Result<Self, Stop> {
        Ok(match &work.caller()?.principal {
            Principal::User(person) => Self::Member(work.load(&MembershipId::of(organization, &person.user)).await?),
            Principal::Token(id) => Self::token(work.load(id).await?, organization),
        })
    }

    fn token(token: Loaded<ApiToken>, organization: &OrganizationId) -> Self {
        if token.organization.as_ref() == Some(organization) {
            return Self::Token(token);
        }
        Self::Token(Loaded { state: Default::default(), version: 0, organization: None })
    }

    /// What the caller may do.
    pub fn permissions(&self, own_roles: &OwnRoles) -> Permissions {
        match self {
            Self::Member(membership) => membership.state.permissions(own_roles),
            Self::Token(token) => token.state.permissions(),
        }
    }

    /// Whether the caller owns the organization.
    pub fn is_owner(&self) -> bool {
        match self {
            Self::Member(membership) => membership.state.is_active_owner(),
            Self::Token(_) => false,
        }
    }

    /// Whether the caller sees the organization.
    pub fn sees(&self, organization: &Organization) -> bool {
        is_visible(organization, self.permissions(&organization.roles), self.is_owner())
    }

    /// What the caller may grant.
    fn grantor(&self, own_roles: &OwnRoles) -> Grantor {
        match self {
            Self::Member(membership) => Grantor::with_roles(&membership.state.roles, own_roles),
            Self::Token(token) => {
                Grantor { permissions: token.state.permissions(), owner: false, own_roles: own_roles.clone() }
            }
        }
    }

    fn lacking(&self, permission: Permission) -> String {
        match self {
            Self::Member(_) => format!("this needs the permission {permission}, which none of your roles has"),
            Self::Token(_) => format!("this needs the permission {permission}, which this API token does not have"),
        }
    }
}

impl Standing {
    /// The caller's standing in `id`; NOT_FOUND where they may not see it, exactly as if it did not exist.
    pub async fn of(work: &mut Work<'_>, id: &OrganizationId) -> Result<Self, Stop> {
        let standing = Self::load(work, id).await?;
        if !standing.is_visible() {
            work.hidden = Some(id.clone()).filter(|_| standing.organization.state.is_present());
            return Err(Fault::NotFound.into());
        }
        work.seen = Some(id.clone());
        work.count(id)?;
        Ok(standing)
    }

    /// The caller's standing in the organization that something of this id belongs to. What does not exist takes the same
    /// steps as what is hidden, in an organization that is not there either. Nothing is kept in memory of what is not
    /// there, so these steps may ask the database where those of something hidden need not.
    pub async fn of_owner(work: &mut Work<'_>, owner: Option<&OrganizationId>, id: &str) -> Result<Self, Stop> {
        match owner {
            Some(organization) => Self::of(work, organization).await,
            None => Err(Self::of(work, &nowhere(id)).await.err().unwrap_or(Fault::NotFound.into())),
        }
    }

    /// The standing of a member who need not see the organization itself: leaving is open to whoever is in.
    pub async fn of_member(work: &mut Work<'_>, id: &OrganizationId) -> Result<Self, Stop> {
        let standing = Self::load(work, id).await?;
        let member = standing.membership()?.state.state != aggregates::membership::MembershipState::Removed;
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
        let principal = &work.caller()?.principal;
        work.log().warm(&[id.clone().into(), Insider::stream(principal, id)]).await?;
        let organization = work.load::<Organization>(id).await?;
        let insider = Insider::load(work, id).await?;
        Ok(Self { organization, id: id.clone(), insider, operator: principal.is_operator() })
    }

    /// Whether the caller sees the organization.
    pub fn is_visible(&self) -> bool {
        let organization = &self.organization.state;
        self.insider.sees(organization) || (self.operator && organization.is_present())
    }

    /// The caller's membership, for what needs a person.
    pub fn membership(&self) -> Result<&Loaded<Membership>, Stop> {
        match &self.insider {
            Insider::Member(membership) => Ok(membership),
            Insider::Token(_) => Err(Fault::Forbidden("an API token has no membership".into()).into()),
        }
    }

    /// The organization's own roles.
    pub fn own_roles(&self) -> &OwnRoles {
        &self.organization.state.roles
    }

    /// Whether the caller may do it as a member, or as a token.
    pub fn may(&self, permission: Permission) -> bool {
        self.insider.permissions(self.own_roles()).contains(permission)
    }

    /// Requires that the organization's status allows `capability` and that the caller may do it: as a member or a
    /// token with `permission`, or as an operator who says why.
    pub fn require(
        &self,
        work: &mut Work<'_>,
        capability: Option<Capability>,
        permission: Permission,
        reason: Option<&str>,
    ) -> Result<Rights, Stop> {
        self.rights(work, capability, self.may(permission), || self.insider.lacking(permission), reason)
    }

    /// The same for a step of the organization's own status. Whether the status allows the step is the state that the
    /// command is about, and state is asked after permission.
    pub fn require_step(
        &self,
        work: &mut Work<'_>,
        step: Capability,
        permission: Permission,
        reason: Option<&str>,
    ) -> Result<Rights, Stop> {
        let rights = self.require(work, None, permission, reason)?;
        self.require_capability(step, rights.operator)?;
        Ok(rights)
    }

    /// The same for what only owners do, whatever the organization's own roles permit.
    pub fn require_owner(
        &self,
        work: &mut Work<'_>,
        capability: Capability,
        reason: Option<&str>,
    ) -> Result<Rights, Stop> {
        let lacking = || "only an owner of the organization can do this".to_owned();
        self.rights(work, Some(capability), self.insider.is_owner(), lacking, reason)
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
            return Ok(Rights { operator: false, grantor: self.insider.grantor(self.own_roles()) });
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
