//! One organization a user, where the deployment says so.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::PgPool;

use crate::purge::level;
use crate::support::{Answer, Client, Database, Server, check_log};

const RULE: [(&str, &str); 1] = [("TENANCY_ORGANIZATIONS__ONE_PER_USER", "true")];

async fn create(client: &Client, slug: &str) -> Answer {
    let input = json!({"name": slug, "slug": slug});
    client.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await
}

async fn home(client: &Client) -> Answer {
    client.run("ensureHomeOrganization", "EnsureHomeOrganizationInput", json!({}), "organization { id }").await
}

async fn add(client: &Client, organization: &str, user: &str) -> Answer {
    let input = json!({"organizationId": organization, "userId": user, "roles": ["member"], "reason": "a test"});
    client.run("addMember", "AddMemberInput", input, "membership { id state }").await
}

fn elsewhere(answer: &Answer) -> bool {
    answer.refusal() == Some("INVALID_STATE") && answer.text("/errors/0/message").contains("another organization")
}

async fn memberships(pool: &PgPool, user: &str) -> i64 {
    let statement = "SELECT count(*) FROM (
        SELECT DISTINCT ON (aggregate_id) event_type FROM events
        WHERE aggregate_type = 'Membership' AND event_type IN ('MemberJoined', 'MemberRemoved', 'MemberLeft')
          AND payload::text LIKE '%' || $1 || '%' ORDER BY aggregate_id, sequence DESC
    ) e WHERE event_type = 'MemberJoined'";
    sqlx::query_scalar(statement).bind(user).fetch_one(pool).await.unwrap()
}

/// Organizations of owners of their own.
async fn places(server: &Server, number: usize) -> Vec<(Client, String)> {
    let mut places = vec![];
    for number in 0..number {
        let owner = server.user(&format!("owner-{number}@example.com"));
        let id = server.verified(&format!("place-{number}"), &owner).await;
        places.push((owner, id));
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_comes_to_no_second_organization_on_any_path() {
    let database = Database::new().await;
    let server = database
        .serve_with(&[RULE[0], ("TENANCY_ORGANIZATIONS__HOME", "own"), ("TENANCY_ORGANIZATIONS__RESTORE_DAYS", "0")])
        .await;
    let places = places(&server, 2).await;
    let (ada, operator) = (server.user("ada@example.com"), server.operator());
    let user = ada.user_id().await;
    let invited = places[0].0.invite(&places[0].1, "ada@example.com", &["member"]).await;
    let accepted = ada.accept(&invited.text("/token")).await;
    assert_eq!(accepted.actions(), ["invitation.accepted", "member.joined", "member.bound"]);
    let membership = accepted.text("/membership/id");

    let invited = places[1].0.invite(&places[1].1, "ada@example.com", &["member"]).await;
    let everywhere = async || {
        let input = json!({"name": "x", "slug": "for-ada", "ownerId": user});
        let for_ada = operator.run("createOrganization", "CreateOrganizationInput", input, "organization { id }");
        let answers = [
            create(&ada, "mine").await,
            ada.accept(&invited.text("/token")).await,
            add(&operator, &places[1].1, &user).await,
            for_ada.await,
        ];
        assert!(answers.iter().all(elsewhere), "{answers:?}");
    };
    everywhere().await;
    assert_eq!(home(&ada).await.text("/organization/id"), places[0].1, "there is one");
    // A suspended member is a member still, and comes back.
    assert!(places[0].0.member("suspendMember", &membership).await.accepted());
    everywhere().await;
    assert!(elsewhere(&home(&ada).await), "nor is one made for them");
    assert!(places[0].0.member("reinstateMember", &membership).await.accepted());
    // Roles are nothing new.
    assert!(places[0].0.change_roles(&membership, &["guest"]).await.accepted());

    assert!(ada.organization_command("leaveOrganization", &places[0].1).await.accepted());
    assert!(ada.accept(&invited.text("/token")).await.accepted());
    let pool = database.pool().await;
    assert_eq!(memberships(&pool, &user).await, 1);
    check_log(&pool).await;

    // A purged organization is none.
    assert!(places[1].0.organization_command("deleteOrganization", &places[1].1).await.accepted());
    assert!(elsewhere(&create(&ada, "mine").await), "it is deleted and can be restored");
    // What may be due, the sweeper reads in a read model.
    level(&server).await;
    server.service().core().commands.sweep().await.unwrap();
    assert!(create(&ada, "mine").await.accepted());
    assert_eq!(memberships(&pool, &user).await, 1);
    check_log(&pool).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_acceptances_at_once_in_different_organizations_one_wins() {
    let database = Database::new().await;
    let (one, two) = (database.serve_with(&RULE).await, database.serve_with(&RULE).await);
    let places = places(&one, 10).await;
    let pool = database.pool().await;
    for round in 0..3 {
        let email = format!("ada-{round}@example.com");
        let (here, there) = (one.user(&email), two.user(&email));
        let user = here.user_id().await;
        let mut tokens = vec![];
        for (owner, id) in &places {
            tokens.push(owner.invite(id, &email, &["member"]).await.text("/token"));
        }
        let calls =
            tokens.iter().enumerate().map(|(call, token)| if call % 2 == 0 { &here } else { &there }.accept(token));
        let answers = join_all(calls).await;
        assert_eq!(answers.iter().filter(|answer| answer.accepted()).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| elsewhere(answer)).count(), 9, "{answers:?}");
        assert_eq!(memberships(&pool, &user).await, 1);
    }
    check_log(&pool).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_in_several_before_the_rule_stays_and_comes_to_no_other() {
    let database = Database::new().await;
    let server = database.serve().await;
    let places = places(&server, 3).await;
    let ada = server.user("ada@example.com");
    let mut memberships = vec![];
    for (owner, id) in &places[..2] {
        memberships.push(owner.bring_in(id, &ada, "ada@example.com", &["member"]).await);
    }
    assert!(places[0].0.member("suspendMember", &memberships[0]).await.accepted());
    let invited = places[2].0.invite(&places[2].1, "ada@example.com", &["member"]).await;
    server.stop().await;

    let server = database.serve_with(&RULE).await;
    let (ada, owner) = (server.user("ada@example.com"), server.user("owner-0@example.com"));
    assert!(elsewhere(&ada.accept(&invited.text("/token")).await));
    assert!(elsewhere(&owner.member("reinstateMember", &memberships[0]).await));
    assert!(ada.organization_command("leaveOrganization", &places[1].1).await.accepted());
    assert!(owner.member("reinstateMember", &memberships[0]).await.accepted());
    check_log(&database.pool().await).await;
    server.stop().await;
}
