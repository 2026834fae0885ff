//! Running a command for a resolver, and what every payload has in common.

use async_graphql::{Context, Error};

use super::session::{Session, conditions};
use crate::commands::{Receipt, UseCase};

/// What a mutation answers with: null and a fault, or a payload.
pub type Answer<P> = Option<async_graphql::Result<P>>;

/// Carries out the command that an input asks for.
pub async fn run<U: UseCase, P: From<Receipt>>(
    ctx: &Context<'_>,
    idempotency_key: Option<String>,
    expected_version: Option<i32>,
    case: Result<U, Error>,
) -> Answer<P> {
    let run = async {
        Session::of(ctx).caller()?;
        let conditions = conditions(idempotency_key, expected_version)?;
        Ok(Session::of(ctx).execute(case?, conditions).await?.into())
    };
    Some(run.await)
}

/// Declares payloads: what each has of its own, taken from the receipt, and what all have.
macro_rules! payloads {
    ($($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $field_doc:literal])* $field:ident: $type:ty = $value:expr,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(async_graphql::SimpleObject)]
        pub struct $name {
            $($(#[doc = $field_doc])* $field: $type,)*
            /// What was recorded.
            events: Vec<crate::graphql::audit::AuditEvent>,
            /// Where to read to see it.
            position: Option<crate::graphql::scalars::PositionText>,
            /// Whether this is the outcome of an earlier, equal command.
            replayed: bool,
            /// Why nothing was changed.
            errors: Vec<crate::graphql::errors::UserError>,
        }

        impl From<crate::commands::Receipt> for $name {
            fn from(receipt: crate::commands::Receipt) -> Self {
                Self {
                    $($field: ($value)(&receipt),)*
                    events: receipt.events.into_iter().map(crate::graphql::audit::AuditEvent::new).collect(),
                    position: receipt.position.map(Into::into),
                    replayed: receipt.replayed,
                    errors: receipt.rejections.into_iter().map(Into::into).collect(),
                }
            }
        }
    )*};
}
pub(super) use payloads;
