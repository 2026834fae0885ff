//! The path of a command: caller → checks → decide → append → receipt.
//!
//! A [`UseCase`] loads what it needs through [`Work`], which notes every stream and version that the decision
//! relied upon, and hands over new events. The append accepts only if all those versions still hold. So:
//! - an acceptance needs no fresh read: a stale one is a conflict, and the command is decided again;
//! - a refusal is made only from states that were just compared with the log.
//!
//! The service itself acts by the same path, on an authority of its own (`authority`).
//!
//! Checks come in the contract's order: authenticated → visible → lifecycle and verification → permission →
//! state → limit. The first four are [`Standing`]'s.

mod authority;
mod caller;
mod denied;
pub mod departures;
pub mod erasure;
mod execution;
mod fault;
pub mod first_organization;
mod grants;
pub mod invitations;
pub mod members;
pub mod organizations;
pub mod ownership;
pub mod projects;
pub mod prune;
mod receipt;
mod replay;
pub mod roles;
mod rules;
mod sole;
mod standing;
pub mod sweep;
pub mod token_secret;
pub mod tokens;
pub mod users;
pub mod webhooks;
mod work;

use std::sync::{Arc, Mutex};

use aggregates::StreamId;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::erased::ErasedList;
use crate::log::Log;
use crate::requests::token_uses::TokenUses;
use crate::requests::trail::Trail;

pub use caller::{Caller, NamedOrganization, Person, Principal};
pub use fault::{Fault, Rejection};
pub use receipt::Receipt;
pub use replay::IDEMPOTENCY_KEY_BYTES_MAX;
pub use rules::Rules;
pub use standing::{Insider, Rights, Standing, nowhere, sees};
pub use users::identity_claim;
pub use work::{Entity, Stop, Work};

/// What may come with any command.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the entity named by the input must have.
    pub expected_version: Option<u64>,
}

/// A command as a caller gives it.
pub trait UseCase: Serialize + Send + Sync {
    /// The operation's name: idempotency keys are kept per caller and operation.
    const OPERATION: &'static str;

    /// The operation's name, where one type serves several.
    fn operation(&self) -> &'static str {
        Self::OPERATION
    }

    /// Checks, decides, and hands new events to `work`.
    fn decide(&self, work: &mut Work<'_>) -> impl Future<Output = Result<(), Stop>> + Send;
}

/// Takes commands. Cheap to share.
pub struct Commands {
    log: Arc<Log>,
    rules: Rules,
    trail: Trail,
    uses: TokenUses,
    /// The list of erased persons, beside the database.
    erased: Mutex<ErasedList>,
    /// Where commands that lost a race over the same stream wait for each other, instead of losing again and again.
    turns: Vec<tokio::sync::Mutex<()>>,
}

/// How many turns there are; streams share them by hash.
const TURNS: usize = 1024;

impl Commands {
    /// Over this log, by these rules, with the list of whom was erased.
    pub fn new(log: Arc<Log>, rules: Rules, erased: ErasedList) -> Self {
        let erased = Mutex::new(erased);
        Self {
            log,
            rules,
            trail: Trail::default(),
            uses: TokenUses::default(),
            erased,
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
        }
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The access trail.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// When API tokens were used last.
    pub fn uses(&self) -> &TokenUses {
        &self.uses
    }

    /// The turn of a stream.
    async fn turn(&self, stream: &StreamId) -> tokio::sync::MutexGuard<'_, ()> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        stream.hash(&mut hasher);
        self.turns[hasher.finish() as usize % TURNS].lock().await
    }
}

/// The time at which an invitation or a deletion that begins at `now` ends.
fn later(now: DateTime<Utc>, span: chrono::Duration) -> DateTime<Utc> {
    now.checked_add_signed(span).unwrap_or(now)
}
