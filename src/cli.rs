//! The command line. Messages for people go to stderr, results to stdout; exit code 0 done, 1 failed (the reason in
//! one line, the remedy in a second), 2 wrong usage.

mod audit;
mod console;
mod diff;
mod operate;
mod report;
mod streams;
mod witness;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::TimeDelta;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::access::issuer::Grant;
use crate::audit::cosignature::WitnessKey;
use crate::audit::export::Format;
use crate::audit::note::VerifierKey;
use crate::audit::trail::Trail;
use crate::commands::{Fault, Person};
use crate::config::{self, Config, Flags, Loaded, LogFormat};
use crate::database::embedded::Purpose;
use crate::database::{self, Database};
use crate::import;
use crate::log::Position;
use crate::service::{self, Core, Service, builtin_issuer};
use aggregates::ids::{OrganizationId, UserId};
use aggregates::user::{Profile, UserState};
use aggregates::{Actor, User};
use projections::Projection;

/// Tenancy as a service: organizations, members, invitations, projects and limits on an append-only log.
#[derive(Debug, Parser)]
#[command(name = "tenancy", version, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration file (TOML); see config.example.toml.
    #[arg(long, global = true, env = "TENANCY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the service keeps what is its own.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

const RECOVER_HELP: &str = "Stop the service, restore the database, run this, start the service. Positions that clients
kept from before are answered POSITION_UNKNOWN from then on, and keys of erased people that came back with the backup
are destroyed again; so are those of everybody on the list erased.list in the data directory.";

const ROTATE_HELP: &str = "Give the new key as TENANCY_SECRETS__MASTER_KEY (or in master.key) and the one before as
TENANCY_SECRETS__MASTER_KEY_OTHER (or in master.key.other), to every replica, and start them again; run this; then take
the other one away. Where replicas start one after the other, first give them the new key as the other one.";

const PRUNE_HELP: &str =
    "What stays: that the organization was there, when it was purged and pruned, ids and times of its events, and
their hashes, by which exports of before still verify. The time counts from when the owner of the database first saw
the purge: by the service, or by a run of this, also a dry one.

Example:
  TENANCY_DATABASE__OWNER_URL=postgres://… TENANCY_AUDIT__PURGED_KEPT_DAYS=400 tenancy prune --dry-run";

/// The longest life of a token that is minted. Nothing takes it back before.
const TTL_MAX: TimeDelta = TimeDelta::days(366);

/// How long the end of the program waits for what cannot be broken off.
const BLOCKED_WAIT_MAX: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "Examples:
  tenancy                                      run the service on http://127.0.0.1:8080
  tenancy token --email you@example.com --operator
  tenancy import peribolos ./config --as you@example.com
  DATABASE_URL=postgres://… tenancy serve      run it on a PostgreSQL of yours";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (also without a subcommand).
    #[command(after_help = "Example:\n  tenancy serve --listen 127.0.0.1:9000")]
    Serve {
        /// Address and port.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
    },
    /// Bring the database up to date and say what that took.
    Migrate,
    /// Mint a token of the built-in issuer and print nothing else.
    #[command(after_help = "Example:\n  curl -H \"Authorization: Bearer $(tenancy token --email ada@example.com)\" …")]
    Token {
        /// Whose token; the address counts as verified.
        #[arg(long, value_parser = address)]
        email: String,
        /// The name.
        #[arg(long)]
        name: Option<String>,
        /// Make it an operator's token.
        #[arg(long)]
        operator: bool,
        /// For how long: a number and s, m, h or d, a year at most.
        #[arg(long, value_parser = duration, value_name = "24h")]
        ttl: Option<TimeDelta>,
    },
    /// Print a link that signs a person in to the console, as an operator; it is good once, for 15 minutes.
    #[command(after_help = "Example:\n  tenancy console --email ada@example.com --name Ada")]
    Console {
        /// The person who signs in; the address counts as verified.
        #[arg(long, value_parser = address)]
        email: Option<String>,
        /// The name.
        #[arg(long)]
        name: Option<String>,
    },
    /// Fill a fresh installation with a world to look at: organizations in every status, people, projects, refusals, webhooks.
    #[command(after_help = "Example:\n  tenancy demo && tenancy console")]
    Demo {
        /// The operator who verifies, blocks and sets limits there.
        #[arg(long = "as", value_name = "EMAIL", default_value = console::OPERATOR, value_parser = address)]
        operator: String,
    },
    /// Import from other systems.
    Import {
        #[command(subcommand)]
        source: Source,
    },
    /// Print the GraphQL schema.
    Schema,
    /// Read models.
    Projections {
        #[command(subcommand)]
        command: Projections,
    },
    /// The audit trail: what others need to verify it.
    Audit {
        #[command(subcommand)]
        command: Audit,
    },
    /// Run a witness for checkpoints of other installations (C2SP tlog-witness). Needs no database, and runs elsewhere than
    /// they do. Prints its key, by which others verify what it cosigned.
    #[command(after_help = WITNESS_HELP)]
    Witness {
        /// The directory of its key and of what it has seen; made if it is not there.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Its name: a domain of yours, perhaps with a path. Part of its key, so it should never change.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Address and port.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
        /// The verifier key of a log. Its trees are those that are called as the key is, and those below.
        #[arg(long, required = true, value_name = "VERIFIER_KEY")]
        log_key: Vec<VerifierKey>,
    },
    /// Wrap everybody's keys by the current master key, so that the other one is not needed any more. Beside a running
    /// service or without one; goes on where an earlier one was cut off.
    #[command(after_help = ROTATE_HELP)]
    RotateMasterKey,
    /// Take away the content of purged organizations' audit trails that were kept for audit.purged_kept_days. As the owner
    /// of the database; beside a running service, which does it by itself where it knows the owner, or without one.
    #[command(after_help = PRUNE_HELP)]
    Prune {
        /// Only say what would be done, and what is still kept for how long.
        #[arg(long)]
        dry_run: bool,
    },
    /// After the database was restored to an earlier point: begin a new epoch and check everything.
    #[command(after_help = RECOVER_HELP)]
    Recover {
        /// Write claims and tallies as the log says, and rebuild read models that differ.
        #[arg(long)]
        repair: bool,
        /// Also while a service is alive: every position that its clients hold is unknown from then on.
        #[arg(long)]
        force: bool,
        /// Erase again those on this list too: the erased.list of another replica's data directory.
        #[arg(long, value_name = "FILE")]
        erased: Vec<PathBuf>,
    },
    /// Print the effective configuration, secrets hidden, and where each value came from.
    Config,
}

#[derive(Debug, Subcommand)]
enum Source {
    /// GitHub organizations kept as peribolos YAML. May be repeated: adds and changes, never removes.
    #[command(after_help = "Example:\n  tenancy import peribolos ./org/config --as ops@example.com --dry-run")]
    Peribolos {
        /// The folder with a folder for each organization.
        folder: PathBuf,
        /// The importing operator's e-mail address.
        #[arg(long = "as", value_name = "EMAIL", value_parser = address)]
        operator: String,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Projections {
    /// How far each read model is, and what it leaves out. Exit code 1 if a stream is parked.
    Status {
        /// For programs: one line of JSON a projection.
        #[arg(long)]
        json: bool,
    },
    /// Make read models afresh from the log, while the old ones serve. Goes on where an earlier one was cut off.
    #[command(after_help = "Example:\n  tenancy projections rebuild members\n  tenancy projections rebuild --all")]
    Rebuild {
        /// Which.
        #[arg(required_unless_present = "all", value_parser = projection_names())]
        name: Vec<String>,
        /// All of them, reading the log once.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Fold the log afresh and compare every row. Exit code 1 if anything differs.
    #[command(after_help = "Example:\n  tenancy projections verify\n  tenancy projections verify tallies --repair")]
    Verify {
        /// A read model, or: log, seals, claims, tallies. Not given: everything.
        #[arg(value_parser = verifiable_names())]
        name: Option<String>,
        /// Only this organization.
        #[arg(long, value_name = "ID")]
        organization: Option<OrganizationId>,
        /// Write claims and tallies as the log says where they differ.
        #[arg(long)]
        repair: bool,
    },
    /// Try parked streams again now. Exit code 1 if one stays parked.
    Retry {
        /// Which.
        #[arg(value_parser = projection_names())]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Print the keys by which others verify checkpoints, a line each; hand them over by a road of their own.
    Key,
    /// Write an organization's audit trail to a file. A bundle that was cut off goes on where it stopped.
    #[command(after_help = "Example:\n  tenancy audit export --organization org_… --out acme.ndjson")]
    Export {
        /// Whose: an organization's id; "installation" for users and what operators did to them; "access" for the access trail
        /// of all organizations.
        #[arg(long, value_name = "ID")]
        organization: Trail,
        /// The file; - for standard output.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// As what: a bundle to verify, a table for people, or lines of OCSF.
        #[arg(long, default_value = "ndjson", value_parser = formats())]
        format: Format,
        /// Only what followed this position.
        #[arg(long, value_name = "POSITION")]
        since: Option<Position>,
        /// The operator who does it, by e-mail address: stands in the access trail. Without it, the service itself does.
        #[arg(long = "as", value_name = "EMAIL", value_parser = address)]
        operator: Option<String>,
    },
    /// Verify a bundle offline. Exit code 0 only if one of the keys signed it and nothing is altered, missing, added or
    /// moved; else what is, a line each.
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// The bundle.
        #[arg(value_name = "FILE")]
        bundle: PathBuf,
        /// A verifier key that came by another road; several, where keys were exchanged.
        #[arg(long, required = true, value_name = "VERIFIER_KEY")]
        key: Vec<VerifierKey>,
        /// A checkpoint of before (its note, or an older bundle): what it covers must not have changed since.
        #[arg(long, value_name = "CHECKPOINT_FILE")]
        since: Option<PathBuf>,
        /// The key of a witness that you trust; several.
        #[arg(long, value_name = "WITNESS_KEY")]
        witness: Vec<WitnessKey>,
        /// How many of these witnesses have to have cosigned the checkpoint; all of them, without.
        #[arg(long, value_name = "N", requires = "witness")]
        quorum: Option<usize>,
    },
    /// Print what standing verification of the service of this data directory has read, when, and what it found. Exit code 1
    /// if something is not as it was written and signed.
    Status,
    /// Print how the streams to other systems stand (audit.streams): position, lag, and the last failure. Exit code 1 if one
    /// does not get through.
    Streams {
        /// For programs: one line of JSON a stream.
        #[arg(long)]
        json: bool,
    },
    /// Print what changed in an organization between two points, with the actor, the time and the reason of each change.
    /// Names and other personal values are printed with --personal only.
    #[command(after_help = DIFF_HELP)]
    Diff {
        /// Which.
        #[arg(long, value_name = "ID")]
        organization: OrganizationId,
        /// After the event of this audit sequence; or after everything until the end of this day or this time.
        #[arg(long, value_name = "SEQUENCE|TIME", value_parser = diff::Point::parse)]
        from: diff::Point,
        /// Up to and with the event of this audit sequence; or everything until the end of this day or this time.
        #[arg(long, value_name = "SEQUENCE|TIME", value_parser = diff::Point::parse)]
        to: diff::Point,
        /// As what: text for people, or JSON.
        #[arg(long, value_enum, default_value = "text")]
        format: diff::Format,
        /// Print names, addresses and reasons of people too, as far as they can be read.
        #[arg(long)]
        personal: bool,
        /// The operator who does it, by e-mail address: stands in the access trail. Without it, the service itself does.
        #[arg(long = "as", value_name = "EMAIL", value_parser = address)]
        operator: Option<String>,
    },
    /// Write an officer's report of an organization: who has access, and what happened in a period. With names and
    /// addresses of people, as far as they can be read.
    #[command(after_help = REPORT_HELP)]
    Report {
        /// Which.
        #[arg(long, value_name = "ID")]
        organization: OrganizationId,
        /// From this day (UTC) or time on; from the beginning, without.
        #[arg(long, value_name = "TIME", value_parser = report::When::parse)]
        since: Option<report::When>,
        /// Until the end of this day (UTC) or this time; until now, without. Access is as it was then.
        #[arg(long, value_name = "TIME", value_parser = report::When::parse)]
        until: Option<report::When>,
        /// As what: text for a terminal, JSON, or one HTML file that prints well.
        #[arg(long, value_enum, default_value = "text")]
        format: report::Format,
        /// The file; standard output, without.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The operator who does it, by e-mail address: stands in the access trail. Without it, the service itself does.
        #[arg(long = "as", value_name = "EMAIL", value_parser = address)]
        operator: Option<String>,
    },
}

const VERIFY_HELP: &str = "Needs no service, no database and no configuration.\n\nExample:
  tenancy audit verify acme.ndjson --key tenancy.example.com/audit+1f2e3d4c+AY… --since last-year.ndjson
  tenancy audit verify acme.ndjson --key … --witness w1.example+5a6b7c8d+BA… --witness … --quorum 2";

const WITNESS_HELP: &str = "Example, for an installation whose `tenancy audit key` is tenancy.example.com/audit+1f2e3d4c+AY…:
  tenancy witness --state /var/lib/witness --name witness.example.org --log-key tenancy.example.com/audit+1f2e3d4c+AY…
There, in the configuration: audit.witnesses = [{ url = \"https://witness.example.org\", key = \"witness.example.org+…\" }]";

const DIFF_HELP: &str = "Examples:
  tenancy audit diff --organization org_… --from 3 --to 120
  tenancy audit diff --organization org_… --from 2026-06-30 --to 2026-07-31 --personal";

const REPORT_HELP: &str = "Examples:
  tenancy audit report --organization org_…
  tenancy audit report --organization org_… --since 2026-04-01 --until 2026-06-30 --format html --out acme.html";

fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name)).map(|name| Format::named(&name).unwrap_or_default())
}

fn projection_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Projection::ALL.iter().copied().map(Projection::name))
}

fn verifiable_names() -> PossibleValuesParser {
    PossibleValuesParser::new(
        Projection::ALL.iter().copied().map(Projection::name).chain(["log", "seals", "claims", "tallies"]),
    )
}

/// Why a command failed: the reason, and what to do.
struct Failure {
    reason: String,
    remedy: Option<String>,
    /// 1, or 2 where it was asked for wrongly.
    code: u8,
}

impl<E: Into<service::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        Self { reason: error.to_string(), remedy: error.remedy(), code: 1 }
    }
}

fn failed(reason: impl ToString, remedy: impl Into<Option<&'static str>>) -> Failure {
    Failure { reason: reason.to_string(), remedy: remedy.into().map(str::to_owned), code: 1 }
}

/// Arguments that are well formed each, and do not go together.
fn misused(reason: impl ToString, remedy: impl Into<Option<&'static str>>) -> Failure {
    Failure { code: 2, ..failed(reason, remedy) }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let listen = match &arguments.command {
        Some(Command::Serve { listen }) => listen.map(|address| address.to_string()),
        _ => None,
    };
    let flags =
        Flags::new(arguments.config.clone()).with("listen", listen).with("data_dir", arguments.data_dir.clone());
    let command = arguments.command.unwrap_or(Command::Serve { listen: None });
    if matches!(command, Command::Schema) {
        return print(&crate::graphql::sdl());
    }
    if let Command::Audit { command: Audit::Verify { bundle, key, since, witness, quorum } } = &command {
        return audit::verify(bundle, key, since.as_deref(), (witness, *quorum)).unwrap_or_else(end);
    }
    let loaded = match config::load(&flags) {
        Ok(loaded) => loaded,
        // It says reason and remedy by itself.
        Err(error) => return complain(&error.to_string(), None),
    };
    if matches!(command, Command::Config) {
        return print(&loaded.report());
    }
    if let Err(reason) =
        log_to_stderr(&loaded.config, matches!(command, Command::Serve { .. } | Command::Witness { .. }))
    {
        return complain(
            &reason,
            Some("set TENANCY_LOG to a level such as info, or to directives such as info,tenancy=debug"),
        );
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}"), None),
    };
    let done = runtime.block_on(dispatch(command, &loaded));
    // All that matters has been waited for. Looking up a name that nobody answers for cannot be broken off, and would
    // keep a command from ending after it has given up.
    runtime.shutdown_timeout(BLOCKED_WAIT_MAX);
    match done {
        Ok(code) => code,
        Err(failure) => end(failure),
    }
}

fn end(failure: Failure) -> ExitCode {
    complain(&failure.reason, failure.remedy.as_deref());
    ExitCode::from(failure.code)
}

fn complain(reason: &str, remedy: Option<&str>) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "tenancy: {reason}");
    if let Some(remedy) = remedy {
        let _ = writeln!(stderr, "{remedy}");
    }
    ExitCode::FAILURE
}

/// Prints a result; a reader that has gone is no failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn log_to_stderr(config: &Config, serving: bool) -> Result<(), String> {
    let explicit = std::env::var_os("TENANCY_LOG").is_some();
    // A short command speaks for itself; what the service would log is of no interest, unless asked for. Only that it
    // fetches PostgreSQL takes its time and should be known.
    let filter = if serving || explicit { config.log.as_str() } else { "warn,tenancy::database::embedded::fetch=info" };
    let filter =
        EnvFilter::try_new(filter).map_err(|error| format!("the log filter {filter:?} cannot be read: {error}"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter.and(filter_fn(tells_no_secret)))).init();
    Ok(())
}

/// What is read from and written to connections, at the finest level of the libraries that do it, holds tokens.
const WIRE: [&str; 7] = ["tungstenite", "tokio_tungstenite", "h2", "hyper", "hyper_util", "rustls", "reqwest"];

/// Whether a line of the log cannot hold what went over the wire.
fn tells_no_secret(metadata: &tracing::Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() < tracing::Level::TRACE || !WIRE.contains(&library)
}

async fn dispatch(command: Command, loaded: &Loaded) -> Result<ExitCode, Failure> {
    let config = &loaded.config;
    match command {
        Command::Serve { .. } => serve(config).await,
        Command::Migrate => migrate(config).await,
        Command::Token { email, name, operator, ttl } => token(config, email, name, operator, ttl),
        Command::Console { email, name } => console::link(config, email, name),
        Command::Demo { operator } => console::demo(config, operator).await,
        Command::Import { source: Source::Peribolos { folder, operator, dry_run } } => {
            import_peribolos(config, folder, operator, dry_run).await
        }
        Command::Projections { command } => match command {
            Projections::Status { json } => operate::status(config, json).await,
            Projections::Rebuild { name, all } => operate::rebuild(config, operate::named(&name, all)).await,
            Projections::Verify { name, organization, repair } => {
                operate::verify(config, &operate::Wanted { name, organization, repair }).await
            }
            Projections::Retry { name } => operate::retry(config, operate::named(&[name], false)).await,
        },
        Command::Audit { command: Audit::Key } => audit::key(config),
        Command::Audit { command: Audit::Status } => audit::status(config),
        Command::Audit { command: Audit::Streams { json } } => streams::streams(config, json).await,
        Command::Audit { command: Audit::Export { organization, out, format, since, operator } } => {
            audit::export(config, audit::Wanted { organization, out, format, since, operator }).await
        }
        Command::Audit { command: Audit::Diff { organization, from, to, format, personal, operator } } => {
            diff::diff(config, &diff::Wanted { organization, from, to, format, personal, operator }).await
        }
        Command::Audit { command: Audit::Report { organization, since, until, format, out, operator } } => {
            report::report(config, report::Wanted { organization, since, until, format, out, operator }).await
        }
        Command::Witness { state, name, listen, log_key } => witness::run(&state, &name, listen, log_key).await,
        Command::RotateMasterKey => operate::rotate_master_key(config).await,
        Command::Prune { dry_run } => operate::prune(config, dry_run).await,
        Command::Recover { repair, force, erased } => operate::recover(config, repair, force, &erased).await,
        Command::Audit { command: Audit::Verify { .. } } | Command::Schema | Command::Config => {
            unreachable!("answered before anything is started")
        }
    }
}

/// Every connection takes a file descriptor, and many systems allow a process 1,024 of them until it asks for what it may
/// have.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::debug!(%error, "the number of file descriptors stays as it is");
    }
}

async fn serve(config: &Config) -> Result<ExitCode, Failure> {
    raise_descriptors();
    let interrupted = signal(SignalKind::interrupt()).map_err(|error| failed(error, None))?;
    let terminated = signal(SignalKind::terminate()).map_err(|error| failed(error, None))?;
    let mut signals = [interrupted, terminated];
    let [interrupted, terminated] = &mut signals;
    let service = tokio::select! {
        service = Service::start(config) => Some(service?),
        _ = interrupted.recv() => None,
        _ = terminated.recv() => None,
    };
    let Some(service) = service else {
        // The start is given up, and may have started a server on the way.
        database::stop_unused(config).await.map_err(service::Error::from)?;
        return Ok(ExitCode::SUCCESS);
    };
    greet(&service, config);
    let log = service.core().commands.log().clone();
    let broken = tokio::select! {
        _ = interrupted.recv() => false,
        _ = terminated.recv() => false,
        () = log.closed() => true,
    };
    drop(log);
    if broken {
        return Err(failed(
            "the writer of the log has ended, which it never should",
            "start again; and report the lines before this one",
        ));
    }
    tracing::info!("stopping: finishing what was accepted");
    tokio::select! {
        stopped = service.stop() => stopped?,
        // A second interrupt is meant.
        _ = interrupted.recv() => {
            complain("stopped at once, on the second signal", Some("the next start recovers by itself"));
            // Dropping the service here would wait for its database to stop; the process ends instead.
            std::process::exit(1);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What somebody who started the service wants to know.
fn greet(service: &Service, config: &Config) {
    let mut stderr = std::io::stderr().lock();
    if config.log_format == LogFormat::Json {
        tracing::info!(address = %service.address, database = %service.describe_database(), "listening");
        return;
    }
    let _ = writeln!(stderr, "tenancy {} listens on http://{}", env!("CARGO_PKG_VERSION"), service.address);
    if config.http.console {
        let link = console::first_link(service, config, stderr.is_terminal());
        let _ = writeln!(stderr, "  console    {link}");
    }
    if config.http.graphiql {
        let _ = writeln!(stderr, "  GraphiQL   http://{}/graphiql", service.address);
    }
    let _ = writeln!(stderr, "  data       {} ({})", config.data_dir.display(), service.describe_database());
    let Some(issuer) = &service.issuer else { return };
    if config.http.console && config.is_local() {
        let _ = writeln!(stderr, "  sign in    tenancy console");
    }
    let _ = writeln!(stderr, "  tokens     tenancy token --email you@example.com --operator");
    // A token belongs on a screen, not in a log file.
    if stderr.is_terminal() {
        let grant = Grant {
            email: console::OPERATOR.to_owned(),
            name: Some(console::OPERATOR_NAME.to_owned()),
            operator: true,
            ttl: TimeDelta::hours(i64::from(config.access.token_ttl_hours_default)),
        };
        if let Ok(token) = issuer.mint(&grant) {
            let _ = writeln!(stderr, "  to try     {{\"Authorization\": \"Bearer {token}\"}}");
        }
    }
}

async fn migrate(config: &Config) -> Result<ExitCode, Failure> {
    let database = Database::open(config, Purpose::Command).await.map_err(service::Error::from)?;
    let migrations = database.migrate().await.map_err(service::Error::from)?;
    database.close().await.map_err(service::Error::from)?;
    if migrations.is_empty() {
        return Ok(print("The database is up to date.\n"));
    }
    Ok(print(&migrations.iter().map(|migration| format!("migrated {migration}\n")).collect::<String>()))
}

fn token(
    config: &Config,
    email: String,
    name: Option<String>,
    operator: bool,
    ttl: Option<TimeDelta>,
) -> Result<ExitCode, Failure> {
    if !config.builtin_issuer() {
        return Err(failed(
            "the built-in issuer is off, so its tokens would not be accepted",
            "it is on while the service listens on loopback with its own database, or with TENANCY_ACCESS__BUILTIN_ISSUER=true",
        ));
    }
    let ttl = ttl.unwrap_or_else(|| TimeDelta::hours(i64::from(config.access.token_ttl_hours_default)));
    let token = builtin_issuer(config)?.mint(&Grant { email, name, operator, ttl }).map_err(service::Error::from)?;
    Ok(print(&format!("{token}\n")))
}

async fn import_peribolos(
    config: &Config,
    folder: PathBuf,
    operator: String,
    dry_run: bool,
) -> Result<ExitCode, Failure> {
    let folder = import::peribolos::read(&folder).map_err(|error| failed(error, None))?;
    let core = Core::open(config, Purpose::Command).await?;
    core.catch_up().await?;
    let result = import_as(&core, config, folder, operator, dry_run).await;
    core.catch_up().await?;
    core.close().await?;
    Ok(print(&result?.to_string()))
}

async fn import_as(
    core: &Core,
    config: &Config,
    folder: import::peribolos::Folder,
    email: String,
    dry_run: bool,
) -> Result<import::Summary, Failure> {
    let stopped = |error: import::Failed| failed(error, "mend that and repeat the import: it goes on where it stopped");
    let user = user_at(core, config, &email).await.map_err(|fault| stopped(fault.into()))?;
    let options =
        import::Options { operator: Person { user, email: Some(email), operator: true, organization: None }, dry_run };
    let progress = progress_bar();
    let lines = tokio::spawn(progress_lines(progress.clone()));
    let summary = import::import(&core.commands, folder, &options, &progress).await;
    lines.abort();
    summary.map_err(stopped)
}

/// The user whom a token of the built-in issuer for this address stands for.
async fn user_at(core: &Core, config: &Config, email: &str) -> Result<UserId, Fault> {
    let subject = aggregates::text::email_key(email);
    let profile = Profile { email: Some(email.to_owned()), display_name: None };
    core.commands.ensure_user(&config.access.issuer, &subject, profile, true).await
}

/// The actor of a command that was given `--as`, or was not. A user who was shut out is none.
async fn actor(core: &Core, config: &Config, email: Option<&str>) -> Result<Actor, Failure> {
    let Some(email) = email else { return Ok(Actor::System) };
    let user = user_at(core, config, email).await.map_err(service::Error::from)?;
    let state = core.commands.log().load::<User>(&user).await.map_err(service::Error::from)?.state.state;
    match state {
        UserState::Active => Ok(Actor::Operator(user)),
        UserState::Pending | UserState::Revoked | UserState::Erased => Err(failed(
            format!("{email} may not act: the user waits for approval or was revoked"),
            "name another operator",
        )),
    }
}

/// Where there is no terminal, a plain line now and then instead of a bar.
async fn progress_lines(bar: ProgressBar) {
    while !std::io::stderr().is_terminal() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let line = format!("{}: {} of {}", bar.message(), bar.position(), bar.length().unwrap_or_default());
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// A bar on a terminal; nothing elsewhere.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{msg:20} {bar:40} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A number and s, m, h or d.
fn duration(text: &str) -> Result<TimeDelta, String> {
    let wrong = || format!("{text:?} is no duration: give a number and s, m, h or d, such as 24h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: i64 = number.parse().ok().filter(|number| (1..=100_000_000).contains(number)).ok_or_else(wrong)?;
    let ttl = match unit {
        "s" => TimeDelta::seconds(number),
        "m" => TimeDelta::minutes(number),
        "h" => TimeDelta::hours(number),
        "d" => TimeDelta::days(number),
        _ => return Err(wrong()),
    };
    if ttl > TTL_MAX {
        return Err(format!("{text:?} is too long: give {} d at most", TTL_MAX.num_days()));
    }
    Ok(ttl)
}

/// An e-mail address as the service takes it.
fn address(text: &str) -> Result<String, String> {
    aggregates::text::email("the address", text).map_err(|refusal| refusal.to_string())
}
