//! The caller, and the request that they make.

use std::sync::Arc;

use aggregates::Actor;
use aggregates::ids::{ApiTokenId, UserId};
use uuid::Uuid;

use super::Fault;
use crate::requests::rate_limits::Meter;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A user.
    User(Person),
    /// An organization's API token; no user is behind it, and it never operates the service.
    Token(ApiTokenId),
}

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user.
    pub user: UserId,
    /// The verified address.
    pub email: Option<String>,
    /// Whether the user operates the service.
    pub operator: bool,
    /// The organization that the issuer says the user belongs to.
    pub organization: Option<NamedOrganization>,
}

/// An organization as a token names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedOrganization {
    /// Its `externalId`.
    pub external_id: String,
    /// The role that the configuration gives to users whose token names it.
    pub role: String,
}

impl Principal {
    /// The user, where it is one.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(person) => Some(&person.user),
            Self::Token(_) => None,
        }
    }

    /// The id of the user or the token.
    pub fn id(&self) -> &str {
        match self {
            Self::User(person) => person.user.as_ref(),
            Self::Token(id) => id.as_ref(),
        }
    }

    /// The verified address of a user.
    pub fn email(&self) -> Option<&str> {
        match self {
            Self::User(person) => person.email.as_deref(),
            Self::Token(_) => None,
        }
    }

    /// Whether a user calls who operates the service.
    pub fn is_operator(&self) -> bool {
        match self {
            Self::User(person) => person.operator,
            Self::Token(_) => false,
        }
    }

    /// The user who calls, for what needs one.
    pub fn person(&self) -> Result<&Person, Fault> {
        match self {
            Self::User(person) => Ok(person),
            Self::Token(_) => Err(Fault::Forbidden("this needs a person: an API token cannot do it".into())),
        }
    }

    /// As an actor, in what is done as an operator or not.
    pub fn actor(&self, as_operator: bool) -> Actor {
        match self {
            Self::User(person) if as_operator => Actor::Operator(person.user.clone()),
            Self::User(person) => Actor::User(person.user.clone()),
            Self::Token(id) => Actor::Token(id.clone()),
        }
    }
}

/// The caller, and the request that they make.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The principal.
    pub principal: Principal,
    /// From which address.
    pub ip: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// The HTTP request.
    pub request_id: Option<String>,
    /// What belongs together.
    pub correlation_id: Uuid,
    /// What the request is counted by; nothing where it came by no network.
    pub meter: Option<Arc<Meter>>,
}

impl Caller {
    /// What counts the request against organizations that the caller is in; operators are not counted.
    pub fn member_meter(&self) -> Option<&Meter> {
        self.meter.as_deref().filter(|_| !self.principal.is_operator())
    }

    /// The caller as an actor, in what they do as an operator or in their own name.
    pub fn actor(&self, as_operator: bool) -> Actor {
        self.principal.actor(as_operator)
    }
}
