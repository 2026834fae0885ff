//! What a client does next: any mutation, on something that others are at as well. Few organizations, few slugs, few
//! addresses and low limits, so that most commands meet another one.
//!
//! Each mutation of the service has a plan, or stands in `EXCEPTIONS`. A test compares
//! that with `schema.graphql`. Plans stand with their kind of stream, in [`crate::kinds`].

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

pub use crate::kinds::LISTS;
use crate::kinds::{PLANS, invitation, membership, organization, project, user};

use super::world::{Member, Organization, Thing, User, World};

/// Mutations without a plan, each with the reason.
#[cfg(test)]
pub const EXCEPTIONS: &[(&str, &str)] = &[];

/// How often a mutation is given, and how.
pub struct Plan {
    pub mutation: &'static str,
    /// Beside the others.
    pub weight: u32,
    /// The type of the input.
    pub input: &'static str,
    /// What is asked of the payload beside what all have.
    pub select: &'static str,
    /// Makes a command; none where there is nothing for it to be about.
    pub make: fn(&mut Planner<'_>, &'static str) -> Option<Planned>,
}

/// A list of an organization.
pub struct List {
    /// The connection.
    pub name: &'static str,
    /// How ids of what it shows begin.
    pub prefix: &'static str,
    /// What is asked of each.
    pub fields: &'static str,
    /// Which parts of it the clients learn.
    pub parts: &'static [&'static str],
}

/// A command to be given.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The mutation.
    pub operation: &'static str,
    /// By whom.
    pub user: User,
    /// The input, without key.
    pub input: Value,
    /// The version of what the input names, as far as it is known.
    pub version: Option<i64>,
}

fn all() -> impl Iterator<Item = &'static Plan> {
    PLANS.iter().copied().flatten()
}

/// The plan of a mutation.
pub fn of(mutation: &str) -> Option<&'static Plan> {
    all().find(|plan| plan.mutation == mutation)
}

/// The next command; none where the chosen one finds nothing to be about.
pub fn next(world: &World, random: &mut StdRng) -> Option<Planned> {
    let plans: Vec<&Plan> = all().collect();
    let plan = plans.choose_weighted(random, |plan| plan.weight).ok()?;
    let organization = world.any_organization(random)?;
    (plan.make)(&mut Planner { world, random, organization }, plan.mutation)
}

/// Several commands that cannot all succeed, to be given at the same moment.
pub fn rush(world: &World, random: &mut StdRng) -> Vec<Planned> {
    let Some(organization) = world.any_organization(random) else { return vec![] };
    let kind = random.random_range(0..7);
    let mut planner = Planner { world, random, organization };
    let planned = match kind {
        0 => organization::plans::rush_for_a_slug(&mut planner),
        1 => membership::plans::rush_of_owners(&mut planner),
        2 => invitation::plans::rush_for_one(&mut planner),
        3 => invitation::plans::rush_for_seats(&mut planner),
        4 => organization::ownership::plans::rush_for_an_offer(&mut planner),
        5 => user::plans::rush_of_operators(&mut planner),
        _ => (0..4).map(|_| project::plans::create(&mut planner, "createProject")).collect(),
    };
    planned.into_iter().flatten().collect()
}

/// Mutations whose input takes no reason.
const WITHOUT_REASON: [&str; 4] =
    ["acceptInvitation", "declineInvitation", "createOrganization", "ensureHomeOrganization"];

/// A command as this user gives it; operators say why.
pub fn give(operation: &'static str, user: User, mut input: Value, version: Option<i64>) -> Planned {
    if user.operator && !WITHOUT_REASON.contains(&operation) && input["reason"].is_null() {
        input["reason"] = json!("a run of faults");
    }
    Planned { operation, user, input, version }
}

/// What a plan draws from.
pub struct Planner<'a> {
    pub world: &'a World,
    pub random: &'a mut StdRng,
    pub organization: Organization,
}

impl Planner<'_> {
    pub fn chance(&mut self, of: f64) -> bool {
        self.random.random_bool(of)
    }

    pub fn below(&mut self, end: u32) -> u32 {
        self.random.random_range(0..end)
    }

    pub fn id(&self) -> &str {
        &self.organization.id
    }

    /// Mostly an owner; sometimes any member, an API token, an operator or a stranger.
    pub fn actor(&mut self) -> Option<User> {
        let members = self.organization.members();
        let owners: Vec<&Member> = members.iter().filter(|member| member.is_owner()).collect();
        let draw = self.below(100);
        let member = match draw {
            0..64 => owners.choose(self.random).map(|member| member.user.clone()),
            64..78 => members.choose(self.random).map(|member| member.user.clone()),
            78..86 => return self.world.any_token(&self.organization.id, self.random).or_else(|| self.operator()),
            _ => None,
        };
        let member = member.and_then(|id| self.world.user(&id).cloned());
        match member.filter(|user| user.state() != "REVOKED" || self.chance(0.2)) {
            Some(user) => Some(user),
            None if draw < 95 => self.operator(),
            None => self.person(),
        }
    }

    /// Mostly one who is let in.
    pub fn operator(&mut self) -> Option<User> {
        let usual = self.chance(0.9);
        let fitting: Vec<&User> =
            self.world.operators.iter().filter(|user| !usual || user.state() != "REVOKED").collect();
        fitting.choose(self.random).copied().cloned()
    }

    pub fn person(&mut self) -> Option<User> {
        self.world.users.choose(self.random).cloned()
    }

    /// Something of a list, mostly such a thing.
    pub fn thing(&mut self, list: &str, usual: f64, fits: impl Fn(&Thing) -> bool) -> Option<Thing> {
        let usual = self.chance(usual);
        let all = self.organization.things(list).into_iter().filter(|thing| !usual || fits(thing));
        all.collect::<Vec<_>>().choose(self.random).cloned()
    }

    pub fn roles(&mut self) -> Value {
        let own = self.organization.roles();
        if self.chance(0.15)
            && let Some(role) = own.choose(self.random)
        {
            return json!([role]);
        }
        let all =
            [["owner"].as_slice(), &["admin"], &["member"], &["guest"], &["member", "billing"], &["owner", "admin"]];
        json!(all.choose(self.random))
    }

    /// A command to the organization itself.
    pub fn command_organization(&mut self, mutation: &'static str, user: User) -> Option<Planned> {
        let version = Some(self.organization.version());
        Some(give(mutation, user, json!({"organizationId": self.id()}), version))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const SCHEMA: &str = include_str!("../../../schema.graphql");

    /// The mutations of the schema, with the types of their inputs.
    fn mutations_of_schema() -> BTreeMap<&'static str, &'static str> {
        let (_, mutations) = SCHEMA.split_once("\ntype Mutation {").unwrap();
        let lines = mutations.lines().take_while(|line| *line != "}").map(str::trim);
        let mut found = BTreeMap::new();
        let mut name = "";
        for line in lines {
            name = line.strip_suffix('(').unwrap_or(name);
            if let Some(input) = line.strip_prefix("input: ") {
                found.insert(name, input.trim_end_matches('!'));
            }
        }
        found
    }

    #[test]
    fn every_mutation_has_a_plan_or_an_exception() {
        let mutations = mutations_of_schema();
        assert!(mutations.len() > 50, "schema.graphql is read wrongly: {mutations:?}");
        for (mutation, input) in &mutations {
            let excepted = EXCEPTIONS.iter().any(|(name, reason)| name == mutation && !reason.is_empty());
            assert_ne!(of(mutation).is_some(), excepted, "{mutation} needs a plan, or an exception with a reason");
            assert!(of(mutation).is_none_or(|plan| plan.input == *input), "{mutation} takes {input}");
        }
        let known = all().map(|plan| plan.mutation).chain(EXCEPTIONS.iter().map(|(name, _)| *name));
        let unknown: Vec<_> = known.filter(|name| !mutations.contains_key(name)).collect();
        assert_eq!(unknown, Vec::<&str>::new(), "plans for what is no mutation");
        let names: BTreeSet<_> = all().map(|plan| plan.mutation).collect();
        assert_eq!(names.len(), all().count(), "a mutation has one plan");
        assert!(all().all(|plan| plan.weight > 0), "a plan is drawn");
    }
}
