//! Newest heads, kept where the owner of the database does not reach: in the data directory.
//!
//! For each organization the size and the root of the newest tree that this replica signed or saw, and for each partition the
//! end of the chain of codes that it sealed. A head is in the file, flushed, before it is published. So nobody who has the
//! database alone gets a tree begun again with another content, rolled back or forked: the sealer holds each tree against
//! its head here and signs nothing that does not continue it.
//!
//! The file is text, a line a head, and only appended to; when most of its lines are superseded, it is written anew beside
//! and takes the old one's place. A line is believed whole or not at all: it ends with a checksum.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};

use super::merkle::Hash;
use crate::log::chain::Mac;

/// The name of the file in the data directory.
pub const FILE: &str = "audit.heads";
/// The file is written anew when it has more lines than this and four times as many as there are heads.
const LINES_MIN: usize = 10_000;

/// Why heads cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the heads of the audit trail {path}: {source}")]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

/// A tree as it was known last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// The epoch of the database.
    pub epoch: i64,
    /// How many events.
    pub size: u64,
    /// The root.
    pub root: Hash,
}

/// A chain as it was known last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainHead {
    /// The epoch of the database.
    pub epoch: i64,
    /// The last offset.
    pub offset: i64,
    /// The code of the event there.
    pub mac: Mac,
}

/// What is known of a database outside of it. Cheap to share behind an [`std::sync::Arc`].
#[derive(Debug)]
pub struct Heads(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Held while the file is written: replicas on one machine may share a data directory.
    lock: File,
    file: File,
    /// How much of the file was read, in bytes.
    read: u64,
    lines: usize,
    /// How many of them cannot be read.
    unreadable: usize,
    trees: HashMap<String, TreeHead>,
    chains: HashMap<i16, ChainHead>,
}

impl Heads {
    /// Opens the heads of this data directory, or begins to keep some.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        Self::open_file(data_dir, FILE)
    }

    /// The same in a file of another name.
    pub fn open_file(data_dir: &Path, name: &str) -> Result<Self, Error> {
        let path = data_dir.join(name);
        let open = || {
            let lock = options().open(data_dir.join(format!("{name}.lock")))?;
            let file = options().open(&path)?;
            File::open(data_dir)?.sync_all()?;
            let (trees, chains) = Default::default();
            let mut kept = Kept { path: path.clone(), lock, file, read: 0, lines: 0, unreadable: 0, trees, chains };
            kept.refresh()?;
            Ok(kept)
        };
        let kept = open().map_err(|source| Error { path: path.clone(), source })?;
        Ok(Self(Mutex::new(kept)))
    }

    /// Takes in what another process wrote that shares the data directory.
    pub fn refresh(&self) -> Result<(), Error> {
        let mut kept = self.kept();
        kept.refresh().map_err(|source| Error { path: kept.path.clone(), source })
    }

    /// The newest head of an organization's tree.
    pub fn tree(&self, organization: &str) -> Option<TreeHead> {
        self.kept().trees.get(organization).cloned()
    }

    /// How many trees it knows.
    pub fn trees(&self) -> usize {
        self.kept().trees.len()
    }

    /// How many lines of the file say nothing.
    pub fn unreadable(&self) -> usize {
        self.kept().unreadable
    }

    /// The newest end of a partition's chain.
    pub fn chain(&self, partition: i16) -> Option<ChainHead> {
        self.kept().chains.get(&partition).cloned()
    }

    /// The organizations that it knows a head of in this epoch.
    pub fn organizations(&self, epoch: i64) -> Vec<String> {
        let kept = self.kept();
        kept.trees.iter().filter(|(_, head)| head.epoch == epoch).map(|(id, _)| id.clone()).collect()
    }

    /// Keeps these heads, as far as they are newer than what it has, and returns when they are flushed.
    pub fn keep(&self, trees: &[(String, TreeHead)], chains: &[(i16, ChainHead)]) -> Result<(), Error> {
        let mut kept = self.kept();
        let path = kept.path.clone();
        let mut keep = || {
            kept.lock.lock()?;
            let written = kept.refresh().and_then(|()| kept.write(trees, chains));
            kept.lock.unlock()?;
            written
        };
        keep().map_err(|source| Error { path, source })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options
}

impl Kept {
    /// Reads what is in the file and was not read yet.
    fn refresh(&mut self) -> std::io::Result<()> {
        let now = std::fs::metadata(&self.path)?;
        if now.ino() != self.file.metadata()?.ino() {
            self.file = options().open(&self.path)?;
            (self.read, self.lines) = (0, 0);
        }
        if now.len() <= self.read {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(self.read))?;
        let mut text = vec![];
        self.file.read_to_end(&mut text)?;
        // Another process may be in the middle of a line.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.lines += 1;
            if std::str::from_utf8(line).ok().and_then(|line| self.learn(line)).is_none() {
                self.unreadable += 1;
                let (line, path) = (self.lines, self.path.display());
                tracing::warn!(line, %path, "a line of the audit trail's heads cannot be read");
            }
        }
        Ok(())
    }

    fn write(&mut self, trees: &[(String, TreeHead)], chains: &[(i16, ChainHead)]) -> std::io::Result<()> {
        let mut text = String::new();
        for (organization, head) in trees {
            if self.trees.get(organization).is_none_or(|known| (known.epoch, known.size) < (head.epoch, head.size)) {
                push_tree(&mut text, organization, head);
            }
        }
        for (partition, head) in chains {
            if self.chains.get(partition).is_none_or(|known| (known.epoch, known.offset) < (head.epoch, head.offset)) {
                push_chain(&mut text, *partition, head);
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        let end = self.file.seek(SeekFrom::End(0))?;
        if end > self.read {
            // A process that was killed left half a line.
            text.insert(0, '\n');
        }
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A full disk: half a line would spoil the next.
            let _ = self.file.set_len(end);
            return Err(error);
        }
        self.refresh()?;
        match self.lines > LINES_MIN.max((self.trees.len() + self.chains.len()).saturating_mul(4)) {
            true => self.rewrite(),
            false => Ok(()),
        }
    }

    /// The heads alone, in a new file.
    fn rewrite(&mut self) -> std::io::Result<()> {
        let mut text = String::new();
        self.trees.iter().for_each(|(organization, head)| push_tree(&mut text, organization, head));
        self.chains.iter().for_each(|(partition, head)| push_chain(&mut text, *partition, head));
        let beside = self.path.with_extension("new");
        let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.file = options().open(&self.path)?;
        (self.read, self.lines) = (text.len() as u64, self.trees.len() + self.chains.len());
        Ok(())
    }

    /// Takes in what a line says; `None` where it is not whole.
    fn learn(&mut self, line: &str) -> Option<()> {
        let (text, sum) = line.rsplit_once(' ')?;
        if sum != checksum(text) {
            return None;
        }
        let mut words = text.split(' ');
        let (what, of, epoch, number, value) =
            (words.next()?, words.next()?, words.next()?.parse().ok()?, words.next()?, words.next()?);
        let value = STANDARD_NO_PAD.decode(value).ok()?;
        match what {
            "tree" => {
                let head = TreeHead { epoch, size: number.parse().ok()?, root: value.try_into().ok()? };
                _ = self.trees.insert(of.to_owned(), head);
            }
            "chain" => {
                let head = ChainHead { epoch, offset: number.parse().ok()?, mac: value };
                _ = self.chains.insert(of.parse().ok()?, head);
            }
            _ => return None,
        }
        Some(())
    }
}

fn push_tree(text: &mut String, organization: &str, head: &TreeHead) {
    push(text, &format!("tree {organization} {} {} {}", head.epoch, head.size, STANDARD_NO_PAD.encode(head.root)));
}

fn push_chain(text: &mut String, partition: i16, head: &ChainHead) {
    push(text, &format!("chain {partition} {} {} {}", head.epoch, head.offset, STANDARD_NO_PAD.encode(&head.mac)));
}

fn push(text: &mut String, line: &str) {
    // Writing into a string does not fail.
    let _ = writeln!(text, "{line} {}", checksum(line));
}

/// Against half a line and a broken disk, not against a person.
fn checksum(text: &str) -> String {
    STANDARD_NO_PAD.encode(&Sha256::digest(text.as_bytes())[..6])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tree(epoch: i64, size: u64) -> TreeHead {
        TreeHead { epoch, size, root: [u8::try_from(size % 256).unwrap(); 32] }
    }

    #[test]
    fn the_newest_heads_are_there_after_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let heads = Heads::open(directory.path()).unwrap();
        heads.keep(&[("org_a".into(), tree(1, 3)), ("org_b".into(), tree(1, 1))], &[]).unwrap();
        heads
            .keep(&[("org_a".into(), tree(1, 2))], &[(4, ChainHead { epoch: 1, offset: 9, mac: vec![1; 16] })])
            .unwrap();
        heads.keep(&[("org_a".into(), tree(2, 1))], &[]).unwrap();
        let path = directory.path().join(FILE);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"tree org_a 9 9 half").unwrap();
        for _ in 0..2 {
            let heads = Heads::open(directory.path()).unwrap();
            assert_eq!(heads.tree("org_a"), Some(tree(2, 1)), "an epoch comes before a size");
            assert_eq!(heads.tree("org_b"), Some(tree(1, 1)));
            assert_eq!(heads.chain(4), Some(ChainHead { epoch: 1, offset: 9, mac: vec![1; 16] }));
            assert_eq!(heads.organizations(1), ["org_b"]);
            heads.keep(&[("org_b".into(), tree(1, 1))], &[]).unwrap();
        }
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let heads = Heads::open(directory.path()).unwrap();
        for batch in 0..30u64 {
            let grown: Vec<_> = (0..1_000).map(|number| (format!("org_{number}"), tree(1, batch + 1))).collect();
            heads.keep(&grown, &[]).unwrap();
        }
        let lines = std::fs::read_to_string(directory.path().join(FILE)).unwrap().lines().count();
        assert!(lines <= LINES_MIN + 1_000, "{lines} lines");
        assert_eq!(Heads::open(directory.path()).unwrap().tree("org_999"), Some(tree(1, 30)));
    }
}
