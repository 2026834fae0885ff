//! One statement for what the resolvers of a level ask for at the same time.
//!
//! async-graphql's own loader waits by a timer of another thread, which costs two switches between threads for every
//! batch. Resolvers of a level run within one task, so it suffices that each lets the others come first, once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::Error;
use tokio::sync::OnceCell;

/// Finds many things at once.
pub trait Load<K: Hash + Eq>: Send + Sync {
    /// What is found.
    type Value: Clone + Send + Sync;

    /// What there is of these.
    fn load(&self, keys: &[K]) -> impl Future<Output = Result<HashMap<K, Self::Value>, Error>> + Send;
}

/// Collects keys, and has them loaded together. Nothing is kept for later: a command may come between.
pub struct Batcher<K: Hash + Eq, L: Load<K>> {
    loader: L,
    open: Mutex<Open<K, L::Value>>,
}

/// The batch that may still be joined.
type Open<K, V> = Option<Arc<Batch<K, V>>>;

/// Keys that are loaded together, and what was found.
struct Batch<K, V> {
    keys: Mutex<HashSet<K>>,
    found: OnceCell<Result<HashMap<K, V>, Error>>,
}

impl<K: Hash + Eq + Clone + Send + Sync, L: Load<K>> Batcher<K, L> {
    /// Over this loader.
    pub fn new(loader: L) -> Self {
        Self { loader, open: Mutex::new(None) }
    }

    /// What there is of `key`, loaded with what others ask for meanwhile.
    pub async fn load_one(&self, key: K) -> Result<Option<L::Value>, Error> {
        let batch = self.join(key.clone());
        tokio::task::yield_now().await;
        self.close(&batch);
        let found = batch.found.get_or_init(|| async {
            // Left where they are: whoever loads may be given up half-way, and another one loads them then.
            let keys: Vec<K> = batch.keys.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
            self.loader.load(&keys).await
        });
        found.await.as_ref().map(|found| found.get(&key).cloned()).map_err(Clone::clone)
    }

    fn join(&self, key: K) -> Arc<Batch<K, L::Value>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Batch { keys: Mutex::default(), found: OnceCell::new() });
        let batch = open.get_or_insert_with(new);
        batch.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        batch.clone()
    }

    /// Callers from now on have another batch.
    fn close(&self, batch: &Arc<Batch<K, L::Value>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, batch)) {
            *open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Finds the square of every number, and counts how often it is asked.
    #[derive(Default)]
    struct Squares(AtomicUsize);

    impl Load<u32> for Squares {
        type Value = u32;

        async fn load(&self, keys: &[u32]) -> Result<HashMap<u32, u32>, Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(keys.iter().map(|key| (*key, key * key)).collect())
        }
    }

    #[tokio::test]
    async fn what_a_level_asks_for_is_loaded_once() {
        let batcher = Batcher::new(Squares::default());
        let found = futures_util::future::join_all([2, 3, 2, 5].map(|key| batcher.load_one(key))).await;
        assert_eq!(found.into_iter().map(|found| found.unwrap().unwrap()).collect::<Vec<_>>(), [4, 9, 4, 25]);
        assert_eq!(batcher.loader.0.load(Ordering::Relaxed), 1);
        assert_eq!(batcher.load_one(2).await.unwrap(), Some(4));
        assert_eq!(batcher.loader.0.load(Ordering::Relaxed), 2, "nothing is kept for later");
    }

    #[tokio::test]
    async fn who_loads_for_others_and_is_given_up_leaves_them_nothing_less() {
        let batcher = Batcher::new(Squares::default());
        let (mut first, mut second) = (Box::pin(batcher.load_one(2)), Box::pin(batcher.load_one(3)));
        // Both join the batch; then the first closes it and begins to load.
        assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending());
        assert!(futures_util::poll!(&mut first).is_pending());
        assert_eq!(batcher.loader.0.load(Ordering::Relaxed), 1);
        drop(first);
        assert_eq!(second.await.unwrap(), Some(9));
    }
}
