//! `tenancy audit diff`: what changed between two points.

use std::process::ExitCode;

use aggregates::ids::OrganizationId;
use chrono::SecondsFormat;

use super::{Failure, failed, misused, print};
use crate::audit::as_of::{AsOf, Folds, NoAnswer, Snapshot};
use crate::audit::diff;
use crate::config::Config;
use crate::database::embedded::Purpose;
use crate::service::{Core, Error};

/// Prints what changed in an organization from one of its events to another.
pub(super) async fn diff(
    config: &Config,
    organization: &OrganizationId,
    from: u64,
    to: u64,
) -> Result<ExitCode, Failure> {
    if from > to {
        return Err(misused(format!("--from {from} is after --to {to}"), "give the earlier one first"));
    }
    let core = Core::open(config, Purpose::Command).await?;
    let snapshots = both(&core, organization, from, to).await;
    core.close().await?;
    let (old, new) = snapshots?;
    let heading = |snapshot: &Snapshot| {
        let at = snapshot.fold.recorded_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!("{} ({at})", snapshot.fold.audit_sequence)
    };
    let changes = diff::diff(&old, &new);
    let changes = if changes.is_empty() { "nothing changed\n" } else { &changes };
    Ok(print(&format!("{organization} from {} to {}\n{changes}", heading(&old), heading(&new))))
}

async fn both(core: &Core, id: &OrganizationId, from: u64, to: u64) -> Result<(Snapshot, Snapshot), Failure> {
    let folds = Folds::default();
    let snapshot = async |sequence| {
        let found = folds.snapshot(core.commands.log(), id, &AsOf::AuditSequence(sequence)).await;
        found.map_err(|error| match error {
            NoAnswer::Log(error) => Error::from(error).into(),
            NoAnswer::NotThere => failed(format!("there was no organization {id} after event {sequence}"), None),
            error @ (NoAnswer::PositionUnknown | NoAnswer::Point(_)) => {
                failed(error, "give sequences of its own audit trail")
            }
        })
    };
    Ok((snapshot(from).await?, snapshot(to).await?))
}
