//! What is made from the log (claims, tallies, read models, checkpoints, destroyed keys) against the fold of the log. Columns
//! that hold personal data are left out: the checker has no key.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgPool, Row};

use super::findings::Findings;
use super::model::{Claim, Model, Tally};
use crate::kinds::KINDS;

/// Rows by key.
pub type Rows = BTreeMap<String, Value>;

/// A table that is made from the log.
pub struct Table {
    pub name: &'static str,
    /// The check that compares it.
    pub check: &'static str,
    /// Its rows: how each is named, and what of it is compared.
    pub statement: &'static str,
    /// The rows that it should have.
    pub rows: fn(&Model) -> Rows,
}

const ENFORCED: &[Table] = &[
    Table {
        name: "claims",
        check: "claims equal a fold of the log",
        statement: "SELECT scope || ' ' || key, to_jsonb(t) FROM claims t",
        rows: claims,
    },
    Table {
        name: "tallies",
        check: "tallies equal a fold of the log",
        statement: "SELECT organization_id || ' ' || name, to_jsonb(t) FROM tallies t",
        rows: tallies,
    },
];

/// All tables.
pub fn all() -> impl Iterator<Item = &'static Table> {
    ENFORCED.iter().chain(KINDS.iter().flat_map(|kind| kind.tables))
}

/// What the database holds.
#[derive(Default)]
pub struct Found {
    pub tables: BTreeMap<&'static str, Rows>,
    /// Organizations of which nothing but the places of their events is left.
    pub pruned: Vec<String>,
    /// Streams whose keys are there, and those of which a tombstone says that theirs are not.
    pub keys: Vec<String>,
    pub tombstones: Vec<String>,
}

/// Reads the tables.
pub async fn load(pool: &PgPool) -> Result<Found, sqlx::Error> {
    let mut tables = BTreeMap::new();
    for table in all() {
        let rows = sqlx::query(table.statement).fetch_all(pool).await?;
        tables.insert(table.name, rows.iter().map(|row| (row.get::<String, _>(0), row.get::<Value, _>(1))).collect());
    }
    let ids = |statement: &'static str| sqlx::query_scalar(statement).fetch_all(pool);
    Ok(Found {
        tables,
        pruned: ids("SELECT organization_id FROM prunings WHERE pruned_at IS NOT NULL").await?,
        keys: ids("SELECT subject_id FROM subject_keys WHERE wrapped IS NOT NULL").await?,
        tombstones: ids("SELECT subject_id FROM tombstones").await?,
    })
}

/// Projections that are not where the log ends, and streams that they leave out.
pub async fn behind(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let statement = r#"SELECT format('%s in partition %s at %s of %s', projection, partition, "offset", head)
        FROM (SELECT c.*, COALESCE((SELECT max("offset") FROM events e WHERE e.partition = c.partition), 0) AS head
              FROM checkpoints c WHERE NOT shadow) c WHERE "offset" <> head
        UNION ALL
        SELECT format('%s leaves out %s from offset %s of partition %s: %s', projection, aggregate_id, "offset", partition, failure)
        FROM parked ORDER BY 1"#;
    sqlx::query_scalar(statement).fetch_all(pool).await
}

/// Compares what the database holds with the model.
pub fn check(model: &Model, found: &Found, findings: &mut Findings) {
    let none = Rows::new();
    for table in all() {
        compare(model, table, found.tables.get(table.name).unwrap_or(&none), findings);
    }
    for stream in &model.keys_destroyed {
        if found.keys.contains(stream) {
            findings.add("an erasure destroys the person's key", || format!("the key of {stream} is there"));
        }
        if !found.tombstones.contains(stream) {
            findings.add("an erasure leaves a tombstone", || format!("there is none of {stream}"));
        }
    }
}

fn compare(model: &Model, table: &Table, found: &Rows, findings: &mut Findings) {
    let expected = (table.rows)(model);
    for (key, row) in &expected {
        match found.get(key) {
            None => findings.add(table.check, || format!("{key} is missing; the log says {row}")),
            Some(found) => {
                if let Some(difference) = difference(row, found) {
                    findings.add(table.check, || format!("{key}: {difference}"));
                }
            }
        }
    }
    // What is still there of a trail that is about to be pruned says nothing.
    let is_half_pruned = |row: &Value| row["organization_id"].as_str().is_some_and(|id| model.half_pruned.contains(id));
    for (key, _) in found.iter().filter(|(key, row)| !expected.contains_key(*key) && !is_half_pruned(row)) {
        findings.add(table.check, || format!("{key} is there, and the log knows nothing of it"));
    }
}

fn difference(expected: &Value, found: &Value) -> Option<String> {
    let fields = expected.as_object()?;
    let differs = |name: &String, value: &Value| !same(value, found.get(name).unwrap_or(&Value::Null));
    let wrong = fields.iter().find(|(name, value)| differs(name, value));
    wrong.map(|(name, value)| format!("{name} is {}, and the log says {value}", found[name.as_str()]))
}

/// Whether two values are the same; times may be written in different ways, and columns have them to the microsecond.
fn same(one: &Value, other: &Value) -> bool {
    let time = |value: &Value| Some(value.as_str()?.parse::<DateTime<Utc>>().ok()?.timestamp_micros());
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let in_other = |(name, value)| other.get(name).is_some_and(|other| same(value, other));
            one.len() == other.len() && one.iter().all(in_other)
        }
        _ => one == other || time(one).is_some_and(|at| Some(at) == time(other)),
    }
}

fn claims(model: &Model) -> Rows {
    let row = |claim: &Claim| {
        json!({"holder": claim.holder, "organization_id": claim.organization, "partition": claim.partition,
               "until": claim.until})
    };
    model.claims.iter().map(|((scope, key), claim)| (format!("{scope} {key}"), row(claim))).collect()
}

fn tallies(model: &Model) -> Rows {
    let mut rows = Rows::new();
    for (id, organization) in &model.organizations {
        for (name, Tally { used, maximum, floor, reached }) in &organization.tallies {
            let row = json!({"used": used, "maximum": maximum, "floor": floor, "reached": reached,
                             "partition": organization.place.partition});
            rows.insert(format!("{id} {name}"), row);
        }
    }
    rows
}
