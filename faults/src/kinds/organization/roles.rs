//! An organization's own roles.

use super::super::membership::Member;
use super::super::{After, By, Rule, Status};
use super::Organization;
use crate::check::case::{Case, OWNER, Permissions, Rights, is_built_in};
use crate::check::findings::Findings;
use crate::check::fold::Fold;

/// A role of an organization's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    pub description: String,
    pub permissions: Permissions,
}

pub const RULES: &[Rule] = &[
    Rule::of("RoleDefined", Status::Add, &[By::MayIf(&["role:manage"], may_define)]),
    Rule::of("RoleChanged", Status::If(may_be_changed), &[By::MayIf(&["role:manage"], may_define)]),
    Rule::of("RoleRemoved", Status::If(may_be_replaced), &[By::MayIf(&["role:manage"], may_remove)]),
];

/// The tally that counts the holders of a role; built-in ones are not counted.
pub fn holders(role: &str) -> Option<String> {
    (!is_built_in(role)).then(|| format!("role/{role}"))
}

fn permissions(case: &Case<'_>, field: &str) -> Permissions {
    case.event.texts(field).into_iter().collect()
}

/// Somebody who makes less of a role takes something, and else gives something.
fn may_be_changed(case: &Case<'_>) -> bool {
    let less = permissions(case, "permissions").is_subset(&permissions(case, "previous_permissions"));
    if less { Status::Remove.allows(case) } else { Status::Add.allows(case) }
}

fn may_be_replaced(case: &Case<'_>) -> bool {
    let instead: Vec<String> = case.event.optional("replaced_with").into_iter().collect();
    let less = case.organization.permissions_of(&instead).is_subset(&permissions(case, "permissions"));
    if less { Status::Remove.allows(case) } else { Status::Add.allows(case) }
}

/// A role permits, before and after, no more than its author may do, and is none that the user behind a token holds.
fn may_define(case: &Case<'_>, rights: &Rights) -> bool {
    let both = ["permissions", "previous_permissions"];
    both.iter().all(|field| permissions(case, field).is_subset(&rights.permissions)) && !is_held_behind(case)
}

fn may_remove(case: &Case<'_>, rights: &Rights) -> bool {
    let instead = case.event.optional("replaced_with");
    let replaces = |with: &String| {
        rights.has(&["member:update", "member:invite"])
            && with != OWNER
            && rights.cover(case.organization, std::slice::from_ref(with))
    };
    may_define(case, rights) && instead.as_ref().is_none_or(replaces)
}

/// A token changes no role that the user who answers for it holds, or held last.
fn is_held_behind(case: &Case<'_>) -> bool {
    let member = case.token().and_then(|token| case.member(token.person()));
    member.is_some_and(|member| member.roles.contains(&case.event.text("role").to_owned()))
}

pub fn fold(state: &mut Organization, fold: &mut Fold<'_>) {
    let event = fold.event;
    let name = event.text("role").to_owned();
    let role = |description: &str, permissions: &str| Role {
        description: event.text(description).to_owned(),
        permissions: event.texts(permissions).into_iter().collect(),
    };
    let before = state.roles.get(&name).cloned();
    match event.name.as_str() {
        "RoleDefined" => {
            // A name never means two things.
            fold.expect(before.is_none() && !is_built_in(&name) && !state.removed_roles.contains(&name));
            state.roles.insert(name, role("description", "permissions"));
        }
        "RoleChanged" => {
            fold.expect(before == Some(role("previous_description", "previous_permissions")));
            state.roles.insert(name, role("description", "permissions"));
        }
        _ => {
            fold.expect(before == Some(role("description", "permissions")));
            state.roles.remove(&name);
            state.removed_roles.insert(name);
        }
    }
}

/// A role that is removed is nobody's any more by the same command.
pub fn are_vacant_when_removed(after: &After<'_>, findings: &mut Findings) {
    for event in after.group.iter().filter(|event| event.name == "RoleRemoved") {
        let name = event.text("role").to_owned();
        let holds = |member: &Member| {
            member.place.organization == after.id && member.state != "REMOVED" && member.roles.contains(&name)
        };
        if let Some((holder, _)) = after.model.all::<Member>().find(|(_, member)| holds(member)) {
            findings.add("a role that is removed has no holder", || format!("{}: {holder}", event.place()));
        }
    }
}

/// What the clients do with it.
pub mod plans {
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::clients::plans::{Plan, Planned, Planner, give};


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
}
