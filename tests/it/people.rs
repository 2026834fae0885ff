//! The directory: people are found by the beginning of what they are called, where the caller may read them and nowhere else.

use std::sync::atomic::AtomicU64;

use chrono::TimeDelta;
use projections::Projection;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use tenancy::access::issuer::Grant;
use tenancy::service::Core;

use crate::support::{Client, Database, Server, eventually};

const FOUND: &str =
    "query($id: ID!, $search: String, $first: Int, $after: String, $state: MembershipState, $role: String) {
    organization(by: {id: $id}) {
        members(search: $search, first: $first, after: $after, state: $state, role: $role) {
            nodes { user { email } } pageInfo { endCursor hasNextPage } } } }";

fn named(server: &Server, email: &str, name: &str) -> Client {
    let grant =
        Grant { email: email.to_owned(), name: Some(name.to_owned()), operator: false, ttl: TimeDelta::hours(1) };
    let token = server.service().issuer.as_ref().unwrap().mint(&grant).unwrap();
    Client { token: Some(token), ..server.user(email) }
}

/// The addresses of those who are found.
async fn found(client: &Client, id: &str, search: &str) -> Vec<String> {
    emails(client, json!({"id": id, "search": search})).await
}

async fn emails(client: &Client, variables: serde_json::Value) -> Vec<String> {
    let answer = client.query(FOUND, variables).await;
    let nodes = answer.at("/organization/members/nodes").as_array().unwrap().clone();
    nodes.iter().map(|node| node["user"]["email"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn differences(database: &Database, core: &Core) -> Vec<String> {
    let options: PgConnectOptions = database.url.parse().unwrap();
    let (log, done) = (core.commands.log().clone(), AtomicU64::new(0));
    let verified = ::projections::verify(&options, &log, Projection::Members, None, &done).await.unwrap().unwrap();
    verified.differences.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_found_by_the_beginning_of_a_name_of_a_later_word_and_of_an_address() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = named(&server, "owner@example.com", "Olga Owner");
    let id = server.verified("acme", &owner).await;
    let ada = named(&server, "ada@example.com", "Augusta Ada King");
    let membership = owner.bring_in(&id, &ada, "ada@example.com", &["member"]).await;
    let adam = named(&server, "zz@example.com", "Adam Änders");
    owner.bring_in(&id, &adam, "zz@example.com", &["guest"]).await;
    let elsewhere = server.verified("elsewhere", &named(&server, "adele@example.com", "Adele Else")).await;

    // Each once, in the order of what was found.
    eventually("both are found", || async { found(&owner, &id, "ad").await == ["ada@example.com", "zz@example.com"] })
        .await;
    for (search, expected) in [
        ("AUGUSTA  ada", vec!["ada@example.com"]),
        ("king", vec!["ada@example.com"]),
        ("än", vec!["zz@example.com"]),
        ("zz@", vec!["zz@example.com"]),
        ("da", vec![]),
        ("adele", vec![]),
        ("%", vec![]),
    ] {
        assert_eq!(found(&owner, &id, search).await, expected, "{search}");
    }
    // Nothing is no search, and what is longer than any word is one that begins so.
    assert_eq!(found(&owner, &id, "  ").await.len(), 3);
    assert_eq!(found(&owner, &id, &"a".repeat(5_000)).await, Vec::<String>::new());
    // Filters hold besides.
    assert_eq!(emails(&owner, json!({"id": id, "search": "ad", "role": "guest"})).await, ["zz@example.com"]);
    owner.member("removeMember", &membership).await;
    eventually("a former member is found among those alone", || async {
        found(&owner, &id, "ad").await == ["zz@example.com"]
    })
    .await;
    assert_eq!(emails(&owner, json!({"id": id, "search": "ad", "state": "REMOVED"})).await, ["ada@example.com"]);
    // Somebody of another organization finds nobody here.
    let stranger = server.user("adele@example.com");
    assert_eq!(stranger.fault(FOUND, json!({"id": id, "search": "a"})).await, "NOT_FOUND");
    assert_eq!(found(&stranger, &elsewhere, "a").await, ["adele@example.com"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_who_is_found_hold_everybody_once_and_names_sort_the_list() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = named(&server, "owner@example.com", "Zora Owner");
    let id = server.verified("acme", &owner).await;
    for number in 0..7 {
        let email = format!("an-{number}@example.com");
        // Found thrice by the same beginning.
        let one = named(&server, &email, &format!("Anna {} Anders", ["B", "a", "C"][number % 3]));
        owner.bring_in(&id, &one, &email, &["member"]).await;
    }
    eventually("all are found", || async { found(&owner, &id, "an").await.len() == 7 }).await;
    let (mut all, mut after) = (vec![], None::<String>);
    loop {
        let page = owner.query(FOUND, json!({"id": id, "search": "an", "first": 2, "after": after})).await;
        let nodes = page.at("/organization/members/nodes").as_array().unwrap().clone();
        all.extend(nodes.iter().map(|node| node["user"]["email"].as_str().unwrap().to_owned()));
        if page.at("/organization/members/pageInfo/hasNextPage") == &json!(false) {
            break;
        }
        after = Some(page.text("/organization/members/pageInfo/endCursor"));
    }
    let mut sorted = all.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((all.len(), sorted.len()), (7, 7), "{all:?}");

    let by_name = "query($id: ID!, $after: String) { organization(by: {id: $id}) { members(orderBy: NAME, first: 5, after: $after) {
        nodes { user { name } } pageInfo { endCursor } } } }";
    let first = owner.query(by_name, json!({"id": id})).await;
    let second =
        owner.query(by_name, json!({"id": id, "after": first.text("/organization/members/pageInfo/endCursor")})).await;
    let names: Vec<String> = [&first, &second]
        .iter()
        .flat_map(|page| page.at("/organization/members/nodes").as_array().unwrap())
        .map(|node| node["user"]["name"].as_str().unwrap().to_lowercase())
        .collect();
    let mut expected = names.clone();
    expected.sort();
    assert_eq!((names.len(), &names), (8, &expected));
    // A cursor of one order is none of the other.
    let cursor = first.text("/organization/members/pageInfo/endCursor");
    let other =
        "query($id: ID!, $after: String) { organization(by: {id: $id}) { members(after: $after) { nodes { id } } } }";
    assert_eq!(owner.fault(other, json!({"id": id, "after": cursor})).await, "BAD_USER_INPUT");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_follows_names_erasures_and_purges_and_is_checked_and_filled_again() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = named(&server, "owner@example.com", "Olga");
    let id = server.verified("acme", &owner).await;
    let ada = named(&server, "ada@example.com", "Ada Lovelace");
    owner.bring_in(&id, &ada, "ada@example.com", &["member"]).await;
    let user = ada.user_id().await;
    eventually("she is found", || async { found(&owner, &id, "lovel").await.len() == 1 }).await;

    // Another name, as her provider says it at her next request.
    let married = named(&server, "ada@example.com", "Ada King");
    married.user_id().await;
    eventually("by her new name", || async { found(&owner, &id, "king").await.len() == 1 }).await;
    assert_eq!(found(&owner, &id, "lovel").await, Vec::<String>::new());
    let operator = server.operator();
    let everybody = "query($search: String!) { users(search: $search) { nodes { id } } }";
    assert_eq!(operator.query(everybody, json!({"search": "KING"})).await.text("/users/nodes/0/id"), user);
    assert_eq!(owner.fault(everybody, json!({"search": "king"})).await, "FORBIDDEN");

    let pool = database.pool().await;
    let core = server.service().core();
    assert_eq!(differences(&database, core).await, Vec::<String>::new());
    // What somebody changed in it is found, without the word, and mended by a rebuild.
    sqlx::query("UPDATE directory.people SET word = 'mallory' WHERE word = 'king'").execute(&pool).await.unwrap();
    let found_out = differences(&database, core).await;
    assert!(found_out[0].starts_with(&format!("directory.people {id}/mem_")), "{found_out:?}");
    assert!(!found_out[0].contains("mallory"), "{found_out:?}");
    let (stage, _) = tokio::sync::watch::channel(::projections::rebuild::Stage::default());
    core.rebuilder().run(vec![Projection::Users], stage).await.unwrap();
    eventually("it is filled again", || async { found(&owner, &id, "king").await.len() == 1 }).await;
    assert_eq!(differences(&database, core).await, Vec::<String>::new());

    let input = json!({"subject": {"userId": user}, "reason": "ticket 4711"});
    let erased = operator.run("eraseSubject", "EraseSubjectInput", input, "__typename").await;
    assert!(erased.accepted(), "{erased:?}");
    eventually("nothing is left of her name", || async {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM directory.people WHERE person = $1 AND word <> ''")
            .bind(&user)
            .fetch_one(&pool)
            .await
            .unwrap();
        left == 0
    })
    .await;
    assert_eq!(differences(&database, core).await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_say_how_many_there_are_where_a_limit_counts_them_and_days_have_their_events() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    for slug in ["b", "A", "c"] {
        owner.create_project(&id, &slug.to_lowercase()).await;
    }
    let gone = owner.create_project(&id, "gone").await.text("/project/id");
    owner.run("deleteProject", "ProjectCommandInput", json!({"projectId": gone}), "__typename").await;
    let query = "query($id: ID!) { organization(by: {id: $id}) {
        one: projects(first: 1) { totalCount nodes { id } }
        deleted: projects(state: DELETED) { totalCount }
        named: projects(orderBy: NAME) { totalCount nodes { name } }
        webhooks: webhookEndpoints { totalCount }
        activity(days: 2) { since events }
        auditTrail(last: 1) { nodes { auditSequence } } } }";
    eventually("the projects are listed", || async {
        let read = owner.query(query, json!({"id": id})).await;
        read.at("/organization/named/nodes").as_array().unwrap().len() == 3
    })
    .await;
    let read = owner.query(query, json!({"id": id})).await;
    let of = |path: &str| read.at(path).clone();
    assert_eq!(of("/organization/one/totalCount"), json!(3));
    assert_eq!(of("/organization/named/totalCount"), json!(3));
    assert_eq!(of("/organization/deleted/totalCount"), json!(null));
    assert_eq!(of("/organization/webhooks/totalCount"), json!(0));
    let events: i64 =
        [0, 1].map(|day| of(&format!("/organization/activity/{day}/events")).as_i64().unwrap()).iter().sum();
    assert_eq!(json!(events), *read.at("/organization/auditTrail/nodes/0/auditSequence"));
    let member = server.user("member@example.com");
    owner.bring_in(&id, &member, "member@example.com", &["member"]).await;
    let activity = "query($id: ID!, $days: Int!) { organization(by: {id: $id}) { activity(days: $days) { events } } }";
    assert_eq!(member.fault(activity, json!({"id": id, "days": 2})).await, "FORBIDDEN");
    for days in [0, 91, -1] {
        assert_eq!(owner.fault(activity, json!({"id": id, "days": days})).await, "BAD_USER_INPUT");
    }
    server.stop().await;
}
