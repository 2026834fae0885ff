//! The rows of the log as the checker reads them: plain columns and JSON, nothing of the service's own types.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::{PgPool, Row};

/// An event of the log.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its partition.
    pub partition: i16,
    /// Its place there.
    pub offset: i64,
    /// The kind of its stream.
    pub kind: String,
    /// Its stream.
    pub stream: String,
    /// Its place there.
    pub version: i64,
    /// What happened.
    pub name: String,
    /// The event's own fields.
    pub body: Value,
    /// The organization.
    pub organization: Option<String>,
    /// Its place in the organization's audit.
    pub audit: Option<i64>,
    /// Its id.
    pub id: String,
    /// The command that it came of.
    pub command: String,
    /// The actor.
    pub actor: String,
    /// The request.
    pub request: Option<String>,
    /// The event that it follows, in a process that goes on behind a command.
    pub cause: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// The database's own number of the transaction that wrote it. It is given out under the locks that order
    /// transactions which have anything to do with each other, so it orders what partitions do not.
    pub transaction: i64,
}

impl Event {
    /// A text of its body.
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// A text of its body that may be missing.
    pub fn optional(&self, field: &str) -> Option<String> {
        self.body[field].as_str().map(str::to_owned)
    }

    /// A number of its body.
    pub fn number(&self, field: &str) -> i64 {
        self.body[field].as_i64().unwrap_or_default()
    }

    /// A time of its body.
    pub fn time(&self, field: &str) -> Option<DateTime<Utc>> {
        self.body[field].as_str()?.parse().ok()
    }

    /// A list of texts of its body.
    pub fn texts(&self, field: &str) -> Vec<String> {
        let list = self.body[field].as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// Its action, as webhooks name it: the first word, a dot, and the others (`MemberRolesChanged`, `member.roles_changed`).
    pub fn action(&self) -> String {
        let mut action = String::new();
        for letter in self.name.chars() {
            if letter.is_ascii_uppercase() && !action.is_empty() {
                action.push(if action.contains('.') { '_' } else { '.' });
            }
            action.push(letter.to_ascii_lowercase());
        }
        action
    }

    /// Whether its content was taken away, with the trail of its organization.
    pub fn is_pruned(&self) -> bool {
        self.name == "Pruned"
    }

    /// Where and what it is, for messages.
    pub fn place(&self) -> String {
        format!("{}-{} {} {} of {}", self.partition, self.offset, self.id, self.name, self.stream)
    }
}

/// The whole log, by partition and offset.
pub async fn load(pool: &PgPool) -> Result<Vec<Event>, sqlx::Error> {
    let statement = r#"SELECT partition, "offset", aggregate_type, aggregate_id, sequence, event_type, payload::text,
                              organization_id, audit_sequence, event_id, command_id::text, actor, request_id,
                              recorded_at, xmin::text::bigint, causation_id
                       FROM events ORDER BY partition, "offset""#;
    let mut rows = sqlx::query(statement).fetch(pool);
    let mut events = vec![];
    while let Some(row) = rows.try_next().await? {
        let name: String = row.get(5);
        let mut payload: Value = serde_json::from_str(row.get(6)).unwrap_or_default();
        events.push(Event {
            partition: row.get(0),
            offset: row.get(1),
            kind: row.get(2),
            stream: row.get(3),
            version: row.get(4),
            body: payload[name.as_str()].take(),
            name,
            organization: row.get(7),
            audit: row.get(8),
            id: row.get(9),
            command: row.get(10),
            actor: row.get(11),
            request: row.get(12),
            at: row.get(13),
            transaction: row.get(14),
            cause: row.get(15),
        });
    }
    Ok(events)
}
