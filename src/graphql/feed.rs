//! The live feed of an organization's audit trail.
//!
//! A feed is a cursor: an offset of the organization's partition. What follows it comes from what this replica read for
//! everybody, or, where the feed is behind that, from the log, a page at a time. So there is no queue that could grow,
//! and a client that reads slowly costs no more than one that reads fast.
//!
//! Whether the caller may go on is looked at again wherever the log says that it may have changed (an event of the
//! organization or of the caller's membership, a user who was shut out), before anything later is sent.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use aggregates::ids::{MembershipId, OrganizationId};
use aggregates::roles::Permission;
use aggregates::{Recorded, StreamId};
use async_graphql::{Context, Error, ErrorExtensions, ID, SimpleObject, Subscription as Subscribe};
use chrono::{DateTime, Utc};
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until};

use super::audit::{AuditAction, AuditEvent};
use super::errors::{bad_input, coded, fault, log_fault, not_found};
use super::scalars::PositionText;
use super::session::{Session, id};
use crate::commands::{Fault, Insider};
use crate::feed::{Next, Seat};
use crate::log::{Position, Reader, StoredEvent};

/// How many events are opened at once.
const PAGE_EVENTS: usize = 100;
/// How many events of the log are looked at by one statement of a feed that is behind.
const LOG_PAGE_EVENTS: i64 = 200;
/// How long opened events wait for a slow client before they are read anew, and with them whether the client may have
/// them.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How often the access trail is told of a feed that is being read.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// What a transport and a feed tell each other.
#[derive(Debug, Clone)]
pub struct FeedTransport {
    /// When the caller's token expires.
    pub until: DateTime<Utc>,
    /// Where to go on, by the transport; counts more than what the document says.
    pub resume: Option<String>,
    /// The position of the item that was given last.
    pub told: Arc<Mutex<Option<String>>>,
}

impl FeedTransport {
    /// For a caller whose token is valid until then.
    pub fn new(until: DateTime<Utc>, resume: Option<String>) -> Self {
        Self { until, resume, told: Arc::default() }
    }

    /// The position of the item that was given last.
    pub fn position(&self) -> Option<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What happened, or how far the feed looked.
#[derive(SimpleObject)]
pub struct AuditFeedItem {
    /// The event; null where only the position moved.
    event: Option<AuditEvent>,
    /// Everything up to here was sent or filtered out: pass it as `after` to go on.
    position: PositionText,
}

/// What is told as it happens.
pub struct Subscription;

/// Live feeds.
#[Subscribe]
impl Subscription {
    /// The audit trail of an organization: everything after `after` (without it: from now on), then what happens, in
    /// order, without gap or repetition; of these actions, or all.
    async fn audit_events(
        &self,
        ctx: &Context<'_>,
        organization_id: ID,
        after: Option<PositionText>,
        actions: Option<Vec<AuditAction>>,
    ) -> async_graphql::Result<impl Stream<Item = async_graphql::Result<AuditFeedItem>>> {
        let session = Session::of(ctx);
        session.caller()?;
        let organization = id("organizationId", &organization_id)?;
        let transport =
            ctx.data_opt::<FeedTransport>().ok_or_else(|| bad_input("open it at /graphql/ws or /graphql/sse"))?;
        let after = transport.resume.clone().or(after.map(|position| position.0));
        let actions = actions.unwrap_or_default().iter().map(|action| action.0.name).collect();
        let feed = Feed::open(session, organization, after, actions, transport).await?;
        Ok(futures_util::stream::unfold(Some(feed), |feed| async move {
            let mut feed = feed?;
            match feed.next().await {
                Ok(item) => Some((Ok(item), Some(feed))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

/// One feed.
struct Feed<'a> {
    session: &'a Session,
    transport: FeedTransport,
    seat: Seat,
    organization: OrganizationId,
    /// What the caller is in the organization is decided here: by the membership, or by the API token itself and the
    /// membership of who answers for it.
    own: Vec<StreamId>,
    /// Stored names of events; none is all.
    actions: HashSet<&'static str>,
    /// Everything up to this offset was sent or filtered out.
    cursor: i64,
    /// The organization's last audit sequence up to there, where it is known.
    sequence: Option<i64>,
    /// What is wanted of the page, and up to where it reaches.
    page: VecDeque<Recorded>,
    page_end: i64,
    page_at: Instant,
    /// Up to which offset it was looked whether the caller may go on.
    judged: i64,
    heads: watch::Receiver<i64>,
    epochs: watch::Receiver<i64>,
    expires: Instant,
    heartbeat: Instant,
    note_at: Instant,
    begun: bool,
}

impl<'a> Feed<'a> {
    async fn open(
        session: &'a Session,
        organization: OrganizationId,
        after: Option<String>,
        actions: HashSet<&'static str>,
        transport: &FeedTransport,
    ) -> Result<Self, Error> {
        let caller = session.caller()?.principal.clone();
        // The seat before the look: what changes afterwards is told.
        let seat = session.feeds().seat(&organization, &caller).await.map_err(fault)?;
        match session.see_unpruned(&organization).await? {
            None => {
                session.note_reach(Some(&organization), Some(organization.as_ref()));
                return Err(not_found());
            }
            Some(seen) if !seen.may(Permission::AuditRead) => {
                session.note_refusal(Some(&organization), Some(organization.as_ref()));
                return Err(session.lacks(Permission::AuditRead));
            }
            Some(seen) if seen.may_only_as_operator(Permission::AuditRead) => {
                session.note_operator_read(&organization);
            }
            Some(_) => {}
        }
        let cursor = match after {
            None => seat.head,
            Some(text) => offset_in(&text, &seat)?,
        };
        session.note_audit_read(Some(&organization));
        let behind = seat.person.as_ref().map(|user| MembershipId::of(&organization, user).into());
        let own = behind.into_iter().chain([Insider::stream(&caller, &organization)]).collect();
        let now = Instant::now();
        let left = (transport.until - Utc::now()).to_std().unwrap_or_default();
        Ok(Self {
            session,
            transport: transport.clone(),
            own,
            organization,
            actions,
            cursor,
            sequence: None,
            page: VecDeque::new(),
            page_end: cursor,
            page_at: now,
            judged: seat.head,
            heads: seat.ring.heads(),
            epochs: session.log().epochs(),
            // Far enough for whoever is valid for ever.
            expires: now + left.min(Duration::from_secs(10 * 365 * 24 * 3600)),
            heartbeat: now + session.feeds().heartbeat(),
            note_at: now + NOTE_EVERY,
            seat,
            begun: false,
        })
    }

    async fn next(&mut self) -> Result<AuditFeedItem, Error> {
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(self.item(None));
        }
        loop {
            self.may_go_on()?;
            if self.page_at.elapsed() > FRESH_FOR {
                self.page.clear();
                self.page_end = self.cursor;
            }
            if let Some(recorded) = self.page.pop_front() {
                self.cursor = recorded.offset;
                self.sequence = recorded.audit_sequence.map(u64::cast_signed);
                return Ok(self.item(Some(recorded)));
            }
            self.cursor = self.cursor.max(self.page_end);
            self.heads.mark_unchanged();
            let next = self.seat.ring.after(self.cursor, self.organization.as_ref(), PAGE_EVENTS, |event| {
                decides(event, &self.organization, &self.own)
            });
            match next {
                Next::Nothing => {
                    if self.wait().await {
                        return Ok(self.item(None));
                    }
                }
                Next::Behind => {
                    if self.read_log().await? {
                        return Ok(self.item(None));
                    }
                }
                Next::Events { events, until, head, decisive } => {
                    if decisive.is_some_and(|offset| offset > self.judged) {
                        self.judge().await?;
                        self.judged = head;
                    }
                    self.turn(events.iter().map(|event| (**event).clone()).collect(), until).await?;
                }
            }
        }
    }

    /// Waits for something; whether it is time to say that the feed is there.
    async fn wait(&mut self) -> bool {
        let (shut_out, stopping) = (&mut self.seat.shut_out, self.session.feeds().stopping());
        tokio::select! {
            _ = self.heads.changed() => false,
            _ = shut_out.changed() => false,
            () = stopping.cancelled() => false,
            _ = self.epochs.changed() => false,
            () = sleep_until(self.expires) => false,
            () = sleep_until(self.heartbeat) => true,
        }
    }

    /// Reads a page of the log; whether only the position moved.
    async fn read_log(&mut self) -> Result<bool, Error> {
        let log = self.session.log().clone();
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => log.sequence_at(&self.organization, self.cursor).await.map_err(|error| self.failed(error))?,
        };
        // Everything that others were told of up to here is in what is read now.
        let head = self.seat.ring.head();
        let rows = log.after_sequence(&self.organization, sequence, LOG_PAGE_EVENTS).await;
        let rows = rows.map_err(|error| self.failed(error))?;
        // After the page, so that whatever was decided before any of it counts.
        self.judge().await?;
        let last = rows.last().map_or(self.cursor, |row| row.offset);
        let whole = (rows.len() as i64) < LOG_PAGE_EVENTS;
        let until = if whole { last.max(head) } else { last };
        self.judged = self.judged.max(until);
        let known = rows.last().and_then(|row| row.audit_sequence).unwrap_or(sequence);
        self.turn(rows, until).await?;
        if self.page.is_empty() {
            self.sequence = Some(known);
            self.cursor = self.cursor.max(until);
        } else {
            self.sequence = Some(sequence);
        }
        Ok(self.page.is_empty() && !whole)
    }

    /// Makes these events, up to that offset, the page.
    async fn turn(&mut self, mut events: Vec<StoredEvent>, until: i64) -> Result<(), Error> {
        let last = events.last().and_then(|event| event.audit_sequence);
        if !self.actions.is_empty() {
            events.retain(|event| self.actions.contains(event.event_type.as_str()));
        }
        if events.is_empty() {
            self.sequence = last.or(self.sequence);
        }
        let opened = self.session.log().read_stored(events).await.map_err(|error| self.failed(error))?;
        (self.page, self.page_end, self.page_at) = (opened.into(), until, Instant::now());
        Ok(())
    }

    fn item(&mut self, recorded: Option<Recorded>) -> AuditFeedItem {
        let now = Instant::now();
        self.heartbeat = now + self.session.feeds().heartbeat();
        if recorded.is_some() {
            metrics::counter!("tenancy_feed_events_total").increment(1);
            if now >= self.note_at {
                self.note_at = now + NOTE_EVERY;
                self.session.note_audit_read(Some(&self.organization));
            }
        }
        let position = self.position();
        *self.transport.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(position.clone());
        AuditFeedItem { event: recorded.map(AuditEvent::new), position: PositionText(position) }
    }

    fn position(&self) -> String {
        Position::at(self.seat.epoch, self.seat.partition, self.cursor).to_string()
    }

    /// What is known without asking.
    fn may_go_on(&self) -> Result<(), Error> {
        if self.session.log().epoch() != self.seat.epoch {
            return Err(unknown());
        }
        if *self.seat.shut_out.borrow() {
            return Err(self.at_its_place(fault(Fault::Revoked)));
        }
        if Instant::now() >= self.expires {
            let message = "the token has expired: get a new one, and go on at this position";
            return Err(self.at_its_place(coded("UNAUTHENTICATED", message)));
        }
        if self.session.feeds().stopping().is_cancelled() {
            let message = "the service is stopping: go on at this position, with another replica";
            return Err(self.at_its_place(coded("UNAVAILABLE", message)));
        }
        Ok(())
    }

    /// Looks whether the caller may still read the audit trail, as the log has it now.
    async fn judge(&self) -> Result<(), Error> {
        // First whether the caller, or the user behind the token, is let in at all: users stand in another partition,
        // of which the log of the organization says nothing.
        self.session.is_let_in().await.map_err(|error| self.at_its_place(error))?;
        match self.session.see_unpruned(&self.organization).await {
            Ok(Some(seen)) if seen.may(Permission::AuditRead) => Ok(()),
            Ok(Some(_)) => Err(self.at_its_place(self.session.lacks(Permission::AuditRead))),
            Ok(None) => Err(self.at_its_place(not_found())),
            Err(error) => Err(self.at_its_place(error)),
        }
    }

    fn failed(&self, error: crate::log::LogError) -> Error {
        self.at_its_place(log_fault(error))
    }

    /// An error that says where the feed can be taken up again.
    fn at_its_place(&self, error: Error) -> Error {
        error.extend_with(|_, extensions| extensions.set("position", self.position()))
    }
}

/// Whether the event may change who may read the organization's audit trail: all that is decided of it stands in these
/// streams.
fn decides(event: &StoredEvent, organization: &OrganizationId, own: &[StreamId]) -> bool {
    match Reader::stream(event) {
        Ok(StreamId::Organization(id)) => id == *organization,
        Ok(stream) => stream.decides_access() && own.contains(&stream),
        Err(_) => true,
    }
}

fn unknown() -> Error {
    coded(
        "POSITION_UNKNOWN",
        "this position is of another time of this database: read the audit trail, and follow it anew",
    )
}

/// The offset that a position has in the partition of the seat.
fn offset_in(text: &str, seat: &Seat) -> Result<i64, Error> {
    let position: Position = text.parse().map_err(|error: crate::log::InvalidPosition| bad_input(error.to_string()))?;
    if position.epoch != seat.epoch {
        return Err(unknown());
    }
    match position.offsets.get(&seat.partition) {
        Some(offset) if *offset <= seat.head => Ok(*offset),
        Some(_) => Err(unknown()),
        None => Err(bad_input(
            "this position says nothing of this organization: give one of its events, or of a command on it",
        )),
    }
}
