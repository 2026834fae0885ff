//! Projects.

use serde_json::json;

use super::{List, Plan, Planned, Planner, give};

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
