//! Webhook endpoints, and what types of events they can be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aggregates::Limit;
use aggregates::ids::{Id, WebhookEndpointId};
use aggregates::roles::Permission;
use aggregates::webhook::WEBHOOKS;
use async_graphql::connection::Connection;
use async_graphql::{Context, Error, ID, InputObject, Json, MaybeUndefined, Object, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Postgres, QueryBuilder};

use super::audit::AuditEvent;
use super::connection::{BY_CREATION, Created, Opaque, PageArguments, cost};
use super::delivery::{DeliveryList, DeliveryState, WebhookDelivery};
use super::errors::{UserError, bad_input, coded, not_found};
use super::lists::{ConnectionOf, Holds, List, Total, list, row};
use super::node::{Seeing, Shown};
use super::organization::Profile;
use super::payload::{Answer, payloads, run};
use super::scalars::{
    Long, PositionText, Time, WebhookContent, WebhookEndpointState, WebhookOrdering, int, name, named,
};
use super::session::{Session, conditions, id};
use crate::commands::webhooks::{self as cases, Act, Wishes};
use crate::commands::{Receipt, nowhere};
use crate::log::{Loaded, Position};
use crate::webhooks::catalog;

/// Which endpoints: all of an organization's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointList;

impl List for EndpointList {
    type Row = WebhookEndpoint;
    type Node = WebhookEndpoint;
    const PREFIX: &'static str = WebhookEndpointId::PREFIX;
    const SELECT: &'static [&'static str] = WebhookEndpoint::SELECT;
    const READ: &'static [Permission] = &[Permission::WebhookRead];
    type Place = Created;
    const BY: (&'static str, &'static str) = BY_CREATION;
    type Extra = Total;

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        query.push(" AND NOT deleted");
    }

    fn holds(&self, _: &[Self::Row]) -> Holds {
        Holds::Unknown
    }

    fn place(row: &Self::Row) -> Created {
        Created { at: row.created_at, id: row.id.clone() }
    }

    fn counted(&self) -> Option<Limit> {
        Some(WEBHOOKS)
    }
}

row! {
    /// Where an organization's events are sent to. The secret is shown once, by `createWebhookEndpoint` and
    /// `rotateWebhookSecret`, and never again.
    pub struct WebhookEndpoint of "webhook_endpoints" {
        id: String,
        organization_id: String,
        url: String,
        about: Option<String>,
        patterns: Vec<String>,
        ordering: String,
        content: String,
        rate_per_second: Option<i64>,
        state: String,
        disabled_reason: Option<String>,
        version: i64,
        created_at: DateTime<Utc>,
    }
}

impl Shown for WebhookEndpoint {
    type Of = aggregates::WebhookEndpoint;

    fn new(id: WebhookEndpointId, loaded: &Loaded<aggregates::WebhookEndpoint>) -> Option<Self> {
        let (state, terms) = (&loaded.state, &loaded.state.terms);
        Some(Self {
            id: id.into(),
            organization_id: loaded.organization.clone()?.into(),
            url: terms.url.clone(),
            about: terms.about.clone(),
            patterns: terms.patterns.clone(),
            ordering: name(terms.ordering),
            content: name(terms.content),
            rate_per_second: terms.rate_per_second.map(u64::cast_signed),
            state: name(state.state),
            disabled_reason: state.disabled_reason.clone(),
            version: loaded.version.cast_signed(),
            created_at: state.created_at,
        })
    }

    async fn is_visible(
        session: &Session,
        id: &WebhookEndpointId,
        loaded: &Loaded<aggregates::WebhookEndpoint>,
    ) -> Seeing {
        let seen = session.see_owner(loaded.organization.as_ref(), id.as_ref()).await?;
        Ok(loaded.state.is_present() && seen.is_some_and(|seen| seen.may(Permission::WebhookRead)))
    }
}

/// An address to which events of an organization are sent.
#[Object]
impl WebhookEndpoint {
    /// The id.
    pub async fn id(&self) -> ID {
        ID(self.id.clone())
    }
    /// Where to.
    async fn url(&self) -> &str {
        &self.url
    }
    /// For what it is.
    async fn description(&self) -> Option<&str> {
        self.about.as_deref()
    }
    /// Which events: `*`, the beginning of a type (`org.*`), or a type (`member.invited`).
    async fn events(&self) -> &[String] {
        &self.patterns
    }
    /// In which order.
    async fn ordering(&self) -> WebhookOrdering {
        named::<aggregates::webhook::WebhookOrdering>(&self.ordering).into()
    }
    /// How much of them.
    async fn content(&self) -> WebhookContent {
        named::<aggregates::webhook::WebhookContent>(&self.content).into()
    }
    /// How many a second at most; null is what the deployment allows.
    async fn rate_per_second(&self) -> Option<Long> {
        self.rate_per_second.map(|rate| Long::from(rate.unsigned_abs()))
    }
    /// Whether it is sent anything.
    async fn state(&self) -> WebhookEndpointState {
        named::<aggregates::webhook::WebhookEndpointState>(&self.state).into()
    }
    /// Why it is disabled.
    async fn disabled_reason(&self) -> Option<&str> {
        self.disabled_reason.as_deref()
    }
    /// How often it was changed.
    async fn version(&self) -> i32 {
        int(self.version.unsigned_abs())
    }
    /// When it was created.
    async fn created_at(&self) -> Time {
        Time(self.created_at)
    }

    /// What it was and is to be sent, by the time of the events, for whoever may read the audit trail too. What is done is
    /// forgotten after a while.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn deliveries(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        state: Option<DeliveryState>,
    ) -> Option<async_graphql::Result<Connection<Opaque, WebhookDelivery>>> {
        let deliveries = DeliveryList { endpoint: self.id.clone(), state };
        let page = PageArguments { first, after, last, before };
        let organization = self.organization_id.parse().unwrap_or_else(|_| nowhere(&self.id));
        Some(match Session::of(ctx).see(&organization).await {
            Ok(Some(_)) => list(ctx, &organization, &self.id, deliveries, page).await,
            Ok(None) => Err(not_found()),
            Err(error) => Err(error),
        })
    }
}

/// What an organization shows of its webhook endpoints.
#[derive(Clone)]
pub struct WebhookEndpoints(pub Arc<Profile>);

#[Object]
impl WebhookEndpoints {
    /// Webhook endpoints, by creation.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn webhook_endpoints(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<ConnectionOf<EndpointList>>> {
        Some(self.0.list(ctx, EndpointList, PageArguments { first, after, last, before }).await)
    }
}

/// A type of event that webhooks are sent.
#[derive(Debug, Clone, SimpleObject)]
pub struct WebhookEventType {
    /// For example `member.invited`.
    name: String,
    /// What happened.
    description: String,
    /// The version of its shape.
    version: String,
    /// The JSON Schema (2020-12) of the body.
    schema: Json<Value>,
}

/// All of them.
pub fn event_types() -> Vec<WebhookEventType> {
    let shown = |event: catalog::EventType| WebhookEventType {
        name: event.name,
        description: event.description.to_owned(),
        version: event.version.to_owned(),
        schema: Json(event.schema),
    };
    catalog::event_types().map(shown).collect()
}

payloads! {
    /// What became of a command on a webhook endpoint.
    WebhookEndpointPayload {
        /// The endpoint after the command.
        endpoint: Option<WebhookEndpoint> = WebhookEndpoint::after,
        /// The secret of a new endpoint, or its new one, shown this once (`whsec_…`).
        secret: Option<String> = |receipt: &Receipt| receipt.secret.clone(),
    }
    /// What became of a command to send something.
    WebhookDeliveryPayload {
        /// The delivery as it is after the command.
        delivery: Option<WebhookDelivery> = WebhookDelivery::among,
    }
}

/// What became of a command to send a part of the audit trail again.
#[derive(SimpleObject)]
pub struct ReplayWebhooksPayload {
    /// How many deliveries that makes; 0 of an earlier outcome.
    scheduled: i32,
    /// What was recorded.
    events: Vec<AuditEvent>,
    /// Where to read to see it.
    position: Option<PositionText>,
    /// Whether this is the outcome of an earlier, equal command.
    replayed: bool,
    /// Why nothing was changed.
    errors: Vec<UserError>,
}

/// A new webhook endpoint.
#[derive(InputObject)]
pub struct CreateWebhookEndpointInput {
    /// Of which organization.
    organization_id: ID,
    /// Where to: https, without a name or a password.
    url: String,
    /// Which events: `*`, the beginning of a type (`org.*`), or a type (`member.invited`); see `webhookEventTypes`.
    events: Vec<String>,
    /// For what it is.
    description: Option<String>,
    /// In which order; PARALLEL, where nothing is said.
    ordering: Option<WebhookOrdering>,
    /// How much of them; FULL, where nothing is said.
    content: Option<WebhookContent>,
    /// How many a second at most.
    rate_per_second: Option<Long>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome, without the secret.
    idempotency_key: Option<String>,
}

/// Changes to a webhook endpoint. What is left out stays.
#[derive(InputObject)]
pub struct UpdateWebhookEndpointInput {
    /// Which endpoint.
    endpoint_id: ID,
    /// Where to.
    url: Option<String>,
    /// Which events.
    events: Option<Vec<String>>,
    /// For what it is; null clears it.
    description: MaybeUndefined<String>,
    /// In which order.
    ordering: Option<WebhookOrdering>,
    /// How much of them.
    content: Option<WebhookContent>,
    /// How many a second at most; null clears it.
    rate_per_second: MaybeUndefined<Long>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the endpoint must have.
    expected_version: Option<i32>,
}

/// A command on a webhook endpoint.
#[derive(InputObject)]
pub struct WebhookEndpointCommandInput {
    /// Which endpoint.
    endpoint_id: ID,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome, without a secret.
    idempotency_key: Option<String>,
    /// The version that the endpoint must have.
    expected_version: Option<i32>,
}

/// Which delivery is sent again.
#[derive(InputObject)]
pub struct RedeliverWebhookInput {
    /// Which delivery.
    delivery_id: ID,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
}

/// Which part of the audit trail is sent again.
#[derive(InputObject)]
pub struct ReplayWebhooksInput {
    /// To which endpoint.
    endpoint_id: ID,
    /// Everything after this.
    after: PositionText,
    /// Up to here; up to now, where nothing is said.
    until: Option<PositionText>,
    /// Only these events, of those that the endpoint wants.
    events: Option<Vec<String>>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
}

fn undefined<T, U>(value: MaybeUndefined<T>, of: impl Fn(T) -> U) -> Option<Option<U>> {
    match value {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(of(value))),
    }
}

fn rate(rate: Long) -> u64 {
    rate.0.unsigned_abs()
}

async fn act(ctx: &Context<'_>, input: WebhookEndpointCommandInput, act: Act) -> Answer<WebhookEndpointPayload> {
    let case = id("endpointId", &input.endpoint_id).map(|endpoint| cases::ActOnWebhookEndpoint {
        endpoint,
        act,
        reason: input.reason,
        scheduled: Arc::default(),
    });
    run(ctx, input.idempotency_key, input.expected_version, case).await
}

async fn replay(
    ctx: &Context<'_>,
    input: ReplayWebhooksInput,
    failed_only: bool,
) -> Result<ReplayWebhooksPayload, Error> {
    let session = Session::of(ctx);
    session.caller()?;
    let conditions = conditions(input.idempotency_key, None)?;
    let position = |text: PositionText| {
        let position: Position =
            text.0.parse().map_err(|error: crate::log::InvalidPosition| bad_input(error.to_string()))?;
        if position.epoch != session.log().epoch() {
            return Err(coded("POSITION_UNKNOWN", "this position is of another time of this database"));
        }
        Ok(position)
    };
    let act = Act::Replay {
        after: position(input.after)?,
        until: input.until.map(position).transpose()?,
        events: input.events,
        failed_only,
    };
    let endpoint = id("endpointId", &input.endpoint_id)?;
    let scheduled = Arc::<AtomicU64>::default();
    let case = cases::ActOnWebhookEndpoint { endpoint, act, reason: input.reason, scheduled: scheduled.clone() };
    let receipt = session.execute(case, conditions).await?;
    Ok(ReplayWebhooksPayload {
        // Of an earlier outcome it is not known any more.
        scheduled: if receipt.rejections.is_empty() { int(scheduled.load(Ordering::Relaxed)) } else { 0 },
        events: receipt.events.into_iter().map(AuditEvent::new).collect(),
        position: receipt.position.map(Into::into),
        replayed: receipt.replayed,
        errors: receipt.rejections.into_iter().map(Into::into).collect(),
    })
}

/// Commands on webhook endpoints.
#[derive(Default)]
pub struct WebhookMutation;

#[Object]
impl WebhookMutation {
    /// Creates a webhook endpoint; returns its secret once. The caller needs `audit:read` too: the endpoint is sent
    /// what that permission shows.
    async fn create_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        input: CreateWebhookEndpointInput,
    ) -> Answer<WebhookEndpointPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::CreateWebhookEndpoint {
            organization,
            wishes: Wishes {
                url: Some(input.url),
                description: Some(input.description),
                events: Some(input.events),
                ordering: input.ordering.map(Into::into),
                content: input.content.map(Into::into),
                rate_per_second: Some(input.rate_per_second.map(rate)),
            },
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, None, case).await
    }

    /// Changes where a webhook endpoint is, or what it is sent.
    async fn update_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        input: UpdateWebhookEndpointInput,
    ) -> Answer<WebhookEndpointPayload> {
        let wishes = Wishes {
            url: input.url,
            description: undefined(input.description, |text| text),
            events: input.events,
            ordering: input.ordering.map(Into::into),
            content: input.content.map(Into::into),
            rate_per_second: undefined(input.rate_per_second, rate),
        };
        let case = id("endpointId", &input.endpoint_id).map(|endpoint| cases::ActOnWebhookEndpoint {
            endpoint,
            act: Act::Change(wishes),
            reason: input.reason,
            scheduled: Arc::default(),
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Gives a webhook endpoint another secret, and returns it once. The one before signs beside it for 24 hours.
    async fn rotate_webhook_secret(
        &self,
        ctx: &Context<'_>,
        input: WebhookEndpointCommandInput,
    ) -> Answer<WebhookEndpointPayload> {
        act(ctx, input, Act::RotateSecret).await
    }

    /// Sends a disabled webhook endpoint events again, from where that stopped: nothing is lost.
    async fn enable_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        input: WebhookEndpointCommandInput,
    ) -> Answer<WebhookEndpointPayload> {
        act(ctx, input, Act::Enable).await
    }

    /// Sends a webhook endpoint nothing any more, until it is enabled.
    async fn disable_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        input: WebhookEndpointCommandInput,
    ) -> Answer<WebhookEndpointPayload> {
        act(ctx, input, Act::Disable).await
    }

    /// Deletes a webhook endpoint, and with it what was not delivered.
    async fn delete_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        input: WebhookEndpointCommandInput,
    ) -> Answer<WebhookEndpointPayload> {
        act(ctx, input, Act::Delete).await
    }

    /// Sends a webhook endpoint a test, the same way as everything else.
    async fn send_test_webhook(
        &self,
        ctx: &Context<'_>,
        input: WebhookEndpointCommandInput,
    ) -> Answer<WebhookDeliveryPayload> {
        let case = id("endpointId", &input.endpoint_id).map(|endpoint| cases::ActOnWebhookEndpoint {
            endpoint,
            act: Act::Test,
            reason: input.reason,
            scheduled: Arc::default(),
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Sends one delivery again, now, however often it was sent.
    async fn redeliver_webhook(
        &self,
        ctx: &Context<'_>,
        input: RedeliverWebhookInput,
    ) -> Answer<WebhookDeliveryPayload> {
        let case = id("deliveryId", &input.delivery_id)
            .map(|delivery| cases::RedeliverWebhook { delivery, reason: input.reason });
        run(ctx, input.idempotency_key, None, case).await
    }

    /// Sends a webhook endpoint everything after a position again.
    async fn replay_webhooks(&self, ctx: &Context<'_>, input: ReplayWebhooksInput) -> Answer<ReplayWebhooksPayload> {
        Some(replay(ctx, input, false).await)
    }

    /// Sends a webhook endpoint what could not be delivered after a position again.
    async fn redrive_webhooks(&self, ctx: &Context<'_>, input: ReplayWebhooksInput) -> Answer<ReplayWebhooksPayload> {
        Some(replay(ctx, input, true).await)
    }
}
