//! Projects.

use std::sync::Arc;

use aggregates::Limit;
use aggregates::ids::{Id, ProjectId};
use aggregates::project::PROJECTS;
use aggregates::roles::Permission;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Json, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Postgres, QueryBuilder};

use super::Organization;
use super::connection::{BY_CREATION, Called, Created, PageArguments, cost};
use super::lists::{ConnectionOf, Holds, List, Sorted, Total, row};
use super::node::{Seeing, Shown};
use super::organization::Profile;
use super::payload::{Answer, payloads, run};
use super::scalars::{Document, ProjectState, Time, int, name, named, stored};
use super::session::{Session, id};
use crate::commands::projects::{self as cases, Change};
use crate::log::Loaded;

/// Which projects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProjectList {
    /// In this state; else those that are not deleted.
    state: Option<String>,
}

impl List for ProjectList {
    type Row = Project;
    type Node = Project;
    const PREFIX: &'static str = ProjectId::PREFIX;
    const SELECT: &'static [&'static str] = Project::SELECT;
    const READ: &'static [Permission] = &[Permission::ProjectRead];
    type Place = Created;
    const BY: (&'static str, &'static str) = BY_CREATION;
    type Extra = Total;

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        match &self.state {
            Some(state) => query.push(" AND state = ").push_bind(state.clone()),
            None => query.push(" AND state <> 'DELETED'"),
        };
    }

    fn holds(&self, _: &[Self::Row]) -> Holds {
        Holds::UntilEvents
    }

    fn place(row: &Project) -> Created {
        Created { at: row.created_at, id: row.id.clone() }
    }

    fn counted(&self) -> Option<Limit> {
        self.state.is_none().then_some(PROJECTS)
    }
}

/// Projects by their names.
#[derive(Debug, Clone)]
pub struct ProjectsCalled(ProjectList);

impl List for ProjectsCalled {
    type Row = Sorted<Project>;
    type Node = Project;
    const PREFIX: &'static str = ProjectId::PREFIX;
    const SELECT: &'static [&'static str] = &[Project::COLUMNS, ", lower(name) AS word FROM projects"];
    const READ: &'static [Permission] = ProjectList::READ;
    type Place = Called;
    const BY: (&'static str, &'static str) = ("lower(name)", "id");
    type Extra = Total;

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        self.0.push(query);
    }

    fn holds(&self, _: &[Self::Row]) -> Holds {
        Holds::UntilEvents
    }

    fn place(row: &Self::Row) -> Called {
        row.place(|project| &project.id)
    }

    fn counted(&self) -> Option<Limit> {
        self.0.counted()
    }
}

impl From<Sorted<Project>> for Project {
    fn from(sorted: Sorted<Self>) -> Self {
        sorted.into_row()
    }
}

row! {
    /// Something that an organization works on.
    pub struct Project of "projects" {
        id: String,
        organization_id: String,
        slug: String,
        name: String,
        metadata: sqlx::types::Json<Value>,
        state: String,
        purge_at: Option<DateTime<Utc>>,
        created_at: DateTime<Utc>,
        version: i64,
    }
}

impl Shown for Project {
    type Of = aggregates::Project;

    fn new(id: ProjectId, loaded: &Loaded<aggregates::Project>) -> Option<Self> {
        let state = &loaded.state;
        Some(Self {
            id: id.into(),
            organization_id: loaded.organization.clone()?.into(),
            slug: state.slug.clone(),
            name: state.name.clone(),
            metadata: sqlx::types::Json(state.metadata.clone()),
            state: name(state.state),
            purge_at: state.purge_at,
            created_at: state.created_at,
            version: loaded.version.cast_signed(),
        })
    }

    async fn is_visible(session: &Session, id: &ProjectId, loaded: &Loaded<aggregates::Project>) -> Seeing {
        let seen = session.see_owner(loaded.organization.as_ref(), id.as_ref()).await?;
        // While the organization is deleted, its projects are gone.
        Ok(loaded.state.is_present()
            && seen.is_some_and(|seen| !seen.is_deleted() && seen.may(Permission::ProjectRead)))
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
        Organization::of(ctx, &self.organization_id).await
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
        Document(&self.metadata.0)
    }
    /// Where it stands.
    async fn state(&self) -> ProjectState {
        named::<aggregates::project::ProjectState>(&self.state).into()
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
        int(self.version.unsigned_abs())
    }
}

/// How projects are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Enum)]
pub enum ProjectOrder {
    /// By when they were created.
    #[default]
    Created,
    /// By name.
    Name,
}

/// What an organization shows of its projects.
#[derive(Clone)]
pub struct Projects(pub Arc<Profile>);

#[Object]
impl Projects {
    /// Projects; without a state, those that are not deleted.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn projects(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
        state: Option<ProjectState>,
        #[graphql(desc = "In which order.", default)] order_by: ProjectOrder,
    ) -> Option<async_graphql::Result<ConnectionOf<ProjectList>>> {
        // That its projects are gone while it is deleted is derived, so restoring brings back exactly what was.
        if self.0.is_deleted() {
            let none = || Connection::with_additional_fields(false, false, Total(None));
            return Some(self.0.require(ctx, ProjectList::READ).await.map(|()| none()));
        }
        let list = ProjectList { state: state.map(stored) };
        let page = PageArguments { first, after, last, before };
        Some(match order_by {
            ProjectOrder::Created => self.0.list(ctx, list, page).await,
            ProjectOrder::Name => self.0.list(ctx, ProjectsCalled(list), page).await,
        })
    }
}

payloads! {
    /// What became of a command on a project.
    ProjectPayload {
        /// The project after the command.
        project: Option<Project> = Project::after,
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
