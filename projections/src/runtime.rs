//! What runs projections: leases, batches, checkpoints.
//!
//! A checkpoint is locked with `FOR UPDATE SKIP LOCKED` by whichever replica works on its partition; that lock is
//! the lease, and ends with the transaction or with its holder. All projections move in one transaction where they
//! stand at the same place, so that the log is read once for all of them and flushed once. Wake-up comes from this
//! process at once, from other replicas by notification, and from a clock behind both.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use aggregates::Recorded;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::checkpoints::{self, Lease, Tables};
use crate::fold::{self, Outbox, Parking, apply_apart, apply_together, blames_events, cursor_after};
use crate::parked::{self, Retried};
use crate::source::{Entry, Failure, Range, Source};
use crate::{BATCH_EVENTS_MAX, Projection, directory};

/// How long a projection sleeps when nobody wakes it.
const POLL: Duration = Duration::from_millis(500);
/// How long it waits after the database failed.
const BACK_OFF: Duration = Duration::from_millis(500);
/// How often it looks for parked streams whose time has come.
const LOOK_FOR_PARKED: Duration = Duration::from_secs(5);

/// Up to which offset the projections show everything, as far as this process knows.
pub type Progress = HashMap<(Projection, i16), i64>;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do, or others do it.
    Idle,
    /// What there was is applied.
    Level,
    /// There is more.
    More,
}

/// Runs projections of this replica.
pub struct Runtime<S> {
    pool: PgPool,
    source: Arc<S>,
    projections: Vec<Projection>,
    tables: Tables,
    partitions: i16,
    progress: watch::Sender<Progress>,
    /// How many events are taken at a time, now; fewer after a batch that failed for reasons of its own.
    batch_events: AtomicI64,
    batch_events_max: i64,
    /// Whether the last step left something: then others should have their share.
    backlog: watch::Sender<bool>,
    /// A change whenever something was written that somebody has to carry out.
    written: watch::Sender<()>,
}

impl<S: Source> Runtime<S> {
    /// Runs all projections on the tables that serve. Makes sure that there is a checkpoint for each partition.
    pub async fn new(pool: PgPool, source: Arc<S>, partitions: i16) -> Result<Self, sqlx::Error> {
        let runtime = Self::over(pool, source, partitions, Projection::ALL.to_vec(), Tables::Serving);
        let mut connection = runtime.pool.acquire().await?;
        checkpoints::make(&mut connection, &runtime.projections, Tables::Serving, partitions).await?;
        Ok(runtime)
    }

    /// Runs projections on the tables that the pool's connections find.
    pub(crate) fn over(
        pool: PgPool,
        source: Arc<S>,
        partitions: i16,
        projections: Vec<Projection>,
        tables: Tables,
    ) -> Self {
        // A rebuild has no reader who waits for it, so it can take its time for each transaction.
        let batch_events_max = if tables == Tables::Shadow { 5 * BATCH_EVENTS_MAX } else { BATCH_EVENTS_MAX };
        Self {
            pool,
            source,
            projections,
            tables,
            partitions,
            progress: watch::channel(Progress::new()).0,
            batch_events: AtomicI64::new(batch_events_max),
            batch_events_max,
            backlog: watch::channel(false).0,
            written: watch::channel(()).0,
        }
    }

    /// How far the projections are, and a change for each step.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// A change whenever webhooks were written that are to be delivered.
    pub fn written(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }

    /// Forgets how far they are: the database went back to an earlier point.
    pub fn forget_progress(&self) {
        self.progress.send_replace(Progress::new());
    }

    /// Helps out while there is a backlog, until `stop` says so: on a machine with cores to spare, a second loop has
    /// the other half of the partitions.
    pub async fn help(&self, stop: CancellationToken) {
        let mut backlog = self.backlog.subscribe();
        while !stop.is_cancelled() {
            if *backlog.borrow_and_update() && self.step().await.is_ok_and(|step| step != Step::Idle) {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                _ = backlog.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Tries parked streams again when their time has come, and fills the directory, until `stop` says so.
    pub async fn run_retries(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.retry_due().await {
                tracing::warn!(%error, "parked streams could not be tried again");
            }
            if let Err(error) = self.fill_directory(&stop).await {
                tracing::warn!(%error, "the directory of people could not be filled");
            }
            stop.run_until_cancelled(tokio::time::sleep(LOOK_FOR_PARKED)).await;
        }
    }

    /// Runs until `stop` says so. `wake` changes whenever there may be something new. Several may run beside each
    /// other, in this process and in others.
    pub async fn run<W: Clone + Send + Sync>(&self, mut wake: watch::Receiver<W>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            wake.mark_unchanged();
            let pause = match self.step().await {
                Ok(Step::More) => continue,
                Ok(Step::Idle | Step::Level) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "the projections could not go on; they will try again");
                    BACK_OFF
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                changed = wake.changed() => if changed.is_err() { tokio::time::sleep(pause).await },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Applies what is new, once: of all projections together; each alone where that fails, so that one that is broken
    /// keeps back no other.
    pub async fn step(&self) -> Result<Step, Failure> {
        match self.step_together(&self.projections).await {
            Err(Failure::Database(error)) if is_connection(&error) => Err(error.into()),
            Err(first) => {
                for projection in &self.projections {
                    if let Err(error) = self.step_together(&[*projection]).await {
                        tracing::warn!(projection = projection.name(), %error, "a projection could not go on");
                    }
                }
                Err(first)
            }
            stepped => stepped,
        }
    }

    async fn step_together(&self, projections: &[Projection]) -> Result<Step, Failure> {
        let mut transaction = self.pool.begin().await?;
        let leases = checkpoints::lease(&mut transaction, projections, self.tables, &self.some_partitions()).await?;
        if leases.is_empty() {
            return Ok(Step::Idle);
        }
        match self.apply(&mut transaction, &leases, Care::Together).await {
            Ok(applied) => {
                transaction.commit().await?;
                Ok(self.settle(applied))
            }
            Err(Failure::Database(error)) if blames_events(&error) => {
                transaction.rollback().await?;
                tracing::debug!(%error, "a batch is applied again with care");
                self.step_with_care(projections).await
            }
            Err(error) => {
                // It may have been too much at once: for the time of a statement, or for the memory of either side.
                let less = self.batch_events.load(Ordering::Relaxed) / 2;
                self.batch_events.store(less.max(1), Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// After a batch failed by its events: again, parking the streams that are to blame.
    async fn step_with_care(&self, projections: &[Projection]) -> Result<Step, Failure> {
        let mut transaction = self.pool.begin().await?;
        let leases = checkpoints::lease(&mut transaction, projections, self.tables, &self.some_partitions()).await?;
        let applied = self.apply(&mut transaction, &leases, Care::Apart).await?;
        transaction.commit().await?;
        Ok(self.settle(applied))
    }

    /// Which partitions to look at: all; or while there is a backlog, half of them, so that other replicas and
    /// workers find something to do.
    fn some_partitions(&self) -> Vec<i16> {
        let mut all: Vec<i16> = (0..self.partitions).collect();
        if *self.backlog.borrow() {
            let start = rand::random_range(0..all.len());
            all.rotate_left(start);
            all.truncate(all.len().div_ceil(2));
        }
        all
    }

    /// Applies the events after the held checkpoints, and moves these.
    async fn apply(&self, connection: &mut PgConnection, leases: &[Lease], care: Care) -> Result<Applied, Failure> {
        let mut ranges: Vec<Range> = leases.iter().map(Lease::range).collect();
        ranges.sort_unstable();
        ranges.dedup();
        let each = (self.batch_events.load(Ordering::Relaxed) / ranges.len().max(1) as i64).max(1);
        let pages = self.source.read(connection, &ranges, each).await?;
        let mut reached: HashMap<Range, i64> = HashMap::new();
        for (range, page) in ranges.iter().zip(&pages) {
            reached.insert(*range, cursor_after(range.partition, range.after, page)?);
        }
        let pages: HashMap<Range, &Vec<Entry>> = ranges.iter().copied().zip(&pages).collect();
        // A statement of its own, after the leases: theirs may have begun before another loop parked a stream.
        let partitions: Vec<i16> = ranges.iter().map(|range| range.partition).collect();
        let mut parked = parked::load_each(connection, &self.projections, self.tables, &partitions).await?;
        let mut applied = Applied { more: pages.values().any(|page| page.len() as i64 >= each), ..Applied::default() };
        for projection in &self.projections {
            let leases: Vec<&Lease> = leases.iter().filter(|lease| lease.projection == *projection).collect();
            if leases.is_empty() {
                continue;
            }
            let mut parking = parked.remove(projection).unwrap_or_default();
            let outbox = if self.tables == Tables::Serving { Outbox::open() } else { Outbox::closed() };
            self.apply_one(connection, *projection, &leases, &pages, &mut parking, (care, &outbox)).await?;
            applied.written |= outbox.is_noted();
            for lease in leases {
                let to = reached[&lease.range()];
                applied.reached.push((*projection, lease.partition, to));
                let parked = parking.first_in(lease.partition);
                applied.shown.push((*projection, lease.partition, parked.map_or(to, |from| to.min(from - 1))));
            }
        }
        if self.tables == Tables::Serving {
            directory::keep(connection, of_people(leases, &pages)).await?;
        }
        checkpoints::save(connection, self.tables, &applied.reached).await?;
        Ok(applied)
    }

    async fn apply_one(
        &self,
        connection: &mut PgConnection,
        projection: Projection,
        leases: &[&Lease],
        pages: &HashMap<Range, &Vec<Entry>>,
        parking: &mut Parking,
        (care, outbox): (Care, &Outbox<'_>),
    ) -> Result<(), Failure> {
        let entries = leases.iter().flat_map(|lease| pages[&lease.range()].iter());
        let count = leases.iter().map(|lease| pages[&lease.range()].len()).sum::<usize>();
        match care {
            Care::Together => apply_together(connection, projection, entries, parking, outbox).await?,
            Care::Apart => apply_apart(connection, projection, entries, parking, outbox).await?,
        }
        parked::keep(connection, projection, self.tables, &parking.fresh).await?;
        metrics::counter!("tenancy_projection_events_total", "projection" => projection.name()).increment(count as u64);
        Ok(())
    }

    /// After the commit: what this process knows now.
    fn settle(&self, applied: Applied) -> Step {
        let batch = self.batch_events.load(Ordering::Relaxed);
        self.batch_events.store((batch * 2).min(self.batch_events_max), Ordering::Relaxed);
        self.backlog.send_if_modified(|backlog| std::mem::replace(backlog, applied.more) != applied.more);
        self.progress.send_if_modified(|progress| {
            let mut changed = false;
            for (projection, partition, offset) in &applied.shown {
                let known = progress.entry((*projection, *partition)).or_insert(-1);
                changed |= offset > known;
                *known = (*known).max(*offset);
            }
            changed
        });
        if applied.written {
            self.written.send_replace(());
        }
        if applied.more { Step::More } else { Step::Level }
    }

    async fn fill_directory(&self, stop: &CancellationToken) -> Result<(), sqlx::Error> {
        while !stop.is_cancelled() && directory::fill(&self.pool).await? {}
        Ok(())
    }

    async fn retry_due(&self) -> Result<(), Failure> {
        for projection in &self.projections {
            self.retry_parked(*projection, true).await?;
        }
        Ok(())
    }

    /// Tries the parked streams of a projection again.
    pub async fn retry(&self, projection: Projection) -> Result<Retried, Failure> {
        self.retry_parked(projection, false).await
    }

    async fn retry_parked(&self, projection: Projection, due_only: bool) -> Result<Retried, Failure> {
        let mut connection = self.pool.acquire().await?;
        let mut total = Retried::default();
        for (owner, partition) in parked::owners(&mut connection, projection, due_only).await? {
            let retried = parked::retry(&mut connection, &*self.source, projection, (&owner, partition)).await?;
            total.level += retried.level;
            total.parked += retried.parked;
        }
        Ok(total)
    }

    /// Brings the tables of `projection` that `connection` finds from `from` to exactly `to`, in its transaction.
    pub(crate) async fn bring_to(
        &self,
        connection: &mut PgConnection,
        projection: Projection,
        from: &BTreeMap<i16, i64>,
        to: &BTreeMap<i16, i64>,
    ) -> Result<(), Failure> {
        let partitions: Vec<i16> = from.keys().copied().collect();
        let mut parking = parked::load(connection, projection, self.tables, &partitions).await?;
        let mut reached = vec![];
        for (partition, after) in from {
            let until = to.get(partition).copied().unwrap_or(*after);
            let range = Range { partition: *partition, after: *after, until };
            let at = fold::fold(connection, &*self.source, projection, range, &mut parking, &AtomicU64::new(0)).await?;
            reached.push((projection, *partition, at));
        }
        parked::keep(connection, projection, self.tables, &parking.fresh).await?;
        checkpoints::save(connection, self.tables, &reached).await?;
        Ok(())
    }
}

/// The events by which people are found, among those that were just shown.
fn of_people<'a>(
    leases: &[Lease],
    pages: &HashMap<Range, &'a Vec<Entry>>,
) -> impl Iterator<Item = &'a Recorded> + Clone {
    leases.iter().filter(|lease| lease.projection.is_of_people()).flat_map(|lease| {
        let shown = pages[&lease.range()].iter().filter(|entry| lease.projection.reads(entry.aggregate_type()));
        shown.filter_map(|entry| if let Entry::Event(event) = entry { Some(&**event) } else { None })
    })
}

/// Whether the database could not be reached or was cut off; then nothing else will go better.
fn is_connection(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
}

/// Whether a batch is applied as a whole, or so that it survives events that cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    Together,
    Apart,
}

#[derive(Debug, Default)]
struct Applied {
    /// The checkpoints now.
    reached: Vec<(Projection, i16, i64)>,
    /// Up to where everything is shown; less than the checkpoint where a stream is parked.
    shown: Vec<(Projection, i16, i64)>,
    more: bool,
    /// Whether something was written that somebody has to carry out.
    written: bool,
}

impl Lease {
    fn range(&self) -> Range {
        Range { partition: self.partition, after: self.offset, until: i64::MAX }
    }
}
