//! Anything with an id.

use std::borrow::Cow;

use aggregates::ids::{EventId, Id, PREFIXES, WebhookDeliveryId};
use aggregates::roles::Permission;
use aggregates::{Registered, StreamId, descriptors};
use async_graphql::parser::types::Field;
use async_graphql::registry::{MetaTypeId, Registry};
use async_graphql::resolver_utils::ContainerType;
use async_graphql::{Context, ContextSelectionSet, Error, OutputType, Positioned, ServerResult, Value};

use super::audit::{AuditEvent, event, meta_interface};
use super::delivery::{WebhookDelivery, WebhookRow};
use super::errors::{bad_input, log_fault};
use super::session::Session;
use crate::commands::Receipt;
use crate::log::Loaded;

/// The name of the interface.
pub const INTERFACE: &str = "Node";

/// Whether the caller may see something.
pub type Seeing = Result<bool, Error>;

/// What is shown of an aggregate, under its id.
pub trait Shown: Sized {
    /// The aggregate.
    type Of: Registered;

    /// From the log's side; `None` where there is nothing to show.
    fn new(id: <Self::Of as Registered>::Id, loaded: &Loaded<Self::Of>) -> Option<Self>;

    /// Whether the caller may see it by its id. What does not exist takes the same look-ups as what is hidden.
    fn is_visible(
        session: &Session,
        id: &<Self::Of as Registered>::Id,
        loaded: &Loaded<Self::Of>,
    ) -> impl Future<Output = Seeing> + Send;

    /// The first of its kind that a command answers with, as it is after the command.
    fn after(receipt: &Receipt) -> Option<Self> {
        receipt.entity::<Self::Of>().and_then(|(id, loaded)| Self::new(id, &loaded))
    }
}

/// What has this id, where the caller may see it.
pub async fn look_up<S: Shown>(session: &Session, id: <S::Of as Registered>::Id) -> Result<Option<S>, Error> {
    let now = session.log().current(&[id.clone().into()]).await.map_err(log_fault)?;
    let loaded = now.get::<S::Of>(&id);
    let visible = S::is_visible(session, &id, &loaded).await?;
    let stream: StreamId = id.clone().into();
    if !visible && stream.place().is_of_organization() {
        let organization = match &stream {
            StreamId::Organization(id) => Some(id),
            _ => loaded.organization.as_ref(),
        };
        session.note_reach(organization, Some(stream.id()));
    }
    Ok(S::new(id, &loaded).filter(|_| visible))
}

macro_rules! nodes {
    ($($(#[$doc:meta])* $name:ident: $id:ident = $prefix:literal;)*) => {
        /// Anything with an id.
        #[allow(clippy::large_enum_variant)]
        pub enum Node {
            $($(#[$doc])* $name(super::$name),)*
            /// An event on its way to a webhook endpoint.
            WebhookDelivery(WebhookDelivery),
            /// An event.
            Event(AuditEvent),
        }

        macro_rules! each {
            ($node:expr, $inner:ident => $answer:expr) => {
                match $node {
                    $(Node::$name($inner) => $answer,)*
                    Node::WebhookDelivery($inner) => $answer,
                    Node::Event($inner) => $answer,
                }
            };
        }

        /// The types that implement the interface, but for those of events.
        const NAMES: &[&str] = &[$(stringify!($name),)* "WebhookDelivery"];

        fn create_types(registry: &mut Registry) {
            $(<super::$name as OutputType>::create_type_info(registry);)*
            <WebhookDelivery as OutputType>::create_type_info(registry);
            <AuditEvent as OutputType>::create_type_info(registry);
        }

        async fn of_stream(session: &Session, stream: StreamId) -> Result<Option<Node>, Error> {
            match stream { $(StreamId::$name(id) => Ok(look_up(session, id).await?.map(Node::$name)),)* }
        }
    };
}

aggregates::for_each_resource!(nodes);

impl OutputType for Node {
    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed(INTERFACE)
    }

    fn introspection_type_name(&self) -> Cow<'static, str> {
        each!(self, node => node.introspection_type_name())
    }

    fn create_type_info(registry: &mut Registry) -> String {
        registry.create_output_type::<Self, _>(MetaTypeId::Interface, |registry| {
            create_types(registry);
            NAMES.iter().for_each(|name| registry.add_implements(name, INTERFACE));
            let id = super::audit::id_field();
            let own = NAMES.iter().map(|name| (*name).to_owned());
            let possible = own.chain(descriptors().map(|descriptor| descriptor.object_type())).collect();
            let fields = [("id".to_owned(), id)].into_iter().collect();
            meta_interface(INTERFACE, "Anything with an id.", fields, possible, std::any::type_name::<Self>())
        })
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _field: &Positioned<Field>) -> ServerResult<Value> {
        async_graphql::resolver_utils::resolve_container(ctx, self).await
    }
}

impl ContainerType for Node {
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<Value>> {
        each!(self, node => node.resolve_field(ctx).await)
    }

    fn collect_all_fields<'a>(
        &'a self,
        ctx: &ContextSelectionSet<'a>,
        fields: &mut async_graphql::resolver_utils::Fields<'a>,
    ) -> ServerResult<()> {
        each!(self, node => node.collect_all_fields(ctx, fields))
    }
}

/// The node of an id; `None` where there is none that the caller may see.
pub async fn node(ctx: &Context<'_>, id: &str) -> Result<Option<Node>, Error> {
    let session = Session::of(ctx);
    if id.starts_with("evt_") {
        return Ok(event(session, id).await?.map(Node::Event));
    }
    if let Ok(id) = id.parse::<WebhookDeliveryId>() {
        return webhook_delivery(session, &id).await;
    }
    match StreamId::from_id(id) {
        Some(stream) => of_stream(session, stream).await,
        None => {
            let kinds = [PREFIXES, &[WebhookDeliveryId::PREFIX, EventId::PREFIX]].concat().join(", ");
            let shown: String = id.chars().take(40).collect();
            Err(bad_input(format!("{shown:?} is no id: ids begin with one of {kinds}, then '_' and 26 characters")))
        }
    }
}

async fn webhook_delivery(session: &Session, id: &WebhookDeliveryId) -> Result<Option<Node>, Error> {
    let row = session.loaders().deliveries.load_one(id.to_string()).await?;
    let organization = row.as_ref().and_then(|row: &WebhookRow| row.organization());
    let seen = session.see_owner(organization.as_ref(), id.as_ref()).await?;
    // The audit trail says what was sent.
    let visible = seen.is_some_and(|seen| seen.may(Permission::WebhookRead) && seen.may(Permission::AuditRead));
    if !visible {
        session.note_reach(organization.as_ref(), Some(id.as_ref()));
    }
    Ok(row.filter(|_| visible).map(|row| Node::WebhookDelivery(row.into())))
}
