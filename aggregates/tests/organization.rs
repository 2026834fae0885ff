//! What an organization accepts and refuses, in each of its states.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use aggregates::guard::OWNERS;
use aggregates::organization::{
    LimitChange, Limits, OrganizationCommand as Command, OrganizationEvent as Event, SETTINGS_NAMESPACES_MAX,
};
use aggregates::roles::{Permission, Permissions};
use aggregates::status::{Lifecycle, Review, Verification};
use aggregates::{Actor, Declared, Effect, Organization, Personal, Refusal, Scope, text};
use common::{
    at, check_table, endless_reason, fold, given, kind, membership, organization, outcome, refused_input, user,
};
use cqrs_es::DomainEvent;
use serde_json::{Value, json};

const MEMBERS: &str = aggregates::membership::MEMBERS.name;
const PROJECTS: &str = aggregates::project::PROJECTS.name;
const TOKENS: &str = aggregates::api_token::TOKENS.name;
const WEBHOOKS: &str = aggregates::webhook::WEBHOOKS.name;

const VERIFICATIONS: [Verification; 6] = [
    Verification::InSetup,
    Verification::Pending,
    Verification::Waitlisted,
    Verification::Verified,
    Verification::Rejected,
    Verification::Blocked,
];

fn why() -> Option<String> {
    Some("because".to_owned())
}

fn limits(members: Option<u64>, projects: Option<u64>) -> Limits {
    BTreeMap::from([(MEMBERS.to_owned(), members), (PROJECTS.to_owned(), projects)])
}

/// What is in force by such limits: tokens and webhook endpoints have a maximum where nobody names one.
fn in_force(members: Option<u64>, projects: Option<u64>) -> Limits {
    let tokens = (TOKENS.to_owned(), Some(100));
    let webhooks = (WEBHOOKS.to_owned(), Some(100));
    limits(members, projects).into_iter().chain([tokens, webhooks]).collect()
}

fn contact(address: &str) -> Option<Personal> {
    Some(Personal::new(organization().as_ref(), address))
}

fn created() -> Event {
    Event::OrgCreated {
        name: "Acme".into(),
        slug: "acme".into(),
        contact_email: contact("office@acme.example"),
        external_id: Some("crm-7".into()),
        plan: "basic".into(),
        limits: limits(Some(5), None),
        created_at: at(0),
        reason: None,
    }
}

fn create() -> Command {
    Command::Create {
        id: organization(),
        name: "Acme".into(),
        slug: "acme".into(),
        contact_email: Some("office@acme.example".into()),
        external_id: Some("crm-7".into()),
        plan: "basic".into(),
        limits: limits(Some(5), None),
        verified_because: None,
        reason: None,
        at: at(0),
    }
}

/// An update of nothing, to be filled in.
struct Update {
    name: Option<&'static str>,
    slug: Option<&'static str>,
    contact_email: Option<Option<&'static str>>,
    external_id: Option<Option<&'static str>>,
}

const UNCHANGED: Update = Update { name: None, slug: None, contact_email: None, external_id: None };

impl From<Update> for Command {
    fn from(update: Update) -> Self {
        Self::Update {
            id: organization(),
            name: update.name.map(str::to_owned),
            slug: update.slug.map(str::to_owned),
            contact_email: update.contact_email.map(|address| address.map(str::to_owned)),
            external_id: update.external_id.map(|id| id.map(str::to_owned)),
            reason: why(),
        }
    }
}

/// A new name for this reason.
fn update_because(name: &str, reason: Option<String>) -> Command {
    let (name, slug, contact_email, external_id) = (Some(name.to_owned()), None, None, None);
    Command::Update { id: organization(), name, slug, contact_email, external_id, reason }
}

fn update(update: Update) -> Command {
    update.into()
}

fn settings(namespace: &str, value: Value) -> Command {
    Command::UpdateSettings { namespace: namespace.into(), value, reason: why() }
}

fn settings_updated(namespace: &str, value: Option<Value>, previous_value: Option<Value>) -> Event {
    Event::OrgSettingsUpdated { namespace: namespace.into(), value, previous_value, reason: why() }
}

fn review(review: Review) -> Command {
    Command::Review { review, reason: why() }
}

fn delete() -> Command {
    Command::Delete { reason: why(), by_operator: false, purge_at: at(10) }
}

fn deleted() -> Event {
    Event::OrgDeleted { previous_lifecycle: Lifecycle::Active, purge_at: at(10), by_operator: false, reason: why() }
}

fn restore(hour: i64) -> Command {
    Command::Restore { reason: None, at: at(hour) }
}

fn restored() -> Event {
    Event::OrgRestored { lifecycle: Lifecycle::Active, reason: None }
}

fn deactivated() -> Event {
    Event::OrgDeactivated { reason: None }
}

fn purged() -> Event {
    Event::OrgPurged { slug: "acme".into(), external_id: Some("crm-7".into()) }
}

fn pruned() -> Event {
    Event::OrgPruned { kept_days: 400, created_at: at(0) }
}

fn set_limit(limit: &str, value: LimitChange) -> Command {
    Command::SetLimit { limit: limit.into(), value, reason: why() }
}

fn limit_set(maximum: Option<u64>, previous_maximum: Option<u64>, from_plan: bool) -> Event {
    Event::OrgLimitSet { limit: MEMBERS.into(), maximum, previous_maximum, from_plan, reason: why() }
}

fn change_plan(plan: &str, limits: Limits) -> Command {
    Command::ChangePlan { plan: plan.into(), limits, reason: why() }
}

/// The event of a step along the verification axis.
fn reviewed(step: Review, previous_verification: Verification, verification: Verification) -> Event {
    let reason = why();
    match step {
        Review::Submit => Event::OrgSubmitted { verification, previous_verification, reason },
        Review::Verify => Event::OrgVerified { verification, previous_verification, reason },
        Review::Reject => Event::OrgRejected { verification, previous_verification, reason },
        Review::Waitlist => Event::OrgWaitlisted { verification, previous_verification, reason },
        Review::Reopen => Event::OrgReopened { verification, previous_verification, reason },
        Review::ReviewAgain => Event::OrgReviewRestarted { verification, previous_verification, reason },
        Review::Block => Event::OrgBlocked { verification, previous_verification, reason },
        Review::Unblock => Event::OrgUnblocked { verification, previous_verification, reason },
    }
}

/// A history that ends in this verification; the blocked one was VERIFIED before.
fn standing_at(verification: Verification) -> Vec<Event> {
    use Verification as V;
    let submitted = reviewed(Review::Submit, V::InSetup, V::Pending);
    let verified = reviewed(Review::Verify, V::Pending, V::Verified);
    match verification {
        V::InSetup => vec![created()],
        V::Pending => vec![created(), submitted],
        V::Waitlisted => vec![created(), reviewed(Review::Waitlist, V::InSetup, V::Waitlisted)],
        V::Verified => vec![created(), submitted, verified],
        V::Rejected => vec![created(), submitted, reviewed(Review::Reject, V::Pending, V::Rejected)],
        V::Blocked => vec![created(), submitted, verified, reviewed(Review::Block, V::Verified, V::Blocked)],
    }
}

fn with(mut history: Vec<Event>, more: &[Event]) -> Vec<Event> {
    history.extend_from_slice(more);
    history
}

// ---------------------------------------------------------------- every command in every state

#[test]
fn every_command_in_every_lifecycle() {
    let states = [
        ("never created", vec![]),
        ("active", vec![created()]),
        ("inactive", vec![created(), deactivated()]),
        ("deleted", vec![created(), deleted()]),
        ("purged", vec![created(), deleted(), purged()]),
    ];
    let early = Command::Purge { at: at(9) };
    let due = Command::Purge { at: at(10) };
    let nf = "NotFound";
    let is = "InvalidState";
    let exists = "AlreadyExists";
    check_table::<Organization>(
        &states,
        &[
            ("create", create(), &["OrgCreated", exists, exists, exists, exists]),
            ("rename", update(Update { name: Some("B"), ..UNCHANGED }), &[nf, "OrgRenamed", "OrgRenamed", is, nf]),
            ("update nothing", update(UNCHANGED), &[nf, "nothing", "nothing", is, nf]),
            ("settings", settings("ui", json!(1)), &[nf, "OrgSettingsUpdated", "OrgSettingsUpdated", is, nf]),
            ("submit", review(Review::Submit), &[nf, "OrgSubmitted", "OrgSubmitted", is, nf]),
            ("verify", review(Review::Verify), &[nf, is, is, is, nf]),
            ("reject", review(Review::Reject), &[nf, is, is, is, nf]),
            ("waitlist", review(Review::Waitlist), &[nf, "OrgWaitlisted", "OrgWaitlisted", is, nf]),
            ("reopen", review(Review::Reopen), &[nf, is, is, is, nf]),
            ("review again", review(Review::ReviewAgain), &[nf, is, is, is, nf]),
            ("block", review(Review::Block), &[nf, "OrgBlocked", "OrgBlocked", is, nf]),
            ("unblock", review(Review::Unblock), &[nf, is, is, is, nf]),
            ("deactivate", Command::Deactivate { reason: None }, &[nf, "OrgDeactivated", is, is, nf]),
            ("activate", Command::Activate { reason: None }, &[nf, is, "OrgActivated", is, nf]),
            ("delete", delete(), &[nf, "OrgDeleted", "OrgDeleted", is, nf]),
            ("restore in time", restore(9), &[nf, is, is, "OrgRestored", nf]),
            ("restore late", restore(10), &[nf, is, is, is, nf]),
            ("purge early", early, &[nf, is, is, is, nf]),
            ("purge in time", due, &[nf, is, is, "OrgPurged", nf]),
            ("prune", Command::Prune { kept_days: 400 }, &[is, is, is, is, "OrgPruned"]),
            ("limit", set_limit(MEMBERS, LimitChange::Unlimited), &[nf, "OrgLimitSet", "OrgLimitSet", is, nf]),
            ("plan", change_plan("big", limits(None, None)), &[nf, "OrgPlanChanged", "OrgPlanChanged", is, nf]),
        ],
    );
}

#[test]
fn every_review_from_every_verification() {
    use Verification::{Blocked, InSetup, Pending, Rejected, Verified, Waitlisted};
    // Columns as in VERIFICATIONS; the blocked organization was VERIFIED before.
    let table: [(Review, [Option<Verification>; 6]); 8] = [
        (Review::Submit, [Some(Pending), None, None, None, None, None]),
        (Review::Verify, [None, Some(Verified), None, None, None, None]),
        (Review::Reject, [None, Some(Rejected), None, None, None, None]),
        (Review::Waitlist, [Some(Waitlisted), Some(Waitlisted), None, None, None, None]),
        (Review::Reopen, [None, Some(InSetup), Some(InSetup), None, Some(InSetup), None]),
        (Review::ReviewAgain, [None, None, None, Some(Pending), None, None]),
        (Review::Block, [Some(Blocked), Some(Blocked), Some(Blocked), Some(Blocked), Some(Blocked), None]),
        (Review::Unblock, [None, None, None, None, None, Some(Verified)]),
    ];
    for lifecycle in [vec![], vec![deactivated()]] {
        for (step, row) in &table {
            for (from, to) in VERIFICATIONS.into_iter().zip(row) {
                let history = with(standing_at(from), &lifecycle);
                let result = given::<Organization>(&history).when(review(*step)).inspect_result();
                match to {
                    Some(to) => assert_eq!(result, Ok(vec![reviewed(*step, from, *to)]), "{step:?} from {from:?}"),
                    None => assert_eq!(outcome(result), "InvalidState", "{step:?} from {from:?}"),
                }
            }
        }
    }
}

#[test]
fn a_refused_review_says_from_where_as_clients_see_it() {
    let message = "the organization is IN_SETUP, from where this does not lead on";
    given::<Organization>(&[created()]).when(review(Review::Verify)).then_expect_error_message(message);
}

#[test]
fn the_folded_verification_is_the_one_that_the_event_says() {
    for verification in VERIFICATIONS {
        let organization: Organization = fold(&standing_at(verification));
        assert_eq!(organization.status.verification, verification);
        assert_eq!(organization.verification_reason, why().filter(|_| verification != Verification::InSetup));
    }
}

// ---------------------------------------------------------------- creation

#[test]
fn creates_an_organization() {
    given::<Organization>(&[]).when(create()).then_expect_events(vec![created()]);
}

#[test]
fn what_is_created_is_active_and_in_setup() {
    let organization: Organization = fold(&[created()]);
    assert!(organization.is_present());
    assert_eq!(organization.status.lifecycle, Lifecycle::Active);
    assert_eq!(organization.status.verification, Verification::InSetup);
    assert!(!organization.status.once_verified);
    assert_eq!(organization.created_at, at(0));
}

#[test]
fn verifies_at_creation_where_the_deployment_verifies_nobody() {
    let mut command = create();
    let Command::Create { verified_because, .. } = &mut command else { panic!("it creates") };
    *verified_because = why();
    let verified = reviewed(Review::Verify, Verification::InSetup, Verification::Verified);
    given::<Organization>(&[]).when(command).then_expect_events(vec![created(), verified]);
}

#[test]
fn stores_the_name_trimmed_and_the_slug_in_lower_case() {
    let mut command = create();
    let Command::Create { name, slug, contact_email, .. } = &mut command else { panic!("it creates") };
    (*name, *slug, *contact_email) = ("  Acme ".into(), "ACME".into(), Some("office@acme.example".into()));
    given::<Organization>(&[]).when(command).then_expect_events(vec![created()]);
}

#[test]
fn refuses_to_create_what_exists_and_names_it() {
    given::<Organization>(&[created()]).when(create()).then_expect_error(Refusal::AlreadyExists {
        path: "slug",
        message: "this organization exists already".into(),
        existing: organization().to_string(),
    });
}

#[test]
fn a_purged_organization_is_never_created_again() {
    let result = given::<Organization>(&[created(), deleted(), purged()]).when(create()).inspect_result();
    assert_eq!(outcome(result), "AlreadyExists");
    assert!(!fold::<Organization>(&[created(), deleted(), purged()]).is_present());
}

#[test]
fn refuses_bad_input_at_creation_and_names_the_field() {
    let long_name = "x".repeat(text::NAME_CHARS_MAX + 1);
    let long_slug = "a".repeat(text::SLUG_CHARS_MAX + 1);
    let long_id = "x".repeat(text::EXTERNAL_ID_BYTES_MAX + 1);
    let cases = [
        ("name", "  "),
        ("name", &long_name),
        ("name", "pay\u{200b}pal"),
        ("name", "P\u{430}ypal"),
        ("name", "\u{200c}\u{200d}"),
        ("name", "\u{3164}"),
        ("name", "a\u{2800}b"),
        ("slug", ""),
        ("slug", "-acme"),
        ("slug", &long_slug),
        ("contactEmail", "office"),
        ("externalId", ""),
        ("externalId", "a b"),
        ("externalId", &long_id),
        ("reason", &endless_reason().unwrap()),
    ];
    for (field, bad) in cases {
        let mut command = create();
        let Command::Create { name, slug, contact_email, external_id, reason, .. } = &mut command else {
            panic!("it creates")
        };
        match field {
            "name" => *name = bad.into(),
            "slug" => *slug = bad.into(),
            "contactEmail" => *contact_email = Some(bad.into()),
            "externalId" => *external_id = Some(bad.into()),
            _ => *reason = Some(bad.into()),
        }
        let (path, message) = refused_input(given::<Organization>(&[]).when(command).inspect_result());
        assert_eq!(path, field, "{bad:?}");
        assert!(message.starts_with(field), "the message names the field: {message}");
    }
}

// ---------------------------------------------------------------- profile

#[test]
fn an_update_tells_old_and_new_of_each_change() {
    let all = update(Update {
        name: Some(" Acme Works "),
        slug: Some("Acme-Works"),
        contact_email: Some(Some("hello@acme.example")),
        external_id: Some(Some("crm-8")),
    });
    given::<Organization>(&[created()]).when(all).then_expect_events(vec![
        Event::OrgRenamed { name: "Acme Works".into(), previous_name: "Acme".into(), reason: why() },
        Event::OrgSlugChanged { slug: "acme-works".into(), previous_slug: "acme".into(), reason: why() },
        Event::OrgContactChanged {
            contact_email: contact("hello@acme.example"),
            previous_contact_email: contact("office@acme.example"),
            reason: why(),
        },
        Event::OrgExternalIdChanged {
            external_id: Some("crm-8".into()),
            previous_external_id: Some("crm-7".into()),
            reason: why(),
        },
    ]);
}

#[test]
fn an_update_to_what_is_so_already_emits_nothing() {
    let same = update(Update {
        name: Some(" Acme "),
        slug: Some("ACME"),
        contact_email: Some(Some("office@acme.example")),
        external_id: Some(Some("crm-7")),
    });
    given::<Organization>(&[created()]).when(same).then_expect_events(vec![]);
}

#[test]
fn an_update_clears_the_contact_and_the_external_id() {
    let clear = update(Update { contact_email: Some(None), external_id: Some(None), ..UNCHANGED });
    let cleared = vec![
        Event::OrgContactChanged {
            contact_email: None,
            previous_contact_email: contact("office@acme.example"),
            reason: why(),
        },
        Event::OrgExternalIdChanged { external_id: None, previous_external_id: Some("crm-7".into()), reason: why() },
    ];
    given::<Organization>(&[created()]).when(clear.clone()).then_expect_events(cleared.clone());
    given::<Organization>(&with(vec![created()], &cleared)).when(clear).then_expect_events(vec![]);
}

#[test]
fn one_bad_field_refuses_the_whole_update() {
    let cases = [
        ("name", Update { name: Some("a\nb"), slug: Some("fine"), ..UNCHANGED }),
        ("slug", Update { name: Some("Fine"), slug: Some("not fine"), ..UNCHANGED }),
        ("contactEmail", Update { name: Some("Fine"), contact_email: Some(Some("@")), ..UNCHANGED }),
        ("externalId", Update { name: Some("Fine"), external_id: Some(Some("\u{e4}")), ..UNCHANGED }),
    ];
    for (field, bad) in cases {
        let (path, _) = refused_input(given::<Organization>(&[created()]).when(bad.into()).inspect_result());
        assert_eq!(path, field);
    }
}

#[test]
fn the_profile_is_what_the_last_update_said() {
    let organization: Organization = fold(&[
        created(),
        Event::OrgRenamed { name: "B".into(), previous_name: "Acme".into(), reason: why() },
        Event::OrgSlugChanged { slug: "b".into(), previous_slug: "acme".into(), reason: why() },
        Event::OrgContactChanged { contact_email: contact("b@b.example"), previous_contact_email: None, reason: why() },
        Event::OrgExternalIdChanged { external_id: None, previous_external_id: Some("crm-7".into()), reason: why() },
    ]);
    assert_eq!((organization.name.as_str(), organization.slug.as_str()), ("B", "b"));
    assert_eq!((organization.contact_email, organization.external_id), (contact("b@b.example"), None));
}

// ---------------------------------------------------------------- settings

#[test]
fn a_settings_document_is_written_replaced_and_cleared() {
    let (first, second) = (json!({"theme": "dark"}), json!({"theme": "light"}));
    let mut history = vec![created()];
    let steps = [
        (first.clone(), settings_updated("ui", Some(first.clone()), None)),
        (second.clone(), settings_updated("ui", Some(second.clone()), Some(first))),
        (Value::Null, settings_updated("ui", None, Some(second))),
    ];
    for (value, expected) in steps {
        given::<Organization>(&history).when(settings("UI", value)).then_expect_events(vec![expected.clone()]);
        history.push(expected);
    }
    assert!(fold::<Organization>(&history).settings.is_empty());
}

#[test]
fn an_empty_object_clears_settings_as_null_does_and_nothing_else_empty_does() {
    let written = [created(), settings_updated("ui", Some(json!([1])), None)];
    for nothing in [Value::Null, json!({})] {
        let cleared = settings_updated("ui", None, Some(json!([1])));
        given::<Organization>(&written).when(settings("ui", nothing.clone())).then_expect_events(vec![cleared]);
        given::<Organization>(&written).when(settings("other", nothing)).then_expect_events(vec![]);
    }
    for document in [json!([]), json!(""), json!(0), json!(false), json!({"theme": {}})] {
        let updated = settings_updated("ui", Some(document.clone()), Some(json!([1])));
        given::<Organization>(&written).when(settings("ui", document)).then_expect_events(vec![updated]);
    }
}

#[test]
fn the_same_settings_again_emit_nothing() {
    let written = [created(), settings_updated("ui", Some(json!([1])), None)];
    given::<Organization>(&written).when(settings("ui", json!([1]))).then_expect_events(vec![]);
    given::<Organization>(&written).when(settings("other", Value::Null)).then_expect_events(vec![]);
}

fn with_namespaces(count: usize) -> Vec<Event> {
    let written = (0..count).map(|n| settings_updated(&format!("n{n}"), Some(json!(n)), None));
    std::iter::once(created()).chain(written).collect()
}

#[test]
fn accepts_the_last_namespace_of_settings() {
    let history = with_namespaces(SETTINGS_NAMESPACES_MAX - 1);
    let result = given::<Organization>(&history).when(settings("last", json!(1))).inspect_result();
    assert_eq!(outcome(result), "OrgSettingsUpdated");
}

#[test]
fn refuses_one_namespace_of_settings_too_many() {
    let history = with_namespaces(SETTINGS_NAMESPACES_MAX);
    let result = given::<Organization>(&history).when(settings("more", json!(1))).inspect_result();
    let (path, message) = refused_input(result);
    assert_eq!(path, "namespace");
    assert!(message.contains("32"), "{message}");
}

#[test]
fn a_full_house_of_settings_can_still_be_changed_and_cleared() {
    let history = with_namespaces(SETTINGS_NAMESPACES_MAX);
    for value in [json!("other"), Value::Null, json!({})] {
        let result = given::<Organization>(&history).when(settings("n0", value)).inspect_result();
        assert_eq!(outcome(result), "OrgSettingsUpdated");
    }
    let result = given::<Organization>(&history).when(settings("more", json!({}))).inspect_result();
    assert_eq!(outcome(result), "nothing");
    let room = with(history, &[settings_updated("n0", None, Some(json!(0)))]);
    let result = given::<Organization>(&room).when(settings("more", json!(1))).inspect_result();
    assert_eq!(outcome(result), "OrgSettingsUpdated");
}

#[test]
fn refuses_settings_that_are_too_large_or_badly_named() {
    let large = json!("x".repeat(text::SETTINGS_BYTES_MAX - 1));
    for (field, command) in [
        ("namespace", settings("no name", json!(1))),
        ("value", settings("ui", large)),
        ("value", settings("ui", json!("a\0b"))),
    ] {
        assert_eq!(refused_input(given::<Organization>(&[created()]).when(command).inspect_result()).0, field);
    }
    let fits = json!("x".repeat(text::SETTINGS_BYTES_MAX - 2));
    let result = given::<Organization>(&[created()]).when(settings("ui", fits)).inspect_result();
    assert_eq!(outcome(result), "OrgSettingsUpdated");
}

// ---------------------------------------------------------------- the two axes together

#[test]
fn an_unblocked_organization_is_where_it_was_before_the_block() {
    for before in VERIFICATIONS.into_iter().filter(|v| *v != Verification::Blocked) {
        let blocked = reviewed(Review::Block, before, Verification::Blocked);
        let history = with(standing_at(before), &[blocked]);
        let unblocked = reviewed(Review::Unblock, Verification::Blocked, before);
        given::<Organization>(&history).when(review(Review::Unblock)).then_expect_events(vec![unblocked.clone()]);
        assert_eq!(fold::<Organization>(&with(history, &[unblocked])).status.verification, before);
    }
}

#[test]
fn a_second_block_returns_to_the_status_before_the_second() {
    use Verification::{Blocked, InSetup, Pending};
    let history = [
        created(),
        reviewed(Review::Block, InSetup, Blocked),
        reviewed(Review::Unblock, Blocked, InSetup),
        reviewed(Review::Submit, InSetup, Pending),
        reviewed(Review::Block, Pending, Blocked),
    ];
    let unblocked = reviewed(Review::Unblock, Blocked, Pending);
    given::<Organization>(&history).when(review(Review::Unblock)).then_expect_events(vec![unblocked]);
}

#[test]
fn having_been_verified_is_never_forgotten() {
    use Verification::{InSetup, Pending, Verified};
    for verification in VERIFICATIONS {
        let verified = matches!(verification, Verified | Verification::Blocked);
        assert_eq!(fold::<Organization>(&standing_at(verification)).status.once_verified, verified);
    }
    let again = [
        reviewed(Review::ReviewAgain, Verified, Pending),
        reviewed(Review::Reopen, Pending, InSetup),
        reviewed(Review::Submit, InSetup, Pending),
    ];
    assert!(fold::<Organization>(&with(standing_at(Verified), &again)).status.once_verified);
}

#[test]
fn restoring_brings_back_the_lifecycle_before_the_deletion() {
    for (before, lifecycle) in [(vec![], Lifecycle::Active), (vec![deactivated()], Lifecycle::Inactive)] {
        let mut history = with(vec![created()], &before);
        let gone =
            Event::OrgDeleted { previous_lifecycle: lifecycle, purge_at: at(10), by_operator: false, reason: why() };
        given::<Organization>(&history).when(delete()).then_expect_events(vec![gone.clone()]);
        history.push(gone);
        assert_eq!(fold::<Organization>(&history).status.lifecycle, Lifecycle::Deleted);
        let back = Event::OrgRestored { lifecycle, reason: None };
        given::<Organization>(&history).when(restore(9)).then_expect_events(vec![back.clone()]);
        assert_eq!(fold::<Organization>(&with(history, &[back])).status.lifecycle, lifecycle);
    }
}

#[test]
fn a_deletion_and_a_restoration_say_themselves_from_where_and_to_where() {
    let gone = Event::OrgDeleted {
        previous_lifecycle: Lifecycle::Inactive,
        purge_at: at(10),
        by_operator: false,
        reason: None,
    };
    assert_eq!(fold::<Organization>(&[created(), gone.clone()]).before_deletion, Lifecycle::Inactive);
    assert_eq!(fold::<Organization>(&[created(), gone, restored()]).status.lifecycle, Lifecycle::Active);
}

#[test]
fn what_is_due_to_be_purged_is_not_restored_any_more() {
    let message = "the time in which the organization could be restored is over";
    for hour in [10, 11] {
        let late = given::<Organization>(&[created(), deleted()]).when(restore(hour));
        late.then_expect_error(Refusal::InvalidState(message.into()));
    }
}

#[test]
fn restoring_brings_back_everything_as_it_was() {
    for verification in VERIFICATIONS {
        let history = with(standing_at(verification), &[settings_updated("ui", Some(json!(1)), None)]);
        let before: Organization = fold(&history);
        let after: Organization = fold(&with(history, &[deleted(), restored()]));
        assert_eq!(after, Organization { before_deletion: Lifecycle::Active, ..before });
    }
}

#[test]
fn a_deletion_says_when_the_end_is_and_who_did_it() {
    for by_operator in [false, true] {
        let command = Command::Delete { reason: why(), by_operator, purge_at: at(10) };
        let event =
            Event::OrgDeleted { previous_lifecycle: Lifecycle::Active, purge_at: at(10), by_operator, reason: why() };
        given::<Organization>(&[created()]).when(command).then_expect_events(vec![event.clone()]);
        let organization: Organization = fold(&[created(), event]);
        assert_eq!(organization.purge_at, Some(at(10)));
        assert_eq!(organization.status.deleted_by_operator, by_operator);
    }
}

#[test]
fn a_purge_frees_the_names_that_the_organization_has_now() {
    let history = [
        created(),
        Event::OrgSlugChanged { slug: "new".into(), previous_slug: "acme".into(), reason: why() },
        Event::OrgExternalIdChanged { external_id: None, previous_external_id: Some("crm-7".into()), reason: why() },
        deleted(),
    ];
    given::<Organization>(&history)
        .when(Command::Purge { at: at(10) })
        .then_expect_events(vec![Event::OrgPurged { slug: "new".into(), external_id: None }]);
}

#[test]
fn a_trail_is_pruned_once_and_what_is_left_folds_to_the_same() {
    let history = [created(), deleted(), purged(), pruned()];
    let whole: Organization = fold(&history);
    // Of the events before the purge there are only versions then.
    assert_eq!(whole, fold(&history[2..]));
    assert!(whole.exists && whole.purged && !whole.is_present());
    assert_eq!((whole.name.as_str(), whole.slug.as_str(), whole.created_at), ("", "acme", at(0)));
    let again = given::<Organization>(&history).when(Command::Prune { kept_days: 1 }).inspect_result();
    assert_eq!(outcome(again), "InvalidState");
}

#[test]
fn a_restored_organization_is_not_purged_at_the_old_time() {
    let result =
        given::<Organization>(&[created(), deleted(), restored()]).when(Command::Purge { at: at(99) }).inspect_result();
    assert_eq!(outcome(result), "InvalidState");
}

// ---------------------------------------------------------------- limits and plans

#[test]
fn a_limit_is_set_lifted_and_given_back_to_the_plan() {
    let mut history = vec![created()];
    let steps = [
        (LimitChange::Maximum(9), limit_set(Some(9), Some(5), false)),
        (LimitChange::Maximum(0), limit_set(Some(0), Some(9), false)),
        (LimitChange::Unlimited, limit_set(None, Some(0), false)),
        (LimitChange::FromPlan, limit_set(Some(5), None, true)),
    ];
    for (value, expected) in steps {
        given::<Organization>(&history).when(set_limit(MEMBERS, value)).then_expect_events(vec![expected.clone()]);
        history.push(expected.clone());
        let Event::OrgLimitSet { maximum, .. } = expected else { panic!("a limit is set") };
        assert_eq!(fold::<Organization>(&history).maximum(aggregates::membership::MEMBERS), maximum);
    }
}

#[test]
fn setting_a_limit_to_what_it_is_emits_nothing() {
    let overridden = [created(), limit_set(Some(9), Some(5), false)];
    given::<Organization>(&overridden).when(set_limit(MEMBERS, LimitChange::Maximum(9))).then_expect_events(vec![]);
    given::<Organization>(&[created()]).when(set_limit(MEMBERS, LimitChange::FromPlan)).then_expect_events(vec![]);
}

#[test]
fn pinning_the_plans_own_figure_is_a_change_because_the_next_plan_will_not_move_it() {
    let pinned = limit_set(Some(5), Some(5), false);
    given::<Organization>(&[created()])
        .when(set_limit(MEMBERS, LimitChange::Maximum(5)))
        .then_expect_events(vec![pinned.clone()]);
    given::<Organization>(&[created(), pinned])
        .when(set_limit(MEMBERS, LimitChange::FromPlan))
        .then_expect_events(vec![limit_set(Some(5), Some(5), true)]);
}

#[test]
fn refuses_a_limit_that_there_is_none_of() {
    for unknown in [OWNERS, "seats", ""] {
        let result =
            given::<Organization>(&[created()]).when(set_limit(unknown, LimitChange::Unlimited)).inspect_result();
        let (path, message) = refused_input(result);
        assert_eq!(path, "limit");
        assert!(message.contains("members, projects"), "{message}");
    }
}

#[test]
fn a_refused_limit_is_shown_shortened() {
    let unknown = "\u{e4}".repeat(1000);
    let result = given::<Organization>(&[created()]).when(set_limit(&unknown, LimitChange::Unlimited)).inspect_result();
    let (_, message) = refused_input(result);
    assert_eq!(message.matches('\u{e4}').count(), 80, "{message}");
}

#[test]
fn a_plan_change_carries_the_figures_and_keeps_what_operators_set() {
    let history = [created(), limit_set(None, Some(5), false)];
    let new = limits(Some(50), Some(10));
    let changed = Event::OrgPlanChanged {
        plan: "big".into(),
        previous_plan: "basic".into(),
        limits: new.clone(),
        maximums: in_force(None, Some(10)),
        reason: why(),
    };
    given::<Organization>(&history).when(change_plan("big", new)).then_expect_events(vec![changed.clone()]);

    let organization: Organization = fold(&[history[0].clone(), history[1].clone(), changed]);
    assert_eq!(organization.plan, "big");
    assert_eq!(
        (organization.maximum(aggregates::membership::MEMBERS), organization.maximum(aggregates::project::PROJECTS)),
        (None, Some(10))
    );
}

#[test]
fn a_limit_that_the_new_plan_does_not_name_is_none_but_for_tokens_and_webhooks() {
    let nothing = Limits::new();
    given::<Organization>(&[created()]).when(change_plan("free", nothing.clone())).then_expect_events(vec![
        Event::OrgPlanChanged {
            plan: "free".into(),
            previous_plan: "basic".into(),
            limits: nothing,
            maximums: in_force(None, None),
            reason: why(),
        },
    ]);
}

#[test]
fn the_same_plan_with_the_same_limits_emits_nothing() {
    let same = change_plan("basic", limits(Some(5), None));
    given::<Organization>(&[created()]).when(same).then_expect_events(vec![]);
}

#[test]
fn the_same_plan_with_other_limits_is_a_change() {
    let result = given::<Organization>(&[created()]).when(change_plan("basic", limits(Some(6), None))).inspect_result();
    assert_eq!(outcome(result), "OrgPlanChanged");
}

// ---------------------------------------------------------------- reasons

#[test]
fn refuses_an_endless_reason_of_whatever_command() {
    let reason = endless_reason;
    let (active, inactive) = (vec![created()], vec![created(), deactivated()]);
    let cases = [
        (&active, update_because("B", reason())),
        (&active, Command::UpdateSettings { namespace: "ui".into(), value: json!(1), reason: reason() }),
        (&active, Command::Review { review: Review::Submit, reason: reason() }),
        (&active, Command::Deactivate { reason: reason() }),
        (&inactive, Command::Activate { reason: reason() }),
        (&active, Command::Delete { reason: reason(), by_operator: true, purge_at: at(1) }),
        (&vec![created(), deleted()], Command::Restore { reason: reason(), at: at(1) }),
        (&active, Command::SetLimit { limit: MEMBERS.into(), value: LimitChange::Unlimited, reason: reason() }),
        (&active, Command::ChangePlan { plan: "big".into(), limits: Limits::new(), reason: reason() }),
    ];
    for (history, command) in cases {
        let (path, message) = refused_input(given::<Organization>(history).when(command).inspect_result());
        assert_eq!(path, "reason");
        assert!(message.contains("1001") && message.contains("1000"), "it gives both figures: {message}");
    }
}

#[test]
fn a_reason_is_trimmed_and_a_blank_one_is_none() {
    for (given_reason, stored) in [(Some(" because "), why()), (Some("  \n "), None), (None, None)] {
        given::<Organization>(&[created()])
            .when(Command::Deactivate { reason: given_reason.map(str::to_owned) })
            .then_expect_events(vec![Event::OrgDeactivated { reason: stored.clone() }]);
        let renamed = Event::OrgRenamed { name: "B".into(), previous_name: "Acme".into(), reason: stored.clone() };
        given::<Organization>(&[created()])
            .when(update_because("B", given_reason.map(str::to_owned)))
            .then_expect_events(vec![renamed]);
        let command = Command::UpdateSettings {
            namespace: "ui".into(),
            value: json!(1),
            reason: given_reason.map(str::to_owned),
        };
        let value = Some(json!(1));
        let updated = Event::OrgSettingsUpdated { namespace: "ui".into(), value, previous_value: None, reason: stored };
        given::<Organization>(&[created()]).when(command).then_expect_events(vec![updated]);
    }
}

#[test]
fn a_new_reason_alone_changes_nothing() {
    given::<Organization>(&[created()]).when(update_because("Acme", why())).then_expect_events(vec![]);
}

// ---------------------------------------------------------------- claims and tallies

fn claim(scope: Scope, key: &str) -> Effect {
    Effect::Claim { scope, key: key.into(), until: None }
}

fn release(scope: Scope, key: &str) -> Effect {
    Effect::Release { scope, key: key.into() }
}

fn maximum(name: &str, maximum: Option<u64>) -> Effect {
    Effect::Maximum { name: name.into(), maximum }
}

fn floor(floor: u64) -> Effect {
    Effect::Floor { name: OWNERS, floor }
}

/// Each event that changes claims, tallies, maxima or floors, with what it changes.
fn effects() -> Vec<(Event, Vec<Effect>)> {
    let renamed = Event::OrgSlugChanged { slug: "new".into(), previous_slug: "acme".into(), reason: why() };
    let external = Event::OrgExternalIdChanged {
        external_id: Some("crm-8".into()),
        previous_external_id: Some("crm-7".into()),
        reason: why(),
    };
    let plan = Event::OrgPlanChanged {
        plan: "big".into(),
        previous_plan: "basic".into(),
        limits: limits(Some(50), Some(10)),
        maximums: limits(None, Some(10)),
        reason: None,
    };
    let reached = Event::LimitReached { limit: PROJECTS.into(), maximum: Some(3), used: 3, requested: 1 };
    vec![
        (
            created(),
            vec![
                claim(Organization::SLUG, "acme"),
                claim(Organization::EXTERNAL_ID, "crm-7"),
                maximum(MEMBERS, Some(5)),
                maximum(PROJECTS, None),
                maximum(TOKENS, Some(100)),
                maximum(WEBHOOKS, Some(100)),
                floor(1),
            ],
        ),
        (renamed, vec![release(Organization::SLUG, "acme"), claim(Organization::SLUG, "new")]),
        (external, vec![release(Organization::EXTERNAL_ID, "crm-7"), claim(Organization::EXTERNAL_ID, "crm-8")]),
        (deleted(), vec![floor(0)]),
        (restored(), vec![floor(1)]),
        (purged(), vec![release(Organization::SLUG, "acme"), release(Organization::EXTERNAL_ID, "crm-7")]),
        (limit_set(Some(9), Some(5), false), vec![maximum(MEMBERS, Some(9))]),
        (
            plan,
            vec![
                maximum(MEMBERS, None),
                maximum(PROJECTS, Some(10)),
                maximum(TOKENS, Some(100)),
                maximum(WEBHOOKS, Some(100)),
            ],
        ),
        (reached, vec![Effect::Reached { name: PROJECTS.into() }]),
        (role_removed(), vec![Effect::Vacant { name: "role/reader".into() }]),
    ]
}

/// Each event that changes none.
fn without_effects() -> Vec<Event> {
    let steps = Review::ALL.map(|step| reviewed(step, Verification::InSetup, Verification::Pending));
    let rest = [
        Event::OrgRenamed { name: "B".into(), previous_name: "Acme".into(), reason: why() },
        Event::OrgContactChanged { contact_email: None, previous_contact_email: contact("a@b.example"), reason: why() },
        settings_updated("ui", None, Some(json!(1))),
        deactivated(),
        Event::OrgActivated { reason: None },
        Event::OrgLegalHoldSet { held_since: at(1), reason: None },
        pruned(),
        Event::OrgLegalHoldReleased { held_since: at(1), reason: None },
        defined(&[]),
        Event::RoleChanged {
            role: "reader".into(),
            description: "Reads.".into(),
            previous_description: "Reads.".into(),
            permissions: vec![],
            previous_permissions: vec!["project:read".into()],
            reason: None,
        },
    ];
    steps.into_iter().chain(rest).chain(of_ownership()).collect()
}

fn of_ownership() -> [Event; 3] {
    let (membership_id, user_id, offered_by) = (membership("ada"), user("ada"), Actor::System);
    [
        Event::OwnershipOffered {
            membership_id: membership_id.clone(),
            user_id: user_id.clone(),
            offered_by: offered_by.clone(),
            offered_at: at(1),
            reason: None,
        },
        Event::OwnershipAccepted {
            membership_id: membership_id.clone(),
            user_id: user_id.clone(),
            offered_by: offered_by.clone(),
            reason: None,
        },
        Event::OwnershipOfferWithdrawn { membership_id, user_id, offered_by, reason: None },
    ]
}

#[test]
fn each_event_says_which_claims_and_maxima_it_changes() {
    for (event, expected) in effects() {
        assert_eq!(event.effects(), expected, "{event:?}");
    }
}

#[test]
fn the_other_events_change_no_claims_and_no_maxima() {
    for event in without_effects() {
        assert_eq!(event.effects(), vec![], "{event:?}");
    }
}

#[test]
fn the_effects_of_every_event_are_tested() {
    let tested: BTreeSet<_> =
        effects().into_iter().map(|(event, _)| event).chain(without_effects()).map(|e| e.event_type()).collect();
    let declared: BTreeSet<_> = Event::DESCRIPTORS.iter().map(|descriptor| descriptor.name.to_owned()).collect();
    assert_eq!(tested, declared);
}

#[test]
fn what_has_no_external_id_claims_and_frees_none() {
    let gone = Event::OrgPurged { slug: "acme".into(), external_id: None };
    assert_eq!(gone.effects(), vec![release(Organization::SLUG, "acme")]);
    let first =
        Event::OrgExternalIdChanged { external_id: Some("crm-1".into()), previous_external_id: None, reason: why() };
    assert_eq!(first.effects(), vec![claim(Organization::EXTERNAL_ID, "crm-1")]);
    let cleared =
        Event::OrgExternalIdChanged { external_id: None, previous_external_id: Some("crm-1".into()), reason: why() };
    assert_eq!(cleared.effects(), vec![release(Organization::EXTERNAL_ID, "crm-1")]);
}

#[test]
fn a_recorded_limit_changes_nothing_of_the_organization() {
    let reached = Event::LimitReached { limit: MEMBERS.into(), maximum: Some(5), used: 5, requested: 1 };
    assert_eq!(fold::<Organization>(&[created(), reached]), fold(&[created()]));
}

#[test]
fn a_refusal_by_status_names_what_was_asked_for() {
    let status = fold::<Organization>(&[created()]).status;
    let refusal = Refusal::EntityStatus { status, capability: aggregates::status::Capability::CreateResources };
    assert_eq!(kind(&refusal), "EntityStatus");
    assert_eq!(refusal.to_string(), "the organization's status does not allow CREATE_RESOURCES");
}

#[test]
fn who_wants_to_delete_what_is_deleted_hears_that_it_is() {
    use aggregates::status::Capability::{Delete, EditProfile};
    let by_operator =
        Event::OrgDeleted { previous_lifecycle: Lifecycle::Active, purge_at: at(10), by_operator: true, reason: None };
    for (end, remedy) in
        [(deleted(), "Restore the organization first."), (by_operator, "Ask an operator to restore the organization.")]
    {
        let status = fold::<Organization>(&[created(), end]).status;
        assert_eq!(status.remedy(Delete), "The organization is deleted already.");
        assert_eq!(status.remedy(EditProfile), remedy);
    }
}

fn define(name: &str, permissions: &[&str], by: Permissions) -> Command {
    Command::DefineRole {
        name: name.into(),
        description: "Reads.".into(),
        permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
        by,
        reason: None,
    }
}

fn defined(permissions: &[&str]) -> Event {
    Event::RoleDefined {
        role: "reader".into(),
        description: "Reads.".into(),
        permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
        reason: None,
    }
}

fn remove_role(name: &str, by: Permissions) -> Command {
    Command::RemoveRole { name: name.into(), replaced_with: None, by, reason: None }
}

fn role_removed() -> Event {
    Event::RoleRemoved {
        role: "reader".into(),
        description: "Reads.".into(),
        permissions: vec!["project:read".into()],
        replaced_with: None,
        reason: None,
    }
}

#[test]
fn a_role_holds_its_permissions_in_the_catalogues_order_and_once() {
    given::<Organization>(&[created()])
        .when(define("reader", &["project:read", "organization:read", "project:read"], Permissions::all()))
        .then_expect_events(vec![defined(&["organization:read", "project:read"])]);
    given::<Organization>(&[created(), defined(&["organization:read", "project:read"])])
        .when(define("reader", &["project:read", "organization:read"], Permissions::all()))
        .then_expect_events(vec![]);
}

#[test]
fn a_changed_role_tells_what_it_was() {
    given::<Organization>(&[created(), defined(&["project:read"])])
        .when(define("reader", &["project:read", "member:read"], Permissions::all()))
        .then_expect_events(vec![Event::RoleChanged {
            role: "reader".into(),
            description: "Reads.".into(),
            previous_description: "Reads.".into(),
            permissions: vec!["member:read".into(), "project:read".into()],
            previous_permissions: vec!["project:read".into()],
            reason: None,
        }]);
}

#[test]
fn a_role_is_never_more_than_who_defines_it_and_never_taken_by_who_has_less() {
    let less: Permissions = [Permission::OrganizationRead, Permission::RoleManage].into_iter().collect();
    let history = [created(), defined(&["organization:read", "project:read"])];
    for (history, command) in [
        (&history[..1], define("other", &["project:read"], less)),
        (&history[..], define("reader", &["organization:read"], less)),
        (&history[..], remove_role("reader", less)),
    ] {
        let refused = given::<Organization>(history).when(command).inspect_result();
        assert!(matches!(refused, Err(Refusal::RoleNotGrantable(_))), "{refused:?}");
    }
    given::<Organization>(&history[..1])
        .when(define("reader", &["organization:read"], less))
        .then_expect_events(vec![defined(&["organization:read"])]);
}

#[test]
fn a_role_needs_a_name_of_its_own_and_permissions_that_there_are() {
    for (name, permissions) in [
        ("owner", &["project:read"][..]),
        ("guest", &[]),
        ("Reader", &[]),
        ("1st", &[]),
        ("", &[]),
        ("a role", &[]),
        (&"a".repeat(41), &[]),
        ("reader", &["project:fly"]),
    ] {
        let refused = given::<Organization>(&[created()]).when(define(name, permissions, Permissions::all()));
        let refused = refused.inspect_result();
        assert!(matches!(refused, Err(Refusal::InvalidInput { .. })), "{name}: {refused:?}");
    }
    for name in ["owner", "reader"] {
        let refused = given::<Organization>(&[created()]).when(remove_role(name, Permissions::all())).inspect_result();
        assert!(matches!(refused, Err(Refusal::InvalidInput { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn an_organization_has_at_most_64_roles_of_its_own() {
    let named = |number: usize| Event::RoleDefined {
        role: format!("role-{number}"),
        description: "One of many.".into(),
        permissions: vec![],
        reason: None,
    };
    let full: Vec<Event> = std::iter::once(created()).chain((0..64).map(named)).collect();
    let refused = given::<Organization>(&full).when(define("reader", &[], Permissions::all())).inspect_result();
    assert!(matches!(refused, Err(Refusal::InvalidInput { .. })), "{refused:?}");
    given::<Organization>(&full[..64])
        .when(define("reader", &[], Permissions::all()))
        .then_expect_events(vec![defined(&[])]);
}

#[test]
fn a_removed_role_has_to_be_vacant_and_its_name_never_means_something_else() {
    let removed = role_removed();
    let history = [created(), defined(&["project:read"])];
    given::<Organization>(&history)
        .when(remove_role("reader", Permissions::all()))
        .then_expect_events(vec![removed.clone()]);
    let refused = given::<Organization>(&[&history[..], &[removed]].concat())
        .when(define("reader", &["project:read"], Permissions::all()))
        .inspect_result();
    assert!(matches!(refused, Err(Refusal::InvalidInput { .. })), "{refused:?}");
}

#[test]
fn a_legal_hold_stands_alone_and_keeps_what_is_deleted_from_being_purged() {
    let set = |hour| Command::SetLegalHold { reason: "a lawsuit".into(), at: at(hour) };
    let release = || Command::ReleaseLegalHold { reason: "it is settled".into() };
    let deleted = Event::OrgDeleted {
        previous_lifecycle: Lifecycle::Active,
        purge_at: at(720),
        by_operator: false,
        reason: None,
    };
    let held = Event::OrgLegalHoldSet { held_since: at(1), reason: Some("a lawsuit".into()) };
    let released = Event::OrgLegalHoldReleased { held_since: at(1), reason: Some("it is settled".into()) };
    for history in [vec![created()], vec![created(), deleted.clone()]] {
        let state = fold::<Organization>(&history);
        assert_eq!(state.decide(set(1)), Ok(vec![held.clone()]));
        assert!(matches!(state.decide(release()), Err(Refusal::InvalidState(_))));
        let state = fold::<Organization>(&[history.clone(), vec![held.clone()]].concat());
        assert!(matches!(state.decide(set(2)), Err(Refusal::InvalidState(_))));
        assert_eq!(state.decide(release()), Ok(vec![released.clone()]));
    }
    let purge = || Command::Purge { at: at(721) };
    let state = fold::<Organization>(&[created(), deleted.clone(), held.clone()]);
    assert_eq!(state.decide(purge()), Err(Refusal::InvalidState("the organization is under legal hold".into())));
    let state = fold::<Organization>(&[created(), deleted, held, released]);
    let purged = state.decide(purge()).unwrap();
    assert!(aggregates::Event::from(purged[0].clone()).destroys_key());
}
