//! Events of any aggregate, as the log stores and reads them.

use cqrs_es::Aggregate;
use cqrs_es::persist::{EventUpcaster, SerializedEvent};
use serde::Serialize;
use serde_json::{Value, json};

use crate::event::{Declared, Descriptor, PersonalVisitor};
use crate::guard::Effect;
use crate::resource::Resource;

/// A stored event that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {event_type} {event_version} of {aggregate_type}: {reason}")]
pub struct UnreadableEvent {
    aggregate_type: String,
    event_type: String,
    event_version: String,
    reason: String,
}

macro_rules! streams {
    ($($(#[$doc:meta])* $name:ident: $id:ident = $prefix:literal;)*) => {
        /// The stream of one aggregate.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum StreamId {
            $($(#[$doc])* $name(crate::ids::$id),)*
        }

        impl StreamId {
            /// The aggregate's type, as stored.
            pub const fn aggregate_type(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }
            /// The aggregate's id, as stored.
            pub fn id(&self) -> &str {
                match self { $(Self::$name(id) => id.as_ref(),)* }
            }
            /// The stream of a stored event.
            pub fn from_stored(aggregate_type: &str, id: &str) -> Option<Self> {
                match aggregate_type {
                    $(stringify!($name) => id.parse().ok().map(Self::$name),)*
                    _ => None,
                }
            }
            /// The stream that this id, of whatever kind, names.
            pub fn from_id(id: &str) -> Option<Self> {
                $(if let Ok(id) = id.parse() { return Some(Self::$name(id)); })*
                None
            }
        }

        $(impl From<crate::ids::$id> for StreamId {
            fn from(id: crate::ids::$id) -> Self { Self::$name(id) }
        })*

        /// An event of any aggregate.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        #[allow(clippy::large_enum_variant)]
        pub enum Event {
            $($(#[$doc])* $name(<crate::$name as Aggregate>::Event),)*
            /// One of an organization that was purged and whose trail's retention is over ([`PRUNED`]): that there was
            /// an event is all that is left of it. Nobody appends it.
            Pruned,
        }

        impl Event {
            /// Its declaration.
            pub fn descriptor(&self) -> &'static Descriptor {
                match self { $(Self::$name(event) => event.descriptor(),)* Self::Pruned => &PRUNED }
            }
            /// Which claims and tallies it changes.
            pub fn effects(&self) -> Vec<Effect> {
                match self { $(Self::$name(event) => event.effects(),)* Self::Pruned => vec![] }
            }
            /// Shows `visit` each personal datum with the name of its field.
            pub fn visit_personal(&mut self, visit: &mut PersonalVisitor<'_>) {
                match self { $(Self::$name(event) => event.visit_personal(visit),)* Self::Pruned => {} }
            }
            fn parse(aggregate_type: &str, payload: &str) -> Result<Self, String> {
                match aggregate_type {
                    $(stringify!($name) => serde_json::from_str(payload).map(Self::$name).map_err(|e| e.to_string()),)*
                    _ => Err("no such aggregate".to_owned()),
                }
            }
        }

        $(impl From<<crate::$name as Aggregate>::Event> for Event {
            fn from(event: <crate::$name as Aggregate>::Event) -> Self { Self::$name(event) }
        })*

        /// The declarations of all events, in order.
        pub fn descriptors() -> impl Iterator<Item = &'static Descriptor> {
            [$(<<crate::$name as Aggregate>::Event as Declared>::DESCRIPTORS),*].into_iter().flatten()
        }

        /// The declarations of the events that belong to an organization, in order.
        pub fn descriptors_of_organizations() -> impl Iterator<Item = &'static Descriptor> {
            let own = [$((
                <crate::$name as Resource>::PLACE.is_of_organization(),
                <<crate::$name as Aggregate>::Event as Declared>::DESCRIPTORS,
            )),*];
            own.into_iter().filter(|(of_organization, _)| *of_organization).flat_map(|(_, events)| events)
        }
    };
}

crate::for_each_resource!(streams);

/// What takes the place of an event's declaration once it was pruned. It is no event that anybody reads of: the readers
/// of trails, feeds and exports leave it out.
pub static PRUNED: Descriptor =
    Descriptor { name: "Pruned", version: "1.0", description: "The content of this event was removed.", fields: &[] };

/// What turns older shapes of events into today's, in order. An event whose shape changes gets a new version in
/// its declaration and an entry here; its old golden JSON stays and must still be read.
pub fn upcasters() -> Vec<Box<dyn EventUpcaster>> {
    vec![Box::new(ReasonOfRevocation)]
}

/// `TokenRevoked` 1.0 has its reason as plain text, which stays readable: it reads as a datum of the token.
struct ReasonOfRevocation;

impl EventUpcaster for ReasonOfRevocation {
    fn can_upcast(&self, event_type: &str, event_version: &str) -> bool {
        event_type == "TokenRevoked" && event_version == "1.0"
    }

    fn upcast(&self, mut event: SerializedEvent) -> SerializedEvent {
        if let Some(Value::String(reason)) = event.payload.pointer("/TokenRevoked/reason").cloned() {
            event.payload["TokenRevoked"]["reason"] = json!({"of": event.aggregate_id, "value": reason});
        }
        event
    }
}

impl Event {
    /// Reads a stored event, bringing an older version up to date with `upcasters`.
    pub fn from_stored(
        stream: &StreamId,
        event_type: &str,
        event_version: &str,
        payload: &str,
        upcasters: &[Box<dyn EventUpcaster>],
    ) -> Result<Self, UnreadableEvent> {
        if event_type == PRUNED.name {
            return Ok(Self::Pruned);
        }
        let aggregate_type = stream.aggregate_type();
        let unreadable = |reason: String| UnreadableEvent {
            aggregate_type: aggregate_type.to_owned(),
            event_type: event_type.to_owned(),
            event_version: event_version.to_owned(),
            reason,
        };
        if !upcasters.iter().any(|upcaster| upcaster.can_upcast(event_type, event_version)) {
            return Self::parse(aggregate_type, payload).map_err(unreadable);
        }
        let stored = SerializedEvent::new(
            stream.id().to_owned(),
            0,
            aggregate_type.to_owned(),
            event_type.to_owned(),
            event_version.to_owned(),
            serde_json::from_str(payload).map_err(|e| unreadable(e.to_string()))?,
            Value::Null,
        );
        let upcast = upcasters.iter().fold(stored, |event, upcaster| {
            if upcaster.can_upcast(&event.event_type, &event.event_version) { upcaster.upcast(event) } else { event }
        });
        Self::parse(aggregate_type, &upcast.payload.to_string()).map_err(unreadable)
    }
}
