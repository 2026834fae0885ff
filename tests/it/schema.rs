//! The committed schema, as tests over all of it read it.

use std::collections::BTreeMap;

use async_graphql::parser::types::{
    BaseType, FieldDefinition, InputValueDefinition, Type, TypeKind, TypeSystemDefinition,
};

/// The types of `schema.graphql` by name.
pub struct Schema(BTreeMap<String, TypeKind>);

/// Something that a value is given for: an argument or a field of an input.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub of: Type,
}

impl Place {
    fn new(value: &InputValueDefinition) -> Self {
        Self { name: value.name.node.to_string(), of: value.ty.node.clone() }
    }

    /// Whether a value has to be given.
    pub fn required(&self) -> bool {
        !self.of.nullable
    }

    /// The name of the type, without lists.
    pub fn base(&self) -> String {
        base(&self.of)
    }

    pub fn list(&self) -> bool {
        matches!(self.of.base, BaseType::List(_))
    }
}

/// The name of a type, without lists.
pub fn base(of: &Type) -> String {
    match &of.base {
        BaseType::Named(name) => name.to_string(),
        BaseType::List(inner) => base(inner),
    }
}

/// A field of an object or an interface.
pub struct Field {
    pub name: String,
    pub arguments: Vec<Place>,
    pub of: Type,
}

impl Field {
    fn new(field: &FieldDefinition) -> Self {
        Self {
            name: field.name.node.to_string(),
            arguments: field.arguments.iter().map(|argument| Place::new(&argument.node)).collect(),
            of: field.ty.node.clone(),
        }
    }
}

impl Schema {
    pub fn committed() -> Self {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql")).unwrap();
        let document = async_graphql::parser::parse_schema(text).unwrap();
        let types = document.definitions.into_iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(definition) => {
                Some((definition.node.name.node.to_string(), definition.node.kind))
            }
            TypeSystemDefinition::Schema(_) | TypeSystemDefinition::Directive(_) => None,
        });
        Self(types.collect())
    }

    /// The fields of an object or an interface; none of any other type.
    pub fn fields(&self, name: &str) -> Vec<Field> {
        let fields = match self.0.get(name) {
            Some(TypeKind::Object(object)) => &object.fields,
            Some(TypeKind::Interface(interface)) => &interface.fields,
            _ => return vec![],
        };
        fields.iter().map(|field| Field::new(&field.node)).collect()
    }

    /// The fields of an input; `None` of any other type.
    pub fn input(&self, name: &str) -> Option<Vec<Place>> {
        match self.0.get(name)? {
            TypeKind::InputObject(input) => Some(input.fields.iter().map(|field| Place::new(&field.node)).collect()),
            _ => None,
        }
    }

    /// A field of a root type.
    pub fn field(&self, of: &str, name: &str) -> Option<Field> {
        self.fields(of).into_iter().find(|field| field.name == name)
    }
}
