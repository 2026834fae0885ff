//! Making a read model afresh while the old one serves.
//!
//! The new tables lie in a schema of their own, and are filled by the same statements: only the search path of the
//! connections is another. When they are level they are compared with the old ones at equal positions, and take
//! their name in one short transaction; connections that serve find them there by themselves, because plans follow
//! names. What a rebuild has done lies in the database: killed anywhere, it goes on where it stopped, and whoever
//! is free goes on with it. Each projection is rebuilt by one process at a time, by a lock of its session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgExecutor, PgPool};
use tokio::sync::watch;

use crate::checkpoints::{self, Tables};
use crate::runtime::{Runtime, Step};
use crate::source::{Failure, Source};
use crate::tables::{Difference, Rows, copy_indexes, copy_layout, difference, tables};
use crate::{Projection, directory, search_path_with};

/// The first half of the advisory lock of a projection's rebuild; the second is the projection.
pub(crate) const REBUILD_LOCKS: i32 = 0x7e9b;
/// Which program fills the new tables.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");
/// How many connections there are for filling the new tables: each of three workers has partitions of its own.
const CONNECTIONS: u32 = 3;
/// New tables that are behind by no more events than these are level enough to be compared and taken.
const NEAR_EVENTS: i64 = 1_000;
/// How often it is tried to find both read models at the same place, before that is given up.
const COMPARE_TRIES: usize = 20;
/// How often it is tried to swap, where the old tables have to catch up first.
const SWAP_TRIES: usize = 200;
/// How long the old tables may keep somebody from removing them.
const DROP_WAIT: &str = "2s";
const PAUSE: Duration = Duration::from_millis(50);

/// What a rebuild is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Looking for what an earlier one left.
    #[default]
    Preparing,
    /// Filling the new tables: events shown, of so many.
    Filling {
        /// Events that the new tables show.
        done: i64,
        /// Events of the log.
        of: i64,
    },
    /// Making indexes.
    Indexing,
    /// Comparing with the old tables: partitions compared, of so many.
    Comparing {
        /// Partitions that were compared.
        done: i64,
        /// Partitions of the log, times projections.
        of: i64,
    },
    /// Putting the new tables in the place of the old ones.
    Swapping,
}

/// What became of a rebuild.
#[derive(Debug)]
pub enum Rebuilt {
    /// The new tables serve.
    Done {
        /// Events that they were made from.
        events: i64,
        /// Where the old ones were different.
        differences: Vec<Difference>,
        /// Partitions that could not be compared, because the old tables were behind.
        not_compared: usize,
    },
    /// Another process is at it.
    Elsewhere,
}

/// What rebuilds need.
pub struct Rebuilder<S> {
    options: PgConnectOptions,
    source: Arc<S>,
    partitions: i16,
}

/// Which projections of this program have a rebuild that is not done.
pub async fn unfinished(pool: impl PgExecutor<'_>) -> Result<Vec<Projection>, sqlx::Error> {
    let rows = sqlx::query!("SELECT projection, version FROM rebuilds").fetch_all(pool).await?;
    let wanted = |p: &Projection| rows.iter().any(|row| row.projection == p.name() && row.version == p.version());
    Ok(Projection::ALL.iter().copied().filter(wanted).collect())
}

/// Locks the rebuilds of these for a session; whether all of them were free.
async fn lock(control: &mut PgConnection, projections: &[Projection]) -> Result<bool, sqlx::Error> {
    for projection in projections {
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(REBUILD_LOCKS)
            .bind(projection.lock())
            .fetch_one(&mut *control)
            .await?;
        if !locked {
            return Ok(false);
        }
    }
    Ok(true)
}

impl<S: Source> Rebuilder<S> {
    /// Over the database that `options` lead to.
    pub fn new(options: PgConnectOptions, source: Arc<S>, partitions: i16) -> Self {
        Self { options, source, partitions }
    }

    fn options(&self, projections: &[Projection]) -> PgConnectOptions {
        let settings = [
            ("search_path", search_path_with(projections)),
            // What is lost with the server is made again: its checkpoint is lost with it.
            ("synchronous_commit", "off".to_owned()),
            ("statement_timeout", "0".to_owned()),
            ("idle_session_timeout", "0".to_owned()),
            ("idle_in_transaction_session_timeout", "60000".to_owned()),
            ("maintenance_work_mem", "256MB".to_owned()),
            ("tcp_keepalives_idle", "5".to_owned()),
            ("tcp_keepalives_interval", "2".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ];
        self.options.clone().options(settings).application_name("tenancy rebuild")
    }

    /// Rebuilds these projections, reading the log once for all of them.
    ///
    /// # Errors
    ///
    /// Whatever the database or the log answer; what was done until then is kept, and used by the next try.
    pub async fn run(
        self: Arc<Self>,
        projections: Vec<Projection>,
        stage: watch::Sender<Stage>,
    ) -> Result<Rebuilt, Failure> {
        let mut control = self.options(&projections).connect().await?;
        if !lock(&mut control, &projections).await? {
            // The request stands, and the next free process carries it out.
            for projection in &projections {
                request(&mut control, *projection).await?;
            }
            return Ok(Rebuilt::Elsewhere);
        }
        self.rebuild(control, projections, stage).await
    }

    /// Goes on with a rebuild that was asked for and left behind, unless somebody is at it, or has done it since it was
    /// looked for.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub async fn carry_on(self: Arc<Self>, projection: Projection) -> Result<Rebuilt, Failure> {
        let mut control = self.options(&[projection]).connect().await?;
        // A process that finishes takes the request back before it frees the lock.
        if !lock(&mut control, &[projection]).await? || !unfinished(&mut control).await?.contains(&projection) {
            return Ok(Rebuilt::Elsewhere);
        }
        self.rebuild(control, vec![projection], watch::channel(Stage::default()).0).await
    }

    /// Rebuilds what is locked by the session of `control`, which lives as long as the work.
    async fn rebuild(
        self: Arc<Self>,
        mut control: PgConnection,
        projections: Vec<Projection>,
        stage: watch::Sender<Stage>,
    ) -> Result<Rebuilt, Failure> {
        for projection in &projections {
            prepare(&mut control, *projection, self.partitions).await?;
        }
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(self.options(&projections));
        let work = Work {
            runtime: Runtime::over(
                pool.clone(),
                self.source.clone(),
                self.partitions,
                projections.clone(),
                Tables::Shadow,
            ),
            source: self.source.clone(),
            pool,
            projections,
            stage,
        };
        let rebuilt = work.run(&mut control).await?;
        control.close().await?;
        Ok(rebuilt)
    }
}

/// Finds the new tables of an earlier try, or makes them.
async fn prepare(connection: &mut PgConnection, projection: Projection, partitions: i16) -> Result<(), Failure> {
    let (serving, next, old) = schemas(projection);
    let mut transaction = connection.begin().await?;
    let begun_by = request(&mut transaction, projection).await?;
    sqlx::query(&format!("DROP SCHEMA IF EXISTS {old} CASCADE")).execute(&mut *transaction).await?;
    let begun = checkpoints::offsets(&mut transaction, projection, Tables::Shadow, false).await?;
    // What another program filled may be what its successor is to mend.
    let fits = begun_by == PROGRAM
        && begun.len() == usize::from(partitions.unsigned_abs())
        && tables(&mut transaction, &serving).await? == tables(&mut transaction, &next).await?;
    if !fits {
        sqlx::query(&format!("DROP SCHEMA IF EXISTS {next} CASCADE")).execute(&mut *transaction).await?;
        sqlx::query(&format!("CREATE SCHEMA {next}")).execute(&mut *transaction).await?;
        copy_layout(&mut transaction, &serving, &next).await?;
        // The rights to read, as of the old ones: these are not copied with a table.
        sqlx::query("SELECT protect_read_model($1)").bind(&next).execute(&mut *transaction).await?;
        for table in ["checkpoints", "parked"] {
            sqlx::query(&format!("DELETE FROM {table} WHERE projection = $1 AND version = $2 AND shadow"))
                .bind(projection.name())
                .bind(projection.version())
                .execute(&mut *transaction)
                .await?;
        }
        checkpoints::make(&mut transaction, &[projection], Tables::Shadow, partitions).await?;
        sqlx::query("UPDATE rebuilds SET program = $3 WHERE projection = $1 AND version = $2")
            .bind(projection.name())
            .bind(projection.version())
            .bind(PROGRAM)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Puts on record that a rebuild is wanted, and says which program began it.
async fn request(connection: &mut PgConnection, projection: Projection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO rebuilds (projection, version) VALUES ($1, $2)
         ON CONFLICT (projection, version) DO UPDATE SET program = rebuilds.program RETURNING program",
    )
    .bind(projection.name())
    .bind(projection.version())
    .fetch_one(connection)
    .await
}

fn schemas(projection: Projection) -> (String, String, String) {
    let serving = projection.schema();
    (serving.clone(), format!("{serving}_next"), format!("{serving}_old"))
}

/// A rebuild that is under way.
struct Work<S> {
    runtime: Runtime<S>,
    source: Arc<S>,
    /// Connections that find the new tables.
    pool: PgPool,
    projections: Vec<Projection>,
    stage: watch::Sender<Stage>,
}

impl<S: Source> Work<S> {
    async fn run(&self, control: &mut PgConnection) -> Result<Rebuilt, Failure> {
        for projection in &self.projections {
            self.allow(control, *projection).await?;
        }
        self.fill(control).await?;
        self.stage.send_replace(Stage::Indexing);
        for projection in &self.projections {
            let (serving, next, _) = schemas(*projection);
            copy_indexes(control, &serving, &next).await?;
        }
        self.fill(control).await?;
        let (differences, not_compared) = self.compare().await?;
        self.fill(control).await?;
        self.stage.send_replace(Stage::Swapping);
        let mut events = 0;
        for projection in &self.projections {
            events = self.swap(*projection).await?;
        }
        for projection in &self.projections {
            drop_old(control, *projection).await;
        }
        Ok(Rebuilt::Done { events, differences, not_compared })
    }

    /// Applies events until the new tables are nearly level.
    async fn fill(&self, control: &mut PgConnection) -> Result<(), Failure> {
        let left = watch::channel(i64::MAX).0;
        let watched = self.watch(control, &left);
        futures_util::try_join!(watched, self.work(&left), self.work(&left), self.work(&left)).map(|_| ())
    }

    async fn watch(&self, control: &mut PgConnection, left: &watch::Sender<i64>) -> Result<(), Failure> {
        loop {
            let (done, of) = self.progress(control).await?;
            self.stage.send_replace(Stage::Filling { done, of });
            left.send_replace(of - done);
            if of - done <= NEAR_EVENTS {
                return Ok(());
            }
            tokio::time::sleep(2 * PAUSE).await;
        }
    }

    async fn work(&self, left: &watch::Sender<i64>) -> Result<(), Failure> {
        while *left.borrow() > NEAR_EVENTS {
            match self.runtime.step().await? {
                Step::More => {}
                Step::Idle | Step::Level => tokio::time::sleep(PAUSE).await,
            }
        }
        Ok(())
    }

    /// Events that the new tables show and events of the log; of several projections, those of the last one.
    async fn progress(&self, connection: &mut PgConnection) -> Result<(i64, i64), Failure> {
        let of: i64 = self.source.heads(connection).await?.values().sum();
        let mut done = of;
        for projection in &self.projections {
            let offsets = checkpoints::offsets(connection, *projection, Tables::Shadow, false).await?;
            if offsets.is_empty() {
                return Err(Failure::Superseded(projection.name()));
            }
            done = done.min(offsets.values().sum());
        }
        Ok((done, of))
    }

    async fn compare(&self) -> Result<(Vec<Difference>, usize), Failure> {
        let mut found: BTreeMap<String, Difference> = BTreeMap::new();
        let (mut not_compared, mut done) = (0, 0);
        let mut connection = self.pool.acquire().await?;
        for projection in &self.projections {
            let partitions: Vec<i16> =
                checkpoints::offsets(&mut connection, *projection, Tables::Shadow, false).await?.into_keys().collect();
            for partition in &partitions {
                let of = (partitions.len() * self.projections.len()) as i64;
                self.stage.send_replace(Stage::Comparing { done, of });
                done += 1;
                match self.compare_partition(&mut connection, *projection, *partition).await? {
                    None => not_compared += 1,
                    Some(differences) => differences.into_iter().for_each(|difference| {
                        let rows = difference.rows;
                        found.entry(difference.table.clone()).and_modify(|d| d.rows += rows).or_insert(difference);
                    }),
                }
            }
        }
        Ok((found.into_values().collect(), not_compared))
    }

    /// Compares one partition at equal positions: in one snapshot, after bringing the new tables exactly to where the
    /// old ones stand in it. Keeps nobody from anything.
    async fn compare_partition(
        &self,
        connection: &mut PgConnection,
        projection: Projection,
        partition: i16,
    ) -> Result<Option<Vec<Difference>>, Failure> {
        let (serving, next, _) = schemas(projection);
        for _ in 0..COMPARE_TRIES {
            let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
            let only = |offsets: BTreeMap<i16, i64>| -> BTreeMap<i16, i64> {
                offsets.into_iter().filter(|(number, _)| *number == partition).collect()
            };
            let old = only(checkpoints::offsets(&mut snapshot, projection, Tables::Serving, false).await?);
            let new = only(checkpoints::offsets(&mut snapshot, projection, Tables::Shadow, false).await?);
            if new.is_empty() {
                return Err(Failure::Superseded(projection.name()));
            }
            if old.get(&partition) < new.get(&partition) {
                snapshot.rollback().await?;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            self.runtime.bring_to(&mut snapshot, projection, &new, &old).await?;
            let mut differences = vec![];
            for table in tables(&mut snapshot, &serving).await? {
                let rows = Rows::Partition(partition);
                differences.extend(difference(&mut snapshot, &table, &serving, &next, rows).await?);
            }
            snapshot.commit().await?;
            return Ok(Some(differences));
        }
        Ok(None)
    }

    /// Puts the new tables in the place of the old ones, while nobody works on either. Readers do not wait: only
    /// names change.
    async fn swap(&self, projection: Projection) -> Result<i64, Failure> {
        for _ in 0..SWAP_TRIES {
            if let Some(events) = self.try_swap(projection).await? {
                return Ok(events);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Failure::Behind(projection.name()))
    }

    /// `None` where the old tables have to come as far as the new ones first: only theirs is an outbox that is open.
    async fn try_swap(&self, projection: Projection) -> Result<Option<i64>, Failure> {
        let (serving, next, old) = schemas(projection);
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SET LOCAL synchronous_commit = on").execute(&mut *transaction).await?;
        let shown = checkpoints::offsets(&mut transaction, projection, Tables::Serving, true).await?;
        let made = checkpoints::offsets(&mut transaction, projection, Tables::Shadow, true).await?;
        let fits = tables(&mut transaction, &serving).await? == tables(&mut transaction, &next).await?;
        if made.is_empty() || !fits {
            return Err(Failure::Superseded(projection.name()));
        }
        if projection.has_outbox() && made.iter().any(|(partition, offset)| shown.get(partition) < Some(offset)) {
            return Ok(None);
        }
        // Once more: it may have come to that since.
        self.allow(&mut transaction, projection).await?;
        // A replica that has leased the new checkpoints by the time that the names are others waits for this lock, and
        // hears of the new names before it is given. Readers do not wait.
        for table in tables(&mut transaction, &serving).await? {
            let statement = format!("LOCK TABLE {serving}.{} IN SHARE ROW EXCLUSIVE MODE", table.name);
            sqlx::query(&statement).execute(&mut *transaction).await?;
        }
        self.runtime.bring_to(&mut transaction, projection, &made, &shown).await?;
        let worse = self.parked_anew(&mut transaction, projection).await?;
        if worse > 0 {
            transaction.rollback().await?;
            self.give_up(projection).await?;
            return Err(Failure::Worse { projection: projection.name(), streams: worse });
        }
        for statement in
            [format!("ALTER SCHEMA {serving} RENAME TO {old}"), format!("ALTER SCHEMA {next} RENAME TO {serving}")]
        {
            sqlx::query(&statement).execute(&mut *transaction).await?;
        }
        for statement in [
            "DELETE FROM checkpoints WHERE projection = $1 AND version = $2 AND NOT shadow",
            "UPDATE checkpoints SET shadow = false WHERE projection = $1 AND version = $2",
            "DELETE FROM parked WHERE projection = $1 AND version = $2 AND NOT shadow",
            "UPDATE parked SET shadow = false WHERE projection = $1 AND version = $2",
            "DELETE FROM rebuilds WHERE projection = $1 AND version = $2",
        ] {
            sqlx::query(statement)
                .bind(projection.name())
                .bind(projection.version())
                .execute(&mut *transaction)
                .await?;
        }
        if projection.is_of_people() {
            directory::refill(&mut transaction).await?;
        }
        let events = checkpoints::offsets(&mut transaction, projection, Tables::Serving, false).await?.values().sum();
        transaction.commit().await?;
        Ok(Some(events))
    }

    /// Refuses where the old tables leave streams out that have something to send: the new ones would not.
    async fn allow(&self, connection: &mut PgConnection, projection: Projection) -> Result<(), Failure> {
        if !projection.has_outbox() {
            return Ok(());
        }
        let held_back: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM parked WHERE projection = $1 AND version = $2 AND NOT shadow)",
        )
        .bind(projection.name())
        .bind(projection.version())
        .fetch_one(connection)
        .await?;
        if held_back { Err(Failure::HeldBack(projection.name())) } else { Ok(()) }
    }
}

impl<S: Source> Work<S> {
    /// Removes new tables that would be no gain; trying again by itself would make the same ones.
    async fn give_up(&self, projection: Projection) -> Result<(), Failure> {
        let (_, next, _) = schemas(projection);
        let mut transaction = self.pool.begin().await?;
        for statement in [
            "DELETE FROM checkpoints WHERE projection = $1 AND version = $2 AND shadow",
            "DELETE FROM parked WHERE projection = $1 AND version = $2 AND shadow",
            "DELETE FROM rebuilds WHERE projection = $1 AND version = $2",
        ] {
            let query = sqlx::query(statement).bind(projection.name()).bind(projection.version());
            query.execute(&mut *transaction).await?;
        }
        sqlx::query(&format!("DROP SCHEMA IF EXISTS {next} CASCADE")).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// How many streams the new tables leave out that the old ones show.
    async fn parked_anew(&self, connection: &mut PgConnection, projection: Projection) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT count(*) FROM parked n WHERE n.projection = $1 AND n.version = $2 AND n.shadow AND NOT EXISTS (
                 SELECT FROM parked o WHERE o.projection = $1 AND o.version = $2 AND NOT o.shadow AND o.aggregate_id = n.aggregate_id
             )",
        )
        .bind(projection.name())
        .bind(projection.version())
        .fetch_one(connection)
        .await
    }
}

/// Removes the old tables. Readers are waited for a moment; else the next rebuild removes them.
async fn drop_old(connection: &mut PgConnection, projection: Projection) {
    let (_, _, old) = schemas(projection);
    let dropped = async {
        sqlx::query(&format!("SET lock_timeout = '{DROP_WAIT}'")).execute(&mut *connection).await?;
        sqlx::query(&format!("DROP SCHEMA IF EXISTS {old} CASCADE")).execute(&mut *connection).await
    };
    if let Err(error) = dropped.await {
        tracing::warn!(projection = projection.name(), %error, "the old tables stay until the next rebuild");
    }
}
