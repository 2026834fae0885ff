//! What an invitation accepts and refuses, in each of its states: exactly one ending wins.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use aggregates::invitation::{InvitationCommand as Command, InvitationEvent as Event, InvitationState, Recipient};
use aggregates::membership::Grantor;
use aggregates::membership::MEMBERS;
use aggregates::{Actor, Declared, Digest, Effect, Erasure, Invitation, Personal, Refusal};
use common::{
    at, check_table, digest, endless_reason, fold, given, holder_of, invitation, membership, outcome, refused_input,
    roles, user,
};
use cqrs_es::DomainEvent;

/// When the invitation of the tests runs out, in hours.
const END: i64 = 10;

fn why() -> Option<String> {
    Some("because".to_owned())
}

fn because() -> Option<Personal> {
    Some(Personal::new(invitation("1").as_ref(), "because"))
}

fn invite(email: &str, names: &[&str], by: Grantor) -> Command {
    Command::Invite {
        id: invitation("1"),
        email: email.into(),
        email_claim: digest("ada@example.com"),
        token: digest("token"),
        roles: roles(names),
        invited_by: Actor::User(user("owner")),
        by,
        expires_at: at(END),
        reason: why(),
        at: at(0),
    }
}

fn invited() -> Event {
    Event::MemberInvited {
        scope: Default::default(),
        email: Personal::new(invitation("1").as_ref(), "ada@example.com"),
        email_claim: digest("ada@example.com"),
        token_digest: digest("token"),
        roles: roles(&["member"]),
        invited_by: Actor::User(user("owner")),
        expires_at: at(END),
        created_at: at(0),
        reason: because(),
    }
}

fn resend(hour: i64, by: Grantor) -> Command {
    Command::Resend { token: digest("new token"), by, expires_at: at(hour + END), reason: why(), at: at(hour) }
}

fn resent(hour: i64) -> Event {
    Event::InvitationResent {
        email_claim: digest("ada@example.com"),
        token_digest: digest("new token"),
        expires_at: at(hour + END),
        previous_expires_at: at(END),
        reason: because(),
    }
}

fn ada(token: Option<Digest>) -> Recipient {
    Recipient { user: user("ada"), email_claim: Some(digest("ada@example.com")), token }
}

fn accept(recipient: Recipient, hour: i64) -> Command {
    let membership = membership("ada");
    Command::Accept { recipient, membership, member_already: false, at: at(hour) }
}

fn accepted(seat_freed: bool) -> Event {
    Event::InvitationAccepted {
        email_claim: digest("ada@example.com"),
        user_id: user("ada"),
        membership_id: membership("ada"),
        seat_freed,
    }
}

fn decline(recipient: Recipient, hour: i64) -> Command {
    Command::Decline { recipient, at: at(hour) }
}

fn declined() -> Event {
    Event::InvitationDeclined { email_claim: digest("ada@example.com"), user_id: user("ada") }
}

fn revoke(hour: i64) -> Command {
    Command::Revoke { reason: why(), at: at(hour) }
}

fn revoked() -> Event {
    Event::InvitationRevoked { email_claim: digest("ada@example.com"), reason: because() }
}

fn expired() -> Event {
    Event::InvitationExpired { email_claim: digest("ada@example.com"), expires_at: at(END) }
}

// ---------------------------------------------------------------- every command in every state

fn replace(role: &str, with: &str, hour: i64) -> Command {
    let by = Grantor::unbounded();
    Command::ReplaceRole { role: role.into(), with: with.into(), by, reason: None, at: at(hour) }
}

fn roles_changed(after: &[&str]) -> Event {
    let Event::MemberInvited { roles: previous_roles, .. } = invited() else { unreachable!() };
    Event::InvitationRolesChanged { scope: Default::default(), roles: roles(after), previous_roles, reason: None }
}

#[test]
fn a_role_that_ended_is_not_promised_any_more() {
    let history = [invited(), roles_changed(&["guest"])];
    assert_eq!(fold::<Invitation>(&history).roles, roles(&["guest"]));
    given::<Invitation>(&history[..1]).when(replace("member", "guest", 1)).then_expect_events(vec![history[1].clone()]);
}

#[test]
fn every_command_in_every_state() {
    let states = [
        ("never made", vec![]),
        ("pending", vec![invited()]),
        ("accepted", vec![invited(), accepted(false)]),
        ("declined", vec![invited(), declined()]),
        ("revoked", vec![invited(), revoked()]),
        ("expired", vec![invited(), expired()]),
    ];
    let somebody = Recipient { user: user("bob"), ..ada(None) };
    let (nf, np, is, exists) = ("NotFound", "InvitationNotPending", "InvalidState", "AlreadyExists");
    let everything = Grantor::unbounded;
    check_table::<Invitation>(
        &states,
        &[
            (
                "invite",
                invite("ada@example.com", &["member"], everything()),
                &["MemberInvited", exists, exists, exists, exists, exists],
            ),
            ("resend", resend(1, everything()), &[nf, "InvitationResent", np, np, np, np]),
            ("replace a role", replace("member", "guest", 1), &[nf, "InvitationRolesChanged", np, np, np, np]),
            ("replace a role late", replace("member", "guest", END), &[nf, np, np, np, np, np]),
            ("revoke", revoke(1), &[nf, "InvitationRevoked", np, np, np, np]),
            ("accept", accept(ada(None), 1), &[nf, "InvitationAccepted", "nothing", np, np, np]),
            ("accept with the same address", accept(somebody, 1), &[nf, "InvitationAccepted", np, np, np, np]),
            ("decline", decline(ada(None), 1), &[nf, "InvitationDeclined", np, np, np, np]),
            ("expire early", Command::Expire { at: at(END - 1) }, &[nf, is, is, is, is, is]),
            ("expire in time", Command::Expire { at: at(END) }, &[nf, "InvitationExpired", is, is, is, is]),
            // Past its time nothing but its expiry is left, recorded or not; a repeated acceptance stays one.
            ("resend late", resend(END, everything()), &[nf, np, np, np, np, np]),
            ("revoke late", revoke(END), &[nf, np, np, np, np, np]),
            ("accept late", accept(ada(None), END), &[nf, np, "nothing", np, np, np]),
            ("decline late", decline(ada(None), END), &[nf, np, np, np, np, np]),
        ],
    );
}

#[test]
fn a_settled_invitation_says_how_it_ended() {
    use InvitationState::{Accepted, Declined, Expired, Revoked};
    for (end, state) in
        [(accepted(false), Accepted), (declined(), Declined), (revoked(), Revoked), (expired(), Expired)]
    {
        let history = [invited(), end];
        assert_eq!(fold::<Invitation>(&history).state, state);
        given::<Invitation>(&history).when(revoke(1)).then_expect_error(Refusal::InvitationNotPending(state));
    }
}

#[test]
fn an_open_invitation_expires_by_the_clock() {
    let open: Invitation = fold(&[invited()]);
    assert_eq!(open.state_at(at(END - 1)), InvitationState::Pending);
    assert_eq!(open.state_at(at(END)), InvitationState::Expired);
    given::<Invitation>(&[invited()])
        .when(accept(ada(None), END))
        .then_expect_error(Refusal::InvitationNotPending(InvitationState::Expired));
}

#[test]
fn the_clock_does_not_touch_what_is_settled() {
    for (end, state) in [(accepted(false), InvitationState::Accepted), (revoked(), InvitationState::Revoked)] {
        assert_eq!(fold::<Invitation>(&[invited(), end]).state_at(at(END + 1)), state);
    }
}

// ---------------------------------------------------------------- inviting

#[test]
fn invites_an_address() {
    given::<Invitation>(&[])
        .when(invite("ada@example.com", &["member"], holder_of(&["admin"])))
        .then_expect_events(vec![invited()]);
}

#[test]
fn what_is_invited_is_known_by_its_id() {
    let open: Invitation = fold(&[invited()]);
    assert_eq!((open.id, open.state), (Some(invitation("1")), InvitationState::Pending));
    assert_eq!((open.roles, open.accepted_by), (roles(&["member"]), None));
    assert_eq!((open.expires_at, open.created_at), (at(END), at(0)));
}

#[test]
fn refuses_the_same_invitation_twice_and_names_it() {
    given::<Invitation>(&[invited()])
        .when(invite("bob@example.com", &["guest"], Grantor::unbounded()))
        .then_expect_error(Refusal::AlreadyExists {
            path: "email",
            message: "this invitation exists already".into(),
            existing: invitation("1").to_string(),
        });
}

#[test]
fn refuses_what_is_no_address_and_what_is_no_role() {
    for (field, email, names) in [
        ("email", "ada", &["member"][..]),
        ("email", "", &["member"]),
        ("email", "Ada <ada@example.com>", &["member"]),
        ("email", "a\u{200b}da@example.com", &["member"]),
        ("roles", "ada@example.com", &["king"]),
        ("roles", "ada@example.com", &[]),
    ] {
        let result = given::<Invitation>(&[]).when(invite(email, names, Grantor::unbounded())).inspect_result();
        assert_eq!(refused_input(result).0, field, "{email:?} {names:?}");
    }
}

#[test]
fn nobody_invites_to_more_than_he_has() {
    for (own, names, expected) in [
        (&["admin"][..], &["owner"][..], "RoleNotGrantable"),
        (&["admin"], &["admin"], "MemberInvited"),
        (&["member"], &["auditor"], "RoleNotGrantable"),
        (&["member"], &["guest", "auditor"], "RoleNotGrantable"),
        (&["owner"], &["owner"], "MemberInvited"),
    ] {
        let result = given::<Invitation>(&[]).when(invite("ada@example.com", names, holder_of(own))).inspect_result();
        assert_eq!(outcome(result), expected, "{own:?} invites to {names:?}");
    }
}

// ---------------------------------------------------------------- resending

#[test]
fn resending_gives_a_new_token_and_a_new_end() {
    given::<Invitation>(&[invited()]).when(resend(3, holder_of(&["admin"]))).then_expect_events(vec![resent(3)]);
    let open: Invitation = fold(&[invited(), resent(3)]);
    assert_eq!((open.token_digest, open.expires_at), (Some(digest("new token")), at(3 + END)));
    assert_eq!(open.state, InvitationState::Pending);
}

#[test]
fn nobody_resends_an_invitation_to_more_than_he_has() {
    let result = given::<Invitation>(&[invited()]).when(resend(3, holder_of(&["guest"]))).inspect_result();
    assert_eq!(outcome(result), "RoleNotGrantable");
}

#[test]
fn a_resent_invitation_is_open_after_its_first_end() {
    let late = accept(ada(Some(digest("new token"))), END + 1);
    given::<Invitation>(&[invited(), resent(3)]).when(late).then_expect_events(vec![accepted(false)]);
}

#[test]
fn a_resent_invitation_expires_at_its_new_end() {
    let expire = |hour| Command::Expire { at: at(hour) };
    let history = [invited(), resent(3)];
    assert_eq!(outcome(given::<Invitation>(&history).when(expire(END)).inspect_result()), "InvalidState");
    let end = Event::InvitationExpired { email_claim: digest("ada@example.com"), expires_at: at(3 + END) };
    given::<Invitation>(&history).when(expire(3 + END)).then_expect_events(vec![end]);
}

#[test]
fn the_token_before_a_resending_is_dead() {
    for command in [accept(ada(Some(digest("token"))), 4), decline(ada(Some(digest("token"))), 4)] {
        given::<Invitation>(&[invited(), resent(3)]).when(command).then_expect_error(Refusal::NotFound);
    }
}

// ---------------------------------------------------------------- accepting and declining

#[test]
fn the_invited_person_accepts_with_or_without_the_token() {
    for token in [None, Some(digest("token"))] {
        given::<Invitation>(&[invited()]).when(accept(ada(token), 1)).then_expect_events(vec![accepted(false)]);
    }
}

#[test]
fn accepting_as_a_member_frees_the_seat_that_was_kept() {
    let command =
        Command::Accept { recipient: ada(None), membership: membership("ada"), member_already: true, at: at(1) };
    given::<Invitation>(&[invited()]).when(command).then_expect_events(vec![accepted(true)]);
}

#[test]
fn refuses_the_wrong_recipient_even_with_the_token() {
    for email_claim in [None, Some(digest("eve@example.com"))] {
        let eve = Recipient { user: user("eve"), email_claim, token: Some(digest("token")) };
        for command in [accept(eve.clone(), 1), decline(eve, 1)] {
            given::<Invitation>(&[invited()]).when(command).then_expect_error(Refusal::WrongRecipient);
        }
    }
}

#[test]
fn a_wrong_token_reads_as_one_that_never_was() {
    for command in [accept(ada(Some(digest("guess"))), 1), decline(ada(Some(digest("guess"))), 1)] {
        given::<Invitation>(&[invited()]).when(command).then_expect_error(Refusal::NotFound);
    }
}

#[test]
fn the_wrong_recipient_does_not_learn_how_it_ended() {
    let eve = Recipient { user: user("eve"), email_claim: None, token: Some(digest("token")) };
    for end in [accepted(false), declined(), revoked(), expired()] {
        given::<Invitation>(&[invited(), end]).when(accept(eve.clone(), 1)).then_expect_error(Refusal::WrongRecipient);
    }
}

#[test]
fn accepting_twice_changes_nothing() {
    given::<Invitation>(&[invited(), accepted(false)]).when(accept(ada(None), 2)).then_expect_events(vec![]);
}

#[test]
fn two_accounts_of_one_address_do_not_both_accept() {
    let second = Recipient { user: user("ada's other account"), ..ada(Some(digest("token"))) };
    given::<Invitation>(&[invited(), accepted(false)])
        .when(accept(second, 2))
        .then_expect_error(Refusal::InvitationNotPending(InvitationState::Accepted));
}

#[test]
fn who_accepted_is_known() {
    assert_eq!(fold::<Invitation>(&[invited(), accepted(false)]).accepted_by, Some(user("ada")));
}

#[test]
fn the_invited_person_declines() {
    given::<Invitation>(&[invited()]).when(decline(ada(None), 1)).then_expect_events(vec![declined()]);
}

// ---------------------------------------------------------------- revoking

#[test]
fn an_invitation_is_taken_back() {
    given::<Invitation>(&[invited()]).when(revoke(1)).then_expect_events(vec![revoked()]);
}

// ---------------------------------------------------------------- reasons

/// Each command that takes a reason, with the history before.
fn commands_with(reason: Option<&str>) -> [(Vec<Event>, Command); 3] {
    let mut commands = [
        (vec![], invite("ada@example.com", &["member"], Grantor::unbounded())),
        (vec![invited()], resend(3, Grantor::unbounded())),
        (vec![invited()], revoke(1)),
    ];
    for (_, command) in &mut commands {
        if let Command::Invite { reason: why, .. }
        | Command::Resend { reason: why, .. }
        | Command::Revoke { reason: why, .. } = command
        {
            *why = reason.map(str::to_owned);
        }
    }
    commands
}

#[test]
fn refuses_an_endless_reason_of_whatever_command() {
    for (history, command) in commands_with(endless_reason().as_deref()) {
        assert_eq!(refused_input(given::<Invitation>(&history).when(command).inspect_result()).0, "reason");
    }
}

#[test]
fn a_reason_is_the_invitees_and_trimmed_and_a_blank_one_is_none() {
    for (given_reason, stored) in [(Some(" because "), because()), (Some(" \n "), None), (None, None)] {
        let expected = [invited(), resent(3), revoked()];
        for ((history, command), mut event) in commands_with(given_reason).into_iter().zip(expected) {
            if let Event::MemberInvited { reason, .. }
            | Event::InvitationResent { reason, .. }
            | Event::InvitationRevoked { reason, .. } = &mut event
            {
                reason.clone_from(&stored);
            }
            given::<Invitation>(&history).when(command).then_expect_events(vec![event]);
        }
    }
}

#[test]
fn a_refusal_names_the_state_as_clients_see_it() {
    for (end, shown) in
        [(accepted(false), "ACCEPTED"), (declined(), "DECLINED"), (revoked(), "REVOKED"), (expired(), "EXPIRED")]
    {
        let message = format!("the invitation is {shown} and not PENDING any more");
        given::<Invitation>(&[invited(), end]).when(revoke(1)).then_expect_error_message(&message);
    }
}

// ---------------------------------------------------------------- claims and tallies

#[test]
fn each_event_says_how_it_holds_the_address_and_the_seat() {
    let key = digest("ada@example.com").0;
    let scope = Invitation::ADDRESS;
    let claim = |hour| Effect::Claim { scope, key: key.clone(), until: Some(at(hour)) };
    let release = || Effect::Release { scope, key: key.clone() };
    let seat = |by| Effect::tally(MEMBERS, by);
    let effects = [
        (invited(), vec![claim(END), seat(1)]),
        (resent(3), vec![claim(3 + END)]),
        (roles_changed(&["guest"]), vec![]),
        (accepted(false), vec![release()]),
        (accepted(true), vec![release(), seat(-1)]),
        (declined(), vec![release(), seat(-1)]),
        (revoked(), vec![release(), seat(-1)]),
        (expired(), vec![release(), seat(-1)]),
        (
            Event::InviteeErased {
                email_claim: digest("ada@example.com"),
                reason: None,
                named_in: None,
                named_in_more: None,
                first_erased_at: None,
            },
            vec![],
        ),
    ];
    let tested: BTreeSet<_> = effects.iter().map(|(event, _)| event.event_type()).collect();
    assert_eq!(tested, Event::DESCRIPTORS.iter().map(|descriptor| descriptor.name.to_owned()).collect());
    for (event, expected) in effects {
        assert_eq!(event.effects(), expected, "{event:?}");
    }
}

#[test]
fn erasing_the_invitee_ends_an_open_invitation_and_leaves_a_settled_one_as_it_was() {
    let email_claim = digest("ada@example.com");
    let because = Some((user("bob"), "asked for it".to_owned()));
    let erase =
        |hour| Command::Erase { erasure: Erasure { because: because.clone(), ..Erasure::default() }, at: at(hour) };
    let reason = Some(Personal::new(user("bob").as_ref(), "asked for it"));
    let erased = Event::InviteeErased {
        email_claim: email_claim.clone(),
        reason,
        named_in: None,
        named_in_more: None,
        first_erased_at: None,
    };
    let revoked = Event::InvitationRevoked { email_claim: email_claim.clone(), reason: None };
    let expired = Event::InvitationExpired { email_claim: email_claim.clone(), expires_at: at(END) };
    let accepted = Event::InvitationAccepted {
        email_claim,
        user_id: user("ada"),
        membership_id: membership("ada"),
        seat_freed: false,
    };
    for (history, hour, ended) in [
        (vec![invited()], 1, Some(revoked.clone())),
        (vec![invited()], END, Some(expired)),
        (vec![invited(), accepted], 1, None),
        (vec![invited(), revoked], 1, None),
    ] {
        let events: Vec<_> = ended.into_iter().chain([erased.clone()]).collect();
        let before = fold::<Invitation>(&history);
        assert_eq!(before.decide(erase(hour)), Ok(events.clone()));
        let after = fold::<Invitation>(&[history, events].concat());
        assert_eq!((after.email.clone(), after.erased), (None, true));
        assert!(before.state == after.state || before.state == InvitationState::Pending);
        assert_eq!(after.decide(erase(hour + 1)), Ok(vec![]), "once");
    }
    assert!(aggregates::Event::from(erased).destroys_key());
    assert_eq!(Invitation::default().decide(erase(1)), Err(Refusal::NotFound));
}
