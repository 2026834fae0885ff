//! What a membership accepts and refuses, in each of its states, and what may be granted by whom.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use aggregates::guard::OWNERS;
use aggregates::membership::{
    Grantor, MEMBERS, MembershipCommand as Command, MembershipEvent as Event, MembershipSource, MembershipState,
    existing,
};
use aggregates::roles::{self, OwnRole, OwnRoles, Permission, Permissions};
use aggregates::status::Capability;
use aggregates::{Declared, Effect, Membership, Personal, Refusal};
use common::{
    at, check_table, endless_reason, fold, given, holder_of, invitation, kind, organization, outcome, refused_input,
    roles, user,
};
use cqrs_es::DomainEvent;

fn why() -> Option<String> {
    Some("because".to_owned())
}

fn because() -> Option<Personal> {
    Some(Personal::new(user("ada").as_ref(), "because"))
}

fn join(names: &[&str], by: Grantor) -> Command {
    Command::Join {
        user: user("ada"),
        roles: roles(names),
        source: MembershipSource::Direct,
        invitation: None,
        by,
        reason: why(),
        at: at(1),
    }
}

fn join_by_invitation(names: &[&str]) -> Command {
    Command::Join {
        user: user("ada"),
        roles: roles(names),
        source: MembershipSource::Invitation,
        invitation: Some(invitation("ada")),
        by: Grantor::unbounded(),
        reason: None,
        at: at(1),
    }
}

fn joined(names: &[&str]) -> Event {
    Event::MemberJoined {
        scope: Default::default(),
        user_id: user("ada"),
        roles: roles(names),
        source: MembershipSource::Direct,
        invitation_id: None,
        joined_at: at(1),
        reason: because(),
    }
}

fn change(names: &[&str], by: Grantor) -> Command {
    Command::ChangeRoles { roles: roles(names), by, reason: why() }
}

fn changed(from: &[&str], to: &[&str]) -> Event {
    changed_for(from, to, because())
}

fn changed_for(from: &[&str], to: &[&str], reason: Option<Personal>) -> Event {
    Event::MemberRolesChanged {
        scope: Default::default(),
        user_id: user("ada"),
        roles: roles(to),
        previous_roles: roles(from),
        reason,
    }
}

fn suspend(by: Grantor) -> Command {
    Command::Suspend { reason: why(), by }
}

fn suspended(names: &[&str]) -> Event {
    Event::MemberSuspended { user_id: user("ada"), roles: roles(names), reason: because() }
}

fn reinstate(by: Grantor) -> Command {
    Command::Reinstate { reason: why(), by }
}

fn reinstated(names: &[&str]) -> Event {
    Event::MemberReinstated { user_id: user("ada"), roles: roles(names), reason: because() }
}

fn remove(by: Grantor) -> Command {
    Command::Remove { reason: why(), by }
}

fn removed(names: &[&str], previous_state: MembershipState) -> Event {
    Event::MemberRemoved { user_id: user("ada"), roles: roles(names), previous_state, reason: because() }
}

fn leave() -> Command {
    Command::Leave { reason: why() }
}

fn left(names: &[&str], previous_state: MembershipState) -> Event {
    Event::MemberLeft { user_id: user("ada"), roles: roles(names), previous_state, reason: because() }
}

// ---------------------------------------------------------------- every command in every state

#[test]
fn every_command_in_every_state() {
    let anybody = Grantor::unbounded;
    let states = [
        ("never joined", vec![]),
        ("active", vec![joined(&["member"])]),
        ("suspended", vec![joined(&["member"]), suspended(&["member"])]),
        ("removed", vec![joined(&["member"]), removed(&["member"], MembershipState::Active)]),
        ("gone", vec![joined(&["member"]), left(&["member"], MembershipState::Active)]),
    ];
    let (nf, is) = ("NotFound", "InvalidState");
    check_table::<Membership>(
        &states,
        &[
            (
                "join",
                join(&["admin"], anybody()),
                &["MemberJoined", "AlreadyExists", is, "MemberJoined", "MemberJoined"],
            ),
            (
                "join by invitation",
                join_by_invitation(&["admin"]),
                &["MemberJoined", "MemberRolesChanged", is, "MemberJoined", "MemberJoined"],
            ),
            ("change roles", change(&["admin"], anybody()), &[nf, "MemberRolesChanged", is, is, is]),
            ("change no role", change(&["member"], anybody()), &[nf, "nothing", is, is, is]),
            ("suspend", suspend(anybody()), &[nf, "MemberSuspended", is, is, is]),
            ("reinstate", reinstate(anybody()), &[nf, is, "MemberReinstated", is, is]),
            ("remove", remove(anybody()), &[nf, "MemberRemoved", "MemberRemoved", is, is]),
            ("leave", leave(), &[nf, "MemberLeft", "MemberLeft", is, is]),
        ],
    );
}

#[test]
fn each_event_leads_to_its_state() {
    use MembershipState::{Active, Removed, Suspended};
    let mut history = vec![];
    for (event, state) in [
        (joined(&["member"]), Active),
        (suspended(&["member"]), Suspended),
        (reinstated(&["member"]), Active),
        (changed(&["member"], &["admin"]), Active),
        (removed(&["admin"], Active), Removed),
        (joined(&["guest"]), Active),
        (left(&["guest"], Active), Removed),
    ] {
        history.push(event);
        assert_eq!(fold::<Membership>(&history).state, state, "{history:?}");
    }
}

// ---------------------------------------------------------------- joining

#[test]
fn a_user_joins() {
    given::<Membership>(&[])
        .when(join(&["member"], holder_of(&["admin"])))
        .then_expect_events(vec![joined(&["member"])]);
}

#[test]
fn joining_by_invitation_names_the_invitation() {
    let event = Event::MemberJoined {
        scope: Default::default(),
        user_id: user("ada"),
        roles: roles(&["member"]),
        source: MembershipSource::Invitation,
        invitation_id: Some(invitation("ada")),
        joined_at: at(1),
        reason: None,
    };
    given::<Membership>(&[]).when(join_by_invitation(&["member"])).then_expect_events(vec![event]);
}

#[test]
fn coming_back_starts_with_the_new_roles_alone() {
    let history = [joined(&["owner"]), removed(&["owner"], MembershipState::Active), joined(&["guest"])];
    let membership: Membership = fold(&history);
    assert_eq!((membership.state, membership.roles), (MembershipState::Active, roles(&["guest"])));
}

#[test]
fn roles_are_stored_once_and_the_most_powerful_first() {
    given::<Membership>(&[])
        .when(join(&["guest", "admin", "guest", "billing"], Grantor::unbounded()))
        .then_expect_events(vec![joined(&["admin", "billing", "guest"])]);
}

#[test]
fn refuses_to_add_a_member_twice() {
    let refusal = Refusal::AlreadyExists {
        path: "userId",
        message: "this user is a member already".into(),
        existing: String::new(),
    };
    given::<Membership>(&[joined(&["member"])])
        .when(join(&["member"], Grantor::unbounded()))
        .then_expect_error(refusal);
    assert_eq!(existing(&organization(), &user("ada")), common::membership("ada").to_string());
}

#[test]
fn refuses_to_add_a_suspended_member() {
    given::<Membership>(&[joined(&["member"]), suspended(&["member"])])
        .when(join(&["member"], Grantor::unbounded()))
        .then_expect_error_message("this member is suspended: reinstate the member instead");
}

#[test]
fn refuses_roles_that_there_are_none_of() {
    for command in [
        join(&["member", "king"], Grantor::unbounded()),
        join(&["Owner"], Grantor::unbounded()),
        join(&[], Grantor::unbounded()),
    ] {
        let (path, message) = refused_input(given::<Membership>(&[]).when(command).inspect_result());
        assert_eq!(path, "roles");
        assert!(message.contains("give "), "it says what would be right: {message}");
    }
    let (_, message) =
        refused_input(given::<Membership>(&[]).when(join(&["king"], Grantor::unbounded())).inspect_result());
    assert!(message.contains("king") && message.contains("owner, admin, billing, auditor, member, guest"), "{message}");
}

#[test]
fn refuses_to_take_the_last_role_away() {
    let result = given::<Membership>(&[joined(&["member"])]).when(change(&[], Grantor::unbounded())).inspect_result();
    assert_eq!(refused_input(result).0, "roles");
}

// ---------------------------------------------------------------- an invitation of somebody who is in

#[test]
fn an_accepted_invitation_unites_the_roles() {
    given::<Membership>(&[joined(&["billing", "guest"])])
        .when(join_by_invitation(&["guest", "admin"]))
        .then_expect_events(vec![changed_for(&["billing", "guest"], &["admin", "billing", "guest"], None)]);
}

#[test]
fn an_accepted_invitation_takes_no_role_away() {
    given::<Membership>(&[joined(&["owner"])])
        .when(join_by_invitation(&["guest"]))
        .then_expect_events(vec![changed_for(&["owner"], &["owner", "guest"], None)]);
}

#[test]
fn uniting_works_however_many_roles_there_are() {
    let all: Vec<_> = roles::ROLES.iter().map(|role| role.name).collect();
    assert_eq!(all.len(), 6);
    given::<Membership>(&[joined(&all[1..])]).when(join_by_invitation(&all)).then_expect_events(vec![changed_for(
        &all[1..],
        &all,
        None,
    )]);
}

#[test]
fn roles_named_often_are_one() {
    given::<Membership>(&[])
        .when(join(&["guest"; 100], Grantor::unbounded()))
        .then_expect_events(vec![joined(&["guest"])]);
}

#[test]
fn uniting_the_roles_tells_why() {
    let mut command = join_by_invitation(&["guest"]);
    if let Command::Join { reason, .. } = &mut command {
        *reason = Some(" because ".into());
    }
    given::<Membership>(&[joined(&["owner"])])
        .when(command)
        .then_expect_events(vec![changed(&["owner"], &["owner", "guest"])]);
}

#[test]
fn an_invitation_to_what_somebody_is_already_emits_nothing() {
    given::<Membership>(&[joined(&["admin", "guest"])]).when(join_by_invitation(&["guest"])).then_expect_events(vec![]);
}

// ---------------------------------------------------------------- granting

/// The roles that each may grant: a row for each grantor's role, a column for each role of the table, in its order.
const GRANTABLE: [(&str, &str); 6] = [
    ("owner", "yyyyyy"),
    ("admin", "-yyyyy"),
    ("billing", "--y---"),
    ("auditor", "--yy-y"),
    ("member", "--y-yy"),
    ("guest", "-----y"),
];

#[test]
fn nobody_grants_more_than_he_has() {
    for (own, row) in GRANTABLE {
        for (role, cell) in roles::ROLES.iter().zip(row.chars()) {
            let by = holder_of(&[own]);
            let expected = |event: &'static str| if cell == 'y' { event } else { "RoleNotGrantable" };
            let joins = given::<Membership>(&[]).when(join(&[role.name], by.clone())).inspect_result();
            assert_eq!(outcome(joins), expected("MemberJoined"), "{own} adds {}", role.name);

            // The member holds another role, and keeps it: nothing is taken.
            let other = if role.name == "guest" { "billing" } else { "guest" };
            let changes =
                given::<Membership>(&[joined(&[other])]).when(change(&[role.name, other], by.clone())).inspect_result();
            assert_eq!(outcome(changes), expected("MemberRolesChanged"), "{own} makes {}", role.name);

            if role.name != "owner" {
                let history = [joined(&[role.name]), suspended(&[role.name])];
                let again = given::<Membership>(&history).when(reinstate(by)).inspect_result();
                assert_eq!(outcome(again), expected("MemberReinstated"), "{own} reinstates {}", role.name);
            }
        }
    }
}

#[test]
fn all_permissions_do_not_make_an_owner() {
    let everything = Grantor { owner: false, ..Grantor::unbounded() };
    given::<Membership>(&[])
        .when(join(&["owner"], everything))
        .then_expect_error(Refusal::RoleNotGrantable("only an owner can make somebody an owner".into()));
}

#[test]
fn a_refused_grant_names_the_role() {
    given::<Membership>(&[])
        .when(join(&["guest", "member"], holder_of(&["billing", "guest"])))
        .then_expect_error_message("the role 'member' permits more than you may do yourself");
}

#[test]
fn what_a_member_has_already_need_not_be_granted_again() {
    given::<Membership>(&[joined(&["admin"])])
        .when(change(&["admin", "guest"], holder_of(&["auditor"])))
        .then_expect_events(vec![changed(&["admin"], &["admin", "guest"])]);
}

#[test]
fn taking_a_role_away_grants_nothing() {
    given::<Membership>(&[joined(&["auditor", "guest"])])
        .when(change(&["guest"], holder_of(&["auditor"])))
        .then_expect_events(vec![changed(&["auditor", "guest"], &["guest"])]);
}

#[test]
fn nobody_takes_from_a_member_who_may_do_more() {
    type Take = fn(Grantor) -> Command;
    let cases: [(Take, &str); 4] = [
        (suspend, "MemberSuspended"),
        (remove, "MemberRemoved"),
        (|by| change(&["guest"], by), "MemberRolesChanged"),
        (|by| change(&["billing", "guest"], by), "MemberRolesChanged"),
    ];
    for (command, event) in cases {
        let history = [joined(&["auditor", "guest"])];
        let by_lesser = given::<Membership>(&history).when(command(holder_of(&["billing", "guest"]))).inspect_result();
        assert_eq!(outcome(by_lesser), "Forbidden", "{event}");
        for by in [holder_of(&["auditor"]), holder_of(&["admin"]), holder_of(&["owner"]), Grantor::unbounded()] {
            assert_eq!(outcome(given::<Membership>(&history).when(command(by)).inspect_result()), event);
        }
    }
    // A suspended member's roles count: they are what is taken for good.
    let resting = [joined(&["auditor"]), suspended(&["auditor"])];
    let removed = given::<Membership>(&resting).when(remove(holder_of(&["billing"]))).inspect_result();
    assert_eq!(outcome(removed), "Forbidden");
}

#[test]
fn a_suspension_outlives_the_membership() {
    let lifts = holder_of(&["admin"]);
    let lifts_not = Grantor { permissions: Permissions::of_names(&["organization:read".to_owned()]), ..lifts.clone() };
    let own = OwnRoles(
        [("seer".to_owned(), OwnRole { description: "sees".into(), permissions: vec!["organization:read".into()] })]
            .into(),
    );
    let (lifts, lifts_not) = (lifts.knowing(&own), lifts_not.knowing(&own));
    use MembershipState::{Active, Suspended};
    for end in [left(&["guest"], Suspended), removed(&["guest"], Suspended)] {
        let history = [joined(&["guest"]), suspended(&["guest"]), end];
        let again = |by: &Grantor| given::<Membership>(&history).when(join(&["seer"], by.clone())).inspect_result();
        assert_eq!(outcome(again(&lifts_not)), "InvalidState");
        assert_eq!(outcome(again(&lifts)), "MemberJoined");
        // Back in, the suspension is over: leaving then is as any other.
        let whole = [&history[..], &[joined(&["seer"]), left(&["seer"], Active)]].concat();
        let again = given::<Membership>(&whole).when(join(&["seer"], lifts_not.clone())).inspect_result();
        assert_eq!(outcome(again), "MemberJoined");
    }
    let history = [joined(&["guest"]), left(&["guest"], Active)];
    let again = given::<Membership>(&history).when(join(&["seer"], lifts_not)).inspect_result();
    assert_eq!(outcome(again), "MemberJoined");
}

#[test]
fn only_owners_touch_owners() {
    let active = vec![joined(&["owner"])];
    let resting = vec![joined(&["owner"]), suspended(&["owner"])];
    type Touch = fn(Grantor) -> Command;
    let cases: [(&Vec<Event>, Touch, &str, &str); 6] = [
        (&active, |by| change(&["guest"], by), "Forbidden", "MemberRolesChanged"),
        (&active, |by| change(&["owner", "guest"], by), "Forbidden", "MemberRolesChanged"),
        (&active, suspend, "Forbidden", "MemberSuspended"),
        (&active, remove, "Forbidden", "MemberRemoved"),
        (&resting, reinstate, "Forbidden", "MemberReinstated"),
        (&resting, remove, "Forbidden", "MemberRemoved"),
    ];
    for (history, command, refused, event) in cases {
        for by in [holder_of(&["admin"]), Grantor { owner: false, ..Grantor::unbounded() }] {
            let result = given::<Membership>(history).when(command(by)).inspect_result();
            assert_eq!(outcome(result), refused);
        }
        for by in [holder_of(&["owner"]), Grantor::unbounded()] {
            let result = given::<Membership>(history).when(command(by)).inspect_result();
            assert_eq!(outcome(result), event);
        }
    }
}

#[test]
fn an_owner_leaves_by_himself() {
    given::<Membership>(&[joined(&["owner"])])
        .when(leave())
        .then_expect_events(vec![left(&["owner"], MembershipState::Active)]);
}

// ---------------------------------------------------------------- what the events tell

#[test]
fn the_end_of_a_membership_tells_the_roles_and_the_state_before() {
    let resting = [joined(&["admin"]), suspended(&["admin"])];
    let by = Grantor::unbounded;
    given::<Membership>(&resting[..1])
        .when(remove(by()))
        .then_expect_events(vec![removed(&["admin"], MembershipState::Active)]);
    given::<Membership>(&resting)
        .when(remove(by()))
        .then_expect_events(vec![removed(&["admin"], MembershipState::Suspended)]);
    given::<Membership>(&resting).when(leave()).then_expect_events(vec![left(&["admin"], MembershipState::Suspended)]);
}

#[test]
fn a_suspension_and_its_end_tell_the_roles() {
    given::<Membership>(&[joined(&["admin"])])
        .when(suspend(Grantor::unbounded()))
        .then_expect_events(vec![suspended(&["admin"])]);
    given::<Membership>(&[joined(&["admin"]), suspended(&["admin"])])
        .when(reinstate(Grantor::unbounded()))
        .then_expect_events(vec![reinstated(&["admin"])]);
}

#[test]
fn refuses_an_endless_reason_of_whatever_command() {
    let (reason, by) = (endless_reason, Grantor::unbounded);
    let active = vec![joined(&["member"])];
    let resting = vec![joined(&["member"]), suspended(&["member"])];
    let mut long = join(&["member"], by());
    if let Command::Join { reason: why, .. } = &mut long {
        *why = reason();
    }
    for (history, command) in [
        (&vec![], long),
        (&active, Command::ChangeRoles { roles: roles(&["guest"]), by: by(), reason: reason() }),
        (&active, Command::Suspend { reason: reason(), by: by() }),
        (&resting, Command::Reinstate { reason: reason(), by: by() }),
        (&active, Command::Remove { reason: reason(), by: by() }),
        (&active, Command::Leave { reason: reason() }),
    ] {
        assert_eq!(refused_input(given::<Membership>(history).when(command).inspect_result()).0, "reason");
    }
}

#[test]
fn the_reason_of_other_roles_is_the_members_and_a_blank_one_is_none() {
    for (given_reason, stored) in [(Some(" because "), because()), (Some(" "), None), (None, None)] {
        let reason = given_reason.map(str::to_owned);
        let command = Command::ChangeRoles { roles: roles(&["guest"]), by: Grantor::unbounded(), reason };
        let event = changed_for(&["member"], &["guest"], stored);
        given::<Membership>(&[joined(&["member"])]).when(command).then_expect_events(vec![event]);
    }
}

#[test]
fn messages_name_states_as_clients_see_them() {
    let by = Grantor::unbounded;
    let active = vec![joined(&["member"])];
    let resting = vec![joined(&["member"]), suspended(&["member"])];
    let gone = vec![joined(&["member"]), removed(&["member"], MembershipState::Active)];
    for (history, command, message) in [
        (&resting, change(&["guest"], by()), "the member is SUSPENDED and not ACTIVE"),
        (&resting, suspend(by()), "the member is SUSPENDED and not ACTIVE"),
        (&gone, suspend(by()), "the member is REMOVED and not ACTIVE"),
        (&active, reinstate(by()), "the member is ACTIVE and not SUSPENDED"),
        (&gone, reinstate(by()), "the member is REMOVED and not SUSPENDED"),
    ] {
        given::<Membership>(history).when(command).then_expect_error_message(message);
    }
}

#[test]
fn only_who_is_active_may_do_anything() {
    let membership: Membership = fold(&[joined(&["guest"])]);
    assert!(membership.is_active() && membership.permissions(&OwnRoles::default()).contains(Permission::ProjectRead));
    for end in [suspended(&["guest"]), left(&["guest"], MembershipState::Active)] {
        let membership: Membership = fold(&[joined(&["guest"]), end]);
        assert!(!membership.is_active());
        assert_eq!(membership.permissions(&OwnRoles::default()), Permissions::default());
    }
}

#[test]
fn more_permissions_add_and_fewer_remove() {
    let membership: Membership = fold(&[joined(&["auditor"])]);
    for (names, capability) in [
        (&["admin"][..], Capability::AddMembers),
        (&["auditor", "member"], Capability::AddMembers),
        (&["member"], Capability::AddMembers),
        (&["guest"], Capability::RemoveMembers),
        (&["auditor", "guest"], Capability::RemoveMembers),
    ] {
        assert_eq!(membership.change_needs(&roles(names), &OwnRoles::default()), capability, "{names:?}");
    }
}

#[test]
fn the_role_of_owner_is_more_than_its_permissions_say() {
    assert_eq!(Grantor::unbounded(), holder_of(&["owner"]));
    assert!(!holder_of(&["admin"]).owner);
    let refusal = holder_of(&["admin"]).may_grant(&roles(&["owner"])).unwrap_err();
    assert_eq!(kind(&refusal), "RoleNotGrantable");
}

// ---------------------------------------------------------------- tallies

#[test]
fn each_event_says_which_seats_it_takes_and_frees() {
    use MembershipState::{Active, Suspended};
    let seat = |by| Effect::tally(MEMBERS, by);
    let owner = |by| Effect::tally(OWNERS, by);
    let by_invitation = |names: &[&str]| match joined(names) {
        Event::MemberJoined { user_id, roles, source, joined_at, reason, .. } => {
            let invitation_id = Some(invitation("ada"));
            Event::MemberJoined { scope: Default::default(), user_id, roles, source, invitation_id, joined_at, reason }
        }
        other => other,
    };
    let only_one = || user("ada").to_string();
    let free = || Effect::Release { scope: Membership::ONLY_ONE, key: only_one() };
    let effects = [
        (joined(&["admin"]), vec![seat(1)]),
        (joined(&["owner", "guest"]), vec![seat(1), owner(1)]),
        (by_invitation(&["admin"]), vec![]),
        (by_invitation(&["owner"]), vec![owner(1)]),
        (
            Event::MemberBound { user_id: user("ada") },
            vec![Effect::Claim { scope: Membership::ONLY_ONE, key: only_one(), until: None }],
        ),
        (changed(&["guest"], &["admin"]), vec![]),
        (changed(&["guest"], &["owner"]), vec![owner(1)]),
        (changed(&["owner", "guest"], &["guest"]), vec![owner(-1)]),
        (changed(&["owner"], &["owner", "guest"]), vec![]),
        (suspended(&["admin"]), vec![seat(-1)]),
        (suspended(&["owner"]), vec![seat(-1), owner(-1)]),
        (reinstated(&["admin"]), vec![seat(1)]),
        (reinstated(&["owner"]), vec![seat(1), owner(1)]),
        (removed(&["admin"], Active), vec![seat(-1), free()]),
        (removed(&["owner"], Active), vec![seat(-1), owner(-1), free()]),
        (removed(&["owner"], Suspended), vec![free()]),
        (left(&["admin"], Active), vec![seat(-1), free()]),
        (left(&["owner"], Active), vec![seat(-1), owner(-1), free()]),
        (left(&["owner"], Suspended), vec![free()]),
    ];
    let tested: BTreeSet<_> = effects.iter().map(|(event, _)| event.event_type()).collect();
    assert_eq!(tested, Event::DESCRIPTORS.iter().map(|descriptor| descriptor.name.to_owned()).collect());
    for (event, expected) in effects {
        assert_eq!(event.effects(), expected, "{event:?}");
    }
}

fn reader() -> OwnRoles {
    let permissions = vec![Permission::ProjectRead.as_str().to_owned()];
    OwnRoles([("reader".to_owned(), OwnRole { description: "Reads.".into(), permissions })].into())
}

#[test]
fn a_role_of_the_organizations_own_is_granted_by_who_has_what_it_permits() {
    let with = |names: &[&str]| Grantor::with_roles(&roles(names), &reader());
    given::<Membership>(&[]).when(join(&["reader"], with(&["guest"]))).then_expect_events(vec![joined(&["reader"])]);
    let refused = given::<Membership>(&[]).when(join(&["reader"], with(&["billing"]))).inspect_result();
    assert!(matches!(refused, Err(Refusal::RoleNotGrantable(_))), "{refused:?}");
    let unknown = given::<Membership>(&[]).when(join(&["reader"], holder_of(&["owner"]))).inspect_result();
    assert!(matches!(unknown, Err(Refusal::InvalidInput { .. })), "{unknown:?}");
    let member: Membership = fold(&[joined(&["reader"])]);
    assert!(member.permissions(&reader()).contains(Permission::ProjectRead));
    assert_eq!(
        member.permissions(&OwnRoles::default()),
        Permissions::default(),
        "a role that is no more permits nothing"
    );
}

#[test]
fn a_role_of_the_organizations_own_is_counted_from_joining_to_going_also_while_it_rests() {
    let held = |by| Effect::tally("role/reader", by);
    let effects =
        |event: &Event| event.effects().into_iter().filter(|e| *e == held(1) || *e == held(-1)).collect::<Vec<_>>();
    let (user_id, reason) = (user("ada"), None);
    assert_eq!(effects(&joined(&["reader", "guest"])), [held(1)]);
    let suspended =
        Event::MemberSuspended { user_id: user_id.clone(), roles: roles(&["reader"]), reason: reason.clone() };
    assert_eq!(effects(&suspended), []);
    let changed = |before: &[&str], after: &[&str]| Event::MemberRolesChanged {
        scope: Default::default(),
        user_id: user_id.clone(),
        roles: roles(after),
        previous_roles: roles(before),
        reason: None,
    };
    assert_eq!(effects(&changed(&["reader"], &["guest"])), [held(-1)]);
    assert_eq!(effects(&changed(&["guest"], &["guest", "reader"])), [held(1)]);
    assert_eq!(effects(&changed(&["reader"], &["guest", "reader"])), [held(1), held(-1)]);
    for previous_state in [MembershipState::Active, MembershipState::Suspended] {
        let (user_id, roles) = (user_id.clone(), roles(&["reader"]));
        assert_eq!(effects(&Event::MemberRemoved { user_id, roles, previous_state, reason: None }), [held(-1)]);
    }
}

#[test]
fn a_role_is_replaced_also_of_who_is_suspended_and_never_twice() {
    let by = Grantor::unbounded().knowing(&reader());
    let replace =
        |with: &str| Command::ReplaceRole { role: "reader".into(), with: with.into(), by: by.clone(), reason: None };
    let changed = Event::MemberRolesChanged {
        scope: Default::default(),
        user_id: user("ada"),
        roles: roles(&["guest"]),
        previous_roles: roles(&["guest", "reader"]),
        reason: None,
    };
    let suspended = Event::MemberSuspended { user_id: user("ada"), roles: roles(&["guest", "reader"]), reason: None };
    for history in [vec![joined(&["guest", "reader"])], vec![joined(&["guest", "reader"]), suspended]] {
        given::<Membership>(&history).when(replace("guest")).then_expect_events(vec![changed.clone()]);
    }
}
