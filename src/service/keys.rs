//! The keys that the service has in files of its data directory, or in its configuration.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Error;
use crate::access::issuer::BuiltinIssuer;
use crate::audit;
use crate::audit::note::Signer;
use crate::config::Config;
use crate::log::MasterKeys;
use crate::private_file;

/// The file of the master key, in the data directory.
pub(super) const MASTER_KEY_FILE: &str = "master.key";
/// The file of the one before, or of the one to come.
pub(super) const OTHER_MASTER_KEY_FILE: &str = "master.key.other";

/// The built-in issuer with the key of the data directory.
pub fn builtin_issuer(config: &Config) -> Result<BuiltinIssuer, Error> {
    make_data_dir(config)?;
    let access = &config.access;
    let leeway = u64::from(access.clock_leeway_seconds);
    Ok(BuiltinIssuer::open(&config.data_dir, &access.issuer, &access.audience, leeway)?)
}

/// The keys that sign the audit trail's checkpoints, as far as they are here. Where the database is the service's own
/// there is one from the beginning; of another database a service that runs may have made it, and may not be here.
pub fn audit_signers(config: &Config) -> Result<Vec<Signer>, Error> {
    make_data_dir(config)?;
    let make = config.database.url.is_none();
    Ok(audit::keys::open(&config.data_dir, &config.audit.name, &audit_keys(config), make)?)
}

pub(super) fn audit_keys(config: &Config) -> Vec<[u8; 32]> {
    config.secrets.audit_keys.iter().map(|key| *key.expose()).collect()
}

/// The keys that everything encrypted hangs on.
pub(super) fn master_keys(config: &Config) -> Result<MasterKeys, Error> {
    let other = match &config.secrets.master_key_other {
        Some(key) => Some(*key.expose()),
        None => {
            let path = config.data_dir.join(OTHER_MASTER_KEY_FILE);
            private_file::read(&path)?.map(|text| master_key_of(text, path)).transpose()?
        }
    };
    Ok(MasterKeys { current: master_key(config)?, other })
}

/// The one that wraps: configured, or made at the first start.
fn master_key(config: &Config) -> Result<[u8; 32], Error> {
    if let Some(key) = &config.secrets.master_key {
        return Ok(*key.expose());
    }
    make_data_dir(config)?;
    let path = config.data_dir.join(MASTER_KEY_FILE);
    let text = private_file::read_or_create(&path, || {
        Ok(format!("{}\n", STANDARD.encode(rand::random::<[u8; 32]>())).into_bytes())
    })?;
    master_key_of(text, path)
}

fn master_key_of(text: Vec<u8>, path: PathBuf) -> Result<[u8; 32], Error> {
    let text = String::from_utf8(text).unwrap_or_default();
    STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(Error::MasterKey(path))
}

pub(super) fn make_data_dir(config: &Config) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    if config.data_dir.is_dir() {
        return Ok(());
    }
    // Others may pass through (the private server runs under another account when started as root), not look.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&config.data_dir);
    made.map_err(|source| Error::DataDir { path: config.data_dir.clone(), source })
}
