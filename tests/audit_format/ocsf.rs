//! A line of OCSF of every event: committed, so that a change is seen, and checked against the published schema.

use std::path::{Path, PathBuf};
use std::process::Command;

use aggregates::ids::{EventId, Id};
use aggregates::{Event, Origin, Recorded, StreamId, descriptors, upcasters};
use serde_json::Value;
use tenancy::audit::ocsf::line;
use tenancy::log::StoredEvent;
use uuid::Uuid;

use crate::python_with;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Events as the golden files have them, in the order of their names.
fn samples() -> Vec<Value> {
    let folder = std::fs::read_dir(root().join("aggregates/tests/golden")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
}

/// The sample as the log has it, with another origin each.
fn recorded(number: usize, sample: &Value) -> (StoredEvent, Recorded) {
    let text = |name: &str| sample[name].as_str().unwrap().to_owned();
    let stream = StreamId::from_stored(&text("aggregate_type"), &text("aggregate_id")).unwrap();
    let payload = sample["opened"].to_string();
    let event = Event::from_stored(&stream, &text("event_type"), &text("event_version"), &payload, &upcasters());
    let actors = [
        "user:usr_7sv6tk3bm8bdc9qme8vx32m80x",
        "operator:usr_7sv6tk3bm8bdc9qme8vx32m80x",
        "token:tok_7sv6tk3bm8bdc9qme8vx32m80x",
        "system",
    ];
    let id = EventId::derived(&["ocsf", &text("event_type")]);
    let of_user = text("aggregate_type") == "User";
    let organization = (!of_user).then(|| "org_7sv6tk3bm8bdc9qme8vx32m80x".to_owned());
    let audit_sequence = (!of_user).then_some(7);
    // Each part of an origin is there in some line and missing in another.
    let some = |every: usize, text: &str| number.is_multiple_of(every).then(|| text.to_owned());
    let origin = Origin {
        command_id: Uuid::nil(),
        actor: actors[number % 4].parse().unwrap(),
        on_behalf_of: some(5, actors[0]).map(|actor| actor.parse().unwrap()),
        ip: some(2, if number.is_multiple_of(3) { "2001:db8::7" } else { "203.0.113.7" }),
        user_agent: some(3, "curl/8"),
        request_id: some(7, "req_1"),
        correlation_id: Uuid::nil(),
        causation_id: some(4, id.as_ref()).map(|id| id.parse().unwrap()),
    };
    let recorded_at = "2026-01-31T08:05:09.000123Z".parse().unwrap();
    let row = StoredEvent {
        aggregate_type: text("aggregate_type"),
        aggregate_id: text("aggregate_id"),
        sequence: 2,
        event_type: text("event_type"),
        event_version: text("event_version"),
        payload,
        partition: 0,
        offset: 1,
        organization_id: organization.clone(),
        audit_sequence,
        event_id: id.to_string(),
        command_id: origin.command_id,
        actor: origin.actor.to_string(),
        on_behalf_of: origin.on_behalf_of.as_ref().map(ToString::to_string),
        ip: origin.ip.clone(),
        user_agent: origin.user_agent.clone(),
        request_id: origin.request_id.clone(),
        correlation_id: origin.correlation_id,
        causation_id: origin.causation_id.as_ref().map(ToString::to_string),
        recorded_at,
    };
    let recorded = Recorded {
        id,
        stream,
        sequence: 2,
        partition: 0,
        offset: 1,
        organization: organization.map(|id| id.parse().unwrap()),
        audit_sequence: audit_sequence.map(i64::unsigned_abs),
        recorded_at,
        origin,
        event: event.unwrap(),
    };
    (row, recorded)
}

/// A line of every event, and one of an event that cannot be read any more.
fn lines() -> String {
    let samples: Vec<_> = samples().iter().enumerate().map(|(number, sample)| recorded(number, sample)).collect();
    let unreadable = line(&samples[0].0, None);
    samples.iter().map(|(row, recorded)| line(row, Some(recorded))).chain([unreadable]).collect()
}

fn committed() -> PathBuf {
    root().join("tests/ocsf/events.ndjson")
}

#[test]
fn the_committed_lines_of_all_events_are_those_that_the_code_makes() {
    let lines = lines();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(committed(), &lines).unwrap();
    }
    let there = std::fs::read_to_string(committed()).unwrap_or_default();
    for (line, there) in lines.lines().zip(there.lines()) {
        assert_eq!(line, there, "`BLESS=1 cargo test` writes the lines");
    }
    assert_eq!(lines.lines().count(), there.lines().count(), "`BLESS=1 cargo test` writes the lines");
    for event in descriptors() {
        assert!(lines.contains(&format!(r#""event_code":"{}""#, event.name)), "{} has no line", event.name);
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.values().any(|member| member.is_null() || has_null(member)),
        Value::Array(items) => items.iter().any(has_null),
        _ => false,
    }
}

#[test]
fn no_member_is_null_and_no_uid_says_of_what_kind_it_is() {
    for text in lines().lines() {
        assert!(!has_null(&serde_json::from_str(text).unwrap()), "{text}");
        for kind in ["user", "operator", "token"] {
            assert!(!text.contains(&format!(r#""uid":"{kind}:"#)), "{text}");
        }
    }
}

/// `.ci/run` does the same with the package installed.
#[test]
fn the_published_schema_takes_the_committed_lines_and_no_broken_one() {
    let Some(python) = python_with("ocsf_json_schema, jsonschema") else { return };
    let check = |file: &Path| {
        let output = Command::new(&python).arg(root().join("tests/ocsf/check.py")).arg(file).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let directory = tempfile::tempdir().unwrap();
    let now = directory.path().join("now");
    std::fs::write(&now, lines()).unwrap();
    let (good, said) = check(&now);
    assert!(good, "{said}");
    let broken = [
        (r#""activity_id":1"#, r#""activity_id":77"#),
        (r#""profiles":["host"],"#, ""),
        (r#""type_uid":3004"#, r#""type_uid":3005"#),
        (r#""severity_id":1"#, r#""severity_id":null"#),
        (r#""unmapped""#, r#""mapped""#),
    ];
    for (from, to) in broken {
        let lines = lines();
        let (first, rest) = lines.split_at(
            lines.find(r#""class_uid":3004"#).map(|at| lines[..at].rfind('\n').map_or(0, |at| at + 1)).unwrap(),
        );
        let altered = rest.replacen(from, to, 1);
        assert_ne!(altered, rest, "{from}");
        let file = directory.path().join("broken");
        std::fs::write(&file, format!("{first}{altered}")).unwrap();
        let (good, said) = check(&file);
        assert!(!good && said.contains(": line "), "{from}: {said}");
    }
}

/// The rows of the page's table: events, class and activities.
fn rows(page: &str) -> Vec<(Vec<&str>, &str, &str)> {
    let table = page.split("| events | class | activity |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let row = |line| {
        let cells: Vec<&str> = str::trim_matches(line, '|').split('|').map(str::trim).collect();
        (cells[0].split('`').skip(1).step_by(2).collect(), cells[1], cells[2])
    };
    table.lines().skip(1).map(row).collect()
}

#[test]
fn the_page_says_of_every_event_which_class_and_activity_it_has() {
    let page = std::fs::read_to_string(root().join("docs/audit-tables.md")).unwrap();
    let rows = rows(&page);
    for text in lines().lines() {
        let line: Value = serde_json::from_str(text).unwrap();
        let (action, class) = (line["message"].as_str().unwrap(), line["class_uid"].to_string());
        let (activity, name) = (&line["activity_id"], line["activity_name"].as_str().unwrap());
        let row = rows.iter().find(|(events, ..)| events.contains(&action));
        let (_, said_class, said_activity) = match (row, name) {
            (Some(row), _) => row,
            (None, "Unknown") => rows.last().unwrap(),
            (None, _) => &rows[rows.len() - 2],
        };
        assert_eq!(&class, said_class, "{action}");
        assert!(
            said_activity.contains(&activity.to_string()) && said_activity.contains(name),
            "{action}: {said_activity}"
        );
    }
}
