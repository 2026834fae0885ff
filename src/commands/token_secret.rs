//! The secret of an API token: `tnt_`, 43 random characters of base62 (256 bits), and 6 of a checksum.
//!
//! The prefix and the checksum let scanners find leaked ones without asking anybody, and let this service refuse what
//! is none without asking the database.

use aggregates::Digest;
use rand::distr::{Alphanumeric, SampleString};

use crate::log::KeyRing;

/// How a secret begins. No token of an issuer does: those begin with a letter's base64 of `{`.
pub const PREFIX: &str = "tnt_";
/// How many characters are random: 62^43 is more than 2^256.
const RANDOM_CHARS: usize = 43;
/// How many characters the checksum has: 62^6 is more than 2^32.
const CHECKSUM_CHARS: usize = 6;
/// The digits of base62.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// How many characters of its end a hint shows: of the checksum, so that they say next to nothing of the rest.
const HINT_CHARS: usize = 4;

/// A new secret.
pub fn new() -> String {
    let random = Alphanumeric.sample_string(&mut rand::rng(), RANDOM_CHARS);
    format!("{PREFIX}{random}{}", checksum(&random))
}

/// Whether this can be a secret: of the right form, with the right checksum.
pub fn is_well_formed(text: &str) -> bool {
    let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_at_checked(RANDOM_CHARS));
    parts
        .is_some_and(|(random, sum)| random.bytes().all(|byte| byte.is_ascii_alphanumeric()) && sum == checksum(random))
}

/// What of a secret is shown ever after.
pub fn hint(secret: &str) -> String {
    let shown = secret.len().checked_sub(HINT_CHARS).and_then(|start| secret.get(start..));
    format!("{PREFIX}…{}", shown.unwrap_or_default())
}

/// A secret as it is kept and looked for: a keyed hash.
pub fn digest(keys: &KeyRing, secret: &str) -> Digest {
    keys.digest(&["API token", secret])
}

/// CRC-32 (of zlib, PNG) of the random characters, in base62 with leading zeros.
fn checksum(random: &str) -> String {
    let mut rest = crc32fast::hash(random.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_recognised_and_one_wrong_character_is_not() {
        let secret = new();
        assert_eq!(secret.len(), PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS);
        assert!(is_well_formed(&secret) && new() != secret);
        for place in 0..secret.len() {
            let other = if secret.as_bytes()[place] == b'x' { "y" } else { "x" };
            let changed = format!("{}{other}{}", &secret[..place], &secret[place + 1..]);
            assert!(!is_well_formed(&changed), "{place}");
        }
        for text in ["", "tnt_", &secret[..secret.len() - 1], &format!("{secret}0"), "tnt_ä", &"tnt_ß".repeat(20)] {
            assert!(!is_well_formed(text), "{text}");
        }
    }

    /// The example of the documentation: whoever writes a scanner can try it.
    #[test]
    fn the_checksum_is_the_documented_one() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926, "the check value of CRC-32");
        assert_eq!(checksum("0000000000000000000000000000000000000000000"), "2CZclj");
    }

    #[test]
    fn a_hint_shows_the_end_of_the_checksum_only() {
        let secret = new();
        let hint = hint(&secret);
        assert_eq!(hint, format!("tnt_…{}", &secret[secret.len() - 4..]));
        const { assert!(HINT_CHARS < CHECKSUM_CHARS) };
    }
}
