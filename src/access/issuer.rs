//! The built-in issuer: an Ed25519 key made at the first start, for development and small installations.

use std::path::Path;

use chrono::{TimeDelta, Utc};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::claims::{Expected, Head, Unread, usable_address};
use super::{Identity, Refused};
use crate::private_file;

/// The file of the key, in the data directory.
const KEY_FILE: &str = "issuer.pem";

/// Signs and verifies tokens of its own.
pub struct BuiltinIssuer {
    expected: Expected,
    audience: String,
    /// What a session of the console has to say.
    session: Expected,
    signing: EncodingKey,
    verifying: DecodingKey,
}

#[derive(Debug, Serialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    exp: i64,
    #[serde(flatten)]
    said: Said,
}

/// What it says of the user.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default)]
    operator: bool,
}

/// Why the issuer cannot work.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Its key file.
    #[error(transparent)]
    File(#[from] private_file::Error),
    /// Its key.
    #[error("the key of the built-in issuer cannot be used: {0}")]
    Key(String),
}

/// For whom a token is minted.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The address; it is the subject too.
    pub email: String,
    /// The name.
    pub name: Option<String>,
    /// Whether as an operator.
    pub operator: bool,
    /// For how long.
    pub ttl: TimeDelta,
}

impl BuiltinIssuer {
    /// Opens the key in `directory`, and makes one at the first start.
    pub fn open(directory: &Path, issuer: &str, audience: &str, leeway_seconds: u64) -> Result<Self, IssuerError> {
        let pem = private_file::read_or_create(&directory.join(KEY_FILE), || {
            let key = SigningKey::from_bytes(&rand::random());
            let pem = key.to_pkcs8_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF);
            pem.map(|pem| pem.as_bytes().to_vec()).map_err(|error| error.to_string())
        })?;
        let text = String::from_utf8(pem).map_err(|error| IssuerError::Key(error.to_string()))?;
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|error| IssuerError::Key(error.to_string()))?;
        let der = key.to_pkcs8_der().map_err(|error| IssuerError::Key(error.to_string()))?;
        let expected = |audience: String| Expected {
            issuer: issuer.to_owned(),
            audiences: vec![audience],
            leeway_seconds,
            subject_claim: "sub".to_owned(),
        };
        Ok(Self {
            expected: expected(audience.to_owned()),
            session: expected(session_audience(audience)),
            audience: audience.to_owned(),
            signing: EncodingKey::from_ed_der(der.as_bytes()),
            verifying: DecodingKey::from_ed_der(key.verifying_key().as_bytes()),
        })
    }

    /// Mints a token.
    pub fn mint(&self, grant: &Grant) -> Result<String, IssuerError> {
        self.sign(grant, self.audience.clone())
    }

    /// Signs a session of the console. It is good for nothing but [`BuiltinIssuer::session`].
    pub fn mint_session(&self, grant: &Grant) -> Result<String, IssuerError> {
        self.sign(grant, session_audience(&self.audience))
    }

    fn sign(&self, grant: &Grant, aud: String) -> Result<String, IssuerError> {
        let now = Utc::now();
        let claims = Claims {
            iss: self.issuer().to_owned(),
            aud,
            sub: aggregates::text::email_key(&grant.email),
            iat: now.timestamp(),
            exp: now.checked_add_signed(grant.ttl).unwrap_or(now).timestamp(),
            said: Said {
                email: Some(grant.email.clone()),
                email_verified: true,
                name: grant.name.clone(),
                operator: grant.operator,
            },
        };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.signing)
            .map_err(|error| IssuerError::Key(error.to_string()))
    }

    /// Its name in tokens.
    pub fn issuer(&self) -> &str {
        &self.expected.issuer
    }

    /// What the token says; refused unless signature, algorithm, issuer, audience and time are right.
    pub fn verify(&self, token: &str) -> Result<Identity, Refused> {
        self.read(token, &self.expected)
    }

    /// Whose session of the console it is; refused as tokens are.
    pub fn session(&self, session: &str) -> Result<Identity, Refused> {
        self.read(session, &self.session)
    }

    fn read(&self, token: &str, expected: &Expected) -> Result<Identity, Refused> {
        let head = Head::read(token, &[Algorithm::EdDSA])?;
        let claims = expected.read(token, head.algorithm, &self.verifying).map_err(|unread| match unread {
            Unread::Signature => Refused("the token is not signed by a key of this service".to_owned()),
            Unread::Refused(refused) => refused,
        })?;
        let said: Said = serde_json::from_value(Value::Object(claims.all))
            .map_err(|_| Refused("the token is not one of the built-in issuer".to_owned()))?;
        Ok(Identity {
            issuer: self.issuer().to_owned(),
            subject: claims.subject,
            email: usable_address(said.email.filter(|_| said.email_verified)),
            name: said.name,
            operator: said.operator,
            organization: None,
            expires_at: claims.expires_at,
        })
    }
}

/// No token of the API is made for it, and no session for the API.
fn session_audience(audience: &str) -> String {
    format!("{audience} console session")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(directory: &Path) -> BuiltinIssuer {
        BuiltinIssuer::open(directory, "https://issuer", "tenancy", 30).unwrap()
    }

    fn token(issuer: &BuiltinIssuer, change: impl FnOnce(&mut Claims)) -> String {
        let now = Utc::now().timestamp();
        let mut claims = Claims {
            iss: "https://issuer".into(),
            aud: "tenancy".into(),
            sub: "ada@example.com".into(),
            iat: now,
            exp: now + 3600,
            said: Said { email: Some("ada@example.com".into()), email_verified: true, name: None, operator: false },
        };
        change(&mut claims);
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &issuer.signing).unwrap()
    }

    #[test]
    fn accepts_its_own_tokens_within_the_leeway_and_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let first = issuer(directory.path());
        let minted = token(&first, |_| {});
        assert_eq!(issuer(directory.path()).verify(&minted).unwrap().subject, "ada@example.com");
        assert!(first.verify(&token(&first, |claims| claims.exp = Utc::now().timestamp() - 20)).is_ok());
        assert!(first.verify(&token(&first, |claims| claims.iat = Utc::now().timestamp() + 20)).is_ok());
    }

    #[test]
    fn refuses_what_is_old_early_foreign_or_of_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let own = issuer(directory.path());
        let now = Utc::now().timestamp();
        let wrong = [
            (token(&own, |claims| claims.exp = now - 60), "expired"),
            (token(&own, |claims| claims.iat = now + 60), "future"),
            (token(&own, |claims| claims.iss = "https://other".into()), "issuer"),
            (token(&own, |claims| claims.aud = "other".into()), "made for"),
            (token(&own, |claims| claims.sub = String::new()), "subject"),
            (token(&issuer(tempfile::tempdir().unwrap().path()), |_| {}), "signed by a key"),
        ];
        for (token, why) in wrong {
            let refused = own.verify(&token).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn an_address_that_is_not_verified_counts_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let own = issuer(directory.path());
        let unverified = token(&own, |claims| claims.said.email_verified = false);
        assert_eq!(own.verify(&unverified).unwrap().email, None);
    }
}
