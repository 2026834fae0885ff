//! `tenancy audit diff`: what changed between two points.

use std::process::ExitCode;

use aggregates::ids::OrganizationId;
use chrono::Utc;

use super::report::{When, no_answer, note};
use super::{Failure, actor, misused, print};
use crate::audit::as_of::{AsOf, Folds, Snapshot};
use crate::audit::diff::{self, Diff};
use crate::config::Config;
use crate::database::embedded::Purpose;
use crate::log::LogError;
use crate::service::{Core, Error};

/// As what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// A point in an organization's trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Sequence(u64),
    Time(When),
}

impl Point {
    /// What a number, a date or a time says.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<u64>() {
            Ok(0) => Err("events are numbered from 1".to_owned()),
            Ok(sequence) => Ok(Self::Sequence(sequence)),
            Err(_) => When::parse(text).map(Self::Time).map_err(|_| {
                format!("{text:?} is no audit sequence and no time: give 3, 2026-07-01, or 2026-07-01T12:00:00Z")
            }),
        }
    }

    fn as_of(self) -> AsOf {
        match self {
            Self::Sequence(sequence) => AsOf::AuditSequence(sequence),
            Self::Time(when) => AsOf::Time(when.end(Utc::now())),
        }
    }
}

/// Between which points, and how.
pub(super) struct Wanted {
    pub organization: OrganizationId,
    pub from: Point,
    pub to: Point,
    pub format: Format,
    pub personal: bool,
    pub operator: Option<String>,
}

/// Prints what changed in an organization from one point to another.
pub(super) async fn diff(config: &Config, wanted: &Wanted) -> Result<ExitCode, Failure> {
    if let (Point::Sequence(from), Point::Sequence(to)) = (wanted.from, wanted.to)
        && from > to
    {
        return Err(backwards(from, to));
    }
    let core = Core::open(config, Purpose::Command).await?;
    let found = between(&core, config, wanted).await;
    core.close().await?;
    let found = found?;
    Ok(print(&match wanted.format {
        Format::Text => found.text(),
        Format::Json => {
            let json = serde_json::to_string_pretty(&found).map_err(|error| LogError::Corrupt(error.to_string()));
            json.map_err(Error::from)? + "\n"
        }
    }))
}

fn backwards(from: u64, to: u64) -> Failure {
    misused(format!("--from {from} is after --to {to}"), "give the earlier one first")
}

async fn between(core: &Core, config: &Config, wanted: &Wanted) -> Result<Diff, Failure> {
    let actor = actor(core, config, wanted.operator.as_deref()).await?;
    let (folds, log, id) = (Folds::default(), core.commands.log(), &wanted.organization);
    let snapshot = async |point: Point| -> Result<Snapshot, Failure> {
        match folds.snapshot(log, id, &point.as_of()).await {
            Ok(snapshot) => Ok(snapshot),
            Err(error) => Err(no_answer(core, id, error).await),
        }
    };
    let (from, to) = (snapshot(wanted.from).await?, snapshot(wanted.to).await?);
    let (first, last) = (from.fold.audit_sequence, to.fold.audit_sequence);
    if first > last {
        return Err(backwards(first, last));
    }
    note(core, actor, "tenancy audit diff", id);
    Ok(diff::diff(log, &from, &to, wanted.personal).await.map_err(Error::from)?)
}
