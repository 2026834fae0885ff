//! Who is let in, and what he may do.

use serde_json::{Value, json};

use crate::support::{Answer, Client, Database};

const VIEWER: &str = "{ viewer { user { id state } } }";

async fn review_user(operator: &Client, mutation: &str, user: &str) -> Answer {
    operator.run(mutation, "UserReviewInput", json!({"userId": user, "reason": "a test"}), "user { id state }").await
}

fn fault(response: &Value) -> &str {
    response.pointer("/errors/0/extensions/code").and_then(Value::as_str).unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_user_is_refused_by_the_next_request_on_every_replica() {
    let database = Database::new().await;
    let (first, second) = (database.serve().await, database.serve().await);
    let ada = second.user("ada@example.com");
    let organization = second.verified("acme", &ada).await;
    let user = ada.user_id().await;
    for round in 0..5 {
        let revoked = review_user(&first.operator(), "revokeUser", &user).await;
        assert_eq!(revoked.actions(), ["user.revoked"]);
        assert_eq!(revoked.text("/user/state"), "REVOKED");
        // Queries, commands, and the answer of a command that was accepted before.
        assert_eq!(fault(&ada.send(VIEWER, json!({})).await), "UNAUTHENTICATED");
        let refused = ada.create_project(&organization, &format!("never-{round}")).await;
        assert_eq!(refused.fault(), Some("UNAUTHENTICATED"));
        assert_eq!(review_user(&first.operator(), "reinstateUser", &user).await.actions(), ["user.reinstated"]);
        assert!(ada.create_project(&organization, &format!("round-{round}")).await.accepted());
        assert_eq!(ada.query(VIEWER, json!({})).await.text("/viewer/user/state"), "ACTIVE");
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_user_gets_no_earlier_outcome_again() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let input = json!({"name": "Acme", "slug": "acme", "idempotencyKey": "once"});
    let create = async || {
        ada.run("createOrganization", "CreateOrganizationInput", input.clone(), "organization { id } replayed").await
    };
    assert!(create().await.accepted());
    assert_eq!(create().await.at("/replayed"), true);
    let user = ada.user_id().await;
    assert!(review_user(&server.operator(), "revokeUser", &user).await.accepted());
    assert_eq!(create().await.fault(), Some("UNAUTHENTICATED"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_users_wait_for_approval_where_the_deployment_says_so() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_ACCESS__APPROVAL_REQUIRED", "true")]).await;
    let ada = server.user("ada@example.com");
    let viewer = ada.query(VIEWER, json!({})).await;
    assert_eq!(viewer.text("/viewer/user/state"), "PENDING");
    let user = viewer.text("/viewer/user/id");
    let create = async || {
        let input = json!({"name": "Acme", "slug": "acme"});
        ada.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await
    };
    assert_eq!(create().await.fault(), Some("FORBIDDEN"));
    assert_eq!(fault(&ada.send("{ viewer { invitations { nodes { id } } } }", json!({})).await), "FORBIDDEN");
    assert_eq!(fault(&ada.send("query($i: ID!) { node(id: $i) { id } }", json!({"i": user})).await), "FORBIDDEN");
    // Operators are known to be.
    assert_eq!(review_user(&server.operator(), "approveUser", &user).await.text("/user/state"), "ACTIVE");
    assert!(create().await.accepted());
    assert_eq!(review_user(&server.operator(), "approveUser", &user).await.refusal(), Some("INVALID_STATE"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_review_users_and_nobody_himself() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, operator) = (server.user("ada@example.com"), server.operator());
    let (user, own) = (ada.user_id().await, operator.user_id().await);
    for mutation in ["approveUser", "revokeUser", "reinstateUser"] {
        assert_eq!(review_user(&ada, mutation, &user).await.fault(), Some("FORBIDDEN"), "{mutation}");
        let nobody = crate::support::nobody_id();
        assert_eq!(review_user(&ada, mutation, &nobody).await.fault(), Some("FORBIDDEN"), "{mutation}");
        assert_eq!(review_user(&operator, mutation, &nobody).await.fault(), Some("NOT_FOUND"), "{mutation}");
    }
    assert_eq!(review_user(&operator, "revokeUser", &own).await.refusal(), Some("INVALID_STATE"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_do_not_see_whether_a_user_is_let_in() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user("ada@example.com"), server.user("bob@example.com"));
    let organization = server.verified("acme", &ada).await;
    ada.bring_in(&organization, &bob, "bob@example.com", &["member"]).await;
    let state = "query($i: ID!) { node(id: $i) { ... on User { id state } } }";
    let of_bob = json!({"i": bob.user_id().await});
    assert_eq!(ada.query(state, of_bob.clone()).await.at("/node/state"), &Value::Null);
    assert_eq!(bob.query(state, of_bob.clone()).await.at("/node/state"), "ACTIVE");
    assert_eq!(server.operator().query(state, of_bob).await.at("/node/state"), "ACTIVE");
    server.stop().await;
}
