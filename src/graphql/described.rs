//! Descriptions that the schema needs in many places and the engine's derives take from nowhere: arguments that mean the
//! same everywhere, connections, and fields of interfaces. Each is written once, here.

use async_graphql::registry::{MetaType, Registry};

use super::errors;

/// What an argument of this name means, wherever it stands.
fn of_argument(name: &str) -> Option<&'static str> {
    Some(match name {
        "input" => "What the command is to do.",
        "first" => "How many from the beginning: 1 to 100; 20 where neither `first` nor `last` is given.",
        "after" => "Only what comes after this cursor.",
        "last" => "How many from the end: 1 to 100.",
        "before" => "Only what comes before this cursor.",
        "atLeast" => "Positions that the read models must have reached: it is waited for them, else STALE_READ.",
        "id" => "The id.",
        "ids" => "The ids: 100 at most.",
        "organizationId" => "Of which organization.",
        "userId" => "Of which user; the caller, where nobody is named.",
        "membershipId" => "Of which member.",
        "filter" => "Only these events.",
        "state" => "Only those in this state.",
        "role" => "Only those who hold this role.",
        "by" => "By what it is named.",
        "verification" => "Only those with this status of verification.",
        "lifecycle" => "Only those in this part of their life.",
        "search" => "Only those whose name or slug holds this text; case does not count.",
        "token" => "The token, as it was sent to the invited person.",
        "namespace" => "Which document, such as `branding` or `policies`.",
        "asOf" => "Which moment.",
        "auditSequence" => "Which event, by its number within the organization.",
        "treeSize" => "In the tree of this many events; in the newest, without.",
        "fromSize" => "Number of events of the older tree.",
        "toSize" => "Number of events of the newer tree; of the newest, without.",
        "actions" => "Only events of these kinds.",
        "if" => "Whether it holds.",
        _ => return None,
    })
}

/// What a field means that the types of refusals share, or those of actors.
fn of_shared_field(type_name: &str, field: &str) -> Option<&'static str> {
    match (type_name, field) {
        ("Actor", "id") => Some("The id of the user or token; of the service itself, `system`."),
        ("Actor", "label") => Some("How people call it."),
        (name, field) if name == "UserError" || errors::KINDS.contains(&name) => errors::about(field),
        _ => None,
    }
}

/// Describes what is not described yet.
pub fn complete(registry: &mut Registry) {
    let directives = registry.directives.values_mut().flat_map(|directive| &mut directive.args);
    directives.for_each(|(name, argument)| describe(&mut argument.description, of_argument(name)));
    for (type_name, meta) in &mut registry.types {
        if let (MetaType::Object { description, .. }, Some(node)) = (&mut *meta, type_name.strip_suffix("Connection")) {
            let page = format!("A page of a list of {node}, with what leads to the other pages.");
            describe(description, Some(&page));
        }
        let (MetaType::Object { fields, .. } | MetaType::Interface { fields, .. }) = meta else { continue };
        for (name, field) in fields {
            describe(&mut field.description, of_shared_field(type_name, name));
            for (name, argument) in &mut field.args {
                describe(&mut argument.description, of_argument(name));
            }
        }
    }
}

fn describe(description: &mut Option<String>, with: Option<&str>) {
    if description.as_ref().is_none_or(String::is_empty) {
        *description = with.map(str::to_owned);
    }
}
