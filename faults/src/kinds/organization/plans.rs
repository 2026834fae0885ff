//! What the clients do with organizations.

use rand::seq::IndexedRandom;
use serde_json::json;

use crate::clients::plans::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] = &[];

const ORGANIZATION: &str = "organization { id version }";
const SLUGS: u32 = 9;

const fn step(mutation: &'static str, weight: u32, make: fn(&mut Planner<'_>, &'static str) -> Option<Planned>) -> Plan {
    Plan { mutation, weight, input: "OrganizationReviewInput", select: ORGANIZATION, make }
}

const fn command(mutation: &'static str, weight: u32) -> Plan {
    Plan { mutation, weight, input: "OrganizationCommandInput", select: ORGANIZATION, make: onwards }
}

pub const PLANS: &[Plan] = &[
    Plan { mutation: "createOrganization", weight: 2, input: "CreateOrganizationInput", select: ORGANIZATION, make: create },
    Plan {
        mutation: "ensureHomeOrganization",
        weight: 1,
        input: "EnsureHomeOrganizationInput",
        select: ORGANIZATION,
        make: ensure_home,
    },
    Plan { mutation: "updateOrganization", weight: 6, input: "UpdateOrganizationInput", select: ORGANIZATION, make: update },
    Plan {
        mutation: "updateOrganizationSettings",
        weight: 4,
        input: "UpdateOrganizationSettingsInput",
        select: ORGANIZATION,
        make: settings,
    },
    // Steps towards an organization in which everything is possible are given where they lead on.
    command("submitOrganizationForVerification", 8),
    command("restoreOrganization", 8),
    step("verifyOrganization", 8, onwards),
    step("reopenOrganization", 6, onwards),
    step("unblockOrganization", 6, onwards),
    step("activateOrganization", 6, onwards),
    // Others lead away from it, or nothing would be possible soon.
    Plan { make: away, ..command("deleteOrganization", 1) },
    step("rejectOrganization", 1, away),
    step("waitlistOrganization", 1, away),
    step("reviewOrganizationAgain", 1, away),
    step("blockOrganization", 1, away),
    step("deactivateOrganization", 1, away),
    Plan { mutation: "setOrganizationLimit", weight: 5, input: "SetOrganizationLimitInput", select: ORGANIZATION, make: limit },
    Plan {
        mutation: "changeOrganizationPlan",
        weight: 2,
        input: "ChangeOrganizationPlanInput",
        select: ORGANIZATION,
        make: change_plan,
    },
    Plan { mutation: "setLegalHold", weight: 1, input: "LegalHoldInput", select: "__typename", make: hold },
    Plan { mutation: "releaseLegalHold", weight: 3, input: "LegalHoldInput", select: "__typename", make: hold },
];

fn create(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let slug = format!("slug-{}", planner.below(SLUGS));
    let user = planner.person()?;
    Some(give(mutation, user, json!({"name": slug, "slug": slug}), None))
}

fn ensure_home(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    Some(give(mutation, planner.person()?, json!({"name": "Home"}), None))
}

fn update(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let mut input = json!({"organizationId": planner.id()});
    let mut user = planner.actor()?;
    match planner.below(10) {
        0..6 => input["slug"] = json!(format!("slug-{}", planner.below(SLUGS))),
        6 => input["name"] = json!(format!("Organization {}", planner.below(50))),
        7 => input["contactEmail"] = json!(format!("c{}@faults.test", planner.below(5))),
        _ => {
            user = planner.operator()?;
            input["externalId"] = json!(format!("crm-{}", planner.below(4)));
        }
    }
    Some(give(mutation, user, input, Some(planner.organization.version())))
}

fn settings(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let (namespace, value) = if planner.chance(0.25) {
        let invitations = if planner.chance(0.5) { "keep" } else { "revoke" };
        let tokens = if planner.chance(0.5) { "keep" } else { "revoke" };
        ("policies".to_owned(), json!({"invitationsOfRemovedMembers": invitations, "tokensOfRemovedMembers": tokens}))
    } else if planner.chance(0.2) {
        (format!("n{}", planner.below(3)), json!({}))
    } else {
        (format!("n{}", planner.below(3)), json!({"n": planner.below(100)}))
    };
    let input = json!({"organizationId": planner.id(), "namespace": namespace, "value": value});
    Some(give(mutation, planner.actor()?, input, Some(planner.organization.version())))
}

/// Gives a step that leads on, and seldom one that does not.
fn onwards(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let organization = &planner.organization;
    let leads = match (mutation, organization.lifecycle(), organization.verification()) {
        ("restoreOrganization", lifecycle, _) => lifecycle == "DELETED",
        ("activateOrganization", lifecycle, _) => lifecycle == "INACTIVE",
        (_, "DELETED", _) => false,
        ("submitOrganizationForVerification", _, verification) => verification == "IN_SETUP",
        ("verifyOrganization", _, verification) => verification == "PENDING",
        ("reopenOrganization", _, verification) => ["REJECTED", "WAITLISTED"].contains(&verification),
        (_, _, verification) => verification == "BLOCKED",
    };
    let by_owner = matches!(mutation, "submitOrganizationForVerification" | "restoreOrganization");
    if !(leads || planner.chance(0.03)) {
        return None;
    }
    let user = if by_owner && planner.chance(0.6) { planner.actor()? } else { planner.operator()? };
    planner.command_organization(mutation, user)
}

fn away(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    if planner.chance(0.6) {
        return None;
    }
    let by_owner = mutation == "deleteOrganization" && planner.chance(0.6);
    let user = if by_owner { planner.actor()? } else { planner.operator()? };
    planner.command_organization(mutation, user)
}

fn limit(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let limit = ["members", "members", "projects", "projects", "tokens", "webhooks"].choose(planner.random)?;
    let value = match planner.below(10) {
        0 => json!({"fromPlan": true}),
        _ => json!({"maximum": 3 + planner.below(4)}),
    };
    let input = json!({"organizationId": planner.id(), "limit": limit, "value": value});
    Some(give(mutation, planner.operator()?, input, Some(planner.organization.version())))
}

fn change_plan(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let plan = if planner.chance(0.5) { "free" } else { "team" };
    let input = json!({"organizationId": planner.id(), "plan": plan});
    Some(give(mutation, planner.operator()?, input, Some(planner.organization.version())))
}

fn hold(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let fits = planner.organization.is_held() == (mutation == "releaseLegalHold");
    if !(fits || planner.chance(0.05)) {
        return None;
    }
    let user = planner.operator()?;
    planner.command_organization(mutation, user)
}

/// Organizations of different partitions want the same slug.
pub fn rush_for_a_slug(planner: &mut Planner<'_>) -> Vec<Option<Planned>> {
    // Some that nobody holds as well, or all would be refused.
    let slug = format!("slug-{}", planner.below(2 * SLUGS));
    let mut planned = vec![];
    for _ in 0..4 {
        let (Some(organization), Some(operator)) = (planner.world.any_organization(planner.random), planner.operator())
        else {
            continue;
        };
        let input = json!({"organizationId": organization.id, "slug": slug});
        planned.push(Some(give("updateOrganization", operator, input, None)));
    }
    let user = planner.person().filter(|_| planner.chance(0.2));
    planned.push(user.map(|user| give("createOrganization", user, json!({"name": slug, "slug": slug}), None)));
    planned
}
