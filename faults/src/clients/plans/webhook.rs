//! Webhook endpoints. Two of each organization are there from the beginning, and are not deleted: the checker follows what
//! they are sent. Which events an endpoint wants, and in which order, is not changed for the same reason.

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::super::world::Thing;
use super::{List, Plan, Planned, Planner, give};

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
