//! Signed notes and checkpoints, in the forms of C2SP: <https://c2sp.org/signed-note>, <https://c2sp.org/tlog-checkpoint>.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use super::merkle::Hash;

/// The byte that says which algorithm a key is of. Others may follow; who does not know one leaves its lines out.
const ED25519: u8 = 1;
/// The most signatures that are looked at.
const SIGNATURES_MAX: usize = 64;
/// The longest note that is looked at, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

/// Why a note, a checkpoint or a key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is no note.
    #[error("this is no signed note: {0}")]
    Note(&'static str),
    /// It is a note, and no checkpoint.
    #[error("this is no checkpoint: {0}")]
    Checkpoint(&'static str),
    /// It is no verifier key.
    #[error("this is no verifier key: {0}")]
    Key(&'static str),
    /// It is a checkpoint of something else.
    #[error("the checkpoint is of {0}, not of {1}")]
    Origin(String, String),
    /// None of the signatures is of a known key.
    #[error("it is not signed by {0}")]
    NotSigned(String),
    /// A signature that names a known key is not its own.
    #[error("the signature of {0} is not its own: the text was altered, or somebody else signed it")]
    BadSignature(String),
}

/// Names of keys stand in lines of their own and before a "+".
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '+')
}

fn key_id(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
    let [a, b, c, d, ..]: Hash = hash.into();
    [a, b, c, d]
}

/// Signs notes.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    verifier: VerifierKey,
}

impl Signer {
    /// Signs by this key under `name`.
    pub fn new(name: &str, key: SigningKey) -> Result<Self, Invalid> {
        let verifier = VerifierKey::new(name, key.verifying_key())?;
        Ok(Self { key, verifier })
    }

    /// The key by which others verify.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    fn line(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let signed = STANDARD.encode([&self.verifier.id[..], &signature].concat());
        format!("\u{2014} {} {signed}\n", self.verifier.name)
    }
}

/// A text, which ends with a line, signed by all of these.
pub fn sign(text: &str, signers: &[Signer]) -> String {
    signers.iter().fold(format!("{text}\n"), |note, signer| note + &signer.line(text))
}

/// A key that somebody has, to verify notes by: `name+id+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, key: VerifyingKey) -> Result<Self, Invalid> {
        if !is_name(name) {
            return Err(Invalid::Key("a name has no spaces and no \"+\""));
        }
        Ok(Self { name: name.to_owned(), id: key_id(name, &key), key })
    }

    /// Whose notes it verifies.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519], &self.key.as_bytes()[..]].concat());
        write!(f, "{}+{:08x}+{key}", self.name, u32::from_be_bytes(self.id))
    }
}

impl FromStr for VerifierKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Invalid::Key("it has the form name+id+key"));
        };
        let bytes = STANDARD.decode(key).map_err(|_| Invalid::Key("its last part is not base64"))?;
        let Some((&ED25519, bytes)) = bytes.split_first() else {
            return Err(Invalid::Key("its algorithm is not known here (1, Ed25519, is)"));
        };
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| Invalid::Key("a key of Ed25519 has 32 bytes"))?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| Invalid::Key("it is no point of the curve"))?;
        let found = Self::new(name, key)?;
        if id.len() != 8 || u32::from_str_radix(id, 16) != Ok(u32::from_be_bytes(found.id)) {
            return Err(Invalid::Key("name, id and key do not belong together"));
        }
        Ok(found)
    }
}

/// The text of a note that one of these keys signed. A line that names one of them and is not its signature fails the
/// whole note; lines of others are left out.
pub fn open<'a>(note: &'a str, keys: &[VerifierKey]) -> Result<&'a str, Invalid> {
    signed(note, keys).map(|(text, _)| text)
}

/// The checkpoint of an organization's tree that one of these keys signed: its origin is that key's name, the
/// organization, and the epoch of the database where that was restored.
pub fn checkpoint_of(note: &str, keys: &[VerifierKey], organization: &str) -> Result<Checkpoint, Invalid> {
    let (text, key) = signed(note, keys)?;
    let checkpoint: Checkpoint = text.parse()?;
    let rest = checkpoint.origin.strip_prefix(&key.name).and_then(|rest| rest.strip_prefix('/'));
    let (id, epoch) = rest.map_or(("", None), |rest| match rest.split_once('/') {
        Some((id, epoch)) => (id, Some(epoch)),
        None => (rest, None),
    });
    let number = |text: &str| text.parse::<u64>().is_ok_and(|number| number.to_string() == text);
    if id != organization || !epoch.is_none_or(number) {
        return Err(Invalid::Origin(checkpoint.origin, organization.to_owned()));
    }
    Ok(checkpoint)
}

fn signed<'a, 'k>(note: &'a str, keys: &'k [VerifierKey]) -> Result<(&'a str, &'k VerifierKey), Invalid> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(Invalid::Note("it is too long"));
    }
    if note.contains(|letter: char| letter.is_ascii_control() && letter != '\n') {
        return Err(Invalid::Note("it has control characters"));
    }
    let at = note.rfind("\n\n").ok_or(Invalid::Note("no blank line comes before the signatures"))?;
    let (text, lines) = (&note[..=at], &note[at + 2..]);
    if lines.is_empty() || !lines.ends_with('\n') || lines.lines().count() > SIGNATURES_MAX {
        return Err(Invalid::Note("it does not end with lines of signatures"));
    }
    let mut signer = None;
    for line in lines.lines() {
        let parts = line.strip_prefix("\u{2014} ").and_then(|line| line.split_once(' '));
        let parts = parts.and_then(|(name, signed)| Some((name, STANDARD.decode(signed).ok()?)));
        let Some((name, bytes)) = parts.filter(|(name, _)| is_name(name)) else {
            return Err(Invalid::Note("a line of its signatures is none"));
        };
        let Some((id, signature)) = bytes.split_first_chunk::<4>() else {
            return Err(Invalid::Note("a signature is too short"));
        };
        let Some(known) = keys.iter().find(|key| key.name == name && key.id == *id) else { continue };
        let good = Signature::from_slice(signature)
            .is_ok_and(|signature| known.key.verify_strict(text.as_bytes(), &signature).is_ok());
        if !good {
            return Err(Invalid::BadSignature(known.name.clone()));
        }
        signer = signer.or(Some(known));
    }
    if let Some(signer) = signer {
        return Ok((text, signer));
    }
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    Err(Invalid::NotSigned(if names.is_empty() { "any known key".into() } else { names.join(" or ") }))
}

/// How a tree was at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which tree.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }
}

impl FromStr for Checkpoint {
    type Err = Invalid;
    /// From the text of a note. Lines after the third are left out.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut lines = text.strip_suffix('\n').ok_or(Invalid::Checkpoint("it ends amid a line"))?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(Invalid::Checkpoint("it has less than three lines"));
        };
        if origin.is_empty() || lines.any(str::is_empty) {
            return Err(Invalid::Checkpoint("a line is empty"));
        }
        let parsed = size.parse().ok().filter(|parsed: &u64| parsed.to_string() == size);
        let size = parsed.ok_or(Invalid::Checkpoint("its second line is no size"))?;
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let root = root.ok_or(Invalid::Checkpoint("its third line is no root"))?;
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}
