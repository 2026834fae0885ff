//! The audit trail, a page at a time.
//!
//! Each filter alone finds its events by an index: subjects by their streams, times by halving, since they rise with
//! the audit sequence, and actions, actors and correlations by the projection `audit`, and where that has not come to
//! yet, by looking. Of what an index proposes every event is held against the whole filter. That looks at a bounded
//! number of events, so a page may be short and say from where to go on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aggregates::ids::{EventId, OrganizationId};
use aggregates::{PRUNED, Recorded, StreamId};
use chrono::{DateTime, Utc};
use projections::{Projection, Term, actor_id};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::settle::Bound;
use super::stored::{COLUMNS, StoredEvent};
use super::{Log, LogError, scope};

/// How many events one page looks at, step by step. The first step is more than the largest page, so that a filter
/// that an index answers takes one.
const STEPS: [usize; 4] = [104, 512, 1_384, 3_000];
/// All steps together.
const SCANNED_MAX: usize = 5_000;
/// How many entries of an index one step may look at, over all values that the filter names.
const ENTRIES_MAX: usize = 30_000;
/// So many values of a filter cost no more than one.
const VALUES_FREE: usize = 10;

/// Which events of the audit trail are wanted; empty lists and `None` want all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Stored names of events.
    pub event_types: Vec<String>,
    /// Actors, by the id behind them (`usr_…`, or `system`).
    pub actors: Vec<String>,
    /// Ids of streams.
    pub subjects: Vec<String>,
    /// Recorded at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Recorded before this time.
    pub until: Option<DateTime<Utc>>,
    /// What belongs together.
    pub correlation: Option<Uuid>,
}

/// From which end a page is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The oldest ones after the cursor.
    First,
    /// The newest ones before the cursor.
    Last,
}

impl Direction {
    fn order(self) -> &'static str {
        match self {
            Self::First => "ASC",
            Self::Last => "DESC",
        }
    }
}

/// A page that is wanted of the audit trail.
#[derive(Debug, Clone)]
pub struct AuditPage {
    /// Of one organization, or of all and of users too (for operators).
    pub organization: Option<OrganizationId>,
    /// Which events.
    pub filter: AuditFilter,
    /// From which end.
    pub direction: Direction,
    /// Only after this event's place.
    pub after: Option<AuditCursor>,
    /// Only before this event's place.
    pub before: Option<AuditCursor>,
    /// How many at most.
    pub limit: usize,
}

/// Everything that happened in an organization, from one end of what lies between two audit sequences; one event more
/// than the page.
#[derive(Debug, Clone)]
pub struct EventsOf {
    direction: Direction,
    after: i64,
    before: i64,
    limit: i64,
}

impl EventsOf {
    /// For this page, if it is one of everything in one organization.
    pub fn page(page: &AuditPage) -> Option<Self> {
        let place = |cursor: &Option<AuditCursor>| match cursor {
            Some(AuditCursor::Sequence(sequence)) => Some(*sequence),
            Some(AuditCursor::Time(..)) | None => None,
        };
        (page.organization.is_some() && page.filter.is_empty()).then(|| Self {
            direction: page.direction,
            after: place(&page.after).unwrap_or(0),
            before: place(&page.before).unwrap_or(i64::MAX),
            limit: i64::try_from(page.limit).unwrap_or(i64::MAX).saturating_add(1),
        })
    }

    /// Adds `SELECT …` of the organization `wanted.id`.
    pub fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        let Self { direction, after, before, limit } = self;
        query.push(format!("SELECT {COLUMNS} FROM events WHERE organization_id = wanted.id AND audit_sequence > "));
        query.push_bind(*after).push(" AND audit_sequence < ").push_bind(*before);
        query.push(format!(" ORDER BY audit_sequence {} LIMIT ", direction.order())).push_bind(*limit);
    }
}

/// The place of an event in an audit trail: its audit sequence within an organization, time and id over all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditCursor {
    /// Within an organization.
    Sequence(i64),
    /// Over all.
    Time(DateTime<Utc>, EventId),
}

/// A page of the audit trail.
#[derive(Debug)]
pub struct AuditSlice {
    /// The events, in ascending order.
    pub events: Vec<Recorded>,
    /// Up to where it was looked, in the page's direction, if there may be more.
    pub more: Option<AuditCursor>,
}

/// What a filter has to know of an event.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Candidate {
    aggregate_id: String,
    event_type: String,
    partition: i16,
    offset: i64,
    organization_id: Option<String>,
    audit_sequence: Option<i64>,
    event_id: String,
    actor: String,
    correlation_id: Uuid,
    recorded_at: DateTime<Utc>,
}

const CANDIDATE: &str = r#"aggregate_id, event_type, partition, "offset", organization_id, audit_sequence, event_id, actor,
    correlation_id, recorded_at"#;

impl AuditFilter {
    /// Whether it wants all.
    pub fn is_empty(&self) -> bool {
        let Self { event_types, actors, subjects, since, until, correlation } = self;
        [event_types, actors, subjects].iter().all(|list| list.is_empty())
            && since.is_none()
            && until.is_none()
            && correlation.is_none()
    }

    fn matches(&self, event: &Candidate) -> bool {
        let among = |wanted: &[String], value: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == value);
        event.event_type != PRUNED.name
            && among(&self.event_types, &event.event_type)
            && among(&self.actors, actor_id(&event.actor))
            && among(&self.subjects, &event.aggregate_id)
            && self.since.is_none_or(|since| event.recorded_at >= since)
            && self.until.is_none_or(|until| event.recorded_at < until)
            && self.correlation.is_none_or(|correlation| event.correlation_id == correlation)
    }

    /// The streams of these subjects, each once; what is no id of a stream has none.
    fn streams(&self) -> Vec<StreamId> {
        let subjects: BTreeSet<&String> = self.subjects.iter().collect();
        subjects.into_iter().filter_map(|id| StreamId::from_id(id)).collect()
    }

    /// By which terms its events are found within an organization.
    fn terms(&self, organization: &str) -> Vec<i64> {
        if let Some(correlation) = &self.correlation {
            vec![Term::Correlation(correlation.as_bytes()).hash()]
        } else if !self.actors.is_empty() {
            self.actors.iter().map(|actor| Term::Actor { organization, actor }.hash()).collect()
        } else {
            let types = self.event_types.iter();
            types.map(|event_type| Term::Action { organization, event_type }.hash()).collect()
        }
    }
}

/// By what the events of a stretch of an organization's trail are proposed. Both ends are outside of it.
#[derive(Debug)]
enum Stretch {
    /// By audit sequence: all of them.
    All(i64, i64),
    /// By audit sequence: those of these streams.
    Streams(Vec<StreamId>, i64, i64),
    /// By offset: those of these terms.
    Terms(Vec<i64>, i64, i64),
}

impl Stretch {
    fn ends(&mut self) -> (&mut i64, &mut i64) {
        match self {
            Self::All(after, before) | Self::Streams(_, after, before) | Self::Terms(_, after, before) => {
                (after, before)
            }
        }
    }

    /// For how many values an index is asked.
    fn values(&self) -> usize {
        match self {
            Self::All(..) => 1,
            Self::Streams(streams, ..) => streams.len(),
            Self::Terms(terms, ..) => terms.len(),
        }
    }

    /// Leaves out what was looked at up to `event`.
    fn pass(&mut self, event: &Candidate, direction: Direction) {
        let place = match self {
            Self::Terms(..) => event.offset,
            Self::All(..) | Self::Streams(..) => event.audit_sequence.unwrap_or_default(),
        };
        let (after, before) = self.ends();
        match direction {
            Direction::First => *after = place,
            Direction::Last => *before = place,
        }
    }
}

/// What was found of a page so far.
#[derive(Default)]
struct Found {
    events: Vec<Candidate>,
    scanned: usize,
}

impl Found {
    /// Takes in what was proposed for so many values; whether the page is full.
    fn take(&mut self, proposed: Vec<Candidate>, values: usize, page: &AuditPage) -> bool {
        self.scanned += proposed.len() * values.div_ceil(VALUES_FREE);
        let own = |event: &Candidate| match &page.organization {
            Some(organization) => event.organization_id.as_deref() == Some(organization.as_ref()),
            None => true,
        };
        self.events.extend(proposed.into_iter().filter(|event| own(event) && page.filter.matches(event)));
        self.events.len() > page.limit
    }

    /// How many events the next step looks at; `None` after the last.
    fn step(&self) -> Option<usize> {
        let mut sum = 0;
        STEPS.into_iter().find(|step| {
            sum += step;
            sum > self.scanned
        })
    }
}

impl Log {
    /// A page of the audit trail.
    pub async fn audit_trail(&self, page: &AuditPage) -> Result<AuditSlice, LogError> {
        let (mut events, more) = match &page.organization {
            Some(organization) => self.of_organization(organization, page).await?,
            None => self.of_all(page).await?,
        };
        let mut more = more;
        if events.len() > page.limit {
            events.truncate(page.limit);
            more = events.last().map(|event| cursor(event, page)).transpose()?;
        }
        if page.direction == Direction::Last {
            events.reverse();
        }
        Ok(AuditSlice { events: self.whole(&events, page.organization.as_ref()).await?, more })
    }

    /// A page of everything that happened in an organization, of the rows that its [`EventsOf`] gave.
    pub async fn unfiltered(&self, mut rows: Vec<StoredEvent>, page: &AuditPage) -> Result<AuditSlice, LogError> {
        let more = rows.len() > page.limit;
        rows.truncate(page.limit);
        let last = rows.last().and_then(|row| row.audit_sequence).filter(|_| more);
        if page.direction == Direction::Last {
            rows.reverse();
        }
        rows.retain(|row| row.event_type != PRUNED.name);
        Ok(AuditSlice { events: self.reader.read(rows, &self.keys).await?, more: last.map(AuditCursor::Sequence) })
    }

    /// These events, read as a whole: those of an organization as a reader who has nothing else in scope.
    async fn whole(
        &self,
        found: &[Candidate],
        organization: Option<&OrganizationId>,
    ) -> Result<Vec<Recorded>, LogError> {
        let partitions: Vec<i16> = found.iter().map(|event| event.partition).collect();
        let offsets: Vec<i64> = found.iter().map(|event| event.offset).collect();
        let (mut query, pool, own) = match organization {
            Some(id) => (scope::begin("e.*", &[id]), &self.readers, " AND organization_id = wanted.id"),
            None => (QueryBuilder::new("SELECT e.* FROM (VALUES (1)) AS one"), &self.operators, ""),
        };
        query
            .push(" CROSS JOIN LATERAL (SELECT e.*, w.place FROM unnest(")
            .push_bind(partitions)
            .push("::smallint[], ");
        query.push_bind(offsets).push("::bigint[]) WITH ORDINALITY AS w(number, at, place) CROSS JOIN LATERAL (");
        query.push(format!(
            r#"SELECT {COLUMNS} FROM events WHERE partition = w.number AND "offset" = w.at{own}) e
               ORDER BY w.place LIMIT {}) e ORDER BY e.place"#,
            found.len()
        ));
        let mut rows: Vec<StoredEvent> = query.build_query_as().fetch_all(pool).await?;
        // Events pruned since they were found.
        rows.retain(|row| row.event_type != PRUNED.name);
        self.reader.read(rows, &self.keys).await
    }

    async fn of_organization(
        &self,
        organization: &OrganizationId,
        page: &AuditPage,
    ) -> Result<(Vec<Candidate>, Option<AuditCursor>), LogError> {
        let mut found = Found::default();
        for mut stretch in self.stretches(organization, page).await? {
            loop {
                let Some(step) = found.step() else {
                    let place = self.place(organization, &mut stretch, page.direction).await?;
                    return Ok((found.events, Some(AuditCursor::Sequence(place))));
                };
                let values = stretch.values();
                let step = step.min((ENTRIES_MAX / values.max(1)).max(STEPS[0]));
                let proposed = self.propose(organization, &stretch, page.direction, step).await?;
                let exhausted = proposed.len() < step;
                if let Some(last) = proposed.last() {
                    stretch.pass(last, page.direction);
                }
                if found.take(proposed, values, page) {
                    return Ok((found.events, None));
                }
                if exhausted {
                    break;
                }
            }
        }
        Ok((found.events, None))
    }

    /// What has to be looked at for a page, in its direction.
    async fn stretches(&self, organization: &OrganizationId, page: &AuditPage) -> Result<Vec<Stretch>, LogError> {
        let partition = self.partition_of(organization.as_ref());
        let filter = &page.filter;
        // Read before the rows that it speaks of.
        let complete = projections::complete(&self.pool, Projection::Audit, &[partition]).await?;
        let newest = self.newest_sequence(organization).await?;
        let (mut after, mut before) = (0, newest + 1);
        if let Some(AuditCursor::Sequence(sequence)) = page.after {
            after = sequence.clamp(0, newest);
        }
        if let Some(AuditCursor::Sequence(sequence)) = page.before {
            before = sequence.clamp(0, newest + 1);
        }
        if let Some(since) = filter.since {
            after = after.max(self.sequence_within(organization, Bound::Before(since)).await?);
        }
        if let Some(until) = filter.until {
            before = before.min(self.sequence_within(organization, Bound::Before(until)).await? + 1);
        }
        if after + 1 >= before {
            return Ok(vec![]);
        }
        if !filter.subjects.is_empty() {
            return Ok(vec![Stretch::Streams(filter.streams(), after, before)]);
        }
        let terms = filter.terms(organization.as_ref());
        if terms.is_empty() {
            return Ok(vec![Stretch::All(after, before)]);
        }
        // Behind the index, the rest is looked at as it is.
        let complete = complete.get(&partition).copied().unwrap_or_default();
        let indexed = self.sequence_within(organization, Bound::Offset(complete)).await?;
        let mut stretches = vec![];
        if after < indexed {
            let until = before.min(indexed + 1);
            let (from, to) = self.offsets_of(organization, after, until).await?;
            stretches.push(Stretch::Terms(terms, from, to.min(complete.saturating_add(1))));
        }
        if indexed + 1 < before {
            stretches.push(Stretch::All(after.max(indexed), before));
        }
        if page.direction == Direction::Last {
            stretches.reverse();
        }
        Ok(stretches)
    }

    /// The offsets of two audit sequences; where there is no such event, before and behind all of them.
    async fn offsets_of(&self, organization: &OrganizationId, from: i64, to: i64) -> Result<(i64, i64), LogError> {
        let row = sqlx::query!(
            r#"SELECT COALESCE((SELECT "offset" FROM events WHERE organization_id = $1 AND audit_sequence = $2), 0) AS "from!",
                      COALESCE((SELECT "offset" FROM events WHERE organization_id = $1 AND audit_sequence = $3), $4) AS "to!""#,
            organization.as_ref(),
            from,
            to,
            i64::MAX
        );
        let row = row.fetch_one(&self.pool).await?;
        Ok((row.from, row.to))
    }

    /// From which audit sequence on a stretch was not looked at.
    async fn place(
        &self,
        organization: &OrganizationId,
        stretch: &mut Stretch,
        direction: Direction,
    ) -> Result<i64, LogError> {
        let by_offset = matches!(stretch, Stretch::Terms(..));
        let (after, before) = stretch.ends();
        match (direction, by_offset) {
            (Direction::First, false) => Ok(*after),
            (Direction::Last, false) => Ok(*before),
            (Direction::First, true) => self.sequence_within(organization, Bound::Offset(*after)).await,
            (Direction::Last, true) => Ok(self.sequence_within(organization, Bound::Offset(*before - 1)).await? + 1),
        }
    }

    /// The next events of a stretch. Limits are written out: the planner has to know that they are small.
    async fn propose(
        &self,
        organization: &OrganizationId,
        stretch: &Stretch,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Candidate>, LogError> {
        let order = direction.order();
        match stretch {
            Stretch::All(after, before) => {
                let statement = format!(
                    "SELECT {CANDIDATE} FROM events
                     WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence < $3
                     ORDER BY audit_sequence {order} LIMIT {limit}"
                );
                let query = sqlx::query_as(&statement).bind(organization.as_ref()).bind(after).bind(before);
                Ok(query.fetch_all(&self.pool).await?)
            }
            Stretch::Streams(streams, after, before) => {
                let (types, ids): (Vec<&str>, Vec<&str>) =
                    streams.iter().map(|stream| (stream.aggregate_type(), stream.id())).unzip();
                // Sequences of a stream rise with the audit sequence: where to begin is found by halving.
                let (from, bound) = match direction {
                    Direction::First => ("sequence > b.low AND sequence <= t.top", "audit_sequence <= $4"),
                    Direction::Last => ("sequence <= b.low", "audit_sequence < $5"),
                };
                let statement = include_str!("of_streams.sql")
                    .replace("{columns}", CANDIDATE)
                    .replace("{bound}", bound)
                    .replace("{from}", from)
                    .replace("{order}", order)
                    .replace("{limit}", &limit.to_string());
                let query = sqlx::query_as(&statement).bind(types).bind(ids).bind(organization.as_ref());
                Ok(query.bind(after).bind(before).fetch_all(&self.pool).await?)
            }
            Stretch::Terms(terms, after, before) => {
                let statement = format!(
                    r#"SELECT {CANDIDATE} FROM (
                           SELECT DISTINCT w.at FROM unnest($1::bigint[]) AS t(term)
                           CROSS JOIN LATERAL (
                               SELECT "offset" AS at FROM terms
                               WHERE term = t.term AND partition = $2 AND "offset" > $3 AND "offset" < $4
                               ORDER BY "offset" {order} LIMIT {limit}
                           ) w
                           ORDER BY w.at {order} LIMIT {limit}
                       ) p
                       CROSS JOIN LATERAL (
                           SELECT {CANDIDATE} FROM events WHERE partition = $2 AND "offset" = p.at
                       ) e
                       ORDER BY p.at {order}"#
                );
                let partition = self.partition_of(organization.as_ref());
                let query = sqlx::query_as(&statement).bind(terms).bind(partition).bind(after).bind(before);
                Ok(query.fetch_all(&self.pool).await?)
            }
        }
    }

    /// A page over all organizations and users. What an index finds little of is found by that; else the trail is
    /// looked at by time.
    async fn of_all(&self, page: &AuditPage) -> Result<(Vec<Candidate>, Option<AuditCursor>), LogError> {
        let mut found = Found::default();
        if let Some(mut proposed) = self.proposed_of_all(&page.filter).await? {
            proposed.retain(|event| within(event, page));
            proposed.sort_by(|a, b| (a.recorded_at, &a.event_id).cmp(&(b.recorded_at, &b.event_id)));
            if page.direction == Direction::Last {
                proposed.reverse();
            }
            found.take(proposed, 1, page);
            return Ok((found.events, None));
        }
        let mut page = page.clone();
        while let Some(step) = found.step() {
            let proposed = self.by_time(&page, step).await?;
            let exhausted = proposed.len() < step;
            let last = proposed.last().map(|event| cursor(event, &page)).transpose()?;
            if found.take(proposed, 1, &page) || exhausted {
                return Ok((found.events, None));
            }
            match page.direction {
                Direction::First => page.after = last,
                Direction::Last => page.before = last,
            }
        }
        let place = if page.direction == Direction::First { page.after } else { page.before };
        Ok((found.events, place))
    }

    async fn by_time(&self, page: &AuditPage, limit: usize) -> Result<Vec<Candidate>, LogError> {
        let mut query = QueryBuilder::<Postgres>::new(format!("SELECT {CANDIDATE} FROM events WHERE true"));
        for (cursor, sign) in [(&page.after, ">"), (&page.before, "<")] {
            if let Some(AuditCursor::Time(time, id)) = cursor {
                query.push(format!(" AND (recorded_at, event_id) {sign} (")).push_bind(*time);
                query.push(", ").push_bind(id.to_string()).push(")");
            }
        }
        if let Some(since) = page.filter.since {
            query.push(" AND recorded_at >= ").push_bind(since);
        }
        if let Some(until) = page.filter.until {
            query.push(" AND recorded_at < ").push_bind(until);
        }
        let order = page.direction.order();
        query.push(format!(" ORDER BY recorded_at {order}, event_id {order} LIMIT {limit}"));
        Ok(query.build_query_as().fetch_all(&self.pool).await?)
    }

    /// All events of a correlation or of subjects, over all organizations; `None` where there is neither, or too many.
    async fn proposed_of_all(&self, filter: &AuditFilter) -> Result<Option<Vec<Candidate>>, LogError> {
        let limit = SCANNED_MAX + 1;
        let proposed: Vec<Candidate> = if let Some(correlation) = &filter.correlation {
            let all: Vec<i16> = (0..self.partitions).collect();
            let complete = projections::complete(&self.pool, Projection::Audit, &all).await?;
            let complete: BTreeMap<i16, i64> =
                all.iter().map(|number| (*number, complete.get(number).copied().unwrap_or_default())).collect();
            let (partitions, offsets): (Vec<i16>, Vec<i64>) = complete.into_iter().unzip();
            let statement = format!(
                r#"(SELECT {CANDIDATE} FROM (SELECT partition AS number, "offset" AS at FROM terms WHERE term = $1 LIMIT {limit}) p
                    CROSS JOIN LATERAL (SELECT {CANDIDATE} FROM events WHERE partition = p.number AND "offset" = p.at) e)
                   UNION ALL
                   (SELECT {CANDIDATE} FROM unnest($2::smallint[], $3::bigint[]) AS c(number, at)
                    CROSS JOIN LATERAL (
                        SELECT {CANDIDATE} FROM events WHERE partition = c.number AND "offset" > c.at
                        ORDER BY "offset" LIMIT {limit}
                    ) e LIMIT {limit})"#
            );
            let query = sqlx::query_as(&statement).bind(Term::Correlation(correlation.as_bytes()).hash());
            query.bind(&partitions).bind(&offsets).fetch_all(&self.pool).await?
        } else if !filter.subjects.is_empty() {
            let streams = filter.streams();
            let (types, ids): (Vec<&str>, Vec<&str>) =
                streams.iter().map(|stream| (stream.aggregate_type(), stream.id())).unzip();
            let statement = format!(
                "SELECT {CANDIDATE} FROM unnest($1::text[], $2::text[]) AS s(type, id)
                 CROSS JOIN LATERAL (
                     SELECT {CANDIDATE} FROM events WHERE aggregate_type = s.type AND aggregate_id = s.id
                     ORDER BY sequence LIMIT {limit}
                 ) e LIMIT {limit}"
            );
            sqlx::query_as(&statement).bind(types).bind(ids).fetch_all(&self.pool).await?
        } else {
            return Ok(None);
        };
        if proposed.len() >= limit {
            return Ok(None);
        }
        // The index may have come to an event between the two looks.
        let places: HashMap<(i16, i64), Candidate> =
            proposed.into_iter().map(|event| ((event.partition, event.offset), event)).collect();
        Ok(Some(places.into_values().collect()))
    }
}

/// Adds the conditions of a filter to a statement over events.
pub fn push_filter(query: &mut QueryBuilder<'_, Postgres>, filter: &AuditFilter) {
    if !filter.event_types.is_empty() {
        query.push(" AND event_type = ANY(").push_bind(filter.event_types.clone()).push(")");
    }
    if !filter.actors.is_empty() {
        query.push(" AND split_part(actor, ':', -1) = ANY(").push_bind(filter.actors.clone()).push(")");
    }
    if !filter.subjects.is_empty() {
        query.push(" AND aggregate_id = ANY(").push_bind(filter.subjects.clone()).push(")");
    }
    if let Some(since) = filter.since {
        query.push(" AND recorded_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" AND recorded_at < ").push_bind(until);
    }
    if let Some(correlation) = filter.correlation {
        query.push(" AND correlation_id = ").push_bind(correlation);
    }
}

/// The place of an event in the trail that a page is of.
fn cursor(event: &Candidate, page: &AuditPage) -> Result<AuditCursor, LogError> {
    match (&page.organization, event.audit_sequence) {
        (Some(_), Some(sequence)) => Ok(AuditCursor::Sequence(sequence)),
        (Some(_), None) | (None, _) => {
            let id = event.event_id.parse().map_err(|_| LogError::Corrupt(event.event_id.clone()))?;
            Ok(AuditCursor::Time(event.recorded_at, id))
        }
    }
}

/// Whether an event lies between the cursors of a page over all.
fn within(event: &Candidate, page: &AuditPage) -> bool {
    let against = |cursor: &Option<AuditCursor>| match cursor {
        Some(AuditCursor::Time(time, id)) => {
            Some((event.recorded_at, event.event_id.as_str()).cmp(&(*time, id.to_string().as_str())))
        }
        Some(AuditCursor::Sequence(_)) | None => None,
    };
    against(&page.after).is_none_or(std::cmp::Ordering::is_gt)
        && against(&page.before).is_none_or(std::cmp::Ordering::is_lt)
}
