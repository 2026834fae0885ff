//! What a user's small stream accepts and refuses.

#![allow(clippy::unwrap_used)]

mod common;

use aggregates::user::{Profile, UserCommand as Command, UserEvent as Event, UserState};
use aggregates::{Effect, Erasure, Personal, Refusal, User};
use common::{check_table, digest, fold, given, user};

fn own(value: &str) -> Option<Personal> {
    Some(Personal::new(user("ada").as_ref(), value))
}

fn profile(email: Option<&str>, name: Option<&str>) -> Profile {
    Profile { email: email.map(str::to_owned), display_name: name.map(str::to_owned) }
}

fn register(profile: Profile) -> Command {
    Command::Register {
        id: user("ada"),
        issuer: "https://id.example".into(),
        subject: "4711".into(),
        identity_claim: digest("4711"),
        profile,
        held: false,
    }
}

fn follow(email: Option<&str>, name: Option<&str>) -> Command {
    Command::FollowProfile { profile: profile(email, name) }
}

fn registered(email: Option<Personal>, display_name: Option<Personal>) -> Event {
    Event::UserRegistered {
        issuer: "https://id.example".into(),
        subject: Personal::new(user("ada").as_ref(), "4711"),
        identity_claim: digest("4711"),
        email,
        display_name,
    }
}

/// Address and name before and after.
fn changed(before: (Option<Personal>, Option<Personal>), after: (Option<Personal>, Option<Personal>)) -> Event {
    let ((previous_email, previous_display_name), (email, display_name)) = (before, after);
    Event::UserProfileChanged { email, previous_email, display_name, previous_display_name }
}

fn held() -> Event {
    Event::UserHeld { user_state: UserState::Pending }
}

fn revoked(from: UserState) -> Event {
    Event::UserRevoked { user_state: UserState::Revoked, previous_user_state: from, reason: None }
}

fn ada() -> Event {
    registered(own("ada@example.com"), own("Ada"))
}

#[test]
fn every_command_in_every_state() {
    check_table::<User>(
        &[
            ("never seen", vec![]),
            ("registered", vec![ada()]),
            ("held", vec![ada(), held()]),
            ("revoked", vec![ada(), revoked(UserState::Active)]),
        ],
        &[
            (
                "register",
                register(Profile::default()),
                &["UserRegistered", "AlreadyExists", "AlreadyExists", "AlreadyExists"],
            ),
            (
                "follow a new name",
                follow(None, Some("Ada L")),
                &["NotFound", "UserProfileChanged", "UserProfileChanged", "nothing"],
            ),
            (
                "follow the same",
                follow(Some("ada@example.com"), Some("Ada")),
                &["NotFound", "nothing", "nothing", "nothing"],
            ),
            (
                "approve",
                Command::Approve { reason: None },
                &["NotFound", "InvalidState", "UserApproved", "InvalidState"],
            ),
            ("revoke", Command::Revoke { reason: None }, &["NotFound", "UserRevoked", "UserRevoked", "InvalidState"]),
            (
                "reinstate",
                Command::Reinstate { reason: None },
                &["NotFound", "InvalidState", "InvalidState", "UserReinstated"],
            ),
        ],
    );
}

#[test]
fn registers_what_the_token_says() {
    given::<User>(&[]).when(register(profile(Some("ada@example.com"), Some("Ada")))).then_expect_events(vec![ada()]);
    let known: User = fold(&[ada()]);
    assert_eq!((known.id, known.email, known.display_name), (Some(user("ada")), own("ada@example.com"), own("Ada")));
}

#[test]
fn who_has_to_be_approved_is_held_from_the_beginning_and_let_in_by_an_operator() {
    let Command::Register { id, issuer, subject, identity_claim, profile, .. } = register(Profile::default()) else {
        unreachable!()
    };
    let command = Command::Register { id, issuer, subject, identity_claim, profile, held: true };
    given::<User>(&[]).when(command).then_expect_events(vec![registered(None, None), held()]);
    let approved = Event::UserApproved { user_state: UserState::Active, reason: own("known to us") };
    given::<User>(&[registered(None, None), held()])
        .when(Command::Approve { reason: Some("known to us".into()) })
        .then_expect_events(vec![approved.clone()]);
    let states =
        [vec![ada()], vec![ada(), held()], vec![ada(), held(), approved]].map(|events| fold::<User>(&events).state);
    assert_eq!(states, [UserState::Active, UserState::Pending, UserState::Active]);
}

#[test]
fn a_revoked_user_says_what_he_was_and_comes_back_active() {
    given::<User>(&[ada(), held()])
        .when(Command::Revoke { reason: None })
        .then_expect_events(vec![revoked(UserState::Pending)]);
    let reinstated = Event::UserReinstated { user_state: UserState::Active, reason: None };
    let history = [ada(), held(), revoked(UserState::Pending)];
    given::<User>(&history).when(Command::Reinstate { reason: None }).then_expect_events(vec![reinstated.clone()]);
    assert_eq!(fold::<User>(&history).state, UserState::Revoked);
    assert_eq!(fold::<User>(&[&history[..], &[reinstated]].concat()).state, UserState::Active);
}

#[test]
fn registers_nobody_twice_and_names_who_is_there() {
    given::<User>(&[ada()]).when(register(Profile::default())).then_expect_error(Refusal::AlreadyExists {
        path: "userId",
        message: "this user is registered already".into(),
        existing: user("ada").to_string(),
    });
}

#[test]
fn an_unusable_name_or_address_of_the_issuer_turns_nobody_away() {
    given::<User>(&[])
        .when(register(profile(Some("no address"), Some("a\u{202e}b"))))
        .then_expect_events(vec![registered(None, None)]);
}

#[test]
fn follows_a_changed_address_and_keeps_the_name() {
    let changed = changed((own("ada@example.com"), own("Ada")), (own("ada@new.example"), own("Ada")));
    given::<User>(&[ada()]).when(follow(Some("ada@new.example"), None)).then_expect_events(vec![changed.clone()]);
    let known: User = fold(&[ada(), changed]);
    assert_eq!((known.email, known.display_name), (own("ada@new.example"), own("Ada")));
}

#[test]
fn follows_a_changed_name_and_keeps_the_address() {
    let changed = changed((own("ada@example.com"), own("Ada")), (own("ada@example.com"), own("Ada L")));
    given::<User>(&[ada()]).when(follow(None, Some("Ada L"))).then_expect_events(vec![changed]);
}

#[test]
fn a_first_address_and_name_had_none_before() {
    let first = changed((None, None), (own("ada@example.com"), own("Ada")));
    given::<User>(&[registered(None, None)])
        .when(follow(Some("ada@example.com"), Some("Ada")))
        .then_expect_events(vec![first]);
}

#[test]
fn each_change_tells_what_the_one_before_made() {
    let (at_first, then) = ((own("ada@example.com"), own("Ada")), (own("ada@new.example"), own("Ada King")));
    let history = [ada(), changed(at_first, then.clone())];
    let last = (own("ada@example.com"), own("Ada L"));
    given::<User>(&history)
        .when(follow(Some("ada@example.com"), Some("Ada L")))
        .then_expect_events(vec![changed(then, last)]);
}

#[test]
fn a_token_that_says_nothing_changes_nothing() {
    given::<User>(&[ada()]).when(follow(None, None)).then_expect_events(vec![]);
}

#[test]
fn an_unusable_name_leaves_the_one_that_is_known() {
    given::<User>(&[ada()]).when(follow(Some("none"), Some("\u{200b}"))).then_expect_events(vec![]);
    given::<User>(&[ada()]).when(follow(None, Some("\u{200d}"))).then_expect_events(vec![]);
}

#[test]
fn an_erased_profile_is_filled_by_the_next_token() {
    let mut erased = ada();
    aggregates::Declared::visit_personal(&mut erased, &mut |_, personal| personal.seal(|_| None));
    given::<User>(std::slice::from_ref(&erased)).when(follow(None, None)).then_expect_events(vec![]);
    let mut nobody = own("Ada");
    nobody.iter_mut().for_each(|personal| personal.seal(|_| None));
    let changed = changed((nobody.clone(), nobody), (own("ada@example.com"), own("Ada")));
    given::<User>(&[erased]).when(follow(Some("ada@example.com"), Some("Ada"))).then_expect_events(vec![changed]);
}

#[test]
fn a_registration_claims_the_identity_and_a_profile_claims_nothing() {
    let claim = Effect::Claim { scope: User::IDENTITY, key: digest("4711").0, until: None };
    assert_eq!(ada().effects(), vec![claim]);
    assert_eq!(changed((None, None), (None, None)).effects(), vec![]);
}

#[test]
fn who_is_erased_is_nobody_and_whoever_comes_back_is_somebody_else() {
    let claims = vec![digest("ada@example.com")];
    let because = Some((user("bob"), " asked for it ".to_owned()));
    let erased = Event::UserErased {
        user_state: UserState::Erased,
        previous_user_state: UserState::Active,
        identity_claim: digest("4711"),
        email_claims: claims.clone(),
        // The operator's words are under the operator's key.
        reason: Some(Personal::new(user("bob").as_ref(), "asked for it")),
        named_in: None,
        named_in_more: None,
        first_erased_at: None,
    };
    assert_eq!(erased.effects(), [Effect::Release { scope: User::IDENTITY, key: digest("4711").0 }]);
    assert!(aggregates::Event::from(erased.clone()).destroys_key());
    let erase = Command::Erase { email_claims: claims, erasure: Erasure { because, ..Erasure::default() } };
    given::<User>(&[ada()]).when(erase.clone()).then_expect_events(vec![erased.clone()]);
    let history = vec![ada(), erased];
    let state = fold::<User>(&history);
    assert_eq!((state.email.clone(), state.display_name.clone(), state.state), (None, None, UserState::Erased));
    // Once, and nothing follows.
    assert_eq!(state.decide(erase.clone()), Ok(vec![]));
    assert_eq!(state.decide(follow(Some("ada@new.example"), None)), Ok(vec![]));
    for command in
        [Command::Approve { reason: None }, Command::Revoke { reason: None }, Command::Reinstate { reason: None }]
    {
        assert!(matches!(state.decide(command), Err(Refusal::InvalidState(_))));
    }
    assert_eq!(User::default().decide(erase), Err(Refusal::NotFound));
}
