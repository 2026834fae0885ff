//! A project: something that an organization works on, with a slug of its own among the organization's.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Refusal;
use crate::event::{Field, Kind, shown};
use crate::guard::{Effect, Scope, Taken};
use crate::resource::{Change, Limit, Place, Resource};
use crate::{aggregate, text};

/// Live projects.
pub const PROJECTS: Limit = Limit { name: "projects", maximum_min: 0, maximum_default: None };

/// Where a project stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProjectState {
    /// In use.
    #[default]
    Active,
    /// Put aside.
    Archived,
    /// Deleted; restorable until it is purged.
    Deleted,
}

impl Field for ProjectState {
    const KIND: Kind = Kind { name: "ProjectState", list: false, nullable: false, hidden: false };
}

crate::events! {
    /// What can happen to a project.
    pub enum ProjectEvent {
        /// The project exists from here on.
        ProjectCreated "1.0" {
            /// Its display name.
            name: String,
            /// Its short name, unique among the organization's live projects.
            slug: String,
            /// What the client attached.
            metadata: Value,
            /// When it was created.
            created_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The project has another display name.
        ProjectRenamed "1.0" {
            /// The new name.
            name: String,
            /// The name before.
            previous_name: String,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The project has another slug; the old one is free.
        ProjectSlugChanged "1.0" {
            /// The new slug.
            slug: String,
            /// The slug before.
            previous_slug: String,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The project has other metadata.
        ProjectMetadataChanged "1.0" {
            /// The new metadata.
            metadata: Value,
            /// The metadata before.
            previous_metadata: Value,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The project was put aside.
        ProjectArchived "1.0" {
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The project is in use again.
        ProjectUnarchived "1.0" {
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The project was deleted; its slug is free, and it can be restored until it is purged.
        ProjectDeleted "1.0" {
            /// The slug that it had.
            slug: String,
            /// The state before, to which a restored project returns.
            previous_project_state: ProjectState,
            /// When it will be gone for good.
            purge_at: DateTime<Utc>,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The deleted project is back.
        ProjectRestored "1.0" {
            /// The slug that it has again.
            slug: String,
            /// The state from now on.
            project_state: ProjectState,
            /// Why, where a reason was given.
            reason: Option<String>,
        }
        /// The project is gone for good.
        ProjectPurged "1.0" {
            /// The slug that it had.
            slug: String,
        }
    }
}

impl ProjectEvent {
    /// Which claims and tallies this event changes: the slug and the place are taken while it lives.
    pub fn effects(&self) -> Vec<Effect> {
        use ProjectEvent as E;
        let claim = |key: &String| Effect::Claim { scope: Project::SLUG, key: key.clone(), until: None };
        let release = |key: &String| Effect::Release { scope: Project::SLUG, key: key.clone() };
        match self {
            E::ProjectCreated { slug, .. } | E::ProjectRestored { slug, .. } => {
                vec![claim(slug), Effect::tally(PROJECTS, 1)]
            }
            E::ProjectSlugChanged { slug, previous_slug, .. } => vec![release(previous_slug), claim(slug)],
            E::ProjectDeleted { slug, .. } => vec![release(slug), Effect::tally(PROJECTS, -1)],
            E::ProjectRenamed { .. }
            | E::ProjectMetadataChanged { .. }
            | E::ProjectArchived { .. }
            | E::ProjectUnarchived { .. }
            | E::ProjectPurged { .. } => vec![],
        }
    }
}

/// What is known of a project.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Project {
    /// Whether it was ever created.
    pub exists: bool,
    /// Whether it is gone for good.
    pub purged: bool,
    /// Its display name.
    pub name: String,
    /// Its short name.
    pub slug: String,
    /// What the client attached: a JSON object.
    pub metadata: Value,
    /// Where it stands.
    pub state: ProjectState,
    /// Where it returns to when restored.
    pub before_deletion: ProjectState,
    /// When the deleted project is gone for good.
    pub purge_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// What can be asked of a project.
#[derive(Debug, Clone, PartialEq)]
pub enum ProjectCommand {
    /// Create it.
    Create {
        /// Its id, for refusals.
        id: String,
        /// Its display name.
        name: String,
        /// Its slug.
        slug: String,
        /// What the client attaches.
        metadata: Option<Value>,
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Change it; what is `None` stays.
    Update {
        /// The display name.
        name: Option<String>,
        /// The slug.
        slug: Option<String>,
        /// What the client attaches.
        metadata: Option<Value>,
        /// Why.
        reason: Option<String>,
    },
    /// Put it aside.
    Archive {
        /// Why.
        reason: Option<String>,
    },
    /// Take it up again.
    Unarchive {
        /// Why.
        reason: Option<String>,
    },
    /// Delete it.
    Delete {
        /// Why.
        reason: Option<String>,
        /// When it will be gone for good.
        purge_at: DateTime<Utc>,
    },
    /// Restore it.
    Restore {
        /// Why.
        reason: Option<String>,
        /// Now.
        at: DateTime<Utc>,
    },
    /// Let it go for good, once its time has come.
    Purge {
        /// Now.
        at: DateTime<Utc>,
    },
}

impl Project {
    /// Slugs of an organization's live projects.
    pub const SLUG: Scope =
        Scope::of_organization("project_slug", Taken::Exists("slug", "this slug is taken: choose another"));

    /// Whether it is there: created and not purged.
    pub fn is_present(&self) -> bool {
        self.exists && !self.purged
    }

    /// The events that `command` makes of this state.
    pub fn decide(&self, command: ProjectCommand) -> Result<Vec<ProjectEvent>, Refusal> {
        use ProjectCommand as C;
        use ProjectEvent as E;
        use ProjectState as S;
        if let C::Create { id, name, slug, metadata, reason, at } = command {
            if self.exists {
                let message = "this project exists already".to_owned();
                return Err(Refusal::AlreadyExists { path: "slug", message, existing: id });
            }
            return Ok(vec![E::ProjectCreated {
                name: text::name("name", &name)?,
                slug: text::slug("slug", &slug)?,
                metadata: object(metadata)?,
                created_at: at,
                reason: text::reason("reason", reason.as_deref())?,
            }]);
        }
        if !self.is_present() {
            return Err(Refusal::NotFound);
        }
        let why = |reason: Option<String>| text::reason("reason", reason.as_deref());
        match (command, self.state) {
            (C::Update { name, slug, metadata, reason }, S::Active | S::Archived) => {
                self.update(name, slug, metadata, why(reason)?)
            }
            (C::Archive { reason }, S::Active) => Ok(vec![E::ProjectArchived { reason: why(reason)? }]),
            (C::Unarchive { reason }, S::Archived) => Ok(vec![E::ProjectUnarchived { reason: why(reason)? }]),
            (C::Delete { reason, purge_at }, S::Active | S::Archived) => Ok(vec![E::ProjectDeleted {
                slug: self.slug.clone(),
                previous_project_state: self.state,
                purge_at,
                reason: why(reason)?,
            }]),
            (C::Restore { at, .. }, S::Deleted) if self.purge_at.is_some_and(|purge_at| purge_at <= at) => {
                Err(Refusal::InvalidState("the time in which the project could be restored is over".into()))
            }
            (C::Restore { reason, .. }, S::Deleted) => Ok(vec![E::ProjectRestored {
                slug: self.slug.clone(),
                project_state: self.before_deletion,
                reason: why(reason)?,
            }]),
            (C::Purge { at }, S::Deleted) if self.purge_at.is_some_and(|purge_at| purge_at <= at) => {
                Ok(vec![E::ProjectPurged { slug: self.slug.clone() }])
            }
            (C::Create { .. }, _) => unreachable!("answered above"),
            (C::Purge { .. }, _) => Err(Refusal::InvalidState("the project's time has not come".into())),
            (C::Update { .. } | C::Delete { .. } | C::Archive { .. } | C::Unarchive { .. }, S::Deleted) => {
                Err(Refusal::InvalidState("the project is deleted: restore it first".into()))
            }
            (C::Archive { .. }, S::Archived) => Err(Refusal::InvalidState("the project is archived already".into())),
            (C::Unarchive { .. }, S::Active) => Err(Refusal::InvalidState("the project is not archived".into())),
            (C::Restore { .. }, S::Active | S::Archived) => {
                Err(Refusal::InvalidState("the project is not deleted".into()))
            }
        }
    }

    fn update(
        &self,
        name: Option<String>,
        slug: Option<String>,
        metadata: Option<Value>,
        reason: Option<String>,
    ) -> Result<Vec<ProjectEvent>, Refusal> {
        use ProjectEvent as E;
        let mut events = vec![];
        if let Some(name) = name.map(|name| text::name("name", &name)).transpose()?.filter(|name| *name != self.name) {
            events.push(E::ProjectRenamed { name, previous_name: self.name.clone(), reason: reason.clone() });
        }
        if let Some(slug) = slug.map(|slug| text::slug("slug", &slug)).transpose()?.filter(|slug| *slug != self.slug) {
            events.push(E::ProjectSlugChanged { slug, previous_slug: self.slug.clone(), reason: reason.clone() });
        }
        if let Some(metadata) = metadata {
            let metadata = object(Some(metadata))?;
            if metadata != self.metadata {
                events.push(E::ProjectMetadataChanged { metadata, previous_metadata: self.metadata.clone(), reason });
            }
        }
        Ok(events)
    }

    fn apply(&mut self, event: ProjectEvent) {
        use ProjectEvent as E;
        match event {
            E::ProjectCreated { name, slug, metadata, created_at, reason: _ } => {
                *self = Self { exists: true, name, slug, metadata, created_at, ..Self::default() };
            }
            E::ProjectRenamed { name, .. } => self.name = name,
            E::ProjectSlugChanged { slug, .. } => self.slug = slug,
            E::ProjectMetadataChanged { metadata, .. } => self.metadata = metadata,
            E::ProjectArchived { .. } => self.state = ProjectState::Archived,
            E::ProjectUnarchived { .. } => self.state = ProjectState::Active,
            E::ProjectDeleted { previous_project_state, purge_at, .. } => {
                self.before_deletion = previous_project_state;
                self.state = ProjectState::Deleted;
                self.purge_at = Some(purge_at);
            }
            E::ProjectRestored { project_state, .. } => {
                self.state = project_state;
                self.purge_at = None;
            }
            E::ProjectPurged { .. } => self.purged = true,
        }
    }
}

/// Metadata is an object, so that clients can add to it; null and nothing are the empty one.
fn object(metadata: Option<Value>) -> Result<Value, Refusal> {
    match metadata.filter(|metadata| !metadata.is_null()) {
        None => Ok(Value::Object(Default::default())),
        Some(metadata) if metadata.is_object() => {
            text::json("metadata", &metadata, text::METADATA_BYTES_MAX)?;
            Ok(metadata)
        }
        Some(_) => Err(Refusal::input("metadata", "metadata is no JSON object: give one like {\"key\": \"value\"}")),
    }
}

impl Resource for Project {
    const PLACE: Place = Place::WithinOrganization;
    const LIMIT: Option<Limit> = Some(PROJECTS);
    const CLAIMS: &'static [Scope] = &[Self::SLUG];
    const HAS_KEY: bool = false;
    const DECIDES_ACCESS: bool = false;
    const HEADING: Option<&'static str> = Some("projects");

    fn destroys_key(_: &ProjectEvent) -> bool {
        false
    }

    fn expiry(_: DateTime<Utc>) -> Option<ProjectCommand> {
        None
    }

    fn purge(at: DateTime<Utc>) -> Option<ProjectCommand> {
        Some(ProjectCommand::Purge { at })
    }

    fn change(event: &ProjectEvent) -> Change {
        use Change as C;
        use ProjectEvent as E;
        match event {
            E::ProjectCreated { .. } => C::Create,
            E::ProjectRenamed { .. } | E::ProjectSlugChanged { .. } | E::ProjectMetadataChanged { .. } => C::Update,
            E::ProjectArchived { .. } => C::Deactivate,
            E::ProjectUnarchived { .. } => C::Activate,
            E::ProjectDeleted { .. } | E::ProjectPurged { .. } => C::Delete,
            E::ProjectRestored { .. } => C::Other("Restore"),
        }
    }

    fn is_gone(&self) -> bool {
        self.purged
    }

    fn facts(&self, _: DateTime<Utc>) -> Vec<(&'static str, String)> {
        vec![
            ("name", Value::from(self.name.as_str()).to_string()),
            ("slug", self.slug.clone()),
            ("metadata", self.metadata.to_string()),
            ("state", shown(self.state)),
        ]
    }

    fn document_bytes(&self) -> usize {
        self.metadata.to_string().len()
    }
}

aggregate!(Project, "Project", ProjectCommand, ProjectEvent, shape 1, personal []);
