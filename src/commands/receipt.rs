//! What a command answers with, and the position at which its effect can be read.

use aggregates::ids::OrganizationId;
use aggregates::{Recorded, Registered};

use super::Rejection;
use super::work::Entity;
use crate::log::{Loaded, Log, LogError, Position};

/// What became of a command.
#[derive(Default)]
pub struct Receipt {
    /// What it answers with, as it is after the command.
    pub entities: Vec<Entity>,
    /// What it recorded.
    pub events: Vec<Recorded>,
    /// Where to read to see it.
    pub position: Option<Position>,
    /// Whether this is the outcome of an earlier, equal command.
    pub replayed: bool,
    /// A secret that is shown this once.
    pub secret: Option<String>,
    /// Why nothing was changed.
    pub rejections: Vec<Rejection>,
}

impl Receipt {
    /// The first entity of this kind.
    pub fn entity<A: Registered>(&self) -> Option<(A::Id, Loaded<A>)> {
        self.entities.iter().find_map(Entity::get)
    }
}

/// Without the secret.
impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entities, events, position, replayed, secret: _, rejections } = self;
        f.debug_struct("Receipt")
            .field("entities", entities)
            .field("events", events)
            .field("position", position)
            .field("replayed", replayed)
            .field("rejections", rejections)
            .finish_non_exhaustive()
    }
}

/// The position of these events; without any, the present one of the organization.
pub(super) async fn position_after(
    log: &Log,
    events: &[Recorded],
    organization: Option<&OrganizationId>,
) -> Result<Option<Position>, LogError> {
    match position_of(log, events) {
        Some(position) => Ok(Some(position)),
        None => position_now(log, organization).await,
    }
}

/// The position at which these events can be read.
pub(super) fn position_of(log: &Log, events: &[Recorded]) -> Option<Position> {
    let last = events.iter().max_by_key(|event| event.offset)?;
    Some(Position::at(log.epoch(), last.partition, last.offset))
}

/// The present position of an organization: the answer of a command that had nothing to record.
pub(super) async fn position_now(
    log: &Log,
    organization: Option<&OrganizationId>,
) -> Result<Option<Position>, LogError> {
    let Some(organization) = organization else { return Ok(None) };
    let heads = log.heads_now(&[log.partition_of(organization.as_ref())]).await?;
    Ok(Some(Position { epoch: log.epoch(), offsets: heads }))
}
