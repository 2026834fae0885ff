//! Organizations as they were: against a fold of the audit trail that shares nothing with the program, and for ever.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aggregates::ids::{Id, InvitationId, OrganizationId};
use aggregates::invitation::InvitationEvent;
use aggregates::personal::{Digest, Personal};
use aggregates::{Actor, Origin};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use tenancy::log::{Draft, Outcome};
use uuid::Uuid;

use crate::support::{Client, Database, Server, check_log};

/// What a plan says of a limit; of tokens there are a hundred where it says nothing.
fn maximum_of(limits: &Value, name: &str) -> Value {
    match limits.get(name) {
        None if ["tokens", "webhooks"].contains(&name) => json!(100),
        maximum => maximum.cloned().unwrap_or_default(),
    }
}

const SNAPSHOT: &str = "query($id: ID!, $asOf: AsOfInput!) { organizationAsOf(id: $id, asOf: $asOf) {
    id auditSequence recordedAt slug name verification lifecycle plan limits { name maximum used } settings
    members(first: 100) { nodes { membershipId userId roles state } }
    invitations(first: 100) { nodes { invitationId email roles state expiresAt } }
    projects(first: 100) { nodes { projectId slug name state } } } }";

async fn as_of(client: &Client, id: &str, point: Value) -> Value {
    let answer = client.send(SNAPSHOT, json!({"id": id, "asOf": point})).await;
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"]["organizationAsOf"].clone()
}

async fn refused(client: &Client, id: &str, point: Value) -> String {
    client.fault(SNAPSHOT, json!({"id": id, "asOf": point})).await
}

/// The whole audit trail of an organization.
async fn trail(client: &Client, id: &str) -> Vec<Value> {
    let query =
        "query($id: ID!, $after: String) { organization(by: {id: $id}) { auditTrail(first: 100, after: $after) {
        nodes { action subjectId auditSequence recordedAt position data } pageInfo { hasNextPage endCursor } } } }";
    let (mut events, mut after) = (vec![], Value::Null);
    loop {
        let page = client.query(query, json!({"id": id, "after": after})).await;
        events.extend(page.at("/organization/auditTrail/nodes").as_array().unwrap().iter().cloned());
        after = page.at("/organization/auditTrail/pageInfo/endCursor").clone();
        if page.at("/organization/auditTrail/pageInfo/hasNextPage") == false {
            return events;
        }
    }
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

/// What the first events of a trail make of an organization, by what they say and nothing else.
fn plain(id: &str, events: &[Value]) -> Value {
    let mut organization = Map::new();
    let mut settings = Map::new();
    let mut maxima = BTreeMap::from([
        ("members", Value::Null),
        ("projects", Value::Null),
        ("tokens", json!(100)),
        ("webhooks", json!(100)),
    ]);
    let mut used = BTreeMap::from([("members", 0), ("projects", 0), ("tokens", 0), ("webhooks", 0)]);
    let (mut members, mut invitations, mut projects): (Vec<Value>, Vec<Value>, Vec<Value>) = (vec![], vec![], vec![]);
    for event in events {
        let (action, data) = (event["action"].as_str().unwrap(), &event["data"]);
        let subject = &event["subjectId"];
        let at = |list: &[Value], name: &str| list.iter().position(|entry| entry[name] == *subject);
        let member = at(&members, "membershipId");
        let invitation = at(&invitations, "invitationId");
        let project = at(&projects, "projectId");
        let mut set = |name: &str, value: &Value| drop(organization.insert(name.to_owned(), value.clone()));
        match action {
            "org.created" => {
                for name in ["name", "slug", "plan"] {
                    set(name, &data[name]);
                }
                set("verification", &json!("IN_SETUP"));
                set("lifecycle", &json!("ACTIVE"));
                maxima.iter_mut().for_each(|(name, maximum)| *maximum = maximum_of(&data["limits"], name));
            }
            "org.renamed" => set("name", &data["name"]),
            "org.slug_changed" => set("slug", &data["slug"]),
            "org.plan_changed" => {
                set("plan", &data["plan"]);
                maxima.iter_mut().for_each(|(name, maximum)| *maximum = maximum_of(&data["maximums"], name));
            }
            "org.limit_set" => {
                let name = if data["limit"] == "members" { "members" } else { "projects" };
                maxima.insert(name, data["maximum"].clone());
            }
            "org.settings_updated" if data["value"].is_null() => {
                drop(settings.remove(data["namespace"].as_str().unwrap()))
            }
            "org.settings_updated" => {
                settings.insert(data["namespace"].as_str().unwrap().to_owned(), data["value"].clone());
            }
            "org.deactivated" => set("lifecycle", &json!("INACTIVE")),
            "org.activated" => set("lifecycle", &json!("ACTIVE")),
            "org.deleted" => set("lifecycle", &json!("DELETED")),
            "org.restored" => set("lifecycle", &data["lifecycle"]),
            action if action.starts_with("org.") && !data["verification"].is_null() => {
                set("verification", &data["verification"]);
            }
            "member.invited" => {
                *used.get_mut("members").unwrap() += 1;
                invitations.push(json!({"invitationId": subject, "email": data["email"], "roles": data["roles"],
                    "state": "PENDING", "expiresAt": data["expiresAt"]}));
            }
            "invitation.resent" => invitations[invitation.unwrap()]["expiresAt"] = data["expiresAt"].clone(),
            "invitation.accepted" => {
                // A member already has a seat.
                *used.get_mut("members").unwrap() -= i32::from(data["seatFreed"] == true);
                invitations[invitation.unwrap()]["state"] = json!("ACCEPTED");
            }
            "invitation.revoked" => {
                *used.get_mut("members").unwrap() -= 1;
                invitations[invitation.unwrap()]["state"] = json!("REVOKED");
            }
            "member.joined" => {
                *used.get_mut("members").unwrap() += i32::from(data["invitationId"].is_null());
                let joined = json!({"membershipId": subject, "userId": data["userId"], "roles": data["roles"], "state": "ACTIVE"});
                match member {
                    Some(place) => members[place] = joined,
                    None => members.push(joined),
                }
            }
            "member.roles_changed" => members[member.unwrap()]["roles"] = data["roles"].clone(),
            "member.suspended" => {
                *used.get_mut("members").unwrap() -= 1;
                members[member.unwrap()]["state"] = json!("SUSPENDED");
            }
            "member.reinstated" => {
                *used.get_mut("members").unwrap() += 1;
                members[member.unwrap()]["state"] = json!("ACTIVE");
            }
            "member.removed" | "member.left" => {
                *used.get_mut("members").unwrap() -= i32::from(data["previousState"] == "ACTIVE");
                members[member.unwrap()]["state"] = json!("REMOVED");
            }
            "project.created" => {
                *used.get_mut("projects").unwrap() += 1;
                projects
                    .push(json!({"projectId": subject, "slug": data["slug"], "name": data["name"], "state": "ACTIVE"}));
            }
            "project.renamed" => projects[project.unwrap()]["name"] = data["name"].clone(),
            "project.slug_changed" => projects[project.unwrap()]["slug"] = data["slug"].clone(),
            "project.archived" => projects[project.unwrap()]["state"] = json!("ARCHIVED"),
            "project.unarchived" => projects[project.unwrap()]["state"] = json!("ACTIVE"),
            "project.deleted" => {
                *used.get_mut("projects").unwrap() -= 1;
                projects[project.unwrap()]["state"] = json!("DELETED");
            }
            "project.restored" => {
                *used.get_mut("projects").unwrap() += 1;
                projects[project.unwrap()]["state"] = data["projectState"].clone();
            }
            "limit.reached" => {}
            other => panic!("{other} is not folded here: write it"),
        }
    }
    let last = events.last().unwrap();
    let limits: Vec<Value> = ["members", "projects", "tokens", "webhooks"]
        .map(|name| json!({"name": name, "maximum": maxima[name], "used": used[name]}))
        .to_vec();
    let mut all = json!({"id": id, "auditSequence": last["auditSequence"], "recordedAt": last["recordedAt"],
        "limits": limits, "settings": settings, "members": {"nodes": members}, "invitations": {"nodes": invitations},
        "projects": {"nodes": projects}});
    all.as_object_mut().unwrap().extend(organization);
    all
}

/// Numbers as by chance, and the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<'a>(&mut self, list: &'a [String]) -> &'a str {
        list.get(self.below(list.len().max(1))).map_or("", String::as_str)
    }
}

/// Does this and that to an organization; some of it is refused.
async fn live(seed: u64, servers: &[&Server], id: &str) {
    let mut chance = Chance(seed);
    let (mut memberships, mut invitations, mut projects) = (vec![], vec![], vec![]);
    for step in 0..130 {
        let server = servers[chance.below(servers.len())];
        let (owner, operator) = (server.user("owner@example.com"), server.operator());
        let roles = [["member"], ["admin"], ["guest"], ["billing"]][chance.below(4)];
        let email = format!("user-{}@example.com", chance.below(6));
        match chance.below(16) {
            0 | 1 => {
                let invited = owner.invite(id, &email, &roles).await;
                if invited.accepted() {
                    invitations.push(invited.text("/invitation/id"));
                    if chance.below(2) == 0 {
                        let accepted = server.user(&email).accept(&invited.text("/token")).await;
                        memberships.extend(accepted.accepted().then(|| accepted.text("/membership/id")));
                    }
                }
            }
            2 => {
                let command = ["revokeInvitation", "resendInvitation"][chance.below(2)];
                let input = json!({"invitationId": chance.of(&invitations)});
                owner.run(command, "InvitationCommandInput", input, "__typename").await;
            }
            3 => drop(owner.change_roles(chance.of(&memberships), &roles).await),
            4 => drop(owner.member("suspendMember", chance.of(&memberships)).await),
            5 => drop(owner.member("reinstateMember", chance.of(&memberships)).await),
            6 => drop(owner.member("removeMember", chance.of(&memberships)).await),
            7..=9 => {
                let created = owner.create_project(id, &format!("p{}", chance.below(12))).await;
                projects.extend(created.accepted().then(|| created.text("/project/id")));
            }
            10 => {
                let input = json!({"projectId": chance.of(&projects), "name": format!("Name {step}"), "slug": format!("s{step}")});
                owner.run("updateProject", "UpdateProjectInput", input, "__typename").await;
            }
            11 | 12 => {
                let command =
                    ["archiveProject", "unarchiveProject", "deleteProject", "restoreProject"][chance.below(4)];
                owner
                    .run(command, "ProjectCommandInput", json!({"projectId": chance.of(&projects)}), "__typename")
                    .await;
            }
            13 => {
                let value = if chance.below(3) == 0 { Value::Null } else { json!({"step": step}) };
                let namespace = ["a", "b"][chance.below(2)];
                let input = json!({"organizationId": id, "namespace": namespace, "value": value});
                owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, "__typename").await;
            }
            14 => {
                drop(operator.set_limit(id, ["members", "projects"][chance.below(2)], 3 + chance.below(5) as u64).await)
            }
            _ => {
                let commands =
                    ["reviewOrganizationAgain", "verifyOrganization", "blockOrganization", "unblockOrganization"];
                operator.review(commands[chance.below(4)], id).await;
                let input = json!({"organizationId": id, "name": format!("Name {step}")});
                owner.run("updateOrganization", "UpdateOrganizationInput", input, "__typename").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_of_a_random_history_is_the_fold_of_the_events_up_to_there() {
    for seed in 1..=3 {
        let database = Database::new().await;
        let (first, second) = (database.serve().await, database.serve().await);
        let owner = first.user("owner@example.com");
        let id = first.verified("acme", &owner).await;
        live(seed, &[&first, &second], &id).await;
        let reader = first.operator();
        let events = trail(&reader, &id).await;
        assert!(events.len() > 40, "{}", events.len());
        let beside = second.operator();
        let mut answers = vec![];
        for (place, event) in events.iter().enumerate() {
            let expected = plain(&id, &events[..=place]);
            let number = json!({"auditSequence": event["auditSequence"]});
            assert_eq!(as_of(&reader, &id, number.clone()).await, expected, "seed {seed}, event {}", place + 1);
            assert_eq!(as_of(&beside, &id, json!({"position": event["position"]})).await, expected);
            // As of a time is after everything of that time: a command may record several events.
            let until = events.iter().filter(|other| time(&other["recordedAt"]) <= time(&event["recordedAt"])).count();
            let at_time = as_of(&beside, &id, json!({"time": event["recordedAt"]})).await;
            assert_eq!(at_time, plain(&id, &events[..until]), "seed {seed}, time of event {}", place + 1);
            answers.push((number, expected));
        }
        // The same after a restart, and whatever happened since.
        live(seed + 100, &[&first], &id).await;
        first.stop().await;
        second.stop().await;
        let third = database.serve().await;
        for (number, expected) in answers.iter().step_by(7) {
            assert_eq!(as_of(&third.operator(), &id, number.clone()).await, *expected);
        }
        third.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_of_a_time_is_answered_once_and_for_all_while_replicas_write() {
    let database = Database::new().await;
    let (first, second) = (database.serve().await, database.serve().await);
    let owner = first.user("owner@example.com");
    let id = first.verified("acme", &owner).await;
    let stop = AtomicBool::new(false);
    let write = async |server: &Server, name: &str| {
        let owner = server.user("owner@example.com");
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            assert!(owner.create_project(&id, &format!("{name}{number}")).await.accepted());
            number += 1;
        }
    };
    let mut asked = vec![];
    let ask = async {
        let readers = [first.user("owner@example.com"), second.user("owner@example.com")];
        for round in 0..120 {
            let now = Utc::now();
            let point = json!({"time": now.to_rfc3339()});
            asked.push((point.clone(), as_of(&readers[round % 2], &id, point).await));
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(write(&first, "a"), write(&second, "b"), write(&second, "c"), ask);
    let mut different = std::collections::BTreeSet::new();
    for (point, answer) in &asked {
        different.insert(answer["auditSequence"].as_u64());
        for server in [&first, &second] {
            assert_eq!(as_of(&server.user("owner@example.com"), &id, point.clone()).await, *answer, "{point}");
        }
    }
    assert!(different.len() > 20, "nothing was written meanwhile: {different:?}");
    check_log(&database.pool().await).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_for_holds_whatever_the_clock_of_the_next_writer_says() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    // A replica whose clock is an hour ahead answered for a time that this one has yet to see.
    let ahead = Utc::now() + TimeDelta::hours(1);
    let pool = database.pool().await;
    sqlx::query("INSERT INTO answered_times SELECT number, $1 FROM generate_series(0, 3) AS number")
        .bind(ahead)
        .execute(&pool)
        .await
        .unwrap();
    let point = json!({"time": (ahead - TimeDelta::seconds(1)).to_rfc3339()});
    let before = as_of(&owner, &id, point.clone()).await;
    for name in ["a", "b"] {
        assert!(owner.create_project(&id, name).await.accepted());
    }
    let events = trail(&owner, &id).await;
    assert!(time(&events.last().unwrap()["recordedAt"]).timestamp_micros() >= ahead.timestamp_micros());
    assert_eq!(as_of(&owner, &id, point).await, before);
    // The clock of the log is there now, whatever this replica's says.
    let newest = as_of(&owner, &id, json!({"time": events.last().unwrap()["recordedAt"]})).await;
    assert_eq!(newest["projects"]["nodes"].as_array().unwrap().len(), 2);
    check_log(&pool).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_are_none_are_told_apart() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let before = Utc::now();
    let id = server.verified("acme", &owner).await;
    let partition = server.service().core().commands.log().partition_of(&id);
    let position = |text: String| json!({"position": URL_SAFE_NO_PAD.encode(text)});
    let other = (partition + 1) % 4;
    for (point, code) in [
        (json!({"auditSequence": 0}), "NOT_FOUND"),
        (json!({"time": before.to_rfc3339()}), "NOT_FOUND"),
        (position(format!("1.{partition}-0")), "NOT_FOUND"),
        (json!({"auditSequence": 1_000}), "BAD_USER_INPUT"),
        (json!({"time": (Utc::now() + TimeDelta::minutes(1)).to_rfc3339()}), "BAD_USER_INPUT"),
        (position(format!("1.{other}-1")), "BAD_USER_INPUT"),
        (position(format!("1.{partition}-1000")), "BAD_USER_INPUT"),
        (position(format!("2.{partition}-1")), "POSITION_UNKNOWN"),
        (position("1.9-1".to_owned()), "POSITION_UNKNOWN"),
        (json!({"position": "nonsense"}), "BAD_USER_INPUT"),
    ] {
        assert_eq!(refused(&owner, &id, point.clone()).await, code, "{point}");
    }
    let stranger = server.user("stranger@example.com");
    assert_eq!(refused(&stranger, &id, json!({"auditSequence": 1})).await, "NOT_FOUND");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_and_invitations_expire_by_the_clock_of_that_moment() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let log = server.service().core().commands.log().clone();
    let organization: OrganizationId = id.parse().unwrap();
    // Invitations that are open for a moment only, which the API does not make.
    let expires_at = Utc::now() + TimeDelta::milliseconds(1_500);
    for number in 0..7 {
        let invitation = InvitationId::random();
        let event = InvitationEvent::MemberInvited {
            scope: aggregates::roles::RoleScope::Organization,
            email: Personal::new(invitation.as_ref(), format!("user-{number}@example.com")),
            email_claim: Digest(format!("claim-{number}")),
            token_digest: Digest(format!("token-{number}")),
            roles: vec!["member".to_owned()],
            invited_by: Actor::System,
            expires_at,
            created_at: Utc::now(),
            reason: None,
        };
        let origin = Origin {
            command_id: Uuid::new_v4(),
            actor: Actor::System,
            on_behalf_of: None,
            ip: None,
            user_agent: None,
            request_id: None,
            correlation_id: Uuid::new_v4(),
            causation_id: None,
        };
        let draft = Draft {
            organization: Some(organization.clone()),
            relied: vec![],
            held: None,
            writes: vec![(invitation.into(), 0, vec![event.into()])],
            origin,
        };
        let outcome = log.append(log.seal(draft).await.unwrap()).await.unwrap();
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let open = Utc::now();
    let newest = trail(&owner, &id).await.iter().map(|event| event["auditSequence"].as_u64().unwrap()).max().unwrap();
    let states = async |point: Value| -> Vec<String> {
        let found = as_of(&owner, &id, point).await;
        let nodes = found["invitations"]["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(json!({"time": open.to_rfc3339()})).await, ["PENDING"; 7]);
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert_eq!(states(json!({"time": Utc::now().to_rfc3339()})).await, ["EXPIRED"; 7]);
    assert_eq!(states(json!({"time": open.to_rfc3339()})).await, ["PENDING"; 7]);
    assert_eq!(states(json!({"auditSequence": newest})).await, ["PENDING"; 7]);

    let query = "query($id: ID!, $s: Long!, $first: Int, $after: String) { organizationAsOf(id: $id, asOf: {auditSequence: $s}) {
        invitations(first: $first, after: $after) { nodes { email } pageInfo { hasNextPage hasPreviousPage endCursor } } } }";
    for size in [1, 2, 3, 6, 7, 8, 100] {
        let (mut emails, mut after) = (vec![], Value::Null);
        loop {
            let variables = json!({"id": id, "s": newest, "first": size, "after": after});
            let page = owner.query(query, variables).await;
            let list = page.at("/organizationAsOf/invitations");
            let nodes = list["nodes"].as_array().unwrap();
            assert!(nodes.len() <= size);
            emails.extend(nodes.iter().map(|node| node["email"].as_str().unwrap().to_owned()));
            assert_eq!(list["pageInfo"]["hasPreviousPage"], json!(!after.is_null()));
            after = list["pageInfo"]["endCursor"].clone();
            if list["pageInfo"]["hasNextPage"] == false {
                break;
            }
        }
        assert_eq!(emails, (0..7).map(|number| format!("user-{number}@example.com")).collect::<Vec<_>>());
    }
    for first in [0, 101] {
        let variables = json!({"id": id, "s": newest, "first": first, "after": null});
        assert_eq!(owner.fault(query, variables).await, "BAD_USER_INPUT");
    }
    server.stop().await;

    // Without their keys nothing is left of the addresses, and everything else is as it was.
    let pool = database.pool().await;
    sqlx::query("UPDATE subject_keys SET wrapped = NULL, erased_at = now() WHERE subject_id LIKE 'inv_%'")
        .execute(&pool)
        .await
        .unwrap();
    let server = database.serve().await;
    let found = as_of(&server.user("owner@example.com"), &id, json!({"auditSequence": newest})).await;
    for node in found["invitations"]["nodes"].as_array().unwrap() {
        assert_eq!((&node["email"], &node["roles"]), (&Value::Null, &json!(["member"])), "{node}");
    }
    server.stop().await;
}
