//! What an append is held against, kept in memory: versions of streams, claims, tallies, and the heads of the
//! partitions. Deciding is plain sequential code here, under the partitions' locks; it knows no database and can
//! be checked against a model.
//!
//! The writer fills in what is missing before it asks, applies what other replicas wrote, and forgets a partition
//! after any failure. So nothing here is ever believed that the log has not confirmed.

use std::collections::{BTreeMap, HashMap, HashSet};

use aggregates::ids::OrganizationId;
use aggregates::{Effect, Scope, StreamId};
use chrono::{DateTime, Utc};

/// A key and among what it is unique. Keys of one organization carry its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey {
    /// Among what it is unique.
    pub scope: Scope,
    /// The key, as stored.
    pub key: String,
}

impl ClaimKey {
    /// The key as stored: global, or within its organization.
    pub fn new(scope: Scope, key: &str, organization: Option<&OrganizationId>) -> Self {
        match organization {
            Some(organization) if !scope.is_global() => Self { scope, key: format!("{organization}/{key}") },
            _ => Self { scope, key: key.to_owned() },
        }
    }
}

/// The holder of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The id of the stream that holds it.
    pub holder: String,
    /// Whose it is, where it belongs to an organization.
    pub organization: Option<OrganizationId>,
    /// When it has run out.
    pub until: Option<DateTime<Utc>>,
}

/// How much of something is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Used.
    pub used: i64,
    /// At most so much; `None` is no limit.
    pub maximum: Option<i64>,
    /// At least so much.
    pub floor: i64,
    /// That the maximum was reached is on record since there was last room.
    pub reached: bool,
}

/// Why an append is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A stream is not at the expected version.
    Version {
        /// Which stream.
        stream: StreamId,
        /// What it was expected to be at.
        expected: u64,
        /// What it is at.
        actual: u64,
    },
    /// Somebody else holds the key.
    Taken {
        /// Which key.
        key: ClaimKey,
        /// The holder.
        holder: String,
    },
    /// More than the maximum.
    Limit {
        /// What is counted.
        name: String,
        /// The maximum.
        maximum: i64,
        /// What is used.
        used: i64,
        /// How much more was asked for.
        requested: i64,
        /// Whether it is on record already.
        recorded: bool,
    },
    /// Less than the floor.
    Floor {
        /// What is counted.
        name: String,
    },
    /// Something of it is used.
    Occupied {
        /// What is counted.
        name: String,
        /// How much is used.
        used: i64,
    },
}

/// What an append changes, as the ledger sees it.
pub struct Entry<'a> {
    /// The organization that it belongs to.
    pub organization: Option<&'a OrganizationId>,
    /// Streams that it relied upon or writes, with the versions that it expects.
    pub expected: &'a [(&'a StreamId, u64)],
    /// The streams that get events, with their versions after that.
    pub written: &'a [(StreamId, u64)],
    /// The changes to claims and tallies, each with the id of the stream that makes it.
    pub effects: &'a [(&'a str, &'a Effect)],
}

/// One partition's part of the ledger.
#[derive(Debug, Default)]
pub struct Partition {
    /// The last offset.
    pub head: i64,
    /// The code of that event.
    pub mac: super::chain::Mac,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Versions of streams; 0 is a stream that is not there.
    pub versions: HashMap<StreamId, u64>,
    /// The last audit sequence by organization. An organization that stands here has all its tallies here too.
    pub audit: HashMap<OrganizationId, i64>,
    /// Tallies by organization and name.
    pub tallies: HashMap<OrganizationId, BTreeMap<String, Tally>>,
    /// Claims within organizations; `None` is a key that nobody holds.
    pub claims: HashMap<ClaimKey, Option<Claim>>,
}

/// How many entries all partitions together keep in memory; one that has more than its share is forgotten.
const ENTRIES_MAX: usize = 1_000_000;

impl Partition {
    /// Whether it has grown so large that it should be read afresh.
    pub fn is_full(&self, partitions: usize) -> bool {
        let entries = self.versions.len() + self.audit.len() + self.tallies.len() + self.claims.len();
        entries > ENTRIES_MAX / partitions.max(1)
    }
}

/// What changed since the last commit, to be written with the events.
#[derive(Debug, Default)]
pub struct Changes {
    /// Claims, with the holder at the beginning of the batch.
    pub claims: BTreeMap<ClaimKey, Option<Claim>>,
    /// Tallies that changed.
    pub tallies: HashSet<(OrganizationId, String)>,
}

/// The claims that an entry finds, its own changes included.
struct Overlay<'a> {
    local: &'a HashMap<ClaimKey, Option<Claim>>,
    global: &'a HashMap<ClaimKey, Option<Claim>>,
    changed: HashMap<ClaimKey, Option<Claim>>,
}

impl Overlay<'_> {
    fn get(&self, key: &ClaimKey) -> Option<&Claim> {
        let known = if key.scope.is_global() { self.global } else { self.local };
        self.changed.get(key).or_else(|| known.get(key)).and_then(Option::as_ref)
    }
}

/// Holds `entry` against the ledger and, if it stands, enters it. `foreign` are the versions of streams in other
/// partitions, `global` the claims that are unique over all of them.
pub fn enter(
    partition: &mut Partition,
    global: &mut HashMap<ClaimKey, Option<Claim>>,
    foreign: &HashMap<StreamId, u64>,
    entry: &Entry<'_>,
    changes: &mut Changes,
) -> Result<(), Broken> {
    check_versions(partition, foreign, entry.expected)?;
    let claims = claims_after(partition, global, entry)?;
    let tallies = tallies_after(partition, entry)?;

    for (stream, version) in entry.written {
        partition.versions.insert(stream.clone(), *version);
    }
    for (key, claim) in claims {
        let known = if key.scope.is_global() { &mut *global } else { &mut partition.claims };
        let before = known.insert(key.clone(), claim).flatten();
        changes.claims.entry(key).or_insert(before);
    }
    if let (Some(organization), Some(tallies)) = (entry.organization, tallies) {
        let known = partition.tallies.entry(organization.clone()).or_default();
        for (name, tally) in tallies {
            if known.insert(name.clone(), tally) != Some(tally) {
                changes.tallies.insert((organization.clone(), name));
            }
        }
    }
    Ok(())
}

fn check_versions(
    partition: &Partition,
    foreign: &HashMap<StreamId, u64>,
    expected: &[(&StreamId, u64)],
) -> Result<(), Broken> {
    for (stream, expected) in expected {
        // Facts under this partition's own lock count before those seen of others.
        let actual = partition.versions.get(stream).or_else(|| foreign.get(stream)).copied().unwrap_or_default();
        if actual != *expected {
            return Err(Broken::Version { stream: (*stream).clone(), expected: *expected, actual });
        }
    }
    Ok(())
}

fn claims_after(
    partition: &Partition,
    global: &HashMap<ClaimKey, Option<Claim>>,
    entry: &Entry<'_>,
) -> Result<HashMap<ClaimKey, Option<Claim>>, Broken> {
    let mut overlay = Overlay { local: &partition.claims, global, changed: HashMap::new() };
    for (holder, effect) in entry.effects {
        match effect {
            Effect::Claim { scope, key, until } => {
                let key = ClaimKey::new(*scope, key, entry.organization);
                if let Some(claim) = overlay.get(&key).filter(|claim| claim.holder != **holder) {
                    return Err(Broken::Taken { holder: claim.holder.clone(), key });
                }
                let claim =
                    Claim { holder: (*holder).to_owned(), organization: entry.organization.cloned(), until: *until };
                overlay.changed.insert(key, Some(claim));
            }
            Effect::Release { scope, key } => {
                let key = ClaimKey::new(*scope, key, entry.organization);
                if overlay.get(&key).is_some_and(|claim| claim.holder == **holder) {
                    overlay.changed.insert(key, None);
                }
            }
            Effect::Tally { .. }
            | Effect::Maximum { .. }
            | Effect::Floor { .. }
            | Effect::Reached { .. }
            | Effect::Vacant { .. } => {}
        }
    }
    Ok(overlay.changed)
}

/// The tallies after all effects of the entry together: only what it increases is held against a maximum, and only
/// what it decreases against a floor.
fn tallies_after(partition: &Partition, entry: &Entry<'_>) -> Result<Option<BTreeMap<String, Tally>>, Broken> {
    let Some(organization) = entry.organization else { return Ok(None) };
    let before = partition.tallies.get(organization);
    let tally = |name: &str| before.and_then(|tallies| tallies.get(name)).copied().unwrap_or_default();
    let mut after: BTreeMap<String, Tally> = BTreeMap::new();
    for (_, effect) in entry.effects {
        if let Some(name) = tally_of(effect) {
            apply_to_tally(effect, after.entry(name.to_owned()).or_insert_with(|| tally(name)));
        }
    }
    for (name, after) in &after {
        let before = tally(name);
        if let Some(maximum) = after.maximum.filter(|maximum| after.used > before.used && after.used > *maximum) {
            let requested = after.used - before.used;
            return Err(Broken::Limit {
                name: name.clone(),
                maximum,
                used: before.used,
                requested,
                recorded: before.reached,
            });
        }
        if after.used < before.used && after.used < after.floor {
            return Err(Broken::Floor { name: name.clone() });
        }
    }
    for (_, effect) in entry.effects {
        if let Effect::Vacant { name } = effect {
            let used = after.get(name).copied().unwrap_or_else(|| tally(name)).used;
            if used > 0 {
                return Err(Broken::Occupied { name: name.clone(), used });
            }
        }
    }
    Ok(Some(after))
}

/// The tally that an effect changes, if it changes one.
pub fn tally_of(effect: &Effect) -> Option<&str> {
    match effect {
        Effect::Tally { name, .. } => Some(name),
        Effect::Floor { name, .. } => Some(name),
        Effect::Maximum { name, .. } | Effect::Reached { name } => Some(name),
        Effect::Claim { .. } | Effect::Release { .. } | Effect::Vacant { .. } => None,
    }
}

/// Applies an effect to the tally that it changes. Also how events of other replicas and a fold of the log do it.
pub fn apply_to_tally(effect: &Effect, tally: &mut Tally) {
    match effect {
        Effect::Tally { by, .. } => {
            tally.used += by;
            // A decrease makes room: the next refusal is worth a record again.
            tally.reached &= *by >= 0;
        }
        Effect::Maximum { maximum, .. } => {
            tally.maximum = maximum.map(|maximum| i64::try_from(maximum).unwrap_or(i64::MAX));
            tally.reached = false;
        }
        Effect::Floor { floor, .. } => tally.floor = i64::try_from(*floor).unwrap_or(i64::MAX),
        Effect::Reached { .. } => tally.reached = true,
        Effect::Claim { .. } | Effect::Release { .. } | Effect::Vacant { .. } => {}
    }
}

/// Takes over an event that another replica wrote to this partition.
pub fn follow(partition: &mut Partition, organization: Option<&OrganizationId>, holder: &StreamId, effects: &[Effect]) {
    for effect in effects {
        match effect {
            Effect::Claim { scope, key, until } if !scope.is_global() => {
                let claim =
                    Claim { holder: holder.id().to_owned(), organization: organization.cloned(), until: *until };
                partition.claims.insert(ClaimKey::new(*scope, key, organization), Some(claim));
            }
            Effect::Release { scope, key } if !scope.is_global() => {
                let key = ClaimKey::new(*scope, key, organization);
                // As in `enter`: only its holder releases a key. One that is not known here stays unknown.
                if let Some(claim) = partition.claims.get_mut(&key)
                    && claim.as_ref().is_some_and(|claim| claim.holder == holder.id())
                {
                    *claim = None;
                }
            }
            // Global claims are looked up each time, under their own locks.
            Effect::Claim { .. } | Effect::Release { .. } | Effect::Vacant { .. } => {}
            Effect::Tally { .. } | Effect::Maximum { .. } | Effect::Floor { .. } | Effect::Reached { .. } => {
                // Without the organization's tallies in memory there is nothing to keep true.
                let tallies = organization.and_then(|organization| partition.tallies.get_mut(organization));
                if let (Some(tallies), Some(name)) = (tallies, tally_of(effect)) {
                    apply_to_tally(effect, tallies.entry(name.to_owned()).or_default());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
