//! The rules of a deployment.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregates::organization::Limits;

use super::first_organization::FirstOrganization;
use crate::endpoints::Targets;

/// The rules of this deployment that commands go by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether an operator has to approve new users.
    pub approval_required: bool,
    /// Whether an operator has to verify organizations.
    pub verification_required: bool,
    /// What a user without an organization gets.
    pub first_organization: FirstOrganization,
    /// Whether only operators create organizations.
    pub created_by_operators: bool,
    /// How many organizations a user may have created that are there; `None` is no limit. Operators have none.
    pub created_per_user_max: Option<u64>,
    /// Whether a user is a member of one organization at most.
    pub one_per_user: bool,
    /// Slugs that no organization may take.
    pub slug_reserved: Vec<String>,
    /// How long what was deleted can be restored.
    pub restore: chrono::Duration,
    /// How long an invitation is open when nothing else is said, in hours.
    pub invitation_hours_default: i64,
    /// How long an invitation may be open, in hours.
    pub invitation_hours_max: i64,
    /// Whether nothing is done while something in the log is not as the service wrote it.
    pub refuse_on_alarm: bool,
    /// Whether witnesses cosign heads, which exports wait for.
    pub witnessed: bool,
    /// The plan of new organizations.
    pub default_plan: String,
    /// Where webhooks may be sent to.
    pub webhook_targets: Arc<Targets>,
    /// For how many days the access trail is kept.
    pub access_trail_days: i32,
    /// Plans and their limits.
    pub plans: BTreeMap<String, Limits>,
}
