//! An organization: its profile, its status on two axes, its plan and limits. What happens to it stands in `events`, its
//! state and commands here, what is made of them in `decide`.

mod decide;
mod events;
mod policies;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::actor::Actor;
use crate::aggregate;
use crate::event::{Field, Kind};
use crate::guard::{Scope, Taken};
use crate::ids::{MembershipId, OrganizationId, UserId};
use crate::membership::Membership;
use crate::ownership::OwnershipOffer;
use crate::personal::Personal;
use crate::resource::{Change, Limit, Place, Resource};
use crate::roles::{OwnRole, OwnRoles, Permissions};
use crate::status::{Lifecycle, Review, Status, Verification};

pub use events::OrganizationEvent;

/// Maxima by name; `None` is no limit.
pub type Limits = BTreeMap<String, Option<u64>>;

impl Field for Limits {
    const KIND: Kind = Kind { name: "JSON", list: false, nullable: false, hidden: false };
}

/// The maximum that the limits of a plan, or those in force, set.
fn maximum_in(limits: &Limits, limit: Limit) -> Option<u64> {
    limits.get(limit.name).copied().unwrap_or(limit.maximum_default)
}

/// The most namespaces of settings that an organization may have.
pub const SETTINGS_NAMESPACES_MAX: usize = 32;

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
        /// What the caller may do: the role never exceeds it.
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
        /// What the caller may do.
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
        /// The actor who offers: an owner, or an operator.
        by: Actor,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Accept the offered ownership; the memberships change in the same commit.
    AcceptOwnership {
        /// The user who accepts.
        user: UserId,
        /// The membership of that user.
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
    /// Slugs of organizations.
    pub const SLUG: Scope =
        Scope::global("organization_slug", Taken::Exists("slug", "this slug is taken: choose another"));
    /// Ids of organizations in the operators' own systems.
    pub const EXTERNAL_ID: Scope =
        Scope::global("external_id", Taken::Exists("externalId", "another organization has this external id"));

    /// Whether it is there: created and not purged.
    pub fn is_present(&self) -> bool {
        self.exists && !self.purged
    }

    /// The maximum in force.
    pub fn maximum(&self, limit: Limit) -> Option<u64> {
        self.overrides.get(limit.name).copied().unwrap_or_else(|| maximum_in(&self.plan_limits, limit))
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

impl Resource for Organization {
    const PLACE: Place = Place::Organization;
    const LIMIT: Option<Limit> = None;
    const CLAIMS: &'static [Scope] = &[Self::SLUG, Self::EXTERNAL_ID];
    const HAS_KEY: bool = true;
    const DECIDES_ACCESS: bool = true;
    const HEADING: Option<&'static str> = None;

    fn destroys_key(event: &OrganizationEvent) -> bool {
        matches!(event, OrganizationEvent::OrgPurged { .. })
    }

    fn expiry(_: DateTime<Utc>) -> Option<OrganizationCommand> {
        None
    }

    fn purge(at: DateTime<Utc>) -> Option<OrganizationCommand> {
        Some(OrganizationCommand::Purge { at })
    }

    fn change(event: &OrganizationEvent) -> Change {
        use Change as C;
        use OrganizationEvent as E;
        match event {
            E::RoleDefined { .. } => C::Other("Define Role"),
            E::RoleChanged { .. } => C::Other("Change Role"),
            E::RoleRemoved { .. } => C::Other("Remove Role"),
            E::OrgCreated { .. } => C::Create,
            E::OrgRenamed { .. }
            | E::OrgSlugChanged { .. }
            | E::OrgContactChanged { .. }
            | E::OrgExternalIdChanged { .. }
            | E::OrgSettingsUpdated { .. }
            | E::OrgSubmitted { .. }
            | E::OrgVerified { .. }
            | E::OrgRejected { .. }
            | E::OrgWaitlisted { .. }
            | E::OrgReopened { .. }
            | E::OrgReviewRestarted { .. }
            | E::OrgLegalHoldSet { .. }
            | E::OrgLegalHoldReleased { .. }
            | E::OrgLimitSet { .. }
            | E::OrgPlanChanged { .. } => C::Update,
            E::OrgBlocked { .. } => C::Suspend,
            E::OrgUnblocked { .. } => C::Resume,
            E::OrgDeactivated { .. } => C::Deactivate,
            E::OrgActivated { .. } => C::Activate,
            E::OrgDeleted { .. } | E::OrgPurged { .. } => C::Delete,
            E::OrgPruned { .. } => C::Other("Prune"),
            E::OrgRestored { .. } => C::Other("Restore"),
            E::OwnershipOffered { .. } => C::Other("Offer Ownership"),
            E::OwnershipAccepted { .. } => C::Other("Transfer Ownership"),
            E::OwnershipOfferWithdrawn { .. } => C::Other("Withdraw Ownership Offer"),
            E::LimitReached { .. } => C::Other("Refuse"),
        }
    }

    fn is_gone(&self) -> bool {
        self.purged
    }

    fn facts(&self, _: DateTime<Utc>) -> Vec<(&'static str, String)> {
        vec![]
    }

    fn document_bytes(&self) -> usize {
        self.settings.values().map(|value| value.to_string().len()).sum()
    }
}

aggregate!(Organization, "Organization", OrganizationCommand, OrganizationEvent, shape 5, personal [contact_email]);
