//! Clients: each gives commands, one after the other, as fast as it gets answers; hangs up on some; repeats some;
//! and writes down what it was told.

pub mod plans;
pub mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::graphql;
use crate::history::{Attempt, Command, Outcome, Read, Recorder, Shown};
use crate::replica::Replica;

pub use plans::Planned;
pub use world::{User, World};

/// How long a client that hangs up on nobody waits.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often a client begins with several commands at once.
const RUSHES: f64 = 0.08;
/// How often an unknown command with a key is tried again during the run.
const TRIES_MAX: usize = 5;
/// How often after the faults are over.
const LAST_TRIES_MAX: usize = 12;

/// What all clients share.
pub struct Office {
    /// HTTP.
    pub http: reqwest::Client,
    /// The replicas.
    pub replicas: Vec<Arc<Replica>>,
    /// The things.
    pub world: World,
    /// What is written down.
    pub recorder: Recorder,
    /// When the run began.
    pub began: Instant,
    /// The run's own mark, in all request ids and keys.
    pub mark: String,
    next: AtomicU64,
    /// Commands with a key of which nobody knows the outcome yet.
    unresolved: Mutex<Vec<(Command, User)>>,
    /// Where partitions and organizations ended, when all clients had.
    pub ends: Mutex<BTreeMap<String, i64>>,
    /// Reads that were answered with STALE_READ or not at all.
    pub reads_unanswered: AtomicU64,
}

impl Office {
    /// A new one.
    pub fn new(replicas: Vec<Arc<Replica>>, world: World, seed: u64) -> Self {
        let http = reqwest::Client::builder().pool_max_idle_per_host(64).build().unwrap();
        Self {
            http,
            replicas,
            world,
            recorder: Recorder::default(),
            began: Instant::now(),
            mark: format!("faults-{seed:x}"),
            next: AtomicU64::new(1),
            unresolved: Mutex::default(),
            ends: Mutex::default(),
            reads_unanswered: AtomicU64::new(0),
        }
    }

    /// Where a partition or an organization ended.
    pub fn end_of(&self, what: &str) -> i64 {
        self.ends.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or_default()
    }

    /// A command that is to be tried.
    pub fn command(&self, planned: &Planned, keyed: bool) -> Command {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let key = keyed.then(|| format!("{}-{id}", self.mark));
        let mut input = planned.input.clone();
        if let Some(key) = &key {
            input["idempotencyKey"] = json!(key);
        }
        Command { id, operation: planned.operation.to_owned(), caller: planned.user.id(), key, input, attempts: vec![] }
    }

    /// Tries a command once, at this replica, and writes it down in the command. Gives the whole answer.
    pub async fn attempt(&self, command: &mut Command, user: &User, replica: usize, wait: Duration) -> Value {
        let (input_type, select) = plans::of(&command.operation).map_or(("", ""), |plan| (plan.input, plan.select));
        let query = format!(
            "mutation($input: {input_type}!) {{ {}(input: $input) {{ {select} position replayed events {{ id }}
             errors {{ code }} }} }}",
            command.operation
        );
        let body = json!({"query": query, "variables": {"input": command.input}});
        let request_id = format!("{}-{}-{}", self.mark, command.id, command.attempts.len());
        let began_ms = self.now_ms();
        let url = self.replicas[replica].url("/graphql");
        let answer = graphql::send(&self.http, &url, &user.token, Some(&request_id), &body, wait).await;
        let outcome = match &answer {
            Ok(answer) => graphql::outcome(&command.operation, answer),
            Err(why) => Outcome::Unknown { why: why.clone() },
        };
        command.attempts.push(Attempt { request_id, replica, began_ms, ended_ms: self.now_ms(), outcome });
        answer.unwrap_or_default()
    }

    /// Gives a command beside the clients, once, at this replica; whether it was accepted, and the answer's payload.
    pub async fn give(&self, planned: &Planned, replica: usize, wait: Duration) -> (bool, Value) {
        let mut command = self.command(planned, false);
        let mut answer = self.attempt(&mut command, &planned.user, replica, wait).await;
        let accepted = is_acknowledged(&command);
        self.recorder.command(command);
        let payload = answer["data"][planned.operation].take();
        (accepted, if payload.is_null() { answer } else { payload })
    }

    /// After the faults: tries what is unknown until it is known.
    pub async fn resolve(&self) {
        let unresolved = std::mem::take(&mut *self.unresolved.lock().unwrap());
        for (mut command, user) in unresolved {
            for number in 0..LAST_TRIES_MAX {
                self.attempt(&mut command, &user, number % self.replicas.len(), PATIENCE).await;
                if !is_unknown(&command) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            self.recorder.command(command);
        }
    }
}

fn is_unknown(command: &Command) -> bool {
    matches!(command.attempts.last().map(|attempt| &attempt.outcome), Some(Outcome::Unknown { .. }))
}

/// One client.
pub struct Client {
    /// What it shares.
    pub office: Arc<Office>,
    /// Its decisions.
    pub random: StdRng,
}

impl Client {
    /// Works until told to stop.
    pub async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            if self.random.random_bool(RUSHES) {
                self.rush(&stop).await;
            }
            match plans::next(&self.office.world, &mut self.random) {
                Some(planned) => self.carry_out(planned, &stop).await,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            let pause = self.random.random_range(0..25);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Gives several commands at the same moment, of which most have to be refused.
    async fn rush(&mut self, stop: &AtomicBool) {
        let planned = plans::rush(&self.office.world, &mut self.random);
        let each = planned.into_iter().map(|planned| {
            let random = StdRng::seed_from_u64(self.random.random());
            let mut one = Self { office: self.office.clone(), random };
            async move { one.carry_out(planned, stop).await }
        });
        let all: Vec<_> = each.collect();
        futures_util::future::join_all(all).await;
    }

    fn replica(&mut self) -> usize {
        self.random.random_range(0..self.office.replicas.len())
    }

    /// Most wait; some have little patience, and some none.
    fn patience(&mut self) -> Duration {
        Duration::from_millis(match self.random.random_range(0..100) {
            0..80 => return PATIENCE,
            80..92 => self.random.random_range(300..2000),
            _ => self.random.random_range(1..40),
        })
    }

    async fn carry_out(&mut self, planned: Planned, stop: &AtomicBool) {
        let office = self.office.clone();
        let keyed = !planned.user.passes_by && self.random.random_bool(0.5);
        let mut command = office.command(&planned, keyed);
        if let Some(version) = planned.version.filter(|version| *version > 0 && self.random.random_bool(0.25)) {
            command.input["expectedVersion"] = json!(version);
        }
        loop {
            let (replica, patience) = (self.replica(), self.patience());
            let answer = office.attempt(&mut command, &planned.user, replica, patience).await;
            self.learn(&command, &answer);
            let give_up = command.key.is_none() || command.attempts.len() >= TRIES_MAX || stop.load(Ordering::Relaxed);
            if !is_unknown(&command) || give_up {
                break;
            }
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..600))).await;
        }
        if is_unknown(&command) && command.key.is_some() {
            office.unresolved.lock().unwrap().push((command, planned.user));
            return;
        }
        if is_acknowledged(&command) {
            if command.key.is_some() && self.random.random_bool(0.15) {
                let replica = self.replica();
                office.attempt(&mut command, &planned.user, replica, PATIENCE).await;
            }
            if self.random.random_bool(0.25) {
                self.read_back(&command).await;
            }
        }
        office.recorder.command(command);
    }

    fn learn(&self, command: &Command, answer: &Value) {
        if command.caller.starts_with("tok_") && graphql::fault(answer) == Some("UNAUTHENTICATED") {
            self.office.world.forget_api_token(&command.caller);
        }
        let payload = &answer["data"][&command.operation];
        if let (Some(id), Some(token)) = (payload["invitation"]["id"].as_str(), payload["token"].as_str()) {
            self.office.world.add_token(id, token);
        }
        if let Some(id) = payload["organization"]["id"].as_str() {
            self.office.world.add(id);
        }
        let Some(organization) = command.input["organizationId"].as_str() else { return };
        if let (Some(id), Some(secret)) = (payload["token"]["id"].as_str(), payload["secret"].as_str()) {
            self.office.world.add_api_token(organization, id, secret);
        }
        if let Some(position) = payload["position"].as_str() {
            self.office.world.add_position(organization, position);
        }
    }

    /// Reads the list that shows what was just acknowledged, at any replica, as new as that at least.
    async fn read_back(&mut self, command: &Command) {
        let replica = self.replica();
        let Some(Outcome::Acknowledged { position: Some(position), entities, .. }) =
            command.attempts.last().map(|attempt| &attempt.outcome)
        else {
            return;
        };
        for (entity, version) in entities {
            let Some(read) = self.read_list(command, entity, position, replica).await else {
                self.office.reads_unanswered.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let (shown, whole) = read;
            let (entity, version) = (entity.clone(), *version);
            self.office.recorder.read(Read { command: command.id, replica, entity, version, shown, whole });
        }
    }

    async fn read_list(
        &self,
        command: &Command,
        entity: &str,
        position: &str,
        replica: usize,
    ) -> Option<(Option<Shown>, bool)> {
        let office = &self.office;
        let operator = office.world.operators.first()?;
        let organization = organization_of(command, entity, &office.world)?;
        let prefix = entity.split_once('_')?.0;
        let list = plans::LISTS.iter().copied().flatten().find(|list| list.prefix == prefix);
        let (list, fields) =
            list.map_or(("", "id version verification lifecycle slug"), |list| (list.name, list.fields));
        let page = "pageInfo { hasPreviousPage }";
        let query = if list.is_empty() {
            format!(
                "query($o: ID!, $p: [Position!]) {{ organizations(last: 100, atLeast: $p) {{ nodes {{ {fields} }} {page} }} organization(by: {{id: $o}}) {{ id }} }}"
            )
        } else {
            format!(
                "query($o: ID!, $p: [Position!]) {{ organization(by: {{id: $o}}, atLeast: $p) {{ {list}(last: 100) {{ nodes {{ {fields} }} {page} }} }} }}"
            )
        };
        let body = json!({"query": query, "variables": {"o": organization, "p": [position]}});
        let url = office.replicas[replica].url("/graphql");
        let answer = graphql::send(&office.http, &url, &operator.token, None, &body, PATIENCE).await.ok()?;
        if graphql::fault(&answer).is_some() {
            return None;
        }
        let list = match list {
            "" => &answer["data"]["organizations"],
            list => &answer["data"]["organization"][list],
        };
        let nodes = list["nodes"].as_array()?;
        let whole = list["pageInfo"]["hasPreviousPage"] == json!(false);
        Some((nodes.iter().find(|node| node["id"] == entity).map(shown), whole))
    }
}

fn is_acknowledged(command: &Command) -> bool {
    matches!(command.attempts.last().map(|attempt| &attempt.outcome), Some(Outcome::Acknowledged { .. }))
}

/// The organization whose lists show `entity`, as far as the input or the world says.
fn organization_of(command: &Command, entity: &str, world: &World) -> Option<String> {
    if entity.starts_with("org_") {
        return Some(entity.to_owned());
    }
    let named = command.input["organizationId"].as_str().map(str::to_owned);
    named.or_else(|| world.home_of(entity))
}

fn shown(node: &Value) -> Shown {
    let text = |name: &str| node[name].as_str().unwrap_or_default();
    let state = match text("verification") {
        "" => text("state").to_owned(),
        verification => format!("{verification} {}", text("lifecycle")),
    };
    let roles = node["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let more = if roles.is_empty() { text("slug").to_owned() } else { roles };
    Shown { version: node["version"].as_i64().unwrap_or_default(), state, more }
}
