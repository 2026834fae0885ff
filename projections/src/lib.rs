//! From events to read models.
//!
//! A projection has a name, a version, tables and `apply`. Its rows and its checkpoint change in one transaction,
//! so each event has its effect exactly once. Each version has a database schema of its own, and statements name
//! tables without schema: the connection's search path decides ([`search_path`]).
//!
//! What is always so:
//! - no command reads a read model;
//! - a row carries the offset of the last event that it shows, and an event is not applied to a row that shows it;
//! - a batch may be split anywhere, and applied again, without a difference;
//! - an event that cannot be applied keeps back its own stream and nothing else.

mod api_tokens;
mod audit;
mod checkpoints;
mod fold;
mod invitations;
mod members;
mod organizations;
mod parked;
mod projects;
pub mod rebuild;
mod runtime;
mod source;
mod status;
mod tables;
mod users;
mod verify;
mod webhooks;

use aggregates::organization::OrganizationEvent;
use aggregates::{Event, Recorded};
use sqlx::PgConnection;

use fold::Outbox;

pub use audit::{Forgotten, Term, actor_id, forget_terms};
pub use checkpoints::{Reach, complete, reached};
pub use parked::Retried;
pub use runtime::{Progress, Runtime, Step};
pub use source::{Entry, Failure, Range, Source, Unreadable};
pub use status::{ParkedStream, PartitionStatus, RebuildStatus, Status, status};
pub use tables::Difference;
pub use verify::{Verified, verify};
pub use webhooks::{lock_endpoints, make_due, try_lock_endpoints};

/// The most events in one transaction.
const BATCH_EVENTS_MAX: i64 = 4_000;

/// A read model that is made from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// Organizations and their settings.
    Organizations,
    /// Members.
    Members,
    /// Invitations.
    Invitations,
    /// Projects.
    Projects,
    /// Users.
    Users,
    /// API tokens.
    ApiTokens,
    /// By what events are found.
    Audit,
    /// Webhook endpoints; it writes what is to be sent to them besides.
    Webhooks,
}

impl Projection {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Organizations,
        Self::Members,
        Self::Invitations,
        Self::Projects,
        Self::Users,
        Self::ApiTokens,
        Self::Audit,
        Self::Webhooks,
    ];

    /// Those that lists are read from. The audit trail is complete without its index, so nobody waits for that.
    pub const SHOWN: [Self; 7] = [
        Self::Organizations,
        Self::Members,
        Self::Invitations,
        Self::Projects,
        Self::Users,
        Self::ApiTokens,
        Self::Webhooks,
    ];

    /// The name, as operators and the database know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organizations => "organizations",
            Self::Members => "members",
            Self::Invitations => "invitations",
            Self::Projects => "projects",
            Self::Users => "users",
            Self::ApiTokens => "api_tokens",
            Self::Webhooks => "webhooks",
            Self::Audit => "audit",
        }
    }

    /// The version of its tables.
    pub const fn version(self) -> i32 {
        match self {
            Self::Organizations
            | Self::Members
            | Self::Invitations
            | Self::Projects
            | Self::Users
            | Self::ApiTokens
            | Self::Webhooks
            | Self::Audit => 1,
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.name() == name)
    }

    /// Whether something comes of its events that is kept nowhere else; see [`Outbox`].
    const fn has_outbox(self) -> bool {
        matches!(self, Self::Webhooks)
    }

    /// Whether events of streams of this kind change its tables.
    fn reads(self, aggregate_type: &str) -> bool {
        match self {
            Self::Organizations => aggregate_type == "Organization",
            // What was purged with its organization goes.
            Self::Members => ["Organization", "Membership"].contains(&aggregate_type),
            Self::Invitations => ["Organization", "Invitation"].contains(&aggregate_type),
            Self::Projects => ["Organization", "Project"].contains(&aggregate_type),
            Self::Users => aggregate_type == "User",
            Self::ApiTokens => ["Organization", "ApiToken"].contains(&aggregate_type),
            // Any event of an organization may be wanted.
            Self::Webhooks => aggregate_type != "User",
            Self::Audit => true,
        }
    }

    /// The database schema that this version's tables lie in.
    pub fn schema(self) -> String {
        format!("{}_{}", self.name(), self.version())
    }

    /// Applies events of any partitions, those of a partition in order, to the tables; what else comes of them is for
    /// the outbox to say.
    async fn apply(
        self,
        connection: &mut PgConnection,
        events: &[&Recorded],
        outbox: &Outbox<'_>,
    ) -> Result<(), sqlx::Error> {
        match self {
            Self::Organizations => organizations::apply(connection, events).await,
            Self::Members => members::apply(connection, events).await,
            Self::Invitations => invitations::apply(connection, events).await,
            Self::Projects => projects::apply(connection, events).await,
            Self::Users => users::apply(connection, events).await,
            Self::ApiTokens => api_tokens::apply(connection, events).await,
            Self::Webhooks => webhooks::apply(connection, events, outbox).await,
            Self::Audit => audit::apply(connection, events).await,
        }
    }
}

impl Projection {
    /// Removes the rows of an organization, or of a user.
    async fn forget(self, connection: &mut PgConnection, owner: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Organizations => organizations::forget(connection, &[owner]).await,
            Self::Members => members::forget(connection, &[owner]).await,
            Self::Invitations => invitations::forget(connection, &[owner]).await,
            Self::Projects => projects::forget(connection, &[owner]).await,
            Self::Users => users::forget(connection, &[owner]).await,
            Self::ApiTokens => api_tokens::forget(connection, &[owner]).await,
            Self::Webhooks => webhooks::forget(connection, &[owner]).await,
            // The rows are as true as the log, and making them again changes nothing.
            Self::Audit => Ok(()),
        }
    }
}

/// A column of rows, as an array for `unnest`: several times cheaper for the database than rows as JSON.
macro_rules! column {
    ($rows:expr, $get:expr) => {
        &$rows.iter().map($get).collect::<Vec<_>>()
    };
}
use column;

/// The stored name of a state.
fn name(state: impl serde::Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("states are stored by their names: {other:?}"),
    }
}

/// Names of roles, permissions or events as the text of an array. They hold no quotes, commas or braces.
fn list(roles: &[String]) -> String {
    let quoted: Vec<String> = roles.iter().map(|role| format!("\"{role}\"")).collect();
    format!("{{{}}}", quoted.join(","))
}

/// The ids of streams that `events` do not begin: only those can have rows.
fn begun_before<'a>(events: impl Iterator<Item = &'a Recorded>) -> Vec<&'a str> {
    let mut begun = std::collections::HashSet::new();
    let mut ids = vec![];
    for recorded in events {
        let id = recorded.stream.id();
        if begun.insert(id) && recorded.sequence > 1 {
            ids.push(id);
        }
    }
    ids
}

/// The organizations that are gone for good by these events; whatever shows something of them lets it go.
fn purged<'a>(events: &[&'a Recorded]) -> Vec<&'a str> {
    let purged =
        |recorded: &&&Recorded| matches!(&recorded.event, Event::Organization(OrganizationEvent::OrgPurged { .. }));
    events.iter().filter(purged).map(|recorded| recorded.stream.id()).collect()
}

/// The search path by which a connection finds the read models of this program's versions.
pub fn search_path() -> String {
    search_path_with(&[])
}

/// The search path by which a connection finds the tables of these projections that are being built, and of the
/// others those that serve.
fn search_path_with(rebuilt: &[Projection]) -> String {
    let schemas = Projection::ALL.map(|projection| match rebuilt.contains(&projection) {
        true => format!("{}_next", projection.schema()),
        false => projection.schema(),
    });
    format!("public,{}", schemas.join(","))
}
