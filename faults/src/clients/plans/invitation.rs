//! Invitations.

use serde_json::json;

use super::super::world::Thing;
use super::{List, Plan, Planned, Planner, give, member};

pub const LISTS: &[List] = &[List {
    name: "invitations",
    prefix: "inv",
    fields: "id version state roles email",
    parts: &["(last: 20)"],
}];

const INVITATION: &str = "invitation { id version }";
const WITH_TOKEN: &str = "invitation { id version } token";
const STRANGERS: u32 = 3;

pub const PLANS: &[Plan] = &[
    Plan { mutation: "inviteMember", weight: 12, input: "InviteMemberInput", select: WITH_TOKEN, make: invite },
    Plan { mutation: "resendInvitation", weight: 2, input: "InvitationCommandInput", select: WITH_TOKEN, make: change },
    Plan { mutation: "revokeInvitation", weight: 4, input: "InvitationCommandInput", select: INVITATION, make: change },
    Plan {
        mutation: "acceptInvitation",
        weight: 12,
        input: "InvitationTokenInput",
        select: "invitation { id version } membership { id version }",
        make: answer,
    },
    Plan { mutation: "declineInvitation", weight: 3, input: "InvitationTokenInput", select: INVITATION, make: answer },
];

/// The address of somebody who never calls.
pub fn stranger(planner: &mut Planner<'_>) -> String {
    format!("stranger-{}@faults.test", planner.below(STRANGERS))
}

fn invite(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let email = if planner.chance(0.1) { stranger(planner) } else { planner.person()?.email };
    let mut input = json!({"organizationId": planner.id(), "email": email, "roles": planner.roles()});
    if planner.chance(0.3) {
        input["expiresInHours"] = json!(1);
    }
    Some(give(mutation, planner.actor()?, input, None))
}

fn open(planner: &mut Planner<'_>) -> Option<Thing> {
    planner.thing("invitations", 0.9, |invitation| invitation.state == "PENDING")
}

fn change(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let invitation = open(planner)?;
    Some(give(mutation, planner.actor()?, json!({"invitationId": invitation.id}), Some(invitation.version)))
}

fn answer(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let invitation = open(planner)?;
    let invited = planner.world.users.iter().find(|user| user.email == invitation.text("email")).cloned();
    let user = match invited {
        Some(user) if planner.chance(0.92) => user,
        _ => planner.person()?,
    };
    let token = planner.world.token(&invitation.id).filter(|_| planner.chance(0.5));
    let input = token.map_or_else(|| json!({"invitationId": invitation.id}), |token| json!({"token": token}));
    Some(give(mutation, user, input, None))
}

/// One invitation is accepted, declined and taken back.
pub fn rush_for_one(planner: &mut Planner<'_>) -> Vec<Option<Planned>> {
    let Some(invitation) = open(planner) else { return vec![] };
    let Some(user) = planner.world.users.iter().find(|user| user.email == invitation.text("email")).cloned() else {
        return vec![];
    };
    let named = json!({"invitationId": invitation.id});
    let accept = give("acceptInvitation", user.clone(), named.clone(), None);
    let decline = give("declineInvitation", user, named.clone(), None);
    let revoke = planner.operator().map(|operator| give("revokeInvitation", operator, named, None));
    vec![Some(accept.clone()), Some(accept), Some(decline), revoke]
}

/// The last seats, and the same address twice.
pub fn rush_for_seats(planner: &mut Planner<'_>) -> Vec<Option<Planned>> {
    let mut planned: Vec<Option<Planned>> = (0..3).map(|_| invite(planner, "inviteMember")).collect();
    planned.push(planned[0].clone());
    planned.push(member::add(planner, "addMember"));
    planned
}
