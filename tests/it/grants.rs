//! What somebody may still give is asked when it is taken; a suspension is lifted only by somebody who may; nobody takes
//! from somebody who may do more.

use serde_json::{Value, json};

use crate::support::{Answer, Client, Database, Server, check_log, eventually};

const SEE: &str = "query($id: ID!) { organization(by: {id: $id}) { id } }";

async fn acme(server: &Server) -> (Client, String) {
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    (owner, id)
}

async fn leave(client: &Client, id: &str) -> Answer {
    client.organization_command("leaveOrganization", id).await
}

async fn define(client: &Client, id: &str, name: &str, permissions: &[&str]) -> Answer {
    let input = json!({"organizationId": id, "name": name, "description": "a test", "permissions": permissions});
    client.run("defineRole", "DefineRoleInput", input, "role { name }").await
}

async fn revoke_user(server: &Server, client: &Client) {
    let input = json!({"userId": client.user_id().await, "reason": "a test"});
    let revoked = server.operator().run("revokeUser", "UserReviewInput", input, "user { id }").await;
    assert!(revoked.accepted(), "{revoked:?}");
}

async fn add(client: &Client, id: &str, user: &str, roles: &[&str]) -> Answer {
    let input = json!({"organizationId": id, "userId": user, "roles": roles});
    client.run("addMember", "AddMemberInput", input, "membership { id state }").await
}

async fn invitation_state(client: &Client, id: &str) -> Value {
    let query = "query($i: ID!) { node(id: $i) { ... on Invitation { state } } }";
    client.query(query, json!({"i": id})).await.at("/node/state").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_outlives_the_membership() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let (bob, ann) = (server.user("bob@example.com"), server.user("ann@example.com"));
    define(
        &owner,
        &id,
        "inviter",
        &["organization:read", "member:read", "member:invite", "member:add", "invitation:read"],
    )
    .await;
    owner.bring_in(&id, &ann, "ann@example.com", &["inviter"]).await;
    let bob_in = owner.bring_in(&id, &bob, "bob@example.com", &["admin"]).await;
    let secret = bob.create_token(&id, &["organization:read"]).await.text("/secret");
    let by_token = server.bearer(&secret);
    by_token.query(SEE, json!({"id": id})).await;

    assert!(owner.member("suspendMember", &bob_in).await.accepted());
    assert_eq!(by_token.fault(SEE, json!({"id": id})).await, "UNAUTHENTICATED");
    // Nobody is kept in against their will; the suspension stays.
    assert_eq!(leave(&bob, &id).await.actions(), ["member.left"]);
    assert_eq!(by_token.fault(SEE, json!({"id": id})).await, "UNAUTHENTICATED");
    // An invitation by somebody who may not lift suspensions is no way back, nor is being added.
    let invited = ann.invite(&id, "bob@example.com", &["inviter"]).await;
    assert!(invited.accepted(), "{invited:?}");
    assert_eq!(bob.accept(&invited.text("/token")).await.refusal(), Some("INVALID_STATE"));
    let user = bob.user_id().await;
    assert_eq!(add(&ann, &id, &user, &["inviter"]).await.refusal(), Some("INVALID_STATE"));
    let input = json!({"invitationId": invited.text("/invitation/id")});
    ann.run("revokeInvitation", "InvitationCommandInput", input, "invitation { state }").await;
    // By somebody who may, it is; and what rested is awake.
    let invited = owner.invite(&id, "bob@example.com", &["member"]).await;
    assert_eq!(bob.accept(&invited.text("/token")).await.at("/membership/state"), "ACTIVE");
    by_token.query(SEE, json!({"id": id})).await;

    // The same where the suspended member is removed by others.
    assert!(owner.member("suspendMember", &bob_in).await.accepted());
    assert!(owner.member("removeMember", &bob_in).await.accepted());
    assert_eq!(by_token.fault(SEE, json!({"id": id})).await, "UNAUTHENTICATED");
    assert_eq!(add(&ann, &id, &user, &["inviter"]).await.refusal(), Some("INVALID_STATE"));
    assert!(add(&owner, &id, &user, &["member"]).await.accepted());
    by_token.query(SEE, json!({"id": id})).await;
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_invitation_is_no_way_back() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    // Each way out, and down.
    for (name, ends, seats) in [
        ("sue", "suspendMember", 2),
        ("rem", "removeMember", 2),
        ("lea", "leaveOrganization", 2),
        ("dem", "changeRoles", 1),
    ] {
        let email = format!("{name}@example.com");
        let member = server.user(&email);
        let membership = owner.bring_in(&id, &member, &email, &["member"]).await;
        let invited = owner.invite(&id, &email, &["admin"]).await;
        let (invitation, token) = (invited.text("/invitation/id"), invited.text("/token"));
        let used = owner.used(&id, "members").await;
        let ended = match ends {
            "leaveOrganization" => leave(&member, &id).await,
            "changeRoles" => owner.change_roles(&membership, &["guest"]).await,
            mutation => owner.member(mutation, &membership).await,
        };
        assert!(ended.actions().contains(&"invitation.revoked"), "{ended:?}");
        assert_eq!(invitation_state(&owner, &invitation).await, "REVOKED");
        assert_eq!(owner.used(&id, "members").await, used - seats, "the invitation's seat, and the member's");
        assert_eq!(member.accept(&token).await.refusal(), Some("INVITATION_NOT_PENDING"));
    }
    // An address that the user had only later is not found when the membership ends; its invitation is void all the same.
    let pool = database.pool().await;
    let eve = server.user("eve@example.com");
    let membership = owner.bring_in(&id, &eve, "eve@example.com", &["member"]).await;
    let invited = owner.invite(&id, "eve@elsewhere.example", &["admin"]).await;
    assert!(owner.member("removeMember", &membership).await.accepted());
    assert_eq!(invitation_state(&owner, &invited.text("/invitation/id")).await, "PENDING");
    // Nor when it is sent again, nor while the user is a member again by other means.
    let input = json!({"invitationId": invited.text("/invitation/id")});
    let again = owner.run("resendInvitation", "InvitationCommandInput", input.clone(), "token").await;
    assert!(add(&owner, &id, &eve.user_id().await, &["guest"]).await.accepted());
    let renamed = server.bearer(&database.renamed(eve.token.as_deref().unwrap(), "eve@elsewhere.example"));
    let refused = renamed.accept(&again.text("/token")).await;
    assert_eq!(refused.refusal(), Some("INVALID_STATE"), "{refused:?}");
    assert!(refused.text("/errors/0/message").contains("older"), "{refused:?}");
    // Anew, it is taken.
    owner.run("revokeInvitation", "InvitationCommandInput", input, "__typename").await;
    let anew = owner.invite(&id, "eve@elsewhere.example", &["admin"]).await;
    assert_eq!(renamed.accept(&anew.text("/token")).await.at("/membership/roles"), &json!(["admin", "guest"]));
    check_log(&pool).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_is_added_has_no_invitation_left() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let bob = server.user("bob@example.com");
    let other = server.verified("other", &owner).await;
    owner.bring_in(&other, &bob, "bob@example.com", &["member"]).await;
    let invited = owner.invite(&id, "bob@example.com", &["admin"]).await;
    server.operator().set_limit(&id, "members", 2).await;
    // The invitation's seat goes over, also at the maximum.
    let added = add(&owner, &id, &bob.user_id().await, &["member"]).await;
    assert!(added.accepted(), "{added:?}");
    assert_eq!(owner.used(&id, "members").await, 2);
    assert_eq!(bob.accept(&invited.text("/token")).await.refusal(), Some("INVITATION_NOT_PENDING"));
    check_log(&database.pool().await).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_of_revoked_suspended_and_demoted_people_are_void() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let (guest, heir) = (server.user("guest@example.com"), server.user("heir@example.com"));
    let heir_in = owner.bring_in(&id, &heir, "heir@example.com", &["member"]).await;
    let void = async |token: &str| {
        let refused = guest.accept(token).await;
        assert_eq!(refused.refusal(), Some("INVALID_STATE"), "{refused:?}");
        assert!(refused.text("/errors/0/message").contains("may not give"), "{refused:?}");
    };
    let invite = async |by: &Client, roles: &[&str]| {
        let invited = by.invite(&id, "guest@example.com", roles).await;
        (invited.text("/invitation/id"), invited.text("/token"))
    };
    let take_back = async |invitation: &str| {
        let input = json!({"invitationId": invitation});
        let back = owner.run("revokeInvitation", "InvitationCommandInput", input, "__typename").await;
        assert!(back.accepted(), "{back:?}");
    };

    // An owner who is revoked: the offer of ownership, and an invitation to be an owner.
    let second = server.user("second@example.com");
    owner.bring_in(&id, &second, "second@example.com", &["owner"]).await;
    let (invitation, token) = invite(&second, &["owner"]).await;
    assert!(second.member("offerOwnership", &heir_in).await.accepted());
    revoke_user(&server, &second).await;
    void(&token).await;
    let accepted = heir.organization_command("acceptOwnership", &id).await;
    assert_eq!(accepted.refusal(), Some("INVALID_STATE"), "{accepted:?}");
    take_back(&invitation).await;

    // An admin who is suspended, and one whose roles were lowered: what they may give still, is given still.
    let admin = server.user("admin@example.com");
    let admin_in = owner.bring_in(&id, &admin, "admin@example.com", &["admin"]).await;
    let (invitation, token) = invite(&admin, &["admin"]).await;
    assert!(owner.member("suspendMember", &admin_in).await.accepted());
    void(&token).await;
    assert!(owner.member("reinstateMember", &admin_in).await.accepted());
    define(&owner, &id, "host", &["organization:read", "project:read", "member:invite", "member:read"]).await;
    assert!(owner.change_roles(&admin_in, &["host"]).await.accepted());
    void(&token).await;
    assert!(owner.change_roles(&admin_in, &["guest"]).await.accepted());
    void(&token).await;
    // Nor is it sent again, by somebody who could give it.
    let open = invitation.clone();
    let input = json!({"invitationId": open});
    let again = owner.run("resendInvitation", "InvitationCommandInput", input, "token").await;
    assert_eq!(again.refusal(), Some("INVALID_STATE"), "{again:?}");
    assert!(owner.change_roles(&admin_in, &["admin"]).await.accepted());

    // An API token that was revoked meanwhile, and one whose user is suspended.
    take_back_all(&owner, &id).await;
    let permissions = ["organization:read", "member:invite", "project:read"];
    let created = admin.create_token(&id, &permissions).await;
    let (_, token) = invite(&server.bearer(&created.text("/secret")), &["guest"]).await;
    assert!(owner.member("suspendMember", &admin_in).await.accepted());
    void(&token).await;
    assert!(owner.member("reinstateMember", &admin_in).await.accepted());
    assert!(owner.revoke_token(&created.text("/token/id")).await.accepted());
    void(&token).await;
    take_back_all(&owner, &id).await;

    // An operator who was revoked.
    let operator = server.bearer(&server.token("chief@example.com", true));
    let input = json!({"organizationId": id, "email": "guest@example.com", "roles": ["admin"], "reason": "a test"});
    let invited = operator.run("inviteMember", "InviteMemberInput", input, "invitation { id } token").await;
    revoke_user(&server, &operator).await;
    void(&invited.text("/token")).await;
    take_back_all(&owner, &id).await;

    // What nothing has happened to is taken.
    let (_, token) = invite(&admin, &["admin"]).await;
    assert!(guest.accept(&token).await.accepted());
    check_log(&database.pool().await).await;
    server.stop().await;
}

async fn members_in(owner: &Client, id: &str) -> i64 {
    let query =
        "query($id: ID!) { organization(by: {id: $id}) { members(state: ACTIVE, first: 100) { nodes { id } } } }";
    let answer = owner.query(query, json!({"id": id})).await;
    i64::try_from(answer.at("/organization/members/nodes").as_array().unwrap().len()).unwrap()
}

async fn take_back_all(owner: &Client, id: &str) {
    let query = "query($id: ID!) { organization(by: {id: $id}) { invitations(state: PENDING) { nodes { id } } } }";
    // The list is a read model's.
    eventually("no invitation is open", || async {
        let answer = owner.query(query, json!({"id": id})).await;
        let open = answer.at("/organization/invitations/nodes").as_array().unwrap().clone();
        for node in &open {
            let input = json!({"invitationId": node["id"]});
            owner.run("revokeInvitation", "InvitationCommandInput", input, "__typename").await;
        }
        open.is_empty() && owner.used(id, "members").await == members_in(owner, id).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_member_gets_nothing_back_by_a_token() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let bob = server.user("bob@example.com");
    let bob_in = owner.bring_in(&id, &bob, "bob@example.com", &["admin"]).await;
    let all = server.bearer(&bob.create_token(&id, &admins_permissions(&bob, &id).await).await.text("/secret"));
    assert!(define(&owner, &id, "lowly", &["organization:read"]).await.accepted());
    assert!(define(&owner, &id, "idle", &["organization:read"]).await.accepted());
    assert!(owner.change_roles(&bob_in, &["lowly"]).await.accepted());
    assert_eq!(all.change_roles(&bob_in, &["admin"]).await.fault(), Some("FORBIDDEN"));
    assert_eq!(define(&all, &id, "lowly", &["organization:read", "audit:read"]).await.fault(), Some("FORBIDDEN"));
    let input = json!({"organizationId": id, "name": "lowly", "replaceWith": "admin"});
    let removed = all.run("removeRole", "RemoveRoleInput", input, "role { name }").await;
    assert_eq!(removed.fault(), Some("FORBIDDEN"), "{removed:?}");
    // Nor while the user is out, and promised the role again.
    assert!(owner.member("removeMember", &bob_in).await.accepted());
    assert!(owner.invite(&id, "bob@example.com", &["idle"]).await.accepted());
    for role in ["lowly", "idle"] {
        let changed = define(&all, &id, role, &["organization:read", "audit:read"]).await;
        assert_eq!(changed.fault(), Some("FORBIDDEN"), "{role}");
    }
    assert!(define(&owner, &id, "other", &["organization:read"]).await.accepted());
    // Of other roles, it changes what it may.
    assert!(define(&all, &id, "other", &["organization:read", "audit:read"]).await.accepted());
    server.stop().await;
}

async fn admins_permissions(client: &Client, id: &str) -> Vec<&'static str> {
    let answer = client.query("query($id: ID!) { permissions(organizationId: $id) }", json!({"id": id})).await;
    let held: Vec<String> =
        answer.at("/permissions").as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let known = aggregates::roles::Permission::ALL.iter().map(|permission| permission.as_str());
    known.filter(|name| held.iter().any(|held| held == name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_from_somebody_who_may_do_more() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let (warden, admin, member) =
        (server.user("warden@example.com"), server.user("admin@example.com"), server.user("member@example.com"));
    let own = [
        "organization:read",
        "member:read",
        "member:suspend",
        "member:remove",
        "member:update",
        "project:read",
        "project:create",
        "project:update",
    ];
    assert!(define(&owner, &id, "warden", &own).await.accepted());
    owner.bring_in(&id, &warden, "warden@example.com", &["warden"]).await;
    let admin_in = owner.bring_in(&id, &admin, "admin@example.com", &["admin"]).await;
    let member_in = owner.bring_in(&id, &member, "member@example.com", &["member"]).await;
    for mutation in ["suspendMember", "removeMember"] {
        assert_eq!(warden.member(mutation, &admin_in).await.fault(), Some("FORBIDDEN"), "{mutation}");
    }
    assert_eq!(warden.change_roles(&admin_in, &["guest"]).await.fault(), Some("FORBIDDEN"));
    // Also while that member is suspended, and by a token.
    assert!(owner.member("suspendMember", &admin_in).await.accepted());
    let secret = owner.create_token(&id, &["organization:read", "member:read", "member:remove"]).await.text("/secret");
    for client in [&warden, &server.bearer(&secret)] {
        assert_eq!(client.member("removeMember", &admin_in).await.fault(), Some("FORBIDDEN"));
    }
    assert_eq!(server.bearer(&secret).member("removeMember", &member_in).await.fault(), Some("FORBIDDEN"));
    // From equals and lesser ones, they do.
    assert!(warden.change_roles(&member_in, &["guest", "member"]).await.accepted());
    assert!(warden.member("suspendMember", &member_in).await.accepted());
    assert!(warden.member("removeMember", &member_in).await.accepted());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_kept_out_is_not_told_of_the_organization() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let bob = server.user("bob@example.com");
    let bob_in = owner.bring_in(&id, &bob, "bob@example.com", &["member"]).await;
    assert!(owner.member("suspendMember", &bob_in).await.accepted());
    for mutation in ["acceptOwnership", "withdrawOwnershipOffer"] {
        assert_eq!(bob.organization_command(mutation, &id).await.fault(), Some("NOT_FOUND"), "{mutation}");
    }
    // Of one that is deleted, no member but its owners learns even that.
    assert!(owner.organization_command("deleteOrganization", &id).await.accepted());
    assert_eq!(leave(&bob, &id).await.fault(), Some("NOT_FOUND"));
    assert_eq!(leave(&owner, &id).await.refusal(), Some("ENTITY_STATUS"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_status_asks_for_permission_first() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, id) = acme(&server).await;
    let bob = server.user("bob@example.com");
    owner.bring_in(&id, &bob, "bob@example.com", &["member"]).await;
    for mutation in ["submitOrganizationForVerification", "deleteOrganization", "restoreOrganization"] {
        assert_eq!(bob.organization_command(mutation, &id).await.fault(), Some("FORBIDDEN"), "{mutation}");
    }
    for mutation in ["submitOrganizationForVerification", "restoreOrganization"] {
        assert_eq!(owner.organization_command(mutation, &id).await.refusal(), Some("ENTITY_STATUS"), "{mutation}");
    }
    server.stop().await;
}
