//! The fold: what each event makes of the state, and whether it fits the state that it finds. Events say what was
//! before; one that says otherwise was decided on something old.
//!
//! Here stands what folds have in common. The fold of each kind of stream is in its file of [`crate::kinds`].

use super::event::Event;
use super::findings::Findings;
use super::model::{Claim, Face, GlobalChange, Model};
use crate::kinds;

const FITS: &str = "an event fits the state that it changes";
pub const KNOWN: &str = "events are of known kinds";

/// An event that is folded.
pub struct Fold<'a> {
    pub model: &'a mut Model,
    pub event: &'a Event,
    pub findings: &'a mut Findings,
}

/// Applies an event.
pub fn apply(model: &mut Model, event: &Event, findings: &mut Findings) {
    if let Some(organization) = &event.organization {
        model.organization_of.insert(event.stream.clone(), organization.clone());
    }
    match kinds::named(&event.kind) {
        Some(kind) => (kind.fold)(&mut Fold { model, event, findings }),
        None => findings.add("streams are of known kinds", || event.place()),
    }
}

impl Fold<'_> {
    /// Holds the event against the state that it finds.
    pub fn expect(&mut self, holds: bool) {
        if !holds {
            self.findings.add(FITS, || format!("{}: {}", self.event.place(), self.event.body));
        }
    }

    /// Says that no fold knows the event.
    pub fn unknown(&mut self) {
        self.findings.add(KNOWN, || self.event.place());
    }

    /// Takes the state of the event's stream; a new one before its first event.
    pub fn take<T: Default + Send + 'static>(&mut self) -> T {
        self.model.take(&self.event.stream)
    }

    /// Puts the state back, and notes what a list shows of it.
    pub fn put<T: Send + 'static>(&mut self, state: T, shown: &str, more: &str) {
        self.face(shown, more);
        self.model.put(&self.event.stream, state);
    }

    /// Notes what a list shows of the stream at this version.
    pub fn face(&mut self, state: &str, more: &str) {
        let face = Face { state: state.to_owned(), more: more.to_owned() };
        self.model.faces.entry(self.event.stream.clone()).or_default().push(face);
    }

    /// Counts more or less of something. Less is room: the next refusal is worth a record.
    pub fn count(&mut self, name: &str, by: i64) {
        let id = self.event.organization.as_deref().unwrap_or_default();
        let Some(organization) = self.model.organizations.get_mut(id) else { return };
        let tally = organization.tallies.entry(name.to_owned()).or_default();
        tally.used += by;
        tally.reached &= by >= 0;
    }

    fn claimed(&self) -> Claim {
        Claim {
            holder: self.event.stream.clone(),
            organization: self.event.organization.clone(),
            partition: self.event.partition,
            until: None,
        }
    }

    /// Claims a key that is unique in the event's organization until a time of the event; `unique` is the check of that.
    pub fn claim(&mut self, scope: &str, key: &str, unique: &'static str) {
        let event = self.event;
        let key = self.local_key(scope, key);
        let holder = self.model.claims.get(&key).map(|claim| claim.holder.clone());
        if holder.as_ref().is_some_and(|holder| *holder != event.stream) {
            self.findings.add(unique, || format!("{}: {} is held by {holder:?}", event.place(), key.1));
        }
        let claim = Claim { until: event.time("expires_at"), ..self.claimed() };
        self.model.claims.insert(key, claim);
    }

    /// Releases a key that is unique in the event's organization.
    pub fn release(&mut self, scope: &str, key: &str) {
        let key = self.local_key(scope, key);
        let holder = self.model.claims.remove(&key).map(|claim| claim.holder);
        self.expect(holder.as_ref() == Some(&self.event.stream));
    }

    fn local_key(&self, scope: &str, key: &str) -> (String, String) {
        (scope.to_owned(), format!("{}/{key}", self.event.organization.as_deref().unwrap_or_default()))
    }

    /// Notes a claim of a key that is unique over all partitions, until a time of the event where it names one. Such
    /// keys are judged in the order of transactions later.
    pub fn claim_global(&mut self, scope: &'static str, key: &str, until: Option<&str>) {
        let claim = Claim { until: until.and_then(|field| self.event.time(field)), ..self.claimed() };
        self.change_global(scope, key, Some(claim));
    }

    /// Notes the release of such a key.
    pub fn release_global(&mut self, scope: &'static str, key: &str) {
        self.change_global(scope, key, None);
    }

    fn change_global(&mut self, scope: &'static str, key: &str, claim: Option<Claim>) {
        let event = self.event;
        self.model.global_changes.push(GlobalChange {
            transaction: event.transaction,
            partition: event.partition,
            place: event.place(),
            scope,
            key: key.to_owned(),
            claim,
            holder: event.stream.clone(),
        });
    }
}
