//! From events to read models.
//!
//! A projection has a name, a version, tables and `apply`. Its rows and its checkpoint change in one transaction,
//! so each event has its effect exactly once. Each version has a database schema of its own, and statements name
//! tables without schema: the connection's search path decides ([`search_path`]).
//!
//! What is always so:
//! - no command decides by a row of a read model: rows propose candidates, and each is loaded from the log;
//! - a row carries the offset of the last event that it shows, and an event is not applied to a row that shows it;
//! - a batch may be split anywhere, and applied again, without a difference;
//! - an event that cannot be applied keeps back its own stream and nothing else.

mod api_tokens;
mod audit;
mod checkpoints;
pub mod directory;
mod fold;
mod invitations;
mod members;
mod organizations;
mod parked;
mod projects;
mod read_model;
pub mod rebuild;
mod runtime;
mod source;
mod status;
mod tables;
mod users;
mod verify;
mod webhooks;

use aggregates::Recorded;
use chrono::{DateTime, Utc};
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

macro_rules! projections {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $module:ident version $version:literal;)*) => {
        /// A read model that is made from the log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Projection { $($(#[$doc])* $name = $number,)* }

        impl Projection {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name, as operators and the database know it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($module),)* }
            }

            /// The version of its tables.
            pub const fn version(self) -> i32 {
                match self { $(Self::$name => $version,)* }
            }

            /// The number of its advisory lock, which several versions of the program share: it never changes.
            const fn lock(self) -> i32 {
                self as i32
            }

            /// Whether lists are read from it. The audit trail is complete without its index, so nobody waits for that.
            const fn is_shown(self) -> bool {
                match self { $(Self::$name => $module::IS_SHOWN,)* }
            }

            /// Whether something comes of its events that is kept nowhere else; see [`Outbox`].
            const fn has_outbox(self) -> bool {
                match self { $(Self::$name => $module::HAS_OUTBOX,)* }
            }

            /// Whether events of streams of this kind change its tables.
            fn reads(self, aggregate_type: &str) -> bool {
                match self { $(Self::$name => $module::reads(aggregate_type),)* }
            }

            /// Columns, by table, of which may be said that they differ, but not what is in them.
            const fn personal(self) -> &'static [(&'static str, &'static str)] {
                match self { $(Self::$name => $module::PERSONAL,)* }
            }

            /// The table in which deleted things wait to be purged, if there is one.
            fn purged_from(self) -> Option<&'static str> {
                match self { $(Self::$name => $module::purged_from(),)* }
            }

            /// Applies events of any partitions, those of a partition in order, to the tables; what else comes of them is
            /// for the outbox to say.
            async fn apply(
                self,
                connection: &mut PgConnection,
                events: &[&Recorded],
                outbox: &Outbox<'_>,
            ) -> Result<(), sqlx::Error> {
                match self { $(Self::$name => $module::apply(connection, events, outbox).await,)* }
            }

            /// Removes the rows of an organization, or of a user.
            async fn forget(self, connection: &mut PgConnection, owner: &str) -> Result<(), sqlx::Error> {
                match self { $(Self::$name => $module::forget(connection, &[owner]).await,)* }
            }
        }
    };
}

// The numbers are those of locks: a new projection takes the next one, and nobody else's.
projections! {
    /// Organizations and their settings.
    Organizations = 0, organizations version 1;
    /// Members.
    Members = 1, members version 1;
    /// Invitations.
    Invitations = 2, invitations version 1;
    /// Projects.
    Projects = 3, projects version 1;
    /// Users.
    Users = 4, users version 1;
    /// API tokens.
    ApiTokens = 5, api_tokens version 1;
    /// By what events are found.
    Audit = 6, audit version 1;
    /// Webhook endpoints; it writes what is to be sent to them besides.
    Webhooks = 7, webhooks version 1;
}

impl Projection {
    /// Those that lists are read from.
    pub fn shown() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|projection| projection.is_shown())
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|projection| projection.name() == name)
    }

    /// Whether people are found by it; see [`directory`].
    const fn is_of_people(self) -> bool {
        matches!(self, Self::Members | Self::Users)
    }

    /// The database schema that this version's tables lie in.
    pub fn schema(self) -> String {
        format!("{}_{}", self.name(), self.version())
    }
}

/// What was deleted and may be gone for good at `now`, by when and by id, after this place.
pub async fn due_for_purge(
    pool: impl sqlx::PgExecutor<'_>,
    now: DateTime<Utc>,
    after: &(DateTime<Utc>, String),
    limit: i64,
) -> Result<Vec<(DateTime<Utc>, String)>, sqlx::Error> {
    let tables = Projection::ALL.iter().filter_map(|projection| projection.purged_from());
    let parts: Vec<String> = tables
        .map(|table| {
            format!(
                "(SELECT purge_at, id FROM {table} WHERE purge_at <= $1 AND (purge_at, id) > ($2, $3)
                  ORDER BY purge_at, id LIMIT $4)"
            )
        })
        .collect();
    let statement = format!("SELECT * FROM ({}) due ORDER BY purge_at, id LIMIT $4", parts.join(" UNION ALL "));
    sqlx::query_as(&statement).bind(now).bind(after.0).bind(&after.1).bind(limit).fetch_all(pool).await
}

/// A column of rows, as an array for `unnest`: several times cheaper for the database than rows as JSON.
macro_rules! column {
    ($rows:expr, $get:expr) => {
        &$rows.iter().map($get).collect::<Vec<_>>()
    };
}
use column;

/// The search path by which a connection finds the read models of this program's versions.
pub fn search_path() -> String {
    search_path_with(&[])
}

/// The search path by which a connection finds the tables of these projections that are being built, and of the
/// others those that serve.
fn search_path_with(rebuilt: &[Projection]) -> String {
    let schemas = Projection::ALL.iter().map(|projection| match rebuilt.contains(projection) {
        true => format!("{}_next", projection.schema()),
        false => projection.schema(),
    });
    format!("public,{}", schemas.collect::<Vec<_>>().join(","))
}
