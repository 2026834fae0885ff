//! What was seen from outside during a run: the answers that clients had, what reads showed, what followers followed.
//! The checker holds the log against it. It is written as one JSON object a line, so that it can be checked again.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A command as a client gave it, with every try.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// Its number in this run.
    pub id: u64,
    /// The mutation.
    pub operation: String,
    /// The id of the user who gave it.
    pub caller: String,
    /// The idempotency key, where it had one.
    pub key: Option<String>,
    /// The whole input.
    pub input: Value,
    /// The tries, in order.
    pub attempts: Vec<Attempt>,
}

/// One request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// The id under which the service records the request; no other request has it.
    pub request_id: String,
    /// The replica that was asked.
    pub replica: usize,
    /// When it was sent, in milliseconds of the run.
    pub began_ms: u64,
    /// When its answer was there, or was given up.
    pub ended_ms: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a client knows of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is recorded.
    Acknowledged {
        /// The ids of its events.
        events: Vec<String>,
        /// Where to read to see it.
        position: Option<String>,
        /// Whether the service says that this is the outcome of an earlier command.
        replayed: bool,
        /// What it answered with, and at which version.
        entities: Vec<(String, i64)>,
    },
    /// It left nothing (but perhaps a `LimitReached`).
    Refused {
        /// Why.
        code: String,
    },
    /// Nobody knows: no answer, or one that says so.
    Unknown {
        /// Why.
        why: String,
    },
}

/// A read that asked to be at least as new as a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Read {
    /// The command.
    pub command: u64,
    /// The replica that was asked.
    pub replica: usize,
    /// What was acknowledged.
    pub entity: String,
    /// At which version.
    pub version: i64,
    /// What was shown of it; nothing where the list does not hold it.
    pub shown: Option<Shown>,
    /// Whether the list was whole, so that what it does not hold was not shown.
    pub whole: bool,
}

/// What a list shows of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its version.
    pub version: i64,
    /// Its state: of an organization verification and lifecycle.
    pub state: String,
    /// Its slug, or its roles.
    pub more: String,
}

/// What somebody followed live.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Followed {
    /// The client, for messages.
    pub who: String,
    /// The partition, for a reader of the table.
    pub partition: Option<i16>,
    /// The organization, for a reader of an audit trail.
    pub organization: Option<String>,
    /// The numbers and ids of the events, in the order in which they came.
    pub events: Vec<(i64, String)>,
    /// Where the log ended when everything else had ended: so far the follower should have come.
    pub end: i64,
}

/// A webhook that came to the receiver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Received {
    /// Where it came to: by that it is known for which endpoint it was.
    pub path: String,
    /// Its id, which is the event's.
    pub event: String,
    /// When, in milliseconds of the run.
    pub at_ms: u64,
    /// Whether it was answered with success.
    pub taken: bool,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
enum Line {
    Received(Received),
    Command(Command),
    Read(Read),
    Followed(Followed),
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct History {
    /// Commands.
    pub commands: Vec<Command>,
    /// Reads that asked for a position.
    pub reads: Vec<Read>,
    /// Followers.
    pub followed: Vec<Followed>,
    /// Webhooks, in the order in which they came.
    pub received: Vec<Received>,
}

/// A history that many write to.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<History>);

impl Recorder {
    /// Adds a command whose tries are over.
    pub fn command(&self, command: Command) {
        self.0.lock().unwrap().commands.push(command);
    }

    /// Adds a read.
    pub fn read(&self, read: Read) {
        self.0.lock().unwrap().reads.push(read);
    }

    /// Adds what somebody followed.
    pub fn followed(&self, followed: Followed) {
        self.0.lock().unwrap().followed.push(followed);
    }

    /// Adds what webhooks came.
    pub fn received(&self, received: Vec<Received>) {
        self.0.lock().unwrap().received.extend(received);
    }

    /// Takes what was recorded.
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl History {
    /// Writes it to a file.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        let commands = self.commands.iter().cloned().map(Line::Command);
        let reads = self.reads.iter().cloned().map(Line::Read);
        let followed = self.followed.iter().cloned().map(Line::Followed);
        let received = self.received.iter().cloned().map(Line::Received);
        for line in commands.chain(reads).chain(followed).chain(received) {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    /// Reads it from a file.
    pub fn load(path: &Path) -> std::io::Result<Self> {
        let mut history = Self::default();
        for line in BufReader::new(std::fs::File::open(path)?).lines() {
            match serde_json::from_str(&line?)? {
                Line::Command(command) => history.commands.push(command),
                Line::Read(read) => history.reads.push(read),
                Line::Followed(followed) => history.followed.push(followed),
                Line::Received(received) => history.received.push(received),
            }
        }
        Ok(history)
    }
}
