//! On whose authority a use case runs: a caller's, or the service's own.
//!
//! The service acts by itself where something makes that due: time, an erasure, a restored database, a token that says
//! something new of its user, a receiver that does not answer. No request becomes the service: a request has a
//! [`Principal`](super::Principal), which has no such case. The service needs no rights, and gets none: a use case that
//! checks rights asks for the caller, and is refused where there is none.

use aggregates::ids::UserId;
use aggregates::{Actor, Origin, Recorded};
use uuid::Uuid;

use super::{Caller, Fault};

/// On whose authority a use case runs.
#[derive(Debug, Clone, Copy)]
pub enum Authority<'a> {
    /// A caller's, within their rights.
    Caller(&'a Caller),
    /// The service's own. The events are recorded with this origin.
    Service(&'a Origin),
}

impl<'a> Authority<'a> {
    /// The caller, where there is one.
    pub(super) fn caller(self) -> Option<&'a Caller> {
        match self {
            Self::Caller(caller) => Some(caller),
            Self::Service(_) => None,
        }
    }

    /// The caller, for what needs one.
    pub(super) fn require_caller(self) -> Result<&'a Caller, Fault> {
        self.caller()
            .ok_or_else(|| Fault::Forbidden("this needs a caller: the service does not do it by itself".into()))
    }

    /// The origin of what this command records.
    pub(super) fn origin(self, command_id: Uuid, as_operator: bool) -> Origin {
        match self {
            Self::Caller(caller) => Origin {
                command_id,
                actor: caller.actor(as_operator),
                on_behalf_of: None,
                ip: caller.ip.clone(),
                user_agent: caller.user_agent.clone(),
                request_id: caller.request_id.clone(),
                correlation_id: caller.correlation_id,
                causation_id: None,
            },
            Self::Service(origin) => origin.clone(),
        }
    }
}

/// The origin of what the service does because time has come, or because of what it met.
pub(super) fn by_itself() -> Origin {
    Origin {
        command_id: Uuid::new_v4(),
        actor: Actor::System,
        on_behalf_of: None,
        ip: None,
        user_agent: None,
        request_id: None,
        correlation_id: Uuid::new_v4(),
        causation_id: None,
    }
}

/// The origin of what follows an event: the actor is the one of that event.
pub(super) fn following(cause: &Recorded) -> Origin {
    Origin {
        actor: cause.origin.actor.clone(),
        request_id: cause.origin.request_id.clone(),
        correlation_id: cause.origin.correlation_id,
        causation_id: Some(cause.id.clone()),
        ..by_itself()
    }
}

/// The origin of what the service learns of a user from the user's own token.
pub(super) fn told_by(user: &UserId) -> Origin {
    Origin { actor: Actor::User(user.clone()), ..by_itself() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_no_caller_and_has_nobodys_rights() {
        let origin = by_itself();
        let service = Authority::Service(&origin);
        assert!(service.caller().is_none());
        assert!(matches!(service.require_caller().unwrap_err(), Fault::Forbidden(_)));
        assert_eq!(service.origin(Uuid::new_v4(), true), origin);
    }
}
