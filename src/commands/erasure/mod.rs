//! Erasing people, legal holds, and what follows a purge.
//!
//! One append records an erasure and destroys the person's key: from then on nothing of the person opens. What is left
//! to do lies in other partitions (ending memberships, erasing what was sent to their addresses), so it is a process:
//! the same commit leaves a tombstone, and every sweep looks at it until everything is done. A crash only delays that.
//!
//! A user who joins at the same moment, on another replica, was let in by a look that came before the erasure; so a
//! tombstone is finished only when a look a minute later finds nothing to do any more.
//!
//! Where a person is, read models say, and a key that is destroyed does not come back. So nobody is erased, and no
//! tombstone is finished, while they may leave something out.

mod case;
mod follow;
mod hold;
mod needed;
mod steps;
mod traces;

use projections::Projection;

use super::roles::wait_for_read_models;
use crate::log::{Log, LogError};

pub use case::EraseSubject;
pub use hold::HoldOrganization;
pub use traces::named_in;

/// In how many organizations somebody may be who is erased.
const PLACES_MAX: i64 = 10_000;
/// What says where something of a person is.
const PLACES: [Projection; 4] =
    [Projection::Organizations, Projection::Members, Projection::Invitations, Projection::ApiTokens];

/// Waits a moment until the read models show where everybody is by what the log holds now, and says whether they do. Whom
/// a parked stream is about nobody knows, so one is enough that they do not.
async fn all_is_shown(log: &Log) -> Result<bool, LogError> {
    let heads = log.heads_now(&[]).await?;
    wait_for_read_models(log, &[]).await?;
    let partitions: Vec<i16> = heads.keys().copied().collect();
    for projection in PLACES {
        let shown = projections::complete(log.pool(), projection, &partitions).await?;
        if heads.iter().any(|(partition, head)| shown.get(partition).copied().unwrap_or_default() < *head) {
            return Ok(false);
        }
    }
    Ok(true)
}
