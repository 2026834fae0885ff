//! What a log asks of a witness, in the form of C2SP: <https://c2sp.org/tlog-witness>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::merkle::Hash;

/// The most hashes of a consistency proof.
pub const PROOF_MAX: usize = 63;
/// The type of an answer that is the size of a tree.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// `add-checkpoint`: a checkpoint, and the proof that the one of `old` leaves is the beginning of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission<'a> {
    /// The size of the checkpoint that the witness cosigned last.
    pub old: u64,
    /// The proof.
    pub proof: Vec<Hash>,
    /// The checkpoint, as a signed note.
    pub note: &'a str,
}

impl<'a> Submission<'a> {
    /// Reads a body, or says what is wrong with it.
    pub fn read(body: &'a str) -> Result<Self, &'static str> {
        let (head, note) = body.split_once("\n\n").ok_or("there is no empty line before the checkpoint")?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or("the first line is not `old SIZE`")?;
        let old = decimal(old).ok_or("the old size is no number")?;
        let mut proof = vec![];
        for line in lines {
            if proof.len() == PROOF_MAX {
                return Err("there are more than 63 lines of a proof");
            }
            let hash = STANDARD.decode(line).ok().and_then(|bytes| bytes.try_into().ok());
            proof.push(hash.ok_or("a line of the proof is no hash in base64")?);
        }
        Ok(Self { old, proof, note })
    }

    /// The body.
    pub fn text(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        format!("old {}\n{proof}\n{}", self.old, self.note)
    }
}

/// A size that a witness answers with.
pub fn size_of_answer(text: &str) -> Option<u64> {
    decimal(text.strip_suffix('\n')?)
}

fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_submission_is_read_as_it_was_written_and_nothing_else_is() {
        let note = "log.example\n3\nAAAA\n\n\u{2014} log.example AAAA\n";
        let proof = vec![[1; 32], [2; 32]];
        let submission = Submission { old: 2, proof, note };
        let text = submission.text();
        assert_eq!(Submission::read(&text).unwrap(), submission);
        let hash = STANDARD.encode([1; 32]);
        let wrong = [
            String::new(),
            "old 2".into(),
            "old 2\n".into(),
            text.replacen("old 2", "old 02", 1),
            text.replacen("old 2", "old +2", 1),
            text.replacen("old 2", "old 18446744073709551616", 1),
            text.replacen("old 2", "old", 1),
            text.replacen("old 2\n", "", 1),
            text.replacen(&hash, &hash[1..], 1),
            text.replacen(&hash, "AAAA", 1),
            format!("old 1\n{}\n{note}", format!("{hash}\n").repeat(PROOF_MAX + 1)),
        ];
        for text in wrong {
            assert!(Submission::read(&text).is_err(), "{text:?}");
        }
        assert!(Submission::read(&format!("old 1\n{}\n{note}", format!("{hash}\n").repeat(PROOF_MAX))).is_ok());
        assert_eq!((size_of_answer("7\n"), size_of_answer("7"), size_of_answer("07\n")), (Some(7), None, None));
    }
}
