//! Rules that span streams, said by the events themselves.
//!
//! *Claims* are unique: one (scope, key) has one holder. *Tallies* count, between a floor and a maximum. Each
//! event says by a pure function which of them it changes; the log enforces them when it appends, and both can be
//! rebuilt from the log and checked against it.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Among what a claimed key is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Slugs of organizations.
    OrganizationSlug,
    /// Ids of organizations in the operators' own systems.
    ExternalId,
    /// (issuer, subject) of users, by keyed hash.
    Identity,
    /// Open invitations of one organization, by keyed hash of the address.
    OpenInvitation,
    /// Slugs of one organization's live projects.
    ProjectSlug,
    /// Users whom one membership binds: where the deployment allows one organization a user.
    Home,
    /// Secrets of living API tokens, by keyed hash.
    ApiToken,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::OrganizationSlug,
        Self::ExternalId,
        Self::Identity,
        Self::OpenInvitation,
        Self::ProjectSlug,
        Self::Home,
        Self::ApiToken,
    ];

    /// The one of this stored name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    /// The stored name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrganizationSlug => "organization_slug",
            Self::ExternalId => "external_id",
            Self::Identity => "identity",
            Self::OpenInvitation => "open_invitation",
            Self::ProjectSlug => "project_slug",
            Self::Home => "home",
            Self::ApiToken => "api_token",
        }
    }

    /// Whether keys are unique over all organizations, not within one. Such keys are locked beside the partition.
    pub const fn is_global(self) -> bool {
        match self {
            Self::OrganizationSlug | Self::ExternalId | Self::Identity | Self::Home | Self::ApiToken => true,
            Self::OpenInvitation | Self::ProjectSlug => false,
        }
    }
}

/// Active members and open invitations.
pub const MEMBERS: &str = "members";
/// Live projects.
pub const PROJECTS: &str = "projects";
/// Living API tokens.
pub const TOKENS: &str = "tokens";
/// Webhook endpoints.
pub const WEBHOOKS: &str = "webhooks";
/// Active owners.
pub const OWNERS: &str = "owners";

/// A change to a claim or a tally, made by an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The event's stream holds the key from now on.
    Claim {
        /// Among what it is unique.
        scope: Scope,
        /// The key.
        key: String,
        /// When the claim has run out: not released by itself, but may be swept.
        until: Option<DateTime<Utc>>,
    },
    /// Nobody holds the key any more.
    Release {
        /// Among what it was unique.
        scope: Scope,
        /// The key.
        key: String,
    },
    /// So many more (or less) are used.
    Tally {
        /// What is counted.
        name: Cow<'static, str>,
        /// The change.
        by: i64,
    },
    /// A new maximum; `None` is no limit.
    Maximum {
        /// What is counted.
        name: String,
        /// The maximum.
        maximum: Option<u64>,
    },
    /// A new floor.
    Floor {
        /// What is counted.
        name: &'static str,
        /// The floor.
        floor: u64,
    },
    /// It is on record that the maximum was reached.
    Reached {
        /// What is counted.
        name: String,
    },
    /// Nothing of it may be used when this is recorded, all changes of the same command counted.
    Vacant {
        /// What is counted.
        name: String,
    },
}

impl Effect {
    /// One more or less of `name`.
    pub fn tally(name: impl Into<Cow<'static, str>>, by: i64) -> Self {
        Self::Tally { name: name.into(), by }
    }
}
