//! An event's own fields as readers see them.

use aggregates::Recorded;
use aggregates::event::Kind;
use serde_json::{Map, Value};

/// The fields by their names in camel case: personal ones as text, or null where erased; no keyed hashes.
pub fn data(recorded: &Recorded) -> Map<String, Value> {
    let descriptor = recorded.event.descriptor();
    let stored = serde_json::to_value(&recorded.event).unwrap_or_default();
    let own = stored.get(descriptor.name);
    let fields = descriptor.fields.iter().filter(|field| !field.kind.hidden).map(|field| {
        let value = own.and_then(|own| own.get(field.name)).cloned().unwrap_or_default();
        (camel_case(field.name), shown(field.kind, value))
    });
    fields.collect()
}

/// A personal datum is stored with whose it is; readers get the text.
fn shown(kind: Kind, value: Value) -> Value {
    match value {
        Value::Object(personal) if kind.name == "String" => personal.get("value").cloned().unwrap_or_default(),
        value => value,
    }
}

/// `previous_roles` → `previousRoles`
pub fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}
