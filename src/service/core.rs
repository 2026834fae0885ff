//! The service below HTTP, which commands of the command line need too.

use std::sync::Arc;
use std::time::Duration;

use projections::rebuild::Rebuilder;
use projections::{Runtime, Step};
use tokio::task::JoinSet;

use super::error::{Error, failure};
use super::keys::{audit_keys, audit_signers, make_data_dir, master_keys};
use super::settings::{rules, watch_terms, witnesses};
use crate::audit;
use crate::audit::heads::Heads;
use crate::audit::seal::Sealer;
use crate::audit::watch::Watch;
use crate::audit::witnesses::{Asked, Due, Witnesses};
use crate::commands::Commands;
use crate::config::Config;
use crate::database::Database;
use crate::database::embedded::Purpose;
use crate::database::roles::DatabaseRole;
use crate::erased::ErasedList;
use crate::log::{Log, LogError, Pools, Sizes};

/// What commands need, with or without HTTP: a migrated database, the log, and who runs projections.
pub struct Core {
    /// The database.
    pub database: Database,
    /// Takes commands.
    pub commands: Arc<Commands>,
    /// Runs projections.
    pub runtime: Arc<Runtime<Log>>,
    /// What is known of audit trails outside of the database.
    pub heads: Arc<Heads>,
    /// Those who are asked to cosign heads, and which trees they are to be shown.
    pub asked: Arc<Asked>,
    due: Arc<Due>,
    writers: JoinSet<()>,
}

impl Core {
    /// Opens the database, brings it up to date, and opens the log.
    pub async fn open(config: &Config, purpose: Purpose) -> Result<Self, Error> {
        Self::over(Database::open(config, purpose).await?, config).await
    }

    /// The same over a database that was opened.
    pub async fn over(database: Database, config: &Config) -> Result<Self, Error> {
        for migration in database.migrate().await? {
            tracing::info!(%migration, "migrated");
        }
        let master_keys = master_keys(config)?;
        make_data_dir(config)?;
        let erased = ErasedList::open(&config.data_dir)?;
        let heads = Arc::new(Heads::open(&config.data_dir)?);
        let asked = Arc::new(witnesses(config)?);
        let due = Arc::new(Due::new(!asked.is_empty()));
        let sizes = Sizes {
            writers: config.database.writers as usize,
            queue_commands_max: config.limits.queue_commands_max,
            batch_commands_max: config.limits.batch_commands_max,
            partitions: i16::try_from(config.database.partitions).unwrap_or(i16::MAX),
        };
        let pools = Pools {
            own: database.pool.clone(),
            readers: database.readers.clone(),
            operators: database.operators.clone(),
        };
        let (log, writers) = Log::open(pools, database.options(DatabaseRole::Writer), &master_keys, sizes).await?;
        audit::adopt::adopt(&log, &heads).await?;
        let runtime = Runtime::new(database.projections.clone(), log.clone(), log.partitions()).await;
        let runtime = Arc::new(runtime.map_err(LogError::from)?);
        let commands = Arc::new(Commands::new(log, rules(config), erased));
        // A database that was restored has forgotten whom this directory remembers.
        commands.erase_again(&[]).await?;
        Ok(Self { database, commands, runtime, heads, asked, due, writers })
    }

    /// Brings all read models up to the log, beside other replicas that do.
    pub async fn catch_up(&self) -> Result<(), Error> {
        while self.runtime.step().await.map_err(failure)? == Step::More {}
        Ok(())
    }

    /// What seals the audit trail, by the keys of this service.
    pub async fn sealer(&self, config: &Config) -> Result<Sealer, Error> {
        make_data_dir(config)?;
        let (directory, configured) = (&config.data_dir, audit_keys(config));
        let signers = audit::keys::signers(&self.database.pool, directory, &config.audit.name, &configured).await?;
        let (heads, due) = (self.heads.clone(), self.due.clone());
        Ok(Sealer::new(self.database.projections.clone(), self.commands.log().clone(), signers, heads, due))
    }

    /// What reads the log again while the service runs.
    pub fn watch(&self, config: &Config) -> Result<Watch, Error> {
        let keys = audit_signers(config)?.iter().map(|signer| signer.verifier().clone()).collect();
        let log = (self.commands.log().clone(), self.database.projections.clone());
        let terms = (watch_terms(config), self.asked.clone());
        Ok(Watch::new(log, self.heads.clone(), keys, terms, &config.data_dir))
    }

    /// What shows heads to witnesses.
    pub fn witnesses(&self, config: &Config) -> Result<Witnesses, Error> {
        let keys = audit_signers(config)?.iter().map(|signer| signer.verifier().clone()).collect();
        let log = (self.commands.log().clone(), self.database.projections.clone());
        Ok(Witnesses::new(log, keys, self.asked.clone(), self.due.clone()))
    }

    /// What rebuilds read models.
    pub fn rebuilder(&self) -> Arc<Rebuilder<Log>> {
        let log = self.commands.log();
        Arc::new(Rebuilder::new(self.database.options(DatabaseRole::Projector), log.clone(), log.partitions()))
    }

    /// Lets the writers finish, and closes the database.
    pub async fn close(self) -> Result<(), Error> {
        let Self { database, commands, runtime, mut writers, .. } = self;
        drop(runtime);
        commands.trail().finish(commands.log()).await;
        commands.uses().finish(commands.log().pool()).await;
        drop(commands);
        // The writers end when the last handle to the log is gone; a handle keeps them and not the service.
        let ended = async { while writers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(10), ended).await;
        database.close().await?;
        Ok(())
    }
}
