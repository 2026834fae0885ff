//! API tokens. Those that are created act like members from then on.

use chrono::{TimeDelta, Utc};
use serde_json::json;

use super::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] =
    &[List { name: "apiTokens", prefix: "tok", fields: "id version revokedAt", parts: &["(last: 20)"] }];

pub const PLANS: &[Plan] = &[
    Plan {
        mutation: "createApiToken",
        weight: 5,
        input: "CreateApiTokenInput",
        select: "token { id version } secret",
        make: create,
    },
    Plan {
        mutation: "revokeApiToken",
        weight: 3,
        input: "ApiTokenCommandInput",
        select: "token { id version }",
        make: revoke,
    },
];

fn create(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let permissions: &[&str] = match planner.below(4) {
        0 => &["organization:read"],
        1 => &["organization:read", "project:read", "project:create", "project:update", "project:delete"],
        2 => &["organization:read", "token:read", "token:manage", "project:read", "project:create"],
        _ => &["organization:read", "member:read", "member:invite", "invitation:read", "member:suspend", "member:add"],
    };
    let mut input = json!({"organizationId": planner.id(), "name": "A token of this run", "permissions": permissions});
    if planner.chance(0.3) {
        // Some run out while others work.
        input["expiresAt"] = json!(Utc::now() + TimeDelta::seconds(i64::from(5 + planner.below(120))));
    }
    Some(give(mutation, planner.actor()?, input, None))
}

fn revoke(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let token = planner.thing("apiTokens", 0.9, |token| token.node["revokedAt"].is_null())?;
    Some(give(mutation, planner.actor()?, json!({"tokenId": token.id}), Some(token.version)))
}
