//! The catalogue of what webhooks and the pull feed tell: each type of event with a JSON Schema of its message, made
//! from the events' own declarations.

use aggregates::event::Kind;
use aggregates::{Descriptor, descriptors_of_organizations};
use serde_json::{Map, Value, json};

use crate::audit::data::camel_case;

/// The values of the enums that events have fields of, as stored and told.
const ENUMS: &[(&str, &[&str])] = &[
    ("MembershipSource", &["FOUNDER", "INVITATION", "DIRECT", "IMPORT"]),
    ("MembershipState", &["ACTIVE", "SUSPENDED", "REMOVED"]),
    ("OrganizationLifecycle", &["ACTIVE", "INACTIVE", "DELETED"]),
    ("OrganizationVerification", &["IN_SETUP", "PENDING", "WAITLISTED", "VERIFIED", "REJECTED", "BLOCKED"]),
    ("ProjectState", &["ACTIVE", "ARCHIVED", "DELETED"]),
    ("WebhookContent", &["FULL", "THIN"]),
    ("WebhookOrdering", &["PARALLEL", "PER_SUBJECT"]),
];

/// The largest whole number that every reader of JSON keeps (2^53 − 1).
const LONG_MAX: u64 = (1 << 53) - 1;

/// A type of event.
#[derive(Debug, Clone)]
pub struct EventType {
    /// For example `member.invited`.
    pub name: String,
    /// One sentence.
    pub description: &'static str,
    /// The version of its shape.
    pub version: &'static str,
    /// The JSON Schema (2020-12) of its message.
    pub schema: Value,
}

/// Everything that an organization's webhooks can be sent.
pub fn event_types() -> impl Iterator<Item = EventType> {
    descriptors_of_organizations().map(|event| EventType {
        name: event.action(),
        description: event.description,
        version: event.version,
        schema: schema(event),
    })
}

/// The whole catalogue, as it is served.
pub fn catalog() -> Value {
    let types = event_types().map(|event| {
        json!({"type": event.name, "description": event.description, "version": event.version, "schema": event.schema})
    });
    json!({"types": types.collect::<Vec<_>>()})
}

fn schema(event: &Descriptor) -> Value {
    let shown = || event.fields.iter().filter(|field| !field.kind.hidden);
    let fields: Map<String, Value> = shown()
        .map(|field| {
            let mut schema = of_kind(field.kind);
            schema.insert("description".to_owned(), field.description.into());
            (camel_case(field.name), Value::Object(schema))
        })
        .collect();
    let names: Vec<String> = shown().map(|field| camel_case(field.name)).collect();
    let who = |nullable: bool| {
        let kinds = ["user", "operator", "token", "system"];
        let who = json!({"type": "object", "required": ["type", "id"],
            "properties": {"type": {"enum": kinds}, "id": {"type": ["string", "null"]}}});
        if nullable { json!({"oneOf": [who, {"type": "null"}]}) } else { who }
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": event.action(),
        "description": event.description,
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": event.action()},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it was recorded."},
            "data": {
                "type": "object",
                "required": ["id", "organizationId", "subjectId", "sequence", "auditSequence", "position"],
                "properties": {
                    "id": {"type": "string", "description": "The event; also the webhook-id."},
                    "organizationId": {"type": "string", "description": "The organization that it belongs to."},
                    "subjectId": {"type": "string", "description": "The stream that recorded it."},
                    "sequence": {"type": "integer", "minimum": 1, "description": "Its place in that stream."},
                    "auditSequence": {"type": "integer", "minimum": 1,
                        "description": "Its dense number within its organization."},
                    "position": {"type": "string", "description": "Its place in the log, to be passed back."},
                    "actor": who(false),
                    "onBehalfOf": who(true),
                    "correlationId": {"type": "string", "format": "uuid"},
                    "causationId": {"type": ["string", "null"]},
                    "fields": {
                        "type": "object",
                        "description": "The event's own fields; personal ones null where erased. Left out of thin messages.",
                        "required": names,
                        "properties": fields,
                    },
                },
            },
        },
    })
}

fn of_kind(kind: Kind) -> Map<String, Value> {
    let named = |name: &str, rest: Value| {
        let mut schema = Map::from_iter([("type".to_owned(), Value::from(name))]);
        schema.extend(rest.as_object().cloned().unwrap_or_default());
        schema
    };
    let mut schema = match kind.name {
        "Boolean" => named("boolean", json!({})),
        "Long" => named("integer", json!({"minimum": 0, "maximum": LONG_MAX})),
        "DateTime" => named("string", json!({"format": "date-time"})),
        "JSON" => Map::new(),
        name => match ENUMS.iter().find(|(known, _)| *known == name) {
            Some((_, values)) => named("string", json!({"enum": values})),
            None => named("string", json!({})),
        },
    };
    if kind.list {
        schema = named("array", json!({"items": schema}));
    }
    if kind.nullable && !schema.is_empty() {
        schema = Map::from_iter([("anyOf".to_owned(), json!([schema, {"type": "null"}]))]);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_field_that_events_have_is_known() {
        let plain = ["Boolean", "DateTime", "ID", "JSON", "Long", "String"];
        for field in descriptors_of_organizations().flat_map(|event| event.fields) {
            let name = field.kind.name;
            let known = plain.contains(&name) || ENUMS.iter().any(|(known, _)| *known == name);
            assert!(known, "the catalogue does not know {name} of {}", field.name);
        }
    }

    #[test]
    fn the_enums_are_those_of_graphql() {
        let schema = crate::graphql::sdl();
        for (name, values) in ENUMS {
            let start = schema.find(&format!("enum {name} {{")).unwrap_or_else(|| panic!("no enum {name}"));
            let body = schema[start..].split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            let body = body.map(|(body, _)| body).unwrap_or_default();
            let mut shown: Vec<&str> = body.lines().map(str::trim).filter(|line| is_value(line)).collect();
            let mut own = values.to_vec();
            shown.sort_unstable();
            own.sort_unstable();
            assert_eq!(shown, own, "{name}");
        }
    }

    fn is_value(line: &str) -> bool {
        !line.is_empty() && line.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
    }
}
