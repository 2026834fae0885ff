//! Webhook endpoints.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{By, Kind, Limit, Rule, Status};
use crate::check::case::Case;
use crate::check::event::Event;
use crate::check::findings::Findings;
use crate::check::fold::Fold;
use crate::check::model::{Model, Place};
use crate::check::tables::{Rows, Table};

/// The limit of endpoints.
const WEBHOOKS: &str = "webhooks";
/// For how long a replaced secret still signs.
const OVERLAP: TimeDelta = TimeDelta::hours(24);

/// What of an endpoint its owner chooses: the columns, by name.
const TERMS: [(&str, &str); 6] = [
    ("url", "url"),
    ("about", "about"),
    ("event_patterns", "patterns"),
    ("ordering", "ordering"),
    ("content", "content"),
    ("rate_per_second", "rate_per_second"),
];

/// A webhook endpoint.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    pub place: Place,
    /// What its owner chose, by column.
    pub terms: Value,
    /// Its secrets, the newest first, with the time until which they sign.
    pub secrets: Vec<(i64, Option<DateTime<Utc>>)>,
    pub enabled: bool,
    pub disabled_reason: Option<String>,
    /// The audit sequence at which it was disabled.
    pub stopped_at: Option<i64>,
    pub warned_of: Option<DateTime<Utc>>,
    pub deleted: bool,
    /// Its organization's audit sequence when it was created.
    pub created: i64,
    pub created_at: Option<DateTime<Utc>>,
    /// Whether events, order or place were others once.
    pub wanted_otherwise: bool,
}

impl Endpoint {
    /// Where to, without the host and what follows a question mark.
    pub fn path(&self) -> &str {
        path(self.terms["url"].as_str().unwrap_or_default())
    }

    pub fn in_order(&self) -> bool {
        self.terms["ordering"] == "PER_SUBJECT"
    }

    /// Whether it is to be sent an event of its organization. Of its own events only a test is.
    pub fn wants(&self, id: &str, event: &Event) -> bool {
        match (event.stream == id, event.name == "WebhookTested") {
            (true, test) => test,
            (false, true) => false,
            (false, false) => {
                let action = event.action();
                let patterns = self.terms["patterns"].as_array().into_iter().flatten().filter_map(Value::as_str);
                patterns.into_iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(beginning) => action.starts_with(beginning),
                    None => pattern == action,
                })
            }
        }
    }
}

fn path(url: &str) -> &str {
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    path.split_once('?').map_or(path, |(path, _)| path)
}

pub static KIND: Kind = Kind {
    name: "WebhookEndpoint",
    prefix: "whk",
    rules: &[RULES],
    fold,
    after: &[],
    limit: Some(Limit { name: WEBHOOKS, default: Some(100) }),
    tables: &[Table {
        name: "webhook_endpoints",
        check: "the read model of webhook endpoints equals a fold of the log",
        statement: "SELECT id, to_jsonb(t) FROM webhooks_1.webhook_endpoints t",
        rows,
    }],
};

/// An endpoint is sent what may be read by those who have it sent.
const READING: By = By::May(&["webhook:read", "webhook:manage", "audit:read"]);
const MANAGE: By = By::May(&["webhook:read", "webhook:manage"]);

const RULES: &[Rule] = &[
    Rule::of("WebhookCreated", Status::Create, &[By::May(&["webhook:manage", "audit:read"])]),
    Rule::of("WebhookChanged", Status::Change, &[READING]),
    Rule::of("WebhookSecretRotated", Status::Change, &[MANAGE]),
    // What the service itself decides, it decides by how receivers answer.
    Rule::of("WebhookDisabled", Status::If(may_be_disabled), &[MANAGE, By::Service]).also(says_by_whom),
    Rule::of("WebhookEnabled", Status::Change, &[READING]),
    Rule::of("WebhookFailing", Status::Any, &[By::Service]),
    Rule::of("WebhookTested", Status::Change, &[MANAGE]),
    Rule::of("WebhookRedelivered", Status::Change, &[READING]),
    Rule::of("WebhookReplayed", Status::Change, &[READING]),
    Rule::of("WebhookDeleted", Status::Remove, &[MANAGE]),
];

fn may_be_disabled(case: &Case<'_>) -> bool {
    Status::Remove.allows(case) || case.is_service()
}

fn says_by_whom(case: &Case<'_>, findings: &mut Findings) {
    if case.event.body["automatic"] != json!(case.is_service()) {
        findings.add("an endpoint says whether the service disabled it", || case.event.place());
    }
}

fn fold(fold: &mut Fold<'_>) {
    let event = fold.event;
    let mut state: Endpoint = fold.take();
    fold.expect(state.place.is_new() == (event.name == "WebhookCreated") && !state.deleted);
    state.place.move_to(event);
    match event.name.as_str() {
        "WebhookCreated" => {
            state.terms = terms(event, "");
            state.secrets = vec![(event.number("secret_number"), None)];
            state.enabled = true;
            state.created = event.audit.unwrap_or_default();
            state.created_at = event.time("created_at");
            fold.count(WEBHOOKS, 1);
        }
        "WebhookChanged" => change(&mut state, fold),
        "WebhookSecretRotated" => rotate(&mut state, fold),
        "WebhookDisabled" => {
            fold.expect(state.enabled);
            state.enabled = false;
            state.disabled_reason = event.optional("reason");
            state.stopped_at = event.audit;
        }
        "WebhookEnabled" => {
            fold.expect(!state.enabled);
            state.enabled = true;
            (state.disabled_reason, state.stopped_at) = (None, None);
        }
        "WebhookFailing" => {
            let since = event.time("failing_since");
            // A warning is there once for each time.
            fold.expect(state.enabled && (state.warned_of.is_none() || state.warned_of < since));
            state.warned_of = since;
        }
        "WebhookTested" | "WebhookRedelivered" => fold.expect(state.enabled),
        "WebhookReplayed" => {
            fold.expect(state.enabled && event.number("replayed_after") < event.number("replayed_until"));
        }
        "WebhookDeleted" => {
            fold.expect(event.body["url"] == state.terms["url"]);
            state.deleted = true;
            fold.count(WEBHOOKS, -1);
        }
        _ => fold.unknown(),
    }
    let shown = match (state.deleted, state.enabled) {
        (true, _) => "DELETED",
        (false, true) => "ENABLED",
        (false, false) => "DISABLED",
    };
    fold.put(state, shown, "");
}

fn terms(event: &Event, prefix: &str) -> Value {
    let columns = TERMS.iter().map(|(field, column)| ((*column).to_owned(), event.body[format!("{prefix}{field}")].clone()));
    Value::Object(columns.collect())
}

fn change(state: &mut Endpoint, fold: &mut Fold<'_>) {
    let event = fold.event;
    let (before, after) = (terms(event, "previous_"), terms(event, ""));
    fold.expect(before == state.terms && before != after);
    let other = |column: &str| before[column] != after[column];
    let elsewhere = path(before["url"].as_str().unwrap_or_default()) != path(after["url"].as_str().unwrap_or_default());
    state.wanted_otherwise |= other("patterns") || other("ordering") || elsewhere;
    state.terms = after;
}

/// The newest secret is new, and the ones before it sign a while beside it; those that had ended by then are forgotten.
fn rotate(state: &mut Endpoint, fold: &mut Fold<'_>) {
    let event = fold.event;
    let number = event.number("secret_number");
    let until = event.time("previous_secret_until");
    let rotated_at = until.map(|until| until - OVERLAP);
    fold.expect(state.secrets.first().is_some_and(|(newest, _)| newest + 1 == number));
    state.secrets.retain(|(_, end)| end.is_none() || *end > rotated_at);
    state.secrets.iter_mut().filter(|(_, end)| end.is_none()).for_each(|(_, end)| *end = until);
    state.secrets.insert(0, (number, None));
}

fn rows(model: &Model) -> Rows {
    let shown = model.all::<Endpoint>().filter(|(_, e)| model.shows(&e.place.organization));
    let row = |e: &Endpoint| {
        let secrets: Vec<Value> = e.secrets.iter().map(|(number, until)| json!({"number": number, "until": until})).collect();
        let mut columns = e.terms.clone();
        columns["secrets"] = json!(secrets);
        columns["state"] = json!(if e.enabled { "ENABLED" } else { "DISABLED" });
        columns["disabled_reason"] = json!(e.disabled_reason);
        columns["stopped_at"] = json!(e.stopped_at);
        columns["deleted"] = json!(e.deleted);
        columns["created_at"] = json!(e.created_at);
        e.place.row(columns)
    };
    shown.map(|(id, e)| (id.clone(), row(e))).collect()
}

/// What the clients do with it.
pub mod plans {
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::clients::world::Thing;
use crate::clients::plans::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] = &[List {
    name: "webhookEndpoints",
    prefix: "whk",
    fields: "id version state url deliveries(last: 3) { nodes { id } }",
    parts: &["(last: 8)"],
}];

const ENDPOINT: &str = "endpoint { id version }";
/// The most endpoints that the clients make an organization have.
const ENDPOINTS_MAX: usize = 5;

const fn act(mutation: &'static str, weight: u32) -> Plan {
    Plan { mutation, weight, input: "WebhookEndpointCommandInput", select: ENDPOINT, make: command }
}

pub const PLANS: &[Plan] = &[
    Plan {
        mutation: "createWebhookEndpoint",
        weight: 2,
        input: "CreateWebhookEndpointInput",
        select: ENDPOINT,
        make: create,
    },
    Plan {
        mutation: "updateWebhookEndpoint",
        weight: 2,
        input: "UpdateWebhookEndpointInput",
        select: ENDPOINT,
        make: update,
    },
    act("disableWebhookEndpoint", 1),
    act("enableWebhookEndpoint", 1),
    act("rotateWebhookSecret", 1),
    Plan { make: delete, ..act("deleteWebhookEndpoint", 1) },
    Plan { select: "__typename", ..act("sendTestWebhook", 2) },
    Plan {
        mutation: "redeliverWebhook",
        weight: 2,
        input: "RedeliverWebhookInput",
        select: "__typename",
        make: redeliver,
    },
    Plan { mutation: "replayWebhooks", weight: 1, input: "ReplayWebhooksInput", select: "__typename", make: replay },
    Plan { mutation: "redriveWebhooks", weight: 1, input: "ReplayWebhooksInput", select: "__typename", make: replay },
];

fn create(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    if planner.organization.things("webhookEndpoints").len() >= ENDPOINTS_MAX && planner.chance(0.9) {
        return None;
    }
    // By the path the checker knows an endpoint.
    let number: u64 = planner.random.random();
    let url = format!("http://127.0.0.1:{}/{}/made-{number}", planner.world.receiver_port(), planner.id());
    let events = [json!(["*"]), json!(["project.*"]), json!(["member.*", "org.verified"])];
    let ordering = if planner.chance(0.5) { "PARALLEL" } else { "PER_SUBJECT" };
    let input = json!({"organizationId": planner.id(), "url": url, "events": events.choose(planner.random)?,
                       "ordering": ordering});
    Some(give(mutation, planner.actor()?, input, None))
}

fn endpoint(planner: &mut Planner<'_>, fits: impl Fn(&Thing) -> bool) -> Option<Thing> {
    planner.thing("webhookEndpoints", 0.9, fits)
}

fn update(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let endpoint = endpoint(planner, |_| true)?;
    let mut input = json!({"endpointId": endpoint.id});
    match planner.below(4) {
        0 => input["description"] = json!(format!("endpoint {}", planner.below(9))),
        1 => input["ratePerSecond"] = if planner.chance(0.5) { Value::Null } else { json!(200 + planner.below(800)) },
        2 => input["content"] = json!(if planner.chance(0.5) { "FULL" } else { "THIN" }),
        _ => {
            let url = endpoint.text("url").split('?').next().unwrap_or_default().to_owned();
            input["url"] = json!(format!("{url}?v={}", planner.below(9)));
        }
    }
    Some(give(mutation, planner.actor()?, input, Some(endpoint.version)))
}

fn command(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let wanted = if mutation == "enableWebhookEndpoint" { "DISABLED" } else { "ENABLED" };
    let endpoint = endpoint(planner, |endpoint| endpoint.state == wanted)?;
    Some(give(mutation, planner.actor()?, json!({"endpointId": endpoint.id}), Some(endpoint.version)))
}

fn delete(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let all = planner.organization.things("webhookEndpoints").into_iter();
    let made: Vec<Thing> = all.filter(|endpoint| endpoint.text("url").contains("/made-")).collect();
    let endpoint = made.choose(planner.random)?;
    Some(give(mutation, planner.actor()?, json!({"endpointId": endpoint.id}), Some(endpoint.version)))
}

fn redeliver(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let endpoint = endpoint(planner, |endpoint| endpoint.state == "ENABLED")?;
    let deliveries = endpoint.node["deliveries"]["nodes"].as_array()?.clone();
    let delivery = deliveries.choose(planner.random)?;
    Some(give(mutation, planner.actor()?, json!({"deliveryId": delivery["id"]}), None))
}

fn replay(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let endpoint = endpoint(planner, |endpoint| endpoint.state == "ENABLED")?;
    let after = planner.world.any_position(&planner.organization.id, planner.random)?;
    Some(give(mutation, planner.actor()?, json!({"endpointId": endpoint.id, "after": after}), None))
}
}
