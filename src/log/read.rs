//! Reading the log itself, and what is kept beside it.

use std::collections::HashMap;

use aggregates::ids::{EventId, OrganizationId};
use aggregates::{PRUNED, Recorded};
use sqlx::PgConnection;

use super::ledger::{ClaimKey, Tally};
use super::stored::{COLUMNS, StoredEvent};
use super::{Heads, Log, LogError};

/// A tally with its name.
pub type NamedTally = (String, Tally);

impl Log {
    /// The event of this id.
    pub async fn event(&self, id: &EventId) -> Result<Option<Recorded>, LogError> {
        Ok(self.events(&[id.to_string()]).await?.pop())
    }

    /// The events of these ids, by place; those that were pruned are none any more.
    pub async fn events(&self, ids: &[String]) -> Result<Vec<Recorded>, LogError> {
        let statement =
            format!(r#"SELECT {COLUMNS} FROM events WHERE event_id = ANY($1) ORDER BY partition, "offset""#);
        let mut rows: Vec<StoredEvent> = sqlx::query_as(&statement).bind(ids).fetch_all(&self.pool).await?;
        rows.retain(|row| row.event_type != PRUNED.name);
        self.reader.read(rows, &self.keys).await
    }

    /// The events of these ids, each as far as it can be read: `None` where this program cannot.
    pub async fn each_event(&self, ids: &[String]) -> Result<HashMap<String, Option<Recorded>>, LogError> {
        let statement = format!("SELECT {COLUMNS} FROM events WHERE event_id = ANY($1)");
        let mut rows: Vec<StoredEvent> = sqlx::query_as(&statement).bind(ids).fetch_all(&self.pool).await?;
        rows.retain(|row| row.event_type != PRUNED.name);
        let read = self.reader.read_each(&rows, &self.keys).await?;
        Ok(rows.into_iter().map(|row| row.event_id).zip(read.into_iter().map(Result::ok)).collect())
    }

    /// The last offset of each of these partitions (of all, where none is named), by the log itself.
    pub async fn heads_now(&self, partitions: &[i16]) -> Result<Heads, LogError> {
        let all: Vec<i16> = (0..self.partitions).collect();
        let wanted = if partitions.is_empty() { &all } else { partitions };
        let mut connection = self.pool.acquire().await?;
        Ok(heads(&mut connection, wanted).await?)
    }
}

/// The last offset of each of these partitions.
pub(super) async fn heads(connection: &mut PgConnection, partitions: &[i16]) -> Result<Heads, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT p.number AS "partition!", COALESCE(e."offset", 0) AS "offset!"
           FROM unnest($1::smallint[]) AS p(number)
           LEFT JOIN LATERAL (
               SELECT "offset" FROM events WHERE partition = p.number ORDER BY "offset" DESC LIMIT 1
           ) e ON true"#,
        partitions
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.partition, row.offset)).collect())
}

/// Look-ups that no decision relies upon: the append holds every command against the same rows under its locks.
impl Log {
    /// The holder of a key: of a global one, or of one within an organization.
    pub async fn claim(
        &self,
        scope: aggregates::Scope,
        key: &str,
        organization: Option<&OrganizationId>,
    ) -> Result<Option<String>, LogError> {
        let key = ClaimKey::new(scope, key, organization);
        let holder =
            sqlx::query_scalar!("SELECT holder FROM claims WHERE scope = $1 AND key = $2", key.scope.as_str(), key.key);
        Ok(holder.fetch_optional(&self.pool).await?)
    }

    /// What organizations use, by name.
    pub async fn tallies(
        &self,
        organizations: &[OrganizationId],
    ) -> Result<HashMap<OrganizationId, Vec<NamedTally>>, LogError> {
        let ids: Vec<&str> = organizations.iter().map(AsRef::as_ref).collect();
        let rows = sqlx::query!(
            "SELECT t.* FROM unnest($1::text[]) AS o(id)
             CROSS JOIN LATERAL (SELECT * FROM tallies WHERE organization_id = o.id) t",
            &ids as &[&str]
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found: HashMap<OrganizationId, Vec<NamedTally>> = HashMap::new();
        for row in rows {
            let organization: OrganizationId =
                row.organization_id.parse().map_err(|_| LogError::Corrupt(row.organization_id.clone()))?;
            let tally = Tally { used: row.used, maximum: row.maximum, floor: row.floor, reached: row.reached };
            found.entry(organization).or_default().push((row.name, tally));
        }
        Ok(found)
    }

    /// The kept outcome of a command: the keyed hash of its input, and what it recorded.
    pub async fn outcome(
        &self,
        caller: &str,
        operation: &str,
        key: &str,
    ) -> Result<Option<(String, super::StoredOutcome)>, LogError> {
        let row = sqlx::query!(
            r#"SELECT input, outcome AS "outcome: sqlx::types::Json<super::StoredOutcome>" FROM outcomes
               WHERE caller = $1 AND operation = $2 AND key = $3"#,
            caller,
            operation,
            key
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| (row.input, row.outcome.0)))
    }
}
