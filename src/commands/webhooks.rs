//! Commands of webhook endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aggregates::ids::{EventId, Id, OrganizationId, WebhookDeliveryId, WebhookEndpointId};
use aggregates::roles::Permission;
use aggregates::status::Capability;
use aggregates::webhook::{Changes, Terms, WebhookEndpointCommand as Command, WebhookEndpointEvent, types_wanted};
use aggregates::{Organization, Refusal, WebhookEndpoint};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::standing::Standing;
use super::work::{Entity, Stop, Work};
use super::{Commands, Fault, UseCase};
use crate::endpoints::signature;
use crate::log::{Loaded, Log, LogError, Position};

/// How many replays of an endpoint may be under way.
const REPLAYS_MAX: i64 = 10;

/// What of an endpoint its owner chooses; what is `None` is as usual, or stays.
#[derive(Debug, Default, Serialize)]
pub struct Wishes {
    /// Where to.
    pub url: Option<String>,
    /// For what it is; null clears it.
    pub description: Option<Option<String>>,
    /// Which events.
    pub events: Option<Vec<String>>,
    /// In which order.
    pub ordering: Option<aggregates::webhook::WebhookOrdering>,
    /// How much of them.
    pub content: Option<aggregates::webhook::WebhookContent>,
    /// How many a second at most; null clears it.
    pub rate_per_second: Option<Option<u64>>,
}

/// Creates an endpoint.
#[derive(Debug, Serialize)]
pub struct CreateWebhookEndpoint {
    /// Of which organization.
    pub organization: OrganizationId,
    /// What its owner chooses.
    pub wishes: Wishes,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for CreateWebhookEndpoint {
    const OPERATION: &'static str = "createWebhookEndpoint";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        let reason = self.reason.as_deref();
        standing.require(work, Some(Capability::CreateResources), Permission::WebhookManage, reason)?;
        require_reading(&standing, work, reason)?;
        let (id, before) = work.create::<WebhookEndpoint>().await?;
        let wishes = &self.wishes;
        let terms = Terms {
            url: url(work, wishes.url.as_deref().unwrap_or_default())?,
            about: wishes.description.clone().flatten(),
            patterns: wishes.events.clone().unwrap_or_default(),
            ordering: wishes.ordering.unwrap_or_default(),
            content: wishes.content.unwrap_or_default(),
            rate_per_second: wishes.rate_per_second.flatten(),
        };
        let events = before.state.decide(Command::Create { terms, reason: self.reason.clone(), at: work.now })?;
        let after = finish(work, id.clone(), &before, events);
        show_secret(work, &id, &after).await
    }
}

/// What is done to an endpoint.
#[derive(Debug, Serialize)]
pub enum Act {
    /// It is changed.
    Change(Wishes),
    /// It gets another secret.
    RotateSecret,
    /// It is sent nothing any more.
    Disable,
    /// It is sent events again.
    Enable,
    /// It is sent an event that says nothing else.
    Test,
    /// It is sent a part of the audit trail again, given by positions; without an end, up to now.
    Replay {
        /// What follows this.
        after: Position,
        /// The end.
        until: Option<Position>,
        /// Which events.
        events: Option<Vec<String>>,
        /// Whether only what could not be delivered.
        failed_only: bool,
    },
    /// It goes.
    Delete,
}

/// Does something to an endpoint.
#[derive(Debug, Serialize)]
pub struct ActOnWebhookEndpoint {
    /// Which endpoint.
    pub endpoint: WebhookEndpointId,
    /// What is done.
    pub act: Act,
    /// Why, where an operator does it.
    pub reason: Option<String>,
    /// How many deliveries a replay makes, once it was decided.
    #[serde(skip)]
    pub scheduled: Arc<AtomicU64>,
}

impl UseCase for ActOnWebhookEndpoint {
    const OPERATION: &'static str = "actOnWebhookEndpoint";

    fn operation(&self) -> &'static str {
        match &self.act {
            Act::Change(_) => "updateWebhookEndpoint",
            Act::RotateSecret => "rotateWebhookSecret",
            Act::Disable => "disableWebhookEndpoint",
            Act::Enable => "enableWebhookEndpoint",
            Act::Test => "sendTestWebhook",
            Act::Replay { failed_only: false, .. } => "replayWebhooks",
            Act::Replay { failed_only: true, .. } => "redriveWebhooks",
            Act::Delete => "deleteWebhookEndpoint",
        }
    }

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let (standing, before) = find(work, &self.endpoint).await?;
        let reason = self.reason.as_deref();
        let capability = match &self.act {
            // A leak must be stopped in whatever state the organization is.
            Act::Disable | Act::Delete => Capability::RemoveMembers,
            Act::Change(_) | Act::RotateSecret | Act::Enable | Act::Test | Act::Replay { .. } => {
                Capability::ChangeResources
            }
        };
        standing.require(work, Some(capability), Permission::WebhookManage, reason)?;
        match &self.act {
            // Enabling sends what was missed, and what comes from here on.
            Act::Change(_) | Act::Replay { .. } | Act::Enable => require_reading(&standing, work, reason)?,
            // The secret is for checking what is received; a test says nothing.
            Act::RotateSecret | Act::Test | Act::Disable | Act::Delete => {}
        }
        work.expect_version(before.version)?;
        let reason = self.reason.clone();
        let command = match &self.act {
            Act::Change(wishes) => Command::Change { changes: changes(work, wishes)?, reason },
            Act::RotateSecret => Command::RotateSecret { reason, at: work.now },
            Act::Disable => Command::Disable { automatic: false, reason },
            Act::Enable => Command::Enable { reason },
            Act::Test => Command::Test { reason },
            Act::Replay { after, until, events, failed_only } => Command::Replay {
                after: sequence_at(work, &standing.id, "after", Some(after)).await?,
                until: sequence_at(work, &standing.id, "until", until.as_ref()).await?,
                patterns: events.clone(),
                failed_only: *failed_only,
                reason,
            },
            Act::Delete => Command::Delete { reason },
        };
        let events = before.state.decide(command)?;
        if let Act::Replay { .. } = &self.act {
            require_few_replays(work, &self.endpoint).await?;
        }
        // Before it is on record: then what failed is on its way already.
        if let Some(event) = events.first() {
            let count = deliveries_of_replay(work.log(), &standing.id, &self.endpoint, event).await?;
            self.scheduled.store(count, Ordering::Relaxed);
        }
        let after = finish(work, self.endpoint.clone(), &before, events);
        match &self.act {
            Act::RotateSecret => show_secret(work, &self.endpoint, &after).await,
            _ => Ok(()),
        }
    }
}

/// Sends one delivery again.
#[derive(Debug, Serialize)]
pub struct RedeliverWebhook {
    /// Which one.
    pub delivery: WebhookDeliveryId,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for RedeliverWebhook {
    const OPERATION: &'static str = "redeliverWebhook";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let row =
            sqlx::query!("SELECT endpoint_id, event_id FROM webhook_deliveries WHERE id = $1", self.delivery.as_ref())
                .fetch_optional(work.log().pool())
                .await
                .map_err(LogError::from)?;
        let named = row.and_then(|row| Some((row.endpoint_id.parse().ok()?, row.event_id.parse::<EventId>().ok()?)));
        // What does not exist takes the same look-ups as what is hidden.
        let Some((endpoint, event)) = named else {
            let stop = find(work, &WebhookEndpointId::derived(&["nowhere", self.delivery.as_ref()])).await.err();
            return Err(stop.unwrap_or(Fault::NotFound.into()));
        };
        let (standing, before) = find(work, &endpoint).await?;
        let reason = self.reason.as_deref();
        standing.require(work, Some(Capability::ChangeResources), Permission::WebhookManage, reason)?;
        require_reading(&standing, work, reason)?;
        let events = before.state.decide(Command::Redeliver { event, reason: self.reason.clone() })?;
        finish(work, endpoint, &before, events);
        Ok(())
    }
}

/// An endpoint that the caller may see, and how they stand in its organization.
async fn find(work: &mut Work<'_>, id: &WebhookEndpointId) -> Result<(Standing, Loaded<WebhookEndpoint>), Stop> {
    let endpoint = work.load::<WebhookEndpoint>(id).await?;
    let owner = endpoint.organization.as_ref().filter(|_| endpoint.state.is_present());
    let standing = Standing::of_owner(work, owner, id.as_ref()).await?;
    if !standing.may(Permission::WebhookRead) && !standing.operator {
        return Err(Fault::NotFound.into());
    }
    Ok((standing, endpoint))
}

/// The owner of an endpoint can read everything it is sent, so only a caller who may read that may have it sent.
fn require_reading(standing: &Standing, work: &mut Work<'_>, reason: Option<&str>) -> Result<(), Stop> {
    standing.require(work, None, Permission::AuditRead, reason).map(|_| ())
}

/// Each is work for all replicas, so there are few at a time.
async fn require_few_replays(work: &Work<'_>, endpoint: &WebhookEndpointId) -> Result<(), Stop> {
    let under_way = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM webhook_backfills WHERE endpoint_id = $1"#,
        endpoint.as_ref()
    )
    .fetch_one(work.log().pool())
    .await
    .map_err(LogError::from)?;
    if under_way < REPLAYS_MAX {
        return Ok(());
    }
    let message = format!("{under_way} replays of this endpoint are under way: wait until one of them is done");
    Err(Refusal::InvalidState(message).into())
}

/// How many deliveries a replay makes, by the event that asks for it.
async fn deliveries_of_replay(
    log: &Log,
    organization: &OrganizationId,
    endpoint: &WebhookEndpointId,
    event: &WebhookEndpointEvent,
) -> Result<u64, LogError> {
    let WebhookEndpointEvent::WebhookReplayed { replayed_after, replayed_until, event_patterns, failed_only, .. } =
        event
    else {
        return Ok(0);
    };
    let state = log.load::<WebhookEndpoint>(endpoint).await?.state;
    let types = types_wanted(&state.terms.patterns, Some(event_patterns));
    let (after, until) = (replayed_after.cast_signed(), replayed_until.cast_signed());
    let count = match failed_only {
        false => {
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM events
                   WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3 AND event_type = ANY($4)
                     AND aggregate_id <> $5"#,
                organization.as_ref(),
                after,
                until,
                &types as &[&str],
                endpoint.as_ref()
            )
            .fetch_one(log.pool())
            .await?
        }
        true => {
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM webhook_deliveries
                   WHERE endpoint_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3 AND event_type = ANY($4)
                     AND state = 'FAILED'"#,
                endpoint.as_ref(),
                after,
                until,
                &types as &[&str]
            )
            .fetch_one(log.pool())
            .await?
        }
    };
    Ok(count.unsigned_abs())
}

fn url(work: &Work<'_>, text: &str) -> Result<String, Refusal> {
    let url = work.rules().webhook_targets.url(text).map_err(|message| Refusal::input("url", message))?;
    Ok(url.to_string())
}

fn changes(work: &Work<'_>, wishes: &Wishes) -> Result<Changes, Refusal> {
    Ok(Changes {
        url: wishes.url.as_deref().map(|text| url(work, text)).transpose()?,
        about: wishes.description.clone(),
        patterns: wishes.events.clone(),
        ordering: wishes.ordering,
        content: wishes.content,
        rate_per_second: wishes.rate_per_second,
    })
}

/// The audit sequence at a position; the last one, without.
async fn sequence_at(
    work: &Work<'_>,
    organization: &OrganizationId,
    path: &'static str,
    position: Option<&Position>,
) -> Result<u64, Stop> {
    let log = work.log();
    let offset = match position {
        None => i64::MAX,
        Some(position) => {
            let offset = position.offsets.get(&log.partition_of(organization.as_ref())).copied();
            offset.filter(|_| position.epoch == log.epoch()).ok_or_else(|| {
                let message = format!(
                    "{path} says nothing of this organization: give the position of one of its events, or of a command on it"
                );
                Refusal::input(path, message)
            })?
        }
    };
    Ok(log.sequence_at(organization, offset).await?.unsigned_abs())
}

/// The secret of an endpoint is shown this once; it is made before its number is on record.
async fn show_secret(
    work: &mut Work<'_>,
    id: &WebhookEndpointId,
    endpoint: &Loaded<WebhookEndpoint>,
) -> Result<(), Stop> {
    let number = endpoint.state.secrets.first().map_or(1, |secret| secret.number);
    let secret = signature::make(work.log().keys(), id, number).await?;
    let Some(secret) = secret else {
        let message = "the secret that was made for this is not there any more: try again with another idempotency key";
        return Err(Refusal::InvalidState(message.to_owned()).into());
    };
    work.secret_to_show = Some(secret.shown());
    Ok(())
}

fn finish(
    work: &mut Work<'_>,
    id: WebhookEndpointId,
    before: &Loaded<WebhookEndpoint>,
    events: Vec<WebhookEndpointEvent>,
) -> Loaded<WebhookEndpoint> {
    let after = work.record(&id, before, events);
    work.entities = vec![Entity::new(id, after.clone())];
    after
}

/// What the service itself does to endpoints, because of how their receivers answer.
impl Commands {
    /// Disables an endpoint that is there and enabled; with a URL, only if that is still where it is.
    pub async fn disable_webhook(&self, endpoint: &str, at: Option<&str>, reason: String) -> Result<(), Fault> {
        self.judge_receiver(endpoint, at, Finding::Hopeless { reason }).await
    }

    /// Puts on record that every attempt has failed since then, once.
    pub async fn warn_of_webhook(
        &self,
        endpoint: &str,
        failing_since: DateTime<Utc>,
        disabled_from: DateTime<Utc>,
    ) -> Result<(), Fault> {
        self.judge_receiver(endpoint, None, Finding::Failing { failing_since, disabled_from }).await
    }

    async fn judge_receiver(&self, endpoint: &str, at: Option<&str>, finding: Finding) -> Result<(), Fault> {
        let Ok(endpoint) = endpoint.parse::<WebhookEndpointId>() else { return Ok(()) };
        let case = JudgeReceiver { endpoint, at: at.map(str::to_owned), finding };
        // Mostly it is done already.
        if case.is_due(&self.log().load::<WebhookEndpoint>(&case.endpoint).await?.state) {
            self.act_by_itself(&case).await?;
        }
        Ok(())
    }
}

/// What deliveries show of a receiver.
#[derive(Debug, Serialize)]
enum Finding {
    /// It wants no more, or has failed for too long.
    Hopeless { reason: String },
    /// It fails.
    Failing { failing_since: DateTime<Utc>, disabled_from: DateTime<Utc> },
}

impl Finding {
    fn command(&self) -> Command {
        match self {
            Self::Hopeless { reason } => Command::Disable { automatic: true, reason: Some(reason.clone()) },
            Self::Failing { failing_since, disabled_from } => {
                Command::Warn { failing_since: *failing_since, disabled_from: *disabled_from }
            }
        }
    }
}

/// Disables an endpoint, or warns of it, because of its receiver.
#[derive(Debug, Serialize)]
struct JudgeReceiver {
    endpoint: WebhookEndpointId,
    /// The URL of which it is true.
    at: Option<String>,
    finding: Finding,
}

impl JudgeReceiver {
    fn is_due(&self, endpoint: &WebhookEndpoint) -> bool {
        let is_there = self.at.as_ref().is_none_or(|url| *url == endpoint.terms.url);
        is_there && endpoint.decide(self.finding.command()).is_ok()
    }
}

impl UseCase for JudgeReceiver {
    const OPERATION: &'static str = "judgeReceiver";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let before = work.load::<WebhookEndpoint>(&self.endpoint).await?;
        let Some(organization) = before.organization.clone() else { return Ok(()) };
        work.organization = Some(organization.clone());
        let place = work.load::<Organization>(&organization).await?;
        // Nothing happens any more in one that is gone for good.
        if place.state.purged || !self.is_due(&before.state) {
            return Ok(());
        }
        let events = before.state.decide(self.finding.command())?;
        work.record(&self.endpoint, &before, events);
        Ok(())
    }
}
