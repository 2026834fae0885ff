//! What happens to an organization, and which claims and tallies each event changes.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Limits, Organization, maximum_in};
use crate::actor::Actor;
use crate::guard::{Effect, OWNERS};
use crate::ids::{MembershipId, UserId};
use crate::personal::Personal;
use crate::resource::{self, Limit};
use crate::roles::holders_tally;
use crate::status::{Lifecycle, Verification};

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
            /// The actor who offers.
            offered_by: Actor,
            /// When.
            offered_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The recipient accepted: they are an owner, and a user who offered is none any more.
        OwnershipAccepted "1.0" {
            /// The recipient's membership.
            membership_id: MembershipId,
            /// The recipient.
            user_id: UserId,
            /// The actor who offered.
            offered_by: Actor,
            /// Why, where a reason was given.
            reason: Option<Personal>,
        }
        /// The offer is no more: an owner withdrew it, the recipient declined, or one of both cannot any more.
        OwnershipOfferWithdrawn "1.0" {
            /// The recipient's membership.
            membership_id: MembershipId,
            /// The user who would have been the recipient.
            user_id: UserId,
            /// The actor who offered.
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
            let maximum =
                |limit: Limit| Effect::Maximum { name: limit.name.to_owned(), maximum: maximum_in(limits, limit) };
            resource::limits().map(maximum).collect::<Vec<_>>()
        };
        match self {
            E::OrgCreated { slug, external_id, limits, .. } => {
                let mut effects = vec![claim(Organization::SLUG, slug)];
                effects.extend(external_id.iter().map(|id| claim(Organization::EXTERNAL_ID, id)));
                effects.extend(maxima(limits));
                effects.push(Effect::Floor { name: OWNERS, floor: 1 });
                effects
            }
            E::OrgSlugChanged { slug, previous_slug, .. } => {
                vec![release(Organization::SLUG, previous_slug), claim(Organization::SLUG, slug)]
            }
            E::OrgExternalIdChanged { external_id, previous_external_id, .. } => {
                let before = previous_external_id.iter().map(|id| release(Organization::EXTERNAL_ID, id));
                before.chain(external_id.iter().map(|id| claim(Organization::EXTERNAL_ID, id))).collect()
            }
            E::OrgDeleted { .. } => vec![Effect::Floor { name: OWNERS, floor: 0 }],
            E::OrgRestored { .. } => vec![Effect::Floor { name: OWNERS, floor: 1 }],
            E::OrgPurged { slug, external_id } => {
                let slug = std::iter::once(release(Organization::SLUG, slug));
                slug.chain(external_id.iter().map(|id| release(Organization::EXTERNAL_ID, id))).collect()
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
            // Owners are counted by what the memberships record.
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
