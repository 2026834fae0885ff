//! What clients were told, against the log: acknowledged is there once, refused left nothing, unknown is wholly there
//! or wholly absent, and a key has one outcome.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sqlx::{PgPool, Row};

use super::event::Event;
use super::findings::Findings;
use crate::history::{Attempt, Command, Outcome};

/// Kept outcomes by caller, operation and key: the ids of the events.
pub type Kept = BTreeMap<(String, String, String), Vec<String>>;

/// Reads the kept outcomes.
pub async fn load(pool: &PgPool) -> Result<Kept, sqlx::Error> {
    let rows = sqlx::query("SELECT caller, operation, key, to_jsonb(outcome) FROM outcomes").fetch_all(pool).await?;
    let ids = |outcome: Value| {
        let list = outcome["events"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
    };
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1), row.get(2)), ids(row.get::<Value, _>(3)))).collect())
}

/// The log by request and by event.
struct Places<'a> {
    by_request: HashMap<&'a str, Vec<&'a Event>>,
    by_command: HashMap<&'a str, Vec<&'a Event>>,
    by_id: HashMap<&'a str, &'a Event>,
}

impl<'a> Places<'a> {
    fn of(events: &'a [Event]) -> Self {
        let mut places = Self { by_request: HashMap::new(), by_command: HashMap::new(), by_id: HashMap::new() };
        for event in events {
            if let Some(request) = &event.request {
                places.by_request.entry(request).or_default().push(event);
            }
            places.by_command.entry(&event.command).or_default().push(event);
            places.by_id.insert(&event.id, event);
        }
        places
    }

    /// What an attempt left, without a record that a limit was reached, and without what followed in a process behind it.
    fn left(&self, attempt: &Attempt) -> Vec<&'a Event> {
        let all = self.by_request.get(attempt.request_id.as_str()).cloned().unwrap_or_default();
        all.into_iter().filter(|event| event.name != "LimitReached" && event.cause.is_none()).collect()
    }

    fn limits(&self, attempt: &Attempt) -> usize {
        let all = self.by_request.get(attempt.request_id.as_str()).into_iter().flatten();
        all.filter(|event| event.name == "LimitReached").count()
    }
}

/// Checks what is kept by itself: without a history this much can be said.
pub fn check_kept(events: &[Event], kept: &Kept, findings: &mut Findings) {
    let places = Places::of(events);
    for ((caller, operation, key), ids) in kept {
        let found: Vec<_> = ids.iter().filter_map(|id| places.by_id.get(id.as_str())).collect();
        let commands: HashSet<_> = found.iter().map(|event| &event.command).collect();
        let whole = commands
            .iter()
            .all(|command| places.by_command.get(command.as_str()).is_some_and(|all| all.len() == ids.len()));
        if found.iter().any(|event| event.is_pruned()) {
            continue;
        }
        if found.len() != ids.len() || commands.len() > 1 || !whole {
            let said = || format!("{caller} {operation} {key}: {ids:?}, of which {} are in the log", found.len());
            findings.add("a kept outcome names the events of one whole command", said);
        }
    }
}

/// Checks every command of the history.
pub fn check(commands: &[Command], events: &[Event], kept: &Kept, findings: &mut Findings) {
    let places = Places::of(events);
    for command in commands {
        for attempt in &command.attempts {
            check_attempt(command, attempt, &places, findings);
        }
        if command.key.is_some() {
            check_key(command, &places, kept, findings);
        }
    }
}

/// Checks that nothing is there that nobody asked for.
pub fn check_origins(commands: &[Command], events: &[Event], findings: &mut Findings) {
    let requests = commands.iter().flat_map(|command| &command.attempts).map(|attempt| attempt.request_id.as_str());
    let known: HashSet<&str> = requests.collect();
    for event in events.iter().filter(|event| event.request.as_deref().is_some_and(|id| !known.contains(id))) {
        let found = || format!("{} of request {:?}", event.place(), event.request);
        findings.add("every event is of a request that was sent, or of the service itself", found);
    }
}

fn name(command: &Command, attempt: &Attempt) -> String {
    format!("command {} {} ({}, replica {})", command.id, command.operation, attempt.request_id, attempt.replica)
}

fn check_attempt(command: &Command, attempt: &Attempt, places: &Places<'_>, findings: &mut Findings) {
    let left = places.left(attempt);
    let ids: Vec<&str> = left.iter().map(|event| event.id.as_str()).collect();
    let limits = places.limits(attempt);
    let said = || name(command, attempt);
    match &attempt.outcome {
        Outcome::Acknowledged { events, position, replayed, .. } => {
            let missing: Vec<_> = events.iter().filter(|id| !places.by_id.contains_key(id.as_str())).collect();
            if !missing.is_empty() {
                findings
                    .add("what was acknowledged is in the log", || format!("{}: {missing:?} are not there", said()));
            }
            let own = !replayed && ids != events.iter().map(String::as_str).collect::<Vec<_>>();
            if own || (*replayed && !ids.is_empty()) {
                let found = || format!("{}: it was told {events:?} (replayed: {replayed}), and left {ids:?}", said());
                findings.add("a command leaves what it was told, once", found);
            }
            if !covers(position.as_deref(), events, places) {
                findings.add("a position covers what it was given for", || format!("{}: {position:?}", said()));
            }
            if limits > 0 {
                findings.add("only a refusal by a limit records LimitReached", said);
            }
        }
        Outcome::Refused { code } => {
            if !ids.is_empty() {
                findings.add("a refused command leaves nothing", || format!("{}: {code}, and left {ids:?}", said()));
            }
            if limits > usize::from(code == "LIMIT_REACHED") {
                findings.add("only a refusal by a limit records LimitReached", || format!("{}: {code}", said()));
            }
        }
        Outcome::Unknown { .. } => check_whole(command, attempt, &left, limits, places, findings),
    }
}

/// Whether a position says at least the last of the events.
fn covers(position: Option<&str>, events: &[String], places: &Places<'_>) -> bool {
    let found: Vec<_> = events.iter().filter_map(|id| places.by_id.get(id.as_str())).collect();
    let Some(last) = found.iter().max_by_key(|event| event.offset) else { return true };
    let offsets = position.and_then(offsets).unwrap_or_default();
    offsets.iter().any(|(partition, offset)| *partition == last.partition && *offset >= last.offset)
}

/// The offsets in a position: its text is opaque to clients, and the checker is no client.
pub fn offsets(position: &str) -> Option<Vec<(i16, i64)>> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(position).ok()?).ok()?;
    let parse = |part: &str| {
        let (partition, offset) = part.split_once('-')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    text.split('.').skip(1).map(parse).collect()
}

/// Wholly there: everything of one command, with the events that such a command cannot do without.
fn check_whole(
    command: &Command,
    attempt: &Attempt,
    left: &[&Event],
    limits: usize,
    places: &Places<'_>,
    findings: &mut Findings,
) {
    let Some(first) = left.first() else {
        if limits > 1 {
            findings.add("only a refusal by a limit records LimitReached", || name(command, attempt));
        }
        return;
    };
    let all = places.by_command.get(first.command.as_str()).map_or(0, Vec::len);
    let wanted: &[&str] = match command.operation.as_str() {
        "createOrganization" => &["OrgCreated", "MemberJoined"],
        "acceptInvitation" => &["InvitationAccepted"],
        _ => &[],
    };
    let whole = wanted.iter().all(|name| left.iter().any(|event| event.name == *name));
    if all != left.len() || left.iter().any(|event| event.command != first.command) || !whole || limits > 0 {
        let found = || {
            format!("{}: {left:?}", name(command, attempt), left = left.iter().map(|e| e.place()).collect::<Vec<_>>())
        };
        findings.add("an unknown command is wholly there or wholly absent", found);
    }
}

/// One key, one outcome: at most one try left something, and every answer, and what is kept, says that.
fn check_key(command: &Command, places: &Places<'_>, kept: &Kept, findings: &mut Findings) {
    let key = command.key.clone().unwrap_or_default();
    let said = || format!("command {} {} with key {key}", command.id, command.operation);
    let tries: Vec<Vec<&Event>> =
        command.attempts.iter().map(|attempt| places.left(attempt)).filter(|left| !left.is_empty()).collect();
    if tries.len() > 1 {
        let found = || format!("{}: {:?}", said(), tries.iter().map(|left| left[0].place()).collect::<Vec<_>>());
        findings.add("a key has one outcome", found);
    }
    let left: Vec<&str> = tries.iter().flatten().map(|event| event.id.as_str()).collect();
    let outcome = kept.get(&(command.caller.clone(), command.operation.clone(), key.clone()));
    let (mut acknowledged, mut keeps) = (false, false);
    for attempt in &command.attempts {
        let Outcome::Acknowledged { events, replayed, position, .. } = &attempt.outcome else {
            // Somebody who was shut out meanwhile is told nothing.
            let refused = matches!(&attempt.outcome, Outcome::Refused { code } if code != "UNAUTHENTICATED");
            if refused && acknowledged {
                findings.add("what was acknowledged by key is not refused later", || {
                    format!("{}: {:?}", said(), attempt.outcome)
                });
            }
            continue;
        };
        if keeps && !replayed {
            findings.add("a repetition by key is a replay", || format!("{} at {}", said(), attempt.request_id));
        }
        // Somebody who does not see the organization any more is told again only what is their own.
        let part = *replayed && events.iter().all(|id| left.contains(&id.as_str()));
        if *events != left && !part {
            findings.add("a key has one outcome", || format!("{}: told {events:?}, left {left:?}", said()));
        }
        acknowledged = true;
        // A command that found nothing to do, in no organization, has no partition that could keep its outcome.
        keeps |= !events.is_empty() || position.is_some();
    }
    match outcome {
        Some(ids) if *ids != left => {
            findings.add("a key has one outcome", || format!("{}: kept {ids:?}, left {left:?}", said()));
        }
        None if keeps || !left.is_empty() => {
            findings.add("an accepted command's outcome is kept by its key", || format!("{}: left {left:?}", said()));
        }
        _ => {}
    }
}
