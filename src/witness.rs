//! A small witness: it remembers how large each tree was that a log showed it, and cosigns a checkpoint only if it continues
//! that one. So nobody, the log's own operators included, shows two people two histories that were both cosigned.
//!
//! The protocol is C2SP's, <https://c2sp.org/tlog-witness>. The state is lines of text that are only appended to, in a directory
//! of its own; a size is flushed before its cosignature goes out. It runs elsewhere than the logs that it watches.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::Utc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::audit::cosignature::{Cosigner, WitnessKey};
use crate::audit::heads::{Heads, TreeHead};
use crate::audit::keys::{self, KeyError};
use crate::audit::merkle::{empty_root, verify_consistency};
use crate::audit::note::{Checkpoint, Invalid, VerifierKey, is_name, open, text_of};
use crate::audit::submission::{SIZE_TYPE, Submission};
use crate::audit::{heads, note};
use crate::http::{ConnectionLimits, guarded, serve};

/// The file of the key, that of the state, and the one that says that the directory is in use.
const KEY_FILE: &str = "witness.pem";
const STATE_FILE: &str = "witness.heads";
const IN_USE_FILE: &str = "witness.in-use";
/// The largest submission, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest origin, in bytes.
const ORIGIN_BYTES_MAX: usize = 512;
/// The most trees that are watched: each takes about 200 bytes of memory.
const TREES_MAX: usize = 2_000_000;
const LIMITS: ConnectionLimits = ConnectionLimits {
    connections_max: 256,
    // There may be a proxy in front.
    per_address_max: None,
    header_time: Duration::from_secs(10),
    idle_time: Duration::from_secs(60),
};

/// Why a witness cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory.
    #[error("cannot use the directory of the witness {0}: {1}")]
    Directory(PathBuf, std::io::Error),
    /// Another one has it.
    #[error("another witness has the directory {0}")]
    InUse(PathBuf),
    /// A witness that forgot a size would cosign a fork.
    #[error("{1} lines of {0} cannot be read")]
    Unreadable(PathBuf, usize),
    /// The state.
    #[error(transparent)]
    State(#[from] heads::Error),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The name.
    #[error("--name cannot be the name of a witness: {0}")]
    Name(#[from] note::Invalid),
    /// The address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Directory(..) => Some("give it a directory that lasts with --state"),
            Self::InUse(_) => Some("stop that one, or give each a directory of its own with --state"),
            Self::Unreadable(..) => {
                Some("put the file back as it was: a witness that has forgotten a tree could cosign another one")
            }
            Self::Listen(..) => Some("free the address, or set another with --listen"),
            Self::State(_) | Self::Key(_) | Self::Name(_) => None,
        }
    }
}

/// A witness, which answers nobody yet.
pub struct Witness {
    cosigner: Cosigner,
    logs: Vec<VerifierKey>,
    /// Looking what is known, and making more known, is one step.
    known: tokio::sync::Mutex<Arc<Heads>>,
    _in_use: File,
}

/// Why nothing is cosigned.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// With this status, and why.
    Of(StatusCode, String),
    /// It was another size that was cosigned last.
    Size(u64),
}

fn refuse<T>(status: StatusCode, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Of(status, why.into()))
}

impl Witness {
    /// The witness of this directory, which is made if it is not there; it cosigns what these logs sign.
    pub fn open(directory: &Path, name: &str, logs: Vec<VerifierKey>) -> Result<Self, Error> {
        let unusable = |error| Error::Directory(directory.to_owned(), error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let in_use = File::create(directory.join(IN_USE_FILE)).map_err(unusable)?;
        if in_use.try_lock().is_err() {
            return Err(Error::InUse(directory.to_owned()));
        }
        let cosigner = Cosigner::new(name, keys::read(&directory.join(KEY_FILE))?)?;
        let state = directory.join(STATE_FILE);
        drop_half_line(&state).map_err(unusable)?;
        let known = Heads::open_file(directory, STATE_FILE)?;
        match known.unreadable() {
            0 => Ok(Self { cosigner, logs, known: tokio::sync::Mutex::new(Arc::new(known)), _in_use: in_use }),
            lines => Err(Error::Unreadable(state, lines)),
        }
    }

    /// The key by which others verify what it cosigns.
    pub fn key(&self) -> &WitnessKey {
        self.cosigner.verifier()
    }

    /// Answers on this address until `stopping`; `listening` hears which one it is.
    pub async fn run(
        self,
        address: SocketAddr,
        listening: impl FnOnce(SocketAddr),
        stopping: CancellationToken,
    ) -> Result<(), Error> {
        let unusable = |error| Error::Listen(address, error);
        let listener = TcpListener::bind(address).await.map_err(unusable)?;
        listening(listener.local_addr().map_err(unusable)?);
        let routes =
            Router::new().route("/add-checkpoint", post(add_checkpoint)).route("/health/live", get(|| async {}));
        serve(listener, guarded(routes.with_state(Arc::new(self))), LIMITS, stopping).await;
        Ok(())
    }

    /// The cosignature of what was submitted.
    async fn add(&self, body: &str) -> Result<String, Refusal> {
        let malformed = |why: &str| Refusal::Of(StatusCode::BAD_REQUEST, why.to_owned());
        let submission = Submission::read(body).map_err(malformed)?;
        let text = text_of(submission.note).map_err(|error| malformed(&error.to_string()))?;
        let checkpoint: Checkpoint = text.parse().map_err(|error: Invalid| malformed(&error.to_string()))?;
        let Checkpoint { origin, size, root } = checkpoint;
        let keys: Vec<VerifierKey> = self.logs.iter().filter(|key| is_of(&origin, key)).cloned().collect();
        if keys.is_empty() {
            return refuse(StatusCode::NOT_FOUND, "this log is not known here");
        }
        if let Err(error) = open(submission.note, &keys) {
            return refuse(StatusCode::FORBIDDEN, error.to_string());
        }
        if submission.old > size {
            return refuse(StatusCode::BAD_REQUEST, "the old size is larger than the checkpoint's");
        }
        if size == 0 && root != empty_root() {
            return refuse(StatusCode::UNPROCESSABLE_ENTITY, "this is not the root of a tree without leaves");
        }
        let known = self.known.lock().await;
        let last = known.tree(&origin);
        if last.is_none() && known.trees() >= TREES_MAX {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "there is no room for another tree");
        }
        continues(&submission, last.as_ref(), size, &root).inspect_err(|refusal| {
            let before = last.as_ref().map_or(0, |last| last.size);
            match refusal {
                Refusal::Of(_, why) => tracing::warn!(%origin, size, before, %why, "not cosigned"),
                Refusal::Size(_) if submission.old == before => {
                    tracing::warn!(%origin, size, "a second tree of this size is not cosigned");
                }
                // Another replica has shown a newer head.
                Refusal::Size(_) => tracing::debug!(%origin, size, before, "not cosigned"),
            }
        })?;
        let (heads, head) = (known.clone(), vec![(origin, TreeHead { epoch: 0, size, root })]);
        let kept = tokio::task::spawn_blocking(move || heads.keep(&head, &[])).await;
        if let Err(error) =
            kept.map_err(|error| error.to_string()).and_then(|kept| kept.map_err(|error| error.to_string()))
        {
            tracing::error!(%error, "nothing can be cosigned");
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "the state cannot be written");
        }
        Ok(self.cosigner.line(text, u64::try_from(Utc::now().timestamp()).unwrap_or_default()))
    }
}

/// Whether the log of this key has trees of this name: its own, and those below.
fn is_of(origin: &str, key: &VerifierKey) -> bool {
    let rest = origin.strip_prefix(key.name());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && origin.len() <= ORIGIN_BYTES_MAX
        && is_name(origin)
}

/// Whether the tree of this size and root continues the last one that was cosigned.
fn continues(submission: &Submission<'_>, last: Option<&TreeHead>, size: u64, root: &[u8; 32]) -> Result<(), Refusal> {
    let (before, of) = last.map_or((0, empty_root()), |last| (last.size, last.root));
    if submission.old != before {
        return Err(Refusal::Size(before));
    }
    if size == before && *root != of && last.is_some() {
        // The answer is the size that was submitted too: so a log sees that its tree is forked.
        return Err(Refusal::Size(before));
    }
    let proven = match before {
        0 => submission.proof.is_empty(),
        before => verify_consistency(before, size, &of, root, &submission.proof),
    };
    match proven {
        true => Ok(()),
        false => refuse(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("the proof does not show that the tree of {before} leaves is the beginning of this one"),
        ),
    }
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let plain = |status: StatusCode, text: String| (status, text + "\n").into_response();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        let why = format!("the submission could not be read, or has more than {BODY_BYTES_MAX} bytes");
        return plain(StatusCode::PAYLOAD_TOO_LARGE, why);
    };
    let Ok(body) = std::str::from_utf8(&body) else {
        return plain(StatusCode::BAD_REQUEST, "this is not UTF-8".into());
    };
    match witness.add(body).await {
        Ok(line) => line.into_response(),
        Err(Refusal::Of(status, why)) => plain(status, why),
        Err(Refusal::Size(size)) => {
            let mut response = plain(StatusCode::CONFLICT, size.to_string());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(SIZE_TYPE));
            response
        }
    }
}

/// Takes away the half line that a process left which was killed: its cosignature never went out.
fn drop_half_line(path: &Path) -> std::io::Result<()> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let (mut end, mut byte) = (file.metadata()?.len(), [0]);
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut byte)?;
        if byte == [b'\n'] {
            break;
        }
        end -= 1;
    }
    file.set_len(end)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::audit::cosignature::cosignatures;
    use crate::audit::merkle::{Frontier, Hash, complete_subtrees, consistency_ranges, join, leaf_hash};
    use crate::audit::note::{Signer, sign};

    fn log(number: u8) -> Signer {
        Signer::new("log.example", SigningKey::from_bytes(&[number; 32])).unwrap()
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    fn root(leaves: &[Hash]) -> Hash {
        let mut tree = Frontier::default();
        leaves.iter().for_each(|leaf| tree.push(*leaf, |_, _| {}));
        tree.root()
    }

    fn proof(old: u64, new: &[Hash]) -> Vec<Hash> {
        let ranges = consistency_ranges(old, new.len() as u64).unwrap_or_default();
        let of = |range| {
            let roots = complete_subtrees(range).into_iter().map(|(height, at)| {
                let at = usize::try_from(at).unwrap();
                root(&new[at..at + (1 << height)])
            });
            join(&roots.collect::<Vec<_>>()).unwrap()
        };
        ranges.into_iter().map(of).collect()
    }

    fn note(origin: &str, leaves: &[Hash], signer: &Signer) -> String {
        let text = Checkpoint { origin: origin.into(), size: leaves.len() as u64, root: root(leaves) }.to_string();
        sign(&text, std::slice::from_ref(signer))
    }

    fn submission(old: u64, leaves: &[Hash]) -> String {
        let note = note("log.example/a", leaves, &log(1));
        Submission { old, proof: proof(old, leaves), note: &note }.text()
    }

    fn witness(directory: &Path) -> Witness {
        Witness::open(directory, "w.example", vec![log(1).verifier().clone()]).unwrap()
    }

    fn status<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> u16 {
        match answer.unwrap_err() {
            Refusal::Of(status, _) => status.as_u16(),
            Refusal::Size(_) => 409,
        }
    }

    #[tokio::test]
    async fn cosigns_what_continues_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let witness = witness(directory.path());
        let all = leaves(9);
        let first = submission(0, &all[..3]);
        let line = witness.add(&first).await.unwrap();
        let note = note("log.example/a", &all[..3], &log(1)) + &line;
        assert_eq!(cosignatures(&note, &[witness.key().clone()]).unwrap().len(), 1);
        assert_eq!(witness.add(&first).await, Err(Refusal::Size(3)), "the old size is another one by now");
        assert!(witness.add(&submission(3, &all[..3])).await.is_ok(), "the same once more");
        assert_eq!(witness.add(&submission(2, &all)).await, Err(Refusal::Size(3)));
        let mut forked = all.clone();
        forked[1] = leaf_hash(b"x");
        assert_eq!(witness.add(&submission(3, &forked[..3])).await, Err(Refusal::Size(3)));
        assert_eq!(status(witness.add(&submission(3, &forked)).await), 422);
        assert_eq!(status(witness.add(&submission(3, &all[..2])).await), 400);
        assert!(witness.add(&submission(3, &all)).await.is_ok());
        assert_eq!(witness.add(&submission(0, &all[..3])).await, Err(Refusal::Size(9)), "it is not rolled back");
    }

    #[tokio::test]
    async fn only_known_logs_and_their_trees_are_cosigned() {
        let directory = tempfile::tempdir().unwrap();
        let witness = witness(directory.path());
        let of = |origin: &str, signer: &Signer| {
            let note = note(origin, &leaves(2), signer);
            Submission { old: 0, proof: vec![], note: &note }.text()
        };
        for origin in ["log.example2/a", "log", "other.example/a", "log.example/a b"] {
            assert_eq!(status(witness.add(&of(origin, &log(1))).await), 404, "{origin}");
        }
        assert_eq!(status(witness.add(&of("log.example/a", &log(2))).await), 403);
        assert!(witness.add(&of("log.example", &log(1))).await.is_ok());
        assert!(witness.add(&of("log.example/b/2", &log(1))).await.is_ok());
        let good = of("log.example/c", &log(1));
        assert_eq!(status(witness.add(&good.replace("\n\u{2014}", "\u{2014}")).await), 400);
        assert_eq!(status(witness.add(&good.replacen("old 0\n", "old 0\nAAAA\n", 1)).await), 400);
        let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(status(witness.add(&good.replacen("old 0\n", &format!("old 0\n{hash}\n"), 1)).await), 422);
        let empty = Checkpoint { origin: "log.example/d".into(), size: 0, root: [1; 32] }.to_string();
        let note = sign(&empty, &[log(1)]);
        assert_eq!(status(witness.add(&Submission { old: 0, proof: vec![], note: &note }.text()).await), 422);
    }

    #[tokio::test]
    async fn remembers_after_it_was_killed_and_refuses_a_state_that_is_not_whole() {
        let directory = tempfile::tempdir().unwrap();
        let all = leaves(5);
        let key = {
            let witness = witness(directory.path());
            witness.add(&submission(0, &all[..4])).await.unwrap();
            assert!(matches!(Witness::open(directory.path(), "w.example", vec![]), Err(Error::InUse(_))));
            witness.key().clone()
        };
        let path = directory.path().join(STATE_FILE);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"tree log.example/a 0 5 hal").unwrap();
        {
            let witness = witness(directory.path());
            assert_eq!(witness.key(), &key);
            assert_eq!(witness.add(&submission(0, &all)).await, Err(Refusal::Size(4)));
            witness.add(&submission(4, &all)).await.unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        std::fs::write(&path, text.replacen(" 0 5 ", " 0 3 ", 1)).unwrap();
        assert!(matches!(Witness::open(directory.path(), "w.example", vec![]), Err(Error::Unreadable(_, 1))));
    }
}
