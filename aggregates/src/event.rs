//! How events are declared, and what is derived from a declaration.
//!
//! An aggregate lists its events once, with [`events!`](crate::events). From that list come the stored name and
//! version, the JSON, the audit's GraphQL types, the webhook catalogue and the places of personal data, so that
//! none of them can be forgotten.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::ids::EventId;
use crate::personal::{Digest, Personal};

/// What an event looks like from outside, for everything that is generated from declarations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Descriptor {
    /// The stored name, for example `OrgVerified`. It never changes.
    pub name: &'static str,
    /// The version of its shape.
    pub version: &'static str,
    /// One sentence for readers.
    pub description: &'static str,
    /// Its own fields, in order.
    pub fields: &'static [FieldDescriptor],
}

impl Descriptor {
    /// The action: first word, dot, the rest in snake case (`MemberRolesChanged` → `member.roles_changed`).
    /// It is also the webhook type.
    pub fn action(&self) -> String {
        self.words().replacen('_', ".", 1)
    }

    /// The GraphQL enum value (`OrgVerified` → `ORG_VERIFIED`).
    pub fn enum_value(&self) -> String {
        self.words().to_uppercase()
    }

    /// The GraphQL object type (`OrgVerified` → `OrgVerifiedEvent`).
    pub fn object_type(&self) -> String {
        format!("{}Event", self.name)
    }

    fn words(&self) -> String {
        let mut words = String::new();
        for letter in self.name.chars() {
            if letter.is_ascii_uppercase() && !words.is_empty() {
                words.push('_');
            }
            words.push(letter.to_ascii_lowercase());
        }
        words
    }
}

/// One field of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FieldDescriptor {
    /// The name in the stored JSON, in snake case.
    pub name: &'static str,
    /// One sentence for readers.
    pub description: &'static str,
    /// Its type.
    pub kind: Kind,
}

/// The type of a field: a name that GraphQL and JSON Schema understand, and how it is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// For example `String`, `ID`, `Long`, `DateTime`, `JSON`, `OrganizationVerification`.
    pub name: &'static str,
    /// Whether it is a list.
    pub list: bool,
    /// Whether it may be missing (personal data may always be: it can be erased).
    pub nullable: bool,
    /// Whether it is kept from every reader (keyed hashes).
    pub hidden: bool,
}

impl Kind {
    /// A type that is one name.
    pub const fn scalar(name: &'static str) -> Self {
        Self { name, list: false, nullable: false, hidden: false }
    }
}

/// What is called with the name of a field and the personal datum in it.
pub type PersonalVisitor<'a> = dyn FnMut(&'static str, &mut Personal) + 'a;

/// The name of an enum's value as clients see it, for messages.
pub fn shown<T: serde::Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

/// A type that a field of an event may have.
pub trait Field {
    /// How it looks from outside.
    const KIND: Kind;
    /// Shows `visit` the personal datum in this field, if there is one.
    fn visit_personal(&mut self, name: &'static str, visit: &mut PersonalVisitor<'_>) {
        let _ = (name, visit);
    }
}

macro_rules! fields {
    ($($type:ty => $name:literal;)*) => {$(
        impl Field for $type { const KIND: Kind = Kind::scalar($name); }
    )*};
}

fields! {
    String => "String";
    bool => "Boolean";
    u64 => "Long";
    DateTime<Utc> => "DateTime";
    Value => "JSON";
}

impl Field for Vec<String> {
    const KIND: Kind = Kind { list: true, ..Kind::scalar("String") };
}

impl Field for Vec<EventId> {
    const KIND: Kind = Kind { list: true, ..EventId::KIND };
}

impl Field for Digest {
    const KIND: Kind = Kind { hidden: true, ..Kind::scalar("String") };
}

impl Field for Vec<Digest> {
    const KIND: Kind = Kind { list: true, ..Digest::KIND };
}

impl Field for Personal {
    const KIND: Kind = Kind { nullable: true, ..Kind::scalar("String") };
    fn visit_personal(&mut self, name: &'static str, visit: &mut PersonalVisitor<'_>) {
        visit(name, self);
    }
}

impl<T: Field> Field for Option<T> {
    const KIND: Kind = Kind { nullable: true, ..T::KIND };
    fn visit_personal(&mut self, name: &'static str, visit: &mut PersonalVisitor<'_>) {
        if let Some(field) = self {
            field.visit_personal(name, visit);
        }
    }
}

/// What every list of events declared with [`events!`](crate::events) can do beside being a
/// [`cqrs_es::DomainEvent`].
pub trait Declared: cqrs_es::DomainEvent {
    /// All events of the aggregate, in order of declaration.
    const DESCRIPTORS: &'static [Descriptor];
    /// The declaration of this event.
    fn descriptor(&self) -> &'static Descriptor;
    /// Shows `visit` each personal datum of this event with the name of its field.
    fn visit_personal(&mut self, visit: &mut PersonalVisitor<'_>);
}

/// A state that can be kept beside the log: what of it is personal, and which shape it has.
pub trait Snapshot: cqrs_es::Aggregate {
    /// Raised whenever a field of the state is added, removed or means something else.
    const SHAPE: i32;
    /// Shows `visit` each personal datum of the state with the name of its field.
    fn visit_personal(&mut self, visit: &mut PersonalVisitor<'_>);
}

/// Declares the events of an aggregate: name, version, and fields with their types, each with a doc comment. A field
/// that came later says how its absence reads.
#[macro_export]
macro_rules! events {
    (
        $(#[$meta:meta])*
        pub enum $list:ident {
            $(
                #[doc = $about:literal]
                $event:ident $version:literal {
                    $( #[doc = $field_about:literal] $(#[serde($($stored:tt)*)])? $field:ident: $type:ty, )*
                }
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[allow(clippy::large_enum_variant)]
        pub enum $list {
            $(
                #[doc = $about]
                $event { $( #[doc = $field_about] $(#[serde($($stored)*)])? $field: $type, )* },
            )*
        }

        impl cqrs_es::DomainEvent for $list {
            fn event_type(&self) -> String {
                $crate::event::Declared::descriptor(self).name.to_owned()
            }
            fn event_version(&self) -> String {
                $crate::event::Declared::descriptor(self).version.to_owned()
            }
        }

        impl $crate::event::Declared for $list {
            const DESCRIPTORS: &'static [$crate::event::Descriptor] = &[
                $($crate::event::Descriptor {
                    name: stringify!($event),
                    version: $version,
                    description: $about.trim_ascii(),
                    fields: &[
                        $($crate::event::FieldDescriptor {
                            name: stringify!($field),
                            description: $field_about.trim_ascii(),
                            kind: <$type as $crate::event::Field>::KIND,
                        },)*
                    ],
                },)*
            ];

            fn descriptor(&self) -> &'static $crate::event::Descriptor {
                // The place in the list is counted by the compiler: one constant for each variant, in order.
                #[allow(non_camel_case_types, clippy::enum_variant_names)]
                enum Place { $($event),* }
                let place = match self { $( Self::$event { .. } => Place::$event, )* };
                &Self::DESCRIPTORS[place as usize]
            }

            #[allow(unused_variables)]
            fn visit_personal(&mut self, visit: &mut $crate::event::PersonalVisitor<'_>) {
                match self {
                    $( Self::$event { $($field),* } => {
                        $( $crate::event::Field::visit_personal($field, stringify!($field), visit); )*
                    } )*
                }
            }
        }
    };
}
