//! Sealing: from events to trees, behind the log.
//!
//! Like a projection, but never made afresh: what was sealed stays as it was, so that an event that somebody changes
//! later no longer fits. Rows and cursor change in one transaction; the lock of the cursor is the lease.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::leaf::Leaf;
use super::merkle::{Frontier, Hash};
use super::note::{Checkpoint, Signer, VerifierKey, checkpoint_of, open, sign};
use crate::log::{COLUMNS, Log, LogError, StoredEvent};

/// The most events of a partition that are sealed in one transaction.
const EVENTS_MAX: i64 = 1_000;
/// The most partitions that are sealed in one transaction.
const PARTITIONS_MAX: i64 = 16;
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
}

/// A stored event with its metadata.
#[derive(sqlx::FromRow)]
struct Row {
    metadata: String,
    #[sqlx(flatten)]
    event: StoredEvent,
}

/// The name of an organization's tree in its checkpoints. After a restore to an earlier point it is another tree: what
/// was signed of the first may be gone.
pub fn origin(name: &str, organization: &str, epoch: i64) -> String {
    match epoch {
        1 => format!("{name}/{organization}"),
        epoch => format!("{name}/{organization}/{epoch}"),
    }
}

/// A tree that grows.
struct Tree {
    /// Whether it is there already. One that is and has failed is left as it is.
    begun: bool,
    frontier: Frontier,
    failure: Option<String>,
    partition: i16,
    /// New hashes by level and number.
    added: BTreeMap<(i16, u64), Hash>,
}

impl Tree {
    fn new(partition: i16) -> Self {
        Self { begun: false, frontier: Frontier::default(), failure: None, partition, added: BTreeMap::new() }
    }

    fn grow(&mut self, leaf: &Leaf, sequence: Option<i64>) {
        if self.failure.is_some() {
            return;
        }
        let expected = self.frontier.size() + 1;
        if sequence.map(i64::unsigned_abs) != Some(expected) {
            let (id, found) = (leaf.event_id.clone().unwrap_or_default(), sequence.unwrap_or_default());
            self.failure = Some(format!("event {id} has the audit sequence {found}, where {expected} follows"));
            return;
        }
        let (index, added) = (self.frontier.size(), &mut self.added);
        self.frontier.push(leaf.hash(), |height, root| {
            if height % TILE_HEIGHT == 0 {
                let level = i16::try_from(height / TILE_HEIGHT).unwrap_or(i16::MAX);
                added.insert((level, index >> height), *root);
            }
        });
    }
}

impl Sealer {
    /// Seals by these keys, which there has to be one of.
    pub fn new(pool: PgPool, log: Arc<Log>, signers: Vec<Signer>) -> Self {
        let verifiers: Vec<VerifierKey> = signers.iter().map(|signer| signer.verifier().clone()).collect();
        let signed_by = verifiers.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        Self { pool, log, signers, verifiers, signed_by }
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
            let more = sealed.await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the audit trail is not sealed at the moment");
                false
            });
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
        // At once: what is only dropped keeps its locks until the connection is used again.
        match sealed {
            Ok(_) => transaction.commit().await?,
            Err(_) => transaction.rollback().await?,
        }
        sealed
    }

    async fn seal(&self, connection: &mut PgConnection, partition: Option<i16>) -> Result<bool, LogError> {
        let cursors = lease(connection, partition).await?;
        let rows = read(connection, &cursors).await?;
        let mut reached: HashMap<i16, (i64, i64)> = cursors.iter().map(|(number, at)| (*number, (*at, 0))).collect();
        let mut organizations: Vec<&str> = vec![];
        for Row { event, .. } in &rows {
            let (at, count) = reached.entry(event.partition).or_default();
            if event.offset != *at + 1 {
                return Err(LogError::Corrupt(format!(
                    "offset {} of partition {} follows {at}: the log has a gap",
                    event.offset, event.partition
                )));
            }
            (*at, *count) = (event.offset, *count + 1);
            organizations.extend(event.organization_id.as_deref());
        }
        if rows.is_empty() {
            return Ok(false);
        }
        organizations.sort_unstable();
        organizations.dedup();
        let mut trees = self.trees(connection, &organizations).await?;
        for Row { event, metadata } in &rows {
            let Some(organization) = &event.organization_id else { continue };
            let tree = trees.entry(organization.clone()).or_insert_with(|| Tree::new(event.partition));
            let failed = tree.failure.is_some();
            tree.grow(&Leaf::new(event, metadata), event.audit_sequence);
            if let Some(failure) = tree.failure.as_ref().filter(|_| !failed) {
                tracing::error!(%organization, %failure, "the audit trail is not sealed any further");
            }
        }
        self.save(connection, &trees).await?;
        let more = reached.values().any(|(_, count)| *count == EVENTS_MAX) || cursors.len() as i64 == PARTITIONS_MAX;
        let (partitions, offsets): (Vec<i16>, Vec<i64>) =
            reached.into_iter().map(|(number, (at, _))| (number, at)).unzip();
        sqlx::query!(
            r#"UPDATE seals s SET "offset" = r.at FROM unnest($1::smallint[], $2::bigint[]) AS r(number, at)
               WHERE s.partition = r.number"#,
            &partitions,
            &offsets
        )
        .execute(connection)
        .await?;
        Ok(more)
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

    async fn save(&self, connection: &mut PgConnection, trees: &HashMap<String, Tree>) -> Result<(), LogError> {
        let now = Utc::now();
        let epoch = self.log.epoch();
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
        Ok(())
    }
}

/// Columns of `sealed_trees`.
#[derive(Default)]
struct Heads<'a> {
    organizations: Vec<&'a str>,
    sizes: Vec<i64>,
    peaks: Vec<Vec<u8>>,
    roots: Vec<Vec<u8>>,
    notes: Vec<String>,
    failures: Vec<Option<&'a str>>,
    partitions: Vec<i16>,
}

/// Organizations that are not sealed any further.
#[derive(Default)]
struct Failures<'a> {
    organizations: Vec<&'a str>,
    texts: Vec<&'a str>,
}

/// Columns of `sealed_hashes`.
#[derive(Default)]
struct Runs<'a> {
    organizations: Vec<&'a str>,
    levels: Vec<i16>,
    firsts: Vec<i64>,
    hashes: Vec<Vec<u8>>,
    partitions: Vec<i16>,
}

impl<'a> Runs<'a> {
    /// One hash, after all smaller numbers of its level.
    fn add(&mut self, organization: &'a str, partition: i16, level: i16, number: u64, hash: &Hash) {
        let continues = self.organizations.last() == Some(&organization)
            && self.levels.last() == Some(&level)
            && !number.is_multiple_of(TILE);
        match self.hashes.last_mut().filter(|_| continues) {
            Some(run) => run.extend(hash),
            None => {
                self.organizations.push(organization);
                self.partitions.push(partition);
                self.levels.push(level);
                self.firsts.push(number.cast_signed());
                self.hashes.push(hash.to_vec());
            }
        }
    }
}

/// The cursors of partitions, or of this one, that have something new and that nobody else seals.
async fn lease(connection: &mut PgConnection, partition: Option<i16>) -> Result<Vec<(i16, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT partition, "offset" FROM seals s
           WHERE (SELECT "offset" FROM events WHERE partition = s.partition ORDER BY "offset" DESC LIMIT 1) > s."offset"
             AND ($1::smallint IS NULL OR partition = $1)
           ORDER BY partition LIMIT $2 FOR UPDATE SKIP LOCKED"#,
        partition,
        PARTITIONS_MAX
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.partition, row.offset)).collect())
}

async fn read(connection: &mut PgConnection, cursors: &[(i16, i64)]) -> Result<Vec<Row>, sqlx::Error> {
    let (partitions, offsets): (Vec<i16>, Vec<i64>) = cursors.iter().copied().unzip();
    let statement = format!(
        r#"SELECT e.* FROM unnest($1::smallint[], $2::bigint[]) AS c(number, at)
           CROSS JOIN LATERAL (
               SELECT metadata::text AS metadata, {COLUMNS} FROM events
               WHERE partition = c.number AND "offset" > c.at ORDER BY "offset" LIMIT $3
           ) e ORDER BY e.partition, e."offset""#
    );
    sqlx::query_as(&statement).bind(&partitions).bind(&offsets).bind(EVENTS_MAX).fetch_all(connection).await
}
