//! Many at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

/// Does `work` with each of `items`, `width` at a time, each in a task of its own; gives the results in order.
pub async fn each<T, R, W, F>(width: usize, items: impl IntoIterator<Item = T>, work: W) -> Vec<R>
where
    T: Send + 'static,
    R: Send + 'static,
    W: Fn(T) -> F + Clone + Send + 'static,
    F: Future<Output = R> + Send,
{
    let queue: Arc<Mutex<VecDeque<(usize, T)>>> = Arc::new(Mutex::new(items.into_iter().enumerate().collect()));
    let mut workers = JoinSet::new();
    for _ in 0..width {
        let (queue, work) = (queue.clone(), work.clone());
        workers.spawn(async move {
            let mut done = vec![];
            loop {
                let next = queue.lock().expect("nobody panics here").pop_front();
                let Some((place, item)) = next else { return done };
                done.push((place, work(item).await));
            }
        });
    }
    let mut results = vec![];
    while let Some(done) = workers.join_next().await {
        results.extend(done.expect("the work is done"));
    }
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}
