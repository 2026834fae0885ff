//! What the live feed reads of the log: what is new in partitions, once for everybody, and the events of one
//! organization by its own numbers, for whoever is behind that.

use std::collections::HashMap;

use aggregates::ids::OrganizationId;
use aggregates::{PRUNED, Recorded, StreamId};

use super::stored::{COLUMNS, StoredEvent};
use super::{Log, LogError};

impl Log {
    /// What comes after these offsets of partitions, at most `limit` events of each, by partition and offset: all of one
    /// moment, so that what was written before any of these events is among them, or beyond a page that is full.
    pub async fn after_offsets(&self, cursors: &[(i16, i64)], limit: i64) -> Result<Vec<StoredEvent>, LogError> {
        let (partitions, offsets): (Vec<i16>, Vec<i64>) = cursors.iter().copied().unzip();
        let statement = format!(
            r#"SELECT e.* FROM unnest($1::smallint[], $2::bigint[]) AS r(number, after)
               CROSS JOIN LATERAL (
                   SELECT {COLUMNS} FROM events
                   WHERE partition = r.number AND "offset" > r.after ORDER BY "offset" LIMIT $3
               ) e ORDER BY e.partition, e."offset""#
        );
        let query = sqlx::query_as(&statement).bind(&partitions).bind(&offsets).bind(limit);
        Ok(query.fetch_all(&self.pool).await?)
    }

    /// Gives events outside of organizations the number that they have in the installation's trail, once they are sealed.
    pub async fn number_installation(&self, rows: &mut [StoredEvent]) -> Result<(), LogError> {
        let places = rows.iter().filter(|row| row.organization_id.is_none()).map(|row| (row.partition, row.offset));
        let (partitions, offsets): (Vec<i16>, Vec<i64>) = places.unzip();
        if partitions.is_empty() {
            return Ok(());
        }
        let numbers = sqlx::query_as::<_, (i16, i64, i64)>(
            r#"SELECT partition, "offset", number FROM installation_trail
               JOIN unnest($1::smallint[], $2::bigint[]) AS w(partition, "offset") USING (partition, "offset")"#,
        );
        let numbers = numbers.bind(&partitions).bind(&offsets).fetch_all(&self.pool).await?;
        let numbers: HashMap<(i16, i64), i64> =
            numbers.into_iter().map(|(partition, offset, number)| ((partition, offset), number)).collect();
        for row in rows.iter_mut().filter(|row| row.organization_id.is_none()) {
            row.audit_sequence = numbers.get(&(row.partition, row.offset)).copied();
        }
        Ok(())
    }

    /// The events of an organization after this audit sequence, as they are stored.
    pub async fn after_sequence(
        &self,
        organization: &OrganizationId,
        sequence: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, LogError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM events WHERE organization_id = $1 AND audit_sequence > $2 ORDER BY audit_sequence LIMIT $3"
        );
        let query = sqlx::query_as(&statement).bind(organization.as_ref() as &str).bind(sequence).bind(limit);
        Ok(query.fetch_all(&self.pool).await?)
    }

    /// The audit sequence of an organization's last event up to an offset of its partition; 0 before the first. Both rise
    /// together, so a search by halves finds it: no index leads from offsets to organizations.
    pub async fn sequence_at(&self, organization: &OrganizationId, offset: i64) -> Result<i64, LogError> {
        let last = sqlx::query_scalar("SELECT max(audit_sequence) FROM events WHERE organization_id = $1");
        let last: Option<i64> = last.bind(organization.as_ref() as &str).fetch_one(&self.pool).await?;
        let (mut low, mut high) = (0, last.unwrap_or(0));
        while low < high {
            let middle = low + (high - low + 1) / 2;
            let place = r#"SELECT "offset" FROM events WHERE organization_id = $1 AND audit_sequence = $2"#;
            let place = sqlx::query_scalar(place).bind(organization.as_ref() as &str).bind(middle);
            let place: i64 = place.fetch_one(&self.pool).await?;
            match place <= offset {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        Ok(low)
    }

    /// The offset of the newest event of these types in a stream of an organization; `None` where it has none. Both the
    /// stream's partition and its offsets are the organization's, so two streams of one organization compare by it.
    pub async fn last_of(&self, stream: &StreamId, types: &[&str]) -> Result<Option<i64>, LogError> {
        let last = sqlx::query_scalar(
            r#"SELECT max("offset") FROM events
               WHERE aggregate_type = $1 AND aggregate_id = $2 AND event_type = ANY ($3)"#,
        );
        Ok(last.bind(stream.aggregate_type()).bind(stream.id()).bind(types).fetch_one(&self.pool).await?)
    }

    /// Stored events as they are read, with what is personal opened, without those that were pruned.
    pub async fn read_stored(&self, mut rows: Vec<StoredEvent>) -> Result<Vec<Recorded>, LogError> {
        rows.retain(|row| row.event_type != PRUNED.name);
        self.reader.read(rows, &self.keys).await
    }
}
