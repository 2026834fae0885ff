//! `tenancy audit report`: an officer's report.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aggregates::Actor;
use aggregates::ids::OrganizationId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use super::audit::{is_standard_output, unwritten};
use super::{Failure, actor, failed, misused, print};
use crate::audit::as_of::NoAnswer;
use crate::audit::proofs::head;
use crate::audit::report::{self, Proofs, ROWS_MAX, Record, Records, Report, Rows, html, text};
use crate::audit::watch::Status;
use crate::config::Config;
use crate::database::embedded::Purpose;
use crate::log::LogError;
use crate::log::alarms::About;
use crate::requests::trail::{Group, Groups, Kind, Occurrence};
use crate::service::{self, Core, audit_signers};

/// As what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Html,
}

/// A day (UTC) or a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Day(NaiveDate),
    Moment(DateTime<Utc>),
}

impl When {
    /// What a date or a time of RFC 3339 says.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(day) = text.parse::<NaiveDate>() {
            return Ok(Self::Day(day));
        }
        let moment = DateTime::parse_from_rfc3339(text);
        moment
            .map(|moment| Self::Moment(moment.to_utc()))
            .map_err(|_| format!("{text:?} is no date and no time: give 2026-07-01, or 2026-07-01T12:00:00Z"))
    }

    /// Its first moment.
    pub(super) fn begin(self) -> DateTime<Utc> {
        match self {
            Self::Day(day) => day.and_time(NaiveTime::MIN).and_utc(),
            Self::Moment(moment) => moment,
        }
    }

    /// Its last moment, but for a day that is not over.
    pub(super) fn end(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Day(_) if self.begin() > now => self.begin(),
            Self::Day(_) => (self.begin() + TimeDelta::days(1) - TimeDelta::microseconds(1)).min(now),
            Self::Moment(moment) => moment,
        }
    }
}

/// Which report, as what, and whereto.
pub(super) struct Wanted {
    pub organization: OrganizationId,
    pub since: Option<When>,
    pub until: Option<When>,
    pub format: Format,
    pub out: Option<PathBuf>,
    pub operator: Option<String>,
}

/// Writes a report, beside a running service or without one.
pub(super) async fn report(config: &Config, wanted: Wanted) -> Result<ExitCode, Failure> {
    let now = Utc::now();
    let (since, until) = (wanted.since.map(When::begin), wanted.until.map_or(now, |until| until.end(now)));
    if let Some(since) = since.filter(|since| *since > until) {
        return Err(misused(format!("--since {since} is after --until {until}"), "give the earlier one first"));
    }
    let core = Core::open(config, Purpose::Command).await?;
    let read = async {
        // Without a running service nobody else does. A process without its key leaves it to one that has it.
        if let Ok(sealer) = core.sealer(config).await {
            sealer.seal_all().await.map_err(service::Error::from)?;
        }
        let actor = actor(&core, config, wanted.operator.as_deref()).await?;
        let wanted = report::Wanted {
            organization: wanted.organization.clone(),
            since,
            until,
            access_trail_days: config.access.trail_days,
        };
        read(&core, config, &wanted, actor).await
    };
    let report = read.await;
    core.close().await?;
    let rendered = render(&report?, wanted.format)?;
    match wanted.out.filter(|out| !is_standard_output(out)) {
        None => Ok(print(&rendered)),
        Some(out) => {
            write(&out, &rendered).map_err(|error| unwritten(&out, &error))?;
            Ok(print(&format!("wrote {}\n", out.display())))
        }
    }
}

async fn read(core: &Core, config: &Config, wanted: &report::Wanted, actor: Actor) -> Result<Report, Failure> {
    let log = core.commands.log();
    let records = Records {
        refusals: records(core, wanted, &[Kind::Refused], false).await?,
        exports: records(core, wanted, &[Kind::AuditExport], true).await?,
        reads: records(core, wanted, &[Kind::AuditRead, Kind::OperatorRead], false).await?,
    };
    let report = report::read(log, wanted, records).await;
    let mut report = match report {
        Err(error) => return Err(no_answer(core, &wanted.organization, error).await),
        Ok(report) => report,
    };
    note(core, actor, "tenancy audit report", &wanted.organization);
    report.proofs = proofs(core, config, &wanted.organization).await?;
    Ok(report)
}

/// What the access trail has of some kinds: each record, or those alike together.
async fn records(core: &Core, wanted: &report::Wanted, kinds: &[Kind], each: bool) -> Result<Rows<Record>, Failure> {
    let report::Wanted { organization, since, until, .. } = wanted;
    let groups = Groups { organization, since: *since, until: *until, kinds, each, limit: ROWS_MAX };
    let (groups, more) = groups.read(core.commands.log()).await.map_err(service::Error::from)?;
    let record = |group: Group| Record {
        kind: group.kind,
        operation: group.operation,
        actor: group.actor.parse().unwrap_or_default(),
        times: group.times.unsigned_abs(),
        first: group.first,
        last: group.last,
    };
    Ok(Rows { rows: groups.into_iter().map(record).collect(), more })
}

/// Puts a read of an audit trail on record.
pub(super) fn note(core: &Core, actor: Actor, operation: &str, organization: &OrganizationId) {
    core.commands.trail().note(Occurrence {
        kind: Kind::AuditRead,
        actor,
        operation: operation.to_owned(),
        organization: Some(organization.clone()),
        reached: None,
        target: Some(organization.to_string()),
        ip: None,
    });
}

/// Why there is no answer about an organization at a point, as people are told.
pub(super) async fn no_answer(core: &Core, organization: &OrganizationId, error: NoAnswer) -> Failure {
    let known = match core.commands.log().newest_sequence(organization).await {
        Ok(newest) => newest > 0,
        Err(error) => return service::Error::from(error).into(),
    };
    match error {
        NoAnswer::Log(error) => service::Error::from(error).into(),
        _ if !known => unknown(organization),
        NoAnswer::NotThere => failed(
            format!("the organization {organization} was not there then"),
            "give a later point, or one before it was purged",
        ),
        error @ (NoAnswer::PositionUnknown | NoAnswer::Point(_)) => {
            failed(error, "give a point of its own audit trail that has come")
        }
    }
}

fn unknown(organization: &OrganizationId) -> Failure {
    failed(format!("there is no organization {organization}"), "organizations have ids such as org_…")
}

async fn proofs(core: &Core, config: &Config, organization: &OrganizationId) -> Result<Proofs, Failure> {
    let log = core.commands.log();
    let (id, partition) = (organization.as_ref(), log.partition_of(organization.as_ref()));
    let head = head(log.pool(), id).await.map_err(service::Error::from)?;
    let keys = audit_signers(config).unwrap_or_default();
    let keys: Vec<String> = keys.iter().map(|signer| signer.verifier().to_string()).collect();
    // The last `+` begins the key itself, which has to come by another road.
    let named = keys.iter().map(|key| key.splitn(3, '+').take(2).collect::<Vec<_>>().join("+")).collect();
    // What the service of this data directory has found.
    let status = Status::read(&config.data_dir).ok().flatten().unwrap_or_default();
    let about_it = |about: &About| match about {
        About::Organization(organization) => organization == id,
        About::Partition(number) => *number == partition,
    };
    let found = status.alarms.iter().find(|alarm| about_it(&alarm.about)).map(ToString::to_string);
    let failure = head.as_ref().and_then(|head| head.failure.clone());
    Ok(Proofs {
        tree_size: head.as_ref().map(|head| head.size),
        root_hash: head.as_ref().map(|head| STANDARD.encode(head.root)),
        signed_at: head.as_ref().map(|head| head.sealed_at),
        failure: failure.or_else(|| log.alarms().told(id, partition)).or(found),
        keys: named,
        commands: vec![
            "tenancy audit key".to_owned(),
            format!("tenancy audit export --organization {id} --out {id}.ndjson"),
            format!("tenancy audit verify {id}.ndjson --key VERIFIER_KEY"),
        ],
    })
}

fn render(report: &Report, format: Format) -> Result<String, Failure> {
    let json = || serde_json::to_string_pretty(report).map_err(|error| LogError::Corrupt(error.to_string()));
    Ok(match format {
        Format::Text => text::text(report),
        Format::Html => html::html(report),
        Format::Json => json().map_err(service::Error::from)? + "\n",
    })
}

/// Writes a file, which has its name only when it is whole.
fn write(out: &Path, text: &str) -> std::io::Result<()> {
    let mut part = out.to_owned().into_os_string();
    part.push(".part");
    let mut file = std::fs::File::create(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_day_is_whole_unless_it_is_not_over() {
        let now: DateTime<Utc> = "2026-07-02T12:00:00Z".parse().unwrap();
        let end = |text: &str| When::parse(text).unwrap().end(now).to_rfc3339();
        assert_eq!(end("2026-07-01"), "2026-07-01T23:59:59.999999+00:00");
        assert_eq!(end("2026-07-02"), "2026-07-02T12:00:00+00:00");
        assert_eq!(end("2026-07-03"), "2026-07-03T00:00:00+00:00");
        assert_eq!(end("2026-07-01T12:00:00+02:00"), "2026-07-01T10:00:00+00:00");
        assert!(When::parse("yesterday").is_err() && When::parse("3").is_err());
    }
}
