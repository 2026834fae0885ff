//! The two long logs that figures of size share: one of 10,000 events, and a large one (1,000,000; 10,000,000 with
//! `--full`). Half of the first and a tenth of the second (at least; 100,000 members) is one organization; the rest
//! are usual ones.

use std::time::Instant;

use crate::fill::{Filled, Filler, Shape};
use crate::server::{Database, Server};

/// A long log.
pub struct Log {
    /// Where it is.
    pub database: Database,
    /// How many events it has.
    pub events: usize,
    /// Its one large organization.
    pub large: Filled,
    /// An organization of 10 members and about as many events.
    pub tiny: Filled,
    /// Some of the others.
    pub usual: Vec<Filled>,
    /// How long it took to write it.
    pub seconds: f64,
}

impl Log {
    /// Writes one of so many events, `members` of them members of one organization.
    pub async fn write(server: &Server, name: &str, events: usize, members: usize) -> Self {
        let begin = Instant::now();
        let (database, mut filler) = Filler::new(server, name).await;
        let mut usual = filler.usual_until((events - members) / 2).await;
        let large = filler.organization(Shape { invited: 0, added: members, projects: 0 }).await;
        let tiny = filler.organization(Shape { invited: 0, added: 9, projects: 0 }).await;
        usual.extend(filler.usual_until(events).await);
        let written = filler.written_in_all();
        filler.finish().await;
        Self { database, events: written, large, tiny, usual, seconds: begin.elapsed().as_secs_f64() }
    }
}
