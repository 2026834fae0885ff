//! `GET /events`: an organization's events to be fetched, the same that webhooks are sent, at the same positions. A
//! client that was away for a month asks for what came after its last position, and needs nothing else.
//!
//! Where there is nothing new the answer waits for it, if the client wants that.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aggregates::ids::OrganizationId;
use aggregates::webhook::{WebhookContent, patterns, wants};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::export::{Reader, Refusal, admit, not_found};
use super::feed::Place;
use super::{Shared, sender, unreadable};
use crate::commands::Principal;
use crate::feed::{Next, Seat};
use crate::log::Position;
use crate::requests::trail::Kind;
use crate::webhooks::catalog;
use crate::webhooks::message::Message;

/// How many events an answer has at most, and where nothing is said.
const LIMIT_MAX: u32 = 1_000;
const LIMIT_DEFAULT: u32 = 100;
/// The longest that an answer may wait, in seconds.
const WAIT_MAX: u32 = 60;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameters {
    organization: String,
    /// The position of the last answer; without it, from the beginning.
    after: Option<String>,
    limit: Option<u32>,
    /// How long to wait for something new, in seconds.
    wait: Option<u32>,
    /// Patterns of types, separated by commas.
    types: Option<String>,
    content: Option<String>,
}

/// What is asked for, checked.
struct Wanted {
    after: Option<String>,
    limit: i64,
    wait: Duration,
    patterns: Vec<String>,
    content: WebhookContent,
}

impl Wanted {
    fn of(parameters: Parameters) -> Result<Self, Refusal> {
        let limit = parameters.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Refusal::bad(format!("limit is {limit}: give 1 to {LIMIT_MAX}")));
        }
        let wait = parameters.wait.unwrap_or(0);
        if wait > WAIT_MAX {
            return Err(Refusal::bad(format!("wait is {wait}: give at most {WAIT_MAX} seconds")));
        }
        let content = match parameters.content.as_deref() {
            None | Some("full") => WebhookContent::Full,
            Some("thin") => WebhookContent::Thin,
            Some(_) => return Err(Refusal::bad("content is neither \"full\" nor \"thin\"")),
        };
        let given = parameters.types.as_deref().unwrap_or("*").split(',').map(str::trim);
        let given: Vec<String> = given.filter(|pattern| !pattern.is_empty()).map(str::to_owned).collect();
        let patterns = patterns(&given).map_err(|refused| Refusal::bad(refused.to_string()))?;
        let wait = Duration::from_secs(wait.into());
        Ok(Self { after: parameters.after, limit: limit.into(), wait, patterns, content })
    }
}

/// Answers with a page of events, or says why not.
pub async fn events(
    State(shared): State<Arc<Shared>>,
    parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let sender = sender(&request);
    let answered = async {
        let Query(parameters) = parameters.map_err(|error| Refusal::bad(unreadable(&error)))?;
        let (reader, trail) = admit(&shared, &parameters.organization, sender, Kind::AuditRead).await?;
        // The installation has no feed of its own.
        let organization = trail.organization().ok_or_else(not_found)?;
        answer(&shared, &reader, organization, Wanted::of(parameters)?).await
    };
    answered.await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    shared: &Arc<Shared>,
    reader: &Reader,
    organization: &OrganizationId,
    wanted: Wanted,
) -> Result<Response, Refusal> {
    let Some(principal) = reader.principal() else { return Err(not_found()) };
    let follower = Follower::new(shared, organization, principal).await?;
    let deadline = Instant::now() + wanted.wait;
    let mut cursor = follower.begin(wanted.after.as_deref()).await?;
    let mut place = None;
    loop {
        let mut heads = follower.seat.ring.heads();
        heads.mark_unchanged();
        // Others live in the partition too: of what is theirs the database is not asked.
        let looked = follower.look(cursor);
        let page = match looked {
            Some(offset) if place.is_some() => {
                Page { messages: vec![], cursor: Cursor { offset, ..cursor }, more: false }
            }
            _ => follower.page(cursor, &wanted).await?,
        };
        if !page.messages.is_empty() || page.more || Instant::now() >= deadline {
            // What was decided while the caller waited counts.
            if !reader.may(&organization.clone().into(), None).await? {
                return Err(not_found());
            }
            return Ok(follower.respond(&page));
        }
        cursor = page.cursor;
        if place.is_none() {
            place = Some(Place::for_caller(shared, &principal.actor(false))?);
        }
        let mut shut_out = follower.seat.shut_out.clone();
        tokio::select! {
            _ = heads.changed() => {}
            _ = shut_out.changed() => {}
            // An answer without events: whoever asks again is answered by another replica.
            () = shared.app.feeds.stopping().cancelled() => return Ok(follower.respond(&page)),
            () = tokio::time::sleep_until(deadline) => {}
        }
        if *follower.seat.shut_out.borrow() {
            return Err(not_found());
        }
    }
}

/// Where an answer is in the audit trail.
#[derive(Clone, Copy)]
struct Cursor {
    sequence: i64,
    offset: i64,
}

/// An answer.
#[derive(Serialize)]
struct Told<'a> {
    events: &'a [Message],
    /// Where to go on.
    position: String,
    /// Whether there is more already.
    more: bool,
}

struct Page {
    messages: Vec<Message>,
    cursor: Cursor,
    more: bool,
}

struct Follower<'a> {
    shared: &'a Shared,
    organization: &'a OrganizationId,
    seat: Seat,
}

impl<'a> Follower<'a> {
    async fn new(
        shared: &'a Arc<Shared>,
        organization: &'a OrganizationId,
        principal: &Principal,
    ) -> Result<Self, Refusal> {
        let seat = shared.app.feeds.seat(organization, principal).await.map_err(crate::graphql::fault)?;
        Ok(Self { shared, organization, seat })
    }

    async fn begin(&self, after: Option<&str>) -> Result<Cursor, Refusal> {
        let Some(text) = after else { return Ok(Cursor { sequence: 0, offset: 0 }) };
        let position: Position =
            text.parse().map_err(|error: crate::log::InvalidPosition| Refusal::bad(error.to_string()))?;
        let unknown = || {
            let message = "this position is of another time of this database: begin anew, without `after`";
            Refusal::of("POSITION_UNKNOWN", message.to_owned())
        };
        if position.epoch != self.seat.epoch {
            return Err(unknown());
        }
        let offset = match position.offsets.get(&self.seat.partition) {
            Some(offset) if *offset <= self.seat.head => *offset,
            Some(_) => return Err(unknown()),
            None => return Err(Refusal::bad("this position says nothing of this organization")),
        };
        let log = self.shared.app.commands.log();
        let sequence = log.sequence_at(self.organization, offset).await.map_err(crate::graphql::log_fault)?;
        Ok(Cursor { sequence, offset })
    }

    /// Up to which offset there is nothing of the organization, as far as the ring knows; `None` where there is, or may be.
    fn look(&self, cursor: Cursor) -> Option<i64> {
        match self.seat.ring.after(cursor.offset, self.organization.as_ref(), 1, |_| false) {
            Next::Nothing => Some(cursor.offset),
            Next::Events { events, head, .. } if events.is_empty() => Some(head),
            Next::Events { .. } | Next::Behind => None,
        }
    }

    async fn page(&self, cursor: Cursor, wanted: &Wanted) -> Result<Page, Refusal> {
        let log = self.shared.app.commands.log();
        // Before the page: everything up to here is in it.
        let head = self.seat.ring.head().max(self.seat.head);
        let rows = log.after_sequence(self.organization, cursor.sequence, wanted.limit).await;
        let rows = rows.map_err(crate::graphql::log_fault)?;
        let more = rows.len() as i64 >= wanted.limit;
        let last = rows.last().map_or(cursor.offset, |row| row.offset);
        let sequence = rows.last().and_then(|row| row.audit_sequence).unwrap_or(cursor.sequence);
        let offset = if more { last } else { last.max(head) };
        let events = log.read_stored(rows).await.map_err(crate::graphql::log_fault)?;
        let of_interest = events.iter().filter(|event| wants(&wanted.patterns, &event.event.descriptor().action()));
        let messages = of_interest.map(|event| Message::of(event, self.seat.epoch, wanted.content)).collect();
        Ok(Page { messages, cursor: Cursor { sequence, offset }, more })
    }

    fn respond(&self, page: &Page) -> Response {
        let position = Position::at(self.seat.epoch, self.seat.partition, page.cursor.offset).to_string();
        let body = Told { events: &page.messages, position, more: page.more };
        ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(body)).into_response()
    }
}

/// The catalogue of types with a JSON Schema each. It is the same for everybody.
pub async fn webhook_catalog() -> Response {
    // Made once: strangers may ask as often as they like.
    static CATALOG: OnceLock<Bytes> = OnceLock::new();
    let text = || serde_json::to_vec(&catalog::catalog()).unwrap_or_default().into();
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ];
    (headers, CATALOG.get_or_init(text).clone()).into_response()
}
