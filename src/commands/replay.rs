//! Commands that come again with the same idempotency key. The first outcome answers, and nothing is decided.

use aggregates::{Invitation, Membership, Recorded, User};

use super::invitations::email_claim;
use super::receipt::position_after;
use super::standing::sees_now;
use super::work::Entity;
use super::{Caller, Commands, Conditions, Fault, Principal, Receipt, UseCase};
use crate::log::{Idempotency, StoredOutcome, Write};

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// A command that its caller may repeat.
pub(super) struct Repeatable<'a> {
    commands: &'a Commands,
    caller: &'a Caller,
    operation: &'static str,
    key: String,
    /// A keyed hash of the input.
    input: String,
}

impl<'a> Repeatable<'a> {
    /// Nothing without a key.
    pub(super) fn new<U: UseCase>(
        commands: &'a Commands,
        caller: &'a Caller,
        conditions: &Conditions,
        case: &U,
    ) -> Result<Option<Self>, Fault> {
        let Some(key) = conditions.idempotency_key.clone() else { return Ok(None) };
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || key.chars().any(char::is_control) {
            return Err(Fault::BadInput(format!(
                "idempotencyKey has {} bytes: give 1 to {IDEMPOTENCY_KEY_BYTES_MAX} without control characters",
                key.len()
            )));
        }
        let operation = case.operation();
        let text = serde_json::to_string(case).map_err(|error| Fault::BadInput(error.to_string()))?;
        let version = conditions.expected_version.map(|version| version.to_string()).unwrap_or_default();
        let input = commands.log.keys().digest(&["idempotent input", operation, &version, &text]).0;
        Ok(Some(Self { commands, caller, operation, key, input }))
    }

    /// What the log remembers of this command once it is accepted.
    pub(super) fn idempotency(&self, writes: &[Write], entities: &[Entity]) -> Idempotency {
        let events = writes.iter().flat_map(|write| &write.events).map(|event| event.id.to_string()).collect();
        let streams = entities.iter().map(|entity| (entity.stream().id().to_owned(), entity.version())).collect();
        Idempotency {
            caller: self.caller.principal.id().to_owned(),
            operation: self.operation.to_owned(),
            key: self.key.clone(),
            input: self.input.clone(),
            outcome: StoredOutcome { events, streams },
        }
    }

    /// The answer of an equal command that was accepted earlier.
    pub(super) async fn earlier(&self) -> Result<Option<Receipt>, Fault> {
        let principal = &self.caller.principal;
        let found = self.commands.log.outcome(principal.id(), self.operation, &self.key).await?;
        let Some((input, outcome)) = found else { return Ok(None) };
        self.commands.admit_now(principal).await?;
        self.replay(&input, outcome).await.map(Some)
    }

    /// Answers as the first time, without secrets. A caller who does not see the organization any more is told that it
    /// was done, and of the answer only what is the caller's own: names and addresses are looked up as they are now.
    pub(super) async fn replay(&self, input: &str, outcome: StoredOutcome) -> Result<Receipt, Fault> {
        if input != self.input {
            return Err(Fault::IdempotencyKeyReused);
        }
        let log = &self.commands.log;
        let mut events: Vec<Recorded> = log.events(&outcome.events).await?;
        let mut entities = vec![];
        for (id, version) in &outcome.streams {
            entities.extend(Entity::load_at(log, id, *version).await?);
        }
        let place = entities.first().and_then(Entity::organization);
        let position = position_after(log, &events, place.as_ref()).await?;
        if !sees_now(log, &self.caller.principal, place.as_ref()).await? {
            entities.retain(|entity| self.is_own(entity));
            events.retain(|event| entities.iter().any(|entity| *entity.stream() == event.stream));
        }
        Ok(Receipt { entities, position, events, replayed: true, ..Receipt::default() })
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
        let claim = person.email.as_deref().map(|email| email_claim(self.commands.log.keys(), email));
        claim.zip(invitation.state.email_claim.as_ref()).is_some_and(|(own, invited)| own.matches(invited))
    }
}
