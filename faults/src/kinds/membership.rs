//! Memberships.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::organization::OWNERS;
use super::{By, Kind, Limit, Rule, Status};
use crate::check::case::{Case, Rights, is_owner};
use crate::check::findings::Findings;
use crate::check::fold::Fold;
use crate::kinds::organization::holders;
use crate::check::model::{Model, Place};
use crate::check::tables::{Rows, Table};

/// The limit of active members and open invitations.
pub const MEMBERS: &str = "members";

/// A membership.
#[derive(Debug, Clone, Default)]
pub struct Member {
    pub place: Place,
    pub user: String,
    pub roles: Vec<String>,
    pub state: String,
    pub source: String,
    pub joined_at: Option<DateTime<Utc>>,
    pub created_at: Option<DateTime<Utc>>,
    /// The offset at which it ended last.
    pub ended: Option<i64>,
    /// Suspended when it ended.
    pub barred: bool,
    /// Its user joins no other organization.
    pub bound: bool,
}

impl Member {
    /// Whether in.
    pub fn is_active(&self) -> bool {
        self.state == "ACTIVE"
    }
}

pub static KIND: Kind = Kind {
    name: "Membership",
    prefix: "mem",
    rules: &[RULES],
    fold,
    after: &[],
    limit: Some(Limit { name: MEMBERS, default: None }),
    tables: &[Table {
        name: "members",
        check: "the read model of members equals a fold of the log",
        statement: "SELECT id, to_jsonb(t) FROM members_1.members t",
        rows,
    }],
};

const RULES: &[Rule] = &[
    Rule::of("MemberJoined", Status::Add, &[By::MayIf(&["member:add"], may_add), By::If(joins_by_themselves)]),
    Rule::of("MemberBound", Status::Add, &[By::If(|case| case.beside(&["MemberJoined"]))]),
    Rule::of(
        "MemberRolesChanged",
        Status::If(may_change),
        &[
            By::MayIf(&["member:read", "member:update"], may_change_roles),
            By::If(|case| case.beside(&["OwnershipAccepted", "InvitationAccepted"])),
            By::MayIf(&["role:manage", "member:update"], may_replace_role),
        ],
    )
    .also(changes_own_roles),
    Rule::of("MemberSuspended", Status::Remove, &[By::MayIf(&["member:read", "member:suspend"], may_take)]),
    Rule::of("MemberReinstated", Status::Add, &[By::MayIf(&["member:read", "member:suspend"], may_give_again)]),
    Rule::of(
        "MemberRemoved",
        Status::If(may_be_removed),
        &[By::MayIf(&["member:read", "member:remove"], may_take), By::If(ends_by_itself)],
    )
    .after_purge(),
    Rule::of("MemberLeft", Status::Remove, &[By::Oneself]),
];

/// Whether the command changes a membership: what ends with that is judged there. The actor may have lost their own roles
/// by it.
pub fn is_changed(case: &Case<'_>) -> bool {
    case.beside(&["MemberRemoved", "MemberLeft", "MemberSuspended", "MemberRolesChanged", "MemberJoined"])
}

fn may_add(case: &Case<'_>, rights: &Rights) -> bool {
    let user = case.event.text("user_id");
    // A suspension outlives the membership.
    let barred = case.member(user).is_some_and(|member| member.barred);
    rights.cover(case.organization, &case.event.texts("roles"))
        && (!barred || rights.has(&["member:suspend"]))
        && !case.is_behind_token(user)
}

/// By an invitation, which is judged itself; or for the first time, where the deployment lets its users in.
fn joins_by_themselves(case: &Case<'_>) -> bool {
    let first = case.member(case.event.text("user_id")).is_none();
    By::Oneself.holds(case) && (case.beside(&["InvitationAccepted"]) || (first && case.event.text("source") == "DIRECT"))
}

/// More is given, or less: each has a capability of its own. A handed over ownership and an accepted invitation give more.
fn may_change(case: &Case<'_>) -> bool {
    let of = |field: &str| case.organization.permissions_of(&case.event.texts(field));
    if case.beside(&["RoleRemoved"]) {
        // By the removal, which is judged itself.
        return true;
    }
    let gives = case.beside(&["InvitationAccepted", "OwnershipAccepted"]);
    let less = of("roles").is_subset(&of("previous_roles")) && !gives;
    if less { Status::Remove.allows(case) } else { Status::Add.allows(case) }
}

fn may_change_roles(case: &Case<'_>, rights: &Rights) -> bool {
    let (roles, before) = (case.event.texts("roles"), case.event.texts("previous_roles"));
    let added: Vec<String> = roles.iter().filter(|role| !before.contains(role)).cloned().collect();
    let only_more = before.iter().all(|role| roles.contains(role));
    let takes = if only_more { rights.may_touch(&before) } else { rights.cover(case.organization, &before) };
    takes && rights.cover(case.organization, &added) && !case.is_behind_token(case.event.text("user_id"))
}

fn may_replace_role(case: &Case<'_>, rights: &Rights) -> bool {
    case.beside(&["RoleRemoved"]) && rights.may_touch(&case.event.texts("previous_roles"))
}

/// Somebody whose invitation is accepted, or who is handed the ownership, changes nobody else but its giver.
fn changes_own_roles(case: &Case<'_>, findings: &mut Findings) {
    let user = case.event.text("user_id");
    let accepts = |name: &str| case.group.iter().find(|other| other.name == name);
    let offered = accepts("OwnershipAccepted").map(|accepted| accepted.text("offered_by").trim_start_matches("user:"));
    if (accepts("InvitationAccepted").is_some() || offered.is_some())
        && case.actor().1 != user
        && offered != Some(user)
    {
        findings.add("an acceptance changes those whom it is about", || case.event.place());
    }
}

fn may_take(case: &Case<'_>, rights: &Rights) -> bool {
    rights.cover(case.organization, &case.event.texts("roles"))
}

fn may_give_again(case: &Case<'_>, rights: &Rights) -> bool {
    rights.cover(case.organization, &case.event.texts("roles")) && !case.is_behind_token(case.event.text("user_id"))
}

/// An erasure, or joining another organization after a purge, ends a membership in any status.
fn may_be_removed(case: &Case<'_>) -> bool {
    Status::Remove.allows(case) || ends_by_itself(case)
}

fn ends_by_itself(case: &Case<'_>) -> bool {
    let erased = case.is_erased(case.event.text("user_id")) && (case.is_operator() || case.is_service());
    erased || (case.is_service() && case.organization.purged)
}

fn fold(fold: &mut Fold<'_>) {
    let event = fold.event;
    let mut state: Member = fold.take();
    let roles = event.texts("roles");
    fold.expect(state.place.is_new() || state.user == event.text("user_id"));
    state.place.move_to(event);
    match event.name.as_str() {
        "MemberJoined" => join(&mut state, fold, roles),
        "MemberBound" => {
            fold.expect(state.is_active());
            state.bound = true;
            fold.claim_global("home", &state.user, None);
        }
        "MemberRolesChanged" => {
            let held = matches!(state.state.as_str(), "ACTIVE" | "SUSPENDED");
            fold.expect(held && event.texts("previous_roles") == state.roles && roles != state.roles);
            if state.is_active() {
                count_owner(fold, &state.roles, -1);
                count_owner(fold, &roles, 1);
            }
            hold(fold, &roles, 1);
            hold(fold, &state.roles, -1);
            state.roles = roles;
        }
        "MemberSuspended" => {
            fold.expect(state.is_active() && roles == state.roles);
            state.state = "SUSPENDED".to_owned();
            take_seat(fold, &roles, -1);
        }
        "MemberReinstated" => {
            fold.expect(state.state == "SUSPENDED" && roles == state.roles);
            state.state = "ACTIVE".to_owned();
            take_seat(fold, &roles, 1);
        }
        "MemberRemoved" | "MemberLeft" => end(&mut state, fold, &roles),
        _ => fold.unknown(),
    }
    let (shown, more) = (state.state.clone(), state.roles.join(","));
    fold.put(state, &shown, &more);
}

fn join(state: &mut Member, fold: &mut Fold<'_>, roles: Vec<String>) {
    let event = fold.event;
    fold.expect(!matches!(state.state.as_str(), "ACTIVE" | "SUSPENDED"));
    if state.created_at.is_none() {
        state.created_at = event.time("joined_at");
        state.user = event.text("user_id").to_owned();
        let key = (state.place.organization.clone(), state.user.clone());
        if fold.model.membership_of.insert(key, event.stream.clone()).is_some() {
            fold.findings.add("a user has one membership in an organization", || event.place());
        }
    }
    state.joined_at = event.time("joined_at");
    state.source = event.text("source").to_owned();
    (state.state, state.barred) = ("ACTIVE".to_owned(), false);
    // A seat that was kept goes over: the invitation gives it up when it is settled.
    match event.body["invitation_id"] {
        Value::Null => take_seat(fold, &roles, 1),
        _ => count_owner(fold, &roles, 1),
    }
    hold(fold, &roles, 1);
    state.roles = roles;
}

fn end(state: &mut Member, fold: &mut Fold<'_>, roles: &[String]) {
    let before = fold.event.text("previous_state");
    fold.expect(before == state.state && before != "REMOVED" && roles == state.roles);
    if state.is_active() {
        take_seat(fold, roles, -1);
    }
    hold(fold, roles, -1);
    if std::mem::take(&mut state.bound) {
        fold.release_global("home", &state.user);
    }
    state.barred = state.state == "SUSPENDED";
    state.state = "REMOVED".to_owned();
    state.ended = Some(fold.event.offset);
}

fn count_owner(fold: &mut Fold<'_>, roles: &[String], by: i64) {
    if is_owner(roles) {
        fold.count(OWNERS, by);
    }
}

fn take_seat(fold: &mut Fold<'_>, roles: &[String], by: i64) {
    fold.count(MEMBERS, by);
    count_owner(fold, roles, by);
}

/// Own roles are held from joining to going, also while they rest.
fn hold(fold: &mut Fold<'_>, roles: &[String], by: i64) {
    for tally in roles.iter().filter_map(|role| holders(role)) {
        fold.count(&tally, by);
    }
}

fn rows(model: &Model) -> Rows {
    let shown = model.all::<Member>().filter(|(_, m)| model.shows(&m.place.organization));
    let row = |m: &Member| {
        m.place.row(json!({
            "user_id": m.user, "roles": m.roles, "state": m.state, "source": m.source, "joined_at": m.joined_at,
            "created_at": m.created_at,
        }))
    };
    shown.map(|(id, m)| (id.clone(), row(m))).collect()
}

/// What the clients do with it.
pub mod plans {
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::clients::world::Member;
use crate::clients::plans::{List, Plan, Planned, Planner, give};

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
}
