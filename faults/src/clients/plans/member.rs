//! Members.

use rand::seq::IndexedRandom;
use serde_json::json;

use super::super::world::Member;
use super::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] = &[List {
    name: "members",
    prefix: "mem",
    fields: "id version state roles user { id }",
    parts: &["(last: 60)"],
}];

const MEMBERSHIP: &str = "membership { id version }";

const fn change(mutation: &'static str, weight: u32) -> Plan {
    Plan { mutation, weight, input: "MembershipCommandInput", select: MEMBERSHIP, make: change_member }
}

pub const PLANS: &[Plan] = &[
    Plan { mutation: "addMember", weight: 4, input: "AddMemberInput", select: MEMBERSHIP, make: add },
    Plan {
        mutation: "changeMemberRoles",
        weight: 9,
        input: "ChangeMemberRolesInput",
        select: MEMBERSHIP,
        make: change_member,
    },
    change("suspendMember", 4),
    change("reinstateMember", 4),
    change("removeMember", 4),
    Plan { mutation: "leaveOrganization", weight: 3, input: "OrganizationCommandInput", select: MEMBERSHIP, make: leave },
];

pub fn add(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let whom = planner.person()?.id();
    let input = json!({"organizationId": planner.id(), "userId": whom, "roles": planner.roles()});
    Some(give(mutation, planner.actor()?, input, None))
}

fn change_member(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let wanted = if mutation == "reinstateMember" { "SUSPENDED" } else { "ACTIVE" };
    let usual = planner.chance(0.85);
    // Owners who take the ownership from each other are what the floor is for.
    let owners = mutation == "changeMemberRoles" && planner.chance(0.4);
    let fits = |member: &Member| (!usual || member.state == wanted) && (!owners || member.owner);
    let fitting: Vec<Member> = planner.organization.members().into_iter().filter(fits).collect();
    let member = fitting.choose(planner.random)?.clone();
    let mut input = json!({"membershipId": member.id});
    if mutation == "changeMemberRoles" {
        input["roles"] = if owners { json!(["member"]) } else { planner.roles() };
    }
    Some(give(mutation, planner.actor()?, input, Some(member.version)))
}

fn leave(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let id = planner.organization.members().choose(planner.random)?.user.clone();
    let user = planner.world.user(&id)?.clone();
    planner.command_organization(mutation, user).map(|planned| Planned { version: None, ..planned })
}

/// Owners take the ownership from each other, or go.
pub fn rush_of_owners(planner: &mut Planner<'_>) -> Vec<Option<Planned>> {
    let owners: Vec<Member> = planner.organization.members().into_iter().filter(Member::is_owner).collect();
    let others = owners.iter().cycle().skip(1);
    let each = owners.iter().zip(others).map(|(owner, other)| {
        let user = planner.world.user(&owner.user)?.clone();
        Some(match planner.below(4) {
            0 => give("leaveOrganization", user, json!({"organizationId": planner.id()}), None),
            1 => give("suspendMember", user, json!({"membershipId": other.id}), None),
            2 => give("removeMember", user, json!({"membershipId": other.id}), None),
            _ => give("changeMemberRoles", user, json!({"membershipId": other.id, "roles": ["member"]}), None),
        })
    });
    each.collect()
}
