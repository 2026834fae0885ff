//! What a request carries: who calls, the service behind it, and what was loaded already.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_graphql::{Context, Error};
use projections::{Progress, Projection, Reach};
use tokio::sync::watch;

use super::budget::Budget;
use super::errors::{bad_input, coded, database_fault, fault, forbidden, log_fault, rate_limited, unauthenticated};
use super::kept::{Answers, Reads};
use super::lists::{Established, Lists};
use super::loaders::{Loaders, Seen};
use super::scalars::PositionText;
use super::user::UserRow;
use crate::audit::as_of::Folds;
use crate::audit::watch::Progress as Verified;
use crate::audit::witnesses::Asked;
use crate::commands::erasure::EraseSubject;
use crate::commands::{Caller, Commands, Conditions, Fault, Principal, Receipt, UseCase, nowhere};
use crate::feed::Feeds;
use crate::log::{Log, NamedTally, Position};
use crate::requests::trail::{Kind, Occurrence};
use aggregates::Scope;
use aggregates::ids::{Id, OrganizationId, UserId};
use aggregates::roles::Permission;

/// How often a reader who waits for `atLeast` asks the database how far other replicas are.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What all requests share.
pub struct App {
    /// Takes commands.
    pub commands: Arc<Commands>,
    /// How far the projections of this replica are.
    pub progress: watch::Receiver<Progress>,
    /// How long a reader waits for `atLeast`.
    pub at_least_wait: Duration,
    /// The largest page of a list.
    pub page_size_max: i32,
    /// What live feeds share.
    pub feeds: Arc<Feeds>,
    /// Organizations as they were, as far as somebody asked lately.
    pub folds: Folds,
    /// How far standing verification is.
    pub verified: Arc<Verified>,
    /// Answers that may be given again, if any are kept.
    pub answers: Option<Answers>,
    /// How witnesses of the audit trail stand.
    pub witnesses: Arc<Asked>,
}

/// One request.
pub struct Session {
    app: Arc<App>,
    caller: Option<Caller>,
    /// Whether the caller has yet to be approved: then they see that, and nothing else.
    pending: bool,
    loaders: Loaders,
    established: Arc<Established>,
    /// What the answer may still hold of documents; a feed's answers have no end.
    answer: Option<Budget>,
    introspection: OnceLock<Budget>,
    /// What the access trail calls the request.
    operation: String,
    noted: Mutex<Noted>,
    reads: Arc<Reads>,
}

/// What was seen of organizations, for the access trail.
#[derive(Default)]
struct Noted {
    /// Read as an operator, and on record.
    as_operator: HashSet<OrganizationId>,
    /// There, and not for the caller to see.
    hidden: HashSet<OrganizationId>,
    /// Seen by the caller.
    seen: HashSet<OrganizationId>,
}

impl Session {
    /// Of this caller; `None` is not authenticated.
    pub fn new(app: Arc<App>, caller: Option<Caller>, pending: bool, operation: String) -> Self {
        let established = Arc::<Established>::default();
        let (answer, introspection, noted) = (None, OnceLock::new(), Mutex::default());
        let reads = Arc::<Reads>::default();
        match &caller {
            Some(caller) if !pending => caller.principal.user().into_iter().for_each(|user| reads.user(user)),
            Some(_) | None => reads.other(),
        }
        let principal = caller.as_ref().map(|caller| caller.principal.clone());
        let loaders = Loaders::new(&app, principal, &established, &reads);
        Self { app, caller, pending, loaders, established, answer, introspection, operation, noted, reads }
    }

    /// The same, with an answer of this many bytes at most.
    pub fn within(self, answer_bytes_max: usize) -> Self {
        Self { answer: Some(Budget::new(answer_bytes_max, "limits.answer_bytes_max")), ..self }
    }

    /// Its reads, by which its answer may be kept.
    pub fn reads(&self) -> &Arc<Reads> {
        &self.reads
    }

    /// Counts a document that the answer is going to hold.
    pub fn spend_on(&self, document: &serde_json::Value) -> Result<(), Error> {
        self.answer.as_ref().map_or(Ok(()), |budget| budget.spend_on(document))
    }

    /// What introspection may still answer with, of this many bytes.
    pub fn introspection(&self, bytes_max: usize) -> &Budget {
        self.introspection.get_or_init(|| Budget::new(bytes_max, "limits.introspection_bytes_max"))
    }

    /// The session of a resolver.
    pub fn of<'a>(ctx: &Context<'a>) -> &'a Self {
        ctx.data_unchecked()
    }

    /// The caller, who must be authenticated and let in.
    pub fn caller(&self) -> Result<&Caller, Error> {
        if self.pending { Err(fault(Fault::Pending)) } else { self.caller_of_any_state() }
    }

    /// The caller, who must be authenticated.
    pub fn caller_of_any_state(&self) -> Result<&Caller, Error> {
        self.caller.as_ref().ok_or_else(unauthenticated)
    }

    /// Requires that the caller is let in, as the log has it now.
    pub async fn is_let_in(&self) -> Result<(), Error> {
        self.app.commands.admit_now(&self.caller()?.principal).await.map_err(fault)
    }

    /// Whether an API token calls.
    pub fn is_token(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| matches!(caller.principal, Principal::Token(_)))
    }

    /// Whether this user calls.
    pub fn is(&self, user: &UserId) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.principal.user() == Some(user))
    }

    /// Whether an operator calls.
    pub fn is_operator(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.principal.is_operator())
    }

    /// The largest page of a list.
    pub fn page_size_max(&self) -> i32 {
        self.app.page_size_max
    }

    /// What live feeds share. Nothing that comes from there is kept.
    pub fn feeds(&self) -> &Arc<Feeds> {
        self.reads.other();
        &self.app.feeds
    }

    /// The log. An answer that was made from it is not kept.
    pub fn log(&self) -> &Arc<Log> {
        self.reads.other();
        self.app.commands.log()
    }

    /// The log, for what follows from the events of this organization alone.
    pub fn log_within(&self, id: &OrganizationId) -> &Arc<Log> {
        self.reads.organization(id);
        self.app.commands.log()
    }

    /// The organization that holds this key.
    pub async fn holder(&self, scope: Scope, key: &str) -> Result<Option<OrganizationId>, Error> {
        let holder = self.app.commands.log().claim(scope, key, None).await.map_err(log_fault)?;
        let holder = holder.and_then(|holder| holder.parse().ok());
        match &holder {
            // It is lost by an event of its holder.
            Some(id) => self.reads.organization(id),
            None => self.reads.other(),
        }
        Ok(holder)
    }

    /// The epoch of positions.
    pub fn epoch(&self) -> i64 {
        self.app.commands.log().epoch()
    }

    /// How witnesses of the audit trail stand.
    pub fn witnesses(&self) -> &Asked {
        &self.app.witnesses
    }

    /// How far standing verification is.
    pub fn verified(&self) -> &Verified {
        self.reads.other();
        &self.app.verified
    }

    /// Organizations as they were.
    pub fn folds(&self) -> &Folds {
        &self.app.folds
    }

    /// What was loaded already, and what loads the rest. An answer that was made by these is not kept.
    pub fn loaders(&self) -> &Loaders {
        self.reads.other();
        &self.loaders
    }

    /// Lists of organizations; what they read they note themselves.
    pub fn lists(&self) -> &Lists {
        &self.loaders.lists
    }

    /// What an organization uses.
    pub async fn tallies(&self, id: &OrganizationId) -> Result<Vec<NamedTally>, Error> {
        self.reads.organization(id);
        Ok(self.loaders.tallies.load_one(id.clone()).await?.unwrap_or_default())
    }

    /// A user's name and address.
    pub async fn user_row(&self, id: &UserId) -> Result<Option<UserRow>, Error> {
        self.reads.user(id);
        self.loaders.users.load_one(id.to_string()).await
    }

    /// The organization, if the caller sees it now; RATE_LIMITED if its members read it too often.
    pub async fn see(&self, id: &OrganizationId) -> Result<Option<Seen>, Error> {
        let caller = self.caller()?;
        self.reads.organization(id);
        let seen = self.loaders.seen.load_one(id.clone()).await?;
        match &seen {
            Some(seen) if seen.only_as_operator() && seen.visible() => self.note_operator_read(id),
            Some(seen) if !seen.visible() && seen.organization.state.is_present() => {
                self.noted(|noted| noted.hidden.insert(id.clone()));
            }
            Some(_) | None => {}
        }
        let seen = seen.filter(Seen::visible);
        if seen.is_some() {
            self.noted(|noted| noted.seen.insert(id.clone()));
        }
        if let (Some(_), Some(meter)) = (&seen, caller.member_meter()) {
            meter.read_of(id).map_err(rate_limited)?;
        }
        if seen.is_some() {
            self.established.add(id);
        }
        Ok(seen)
    }

    /// The same for whatever belongs to the organization, its history among it: of one that is pruned nothing is there any
    /// more, though a replica may still remember some.
    pub async fn see_unpruned(&self, id: &OrganizationId) -> Result<Option<Seen>, Error> {
        Ok(self.see(id).await?.filter(|seen| !seen.organization.state.pruned))
    }

    /// The organization that something of this id belongs to, if the caller sees it now. What does not exist takes the same
    /// look-ups as what is hidden, in an organization that is not there either: time tells them apart no more than the
    /// answer does.
    pub async fn see_owner(&self, owner: Option<&OrganizationId>, id: &str) -> Result<Option<Seen>, Error> {
        match owner {
            Some(organization) => self.see_unpruned(organization).await,
            None => self.see(&nowhere(id)).await.map(|_| None),
        }
    }

    fn noted<T>(&self, change: impl FnOnce(&mut Noted) -> T) -> T {
        change(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(
        &self,
        kind: Kind,
        as_operator: bool,
        organization: Option<&OrganizationId>,
        reached: Option<&OrganizationId>,
        target: Option<&str>,
    ) {
        let Some(caller) = &self.caller else { return };
        let occurrence = Occurrence {
            kind,
            actor: caller.actor(as_operator),
            operation: self.operation.clone(),
            organization: organization.cloned(),
            reached: reached.cloned(),
            target: target.map(str::to_owned),
            ip: caller.ip.clone(),
        };
        self.reads.occurrence(&occurrence);
        self.app.commands.trail().note(occurrence);
    }

    /// The caller's roles, or the token that calls, do not have this permission.
    pub fn lacks(&self, permission: Permission) -> Error {
        forbidden(match self.is_token() {
            true => format!("this needs the permission {permission}, which this API token does not have"),
            false => format!("this needs the permission {permission}, which none of your roles has"),
        })
    }

    /// Puts on record that an operator reads what is an organization's; once a request.
    pub fn note_operator_read(&self, id: &OrganizationId) {
        if self.noted(|noted| noted.as_operator.insert(id.clone())) {
            self.note(Kind::OperatorRead, true, Some(id), None, Some(id.as_ref()));
        }
    }

    /// Puts on record that the audit trail of an organization was read, or the one over all of them.
    pub fn note_audit_read(&self, organization: Option<&OrganizationId>) {
        self.note_audit(Kind::AuditRead, organization);
    }

    fn note_audit(&self, kind: Kind, organization: Option<&OrganizationId>) {
        let as_operator = organization.is_none_or(|id| self.noted(|noted| noted.as_operator.contains(id)));
        self.note(kind, as_operator, organization, None, organization.map(AsRef::as_ref));
    }

    /// Whether the caller sees the organization, and then that they may read its audit trail, which is put on record as
    /// of this kind.
    pub async fn audits(&self, id: &OrganizationId, kind: Kind) -> Result<bool, Error> {
        let Some(seen) = self.see(id).await? else {
            self.note_reach(Some(id), Some(id.as_ref()));
            return Ok(false);
        };
        let permission = Permission::AuditRead;
        if !seen.may(permission) {
            self.note_refusal(Some(id), Some(id.as_ref()));
            return Err(self.lacks(permission));
        }
        if seen.may_only_as_operator(permission) {
            self.note_operator_read(id);
        }
        self.note_audit(kind, Some(id));
        Ok(true)
    }

    /// Puts on record that the caller was refused for lack of permission: in an organization that they see, else for
    /// operators only.
    pub fn note_refusal(&self, organization: Option<&OrganizationId>, target: Option<&str>) {
        self.note(Kind::Refused, self.is_operator(), organization, None, target);
    }

    /// Puts on record that the caller reached for what is not theirs: for operators that it is this organization's, if
    /// it turned out to be there and hidden; for the caller's own organizations the id that was given, whether it is
    /// there or not. Asks nobody: what does not exist and what is hidden cost the same.
    pub fn note_reach(&self, organization: Option<&OrganizationId>, target: Option<&str>) {
        self.reads.other();
        let hidden = organization.filter(|id| self.noted(|noted| noted.hidden.contains(*id)));
        if hidden.is_some() {
            self.note(Kind::Refused, false, None, hidden, target);
        }
        let own = organization.is_some_and(|id| self.noted(|noted| noted.seen.contains(id)));
        if let (Some(caller), Some(target), false) = (&self.caller, target, own || self.is_operator()) {
            self.app.commands.trail().note_reach(caller.actor(false), &self.operation, target, caller.ip.clone());
        }
    }

    /// Whether there is such an organization, whoever may see it; a purged one is none.
    pub async fn is_there(&self, id: &OrganizationId) -> Result<bool, Error> {
        self.reads.organization(id);
        let seen = self.loaders.seen.load_one(id.clone()).await?;
        Ok(seen.is_some_and(|seen| seen.organization.state.is_present()))
    }

    /// Whether the organization is there and not deleted, whoever may see it.
    pub async fn is_live(&self, id: Option<&OrganizationId>) -> Result<bool, Error> {
        let Some(id) = id else { return Ok(false) };
        self.reads.organization(id);
        let seen = self.loaders.seen.load_one(id.clone()).await?;
        Ok(seen.is_some_and(|seen| {
            let state = &seen.organization.state;
            state.is_present() && state.status.lifecycle != aggregates::status::Lifecycle::Deleted
        }))
    }

    /// Carries out a command.
    pub async fn execute<U: UseCase>(&self, case: U, conditions: Conditions) -> Result<Receipt, Error> {
        self.app.commands.execute(self.caller()?, &case, conditions).await.map_err(fault)
    }

    /// Erases somebody.
    pub async fn erase(&self, case: EraseSubject, conditions: Conditions) -> Result<Receipt, Error> {
        self.app.commands.erase(self.caller()?, &case, conditions).await.map_err(fault)
    }

    /// Waits until the read models have reached the positions of the request extension `atLeast`, for the whole operation.
    /// Strangers wait for nothing: they read nothing either.
    pub async fn at_least_for_all(&self, extension: Option<&async_graphql::Value>) -> Result<(), Error> {
        let Some(extension) = extension.filter(|value| **value != async_graphql::Value::Null) else { return Ok(()) };
        let wrong =
            || bad_input("the request extension atLeast is no list of positions: give those that commands answered");
        let positions = match extension {
            async_graphql::Value::List(items) => items.iter().map(|item| match item {
                async_graphql::Value::String(text) => Ok(PositionText(text.clone())),
                _ => Err(wrong()),
            }),
            _ => return Err(wrong()),
        };
        let positions = positions.collect::<Result<Vec<_>, _>>()?;
        match self.caller.is_some() {
            true => self.at_least(Some(positions)).await,
            false => Ok(()),
        }
    }

    /// Waits until the read models have reached these positions.
    pub async fn at_least(&self, positions: Option<Vec<PositionText>>) -> Result<(), Error> {
        let mut wanted = Position::default();
        for text in positions.into_iter().flatten() {
            let position: Position =
                text.0.parse().map_err(|error: crate::log::InvalidPosition| bad_input(error.to_string()))?;
            let known = position.offsets.keys().all(|partition| *partition < self.log().partitions());
            if position.epoch != self.log().epoch() || !known {
                let message = "this position is of another time of this database: read without it";
                return Err(coded("POSITION_UNKNOWN", message));
            }
            for (partition, offset) in position.offsets {
                let entry = wanted.offsets.entry(partition).or_default();
                *entry = (*entry).max(offset);
            }
        }
        let waited = tokio::time::timeout(self.app.at_least_wait, self.wait_for(&wanted)).await;
        waited.unwrap_or_else(|_| {
            Err(coded("STALE_READ", "the read models have not reached this position in time: try again"))
        })
    }

    async fn wait_for(&self, wanted: &Position) -> Result<(), Error> {
        let mut progress = self.app.progress.clone();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.tick().await;
        let reached = |progress: &Progress| {
            wanted.offsets.iter().all(|(partition, offset)| {
                Projection::shown().all(|p| progress.get(&(p, *partition)).is_some_and(|at| at >= offset))
            })
        };
        loop {
            if reached(&progress.borrow_and_update()) {
                return Ok(());
            }
            // Another replica may be the one that works on these partitions; then only the database knows.
            tokio::select! {
                changed = progress.changed() => if changed.is_err() {
                    return Err(coded("UNAVAILABLE", "the service is stopping"));
                },
                _ = look.tick() => {
                    match projections::reached(self.log().pool(), &wanted.offsets).await.map_err(database_fault)? {
                        Reach::Level => return Ok(()),
                        Reach::Behind => {}
                        Reach::Parked => return Err(coded(
                            "STALE_READ",
                            "a read model cannot show an event of this organization; an operator has to look: read without the position",
                        )),
                    }
                }
            }
        }
    }
}

/// The id in an argument, of the kind that it must be.
pub fn id<I: Id>(argument: &str, text: &str) -> Result<I, Error> {
    text.parse().map_err(|error: aggregates::ids::InvalidId| bad_input(format!("{argument}: {error}")))
}

/// The conditions that any input may carry.
pub fn conditions(idempotency_key: Option<String>, expected_version: Option<i32>) -> Result<Conditions, Error> {
    let expected_version = match expected_version {
        None => None,
        Some(version) => Some(u64::try_from(version).ok().filter(|version| *version > 0).ok_or_else(|| {
            bad_input(format!("expectedVersion is {version}: give a version as this service gave it, from 1"))
        })?),
    };
    Ok(Conditions { idempotency_key, expected_version })
}
