//! The roles of the database that the service works under. None of them may change or remove an event, and none owns
//! what holds events, so that a mistake above, or somebody else's statement, ends at the database.

use std::time::Duration;

use projections::Projection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgPool};

use super::Error;

/// What each role may do.
const ROLES: &str = include_str!("roles.sql");
/// How often roles are made again, when other databases of the same server make them at the same time.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// How long they wait for a table that somebody works on.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '3s'";
/// The codes of a lock that was not given in time, and of a deadlock.
const LOCKED: &[&str] = &["55P03", "40P01"];

/// A role of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseRole {
    /// Appends to the log and reads it, and keeps what is enforced together with it.
    Writer,
    /// Makes the read models, which it owns.
    Projector,
    /// Reads what belongs to the ids that its statement names, and nothing else.
    Reader,
    /// Reads over all organizations.
    Operator,
}

impl DatabaseRole {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Writer, Self::Projector, Self::Reader, Self::Operator];

    /// The name, the same for all databases of a server.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writer => "tenancy_writer",
            Self::Projector => "tenancy_projector",
            Self::Reader => "tenancy_reader",
            Self::Operator => "tenancy_operator",
        }
    }

    /// Connections that work under this role from their first statement on, for no further round trip.
    pub fn of(self, options: &PgConnectOptions) -> PgConnectOptions {
        options.clone().options([("role", self.name())])
    }
}

/// Makes the roles as far as they are missing, gives them what they may do, and makes `login` a member of them. As the
/// owner of the database.
pub(super) async fn prepare(owner: &PgPool, login: &str) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        match try_prepare(owner, login).await {
            Err(error) if (made_elsewhere(&error) || is(&error, LOCKED)) && tries < TRIES => {
                tokio::time::sleep(PAUSE).await
            }
            Err(source) if is(&source, &["42501"]) => {
                let (owner, database, known): (String, String, Vec<String>) = sqlx::query_as(
                    "SELECT current_user::text, current_database()::text,
                            ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1::text[]))",
                )
                .bind(DatabaseRole::ALL.map(DatabaseRole::name))
                .fetch_one(owner)
                .await?;
                return Err(Error::Roles { source, statements: statements(&owner, login, &database, &known) });
            }
            done => return Ok(done?),
        }
        tries += 1;
    }
}

async fn try_prepare(owner: &PgPool, login: &str) -> Result<(), sqlx::Error> {
    let mut transaction = owner.begin().await?;
    // What waits for a lock behind a long reader stops everybody behind itself: rather try again.
    transaction.execute(LOCK_TIMEOUT).await?;
    transaction.execute(ROLES).await?;
    // With what a rebuild left of an earlier version of this program.
    let schemas = Projection::ALL.iter().copied().map(Projection::schema).collect::<Vec<_>>();
    let mut schemas: Vec<String> =
        schemas.iter().flat_map(|name| ["", "_next", "_old"].map(|end| format!("{name}{end}"))).collect();
    schemas.push("directory".into());
    sqlx::query("SELECT protect_read_model(nspname::text) FROM pg_namespace WHERE nspname = ANY($1::text[])")
        .bind(&schemas)
        .execute(&mut *transaction)
        .await?;
    let missing: Option<String> = sqlx::query_scalar(
        "SELECT format('GRANT %s TO %I', string_agg(name, ', '), $2::name) FROM unnest($1::text[]) AS r(name)
         WHERE NOT pg_has_role($2::name, name::name, 'MEMBER') HAVING count(*) > 0",
    )
    .bind(DatabaseRole::ALL.map(DatabaseRole::name))
    .bind(login)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(grant) = missing {
        transaction.execute(&*grant).await?;
    }
    transaction.commit().await
}

/// Whether another database of the server, or another replica, made the same role or membership at the same moment.
fn made_elsewhere(error: &sqlx::Error) -> bool {
    // Unique violations, objects that are there already, and "tuple concurrently updated".
    is(error, &["23505", "42710", "XX000"])
}

/// Makes the login of the service in the private database, where everybody who reaches the socket is believed.
pub(super) async fn make_login(owner: &PgConnectOptions, login: &str) -> Result<(), sqlx::Error> {
    let mut owner = owner.connect().await?;
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(login)
        .fetch_one(&mut owner)
        .await?;
    if known {
        return Ok(());
    }
    match owner.execute(&*format!("CREATE ROLE {login} LOGIN NOINHERIT")).await {
        Err(error) if !made_elsewhere(&error) => Err(error),
        _ => Ok(()),
    }
}

/// What somebody who may make roles runs where the owner of the database may not: roles that are not there yet, for they
/// belong to the server and another database of it may have brought them. All of it may be run again.
fn statements(owner: &str, login: &str, database: &str, known: &[String]) -> String {
    let names = DatabaseRole::ALL.map(DatabaseRole::name);
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut to = vec![quoted(owner)];
    if login != owner {
        to.push(quoted(login));
    }
    let (projector, database) = (DatabaseRole::Projector.name(), quoted(database));
    let missing = names.iter().filter(|name| !known.iter().any(|known| known == *name));
    let make = |name: &&str| {
        format!("DO $$ BEGIN CREATE ROLE {name} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;")
    };
    let mut lines: Vec<String> = missing.map(make).collect();
    lines.push(format!("GRANT {} TO {};", names.join(", "), to.join(", ")));
    lines.push(format!("GRANT CREATE, TEMPORARY ON DATABASE {database} TO {projector};"));
    lines.push(format!("REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;"));
    lines.iter().map(|line| format!("\n    {line}")).collect()
}

/// Looks whether the service can work under its roles, and whether these are as narrow as they should be.
pub(super) async fn check(service: &PgConnectOptions) -> Result<(), Error> {
    let settings = [("search_path", projections::search_path())];
    let mut writer = DatabaseRole::Writer.of(service).options(settings).connect().await.map_err(refused)?;
    let (role, path, member, free): (String, String, bool, bool) = sqlx::query_as(
        "SELECT current_user::text, current_setting('search_path'),
                (SELECT bool_and(pg_has_role(session_user, name::name, 'MEMBER')) FROM unnest($1::text[]) AS r(name)),
                EXISTS (
                    SELECT FROM unnest($1::text[]) AS r(name) JOIN pg_roles p ON p.rolname = r.name
                    JOIN pg_class c ON c.oid = 'public.events'::regclass
                    WHERE p.rolsuper OR p.rolbypassrls OR pg_has_role(p.oid, c.relowner, 'MEMBER')
                       OR has_table_privilege(p.oid, c.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')
                )",
    )
    .bind(DatabaseRole::ALL.map(DatabaseRole::name))
    .fetch_one(&mut writer)
    .await?;
    writer.close().await?;
    if role != DatabaseRole::Writer.name() || path.replace(' ', "") != projections::search_path() {
        return Err(Error::Settings);
    }
    match (member, free) {
        (false, _) => Err(Error::NoMember(service.get_username().to_owned())),
        (_, true) => Err(Error::TooFree),
        _ => Ok(()),
    }
}

/// Which of `versions` were applied, for a login that does not own the database.
pub(super) async fn applied(service: &PgConnectOptions) -> Result<Vec<i64>, Error> {
    let mut writer =
        DatabaseRole::Writer.of(service).options([("search_path", "public")]).connect().await.map_err(refused)?;
    let versions =
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success").fetch_all(&mut writer).await;
    writer.close().await?;
    match versions {
        Err(error) if is(&error, &["42501", "42P01"]) => Ok(vec![]),
        versions => Ok(versions?),
    }
}

/// Whether the database answered with one of these codes.
fn is(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| codes.contains(&&*code))
}

/// A role that is not there, or not for this login.
fn refused(error: sqlx::Error) -> Error {
    if is(&error, &["22023", "42501"]) { Error::NoRoles(error) } else { error.into() }
}
