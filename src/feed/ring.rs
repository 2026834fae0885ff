//! The newest events of one partition, bounded, for everybody who follows it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Sizes;
use crate::log::StoredEvent;

/// What an event weighs without its payload, about.
const EVENT_BYTES: usize = 1024;

/// The newest events of one partition, dense by offset.
pub struct Ring {
    sizes: Sizes,
    held: Mutex<Held>,
    /// The offset of the last event, and a change for each page.
    head: watch::Sender<i64>,
}

struct Held {
    /// Events after this offset are here.
    floor: i64,
    events: VecDeque<Arc<StoredEvent>>,
    bytes: usize,
}

/// What follows a cursor.
#[derive(Debug)]
pub enum Next {
    /// Nothing yet.
    Nothing,
    /// More than is here: it has to be read from the log.
    Behind,
    /// Some of it.
    Events {
        /// Those that were asked for.
        events: Vec<Arc<StoredEvent>>,
        /// Everything up to this offset was looked at.
        until: i64,
        /// The last offset that is here.
        head: i64,
        /// The last one up to `head`, beyond `until` too, that decides whether the feed may go on.
        decisive: Option<i64>,
    },
}

fn weight(event: &StoredEvent) -> usize {
    EVENT_BYTES + event.payload.len()
}

impl Ring {
    /// Of what comes after this offset.
    pub fn new(head: i64, sizes: Sizes) -> Self {
        let held = Held { floor: head, events: VecDeque::new(), bytes: 0 };
        Self { sizes, held: Mutex::new(held), head: watch::channel(head).0 }
    }

    /// The last offset.
    pub fn head(&self) -> i64 {
        *self.head.borrow()
    }

    /// The last offset, and a change when there is more.
    pub fn heads(&self) -> watch::Receiver<i64> {
        self.head.subscribe()
    }

    /// Takes a page that follows, and lets go of what is too much.
    pub fn push(&self, page: Vec<StoredEvent>) {
        let mut held = self.held();
        for event in page {
            if event.offset != held.head() + 1 {
                tracing::error!(partition = event.partition, offset = event.offset, "the log has a gap");
                // Followers read across it by themselves, or not at all.
                (held.events, held.floor, held.bytes) = (VecDeque::new(), event.offset - 1, 0);
            }
            held.bytes += weight(&event);
            held.events.push_back(Arc::new(event));
            while held.events.len() > self.sizes.events || held.bytes > self.sizes.bytes {
                let Some(oldest) = held.events.pop_front() else { break };
                (held.floor, held.bytes) = (oldest.offset, held.bytes - weight(&oldest));
            }
        }
        self.head.send_replace(held.head());
    }

    /// Up to `limit` events of an organization after `cursor`, and whether any of its events here `decides` about the
    /// feed: also one beyond the limit, so that nobody is sent what came before their removal long after it.
    pub fn after(&self, cursor: i64, organization: &str, limit: usize, decides: impl Fn(&StoredEvent) -> bool) -> Next {
        let held = self.held();
        let head = held.head();
        if cursor >= head {
            return Next::Nothing;
        }
        let Ok(skip) = usize::try_from(cursor - held.floor) else { return Next::Behind };
        let own = held.events.iter().skip(skip).filter(|event| event.organization_id.as_deref() == Some(organization));
        let (mut events, mut until, mut decisive) = (vec![], head, None);
        for event in own {
            if events.len() < limit {
                events.push(event.clone());
                if events.len() == limit {
                    until = event.offset;
                }
            }
            if decides(event) {
                decisive = Some(event.offset);
            }
        }
        Next::Events { events, until, head, decisive }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn head(&self) -> i64 {
        self.events.back().map_or(self.floor, |event| event.offset)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn event(offset: i64, organization: &str) -> StoredEvent {
        StoredEvent {
            aggregate_type: "Project".to_owned(),
            aggregate_id: "prj".to_owned(),
            sequence: 1,
            event_type: "ProjectCreated".to_owned(),
            event_version: "1".to_owned(),
            payload: "{}".to_owned(),
            partition: 0,
            offset,
            organization_id: Some(organization.to_owned()),
            audit_sequence: Some(offset),
            event_id: String::new(),
            command_id: uuid::Uuid::nil(),
            actor: "system".to_owned(),
            on_behalf_of: None,
            ip: None,
            user_agent: None,
            request_id: None,
            correlation_id: uuid::Uuid::nil(),
            causation_id: None,
            recorded_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn offsets(next: Next) -> (Vec<i64>, i64, Option<i64>) {
        match next {
            Next::Events { events, until, decisive, .. } => {
                (events.iter().map(|event| event.offset).collect(), until, decisive)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_is_within_it_finds_the_rest_and_who_is_behind_is_told() {
        let ring = Ring::new(10, Sizes { events: 4, bytes: usize::MAX });
        assert!(matches!(ring.after(10, "a", 9, |_| false), Next::Nothing));
        assert!(matches!(ring.after(12, "a", 9, |_| false), Next::Nothing), "who has read further waits");
        ring.push((11..=16).map(|offset| event(offset, if offset % 2 == 0 { "a" } else { "b" })).collect());
        assert_eq!(ring.head(), 16);
        assert!(matches!(ring.after(11, "a", 9, |_| false), Next::Behind));
        assert_eq!(offsets(ring.after(12, "a", 9, |_| false)), (vec![14, 16], 16, None));
        assert_eq!(offsets(ring.after(15, "b", 9, |_| false)), (vec![], 16, None), "the cursor moves all the same");
        assert_eq!(offsets(ring.after(12, "a", 1, |event| event.offset == 16)), (vec![14], 14, Some(16)));
    }

    #[test]
    fn what_it_holds_is_bounded_in_bytes_too() {
        let ring = Ring::new(0, Sizes { events: 100, bytes: 3 * weight(&event(1, "a")) });
        ring.push((1..=10).map(|offset| event(offset, "a")).collect());
        assert!(matches!(ring.after(6, "a", 9, |_| false), Next::Behind));
        assert_eq!(offsets(ring.after(7, "a", 9, |_| false)), (vec![8, 9, 10], 10, None));
    }
}
