//! What was sealed, and proofs from it.

use std::collections::HashMap;

use aggregates::PRUNED;
use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::leaf::Leaf;
use super::merkle::{Hash, Range, complete_subtrees, consistency_ranges, empty_root, inclusion_ranges, join};
use super::note::{Checkpoint, text_of};
use super::seal::{TILE, TILE_HEIGHT};
use crate::log::{COLUMNS, LogError, StoredEvent};

/// The newest signed head of an organization's tree.
#[derive(Debug, Clone)]
pub struct Head {
    /// The checkpoint as a signed note, with cosignatures where enough witnesses have cosigned it.
    pub note: String,
    /// How many events it covers.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// When it was signed.
    pub sealed_at: DateTime<Utc>,
    /// Why nothing follows it: the log is not what it was.
    pub failure: Option<String>,
    /// The newest head that enough witnesses have cosigned, with their cosignatures. It may be this one.
    pub witnessed: Option<String>,
}

impl Head {
    /// The size of the newest head that enough witnesses have cosigned, if that is one of the same epoch.
    pub fn witnessed_size(&self) -> Option<u64> {
        let checkpoint = |note: &str| text_of(note).ok()?.parse::<Checkpoint>().ok();
        let (own, witnessed) = (checkpoint(&self.note)?, checkpoint(self.witnessed.as_deref()?)?);
        (own.origin == witnessed.origin).then_some(witnessed.size)
    }
}

/// That an event is in the tree of this size.
#[derive(Debug, Clone)]
pub struct Inclusion {
    /// The bytes that are hashed.
    pub leaf: Leaf,
    /// The size.
    pub size: u64,
    /// The hashes of RFC 6962.
    pub path: Vec<Hash>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum NoProof {
    /// The numbers do not fit what is sealed.
    #[error("{0}")]
    OutOfRange(String),
    /// The log failed, or what is sealed is not whole.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl NoProof {
    /// Of an event that has no content any more.
    pub fn pruned(organization: &str) -> Self {
        Self::OutOfRange(format!(
            "{organization} was purged, and the time is over for which its trail was kept: of its events there are only hashes"
        ))
    }
}

impl From<sqlx::Error> for NoProof {
    fn from(error: sqlx::Error) -> Self {
        Self::Log(error.into())
    }
}

fn sealed_only(size: u64) -> NoProof {
    NoProof::OutOfRange(format!("the newest checkpoint covers {size} events: ask again in a moment, or for less"))
}

/// The newest head; `None` while nothing is sealed.
pub async fn head(pool: impl PgExecutor<'_> + Copy, organization: &str) -> Result<Option<Head>, LogError> {
    let row = sqlx::query!(
        r#"SELECT t.size, t.root, t.note, t.sealed_at, t.failure, w.note AS "witnessed?"
           FROM sealed_trees t
           LEFT JOIN witnessed_trees w ON w.partition = t.partition AND w.organization_id = t.organization_id
           WHERE t.organization_id = $1"#,
        organization
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let root = row.root.try_into().map_err(|_| LogError::Corrupt("a sealed root has not 32 bytes".into()))?;
    let (size, note) = (row.size.unsigned_abs(), cosigned(row.note, row.witnessed.as_deref()));
    Ok(Some(Head { note, size, root, sealed_at: row.sealed_at, failure: row.failure, witnessed: row.witnessed }))
}

/// The note with cosignatures, if those are of it.
fn cosigned(note: String, witnessed: Option<&str>) -> String {
    match witnessed.filter(|witnessed| text_of(witnessed) == text_of(&note)) {
        Some(witnessed) => witnessed.to_owned(),
        None => note,
    }
}

/// The newest heads of an organization.
#[derive(Debug, Clone)]
pub struct Notes {
    /// The newest one.
    pub newest: String,
    /// The newest one that enough witnesses have cosigned, if that is another one.
    pub witnessed: Option<String>,
}

/// The notes of the newest heads of these organizations, as far as there is something sealed of them.
pub async fn notes<'a>(
    pool: impl PgExecutor<'_> + Copy,
    organizations: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<(String, Notes)>, LogError> {
    let organizations: Vec<&str> = organizations.into_iter().collect();
    let rows = sqlx::query!(
        r#"SELECT t.organization_id, t.note, w.note AS "witnessed?" FROM unnest($1::text[]) AS o(id)
           CROSS JOIN LATERAL (SELECT * FROM sealed_trees WHERE organization_id = o.id) t
           LEFT JOIN witnessed_trees w ON w.partition = t.partition AND w.organization_id = t.organization_id"#,
        &organizations as &[&str]
    )
    .fetch_all(pool)
    .await?;
    let notes = rows.into_iter().map(|row| {
        let newest = cosigned(row.note, row.witnessed.as_deref());
        let witnessed = row.witnessed.filter(|witnessed| *witnessed != newest);
        (row.organization_id, Notes { newest, witnessed })
    });
    Ok(notes.collect())
}

async fn sealed_size(
    pool: impl PgExecutor<'_> + Copy,
    organization: &str,
    wanted: Option<u64>,
) -> Result<u64, NoProof> {
    let sealed = head(pool, organization).await?.map_or(0, |head| head.size);
    match wanted {
        Some(size) if size > sealed => Err(sealed_only(sealed)),
        Some(size) => Ok(size),
        None => Ok(sealed),
    }
}

/// The proof that the event of this audit sequence is in the tree of `size` events (of all sealed ones, without).
pub async fn inclusion(
    pool: impl PgExecutor<'_> + Copy,
    organization: &str,
    audit_sequence: u64,
    size: Option<u64>,
) -> Result<Inclusion, NoProof> {
    let size = sealed_size(pool, organization, size).await?;
    let index =
        audit_sequence.checked_sub(1).ok_or_else(|| NoProof::OutOfRange("events are numbered from 1".into()))?;
    let ranges = inclusion_ranges(index, size)
        .ok_or_else(|| NoProof::OutOfRange(format!("a tree of {size} events has no event {audit_sequence}")))?;
    let statement = format!(
        "SELECT metadata::text AS metadata, {COLUMNS} FROM events WHERE organization_id = $1 AND audit_sequence = $2"
    );
    #[derive(sqlx::FromRow)]
    struct Row {
        metadata: String,
        #[sqlx(flatten)]
        event: StoredEvent,
    }
    let row: Option<Row> =
        sqlx::query_as(&statement).bind(organization).bind(audit_sequence.cast_signed()).fetch_optional(pool).await?;
    let gone = || LogError::Corrupt(format!("event {audit_sequence} of {organization} was sealed and is not there"));
    let row = row.ok_or_else(gone)?;
    if row.event.event_type == PRUNED.name {
        return Err(NoProof::pruned(organization));
    }
    let path = hashes(pool, organization, &ranges).await?;
    Ok(Inclusion { leaf: Leaf::new(&row.event, &row.metadata), size, path })
}

/// The sizes of both trees, and the proof that the first is the beginning of the second.
pub async fn consistency(
    pool: impl PgExecutor<'_> + Copy,
    organization: &str,
    from: u64,
    to: Option<u64>,
) -> Result<(u64, Vec<Hash>), NoProof> {
    let to = sealed_size(pool, organization, to).await?;
    let ranges = consistency_ranges(from, to).ok_or_else(|| {
        NoProof::OutOfRange(format!("fromSize has to be between 1 and {to}, the size of the other tree"))
    })?;
    Ok((to, hashes(pool, organization, &ranges).await?))
}

/// The hash of each of these ranges of a sealed tree, by one statement.
pub async fn hashes(
    pool: impl PgExecutor<'_> + Copy,
    organization: &str,
    ranges: &[Range],
) -> Result<Vec<Hash>, LogError> {
    let wanted: Vec<Vec<Stored>> =
        ranges.iter().map(|range| complete_subtrees(*range).into_iter().map(Stored::of).collect()).collect();
    let all: Vec<Stored> = wanted.iter().flatten().copied().collect();
    let found = stored(pool, organization, &all).await?;
    let missing = || LogError::Corrupt(format!("sealed hashes of {organization} are missing"));
    let subtree = |stored: &Stored| {
        let hashes: Option<Vec<Hash>> = (stored.first..stored.first + stored.count)
            .map(|number| found.get(&(stored.level, number)).copied())
            .collect();
        // As many as a power of two, so joining them from the right halves them evenly.
        hashes.map(|mut hashes| {
            while hashes.len() > 1 {
                hashes = hashes.chunks(2).filter_map(join).collect();
            }
            hashes
        })
    };
    let range = |subtrees: &Vec<Stored>| {
        let roots: Option<Vec<Vec<Hash>>> = subtrees.iter().map(subtree).collect();
        join(&roots?.concat())
    };
    wanted.iter().map(|subtrees| range(subtrees).ok_or_else(missing)).collect()
}

/// What was read of a tree, or `None` where some of its hashes are missing. A database that does not answer says nothing of either.
pub(super) fn there<T>(read: Result<T, LogError>) -> Result<Option<T>, LogError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(LogError::Corrupt(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The root of the sealed tree when it had so many leaves.
pub async fn root_at(pool: impl PgExecutor<'_> + Copy, organization: &str, size: u64) -> Result<Hash, LogError> {
    let ranges: Vec<Range> =
        complete_subtrees((0, size)).into_iter().map(|(height, at)| (at, at + (1 << height))).collect();
    Ok(join(&hashes(pool, organization, &ranges).await?).unwrap_or_else(empty_root))
}

/// So many hashes of a level from a multiple of 256 on; `None` where the newest tree does not have them.
pub async fn tile(
    pool: impl PgExecutor<'_> + Copy,
    organization: &str,
    level: i16,
    number: u64,
    width: u64,
) -> Result<Option<Vec<Hash>>, LogError> {
    let wanted = Stored { level, first: number * TILE, count: width };
    let found = stored(pool, organization, &[wanted]).await?;
    let hashes = (wanted.first..wanted.first + width).map(|number| found.get(&(level, number)).copied());
    Ok(hashes.collect())
}

/// Which stored hashes make up a complete subtree.
#[derive(Debug, Clone, Copy)]
struct Stored {
    level: i16,
    first: u64,
    count: u64,
}

impl Stored {
    fn of((height, first): (u32, u64)) -> Self {
        let level = height / TILE_HEIGHT;
        Self {
            level: i16::try_from(level).unwrap_or(i16::MAX),
            first: first >> (level * TILE_HEIGHT),
            count: 1 << (height % TILE_HEIGHT),
        }
    }
}

async fn stored(
    pool: impl PgExecutor<'_> + Copy,
    organization: &str,
    wanted: &[Stored],
) -> Result<HashMap<(i16, u64), Hash>, LogError> {
    let levels: Vec<i16> = wanted.iter().map(|stored| stored.level).collect();
    // A run that holds the first one may begin before it, but in the same tile.
    let after: Vec<i64> = wanted.iter().map(|stored| (stored.first - stored.first % TILE).cast_signed()).collect();
    let until: Vec<i64> = wanted.iter().map(|stored| (stored.first + stored.count).cast_signed()).collect();
    let rows = sqlx::query!(
        "SELECT h.level, h.first, h.hashes FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS w(level, after, until)
         CROSS JOIN LATERAL (
             SELECT * FROM sealed_hashes
             WHERE organization_id = $1 AND level = w.level AND first >= w.after AND first < w.until
         ) h",
        organization,
        &levels,
        &after,
        &until
    )
    .fetch_all(pool)
    .await?;
    let mut found = HashMap::new();
    for row in rows {
        let (hashes, _) = row.hashes.as_chunks::<32>();
        found.extend((row.first.unsigned_abs()..).zip(hashes).map(|(number, hash)| ((row.level, number), *hash)));
    }
    Ok(found)
}
