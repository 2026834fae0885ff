//! Invitations: exactly one ending wins.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::membership::{MEMBERS, Member, is_changed};
use super::organization::is_not_held;
use super::{After, By, Kind, Rule, Status};
use crate::check::case::{Case, Rights};
use crate::check::findings::Findings;
use crate::check::fold::Fold;
use crate::check::model::{Model, Place};
use crate::check::tables::{Rows, Table};

/// An invitation.
#[derive(Debug, Clone, Default)]
pub struct Invitation {
    pub place: Place,
    pub address: String,
    pub roles: Vec<String>,
    pub state: String,
    pub invited_by: String,
    /// The offset at which it was made.
    pub made: i64,
    pub accepted_by: Option<String>,
    pub erased: bool,
    pub expires_at: Option<DateTime<Utc>>,
    pub created_at: Option<DateTime<Utc>>,
}

pub static KIND: Kind = Kind {
    name: "Invitation",
    prefix: "inv",
    rules: &[RULES],
    fold,
    after: &[accepted_whole],
    // They count as members.
    limit: None,
    tables: &[Table {
        name: "invitations",
        check: "the read model of invitations equals a fold of the log",
        statement: "SELECT id, to_jsonb(t) - 'email' FROM invitations_1.invitations t",
        rows,
    }],
};

const RULES: &[Rule] = &[
    Rule::of("MemberInvited", Status::Add, &[By::MayIf(&["member:invite"], may_invite)]).also(says_by_whom),
    Rule::of("InvitationResent", Status::Add, &[By::MayIf(&["invitation:read", "member:invite"], may_send_again)]),
    Rule::of("InvitationRolesChanged", Status::Any, &[By::If(|case| case.beside(&["RoleRemoved"]))]),
    Rule::of("InvitationAccepted", Status::Add, &[By::Oneself]).also(still_given),
    Rule::of("InvitationDeclined", Status::Any, &[By::Oneself]).after_purge(),
    Rule::of(
        "InvitationRevoked",
        Status::If(may_be_revoked),
        &[By::May(&["invitation:read", "member:invite"]), By::If(is_changed), By::If(is_erased)],
    )
    .after_purge(),
    Rule::of("InvitationExpired", Status::Any, &[By::Service, By::If(is_erased)])
        .due(|case| case.before::<Invitation>().and_then(|invitation| invitation.expires_at))
        .after_purge(),
    Rule::of("InviteeErased", Status::Any, &[By::Operator, By::Service]).also(is_erased_unless_held).after_purge(),
];

/// The invitation ends because its invitee was erased.
fn is_erased(case: &Case<'_>) -> bool {
    case.beside(&["InviteeErased"])
}

/// By an erasure, and where the membership ends by one, also in a deleted organization.
fn may_be_revoked(case: &Case<'_>) -> bool {
    is_erased(case) || is_changed(case) || Status::Remove.allows(case)
}

/// After a restored backup the service erases again, in spite of a hold.
fn is_erased_unless_held(case: &Case<'_>, findings: &mut Findings) {
    if !case.is_service() {
        is_not_held(case, findings);
    }
}

/// A token whose user is out makes no invitation that nobody could accept.
fn may_invite(case: &Case<'_>, rights: &Rights) -> bool {
    rights.cover(case.organization, &case.event.texts("roles")) && case.rights_of_giver(&case.event.actor).is_some()
}

fn says_by_whom(case: &Case<'_>, findings: &mut Findings) {
    if case.event.text("invited_by") != case.event.actor {
        findings.add("an invitation says by whom it is", || case.event.place());
    }
}

/// Both the sender and the first inviter could make it now.
fn may_send_again(case: &Case<'_>, rights: &Rights) -> bool {
    let Some(invitation) = case.before::<Invitation>() else { return true };
    rights.cover(case.organization, &invitation.roles) && could_be_given(case, invitation)
}

fn could_be_given(case: &Case<'_>, invitation: &Invitation) -> bool {
    let giver = case.rights_of_giver(&invitation.invited_by);
    giver.is_some_and(|rights| rights.has(&["member:invite"]) && rights.cover(case.organization, &invitation.roles))
}

/// What is taken could still be given at that moment, by somebody else, and is newer than the end of the last membership.
fn still_given(case: &Case<'_>, findings: &mut Findings) {
    let (event, user) = (case.event, case.event.text("user_id"));
    let Some(invitation) = case.before::<Invitation>() else { return };
    let roles_are_there = invitation.roles.iter().all(|role| case.organization.has_role(role));
    if !roles_are_there || !could_be_given(case, invitation) {
        let found = || format!("{}: {} gives it no more", event.place(), invitation.invited_by);
        findings.add("what is taken could still be given", found);
    }
    let token = invitation.invited_by.strip_prefix("token:").and_then(|id| case.model.get::<super::token::Token>(id));
    if token.is_some_and(|token| token.person() == user) {
        findings.add("nobody lets themselves in by a token", || event.place());
    }
    let member = case.member(user);
    if member.and_then(|member| member.ended).is_some_and(|ended| ended > invitation.made) {
        findings.add("no invitation outlives the end of a membership", || event.place());
    }
    let lifts = || case.rights_of_giver(&invitation.invited_by).is_some_and(|rights| rights.has(&["member:suspend"]));
    if member.is_some_and(|member| member.state == "SUSPENDED" || (member.barred && !lifts())) {
        findings.add("a suspension outlives the membership", || event.place());
    }
}

/// Somebody who accepts is in, by the same command; and nobody is in by an invitation that was not accepted.
fn accepted_whole(after: &After<'_>, findings: &mut Findings) {
    let joined = |invitation: &str| {
        after.group.iter().any(|event| event.name == "MemberJoined" && event.text("invitation_id") == invitation)
    };
    for event in after.group {
        if event.name == "InvitationAccepted" {
            let member = after.model.get::<Member>(event.text("membership_id"));
            let wanted = after.model.get::<Invitation>(&event.stream).map(|invitation| invitation.roles.clone());
            let roles = wanted.unwrap_or_default();
            let is_in = member.is_some_and(|m| m.is_active() && roles.iter().all(|role| m.roles.contains(role)));
            if !is_in || joined(&event.stream) == (event.body["seat_freed"] == Value::Bool(true)) {
                findings.add("who accepts is in, by the same command", || event.place());
            }
        }
        let invitation = event.text("invitation_id");
        if event.name == "MemberJoined" && !invitation.is_empty() {
            let accepted = after.group.iter().any(|e| e.name == "InvitationAccepted" && e.stream == invitation);
            if !accepted {
                findings.add("nobody is in by an invitation that was not accepted", || event.place());
            }
        }
    }
}

const UNIQUE: &str = "an address has one open invitation";

fn fold(fold: &mut Fold<'_>) {
    let event = fold.event;
    let mut state: Invitation = fold.take();
    let address = event.text("email_claim").to_owned();
    let fits = match event.name.as_str() {
        "MemberInvited" => state.place.is_new(),
        "InviteeErased" => !state.erased && state.address == address,
        "InvitationRolesChanged" => state.state == "PENDING" && event.texts("previous_roles") == state.roles,
        _ => state.state == "PENDING" && state.address == address,
    };
    fold.expect(fits);
    state.place.move_to(event);
    match event.name.as_str() {
        "MemberInvited" => {
            state.address.clone_from(&address);
            state.roles = event.texts("roles");
            state.invited_by = event.text("invited_by").to_owned();
            state.made = event.offset;
            (state.expires_at, state.created_at) = (event.time("expires_at"), event.time("created_at"));
            state.state = "PENDING".to_owned();
            fold.claim("open_invitation", &address, UNIQUE);
            fold.count(MEMBERS, 1);
        }
        "InvitationResent" => {
            fold.expect(event.time("previous_expires_at") == state.expires_at);
            state.expires_at = event.time("expires_at");
            fold.claim("open_invitation", &address, UNIQUE);
        }
        "InvitationRolesChanged" => state.roles = event.texts("roles"),
        "InviteeErased" => {
            state.erased = true;
            fold.model.keys_destroyed.insert(event.stream.clone());
        }
        "InvitationAccepted" => settle(&mut state, fold, "ACCEPTED"),
        "InvitationDeclined" => settle(&mut state, fold, "DECLINED"),
        "InvitationRevoked" => settle(&mut state, fold, "REVOKED"),
        "InvitationExpired" => settle(&mut state, fold, "EXPIRED"),
        _ => fold.unknown(),
    }
    let (shown, more) = (state.state.clone(), state.roles.join(","));
    fold.put(state, &shown, &more);
}

fn settle(state: &mut Invitation, fold: &mut Fold<'_>, to: &str) {
    let event = fold.event;
    if state.state != "PENDING" {
        fold.findings.add("an invitation ends once", || format!("{}: it was {}", event.place(), state.state));
    }
    state.state = to.to_owned();
    state.accepted_by = (to == "ACCEPTED").then(|| event.text("user_id").to_owned());
    fold.release("open_invitation", event.text("email_claim"));
    // The seat of an accepted one goes over, unless the person was in already.
    if to != "ACCEPTED" || event.body["seat_freed"] != Value::Bool(false) {
        fold.count(MEMBERS, -1);
    }
}

fn rows(model: &Model) -> Rows {
    let shown = model.all::<Invitation>().filter(|(_, i)| model.shows(&i.place.organization));
    let row = |i: &Invitation| {
        i.place.row(json!({
            "email_claim": i.address, "roles": i.roles, "state": i.state, "invited_by": i.invited_by,
            "accepted_by": i.accepted_by, "expires_at": i.expires_at, "created_at": i.created_at,
        }))
    };
    shown.map(|(id, i)| (id.clone(), row(i))).collect()
}

/// What the clients do with it.
pub mod plans {
use serde_json::json;

use crate::clients::world::Thing;
use crate::clients::plans::{List, Plan, Planned, Planner, give};

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
    planned.push(crate::kinds::membership::plans::add(planner, "addMember"));
    planned
}
}
