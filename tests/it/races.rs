//! Races, each with many tasks on a real database and repeated. Whatever happens, the log is whole, and seats,
//! owners, slugs and invitations are what the rules say.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Answer, Client, Database, Server, check_log};

fn count(answers: &[Answer], what: impl Fn(&Answer) -> bool) -> usize {
    answers.iter().filter(|answer| what(answer)).count()
}

fn limited(answer: &Answer) -> bool {
    answer.refusal() == Some("LIMIT_REACHED")
}

/// Users who are known to the service.
async fn people(server: &Server, prefix: &str, number: usize) -> Vec<(Client, String, String)> {
    join_all((0..number).map(|i| async move {
        let email = format!("{prefix}{i}@example.com");
        let client = server.user(&email);
        let id = client.user_id().await;
        (client, email, id)
    }))
    .await
}

async fn limits_recorded(owner: &Client, id: &str) -> usize {
    owner.audit(id).await.iter().filter(|action| *action == "limit.reached").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_seats_go_to_exactly_as_many_as_there_are() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    let operator = one.operator();
    for round in 0..3 {
        let id = one.verified(&format!("acme-{round}"), &owner).await;
        let known = people(&one, &format!("known{round}-"), 4).await;
        let mut suspended = vec![];
        for (client, email, _) in &known[..2] {
            let membership = owner.bring_in(&id, client, email, &["member"]).await;
            owner.member("suspendMember", &membership).await;
            suspended.push(membership);
        }
        operator.set_limit(&id, "members", 6).await;
        // One owner is in: five seats are free, for eight invited, two added and two reinstated at once.
        let via = |number: usize| if number.is_multiple_of(2) { owner.clone() } else { two.user("owner@example.com") };
        let invited = (0..8).map(|i| {
            let (id, via) = (id.clone(), via(i));
            async move { via.invite(&id, &format!("i{i}@example.com"), &["member"]).await }
        });
        let reinstated = suspended.iter().enumerate().map(|(i, membership)| {
            let via = via(i);
            async move { via.member("reinstateMember", membership).await }
        });
        let added = known[2..].iter().enumerate().map(|(i, (_, _, user))| {
            let (id, operator) = (id.clone(), if i % 2 == 0 { operator.clone() } else { two.operator() });
            async move {
                let input = json!({"organizationId": id, "userId": user, "roles": ["member"], "reason": "a test"});
                operator.run("addMember", "AddMemberInput", input, "membership { id }").await
            }
        });
        let (invited, reinstated, added) = tokio::join!(join_all(invited), join_all(reinstated), join_all(added));
        let answers = [invited, reinstated, added].concat();
        assert_eq!(count(&answers, Answer::accepted), 5, "{answers:?}");
        assert_eq!(count(&answers, limited), 7);
        assert_eq!(owner.used(&id, "members").await, 6);
        assert_eq!(limits_recorded(&owner, &id).await, 1);
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_invited_can_accept_at_the_maximum_even_while_it_is_lowered() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, operator) = (server.user("owner@example.com"), server.operator());
    let id = server.verified("acme", &owner).await;
    let invited = people(&server, "p", 6).await;
    let mut tokens = vec![];
    for (_, email, _) in &invited {
        tokens.push(owner.invite(&id, email, &["member"]).await.text("/token"));
    }
    operator.set_limit(&id, "members", 7).await;
    let accept = join_all(invited.iter().zip(&tokens).map(|((client, _, _), token)| client.accept(token)));
    let (accepted, _) = tokio::join!(accept, operator.set_limit(&id, "members", 2));
    assert_eq!(count(&accepted, Answer::accepted), 6, "{accepted:?}");
    assert_eq!(owner.used(&id, "members").await, 7);
    // What exists is kept, more is refused.
    assert!(limited(&owner.invite(&id, "late@example.com", &["member"]).await));
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ending_of_an_invitation_wins() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    let id = one.verified("acme", &owner).await;
    for round in 0..8 {
        let email = format!("ada{round}@example.com");
        let ada = two.user(&email);
        ada.user_id().await;
        let invited = owner.invite(&id, &email, &["member"]).await;
        let (token, invitation) = (invited.text("/token"), invited.text("/invitation/id"));
        let input = json!({"invitationId": invitation});
        let revoke = owner.run("revokeInvitation", "InvitationCommandInput", input, "invitation { state }");
        let (accepted, revoked) = tokio::join!(ada.accept(&token), revoke);
        assert_ne!(accepted.accepted(), revoked.accepted(), "{accepted:?} {revoked:?}");
        let loser = if accepted.accepted() { revoked } else { accepted };
        assert_eq!(loser.refusal(), Some("INVITATION_NOT_PENDING"));
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_a_blocked_organization() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    for round in 0..6 {
        let id = one.verified(&format!("acme-{round}"), &owner).await;
        let ada = two.user(&format!("ada{round}@example.com"));
        ada.user_id().await;
        let token = owner.invite(&id, &format!("ada{round}@example.com"), &["member"]).await.text("/token");
        let operator = one.operator();
        let (accepted, blocked) = tokio::join!(ada.accept(&token), operator.review("blockOrganization", &id));
        assert!(blocked.accepted(), "{blocked:?}");
        let audit = owner.audit(&id).await;
        let at = |action: &str| audit.iter().position(|entry| entry == action);
        match at("invitation.accepted") {
            Some(place) => assert!(accepted.accepted() && Some(place) < at("org.blocked"), "{audit:?}"),
            None => assert_eq!(accepted.refusal(), Some("ENTITY_STATUS"), "{accepted:?}"),
        }
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_invitation_makes_one_membership() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let ada = server.user("ada@example.com");
    let eve = server.user("eve@example.com");
    let token = owner.invite(&id, "ada@example.com", &["member"]).await.text("/token");
    let by_ada = join_all((0..6).map(|_| ada.accept(&token)));
    let (by_ada, by_eve) = tokio::join!(by_ada, eve.accept(&token));
    assert_eq!(count(&by_ada, Answer::accepted), 6, "{by_ada:?}");
    assert!(by_ada.iter().all(|answer| answer.at("/membership/id") == by_ada[0].at("/membership/id")));
    assert_eq!(count(&by_ada, |answer| !answer.actions().is_empty()), 1);
    assert_eq!(by_eve.refusal(), Some("INVITATION_WRONG_RECIPIENT"));
    assert_eq!(owner.used(&id, "members").await, 2);
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resent_invitations_old_token_is_dead() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    for round in 0..6 {
        let email = format!("ada{round}@example.com");
        let ada = server.user(&email);
        ada.user_id().await;
        let invited = owner.invite(&id, &email, &["member"]).await;
        let (old, input) = (invited.text("/token"), json!({"invitationId": invited.text("/invitation/id")}));
        let resend = owner.run("resendInvitation", "InvitationCommandInput", input, "invitation { state } token");
        let (accepted, resent) = tokio::join!(ada.accept(&old), resend);
        assert_ne!(accepted.accepted(), resent.accepted(), "{accepted:?} {resent:?}");
        if resent.accepted() {
            assert_eq!(accepted.fault(), Some("NOT_FOUND"), "{accepted:?}");
            assert!(ada.accept(&resent.text("/token")).await.accepted());
        } else {
            assert_eq!(resent.refusal(), Some("INVITATION_NOT_PENDING"));
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_left_when_two_demote_each_other() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    for round in 0..8 {
        let (a, b) = (one.user("a@example.com"), two.user("b@example.com"));
        let id = one.verified(&format!("acme-{round}"), &a).await;
        let b_in = a.bring_in(&id, &b, "b@example.com", &["owner"]).await;
        let query = "query($id: ID!) { organization(by: {id: $id}) { members(role: \"owner\") { nodes { id user { id } } } } viewer { user { id } } }";
        let mut a_in = None;
        while a_in.is_none() {
            let read = a.query(query, json!({"id": id})).await;
            let nodes = read.at("/organization/members/nodes").as_array().unwrap().clone();
            a_in = nodes
                .iter()
                .find(|node| node["user"]["id"] == *read.at("/viewer/user/id"))
                .map(|node| node["id"].as_str().unwrap().to_owned());
        }
        let a_in = a_in.unwrap();
        let (by_a, by_b) = match round % 3 {
            0 => tokio::join!(a.change_roles(&b_in, &["member"]), b.change_roles(&a_in, &["member"])),
            1 => tokio::join!(
                a.organization_command("leaveOrganization", &id),
                b.organization_command("leaveOrganization", &id)
            ),
            _ => tokio::join!(a.member("suspendMember", &b_in), b.member("removeMember", &a_in)),
        };
        assert_ne!(by_a.accepted(), by_b.accepted(), "{by_a:?} {by_b:?}");
        let loser = if by_a.accepted() { &by_b } else { &by_a };
        // The member who lost ownership first may no longer do it; the one who kept it is the last one.
        let why = loser.refusal().or(loser.fault()).unwrap();
        assert!(["LAST_OWNER", "ROLE_NOT_GRANTABLE", "FORBIDDEN", "NOT_FOUND"].contains(&why), "{loser:?}");
        let owners: i64 = sqlx::query_scalar("SELECT used FROM tallies WHERE organization_id = $1 AND name = 'owners'")
            .bind(&id)
            .fetch_one(&database.pool().await)
            .await
            .unwrap();
        assert_eq!(owners, 1);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_give_exactly_the_free_projects() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    let elsewhere = two.user("owner@example.com");
    let id = one.verified("acme", &owner).await;
    one.operator().set_limit(&id, "projects", 10).await;
    let created = join_all((0..30).map(|i| {
        let (via, id) = (if i % 2 == 0 { owner.clone() } else { elsewhere.clone() }, id.clone());
        async move { via.create_project(&id, &format!("p{i}")).await }
    }))
    .await;
    assert_eq!(count(&created, Answer::accepted), 10, "{created:?}");
    assert_eq!(count(&created, limited), 20);
    assert_eq!(limits_recorded(&owner, &id).await, 1);
    let freed = created.iter().find(|answer| answer.accepted()).unwrap().text("/project/id");
    let input = json!({"projectId": freed});
    assert!(owner.run("deleteProject", "ProjectCommandInput", input, "project { state }").await.accepted());
    assert!(owner.create_project(&id, "again").await.accepted());
    assert!(limited(&owner.create_project(&id, "once-more").await));
    assert_eq!(limits_recorded(&owner, &id).await, 2, "there was room in between");
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slug_goes_to_one_organization() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let people = people(&one, "p", 8).await;
    for round in 0..4 {
        let slug = format!("acme-{round}");
        let created = join_all(people.iter().enumerate().map(|(i, (_, email, _))| {
            let (client, slug) = (if i % 2 == 0 { one.user(email) } else { two.user(email) }, slug.clone());
            async move {
                let input = json!({"name": "x", "slug": slug});
                client.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await
            }
        }))
        .await;
        assert_eq!(count(&created, Answer::accepted), 1, "{created:?}");
        assert_eq!(count(&created, |answer| answer.refusal() == Some("ALREADY_EXISTS")), 7);
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_that_swap_slugs_never_wait_for_each_other_in_a_circle() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let (a, b) = (one.user("a@example.com"), two.user("b@example.com"));
    let ids = [one.organization("red", &a).await, two.organization("blue", &b).await];
    let swap = async |client: &Client, id: &str, slugs: [&str; 2]| {
        for round in 0..25 {
            let input = json!({"organizationId": id, "slug": slugs[round % 2]});
            let answer =
                client.run("updateOrganization", "UpdateOrganizationInput", input, "organization { slug }").await;
            assert!(answer.accepted() || answer.refusal() == Some("ALREADY_EXISTS"), "{answer:?}");
        }
    };
    let create = async {
        for _ in 0..15 {
            let input = json!({"name": "x", "slug": "red"});
            let answer = a.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await;
            assert!(answer.accepted() || answer.refusal() == Some("ALREADY_EXISTS"), "{answer:?}");
        }
    };
    tokio::join!(swap(&a, &ids[0], ["blue", "red"]), swap(&b, &ids[1], ["red", "blue"]), create);
    let pool = database.pool().await;
    let doubles: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT slug FROM organizations GROUP BY slug HAVING count(*) > 1) doubles",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(doubles, 0);
    check_log(&pool).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_equal_commands_with_one_key_have_one_outcome() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    let elsewhere = two.user("owner@example.com");
    let id = one.verified("acme", &owner).await;
    for round in 0..4 {
        let answers = join_all((0..10).map(|i| {
            let via = if i % 2 == 0 { owner.clone() } else { elsewhere.clone() };
            let input = json!({"organizationId": id, "name": "x", "slug": format!("p{round}"), "idempotencyKey": format!("k{round}")});
            async move { via.run("createProject", "CreateProjectInput", input, "project { id version }").await }
        }))
        .await;
        assert_eq!(count(&answers, Answer::accepted), 10, "{answers:?}");
        assert_eq!(count(&answers, |answer| answer.at("/replayed") == false), 1);
        assert!(answers.iter().all(|answer| answer.at("/project") == answers[0].at("/project")));
        assert!(answers.iter().all(|answer| answer.at("/events/0/id") == answers[0].at("/events/0/id")));
    }
    assert_eq!(owner.used(&id, "projects").await, 4);
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_first_calls_of_a_new_user_register_one() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    for round in 0..4 {
        let email = format!("new{round}@example.com");
        let ids = join_all((0..10).map(|i| {
            let client = if i % 2 == 0 { one.user(&email) } else { two.user(&email) };
            async move { client.user_id().await }
        }))
        .await;
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_its_command_whole() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    for i in 0..20 {
        let hang_up = std::time::Duration::from_micros(300 * i);
        let _ = tokio::time::timeout(hang_up, owner.create_project(&id, &format!("p{i}"))).await;
    }
    server.stop().await;
    let pool = database.pool().await;
    check_log(&pool).await;
    let (created, held): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM events WHERE event_type = 'ProjectCreated'), (SELECT count(*) FROM claims WHERE scope = 'project_slug')",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(created, held);
}
