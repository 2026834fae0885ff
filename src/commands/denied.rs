//! The access trail of commands: what was refused for lack of permission, or because it is another tenant's.

use aggregates::{Place, StreamId};

use super::work::Work;
use super::{Caller, Fault, Receipt, UseCase};
use crate::requests::trail::{Kind, Occurrence};

/// Puts a refusal on the caller's record, if it is one of those.
pub(super) fn note<U: UseCase>(work: &Work<'_>, caller: &Caller, case: &U, refused: &Result<Receipt, Fault>) {
    let (trail, operator) = (work.commands.trail(), caller.principal.is_operator());
    let (operation, target) = (case.operation(), target(case));
    // The same whether it is there, and hidden, or not.
    if let (Err(Fault::NotFound), None, Some(target)) = (refused, &work.seen, &target)
        && !operator
    {
        trail.note_reach(caller.actor(false), operation, target, caller.ip.clone());
    }
    let (organization, reached) = match refused {
        Err(Fault::Forbidden(_)) => (work.seen.clone().or_else(|| work.token_organization.clone()), None),
        Err(Fault::NotFound) if work.hidden.is_some() => (None, work.hidden.clone()),
        _ => return,
    };
    trail.note(Occurrence {
        kind: Kind::Refused,
        actor: caller.actor(operator),
        operation: operation.to_owned(),
        organization,
        reached,
        target,
        ip: caller.ip.clone(),
    });
}

/// The id of what a command is for: of the narrowest thing that a field of its input names. Such a field is called as the
/// aggregate is, or as its last word; what somebody writes into another one names nothing.
fn target<U: UseCase>(case: &U) -> Option<String> {
    let input = serde_json::to_value(case).ok()?;
    let fields = || input.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_str()?)));
    let stream_of = |place: Place| {
        let named = fields().filter_map(|(name, id)| Some((name, StreamId::from_id(id)?)));
        let mut fitting = named.filter(|(name, stream)| {
            stream.place() == place && stream.aggregate_type().to_lowercase().ends_with(name.as_str())
        });
        fitting.next().map(|(_, stream)| stream.id().to_owned())
    };
    let delivery = || fields().find(|(name, _)| *name == "delivery").map(|(_, id)| id.to_owned());
    stream_of(Place::WithinOrganization)
        .or_else(delivery)
        .or_else(|| stream_of(Place::Organization))
        .or_else(|| stream_of(Place::Outside))
}
