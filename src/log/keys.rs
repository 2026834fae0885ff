//! Keys: one for each person, wrapped by the master key, and one for keyed hashes.
//!
//! Personal data in an event is sealed with AES-256-GCM under its person's key before it is stored. The
//! associated data names the place (event and field, or command and column), so that a sealed value moved
//! elsewhere does not open. A person's key lies wrapped in `subject_keys`; erasing the person empties its row.
//!
//! A key in memory is believed for [`TRUSTED_FOR`]; then it is looked whether keys were destroyed meanwhile. So that
//! long after an erasure no replica opens anything of the person any more.
//!
//! Master keys can be changed: each row says by which one it is wrapped, and beside the one that wraps there may be
//! another that only opens. The key of claims' hashes stays what it was, wrapped by each master key in use.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use aggregates::{Digest, Personal};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use quick_cache::sync::Cache;
use sha2::Sha256;
use sqlx::{Connection, PgConnection};

use crate::database::Connections;

use super::LogError;
use super::chain::ChainKey;

/// How many persons' keys are kept in memory.
const CACHED_KEYS_MAX: usize = 100_000;
/// How often keys are made and looked for before that counts as a fault.
const MAKE_TRIES: usize = 3;
/// How long keys in memory are believed without a look at whether some were destroyed.
pub const TRUSTED_FOR: Duration = Duration::from_secs(2);
/// How many keys are wrapped anew in one transaction.
const REWRAPPED_MAX: i64 = 1_000;
/// Where the key of claims' hashes is wrapped for.
const HASHING: &[u8] = b"hash claims";
const NONCE_BYTES: usize = 12;
/// The first byte of what is sealed: AES-256-GCM under the key itself.
const OWN_KEY: u8 = 1;
/// The same under a key that is derived for the one place, so that it can be shown without showing any other.
const PLACE_KEY: u8 = 2;

/// The master keys that a service was given.
#[derive(Clone, Copy)]
pub struct MasterKeys {
    /// The one that wraps.
    pub current: [u8; 32],
    /// Another one that only opens: the one before, or the one to come.
    pub other: Option<[u8; 32]>,
}

/// What is made of a master key.
struct Master {
    /// By what it is recognised.
    id: String,
    wrapping: Aes256Gcm,
    /// The key of claims' hashes, if this was the first master key.
    hashing: [u8; 32],
}

/// The keys in use. Cheap to share.
pub struct KeyRing {
    pool: Connections,
    current: Master,
    other: Option<Master>,
    hashing: [u8; 32],
    chain: ChainKey,
    /// Each with the revision at which it was asked for; `None`: the person was erased.
    cached: Cache<String, (i64, Option<PersonKey>)>,
    looked: Mutex<Looked>,
}

/// When it was looked last whether keys were destroyed, and which revision there was.
#[derive(Clone, Copy, Default)]
struct Looked {
    at: Option<Instant>,
    revision: i64,
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

impl Master {
    fn new(key: &[u8; 32]) -> Self {
        Self {
            id: URL_SAFE_NO_PAD.encode(&derive(key, "tenancy: recognise the master key")[..12]),
            wrapping: Aes256Gcm::new(&derive(key, "tenancy: wrap the keys of persons").into()),
            hashing: derive(key, "tenancy: hash claims"),
        }
    }
}

impl KeyRing {
    /// The key ring of a database under these master keys, which have to be all that are in use there.
    pub async fn open(pool: Connections, keys: &MasterKeys) -> Result<Self, LogError> {
        let (current, other) = (Master::new(&keys.current), keys.other.as_ref().map(Master::new));
        let hashing = hashing_key(&pool, &current, other.as_ref()).await?;
        // It follows from what outlives every change of the master key.
        let chain = ChainKey::new(&derive(&hashing, "tenancy: codes of events"));
        let looked = Mutex::default();
        Ok(Self { pool, current, other, hashing, chain, cached: Cache::new(CACHED_KEYS_MAX), looked })
    }

    /// The key of the codes that events carry.
    pub fn chain(&self) -> &ChainKey {
        &self.chain
    }

    /// Forgets what is in memory: the keys in the database are others.
    pub fn forget(&self) {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Looked::default();
        self.cached.clear();
    }

    /// The revision of the keys, not older than [`TRUSTED_FOR`].
    async fn revision(&self) -> Result<i64, LogError> {
        let known = *self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if known.at.is_some_and(|at| at.elapsed() < TRUSTED_FOR) {
            return Ok(known.revision);
        }
        let at = Some(Instant::now());
        let revision = sqlx::query_scalar!("SELECT keys_revision FROM installation").fetch_one(&self.pool).await?;
        self.saw(at, revision);
        Ok(revision)
    }

    /// The revision was this, or a later one, at that time.
    pub(super) fn saw(&self, at: Option<Instant>, revision: i64) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.at < at {
            *looked = Looked { at, revision };
        }
    }

    fn master(&self, id: &str) -> Result<&Master, LogError> {
        let given = std::iter::once(&self.current).chain(&self.other);
        given.into_iter().find(|master| master.id == id).ok_or_else(|| LogError::MasterKey(id.to_owned()))
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
        // Keys read after this are at least as new as the revision.
        let revision = self.revision().await?;
        let (mut keys, missing) = self.cached(subjects, revision);
        if !missing.is_empty() {
            keys.0.extend(self.rows_of(&missing, revision).await?);
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
        let revision = self.revision().await?;
        let (mut keys, mut missing) = self.cached(subjects, revision);
        if missing.is_empty() {
            return Ok(keys);
        }
        missing.sort_unstable();
        for _ in 0..MAKE_TRIES {
            // Most persons have theirs.
            keys.0.extend(self.rows_of(&missing, revision).await?);
            missing.retain(|subject| !keys.0.contains_key(subject));
            if missing.is_empty() {
                return Ok(keys);
            }
            let wrapped: Vec<Vec<u8>> =
                missing.iter().map(|subject| self.wrap(subject, &rand::random())).collect::<Result<_, _>>()?;
            sqlx::query!(
                "INSERT INTO subject_keys (subject_id, wrapped, wrapped_by)
                 SELECT n.*, $3 FROM unnest($1::text[], $2::bytea[]) AS n ON CONFLICT DO NOTHING",
                &missing,
                &wrapped,
                self.current.id
            )
            .execute(&self.pool)
            .await?;
        }
        Err(LogError::Cipher)
    }

    async fn rows_of(
        &self,
        subjects: &[String],
        revision: i64,
    ) -> Result<HashMap<String, Option<PersonKey>>, LogError> {
        let statement = sqlx::query!(
            "SELECT subject_id, wrapped, wrapped_by FROM subject_keys WHERE subject_id = ANY($1)",
            subjects
        );
        let rows = statement.fetch_all(&self.pool).await?;
        rows.into_iter()
            .map(|row| {
                let wrapped = row.wrapped.as_deref().zip(row.wrapped_by.as_deref());
                let key = wrapped.map(|(wrapped, by)| self.unwrap(&row.subject_id, wrapped, by)).transpose()?;
                self.cached.insert(row.subject_id.clone(), (revision, key.clone()));
                Ok((row.subject_id, key))
            })
            .collect()
    }

    fn cached<'a>(&self, subjects: impl IntoIterator<Item = &'a str>, revision: i64) -> (Keys, Vec<String>) {
        let mut keys = Keys::default();
        let mut missing: Vec<String> = vec![];
        for subject in subjects {
            if let Some((_, key)) = self.cached.get(subject).filter(|(known, _)| *known == revision) {
                keys.0.insert(subject.to_owned(), key);
            } else if !missing.iter().any(|known| known == subject) {
                missing.push(subject.to_owned());
            }
        }
        (keys, missing)
    }

    fn wrap(&self, subject: &str, key: &[u8; 32]) -> Result<Vec<u8>, LogError> {
        seal(OWN_KEY, &self.current.wrapping, subject.as_bytes(), key).ok_or(LogError::Cipher)
    }

    fn unwrap(&self, subject: &str, wrapped: &[u8], by: &str) -> Result<PersonKey, LogError> {
        let key = open(&self.master(by)?.wrapping, subject.as_bytes(), wrapped).ok_or(LogError::Cipher)?;
        Ok(PersonKey(key.try_into().map_err(|_| LogError::Cipher)?))
    }

    /// Destroys keys of what is no person, and so leaves no tombstone: a database that is restored may have them back.
    pub async fn retire(&self, names: &[&str]) -> Result<(), LogError> {
        if names.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "WITH destroyed AS (
                 UPDATE subject_keys SET wrapped = NULL, wrapped_by = NULL, erased_at = now()
                 WHERE wrapped IS NOT NULL AND subject_id = ANY($1) RETURNING subject_id
             )
             UPDATE installation SET keys_revision = keys_revision + 1 WHERE EXISTS (SELECT FROM destroyed)",
            names as &[&str]
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Wraps up to a thousand keys anew that another master key wraps, and says how many it did; none when all are
    /// under the current one, and then the others are not in use any more. Harmless beside a running service, and
    /// beside itself.
    pub async fn rewrap(&self) -> Result<usize, LogError> {
        let rows = sqlx::query!(
            r#"SELECT subject_id, wrapped AS "wrapped!", wrapped_by AS "wrapped_by!" FROM subject_keys
               WHERE wrapped IS NOT NULL AND wrapped_by <> $1 LIMIT $2"#,
            self.current.id,
            REWRAPPED_MAX
        )
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            // A key that somebody emptied by hand needs no master key either.
            sqlx::query!("UPDATE subject_keys SET wrapped_by = NULL WHERE wrapped IS NULL AND wrapped_by IS NOT NULL")
                .execute(&self.pool)
                .await?;
            // One by which somebody wraps a new key meanwhile is in use again: the reference to it refuses this.
            sqlx::query!(
                "DELETE FROM master_keys m
                 WHERE id <> $1 AND NOT EXISTS (SELECT FROM subject_keys WHERE wrapped_by = m.id)",
                self.current.id
            )
            .execute(&self.pool)
            .await?;
            return Ok(0);
        }
        let mut rewrapped = vec![];
        for row in &rows {
            let key = open(&self.master(&row.wrapped_by)?.wrapping, row.subject_id.as_bytes(), &row.wrapped);
            let key: [u8; 32] = key.and_then(|key| key.try_into().ok()).ok_or(LogError::Cipher)?;
            rewrapped.push(self.wrap(&row.subject_id, &key)?);
        }
        // A key destroyed meanwhile stays destroyed.
        sqlx::query!(
            "UPDATE subject_keys k SET wrapped = n.rewrapped, wrapped_by = $4
             FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS n(id, wrapped, rewrapped)
             WHERE k.subject_id = n.id AND k.wrapped = n.wrapped",
            &rows.iter().map(|row| row.subject_id.clone()).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.wrapped.clone()).collect::<Vec<_>>(),
            &rewrapped,
            self.current.id
        )
        .execute(&self.pool)
        .await?;
        Ok(rows.len())
    }

    /// How many keys are wrapped by another master key than the current one.
    pub async fn wrapped_by_others(&self) -> Result<u64, LogError> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM subject_keys WHERE wrapped IS NOT NULL AND wrapped_by <> $1"#,
            self.current.id
        );
        Ok(count.fetch_one(&self.pool).await?.unsigned_abs())
    }
}

/// The key of claims' hashes, which is the one of the database's first master key for ever. Every master key in use has
/// to be among those that were given; the current one is in use from here on.
async fn hashing_key(pool: &Connections, current: &Master, other: Option<&Master>) -> Result<[u8; 32], LogError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // Two services that start at once with different keys must not both be the first.
    sqlx::query!("SELECT only_row FROM installation FOR UPDATE").fetch_one(&mut *transaction).await?;
    let rows =
        sqlx::query!("SELECT id, hashing FROM master_keys ORDER BY added_at").fetch_all(&mut *transaction).await?;
    let given = || std::iter::once(current).chain(other);
    let mut hashing = rows.is_empty().then_some(current.hashing);
    let mut missing = None;
    for row in &rows {
        match given().find(|master| master.id == row.id) {
            None => missing = Some(row.id.clone()),
            Some(master) => {
                let opened = match &row.hashing {
                    None => Some(master.hashing),
                    Some(wrapped) => {
                        open(&master.wrapping, HASHING, wrapped).and_then(|key| <[u8; 32]>::try_from(key).ok())
                    }
                };
                hashing = Some(opened.ok_or(LogError::Cipher)?);
            }
        }
    }
    // None of them fits: it is another database's key.
    let hashing = hashing.ok_or(LogError::Cipher)?;
    if let Some(missing) = missing {
        return Err(LogError::MasterKey(missing));
    }
    for master in given().filter(|master| master.id == current.id || rows.iter().any(|row| row.id == master.id)) {
        sqlx::query!(
            "INSERT INTO master_keys AS m (id, hashing) VALUES ($1, $2)
             ON CONFLICT (id) DO UPDATE SET hashing = EXCLUDED.hashing WHERE m.hashing IS NULL",
            master.id,
            seal(OWN_KEY, &master.wrapping, HASHING, &hashing).ok_or(LogError::Cipher)?
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(hashing)
}

/// Destroys the keys of these subjects, also of those who never had one, and leaves a tombstone for each.
pub(super) async fn destroy(connection: &mut PgConnection, subjects: &[&str]) -> Result<(), LogError> {
    sqlx::query!(
        "WITH destroyed AS (
             INSERT INTO subject_keys AS k (subject_id, erased_at) SELECT id, now() FROM unnest($1::text[]) AS s(id)
             ON CONFLICT (subject_id) DO UPDATE
             SET wrapped = NULL, wrapped_by = NULL, erased_at = COALESCE(k.erased_at, EXCLUDED.erased_at)
         ), buried AS (
             INSERT INTO tombstones (subject_id) SELECT id FROM unnest($1::text[]) AS s(id) ON CONFLICT DO NOTHING
         )
         UPDATE installation SET keys_revision = keys_revision + 1",
        subjects as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
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
