//! What an API token accepts and refuses.

#![allow(clippy::unwrap_used)]

mod common;

use aggregates::api_token::{
    ApiTokenCommand as Command, ApiTokenEvent as Event, ApiTokenState, Creator, LIFETIME_DAYS_MAX, TOKENS,
};
use aggregates::ids::{ApiTokenId, Id};
use aggregates::roles::Permissions;
use aggregates::{Actor, ApiToken, Effect, Personal, Refusal};
use chrono::{DateTime, Utc};
use common::{at, check_table, digest, endless_reason, fold, given, holder_of, outcome, refused_input, roles, user};

fn ada() -> Actor {
    Actor::User(user("ada"))
}

fn by(role: &str) -> Creator {
    Creator { actor: ada(), responsible: ada(), permissions: holder_of(&[role]).permissions, until: None }
}

fn create(permissions: &[&str], by: Creator, expires_at: Option<DateTime<Utc>>) -> Command {
    Command::Create {
        name: " Deploy ".into(),
        permissions: roles(permissions),
        hint: "tnt_…Ab1x".into(),
        secret: digest("secret"),
        by,
        expires_at,
        reason: None,
        at: at(0),
    }
}

fn created(permissions: &[&str], token_expires_at: Option<DateTime<Utc>>) -> Event {
    Event::TokenCreated {
        name: "Deploy".into(),
        hint: "tnt_…Ab1x".into(),
        secret_digest: digest("secret"),
        permissions: roles(permissions),
        created_by: ada(),
        responsible: ada(),
        token_expires_at,
        created_at: at(0),
        reason: None,
    }
}

fn revoked(hour: i64) -> Event {
    Event::TokenRevoked { secret_digest: digest("secret"), revoked_at: at(hour), reason: None }
}

fn expired(hour: i64) -> Event {
    Event::TokenExpired { secret_digest: digest("secret"), expires_at: at(hour) }
}

fn refusal(command: Command) -> String {
    outcome(given::<ApiToken>(&[]).when(command).inspect_result())
}

#[test]
fn what_is_created_holds_sorted_permissions_and_a_trimmed_name() {
    given::<ApiToken>(&[])
        .when(create(&["project:read", "organization:read", "project:read"], by("member"), Some(at(5))))
        .then_expect_events(vec![created(&["organization:read", "project:read"], Some(at(5)))]);
}

#[test]
fn each_state_allows_what_the_table_says() {
    let (living, ending) = (created(&["project:read"], None), created(&["project:read"], Some(at(5))));
    let states = [
        ("nothing", vec![]),
        ("living", vec![living.clone()]),
        ("past its time", vec![ending.clone()]),
        ("revoked", vec![living, revoked(1)]),
        ("expired", vec![ending, expired(5)]),
    ];
    let revoke = Command::Revoke { reason: None, at: at(6) };
    let table: [(&str, Command, &[&str]); 3] = [
        (
            "create",
            create(&["project:read"], by("member"), None),
            &["TokenCreated", "AlreadyExists", "AlreadyExists", "AlreadyExists", "AlreadyExists"],
        ),
        ("revoke", revoke, &["NotFound", "TokenRevoked", "TokenRevoked", "InvalidState", "InvalidState"]),
        (
            "expire",
            Command::Expire { at: at(5) },
            &["NotFound", "InvalidState", "TokenExpired", "InvalidState", "InvalidState"],
        ),
    ];
    check_table::<ApiToken>(&states, &table);
}

#[test]
fn nobody_gives_a_token_more_than_he_has() {
    assert_eq!(refusal(create(&["project:delete"], by("member"), None)), "RoleNotGrantable");
    assert_eq!(refusal(create(&["organization:delete"], by("admin"), None)), "RoleNotGrantable");
    assert_eq!(refusal(create(&["organization:delete"], by("owner"), None)), "TokenCreated");
    let nothing = Creator { permissions: Permissions::default(), ..by("member") };
    assert_eq!(refusal(create(&["organization:read"], nothing, None)), "RoleNotGrantable");
}

#[test]
fn permissions_are_known_and_there_is_one() {
    let ask = |names: &[&str]| refused_input(ApiToken::default().decide(create(names, by("owner"), None)));
    let (path, message) = ask(&["project:read", "project:fly"]);
    assert!(path == "permissions" && message.contains("project:fly"), "{message}");
    assert_eq!(ask(&[]).0, "permissions");
}

#[test]
fn its_time_is_in_the_future_and_no_more_than_ten_years() {
    let ask = |end: DateTime<Utc>| refusal(create(&["project:read"], by("owner"), Some(end)));
    assert_eq!(ask(at(0)), "InvalidInput");
    assert_eq!(ask(at(-1)), "InvalidInput");
    assert_eq!(ask(at(1)), "TokenCreated");
    assert_eq!(ask(at(24 * LIFETIME_DAYS_MAX)), "TokenCreated");
    assert_eq!(ask(at(24 * LIFETIME_DAYS_MAX + 1)), "InvalidInput");
}

#[test]
fn a_token_creates_none_that_outlives_it_and_hands_on_who_answers() {
    let actor = Actor::Token(ApiTokenId::derived(&["first"]));
    let token = Creator { actor: actor.clone(), until: Some(at(9)), ..by("admin") };
    let ask = |end| refusal(create(&["project:read"], token.clone(), end));
    assert_eq!([ask(None), ask(Some(at(10)))], ["InvalidInput", "InvalidInput"]);
    let events = ApiToken::default().decide(create(&["project:read"], token.clone(), Some(at(9)))).unwrap();
    let made = fold::<ApiToken>(&events);
    assert_eq!((made.created_by, made.responsible), (actor, ada()));
}

#[test]
fn why_it_was_revoked_is_about_the_user_who_answers_for_it() {
    let reason = Some("a laptop was stolen".to_owned());
    let told = Some(Personal::new(user("ada").as_ref(), "a laptop was stolen"));
    given::<ApiToken>(&[created(&["project:read"], None)])
        .when(Command::Revoke { reason, at: at(1) })
        .then_expect_events(vec![Event::TokenRevoked {
            secret_digest: digest("secret"),
            revoked_at: at(1),
            reason: told,
        }]);
}

#[test]
fn a_token_permits_something_only_while_it_lives() {
    let wanted: Permissions = Permissions::of_names(&roles(&["project:read"]));
    let living = fold::<ApiToken>(&[created(&["project:read"], Some(at(5)))]);
    assert_eq!((living.permissions(), living.state_at(at(4))), (wanted, ApiTokenState::Active));
    assert_eq!(living.state_at(at(5)), ApiTokenState::Expired);
    for end in [revoked(1), expired(5)] {
        let ended = fold::<ApiToken>(&[created(&["project:read"], Some(at(5))), end]);
        assert_eq!(ended.permissions(), Permissions::default());
        assert_ne!(ended.state_at(at(0)), ApiTokenState::Active);
    }
    assert_eq!(ApiToken::default().permissions(), Permissions::default());
}

#[test]
fn a_living_token_is_found_by_its_secret_and_counted() {
    let key = digest("secret").0;
    let claim = Effect::Claim { scope: ApiToken::SECRET, key: key.clone(), until: Some(at(5)) };
    assert_eq!(created(&["project:read"], Some(at(5))).effects(), [claim, Effect::tally(TOKENS, 1)]);
    for end in [revoked(1), expired(5)] {
        let release = Effect::Release { scope: ApiToken::SECRET, key: key.clone() };
        assert_eq!(end.effects(), [release, Effect::tally(TOKENS, -1)]);
    }
}

#[test]
fn texts_have_their_limits() {
    let mut command = create(&["project:read"], by("owner"), None);
    if let Command::Create { name, .. } = &mut command {
        *name = "x".repeat(201);
    }
    assert_eq!(refused_input(ApiToken::default().decide(command)).0, "name");
    let living = fold::<ApiToken>(&[created(&["project:read"], None)]);
    let revoke = Command::Revoke { reason: endless_reason(), at: at(1) };
    assert!(matches!(living.decide(revoke), Err(Refusal::InvalidInput { path: "reason", .. })));
}
