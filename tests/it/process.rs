//! The program itself: started with one command, killed at bad moments, stopped politely.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::server_programs::server_programs;
use crate::support::Client;

struct Home {
    data_dir: PathBuf,
    _root: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // As root the private server runs under another account, which has to get through.
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        Self { data_dir: root.path().join("data"), _root: root }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
        command.args(arguments).env("TENANCY_DATA_DIR", &self.data_dir).env_remove("DATABASE_URL").stdin(Stdio::null());
        command.env("TENANCY_DATABASE__POSTGRES_BIN_DIR", server_programs());
        command
    }

    fn token(&self, email: &str, more: &[&str]) -> String {
        let output = self.command(&[&["token", "--email", email], more].concat()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn serve(&self) -> Running {
        let mut child = self
            .command(&["serve", "--listen", "127.0.0.1:0"])
            .env("TENANCY_RATE_LIMITS__ENABLED", "false")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let url = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {said}")).unwrap();
            if let Some((_, url)) = line.split_once("listens on ") {
                break url.to_owned();
            }
            said.push_str(&line);
            said.push('\n');
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Running { child, url }
    }

    fn client(&self, running: &Running, email: &str, more: &[&str]) -> Client {
        Client {
            url: format!("{}/graphql", running.url),
            token: Some(self.token(email, more)),
            http: reqwest::Client::new(),
        }
    }

    fn postmaster(&self) -> Option<Pid> {
        let file = std::fs::read_to_string(self.data_dir.join("postgres/postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(postmaster) = self.postmaster() {
            let _ = kill(postmaster, Signal::SIGQUIT);
        }
    }
}

struct Running {
    child: Child,
    url: String,
}

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_everything_is_killed_under_load() {
    let home = Home::new();
    let mut running = home.serve();
    let owner = home.client(&running, "owner@example.com", &[]);
    let created = owner
        .run(
            "createOrganization",
            "CreateOrganizationInput",
            json!({"name": "Acme", "slug": "acme"}),
            "organization { id }",
        )
        .await;
    let id = created.text("/organization/id");
    owner.organization_command("submitOrganizationForVerification", &id).await;
    home.client(&running, "ops@example.com", &["--operator"]).review("verifyOrganization", &id).await;

    let mut acknowledged: Vec<String> = vec![];
    for round in 0..3 {
        let owner = home.client(&running, "owner@example.com", &[]);
        let dead = Arc::new(AtomicBool::new(false));
        let writers = (0..4).map(|writer| {
            let (owner, id, dead) = (owner.clone(), id.clone(), dead.clone());
            tokio::spawn(async move {
                let mut acknowledged = vec![];
                for number in 0.. {
                    let slug = format!("r{round}-w{writer}-{number}");
                    let query = "mutation($i: CreateProjectInput!) { createProject(input: $i) { project { slug } } }";
                    let body =
                        json!({"query": query, "variables": {"i": {"organizationId": id, "name": slug, "slug": slug}}});
                    let sent =
                        owner.http.post(&owner.url).bearer_auth(owner.token.as_ref().unwrap()).json(&body).send().await;
                    let answer: Option<serde_json::Value> = match sent {
                        Ok(response) => response.json().await.ok(),
                        Err(_) => None,
                    };
                    match answer.as_ref().and_then(|answer| answer.pointer("/data/createProject/project/slug")) {
                        Some(slug) => acknowledged.push(slug.as_str().unwrap().to_owned()),
                        None if dead.load(Ordering::Relaxed) => break,
                        None => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
                acknowledged
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(400 + 130 * round)).await;
        if round != 1 {
            running.signal(Signal::SIGKILL);
        }
        if round != 0 {
            kill(home.postmaster().unwrap(), Signal::SIGKILL).unwrap();
        }
        // In the second round the service lives on and starts its database again.
        if round == 1 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            running.signal(Signal::SIGKILL);
        }
        dead.store(true, Ordering::Relaxed);
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        running = home.serve();
    }
    assert!(acknowledged.len() > 50, "only {} were acknowledged", acknowledged.len());

    let owner = home.client(&running, "owner@example.com", &[]);
    let query = "query($id: ID!, $after: String) { organization(by: {id: $id}) { limits { name used } auditTrail(first: 100, after: $after) {
        nodes { auditSequence ... on ProjectCreatedEvent { slug } } pageInfo { hasNextPage endCursor } } } }";
    let (mut after, mut slugs, mut sequence) = (json!(null), vec![], 0);
    let used = loop {
        let page = owner.query(query, json!({"id": id, "after": after})).await;
        for node in page.at("/organization/auditTrail/nodes").as_array().unwrap() {
            sequence += 1;
            assert_eq!(node["auditSequence"], sequence);
            slugs.extend(node["slug"].as_str().map(str::to_owned));
        }
        after = page.at("/organization/auditTrail/pageInfo/endCursor").clone();
        if page.at("/organization/auditTrail/pageInfo/hasNextPage") == false {
            break page.at("/organization/limits/1/used").clone();
        }
    };
    for slug in &acknowledged {
        assert_eq!(slugs.iter().filter(|found| *found == slug).count(), 1, "{slug}");
    }
    assert_eq!(used, slugs.len());
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_has_one_service_and_stopping_it_leaves_nothing_running() {
    let home = Home::new();
    let running = home.serve();
    let second = home.command(&["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&running.child.id().to_string()) && said.lines().count() == 2, "{said}");
    // A command beside the service uses its server, and leaves it alone.
    let status = home.command(&["projections", "status"]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    assert_eq!(reqwest::get(format!("{}/health/ready", running.url)).await.unwrap().status(), 200);
    running.stop();
    assert_eq!(home.postmaster(), None, "the private server is stopped too");
    // And without a service it starts and stops one.
    assert!(home.command(&["migrate"]).output().unwrap().status.success());
    assert_eq!(home.postmaster(), None);
}

#[test]
fn a_start_that_fails_leaves_nothing_running() {
    let home = Home::new();
    // The address is taken: it is known before anything is made.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let failed = home.command(&["serve", "--listen", &address]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("cannot listen on"), "{failed:?}");
    assert!(!home.data_dir.join("postgres").exists(), "no database was made");
    // Later on the way, the server that was started is stopped.
    assert!(home.command(&["migrate"]).output().unwrap().status.success());
    std::fs::write(home.data_dir.join("audit.pem"), "no key").unwrap();
    let failed = home.command(&["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert_eq!(home.postmaster(), None, "{failed:?}");
    // Given up on the way, too.
    let other = Home::new();
    let mut child = other.command(&["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::null()).spawn().unwrap();
    while other.postmaster().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(other.postmaster(), None);
}

#[test]
fn wrong_usage_and_failures_have_their_own_exit_codes() {
    let home = Home::new();
    for wrong in [
        &["token"][..],
        &["token", "--email", "nobody"],
        &["token", "--email", " ada@example.com"],
        &["token", "--email", "ada@example.com", "--ttl", "100000d"],
        &["token", "--email", "ada@example.com", "--ttl", "367d"],
        &["serve", "--listen", "nowhere"],
        &["import", "peribolos", "/nowhere", "--as", "nobody"],
        &["audit", "diff", "--organization", "org_00000000000000000000000000", "--from", "3", "--to", "2"],
    ] {
        let output = home.command(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    assert!(home.command(&["token", "--email", "ada@example.com", "--ttl", "366d"]).output().unwrap().status.success());
    let failed = home.command(&["import", "peribolos", "/nowhere", "--as", "ada@example.com"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stdout.is_empty() && !failed.stderr.is_empty());
    let schema = home.command(&["schema"]).output().unwrap();
    assert!(String::from_utf8(schema.stdout).unwrap().contains("type OrgVerifiedEvent"));
}
