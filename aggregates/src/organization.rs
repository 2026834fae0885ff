//! An organization: its profile, its status on two axes, its plan and limits.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::actor::Actor;
use crate::error::Refusal;
use crate::event::{Field, Kind, shown};
use crate::guard::{Effect, MEMBERS, OWNERS, PROJECTS, Scope, TOKENS, WEBHOOKS};
use crate::ids::{MembershipId, OrganizationId, UserId};
use crate::membership::Membership;
use crate::ownership::OwnershipOffer;
use crate::personal::{Personal, readable};
use crate::roles::{OWN_ROLES_MAX, OwnRole, OwnRoles, Permissions, ROLE_NAMES_MAX, holders_tally, role};
use crate::status::{Lifecycle, Review, Status, Verification};
use crate::{aggregate, text};

/// Maxima by name; `None` is no limit.
pub type Limits = BTreeMap<String, Option<u64>>;

impl Field for Limits {
    const KIND: Kind = Kind { name: "JSON", list: false, nullable: false, hidden: false };
}

/// The limits that an organization may have, and that its plan may set.
pub const LIMITS: [&str; 4] = [MEMBERS, PROJECTS, TOKENS, WEBHOOKS];

/// How many living API tokens an organization may have where neither its plan nor an operator says otherwise.
pub const TOKENS_MAX_DEFAULT: u64 = 100;

/// How many webhook endpoints an organization may have where neither its plan nor an operator says otherwise.
pub const WEBHOOKS_MAX_DEFAULT: u64 = 100;

/// The maximum that the limits of a plan, or those in force, set.
fn maximum_in(limits: &Limits, name: &str) -> Option<u64> {
    let default = match name {
        TOKENS => Some(TOKENS_MAX_DEFAULT),
        WEBHOOKS => Some(WEBHOOKS_MAX_DEFAULT),
        _ => None,
    };
    limits.get(name).copied().unwrap_or(default)
}

/// The most namespaces of settings that an organization may have.
pub const SETTINGS_NAMESPACES_MAX: usize = 32;

crate::events! {
    /// What can happen to an organization.
    pub enum OrganizationEvent {
        /// The organization exists from here on.
        OrgCreated "1.0" {
            /// Its display name.
            name: String,
            /// Its unique short name.
            slug: String,
            /// Where it can be reached.
            contact_email: Option<Personal>,
            /// Its id in the operators' own systems.
            external_id: Option<String>,
            /// Its plan.
            plan: String,
            /// The limits that the plan set.
            limits: Limits,
            /// When it was created.
            created_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The organization has another display name.
        OrgRenamed "1.0" {
            /// The new name.
            name: String,
            /// The name before.
            previous_name: String,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The organization has another slug; the old one is free.
        OrgSlugChanged "1.0" {
            /// The new slug.
            slug: String,
            /// The slug before.
            previous_slug: String,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The organization can be reached elsewhere.
        OrgContactChanged "1.0" {
            /// The new address; none when it was cleared.
            contact_email: Option<Personal>,
            /// The address before.
            previous_contact_email: Option<Personal>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// An operator gave the organization another external id.
        OrgExternalIdChanged "1.0" {
            /// The new id; none when it was cleared.
            external_id: Option<String>,
            /// The id before.
            previous_external_id: Option<String>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// A settings document was written or cleared.
        OrgSettingsUpdated "1.0" {
            /// Which document.
            namespace: String,
            /// The new document; none when it was cleared.
            value: Option<Value>,
            /// The document before.
            previous_value: Option<Value>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The organization asks to be verified.
        OrgSubmitted "1.0" {
            /// The verification status after.
            verification: Verification,
            /// The verification status before.
            previous_verification: Verification,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The organization was approved.
        OrgVerified "1.0" {
            /// The verification status after.
            verification: Verification,
            /// The verification status before.
            previous_verification: Verification,
            /// Why.
            reason: Option<String>,
        }
        /// The organization was turned down.
        OrgRejected "1.0" {
            /// The verification status after.
            verification: Verification,
            /// The verification status before.
            previous_verification: Verification,
            /// Why.
            reason: Option<String>,
        }
        /// The organization was put off.
        OrgWaitlisted "1.0" {
            /// The verification status after.
            verification: Verification,
            /// The verification status before.
            previous_verification: Verification,
            /// Why.
            reason: Option<String>,
        }
        /// The organization was handed back to its owners to be filled in again.
        OrgReopened "1.0" {
            /// The verification status after.
            verification: Verification,
            /// The verification status before.
            previous_verification: Verification,
            /// Why.
            reason: Option<String>,
        }
        /// A verified organization is looked at once more.
        OrgReviewRestarted "1.0" {
            /// The verification status after.
            verification: Verification,
            /// The verification status before.
            previous_verification: Verification,
            /// Why.
            reason: Option<String>,
        }
        /// An operator stopped the organization.
        OrgBlocked "1.0" {
            /// The verification status after.
            verification: Verification,
            /// The verification status before, to which an unblocked organization returns.
            previous_verification: Verification,
            /// Why.
            reason: Option<String>,
        }
        /// An operator lifted the block.
        OrgUnblocked "1.0" {
            /// The verification status after.
            verification: Verification,
            /// The verification status before.
            previous_verification: Verification,
            /// Why.
            reason: Option<String>,
        }
        /// An operator switched the organization off.
        OrgDeactivated "1.0" {
            /// Why.
            reason: Option<String>,
        }
        /// An operator switched the organization on again.
        OrgActivated "1.0" {
            /// Why.
            reason: Option<String>,
        }
        /// The organization was deleted; it can be restored until it is purged.
        OrgDeleted "1.0" {
            /// The lifecycle before, to which a restored organization returns.
            previous_lifecycle: Lifecycle,
            /// When it will be gone for good.
            purge_at: DateTime<Utc>,
            /// Whether an operator deleted it; then only operators restore it.
            by_operator: bool,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The deleted organization is back, as it was.
        OrgRestored "1.0" {
            /// The lifecycle from now on.
            lifecycle: Lifecycle,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The organization is gone for good; its slug and external id are free.
        OrgPurged "1.0" {
            /// The slug that it had.
            slug: String,
            /// The external id that it had.
            external_id: Option<String>,
        }
        /// The time for which the purged organization's trail is kept is over: its events have no content any more.
        OrgPruned "1.0" {
            /// For how many days it was kept after the purge.
            kept_days: u64,
            /// When the organization was created.
            created_at: DateTime<Utc>,
        }
        /// An operator holds on to everything of the organization: nothing of it is purged, and nobody in it erased.
        OrgLegalHoldSet "1.0" {
            /// Since when.
            held_since: DateTime<Utc>,
            /// Why.
            reason: Option<String>,
        }
        /// An operator let go of the organization again.
        OrgLegalHoldReleased "1.0" {
            /// Since when it was held.
            held_since: DateTime<Utc>,
            /// Why.
            reason: Option<String>,
        }
        /// An operator set a limit of this organization, or gave it back to the plan.
        OrgLimitSet "1.0" {
            /// Which limit.
            limit: String,
            /// The maximum in force from now on; none is no limit.
            maximum: Option<u64>,
            /// The maximum before.
            previous_maximum: Option<u64>,
            /// Whether the plan decides it from now on.
            from_plan: bool,
            /// Why.
            reason: Option<String>,
        }
        /// The organization has another plan.
        OrgPlanChanged "1.0" {
            /// The new plan.
            plan: String,
            /// The plan before.
            previous_plan: String,
            /// The limits that the plan set.
            limits: Limits,
            /// The maxima in force from now on: the plan's, but where an operator set another.
            maximums: Limits,
            /// Why.
            reason: Option<String>,
        }
        /// The organization has a role of its own.
        RoleDefined "1.0" {
            /// Its name.
            role: String,
            /// For whom it is.
            description: String,
            /// What it permits.
            permissions: Vec<String>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// A role of the organization's own means something else; also for those who hold it.
        RoleChanged "1.0" {
            /// Its name.
            role: String,
            /// For whom it is.
            description: String,
            /// For whom it was.
            previous_description: String,
            /// What it permits from now on.
            permissions: Vec<String>,
            /// What it permitted before.
            previous_permissions: Vec<String>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// A role of the organization's own is gone; nobody holds it.
        RoleRemoved "1.0" {
            /// Its name.
            role: String,
            /// For whom it was.
            description: String,
            /// What it permitted.
            permissions: Vec<String>,
            /// The role that its holders have instead.
            replaced_with: Option<String>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// Ownership was offered to a member, who has to accept it.
        OwnershipOffered "1.0" {
            /// The recipient's membership.
            membership_id: MembershipId,
            /// The recipient.
            user_id: UserId,
            /// Who offers.
            offered_by: Actor,
            /// When.
            offered_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The recipient accepted: he is an owner, and a user who offered is none any more.
        OwnershipAccepted "1.0" {
            /// The recipient's membership.
            membership_id: MembershipId,
            /// The recipient.
            user_id: UserId,
            /// Who offered.
            offered_by: Actor,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The offer is no more: an owner withdrew it, the recipient declined, or one of both cannot any more.
        OwnershipOfferWithdrawn "1.0" {
            /// The recipient's membership.
            membership_id: MembershipId,
            /// Who would have been the recipient.
            user_id: UserId,
            /// Who offered.
            offered_by: Actor,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// A command was refused because a maximum was reached; recorded once until there is room again.
        LimitReached "1.0" {
            /// Which limit.
            limit: String,
            /// The maximum in force.
            maximum: Option<u64>,
            /// How much was used.
            used: u64,
            /// How much more was asked for.
            requested: u64,
        }
    }
}

impl OrganizationEvent {
    /// Which claims and tallies this event changes.
    pub fn effects(&self) -> Vec<Effect> {
        use OrganizationEvent as E;
        let claim = |scope, key: &String| Effect::Claim { scope, key: key.clone(), until: None };
        let release = |scope, key: &String| Effect::Release { scope, key: key.clone() };
        let maxima = |limits: &Limits| {
            LIMITS.map(|name| Effect::Maximum { name: name.to_owned(), maximum: maximum_in(limits, name) })
        };
        match self {
            E::OrgCreated { slug, external_id, limits, .. } => {
                let mut effects = vec![claim(Scope::OrganizationSlug, slug)];
                effects.extend(external_id.iter().map(|id| claim(Scope::ExternalId, id)));
                effects.extend(maxima(limits));
                effects.push(Effect::Floor { name: OWNERS, floor: 1 });
                effects
            }
            E::OrgSlugChanged { slug, previous_slug, .. } => {
                vec![release(Scope::OrganizationSlug, previous_slug), claim(Scope::OrganizationSlug, slug)]
            }
            E::OrgExternalIdChanged { external_id, previous_external_id, .. } => {
                let before = previous_external_id.iter().map(|id| release(Scope::ExternalId, id));
                before.chain(external_id.iter().map(|id| claim(Scope::ExternalId, id))).collect()
            }
            E::OrgDeleted { .. } => vec![Effect::Floor { name: OWNERS, floor: 0 }],
            E::OrgRestored { .. } => vec![Effect::Floor { name: OWNERS, floor: 1 }],
            E::OrgPurged { slug, external_id } => {
                let slug = std::iter::once(release(Scope::OrganizationSlug, slug));
                slug.chain(external_id.iter().map(|id| release(Scope::ExternalId, id))).collect()
            }
            // What an organization claimed and used goes with its events.
            E::OrgPruned { .. } => vec![],
            E::OrgLimitSet { limit, maximum, .. } => {
                vec![Effect::Maximum { name: limit.clone(), maximum: *maximum }]
            }
            E::OrgPlanChanged { maximums, .. } => maxima(maximums).to_vec(),
            E::LimitReached { limit, .. } => vec![Effect::Reached { name: limit.clone() }],
            E::RoleRemoved { role, .. } => {
                holders_tally(role).map(|name| Effect::Vacant { name }).into_iter().collect()
            }
            E::RoleDefined { .. } | E::RoleChanged { .. } => vec![],
            // Who owns is counted by what the memberships record.
            E::OwnershipOffered { .. } | E::OwnershipAccepted { .. } | E::OwnershipOfferWithdrawn { .. } => vec![],
            E::OrgRenamed { .. }
            | E::OrgContactChanged { .. }
            | E::OrgSettingsUpdated { .. }
            | E::OrgSubmitted { .. }
            | E::OrgVerified { .. }
            | E::OrgRejected { .. }
            | E::OrgWaitlisted { .. }
            | E::OrgReopened { .. }
            | E::OrgReviewRestarted { .. }
            | E::OrgBlocked { .. }
            | E::OrgUnblocked { .. }
            | E::OrgDeactivated { .. }
            | E::OrgActivated { .. }
            | E::OrgLegalHoldSet { .. }
            | E::OrgLegalHoldReleased { .. } => vec![],
        }
    }
}

/// A legal hold: while it stands, the organization is not purged, and nobody of its people is erased.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegalHold {
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

/// What is known of an organization.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Organization {
    /// Whether it was ever created.
    pub exists: bool,
    /// Whether it is gone for good.
    pub purged: bool,
    /// Whether its events before that are gone too.
    pub pruned: bool,
    /// Its display name.
    pub name: String,
    /// Its unique short name.
    pub slug: String,
    /// Where it can be reached.
    pub contact_email: Option<Personal>,
    /// Its id in the operators' own systems.
    pub external_id: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Where it returns to when unblocked.
    pub before_block: Verification,
    /// Where it returns to when restored.
    pub before_deletion: Lifecycle,
    /// The reason of the last step along the verification axis.
    pub verification_reason: Option<String>,
    /// Its plan.
    pub plan: String,
    /// What the plan sets.
    pub plan_limits: Limits,
    /// What operators set instead.
    pub overrides: Limits,
    /// Settings documents by namespace.
    pub settings: BTreeMap<String, Value>,
    /// Roles of its own.
    pub roles: OwnRoles,
    /// Names of roles that it had: one never means two things, for an invitation may still promise it.
    pub removed_roles: BTreeSet<String>,
    /// The open offer of ownership.
    pub ownership_offer: Option<OwnershipOffer>,
    /// When the deleted organization is gone for good.
    pub purge_at: Option<DateTime<Utc>>,
    /// The legal hold that stands.
    pub legal_hold: Option<LegalHold>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// What an operator makes of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitChange {
    /// This maximum.
    Maximum(u64),
    /// No limit.
    Unlimited,
    /// What the plan says.
    FromPlan,
}

/// What can be asked of an organization.
#[derive(Debug, Clone, PartialEq)]
pub enum OrganizationCommand {
    /// Create it.
    Create {
        /// Its id.
        id: OrganizationId,
        /// Its display name.
        name: String,
        /// Its slug.
        slug: String,
        /// Where it can be reached.
        contact_email: Option<String>,
        /// Its id in the operators' own systems.
        external_id: Option<String>,
        /// Its plan.
        plan: String,
        /// The plan's limits.
        limits: Limits,
        /// Why this deployment verifies organizations at creation; `None` where it does not.
        verified_because: Option<String>,
        /// Why it is created.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Change its profile; what is `None` stays.
    Update {
        /// Its id.
        id: OrganizationId,
        /// The display name.
        name: Option<String>,
        /// The slug.
        slug: Option<String>,
        /// The contact address; `Some(None)` clears it.
        contact_email: Option<Option<String>>,
        /// The external id; `Some(None)` clears it.
        external_id: Option<Option<String>>,
        /// Why.
        reason: Option<String>,
    },
    /// Clear the contact address, whose person was erased; also of an organization that is deleted, or it would be back
    /// when that is restored.
    ClearContact,
    /// Write the settings document of a namespace; null or an empty object clears it.
    UpdateSettings {
        /// Which document.
        namespace: String,
        /// The document.
        value: Value,
        /// Why.
        reason: Option<String>,
    },
    /// Move it along the verification axis.
    Review {
        /// Which step.
        review: Review,
        /// Why.
        reason: Option<String>,
    },
    /// Switch it off.
    Deactivate {
        /// Why.
        reason: Option<String>,
    },
    /// Switch it on again.
    Activate {
        /// Why.
        reason: Option<String>,
    },
    /// Delete it.
    Delete {
        /// Why.
        reason: Option<String>,
        /// Whether an operator does it.
        by_operator: bool,
        /// When it will be gone for good.
        purge_at: DateTime<Utc>,
    },
    /// Restore it.
    Restore {
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Let it go for good, once its time has come.
    Purge {
        /// Now.
        at: DateTime<Utc>,
    },
    /// Let its events go too, once the time for which they are kept after the purge is over.
    Prune {
        /// How long that is.
        kept_days: u64,
    },
    /// Hold on to it.
    SetLegalHold {
        /// Why.
        reason: String,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Let go of it.
    ReleaseLegalHold {
        /// Why.
        reason: String,
    },
    /// Set one limit.
    SetLimit {
        /// Which limit.
        limit: String,
        /// To what.
        value: LimitChange,
        /// Why.
        reason: Option<String>,
    },
    /// Define a role of its own, or change it.
    DefineRole {
        /// Its name.
        name: String,
        /// For whom it is.
        description: String,
        /// What it permits.
        permissions: Vec<String>,
        /// What the caller may do himself: the role never exceeds it.
        by: Permissions,
        /// Why.
        reason: Option<String>,
    },
    /// Remove a role of its own, which nobody holds any more when this is recorded.
    RemoveRole {
        /// Its name.
        name: String,
        /// The role that its holders get in the same commit.
        replaced_with: Option<String>,
        /// What the caller may do himself.
        by: Permissions,
        /// Why.
        reason: Option<String>,
    },
    /// Offer ownership to a member.
    OfferOwnership {
        /// The recipient's membership.
        membership: MembershipId,
        /// The recipient.
        recipient: Membership,
        /// Who offers: an owner, or an operator.
        by: Actor,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Accept the offered ownership; the memberships change in the same commit.
    AcceptOwnership {
        /// Who accepts.
        user: UserId,
        /// His membership.
        recipient: Membership,
        /// The membership of the owner who offered, where one did.
        giver: Option<Membership>,
        /// Why.
        reason: Option<String>,
    },
    /// End the offer.
    WithdrawOwnershipOffer {
        /// Why.
        reason: Option<String>,
    },
    /// Give it another plan.
    ChangePlan {
        /// The plan.
        plan: String,
        /// The plan's limits.
        limits: Limits,
        /// Why.
        reason: Option<String>,
    },
}

impl Organization {
    /// Whether it is there: created and not purged.
    pub fn is_present(&self) -> bool {
        self.exists && !self.purged
    }

    /// Whether invitations stay open when whoever made them is removed or leaves. By default they are revoked.
    pub fn keeps_invitations_of_removed_members(&self) -> bool {
        let policies = self.settings.get("policies");
        policies.and_then(|policies| policies.get("invitationsOfRemovedMembers")).is_some_and(|value| value == "keep")
    }

    /// Whether API tokens are revoked when who answers for them is removed or leaves. By default they are kept: what
    /// a service does should not end with somebody's contract.
    pub fn revokes_tokens_of_removed_members(&self) -> bool {
        let policies = self.settings.get("policies");
        policies.and_then(|policies| policies.get("tokensOfRemovedMembers")).is_some_and(|value| value == "revoke")
    }

    /// The maximum in force.
    pub fn maximum(&self, limit: &str) -> Option<u64> {
        self.overrides.get(limit).copied().unwrap_or_else(|| maximum_in(&self.plan_limits, limit))
    }

    /// The events that `command` makes of this state. Whether the status allows the command at all, and whether
    /// the caller may give it, was settled before.
    pub fn decide(&self, command: OrganizationCommand) -> Result<Vec<OrganizationEvent>, Refusal> {
        use OrganizationCommand as C;
        use OrganizationEvent as E;
        if let C::Create { .. } = command {
            return self.create(command);
        }
        if let C::Prune { kept_days } = command {
            return match (self.purged, self.pruned) {
                (true, false) => Ok(vec![E::OrgPruned { kept_days, created_at: self.created_at }]),
                (true, true) => Err(Refusal::InvalidState("the organization's trail is pruned already".into())),
                (false, _) => Err(Refusal::InvalidState("the organization is not purged".into())),
            };
        }
        if !self.is_present() {
            return Err(Refusal::NotFound);
        }
        let deleted = self.status.lifecycle == Lifecycle::Deleted;
        let is_for_deleted = matches!(
            command,
            C::ClearContact | C::Restore { .. } | C::Purge { .. } | C::SetLegalHold { .. } | C::ReleaseLegalHold { .. }
        );
        if deleted && !is_for_deleted {
            return Err(Refusal::InvalidState("the organization is deleted: restore it first".into()));
        }
        match command {
            C::Create { .. } | C::Prune { .. } => unreachable!("answered above"),
            C::Update { id, name, slug, contact_email, external_id, reason } => {
                let reason = text::reason("reason", reason.as_deref())?;
                self.update(&id, name, slug, contact_email, external_id, reason)
            }
            C::ClearContact => {
                let previous_contact_email = self.contact_email.clone();
                let cleared = E::OrgContactChanged { contact_email: None, previous_contact_email, reason: None };
                Ok(self.contact_email.is_some().then_some(cleared).into_iter().collect())
            }
            C::UpdateSettings { namespace, value, reason } => {
                self.update_settings(&namespace, value, reason.as_deref())
            }
            C::Review { review, reason } => self.review(review, reason.as_deref()),
            C::Deactivate { reason } => match self.status.lifecycle {
                Lifecycle::Active => Ok(vec![E::OrgDeactivated { reason: text::reason("reason", reason.as_deref())? }]),
                _ => Err(Refusal::InvalidState("the organization is not ACTIVE".into())),
            },
            C::Activate { reason } => match self.status.lifecycle {
                Lifecycle::Inactive => Ok(vec![E::OrgActivated { reason: text::reason("reason", reason.as_deref())? }]),
                _ => Err(Refusal::InvalidState("the organization is not INACTIVE".into())),
            },
            C::Delete { reason, by_operator, purge_at } => {
                let reason = text::reason("reason", reason.as_deref())?;
                let previous_lifecycle = self.status.lifecycle;
                Ok(vec![E::OrgDeleted { previous_lifecycle, purge_at, by_operator, reason }])
            }
            C::Restore { at, .. } if deleted && self.purge_at.is_some_and(|purge_at| purge_at <= at) => {
                Err(Refusal::InvalidState("the time in which the organization could be restored is over".into()))
            }
            C::Restore { reason, .. } if deleted => Ok(vec![E::OrgRestored {
                lifecycle: self.before_deletion,
                reason: text::reason("reason", reason.as_deref())?,
            }]),
            C::Restore { .. } => Err(Refusal::InvalidState("the organization is not deleted".into())),
            C::Purge { .. } if self.legal_hold.is_some() => {
                Err(Refusal::InvalidState("the organization is under legal hold".into()))
            }
            C::Purge { at } if deleted && self.purge_at.is_some_and(|purge_at| purge_at <= at) => {
                Ok(vec![E::OrgPurged { slug: self.slug.clone(), external_id: self.external_id.clone() }])
            }
            C::Purge { .. } => Err(Refusal::InvalidState("the organization's time has not come".into())),
            C::SetLegalHold { reason, at } => match &self.legal_hold {
                None => Ok(vec![E::OrgLegalHoldSet { held_since: at, reason: text::reason("reason", Some(&reason))? }]),
                Some(_) => {
                    let message = "the organization is under legal hold already: release that one first";
                    Err(Refusal::InvalidState(message.into()))
                }
            },
            C::ReleaseLegalHold { reason } => match &self.legal_hold {
                Some(hold) => Ok(vec![E::OrgLegalHoldReleased {
                    held_since: hold.since,
                    reason: text::reason("reason", Some(&reason))?,
                }]),
                None => Err(Refusal::InvalidState("the organization is not under legal hold".into())),
            },
            C::DefineRole { name, description, permissions, by, reason } => {
                let reason = text::reason("reason", reason.as_deref())?;
                self.define_role(&name, &description, &permissions, by, reason)
            }
            C::RemoveRole { name, replaced_with, by, reason } => {
                let reason = text::reason("reason", reason.as_deref())?;
                self.remove_role(&name, replaced_with, by, reason)
            }
            C::OfferOwnership { membership, recipient, by, reason, at } => {
                self.offer_ownership(membership, &recipient, by, reason.as_deref(), at)
            }
            C::AcceptOwnership { user, recipient, giver, reason } => {
                self.accept_ownership(&user, &recipient, giver.as_ref(), reason.as_deref())
            }
            C::WithdrawOwnershipOffer { reason } => self.withdraw_ownership_offer(reason.as_deref()),
            C::SetLimit { limit, value, reason } => self.set_limit(limit, value, reason.as_deref()),
            C::ChangePlan { plan, limits, reason } => {
                let reason = text::reason("reason", reason.as_deref())?;
                if plan == self.plan && limits == self.plan_limits {
                    return Ok(vec![]);
                }
                let in_force =
                    |name: &str| self.overrides.get(name).copied().unwrap_or_else(|| maximum_in(&limits, name));
                let maximums = LIMITS.iter().map(|name| ((*name).to_owned(), in_force(name))).collect();
                Ok(vec![E::OrgPlanChanged { plan, previous_plan: self.plan.clone(), limits, maximums, reason }])
            }
        }
    }

    fn create(&self, command: OrganizationCommand) -> Result<Vec<OrganizationEvent>, Refusal> {
        let OrganizationCommand::Create {
            id,
            name,
            slug,
            contact_email,
            external_id,
            plan,
            limits,
            verified_because,
            reason,
            at,
        } = command
        else {
            unreachable!("called for Create only");
        };
        if self.exists {
            return Err(Refusal::AlreadyExists {
                path: "slug",
                message: "this organization exists already".into(),
                existing: id.to_string(),
            });
        }
        let mut events = vec![OrganizationEvent::OrgCreated {
            name: text::name("name", &name)?,
            slug: text::slug("slug", &slug)?,
            contact_email: contact(&id, contact_email.as_deref())?,
            external_id: external_id.as_deref().map(text::external_id).transpose()?,
            plan,
            limits,
            created_at: at,
            reason: text::reason("reason", reason.as_deref())?,
        }];
        if let Some(reason) = verified_because {
            events.push(OrganizationEvent::OrgVerified {
                verification: Verification::Verified,
                previous_verification: Verification::InSetup,
                reason: Some(reason),
            });
        }
        Ok(events)
    }

    fn update(
        &self,
        id: &OrganizationId,
        name: Option<String>,
        slug: Option<String>,
        contact_email: Option<Option<String>>,
        external_id: Option<Option<String>>,
        reason: Option<String>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        use OrganizationEvent as E;
        let mut events = vec![];
        if let Some(name) = name.map(|name| text::name("name", &name)).transpose()?.filter(|name| *name != self.name) {
            events.push(E::OrgRenamed { name, previous_name: self.name.clone(), reason: reason.clone() });
        }
        if let Some(slug) = slug.map(|slug| text::slug("slug", &slug)).transpose()?.filter(|slug| *slug != self.slug) {
            events.push(E::OrgSlugChanged { slug, previous_slug: self.slug.clone(), reason: reason.clone() });
        }
        if let Some(address) = contact_email {
            let contact_email = contact(id, address.as_deref())?;
            // An address whose person was erased is there, and can only be cleared.
            let is_there = contact_email.is_some() != self.contact_email.is_some();
            if is_there || readable(&contact_email) != readable(&self.contact_email) {
                events.push(E::OrgContactChanged {
                    contact_email,
                    previous_contact_email: self.contact_email.clone(),
                    reason: reason.clone(),
                });
            }
        }
        if let Some(external_id) = external_id {
            let external_id = external_id.as_deref().map(text::external_id).transpose()?;
            if external_id != self.external_id {
                events.push(E::OrgExternalIdChanged {
                    external_id,
                    previous_external_id: self.external_id.clone(),
                    reason,
                });
            }
        }
        Ok(events)
    }

    fn update_settings(
        &self,
        namespace: &str,
        value: Value,
        reason: Option<&str>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let namespace = text::slug("namespace", namespace)?;
        text::json("value", &value, text::SETTINGS_BYTES_MAX)?;
        let reason = text::reason("reason", reason)?;
        // GraphQL's `JSON!` takes no null, so the empty object clears as well.
        let value =
            Some(value).filter(|value| !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty()));
        let previous_value = self.settings.get(&namespace).cloned();
        if value.is_some() && previous_value.is_none() && self.settings.len() >= SETTINGS_NAMESPACES_MAX {
            let message =
                format!("there are {SETTINGS_NAMESPACES_MAX} namespaces of settings already: clear one first");
            return Err(Refusal::input("namespace", message));
        }
        if value == previous_value {
            return Ok(vec![]);
        }
        Ok(vec![OrganizationEvent::OrgSettingsUpdated { namespace, value, previous_value, reason }])
    }

    fn review(&self, review: Review, reason: Option<&str>) -> Result<Vec<OrganizationEvent>, Refusal> {
        use OrganizationEvent as E;
        let reason = text::reason("reason", reason)?;
        let previous_verification = self.status.verification;
        let Some(verification) = review.leads(previous_verification, self.before_block) else {
            return Err(Refusal::InvalidState(format!(
                "the organization is {}, from where this does not lead on",
                shown(previous_verification)
            )));
        };
        Ok(vec![match review {
            Review::Submit => E::OrgSubmitted { verification, previous_verification, reason },
            Review::Verify => E::OrgVerified { verification, previous_verification, reason },
            Review::Reject => E::OrgRejected { verification, previous_verification, reason },
            Review::Waitlist => E::OrgWaitlisted { verification, previous_verification, reason },
            Review::Reopen => E::OrgReopened { verification, previous_verification, reason },
            Review::ReviewAgain => E::OrgReviewRestarted { verification, previous_verification, reason },
            Review::Block => E::OrgBlocked { verification, previous_verification, reason },
            Review::Unblock => E::OrgUnblocked { verification, previous_verification, reason },
        }])
    }

    fn define_role(
        &self,
        name: &str,
        description: &str,
        permissions: &[String],
        by: Permissions,
        reason: Option<String>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let name = text::role_name("name", name)?;
        if role(&name).is_some() {
            let message = format!("the role {name:?} is built in and means the same everywhere: choose another name");
            return Err(Refusal::input("name", message));
        }
        if self.removed_roles.contains(&name) {
            let message = format!("there was a role {name:?} that meant something else: choose another name");
            return Err(Refusal::input("name", message));
        }
        let description = text::description("description", description)?;
        let wanted = Permissions::named(permissions)?;
        let before = self.roles.0.get(&name);
        if !wanted.is_subset(by) {
            let message = format!("the role '{name}' would permit more than you may do yourself");
            return Err(Refusal::RoleNotGrantable(message));
        }
        may_end(&name, before, by)?;
        let permissions = wanted.names();
        match before {
            None if self.roles.0.len() >= OWN_ROLES_MAX => {
                let message = format!("there are {OWN_ROLES_MAX} roles of its own already: remove one first");
                Err(Refusal::input("name", message))
            }
            None if self.roles.0.len() + self.removed_roles.len() >= ROLE_NAMES_MAX => {
                let message = format!("{ROLE_NAMES_MAX} names of roles were used already: change a role instead");
                Err(Refusal::input("name", message))
            }
            None => Ok(vec![OrganizationEvent::RoleDefined { role: name, description, permissions, reason }]),
            Some(before) if before.description == description && before.permissions == permissions => Ok(vec![]),
            Some(before) => Ok(vec![OrganizationEvent::RoleChanged {
                role: name,
                description,
                previous_description: before.description.clone(),
                permissions,
                previous_permissions: before.permissions.clone(),
                reason,
            }]),
        }
    }

    fn remove_role(
        &self,
        name: &str,
        replaced_with: Option<String>,
        by: Permissions,
        reason: Option<String>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        let Some(own) = self.roles.0.get(name) else {
            let shown: String = name.chars().take(80).collect();
            let message = if role(name).is_some() {
                format!("the role {shown:?} is built in: only an organization's own roles can be removed")
            } else {
                format!("there is no role {shown:?} of its own")
            };
            return Err(Refusal::input("name", message));
        };
        may_end(name, Some(own), by)?;
        let OwnRole { description, permissions } = own.clone();
        Ok(vec![OrganizationEvent::RoleRemoved {
            role: name.to_owned(),
            description,
            permissions,
            replaced_with,
            reason,
        }])
    }

    fn set_limit(
        &self,
        limit: String,
        value: LimitChange,
        reason: Option<&str>,
    ) -> Result<Vec<OrganizationEvent>, Refusal> {
        if !LIMITS.contains(&limit.as_str()) {
            return Err(Refusal::input(
                "limit",
                format!(
                    "there is no limit {:?}: give one of {}",
                    limit.chars().take(80).collect::<String>(),
                    LIMITS.join(", ")
                ),
            ));
        }
        let (maximum, from_plan) = match value {
            LimitChange::Maximum(maximum) => (Some(maximum), false),
            LimitChange::Unlimited => (None, false),
            LimitChange::FromPlan => (maximum_in(&self.plan_limits, &limit), true),
        };
        let previous_maximum = self.maximum(&limit);
        let reason = text::reason("reason", reason)?;
        if maximum == previous_maximum && from_plan != self.overrides.contains_key(&limit) {
            return Ok(vec![]);
        }
        Ok(vec![OrganizationEvent::OrgLimitSet { limit, maximum, previous_maximum, from_plan, reason }])
    }

    fn apply(&mut self, event: OrganizationEvent) {
        use OrganizationEvent as E;
        match event {
            E::OrgCreated { name, slug, contact_email, external_id, plan, limits, created_at, reason: _ } => {
                *self = Self {
                    exists: true,
                    name,
                    slug,
                    contact_email,
                    external_id,
                    plan,
                    plan_limits: limits,
                    created_at,
                    ..Self::default()
                };
            }
            E::RoleDefined { role, description, permissions, .. }
            | E::RoleChanged { role, description, permissions, .. } => {
                self.roles.0.insert(role, OwnRole { description, permissions });
            }
            E::RoleRemoved { role, .. } => {
                self.roles.0.remove(&role);
                self.removed_roles.insert(role);
            }
            E::OwnershipOffered { membership_id, user_id, offered_by, offered_at, .. } => {
                self.ownership_offer = Some(OwnershipOffer { membership_id, user_id, offered_by, offered_at });
            }
            E::OwnershipAccepted { .. } | E::OwnershipOfferWithdrawn { .. } => self.ownership_offer = None,
            E::OrgRenamed { name, .. } => self.name = name,
            E::OrgSlugChanged { slug, .. } => self.slug = slug,
            E::OrgContactChanged { contact_email, .. } => self.contact_email = contact_email,
            E::OrgExternalIdChanged { external_id, .. } => self.external_id = external_id,
            E::OrgSettingsUpdated { namespace, value: Some(value), .. } => {
                self.settings.insert(namespace, value);
            }
            E::OrgSettingsUpdated { namespace, value: None, .. } => {
                self.settings.remove(&namespace);
            }
            E::OrgBlocked { verification, previous_verification, reason } => {
                self.before_block = previous_verification;
                self.verified_as(verification, reason);
            }
            E::OrgSubmitted { verification, reason, .. }
            | E::OrgVerified { verification, reason, .. }
            | E::OrgRejected { verification, reason, .. }
            | E::OrgWaitlisted { verification, reason, .. }
            | E::OrgReopened { verification, reason, .. }
            | E::OrgReviewRestarted { verification, reason, .. }
            | E::OrgUnblocked { verification, reason, .. } => self.verified_as(verification, reason),
            E::OrgDeactivated { .. } => self.status.lifecycle = Lifecycle::Inactive,
            E::OrgActivated { .. } => self.status.lifecycle = Lifecycle::Active,
            E::OrgDeleted { previous_lifecycle, purge_at, by_operator, .. } => {
                self.before_deletion = previous_lifecycle;
                self.status.lifecycle = Lifecycle::Deleted;
                self.status.deleted_by_operator = by_operator;
                self.purge_at = Some(purge_at);
            }
            E::OrgRestored { lifecycle, .. } => {
                self.status.lifecycle = lifecycle;
                self.status.deleted_by_operator = false;
                self.purge_at = None;
            }
            E::OrgPurged { slug, external_id } => {
                self.purged = true;
                (self.slug, self.external_id) = (slug, external_id);
                (self.contact_email, self.verification_reason, self.ownership_offer) = (None, None, None);
                self.settings.clear();
            }
            // The same whether it follows what was, or what is left of it.
            E::OrgPruned { created_at, .. } => {
                let (slug, external_id) = (std::mem::take(&mut self.slug), self.external_id.take());
                *self =
                    Self { exists: true, purged: true, pruned: true, slug, external_id, created_at, ..Self::default() };
                self.status.lifecycle = Lifecycle::Deleted;
            }
            E::OrgLegalHoldSet { held_since, reason } => {
                self.legal_hold = Some(LegalHold { since: held_since, reason: reason.unwrap_or_default() });
            }
            E::OrgLegalHoldReleased { .. } => self.legal_hold = None,
            E::OrgLimitSet { limit, from_plan: true, .. } => {
                self.overrides.remove(&limit);
            }
            E::OrgLimitSet { limit, maximum, from_plan: false, .. } => {
                self.overrides.insert(limit, maximum);
            }
            E::OrgPlanChanged { plan, limits, .. } => {
                self.plan = plan;
                self.plan_limits = limits;
            }
            E::LimitReached { .. } => {}
        }
    }

    fn verified_as(&mut self, verification: Verification, reason: Option<String>) {
        self.status.verification = verification;
        self.status.once_verified |= verification == Verification::Verified;
        self.verification_reason = reason;
    }
}

fn contact(id: &OrganizationId, address: Option<&str>) -> Result<Option<Personal>, Refusal> {
    let address = address.map(|address| text::email("contactEmail", address)).transpose()?;
    Ok(address.map(|address| Personal::new(id.as_ref(), address)))
}

/// Who could not grant a role cannot take it from others either.
fn may_end(name: &str, before: Option<&OwnRole>, by: Permissions) -> Result<(), Refusal> {
    match before {
        Some(before) if !Permissions::of_names(&before.permissions).is_subset(by) => {
            Err(Refusal::RoleNotGrantable(format!("the role '{name}' permits more than you may do yourself")))
        }
        _ => Ok(()),
    }
}

aggregate!(Organization, "Organization", OrganizationCommand, OrganizationEvent, shape 5, personal [contact_email]);
