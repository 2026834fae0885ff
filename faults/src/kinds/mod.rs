//! What this program knows of each kind of stream: for the checker the rule of each of its events, its fold, its limit and its
//! rows, and for the clients what they do with it.
//!
//! A new kind is one file here and its name in `kinds!`. Tests compare the table with the events and the mutations that
//! `schema.graphql` names, and fail for an event without a rule and for a mutation without a plan.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use self::membership::Member;
use self::organization::Organization;
use crate::check::case::{Case, Rights};
use crate::check::event::Event;
use crate::check::findings::Findings;
use crate::check::fold::Fold;
use crate::check::model::{Model, Tally};
use crate::check::tables::Table;
use crate::clients::plans::{List, Plan};

macro_rules! kinds {
    ($($kind:ident)*) => {
        $(pub mod $kind;)*

        /// All kinds.
        pub static KINDS: &[&Kind] = &[$(&$kind::KIND),*];
        /// The plans of each kind; those of organizations stand in several files.
        pub const PLANS: &[&[Plan]] =
            &[organization::roles::plans::PLANS, organization::ownership::plans::PLANS, $($kind::plans::PLANS),*];
        /// What the clients learn of an organization, beside itself.
        pub const LISTS: &[&[List]] = &[$($kind::plans::LISTS),*];
    };
}

kinds! { organization membership invitation project token webhook user }

/// A kind of stream.
pub struct Kind {
    /// As the log names it.
    pub name: &'static str,
    /// How ids of its streams begin.
    #[cfg_attr(not(test), allow(dead_code))]
    pub prefix: &'static str,
    /// The rules of its events; those of organizations stand in several files.
    pub rules: &'static [&'static [Rule]],
    /// What an event makes of the state.
    pub fold: fn(&mut Fold<'_>),
    /// What has to be so after a command.
    pub after: &'static [fn(&After<'_>, &mut Findings)],
    /// How many an organization may have.
    pub limit: Option<Limit>,
    /// Its read model.
    pub tables: &'static [Table],
}

/// A limit that plans and operators set.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub name: &'static str,
    /// The maximum where neither says anything; none is no limit.
    pub default: Option<i64>,
}

/// In which statuses of its organization an event may be recorded. The lifecycle wins over the verification.
#[derive(Clone, Copy)]
pub enum Status {
    /// In use, and not put off or stopped: the profile is edited.
    Edit,
    /// In use, and being set up, looked at or verified: somebody comes in, or gets more.
    Add,
    /// Not deleted: somebody goes, or gets less.
    Remove,
    /// In use and verified.
    Create,
    /// In use, and looked at, verified or turned down.
    Change,
    /// In use and being set up.
    Submit,
    /// In use.
    Active,
    /// Switched off.
    Inactive,
    /// Deleted.
    Deleted,
    /// As this says.
    If(fn(&Case<'_>) -> bool),
    /// Whatever the status is.
    Any,
}

impl Status {
    /// Whether the organization's status allows the event.
    pub fn allows(self, case: &Case<'_>) -> bool {
        let active = case.organization.lifecycle == "ACTIVE";
        let at = |wanted: &[&str]| active && wanted.contains(&case.organization.verification.as_str());
        match self {
            Self::Edit => at(&["IN_SETUP", "PENDING", "VERIFIED", "REJECTED"]),
            Self::Add => at(&["IN_SETUP", "PENDING", "VERIFIED"]),
            Self::Remove => case.organization.lifecycle != "DELETED",
            Self::Create => at(&["VERIFIED"]),
            Self::Change => at(&["PENDING", "VERIFIED", "REJECTED"]),
            Self::Submit => at(&["IN_SETUP"]),
            Self::Active => active,
            Self::Inactive => case.organization.lifecycle == "INACTIVE",
            Self::Deleted => case.organization.lifecycle == "DELETED",
            Self::If(allows) => allows(case),
            Self::Any => true,
        }
    }
}

/// By whom an event may be caused.
#[derive(Clone, Copy)]
pub enum By {
    /// A member or a token with these permissions, or an operator.
    May(&'static [&'static str]),
    /// The same, where this holds of what they may do.
    MayIf(&'static [&'static str], fn(&Case<'_>, &Rights) -> bool),
    /// An owner, or an operator.
    Owner,
    /// An operator.
    Operator,
    /// The service itself.
    Service,
    /// The user whom the event names, for themselves.
    Oneself,
    /// Anybody, where this holds: what follows from something else in the same command, or from an erasure.
    If(fn(&Case<'_>) -> bool),
}

impl By {
    /// Whether the actor is one of these.
    pub fn holds(self, case: &Case<'_>) -> bool {
        let rights = |permissions| case.rights().filter(|rights| rights.has(permissions));
        match self {
            Self::May(permissions) => rights(permissions).is_some(),
            Self::MayIf(permissions, holds) => rights(permissions).is_some_and(|rights| holds(case, &rights)),
            Self::Owner => case.rights().is_some_and(|rights| rights.owner),
            Self::Operator => case.is_operator() && case.rights().is_some(),
            Self::Service => case.is_service(),
            Self::Oneself => {
                let (plane, user) = case.actor();
                plane == "user" && case.event.text("user_id") == user && !case.is_shut_out(user)
            }
            Self::If(holds) => holds(case),
        }
    }
}

/// When time does something; none where it is never due.
type Due = fn(&Case<'_>) -> Option<DateTime<Utc>>;

/// The rule of an event.
pub struct Rule {
    pub event: &'static str,
    pub status: Status,
    /// One of these is enough.
    pub by: &'static [By],
    /// What time does, it does not do before this.
    pub due: Option<Due>,
    /// What else is judged.
    pub also: Option<fn(&Case<'_>, &mut Findings)>,
    /// Whether it may still happen in a purged organization.
    pub after_purge: bool,
}

impl Rule {
    pub const fn of(event: &'static str, status: Status, by: &'static [By]) -> Self {
        Self { event, status, by, due: None, also: None, after_purge: false }
    }

    pub const fn due(self, due: Due) -> Self {
        Self { due: Some(due), ..self }
    }

    pub const fn also(self, also: fn(&Case<'_>, &mut Findings)) -> Self {
        Self { also: Some(also), ..self }
    }

    pub const fn after_purge(self) -> Self {
        Self { after_purge: true, ..self }
    }
}

/// A command after it was folded.
pub struct After<'a> {
    pub model: &'a Model,
    pub group: &'a [Event],
    pub id: &'a str,
    pub organization: &'a Organization,
    /// What the organization used before.
    pub before: &'a BTreeMap<String, Tally>,
}

impl After<'_> {
    /// The membership of a user.
    pub fn member(&self, user: &str) -> Option<&Member> {
        let membership = self.model.membership_of.get(&(self.id.to_owned(), user.to_owned()));
        membership.and_then(|id| self.model.get(id))
    }
}

/// The kind of this name.
pub fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

/// The rule of an event.
pub fn rule(event: &Event) -> Option<&'static Rule> {
    named(&event.kind)?.rules.iter().copied().flatten().find(|rule| rule.event == event.name)
}

/// All limits.
pub fn limits() -> impl Iterator<Item = Limit> {
    KINDS.iter().filter_map(|kind| kind.limit)
}
