//! The audit trail: one object type for each domain event, made from the events' own declarations, so that none
//! can be missing.
//!
//! The engine wants a Rust type for a GraphQL type, but takes the type's name and fields from a registry at run
//! time. So one Rust type stands for the interface and for all its objects: it registers them from the
//! declarations, and answers as whichever the event is.

use std::borrow::Cow;

use aggregates::event::{FieldDescriptor, Kind};
use aggregates::ids::{EventId, Id, OrganizationId};
use aggregates::{Descriptor, Recorded, StreamId, descriptors};
use async_graphql::connection::{Edge, EmptyFields, PageInfo};
use async_graphql::parser::types::Field;
use async_graphql::registry::{Deprecation, MetaEnumValue, MetaField, MetaType, MetaTypeId, Registry};
use async_graphql::resolver_utils::{ContainerType, resolve_container};
use async_graphql::{Context, indexmap::IndexMap, indexmap::IndexSet};
use async_graphql::{
    ContextSelectionSet, Error, ID, InputObject, InputType, InputValueError, InputValueResult, Json, OutputType,
    Positioned, ServerResult, SimpleObject, Value as GraphqlValue,
};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value};

use super::connection::{Cursor, Opaque, Page, PageArguments};
use super::errors::log_fault;
use super::scalars::{
    Long, MembershipSource, MembershipState, OrganizationLifecycle, OrganizationVerification, PositionText,
    ProjectState, Time, UserState, WebhookContent, WebhookOrdering, int,
};
use super::session::{Session, id};
use super::user::Actor;
use crate::audit::data::{camel_case, data};
use crate::log::{AuditCursor, AuditFilter as LogFilter, AuditPage, AuditSlice, EventsOf, Position};

/// The name of the interface.
const INTERFACE: &str = "AuditEvent";

/// An event of the log, as the audit shows it.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    recorded: Recorded,
    data: Map<String, Value>,
}

/// An audit trail. Where few of very many events are wanted, a page may be short: `pageInfo` says whether there may be
/// more, and from where to go on.
#[derive(SimpleObject)]
#[graphql(name = "AuditEventConnection")]
pub struct AuditConnection {
    /// A list of edges.
    edges: Vec<Edge<Opaque, AuditEvent, EmptyFields>>,
    /// A list of nodes.
    nodes: Vec<AuditEvent>,
    /// Information to aid in pagination.
    page_info: PageInfo,
    /// The place in the log up to which this list is complete.
    // Read only where it was asked for; else it is empty.
    up_to: PositionText,
}

impl AuditEvent {
    /// The event with its data as readers see it: personal fields as text, or null where erased; no keyed hashes.
    pub fn new(recorded: Recorded) -> Self {
        let data = data(&recorded);
        Self { recorded, data }
    }

    fn descriptor(&self) -> &'static Descriptor {
        self.recorded.event.descriptor()
    }

    fn position(&self, epoch: i64) -> PositionText {
        Position::at(epoch, self.recorded.partition, self.recorded.offset).into()
    }
}

/// A field of the interface: name, description, type.
type Own = (&'static str, &'static str, String);

fn own_fields(registry: &mut Registry) -> Vec<Own> {
    let actor = <Actor as OutputType>::create_type_info(registry);
    let maybe_actor = <Option<Actor> as OutputType>::create_type_info(registry);
    let position = <PositionText as OutputType>::create_type_info(registry);
    let long = <Option<Long> as OutputType>::create_type_info(registry);
    let time = <Time as OutputType>::create_type_info(registry);
    let json = <Json<Value> as OutputType>::create_type_info(registry);
    let (id, maybe_id) = ("ID!".to_owned(), "ID".to_owned());
    let (text, maybe_text) = ("String!".to_owned(), "String".to_owned());
    vec![
        ("id", "The id of the event.", id.clone()),
        ("action", "What happened, for example \"org.verified\"; also the webhook type.", text),
        ("organizationId", "The organization that it belongs to.", maybe_id.clone()),
        ("subjectId", "The stream that recorded it.", id.clone()),
        ("sequence", "Its place in that stream.", "Int!".to_owned()),
        ("auditSequence", "Its dense number within its organization, from 1.", long),
        ("position", "Its place in the log.", position),
        ("recordedAt", "When it was recorded.", time),
        ("actor", "The actor.", actor),
        ("onBehalfOf", "For whom, where that is somebody else.", maybe_actor),
        ("ip", "The network address that the request came from; null where erased.", maybe_text.clone()),
        ("userAgent", "The program that sent the request; null where erased.", maybe_text.clone()),
        ("requestId", "The HTTP request.", maybe_text),
        ("correlationId", "What belongs together.", id),
        ("causationId", "The event that caused this one.", maybe_id),
        ("data", "The event's own fields; personal ones null where erased.", json),
    ]
}

/// The GraphQL type of a declared field.
fn type_of(kind: Kind) -> String {
    let named = if kind.list { format!("[{}!]", kind.name) } else { kind.name.to_owned() };
    if kind.nullable { named } else { format!("{named}!") }
}

fn meta_field(name: &str, description: &str, ty: String) -> MetaField {
    MetaField {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        args: IndexMap::new(),
        ty,
        deprecation: Deprecation::NoDeprecated,
        cache_control: Default::default(),
        external: false,
        requires: None,
        provides: None,
        visible: None,
        shareable: false,
        inaccessible: false,
        tags: vec![],
        override_from: None,
        compute_complexity: None,
        directive_invocations: vec![],
        requires_scopes: vec![],
    }
}

fn meta_object(descriptor: &Descriptor, own: &[Own]) -> MetaType {
    let mut fields: IndexMap<String, MetaField> =
        own.iter().map(|(name, about, ty)| ((*name).to_owned(), meta_field(name, about, ty.clone()))).collect();
    for FieldDescriptor { name, description, kind } in descriptor.fields.iter().filter(|field| !field.kind.hidden) {
        let name = camel_case(name);
        fields.entry(name.clone()).or_insert_with(|| meta_field(&name, description, type_of(*kind)));
    }
    MetaType::Object {
        name: descriptor.object_type(),
        description: Some(descriptor.description.to_owned()),
        fields,
        cache_control: Default::default(),
        extends: false,
        shareable: false,
        resolvable: true,
        keys: None,
        visible: None,
        inaccessible: false,
        interface_object: false,
        tags: vec![],
        is_subscription: false,
        rust_typename: Some(std::any::type_name::<AuditEvent>()),
        directive_invocations: vec![],
        requires_scopes: vec![],
    }
}

/// An interface of these fields and possible types.
pub fn meta_interface(
    name: &str,
    description: &str,
    fields: IndexMap<String, MetaField>,
    possible_types: IndexSet<String>,
    rust_typename: &'static str,
) -> MetaType {
    MetaType::Interface {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        fields,
        possible_types,
        extends: false,
        keys: None,
        visible: None,
        inaccessible: false,
        tags: vec![],
        rust_typename: Some(rust_typename),
        directive_invocations: vec![],
        requires_scopes: vec![],
    }
}

impl OutputType for AuditEvent {
    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed(INTERFACE)
    }

    fn introspection_type_name(&self) -> Cow<'static, str> {
        Cow::Owned(self.descriptor().object_type())
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Interface, |registry| {
            let own = own_fields(registry);
            <UserState as OutputType>::create_type_info(registry);
            <MembershipState as OutputType>::create_type_info(registry);
            <MembershipSource as OutputType>::create_type_info(registry);
            <OrganizationVerification as OutputType>::create_type_info(registry);
            <OrganizationLifecycle as OutputType>::create_type_info(registry);
            <ProjectState as OutputType>::create_type_info(registry);
            <WebhookOrdering as OutputType>::create_type_info(registry);
            <WebhookContent as OutputType>::create_type_info(registry);
            for descriptor in descriptors() {
                registry.types.insert(descriptor.object_type(), meta_object(descriptor, &own));
                registry.add_implements(&descriptor.object_type(), INTERFACE);
                registry.add_implements(&descriptor.object_type(), super::node::INTERFACE);
            }
            registry.add_implements(INTERFACE, super::node::INTERFACE);
            let fields = own.iter().map(|(name, about, ty)| ((*name).to_owned(), meta_field(name, about, ty.clone())));
            let about = "An event of the log. Each kind of event is a type of its own, with its own fields.";
            let possible = descriptors().map(Descriptor::object_type).collect();
            meta_interface(INTERFACE, about, fields.collect(), possible, std::any::type_name::<Self>())
        })
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _field: &Positioned<Field>) -> ServerResult<GraphqlValue> {
        resolve_container(ctx, self).await
    }
}

impl ContainerType for AuditEvent {
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<GraphqlValue>> {
        let recorded = &self.recorded;
        let origin = &recorded.origin;
        let name = ctx.item.node.name.node.as_str();
        let text = |text: Option<String>| text.map_or(GraphqlValue::Null, GraphqlValue::String);
        Ok(Some(match name {
            "id" => text(Some(recorded.id.to_string())),
            "action" => text(Some(self.descriptor().action())),
            "organizationId" => text(recorded.organization.as_ref().map(ToString::to_string)),
            "subjectId" => text(Some(recorded.stream.id().to_owned())),
            "sequence" => int(recorded.sequence).into(),
            "auditSequence" => recorded.audit_sequence.map_or(GraphqlValue::Null, |number| Long::from(number).0.into()),
            "position" => text(Some(self.position(Session::of(ctx).epoch()).0)),
            "recordedAt" => text(Some(recorded.recorded_at.to_rfc3339_opts(SecondsFormat::AutoSi, true))),
            "actor" => actor(ctx, &origin.actor).await?,
            "onBehalfOf" => match &origin.on_behalf_of {
                Some(other) => actor(ctx, other).await?,
                None => GraphqlValue::Null,
            },
            "ip" => text(origin.ip.clone()),
            "userAgent" => text(origin.user_agent.clone()),
            "requestId" => text(origin.request_id.clone()),
            "correlationId" => text(Some(origin.correlation_id.to_string())),
            "causationId" => text(origin.causation_id.as_ref().map(ToString::to_string)),
            "data" => document(ctx, Value::Object(self.data.clone()))?,
            name => match self.data.get(name) {
                Some(value) => document(ctx, value.clone())?,
                None => return Ok(None),
            },
        }))
    }
}

/// A document or text of an event, counted against what the answer may hold.
fn document(ctx: &Context<'_>, value: Value) -> ServerResult<GraphqlValue> {
    Session::of(ctx).spend_on(&value).map_err(|error| error.into_server_error(ctx.item.pos))?;
    Ok(GraphqlValue::from_json(value).unwrap_or_default())
}

async fn actor(ctx: &Context<'_>, actor: &aggregates::Actor) -> ServerResult<GraphqlValue> {
    let actor = Actor::named(ctx, actor).await.map_err(|error| error.into_server_error(ctx.item.pos))?;
    let selection = ctx.with_selection_set(&ctx.item.node.selection_set);
    OutputType::resolve(&actor, &selection, ctx.item).await
}

/// What happened: one value for each domain event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AuditAction(pub(super) &'static Descriptor);

impl InputType for AuditAction {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("AuditAction")
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_input_type::<Self, _>(MetaTypeId::Enum, |_| MetaType::Enum {
            name: "AuditAction".to_owned(),
            description: Some("What happened: one value for each domain event.".to_owned()),
            enum_values: descriptors()
                .map(|descriptor| {
                    let value = MetaEnumValue {
                        name: descriptor.enum_value(),
                        description: Some(descriptor.description.to_owned()),
                        deprecation: Deprecation::NoDeprecated,
                        visible: None,
                        inaccessible: false,
                        tags: vec![],
                        directive_invocations: vec![],
                    };
                    (descriptor.enum_value(), value)
                })
                .collect(),
            visible: None,
            inaccessible: false,
            tags: vec![],
            rust_typename: Some(std::any::type_name::<Self>()),
            directive_invocations: vec![],
            requires_scopes: vec![],
        })
    }

    fn parse(value: Option<GraphqlValue>) -> InputValueResult<Self> {
        let name = match &value {
            Some(GraphqlValue::Enum(name)) => name.as_str(),
            Some(GraphqlValue::String(name)) => name.as_str(),
            _ => return Err(InputValueError::expected_type(value.unwrap_or_default())),
        };
        let known = descriptors().find(|descriptor| descriptor.enum_value() == name);
        known.map(Self).ok_or_else(|| InputValueError::custom(format!("there is no action {name}")))
    }

    fn to_value(&self) -> GraphqlValue {
        GraphqlValue::Enum(async_graphql::Name::new(self.0.enum_value()))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }
}

/// Which events; all conditions together.
#[derive(Debug, Clone, InputObject)]
pub struct AuditFilter {
    /// What happened.
    actions: Option<Vec<AuditAction>>,
    /// The actor.
    actor_ids: Option<Vec<ID>>,
    /// What it happened to.
    subject_ids: Option<Vec<ID>>,
    /// Recorded at this time or later.
    since: Option<Time>,
    /// Recorded before this time.
    until: Option<Time>,
    /// What belongs together.
    correlation_id: Option<ID>,
}

/// The most values that one condition may name.
const FILTER_VALUES_MAX: usize = 100;

impl AuditFilter {
    fn into_log_filter(self) -> Result<LogFilter, Error> {
        let list = |name: &str, values: Option<Vec<ID>>| -> Result<Vec<String>, Error> {
            let values: Vec<String> = values.unwrap_or_default().into_iter().map(|id| id.0).collect();
            if values.len() > FILTER_VALUES_MAX {
                let message = format!("{name} has {} values: give at most {FILTER_VALUES_MAX}", values.len());
                return Err(super::errors::bad_input(message));
            }
            Ok(values)
        };
        let correlation = self.correlation_id.map(|id| {
            id.parse().map_err(|_| super::errors::bad_input(format!("correlationId {:?} is no UUID", id.as_str())))
        });
        Ok(LogFilter {
            event_types: self.actions.unwrap_or_default().iter().map(|action| action.0.name.to_owned()).collect(),
            actors: list("actorIds", self.actor_ids)?,
            subjects: list("subjectIds", self.subject_ids)?,
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
            correlation: correlation.transpose()?,
        })
    }
}

impl Cursor for AuditCursor {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            None => text.strip_prefix('#')?.parse().ok().map(Self::Sequence),
            Some((micros, id)) => {
                Some(Self::Time(DateTime::from_timestamp_micros(micros.parse().ok()?)?, id.parse().ok()?))
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Sequence(sequence) => format!("#{sequence}"),
            Self::Time(time, id) => format!("{} {id}", time.timestamp_micros()),
        }
    }
}

/// A page of the audit trail of an organization, or of all (for operators; checked by the caller).
pub async fn trail(
    ctx: &Context<'_>,
    organization: Option<&OrganizationId>,
    filter: Option<AuditFilter>,
    page: PageArguments,
) -> Result<AuditConnection, Error> {
    let session = Session::of(ctx);
    let log = match organization {
        Some(id) => session.log_within(id),
        None => session.log(),
    };
    let page: Page<AuditCursor> = page.page(Session::of(ctx).page_size_max())?;
    for cursor in [&page.after, &page.before].into_iter().flatten() {
        if matches!(cursor, AuditCursor::Sequence(_)) != organization.is_some() {
            return Err(super::errors::bad_input(
                "this cursor is of another list: pass one back exactly as the list gave it",
            ));
        }
    }
    Session::of(ctx).note_audit_read(organization);
    let up_to = match ctx.look_ahead().field("upTo").exists() {
        true => Some(up_to(session, organization).await?),
        false => None,
    };
    let wanted = AuditPage {
        organization: organization.cloned(),
        filter: filter.map(AuditFilter::into_log_filter).transpose()?.unwrap_or_default(),
        direction: page.direction(),
        after: page.after.clone(),
        before: page.before.clone(),
        limit: page.limit,
    };
    let slice = match organization.zip(EventsOf::page(&wanted)) {
        Some((id, events)) => {
            let rows = session.lists().events(id.clone(), events).await?;
            log.unfiltered(rows, &wanted).await
        }
        None => log.audit_trail(&wanted).await,
    };
    let AuditSlice { events, more } = slice.map_err(log_fault)?;
    let place = |recorded: &Recorded| match (organization, recorded.audit_sequence) {
        (Some(_), Some(sequence)) => AuditCursor::Sequence(sequence.cast_signed()),
        _ => AuditCursor::Time(recorded.recorded_at, recorded.id.clone()),
    };
    let text = |cursor: &AuditCursor| Opaque::of(cursor).0;
    let mut page_info = PageInfo {
        has_previous_page: if page.forward { page.after.is_some() } else { more.is_some() },
        has_next_page: if page.forward { more.is_some() } else { page.before.is_some() },
        start_cursor: events.first().map(|event| text(&place(event))),
        end_cursor: events.last().map(|event| text(&place(event))),
    };
    // It was looked further than the last event that was found.
    if let Some(more) = &more {
        *(if page.forward { &mut page_info.end_cursor } else { &mut page_info.start_cursor }) = Some(text(more));
    }
    let nodes: Vec<AuditEvent> = events.iter().cloned().map(AuditEvent::new).collect();
    let edges = events.iter().zip(&nodes).map(|(event, node)| Edge::new(Opaque::of(&place(event)), node.clone()));
    let edges = edges.collect();
    Ok(AuditConnection { edges, nodes, page_info, up_to: up_to.unwrap_or_else(|| PositionText(String::new())) })
}

/// The place up to which a page is complete that is read after this. Others' events move it on.
async fn up_to(session: &Session, organization: Option<&OrganizationId>) -> Result<PositionText, Error> {
    let log = session.log();
    let partitions: Vec<i16> = organization.iter().map(|id| log.partition_of(id.as_ref())).collect();
    let offsets = log.heads_now(&partitions).await.map_err(log_fault)?;
    Ok(Position { epoch: log.epoch(), offsets }.into())
}

/// Whether the caller may see an event: as somebody who may read its organization's audit trail; of a user's own
/// events, the user and operators.
pub async fn visible(session: &Session, recorded: &Recorded) -> Result<bool, Error> {
    // Operators see what the trail over all organizations shows, also of those that are gone.
    if session.is_operator() {
        if let Some(organization) = &recorded.organization {
            session.see(organization).await?;
        }
        return Ok(true);
    }
    if let Some(organization) = &recorded.organization {
        let seen = session.see(organization).await?;
        return Ok(seen.is_some_and(|seen| seen.may(aggregates::roles::Permission::AuditRead)));
    }
    let own = matches!(&recorded.stream, StreamId::User(user) if session.is(user));
    if !own {
        session.see_owner(None, recorded.id.as_ref()).await?;
    }
    Ok(own)
}

/// The event of an id.
pub async fn event(session: &Session, text: &str) -> Result<Option<AuditEvent>, Error> {
    let id: EventId = id(EventId::PREFIX, text)?;
    let Some(recorded) = session.log().event(&id).await.map_err(log_fault)? else {
        session.see_owner(None, text).await?;
        session.note_reach(None, Some(text));
        return Ok(None);
    };
    if !visible(session, &recorded).await? {
        session.note_reach(recorded.organization.as_ref(), Some(text));
        return Ok(None);
    }
    if let Some(organization) = &recorded.organization {
        session.note_audit_read(Some(organization));
    }
    Ok(Some(AuditEvent::new(recorded)))
}

/// The field that every node has.
pub fn id_field() -> MetaField {
    meta_field("id", "The id.", "ID!".to_owned())
}
