//! The log, as projections see it.

use std::collections::BTreeMap;

use aggregates::Recorded;
use sqlx::PgConnection;

/// Why events could not be had or applied.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The database failed; the events may be good.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// Offsets are not dense: the log or its reader is broken, and going on would leave something out.
    #[error("partition {partition}: offset {found} follows {cursor}")]
    Gap {
        /// Where.
        partition: i16,
        /// The offset that was reached.
        cursor: i64,
        /// The one that came next.
        found: i64,
    },
    /// A rebuilt read model would leave out what the old one shows.
    #[error("the new {projection} leaves out {streams} streams that the old one shows; the old one stays")]
    Worse {
        /// Which.
        projection: &'static str,
        /// How many streams.
        streams: i64,
    },
    /// The old read model is behind the new one, and would leave undone what only it does.
    #[error("{0} is rebuilt, and its old tables are behind the new ones: let a service run, and try again")]
    Behind(&'static str),
    /// The old read model holds streams back, and what they hold back would be lost with it.
    #[error("{0} holds streams back: `tenancy projections retry {0}` first, and then rebuild it")]
    HeldBack(&'static str),
    /// What a rebuild works on was changed or taken away meanwhile.
    #[error("the rebuild of {0} was ended by somebody else")]
    Superseded(&'static str),
}

/// A part of a partition: the offsets after `after`, up to `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// The partition.
    pub partition: i16,
    /// The last offset that is not wanted.
    pub after: i64,
    /// The last offset that is wanted.
    pub until: i64,
}

/// A place in the log, and what is there.
#[derive(Debug, Clone)]
pub enum Entry {
    /// An event, readable.
    Event(Box<Recorded>),
    /// An event that this program cannot read.
    Unreadable(Unreadable),
}

/// The place of an event that this program cannot read.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// The partition.
    pub partition: i16,
    /// Its place there.
    pub offset: i64,
    /// The kind of its stream, as stored.
    pub aggregate_type: String,
    /// The id of its stream.
    pub aggregate_id: String,
    /// The organization that it belongs to.
    pub organization: Option<String>,
    /// What is wrong with it.
    pub failure: String,
}

impl Entry {
    pub(crate) fn partition(&self) -> i16 {
        match self {
            Self::Event(event) => event.partition,
            Self::Unreadable(place) => place.partition,
        }
    }

    pub(crate) fn offset(&self) -> i64 {
        match self {
            Self::Event(event) => event.offset,
            Self::Unreadable(place) => place.offset,
        }
    }

    pub(crate) fn aggregate_type(&self) -> &str {
        match self {
            Self::Event(event) => event.stream.aggregate_type(),
            Self::Unreadable(place) => &place.aggregate_type,
        }
    }

    pub(crate) fn aggregate_id(&self) -> &str {
        match self {
            Self::Event(event) => event.stream.id(),
            Self::Unreadable(place) => &place.aggregate_id,
        }
    }

    /// Whose rows it changes: its organization's, or else its own stream's.
    pub(crate) fn owner(&self) -> &str {
        match self {
            Self::Event(event) => event.organization.as_ref().map_or(event.stream.id(), AsRef::as_ref),
            Self::Unreadable(place) => place.organization.as_deref().unwrap_or(&place.aggregate_id),
        }
    }
}

/// Where events come from.
pub trait Source: Send + Sync + 'static {
    /// Up to `limit` events of each range, in order of range and offset.
    fn read(
        &self,
        connection: &mut PgConnection,
        ranges: &[Range],
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Vec<Entry>>, Failure>> + Send;

    /// Up to `limit` events of an organization, or of a stream that belongs to none, within `range`, in order.
    fn read_owner(
        &self,
        connection: &mut PgConnection,
        owner: &str,
        range: Range,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Entry>, Failure>> + Send;

    /// The last offset of each partition.
    fn heads(&self, connection: &mut PgConnection) -> impl Future<Output = Result<BTreeMap<i16, i64>, Failure>> + Send;
}
