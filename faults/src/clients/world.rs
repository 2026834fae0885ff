//! What the clients know of the things that they quarrel over. It is learnt from the services and always a little
//! old, as any client's knowledge is; nothing is checked against it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::plans::LISTS;
use crate::graphql;
use crate::replica::Replica;

/// Somebody with a token: a user, or an API token itself.
#[derive(Debug, Clone)]
pub struct User {
    known: Arc<Mutex<Known>>,
    /// The address; an API token has none.
    pub email: String,
    /// The token.
    pub token: String,
    /// Whether an operator.
    pub operator: bool,
    /// Whether the user may be erased, and then comes back as somebody new.
    pub passes_by: bool,
}

#[derive(Debug, Clone, Default)]
struct Known {
    id: String,
    state: String,
}

impl User {
    /// Somebody who has not called yet.
    pub fn new(email: String, token: String, operator: bool) -> Self {
        Self { known: Arc::default(), email, token, operator, passes_by: false }
    }

    /// The same, as somebody who may be erased.
    pub fn passing_by(self) -> Self {
        Self { passes_by: true, ..self }
    }

    /// Notes the id that the service gave at the first call, and whether the user is let in.
    pub fn known_as(&self, id: &str, state: &str) {
        *self.known.lock().unwrap() = Known { id: id.to_owned(), state: state.to_owned() };
    }

    /// The id; empty until the first call.
    pub fn id(&self) -> String {
        self.known.lock().unwrap().id.clone()
    }

    /// Whether the user is let in, as far as it is known.
    pub fn state(&self) -> String {
        self.known.lock().unwrap().state.clone()
    }

    /// Asks the service who that is.
    pub async fn introduce(&self, http: &reqwest::Client, replica: &Replica, wait: Duration) {
        let body = json!({"query": "{ viewer { user { id state } } }"});
        let answer = graphql::send(http, &replica.url("/graphql"), &self.token, None, &body, wait).await;
        let Ok(answer) = answer else { return };
        let user = &answer["data"]["viewer"]["user"];
        match (user["id"].as_str(), graphql::fault(&answer)) {
            (Some(id), _) => self.known_as(id, user["state"].as_str().unwrap_or("ACTIVE")),
            (None, Some("UNAUTHENTICATED")) => self.known_as(&self.id(), "REVOKED"),
            (None, _) => {}
        }
    }
}

/// A membership.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Whose.
    pub user: String,
    /// Its version.
    pub version: i64,
    /// Where it stands.
    pub state: String,
    /// Whether an owner's.
    pub owner: bool,
}

impl Member {
    /// Whether in, as an owner.
    pub fn is_owner(&self) -> bool {
        self.owner && self.state == "ACTIVE"
    }
}

/// Something of a list.
#[derive(Debug, Clone)]
pub struct Thing {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: i64,
    /// Where it stands.
    pub state: String,
    /// All that the list shows.
    pub node: Value,
}

impl Thing {
    /// A text of it.
    pub fn text(&self, field: &str) -> &str {
        self.node[field].as_str().unwrap_or_default()
    }
}

/// An organization, as the services showed it.
#[derive(Debug, Clone, Default)]
pub struct Organization {
    /// Its id.
    pub id: String,
    node: Value,
    own_roles: Vec<String>,
}

impl Organization {
    /// Its version; 0 before it was learnt.
    pub fn version(&self) -> i64 {
        self.node["version"].as_i64().unwrap_or_default()
    }

    pub fn lifecycle(&self) -> &str {
        self.node["lifecycle"].as_str().unwrap_or_default()
    }

    pub fn verification(&self) -> &str {
        self.node["verification"].as_str().unwrap_or_default()
    }

    pub fn is_held(&self) -> bool {
        !self.node["legalHold"].is_null()
    }

    /// The membership to which ownership is offered.
    pub fn offered_to(&self) -> Option<String> {
        self.node["ownershipOffer"]["membershipId"].as_str().map(str::to_owned)
    }

    /// The roles of its own.
    pub fn roles(&self) -> Vec<String> {
        self.own_roles.clone()
    }

    /// What a list shows, in all its parts that were learnt.
    pub fn things(&self, list: &str) -> Vec<Thing> {
        let parts = (0..).map_while(|part| self.node.get(format!("{list}{part}")));
        let nodes = parts.flat_map(|part| part["nodes"].as_array().into_iter().flatten());
        let thing = |node: &Value| Thing {
            id: text(&node["id"]),
            version: node["version"].as_i64().unwrap_or_default(),
            state: text(&node["state"]),
            node: node.clone(),
        };
        nodes.map(thing).collect()
    }

    /// Its members, but not those who are out.
    pub fn members(&self) -> Vec<Member> {
        let member = |thing: Thing| Member {
            user: text(&thing.node["user"]["id"]),
            owner: thing.node["roles"].as_array().is_some_and(|roles| roles.contains(&json!("owner"))),
            id: thing.id,
            version: thing.version,
            state: thing.state,
        };
        self.things("members").into_iter().map(member).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What all clients share.
pub struct World {
    /// Everybody.
    pub users: Vec<User>,
    /// Operators. The first one is never shut out.
    pub operators: Vec<User>,
    /// Where webhooks are received.
    pub receiver: OnceLock<u16>,
    organizations: Mutex<Vec<Organization>>,
    /// Tokens of invitations, by invitation.
    tokens: Mutex<Vec<(String, String)>>,
    /// API tokens, by organization.
    api_tokens: Mutex<Vec<(String, User)>>,
    /// Positions that commands were answered with, by organization.
    positions: Mutex<BTreeMap<String, Vec<String>>>,
}

/// The most tokens of invitations, and API tokens, that are remembered.
const TOKENS_MAX: usize = 64;
/// The most positions of an organization.
const POSITIONS_MAX: usize = 8;

fn remember<T>(list: &mut Vec<T>, one: T, max: usize) {
    if list.len() >= max {
        list.remove(0);
    }
    list.push(one);
}

impl World {
    /// Over these people.
    pub fn new(users: Vec<User>, operators: Vec<User>) -> Self {
        Self {
            users,
            operators,
            receiver: OnceLock::new(),
            organizations: Mutex::default(),
            tokens: Mutex::default(),
            api_tokens: Mutex::default(),
            positions: Mutex::default(),
        }
    }

    /// The port at which webhooks are received.
    pub fn receiver_port(&self) -> u16 {
        self.receiver.get().copied().unwrap_or_default()
    }

    /// Takes note of an organization.
    pub fn add(&self, id: &str) {
        let mut organizations = self.organizations.lock().unwrap();
        if !organizations.iter().any(|known| known.id == id) {
            organizations.push(Organization { id: id.to_owned(), ..Organization::default() });
        }
    }

    /// Takes note of an invitation's token.
    pub fn add_token(&self, invitation: &str, token: &str) {
        remember(&mut self.tokens.lock().unwrap(), (invitation.to_owned(), token.to_owned()), TOKENS_MAX);
    }

    /// Takes note of an API token.
    pub fn add_api_token(&self, organization: &str, id: &str, secret: &str) {
        let token = User::new(String::new(), secret.to_owned(), false);
        token.known_as(id, "ACTIVE");
        remember(&mut self.api_tokens.lock().unwrap(), (organization.to_owned(), token), TOKENS_MAX);
    }

    /// Forgets an API token that has ended.
    pub fn forget_api_token(&self, id: &str) {
        self.api_tokens.lock().unwrap().retain(|(_, token)| token.id() != id);
    }

    /// Takes note of where an organization was.
    pub fn add_position(&self, organization: &str, position: &str) {
        let mut positions = self.positions.lock().unwrap();
        remember(positions.entry(organization.to_owned()).or_default(), position.to_owned(), POSITIONS_MAX);
    }

    /// The token of an invitation, if anybody has it.
    pub fn token(&self, invitation: &str) -> Option<String> {
        self.tokens.lock().unwrap().iter().rev().find(|(id, _)| id == invitation).map(|(_, token)| token.clone())
    }

    /// One of an organization's API tokens, which may have ended.
    pub fn any_token(&self, organization: &str, random: &mut StdRng) -> Option<User> {
        let tokens = self.api_tokens.lock().unwrap();
        let own: Vec<&User> = tokens.iter().filter(|(of, _)| of == organization).map(|(_, token)| token).collect();
        own.choose(random).copied().cloned()
    }

    /// Where an organization was once.
    pub fn any_position(&self, organization: &str, random: &mut StdRng) -> Option<String> {
        self.positions.lock().unwrap().get(organization)?.choose(random).cloned()
    }

    /// The ids of all organizations.
    pub fn ids(&self) -> Vec<String> {
        self.organizations.lock().unwrap().iter().map(|organization| organization.id.clone()).collect()
    }

    /// One organization, as far as it is known.
    pub fn any_organization(&self, random: &mut StdRng) -> Option<Organization> {
        self.organizations.lock().unwrap().choose(random).cloned()
    }

    /// The organization that something belongs to, as far as it is known.
    pub fn home_of(&self, thing: &str) -> Option<String> {
        let organizations = self.organizations.lock().unwrap();
        let lists = || LISTS.iter().copied().flatten();
        let holds = |organization: &&Organization| {
            lists().any(|list| organization.things(list.name).iter().any(|known| known.id == thing))
        };
        organizations.iter().find(holds).map(|organization| organization.id.clone())
    }

    /// The user of this id.
    pub fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().chain(&self.operators).find(|user| user.id() == id)
    }

    /// Learns again and again how all organizations and users stand, until told to stop.
    pub async fn keep_learning(&self, http: reqwest::Client, replicas: Vec<Arc<Replica>>, mut random: StdRng) {
        let learn = query();
        loop {
            for id in self.ids() {
                let (Some(replica), Some(operator)) = (replicas.choose(&mut random), self.operators.first()) else {
                    return;
                };
                let body = json!({"query": learn, "variables": {"id": id}});
                let wait = Duration::from_secs(3);
                let answer = graphql::send(&http, &replica.url("/graphql"), &operator.token, None, &body, wait).await;
                if let Some(fresh) = answer.ok().and_then(|answer| read(&answer["data"])) {
                    let mut organizations = self.organizations.lock().unwrap();
                    organizations.iter_mut().filter(|known| known.id == id).for_each(|known| *known = fresh.clone());
                }
                if let Some(user) = self.users.iter().chain(&self.operators).collect::<Vec<_>>().choose(&mut random) {
                    user.introduce(&http, replica, wait).await;
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(20..120))).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Asks for an organization with all lists, and its roles.
fn query() -> String {
    let lists = LISTS.iter().copied().flatten().flat_map(|list| {
        let parts = list.parts.iter().enumerate();
        parts.map(|(part, of)| format!("{0}{part}: {0}{of} {{ nodes {{ {1} }} }}", list.name, list.fields))
    });
    format!(
        "query($id: ID!) {{ organization(by: {{id: $id}}) {{ id version verification lifecycle legalHold {{ __typename }}
         ownershipOffer {{ membershipId }} {} }} roles(organizationId: $id) {{ name builtIn }} }}",
        lists.collect::<Vec<_>>().join(" ")
    )
}

fn read(data: &Value) -> Option<Organization> {
    let node = data["organization"].clone();
    let own = data["roles"].as_array().into_iter().flatten().filter(|role| role["builtIn"] == json!(false));
    let own_roles = own.map(|role| text(&role["name"])).collect();
    Some(Organization { id: node["id"].as_str()?.to_owned(), node, own_roles })
}
