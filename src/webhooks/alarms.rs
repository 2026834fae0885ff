//! Alarms as webhooks to those who operate the service.
//!
//! Each replica tells what it noticed itself: another one would have to be believed by way of the database, which is what is
//! doubted. What is still to be told, and what was, stands in a file of the data directory. So an alarm is told once, and until
//! it was taken, however often the service starts.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::sender::{Letter, Sender};
use crate::audit::watch::Progress;
use crate::endpoints::signature::Secret;
use crate::log::Log;
use crate::log::alarms::{About, Alarm, NoticedBy};

/// The name of the file in the data directory.
pub const FILE: &str = "audit.alarms.json";
/// How often it is looked for alarms.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long until a message is sent again that was not taken, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The most messages that wait, and the most alarms that are known to stand. More are told when there is room.
const WAITING_MAX: usize = 1_000;
const STANDING_MAX: usize = 10_000;

/// Why alarms cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("cannot use what is on record of alarms in {0}: {1}")]
pub struct Error(PathBuf, std::io::Error);

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "audit.alarm.raised")]
    Raised,
    #[serde(rename = "audit.alarm.cleared")]
    Cleared,
}

/// A message that was not taken yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Message {
    id: String,
    kind: Kind,
    at: DateTime<Utc>,
    alarm: Alarm,
}

/// What is on record.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Alarms of which a message was written and which were not taken back.
    standing: Vec<Alarm>,
    /// What is to be told, the oldest first.
    waiting: VecDeque<Message>,
}

/// Tells alarms to one address.
pub struct AlarmTeller {
    log: Arc<Log>,
    progress: Arc<Progress>,
    sender: Sender,
    url: String,
    secret: Secret,
    file: PathBuf,
    record: Record,
    /// Those that stood when it was looked last.
    seen: BTreeMap<(About, NoticedBy), Alarm>,
}

impl AlarmTeller {
    /// Goes on with what is on record in this data directory.
    pub fn open(
        (log, progress): (Arc<Log>, Arc<Progress>),
        sender: Sender,
        (url, secret): (String, Secret),
        data_dir: &Path,
    ) -> Result<Self, Error> {
        let file = data_dir.join(FILE);
        let record = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| Error(file.clone(), error.into()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(Error(file, error)),
        };
        Ok(Self { log, progress, sender, url, secret, file, record, seen: BTreeMap::new() })
    }

    /// Tells until the service stops.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let (mut pause, mut told) = (PAUSE_MIN, true);
            loop {
                if self.look() {
                    self.keep();
                }
                if self.record.waiting.is_empty() {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                match self.tell().await {
                    Ok(()) => (pause, told) = (PAUSE_MIN, true),
                    Err(why) => {
                        if std::mem::take(&mut told) {
                            tracing::error!(%why, "an alarm cannot be told to audit.alarm_webhook_url; it is tried again");
                        }
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
            }
        })
        .await;
    }

    /// Writes messages of what has come and gone; whether there is something new on record.
    fn look(&mut self) -> bool {
        let now = self.log.alarms().all();
        let now: BTreeMap<_, _> =
            now.into_iter().map(|alarm| ((alarm.about.clone(), alarm.noticed_by), alarm)).collect();
        // What this process has not seen may only not have been noticed again yet.
        let round = self.progress.rounds().1.is_some();
        let before = self.record.waiting.len();
        let gone = |alarm: &&Alarm| {
            let key = (alarm.about.clone(), alarm.noticed_by);
            !now.contains_key(&key) && (round || self.seen.contains_key(&key))
        };
        let cleared: Vec<Alarm> = self.record.standing.iter().filter(gone).cloned().collect();
        for alarm in cleared {
            self.record.standing.retain(|known| !is_same(known, &alarm));
            self.record.waiting.push_back(Message::new(Kind::Cleared, alarm));
        }
        for alarm in now.values() {
            let room = self.record.waiting.len() < WAITING_MAX && self.record.standing.len() < STANDING_MAX;
            if room && !self.record.standing.iter().any(|known| is_same(known, alarm)) {
                self.record.standing.push(alarm.clone());
                self.record.waiting.push_back(Message::new(Kind::Raised, alarm.clone()));
            }
        }
        self.seen = now;
        self.record.waiting.len() != before
    }

    /// Sends the oldest message; what was taken is off the record.
    async fn tell(&mut self) -> Result<(), String> {
        let Some(message) = self.record.waiting.front() else { return Ok(()) };
        let (now, body) = (Utc::now(), Bytes::from(message.body()));
        let letter = Letter {
            url: self.url.clone(),
            id: message.id.clone(),
            timestamp: now.timestamp(),
            signatures: self.secret.sign(&message.id, now.timestamp(), &body),
            checkpoints: None,
            body,
        };
        match self.sender.send(&letter, now).await.error {
            Some(error) => Err(error),
            None => {
                self.record.waiting.pop_front();
                self.keep();
                Ok(())
            }
        }
    }

    /// Writes the record; where that fails it goes on from memory.
    fn keep(&self) {
        let written = serde_json::to_vec_pretty(&self.record).map_err(std::io::Error::from).and_then(|text| {
            let beside = self.file.with_extension("new");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.file)?;
            self.file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        });
        if let Err(error) = written {
            tracing::warn!(%error, "what was told of alarms is not on record");
        }
    }
}

fn is_same(one: &Alarm, other: &Alarm) -> bool {
    one.about == other.about && one.noticed_by == other.noticed_by
}

impl Message {
    fn new(kind: Kind, alarm: Alarm) -> Self {
        Self { id: format!("alm_{}", Uuid::now_v7().simple()), kind, at: Utc::now(), alarm }
    }

    fn body(&self) -> Vec<u8> {
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let (trail, partition) = match &self.alarm.about {
            About::Organization(trail) => (Some(trail), None),
            About::Partition(partition) => (None, Some(partition)),
        };
        json!({
            "type": self.kind,
            "timestamp": time(self.at),
            "data": {
                "trail": trail,
                "partition": partition,
                "noticedBy": self.alarm.noticed_by.as_str(),
                "since": time(self.alarm.since),
                "message": self.alarm.text,
            },
        })
        .to_string()
        .into_bytes()
    }
}
