//! Projects.

use std::collections::HashMap;

use aggregates::project::{ProjectEvent, ProjectState};
use aggregates::{Event, Recorded};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::{column, name};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    id: String,
    organization_id: String,
    slug: String,
    name: String,
    metadata: Value,
    state: ProjectState,
    before_deletion: ProjectState,
    purge_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    partition: i16,
    offset: i64,
    /// Purged: its row goes.
    #[serde(skip)]
    purged: bool,
}

pub async fn apply(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    show(connection, events).await?;
    let purged = crate::purged(events);
    if !purged.is_empty() {
        forget(connection, &purged).await?;
    }
    Ok(())
}

/// Removes what is shown of these organizations.
pub async fn forget(connection: &mut PgConnection, organizations: &[&str]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM projects WHERE organization_id = ANY($1)", organizations as &[&str])
        .execute(connection)
        .await?;
    Ok(())
}

async fn show(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let own: Vec<&Recorded> = events.iter().copied().filter(|e| matches!(e.event, Event::Project(_))).collect();
    if own.is_empty() {
        return Ok(());
    }
    let mut rows = load(connection, &own).await?;
    for recorded in own {
        if let (Event::Project(event), Some(organization)) = (&recorded.event, &recorded.organization) {
            let row = rows.entry(recorded.stream.id().to_owned()).or_default();
            if row.offset < recorded.offset {
                row.organization_id = organization.to_string();
                row.apply(recorded, event);
            }
        }
    }
    // What still happens in a purged organization has no row to show it.
    let (gone, kept): (Vec<Row>, Vec<Row>) =
        rows.into_values().filter(|row| !row.id.is_empty()).partition(|row| row.purged);
    save(connection, &kept).await?;
    let gone: Vec<String> = gone.into_iter().map(|row| row.id).collect();
    if !gone.is_empty() {
        sqlx::query!("DELETE FROM projects WHERE id = ANY($1)", &gone).execute(connection).await?;
    }
    Ok(())
}

async fn load(connection: &mut PgConnection, events: &[&Recorded]) -> Result<HashMap<String, Row>, sqlx::Error> {
    let ids = crate::begun_before(events.iter().copied());
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query_scalar!(
        r#"SELECT to_json(p) AS "row!: Json<Row>" FROM unnest($1::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM projects WHERE id = w.id) p"#,
        &ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|Json(row)| (row.id.clone(), row)).collect())
}

async fn save(connection: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"INSERT INTO projects
           SELECT id, organization_id, slug, name, metadata::json, state, before_deletion, purge_at, version, created_at, partition, at
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
                       $9::bigint[], $10::timestamptz[], $11::smallint[], $12::bigint[])
                AS r(id, organization_id, slug, name, metadata, state, before_deletion, purge_at, version, created_at, partition, at)
           ON CONFLICT (id) DO UPDATE SET
               slug = EXCLUDED.slug, name = EXCLUDED.name, metadata = EXCLUDED.metadata, state = EXCLUDED.state,
               before_deletion = EXCLUDED.before_deletion, purge_at = EXCLUDED.purge_at,
               version = EXCLUDED.version, "offset" = EXCLUDED."offset"
           WHERE projects."offset" < EXCLUDED."offset""#,
        column!(rows, |row| row.id.as_str()) as &[&str],
        column!(rows, |row| row.organization_id.as_str()) as &[&str],
        column!(rows, |row| row.slug.as_str()) as &[&str],
        column!(rows, |row| row.name.as_str()) as &[&str],
        column!(rows, |row| row.metadata.to_string()),
        column!(rows, |row| name(row.state)),
        column!(rows, |row| name(row.before_deletion)),
        column!(rows, |row| row.purge_at) as &[Option<DateTime<Utc>>],
        column!(rows, |row| row.version),
        column!(rows, |row| row.created_at),
        column!(rows, |row| row.partition),
        column!(rows, |row| row.offset)
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &ProjectEvent) {
        use ProjectEvent as E;
        self.offset = recorded.offset;
        self.version = recorded.sequence.cast_signed();
        match event {
            E::ProjectCreated { name, slug, metadata, created_at, reason: _ } => {
                self.id = recorded.stream.id().to_owned();
                self.partition = recorded.partition;
                self.name = name.clone();
                self.slug = slug.clone();
                self.metadata = metadata.clone();
                self.created_at = *created_at;
                self.state = ProjectState::Active;
            }
            E::ProjectRenamed { name, .. } => self.name = name.clone(),
            E::ProjectSlugChanged { slug, .. } => self.slug = slug.clone(),
            E::ProjectMetadataChanged { metadata, .. } => self.metadata = metadata.clone(),
            E::ProjectArchived { .. } => self.state = ProjectState::Archived,
            E::ProjectUnarchived { .. } => self.state = ProjectState::Active,
            E::ProjectDeleted { previous_project_state, purge_at, .. } => {
                self.before_deletion = *previous_project_state;
                self.state = ProjectState::Deleted;
                self.purge_at = Some(*purge_at);
            }
            E::ProjectRestored { project_state, .. } => {
                self.state = *project_state;
                self.purge_at = None;
            }
            E::ProjectPurged { .. } => self.purged = true,
        }
    }
}
