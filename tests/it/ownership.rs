//! Handing ownership over, and what ends with a membership.

use serde_json::{Value, json};

use crate::support::{Answer, Client, Database, check_log, eventually};

async fn offer(client: &Client, membership: &str) -> Answer {
    client.member("offerOwnership", membership).await
}

async fn on(client: &Client, mutation: &str, organization: &str) -> Answer {
    let input = json!({"organizationId": organization});
    client.run(mutation, "OrganizationCommandInput", input, "membership { id state roles }").await
}

async fn accept(client: &Client, organization: &str) -> Answer {
    on(client, "acceptOwnership", organization).await
}

async fn withdraw(client: &Client, organization: &str) -> Answer {
    on(client, "withdrawOwnershipOffer", organization).await
}

async fn shown_offer(client: &Client, organization: &str) -> Value {
    let query = "query($id: ID!) { organization(by: {id: $id}) {
        ownershipOffer { membershipId offeredBy { __typename id } offeredAt } } }";
    client.query(query, json!({"id": organization})).await.at("/organization/ownershipOffer").clone()
}

async fn roles(client: &Client, membership: &str) -> Value {
    let query = "query($i: ID!) { node(id: $i) { ... on Membership { roles } } }";
    client.query(query, json!({"i": membership})).await.at("/node/roles").clone()
}

async fn own_membership(client: &Client, organization: &str) -> String {
    let query = "{ viewer { user { id } } }";
    let user = client.query(query, json!({})).await.text("/viewer/user/id");
    let id = aggregates::ids::MembershipId::of(&organization.parse().unwrap(), &user.parse().unwrap());
    id.to_string()
}

async fn impact(client: &Client, membership: &str) -> Value {
    let query = "query($i: ID!) { removalImpact(membershipId: $i) { lastOwner openInvitations apiTokens } }";
    client.query(query, json!({"i": membership})).await.at("/removalImpact").clone()
}

async fn impact_fault(client: &Client, membership: &str) -> String {
    let query = "query($i: ID!) { removalImpact(membershipId: $i) { lastOwner } }";
    client.fault(query, json!({"i": membership})).await
}

/// The later the round, the later.
async fn late(round: u64, answer: impl Future<Output = Answer>) -> Answer {
    tokio::time::sleep(std::time::Duration::from_millis(round * 6)).await;
    answer.await
}

async fn owners(database: &Database, organization: &str) -> i64 {
    sqlx::query_scalar("SELECT used FROM tallies WHERE organization_id = $1 AND name = 'owners'")
        .bind(organization)
        .fetch_one(&database.pool().await)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ownership_goes_over_from_one_to_the_other() {
    let database = Database::new().await;
    let (first, second) = (database.serve().await, database.serve().await);
    let (ada, bob, eve) =
        (first.user("ada@example.com"), second.user("bob@example.com"), second.user("eve@example.com"));
    let id = first.verified("acme", &ada).await;
    let ada_in = own_membership(&ada, &id).await;
    let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["member"]).await;
    ada.bring_in(&id, &eve, "eve@example.com", &["admin"]).await;
    assert_eq!(shown_offer(&ada, &id).await, Value::Null);
    let offered = offer(&ada, &bob_in).await;
    assert_eq!(offered.actions(), ["ownership.offered"]);
    assert_eq!((offered.text("/membership/id"), offered.at("/membership/roles")), (bob_in.clone(), &json!(["member"])));
    // Both see it, others do not.
    for client in [&ada, &bob, &first.operator()] {
        let shown = shown_offer(client, &id).await;
        assert_eq!(shown["membershipId"], bob_in);
        assert_eq!(shown["offeredBy"], json!({"__typename": "UserActor", "id": ada.user_id().await}));
    }
    assert_eq!(shown_offer(&eve, &id).await, Value::Null);
    assert_eq!(accept(&eve, &id).await.refusal(), Some("INVALID_STATE"));
    assert_eq!(owners(&database, &id).await, 1);

    let accepted = accept(&bob, &id).await;
    assert_eq!(accepted.actions(), ["ownership.accepted", "member.roles_changed", "member.roles_changed"]);
    assert_eq!(accepted.at("/membership/roles"), &json!(["owner", "member"]));
    assert_eq!(roles(&ada, &ada_in).await, json!(["admin"]));
    assert_eq!(owners(&database, &id).await, 1);
    assert_eq!(shown_offer(&bob, &id).await, Value::Null);
    assert_eq!(accept(&bob, &id).await.refusal(), Some("INVALID_STATE"));
    // At once, on both replicas.
    assert_eq!(offer(&ada, &bob_in).await.fault(), Some("FORBIDDEN"));
    assert!(offer(&bob, &ada_in).await.accepted());
    assert!(withdraw(&ada, &id).await.accepted(), "the recipient declines");
    check_log(&database.pool().await).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_offer_and_withdraw() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob, eve, joe) = (
        server.user("ada@example.com"),
        server.user("bob@example.com"),
        server.user("eve@example.com"),
        server.user("joe@example.com"),
    );
    let id = server.verified("acme", &ada).await;
    let ada_in = own_membership(&ada, &id).await;
    let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["admin"]).await;
    let eve_in = ada.bring_in(&id, &eve, "eve@example.com", &["member"]).await;
    // An admin may do much, but not this; a stranger learns nothing.
    assert_eq!(offer(&bob, &eve_in).await.fault(), Some("FORBIDDEN"));
    assert_eq!(offer(&bob, &bob_in).await.fault(), Some("FORBIDDEN"));
    for answer in [offer(&joe, &eve_in).await, accept(&joe, &id).await, withdraw(&joe, &id).await] {
        assert_eq!(answer.fault(), Some("NOT_FOUND"));
    }
    assert_eq!(offer(&ada, &ada_in).await.refusal(), Some("INVALID_STATE"));
    assert_eq!(withdraw(&ada, &id).await.refusal(), Some("INVALID_STATE"));
    assert!(offer(&ada, &eve_in).await.accepted());
    assert_eq!(offer(&ada, &eve_in).await.actions(), Vec::<&str>::new(), "it is offered already");
    assert_eq!(offer(&ada, &bob_in).await.refusal(), Some("INVALID_STATE"), "one at a time");
    assert_eq!(withdraw(&bob, &id).await.fault(), Some("FORBIDDEN"));
    assert_eq!(withdraw(&joe, &id).await.fault(), Some("NOT_FOUND"));
    assert_eq!(withdraw(&ada, &id).await.actions(), ["ownership.offer_withdrawn"]);
    assert_eq!(accept(&eve, &id).await.refusal(), Some("INVALID_STATE"));

    // An operator says why, and gives no ownership of their own.
    let operator = server.operator();
    assert_eq!(offer(&operator, &eve_in).await.fault(), Some("FORBIDDEN"));
    let input = json!({"membershipId": eve_in, "reason": "a test"});
    let offered = operator.run("offerOwnership", "MembershipCommandInput", input, "membership { id }").await;
    assert_eq!(offered.actions(), ["ownership.offered"]);
    assert_eq!(shown_offer(&eve, &id).await["offeredBy"]["__typename"], "OperatorActor");
    assert_eq!(accept(&eve, &id).await.actions(), ["ownership.accepted", "member.roles_changed"]);
    assert_eq!(owners(&database, &id).await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_ends_when_one_of_both_cannot_any_more() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob, eve) =
        (server.user("ada@example.com"), server.user("bob@example.com"), server.user("eve@example.com"));
    let id = server.verified("acme", &ada).await;
    let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["owner"]).await;
    let eve_in = ada.bring_in(&id, &eve, "eve@example.com", &["member"]).await;
    // The recipient is suspended, and comes back.
    assert!(offer(&ada, &eve_in).await.accepted());
    let suspended = ada.member("suspendMember", &eve_in).await;
    assert_eq!(suspended.actions(), ["member.suspended", "ownership.offer_withdrawn"]);
    // A suspended member does not see the organization.
    assert_eq!(accept(&eve, &id).await.fault(), Some("NOT_FOUND"));
    assert_eq!(offer(&ada, &eve_in).await.refusal(), Some("INVALID_STATE"));
    assert!(ada.member("reinstateMember", &eve_in).await.accepted());
    assert_eq!(accept(&eve, &id).await.refusal(), Some("INVALID_STATE"));
    // The owner who offered is demoted, and is an owner again.
    assert!(offer(&bob, &eve_in).await.accepted());
    assert_eq!(ada.change_roles(&bob_in, &["guest"]).await.actions().len(), 2);
    assert!(ada.change_roles(&bob_in, &["owner"]).await.accepted());
    assert_eq!(accept(&eve, &id).await.refusal(), Some("INVALID_STATE"));
    // The owner who offered leaves.
    assert!(offer(&bob, &eve_in).await.accepted());
    let left = bob.organization_command("leaveOrganization", &id).await;
    assert_eq!(left.actions(), ["member.left", "ownership.offer_withdrawn"]);
    assert_eq!(accept(&eve, &id).await.refusal(), Some("INVALID_STATE"));
    // What happens to others does not matter, nor another role.
    let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["guest"]).await;
    assert!(offer(&ada, &eve_in).await.accepted());
    assert!(ada.change_roles(&eve_in, &["guest"]).await.accepted());
    assert!(ada.member("removeMember", &bob_in).await.accepted());
    assert_eq!(accept(&eve, &id).await.at("/membership/roles"), &json!(["owner", "guest"]));
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_ends_when_its_recipient_becomes_an_owner_by_an_invitation() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bea) = (server.user("ada@example.com"), server.user("bea@example.com"));
    let id = server.verified("acme", &ada).await;
    let bea_in = ada.bring_in(&id, &bea, "bea@example.com", &["member"]).await;
    let invited = ada.invite(&id, "bea@example.com", &["owner"]).await;
    assert!(offer(&ada, &bea_in).await.accepted());
    let accepted = bea.accept(&invited.text("/token")).await;
    assert_eq!(accepted.at("/membership/roles"), &json!(["owner", "member"]), "{accepted:?}");
    assert!(accepted.actions().contains(&"ownership.offer_withdrawn"), "{accepted:?}");
    // So it does not come back to somebody who was demoted.
    assert!(ada.change_roles(&bea_in, &["member"]).await.accepted());
    assert_eq!(accept(&bea, &id).await.refusal(), Some("INVALID_STATE"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ending_of_an_offer_wins() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    for round in 0..8 {
        let (ada, bob) = (one.user("ada@example.com"), two.user("bob@example.com"));
        let id = one.verified(&format!("acme-{round}"), &ada).await;
        let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["member"]).await;
        assert!(offer(&ada, &bob_in).await.accepted());
        let (accepted, withdrawn) = tokio::join!(accept(&bob, &id), withdraw(&ada, &id));
        assert_ne!(accepted.accepted(), withdrawn.accepted(), "{accepted:?} {withdrawn:?}");
        if accepted.accepted() {
            // A member who is no owner any more may not even ask.
            let why = withdrawn.refusal().or(withdrawn.fault());
            assert!([Some("INVALID_STATE"), Some("FORBIDDEN")].contains(&why), "{withdrawn:?}");
        } else {
            assert_eq!(accepted.refusal(), Some("INVALID_STATE"));
        }
        assert_eq!(owners(&database, &id).await, 1);
        let audit = ada.audit(&id).await;
        let ends = ["ownership.accepted", "ownership.offer_withdrawn"];
        assert_eq!(audit.iter().filter(|action| ends.contains(&action.as_str())).count(), 1, "{audit:?}");
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_left_when_who_offers_goes_while_it_is_accepted() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    for round in 0..9 {
        let (ada, bob, eve) = (one.user("ada@example.com"), two.user("bob@example.com"), one.user("eve@example.com"));
        let id = one.verified(&format!("acme-{round}"), &ada).await;
        let ada_in = own_membership(&ada, &id).await;
        let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["member"]).await;
        ada.bring_in(&id, &eve, "eve@example.com", &["owner"]).await;
        assert!(offer(&ada, &bob_in).await.accepted());
        let gone = async {
            match round % 3 {
                0 => eve.member("removeMember", &ada_in).await,
                1 => eve.change_roles(&ada_in, &["guest"]).await,
                _ => ada.organization_command("leaveOrganization", &id).await,
            }
        };
        // A member who goes may wait a moment for a read model: both orders are met.
        let (accepted, gone) = tokio::join!(late(round, accept(&bob, &id)), gone);
        assert!(gone.accepted(), "{gone:?}");
        assert!(accepted.accepted() || accepted.refusal() == Some("INVALID_STATE"), "{accepted:?}");
        // Either it went over before, or it ended with its giver; never both, and never is nobody left.
        let audit = eve.audit(&id).await;
        let count = |action: &str| audit.iter().filter(|entry| *entry == action).count();
        assert_eq!(count("ownership.accepted"), usize::from(accepted.accepted()), "{audit:?}");
        assert_eq!(count("ownership.offer_withdrawn"), usize::from(!accepted.accepted()), "{audit:?}");
        assert_eq!(owners(&database, &id).await, if accepted.accepted() { 2 } else { 1 });
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_member_go_the_invitations_that_he_made() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let (ada, bob) = (one.user("ada@example.com"), two.user("bob@example.com"));
    let id = one.verified("acme", &ada).await;
    let ada_in = own_membership(&ada, &id).await;
    for leaves in [false, true] {
        let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["admin"]).await;
        let by_ada = ada.invite(&id, "kept@example.com", &["guest"]).await;
        let mut tokens = vec![];
        for number in 0..3 {
            tokens.push(bob.invite(&id, &format!("p{number}@example.com"), &["guest"]).await.text("/token"));
        }
        assert_eq!(ada.used(&id, "members").await, 6);
        eventually("the impact is known", async || impact(&ada, &bob_in).await["openInvitations"] == 3).await;
        assert_eq!(impact(&ada, &bob_in).await, json!({"lastOwner": false, "openInvitations": 3, "apiTokens": 0}));
        assert_eq!(impact(&ada, &ada_in).await["lastOwner"], true);
        let gone = if leaves {
            bob.organization_command("leaveOrganization", &id).await
        } else {
            ada.member("removeMember", &bob_in).await
        };
        let revoked = gone.actions().iter().filter(|action| **action == "invitation.revoked").count();
        assert_eq!((gone.actions().len(), revoked), (4, 3), "{gone:?}");
        let reason = gone.at("/events/1/data/reason").as_str().unwrap();
        assert!(reason.starts_with("who invited "), "{reason}");
        assert_eq!(ada.used(&id, "members").await, 2, "their seats are free");
        for (number, token) in tokens.iter().enumerate() {
            let refused = two.user(&format!("p{number}@example.com")).accept(token).await;
            assert_eq!(refused.refusal(), Some("INVITATION_NOT_PENDING"));
        }
        let input = json!({"invitationId": by_ada.text("/invitation/id")});
        let revoked = ada.run("revokeInvitation", "InvitationCommandInput", input, "invitation { state }").await;
        assert!(revoked.accepted(), "others' invitations stay: {revoked:?}");
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_may_keep_the_invitations_of_who_is_gone() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob, eve) =
        (server.user("ada@example.com"), server.user("bob@example.com"), server.user("eve@example.com"));
    let id = server.verified("acme", &ada).await;
    let policy = async |value: Value| {
        let input = json!({"organizationId": id, "namespace": "policies", "value": value});
        let select = "organization { id }";
        ada.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, select).await
    };
    assert!(policy(json!({"invitationsOfRemovedMembers": "keep"})).await.accepted());
    let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["admin"]).await;
    let token = bob.invite(&id, "eve@example.com", &["guest"]).await.text("/token");
    let late = bob.invite(&id, "joe@example.com", &["guest"]).await.text("/token");
    assert_eq!(impact(&ada, &bob_in).await["openInvitations"], 0);
    assert_eq!(ada.member("removeMember", &bob_in).await.actions(), ["member.removed"]);
    assert!(eve.accept(&token).await.accepted());
    // Also what a removal overlooked is not accepted, once nothing is kept.
    assert!(policy(json!({})).await.accepted());
    assert_eq!(server.user("joe@example.com").accept(&late).await.refusal(), Some("INVALID_STATE"));
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_invitation_of_who_is_removed_at_the_same_time_is_accepted_after_it() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let ada = one.user("ada@example.com");
    let id = one.verified("acme", &ada).await;
    for round in 0..6 {
        let bob = two.user("bob@example.com");
        let bob_in = ada.bring_in(&id, &bob, "bob@example.com", &["admin"]).await;
        let joe = two.user(&format!("joe-{round}@example.com"));
        let token = bob.invite(&id, &format!("joe-{round}@example.com"), &["guest"]).await.text("/token");
        let (accepted, removed) = tokio::join!(late(round, joe.accept(&token)), ada.member("removeMember", &bob_in));
        assert!(removed.accepted(), "{removed:?}");
        let revoked = removed.actions().contains(&"invitation.revoked");
        assert!(!(accepted.accepted() && revoked), "{accepted:?} {removed:?}");
        let audit = ada.audit(&id).await;
        let last = |action: &str| audit.iter().rposition(|entry| entry == action);
        assert!(!accepted.accepted() || last("invitation.accepted") < last("member.removed"), "{audit:?}");
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removal_would_end_is_told_to_who_may_remove() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob, eve) =
        (server.user("ada@example.com"), server.user("bob@example.com"), server.user("eve@example.com"));
    let id = server.verified("acme", &ada).await;
    let ada_in = own_membership(&ada, &id).await;
    ada.bring_in(&id, &bob, "bob@example.com", &["member"]).await;
    assert_eq!(impact_fault(&bob, &ada_in).await, "FORBIDDEN");
    assert_eq!(impact_fault(&eve, &ada_in).await, "NOT_FOUND");
    let nobody = own_membership(&eve, &id).await;
    assert_eq!(impact_fault(&ada, &nobody).await, "NOT_FOUND");
    assert_eq!(impact(&server.operator(), &ada_in).await["lastOwner"], true);
    ada.bring_in(&id, &eve, "eve@example.com", &["owner"]).await;
    assert_eq!(impact(&ada, &ada_in).await["lastOwner"], false);
    server.stop().await;
}
