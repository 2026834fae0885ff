//! What tells an event that the service wrote from one that somebody else wrote into the database.
//!
//! Each event carries a code (HMAC-SHA-256, its first 128 bits) over its columns and its place, and over the code of the
//! event before it in its partition. The key follows from the master key, so the database does not have it: nobody who has
//! the database alone can alter an event, put one in, take one out of the middle, or continue from one that was
//! exchanged. That the newest events were cut off does not show in the codes that are left; that shows against what is known
//! of the chain elsewhere (`audit::heads`).
//!
//! Events from before there were codes have an empty one. They are a beginning of their partition, whose end is on record
//! under the same key.

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use super::access::AccessRow;
use super::stored::StoredEvent;

/// The length of a code.
pub const MAC_BYTES: usize = 16;
/// What `metadata` holds of every event.
pub const METADATA: &str = "{}";

/// A code; empty for the beginning of a chain.
pub type Mac = Vec<u8>;

/// The key of all chains of a database.
#[derive(Clone)]
pub struct ChainKey(Hmac<Sha256>);

/// What a code is for: no code of one kind is one of another.
#[repr(u8)]
enum Kind {
    Event = 1,
    Cursor = 2,
    Epoch = 3,
    Access = 4,
    AccessDropped = 5,
}

/// The columns of an event that its code covers: all of them.
#[allow(missing_docs)]
pub struct Columns<'a> {
    pub partition: i16,
    pub offset: i64,
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    pub sequence: i64,
    pub event_type: &'a str,
    pub event_version: &'a str,
    pub payload: &'a str,
    pub metadata: &'a str,
    pub organization_id: Option<&'a str>,
    pub audit_sequence: Option<i64>,
    pub event_id: &'a str,
    pub command_id: Uuid,
    pub actor: &'a str,
    pub on_behalf_of: Option<&'a str>,
    pub ip: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub request_id: Option<&'a str>,
    pub correlation_id: Uuid,
    pub causation_id: Option<&'a str>,
    pub recorded_at: DateTime<Utc>,
}

impl<'a> Columns<'a> {
    /// Those of a stored event.
    pub fn of(event: &'a StoredEvent, metadata: &'a str) -> Self {
        Self {
            partition: event.partition,
            offset: event.offset,
            aggregate_type: &event.aggregate_type,
            aggregate_id: &event.aggregate_id,
            sequence: event.sequence,
            event_type: &event.event_type,
            event_version: &event.event_version,
            payload: &event.payload,
            metadata,
            organization_id: event.organization_id.as_deref(),
            audit_sequence: event.audit_sequence,
            event_id: &event.event_id,
            command_id: event.command_id,
            actor: &event.actor,
            on_behalf_of: event.on_behalf_of.as_deref(),
            ip: event.ip.as_deref(),
            user_agent: event.user_agent.as_deref(),
            request_id: event.request_id.as_deref(),
            correlation_id: event.correlation_id,
            causation_id: event.causation_id.as_deref(),
            recorded_at: event.recorded_at,
        }
    }
}

/// Where the sealed part of a partition's chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The partition.
    pub partition: i16,
    /// The last offset.
    pub offset: i64,
    /// Up to which offset events have no code.
    pub without_mac: i64,
    /// The code of the last event.
    pub mac: Mac,
}

impl ChainKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        match Hmac::new_from_slice(key) {
            Ok(mac) => Self(mac),
            Err(_) => unreachable!("HMAC takes keys of every length"),
        }
    }

    fn begin(&self, kind: Kind) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&[kind as u8]);
        mac
    }

    /// The code of an event that follows the one whose code is `before`.
    pub fn of_event(&self, before: &[u8], event: &Columns<'_>) -> Mac {
        let mut mac = self.begin(Kind::Event);
        bytes(&mut mac, Some(before));
        mac.update(&event.partition.to_be_bytes());
        mac.update(&event.offset.to_be_bytes());
        mac.update(&event.sequence.to_be_bytes());
        mac.update(&event.audit_sequence.unwrap_or_default().to_be_bytes());
        mac.update(&event.recorded_at.timestamp_micros().to_be_bytes());
        mac.update(event.command_id.as_bytes());
        mac.update(event.correlation_id.as_bytes());
        let required = [
            event.aggregate_type,
            event.aggregate_id,
            event.event_type,
            event.event_version,
            event.payload,
            event.metadata,
            event.event_id,
            event.actor,
        ];
        let optional = [
            event.organization_id,
            event.on_behalf_of,
            event.ip,
            event.user_agent,
            event.request_id,
            event.causation_id,
        ];
        for text in required.into_iter().map(Some).chain(optional) {
            bytes(&mut mac, text.map(str::as_bytes));
        }
        finish(mac)
    }

    /// The code of a cursor.
    pub fn of_cursor(&self, cursor: &Cursor) -> Mac {
        let mut mac = self.begin(Kind::Cursor);
        mac.update(&cursor.partition.to_be_bytes());
        mac.update(&cursor.offset.to_be_bytes());
        mac.update(&cursor.without_mac.to_be_bytes());
        bytes(&mut mac, Some(&cursor.mac));
        finish(mac)
    }

    /// The code of a row of the access trail. It stands alone: replicas write such rows beside one another.
    pub fn of_access(&self, row: &AccessRow) -> Mac {
        let mut mac = self.begin(Kind::Access);
        mac.update(&row.part.to_be_bytes());
        mac.update(&row.created_at.timestamp_micros().to_be_bytes());
        mac.update(&row.times.to_be_bytes());
        let texts = [
            Some(&row.id),
            row.kind.as_ref(),
            row.actor.as_ref(),
            row.operation.as_ref(),
            row.organization_id.as_ref(),
            row.reached_organization_id.as_ref(),
            row.target_id.as_ref(),
            row.ip.as_ref(),
        ];
        for text in texts {
            bytes(&mut mac, text.map(String::as_bytes));
        }
        finish(mac)
    }

    /// The code of what says up to which leaf of the access trail rows were dropped with age.
    pub fn of_access_dropped(&self, number: i64) -> Mac {
        let mut mac = self.begin(Kind::AccessDropped);
        mac.update(&number.to_be_bytes());
        finish(mac)
    }

    /// The code of an epoch that the service began.
    pub fn of_epoch(&self, epoch: i64) -> Mac {
        let mut mac = self.begin(Kind::Epoch);
        mac.update(&epoch.to_be_bytes());
        finish(mac)
    }
}

/// Texts of any length stay apart, and a missing one is not an empty one.
fn bytes(mac: &mut Hmac<Sha256>, value: Option<&[u8]>) {
    let length = value.map_or(u64::MAX, |value| value.len() as u64);
    mac.update(&length.to_be_bytes());
    mac.update(value.unwrap_or_default());
}

fn finish(mac: Hmac<Sha256>) -> Mac {
    mac.finalize().into_bytes().iter().take(MAC_BYTES).copied().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event() -> StoredEvent {
        StoredEvent {
            aggregate_type: "Project".into(),
            aggregate_id: "prj_1".into(),
            sequence: 3,
            event_type: "ProjectRenamed".into(),
            event_version: "1.0".into(),
            payload: "{}".into(),
            partition: 2,
            offset: 17,
            organization_id: Some("org_1".into()),
            audit_sequence: Some(9),
            event_id: "evt_1".into(),
            command_id: Uuid::from_u128(1),
            actor: "user:usr_1".into(),
            on_behalf_of: None,
            ip: None,
            user_agent: Some("curl".into()),
            request_id: None,
            correlation_id: Uuid::from_u128(2),
            causation_id: None,
            recorded_at: "2026-01-31T08:05:09.000123Z".parse().unwrap(),
        }
    }

    #[test]
    fn every_column_and_the_event_before_change_the_code() {
        let key = ChainKey::new(&[7; 32]);
        let code = |change: &dyn Fn(&mut StoredEvent)| {
            let mut event = event();
            change(&mut event);
            key.of_event(b"before", &Columns::of(&event, METADATA))
        };
        let own = code(&|_| {});
        assert_eq!(own.len(), MAC_BYTES);
        let changes: [&dyn Fn(&mut StoredEvent); 20] = [
            &|e| e.aggregate_type.push('x'),
            &|e| e.aggregate_id.push('x'),
            &|e| e.sequence += 1,
            &|e| e.event_type.push('x'),
            &|e| e.event_version.push('x'),
            &|e| e.payload.push(' '),
            &|e| e.partition += 1,
            &|e| e.offset += 1,
            &|e| e.organization_id = None,
            &|e| e.audit_sequence = Some(10),
            &|e| e.event_id.push('x'),
            &|e| e.command_id = Uuid::nil(),
            &|e| e.actor.push('x'),
            &|e| e.on_behalf_of = Some(String::new()),
            &|e| e.ip = Some(String::new()),
            &|e| e.user_agent = None,
            &|e| e.request_id = Some(String::new()),
            &|e| e.correlation_id = Uuid::nil(),
            &|e| e.causation_id = Some(String::new()),
            &|e| e.recorded_at += chrono::Duration::microseconds(1),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_ne!(code(change), own, "change {number}");
        }
        assert_ne!(key.of_event(b"", &Columns::of(&event(), METADATA)), own);
        assert_ne!(key.of_event(b"before", &Columns::of(&event(), "[]")), own);
        assert_ne!(ChainKey::new(&[8; 32]).of_event(b"before", &Columns::of(&event(), METADATA)), own);
    }
}
