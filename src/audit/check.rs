//! Whether the log is still what was sealed: for who has the database; others verify a bundle.

use std::collections::HashSet;

use aggregates::PRUNED;
use aggregates::ids::OrganizationId;
use sqlx::PgPool;

use super::leaf::Leaf;
use super::merkle::{Frontier, Hash};
use super::note::{VerifierKey, checkpoint_of};
use super::proofs::hashes;
use super::seal::TILE;
use crate::log::{COLUMNS, LogError, StoredEvent};

/// How many organizations are listed at once.
const PAGE: i64 = 1_000;
/// The most findings of one organization.
const FINDINGS_MAX: usize = 10;
/// The events of an organization by which others of it may have lost their content.
const SAID: [&str; 2] = ["OrgPurged", "OrgPruned"];

#[derive(sqlx::FromRow)]
struct Row {
    metadata: String,
    #[sqlx(flatten)]
    event: StoredEvent,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Checked {
    /// How many sealed events were looked at.
    pub events: u64,
    /// What is not as it was sealed, a line each.
    pub wrong: Vec<String>,
}

/// Compares every sealed event of all organizations, or of one, with what was sealed, and that with the newest head, which
/// one of `keys` has to have signed.
pub async fn check(
    pool: &PgPool,
    keys: &[VerifierKey],
    organization: Option<&OrganizationId>,
) -> Result<Checked, LogError> {
    let mut checked = Checked::default();
    let mut after = String::new();
    loop {
        let trees = sqlx::query!(
            "SELECT organization_id, size, note, failure FROM sealed_trees
             WHERE organization_id > $1 AND ($2::text IS NULL OR organization_id = $2) ORDER BY organization_id LIMIT $3",
            after,
            organization.map(AsRef::as_ref),
            PAGE
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = trees.last() else { return Ok(checked) };
        after.clone_from(&last.organization_id);
        for tree in &trees {
            let id = &tree.organization_id;
            let mut wrong = vec![];
            wrong.extend(tree.failure.as_ref().map(|failure| format!("{id} is not sealed any further: {failure}")));
            let (events, root) = compare(pool, id, tree.size.unsigned_abs(), &mut wrong).await?;
            checked.events += events;
            match checkpoint_of(&tree.note, keys, id) {
                Err(error) => wrong.push(format!("{id}: the newest head does not count: {error}")),
                Ok(head) if head.size != tree.size.unsigned_abs() || root.is_some_and(|root| head.root != root) => {
                    wrong.push(format!(
                        "{id}: what is sealed does not add up to the newest head, of {} events",
                        head.size
                    ));
                }
                Ok(_) => {}
            }
            wrong.truncate(FINDINGS_MAX);
            checked.wrong.extend(wrong);
        }
    }
}

/// Compares the events of an organization; gives how many, and the root that the sealed hashes add up to.
async fn compare(
    pool: &PgPool,
    organization: &str,
    size: u64,
    wrong: &mut Vec<String>,
) -> Result<(u64, Option<Hash>), LogError> {
    let statement = format!(
        "SELECT metadata::text AS metadata, {COLUMNS} FROM events
         WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3 ORDER BY audit_sequence"
    );
    let (mut frontier, mut events) = (Frontier::default(), 0);
    // Events without content, and what says that they may have lost it, as it was sealed.
    let (mut pruned, mut said): (Option<u64>, HashSet<&str>) = (None, HashSet::new());
    while frontier.size() < size {
        let from = frontier.size();
        let to = (from + TILE).min(size);
        let leaves: Vec<(u64, u64)> = (from..to).map(|index| (index, index + 1)).collect();
        let Ok(sealed) = hashes(pool, organization, &leaves).await else {
            wrong.push(format!("{organization}: hashes of events {} to {to} are gone", from + 1));
            return Ok((events, None));
        };
        let rows: Vec<Row> = sqlx::query_as(&statement)
            .bind(organization)
            .bind(from.cast_signed())
            .bind(to.cast_signed())
            .fetch_all(pool)
            .await?;
        let mut rows = rows.into_iter().peekable();
        for (sequence, hash) in (from + 1..).zip(&sealed) {
            frontier.push(*hash, |_, _| {});
            match rows.next_if(|row| row.event.audit_sequence == Some(sequence.cast_signed())) {
                None => wrong.push(format!("{organization}: event {sequence} is gone")),
                Some(row) if row.event.event_type == PRUNED.name => pruned = Some(sequence),
                Some(row) if Leaf::new(&row.event, &row.metadata).hash() != *hash => {
                    let id = row.event.event_id;
                    wrong.push(format!("{organization}: event {sequence} ({id}) is not what was sealed"));
                }
                Some(row) => {
                    events += 1;
                    let own = |name: &&&str| row.event.event_type == **name && row.event.aggregate_id == organization;
                    said.extend(SAID.iter().find(own));
                }
            }
        }
    }
    if let Some(sequence) = pruned.filter(|_| said.len() < SAID.len()) {
        wrong.push(format!("{organization}: event {sequence} has no content, and nothing says that it may be pruned"));
    }
    Ok((events, Some(frontier.root())))
}
