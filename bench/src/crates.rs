//! cqrs-es with postgres-es as shipped: the reference that one gets for nothing.
//!
//! The aggregate is the service's own `Project`, which implements cqrs-es's trait; the tables are those of
//! postgres-es's own script; a command goes through `PostgresCqrs::execute`. It knows no organizations, standing,
//! claims, tallies or encryption, and its events carry no request columns: it does less.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aggregates::Project;
use aggregates::ids::{Id, ProjectId};
use aggregates::project::ProjectCommand;
use chrono::Utc;
use postgres_es::{PostgresCqrs, postgres_cqrs};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::Executor;
use tokio::task::JoinSet;

use crate::figures::commands::{IN_FLIGHT, slug};
use crate::http::count;
use crate::server::{Database, Server};

/// Sizes of pools that are tried.
const POOLS: [u32; 5] = [8, 16, 32, 64, 128];

/// As `init.sql` of postgres-es 0.5.0 has it.
const TABLE: &str = "CREATE TABLE events (
    aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint CHECK (sequence >= 0) NOT NULL,
    event_type text NOT NULL, event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence))";

/// A database of theirs, with as many existing streams as ours has.
pub struct Shipped {
    database: Database,
    existing: Arc<Vec<String>>,
}

impl Shipped {
    /// Ten projects for each organization that ours has.
    pub async fn new(server: &Server, organizations: usize) -> Self {
        let database = server.database("bench_crates").await;
        database.pool(1).await.execute(TABLE).await.expect("their table can be made");
        let existing: Vec<String> = (0..organizations * 10).map(|_| ProjectId::random().to_string()).collect();
        let shipped = Self { database, existing: Arc::new(existing) };
        let cqrs = shipped.cqrs(32).await;
        crate::parallel::each(32, shipped.existing.to_vec(), move |id| {
            let cqrs = cqrs.clone();
            async move { cqrs.execute(&id, create(&id)).await.expect("their command is accepted") }
        })
        .await;
        shipped.database.pool(1).await.execute("VACUUM ANALYZE").await.expect("the planner learns the table");
        shipped
    }

    async fn cqrs(&self, connections: u32) -> Arc<PostgresCqrs<Project>> {
        Arc::new(postgres_cqrs(self.database.pool(connections).await, vec![], ()))
    }

    /// The size of a pool with which it is fastest.
    pub async fn best_pool(&self, time: Duration) -> u32 {
        let mut best = (0, 0.0);
        for connections in POOLS {
            let rate = self.rate(connections, time).await;
            if rate > best.1 {
                best = (connections, rate);
            }
        }
        best.0
    }

    /// Commands a second, half of them creations, half renamings.
    pub async fn rate(&self, connections: u32, time: Duration) -> f64 {
        let cqrs = self.cqrs(connections).await;
        let (done, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (cqrs, existing, done, over) = (cqrs.clone(), self.existing.clone(), done.clone(), over.clone());
            tasks.spawn(async move {
                let mut random = StdRng::from_os_rng();
                while !over.load(Ordering::Relaxed) {
                    one(&cqrs, &existing, &mut random).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let rate = count(&done, time).await;
        over.store(true, Ordering::Relaxed);
        while let Some(task) = tasks.join_next().await {
            task.expect("their commands are accepted");
        }
        rate
    }
}

async fn one(cqrs: &PostgresCqrs<Project>, existing: &[String], random: &mut StdRng) {
    if random.random() {
        let id = ProjectId::random().to_string();
        cqrs.execute(&id, create(&id)).await.expect("their command is accepted");
        return;
    }
    // It does not repeat what lost a race; whoever uses it has to.
    loop {
        let id = &existing[random.random_range(0..existing.len())];
        let name = Some(format!("Project {}", slug()));
        let rename = ProjectCommand::Update { name, slug: None, metadata: None, reason: None };
        match cqrs.execute(id, rename).await {
            Ok(()) => return,
            Err(cqrs_es::AggregateError::AggregateConflict) => {}
            Err(error) => panic!("their command failed: {error}"),
        }
    }
}

fn create(id: &str) -> ProjectCommand {
    let slug = slug();
    ProjectCommand::Create {
        id: id.to_owned(),
        name: format!("Project {slug}"),
        slug,
        metadata: None,
        reason: None,
        at: Utc::now(),
    }
}
