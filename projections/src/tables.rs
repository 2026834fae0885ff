//! Tables of read models by the database's own catalogue: copied without their rows, and compared.
//!
//! Names of schemas and tables come from this program and from the catalogue, never from outside.

use serde_json::Value;
use sqlx::PgConnection;

use crate::Projection;

/// A table with its columns, as the catalogue describes them, and the columns of its primary key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Table {
    pub name: String,
    columns: Vec<String>,
    key: Vec<String>,
}

/// Where two tables differ.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// In how many rows.
    pub rows: i64,
    /// The key of the first of them.
    pub key: Value,
    /// The first of them as the read model has it; `None` where it lacks it.
    pub shown: Option<Value>,
    /// The first of them as the log says; `None` where there should be none.
    pub expected: Option<Value>,
}

/// The tables of a schema.
pub(crate) async fn tables(connection: &mut PgConnection, schema: &str) -> Result<Vec<Table>, sqlx::Error> {
    sqlx::query_as(
        "SELECT c.relname::text AS name,
                (SELECT array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull ORDER BY a.attname)
                 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
                (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_index i
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
                 WHERE i.indrelid = c.oid AND i.indisprimary) AS key
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY c.relname",
    )
    .bind(schema)
    .fetch_all(connection)
    .await
}

/// Makes the tables of `from` in `into`, empty, with their keys and without their other indexes: those are made when
/// the rows are there, which is faster.
pub(crate) async fn copy_layout(connection: &mut PgConnection, from: &str, into: &str) -> Result<(), sqlx::Error> {
    for Table { name, .. } in tables(connection, from).await? {
        let statement = format!("CREATE TABLE {into}.{name} (LIKE {from}.{name} INCLUDING ALL EXCLUDING INDEXES)");
        sqlx::query(&statement).execute(&mut *connection).await?;
        let keys: Vec<(String, String)> = sqlx::query_as(
            "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint
             WHERE conrelid = ($1 || '.' || $2)::regclass AND contype IN ('p', 'u') ORDER BY conname",
        )
        .bind(from)
        .bind(&name)
        .fetch_all(&mut *connection)
        .await?;
        for (key, definition) in keys {
            let statement = format!("ALTER TABLE {into}.{name} ADD CONSTRAINT {key} {definition}");
            sqlx::query(&statement).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// Makes the other indexes of the tables of `from` in `into`, as far as they are missing.
pub(crate) async fn copy_indexes(connection: &mut PgConnection, from: &str, into: &str) -> Result<(), sqlx::Error> {
    let definitions: Vec<(String, String)> = sqlx::query_as(
        "SELECT t.relname::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
         JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
         WHERE n.nspname = $1 AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid) ORDER BY i.indexrelid",
    )
    .bind(from)
    .fetch_all(&mut *connection)
    .await?;
    for (table, definition) in definitions {
        let statement = definition.replacen(" INDEX ", " INDEX IF NOT EXISTS ", 1).replacen(
            &format!(" ON {from}.{table} "),
            &format!(" ON {into}.{table} "),
            1,
        );
        sqlx::query(&statement).execute(&mut *connection).await?;
    }
    for Table { name, .. } in tables(connection, into).await? {
        sqlx::query(&format!("ANALYZE {into}.{name}")).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Which rows of a table are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    All,
    Partition(i16),
    Organization(&'a str),
}

/// Compares the rows of a table in two schemas, column by column.
pub(crate) async fn difference(
    connection: &mut PgConnection,
    table: &Table,
    shown: &str,
    expected: &str,
    rows: Rows<'_>,
) -> Result<Option<Difference>, sqlx::Error> {
    let Table { name, key, .. } = table;
    let condition = match rows {
        Rows::All => "true".to_owned(),
        Rows::Partition(number) => format!("partition = {number}"),
        Rows::Organization(_) if name == "organizations" => "id = $1".to_owned(),
        Rows::Organization(_) if name == "terms" => {
            r#"(partition, "offset") IN (SELECT partition, "offset" FROM public.events WHERE organization_id = $1)"#
                .to_owned()
        }
        Rows::Organization(_) => "organization_id = $1".to_owned(),
    };
    let key = key.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
    // Only the keys and one row leave the join, so that a large table does not pass through it as text.
    let statement = format!(
        "WITH differing AS MATERIALIZED (
             SELECT {key}, to_jsonb(s) AS shown, to_jsonb(e) AS expected
             FROM (SELECT * FROM {shown}.{name} WHERE {condition}) s
             FULL JOIN (SELECT * FROM {expected}.{name} WHERE {condition}) e USING ({key})
             WHERE to_jsonb(s) IS DISTINCT FROM to_jsonb(e)
         )
         SELECT (SELECT count(*) FROM differing), jsonb_build_array({key}), shown, expected
         FROM differing ORDER BY {key} LIMIT 1"
    );
    let mut query = sqlx::query_as(&statement);
    if let Rows::Organization(id) = rows {
        query = query.bind(id);
    }
    let found: Option<(i64, Value, Option<Value>, Option<Value>)> = query.fetch_optional(connection).await?;
    Ok(found.map(|(rows, key, shown, expected)| Difference { table: name.clone(), rows, key, shown, expected }))
}

/// Whether the column holds what is personal: that it differs may be said, but not what is in it.
fn is_personal(table: &str, column: &str) -> bool {
    Projection::ALL.iter().any(|projection| projection.personal().contains(&(table, column)))
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key: Vec<&str> = self.key.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        write!(f, "{} {}: ", self.table, key.join("/"))?;
        match (&self.shown, &self.expected) {
            (Some(_), None) => write!(f, "there is a row, and by the log there should be none")?,
            (None, _) => write!(f, "there is no row, and by the log there should be one")?,
            (Some(shown), Some(expected)) => {
                let columns = expected.as_object().into_iter().flatten();
                let differing = columns.filter(|(column, value)| shown.get(column) != Some(value));
                let described = differing.map(|(column, value)| {
                    let is = shown.get(column).unwrap_or(&Value::Null);
                    match is_personal(&self.table, column) {
                        true => format!("{column} is another than by the log"),
                        false => format!("{column} is {is}, and by the log {value}"),
                    }
                });
                f.write_str(&described.collect::<Vec<_>>().join("; "))?;
            }
        }
        if self.rows > 1 {
            write!(f, " (and {} more rows)", self.rows - 1)?;
        }
        Ok(())
    }
}
