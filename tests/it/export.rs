//! Exports, and their verification by nothing but a key: by the program and by one that was written from the documentation.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chrono::Utc;
use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tenancy::audit::bundle::Line;
use tenancy::audit::cosignature::Quorum;
use tenancy::audit::note::{Checkpoint, Signer, VerifierKey};
use tenancy::audit::verify::{Report, older, verify};
use tenancy::service::audit_signers;

use crate::support::{Client, Database, Server, tamper};

fn keys(database: &Database) -> Vec<VerifierKey> {
    let signers = audit_signers(&database.config(&[])).unwrap();
    signers.iter().map(|signer| signer.verifier().to_string().parse().unwrap()).collect()
}

async fn get(server: &Server, client: &Client, path: &str) -> reqwest::Response {
    let request = client.http.get(server.url(path));
    let request = match &client.token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.unwrap()
}

async fn export(server: &Server, client: &Client, organization: &str, query: &str) -> String {
    let response = get(server, client, &format!("/audit/{organization}/export{query}")).await;
    assert_eq!(response.status(), 200);
    response.text().await.unwrap()
}

fn check(bundle: &str, keys: &[VerifierKey], since: Option<&Checkpoint>) -> Report {
    verify(bundle.as_bytes(), keys, since, &Quorum::default()).unwrap()
}

#[track_caller]
fn well(bundle: &str, keys: &[VerifierKey]) -> Report {
    let report = check(bundle, keys, None);
    assert!(report.is_well(), "{:#?}", report.findings);
    report
}

/// The findings, of which there has to be one that says this.
#[track_caller]
fn finds(bundle: &str, keys: &[VerifierKey], what: &str) {
    let findings = check(bundle, keys, None).findings;
    assert!(findings.iter().any(|finding| finding.contains(what)), "{what}: {findings:#?}");
}

fn lines(bundle: &str) -> Vec<String> {
    bundle.lines().map(str::to_owned).collect()
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// An organization with a person in it and so many projects; with its owner.
async fn filled(server: &Server, projects: usize) -> (String, Client) {
    let ada = server.user("ada@example.com");
    let acme = server.verified("acme", &ada).await;
    let bob = server.user("bob@example.com");
    ada.bring_in(&acme, &bob, "bob@example.com", &["auditor"]).await;
    let calls = (0..projects).map(|number| {
        let (ada, acme) = (&ada, &acme);
        async move { assert!(ada.create_project(acme, &format!("p{number}")).await.accepted()) }
    });
    futures_util::stream::iter(calls).buffer_unordered(8).collect::<Vec<_>>().await;
    (acme, ada)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_verified_and_whatever_is_done_to_it_is_named() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, ada) = filled(&server, 300).await;
    let keys = keys(&database);
    let bundle = export(&server, &ada, &acme, "").await;
    let report = well(&bundle, &keys);
    let all = lines(&bundle);
    let count = report.events;
    assert!(count > 300);
    assert_eq!(all.len() as u64, count + 5, "header, checkpoint, two lines of hashes, end");
    // What is personal can be read, and only by those who export it.
    assert!(bundle.contains("bob@example.com"));

    // The line of event 10; lines count from 1, and two come before the first event.
    let at = 11;
    let mut altered = all.clone();
    altered[at] = altered[at].replace(r#"\"ProjectCreated\""#, r#"\"ProjectCreates\""#);
    assert_ne!(altered, all);
    finds(&joined(&altered), &keys, "line 12: event 10 (");
    finds(&joined(&altered), &keys, "is altered");
    assert_eq!(check(&joined(&altered), &keys, None).findings.len(), 1);

    let mut missing = all.clone();
    missing.remove(at);
    assert_eq!(check(&joined(&missing), &keys, None).findings, ["event 10 is missing"]);

    let mut swapped = all.clone();
    swapped.swap(at, at + 1);
    finds(&joined(&swapped), &keys, "event 10 (");
    finds(&joined(&swapped), &keys, "stands out of order: moved");

    let mut renumbered = all.clone();
    let number = |line: &str, from: u64, to: u64| {
        line.replace(&format!(r#""auditSequence":"{from}""#), &format!(r#""auditSequence":"{to}""#))
    };
    (renumbered[at], renumbered[at + 1]) = (number(&all[at + 1], 11, 10), number(&all[at], 10, 11));
    finds(&joined(&renumbered), &keys, "line 12: event 10 (");
    finds(&joined(&renumbered), &keys, "is moved: it was sealed as event 11");
    finds(&joined(&renumbered), &keys, "is moved: it was sealed as event 10");

    let mut doubled = all.clone();
    doubled.insert(at, all[at].clone());
    finds(&joined(&doubled), &keys, "is there already, in line 12: added");
    let mut added = all.clone();
    added.insert(all.len() - 2, number(&all[at], 10, count + 1));
    finds(&joined(&added), &keys, "nothing was sealed there");

    // Cut at any line, and amid one.
    for length in [1, 2, 3, 100, 258, 259, 260, all.len() - 2, all.len() - 1] {
        let report = check(&joined(&all[..length]), &keys, None);
        assert!(!report.is_well(), "cut to {length} lines");
    }
    finds(&joined(&all[..all.len() - 1]), &keys, "cut");
    finds(&bundle[..bundle.len() / 2], &keys, "it ends amid the line: cut");
    finds(&(bundle.clone() + "{\"type\":\"end\"}\n"), &keys, "follows the end: added");

    // Another organization's, another key's, a checkpoint of another time.
    let other = Signer::new("tenancy.local/audit", ed25519_dalek::SigningKey::from_bytes(&[9; 32])).unwrap();
    finds(&bundle, &[other.verifier().clone()], "it is not signed by");
    let other = server.verified("other", &ada).await;
    let others = lines(&export(&server, &ada, &other, "").await);
    let mut mixed = all.clone();
    mixed[1] = others[1].clone();
    finds(&joined(&mixed), &keys, "the checkpoint is of");

    // Events that claim to be some, with proofs that they do not have.
    let mut partial = all.clone();
    partial[0] = partial[0].replace("\"complete\":true", "\"complete\":false");
    finds(&joined(&partial), &keys, "is added: it has no proof");
    partial.drain(5..258);
    finds(&joined(&partial), &keys, "events with proofs of their own need no hashes");
    let mut named = all.clone();
    named[0] = named[0].replace(&acme, "audit");
    finds(&joined(&named), &keys, "the checkpoint is of");

    // The listed hashes altered, the events whole; and both.
    let hashes = all.iter().position(|line| line.starts_with(r#"{"type":"hashes""#)).unwrap();
    let Line::Hashes(mut listed) = serde_json::from_str(&all[hashes]).unwrap() else { panic!() };
    listed.hashes[9].0[0] ^= 1;
    let listed = Line::Hashes(listed).text().unwrap().trim_end().to_owned();
    let mut relisted = all.clone();
    relisted[hashes] = listed;
    finds(&joined(&relisted), &keys, "the listed hashes of events 10 are altered; the events themselves are whole");
    relisted[20] = relisted[20].replace("ProjectCreated", "ProjectCreates");
    finds(&joined(&relisted), &keys, "do not add up to the signed root");

    // A readable datum that is not what is sealed.
    let line = all.iter().position(|line| line.contains(r#""value":"bob@example.com""#)).unwrap();
    let mut renamed = all.clone();
    renamed[line] = renamed[line].replace(r#""value":"bob@example.com""#, r#""value":"eve@example.com""#);
    finds(&joined(&renamed), &keys, "its readable payload.email is altered: what is sealed says something else");

    // A flipped bit anywhere is found.
    let mut runner = TestRunner::new(Config::with_cases(200));
    runner
        .run(&(any::<prop::sample::Index>(), 0_u32..8), |(at, bit)| {
            let mut bytes = bundle.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let report = verify(&bytes[..], &keys, None, &Quorum::default()).unwrap();
            prop_assert!(!report.is_well(), "byte {at}, bit {bit}");
            Ok(())
        })
        .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_checkpoint_shows_what_was_cut_or_rewritten_since() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, ada) = filled(&server, 10).await;
    let keys = keys(&database);
    let first = export(&server, &ada, &acme, "").await;
    for number in 0..5 {
        assert!(ada.create_project(&acme, &format!("later{number}")).await.accepted());
    }
    let second = export(&server, &ada, &acme, "").await;
    let (before, after) = (older(first.as_bytes(), &keys).unwrap(), older(second.as_bytes(), &keys).unwrap());
    assert!(before.size < after.size);
    assert!(check(&second, &keys, Some(&before)).is_well());
    assert!(check(&second, &keys, Some(&after)).is_well());
    // A true bundle of before, given out as the newest.
    let findings = check(&first, &keys, Some(&after)).findings;
    assert!(findings[0].contains("are missing: cut"), "{findings:?}");
    // Another past.
    let rewritten = Checkpoint { root: [1; 32], ..before.clone() };
    let findings = check(&second, &keys, Some(&rewritten)).findings;
    assert!(findings[0].contains("history was changed after that was signed"), "{findings:?}");
    // What follows a place, and fits what was had before.
    let rest = export(&server, &ada, &acme, &format!("?after={}", before.size)).await;
    assert_eq!(check(&rest, &keys, Some(&before)).events, after.size - before.size);
    assert!(check(&rest, &keys, Some(&before)).is_well());
    let late = export(&server, &ada, &acme, &format!("?after={}", before.size + 1)).await;
    assert!(check(&late, &keys, None).is_well());
    let findings = check(&late, &keys, Some(&before)).findings;
    assert!(findings[0].contains("nothing shows that the older checkpoint"), "{findings:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_bundle_proves_each_event_and_other_formats_are_for_reading() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, ada) = filled(&server, 90).await;
    let keys = keys(&database);
    let some = export(&server, &ada, &acme, "?actions=project.created").await;
    let report = well(&some, &keys);
    assert_eq!((report.events, report.header.unwrap().complete), (90, false));
    finds(&some.replacen("ProjectCreated", "ProjectCreates", 1), &keys, "line 3: event ");
    let forged = lines(&some)[2].replace("ProjectCreated", "ProjectCreates");
    let forged = forged[..forged.find(",\"proof\"").unwrap()].to_owned() + "}";
    let mut added = lines(&some);
    added.insert(3, forged);
    finds(&joined(&added), &keys, "is added: it has no proof");
    let cut: String = some.lines().take(40).map(|line| format!("{line}\n")).collect();
    finds(&cut, &keys, "without its last line: cut");

    let response = get(&server, &ada, &format!("/audit/{acme}/export?format=csv")).await;
    assert_eq!(response.headers()["content-type"], "text/csv; charset=utf-8");
    let table = response.text().await.unwrap();
    let whole = well(&export(&server, &ada, &acme, "").await, &keys);
    assert_eq!(table.lines().count() as u64, whole.events + 1);
    assert!(table.starts_with("audit_sequence,recorded_at,action,actor,"));
    assert!(table.contains("member.invited") && table.contains("bob@example.com"));
    let ocsf = export(&server, &ada, &acme, "?format=ocsf&actions=member.invited,member.joined").await;
    let events: Vec<Value> = ocsf.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event["metadata"]["tenant_uid"] == acme.as_str()));
    let of = |action: &str| events.iter().find(|event| event["message"] == action).unwrap();
    assert_eq!((&of("member.invited")["class_uid"], &of("member.joined")["class_uid"]), (&json!(3004), &json!(3001)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_where_it_broke() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, ada) = filled(&server, 300).await;
    let keys = keys(&database);
    let whole = export(&server, &ada, &acme, "").await;
    let to = well(&whole, &keys).events;
    assert!(ada.create_project(&acme, "meanwhile").await.accepted());
    let hashes = whole.find("{\"type\":\"hashes\"").unwrap();
    let had = &whole[..hashes + whole[hashes..].find('\n').unwrap() + 1];
    let rest = export(&server, &ada, &acme, &format!("?to={to}&resumeAfter=256")).await;
    assert_eq!(format!("{had}{rest}"), whole);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_for_those_who_may_read_the_trail_and_on_record() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, ada) = filled(&server, 1).await;
    let (bob, eve) = (server.user("bob@example.com"), server.user("eve@example.com"));
    let member = server.user("member@example.com");
    ada.bring_in(&acme, &member, "member@example.com", &["member"]).await;
    let refusal = async |client: &Client, path: &str| {
        let response = get(&server, client, path).await;
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["error"]["code"].as_str().unwrap().to_owned())
    };
    let path = format!("/audit/{acme}/export");
    let nothing = format!("/audit/{}/export", crate::support::nobody_id().replace("usr_", "org_"));
    assert_eq!(refusal(&server.nobody(), &path).await, (401, "UNAUTHENTICATED".into()));
    assert_eq!(refusal(&eve, &path).await, (404, "NOT_FOUND".into()));
    assert_eq!(refusal(&ada, &nothing).await, (404, "NOT_FOUND".into()));
    assert_eq!(refusal(&member, &path).await, (403, "FORBIDDEN".into()));
    for query in [
        "format=pdf",
        "actions=no.such",
        "nothing=1",
        "after=x",
        "since=x",
        "since=x&after=1",
        "after=100000",
        "to=99999",
    ] {
        assert_eq!(refusal(&bob, &format!("{path}?{query}")).await, (400, "BAD_USER_INPUT".into()), "{query}");
    }
    export(&server, &bob, &acme, "").await;
    let query = "query($o: ID!) { organization(by: {id: $o}) { accessTrail(last: 100) { nodes { kind operation actor { label } } } } }";
    let on_record = async || {
        let answer = ada.query(query, json!({"o": acme})).await;
        let records = answer.at("/organization/accessTrail/nodes").as_array().unwrap().clone();
        records.iter().any(|record| record["kind"] == "AUDIT_EXPORT" && record["operation"] == "export")
    };
    crate::support::eventually("the export is on record", on_record).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_served_in_tiles() {
    use tenancy::audit::merkle::{Frontier, join};
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, ada) = filled(&server, 300).await;
    let size = well(&export(&server, &ada, &acme, "").await, &keys(&database)).events;
    let get = async |path: &str| get(&server, &ada, &format!("/audit/{acme}/log/{path}")).await;
    let note = get("checkpoint").await.text().await.unwrap();
    let checkpoint = older(note.as_bytes(), &keys(&database)).unwrap();
    assert_eq!(checkpoint.size, size);
    let tile = async |path: String| {
        let response = get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        let bytes = response.bytes().await.unwrap();
        let (hashes, rest) = bytes.as_chunks::<32>();
        assert!(rest.is_empty());
        hashes.to_vec()
    };
    let whole = tile("tile/0/000".into()).await;
    let part = tile(format!("tile/0/001.p/{}", size - 256)).await;
    let mut frontier = Frontier::default();
    whole.iter().chain(&part).for_each(|leaf| frontier.push(*leaf, |_, _| {}));
    assert_eq!(frontier.root(), checkpoint.root);
    let above = tile("tile/1/000.p/1".into()).await;
    assert_eq!(join(&[&above, &frontier.peaks()[1..]].concat()), Some(checkpoint.root));
    for path in [
        "tile/0/001".into(),
        format!("tile/0/001.p/{}", size - 255),
        "tile/2/000.p/1".into(),
        "tile/entries/000".into(),
    ] {
        assert_eq!(get(&path).await.status(), 404, "{path}");
    }
    let eve = server.user("eve@example.com");
    for path in ["checkpoint", "tile/0/000"] {
        assert_eq!(self::get(&server, &eve, &format!("/audit/{acme}/log/{path}")).await.status(), 404);
    }
    server.stop().await;
}

async fn run(database: &Database, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.args(arguments).envs(database.variables(&[])).env_remove("TENANCY_LOG");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_of_the_database_does_to_the_log_is_named() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, _) = filled(&server, 20).await;
    server.stop().await;
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("acme.ndjson");
    let file = out.to_str().unwrap();
    let keys = run(&database, &["audit", "key"]).await;
    let key = String::from_utf8(keys.stdout).unwrap().trim().to_owned();
    let exported = ["audit", "export", "--organization", &acme, "--out", file];
    // Without a running service, and offline: an empty environment.
    let verified = async || {
        let output = run(&database, &exported).await;
        assert!(output.status.success(), "{output:?}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
        command.args(["audit", "verify", file, "--key", &key]).env_clear();
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = verified().await;
    assert_eq!((code, said.starts_with("verified: all events from 1 to ")), (0, true), "{said}");
    // To standard output it is the same, and what is said besides goes elsewhere.
    let streamed = run(&database, &["audit", "export", "--organization", &acme, "--out", "-"]).await;
    assert!(streamed.status.success() && !std::path::Path::new("-").exists(), "{streamed:?}");
    std::fs::write(file, &streamed.stdout).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tenancy"))
        .args(["audit", "verify", file, "--key", &key])
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let pool = database.pool().await;
    let mine = format!("organization_id = '{acme}' AND audit_sequence");
    sqlx::raw_sql("CREATE TABLE backup AS TABLE events").execute(&pool).await.unwrap();
    for (statement, finding) in [
        (
            format!(
                "UPDATE events SET payload = replace(payload::text, 'p1', 'p2')::json WHERE {mine} BETWEEN 8 AND 27"
            ),
            "is altered",
        ),
        (format!("DELETE FROM events WHERE {mine} = 9"), "event 9 is missing"),
        (
            format!(
                "UPDATE events SET audit_sequence = -audit_sequence + 1000 WHERE {mine} IN (9, 10);
                 UPDATE events SET audit_sequence = 19 - (1000 - audit_sequence) WHERE {mine} > 900"
            ),
            "is moved: it was sealed as event",
        ),
        (format!("UPDATE events SET recorded_at = recorded_at - interval '1 hour' WHERE {mine} = 9"), "event 9 ("),
        (format!("UPDATE events SET sequence = sequence + 7 WHERE {mine} = 9"), "event 9 ("),
        (format!("DELETE FROM events WHERE {mine} >= 20"), "is missing"),
    ] {
        tamper(&pool, &statement).await;
        let (code, said) = verified().await;
        assert_eq!((code, said.contains(finding)), (1, true), "{statement}: {said}");
        let seals = run(&database, &["projections", "verify", "seals"]).await;
        let said = String::from_utf8(seals.stdout).unwrap();
        assert_eq!((seals.status.code(), said.contains(&format!("seals: {acme}: event "))), (Some(1), true), "{said}");
        tamper(&pool, &format!("DELETE FROM events WHERE organization_id = '{acme}'; INSERT INTO events SELECT * FROM backup WHERE organization_id = '{acme}'")).await;
    }
    assert_eq!(verified().await.0, 0);
    assert!(run(&database, &["projections", "verify", "seals"]).await.status.success());

    // Cut off amid writing, it goes on and ends the same.
    let whole = std::fs::read_to_string(&out).unwrap();
    let part = directory.path().join("acme.ndjson.part");
    for length in [0, 10, whole.len() / 2, whole.len() - 3] {
        std::fs::write(&part, &whole[..length]).unwrap();
        assert!(run(&database, &exported).await.status.success());
        assert_eq!(std::fs::read_to_string(&out).unwrap(), whole);
        assert!(!part.exists());
    }
    let wrong = run(&database, &["audit", "verify", file]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = Command::new(&named).args(["-c", "import cryptography"]).output();
    found.is_ok_and(|output| output.status.success()).then_some(named)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_in_another_language_agrees() {
    let Some(python) = python() else {
        println!("left out: there is no python3 with the package cryptography");
        return;
    };
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, ada) = filled(&server, 270).await;
    let keys = keys(&database);
    let directory = tempfile::tempdir().unwrap();
    let judge = |bundle: &[u8], older: Option<&Path>| {
        let path = directory.path().join("bundle");
        std::fs::write(&path, bundle).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verify_audit.py");
        let mut command = Command::new(&python);
        command.arg(script).arg(&path).arg(keys[0].to_string()).args(older);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let first = export(&server, &ada, &acme, "").await;
    let before = directory.path().join("before");
    std::fs::write(&before, &first).unwrap();
    assert!(ada.create_project(&acme, &format!("at-{}", Utc::now().timestamp())).await.accepted());
    let whole = export(&server, &ada, &acme, "").await;
    let some = export(&server, &ada, &acme, "?actions=member.invited,project.created").await;
    let rest = export(&server, &ada, &acme, "?after=260").await;
    for bundle in [&whole, &some, &rest, &first] {
        assert_eq!(judge(bundle.as_bytes(), None), (true, String::new()));
    }
    assert_eq!(judge(whole.as_bytes(), Some(&before)), (true, String::new()));
    let mut runner = TestRunner::new(Config::with_cases(25));
    runner
        .run(&(any::<prop::sample::Index>(), 0_u32..8, any::<bool>()), |(at, bit, all)| {
            let mut bytes = if all { whole.clone() } else { some.clone() }.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (good, said) = judge(&bytes, None);
            prop_assert!(!good && said.contains("not verified"), "byte {at}, bit {bit}: {said}");
            prop_assert!(!verify(&bytes[..], &keys, None, &Quorum::default()).unwrap().is_well());
            Ok(())
        })
        .unwrap();
    server.stop().await;
}

/// An export ends with what is sealed; that this is not all has to be said.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_a_tree_that_has_failed_says_so() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (acme, ada) = filled(&server, 3).await;
    let path = format!("/audit/{acme}/export");
    assert!(!get(&server, &ada, &path).await.headers().contains_key("tenancy-export-not-sealed"));
    let pool = database.pool().await;
    sqlx::query("UPDATE sealed_trees SET failure = 'event 7 is not there'").execute(&pool).await.unwrap();
    let answer = get(&server, &ada, &path).await;
    assert_eq!(answer.headers()["tenancy-export-not-sealed"], "event 7 is not there");
    server.stop().await;
}
