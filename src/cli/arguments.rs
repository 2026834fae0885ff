//! What can be asked for on the command line, and how arguments are read.

use std::net::SocketAddr;
use std::path::PathBuf;

use aggregates::ids::OrganizationId;
use chrono::TimeDelta;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use projections::Projection;

use super::{console, diff, report};
use crate::audit::cosignature::WitnessKey;
use crate::audit::export::Format;
use crate::audit::note::VerifierKey;
use crate::audit::trail::Trail;
use crate::log::Position;

/// Tenancy as a service: organizations, members, invitations, projects and limits on an append-only log.
#[derive(Debug, Parser)]
#[command(name = "tenancy", version, after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Configuration file (TOML); see config.example.toml.
    #[arg(long, global = true, env = "TENANCY_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where the service keeps what is its own.
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
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

const EXAMPLES: &str = "Examples:
  tenancy                                      run the service on http://127.0.0.1:8080
  tenancy token --email you@example.com --operator
  tenancy import peribolos ./config --as you@example.com
  DATABASE_URL=postgres://… tenancy serve      run it on a PostgreSQL of yours";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
pub(super) enum Source {
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
pub(super) enum Projections {
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
pub(super) enum Audit {
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
