//! One-time codes, by which a person at this machine signs in to the console.
//!
//! A code is a file in the data directory, named by the code's hash: another process can make one (`tenancy console`), none can
//! read one back, and removing the file is the one step that decides which of two uses was the first.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::private_file;

/// The directory of the codes, in the data directory.
const DIRECTORY: &str = "console.codes";
/// For how long a code is good.
pub const CODE_TTL: TimeDelta = TimeDelta::minutes(15);
/// The longest code that is looked at, in bytes.
const CODE_BYTES_MAX: usize = 64;
/// The most codes that wait to be used.
const CODES_MAX: usize = 100;

/// A person whom a code signs in, as an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The address.
    pub email: String,
    /// The name.
    pub name: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Code {
    person: Person,
    until: DateTime<Utc>,
}

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file.
    #[error(transparent)]
    File(#[from] private_file::Error),
    /// The directory.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There are enough.
    #[error("{CODES_MAX} codes wait to be used already: use one, or wait until they are too old")]
    TooMany,
}

/// The codes of a data directory.
#[derive(Debug, Clone)]
pub struct Codes(PathBuf);

impl Codes {
    /// Those of this data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(DIRECTORY))
    }

    /// Makes one, good once and for [`CODE_TTL`]; removes those that are too old.
    pub fn make(&self, person: Person) -> Result<String, Error> {
        let io = |source| Error::Directory { path: self.0.clone(), source };
        std::fs::create_dir_all(&self.0).map_err(io)?;
        let mut waiting = 0;
        for file in std::fs::read_dir(&self.0).map_err(io)? {
            let path = file.map_err(io)?.path();
            match read(&path).is_some_and(|code| code.until > Utc::now()) {
                true => waiting += 1,
                false => _ = std::fs::remove_file(&path),
            }
        }
        if waiting >= CODES_MAX {
            return Err(Error::TooMany);
        }
        let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        let code = Code { person, until: Utc::now() + CODE_TTL };
        let content = || serde_json::to_vec(&code).map_err(|error| error.to_string());
        private_file::read_or_create(&self.path(&text), content)?;
        Ok(text)
    }

    /// The person whom this code signs in, if it is one and was not used. It is used then.
    pub fn take(&self, text: &str) -> Option<Person> {
        if text.len() > CODE_BYTES_MAX {
            return None;
        }
        let path = self.path(text);
        let code = read(&path)?;
        match std::fs::remove_file(&path) {
            Ok(()) => Some(code.person).filter(|_| code.until > Utc::now()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "a code of the console cannot be used up, and is not taken");
                None
            }
        }
    }

    fn path(&self, text: &str) -> PathBuf {
        self.0.join(URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())))
    }
}

fn read(path: &Path) -> Option<Code> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> Person {
        Person { email: "ada@example.com".into(), name: None }
    }

    #[test]
    fn a_code_is_good_once() {
        let directory = tempfile::tempdir().unwrap();
        let codes = Codes::new(directory.path());
        let code = codes.make(ada()).unwrap();
        assert_eq!(codes.take("another"), None);
        assert_eq!(codes.take(&format!("../console.codes/{code}")), None);
        // By another process than the one that made it, too.
        assert_eq!(Codes::new(directory.path()).take(&code), Some(ada()));
        assert_eq!(codes.take(&code), None);
    }

    #[test]
    fn a_code_that_is_too_old_is_none_and_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let codes = Codes::new(directory.path());
        let code = codes.make(ada()).unwrap();
        let old = Code { person: ada(), until: Utc::now() - TimeDelta::seconds(1) };
        std::fs::write(codes.path(&code), serde_json::to_vec(&old).unwrap()).unwrap();
        codes.make(ada()).unwrap();
        assert_eq!(std::fs::read_dir(&codes.0).unwrap().count(), 1);
        assert_eq!(codes.take(&code), None);
    }

    #[test]
    fn codes_that_wait_have_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let codes = Codes::new(directory.path());
        for _ in 0..CODES_MAX {
            codes.make(ada()).unwrap();
        }
        assert!(matches!(codes.make(ada()), Err(Error::TooMany)));
    }
}
