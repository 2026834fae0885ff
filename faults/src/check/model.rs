//! The state of everything as the checker understands the events: written from the description of the domain, not
//! from its code. Each kind of stream has its own state beside its rules, in [`crate::kinds`]; here stands what several of them
//! look at.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::event::Event;
use crate::kinds::organization::Organization;

/// How much of something is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub used: i64,
    /// At most so much; none is no limit.
    pub maximum: Option<i64>,
    /// At least so much.
    pub floor: i64,
    /// Whether it stands in the log that the maximum was reached, since there was last room.
    pub reached: bool,
}

/// Where a stream stands in the log.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// None of a user's.
    pub organization: String,
    pub partition: i16,
    pub version: i64,
    /// Of its last event.
    pub offset: i64,
}

impl Place {
    /// Moves on to the next event of the stream.
    pub fn move_to(&mut self, event: &Event) {
        if self.version == 0 {
            self.organization = event.organization.clone().unwrap_or_default();
            self.partition = event.partition;
        }
        (self.version, self.offset) = (event.version, event.offset);
    }

    /// Whether nothing happened to the stream so far.
    pub fn is_new(&self) -> bool {
        self.version == 0
    }

    /// A row of a read model: these columns, and those of the place.
    pub fn row(&self, mut columns: Value) -> Value {
        columns["partition"] = json!(self.partition);
        columns["version"] = json!(self.version);
        columns["offset"] = json!(self.offset);
        if !self.organization.is_empty() {
            columns["organization_id"] = json!(self.organization);
        }
        columns
    }
}

/// The holder of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub holder: String,
    pub organization: Option<String>,
    pub partition: i16,
    pub until: Option<DateTime<Utc>>,
}

/// A claim or a release of a key that is unique over all partitions.
#[derive(Debug, Clone)]
pub struct GlobalChange {
    pub transaction: i64,
    pub partition: i16,
    /// Where, for messages.
    pub place: String,
    pub scope: &'static str,
    pub key: String,
    /// The new claim; none is a release.
    pub claim: Option<Claim>,
    /// The stream that claims or releases.
    pub holder: String,
}

/// What a list would show of something at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Face {
    pub state: String,
    pub more: String,
}

/// Everything.
#[derive(Default)]
pub struct Model {
    /// The states of streams by kind; each is a map by stream.
    shelves: HashMap<TypeId, Box<dyn Any + Send>>,
    pub organizations: BTreeMap<String, Organization>,
    /// Claims by scope and key, as the database writes them.
    pub claims: BTreeMap<(String, String), Claim>,
    pub global_changes: Vec<GlobalChange>,
    /// Memberships by organization and user.
    pub membership_of: HashMap<(String, String), String>,
    /// The organization of each stream.
    pub organization_of: HashMap<String, String>,
    /// What was to be seen of each stream at each version, from 1.
    pub faces: HashMap<String, Vec<Face>>,
    /// Organizations of which the log says that their trails are pruned: nothing is left of them to be folded.
    pub pruned: BTreeSet<String>,
    /// Those of them of which some content may still be there.
    pub half_pruned: BTreeSet<String>,
    /// Streams whose last event destroyed the key of their personal data.
    pub keys_destroyed: HashSet<String>,
}

impl Model {
    fn shelf<T: Send + 'static>(&self) -> Option<&BTreeMap<String, T>> {
        self.shelves.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// The states of one kind by stream.
    pub fn all<T: Send + 'static>(&self) -> impl Iterator<Item = (&String, &T)> {
        self.shelf::<T>().into_iter().flatten()
    }

    /// The state of a stream.
    pub fn get<T: Send + 'static>(&self, stream: &str) -> Option<&T> {
        self.shelf::<T>()?.get(stream)
    }

    fn shelf_mut<T: Send + 'static>(&mut self) -> Option<&mut BTreeMap<String, T>> {
        let shelf = self.shelves.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(BTreeMap::<String, T>::new()));
        shelf.downcast_mut()
    }

    /// Takes the state of a stream; a new one where there is none.
    pub fn take<T: Default + Send + 'static>(&mut self, stream: &str) -> T {
        self.shelf_mut::<T>().and_then(|shelf| shelf.remove(stream)).unwrap_or_default()
    }

    /// Puts it back.
    pub fn put<T: Send + 'static>(&mut self, stream: &str, state: T) {
        if let Some(shelf) = self.shelf_mut::<T>() {
            shelf.insert(stream.to_owned(), state);
        }
    }

    /// Whether read models show what belongs to this organization: a purge leaves nothing.
    pub fn shows(&self, organization: &str) -> bool {
        self.organizations.get(organization).is_some_and(|organization| !organization.purged)
    }
}
