//! API tokens: what a service may do by a secret, and when that ends.

use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Database, Server, check_log, eventually};

const SEE: &str = "query($id: ID!) { organization(by: {id: $id}) { id } }";
const TOKENS: &str = "query($id: ID!) { organization(by: {id: $id}) { apiTokens { nodes {
    id name hint permissions createdBy { __typename id label } createdAt expiresAt revokedAt lastUsedAt } } } }";

async fn listed(client: &Client, id: &str) -> Vec<Value> {
    client.query(TOKENS, json!({"id": id})).await.at("/organization/apiTokens/nodes").as_array().unwrap().clone()
}

async fn policy(owner: &Client, id: &str, value: &str) {
    let input = json!({"organizationId": id, "namespace": "policies", "value": {"tokensOfRemovedMembers": value}});
    let set = owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, "__typename").await;
    assert!(set.accepted(), "{set:?}");
}

async fn create(client: &Client, input: Value) -> Answer {
    client.run("createApiToken", "CreateApiTokenInput", input, "token { id hint expiresAt } secret").await
}

/// An owner, and an organization that may create tokens.
async fn acme(server: &Server) -> (Client, String) {
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    (owner, id)
}

/// What a response with a token that is refused says.
async fn refused(client: &Client, id: &str) -> String {
    let response = client.send(SEE, json!({"id": id})).await;
    assert_eq!(response["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{response}");
    response["errors"][0]["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_kept_as_a_keyed_hash() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let input = json!({
        "organizationId": id, "name": " Deploy ", "permissions": ["project:read", "organization:read"],
        "idempotencyKey": "once",
    });
    let created = create(&owner, input.clone()).await;
    let (secret, token) = (created.text("/secret"), created.text("/token/id"));
    assert_eq!(created.actions(), ["token.created"]);
    assert_eq!(created.text("/token/hint"), format!("tnt_…{}", &secret[secret.len() - 4..]));
    let again = create(&owner, input).await;
    assert_eq!((again.at("/replayed"), again.at("/secret")), (&json!(true), &Value::Null));
    assert_eq!(again.at("/token/id"), &json!(token));

    let by_token = server.bearer(&secret);
    assert_eq!(by_token.query(SEE, json!({"id": id})).await.text("/organization/id"), id);
    let pool = database.pool().await;
    let stored: Vec<String> = sqlx::query_scalar("SELECT payload::text FROM events WHERE aggregate_id = $1")
        .bind(&token)
        .fetch_all(&pool)
        .await
        .unwrap();
    let stored: Value = serde_json::from_str(&stored[0]).unwrap();
    let digest = stored["TokenCreated"]["secret_digest"].as_str().unwrap();
    assert_eq!(digest.len(), 43, "a keyed hash of 256 bits");
    // The whole database knows the hash only.
    for table in ["events", "claims", "outcomes", "snapshots", "api_tokens", "access_trail", "token_uses"] {
        let found: Vec<String> =
            sqlx::query_scalar(&format!("SELECT t::text FROM {table} t")).fetch_all(&pool).await.unwrap();
        assert!(found.iter().all(|row| !row.contains(&secret[4..40])), "{table}");
    }
    // And nobody is told even that.
    let everything = "query($id: ID!, $token: ID!) {
        node(id: $token) { id ... on ApiToken { name hint permissions createdAt } }
        organization(by: {id: $id}) {
            auditTrail(last: 100) { nodes { action data actor { id label } ... on TokenCreatedEvent { hint name } } }
            apiTokens { nodes { id name hint } } } }";
    for client in [&owner, &server.operator()] {
        let shown = client.send(everything, json!({"id": id, "token": token})).await.to_string();
        assert!(shown.contains("token.created"), "{shown}");
        assert!(!shown.contains(&secret[4..40]) && !shown.contains(digest) && !shown.contains("igest"), "{shown}");
    }
    check_log(&pool).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_secret_is_refused_without_the_database() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let secret = owner.create_token(&id, &["organization:read"]).await.text("/secret");
    // Every look for a secret from here on fails.
    let pool = database.pool().await;
    sqlx::query("ALTER TABLE claims RENAME TO claims_away").execute(&pool).await.unwrap();
    let last = if secret.ends_with('x') { "y" } else { "x" };
    let wrong = format!("{}{last}", &secret[..secret.len() - 1]);
    for text in [wrong.as_str(), "tnt_", &secret[..20]] {
        assert!(refused(&server.bearer(text), &id).await.contains("checksum"), "{text}");
    }
    assert_eq!(server.bearer(&secret).fault(SEE, json!({"id": id})).await, "UNAVAILABLE");
    sqlx::query("ALTER TABLE claims_away RENAME TO claims").execute(&pool).await.unwrap();
    assert_eq!(server.bearer(&secret).query(SEE, json!({"id": id})).await.text("/organization/id"), id);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_and_expired_tokens_are_out_at_once_on_every_replica() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let (owner, id) = acme(&one).await;
    let created = owner.create_token(&id, &["organization:read", "project:create"]).await;
    let secret = created.text("/secret");
    let (here, there) = (one.bearer(&secret), two.bearer(&secret));
    for client in [&here, &there] {
        client.query(SEE, json!({"id": id})).await;
    }
    assert!(there.create_project(&id, "first").await.accepted());
    assert!(owner.revoke_token(&created.text("/token/id")).await.accepted());
    // The other replica knows the token, and its last state.
    assert_eq!(there.create_project(&id, "second").await.fault(), Some("UNAUTHENTICATED"));
    for client in [&here, &there] {
        assert!(refused(client, &id).await.contains("revoked"));
    }
    assert_eq!(owner.revoke_token(&created.text("/token/id")).await.refusal(), Some("INVALID_STATE"));
    assert_eq!(owner.used(&id, "tokens").await, 0);

    let input = |end: TimeDelta| {
        let end = Utc::now() + end;
        json!({"organizationId": id, "name": "short", "permissions": ["organization:read"], "expiresAt": end})
    };
    for end in [TimeDelta::seconds(-1), TimeDelta::days(3_700)] {
        assert_eq!(create(&owner, input(end)).await.refusal(), Some("INVALID_INPUT"));
    }
    let short = create(&owner, input(TimeDelta::seconds(2))).await.text("/secret");
    two.bearer(&short).query(SEE, json!({"id": id})).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    for server in [&one, &two] {
        assert!(refused(&server.bearer(&short), &id).await.contains("expired"));
    }
    one.service().core().commands.sweep().await.unwrap();
    assert_eq!(owner.audit(&id).await.last().unwrap(), "token.expired");
    assert_eq!(owner.used(&id, "tokens").await, 0);
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gives_no_more_than_it_has() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let admin = server.user("admin@example.com");
    owner.bring_in(&id, &admin, "admin@example.com", &["admin"]).await;
    assert_eq!(admin.create_token(&id, &["organization:delete"]).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    assert_eq!(admin.create_token(&id, &["project:fly"]).await.refusal(), Some("INVALID_INPUT"));
    let own = [
        "organization:read",
        "member:read",
        "member:add",
        "member:invite",
        "member:remove",
        "token:read",
        "token:manage",
    ];
    let token = server.bearer(&admin.create_token(&id, &own).await.text("/secret"));
    assert_eq!(token.create_token(&id, &["project:create"]).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    let second = token.create_token(&id, &["organization:read"]).await;
    assert!(second.accepted(), "{second:?}");
    assert_eq!(second.at("/events/0/actor/__typename"), "TokenActor");
    assert_eq!(token.invite(&id, "eve@example.com", &["member"]).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    // Owners are for owners, whatever a token may do.
    let all: Vec<&str> = aggregates::roles::Permission::ALL.iter().map(|each| each.as_str()).collect();
    let strong = server.bearer(&owner.create_token(&id, &all).await.text("/secret"));
    assert_eq!(strong.invite(&id, "eve@example.com", &["owner"]).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    let owner_in = aggregates::ids::MembershipId::of(&id.parse().unwrap(), &owner.user_id().await.parse().unwrap());
    assert_eq!(strong.member("removeMember", owner_in.as_ref()).await.fault(), Some("FORBIDDEN"));
    // It gives no life beyond its own.
    let end = Utc::now() + TimeDelta::hours(1);
    let bounded = json!({"organizationId": id, "name": "bounded", "permissions": own, "expiresAt": end});
    let bounded = server.bearer(&create(&owner, bounded).await.text("/secret"));
    assert_eq!(bounded.create_token(&id, &["organization:read"]).await.refusal(), Some("INVALID_INPUT"));
    // A maximum holds, and what is revoked makes room.
    server.operator().set_limit(&id, "tokens", 4).await;
    assert_eq!(owner.create_token(&id, &["organization:read"]).await.refusal(), Some("LIMIT_REACHED"));
    assert!(owner.revoke_token(&second.text("/token/id")).await.accepted());
    assert!(owner.create_token(&id, &["organization:read"]).await.accepted());
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_person_is_forbidden_to_tokens() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let all: Vec<&str> = aggregates::roles::Permission::ALL.iter().map(|each| each.as_str()).collect();
    let created = owner.create_token(&id, &all).await;
    let token = server.bearer(&created.text("/secret"));
    assert_eq!(token.fault("{ viewer { operator } }", json!({})).await, "FORBIDDEN");
    assert_eq!(token.fault("{ organizations { nodes { id } } }", json!({})).await, "FORBIDDEN");
    let membership = aggregates::ids::MembershipId::of(&id.parse().unwrap(), &owner.user_id().await.parse().unwrap());
    let at = json!({"organizationId": id});
    let calls = [
        ("createOrganization", "CreateOrganizationInput", json!({"name": "b", "slug": "b"})),
        ("ensureHomeOrganization", "EnsureHomeOrganizationInput", json!({})),
        ("acceptInvitation", "InvitationTokenInput", json!({"token": "tni_x"})),
        ("declineInvitation", "InvitationTokenInput", json!({"token": "tni_x"})),
        ("leaveOrganization", "OrganizationCommandInput", at.clone()),
        ("offerOwnership", "MembershipCommandInput", json!({"membershipId": membership})),
        ("acceptOwnership", "OrganizationCommandInput", at.clone()),
        ("withdrawOwnershipOffer", "OrganizationCommandInput", at.clone()),
        ("verifyOrganization", "OrganizationReviewInput", json!({"organizationId": id, "reason": "a test"})),
    ];
    for (mutation, input_type, input) in calls {
        let answer = token.run(mutation, input_type, input, "__typename").await;
        assert_eq!(answer.fault(), Some("FORBIDDEN"), "{mutation}: {answer:?}");
        let message = answer.text("/faults/0/message");
        assert!(message.contains("person") || message.contains("operators"), "{mutation}: {message}");
    }
    // Its refusals stand in its organization's access trail, under its name.
    let trail = "query($id: ID!) { organization(by: {id: $id}) { accessTrail(last: 20) { nodes {
        kind operation actor { __typename id label } } } } }";
    eventually("the refusals are on record", async || {
        let read = owner.query(trail, json!({"id": id})).await;
        let nodes = read.at("/organization/accessTrail/nodes").as_array().unwrap().clone();
        let actor = json!({"__typename": "TokenActor", "id": created.at("/token/id"), "label": "deploy"});
        nodes
            .iter()
            .any(|node| node["kind"] == "REFUSED" && node["operation"] == "leaveOrganization" && node["actor"] == actor)
    })
    .await;
    // What only owners may see is shut to tokens.
    for review in ["blockOrganization", "unblockOrganization"] {
        assert!(server.operator().review(review, &id).await.accepted());
        if review == "blockOrganization" {
            assert_eq!(token.fault(SEE, json!({"id": id})).await, "NOT_FOUND");
            assert_eq!(token.create_project(&id, "p").await.fault(), Some("NOT_FOUND"));
            let other = owner.create_token(&id, &["organization:read"]).await;
            assert_eq!(other.refusal(), Some("ENTITY_STATUS"));
        }
    }
    assert!(owner.organization_command("deleteOrganization", &id).await.accepted());
    assert_eq!(token.fault(SEE, json!({"id": id})).await, "NOT_FOUND");
    assert!(owner.organization_command("restoreOrganization", &id).await.accepted());
    assert!(server.operator().review("blockOrganization", &id).await.accepted());
    assert!(owner.revoke_token(&created.text("/token/id")).await.accepted(), "also while it is blocked");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_acts_under_its_own_id_and_sees_its_own_members_only() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let (bob, eve) = (server.user("bob@example.com"), server.user("eve@example.com"));
    let other = server.verified("other", &owner).await;
    owner.bring_in(&id, &bob, "bob@example.com", &["guest"]).await;
    owner.bring_in(&other, &eve, "eve@example.com", &["guest"]).await;
    let permissions =
        ["organization:read", "member:read", "member:invite", "member:add", "project:create", "project:read"];
    let created = owner.create_token(&id, &permissions).await;
    let (token, token_id) = (server.bearer(&created.text("/secret")), created.text("/token/id"));

    let made = token.create_project(&id, "site").await;
    assert_eq!(made.at("/events/0/actor"), &json!({"__typename": "TokenActor", "id": token_id}));
    let trail =
        "query($id: ID!, $by: [ID!]) { organization(by: {id: $id}) { auditTrail(filter: {actorIds: $by}, last: 9) {
        nodes { action ip actor { __typename label } } } } }";
    let read = owner.query(trail, json!({"id": id, "by": [token_id]})).await;
    let expected = json!([{"action": "project.created", "ip": "127.0.0.1",
        "actor": {"__typename": "TokenActor", "label": "deploy"}}]);
    assert_eq!(read.at("/organization/auditTrail/nodes"), &expected);
    let invited = token.invite(&id, "joe@example.com", &["guest"]).await.text("/invitation/id");
    let inviter = "query($i: ID!) { node(id: $i) { ... on Invitation { invitedBy { __typename id } } } }";
    let inviter = owner.query(inviter, json!({"i": invited})).await;
    assert_eq!(inviter.at("/node/invitedBy"), &json!({"__typename": "TokenActor", "id": token_id}));

    let user = "query($i: ID!) { node(id: $i) { id } }";
    assert_eq!(token.query(user, json!({"i": bob.user_id().await})).await.text("/node/id"), bob.user_id().await);
    assert_eq!(token.fault(user, json!({"i": eve.user_id().await})).await, "NOT_FOUND");
    let add = json!({"organizationId": id, "userId": eve.user_id().await, "roles": ["guest"]});
    assert_eq!(token.run("addMember", "AddMemberInput", add, "__typename").await.fault(), Some("NOT_FOUND"));
    assert_eq!(token.fault(SEE, json!({"id": other})).await, "NOT_FOUND");
    assert_eq!(token.create_project(&other, "site").await.fault(), Some("NOT_FOUND"));

    let may = "query($id: ID!, $user: ID) { permissions(organizationId: $id, userId: $user) }";
    let own = token.query(may, json!({"id": id})).await;
    assert_eq!(own.at("/permissions").as_array().unwrap().len(), permissions.len());
    let of_bob = token.query(may, json!({"id": id, "user": bob.user_id().await})).await;
    assert_eq!(of_bob.at("/permissions"), &json!(["organization:read", "project:read"]));
    assert_eq!(token.query(may, json!({"id": id, "user": eve.user_id().await})).await.at("/permissions"), &json!([]));
    let blind = server.bearer(&owner.create_token(&id, &["organization:read"]).await.text("/secret"));
    assert_eq!(blind.fault(may, json!({"id": id, "user": bob.user_id().await})).await, "FORBIDDEN");

    // Keys are each caller's own.
    let project = |slug: &str| json!({"organizationId": id, "name": slug, "slug": slug, "idempotencyKey": "same"});
    for (client, slug) in [(&token, "by-token"), (&owner, "by-owner")] {
        let made = client.run("createProject", "CreateProjectInput", project(slug), "project { slug }").await;
        assert_eq!((made.at("/replayed"), made.text("/project/slug").as_str()), (&json!(false), slug));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_token_was_used_last_is_written_behind_the_request() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let created = owner.create_token(&id, &["organization:read"]).await;
    eventually("the token is listed", async || listed(&owner, &id).await.len() == 1).await;
    assert_eq!(listed(&owner, &id).await[0]["lastUsedAt"], Value::Null);
    let token = server.bearer(&created.text("/secret"));
    let before = Utc::now();
    token.query(SEE, json!({"id": id})).await;
    eventually("the use is written", async || !listed(&owner, &id).await[0]["lastUsedAt"].is_null()).await;
    let shown = listed(&owner, &id).await[0].clone();
    let used: chrono::DateTime<Utc> = shown["lastUsedAt"].as_str().unwrap().parse().unwrap();
    assert!(used >= before - TimeDelta::seconds(1) && used <= Utc::now(), "{used}");
    // Within a minute nothing more is written.
    for _ in 0..3 {
        token.query(SEE, json!({"id": id})).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(listed(&owner, &id).await[0], shown);
    assert_eq!(shown["createdBy"]["__typename"], "UserActor");
    assert_eq!(owner.audit(&id).await.last().unwrap(), "token.created", "it is no event");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_created_while_its_creator_is_demoted_is_within_his_rights_or_refused() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    for round in 0..6 {
        let id = one.verified(&format!("acme-{round}"), &owner).await;
        let email = format!("admin{round}@example.com");
        let admin = two.user(&email);
        let membership = owner.bring_in(&id, &admin, &email, &["admin"]).await;
        let creations = join_all((0..5).map(|_| admin.create_token(&id, &["organization:read", "project:delete"])));
        let (created, demoted) = tokio::join!(creations, owner.change_roles(&membership, &["guest"]));
        assert!(demoted.accepted(), "{demoted:?}");
        let place = |answer: &Answer| answer.at("/events/0/auditSequence").as_i64().unwrap();
        for answer in created {
            match answer.accepted() {
                true => assert!(place(&answer) < place(&demoted), "created after the demotion: {answer:?}"),
                false => assert_eq!(answer.fault(), Some("FORBIDDEN"), "{answer:?}"),
            }
        }
        assert_eq!(admin.create_token(&id, &["organization:read"]).await.fault(), Some("FORBIDDEN"));
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_who_is_removed_go_on_or_end_as_the_policy_says() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let impact = "query($i: ID!) { removalImpact(membershipId: $i) { apiTokens } }";
    let may = ["organization:read", "token:manage", "token:read"];
    for (round, how) in ["keep", "removed", "left"].into_iter().enumerate() {
        let email = format!("admin{round}@example.com");
        let admin = server.user(&email);
        let membership = owner.bring_in(&id, &admin, &email, &["admin"]).await;
        let first = server.bearer(&admin.create_token(&id, &may).await.text("/secret"));
        // What a token of theirs created is theirs too.
        let second = server.bearer(&first.create_token(&id, &["organization:read"]).await.text("/secret"));
        let others = server.bearer(&owner.create_token(&id, &["organization:read"]).await.text("/secret"));
        eventually("both are counted", async || {
            owner.query(impact, json!({"i": membership})).await.at("/removalImpact/apiTokens") == 2
        })
        .await;
        if how != "keep" {
            policy(&owner, &id, "revoke").await;
        }
        let out = match how {
            "left" => admin.organization_command("leaveOrganization", &id).await,
            _ => owner.member("removeMember", &membership).await,
        };
        assert!(out.accepted(), "{out:?}");
        if how == "keep" {
            assert_eq!(out.actions(), ["member.removed"]);
            for client in [&first, &second] {
                client.query(SEE, json!({"id": id})).await;
            }
        } else {
            assert_eq!(out.actions()[1..], ["token.revoked", "token.revoked"]);
            for client in [&first, &second] {
                refused(client, &id).await;
            }
        }
        others.query(SEE, json!({"id": id})).await;
        if how != "keep" {
            policy(&owner, &id, "keep").await;
        }
    }
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_again_by_a_token_of_their_own() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let (owner, id) = acme(&one).await;
    let (admin, bob) = (one.user("admin@example.com"), one.user("bob@example.com"));
    let membership = owner.bring_in(&id, &admin, "admin@example.com", &["admin"]).await;
    let bobs = owner.bring_in(&id, &bob, "bob@example.com", &["member"]).await;
    // All that an admin may do.
    let all = aggregates::roles::Permission::ALL.iter().map(|each| each.as_str());
    let own: Vec<&str> = all.filter(|each| *each != "organization:delete").collect();
    let first = two.bearer(&admin.create_token(&id, &own).await.text("/secret"));
    let second = two.bearer(&first.create_token(&id, &own).await.text("/secret"));
    // Others' memberships it may change, its own person's not.
    assert!(second.change_roles(&bobs, &["guest"]).await.accepted());
    assert!(second.member("suspendMember", &bobs).await.accepted());
    assert!(second.member("reinstateMember", &bobs).await.accepted());
    for token in [&first, &second] {
        assert_eq!(token.change_roles(&membership, &["guest"]).await.fault(), Some("FORBIDDEN"));
    }

    assert!(owner.member("suspendMember", &membership).await.accepted());
    for token in [&first, &second] {
        assert_eq!(token.member("reinstateMember", &membership).await.fault(), Some("UNAUTHENTICATED"));
        assert!(refused(token, &id).await.contains("suspended"));
    }
    assert!(owner.member("reinstateMember", &membership).await.accepted());
    first.query(SEE, json!({"id": id})).await;

    let user = admin.user_id().await;
    let review = async |act: &str| {
        let input = json!({"userId": user, "reason": "a test"});
        let acted = one.operator().run(act, "UserReviewInput", input, "user { id }").await;
        assert!(acted.accepted(), "{acted:?}");
    };
    review("revokeUser").await;
    for token in [&first, &second] {
        assert_eq!(token.create_token(&id, &["organization:read"]).await.fault(), Some("UNAUTHENTICATED"));
        assert!(refused(token, &id).await.contains("revoked"));
    }
    review("reinstateUser").await;

    // A removed member leaves them to the organization, and they bring nobody back.
    assert!(owner.member("removeMember", &membership).await.accepted());
    for token in [&first, &second] {
        token.query(SEE, json!({"id": id})).await;
        let add = json!({"organizationId": id, "userId": user, "roles": ["guest"]});
        assert_eq!(token.run("addMember", "AddMemberInput", add, "__typename").await.fault(), Some("FORBIDDEN"));
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refused_once_its_person_is_suspended_at_the_same_moment() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let (owner, id) = acme(&one).await;
    let may = ["organization:read", "project:create", "project:read"];
    for round in 0..4 {
        let email = format!("admin{round}@example.com");
        let admin = one.user(&email);
        let membership = owner.bring_in(&id, &admin, &email, &["admin"]).await;
        let token = two.bearer(&admin.create_token(&id, &may).await.text("/secret"));
        let slugs: Vec<String> = (0..5).map(|number| format!("p-{round}-{number}")).collect();
        let creations = join_all(slugs.iter().map(|slug| token.create_project(&id, slug)));
        let (created, suspended) = tokio::join!(creations, owner.member("suspendMember", &membership));
        assert!(suspended.accepted(), "{suspended:?}");
        let place = |answer: &Answer| answer.at("/events/0/auditSequence").as_i64().unwrap();
        for answer in created {
            match answer.accepted() {
                true => assert!(place(&answer) < place(&suspended), "after the suspension: {answer:?}"),
                false => assert_eq!(answer.fault(), Some("UNAUTHENTICATED"), "{answer:?}"),
            }
        }
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_by_a_token_end_with_who_answers_for_it() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let (admin, joe) = (server.user("admin@example.com"), server.user("joe@example.com"));
    let membership = owner.bring_in(&id, &admin, "admin@example.com", &["admin"]).await;
    let may = ["organization:read", "project:read", "member:invite"];
    let token = server.bearer(&admin.create_token(&id, &may).await.text("/secret"));
    let itself = token.invite(&id, "admin@example.com", &["guest"]).await;
    let invited = token.invite(&id, "joe@example.com", &["guest"]).await;
    let impact = "query($i: ID!) { removalImpact(membershipId: $i) { openInvitations } }";
    eventually("they are counted", async || {
        owner.query(impact, json!({"i": membership})).await.at("/removalImpact/openInvitations") == 2
    })
    .await;
    let removed = owner.member("removeMember", &membership).await;
    assert_eq!(removed.actions(), ["member.removed", "invitation.revoked", "invitation.revoked"]);
    for (who, invitation) in [(&admin, &itself), (&joe, &invited)] {
        assert_eq!(who.accept(&invitation.text("/token")).await.refusal(), Some("INVITATION_NOT_PENDING"));
    }
    // The token is the organization's now; nobody who is in answers for whom it would invite.
    token.query(SEE, json!({"id": id})).await;
    assert_eq!(token.invite(&id, "joe@example.com", &["guest"]).await.refusal(), Some("INVALID_STATE"));
    // Where the policy keeps them, they hold; only the member does not come in by their own.
    let keep = json!({"organizationId": id, "namespace": "policies", "value": {"invitationsOfRemovedMembers": "keep"}});
    let set = owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", keep, "__typename").await;
    assert!(set.accepted(), "{set:?}");
    let itself = token.invite(&id, "admin@example.com", &["guest"]).await;
    let invited = token.invite(&id, "joe@example.com", &["guest"]).await;
    let own = admin.accept(&itself.text("/token")).await;
    assert_eq!(own.refusal(), Some("INVALID_STATE"), "{own:?}");
    assert!(joe.accept(&invited.text("/token")).await.accepted());
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_reaches_for_stands_in_its_organizations_access_trail() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let eve = server.user("eve@example.com");
    let other = server.verified("other", &eve).await;
    let created = owner.create_token(&id, &["organization:read", "project:create"]).await;
    let token = server.bearer(&created.text("/secret"));
    assert_eq!(token.create_project(&other, "site").await.fault(), Some("NOT_FOUND"));
    let trail = "query($id: ID!) { organization(by: {id: $id}) { accessTrail(last: 20) { nodes {
        kind operation targetId actor { id } } } } }";
    eventually("the reach is on record", async || {
        let read = owner.query(trail, json!({"id": id})).await;
        let nodes = read.at("/organization/accessTrail/nodes").as_array().unwrap().clone();
        let token = created.at("/token/id");
        nodes.iter().any(|node| {
            node["operation"] == "createProject" && node["targetId"] == json!(other) && node["actor"]["id"] == *token
        })
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_read_keeps_the_sweeper_from_no_other() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let admin = server.user("admin@example.com");
    let membership = owner.bring_in(&id, &admin, "admin@example.com", &["admin"]).await;
    let first = admin.create_token(&id, &["organization:read"]).await;
    let second = admin.create_token(&id, &["organization:read"]).await;
    eventually("both are listed", async || listed(&owner, &id).await.len() == 2).await;
    assert!(owner.member("removeMember", &membership).await.accepted());
    server.stop().await;
    let pool = database.pool().await;
    sqlx::raw_sql("ALTER TABLE events DISABLE TRIGGER USER").execute(&pool).await.unwrap();
    let spoilt = "UPDATE events SET payload = '{}' WHERE aggregate_id = $1";
    sqlx::query(spoilt).bind(first.text("/token/id")).execute(&pool).await.unwrap();

    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    policy(&owner, &id, "revoke").await;
    let second = server.bearer(&second.text("/secret"));
    eventually("the second is revoked", async || {
        server.service().core().commands.sweep().await.unwrap();
        second.send(SEE, json!({"id": id})).await["data"].is_null()
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removal_missed_the_sweeper_revokes() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let (owner, id) = acme(&one).await;
    let (admin, guest) = (two.user("admin@example.com"), one.user("guest@example.com"));
    let membership = owner.bring_in(&id, &admin, "admin@example.com", &["admin"]).await;
    owner.bring_in(&id, &guest, "guest@example.com", &["guest"]).await;
    // Removed while tokens are kept; the policy comes later.
    let secret = admin.create_token(&id, &["organization:read"]).await.text("/secret");
    let kept = owner.create_token(&id, &["organization:read"]).await.text("/secret");
    assert!(owner.member("removeMember", &membership).await.accepted());
    let sweep = async || one.service().core().commands.sweep().await.unwrap();
    sweep().await;
    one.bearer(&secret).query(SEE, json!({"id": id})).await;
    policy(&owner, &id, "revoke").await;
    eventually("it is revoked", async || {
        sweep().await;
        one.bearer(&secret).send(SEE, json!({"id": id})).await["data"].is_null()
    })
    .await;
    refused(&two.bearer(&secret), &id).await;
    // Those who are in keep theirs.
    one.bearer(&kept).query(SEE, json!({"id": id})).await;

    // And what the member creates while removed.
    for round in 0..4 {
        let email = format!("admin{round}@example.com");
        let admin = two.user(&email);
        let membership = owner.bring_in(&id, &admin, &email, &["admin"]).await;
        let creations = join_all((0..5).map(|_| admin.create_token(&id, &["organization:read"])));
        let (created, removed) = tokio::join!(creations, owner.member("removeMember", &membership));
        assert!(removed.accepted(), "{removed:?}");
        let secrets: Vec<String> = created.iter().filter(|it| it.accepted()).map(|it| it.text("/secret")).collect();
        for secret in secrets {
            eventually("none is left", async || {
                sweep().await;
                one.bearer(&secret).send(SEE, json!({"id": id})).await["data"].is_null()
            })
            .await;
        }
    }
    check_log(&database.pool().await).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_has_quotas_of_its_own() {
    let database = Database::new().await;
    let quotas = [
        ("TENANCY_RATE_LIMITS__ENABLED", "true"),
        ("TENANCY_RATE_LIMITS__PRINCIPAL_READ_PER_MINUTE", "1"),
        ("TENANCY_RATE_LIMITS__PRINCIPAL_READ_BURST", "3"),
    ];
    let server = database.serve_with(&quotas).await;
    let (owner, id) = acme(&server).await;
    let secrets = [0, 1].map(|_| owner.create_token(&id, &["organization:read"]));
    let [first, second] = secrets.map(|created| async { server.bearer(&created.await.text("/secret")) });
    let (first, second) = (first.await, second.await);
    for _ in 0..3 {
        first.query(SEE, json!({"id": id})).await;
    }
    assert_eq!(first.fault(SEE, json!({"id": id})).await, "RATE_LIMITED");
    second.query(SEE, json!({"id": id})).await;
    owner.query(SEE, json!({"id": id})).await;
    server.stop().await;
}
