//! The keys by which checkpoints are signed.
//!
//! They are Ed25519 keys in files of the data directory, `audit.pem` and whatever else is called `audit*.pem`, or in the
//! configuration. All of them sign: so a new key is made known before an old one is taken away.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use sqlx::{Connection, PgExecutor};

use super::note::{Invalid, Signer, VerifierKey};
use crate::database::Connections;
use crate::private_file;

/// The file of the first key.
const KEY_FILE: &str = "audit.pem";
/// The most keys that sign at once.
const KEYS_MAX: usize = 8;

/// Why checkpoints cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key file.
    #[error(transparent)]
    File(#[from] private_file::Error),
    /// The folder of key files.
    #[error("cannot look for keys in {0}: {1}")]
    Folder(PathBuf, std::io::Error),
    /// A key.
    #[error("{0} holds no Ed25519 key in PEM (PKCS #8), as `openssl genpkey -algorithm ed25519` makes one")]
    Key(PathBuf),
    /// The name.
    #[error("audit.name cannot be the name of a key: {0}")]
    Name(#[from] Invalid),
    /// There is none.
    #[error("there is no key that signs the audit trail at {0}")]
    None(PathBuf),
    /// Others sign for the database.
    #[error("the audit trail of this database is signed by {0}, and by none of the keys here")]
    Unknown(String),
    /// The database.
    #[error("the keys of the audit trail cannot be looked up: {0}")]
    Database(#[from] sqlx::Error),
    /// Too many.
    #[error("{0} keys would sign every checkpoint; at most {KEYS_MAX} may")]
    TooMany(usize),
}

/// The signers of a service: the keys in `directory`, or those of `configured` if there are any. A database knows the
/// verifier keys that sign for it, from its first service on: one that has none of them is turned away, and what it has
/// besides becomes known. The first key is made where none is known yet.
pub async fn signers(
    pool: &Connections,
    directory: &Path,
    name: &str,
    configured: &[[u8; 32]],
) -> Result<Vec<Signer>, KeyError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // Of two services that come first at once one makes the first key.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('tenancy audit keys'))").execute(&mut *transaction).await?;
    let known: Vec<String> = sqlx::query_scalar!("SELECT verifier FROM audit_keys ORDER BY added_at, verifier")
        .fetch_all(&mut *transaction)
        .await?;
    let signers = open(directory, name, configured, known.is_empty())?;
    let own: Vec<String> = signers.iter().map(|signer| signer.verifier().to_string()).collect();
    if !known.is_empty() && !own.iter().any(|key| known.contains(key)) {
        return Err(KeyError::Unknown(known.join(", ")));
    }
    if own.iter().any(|key| !known.contains(key)) {
        sqlx::query!("INSERT INTO audit_keys (verifier) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", &own)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(signers)
}

/// The verifier keys that the database knows.
pub async fn known(pool: impl PgExecutor<'_>) -> Result<Vec<VerifierKey>, KeyError> {
    let keys =
        sqlx::query_scalar!("SELECT verifier FROM audit_keys ORDER BY added_at, verifier").fetch_all(pool).await?;
    Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
}

/// The keys of `directory`, the first of which is made where it may be; or those of `configured`, if there are any.
pub fn open(directory: &Path, name: &str, configured: &[[u8; 32]], make: bool) -> Result<Vec<Signer>, KeyError> {
    let keys = if configured.is_empty() {
        let files = files(directory)?;
        if !make && !files.iter().any(|file| file.exists()) {
            return Err(KeyError::None(directory.join(KEY_FILE)));
        }
        files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?
    } else {
        configured.iter().map(SigningKey::from_bytes).collect()
    };
    if keys.len() > KEYS_MAX {
        return Err(KeyError::TooMany(keys.len()));
    }
    // A key that lies in two files signs once.
    let mut signers: Vec<Signer> = vec![];
    for key in keys {
        let signer = Signer::new(name, key)?;
        if !signers.iter().any(|other| other.verifier() == signer.verifier()) {
            signers.push(signer);
        }
    }
    Ok(signers)
}

/// The files of keys, the first one first, then by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>, KeyError> {
    let folder = |error| KeyError::Folder(directory.to_owned(), error);
    let mut names = vec![];
    for entry in std::fs::read_dir(directory).map_err(folder)? {
        let name = entry.map_err(folder)?.file_name().into_string().unwrap_or_default();
        if name.starts_with("audit") && name.ends_with(".pem") && name != KEY_FILE {
            names.push(name);
        }
    }
    names.sort_unstable();
    // The first key may have been taken away while others follow it.
    let first = directory.join(KEY_FILE);
    let first = Some(first).filter(|first| names.is_empty() || first.exists());
    Ok(first.into_iter().chain(names.into_iter().map(|name| directory.join(name))).collect())
}

/// The key of this file, which is made if it is not there.
pub fn read(path: &Path) -> Result<SigningKey, KeyError> {
    let pem = private_file::read_or_create(path, || {
        let key = SigningKey::from_bytes(&rand::random());
        key.to_pkcs8_pem(LineEnding::LF).map(|pem| pem.as_bytes().to_vec()).map_err(|error| error.to_string())
    })?;
    let key = String::from_utf8(pem).ok().and_then(|text| SigningKey::from_pkcs8_pem(&text).ok());
    key.ok_or_else(|| KeyError::Key(path.to_owned()))
}
