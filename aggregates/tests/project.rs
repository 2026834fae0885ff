//! What a project accepts and refuses, in each of its states.

#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use aggregates::project::{PROJECTS, ProjectCommand as Command, ProjectEvent as Event, ProjectState};
use aggregates::{Declared, Effect, Project, Refusal, text};
use common::{at, check_table, endless_reason, fold, given, outcome, refused_input};
use cqrs_es::DomainEvent;
use serde_json::{Value, json};

fn why() -> Option<String> {
    Some("because".to_owned())
}

fn create() -> Command {
    Command::Create {
        id: "prj_1".into(),
        name: " Website ".into(),
        slug: "Web".into(),
        metadata: Some(json!({"team": "a"})),
        reason: why(),
        at: at(0),
    }
}

fn created() -> Event {
    Event::ProjectCreated {
        name: "Website".into(),
        slug: "web".into(),
        metadata: json!({"team": "a"}),
        created_at: at(0),
        reason: why(),
    }
}

fn update(name: Option<&str>, slug: Option<&str>, metadata: Option<Value>) -> Command {
    Command::Update { name: name.map(str::to_owned), slug: slug.map(str::to_owned), metadata, reason: why() }
}

fn archived() -> Event {
    Event::ProjectArchived { reason: why() }
}

fn delete() -> Command {
    Command::Delete { reason: why(), purge_at: at(10) }
}

fn deleted() -> Event {
    deleted_from(ProjectState::Active)
}

fn deleted_from(previous_project_state: ProjectState) -> Event {
    Event::ProjectDeleted { slug: "web".into(), previous_project_state, purge_at: at(10), reason: why() }
}

fn restore(hour: i64) -> Command {
    Command::Restore { reason: why(), at: at(hour) }
}

fn restored() -> Event {
    restored_to(ProjectState::Active)
}

fn restored_to(project_state: ProjectState) -> Event {
    Event::ProjectRestored { slug: "web".into(), project_state, reason: why() }
}

fn purged() -> Event {
    Event::ProjectPurged { slug: "web".into() }
}

#[test]
fn every_command_in_every_state() {
    let states = [
        ("never created", vec![]),
        ("active", vec![created()]),
        ("archived", vec![created(), archived()]),
        ("deleted", vec![created(), deleted()]),
        ("deleted when archived", vec![created(), archived(), deleted_from(ProjectState::Archived)]),
        ("purged", vec![created(), deleted(), purged()]),
    ];
    let (nf, is, exists) = ("NotFound", "InvalidState", "AlreadyExists");
    let (renamed, back) = ("ProjectRenamed", "ProjectRestored");
    check_table::<Project>(
        &states,
        &[
            ("create", create(), &["ProjectCreated", exists, exists, exists, exists, exists]),
            ("rename", update(Some("B"), None, None), &[nf, renamed, renamed, is, is, nf]),
            ("update nothing", update(None, None, None), &[nf, "nothing", "nothing", is, is, nf]),
            ("archive", Command::Archive { reason: why() }, &[nf, "ProjectArchived", is, is, is, nf]),
            ("unarchive", Command::Unarchive { reason: why() }, &[nf, is, "ProjectUnarchived", is, is, nf]),
            ("delete", delete(), &[nf, "ProjectDeleted", "ProjectDeleted", is, is, nf]),
            ("restore in time", restore(9), &[nf, is, is, back, back, nf]),
            ("restore late", restore(10), &[nf, is, is, is, is, nf]),
            ("purge early", Command::Purge { at: at(9) }, &[nf, is, is, is, is, nf]),
            ("purge in time", Command::Purge { at: at(10) }, &[nf, is, is, "ProjectPurged", "ProjectPurged", nf]),
        ],
    );
}

#[test]
fn creates_a_project() {
    given::<Project>(&[]).when(create()).then_expect_events(vec![created()]);
    let project: Project = fold(&[created()]);
    assert!(project.is_present());
    assert_eq!((project.state, project.created_at), (ProjectState::Active, at(0)));
}

#[test]
fn refuses_to_create_what_exists_and_names_it() {
    given::<Project>(&[created()]).when(create()).then_expect_error(Refusal::AlreadyExists {
        path: "slug",
        message: "this project exists already".into(),
        existing: "prj_1".into(),
    });
}

#[test]
fn no_metadata_is_an_empty_object() {
    for nothing in [None, Some(Value::Null)] {
        let mut command = create();
        let Command::Create { metadata, .. } = &mut command else { panic!("it creates") };
        *metadata = nothing;
        let events = given::<Project>(&[]).when(command).inspect_result().unwrap();
        let Event::ProjectCreated { metadata, .. } = &events[0] else { panic!("it is created") };
        assert_eq!(*metadata, json!({}));
    }
}

#[test]
fn refuses_bad_input_and_names_the_field() {
    let create = |name: &str, slug: &str, metadata: Value, reason: Option<String>| Command::Create {
        id: String::new(),
        name: name.into(),
        slug: slug.into(),
        metadata: Some(metadata),
        reason,
        at: at(0),
    };
    let large = json!({"a": "x".repeat(text::METADATA_BYTES_MAX)});
    let cases = [
        ("name", "", "web", json!({}), None),
        ("name", "a\u{0}b", "web", json!({}), None),
        ("name", "\u{200d}", "web", json!({}), None),
        ("name", "\u{115f}\u{1160}", "web", json!({}), None),
        ("slug", "Web", "web/site", json!({}), None),
        ("slug", "Web", ".", json!({}), None),
        ("metadata", "Web", "web", json!([1]), None),
        ("metadata", "Web", "web", json!("text"), None),
        ("metadata", "Web", "web", large, None),
        ("reason", "Web", "web", json!({}), endless_reason()),
    ];
    for (field, name, slug, metadata, reason) in cases {
        let result = given::<Project>(&[]).when(create(name, slug, metadata.clone(), reason.clone())).inspect_result();
        assert_eq!(refused_input(result).0, field);
        if reason.is_none() {
            let change = update(Some(name), Some(slug), Some(metadata));
            assert_eq!(refused_input(given::<Project>(&[created()]).when(change).inspect_result()).0, field);
        }
    }
}

#[test]
fn refuses_an_endless_reason_of_whatever_command() {
    let reason = endless_reason;
    let renamed = Command::Update { name: Some("B".into()), slug: None, metadata: None, reason: reason() };
    for (history, command) in [
        (vec![created()], renamed),
        (vec![created()], Command::Archive { reason: reason() }),
        (vec![created(), archived()], Command::Unarchive { reason: reason() }),
        (vec![created()], Command::Delete { reason: reason(), purge_at: at(1) }),
        (vec![created(), deleted()], Command::Restore { reason: reason(), at: at(1) }),
    ] {
        assert_eq!(refused_input(given::<Project>(&history).when(command).inspect_result()).0, "reason");
    }
}

#[test]
fn an_update_tells_old_and_new_of_each_change() {
    let all = update(Some("Site"), Some("SITE"), Some(json!({"team": "b"})));
    let changes = vec![
        Event::ProjectRenamed { name: "Site".into(), previous_name: "Website".into(), reason: why() },
        Event::ProjectSlugChanged { slug: "site".into(), previous_slug: "web".into(), reason: why() },
        Event::ProjectMetadataChanged {
            metadata: json!({"team": "b"}),
            previous_metadata: json!({"team": "a"}),
            reason: why(),
        },
    ];
    given::<Project>(&[created()]).when(all).then_expect_events(changes.clone());
    let project: Project = fold(&[vec![created()], changes].concat());
    assert_eq!((project.name.as_str(), project.slug.as_str()), ("Site", "site"));
    assert_eq!(project.metadata, json!({"team": "b"}));
}

#[test]
fn an_update_to_what_is_so_already_emits_nothing() {
    let same = update(Some(" Website"), Some("WEB"), Some(json!({"team": "a"})));
    given::<Project>(&[created()]).when(same).then_expect_events(vec![]);
}

#[test]
fn null_clears_the_metadata() {
    given::<Project>(&[created()]).when(update(None, None, Some(Value::Null))).then_expect_events(vec![
        Event::ProjectMetadataChanged { metadata: json!({}), previous_metadata: json!({"team": "a"}), reason: why() },
    ]);
}

#[test]
fn archiving_and_taking_up_again_are_inverse() {
    let again = Event::ProjectUnarchived { reason: None };
    assert_eq!(fold::<Project>(&[created(), archived()]).state, ProjectState::Archived);
    assert_eq!(fold::<Project>(&[created(), archived(), again]), fold(&[created()]));
}

#[test]
fn restoring_brings_back_the_state_before_the_deletion() {
    for (before, state) in [(vec![], ProjectState::Active), (vec![archived()], ProjectState::Archived)] {
        let mut history = [vec![created()], before].concat();
        given::<Project>(&history).when(delete()).then_expect_events(vec![deleted_from(state)]);
        history.push(deleted_from(state));
        let gone: Project = fold(&history);
        assert_eq!((gone.state, gone.purge_at), (ProjectState::Deleted, Some(at(10))));
        given::<Project>(&history).when(restore(9)).then_expect_events(vec![restored_to(state)]);
        let back: Project = fold(&[history, vec![restored_to(state)]].concat());
        assert_eq!((back.state, back.purge_at), (state, None));
    }
}

#[test]
fn a_deletion_and_a_restoration_say_themselves_from_where_and_to_where() {
    let gone = [created(), deleted_from(ProjectState::Archived)];
    assert_eq!(fold::<Project>(&gone).before_deletion, ProjectState::Archived);
    assert_eq!(fold::<Project>(&[gone.to_vec(), vec![restored()]].concat()).state, ProjectState::Active);
}

#[test]
fn what_is_due_to_be_purged_is_not_restored_any_more() {
    let message = "the time in which the project could be restored is over";
    for hour in [10, 11] {
        let late = given::<Project>(&[created(), deleted()]).when(restore(hour));
        late.then_expect_error(Refusal::InvalidState(message.into()));
    }
}

#[test]
fn the_reason_of_an_update_is_trimmed_and_a_blank_one_is_none() {
    for (given_reason, stored) in [(Some(" because "), why()), (Some("  \n "), None), (None, None)] {
        let reason = given_reason.map(str::to_owned);
        let command = Command::Update { name: Some("Site".into()), slug: None, metadata: None, reason };
        let renamed = Event::ProjectRenamed { name: "Site".into(), previous_name: "Website".into(), reason: stored };
        given::<Project>(&[created()]).when(command).then_expect_events(vec![renamed]);
    }
}

#[test]
fn the_slug_of_now_is_what_a_deletion_frees_and_a_restoration_takes() {
    let moved = Event::ProjectSlugChanged { slug: "site".into(), previous_slug: "web".into(), reason: why() };
    let gone = Event::ProjectDeleted {
        slug: "site".into(),
        previous_project_state: ProjectState::Active,
        purge_at: at(10),
        reason: why(),
    };
    let back = Event::ProjectRestored { slug: "site".into(), project_state: ProjectState::Active, reason: why() };
    given::<Project>(&[created(), moved.clone()]).when(delete()).then_expect_events(vec![gone.clone()]);
    given::<Project>(&[created(), moved, gone]).when(restore(9)).then_expect_events(vec![back]);
}

#[test]
fn a_purged_project_is_gone_for_good() {
    given::<Project>(&[created(), deleted()]).when(Command::Purge { at: at(10) }).then_expect_events(vec![purged()]);
    assert!(!fold::<Project>(&[created(), deleted(), purged()]).is_present());
}

#[test]
fn a_restored_project_is_not_purged_at_the_old_time() {
    let result =
        given::<Project>(&[created(), deleted(), restored()]).when(Command::Purge { at: at(99) }).inspect_result();
    assert_eq!(outcome(result), "InvalidState");
}

#[test]
fn each_event_says_which_slug_and_place_it_takes() {
    let claim = |key: &str| Effect::Claim { scope: Project::SLUG, key: key.into(), until: None };
    let release = |key: &str| Effect::Release { scope: Project::SLUG, key: key.into() };
    let effects = [
        (created(), vec![claim("web"), Effect::tally(PROJECTS, 1)]),
        (Event::ProjectRenamed { name: "B".into(), previous_name: "A".into(), reason: why() }, vec![]),
        (
            Event::ProjectSlugChanged { slug: "site".into(), previous_slug: "web".into(), reason: why() },
            vec![release("web"), claim("site")],
        ),
        (
            Event::ProjectMetadataChanged { metadata: json!({}), previous_metadata: json!({"a": 1}), reason: why() },
            vec![],
        ),
        (archived(), vec![]),
        (Event::ProjectUnarchived { reason: None }, vec![]),
        (deleted(), vec![release("web"), Effect::tally(PROJECTS, -1)]),
        (restored(), vec![claim("web"), Effect::tally(PROJECTS, 1)]),
        (purged(), vec![]),
    ];
    let tested: BTreeSet<_> = effects.iter().map(|(event, _)| event.event_type()).collect();
    assert_eq!(tested, Event::DESCRIPTORS.iter().map(|descriptor| descriptor.name.to_owned()).collect());
    for (event, expected) in effects {
        assert_eq!(event.effects(), expected, "{event:?}");
    }
}
