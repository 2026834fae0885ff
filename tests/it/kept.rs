//! Answers that are given again: whatever happens meanwhile, and on whichever replica, they are what a service that keeps
//! none would answer.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::{Client, Database, Server, eventually};

const DASHBOARD: &str = "query($id: ID!) { organization(by: {id: $id}) {
    id name verification lifecycle version limits { name maximum used }
    members(first: 5) { nodes { id roles state user { id name email } } pageInfo { hasNextPage } }
    invitations(first: 5, state: PENDING) { nodes { id email state } }
    projects(first: 5) { nodes { id slug name state } }
    auditTrail(last: 5) { nodes { id action actor { id label } data } } } }";

/// The same caller at another replica.
fn at(server: &Server, client: &Client) -> Client {
    Client { url: server.url("/graphql"), ..client.clone() }
}

/// How many requests a replica answered from memory.
async fn kept(server: &Server) -> u64 {
    let text = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("tenancy_answers_kept_total "));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

struct World {
    keeping: [Server; 2],
    forgetting: Server,
    organization: String,
    owner: Client,
    operator: Client,
    stranger: Client,
    /// Everybody who ever was a member, and the membership.
    members: Vec<(Client, String)>,
    people: usize,
}

impl World {
    async fn new(database: &Database) -> Self {
        let keeping = [database.serve().await, database.serve().await];
        let forgetting = database.serve_with(&[("TENANCY_LIMITS__ANSWERS_KEPT_BYTES_MAX", "0")]).await;
        let (owner, operator) = (keeping[0].user("ada@example.com"), keeping[0].operator());
        let organization = keeping[0].verified("acme", &owner).await;
        operator.set_limit(&organization, "members", 1_000).await;
        let stranger = keeping[0].user("eve@example.com");
        Self { keeping, forgetting, organization, owner, operator, stranger, members: vec![], people: 0 }
    }

    /// Lets something happen, at one of the replicas.
    async fn change(&mut self, random: &mut StdRng) -> String {
        let replica = &self.keeping[random.random_range(0..2)];
        let (owner, operator) = (at(replica, &self.owner), at(replica, &self.operator));
        let id = self.organization.clone();
        self.people += 1;
        let email = format!("m{}@example.com", self.people);
        let picked = (!self.members.is_empty()).then(|| random.random_range(0..self.members.len()));
        let (what, answer) = match (random.random_range(0..10), picked) {
            (0 | 1, _) | (_, None) => {
                let who = replica.user(&email);
                let membership = owner.bring_in(&id, &who, &email, &["member"]).await;
                self.members.push((who, membership));
                return "joined".to_owned();
            }
            (2, _) => ("invited", owner.invite(&id, &email, &["member"]).await),
            (3, _) => ("project", owner.create_project(&id, &format!("p{}", self.people)).await),
            (4, _) => {
                let input = json!({"organizationId": id, "name": format!("Acme {}", self.people)});
                (
                    "renamed",
                    owner.run("updateOrganization", "UpdateOrganizationInput", input, "organization { id }").await,
                )
            }
            (5, Some(n)) => ("roles", owner.change_roles(&self.members[n].1, &["admin"]).await),
            (6, Some(n)) => ("suspended", owner.member("suspendMember", &self.members[n].1).await),
            (7, Some(n)) => ("removed", owner.member("removeMember", &self.members[n].1).await),
            (8, Some(n)) => {
                let user = user_of(&self.operator, &self.members[n].1).await;
                let input = json!({"userId": user, "reason": "x"});
                ("revoked", operator.run("revokeUser", "UserReviewInput", input, "user { id }").await)
            }
            (_, Some(n)) => {
                let user = user_of(&self.operator, &self.members[n].1).await;
                let input = json!({"subject": {"userId": user}, "reason": "x"});
                ("erased", operator.run("eraseSubject", "EraseSubjectInput", input, "__typename").await)
            }
        };
        assert!(answer.fault().is_none(), "{what}: {answer:?}");
        what.to_owned()
    }

    /// All who ask, by name.
    fn askers(&self) -> Vec<(String, Client)> {
        let fixed = [("owner", &self.owner), ("operator", &self.operator), ("stranger", &self.stranger)];
        let members = self.members.iter().enumerate().map(|(n, (client, _))| (format!("member {n}"), client.clone()));
        fixed.map(|(name, client)| (name.to_owned(), client.clone())).into_iter().chain(members).collect()
    }

    /// What everybody is answered at a replica.
    async fn answers(&self, server: &Server) -> Vec<(String, Value)> {
        let mut answers = vec![];
        for (name, client) in self.askers() {
            let mut answer = at(server, &client).send(DASHBOARD, json!({"id": self.organization})).await;
            // Where in the text an error is said to be does not matter here.
            answer["errors"].as_array_mut().into_iter().flatten().for_each(|error| error["locations"] = Value::Null);
            answers.push((name, answer));
        }
        answers
    }
}

async fn user_of(operator: &Client, membership: &str) -> String {
    let query = "query($m: ID!) { node(id: $m) { ... on Membership { user { id } } } }";
    operator.query(query, json!({"m": membership})).await.text("/node/user/id")
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_what_a_service_without_memory_answers() {
    let database = Database::new().await;
    let mut world = World::new(&database).await;
    let mut random = StdRng::seed_from_u64(20_261_130);
    for step in 0..25 {
        let what = world.change(&mut random).await;
        // Access is of the log, and not later by a moment: nobody is answered from memory who was just shut out.
        let now = world.answers(&world.forgetting).await;
        for server in &world.keeping {
            for ((name, fresh), (_, given)) in now.iter().zip(world.answers(server).await) {
                let shut_out = |answer: &Value| answer.pointer("/data/organization").is_none_or(Value::is_null);
                assert_eq!(shut_out(fresh), shut_out(&given), "step {step}, {what}: {name}: {fresh} {given}");
            }
        }
        // Read models follow within moments; then all three say the same, and go on saying it.
        eventually(&format!("step {step}, {what}: the replicas agree"), async || {
            let fresh = world.answers(&world.forgetting).await;
            let mut all = vec![];
            for server in &world.keeping {
                for _ in 0..3 {
                    all.push(world.answers(server).await);
                }
            }
            all.iter().all(|given| *given == fresh)
        })
        .await;
    }
    let (first, second) = (kept(&world.keeping[0]).await, kept(&world.keeping[1]).await);
    // The replicas of a test share their metrics.
    assert!(first > 100 && second > 100, "so much was answered from memory: {first}, {second}");
    let World { keeping: [one, two], forgetting, .. } = world;
    for server in [one, two, forgetting] {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_expires_ends_them() {
    let database = Database::new().await;
    let server = database.serve().await;
    let owner = server.user("ada@example.com");
    let id = server.verified("acme", &owner).await;
    assert!(owner.invite(&id, "bob@example.com", &["member"]).await.accepted());
    let open = async || {
        let answer = owner.query(DASHBOARD, json!({"id": id})).await;
        answer.at("/organization/invitations/nodes").as_array().unwrap().len()
    };
    eventually("it is shown", async || open().await == 1).await;
    // An hour is the least that an invitation is for; the list goes by the read model.
    let soon = chrono::Utc::now() + chrono::TimeDelta::seconds(4);
    let pool = database.pool().await;
    let table = "SELECT format('%I.invitations', schemaname) FROM pg_tables WHERE tablename = 'invitations'";
    let table: String = sqlx::query_scalar(table).fetch_one(&pool).await.unwrap();
    sqlx::query(&format!("UPDATE {table} SET expires_at = $1")).bind(soon).execute(&pool).await.unwrap();
    // Something happens, so that what was kept before is not given again.
    assert!(owner.create_project(&id, "one").await.accepted());
    let before = kept(&server).await;
    eventually("it is given again", async || open().await == 1 && kept(&server).await > before).await;
    tokio::time::sleep((soon - chrono::Utc::now()).to_std().unwrap_or_default()).await;
    assert_eq!(open().await, 0, "it is over by the clock alone");
    server.stop().await;
}
