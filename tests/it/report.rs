//! An officer's report of an organization, as the command line writes it.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Database, eventually, tamper};

async fn run(database: &Database, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.args(arguments).envs(database.variables(&[])).env_remove("TENANCY_LOG");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn report(database: &Database, id: &str, more: &[&str]) -> String {
    let (code, out, err) = run(database, &[&["audit", "report", "--organization", id], more].concat()).await;
    assert_eq!(code, Some(0), "{more:?}: {err}");
    out
}

async fn as_json(database: &Database, id: &str, more: &[&str]) -> Value {
    serde_json::from_str(&report(database, id, &[&["--format", "json"], more].concat()).await).unwrap()
}

/// The rows of a section in few words: action, whom or what, by whom, why.
fn told(report: &Value, section: &str) -> Vec<String> {
    let rows = report[section]["rows"].as_array().unwrap();
    let party = |party: &Value| {
        let named = party["email"].as_str().or(party["name"].as_str());
        format!("{} {}", party["kind"].as_str().unwrap(), named.unwrap_or("-"))
    };
    let row = |row: &Value| {
        let (action, reason) = (row["action"].as_str().unwrap(), row["reason"].as_str().unwrap_or("-"));
        format!("{action} | {} | {} | {reason}", party(&row["subject"]), party(&row["actor"]))
    };
    rows.iter().map(row).collect()
}

fn members(report: &Value) -> Vec<String> {
    let rows = report["access"]["members"]["rows"].as_array().unwrap();
    let member = |row: &Value| {
        let without = row["withoutAccess"].as_str().map_or(String::new(), |why| format!(" ({why})"));
        format!("{} {}{without}", row["user"]["email"].as_str().unwrap_or("-"), row["roles"])
    };
    rows.iter().map(member).collect()
}

async fn with_reason(client: &Client, mutation: &str, kind: &str, input: Value) {
    let answer = client.run(mutation, kind, input, "__typename").await;
    assert!(answer.accepted(), "{mutation}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_reads_who_has_access_and_what_happened_now_and_as_of_before() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let (bob, carl) = (server.user("bob@example.com"), server.user("carl@example.com"));
    let bobs = owner.bring_in(&id, &bob, "bob@example.com", &["guest"]).await;
    let carls = owner.bring_in(&id, &carl, "carl@example.com", &["member"]).await;
    owner.create_token(&id, &["audit:read"]).await;
    owner.create_webhook(&id, "https://hooks.example.com/acme").await;
    owner.invite(&id, "dora@example.com", &["guest"]).await;
    // Sealed events cannot be made older, so this is a moment and not a day.
    let before = chrono::Utc::now().to_rfc3339();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let roles = json!({"membershipId": bobs, "roles": ["billing"], "reason": "moved to finance"});
    with_reason(&owner, "changeMemberRoles", "ChangeMemberRolesInput", roles).await;
    let removal = json!({"membershipId": carls, "reason": "left the company"});
    with_reason(&owner, "removeMember", "MembershipCommandInput", removal).await;
    server.operator().set_limit(&id, "projects", 7).await;
    for _ in 0..2 {
        assert_eq!(bob.create_project(&id, "no").await.fault(), Some("FORBIDDEN"));
    }
    let bob_id = bob.user_id().await;
    let bundle = tempfile::NamedTempFile::new().unwrap();
    let out = bundle.path().display().to_string();
    assert_eq!(run(&database, &["audit", "export", "--organization", &id, "--out", &out]).await.0, Some(0));

    // Beside the running service, whose access trail is there a moment later.
    eventually("the refusal is in the report", async || {
        as_json(&database, &id, &[]).await["refusals"]["rows"].as_array().unwrap().len() == 1
    })
    .await;
    server.stop().await;
    let now = as_json(&database, &id, &[]).await;
    assert_eq!(members(&now), [r#"owner@example.com ["owner"]"#, r#"bob@example.com ["billing"]"#]);
    let bobs_row = &now["access"]["members"]["rows"][1];
    assert!(bobs_row["since"].as_str() < bobs_row["rolesSince"].as_str(), "{bobs_row}");
    assert_eq!(bobs_row["rolesBy"]["email"], "owner@example.com");
    assert_eq!(now["access"]["tokens"]["rows"][0]["permissions"], json!(["audit:read"]));
    assert_eq!(now["access"]["tokens"]["rows"][0]["responsible"]["email"], "owner@example.com");
    assert_eq!(now["access"]["webhooks"]["rows"][0]["url"], "https://hooks.example.com/acme");
    assert_eq!(now["access"]["invitations"]["rows"][0]["email"], "dora@example.com");
    let last = told(&now, "roleChanges").pop().unwrap();
    assert_eq!(last, "member.roles_changed | user bob@example.com | user owner@example.com | moved to finance");
    let changes = &now["roleChanges"]["rows"].as_array().unwrap().last().unwrap()["changes"];
    assert_eq!(*changes, json!([{"field": "roles", "from": ["guest"], "to": ["billing"]}]));
    assert_eq!(
        told(&now, "standing"),
        ["member.removed | user carl@example.com | user owner@example.com | left the company"]
    );
    assert_eq!(
        told(&now, "operatorActs"),
        [
            "org.verified | organization - | operator operator@example.com | a test",
            "org.limit_set | organization - | operator operator@example.com | a test"
        ]
    );
    let refusal = &now["refusals"]["rows"][0];
    assert_eq!((&refusal["operation"], &refusal["times"]), (&json!("createProject"), &json!(2)), "{refusal}");
    assert_eq!(refusal["actor"]["id"], json!(bob_id));
    assert_eq!(now["exports"]["rows"][0]["operation"], "tenancy audit export");
    let reads = now["reads"]["rows"].as_array().unwrap();
    assert!(reads.iter().any(|read| read["operation"] == "tenancy audit report"), "it is on record itself: {reads:?}");
    let proofs = &now["proofs"];
    assert_eq!(proofs["treeSize"], now["period"]["auditSequence"], "{proofs}");
    assert!(proofs["keys"][0].as_str().unwrap().matches('+').count() == 1, "{proofs}");

    // As it was before that.
    let then = as_json(&database, &id, &["--until", &before]).await;
    assert_eq!(
        members(&then),
        [r#"owner@example.com ["owner"]"#, r#"bob@example.com ["guest"]"#, r#"carl@example.com ["member"]"#]
    );
    for section in ["standing", "refusals", "exports"] {
        assert_eq!(then[section]["rows"], json!([]), "{section}");
    }
    // And only what happened since.
    let since = as_json(&database, &id, &["--since", &before]).await;
    assert_eq!(told(&since, "roleChanges").len(), 1);
    assert_eq!(told(&since, "operatorActs").len(), 1);
    assert_eq!(members(&since), members(&now), "access is as of the end of the period");

    for (format, line) in [("text", "roles: guest → billing"), ("html", "<td>roles: guest → billing</td>")] {
        let text = report(&database, &id, &["--format", format]).await;
        assert!(text.contains(line) && text.contains("moved to finance"), "{text}");
        for command in ["tenancy audit key", "tenancy audit export --organization", "tenancy audit verify"] {
            assert!(text.contains(command), "{command} is missing: {text}");
        }
    }
    let (code, _, err) = run(&database, &["audit", "report", "--organization", &id, "--until", "2001-01-01"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("was not there then"), "{err}");

    // Nobody reads a report of an altered trail without being told.
    assert_eq!(now["proofs"]["failure"], Value::Null);
    tamper(&database.pool().await, "UPDATE events SET actor = 'system' WHERE event_type = 'MemberRemoved'").await;
    let server = database.serve().await;
    eventually("the report says that the trail was altered", async || {
        report(&database, &id, &[]).await.contains("FAILED: ")
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_shut_out_has_no_access_and_who_was_erased_has_no_name() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let people = ["bob@example.com", "carl@example.com", "dora@example.com"];
    let mut memberships = vec![];
    let mut users = vec![];
    for email in people {
        let person = server.user(email);
        memberships.push(owner.bring_in(&id, &person, email, &["member"]).await);
        users.push(person.user_id().await);
    }
    owner.member("suspendMember", &memberships[0]).await;
    let input = json!({"userId": users[1], "reason": "stole a laptop"});
    with_reason(&server.operator(), "revokeUser", "UserReviewInput", input).await;
    let input = json!({"subject": {"userId": users[2]}, "reason": "asked for it"});
    with_reason(&server.operator(), "eraseSubject", "EraseSubjectInput", input).await;
    eventually("the membership of the erased user has ended", async || {
        owner.audit(&id).await.iter().any(|action| action == "member.removed")
    })
    .await;
    server.stop().await;
    let out = tempfile::tempdir().unwrap().path().join("acme.json");
    let now = as_json(&database, &id, &[]).await;
    let rows = members(&now);
    assert_eq!(rows[1], r#"bob@example.com ["member"] (suspended)"#);
    assert!(rows[2].starts_with(r#"carl@example.com ["member"] (revoked by an operator on "#), "{rows:?}");
    assert_eq!(rows.len(), 3, "{rows:?}");
    let standing = told(&now, "standing");
    assert!(
        standing.iter().any(|row| row.starts_with("user.revoked | user carl@example.com | operator ")),
        "{standing:?}"
    );
    let erasures = told(&now, "erasures");
    assert!(erasures.iter().any(|row| row.starts_with("user.erased | user - | operator ")), "{erasures:?}");
    let text = now.to_string();
    assert!(!text.contains("dora@example.com") && !text.contains("stole a laptop"), "{text}");
    // A file is there whole or not at all.
    let (code, _, err) =
        run(&database, &["audit", "report", "--organization", &id, "--out", &out.display().to_string()]).await;
    assert_eq!(code, Some(1), "its folder is gone");
    assert!(err.contains("cannot write"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_that_nobody_knows_is_told_as_such() {
    let database = Database::new().await;
    let server = database.serve().await;
    let nobody = "org_00000000000000000000000000";
    for arguments in [
        &["audit", "report", "--organization", nobody][..],
        &["audit", "diff", "--organization", nobody, "--from", "1", "--to", "1"],
        &["audit", "diff", "--organization", nobody, "--from", "1", "--to", "2026-01-01"],
    ] {
        let (code, out, err) = run(&database, arguments).await;
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains(&format!("there is no organization {nobody}")), "{err}");
    }
    server.stop().await;
}
