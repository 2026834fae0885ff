//! What belongs to another tenant answers as if it did not exist: the same bytes, wherever an id can be given.

use std::collections::{BTreeMap, BTreeSet};

use aggregates::ids::{EventId, Id};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::schema::{Field, Place, Schema, base};
use crate::support::{Client, Database, Server, eventually};

/// A request with one place for an id.
struct Call {
    /// The operation and the place.
    name: String,
    document: String,
    variables: Value,
    /// Where the id goes.
    pointer: Vec<String>,
    list: bool,
}

impl Call {
    fn with(&self, id: &str) -> Value {
        let mut variables = self.variables.clone();
        let mut at = &mut variables;
        for key in &self.pointer {
            at = &mut at[key];
        }
        *at = if self.list { json!([id]) } else { json!(id) };
        variables
    }
}

/// A tenant with something of everything.
struct Tenant {
    id: String,
    owner: Client,
    /// The things that other arguments of the callers' requests may name, by argument.
    named: BTreeMap<&'static str, String>,
    slug: String,
    external_id: String,
    /// The secret of one of its API tokens.
    secret: String,
    /// All its ids.
    ids: Vec<String>,
}

const PEOPLE: [(&str, &str); 5] =
    [("admin", "admin"), ("member", "member"), ("builder", "builder"), ("suspended", "member"), ("removed", "guest")];

async fn accepted(
    client: &Client,
    mutation: &str,
    input_type: &str,
    input: Value,
    select: &str,
) -> crate::support::Answer {
    let answer = client.run(mutation, input_type, input, select).await;
    assert!(answer.accepted(), "{mutation}: {answer:?}");
    answer
}

async fn tenant(server: &Server, slug: &str) -> Tenant {
    let owner = server.user(&format!("owner@{slug}.example"));
    let id = server.verified(slug, &owner).await;
    let mut ids = vec![id.clone(), owner.user_id().await];
    let external_id = format!("ext-{slug}");
    let input = json!({"organizationId": id, "externalId": external_id, "reason": "a test"});
    accepted(&server.operator(), "updateOrganization", "UpdateOrganizationInput", input, "__typename").await;
    let input = json!({"organizationId": id, "namespace": "theme", "value": {"of": slug}});
    accepted(&owner, "updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, "__typename").await;
    let permissions = ["organization:read", "project:create"];
    let input = json!({"organizationId": id, "name": "builder", "description": "Builds.", "permissions": permissions});
    accepted(&owner, "defineRole", "DefineRoleInput", input, "__typename").await;
    let mut named = BTreeMap::from([("organizationId", id.clone()), ("ownerId", ids[1].clone())]);
    for (name, role) in PEOPLE {
        let email = format!("{name}@{slug}.example");
        let client = server.user(&email);
        let membership = owner.bring_in(&id, &client, &email, &[role]).await;
        match name {
            "suspended" => assert!(owner.member("suspendMember", &membership).await.accepted()),
            "removed" => assert!(owner.member("removeMember", &membership).await.accepted()),
            _ => {}
        }
        ids.extend([membership.clone(), client.user_id().await]);
        named.insert("membershipId", membership);
        named.insert("userId", ids[ids.len() - 1].clone());
    }
    for state in ["pending", "declined", "revoked"] {
        let email = format!("{state}@{slug}.example");
        let invited = owner.invite(&id, &email, &["member"]).await;
        let invitation = invited.text("/invitation/id");
        match state {
            "declined" => {
                let input = json!({"token": invited.text("/token")});
                accepted(&server.user(&email), "declineInvitation", "InvitationTokenInput", input, "__typename").await;
            }
            "revoked" => {
                let input = json!({"invitationId": invitation});
                accepted(&owner, "revokeInvitation", "InvitationCommandInput", input, "__typename").await;
            }
            _ => {}
        }
        ids.push(invitation.clone());
        named.insert("invitationId", invitation);
    }
    for (state, command) in [("active", ""), ("archived", "archiveProject"), ("deleted", "deleteProject")] {
        let project = owner.create_project(&id, state).await.text("/project/id");
        if !command.is_empty() {
            accepted(&owner, command, "ProjectCommandInput", json!({"projectId": project}), "__typename").await;
        }
        ids.push(project.clone());
        named.insert("projectId", project);
    }
    let all: Vec<&str> = aggregates::roles::Permission::ALL.iter().map(|permission| permission.as_str()).collect();
    let secret = owner.create_token(&id, &all).await.text("/secret");
    let revoked = owner.create_token(&id, &["organization:read"]).await.text("/token/id");
    assert!(owner.revoke_token(&revoked).await.accepted());
    for client in [&owner, &server.bearer(&secret)] {
        let token = client.create_token(&id, &["organization:read"]).await.text("/token/id");
        ids.push(token.clone());
        named.insert("tokenId", token);
    }
    let endpoint = owner.create_webhook(&id, "https://example.com/hook").await.text("/endpoint/id");
    let input = json!({"endpointId": endpoint});
    let sent = accepted(&owner, "sendTestWebhook", "WebhookEndpointCommandInput", input, "delivery { id }").await;
    ids.extend([endpoint.clone(), sent.text("/delivery/id")]);
    named.insert("endpointId", endpoint);
    named.insert("deliveryId", sent.text("/delivery/id"));
    named.insert("after", sent.text("/position"));
    let node = "query($id: ID!) { node(id: $id) { id } }";
    eventually("the delivery is there", async || {
        owner.send(node, json!({"id": sent.text("/delivery/id")})).await["data"]["node"].is_object()
    })
    .await;
    let trail = "query($id: ID!) { organization(by: {id: $id}) {
        auditTrail(last: 100) { nodes { id action correlationId subjectId } }
        invitations(first: 100) { nodes { id } } } }";
    let read = owner.query(trail, json!({"id": id})).await;
    eventually("the read models show the invitations", async || {
        let read = owner.query(trail, json!({"id": id})).await;
        read.at("/organization/invitations/nodes").as_array().unwrap().len() == PEOPLE.len() + 3
    })
    .await;
    // One event of each kind, and everything that an event happened to.
    let mut actions = BTreeSet::new();
    for event in read.at("/organization/auditTrail/nodes").as_array().unwrap() {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        ids.push(text("subjectId"));
        if actions.insert(text("action")) && actions.len() % 4 == 1 {
            ids.extend([text("id"), text("correlationId")]);
        }
    }
    ids.sort();
    ids.dedup();
    Tenant { id, owner, named, slug: slug.to_owned(), external_id, secret, ids }
}

/// The prefix of an id; "" of one that is a plain UUID.
fn kind(id: &str) -> &str {
    id.split_once('_').map_or("", |(prefix, _)| prefix)
}

/// An id of this kind that nothing has.
fn unknown(kind: &str) -> String {
    let event = EventId::from_uuid(Uuid::now_v7()).to_string();
    let (_, rest) = event.split_once('_').unwrap();
    if kind.is_empty() { Uuid::now_v7().to_string() } else { format!("{kind}_{rest}") }
}

/// Builds a request for every place of an id.
struct Builder<'a> {
    schema: &'a Schema,
    own: &'a Tenant,
}

impl Builder<'_> {
    fn calls(&self) -> Vec<Call> {
        let mut calls = vec![];
        for (root, keyword) in [("Query", "query"), ("Mutation", "mutation")] {
            for field in self.schema.fields(root) {
                self.add(&mut calls, root, keyword, &field);
            }
        }
        for field in self.schema.fields("Organization") {
            self.add(&mut calls, "Organization", "query", &field);
        }
        calls
    }

    fn add(&self, calls: &mut Vec<Call>, root: &str, keyword: &str, field: &Field) {
        for tested in &field.arguments {
            for (pointer, list) in self.places(tested) {
                let given: Vec<&Place> =
                    field.arguments.iter().filter(|place| place.required() || place.name == tested.name).collect();
                let declared: Vec<String> =
                    given.iter().map(|place| format!("${}: {}", place.name, place.of)).collect();
                let passed: Vec<String> = given.iter().map(|place| format!("{0}: ${0}", place.name)).collect();
                let select = format!("{}({}) {}", field.name, passed.join(", "), self.selection(&base(&field.of), 1));
                let select = match root {
                    "Organization" => format!("organization(by: {{id: \"{}\"}}) {{ {select} }}", self.own.id),
                    _ => select,
                };
                let mut variables = Map::new();
                for place in given {
                    let only = (place.name == tested.name).then(|| pointer.get(1).map(String::as_str)).flatten();
                    variables.insert(place.name.clone(), self.value(place, only));
                }
                calls.push(Call {
                    name: format!("{root}.{} {}", field.name, pointer.join(".")),
                    document: format!("{keyword}({}) {{ {select} }}", declared.join(", ")),
                    variables: Value::Object(variables),
                    pointer,
                    list,
                });
            }
        }
    }

    /// Where in this argument an id can be given.
    fn places(&self, place: &Place) -> Vec<(Vec<String>, bool)> {
        if place.base() == "ID" {
            return vec![(vec![place.name.clone()], place.list())];
        }
        let fields = self.schema.input(&place.base()).unwrap_or_default();
        let inner = fields.iter().flat_map(|field| self.places(field));
        inner.map(|(pointer, list)| ([vec![place.name.clone()], pointer].concat(), list)).collect()
    }

    /// A valid value of a place; of an input, what has to be given, and what it is to hold besides.
    fn value(&self, place: &Place, besides: Option<&str>) -> Value {
        let value = match place.base().as_str() {
            "ID" => json!(self.own.named.get(place.name.as_str()).unwrap_or(&self.own.id)),
            "LimitValue" => json!({"maximum": 1000}),
            "AsOfInput" => json!({"auditSequence": 1}),
            "JSON" => json!({}),
            "Position" => json!(self.own.named["after"]),
            "Long" => json!(1),
            "String" => json!(match place.name.as_str() {
                "email" => "somebody@example.com",
                "roles" => "guest",
                "plan" => "free",
                "limit" => "projects",
                "permissions" => "organization:read",
                "url" => "https://example.com/hook",
                "events" => "*",
                _ => "word",
            }),
            input => {
                let fields = self.schema.input(input).unwrap_or_else(|| panic!("a value of {input}: write one"));
                let given = fields.iter().filter(|field| field.required() || besides == Some(field.name.as_str()));
                return given.map(|field| (field.name.clone(), self.value(field, None))).collect::<Map<_, _>>().into();
            }
        };
        if place.list() { json!([value]) } else { value }
    }

    /// Everything that can be selected without arguments, so deep.
    fn selection(&self, of: &str, depth: usize) -> String {
        let fields = self.schema.fields(of);
        if fields.is_empty() {
            return String::new();
        }
        let mut selected = vec!["__typename".to_owned()];
        for field in fields.iter().filter(|field| field.arguments.iter().all(|argument| !argument.required())) {
            let inner = base(&field.of);
            let leaf = self.schema.fields(&inner).is_empty();
            if leaf || depth > 0 {
                let further = if leaf { String::new() } else { self.selection(&inner, depth - 1) };
                selected.push(format!("{} {further}", field.name));
            }
        }
        if of == "UserError" {
            selected.push("... on AlreadyExistsError { existingId } ... on VersionConflictError { actual }".to_owned());
            selected.push("... on EntityStatusError { verification lifecycle capability remedy }".to_owned());
        }
        format!("{{ {} }}", selected.join(" "))
    }
}

/// The answer as it came, with `replaced` in place of `told`.
async fn bytes(client: &Client, document: &str, variables: &Value, told: &str, replaced: &str) -> String {
    let request = client.http.post(&client.url).json(&json!({"query": document, "variables": variables}));
    let response = request.bearer_auth(client.token.as_ref().unwrap()).send().await.unwrap();
    let status = response.status();
    format!("{status} {}", response.text().await.unwrap().replace(told, replaced))
}

/// How calls of one caller with the ids of other tenants are answered differently from calls with ids of nothing.
async fn told_apart(caller: &str, client: &Client, calls: &[Call], others: &[Tenant]) -> Vec<String> {
    let kinds: BTreeSet<&str> = others.iter().flat_map(|tenant| tenant.ids.iter().map(|id| kind(id))).collect();
    let mut differing = vec![];
    for call in calls {
        let (mut accepted_kinds, mut tried) = (0, BTreeSet::new());
        let mut of_nothing = BTreeMap::new();
        for kind in &kinds {
            let id = unknown(kind);
            let answer = bytes(client, &call.document, &call.with(&id), &id, "<id>").await;
            let unusable = ["GRAPHQL_", "QUERY_TOO_EXPENSIVE", "INTERNAL"].iter().any(|code| answer.contains(code));
            assert!(!unusable, "{}: {answer}\n{}", call.name, call.document);
            accepted_kinds += usize::from(!answer.contains("BAD_USER_INPUT"));
            of_nothing.insert(*kind, answer);
        }
        assert!(accepted_kinds > 0, "{caller}: {} accepts no id", call.name);
        for id in others.iter().flat_map(|tenant| &tenant.ids) {
            // Of an id that cannot stand there, one is enough.
            let nothing = &of_nothing[kind(id)];
            if nothing.contains("BAD_USER_INPUT") && !tried.insert(kind(id)) {
                continue;
            }
            let answer = bytes(client, &call.document, &call.with(id), id, "<id>").await;
            if answer != *nothing {
                differing.push(format!("{caller}: {} with {id}\n  {answer}\n  of nothing: {nothing}", call.name));
            }
        }
    }
    differing
}

async fn events(database: &Database) -> Vec<(Option<String>, i64)> {
    let statement = "SELECT organization_id, count(*) FROM events GROUP BY organization_id ORDER BY organization_id";
    sqlx::query_as(statement).fetch_all(&database.pool().await).await.unwrap()
}

struct Stage {
    database: Database,
    server: Server,
    own: Tenant,
    others: Vec<Tenant>,
    callers: Vec<(&'static str, Client)>,
}

impl Stage {
    /// A tenant whose people call, and others: one in use, one blocked, one deleted.
    async fn set() -> Self {
        let database = Database::new().await;
        let server = database.serve().await;
        server.operator().user_id().await;
        let slugs = ["own", "verified", "blocked", "deleted"];
        let mut tenants: Vec<Tenant> =
            futures_util::stream::iter(slugs).map(|slug| tenant(&server, slug)).buffered(4).collect().await;
        let others = tenants.split_off(1);
        let own = tenants.remove(0);
        assert!(server.operator().review("blockOrganization", &others[1].id).await.accepted());
        assert!(others[2].owner.organization_command("deleteOrganization", &others[2].id).await.accepted());
        let mut callers = vec![("owner", own.owner.clone()), ("stranger", server.user("stranger@example.com"))];
        for name in ["admin", "member"] {
            callers.push((name, server.user(&format!("{name}@own.example"))));
        }
        for (_, client) in &callers {
            client.user_id().await;
        }
        callers.push(("token", server.bearer(&own.secret)));
        Self { database, server, own, others, callers }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_another_tenant_answers_byte_for_byte_as_one_of_nothing() {
    let Stage { database, server, own, others, callers } = Stage::set().await;
    let schema = Schema::committed();
    let calls = Builder { schema: &schema, own: &own }.calls();
    let before = events(&database).await;
    let answered = futures_util::stream::iter(&callers)
        .map(|(name, client)| told_apart(name, client, &calls, &others))
        .buffer_unordered(callers.len());
    let differing: Vec<String> = answered.collect::<Vec<_>>().await.concat();
    assert!(differing.is_empty(), "{} answers differ:\n{}", differing.len(), differing.join("\n"));
    assert_eq!(events(&database).await, before, "something was recorded");

    // For those whose they are, the same requests say something else, so the comparison can tell.
    let theirs = told_apart("its owner", &others[0].owner, &calls, &others[..1]).await;
    for call in [
        "node id",
        "nodes ids",
        "organization by.id",
        "project id",
        "permissions organizationId",
        "roles organizationId",
    ] {
        assert!(theirs.iter().any(|line| line.contains(&format!("Query.{call} with"))), "{call} tells nobody anything");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_cursors_and_positions_of_another_tenant_say_nothing() {
    let Stage { database, server, own, others, callers } = Stage::set().await;
    let before = events(&database).await;
    let by = "query($by: OrganizationBy!) { organization(by: $by) { id name slug externalId version } }";
    for (caller, client) in &callers {
        for other in &others {
            for (key, value, nothing) in
                [("slug", &other.slug, "nothing"), ("externalId", &other.external_id, "ext-nothing")]
            {
                let found = bytes(client, by, &json!({"by": {key: value}}), value, "<name>").await;
                let expected = bytes(client, by, &json!({"by": {key: nothing}}), nothing, "<name>").await;
                assert_eq!(found, expected, "{caller}: {key} {value}");
            }
            // That a slug is taken cannot be hidden; whose it is can. An API token creates no organizations.
            if *caller == "token" {
                continue;
            }
            let create = "mutation($input: CreateOrganizationInput!) { createOrganization(input: $input) {
                organization { id } errors { code message ... on AlreadyExistsError { existingId } } } }";
            let input = json!({"input": {"name": "word", "slug": other.slug}});
            let taken = client.send(create, input).await;
            let error = &taken["data"]["createOrganization"]["errors"][0];
            assert_eq!((&error["code"], &error["existingId"]), (&json!("ALREADY_EXISTS"), &Value::Null), "{taken}");
        }
        for (list, document) in lists() {
            for cursor in cursors(&others[0], list).await {
                let text = String::from_utf8(URL_SAFE_NO_PAD.decode(&cursor).unwrap()).unwrap();
                let (at, id) = text.split_once(' ').unwrap();
                let nothing = URL_SAFE_NO_PAD.encode(format!("{at} {}", unknown(kind(id))));
                for side in ["after", "before"] {
                    let found =
                        bytes(client, &document, &json!({"id": own.id, side: cursor}), &cursor, "<cursor>").await;
                    let expected =
                        bytes(client, &document, &json!({"id": own.id, side: nothing}), &nothing, "<cursor>").await;
                    assert_eq!(found, expected, "{caller}: {list} {side} {text}");
                }
            }
        }
        let trail = "query($id: ID!) { organization(by: {id: $id}) { auditTrail(last: 1) { nodes { position } } } }";
        let position = |of: &Tenant| {
            let (client, id) = (of.owner.clone(), of.id.clone());
            let place = "/organization/auditTrail/nodes/0/position";
            async move { client.query(trail, json!({"id": id})).await.text(place) }
        };
        let read = "query($id: ID!, $at: [Position!]) { organization(by: {id: $id}, atLeast: $at) { id version } }";
        let (theirs, ours) = (position(&others[0]).await, position(&own).await);
        for id in [&own.id, &others[0].id] {
            let found = bytes(client, read, &json!({"id": id, "at": [theirs]}), &theirs, "<position>").await;
            let expected = bytes(client, read, &json!({"id": id, "at": [ours]}), &ours, "<position>").await;
            assert_eq!(found, expected, "{caller}: a position");
        }
    }
    assert_eq!(events(&database).await, before, "something was recorded");
    server.stop().await;
}

/// The lists of things by creation, with their documents.
fn lists() -> [(&'static str, String); 3] {
    ["members", "invitations", "projects"].map(|list| {
        let arguments = "first: 100, after: $after, before: $before";
        let document = format!(
            "query($id: ID!, $after: String, $before: String) {{ organization(by: {{id: $id}}) {{
                {list}({arguments}) {{
                    edges {{ cursor node {{ id }} }} pageInfo {{ hasNextPage hasPreviousPage }} }} }} }}"
        );
        (list, document)
    })
}

async fn cursors(of: &Tenant, list: &str) -> Vec<String> {
    let document = format!(
        "query($id: ID!) {{ organization(by: {{id: $id}}) {{ {list}(first: 100) {{ edges {{ cursor }} }} }} }}"
    );
    let answer = of.owner.query(&document, json!({"id": of.id})).await;
    let edges = answer.at(&format!("/organization/{list}/edges")).as_array().unwrap().clone();
    assert!(!edges.is_empty(), "{list}");
    edges.iter().map(|edge| edge["cursor"].as_str().unwrap().to_owned()).collect()
}
