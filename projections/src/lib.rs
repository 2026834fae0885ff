//! From events to read models.
//!
//! A projection has a name, a version, tables and `apply`. Its rows and its checkpoint change in one transaction,
//! so each event has its effect exactly once. Each version has a database schema of its own, and statements name
//! tables without schema: the connection's search path decides ([`search_path`]).
//!
//! What is always so:
//! - no command reads a read model;
//! - a row carries the offset of the last event that it shows, and an event is not applied to a row that shows it;
//! - a batch may be split anywhere, and applied again, without a difference.

mod invitations;
mod members;
mod organizations;
mod projects;
mod runtime;
mod users;

use aggregates::organization::OrganizationEvent;
use aggregates::{Event, Recorded};
use sqlx::PgConnection;

pub use runtime::{Failure, Progress, Runtime, Source, Status, reached, status};

/// A read model that is made from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// Organizations with their limits, and their settings.
    Organizations,
    /// Members.
    Members,
    /// Invitations.
    Invitations,
    /// Projects.
    Projects,
    /// Users.
    Users,
}

impl Projection {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Organizations, Self::Members, Self::Invitations, Self::Projects, Self::Users];

    /// The name, as operators and the database know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organizations => "organizations",
            Self::Members => "members",
            Self::Invitations => "invitations",
            Self::Projects => "projects",
            Self::Users => "users",
        }
    }

    /// The version of its tables.
    pub const fn version(self) -> i32 {
        match self {
            Self::Organizations | Self::Members | Self::Invitations | Self::Projects | Self::Users => 1,
        }
    }

    /// The database schema that this version's tables lie in.
    pub fn schema(self) -> String {
        format!("{}_{}", self.name(), self.version())
    }

    /// Applies events of any partitions, those of a partition in order, to the tables.
    async fn apply(self, connection: &mut PgConnection, events: &[Recorded]) -> Result<(), sqlx::Error> {
        match self {
            Self::Organizations => organizations::apply(connection, events).await,
            Self::Members => members::apply(connection, events).await,
            Self::Invitations => invitations::apply(connection, events).await,
            Self::Projects => projects::apply(connection, events).await,
            Self::Users => users::apply(connection, events).await,
        }
    }
}

/// The organizations that are gone for good by these events; whatever shows something of them lets it go.
fn purged(events: &[Recorded]) -> Vec<&str> {
    let purged =
        |recorded: &&Recorded| matches!(&recorded.event, Event::Organization(OrganizationEvent::OrgPurged { .. }));
    events.iter().filter(purged).map(|recorded| recorded.stream.id()).collect()
}

/// The search path by which a connection finds the read models of this program's versions.
pub fn search_path() -> String {
    let schemas = Projection::ALL.map(Projection::schema);
    format!("public,{}", schemas.join(","))
}
