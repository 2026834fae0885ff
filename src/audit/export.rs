//! Exports an organization's audit trail, block by block: as a bundle that anybody can verify, for spreadsheets, or as
//! OCSF for systems that watch.
//!
//! Only sealed events are exported. The same request gives the same lines again (but for what was erased
//! meanwhile), so a client that was cut off asks for what follows its last event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregates::ids::OrganizationId;
use aggregates::{Organization, PRUNED, Recorded};
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, PgExecutor, Postgres, QueryBuilder};

use super::access::{self, Record};
use super::bundle::{AccessRecord, Disclosed, Event, FORMAT, Hashes, Header, Line, Signed, Text};
use super::leaf::Leaf;
use super::merkle::{Hash, complete_subtrees, inclusion_ranges};
use super::note::without_doubled;
use super::proofs::{Head, NoProof, hashes, head};
use super::seal::TILE;
use super::trail::{Entry, Trail, select};
use super::{ocsf, tables};
use crate::log::access::{Numbered, dropped, sealed};
use crate::log::{AuditFilter, Log, LogError, Position, StoredEvent, push_filter};

/// How long an export waits for its newest events to be sealed, and how often it looks.
const SEALED_WAIT: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many events are looked at by one statement for those that are wanted.
const LOOKED_AT: u64 = 10_000;
/// How many events with a proof each are read at once.
const SINGLE_EVENTS: u64 = 64;

/// As what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A bundle: lines of JSON with proofs.
    #[default]
    Ndjson,
    /// A table for people.
    Csv,
    /// Lines of JSON in the Open Cybersecurity Schema Framework.
    Ocsf,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ndjson, Self::Csv, Self::Ocsf];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Ocsf => "ocsf",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson | Self::Ocsf => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// As what.
    pub format: Format,
    /// Which events; all, if it names nothing.
    pub filter: AuditFilter,
    /// Only events after this audit sequence.
    pub after: u64,
    /// Only events up to this one, and as they are in the tree of that size; up to the newest that is sealed, without.
    pub to: Option<u64>,
    /// Whether witnesses cosign heads: it waits a moment for them.
    pub witnessed: bool,
    /// Without the beginning, after this event of an export that was cut off: the last one whose hashes were received.
    pub resume_after: Option<u64>,
}

/// An export on its way.
pub struct Export {
    log: Arc<Log>,
    trail: Trail,
    format: Format,
    filter: AuditFilter,
    from: u64,
    to: u64,
    /// The audit sequence up to which it is done; `None` when it has ended.
    done: Option<u64>,
    failure: Option<String>,
    /// The lines that come first.
    beginning: Option<String>,
}

impl Export {
    /// Begins one; `None` while nothing is sealed.
    pub async fn begin(log: &Arc<Log>, trail: &Trail, mut request: Request) -> Result<Option<Self>, NoProof> {
        let new = request.resume_after.is_none();
        if new {
            wait_until_sealed(log.pool(), trail).await?;
        }
        let newest = if new && request.witnessed { witnessed(log.pool(), trail).await? } else { None };
        let newest = match newest {
            Some(newest) => Some(newest),
            None => head(log.pool(), trail.as_ref()).await?,
        };
        let Some(head) = newest else { return Ok(None) };
        match trail {
            Trail::Organization(organization) => refuse_pruned(log, organization).await?,
            // There would have to be a proof of each event's number, which is no part of the event.
            Trail::Installation if !request.filter.is_empty() => {
                return Err(NoProof::OutOfRange("the installation's trail is exported as a whole".into()));
            }
            Trail::Access if !request.filter.is_empty() || request.format != Format::Ndjson => {
                return Err(NoProof::OutOfRange("the access trail is exported as a bundle, and as a whole".into()));
            }
            // What was dropped with age is not there; its hashes are.
            Trail::Access => {
                request.after = request.after.max(dropped(log.pool(), log.keys().chain()).await?.0.unsigned_abs())
            }
            Trail::Installation => {}
        }
        let to = request.to.unwrap_or(head.size);
        if to > head.size || (new && to != head.size) {
            return Err(NoProof::OutOfRange(format!(
                "there is a checkpoint of {} events; of {to} there is none",
                head.size
            )));
        }
        let had = request.resume_after.unwrap_or(request.after);
        if request.after > to || had > to || had < request.after {
            return Err(NoProof::OutOfRange(format!("of {to} events none follow that one")));
        }
        let complete = request.filter.is_empty();
        let mut export = Self {
            log: log.clone(),
            trail: trail.clone(),
            format: request.format,
            filter: request.filter,
            from: request.after + 1,
            to,
            done: Some(had),
            failure: head.failure.or_else(|| log.alarms().told(trail.as_ref(), log.partition_of(trail.as_ref()))),
            beginning: None,
        };
        if new {
            export.beginning = Some(match export.format {
                Format::Ndjson => export.bundle_beginning(request.after, complete, head.note).await?,
                Format::Csv => tables::csv_head(),
                Format::Ocsf => String::new(),
            });
        }
        Ok(Some(export))
    }

    async fn bundle_beginning(&self, after: u64, complete: bool, note: String) -> Result<String, LogError> {
        // Where each event has a proof of its own, what comes before proves nothing.
        let after = if complete { after } else { 0 };
        let ranges: Vec<_> =
            complete_subtrees((0, after)).into_iter().map(|(height, at)| (at, at + (1 << height))).collect();
        let before = hashes(self.log.pool(), self.trail.as_ref(), &ranges).await?;
        let header = Header {
            format: FORMAT.to_owned(),
            organization: self.trail.to_string(),
            from: self.from,
            to: self.to,
            complete,
            before: before.into_iter().map(Text).collect(),
        };
        let signed = Signed { note: without_doubled(&note) };
        Ok(line(&Line::Header(header))? + &line(&Line::Checkpoint(signed))?)
    }

    /// Whose.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Why later events are not sealed, and so not in it.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Up to which audit sequence it goes.
    pub fn to(&self) -> u64 {
        self.to
    }

    /// Up to which audit sequence it is done.
    pub fn done(&self) -> u64 {
        self.done.unwrap_or(self.to)
    }

    /// The next lines; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<String>, LogError> {
        if let Some(beginning) = self.beginning.take() {
            return Ok(Some(beginning));
        }
        let Some(done) = self.done else { return Ok(None) };
        if done >= self.to {
            self.done = None;
            return Ok(Some(if self.format == Format::Ndjson { line(&Line::End {})? } else { String::new() }));
        }
        match (self.format, self.filter.is_empty()) {
            (Format::Ndjson, true) => self.block(done).await,
            (_, _) => self.some(done).await,
        }
        .map(Some)
    }

    /// The rest of the tile after `done`, whole, with its hashes.
    async fn block(&mut self, done: u64) -> Result<String, LogError> {
        let end = ((done / TILE + 1) * TILE).min(self.to);
        let leaves: Vec<(u64, u64)> = (done..end).map(|index| (index, index + 1)).collect();
        let sealed = hashes(self.log.pool(), self.trail.as_ref(), &leaves).await?;
        let mut text = match self.trail {
            Trail::Access => self.records(done, end).await?,
            Trail::Organization(_) | Trail::Installation => {
                let rows = self.rows(done, end, TILE).await?;
                self.events(rows, |_| None).await?
            }
        };
        let sealed = sealed.into_iter().map(Text).collect();
        text += &line(&Line::Hashes(Hashes { first: done + 1, hashes: sealed }))?;
        self.done = Some(end);
        Ok(text)
    }

    /// Rows of the access trail.
    async fn records(&self, after: u64, to: u64) -> Result<String, LogError> {
        let rows = sealed(self.log.pool(), (after.cast_signed(), to.cast_signed()), TILE.cast_signed()).await?;
        if rows.len() as u64 != to - after {
            return Err(LogError::Corrupt(format!(
                "of the records {} to {to} of the access trail some are gone",
                after + 1
            )));
        }
        let addresses = access::disclose(&self.log, &rows).await?;
        let mut text = String::new();
        for (Numbered { row, .. }, address) in rows.iter().zip(addresses) {
            let disclosed = address.map(|(value, key)| ("ip".to_owned(), Disclosed { value, key: Text(key) }));
            let (columns, personal) = (Record::of(row), disclosed.into_iter().collect());
            text += &line(&Line::Record(Box::new(AccessRecord { columns, personal })))?;
        }
        Ok(text)
    }

    /// Some events after `done`, of those that are wanted.
    async fn some(&mut self, done: u64) -> Result<String, LogError> {
        let limit = if self.format == Format::Ndjson { SINGLE_EVENTS } else { TILE };
        let end = self.to.min(done + LOOKED_AT);
        let rows = self.rows(done, end, limit).await?;
        let last = rows.last().map(|row| row.number.unsigned_abs());
        self.done = Some(last.filter(|_| rows.len() as u64 == limit).unwrap_or(end));
        if self.format != Format::Ndjson {
            // A table shows the number in the trail, whether the event itself has it or not.
            let numbered = |Entry { number, event, .. }| StoredEvent { audit_sequence: Some(number), ..event };
            let events: Vec<StoredEvent> = rows.into_iter().map(numbered).collect();
            let read = self.log.reader().read_each(&events, self.log.keys()).await?;
            let table = |(row, read): (&StoredEvent, &Result<Recorded, LogError>)| match self.format {
                Format::Csv => tables::csv(row, read.as_ref().ok()),
                Format::Ocsf | Format::Ndjson => ocsf::line(row, read.as_ref().ok()),
            };
            return Ok(events.iter().zip(&read).map(table).collect());
        }
        let mut proofs: Vec<Vec<Hash>> = vec![];
        for row in &rows {
            let index = row.number.unsigned_abs().wrapping_sub(1);
            let ranges = inclusion_ranges(index, self.to).unwrap_or_default();
            proofs.push(hashes(self.log.pool(), self.trail.as_ref(), &ranges).await?);
        }
        self.events(rows, |number| proofs.get(number).cloned()).await
    }

    async fn events(&self, rows: Vec<Entry>, proof: impl Fn(usize) -> Option<Vec<Hash>>) -> Result<String, LogError> {
        let columns: Vec<Leaf> = rows.iter().map(Entry::leaf).collect();
        let events: Vec<StoredEvent> = rows.into_iter().map(|row| row.event).collect();
        let personal = self.log.disclose(&events).await?;
        let mut text = String::new();
        for (number, (columns, personal)) in columns.into_iter().zip(personal).enumerate() {
            let disclosed =
                |datum: crate::log::Datum| (datum.place, Disclosed { value: datum.value, key: Text(datum.key) });
            text += &line(&Line::Event(Box::new(Event {
                columns,
                personal: personal.into_iter().map(disclosed).collect(),
                proof: proof(number).map(|path| path.into_iter().map(Text).collect()),
            })))?;
        }
        Ok(text)
    }

    async fn rows(&self, after: u64, to: u64, limit: u64) -> Result<Vec<Entry>, LogError> {
        let trail = self.trail.as_ref();
        let mut query = QueryBuilder::<Postgres>::with_arguments(select(trail), trail_argument(trail)?);
        query.push(" AND number > ").push_bind(after.cast_signed());
        query.push(" AND number <= ").push_bind(to.cast_signed());
        push_filter(&mut query, &self.filter);
        query.push(" ORDER BY number LIMIT ").push_bind(limit.cast_signed());
        let rows: Vec<Entry> = query.build_query_as().fetch_all(self.log.pool()).await?;
        match rows.iter().any(|row| row.event.event_type == PRUNED.name) {
            // What comes out is verified, and would look like a forgery.
            true => Err(LogError::Corrupt(format!("{} was pruned while it was exported", self.trail))),
            false => Ok(rows),
        }
    }
}

/// Of a purged organization whose trail was kept for its time there is nothing left to export.
async fn refuse_pruned(log: &Log, organization: &OrganizationId) -> Result<(), NoProof> {
    match log.current(&[organization.clone().into()]).await?.get::<Organization>(organization).state.pruned {
        true => Err(NoProof::pruned(organization.as_ref())),
        false => Ok(()),
    }
}

/// Waits a moment for what was appended last; what is not sealed by then comes with the next export.
async fn wait_until_sealed(pool: impl PgExecutor<'_> + Copy, trail: &Trail) -> Result<(), LogError> {
    let statement = match trail {
        Trail::Organization(_) => {
            "SELECT coalesce((SELECT max(audit_sequence) FROM events WHERE organization_id = $1), 0)
                 <= coalesce((SELECT size FROM sealed_trees WHERE organization_id = $1), 0)"
        }
        Trail::Access => {
            "SELECT NOT EXISTS (SELECT FROM access_unsealed) AND coalesce((SELECT max(number) FROM access_seals), 0)
                 <= coalesce((SELECT size FROM sealed_trees WHERE organization_id = $1), 0)"
        }
        Trail::Installation => {
            r#"SELECT NOT EXISTS (SELECT FROM seals s WHERE (
                   SELECT "offset" FROM events WHERE partition = s.partition ORDER BY "offset" DESC LIMIT 1
               ) > s."offset") AND coalesce((SELECT max(number) FROM installation_trail), 0)
                 <= coalesce((SELECT size FROM sealed_trees WHERE organization_id = $1), 0)"#
        }
    };
    let until = Instant::now() + SEALED_WAIT;
    let sealed = || sqlx::query_scalar::<_, bool>(statement).bind(trail.as_ref()).fetch_one(pool);
    while !sealed().await? && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The first head that covers what is sealed by now and that witnesses have cosigned, if there is one within a moment. One that
/// is no longer the newest will do: of a busy organization each is soon followed by another.
async fn witnessed(pool: impl PgExecutor<'_> + Copy, trail: &Trail) -> Result<Option<Head>, LogError> {
    let Some(sealed) = head(pool, trail.as_ref()).await?.map(|head| head.size) else { return Ok(None) };
    let until = Instant::now() + SEALED_WAIT;
    loop {
        let Some(found) = head(pool, trail.as_ref()).await? else { return Ok(None) };
        let size = found.witnessed_size().filter(|size| (sealed..=found.size).contains(size));
        if let (Some(size), Some(note)) = (size, found.witnessed.clone()) {
            return Ok(Some(Head { size, note, ..found }));
        }
        if Instant::now() > until {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn trail_argument(trail: &str) -> Result<PgArguments, LogError> {
    let mut arguments = PgArguments::default();
    arguments.add(trail).map_err(sqlx::Error::Encode)?;
    Ok(arguments)
}

/// The audit sequence up to which this position of the log lies, in its organization.
pub async fn sequence_at(log: &Log, organization: &OrganizationId, position: &Position) -> Result<u64, NoProof> {
    if position.epoch != log.epoch() {
        return Err(NoProof::OutOfRange("this position is from before the database was restored".into()));
    }
    let partition = log.partition_of(organization.as_ref());
    let offset = position.offsets.get(&partition);
    let offset = offset.ok_or_else(|| NoProof::OutOfRange(format!("this position says nothing of {organization}")))?;
    let sequence = sqlx::query_scalar!(
        r#"SELECT audit_sequence FROM events WHERE organization_id = $1 AND partition = $2 AND "offset" <= $3
           ORDER BY audit_sequence DESC LIMIT 1"#,
        organization.as_ref(),
        partition,
        offset
    )
    .fetch_optional(log.pool())
    .await?;
    Ok(sequence.flatten().unwrap_or_default().unsigned_abs())
}

fn line(line: &Line) -> Result<String, LogError> {
    line.text().map_err(|error| LogError::Corrupt(error.to_string()))
}
