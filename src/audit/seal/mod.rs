//! Sealing: from events to trees, behind the log.
//!
//! Like a projection, but never made afresh: what was sealed stays as it was, so that an event that somebody changes
//! later no longer fits. Rows and cursor change in one transaction; the lock of the cursor is the lease.
//!
//! Only what the service wrote is sealed: each event is held against its code ([`crate::log::chain`]). And no tree is signed
//! that does not continue what is known of it outside of the database ([`super::heads`]); a new head is known there before it
//! is published. What does not fit stops its partition, or its tree, and raises an alarm.

mod chain;
mod numbered;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use self::chain::{Chain, Leased, follow, lease, read, save_cursors};
use self::numbered::number_installation;
use self::tree::{Failures, Heads, Runs, Tree};
use super::heads::{ChainHead, Heads as KnownHeads, TreeHead};
use super::merkle::Frontier;
use super::note::{Checkpoint, Signer, VerifierKey, checkpoint_of, open, sign};
use super::trail::{Entry, select};
use super::witnesses::Due;
use crate::log::alarms::{About, NoticedBy};
use crate::log::chain::{ChainKey, Columns, Mac};
use crate::log::{Log, LogError};

/// The most events of a partition that are sealed in one transaction.
const EVENTS_MAX: i64 = 1_000;
/// The most partitions that are sealed in one transaction.
const PARTITIONS_MAX: i64 = 16;
/// The most events that a tree which stood still takes in at once.
const CAUGHT_UP_MAX: i64 = 10_000;
/// How long events are gathered, so that a busy organization's head is signed once for many of them.
const GATHER: Duration = Duration::from_millis(250);
/// How often it is looked for what another replica wrote and did not seal.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Hashes that one row may hold, and how many subtrees make up one of the next level.
pub const TILE: u64 = 256;
/// Its binary logarithm.
pub const TILE_HEIGHT: u32 = 8;

/// Seals events.
pub struct Sealer {
    pool: PgPool,
    log: Arc<Log>,
    signers: Vec<Signer>,
    /// The same keys, to look whether a head is one of ours.
    verifiers: Vec<VerifierKey>,
    /// Their texts.
    signed_by: String,
    /// What is known of trees and chains outside of the database.
    known: Arc<KnownHeads>,
    /// Where it is told which trees have grown.
    due: Arc<Due>,
}

/// What a step did.
struct Step {
    /// Whether there may be more to seal.
    more: bool,
    /// The trees of which there are new heads.
    grown: Vec<String>,
}

/// The name of an organization's tree in its checkpoints. After a restore to an earlier point it is another tree: what
/// was signed of the first may be gone.
pub fn origin(name: &str, organization: &str, epoch: i64) -> String {
    match epoch {
        1 => format!("{name}/{organization}"),
        epoch => format!("{name}/{organization}/{epoch}"),
    }
}

impl Sealer {
    /// Seals by these keys, which there has to be one of.
    pub fn new(pool: PgPool, log: Arc<Log>, signers: Vec<Signer>, known: Arc<KnownHeads>, due: Arc<Due>) -> Self {
        let verifiers: Vec<VerifierKey> = signers.iter().map(|signer| signer.verifier().clone()).collect();
        let signed_by = verifiers.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        Self { pool, log, signers, verifiers, signed_by, known, due }
    }

    /// Seals what is appended, until the service stops.
    pub async fn run(&self, stopping: CancellationToken) {
        let mut heads = self.log.heads();
        let mut prepared = false;
        while !stopping.is_cancelled() {
            let sealed = async {
                if !prepared {
                    self.prepare().await?;
                    prepared = true;
                }
                self.step().await
            };
            let mut more = sealed.await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the audit trail is not sealed at the moment");
                false
            });
            if prepared {
                more |= self.seal_installation().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the installation's audit trail is not sealed at the moment");
                    false
                });
                more |= self.seal_access().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the access trail is not sealed at the moment");
                    false
                });
            }
            let woken = async {
                if !more {
                    let _ = tokio::time::timeout(LOOK_EVERY, heads.changed()).await;
                }
                tokio::time::sleep(GATHER).await;
            };
            stopping.run_until_cancelled(woken).await;
        }
    }

    /// Seals whatever there is that nobody else is sealing.
    pub async fn seal_all(&self) -> Result<(), LogError> {
        self.prepare().await?;
        while self.step().await? {}
        while self.seal_installation().await? {}
        while self.seal_access().await? {}
        Ok(())
    }

    /// Makes the cursors, and signs again what other keys than these signed, as far as one of these did too.
    async fn prepare(&self) -> Result<(), LogError> {
        sqlx::query!(
            "INSERT INTO seals (partition) SELECT generate_series(0, $1::int - 1) ON CONFLICT DO NOTHING",
            i32::from(self.log.partitions())
        )
        .execute(&self.pool)
        .await?;
        let mut after = String::new();
        loop {
            let rows = sqlx::query!(
                "SELECT organization_id, note FROM sealed_trees WHERE organization_id > $1 AND signed_by <> $2
                 ORDER BY organization_id LIMIT $3",
                after,
                self.signed_by,
                EVENTS_MAX
            )
            .fetch_all(&self.pool)
            .await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after.clone_from(&last.organization_id);
            for row in rows {
                let signed = open(&row.note, &self.verifiers).map(|text| sign(text, &self.signers));
                let Ok(signed) = signed else { continue };
                sqlx::query!(
                    "UPDATE sealed_trees SET note = $3, signed_by = $4 WHERE organization_id = $1 AND note = $2",
                    row.organization_id,
                    row.note,
                    signed,
                    self.signed_by
                )
                .execute(&self.pool)
                .await?;
            }
        }
    }

    /// Seals a batch; whether there is more. What cannot be sealed in one partition keeps back no other.
    async fn step(&self) -> Result<bool, LogError> {
        let error = match self.try_step(None).await {
            Err(error @ (LogError::Corrupt(_) | LogError::Database(sqlx::Error::Database(_)))) => error,
            done => return done,
        };
        let mut more = false;
        let mut failed = 0;
        for partition in 0..self.log.partitions() {
            match self.try_step(Some(partition)).await {
                Ok(rest) => more |= rest,
                Err(error) => {
                    failed += 1;
                    if is_against_a_key(&error) {
                        let text = format!("partition {partition} holds seals that are there already: {error}");
                        self.log.alarms().raise(About::Partition(partition), NoticedBy::Sealer, text);
                    }
                    tracing::error!(%error, partition, "this partition's audit trails are not sealed");
                }
            }
        }
        metrics::gauge!("tenancy_audit_partitions_not_sealed").set(f64::from(failed));
        if failed == i32::from(self.log.partitions()) { Err(error) } else { Ok(more) }
    }

    async fn try_step(&self, partition: Option<i16>) -> Result<bool, LogError> {
        let mut transaction = self.pool.begin().await?;
        let sealed = self.seal(&mut transaction, partition).await;
        let Step { more, grown } = ended(transaction, sealed).await?;
        self.due.add(grown);
        Ok(more)
    }

    async fn seal(&self, connection: &mut PgConnection, partition: Option<i16>) -> Result<Step, LogError> {
        let leased = lease(connection, partition).await?;
        let nothing = || Step { more: false, grown: vec![] };
        let Some(epoch) = leased.first().map(|leased| leased.epoch) else { return Ok(nothing()) };
        let key = self.log.keys().chain();
        self.known.refresh().map_err(unkept)?;
        let all = leased.len() as i64 == PARTITIONS_MAX;
        let begin = |leased: Leased| {
            let number = leased.cursor.partition;
            (number, Chain::begin(key, leased, self.known.chain(number)))
        };
        let mut chains: HashMap<i16, Chain> = leased.into_iter().map(begin).collect();
        let rows = read(connection, &chains).await?;
        let full = follow(&mut chains, &rows, key);
        let sealed = |row: &&Entry| chains.get(&row.event.partition).is_some_and(|chain| chain.holds(row.event.offset));
        let rows: Vec<&Entry> = rows.iter().filter(sealed).collect();
        let mut trees = self.grow(connection, &rows, &chains, epoch).await?;
        number_installation(connection, &rows).await?;
        for (organization, tree) in &mut trees {
            tree.end(full.contains(&tree.partition) || tree.behind);
            if let Some(failure) = tree.failure.as_ref().filter(|_| !tree.failed_before) {
                self.log.alarms().raise(About::Organization(organization.clone()), NoticedBy::Sealer, failure.clone());
            }
        }
        let heads = self.save(connection, &trees, epoch).await?;
        let ends = save_cursors(connection, key, chains.values(), epoch).await?;
        self.tell(chains.values());
        let grown = heads.iter().map(|(name, _)| name.clone()).collect();
        self.keep(heads, ends).await?;
        let moved = |chain: &Chain| chain.moved() && (all || full.contains(&chain.cursor.partition));
        Ok(Step { more: chains.values().any(moved), grown })
    }

    /// The organizations' trees with these events, which hold.
    async fn grow(
        &self,
        connection: &mut PgConnection,
        rows: &[&Entry],
        chains: &HashMap<i16, Chain>,
        epoch: i64,
    ) -> Result<HashMap<String, Tree>, LogError> {
        // Of each organization the first number.
        let mut firsts: BTreeMap<&str, i64> = BTreeMap::new();
        for row in rows {
            if let Some(organization) = row.event.organization_id.as_deref() {
                firsts.entry(organization).or_insert(row.number);
            }
        }
        let organizations: Vec<&str> = firsts.keys().copied().collect();
        let mut trees = self.trees(connection, &organizations).await?;
        let key = self.log.keys().chain();
        let without_mac = |partition| chains.get(&partition).map_or(0, |chain| chain.cursor.without_mac);
        for (organization, first) in firsts {
            let partition = self.log.partition_of(organization);
            let tree = trees.entry(organization.to_owned()).or_insert_with(|| Tree::new(partition));
            tree.expect(self.known.tree(organization), epoch);
            if tree.failure.is_none() && first > tree.frontier.size().cast_signed() + 1 {
                catch_up(connection, key, organization, tree, (first, &without_mac)).await?;
            }
        }
        for row in rows {
            let Some(tree) = row.event.organization_id.as_ref().and_then(|id| trees.get_mut(id)) else { continue };
            tree.grow(row.leaf().hash(), &row.event.event_id, row.number);
        }
        Ok(trees)
    }

    /// Makes known outside of the database what is about to be published.
    async fn keep(&self, trees: Vec<(String, TreeHead)>, chains: Vec<(i16, ChainHead)>) -> Result<(), LogError> {
        let known = self.known.clone();
        let kept = tokio::task::spawn_blocking(move || known.keep(&trees, &chains)).await;
        kept.map_err(|error| LogError::Corrupt(error.to_string()))?.map_err(unkept)
    }

    /// Raises alarms for partitions that do not hold, and takes them back for those that do again.
    fn tell<'a>(&self, chains: impl Iterator<Item = &'a Chain>) {
        for chain in chains {
            let about = About::Partition(chain.cursor.partition);
            match &chain.failure {
                Some(failure) => self.log.alarms().raise(about, NoticedBy::Sealer, failure.clone()),
                None => self.log.alarms().clear(about, NoticedBy::Sealer),
            }
        }
    }

    /// The trees of these organizations, each as its newest head says: one that none of our keys signed, or that is not
    /// what was signed, does not grow. So nobody gets another history signed by writing to the database.
    async fn trees(
        &self,
        connection: &mut PgConnection,
        organizations: &[&str],
    ) -> Result<HashMap<String, Tree>, LogError> {
        let rows = sqlx::query!(
            "SELECT t.organization_id, t.size, t.peaks, t.note, t.failure, t.partition FROM unnest($1::text[]) AS o(id)
             CROSS JOIN LATERAL (SELECT * FROM sealed_trees WHERE organization_id = o.id) t",
            organizations as &[&str]
        )
        .fetch_all(connection)
        .await?;
        let mut trees = HashMap::new();
        for row in rows {
            let mut tree = Tree::new(row.partition);
            tree.begun = true;
            tree.failed_before = row.failure.is_some();
            tree.failure = row.failure;
            let (peaks, rest) = row.peaks.as_chunks::<32>();
            let kept = Frontier::new(row.size.unsigned_abs(), peaks.to_vec()).filter(|_| rest.is_empty());
            let signed = checkpoint_of(&row.note, &self.verifiers, &row.organization_id);
            match (kept, signed) {
                (Some(kept), Ok(head)) if (head.size, head.root) == (kept.size(), kept.root()) => tree.frontier = kept,
                (_, Ok(_)) => _ = tree.failure.get_or_insert("what was kept of the tree is not what was signed".into()),
                (_, Err(error)) => _ = tree.failure.get_or_insert(format!("its newest head does not count: {error}")),
            }
            trees.insert(row.organization_id, tree);
        }
        Ok(trees)
    }

    /// Writes the trees as they are now, and gives the heads that are new.
    async fn save(
        &self,
        connection: &mut PgConnection,
        trees: &HashMap<String, Tree>,
        epoch: i64,
    ) -> Result<Vec<(String, TreeHead)>, LogError> {
        let now = Utc::now();
        let mut new = vec![];
        let mut heads = Heads::default();
        let mut runs = Runs::default();
        let mut failures = Failures::default();
        for (organization, tree) in trees {
            if let Some(failure) = tree.failure.as_deref().filter(|_| tree.begun && tree.added.is_empty()) {
                failures.organizations.push(organization);
                failures.texts.push(failure);
                continue;
            }
            let name = self.signers.first().map_or("", |signer| signer.verifier().name());
            let (size, root) = (tree.frontier.size(), tree.frontier.root());
            new.push((organization.clone(), TreeHead { epoch, size, root }));
            let checkpoint = Checkpoint { origin: origin(name, organization, epoch), size, root };
            heads.organizations.push(organization);
            heads.sizes.push(size.cast_signed());
            heads.peaks.push(tree.frontier.peaks().concat());
            heads.roots.push(root.to_vec());
            heads.notes.push(sign(&checkpoint.to_string(), &self.signers));
            heads.failures.push(tree.failure.as_deref());
            heads.partitions.push(tree.partition);
            for ((level, number), hash) in &tree.added {
                runs.add(organization, tree.partition, *level, *number, hash);
            }
        }
        sqlx::query!(
            "INSERT INTO sealed_hashes (organization_id, level, first, hashes, partition)
             SELECT * FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::bytea[], $5::smallint[])",
            &runs.organizations as &[&str],
            &runs.levels,
            &runs.firsts,
            &runs.hashes,
            &runs.partitions
        )
        .execute(&mut *connection)
        .await?;
        sqlx::query!(
            "INSERT INTO sealed_trees (organization_id, size, peaks, root, note, failure, partition, sealed_at, signed_by)
             SELECT *, $8, $9 FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::smallint[])
             ON CONFLICT (organization_id) DO UPDATE
             SET size = EXCLUDED.size, peaks = EXCLUDED.peaks, root = EXCLUDED.root, note = EXCLUDED.note,
                 signed_by = EXCLUDED.signed_by, failure = EXCLUDED.failure, sealed_at = EXCLUDED.sealed_at",
            &heads.organizations as &[&str],
            &heads.sizes,
            &heads.peaks,
            &heads.roots,
            &heads.notes,
            &heads.failures as &[Option<&str>],
            &heads.partitions,
            now as DateTime<Utc>,
            self.signed_by
        )
        .execute(&mut *connection)
        .await?;
        if !failures.organizations.is_empty() {
            sqlx::query!(
                "UPDATE sealed_trees t SET failure = f.failure FROM unnest($1::text[], $2::text[]) AS f(id, failure)
                 WHERE t.organization_id = f.id AND t.failure IS NULL",
                &failures.organizations as &[&str],
                &failures.texts as &[&str]
            )
            .execute(connection)
            .await?;
        }
        Ok(new)
    }
}

/// Has a tree take in the events of its trail before number `first` that passed while it stood still. Their partition's chain
/// held then; it is looked again whether each is still what the service wrote. `without_mac` says up to which offset of a
/// partition events have no code.
async fn catch_up(
    connection: &mut PgConnection,
    key: &ChainKey,
    trail: &str,
    tree: &mut Tree,
    (first, without_mac): (i64, &(dyn Fn(i16) -> i64 + Sync)),
) -> Result<(), sqlx::Error> {
    #[derive(sqlx::FromRow)]
    struct Passed {
        before: Mac,
        #[sqlx(flatten)]
        entry: Entry,
    }
    let entries = select(trail);
    let statement = format!(
        r#"SELECT p.*, COALESCE((
               SELECT b.mac FROM events b WHERE b.partition = p.partition AND b."offset" = p."offset" - 1
           ), '') AS before
           FROM ({entries} AND number > $2 AND number < $3 ORDER BY number LIMIT $4) p ORDER BY p.number"#
    );
    let query = sqlx::query_as(&statement).bind(trail).bind(tree.frontier.size().cast_signed()).bind(first);
    let passed: Vec<Passed> = query.bind(CAUGHT_UP_MAX).fetch_all(connection).await?;
    for Passed { before, entry } in passed {
        let event = &entry.event;
        let written = match event.offset <= without_mac(event.partition) {
            true => Mac::new(),
            false => key.of_event(&before, &Columns::of(event, &entry.metadata)),
        };
        if written != entry.mac {
            tree.fail(format!("event {} is not what the service wrote", event.event_id));
            return Ok(());
        }
        tree.grow(entry.leaf().hash(), &event.event_id, entry.number);
    }
    tree.behind = tree.frontier.size() + 1 < first.unsigned_abs();
    Ok(())
}

/// Commits what was done, or takes it back at once: what is only dropped keeps its locks until the connection is used again.
async fn ended<T>(
    transaction: sqlx::Transaction<'_, sqlx::Postgres>,
    done: Result<T, LogError>,
) -> Result<T, LogError> {
    match done {
        Ok(_) => transaction.commit().await?,
        Err(_) => transaction.rollback().await?,
    }
    done
}

/// Whether something would be there twice: somebody has taken away what says that it is.
fn is_against_a_key(error: &LogError) -> bool {
    matches!(error, LogError::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
}

fn unkept(error: super::heads::Error) -> LogError {
    LogError::Unkept(error.to_string())
}
