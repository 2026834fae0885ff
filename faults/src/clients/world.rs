//! What the clients know of the things that they quarrel over. It is learnt from the services and always a little
//! old, as any client's knowledge is; nothing is checked against it.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::graphql;
use crate::replica::Replica;

/// Somebody with a token.
#[derive(Debug, Clone)]
pub struct User {
    id: Arc<OnceLock<String>>,
    /// The address.
    pub email: String,
    /// The token.
    pub token: String,
    /// Whether an operator.
    pub operator: bool,
}

impl User {
    /// Somebody who has not called yet.
    pub fn new(email: String, token: String, operator: bool) -> Self {
        Self { id: Arc::default(), email, token, operator }
    }

    /// Notes the id that the service gave at the first call.
    pub fn known_as(&self, id: &str) {
        let _ = self.id.set(id.to_owned());
    }

    /// The user's id; empty until the first call.
    pub fn id(&self) -> &str {
        self.id.get().map_or("", String::as_str)
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

/// An invitation or a project.
#[derive(Debug, Clone)]
pub struct Thing {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: i64,
    /// Where it stands.
    pub state: String,
    /// The address or the slug.
    pub name: String,
}

/// An organization.
#[derive(Debug, Clone, Default)]
pub struct Organization {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: i64,
    /// Where it stands.
    pub verification: String,
    /// Whether it is in use.
    pub lifecycle: String,
    /// Its members, but not those who are out.
    pub members: Vec<Member>,
    /// Its last invitations.
    pub invitations: Vec<Thing>,
    /// Its projects, some deleted ones too.
    pub projects: Vec<Thing>,
}

/// What all clients share.
pub struct World {
    /// Everybody.
    pub users: Vec<User>,
    /// Operators.
    pub operators: Vec<User>,
    organizations: Mutex<Vec<Organization>>,
    /// Tokens of invitations, by invitation.
    tokens: Mutex<Vec<(String, String)>>,
}

/// The most tokens of invitations that are remembered.
const TOKENS_MAX: usize = 64;

impl World {
    /// Over these people.
    pub fn new(users: Vec<User>, operators: Vec<User>) -> Self {
        Self { users, operators, organizations: Mutex::default(), tokens: Mutex::default() }
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
        let mut tokens = self.tokens.lock().unwrap();
        if tokens.len() >= TOKENS_MAX {
            tokens.remove(0);
        }
        tokens.push((invitation.to_owned(), token.to_owned()));
    }

    /// The token of an invitation, if anybody has it.
    pub fn token(&self, invitation: &str) -> Option<String> {
        self.tokens.lock().unwrap().iter().rev().find(|(id, _)| id == invitation).map(|(_, token)| token.clone())
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
        let holds = |organization: &&Organization| {
            let things = organization.invitations.iter().chain(&organization.projects).map(|thing| &thing.id);
            things.chain(organization.members.iter().map(|member| &member.id)).any(|id| id == thing)
        };
        organizations.iter().find(holds).map(|organization| organization.id.clone())
    }

    /// The user of this id.
    pub fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().chain(&self.operators).find(|user| user.id() == id)
    }

    /// Learns again and again how all organizations stand, until told to stop.
    pub async fn keep_learning(&self, http: reqwest::Client, replicas: Vec<Arc<Replica>>, mut random: StdRng) {
        loop {
            for id in self.ids() {
                let (Some(replica), Some(operator)) =
                    (replicas.choose(&mut random), self.operators.choose(&mut random))
                else {
                    return;
                };
                let body = json!({"query": LEARN, "variables": {"id": id}});
                let wait = Duration::from_secs(3);
                let answer = graphql::send(&http, &replica.url("/graphql"), &operator.token, None, &body, wait).await;
                if let Some(fresh) = answer.ok().and_then(|answer| read(&answer["data"]["organization"])) {
                    let mut organizations = self.organizations.lock().unwrap();
                    organizations.iter_mut().filter(|known| known.id == id).for_each(|known| *known = fresh.clone());
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(20..120))).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

const LEARN: &str = "query($id: ID!) { organization(by: {id: $id}) { id version verification lifecycle
    members(last: 60) { nodes { id version state roles user { id } } }
    invitations(last: 20) { nodes { id version state email } }
    projects(last: 40) { nodes { id version state slug } }
    deleted: projects(last: 10, state: DELETED) { nodes { id version state slug } } } }";

fn read(value: &Value) -> Option<Organization> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let thing = |node: &Value, name: &str| Thing {
        id: text(&node["id"]),
        version: node["version"].as_i64().unwrap_or_default(),
        state: text(&node["state"]),
        name: text(&node[name]),
    };
    let nodes = |list: &str| value[list]["nodes"].as_array().cloned().unwrap_or_default();
    let member = |node: &Value| Member {
        id: text(&node["id"]),
        user: text(&node["user"]["id"]),
        version: node["version"].as_i64().unwrap_or_default(),
        state: text(&node["state"]),
        owner: node["roles"].as_array().is_some_and(|roles| roles.contains(&json!("owner"))),
    };
    Some(Organization {
        id: value["id"].as_str()?.to_owned(),
        version: value["version"].as_i64()?,
        verification: text(&value["verification"]),
        lifecycle: text(&value["lifecycle"]),
        members: nodes("members").iter().map(member).collect(),
        invitations: nodes("invitations").iter().map(|node| thing(node, "email")).collect(),
        projects: nodes("projects").iter().chain(&nodes("deleted")).map(|node| thing(node, "slug")).collect(),
    })
}
