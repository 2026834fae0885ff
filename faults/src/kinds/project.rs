//! Projects.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::organization::is_not_held;
use super::{By, Kind, Limit, Rule, Status};
use crate::check::fold::Fold;
use crate::check::model::{Model, Place};
use crate::check::tables::{Rows, Table};

/// The limit of live projects.
const PROJECTS: &str = "projects";

/// A project.
#[derive(Debug, Clone, Default)]
pub struct Project {
    pub place: Place,
    pub slug: String,
    pub name: String,
    pub metadata: Value,
    pub state: String,
    pub before_deletion: String,
    pub purge_at: Option<DateTime<Utc>>,
    pub purged: bool,
    pub created_at: Option<DateTime<Utc>>,
}

pub static KIND: Kind = Kind {
    name: "Project",
    prefix: "prj",
    rules: &[RULES],
    fold,
    after: &[],
    limit: Some(Limit { name: PROJECTS, default: None }),
    tables: &[Table {
        name: "projects",
        check: "the read model of projects equals a fold of the log",
        statement: "SELECT id, to_jsonb(t) FROM projects_1.projects t",
        rows,
    }],
};

const UPDATE: By = By::May(&["project:read", "project:update"]);
const DELETE: By = By::May(&["project:read", "project:delete"]);

const RULES: &[Rule] = &[
    Rule::of("ProjectCreated", Status::Create, &[By::May(&["project:create"])]),
    Rule::of("ProjectRenamed", Status::Change, &[UPDATE]),
    Rule::of("ProjectSlugChanged", Status::Change, &[UPDATE]),
    Rule::of("ProjectMetadataChanged", Status::Change, &[UPDATE]),
    Rule::of("ProjectArchived", Status::Change, &[UPDATE]),
    Rule::of("ProjectUnarchived", Status::Change, &[UPDATE]),
    Rule::of("ProjectDeleted", Status::Change, &[DELETE]),
    Rule::of("ProjectRestored", Status::Change, &[DELETE]),
    Rule::of("ProjectPurged", Status::Any, &[By::Service])
        .due(|case| case.before::<Project>().and_then(|project| project.purge_at))
        .also(is_not_held)
        .after_purge(),
];

const UNIQUE: &str = "a project's slug is unique";

fn fold(fold: &mut Fold<'_>) {
    let event = fold.event;
    let mut state: Project = fold.take();
    fold.expect(state.place.is_new() == (event.name == "ProjectCreated") && !state.purged);
    state.place.move_to(event);
    match event.name.as_str() {
        "ProjectCreated" => create(&mut state, fold),
        "ProjectRenamed" | "ProjectSlugChanged" | "ProjectMetadataChanged" => update(&mut state, fold),
        "ProjectArchived" => {
            fold.expect(state.state == "ACTIVE");
            state.state = "ARCHIVED".to_owned();
        }
        "ProjectUnarchived" => {
            fold.expect(state.state == "ARCHIVED");
            state.state = "ACTIVE".to_owned();
        }
        "ProjectDeleted" => delete(&mut state, fold),
        "ProjectRestored" => restore(&mut state, fold),
        "ProjectPurged" => {
            fold.expect(state.state == "DELETED" && event.text("slug") == state.slug);
            state.purged = true;
        }
        _ => fold.unknown(),
    }
    let (shown, more) = (state.state.clone(), state.slug.clone());
    fold.put(state, &shown, &more);
}

fn create(state: &mut Project, fold: &mut Fold<'_>) {
    let event = fold.event;
    state.name = event.text("name").to_owned();
    state.slug = event.text("slug").to_owned();
    state.metadata = event.body["metadata"].clone();
    state.created_at = event.time("created_at");
    (state.state, state.before_deletion) = ("ACTIVE".to_owned(), "ACTIVE".to_owned());
    fold.claim("project_slug", &state.slug, UNIQUE);
    fold.count(PROJECTS, 1);
}

fn update(state: &mut Project, fold: &mut Fold<'_>) {
    let event = fold.event;
    fold.expect(matches!(state.state.as_str(), "ACTIVE" | "ARCHIVED"));
    match event.name.as_str() {
        "ProjectRenamed" => {
            fold.expect(event.text("previous_name") == state.name);
            state.name = event.text("name").to_owned();
        }
        "ProjectSlugChanged" => {
            fold.expect(event.text("previous_slug") == state.slug);
            fold.release("project_slug", event.text("previous_slug"));
            fold.claim("project_slug", event.text("slug"), UNIQUE);
            state.slug = event.text("slug").to_owned();
        }
        _ => {
            fold.expect(event.body["previous_metadata"] == state.metadata);
            state.metadata = event.body["metadata"].clone();
        }
    }
}

fn delete(state: &mut Project, fold: &mut Fold<'_>) {
    let event = fold.event;
    let before = event.text("previous_project_state");
    fold.expect(before == state.state && before != "DELETED" && event.text("slug") == state.slug);
    state.before_deletion = std::mem::replace(&mut state.state, "DELETED".to_owned());
    state.purge_at = event.time("purge_at");
    fold.release("project_slug", event.text("slug"));
    fold.count(PROJECTS, -1);
}

fn restore(state: &mut Project, fold: &mut Fold<'_>) {
    let event = fold.event;
    fold.expect(state.state == "DELETED" && event.text("project_state") == state.before_deletion);
    fold.expect(event.text("slug") == state.slug);
    state.state = event.text("project_state").to_owned();
    state.purge_at = None;
    fold.claim("project_slug", event.text("slug"), UNIQUE);
    fold.count(PROJECTS, 1);
}

fn rows(model: &Model) -> Rows {
    let shown = model.all::<Project>().filter(|(_, p)| !p.purged && model.shows(&p.place.organization));
    let row = |p: &Project| {
        p.place.row(json!({
            "slug": p.slug, "name": p.name, "metadata": p.metadata, "state": p.state,
            "before_deletion": p.before_deletion, "purge_at": p.purge_at, "created_at": p.created_at,
        }))
    };
    shown.map(|(id, p)| (id.clone(), row(p))).collect()
}

/// What the clients do with it.
pub mod plans {
use serde_json::json;

use crate::clients::plans::{List, Plan, Planned, Planner, give};

pub const LISTS: &[List] = &[List {
    name: "projects",
    prefix: "prj",
    fields: "id version state slug",
    parts: &["(last: 40)", "(last: 10, state: DELETED)"],
}];

const PROJECT: &str = "project { id version }";
const SLUGS: u32 = 6;

const fn change(mutation: &'static str, weight: u32) -> Plan {
    Plan { mutation, weight, input: "ProjectCommandInput", select: PROJECT, make: change_project }
}

pub const PLANS: &[Plan] = &[
    Plan { mutation: "createProject", weight: 14, input: "CreateProjectInput", select: PROJECT, make: create },
    Plan { mutation: "updateProject", weight: 7, input: "UpdateProjectInput", select: PROJECT, make: change_project },
    change("archiveProject", 3),
    change("unarchiveProject", 3),
    change("deleteProject", 10),
    change("restoreProject", 5),
];

pub fn create(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let slug = format!("p{}", planner.below(SLUGS));
    let input = json!({"organizationId": planner.id(), "name": slug, "slug": slug,
                       "metadata": {"n": planner.below(1000)}});
    Some(give(mutation, planner.actor()?, input, None))
}

fn change_project(planner: &mut Planner<'_>, mutation: &'static str) -> Option<Planned> {
    let wanted = match mutation {
        "archiveProject" => "ACTIVE",
        "unarchiveProject" => "ARCHIVED",
        "restoreProject" => "DELETED",
        _ => "",
    };
    let project = planner.thing("projects", 0.85, |project| wanted.is_empty() || project.state == wanted)?;
    let mut input = json!({"projectId": project.id});
    if mutation == "updateProject" {
        let number = planner.below(SLUGS);
        match planner.below(3) {
            0 => input["slug"] = json!(format!("p{number}")),
            1 => input["name"] = json!(format!("Project {number}")),
            _ => input["metadata"] = json!({"n": number}),
        }
    }
    Some(give(mutation, planner.actor()?, input, Some(project.version)))
}
}
