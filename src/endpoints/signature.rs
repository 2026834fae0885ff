//! Signatures by [Standard Webhooks](https://www.standardwebhooks.com) 1.0.0: HMAC-SHA256 over
//! `{id}.{timestamp}.{body}`, under a secret that its owner was shown once.
//!
//! A secret is a key like those of persons: 256 random bits, wrapped by the master key where it lies, and its endpoint's
//! events say no more of it than its number.

use aes_gcm::aead::KeyInit;
use aggregates::ids::WebhookEndpointId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::log::{KeyRing, Keys, LogError};

/// How a secret begins.
pub const PREFIX: &str = "whsec_";
/// What the key is for that a secret is.
const PLACE: &str = "webhook signatures";

/// The secret of an endpoint that signs.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// Without the secret.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Under which name the secret of this number is kept.
pub fn key_name(endpoint: &str, number: u64) -> String {
    format!("{endpoint}#{number}")
}

/// The secret of this number, made where there is none yet; `None` where it was destroyed. It is durable before it is
/// shown.
pub async fn make(keys: &KeyRing, endpoint: &WebhookEndpointId, number: u64) -> Result<Option<Secret>, LogError> {
    let name = key_name(endpoint.as_ref(), number);
    Ok(Secret::among(&keys.find_or_make([name.as_str()]).await?, &name))
}

impl Secret {
    /// The secret of this name.
    pub fn among(keys: &Keys, name: &str) -> Option<Self> {
        keys.of_place(name, PLACE).map(Self)
    }

    /// One that is configured.
    pub fn of(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// As its owner gets it.
    pub fn shown(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0))
    }

    /// A signature: version, comma, base64.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = match <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of every length"),
        };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn secret(text: &str) -> Secret {
        // The published one is shorter than ours: HMAC fills keys up with zeros.
        let mut key = [0; 32];
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX).unwrap()).unwrap();
        key[..bytes.len()].copy_from_slice(&bytes);
        Secret(key)
    }

    /// The example of the specification.
    #[test]
    fn the_published_signature_comes_out() {
        let secret = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_shown_whole_and_never_printed() {
        let secret = Secret([7; 32]);
        assert_eq!(secret.shown().len(), PREFIX.len() + 44);
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
