//! A tree that grows, and what is written of it.

use std::collections::BTreeMap;

use super::super::heads::TreeHead;
use super::super::merkle::{Frontier, Hash};
use super::{TILE, TILE_HEIGHT};

/// A tree that grows.
pub(super) struct Tree {
    /// Whether it is there already. One that is and has failed is left as it is.
    pub(super) begun: bool,
    pub(super) frontier: Frontier,
    pub(super) failure: Option<String>,
    pub(super) partition: i16,
    /// New hashes by level and number.
    pub(super) added: BTreeMap<(i16, u64), Hash>,
    /// What was known of it elsewhere and is still to come, and what it was before it grew.
    pub(super) known: Option<(TreeHead, Frontier)>,
    /// Whether it is so far behind that what is new has to wait.
    pub(super) behind: bool,
    /// Whether its failure was on record already: standing verification speaks of that.
    pub(super) failed_before: bool,
}

impl Tree {
    pub(super) fn new(partition: i16) -> Self {
        let (frontier, added) = (Frontier::default(), BTreeMap::new());
        Self {
            begun: false,
            frontier,
            failure: None,
            partition,
            added,
            known: None,
            behind: false,
            failed_before: false,
        }
    }

    /// Holds it against what is known of it elsewhere.
    pub(super) fn expect(&mut self, known: Option<TreeHead>, epoch: i64) {
        match known {
            Some(known) if known.epoch != epoch => {}
            Some(known) if known.size > self.frontier.size() => self.known = Some((known, self.frontier.clone())),
            Some(known) if known.size == self.frontier.size() && known.root != self.frontier.root() => {
                self.fail(format!("another tree of {} events was signed before", known.size));
            }
            Some(_) | None => {}
        }
    }

    /// Takes in the leaf of this number, which is that of `id`.
    pub(super) fn grow(&mut self, leaf: Hash, id: &str, number: i64) {
        if self.failure.is_some() || self.behind {
            return;
        }
        let expected = self.frontier.size() + 1;
        if number.unsigned_abs() != expected {
            self.fail(format!("event {id} has the audit sequence {number}, where {expected} follows"));
            return;
        }
        let (index, added) = (self.frontier.size(), &mut self.added);
        self.frontier.push(leaf, |height, root| {
            if height % TILE_HEIGHT == 0 {
                let level = i16::try_from(height / TILE_HEIGHT).unwrap_or(i16::MAX);
                added.insert((level, index >> height), *root);
            }
        });
        let Some((known, before)) = self.known.take_if(|(known, _)| known.size == self.frontier.size()) else { return };
        if known.root != self.frontier.root() {
            self.give_up(before, format!("another tree of {} events was signed before", known.size));
        }
    }

    /// At the end of what was read.
    pub(super) fn end(&mut self, more: bool) {
        if more || self.failure.is_some() {
            return;
        }
        if let Some((known, before)) = self.known.take() {
            let (signed, there) = (known.size, self.frontier.size());
            self.give_up(before, format!("a tree of {signed} events was signed before, and {there} events are there"));
        }
    }

    pub(super) fn fail(&mut self, failure: String) {
        _ = self.failure.get_or_insert(failure);
    }

    /// Fails, and nothing of it is signed.
    pub(super) fn give_up(&mut self, before: Frontier, failure: String) {
        self.fail(failure);
        self.frontier = before;
        self.added.clear();
    }
}

/// Columns of `sealed_trees`.
#[derive(Default)]
pub(super) struct Heads<'a> {
    pub(super) organizations: Vec<&'a str>,
    pub(super) sizes: Vec<i64>,
    pub(super) peaks: Vec<Vec<u8>>,
    pub(super) roots: Vec<Vec<u8>>,
    pub(super) notes: Vec<String>,
    pub(super) failures: Vec<Option<&'a str>>,
    pub(super) partitions: Vec<i16>,
}

/// Organizations that are not sealed any further.
#[derive(Default)]
pub(super) struct Failures<'a> {
    pub(super) organizations: Vec<&'a str>,
    pub(super) texts: Vec<&'a str>,
}

/// Columns of `sealed_hashes`.
#[derive(Default)]
pub(super) struct Runs<'a> {
    pub(super) organizations: Vec<&'a str>,
    pub(super) levels: Vec<i16>,
    pub(super) firsts: Vec<i64>,
    pub(super) hashes: Vec<Vec<u8>>,
    pub(super) partitions: Vec<i16>,
}

impl<'a> Runs<'a> {
    /// One hash, after all smaller numbers of its level.
    pub(super) fn add(&mut self, organization: &'a str, partition: i16, level: i16, number: u64, hash: &Hash) {
        let continues = self.organizations.last() == Some(&organization)
            && self.levels.last() == Some(&level)
            && !number.is_multiple_of(TILE);
        match self.hashes.last_mut().filter(|_| continues) {
            Some(run) => run.extend(hash),
            None => {
                self.organizations.push(organization);
                self.partitions.push(partition);
                self.levels.push(level);
                self.firsts.push(number.cast_signed());
                self.hashes.push(hash.to_vec());
            }
        }
    }
}
