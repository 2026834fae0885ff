//! What is left to do after a key was destroyed, and what keys there still are of those who should have none.

use std::collections::HashMap;
use std::time::Duration;

use aggregates::ids::OrganizationId;
use aggregates::invitation::InvitationEvent;
use aggregates::user::UserEvent;
use aggregates::{Event, Recorded, StreamId};
use chrono::{DateTime, Utc};

use super::stored::{COLUMNS, StoredEvent};
use super::{Log, LogError};
use crate::erased::{Erased, ErasedBy};

/// How long nobody else looks at a tombstone after somebody has begun to.
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// How many tombstones are looked at in one go.
const LOOKS_MAX: i64 = 50;
/// How many events of a purged organization are looked through in one go for whom it had invited.
const PURGED_EVENTS: i64 = 5_000;
/// How many tombstones are read in one go.
const TOMBSTONES_MAX: i64 = 10_000;

/// A subject whose key is destroyed, and after whom not everything is done.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// A `usr_…`, an `inv_…` or an `org_…`.
    pub subject: String,
    /// When the key was destroyed.
    pub erased_at: DateTime<Utc>,
}

impl Log {
    /// All events of a stream, oldest first.
    pub async fn history(&self, stream: &StreamId) -> Result<Vec<Recorded>, LogError> {
        let statement =
            format!("SELECT {COLUMNS} FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY sequence");
        let query = sqlx::query_as::<_, StoredEvent>(&statement).bind(stream.aggregate_type()).bind(stream.id());
        let rows = query.fetch_all(&self.pool).await?;
        self.reader.read(rows, &self.keys).await
    }

    /// The persons and organizations whose erasures and purges are to be carried on. The replica that asks has them for
    /// a while; another one asks in vain.
    pub async fn take_unfinished(&self) -> Result<Vec<Unfinished>, LogError> {
        let taken = sqlx::query_as!(
            Unfinished,
            "UPDATE tombstones SET next_look_at = now() + make_interval(secs => $1)
             WHERE subject_id IN (
                 SELECT subject_id FROM tombstones WHERE finished_at IS NULL AND next_look_at <= now()
                 ORDER BY next_look_at LIMIT $2 FOR UPDATE SKIP LOCKED
             )
             RETURNING subject_id AS subject, erased_at",
            LOOK_PAUSE.as_secs_f64(),
            LOOKS_MAX
        );
        Ok(taken.fetch_all(&self.pool).await?)
    }

    /// Everything is done after this one.
    pub async fn finish(&self, subject: &str) -> Result<(), LogError> {
        sqlx::query!("UPDATE tombstones SET finished_at = now() WHERE subject_id = $1", subject)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// People who were erased at this time or later, oldest first, when and by whom; not organizations, which may be back
    /// for good reason when a database was restored, and not API tokens, whose keys go again with the users who answer for them.
    pub async fn erased_since(&self, since: DateTime<Utc>) -> Result<Vec<Erased>, LogError> {
        let rows = sqlx::query_as!(
            Unfinished,
            "SELECT subject_id AS subject, erased_at FROM tombstones
             WHERE erased_at >= $1 AND subject_id NOT LIKE ALL (ARRAY['org\\_%', 'tok\\_%'])
             ORDER BY erased_at, subject_id LIMIT $2",
            since,
            TOMBSTONES_MAX
        );
        let rows = rows.fetch_all(&self.pool).await?;
        let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
        let statement = format!(
            "SELECT {COLUMNS} FROM events
             WHERE aggregate_type IN ('User', 'Invitation') AND aggregate_id = ANY($1)
               AND event_type IN ('UserErased', 'InviteeErased')"
        );
        let events: Vec<StoredEvent> = sqlx::query_as(&statement).bind(&subjects).fetch_all(&self.pool).await?;
        let by: HashMap<String, ErasedBy> =
            events.iter().filter_map(|row| Some((row.aggregate_id.clone(), self.erased_by(row)?))).collect();
        let erased = |row: Unfinished| Erased { by: by.get(&row.subject).cloned(), id: row.subject, at: row.erased_at };
        Ok(rows.into_iter().map(erased).collect())
    }

    /// Who erased somebody by this event; nothing where this program cannot read it.
    fn erased_by(&self, row: &StoredEvent) -> Option<ErasedBy> {
        let (reason, first_at) = match self.reader.parse(row).ok()? {
            Event::User(UserEvent::UserErased { reason, first_erased_at, .. })
            | Event::Invitation(InvitationEvent::InviteeErased { reason, first_erased_at, .. }) => {
                (reason, first_erased_at)
            }
            _ => return None,
        };
        let mut sealed = None;
        if let Some(mut reason) = reason {
            reason.open(|text| {
                sealed = Some(text.to_owned());
                None
            });
        }
        let (event, actor) = (row.event_id.parse().ok()?, row.actor.parse().ok()?);
        Some(ErasedBy { event, at: first_at.unwrap_or(row.recorded_at), actor, reason: sealed })
    }

    /// Those of these subjects who have a key.
    pub async fn with_key(&self, subjects: &[String]) -> Result<Vec<String>, LogError> {
        let rows = sqlx::query_scalar!(
            "SELECT subject_id FROM subject_keys WHERE subject_id = ANY($1) AND wrapped IS NOT NULL",
            subjects
        );
        Ok(rows.fetch_all(&self.pool).await?)
    }

    /// Destroys keys of people of whom the log says nothing, or that they are erased.
    pub async fn destroy_keys(&self, subjects: &[&str]) -> Result<(), LogError> {
        let mut connection = self.pool.acquire().await?;
        super::keys::destroy(&mut connection, subjects).await?;
        self.keys.forget();
        Ok(())
    }

    /// Forgets the outcomes of a user's commands: their keys are words of that user.
    pub async fn forget_outcomes(&self, user: &str) -> Result<(), LogError> {
        sqlx::query!("DELETE FROM outcomes WHERE caller = $1", user).execute(&self.pool).await?;
        Ok(())
    }

    /// Destroys the keys of everybody whom a purged organization had invited, and of its API tokens, a stretch of its
    /// events at a time, and throws away what was kept beside the log.
    pub async fn forget_invitees(&self, organization: &OrganizationId) -> Result<(), LogError> {
        let last = sqlx::query_scalar!(
            "SELECT audit_sequence FROM events WHERE organization_id = $1 ORDER BY audit_sequence DESC LIMIT 1",
            organization.as_ref()
        );
        let last = last.fetch_optional(&self.pool).await?.flatten().unwrap_or_default();
        let types = aggregates::resource::types_with_keys_in_organizations();
        let mut after = 0;
        while after < last {
            sqlx::query_file!(
                "src/log/destroy_keys.sql",
                organization.as_ref(),
                after,
                after + PURGED_EVENTS,
                &types as &[&str]
            )
            .execute(&self.pool)
            .await?;
            after += PURGED_EVENTS;
        }
        sqlx::query!("DELETE FROM snapshots WHERE organization_id = $1", organization.as_ref())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
