//! What became of what webhook endpoints are sent.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::ids::{EventId, Id, OrganizationId, WebhookDeliveryId, WebhookEndpointId};
use aggregates::roles::Permission;
use aggregates::webhook::WebhookEndpointEvent;
use aggregates::{Event, Recorded};
use async_graphql::connection::EmptyFields;
use async_graphql::{Context, Enum, Error, ID, Object, SimpleObject};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, Postgres, QueryBuilder};

use super::audit::AuditEvent;
use super::batch::Load;
use super::connection::{BY_CREATION, Created};
use super::errors::{database_fault, log_fault, not_found};
use super::lists::{Holds, List};
use super::scalars::{Time, stored};
use super::session::Session;
use crate::commands::Receipt;
use crate::log::Log;
use crate::webhooks::Attempt;

/// Where a delivery stands.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq, Hash, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeliveryState {
    /// It has not been tried yet.
    Pending,
    /// It arrived.
    Succeeded,
    /// It has failed so far, and is tried again.
    Retrying,
    /// It has failed for good; it can be sent again.
    Failed,
}

/// A delivery as it is kept.
#[derive(Debug, Clone, FromRow, serde::Deserialize)]
pub struct WebhookRow {
    id: String,
    endpoint_id: String,
    organization_id: String,
    event_id: String,
    state: String,
    next_attempt_at: Option<DateTime<Utc>>,
    attempts: sqlx::types::Json<Vec<Attempt>>,
    created_at: DateTime<Utc>,
}

const DELIVERY: &str = "id, endpoint_id, organization_id, event_id, state,
    CASE WHEN EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = endpoint_id AND e.state = 'ENABLED')
         THEN NULLIF(due_at, 'infinity') END AS next_attempt_at,
    attempts, created_at FROM webhook_deliveries";

impl WebhookRow {
    /// Whose it is.
    pub fn organization(&self) -> Option<OrganizationId> {
        self.organization_id.parse().ok()
    }
}

/// Which deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryList {
    /// Of which endpoint.
    pub endpoint: String,
    /// In which state.
    pub state: Option<DeliveryState>,
}

impl List for DeliveryList {
    type Row = WebhookRow;
    type Node = WebhookDelivery;
    const PREFIX: &'static str = WebhookDeliveryId::PREFIX;
    const SELECT: &'static [&'static str] = &[DELIVERY];
    // The audit trail says what was sent.
    const READ: &'static [Permission] = &[Permission::WebhookRead, Permission::AuditRead];
    type Place = Created;
    const BY: (&'static str, &'static str) = BY_CREATION;
    type Extra = EmptyFields;

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        query.push(" AND endpoint_id = ").push_bind(self.endpoint.clone());
        if let Some(state) = self.state {
            query.push(" AND state = ").push_bind(stored(state));
        }
    }

    fn holds(&self, _: &[Self::Row]) -> Holds {
        Holds::Unknown
    }

    fn place(row: &Self::Row) -> Created {
        Created { at: row.created_at, id: row.id.clone() }
    }
}

/// Loads deliveries by their ids.
pub struct DeliveryLoader {
    /// Where they are kept.
    pub pool: crate::database::Connections,
}

impl Load<String> for DeliveryLoader {
    type Value = WebhookRow;

    async fn load(&self, keys: &[String]) -> Result<HashMap<String, WebhookRow>, Error> {
        let statement = format!("SELECT {DELIVERY} WHERE id = ANY($1)");
        let rows: Vec<WebhookRow> =
            sqlx::query_as(&statement).bind(keys).fetch_all(&self.pool).await.map_err(database_fault)?;
        Ok(rows.into_iter().map(|row| (row.id.clone(), row)).collect())
    }
}

/// Loads events by their ids.
pub struct EventLoader {
    /// The log.
    pub log: Arc<Log>,
}

impl Load<String> for EventLoader {
    type Value = Recorded;

    async fn load(&self, keys: &[String]) -> Result<HashMap<String, Recorded>, Error> {
        let events = self.log.events(keys).await.map_err(log_fault)?;
        Ok(events.into_iter().map(|event| (event.id.to_string(), event)).collect())
    }
}

/// An event on its way to an endpoint. Sent again, it is the same.
#[derive(Debug, Clone)]
pub struct WebhookDelivery {
    id: String,
    endpoint: String,
    event: String,
    state: DeliveryState,
    next_attempt_at: Option<DateTime<Utc>>,
    /// `None`: as they are kept.
    attempts: Option<Vec<Attempt>>,
}

impl From<WebhookRow> for WebhookDelivery {
    fn from(row: WebhookRow) -> Self {
        let state = match row.state.as_str() {
            "SUCCEEDED" => DeliveryState::Succeeded,
            "RETRYING" => DeliveryState::Retrying,
            "FAILED" => DeliveryState::Failed,
            _ => DeliveryState::Pending,
        };
        let attempts = Some(row.attempts.0);
        let (endpoint, event) = (row.endpoint_id, row.event_id);
        Self { id: row.id, endpoint, event, state, next_attempt_at: row.next_attempt_at, attempts }
    }
}

impl WebhookDelivery {
    /// Of an event that is to be sent by what was just recorded.
    fn due(endpoint: &WebhookEndpointId, event: &EventId, cause: &Recorded) -> Self {
        Self {
            id: WebhookDeliveryId::of(endpoint, event).to_string(),
            endpoint: endpoint.to_string(),
            event: event.to_string(),
            state: DeliveryState::Pending,
            next_attempt_at: Some(cause.recorded_at),
            attempts: None,
        }
    }

    /// The one that a command asked for.
    pub fn among(receipt: &Receipt) -> Option<Self> {
        let cause = receipt.events.first()?;
        let endpoint: WebhookEndpointId = cause.stream.id().parse().ok()?;
        match &cause.event {
            Event::WebhookEndpoint(WebhookEndpointEvent::WebhookTested { .. }) => {
                Some(Self::due(&endpoint, &cause.id, cause))
            }
            Event::WebhookEndpoint(WebhookEndpointEvent::WebhookRedelivered { redelivered_event_id, .. }) => {
                Some(Self::due(&endpoint, redelivered_event_id, cause))
            }
            _ => None,
        }
    }
}

/// An event on its way to a webhook endpoint. Sent again, it is the same.
#[Object]
impl WebhookDelivery {
    /// The id.
    pub async fn id(&self) -> ID {
        ID(self.id.clone())
    }
    /// To which endpoint.
    async fn endpoint_id(&self) -> ID {
        ID(self.endpoint.clone())
    }
    /// What is sent; its id is the `webhook-id`.
    async fn event(&self, ctx: &Context<'_>) -> async_graphql::Result<AuditEvent> {
        let event = Session::of(ctx).loaders().events.load_one(self.event.clone()).await?;
        event.map(AuditEvent::new).ok_or_else(not_found)
    }
    /// Where it stands.
    async fn state(&self) -> DeliveryState {
        self.state
    }
    /// What was tried, the oldest first; the last twenty.
    async fn attempts(&self, ctx: &Context<'_>) -> async_graphql::Result<Vec<WebhookAttempt>> {
        let attempts = match &self.attempts {
            Some(attempts) => attempts.clone(),
            None => {
                let row = Session::of(ctx).loaders().deliveries.load_one(self.id.clone()).await?;
                row.map(|row| row.attempts.0).unwrap_or_default()
            }
        };
        Ok(attempts.into_iter().map(WebhookAttempt::from).collect())
    }
    /// When it is tried next; null when it is done, or while one before it of its subject is not.
    async fn next_attempt_at(&self) -> Option<Time> {
        self.next_attempt_at.map(Time)
    }
}

/// An attempt to deliver.
#[derive(Debug, Clone, SimpleObject)]
pub struct WebhookAttempt {
    /// When it began.
    at: Time,
    /// How long it took.
    duration_ms: i32,
    /// What the receiver answered, if it did.
    status: Option<i32>,
    /// What went wrong, if something did.
    error: Option<String>,
    /// The beginning of what the receiver answered.
    response_excerpt: Option<String>,
}

impl From<Attempt> for WebhookAttempt {
    fn from(attempt: Attempt) -> Self {
        Self {
            at: Time(attempt.at),
            duration_ms: i32::try_from(attempt.duration_ms).unwrap_or(i32::MAX),
            status: attempt.status.map(i32::from),
            error: attempt.error,
            response_excerpt: attempt.response_excerpt,
        }
    }
}
