//! Seals the access trail, in batches: as the installation's trail is, its rows are numbered as the sealer comes upon them.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::super::access::Record;
use super::super::trail::ACCESS;
use super::{EVENTS_MAX, Sealer, Step, Tree, unkept};
use crate::log::LogError;
use crate::log::access::{ACCESS_ROWS, AccessRow};
use crate::log::alarms::{About, NoticedBy};

impl Sealer {
    /// Seals a batch of the access trail; whether there is more.
    pub(super) async fn seal_access(&self) -> Result<bool, LogError> {
        let mut transaction = self.pool.begin().await?;
        let sealed = self.access(&mut transaction).await;
        match sealed {
            Ok(_) => transaction.commit().await?,
            Err(_) => transaction.rollback().await?,
        }
        let Step { more, grown } = sealed?;
        self.due.add(grown);
        Ok(more)
    }

    async fn access(&self, connection: &mut PgConnection) -> Result<Step, LogError> {
        let nothing = || Step { more: false, grown: vec![] };
        let rows = waiting(connection).await?;
        let (about, key) = (About::Organization(ACCESS.to_owned()), self.log.keys().chain());
        if let Some(row) = rows.iter().find(|row| !row.is_own(key)) {
            let text = format!("record {} is not what the service wrote", row.id);
            self.log.alarms().raise(about, NoticedBy::Sealer, text);
            return Ok(nothing());
        }
        let installation =
            sqlx::query!("SELECT epoch, epoch_code FROM installation").fetch_one(&mut *connection).await?;
        let epoch = installation.epoch;
        // An epoch that nobody recovered stops everything; the partitions speak of it.
        if rows.is_empty() || (epoch > 1 && installation.epoch_code != key.of_epoch(epoch)) {
            return Ok(nothing());
        }
        self.known.refresh().map_err(unkept)?;
        let mut tree = self.trees(connection, &[ACCESS]).await?.remove(ACCESS).unwrap_or_else(|| Tree::new(0));
        tree.expect(self.known.tree(ACCESS), epoch);
        let begun = tree.frontier.size();
        for (number, row) in (begun + 1..).zip(&rows) {
            tree.grow(Record::of(row).hash(), &row.id, number.cast_signed());
        }
        tree.end(false);
        if let Some(failure) = tree.failure.as_ref().filter(|_| !tree.failed_before) {
            self.log.alarms().raise(about, NoticedBy::Sealer, failure.clone());
        }
        let (grown, more) = (tree.frontier.size() > begun, rows.len() as i64 == EVENTS_MAX);
        let heads = self.save(connection, &HashMap::from([(ACCESS.to_owned(), tree)]), epoch).await?;
        if !grown {
            return Ok(nothing());
        }
        number(connection, begun, &rows).await?;
        let known = self.known.clone();
        let kept = tokio::task::spawn_blocking(move || known.keep(&heads, &[])).await;
        kept.map_err(|error| LogError::Corrupt(error.to_string()))?.map_err(unkept)?;
        Ok(Step { more, grown: vec![ACCESS.to_owned()] })
    }
}

/// Rows that wait, for one transaction at a time; none while another has them.
async fn waiting(connection: &mut PgConnection) -> Result<Vec<AccessRow>, sqlx::Error> {
    let own: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtext('tenancy access trail'))")
        .fetch_one(&mut *connection)
        .await?;
    if !own {
        return Ok(vec![]);
    }
    let statement = format!(
        "SELECT t.* FROM (SELECT id, part FROM access_unsealed ORDER BY id, part LIMIT $1) u
         CROSS JOIN LATERAL (SELECT * FROM {ACCESS_ROWS} a WHERE a.id = u.id AND a.part = u.part) t ORDER BY t.id, t.part"
    );
    sqlx::query_as(&statement).bind(EVENTS_MAX).fetch_all(connection).await
}

/// Numbers these rows after the ones that are sealed, and takes them off those that wait.
async fn number(connection: &mut PgConnection, after: u64, rows: &[AccessRow]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH sealed AS (
             INSERT INTO access_seals (number, id, part)
             SELECT $1 + r.place, r.id, r.part FROM unnest($2::text[], $3::smallint[]) WITH ORDINALITY AS r(id, part, place)
         )
         DELETE FROM access_unsealed u USING unnest($2::text[], $3::smallint[]) AS r(id, part)
         WHERE u.id = r.id AND u.part = r.part",
        after.cast_signed(),
        &rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.part).collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}
