//! What those who run the service do with read models: rebuild, verify, retry, recover, and lose a replica.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aggregates::ids::{Id, OrganizationId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use serde_json::{Value, json};
use sqlx::PgPool;
use tenancy::database::embedded::Purpose;
use tenancy::service::Core;

use crate::support::{Client, Database, Server, eventually};

async fn run(database: &Database, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.args(arguments).envs(database.variables(&[])).env_remove("TENANCY_LOG");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn succeeds(database: &Database, arguments: &[&str]) -> String {
    let output = run(database, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    said(&output)
}

async fn fails(database: &Database, arguments: &[&str]) -> String {
    let output = run(database, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    said(&output)
}

/// An organization with something in every read model; gives its id and a position that shows all of it.
async fn populate(server: &Server, slug: &str) -> (String, Client) {
    let owner = server.user(&format!("owner-{slug}@example.com"));
    let id = server.verified(slug, &owner).await;
    let address = format!("ada-{slug}@example.com");
    owner.bring_in(&id, &server.user(&address), &address, &["member"]).await;
    owner.invite(&id, &format!("bob-{slug}@example.com"), &["guest"]).await;
    let settings = json!({"organizationId": id, "namespace": "branding", "value": {"color": "red"}});
    owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", settings, "__typename").await;
    for project in ["a", "b", "c"] {
        assert!(owner.create_project(&id, project).await.accepted());
    }
    (id, owner)
}

const MEMBERS: &str = "query($id: ID!) { organization(by: {id: $id}) { members(first: 10) { nodes { id roles } } } }";

async fn level(pool: &PgPool) {
    eventually("the read models are level", || async {
        projections::status(pool).await.unwrap().iter().all(|status| status.lag_events() == 0)
    })
    .await;
}

async fn execute(pool: &PgPool, statement: &str) {
    sqlx::query(statement).execute(pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_every_kind_of_row_that_is_not_as_the_log_says() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (id, _) = populate(&server, "acme").await;
    populate(&server, "other").await;
    let pool = database.pool().await;
    level(&pool).await;
    pool.close().await;
    server.stop().await;
    succeeds(&database, &["projections", "verify"]).await;
    succeeds(&database, &["projections", "verify", "--organization", &id]).await;

    let changes = [
        ("organizations", "UPDATE organizations SET lifecycle = 'INACTIVE' WHERE slug = 'acme'", "lifecycle is"),
        (
            "organizations",
            "UPDATE settings SET value = '{}' WHERE organization_id = (SELECT id FROM organizations WHERE slug = 'acme')",
            "settings",
        ),
        (
            "members",
            "UPDATE members SET roles = '{admin}' WHERE roles = '{member}'",
            "roles is [\"admin\"], and by the log [\"member\"]",
        ),
        ("invitations", "DELETE FROM invitations WHERE state = 'PENDING'", "there is no row"),
        (
            "projects",
            "INSERT INTO projects SELECT 'prj_x', organization_id, slug, name, metadata, state, before_deletion, purge_at, version, created_at, partition, \"offset\" FROM projects LIMIT 1",
            "by the log there should be none",
        ),
        ("users", "UPDATE users SET email = 'other@example.com'", "email is another"),
        (
            "claims",
            "UPDATE claims SET holder = 'org_x' WHERE scope = 'organization_slug' AND key = 'acme'",
            "claims organization_slug acme: there is holder org_x",
        ),
        ("claims", "DELETE FROM claims WHERE scope = 'open_invitation'", "there is no row, and by the log holder inv_"),
        ("tallies", "UPDATE tallies SET used = used + 1 WHERE name = 'projects'", "used 4"),
        ("tallies", "UPDATE tallies SET floor = 0 WHERE name = 'owners'", "floor 0"),
    ];
    for (name, change, found) in changes {
        // In a copy, so that each is looked for alone.
        let spoilt = database.copy().await;
        let pool = spoilt.pool().await;
        execute(&pool, change).await;
        pool.close().await;
        let text = fails(&spoilt, &["projections", "verify", name]).await;
        assert!(text.contains(found), "{change}: {text}");
        assert!(!text.contains("other@example.com"), "what is personal is not printed: {text}");
        fails(&spoilt, &["projections", "verify"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_tallies_are_repaired_beside_a_service_that_remembers_the_wrong_ones() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (id, owner) = populate(&server, "acme").await;
    server.operator().set_limit(&id, "projects", 4).await;
    let pool = database.pool().await;
    execute(&pool, "UPDATE tallies SET used = 4 WHERE name = 'projects'").await;
    // Another replica takes the wrong figure into its memory.
    let second = database.serve().await;
    let owner = Client { url: second.url("/graphql"), ..owner };
    assert_eq!(owner.create_project(&id, "refused").await.refusal(), Some("LIMIT_REACHED"));
    let text = succeeds(&database, &["projections", "verify", "tallies", "--repair"]).await;
    assert!(text.contains("used 4") && text.contains("by the log used 3") && text.contains("repaired"), "{text}");
    let created = owner.create_project(&id, "fits").await;
    assert!(created.accepted(), "{created:?}");
    assert_eq!(owner.create_project(&id, "fifth").await.refusal(), Some("LIMIT_REACHED"));
    succeeds(&database, &["projections", "verify"]).await;
    second.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_says_where_the_log_itself_is_broken() {
    let database = Database::new().await;
    let server = database.serve().await;
    populate(&server, "acme").await;
    server.stop().await;
    let pool = database.pool().await;
    let disable = "ALTER TABLE events DISABLE TRIGGER events_are_never_changed";
    execute(&pool, disable).await;
    execute(&pool, "DELETE FROM events WHERE event_type = 'OrgSubmitted'").await;
    let text = fails(&database, &["projections", "verify", "log"]).await;
    for found in ["events up to offset", "events up to audit sequence", "events up to version"] {
        assert!(text.contains(found), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_serves_all_the_while_and_says_where_the_old_one_was_wrong() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (id, owner) = populate(&server, "acme").await;
    let pool = database.pool().await;
    level(&pool).await;
    execute(&pool, "UPDATE projects SET name = 'wrong' WHERE slug = 'b'").await;

    // Readers and writers go on meanwhile, and never see less than they were promised.
    let stop = tokio::sync::watch::channel(false).0;
    let load = {
        let (owner, id, mut stop) = (owner.clone(), id.clone(), stop.subscribe());
        tokio::spawn(async move {
            let query = "query($id: ID!, $at: [Position!]) { organization(by: {id: $id}, atLeast: $at) {
                projects(last: 1) { nodes { slug } } members { nodes { id } } } }";
            let mut number = 0;
            while !*stop.borrow_and_update() {
                let slug = format!("during-{number}");
                let position = owner.create_project(&id, &slug).await.text("/position");
                let read = owner.query(query, json!({"id": id, "at": [position]})).await;
                assert_eq!(read.text("/organization/projects/nodes/0/slug"), slug);
                assert_eq!(read.at("/organization/members/nodes").as_array().unwrap().len(), 2);
                number += 1;
            }
            number
        })
    };
    let text = succeeds(&database, &["projections", "rebuild", "projects"]).await;
    assert!(text.contains("the old one was different: projects prj_") && text.contains("name is another"), "{text}");
    let text = succeeds(&database, &["projections", "rebuild", "--all"]).await;
    assert!(
        text.contains("rebuilt organizations, members, invitations, projects, users, api_tokens, audit, webhooks"),
        "{text}"
    );
    assert!(!text.contains("different"), "{text}");
    stop.send_replace(true);
    assert!(load.await.unwrap() > 0);
    level(&pool).await;
    succeeds(&database, &["projections", "verify"]).await;

    // The new tables have the indexes of the old ones, under the same names, and nothing is left of the rest.
    let indexes: Vec<String> =
        sqlx::query_scalar("SELECT indexname::text FROM pg_indexes WHERE schemaname = 'projects_1' ORDER BY 1")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(indexes, ["projects_by_creation", "projects_by_purge", "projects_pkey"]);
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname ~ '_(next|old)$') + (SELECT count(*) FROM rebuilds)
              + (SELECT count(*) FROM checkpoints WHERE shadow)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_killed_is_finished_by_a_service() {
    let database = Database::new().await;
    let server = database.serve().await;
    populate(&server, "acme").await;
    let pool = database.pool().await;
    level(&pool).await;
    // Somebody holds a checkpoint of the old tables, so the rebuild gets as far as its last transaction and no further.
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM checkpoints WHERE projection = 'members' AND NOT shadow FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    let mut child = command.args(["projections", "rebuild", "members"]).envs(database.variables(&[])).spawn().unwrap();
    eventually("it waits for the checkpoint", || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenancy rebuild' AND wait_event_type = 'Lock'
             AND datname = current_database()",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        waiting > 0
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    holder.rollback().await.unwrap();
    execute(&pool, "UPDATE members SET roles = '{wrong}'").await;
    eventually("the service has finished it", || async {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM rebuilds").fetch_one(&pool).await.unwrap();
        left == 0
    })
    .await;
    level(&pool).await;
    succeeds(&database, &["projections", "verify", "members"]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_of_all_waits_for_the_one_that_is_under_way_and_leaves_none_out() {
    let database = Database::new().await;
    let server = database.serve().await;
    populate(&server, "acme").await;
    let pool = database.pool().await;
    level(&pool).await;
    server.stop().await;
    // Somebody else is at the members.
    let mut other = pool.acquire().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(32411, 1)").execute(&mut *other).await.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.args(["projections", "rebuild", "--all"]).envs(database.variables(&[])).stdout(Stdio::piped());
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    eventually("all are asked for", || async {
        let asked: i64 = sqlx::query_scalar("SELECT count(*) FROM rebuilds").fetch_one(&pool).await.unwrap();
        asked == 8
    })
    .await;
    sqlx::query("SELECT pg_advisory_unlock(32411, 1)").execute(&mut *other).await.unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(
        said(&output)
            .contains("rebuilt organizations, members, invitations, projects, users, api_tokens, audit, webhooks"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_begins_a_new_epoch_and_says_what_does_not_fit() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (id, owner) = populate(&server, "acme").await;
    let position = owner.create_project(&id, "kept").await.text("/position");
    let pool = database.pool().await;
    level(&pool).await;
    // A person was erased after the backup was made; only the tombstone knows.
    let erased: String =
        sqlx::query_scalar("SELECT id FROM users WHERE email = 'ada-acme@example.com'").fetch_one(&pool).await.unwrap();
    sqlx::query("INSERT INTO tombstones VALUES ($1)").bind(&erased).execute(&pool).await.unwrap();

    let query = "query($id: ID!, $at: [Position!]) { organization(by: {id: $id}, atLeast: $at) { id } }";
    owner.query(query, json!({"id": id, "at": [position]})).await;
    // Not beside a service, without a word: its clients' positions would be unknown.
    let refused = run(&database, &["recover", "--repair"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a service is alive"), "{refused:?}");
    owner.query(query, json!({"id": id, "at": [position]})).await;
    let text = succeeds(&database, &["recover", "--repair", "--force"]).await;
    assert!(text.contains(" begins; positions of before") && text.contains("1 keys of erased people"), "{text}");
    let readable = "SELECT count(*) FROM users WHERE email = 'ada-acme@example.com'";
    let readable: i64 = sqlx::query_scalar(readable).fetch_one(&pool).await.unwrap();
    assert_eq!(readable, 0, "what was readable goes: {text}");
    eventually("a running replica hears of it", || async {
        let answer = owner.send(query, json!({"id": id, "at": [position]})).await;
        answer["errors"][0]["extensions"]["code"] == "POSITION_UNKNOWN"
    })
    .await;
    let now = owner.create_project(&id, "after").await.text("/position");
    owner.query(query, json!({"id": id, "at": [now]})).await;
    let wrapped: Option<Vec<u8>> = sqlx::query_scalar("SELECT wrapped FROM subject_keys WHERE subject_id = $1")
        .bind(&erased)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(wrapped, None);
    server.stop().await;

    // Read models from a later time than the log: the end of the log is gone, and they still show it.
    execute(&pool, "ALTER TABLE events DISABLE TRIGGER events_are_never_changed").await;
    execute(&pool, "DELETE FROM events WHERE payload::text LIKE '%\"after\"%'").await;
    let output = run(&database, &["recover"]).await;
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(
        text.contains("projects: shows offset")
            && text.contains("tallies org_")
            && text.contains("claims project_slug"),
        "{text}"
    );
    let text = succeeds(&database, &["recover", "--repair"]).await;
    assert!(text.contains("repaired") && text.contains("rebuilt projects"), "{text}");
    succeeds(&database, &["projections", "verify"]).await;
    let server = database.serve().await;
    let owner = Client { url: server.url("/graphql"), ..owner };
    assert!(owner.create_project(&id, "after").await.accepted());
    server.stop().await;
}

/// A service of its own process.
struct Replica(Child);

impl Replica {
    fn start(database: &Database) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
        let mut child = command.envs(database.variables(&[])).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listens on")));
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_is_replaced_within_a_second() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (id, owner) = populate(&server, "acme").await;
    let pool = database.pool().await;
    let query = "query($id: ID!, $at: [Position!]) { organization(by: {id: $id}, atLeast: $at) { id } }";
    let replica = Replica::start(&database);
    let stop = tokio::sync::watch::channel(false).0;
    let load = {
        let (owner, id, mut stop) = (owner.clone(), id.clone(), stop.subscribe());
        tokio::spawn(async move {
            for number in 0.. {
                if *stop.borrow_and_update() {
                    return;
                }
                owner.create_project(&id, &format!("load-{number}")).await;
            }
        })
    };
    // Stopped in the middle of its work, it keeps its lease; nobody else gets at those partitions.
    let held = async || {
        for _ in 0..8 {
            let free = "SELECT count(*) FROM (SELECT FROM checkpoints WHERE NOT shadow FOR UPDATE SKIP LOCKED) c";
            let (free, all): (i64, i64) = (
                sqlx::query_scalar(free).fetch_one(&pool).await.unwrap(),
                sqlx::query_scalar("SELECT count(*) FROM checkpoints").fetch_one(&pool).await.unwrap(),
            );
            if free == all {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        true
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        replica.signal(Signal::SIGSTOP);
        if held().await {
            break;
        }
        replica.signal(Signal::SIGCONT);
        assert!(Instant::now() < deadline, "the second replica never had a lease");
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    replica.signal(Signal::SIGKILL);
    let killed = Instant::now();
    let position = owner.create_project(&id, "after").await.text("/position");
    owner.query(query, json!({"id": id, "at": [position]})).await;
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    stop.send_replace(true);
    load.await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_a_backlog_without_being_told() {
    let database = Database::new().await;
    let server = database.serve().await;
    for slug in ["a", "b", "c", "d", "e", "f"] {
        populate(&server, slug).await;
    }
    server.stop().await;
    let pool = database.pool().await;
    execute(&pool, r#"UPDATE checkpoints SET "offset" = 0"#).await;
    let one = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    let two = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    // While one holds some of the partitions, the other takes the rest.
    let mut held = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM checkpoints WHERE partition < 2 FOR UPDATE").execute(&mut *held).await.unwrap();
    one.catch_up().await.unwrap();
    let behind: Vec<i16> = projections::status(&pool).await.unwrap()[0]
        .partitions
        .iter()
        .filter(|partition| partition.lag_events() > 0)
        .map(|partition| partition.partition)
        .collect();
    assert!(behind.iter().all(|partition| *partition < 2) && !behind.is_empty(), "{behind:?}");
    held.rollback().await.unwrap();
    two.catch_up().await.unwrap();
    assert!(projections::status(&pool).await.unwrap().iter().all(|status| status.lag_events() == 0));
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_for_people_and_for_programs() {
    let database = Database::new().await;
    let server = database.serve().await;
    populate(&server, "acme").await;
    level(&database.pool().await).await;
    let text = succeeds(&database, &["projections", "status"]).await;
    assert_eq!(text.lines().count(), 9, "{text}");
    let json = succeeds(&database, &["projections", "status", "--json"]).await;
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(
        (&lines[1]["name"], &lines[1]["state"], &lines[1]["lagEvents"]),
        (&json!("members"), &json!("ok"), &json!(0))
    );
    assert_eq!(run(&database, &["projections", "verify", "nothing"]).await.status.code(), Some(2));
    assert_eq!(run(&database, &["projections", "rebuild"]).await.status.code(), Some(2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_between_two_points_is_printed_for_people() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (id, owner) = populate(&server, "acme").await;
    let newest = async || -> String {
        let query =
            "query($id: ID!) { organization(by: {id: $id}) { auditTrail(last: 1) { nodes { auditSequence } } } }";
        let answer = owner.query(query, json!({"id": id})).await;
        answer.at("/organization/auditTrail/nodes/0/auditSequence").to_string()
    };
    let from = newest().await;
    let input = json!({"organizationId": id, "name": "Acme Works", "contactEmail": "office@acme.example"});
    owner.run("updateOrganization", "UpdateOrganizationInput", input, "__typename").await;
    let settings = json!({"organizationId": id, "namespace": "branding", "value": {"color": "blue"}});
    owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", settings, "__typename").await;
    server.operator().set_limit(&id, "projects", 7).await;
    let carl = server.user("carl@example.com");
    let membership = owner.bring_in(&id, &carl, "carl@example.com", &["guest"]).await;
    owner.change_roles(&membership, &["billing"]).await;
    let ada = owner.query(MEMBERS, json!({"id": id})).await;
    let ada =
        ada.at("/organization/members/nodes").as_array().unwrap().iter().find(|node| node["roles"][0] == "member");
    let input = json!({"membershipId": ada.unwrap()["id"], "roles": ["guest"], "reason": "is on parental leave"});
    owner.run("changeMemberRoles", "ChangeMemberRolesInput", input, "__typename").await;
    let project = owner.create_project(&id, "d").await.text("/project/id");
    owner.run("archiveProject", "ProjectCommandInput", json!({"projectId": project}), "__typename").await;
    let to = newest().await;
    let arguments = ["audit", "diff", "--organization", &id, "--from", &from, "--to", &to];
    let text = succeeds(&database, &arguments).await;
    for line in [
        "~ name: \"acme\" → \"Acme Works\"",
        "~ contact address: none → (changed)",
        "~ branding: {\"color\":\"red\"} → {\"color\":\"blue\"}",
        "~ projects, maximum: none → 7",
        "~ projects, used: 3 → 4",
        "~ members, used: 3 → 4",
        &format!("+ {membership}: roles billing; state ACTIVE; user usr_"),
        "state ACCEPTED",
        ": roles: member → guest",
        "Z, member.roles_changed by usr_",
        ": (a reason that is not shown)",
        "Z, org.limit_set by operator usr_",
        ": a test",
        &format!("+ {project}: metadata {{}}; name \"d\"; slug d; state ARCHIVED"),
    ] {
        assert!(text.contains(line), "{line} is missing: {text}");
    }
    for personal in ["carl@", "office@", "owner-acme@", "parental leave"] {
        assert!(!text.contains(personal), "what is personal is not printed: {text}");
    }
    let named = succeeds(&database, &[&arguments[..], &["--personal"]].concat()).await;
    for line in [
        "~ contact address: none → office@acme.example",
        "(ada-acme@example.com): roles: member → guest",
        "member.roles_changed by owner-acme@example.com: is on parental leave",
        &format!("+ {membership} (carl@example.com): roles billing"),
        "member.joined by carl@example.com",
    ] {
        assert!(named.contains(line), "{line} is missing: {named}");
    }
    let found = succeeds(&database, &[&arguments[..], &["--format", "json"]].concat()).await;
    let found: Value = serde_json::from_str(&found).unwrap();
    let renamed = &found["changes"][0];
    assert_eq!((&renamed["heading"], &renamed["kind"]), (&json!("organization"), &json!("changed")), "{renamed}");
    let joined = found["changes"].as_array().unwrap().iter().find(|change| change["id"] == json!(membership)).unwrap();
    let actions: Vec<&Value> = joined["events"].as_array().unwrap().iter().map(|event| &event["action"]).collect();
    assert_eq!(actions, ["member.joined", "member.roles_changed"], "how it began, and what it came to");
    let headings: Vec<&str> = text.lines().skip(1).filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(headings, ["organization", "settings", "limits", "members", "invitations", "projects"]);
    let arguments = ["audit", "diff", "--organization", &id, "--from", &to, "--to", &to];
    assert!(succeeds(&database, &arguments).await.ends_with("nothing changed\n"));

    // The same without a service, and each time.
    server.stop().await;
    let arguments = ["audit", "diff", "--organization", &id, "--from", &from, "--to", &to];
    assert_eq!(succeeds(&database, &arguments).await, text);
    for (from, to, code) in [("2", "1", 2), ("1", "1000", 1)] {
        let output = run(&database, &["audit", "diff", "--organization", &id, "--from", from, "--to", to]).await;
        assert_eq!(output.status.code(), Some(code), "{from} to {to}: {output:?}");
    }
    let nobody = OrganizationId::random().to_string();
    fails(&database, &["audit", "diff", "--organization", &nobody, "--from", "1", "--to", "1"]).await;
}
