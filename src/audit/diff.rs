//! What changed between two points: the facts of both, and for each that differs the events that made it so.
//!
//! The events between the points are folded once, a page at a time; of each fact the last event that changed it is
//! remembered, and of a thing that came also its first one. Nothing personal is shown unless it is asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aggregates::api_token::ApiTokenEvent;
use aggregates::event::shown;
use aggregates::organization::OrganizationEvent;
use aggregates::personal::readable;
use aggregates::{Actor, Event, Invitation, Membership, Personal, Recorded, Registered, StreamId, resource};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

use super::as_of::{Fold, Snapshot, emails, next_events};
use super::names::{Names, Party};
use crate::log::{COLUMNS, Log, LogError, Reader, StoredEvent};

/// What the first member of a difference says.
pub const FORMAT: &str = "tenancy-audit-diff/v1";
/// The headings of what is no aggregate of its own. They come before the others.
const OWN_HEADINGS: [&str; 3] = ["organization", "settings", "limits"];
/// The fact whose value is personal.
const CONTACT: &str = "contact address";
/// How a personal value is shown that is not to be shown: the one of before, and the new one.
const NOT_SHOWN: &str = "(not shown)";
const CHANGED: &str = "(changed)";
/// How many events are asked for at a time.
const EVENTS_AT_ONCE: usize = 1_000;

/// What changed between two points.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// [`FORMAT`].
    pub format: &'static str,
    /// In which organization.
    pub organization: String,
    /// From this point.
    pub from: Point,
    /// To this one.
    pub to: Point,
    /// What changed.
    pub changes: Vec<Change>,
}

/// A point in an organization's trail.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// The audit sequence of the last event.
    pub audit_sequence: u64,
    /// When that event was recorded.
    pub at: DateTime<Utc>,
}

/// Whether something came, went or is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// It has another value.
    Changed,
}

/// A change of a thing, or of a fact about one.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Under which heading.
    pub heading: &'static str,
    /// What kind.
    pub kind: Kind,
    /// Of which thing; none of the organization itself.
    pub id: Option<String>,
    /// The member, or the invited address, where personal values are wanted and it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Which fact; none of a thing that came or went as a whole.
    pub fact: Option<String>,
    /// The value before.
    pub from: Option<String>,
    /// The value after.
    pub to: Option<String>,
    /// The facts of a thing that came or went.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// The events that made it so: the last one, and before it the first one of a thing that came. None where it is only
    /// by the time that has passed.
    pub events: Vec<Cause>,
}

/// An event that changed something.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Its audit sequence.
    pub audit_sequence: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// What: the action, as in the audit trail.
    pub action: String,
    /// The actor.
    pub actor: Party,
    /// Why, where a reason was given and may be shown.
    pub reason: Option<String>,
    /// Whether a reason was given that is personal and not shown, or erased.
    pub reason_not_shown: bool,
}

/// Facts by their names.
type Facts = BTreeMap<String, Fact>;

/// The value of a fact. A personal one is its stored text, by which it is compared and which nobody is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fact {
    Plain(String),
    Personal(String),
}

impl Fact {
    fn shown(&self, personal: &'static str) -> String {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Personal(_) => personal.to_owned(),
        }
    }
}

/// The facts of the organization itself under one of its headings.
fn own(heading: &str, fold: &Fold) -> Facts {
    let plain = |(name, value): (String, String)| (name, Fact::Plain(value));
    let state = &fold.organization;
    let text = |text: &str| Value::from(text).to_string();
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    match heading {
        "organization" => {
            let roles = state.roles.0.iter();
            let roles =
                roles.map(|(name, role)| (format!("role {name}"), serde_json::to_string(role).unwrap_or_default()));
            let offer = state.ownership_offer.as_ref().map(|offer| offer.user_id.to_string());
            let facts = [
                ("name", text(&state.name)),
                ("slug", state.slug.clone()),
                ("external id", state.external_id.as_deref().map_or("none".to_owned(), text)),
                ("verification", shown(state.status.verification)),
                ("lifecycle", shown(state.status.lifecycle)),
                ("plan", state.plan.clone()),
                ("ownership offered to", offer.unwrap_or_else(|| "nobody".to_owned())),
                ("purged at", state.purge_at.map_or("never".to_owned(), time)),
                ("legal hold since", state.legal_hold.as_ref().map_or("none".to_owned(), |hold| time(hold.since))),
            ];
            let contact = match &state.contact_email {
                None => Fact::Plain("none".to_owned()),
                Some(address) => Fact::Personal(serde_json::to_string(address).unwrap_or_default()),
            };
            let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value));
            facts.chain(roles).map(plain).chain([(CONTACT.to_owned(), contact)]).collect()
        }
        "settings" => state.settings.iter().map(|(name, value)| (name.clone(), value.to_string())).map(plain).collect(),
        _ => {
            let tallies = fold.tallies.iter().filter(|(name, _)| aggregates::limits().any(|limit| limit.name == *name));
            let facts = tallies.flat_map(|(name, tally)| {
                let maximum = tally.maximum.map_or("none".to_owned(), |maximum| maximum.to_string());
                [(format!("{name}, used"), tally.used.to_string()), (format!("{name}, maximum"), maximum)]
            });
            facts.map(plain).collect()
        }
    }
}

/// The facts of a thing, if it is there and is shown.
fn of_stream(fold: &Fold, stream: &StreamId, moment: DateTime<Utc>) -> Option<Facts> {
    let facts = fold.part(stream)?.state.facts(moment).into_iter();
    Some(facts.map(|(name, value)| (name.to_owned(), Fact::Plain(value))).collect())
}

/// What stands under a heading: each thing with its facts, by when it began and by id, so that they keep their order from
/// one point to the next.
fn under(heading: &str, Snapshot { moment, fold, .. }: &Snapshot) -> BTreeMap<(u64, String), Facts> {
    if OWN_HEADINGS.contains(&heading) {
        return BTreeMap::from([((0, String::new()), own(heading, fold))]);
    }
    let parts = fold.under(heading);
    let facts = parts
        .filter_map(|(stream, part)| Some(((part.begun, stream.id().to_owned()), of_stream(fold, stream, *moment)?)));
    facts.collect()
}

/// The audit sequences of the first and the last event that touched a fact (of a thing as a whole, without its name).
type Touched = HashMap<(&'static str, String, Option<String>), (u64, u64)>;

/// The changes from one point to a later one.
pub async fn diff(log: &Log, from: &Snapshot, to: &Snapshot, personal: bool) -> Result<Diff, LogError> {
    let touched = walk(log, from, to).await?;
    let mut changes = vec![];
    for heading in OWN_HEADINGS.into_iter().chain(resource::headings()) {
        changes.extend(changes_under(heading, &under(heading, from), &under(heading, to)));
    }
    let sequences = |change: &Change| {
        let (first, last) =
            touched.get(&(change.heading, change.id.clone().unwrap_or_default(), change.fact.clone())).copied()?;
        Some(if change.kind == Kind::Added && change.fact.is_none() { (first, last) } else { (last, last) })
    };
    let wanted: BTreeSet<u64> = changes.iter().filter_map(sequences).flat_map(|(first, last)| [first, last]).collect();
    let events = events(log, to, &wanted).await?;
    let token_names = token_names(log, events.values()).await?;
    let names = match personal {
        false => Names::of_tokens(token_names),
        true => {
            let actors = events.values().filter_map(|event| user_of(&event.origin.actor));
            let members = [from, to].into_iter().flat_map(|point| point.fold.of::<Membership>());
            let members = members.filter_map(|(_, part)| Membership::of(&part.state)?.user_id.clone());
            let people = actors.map(str::to_owned).chain(members.map(|id| id.to_string())).collect();
            Names::read(log, &people, token_names, to.moment.max(to.fold.recorded_at)).await?
        }
    };
    for change in &mut changes {
        let causes: BTreeSet<u64> = sequences(change).into_iter().flat_map(|(first, last)| [first, last]).collect();
        change.events = causes.iter().filter_map(|number| Some(cause(events.get(number)?, &names, personal))).collect();
    }
    if personal {
        name_people(log, &mut changes, (from, to), &names).await?;
        show_contact(&mut changes, contact_events(log, from, to).await?);
    }
    let point =
        |snapshot: &Snapshot| Point { audit_sequence: snapshot.fold.audit_sequence, at: snapshot.fold.recorded_at };
    Ok(Diff { format: FORMAT, organization: to.id.to_string(), from: point(from), to: point(to), changes })
}

/// Folds what lies between, and says of each fact which events changed it.
async fn walk(log: &Log, from: &Snapshot, to: &Snapshot) -> Result<Touched, LogError> {
    let mut touched = Touched::new();
    let mut fold = Fold::clone(&from.fold);
    let mut own_facts = OWN_HEADINGS.map(|heading| own(heading, &fold));
    while fold.audit_sequence < to.fold.audit_sequence {
        for row in next_events(log, &to.id, fold.audit_sequence, to.fold.audit_sequence).await? {
            let (stream, event) = (Reader::stream(&row)?, log.reader().parse(&row)?);
            let of_organization = matches!(event, Event::Organization(_));
            let before = of_stream(&fold, &stream, to.moment);
            fold.follow(&row, event)?;
            let number = fold.audit_sequence;
            for (heading, facts) in OWN_HEADINGS.into_iter().zip(&mut own_facts) {
                // Profile and settings are changed by the organization's own events only.
                if of_organization || heading == "limits" {
                    let after = own(heading, &fold);
                    touch(&mut touched, (heading, ""), (Some(facts), Some(&after)), number);
                    *facts = after;
                }
            }
            if let Some(heading) = stream.heading() {
                let after = of_stream(&fold, &stream, to.moment);
                touch(&mut touched, (heading, stream.id()), (before.as_ref(), after.as_ref()), number);
            }
        }
    }
    Ok(touched)
}

/// Notes which facts an event changed.
fn touch(
    touched: &mut Touched,
    (heading, id): (&'static str, &str),
    (old, new): (Option<&Facts>, Option<&Facts>),
    number: u64,
) {
    let mut note = |fact: Option<&String>| {
        let key = (heading, id.to_owned(), fact.cloned());
        touched.entry(key).and_modify(|(_, last)| *last = number).or_insert((number, number));
    };
    if old != new {
        note(None);
    }
    let names: BTreeSet<&String> = [old, new].into_iter().flatten().flat_map(Facts::keys).collect();
    let value = |facts: Option<&Facts>, name: &String| facts.and_then(|facts| facts.get(name)).cloned();
    for name in names.into_iter().filter(|name| value(old, name) != value(new, name)) {
        note(Some(name));
    }
}

fn changes_under(
    heading: &'static str,
    old: &BTreeMap<(u64, String), Facts>,
    new: &BTreeMap<(u64, String), Facts>,
) -> Vec<Change> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut changes = vec![];
    for key @ (_, id) in keys {
        let thing = (!id.is_empty()).then(|| id.clone());
        let change = |kind, fact: Option<&String>| Change {
            heading,
            kind,
            id: thing.clone(),
            person: None,
            fact: fact.cloned(),
            from: None,
            to: None,
            facts: BTreeMap::new(),
            events: vec![],
        };
        let whole = |facts: &Facts| facts.iter().map(|(name, fact)| (name.clone(), fact.shown(NOT_SHOWN))).collect();
        match (old.get(key), new.get(key)) {
            (None, Some(facts)) if thing.is_some() => {
                changes.push(Change { facts: whole(facts), ..change(Kind::Added, None) });
            }
            (Some(facts), None) if thing.is_some() => {
                changes.push(Change { facts: whole(facts), ..change(Kind::Removed, None) });
            }
            (old, new) => {
                let names: BTreeSet<&String> = [old, new].into_iter().flatten().flat_map(Facts::keys).collect();
                for name in names {
                    let value = |facts: Option<&Facts>| facts.and_then(|facts| facts.get(name)).cloned();
                    let (old, new) = (value(old), value(new));
                    let kind = match (&old, &new) {
                        (Some(old), Some(new)) if old == new => continue,
                        (None, _) => Kind::Added,
                        (_, None) => Kind::Removed,
                        (Some(_), Some(_)) => Kind::Changed,
                    };
                    let from = old.map(|fact| fact.shown(NOT_SHOWN));
                    let to = new.map(|fact| fact.shown(CHANGED));
                    changes.push(Change { from, to, ..change(kind, Some(name)) });
                }
            }
        }
    }
    changes
}

fn user_of(actor: &Actor) -> Option<&str> {
    match actor {
        Actor::User(id) | Actor::Operator(id) => Some(id.as_ref()),
        Actor::Token(_) | Actor::System => None,
    }
}

/// The events of these numbers, with what is personal opened.
async fn events(log: &Log, of: &Snapshot, numbers: &BTreeSet<u64>) -> Result<BTreeMap<u64, Recorded>, LogError> {
    let statement = format!("SELECT {COLUMNS} FROM events WHERE organization_id = $1 AND audit_sequence = ANY($2)");
    let numbers: Vec<i64> = numbers.iter().map(|number| number.cast_signed()).collect();
    let mut found = BTreeMap::new();
    for numbers in numbers.chunks(EVENTS_AT_ONCE) {
        let query = sqlx::query_as(&statement).bind(of.id.as_ref()).bind(numbers);
        let rows: Vec<StoredEvent> = query.fetch_all(log.pool()).await?;
        let read = log.reader().read_each(&rows, log.keys()).await?;
        found.extend(read.into_iter().flatten().map(|event| (event.audit_sequence.unwrap_or_default(), event)));
    }
    Ok(found)
}

/// The names of the tokens among these actors; they are not personal.
async fn token_names<'a>(
    log: &Log,
    events: impl Iterator<Item = &'a Recorded>,
) -> Result<HashMap<String, String>, LogError> {
    let tokens = events.filter_map(|event| match &event.origin.actor {
        Actor::Token(id) => Some(id.to_string()),
        Actor::User(_) | Actor::Operator(_) | Actor::System => None,
    });
    let tokens: Vec<String> = tokens.collect::<BTreeSet<_>>().into_iter().collect();
    let statement = format!(
        "SELECT {COLUMNS} FROM events WHERE aggregate_type = 'ApiToken' AND aggregate_id = ANY($1) AND sequence = 1"
    );
    let mut names = HashMap::new();
    for tokens in tokens.chunks(EVENTS_AT_ONCE) {
        let rows: Vec<StoredEvent> = sqlx::query_as(&statement).bind(tokens).fetch_all(log.pool()).await?;
        for row in &rows {
            if let Event::ApiToken(ApiTokenEvent::TokenCreated { name, .. }) = log.reader().parse(row)? {
                names.insert(row.aggregate_id.clone(), name);
            }
        }
    }
    Ok(names)
}

fn cause(event: &Recorded, names: &Names, personal: bool) -> Cause {
    let mut sealed = false;
    event.event.clone().visit_personal(&mut |field, datum| {
        sealed |= field == "reason" && (!personal || datum.value().is_none());
    });
    let reason = super::data::data(event).remove("reason").filter(|_| !sealed);
    Cause {
        audit_sequence: event.audit_sequence.unwrap_or_default(),
        at: event.recorded_at,
        action: event.event.descriptor().action(),
        actor: names.actor(&event.origin.actor),
        reason: reason.and_then(|reason| reason.as_str().map(str::to_owned)),
        reason_not_shown: sealed,
    }
}

/// Says of members and invitations who they are.
async fn name_people(
    log: &Log,
    changes: &mut [Change],
    (from, to): (&Snapshot, &Snapshot),
    names: &Names,
) -> Result<(), LogError> {
    let ids: BTreeSet<String> = changes.iter().filter_map(|change| change.id.clone()).collect();
    let mut people: HashMap<String, String> = HashMap::new();
    for point in [from, to] {
        for (id, part) in point.fold.of::<Membership>().filter(|(id, _)| ids.contains(id.as_ref())) {
            let user = Membership::of(&part.state).and_then(|member| member.user_id.clone());
            people.extend(user.map(|user| (id.to_string(), names.user(user.as_ref()).label())));
        }
        let mut invitations = point.fold.all::<Invitation>(|invitation: &Invitation| {
            invitation.id.as_ref().is_some_and(|id| ids.contains(id.as_ref()))
        });
        emails(log, &mut invitations).await?;
        people.extend(invitations.iter().filter_map(|(id, part)| {
            let state: &Arc<Invitation> = &part.state;
            Some((id.to_string(), readable(&state.email)?.to_owned()))
        }));
    }
    for change in changes {
        change.person = change.id.as_ref().and_then(|id| people.get(id).cloned());
    }
    Ok(())
}

/// The first and the last event between that changed the contact address.
async fn contact_events(log: &Log, from: &Snapshot, to: &Snapshot) -> Result<Vec<Recorded>, LogError> {
    let statement = format!(
        "(SELECT {COLUMNS} FROM events WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3
          AND event_type = 'OrgContactChanged' ORDER BY audit_sequence LIMIT 1)
         UNION ALL
         (SELECT {COLUMNS} FROM events WHERE organization_id = $1 AND audit_sequence > $2 AND audit_sequence <= $3
          AND event_type = 'OrgContactChanged' ORDER BY audit_sequence DESC LIMIT 1)"
    );
    let query = sqlx::query_as(&statement).bind(to.id.as_ref()).bind(from.fold.audit_sequence.cast_signed());
    let rows: Vec<StoredEvent> = query.bind(to.fold.audit_sequence.cast_signed()).fetch_all(log.pool()).await?;
    log.reader().read(rows, log.keys()).await
}

fn show_contact(changes: &mut [Change], events: Vec<Recorded>) {
    let text = |address: Option<&Personal>| match address {
        None => "none".to_owned(),
        Some(address) => address.value().unwrap_or("(erased)").to_owned(),
    };
    let Some(change) = changes.iter_mut().find(|change| change.fact.as_deref() == Some(CONTACT)) else { return };
    if let Some(Event::Organization(OrganizationEvent::OrgContactChanged { previous_contact_email, .. })) =
        events.first().map(|event| &event.event)
    {
        change.from = Some(text(previous_contact_email.as_ref()));
    }
    if let Some(Event::Organization(OrganizationEvent::OrgContactChanged { contact_email, .. })) =
        events.last().map(|event| &event.event)
    {
        change.to = Some(text(contact_email.as_ref()));
    }
}

impl Diff {
    /// The difference for a terminal.
    pub fn text(&self) -> String {
        let point = |point: &Point| {
            format!("{} ({})", point.audit_sequence, point.at.to_rfc3339_opts(SecondsFormat::Secs, true))
        };
        let mut text = format!("{} from {} to {}\n", self.organization, point(&self.from), point(&self.to));
        if self.changes.is_empty() {
            text.push_str("nothing changed\n");
        }
        let mut heading = "";
        for change in &self.changes {
            if change.heading != heading {
                heading = change.heading;
                text.push_str(&format!("{heading}\n"));
            }
            text.push_str(&format!("  {}\n", super::report::text::clean(&change.line())));
            for cause in &change.events {
                text.push_str(&format!("      {}\n", super::report::text::clean(&cause.line())));
            }
            if change.events.is_empty() {
                text.push_str("      by the time that has passed\n");
            }
        }
        text
    }
}

impl Change {
    fn line(&self) -> String {
        let sign = match self.kind {
            Kind::Added => '+',
            Kind::Removed => '-',
            Kind::Changed => '~',
        };
        let person = self.person.as_ref().map_or(String::new(), |person| format!(" ({person})"));
        let id = self.id.as_ref().map(|id| format!("{id}{person}: ")).unwrap_or_default();
        let Some(fact) = &self.fact else {
            let facts: Vec<String> = self.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            return format!("{sign} {id}{}", facts.join("; "));
        };
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => format!("{sign} {id}{fact}: {from} → {to}"),
            (from, to) => format!("{sign} {id}{fact}: {}", to.as_ref().or(from.as_ref()).map_or("", String::as_str)),
        }
    }
}

impl Cause {
    fn line(&self) -> String {
        let Self { audit_sequence, at, action, actor, reason, reason_not_shown } = self;
        let reason = match (reason, reason_not_shown) {
            (Some(reason), _) => format!(": {reason}"),
            (None, true) => ": (a reason that is not shown)".to_owned(),
            (None, false) => String::new(),
        };
        let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!("event {audit_sequence}, {at}, {action} by {}{reason}", actor.label())
    }
}
