//! Below the code: what the roles of the database let the service do, and whoever gets hold of its login.

use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, PgPool};
use tenancy::config::{Config, Flags, Surroundings, load_from};
use tenancy::database::embedded::Purpose;
use tenancy::database::roles::DatabaseRole;
use tenancy::database::{self};
use tenancy::service::{Core, Error};

use crate::support::{Client, Database, Server, eventually};

/// A login of its own on a test's database.
struct Login {
    name: String,
    url: String,
    owner: PgPool,
}

impl Login {
    async fn new(database: &Database) -> Self {
        let owner = database.pool().await;
        let name: String = sqlx::query_scalar("SELECT current_database() || '_login'").fetch_one(&owner).await.unwrap();
        sqlx::query(&format!("CREATE ROLE {name} LOGIN PASSWORD 'roles'")).execute(&owner).await.unwrap();
        let (scheme, rest) = database.url.split_once("://").unwrap();
        let place = rest.split_once('@').map_or(rest, |(_, place)| place);
        Self { url: format!("{scheme}://{name}:roles@{place}"), name, owner }
    }

    fn options(&self) -> PgConnectOptions {
        let options: PgConnectOptions = self.url.parse().unwrap();
        options.options([("search_path", projections::search_path())])
    }

    async fn connect(&self, role: Option<DatabaseRole>) -> PgConnection {
        let options = self.options();
        role.map_or_else(|| options.clone(), |role| role.of(&options)).connect().await.unwrap()
    }

    /// The configuration of a service that has this login, and the owner's address only where told.
    fn config(&self, database: &Database, with_owner: bool) -> Config {
        let mut variables = database.variables(&[("DATABASE_URL", &self.url)]);
        if with_owner {
            variables.insert("TENANCY_DATABASE__OWNER_URL".to_owned(), database.url.clone());
        }
        load_from(&Flags::new(None), &Surroundings { variables, root: false, home: None }).unwrap().config
    }

    async fn remove(self) {
        sqlx::query(&format!("DROP ROLE {}", self.name)).execute(&self.owner).await.unwrap();
    }
}

/// Two organizations with something of everything: their ids.
async fn two_tenants(server: &Server) -> (String, String) {
    let mut ids = vec![];
    for slug in ["acme", "beta"] {
        let owner = server.user(&format!("owner@{slug}.example"));
        let id = server.verified(slug, &owner).await;
        let email = format!("ada@{slug}.example");
        owner.bring_in(&id, &server.user(&email), &email, &["member"]).await;
        owner.invite(&id, "zoe@example.com", &["guest"]).await;
        owner.create_project(&id, "p").await;
        let settings = json!({"organizationId": id, "namespace": "branding", "value": {"color": "red"}});
        owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", settings, "__typename").await;
        read_everything(&owner, &id).await;
        ids.push(id);
    }
    (ids.remove(0), ids.remove(0))
}

async fn read_everything(client: &Client, id: &str) -> usize {
    let query = "query($id: ID!) { organization(by: {id: $id}) {
        members { nodes { user { email } } } invitations { nodes { id } } projects { nodes { slug } }
        auditTrail(first: 50) { nodes { id } } accessTrail { nodes { operation times } } } }";
    let read = client.query(query, json!({"id": id})).await;
    ["members", "invitations", "projects", "auditTrail"]
        .map(|list| read.at(&format!("/organization/{list}/nodes")).as_array().unwrap().len())
        .iter()
        .sum()
}

/// What would change what happened, or make that possible.
const FORBIDDEN: [&str; 41] = [
    "UPDATE events SET actor = 'system'",
    "UPDATE events SET payload = '{}' WHERE false",
    "UPDATE events e SET payload = p.payload FROM events o, jsonb_populate_record(o, pruned(o)) p WHERE e.event_id = o.event_id",
    "INSERT INTO prunings (organization_id, seen_at) VALUES ('org_01h455vb4pex5vsknk084sn02q', '2000-01-01')",
    "UPDATE prunings SET seen_at = '2000-01-01'",
    "DELETE FROM events",
    "TRUNCATE events",
    "TRUNCATE events CASCADE",
    "MERGE INTO events e USING events s ON s.event_id = e.event_id WHEN MATCHED THEN DELETE",
    "INSERT INTO events SELECT * FROM events ON CONFLICT (event_id, partition) DO UPDATE SET actor = 'system'",
    "SELECT 1 FROM events FOR UPDATE",
    "LOCK TABLE events IN ACCESS EXCLUSIVE MODE",
    "ALTER TABLE events DISABLE TRIGGER ALL",
    "ALTER TABLE events DISABLE TRIGGER events_are_never_changed",
    "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE events ADD COLUMN more text",
    "ALTER TABLE events RENAME TO happened",
    "ALTER TABLE events OWNER TO CURRENT_USER",
    "ALTER TABLE events SET SCHEMA pg_temp",
    "DROP TABLE events CASCADE",
    "DROP TRIGGER events_are_never_changed ON events",
    "DROP FUNCTION refuse_change_but_pruning() CASCADE",
    "DROP FUNCTION refuse_change() CASCADE",
    "DROP SCHEMA public CASCADE",
    "DROP POLICY everything ON events",
    "CREATE POLICY more ON events USING (true)",
    "CREATE RULE nothing AS ON INSERT TO events DO INSTEAD NOTHING",
    "CREATE TRIGGER more BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    "CREATE FUNCTION public.more() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    "CREATE TABLE public.more (id text)",
    "SET session_replication_role = replica",
    "SET LOCAL session_replication_role = replica",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "ALTER ROLE tenancy_writer SUPERUSER",
    "COPY events FROM PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/tenancy-roles'",
    "UPDATE access_trail SET actor = 'system'",
    "TRUNCATE access_trail",
    "UPDATE _sqlx_migrations SET success = false",
    "SELECT pg_read_file('PG_VERSION')",
];

/// The statement of the role that appends, and of no other.
const INSERT: &str = "INSERT INTO events SELECT * FROM events WHERE false";

#[tokio::test(flavor = "multi_thread")]
async fn no_role_of_the_service_changes_what_happened() {
    let database = Database::new().await;
    let login = Login::new(&database).await;
    let server = Server::start(&login.config(&database, true)).await;
    two_tenants(&server).await;
    server.stop().await;
    let log = "SELECT md5(string_agg(e::text, '' ORDER BY event_id)) FROM events e";
    let before: String = sqlx::query_scalar(log).fetch_one(&login.owner).await.unwrap();
    let owner: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&login.owner).await.unwrap();

    for role in DatabaseRole::ALL.map(Some).into_iter().chain([None]) {
        let mut connection = login.connect(role).await;
        // Every holder of the connection may give the role back, and is then the login.
        for back in ["", "RESET ROLE", "SET ROLE NONE", "RESET SESSION AUTHORIZATION"] {
            if !back.is_empty() {
                sqlx::query(back).execute(&mut connection).await.unwrap();
            }
            let become_owner = [format!("SET ROLE {owner}"), format!("SET SESSION AUTHORIZATION {owner}")];
            for statement in FORBIDDEN.iter().map(|text| (*text).to_owned()).chain(become_owner) {
                let mut transaction = connection.begin().await.unwrap();
                let error = sqlx::raw_sql(&statement).execute(&mut *transaction).await.map(drop).err();
                let code = error.as_ref().and_then(|e| e.as_database_error()?.code().map(|code| code.into_owned()));
                assert_eq!(code.as_deref(), Some("42501"), "{role:?} {back}: {statement}: {error:?}");
                transaction.rollback().await.unwrap();
            }
            // A grant of what one does not have is a warning, and gives nothing.
            sqlx::raw_sql("GRANT ALL ON events TO PUBLIC").execute(&mut connection).await.ok();
        }
        sqlx::raw_sql("DISCARD ALL").execute(&mut connection).await.unwrap();
        let inserted = sqlx::query(INSERT).execute(&mut connection).await;
        let may = matches!(role, Some(DatabaseRole::Writer) | None);
        assert_eq!(inserted.is_ok(), may, "{role:?}: {inserted:?}");
        // Only who checks read models makes temporary things.
        let temporary = sqlx::raw_sql("CREATE TEMPORARY TABLE more (id text)").execute(&mut connection).await;
        assert_eq!(temporary.is_ok(), matches!(role, Some(DatabaseRole::Projector) | None), "{role:?}: {temporary:?}");
        sqlx::raw_sql("DISCARD ALL").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    let may: bool = sqlx::query_scalar(
        "SELECT bool_or(has_table_privilege(rolname, 'events', 'UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'))
         FROM pg_roles WHERE rolname LIKE 'tenancy\\_%' AND NOT rolsuper OR rolname = $1",
    )
    .bind(&login.name)
    .fetch_one(&login.owner)
    .await
    .unwrap();
    assert!(!may);
    assert_eq!(sqlx::query_scalar::<_, String>(log).fetch_one(&login.owner).await.unwrap(), before);
    login.remove().await;
}

/// What a role sees of each table, in one transaction with these ids in scope.
async fn seen(connection: &mut PgConnection, scope: Option<&str>) -> Vec<(String, i64)> {
    let mut transaction = connection.begin().await.unwrap();
    if let Some(scope) = scope {
        let set = sqlx::query("SELECT set_config('tenancy.scope', $1, true)").bind(scope);
        set.execute(&mut *transaction).await.unwrap();
    }
    let mut all = vec![];
    for (table, of) in TABLES {
        let statement = format!("SELECT count(*), count(DISTINCT {of}) FROM {table}");
        let (rows, of): (i64, i64) = sqlx::query_as(&statement).fetch_one(&mut *transaction).await.unwrap();
        assert!(of <= 1 || scope.is_some_and(|scope| scope.contains(',')), "{table}: of one only");
        all.push((table.to_owned(), rows));
    }
    transaction.commit().await.unwrap();
    all
}

/// Tables, and by what a row is somebody's.
const TABLES: [(&str, &str); 8] = [
    ("events", "organization_id"),
    ("access_trail", "organization_id"),
    ("organizations", "id"),
    ("settings", "organization_id"),
    ("members", "organization_id"),
    ("invitations", "organization_id"),
    ("projects", "organization_id"),
    ("users", "id"),
];

/// Owner, privileges and policies of everything in the schemas of read models.
async fn protection(owner: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT n.nspname || '.' || c.relname || ' ' || c.relowner::regrole || ' ' || c.relrowsecurity || ' ' || n.nspowner::regrole
                || ' ' || n.nspacl::text || ' ' || c.relacl::text || coalesce((
                    SELECT string_agg(p.policyname || p.roles::text || p.cmd || p.qual, ';' ORDER BY p.policyname)
                    FROM pg_policies p WHERE p.schemaname = n.nspname AND p.tablename = c.relname), '')
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname ~ '_1$' AND c.relkind = 'r' ORDER BY 1",
    )
    .fetch_all(owner)
    .await
    .unwrap()
}

async fn rebuild(core: &Core) {
    core.catch_up().await.unwrap();
    let stage = tokio::sync::watch::channel(projections::rebuild::Stage::default()).0;
    let rebuilt = core.rebuilder().run(projections::Projection::ALL.to_vec(), stage).await.unwrap();
    assert!(matches!(rebuilt, projections::rebuild::Rebuilt::Done { .. }), "{rebuilt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_what_its_statement_puts_in_scope_also_after_a_rebuild() {
    let database = Database::new().await;
    let login = Login::new(&database).await;
    let config = login.config(&database, true);
    let server = Server::start(&config).await;
    let (acme, beta) = two_tenants(&server).await;
    let recorded = "SELECT count(DISTINCT organization_id) = 2 FROM access_trail";
    let owner = login.owner.clone();
    eventually("both access trails", || async { sqlx::query_scalar(recorded).fetch_one(&owner).await.unwrap() }).await;
    eventually("the projects", || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM projects").fetch_one(&owner).await.unwrap() == 2
    })
    .await;
    server.stop().await;

    let mut reader = login.connect(Some(DatabaseRole::Reader)).await;
    let nothing: Vec<(String, i64)> = TABLES.map(|(table, _)| (table.to_owned(), 0)).to_vec();
    let before = protection(&owner).await;
    for round in ["as migrated", "rebuilt"] {
        assert_eq!(seen(&mut reader, None).await, nothing, "{round}");
        assert_eq!(seen(&mut reader, Some("")).await, nothing, "{round}");
        let (one, other) = (seen(&mut reader, Some(&acme)).await, seen(&mut reader, Some(&beta)).await);
        assert!(one.iter().all(|(table, rows)| *rows > 0 || table == "users"), "{round}: {one:?}");
        assert_eq!(one, other, "{round}: as much of the one as of the other");
        // The setting ended with its transaction.
        assert_eq!(seen(&mut reader, None).await, nothing, "{round}");
        let both = seen(&mut reader, Some(&format!("{acme},{beta}"))).await;
        assert!(both.iter().zip(&one).all(|(both, one)| both.1 == 2 * one.1), "{round}: {both:?}");
        // A user alone in scope sees their memberships and their row.
        let user: String =
            sqlx::query_scalar("SELECT user_id FROM members ORDER BY id LIMIT 1").fetch_one(&owner).await.unwrap();
        let own: Vec<(String, i64)> = seen(&mut reader, Some(&user)).await;
        let expected: Vec<&str> = own.iter().filter(|(_, rows)| *rows == 1).map(|(table, _)| table.as_str()).collect();
        assert_eq!(expected, ["members", "users"], "{round}");

        let operator = login.connect(Some(DatabaseRole::Operator)).await;
        let all: i64 = sqlx::query_scalar("SELECT count(*) FROM members").fetch_one(&mut { operator }).await.unwrap();
        assert_eq!(all, 4, "{round}");
        if round == "as migrated" {
            let core = Core::open(&config, Purpose::Command).await.unwrap();
            rebuild(&core).await;
            core.close().await.unwrap();
        }
    }
    assert_eq!(protection(&owner).await, before);
    // What the service reads is what it read before.
    let server = Server::start(&config).await;
    assert!(read_everything(&server.user("owner@acme.example"), &acme).await > 8);
    let viewer = server.user("zoe@example.com").query("{ viewer { invitations { nodes { id } } } }", json!({})).await;
    assert_eq!(viewer.at("/viewer/invitations/nodes").as_array().unwrap().len(), 2);
    let viewer = server.user("ada@acme.example").query("{ viewer { memberships { nodes { id } } } }", json!({})).await;
    assert_eq!(viewer.at("/viewer/memberships/nodes").as_array().unwrap().len(), 1);
    server.stop().await;
    reader.close().await.unwrap();
    login.remove().await;
}

async fn refused(config: &Config) -> Error {
    match Core::open(config, Purpose::Command).await {
        Err(error) => error,
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_not_the_owner_starts_on_a_database_that_is_up_to_date() {
    let database = Database::new().await;
    let login = Login::new(&database).await;
    let error = refused(&login.config(&database, false)).await;
    assert!(error.remedy().unwrap().contains("tenancy migrate"), "an empty database: {error}");

    // The owner migrates; from then on the login is enough.
    let core = Core::open(&login.config(&database, true), Purpose::Command).await.unwrap();
    core.close().await.unwrap();
    let server = Server::start(&login.config(&database, false)).await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    assert!(owner.create_project(&id, "p").await.accepted());
    server.stop().await;

    let newest = "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
    sqlx::query(newest).execute(&login.owner).await.unwrap();
    let error = refused(&login.config(&database, false)).await;
    assert!(matches!(error, Error::Database(database::Error::Behind(_))), "{error}");
    let newest = database::MIGRATIONS.iter().last().unwrap();
    assert!(
        error.to_string().contains(&format!("{:04}", newest.version))
            && error.remedy().unwrap().contains("tenancy migrate"),
        "{error}"
    );

    // A login that was never made a member is told the same way on.
    let stranger = format!("{}_stranger", login.name);
    sqlx::query(&format!("CREATE ROLE {stranger} LOGIN PASSWORD 'roles'")).execute(&login.owner).await.unwrap();
    let mut config = login.config(&database, false);
    let url = login.url.replace(&login.name, &stranger);
    let variables = database.variables(&[("DATABASE_URL", &url)]);
    config.database =
        load_from(&Flags::new(None), &Surroundings { variables, root: false, home: None }).unwrap().config.database;
    let error = refused(&config).await;
    assert!(matches!(error, Error::Database(database::Error::NoRoles(_))), "{error}");
    sqlx::query(&format!("DROP ROLE {stranger}")).execute(&login.owner).await.unwrap();
    login.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_change_the_log_keeps_the_service_from_starting() {
    let database = Database::new().await;
    database.serve().await.stop().await;
    let owner = database.pool().await;
    sqlx::query("GRANT UPDATE ON events TO tenancy_operator").execute(&owner).await.unwrap();
    let error = refused(&database.config(&[])).await;
    assert!(matches!(error, Error::Database(database::Error::TooFree)), "{error}");
    sqlx::query("REVOKE UPDATE ON events FROM tenancy_operator").execute(&owner).await.unwrap();
    database.serve().await.stop().await;
}

/// A dump that is restored in another server has neither the roles nor what names them.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_in_another_server_loses_comes_back_at_the_next_start() {
    let database = Database::new().await;
    let server = database.serve().await;
    let client = server.user("owner@example.com");
    let id = server.verified("acme", &client).await;
    let owner = database.pool().await;
    eventually("the member", || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM members").fetch_one(&owner).await.unwrap() == 1
    })
    .await;
    let (before, read) = (protection(&owner).await, read_everything(&client, &id).await);
    server.stop().await;
    sqlx::raw_sql(
        "DO $$ DECLARE t record; BEGIN
             FOR t IN SELECT schemaname, tablename, policyname FROM pg_policies LOOP
                 EXECUTE format('DROP POLICY %I ON %I.%I', t.policyname, t.schemaname, t.tablename);
             END LOOP;
             REASSIGN OWNED BY tenancy_projector TO CURRENT_USER;
             DROP OWNED BY tenancy_writer, tenancy_projector, tenancy_reader, tenancy_operator;
         END $$",
    )
    .execute(&owner)
    .await
    .unwrap();
    let server = database.serve().await;
    assert_eq!(protection(&owner).await, before);
    assert_eq!(read_everything(&server.user("owner@example.com"), &id).await, read);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_may_not_make_roles_is_told_the_statements() {
    let database = Database::new().await;
    // The roles are there when any database of this server was migrated; without leave to be a member they are no use.
    let login = Login::new(&database).await;
    let (name, superuser) = (&login.name, &login.owner);
    for statement in [
        format!("ALTER ROLE {name} NOSUPERUSER NOCREATEROLE"),
        format!("GRANT CREATE ON SCHEMA public TO {name}"),
        format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO {name}', current_database()); END $$"),
    ] {
        sqlx::raw_sql(&statement).execute(superuser).await.unwrap();
    }
    let error = refused(&login.config(&database, false)).await;
    let remedy = error.remedy().unwrap();
    // Another database of the server has brought the roles: only what is missing is named.
    assert!(!remedy.contains("CREATE ROLE") && remedy.contains("GRANT tenancy_writer"), "{error}: {remedy}");
    // What it says does it, as often as it is run.
    for _ in 0..2 {
        for line in remedy.lines().skip(1).filter(|line| !line.trim().is_empty()) {
            sqlx::raw_sql(line).execute(superuser).await.unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
    let server = Server::start(&login.config(&database, false)).await;
    let owner = server.user("owner@example.com");
    let id = server.verified("acme", &owner).await;
    assert!(read_everything(&owner, &id).await > 1);
    server.stop().await;
    let core = Core::open(&login.config(&database, false), Purpose::Command).await.unwrap();
    rebuild(&core).await;
    core.close().await.unwrap();
}

/// The login and the role of connections, and whether one of the two may do more than it should.
async fn works_as(pool: impl sqlx::PgExecutor<'_>) -> (String, String, bool) {
    let query = sqlx::query_as(
        "SELECT session_user::text, current_user::text,
                (SELECT bool_or(rolsuper OR rolbypassrls OR rolcreaterole) FROM pg_roles WHERE rolname IN (session_user, current_user))",
    );
    query.fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_database_knows_the_service_by_a_login_that_is_no_superuser() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let variables = [("TENANCY_DATA_DIR".to_owned(), folder.path().join("data").display().to_string())].into();
    let surroundings = Surroundings { variables, root: false, home: None };
    let config = load_from(&Flags::new(None), &surroundings).unwrap().config;
    let core = Core::open(&config, Purpose::Command).await.unwrap();
    let pools = &core.database;
    for (login, role, free) in [
        works_as(&pools.pool).await,
        works_as(&pools.readers).await,
        works_as(&pools.operators).await,
        works_as(&pools.projections).await,
    ] {
        assert_eq!(login, "tenancy_service");
        assert!(role.starts_with("tenancy_") && role != login && !free, "{role}");
    }
    core.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_not_the_owner_prunes_nothing_and_is_told_who_can() {
    let database = Database::new().await;
    let login = Login::new(&database).await;
    Server::start(&login.config(&database, true)).await.stop().await;
    let kept = ("TENANCY_AUDIT__PURGED_KEPT_DAYS", "400");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tenancy"));
    command.arg("prune").envs(database.variables(&[("DATABASE_URL", &login.url), kept])).env_remove("TENANCY_LOG");
    let refused = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{reason}");
    assert!(reason.contains("may not take anything out of the log") && reason.contains("OWNER_URL"), "{reason}");
    login.remove().await;
}
