//! Who is calling.
//!
//! A bearer token is verified by whichever [`Verifier`] made it known whom it vouches for; the user behind it is
//! (issuer, subject), registered at the first call. What a user may do in an organization is no matter of tokens:
//! that is decided by the membership as the log has it (see [`crate::commands::Standing`]).

pub mod issuer;
pub mod rate_limits;

use std::sync::Arc;

use aggregates::user::{Profile, UserState};
use chrono::{DateTime, Utc};
use quick_cache::sync::Cache;

use crate::commands::{Commands, Fault, Principal};

/// How many verified tokens are kept in memory.
const CACHED_TOKENS_MAX: usize = 10_000;
/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who vouches.
    pub issuer: String,
    /// The user's id there.
    pub subject: String,
    /// The address, if the issuer verified it.
    pub email: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// Whether the issuer says that the user operates the service; only the built-in one may.
    pub operator: bool,
    /// Until when the token is valid.
    pub expires_at: DateTime<Utc>,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Something that verifies tokens of an issuer.
pub trait Verifier: Send + Sync {
    /// What the token says; refused unless signature, algorithm, issuer, audience and time are right.
    fn verify(&self, token: &str) -> Result<Identity, Refused>;
}

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The token is no good.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The user could not be looked up.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Who operates the service, by configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// By verified address, in lower case.
    Email(String),
    /// By identity.
    Subject {
        /// Who vouches.
        issuer: String,
        /// The user's id there.
        subject: String,
    },
}

/// Lets callers in.
pub struct Access {
    commands: Arc<Commands>,
    verifiers: Vec<Box<dyn Verifier>>,
    operators: Vec<Operator>,
    /// By the token's hash, so that no token lies in memory.
    verified: Cache<[u8; 32], (Identity, Principal)>,
}

impl Access {
    /// With these issuers and operators.
    pub fn new(commands: Arc<Commands>, verifiers: Vec<Box<dyn Verifier>>, operators: Vec<Operator>) -> Self {
        Self { commands, verifiers, operators, verified: Cache::new(CACHED_TOKENS_MAX) }
    }

    /// The principal that a bearer token stands for. The first call of a user registers the user.
    pub async fn authenticate(&self, token: &str) -> Result<Principal, Denied> {
        use sha2::{Digest, Sha256};
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused(format!(
                "the token has {} bytes; at most {TOKEN_BYTES_MAX} are looked at",
                token.len()
            ))
            .into());
        }
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some((_, principal)) = self.verified.get(&hash).filter(|(identity, _)| identity.expires_at > Utc::now())
        {
            return Ok(principal);
        }
        let identity = self.verify(token)?;
        let profile = Profile { email: identity.email.clone(), display_name: identity.name.clone() };
        let operator = self.is_operator(&identity);
        let user = self.commands.ensure_user(&identity.issuer, &identity.subject, profile, operator).await?;
        let principal = Principal { user, email: identity.email.clone(), operator };
        self.verified.insert(hash, (identity, principal.clone()));
        Ok(principal)
    }

    /// Whether the principal is let in, as the log has it now; refused where revoked.
    pub async fn state_of(&self, principal: &Principal) -> Result<UserState, Fault> {
        match self.commands.state_of(&principal.user).await? {
            UserState::Revoked => Err(Fault::Revoked),
            state => Ok(state),
        }
    }

    fn verify(&self, token: &str) -> Result<Identity, Refused> {
        let mut refused = Refused("this service accepts no tokens: configure an issuer".into());
        for verifier in &self.verifiers {
            match verifier.verify(token) {
                Ok(identity) => return Ok(identity),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn is_operator(&self, identity: &Identity) -> bool {
        identity.operator
            || self.operators.iter().any(|operator| match operator {
                Operator::Email(email) => {
                    identity.email.as_ref().is_some_and(|own| aggregates::text::email_key(own) == *email)
                }
                Operator::Subject { issuer, subject } => *issuer == identity.issuer && *subject == identity.subject,
            })
    }
}
