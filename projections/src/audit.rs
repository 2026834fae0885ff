//! By what events of the audit trail are found: their actions, their actors and what they belong together by.
//!
//! A row is the hash of a term and the place of an event. Two terms may share a hash, so whoever reads looks at the
//! event itself too. What is in the log never changes, and so no row here ever does; what is pruned there goes here with it.

use aggregates::{Event, Recorded};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::Projection;
use crate::fold::Outbox;
use crate::rebuild::{REBUILD_LOCKS, unfinished};

/// What events are found by.
#[derive(Debug, Clone, Copy)]
pub enum Term<'a> {
    /// The stored name of an event, within an organization.
    Action {
        /// The organization.
        organization: &'a str,
        /// The stored name.
        event_type: &'a str,
    },
    /// The actor, by the id behind it, within an organization.
    Actor {
        /// The organization.
        organization: &'a str,
        /// The id; see [`actor_id`].
        actor: &'a str,
    },
    /// What belongs together, over all organizations.
    Correlation(&'a [u8; 16]),
}

impl Term<'_> {
    /// The term as it is stored.
    pub fn hash(&self) -> i64 {
        let (kind, parts): (u8, [&[u8]; 2]) = match self {
            Self::Action { organization, event_type } => (1, [organization.as_bytes(), event_type.as_bytes()]),
            Self::Actor { organization, actor } => (2, [organization.as_bytes(), actor.as_bytes()]),
            Self::Correlation(id) => (3, [id.as_slice(), &[]]),
        };
        // Ids hold no zero bytes, and the first part of the last kind has a length of its own.
        let hash = Sha256::new().chain_update([kind]).chain_update(parts[0]).chain_update([0]).chain_update(parts[1]);
        hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
    }
}

/// The id behind the stored text of an actor (`user:usr_…`); what has none (`system`) is its own.
pub fn actor_id(actor: &str) -> &str {
    actor.split_once(':').map_or(actor, |(_, id)| id)
}

/// The terms of an event. One that belongs to no organization is looked for over all of them only, and one that was
/// pruned not at all.
fn terms(recorded: &Recorded) -> Vec<i64> {
    if recorded.event == Event::Pruned {
        return vec![];
    }
    let mut terms = vec![Term::Correlation(recorded.origin.correlation_id.as_bytes()).hash()];
    if let Some(organization) = &recorded.organization {
        let (organization, actor) = (organization.as_ref(), recorded.origin.actor.to_string());
        terms.push(Term::Action { organization, event_type: recorded.event.descriptor().name }.hash());
        terms.push(Term::Actor { organization, actor: actor_id(&actor) }.hash());
    }
    terms
}

/// The audit trail is complete without it, so nobody waits for it.
pub const IS_SHOWN: bool = false;
/// Whether something comes of its events that is kept nowhere else.
pub const HAS_OUTBOX: bool = false;
/// It holds hashes.
pub const PERSONAL: &[(&str, &str)] = &[];

/// It reads events of every kind.
pub fn reads(_: &str) -> bool {
    true
}

/// It shows nothing that is purged by itself.
pub fn purged_from() -> Option<&'static str> {
    None
}

/// The rows are as true as the log, and making them again changes nothing.
pub async fn forget(_: &mut PgConnection, _: &[&str]) -> Result<(), sqlx::Error> {
    Ok(())
}

pub async fn apply(connection: &mut PgConnection, events: &[&Recorded], _: &Outbox<'_>) -> Result<(), sqlx::Error> {
    let row = |recorded: &&Recorded| {
        let place = (recorded.partition, recorded.offset);
        terms(recorded).into_iter().map(move |term| (term, place))
    };
    let mut rows: Vec<(i64, (i16, i64))> = events.iter().flat_map(row).collect();
    // In the order of the key: a batch has many rows of few terms.
    rows.sort_unstable();
    sqlx::query!(
        r#"INSERT INTO terms (term, "offset", partition)
           SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[]) ON CONFLICT DO NOTHING"#,
        crate::column!(rows, |(term, _)| *term),
        crate::column!(rows, |(_, (_, offset))| *offset),
        crate::column!(rows, |(_, (partition, _))| *partition)
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Terms are forgotten; while this is held nobody rebuilds them.
#[derive(Debug)]
pub struct Forgotten(Transaction<'static, Postgres>);

impl Forgotten {
    /// Lets rebuilds go on: the events say nothing any more that could be found again.
    pub async fn let_go(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}

/// Forgets these entries of a partition, term and offset, before their events are pruned. `None` while the terms are
/// rebuilt: the tables that are filled would keep them.
pub async fn forget_terms(
    pool: &PgPool,
    partition: i16,
    entries: &[(i64, i64)],
) -> Result<Option<Forgotten>, sqlx::Error> {
    let mut held = pool.begin().await?;
    let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock_shared($1, $2)")
        .bind(REBUILD_LOCKS)
        .bind(Projection::Audit.lock())
        .fetch_one(&mut *held)
        .await?;
    if !free || unfinished(pool).await?.contains(&Projection::Audit) {
        held.rollback().await?;
        return Ok(None);
    }
    sqlx::query!(
        r#"DELETE FROM terms t USING unnest($1::bigint[], $2::bigint[]) AS gone(term, at)
           WHERE t.term = gone.term AND t.partition = $3 AND t."offset" = gone.at"#,
        crate::column!(entries, |(term, _)| *term),
        crate::column!(entries, |(_, offset)| *offset),
        partition
    )
    .execute(pool)
    .await?;
    Ok(Some(Forgotten(held)))
}
