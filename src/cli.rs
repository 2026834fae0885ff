//! The command line. Messages for people go to stderr, results to stdout; exit code 0 done, 1 failed (the reason in
//! one line, the remedy in a second), 2 wrong usage.

mod arguments;
mod audit;
mod console;
mod diff;
mod operate;
mod report;
mod streams;
mod witness;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::TimeDelta;
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::access::issuer::Grant;
use crate::commands::{Fault, Person};
use crate::config::{self, Config, Flags, Loaded, LogFormat};
use crate::database::embedded::Purpose;
use crate::database::{self, Database};
use crate::import;
use crate::service::{self, Core, Service, builtin_issuer};
use aggregates::ids::UserId;
use aggregates::user::{Profile, UserState};
use aggregates::{Actor, User};
use arguments::{Arguments, Audit, Command, Projections, Source};

/// How long the end of the program waits for what cannot be broken off.
const BLOCKED_WAIT_MAX: Duration = Duration::from_millis(500);

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
