//! Which trees have grown and are to be shown to witnesses.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The most names that are kept; past that all trees are shown.
const NAMES_MAX: usize = 100_000;

/// The names of trees. The sealer adds to them, and never waits.
#[derive(Debug)]
pub struct Due {
    /// Whether anybody takes them.
    wanted: bool,
    names: Mutex<BTreeSet<String>>,
    overflowed: AtomicBool,
    added: Notify,
}

impl Due {
    /// Keeps names, if there are witnesses to show trees to.
    pub fn new(wanted: bool) -> Self {
        Self { wanted, names: Mutex::default(), overflowed: AtomicBool::new(false), added: Notify::new() }
    }

    /// Adds trees that have grown.
    pub fn add(&self, names: impl IntoIterator<Item = String>) {
        if !self.wanted {
            return;
        }
        let mut kept = self.names();
        for name in names {
            if kept.len() < NAMES_MAX {
                kept.insert(name);
            } else {
                self.overflowed.store(true, Ordering::Relaxed);
            }
        }
        drop(kept);
        self.added.notify_one();
    }

    /// Takes some.
    pub fn take(&self, most: usize) -> Vec<String> {
        let mut kept = self.names();
        (0..most).map_while(|_| kept.pop_first()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    /// Whether some were left out since this was asked last.
    pub fn overflowed(&self) -> bool {
        self.overflowed.swap(false, Ordering::Relaxed)
    }

    /// Waits until some are added.
    pub async fn changed(&self) {
        self.added.notified().await;
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
