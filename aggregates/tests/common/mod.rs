//! What the domain tests share: ids and times that never change, and given / when / then in one word.

// Each test file is a crate of its own and uses some of this.
#![allow(dead_code, clippy::panic, clippy::unwrap_used)]

use aggregates::ids::{Id, InvitationId, MembershipId, OrganizationId, UserId};
use aggregates::membership::Grantor;
use aggregates::roles::OwnRoles;
use aggregates::{Digest, Refusal};
use chrono::{DateTime, Duration, Utc};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use cqrs_es::{Aggregate, DomainEvent};

/// So many hours after the day on which all tests play.
pub fn at(hour: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap() + Duration::hours(hour)
}

/// The organization of the tests.
pub fn organization() -> OrganizationId {
    OrganizationId::derived(&["organization"])
}

/// The user of this name.
pub fn user(name: &str) -> UserId {
    UserId::derived(&[name])
}

/// The membership of the user of this name.
pub fn membership(name: &str) -> MembershipId {
    MembershipId::of(&organization(), &user(name))
}

/// The invitation of this name.
pub fn invitation(name: &str) -> InvitationId {
    InvitationId::derived(&[name])
}

/// What stands for the keyed hash of `text`; like one, it shows nothing of the text.
pub fn digest(text: &str) -> Digest {
    Digest(UserId::derived(&["digest", text]).uuid().simple().to_string())
}

/// Roles by name.
pub fn roles(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A grantor with these roles.
pub fn holder_of(names: &[&str]) -> Grantor {
    Grantor::with_roles(&roles(names), &OwnRoles::default())
}

/// A reason one character too long.
pub fn endless_reason() -> Option<String> {
    Some("x".repeat(aggregates::text::REASON_CHARS_MAX + 1))
}

/// An aggregate with this history, in cqrs-es's own test framework.
pub fn given<A: Aggregate<Services = ()>>(history: &[A::Event]) -> AggregateTestExecutor<A> {
    if history.is_empty() {
        return TestFramework::with(()).given_no_previous_events();
    }
    TestFramework::with(()).given(history.to_vec())
}

/// What is known after this history.
pub fn fold<A: Aggregate>(history: &[A::Event]) -> A {
    let mut aggregate = A::default();
    history.iter().cloned().for_each(|event| aggregate.apply(event));
    aggregate
}

/// What came of a command, in a word: the names of its events, `nothing`, or the kind of the refusal.
pub fn outcome<E: DomainEvent>(result: Result<Vec<E>, Refusal>) -> String {
    match result {
        Ok(events) if events.is_empty() => "nothing".to_owned(),
        Ok(events) => events.iter().map(DomainEvent::event_type).collect::<Vec<_>>().join("+"),
        Err(refusal) => kind(&refusal).to_owned(),
    }
}

/// The kind of a refusal.
pub fn kind(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::InvalidInput { .. } => "InvalidInput",
        Refusal::EntityStatus { .. } => "EntityStatus",
        Refusal::InvalidState(_) => "InvalidState",
        Refusal::InvitationNotPending(_) => "InvitationNotPending",
        Refusal::WrongRecipient => "WrongRecipient",
        Refusal::RoleNotGrantable(_) => "RoleNotGrantable",
        Refusal::Forbidden(_) => "Forbidden",
        Refusal::AlreadyExists { .. } => "AlreadyExists",
        Refusal::NotFound => "NotFound",
    }
}

/// The field that was refused, and the message.
pub fn refused_input<E: DomainEvent>(result: Result<Vec<E>, Refusal>) -> (&'static str, String) {
    match result {
        Err(Refusal::InvalidInput { path, message }) => (path, message),
        other => panic!("expected a field of the input to be refused, got {other:?}"),
    }
}

/// Compares each command in each state with what the table says: one row a command, one column a state.
pub fn check_table<A: Aggregate<Services = (), Error = Refusal>>(
    states: &[(&str, Vec<A::Event>)],
    table: &[(&str, A::Command, &[&str])],
) where
    A::Command: Clone,
{
    for (command, asked, row) in table {
        assert_eq!(row.len(), states.len(), "the row of {command} has a cell for each state");
        for ((state, history), expected) in states.iter().zip(*row) {
            let result = given::<A>(history).when(asked.clone()).inspect_result();
            assert_eq!(outcome(result), *expected, "{command} when {state}");
        }
    }
}
