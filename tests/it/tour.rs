//! What the README's tour does, and what a newcomer tries next.

use serde_json::json;

use crate::support::{Database, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn from_the_first_organization_to_the_limit_and_its_audit() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, operator, guest) =
        (server.user("owner@example.com"), server.operator(), server.user("Ada@Example.com"));

    let id = server.organization("acme", &owner).await;
    let refused = owner.create_project(&id, "too-early").await;
    assert_eq!(refused.refusal(), Some("ENTITY_STATUS"));
    assert_eq!(refused.at("/errors/0/capability"), "CREATE_RESOURCES");
    assert!(owner.organization_command("submitOrganizationForVerification", &id).await.accepted());
    let verified = operator.review("verifyOrganization", &id).await;
    assert_eq!(verified.at("/organization/verification"), "VERIFIED");
    assert_eq!(verified.at("/events/0/actor/__typename"), "OperatorActor");

    let invited = owner.invite(&id, "ada@example.com", &["member"]).await;
    let token = invited.text("/token");
    let preview = "query($t: String!) { invitationPreview(token: $t) { organizationName email state } }";
    let preview = server.nobody().query(preview, json!({"t": token})).await;
    assert_eq!(preview.at("/invitationPreview/organizationName"), "acme");
    assert_eq!(server.user("eve@example.com").accept(&token).await.refusal(), Some("INVITATION_WRONG_RECIPIENT"));
    let accepted = guest.accept(&token).await;
    assert_eq!(accepted.at("/membership/state"), "ACTIVE");
    assert_eq!(accepted.actions(), ["invitation.accepted", "member.joined"]);
    assert_eq!(guest.accept(&token).await.at("/membership/id"), accepted.at("/membership/id"));

    operator.set_limit(&id, "projects", 2).await;
    for slug in ["one", "two"] {
        assert!(guest.create_project(&id, slug).await.accepted());
    }
    let full = guest.create_project(&id, "three").await;
    assert_eq!(full.refusal(), Some("LIMIT_REACHED"));
    assert_eq!(
        (full.at("/errors/0/maximum"), full.at("/errors/0/used"), full.at("/errors/0/requested")),
        (&json!(2), &json!(2), &json!(1))
    );
    assert_eq!(full.actions(), ["limit.reached"]);
    assert_eq!(guest.create_project(&id, "four").await.actions(), Vec::<&str>::new(), "it is on record already");

    let audit = owner.audit(&id).await;
    assert_eq!(
        audit,
        [
            "org.created",
            "member.joined",
            "org.submitted",
            "org.verified",
            "member.invited",
            "invitation.accepted",
            "member.joined",
            "org.limit_set",
            "project.created",
            "project.created",
            "limit.reached"
        ]
    );
    let whole = serde_json::to_string(&owner.query(
        "query($id: ID!) { organization(by: {id: $id}) { auditTrail(first: 100) { nodes { __typename data ip userAgent requestId
         ... on MemberInvitedEvent { email roles } ... on Node { id } } } } }",
        json!({"id": id}),
    ).await.0).unwrap();
    let secret = token.splitn(3, '_').nth(2).unwrap();
    assert!(!whole.contains(secret) && !whole.contains("igest") && !whole.contains("Claim"), "{whole}");
    assert!(whole.contains("ada@example.com"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_at_a_position_includes_the_write() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    for number in 0..30 {
        let created = owner.create_project(&id, &format!("p{number}")).await;
        let query = "query($id: ID!, $at: [Position!]) { organization(by: {id: $id}, atLeast: $at) {
            projects(last: 1) { nodes { slug } pageInfo { hasPreviousPage } } } }";
        let read = owner.query(query, json!({"id": id, "at": [created.text("/position")]})).await;
        assert_eq!(read.at("/organization/projects/nodes/0/slug"), &json!(format!("p{number}")));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_forward_and_backward_in_order_of_creation() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let mut position = String::new();
    for number in 0..7 {
        position = owner.create_project(&id, &format!("p{number}")).await.text("/position");
    }
    let query = "query($id: ID!, $at: [Position!], $first: Int, $after: String, $last: Int, $before: String) {
        organization(by: {id: $id}, atLeast: $at) { projects(first: $first, after: $after, last: $last, before: $before) {
            nodes { slug } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }";
    let slugs = |answer: &crate::support::Answer| -> Vec<String> {
        let nodes = answer.at("/organization/projects/nodes").as_array().unwrap().clone();
        nodes.iter().map(|node| node["slug"].as_str().unwrap().to_owned()).collect()
    };
    let mut seen = vec![];
    let mut after = serde_json::Value::Null;
    loop {
        let page = owner.query(query, json!({"id": id, "at": [position], "first": 3, "after": after})).await;
        seen.extend(slugs(&page));
        after = page.at("/organization/projects/pageInfo/endCursor").clone();
        if page.at("/organization/projects/pageInfo/hasNextPage") == false {
            break;
        }
    }
    assert_eq!(seen, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    let last = owner.query(query, json!({"id": id, "last": 2})).await;
    assert_eq!(slugs(&last), ["p5", "p6"]);
    let before = last.at("/organization/projects/pageInfo/startCursor");
    assert_eq!(slugs(&owner.query(query, json!({"id": id, "last": 2, "before": before})).await), ["p3", "p4"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_command_with_the_same_key_gives_the_first_outcome_without_secrets() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let invite = async |email: &str| {
        let input = json!({"organizationId": id, "email": email, "roles": ["member"], "idempotencyKey": "k1"});
        owner.run("inviteMember", "InviteMemberInput", input, "invitation { id version } token").await
    };
    let first = invite("ada@example.com").await;
    assert_eq!(first.at("/replayed"), false);
    let again = invite("ada@example.com").await;
    assert_eq!(again.at("/replayed"), true);
    assert_eq!(again.at("/token"), &serde_json::Value::Null);
    assert_eq!(again.at("/invitation"), first.at("/invitation"));
    assert_eq!(again.at("/events/0/id"), first.at("/events/0/id"));
    assert_eq!(again.at("/position"), first.at("/position"));
    assert_eq!(invite("bob@example.com").await.fault(), Some("IDEMPOTENCY_KEY_REUSED"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expected_version_is_never_retried_past() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.organization("acme", &owner).await;
    let rename = async |name: &str, version: u64| {
        let input = json!({"organizationId": id, "name": name, "expectedVersion": version});
        owner.run("updateOrganization", "UpdateOrganizationInput", input, "organization { name version }").await
    };
    assert_eq!(rename("Acme 2", 1).await.at("/organization/version"), 2);
    let refused = rename("Acme 3", 1).await;
    assert_eq!(refused.refusal(), Some("VERSION_CONFLICT"));
    assert_eq!((refused.at("/errors/0/expected"), refused.at("/errors/0/actual")), (&json!(1), &json!(2)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_out_at_once_on_every_replica() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    let id = one.verified("acme", &owner).await;
    let read = "query($id: ID!) { organization(by: {id: $id}) { slug } }";
    let elsewhere = two.user("ada@example.com");
    for _ in 0..5 {
        let membership = owner.bring_in(&id, &one.user("ada@example.com"), "ada@example.com", &["member"]).await;
        elsewhere.query(read, json!({"id": id})).await;
        assert!(elsewhere.create_project(&id, &format!("p{}", rand::random::<u32>())).await.accepted());
        assert!(owner.member("removeMember", &membership).await.accepted());
        assert_eq!(elsewhere.fault(read, json!({"id": id})).await, "NOT_FOUND");
        assert_eq!(elsewhere.create_project(&id, "p").await.fault(), Some("NOT_FOUND"));
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_things_answer_as_if_they_did_not_exist() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, stranger) = (server.user("owner@example.com"), server.user("stranger@example.com"));
    let id = server.verified("acme", &owner).await;
    let invitation = owner.invite(&id, "ada@example.com", &["member"]).await;
    let created = owner.create_project(&id, "rocket").await;
    let event = created.text("/events/0/id");
    stranger.user_id().await;
    let read = "query($id: ID!) { node(id: $id) { id } }";
    let ids =
        [id.clone(), invitation.text("/invitation/id"), created.text("/project/id"), event, owner.user_id().await];
    for existing in ids {
        let kind = existing.split_once('_').unwrap().0;
        let absent = format!("{kind}_{}", &crate::support::nobody_id()[4..]);
        let answers =
            [stranger.send(read, json!({"id": existing})).await, stranger.send(read, json!({"id": absent})).await];
        assert_eq!(answers[0], answers[1], "{existing}");
        assert_eq!(answers[0]["errors"][0]["extensions"]["code"], "NOT_FOUND");
    }
    let by_slug = "query { organization(by: {slug: \"acme\"}) { id } }";
    assert_eq!(stranger.fault(by_slug, json!({})).await, "NOT_FOUND");
    assert_eq!(stranger.create_project(&id, "x").await.fault(), Some("NOT_FOUND"));
    // That a slug is taken has to be said, but not by whom.
    let taken = stranger
        .run("createOrganization", "CreateOrganizationInput", json!({"name": "x", "slug": "ACME"}), "__typename")
        .await;
    assert_eq!((taken.refusal(), taken.at("/errors/0/existingId")), (Some("ALREADY_EXISTS"), &serde_json::Value::Null));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_comes_back_as_it_was_and_keeps_its_slug_meanwhile() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, operator) = (server.user("owner@example.com"), server.operator());
    let id = server.verified("acme", &owner).await;
    let project = owner.create_project(&id, "rocket").await.text("/project/id");
    assert!(owner.organization_command("deleteOrganization", &id).await.accepted());
    let read = "query($id: ID!) { project(id: $id) { slug } }";
    assert_eq!(owner.fault(read, json!({"id": project})).await, "NOT_FOUND");
    assert_eq!(owner.create_project(&id, "x").await.refusal(), Some("ENTITY_STATUS"));
    let other = server.user("other@example.com");
    let taken = other
        .run("createOrganization", "CreateOrganizationInput", json!({"name": "x", "slug": "acme"}), "__typename")
        .await;
    assert_eq!(taken.refusal(), Some("ALREADY_EXISTS"));
    assert!(owner.organization_command("restoreOrganization", &id).await.accepted());
    assert_eq!(owner.query(read, json!({"id": project})).await.at("/project/slug"), "rocket");

    let input = json!({"organizationId": id, "reason": "fraud"});
    let deleted = operator.run("deleteOrganization", "OrganizationCommandInput", input.clone(), "__typename").await;
    assert!(deleted.accepted(), "{deleted:?}");
    assert_eq!(owner.organization_command("restoreOrganization", &id).await.refusal(), Some("ENTITY_STATUS"));
    assert!(operator.run("restoreOrganization", "OrganizationCommandInput", input, "__typename").await.accepted());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_alone_expires_invitations_and_purges_what_was_deleted() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_ORGANIZATIONS__RESTORE_DAYS", "0")]).await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    owner.invite(&id, "ada@example.com", &["member"]).await;
    // The claims' times are what the sweeper goes by; the events' own are checked again when it decides.
    assert_eq!(owner.used(&id, "members").await, 2);
    owner.organization_command("deleteOrganization", &id).await;
    let other = server.user("other@example.com");
    let commands = server.service().core().commands.clone();
    eventually("the slug is free again", || async {
        commands.sweep().await.unwrap();
        let input = json!({"name": "x", "slug": "acme"});
        other.run("createOrganization", "CreateOrganizationInput", input, "__typename").await.accepted()
    })
    .await;
    let read = "query($id: ID!) { organization(by: {id: $id}) { slug } }";
    assert_eq!(owner.fault(read, json!({"id": id})).await, "NOT_FOUND");
    drop(commands);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_says_how_it_is() {
    let database = Database::new().await;
    let server = database.serve().await;
    let get = async |path: &str| {
        let response = reqwest::get(server.url(path)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/health/live").await.0, 200);
    assert_eq!(get("/health/ready").await, (200, r#"{"status":"ready","reasons":[]}"#.to_owned()));
    server.organization("acme", &server.user("owner@example.com")).await;
    let (status, metrics) = get("/metrics").await;
    assert_eq!(status, 200);
    for name in ["tenancy_events_appended_total", "tenancy_projection_lag_events", "tenancy_commands_total"] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(get("/graphiql").await.1.contains("GraphiQL"));
    assert_eq!(get("/nothing").await.0, 404);
    server.stop().await;
}

/// A command that has nothing to record is compared with the log all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_effect_shows_nothing_to_who_was_removed_elsewhere() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    let id = one.verified("acme", &owner).await;
    let membership = owner.bring_in(&id, &one.user("ada@example.com"), "ada@example.com", &["admin"]).await;
    let elsewhere = two.user("ada@example.com");
    let rename = async |client: &crate::support::Client, name: &str| {
        let input = json!({"organizationId": id, "name": name});
        client.run("updateOrganization", "UpdateOrganizationInput", input, "organization { name }").await
    };
    assert!(rename(&elsewhere, "acme").await.accepted());
    assert!(rename(&owner, "Other").await.accepted());
    assert_eq!(rename(&elsewhere, "acme").await.actions(), ["org.renamed"], "it was not called so any more");
    assert!(owner.member("removeMember", &membership).await.accepted());
    assert_eq!(rename(&elsewhere, "acme").await.fault(), Some("NOT_FOUND"));
    one.stop().await;
    two.stop().await;
}

/// Many changes of one thing at once each get their turn.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_of_one_organization_all_go_through() {
    let database = Database::new().await;
    let (one, two) = (database.serve().await, database.serve().await);
    let owner = one.user("owner@example.com");
    let elsewhere = two.user("owner@example.com");
    let id = one.verified("acme", &owner).await;
    let renames = (0..60).map(|number| {
        let client = if number % 2 == 0 { owner.clone() } else { elsewhere.clone() };
        let input = json!({"organizationId": id, "name": format!("name {number}")});
        async move { client.run("updateOrganization", "UpdateOrganizationInput", input, "organization { name }").await }
    });
    let answers = futures_util::future::join_all(renames).await;
    let refused: Vec<_> = answers.iter().filter(|answer| !answer.accepted()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    one.stop().await;
    two.stop().await;
}

/// A kept outcome is answered again to whoever gave the command, but nothing newer with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_shows_a_removed_member_nothing_of_now() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    let ada = server.user("ada@example.com");
    let membership = owner.bring_in(&id, &ada, "ada@example.com", &["admin"]).await;
    let rename = async || {
        let input = json!({"organizationId": id, "name": "acme", "idempotencyKey": "k"});
        ada.run("updateOrganization", "UpdateOrganizationInput", input, "organization { name limits { used } }").await
    };
    let first = rename().await;
    assert!(first.accepted() && first.at("/position").is_string(), "{first:?}");
    assert!(owner.member("removeMember", &membership).await.accepted());
    let again = rename().await;
    assert!(again.accepted() && again.at("/organization").is_null(), "{again:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_the_holder_of_a_slug_is_told_which_organization_it_is() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("owner@example.com");
    let id = server.organization("acme", &owner).await;
    let create = async |client: &crate::support::Client| {
        let input = json!({"name": "x", "slug": "acme"});
        client.run("createOrganization", "CreateOrganizationInput", input, "__typename").await
    };
    assert_eq!(create(&owner).await.at("/errors/0/existingId"), &json!(id));
    assert_eq!(create(&server.user("other@example.com")).await.at("/errors/0/existingId"), &serde_json::Value::Null);
    server.stop().await;
}
