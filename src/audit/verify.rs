//! Verifies a bundle by nothing but a key: no service, no database, no configuration.
//!
//! The events are hashed anew and compared with the hashes that were sealed; either list has to add up to the signed
//! root. Where the sealed one does, an event that does not fit it is named.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use super::access::address_place;
use super::bundle::{AccessRecord, Disclosed, Event, FORMAT, Hashes, Header, LINE_BYTES_MAX, Line, Text};
use super::cosignature::{Cosigned, Quorum};
use super::leaf::Leaf;
use super::merkle::{Frontier, Hash, verify_inclusion};
use super::note::{Checkpoint, Invalid, NOTE_BYTES_MAX, VerifierKey, checkpoint_of, open, refuse_doubled};
use super::seal::TILE;
use super::trail::{ACCESS, INSTALLATION};
use crate::log::open_disclosed;

/// The most events that do not fit of which is looked where they came from.
const STRAY_MAX: usize = 256;
/// The most places that nothing fits of which is remembered what was sealed there.
const VACANT_MAX: usize = 10_000;
/// The longest event of which is looked where it came from, in bytes; and in how many places.
const STRAY_BYTES_MAX: usize = 16 * 1024;
const PLACES_MAX: usize = 256;
/// The most events that a tree has: numbers of the database end there.
const EVENTS_MAX: u64 = i64::MAX as u64;
/// How much of a line is shown where it is not written as it should be, in bytes.
const SHOWN_BYTES: usize = 24;
/// The most findings that are told one by one.
const FINDINGS_MAX: usize = 100;

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong, a line each; nothing if all is well.
    pub findings: Vec<String>,
    /// How many findings there are besides.
    pub more: usize,
    /// How many events were verified.
    pub events: u64,
    /// The bundle's header.
    pub header: Option<Header>,
    /// The bundle's checkpoint, which is signed.
    pub checkpoint: Option<Checkpoint>,
    /// The cosignatures of known witnesses under it.
    pub cosigned: Vec<Cosigned>,
}

impl Report {
    /// Whether nothing is altered, missing, added or moved.
    pub fn is_well(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }

    fn found(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

/// Why a file counts as no checkpoint of before.
#[derive(Debug, thiserror::Error)]
pub enum NotOlder {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is none, or of nobody known.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It is a bundle whose beginning does not count.
    #[error("{0}")]
    Bundle(String),
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It cannot be read.
    #[error("the bundle cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// A checkpoint of before, from a file that holds its note, or from a bundle, of which nothing but the first two lines
/// is looked at.
pub fn older(mut file: impl BufRead, keys: &[VerifierKey]) -> Result<Checkpoint, NotOlder> {
    if !file.fill_buf()?.starts_with(b"{") {
        let mut text = vec![];
        file.take(NOTE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
        let note = String::from_utf8(text).map_err(|_| Invalid::Note("it is not UTF-8"))?;
        refuse_doubled(&note, keys)?;
        return Ok(open(&note, keys)?.parse()?);
    }
    let mut verification = Verification::default();
    let mut lines = Lines { bundle: file, number: 0 };
    while verification.report.checkpoint.is_none() {
        let line = match lines.next() {
            Ok(line) => line.ok_or("it ends before its checkpoint: cut".to_owned()),
            Err(Unreadable::Io(error)) => return Err(error.into()),
        };
        let line = line.and_then(|line| line.map_err(|reason| format!("line {} is altered: {reason}", lines.number)));
        line.and_then(|line| verification.line(lines.number, line, keys)).map_err(NotOlder::Bundle)?;
    }
    verification.report.checkpoint.ok_or_else(|| NotOlder::Bundle("it has no checkpoint".into()))
}

/// Verifies a bundle that one of `keys` signed and enough witnesses cosigned, and that nothing of what `older` covers was
/// changed since.
pub fn verify(
    bundle: impl BufRead,
    keys: &[VerifierKey],
    older: Option<&Checkpoint>,
    quorum: &Quorum,
) -> Result<Report, Unreadable> {
    let mut verification = Verification { older: older.cloned(), quorum: quorum.clone(), ..Verification::default() };
    let mut lines = Lines { bundle, number: 0 };
    while let Some(line) = lines.next()? {
        let number = lines.number;
        if verification.ended {
            verification.report.found(format!("line {number} follows the end: added"));
            break;
        }
        match line {
            // An unreadable line may have been anything; without the beginning nothing makes sense.
            Err(reason) => {
                verification.report.found(format!("line {number} is altered: {reason}"));
                if number <= 2 {
                    return Ok(verification.report);
                }
            }
            Ok(line) => {
                if let Err(reason) = verification.line(number, line, keys) {
                    verification.report.found(reason);
                    return Ok(verification.report);
                }
            }
        }
    }
    Ok(verification.end())
}

struct Lines<R> {
    bundle: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<Result<Line, String>>, Unreadable> {
        let mut text = vec![];
        let read = (&mut self.bundle).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if text.pop() != Some(b'\n') {
            let long = read > LINE_BYTES_MAX;
            return Ok(Some(Err(if long { "it is too long".into() } else { "it ends amid the line: cut".into() })));
        }
        Ok(Some(as_written(&text)))
    }
}

/// The line, if it is written in the only way: another spelling of the same would be an altered byte that nobody sees.
fn as_written(text: &[u8]) -> Result<Line, String> {
    let unreadable = |error: serde_json::Error| match error.column() {
        0 => error.to_string().replace(" at line 0 column 0", ""),
        column => error.to_string().replace(&format!(" at line 1 column {column}"), &format!(" at byte {column}")),
    };
    let line: Line = serde_json::from_slice(text).map_err(unreadable)?;
    let written = line.text().map_err(|error| error.to_string())?;
    let written = written.trim_end_matches('\n').as_bytes();
    if written == text {
        return Ok(line);
    }
    let at = written.iter().zip(text).take_while(|(one, other)| one == other).count();
    let part = |text: &[u8]| String::from_utf8_lossy(&text[at..text.len().min(at + SHOWN_BYTES)]).into_owned();
    Err(format!(
        "it is not written as an export writes it: from byte {} on it has {:?}, where {:?} was expected",
        at + 1,
        part(text),
        part(written)
    ))
}

/// An event that does not fit.
struct Stray {
    number: usize,
    event: Kept,
}

/// What is remembered of an event until its hash is known to be right.
struct Kept {
    id: String,
    /// The audit sequence, as it says.
    now: String,
    /// To look where it came from; not of a very long one.
    columns: Option<Leaf>,
}

#[derive(Default)]
struct Verification {
    report: Report,
    older: Option<Checkpoint>,
    /// Which witnesses have to have cosigned its checkpoint; of an older one none has to.
    quorum: Quorum,
    ended: bool,
    /// The tree of the events as they stand here, and that of the hashes that were sealed.
    here: Frontier,
    sealed: Frontier,
    /// The events since the last line of hashes, by audit sequence, with line and hash.
    block: BTreeMap<u64, (usize, Hash, Kept)>,
    /// The audit sequence up to which events were seen.
    seen: u64,
    stray: Vec<Stray>,
    /// What was sealed where no event fits.
    vacant: BTreeMap<u64, Hash>,
    /// The root of the older checkpoint's size, by the events and by the hashes that were sealed.
    then: Option<(Hash, Hash)>,
}

impl Verification {
    /// An error ends the verification.
    fn line(&mut self, number: usize, line: Line, keys: &[VerifierKey]) -> Result<(), String> {
        match (number, line) {
            (1, Line::Header(header)) => {
                return self.begin(header).map_err(|reason| format!("line 1 is altered: {reason}"));
            }
            (2, Line::Checkpoint(signed)) => return self.signed(&signed.note, keys),
            (1 | 2, _) => {
                return Err(format!("line {number} is not what a bundle begins with: altered, or lines are missing"));
            }
            (_, Line::Header(_) | Line::Checkpoint(_)) => {
                self.report.found(format!("line {number} begins a bundle again: added"))
            }
            (_, Line::Event(_)) if self.is_of(ACCESS) => {
                self.report.found(format!("line {number} is an event, and no record of the access trail: added"));
            }
            (_, Line::Event(event)) => self.event(number, *event),
            (_, Line::Record(record)) if self.is_of(ACCESS) => self.record(number, *record),
            (_, Line::Record(_)) => {
                self.report.found(format!("line {number} is a record of the access trail, and no event: added"));
            }
            (_, Line::Hashes(hashes)) => self.hashes(number, &hashes),
            (_, Line::End {}) => self.ended = true,
        }
        Ok(())
    }

    fn begin(&mut self, header: Header) -> Result<(), String> {
        if header.format != FORMAT {
            return Err(format!("the format {:?} is not known here; {FORMAT} is", header.format));
        }
        if header.from == 0 || header.from > header.to.saturating_add(1) {
            return Err(format!("it would hold the events from {} to {}", header.from, header.to));
        }
        if [INSTALLATION, ACCESS].contains(&header.organization.as_str()) && !header.complete {
            return Err(format!("a bundle of {} is complete, and this one would not be", header.organization));
        }
        if header.to > EVENTS_MAX {
            return Err(format!("it would hold events up to {}; no tree has so many", header.to));
        }
        let peaks: Vec<Hash> = header.before.iter().map(|peak| peak.0).collect();
        // Where each event has a proof of its own nothing would show that these are right.
        let before = match header.complete {
            true => Frontier::new(header.from - 1, peaks),
            false => peaks.is_empty().then(Frontier::default),
        };
        self.here = before.ok_or("the hashes of what comes before do not fit the number of it")?;
        self.sealed = self.here.clone();
        self.seen = header.from - 1;
        self.report.header = Some(header);
        self.look_at_older();
        Ok(())
    }

    /// Whether the bundle is of this trail. Events of the installation belong to no organization, and are numbered by their
    /// order, as records of the access trail are.
    fn is_of(&self, trail: &str) -> bool {
        self.report.header.as_ref().is_some_and(|header| header.organization == trail)
    }

    fn look_at_older(&mut self) {
        if self.older.as_ref().is_some_and(|older| older.size == self.sealed.size()) {
            self.then = Some((self.here.root(), self.sealed.root()));
        }
    }

    fn event(&mut self, number: usize, event: Event) {
        let installation = self.is_of(INSTALLATION);
        let sequence = match installation {
            true => Some(self.seen + 1).filter(|_| event.columns.audit_sequence.is_none()),
            false => event.columns.audit_sequence.as_deref().and_then(decimal),
        };
        let id = event.columns.event_id.clone().unwrap_or_default();
        if let Some(column) = missing(&event.columns, installation) {
            self.report.found(format!("line {number}, event {id}: altered: its {column} is missing"));
        }
        let whose = self.report.header.as_ref().map(|header| &header.organization).filter(|_| !installation);
        if event.columns.organization_id.as_ref() != whose {
            let whose = event.columns.organization_id.as_deref().unwrap_or("nobody");
            self.report.found(format!("line {number}, event {id}: altered, or added: it is an event of {whose}"));
        }
        for (place, disclosed) in &event.personal {
            if let Err(reason) = opens(&event.columns, place, disclosed) {
                self.report.found(format!("line {number}, event {id}: its readable {place} is altered: {reason}"));
            }
        }
        let Some(sequence) = sequence else {
            self.report
                .found(format!("line {number}, event {id}: altered: its audit sequence is not what it has to be"));
            return;
        };
        let hash = event.columns.hash();
        if sequence <= self.seen {
            self.report.found(format!("line {number}: event {sequence} ({id}) stands out of order: moved or added"));
        }
        self.seen = self.seen.max(sequence);
        let (Some(header), Some(checkpoint)) = (&self.report.header, &self.report.checkpoint) else { return };
        match (header.complete, event.proof) {
            (false, Some(proof)) => {
                self.report.events += 1;
                let path: Vec<Hash> = proof.iter().map(|hash| hash.0).collect();
                let index = sequence.wrapping_sub(1);
                if !verify_inclusion(index, checkpoint.size, &hash, &path, &checkpoint.root) {
                    let what = "or its proof is altered: it is not under the signed root";
                    self.report.found(format!("line {number}: event {sequence} ({id}) {what}"));
                }
                return;
            }
            (false, None) => {
                self.report.found(format!("line {number}: event {sequence} ({id}) is added: it has no proof"));
                return;
            }
            (true, Some(_)) => {
                self.report
                    .found(format!("line {number}: event {sequence} ({id}) is altered: it has a proof of its own"));
            }
            (true, None) => {}
        }
        let now = sequence.to_string();
        let columns = Some(event.columns).filter(|columns| columns.bytes().len() <= STRAY_BYTES_MAX);
        self.block(number, sequence, hash, Kept { id, now, columns });
    }

    fn record(&mut self, number: usize, record: AccessRecord) {
        let AccessRecord { columns, personal } = record;
        let id = columns.id.clone().unwrap_or_default();
        if let Some(column) = columns.missing() {
            self.report.found(format!("line {number}, record {id}: altered: its {column} is missing"));
        }
        for (place, disclosed) in &personal {
            let sealed = columns.ip.as_deref().filter(|_| place == "ip").ok_or("nothing is sealed there");
            let opened = sealed.map_err(str::to_owned).and_then(|sealed| fits(&address_place(&id), sealed, disclosed));
            if let Err(reason) = opened {
                self.report.found(format!("line {number}, record {id}: its readable {place} is altered: {reason}"));
            }
        }
        let sequence = self.seen + 1;
        self.seen = sequence;
        self.block(number, sequence, columns.hash(), Kept { id, now: sequence.to_string(), columns: None });
    }

    /// Keeps what was read until its hash comes.
    fn block(&mut self, number: usize, sequence: u64, hash: Hash, kept: Kept) {
        let id = &kept.id;
        if let Some((first, ..)) = self.block.get(&sequence) {
            self.report
                .found(format!("line {number}: event {sequence} ({id}) is there already, in line {first}: added"));
            return;
        }
        if self.block.len() as u64 >= TILE {
            self.report.found(format!(
                "line {number}: {TILE} events come before it without their hashes: cut, or event added"
            ));
            return;
        }
        self.block.insert(sequence, (number, hash, kept));
    }

    fn hashes(&mut self, number: usize, hashes: &Hashes) {
        let Some(to) = self.report.header.as_ref().filter(|header| header.complete).map(|header| header.to) else {
            self.report.found(format!("line {number} is added: events with proofs of their own need no hashes"));
            return;
        };
        let next = self.sealed.size() + 1;
        if hashes.first != next {
            self.report
                .found(format!("line {number} has hashes from {} on, where {next} follows: altered", hashes.first));
        }
        // Runs end at multiples of 256 and at the end, and nowhere else: of one history there is one bundle.
        let before = self.sealed.size();
        let due = (before / TILE + 1).saturating_mul(TILE).min(to).saturating_sub(before);
        let given = hashes.hashes.len() as u64;
        if given == 0 {
            self.report.found(format!("line {number} has no hashes: added"));
        } else if given != due {
            self.report.found(format!(
                "line {number} has hashes of {given} events, where those of {due} are due: altered, cut or split elsewhere"
            ));
        }
        for (sequence, Text(sealed)) in (next..).zip(&hashes.hashes) {
            self.sealed.push(*sealed, |_, _| {});
            match self.block.remove(&sequence) {
                Some((line, hash, event)) => {
                    self.report.events += 1;
                    self.here.push(hash, |_, _| {});
                    if hash != *sealed {
                        self.misfit(line, event);
                        self.vacate(sequence, *sealed);
                    }
                }
                None => {
                    self.here.push(*sealed, |_, _| {});
                    self.vacate(sequence, *sealed);
                }
            }
            self.look_at_older();
        }
        for (_, (line, _, event)) in std::mem::take(&mut self.block) {
            self.misfit(line, event);
        }
        self.seen = self.seen.max(self.sealed.size());
    }

    fn vacate(&mut self, sequence: u64, sealed: Hash) {
        if self.vacant.len() < VACANT_MAX {
            self.vacant.insert(sequence, sealed);
        } else {
            self.report.more += 1;
        }
    }

    fn misfit(&mut self, number: usize, event: Kept) {
        if self.stray.len() < STRAY_MAX {
            self.stray.push(Stray { number, event });
        } else {
            self.report.more += 1;
        }
    }

    /// Names what does not fit: moved, if it fits elsewhere; altered, if something else was there; else added.
    fn name_strays(&mut self) {
        let mut vacant = std::mem::take(&mut self.vacant);
        let mut rest = vec![];
        for Stray { number, event: Kept { id, now, mut columns } } in std::mem::take(&mut self.stray) {
            let was = vacant.iter().take(PLACES_MAX).find_map(|(sequence, sealed)| {
                let columns = columns.as_mut()?;
                columns.audit_sequence = columns.audit_sequence.as_ref().map(|_| sequence.to_string());
                (columns.hash() == *sealed).then_some(*sequence)
            });
            match was {
                Some(was) => {
                    vacant.remove(&was);
                    self.report
                        .found(format!("line {number}: event {now} ({id}) is moved: it was sealed as event {was}"));
                }
                None => rest.push((number, now, id)),
            }
        }
        for (number, now, id) in rest {
            let sequence: u64 = now.parse().unwrap_or_default();
            match vacant.remove(&sequence) {
                Some(_) => self.report.found(format!("line {number}: event {now} ({id}) is altered")),
                None => {
                    self.report.found(format!("line {number}: event {now} ({id}) is added: nothing was sealed there"))
                }
            }
        }
        for sequence in vacant.into_keys() {
            self.report.found(format!("event {sequence} is missing"));
        }
    }

    fn signed(&mut self, note: &str, keys: &[VerifierKey]) -> Result<(), String> {
        let Some(Header { organization, to, .. }) = &self.report.header else { return Ok(()) };
        let checkpoint = refuse_doubled(note, keys).and_then(|()| checkpoint_of(note, keys, organization));
        let checkpoint = checkpoint.map_err(|error| format!("line 2: the checkpoint does not count: {error}"))?;
        if checkpoint.size != *to {
            return Err(format!("the checkpoint covers {} events, the header says {to}: altered", checkpoint.size));
        }
        self.report.cosigned = self.quorum.of(note).map_err(|reason| format!("line 2: {reason}"))?;
        self.report.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn end(mut self) -> Report {
        let (Some(header), Some(checkpoint)) = (self.report.header.clone(), self.report.checkpoint.clone()) else {
            self.report.found("the bundle ends before its checkpoint: cut".into());
            return self.report;
        };
        if !self.ended {
            self.report.found(format!("the bundle ends after event {} without its last line: cut", self.seen));
        }
        if let Some((sequence, (line, ..))) = self.block.first_key_value() {
            self.report.found(format!("line {line}: no hashes follow event {sequence}: cut, or event added"));
        }
        if header.complete {
            self.end_of_all(&header, &checkpoint);
        }
        self.compare_with_older(&header, &checkpoint);
        self.report
    }

    fn end_of_all(&mut self, header: &Header, checkpoint: &Checkpoint) {
        if self.sealed.size() < header.to {
            let from = self.sealed.size() + 1;
            self.report.found(format!("the events from {from} to {} are missing: cut", header.to));
        }
        let (sealed, here) = (self.sealed.root() == checkpoint.root, self.here.root() == checkpoint.root);
        let fits = self.stray.is_empty() && self.vacant.is_empty();
        match (sealed, here) {
            (true, _) => self.name_strays(),
            (false, true) if !fits => {
                let places: Vec<String> = self.vacant.keys().map(ToString::to_string).collect();
                let places = places.join(", ");
                self.report.found(format!(
                    "the listed hashes of events {places} are altered; the events themselves are whole"
                ));
            }
            // Without all of them nothing adds up; what is missing was said.
            (false, _) if self.sealed.size() < header.to => self.name_strays(),
            (false, _) => {
                self.name_strays();
                let of = if header.from > 1 {
                    "what comes before, the events and the hashes"
                } else {
                    "the events and the hashes"
                };
                self.report
                    .found(format!("{of} do not add up to the signed root: the checkpoint is of another history"));
            }
        }
    }

    fn compare_with_older(&mut self, header: &Header, checkpoint: &Checkpoint) {
        let Some(older) = self.older.clone() else { return };
        let size = older.size;
        if older.tree() != checkpoint.tree() {
            self.report.found(format!("the older checkpoint is of {}, not of {}", older.origin, checkpoint.origin));
        } else if size > checkpoint.size {
            let gone = size - checkpoint.size;
            self.report.found(format!(
                "the older checkpoint covers {size} events, this one {}: the last {gone} are missing: cut",
                checkpoint.size
            ));
        } else if size == checkpoint.size && older.root == checkpoint.root {
        } else if !header.complete || size + 1 < header.from {
            self.report.found(format!(
                "nothing shows that the older checkpoint, of {size} events, is the beginning of this one: export all events after it, or before"
            ));
        } else if self.then.is_none_or(|(here, sealed)| here != older.root && sealed != older.root) {
            self.report.found(format!(
                "the first {size} events are not those that the older checkpoint covers: history was changed after that was signed"
            ));
        }
    }
}

/// A number from 1 on as it is written in columns: no zeros before, no sign.
fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| (1..=EVENTS_MAX).contains(number) && number.to_string() == text)
}

/// A column that every event has, and this one has not.
fn missing(columns: &Leaf, installation: bool) -> Option<&'static str> {
    let columns = [
        ("aggregateType", &columns.aggregate_type),
        ("aggregateId", &columns.aggregate_id),
        ("sequence", &columns.sequence),
        ("eventType", &columns.event_type),
        ("eventVersion", &columns.event_version),
        ("payload", &columns.payload),
        ("metadata", &columns.metadata),
        ("organizationId", &columns.organization_id),
        ("auditSequence", &columns.audit_sequence),
        ("eventId", &columns.event_id),
        ("commandId", &columns.command_id),
        ("actor", &columns.actor),
        ("correlationId", &columns.correlation_id),
        ("recordedAt", &columns.recorded_at),
    ];
    let places = ["organizationId", "auditSequence"];
    let due = |name: &str| !(installation && places.contains(&name));
    columns.into_iter().find(|(name, value)| value.is_none() && due(name)).map(|(name, _)| name)
}

/// Whether the key opens the sealed text at this place of the event, and to this datum.
fn opens(columns: &Leaf, place: &str, disclosed: &Disclosed) -> Result<(), String> {
    let text = |column: &Option<String>| column.clone().ok_or("the event is not whole");
    let (event, command) = (text(&columns.event_id)?, text(&columns.command_id)?);
    let payload: serde_json::Value;
    let (sealed, bound) = match place {
        "ip" => (columns.ip.as_deref(), format!("{command}/ip")),
        "userAgent" => (columns.user_agent.as_deref(), format!("{command}/user_agent")),
        place => {
            let field = place.strip_prefix("payload.").ok_or("there is no such place")?;
            payload = serde_json::from_str(&text(&columns.payload)?).map_err(|error| error.to_string())?;
            let own = payload.get(text(&columns.event_type)?);
            let sealed = own.and_then(|own| own.get(field)).and_then(|field| field.get("sealed"));
            (sealed.and_then(serde_json::Value::as_str), format!("{event}/{field}"))
        }
    };
    fits(&bound, sealed.ok_or("nothing is sealed there")?, disclosed)
}

/// Whether the key opens this text, which is sealed for one place, and to this datum.
fn fits(bound: &str, sealed: &str, disclosed: &Disclosed) -> Result<(), String> {
    match open_disclosed(&disclosed.key.0, bound, sealed) {
        Some(value) if value == disclosed.value => Ok(()),
        Some(_) => Err("what is sealed says something else".into()),
        None => Err("its key does not open what is sealed".into()),
    }
}
