//! Which services are alive on a database. Each service shares an advisory lock, which ends with its connection. A
//! recovery takes the lock alone, and so finds out whether any service is alive.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio_util::sync::CancellationToken;

/// How often a service looks whether its lock is still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The lock of one service, or of a recovery.
pub struct Presence {
    options: PgConnectOptions,
    connection: PgConnection,
}

impl Presence {
    /// Says that a service is alive here. Waits while somebody has the database alone.
    pub async fn announce(options: PgConnectOptions) -> Result<Self, sqlx::Error> {
        // Waiting is no statement that takes too long.
        let options = options.options([("statement_timeout", "0")]);
        let mut connection = options.connect().await?;
        let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock_shared(hashtext('tenancy services'))")
            .fetch_one(&mut connection)
            .await?;
        if !free {
            tracing::warn!("the database is being recovered: waiting until that is done");
            let wait = sqlx::query("SELECT pg_advisory_lock_shared(hashtext('tenancy services'))");
            wait.execute(&mut connection).await?;
        }
        Ok(Self { options, connection })
    }

    /// The database without any service, as long as this is kept; `None` while one is alive. One that has just lost its
    /// lock with a connection has others.
    pub async fn alone(options: PgConnectOptions) -> Result<Option<Self>, sqlx::Error> {
        let mut connection = options.clone().application_name("tenancy recover").connect().await?;
        let alone: bool = sqlx::query_scalar(
            "SELECT pg_try_advisory_lock(hashtext('tenancy services')) AND NOT EXISTS (
                 SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tenancy')",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(alone.then_some(Self { options, connection }))
    }

    /// Keeps the lock until `stopping`, on another connection where this one is lost.
    pub async fn keep(self, stopping: CancellationToken) {
        stopping.run_until_cancelled(self.hold()).await;
    }

    async fn hold(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let answers = tokio::time::timeout(LOOK_EVERY, self.connection.ping()).await;
            if matches!(answers, Ok(Ok(()))) {
                continue;
            }
            match Self::announce(self.options.clone()).await {
                Ok(again) => self = again,
                Err(error) => tracing::debug!(%error, "it cannot be said that this service is alive"),
            }
        }
    }
}
