//! The list of erased people in the data directory: what a database that is restored to an earlier point has forgotten.
//!
//! One line each: when, and the id. It is only ever appended to, flushed before anybody is told that the person is
//! erased, and read at every start. Every replica keeps its own and catches up from the tombstones in the database.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aggregates::StreamId;
use chrono::{DateTime, SecondsFormat, Utc};

/// The name of the list in the data directory.
pub const FILE: &str = "erased.list";

/// Why the list cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the list of erased people {path}: {source}")]
pub struct Error {
    /// Which file.
    path: PathBuf,
    /// Why.
    source: std::io::Error,
}

/// The list of one replica.
#[derive(Debug)]
pub struct ErasedList {
    path: PathBuf,
    file: File,
    known: HashSet<String>,
    /// Up to which of the database's tombstones it has them all. That is not in the file: what was brought from
    /// elsewhere says nothing about older ones, so every process looks through all of them once.
    caught_up_to: Option<DateTime<Utc>>,
}

impl ErasedList {
    /// Opens the list of this data directory, or begins one.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join(FILE);
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            // A process that was killed may have left half a line.
            if !text.is_empty() && !text.ends_with('\n') {
                file.write_all(b"\n")?;
            }
            File::open(data_dir)?.sync_all()?;
            Ok((file, text))
        };
        let (file, text) = open().map_err(|source| Error { path: path.clone(), source })?;
        let known = text.lines().filter_map(parse).map(|(_, id)| id).collect();
        Ok(Self { path, file, known, caught_up_to: None })
    }

    /// The ids in a list from elsewhere.
    pub fn read(path: &Path) -> Result<Vec<String>, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error { path: path.to_owned(), source })?;
        Ok(text.lines().filter_map(parse).map(|(_, id)| id).collect())
    }

    /// The ids in it.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(String::as_str)
    }

    /// Up to which of the database's tombstones this process has seen to it that they are all in it.
    pub fn caught_up_to(&self) -> Option<DateTime<Utc>> {
        self.caught_up_to
    }

    /// Adds the database's next tombstones, oldest first.
    pub fn catch_up<'a>(
        &mut self,
        erased: impl Iterator<Item = (&'a str, DateTime<Utc>)> + Clone,
    ) -> Result<(), Error> {
        self.add(erased.clone())?;
        self.caught_up_to = self.caught_up_to.max(erased.map(|(_, at)| at).last());
        Ok(())
    }

    /// Adds those that are not in it, and flushes.
    pub fn add<'a>(&mut self, erased: impl Iterator<Item = (&'a str, DateTime<Utc>)>) -> Result<(), Error> {
        let new: Vec<_> = erased.filter(|(id, _)| !self.known.contains(*id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let line =
            |(id, at): &(&str, DateTime<Utc>)| format!("{} {id}\n", at.to_rfc3339_opts(SecondsFormat::Micros, true));
        let text: String = new.iter().map(line).collect();
        let mut write = || {
            let end = self.file.seek(SeekFrom::End(0))?;
            let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
            if written.is_err() {
                // A full disk: what is half there would spoil the next line.
                let _ = self.file.set_len(end);
            }
            written
        };
        write().map_err(|source| Error { path: self.path.clone(), source })?;
        self.known.extend(new.into_iter().map(|(id, _)| id.to_owned()));
        Ok(())
    }
}

fn parse(line: &str) -> Option<(DateTime<Utc>, String)> {
    let (at, id) = line.trim().split_once(' ')?;
    let person = matches!(StreamId::from_id(id), Some(StreamId::User(_) | StreamId::Invitation(_)));
    person.then_some((DateTime::parse_from_rfc3339(at).ok()?.to_utc(), id.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aggregates::ids::{Id, InvitationId, UserId};

    use super::*;

    #[test]
    fn what_was_added_is_there_after_a_start_and_half_a_line_spoils_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (ada, bob, eve) = (UserId::random().to_string(), InvitationId::random().to_string(), UserId::random());
        let mut list = ErasedList::open(directory.path()).unwrap();
        list.add([(ada.as_str(), Utc::now())].into_iter()).unwrap();
        list.file.write_all(format!("2026-01-01T00:00:00Z {}", &eve.as_ref()[..9]).as_bytes()).unwrap();
        let mut list = ErasedList::open(directory.path()).unwrap();
        list.add([(ada.as_str(), Utc::now()), (bob.as_str(), Utc::now())].into_iter()).unwrap();
        let ids = ErasedList::read(&directory.path().join(FILE)).unwrap();
        assert_eq!(ids, [ada, bob]);
        assert_eq!(ErasedList::open(directory.path()).unwrap().ids().count(), 2);
    }
}
