//! What witnesses sign: cosignatures of checkpoints, in the form of C2SP, <https://c2sp.org/tlog-cosignature>, by Ed25519.
//!
//! A cosignature says that, at its time, the checkpoint was the newest one that its witness had seen of this tree, and that
//! each one before was the beginning of it.

use std::fmt;
use std::str::FromStr;

use chrono::DateTime;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use super::note::{Invalid, SignatureLine, key_id, key_of_text, key_text, parts, signature_line};

/// The byte that says that a key makes cosignatures.
const COSIGNATURE: u8 = 4;
/// A cosignature: the time, and a signature.
const BYTES: usize = 8 + 64;
/// Later times are none.
const SECONDS_MAX: u64 = i64::MAX as u64;

/// The key of a witness: `name+id+key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl WitnessKey {
    /// The name of the witness.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the same key, perhaps under another name: what it signs does not say the name.
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.name, self.id, COSIGNATURE, &self.key))
    }
}

impl FromStr for WitnessKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, key) = key_of_text(text, COSIGNATURE)?;
        Ok(Self { name: name.to_owned(), id: key_id(name, COSIGNATURE, &key), key })
    }
}

/// What is cosigned of a text.
fn message(text: &str, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}

/// The other half of a witness' key.
pub struct Cosigner {
    key: SigningKey,
    verifier: WitnessKey,
}

impl Cosigner {
    /// Cosigns by this key under `name`.
    pub fn new(name: &str, key: SigningKey) -> Result<Self, Invalid> {
        let public = key.verifying_key();
        let verifier = key_text(name, key_id(name, COSIGNATURE, &public), COSIGNATURE, &public).parse()?;
        Ok(Self { key, verifier })
    }

    /// The key by which others verify.
    pub fn verifier(&self) -> &WitnessKey {
        &self.verifier
    }

    /// The line that says that the text of this checkpoint was seen at this time, in seconds since 1970.
    pub fn line(&self, text: &str, seconds: u64) -> String {
        let signature = self.key.sign(&message(text, seconds)).to_bytes();
        let signed = [&seconds.to_be_bytes()[..], &signature].concat();
        signature_line(&self.verifier.name, self.verifier.id, &signed)
    }
}

/// A cosignature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// The name of the witness.
    pub witness: String,
    /// When, in seconds since 1970.
    pub seconds: u64,
    /// The line, without its end.
    pub line: String,
}

impl fmt::Display for Cosigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = i64::try_from(self.seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        match at {
            Some(at) => write!(f, "{} at {}", self.witness, at.format("%Y-%m-%dT%H:%M:%SZ")),
            None => write!(f, "{} at {} s", self.witness, self.seconds),
        }
    }
}

/// The cosignatures of these witnesses under a note, in its order. A line that names one of them and is not its cosignature,
/// or is its second one, fails the whole note; lines of others are left out.
pub fn cosignatures(note: &str, witnesses: &[WitnessKey]) -> Result<Vec<Cosigned>, Invalid> {
    let (text, lines) = parts(note)?;
    let mut found: Vec<Cosigned> = vec![];
    for line in lines {
        let SignatureLine { name, id, signature } = SignatureLine::new(line)?;
        let Some(known) = witnesses.iter().find(|key| key.name == name && key.id == id) else { continue };
        let seconds = verified(text, &signature, known).ok_or_else(|| Invalid::BadSignature(known.name.clone()))?;
        if found.iter().any(|other| other.witness == known.name) {
            return Err(Invalid::Doubled(known.name.clone()));
        }
        found.push(Cosigned { witness: known.name.clone(), seconds, line: line.to_owned() });
    }
    Ok(found)
}

/// The time of a cosignature, if it is this witness' own.
fn verified(text: &str, signature: &[u8], witness: &WitnessKey) -> Option<u64> {
    let signature: &[u8; BYTES] = signature.try_into().ok()?;
    let (seconds, signature) = signature.split_first_chunk::<8>()?;
    let seconds = Some(u64::from_be_bytes(*seconds)).filter(|seconds| *seconds <= SECONDS_MAX)?;
    let signature = Signature::from_slice(signature).ok()?;
    witness.key.verify_strict(&message(text, seconds), &signature).ok().map(|()| seconds)
}

/// Which witnesses are known to somebody who verifies, and how many of them have to have cosigned.
#[derive(Debug, Clone, Default)]
pub struct Quorum {
    witnesses: Vec<WitnessKey>,
    least: usize,
}

impl Quorum {
    /// So many of these; all, without. Each has to be another witness: one key under two names is one.
    pub fn new(witnesses: Vec<WitnessKey>, least: Option<usize>) -> Result<Self, String> {
        for (number, key) in witnesses.iter().enumerate() {
            let before = &witnesses[..number];
            if before.iter().any(|other| other.is_same_key(key) || other.name() == key.name()) {
                return Err(format!("the witness {} stands there twice: each counts once", key.name()));
            }
        }
        let all = witnesses.len();
        match least.unwrap_or(all) {
            least if least > all => Err(format!("a quorum of {least} is more than the {all} witnesses that are known")),
            0 if all > 0 => Err("a quorum of 0 asks for no witness: leave the witnesses away, or ask for 1".into()),
            least => Ok(Self { witnesses, least }),
        }
    }

    /// The witnesses.
    pub fn witnesses(&self) -> &[WitnessKey] {
        &self.witnesses
    }

    /// How many of them it takes.
    pub fn least(&self) -> usize {
        self.least
    }

    /// The cosignatures under this note, if they are enough.
    pub fn of(&self, note: &str) -> Result<Vec<Cosigned>, String> {
        let found =
            cosignatures(note, &self.witnesses).map_err(|error| format!("the checkpoint does not count: {error}"))?;
        if found.len() >= self.least {
            return Ok(found);
        }
        let names: Vec<&str> = found.iter().map(|found| found.witness.as_str()).collect();
        let by = if names.is_empty() { "none".into() } else { format!("{} ({})", names.len(), names.join(", ")) };
        Err(format!(
            "too few witnesses: {by} of those that are known cosigned the checkpoint, and {} have to",
            self.least
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The example of the specification: the key itself is not published, so no more than its form can be looked at.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

    fn witness(number: u8) -> Cosigner {
        Cosigner::new(&format!("w{number}.example"), SigningKey::from_bytes(&[number; 32])).unwrap()
    }

    #[test]
    fn the_published_example_has_the_time_that_its_text_says() {
        let (text, lines) = parts(EXAMPLE).unwrap();
        let line = SignatureLine::new(lines[1]).unwrap();
        assert_eq!((line.name, line.signature.len()), ("witness.example.com/w1", BYTES));
        let seconds = u64::from_be_bytes(line.signature[..8].try_into().unwrap());
        assert_eq!(message(text, seconds), format!("cosignature/v1\ntime 1679315147\n{text}").into_bytes());
        assert_eq!(cosignatures(EXAMPLE, &[witness(1).verifier().clone()]), Ok(vec![]));
    }

    #[test]
    fn a_cosignature_counts_once_and_for_its_own_text_and_time_only() {
        let (one, two) = (witness(1), witness(2));
        let keys = [one.verifier().clone(), two.verifier().clone()];
        let text = "log.example/a\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let line = one.line(text, 1_700_000_000);
        let note = |lines: &str| format!("{text}\n{lines}");
        let found = cosignatures(&note(&line), &keys).unwrap();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["w1.example at 2023-11-14T22:13:20Z"]);
        assert!(matches!(cosignatures(&note(&(line.clone() + &line)), &keys), Err(Invalid::Doubled(_))));
        let other = format!("log.example/b\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n{line}");
        assert!(matches!(cosignatures(&other, &keys), Err(Invalid::BadSignature(_))));
        // A cosignature is none of a log's signatures, and the other way round.
        let signer = super::super::note::Signer::new("w1.example", SigningKey::from_bytes(&[1; 32])).unwrap();
        let plain = super::super::note::sign(text, &[signer]);
        assert_eq!(cosignatures(&plain, &keys), Ok(vec![]));
        for text in [keys[0].to_string().replace("w1", "w3"), keys[0].to_string() + "A", "w1.example+00000000+".into()]
        {
            assert!(text.parse::<WitnessKey>().is_err(), "{text}");
        }
        assert_eq!(keys[0].to_string().parse::<WitnessKey>().as_ref(), Ok(&keys[0]));
    }

    #[test]
    fn a_quorum_counts_witnesses_and_not_names() {
        let (one, two) = (witness(1), witness(2));
        let renamed = Cosigner::new("other.example", SigningKey::from_bytes(&[1; 32])).unwrap();
        let keys = |cosigners: &[&Cosigner]| cosigners.iter().map(|one| one.verifier().clone()).collect::<Vec<_>>();
        assert!(Quorum::new(keys(&[&one, &renamed]), Some(2)).is_err());
        assert!(Quorum::new(keys(&[&one]), Some(2)).is_err());
        assert!(Quorum::new(keys(&[&one]), Some(0)).is_err());
        let text = "log.example/a\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let note = format!("{text}\n{}", one.line(text, 1));
        assert_eq!(Quorum::new(keys(&[&one, &two]), Some(1)).unwrap().of(&note).unwrap().len(), 1);
        let error = Quorum::new(keys(&[&one, &two]), None).unwrap().of(&note).unwrap_err();
        assert!(error.contains("too few witnesses: 1 (w1.example)") && error.contains("2 have to"), "{error}");
        assert_eq!(Quorum::default().of(&note), Ok(vec![]));
    }
}
