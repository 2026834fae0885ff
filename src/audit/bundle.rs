//! The bundle that an export writes and anybody verifies: lines of JSON, as `docs/audit-format.md` describes them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::access::Record;
use super::leaf::Leaf;
use super::merkle::Hash;

/// The name of the format.
pub const FORMAT: &str = "tenancy-audit/1";
/// The longest line that is looked at, in bytes.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A line of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Line {
    /// The first one.
    Header(Header),
    /// The second one.
    Checkpoint(Signed),
    /// An event.
    Event(Box<Event>),
    /// A row of the access trail.
    Record(Box<AccessRecord>),
    /// The hashes of the events before it, as they were sealed.
    Hashes(Hashes),
    /// The last one.
    End {},
}

/// What the bundle holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// The format.
    pub format: String,
    /// Whose events.
    pub organization: String,
    /// The audit sequence from which on.
    pub from: u64,
    /// Up to which, itself included: the size of the checkpoint's tree.
    pub to: u64,
    /// Whether there is every event between; else only some, each with its own proof.
    pub complete: bool,
    /// The roots of the complete subtrees of the events before `from`, from left to right.
    pub before: Vec<Text>,
}

/// An event: what is hashed of it, and what that opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// The stored columns.
    pub columns: Leaf,
    /// What is personal in it and not erased, by where it stands: `payload.email`, `ip`, `userAgent`.
    pub personal: BTreeMap<String, Disclosed>,
    /// The inclusion proof, where the bundle is not complete.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proof: Option<Vec<Text>>,
}

/// A row of the access trail: what is hashed of it, and what that opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRecord {
    /// The stored columns.
    pub columns: Record,
    /// The address, where it is not erased: `ip`.
    pub personal: BTreeMap<String, Disclosed>,
}

/// A personal datum with the key that opens it, and nothing else, from the sealed text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclosed {
    /// The datum.
    pub value: String,
    /// The key, 32 bytes.
    pub key: Text,
}

/// Hashes of leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    /// The audit sequence of the first one.
    pub first: u64,
    /// The hashes.
    pub hashes: Vec<Text>,
}

/// The signed head of the tree that the events are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The checkpoint as a signed note.
    pub note: String,
}

/// 32 bytes as base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(pub Hash);

impl TryFrom<String> for Text {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("32 bytes in base64 were expected")
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        STANDARD.encode(text.0)
    }
}

impl Line {
    /// The line with its end.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }
}
