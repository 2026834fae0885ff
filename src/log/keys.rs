//! Keys: one for each person, wrapped by the master key, and one for keyed hashes.
//!
//! What is personal in an event is sealed with AES-256-GCM under its person's key before it is stored. The
//! associated data names the place (event and field, or command and column), so that a sealed value moved
//! elsewhere does not open. A person's key lies wrapped in `subject_keys`; erasing the person empties its row.

use std::collections::HashMap;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use aggregates::{Digest, Personal};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use quick_cache::sync::Cache;
use sha2::Sha256;
use sqlx::PgPool;

use super::LogError;

/// How many persons' keys are kept in memory.
const CACHED_KEYS_MAX: usize = 100_000;
/// How often keys are made and looked for before that counts as a fault.
const MAKE_TRIES: usize = 3;
const NONCE_BYTES: usize = 12;
/// The first byte of what is sealed: AES-256-GCM under the key itself.
const OWN_KEY: u8 = 1;
/// The same under a key that is derived for the one place, so that it can be shown without showing any other.
const PLACE_KEY: u8 = 2;

/// The keys in use. Cheap to share.
pub struct KeyRing {
    pool: PgPool,
    wrapping: Aes256Gcm,
    hashing: [u8; 32],
    check: String,
    /// `None`: the person was erased.
    cached: Cache<String, Option<PersonKey>>,
}

/// The key of one person.
#[derive(Clone)]
pub struct PersonKey([u8; 32]);

/// The keys of the persons in one command or one page of events; a missing one was erased.
#[derive(Default)]
pub struct Keys(HashMap<String, Option<PersonKey>>);

/// A key that follows from another one and a label.
fn derive(master: &[u8; 32], label: &str) -> [u8; 32] {
    // HMAC takes keys of every length, so this cannot fail; a derived key of zeros would be the worst answer.
    let mut mac = match <Hmac<Sha256> as KeyInit>::new_from_slice(master) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of every length"),
    };
    mac.update(label.as_bytes());
    mac.finalize().into_bytes().into()
}

impl KeyRing {
    /// A key ring under this master key.
    pub fn new(pool: PgPool, master: &[u8; 32]) -> Self {
        Self {
            pool,
            wrapping: Aes256Gcm::new(&derive(master, "tenancy: wrap the keys of persons").into()),
            hashing: derive(master, "tenancy: hash claims"),
            check: URL_SAFE_NO_PAD.encode(&derive(master, "tenancy: recognise the master key")[..12]),
            cached: Cache::new(CACHED_KEYS_MAX),
        }
    }

    /// Forgets what is in memory: the keys in the database are others.
    pub fn forget(&self) {
        self.cached.clear();
    }

    /// Text by which a database recognises its master key, and nothing else.
    pub fn check(&self) -> &str {
        &self.check
    }

    /// A keyed hash of `parts`, for claims and for secrets that are only ever compared.
    pub fn digest(&self, parts: &[&str]) -> Digest {
        let mut mac = match <Hmac<Sha256> as KeyInit>::new_from_slice(&self.hashing) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of every length"),
        };
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Digest(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    /// The keys of these persons, as far as they exist.
    pub async fn find(&self, subjects: impl IntoIterator<Item = &str>) -> Result<Keys, LogError> {
        let (mut keys, missing) = self.cached(subjects);
        if !missing.is_empty() {
            keys.0.extend(self.rows_of(&missing).await?);
            // Erasing leaves a row; what was sealed and has none was lost by somebody.
            for subject in missing.iter().filter(|subject| !keys.0.contains_key(*subject)) {
                tracing::warn!(%subject, "there is no key of this person");
            }
        }
        Ok(keys)
    }

    /// The keys of these persons; who has none yet gets one, unless erased.
    ///
    /// A new key is durable before it is used: an event that outlives its key would read as erased for ever.
    pub async fn find_or_make(&self, subjects: impl IntoIterator<Item = &str>) -> Result<Keys, LogError> {
        let (mut keys, mut missing) = self.cached(subjects);
        if missing.is_empty() {
            return Ok(keys);
        }
        missing.sort_unstable();
        for _ in 0..MAKE_TRIES {
            // Most persons have theirs.
            keys.0.extend(self.rows_of(&missing).await?);
            missing.retain(|subject| !keys.0.contains_key(subject));
            if missing.is_empty() {
                return Ok(keys);
            }
            let wrapped: Vec<Vec<u8>> =
                missing.iter().map(|subject| self.wrap(subject, &rand::random())).collect::<Result<_, _>>()?;
            sqlx::query!(
                "INSERT INTO subject_keys (subject_id, wrapped)
                 SELECT * FROM unnest($1::text[], $2::bytea[]) ON CONFLICT DO NOTHING",
                &missing,
                &wrapped
            )
            .execute(&self.pool)
            .await?;
        }
        Err(LogError::Cipher)
    }

    async fn rows_of(&self, subjects: &[String]) -> Result<HashMap<String, Option<PersonKey>>, LogError> {
        let rows = sqlx::query!("SELECT subject_id, wrapped FROM subject_keys WHERE subject_id = ANY($1)", subjects)
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter()
            .map(|row| Ok((row.subject_id.clone(), self.unwrap_and_keep(&row.subject_id, row.wrapped.as_deref())?)))
            .collect()
    }

    fn cached<'a>(&self, subjects: impl IntoIterator<Item = &'a str>) -> (Keys, Vec<String>) {
        let mut keys = Keys::default();
        let mut missing: Vec<String> = vec![];
        for subject in subjects {
            if let Some(key) = self.cached.get(subject) {
                keys.0.insert(subject.to_owned(), key);
            } else if !missing.iter().any(|known| known == subject) {
                missing.push(subject.to_owned());
            }
        }
        (keys, missing)
    }

    fn wrap(&self, subject: &str, key: &[u8; 32]) -> Result<Vec<u8>, LogError> {
        seal(OWN_KEY, &self.wrapping, subject.as_bytes(), key).ok_or(LogError::Cipher)
    }

    fn unwrap_and_keep(&self, subject: &str, wrapped: Option<&[u8]>) -> Result<Option<PersonKey>, LogError> {
        let key = match wrapped {
            None => None,
            Some(wrapped) => {
                let key = open(&self.wrapping, subject.as_bytes(), wrapped).ok_or(LogError::Cipher)?;
                Some(PersonKey(key.try_into().map_err(|_| LogError::Cipher)?))
            }
        };
        self.cached.insert(subject.to_owned(), key.clone());
        Ok(key)
    }
}

impl PersonKey {
    fn of_place(&self, place: &str) -> [u8; 32] {
        derive(&self.0, &format!("tenancy: seal {place}"))
    }
}

/// Opens what was sealed for `place`, by the key of that place.
pub fn open_disclosed(key: &[u8; 32], place: &str, sealed: &str) -> Option<String> {
    let sealed = URL_SAFE_NO_PAD.decode(sealed).ok().filter(|sealed| sealed.first() == Some(&PLACE_KEY))?;
    String::from_utf8(open(&Aes256Gcm::new(key.into()), place.as_bytes(), &sealed)?).ok()
}

impl Keys {
    /// Seals `value` of `subject` for `place`; `None` when the person was erased.
    pub fn seal(&self, subject: &str, place: &str, value: &str) -> Option<String> {
        let key = self.0.get(subject)?.as_ref()?;
        let sealed = seal(PLACE_KEY, &Aes256Gcm::new(&key.of_place(place).into()), place.as_bytes(), value.as_bytes());
        sealed.map(|sealed| URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens what was sealed for `place`; `None` when the person was erased, or when it was sealed elsewhere.
    pub fn open(&self, subject: &str, place: &str, sealed: &str) -> Option<String> {
        let key = self.0.get(subject)?.as_ref()?;
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let key = match sealed.first()? {
            &PLACE_KEY => key.of_place(place),
            _ => key.0,
        };
        String::from_utf8(open(&Aes256Gcm::new(&key.into()), place.as_bytes(), &sealed)?).ok()
    }

    /// The key that opens what was sealed of `subject` for `place`, and nothing else; `None` when the person was erased.
    pub fn of_place(&self, subject: &str, place: &str) -> Option<[u8; 32]> {
        Some(self.0.get(subject)?.as_ref()?.of_place(place))
    }

    /// Seals a personal field for `place`.
    pub fn seal_field(&self, place: &str, field: &mut Personal) {
        let of = field.of().to_owned();
        field.seal(|value| self.seal(&of, place, value));
    }

    /// Opens a personal field at `place`.
    pub fn open_field(&self, place: &str, field: &mut Personal) {
        let of = field.of().to_owned();
        field.open(|sealed| self.open(&of, place, sealed));
    }
}

/// version byte, nonce, ciphertext with tag
fn seal(form: u8, key: &Aes256Gcm, place: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let sealed = key.encrypt(&Nonce::from(nonce), Payload { msg: value, aad: place }).ok()?;
    Some([&[form], nonce.as_slice(), &sealed].concat())
}

fn open(key: &Aes256Gcm, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (version, rest) = sealed.split_first()?;
    let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
    if ![OWN_KEY, PLACE_KEY].contains(version) {
        return None;
    }
    key.decrypt(&Nonce::from(nonce), Payload { msg: sealed, aad: place }).ok()
}
