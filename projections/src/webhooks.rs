//! Webhook endpoints, and what is to be sent to them.
//!
//! An endpoint wants events as it was when they happened; both stand in one partition, in order. So one walk over the
//! events does both: it changes the endpoints, and writes a delivery for each event and each endpoint that wants it at
//! that place. Deliveries are no read model: whoever sends them changes them, and they are forgotten when they are done.
//! So they are written once, by whom the [`Outbox`] says, and by no copy of the tables.
//!
//! A later version of this projection has to begin where this one stands, with copies of its checkpoints and tables:
//! from the beginning of the log it would send everything again.

use std::collections::{BTreeSet, HashMap, HashSet};

use aggregates::ids::{OrganizationId, WebhookDeliveryId, WebhookEndpointId};
use aggregates::webhook::{
    Secret, WebhookContent, WebhookEndpointEvent, WebhookEndpointState, WebhookOrdering, rotated, wants,
};
use aggregates::{Aggregate, Event, Recorded};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::column;
use crate::fold::Outbox;
use crate::read_model::{self, Document, Named, ReadModel, list, read_model};

/// The first half of the advisory lock of an endpoint that wants events in order; the second is the hash of its id.
///
/// A transaction that writes or finishes one of its deliveries holds it, so that one of the two sees the other: the one
/// behind becomes due when the one before it is done.
const ENDPOINT_LOCKS: i32 = 0x7eb0;

/// Takes the locks of endpoints that want events in order, for the transaction.
pub async fn lock_endpoints(connection: &mut PgConnection, endpoints: &BTreeSet<&str>) -> Result<(), sqlx::Error> {
    if endpoints.is_empty() {
        return Ok(());
    }
    let endpoints: Vec<&str> = endpoints.iter().copied().collect();
    sqlx::query(
        "SELECT pg_advisory_xact_lock($1, hash) FROM (
             SELECT DISTINCT hashtext(id) AS hash FROM unnest($2::text[]) AS e(id) ORDER BY 1 OFFSET 0
         ) locks",
    )
    .bind(ENDPOINT_LOCKS)
    .bind(endpoints)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes those of these locks that nobody else has, for the transaction; whose they are.
pub async fn try_lock_endpoints(
    connection: &mut PgConnection,
    endpoints: &BTreeSet<&str>,
) -> Result<HashSet<String>, sqlx::Error> {
    let endpoints: Vec<&str> = endpoints.iter().copied().collect();
    let locked = sqlx::query_scalar(
        "SELECT id FROM unnest($2::text[]) AS e(id) WHERE pg_try_advisory_xact_lock($1, hashtext(id))",
    )
    .bind(ENDPOINT_LOCKS)
    .bind(endpoints)
    .fetch_all(connection)
    .await?;
    Ok(locked.into_iter().collect())
}

read_model! {
    webhook_endpoints of WebhookEndpoint in organization_id {
        url: String,
        about: Option<String>,
        patterns: Vec<String>,
        ordering: Named<WebhookOrdering>,
        content: Named<WebhookContent>,
        rate_per_second: Option<u64>,
        secrets: Document<Vec<Secret>>,
        state: Named<WebhookEndpointState>,
        disabled_reason: Option<String>,
        stopped_at: Option<i64>,
        deleted: bool,
    }
    personal []
}

/// Whether lists are read from it.
pub const IS_SHOWN: bool = true;
/// Deliveries are kept nowhere else.
pub const HAS_OUTBOX: bool = true;

/// Whether events of streams of this kind change its tables: any event of an organization may be wanted.
pub fn reads(aggregate_type: &str) -> bool {
    aggregate_type != aggregates::User::TYPE
}

/// Endpoints that were deleted stay deleted.
pub fn purged_from() -> Option<&'static str> {
    read_model::purged_from::<Row>()
}

/// A delivery that is to be written.
struct Delivery<'a> {
    id: WebhookDeliveryId,
    endpoint: String,
    event: &'a Recorded,
    in_order: bool,
}

/// A part of an audit trail that is to be sent to an endpoint: because it passed while it was disabled, or again.
struct Backfill<'a> {
    endpoint: &'a str,
    organization: &'a str,
    kind: &'static str,
    patterns: Option<String>,
    after: i64,
    /// `None`: where the trail ends now.
    until: Option<i64>,
}

impl<'a> Backfill<'a> {
    /// Everything since this event of an endpoint.
    fn since(recorded: &'a Recorded) -> Option<Self> {
        let organization = recorded.organization.as_ref()?.as_ref();
        let (endpoint, after) = (recorded.stream.id(), sequence(recorded));
        Some(Self { endpoint, organization, kind: "MISSED", patterns: None, after, until: None })
    }
}

pub async fn apply(
    connection: &mut PgConnection,
    events: &[&Recorded],
    outbox: &Outbox<'_>,
) -> Result<(), sqlx::Error> {
    let mut rows = load(connection, events, outbox).await?;
    let mut changed: HashSet<String> = HashSet::new();
    let mut deliveries: Vec<Delivery<'_>> = vec![];
    let mut backfills: Vec<Backfill<'_>> = vec![];
    let mut again: Vec<String> = vec![];
    let mut strangers: Vec<&str> = vec![];
    let mut held_back: HashSet<&str> = HashSet::new();
    for recorded in events {
        let Some(organization) = &recorded.organization else { continue };
        let own = rows.entry(organization.to_string()).or_default();
        if let Event::WebhookEndpoint(event) = &recorded.event {
            let row = own.entry(recorded.stream.id().to_owned()).or_default();
            if outbox.takes(recorded) {
                backfills.extend(row.backfill(recorded, event));
                // While its stream was held back, nothing was written for it of all the others.
                if outbox.is_retry() && held_back.insert(recorded.stream.id()) {
                    backfills.extend(Backfill::since(recorded));
                }
                if row.is_stranger_after(event) {
                    strangers.push(recorded.stream.id());
                }
                if let WebhookEndpointEvent::WebhookRedelivered { redelivered_event_id: id, .. } = event {
                    again.extend(recorded.stream.id().parse().ok().map(|e| WebhookDeliveryId::of(&e, id).to_string()));
                }
            }
            if row.offset < recorded.offset {
                row.follow(recorded);
                row.apply(recorded, event);
                changed.insert(row.id.clone());
            }
        }
        if !outbox.takes(recorded) {
            continue;
        }
        for row in own.values().filter(|row| row.is_sent(recorded)) {
            let Some(id) = delivery_id(&row.id, recorded) else { continue };
            let in_order = row.ordering.0 == WebhookOrdering::PerSubject;
            deliveries.push(Delivery { id, endpoint: row.id.clone(), event: recorded, in_order });
        }
    }
    // What still happens in a purged organization has no row to show it.
    let own = |row: &Row| !row.id.is_empty() && changed.contains(&row.id);
    read_model::save(connection, &rows.into_values().flat_map(HashMap::into_values).filter(own).collect::<Vec<_>>())
        .await?;
    forget(connection, &read_model::purged(events.iter().copied())).await?;
    // Before anything else of what is sent, as whoever finishes it does.
    let in_order = deliveries.iter().filter(|delivery| delivery.in_order);
    lock_endpoints(connection, &in_order.map(|delivery| delivery.endpoint.as_str()).collect()).await?;
    forget_receivers(connection, &strangers).await?;
    begin(connection, &backfills).await?;
    write(connection, &deliveries).await?;
    send_again(connection, &again).await?;
    if !(deliveries.is_empty() && backfills.is_empty() && again.is_empty()) {
        outbox.note();
    }
    Ok(())
}

fn delivery_id(endpoint: &str, recorded: &Recorded) -> Option<WebhookDeliveryId> {
    Some(WebhookDeliveryId::of(&endpoint.parse::<WebhookEndpointId>().ok()?, &recorded.id))
}

/// Removes what is shown of these organizations.
pub async fn forget(connection: &mut PgConnection, organizations: &[&str]) -> Result<(), sqlx::Error> {
    read_model::forget::<Row>(connection, organizations).await
}

/// The endpoints that these events are about; and all of their organizations, where something is to be sent.
async fn load(
    connection: &mut PgConnection,
    events: &[&Recorded],
    outbox: &Outbox<'_>,
) -> Result<HashMap<String, HashMap<String, Row>>, sqlx::Error> {
    let organizations: BTreeSet<&str> = match outbox.is_closed() {
        true => BTreeSet::new(),
        false => events.iter().filter_map(|event| event.organization.as_ref().map(OrganizationId::as_ref)).collect(),
    };
    let own = events.iter().copied().filter(|recorded| matches!(recorded.event, Event::WebhookEndpoint(_)));
    let ids = read_model::begun_before(own);
    if organizations.is_empty() && ids.is_empty() {
        return Ok(HashMap::new());
    }
    let organizations: Vec<&str> = organizations.into_iter().collect();
    let found = sqlx::query_scalar!(
        r#"SELECT to_json(t) AS "row!: Json<Row>" FROM unnest($1::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM webhook_endpoints WHERE id = w.id) t
           UNION ALL
           SELECT to_json(t) FROM unnest($2::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM webhook_endpoints WHERE organization_id = w.id AND NOT deleted) t"#,
        &ids as &[&str],
        &organizations as &[&str]
    )
    .fetch_all(connection)
    .await?;
    let mut rows: HashMap<String, HashMap<String, Row>> = HashMap::new();
    for Json(row) in found {
        rows.entry(row.organization_id.clone()).or_default().insert(row.id.clone(), row);
    }
    Ok(rows)
}

/// Writes deliveries, under the locks of endpoints that want them in order.
async fn write(connection: &mut PgConnection, deliveries: &[Delivery<'_>]) -> Result<(), sqlx::Error> {
    if deliveries.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"INSERT INTO webhook_deliveries
               (id, endpoint_id, organization_id, event_id, event_type, audit_sequence, subject_id, created_at, due_at)
           SELECT r.*, CASE WHEN r.subject_id IS NULL THEN clock_timestamp() ELSE 'infinity' END
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                       $8::timestamptz[])
                AS r(id, endpoint_id, organization_id, event_id, event_type, audit_sequence, subject_id, created_at)
           ON CONFLICT (id) DO NOTHING"#,
        column!(deliveries, |d| d.id.to_string()),
        column!(deliveries, |d| d.endpoint.as_str()) as &[&str],
        column!(deliveries, |d| d.event.organization.as_ref().map_or("", AsRef::as_ref)) as &[&str],
        column!(deliveries, |d| d.event.id.as_ref()) as &[&str],
        column!(deliveries, |d| d.event.event.descriptor().name) as &[&str],
        column!(deliveries, |d| sequence(d.event)),
        column!(deliveries, |d| d.in_order.then(|| d.event.stream.id())) as &[Option<&str>],
        column!(deliveries, |d| d.event.recorded_at)
    )
    .execute(&mut *connection)
    .await?;
    let in_order = deliveries.iter().filter(|delivery| delivery.in_order);
    let subjects = in_order.map(|delivery| (delivery.endpoint.as_str(), delivery.event.stream.id()));
    make_due(connection, &subjects.collect()).await
}

/// Of each of these endpoints and subjects, makes due what is first of what is open, if it waits; but nothing that lies
/// behind what an endpoint missed and has not been written yet. Under the endpoints' locks.
pub async fn make_due(connection: &mut PgConnection, subjects: &BTreeSet<(&str, &str)>) -> Result<(), sqlx::Error> {
    if subjects.is_empty() {
        return Ok(());
    }
    let (endpoints, subjects): (Vec<&str>, Vec<&str>) = subjects.iter().copied().unzip();
    sqlx::query_file!("src/make_due.sql", &endpoints as &[&str], &subjects as &[&str]).execute(connection).await?;
    Ok(())
}

/// Forgets how the receivers of these endpoints behaved.
async fn forget_receivers(connection: &mut PgConnection, endpoints: &[&str]) -> Result<(), sqlx::Error> {
    if endpoints.is_empty() {
        return Ok(());
    }
    sqlx::query!("DELETE FROM webhook_receivers WHERE endpoint_id = ANY($1)", endpoints as &[&str])
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts on record what is to be sent besides what happens.
async fn begin(connection: &mut PgConnection, backfills: &[Backfill<'_>]) -> Result<(), sqlx::Error> {
    if backfills.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/begin_backfills.sql",
        column!(backfills, |b| b.endpoint) as &[&str],
        column!(backfills, |b| b.organization) as &[&str],
        column!(backfills, |b| b.kind) as &[&str],
        column!(backfills, |b| b.patterns.as_deref()) as &[Option<&str>],
        column!(backfills, |b| b.after),
        column!(backfills, |b| b.until) as &[Option<i64>]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes these deliveries due, as if they had not been tried yet; whoever is at one has nothing to say of it any more. One
/// that waits for another of its subject waits on.
async fn send_again(connection: &mut PgConnection, deliveries: &[String]) -> Result<(), sqlx::Error> {
    if deliveries.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE webhook_deliveries
         SET state = 'PENDING', due_at = clock_timestamp(), tries = 0, finished_at = NULL, leased_until = NULL
         WHERE id = ANY($1) AND due_at IS DISTINCT FROM 'infinity'",
        deliveries
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn sequence(recorded: &Recorded) -> i64 {
    recorded.audit_sequence.unwrap_or_default().cast_signed()
}

impl Row {
    /// Whether the event is sent to the endpoint. Of its own events only a test is, and that only to itself.
    fn is_sent(&self, recorded: &Recorded) -> bool {
        let own = recorded.stream.id() == self.id;
        let test = matches!(recorded.event, Event::WebhookEndpoint(WebhookEndpointEvent::WebhookTested { .. }));
        let wanted = match (own, test) {
            (true, _) => test,
            (false, true) => false,
            (false, false) => wants(&self.patterns, &recorded.event.descriptor().action()),
        };
        wanted && !self.deleted && self.state.0 == WebhookEndpointState::Enabled
    }

    /// Whether nothing is known of its receiver after this event: another one, or the same after a rest.
    fn is_stranger_after(&self, event: &WebhookEndpointEvent) -> bool {
        use WebhookEndpointEvent as E;
        match event {
            E::WebhookEnabled { .. } => true,
            E::WebhookChanged { url, .. } => *url != self.url,
            E::WebhookCreated { .. }
            | E::WebhookSecretRotated { .. }
            | E::WebhookDisabled { .. }
            | E::WebhookFailing { .. }
            | E::WebhookTested { .. }
            | E::WebhookReplayed { .. }
            | E::WebhookRedelivered { .. }
            | E::WebhookDeleted { .. } => false,
        }
    }

    /// What is to be sent besides what happens, by an event of the endpoint, whose state this was before.
    fn backfill<'a>(&self, recorded: &'a Recorded, event: &WebhookEndpointEvent) -> Option<Backfill<'a>> {
        use WebhookEndpointEvent as E;
        let (kind, patterns, after, until) = match event {
            E::WebhookEnabled { .. } => ("MISSED", None, self.stopped_at?, Some(sequence(recorded))),
            E::WebhookReplayed { replayed_after, replayed_until, event_patterns, failed_only, .. } => {
                let kind = if *failed_only { "FAILED" } else { "AGAIN" };
                let until = Some(replayed_until.cast_signed());
                (kind, Some(list(event_patterns)), replayed_after.cast_signed(), until)
            }
            E::WebhookCreated { .. }
            | E::WebhookChanged { .. }
            | E::WebhookSecretRotated { .. }
            | E::WebhookDisabled { .. }
            | E::WebhookFailing { .. }
            | E::WebhookTested { .. }
            | E::WebhookRedelivered { .. }
            | E::WebhookDeleted { .. } => return None,
        };
        let organization = recorded.organization.as_ref()?.as_ref();
        Some(Backfill { endpoint: recorded.stream.id(), organization, kind, patterns, after, until })
    }

    fn apply(&mut self, recorded: &Recorded, event: &WebhookEndpointEvent) {
        use WebhookEndpointEvent as E;
        match event {
            E::WebhookCreated {
                url,
                about,
                event_patterns,
                ordering,
                content,
                rate_per_second,
                secret_number,
                created_at,
                reason: _,
            } => {
                self.begin(recorded, *created_at);
                self.url = url.clone();
                self.about = about.clone();
                self.patterns = event_patterns.clone();
                self.ordering = Named(*ordering);
                self.content = Named(*content);
                self.rate_per_second = *rate_per_second;
                self.secrets = Document(vec![Secret { number: *secret_number, until: None }]);
            }
            E::WebhookChanged { url, about, event_patterns, ordering, content, rate_per_second, .. } => {
                self.url = url.clone();
                self.about = about.clone();
                self.patterns = event_patterns.clone();
                self.ordering = Named(*ordering);
                self.content = Named(*content);
                self.rate_per_second = *rate_per_second;
            }
            E::WebhookSecretRotated { secret_number, previous_secret_until, reason: _ } => {
                self.secrets.0 = rotated(std::mem::take(&mut self.secrets.0), *secret_number, *previous_secret_until);
            }
            E::WebhookDisabled { automatic: _, reason } => {
                self.state = Named(WebhookEndpointState::Disabled);
                self.disabled_reason = reason.clone();
                self.stopped_at = Some(sequence(recorded));
            }
            E::WebhookEnabled { reason: _ } => {
                self.state = Named(WebhookEndpointState::Enabled);
                self.disabled_reason = None;
                self.stopped_at = None;
            }
            E::WebhookDeleted { .. } => self.deleted = true,
            E::WebhookFailing { .. }
            | E::WebhookTested { .. }
            | E::WebhookRedelivered { .. }
            | E::WebhookReplayed { .. } => {}
        }
    }
}
