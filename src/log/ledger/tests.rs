//! The ledger against a model that keeps nothing but the accepted entries, and counts everything afresh each time.

use std::collections::HashMap;

use aggregates::guard::{OWNERS, Scope};
use aggregates::ids::{Id, OrganizationId, ProjectId};
use aggregates::{Effect, StreamId};
use aggregates::{Organization, Project};
use proptest::prelude::*;

use super::{Changes, Claim, ClaimKey, Entry, Partition, apply_to_tally, enter, follow, tally_of};

/// What one entry does: which stream, at which version, with which effects.
type Step = (usize, u64, Vec<Effect>);

fn effects() -> impl Strategy<Value = Vec<Effect>> {
    let effect = prop_oneof![
        4 => (-2..3i64).prop_map(|by| Effect::tally(MEMBERS, by)),
        2 => (-1..2i64).prop_map(|by| Effect::tally(OWNERS, by)),
        1 => proptest::option::of(0..6u64).prop_map(|maximum| Effect::Maximum { name: MEMBERS.into(), maximum }),
        1 => (0..2u64).prop_map(|floor| Effect::Floor { name: OWNERS, floor }),
        1 => Just(Effect::Reached { name: MEMBERS.into() }),
        3 => ("[abc]", any::<bool>()).prop_map(|(key, global)| Effect::Claim { scope: scope(global), key, until: None }),
        3 => ("[abc]", any::<bool>()).prop_map(|(key, global)| Effect::Release { scope: scope(global), key }),
    ];
    proptest::collection::vec(effect, 0..4)
}

const MEMBERS: &str = aggregates::membership::MEMBERS.name;

fn scope(global: bool) -> Scope {
    if global { Organization::SLUG } else { Project::SLUG }
}

/// The holder of a key after these steps, by reading all of them.
fn holder(steps: &[Step], wanted: (Scope, &str)) -> Option<usize> {
    let mut holder = None;
    for (stream, _, effects) in steps {
        for effect in effects {
            match effect {
                Effect::Claim { scope, key, .. } if (*scope, key.as_str()) == wanted => holder = Some(*stream),
                Effect::Release { scope, key } if (*scope, key.as_str()) == wanted && holder == Some(*stream) => {
                    holder = None
                }
                _ => {}
            }
        }
    }
    holder
}

/// (used, maximum, floor) after these steps, by reading all of them.
fn count(steps: &[Step], wanted: &str) -> (i64, Option<u64>, u64) {
    let (mut used, mut most, mut least) = (0, None, 0);
    for effect in steps.iter().flat_map(|(_, _, effects)| effects) {
        match effect {
            Effect::Tally { name, by } if *name == wanted => used += by,
            Effect::Maximum { name, maximum } if name == wanted => most = *maximum,
            Effect::Floor { name, floor } if *name == wanted => least = *floor,
            _ => {}
        }
    }
    (used, most, least)
}

/// Whether the rules allow `step` after `steps`.
fn allowed(steps: &[Step], step: &Step) -> bool {
    let (stream, version, effects) = step;
    if steps.iter().filter(|(other, _, _)| other == stream).count() as u64 != *version {
        return false;
    }
    for done in 0..effects.len() {
        let mut until = steps.to_vec();
        until.push((*stream, *version, effects[..done].to_vec()));
        if let Effect::Claim { scope, key, .. } = &effects[done]
            && holder(&until, (*scope, key)).is_some_and(|holder| holder != *stream)
        {
            return false;
        }
    }
    let mut after = steps.to_vec();
    after.push(step.clone());
    [MEMBERS, OWNERS].iter().all(|name| {
        let ((before, _, _), (used, most, least)) = (count(steps, name), count(&after, name));
        let fits = most.is_none_or(|most| used <= before || used <= most.cast_signed());
        fits && (used >= before || used >= least.cast_signed())
    })
}

proptest! {
    /// Accepts exactly what the model allows, ends where the model ends; and whoever only follows the accepted
    /// entries, as another replica does, ends there too.
    #[test]
    fn decides_as_a_model_that_counts_everything_afresh(
        steps in proptest::collection::vec((0..3usize, 0..6u64, effects()), 1..40)
    ) {
        let organization = OrganizationId::random();
        let streams: Vec<StreamId> = (0..3).map(|_| ProjectId::random().into()).collect();
        let (mut partition, mut global) = (Partition::default(), HashMap::new());
        let mut follower = Partition::default();
        follower.tallies.insert(organization.clone(), Default::default());
        let mut accepted: Vec<Step> = vec![];
        for (stream, guess, effects) in steps {
            // Mostly the right version, sometimes another.
            let right = accepted.iter().filter(|(other, _, _)| *other == stream).count() as u64;
            let step = (stream, if guess == 0 { right + 1 } else { right }, effects);
            let id = streams[stream].clone();
            let named: Vec<(&str, &Effect)> = step.2.iter().map(|effect| (id.id(), effect)).collect();
            let entry = Entry {
                organization: Some(&organization),
                expected: &[(&id, step.1)],
                written: &[(id.clone(), step.1 + 1)],
                effects: &named,
            };
            let entered = enter(&mut partition, &mut global, &HashMap::new(), &entry, &mut Changes::default());
            prop_assert_eq!(entered.is_ok(), allowed(&accepted, &step), "{:?} after {:?}", step, accepted);
            if entered.is_ok() {
                for key in ["a", "b", "c"] {
                    follower.claims.entry(ClaimKey::new(Project::SLUG, key, Some(&organization))).or_default();
                }
                follow(&mut follower, Some(&organization), &id, &step.2);
                accepted.push(step);
            }
        }
        let name_of = |claim: Option<&Option<Claim>>| claim.and_then(Option::as_ref).map(|claim| claim.holder.clone());
        for key in ["a", "b", "c"] {
            let expected = |scope| holder(&accepted, (scope, key)).map(|stream| streams[stream].id().to_owned());
            let local = ClaimKey::new(Project::SLUG, key, Some(&organization));
            prop_assert_eq!(name_of(partition.claims.get(&local)), expected(Project::SLUG));
            prop_assert_eq!(name_of(follower.claims.get(&local)), expected(Project::SLUG));
            let wide = ClaimKey::new(Organization::SLUG, key, None);
            prop_assert_eq!(name_of(global.get(&wide)), expected(Organization::SLUG));
        }
        for name in [MEMBERS, OWNERS] {
            let (used, most, least) = count(&accepted, name);
            let tally = |partition: &Partition| {
                partition.tallies.get(&organization).and_then(|tallies| tallies.get(name)).copied().unwrap_or_default()
            };
            let (own, followed) = (tally(&partition), tally(&follower));
            prop_assert_eq!((own.used, own.maximum, own.floor), (used, most.map(u64::cast_signed), least.cast_signed()));
            prop_assert_eq!(own, followed);
        }
    }
}

#[test]
fn that_a_maximum_was_reached_is_forgotten_when_there_is_room_again() {
    let mut tally = super::Tally::default();
    for (effect, reached) in [
        (Effect::Reached { name: MEMBERS.into() }, true),
        (Effect::tally(MEMBERS, 1), true),
        (Effect::tally(MEMBERS, -1), false),
        (Effect::Reached { name: MEMBERS.into() }, true),
        (Effect::Maximum { name: MEMBERS.into(), maximum: Some(3) }, false),
    ] {
        assert_eq!(tally_of(&effect), Some(MEMBERS));
        apply_to_tally(&effect, &mut tally);
        assert_eq!(tally.reached, reached, "{effect:?}");
    }
}
