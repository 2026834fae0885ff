//! API tokens.

use std::collections::HashMap;

use aggregates::api_token::{ApiTokenEvent, ApiTokenState};
use aggregates::{Event, Recorded};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::{column, list, name};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    id: String,
    organization_id: String,
    name: String,
    hint: String,
    permissions: Vec<String>,
    created_by: String,
    responsible: String,
    state: ApiTokenState,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    partition: i16,
    offset: i64,
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
    sqlx::query!("DELETE FROM api_tokens WHERE organization_id = ANY($1)", organizations as &[&str])
        .execute(connection)
        .await?;
    Ok(())
}

async fn show(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let own: Vec<&Recorded> = events.iter().copied().filter(|e| matches!(e.event, Event::ApiToken(_))).collect();
    if own.is_empty() {
        return Ok(());
    }
    let mut rows = load(connection, &own).await?;
    for recorded in own {
        if let (Event::ApiToken(event), Some(organization)) = (&recorded.event, &recorded.organization) {
            let row = rows.entry(recorded.stream.id().to_owned()).or_default();
            if row.offset < recorded.offset {
                row.organization_id = organization.to_string();
                row.apply(recorded, event);
            }
        }
    }
    // What still happens in a purged organization has no row to show it.
    save(connection, &rows.into_values().filter(|row| !row.id.is_empty()).collect::<Vec<_>>()).await
}

async fn load(connection: &mut PgConnection, events: &[&Recorded]) -> Result<HashMap<String, Row>, sqlx::Error> {
    let ids = crate::begun_before(events.iter().copied());
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query_scalar!(
        r#"SELECT to_json(t) AS "row!: Json<Row>" FROM unnest($1::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM api_tokens WHERE id = w.id) t"#,
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
        r#"INSERT INTO api_tokens
           SELECT id, organization_id, name, hint, permissions::text[], created_by, responsible, state, expires_at,
                  revoked_at, version, created_at, partition, at
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                       $9::timestamptz[], $10::timestamptz[], $11::bigint[], $12::timestamptz[], $13::smallint[],
                       $14::bigint[])
                AS r(id, organization_id, name, hint, permissions, created_by, responsible, state, expires_at,
                     revoked_at, version, created_at, partition, at)
           ON CONFLICT (id) DO UPDATE SET
               state = EXCLUDED.state, revoked_at = EXCLUDED.revoked_at, version = EXCLUDED.version,
               "offset" = EXCLUDED."offset"
           WHERE api_tokens."offset" < EXCLUDED."offset""#,
        column!(rows, |row| row.id.as_str()) as &[&str],
        column!(rows, |row| row.organization_id.as_str()) as &[&str],
        column!(rows, |row| row.name.as_str()) as &[&str],
        column!(rows, |row| row.hint.as_str()) as &[&str],
        column!(rows, |row| list(&row.permissions)),
        column!(rows, |row| row.created_by.as_str()) as &[&str],
        column!(rows, |row| row.responsible.as_str()) as &[&str],
        column!(rows, |row| name(row.state)),
        column!(rows, |row| row.expires_at) as &[Option<DateTime<Utc>>],
        column!(rows, |row| row.revoked_at) as &[Option<DateTime<Utc>>],
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
    fn apply(&mut self, recorded: &Recorded, event: &ApiTokenEvent) {
        use ApiTokenEvent as E;
        self.offset = recorded.offset;
        self.version = recorded.sequence.cast_signed();
        match event {
            E::TokenCreated {
                name,
                hint,
                permissions,
                created_by,
                responsible,
                token_expires_at,
                created_at,
                secret_digest: _,
                reason: _,
            } => {
                self.id = recorded.stream.id().to_owned();
                self.partition = recorded.partition;
                self.name = name.clone();
                self.hint = hint.clone();
                self.permissions = permissions.clone();
                self.created_by = created_by.to_string();
                self.responsible = responsible.to_string();
                self.expires_at = *token_expires_at;
                self.created_at = *created_at;
                self.state = ApiTokenState::Active;
            }
            E::TokenRevoked { revoked_at, .. } => {
                self.state = ApiTokenState::Revoked;
                self.revoked_at = Some(*revoked_at);
            }
            E::TokenExpired { .. } => self.state = ApiTokenState::Expired,
        }
    }
}
