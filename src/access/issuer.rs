//! The built-in issuer: an Ed25519 key made at the first start, for development and small installations.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{Identity, Refused, Verifier};
use crate::private_file;

/// The file of the key, in the data directory.
const KEY_FILE: &str = "issuer.pem";

/// Signs and verifies tokens of its own.
pub struct BuiltinIssuer {
    issuer: String,
    audience: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    exp: i64,
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
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = leeway_seconds;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            signing: EncodingKey::from_ed_der(der.as_bytes()),
            verifying: DecodingKey::from_ed_der(key.verifying_key().as_bytes()),
            validation,
        })
    }

    /// Mints a token.
    pub fn mint(&self, grant: &Grant) -> Result<String, IssuerError> {
        let now = Utc::now();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: aggregates::text::email_key(&grant.email),
            iat: now.timestamp(),
            exp: now.checked_add_signed(grant.ttl).unwrap_or(now).timestamp(),
            email: Some(grant.email.clone()),
            email_verified: true,
            name: grant.name.clone(),
            operator: grant.operator,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.signing)
            .map_err(|error| IssuerError::Key(error.to_string()))
    }
}

impl Verifier for BuiltinIssuer {
    fn verify(&self, token: &str) -> Result<Identity, Refused> {
        use jsonwebtoken::errors::ErrorKind;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation).map_err(|error| {
            Refused(match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired: get a new one".to_owned(),
                ErrorKind::ImmatureSignature => "the token is not valid yet: look at the clocks".to_owned(),
                ErrorKind::InvalidIssuer => format!("the token is not of the issuer {}", self.issuer),
                ErrorKind::InvalidAudience => format!("the token is not made for {}", self.audience),
                ErrorKind::InvalidSignature => "the token is not signed by a key of this service".to_owned(),
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                    "the token is not signed in a way that is accepted: EdDSA is".to_owned()
                }
                ErrorKind::MissingRequiredClaim(claim) => format!("the token says nothing of {claim}"),
                _ => "this is no token: give one as `Authorization: Bearer <token>`".to_owned(),
            })
        })?;
        let claims = claims.claims;
        if claims.sub.is_empty() || claims.sub.chars().any(char::is_control) {
            return Err(Refused("the token's subject is empty or holds control characters".to_owned()));
        }
        // A token from the future is a sign of a wrong clock or a wrong hand; the leeway is for the former.
        if claims.iat > Utc::now().timestamp() + i64::try_from(self.validation.leeway).unwrap_or_default() {
            return Err(Refused("the token was issued in the future: look at the clocks".to_owned()));
        }
        let expires_at =
            DateTime::from_timestamp(claims.exp, 0).ok_or_else(|| Refused("the token has no time".into()))?;
        Ok(Identity {
            issuer: claims.iss,
            subject: claims.sub,
            email: claims.email.filter(|_| claims.email_verified),
            name: claims.name,
            operator: claims.operator,
            expires_at,
        })
    }
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
            email: Some("ada@example.com".into()),
            email_verified: true,
            name: None,
            operator: false,
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
        let unverified = token(&own, |claims| claims.email_verified = false);
        assert_eq!(own.verify(&unverified).unwrap().email, None);
    }
}
