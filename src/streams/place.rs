//! Where a stream stands: its rows in `audit_streams`, and the lock of the replica that moves them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgExecutor};

use super::{Batch, Terms};
use crate::log::LogError;

/// A stream that this replica has.
pub(super) struct Place {
    connection: PgConnection,
    name: String,
    offsets: BTreeMap<i16, i64>,
    /// Which partition comes first next time.
    turn: usize,
    /// What stands in the rows of why it does not get through.
    failure: Option<String>,
}

impl Place {
    /// Takes the stream, if no other replica has it. The lock ends with the session, so with the process too.
    pub async fn take(database: &PgConnectOptions, terms: &Terms, partitions: i16) -> Result<Option<Self>, LogError> {
        let mut connection = database.connect().await?;
        let locked: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtext('tenancy audit stream'), hashtext($1))")
                .bind(&terms.name)
                .fetch_one(&mut connection)
                .await?;
        if !locked {
            connection.close().await?;
            return Ok(None);
        }
        sqlx::query!(
            r#"INSERT INTO audit_streams (partition, name, "offset")
               SELECT p.number, $1, CASE WHEN $2 THEN COALESCE((
                   SELECT "offset" FROM events WHERE partition = p.number ORDER BY "offset" DESC LIMIT 1
               ), 0) ELSE 0 END
               FROM generate_series(0, $3::int - 1) AS p(number) ON CONFLICT DO NOTHING"#,
            terms.name,
            terms.from_now,
            i32::from(partitions)
        )
        .execute(&mut connection)
        .await?;
        let rows =
            sqlx::query!(r#"SELECT partition, "offset", failure FROM audit_streams WHERE name = $1"#, terms.name)
                .fetch_all(&mut connection)
                .await?;
        let failure = rows.iter().find_map(|row| row.failure.clone());
        let offsets = rows.into_iter().map(|row| (row.partition, row.offset)).collect();
        Ok(Some(Self { connection, name: terms.name.clone(), offsets, turn: 0, failure }))
    }

    /// The partitions that have sealed events to send: after which offset, and up to which.
    pub async fn behind(&mut self) -> Result<Vec<(i16, i64, i64)>, LogError> {
        let seals =
            sqlx::query!(r#"SELECT partition, "offset" FROM seals ORDER BY partition"#).fetch_all(&mut self.connection);
        let mut behind: Vec<(i16, i64, i64)> = vec![];
        for row in seals.await? {
            let after = self.offsets.get(&row.partition).copied().unwrap_or_default();
            if row.offset > after {
                behind.push((row.partition, after, row.offset));
            }
        }
        if !behind.is_empty() {
            self.turn = (self.turn + 1) % behind.len();
            behind.rotate_left(self.turn);
        }
        Ok(behind)
    }

    /// The receiver has this batch.
    pub async fn move_on(&mut self, batch: &Batch) -> Result<(), LogError> {
        if batch.upto.is_empty() {
            return Ok(());
        }
        let (mut partitions, mut offsets, mut sent) = (vec![], vec![], vec![]);
        for (partition, offset, events) in &batch.upto {
            partitions.push(*partition);
            offsets.push(*offset);
            sent.push(*events);
        }
        sqlx::query!(
            r#"UPDATE audit_streams s
               SET "offset" = n.upto, sent = s.sent + n.events,
                   sent_at = CASE WHEN n.events > 0 THEN now() ELSE s.sent_at END,
                   failing_since = NULL, failed_at = NULL, failure = NULL
               FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS n(number, upto, events)
               WHERE s.name = $1 AND s.partition = n.number"#,
            self.name,
            &partitions,
            &offsets,
            &sent
        )
        .execute(&mut self.connection)
        .await?;
        self.offsets.extend(batch.upto.iter().map(|(partition, offset, _)| (*partition, *offset)));
        if self.failure.take().is_some() {
            tracing::info!(stream = self.name, "the audit trail's stream gets through again");
        }
        Ok(())
    }

    /// It does not get through.
    pub async fn fail(&mut self, batch: &Batch, failure: &str) -> Result<(), LogError> {
        // Once, and not every time for as long as the receiver is away.
        match self.failure.as_deref() == Some(failure) {
            true => tracing::debug!(stream = self.name, failure, "the audit trail's stream does not get through"),
            false => tracing::warn!(stream = self.name, failure, "the audit trail's stream does not get through"),
        }
        self.failure = Some(failure.to_owned());
        let partitions: Vec<i16> = batch.upto.iter().map(|(partition, ..)| *partition).collect();
        sqlx::query!(
            "UPDATE audit_streams SET failing_since = COALESCE(failing_since, now()), failed_at = now(), failure = $3
             WHERE name = $1 AND partition = ANY($2)",
            self.name,
            &partitions,
            failure
        )
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// Lets another replica have it.
    pub async fn leave(self) -> Result<(), LogError> {
        Ok(self.connection.close().await?)
    }
}

/// How a stream stands.
#[derive(Debug, Clone, Default)]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// Its partitions, and the offset of each up to which the receiver has everything.
    pub partitions: Vec<i16>,
    /// The offsets.
    pub offsets: Vec<i64>,
    /// How many events were sent.
    pub sent: i64,
    /// When the receiver last took some.
    pub sent_at: Option<DateTime<Utc>>,
    /// How many events of the log it is behind.
    pub lag_events: i64,
    /// For how long the oldest of them has waited, in seconds.
    pub lag_seconds: f64,
    /// Since when it does not get through.
    pub failing_since: Option<DateTime<Utc>>,
    /// When it was last tried in vain.
    pub failed_at: Option<DateTime<Utc>>,
    /// Why it does not get through.
    pub failure: Option<String>,
}

/// All streams that there ever were on this database, by name.
pub async fn status(pool: impl PgExecutor<'_>) -> Result<Vec<StreamStatus>, sqlx::Error> {
    sqlx::query_file_as!(StreamStatus, "src/streams/status.sql").fetch_all(pool).await
}
