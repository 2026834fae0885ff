//! Introspection: what clients ask of the schema itself.
//!
//! The engine answers it by a walk over its registry that has no end of its own: types name types, so a hundred bytes of
//! query can ask for gigabytes, and no limit counts that. So the engine is asked once, for everything, and what it says is
//! kept; each question is answered from there, after the bytes of its answer were counted. Types are looked up by name
//! wherever they are nested, so a question may go as deep as it likes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use async_graphql::parser::types::{Field, Selection, SelectionSet, TypeKind, TypeSystemDefinition};
use async_graphql::registry::Registry;
use async_graphql::resolver_utils::{ContainerType, resolve_container};
use async_graphql::{
    Context, ContextSelectionSet, Error, Name, ObjectType, OutputType, Positioned, Request, ServerError, ServerResult,
    SubscriptionType, Value,
};
use futures_util::FutureExt;
use serde_json::Value as Json;

use super::Mutation;
use super::Types;
use super::budget::Budget;
use super::errors::{coded, unauthenticated};
use super::feed::Subscription;
use super::query::Query;
use super::session::Session;

/// Asks for all that there is; types are named wherever they are nested.
const EVERYTHING: &str = include_str!("introspection.graphql");

/// What an object of an answer counts for besides its fields: an empty one takes memory too.
const OBJECT_BYTES: usize = 64;

/// The root of queries, which answers introspection too.
#[derive(Clone)]
pub struct Root {
    query: Query,
    model: Arc<OnceLock<Model>>,
    rules: Rules,
}

/// What introspection may cost, and for whom it is.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The largest answer to one operation, in bytes.
    pub bytes_max: usize,
    /// Whether it is answered without a token.
    pub without_token: bool,
}

impl Root {
    /// Over this root.
    pub fn new(query: Query, rules: Rules) -> Self {
        Self { query, model: Arc::default(), rules }
    }

    /// Where the schema that is built over this root says what it holds.
    pub fn model(&self) -> Arc<OnceLock<Model>> {
        self.model.clone()
    }

    fn answer(&self, ctx: &Context<'_>) -> ServerResult<Value> {
        let session = Session::of(ctx);
        let failed = |error: Error| error.into_server_error(ctx.item.pos);
        if !self.rules.without_token && session.caller_of_any_state().is_err() {
            return Err(failed(unauthenticated()));
        }
        let Some(model) = self.model.get() else {
            return Err(failed(coded("UNAVAILABLE", "the schema is not there yet: try again")));
        };
        let field = &ctx.item.node;
        let asked = match field.name.node.as_str() {
            "__schema" => Some((Kind::Schema, &model.schema)),
            _ => {
                let (_, name) = ctx.param_value::<String>("name", None)?;
                model.types.get(&name).map(|found| (Kind::Type, found))
            }
        };
        let Some((kind, asked)) = asked else { return Ok(Value::Null) };
        let plan = Plans { ctx }.of(&[&field.selection_set.node])?;
        let walk = Walk { model };
        walk.count(kind, asked, &plan, session.introspection(self.rules.bytes_max)).map_err(failed)?;
        Ok(walk.object(kind, asked, &plan))
    }
}

/// What the schema holds.
#[derive(Debug)]
pub struct Model {
    schema: Json,
    types: HashMap<String, Json>,
}

/// Keeps what the schema holds for the root that it was built over.
///
/// # Errors
/// What the engine answered instead of its schema.
pub fn learn(schema: &Types, model: &OnceLock<Model>) -> Result<(), String> {
    // Nothing of it waits for anything.
    let answered = schema.execute(Request::new(EVERYTHING)).now_or_never().ok_or("it waits for something")?;
    if !answered.errors.is_empty() {
        return Err(format!("{:?}", answered.errors));
    }
    let mut answer = answered.data.into_json().map_err(|error| error.to_string())?;
    let mut schema_of = answer["__schema"].take();
    let parents = interfaces_of_interfaces(&schema.sdl());
    let mut types = HashMap::new();
    for one in schema_of["types"].as_array_mut().into_iter().flatten() {
        let name = one["name"].as_str().unwrap_or_default().to_owned();
        // The engine says of objects only what they implement.
        if let Some(parents) = parents.get(&name) {
            let named = |parent: &String| serde_json::json!({"kind": "INTERFACE", "name": parent});
            one["interfaces"] = parents.iter().map(named).collect();
        }
        types.insert(name, one.clone());
    }
    let _ = model.set(Model { schema: schema_of, types });
    Ok(())
}

/// What each interface implements, by its name.
fn interfaces_of_interfaces(sdl: &str) -> BTreeMap<String, Vec<String>> {
    let Ok(document) = async_graphql::parser::parse_schema(sdl) else { return BTreeMap::new() };
    let interfaces = document.definitions.into_iter().filter_map(|definition| match definition {
        TypeSystemDefinition::Type(definition) => match definition.node.kind {
            TypeKind::Interface(interface) => {
                let parents = interface.implements.iter().map(|parent| parent.node.to_string()).collect();
                Some((definition.node.name.node.to_string(), parents))
            }
            _ => None,
        },
        TypeSystemDefinition::Schema(_) | TypeSystemDefinition::Directive(_) => None,
    });
    interfaces.collect()
}

/// The types of introspection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Schema,
    Type,
    Field,
    InputValue,
    EnumValue,
    Directive,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Schema => "__Schema",
            Self::Type => "__Type",
            Self::Field => "__Field",
            Self::InputValue => "__InputValue",
            Self::EnumValue => "__EnumValue",
            Self::Directive => "__Directive",
        }
    }

    /// Of what a field of this name holds one or many; nothing of what is no object.
    fn of_field(name: &str) -> Option<Self> {
        Some(match name {
            "types" | "queryType" | "mutationType" | "subscriptionType" => Self::Type,
            "type" | "ofType" | "interfaces" | "possibleTypes" => Self::Type,
            "fields" => Self::Field,
            "args" | "inputFields" => Self::InputValue,
            "enumValues" => Self::EnumValue,
            "directives" => Self::Directive,
            _ => return None,
        })
    }
}

/// What is asked of an object: fields in order, those of one response key together.
struct Plan {
    key: Name,
    name: String,
    include_deprecated: bool,
    inner: Vec<Plan>,
}

/// Reads what a document asks, fragments followed. Each type here is concrete, so conditions of fragments always hold.
struct Plans<'a> {
    ctx: &'a Context<'a>,
}

impl Plans<'_> {
    fn of(&self, sets: &[&SelectionSet]) -> ServerResult<Vec<Plan>> {
        let mut fields: Vec<(Name, Vec<&Field>)> = vec![];
        for set in sets {
            self.collect(set, &mut fields)?;
        }
        let yes = Value::Boolean(true);
        let plans = fields.into_iter().map(|(key, fields)| {
            let inner: Vec<&SelectionSet> = fields.iter().map(|field| &field.selection_set.node).collect();
            Ok(Plan {
                key,
                name: fields[0].name.node.to_string(),
                include_deprecated: match fields[0].get_argument("includeDeprecated") {
                    Some(value) => value.node.clone().into_const_with(|name| self.variable(&name))? == yes,
                    None => false,
                },
                inner: self.of(&inner)?,
            })
        });
        plans.collect()
    }

    fn collect<'s>(&'s self, set: &'s SelectionSet, fields: &mut Vec<(Name, Vec<&'s Field>)>) -> ServerResult<()> {
        for selection in &set.items {
            let directive = |name: &str| -> ServerResult<Option<Value>> {
                let directives = selection.node.directives().iter();
                let found = directives.map(|directive| &directive.node).find(|directive| directive.name.node == name);
                let given = found.and_then(|found| found.get_argument("if")).map(|value| value.node.clone());
                given.map(|value| value.into_const_with(|name| self.variable(&name))).transpose()
            };
            let skipped = directive("skip")? == Some(Value::Boolean(true));
            if skipped || directive("include")? == Some(Value::Boolean(false)) {
                continue;
            }
            match &selection.node {
                Selection::Field(field) => {
                    let key = &field.node.response_key().node;
                    match fields.iter_mut().find(|(known, _)| known == key) {
                        Some((_, alike)) => alike.push(&field.node),
                        None => fields.push((key.clone(), vec![&field.node])),
                    }
                }
                Selection::InlineFragment(fragment) => self.collect(&fragment.node.selection_set.node, fields)?,
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    let fragment =
                        self.ctx.query_env.fragments.get(name).ok_or_else(|| {
                            ServerError::new(format!("there is no fragment {name}"), Some(spread.pos))
                        })?;
                    self.collect(&fragment.node.selection_set.node, fields)?;
                }
            }
        }
        Ok(())
    }

    /// The value of a variable of this request; null where it has none.
    fn variable(&self, name: &Name) -> ServerResult<Value> {
        let definitions = &self.ctx.query_env.operation.node.variable_definitions;
        let definition = definitions.iter().find(|definition| definition.node.name.node == *name);
        let default = definition.and_then(|definition| definition.node.default_value.as_ref());
        let given = self.ctx.query_env.variables.get(name).or(default.map(|default| &default.node));
        Ok(given.cloned().unwrap_or_default())
    }
}

/// Finds what is asked for. An answer is counted before any of it is made: a refused one costs no memory.
struct Walk<'a> {
    model: &'a Model,
}

impl<'a> Walk<'a> {
    /// Where a type is nested, it is only named; then the whole one.
    fn whole(&self, kind: Kind, object: &'a Json) -> &'a Json {
        let named = object.get("name").and_then(Json::as_str).filter(|_| kind == Kind::Type);
        named.and_then(|name| self.model.types.get(name)).unwrap_or(object)
    }

    /// Those items of a list that are asked for.
    fn items<'i>(items: &'i [Json], field: &Plan) -> impl Iterator<Item = &'i Json> {
        let all = field.include_deprecated;
        items.iter().filter(move |item| all || item["isDeprecated"] != Json::Bool(true))
    }

    fn count(&self, kind: Kind, object: &'a Json, plan: &[Plan], budget: &Budget) -> Result<(), Error> {
        let object = self.whole(kind, object);
        budget.spend(OBJECT_BYTES)?;
        for field in plan {
            budget.spend(field.key.len() + 4)?;
            match field.name.as_str() {
                "__typename" => budget.spend(kind.name().len())?,
                name => self.count_value(Kind::of_field(name), &object[name], field, budget)?,
            }
        }
        Ok(())
    }

    fn count_value(&self, kind: Option<Kind>, value: &'a Json, field: &Plan, budget: &Budget) -> Result<(), Error> {
        budget.spend(4)?;
        match (value, kind) {
            (Json::String(text), _) => budget.spend(text.len()),
            (Json::Array(items), _) => {
                Self::items(items, field).try_for_each(|item| self.count_value(kind, item, field, budget))
            }
            (Json::Object(_), Some(kind)) => self.count(kind, value, &field.inner, budget),
            _ => Ok(()),
        }
    }

    fn object(&self, kind: Kind, object: &'a Json, plan: &[Plan]) -> Value {
        let object = self.whole(kind, object);
        let fields = plan.iter().map(|field| {
            let value = match field.name.as_str() {
                "__typename" => Value::String(kind.name().to_owned()),
                name => self.value(Kind::of_field(name), &object[name], field),
            };
            (field.key.clone(), value)
        });
        Value::Object(fields.collect())
    }

    fn value(&self, kind: Option<Kind>, value: &'a Json, field: &Plan) -> Value {
        match (value, kind) {
            (Json::Bool(value), _) => Value::Boolean(*value),
            (Json::String(text), _) => Value::String(text.clone()),
            (Json::Array(items), _) => {
                Value::List(Self::items(items, field).map(|item| self.value(kind, item, field)).collect())
            }
            (Json::Object(_), Some(kind)) => self.object(kind, value, &field.inner),
            (Json::Null | Json::Number(_) | Json::Object(_), _) => Value::Null,
        }
    }
}

/// Fields of the query root that decide by themselves what a caller has to show: `viewer` answers users who wait for
/// approval too, and a preview is for the holder of an invitation's token.
const OPEN_TO_ALL: [&str; 2] = ["viewer", "invitationPreview"];

impl ContainerType for Root {
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<Value>> {
        match ctx.item.node.name.node.as_str() {
            "__schema" | "__type" => self.answer(ctx).map(Some),
            // Each field asks for a caller here, unless it is named, so that none can forget to.
            name if !OPEN_TO_ALL.contains(&name)
                && let Err(error) = Session::of(ctx).caller() =>
            {
                ctx.add_error(ctx.set_error_path(error.into_server_error(ctx.item.pos)));
                Ok(Some(Value::Null))
            }
            _ => self.query.resolve_field(ctx).await,
        }
    }
}

impl OutputType for Root {
    fn type_name() -> Cow<'static, str> {
        Query::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        let name = Query::create_type_info(registry);
        // What they bring is described too; they would come a moment later.
        Mutation::create_type_info(registry);
        Subscription::create_type_info(registry);
        super::described::complete(registry);
        name
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _field: &Positioned<Field>) -> ServerResult<Value> {
        resolve_container(ctx, self).await
    }
}

impl ObjectType for Root {}
