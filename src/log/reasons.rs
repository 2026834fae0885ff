//! Events with a reason: where texts about people may stay that an erasure cannot reach.

use aggregates::Recorded;
use aggregates::ids::OrganizationId;

use super::stored::{COLUMNS, StoredEvent};
use super::{Log, LogError};

/// Only what has a reason; the stored body has the event's name around it.
const WITH_REASON: &str = "payload #>> ARRAY[event_type, 'reason'] IS NOT NULL";

impl Log {
    /// The number of the newest event in an organization's trail, or in the installation's; 0 without any.
    pub async fn newest_number(&self, organization: Option<&OrganizationId>) -> Result<u64, LogError> {
        let newest: Option<i64> = match organization {
            Some(id) => {
                let newest = sqlx::query_scalar("SELECT max(audit_sequence) FROM events WHERE organization_id = $1");
                newest.bind(id.as_ref() as &str).fetch_one(&self.pool).await?
            }
            None => {
                let newest = sqlx::query_scalar("SELECT max(number) FROM installation_trail");
                newest.fetch_one(&self.pool).await?
            }
        };
        Ok(newest.unwrap_or_default().unsigned_abs())
    }

    /// The events with a reason among those with these numbers of a trail, `after < number <= until`, in order.
    pub async fn with_reason(
        &self,
        organization: Option<&OrganizationId>,
        after: u64,
        until: u64,
    ) -> Result<Vec<Recorded>, LogError> {
        let statement = match organization {
            Some(_) => format!(
                "SELECT {COLUMNS} FROM events WHERE organization_id = $3 AND audit_sequence > $1 AND audit_sequence <= $2
                 AND {WITH_REASON} ORDER BY audit_sequence"
            ),
            // The name is asked for so that both have the same parameters.
            None => format!(
                r#"SELECT {COLUMNS} FROM installation_trail JOIN events USING (partition, "offset")
                   WHERE number > $1 AND number <= $2 AND $3::text IS NULL AND {WITH_REASON} ORDER BY number"#
            ),
        };
        let query = sqlx::query_as::<_, StoredEvent>(&statement).bind(after.cast_signed()).bind(until.cast_signed());
        let rows = query.bind(organization.map(AsRef::<str>::as_ref)).fetch_all(&self.pool).await?;
        // One that this program cannot read tells it nothing.
        Ok(self.reader.read_each(&rows, &self.keys).await?.into_iter().flatten().collect())
    }
}
