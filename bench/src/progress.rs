//! All that this program knows of read models by the crate that makes them.

use projections::{Progress, Projection};
use tenancy::service::Core;
use tokio::sync::watch;

/// How far the read models of a service in this process are.
#[derive(Clone)]
pub struct Shown(watch::Receiver<Progress>);

impl Shown {
    /// Of this service.
    pub fn of(core: &Core) -> Self {
        Self(core.runtime.progress())
    }

    /// Waits for the next step of any of them.
    pub async fn changed(&mut self) {
        let _ = self.0.changed().await;
    }

    /// The offset of a partition that all of them show.
    pub fn in_all(&self, partition: i16) -> i64 {
        let progress = self.0.borrow();
        Projection::ALL.iter().map(|one| progress.get(&(*one, partition)).copied().unwrap_or(0)).min().unwrap_or(0)
    }
}

/// By which a connection finds the read models.
pub fn search_path() -> String {
    projections::search_path()
}

/// Read models by name.
pub fn names() -> Vec<&'static str> {
    Projection::ALL.iter().map(|one| one.name()).collect()
}

/// The database schema of each read model.
pub fn schemas() -> Vec<String> {
    Projection::ALL.iter().map(|one| one.schema()).collect()
}
