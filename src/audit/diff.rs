//! What changed between two points, for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use aggregates::Personal;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::as_of::Snapshot;

/// Facts by what they are about, in the order in which they are shown.
type Facts = BTreeMap<String, String>;

/// The headings of what is no aggregate of its own. They come before the others.
const OWN_HEADINGS: [&str; 3] = ["organization", "settings", "limits"];

/// The stored name of a state.
fn name(state: impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// Personal values are not printed, but their changes are.
fn sealed(personal: &Personal) -> String {
    let hash = Sha256::digest(serde_json::to_string(personal).unwrap_or_default());
    let short: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("(sealed {short})")
}

/// What stands under a heading: each thing with its facts.
fn under(heading: &str, Snapshot { moment, fold, .. }: &Snapshot) -> BTreeMap<(u64, String), Facts> {
    let one = |facts: Facts| BTreeMap::from([((0, String::new()), facts)]);
    let text = |text: &str| Value::from(text).to_string();
    match heading {
        "organization" => {
            let state = &fold.organization;
            let own_roles = state
                .roles
                .0
                .iter()
                .map(|(name, role)| (format!("role {name}"), serde_json::to_string(role).unwrap_or_default()));
            let offer = state.ownership_offer.as_ref().map(|offer| offer.user_id.to_string());
            let facts = [
                ("name", text(&state.name)),
                ("slug", state.slug.clone()),
                ("contact address", state.contact_email.as_ref().map_or("none".to_owned(), sealed)),
                ("external id", state.external_id.as_deref().map_or("none".to_owned(), text)),
                ("verification", name(state.status.verification)),
                ("lifecycle", name(state.status.lifecycle)),
                ("plan", state.plan.clone()),
                ("ownership offered to", offer.unwrap_or_else(|| "nobody".to_owned())),
            ];
            one(facts.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(own_roles).collect())
        }
        "settings" => {
            one(fold.organization.settings.iter().map(|(name, value)| (name.clone(), value.to_string())).collect())
        }
        "limits" => one(fold
            .tallies
            .iter()
            .filter(|(name, _)| aggregates::limits().any(|limit| limit.name == *name))
            .flat_map(|(name, tally)| {
                let maximum = tally.maximum.map_or("none".to_owned(), |maximum| maximum.to_string());
                [(format!("{name}, used"), tally.used.to_string()), (format!("{name}, maximum"), maximum)]
            })
            .collect()),
        // By when they began and by id, so that they keep their order from one point to the next.
        _ => fold
            .under(heading)
            .map(|(stream, part)| {
                let facts = part.state.facts(*moment).into_iter().map(|(name, value)| (name.to_owned(), value));
                ((part.begun, stream.id().to_owned()), facts.collect())
            })
            .collect(),
    }
}

fn facts_of(facts: &Facts) -> String {
    facts.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join("; ")
}

/// The lines of what changed, under their headings; empty where nothing did.
pub fn diff(from: &Snapshot, to: &Snapshot) -> String {
    let mut text = String::new();
    for heading in OWN_HEADINGS.into_iter().chain(aggregates::resource::headings()) {
        let (old, new) = (under(heading, from), under(heading, to));
        let lines = changes(&old, &new);
        if !lines.is_empty() {
            let _ = writeln!(text, "{heading}");
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
    text
}

fn changes(old: &BTreeMap<(u64, String), Facts>, new: &BTreeMap<(u64, String), Facts>) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut lines = vec![];
    for key @ (_, id) in keys {
        match (old.get(key), new.get(key)) {
            (None, Some(facts)) if !id.is_empty() => lines.push(format!("+ {id}: {}", facts_of(facts))),
            (Some(facts), None) if !id.is_empty() => lines.push(format!("- {id}: {}", facts_of(facts))),
            (old, new) => {
                let empty = Facts::new();
                let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
                let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
                for name in names {
                    let about = if id.is_empty() { name.clone() } else { format!("{id}: {name}") };
                    match (old.get(name), new.get(name)) {
                        (Some(old), Some(new)) if old != new => lines.push(format!("~ {about}: {old} → {new}")),
                        (None, Some(new)) => lines.push(format!("+ {about}: {new}")),
                        (Some(old), None) => lines.push(format!("- {about}: {old}")),
                        (Some(_), Some(_)) | (None, None) => {}
                    }
                }
            }
        }
    }
    lines
}
