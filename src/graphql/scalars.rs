//! Scalars and enums of the contract.

use std::borrow::{Borrow, Cow};

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, Enum, InputValueError, InputValueResult, OutputType, Positioned, Scalar, ScalarType,
    ServerResult, Value,
};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value as Json;

use super::session::Session;

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

/// A JSON document in an answer, counted against what the answer may hold.
pub struct Document<T>(pub T);

impl<T: Borrow<Json> + Send + Sync> OutputType for Document<T> {
    fn type_name() -> Cow<'static, str> {
        <async_graphql::Json<Json> as OutputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <async_graphql::Json<Json> as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let document = self.0.borrow();
        let counted = ctx.data_unchecked::<Session>().spend_on(document);
        counted.map_err(|error| error.into_server_error(field.pos))?;
        Ok(Value::from_json(document.clone()).unwrap_or_default())
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
pub enum OrganizationVerification {
    /// Being filled in by its members.
    InSetup,
    /// Submitted, and waiting for an operator.
    Pending,
    /// Put off by an operator.
    Waitlisted,
    /// Accepted by an operator.
    Verified,
    /// Turned down by an operator.
    Rejected,
    /// Shut by an operator; only its owners see it.
    Blocked,
}

/// Whether the organization is in use.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::status::Lifecycle")]
pub enum OrganizationLifecycle {
    /// In use.
    Active,
    /// At rest, by an operator.
    Inactive,
    /// Deleted, and restorable until `purgeAt`.
    Deleted,
}

/// What an organization's status may allow.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::status::Capability")]
pub enum OrganizationCapability {
    /// Change name, slug, contact and settings.
    EditProfile,
    /// Invite, add and reinstate members, and grant more.
    AddMembers,
    /// Remove and suspend members, take back, and grant less.
    RemoveMembers,
    /// Let invited people join.
    AcceptInvitations,
    /// Create projects, API tokens and webhook endpoints.
    CreateResources,
    /// Change, archive and delete them.
    ChangeResources,
    /// Use them.
    UseResources,
    /// Be submitted for verification.
    SubmitForVerification,
    /// Be deleted.
    Delete,
    /// Be restored.
    Restore,
    /// Be left by its members.
    Leave,
}

/// Whether a user is let in.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::user::UserState")]
pub enum UserState {
    /// Let in.
    Active,
    /// Waiting for an operator's approval.
    Pending,
    /// Shut out by an operator, everywhere.
    Revoked,
    /// Erased: nothing personal is left.
    Erased,
}

/// Whether a member is in.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::membership::MembershipState")]
pub enum MembershipState {
    /// In.
    Active,
    /// Kept out for a while.
    Suspended,
    /// Out: removed, or gone.
    Removed,
}

/// Whether a webhook endpoint is sent anything.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::webhook::WebhookEndpointState")]
pub enum WebhookEndpointState {
    /// It is sent events.
    Enabled,
    /// It is sent nothing; what it misses waits.
    Disabled,
}

/// In which order a webhook endpoint is sent events: as fast as it takes them, or those of one subject one after the
/// other.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::webhook::WebhookOrdering")]
pub enum WebhookOrdering {
    /// As fast as the receiver takes them.
    Parallel,
    /// One after the other, for each subject.
    PerSubject,
}

/// How much a webhook endpoint is sent of an event: all, or only what it was and what it was about, by ids.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::webhook::WebhookContent")]
pub enum WebhookContent {
    /// All that the audit trail shows of it.
    Full,
    /// Only what happened and to what, by ids.
    Thin,
}

/// How a member came in.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::membership::MembershipSource")]
pub enum MembershipSource {
    /// Created the organization, or was named its owner then.
    Founder,
    /// Accepted an invitation.
    Invitation,
    /// Was added by somebody who could see the user.
    Direct,
    /// Was imported by an operator.
    Import,
}

/// Where an invitation stands; past its time it reads EXPIRED.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::invitation::InvitationState")]
pub enum InvitationState {
    /// Open.
    Pending,
    /// Accepted.
    Accepted,
    /// Turned down by the invited person.
    Declined,
    /// Taken back.
    Revoked,
    /// Past its time.
    Expired,
}

/// Where a project stands.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash)]
#[graphql(remote = "aggregates::project::ProjectState")]
pub enum ProjectState {
    /// In use.
    Active,
    /// Kept, and not in use.
    Archived,
    /// Deleted, and restorable until `purgeAt`.
    Deleted,
}

/// The stored name of an enum's value, as read models and the log have it.
pub fn stored<T: async_graphql::resolver_utils::EnumType>(value: T) -> String {
    match async_graphql::resolver_utils::enum_value(value) {
        Value::Enum(name) => name.to_string(),
        _ => String::new(),
    }
}

/// The stored name of a state of the domain.
pub fn name<T: serde::Serialize>(state: T) -> String {
    aggregates::event::shown(state)
}

/// The state of the domain that has this stored name.
pub fn named<T: serde::de::DeserializeOwned + Default>(name: &str) -> T {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).unwrap_or_default()
}

/// A version or a sequence as GraphQL's Int.
pub fn int(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
