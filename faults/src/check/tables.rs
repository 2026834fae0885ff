//! What is made from the log (claims, tallies, read models, checkpoints) against the fold of the log. Columns that
//! hold personal data are left out: the checker has no key.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgPool, Row};

use super::findings::Findings;
use super::model::{Limit, Model, Organization};

/// A table as rows by key.
pub type Rows = BTreeMap<String, Value>;

/// The tables, how their rows are named, and what of them is compared.
pub const TABLES: [(&str, &str); 8] = [
    ("claims", "SELECT scope || ' ' || key, to_jsonb(t) FROM claims t"),
    ("tallies", "SELECT organization_id || ' ' || name, to_jsonb(t) FROM tallies t"),
    ("organizations", "SELECT id, to_jsonb(t) - 'contact_email' FROM organizations_1.organizations t"),
    ("settings", "SELECT organization_id || ' ' || namespace, to_jsonb(t) FROM organizations_1.settings t"),
    ("members", "SELECT id, to_jsonb(t) FROM members_1.members t"),
    ("invitations", "SELECT id, to_jsonb(t) - 'email' FROM invitations_1.invitations t"),
    ("projects", "SELECT id, to_jsonb(t) FROM projects_1.projects t"),
    ("users", "SELECT id, to_jsonb(t) - 'email' - 'name' FROM users_1.users t"),
];

/// Reads the tables.
pub async fn load(pool: &PgPool) -> Result<BTreeMap<&'static str, Rows>, sqlx::Error> {
    let mut tables = BTreeMap::new();
    for (name, statement) in TABLES {
        let rows = sqlx::query(statement).fetch_all(pool).await?;
        tables.insert(name, rows.iter().map(|row| (row.get::<String, _>(0), row.get::<Value, _>(1))).collect());
    }
    Ok(tables)
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

/// What the tables should hold, by table: the check that compares it, and the rows.
pub fn expected(model: &Model) -> [(&'static str, &'static str, Rows); 8] {
    [
        ("claims", "claims equal a fold of the log", claims(model)),
        ("tallies", "tallies equal a fold of the log", tallies(model)),
        ("organizations", "the read model of organizations equals a fold of the log", organizations(model)),
        ("settings", "the read model of settings equals a fold of the log", settings(model)),
        ("members", "the read model of members equals a fold of the log", members(model)),
        ("invitations", "the read model of invitations equals a fold of the log", invitations(model)),
        ("projects", "the read model of projects equals a fold of the log", projects(model)),
        ("users", "the read model of users equals a fold of the log", users(model)),
    ]
}

/// Compares the tables with the model.
pub fn check(model: &Model, tables: &BTreeMap<&'static str, Rows>, findings: &mut Findings) {
    let none = Rows::new();
    for (table, check, expected) in expected(model) {
        compare(check, &expected, tables.get(table).unwrap_or(&none), findings);
    }
}

fn compare(check: &'static str, expected: &Rows, found: &Rows, findings: &mut Findings) {
    for (key, row) in expected {
        match found.get(key) {
            None => findings.add(check, || format!("{key} is missing; the log says {row}")),
            Some(found) => {
                if let Some(difference) = difference(row, found) {
                    findings.add(check, || format!("{key}: {difference}"));
                }
            }
        }
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        findings.add(check, || format!("{key} is there, and the log knows nothing of it"));
    }
}

fn difference(expected: &Value, found: &Value) -> Option<String> {
    let fields = expected.as_object()?;
    let differs = |name: &String, value: &Value| !same(value, found.get(name).unwrap_or(&Value::Null));
    let wrong = fields.iter().find(|(name, value)| differs(name, value));
    wrong.map(|(name, value)| format!("{name} is {}, and the log says {value}", found[name.as_str()]))
}

/// Whether two values are the same; times may be written in different ways.
fn same(one: &Value, other: &Value) -> bool {
    let time = |value: &Value| value.as_str()?.parse::<DateTime<Utc>>().ok();
    one == other || time(one).is_some_and(|at| Some(at) == time(other))
}

fn claims(model: &Model) -> Rows {
    let row = |claim: &super::model::Claim| {
        json!({"holder": claim.holder, "organization_id": claim.organization, "partition": claim.partition,
               "until": claim.until})
    };
    model.claims.iter().map(|((scope, key), claim)| (format!("{scope} {key}"), row(claim))).collect()
}

fn tallies(model: &Model) -> Rows {
    let mut rows = Rows::new();
    for (id, organization) in &model.organizations {
        let Organization { used, members_limit, projects_limit, partition, owners_floor, .. } = organization;
        let counts = [
            ("members", used.members, *members_limit, 0),
            ("projects", used.projects, *projects_limit, 0),
            ("owners", used.owners, Limit::default(), *owners_floor),
            // The clients make no API tokens and set no limit for them: there is room for a hundred, as from the beginning.
            ("tokens", 0, Limit { maximum: Some(100), reached: false }, 0),
            ("webhooks", used.webhooks, Limit { maximum: Some(100), reached: false }, 0),
        ];
        for (name, used, Limit { maximum, reached }, floor) in counts {
            let row =
                json!({"used": used, "maximum": maximum, "floor": floor, "reached": reached, "partition": partition});
            rows.insert(format!("{id} {name}"), row);
        }
    }
    rows
}

/// What a purged organization leaves in read models: nothing.
fn shown(model: &Model, organization: &str) -> bool {
    model.organizations.get(organization).is_some_and(|organization| !organization.purged)
}

fn organizations(model: &Model) -> Rows {
    let row = |o: &Organization| {
        json!({
            "slug": o.slug, "name": o.name, "external_id": o.external_id, "verification": o.verification,
            "verification_reason": o.verification_reason, "before_block": o.before_block,
            "once_verified": o.once_verified, "lifecycle": o.lifecycle, "before_deletion": o.before_deletion,
            "deleted_by_operator": o.deleted_by_operator, "purge_at": o.purge_at, "plan": o.plan,
            "version": o.version, "created_at": o.created_at, "partition": o.partition, "offset": o.offset,
        })
    };
    model.organizations.iter().filter(|(_, o)| !o.purged).map(|(id, o)| (id.clone(), row(o))).collect()
}

fn settings(model: &Model) -> Rows {
    let mut rows = Rows::new();
    for (id, organization) in model.organizations.iter().filter(|(_, organization)| !organization.purged) {
        for (namespace, (value, offset)) in &organization.settings {
            let row = json!({"value": value, "partition": organization.partition, "offset": offset});
            rows.insert(format!("{id} {namespace}"), row);
        }
    }
    rows
}

fn members(model: &Model) -> Rows {
    let shown = model.members.iter().filter(|(_, m)| shown(model, &m.organization));
    let rows = shown.map(|(id, m)| {
        let row = json!({
            "organization_id": m.organization, "user_id": m.user, "roles": m.roles, "state": m.state,
            "source": m.source, "joined_at": m.joined_at, "version": m.version, "created_at": m.created_at,
            "partition": m.partition, "offset": m.offset,
        });
        (id.clone(), row)
    });
    rows.collect()
}

fn invitations(model: &Model) -> Rows {
    let shown = model.invitations.iter().filter(|(_, i)| shown(model, &i.organization));
    let rows = shown.map(|(id, i)| {
        let row = json!({
            "organization_id": i.organization, "email_claim": i.address, "roles": i.roles, "state": i.state,
            "invited_by": i.invited_by, "accepted_by": i.accepted_by, "expires_at": i.expires_at,
            "version": i.version, "created_at": i.created_at, "partition": i.partition, "offset": i.offset,
        });
        (id.clone(), row)
    });
    rows.collect()
}

fn projects(model: &Model) -> Rows {
    let shown = model.projects.iter().filter(|(_, p)| !p.purged && shown(model, &p.organization));
    let rows = shown.map(|(id, p)| {
        let row = json!({
            "organization_id": p.organization, "slug": p.slug, "name": p.name, "metadata": p.metadata,
            "state": p.state, "before_deletion": p.before_deletion, "purge_at": p.purge_at, "version": p.version,
            "created_at": p.created_at, "partition": p.partition, "offset": p.offset,
        });
        (id.clone(), row)
    });
    rows.collect()
}

fn users(model: &Model) -> Rows {
    let row = |user: &super::model::User| json!({"version": user.version, "created_at": user.created_at, "partition": user.partition, "offset": user.offset});
    model.users.iter().map(|(id, user)| (id.clone(), row(user))).collect()
}
