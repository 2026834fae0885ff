//! Between an event as the program knows it and the row of `events` that holds it.

use std::collections::HashSet;

use aggregates::ids::{EventId, OrganizationId};
use aggregates::{Actor, Effect, Event, Origin, Recorded, StreamId};
use chrono::{DateTime, Utc};
use cqrs_es::persist::EventUpcaster;
use uuid::Uuid;

use super::keys::{KeyRing, Keys, open_disclosed};
use super::{Log, LogError};

/// A row of `events`.
#[derive(Debug, Clone, sqlx::FromRow, serde::Deserialize)]
#[allow(missing_docs)]
pub struct StoredEvent {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub sequence: i64,
    pub event_type: String,
    pub event_version: String,
    pub payload: String,
    pub partition: i16,
    pub offset: i64,
    pub organization_id: Option<String>,
    pub audit_sequence: Option<i64>,
    pub event_id: String,
    pub command_id: Uuid,
    pub actor: String,
    pub on_behalf_of: Option<String>,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    pub correlation_id: Uuid,
    pub causation_id: Option<String>,
    pub recorded_at: DateTime<Utc>,
}

/// The columns of [`StoredEvent`], for statements that are put together at run time.
pub const COLUMNS: &str = r#"aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text AS payload,
    partition, "offset", organization_id, audit_sequence, event_id, command_id, actor, on_behalf_of, ip, user_agent,
    request_id, correlation_id, causation_id, recorded_at"#;

/// An event that is about to be appended.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// What happened, readable.
    pub event: Event,
    pub(super) payload: String,
    pub(super) effects: Vec<Effect>,
}

/// How an event came about, sealed.
#[derive(Debug, Clone)]
pub(super) struct StoredOrigin {
    pub origin: Origin,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
}

/// For where a personal field of an event is sealed.
pub fn place(event: &EventId, field: &str) -> String {
    format!("{event}/{field}")
}

impl NewEvent {
    /// Seals `event` under `keys` and serialises it, once.
    pub(super) fn seal(id: EventId, event: Event, keys: &Keys) -> Result<Self, LogError> {
        let mut sealed = event.clone();
        sealed.visit_personal(&mut |field, personal| keys.seal_field(&place(&id, field), personal));
        let payload = serde_json::to_string(&sealed).map_err(|error| LogError::Corrupt(error.to_string()))?;
        let effects = event.effects();
        Ok(Self { id, event, payload, effects })
    }
}

/// Whose data is in `event`.
pub(super) fn subjects(event: &mut Event, subjects: &mut Vec<String>) {
    event.visit_personal(&mut |_, personal| {
        if !subjects.iter().any(|known| known == personal.of()) {
            subjects.push(personal.of().to_owned());
        }
    });
}

/// Seals the request columns. They are the same for all events of a command, so their place is the command.
pub(super) fn seal_origin(origin: Origin, keys: &Keys) -> StoredOrigin {
    let seal = |column: &str, value: &Option<String>| {
        keys.seal(subject_of_origin(&origin)?, &format!("{}/{column}", origin.command_id), value.as_deref()?)
    };
    let (ip, user_agent) = (seal("ip", &origin.ip), seal("user_agent", &origin.user_agent));
    StoredOrigin { origin, ip, user_agent }
}

/// Whose address and program the request columns are: the actor's, under the actor's own key.
pub(super) fn subject_of_origin(origin: &Origin) -> Option<&str> {
    origin.actor.id()
}

/// Reads stored events: parses them, brings old versions up to date, opens what is personal.
pub struct Reader {
    upcasters: Vec<Box<dyn EventUpcaster>>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { upcasters: aggregates::upcasters() }
    }
}

impl Reader {
    /// The stream of a row.
    pub fn stream(row: &StoredEvent) -> Result<StreamId, LogError> {
        StreamId::from_stored(&row.aggregate_type, &row.aggregate_id)
            .ok_or_else(|| LogError::Corrupt(format!("{} is no stream of {}", row.aggregate_id, row.aggregate_type)))
    }

    /// The event of a row, as it is stored: personal data sealed.
    pub fn parse(&self, row: &StoredEvent) -> Result<Event, LogError> {
        let stream = Self::stream(row)?;
        Event::from_stored(&stream, &row.event_type, &row.event_version, &row.payload, &self.upcasters)
            .map_err(|error| LogError::Corrupt(format!("{}: {error}", row.event_id)))
    }

    /// The rows as events, in order, with what is personal opened.
    pub async fn read(&self, rows: Vec<StoredEvent>, keys: &KeyRing) -> Result<Vec<Recorded>, LogError> {
        let mut recorded = rows.iter().map(|row| self.recorded(row)).collect::<Result<Vec<_>, _>>()?;
        open_all(recorded.iter_mut(), keys).await?;
        Ok(recorded)
    }

    /// The rows as events, in order, with what is personal opened; those that cannot be read, each by itself.
    pub async fn read_each(
        &self,
        rows: &[StoredEvent],
        keys: &KeyRing,
    ) -> Result<Vec<Result<Recorded, LogError>>, LogError> {
        let mut read: Vec<_> = rows.iter().map(|row| self.recorded(row)).collect();
        match open_all(read.iter_mut().flatten(), keys).await {
            // One key that does not fit must not hide what the others open.
            Err(LogError::Cipher | LogError::MasterKey(_)) => {
                for item in &mut read {
                    let opened = match item {
                        Ok(recorded) => open_all(std::iter::once(recorded), keys).await,
                        Err(_) => Ok(()),
                    };
                    match opened {
                        Err(error @ (LogError::Cipher | LogError::MasterKey(_))) => *item = Err(error),
                        opened => opened?,
                    }
                }
            }
            opened => opened?,
        }
        Ok(read)
    }

    fn recorded(&self, row: &StoredEvent) -> Result<Recorded, LogError> {
        let corrupt = |reason: String| LogError::Corrupt(format!("{}: {reason}", row.event_id));
        let event = self.parse(row)?;
        let actor = |text: &str| text.parse::<Actor>().map_err(corrupt);
        Ok(Recorded {
            id: row.event_id.parse().map_err(|e: aggregates::ids::InvalidId| corrupt(e.to_string()))?,
            stream: Self::stream(row)?,
            sequence: row.sequence.unsigned_abs(),
            partition: row.partition,
            offset: row.offset,
            organization: row.organization_id.as_deref().and_then(|id| id.parse::<OrganizationId>().ok()),
            audit_sequence: row.audit_sequence.map(i64::unsigned_abs),
            recorded_at: row.recorded_at,
            origin: Origin {
                command_id: row.command_id,
                actor: actor(&row.actor)?,
                on_behalf_of: row.on_behalf_of.as_deref().map(actor).transpose()?,
                ip: row.ip.clone(),
                user_agent: row.user_agent.clone(),
                request_id: row.request_id.clone(),
                correlation_id: row.correlation_id,
                causation_id: row.causation_id.as_deref().and_then(|id| id.parse().ok()),
            },
            event,
        })
    }
}

/// A personal datum of a stored event, with the key that opens it there and nothing else.
#[derive(Debug, Clone)]
pub struct Datum {
    /// Where it stands: `payload.email`, `ip`, `userAgent`.
    pub place: String,
    /// The datum.
    pub value: String,
    /// The key.
    pub key: [u8; 32],
}

/// What is sealed in a stored event.
struct SealedDatum {
    shown: String,
    of: String,
    place: String,
    text: String,
}

impl Log {
    /// What is personal in each of these rows and not erased. Rows that cannot be read open nothing.
    pub async fn disclose(&self, rows: &[StoredEvent]) -> Result<Vec<Vec<Datum>>, LogError> {
        let sealed: Vec<Vec<SealedDatum>> = rows.iter().map(|row| self.reader.sealed(row)).collect();
        let keys = self.keys.find(sealed.iter().flatten().map(|datum| datum.of.as_str())).await?;
        let open = |datum: SealedDatum| {
            let key = keys.of_place(&datum.of, &datum.place)?;
            let value = open_disclosed(&key, &datum.place, &datum.text)?;
            Some(Datum { place: datum.shown, value, key })
        };
        Ok(sealed.into_iter().map(|data| data.into_iter().filter_map(open).collect()).collect())
    }
}

impl Reader {
    fn sealed(&self, row: &StoredEvent) -> Vec<SealedDatum> {
        let mut found = vec![];
        if let Ok(mut event) = self.parse(row) {
            event.visit_personal(&mut |field, personal| {
                let of = personal.of().to_owned();
                personal.open(|text| {
                    let place = format!("{}/{field}", row.event_id);
                    found.push(SealedDatum { shown: format!("payload.{field}"), of, place, text: text.to_owned() });
                    None
                });
            });
        }
        let actor: Option<Actor> = row.actor.parse().ok();
        let columns = [("ip", "ip", &row.ip), ("userAgent", "user_agent", &row.user_agent)];
        for (shown, column, sealed) in columns {
            if let (Some(of), Some(text)) = (actor.as_ref().and_then(Actor::id), sealed) {
                let place = format!("{}/{column}", row.command_id);
                found.push(SealedDatum { shown: shown.to_owned(), of: of.to_owned(), place, text: text.clone() });
            }
        }
        found
    }
}

/// Opens what is personal in these events.
async fn open_all<'a>(events: impl Iterator<Item = &'a mut Recorded>, keys: &KeyRing) -> Result<(), LogError> {
    let mut events: Vec<&mut Recorded> = events.collect();
    let mut people = vec![];
    let mut seen = HashSet::new();
    for item in &mut events {
        item.event.visit_personal(&mut |_, personal| {
            // What an upcaster made of plain text has no key.
            if personal.is_sealed() && !seen.contains(personal.of()) {
                seen.insert(personal.of().to_owned());
                people.push(personal.of().to_owned());
            }
        });
        if (item.origin.ip.is_some() || item.origin.user_agent.is_some())
            && let Some(actor) = subject_of_origin(&item.origin).filter(|actor| !seen.contains(*actor))
        {
            seen.insert(actor.to_owned());
            people.push(actor.to_owned());
        }
    }
    let keys = keys.find(people.iter().map(String::as_str)).await?;
    for item in events {
        open(item, &keys);
    }
    Ok(())
}

fn open(recorded: &mut Recorded, keys: &Keys) {
    let id = recorded.id.clone();
    recorded.event.visit_personal(&mut |field, personal| keys.open_field(&place(&id, field), personal));
    let origin = &mut recorded.origin;
    let subject = subject_of_origin(origin).map(str::to_owned);
    let open = |column: &str, sealed: Option<String>| {
        keys.open(subject.as_deref()?, &format!("{}/{column}", origin.command_id), &sealed?)
    };
    (origin.ip, origin.user_agent) = (open("ip", origin.ip.clone()), open("user_agent", origin.user_agent.clone()));
}
