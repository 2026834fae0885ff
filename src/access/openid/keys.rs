//! The keys that a provider publishes (RFC 7517), as far as they can check a token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, OctetKeyPairParameters, PublicKeyUse,
    RSAKeyParameters,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// An RSA key is no shorter (RFC 7518, section 3.3), and no longer than the library computes with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;
const ED25519_BYTES: usize = 32;

/// Those of one provider.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    /// What it may check, by its type and by what is said of it.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why there is no key for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// None that is known; there may be a new one.
    Unknown,
    /// The one that the token names is for other signatures.
    Unfit,
    /// Several could be meant.
    Ambiguous,
}

impl Keys {
    /// The keys of a JWKS. One that is not usable here (of another type, for encryption) is left out, because a
    /// provider may publish it for others.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json)?;
        let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Ok(Self(jwks.filter_map(|jwk| Key::of(&jwk)).collect()))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The one key for a token; without a `kid` only if there is no choice.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, Missing> {
        let mut named = self.0.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid).peekable();
        let none = if kid.is_some() && named.peek().is_some() { Missing::Unfit } else { Missing::Unknown };
        let mut fitting = named.filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(&key.key),
            (Some(_), Some(_)) => Err(Missing::Ambiguous),
            (None, _) => Err(none),
        }
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let mut algorithms = by_type(&jwk.algorithm)?;
        if let Some(only) = common.key_algorithm {
            algorithms.retain(|algorithm| is_same(*algorithm, only));
        }
        let usable = signs && verifies && !algorithms.is_empty();
        let key = usable.then(|| DecodingKey::from_jwk(jwk).ok()).flatten()?;
        Some(Self { kid: common.key_id.clone(), algorithms, key })
    }
}

fn is_same(algorithm: Algorithm, named: KeyAlgorithm) -> bool {
    format!("{algorithm:?}") == named.to_string()
}

/// What a key of this type can check; a secret (`oct`) is nothing to publish, and checks nothing.
fn by_type(parameters: &AlgorithmParameters) -> Option<Vec<Algorithm>> {
    match parameters {
        AlgorithmParameters::RSA(key) => is_usual(key).then(|| AlgorithmFamily::Rsa.algorithms().to_vec()),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Some(vec![Algorithm::ES256]),
            EllipticCurve::P384 => Some(vec![Algorithm::ES384]),
            EllipticCurve::P521 | EllipticCurve::Ed25519 => None,
        },
        AlgorithmParameters::OctetKeyPair(key) => is_whole(key).then(|| vec![Algorithm::EdDSA]),
        AlgorithmParameters::OctetKey(_) => None,
    }
}

fn is_usual(key: &RSAKeyParameters) -> bool {
    let Ok(modulus) = URL_SAFE_NO_PAD.decode(&key.n) else { return false };
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    RSA_BITS.contains(&((modulus.len() - zeros) * 8 - first))
}

/// The library takes the first 32 bytes without looking whether there are so many.
fn is_whole(key: &OctetKeyPairParameters) -> bool {
    let bytes = URL_SAFE_NO_PAD.decode(&key.x);
    key.curve == EllipticCurve::Ed25519 && bytes.is_ok_and(|bytes| bytes.len() == ED25519_BYTES)
}
