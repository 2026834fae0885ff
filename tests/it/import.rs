//! Importing real organizations, and files that change.

use std::path::Path;

use indicatif::ProgressBar;
use serde_json::json;
use tenancy::commands::Person;
use tenancy::database::embedded::Purpose;
use tenancy::import::{Options, Summary, import, peribolos};
use tenancy::service::Core;

use aggregates::user::Profile;

use crate::support::{Database, check_log};

async fn run(database: &Database, folder: &Path, dry_run: bool) -> Summary {
    let core = Core::open(&database.config(&[]), Purpose::Command).await.unwrap();
    core.catch_up().await.unwrap();
    let user =
        core.commands.ensure_user("https://tenancy.local", "ops@example.com", Profile::default(), true).await.unwrap();
    let operator = Person { user, email: Some("ops@example.com".into()), operator: true, organization: None };
    let options = Options { operator, dry_run };
    let folder = peribolos::read(folder).unwrap();
    let summary = import(&core.commands, folder, &options, &ProgressBar::hidden()).await.unwrap();
    core.catch_up().await.unwrap();
    core.close().await.unwrap();
    summary
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_folder_adds_and_changes_and_removes_nobody() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "acme/org.yaml", "name: Acme\nadmins: [Ada]\nmembers: [bob, carol]\n");
    write(folder.path(), "acme/web/teams.yaml", "teams:\n  web:\n    members: [bob]\n    repos: {site: write}\n");
    let rehearsal = run(&database, folder.path(), true).await;
    assert_eq!(rehearsal.done["members added"], 3);
    let first = run(&database, folder.path(), false).await;
    assert_eq!(
        (first.done["organizations created"], first.done["members added"], first.done["projects created"]),
        (1, 3, 1)
    );
    assert!(run(&database, folder.path(), false).await.is_unchanged());

    write(folder.path(), "acme/org.yaml", "name: Acme Inc\nadmins: [ADA, bob]\nmembers: [dave]\n");
    let second = run(&database, folder.path(), false).await;
    let done = |what: &str| second.done.get(what).copied().unwrap_or_default();
    assert_eq!((done("organizations changed"), done("members added"), done("members changed")), (1, 1, 1), "{second}");
    assert_eq!(second.no_longer_named, ["acme: carol"]);

    let pool = database.pool().await;
    check_log(&pool).await;
    let mut roles: Vec<(String, Vec<String>)> =
        sqlx::query_as("SELECT u.name, m.roles FROM members m JOIN users u ON u.id = m.user_id")
            .fetch_all(&pool)
            .await
            .unwrap();
    roles.sort();
    let role = |name: &str, role: &str| (name.to_owned(), vec![role.to_owned()]);
    assert_eq!(roles, [role("Ada", "owner"), role("bob", "owner"), role("carol", "member"), role("dave", "member")]);
    let (actors, operators): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE actor LIKE 'operator:%') FROM events WHERE organization_id IS NOT NULL",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(actors, operators);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_lifts_no_suspension() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "acme/org.yaml", "name: Acme\nadmins: [Ada]\nmembers: [bob]\n");
    run(&database, folder.path(), false).await;
    let pool = database.pool().await;
    let bob = "SELECT m.id FROM members m JOIN users u ON u.id = m.user_id WHERE u.name = 'bob'";
    let bob: String = sqlx::query_scalar(bob).fetch_one(&pool).await.unwrap();
    let server = database.serve().await;
    let input = json!({"membershipId": bob, "reason": "a test"});
    for mutation in ["suspendMember", "removeMember"] {
        let done = server.operator().run(mutation, "MembershipCommandInput", input.clone(), "__typename").await;
        assert!(done.accepted(), "{done:?}");
        // Neither while the membership lasts, nor after it.
        let again = run(&database, folder.path(), false).await;
        assert!(again.to_string().contains("suspended here, and left so"), "{again}");
        assert_ne!(again.done.get("members added"), Some(&1), "{again}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubernetes_organizations_come_in_whole_and_a_second_time_change_nothing() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/kubernetes-org/config");
    if !config.is_dir() {
        eprintln!("left out: there is no {}", config.display());
        return;
    }
    let database = Database::new().await;
    let first = run(&database, &config, false).await;
    assert_eq!(first.done["organizations created"], 8);
    assert_eq!(first.done["users registered"], 1509);
    assert_eq!(first.done["members added"], 2666);
    let pool = database.pool().await;
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&pool).await.unwrap();
    assert!(run(&database, &config, false).await.is_unchanged());
    let after: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&pool).await.unwrap();
    assert_eq!(events, after);
    check_log(&pool).await;
    let (memberships, users, operators_in): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT user_id), count(*) FILTER (WHERE user_id = (SELECT id FROM users WHERE name IS NULL))
         FROM members WHERE state = 'ACTIVE'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((memberships, users, operators_in), (2666, 1509, 0));
}
