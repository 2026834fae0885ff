//! A run from beginning to end: start everything, let the clients work while things go wrong, let things go right
//! again, settle what is in doubt, and check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::check::{self, Findings, Report, Surroundings};
use crate::cli;
use crate::clients::{Client, Office, Planned, User, World};
use crate::cluster::Cluster;
use crate::health::{self, FailedBatches};
use crate::history::{History, Outcome};
use crate::injector::{Injector, Kind};
use crate::proxy::Proxy;
use crate::readers::{self, Pace};
use crate::receiver::{self, Receiver};
use crate::replica::{self, Common, Replica};
use crate::seeds;
use crate::volume::Volume;

/// The number of partitions of the log: few, so that organizations share them.
const PARTITIONS: i16 = 4;
const USERS: usize = 10;
/// Those of them who are erased now and then.
const PASSERS_BY: usize = 4;
const OPERATORS: usize = 3;
const ORGANIZATIONS: usize = 5;
/// How long it may take until all is well again.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long projections may take to come to the end.
const LEVEL: Duration = Duration::from_secs(60);
/// How long nothing may happen before that is believed to be the end.
const QUIET: Duration = Duration::from_secs(3);
/// How long the first commands may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a run consists of.
struct Stage {
    directory: PathBuf,
    cluster: Arc<Cluster>,
    office: Arc<Office>,
    supervisors: JoinSet<()>,
    proxies: Vec<Proxy>,
    receiver: Receiver,
    random_seed: u64,
}

/// Runs, and says whether everything held.
pub async fn run(options: cli::Run) -> Result<bool, String> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let kinds = kinds(&options.faults)?;
    let program = program(options.bin.as_deref())?;
    println!("faults: seed {seed}, {} s, {} replicas, {} clients", options.seconds, options.replicas, options.clients);
    let mut stage = Stage::set(&options, seed, program, &kinds).await?;
    println!("faults: everything of this run lies in {}", stage.directory.display());
    people_and_places(&stage.office, stage.receiver.port).await?;
    let counts = act(&mut stage, &options, kinds.clone()).await;
    let (report, history, summary) = settle(&mut stage, &kinds).await?;
    print_summary(&history, &counts, &report, &summary);
    let held = report.findings.is_empty();
    if held {
        println!("faults: everything held (seed {seed})");
    } else {
        print!("{}", report.findings.describe());
        println!("faults: FAILED with seed {seed}; kept in {}", stage.directory.display());
    }
    stage.strike(options.keep || !held);
    Ok(held)
}

/// Checks a database alone.
pub async fn check_alone(url: &str, history: Option<&Path>, clocks_were_set: bool) -> Result<bool, String> {
    let words = |error: sqlx::Error| error.to_string();
    let pool = sqlx::PgPool::connect(url).await.map_err(words)?;
    let history = history.map(History::load).transpose().map_err(|error| error.to_string())?;
    let report = check::check(&pool, history.as_ref(), Surroundings { clocks_were_set }).await.map_err(words)?;
    println!("faults: {} events", report.events);
    print!("{}", report.findings.describe());
    if report.findings.is_empty() {
        println!("faults: everything held");
    }
    Ok(report.findings.is_empty())
}

fn kinds(names: &[String]) -> Result<BTreeSet<Kind>, String> {
    let mut kinds: BTreeSet<Kind> = match names {
        [] => Kind::ALL.map(|(kind, ..)| kind).into(),
        [none] if none == "none" => BTreeSet::new(),
        names => names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
    };
    if kinds.contains(&Kind::Clock) && !replica::clocks_can_be_set() {
        println!("faults: clocks are left alone: {} is not here (install libfaketime)", replica::FAKETIME);
        kinds.remove(&Kind::Clock);
    }
    Ok(kinds)
}

fn program(given: Option<&Path>) -> Result<PathBuf, String> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("tenancy"));
    let program = given.map(Path::to_owned).or_else(beside).unwrap_or_default();
    if program.is_file() {
        return std::path::absolute(program).map_err(|error| error.to_string());
    }
    Err(format!(
        "there is no service at {}: build it with `cargo build --release`, or name it with --bin",
        program.display()
    ))
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

impl Stage {
    async fn set(options: &cli::Run, seed: u64, program: PathBuf, kinds: &BTreeSet<Kind>) -> Result<Self, String> {
        let words = |error: std::io::Error| error.to_string();
        let directory = tempfile::Builder::new().prefix("faults-").tempdir().map_err(words)?.keep();
        // The account of PostgreSQL has to get through.
        std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o711)).map_err(words)?;
        let megabytes = options.volume_mb.unwrap_or(768 + 4 * options.seconds);
        let volume = Volume::make(directory.join("volume"), megabytes)?;
        if kinds.contains(&Kind::Disk) {
            let way = if volume.can_be_filled() { "a file system of its own is filled" } else { "the proxies play it" };
            println!("faults: a full disk: {way}");
        }
        let cluster = Arc::new(Cluster::make(&directory, volume, free_port().map_err(words)?)?);
        let mut supervisors = JoinSet::new();
        let server = cluster.clone();
        supervisors.spawn(async move { server.supervise().await });
        cluster.ready(Duration::from_secs(30)).await?;

        let common = Common { program, directory: directory.clone(), clocks: kinds.contains(&Kind::Clock) };
        let (mut proxies, mut replicas) = (vec![], vec![]);
        for number in 0..usize::try_from(options.replicas).unwrap_or(3) {
            let proxy = Proxy::open(cluster.port, seed, number).await.map_err(words)?;
            let made = Replica::make(&common, number, free_port().map_err(words)?, proxy.port);
            replicas.push(Arc::new(made.map_err(words)?));
            proxies.push(proxy);
        }
        let world = people(&replicas[0])?;
        replica::share_issuer(&replicas).map_err(words)?;
        for replica in &replicas {
            let replica = replica.clone();
            supervisors.spawn(async move { replica.supervise().await });
        }
        let office = Arc::new(Office::new(replicas, world, seed));
        let receiver = Receiver::open(seed, office.began).await.map_err(words)?;
        let stage = Self { directory, cluster, office, supervisors, proxies, receiver, random_seed: seed };
        stage.all_ready(RECOVERY).await?;
        Ok(stage)
    }

    /// Waits until every replica says that it is ready.
    async fn all_ready(&self, wait: Duration) -> Result<(), String> {
        let deadline = Instant::now() + wait;
        for replica in &self.office.replicas {
            loop {
                let answer = self.office.http.get(replica.url("/health/ready")).timeout(Duration::from_secs(5)).send();
                match answer.await {
                    Ok(response) if response.status().is_success() => break,
                    _ if Instant::now() > deadline => {
                        return Err(format!(
                            "replica {} is not ready; its log is {}",
                            replica.number,
                            replica.log().display()
                        ));
                    }
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
        Ok(())
    }

    /// Takes everything down. What is kept stays there, with PostgreSQL running.
    fn strike(mut self, keep: bool) {
        self.supervisors.abort_all();
        if keep {
            println!("faults: PostgreSQL is left running; look again with");
            let history = self.directory.join("history.ndjson");
            println!("    faults check --database-url '{}' --history {}", self.cluster.url(), history.display());
            std::mem::forget(self.cluster);
            return;
        }
        self.cluster.stop();
        let directory = self.directory.clone();
        drop(self);
        let _ = std::fs::remove_dir_all(directory);
    }
}

/// Everybody, with tokens of the first replica's issuer.
fn people(replica: &Replica) -> Result<World, String> {
    let person =
        |email: String, operator: bool| replica.token(&email, operator).map(|token| User::new(email, token, operator));
    let users = (0..USERS).map(|number| person(format!("user-{number}@faults.test"), false));
    let passers_by =
        (0..PASSERS_BY).map(|number| person(format!("passer-by-{number}@faults.test"), false).map(User::passing_by));
    let operators = (0..OPERATORS).map(|number| person(format!("operator-{number}@faults.test"), true));
    Ok(World::new(users.chain(passers_by).collect::<Result<_, _>>()?, operators.collect::<Result<_, _>>()?))
}

/// Makes everybody known and let in, and the first organizations, each with two owners and verified, before anything goes
/// wrong.
async fn people_and_places(office: &Arc<Office>, receiver: u16) -> Result<(), String> {
    let world = &office.world;
    let _ = world.receiver.set(receiver);
    let operator = &world.operators[0];
    for user in world.operators.iter().chain(&world.users) {
        user.introduce(&office.http, &office.replicas[0], PATIENCE).await;
        if user.id().is_empty() {
            return Err(format!("{} cannot call", user.email));
        }
        if user.state() == "PENDING" {
            let input = json!({"userId": user.id(), "reason": "a run of faults"});
            first(office, "approveUser", operator, input).await?;
        }
    }
    for number in 0..ORGANIZATIONS {
        let (owner, second) = (&world.users[number % USERS], &world.users[(number + 1) % USERS]);
        let slug = format!("slug-{number}");
        let created = first(office, "createOrganization", owner, json!({"name": slug, "slug": slug})).await?;
        let id = created["organization"]["id"].as_str().unwrap_or_default().to_owned();
        let named = json!({"organizationId": id});
        let by_operator = json!({"organizationId": id, "reason": "a run of faults"});
        first(office, "submitOrganizationForVerification", owner, named).await?;
        first(office, "verifyOrganization", operator, by_operator.clone()).await?;
        let mut member = by_operator;
        (member["userId"], member["roles"]) = (json!(second.id()), json!(["owner"]));
        first(office, "addMember", operator, member).await?;
        for ordering in ["PARALLEL", "PER_SUBJECT"] {
            let url = format!("http://127.0.0.1:{receiver}/{slug}/{ordering}");
            let input = json!({"organizationId": id, "url": url, "events": ["*"], "ordering": ordering});
            first(office, "createWebhookEndpoint", owner, input).await?;
        }
        world.add(&id);
    }
    Ok(())
}

async fn first(office: &Office, operation: &'static str, user: &User, input: Value) -> Result<Value, String> {
    let planned = Planned { operation, user: user.clone(), input, version: None };
    match office.give(&planned, 0, PATIENCE).await {
        (true, payload) => Ok(payload),
        (false, answer) => Err(format!("{operation} at the beginning: {answer}")),
    }
}

type Counts = BTreeMap<String, u64>;

/// Lets everybody work while things go wrong.
async fn act(stage: &mut Stage, options: &cli::Run, kinds: BTreeSet<Kind>) -> Counts {
    let (office, seed) = (stage.office.clone(), stage.random_seed);
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..options.clients {
        let client = Client { office: office.clone(), random: seeds::stream(seed, &format!("client {number}")) };
        clients.spawn(client.run(stop.clone()));
    }
    let learner = office.clone();
    let learning = tokio::spawn(async move {
        let random = seeds::stream(seed, "learner");
        learner.world.keep_learning(learner.http.clone(), learner.replicas.clone(), random).await;
    });
    let finish = Arc::new(AtomicBool::new(false));
    let followers = follow(stage, &finish);
    let enabling = {
        let random = seeds::stream(seed, "enabling");
        tokio::spawn(receiver::keep_enabled(stage.cluster.clone(), office.clone(), random, finish.clone()))
    };
    let counts = Arc::new(Mutex::new(Counts::new()));
    let injector = Injector {
        cluster: stage.cluster.clone(),
        office: office.clone(),
        proxies: std::mem::take(&mut stage.proxies),
        kinds,
        random: seeds::stream(seed, "faults"),
        counts: counts.clone(),
    };
    let breaking = tokio::spawn(injector.run(stop.clone()));
    let mut failed = FailedBatches::default();
    let until = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(500)).await;
        failed.look(&office).await;
    }
    stop.store(true, Ordering::Relaxed);
    if let Ok(injector) = breaking.await {
        stage.proxies = injector.proxies;
    }
    println!("faults: everything is left in peace; settling what is in doubt");
    while clients.join_next().await.is_some() {}
    learning.abort();
    office.resolve().await;
    failed.look(&office).await;
    match ends(&stage.cluster).await {
        Ok(ends) => *office.ends.lock().unwrap() = ends,
        Err(error) => eprintln!("faults: nobody knows where the log ends: {error}"),
    }
    finish.store(true, Ordering::Relaxed);
    followers.join_all().await;
    let _ = enabling.await;
    let mut counts = counts.lock().unwrap().clone();
    counts.insert("(failed batches by the services' metrics)".to_owned(), failed.total());
    counts
}

/// Where partitions and organizations end now: so far followers have to come.
async fn ends(cluster: &Cluster) -> Result<BTreeMap<String, i64>, String> {
    cluster.ready(RECOVERY).await?;
    let mut connection = cluster.connect().await.map_err(|error| error.to_string())?;
    let statement = r#"SELECT partition::text, max("offset") FROM events GROUP BY partition
        UNION ALL SELECT organization_id, max(audit_sequence) FROM events WHERE organization_id IS NOT NULL GROUP BY 1"#;
    let rows: Result<Vec<(String, i64)>, _> = sqlx::query_as(statement).fetch_all(&mut connection).await;
    Ok(rows.map_err(|error| error.to_string())?.into_iter().collect())
}

fn follow(stage: &Stage, finish: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut followers = JoinSet::new();
    let seed = stage.random_seed;
    for pace in [Pace::Quick, Pace::Slow] {
        for partition in 0..PARTITIONS {
            let random = seeds::stream(seed, &format!("{pace:?} reader of partition {partition}"));
            let (cluster, office) = (stage.cluster.clone(), stage.office.clone());
            followers.spawn(readers::follow_partition(cluster, office, partition, pace, random, finish.clone()));
        }
    }
    for (number, organization) in stage.office.world.ids().into_iter().enumerate() {
        for replica in 0..stage.office.replicas.len() {
            let pace = if (number + replica) % 2 == 0 { Pace::Quick } else { Pace::Slow };
            let random = seeds::stream(seed, &format!("reader of organization {number} at replica {replica}"));
            let office = stage.office.clone();
            followers.spawn(readers::follow_trail(office, organization.clone(), replica, pace, random, finish.clone()));
        }
    }
    followers
}

/// What is said at the end beside the counts.
struct Summary {
    reasons: Counts,
    states: Counts,
    restarts: u64,
    unanswered: u64,
}

/// Waits until read models are level, stops the services, and checks.
async fn settle(stage: &mut Stage, kinds: &BTreeSet<Kind>) -> Result<(Report, History, Summary), String> {
    let words = |error: sqlx::Error| error.to_string();
    let mut findings = Findings::default();
    stage.cluster.ready(RECOVERY).await?;
    if let Err(error) = stage.all_ready(RECOVERY).await {
        findings.add("services become ready again by themselves", || error);
    }
    let pool = stage.cluster.pool().await.map_err(words)?;
    stage.receiver.leave_in_peace();
    while !stop_when_done(stage, &pool, &mut findings).await.map_err(words)? {
        println!("faults: time did something at the last moment; once more");
        stage.office.replicas.iter().for_each(|replica| replica.resume());
    }
    stage.office.recorder.received(stage.receiver.take());
    for replica in &stage.office.replicas {
        if let Err(said) = replica.saw_nothing_altered() {
            findings.add("no service takes the log for altered", || said);
        }
    }
    let history = stage.office.recorder.take();
    let file = stage.directory.join("history.ndjson");
    history.save(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let surroundings = Surroundings { clocks_were_set: kinds.contains(&Kind::Clock) };
    let mut report = check::check(&pool, Some(&history), surroundings).await.map_err(words)?;
    let mut reasons = Counts::new();
    for replica in &stage.office.replicas {
        health::read_service_log(&replica.log(), &mut reasons, &mut report.findings);
    }
    let states = health::read_server_log(stage.cluster.log(), &mut report.findings);
    report.findings.take_over(findings);
    let restarts = stage.office.replicas.iter().map(|r| r.ended_by_itself.load(Ordering::Relaxed)).sum();
    let unanswered = stage.office.reads_unanswered.load(Ordering::Relaxed);
    Ok((report, history, Summary { reasons, states, restarts, unanswered }))
}

/// Waits until read models are level and webhooks delivered, and stops the services; whether nothing was recorded between
/// the two, that is whether everything that is in the log has had its chance to arrive.
async fn stop_when_done(stage: &Stage, pool: &sqlx::PgPool, findings: &mut Findings) -> Result<bool, sqlx::Error> {
    wait_until_level(pool).await?;
    let mut random = seeds::stream(stage.random_seed, "enabling at the end");
    if let Err(error) = receiver::enable_all(&stage.cluster, &stage.office, &mut random).await {
        eprintln!("faults: endpoints could not be enabled: {error}");
    }
    wait_until_level(pool).await?;
    let before = count_events(pool).await?;
    wait_until_delivered(pool).await?;
    for replica in &stage.office.replicas {
        if let Err(error) = replica.stop().await {
            findings.add("a service stops when it is asked to", || error);
        }
    }
    Ok(count_events(pool).await? == before)
}

async fn count_events(pool: &sqlx::PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(pool).await
}

/// Waits until read models are at the end of the log and the log has not grown for a while: what time did while a
/// clock was ahead may still be on its way.
async fn wait_until_level(pool: &sqlx::PgPool) -> Result<(), sqlx::Error> {
    let deadline = Instant::now() + LEVEL;
    let (mut events, mut since) = (-1i64, Instant::now());
    while Instant::now() < deadline {
        let now = count_events(pool).await?;
        if now != events || !check::behind(pool).await?.is_empty() {
            (events, since) = (now, Instant::now());
        }
        if since.elapsed() > QUIET {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// Waits until nothing is on its way to endpoints that are enabled, for as long as something still moves.
async fn wait_until_delivered(pool: &sqlx::PgPool) -> Result<(), sqlx::Error> {
    let statement =
        "SELECT (SELECT count(*) FROM webhook_deliveries d JOIN webhooks_1.webhook_endpoints e ON e.id = d.endpoint_id
                             WHERE d.due_at IS NOT NULL AND e.state = 'ENABLED' AND NOT e.deleted)
                          + (SELECT COALESCE(sum(until - cursor), 0)::bigint FROM webhook_backfills)";
    let (mut least, mut since) = (i64::MAX, Instant::now());
    while since.elapsed() < LEVEL {
        let open: i64 = sqlx::query_scalar(statement).fetch_one(pool).await?;
        if open == 0 {
            return Ok(());
        }
        if open < least {
            (least, since) = (open, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    eprintln!("faults: {least} webhooks do not arrive");
    Ok(())
}

fn print_summary(history: &History, counts: &Counts, report: &Report, summary: &Summary) {
    println!("\noperation                          acknowledged   refused   unknown (at the end)");
    let mut operations: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    let mut refusals = Counts::new();
    let mut tries = [0u64; 2];
    for command in &history.commands {
        let row = operations.entry(&command.operation).or_default();
        let known = command.attempts.iter().rev().find(|attempt| !matches!(attempt.outcome, Outcome::Unknown { .. }));
        match known.map(|attempt| &attempt.outcome) {
            Some(Outcome::Acknowledged { .. }) => row[0] += 1,
            Some(Outcome::Refused { code }) => {
                row[1] += 1;
                *refusals.entry(code.clone()).or_default() += 1;
            }
            _ => row[2] += 1,
        }
        tries[0] += command.attempts.len() as u64;
        let unknown = |attempt: &&crate::history::Attempt| matches!(attempt.outcome, Outcome::Unknown { .. });
        tries[1] += command.attempts.iter().filter(unknown).count() as u64;
    }
    for (operation, [acknowledged, refused, unknown]) in &operations {
        println!("{operation:34} {acknowledged:12} {refused:9} {unknown:9}");
    }
    let sum = |index: usize| operations.values().map(|row| row[index]).sum::<u64>();
    println!("{:34} {:12} {:9} {:9}", "all", sum(0), sum(1), sum(2));
    println!("requests: {}, of which {} without a known outcome", tries[0], tries[1]);
    print_counts("refusals", &refusals);
    print_counts("faults", counts);
    println!("services that ended by themselves and were started again: {}", summary.restarts);
    print_counts("failed batches, by the services' logs", &summary.reasons);
    print_counts("errors in writers' sessions, by the server's log", &summary.states);
    let followed: usize = history.followed.iter().map(|follower| follower.events.len()).sum();
    println!("events: {}; read by {} followers: {followed}", report.events, history.followed.len());
    let taken = history.received.iter().filter(|received| received.taken).count();
    println!("webhooks received: {}, of which {taken} were taken", history.received.len());
    println!("atLeast reads checked: {}; not answered: {}", history.reads.len(), summary.unanswered);
    print_counts("events by kind", &report.kinds);
}

fn print_counts(title: &str, counts: &Counts) {
    println!("{title}:");
    counts.iter().for_each(|(name, count)| println!("    {count:8}  {name}"));
}
