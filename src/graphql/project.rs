//! Projects.

use aggregates::ids::{Id, OrganizationId, ProjectId};
use async_graphql::connection::Connection;
use async_graphql::{Context, ID, InputObject, Json, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, Postgres, QueryBuilder};

use super::connection::{Created, Opaque, Slice};
use super::loaders::ListFilter;
use super::loaders::{Lists, Loaders};
use super::organization::Organization;
use super::payload::{Answer, payloads, run};
use super::scalars::{Document, ProjectState, Time, int};
use super::session::{Session, id};
use super::user::connection;
use crate::commands::projects::{self as cases, Change};
use crate::commands::{Entity, Receipt};
use crate::log::Loaded;

/// A project as the read model has it.
#[derive(Debug, Clone, FromRow)]
pub struct ProjectRow {
    id: String,
    organization_id: String,
    slug: String,
    name: String,
    metadata: sqlx::types::Json<Value>,
    state: String,
    purge_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
}

/// Which projects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProjectFilter {
    /// In this state; else those that are not deleted.
    pub state: Option<String>,
}

impl ListFilter for ProjectFilter {
    type Row = ProjectRow;
    const PREFIX: &'static str = ProjectId::PREFIX;
    const SELECT: &'static str =
        "id, organization_id, slug, name, metadata, state, purge_at, version, created_at FROM projects";
    fn lists(loaders: &Loaders) -> &Lists<Self> {
        &loaders.projects
    }

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        match &self.state {
            Some(state) => query.push(" AND state = ").push_bind(state.clone()),
            None => query.push(" AND state <> 'DELETED'"),
        };
    }
}

/// Something that an organization works on.
#[derive(Debug, Clone)]
pub struct Project {
    id: String,
    organization: Option<OrganizationId>,
    slug: String,
    name: String,
    metadata: Value,
    state: ProjectState,
    purge_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    version: u64,
}

impl From<ProjectRow> for Project {
    fn from(row: ProjectRow) -> Self {
        let state: aggregates::project::ProjectState =
            serde_json::from_value(Value::String(row.state)).unwrap_or_default();
        Self {
            id: row.id,
            organization: row.organization_id.parse().ok(),
            slug: row.slug,
            name: row.name,
            metadata: row.metadata.0,
            state: state.into(),
            purge_at: row.purge_at,
            created_at: row.created_at,
            version: row.version.unsigned_abs(),
        }
    }
}

impl Project {
    /// From the log's side.
    pub fn new(id: ProjectId, loaded: &Loaded<aggregates::Project>) -> Self {
        let state = &loaded.state;
        Self {
            id: id.into(),
            organization: loaded.organization.clone(),
            slug: state.slug.clone(),
            name: state.name.clone(),
            metadata: state.metadata.clone(),
            state: state.state.into(),
            purge_at: state.purge_at,
            created_at: state.created_at,
            version: loaded.version,
        }
    }

    /// A connection of rows.
    pub fn connection(slice: Slice<ProjectRow>) -> Connection<Opaque, Self> {
        connection(slice, |row| Created { at: row.created_at, id: row.id.clone() }, Self::from)
    }
}

/// What an organization works in.
#[Object]
impl Project {
    /// The id.
    pub async fn id(&self) -> ID {
        ID(self.id.clone())
    }
    /// The organization.
    async fn organization(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<Organization>> {
        let id = self.organization.as_ref()?;
        let seen = Session::of(ctx).see(id).await.transpose()?;
        Some(seen.map(|seen| Organization::new(seen.id, &seen.organization)))
    }
    /// The short name, unique among the organization's live projects.
    async fn slug(&self) -> &str {
        &self.slug
    }
    /// The display name.
    async fn name(&self) -> &str {
        &self.name
    }
    /// What clients attached: a JSON object.
    async fn metadata(&self) -> Document<&Value> {
        Document(&self.metadata)
    }
    /// Where it stands.
    async fn state(&self) -> ProjectState {
        self.state
    }
    /// When the deleted project is gone for good.
    async fn purge_at(&self) -> Option<Time> {
        self.purge_at.map(Time)
    }
    /// When it was created.
    async fn created_at(&self) -> Time {
        Time(self.created_at)
    }
    /// How often it was changed.
    async fn version(&self) -> i32 {
        int(self.version)
    }
}

fn among(entities: &[Entity]) -> Option<Project> {
    entities.iter().find_map(|entity| match entity {
        Entity::Project(id, loaded) => Some(Project::new(id.clone(), loaded)),
        Entity::Organization(..)
        | Entity::Membership(..)
        | Entity::Invitation(..)
        | Entity::User(..)
        | Entity::ApiToken(..)
        | Entity::WebhookEndpoint(..) => None,
    })
}

payloads! {
    /// What became of a command on a project.
    ProjectPayload {
        /// The project after the command.
        project: Option<Project> = |receipt: &Receipt| among(&receipt.entities),
    }
}

/// A new project.
#[derive(InputObject)]
pub struct CreateProjectInput {
    /// In which organization.
    organization_id: ID,
    /// The display name.
    name: String,
    /// The slug: 1–63 of a–z, 0–9, "-", "_", "."; upper case is folded.
    slug: String,
    /// What the client attaches: a JSON object of at most 16 KiB.
    metadata: Option<Json<Value>>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
}

/// Changes of a project; what is absent stays.
#[derive(InputObject)]
pub struct UpdateProjectInput {
    /// Which project.
    project_id: ID,
    /// The display name.
    name: Option<String>,
    /// The slug.
    slug: Option<String>,
    /// What the client attaches: a JSON object of at most 16 KiB.
    metadata: Option<Json<Value>>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the project must have.
    expected_version: Option<i32>,
}

/// A command on a project.
#[derive(InputObject)]
pub struct ProjectCommandInput {
    /// Which project.
    project_id: ID,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the project must have.
    expected_version: Option<i32>,
}

/// Commands on projects.
#[derive(Default)]
pub struct ProjectMutation;

async fn change(ctx: &Context<'_>, input: ProjectCommandInput, change: Change) -> Answer<ProjectPayload> {
    let case = id("projectId", &input.project_id).map(|project| cases::ChangeProject {
        project,
        change,
        reason: input.reason,
    });
    run(ctx, input.idempotency_key, input.expected_version, case).await
}

#[Object]
impl ProjectMutation {
    /// Creates a project.
    async fn create_project(&self, ctx: &Context<'_>, input: CreateProjectInput) -> Answer<ProjectPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::CreateProject {
            organization,
            name: input.name,
            slug: input.slug,
            metadata: input.metadata.map(|metadata| metadata.0),
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, None, case).await
    }

    /// Changes name, slug or metadata.
    async fn update_project(&self, ctx: &Context<'_>, input: UpdateProjectInput) -> Answer<ProjectPayload> {
        let metadata = input.metadata.map(|metadata| metadata.0);
        let change = Change::Update { name: input.name, slug: input.slug, metadata };
        let case = id("projectId", &input.project_id).map(|project| cases::ChangeProject {
            project,
            change,
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }

    /// Puts a project aside.
    async fn archive_project(&self, ctx: &Context<'_>, input: ProjectCommandInput) -> Answer<ProjectPayload> {
        change(ctx, input, Change::Archive).await
    }

    /// Takes an archived project up again.
    async fn unarchive_project(&self, ctx: &Context<'_>, input: ProjectCommandInput) -> Answer<ProjectPayload> {
        change(ctx, input, Change::Unarchive).await
    }

    /// Deletes a project; it can be restored until purgeAt.
    async fn delete_project(&self, ctx: &Context<'_>, input: ProjectCommandInput) -> Answer<ProjectPayload> {
        change(ctx, input, Change::Delete).await
    }

    /// Restores a deleted project.
    async fn restore_project(&self, ctx: &Context<'_>, input: ProjectCommandInput) -> Answer<ProjectPayload> {
        change(ctx, input, Change::Restore).await
    }
}
