//! Erasing people: nothing readable is left of them, wherever one looks; and legal holds.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::PgPool;
use tenancy::access::issuer::Grant;
use tenancy::commands::erasure::{EraseSubject, HoldOrganization};
use tenancy::commands::{Caller, Conditions, Fault, Person, Principal, Receipt};
use tenancy::database::embedded::Purpose;
use tenancy::erased::Erased;
use tenancy::service::Core;
use uuid::Uuid;

use crate::support::{Answer, Client, Database, Server, check_log, eventually, nobody_id};

const ADA: &str = "ada.lovelace@analytical.example";
const NAME: &str = "Augusta Ada King";

/// A client with this address and name, and a program that says what it is.
fn person(server: &Server, email: &str, name: &str, agent: &str) -> Client {
    let grant =
        Grant { email: email.to_owned(), name: Some(name.to_owned()), operator: false, ttl: TimeDelta::hours(1) };
    let token = server.service().issuer.as_ref().unwrap().mint(&grant).unwrap();
    let http = reqwest::Client::builder().user_agent(agent).build().unwrap();
    Client { url: server.url("/graphql"), token: Some(token), http }
}

async fn erase(operator: &Client, subject: Value) -> Answer {
    let input = json!({"subject": subject, "reason": "ticket 4711"});
    operator.run("eraseSubject", "EraseSubjectInput", input, "__typename").await
}

async fn hold(operator: &Client, mutation: &str, organization: &str) -> Answer {
    let input = json!({"organizationId": organization, "reason": "a lawsuit"});
    operator.run(mutation, "LegalHoldInput", input, "organization { legalHold { reason } }").await
}

/// Everything that is in the database, as text.
async fn dump(pool: &PgPool) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
         WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut text = String::new();
    for table in tables {
        let rows: Vec<String> =
            sqlx::query_scalar(&format!("SELECT t::text FROM {table} t")).fetch_all(pool).await.unwrap();
        text.push_str(&format!("\n{table}\n{}", rows.join("\n")));
    }
    text
}

/// Everything that operators read of all organizations and users.
async fn read_everything(operator: &Client) -> String {
    let event = "id action data ip userAgent actor { id label } onBehalfOf { label }";
    let query = format!(
        "{{ auditTrail(last: 100) {{ nodes {{ {event} }} }}
            accessTrail(last: 100) {{ nodes {{ actor {{ label }} ip targetId }} }}
            organizations(first: 10) {{ nodes {{ id name contactEmail
                members(first: 10, state: REMOVED) {{ nodes {{ user {{ email name }} }} }}
                invitations(first: 10) {{ nodes {{ email acceptedBy {{ email name }} }} }} }} }} }}"
    );
    operator.query(&query, json!({})).await.0.to_string()
}

/// An operator who comes by no network.
fn caller(operator: &str) -> Caller {
    let user = operator.parse().unwrap();
    Caller {
        principal: Principal::User(Person { user, email: None, operator: true, organization: None }),
        ip: None,
        user_agent: None,
        request_id: None,
        correlation_id: Uuid::new_v4(),
        meter: None,
    }
}

/// Only the append of an erasure, and nothing of what follows it.
async fn append_erasure(core: &Core, operator: &str, user: &str) -> Result<Receipt, Fault> {
    let case = EraseSubject { user: Some(user.parse().unwrap()), invitation: None, reason: "a test".into() };
    core.commands.execute(&caller(operator), &case, Conditions::default()).await
}

async fn set_hold(core: &Core, operator: &str, organization: &str, hold: bool) {
    let case = HoldOrganization { organization: organization.parse().unwrap(), hold, reason: "a lawsuit".into() };
    let held = core.commands.execute(&caller(operator), &case, Conditions::default()).await.unwrap();
    assert!(held.rejections.is_empty(), "{held:?}");
}

async fn execute(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

/// Read models that have seen nothing yet.
const EMPTY: &str =
    r#"UPDATE checkpoints SET "offset" = 0; DELETE FROM members_1.members; DELETE FROM invitations_1.invitations"#;
/// Tombstones that are looked at now, and by which no command waits any more.
const OLDER: &str = "UPDATE tombstones SET erased_at = erased_at - interval '2 minutes', next_look_at = now()";

async fn unfinished(pool: &PgPool) -> i64 {
    let open = "SELECT count(*) FROM tombstones WHERE finished_at IS NULL";
    sqlx::query_scalar(open).fetch_one(pool).await.unwrap()
}

async fn project_of(client: &Client, organization: &str, key: &str) -> Answer {
    let input = json!({"organizationId": organization, "name": "p", "slug": "p", "idempotencyKey": key});
    client.run("createProject", "CreateProjectInput", input, "project { id }").await
}

fn list_of(database: &Database) -> PathBuf {
    database.config(&[]).data_dir.join("erased.list")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_readable_is_left_of_an_erased_person() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (operator, boss) = (server.operator(), server.user("boss@example.com"));
    person(&server, "ada@former.example", NAME, "adas-browser/1").user_id().await;
    // The same person by another token: the built-in issuer knows people by their address, so this is somebody else;
    // what follows is all of one.
    let ada = person(&server, ADA, NAME, "adas-browser/1");
    let former = person(&server, "ada@former.example", NAME, "adas-browser/1").user_id().await;
    let id = ada.user_id().await;

    // A home of her own with a second owner, and her own address as its contact.
    let input = json!({"name": "Engines", "slug": "engines", "contactEmail": ADA});
    let created = ada.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await;
    let engines = created.text("/organization/id");
    let membership = ada.bring_in(&engines, &boss, "boss@example.com", &["admin"]).await;
    ada.change_roles(&membership, &["owner"]).await;
    ada.invite(&engines, "friend@example.com", &["guest"]).await;
    // A member elsewhere, with a reason about her; invited in two more places.
    let acme = server.verified("acme", &boss).await;
    let hers = boss.bring_in(&acme, &ada, ADA, &["member"]).await;
    assert!(project_of(&ada, &acme, "the-key-of-ada").await.accepted());
    let about = json!({"membershipId": hers, "reason": "Ada King gambles"});
    boss.run("suspendMember", "MembershipCommandInput", about, "__typename").await;
    let (third, fourth) = (server.organization("third", &boss).await, server.organization("fourth", &boss).await);
    boss.invite(&third, ADA, &["guest"]).await;
    let declined = boss.invite(&fourth, ADA, &["guest"]).await;
    let input = json!({"token": declined.text("/token")});
    ada.run("declineInvitation", "InvitationTokenInput", input, "__typename").await;
    // A service of hers called, from where she is.
    ada.organization_command("submitOrganizationForVerification", &engines).await;
    operator.review("verifyOrganization", &engines).await;
    let made = ada.create_token(&engines, &["project:create", "project:read"]).await;
    let service = Client { token: Some(made.text("/secret")), ..ada.clone() };
    project_of(&service, &engines, "of-a-token").await;
    // Refused, and so on record with her address.
    ada.run(
        "verifyOrganization",
        "OrganizationReviewInput",
        json!({"organizationId": engines, "reason": "x"}),
        "__typename",
    )
    .await;
    let pool = database.pool().await;
    eventually("the refusal is on record", || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM access_trail WHERE ip IS NOT NULL AND actor LIKE $1")
            .bind(format!("%{id}"))
            .fetch_one(&pool)
            .await
            .unwrap()
            > 0
    })
    .await;
    let traces = [ADA, NAME, "adas-browser", "gambles", "the-key-of-ada", "former.example"];
    let before = read_everything(&operator).await;
    for trace in [ADA, NAME, "adas-browser", "gambles"] {
        assert!(before.contains(trace), "{trace} should be there to be erased: {before}");
    }

    for (user, address) in [(&former, "ada@former.example"), (&id, ADA)] {
        // The reason stays, so it says nothing of the person.
        for reason in
            [format!("{NAME} wrote to us"), format!("{address} wrote"), "for ada".into(), "as x@y.example".into()]
        {
            let input = json!({"subject": {"userId": user}, "reason": reason});
            let refused = operator.run("eraseSubject", "EraseSubjectInput", input, "__typename").await;
            assert_eq!(refused.refusal(), Some("INVALID_INPUT"), "{reason}: {refused:?}");
            assert!(refused.text("/errors/0/message").contains("say why without names and addresses"), "{refused:?}");
        }
        let input = json!({"subject": {"userId": user}, "reason": "they wrote to us, ticket 4711"});
        let erased = operator.run("eraseSubject", "EraseSubjectInput", input, "__typename").await;
        assert!(erased.accepted(), "{erased:?}");
        assert_eq!(erased.actions(), ["user.erased"]);
    }

    let tokens = "SELECT count(*) FROM subject_keys WHERE subject_id LIKE 'tok%'";
    let keyless = format!("{tokens} AND wrapped IS NULL");
    for (count, is) in [(tokens, 1), (keyless.as_str(), 1)] {
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&pool).await.unwrap(), is, "{count}");
    }
    let (dump, read) = (dump(&pool).await, read_everything(&operator).await);
    for trace in traces {
        assert!(!dump.contains(trace), "{trace}: {}", dump.lines().find(|line| line.contains(trace)).unwrap());
        let at = read.find(trace).map(|at| &read[at.saturating_sub(300)..at]);
        assert_eq!(at, None, "{trace}");
    }
    assert!(read.contains("they wrote to us"), "why stays: {read}");
    for organization in [&engines, &acme] {
        let trail = boss.audit(organization).await;
        assert!(trail.contains(&"member.removed".to_owned()), "{trail:?}");
        assert!(trail.contains(&"invitee.erased".to_owned()) || organization == &engines, "{trail:?}");
    }
    assert!(boss.audit(&engines).await.contains(&"invitation.revoked".to_owned()), "whom she invited");
    assert!(boss.audit(&third).await.ends_with(&["invitation.revoked".into(), "invitee.erased".into()]));
    let caused =
        "query($id: ID!) { organization(by: {id: $id}) { auditTrail(last: 1, filter: {actions: [MEMBER_REMOVED]}) {
        nodes { causationId actor { __typename } } } } }";
    let caused = boss.query(caused, json!({"id": acme})).await;
    assert!(caused.text("/organization/auditTrail/nodes/0/causationId").starts_with("evt_"));
    assert_eq!(caused.text("/organization/auditTrail/nodes/0/actor/__typename"), "OperatorActor");
    check_log(&pool).await;

    // The same person coming back is somebody new, with a key of her own.
    let mut again = ada.send("{ viewer { user { id email } } }", json!({})).await;
    if again.get("errors").is_some() {
        again = ada.send("{ viewer { user { id email } } }", json!({})).await;
    }
    assert_eq!(again.pointer("/data/viewer/user/email").and_then(Value::as_str), Some(ADA), "{again}");
    assert_ne!(again.pointer("/data/viewer/user/id").and_then(Value::as_str), Some(id.as_str()));
    // A second time changes nothing, and nobody brings the old one back.
    let twice = erase(&operator, json!({"userId": id})).await;
    assert!(twice.accepted() && twice.actions().is_empty(), "{twice:?}");
    let input = json!({"userId": id, "reason": "a test"});
    let reinstated = operator.run("reinstateUser", "UserReviewInput", input, "__typename").await;
    assert_eq!(reinstated.refusal(), Some("INVALID_STATE"));
    let input = json!({"organizationId": acme, "userId": id, "roles": ["guest"], "reason": "a test"});
    let added = operator.run("addMember", "AddMemberInput", input, "__typename").await;
    assert_eq!(added.fault(), Some("NOT_FOUND"));
    assert_eq!(erase(&operator, json!({"userId": nobody_id()})).await.fault(), Some("NOT_FOUND"));
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_about_others_that_name_the_person_are_listed_and_a_revoked_tokens_goes_with_its_user() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (operator, boss, bob) = (server.operator(), server.user("boss@example.com"), server.user("bob@example.com"));
    let ada = person(&server, ADA, NAME, "adas-browser/1");
    let id = ada.user_id().await;
    let acme = server.verified("acme", &boss).await;
    let hers = boss.bring_in(&acme, &ada, ADA, &["admin"]).await;
    let his = boss.bring_in(&acme, &bob, "bob@example.com", &["member"]).await;
    // Under the key of each person, under that of the token's user, and under none.
    let events = |answer: &Answer| answer.text("/events/0/id");
    let event = "events { id }";
    let about = |membership: &str, reason: &str| json!({"membershipId": membership, "reason": reason});
    let suspend = async |membership, reason| {
        boss.run("suspendMember", "MembershipCommandInput", about(membership, reason), event).await
    };
    let under_his = events(&suspend(&his, "ada complained").await);
    let under_hers = events(&suspend(&hers, "Ada King gambles").await);
    boss.run("reinstateMember", "MembershipCommandInput", about(&hers, "fine again"), event).await;
    let token = ada.create_token(&acme, &["project:read"]).await.text("/token/id");
    let revoke = json!({"tokenId": token, "reason": format!("{ADA} lost a laptop")});
    let of_token = boss.run("revokeApiToken", "ApiTokenCommandInput", revoke, event).await;
    assert!(of_token.accepted(), "{of_token:?}");
    let block = json!({"organizationId": acme, "reason": format!("as {} asked", ADA.to_uppercase())});
    let plain = events(&operator.run("blockOrganization", "OrganizationReviewInput", block, event).await);
    let other = json!({"organizationId": acme, "reason": "an adage"});
    assert!(operator.run("unblockOrganization", "OrganizationReviewInput", other, event).await.accepted());
    let review = json!({"userId": bob.user_id().await, "reason": "Augusta  accused them"});
    let of_user = events(&operator.run("revokeUser", "UserReviewInput", review, event).await);
    let pool = database.pool().await;
    eventually("the installation's trail has it", || async {
        let numbered = "SELECT EXISTS (SELECT FROM installation_trail JOIN events USING (partition, \"offset\")
                                       WHERE event_id = $1)";
        sqlx::query_scalar(numbered).bind(&of_user).fetch_one(&pool).await.unwrap()
    })
    .await;

    let input = json!({"subject": {"userId": id}, "reason": "ticket 4711"});
    let fields = "namedIn namedInMore events { ... on UserErasedEvent { namedIn namedInMore firstErasedAt } }";
    let erased = operator.run("eraseSubject", "EraseSubjectInput", input, fields).await;
    let mut named: Vec<String> = serde_json::from_value(erased.at("/namedIn").clone()).unwrap();
    assert_eq!(erased.at("/events/0/namedIn"), erased.at("/namedIn"), "it is on record too");
    assert_eq!(erased.at("/namedInMore"), &json!(false));
    assert_eq!(erased.at("/events/0/firstErasedAt"), &Value::Null);
    let mut expected = vec![under_his.clone(), plain, of_user];
    named.sort();
    expected.sort();
    assert_eq!(named, expected);
    // An operator reads each, and decides.
    let read = async |event: &str| {
        let node = "query($id: ID!) { node(id: $id) { ... on AuditEvent { data } } }";
        operator.query(node, json!({"id": event})).await.at("/node/data/reason").clone()
    };
    assert_eq!(read(&under_his).await, "ada complained");
    for gone in [&under_hers, &events(&of_token)] {
        assert_eq!(read(gone).await, Value::Null, "what is about her went with her");
    }
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_address_goes_where_she_was_no_member_and_does_not_come_back_with_a_restored_organization() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (operator, ada, bob) = (server.operator(), server.user(ADA), server.user("bob@example.com"));
    let id = ada.user_id().await;
    let create = "createOrganization";
    let input = json!({"name": "Engines", "slug": "engines", "contactEmail": ADA});
    let engines = ada.run(create, "CreateOrganizationInput", input, "organization { id }").await;
    let engines = engines.text("/organization/id");
    let input = json!({"name": "Acme", "slug": "acme", "contactEmail": ADA.to_uppercase()});
    assert!(bob.run(create, "CreateOrganizationInput", input, "organization { id }").await.accepted());
    assert!(ada.organization_command("deleteOrganization", &engines).await.accepted());
    assert!(erase(&operator, json!({"userId": id})).await.accepted());
    let pool = database.pool().await;
    let contacts = "SELECT count(*) FROM organizations_1.organizations WHERE contact_email IS NOT NULL";
    eventually("no contact address is left", || async {
        sqlx::query_scalar::<_, i64>(contacts).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    let input = json!({"organizationId": engines, "reason": "a test"});
    let restored = operator.run("restoreOrganization", "OrganizationCommandInput", input, "__typename").await;
    assert!(restored.accepted(), "{restored:?}");
    assert!(!read_everything(&operator).await.contains(ADA));
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_needed_or_held_is_not_erased_and_the_refusal_names_the_places() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (operator, ada, bob) = (server.operator(), server.user(ADA), server.user("bob@example.com"));
    let id = ada.user_id().await;
    let engines = server.organization("engines", &ada).await;
    let acme = server.organization("acme", &bob).await;
    let membership = bob.bring_in(&acme, &ada, ADA, &["member"]).await;
    assert!(bob.member("removeMember", &membership).await.accepted());
    let held = hold(&operator, "setLegalHold", &acme).await;
    assert_eq!(held.text("/organization/legalHold/reason"), "a lawsuit");
    assert_eq!(held.actions(), ["org.legal_hold_set"]);
    assert_eq!(hold(&operator, "setLegalHold", &acme).await.refusal(), Some("INVALID_STATE"));
    let seen = "query($id: ID!) { organization(by: {id: $id}) { legalHold { reason since } } }";
    assert_eq!(bob.query(seen, json!({"id": acme})).await.at("/organization/legalHold"), &Value::Null);
    assert_eq!(operator.query(seen, json!({"id": acme})).await.text("/organization/legalHold/reason"), "a lawsuit");

    let refused = erase(&operator, json!({"userId": id})).await;
    assert_eq!(refused.refusal(), Some("INVALID_STATE"));
    let message = refused.text("/errors/0/message");
    for part in [&format!("legal hold stands on {acme} (acme)"), &format!("last owner of {engines} (engines)")] {
        assert!(message.contains(part.as_str()), "{message}");
    }
    let invited = bob.invite(&acme, "eve@example.com", &["guest"]).await.text("/invitation/id");
    assert_eq!(erase(&operator, json!({"invitationId": invited})).await.refusal(), Some("INVALID_STATE"));
    assert!(hold(&operator, "releaseLegalHold", &acme).await.accepted());
    assert_eq!(hold(&operator, "releaseLegalHold", &acme).await.refusal(), Some("INVALID_STATE"));
    let message = erase(&operator, json!({"userId": id})).await.text("/errors/0/message");
    assert!(message.contains("last owner") && !message.contains("legal hold"), "{message}");
    // An organization that is deleted needs no owner.
    ada.organization_command("deleteOrganization", &engines).await;
    let erased = erase(&operator, json!({"userId": id})).await;
    assert!(erased.accepted(), "{erased:?}");
    let own = erase(&operator, json!({"userId": operator.user_id().await})).await;
    assert_eq!(own.refusal(), Some("INVALID_STATE"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erasing_an_invitee_erases_everything_that_was_sent_to_the_address() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (operator, bob) = (server.operator(), server.user("bob@example.com"));
    let (acme, other) = (server.organization("acme", &bob).await, server.organization("other", &bob).await);
    let invited = bob.invite(&acme, ADA, &["guest"]).await;
    bob.invite(&other, &ADA.to_uppercase(), &["guest"]).await;
    let erased = erase(&operator, json!({"invitationId": invited.text("/invitation/id")})).await;
    assert_eq!(erased.actions(), ["invitation.revoked", "invitee.erased"]);
    assert_eq!(bob.audit(&other).await.last().unwrap(), "invitee.erased");
    let pool = database.pool().await;
    assert!(!dump(&pool).await.to_lowercase().contains(ADA));
    assert!(!read_everything(&operator).await.to_lowercase().contains(ADA));
    assert_eq!(bob.used(&acme, "members").await, 1, "the seat is free");
    let twice = erase(&operator, json!({"invitationId": invited.text("/invitation/id")})).await;
    assert!(twice.accepted() && twice.actions().is_empty(), "{twice:?}");
    // The token is as dead as one that never was taken back, and the address can be invited again.
    assert_eq!(server.user(ADA).accept(&invited.text("/token")).await.refusal(), Some("INVITATION_NOT_PENDING"));
    assert!(bob.invite(&acme, ADA, &["guest"]).await.accepted());
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_erasure_is_answered_no_other_replica_opens_anything_any_more() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let (ada, bob) = (person(&one, ADA, NAME, "adas-browser/1"), one.user("bob@example.com"));
    let (id, acme) = (ada.user_id().await, one.organization("acme", &bob).await);
    bob.bring_in(&acme, &ada, ADA, &["member"]).await;
    // The other replica keeps her key and her states in memory.
    let elsewhere = Client { url: two.url("/graphql"), ..two.operator() };
    let her = Client { url: two.url("/graphql"), ..ada.clone() };
    assert_eq!(her.user_id().await, id);
    let read = read_everything(&elsewhere).await;
    assert!(read.contains(ADA) && read.contains(NAME) && read.contains("adas-browser"), "{read}");
    // Asked all the time, it never has a reason to look by itself.
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (elsewhere, stop) = (elsewhere.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                read_everything(&elsewhere).await;
            }
        }
    });
    let erased = erase(&one.operator(), json!({"userId": id})).await;
    assert!(erased.accepted(), "{erased:?}");
    let read = read_everything(&elsewhere).await;
    for trace in [ADA, NAME, "adas-browser"] {
        assert!(!read.contains(trace), "{trace}: {read}");
    }
    stop.store(true, Ordering::Relaxed);
    asking.await.unwrap();
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_first_commit_only_delays_an_erasure() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user(ADA), server.user("bob@example.com"));
    let (id, acme) = (ada.user_id().await, server.organization("acme", &bob).await);
    bob.bring_in(&acme, &ada, ADA, &["member"]).await;
    let operator = server.operator().user_id().await;
    server.stop().await;

    // Only the append, and then nothing more.
    let core = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    core.catch_up().await.unwrap();
    assert_eq!(append_erasure(&core, &operator, &id).await.unwrap().events.len(), 1);
    core.close().await.unwrap();

    let server = database.serve().await;
    let bob = Client { url: server.url("/graphql"), ..bob };
    eventually("the membership has ended", || async { bob.audit(&acme).await.contains(&"invitee.erased".to_owned()) })
        .await;
    assert!(bob.audit(&acme).await.contains(&"member.removed".to_owned()));
    let pool = database.pool().await;
    eventually("the read models are level", || async { !dump(&pool).await.contains(ADA) }).await;
    assert!(std::fs::read_to_string(list_of(&database)).unwrap().contains(&id), "it is on the list");
    // It is looked at again until whatever began before has ended, and then no more.
    assert_eq!(unfinished(&pool).await, 2);
    execute(&pool, OLDER).await;
    server.service().core().commands.carry_on_erasures().await.unwrap();
    assert_eq!(unfinished(&pool).await, 0);
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_read_models_leave_out_lets_nobody_be_erased_and_nothing_be_finished() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user(ADA), server.user("bob@example.com"));
    let (id, acme) = (ada.user_id().await, server.organization("acme", &bob).await);
    let membership = bob.bring_in(&acme, &ada, ADA, &["member"]).await;
    let operator = server.operator().user_id().await;
    server.stop().await;
    let pool = database.pool().await;
    let core = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    set_hold(&core, &operator, &acme, true).await;
    execute(&pool, EMPTY).await;
    let refused = append_erasure(&core, &operator, &id).await;
    assert!(matches!(refused, Err(Fault::Unavailable(_))), "{refused:?}");
    core.catch_up().await.unwrap();
    let parked = format!(
        r#"DELETE FROM members_1.members;
           INSERT INTO parked (projection, version, shadow, aggregate_type, aggregate_id, owner, partition, "offset", failure, retry_at)
           SELECT 'members', 1, false, aggregate_type, aggregate_id, organization_id, partition, "offset", 'a test', now() + interval '1 hour'
           FROM events WHERE aggregate_id = '{membership}' AND sequence = 1"#
    );
    execute(&pool, &parked).await;
    let refused = append_erasure(&core, &operator, &id).await;
    assert!(matches!(refused, Err(Fault::Unavailable(_))), "{refused:?}");
    execute(&pool, "DELETE FROM parked").await;
    execute(&pool, EMPTY).await;
    core.catch_up().await.unwrap();
    assert_eq!(append_erasure(&core, &operator, &id).await.unwrap().rejections.len(), 1, "the hold is seen");

    set_hold(&core, &operator, &acme, false).await;
    core.catch_up().await.unwrap();
    assert_eq!(append_erasure(&core, &operator, &id).await.unwrap().events.len(), 1);
    execute(&pool, EMPTY).await;
    execute(&pool, OLDER).await;
    core.commands.carry_on_erasures().await.unwrap();
    assert_eq!(unfinished(&pool).await, 1, "who knows where she is");
    for _ in 0..2 {
        core.catch_up().await.unwrap();
        execute(&pool, OLDER).await;
        core.commands.carry_on_erasures().await.unwrap();
    }
    let state = "SELECT state FROM members_1.members WHERE user_id = $1";
    let state: String = sqlx::query_scalar(state).bind(&id).fetch_one(&pool).await.unwrap();
    assert_eq!((state.as_str(), unfinished(&pool).await), ("REMOVED", 0));
    core.close().await.unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_broken_organization_nor_a_hold_that_came_later_keeps_an_erasure_from_the_rest() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user(ADA), server.user("bob@example.com"));
    let id = ada.user_id().await;
    let mut members = vec![];
    for slug in ["acme", "other"] {
        let organization = server.organization(slug, &bob).await;
        members.push((bob.bring_in(&organization, &ada, ADA, &["member"]).await, organization));
    }
    // The first one that is looked at.
    members.sort();
    let (broken, held) = (members[0].0.clone(), members[1].1.clone());
    let operator = server.operator().user_id().await;
    server.stop().await;
    let pool = database.pool().await;
    let core = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    core.catch_up().await.unwrap();
    assert_eq!(append_erasure(&core, &operator, &id).await.unwrap().events.len(), 1);
    set_hold(&core, &operator, &held, true).await;
    core.catch_up().await.unwrap();
    let unreadable = format!(
        r#"INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition,
               "offset", organization_id, audit_sequence, event_id, command_id, actor, correlation_id, recorded_at, mac)
           SELECT 'Membership', aggregate_id, (SELECT max(sequence) + 1 FROM events WHERE aggregate_id = '{broken}'),
               'MemberExploded', '1.0', '{{"MemberExploded": {{}}}}', partition,
               (SELECT max("offset") + 1 FROM events WHERE partition = e.partition), organization_id,
               (SELECT max(audit_sequence) + 1 FROM events WHERE organization_id = e.organization_id),
               'evt_01h455vb4pex5vsknk084sn02q', gen_random_uuid(), 'system', gen_random_uuid(), now(), ''
           FROM events e WHERE aggregate_id = '{broken}' AND sequence = 1"#
    );
    execute(&pool, &unreadable).await;
    let look = async || {
        execute(&pool, OLDER).await;
        core.commands.carry_on_erasures().await.unwrap();
        core.catch_up().await.unwrap();
    };
    look().await;
    let ended = "SELECT state FROM members_1.members WHERE user_id = $1 AND organization_id = $2";
    let ended: String = sqlx::query_scalar(ended).bind(&id).bind(&held).fetch_one(&pool).await.unwrap();
    assert_eq!(ended, "REMOVED");
    let left = "SELECT organization_id FROM invitations_1.invitations WHERE email IS NOT NULL";
    let left = async || sqlx::query_scalar::<_, String>(left).fetch_all(&pool).await.unwrap();
    assert_eq!(left().await, std::slice::from_ref(&held), "what is held stays, and nothing else");
    set_hold(&core, &operator, &held, false).await;
    core.catch_up().await.unwrap();
    look().await;
    assert_eq!(left().await, [""; 0]);
    look().await;
    assert!(unfinished(&pool).await > 0, "what is broken is not done");
    core.close().await.unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_destroyed_without_a_record_is_recorded_and_a_list_from_elsewhere_hides_no_tombstone() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user(ADA), server.user("bob@example.com"));
    let (id, acme) = (ada.user_id().await, server.organization("acme", &bob).await);
    bob.bring_in(&acme, &ada, ADA, &["member"]).await;
    server.stop().await;
    let pool = database.pool().await;
    let core = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    core.catch_up().await.unwrap();
    core.commands.log().destroy_keys(&[&id]).await.unwrap();
    execute(&pool, OLDER).await;
    // On a data directory that knows nothing yet, somebody is added whose erasure is newer.
    let elsewhere = nobody_id();
    let erased = Erased { id: elsewhere.clone(), at: chrono::Utc::now(), by: None };
    core.commands.erase_again(&[erased]).await.unwrap();
    core.close().await.unwrap();
    let core = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    for _ in 0..4 {
        core.commands.carry_on_erasures().await.unwrap();
        core.catch_up().await.unwrap();
        execute(&pool, OLDER).await;
    }
    let list = std::fs::read_to_string(list_of(&database)).unwrap();
    assert!(list.contains(&id) && list.contains(&elsewhere), "{list}");
    let recorded = "SELECT count(*) FROM events WHERE aggregate_id = $1 AND event_type = 'UserErased'";
    assert_eq!(sqlx::query_scalar::<_, i64>(recorded).bind(&id).fetch_one(&pool).await.unwrap(), 1);
    let state = "SELECT state FROM members_1.members WHERE user_id = $1";
    let state: String = sqlx::query_scalar(state).bind(&id).fetch_one(&pool).await.unwrap();
    assert_eq!((state.as_str(), unfinished(&pool).await), ("REMOVED", 0));
    core.close().await.unwrap();
    pool.close().await;
}

/// The erasures in the operators' trail, by subject.
async fn erasures(operator: &Client) -> Vec<Value> {
    let event = "action subjectId recordedAt data actor { __typename id }";
    let query = format!(
        "{{ auditTrail(last: 100, filter: {{actions: [USER_ERASED, INVITEE_ERASED]}}) {{ nodes {{ {event} }} }} }}"
    );
    let mut found = operator.query(&query, json!({})).await.at("/auditTrail/nodes").as_array().unwrap().clone();
    found.sort_by_key(|event| event["subjectId"].to_string());
    found
}

async fn run(database: &Database, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.args(arguments).envs(database.variables(&[])).env_remove("TENANCY_LOG");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_does_not_bring_anybody_back() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user(ADA), server.user("bob@example.com"));
    let (id, acme) = (ada.user_id().await, server.organization("acme", &bob).await);
    bob.bring_in(&acme, &ada, ADA, &["member"]).await;
    let invited = bob.invite(&acme, "eve@example.com", &["guest"]).await.text("/invitation/id");
    // The operator has a key in the backup: theirs opens the reason.
    server.operator().user_id().await;
    server.stop().await;
    // Two copies of how it was, and then the erasures.
    let (restarted, recovered) = (database.copy().await, database.copy().await);
    let server = database.serve().await;
    for subject in [json!({"userId": id}), json!({"invitationId": invited})] {
        assert!(erase(&server.operator(), subject).await.accepted());
    }
    let before = erasures(&server.operator()).await;
    assert_eq!(before.len(), 3, "and the invitation by which she came in");
    server.stop().await;
    let listed = std::fs::read_to_string(list_of(&database)).unwrap();
    assert!(!listed.contains("ticket"), "the reason is sealed there too: {listed}");

    // The data directory is the same one as before, so its list is there.
    std::fs::copy(list_of(&database), list_of(&restarted)).unwrap();
    let server = restarted.serve().await;
    let pool = restarted.pool().await;
    eventually("they are erased again", || async {
        let dump = dump(&pool).await;
        !dump.contains(ADA) && !dump.contains("eve@example.com")
    })
    .await;
    // By the same operator as before, for the same reason, and with the time of then.
    let again = erasures(&server.operator()).await;
    assert_eq!(again.len(), before.len());
    for (before, again) in before.iter().zip(&again) {
        for same in ["/action", "/actor", "/subjectId", "/data/reason"] {
            assert_eq!(before.pointer(same), again.pointer(same), "{same}: {again}");
        }
        assert_eq!(before.pointer("/recordedAt"), again.pointer("/data/firstErasedAt"), "{again}");
        assert_eq!(again.pointer("/actor/__typename"), Some(&json!("OperatorActor")));
    }
    pool.close().await;
    server.stop().await;

    // Here it has to be brought.
    let list = list_of(&database);
    let output = run(&recovered, &["recover", "--erased", list.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("{id} is erased again")) && said.contains(&invited), "{said}");
    let pool = recovered.pool().await;
    let dump = dump(&pool).await;
    assert!(!dump.contains(ADA) && !dump.contains("eve@example.com"));
    check_log(&pool).await;
    let actors =
        "SELECT count(*) FROM events WHERE event_type IN ('UserErased', 'InviteeErased') AND actor LIKE 'operator:%'";
    assert_eq!(sqlx::query_scalar::<_, i64>(actors).fetch_one(&pool).await.unwrap(), 3);
    pool.close().await;
    assert!(std::fs::read_to_string(list_of(&recovered)).unwrap().contains(&id), "and is remembered");
    assert_eq!(run(&recovered, &["projections", "verify"]).await.status.code(), Some(0));
}
