//! What names a person in texts that others wrote, and where such texts stay.
//!
//! A reason about somebody is sealed under that person's key. One about somebody else, an organization or a project may
//! name the person all the same, and stays readable: nobody but its readers knows what it says. So an erasure looks for
//! the names and addresses that it is about to destroy, and records which events an operator has to look at.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use aggregates::ids::{EventId, OrganizationId};
use aggregates::text::{email, email_key};
use aggregates::user::UserEvent;
use aggregates::{Digest, Erasure, Event, Personal, Recorded, Refusal};
use serde_json::Value;

use crate::commands::invitations::email_claim;
use crate::log::{KeyRing, Log, LogError};

/// How many addresses, names and ids of a person are remembered, each.
const REMEMBERED_MAX: usize = 100;
/// A shorter word of a name says nothing.
const WORD_CHARS_MIN: usize = 3;
/// A shorter id at an issuer is a number that may stand for anything.
const SUBJECT_BYTES_MIN: usize = 8;
/// How many events are named that stay.
const NAMED_MAX: usize = 100;
/// How many events are looked at for their reasons, in how many at a time, and for how long at most.
const LOOKED_AT_MAX: u64 = 500_000;
const LOOKED_AT_ONCE: u64 = 5_000;
const LOOK_MAX: Duration = Duration::from_secs(3);

/// What can be read of a person.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub addresses: Vec<String>,
    names: Vec<String>,
    /// The ids at issuers, which may be addresses.
    subjects: Vec<String>,
}

impl Known {
    /// Of somebody of whom there is one address.
    pub fn at(address: Option<&str>) -> Self {
        Self { addresses: address.map(str::to_owned).into_iter().collect(), ..Self::default() }
    }

    /// What the log says of a user, up to this version; the newest first.
    pub fn of(history: &[Recorded], version: u64) -> Self {
        let mut known = Self::default();
        for recorded in history.iter().filter(|recorded| recorded.sequence <= version).rev() {
            let Event::User(event) = &recorded.event else { continue };
            match event {
                UserEvent::UserRegistered { subject, email, display_name, .. } => {
                    remember(&mut known.addresses, email.as_ref());
                    remember(&mut known.names, display_name.as_ref());
                    remember(&mut known.subjects, Some(subject));
                }
                UserEvent::UserProfileChanged { email, display_name, .. } => {
                    remember(&mut known.addresses, email.as_ref());
                    remember(&mut known.names, display_name.as_ref());
                }
                UserEvent::UserHeld { .. }
                | UserEvent::UserApproved { .. }
                | UserEvent::UserRevoked { .. }
                | UserEvent::UserReinstated { .. }
                | UserEvent::UserErased { .. } => {}
            }
        }
        known
    }

    /// The addresses as keyed hashes.
    pub fn claims(&self, keys: &KeyRing) -> Vec<Digest> {
        self.addresses.iter().map(|address| email_claim(keys, address)).collect()
    }

    /// What in this text names the person: an address or id, the name, or a word of the name.
    fn found_in<'a>(&'a self, text: &'a str) -> Option<&'a str> {
        let lower = text.to_lowercase();
        // A name of one word is looked for as a word, for it is part of others.
        let names = self.names.iter().filter(|name| words(name).count() > 1);
        let subjects = self.subjects.iter().filter(|subject| subject.len() >= SUBJECT_BYTES_MIN);
        let mut whole = self.addresses.iter().chain(names).chain(subjects);
        if let Some(known) = whole.find(|known| lower.contains(&known.to_lowercase())) {
            return Some(known);
        }
        let keys: BTreeSet<String> = self.addresses.iter().map(|address| email_key(address)).collect();
        if let Some(address) = addresses_in(text).find(|address| keys.contains(&email_key(address))) {
            return Some(address);
        }
        let of_names: HashSet<String> = self.names.iter().flat_map(|name| words(name)).map(str::to_lowercase).collect();
        words(text).find(|word| of_names.contains(&word.to_lowercase()))
    }
}

fn remember(list: &mut Vec<String>, personal: Option<&Personal>) {
    if let Some(text) = personal.and_then(Personal::value)
        && list.len() < REMEMBERED_MAX
        && !list.iter().any(|known| known == text)
    {
        list.push(text.to_owned());
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() >= WORD_CHARS_MIN)
}

/// What looks like an e-mail address in a text.
fn addresses_in(text: &str) -> impl Iterator<Item = &str> {
    let separates =
        |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '(' | ')' | '[' | ']' | ',' | ';' | ':' | '"');
    let words = text.split(separates).map(|word| word.trim_matches(['.', '\'', '!', '?']));
    words.filter(|word| word.contains('@') && email("reason", word).is_ok())
}

/// Refuses a reason that names the person: it stays when everything else about them goes. What is found is told, for the
/// operator has just written it.
pub(super) fn names_nobody(reason: &str, known: &Known) -> Result<(), Refusal> {
    let found = known.found_in(reason).or_else(|| addresses_in(reason).next());
    let Some(found) = found else { return Ok(()) };
    Err(Refusal::input(
        "reason",
        format!(
            "reason holds {found:?}, and it stays when everything else about the person goes: say why without names and \
             addresses, such as by the number of a ticket"
        ),
    ))
}

/// Looks where the person is named who is about to be erased: in the reasons in these organizations' trails and in the
/// installation's, the newest first. What is sealed under one of the keys that `goes` goes with them.
pub(super) async fn look(
    log: &Log,
    known: &Known,
    places: &[OrganizationId],
    goes: impl Fn(&str) -> bool,
) -> Result<Erasure, LogError> {
    let (began, mut left, mut found, mut more) = (Instant::now(), LOOKED_AT_MAX, vec![], false);
    'places: for place in std::iter::once(None).chain(places.iter().map(Some)) {
        let mut end = log.newest_number(place).await?;
        while end > 0 {
            if left == 0 || began.elapsed() > LOOK_MAX {
                more = true;
                break 'places;
            }
            let begin = end.saturating_sub(LOOKED_AT_ONCE);
            for recorded in log.with_reason(place, begin, end).await?.iter().rev() {
                if !names(recorded, known, &goes) {
                    continue;
                }
                if found.len() == NAMED_MAX {
                    more = true;
                    break 'places;
                }
                found.push(recorded.id.clone());
            }
            (left, end) = (left.saturating_sub(end - begin), begin);
        }
    }
    Ok(Erasure { named_in: Some(found), named_in_more: Some(more), ..Erasure::default() })
}

/// Whether this event's reason names the person, and stays.
fn names(recorded: &Recorded, known: &Known, goes: impl Fn(&str) -> bool) -> bool {
    let event = serde_json::to_value(&recorded.event).unwrap_or_default();
    let reason = &event[recorded.event.descriptor().name]["reason"];
    match reason {
        Value::String(text) => known.found_in(text).is_some(),
        Value::Object(personal) => {
            let text = |member| personal.get(member).and_then(Value::as_str);
            let stays = text("of").is_some_and(|of| !goes(of));
            stays && text("value").is_some_and(|text| known.found_in(text).is_some())
        }
        _ => false,
    }
}

/// Ids of events that the event of an erasure names.
pub fn named_in(events: &[Recorded]) -> (Vec<EventId>, bool) {
    use aggregates::invitation::InvitationEvent;
    let named = events.iter().find_map(|recorded| match &recorded.event {
        Event::User(UserEvent::UserErased { named_in, named_in_more, .. })
        | Event::Invitation(InvitationEvent::InviteeErased { named_in, named_in_more, .. }) => {
            Some((named_in.clone().unwrap_or_default(), named_in_more.unwrap_or_default()))
        }
        _ => None,
    });
    named.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ada() -> Known {
        Known {
            addresses: vec!["Ada.Lovelace@Analytical.example".into()],
            names: vec!["Augusta Ada King".into()],
            subjects: vec!["auth0|4711".into()],
        }
    }

    #[test]
    fn a_person_is_found_by_addresses_ids_names_and_words_of_names() {
        for (text, found) in [
            ("AUGUSTA ADA KING wrote", Some("Augusta Ada King")),
            ("a letter of ada's lawyer", Some("ada")),
            ("<ada.lovelace@ANALYTICAL.example>, twice", Some("Ada.Lovelace@Analytical.example")),
            ("was auth0|4711 before", Some("auth0|4711")),
            ("an adage about canada and kings", None),
            ("", None),
        ] {
            assert_eq!(ada().found_in(text), found, "{text}");
        }
        let other = Known::at(Some("ada@bücher.example"));
        assert_eq!(other.found_in("from ada@xn--bcher-kva.example."), Some("ada@xn--bcher-kva.example"));
    }

    #[test]
    fn the_reason_of_an_erasure_holds_neither_the_person_nor_any_address() {
        for text in ["Ada asked", "they wrote from somebody@else.example.", "(x@y.example)"] {
            let refused = names_nobody(text, &ada()).unwrap_err().to_string();
            assert!(refused.contains("stays when everything else"), "{refused}");
        }
        names_nobody("ticket 4711, @ the desk", &ada()).unwrap();
    }
}
