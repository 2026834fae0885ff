//! Invitations.

use std::collections::HashMap;

use aggregates::invitation::{InvitationEvent, InvitationState};
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
    email: Option<String>,
    email_claim: String,
    roles: Vec<String>,
    state: InvitationState,
    invited_by: String,
    accepted_by: Option<String>,
    expires_at: DateTime<Utc>,
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
    sqlx::query!("DELETE FROM invitations WHERE organization_id = ANY($1)", organizations as &[&str])
        .execute(connection)
        .await?;
    Ok(())
}

async fn show(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let own: Vec<&Recorded> = events.iter().copied().filter(|e| matches!(e.event, Event::Invitation(_))).collect();
    if own.is_empty() {
        return Ok(());
    }
    let mut rows = load(connection, &own).await?;
    for recorded in own {
        if let (Event::Invitation(event), Some(organization)) = (&recorded.event, &recorded.organization) {
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
        r#"SELECT to_json(i) AS "row!: Json<Row>" FROM unnest($1::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM invitations WHERE id = w.id) i"#,
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
        r#"INSERT INTO invitations
           SELECT id, organization_id, email, email_claim, roles::text[], state, invited_by, accepted_by, expires_at, version,
                  created_at, partition, at
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                       $9::timestamptz[], $10::bigint[], $11::timestamptz[], $12::smallint[], $13::bigint[])
                AS r(id, organization_id, email, email_claim, roles, state, invited_by, accepted_by, expires_at, version,
                     created_at, partition, at)
           ON CONFLICT (id) DO UPDATE SET
               email = EXCLUDED.email, roles = EXCLUDED.roles, state = EXCLUDED.state, accepted_by = EXCLUDED.accepted_by,
               expires_at = EXCLUDED.expires_at, version = EXCLUDED.version, "offset" = EXCLUDED."offset"
           WHERE invitations."offset" < EXCLUDED."offset""#,
        column!(rows, |row| row.id.as_str()) as &[&str],
        column!(rows, |row| row.organization_id.as_str()) as &[&str],
        column!(rows, |row| row.email.as_deref()) as &[Option<&str>],
        column!(rows, |row| row.email_claim.as_str()) as &[&str],
        column!(rows, |row| list(&row.roles)),
        column!(rows, |row| name(row.state)),
        column!(rows, |row| row.invited_by.as_str()) as &[&str],
        column!(rows, |row| row.accepted_by.as_deref()) as &[Option<&str>],
        column!(rows, |row| row.expires_at),
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
    fn apply(&mut self, recorded: &Recorded, event: &InvitationEvent) {
        use InvitationEvent as E;
        self.offset = recorded.offset;
        self.version = recorded.sequence.cast_signed();
        match event {
            E::MemberInvited {
                email,
                email_claim,
                roles,
                scope: RoleScope::Organization,
                invited_by,
                expires_at,
                created_at,
                token_digest: _,
                reason: _,
            } => {
                self.id = recorded.stream.id().to_owned();
                self.partition = recorded.partition;
                self.email = email.value().map(str::to_owned);
                self.email_claim = email_claim.0.clone();
                self.roles = roles.clone();
                self.invited_by = invited_by.to_string();
                self.expires_at = *expires_at;
                self.created_at = *created_at;
                self.state = InvitationState::Pending;
            }
            E::InvitationResent { expires_at, .. } => self.expires_at = *expires_at,
            E::InvitationRolesChanged { roles, scope: RoleScope::Organization, .. } => self.roles = roles.clone(),
            E::InvitationAccepted { user_id, .. } => {
                self.state = InvitationState::Accepted;
                self.accepted_by = Some(user_id.to_string());
            }
            E::InvitationDeclined { .. } => self.state = InvitationState::Declined,
            E::InvitationRevoked { .. } => self.state = InvitationState::Revoked,
            E::InvitationExpired { .. } => self.state = InvitationState::Expired,
            E::InviteeErased { .. } => self.email = None,
        }
    }
}
