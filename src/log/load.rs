//! Loading aggregates: from memory, and only newer events from the log.
//!
//! What comes from memory may be behind another replica. Commands may start from it, because the append checks
//! every version that a decision relied upon. A refusal, and every decision to show something, is made only from a
//! state that was compared with the log.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::ids::{InvitationId, MembershipId, OrganizationId, ProjectId, UserId};
use aggregates::{Event, Invitation, Membership, Organization, Project, Recorded, StreamId, User};
use cqrs_es::Aggregate;

use super::stored::{COLUMNS, StoredEvent};
use super::{Log, LogError};

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

/// The state of any aggregate.
#[derive(Debug, Clone)]
enum State {
    Organization(Arc<Organization>),
    Membership(Arc<Membership>),
    Invitation(Arc<Invitation>),
    Project(Arc<Project>),
    User(Arc<User>),
}

/// A state in memory, with its version.
#[derive(Debug, Clone)]
pub struct Cached {
    state: State,
    version: u64,
    organization: Option<OrganizationId>,
}

/// States that were compared with the log together.
pub struct Current(HashMap<StreamId, Cached>);

impl Current {
    /// One of them; what was not asked for is not there.
    pub fn get<A: Loadable>(&self, id: &A::Id) -> Loaded<A> {
        let cached = self.0.get(&id.clone().into());
        let empty = || Loaded { state: Arc::default(), version: 0, organization: None };
        cached.and_then(A::from_cached).unwrap_or_else(empty)
    }
}

/// An aggregate that the log can load.
pub trait Loadable: Aggregate {
    /// Its id.
    type Id: Into<StreamId> + Clone;
    #[doc(hidden)]
    fn from_cached(cached: &Cached) -> Option<Loaded<Self>>;
}

macro_rules! loadable {
    ($($name:ident($id:ident);)*) => {
        impl State {
            fn empty(stream: &StreamId) -> Self {
                match stream { $(StreamId::$name(_) => Self::$name(Arc::default()),)* }
            }
            fn apply(&mut self, event: Event) -> Result<(), LogError> {
                match (self, event) {
                    $((Self::$name(state), Event::$name(event)) => {
                        Aggregate::apply(Arc::make_mut(state), event);
                        Ok(())
                    })*
                    (_, event) => Err(LogError::Corrupt(format!("{} in another's stream", event.descriptor().name))),
                }
            }
        }
        $(impl Loadable for $name {
            type Id = $id;
            fn from_cached(cached: &Cached) -> Option<Loaded<Self>> {
                match &cached.state {
                    State::$name(state) => Some(Loaded {
                        state: state.clone(),
                        version: cached.version,
                        organization: cached.organization.clone(),
                    }),
                    _ => None,
                }
            }
        })*
    };
}

loadable! {
    Organization(OrganizationId);
    Membership(MembershipId);
    Invitation(InvitationId);
    Project(ProjectId);
    User(UserId);
}

impl Cached {
    fn empty(stream: &StreamId) -> Self {
        Self { state: State::empty(stream), version: 0, organization: None }
    }

    fn follow(&mut self, recorded: Recorded) -> Result<(), LogError> {
        if recorded.sequence != self.version + 1 {
            return Err(LogError::Corrupt(format!("version {} follows {}", recorded.sequence, self.version)));
        }
        self.state.apply(recorded.event)?;
        self.version = recorded.sequence;
        self.organization = recorded.organization;
        Ok(())
    }
}

impl Log {
    /// The aggregate as this replica knows it, or from the log where it does not.
    pub async fn load<A: Loadable>(&self, id: &A::Id) -> Result<Loaded<A>, LogError> {
        let stream: StreamId = id.clone().into();
        if let Some(loaded) = self.states.get(&stream).as_ref().and_then(A::from_cached) {
            return Ok(loaded);
        }
        let cached = self.refresh(std::slice::from_ref(&stream)).await?.pop();
        cached
            .as_ref()
            .and_then(A::from_cached)
            .ok_or_else(|| LogError::Corrupt(format!("{stream:?} is of another kind")))
    }

    /// Compares what is in memory of these streams with the log, in one statement, and reads what is newer.
    pub async fn bring_up_to_date(&self, streams: &[StreamId]) -> Result<(), LogError> {
        self.refresh(streams).await.map(|_| ())
    }

    /// These streams as the log has them now, by one statement.
    pub async fn current(&self, streams: &[StreamId]) -> Result<Current, LogError> {
        let states = self.refresh(streams).await?;
        Ok(Current(streams.iter().cloned().zip(states).collect()))
    }

    /// The aggregate as it was at `version`.
    pub async fn load_at<A: Loadable>(&self, id: &A::Id, version: u64) -> Result<Loaded<A>, LogError> {
        let stream: StreamId = id.clone().into();
        let statement = format!(
            "SELECT {COLUMNS} FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence <= $3 ORDER BY sequence"
        );
        let rows: Vec<StoredEvent> = sqlx::query_as(&statement)
            .bind(stream.aggregate_type())
            .bind(stream.id())
            .bind(version.cast_signed())
            .fetch_all(&self.pool)
            .await?;
        let mut cached = Cached::empty(&stream);
        for recorded in self.reader.read(rows, &self.keys).await? {
            cached.follow(recorded)?;
        }
        A::from_cached(&cached).ok_or_else(|| LogError::Corrupt(format!("{stream:?} is of another kind")))
    }

    async fn refresh(&self, streams: &[StreamId]) -> Result<Vec<Cached>, LogError> {
        let mut states: Vec<Cached> = streams
            .iter()
            .map(|stream| {
                let known = self.states.get(stream);
                known.unwrap_or_else(|| Cached::empty(stream))
            })
            .collect();
        let rows = self.newer_than(streams, &states).await?;
        let changed = !rows.is_empty();
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
        }
        Ok(states)
    }

    async fn newer_than(&self, streams: &[StreamId], states: &[Cached]) -> Result<Vec<StoredEvent>, LogError> {
        let (types, ids): (Vec<&str>, Vec<&str>) =
            streams.iter().map(|stream| (stream.aggregate_type(), stream.id())).unzip();
        let versions: Vec<i64> = states.iter().map(|state| state.version.cast_signed()).collect();
        let statement = format!(
            "SELECT e.* FROM unnest($1::text[], $2::text[], $3::bigint[]) AS s(type, id, version)
             CROSS JOIN LATERAL (
                 SELECT {COLUMNS} FROM events
                 WHERE aggregate_type = s.type AND aggregate_id = s.id AND sequence > s.version ORDER BY sequence
             ) e"
        );
        Ok(sqlx::query_as(&statement).bind(&types).bind(&ids).bind(&versions).fetch_all(&self.pool).await?)
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
