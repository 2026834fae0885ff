//! What is deleted is gone for good when its time comes, unless it is held.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Database, Server, check_log, eventually};

/// What is deleted is due at once.
const AT_ONCE: [(&str, &str); 1] = [("TENANCY_ORGANIZATIONS__RESTORE_DAYS", "0")];

async fn sweep(server: &Server) {
    server.service().core().commands.sweep().await.unwrap();
}

async fn hold(operator: &Client, mutation: &str, organization: &str) -> Answer {
    let input = json!({"organizationId": organization, "reason": "a lawsuit"});
    operator.run(mutation, "LegalHoldInput", input, "__typename").await
}

pub async fn level(server: &Server) {
    eventually("the read models are level", || async {
        let answer = server.operator().query("{ projections { lagEvents } }", json!({})).await;
        answer.at("/projections").as_array().unwrap().iter().all(|projection| projection["lagEvents"] == 0)
    })
    .await;
}

const LOOK: &str = "query($id: ID!) { organization(by: {id: $id}) { id purged contactEmail capabilities
    auditTrail(last: 100) { nodes { action data } } } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_frees_names_destroys_keys_and_leaves_operators_the_trail() {
    let database = Database::new().await;
    let server = database.serve_with(&AT_ONCE).await;
    let (owner, operator) = (server.user("owner@example.com"), server.operator());
    let input = json!({"name": "Acme", "slug": "acme", "contactEmail": "office@acme.example", "externalId": "crm-7",
        "ownerId": owner.user_id().await});
    let created = operator.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await;
    let id = created.text("/organization/id");
    let token = owner.invite(&id, "eve@example.com", &["guest"]).await.text("/token");
    owner.bring_in(&id, &server.user("bob@example.com"), "bob@example.com", &["member"]).await;
    assert!(owner.organization_command("deleteOrganization", &id).await.accepted());
    level(&server).await;
    sweep(&server).await;
    level(&server).await;
    sweep(&server).await;

    assert_eq!(owner.fault(LOOK, json!({"id": id})).await, "NOT_FOUND");
    let left = operator.query(LOOK, json!({"id": id})).await;
    assert_eq!((left.at("/organization/purged"), left.at("/organization/capabilities")), (&json!(true), &json!([])));
    let nodes = left.at("/organization/auditTrail/nodes").as_array().unwrap();
    assert_eq!(nodes.last().unwrap()["action"], "org.purged");
    let invited: Vec<&Value> = nodes.iter().filter(|node| node["action"] == "member.invited").collect();
    assert!(invited.len() == 2 && invited.iter().all(|node| node["data"]["email"].is_null()), "{nodes:?}");
    let text = left.0.to_string();
    assert!(!text.contains("office@acme.example") && !text.contains("eve@example.com"), "{text}");
    let purges = "{ auditTrail(last: 5, filter: {actions: [ORG_PURGED]}) { nodes { organizationId } } }";
    assert_eq!(operator.query(purges, json!({})).await.text("/auditTrail/nodes/0/organizationId"), id);
    // Nothing leads back.
    let input = json!({"organizationId": id, "reason": "a test"});
    let restored = operator.run("restoreOrganization", "OrganizationCommandInput", input, "__typename").await;
    assert_eq!(restored.fault(), Some("NOT_FOUND"));
    assert_eq!(server.user("eve@example.com").accept(&token).await.fault(), Some("NOT_FOUND"));
    // Names are free again.
    let input = json!({"name": "Acme", "slug": "acme", "externalId": "crm-7"});
    let again = operator.run("createOrganization", "CreateOrganizationInput", input, "organization { id }").await;
    assert!(again.accepted(), "{again:?}");
    let pool = database.pool().await;
    let keys = "SELECT count(*) FROM subject_keys WHERE wrapped IS NOT NULL AND (subject_id LIKE 'inv%' OR subject_id LIKE 'org%')";
    assert_eq!(sqlx::query_scalar::<_, i64>(keys).fetch_one(&pool).await.unwrap(), 0);
    check_log(&pool).await;
    pool.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_not_purged_and_of_hold_and_purge_exactly_one_wins() {
    let database = Database::new().await;
    let (one, two) = (database.serve_with(&AT_ONCE).await, database.serve_with(&AT_ONCE).await);
    let (owner, operator) = (one.user("owner@example.com"), one.operator());
    let held = one.verified("held", &owner).await;
    let project = owner.create_project(&held, "site").await.text("/project/id");
    assert!(hold(&operator, "setLegalHold", &held).await.accepted());
    owner.run("deleteProject", "ProjectCommandInput", json!({"projectId": project}), "__typename").await;
    level(&one).await;
    sweep(&one).await;
    assert!(!owner.audit(&held).await.contains(&"project.purged".to_owned()));
    owner.organization_command("deleteOrganization", &held).await;
    let mut racing = vec![];
    for number in 0..8 {
        let id = one.organization(&format!("race-{number}"), &owner).await;
        owner.organization_command("deleteOrganization", &id).await;
        racing.push(id);
    }
    level(&one).await;
    let elsewhere = Client { url: two.url("/graphql"), ..operator.clone() };
    let (holds, (), ()) =
        tokio::join!(join_all(racing.iter().map(|id| hold(&elsewhere, "setLegalHold", id))), sweep(&one), sweep(&two));
    for (id, answer) in racing.iter().zip(holds) {
        let trail = operator.audit(id).await;
        let purged = trail.contains(&"org.purged".to_owned());
        assert_ne!(purged, trail.contains(&"org.legal_hold_set".to_owned()), "{trail:?}");
        assert_eq!(answer.accepted(), !purged, "{answer:?}");
    }
    assert!(!operator.audit(&held).await.contains(&"org.purged".to_owned()));
    assert!(hold(&operator, "releaseLegalHold", &held).await.accepted());
    sweep(&one).await;
    assert!(operator.audit(&held).await.contains(&"org.purged".to_owned()));
    let pool = database.pool().await;
    check_log(&pool).await;
    pool.close().await;
    two.stop().await;
    one.stop().await;
}
