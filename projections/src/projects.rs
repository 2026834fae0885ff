//! Projects.

use aggregates::Recorded;
use aggregates::project::{ProjectEvent, ProjectState};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::read_model::{Named, projection_of_rows, read_model};

read_model! {
    projects of Project in organization_id {
        slug: String,
        name: String,
        metadata: Value,
        state: Named<ProjectState>,
        before_deletion: Named<ProjectState>,
        purge_at: Option<DateTime<Utc>>,
    }
    personal [name]
}

projection_of_rows!();

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &ProjectEvent) {
        use ProjectEvent as E;
        match event {
            E::ProjectCreated { name, slug, metadata, created_at, reason: _ } => {
                self.begin(recorded, *created_at);
                self.name = name.clone();
                self.slug = slug.clone();
                self.metadata = metadata.clone();
                self.state = Named(ProjectState::Active);
            }
            E::ProjectRenamed { name, .. } => self.name = name.clone(),
            E::ProjectSlugChanged { slug, .. } => self.slug = slug.clone(),
            E::ProjectMetadataChanged { metadata, .. } => self.metadata = metadata.clone(),
            E::ProjectArchived { .. } => self.state = Named(ProjectState::Archived),
            E::ProjectUnarchived { .. } => self.state = Named(ProjectState::Active),
            E::ProjectDeleted { previous_project_state, purge_at, .. } => {
                self.before_deletion = Named(*previous_project_state);
                self.state = Named(ProjectState::Deleted);
                self.purge_at = Some(*purge_at);
            }
            E::ProjectRestored { project_state, .. } => {
                self.state = Named(*project_state);
                self.purge_at = None;
            }
            E::ProjectPurged { .. } => self.gone = true,
        }
    }
}
