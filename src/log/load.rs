//! Loading aggregates: from memory, and only newer events from the log.
//!
//! A state from memory may be behind another replica. Commands may start from it, because the append checks
//! every version that a decision relied upon. A refusal, and every decision to show something, is made only from a
//! state that was compared with the log.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use aggregates::ids::OrganizationId;
use aggregates::{Recorded, Registered, State, StreamId};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::stored::{COLUMNS, StoredEvent};
use super::{Log, LogError};

/// How many aggregates are kept in memory, about, and how many bytes of what clients attached to them.
const STATES_MAX: usize = 50_000;
const STATES_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// What a state weighs without what clients attached.
const STATE_BYTES: u64 = 1024;

/// Aggregates in memory.
pub type States = Cache<StreamId, Cached, Weight>;

/// How much memory a state takes, about: documents of clients are what can be large.
#[derive(Clone)]
pub struct Weight;

impl Weighter<StreamId, Cached> for Weight {
    fn weight(&self, _: &StreamId, cached: &Cached) -> u64 {
        STATE_BYTES + cached.state.document_bytes() as u64
    }
}

pub(super) fn states() -> States {
    Cache::with_weighter(STATES_MAX, STATES_BYTES_MAX, Weight)
}

/// After so many events since the last one, a state is kept beside the log.
const SNAPSHOT_AFTER_EVENTS: u64 = 100;

/// Where a snapshot's personal data is sealed for.
fn snapshot_place(stream: &StreamId, version: u64) -> String {
    format!("snapshot/{}/{version}", stream.id())
}

/// An aggregate with the version of its stream; version 0 is one that is not there.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    /// Its state.
    pub state: Arc<A>,
    /// How many events it has.
    pub version: u64,
    /// The organization that it belongs to; none for users and for what is not there.
    pub organization: Option<OrganizationId>,
}

/// The state of an aggregate of any kind, with its version.
#[derive(Debug, Clone)]
pub struct Cached {
    /// The state.
    pub state: State,
    /// How many events it has.
    pub version: u64,
    /// The organization that it belongs to.
    pub organization: Option<OrganizationId>,
}

/// States that were compared with the log together.
pub struct Current(HashMap<StreamId, Cached>);

impl Current {
    /// One of them; what was not asked for is not there.
    pub fn get<A: Registered>(&self, id: &A::Id) -> Loaded<A> {
        let cached = self.0.get(&id.clone().into());
        let empty = || Loaded { state: Arc::default(), version: 0, organization: None };
        cached.and_then(Cached::get).unwrap_or_else(empty)
    }

    /// One of them, of whatever kind.
    pub fn state(&self, stream: &StreamId) -> Option<&Cached> {
        self.0.get(stream)
    }
}

/// Whether so much of a stream is new that a state may have been kept beside the log.
fn is_long(stream: &StreamId, rows: &[StoredEvent]) -> bool {
    let own =
        rows.iter().filter(|row| row.aggregate_id == stream.id() && row.aggregate_type == stream.aggregate_type());
    own.count() as u64 >= SNAPSHOT_AFTER_EVENTS
}

impl Cached {
    /// It, if it is of this kind.
    pub fn get<A: Registered>(&self) -> Option<Loaded<A>> {
        let state = A::of(&self.state)?.clone();
        Some(Loaded { state, version: self.version, organization: self.organization.clone() })
    }

    fn empty(stream: &StreamId) -> Self {
        Self { state: State::empty(stream), version: 0, organization: None }
    }

    fn follow(&mut self, recorded: Recorded) -> Result<(), LogError> {
        if recorded.sequence != self.version + 1 {
            return Err(LogError::Corrupt(format!("version {} follows {}", recorded.sequence, self.version)));
        }
        let mixed = |event: Box<aggregates::Event>| format!("{} in another's stream", event.descriptor().name);
        self.state.apply(recorded.event).map_err(|event| LogError::Corrupt(mixed(event)))?;
        self.version = recorded.sequence;
        self.organization = recorded.organization;
        Ok(())
    }
}

impl Log {
    /// Whether there is or was any organization.
    pub async fn has_organizations(&self) -> Result<bool, LogError> {
        let any = sqlx::query_scalar("SELECT EXISTS (SELECT FROM events WHERE organization_id IS NOT NULL)");
        Ok(any.fetch_one(self.pool()).await?)
    }

    /// The aggregate as this replica knows it, or from the log where it does not.
    pub async fn load<A: Registered>(&self, id: &A::Id) -> Result<Loaded<A>, LogError> {
        let stream: StreamId = id.clone().into();
        if let Some(loaded) = self.states.get(&stream).as_ref().and_then(Cached::get) {
            return Ok(loaded);
        }
        let cached = self.refresh(std::slice::from_ref(&stream)).await?.remove(&stream);
        cached.as_ref().and_then(Cached::get).ok_or_else(|| LogError::Corrupt(format!("{stream:?} is of another kind")))
    }

    /// Reads those of these streams that are not in memory, together.
    pub async fn warm(&self, streams: &[StreamId]) -> Result<(), LogError> {
        let cold: Vec<StreamId> = streams.iter().filter(|stream| self.states.get(*stream).is_none()).cloned().collect();
        if cold.is_empty() { Ok(()) } else { self.refresh(&cold).await.map(|_| ()) }
    }

    /// Compares what is in memory of these streams with the log, in one statement, and reads what is newer.
    pub async fn bring_up_to_date(&self, streams: &[StreamId]) -> Result<(), LogError> {
        self.refresh(streams).await.map(|_| ())
    }

    /// These streams as the log has them now, by one statement.
    pub async fn current(&self, streams: &[StreamId]) -> Result<Current, LogError> {
        self.refresh(streams).await.map(Current)
    }

    /// The stream as it was at `version`.
    pub async fn load_at(&self, stream: &StreamId, version: u64) -> Result<Cached, LogError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence <= $3 ORDER BY sequence"
        );
        let rows: Vec<StoredEvent> = sqlx::query_as(&statement)
            .bind(stream.aggregate_type())
            .bind(stream.id())
            .bind(version.cast_signed())
            .fetch_all(&self.pool)
            .await?;
        let mut cached = Cached::empty(stream);
        for recorded in self.reader.read(rows, &self.keys).await? {
            cached.follow(recorded)?;
        }
        Ok(cached)
    }

    async fn refresh(&self, streams: &[StreamId]) -> Result<HashMap<StreamId, Cached>, LogError> {
        // A stream named twice is meant once; the statement would give its events twice.
        let streams: BTreeSet<StreamId> = streams.iter().cloned().collect();
        let streams: Vec<StreamId> = streams.into_iter().collect();
        let streams = streams.as_slice();
        let known = |stream| self.states.get(stream).unwrap_or_else(|| Cached::empty(stream));
        let mut states: Vec<Cached> = streams.iter().map(known).collect();
        let mut rows = self.newer_than(streams, &states, SNAPSHOT_AFTER_EVENTS).await?;
        if streams.iter().any(|stream| is_long(stream, &rows)) {
            self.start_from_snapshots(streams, &mut states).await?;
            rows = self.newer_than(streams, &states, u64::MAX).await?;
        }
        let changed = !rows.is_empty();
        let before: Vec<u64> = states.iter().map(|state| state.version).collect();
        for recorded in self.reader.read(rows, &self.keys).await? {
            let place = streams.iter().position(|stream| *stream == recorded.stream);
            if let Some(state) = place.and_then(|place| states.get_mut(place)) {
                state.follow(recorded)?;
            }
        }
        if changed {
            for (stream, state) in streams.iter().zip(&states) {
                self.keep(stream, state.clone());
            }
            for ((stream, state), before) in streams.iter().zip(&states).zip(before) {
                if state.version >= before + SNAPSHOT_AFTER_EVENTS {
                    self.snapshot(stream, state.clone()).await;
                }
            }
        }
        Ok(streams.iter().cloned().zip(states).collect())
    }

    /// Where nothing is in memory, begins with what was kept beside the log.
    async fn start_from_snapshots(&self, streams: &[StreamId], states: &mut [Cached]) -> Result<(), LogError> {
        let cold = streams.iter().zip(&*states).filter(|(_, state)| state.version == 0);
        let (types, ids): (Vec<&str>, Vec<&str>) =
            cold.map(|(stream, _)| (stream.aggregate_type(), stream.id())).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query!(
            r#"SELECT n.aggregate_type, n.aggregate_id, n.version, n.shape, n.state::text AS "state!", n.organization_id
               FROM unnest($1::text[], $2::text[]) AS s(type, id)
               CROSS JOIN LATERAL (SELECT * FROM snapshots WHERE aggregate_type = s.type AND aggregate_id = s.id) n"#,
            &types as &[&str],
            &ids as &[&str]
        )
        .fetch_all(&self.pool)
        .await?;
        for row in rows {
            let place =
                streams.iter().position(|s| s.aggregate_type() == row.aggregate_type && s.id() == row.aggregate_id);
            let Some((stream, state)) = place.and_then(|place| Some((streams.get(place)?, states.get_mut(place)?)))
            else {
                continue;
            };
            // One that cannot be read is as good as none.
            let Some(mut kept) = State::from_snapshot(stream, row.shape, &row.state) else { continue };
            let mut people = vec![];
            kept.visit_personal(&mut |_, personal| people.push(personal.of().to_owned()));
            let keys = self.keys.find(people.iter().map(String::as_str)).await?;
            let place = snapshot_place(stream, row.version.unsigned_abs());
            kept.visit_personal(&mut |field, personal| keys.open_field(&format!("{place}/{field}"), personal));
            let organization = row.organization_id.and_then(|id| id.parse().ok());
            *state = Cached { state: kept, version: row.version.unsigned_abs(), organization };
        }
        Ok(())
    }

    /// Keeps a state beside the log. That it fails costs time later and nothing else.
    async fn snapshot(&self, stream: &StreamId, cached: Cached) {
        let result: Result<(), LogError> = async {
            let mut state = cached.state;
            let mut people = vec![];
            state.visit_personal(&mut |_, personal| people.push(personal.of().to_owned()));
            let keys = self.keys.find(people.iter().map(String::as_str)).await?;
            let place = snapshot_place(stream, cached.version);
            state.visit_personal(&mut |field, personal| keys.seal_field(&format!("{place}/{field}"), personal));
            let Some((shape, text)) = state.to_snapshot() else { return Ok(()) };
            sqlx::query!(
                "INSERT INTO snapshots (aggregate_type, aggregate_id, version, shape, state, organization_id)
                 VALUES ($1, $2, $3, $4, $5::text::json, $6)
                 ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
                 SET version = EXCLUDED.version, shape = EXCLUDED.shape, state = EXCLUDED.state
                 WHERE snapshots.version < EXCLUDED.version OR snapshots.shape <> EXCLUDED.shape",
                stream.aggregate_type(),
                stream.id(),
                cached.version.cast_signed(),
                shape,
                text,
                cached.organization.as_ref().map(AsRef::as_ref)
            )
            .execute(&self.pool)
            .await?;
            Ok(())
        }
        .await;
        if let Err(error) = result {
            tracing::debug!(%error, stream = stream.id(), "no snapshot was kept");
        }
    }

    /// What is newer of each, up to so many events.
    async fn newer_than(
        &self,
        streams: &[StreamId],
        states: &[Cached],
        events_max: u64,
    ) -> Result<Vec<StoredEvent>, LogError> {
        let (types, ids): (Vec<&str>, Vec<&str>) =
            streams.iter().map(|stream| (stream.aggregate_type(), stream.id())).unzip();
        let versions: Vec<i64> = states.iter().map(|state| state.version.cast_signed()).collect();
        let statement = format!(
            "SELECT e.* FROM unnest($1::text[], $2::text[], $3::bigint[]) AS s(type, id, version)
             CROSS JOIN LATERAL (
                 SELECT {COLUMNS} FROM events
                 WHERE aggregate_type = s.type AND aggregate_id = s.id AND sequence > s.version ORDER BY sequence
                 LIMIT $4
             ) e"
        );
        let limit = i64::try_from(events_max).unwrap_or(i64::MAX);
        let query = sqlx::query_as(&statement).bind(&types).bind(&ids).bind(&versions).bind(limit);
        Ok(query.fetch_all(&self.pool).await?)
    }

    /// Streams that are not there are not kept: somebody could fill the memory with ids of nothing.
    fn keep(&self, stream: &StreamId, state: Cached) {
        let newer = self.states.get(stream).is_none_or(|known| known.version < state.version);
        if state.version > 0 && newer {
            self.states.insert(stream.clone(), state);
        }
    }

    /// Brings what is in memory up to what was just appended.
    pub(super) fn keep_up(&self, events: &[Recorded]) {
        for recorded in events {
            let known = self.states.get(&recorded.stream);
            let known = match (known, recorded.sequence) {
                (None, 1) => Some(Cached::empty(&recorded.stream)),
                (known, _) => known,
            };
            if let Some(mut state) = known.filter(|known| known.version + 1 == recorded.sequence)
                && state.follow(recorded.clone()).is_ok()
            {
                self.keep(&recorded.stream, state);
            }
        }
    }
}
