//! What a webhook endpoint accepts and refuses.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use aggregates::ids::{EventId, Id, WebhookDeliveryId, WebhookEndpointId};
use aggregates::user::UserEvent;
use aggregates::webhook::{
    Changes, PATTERNS_MAX, RATE_PER_SECOND_MAX, Secret, Terms, URL_BYTES_MAX, WEBHOOKS, WebhookContent,
    WebhookEndpointCommand as Command, WebhookEndpointEvent as Event, WebhookEndpointState, WebhookOrdering, wants,
};
use aggregates::{Declared, Effect, Refusal, WebhookEndpoint, descriptors_of_organizations, text};
use chrono::{DateTime, Duration, Utc};
use common::{at, check_table, endless_reason, fold, given, outcome, refused_input};
use uuid::Uuid;

/// For how many hours a secret that was replaced still signs: receivers rely on it, so it stands here once more.
const OVERLAP: i64 = 24;

fn why() -> Option<String> {
    Some("because".to_owned())
}

fn patterns(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn terms() -> Terms {
    Terms {
        url: "https://books.example/hook".into(),
        about: Some("Feeds the books".into()),
        patterns: patterns(&["org.*", "member.invited"]),
        ordering: WebhookOrdering::PerSubject,
        content: WebhookContent::Thin,
        rate_per_second: Some(50),
    }
}

/// Terms that differ in everything.
fn others() -> Terms {
    Terms {
        url: "https://desk.example/hook".into(),
        about: None,
        patterns: patterns(&["*"]),
        ordering: WebhookOrdering::Parallel,
        content: WebhookContent::Full,
        rate_per_second: None,
    }
}

fn create(terms: Terms) -> Command {
    Command::Create { terms, reason: None, at: at(0) }
}

fn created(terms: Terms) -> Event {
    Event::WebhookCreated {
        url: terms.url,
        about: terms.about,
        event_patterns: terms.patterns,
        ordering: terms.ordering,
        content: terms.content,
        rate_per_second: terms.rate_per_second,
        secret_number: 1,
        created_at: at(0),
        reason: None,
    }
}

fn change(changes: Changes) -> Command {
    Command::Change { changes, reason: None }
}

fn all_of(terms: Terms) -> Changes {
    Changes {
        url: Some(terms.url),
        about: Some(terms.about),
        patterns: Some(terms.patterns),
        ordering: Some(terms.ordering),
        content: Some(terms.content),
        rate_per_second: Some(terms.rate_per_second),
    }
}

fn changed(before: Terms, after: Terms) -> Event {
    Event::WebhookChanged {
        url: after.url,
        previous_url: before.url,
        about: after.about,
        previous_about: before.about,
        event_patterns: after.patterns,
        previous_event_patterns: before.patterns,
        ordering: after.ordering,
        previous_ordering: before.ordering,
        content: after.content,
        previous_content: before.content,
        rate_per_second: after.rate_per_second,
        previous_rate_per_second: before.rate_per_second,
        reason: None,
    }
}

fn rotate(hour: i64) -> Command {
    Command::RotateSecret { reason: None, at: at(hour) }
}

fn rotated(secret_number: u64, hour: i64) -> Event {
    Event::WebhookSecretRotated { secret_number, previous_secret_until: at(hour + OVERLAP), reason: None }
}

fn disable() -> Command {
    Command::Disable { automatic: false, reason: None }
}

fn disabled() -> Event {
    Event::WebhookDisabled { automatic: false, reason: None }
}

fn enable() -> Command {
    Command::Enable { reason: None }
}

fn enabled() -> Event {
    Event::WebhookEnabled { reason: None }
}

fn warn(since: i64) -> Command {
    Command::Warn { failing_since: at(since), disabled_from: at(since + 72) }
}

fn failing(since: i64) -> Event {
    Event::WebhookFailing { failing_since: at(since), disabled_from: at(since + 72) }
}

/// An event that is sent again.
fn earlier() -> EventId {
    EventId::derived(&["earlier"])
}

fn redeliver(reason: Option<String>) -> Command {
    Command::Redeliver { event: earlier(), reason }
}

fn redelivered(reason: Option<String>) -> Event {
    Event::WebhookRedelivered { redelivered_event_id: earlier(), reason }
}

fn replay(after: u64, until: u64, patterns: Option<Vec<String>>) -> Command {
    Command::Replay { after, until, patterns, failed_only: false, reason: None }
}

fn replayed(replayed_after: u64, replayed_until: u64, event_patterns: Vec<String>) -> Event {
    Event::WebhookReplayed { replayed_after, replayed_until, event_patterns, failed_only: false, reason: None }
}

fn delete() -> Command {
    Command::Delete { reason: None }
}

fn deleted() -> Event {
    Event::WebhookDeleted { url: terms().url, reason: None }
}

fn refusal(history: &[Event], command: Command) -> String {
    outcome(given::<WebhookEndpoint>(history).when(command).inspect_result())
}

/// What comes of these terms: for a new endpoint, and for one that had others.
fn asked_for(terms: &Terms) -> [Result<Vec<Event>, Refusal>; 2] {
    let there = fold::<WebhookEndpoint>(&[created(others())]);
    [WebhookEndpoint::default().decide(create(terms.clone())), there.decide(change(all_of(terms.clone())))]
}

/// As what these terms are stored.
fn stored(asked: &Terms) -> Terms {
    let [creation, change] = asked_for(asked).map(Result::unwrap);
    let new = fold::<WebhookEndpoint>(&creation).terms;
    assert_eq!(
        fold::<WebhookEndpoint>(&[vec![created(others())], change].concat()).terms,
        new,
        "a change checks alike"
    );
    new
}

/// The field that is refused of these terms, and the message.
fn refused(asked: &Terms) -> (&'static str, String) {
    let [creation, change] = asked_for(asked).map(refused_input);
    assert_eq!(change, creation, "a change checks alike");
    creation
}

#[test]
fn what_is_created_is_enabled_and_signs_with_its_first_secret() {
    given::<WebhookEndpoint>(&[]).when(create(terms())).then_expect_events(vec![created(terms())]);
    let endpoint = fold::<WebhookEndpoint>(&[created(terms())]);
    assert_eq!((&endpoint.terms, endpoint.created_at), (&terms(), at(0)));
    assert_eq!((endpoint.state, &endpoint.disabled_reason), (WebhookEndpointState::Enabled, &None));
    assert_eq!(endpoint.secrets, [secret(1, None)]);
}

#[test]
fn an_endpoint_is_there_from_its_creation_until_it_is_deleted() {
    assert!(!WebhookEndpoint::default().is_present());
    let mut history = vec![created(terms())];
    for event in [disabled(), enabled(), rotated(2, 1)] {
        assert!(fold::<WebhookEndpoint>(&history).is_present());
        history.push(event);
    }
    history.push(deleted());
    assert!(!fold::<WebhookEndpoint>(&history).is_present());
}

#[test]
fn each_state_allows_what_the_table_says() {
    let living = created(terms());
    let states = [
        ("nothing", vec![]),
        ("enabled", vec![living.clone()]),
        ("disabled", vec![living.clone(), disabled()]),
        ("deleted", vec![living, deleted()]),
    ];
    let (nf, is, exists) = ("NotFound", "InvalidState", "AlreadyExists");
    check_table::<WebhookEndpoint>(
        &states,
        &[
            ("create", create(terms()), &["WebhookCreated", exists, exists, exists]),
            ("change", change(all_of(others())), &[nf, "WebhookChanged", "WebhookChanged", nf]),
            ("change nothing", change(Changes::default()), &[nf, "nothing", "nothing", nf]),
            ("rotate", rotate(1), &[nf, "WebhookSecretRotated", "WebhookSecretRotated", nf]),
            ("enable", enable(), &[nf, is, "WebhookEnabled", nf]),
            ("disable", disable(), &[nf, "WebhookDisabled", is, nf]),
            ("disable by itself", Command::Disable { automatic: true, reason: None }, &[nf, "WebhookDisabled", is, nf]),
            ("warn", warn(1), &[nf, "WebhookFailing", is, nf]),
            ("test", Command::Test { reason: None }, &[nf, "WebhookTested", is, nf]),
            ("redeliver", redeliver(None), &[nf, "WebhookRedelivered", is, nf]),
            ("replay", replay(0, 9, None), &[nf, "WebhookReplayed", is, nf]),
            ("delete", delete(), &[nf, "WebhookDeleted", "WebhookDeleted", nf]),
        ],
    );
}

// ---------------------------------------------------------------- changes

#[test]
fn a_change_carries_what_was_and_what_is() {
    let none = Changes::default;
    let cases = [
        (Changes { url: Some(others().url), ..none() }, Terms { url: others().url, ..terms() }),
        (Changes { about: Some(Some(" Books ".into())), ..none() }, Terms { about: Some("Books".into()), ..terms() }),
        (Changes { about: Some(None), ..none() }, Terms { about: None, ..terms() }),
        (Changes { patterns: Some(patterns(&["*"])), ..none() }, Terms { patterns: patterns(&["*"]), ..terms() }),
        (
            Changes { ordering: Some(WebhookOrdering::Parallel), ..none() },
            Terms { ordering: WebhookOrdering::Parallel, ..terms() },
        ),
        (Changes { content: Some(WebhookContent::Full), ..none() }, Terms { content: WebhookContent::Full, ..terms() }),
        (Changes { rate_per_second: Some(Some(51)), ..none() }, Terms { rate_per_second: Some(51), ..terms() }),
        (Changes { rate_per_second: Some(None), ..none() }, Terms { rate_per_second: None, ..terms() }),
        (all_of(others()), others()),
    ];
    for (changes, after) in cases {
        let (before, event) = (created(terms()), changed(terms(), after.clone()));
        given::<WebhookEndpoint>(std::slice::from_ref(&before))
            .when(change(changes))
            .then_expect_events(vec![event.clone()]);
        assert_eq!(fold::<WebhookEndpoint>(&[before, event]).terms, after);
    }
}

#[test]
fn a_change_of_nothing_emits_nothing() {
    let none = Changes::default;
    let cases = [
        none(),
        Changes { url: Some(terms().url), ..none() },
        Changes { about: Some(Some("  Feeds the books ".into())), ..none() },
        Changes { patterns: Some(patterns(&[" org.*", "member.invited", "org.*"])), ..none() },
        all_of(terms()),
    ];
    for changes in cases {
        // Not even for another reason.
        for reason in [None, why()] {
            given::<WebhookEndpoint>(&[created(terms())])
                .when(Command::Change { changes: changes.clone(), reason })
                .then_expect_events(vec![]);
        }
    }
}

#[test]
fn a_change_leaves_secrets_and_state_alone() {
    let history = [created(terms()), rotated(2, 1), failing(1), disabled()];
    let before = fold::<WebhookEndpoint>(&history);
    let after = fold::<WebhookEndpoint>(&[&history[..], &[changed(terms(), others())]].concat());
    assert_eq!(after, WebhookEndpoint { terms: others(), ..before });
}

// ---------------------------------------------------------------- patterns

#[test]
fn patterns_are_kept_in_their_order_trimmed_and_once() {
    let cases: [(&[&str], &[&str]); 5] = [
        (&["*"], &["*"]),
        (&["org.*"], &["org.*"]),
        (&["member.invited"], &["member.invited"]),
        (&[" org.*\n", "\tmember.invited "], &["org.*", "member.invited"]),
        (&["member.invited", "*", " member.invited", "org.*", "* "], &["member.invited", "*", "org.*"]),
    ];
    for (asked, kept) in cases {
        let asked = Terms { patterns: patterns(asked), ..terms() };
        assert_eq!(stored(&asked).patterns, kept);
    }
}

#[test]
fn a_pattern_that_names_no_event_of_an_organization_is_refused() {
    let bad = [
        "",
        " ",
        "**",
        "*.*",
        ".*",
        "*.invited",
        "mem*",
        "member",
        "member.",
        "member.i*",
        "member.*.*",
        "member.invited.*",
        "member.promoted",
        "Member.Invited",
        "MEMBER_INVITED",
        "org.**",
        "organization.*",
        "user.*",
        "user.registered",
        "user.no_such_thing",
    ];
    for pattern in bad {
        // One that is right beside it makes it no better.
        for list in [&[pattern][..], &["*", pattern]] {
            let (path, message) = refused(&Terms { patterns: patterns(list), ..terms() });
            assert_eq!(path, "events", "{pattern:?}");
            assert!(message.contains(&format!("{:?}", pattern.trim())), "it names the pattern: {message}");
        }
    }
}

#[test]
fn a_refused_pattern_is_shown_shortened() {
    let (_, message) = refused(&Terms { patterns: vec!["\u{e4}".repeat(1000)], ..terms() });
    assert_eq!(message.matches('\u{e4}').count(), 80, "{message}");
}

#[test]
fn every_event_of_an_organization_can_be_asked_for_and_none_of_a_user() {
    for event in descriptors_of_organizations() {
        let action = event.action();
        let all = format!("{}.*", action.split('.').next().unwrap());
        for pattern in [action.clone(), all] {
            let kept = stored(&Terms { patterns: vec![pattern], ..terms() }).patterns;
            assert!(wants(&kept, &action), "{kept:?} names {action}");
        }
    }
    for event in UserEvent::DESCRIPTORS {
        let asked = Terms { patterns: vec![event.action()], ..terms() };
        assert_eq!(refused(&asked).0, "events", "{}", event.name);
    }
}

#[test]
fn an_endpoint_has_one_pattern_at_least_and_so_many_at_most() {
    let asked = |count| Terms { patterns: vec!["*".to_owned(); count], ..terms() };
    assert_eq!(stored(&asked(PATTERNS_MAX)).patterns, ["*"]);
    // Those that would be dropped are counted: the list is measured as it was given.
    for count in [0, PATTERNS_MAX + 1] {
        let (path, message) = refused(&asked(count));
        assert_eq!(path, "events");
        assert!(message.contains(&format!("{count} patterns")), "{message}");
        assert!(message.contains(&PATTERNS_MAX.to_string()), "{message}");
    }
}

#[test]
fn a_pattern_wants_what_it_names_and_nothing_else() {
    let table: [(&[&str], &[&str], &[&str]); 5] = [
        (&[], &[], &["org.created", "member.invited", ""]),
        (&["*"], &["org.created", "member.invited", "webhook.tested"], &[]),
        (&["org.*"], &["org.created", "org.slug_changed"], &["org", "organ.played", "member.invited"]),
        (&["member.invited"], &["member.invited"], &["member", "member.invited_again", "member.joined"]),
        (&["org.*", "member.invited"], &["org.created", "member.invited"], &["member.joined", "project.created"]),
    ];
    for (list, wanted, unwanted) in table {
        let list = patterns(list);
        assert!(wanted.iter().all(|action| wants(&list, action)), "{list:?} want {wanted:?}");
        assert!(!unwanted.iter().any(|action| wants(&list, action)), "{list:?} want none of {unwanted:?}");
    }
}

// ---------------------------------------------------------------- limits

#[test]
fn an_address_has_so_many_bytes_at_most() {
    let long = |bytes: usize| format!("https://{}", "x".repeat(bytes - "https://".len()));
    // Two bytes each: it is bytes that are counted.
    let wide = "\u{e4}".repeat(URL_BYTES_MAX / 2);
    for url in [long(URL_BYTES_MAX), wide.clone()] {
        assert_eq!(stored(&Terms { url: url.clone(), ..terms() }).url, url);
    }
    for url in [String::new(), long(URL_BYTES_MAX + 1), wide + "x"] {
        let (path, message) = refused(&Terms { url: url.clone(), ..terms() });
        assert_eq!(path, "url");
        assert!(message.contains(&format!("{} bytes", url.len())), "{message}");
        assert!(message.contains(&URL_BYTES_MAX.to_string()), "{message}");
    }
}

#[test]
fn an_endpoint_is_held_to_one_event_a_second_at_least_and_so_many_at_most() {
    for rate_per_second in [None, Some(1), Some(RATE_PER_SECOND_MAX)] {
        assert_eq!(stored(&Terms { rate_per_second, ..terms() }).rate_per_second, rate_per_second);
    }
    for rate in [0, RATE_PER_SECOND_MAX + 1, u64::MAX] {
        let (path, message) = refused(&Terms { rate_per_second: Some(rate), ..terms() });
        assert_eq!(path, "ratePerSecond");
        assert!(message.contains(&format!("is {rate}:")), "{message}");
        assert!(message.contains(&RATE_PER_SECOND_MAX.to_string()), "{message}");
    }
}

#[test]
fn what_an_endpoint_is_for_is_trimmed_and_has_a_limit() {
    let longest = "\u{e4}".repeat(text::REASON_CHARS_MAX);
    let cases = [
        (None, None),
        (Some("  \n "), None),
        (Some(" Feeds the books "), Some("Feeds the books")),
        (Some(&*longest), Some(&*longest)),
    ];
    for (about, kept) in cases {
        let asked = Terms { about: about.map(str::to_owned), ..terms() };
        assert_eq!(stored(&asked).about.as_deref(), kept);
    }
    assert_eq!(refused(&Terms { about: endless_reason(), ..terms() }).0, "description");
}

#[test]
fn refuses_an_endless_reason_of_whatever_command() {
    let reason = endless_reason;
    let (on, off) = (vec![created(terms())], vec![created(terms()), disabled()]);
    let cases = [
        (&vec![], Command::Create { terms: terms(), reason: reason(), at: at(0) }),
        (&on, Command::Change { changes: all_of(others()), reason: reason() }),
        (&on, Command::RotateSecret { reason: reason(), at: at(1) }),
        (&on, Command::Disable { automatic: false, reason: reason() }),
        (&off, Command::Enable { reason: reason() }),
        (&on, Command::Test { reason: reason() }),
        (&on, redeliver(reason())),
        (&on, Command::Replay { after: 0, until: 9, patterns: None, failed_only: false, reason: reason() }),
        (&on, Command::Delete { reason: reason() }),
    ];
    for (history, command) in cases {
        assert_eq!(refused_input(given::<WebhookEndpoint>(history).when(command).inspect_result()).0, "reason");
    }
}

#[test]
fn a_reason_is_trimmed_and_a_blank_one_is_none() {
    for (given_reason, reason) in [(Some(" because "), why()), (Some("  \n "), None), (None, None)] {
        let asked = given_reason.map(str::to_owned);
        given::<WebhookEndpoint>(&[created(terms())])
            .when(Command::Test { reason: asked.clone() })
            .then_expect_events(vec![Event::WebhookTested { reason: reason.clone() }]);
        given::<WebhookEndpoint>(&[created(terms())])
            .when(redeliver(asked.clone()))
            .then_expect_events(vec![redelivered(reason.clone())]);
        given::<WebhookEndpoint>(&[created(terms())])
            .when(Command::Delete { reason: asked })
            .then_expect_events(vec![Event::WebhookDeleted { url: terms().url, reason }]);
    }
}

// ---------------------------------------------------------------- secrets

fn secret(number: u64, until: Option<i64>) -> Secret {
    Secret { number, until: until.map(at) }
}

fn signing(history: &[Event], now: DateTime<Utc>) -> Vec<u64> {
    fold::<WebhookEndpoint>(history).signing_at(now).collect()
}

#[test]
fn the_newest_secret_signs_and_the_one_before_for_a_day() {
    given::<WebhookEndpoint>(&[created(terms())]).when(rotate(1)).then_expect_events(vec![rotated(2, 1)]);
    let history = [created(terms()), rotated(2, 1)];
    assert_eq!(signing(&history, at(1)), [2, 1]);
    assert_eq!(signing(&history, at(1 + OVERLAP) - Duration::microseconds(1)), [2, 1]);
    assert_eq!(signing(&history, at(1 + OVERLAP)), [2], "at that moment it signs no more");
    assert_eq!(signing(&history, at(99_999)), [2], "the newest one signs for ever");
}

#[test]
fn what_is_not_there_yet_signs_with_nothing() {
    assert_eq!(WebhookEndpoint::default().signing_at(at(0)).count(), 0);
}

/// As many rotations as one day allows.
fn restless() -> [Event; 5] {
    [created(terms()), rotated(2, 1), rotated(3, 2), rotated(4, 3), rotated(5, 4)]
}

#[test]
fn each_of_several_secrets_replaced_within_a_day_has_its_own_end() {
    let history = restless();
    for (made, event) in history.iter().enumerate().skip(1) {
        let hour = i64::try_from(made).unwrap();
        given::<WebhookEndpoint>(&history[..made]).when(rotate(hour)).then_expect_events(vec![event.clone()]);
    }
    assert_eq!(
        fold::<WebhookEndpoint>(&history).secrets,
        [secret(5, None), secret(4, Some(28)), secret(3, Some(27)), secret(2, Some(26)), secret(1, Some(25))]
    );
    let signs: [(i64, &[u64]); 5] =
        [(4, &[5, 4, 3, 2, 1]), (25, &[5, 4, 3, 2]), (26, &[5, 4, 3]), (27, &[5, 4]), (28, &[5])];
    for (hour, numbers) in signs {
        assert_eq!(signing(&history, at(hour)), numbers, "at {hour}");
    }
}

#[test]
fn no_secret_comes_while_four_that_were_replaced_still_sign() {
    let history = restless();
    for hour in [4, 5, 24] {
        let refused = given::<WebhookEndpoint>(&history).when(rotate(hour)).inspect_result().unwrap_err();
        assert!(matches!(&refused, Refusal::InvalidState(message) if message.contains('4')), "at {hour}: {refused}");
    }
    given::<WebhookEndpoint>(&history).when(rotate(25)).then_expect_events(vec![rotated(6, 25)]);
    assert_eq!(
        fold::<WebhookEndpoint>(&[&history[..], &[rotated(6, 25)]].concat()).secrets,
        [secret(6, None), secret(5, Some(49)), secret(4, Some(28)), secret(3, Some(27)), secret(2, Some(26))],
        "the one that ended is forgotten"
    );
}

#[test]
fn a_number_is_not_given_again_when_its_secret_is_forgotten() {
    let history = [created(terms()), rotated(2, 1)];
    given::<WebhookEndpoint>(&history).when(rotate(100)).then_expect_events(vec![rotated(3, 100)]);
    let after = fold::<WebhookEndpoint>(&[&history[..], &[rotated(3, 100)]].concat());
    assert_eq!(after.secrets, [secret(3, None), secret(2, Some(100 + OVERLAP))]);
}

// ---------------------------------------------------------------- on and off

#[test]
fn a_disabled_endpoint_knows_why_until_it_is_enabled() {
    for automatic in [false, true] {
        let off = Event::WebhookDisabled { automatic, reason: why() };
        given::<WebhookEndpoint>(&[created(terms())])
            .when(Command::Disable { automatic, reason: Some(" because ".into()) })
            .then_expect_events(vec![off.clone()]);
        let endpoint = fold::<WebhookEndpoint>(&[created(terms()), off.clone()]);
        assert_eq!((endpoint.state, endpoint.disabled_reason), (WebhookEndpointState::Disabled, why()));
        assert_eq!(
            fold::<WebhookEndpoint>(&[created(terms()), off, enabled()]),
            fold(&[created(terms())]),
            "it is as it was"
        );
    }
}

#[test]
fn a_failing_receiver_is_warned_of_once() {
    given::<WebhookEndpoint>(&[created(terms())]).when(warn(1)).then_expect_events(vec![failing(1)]);
    let warned = [created(terms()), failing(1)];
    assert_eq!(fold::<WebhookEndpoint>(&warned).warned_of, Some(at(1)));
    assert_eq!(refusal(&warned, warn(1)), "InvalidState");
    assert_eq!(refusal(&warned, warn(0)), "InvalidState");
    let later = Command::Warn { failing_since: at(1), disabled_from: at(99) };
    assert_eq!(refusal(&warned, later), "InvalidState", "another end makes it no other failure");
}

#[test]
fn a_receiver_that_fails_anew_is_warned_of_anew() {
    let warned = [created(terms()), failing(1)];
    given::<WebhookEndpoint>(&warned).when(warn(2)).then_expect_events(vec![failing(2)]);
    let again = [created(terms()), failing(1), failing(2)];
    assert_eq!([refusal(&again, warn(1)), refusal(&again, warn(2))], ["InvalidState", "InvalidState"]);
}

#[test]
fn nobody_is_warned_of_what_is_disabled_already() {
    let off = [created(terms()), failing(1), disabled()];
    assert_eq!([refusal(&off, warn(1)), refusal(&off, warn(2))], ["InvalidState", "InvalidState"]);
    let on = [created(terms()), failing(1), disabled(), enabled()];
    assert_eq!(refusal(&on, warn(1)), "InvalidState", "of this one there was a warning");
    given::<WebhookEndpoint>(&on).when(warn(2)).then_expect_events(vec![failing(2)]);
}

#[test]
fn what_is_only_sent_changes_nothing_of_the_endpoint() {
    let sent = [Event::WebhookTested { reason: why() }, redelivered(why()), replayed(0, 9, patterns(&["*"]))];
    for event in sent {
        assert_eq!(fold::<WebhookEndpoint>(&[created(terms()), event]), fold(&[created(terms())]));
    }
}

// ---------------------------------------------------------------- what is sent again

#[test]
fn a_replay_sends_what_the_endpoint_wants_now_or_what_is_named() {
    let moved = [created(terms()), changed(terms(), others())];
    let wanted = replayed(3, 9, others().patterns);
    given::<WebhookEndpoint>(&moved).when(replay(3, 9, None)).then_expect_events(vec![wanted]);
    // Also what the endpoint does not want otherwise.
    given::<WebhookEndpoint>(&[created(terms())])
        .when(replay(3, 9, Some(patterns(&[" project.*", "member.joined", "project.*"]))))
        .then_expect_events(vec![replayed(3, 9, patterns(&["project.*", "member.joined"]))]);
}

#[test]
fn a_replay_may_be_of_what_failed_alone() {
    for failed_only in [false, true] {
        given::<WebhookEndpoint>(&[created(terms())])
            .when(Command::Replay { after: 3, until: 9, patterns: None, failed_only, reason: Some(" because ".into()) })
            .then_expect_events(vec![Event::WebhookReplayed {
                replayed_after: 3,
                replayed_until: 9,
                event_patterns: terms().patterns,
                failed_only,
                reason: why(),
            }]);
    }
}

#[test]
fn a_replay_holds_one_position_at_least() {
    let there = [created(terms())];
    for (after, until) in [(0, 1), (8, 9), (0, u64::MAX), (u64::MAX - 1, u64::MAX)] {
        let expected = replayed(after, until, terms().patterns);
        given::<WebhookEndpoint>(&there).when(replay(after, until, None)).then_expect_events(vec![expected]);
    }
    for (after, until) in [(0, 0), (9, 9), (9, 8), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
        let result = given::<WebhookEndpoint>(&there).when(replay(after, until, None)).inspect_result();
        assert_eq!(refused_input(result).0, "after", "{after} to {until}");
    }
}

#[test]
fn the_patterns_of_a_replay_are_checked_as_those_of_an_endpoint() {
    let there = [created(terms())];
    let many = |count| vec!["*".to_owned(); count];
    let once = replayed(0, 1, patterns(&["*"]));
    given::<WebhookEndpoint>(&there).when(replay(0, 1, Some(many(PATTERNS_MAX)))).then_expect_events(vec![once]);
    for bad in [vec![], many(PATTERNS_MAX + 1), patterns(&["*", "user.*"]), patterns(&["mem*"]), patterns(&[""])] {
        let result = given::<WebhookEndpoint>(&there).when(replay(0, 1, Some(bad.clone()))).inspect_result();
        assert_eq!(refused_input(result).0, "events", "{bad:?}");
    }
}

#[test]
fn a_delivery_follows_from_endpoint_and_event_and_sorts_by_the_events_time() {
    // As a UUIDv7 has it: milliseconds first, then version and variant.
    let event = |millis: u128| EventId::from_uuid(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62)));
    let of = |name: &str, millis| WebhookDeliveryId::of(&WebhookEndpointId::derived(&[name]), &event(millis));
    assert_eq!(of("books", 1), of("books", 1));
    assert_ne!(of("books", 1), of("desk", 1));
    assert!(of("books", 1) < of("desk", 2) && of("desk", 1) < of("books", 2));
    assert!(of("books", 255) < of("books", 256));
    // Of two events of one moment each has its own.
    let other = EventId::from_uuid(Uuid::from_u128((1 << 80) | (7 << 76) | (2 << 62) | 1));
    assert_ne!(of("books", 1), WebhookDeliveryId::of(&WebhookEndpointId::derived(&["books"]), &other));
    assert_eq!(of("books", 1).to_string().parse::<WebhookDeliveryId>().unwrap(), of("books", 1));
}

// ---------------------------------------------------------------- the end

#[test]
fn a_deletion_says_where_to_events_went_last() {
    let moved = [created(terms()), changed(terms(), others())];
    given::<WebhookEndpoint>(&moved)
        .when(delete())
        .then_expect_events(vec![Event::WebhookDeleted { url: others().url, reason: None }]);
}

#[test]
fn an_endpoint_is_counted_from_its_creation_until_it_is_deleted() {
    let effects = [
        (created(terms()), vec![Effect::tally(WEBHOOKS, 1)]),
        (changed(terms(), others()), vec![]),
        (rotated(2, 1), vec![]),
        (disabled(), vec![]),
        (enabled(), vec![]),
        (failing(1), vec![]),
        (Event::WebhookTested { reason: None }, vec![]),
        (redelivered(None), vec![]),
        (replayed(0, 9, patterns(&["*"])), vec![]),
        (deleted(), vec![Effect::tally(WEBHOOKS, -1)]),
    ];
    let tested: BTreeSet<_> = effects.iter().map(|(event, _)| event.descriptor().name).collect();
    assert_eq!(tested, Event::DESCRIPTORS.iter().map(|descriptor| descriptor.name).collect());
    for (event, expected) in effects {
        assert_eq!(event.effects(), expected, "{event:?}");
    }
}
