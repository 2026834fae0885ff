//! The list of erased people in the data directory: what a database that is restored to an earlier point has forgotten.
//!
//! One line each: when, and the id. A second line, which begins with `by`, says how that was on record: the id, when, the
//! event, the actor, and the reason as it is sealed in the event, under the actor's key; `-` where there is none. Programs
//! of before know the first line only, and pass over the second.
//!
//! The list is only ever appended to, flushed before anybody is told that the person is erased, and read at every start.
//! Every replica keeps its own and catches up from the tombstones in the database.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aggregates::ids::EventId;
use aggregates::{Actor, StreamId};
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

/// Somebody who was erased.
#[derive(Debug, Clone, PartialEq)]
pub struct Erased {
    /// A `usr_…` or an `inv_…`.
    pub id: String,
    /// When the key was destroyed.
    pub at: DateTime<Utc>,
    /// How that is on record, where it is known.
    pub by: Option<ErasedBy>,
}

/// How an erasure is on record.
#[derive(Debug, Clone, PartialEq)]
pub struct ErasedBy {
    /// The event.
    pub event: EventId,
    /// When it was recorded; of one that was repeated after a restore, the first.
    pub at: DateTime<Utc>,
    /// The actor.
    pub actor: Actor,
    /// The reason, as it is sealed in that event under the actor's key.
    pub reason: Option<String>,
}

/// The list of one replica.
#[derive(Debug)]
pub struct ErasedList {
    path: PathBuf,
    file: File,
    known: HashMap<String, Erased>,
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
        Ok(Self { path, file, known: parse(&text), caught_up_to: None })
    }

    /// What is in a list from elsewhere.
    pub fn read(path: &Path) -> Result<Vec<Erased>, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error { path: path.to_owned(), source })?;
        Ok(parse(&text).into_values().collect())
    }

    /// The ids in it.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// What it has of this person.
    pub fn get(&self, id: &str) -> Option<&Erased> {
        self.known.get(id)
    }

    /// Up to which of the database's tombstones this process has seen to it that they are all in it.
    pub fn caught_up_to(&self) -> Option<DateTime<Utc>> {
        self.caught_up_to
    }

    /// Adds the database's next tombstones, oldest first.
    pub fn catch_up(&mut self, erased: &[Erased]) -> Result<(), Error> {
        self.add(erased)?;
        self.caught_up_to = self.caught_up_to.max(erased.last().map(|erased| erased.at));
        Ok(())
    }

    /// Adds those that are not in it, and how it is on record where that was not known, and flushes.
    pub fn add(&mut self, erased: &[Erased]) -> Result<(), Error> {
        let mut text = String::new();
        let mut new: Vec<&Erased> = vec![];
        for erased in erased {
            let known = self.known.get(&erased.id);
            if known.is_none() {
                text.push_str(&format!("{} {}\n", time(erased.at), erased.id));
            }
            if let (Some(by), true) = (&erased.by, known.is_none_or(|known| known.by.is_none())) {
                let reason = by.reason.as_deref().unwrap_or("-");
                text.push_str(&format!("by {} {} {} {} {reason}\n", erased.id, time(by.at), by.event, by.actor));
            } else if known.is_some() {
                continue;
            }
            new.push(erased);
        }
        if text.is_empty() {
            return Ok(());
        }
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
        self.known.extend(new.into_iter().map(|erased| (erased.id.clone(), erased.clone())));
        Ok(())
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn parse(text: &str) -> HashMap<String, Erased> {
    let mut known: HashMap<String, Erased> = HashMap::new();
    for line in text.lines() {
        if let Some((at, id)) = first(line) {
            known.entry(id.clone()).or_insert(Erased { id, at, by: None });
        } else if let Some((id, by)) = second(line)
            && let Some(erased) = known.get_mut(id)
        {
            erased.by.get_or_insert(by);
        }
    }
    known
}

fn first(line: &str) -> Option<(DateTime<Utc>, String)> {
    let (at, id) = line.trim().split_once(' ')?;
    let person = matches!(StreamId::from_id(id), Some(StreamId::User(_) | StreamId::Invitation(_)));
    person.then_some((DateTime::parse_from_rfc3339(at).ok()?.to_utc(), id.to_owned()))
}

fn second(line: &str) -> Option<(&str, ErasedBy)> {
    let parts: Vec<&str> = line.split_ascii_whitespace().collect();
    let ["by", id, at, event, actor, reason] = parts.as_slice() else { return None };
    let by = ErasedBy {
        event: event.parse().ok()?,
        at: DateTime::parse_from_rfc3339(at).ok()?.to_utc(),
        actor: actor.parse().ok()?,
        reason: (*reason != "-").then(|| (*reason).to_owned()),
    };
    Some((id, by))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aggregates::ids::{Id, InvitationId, UserId};

    use super::*;

    fn erased(id: &str, by: Option<ErasedBy>) -> Erased {
        Erased { id: id.to_owned(), at: Utc::now(), by }
    }

    fn by_bob() -> Option<ErasedBy> {
        let (event, at) = (EventId::random(), DateTime::from_timestamp_micros(1_790_000_000_000_001).unwrap());
        Some(ErasedBy { event, at, actor: Actor::Operator(UserId::random()), reason: Some("Ag3fE_-".into()) })
    }

    #[test]
    fn what_was_added_is_there_after_a_start_and_half_a_line_spoils_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (ada, bob, eve) = (UserId::random().to_string(), InvitationId::random().to_string(), UserId::random());
        let mut list = ErasedList::open(directory.path()).unwrap();
        list.add(&[erased(&ada, None)]).unwrap();
        list.file.write_all(format!("2026-01-01T00:00:00Z {}", &eve.as_ref()[..9]).as_bytes()).unwrap();
        let mut list = ErasedList::open(directory.path()).unwrap();
        list.add(&[erased(&ada, None), erased(&bob, None)]).unwrap();
        let mut ids: Vec<_> =
            ErasedList::read(&directory.path().join(FILE)).unwrap().into_iter().map(|erased| erased.id).collect();
        ids.sort();
        assert_eq!(ids, [bob, ada]);
        assert_eq!(ErasedList::open(directory.path()).unwrap().ids().count(), 2);
    }

    #[test]
    fn how_it_is_on_record_is_kept_once_also_where_it_is_learned_later() {
        let directory = tempfile::tempdir().unwrap();
        let (ada, bob) = (UserId::random().to_string(), UserId::random().to_string());
        let (told, later) = (by_bob(), by_bob());
        let mut list = ErasedList::open(directory.path()).unwrap();
        list.add(&[erased(&ada, None), erased(&bob, told.clone())]).unwrap();
        list.add(&[erased(&ada, later.clone()), erased(&bob, by_bob())]).unwrap();
        list.add(&[erased(&ada, by_bob()), erased(&bob, None)]).unwrap();
        let list = ErasedList::open(directory.path()).unwrap();
        assert_eq!((&list.get(&ada).unwrap().by, &list.get(&bob).unwrap().by), (&later, &told));
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        // A program of before splits at the first space, and takes what is a time and a person.
        let of_before = |line: &&str| line.split_once(' ').is_some_and(|(_, id)| StreamId::from_id(id).is_some());
        assert_eq!(text.lines().filter(of_before).count(), 2, "{text}");
    }
}
