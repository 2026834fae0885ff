//! The domain of tenancy.
//!
//! Seven aggregates: [`Organization`], [`Membership`], [`Invitation`], [`Project`], [`ApiToken`], [`WebhookEndpoint`]
//! and the [`User`]'s small stream.
//! Each is one file, in this order: events, state, commands, `decide`, `apply`. Deciding is pure and synchronous:
//! time, ids and the caller's rights come in with the command.
//!
//! What is always so:
//! - an event's stored name and the meaning of its fields never change; a new shape gets a new version and an
//!   entry in [`upcasters`];
//! - matches over events have no wildcard, so the compiler finds the places that a new event touches;
//! - whatever can be read of a person is [`Personal`].

pub mod actor;
pub mod api_token;
pub mod error;
pub mod event;
pub mod guard;
pub mod ids;
pub mod invitation;
pub mod membership;
pub mod organization;
pub mod ownership;
pub mod personal;
pub mod project;
pub mod recorded;
pub mod roles;
pub mod status;
mod stream;
pub mod text;
pub mod user;
pub mod webhook;

pub use actor::Actor;
pub use api_token::ApiToken;
pub use error::Refusal;
pub use event::{Declared, Descriptor, Snapshot};
pub use guard::{Effect, Scope};
pub use invitation::Invitation;
pub use membership::Membership;
pub use organization::Organization;
pub use personal::{Digest, Personal};
pub use project::Project;
pub use recorded::{Origin, Recorded};
pub use stream::{Event, PRUNED, StreamId, UnreadableEvent, descriptors, descriptors_of_organizations, upcasters};
pub use user::User;
pub use webhook::WebhookEndpoint;

/// Makes a type with `decide` and `apply` an aggregate of cqrs-es.
macro_rules! aggregate {
    ($aggregate:ident, $stream:literal, $command:ident, $event:ident, shape $shape:literal, personal [$($field:ident),*]) => {
        impl crate::event::Snapshot for $aggregate {
            const SHAPE: i32 = $shape;
            #[allow(unused_variables)]
            fn visit_personal(&mut self, visit: &mut crate::event::PersonalVisitor<'_>) {
                $( crate::event::Field::visit_personal(&mut self.$field, stringify!($field), visit); )*
            }
        }

        impl cqrs_es::Aggregate for $aggregate {
            const TYPE: &'static str = $stream;
            type Command = $command;
            type Event = $event;
            type Error = crate::error::Refusal;
            type Services = ();

            async fn handle(
                &mut self,
                command: Self::Command,
                (): &Self::Services,
                sink: &cqrs_es::event_sink::EventSink<Self>,
            ) -> Result<(), Self::Error> {
                for event in self.decide(command)? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: Self::Event) {
                Self::apply(self, event);
            }
        }
    };
}
use aggregate;
