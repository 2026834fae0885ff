//! The state of everything as the checker understands the events: written from the description of the domain, not
//! from its code.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde_json::Value;

/// What is counted of an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Active members and open invitations.
    pub members: i64,
    /// Live projects.
    pub projects: i64,
    /// Active owners.
    pub owners: i64,
    /// Webhook endpoints.
    pub webhooks: i64,
}

/// A webhook endpoint.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    pub organization: String,
    /// Where to, without the host.
    pub path: String,
    pub in_order: bool,
    pub enabled: bool,
    pub deleted: bool,
    /// Its organization's audit sequence when it was created.
    pub created: i64,
    pub version: i64,
}

/// A limit of an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// The maximum in force.
    pub maximum: Option<i64>,
    /// Whether it stands in the log that it was reached, since there was last room.
    pub reached: bool,
}

/// An organization.
#[derive(Debug, Clone, Default)]
pub struct Organization {
    /// Created.
    pub exists: bool,
    /// Gone for good.
    pub purged: bool,
    pub name: String,
    pub slug: String,
    pub external_id: Option<String>,
    pub verification: String,
    pub verification_reason: Option<String>,
    pub before_block: String,
    pub once_verified: bool,
    pub lifecycle: String,
    pub before_deletion: String,
    pub deleted_by_operator: bool,
    pub purge_at: Option<DateTime<Utc>>,
    pub plan: String,
    pub plan_limits: BTreeMap<String, Option<i64>>,
    pub overrides: BTreeMap<String, Option<i64>>,
    pub settings: BTreeMap<String, (Value, i64)>,
    pub members_limit: Limit,
    pub projects_limit: Limit,
    pub used: Used,
    pub owners_floor: i64,
    pub created_at: Option<DateTime<Utc>>,
    pub version: i64,
    pub partition: i16,
    /// The last event of anything in it.
    pub offset: i64,
}

impl Organization {
    /// The limit of this name.
    pub fn limit(&self, name: &str) -> Option<&Limit> {
        match name {
            "members" => Some(&self.members_limit),
            "projects" => Some(&self.projects_limit),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn limit_mut(&mut self, name: &str) -> Option<&mut Limit> {
        match name {
            "members" => Some(&mut self.members_limit),
            "projects" => Some(&mut self.projects_limit),
            _ => None,
        }
    }
}

/// A membership.
#[derive(Debug, Clone, Default)]
pub struct Member {
    pub organization: String,
    pub user: String,
    pub roles: Vec<String>,
    pub state: String,
    pub source: String,
    pub joined_at: Option<DateTime<Utc>>,
    pub created_at: Option<DateTime<Utc>>,
    /// The offset at which it ended last.
    pub ended: Option<i64>,
    pub version: i64,
    pub partition: i16,
    pub offset: i64,
}

impl Member {
    /// Whether in.
    pub fn is_active(&self) -> bool {
        self.state == "ACTIVE"
    }

    /// Whether in, with one of these roles.
    pub fn is_any(&self, roles: &[&str]) -> bool {
        self.is_active() && self.roles.iter().any(|role| roles.contains(&role.as_str()))
    }
}

/// An invitation.
#[derive(Debug, Clone, Default)]
pub struct Invitation {
    pub organization: String,
    pub address: String,
    pub roles: Vec<String>,
    pub state: String,
    pub invited_by: String,
    /// The offset at which it was made.
    pub made: i64,
    pub accepted_by: Option<String>,
    pub expires_at: Option<DateTime<Utc>>,
    pub created_at: Option<DateTime<Utc>>,
    pub version: i64,
    pub partition: i16,
    pub offset: i64,
}

/// A project.
#[derive(Debug, Clone, Default)]
pub struct Project {
    pub organization: String,
    pub slug: String,
    pub name: String,
    pub metadata: Value,
    pub state: String,
    pub before_deletion: String,
    pub purge_at: Option<DateTime<Utc>>,
    pub purged: bool,
    pub created_at: Option<DateTime<Utc>>,
    pub version: i64,
    pub partition: i16,
    pub offset: i64,
}

/// A user.
#[derive(Debug, Clone, Default)]
pub struct User {
    pub created_at: Option<DateTime<Utc>>,
    pub version: i64,
    pub partition: i16,
    pub offset: i64,
}

/// A key that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub holder: String,
    pub organization: Option<String>,
    pub partition: i16,
    pub until: Option<DateTime<Utc>>,
}

/// A claim or a release of a key that is unique over all partitions.
#[derive(Debug, Clone)]
pub struct GlobalChange {
    pub transaction: i64,
    pub partition: i16,
    /// Where, for messages.
    pub place: String,
    pub scope: &'static str,
    pub key: String,
    /// The new claim; none is a release.
    pub claim: Option<Claim>,
    /// Who claims or releases.
    pub holder: String,
}

/// What a list would show of something at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Face {
    pub state: String,
    pub more: String,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Model {
    pub organizations: BTreeMap<String, Organization>,
    pub members: BTreeMap<String, Member>,
    pub invitations: BTreeMap<String, Invitation>,
    pub projects: BTreeMap<String, Project>,
    pub users: BTreeMap<String, User>,
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Claims by scope and key, as the database writes them.
    pub claims: BTreeMap<(String, String), Claim>,
    pub global_changes: Vec<GlobalChange>,
    /// By organization and user.
    pub membership_of: HashMap<(String, String), String>,
    /// What was to be seen of each stream at each version, from 1.
    pub faces: HashMap<String, Vec<Face>>,
    /// The last offset of each partition.
    pub heads: BTreeMap<i16, i64>,
}
