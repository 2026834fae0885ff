//! Refusals as data, faults as top-level errors: every code of the contract is given in this file.

use aggregates::Refusal;
use aggregates::event::shown;
use async_graphql::{Enum, Error, ErrorExtensions, ID, Interface, SimpleObject};

use super::scalars::{Long, OrganizationCapability, OrganizationLifecycle, OrganizationVerification, int};
use crate::commands::{Fault, Rejection};
use crate::log::LogError;
use crate::requests::rate_limits::RateLimited;

/// Why a command was refused.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq)]
pub enum ErrorCode {
    /// A maximum would be exceeded.
    LimitReached,
    /// The organization's status does not allow it.
    EntityStatus,
    /// The object to be created is there already.
    AlreadyExists,
    /// The entity's own state does not allow it.
    InvalidState,
    /// The entity has another version than expected.
    VersionConflict,
    /// The invitation is settled.
    InvitationNotPending,
    /// The invitation is for another address.
    InvitationWrongRecipient,
    /// No active owner would be left.
    LastOwner,
    /// The caller may not give these roles.
    RoleNotGrantable,
    /// The plan does not include it.
    FeatureNotEntitled,
    /// A value of the input cannot be accepted.
    InvalidInput,
}

/// A refusal: nothing was changed (a LimitReached may have been recorded).
#[derive(Debug, Interface)]
#[graphql(
    field(name = "code", ty = "&ErrorCode"),
    field(name = "message", ty = "&String"),
    field(name = "path", ty = "&Option<Vec<String>>")
)]
pub enum UserError {
    /// A maximum.
    Limit(LimitReachedError),
    /// A status.
    Status(EntityStatusError),
    /// A double.
    Exists(AlreadyExistsError),
    /// A version.
    Version(VersionConflictError),
    /// Anything else.
    Refused(RefusedError),
}

/// A maximum would be exceeded.
#[derive(Debug, SimpleObject)]
pub struct LimitReachedError {
    code: ErrorCode,
    message: String,
    path: Option<Vec<String>>,
    /// Which limit.
    limit: String,
    /// The maximum in force.
    maximum: Long,
    /// How much is used.
    used: Long,
    /// How much more was asked for.
    requested: Long,
}

/// The organization's status does not allow it.
#[derive(Debug, SimpleObject)]
pub struct EntityStatusError {
    code: ErrorCode,
    message: String,
    path: Option<Vec<String>>,
    /// Where the organization stands.
    verification: OrganizationVerification,
    /// Whether it is in use.
    lifecycle: OrganizationLifecycle,
    /// What was asked for.
    capability: OrganizationCapability,
    /// What would make it possible.
    remedy: String,
}

/// The object to be created is there already.
#[derive(Debug, SimpleObject)]
pub struct AlreadyExistsError {
    code: ErrorCode,
    message: String,
    path: Option<Vec<String>>,
    /// What exists; null unless the caller may see it.
    existing_id: Option<ID>,
}

/// The entity has another version than expected.
#[derive(Debug, SimpleObject)]
pub struct VersionConflictError {
    code: ErrorCode,
    message: String,
    path: Option<Vec<String>>,
    /// What the caller expected.
    expected: i32,
    /// What it is.
    actual: i32,
}

/// Any other refusal.
#[derive(Debug, SimpleObject)]
pub struct RefusedError {
    code: ErrorCode,
    message: String,
    path: Option<Vec<String>>,
}

/// The types of refusals.
pub const KINDS: [&str; 5] =
    ["LimitReachedError", "EntityStatusError", "AlreadyExistsError", "VersionConflictError", "RefusedError"];

/// What a field means that all of them have.
pub fn about(field: &str) -> Option<&'static str> {
    Some(match field {
        "code" => "What kind of refusal it is, for programs.",
        "message" => "What was wrong and what to do, for people.",
        "path" => "Which part of the input it is about; null where it is about none.",
        _ => return None,
    })
}

fn at(field: &str) -> Option<Vec<String>> {
    Some(vec!["input".to_owned(), field.to_owned()])
}

impl From<Rejection> for UserError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Rule(refusal) => refusal.into(),
            Rejection::Version { expected, actual } => Self::Version(VersionConflictError {
                code: ErrorCode::VersionConflict,
                message: format!("its version is {actual}, not {expected}: read it again"),
                path: at("expectedVersion"),
                expected: int(expected),
                actual: int(actual),
            }),
            Rejection::Limit { name, maximum, used, requested } => Self::Limit(LimitReachedError {
                code: ErrorCode::LimitReached,
                message: format!("{used} of at most {maximum} {name} are used, and {requested} more would be too many"),
                path: None,
                limit: name,
                maximum: maximum.into(),
                used: used.into(),
                requested: requested.into(),
            }),
            Rejection::LastOwner => refused(
                ErrorCode::LastOwner,
                "an organization keeps at least one active owner: make somebody else an owner first",
                None,
            ),
        }
    }
}

impl From<Refusal> for UserError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::InvalidInput { path, message } => refused(ErrorCode::InvalidInput, message, at(path)),
            Refusal::EntityStatus { status, capability } => Self::Status(EntityStatusError {
                code: ErrorCode::EntityStatus,
                message: format!(
                    "the organization is {} and {}, which does not allow {}",
                    shown(status.lifecycle),
                    shown(status.verification),
                    shown(capability)
                ),
                path: None,
                verification: status.verification.into(),
                lifecycle: status.lifecycle.into(),
                capability: capability.into(),
                remedy: status.remedy(capability).to_owned(),
            }),
            Refusal::AlreadyExists { path, message, existing } => Self::Exists(AlreadyExistsError {
                code: ErrorCode::AlreadyExists,
                message,
                path: at(path),
                existing_id: Some(existing).filter(|id| !id.is_empty()).map(ID),
            }),
            Refusal::InvalidState(message) => refused(ErrorCode::InvalidState, message, None),
            Refusal::InvitationNotPending(_) => refused(ErrorCode::InvitationNotPending, message, None),
            Refusal::WrongRecipient => refused(ErrorCode::InvitationWrongRecipient, message, None),
            Refusal::RoleNotGrantable(message) => refused(ErrorCode::RoleNotGrantable, message, at("roles")),
            // Both are faults, and answered as such before; a refusal is what is left of them here.
            Refusal::Forbidden(message) => refused(ErrorCode::InvalidState, message, None),
            Refusal::NotFound => refused(ErrorCode::InvalidState, message, None),
        }
    }
}

fn refused(code: ErrorCode, message: impl Into<String>, path: Option<Vec<String>>) -> UserError {
    UserError::Refused(RefusedError { code, message: message.into(), path })
}

/// A top-level error with a code.
pub fn coded(code: &'static str, message: impl Into<String>) -> Error {
    Error::new(message.into()).extend_with(|_, extensions| extensions.set("code", code))
}

/// The caller is not authenticated.
pub fn unauthenticated() -> Error {
    coded("UNAUTHENTICATED", "sign in first: send `Authorization: Bearer <token>`")
}

/// Not there, or not for this caller: the same answer.
pub fn not_found() -> Error {
    coded("NOT_FOUND", "there is no such thing, or it is not yours to see")
}

/// Visible, but not permitted.
pub fn forbidden(message: impl Into<String>) -> Error {
    coded("FORBIDDEN", message)
}

/// An argument that cannot be read.
pub fn bad_input(message: impl Into<String>) -> Error {
    coded("BAD_USER_INPUT", message)
}

/// Too much in too short a time.
pub fn rate_limited(refused: RateLimited) -> Error {
    let wait = refused.retry_after_seconds;
    coded("RATE_LIMITED", refused.to_string()).extend_with(|_, extensions| extensions.set("retryAfterSeconds", wait))
}

/// A fault of a command.
pub fn fault(fault: Fault) -> Error {
    let message = fault.to_string();
    match fault {
        Fault::NotFound => not_found(),
        Fault::Revoked | Fault::UnknownUser | Fault::TokenEnded(_) => coded("UNAUTHENTICATED", message),
        Fault::Pending => forbidden(message),
        Fault::Forbidden(message) => forbidden(message),
        Fault::BadInput(message) => bad_input(message),
        Fault::Conflict => coded("CONFLICT", message),
        Fault::Unavailable(message) => coded("UNAVAILABLE", message),
        Fault::IdempotencyKeyReused => coded("IDEMPOTENCY_KEY_REUSED", message),
        Fault::RateLimited(refused) => rate_limited(refused),
        Fault::Log(error) => log_fault(error),
    }
}

/// A fault of the log: its cause is for the operators, in the service's own log, and not for the caller.
pub fn log_fault(error: LogError) -> Error {
    match error {
        // Data exceptions: a character or a time in the arguments that the database cannot hold.
        LogError::Database(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("22")) => {
            bad_input(
                "an argument holds a character or a number that cannot be: look for U+0000 and for times out of range",
            )
        }
        LogError::Database(_) | LogError::TimedOut | LogError::Busy(_) | LogError::Unkept(_) => {
            tracing::warn!(%error, "a request could not be served");
            coded("UNAVAILABLE", "the service cannot answer at the moment: try again in a few seconds")
        }
        LogError::Cipher | LogError::MasterKey(_) | LogError::Corrupt(_) => {
            tracing::error!(%error, "a request met what should not be");
            coded("INTERNAL", "Something failed inside the service; it is not the request's fault. Try again later.")
        }
    }
}

/// A fault of a read.
pub fn database_fault(error: sqlx::Error) -> Error {
    log_fault(LogError::Database(error))
}

/// A refusal in words.
pub fn describe(rejection: Rejection) -> String {
    match UserError::from(rejection) {
        UserError::Limit(error) => error.message,
        UserError::Status(error) => format!("{}. {}", error.message, error.remedy),
        UserError::Exists(error) => error.message,
        UserError::Version(error) => error.message,
        UserError::Refused(error) => error.message,
    }
}
