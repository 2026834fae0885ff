//! Descriptions that the schema needs in many places and the engine's derives take from nowhere: arguments that mean the
//! same everywhere, connections, and fields of interfaces. Each is written once, here.

use async_graphql::registry::{MetaType, Registry};

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
        "search" => "Only those whose name or slug begins with this.",
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

/// Describes what is not described yet.
pub fn complete(registry: &mut Registry) {
    for directive in registry.directives.values_mut() {
        for (name, argument) in &mut directive.args {
            describe(&mut argument.description, of_argument(name).map(str::to_owned));
        }
    }
    for (type_name, meta) in &mut registry.types {
        let of_type = || {
            let node = type_name.strip_suffix("Connection")?;
            Some(format!("A page of a list of {node}, with what leads to the other pages."))
        };
        match meta {
            MetaType::Object { description, fields, .. } => {
                describe(description, of_type());
                for field in fields.values_mut() {
                    for (name, argument) in &mut field.args {
                        describe(&mut argument.description, of_argument(name).map(str::to_owned));
                    }
                }
            }
            MetaType::Interface { fields, .. } if type_name == "Actor" => {
                let about = |name: &str| match name {
                    "id" => "The id of the user or token; of the service itself, `system`.",
                    _ => "How people call it.",
                };
                fields
                    .iter_mut()
                    .for_each(|(name, field)| describe(&mut field.description, Some(about(name).to_owned())));
            }
            MetaType::Interface { fields, .. } if type_name == "UserError" => {
                let about = |name: &str| super::errors::about(name).map(str::to_owned);
                fields.iter_mut().for_each(|(name, field)| describe(&mut field.description, about(name)));
            }
            _ => {}
        }
        if let MetaType::Object { fields, .. } = meta
            && super::errors::KINDS.contains(&type_name.as_str())
        {
            let about = |name: &str| super::errors::about(name).map(str::to_owned);
            fields.iter_mut().for_each(|(name, field)| describe(&mut field.description, about(name)));
        }
    }
}

fn describe(description: &mut Option<String>, with: Option<String>) {
    if description.as_ref().is_none_or(String::is_empty) {
        *description = with;
    }
}
