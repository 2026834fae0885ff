//! The schema: what is committed is what the code makes, and it holds everything that clients may rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use graphql_parser::schema::{Definition, Document, Field, InputValue, TypeDefinition, TypeExtension, parse_schema};

type Members = BTreeMap<String, BTreeMap<String, String>>;

fn arguments(arguments: &[InputValue<'_, String>], name: &str, into: &mut BTreeMap<String, String>) {
    for argument in arguments {
        into.insert(format!("{name}({})", argument.name), argument.value_type.to_string());
    }
}

fn fields(fields: &[Field<'_, String>]) -> BTreeMap<String, String> {
    let mut members = BTreeMap::new();
    for field in fields {
        members.insert(field.name.clone(), field.field_type.to_string());
        arguments(&field.arguments, &field.name, &mut members);
    }
    members
}

/// Everything that a schema names: by type, its fields, arguments and values with their types.
fn members(document: &Document<'_, String>) -> Members {
    let mut members = Members::new();
    for definition in &document.definitions {
        let definition = match definition {
            Definition::TypeDefinition(definition) => definition,
            // The contract grows by sections.
            Definition::TypeExtension(TypeExtension::Object(object)) => {
                members.entry(object.name.clone()).or_default().extend(fields(&object.fields));
                continue;
            }
            _ => continue,
        };
        let (name, own) = match definition {
            TypeDefinition::Scalar(scalar) => (&scalar.name, BTreeMap::new()),
            TypeDefinition::Object(object) => {
                let mut own = fields(&object.fields);
                own.extend(
                    object.implements_interfaces.iter().map(|name| (format!("implements {name}"), String::new())),
                );
                (&object.name, own)
            }
            TypeDefinition::Interface(interface) => (&interface.name, fields(&interface.fields)),
            TypeDefinition::Union(union) => (&union.name, BTreeMap::new()),
            TypeDefinition::Enum(list) => {
                (&list.name, list.values.iter().map(|value| (value.name.clone(), String::new())).collect())
            }
            TypeDefinition::InputObject(input) => {
                (&input.name, input.fields.iter().map(|f| (f.name.clone(), f.value_type.to_string())).collect())
            }
        };
        members.insert(name.clone(), own);
    }
    members
}

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// `BLESS=1 cargo test` rewrites the file.
#[test]
fn the_committed_schema_is_the_one_that_the_code_makes() {
    let made = tenancy::graphql::sdl();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql"), &made).unwrap();
    }
    assert!(
        made == read("schema.graphql"),
        "schema.graphql is not current: run `BLESS=1 cargo test` and look at the difference"
    );
}

#[test]
fn the_schema_holds_everything_that_the_contract_names() {
    let (contract, made) = (read("tests/contract.graphql"), tenancy::graphql::sdl());
    let (contract, made) = (members(&parse_schema(&contract).unwrap()), members(&parse_schema(&made).unwrap()));
    let mut missing = BTreeSet::new();
    for (name, wanted) in &contract {
        let Some(found) = made.get(name) else {
            missing.insert(name.clone());
            continue;
        };
        for (member, kind) in wanted {
            match found.get(member) {
                Some(other) if other == kind => {}
                other => {
                    missing.insert(format!("{name}.{member}: {kind}, found {other:?}"));
                }
            }
        }
    }
    assert_eq!(missing, BTreeSet::new());
}

#[test]
fn every_mutation_takes_an_idempotency_key() {
    let made = tenancy::graphql::sdl();
    let made = members(&parse_schema(&made).unwrap());
    for (mutation, kind) in made["Mutation"].iter().filter(|(name, _)| name.ends_with("(input)")) {
        let input = kind.trim_end_matches('!');
        assert!(made[input].contains_key("idempotencyKey"), "{mutation}: {input}");
    }
}

/// Fragments over several event types can only be merged if a field's name means one type in all of them.
#[test]
fn each_event_is_an_audit_event_and_a_node() {
    let made = tenancy::graphql::sdl();
    let made = members(&parse_schema(&made).unwrap());
    for descriptor in aggregates::descriptors() {
        let object = &made[&descriptor.object_type()];
        assert!(
            object.contains_key("implements AuditEvent") && object.contains_key("implements Node"),
            "{}",
            descriptor.name
        );
        assert!(made["AuditAction"].contains_key(&descriptor.enum_value()));
        for (field, kind) in &made["AuditEvent"] {
            assert_eq!(object.get(field), Some(kind), "{}.{field}", descriptor.name);
        }
    }
}
