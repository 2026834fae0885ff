//! An event as the log recorded it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::actor::Actor;
use crate::ids::{EventId, OrganizationId};
use crate::stream::{Event, StreamId};

/// An event with its place in the log and the story of how it came about. Personal data in it is readable, or
/// erased where its key is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its id.
    pub id: EventId,
    /// The stream that recorded it.
    pub stream: StreamId,
    /// Its place in that stream, from 1.
    pub sequence: u64,
    /// The partition of the log.
    pub partition: i16,
    /// Its place in that partition, from 1, dense.
    pub offset: i64,
    /// The organization that it belongs to; none for users.
    pub organization: Option<OrganizationId>,
    /// Its place among the organization's events, from 1, dense.
    pub audit_sequence: Option<u64>,
    /// When it was recorded; never goes back within a partition.
    pub recorded_at: DateTime<Utc>,
    /// How it came about.
    pub origin: Origin,
    /// What happened.
    pub event: Event,
}

/// How an event came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The command that made it.
    pub command_id: Uuid,
    /// The actor.
    pub actor: Actor,
    /// For whom, where that is somebody else.
    pub on_behalf_of: Option<Actor>,
    /// The network address that the request came from; none where it is erased or unknown.
    pub ip: Option<String>,
    /// The program that sent the request; none where it is erased or unknown.
    pub user_agent: Option<String>,
    /// The HTTP request.
    pub request_id: Option<String>,
    /// What belongs together.
    pub correlation_id: Uuid,
    /// The event that caused this one.
    pub causation_id: Option<EventId>,
}
