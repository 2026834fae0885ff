//! Reads what a report tells.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use aggregates::api_token::{ApiTokenEvent, ApiTokenState};
use aggregates::event::shown;
use aggregates::ids::{ApiTokenId, MembershipId, OrganizationId, UserId, WebhookEndpointId};
use aggregates::invitation::InvitationState;
use aggregates::membership::{MembershipEvent, MembershipState};
use aggregates::user::UserState;
use aggregates::webhook::WebhookEndpointState;
use aggregates::{Actor, Aggregate, ApiToken, Event, Invitation, Membership, Recorded, Registered, WebhookEndpoint};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::topics::{Topic, topic};
use super::{
    ACCESS_ROWS_MAX, About, Access, Accesses, Change, FORMAT, Happened, Invited, Member, Offer, OwnRole, Period,
    Proofs, ROWS_MAX, Report, Rows, Token, Webhook,
};
use crate::audit::as_of::{AsOf, Fold, NoAnswer, emails, next_events, sequence};
use crate::audit::data::{camel_case, data};
use crate::audit::names::{Names, Party};
use crate::log::{COLUMNS, Log, LogError, Reader, StoredEvent};

/// How many users are asked for at a time.
const USERS_AT_ONCE: usize = 1_000;
/// What operators do to a user everywhere.
const OF_USERS: [&str; 3] = ["UserRevoked", "UserReinstated", "UserErased"];
/// Fields that a report tells elsewhere, or that are of no use to people.
const TOLD_ELSEWHERE: [&str; 10] = [
    "reason",
    "userId",
    "membershipId",
    "createdAt",
    "joinedAt",
    "offeredAt",
    "createdBy",
    "offeredBy",
    "revokedAt",
    "scope",
];

/// Records of the access trail that are alike.
#[derive(Debug, Clone)]
pub struct Record {
    /// What kind, as it is stored.
    pub kind: String,
    /// By which operation.
    pub operation: String,
    /// The caller.
    pub actor: Actor,
    /// How often.
    pub times: u64,
    /// When first.
    pub first: DateTime<Utc>,
    /// When last.
    pub last: DateTime<Utc>,
}

/// What the access trail has of the period.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// What was refused.
    pub refusals: Rows<Record>,
    /// Exports.
    pub exports: Rows<Record>,
    /// Reads.
    pub reads: Rows<Record>,
}

/// Which report.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of which organization.
    pub organization: OrganizationId,
    /// From when on; from the beginning, without.
    pub since: Option<DateTime<Utc>>,
    /// Until when.
    pub until: DateTime<Utc>,
    /// For how many days the access trail is kept.
    pub access_trail_days: u32,
}

/// The report, but for its proofs.
pub async fn read(log: &Log, wanted: &Wanted, records: Records) -> Result<Report, NoAnswer> {
    let (now, id, until) = (Utc::now(), &wanted.organization, wanted.until);
    let (last, _) = sequence(log, id, &AsOf::Time(until)).await?;
    let mut pass = Pass::default();
    while pass.fold.audit_sequence < last {
        for row in next_events(log, id, pass.fold.audit_sequence, last).await? {
            pass.take(row, log.reader(), wanted.since)?;
        }
    }
    let of_users = users_acts(log, &pass, (wanted.since, until)).await?;
    let mut events = BTreeMap::new();
    for (place, kept) in std::mem::take(&mut pass.kept) {
        let rows: Vec<StoredEvent> = kept.rows.into();
        let read = log.reader().read_each(&rows, log.keys()).await?;
        events.insert(place, (read.into_iter().flatten().collect::<Vec<_>>(), kept.more));
    }
    let mut people: BTreeSet<String> = pass.people().map(str::to_owned).collect();
    people.extend(events.values().flat_map(|(events, _)| events).chain(&of_users.0).flat_map(people_of));
    let callers = [&records.refusals, &records.exports, &records.reads].into_iter().flat_map(|records| &records.rows);
    people.extend(callers.filter_map(|record| user_of(&record.actor)).map(str::to_owned));
    let names = Names::read(log, &people, std::mem::take(&mut pass.token_names), until).await?;

    let mut section = |place: Place| {
        let (events, more) = events.remove(&place).unwrap_or_default();
        Rows { rows: events.iter().map(|event| happened(event, &names)).collect(), more }
    };
    let accesses = |records: Rows<Record>| Rows {
        rows: records.rows.into_iter().map(|record| record.named(&names)).collect(),
        more: records.more,
    };
    let mut report = Report {
        format: FORMAT,
        organization: pass.about(id),
        period: Period { since: wanted.since, until, audit_sequence: last, events: pass.events },
        made_at: now,
        access: Access::default(),
        role_changes: section(Place::Topic(Topic::Roles)),
        standing: section(Place::Topic(Topic::Standing)),
        tokens_and_webhooks: section(Place::Topic(Topic::TokensAndWebhooks)),
        operator_acts: section(Place::Operators),
        refusals: accesses(records.refusals),
        erasures: section(Place::Topic(Topic::Erasures)),
        legal_holds: section(Place::Topic(Topic::LegalHolds)),
        exports: accesses(records.exports),
        reads: accesses(records.reads),
        access_records_since: now - chrono::TimeDelta::days(i64::from(wanted.access_trail_days)),
        proofs: Proofs::default(),
    };
    add_users_acts(&mut report, of_users, &names);
    report.access = pass.access(log, id, &names, until).await?;
    Ok(report)
}

impl Record {
    fn named(self, names: &Names) -> Accesses {
        let Self { kind, operation, actor, times, first, last } = self;
        Accesses { kind, operation, actor: names.actor(&actor), times, first, last }
    }
}

/// Where an event is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Topic(Topic),
    Operators,
}

/// The newest events of a section.
#[derive(Default)]
struct Kept {
    rows: VecDeque<StoredEvent>,
    more: u64,
}

impl Kept {
    fn push(&mut self, row: StoredEvent) {
        if self.rows.len() == ROWS_MAX {
            self.rows.pop_front();
            self.more += 1;
        }
        self.rows.push_back(row);
    }
}

/// Since when something is as it is, and by whom.
#[derive(Debug, Clone, Default)]
struct Since {
    at: DateTime<Utc>,
    by: Actor,
}

/// One pass over the trail.
#[derive(Default)]
struct Pass {
    fold: Fold,
    /// Of what a fold says only how many there are.
    tokens: HashMap<ApiTokenId, ApiToken>,
    webhooks: HashMap<WebhookEndpointId, (WebhookEndpoint, Since)>,
    token_names: HashMap<String, String>,
    /// Since when members have their roles.
    roles: HashMap<UserId, Since>,
    kept: BTreeMap<Place, Kept>,
    events: u64,
}

impl Pass {
    fn take(&mut self, row: StoredEvent, reader: &Reader, since: Option<DateTime<Utc>>) -> Result<(), LogError> {
        let event = reader.parse(&row)?;
        let actor: Actor = row.actor.parse().unwrap_or_default();
        self.follow(&row, &event, &actor)?;
        let place = topic(&event).map(Place::Topic);
        self.fold.follow(&row, event)?;
        if since.is_some_and(|since| row.recorded_at < since) {
            return Ok(());
        }
        self.events += 1;
        let behalf = row.on_behalf_of.as_deref().and_then(|actor| actor.parse().ok());
        if matches!((&actor, &behalf), (Actor::Operator(_), _) | (_, Some(Actor::Operator(_)))) {
            self.kept.entry(Place::Operators).or_default().push(row.clone());
        }
        if let Some(place) = place {
            self.kept.entry(place).or_default().push(row);
        }
        Ok(())
    }

    /// What the fold leaves out.
    fn follow(&mut self, row: &StoredEvent, event: &Event, actor: &Actor) -> Result<(), LogError> {
        let since = || Since { at: row.recorded_at, by: actor.clone() };
        let stream = Reader::stream(row)?;
        match event {
            Event::ApiToken(event) => {
                let Some(id) = ApiToken::id(&stream) else { return Ok(()) };
                if let ApiTokenEvent::TokenCreated { name, .. } = event {
                    self.token_names.insert(id.to_string(), name.clone());
                }
                let token = self.tokens.entry(id.clone()).or_default();
                token.apply(event.clone());
                if token.state != ApiTokenState::Active {
                    self.tokens.remove(id);
                }
            }
            Event::WebhookEndpoint(event) => {
                let Some(id) = WebhookEndpoint::id(&stream) else { return Ok(()) };
                let (webhook, changed) = self.webhooks.entry(id.clone()).or_default();
                let before = (webhook.terms.clone(), webhook.state);
                webhook.apply(event.clone());
                if before != (webhook.terms.clone(), webhook.state) {
                    *changed = since();
                }
                if webhook.deleted {
                    self.webhooks.remove(id);
                }
            }
            Event::Membership(
                MembershipEvent::MemberJoined { user_id, .. } | MembershipEvent::MemberRolesChanged { user_id, .. },
            ) => {
                self.roles.insert(user_id.clone(), since());
            }
            Event::Membership(
                MembershipEvent::MemberRemoved { user_id, .. } | MembershipEvent::MemberLeft { user_id, .. },
            ) => {
                self.roles.remove(user_id);
            }
            Event::Membership(_)
            | Event::Organization(_)
            | Event::Invitation(_)
            | Event::Project(_)
            | Event::User(_)
            | Event::Pruned => {}
        }
        Ok(())
    }

    fn about(&self, id: &OrganizationId) -> About {
        let state = &self.fold.organization;
        About {
            id: id.to_string(),
            name: state.name.clone(),
            slug: state.slug.clone(),
            verification: shown(state.status.verification),
            lifecycle: if state.purged { "PURGED".to_owned() } else { shown(state.status.lifecycle) },
            plan: state.plan.clone(),
            created_at: state.created_at,
            legal_hold_since: state.legal_hold.as_ref().map(|hold| hold.since),
            pruned: state.pruned,
        }
    }

    /// Whose names are shown of those who have access.
    fn people(&self) -> impl Iterator<Item = &str> {
        let offer = self.fold.organization.ownership_offer.iter();
        let offer = offer.flat_map(|offer| [Some(offer.user_id.as_ref()), user_of(&offer.offered_by)]);
        let tokens = self.tokens.values().flat_map(|token| [user_of(&token.responsible), user_of(&token.created_by)]);
        let webhooks = self.webhooks.values().map(|(_, changed)| user_of(&changed.by));
        let roles = self.roles.iter().flat_map(|(user, since)| [Some(user.as_ref()), user_of(&since.by)]);
        let inviters = self.fold.of::<Invitation>().filter_map(|(_, part)| Invitation::of(&part.state));
        let inviters = inviters.filter(|invitation| invitation.state == InvitationState::Pending);
        let inviters = inviters.map(|invitation| user_of(&invitation.invited_by));
        offer.chain(tokens).chain(webhooks).chain(roles).chain(inviters).flatten()
    }

    fn memberships(&self) -> impl Iterator<Item = &Arc<Membership>> {
        self.fold.of::<Membership>().filter_map(|(_, part)| Membership::of(&part.state))
    }

    async fn access(
        &self,
        log: &Log,
        id: &OrganizationId,
        names: &Names,
        until: DateTime<Utc>,
    ) -> Result<Access, LogError> {
        let organization = &self.fold.organization;
        if organization.purged {
            return Ok(Access::default());
        }
        let mut members: Vec<Member> = self.memberships().filter_map(|member| self.member(member, names)).collect();
        members.sort_by(|a, b| (a.since, &a.user.id).cmp(&(b.since, &b.user.id)));
        let living = self.tokens.iter().filter(|(_, token)| token.state_at(until) == ApiTokenState::Active);
        let mut tokens: Vec<Token> = living.map(|(key, token)| self.token(id, key, token, names)).collect();
        tokens.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
        let mut webhooks: Vec<Webhook> =
            self.webhooks.iter().map(|(key, webhook)| endpoint(key, webhook, names)).collect();
        webhooks.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
        let own_roles = organization.roles.0.iter().map(|(name, role)| OwnRole {
            name: name.clone(),
            description: role.description.clone(),
            permissions: role.permissions.clone(),
        });
        Ok(Access {
            members: Rows::first(members, ACCESS_ROWS_MAX),
            own_roles: own_roles.collect(),
            tokens: Rows::first(tokens, ACCESS_ROWS_MAX),
            webhooks: Rows::first(webhooks, ACCESS_ROWS_MAX),
            invitations: self.invitations(log, names, until).await?,
            ownership_offer: organization.ownership_offer.as_ref().map(|offer| Offer {
                to: names.user(offer.user_id.as_ref()),
                by: names.actor(&offer.offered_by),
                since: offer.offered_at,
            }),
        })
    }

    fn member(&self, member: &Membership, names: &Names) -> Option<Member> {
        let user = member.user_id.as_ref().filter(|_| member.state != MembershipState::Removed)?;
        let since = self.roles.get(user).cloned().unwrap_or_default();
        let suspended = (member.state == MembershipState::Suspended).then(|| "suspended".to_owned());
        Some(Member {
            user: names.user(user.as_ref()),
            roles: member.roles.clone(),
            since: member.joined_at,
            roles_since: since.at,
            roles_by: names.actor(&since.by),
            source: shown(member.source),
            without_access: suspended.or_else(|| shut_out(user.as_ref(), names)),
        })
    }

    fn token(&self, organization: &OrganizationId, id: &ApiTokenId, token: &ApiToken, names: &Names) -> Token {
        let user = user_of(&token.responsible);
        let membership = user.and_then(|user| Some(MembershipId::of(organization, &user.parse().ok()?)));
        let membership = membership.and_then(|id| Membership::of(&self.fold.part(&id.into())?.state).cloned());
        let rests = membership.is_some_and(|member| {
            member.state == MembershipState::Suspended || (member.state == MembershipState::Removed && member.barred)
        });
        let rests = rests.then(|| "rests: the user who answers for it is suspended".to_owned());
        // A user who waits for an operator is behind no token, and hinders none.
        let revoked = || {
            let known = names.known(user?)?;
            let out = matches!(known.state, UserState::Revoked | UserState::Erased);
            out.then(|| format!("refused: the user who answers for it is {}", shown(known.state).to_lowercase()))
        };
        Token {
            id: id.to_string(),
            name: token.name.clone(),
            hint: token.hint.clone(),
            permissions: token.permissions.clone(),
            responsible: names.actor(&token.responsible),
            created_by: names.actor(&token.created_by),
            since: token.created_at,
            expires_at: token.expires_at,
            without_access: rests.or_else(revoked),
        }
    }

    async fn invitations(&self, log: &Log, names: &Names, until: DateTime<Utc>) -> Result<Rows<Invited>, LogError> {
        let open = |invitation: &Invitation| invitation.state_at(until) == InvitationState::Pending;
        let mut found = self.fold.all::<Invitation>(open);
        let more = found.len().saturating_sub(ACCESS_ROWS_MAX) as u64;
        found.truncate(ACCESS_ROWS_MAX);
        emails(log, &mut found).await?;
        let invited =
            |(id, part): (aggregates::ids::InvitationId, crate::audit::as_of::Part<Arc<Invitation>>)| Invited {
                id: id.to_string(),
                email: aggregates::personal::readable(&part.state.email).map(str::to_owned),
                roles: part.state.roles.clone(),
                by: names.actor(&part.state.invited_by),
                since: part.state.created_at,
                expires_at: part.state.expires_at,
            };
        Ok(Rows { rows: found.into_iter().map(invited).collect(), more })
    }
}

fn endpoint(id: &WebhookEndpointId, (webhook, changed): &(WebhookEndpoint, Since), names: &Names) -> Webhook {
    let why = || match &webhook.disabled_reason {
        Some(reason) => format!("disabled: {reason}"),
        None => "disabled".to_owned(),
    };
    Webhook {
        id: id.to_string(),
        url: webhook.terms.url.clone(),
        description: webhook.terms.about.clone(),
        events: webhook.terms.patterns.clone(),
        content: shown(webhook.terms.content),
        since: webhook.created_at,
        changed_at: changed.at,
        changed_by: names.actor(&changed.by),
        without_access: (webhook.state == WebhookEndpointState::Disabled).then(why),
    }
}

/// Why a user is let in nowhere.
fn shut_out(user: &str, names: &Names) -> Option<String> {
    let known = names.known(user)?;
    let since = known.state_since.format("%Y-%m-%d");
    match known.state {
        UserState::Active => None,
        UserState::Pending => Some("waits for an operator".to_owned()),
        UserState::Revoked => Some(format!("revoked by an operator on {since}")),
        UserState::Erased => Some(format!("erased on {since}")),
    }
}

/// The id of the user who an actor is.
fn user_of(actor: &Actor) -> Option<&str> {
    match actor {
        Actor::User(id) | Actor::Operator(id) => Some(id.as_ref()),
        Actor::Token(_) | Actor::System => None,
    }
}

/// The users whom an event names.
fn people_of(event: &Recorded) -> Vec<String> {
    let origin = &event.origin;
    let actors = [Some(&origin.actor), origin.on_behalf_of.as_ref()].into_iter().flatten();
    let subject = subject(event, &data(event)).filter(|subject| subject.kind == "user").map(|subject| subject.id);
    actors.filter_map(user_of).map(str::to_owned).chain(subject).collect()
}

/// To whom or what something happened, without a name.
fn subject(event: &Recorded, data: &serde_json::Map<String, Value>) -> Option<Party> {
    let user = |id: &str| Party::new("user", id);
    match (data.get("userId").and_then(Value::as_str), data.get("role").and_then(Value::as_str)) {
        (Some(id), _) => Some(user(id)),
        (None, Some(role)) => Some(Party::new("role", role)),
        (None, None) => Some(match event.stream.aggregate_type() {
            "User" => user(event.stream.id()),
            "ApiToken" => Party::new("token", event.stream.id()),
            "WebhookEndpoint" => Party::new("webhook", event.stream.id()),
            kind => Party::new(&kind.to_lowercase(), event.stream.id()),
        }),
    }
}

/// An event as the report tells it.
fn happened(event: &Recorded, names: &Names) -> Happened {
    let mut own = data(event);
    let origin = &event.origin;
    let subject = subject(event, &own).unwrap_or_default();
    let subject = match subject.kind.as_str() {
        "user" => names.user(&subject.id),
        "token" => subject.id.parse().map(|id| names.actor(&Actor::Token(id))).unwrap_or(subject),
        _ => subject,
    };
    let mut reason_erased = false;
    event.event.clone().visit_personal(&mut |field, personal| {
        reason_erased |= field == "reason" && personal.value().is_none();
    });
    let reason = own.remove("reason").and_then(|reason| reason.as_str().map(str::to_owned));
    Happened {
        audit_sequence: event.audit_sequence,
        at: event.recorded_at,
        action: event.event.descriptor().action(),
        actor: names.actor(&origin.actor),
        on_behalf_of: origin.on_behalf_of.as_ref().map(|actor| names.actor(actor)),
        subject,
        changes: changes(event, &own),
        reason,
        reason_erased,
    }
}

/// The fields of an event, each with the one of before, in the order in which they are declared.
fn changes(event: &Recorded, own: &serde_json::Map<String, Value>) -> Vec<Change> {
    let fields = event.event.descriptor().fields.iter().filter(|field| !field.name.starts_with("previous_"));
    let change = |field: &aggregates::event::FieldDescriptor| {
        let name = camel_case(field.name);
        let (to, from) = (own.get(&name)?.clone(), own.get(&camel_case(&format!("previous_{}", field.name))).cloned());
        let untold = TOLD_ELSEWHERE.contains(&name.as_str()) || (to.is_null() && from.is_none());
        let same = from.as_ref() == Some(&to);
        (!untold && !same).then_some(Change { field: name, from, to })
    };
    fields.filter_map(change).collect()
}

/// What operators did to users who are or were members, with how many are left out.
async fn users_acts(
    log: &Log,
    pass: &Pass,
    (since, until): (Option<DateTime<Utc>>, DateTime<Utc>),
) -> Result<(Vec<Recorded>, u64), LogError> {
    let statement = format!(
        "SELECT {COLUMNS} FROM events WHERE aggregate_type = 'User' AND aggregate_id = ANY($1) AND event_type = ANY($2)
         AND ($3::timestamptz IS NULL OR recorded_at >= $3) AND recorded_at <= $4
         ORDER BY recorded_at DESC, event_id DESC LIMIT {}",
        ROWS_MAX + 1
    );
    let users: Vec<&str> = pass.memberships().filter_map(|member| Some(member.user_id.as_ref()?.as_ref())).collect();
    let (mut rows, mut more): (Vec<StoredEvent>, u64) = (vec![], 0);
    for users in users.chunks(USERS_AT_ONCE) {
        let query = sqlx::query_as(&statement).bind(users).bind(&OF_USERS[..]).bind(since).bind(until);
        rows.extend(query.fetch_all(log.pool()).await?);
        rows.sort_by(|a: &StoredEvent, b| (a.recorded_at, &a.event_id).cmp(&(b.recorded_at, &b.event_id)));
        let out = rows.len().saturating_sub(ROWS_MAX);
        rows.drain(..out);
        more += out as u64;
    }
    let read = log.reader().read_each(&rows, log.keys()).await?;
    Ok((read.into_iter().flatten().collect(), more))
}

/// Puts what operators did to users among what happened to members. Their reasons are of no organization's trail.
fn add_users_acts(report: &mut Report, (events, more): (Vec<Recorded>, u64), names: &Names) {
    let (mut standing, mut erasures) = (vec![], vec![]);
    for event in &events {
        let act = Happened { reason: None, reason_erased: false, ..happened(event, names) };
        let erased = event.event.destroys_key();
        if erased { &mut erasures } else { &mut standing }.push(act);
    }
    for (section, acts, more) in [(&mut report.standing, standing, more), (&mut report.erasures, erasures, 0)] {
        let mut all = std::mem::take(section);
        all.rows.extend(acts);
        all.rows.sort_by_key(|row| row.at);
        *section = Rows::last(all.rows, ROWS_MAX, all.more + more);
    }
}
