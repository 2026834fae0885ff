//! What is told of an event outside GraphQL: the body of a webhook, and an entry of the pull feed.
//!
//! `type` is the event's action, `timestamp` when it was recorded, `data` what it was about. It is made from the stored
//! event each time and not kept, so a receiver gets the same bytes at every attempt, but for what was erased meanwhile:
//! that is null. Of where a caller came from (`ip`, `userAgent`) nothing is told.

use aggregates::webhook::WebhookContent;
use aggregates::{Actor, Recorded};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::audit::data::data;
use crate::log::Position;

/// An event as it is told.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// For example `member.invited`.
    #[serde(rename = "type")]
    kind: String,
    timestamp: String,
    data: Data,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    id: String,
    organization_id: Option<String>,
    subject_id: String,
    sequence: u64,
    audit_sequence: Option<u64>,
    position: String,
    #[serde(flatten)]
    full: Option<Full>,
}

/// What a thin message leaves out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Full {
    actor: Who,
    on_behalf_of: Option<Who>,
    correlation_id: String,
    causation_id: Option<String>,
    fields: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize)]
struct Who {
    #[serde(rename = "type")]
    kind: &'static str,
    id: Option<String>,
}

impl Who {
    fn of(actor: &Actor) -> Self {
        let kind = match actor {
            Actor::User(_) => "user",
            Actor::Operator(_) => "operator",
            Actor::Token(_) => "token",
            Actor::System => "system",
        };
        Self { kind, id: actor.id().map(str::to_owned) }
    }
}

impl Message {
    /// Of a recorded event, which lies in this epoch of the log.
    pub fn of(recorded: &Recorded, epoch: i64, content: WebhookContent) -> Self {
        let origin = &recorded.origin;
        let full = (content == WebhookContent::Full).then(|| Full {
            actor: Who::of(&origin.actor),
            on_behalf_of: origin.on_behalf_of.as_ref().map(Who::of),
            correlation_id: origin.correlation_id.to_string(),
            causation_id: origin.causation_id.as_ref().map(ToString::to_string),
            fields: data(recorded),
        });
        Self {
            kind: recorded.event.descriptor().action(),
            timestamp: time(recorded.recorded_at),
            data: Data {
                id: recorded.id.to_string(),
                organization_id: recorded.organization.as_ref().map(ToString::to_string),
                subject_id: recorded.stream.id().to_owned(),
                sequence: recorded.sequence,
                audit_sequence: recorded.audit_sequence,
                position: Position::at(epoch, recorded.partition, recorded.offset).to_string(),
                full,
            },
        }
    }

    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and maps with keys of text: there is nothing in it that JSON does not know.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
