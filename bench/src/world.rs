//! The tenants that the figures of commands, HTTP and dashboard share: many organizations with members, projects and
//! open invitations, all of it recorded by real commands in this process.

use std::sync::Arc;

use aggregates::ids::{OrganizationId, ProjectId};
use aggregates::membership::MembershipSource;
use aggregates::user::Profile;
use chrono::TimeDelta;
use tenancy::access::issuer::{BuiltinIssuer, Grant};
use tenancy::commands::invitations::{AcceptInvitation, By, InviteMember};
use tenancy::commands::organizations::CreateOrganization;
use tenancy::commands::projects::CreateProject;
use tenancy::commands::{Caller, Commands, Conditions, Person, Principal, Receipt, UseCase};
use tenancy::database::embedded::Purpose;
use tenancy::service::{Core, builtin_issuer};
use uuid::Uuid;

use crate::parallel::each;
use crate::server::{Database, Server};

/// A browser's, so that what is encrypted of it is as long as in life.
pub const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
/// From where everybody calls, for the same reason.
pub const ADDRESS: &str = "203.0.113.77";

/// How large a world is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Organizations.
    pub organizations: usize,
    /// Members of each, its owner included.
    pub members: usize,
    /// Projects of each.
    pub projects: usize,
    /// Open invitations of each.
    pub invitations: usize,
}

impl Size {
    /// As the figures want it.
    pub const FULL: Self = Self { organizations: 1_000, members: 30, projects: 10, invitations: 5 };
    /// For a first look.
    pub const QUICK: Self = Self { organizations: 200, members: 12, projects: 10, invitations: 5 };
}

/// One tenant.
pub struct Tenant {
    /// Its id.
    pub id: OrganizationId,
    /// Its owner.
    pub owner: Caller,
    /// A token of its owner.
    pub token: String,
    /// Its first projects.
    pub projects: Vec<ProjectId>,
}

/// All of them.
pub struct World {
    /// Where they are.
    pub database: Database,
    /// They.
    pub tenants: Vec<Tenant>,
}

/// Carries out a command that has to be accepted.
pub async fn accept<U: UseCase>(commands: &Commands, caller: &Caller, case: &U) -> Receipt {
    let receipt = commands.execute(caller, case, Conditions::default()).await.expect("the command is carried out");
    assert!(receipt.rejections.is_empty(), "{} was refused: {:?}", case.operation(), receipt.rejections);
    receipt
}

/// A user of the built-in issuer, by address, as a token would make them known.
pub async fn user(core: &Core, database: &Database, email: &str) -> Caller {
    let issuer = database.config().access.issuer;
    let profile = Profile { email: Some(email.to_owned()), display_name: Some(format!("Name of {email}")) };
    let user = core.commands.ensure_user(&issuer, email, profile, true).await.expect("a user is registered");
    let person = Person { user, email: Some(email.to_owned()), operator: false, organization: None };
    caller(person)
}

/// A caller who is this user.
pub fn caller(person: Person) -> Caller {
    Caller {
        principal: Principal::User(person),
        ip: Some(ADDRESS.to_owned()),
        user_agent: Some(USER_AGENT.to_owned()),
        request_id: Some(Uuid::now_v7().to_string()),
        correlation_id: Uuid::new_v4(),
        meter: None,
    }
}

/// A new project.
pub fn project(organization: &OrganizationId, slug: &str) -> CreateProject {
    let (name, slug) = (format!("Project {slug}"), slug.to_owned());
    CreateProject { organization: organization.clone(), name, slug, metadata: None, reason: None }
}

/// The project that a command answered with.
pub fn project_of(receipt: &Receipt) -> ProjectId {
    receipt.entity::<aggregates::Project>().map(|(id, _)| id).unwrap_or_else(|| panic!("no project: {receipt:?}"))
}

/// A token of the built-in issuer for this address.
pub fn token(database: &Database, email: &str, operator: bool) -> String {
    mint(&builtin_issuer(&database.config()).expect("there is an issuer"), email, operator)
}

fn mint(issuer: &BuiltinIssuer, email: &str, operator: bool) -> String {
    let name = Some(format!("Name of {email}"));
    let grant = Grant { email: email.to_owned(), name, operator, ttl: TimeDelta::hours(12) };
    issuer.mint(&grant).expect("a token is minted")
}

impl World {
    /// Makes one, and brings its read models up to it.
    pub async fn new(server: &Server, size: Size) -> Self {
        let database = server.database("bench_world").await;
        let core = Arc::new(Core::open(&database.config(), Purpose::Command).await.expect("the service opens"));
        let people = size.organizations * 3;
        let users = each(128, 0..people, {
            let (core, database) = (core.clone(), database.clone());
            move |number| {
                let (core, database) = (core.clone(), database.clone());
                async move { user(&core, &database, &format!("person{number}@example.com")).await }
            }
        })
        .await;
        let users = Arc::new(users);
        let mut tenants = each(128, 0..size.organizations, {
            let core = core.clone();
            move |number| {
                let (core, users) = (core.clone(), users.clone());
                async move { tenant(&core, &users, number, size).await }
            }
        })
        .await;
        let issuer = builtin_issuer(&database.config()).expect("there is an issuer");
        for tenant in &mut tenants {
            tenant.token = mint(&issuer, tenant.owner.principal.email().unwrap_or_default(), false);
        }
        core.catch_up().await.expect("read models can be made");
        let Ok(core) = Arc::try_unwrap(core) else { panic!("nobody else holds the service") };
        core.close().await.expect("the service closes");
        sqlx::query("VACUUM ANALYZE").execute(&database.pool(1).await).await.expect("the planner learns the tables");
        Self { database, tenants }
    }
}

async fn tenant(core: &Core, users: &[Caller], number: usize, size: Size) -> Tenant {
    let commands = &core.commands;
    let owner = users[number].clone();
    let create = CreateOrganization {
        name: format!("Organization {number}"),
        slug: format!("organization-{number}"),
        contact_email: Some(format!("office{number}@example.com")),
        external_id: None,
        owner: None,
        reason: None,
        source: MembershipSource::Founder,
    };
    let created = accept(commands, &owner, &create).await;
    let Some((id, _)) = created.entity::<aggregates::Organization>() else { panic!("no organization") };
    let invite = |email: String| InviteMember {
        organization: id.clone(),
        email,
        roles: vec!["member".to_owned()],
        expires_in_hours: None,
        reason: None,
    };
    for place in 1..size.members {
        let person = &users[(number + place) % users.len()];
        let email = person.principal.email().unwrap_or_default().to_owned();
        let invited = accept(commands, &owner, &invite(email)).await;
        let by = By::Token(invited.secret.unwrap_or_default());
        accept(commands, person, &AcceptInvitation { by }).await;
    }
    let mut projects = vec![];
    for place in 0..size.projects {
        projects.push(project_of(&accept(commands, &owner, &project(&id, &format!("first-{place}"))).await));
    }
    for place in 0..size.invitations {
        accept(commands, &owner, &invite(format!("guest{place}@example.com"))).await;
    }
    Tenant { id, owner, token: String::new(), projects }
}
