//! An organization as it was: its log folded up to a point.
//!
//! The aggregates' own `apply` and the tallies' own effects make it, so there is no second opinion about what an event
//! means. Personal data stays sealed in it and is opened when somebody is answered, so what is kept in memory holds
//! nothing of a person that was erased since.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aggregates::ids::{EventId, InvitationId, OrganizationId};
use aggregates::{Event, Invitation, Organization, Place, Registered, Resource, State, StreamId};
use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::log::ledger::{Tally, apply_to_tally, tally_of};
use crate::log::{Bound, COLUMNS, Log, LogError, Position, Reader, StoredEvent, personal_place};

/// How many events are read at a time.
pub(super) const PAGE_EVENTS: i64 = 2_000;
/// How many folds are kept in memory, about, so that paging through members does not fold again; and how many bytes.
const KEPT_MAX: usize = 100;
const KEPT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What a member, an invitation or a project weighs, about.
const PART_BYTES: u64 = 512;

/// As of when.
#[derive(Debug, Clone)]
pub enum AsOf {
    /// After the event at this place in the log.
    Position(Position),
    /// After everything that was recorded at this time or before.
    Time(DateTime<Utc>),
    /// After the organization's event of this number.
    AuditSequence(u64),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The organization was not there yet, or it was gone.
    #[error("the organization was not there then")]
    NotThere,
    /// The position is of another time of this database.
    #[error("this position is of another time of this database")]
    PositionUnknown,
    /// The point is none that can be answered for.
    #[error("{0}")]
    Point(String),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A part of an organization as it was: a member, an invitation, whatever it shows each of.
#[derive(Debug, Clone)]
pub struct Part<A> {
    /// The number of the event that began it.
    pub begun: u64,
    /// As it was.
    pub state: A,
    /// The event that began it: what is personal of the part was sealed for that place.
    event: EventId,
}

/// An organization with what belongs to it, after a number of its events.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    /// The number of the last event.
    pub audit_sequence: u64,
    /// When that was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The organization.
    pub organization: Organization,
    /// What it used, and its maxima.
    pub tallies: BTreeMap<String, Tally>,
    /// What belongs to it and is not gone for good, by the type of the aggregate.
    parts: HashMap<&'static str, HashMap<StreamId, Part<State>>>,
}

/// An organization as it was.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which.
    pub id: OrganizationId,
    /// By the clock of this moment open invitations are expired or not.
    pub moment: DateTime<Utc>,
    /// What it was.
    pub fold: Arc<Fold>,
}

impl Fold {
    /// Folds one more event, as it is stored.
    pub(super) fn apply(&mut self, row: &StoredEvent, reader: &Reader) -> Result<(), LogError> {
        self.follow(row, reader.parse(row)?)
    }

    /// Folds one more event, which was parsed already.
    pub(super) fn follow(&mut self, row: &StoredEvent, event: Event) -> Result<(), LogError> {
        let corrupt = |reason: String| LogError::Corrupt(format!("{}: {reason}", row.event_id));
        let number = row.audit_sequence.unwrap_or_default().unsigned_abs();
        if number != self.audit_sequence + 1 {
            return Err(corrupt(format!("audit sequence {number} follows {}", self.audit_sequence)));
        }
        (self.audit_sequence, self.recorded_at) = (number, row.recorded_at);
        let id = || row.event_id.parse::<EventId>().map_err(|error| corrupt(error.to_string()));
        for effect in event.effects() {
            if let Some(name) = tally_of(&effect) {
                apply_to_tally(&effect, self.tallies.entry(name.to_owned()).or_default());
            }
        }
        let stream = Reader::stream(row)?;
        match (&stream, event) {
            (_, Event::Organization(event)) => self.organization.apply(event),
            // Then the organization is purged, and was nothing that could be shown.
            (_, Event::Pruned) => {}
            (stream, _) if stream.place() == Place::Outside => {
                return Err(corrupt(format!("{} in an organization", stream.aggregate_type())));
            }
            // Of some a snapshot says only how many there were.
            (stream, _) if stream.heading().is_none() => {}
            (stream, event) => {
                let first = id()?;
                let parts = self.parts.entry(stream.aggregate_type()).or_default();
                let new = || Part { begun: number, state: State::empty(stream), event: first };
                let part = parts.entry(stream.clone()).or_insert_with(new);
                part.state
                    .apply(event)
                    .map_err(|event| corrupt(format!("{} in another's", event.descriptor().name)))?;
                if part.state.is_gone() {
                    parts.remove(stream);
                }
            }
        }
        Ok(())
    }

    /// The part of a stream.
    pub(super) fn part(&self, stream: &StreamId) -> Option<&Part<State>> {
        self.parts.get(stream.aggregate_type())?.get(stream)
    }

    /// The parts of a kind, in no order.
    pub(super) fn of<A: Registered>(&self) -> impl Iterator<Item = (&A::Id, &Part<State>)> {
        let parts = self.parts.get(A::TYPE).into_iter().flatten();
        parts.filter_map(|(stream, part)| Some((A::id(stream)?, part)))
    }

    /// The parts of a kind in a window, in the order in which they began or against it, one more than wanted where there
    /// are more.
    pub fn page<A: Registered>(&self, window: Window) -> Vec<(A::Id, Part<Arc<A>>)> {
        let within = |begun: u64| {
            window.after.is_none_or(|after| begun > after) && window.before.is_none_or(|before| begun < before)
        };
        let mut found: Vec<_> = self.of::<A>().filter(|(_, part)| within(part.begun)).collect();
        found.sort_unstable_by_key(|(_, part)| part.begun);
        if !window.forward {
            found.reverse();
        }
        let part = |(id, part): (&A::Id, &Part<State>)| {
            let state = A::of(&part.state)?.clone();
            Some((id.clone(), Part { begun: part.begun, state, event: part.event.clone() }))
        };
        found.into_iter().take(window.limit + 1).filter_map(part).collect()
    }

    /// The parts of a kind that are wanted, in the order in which they began.
    pub(super) fn all<A: Registered>(&self, wanted: impl Fn(&A) -> bool) -> Vec<(A::Id, Part<Arc<A>>)> {
        let part = |(id, part): (&A::Id, &Part<State>)| {
            let state = A::of(&part.state).filter(|state| wanted(state))?.clone();
            Some((id.clone(), Part { begun: part.begun, state, event: part.event.clone() }))
        };
        let mut found: Vec<_> = self.of::<A>().filter_map(part).collect();
        found.sort_unstable_by_key(|(_, part)| part.begun);
        found
    }

    /// The parts that are shown under a heading.
    pub fn under(&self, heading: &str) -> impl Iterator<Item = (&StreamId, &Part<State>)> {
        self.parts.values().flatten().filter(move |(stream, _)| stream.heading() == Some(heading))
    }
}

/// Which parts of a kind are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Those that began after this place.
    pub after: Option<u64>,
    /// And before this one.
    pub before: Option<u64>,
    /// From the beginning, or from the end.
    pub forward: bool,
    /// How many.
    pub limit: usize,
}

/// Folds are kept by epoch, organization and number of events: what was is the same for ever.
type Kept = Cache<(i64, OrganizationId, u64), Arc<Fold>, Weight>;

#[derive(Clone)]
struct Weight;

impl Weighter<(i64, OrganizationId, u64), Arc<Fold>> for Weight {
    fn weight(&self, _: &(i64, OrganizationId, u64), fold: &Arc<Fold>) -> u64 {
        let parts = || fold.parts.values().flat_map(HashMap::values);
        let documents: usize = parts().map(|part| part.state.document_bytes()).sum();
        let documents = documents + fold.organization.document_bytes();
        documents as u64 + PART_BYTES * (1 + parts().count() as u64)
    }
}

/// Folds that were answered lately.
pub struct Folds(Kept);

impl Default for Folds {
    fn default() -> Self {
        Self(Cache::with_weighter(KEPT_MAX, KEPT_BYTES_MAX, Weight))
    }
}

impl Folds {
    /// The organization as it was.
    pub async fn snapshot(&self, log: &Log, id: &OrganizationId, as_of: &AsOf) -> Result<Snapshot, NoAnswer> {
        let (sequence, moment) = sequence(log, id, as_of).await?;
        let key = (log.epoch(), id.clone(), sequence);
        let fold = match self.0.get(&key) {
            Some(fold) => fold,
            None => {
                let fold = Arc::new(fold(log, id, sequence).await?);
                self.0.insert(key, fold.clone());
                fold
            }
        };
        if !fold.organization.exists || fold.organization.purged {
            return Err(NoAnswer::NotThere);
        }
        Ok(Snapshot { id: id.clone(), moment: moment.unwrap_or(fold.recorded_at), fold })
    }
}

/// The number of the last event up to a point, and the moment where that is another than the event's.
pub(super) async fn sequence(
    log: &Log,
    id: &OrganizationId,
    as_of: &AsOf,
) -> Result<(u64, Option<DateTime<Utc>>), NoAnswer> {
    let partition = log.partition_of(id.as_ref());
    let (sequence, moment) = match as_of {
        AsOf::AuditSequence(sequence) => {
            let newest = log.newest_sequence(id).await?.unsigned_abs();
            if *sequence > newest {
                let message =
                    format!("auditSequence is {sequence}, and the newest event of the organization is {newest}");
                return Err(NoAnswer::Point(message));
            }
            (sequence.cast_signed(), None)
        }
        AsOf::Position(position) => {
            if position.epoch != log.epoch() || position.offsets.keys().any(|number| *number >= log.partitions()) {
                return Err(NoAnswer::PositionUnknown);
            }
            let elsewhere =
                "this position is of another part of the log than the organization: give one that came with it";
            let offset = *position.offsets.get(&partition).ok_or_else(|| NoAnswer::Point(elsewhere.to_owned()))?;
            let head = log.heads_now(&[partition]).await?.get(&partition).copied().unwrap_or_default();
            if offset > head {
                return Err(NoAnswer::Point("this position is ahead of the log: nothing is there yet".to_owned()));
            }
            (log.sequence_within(id, Bound::Offset(offset)).await?, None)
        }
        AsOf::Time(time) => {
            if let Some(now) = log.settle(partition, *time).await? {
                return Err(NoAnswer::Point(format!(
                    "{} has not come yet: it is {}",
                    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
                    now.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
                )));
            }
            (log.sequence_within(id, Bound::UpTo(*time)).await?, Some(*time))
        }
    };
    if sequence < 1 {
        return Err(NoAnswer::NotThere);
    }
    Ok((sequence.unsigned_abs(), moment))
}

async fn fold(log: &Log, id: &OrganizationId, until: u64) -> Result<Fold, LogError> {
    let mut fold = Fold::default();
    while fold.audit_sequence < until {
        for row in &next_events(log, id, fold.audit_sequence, until).await? {
            fold.apply(row, log.reader())?;
        }
    }
    Ok(fold)
}

/// The next events of an organization after one and up to another, a page of them; never none.
pub(super) async fn next_events(
    log: &Log,
    id: &OrganizationId,
    after: u64,
    until: u64,
) -> Result<Vec<StoredEvent>, LogError> {
    let statement = format!(
        "SELECT {COLUMNS} FROM events WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3
         ORDER BY audit_sequence LIMIT {PAGE_EVENTS}"
    );
    let query = sqlx::query_as(&statement).bind(id.as_ref()).bind(after.cast_signed()).bind(until.cast_signed());
    let rows: Vec<StoredEvent> = query.fetch_all(log.pool()).await?;
    match rows.is_empty() {
        true => Err(LogError::Corrupt(format!("{id} has no event after {after}"))),
        false => Ok(rows),
    }
}

/// The addresses of these invitations, as far as they can be read now.
pub async fn emails(log: &Log, invitations: &mut [(InvitationId, Part<Arc<Invitation>>)]) -> Result<(), LogError> {
    let people: Vec<String> =
        invitations.iter().filter_map(|(_, part)| Some(part.state.email.as_ref()?.of().to_owned())).collect();
    let keys = log.keys().find(people.iter().map(String::as_str)).await?;
    for (_, part) in invitations {
        if let Some(email) = &mut Arc::make_mut(&mut part.state).email {
            keys.open_field(&personal_place(&part.event, "email"), email);
        }
    }
    Ok(())
}
