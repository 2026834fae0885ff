//! How a use case runs, for a caller or for the service itself: decided, appended, and decided again where others were
//! faster. There is no other way into the log.

use std::pin::Pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aggregates::ids::OrganizationId;
use aggregates::{Membership, Origin, Recorded, Refusal, Scope, StreamId};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::authority::Authority;
use super::receipt::{position_after, position_now, position_of};
use super::replay::Repeatable;
use super::standing::sees_now;
use super::work::{Stop, Work};
use super::{Caller, Commands, Conditions, Fault, Receipt, Rejection, UseCase, authority, denied};
use crate::log::ledger::ClaimKey;
use crate::log::{Append, Draft, LogError, Outcome};
use crate::requests::rate_limits::RateLimited;

/// How often a command is decided at most: far more often than anything but an endless race needs.
const TRIES_MAX: usize = 1_000;
/// For how long a command that lost a race is decided again, from the first loss on.
const RETRY_FOR: Duration = Duration::from_secs(5);
/// How long it waits before it tries again, at most, times the tries before: another replica wants its turn too.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// How long it waits for a read model that was behind.
pub(super) const READ_MODEL_PAUSE: Duration = Duration::from_millis(20);

impl Commands {
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
        let repeatable = Repeatable::new(self, caller, &conditions, case)?;
        let execution = Execution::new(self, Authority::Caller(caller), case.operation(), conditions, repeatable);
        let result = execution.run(case).await;
        let outcome = match &result {
            Ok(receipt) if receipt.rejections.is_empty() => "accepted",
            Ok(_) => "refused",
            Err(_) => "failed",
        };
        metrics::counter!("tenancy_commands_total", "operation" => case.operation(), "outcome" => outcome).increment(1);
        metrics::histogram!("tenancy_command_seconds").record(started.elapsed().as_secs_f64());
        result
    }

    /// Carries out what the service itself has to do, and records it with this origin.
    pub(super) async fn act<U: UseCase>(&self, origin: Origin, case: &U) -> Result<Receipt, Fault> {
        let (authority, conditions) = (Authority::Service(&origin), Conditions::default());
        Execution::new(self, authority, case.operation(), conditions, None).run(case).await
    }

    /// The same for what the service does because it is due, and no rule should refuse.
    pub(super) async fn act_by_itself<U: UseCase>(&self, case: &U) -> Result<(), Fault> {
        match self.act(authority::by_itself(), case).await?.rejections.as_slice() {
            [] => Ok(()),
            refused => Err(LogError::Corrupt(format!("{} gave {refused:?}", case.operation())).into()),
        }
    }
}

/// One command on its way.
struct Execution<'a> {
    commands: &'a Commands,
    authority: Authority<'a>,
    operation: &'static str,
    conditions: Conditions,
    repeatable: Option<Repeatable<'a>>,
    command_id: Uuid,
    /// The id of what the command creates, unless it follows from an idempotency key.
    seed: Uuid,
    /// Whether the organization's quota has room for it, once that was looked at.
    admitted: OnceLock<Result<(), RateLimited>>,
}

/// What all tries of one command share.
struct Race<'a> {
    /// Streams that were just compared with the log. A refusal stands only if everything that it relied upon was.
    compared: Vec<StreamId>,
    /// Whether a key or a limit that is taken is believed; before, room is made.
    last_try: bool,
    /// The turn among commands of this replica that lost over the same stream.
    turn: Option<MutexGuard<'a, ()>>,
    conflicts: u32,
    lost_at: Option<Instant>,
}

impl Race<'_> {
    /// Whether a command that has just lost tries again. The clock of the race decides, not of the command: a database
    /// that was away is no reason to give up.
    fn goes_on(&mut self) -> bool {
        self.lost_at.get_or_insert_with(Instant::now).elapsed() <= RETRY_FOR
    }

    fn has_compared(&self, streams: &[StreamId]) -> bool {
        streams.iter().all(|stream| self.compared.contains(stream))
    }

    async fn compare(&mut self, commands: &Commands, streams: Vec<StreamId>) -> Result<(), LogError> {
        commands.log.bring_up_to_date(&streams).await?;
        self.compared = streams;
        Ok(())
    }
}

impl<'a> Execution<'a> {
    fn new(
        commands: &'a Commands,
        authority: Authority<'a>,
        operation: &'static str,
        conditions: Conditions,
        repeatable: Option<Repeatable<'a>>,
    ) -> Self {
        let (command_id, seed) = (Uuid::new_v4(), Uuid::now_v7());
        let admitted = OnceLock::new();
        Self { commands, authority, operation, conditions, repeatable, command_id, seed, admitted }
    }

    async fn run<U: UseCase>(&self, case: &U) -> Result<Receipt, Fault> {
        if let Some(receipt) = self.earlier().await? {
            return Ok(receipt);
        }
        let last_try = match self.authority {
            Authority::Caller(_) => false,
            // What the service does makes room; none is made for it.
            Authority::Service(_) => true,
        };
        let mut race = Race { compared: vec![], last_try, turn: None, conflicts: 0, lost_at: None };
        for _ in 0..TRIES_MAX {
            if let Some(receipt) = self.try_once(case, &mut race).await? {
                return Ok(receipt);
            }
        }
        Err(Fault::Conflict)
    }

    /// Decides and appends; nothing where that has to be done again.
    async fn try_once<U: UseCase>(&self, case: &U, race: &mut Race<'a>) -> Result<Option<Receipt>, Fault> {
        let mut work =
            Work::new(self.commands, self.authority, &self.conditions, self.operation, self.seed, &self.admitted);
        let decided = match work.admit().await {
            Ok(()) => case.decide(&mut work).await,
            Err(stop) => Err(stop),
        };
        // Comparing first would cost what the limit is there to save.
        if let Err(Stop::Fault(fault @ Fault::RateLimited(_))) = decided {
            return Err(fault);
        }
        let streams = work.streams();
        let is_compared = race.has_compared(&streams);
        let appended = match decided {
            Ok(()) => self.append(&mut work, race.last_try).await?,
            Err(stop) if is_compared => {
                let refused = self.refuse(stop).await;
                if let Some(caller) = self.authority.caller() {
                    denied::note(&work, caller, case, &refused);
                }
                return refused.map(Some);
            }
            Err(_) => None,
        };
        match appended {
            Some(outcome) => self.conclude(work, outcome, race).await,
            None if is_compared => self.nothing_to_record(work).await.map(Some),
            // Nothing is appended, so no append compares what this relied upon.
            None => {
                race.compare(self.commands, streams).await?;
                Ok(None)
            }
        }
    }

    /// Appends what was decided; `None` when there is nothing to record and no key to remember it by.
    async fn append(&self, work: &mut Work<'_>, last_try: bool) -> Result<Option<Outcome>, Fault> {
        let writes = work.take_writes();
        if writes.is_empty() && (self.repeatable.is_none() || work.organization.is_none()) {
            return Ok(None);
        }
        let draft = Draft {
            organization: work.organization.clone(),
            relied: work.relied(&writes),
            held: work.held().cloned(),
            writes,
            origin: self.authority.origin(self.command_id, work.acts_as_operator()),
        };
        let mut append: Append = self.commands.log.seal(draft).await?;
        append.last_try = last_try;
        append.idempotency =
            self.repeatable.as_ref().map(|repeatable| repeatable.idempotency(&append.writes, &work.entities));
        Ok(Some(self.commands.log.append(append).await?))
    }

    /// Answers by what became of the append; nothing where it has to be tried again.
    async fn conclude(&self, work: Work<'_>, outcome: Outcome, race: &mut Race<'a>) -> Result<Option<Receipt>, Fault> {
        match outcome {
            Outcome::Accepted { events } => self.accepted(work, events).await.map(Some),
            Outcome::Duplicate { input, outcome } => match &self.repeatable {
                Some(repeatable) => repeatable.replay(&input, outcome).await.map(Some),
                None => Err(LogError::Corrupt(format!("{} has no key, and an earlier outcome", self.operation)).into()),
            },
            Outcome::Conflict { stream, .. } => {
                self.lost(&stream, race).await?;
                race.compare(self.commands, work.streams()).await?;
                Ok(None)
            }
            Outcome::Taken { key, holder } if !race.last_try => {
                self.make_room(race, Some((&key, &holder)), work.organization.as_ref()).await?;
                Ok(None)
            }
            Outcome::Limit { .. } if !race.last_try => {
                self.make_room(race, None, work.organization.as_ref()).await?;
                Ok(None)
            }
            Outcome::Taken { key, holder } => {
                let shown = self.shown_holder(key.scope, holder).await?;
                self.refuse_by_rule(key.scope.taken_by(shown.unwrap_or_default())).await.map(Some)
            }
            Outcome::Limit { name, maximum, used, requested, event } => {
                let events: Vec<Recorded> = event.into_iter().map(|event| *event).collect();
                let rejections = vec![Rejection::Limit { name, maximum, used, requested }];
                let position = position_of(&self.commands.log, &events);
                Ok(Some(Receipt { position, events, rejections, ..Receipt::default() }))
            }
            Outcome::Floor { .. } => self.refuse(Stop::Refusal(Rejection::LastOwner)).await.map(Some),
            // The objects concerned were looked up in a read model, which was behind.
            Outcome::Occupied { .. } if race.goes_on() => {
                tokio::time::sleep(READ_MODEL_PAUSE).await;
                race.compare(self.commands, work.streams()).await?;
                Ok(None)
            }
            Outcome::Occupied { used, .. } => {
                let message = format!("it is still in use {used} times: try again");
                self.refuse_by_rule(Refusal::InvalidState(message)).await.map(Some)
            }
        }
    }

    /// Waits for this command's turn among those that lost over this stream, and a moment longer.
    async fn lost(&self, stream: &StreamId, race: &mut Race<'a>) -> Result<(), Fault> {
        if race.turn.is_none() {
            race.turn = Some(self.commands.turn(stream).await);
        }
        if !race.goes_on() {
            return Err(Fault::Conflict);
        }
        race.conflicts += 1;
        tokio::time::sleep(RETRY_PAUSE.mul_f64(f64::from(race.conflicts) * rand::random::<f64>())).await;
        Ok(())
    }

    /// Ends what still holds a key, or counts against a limit, though its time is over. The service does so by commands
    /// of its own, which may want the turn that this one has.
    fn make_room<'s>(
        &'s self,
        race: &'s mut Race<'a>,
        taken: Option<(&'s ClaimKey, &'s str)>,
        organization: Option<&'s OrganizationId>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 's>> {
        Box::pin(async move {
            race.turn = None;
            match (taken, organization) {
                (Some((key, holder)), _) if key.scope == Membership::ONLY_ONE => {
                    self.commands.free_from_purged(holder).await?;
                }
                (_, Some(organization)) => self.commands.expire_overdue(organization).await?,
                (_, None) => {}
            }
            race.last_try = true;
            Ok(())
        })
    }

    async fn accepted(&self, work: Work<'_>, events: Vec<Recorded>) -> Result<Receipt, Fault> {
        Ok(Receipt {
            position: position_after(&self.commands.log, &events, work.organization.as_ref()).await?,
            entities: work.entities,
            events,
            secret: work.secret_to_show,
            replayed: false,
            rejections: vec![],
        })
    }

    async fn nothing_to_record(&self, work: Work<'_>) -> Result<Receipt, Fault> {
        let position = match self.authority {
            Authority::Caller(_) => position_now(&self.commands.log, work.organization.as_ref()).await?,
            // It reads nothing by it.
            Authority::Service(_) => None,
        };
        Ok(Receipt { entities: work.entities, position, ..Receipt::default() })
    }

    async fn earlier(&self) -> Result<Option<Receipt>, Fault> {
        match &self.repeatable {
            Some(repeatable) => repeatable.earlier().await,
            None => Ok(None),
        }
    }

    /// Refuses, unless an equal command was accepted meanwhile: then that is why this one is refused.
    async fn refuse(&self, stop: Stop) -> Result<Receipt, Fault> {
        if let Some(receipt) = self.earlier().await? {
            return Ok(receipt);
        }
        match stop {
            Stop::Fault(fault) => Err(fault),
            Stop::Refusal(Rejection::Rule(Refusal::NotFound)) => Err(Fault::NotFound),
            Stop::Refusal(Rejection::Rule(Refusal::Forbidden(message))) => Err(Fault::Forbidden(message)),
            Stop::Refusal(rejection) => Ok(Receipt { rejections: vec![rejection], ..Receipt::default() }),
        }
    }

    async fn refuse_by_rule(&self, refusal: Refusal) -> Result<Receipt, Fault> {
        self.refuse(Stop::Refusal(Rejection::Rule(refusal))).await
    }

    /// The holder of a key, if the caller may know: within an organization it is seen anyway, and another organization
    /// only if the caller sees that one.
    async fn shown_holder(&self, scope: Scope, holder: String) -> Result<Option<String>, Fault> {
        let principal = match self.authority {
            Authority::Caller(caller) if scope.is_global() => &caller.principal,
            Authority::Caller(_) | Authority::Service(_) => return Ok(Some(holder)),
        };
        let Ok(id) = holder.parse::<OrganizationId>() else { return Ok(None) };
        Ok(sees_now(&self.commands.log, principal, Some(&id)).await?.then_some(holder))
    }
}
