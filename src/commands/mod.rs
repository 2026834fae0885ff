//! The path of a command: caller → checks → decide → append → receipt.
//!
//! A [`UseCase`] loads what it needs through [`Work`], which notes every stream and version that the decision
//! relied upon, and hands over new events. The append accepts only if all those versions still hold. So:
//! - an acceptance needs no fresh read: a stale one is a conflict, and the command is decided again;
//! - a refusal is made only from states that were just compared with the log.
//!
//! Checks come in the contract's order: authenticated → visible → lifecycle and verification → permission →
//! state → limit. The first four are [`Standing`]'s.

mod caller;
pub mod departures;
pub mod erasure;
mod grants;
pub mod home;
pub mod invitations;
pub mod members;
pub mod organizations;
pub mod ownership;
pub mod projects;
pub mod prune;
pub mod roles;
mod sole;
mod standing;
pub mod sweep;
pub mod token_secret;
pub mod tokens;
pub mod users;
pub mod webhooks;
mod work;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use aggregates::ids::OrganizationId;
use aggregates::{
    Actor, Invitation, Membership, Organization, Origin, Place, Recorded, Refusal, Registered, Scope, StreamId, User,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::erased::ErasedList;
use crate::log::{Append, Draft, Idempotency, Loaded, Log, LogError, Outcome, Position, StoredOutcome};
use crate::requests::rate_limits::RateLimited;
use crate::requests::token_uses::TokenUses;
use crate::requests::trail::{Kind, Occurrence, Trail};

pub use caller::{Caller, NamedOrganization, Person, Principal};
pub use standing::{Insider, Rights, Standing, nowhere, sees};
pub use users::identity_claim;
pub use work::{Entity, Stop, Work};

/// How often a command is decided at most: far more often than anything but an endless race needs.
const TRIES_MAX: usize = 1_000;
/// For how long a command that lost a race is decided again, from the first loss on.
const RETRY_FOR: Duration = Duration::from_secs(5);
/// How long it waits before it tries again, at most, times the tries before: another replica wants its turn too.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// How long it waits for a read model that was behind.
const READ_MODEL_PAUSE: Duration = Duration::from_millis(20);
/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The rules of this deployment that commands go by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether an operator has to approve new users.
    pub approval_required: bool,
    /// Whether an operator has to verify organizations.
    pub verification_required: bool,
    /// What a user without an organization gets.
    pub home: home::Home,
    /// Whether only operators create organizations.
    pub created_by_operators: bool,
    /// How many organizations a user may have created that are there; `None` is no limit. Operators have none.
    pub created_per_user_max: Option<u64>,
    /// Whether a user is a member of one organization at most.
    pub one_per_user: bool,
    /// Slugs that no organization may take.
    pub slug_reserved: Vec<String>,
    /// How long what was deleted can be restored.
    pub restore: chrono::Duration,
    /// How long an invitation is open when nothing else is said, in hours.
    pub invitation_hours_default: i64,
    /// How long an invitation may be open, in hours.
    pub invitation_hours_max: i64,
    /// The plan of new organizations.
    pub default_plan: String,
    /// Where webhooks may be sent to.
    pub webhook_targets: Arc<crate::endpoints::Targets>,
    /// Whether nothing is done while something in the log is not as the service wrote it.
    pub refuse_on_alarm: bool,
    /// For how many days the access trail is kept.
    pub access_trail_days: i32,
    /// Plans and their limits.
    pub plans: std::collections::BTreeMap<String, aggregates::organization::Limits>,
}

/// What may come with any command.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// A repetition with the same key finds the first outcome.
    pub idempotency_key: Option<String>,
    /// The version that the entity named by the input must have.
    pub expected_version: Option<u64>,
}

/// Why a command could not even be refused: nothing was changed, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not there, or not for this caller to see.
    #[error("there is no such thing, or it is not yours to see")]
    NotFound,
    /// The caller was revoked.
    #[error("this user was revoked: ask the operators of the service")]
    Revoked,
    /// The token that calls cannot be used any more.
    #[error("this API token {0}: use another one")]
    TokenEnded(&'static str),
    /// The caller is not in the log.
    #[error("this user is not known any more: sign in again")]
    UnknownUser,
    /// The caller has to be approved.
    #[error("this user waits for an operator's approval")]
    Pending,
    /// Visible, but not permitted.
    #[error("{0}")]
    Forbidden(String),
    /// An input that cannot be read.
    #[error("{0}")]
    BadInput(String),
    /// It lost its race again and again.
    #[error("others changed the same thing at the same time; try again")]
    Conflict,
    /// The key was used with another input.
    #[error("this idempotency key was used with another input: use a new key, or repeat the same input")]
    IdempotencyKeyReused,
    /// What it has to know is not known at the moment.
    #[error("{0}")]
    Unavailable(&'static str),
    /// There were too many before it.
    #[error(transparent)]
    RateLimited(#[from] RateLimited),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why a command was refused, beyond what an aggregate says itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejection {
    /// An aggregate's own rule, or the organization's status.
    Rule(Refusal),
    /// The entity has another version.
    Version {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// A maximum would be exceeded.
    Limit {
        /// Which limit.
        name: String,
        /// The maximum.
        maximum: u64,
        /// What is used.
        used: u64,
        /// How much more was asked for.
        requested: u64,
    },
    /// No active owner would be left.
    LastOwner,
}

/// What became of a command.
#[derive(Default)]
pub struct Receipt {
    /// What it answers with, as it is after the command.
    pub entities: Vec<Entity>,
    /// What it recorded.
    pub events: Vec<Recorded>,
    /// Where to read to see it.
    pub position: Option<Position>,
    /// Whether this is the outcome of an earlier, equal command.
    pub replayed: bool,
    /// A secret that is shown this once.
    pub secret: Option<String>,
    /// Why nothing was changed.
    pub rejections: Vec<Rejection>,
}

impl Receipt {
    /// The first entity of this kind.
    pub fn entity<A: Registered>(&self) -> Option<(A::Id, Loaded<A>)> {
        self.entities.iter().find_map(Entity::get)
    }
}

/// Without the secret.
impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entities, events, position, replayed, secret: _, rejections } = self;
        f.debug_struct("Receipt")
            .field("entities", entities)
            .field("events", events)
            .field("position", position)
            .field("replayed", replayed)
            .field("rejections", rejections)
            .finish_non_exhaustive()
    }
}

/// A command as a caller gives it.
pub trait UseCase: Serialize + Send + Sync {
    /// The operation's name: idempotency keys are kept per caller and operation.
    const OPERATION: &'static str;

    /// The operation's name, where one type serves several.
    fn operation(&self) -> &'static str {
        Self::OPERATION
    }

    /// Checks, decides, and hands new events to `work`.
    fn decide(&self, work: &mut Work<'_>) -> impl Future<Output = Result<(), Stop>> + Send;
}

/// Takes commands. Cheap to share.
pub struct Commands {
    log: Arc<Log>,
    rules: Rules,
    trail: Trail,
    uses: TokenUses,
    /// The list of erased persons, beside the database.
    erased: Mutex<ErasedList>,
    /// Where commands that lost a race over the same stream wait for each other, instead of losing again and again.
    turns: Vec<tokio::sync::Mutex<()>>,
}

/// How many turns there are; streams share them by hash.
const TURNS: usize = 1024;

impl Commands {
    /// Over this log, by these rules, with the list of whom was erased.
    pub fn new(log: Arc<Log>, rules: Rules, erased: ErasedList) -> Self {
        let erased = Mutex::new(erased);
        Self {
            log,
            rules,
            trail: Trail::default(),
            uses: TokenUses::default(),
            erased,
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
        }
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The access trail.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// When API tokens were used last.
    pub fn uses(&self) -> &TokenUses {
        &self.uses
    }

    /// The turn of a stream.
    async fn turn(&self, stream: &StreamId) -> tokio::sync::MutexGuard<'_, ()> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        stream.hash(&mut hasher);
        self.turns[hasher.finish() as usize % TURNS].lock().await
    }

    /// Carries out a command for `caller`.
    pub async fn execute<U: UseCase>(
        &self,
        caller: &Caller,
        case: &U,
        conditions: Conditions,
    ) -> Result<Receipt, Fault> {
        let started = Instant::now();
        if self.rules.refuse_on_alarm && self.log.alarms().is_raised() {
            return Err(Fault::Unavailable(
                "something was changed in the database by other means than the service: no command is taken until its \
                 operators have looked at it",
            ));
        }
        let result = Execution::new(self, caller, case.operation(), &conditions, case)?.run(case).await;
        let outcome = match &result {
            Ok(receipt) if receipt.rejections.is_empty() => "accepted",
            Ok(_) => "refused",
            Err(_) => "failed",
        };
        metrics::counter!("tenancy_commands_total", "operation" => case.operation(), "outcome" => outcome).increment(1);
        metrics::histogram!("tenancy_command_seconds").record(started.elapsed().as_secs_f64());
        result
    }
}

/// One command on its way.
struct Execution<'a> {
    commands: &'a Commands,
    caller: &'a Caller,
    conditions: &'a Conditions,
    operation: &'static str,
    /// A keyed hash of the input.
    input: String,
    command_id: Uuid,
    /// The id of what the command creates, unless it follows from an idempotency key.
    seed: Uuid,
    /// Whether the organization's quota has room for it, once that was looked at.
    admitted: OnceLock<Result<(), RateLimited>>,
}

impl<'a> Execution<'a> {
    fn new<U: UseCase>(
        commands: &'a Commands,
        caller: &'a Caller,
        operation: &'static str,
        conditions: &'a Conditions,
        case: &U,
    ) -> Result<Self, Fault> {
        if let Some(key) = &conditions.idempotency_key {
            let valid = !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX && !key.chars().any(char::is_control);
            if !valid {
                return Err(Fault::BadInput(format!(
                    "idempotencyKey has {} bytes: give 1 to {IDEMPOTENCY_KEY_BYTES_MAX} without control characters",
                    key.len()
                )));
            }
        }
        let text = serde_json::to_string(case).map_err(|error| Fault::BadInput(error.to_string()))?;
        let version = conditions.expected_version.map(|version| version.to_string()).unwrap_or_default();
        let input = commands.log.keys().digest(&["idempotent input", operation, &version, &text]).0;
        let (command_id, seed) = (Uuid::new_v4(), Uuid::now_v7());
        Ok(Self { commands, caller, conditions, operation, input, command_id, seed, admitted: OnceLock::new() })
    }

    async fn run<U: UseCase>(&self, case: &U) -> Result<Receipt, Fault> {
        if let Some(receipt) = self.earlier_outcome().await? {
            return Ok(receipt);
        }
        let log = &self.commands.log;
        let mut compared: Vec<StreamId> = vec![];
        let mut last_try = false;
        let mut turn = None;
        let mut conflicts = 0;
        let mut lost_at: Option<Instant> = None;
        for _ in 0..TRIES_MAX {
            let admitted = &self.admitted;
            let mut work = Work::new(self.commands, self.caller, self.conditions, self.operation, self.seed, admitted);
            let decided = async {
                work.admit().await?;
                case.decide(&mut work).await
            };
            let decided = decided.await;
            // Comparing first would cost what the limit is there to save.
            if let Err(Stop::Fault(fault @ Fault::RateLimited(_))) = decided {
                return Err(fault);
            }
            let streams = work.streams();
            if let Err(stop) = decided {
                // A refusal stands only if everything that it relied upon was compared with the log.
                if streams.iter().all(|stream| compared.contains(stream)) {
                    let refused = self.refuse(stop).await;
                    self.note(&work, case, &refused);
                    return refused;
                }
                log.bring_up_to_date(&streams).await?;
                compared = streams;
                continue;
            }
            let recorded = match self.append(&mut work, last_try).await? {
                Some(outcome) => outcome,
                // Nothing to record: no append compares what this relied upon, so that is done here.
                None if streams.iter().all(|stream| compared.contains(stream)) => {
                    let position = self.position_now(work.organization.as_ref()).await?;
                    return Ok(Receipt { entities: work.entities, position, ..Receipt::default() });
                }
                None => {
                    log.bring_up_to_date(&streams).await?;
                    compared = streams;
                    continue;
                }
            };
            match recorded {
                Outcome::Accepted { events } => return self.accepted(work, events).await,
                Outcome::Duplicate { input, outcome } => return self.replay(&input, outcome).await,
                Outcome::Conflict { stream, .. } => {
                    if turn.is_none() {
                        turn = Some(self.commands.turn(&stream).await);
                    }
                    // The clock of the race, not of the command: a database that was away is no reason to give up.
                    if lost_at.get_or_insert_with(Instant::now).elapsed() > RETRY_FOR {
                        break;
                    }
                    conflicts += 1;
                    tokio::time::sleep(RETRY_PAUSE.mul_f64(f64::from(conflicts) * rand::random::<f64>())).await;
                    log.bring_up_to_date(&streams).await?;
                    compared = streams;
                }
                Outcome::Taken { key, holder } if !last_try && key.scope == Membership::ONLY_ONE => {
                    self.commands.free_from_purged(&holder).await?;
                    last_try = true;
                }
                Outcome::Taken { .. } | Outcome::Limit { .. } if !last_try => {
                    if let Some(organization) = &work.organization {
                        self.commands.expire_overdue(organization).await?;
                    }
                    last_try = true;
                }
                Outcome::Taken { key, holder } => {
                    let shown = self.shown_holder(key.scope, holder).await?;
                    return self
                        .refuse(Stop::Refusal(Rejection::Rule(key.scope.taken_by(shown.unwrap_or_default()))))
                        .await;
                }
                Outcome::Limit { name, maximum, used, requested, event } => {
                    let events: Vec<Recorded> = event.into_iter().map(|event| *event).collect();
                    let rejections = vec![Rejection::Limit { name, maximum, used, requested }];
                    return Ok(Receipt { position: self.position(&events), events, rejections, ..Receipt::default() });
                }
                Outcome::Floor { .. } => return self.refuse(Stop::Refusal(Rejection::LastOwner)).await,
                Outcome::Occupied { used, .. } => {
                    // The objects concerned were looked up in a read model, which was behind.
                    if lost_at.get_or_insert_with(Instant::now).elapsed() > RETRY_FOR {
                        let message = format!("it is still in use {used} times: try again");
                        return self.refuse(Stop::Refusal(Rejection::Rule(Refusal::InvalidState(message)))).await;
                    }
                    tokio::time::sleep(READ_MODEL_PAUSE).await;
                    log.bring_up_to_date(&streams).await?;
                    compared = streams;
                }
            }
        }
        Err(Fault::Conflict)
    }

    /// Appends what was decided; `None` when there is nothing to record and no key to remember it by.
    async fn append(&self, work: &mut Work<'_>, last_try: bool) -> Result<Option<Outcome>, Fault> {
        let writes = work.take_writes();
        if writes.is_empty() && (self.conditions.idempotency_key.is_none() || work.organization.is_none()) {
            return Ok(None);
        }
        let streams = work.entities.iter().map(|entity| (entity.stream().id().to_owned(), entity.version())).collect();
        let draft = Draft {
            organization: work.organization.clone(),
            relied: work.relied(&writes),
            held: work.held().cloned(),
            writes,
            origin: self.origin(work.acts_as_operator()),
        };
        let mut append: Append = self.commands.log.seal(draft).await?;
        append.last_try = last_try;
        append.idempotency = self.conditions.idempotency_key.clone().map(|key| Idempotency {
            caller: self.caller.principal.id().to_owned(),
            operation: self.operation.to_owned(),
            key,
            input: self.input.clone(),
            outcome: StoredOutcome {
                events: append
                    .writes
                    .iter()
                    .flat_map(|write| &write.events)
                    .map(|event| event.id.to_string())
                    .collect(),
                streams,
            },
        });
        Ok(Some(self.commands.log.append(append).await?))
    }

    fn origin(&self, operator: bool) -> Origin {
        Origin {
            command_id: self.command_id,
            actor: self.caller.actor(operator),
            on_behalf_of: None,
            ip: self.caller.ip.clone(),
            user_agent: self.caller.user_agent.clone(),
            request_id: self.caller.request_id.clone(),
            correlation_id: self.caller.correlation_id,
            causation_id: None,
        }
    }

    async fn accepted(&self, work: Work<'_>, events: Vec<Recorded>) -> Result<Receipt, Fault> {
        Ok(Receipt {
            position: self.position_after(&events, work.organization.as_ref()).await?,
            entities: work.entities,
            events,
            secret: work.secret_to_show,
            replayed: false,
            rejections: vec![],
        })
    }

    /// Where to read to see these events; where there are none, where the organization is now.
    async fn position_after(
        &self,
        events: &[Recorded],
        organization: Option<&OrganizationId>,
    ) -> Result<Option<Position>, Fault> {
        match self.position(events) {
            Some(position) => Ok(Some(position)),
            None => self.position_now(organization).await,
        }
    }

    fn position(&self, events: &[Recorded]) -> Option<Position> {
        let last = events.iter().max_by_key(|event| event.offset)?;
        Some(Position::at(self.commands.log.epoch(), last.partition, last.offset))
    }

    /// Where an organization is now: what a command answers that had nothing to record.
    async fn position_now(&self, organization: Option<&OrganizationId>) -> Result<Option<Position>, Fault> {
        let Some(organization) = organization else { return Ok(None) };
        let log = &self.commands.log;
        let heads = log.heads_now(&[log.partition_of(organization.as_ref())]).await?;
        Ok(Some(Position { epoch: log.epoch(), offsets: heads }))
    }

    /// Refuses, unless an equal command was accepted meanwhile: then that is why this one is refused.
    async fn refuse(&self, stop: Stop) -> Result<Receipt, Fault> {
        if let Some(receipt) = self.earlier_outcome().await? {
            return Ok(receipt);
        }
        match stop {
            Stop::Fault(fault) => Err(fault),
            Stop::Refusal(Rejection::Rule(Refusal::NotFound)) => Err(Fault::NotFound),
            Stop::Refusal(Rejection::Rule(Refusal::Forbidden(message))) => Err(Fault::Forbidden(message)),
            Stop::Refusal(rejection) => Ok(Receipt { rejections: vec![rejection], ..Receipt::default() }),
        }
    }

    /// Puts on record what was refused for lack of permission, or because it is another tenant's.
    fn note<U: UseCase>(&self, work: &Work<'_>, case: &U, refused: &Result<Receipt, Fault>) {
        let target = target(case);
        // The same whether it is there, and hidden, or not.
        if let (Err(Fault::NotFound), None, Some(target)) = (refused, &work.seen, &target)
            && !self.caller.principal.is_operator()
        {
            self.commands.trail.note_reach(self.caller.actor(false), self.operation, target, self.caller.ip.clone());
        }
        let (organization, reached) = match refused {
            Err(Fault::Forbidden(_)) => (work.seen.clone().or_else(|| work.home.clone()), None),
            Err(Fault::NotFound) if work.hidden.is_some() => (None, work.hidden.clone()),
            _ => return,
        };
        self.commands.trail.note(Occurrence {
            kind: Kind::Refused,
            actor: self.caller.actor(self.caller.principal.is_operator()),
            operation: self.operation.to_owned(),
            organization,
            reached,
            target,
            ip: self.caller.ip.clone(),
        });
    }

    /// The holder of a key, if the caller may know: within an organization it is seen anyway, and another organization
    /// only if the caller sees that one.
    async fn shown_holder(&self, scope: Scope, holder: String) -> Result<Option<String>, Fault> {
        if !scope.is_global() {
            return Ok(Some(holder));
        }
        let Ok(id) = holder.parse::<OrganizationId>() else { return Ok(None) };
        Ok(self.sees(Some(&id)).await?.then_some(holder))
    }

    /// Whether the caller sees the organization; what is in none is for operators.
    async fn sees(&self, organization: Option<&OrganizationId>) -> Result<bool, LogError> {
        let principal = &self.caller.principal;
        let Some(id) = organization.filter(|_| !principal.is_operator()) else { return Ok(principal.is_operator()) };
        let now = self.commands.log.current(&[id.clone().into(), Insider::stream(principal, id)]).await?;
        Ok(Insider::read(principal, id, &now).sees(&now.get::<Organization>(id).state))
    }

    /// Whether it is about nobody but the caller.
    fn is_own(&self, entity: &Entity) -> bool {
        let Principal::User(person) = &self.caller.principal else { return false };
        if let Some((id, _)) = entity.get::<User>() {
            return id == person.user;
        }
        if let Some((_, membership)) = entity.get::<Membership>() {
            return membership.state.user_id.as_ref() == Some(&person.user);
        }
        let Some((_, invitation)) = entity.get::<Invitation>() else { return false };
        let claim = person.email.as_deref().map(|email| invitations::email_claim(self.commands.log.keys(), email));
        claim.zip(invitation.state.email_claim.as_ref()).is_some_and(|(own, invited)| own.matches(invited))
    }

    async fn earlier_outcome(&self) -> Result<Option<Receipt>, Fault> {
        let Some(key) = &self.conditions.idempotency_key else { return Ok(None) };
        let caller = self.caller.principal.id();
        match self.commands.log.outcome(caller, self.operation, key).await? {
            Some((input, outcome)) => {
                self.commands.admit_now(&self.caller.principal).await?;
                self.replay(&input, outcome).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Answers as the first time, without secrets. A caller who does not see the organization any more is told that it
    /// was done, and of the answer only what is the caller's own: names and addresses are looked up as they are now.
    async fn replay(&self, input: &str, outcome: StoredOutcome) -> Result<Receipt, Fault> {
        if input != self.input {
            return Err(Fault::IdempotencyKeyReused);
        }
        let log = &self.commands.log;
        let events = log.events(&outcome.events).await?;
        let mut entities = vec![];
        for (id, version) in &outcome.streams {
            entities.extend(Entity::load_at(log, id, *version).await?);
        }
        let place = entities.first().and_then(Entity::organization);
        let position = self.position_after(&events, place.as_ref()).await?;
        let (mut entities, mut events) = (entities, events);
        if !self.sees(place.as_ref()).await? {
            entities.retain(|entity| self.is_own(entity));
            events.retain(|event| entities.iter().any(|entity| *entity.stream() == event.stream));
        }
        Ok(Receipt { entities, position, events, replayed: true, ..Receipt::default() })
    }
}

/// The id of what a command is for: of the narrowest thing that a field of its input names. Such a field is called as the
/// aggregate is, or as its last word; what somebody writes into another one names nothing.
fn target<U: UseCase>(case: &U) -> Option<String> {
    let input = serde_json::to_value(case).ok()?;
    let fields = || input.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_str()?)));
    let stream_of = |place: Place| {
        let named = fields().filter_map(|(name, id)| Some((name, StreamId::from_id(id)?)));
        let mut fitting = named.filter(|(name, stream)| {
            stream.place() == place && stream.aggregate_type().to_lowercase().ends_with(name.as_str())
        });
        fitting.next().map(|(_, stream)| stream.id().to_owned())
    };
    let delivery = || fields().find(|(name, _)| *name == "delivery").map(|(_, id)| id.to_owned());
    stream_of(Place::WithinOrganization)
        .or_else(delivery)
        .or_else(|| stream_of(Place::Organization))
        .or_else(|| stream_of(Place::Outside))
}

/// How a command of the service itself came about.
fn system_origin() -> Origin {
    Origin {
        command_id: Uuid::new_v4(),
        actor: Actor::System,
        on_behalf_of: None,
        ip: None,
        user_agent: None,
        request_id: None,
        correlation_id: Uuid::new_v4(),
        causation_id: None,
    }
}

/// The time at which an invitation or a deletion that begins at `now` ends.
fn later(now: DateTime<Utc>, span: chrono::Duration) -> DateTime<Utc> {
    now.checked_add_signed(span).unwrap_or(now)
}

/// An organization's partition is where everything of it is written.
fn home(organization: &OrganizationId) -> StreamId {
    organization.clone().into()
}
