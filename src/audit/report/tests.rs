#![allow(clippy::unwrap_used)]

use chrono::{DateTime, Utc};
use serde_json::json;

use super::html::html;
use super::text::text;
use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn user(name: &str) -> Party {
    Party { name: Some(name.to_owned()), email: Some("a@example.com".to_owned()), ..Party::new("user", "usr_1") }
}

fn happened(reason: &str) -> Happened {
    Happened {
        audit_sequence: Some(7),
        at: at("2026-07-01T10:00:00Z"),
        action: "member.roles_changed".to_owned(),
        actor: user("Ada"),
        on_behalf_of: None,
        subject: user("Bob"),
        changes: vec![Change { field: "roles".to_owned(), from: Some(json!(["guest"])), to: json!(["billing"]) }],
        reason: Some(reason.to_owned()),
        reason_erased: false,
    }
}

/// A report of one member, who has this name, and one change, which has this reason.
fn report(name: &str, reason: &str) -> Report {
    let since = at("2026-01-01T00:00:00Z");
    let member = Member {
        user: user(name),
        roles: vec!["owner".to_owned()],
        since,
        roles_since: since,
        roles_by: Party::new("system", "system"),
        source: "FOUNDER".to_owned(),
        without_access: None,
    };
    Report {
        format: FORMAT,
        organization: About {
            id: "org_1".to_owned(),
            name: name.to_owned(),
            slug: "acme".to_owned(),
            verification: "VERIFIED".to_owned(),
            lifecycle: "ACTIVE".to_owned(),
            plan: "free".to_owned(),
            created_at: since,
            legal_hold_since: None,
            pruned: false,
        },
        period: Period { since: None, until: at("2026-07-02T00:00:00Z"), audit_sequence: 7, events: 7 },
        made_at: at("2026-07-02T00:00:00Z"),
        access: Access { members: Rows { rows: vec![member], more: 0 }, ..Access::default() },
        role_changes: Rows { rows: vec![happened(reason)], more: 3 },
        standing: Rows::default(),
        tokens_and_webhooks: Rows::default(),
        operator_acts: Rows::default(),
        refusals: Rows::default(),
        erasures: Rows::default(),
        legal_holds: Rows::default(),
        exports: Rows::default(),
        reads: Rows::default(),
        access_records_since: since,
        proofs: Proofs { commands: vec!["tenancy audit key".to_owned()], ..Proofs::default() },
    }
}

#[test]
fn markup_in_a_name_or_a_reason_is_text_in_html() {
    let page = html(&report("<script>alert(1)</script>", "\"><img src=x onerror='a&b'>"));
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &lt;a@example.com&gt;"), "{page}");
    assert!(page.contains("&quot;&gt;&lt;img src=x onerror=&#39;a&amp;b&#39;&gt;"), "{page}");
    assert!(page.contains("<title>Audit report: &lt;script&gt;"), "{page}");
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_every_element_ends() {
    let page = html(&report("Ada", "moved"));
    for reference in ["src=", "href=", "url(", "@import", "http:", "https:", "//"] {
        assert!(!page.contains(reference), "{reference}: {page}");
    }
    assert!(page.contains("default-src &#39;none&#39;"));
    for element in ["html", "head", "style", "body", "section", "table", "thead", "tbody", "tr", "td", "th", "dl", "dd"]
    {
        let begun = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
        assert_eq!(begun, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn a_terminal_obeys_nothing_of_what_is_shown() {
    let shown = text(&report("A\u{1b}[2Jda", "first\nAUDIT REPORT\u{202e}"));
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
    assert_eq!(shown.lines().filter(|line| line.starts_with("AUDIT REPORT")).count(), 1, "{shown}");
}

#[test]
fn columns_of_text_are_aligned_and_what_is_left_out_is_said() {
    let shown = text(&report("Ada Łovelace", "moved to billing"));
    let lines: Vec<&str> = shown.lines().collect();
    let head = lines.iter().position(|line| line.starts_with("member ")).unwrap();
    let column = |line: &str, what: &str| line[..line.find(what).unwrap()].chars().count();
    assert_eq!(column(lines[head], "roles"), column(lines[head + 1], "owner"), "{shown}");
    assert!(shown.contains("roles: guest → billing"), "{shown}");
    assert!(shown.contains("… and 3 earlier ones"), "{shown}");
    assert!(shown.contains("No operator did anything"), "{shown}");
}

#[test]
fn the_last_rows_are_kept_and_the_others_counted() {
    let rows = Rows::last((1..=10).collect(), 4, 2);
    assert_eq!((rows.rows, rows.more), (vec![7, 8, 9, 10], 8));
    let rows = Rows::first((1..=10).collect(), 4);
    assert_eq!((rows.rows, rows.more), (vec![1, 2, 3, 4], 6));
}

#[test]
fn an_erased_person_is_an_id_and_said_to_be_erased() {
    let erased = Party { erased: true, ..Party::new("operator", "usr_9") };
    assert_eq!(erased.label(), "operator usr_9 (erased)");
    assert_eq!(Party::new("user", "usr_9").label(), "usr_9");
}

/// The names that programs rely on: docs/audit.md lists them.
#[test]
fn the_shape_of_json_is_the_documented_one() {
    let json = serde_json::to_value(report("Ada", "moved")).unwrap();
    let documented = include_str!("../../../docs/audit.md");
    assert_eq!(json["format"], FORMAT);
    for name in json.as_object().unwrap().keys().chain(json["access"].as_object().unwrap().keys()) {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not documented");
    }
    let change = &json["roleChanges"]["rows"][0];
    assert_eq!(change["subject"]["name"], "Bob");
    assert_eq!(change["changes"], json!([{"field": "roles", "from": ["guest"], "to": ["billing"]}]));
    assert_eq!(json["roleChanges"]["more"], 3);
}
