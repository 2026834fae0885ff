//! Signed notes and checkpoints, in the forms of C2SP: <https://c2sp.org/signed-note>, <https://c2sp.org/tlog-checkpoint>.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use super::merkle::Hash;

/// The byte that says which algorithm a key is of. Others may follow; who does not know one leaves its lines out.
const ED25519: u8 = 1;
/// The most signatures that a note has here. The specification asks for at least 16.
const SIGNATURES_MAX: usize = 64;
/// The longest note that is looked at, in bytes: 16 signatures of the longest kind, of nearly 5 kB each, fit in base64.
pub const NOTE_BYTES_MAX: usize = 256 * 1024;

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
    /// A known key signed it more than once.
    #[error("{0} signed it twice: a line was added")]
    Doubled(String),
    /// A signature that names a known key is not its own.
    #[error("the signature of {0} is not its own: the text was altered, or somebody else signed it")]
    BadSignature(String),
}

/// What the specification calls a control character: those of ASCII below the space.
fn is_control(letter: char) -> bool {
    letter < ' '
}

/// Names of keys stand between spaces and before a "+". The white space is that of Unicode (`White_Space`).
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace() || is_control(letter) || letter == '+')
}

/// The id of a key: what its algorithm is, is part of it.
pub(super) fn key_id(name: &str, algorithm: u8, key: &VerifyingKey) -> [u8; 4] {
    let hash =
        Sha256::new().chain_update(name).chain_update([b'\n', algorithm]).chain_update(key.as_bytes()).finalize();
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
        signature_line(&self.verifier.name, self.verifier.id, &self.key.sign(text.as_bytes()).to_bytes())
    }
}

/// A line of signatures, with its end.
pub(super) fn signature_line(name: &str, id: [u8; 4], signature: &[u8]) -> String {
    format!("\u{2014} {name} {}\n", STANDARD.encode([&id[..], signature].concat()))
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
        Ok(Self { name: name.to_owned(), id: key_id(name, ED25519, &key), key })
    }

    /// Whose notes it verifies.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.name, self.id, ED25519, &self.key))
    }
}

/// A key as `name+id+key`.
pub(super) fn key_text(name: &str, id: [u8; 4], algorithm: u8, key: &VerifyingKey) -> String {
    let key = STANDARD.encode([&[algorithm], &key.as_bytes()[..]].concat());
    format!("{name}+{:08x}+{key}", u32::from_be_bytes(id))
}

/// The name and the key of a text `name+id+key`, of a key of this algorithm.
pub(super) fn key_of_text(text: &str, algorithm: u8) -> Result<(&str, VerifyingKey), Invalid> {
    let mut parts = text.trim().splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Invalid::Key("it has the form name+id+key"));
    };
    let bytes = STANDARD.decode(key).map_err(|_| Invalid::Key("its last part is not base64"))?;
    let bytes = match (bytes.split_first(), algorithm) {
        (Some((found, bytes)), _) if *found == algorithm => bytes,
        (_, ED25519) => return Err(Invalid::Key("its algorithm is not known here (1, Ed25519, is)")),
        (_, _) => return Err(Invalid::Key("its algorithm is not that of witnesses (4, cosignature/v1)")),
    };
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| Invalid::Key("a key of Ed25519 has 32 bytes"))?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| Invalid::Key("it is no point of the curve"))?;
    if !is_name(name) {
        return Err(Invalid::Key("a name has no spaces and no \"+\""));
    }
    match id == format!("{:08x}", u32::from_be_bytes(key_id(name, algorithm, &key))) {
        true => Ok((name, key)),
        false => Err(Invalid::Key("name, id and key do not belong together")),
    }
}

impl FromStr for VerifierKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, key) = key_of_text(text, ED25519)?;
        Self::new(name, key)
    }
}

/// The text of a note that one of these keys signed. A line that names one of them and is not its signature fails the
/// whole note; lines of others are left out.
pub fn open<'a>(note: &'a str, keys: &[VerifierKey]) -> Result<&'a str, Invalid> {
    signed(note, keys).map(|(text, _)| text)
}

/// The text of a note, without a look at its signatures.
pub fn text_of(note: &str) -> Result<&str, Invalid> {
    parts(note).map(|(text, _)| text)
}

/// The note with these lines of signatures besides, each without its end.
pub fn with_lines<'a>(note: &str, lines: impl IntoIterator<Item = &'a str>) -> String {
    lines.into_iter().fold(note.to_owned(), |note, line| note + line + "\n")
}

/// The checkpoint of an organization's tree that one of these keys signed: its origin is that key's name, the
/// organization, and the epoch of the database where that was restored.
pub fn checkpoint_of(note: &str, keys: &[VerifierKey], organization: &str) -> Result<Checkpoint, Invalid> {
    let (text, signers) = signed(note, keys)?;
    let checkpoint: Checkpoint = text.parse()?;
    let tree = checkpoint.tree();
    match signers
        .iter()
        .any(|key| tree.strip_prefix(key.name()).and_then(|rest| rest.strip_prefix('/')) == Some(organization))
    {
        true => Ok(checkpoint),
        false => Err(Invalid::Origin(checkpoint.origin, organization.to_owned())),
    }
}

/// A line of signatures.
pub(super) struct SignatureLine<'a> {
    pub(super) name: &'a str,
    pub(super) id: [u8; 4],
    pub(super) signature: Vec<u8>,
}

impl<'a> SignatureLine<'a> {
    pub(super) fn new(line: &'a str) -> Result<Self, Invalid> {
        let parts = line.strip_prefix("\u{2014} ").and_then(|line| line.split_once(' '));
        let (name, signed) = parts.ok_or(Invalid::Note("a line of its signatures has not the form — NAME BASE64"))?;
        if !is_name(name) {
            return Err(Invalid::Note("a line of its signatures has no name of a key"));
        }
        let bytes = STANDARD.decode(signed).map_err(|_| Invalid::Note("a signature is not written in base64"))?;
        match bytes.split_first_chunk::<4>() {
            Some((id, signature)) if !signature.is_empty() => Ok(Self { name, id: *id, signature: signature.to_vec() }),
            _ => Err(Invalid::Note("a signature is too short")),
        }
    }

    fn is_of(&self, key: &VerifierKey) -> bool {
        key.name == self.name && key.id == self.id
    }
}

/// The text of a note, and the lines of its signatures.
pub(super) fn parts(note: &str) -> Result<(&str, Vec<&str>), Invalid> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(Invalid::Note("it is longer than 256 KiB"));
    }
    if note.contains(|letter: char| is_control(letter) && letter != '\n') {
        return Err(Invalid::Note("it has control characters"));
    }
    let at = note.rfind("\n\n").ok_or(Invalid::Note("no blank line comes before the signatures"))?;
    let lines = note[at + 2..].strip_suffix('\n').ok_or(Invalid::Note("it does not end with a line of signatures"))?;
    let lines: Vec<&str> = lines.split('\n').collect();
    match lines.len() <= SIGNATURES_MAX {
        true => Ok((&note[..=at], lines)),
        false => Err(Invalid::Note("it has more than 64 signatures")),
    }
}

/// The text, and by which of the keys it is signed, in the order of the lines.
fn signed<'a, 'k>(note: &'a str, keys: &'k [VerifierKey]) -> Result<(&'a str, Vec<&'k VerifierKey>), Invalid> {
    let (text, lines) = parts(note)?;
    let mut signers = vec![];
    // A line that is none makes the note none, of whatever key it would be.
    for line in lines.into_iter().map(SignatureLine::new).collect::<Result<Vec<_>, _>>()? {
        let Some(known) = keys.iter().find(|key| line.is_of(key)) else { continue };
        let good = Signature::from_slice(&line.signature)
            .is_ok_and(|signature| known.key.verify_strict(text.as_bytes(), &signature).is_ok());
        if !good {
            return Err(Invalid::BadSignature(known.name.clone()));
        }
        signers.push(known);
    }
    if !signers.is_empty() {
        return Ok((text, signers));
    }
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    Err(Invalid::NotSigned(if names.is_empty() { "any known key".into() } else { names.join(" or ") }))
}

/// Refuses a note that one of these keys signed twice. A second line adds nothing, so it was added by somebody else.
pub fn refuse_doubled(note: &str, keys: &[VerifierKey]) -> Result<(), Invalid> {
    let lines = parts(note)?.1.into_iter().map(SignatureLine::new).collect::<Result<Vec<_>, _>>()?;
    match keys.iter().find(|key| lines.iter().filter(|line| line.is_of(key)).count() > 1) {
        Some(key) => Err(Invalid::Doubled(key.name.clone())),
        None => Ok(()),
    }
}

/// The note with one line a signature: a key that lies in two files of the data directory signed twice.
pub fn without_doubled(note: &str) -> String {
    let Ok((text, lines)) = parts(note) else { return note.to_owned() };
    let mut seen = HashSet::new();
    let once = lines.into_iter().filter(|line| seen.insert(*line));
    once.fold(format!("{text}\n"), |note, line| note + line + "\n")
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

impl Checkpoint {
    /// The name of the tree, whatever the epoch: a restored database may go on with the same history, and has to show it.
    pub fn tree(&self) -> &str {
        match self.origin.rsplit_once('/') {
            Some((tree, epoch)) if epoch.parse::<u64>().is_ok_and(|number| number.to_string() == epoch) => tree,
            _ => &self.origin,
        }
    }
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
