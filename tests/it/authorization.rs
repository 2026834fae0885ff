//! The authorization matrix: every operation, in every status of an organization, by everybody who may call.
//!
//! What is expected stands in `authorization/matrix.txt`, to be read beside the capability table of the design and
//! the permissions of the roles. A new operation fails the test until it has a row here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use aggregates::ids::{Id, ProjectId, WebhookDeliveryId};
use aggregates::roles::{Permission, role};
use chrono::TimeDelta;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tenancy::access::issuer::Grant;

use crate::feed::first_answer;
use crate::schema::Schema;
use crate::support::{Answer, Client, Database, Server, eventually};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/authorization/matrix.txt");

const HEAD: &str = "\
# Who may do what: the answer to every operation, by the status of the organization and by who calls.
# Written by `BLESS=1 cargo test the_authorization_matrix`; compared as a whole. Read a change before committing it.
#
# A block is an operation (after a comma: the variant of its input); a line ends with the statuses that it is for, `*`
# for all of them. DELETED is by the owner, OPERATOR_DELETED by an operator. In every status the organization has been
# verified before, and has members, invitations, projects and roles from that time.
#
# ok  done, or read
# Faults:    UA UNAUTHENTICATED  FB FORBIDDEN  NF NOT_FOUND  BI BAD_USER_INPUT
# Refusals:  es ENTITY_STATUS  is INVALID_STATE  ii INVALID_INPUT  ng ROLE_NOT_GRANTABLE  ae ALREADY_EXISTS
#            np INVITATION_NOT_PENDING  wr INVITATION_WRONG_RECIPIENT  lo LAST_OWNER  lr LIMIT_REACHED
#
# nob nobody (no token)   bad a token that is none     exp an expired token    rev a revoked user
# wai a user who waits for approval                    str a stranger          oth the owner of another organization
# gue guest   mem member   aud auditor   bil billing   adm admin   own owner (one of two)
# cus a role of the organization's own: organization:read and project:create
# sus a suspended member  rem a removed member         ope an operator
# tok an API token with everything that an admin may give
# few an API token with organization:read and member:read
";

const STATUSES: [&str; 9] =
    ["IN_SETUP", "PENDING", "WAITLISTED", "VERIFIED", "REJECTED", "BLOCKED", "INACTIVE", "DELETED", "OPERATOR_DELETED"];

const PRINCIPALS: [&str; 19] = [
    "nobody",
    "bad",
    "expired",
    "revoked",
    "waiting",
    "stranger",
    "other",
    "guest",
    "member",
    "auditor",
    "billing",
    "admin",
    "owner",
    "custom",
    "suspended",
    "removed",
    "operator",
    "token",
    "few",
];

/// The principals who are in the organization, with the role that they have.
const MEMBERS: [(&str, &str); 9] = [
    ("guest", "guest"),
    ("member", "member"),
    ("auditor", "auditor"),
    ("billing", "billing"),
    ("admin", "admin"),
    ("custom", "custom"),
    ("suspended", "member"),
    ("removed", "member"),
    ("second", "owner"),
];

/// The principals that are API tokens.
const TOKENS: [&str; 2] = ["token", "few"];

/// What a principal that is an API token was given.
fn permissions_of(token: &str) -> Vec<&'static str> {
    let admin = role("admin").unwrap().permissions();
    match token {
        "token" => Permission::ALL.iter().filter(|each| admin.contains(**each)).map(|each| each.as_str()).collect(),
        _ => vec!["organization:read", "member:read"],
    }
}

/// In which world an operation is called, so that no cell depends on another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// It changes nothing but a thing of its own: one organization for all, and the next thing after an `ok`.
    Stocked,
    /// It changes the organization: another organization after every `ok`.
    Fresh,
    /// It changes the caller's membership.
    Leaving,
    /// It changes the caller's membership.
    Accepting,
}

/// Every operation and the variants of its input.
const ROWS: &[(&str, &str, Part)] = &[
    ("Query.node", "an organization", Part::Stocked),
    ("Query.node", "a member", Part::Stocked),
    ("Query.node", "an invitation", Part::Stocked),
    ("Query.node", "a project", Part::Stocked),
    ("Query.node", "an API token", Part::Stocked),
    ("Query.node", "a webhook endpoint", Part::Stocked),
    ("Query.node", "a webhook delivery", Part::Stocked),
    ("Query.node", "an event", Part::Stocked),
    ("Query.node", "a user", Part::Stocked),
    ("Query.nodes", "", Part::Stocked),
    ("Query.viewer", "", Part::Stocked),
    ("Query.organization", "by id", Part::Stocked),
    ("Query.organization", "by slug", Part::Stocked),
    ("Query.organization", "by external id", Part::Stocked),
    ("Query.organizations", "", Part::Stocked),
    ("Query.users", "", Part::Stocked),
    ("Query.project", "", Part::Stocked),
    ("Query.permissions", "", Part::Stocked),
    ("Query.permissions", "of another user", Part::Stocked),
    ("Query.roles", "", Part::Stocked),
    ("Query.permissionCatalogue", "", Part::Stocked),
    ("Query.webhookEventTypes", "", Part::Stocked),
    ("Query.invitationPreview", "", Part::Stocked),
    ("Query.auditStatus", "", Part::Stocked),
    ("Query.projections", "", Part::Stocked),
    ("Query.auditTrail", "", Part::Stocked),
    ("Query.accessTrail", "", Part::Stocked),
    ("Query.removalImpact", "", Part::Stocked),
    ("Query.organizationAsOf", "", Part::Stocked),
    ("Query.auditCheckpoint", "", Part::Stocked),
    ("Query.auditInclusionProof", "", Part::Stocked),
    ("Query.auditConsistencyProof", "", Part::Stocked),
    ("Subscription.auditEvents", "", Part::Stocked),
    ("Organization.members", "", Part::Stocked),
    ("Organization.invitations", "", Part::Stocked),
    ("Organization.projects", "", Part::Stocked),
    ("Organization.apiTokens", "", Part::Stocked),
    ("Organization.webhookEndpoints", "", Part::Stocked),
    ("Organization.auditTrail", "", Part::Stocked),
    ("Organization.accessTrail", "", Part::Stocked),
    ("Organization.settings", "", Part::Stocked),
    ("Organization.limits", "", Part::Stocked),
    ("Mutation.createOrganization", "", Part::Stocked),
    ("Mutation.createOrganization", "for another user", Part::Stocked),
    ("Mutation.ensureHomeOrganization", "", Part::Stocked),
    ("Mutation.updateOrganization", "", Part::Stocked),
    ("Mutation.updateOrganization", "external id", Part::Stocked),
    ("Mutation.updateOrganizationSettings", "", Part::Stocked),
    ("Mutation.submitOrganizationForVerification", "", Part::Fresh),
    ("Mutation.verifyOrganization", "", Part::Fresh),
    ("Mutation.rejectOrganization", "", Part::Fresh),
    ("Mutation.waitlistOrganization", "", Part::Fresh),
    ("Mutation.reopenOrganization", "", Part::Fresh),
    ("Mutation.reviewOrganizationAgain", "", Part::Fresh),
    ("Mutation.blockOrganization", "", Part::Fresh),
    ("Mutation.unblockOrganization", "", Part::Fresh),
    ("Mutation.deactivateOrganization", "", Part::Fresh),
    ("Mutation.activateOrganization", "", Part::Fresh),
    ("Mutation.deleteOrganization", "", Part::Fresh),
    ("Mutation.restoreOrganization", "", Part::Fresh),
    ("Mutation.setOrganizationLimit", "", Part::Stocked),
    ("Mutation.changeOrganizationPlan", "", Part::Stocked),
    ("Mutation.inviteMember", "", Part::Stocked),
    ("Mutation.resendInvitation", "", Part::Stocked),
    ("Mutation.revokeInvitation", "", Part::Stocked),
    ("Mutation.acceptInvitation", "one's own, by id", Part::Accepting),
    ("Mutation.acceptInvitation", "another's, by id", Part::Stocked),
    ("Mutation.acceptInvitation", "another's, by token", Part::Stocked),
    ("Mutation.declineInvitation", "one's own, by id", Part::Stocked),
    ("Mutation.declineInvitation", "another's, by token", Part::Stocked),
    ("Mutation.addMember", "", Part::Stocked),
    ("Mutation.changeMemberRoles", "to more", Part::Stocked),
    ("Mutation.changeMemberRoles", "to less", Part::Stocked),
    ("Mutation.changeMemberRoles", "of an owner", Part::Fresh),
    ("Mutation.suspendMember", "", Part::Stocked),
    ("Mutation.suspendMember", "an owner", Part::Fresh),
    ("Mutation.reinstateMember", "", Part::Stocked),
    ("Mutation.removeMember", "", Part::Stocked),
    ("Mutation.removeMember", "an owner", Part::Fresh),
    ("Mutation.leaveOrganization", "", Part::Leaving),
    ("Mutation.offerOwnership", "", Part::Fresh),
    ("Mutation.acceptOwnership", "that nobody offered", Part::Stocked),
    ("Mutation.withdrawOwnershipOffer", "that nobody made", Part::Stocked),
    ("Mutation.defineRole", "", Part::Stocked),
    ("Mutation.defineRole", "to no more than before", Part::Stocked),
    ("Mutation.removeRole", "", Part::Stocked),
    ("Mutation.createProject", "", Part::Stocked),
    ("Mutation.updateProject", "", Part::Stocked),
    ("Mutation.archiveProject", "", Part::Stocked),
    ("Mutation.unarchiveProject", "", Part::Stocked),
    ("Mutation.deleteProject", "", Part::Stocked),
    ("Mutation.restoreProject", "", Part::Stocked),
    ("Mutation.createApiToken", "", Part::Stocked),
    ("Mutation.revokeApiToken", "", Part::Stocked),
    ("Mutation.createWebhookEndpoint", "", Part::Stocked),
    ("Mutation.updateWebhookEndpoint", "", Part::Stocked),
    ("Mutation.rotateWebhookSecret", "", Part::Stocked),
    ("Mutation.enableWebhookEndpoint", "", Part::Stocked),
    ("Mutation.disableWebhookEndpoint", "", Part::Stocked),
    ("Mutation.deleteWebhookEndpoint", "", Part::Stocked),
    ("Mutation.sendTestWebhook", "", Part::Stocked),
    ("Mutation.redeliverWebhook", "", Part::Stocked),
    ("Mutation.replayWebhooks", "", Part::Stocked),
    ("Mutation.redriveWebhooks", "", Part::Stocked),
    ("Mutation.approveUser", "", Part::Stocked),
    ("Mutation.revokeUser", "", Part::Stocked),
    ("Mutation.reinstateUser", "", Part::Stocked),
    ("Mutation.eraseSubject", "a user", Part::Stocked),
    ("Mutation.eraseSubject", "an invitee", Part::Stocked),
    ("Mutation.setLegalHold", "", Part::Fresh),
    ("Mutation.releaseLegalHold", "that nobody set", Part::Stocked),
];

/// The fields of an organization that not everybody who sees it may read.
const GUARDED: [&str; 6] = ["members", "invitations", "projects", "auditTrail", "accessTrail", "settings"];

/// So many things of a kind; no operation is `ok` for more principals than that.
const STOCK: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_matrix_is_what_the_table_says() {
    let schema = Schema::committed();
    assert_eq!(operations_without_a_row(&schema), Vec::<String>::new(), "give them a row in ROWS and an input");
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_ACCESS__APPROVAL_REQUIRED", "true")]).await;
    let matrix = Matrix { schema, cast: Cast::assemble(&server).await };
    let parts = [Part::Stocked, Part::Fresh, Part::Leaving, Part::Accepting];
    let parts = STATUSES.iter().flat_map(|status| parts.map(|part| (*status, part)));
    let worlds: Vec<World> = futures_util::stream::iter(parts)
        .map(|(status, part)| matrix.cast.world(status, part))
        .buffered(8)
        .collect()
        .await;
    // A read model proposes who sees whom.
    let operator = &matrix.cast.clients["operator"];
    eventually("the read models are level", async || {
        let answer = operator.query("{ projections { lagEvents } }", json!({})).await;
        answer.at("/projections").as_array().unwrap().iter().all(|projection| projection["lagEvents"] == 0)
    })
    .await;
    let answered = futures_util::stream::iter(worlds).map(|world| matrix.answers(world)).buffer_unordered(8);
    let cells: Cells = answered.collect::<Vec<_>>().await.into_iter().flatten().collect();
    server.stop().await;

    let found = written(&cells);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(FILE, &found).unwrap();
    }
    let expected = std::fs::read_to_string(FILE).unwrap_or_default();
    let differing = differences(&read(&expected), &read(&found));
    assert!(
        expected == found,
        "the matrix is not {FILE}: if that is meant, run `BLESS=1 cargo test the_authorization_matrix`:\n{differing}"
    );
}

/// Operations of the schema, and guarded fields, without a row; and rows of what is no more.
fn operations_without_a_row(schema: &Schema) -> Vec<String> {
    let root = |name: &'static str| schema.fields(name).into_iter().map(move |field| format!("{name}.{}", field.name));
    let mut wanted: BTreeSet<String> = root("Query").chain(root("Mutation")).chain(root("Subscription")).collect();
    let connections =
        schema.fields("Organization").into_iter().filter(|field| field.of.to_string().ends_with("Connection"));
    wanted.extend(connections.map(|field| format!("Organization.{}", field.name)));
    wanted.extend(GUARDED.map(|field| format!("Organization.{field}")));
    let rows: BTreeSet<String> = ROWS.iter().map(|(operation, ..)| (*operation).to_owned()).collect();
    let gone = rows.iter().filter(|row| !wanted.contains(*row) && !row.starts_with("Organization."));
    wanted.difference(&rows).chain(gone).cloned().collect()
}

type Cells = BTreeMap<(usize, usize, usize), String>;

struct Matrix {
    schema: Schema,
    cast: Cast,
}

/// Everybody who calls, and everybody whom things are done to; the same people in all organizations.
struct Cast {
    clients: BTreeMap<&'static str, Client>,
    ids: BTreeMap<&'static str, String>,
    /// By use, [`STOCK`] each.
    targets: BTreeMap<&'static str, Vec<String>>,
    /// One for each status, still waiting for approval.
    held: BTreeMap<&'static str, String>,
    /// One for each status, who is a member of the stocked organization of that status only.
    residents: BTreeMap<&'static str, String>,
    /// One for each status, who is in no organization.
    strays: BTreeMap<&'static str, String>,
    next: AtomicUsize,
}

/// The user who is changed: by use, and whether they are suspended or removed before.
const TARGETS: [(&str, &str); 6] = [
    ("more", ""),
    ("less", ""),
    ("suspend", ""),
    ("remove", ""),
    ("reinstate", "suspendMember"),
    ("add", "removeMember"),
];

fn email(principal: &str) -> String {
    format!("{principal}@example.com")
}

impl Cast {
    async fn assemble(server: &Server) -> Self {
        let operator = server.operator();
        operator.user_id().await;
        let mut clients = BTreeMap::from([("operator", operator.clone()), ("nobody", server.nobody())]);
        clients.insert("bad", Client { token: Some("nonsense".to_owned()), ..server.nobody() });
        let grant = Grant { email: email("owner"), name: None, operator: false, ttl: TimeDelta::seconds(-120) };
        let expired = server.service().issuer.as_ref().unwrap().mint(&grant).unwrap();
        clients.insert("expired", Client { token: Some(expired), ..server.nobody() });
        let mut ids = BTreeMap::new();
        for name in PRINCIPALS.into_iter().chain(["second"]) {
            if clients.contains_key(name) || TOKENS.contains(&name) {
                continue;
            }
            let client = server.user(&email(name));
            let id = client.user_id().await;
            match name {
                "waiting" => {}
                "revoked" => assert!(user_command(&operator, "revokeUser", &id).await.accepted()),
                _ => assert!(user_command(&operator, "approveUser", &id).await.accepted()),
            }
            ids.insert(name, id);
            clients.insert(name, client);
        }
        let mut targets = BTreeMap::new();
        for (kind, _) in TARGETS {
            let mut users = vec![];
            for number in 0..STOCK {
                let id = server.user(&email(&format!("{kind}-{number}"))).user_id().await;
                assert!(user_command(&operator, "approveUser", &id).await.accepted());
                users.push(id);
            }
            targets.insert(kind, users);
        }
        let (mut held, mut residents, mut strays) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for status in STATUSES {
            let place = status.to_lowercase();
            held.insert(status, server.user(&email(&format!("held-{place}"))).user_id().await);
            let id = server.user(&email(&format!("resident-{place}"))).user_id().await;
            assert!(user_command(&operator, "approveUser", &id).await.accepted());
            residents.insert(status, id);
            strays.insert(status, server.user(&email(&format!("stray-{place}"))).user_id().await);
        }
        server.organization("another", &clients["other"]).await;
        Self { clients, ids, targets, held, residents, strays, next: AtomicUsize::new(0) }
    }

    /// A word that nothing has been called yet.
    fn new_word(&self) -> String {
        format!("w{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// An organization in this status with its people, and with what the operations of this part need.
    async fn world(&self, status: &'static str, part: Part) -> World {
        let (owner, operator) = (&self.clients["owner"], &self.clients["operator"]);
        let slug = self.new_word();
        let input =
            json!({"name": slug, "slug": slug, "externalId": format!("ext-{slug}"), "ownerId": self.ids["owner"]});
        let created =
            accepted(operator, "createOrganization", "CreateOrganizationInput", input, "organization { id }").await;
        let id = created.text("/organization/id");
        let mut world = World {
            status,
            part,
            id,
            slug,
            members: BTreeMap::new(),
            own: BTreeMap::new(),
            stock: BTreeMap::new(),
            event: String::new(),
            position: created.text("/position"),
            tokens: BTreeMap::new(),
        };
        world.members.insert("owner", String::new());
        accepted_organization(owner, "submitOrganizationForVerification", &world.id).await;
        accepted_review(operator, "verifyOrganization", &world.id).await;
        self.define(&world, "custom", &["organization:read", "project:create"]).await;
        for (name, role) in MEMBERS {
            let membership = self.add(&world, &self.ids[name], role).await;
            world.members.insert(name, membership);
        }
        accepted_member(owner, "suspendMember", &world.members["suspended"]).await;
        accepted_member(owner, "removeMember", &world.members["removed"]).await;
        for name in TOKENS {
            let created = owner.create_token(&world.id, &permissions_of(name)).await;
            let token = Client { token: Some(created.text("/secret")), ..owner.clone() };
            world.tokens.insert(name, token);
        }
        match part {
            Part::Stocked => {
                self.invite_everybody(&mut world).await;
                self.fill(&mut world).await;
            }
            Part::Accepting => self.invite_everybody(&mut world).await,
            Part::Fresh | Part::Leaving => {}
        }
        self.bring_to(status, &world.id).await;
        world
    }

    async fn bring_to(&self, status: &str, id: &str) {
        let (owner, operator) = (&self.clients["owner"], &self.clients["operator"]);
        let steps: &[&str] = match status {
            "IN_SETUP" => &["reviewOrganizationAgain", "reopenOrganization"],
            "PENDING" => &["reviewOrganizationAgain"],
            "WAITLISTED" => &["reviewOrganizationAgain", "waitlistOrganization"],
            "REJECTED" => &["reviewOrganizationAgain", "rejectOrganization"],
            "BLOCKED" => &["blockOrganization"],
            "INACTIVE" => &["deactivateOrganization"],
            "DELETED" => return accepted_organization(owner, "deleteOrganization", id).await,
            "OPERATOR_DELETED" => {
                let input = json!({"organizationId": id, "reason": "a test"});
                accepted(operator, "deleteOrganization", "OrganizationCommandInput", input, "__typename").await;
                return;
            }
            _ => &[],
        };
        for step in steps {
            accepted_review(operator, step, id).await;
        }
    }

    async fn define(&self, world: &World, name: &str, permissions: &[&str]) {
        let input = json!({
            "organizationId": world.id, "name": name, "description": "A role.", "permissions": permissions,
        });
        accepted(&self.clients["owner"], "defineRole", "DefineRoleInput", input, "__typename").await;
    }

    async fn add(&self, world: &World, user: &str, role: &str) -> String {
        let input = json!({"organizationId": world.id, "userId": user, "roles": [role], "reason": "a test"});
        let added =
            accepted(&self.clients["operator"], "addMember", "AddMemberInput", input, "membership { id }").await;
        added.text("/membership/id")
    }

    /// Invites each principal who has an address, with the role that they have already, or as a guest.
    async fn invite_everybody(&self, world: &mut World) {
        for name in self.ids.keys().copied().chain(["operator"]) {
            let role = MEMBERS.iter().find(|(member, _)| *member == name).map_or("guest", |(_, role)| role);
            let invited = self.clients["owner"].invite(&world.id, &email(name), &[role]).await;
            assert!(invited.accepted(), "{invited:?}");
            world.own.insert(name, invited.text("/invitation/id"));
        }
    }

    async fn fill(&self, world: &mut World) {
        let owner = &self.clients["owner"];
        self.add(world, &self.residents[world.status], "member").await;
        for (kind, before) in TARGETS {
            let mut members = vec![];
            for user in &self.targets[kind] {
                let membership = self.add(world, user, "member").await;
                if !before.is_empty() {
                    accepted_member(owner, before, &membership).await;
                }
                members.push(if kind == "add" { user.clone() } else { membership });
            }
            world.stock.insert(kind, members);
        }
        for kind in ["revoke", "resend", "erase"] {
            let (mut invitations, mut tokens) = (vec![], vec![]);
            for _ in 0..STOCK {
                let invited = owner.invite(&world.id, &email(&self.new_word()), &["guest"]).await;
                invitations.push(invited.text("/invitation/id"));
                tokens.push(invited.text("/token"));
            }
            world.stock.insert(kind, invitations);
            world.stock.insert(if kind == "revoke" { "tokens" } else { "stale tokens" }, tokens);
        }
        let kinds = [
            ("update", ""),
            ("archive", ""),
            ("delete", ""),
            ("unarchive", "archiveProject"),
            ("restore", "deleteProject"),
        ];
        for (kind, before) in kinds {
            let mut projects = vec![];
            for _ in 0..STOCK {
                let created = owner.create_project(&world.id, &self.new_word()).await;
                let project = created.text("/project/id");
                if !before.is_empty() {
                    accepted(owner, before, "ProjectCommandInput", json!({"projectId": project}), "__typename").await;
                }
                projects.push(project);
            }
            world.stock.insert(kind, projects);
        }
        let mut roles = vec![];
        for _ in 0..STOCK {
            let role = self.new_word();
            self.define(world, &role, &["organization:read"]).await;
            roles.push(role);
        }
        world.stock.insert("role", roles);
        let mut tokens = vec![];
        for _ in 0..STOCK {
            tokens.push(owner.create_token(&world.id, &["organization:read"]).await.text("/token/id"));
        }
        world.stock.insert("api token", tokens);
        for (kind, before) in [("webhook", ""), ("enable", "disableWebhookEndpoint"), ("disable", ""), ("erode", "")] {
            let mut endpoints = vec![];
            for _ in 0..STOCK {
                let created = owner.create_webhook(&world.id, "https://example.com/hook").await;
                let endpoint = created.text("/endpoint/id");
                if !before.is_empty() {
                    let input = json!({"endpointId": endpoint});
                    accepted(owner, before, "WebhookEndpointCommandInput", input, "__typename").await;
                }
                endpoints.push(endpoint);
            }
            world.stock.insert(kind, endpoints);
        }
        let input = json!({"organizationId": world.id, "namespace": "theme", "value": {"a": 1}});
        let set =
            accepted(owner, "updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, "__typename").await;
        world.event = set.text("/events/0/id");
    }
}

/// An organization in a status.
struct World {
    status: &'static str,
    part: Part,
    id: String,
    slug: String,
    members: BTreeMap<&'static str, String>,
    /// The invitations of the principals themselves.
    own: BTreeMap<&'static str, String>,
    /// What is used up by an `ok`, by use.
    stock: BTreeMap<&'static str, Vec<String>>,
    event: String,
    /// Where it began.
    position: String,
    /// The principals that are API tokens: of each organization others.
    tokens: BTreeMap<&'static str, Client>,
}

impl World {
    /// Something of this use; another one after every `ok`.
    fn take(&self, kind: &str, used: usize) -> &str {
        self.stock.get(kind).map_or("none", |things| &things[used.min(things.len() - 1)])
    }
}

impl World {
    /// The delivery of its event to one of its webhook endpoints.
    fn delivery(&self) -> String {
        let endpoint = self.take("webhook", 0).parse().unwrap();
        WebhookDeliveryId::of(&endpoint, &self.event.parse().unwrap()).to_string()
    }
}

impl Matrix {
    async fn answers(&self, mut world: World) -> Vec<((usize, usize, usize), String)> {
        let mut cells = vec![];
        let status = STATUSES.iter().position(|status| *status == world.status).unwrap();
        let part = world.part;
        for (row, (operation, variant, _)) in ROWS.iter().enumerate().filter(|(_, (.., own))| *own == part) {
            let mut used = 0;
            for (column, principal) in PRINCIPALS.iter().enumerate() {
                let (document, variables) = self.request(&world, operation, variant, principal, used);
                let client = world.tokens.get(principal).unwrap_or_else(|| &self.cast.clients[principal]);
                let response = match operation.starts_with("Subscription.") {
                    true => first_answer(client, &document, variables).await,
                    false => client.send(&document, variables).await,
                };
                let outcome = outcome(&response);
                if outcome == "ok" {
                    used += 1;
                    if part == Part::Fresh {
                        world = self.cast.world(world.status, part).await;
                    }
                }
                cells.push(((row, status, column), outcome));
            }
        }
        cells
    }

    fn request(&self, world: &World, operation: &str, variant: &str, principal: &str, used: usize) -> (String, Value) {
        let (of, field) = operation.split_once('.').unwrap();
        match of {
            "Query" => query(&self.cast, world, field, variant),
            "Subscription" => (
                format!("subscription($id: ID!) {{ {field}(organizationId: $id) {{ position }} }}"),
                json!({"id": world.id}),
            ),
            "Organization" => {
                let select = match field {
                    "settings" => "settings(namespace: \"theme\")".to_owned(),
                    "limits" => "limits { name used }".to_owned(),
                    "accessTrail" => "accessTrail(first: 1) { nodes { at } }".to_owned(),
                    list => format!("{list} {{ edges {{ cursor }} }}"),
                };
                (format!("query($id: ID!) {{ organization(by: {{id: $id}}) {{ {select} }} }}"), json!({"id": world.id}))
            }
            _ => {
                let argument = &self.schema.field("Mutation", field).unwrap().arguments[0];
                let mut input = self.input(world, field, variant, principal, used);
                let reason = self.schema.input(&argument.base()).unwrap().iter().any(|place| place.name == "reason");
                if reason {
                    input["reason"] = json!("a test");
                }
                let document =
                    format!("mutation($input: {}) {{ {field}(input: $input) {{ errors {{ code }} }} }}", argument.of);
                (document, json!({"input": input}))
            }
        }
    }

    /// A valid input; what it creates is new each time.
    fn input(&self, world: &World, operation: &str, variant: &str, principal: &str, used: usize) -> Value {
        let cast = &self.cast;
        let (id, word) = (&world.id, cast.new_word());
        let take = |kind: &str| world.take(kind, used);
        match (operation, variant) {
            ("createOrganization", "") => json!({"name": word, "slug": word}),
            ("createOrganization", _) => json!({"name": word, "slug": word, "ownerId": cast.ids["stranger"]}),
            ("updateOrganization", "") => json!({"organizationId": id, "name": word}),
            ("updateOrganization", _) => json!({"organizationId": id, "externalId": word}),
            ("updateOrganizationSettings", _) => {
                json!({"organizationId": id, "namespace": "theme", "value": {"word": word}})
            }
            (
                "submitOrganizationForVerification"
                | "verifyOrganization"
                | "rejectOrganization"
                | "waitlistOrganization"
                | "reopenOrganization"
                | "reviewOrganizationAgain"
                | "blockOrganization"
                | "unblockOrganization"
                | "deactivateOrganization"
                | "activateOrganization"
                | "deleteOrganization"
                | "restoreOrganization"
                | "leaveOrganization",
                _,
            ) => json!({"organizationId": id}),
            ("setOrganizationLimit", _) => {
                json!({"organizationId": id, "limit": "projects", "value": {"maximum": 1_000_000}})
            }
            ("changeOrganizationPlan", _) => json!({"organizationId": id, "plan": "free"}),
            ("inviteMember", _) => json!({"organizationId": id, "email": email(&word), "roles": ["guest"]}),
            ("resendInvitation", _) => json!({"invitationId": take("resend")}),
            ("revokeInvitation", _) => json!({"invitationId": take("revoke")}),
            ("acceptInvitation" | "declineInvitation", "one's own, by id") => {
                json!({"invitationId": world.own.get(principal).unwrap_or(&world.own["stranger"])})
            }
            // Nobody is let in by these, so there are some left that nobody has taken back.
            ("acceptInvitation", "another's, by id") => json!({"invitationId": world.stock["revoke"][STOCK - 1]}),
            ("acceptInvitation" | "declineInvitation", _) => json!({"token": world.stock["tokens"][STOCK - 1]}),
            ("addMember", _) => json!({"organizationId": id, "userId": take("add"), "roles": ["guest"]}),
            ("changeMemberRoles", "to more") => json!({"membershipId": take("more"), "roles": ["admin"]}),
            ("changeMemberRoles", "to less") => json!({"membershipId": take("less"), "roles": ["guest"]}),
            ("changeMemberRoles", _) => json!({"membershipId": world.members["second"], "roles": ["guest"]}),
            ("suspendMember" | "removeMember", "an owner") => json!({"membershipId": world.members["second"]}),
            ("suspendMember", _) => json!({"membershipId": take("suspend")}),
            ("removeMember", _) => json!({"membershipId": take("remove")}),
            ("reinstateMember", _) => json!({"membershipId": take("reinstate")}),
            ("ensureHomeOrganization", _) => json!({}),
            ("offerOwnership", _) => json!({"membershipId": world.members["member"]}),
            ("acceptOwnership" | "withdrawOwnershipOffer", _) => json!({"organizationId": id}),
            ("defineRole", variant) => {
                let name = if variant.is_empty() { &word } else { take("role") };
                json!({
                    "organizationId": id, "name": name, "description": word, "permissions": ["organization:read"],
                })
            }
            ("removeRole", _) => json!({"organizationId": id, "name": take("role")}),
            ("createApiToken", _) => {
                json!({"organizationId": id, "name": word, "permissions": ["organization:read"]})
            }
            ("revokeApiToken", _) => json!({"tokenId": take("api token")}),
            ("createWebhookEndpoint", _) => {
                json!({"organizationId": id, "url": format!("https://example.com/{word}"), "events": ["*"]})
            }
            ("updateWebhookEndpoint", _) => json!({"endpointId": take("webhook"), "description": word}),
            ("rotateWebhookSecret" | "sendTestWebhook", _) => json!({"endpointId": take("webhook")}),
            ("enableWebhookEndpoint", _) => json!({"endpointId": take("enable")}),
            ("disableWebhookEndpoint", _) => json!({"endpointId": take("disable")}),
            ("deleteWebhookEndpoint", _) => json!({"endpointId": take("erode")}),
            ("redeliverWebhook", _) => json!({"deliveryId": world.delivery()}),
            ("replayWebhooks" | "redriveWebhooks", _) => {
                json!({"endpointId": world.take("webhook", 0), "after": world.position})
            }
            ("createProject", _) => json!({"organizationId": id, "name": word, "slug": word}),
            ("updateProject", _) => json!({"projectId": take("update"), "name": word}),
            ("archiveProject", _) => json!({"projectId": take("archive")}),
            ("unarchiveProject", _) => json!({"projectId": take("unarchive")}),
            ("deleteProject", _) => json!({"projectId": take("delete")}),
            ("restoreProject", _) => json!({"projectId": take("restore")}),
            // One after the other: held, approved, revoked, reinstated.
            ("approveUser" | "revokeUser" | "reinstateUser", _) => json!({"userId": cast.held[world.status]}),
            ("eraseSubject", "a user") => json!({"subject": {"userId": cast.strays[world.status]}}),
            ("eraseSubject", _) => json!({"subject": {"invitationId": take("erase")}}),
            ("setLegalHold" | "releaseLegalHold", _) => json!({"organizationId": id}),
            (operation, _) => panic!("{operation} has no input: write one"),
        }
    }
}

fn query(cast: &Cast, world: &World, field: &str, variant: &str) -> (String, Value) {
    let node = |id: &str| ("query($id: ID!) { node(id: $id) { __typename id } }".to_owned(), json!({"id": id}));
    let by = |by: Value| {
        let document = "query($by: OrganizationBy!) { organization(by: $by) { id } }";
        (document.to_owned(), json!({"by": by}))
    };
    let of = |document: &str, variables: Value| (document.to_owned(), variables);
    match (field, variant) {
        ("node", "an organization") => node(&world.id),
        ("node", "a member") => node(world.take("more", 0)),
        ("node", "an invitation") => node(world.take("resend", 0)),
        ("node", "a project") => node(world.take("update", 0)),
        ("node", "an API token") => node(world.take("api token", 0)),
        ("node", "a webhook endpoint") => node(world.take("webhook", 0)),
        ("node", "a webhook delivery") => node(&world.delivery()),
        ("node", "an event") => node(&world.event),
        ("node", _) => node(&cast.residents[world.status]),
        ("nodes", _) => of("query($id: ID!) { nodes(ids: [$id]) { id } }", json!({"id": world.take("update", 0)})),
        ("viewer", _) => of("{ viewer { operator } }", json!({})),
        ("organization", "by id") => by(json!({"id": world.id})),
        ("organization", "by slug") => by(json!({"slug": world.slug})),
        ("organization", _) => by(json!({"externalId": format!("ext-{}", world.slug)})),
        ("organizations", _) => of("{ organizations { nodes { id } } }", json!({})),
        ("users", _) => of("{ users(search: \"a\") { nodes { id } } }", json!({})),
        ("project", _) => of("query($id: ID!) { project(id: $id) { id } }", json!({"id": world.take("update", 0)})),
        ("permissions", "") => of("query($id: ID!) { permissions(organizationId: $id) }", json!({"id": world.id})),
        ("permissions", _) => of(
            "query($id: ID!, $user: ID!) { permissions(organizationId: $id, userId: $user) }",
            json!({"id": world.id, "user": cast.residents[world.status]}),
        ),
        ("roles", _) => of("query($id: ID!) { roles(organizationId: $id) { name } }", json!({"id": world.id})),
        ("permissionCatalogue", _) => of("{ permissionCatalogue { name } }", json!({})),
        ("webhookEventTypes", _) => of("{ webhookEventTypes { name } }", json!({})),
        ("invitationPreview", _) => of(
            "query($token: String!) { invitationPreview(token: $token) { state } }",
            json!({"token": world.stock["tokens"][STOCK - 1]}),
        ),
        ("auditStatus", _) => of("{ auditStatus { alarms { message } } }", json!({})),
        ("projections", _) => of("{ projections { name } }", json!({})),
        ("auditTrail", _) => of("{ auditTrail(first: 1) { nodes { id } } }", json!({})),
        ("accessTrail", _) => of("{ accessTrail(first: 1) { nodes { at } } }", json!({})),
        ("removalImpact", _) => of(
            "query($id: ID!) { removalImpact(membershipId: $id) { lastOwner } }",
            json!({"id": world.members["guest"]}),
        ),
        ("organizationAsOf", _) => of(
            "query($id: ID!) { organizationAsOf(id: $id, asOf: {auditSequence: 1}) { slug } }",
            json!({"id": world.id}),
        ),
        ("auditCheckpoint", _) => {
            of("query($id: ID!) { auditCheckpoint(organizationId: $id) { treeSize } }", json!({"id": world.id}))
        }
        ("auditInclusionProof", _) => of(
            "query($id: ID!) { auditInclusionProof(organizationId: $id, auditSequence: 1) { treeSize } }",
            json!({"id": world.id}),
        ),
        ("auditConsistencyProof", _) => of(
            "query($id: ID!) { auditConsistencyProof(organizationId: $id, fromSize: 1) { toSize } }",
            json!({"id": world.id}),
        ),
        (field, _) => panic!("{field} has no document: write one"),
    }
}

async fn accepted(client: &Client, mutation: &str, input_type: &str, input: Value, select: &str) -> Answer {
    let answer = client.run(mutation, input_type, input, select).await;
    assert!(answer.accepted(), "{mutation}: {answer:?}");
    answer
}

async fn accepted_organization(client: &Client, mutation: &str, id: &str) {
    accepted(client, mutation, "OrganizationCommandInput", json!({"organizationId": id}), "__typename").await;
}

async fn accepted_review(client: &Client, mutation: &str, id: &str) {
    let input = json!({"organizationId": id, "reason": "a test"});
    accepted(client, mutation, "OrganizationReviewInput", input, "__typename").await;
}

async fn accepted_member(client: &Client, mutation: &str, id: &str) {
    accepted(client, mutation, "MembershipCommandInput", json!({"membershipId": id}), "__typename").await;
}

async fn user_command(operator: &Client, mutation: &str, user: &str) -> Answer {
    operator.run(mutation, "UserReviewInput", json!({"userId": user, "reason": "a test"}), "__typename").await
}

/// A response as one short word.
fn outcome(response: &Value) -> String {
    if let Some(code) = response.pointer("/errors/0/extensions/code").and_then(Value::as_str) {
        return match code {
            "UNAUTHENTICATED" => "UA",
            "FORBIDDEN" => "FB",
            "NOT_FOUND" => "NF",
            "BAD_USER_INPUT" => "BI",
            other => other,
        }
        .to_owned();
    }
    assert_eq!(response.get("errors"), None);
    let data = response["data"].as_object().and_then(|data| data.values().next());
    let refused = data.and_then(|data| data.pointer("/errors/0/code")).and_then(Value::as_str);
    match refused {
        None => "ok",
        Some("ENTITY_STATUS") => "es",
        Some("INVALID_STATE") => "is",
        Some("INVALID_INPUT") => "ii",
        Some("ROLE_NOT_GRANTABLE") => "ng",
        Some("ALREADY_EXISTS") => "ae",
        Some("INVITATION_NOT_PENDING") => "np",
        Some("INVITATION_WRONG_RECIPIENT") => "wr",
        Some("LAST_OWNER") => "lo",
        Some("LIMIT_REACHED") => "lr",
        Some(other) => other,
    }
    .to_owned()
}

/// The matrix as a text for people.
fn written(cells: &Cells) -> String {
    let mut text = HEAD.to_owned();
    let title: String = PRINCIPALS.iter().map(|principal| format!("{:.3} ", principal)).collect();
    for (row, (operation, variant, _)) in ROWS.iter().enumerate() {
        let comma = if variant.is_empty() { "" } else { ", " };
        write!(text, "\n{operation}{comma}{variant}\n    {}\n", title.trim_end()).unwrap();
        let mut lines: Vec<(String, Vec<&str>)> = vec![];
        for (status, name) in STATUSES.iter().enumerate() {
            let line: String =
                (0..PRINCIPALS.len()).map(|column| format!("{:<3} ", cells[&(row, status, column)])).collect();
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, statuses)) => statuses.push(name),
                None => lines.push((line, vec![name])),
            }
        }
        for (line, statuses) in lines {
            let statuses = if statuses.len() == STATUSES.len() { "*".to_owned() } else { statuses.join(" ") };
            writeln!(text, "    {line} {statuses}").unwrap();
        }
    }
    text
}

/// The cells of such a text by operation, status and principal.
fn read(text: &str) -> BTreeMap<(String, String, &'static str), String> {
    let (mut cells, mut operation) = (BTreeMap::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if !line.starts_with(' ') {
            operation = line.to_owned();
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() <= PRINCIPALS.len() {
            continue;
        }
        let (outcomes, statuses) = words.split_at(PRINCIPALS.len());
        let statuses = if statuses == ["*"] { &STATUSES[..] } else { statuses };
        for status in statuses {
            for (principal, outcome) in PRINCIPALS.iter().zip(outcomes) {
                cells.insert((operation.clone(), (*status).to_owned(), *principal), (*outcome).to_owned());
            }
        }
    }
    cells
}

fn differences<K: Ord + Clone + std::fmt::Debug>(
    expected: &BTreeMap<K, String>,
    found: &BTreeMap<K, String>,
) -> String {
    let keys: BTreeSet<&K> = expected.keys().chain(found.keys()).collect();
    let differing = keys.into_iter().filter(|key| expected.get(key) != found.get(key));
    let none = "nothing".to_owned();
    let lines = differing.map(|key| {
        format!("{key:?}: expected {}, found {}\n", expected.get(key).unwrap_or(&none), found.get(key).unwrap_or(&none))
    });
    lines.collect()
}

/// Whether the calls of `client` on what is there and on what is not are answered in the same way.
async fn same_as_nothing(client: &Client, document: &str, there: Value, nothing: Value) -> bool {
    let (found, expected) = (client.send(document, there).await, client.send(document, nothing).await);
    (outcome(&found), found["errors"][0]["message"].clone())
        == (outcome(&expected), expected["errors"][0]["message"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_a_member_may_not_read_answers_his_commands_as_if_it_did_not_exist() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, bob) = (server.user("owner@example.com"), server.user("bob@example.com"));
    let id = server.verified("acme", &owner).await;
    owner.bring_in(&id, &bob, "bob@example.com", &["billing"]).await;
    let project = owner.create_project(&id, "first").await.text("/project/id");
    let nothing = ProjectId::random().to_string();
    let read = "query($i: ID!) { project(id: $i) { id } }";
    assert!(same_as_nothing(&bob, read, json!({"i": project}), json!({"i": nothing})).await, "project");
    for command in ["archiveProject", "unarchiveProject", "deleteProject", "restoreProject"] {
        let document = format!("mutation($i: ID!) {{ {command}(input: {{projectId: $i}}) {{ errors {{ code }} }} }}");
        assert!(same_as_nothing(&bob, &document, json!({"i": project}), json!({"i": nothing})).await, "{command}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_blocked_organization_finds_its_people_by_their_ids() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (owner, bob) = (server.user("owner@example.com"), server.user("bob@example.com"));
    let id = server.verified("acme", &owner).await;
    owner.bring_in(&id, &bob, "bob@example.com", &["member"]).await;
    let read = "query($i: ID!) { node(id: $i) { id } }";
    let of_bob = json!({"i": bob.user_id().await});
    let finds = async || owner.send(read, of_bob.clone()).await["data"]["node"].is_object();
    eventually("the owner finds bob", finds).await;
    assert!(server.operator().review("blockOrganization", &id).await.accepted());
    // The members' list has the user.
    let members = "query($i: ID!) { organization(by: {id: $i}) { members { nodes { user { id } } } } }";
    let listed = owner.query(members, json!({"i": id})).await;
    assert_eq!(listed.at("/organization/members/nodes/1/user/id"), &of_bob["i"]);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(finds().await);
    server.stop().await;
}
