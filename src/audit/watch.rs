//! Standing verification: the whole log is read again and again, slowly, and held against what was written and signed.
//!
//! Every replica does so by itself, with the heads of its own data directory. What it finds stops the organization's tree,
//! raises an alarm, and stands in `auditCheckpoint.failure`, in exports, in health and metrics; what it has read stands in a
//! file of the data directory, for `tenancy audit status`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::check::{Check, Checked, Pace, Wrong};
use super::heads::Heads;
use super::note::VerifierKey;
use super::witnesses::{self, Asked};
use crate::log::alarms::{About, Alarm, NoticedBy};
use crate::log::{Log, LogError};

/// The name of the file in the data directory.
pub const FILE: &str = "audit.status.json";
/// How often the file is written.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// How the failure of a tree begins that standing verification stopped: it alone takes it back.
const FOUND: &str = "found by standing verification: ";

/// How standing verification goes.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// So many events are read a second.
    pub pace: Pace,
    /// How long it rests after each round.
    pub rest: Duration,
}

/// A walk through everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// When it began.
    pub began_at: DateTime<Utc>,
    /// When it ended, if it has.
    pub ended_at: Option<DateTime<Utc>>,
    /// How many events it has read along partitions.
    pub events: u64,
    /// How many audit trails it has gone through.
    pub organizations: u64,
}

/// How standing verification stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When this was written.
    pub at: DateTime<Utc>,
    /// The round that is under way.
    pub current: Option<Round>,
    /// The last whole one.
    pub last: Option<Round>,
    /// What is not as it was written and signed.
    pub alarms: Vec<Alarm>,
    /// How witnesses stand.
    #[serde(default)]
    pub witnesses: Vec<witnesses::State>,
}

impl Status {
    /// What the service of this data directory wrote last; `None` where none has.
    pub fn read(data_dir: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(data_dir.join(FILE)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Takes back everything that stands in the database of what stopped: whatever is still wrong is found again.
pub async fn take_back(projector: &PgPool) -> Result<(), LogError> {
    sqlx::query("UPDATE sealed_trees SET failure = NULL WHERE failure IS NOT NULL").execute(projector).await?;
    sqlx::query("UPDATE seals SET failure = NULL WHERE failure IS NOT NULL").execute(projector).await?;
    Ok(())
}

/// Standing verification of a replica.
pub struct Watch {
    log: Arc<Log>,
    /// Trees are the projector's to write.
    projector: PgPool,
    heads: Arc<Heads>,
    keys: Vec<VerifierKey>,
    terms: Terms,
    asked: Arc<Asked>,
    file: PathBuf,
    progress: Arc<Progress>,
}

/// How far it is. Cheap to share.
#[derive(Debug, Default)]
pub struct Progress(Mutex<(Option<Round>, Option<Round>)>);

impl Progress {
    /// The round under way, and the last whole one.
    pub fn rounds(&self) -> (Option<Round>, Option<Round>) {
        self.locked().clone()
    }

    /// For how long it has been that a whole round ended, in seconds; `None` before the first.
    pub fn age_seconds(&self) -> Option<f64> {
        let ended = self.locked().1.as_ref().and_then(|round| round.ended_at)?;
        Some((Utc::now() - ended).as_seconds_f64().max(0.0))
    }

    fn locked(&self) -> MutexGuard<'_, (Option<Round>, Option<Round>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Round)) {
        if let Some(round) = &mut self.locked().0 {
            change(round);
        }
    }
}

impl Watch {
    /// Over this log. `keys` are those of which one has to have signed each head.
    pub fn new(
        (log, projector): (Arc<Log>, PgPool),
        heads: Arc<Heads>,
        keys: Vec<VerifierKey>,
        (terms, asked): (Terms, Arc<Asked>),
        data_dir: &Path,
    ) -> Self {
        let file = data_dir.join(FILE);
        Self { log, projector, heads, keys, terms, asked, file, progress: Arc::default() }
    }

    /// How far it is.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Goes round until the service stops.
    pub async fn run(&self, stop: CancellationToken) {
        let rounds = async {
            loop {
                if let Err(error) = self.round().await {
                    tracing::warn!(%error, "the audit trail cannot be verified at the moment");
                }
                tokio::time::sleep(self.terms.rest).await;
            }
        };
        let writing = async {
            loop {
                self.write();
                tokio::time::sleep(WRITE_EVERY).await;
            }
        };
        stop.run_until_cancelled(async { tokio::join!(rounds, writing) }).await;
        self.write();
    }

    /// Reads everything once.
    pub async fn round(&self) -> Result<(), LogError> {
        self.progress.locked().0 = Some(Round { began_at: Utc::now(), ..Round::default() });
        let check = Check::new(&self.log, &self.keys, &self.heads, self.terms.pace);
        for partition in 0..self.log.partitions() {
            let checked = check.partition(partition).await?;
            metrics::counter!("tenancy_audit_verified_events_total").increment(checked.events);
            self.progress.note(|round| round.events += checked.events);
            // Whose event it is hears of it first; the walk along the organization says it again, or takes it back.
            for Wrong { about, text } in checked.wrong.iter().filter(|wrong| wrong.about != About::Partition(partition))
            {
                self.log.alarms().raise(about.clone(), NoticedBy::Verification, text.clone());
            }
            self.report(About::Partition(partition), checked.wrong.iter()).await?;
        }
        let mut after = String::new();
        loop {
            let ids = check.organizations(&after).await?;
            let Some(last) = ids.last() else { break };
            after.clone_from(last);
            let mut heads = vec![];
            for id in ids {
                let Checked { wrong, head, .. } = check.organization(&id).await?;
                self.progress.note(|round| round.organizations += 1);
                heads.extend(head.map(|head| (id.clone(), head)));
                self.report(About::Organization(id), wrong.iter()).await?;
            }
            let known = self.heads.clone();
            let kept = tokio::task::spawn_blocking(move || known.keep(&heads, &[])).await;
            let kept = kept.map_err(|error| LogError::Corrupt(error.to_string()))?;
            kept.map_err(|error| LogError::Unkept(error.to_string()))?;
        }
        let mut rounds = self.progress.locked();
        let ended = rounds.0.take().map(|round| Round { ended_at: Some(Utc::now()), ..round });
        rounds.1 = ended;
        Ok(())
    }

    /// Raises an alarm for what is wrong of `about`, or takes it back where nothing is. What a walk along a partition says of
    /// an organization is said again by the walk along that.
    async fn report(&self, about: About, wrong: impl Iterator<Item = &Wrong>) -> Result<(), LogError> {
        let texts: Vec<&str> = wrong.filter(|wrong| wrong.about == about).map(|wrong| wrong.text.as_str()).collect();
        let alarms = self.log.alarms();
        let organization = match &about {
            About::Organization(organization) => Some(organization.clone()),
            About::Partition(_) => None,
        };
        if texts.is_empty() {
            if organization.is_some() {
                alarms.clear(about.clone(), NoticedBy::Sealer);
            }
            alarms.clear(about, NoticedBy::Verification);
        } else {
            alarms.raise(about, NoticedBy::Verification, texts.join("; "));
        }
        let Some(organization) = organization else { return Ok(()) };
        // What the tree itself says of why it stopped is not said twice.
        let own: Vec<&str> = texts.iter().copied().filter(|text| !text.contains(FOUND)).collect();
        let failure = (!own.is_empty()).then(|| format!("{FOUND}{}", own.join("; ")));
        sqlx::query!(
            "UPDATE sealed_trees SET failure = $2
             WHERE organization_id = $1 AND (failure IS NULL OR failure LIKE $3 || '%') AND failure IS DISTINCT FROM $2",
            organization,
            failure,
            FOUND
        )
        .execute(&self.projector)
        .await?;
        Ok(())
    }

    fn write(&self) {
        let (current, last) = self.progress.rounds();
        let (alarms, witnesses) = (self.log.alarms().all(), self.asked.all());
        let status = Status { at: Utc::now(), current, last, alarms, witnesses };
        let written = serde_json::to_vec_pretty(&status).map_err(std::io::Error::from).and_then(|text| {
            let beside = self.file.with_extension("new");
            std::fs::write(&beside, text)?;
            std::fs::rename(&beside, &self.file)
        });
        if let Err(error) = written {
            tracing::debug!(%error, "the status of the audit trail's verification cannot be written");
        }
    }
}
