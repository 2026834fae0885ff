//! Why a command is refused: one list for all aggregates, so that codes are given in one place.

use crate::event::shown;
use crate::invitation::InvitationState;
use crate::status::{Capability, Status};

/// A broken rule, with its figures.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A value of the input that cannot be accepted.
    #[error("{message}")]
    InvalidInput {
        /// The field of the input.
        path: &'static str,
        /// What was wrong, with which value, and what would be right.
        message: String,
    },
    /// The organization's status does not allow it.
    #[error("the organization's status does not allow {}", shown(capability))]
    EntityStatus {
        /// Where it stands.
        status: Status,
        /// What was asked for.
        capability: Capability,
    },
    /// The aggregate's own state does not allow it.
    #[error("{0}")]
    InvalidState(String),
    /// The invitation is settled.
    #[error("the invitation is {} and not PENDING any more", shown(.0))]
    InvitationNotPending(InvitationState),
    /// The invitation is somebody else's.
    #[error("this invitation is for another e-mail address: sign in with a verified account of the invited address")]
    WrongRecipient,
    /// The grantor may not give these roles.
    #[error("{0}")]
    RoleNotGrantable(String),
    /// The caller may not touch this.
    #[error("{0}")]
    Forbidden(String),
    /// What is to be created is there already.
    #[error("{message}")]
    AlreadyExists {
        /// The field of the input.
        path: &'static str,
        /// What exists.
        message: String,
        /// Its id.
        existing: String,
    },
    /// No such aggregate.
    #[error("there is no such thing")]
    NotFound,
}

impl Refusal {
    /// An [`Refusal::InvalidInput`].
    pub fn input(path: &'static str, message: impl Into<String>) -> Self {
        Self::InvalidInput { path, message: message.into() }
    }
}
