//! Scalars and enums of the contract.

use async_graphql::{Enum, InputValueError, InputValueResult, Scalar, ScalarType, Value};
use chrono::{DateTime, SecondsFormat, Utc};

/// An integer up to 2^53 − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Long(pub i64);

const LONG_MAX: i64 = (1 << 53) - 1;

/// An integer from 0 to 2^53 − 1.
#[Scalar(name = "Long")]
impl ScalarType for Long {
    fn parse(value: Value) -> InputValueResult<Self> {
        let number = match &value {
            Value::Number(number) => number.as_i64(),
            _ => None,
        };
        match number {
            Some(number) if (0..=LONG_MAX).contains(&number) => Ok(Self(number)),
            _ => Err(InputValueError::custom(format!("{value} is no Long: give an integer from 0 to {LONG_MAX}"))),
        }
    }

    fn to_value(&self) -> Value {
        self.0.into()
    }
}

impl From<u64> for Long {
    fn from(number: u64) -> Self {
        Self(i64::try_from(number).unwrap_or(LONG_MAX).min(LONG_MAX))
    }
}

/// A time in RFC 3339, UTC, as precise as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub DateTime<Utc>);

/// A time in RFC 3339, UTC.
#[Scalar(name = "DateTime")]
impl ScalarType for Time {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        let time = DateTime::parse_from_rfc3339(text).map(|time| Self(time.to_utc()));
        time.map_err(|_| InputValueError::custom(format!("{text:?} is no time: give one like 2026-01-31T12:00:00Z")))
    }

    fn to_value(&self) -> Value {
        // The spelling that events have too, so that one instant is one text.
        Value::String(self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

/// Opaque place in the log: the epoch and the offset in each partition concerned. Only ever passed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionText(pub String);

/// Opaque place in the log: the epoch and the offset in each partition concerned. Only ever passed back.
#[Scalar(name = "Position")]
impl ScalarType for PositionText {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self(text)),
            value => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

impl From<crate::log::Position> for PositionText {
    fn from(position: crate::log::Position) -> Self {
        Self(position.to_string())
    }
}

/// Whether somebody has looked at the organization.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::status::Verification")]
#[allow(missing_docs)]
pub enum OrganizationVerification {
    InSetup,
    Pending,
    Waitlisted,
    Verified,
    Rejected,
    Blocked,
}

/// Whether the organization is in use.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::status::Lifecycle")]
#[allow(missing_docs)]
pub enum OrganizationLifecycle {
    Active,
    Inactive,
    Deleted,
}

/// What an organization's status may allow.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::status::Capability")]
#[allow(missing_docs)]
pub enum OrganizationCapability {
    EditProfile,
    AddMembers,
    RemoveMembers,
    AcceptInvitations,
    CreateResources,
    ChangeResources,
    UseResources,
    SubmitForVerification,
    Delete,
    Restore,
    Leave,
}

/// Whether a user is let in.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::user::UserState")]
#[allow(missing_docs)]
pub enum UserState {
    Active,
    Pending,
    Revoked,
    Erased,
}

/// Whether a member is in.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::membership::MembershipState")]
#[allow(missing_docs)]
pub enum MembershipState {
    Active,
    Suspended,
    Removed,
}

/// Whether a webhook endpoint is sent anything.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::webhook::WebhookEndpointState")]
#[allow(missing_docs)]
pub enum WebhookEndpointState {
    Enabled,
    Disabled,
}

/// In which order a webhook endpoint is sent events: as fast as it takes them, or those of one subject one after the
/// other.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::webhook::WebhookOrdering")]
#[allow(missing_docs)]
pub enum WebhookOrdering {
    Parallel,
    PerSubject,
}

/// How much a webhook endpoint is sent of an event: all, or only what it was and what it was about, by ids.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::webhook::WebhookContent")]
#[allow(missing_docs)]
pub enum WebhookContent {
    Full,
    Thin,
}

/// How a member came in.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::membership::MembershipSource")]
#[allow(missing_docs)]
pub enum MembershipSource {
    Founder,
    Invitation,
    Direct,
    Import,
}

/// Where an invitation stands; past its time it reads EXPIRED.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::invitation::InvitationState")]
#[allow(missing_docs)]
pub enum InvitationState {
    Pending,
    Accepted,
    Declined,
    Revoked,
    Expired,
}

/// Where a project stands.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::project::ProjectState")]
#[allow(missing_docs)]
pub enum ProjectState {
    Active,
    Archived,
    Deleted,
}

/// The stored name of an enum's value, as read models and the log have it.
pub fn stored<T: async_graphql::resolver_utils::EnumType>(value: T) -> String {
    match async_graphql::resolver_utils::enum_value(value) {
        Value::Enum(name) => name.to_string(),
        _ => String::new(),
    }
}

/// A version or a sequence as GraphQL's Int.
pub fn int(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
