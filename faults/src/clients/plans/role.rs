//! An organization's own roles.

use rand::seq::IndexedRandom;
use serde_json::json;

use super::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] = &[];

/// How many names there are: one that was removed never comes back.
const NAMES: u32 = 60;

pub const PLANS: &[Plan] = &[
    Plan { mutation: "defineRole", weight: 4, input: "DefineRoleInput", select: "__typename", make: define },
    Plan { mutation: "removeRole", weight: 3, input: "RemoveRoleInput", select: "__typename", make: remove },
];

/// Mostly another one; sometimes one that is there means something else.
fn define(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let own = planner.organization.roles();
    let known = own.choose(planner.random).cloned().filter(|_| planner.chance(0.6));
    let name = known.unwrap_or_else(|| format!("r{}", planner.below(NAMES)));
    let permissions: &[&str] = match planner.below(4) {
        0 => &["organization:read", "project:read"],
        1 => &["organization:read", "project:read", "project:create", "project:delete"],
        2 => &["organization:read", "member:read", "member:invite", "invitation:read"],
        _ => &["organization:read", "member:read", "member:remove", "role:manage"],
    };
    let input = json!({"organizationId": planner.id(), "name": name, "description": "A role of this run",
                       "permissions": permissions});
    Some(give(mutation, planner.actor()?, input, Some(planner.organization.version())))
}

fn remove(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let own = planner.organization.roles();
    let mut input = json!({"organizationId": planner.id(), "name": own.choose(planner.random)?});
    match planner.below(4) {
        0 => {}
        1 => input["replaceWith"] = json!(own.choose(planner.random)?),
        _ => input["replaceWith"] = json!(["member", "guest", "billing"].choose(planner.random)?),
    }
    Some(give(mutation, planner.actor()?, input, Some(planner.organization.version())))
}
