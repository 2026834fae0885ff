//! Invitations.

use std::collections::HashMap;

use aggregates::invitation::{InvitationEvent, InvitationState};
use aggregates::{Event, Recorded};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;

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
    let ids: Vec<&str> =
        events.iter().filter(|e| matches!(e.event, Event::Invitation(_))).map(|e| e.stream.id()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query_scalar!(
        r#"SELECT to_json(i) AS "row!: Json<Row>" FROM unnest($1::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM invitations WHERE id = w.id) i"#,
        &ids as &[&str]
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut rows: HashMap<String, Row> = rows.into_iter().map(|Json(row)| (row.id.clone(), row)).collect();
    for recorded in events {
        if let (Event::Invitation(event), Some(organization)) = (&recorded.event, &recorded.organization) {
            let row = rows.entry(recorded.stream.id().to_owned()).or_default();
            if row.offset < recorded.offset {
                row.organization_id = organization.to_string();
                row.apply(recorded, event);
            }
        }
    }
    sqlx::query!(
        r#"INSERT INTO invitations SELECT * FROM jsonb_populate_recordset(NULL::invitations, $1)
           ON CONFLICT (id) DO UPDATE SET
               email = EXCLUDED.email, state = EXCLUDED.state, accepted_by = EXCLUDED.accepted_by,
               expires_at = EXCLUDED.expires_at, version = EXCLUDED.version, "offset" = EXCLUDED."offset"
           WHERE invitations."offset" < EXCLUDED."offset""#,
        // What still happens in a purged organization has no row to show it.
        Json(rows.into_values().filter(|row| !row.id.is_empty()).collect::<Vec<_>>()) as _
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
            E::InvitationAccepted { user_id, .. } => {
                self.state = InvitationState::Accepted;
                self.accepted_by = Some(user_id.to_string());
            }
            E::InvitationDeclined { .. } => self.state = InvitationState::Declined,
            E::InvitationRevoked { .. } => self.state = InvitationState::Revoked,
            E::InvitationExpired { .. } => self.state = InvitationState::Expired,
        }
    }
}
