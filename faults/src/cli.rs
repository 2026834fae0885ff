//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs several services on one PostgreSQL, breaks everything around them, and checks what is left.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: Run,
}

const EXAMPLES: &str = "Examples:
  cargo run --release -p faults -- --seconds 300 --seed 42
  cargo run --release -p faults -- --seconds 60 --faults kill-service,proxy --keep
  cargo run --release -p faults -- check --database-url postgres://… --history FILE";

/// Beside running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the checker alone, on a database that nobody writes to meanwhile
    Check {
        /// The database
        #[arg(long, env = "DATABASE_URL")]
        database_url: String,
        /// What clients, readers and followers saw in a run
        #[arg(long)]
        history: Option<PathBuf>,
        /// The clocks of services were set during the run: times are not compared
        #[arg(long)]
        clocks_were_set: bool,
    },
}

/// A run.
#[derive(Debug, Args)]
pub struct Run {
    /// How long things go wrong, in seconds
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// What all decisions follow from; a new one each time if it is not given
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many services
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=8))]
    pub replicas: u64,
    /// How many clients
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=512))]
    pub clients: u64,
    /// The service; without it, `tenancy` beside this program
    #[arg(long)]
    pub bin: Option<PathBuf>,
    /// What goes wrong, or "none": kill-service, kill-backend, kill-server, proxy, long-transaction, clock, disk,
    /// slow-consumer
    #[arg(long, value_delimiter = ',')]
    pub faults: Vec<String>,
    /// The size of the file system of the database, in megabytes; without it, as much as the time may need
    #[arg(long)]
    pub volume_mb: Option<u64>,
    /// Keeps the folder of the run, and leaves PostgreSQL running for `faults check`, also when everything held
    #[arg(long)]
    pub keep: bool,
}
