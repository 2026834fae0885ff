//! What the service has to know of every aggregate.
//!
//! Aggregates are registered once, by [`for_each_resource!`](crate::for_each_resource). Streams, events, states, ids and
//! all that the other crates keep for each of them are made from that list. What an aggregate has to decide it says by
//! [`Resource`], in its own file: no question there has an answer by default, so the compiler asks each of them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;

use crate::error::Refusal;
use crate::event::{PersonalVisitor, Snapshot};
use crate::guard::Scope;
use crate::ids::Id;
use crate::stream::{Event, StreamId};

/// Where an aggregate's streams lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the organization: its id says in which partition everything of the organization lies.
    Organization,
    /// It belongs to an organization, and lies in that one's partition.
    WithinOrganization,
    /// It belongs to no organization, and lies in the partition that follows from its own id.
    Outside,
}

impl Place {
    /// Whether the partition follows from the stream's own id.
    pub const fn is_own_partition(self) -> bool {
        matches!(self, Self::Organization | Self::Outside)
    }

    /// Whether its events are in an organization's audit trail.
    pub const fn is_of_organization(self) -> bool {
        matches!(self, Self::Organization | Self::WithinOrganization)
    }
}

/// What an organization may have so many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Its name: of the tally that counts, and for clients.
    pub name: &'static str,
    /// The smallest maximum that a plan may set.
    pub maximum_min: u64,
    /// The maximum where neither the plan nor an operator says otherwise; `None` is no limit.
    pub maximum_default: Option<u64>,
}

/// What an aggregate says of itself.
pub trait Resource: Aggregate<Error = Refusal> + Snapshot + Clone {
    /// Where its streams lie.
    const PLACE: Place;
    /// Which limit counts it.
    const LIMIT: Option<Limit>;
    /// Among what its events claim keys.
    const CLAIMS: &'static [Scope];
    /// Whether something personal is sealed with a key of each stream's own. Such a key is destroyed when the organization
    /// is purged, and by the events that [`Resource::destroys_key`] names.
    const HAS_KEY: bool;
    /// Whether what may be done in the organization depends on its events. A feed asks anew after each of them.
    const DECIDES_ACCESS: bool;
    /// The heading under which an organization as it was shows each of them, by [`Resource::facts`]. With `None` it shows
    /// only how many there were.
    const HEADING: Option<&'static str>;

    /// Whether the stream's own key is destroyed in the commit that records this event.
    fn destroys_key(event: &Self::Event) -> bool;

    /// The command that records that a claim of it has run out; `None` where none does.
    fn expiry(at: DateTime<Utc>) -> Option<Self::Command>;

    /// The command that lets go for good of what was deleted; `None` where nothing is restorable.
    fn purge(at: DateTime<Utc>) -> Option<Self::Command>;

    /// What an event does to it, in the words of systems that watch many services.
    fn change(event: &Self::Event) -> Change;

    /// Whether it is gone for good, so that nothing shows it.
    fn is_gone(&self) -> bool;

    /// What a comparison of two points in time says of it, as it was at this moment: names and values. Nothing personal.
    fn facts(&self, at: DateTime<Utc>) -> Vec<(&'static str, String)>;

    /// How many bytes the documents have, about, that clients attached to it.
    fn document_bytes(&self) -> usize;
}

/// What an event does to what its stream is about. The words are those of OCSF's Entity Management; `Other` has one of ours
/// where it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Change {
    Create,
    Update,
    Delete,
    Enable,
    Disable,
    Activate,
    Deactivate,
    Suspend,
    Resume,
    Other(&'static str),
}

/// An aggregate of the list, with what is made from its place there.
pub trait Registered: Resource {
    /// Its id.
    type Id: Id + Clone + Into<StreamId> + Send + Sync + 'static;
    /// Decides a command by the state; pure.
    fn decided(&self, command: Self::Command) -> Result<Vec<Self::Event>, Refusal>;
    /// It, as a state of any kind.
    fn into_state(this: Arc<Self>) -> State;
    /// It, if the state is of this kind.
    fn of(state: &State) -> Option<&Arc<Self>>;
    /// Its event, if it is of this kind.
    fn event(event: &Event) -> Option<&Self::Event>;
    /// Its id, if the stream is of this kind.
    fn id(stream: &StreamId) -> Option<&Self::Id>;
}

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident: $id:ident = $prefix:literal;)*) => {
        /// The state of an aggregate of any kind. Cheap to clone.
        #[derive(Debug, Clone)]
        pub enum State {
            $($(#[$doc])* $name(Arc<crate::$name>),)*
        }

        impl State {
            /// Of a stream without events.
            pub fn empty(stream: &StreamId) -> Self {
                match stream { $(StreamId::$name(_) => Self::$name(Arc::default()),)* }
            }

            /// From a snapshot; `None` where its shape is another program's.
            pub fn from_snapshot(stream: &StreamId, shape: i32, state: &str) -> Option<Self> {
                match stream {
                    $(StreamId::$name(_) => {
                        let known = (shape == <crate::$name as Snapshot>::SHAPE).then_some(state)?;
                        serde_json::from_str(known).ok().map(|state| Self::$name(Arc::new(state)))
                    })*
                }
            }

            /// As a snapshot, with its shape.
            pub fn to_snapshot(&self) -> Option<(i32, String)> {
                match self {
                    $(Self::$name(state) => {
                        Some((<crate::$name as Snapshot>::SHAPE, serde_json::to_string(&**state).ok()?))
                    })*
                }
            }

            /// Shows `visit` each personal datum with the name of its field.
            pub fn visit_personal(&mut self, visit: &mut PersonalVisitor<'_>) {
                match self { $(Self::$name(state) => Snapshot::visit_personal(Arc::make_mut(state), visit),)* }
            }

            /// Applies an event; gives back one of another kind.
            pub fn apply(&mut self, event: Event) -> Result<(), Box<Event>> {
                match (self, event) {
                    $((Self::$name(state), Event::$name(event)) => {
                        Aggregate::apply(Arc::make_mut(state), event);
                        Ok(())
                    })*
                    // It counts as a version, and says nothing any more.
                    (_, Event::Pruned) => Ok(()),
                    (_, event) => Err(Box::new(event)),
                }
            }

            /// The events by which the service ends what has run out; `None` where there is nothing to end.
            pub fn expired(&self, at: DateTime<Utc>) -> Option<Vec<Event>> {
                match self {
                    $(Self::$name(state) => decided(&**state, <crate::$name as Resource>::expiry(at)?),)*
                }
            }

            /// The events by which the service lets go of what was deleted; `None` where its time has not come.
            pub fn purged(&self, at: DateTime<Utc>) -> Option<Vec<Event>> {
                match self {
                    $(Self::$name(state) => decided(&**state, <crate::$name as Resource>::purge(at)?),)*
                }
            }

            /// See [`Resource::is_gone`].
            pub fn is_gone(&self) -> bool {
                match self { $(Self::$name(state) => state.is_gone(),)* }
            }

            /// See [`Resource::facts`].
            pub fn facts(&self, at: DateTime<Utc>) -> Vec<(&'static str, String)> {
                match self { $(Self::$name(state) => state.facts(at),)* }
            }

            /// See [`Resource::document_bytes`].
            pub fn document_bytes(&self) -> usize {
                match self { $(Self::$name(state) => state.document_bytes(),)* }
            }
        }

        $(impl Registered for crate::$name {
            type Id = crate::ids::$id;
            fn decided(&self, command: Self::Command) -> Result<Vec<Self::Event>, Refusal> {
                self.decide(command)
            }
            fn into_state(this: Arc<Self>) -> State {
                State::$name(this)
            }
            fn of(state: &State) -> Option<&Arc<Self>> {
                match state {
                    State::$name(state) => Some(state),
                    #[allow(unreachable_patterns)]
                    _ => None,
                }
            }
            fn event(event: &Event) -> Option<&Self::Event> {
                match event {
                    Event::$name(event) => Some(event),
                    _ => None,
                }
            }
            fn id(stream: &StreamId) -> Option<&Self::Id> {
                match stream {
                    StreamId::$name(id) => Some(id),
                    #[allow(unreachable_patterns)]
                    _ => None,
                }
            }
        })*

        impl StreamId {
            /// Where the streams of this kind lie.
            pub const fn place(&self) -> Place {
                match self { $(Self::$name(_) => <crate::$name as Resource>::PLACE,)* }
            }

            /// See [`Resource::DECIDES_ACCESS`].
            pub const fn decides_access(&self) -> bool {
                match self { $(Self::$name(_) => <crate::$name as Resource>::DECIDES_ACCESS,)* }
            }

            /// See [`Resource::HEADING`].
            pub const fn heading(&self) -> Option<&'static str> {
                match self { $(Self::$name(_) => <crate::$name as Resource>::HEADING,)* }
            }
        }

        impl Event {
            /// Whether the key of what its stream is about (a person, an invitee, an organization's contact) is destroyed
            /// in the commit that records it.
            pub fn destroys_key(&self) -> bool {
                match self {
                    $(Self::$name(event) => <crate::$name as Resource>::destroys_key(event),)*
                    Self::Pruned => false,
                }
            }

            /// What it does to what its stream is about; `None` where it has lost its content.
            pub fn change(&self) -> Option<Change> {
                match self {
                    $(Self::$name(event) => Some(<crate::$name as Resource>::change(event)),)*
                    Self::Pruned => None,
                }
            }
        }

        /// The limits that an organization may have, and that its plan may set.
        pub fn limits() -> impl Iterator<Item = Limit> {
            [$(<crate::$name as Resource>::LIMIT),*].into_iter().flatten()
        }

        /// The headings of what an organization as it was shows.
        pub fn headings() -> impl Iterator<Item = &'static str> {
            [$(<crate::$name as Resource>::HEADING),*].into_iter().flatten()
        }

        /// All scopes of claims.
        pub fn scopes() -> impl Iterator<Item = Scope> {
            [$(<crate::$name as Resource>::CLAIMS),*].into_iter().flatten().copied()
        }

        /// The types of aggregates that belong to an organization and have keys of their own.
        pub fn types_with_keys_in_organizations() -> Vec<&'static str> {
            let types = [$((
                stringify!($name),
                <crate::$name as Resource>::HAS_KEY
                    && matches!(<crate::$name as Resource>::PLACE, Place::WithinOrganization),
            )),*];
            types.into_iter().filter(|(_, has_key)| *has_key).map(|(name, _)| name).collect()
        }
    };
}

crate::for_each_resource!(states);

fn decided<R: Registered>(state: &R, command: R::Command) -> Option<Vec<Event>>
where
    R::Event: Into<Event>,
{
    // Somebody has settled it meanwhile, or its time has not come.
    state.decided(command).ok().map(|events| events.into_iter().map(Into::into).collect())
}
