//! How ownership is offered, accepted and withdrawn, and what ends an offer.

#![allow(clippy::unwrap_used)]

mod common;

use aggregates::membership::MembershipState;
use aggregates::organization::{Limits, OrganizationCommand as Command, OrganizationEvent as Event};
use aggregates::ownership::OwnershipOffer;
use aggregates::{Actor, Membership, Organization, Personal};
use common::{at, check_table, endless_reason, fold, given, kind, membership, refused_input, roles, user};
use serde_json::json;

fn created() -> Event {
    Event::OrgCreated {
        name: "Acme".into(),
        slug: "acme".into(),
        contact_email: None,
        external_id: None,
        plan: "basic".into(),
        limits: Limits::new(),
        created_at: at(0),
        reason: None,
    }
}

fn member(name: &str, names: &[&str], state: MembershipState) -> Membership {
    Membership { user_id: Some(user(name)), state, roles: roles(names), ..Membership::default() }
}

fn active(name: &str, names: &[&str]) -> Membership {
    member(name, names, MembershipState::Active)
}

fn owner() -> Actor {
    Actor::User(user("owner"))
}

fn because() -> Option<Personal> {
    Some(Personal::new(user("ada").as_ref(), "because"))
}

fn offer_to(name: &str, recipient: Membership, by: Actor) -> Command {
    Command::OfferOwnership { membership: membership(name), recipient, by, reason: Some("because".into()), at: at(1) }
}

fn offer() -> Command {
    offer_to("ada", active("ada", &["member"]), owner())
}

fn accept_as(name: &str, recipient: Membership, giver: Option<Membership>) -> Command {
    Command::AcceptOwnership { user: user(name), recipient, giver, reason: Some("because".into()) }
}

fn accept() -> Command {
    accept_as("ada", active("ada", &["member"]), Some(active("owner", &["owner"])))
}

fn withdraw() -> Command {
    Command::WithdrawOwnershipOffer { reason: Some("because".into()) }
}

fn offered_by(offered_by: Actor) -> Event {
    let (membership_id, user_id) = (membership("ada"), user("ada"));
    Event::OwnershipOffered { membership_id, user_id, offered_by, offered_at: at(1), reason: because() }
}

fn offered() -> Event {
    offered_by(owner())
}

fn accepted() -> Event {
    let (membership_id, user_id) = (membership("ada"), user("ada"));
    Event::OwnershipAccepted { membership_id, user_id, offered_by: owner(), reason: because() }
}

fn withdrawn() -> Event {
    let (membership_id, user_id) = (membership("ada"), user("ada"));
    Event::OwnershipOfferWithdrawn { membership_id, user_id, offered_by: owner(), reason: because() }
}

fn refusal(history: &[Event], command: Command) -> &'static str {
    kind(&given::<Organization>(history).when(command).inspect_result().unwrap_err())
}

#[test]
fn every_command_in_every_state() {
    let states = [
        ("no offer", vec![created()]),
        ("offered", vec![created(), offered()]),
        ("accepted", vec![created(), offered(), accepted()]),
        ("withdrawn", vec![created(), offered(), withdrawn()]),
    ];
    let is = "InvalidState";
    let (offered, ended) = ("OwnershipOffered", "OwnershipOfferWithdrawn");
    let other = offer_to("bob", active("bob", &["member"]), owner());
    check_table::<Organization>(
        &states,
        &[
            ("offer", offer(), &[offered, "nothing", offered, offered]),
            ("offer another one", other, &[offered, is, offered, offered]),
            ("accept", accept(), &[is, "OwnershipAccepted", is, is]),
            ("withdraw", withdraw(), &[is, ended, is, is]),
        ],
    );
}

#[test]
fn each_step_tells_the_whole() {
    let given = |history: &[Event]| given::<Organization>(history);
    given(&[created()]).when(offer()).then_expect_events(vec![offered()]);
    given(&[created(), offered()]).when(accept()).then_expect_events(vec![accepted()]);
    given(&[created(), offered()]).when(withdraw()).then_expect_events(vec![withdrawn()]);
}

#[test]
fn the_state_shows_the_open_offer_only() {
    let offer = OwnershipOffer {
        membership_id: membership("ada"),
        user_id: user("ada"),
        offered_by: owner(),
        offered_at: at(1),
    };
    assert_eq!(fold::<Organization>(&[created(), offered()]).ownership_offer, Some(offer));
    assert_eq!(fold::<Organization>(&[created(), offered(), accepted()]).ownership_offer, None);
    assert_eq!(fold::<Organization>(&[created(), offered(), withdrawn()]).ownership_offer, None);
}

#[test]
fn it_is_offered_to_members_who_are_in_and_no_owners() {
    for (recipient, expected) in [
        (member("ada", &["member"], MembershipState::Suspended), "InvalidState"),
        (member("ada", &["member"], MembershipState::Removed), "InvalidState"),
        (active("ada", &["owner", "member"]), "InvalidState"),
        (Membership::default(), "NotFound"),
    ] {
        assert_eq!(refusal(&[created()], offer_to("ada", recipient.clone(), owner())), expected, "{recipient:?}");
        let accept = accept_as("ada", recipient.clone(), Some(active("owner", &["owner"])));
        assert_eq!(refusal(&[created(), offered()], accept), expected, "{recipient:?}");
    }
}

#[test]
fn nobody_else_accepts_it() {
    let accept = accept_as("bob", active("bob", &["member"]), Some(active("owner", &["owner"])));
    assert_eq!(refusal(&[created(), offered()], accept), "InvalidState");
}

#[test]
fn it_is_void_when_who_offers_is_no_active_owner() {
    for giver in [
        None,
        Some(active("owner", &["admin"])),
        Some(member("owner", &["owner"], MembershipState::Suspended)),
        Some(member("owner", &["owner"], MembershipState::Removed)),
        Some(active("bob", &["owner"])),
    ] {
        let accept = accept_as("ada", active("ada", &["member"]), giver.clone());
        assert_eq!(refusal(&[created(), offered()], accept), "InvalidState", "{giver:?}");
    }
}

#[test]
fn an_operator_gives_no_ownership_of_his_own() {
    let history = [created(), offered_by(Actor::Operator(user("root")))];
    let organization: Organization = fold(&history);
    assert_eq!(organization.ownership_offer.as_ref().unwrap().giver(), None);
    assert!(organization.decide(accept_as("ada", active("ada", &["member"]), None)).is_ok());
}

#[test]
fn an_offer_ends_with_what_makes_it_void_and_with_nothing_else() {
    let organization: Organization = fold(&[created(), offered()]);
    let ends =
        |name: &str, after: &Membership| organization.ownership_offer.clone().unwrap().ends_with(&user(name), after);
    for state in [MembershipState::Suspended, MembershipState::Removed] {
        assert!(ends("ada", &member("ada", &["member"], state)));
        assert!(ends("owner", &member("owner", &["owner"], state)));
        assert!(!ends("bob", &member("bob", &["owner"], state)));
    }
    assert!(ends("ada", &active("ada", &["owner"])));
    assert!(ends("owner", &active("owner", &["admin"])));
    assert!(!ends("ada", &active("ada", &["guest"])));
    assert!(!ends("owner", &active("owner", &["owner", "guest"])));
}

#[test]
fn who_hands_over_keeps_his_other_roles_and_never_has_none() {
    assert_eq!(active("owner", &["owner", "guest"]).roles_without_ownership(), ["guest"]);
    assert_eq!(active("owner", &["owner"]).roles_without_ownership(), ["admin"]);
    assert_eq!(active("ada", &["member"]).roles_with_ownership(), ["owner", "member"]);
}

#[test]
fn refuses_an_endless_reason() {
    let offer = |reason| Command::OfferOwnership {
        membership: membership("ada"),
        recipient: active("ada", &["member"]),
        by: owner(),
        reason,
        at: at(1),
    };
    let accept = |reason| Command::AcceptOwnership {
        user: user("ada"),
        recipient: active("ada", &["member"]),
        giver: Some(active("owner", &["owner"])),
        reason,
    };
    let cases = [
        (vec![created()], offer(endless_reason())),
        (vec![created(), offered()], accept(endless_reason())),
        (vec![created(), offered()], Command::WithdrawOwnershipOffer { reason: endless_reason() }),
    ];
    for (history, command) in cases {
        assert_eq!(refused_input(given::<Organization>(&history).when(command).inspect_result()).0, "reason");
    }
}

#[test]
fn invitations_of_removed_members_are_kept_only_where_the_policy_says_so() {
    let with = |value| {
        let settings =
            Event::OrgSettingsUpdated { namespace: "policies".into(), value, previous_value: None, reason: None };
        fold::<Organization>(&[created(), settings]).keeps_invitations_of_removed_members()
    };
    assert!(with(Some(json!({"invitationsOfRemovedMembers": "keep"}))));
    assert!(!with(Some(json!({"invitationsOfRemovedMembers": "revoke"}))));
    assert!(!with(Some(json!({"invitationsOfRemovedMembers": ["keep"]}))));
    assert!(!with(Some(json!("keep"))));
    assert!(!with(None));
}
