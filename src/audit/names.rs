//! How people, tokens and the service are named to somebody who reads of them: by name and address where these can be
//! read, else by id.

use std::collections::{BTreeSet, HashMap};

use aggregates::personal::readable;
use aggregates::user::{UserEvent, UserState};
use aggregates::{Actor, Aggregate, Event, Personal, Recorded, User};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::as_of::PAGE_EVENTS;
use crate::log::{COLUMNS, Log, LogError, StoredEvent};

/// How many users are asked for at a time.
const USERS_AT_ONCE: usize = 500;

/// A user, a token, the service, or a thing that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// `user`, `operator`, `token`, `system`; of a thing the type of its aggregate.
    pub kind: String,
    /// The id; `system` of the service itself.
    pub id: String,
    /// The name, where there is one that can be read.
    pub name: Option<String>,
    /// The address, where there is one that can be read.
    pub email: Option<String>,
    /// Whether name and address cannot be read because the person was erased.
    pub erased: bool,
}

impl Party {
    /// Of this kind, by its id alone.
    pub fn new(kind: &str, id: &str) -> Self {
        Self { kind: kind.to_owned(), id: id.to_owned(), ..Self::default() }
    }

    fn of_actor(actor: &Actor) -> Self {
        let kind = match actor {
            Actor::User(_) => "user",
            Actor::Operator(_) => "operator",
            Actor::Token(_) => "token",
            Actor::System => "system",
        };
        Self::new(kind, actor.id().unwrap_or("system"))
    }

    /// For people: `Ada <ada@example.com>`, `operator usr_… (erased)`, `token "deploy" (tok_…)`.
    pub fn label(&self) -> String {
        let Self { kind, id, name, email, erased } = self;
        let named = match (name, email) {
            (Some(name), _) if kind == "token" => format!("\"{name}\" ({id})"),
            (Some(name), Some(email)) => format!("{name} <{email}>"),
            (Some(name), None) => format!("{name} ({id})"),
            (None, Some(email)) => email.clone(),
            (None, None) if *erased => format!("{id} (erased)"),
            (None, None) => id.clone(),
        };
        match kind.as_str() {
            "system" => "the service".to_owned(),
            "operator" | "token" => format!("{kind} {named}"),
            _ => named,
        }
    }
}

/// A user as it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    name: Option<String>,
    email: Option<String>,
    erased: bool,
    /// Whether the user is let in, and since when that is so.
    pub(super) state: UserState,
    pub(super) state_since: DateTime<Utc>,
}

/// What users and tokens are called.
#[derive(Debug, Default)]
pub struct Names {
    users: HashMap<String, Known>,
    tokens: HashMap<String, String>,
}

impl Names {
    /// Names tokens only: nothing personal.
    pub fn of_tokens(tokens: HashMap<String, String>) -> Self {
        Self { users: HashMap::new(), tokens }
    }

    /// These users as they were at a time, and these tokens. Of people who were erased since, nothing is known.
    pub async fn read(
        log: &Log,
        users: &BTreeSet<String>,
        tokens: HashMap<String, String>,
        until: DateTime<Utc>,
    ) -> Result<Self, LogError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM events WHERE aggregate_type = 'User' AND aggregate_id = ANY($1)
             AND (aggregate_id, sequence) > ($2, $3) AND recorded_at <= $4
             ORDER BY aggregate_id, sequence LIMIT {PAGE_EVENTS}"
        );
        let ids: Vec<&str> = users.iter().map(String::as_str).collect();
        let mut states: HashMap<String, (User, DateTime<Utc>)> = HashMap::new();
        for ids in ids.chunks(USERS_AT_ONCE) {
            let (mut id, mut sequence) = (String::new(), 0);
            loop {
                let query = sqlx::query_as(&statement).bind(ids).bind(&id).bind(sequence).bind(until);
                let rows: Vec<StoredEvent> = query.fetch_all(log.pool()).await?;
                let read = log.reader().read_each(&rows, log.keys()).await?;
                for recorded in read.into_iter().flatten() {
                    follow(states.entry(recorded.stream.id().to_owned()).or_default(), recorded);
                }
                match rows.last() {
                    Some(last) if rows.len() as i64 == PAGE_EVENTS => {
                        (id, sequence) = (last.aggregate_id.clone(), last.sequence);
                    }
                    _ => break,
                }
            }
        }
        let users = states.into_iter().map(|(id, (user, since))| (id, known(&user, since))).collect();
        Ok(Self { users, tokens })
    }

    /// An actor.
    pub fn actor(&self, actor: &Actor) -> Party {
        let mut party = Party::of_actor(actor);
        match actor {
            Actor::User(id) | Actor::Operator(id) => self.fill(&mut party, id.as_ref()),
            Actor::Token(id) => party.name = self.tokens.get(id.as_ref()).cloned(),
            Actor::System => {}
        }
        party
    }

    /// A user.
    pub fn user(&self, id: &str) -> Party {
        let mut party = Party::new("user", id);
        self.fill(&mut party, id);
        party
    }

    /// What is known of a user beside the name.
    pub(super) fn known(&self, id: &str) -> Option<&Known> {
        self.users.get(id)
    }

    fn fill(&self, party: &mut Party, id: &str) {
        if let Some(Known { name, email, erased, .. }) = self.users.get(id) {
            (party.name, party.email, party.erased) = (name.clone(), email.clone(), *erased);
        }
    }
}

fn follow((user, since): &mut (User, DateTime<Utc>), recorded: Recorded) {
    let Event::User(event) = recorded.event else { return };
    match &event {
        UserEvent::UserRegistered { .. }
        | UserEvent::UserHeld { .. }
        | UserEvent::UserApproved { .. }
        | UserEvent::UserRevoked { .. }
        | UserEvent::UserReinstated { .. }
        | UserEvent::UserErased { .. } => *since = recorded.recorded_at,
        UserEvent::UserProfileChanged { .. } => {}
    }
    user.apply(event);
}

fn known(user: &User, state_since: DateTime<Utc>) -> Known {
    let lost = |personal: &Option<Personal>| personal.as_ref().is_some_and(|datum| datum.value().is_none());
    Known {
        name: readable(&user.display_name).map(str::to_owned),
        email: readable(&user.email).map(str::to_owned),
        erased: user.state == UserState::Erased || lost(&user.email) || lost(&user.display_name),
        state: user.state,
        state_since,
    }
}
