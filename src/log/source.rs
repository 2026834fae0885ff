//! The log as projections read it: by partition and offset, each event readable or not by itself.

use std::collections::BTreeMap;

use aggregates::ids::{Id, OrganizationId};
use projections::{Entry, Failure, Range, Source, Unreadable};
use sqlx::PgConnection;

use super::stored::{COLUMNS, StoredEvent};
use super::{Log, LogError};

/// A row, and which of the wanted ranges it lies in.
#[derive(sqlx::FromRow)]
struct Wanted {
    ordinality: i64,
    #[sqlx(flatten)]
    event: StoredEvent,
}

/// What projections read. No read model shows from where or with which program a command came, so nobody need open it.
fn columns() -> String {
    COLUMNS.replace("ip, user_agent", "NULL::text AS ip, NULL::text AS user_agent")
}

impl Source for Log {
    async fn read(
        &self,
        connection: &mut PgConnection,
        ranges: &[Range],
        limit: i64,
    ) -> Result<Vec<Vec<Entry>>, Failure> {
        let partitions: Vec<i16> = ranges.iter().map(|range| range.partition).collect();
        let after: Vec<i64> = ranges.iter().map(|range| range.after).collect();
        let until: Vec<i64> = ranges.iter().map(|range| range.until).collect();
        let columns = columns();
        let statement = format!(
            r#"SELECT r.ordinality, e.* FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
                   AS r(number, after, until, ordinality)
               CROSS JOIN LATERAL (
                   SELECT {columns} FROM events
                   WHERE partition = r.number AND "offset" > r.after AND "offset" <= r.until ORDER BY "offset" LIMIT $4
               ) e"#
        );
        let query = sqlx::query_as::<_, Wanted>(&statement).bind(&partitions).bind(&after).bind(&until).bind(limit);
        let rows = query.fetch_all(connection).await?;
        let (places, rows): (Vec<i64>, Vec<StoredEvent>) =
            rows.into_iter().map(|row| (row.ordinality - 1, row.event)).unzip();
        let mut pages: Vec<Vec<Entry>> = ranges.iter().map(|_| vec![]).collect();
        for (place, entry) in places.into_iter().zip(self.entries(rows).await?) {
            if let Some(page) = usize::try_from(place).ok().and_then(|place| pages.get_mut(place)) {
                page.push(entry);
            }
        }
        Ok(pages)
    }

    async fn read_owner(
        &self,
        connection: &mut PgConnection,
        owner: &str,
        range: Range,
        limit: i64,
    ) -> Result<Vec<Entry>, Failure> {
        let columns = columns();
        // Offsets rise with the sequences by which the indexes find what belongs to one.
        let statement = match owner.starts_with(OrganizationId::PREFIX) {
            true => format!(
                r#"SELECT {columns} FROM events WHERE organization_id = $1 AND partition = $2 AND "offset" <= $4
                   AND audit_sequence > COALESCE((SELECT audit_sequence FROM events WHERE partition = $2 AND "offset" = $3), 0)
                   ORDER BY audit_sequence LIMIT $5"#
            ),
            false => format!(
                r#"SELECT {columns} FROM events WHERE aggregate_type = 'User' AND aggregate_id = $1 AND partition = $2
                   AND "offset" > $3 AND "offset" <= $4 ORDER BY sequence LIMIT $5"#
            ),
        };
        let query = sqlx::query_as(&statement).bind(owner).bind(range.partition).bind(range.after).bind(range.until);
        let rows = query.bind(limit).fetch_all(connection).await?;
        self.entries(rows).await
    }

    async fn heads(&self, connection: &mut PgConnection) -> Result<BTreeMap<i16, i64>, Failure> {
        Ok(super::read::heads(connection, &(0..self.partitions).collect::<Vec<_>>()).await?)
    }
}

impl Log {
    async fn entries(&self, rows: Vec<StoredEvent>) -> Result<Vec<Entry>, Failure> {
        let read = self.reader.read_each(&rows, &self.keys).await.map_err(|error| match error {
            LogError::Database(error) => Failure::Database(error),
            error => Failure::Database(sqlx::Error::Protocol(error.to_string())),
        })?;
        let entry = |(row, event): (StoredEvent, Result<_, LogError>)| match event {
            Ok(event) => Entry::Event(Box::new(event)),
            Err(error) => Entry::Unreadable(Unreadable {
                partition: row.partition,
                offset: row.offset,
                aggregate_type: row.aggregate_type,
                aggregate_id: row.aggregate_id,
                organization: row.organization_id,
                failure: error.to_string(),
            }),
        };
        Ok(rows.into_iter().zip(read).map(entry).collect())
    }
}
