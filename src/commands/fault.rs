//! Why a command was not carried out. A [`Fault`] is for the caller or the operators to mend; a [`Rejection`] is an answer,
//! with its fields.

use aggregates::Refusal;

use crate::log::LogError;
use crate::requests::rate_limits::RateLimited;

/// Why a command could not even be refused: nothing was changed, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not there, or not for this caller to see.
    #[error("there is no such thing, or it is not yours to see")]
    NotFound,
    /// The caller was revoked.
    #[error("this user was revoked: ask the operators of the service")]
    Revoked,
    /// The token that calls cannot be used any more.
    #[error("this API token {0}: use another one")]
    TokenEnded(&'static str),
    /// The caller is not in the log.
    #[error("this user is not known any more: sign in again")]
    UnknownUser,
    /// The caller has to be approved.
    #[error("this user waits for an operator's approval")]
    Pending,
    /// Visible, but not permitted.
    #[error("{0}")]
    Forbidden(String),
    /// An input that cannot be read.
    #[error("{0}")]
    BadInput(String),
    /// It lost its race again and again.
    #[error("others changed the same thing at the same time; try again")]
    Conflict,
    /// The key was used with another input.
    #[error("this idempotency key was used with another input: use a new key, or repeat the same input")]
    IdempotencyKeyReused,
    /// What it has to know is not known at the moment.
    #[error("{0}")]
    Unavailable(&'static str),
    /// There were too many before it.
    #[error(transparent)]
    RateLimited(#[from] RateLimited),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why a command was refused, beyond what an aggregate says itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejection {
    /// An aggregate's own rule, or the organization's status.
    Rule(Refusal),
    /// The entity has another version.
    Version {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// A maximum would be exceeded.
    Limit {
        /// Which limit.
        name: String,
        /// The maximum.
        maximum: u64,
        /// What is used.
        used: u64,
        /// How much more was asked for.
        requested: u64,
    },
    /// No active owner would be left.
    LastOwner,
}
