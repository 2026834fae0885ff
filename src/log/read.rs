//! Reading the log itself: by partition and offset, and as an audit trail.

use std::collections::HashMap;

use aggregates::Recorded;
use aggregates::ids::{EventId, OrganizationId};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::ledger::Tally;
use super::stored::{COLUMNS, StoredEvent};
use super::{Heads, Log, LogError, scope};

/// Which events of the audit trail are wanted; empty lists and `None` want all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Stored names of events.
    pub event_types: Vec<String>,
    /// Actors, by the id behind them (`usr_…`, or `system`).
    pub actors: Vec<String>,
    /// Ids of streams.
    pub subjects: Vec<String>,
    /// Recorded at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Recorded before this time.
    pub until: Option<DateTime<Utc>>,
    /// What belongs together.
    pub correlation: Option<Uuid>,
}

impl AuditFilter {
    /// Whether it wants all.
    pub fn is_empty(&self) -> bool {
        let Self { event_types, actors, subjects, since, until, correlation } = self;
        [event_types, actors, subjects].iter().all(|list| list.is_empty())
            && since.is_none()
            && until.is_none()
            && correlation.is_none()
    }
}

/// From which end a page is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The oldest ones after the cursor.
    First,
    /// The newest ones before the cursor.
    Last,
}

/// A page that is wanted of the audit trail.
#[derive(Debug, Clone)]
pub struct AuditPage {
    /// Of one organization, or of all and of users too (for operators).
    pub organization: Option<OrganizationId>,
    /// Which events.
    pub filter: AuditFilter,
    /// From which end.
    pub direction: Direction,
    /// Only after this event's place.
    pub after: Option<AuditCursor>,
    /// Only before this event's place.
    pub before: Option<AuditCursor>,
    /// How many at most.
    pub limit: usize,
}

/// The place of an event in an audit trail: its audit sequence within an organization, time and id over all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditCursor {
    /// Within an organization.
    Sequence(i64),
    /// Over all.
    Time(DateTime<Utc>, EventId),
}

/// A tally with its name.
pub type NamedTally = (String, Tally);

impl Log {
    /// The event of this id.
    pub async fn event(&self, id: &EventId) -> Result<Option<Recorded>, LogError> {
        Ok(self.events(&[id.to_string()]).await?.pop())
    }

    /// The events of these ids, by place.
    pub async fn events(&self, ids: &[String]) -> Result<Vec<Recorded>, LogError> {
        let statement =
            format!(r#"SELECT {COLUMNS} FROM events WHERE event_id = ANY($1) ORDER BY partition, "offset""#);
        let rows = sqlx::query_as(&statement).bind(ids).fetch_all(&self.pool).await?;
        self.reader.read(rows, &self.keys).await
    }

    /// A page of the audit trail, in the order of its direction. It holds one event more than was wanted where there
    /// are more.
    pub async fn audit_trail(&self, page: &AuditPage) -> Result<Vec<Recorded>, LogError> {
        let (mut query, pool) = match &page.organization {
            Some(organization) => {
                let mut query = scope::begin("page.*", &[organization]);
                query.push(format!(
                    " CROSS JOIN LATERAL (SELECT {COLUMNS} FROM events WHERE organization_id = wanted.id"
                ));
                (query, &self.readers)
            }
            None => (QueryBuilder::new(format!("SELECT {COLUMNS} FROM events WHERE true")), &self.operators),
        };
        for (cursor, sign) in [(&page.after, ">"), (&page.before, "<")] {
            match cursor {
                Some(AuditCursor::Sequence(sequence)) => {
                    query.push(format!(" AND audit_sequence {sign} ")).push_bind(*sequence);
                }
                Some(AuditCursor::Time(time, id)) => {
                    query.push(format!(" AND (recorded_at, event_id) {sign} (")).push_bind(*time);
                    query.push(", ").push_bind(id.to_string()).push(")");
                }
                None => {}
            }
        }
        push_filter(&mut query, &page.filter);
        let order = if page.organization.is_some() { vec!["audit_sequence"] } else { vec!["recorded_at", "event_id"] };
        let sign = if page.direction == Direction::First { " ASC" } else { " DESC" };
        let order: Vec<String> = order.into_iter().map(|column| format!("{column}{sign}")).collect();
        query.push(format!(" ORDER BY {} LIMIT ", order.join(", "))).push_bind(page.limit.cast_signed() as i64 + 1);
        if page.organization.is_some() {
            query.push(") page");
        }
        let rows: Vec<StoredEvent> = query.build_query_as().fetch_all(pool).await?;
        self.reader.read(rows, &self.keys).await
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

/// Adds the conditions of a filter.
pub fn push_filter(query: &mut QueryBuilder<'_, Postgres>, filter: &AuditFilter) {
    if !filter.event_types.is_empty() {
        query.push(" AND event_type = ANY(").push_bind(filter.event_types.clone()).push(")");
    }
    if !filter.actors.is_empty() {
        let named = |id: &String| [id.clone(), format!("user:{id}"), format!("operator:{id}"), format!("token:{id}")];
        let actors: Vec<String> = filter.actors.iter().flat_map(named).collect();
        query.push(" AND actor = ANY(").push_bind(actors).push(")");
    }
    if !filter.subjects.is_empty() {
        query.push(" AND aggregate_id = ANY(").push_bind(filter.subjects.clone()).push(")");
    }
    if let Some(since) = filter.since {
        query.push(" AND recorded_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" AND recorded_at < ").push_bind(until);
    }
    if let Some(correlation) = filter.correlation {
        query.push(" AND correlation_id = ").push_bind(correlation);
    }
}

/// Look-ups that no decision relies upon: the append holds every command against the same rows under its locks.
impl Log {
    /// Who holds a global key.
    pub async fn claim(&self, scope: aggregates::Scope, key: &str) -> Result<Option<String>, LogError> {
        let holder =
            sqlx::query_scalar!("SELECT holder FROM claims WHERE scope = $1 AND key = $2", scope.as_str(), key);
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
