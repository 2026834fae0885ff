//! Commands of organizations.

use aggregates::ids::{Id, MembershipId, OrganizationId, UserId};
use aggregates::membership::{Grantor, MembershipCommand, MembershipSource};
use aggregates::organization::{LimitChange, OrganizationCommand, OrganizationEvent};
use aggregates::roles::{OWNER, Permission};
use aggregates::status::{Capability, Review};
use aggregates::user::UserState;
use aggregates::{Declared, Membership, Organization, Refusal, User, text};
use serde::Serialize;
use serde_json::Value;

use super::standing::Standing;
use super::work::{Entity, Stop, Work};
use super::{Fault, Rejection, UseCase, later, sole};
use crate::log::Loaded;

/// How many organizations a user may have created in all, those that are gone included, where they are counted.
const PLACES_MAX: u64 = 1_000;

/// Creates an organization; its owner joins in the same commit.
#[derive(Debug, Serialize)]
pub struct CreateOrganization {
    /// The display name.
    pub name: String,
    /// The slug.
    pub slug: String,
    /// The contact address.
    pub contact_email: Option<String>,
    /// Operators: its id in their own systems.
    pub external_id: Option<String>,
    /// Operators: who owns it, if not the caller.
    pub owner: Option<UserId>,
    /// Why, where an operator creates it for somebody.
    pub reason: Option<String>,
    /// How the owner came in.
    pub source: MembershipSource,
}

impl UseCase for CreateOrganization {
    const OPERATION: &'static str = "createOrganization";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let caller = work.person()?;
        if (self.external_id.is_some() || self.owner.is_some()) && !caller.operator {
            return Err(Fault::Forbidden("externalId and ownerId are for operators: leave them out".into()).into());
        }
        let owner = self.owner.clone().unwrap_or_else(|| caller.user.clone());
        if self.external_id.is_some() || self.owner.is_some() {
            work.act_as_operator();
        }
        let known = work.load::<User>(&owner).await?;
        if known.version == 0 || known.state.state == UserState::Erased {
            return Err(Refusal::input("ownerId", "there is no user of this id").into());
        }
        organization_slug(work, &self.slug)?;
        let operator = caller.operator;
        if work.rules().created_by_operators && !operator {
            let message = "organizations are created by the operators of this service: ask them";
            return Err(Fault::Forbidden(message.into()).into());
        }
        let (id, before) = match work.rules().created_per_user_max {
            Some(maximum) if !operator => free_place(work, &owner, maximum).await?,
            _ => work.create::<Organization>().await?,
        };
        let founding = Founding {
            name: self.name.clone(),
            slug: self.slug.clone(),
            contact_email: self.contact_email.clone(),
            external_id: self.external_id.clone(),
            owner,
            reason: self.reason.clone(),
            source: self.source,
        };
        found(work, id, before, founding).await
    }
}

/// The first place for an organization that the user never used, while less than `maximum` are there. Its id follows
/// from user and place: two creations at once meet at its stream, and the second one looks again.
async fn free_place(
    work: &mut Work<'_>,
    user: &UserId,
    maximum: u64,
) -> Result<(OrganizationId, Loaded<Organization>), Stop> {
    let mut used = 0;
    for place in 0..PLACES_MAX {
        let id = OrganizationId::derived(&["created", user.as_ref(), &place.to_string()]);
        let before = work.load::<Organization>(&id).await?;
        if used >= maximum {
            break;
        }
        if before.version == 0 {
            return Ok((id, before));
        }
        used += u64::from(before.state.is_present());
    }
    let name = "organizations".to_owned();
    Err(Stop::Refusal(Rejection::Limit { name, maximum, used, requested: 1 }))
}

/// What a new organization is.
pub(super) struct Founding {
    pub name: String,
    pub slug: String,
    pub contact_email: Option<String>,
    pub external_id: Option<String>,
    pub owner: UserId,
    pub reason: Option<String>,
    pub source: MembershipSource,
}

/// Creates an organization with its owner.
pub(super) async fn found(
    work: &mut Work<'_>,
    id: OrganizationId,
    before: Loaded<Organization>,
    founding: Founding,
) -> Result<(), Stop> {
    let slug = organization_slug(work, &founding.slug)?;
    work.organization = Some(id.clone());
    let rules = work.rules();
    let plan = rules.default_plan.clone();
    let limits = rules.plans.get(&plan).cloned().unwrap_or_default();
    let unverified = rules.verification_required;
    let events = before.state.decide(OrganizationCommand::Create {
        id: id.clone(),
        name: founding.name,
        slug,
        contact_email: founding.contact_email,
        external_id: founding.external_id,
        plan,
        limits,
        verified_because: (!unverified).then(|| "this deployment does not verify organizations".to_owned()),
        reason: founding.reason,
        at: work.now,
    })?;
    let created = work.record(&id, &before, own_contact(work, events)?);

    let membership_id = MembershipId::of(&id, &founding.owner);
    let membership = work.expect_nothing::<Membership>(&membership_id);
    let joined = membership.state.decide(MembershipCommand::Join {
        user: founding.owner,
        roles: vec![OWNER.to_owned()],
        source: founding.source,
        invitation: None,
        by: Grantor::unbounded(),
        reason: None,
        at: work.now,
    })?;
    let joined = sole::bind(work, &id, &membership, joined).await?;
    let membership = work.record(&membership_id, &membership, joined);
    work.entities = vec![Entity::new(id, created), Entity::new(membership_id, membership)];
    Ok(())
}

/// Changes the profile.
#[derive(Debug, Serialize)]
pub struct UpdateOrganization {
    /// Which organization.
    pub organization: OrganizationId,
    /// The display name.
    pub name: Option<String>,
    /// The slug.
    pub slug: Option<String>,
    /// The contact address; `Some(None)` clears it.
    pub contact_email: Option<Option<String>>,
    /// Operators: the id in their own systems; `Some(None)` clears it.
    pub external_id: Option<Option<String>>,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for UpdateOrganization {
    const OPERATION: &'static str = "updateOrganization";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let profile = self.name.is_some() || self.slug.is_some() || self.contact_email.is_some();
        if profile || self.external_id.is_none() {
            standing.require(
                work,
                Some(Capability::EditProfile),
                Permission::OrganizationUpdate,
                self.reason.as_deref(),
            )?;
        }
        if self.external_id.is_some() {
            if !standing.operator {
                return Err(Fault::Forbidden("externalId is for operators: leave it out".into()).into());
            }
            work.act_as_operator();
        }
        let slug = self.slug.as_deref().map(|slug| organization_slug(work, slug)).transpose()?;
        let command = OrganizationCommand::Update {
            id: self.organization.clone(),
            name: self.name.clone(),
            slug,
            contact_email: self.contact_email.clone(),
            external_id: self.external_id.clone(),
            reason: self.reason.clone(),
        };
        finish(work, standing, command)
    }
}

/// Writes the settings document of a namespace.
#[derive(Debug, Serialize)]
pub struct UpdateOrganizationSettings {
    /// Which organization.
    pub organization: OrganizationId,
    /// Which document.
    pub namespace: String,
    /// The document; null or an empty object clears it.
    pub value: Value,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for UpdateOrganizationSettings {
    const OPERATION: &'static str = "updateOrganizationSettings";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let reason = self.reason.as_deref();
        standing.require(work, Some(Capability::EditProfile), Permission::OrganizationUpdate, reason)?;
        let command = OrganizationCommand::UpdateSettings {
            namespace: self.namespace.clone(),
            value: self.value.clone(),
            reason: self.reason.clone(),
        };
        finish(work, standing, command)
    }
}

/// Submits the organization for verification.
#[derive(Debug, Serialize)]
pub struct SubmitOrganization {
    /// Which organization.
    pub organization: OrganizationId,
    /// Why.
    pub reason: Option<String>,
}

impl UseCase for SubmitOrganization {
    const OPERATION: &'static str = "submitOrganizationForVerification";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let reason = self.reason.as_deref();
        standing.require_step(work, Capability::SubmitForVerification, Permission::OrganizationSubmit, reason)?;
        finish(work, standing, OrganizationCommand::Review { review: Review::Submit, reason: self.reason.clone() })
    }
}

/// Deletes the organization; it can be restored for a while.
#[derive(Debug, Serialize)]
pub struct DeleteOrganization {
    /// Which organization.
    pub organization: OrganizationId,
    /// Why.
    pub reason: Option<String>,
}

impl UseCase for DeleteOrganization {
    const OPERATION: &'static str = "deleteOrganization";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let reason = self.reason.as_deref();
        // What only operators may delete (a blocked organization), an owner who operates deletes as an operator.
        let blocked = !standing.organization.state.status.allows(Capability::Delete, false);
        let rights = if blocked && standing.operator {
            standing.require_capability(Capability::Delete, true)?;
            standing.require_operator(work, reason.unwrap_or_default())?
        } else {
            standing.require_step(work, Capability::Delete, Permission::OrganizationDelete, reason)?
        };
        let purge_at = later(work.now, work.rules().restore);
        let command =
            OrganizationCommand::Delete { reason: self.reason.clone(), by_operator: rights.operator, purge_at };
        finish(work, standing, command)
    }
}

/// Restores a deleted organization.
#[derive(Debug, Serialize)]
pub struct RestoreOrganization {
    /// Which organization.
    pub organization: OrganizationId,
    /// Why.
    pub reason: Option<String>,
}

impl UseCase for RestoreOrganization {
    const OPERATION: &'static str = "restoreOrganization";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let reason = self.reason.as_deref();
        if standing.organization.state.status.deleted_by_operator && standing.operator {
            standing.require_capability(Capability::Restore, true)?;
            standing.require_operator(work, reason.unwrap_or_default())?;
        } else {
            standing.require_step(work, Capability::Restore, Permission::OrganizationDelete, reason)?;
        }
        let at = work.now;
        finish(work, standing, OrganizationCommand::Restore { reason: self.reason.clone(), at })
    }
}

/// What an operator may do to an organization, beside its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Act {
    /// PENDING → VERIFIED.
    Verify,
    /// PENDING → REJECTED.
    Reject,
    /// → WAITLISTED.
    Waitlist,
    /// → IN_SETUP.
    Reopen,
    /// VERIFIED → PENDING.
    ReviewAgain,
    /// → BLOCKED.
    Block,
    /// → the status before the block.
    Unblock,
    /// → INACTIVE.
    Deactivate,
    /// → ACTIVE.
    Activate,
}

impl Act {
    fn command(self, reason: String) -> OrganizationCommand {
        let review = match self {
            Self::Verify => Review::Verify,
            Self::Reject => Review::Reject,
            Self::Waitlist => Review::Waitlist,
            Self::Reopen => Review::Reopen,
            Self::ReviewAgain => Review::ReviewAgain,
            Self::Block => Review::Block,
            Self::Unblock => Review::Unblock,
            Self::Deactivate => return OrganizationCommand::Deactivate { reason: Some(reason) },
            Self::Activate => return OrganizationCommand::Activate { reason: Some(reason) },
        };
        OrganizationCommand::Review { review, reason: Some(reason) }
    }
}

/// An operator's act on an organization.
#[derive(Debug, Serialize)]
pub struct ReviewOrganization {
    /// Which organization.
    pub organization: OrganizationId,
    /// What is done.
    pub act: Act,
    /// Why.
    pub reason: String,
}

impl UseCase for ReviewOrganization {
    const OPERATION: &'static str = "reviewOrganization";

    fn operation(&self) -> &'static str {
        match self.act {
            Act::Verify => "verifyOrganization",
            Act::Reject => "rejectOrganization",
            Act::Waitlist => "waitlistOrganization",
            Act::Reopen => "reopenOrganization",
            Act::ReviewAgain => "reviewOrganizationAgain",
            Act::Block => "blockOrganization",
            Act::Unblock => "unblockOrganization",
            Act::Deactivate => "deactivateOrganization",
            Act::Activate => "activateOrganization",
        }
    }

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        standing.require_operator(work, &self.reason)?;
        finish(work, standing, self.act.command(self.reason.clone()))
    }
}

/// Sets one limit.
#[derive(Debug, Serialize)]
pub struct SetOrganizationLimit {
    /// Which organization.
    pub organization: OrganizationId,
    /// Which limit.
    pub limit: String,
    /// The maximum; `None` with `from_plan` false is no limit.
    pub maximum: Option<u64>,
    /// Whether the plan decides.
    pub from_plan: bool,
    /// Why.
    pub reason: String,
}

impl UseCase for SetOrganizationLimit {
    const OPERATION: &'static str = "setOrganizationLimit";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        standing.require_operator(work, &self.reason)?;
        let value = match (self.from_plan, self.maximum) {
            (true, _) => LimitChange::FromPlan,
            (false, Some(maximum)) => LimitChange::Maximum(maximum),
            (false, None) => LimitChange::Unlimited,
        };
        let command =
            OrganizationCommand::SetLimit { limit: self.limit.clone(), value, reason: Some(self.reason.clone()) };
        finish(work, standing, command)
    }
}

/// Gives the organization another plan.
#[derive(Debug, Serialize)]
pub struct ChangeOrganizationPlan {
    /// Which organization.
    pub organization: OrganizationId,
    /// The plan.
    pub plan: String,
    /// Why.
    pub reason: String,
}

impl UseCase for ChangeOrganizationPlan {
    const OPERATION: &'static str = "changeOrganizationPlan";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        standing.require_operator(work, &self.reason)?;
        let plans = &work.rules().plans;
        let Some(limits) = plans.get(&self.plan).cloned() else {
            let known: Vec<&str> = plans.keys().map(String::as_str).collect();
            let shown: String = self.plan.chars().take(80).collect();
            return Err(Refusal::input(
                "plan",
                format!("there is no plan {shown:?}: give one of {}", known.join(", ")),
            )
            .into());
        };
        let command =
            OrganizationCommand::ChangePlan { plan: self.plan.clone(), limits, reason: Some(self.reason.clone()) };
        finish(work, standing, command)
    }
}

pub(super) fn finish(work: &mut Work<'_>, standing: Standing, command: OrganizationCommand) -> Result<(), Stop> {
    work.expect_version(standing.organization.version)?;
    let events = own_contact(work, standing.organization.state.decide(command)?)?;
    let after = work.record(&standing.id, &standing.organization, events);
    work.entities = vec![Entity::new(standing.id, after)];
    Ok(())
}

/// A caller's own address as the organization's contact stays the caller's: it goes when they are erased.
fn own_contact(work: &Work<'_>, mut events: Vec<OrganizationEvent>) -> Result<Vec<OrganizationEvent>, Stop> {
    let principal = &work.caller()?.principal;
    let own = principal.email().map(text::email_key);
    for event in &mut events {
        event.visit_personal(&mut |field, personal| {
            if field == "contact_email" && own.is_some() && personal.value().map(text::email_key) == own {
                *personal = personal.clone().owned_by(principal.id());
            }
        });
    }
    Ok(events)
}

/// A slug that is well formed and not reserved by this deployment.
fn organization_slug(work: &Work<'_>, slug: &str) -> Result<String, Refusal> {
    let slug = text::slug("slug", slug)?;
    if work.rules().slug_reserved.contains(&slug) {
        return Err(Refusal::input("slug", format!("the slug {slug:?} is reserved: choose another")));
    }
    Ok(slug)
}
