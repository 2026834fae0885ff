//! The trails whose order nothing else says: the installation's and the access trail.
//!
//! A trail's order has to be on record for good before a tree of it is signed: a head outlives a transaction that is rolled
//! back and a commit that a dying server loses, and another order would then be another tree of the same size. So what is new
//! is numbered in one transaction, which is flushed, and the tree grows by what is numbered in another.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::super::access::Record;
use super::super::trail::{ACCESS, Entry, INSTALLATION};
use super::{EVENTS_MAX, Sealer, Step, Tree, catch_up, ended, unkept};
use crate::log::LogError;
use crate::log::access::{ACCESS_ROWS, AccessRow, sealed};
use crate::log::alarms::{About, NoticedBy};

impl Sealer {
    /// Seals what is numbered of the installation's trail; whether there is more.
    pub(super) async fn seal_installation(&self) -> Result<bool, LogError> {
        self.seal_numbered(INSTALLATION).await
    }

    /// Seals a batch of the access trail; whether there is more.
    pub(super) async fn seal_access(&self) -> Result<bool, LogError> {
        let mut transaction = self.pool.begin().await?;
        let numbered = self.number_access(&mut transaction).await;
        let more = ended(transaction, numbered).await?;
        Ok(self.seal_numbered(ACCESS).await? || more)
    }

    async fn seal_numbered(&self, trail: &'static str) -> Result<bool, LogError> {
        let mut transaction = self.pool.begin().await?;
        let grown = self.grow_numbered(&mut transaction, trail).await;
        let Step { more, grown } = ended(transaction, grown).await?;
        self.due.add(grown);
        Ok(more)
    }

    async fn grow_numbered(&self, connection: &mut PgConnection, trail: &'static str) -> Result<Step, LogError> {
        let nothing = || Step { more: false, grown: vec![] };
        let Some(epoch) = self.epoch_of(connection, trail).await? else { return Ok(nothing()) };
        self.known.refresh().map_err(unkept)?;
        let mut tree = self.trees(connection, &[trail]).await?.remove(trail).unwrap_or_else(|| Tree::new(0));
        tree.expect(self.known.tree(trail), epoch);
        let begun = tree.frontier.size();
        if tree.failure.is_none() {
            match trail {
                ACCESS => self.grow_access(connection, &mut tree).await?,
                _ => self.grow_installation(connection, &mut tree).await?,
            }
        }
        let behind = tree.behind;
        tree.end(behind);
        if let Some(failure) = tree.failure.as_ref().filter(|_| !tree.failed_before) {
            self.log.alarms().raise(About::Organization(trail.to_owned()), NoticedBy::Sealer, failure.clone());
        }
        let (grown, failed) = (tree.frontier.size() > begun, tree.failure.is_some() && !tree.failed_before);
        if !grown && !failed {
            return Ok(nothing());
        }
        let heads = self.save(connection, &HashMap::from([(trail.to_owned(), tree)]), epoch).await?;
        self.keep(heads, vec![]).await?;
        Ok(Step { more: behind && grown, grown: if grown { vec![trail.to_owned()] } else { vec![] } })
    }

    /// The epoch, for one transaction at a time; none while another has the trail, or if nobody recovered into this one:
    /// that stops everything, and the partitions speak of it.
    async fn epoch_of(&self, connection: &mut PgConnection, trail: &str) -> Result<Option<i64>, sqlx::Error> {
        let row = sqlx::query!(
            r#"SELECT epoch, epoch_code, pg_try_advisory_xact_lock(hashtext('tenancy trail ' || $1)) AS "own!"
               FROM installation"#,
            trail
        );
        let row = row.fetch_one(connection).await?;
        let recovered = row.epoch == 1 || row.epoch_code == self.log.keys().chain().of_epoch(row.epoch);
        Ok(Some(row.epoch).filter(|_| row.own && recovered))
    }

    /// Takes in a batch of what is numbered.
    async fn grow_installation(&self, connection: &mut PgConnection, tree: &mut Tree) -> Result<(), sqlx::Error> {
        let last = sqlx::query_scalar!(r#"SELECT COALESCE(max(number), 0) AS "last!" FROM installation_trail"#);
        let next = last.fetch_one(&mut *connection).await? + 1;
        if tree.frontier.size() + 1 >= next.unsigned_abs() {
            return Ok(());
        }
        let without = sqlx::query!("SELECT partition, without_mac FROM seals").fetch_all(&mut *connection).await?;
        let without: HashMap<i16, i64> = without.into_iter().map(|row| (row.partition, row.without_mac)).collect();
        let without_mac = |partition| without.get(&partition).copied().unwrap_or_default();
        catch_up(connection, self.log.keys().chain(), INSTALLATION, tree, (next, &without_mac)).await
    }

    /// Takes in a batch of what is numbered.
    async fn grow_access(&self, connection: &mut PgConnection, tree: &mut Tree) -> Result<(), LogError> {
        let after = tree.frontier.size().cast_signed();
        let rows = sealed(connection, (after, i64::MAX), EVENTS_MAX).await?;
        for numbered in &rows {
            match numbered.row.is_own(self.log.keys().chain()) {
                true => tree.grow(Record::of(&numbered.row).hash(), &numbered.row.id, numbered.number),
                false => tree.fail(format!("record {} is not what the service wrote", numbered.row.id)),
            }
        }
        tree.behind = rows.len() as i64 == EVENTS_MAX;
        Ok(())
    }

    /// Numbers what waits, after what is numbered, and takes it off; whether there is more. What the service did not write
    /// keeps the rest waiting.
    async fn number_access(&self, connection: &mut PgConnection) -> Result<bool, LogError> {
        if self.epoch_of(connection, ACCESS).await?.is_none() {
            return Ok(false);
        }
        let statement = format!(
            "SELECT t.* FROM (SELECT id, part FROM access_unsealed ORDER BY id, part LIMIT $1) u
             CROSS JOIN LATERAL (SELECT * FROM {ACCESS_ROWS} a WHERE a.id = u.id AND a.part = u.part) t ORDER BY t.id, t.part"
        );
        let rows: Vec<AccessRow> = sqlx::query_as(&statement).bind(EVENTS_MAX).fetch_all(&mut *connection).await?;
        if let Some(row) = rows.iter().find(|row| !row.is_own(self.log.keys().chain())) {
            let text = format!("record {} is not what the service wrote", row.id);
            self.log.alarms().raise(About::Organization(ACCESS.to_owned()), NoticedBy::Sealer, text);
            return Ok(false);
        }
        if rows.is_empty() {
            return Ok(false);
        }
        flushed(connection).await?;
        sqlx::query_file!(
            "src/audit/seal/number_access.sql",
            &rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.part).collect::<Vec<_>>(),
            ACCESS
        )
        .execute(connection)
        .await?;
        Ok(rows.len() as i64 == EVENTS_MAX)
    }
}

/// Numbers those of these events that belong to no organization in the installation's trail, after what is there, unless they
/// are there. One transaction does so at a time.
pub(super) async fn number_installation(connection: &mut PgConnection, rows: &[&Entry]) -> Result<(), sqlx::Error> {
    let outside: Vec<&Entry> = rows.iter().copied().filter(|row| row.event.organization_id.is_none()).collect();
    if outside.is_empty() {
        return Ok(());
    }
    flushed(connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('tenancy installation trail'))")
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        r#"INSERT INTO installation_trail (number, partition, "offset")
           SELECT last.number + row_number() OVER (ORDER BY n.place), n.partition, n.at
           FROM (SELECT COALESCE(max(number), 0) AS number FROM installation_trail) AS last
           CROSS JOIN unnest($1::smallint[], $2::bigint[]) WITH ORDINALITY AS n(partition, at, place)
           WHERE NOT EXISTS (SELECT FROM installation_trail WHERE partition = n.partition AND "offset" = n.at)"#,
        &outside.iter().map(|row| row.event.partition).collect::<Vec<_>>(),
        &outside.iter().map(|row| row.event.offset).collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Has this transaction's commit wait for the disk, and with it what was committed before.
async fn flushed(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL synchronous_commit TO on").execute(connection).await?;
    Ok(())
}
