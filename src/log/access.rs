//! Rows of the access trail as they are stored, coded and sealed.
//!
//! They are no events, and lie beside the log: `requests` writes them, `audit` seals them.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, PgExecutor};

use super::chain::{ChainKey, Mac};
use super::{Log, LogError};

/// The rows of both tables as one: `part` is 1 for what happened first in a minute, and 2 for how often it came again.
pub const ACCESS_ROWS: &str = "(
    SELECT 1::smallint AS part, id, created_at, kind, actor, operation, organization_id, reached_organization_id, target_id, times,
           ip, mac
    FROM access_trail
    UNION ALL
    SELECT 2::smallint, id, created_at, NULL, NULL, NULL, NULL, NULL, NULL, times, NULL, mac FROM access_repeats
)";

/// A row. Of a repetition there are id, time and number only.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
#[allow(missing_docs)]
pub struct AccessRow {
    pub part: i16,
    pub id: String,
    pub created_at: DateTime<Utc>,
    pub kind: Option<String>,
    pub actor: Option<String>,
    pub operation: Option<String>,
    pub organization_id: Option<String>,
    pub reached_organization_id: Option<String>,
    pub target_id: Option<String>,
    pub times: i64,
    pub ip: Option<String>,
    /// Its code; empty for one of before there were codes.
    pub mac: Mac,
}

impl AccessRow {
    /// The row with its code.
    pub fn coded(mut self, key: &ChainKey) -> Self {
        self.mac = key.of_access(&self);
        self
    }

    /// Whether the service wrote it.
    pub fn is_own(&self, key: &ChainKey) -> bool {
        self.mac == key.of_access(self)
    }
}

/// A row with its number in the trail: sealed, or about to be.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Numbered {
    /// The number, from 1.
    pub number: i64,
    /// The row.
    #[sqlx(flatten)]
    pub row: AccessRow,
}

/// The rows with numbers after `after` up to `to`, so many of them at most.
pub async fn sealed(
    executor: impl sqlx::PgExecutor<'_>,
    (after, to): (i64, i64),
    limit: i64,
) -> Result<Vec<Numbered>, LogError> {
    let statement = format!(
        "SELECT s.number, t.* FROM access_seals s
         CROSS JOIN LATERAL (SELECT * FROM {ACCESS_ROWS} a WHERE a.id = s.id AND a.part = s.part) t
         WHERE s.number > $1 AND s.number <= $2 ORDER BY s.number LIMIT $3"
    );
    Ok(sqlx::query_as(&statement).bind(after).bind(to).bind(limit).fetch_all(executor).await?)
}

/// Up to which number rows were dropped with age, and whether the service says so.
pub async fn dropped(pool: impl PgExecutor<'_>, key: &ChainKey) -> Result<(i64, bool), LogError> {
    let row = sqlx::query!("SELECT number, code FROM access_dropped").fetch_optional(pool).await?;
    Ok(row.map_or((0, true), |row| (row.number, row.code == key.of_access_dropped(row.number))))
}

/// Drops some rows that are older than so many days, in the order in which they were sealed, and puts on record that it did. A
/// row that the service did not write, or that follows a gap, is left for those who look at the alarm.
pub async fn drop_old(log: &Log, days: i32, most: i64) -> Result<(), LogError> {
    let mut connection = log.pool().acquire().await?;
    let mut transaction = connection.begin().await?;
    let begun = sqlx::query!(
        "INSERT INTO access_dropped (number, code) VALUES (0, $1) ON CONFLICT DO NOTHING",
        log.keys().chain().of_access_dropped(0)
    );
    begun.execute(&mut *transaction).await?;
    let before = sqlx::query!(r#"SELECT number, code, now() AS "now!" FROM access_dropped FOR UPDATE"#)
        .fetch_one(&mut *transaction)
        .await?;
    // By the database's time: a replica whose clock is ahead would drop what is to be kept.
    let (key, cutoff) = (log.keys().chain(), before.now - chrono::TimeDelta::days(days.into()));
    if before.code == key.of_access_dropped(before.number) {
        // What has a number only is in no tree yet.
        let size = sqlx::query_scalar!(
            r#"SELECT COALESCE((SELECT size FROM sealed_trees WHERE organization_id = 'access'), 0) AS "size!""#
        );
        let size = size.fetch_one(&mut *transaction).await?;
        let rows = sealed(&mut *transaction, (before.number, size), most).await?;
        let due = |(at, found): &(i64, &Numbered)| {
            found.number == *at && found.row.is_own(key) && found.row.created_at < cutoff
        };
        let old: Vec<&Numbered> = (before.number + 1..).zip(&rows).take_while(due).map(|(_, found)| found).collect();
        if let Some(last) = old.last() {
            delete(&mut transaction, &old, key.of_access_dropped(last.number)).await?;
        }
    }
    // Those of before there were codes are in no tree.
    for table in ["access_repeats", "access_trail"] {
        let statement = format!(
            "DELETE FROM {table} WHERE ctid IN (
                 SELECT ctid FROM {table} WHERE created_at < now() - make_interval(days => $1) AND mac = '' LIMIT $2
             )"
        );
        sqlx::query(&statement).bind(days).bind(most).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

async fn delete(connection: &mut PgConnection, old: &[&Numbered], code: Mac) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH old AS (SELECT * FROM unnest($1::bigint[], $2::text[], $3::smallint[]) AS o(number, id, part)), records AS (
             DELETE FROM access_trail t USING old WHERE t.id = old.id AND old.part = 1
         ), repeats AS (
             DELETE FROM access_repeats t USING old WHERE t.id = old.id AND old.part = 2
         ), lines AS (
             DELETE FROM access_seals s USING old WHERE s.number = old.number
         )
         UPDATE access_dropped SET number = (SELECT max(number) FROM old), code = $4",
        &old.iter().map(|old| old.number).collect::<Vec<_>>(),
        &old.iter().map(|old| old.row.id.clone()).collect::<Vec<_>>(),
        &old.iter().map(|old| old.row.part).collect::<Vec<_>>(),
        code
    )
    .execute(connection)
    .await?;
    Ok(())
}
