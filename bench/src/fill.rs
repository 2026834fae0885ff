//! Long logs, fast: events written by `COPY` that nobody could tell from those of commands.
//!
//! They are made by the aggregates' own event types, with ids as the service makes them, in the partition that
//! follows from the organization's id, with dense offsets and audit sequences, and with claims and tallies by the
//! events' own effects. What is personal is sealed by the service's own key ring, under a key for each person, so
//! that reading them costs what it costs in life, and each carries its code. Only deciding is left out.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use aggregates::ids::{EventId, Id, InvitationId, MembershipId, OrganizationId, ProjectId, UserId};
use aggregates::invitation::InvitationEvent;
use aggregates::membership::{MembershipEvent, MembershipSource};
use aggregates::organization::{Organization, OrganizationCommand};
use aggregates::project::ProjectEvent;
use aggregates::user::UserEvent;
use aggregates::{Actor, Effect, Event, Personal, StreamId};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use sqlx::PgPool;
use tenancy::commands::invitations::{email_claim, token_digest};
use tenancy::database::Connections;
use tenancy::database::embedded::Purpose;
use tenancy::log::chain::{ChainKey, Columns, METADATA, Mac};
use tenancy::log::{KeyRing, MasterKeys, ledger::ClaimKey, partition_of};
use tenancy::service::Core;
use uuid::Uuid;

use crate::server::{Database, Server};
use crate::world::{ADDRESS, USER_AGENT};

/// Events that are written at a time.
const CHUNK: usize = 20_000;
const EVENTS: &str = "COPY events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, partition,
    \"offset\", organization_id, audit_sequence, event_id, command_id, actor, ip, user_agent, request_id, correlation_id,
    recorded_at, mac) FROM STDIN";
const CLAIMS: &str = "COPY claims (scope, key, holder, organization_id, partition) FROM STDIN";
const TALLIES: &str = "COPY tallies (organization_id, name, used, maximum, floor, partition) FROM STDIN";

/// What an organization has.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Members who came by invitations: a user, an invitation, its acceptance, a membership each.
    pub invited: usize,
    /// Members who were added: a membership each, of users of whom the log knows nothing else.
    pub added: usize,
    /// Projects, each renamed once.
    pub projects: usize,
}

impl Shape {
    /// As most are: 107 events.
    pub const USUAL: Self = Self { invited: 20, added: 0, projects: 20 };
}

/// An organization that was written.
#[derive(Debug, Clone)]
pub struct Filled {
    /// Its id.
    pub id: OrganizationId,
    /// Its owner.
    pub owner: UserId,
    /// The owner's address.
    pub email: String,
    /// How many events it has.
    pub events: i64,
    /// Its members but the owner.
    pub members: Vec<MembershipId>,
}

/// An event that is to be written.
struct Pending {
    stream: StreamId,
    sequence: u64,
    organization: Option<OrganizationId>,
    audit_sequence: Option<i64>,
    partition: i16,
    actor: UserId,
    event: Event,
}

/// Writes events.
pub struct Filler {
    pool: PgPool,
    keys: KeyRing,
    issuer: String,
    partitions: i16,
    heads: Vec<(i64, Mac)>,
    now: DateTime<Utc>,
    pending: Vec<Pending>,
    claims: String,
    tallies: String,
    written: usize,
}

impl Filler {
    /// For a database that has its tables and nothing else.
    pub async fn new(server: &Server, name: &str) -> (Database, Self) {
        let database = server.database(name).await;
        let config = database.config();
        let core = Core::open(&config, Purpose::Command).await.expect("the service opens");
        let partitions = core.commands.log().partitions();
        core.close().await.expect("the service closes");
        let pool = database.pool(4).await;
        let connections = Connections::new(4, pool.connect_options().as_ref().clone());
        let master = *config.secrets.master_key.as_ref().expect("there is a key").expose();
        let filler = Self {
            keys: KeyRing::open(connections, &MasterKeys { current: master, other: None }).await.expect("the key fits"),
            issuer: config.access.issuer,
            pool,
            partitions,
            heads: vec![(0, Mac::new()); usize::from(partitions.unsigned_abs())],
            now: Utc::now() - TimeDelta::days(1),
            pending: vec![],
            claims: String::new(),
            tallies: String::new(),
            written: 0,
        };
        (database, filler)
    }

    /// How many events there are.
    pub fn written_in_all(&self) -> usize {
        self.written + self.pending.len()
    }

    /// Usual organizations until there are so many events.
    pub async fn usual_until(&mut self, events: usize) -> Vec<Filled> {
        let mut filled = vec![];
        while self.written_in_all() < events {
            filled.push(self.organization(Shape::USUAL).await);
        }
        filled
    }

    /// An organization.
    pub async fn organization(&mut self, shape: Shape) -> Filled {
        let id = OrganizationId::random();
        let (owner, email) = self.user().await;
        let mut place = Place::new(id.clone(), owner.clone(), partition_of(id.as_ref(), self.partitions));
        place.created(self.now);
        self.take(&mut place).await;
        let mut members = vec![];
        for _ in 0..shape.invited {
            let (user, email) = self.user().await;
            members.push(place.invited(&self.keys, &user, &email, self.now));
            self.take(&mut place).await;
        }
        for _ in 0..shape.added {
            members.push(place.joined(&UserId::random(), "member", MembershipSource::Direct, None, self.now));
            self.take(&mut place).await;
        }
        for number in 0..shape.projects {
            place.project(number, self.now);
            self.take(&mut place).await;
        }
        place.finish(&mut self.claims, &mut self.tallies);
        Filled { id, owner, email, events: place.audit, members }
    }

    /// A user, known by a first call.
    async fn user(&mut self) -> (UserId, String) {
        let id = UserId::random();
        let email = format!("{}@example.com", id.as_ref().trim_start_matches("usr_"));
        let claim = self.keys.digest(&["identity", &self.issuer, &email]);
        let personal = |text: &str| Personal::new(id.as_ref(), text);
        let event = UserEvent::UserRegistered {
            issuer: self.issuer.clone(),
            subject: personal(&email),
            identity_claim: claim.clone(),
            email: Some(personal(&email)),
            display_name: Some(personal(&format!("Name of {email}"))),
        };
        let partition = partition_of(id.as_ref(), self.partitions);
        let _ = writeln!(self.claims, "identity\t{}\t{id}\t\\N\t{partition}", claim.0);
        self.pending.push(Pending {
            stream: id.clone().into(),
            sequence: 1,
            organization: None,
            audit_sequence: None,
            partition,
            actor: id.clone(),
            event: event.into(),
        });
        (id, email)
    }

    async fn take(&mut self, place: &mut Place) {
        self.pending.append(&mut place.pending);
        self.now += TimeDelta::milliseconds(1);
        if self.pending.len() >= CHUNK {
            self.flush().await;
        }
    }

    /// Seals and writes what is pending.
    async fn flush(&mut self) {
        let mut people: Vec<String> = vec![];
        for pending in &mut self.pending {
            people.push(pending.actor.to_string());
            pending.event.visit_personal(&mut |_, personal| people.push(personal.of().to_owned()));
        }
        people.sort_unstable();
        people.dedup();
        let keys = self.keys.find_or_make(people.iter().map(String::as_str)).await.expect("there are keys");
        let mut rows = String::with_capacity(self.pending.len() * 700);
        for pending in std::mem::take(&mut self.pending) {
            let head = &mut self.heads[usize::from(pending.partition.unsigned_abs())];
            head.0 += 1;
            self.written += 1;
            let seal = |of: &str, place: &str, value: &str| keys.seal(of, place, value);
            write_event(&mut rows, pending, head, (self.keys.chain(), &seal), self.now);
        }
        copy(&self.pool, EVENTS, &rows).await;
    }

    /// Writes what is left, and lets the planner learn the tables.
    pub async fn finish(mut self) {
        self.flush().await;
        copy(&self.pool, CLAIMS, &self.claims).await;
        copy(&self.pool, TALLIES, &self.tallies).await;
        sqlx::query("VACUUM ANALYZE").execute(&self.pool).await.expect("the planner learns the tables");
    }
}

/// Seals what is of somebody for a place: (whose, place, value).
type Seal<'a> = &'a dyn Fn(&str, &str, &str) -> Option<String>;

/// Writes an event to the end of its partition's chain.
fn write_event(
    rows: &mut String,
    pending: Pending,
    (offset, mac): &mut (i64, Mac),
    (chain, seal): (&ChainKey, Seal<'_>),
    now: DateTime<Utc>,
) {
    let Pending { stream, sequence, organization, audit_sequence, partition, actor, mut event } = pending;
    let (id, command, correlation, request) = (EventId::random(), Uuid::new_v4(), Uuid::new_v4(), Uuid::now_v7());
    event.visit_personal(&mut |field, personal| {
        let of = personal.of().to_owned();
        personal.seal(|value| seal(&of, &format!("{id}/{field}"), value));
    });
    let column = |name: &str, value: &str| seal(actor.as_ref(), &format!("{command}/{name}"), value);
    let ip = column("ip", ADDRESS).expect("nobody was erased");
    let user_agent = column("user_agent", USER_AGENT).expect("nobody was erased");
    let payload = serde_json::to_string(&event).expect("an event is JSON");
    let descriptor = event.descriptor();
    let by = Actor::User(actor.clone()).to_string();
    *mac = chain.of_event(
        mac,
        &Columns {
            partition,
            offset: *offset,
            aggregate_type: stream.aggregate_type(),
            aggregate_id: stream.id(),
            sequence: sequence.cast_signed(),
            event_type: descriptor.name,
            event_version: descriptor.version,
            payload: &payload,
            metadata: METADATA,
            organization_id: organization.as_ref().map(AsRef::as_ref),
            audit_sequence,
            event_id: id.as_ref(),
            command_id: command,
            actor: &by,
            on_behalf_of: None,
            ip: Some(&ip),
            user_agent: Some(&user_agent),
            request_id: Some(&request.to_string()),
            correlation_id: correlation,
            causation_id: None,
            recorded_at: now,
        },
    );
    let code: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let payload = payload.replace('\\', "\\\\");
    let null = || "\\N".to_owned();
    let (organization, audit) =
        (organization.map_or_else(null, String::from), audit_sequence.map_or_else(null, |number| number.to_string()));
    let _ = writeln!(
        rows,
        "{}\t{}\t{sequence}\t{}\t{}\t{payload}\t{partition}\t{offset}\t{organization}\t{audit}\t{id}\t{command}\t{}\t\
         {ip}\t{user_agent}\t{request}\t{correlation}\t{}\t\\\\x{code}",
        stream.aggregate_type(),
        stream.id(),
        descriptor.name,
        descriptor.version,
        by,
        now.to_rfc3339_opts(SecondsFormat::Micros, true)
    );
}

/// Writes rows in the text form of `COPY`.
pub async fn copy(pool: &PgPool, statement: &str, rows: &str) {
    let mut connection = pool.acquire().await.expect("the server answers");
    let mut copy = connection.copy_in_raw(statement).await.expect("rows can be copied");
    copy.send(rows.as_bytes()).await.expect("rows can be copied");
    copy.finish().await.expect("rows are right");
}

/// An organization that is being made.
struct Place {
    id: OrganizationId,
    owner: UserId,
    partition: i16,
    audit: i64,
    versions: HashMap<StreamId, u64>,
    claims: BTreeMap<(String, String), String>,
    tallies: BTreeMap<String, (i64, Option<u64>, u64)>,
    pending: Vec<Pending>,
}

impl Place {
    fn new(id: OrganizationId, owner: UserId, partition: i16) -> Self {
        let (versions, claims, tallies) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { id, owner, partition, audit: 0, versions, claims, tallies, pending: vec![] }
    }

    fn record(&mut self, stream: impl Into<StreamId>, event: impl Into<Event>, actor: &UserId) {
        let (stream, event) = (stream.into(), event.into());
        let version = self.versions.entry(stream.clone()).or_default();
        *version += 1;
        let sequence = *version;
        self.audit += 1;
        for effect in event.effects() {
            self.follow(&stream, effect);
        }
        self.pending.push(Pending {
            stream,
            sequence,
            organization: Some(self.id.clone()),
            audit_sequence: Some(self.audit),
            partition: self.partition,
            actor: actor.clone(),
            event,
        });
    }

    fn follow(&mut self, stream: &StreamId, effect: Effect) {
        let key = |scope: aggregates::Scope, key: &str| {
            let key = ClaimKey::new(scope, key, Some(&self.id));
            (key.scope.as_str().to_owned(), key.key)
        };
        match effect {
            Effect::Claim { scope, key: name, .. } => {
                self.claims.insert(key(scope, &name), stream.id().to_owned());
            }
            Effect::Release { scope, key: name } => {
                self.claims.remove(&key(scope, &name));
            }
            Effect::Tally { name, by } => self.tallies.entry(name.into_owned()).or_default().0 += by,
            Effect::Maximum { name, maximum } => self.tallies.entry(name).or_default().1 = maximum,
            Effect::Floor { name, floor } => self.tallies.entry(name.to_owned()).or_default().2 = floor,
            Effect::Reached { .. } | Effect::Vacant { .. } => {}
        }
    }

    fn created(&mut self, at: DateTime<Utc>) {
        let (id, owner) = (self.id.clone(), self.owner.clone());
        let slug = id.to_string().replace('_', "-");
        let create = OrganizationCommand::Create {
            id: id.clone(),
            name: format!("Organization {slug}"),
            slug,
            contact_email: None,
            external_id: None,
            plan: "free".to_owned(),
            limits: BTreeMap::default(),
            verified_because: Some("this deployment does not verify organizations".to_owned()),
            reason: None,
            at,
        };
        for event in Organization::default().decide(create).expect("an organization can be created") {
            self.record(id.clone(), event, &owner);
        }
        self.joined(&owner, "owner", MembershipSource::Founder, None, at);
    }

    fn joined(
        &mut self,
        user: &UserId,
        role: &str,
        source: MembershipSource,
        invitation: Option<InvitationId>,
        at: DateTime<Utc>,
    ) -> MembershipId {
        let id = MembershipId::of(&self.id, user);
        let joined = MembershipEvent::MemberJoined {
            scope: Default::default(),
            user_id: user.clone(),
            roles: vec![role.to_owned()],
            source,
            invitation_id: invitation.clone(),
            joined_at: at,
            reason: None,
        };
        let actor = if invitation.is_some() { user.clone() } else { self.owner.clone() };
        self.record(id.clone(), joined, &actor);
        id
    }

    fn invited(&mut self, keys: &KeyRing, user: &UserId, email: &str, at: DateTime<Utc>) -> MembershipId {
        let (id, owner) = (InvitationId::random(), self.owner.clone());
        let claim = email_claim(keys, email);
        let invited = InvitationEvent::MemberInvited {
            scope: Default::default(),
            email: Personal::new(id.as_ref(), email),
            email_claim: claim.clone(),
            token_digest: token_digest(keys, id.as_ref()),
            roles: vec!["member".to_owned()],
            invited_by: Actor::User(owner.clone()),
            expires_at: at + TimeDelta::days(7),
            created_at: at,
            reason: None,
        };
        self.record(id.clone(), invited, &owner);
        let membership_id = MembershipId::of(&self.id, user);
        let accepted = InvitationEvent::InvitationAccepted {
            email_claim: claim,
            user_id: user.clone(),
            membership_id,
            seat_freed: false,
        };
        self.record(id.clone(), accepted, user);
        self.joined(user, "member", MembershipSource::Invitation, Some(id), at)
    }

    fn project(&mut self, number: usize, at: DateTime<Utc>) {
        let (id, owner) = (ProjectId::random(), self.owner.clone());
        let (name, slug) = (format!("Project {number}"), format!("project-{number}"));
        let metadata = serde_json::json!({});
        let created = ProjectEvent::ProjectCreated { name: name.clone(), slug, metadata, created_at: at, reason: None };
        self.record(id.clone(), created, &owner);
        let renamed =
            ProjectEvent::ProjectRenamed { name: format!("{name}, again"), previous_name: name, reason: None };
        self.record(id, renamed, &owner);
    }

    fn finish(&self, claims: &mut String, tallies: &mut String) {
        let Self { id, partition, .. } = self;
        for ((scope, key), holder) in &self.claims {
            let _ = writeln!(claims, "{scope}\t{key}\t{holder}\t{id}\t{partition}");
        }
        for (name, (used, maximum, floor)) in &self.tallies {
            let maximum = maximum.map_or_else(|| "\\N".to_owned(), |maximum| maximum.to_string());
            let _ = writeln!(tallies, "{id}\t{name}\t{used}\t{maximum}\t{floor}\t{partition}");
        }
    }
}
