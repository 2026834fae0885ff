//! Connections that requests borrow for a statement each.
//!
//! sqlx asks a connection that comes back to its pool whether it still lives, in a task of its own: a second round trip
//! for every statement. Here a connection whose statement ran to its end rests as it is, and the next one who borrows it
//! finds out by using it; one that rested longer than [`PING_AFTER`] is asked first. A connection that is in doubt,
//! because its statement failed or was given up half-way, goes back to sqlx's pool, which asks it or closes it.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection, Describe, Either, Error, Execute, Executor, PgConnection, PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for a connection.
pub(super) const ACQUIRE_WAIT: Duration = Duration::from_secs(5);
/// A connection that rested for so long is asked whether it lives before it is used.
const PING_AFTER: Duration = Duration::from_secs(1);
/// After so long a connection goes back to sqlx's pool, which replaces old ones.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// A bounded number of connections to one database under one role. Cheap to share.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    pool: PgPool,
    permits: Arc<Semaphore>,
    /// Used last, taken first.
    resting: Mutex<Vec<Resting>>,
    closed: AtomicBool,
}

struct Resting {
    connection: PoolConnection<Postgres>,
    taken: Instant,
    since: Instant,
}

/// A pool of sqlx that asks only a connection which rested for a while whether it lives: a round trip before each use
/// would double those of most requests.
pub(super) fn pool_options(maximum: u32) -> PgPoolOptions {
    let options = PgPoolOptions::new().max_connections(maximum).acquire_timeout(ACQUIRE_WAIT);
    options.test_before_acquire(false).before_acquire(|connection, use_so_far| {
        Box::pin(async move {
            let rested = use_so_far.idle_for > PING_AFTER;
            Ok(!rested || connection.ping().await.is_ok())
        })
    })
}

impl Connections {
    /// At most `maximum` of them, each made when it is needed.
    pub fn new(maximum: u32, options: PgConnectOptions) -> Self {
        Self(Arc::new(Inner {
            pool: pool_options(maximum).connect_lazy_with(options),
            permits: Arc::new(Semaphore::new(maximum as usize)),
            resting: Mutex::default(),
            closed: AtomicBool::new(false),
        }))
    }

    /// Borrows a connection.
    ///
    /// # Errors
    /// None came free in time, none can be made, or they are closed.
    pub async fn acquire(&self) -> Result<Lease, Error> {
        let waited = tokio::time::timeout(ACQUIRE_WAIT, self.0.permits.clone().acquire_owned()).await;
        let permit = waited.map_err(|_| Error::PoolTimedOut)?.map_err(|_| Error::PoolClosed)?;
        let lease = |connection, taken| Lease {
            connection: Some(connection),
            taken,
            clean: false,
            of: self.0.clone(),
            _permit: permit,
        };
        while let Some(Resting { mut connection, taken, since }) = self.0.rested() {
            if since.elapsed() < PING_AFTER || connection.ping().await.is_ok() {
                return Ok(lease(connection, taken));
            }
        }
        Ok(lease(self.0.pool.acquire().await?, Instant::now()))
    }

    /// How many there are, borrowed or resting.
    pub fn size(&self) -> u32 {
        self.0.pool.size()
    }

    /// Closes them, and waits for those that are borrowed.
    pub async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.permits.close();
        while self.0.rested().is_some() {}
        self.0.pool.close().await;
    }
}

impl Inner {
    fn rested(&self) -> Option<Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // sqlx's pool would want them back, in a task of a runtime that may be gone.
        for resting in self.resting.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            drop(resting.connection.leak());
        }
    }
}

/// A borrowed connection.
pub struct Lease {
    /// There until it is dropped.
    connection: Option<PoolConnection<Postgres>>,
    taken: Instant,
    /// Whether its last statement ran to its end.
    clean: bool,
    of: Arc<Inner>,
    /// Given back after the connection.
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Gives it back as one that has nothing left to do. Dropped without this, it is in doubt.
    fn finish(mut self) {
        self.clean = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let keep = self.clean && self.taken.elapsed() < KEPT_FOR;
        let mut resting = self.of.resting.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock, so that closing finds every connection that was put there.
        if keep && !self.of.closed.load(Ordering::Acquire) {
            resting.push(Resting { connection, taken: self.taken, since: Instant::now() });
        }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    #[allow(clippy::expect_used)]
    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for Lease {
    #[allow(clippy::expect_used)]
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("there until it is dropped")
    }
}

/// One statement, on whichever connection is free. Its rows are gathered first, so that the connection is free again
/// when the first of them is looked at; a long answer is streamed from a [`Lease`] instead.
impl<'p> Executor<'p> for &'_ Connections {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        let gathered = async move {
            let mut lease = connections.acquire().await?;
            let rows: Vec<_> = lease.fetch_many(query).try_collect().await?;
            lease.finish();
            Ok::<_, Error>(stream::iter(rows.into_iter().map(Ok::<_, Error>)))
        };
        gathered.into_stream().try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut lease = connections.acquire().await?;
            let row = lease.fetch_optional(query).await?;
            lease.finish();
            Ok(row)
        })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement<'q>, Error>>
    where
        'p: 'e,
    {
        let connections = self.clone();
        Box::pin(async move { connections.acquire().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let connections = self.clone();
        Box::pin(async move { connections.acquire().await?.describe(sql).await })
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("pool", &self.0.pool).finish()
    }
}
