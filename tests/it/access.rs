//! Callers: who is let in, and what they may do.

use serde_json::{Value, json};

use crate::support::{Answer, Client, Database, Server};

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
async fn only_operators_review_users_and_nobody_their_own() {
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
    // A read model proposes who may see whom.
    crate::support::eventually("ada sees bob", async || {
        ada.send(state, of_bob.clone()).await["data"]["node"].is_object()
    })
    .await;
    assert_eq!(ada.query(state, of_bob.clone()).await.at("/node/state"), &Value::Null);
    assert_eq!(bob.query(state, of_bob.clone()).await.at("/node/state"), "ACTIVE");
    assert_eq!(server.operator().query(state, of_bob).await.at("/node/state"), "ACTIVE");
    server.stop().await;
}

async fn define(client: &Client, organization: &str, name: &str, permissions: &[&str]) -> Answer {
    let input = json!({
        "organizationId": organization, "name": name, "description": "A role of its own.", "permissions": permissions,
    });
    client.run("defineRole", "DefineRoleInput", input, "role { name permissions builtIn }").await
}

async fn remove(client: &Client, organization: &str, name: &str, instead: Option<&str>) -> Answer {
    let input = json!({"organizationId": organization, "name": name, "replaceWith": instead});
    client.run("removeRole", "RemoveRoleInput", input, "role { name }").await
}

async fn may(client: &Client, organization: &str) -> Vec<String> {
    let query = "query($o: ID!) { permissions(organizationId: $o) }";
    let answer = client.query(query, json!({"o": organization})).await;
    answer.at("/permissions").as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_its_own_permits_what_it_says_on_every_replica_and_at_once() {
    let database = Database::new().await;
    let (first, second) = (database.serve().await, database.serve().await);
    let (ada, bob) = (first.user("ada@example.com"), second.user("bob@example.com"));
    let organization = first.verified("acme", &ada).await;
    let defined = define(&ada, &organization, "builder", &["project:create", "organization:read"]).await;
    assert_eq!(defined.actions(), ["role.defined"]);
    assert_eq!(defined.at("/role/permissions"), &json!(["organization:read", "project:create"]));
    ada.bring_in(&organization, &bob, "bob@example.com", &["builder"]).await;
    assert_eq!(may(&bob, &organization).await, ["organization:read", "project:create"]);
    assert!(bob.create_project(&organization, "first").await.accepted());
    for round in 0..3 {
        assert!(define(&ada, &organization, "builder", &["organization:read"]).await.accepted());
        let refused = bob.create_project(&organization, &format!("no-{round}")).await;
        assert_eq!(refused.fault(), Some("FORBIDDEN"));
        assert_eq!(may(&bob, &organization).await, ["organization:read"]);
        assert!(define(&ada, &organization, "builder", &["organization:read", "project:create"]).await.accepted());
        assert!(bob.create_project(&organization, &format!("yes-{round}")).await.accepted());
    }
    let roles = "query($o: ID!) { roles(organizationId: $o) { name description permissions builtIn } }";
    let roles = ada.query(roles, json!({"o": organization})).await;
    let names: Vec<&str> =
        roles.at("/roles").as_array().unwrap().iter().map(|role| role["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["owner", "admin", "billing", "auditor", "member", "guest", "builder"]);
    assert_eq!(roles.at("/roles/6/builtIn"), false);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_defines_or_grants_more_than_they_have() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob, eve) =
        (server.user("ada@example.com"), server.user("bob@example.com"), server.user("eve@example.com"));
    let organization = server.verified("acme", &ada).await;
    assert!(
        define(&ada, &organization, "lead", &["organization:read", "role:manage", "member:invite", "member:update"])
            .await
            .accepted()
    );
    assert!(define(&ada, &organization, "killer", &["organization:delete"]).await.accepted());
    ada.bring_in(&organization, &bob, "bob@example.com", &["lead"]).await;
    // Define, change, invite, and by a role that has more.
    assert_eq!(define(&bob, &organization, "reader", &["project:read"]).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    assert_eq!(define(&bob, &organization, "killer", &[]).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    assert_eq!(remove(&bob, &organization, "killer", None).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    assert_eq!(remove(&bob, &organization, "lead", Some("admin")).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    assert_eq!(bob.invite(&organization, "x@example.com", &["killer"]).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    assert_eq!(bob.invite(&organization, "x@example.com", &["guest"]).await.refusal(), Some("ROLE_NOT_GRANTABLE"));
    assert!(bob.invite(&organization, "x@example.com", &["lead"]).await.accepted());
    assert!(define(&bob, &organization, "reader", &["organization:read"]).await.accepted());
    // A stranger learns nothing; a member who may not manage roles is told so.
    assert_eq!(define(&eve, &organization, "reader", &[]).await.fault(), Some("NOT_FOUND"));
    ada.bring_in(&organization, &eve, "eve@example.com", &["member"]).await;
    assert_eq!(define(&eve, &organization, "reader", &[]).await.fault(), Some("FORBIDDEN"));
    assert_eq!(remove(&eve, &organization, "reader", None).await.fault(), Some("FORBIDDEN"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_in_use_is_removed_only_with_another_one_for_everybody_who_has_it() {
    let database = Database::new().await;
    let server = database.serve().await;
    let ada = server.user("ada@example.com");
    let organization = server.verified("acme", &ada).await;
    assert!(define(&ada, &organization, "reader", &["organization:read"]).await.accepted());
    let mut members = vec![];
    for name in ["bob", "eve", "joe"] {
        let (client, email) = (server.user(&format!("{name}@example.com")), format!("{name}@example.com"));
        members.push(ada.bring_in(&organization, &client, &email, &["reader"]).await);
    }
    assert!(ada.member("suspendMember", &members[1]).await.accepted());
    assert!(ada.member("removeMember", &members[2]).await.accepted());
    let invited = ada.invite(&organization, "zoe@example.com", &["reader", "guest"]).await;
    let refused = remove(&ada, &organization, "reader", None).await;
    assert_eq!(refused.refusal(), Some("INVALID_STATE"));
    assert!(refused.text("/errors/0/message").contains("2 members, 1 open invitations"), "{refused:?}");
    assert!(refused.text("/errors/0/message").contains(&members[0]), "{refused:?}");
    for instead in ["owner", "reader", "nothing"] {
        assert_eq!(remove(&ada, &organization, "reader", Some(instead)).await.refusal(), Some("INVALID_INPUT"));
    }
    let removed = remove(&ada, &organization, "reader", Some("guest")).await;
    let mut actions = removed.actions();
    actions.sort_unstable();
    let changed = "member.roles_changed";
    assert_eq!(actions, ["invitation.roles_changed", changed, changed, "role.removed"]);
    // A suspended member, and one who comes later, has the other role.
    let reinstated = ada.member("reinstateMember", &members[1]).await;
    assert_eq!(reinstated.at("/membership/roles"), &json!(["guest"]));
    let zoe = server.user("zoe@example.com");
    let accepted = zoe.accept(&invited.text("/token")).await;
    assert_eq!(accepted.at("/membership/roles"), &json!(["guest"]));
    // Nobody can be given what is no more.
    assert_eq!(ada.change_roles(&members[0], &["reader"]).await.refusal(), Some("INVALID_INPUT"));
    crate::support::check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_removed_while_it_is_given_is_held_by_nobody() {
    let database = Database::new().await;
    let (first, second) = (database.serve().await, database.serve().await);
    let ada = first.user("ada@example.com");
    let organization = first.verified("acme", &ada).await;
    let elsewhere = second.user("ada@example.com");
    let mut members = vec![];
    for number in 0..4 {
        let email = format!("member-{number}@example.com");
        members.push(ada.bring_in(&organization, &first.user(&email), &email, &["guest"]).await);
    }
    for round in 0..8 {
        let role = format!("role-{round}");
        assert!(define(&ada, &organization, &role, &["organization:read"]).await.accepted());
        let give = members.iter().enumerate().map(|(number, member)| {
            let client = if number % 2 == 0 { &ada } else { &elsewhere };
            let role = role.clone();
            async move { client.change_roles(member, &["guest", &role]).await }
        });
        let instead = if round % 2 == 0 { None } else { Some("guest") };
        let (given, removed) =
            tokio::join!(futures_util::future::join_all(give), remove(&elsewhere, &organization, &role, instead));
        let expected = [None, Some("INVALID_STATE"), Some("INVALID_INPUT")];
        assert!(
            given.iter().all(|answer| answer.fault().is_none() && expected.contains(&answer.refusal())),
            "{given:?}"
        );
        assert_eq!(removed.fault(), None);
        let gone = removed.refusal().is_none();
        for member in &members {
            let query = "query($i: ID!) { node(id: $i) { ... on Membership { roles } } }";
            let answer = ada.query(query, json!({"i": member})).await;
            let holds = answer.at("/node/roles").as_array().unwrap().iter().any(|held| *held == role);
            assert!(!(gone && holds), "{member} holds {role}, which is no more");
        }
        if !gone {
            assert!(remove(&ada, &organization, &role, Some("guest")).await.accepted());
        }
    }
    crate::support::check_log(&database.pool().await).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_may_do_is_told_to_operators_only() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (ada, bob) = (server.user("ada@example.com"), server.user("bob@example.com"));
    let organization = server.verified("acme", &ada).await;
    ada.bring_in(&organization, &bob, "bob@example.com", &["guest"]).await;
    let query = "query($o: ID!, $u: ID) { permissions(organizationId: $o, userId: $u) }";
    let of_bob = json!({"o": organization, "u": bob.user_id().await});
    assert_eq!(fault(&ada.send(query, of_bob.clone()).await), "FORBIDDEN");
    let expected = json!(["organization:read", "project:read"]);
    assert_eq!(bob.query(query, of_bob.clone()).await.at("/permissions"), &expected);
    assert_eq!(server.operator().query(query, of_bob).await.at("/permissions"), &expected);
    let eve = server.user("eve@example.com");
    assert_eq!(fault(&eve.send(query, json!({"o": organization})).await), "NOT_FOUND");
    let catalogue = "{ permissionCatalogue { name description } }";
    assert!(ada.query(catalogue, json!({})).await.at("/permissionCatalogue").as_array().unwrap().len() > 15);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_who_revoke_each_other_at_once_one_is_left() {
    let database = Database::new().await;
    let (first, second) = (database.serve().await, database.serve().await);
    let operator = |server: &Server, name: &str| Client {
        token: Some(server.token(&format!("{name}@example.com"), true)),
        ..server.nobody()
    };
    let third = first.operator();
    for round in 0..24 {
        // On two replicas, and in one, where both may be in one batch of one writer.
        let elsewhere = if round % 2 == 0 { &second } else { &first };
        let names = [format!("one-{round}"), format!("two-{round}")];
        let (one, two) = (operator(&first, &names[0]), operator(elsewhere, &names[1]));
        let ids = [one.user_id().await, two.user_id().await];
        let (by_one, by_two) =
            tokio::join!(review_user(&one, "revokeUser", &ids[1]), review_user(&two, "revokeUser", &ids[0]));
        assert_ne!(by_one.accepted(), by_two.accepted(), "{by_one:?} {by_two:?}");
        let (loser, lost) = if by_one.accepted() { (by_two, &ids[1]) } else { (by_one, &ids[0]) };
        assert_eq!(loser.fault(), Some("UNAUTHENTICATED"));
        assert!(review_user(&third, "reinstateUser", lost).await.accepted());
    }
    crate::support::check_log(&database.pool().await).await;
    first.stop().await;
    second.stop().await;
}

async fn home(client: &Client, name: Option<&str>) -> Answer {
    let input = json!({"name": name});
    client.run("ensureHomeOrganization", "EnsureHomeOrganizationInput", input, "organization { id name slug }").await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_first_calls_of_a_new_user_make_one_user_and_one_home() {
    let database = Database::new().await;
    let own = [("TENANCY_ORGANIZATIONS__HOME", "own")];
    let (first, second) = (database.serve_with(&own).await, database.serve_with(&own).await);
    for round in 0..4 {
        let email = format!("ada-{round}@example.com");
        let clients: Vec<Client> =
            (0..10).map(|call| if call % 2 == 0 { first.user(&email) } else { second.user(&email) }).collect();
        let calls = clients.iter().map(|client| home(client, Some("Ada's place")));
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.iter().all(Answer::accepted), "{answers:?}");
        let ids: std::collections::BTreeSet<String> =
            answers.iter().map(|answer| answer.text("/organization/id")).collect();
        assert_eq!(ids.len(), 1, "{answers:?}");
        let made = answers.iter().filter(|answer| !answer.actions().is_empty()).count();
        assert_eq!(made, 1, "one of them made it");
        assert_eq!(home(&clients[0], None).await.actions(), [""; 0]);
        assert!(answers[0].text("/organization/slug").starts_with("ada-s-place-"));
    }
    crate::support::check_log(&database.pool().await).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_an_organization_gets_no_other_and_who_lost_it_does() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_ORGANIZATIONS__HOME", "own")]).await;
    let ada = server.user("ada@example.com");
    let organization = server.organization("acme", &ada).await;
    assert_eq!(home(&ada, None).await.text("/organization/id"), organization);
    assert!(ada.organization_command("deleteOrganization", &organization).await.accepted());
    // An owner sees a deleted organization; it is still theirs.
    assert_eq!(home(&ada, None).await.text("/organization/id"), organization);
    let bob = server.user("bob@example.com");
    let own = home(&bob, None).await;
    assert_eq!(own.actions(), ["org.created", "member.joined"]);
    assert_eq!(own.text("/organization/name"), "Home", "nothing of a person stands in it");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_in_the_default_organization_is_not_given_again_to_who_was_removed() {
    let database = Database::new().await;
    let server = database
        .serve_with(&[
            ("TENANCY_ORGANIZATIONS__HOME", "default"),
            ("TENANCY_ORGANIZATIONS__HOME_ORGANIZATION", "commons"),
            ("TENANCY_ORGANIZATIONS__HOME_ROLE", "guest"),
        ])
        .await;
    let (ada, bob) = (server.user("ada@example.com"), server.user("bob@example.com"));
    assert_eq!(home(&bob, None).await.refusal(), Some("INVALID_STATE"));
    let commons = server.organization("commons", &ada).await;
    let calls = (0..6).map(|_| home(&bob, None));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.text("/organization/id") == commons), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.actions() == ["member.joined"]).count(), 1);
    assert_eq!(may(&bob, &commons).await, ["organization:read", "project:read"]);
    let (place, user) = (commons.parse().unwrap(), bob.user_id().await.parse().unwrap());
    let membership = aggregates::ids::MembershipId::of(&place, &user).to_string();
    assert!(ada.member("removeMember", &membership).await.accepted());
    assert_eq!(home(&bob, None).await.refusal(), Some("INVALID_STATE"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_names_an_organization_brings_its_user_there() {
    use tenancy::commands::first_organization::EnsureHomeOrganization;
    use tenancy::commands::{Caller, Conditions, NamedOrganization, Person, Principal};
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_ORGANIZATIONS__HOME", "own")]).await;
    let input = json!({"name": "Acme", "slug": "acme", "externalId": "crm-7"});
    let created =
        server.operator().run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await;
    let bob = server.user("bob@example.com");
    let user: aggregates::ids::UserId = bob.user_id().await.parse().unwrap();
    let caller = |external_id: &str| Caller {
        principal: Principal::User(Person {
            user: user.clone(),
            email: None,
            operator: false,
            organization: Some(NamedOrganization { external_id: external_id.into(), role: "guest".into() }),
        }),
        ip: None,
        user_agent: None,
        request_id: None,
        correlation_id: uuid::Uuid::new_v4(),
        meter: None,
    };
    let commands = &server.service().core().commands;
    let ensure = EnsureHomeOrganization { name: None };
    let receipt = commands.execute(&caller("crm-7"), &ensure, Conditions::default()).await.unwrap();
    assert_eq!(receipt.events.len(), 1, "{receipt:?}");
    let acme = created.text("/organization/id");
    assert_eq!(may(&bob, &acme).await, ["organization:read", "project:read"]);
    // A role of that organization's own does; one that it does not have is for the operators to mend.
    let eve = server.user("eve@example.com");
    let eve_id: aggregates::ids::UserId = eve.user_id().await.parse().unwrap();
    let named = |role: &str| {
        let mut caller = caller("crm-7");
        caller.principal = Principal::User(Person {
            user: eve_id.clone(),
            email: None,
            operator: false,
            organization: Some(NamedOrganization { external_id: "crm-7".into(), role: role.into() }),
        });
        caller
    };
    let refused = commands.execute(&named("reader"), &ensure, Conditions::default()).await.unwrap();
    let why = tenancy::graphql::describe(refused.rejections.into_iter().next().unwrap());
    assert!(why.contains("'reader'") && why.contains("tell the operators"), "{why}");
    assert!(define(&server.operator(), &acme, "reader", &["organization:read"]).await.accepted());
    commands.execute(&named("reader"), &ensure, Conditions::default()).await.unwrap();
    assert_eq!(may(&eve, &acme).await, ["organization:read"]);
    // One that is not there is no reason to leave the caller without.
    let receipt = commands.execute(&caller("crm-8"), &ensure, Conditions::default()).await.unwrap();
    assert_eq!(receipt.entities[0].stream().id(), acme);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_home_for_users_nothing_is_made() {
    let database = Database::new().await;
    let server = database.serve().await;
    let answer = home(&server.user("ada@example.com"), None).await;
    assert!(answer.accepted() && answer.at("/organization").is_null(), "{answer:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_creates_organizations_and_how_many_is_the_deployments_to_say() {
    let create = async |client: &Client, slug: &str| {
        let input = json!({"name": slug, "slug": slug});
        client.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await
    };
    let database = Database::new().await;
    let by_operators = database.serve_with(&[("TENANCY_ORGANIZATIONS__CREATED_BY_OPERATORS", "true")]).await;
    assert_eq!(create(&by_operators.user("ada@example.com"), "no").await.fault(), Some("FORBIDDEN"));
    assert!(create(&by_operators.operator(), "yes").await.accepted());
    by_operators.stop().await;

    let two = [("TENANCY_ORGANIZATIONS__CREATED_PER_USER_MAX", "2")];
    let (first, second) = (database.serve_with(&two).await, database.serve_with(&two).await);
    let (ada, elsewhere) = (first.user("ada@example.com"), second.user("ada@example.com"));
    let calls = (0..10).map(|call| {
        let client = if call % 2 == 0 { &ada } else { &elsewhere };
        async move { create(client, &format!("place-{call}")).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.accepted()).count(), 2, "{answers:?}");
    let refused = answers.iter().filter(|answer| answer.refusal() == Some("LIMIT_REACHED"));
    assert_eq!(refused.count(), 8, "{answers:?}");
    for number in 0..3 {
        assert!(create(&first.operator(), &format!("operators-{number}")).await.accepted());
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_learns_nothing_by_repeating_a_command() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, bob) = (server.user("owner@example.com"), server.user("bob@example.com"));
    let id = server.verified("acme", &owner).await;
    let joe = server.user("joe@example.com");
    let joes = owner.bring_in(&id, &joe, "joe@example.com", &["guest"]).await;
    let bobs = owner.bring_in(&id, &bob, "bob@example.com", &["admin"]).await;
    let input = json!({"membershipId": joes, "roles": ["member"], "idempotencyKey": "once"});
    let change = async || {
        let select = "membership { id roles user { email } }";
        bob.run("changeMemberRoles", "ChangeMemberRolesInput", input.clone(), select).await
    };
    assert_eq!(change().await.at("/membership/user/email"), "joe@example.com");
    let again = change().await;
    assert_eq!((again.at("/replayed"), again.actions().len()), (&json!(true), 1));
    assert_eq!(again.at("/membership/user/email"), "joe@example.com");
    // Leaving is one's own, also when it is repeated.
    let leave = async |client: &Client| {
        let input = json!({"organizationId": id, "idempotencyKey": "leave"});
        client.run("leaveOrganization", "OrganizationCommandInput", input, "__typename").await
    };
    for replayed in [false, true] {
        let left = leave(&joe).await;
        assert_eq!((left.at("/replayed"), left.actions()), (&json!(replayed), vec!["member.left"]));
    }
    assert!(owner.member("removeMember", &bobs).await.accepted());
    let again = change().await;
    assert_eq!((again.at("/replayed"), again.at("/membership")), (&json!(true), &Value::Null), "{again:?}");
    assert!(again.accepted() && again.actions().is_empty(), "{again:?}");
    server.stop().await;
}
