//! Applying a page of the log to the tables of a projection.
//!
//! An event that cannot be applied parks its stream: what comes of that stream is left out from there on, and
//! everything else goes on. To find the one among many that is to blame, a batch is halved until it stands alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aggregates::Recorded;
use sqlx::{Connection, PgConnection};

use crate::source::{Entry, Failure, Range, Source};
use crate::{BATCH_EVENTS_MAX, Projection};

/// Streams that are left out of a projection, and from which offset on.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    /// By stream: its partition, and the first offset that is left out.
    known: HashMap<String, (i16, i64)>,
    /// Those that were parked just now.
    pub fresh: Vec<Parked>,
}

/// What applying events may leave beside the tables that it fills. That is kept nowhere else, so it comes of each event
/// once: not of a copy of the tables, and not of what is applied a second time.
#[derive(Debug)]
pub(crate) struct Outbox<'a> {
    open: Open<'a>,
    noted: AtomicBool,
}

#[derive(Debug)]
enum Open<'a> {
    Never,
    Always,
    LeftOut(&'a Parking),
}

impl<'a> Outbox<'a> {
    /// For tables that are a copy.
    pub const fn closed() -> Self {
        Self { open: Open::Never, noted: AtomicBool::new(false) }
    }

    /// For events that are applied for the first time.
    pub const fn open() -> Self {
        Self { open: Open::Always, noted: AtomicBool::new(false) }
    }

    /// For events that are applied again, where some were left out until now.
    pub const fn of_left_out(parked: &'a Parking) -> Self {
        Self { open: Open::LeftOut(parked), noted: AtomicBool::new(false) }
    }

    /// Whether nothing is left beside the tables, whatever the events are.
    pub fn is_closed(&self) -> bool {
        matches!(self.open, Open::Never)
    }

    /// Whether events are applied again, where some were left out until now.
    pub fn is_retry(&self) -> bool {
        matches!(self.open, Open::LeftOut(_))
    }

    /// Whether what comes of this event is to be left.
    pub fn takes(&self, event: &Recorded) -> bool {
        match self.open {
            Open::Never => false,
            Open::Always => true,
            Open::LeftOut(parked) => parked.leaves_out(event.stream.id(), event.offset),
        }
    }

    /// Something was left.
    pub fn note(&self) {
        self.noted.store(true, Ordering::Relaxed);
    }

    /// Whether something was left.
    pub fn is_noted(&self) -> bool {
        self.noted.load(Ordering::Relaxed)
    }
}

/// A stream that is left out, from the first event on that could not be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parked {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub owner: String,
    pub partition: i16,
    pub offset: i64,
    pub failure: String,
}

impl Parking {
    pub fn new(known: impl IntoIterator<Item = (String, (i16, i64))>) -> Self {
        Self { known: known.into_iter().collect(), fresh: vec![] }
    }

    /// How many streams are parked.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    fn holds(&self, entry: &Entry) -> bool {
        self.leaves_out(entry.aggregate_id(), entry.offset())
    }

    fn leaves_out(&self, stream: &str, offset: i64) -> bool {
        self.known.get(stream).is_some_and(|(_, from)| offset >= *from)
    }

    fn park(&mut self, entry: &Entry, failure: String) {
        self.known.insert(entry.aggregate_id().to_owned(), (entry.partition(), entry.offset()));
        self.fresh.push(Parked {
            aggregate_type: entry.aggregate_type().to_owned(),
            aggregate_id: entry.aggregate_id().to_owned(),
            owner: entry.owner().to_owned(),
            partition: entry.partition(),
            offset: entry.offset(),
            failure,
        });
    }

    /// Where the first stream is parked in a partition.
    pub fn first_in(&self, partition: i16) -> Option<i64> {
        self.known.values().filter(|(of, _)| *of == partition).map(|(_, offset)| *offset).min()
    }
}

/// Whether an error says that the events themselves are to blame. Then trying again is of no use, while a lost
/// connection, a time-out, a full disk or a missing table says nothing about them.
pub(crate) fn blames_events(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            // Classes of SQLSTATE: cardinality, data exceptions, constraint violations.
            error.code().is_some_and(|code| ["21", "22", "23"].contains(&code.get(..2).unwrap_or_default()))
        }
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}

/// Applies what concerns the projection of `entries` at once; fails if any of it cannot be applied.
pub(crate) async fn apply_together<'a>(
    connection: &mut PgConnection,
    projection: Projection,
    entries: impl Iterator<Item = &'a Entry>,
    parking: &mut Parking,
    outbox: &Outbox<'_>,
) -> Result<(), sqlx::Error> {
    let events = events(&readable(projection, entries, parking));
    if events.is_empty() {
        return Ok(());
    }
    projection.apply(connection, &events, outbox).await
}

/// Applies what concerns the projection of `entries`, and parks the streams of those that cannot be applied.
pub(crate) async fn apply_apart<'a>(
    connection: &mut PgConnection,
    projection: Projection,
    entries: impl Iterator<Item = &'a Entry>,
    parking: &mut Parking,
    outbox: &Outbox<'_>,
) -> Result<(), sqlx::Error> {
    let mut parts = vec![readable(projection, entries, parking)];
    while let Some(mut part) = parts.pop() {
        part.retain(|entry| !parking.holds(entry));
        if part.is_empty() {
            continue;
        }
        let mut attempt = connection.begin().await?;
        match projection.apply(&mut attempt, &events(&part), outbox).await {
            Ok(()) => attempt.commit().await?,
            Err(error) if blames_events(&error) => {
                attempt.rollback().await?;
                match part.as_slice() {
                    [entry] => parking.park(entry, error.to_string()),
                    _ => {
                        let later = part.split_off(part.len() / 2);
                        parts.extend([later, part]);
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What the projection reads of `entries`, without parked streams; what is unreadable parks its stream here.
fn readable<'a>(
    projection: Projection,
    entries: impl Iterator<Item = &'a Entry>,
    parking: &mut Parking,
) -> Vec<&'a Entry> {
    let mut kept = vec![];
    for entry in entries.filter(|entry| projection.reads(entry.aggregate_type())) {
        match entry {
            entry if parking.holds(entry) => {}
            Entry::Event(_) => kept.push(entry),
            Entry::Unreadable(place) => parking.park(entry, place.failure.clone()),
        }
    }
    kept
}

fn events<'a>(entries: &[&'a Entry]) -> Vec<&'a Recorded> {
    let event = |entry: &&'a Entry| match entry {
        Entry::Event(event) => Some(&**event),
        Entry::Unreadable(_) => None,
    };
    entries.iter().filter_map(event).collect()
}

/// Checks that `entries` follow `cursor` without a gap, and says where they end.
pub(crate) fn cursor_after(partition: i16, cursor: i64, entries: &[Entry]) -> Result<i64, Failure> {
    entries.iter().try_fold(cursor, |cursor, entry| match entry.offset() {
        offset if offset == cursor + 1 && entry.partition() == partition => Ok(offset),
        found => Err(Failure::Gap { partition, cursor, found }),
    })
}

/// Applies a whole range to a copy of the tables of a projection, which `connection` finds, and says how far that came:
/// less than asked for where the log ends before.
pub(crate) async fn fold<S: Source>(
    connection: &mut PgConnection,
    source: &S,
    projection: Projection,
    mut range: Range,
    parking: &mut Parking,
    done: &AtomicU64,
) -> Result<i64, Failure> {
    while range.after < range.until {
        let page = source.read(connection, &[range], BATCH_EVENTS_MAX).await?.pop().unwrap_or_default();
        if page.is_empty() {
            break;
        }
        range.after = cursor_after(range.partition, range.after, &page)?;
        apply_apart(connection, projection, page.iter(), parking, &Outbox::closed()).await?;
        done.fetch_add(page.len() as u64, Ordering::Relaxed);
    }
    Ok(range.after)
}
