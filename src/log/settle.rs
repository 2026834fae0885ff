//! Places in the log by time, and times about which there is nothing more to say.
//!
//! Within a partition time does not go back, but the clock of another replica may be behind, or jump. So a time that
//! somebody was answered for is written down, and whatever is appended after that gets a later one. The partition's
//! lock waits for the append in flight.

use aggregates::ids::OrganizationId;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sqlx::Connection;

use super::writer::PARTITION_LOCKS;
use super::{Log, LogError};

/// What the wanted event is the last one of.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// Those recorded at this time or before.
    UpTo(DateTime<Utc>),
    /// Those recorded before this time.
    Before(DateTime<Utc>),
    /// Those at this offset of the organization's partition or before.
    Offset(i64),
}

impl Log {
    /// Makes sure that nothing with this time or an earlier one will be recorded in a partition any more. `None` if the
    /// time has not come: then the newest one that has. The clock is the one by which events are recorded: it is never
    /// before what is recorded already.
    pub async fn settle(&self, partition: i16, time: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, LogError> {
        let time = time.trunc_subsecs(6);
        let (recorded, answered) = self.times(partition).await?;
        // Whatever comes is no earlier than what is there.
        if recorded.is_some_and(|recorded| recorded > time) || answered.is_some_and(|not_before| not_before > time) {
            return Ok(None);
        }
        let now = Utc::now().trunc_subsecs(6).max(recorded.unwrap_or_default());
        if time > now {
            return Ok(Some(now));
        }
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock_shared($1, $2)")
            .bind(PARTITION_LOCKS)
            .bind(i32::from(partition))
            .execute(&mut *transaction)
            .await?;
        sqlx::query!(
            "INSERT INTO answered_times (partition, not_before) VALUES ($1, $2)
             ON CONFLICT (partition) DO UPDATE SET not_before = GREATEST(answered_times.not_before, EXCLUDED.not_before)",
            partition,
            time + TimeDelta::microseconds(1)
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(None)
    }

    /// When the newest event of a partition was recorded, and before which time nothing is any more.
    async fn times(&self, partition: i16) -> Result<(Option<DateTime<Utc>>, Option<DateTime<Utc>>), LogError> {
        let row = sqlx::query!(
            r#"SELECT (SELECT recorded_at FROM events WHERE partition = $1 ORDER BY "offset" DESC LIMIT 1) AS recorded,
                      (SELECT not_before FROM answered_times WHERE partition = $1) AS answered"#,
            partition
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((row.recorded, row.answered))
    }

    /// The audit sequence of the newest event of an organization; 0 where there is none.
    pub async fn newest_sequence(&self, organization: &OrganizationId) -> Result<i64, LogError> {
        let newest = sqlx::query_scalar!(
            r#"SELECT audit_sequence AS "sequence!" FROM events WHERE organization_id = $1
               ORDER BY audit_sequence DESC LIMIT 1"#,
            organization.as_ref()
        );
        Ok(newest.fetch_optional(&self.pool).await?.unwrap_or_default())
    }

    /// The audit sequences of the last events of an organization before each of these times; 0 where there is none.
    pub async fn sequences_before(
        &self,
        organization: &OrganizationId,
        times: &[DateTime<Utc>],
    ) -> Result<Vec<i64>, LogError> {
        let statement = format!(
            "SELECT ({}) FROM unnest($2::timestamptz[]) WITH ORDINALITY AS time(at, number) ORDER BY number",
            halving("recorded_at < time.at")
        );
        let found: Vec<Option<i64>> =
            sqlx::query_scalar(&statement).bind(organization.as_ref()).bind(times).fetch_all(&self.pool).await?;
        found.into_iter().collect::<Option<_>>().ok_or_else(|| gap(organization))
    }

    /// The audit sequence of the last event of an organization within a bound; 0 where there is none. Offsets and times
    /// rise with the audit sequence, so it is found by halving: the same few look-ups however long the trail is.
    pub async fn sequence_within(&self, organization: &OrganizationId, bound: Bound) -> Result<i64, LogError> {
        let condition = match bound {
            Bound::UpTo(_) => "recorded_at <= $2",
            Bound::Before(_) => "recorded_at < $2",
            Bound::Offset(_) => r#""offset" <= $2"#,
        };
        let statement = halving(condition);
        let query = sqlx::query_scalar(&statement).bind(organization.as_ref());
        let query = match bound {
            Bound::UpTo(time) | Bound::Before(time) => query.bind(time),
            Bound::Offset(offset) => query.bind(offset),
        };
        let found: Option<i64> = query.fetch_optional(&self.pool).await?;
        found.ok_or_else(|| gap(organization))
    }
}

/// A statement for the last audit sequence of the organization `$1` whose event fits, where all fit up to some event and none
/// after it. None where a sequence is missing.
fn halving(condition: &str) -> String {
    include_str!("halving.sql").replace("fits()", condition)
}

fn gap(organization: &OrganizationId) -> LogError {
    LogError::Corrupt(format!("the audit sequences of {organization} have a gap"))
}
