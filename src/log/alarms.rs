//! What this replica has noticed of the log that no writer of the service can have done.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The most alarms that are kept: the first ones.
const ALARMS_MAX: usize = 1_000;

/// What an alarm is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum About {
    /// A partition's chain of codes: nothing that follows is signed.
    Partition(i16),
    /// An organization's audit trail.
    Organization(String),
}

/// Who noticed it. Only they take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NoticedBy {
    /// The writer, as it followed what others wrote.
    Writer,
    /// The sealer, before it signs.
    Sealer,
    /// Standing verification.
    Verification,
    /// A witness outside, by what it cosigned before.
    Witness,
}

impl NoticedBy {
    /// As others are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Writer => "WRITER",
            Self::Sealer => "SEALER",
            Self::Verification => "VERIFICATION",
            Self::Witness => "WITNESS",
        }
    }
}

/// Something is not as the service wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// About what.
    pub about: About,
    /// Who noticed it.
    pub noticed_by: NoticedBy,
    /// When it was noticed first.
    pub since: DateTime<Utc>,
    /// What is wrong, for operators.
    pub text: String,
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.about {
            About::Organization(id) => write!(f, "{id}: {}", self.text),
            About::Partition(_) => f.write_str(&self.text),
        }
    }
}

/// The alarms of this replica.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<BTreeMap<(About, NoticedBy), Alarm>>);

impl Alarms {
    /// Raises one; one that stands already keeps its time.
    pub fn raise(&self, about: About, noticed_by: NoticedBy, text: String) {
        let mut alarms = self.alarms();
        let key = (about, noticed_by);
        if alarms.get(&key).is_some_and(|known| known.text == text) {
            return;
        }
        tracing::error!(about = ?key.0, %text, "the log is not as the service wrote it");
        if alarms.len() < ALARMS_MAX || alarms.contains_key(&key) {
            let since = alarms.get(&key).map_or_else(Utc::now, |known| known.since);
            alarms.insert(key.clone(), Alarm { about: key.0, noticed_by, since, text });
        }
        metrics::gauge!("tenancy_audit_alarms").set(alarms.len() as f64);
    }

    /// Takes one back.
    pub fn clear(&self, about: About, noticed_by: NoticedBy) {
        let mut alarms = self.alarms();
        let key = (about, noticed_by);
        if alarms.remove(&key).is_some() {
            tracing::warn!(about = ?key.0, "the log is again as the service wrote it");
            metrics::gauge!("tenancy_audit_alarms").set(alarms.len() as f64);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Alarm> {
        self.alarms().values().cloned().collect()
    }

    /// Whether there is one.
    pub fn is_raised(&self) -> bool {
        !self.alarms().is_empty()
    }

    /// What is to be told to members of this organization, which lies in this partition: nothing of another one.
    pub fn told(&self, organization: &str, partition: i16) -> Option<String> {
        let alarms = self.alarms();
        let own = alarms.values().find(|alarm| alarm.about == About::Organization(organization.to_owned()));
        let near = || alarms.values().find(|alarm| alarm.about == About::Partition(partition));
        own.map(|alarm| alarm.text.clone()).or_else(|| near().map(|_| NOT_THE_SERVICES.to_owned()))
    }

    fn alarms(&self) -> MutexGuard<'_, BTreeMap<(About, NoticedBy), Alarm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What members are told whose organization lies beside one of which something is wrong.
pub const NOT_THE_SERVICES: &str = "something was changed in this part of the log by other means than the service: \
    nothing new is signed until its operators have looked at it";
