//! What is hashed of an event: its stored columns, one after the other.
//!
//! The leaf of an event is the byte 1 (the version of this encoding), then each of [`FIELDS`] in their order, as
//! its length in bytes (32 bits, big-endian) and its bytes in UTF-8. A missing value has the length 2³² − 1 and no bytes.
//! Numbers are decimal; ids and the stored JSON texts are taken as they are, personal data in them as ciphertext;
//! `recorded_at` is `2026-01-31T08:05:09.000123Z`, always with six digits. Partition, offset and epoch are not part
//! of it: they say where an event lies, and that changes when a log is moved.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::merkle::{Hash, leaf_hash};
use crate::log::StoredEvent;

/// The version of the encoding.
const VERSION: u8 = 1;
/// The length that stands for a missing value.
const MISSING: u32 = u32::MAX;

macro_rules! leaf {
    ($($(#[doc = $doc:literal])* $field:ident),* $(,)?) => {
        /// The columns of an event that are hashed, as text.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct Leaf {
            $($(#[doc = $doc])* pub $field: Option<String>,)*
        }

        /// The names of the columns, in the order in which they are hashed.
        pub const FIELDS: &[&str] = &[$(stringify!($field)),*];

        impl Leaf {
            /// The bytes that are hashed.
            pub fn bytes(&self) -> Vec<u8> {
                let mut bytes = vec![VERSION];
                $(push(&mut bytes, self.$field.as_deref());)*
                bytes
            }
        }
    };
}

leaf! {
    /// `Organization`, `Membership`, …
    aggregate_type,
    /// The stream.
    aggregate_id,
    /// The number in the stream, from 1.
    sequence,
    /// What happened, for example `OrgVerified`.
    event_type,
    /// The version of the event's shape.
    event_version,
    /// The event's own fields: the stored JSON, byte for byte.
    payload,
    /// Nothing at present: the stored JSON `{}`.
    metadata,
    /// The organization.
    organization_id,
    /// The number in the organization, from 1; the number of the leaf is one less.
    audit_sequence,
    /// The event's id.
    event_id,
    /// The command that recorded it.
    command_id,
    /// The actor: `user:…`, `operator:…`, `token:…` or `system`.
    actor,
    /// For whom.
    on_behalf_of,
    /// The network address, as ciphertext.
    ip,
    /// The caller's program, as ciphertext.
    user_agent,
    /// The HTTP request.
    request_id,
    /// What belongs together.
    correlation_id,
    /// The event that caused this one.
    causation_id,
    /// When it was recorded.
    recorded_at,
}

pub(super) fn push(bytes: &mut Vec<u8>, value: Option<&str>) {
    // A column is far shorter than 4 GiB: requests are bounded.
    let length = value.map_or(MISSING, |value| u32::try_from(value.len()).unwrap_or(MISSING - 1));
    bytes.extend(length.to_be_bytes());
    bytes.extend(value.unwrap_or_default().as_bytes());
}

/// A time as it is hashed and exported.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl Leaf {
    /// The columns of a stored event, with its metadata.
    pub fn new(event: &StoredEvent, metadata: &str) -> Self {
        let text = |value: &str| Some(value.to_owned());
        Self {
            aggregate_type: text(&event.aggregate_type),
            aggregate_id: text(&event.aggregate_id),
            sequence: Some(event.sequence.to_string()),
            event_type: text(&event.event_type),
            event_version: text(&event.event_version),
            payload: text(&event.payload),
            metadata: text(metadata),
            organization_id: event.organization_id.clone(),
            audit_sequence: event.audit_sequence.map(|number| number.to_string()),
            event_id: text(&event.event_id),
            command_id: Some(event.command_id.to_string()),
            actor: text(&event.actor),
            on_behalf_of: event.on_behalf_of.clone(),
            ip: event.ip.clone(),
            user_agent: event.user_agent.clone(),
            request_id: event.request_id.clone(),
            correlation_id: Some(event.correlation_id.to_string()),
            causation_id: event.causation_id.clone(),
            recorded_at: Some(time(event.recorded_at)),
        }
    }

    /// The hash of the leaf.
    pub fn hash(&self) -> Hash {
        leaf_hash(&self.bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lengths_keep_fields_apart_and_missing_is_not_empty() {
        let none = Leaf {
            aggregate_type: Some("ab".into()),
            aggregate_id: Some("c".into()),
            ..serde_json::from_str("{}").unwrap()
        };
        assert_eq!(none.bytes()[..16], [1, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 1, b'c', 255, 255, 255, 255]);
        assert_eq!(none.bytes().len(), 1 + FIELDS.len() * 4 + 3);
        let moved = Leaf { aggregate_type: Some("a".into()), aggregate_id: Some("bc".into()), ..none.clone() };
        let empty = Leaf { sequence: Some(String::new()), ..none.clone() };
        assert_ne!(none.hash(), moved.hash());
        assert_ne!(none.hash(), empty.hash());
    }

    #[test]
    fn a_time_has_six_digits() {
        let at = |text: &str| time(text.parse().unwrap());
        assert_eq!(at("2026-01-31T09:05:09.000123456+01:00"), "2026-01-31T08:05:09.000123Z");
        assert_eq!(at("2026-01-31T08:05:09Z"), "2026-01-31T08:05:09.000000Z");
    }
}
