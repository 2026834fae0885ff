//! Commands of projects.

use aggregates::Project;
use aggregates::ids::{OrganizationId, ProjectId};
use aggregates::project::ProjectCommand;
use aggregates::roles::Permission;
use aggregates::status::Capability;
use serde::Serialize;
use serde_json::Value;

use super::standing::Standing;
use super::work::{Entity, Stop, Work};
use super::{Fault, UseCase, later};

/// Creates a project.
#[derive(Debug, Serialize)]
pub struct CreateProject {
    /// In which organization.
    pub organization: OrganizationId,
    /// The display name.
    pub name: String,
    /// The slug.
    pub slug: String,
    /// What the client attaches.
    pub metadata: Option<Value>,
    /// Why, where an operator does it.
    pub reason: Option<String>,
}

impl UseCase for CreateProject {
    const OPERATION: &'static str = "createProject";

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let standing = Standing::of(work, &self.organization).await?;
        standing.require(work, Some(Capability::CreateResources), Permission::ProjectCreate, self.reason.as_deref())?;
        let (id, before) = work.create::<Project>().await?;
        let events = before.state.decide(ProjectCommand::Create {
            id: id.to_string(),
            name: self.name.clone(),
            slug: self.slug.clone(),
            metadata: self.metadata.clone(),
            reason: self.reason.clone(),
            at: work.now,
        })?;
        let after = work.record(&id, &before, events);
        work.entities = vec![Entity::new(id, after)];
        Ok(())
    }
}

/// What is done to one project.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Change {
    /// Other name, slug or metadata.
    Update {
        /// The display name.
        name: Option<String>,
        /// The slug.
        slug: Option<String>,
        /// What the client attaches.
        metadata: Option<Value>,
    },
    /// Put aside.
    Archive,
    /// Taken up again.
    Unarchive,
    /// Deleted.
    Delete,
    /// Restored.
    Restore,
}

/// Changes one project.
#[derive(Debug, Serialize)]
pub struct ChangeProject {
    /// Which project.
    pub project: ProjectId,
    /// What is done.
    pub change: Change,
    /// Why.
    pub reason: Option<String>,
}

impl UseCase for ChangeProject {
    const OPERATION: &'static str = "changeProject";

    fn operation(&self) -> &'static str {
        match self.change {
            Change::Update { .. } => "updateProject",
            Change::Archive => "archiveProject",
            Change::Unarchive => "unarchiveProject",
            Change::Delete => "deleteProject",
            Change::Restore => "restoreProject",
        }
    }

    async fn decide(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let project = work.load::<Project>(&self.project).await?;
        let owner = project.organization.as_ref().filter(|_| project.state.is_present());
        let standing = Standing::of_owner(work, owner, self.project.as_ref()).await?;
        if !standing.may(Permission::ProjectRead) && !standing.operator {
            return Err(Fault::NotFound.into());
        }
        let permission = match self.change {
            Change::Update { .. } | Change::Archive | Change::Unarchive => Permission::ProjectUpdate,
            Change::Delete | Change::Restore => Permission::ProjectDelete,
        };
        standing.require(work, Some(Capability::ChangeResources), permission, self.reason.as_deref())?;
        work.expect_version(project.version)?;
        let reason = self.reason.clone();
        let command = match self.change.clone() {
            Change::Update { name, slug, metadata } => ProjectCommand::Update { name, slug, metadata, reason },
            Change::Archive => ProjectCommand::Archive { reason },
            Change::Unarchive => ProjectCommand::Unarchive { reason },
            Change::Delete => ProjectCommand::Delete { reason, purge_at: later(work.now, work.rules().restore) },
            Change::Restore => ProjectCommand::Restore { reason, at: work.now },
        };
        let events = project.state.decide(command)?;
        let after = work.record(&self.project, &project, events);
        work.entities = vec![Entity::new(self.project.clone(), after)];
        Ok(())
    }
}
