//! How far each projection is in each partition, kept in the database beside what it shows.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgExecutor};

use crate::Projection;

/// Whose checkpoints: those of the tables that serve, or of the ones that are being built beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    Serving,
    Shadow,
}

/// A checkpoint that this transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub projection: Projection,
    pub partition: i16,
    /// The last offset that is shown.
    pub offset: i64,
}

pub(crate) fn names(projections: &[Projection]) -> (Vec<&'static str>, Vec<i32>) {
    projections.iter().map(|projection| (projection.name(), projection.version())).unzip()
}

/// Makes the checkpoints that are missing, at the beginning of the log.
pub(crate) async fn make(
    connection: &mut PgConnection,
    projections: &[Projection],
    tables: Tables,
    partitions: i16,
) -> Result<(), sqlx::Error> {
    let (names, versions) = names(projections);
    sqlx::query!(
        "INSERT INTO checkpoints (projection, version, shadow, partition)
         SELECT p.name, p.version, $3, number
         FROM unnest($1::text[], $2::int[]) AS p(name, version), generate_series(0, $4::int - 1) AS number
         ON CONFLICT DO NOTHING",
        &names as &[&str],
        &versions,
        tables == Tables::Shadow,
        i32::from(partitions)
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the checkpoints of these partitions that are behind the log and that nobody else works on. They stay this
/// transaction's until it ends, and so does the work: that lock is the lease. A replica that has nothing to do locks
/// nothing.
pub(crate) async fn lease(
    connection: &mut PgConnection,
    projections: &[Projection],
    tables: Tables,
    partitions: &[i16],
) -> Result<Vec<Lease>, sqlx::Error> {
    let (names, versions) = names(projections);
    let rows = sqlx::query!(
        r#"WITH heads AS MATERIALIZED (
               SELECT w.number, (SELECT "offset" FROM events WHERE partition = w.number ORDER BY "offset" DESC LIMIT 1) AS head
               FROM unnest($4::smallint[]) AS w(number)
           )
           SELECT c.projection, c.partition, c."offset" FROM checkpoints c JOIN heads h ON h.number = c.partition AND h.head > c."offset"
           JOIN unnest($1::text[], $2::int[]) AS p(name, version) ON p.name = c.projection AND p.version = c.version
           WHERE c.shadow = $3
           ORDER BY c.projection, c.partition FOR UPDATE OF c SKIP LOCKED"#,
        &names as &[&str],
        &versions,
        tables == Tables::Shadow,
        partitions
    )
    .fetch_all(connection)
    .await?;
    let lease = |name: &str, partition, offset| {
        let projection = projections.iter().copied().find(|projection| projection.name() == name)?;
        Some(Lease { projection, partition, offset })
    };
    Ok(rows.iter().filter_map(|row| lease(&row.projection, row.partition, row.offset)).collect())
}

/// Moves held checkpoints to these offsets.
pub(crate) async fn save(
    connection: &mut PgConnection,
    tables: Tables,
    reached: &[(Projection, i16, i64)],
) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = reached.iter().map(|(projection, ..)| projection.name()).collect();
    let versions: Vec<i32> = reached.iter().map(|(projection, ..)| projection.version()).collect();
    let partitions: Vec<i16> = reached.iter().map(|(_, partition, _)| *partition).collect();
    let offsets: Vec<i64> = reached.iter().map(|(.., offset)| *offset).collect();
    sqlx::query!(
        r#"UPDATE checkpoints c SET "offset" = r.at, updated_at = now()
           FROM unnest($1::text[], $2::int[], $3::smallint[], $4::bigint[]) AS r(projection, version, partition, at)
           WHERE c.projection = r.projection AND c.version = r.version AND c.partition = r.partition AND c.shadow = $5"#,
        &names as &[&str],
        &versions,
        &partitions,
        &offsets,
        tables == Tables::Shadow
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The offsets of a projection by partition, locked or as this transaction sees them.
pub(crate) async fn offsets(
    connection: &mut PgConnection,
    projection: Projection,
    tables: Tables,
    locked: bool,
) -> Result<BTreeMap<i16, i64>, sqlx::Error> {
    let mut statement = r#"SELECT partition, "offset" FROM checkpoints
        WHERE projection = $1 AND version = $2 AND shadow = $3 ORDER BY partition"#
        .to_owned();
    if locked {
        statement.push_str(" FOR UPDATE");
    }
    let rows: Vec<(i16, i64)> = sqlx::query_as(&statement)
        .bind(projection.name())
        .bind(projection.version())
        .bind(tables == Tables::Shadow)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Up to which offset of each partition a projection shows everything, by the database. Read this first and its rows
/// after: then it holds of them.
pub async fn complete(
    pool: impl PgExecutor<'_>,
    projection: Projection,
    partitions: &[i16],
) -> Result<BTreeMap<i16, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT c.partition, LEAST(c."offset", (
               SELECT min(k."offset") - 1 FROM parked k
               WHERE k.projection = c.projection AND k.version = c.version AND NOT k.shadow AND k.partition = c.partition
           )) AS "offset!"
           FROM checkpoints c
           WHERE c.projection = $1 AND c.version = $2 AND NOT c.shadow AND c.partition = ANY($3)"#,
        projection.name(),
        projection.version(),
        partitions
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.partition, row.offset)).collect())
}

/// How the read models stand to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// They show it.
    Level,
    /// They do not yet.
    Behind,
    /// They never will as things are: the stream behind it, or another one of its organization, is parked.
    Parked,
}

/// How all read models stand to these offsets, by the database.
pub async fn reached(pool: impl PgExecutor<'_>, wanted: &BTreeMap<i16, i64>) -> Result<Reach, sqlx::Error> {
    let (partitions, offsets): (Vec<i16>, Vec<i64>) = wanted.iter().unzip();
    let (names, versions) = names(&Projection::shown().collect::<Vec<_>>());
    let row = sqlx::query_file!("src/reached.sql", &names as &[&str], &versions, &partitions, &offsets)
        .fetch_one(pool)
        .await?;
    Ok(match (row.parked, row.behind) {
        (true, _) => Reach::Parked,
        (false, true) => Reach::Behind,
        (false, false) => Reach::Level,
    })
}
