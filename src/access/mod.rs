//! Callers.
//!
//! A bearer token is verified by the [`Verifier`] of the issuer that it names, and by no other; the user behind it is
//! (issuer, subject), registered at the first call. An organization's own API token is known by its secret. Tokens do not
//! decide what a user may do in an organization: the membership does, as the log has it (see
//! [`crate::commands::Standing`]).

mod claims;
pub mod codes;
pub mod issuer;
pub mod openid;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregates::ids::ApiTokenId;
use aggregates::user::Profile;
use chrono::{DateTime, Utc};
use quick_cache::sync::Cache;

use self::issuer::BuiltinIssuer;
use self::openid::Provider;
pub use crate::commands::NamedOrganization;
use crate::commands::{Commands, Fault, Person, Principal, token_secret};

/// How many verified tokens are kept in memory.
const CACHED_TOKENS_MAX: usize = 10_000;
/// How long a token is not verified again: a key that its issuer withdrew counts no longer than that.
const CACHED_FOR_MAX: Duration = Duration::from_secs(5 * 60);
/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The issuer.
    pub issuer: String,
    /// The user's id there.
    pub subject: String,
    /// The address, if the issuer verified it.
    pub email: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// Whether the issuer says that the user operates the service; only the built-in one may.
    pub operator: bool,
    /// The organization that the issuer says the user belongs to. Only what the token says: whether there is such an
    /// organization, and whether the user has to join it, is for the commands to find out.
    pub organization: Option<NamedOrganization>,
    /// Until when the token is valid.
    pub expires_at: DateTime<Utc>,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What verifies the tokens of one issuer.
#[derive(Clone)]
pub enum Verifier {
    /// The built-in one.
    Builtin(Arc<BuiltinIssuer>),
    /// An OpenID provider.
    OpenId(Arc<Provider>),
}

impl Verifier {
    fn issuer(&self) -> &str {
        match self {
            Self::Builtin(builtin) => builtin.issuer(),
            Self::OpenId(provider) => provider.issuer(),
        }
    }

    async fn verify(&self, token: &str) -> Result<Identity, Denied> {
        match self {
            Self::Builtin(builtin) => Ok(builtin.verify(token)?),
            Self::OpenId(provider) => provider.verify(token).await,
        }
    }
}

/// All of them. A token goes to the one whose issuer it names, which then has to prove it.
#[derive(Clone, Default)]
pub struct Verifiers(pub Vec<Verifier>);

impl Verifiers {
    /// What the token says.
    pub async fn verify(&self, token: &str) -> Result<Identity, Denied> {
        if self.0.is_empty() {
            return Err(Refused("this service accepts no tokens: configure an issuer".into()).into());
        }
        let issuer = claims::unproven_issuer(token)?;
        let verifier = self.0.iter().find(|verifier| verifier.issuer() == issuer).ok_or_else(|| {
            Refused(format!("the token is of the issuer {}, which is not configured here", claims::shown(&issuer)))
        })?;
        verifier.verify(token).await
    }
}

/// A token's hash, so that no token lies in memory.
fn digest(token: &str) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(token.as_bytes()).into()
}

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The token is no good.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The token cannot be checked at the moment.
    #[error("{0}")]
    Unavailable(String),
    /// The user could not be looked up.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// An operator of the service, by configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// By verified address, in the form in which addresses compare.
    Email(String),
    /// By identity.
    Subject {
        /// The issuer.
        issuer: String,
        /// The user's id there.
        subject: String,
    },
}

/// Lets callers in.
pub struct Access {
    commands: Arc<Commands>,
    verifiers: Verifiers,
    operators: Vec<Operator>,
    /// By the token's hash, so that no token lies in memory.
    verified: Cache<[u8; 32], Verified>,
    /// Which API tokens there are, by their secrets' hashes, and as of which epoch. Whether they may be used is looked
    /// up with each request.
    tokens: Cache<[u8; 32], (ApiTokenId, i64)>,
}

#[derive(Clone)]
struct Verified {
    identity: Identity,
    person: Person,
    at: Instant,
    /// Of which epoch the user is: a restored database may know another one, or none.
    epoch: i64,
}

impl Access {
    /// With these issuers and operators.
    pub fn new(commands: Arc<Commands>, verifiers: Verifiers, operators: Vec<Operator>) -> Self {
        Self {
            commands,
            verifiers,
            operators,
            verified: Cache::new(CACHED_TOKENS_MAX),
            tokens: Cache::new(CACHED_TOKENS_MAX),
        }
    }

    /// The principal that a bearer token stands for. The first call of a user registers the user.
    pub async fn authenticate(&self, token: &str) -> Result<Principal, Denied> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused(format!(
                "the token has {} bytes; at most {TOKEN_BYTES_MAX} are looked at",
                token.len()
            ))
            .into());
        }
        let hash = digest(token);
        let epoch = self.commands.log().epoch();
        if token.starts_with(token_secret::PREFIX) {
            return Ok(Principal::Token(self.api_token(token, hash, epoch).await?));
        }
        let mut known = self.verified.get(&hash).filter(|known| known.epoch == epoch);
        if let Some(user) = known.as_ref().map(|known| &known.person.user)
            && self.commands.is_erased(user).await?
        {
            known = None;
        }
        if let Some(known) = &known
            && known.identity.expires_at > Utc::now()
            && known.at.elapsed() < CACHED_FOR_MAX
        {
            return Ok(Principal::User(known.person.clone()));
        }
        let identity = self.verifiers.verify(token).await?;
        let person = match known {
            Some(known) if known.identity == identity => known.person,
            _ => self.person(&identity).await?,
        };
        self.verified.insert(hash, Verified { identity, person: person.clone(), at: Instant::now(), epoch });
        Ok(Principal::User(person))
    }

    /// The API token of this secret. A text that cannot be one is refused without asking the database.
    async fn api_token(&self, secret: &str, hash: [u8; 32], epoch: i64) -> Result<ApiTokenId, Denied> {
        if let Some((id, _)) = self.tokens.get(&hash).filter(|(_, known)| *known == epoch) {
            return Ok(id);
        }
        if !token_secret::is_well_formed(secret) {
            let message = "this is no API token: its checksum is wrong; look whether it was copied as a whole";
            return Err(Refused(message.to_owned()).into());
        }
        let id = self.commands.token_of(secret).await?;
        let id = id.ok_or_else(|| Refused("this API token was revoked, has expired, or never was".to_owned()))?;
        self.tokens.insert(hash, (id.clone(), epoch));
        Ok(id)
    }

    /// Until when a token is valid that was just accepted; `None` for ever.
    pub async fn valid_until(&self, token: &str) -> Result<Option<DateTime<Utc>>, Denied> {
        let hash = digest(token);
        if token.starts_with(token_secret::PREFIX) {
            let id = self.api_token(token, hash, self.commands.log().epoch()).await?;
            return Ok(self.commands.token_expires_at(&id).await?);
        }
        Ok(Some(match self.verified.get(&hash) {
            Some(known) => known.identity.expires_at,
            None => self.verifiers.verify(token).await?.expires_at,
        }))
    }

    async fn person(&self, identity: &Identity) -> Result<Person, Fault> {
        let profile = Profile { email: identity.email.clone(), display_name: identity.name.clone() };
        let operator = self.is_operator(identity);
        let user = self.commands.ensure_user(&identity.issuer, &identity.subject, profile, operator).await?;
        Ok(Person { user, email: identity.email.clone(), operator, organization: identity.organization.clone() })
    }

    /// Whether the principal has yet to be approved, as the log has it now; a fault where it is shut out.
    pub async fn is_pending(&self, principal: &Principal) -> Result<bool, Fault> {
        match self.commands.admit_now(principal).await {
            Ok(()) => Ok(false),
            Err(Fault::Pending) => Ok(true),
            Err(fault) => Err(fault),
        }
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
