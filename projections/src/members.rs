//! Members of organizations, from the first joining on.

use std::collections::HashMap;

use aggregates::membership::{MembershipEvent, MembershipSource, MembershipState};
use aggregates::roles::RoleScope;
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
    user_id: String,
    roles: Vec<String>,
    state: MembershipState,
    source: MembershipSource,
    joined_at: DateTime<Utc>,
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
    sqlx::query!("DELETE FROM members WHERE organization_id = ANY($1)", organizations as &[&str])
        .execute(connection)
        .await?;
    Ok(())
}

async fn show(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let own: Vec<&Recorded> = events.iter().copied().filter(|e| matches!(e.event, Event::Membership(_))).collect();
    if own.is_empty() {
        return Ok(());
    }
    let mut rows = load(connection, &own).await?;
    for recorded in own {
        if let (Event::Membership(event), Some(organization)) = (&recorded.event, &recorded.organization) {
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
        r#"SELECT to_json(m) AS "row!: Json<Row>" FROM unnest($1::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM members WHERE id = w.id) m"#,
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
        r#"INSERT INTO members
           SELECT id, organization_id, user_id, roles::text[], state, source, joined_at, version, created_at, partition, at
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::bigint[],
                       $9::timestamptz[], $10::smallint[], $11::bigint[])
                AS r(id, organization_id, user_id, roles, state, source, joined_at, version, created_at, partition, at)
           ON CONFLICT (id) DO UPDATE SET
               roles = EXCLUDED.roles, state = EXCLUDED.state, source = EXCLUDED.source,
               joined_at = EXCLUDED.joined_at, version = EXCLUDED.version, "offset" = EXCLUDED."offset"
           WHERE members."offset" < EXCLUDED."offset""#,
        column!(rows, |row| row.id.as_str()) as &[&str],
        column!(rows, |row| row.organization_id.as_str()) as &[&str],
        column!(rows, |row| row.user_id.as_str()) as &[&str],
        column!(rows, |row| list(&row.roles)),
        column!(rows, |row| name(row.state)),
        column!(rows, |row| name(row.source)),
        column!(rows, |row| row.joined_at),
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
    fn apply(&mut self, recorded: &Recorded, event: &MembershipEvent) {
        use MembershipEvent as E;
        self.offset = recorded.offset;
        self.version = recorded.sequence.cast_signed();
        match event {
            E::MemberJoined { user_id, roles, scope: RoleScope::Organization, source, joined_at, .. } => {
                if self.id.is_empty() {
                    self.id = recorded.stream.id().to_owned();
                    self.partition = recorded.partition;
                    self.user_id = user_id.to_string();
                    self.created_at = *joined_at;
                }
                self.roles = roles.clone();
                self.source = *source;
                self.joined_at = *joined_at;
                self.state = MembershipState::Active;
            }
            E::MemberBound { .. } => {}
            E::MemberRolesChanged { roles, scope: RoleScope::Organization, .. } => self.roles = roles.clone(),
            E::MemberSuspended { .. } => self.state = MembershipState::Suspended,
            E::MemberReinstated { .. } => self.state = MembershipState::Active,
            E::MemberRemoved { .. } | E::MemberLeft { .. } => self.state = MembershipState::Removed,
        }
    }
}
