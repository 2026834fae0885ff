//! Users, as far as others see them: address and name.

use std::collections::HashMap;

use aggregates::personal::readable;
use aggregates::user::UserEvent;
use aggregates::{Event, Recorded};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::column;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    id: String,
    email: Option<String>,
    name: Option<String>,
    version: i64,
    created_at: DateTime<Utc>,
    partition: i16,
    offset: i64,
}

pub async fn apply(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let own: Vec<&Recorded> = events.iter().copied().filter(|e| matches!(e.event, Event::User(_))).collect();
    if own.is_empty() {
        return Ok(());
    }
    let mut rows = load(connection, &own).await?;
    for recorded in own {
        if let Event::User(event) = &recorded.event {
            let row = rows.entry(recorded.stream.id().to_owned()).or_default();
            if row.offset < recorded.offset {
                row.apply(recorded, event);
            }
        }
    }
    save(connection, &rows.into_values().filter(|row| !row.id.is_empty()).collect::<Vec<_>>()).await
}

async fn load(connection: &mut PgConnection, events: &[&Recorded]) -> Result<HashMap<String, Row>, sqlx::Error> {
    let ids = crate::begun_before(events.iter().copied());
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query_scalar!(
        r#"SELECT to_json(u) AS "row!: Json<Row>" FROM unnest($1::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM users WHERE id = w.id) u"#,
        &ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|Json(row)| (row.id.clone(), row)).collect())
}

async fn save(connection: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"INSERT INTO users
           SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::smallint[], $7::bigint[])
           ON CONFLICT (id) DO UPDATE SET
               email = EXCLUDED.email, name = EXCLUDED.name, version = EXCLUDED.version, "offset" = EXCLUDED."offset"
           WHERE users."offset" < EXCLUDED."offset""#,
        column!(rows, |row| row.id.as_str()) as &[&str],
        column!(rows, |row| row.email.as_deref()) as &[Option<&str>],
        column!(rows, |row| row.name.as_deref()) as &[Option<&str>],
        column!(rows, |row| row.version),
        column!(rows, |row| row.created_at),
        column!(rows, |row| row.partition),
        column!(rows, |row| row.offset)
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes these users.
pub async fn forget(connection: &mut PgConnection, users: &[&str]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM users WHERE id = ANY($1)", users as &[&str]).execute(connection).await?;
    Ok(())
}

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &UserEvent) {
        self.offset = recorded.offset;
        self.version = recorded.sequence.cast_signed();
        match event {
            UserEvent::UserRegistered { email, display_name, .. } => {
                self.id = recorded.stream.id().to_owned();
                self.partition = recorded.partition;
                self.created_at = recorded.recorded_at;
                self.email = readable(email).map(str::to_owned);
                self.name = readable(display_name).map(str::to_owned);
            }
            UserEvent::UserProfileChanged { email, display_name, .. } => {
                self.email = readable(email).map(str::to_owned);
                self.name = readable(display_name).map(str::to_owned);
            }
            UserEvent::UserErased { .. } => (self.email, self.name) = (None, None),
            // Whether a user is let in is asked of the log.
            UserEvent::UserHeld { .. }
            | UserEvent::UserApproved { .. }
            | UserEvent::UserRevoked { .. }
            | UserEvent::UserReinstated { .. } => {}
        }
    }
}
