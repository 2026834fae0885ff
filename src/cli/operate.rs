//! Commands for those who run the service: read models, and the check after a restore. Results go to stdout, a line
//! a finding; the exit code says whether all is well.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aggregates::ids::OrganizationId;
use indicatif::ProgressBar;
use projections::rebuild::{Rebuilt, Stage};
use projections::{Projection, Status};
use serde_json::json;
use tokio::sync::watch;

use super::{Failure, failed, print, progress_bar, progress_lines};
use crate::audit::check::{Check, Checked, Pace};
use crate::audit::keys::known;
use crate::audit::note::VerifierKey;
use crate::audit::trail::Trail;
use crate::audit::watch::take_back;
use crate::commands::prune::Pruned;
use crate::config::Config;
use crate::database::embedded::Purpose;
use crate::database::presence::Presence;
use crate::database::roles::DatabaseRole;
use crate::database::{self, Database};
use crate::erased::ErasedList;
use crate::log::LogError;
use crate::log::prune::{Unpruned, unpruned};
use crate::log::verify::{self as ledger, LedgerPart, LedgerVerified};
use crate::service::{Core, audit_signers, failure};

/// How often it is looked whether another process has finished a rebuild.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The projections of these names, which were checked.
pub(super) fn named(names: &[String], all: bool) -> Vec<Projection> {
    Projection::ALL
        .iter()
        .copied()
        .filter(|projection| all || names.iter().any(|name| name == projection.name()))
        .collect()
}

pub(super) fn exit(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How all read models stand.
pub(super) async fn status(config: &Config, as_json: bool) -> Result<ExitCode, Failure> {
    let core = Core::open(config, Purpose::Command).await?;
    let status = projections::status(&core.database.operators).await;
    core.close().await?;
    let status = status.map_err(|error| failed(error, None))?;
    print(&if as_json { status_json(&status) } else { status_text(&status) });
    Ok(exit(status.iter().all(|status| status.parked.is_empty())))
}

/// `ok`, `behind`, `parked` or `rebuilding`.
fn state(status: &Status) -> String {
    match status.rebuild {
        Some(rebuild) => format!("rebuilding, {}%", 100 * rebuild.events / rebuild.of.max(1)),
        None if !status.parked.is_empty() => format!("{} streams parked", status.parked.len()),
        None if status.lag_events() > 0 => "behind".to_owned(),
        None => "ok".to_owned(),
    }
}

fn status_text(all: &[Status]) -> String {
    let mut text = format!(
        "{:<15} {:>7} {:>10} {:>10} {:>10} {:>9}  state\n",
        "projection", "version", "partition", "offset", "lag", "seconds"
    );
    for status in all {
        let shown: i64 = status.partitions.iter().map(|partition| partition.offset).sum();
        let (name, version) = (status.projection.name(), status.projection.version());
        let (lag, seconds, state) = (status.lag_events(), status.lag_seconds(), state(status));
        text.push_str(&format!(
            "{name:<15} {version:>7} {:>10} {shown:>10} {lag:>10} {seconds:>9.1}  {state}\n",
            "all"
        ));
        for row in status.partitions.iter().filter(|row| row.lag_events() > 0) {
            let (number, offset, lag, seconds) = (row.partition, row.offset, row.lag_events(), row.lag_seconds);
            text.push_str(&format!("{:<15} {:>7} {number:>10} {offset:>10} {lag:>10} {seconds:>9.1}\n", "", ""));
        }
        for stream in &status.parked {
            text.push_str(&format!(
                "  parked: {} at offset {} of partition {}, tried again {} times: {}\n",
                stream.aggregate_id, stream.offset, stream.partition, stream.tries, stream.failure
            ));
        }
    }
    text
}

fn status_json(all: &[Status]) -> String {
    let line = |status: &Status| {
        let partitions = status.partitions.iter().map(|row| {
            json!({"partition": row.partition, "offset": row.offset, "head": row.head, "lagEvents": row.lag_events(), "lagSeconds": row.lag_seconds})
        });
        let parked = status.parked.iter().map(|stream| {
            json!({"stream": stream.aggregate_id, "partition": stream.partition, "offset": stream.offset, "failure": stream.failure,
                   "parkedAt": stream.parked_at, "tries": stream.tries, "retryAt": stream.retry_at})
        });
        let line = json!({
            "name": status.projection.name(), "version": status.projection.version(), "state": state(status),
            "lagEvents": status.lag_events(), "lagSeconds": status.lag_seconds(),
            "partitions": partitions.collect::<Vec<_>>(), "parked": parked.collect::<Vec<_>>(),
        });
        format!("{line}\n")
    };
    all.iter().map(line).collect()
}

/// Prunes the trails of purged organizations whose time is over; a line each. Exit code 1 if one has to wait.
pub(super) async fn prune(config: &Config, dry_run: bool) -> Result<ExitCode, Failure> {
    let kept_days = config.audit.purged_kept_days;
    if kept_days == 0 {
        return Err(failed(
            "audit.purged_kept_days is not set, so the trails of purged organizations are kept for ever",
            "set it, such as TENANCY_AUDIT__PURGED_KEPT_DAYS=400, for the service too",
        ));
    }
    let core = Core::open(config, Purpose::Command).await?;
    let result = prune_with(&core, config, kept_days, dry_run).await;
    core.close().await?;
    let (text, well) = result?;
    print(&text);
    Ok(exit(well))
}

async fn prune_with(core: &Core, config: &Config, kept_days: u32, dry_run: bool) -> Result<(String, bool), Failure> {
    let Some(owner) = core.database.owner().to_prune().await? else {
        return Err(failed(
            "the login of the service may not take anything out of the log",
            "give the address of the database's owner in TENANCY_DATABASE__OWNER_URL",
        ));
    };
    if dry_run {
        let unpruned = unpruned(&owner, kept_days).await?;
        let line = |unpruned: &Unpruned| {
            let until = unpruned.seen_at + chrono::Duration::days(kept_days.into());
            let kept = format!("is kept until {}", until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
            let what = if unpruned.due { "would be pruned" } else { &kept };
            format!("{} {what}\n", unpruned.organization)
        };
        return Ok((unpruned.iter().map(line).collect(), true));
    }
    let due = core.commands.record_prunings(&owner, kept_days).await?;
    core.catch_up().await?;
    // Beside a running service this may have no key to sign by; that one seals.
    if let Ok(sealer) = core.sealer(config).await {
        sealer.seal_all().await?;
    }
    let pruned = core.commands.prune(&owner, &core.database.projections, due).await;
    owner.close().await;
    let line = |(organization, outcome): &Pruned| match outcome {
        Ok(events) => format!("{organization} pruned: {events} events\n"),
        Err(why) => format!("{organization} is not pruned yet: {why}\n"),
    };
    Ok((pruned.iter().map(line).collect(), pruned.iter().all(|(_, outcome)| outcome.is_ok())))
}

/// Rebuilds, or watches who does.
pub(super) async fn rebuild(config: &Config, projections: Vec<Projection>) -> Result<ExitCode, Failure> {
    let core = Core::open(config, Purpose::Command).await?;
    let result = rebuild_with(&core, projections).await;
    core.close().await?;
    print(&result?);
    Ok(ExitCode::SUCCESS)
}

async fn rebuild_with(core: &Core, projections: Vec<Projection>) -> Result<String, Failure> {
    // The tables that serve are compared at equal places, so somebody has to keep them level: here, if no service does.
    core.catch_up().await?;
    let started = std::time::Instant::now();
    let (stage, seen) = watch::channel(Stage::default());
    let bar = progress_bar();
    let lines = [tokio::spawn(progress_lines(bar.clone())), tokio::spawn(show(seen, bar.clone()))];
    let mut rebuilt = core.rebuilder().run(projections.clone(), stage.clone()).await;
    while matches!(rebuilt, Ok(Rebuilt::Elsewhere)) {
        bar.set_message("rebuilt elsewhere");
        tokio::time::sleep(LOOK_EVERY).await;
        let left = projections::rebuild::unfinished(&core.database.pool).await.map_err(|error| failed(error, None))?;
        if !left.iter().any(|projection| projections.contains(projection)) {
            break;
        }
        // The process that was at it may have been killed.
        rebuilt = core.rebuilder().run(projections.clone(), stage.clone()).await;
    }
    lines.iter().for_each(tokio::task::JoinHandle::abort);
    bar.finish_and_clear();
    let remedy = "run it again: it goes on where it stopped";
    Ok(match rebuilt.map_err(failure).map_err(|error| failed(error, remedy))? {
        Rebuilt::Elsewhere => "rebuilt by another process\n".to_owned(),
        Rebuilt::Done { events, differences, not_compared } => {
            let seconds = started.elapsed().as_secs_f64();
            let names: Vec<&str> = projections.iter().map(|projection| projection.name()).collect();
            let mut text = format!(
                "rebuilt {} from {events} events in {seconds:.1} s ({:.0} events/s)\n",
                names.join(", "),
                events as f64 / seconds
            );
            for difference in differences {
                text.push_str(&format!("the old one was different: {difference}\n"));
            }
            if not_compared > 0 {
                text.push_str(&format!(
                    "not compared with the old one, which was behind, in {not_compared} partitions\n"
                ));
            }
            text
        }
    })
}

/// Moves the bar with the stages of a rebuild.
async fn show(mut stage: watch::Receiver<Stage>, bar: ProgressBar) {
    while stage.changed().await.is_ok() {
        let (text, done, of) = match *stage.borrow_and_update() {
            Stage::Preparing => ("preparing", 0, 1),
            Stage::Filling { done, of } => ("filling", done, of),
            Stage::Indexing => ("indexing", 0, 1),
            Stage::Comparing { done, of } => ("comparing", done, of),
            Stage::Swapping => ("swapping", 0, 1),
        };
        bar.set_message(text);
        bar.set_length(of.unsigned_abs());
        bar.set_position(done.unsigned_abs());
    }
}

/// What is to be verified.
pub(super) struct Wanted {
    pub name: Option<String>,
    pub organization: Option<OrganizationId>,
    pub repair: bool,
}

/// Folds the log afresh and compares.
pub(super) async fn verify(config: &Config, wanted: &Wanted) -> Result<ExitCode, Failure> {
    let core = Core::open(config, Purpose::Command).await?;
    let result = verify_with(&core, config, wanted).await;
    core.close().await?;
    Ok(exit(result?.is_empty()))
}

/// Verifies, prints what it finds, and gives the names of what is not as it should be.
async fn verify_with(core: &Core, config: &Config, wanted: &Wanted) -> Result<Vec<&'static str>, Failure> {
    let wants = |name: &str| wanted.name.as_deref().is_none_or(|wanted| wanted == name);
    let done = Arc::new(AtomicU64::new(0));
    let bar = progress_bar();
    let heads = core.commands.log().heads_now(&[]).await.map_err(crate::service::Error::from)?;
    bar.set_length(heads.values().sum::<i64>().unsigned_abs());
    let lines = [tokio::spawn(progress_lines(bar.clone())), tokio::spawn(count(done.clone(), bar.clone()))];
    let mut wrong = vec![];
    if wants("log") && wanted.organization.is_none() {
        bar.set_message("log");
        wrong.extend(verify_log(core).await?);
    }
    if wants("seals") {
        bar.set_message("seals");
        wrong.extend(verify_seals(core, config, wanted).await?);
    }
    if wants("claims") || wants("tallies") {
        bar.set_message("claims, tallies");
        wrong.extend(verify_ledger(core, wanted, &done).await?);
    }
    for projection in Projection::ALL.iter().copied().filter(|projection| wants(projection.name())) {
        done.store(0, Ordering::Relaxed);
        bar.set_message(projection.name());
        wrong.extend(verify_projection(core, projection, wanted, &done).await?);
    }
    lines.iter().for_each(tokio::task::JoinHandle::abort);
    bar.finish_and_clear();
    Ok(wrong)
}

async fn count(done: Arc<AtomicU64>, bar: ProgressBar) {
    loop {
        bar.set_position(done.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn verify_log(core: &Core) -> Result<Option<&'static str>, Failure> {
    let wrong = ledger::check(&core.database.options(DatabaseRole::Writer), core.commands.log().partitions()).await;
    let wrong = wrong.map_err(crate::service::Error::from)?;
    if wrong.is_empty() {
        print("log: offsets, audit sequences and versions are dense\n");
        return Ok(None);
    }
    print(&wrong.iter().map(|line| format!("log: {line}\n")).collect::<String>());
    Ok(Some("log"))
}

async fn verify_seals(core: &Core, config: &Config, wanted: &Wanted) -> Result<Option<&'static str>, Failure> {
    let keys: Vec<VerifierKey> = match audit_signers(config) {
        Ok(signers) => signers.iter().map(|signer| signer.verifier().clone()).collect(),
        // Without a key there is only the word of the database for whose signatures they are.
        Err(_) => known(&core.database.pool).await.map_err(crate::service::Error::from)?,
    };
    let pace = Pace { events_per_second: 0 };
    let check = Check::new(core.commands.log(), &keys, &core.heads, pace);
    let trail = wanted.organization.clone().map(Trail::from);
    let checked = check.all(trail.as_ref()).await;
    let Checked { events, wrong, .. } = checked.map_err(crate::service::Error::from)?;
    if wrong.is_empty() {
        print(&format!("seals: {events} events are what was sealed and signed\n"));
        return Ok(None);
    }
    print(&wrong.iter().map(|line| format!("seals: {line}\n")).collect::<String>());
    Ok(Some("seals"))
}

async fn verify_ledger(core: &Core, wanted: &Wanted, done: &AtomicU64) -> Result<Vec<&'static str>, Failure> {
    let log = core.commands.log();
    let organization = wanted.organization.as_ref();
    let verified = ledger::verify(
        &core.database.options(DatabaseRole::Writer),
        log.partitions(),
        organization,
        wanted.repair,
        done,
    )
    .await;
    let LedgerVerified { events, differences, broken, repaired } = verified.map_err(crate::service::Error::from)?;
    // That it is right now is said by a second look, not by the first one's good intentions.
    let left = match repaired {
        0 => differences.len() + broken.len(),
        _ => {
            let again = ledger::verify(
                &core.database.options(DatabaseRole::Writer),
                log.partitions(),
                organization,
                false,
                done,
            )
            .await;
            let again = again.map_err(crate::service::Error::from)?;
            again.differences.len() + again.broken.len()
        }
    };
    let mut wrong = vec![];
    for (part, name) in [(LedgerPart::Claims, "claims"), (LedgerPart::Tallies, "tallies")] {
        if wanted.name.as_deref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let own: Vec<_> = differences.iter().filter(|difference| difference.part == part).collect();
        print(&own.iter().map(|difference| format!("{difference}\n")).collect::<String>());
        match own.len() {
            0 => drop(print(&format!("{name}: as {events} events say\n"))),
            _ if left == 0 => drop(print(&format!("{name}: repaired\n"))),
            _ => wrong.push(name),
        }
    }
    if !broken.is_empty() {
        print(&broken.iter().map(|line| format!("log: {line}\n")).collect::<String>());
        wrong.push("log");
    }
    Ok(wrong)
}

async fn verify_projection(
    core: &Core,
    projection: Projection,
    wanted: &Wanted,
    done: &AtomicU64,
) -> Result<Option<&'static str>, Failure> {
    let log = core.commands.log();
    let organization = wanted.organization.as_ref().map(|id| (id.as_ref(), log.partition_of(id.as_ref())));
    let verified =
        projections::verify(&core.database.options(DatabaseRole::Projector), log, projection, organization, done).await;
    let Some(verified) = verified.map_err(failure)? else { return Ok(None) };
    let name = projection.name();
    let mut text = String::new();
    for (partition, offset, head) in &verified.ahead {
        text.push_str(&format!("{name}: shows offset {offset} of partition {partition}, and the log ends at {head}\n"));
    }
    for difference in &verified.differences {
        text.push_str(&format!("{name}: {difference}\n"));
    }
    if verified.parked > 0 {
        text.push_str(&format!("{name}: {} streams are parked, see `tenancy projections status`\n", verified.parked));
    }
    let well = text.is_empty();
    if well {
        text = format!("{name}: every row as {} events say\n", verified.events);
    }
    print(&text);
    Ok((!well).then_some(name))
}

/// Tries parked streams again.
pub(super) async fn retry(config: &Config, projections: Vec<Projection>) -> Result<ExitCode, Failure> {
    let core = Core::open(config, Purpose::Command).await?;
    let mut well = true;
    for projection in projections {
        let retried = core.runtime.retry(projection).await.map_err(failure)?;
        well &= retried.parked == 0;
        let (name, level, parked) = (projection.name(), retried.level, retried.parked);
        print(&format!("{name}: {level} streams are level again, {parked} stay parked\n"));
    }
    core.close().await?;
    Ok(exit(well))
}

/// After a restore: a new epoch, and everything checked.
pub(super) async fn recover(
    config: &Config,
    repair: bool,
    force: bool,
    lists: &[PathBuf],
) -> Result<ExitCode, Failure> {
    let lists = lists.iter().map(|path| ErasedList::read(path)).collect::<Result<Vec<_>, _>>()?.concat();
    let service = crate::service::Error::from;
    let database = Database::open(config, Purpose::Command).await.map_err(service)?;
    // Kept until the end: a service that starts meanwhile waits.
    let alone = Presence::alone(database.login()).await.map_err(database::Error::from).map_err(service)?;
    if alone.is_none() && !force {
        database.close().await.map_err(service)?;
        return Err(failed(
            "a service is alive on this database, and every position that its clients hold would be unknown",
            "stop all services first; or say --force, where the database was restored under them",
        ));
    }
    let core = Core::over(database, config).await?;
    let key = core.commands.log().keys().chain();
    let recovered = ledger::recover(&core.database.options(DatabaseRole::Writer), key)
        .await
        .map_err(crate::service::Error::from)?;
    // What was known of the epoch before does not hold any more, and what it stopped is looked at anew.
    core.commands.log().look_at_epoch().await.map_err(crate::service::Error::from)?;
    take_back(&core.database.projections).await.map_err(crate::service::Error::from)?;
    print(&format!("epoch {} begins; positions of before are unknown from now on\n", recovered.epoch));
    if recovered.erased_again > 0 {
        print(&format!("{} keys of erased people had come back, and are destroyed again\n", recovered.erased_again));
    }
    let again = core.commands.erase_again(&lists).await?;
    for subject in &again {
        print(&format!("{subject} is erased again\n"));
    }
    core.catch_up().await?;
    core.commands.carry_on_erasures().await?;
    core.catch_up().await?;
    let mut wrong = verify_with(&core, config, &Wanted { name: None, organization: None, repair }).await?;
    if repair {
        let differing: Vec<Projection> =
            Projection::ALL.iter().copied().filter(|projection| wrong.contains(&projection.name())).collect();
        for projection in differing {
            print(&rebuild_with(&core, vec![projection]).await?);
            wrong.retain(|name| *name != projection.name());
        }
    }
    core.close().await?;
    if !wrong.is_empty() && !repair {
        return Err(failed(
            format!("not as the log says: {}", wrong.join(", ")),
            "`tenancy recover --repair` writes claims and tallies as the log says and rebuilds read models",
        ));
    }
    Ok(exit(wrong.is_empty()))
}

/// Wraps everybody's keys by the current master key.
pub(super) async fn rotate_master_key(config: &Config) -> Result<ExitCode, Failure> {
    let core = Core::open(config, Purpose::Command).await?;
    let keys = core.commands.log().keys();
    let bar = progress_bar();
    bar.set_message("keys");
    let lines = tokio::spawn(progress_lines(bar.clone()));
    let rotated = async {
        bar.set_length(keys.wrapped_by_others().await?);
        loop {
            match keys.rewrap().await? {
                0 => return Ok::<_, LogError>(bar.position()),
                rewrapped => bar.inc(rewrapped as u64),
            }
        }
    };
    let rotated = rotated.await;
    lines.abort();
    bar.finish_and_clear();
    core.close().await?;
    let rewrapped = rotated.map_err(crate::service::Error::from)?;
    print(&format!("{rewrapped} keys are wrapped anew; only the current master key is needed from now on\n"));
    Ok(ExitCode::SUCCESS)
}
