//! Witnesses: each new head is shown to witnesses outside, who cosign it if it continues what they saw before.
//!
//! The replica that sealed a head shows it. After its start, and once a day, each replica shows every tree again, whatever the
//! database says of what was cosigned: so a database that was put back to an earlier point, or of which a tree was begun again,
//! is noticed even where the heads of the data directory are lost too. A witness that knows more than there is, or another
//! history, raises an alarm and stops the tree.

mod ask;
mod due;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::iter;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::ask::{Asked, State};
use self::ask::{Said, Shown};
pub use self::due::Due;
use super::cosignature::WitnessKey;
use super::note::{VerifierKey, checkpoint_of, with_lines};
use crate::log::alarms::{About, NoticedBy};
use crate::log::{Log, LogError};

/// How many trees are shown at once.
const AT_ONCE: usize = 8;
/// How many names are taken at once.
const PAGE: usize = 256;
/// How often it is looked whether something is to be shown again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long until a tree is shown again that a witness contradicted, and how long from one time that all are to the next.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
const ALL_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The most trees of which is remembered that they have to be shown again; past that all are.
const AGAIN_MAX: usize = 100_000;
/// How the failure of a tree begins that a witness contradicted.
pub(super) const FOUND: &str = "found by a witness: ";

/// A tree as the database has it.
struct Tree {
    partition: i16,
    size: u64,
    note: String,
    /// What was cosigned last, as far as the database says so.
    witnessed: u64,
}

/// Shows heads to witnesses.
pub struct Witnesses {
    log: Arc<Log>,
    /// Trees are the projector's to write.
    projector: PgPool,
    /// One of these signed each head.
    keys: Vec<VerifierKey>,
    asked: Arc<Asked>,
    due: Arc<Due>,
    /// Whether all trees were shown once.
    shown: watch::Sender<bool>,
}

impl Witnesses {
    /// Shows what is `due` of this log to those who are `asked`.
    pub fn new((log, projector): (Arc<Log>, PgPool), keys: Vec<VerifierKey>, asked: Arc<Asked>, due: Arc<Due>) -> Self {
        Self { log, projector, keys, asked, due, shown: watch::channel(false).0 }
    }

    /// Says when all trees were shown once, or tried to.
    pub fn shown(&self) -> watch::Receiver<bool> {
        self.shown.subscribe()
    }

    /// Shows what becomes due until the service stops.
    pub async fn run(&self, stop: CancellationToken) {
        stop.run_until_cancelled(self.show_all()).await;
    }

    async fn show_all(&self) {
        let (mut again, mut next_all) = (BTreeMap::new(), Instant::now());
        let mut after = None;
        loop {
            let mut names = self.due.take(PAGE);
            take_again(&mut again, &mut names);
            if after.is_none() && (next_all <= Instant::now() || self.due.overflowed()) {
                (after, next_all) = (Some(String::new()), Instant::now() + ALL_EVERY);
            }
            if let Some(last) = after.take_if(|_| names.len() < PAGE) {
                after = self.page(&last, &mut names).await;
            }
            let idle = names.is_empty() && after.is_none();
            let mut shown = iter(names).map(async |name| (self.show(&name).await, name)).buffer_unordered(AT_ONCE);
            while let Some((outcome, name)) = shown.next().await {
                let pause = outcome.unwrap_or_else(|error| {
                    tracing::debug!(%error, %name, "this tree cannot be shown to witnesses at the moment");
                    Some(AGAIN_AFTER)
                });
                let Some(pause) = pause else { continue };
                if again.len() >= AGAIN_MAX {
                    next_all = next_all.min(Instant::now() + AGAIN_AFTER);
                } else {
                    again.insert(name, Instant::now() + pause);
                }
            }
            metrics::gauge!("tenancy_audit_heads_not_cosigned").set((again.len() + self.due.len()) as f64);
            if after.is_none() {
                self.shown.send_replace(true);
            }
            if idle {
                let _ = tokio::time::timeout(LOOK_EVERY, self.due.changed()).await;
            }
        }
    }

    /// Adds the names of trees that follow this one; gives the last one, where more may follow.
    async fn page(&self, after: &str, names: &mut Vec<String>) -> Option<String> {
        let page = sqlx::query_scalar!(
            "SELECT organization_id FROM sealed_trees WHERE organization_id > $1 ORDER BY organization_id LIMIT $2",
            after,
            PAGE as i64
        );
        match page.fetch_all(self.log.pool()).await {
            Ok(page) => {
                let last = page.last().cloned().filter(|_| page.len() == PAGE);
                names.extend(page);
                last
            }
            Err(error) => {
                tracing::debug!(%error, "trees cannot be listed for witnesses at the moment");
                tokio::time::sleep(LOOK_EVERY).await;
                Some(after.to_owned())
            }
        }
    }

    /// Shows a tree to all witnesses; gives after how long to do so again, if that has to be.
    async fn show(&self, name: &str) -> Result<Option<Duration>, LogError> {
        let Some(tree) = self.tree(name).await? else { return Ok(None) };
        // What was not signed by the service is not shown; the sealer and standing verification speak of it.
        let Ok(head) = checkpoint_of(&tree.note, &self.keys, name) else { return Ok(None) };
        if head.size == 0 || head.size != tree.size {
            return Ok(None);
        }
        let shown = Shown { pool: self.log.pool(), name, note: &tree.note, size: tree.size };
        let said = join_all(self.asked.iter().map(|witness| witness.ask(&shown, tree.witnessed))).await;
        let (mut cosigned, mut against, mut again) = (vec![], vec![], None);
        for (said, witness) in said.into_iter().zip(self.asked.iter()) {
            match said {
                Said::Cosigned(line) => cosigned.push(line),
                Said::Knows(size) if self.tree(name).await?.is_some_and(|newer| newer.size >= size) => {
                    // Another replica has shown a newer head meanwhile.
                    again = Some(Duration::ZERO);
                }
                Said::Knows(size) => against.push(format!(
                    "{} cosigned a tree of {size} events, and there is one of {}",
                    witness.key().name(),
                    tree.size
                )),
                Said::Contradicts(why) => against.push(format!("{}: {why}", witness.key().name())),
                Said::Nothing(pause) => again = again.or(pause),
            }
        }
        let lines = cosigned.iter().map(|cosigned| cosigned.line.as_str());
        if cosigned.len() >= self.asked.quorum() && against.is_empty() {
            self.keep(name, &tree, &with_lines(&tree.note, lines), cosigned.len()).await?;
        }
        self.tell(name, &against, !cosigned.is_empty()).await?;
        Ok(if against.is_empty() { again } else { Some(AGAIN_AFTER) })
    }

    async fn tree(&self, name: &str) -> Result<Option<Tree>, LogError> {
        let row = sqlx::query!(
            r#"SELECT t.partition, t.size, t.note, COALESCE(w.size, 0) AS "witnessed!"
               FROM sealed_trees t
               LEFT JOIN witnessed_trees w ON w.partition = t.partition AND w.organization_id = t.organization_id
               WHERE t.organization_id = $1"#,
            name
        )
        .fetch_optional(self.log.pool())
        .await?;
        let size = |size: i64| size.unsigned_abs();
        Ok(row.map(|row| {
            let witnessed = Some(size(row.witnessed)).filter(|witnessed| *witnessed <= size(row.size));
            let (partition, note) = (row.partition, row.note);
            Tree { partition, size: size(row.size), note, witnessed: witnessed.unwrap_or_default() }
        }))
    }

    /// Puts a note on record that enough witnesses cosigned, unless a newer one is there.
    async fn keep(&self, name: &str, tree: &Tree, note: &str, cosignatures: usize) -> Result<(), LogError> {
        sqlx::query!(
            "INSERT INTO witnessed_trees AS w (partition, organization_id, epoch, size, note, cosignatures, cosigned_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (partition, organization_id) DO UPDATE
             SET epoch = $3, size = $4, note = $5, cosignatures = $6, cosigned_at = $7
             WHERE ($3, $4, $6) >= (w.epoch, w.size, w.cosignatures)",
            tree.partition,
            name,
            self.log.epoch(),
            tree.size.cast_signed(),
            note,
            i16::try_from(cosignatures).unwrap_or(i16::MAX),
            Utc::now() as DateTime<Utc>
        )
        .execute(&self.projector)
        .await?;
        Ok(())
    }

    /// Stops a tree that a witness contradicts, and lets it go on that one confirms and none contradicts.
    async fn tell(&self, name: &str, against: &[String], confirmed: bool) -> Result<(), LogError> {
        let about = About::Organization(name.to_owned());
        let failure = match (against.is_empty(), confirmed) {
            (true, false) => return Ok(()),
            (true, true) => {
                self.log.alarms().clear(about, NoticedBy::Witness);
                None
            }
            (false, _) => {
                let text = format!("{FOUND}{}", against.join("; "));
                self.log.alarms().raise(about, NoticedBy::Witness, text.clone());
                Some(text)
            }
        };
        sqlx::query!(
            "UPDATE sealed_trees SET failure = $2
             WHERE organization_id = $1 AND (failure IS NULL OR failure LIKE $3 || '%') AND failure IS DISTINCT FROM $2",
            name,
            failure,
            FOUND
        )
        .execute(&self.projector)
        .await?;
        Ok(())
    }
}

/// Takes those whose time has come, as far as there is room.
fn take_again(again: &mut BTreeMap<String, Instant>, names: &mut Vec<String>) {
    let now = Instant::now();
    let room = PAGE.saturating_sub(names.len());
    let ready: Vec<String> =
        again.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).take(room).collect();
    for name in ready {
        again.remove(&name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

/// The trees of witnesses that are not asked any more go on: nobody would take their word back.
pub async fn forget(projector: &PgPool) -> Result<(), LogError> {
    sqlx::query("UPDATE sealed_trees SET failure = NULL WHERE failure LIKE $1 || '%'")
        .bind(FOUND)
        .execute(projector)
        .await?;
    Ok(())
}

/// Where a witness is, and its key.
#[derive(Debug, Clone)]
pub struct Address {
    /// What `/add-checkpoint` is put behind.
    pub url: reqwest::Url,
    /// Its key.
    pub key: WitnessKey,
}
