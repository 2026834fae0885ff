//! What a use case works with: it loads aggregates, notes what it relied upon, and collects new events.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use aggregates::ids::{Id, MembershipId, OrganizationId, UserId};
use aggregates::{ApiToken, Event, Invitation, Membership, Refusal, Registered, StreamId, User, text};
use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

use super::authority::Authority;
use super::{Caller, Commands, Conditions, Fault, Person, Principal, Rejection};
use crate::log::{Cached, Loaded, Log, LogError};
use crate::requests::rate_limits::RateLimited;

/// Why a use case ends early.
#[derive(Debug)]
pub enum Stop {
    /// It is refused, as data.
    Refusal(Rejection),
    /// It is a fault.
    Fault(Fault),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(Rejection::Rule(refusal))
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Fault(Fault::Log(error))
    }
}

/// Something that a command answers with, at a version.
#[derive(Debug, Clone)]
pub struct Entity {
    stream: StreamId,
    state: Cached,
}

impl Entity {
    /// An aggregate as the command left it.
    pub fn new<A: Registered>(id: A::Id, loaded: Loaded<A>) -> Self {
        let Loaded { state, version, organization } = loaded;
        Self { stream: id.into(), state: Cached { state: A::into_state(state), version, organization } }
    }

    /// Its stream.
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// It, if it is of this kind.
    pub fn get<A: Registered>(&self) -> Option<(A::Id, Loaded<A>)> {
        A::id(&self.stream).cloned().zip(self.state.get())
    }

    /// The organization that it is, or belongs to.
    pub fn organization(&self) -> Option<OrganizationId> {
        match &self.stream {
            StreamId::Organization(id) => Some(id.clone()),
            _ => self.state.organization.clone(),
        }
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.state.version
    }

    /// The entity of this id as it was at `version`.
    pub(super) async fn load_at(log: &Log, id: &str, version: u64) -> Result<Option<Self>, LogError> {
        let Some(stream) = StreamId::from_id(id) else { return Ok(None) };
        let state = log.load_at(&stream, version).await?;
        Ok(Some(Self { stream, state }))
    }
}

/// A use case at work.
pub struct Work<'a> {
    authority: Authority<'a>,
    /// Now.
    pub now: DateTime<Utc>,
    /// The organization that everything is written to.
    pub organization: Option<OrganizationId>,
    /// What the command answers with.
    pub entities: Vec<Entity>,
    /// A secret that is shown this once.
    pub secret_to_show: Option<String>,
    /// The organization that the caller was seen to be in.
    pub(super) seen: Option<OrganizationId>,
    /// The organization of the token that calls: what it may not do stands in its access trail.
    pub(super) token_organization: Option<OrganizationId>,
    /// The user who answers for the token that calls.
    person_behind: Option<UserId>,
    /// An organization that is there, and not the caller's to see.
    pub(super) hidden: Option<OrganizationId>,
    pub(super) commands: &'a Commands,
    /// Shared by all tries of one command.
    admitted: &'a OnceLock<Result<(), RateLimited>>,
    conditions: &'a Conditions,
    operation: &'static str,
    seed: Uuid,
    loaded: BTreeMap<StreamId, u64>,
    writes: Vec<(StreamId, u64, Vec<Event>)>,
    operator: bool,
    hold_caller: bool,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        commands: &'a Commands,
        authority: Authority<'a>,
        conditions: &'a Conditions,
        operation: &'static str,
        seed: Uuid,
        admitted: &'a OnceLock<Result<(), RateLimited>>,
    ) -> Self {
        Self {
            authority,
            // PostgreSQL keeps microseconds; a state from memory and one from a read model should not differ.
            now: Utc::now().trunc_subsecs(6),
            organization: None,
            entities: vec![],
            secret_to_show: None,
            seen: None,
            token_organization: None,
            person_behind: None,
            hidden: None,
            commands,
            admitted,
            conditions,
            operation,
            seed,
            loaded: BTreeMap::new(),
            writes: vec![],
            operator: false,
            hold_caller: false,
        }
    }

    /// The log, for look-ups that no decision relies upon.
    pub fn log(&self) -> &Log {
        &self.commands.log
    }

    /// The rules of this deployment.
    pub fn rules(&self) -> &super::Rules {
        &self.commands.rules
    }

    /// Loads an aggregate; the decision relies upon its version from here on.
    pub async fn load<A: Registered>(&mut self, id: &A::Id) -> Result<Loaded<A>, LogError> {
        let loaded: Loaded<A> = self.commands.log.load(id).await?;
        // Of two loads the first counts: something was decided by it already.
        self.loaded.entry(id.clone().into()).or_insert(loaded.version);
        Ok(loaded)
    }

    /// Loads an aggregate of whatever kind, as the log has it now; the decision relies upon its version from here on.
    pub(super) async fn load_any(&mut self, stream: &StreamId) -> Result<Option<Cached>, LogError> {
        let now = self.commands.log.current(std::slice::from_ref(stream)).await?;
        let known = now.state(stream).cloned();
        if let Some(known) = &known {
            self.loaded.entry(stream.clone()).or_insert(known.version);
        }
        Ok(known)
    }

    /// The caller, for what needs one.
    pub fn caller(&self) -> Result<&'a Caller, Stop> {
        Ok(self.authority.require_caller()?)
    }

    /// Lets the caller in. The command relies on that: a caller who is revoked meanwhile is refused.
    pub(super) async fn admit(&mut self) -> Result<(), Stop> {
        match self.authority {
            Authority::Caller(caller) => self.admit_caller(&caller.principal).await,
            Authority::Service(_) => Ok(()),
        }
    }

    async fn admit_caller(&mut self, principal: &Principal) -> Result<(), Stop> {
        match principal {
            Principal::User(person) => Ok(super::users::admit(&self.load::<User>(&person.user).await?)?),
            Principal::Token(id) => {
                let token = self.load::<ApiToken>(id).await?;
                super::tokens::admit(&token, self.now)?;
                if let Some((user, member)) = super::tokens::behind(&token) {
                    self.log().warm(&[user.clone().into(), member.clone().into()]).await?;
                    let (user, member) = (self.load::<User>(&user).await?, self.load::<Membership>(&member).await?);
                    super::tokens::admit_behind(&user.state, &member.state)?;
                }
                self.commands.uses.note(id, self.now);
                self.person_behind = super::tokens::person_behind(&token.state).cloned();
                self.token_organization = token.organization;
                Ok(())
            }
        }
    }

    /// Refuses a token that would let its own person in, or change what they are there: they would have a way around
    /// those who keep them out. Through a user who calls, nothing is refused.
    pub(super) fn must_not_be_behind(&self, user: Option<&UserId>) -> Result<(), Stop> {
        if self.person_behind.is_some() && self.person_behind.as_ref() == user {
            let message = "an API token does not change the membership of the user who answers for it: ask a member";
            return Err(Fault::Forbidden(message.into()).into());
        }
        Ok(())
    }

    /// Refuses a token that would change a role which its own user holds, held last or is promised: a demoted member would
    /// have a way back up.
    pub(super) async fn must_not_hold_behind(&mut self, organization: &OrganizationId, role: &str) -> Result<(), Stop> {
        let Some(user) = self.person_behind.clone() else { return Ok(()) };
        let held = self.load::<Membership>(&MembershipId::of(organization, &user)).await?.state.roles.clone();
        let promised = match super::departures::open_invitation_to(self, organization, &user).await? {
            Some(invitation) => self.load::<Invitation>(&invitation).await?.state.roles.clone(),
            None => vec![],
        };
        if held.iter().chain(&promised).any(|held| held == role) {
            let message = "an API token does not change a role of the user who answers for it: ask a member";
            return Err(Fault::Forbidden(message.into()).into());
        }
        Ok(())
    }

    /// The user who calls, for what needs one.
    pub fn person(&self) -> Result<&'a Person, Stop> {
        Ok(self.caller()?.principal.person()?)
    }

    /// Requires an operator, who says why.
    pub fn require_operator(&mut self, reason: &str) -> Result<(), Stop> {
        if !self.caller()?.principal.is_operator() {
            return Err(Fault::Forbidden("only operators of the service may do this".into()).into());
        }
        text::required_reason(Some(reason))?;
        self.act_as_operator();
        Ok(())
    }

    /// Counts the command against an organization that the caller was seen to be in: once, however often it is decided.
    pub(super) fn count(&self, organization: &OrganizationId) -> Result<(), Stop> {
        let Some(meter) = self.authority.caller().and_then(Caller::member_meter) else { return Ok(()) };
        let admitted = self.admitted.get_or_init(|| meter.command_on(organization, self.operation));
        admitted.clone().map_err(|refused| Stop::Fault(Fault::RateLimited(refused)))
    }

    /// Holds the version of the entity that the input names against what the client expects.
    pub fn expect_version(&self, actual: u64) -> Result<(), Stop> {
        match self.conditions.expected_version {
            Some(expected) if expected != actual => Err(Stop::Refusal(Rejection::Version { expected, actual })),
            _ => Ok(()),
        }
    }

    /// Hands over new events of an aggregate, and gives it as it is with them.
    pub fn record<A>(&mut self, id: &A::Id, before: &Loaded<A>, events: Vec<A::Event>) -> Loaded<A>
    where
        A: Registered,
        A::Event: Into<Event>,
    {
        let mut state = (*before.state).clone();
        for event in &events {
            state.apply(event.clone());
        }
        let after = Loaded {
            state: std::sync::Arc::new(state),
            version: before.version + events.len() as u64,
            organization: self.organization.clone(),
        };
        self.record_any(id.clone().into(), before.version, events.into_iter().map(Into::into).collect());
        after
    }

    /// The same for an aggregate of whatever kind.
    pub(super) fn record_any(&mut self, stream: StreamId, version: u64, events: Vec<Event>) {
        if !events.is_empty() {
            self.writes.push((stream, version, events));
        }
    }

    /// Something that this command creates. Its id follows from caller, operation, place and idempotency key, where
    /// there is a key, so that a repeated command meets itself; else it is random, and there is nothing to look for:
    /// the append checks that nothing is there.
    pub async fn create<A: Registered>(&mut self) -> Result<(A::Id, Loaded<A>), LogError>
    where
        A::Id: Id,
    {
        let (Some(key), Some(caller)) = (&self.conditions.idempotency_key, self.authority.caller()) else {
            let id = A::Id::from_uuid(self.seed);
            return Ok((id.clone(), self.expect_nothing(&id)));
        };
        let place = self.organization.as_ref().map_or("", AsRef::as_ref);
        let id = A::Id::derived(&["created", caller.principal.id(), self.operation, place, key]);
        let loaded = self.load(&id).await?;
        Ok((id, loaded))
    }

    /// An aggregate that cannot be there yet; the append holds the command to that.
    pub fn expect_nothing<A: Registered>(&mut self, id: &A::Id) -> Loaded<A> {
        self.loaded.entry(id.clone().into()).or_insert(0);
        Loaded { state: Default::default(), version: 0, organization: None }
    }

    /// From here on the caller acts as an operator, and the audit says so.
    pub(super) fn act_as_operator(&mut self) {
        self.operator = true;
    }

    pub(super) fn acts_as_operator(&self) -> bool {
        self.operator
    }

    /// A change of the caller's own stream at the same moment comes before or after this command: it relies on the
    /// caller's being let in at the very moment at which it is recorded.
    pub(super) fn hold_caller(&mut self) {
        self.hold_caller = true;
    }

    pub(super) fn held(&self) -> Option<&UserId> {
        self.authority.caller().and_then(|caller| caller.principal.user()).filter(|_| self.hold_caller)
    }

    pub(super) fn streams(&self) -> Vec<StreamId> {
        self.loaded.keys().cloned().collect()
    }

    pub(super) fn take_writes(&mut self) -> Vec<(StreamId, u64, Vec<Event>)> {
        std::mem::take(&mut self.writes)
    }

    /// What was loaded and is not written; also what is written at another version than the one that was relied upon
    /// first, which makes it a conflict.
    pub(super) fn relied(&self, writes: &[(StreamId, u64, Vec<Event>)]) -> Vec<(StreamId, u64)> {
        let written = |stream: &StreamId, version: u64| {
            writes.iter().any(|(written, before, _)| written == stream && *before == version)
        };
        self.loaded
            .iter()
            .filter(|(stream, version)| !written(stream, **version))
            .map(|(stream, version)| (stream.clone(), *version))
            .collect()
    }
}
