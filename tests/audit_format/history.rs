//! A history that is the same in every run: events, keys that sign, and the bundles of them.

use std::collections::BTreeMap;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenancy::audit::access::Record;
use tenancy::audit::bundle::{AccessRecord, Disclosed, Event, FORMAT, Hashes, Header, Line, Signed, Text};
use tenancy::audit::cosignature::Cosigner;
use tenancy::audit::leaf::Leaf;
use tenancy::audit::merkle::{Frontier, Hash, complete_subtrees, inclusion_ranges, join, node_hash};
use tenancy::audit::note::{Checkpoint, Signer, sign};

pub const NAME: &str = "tenancy.example.com/audit";
pub const ORGANIZATION: &str = "org_01jqv8zk3me4wbhx0r5t6y7p2c";

/// What has to be escaped, and what looks as if it had to be.
pub const AWKWARD: &str = "\"quoted\" \\ / \u{8}\t\n\u{c}\r \u{1} \u{1f} \u{7f} \u{85} é \u{2028} 😀 <&>";

pub fn signer(name: &str, number: u8) -> Signer {
    Signer::new(name, SigningKey::from_bytes(&[number; 32])).unwrap()
}

/// The key that signs by itself, and the one that came later.
pub fn signers() -> [Signer; 2] {
    [signer(NAME, 1), signer(NAME, 2)]
}

/// Three witnesses.
pub fn witnesses() -> [Cosigner; 3] {
    [1, 2, 3].map(|number| {
        Cosigner::new(&format!("w{number}.example"), SigningKey::from_bytes(&[100 + number; 32])).unwrap()
    })
}

fn derived(of: &str) -> Hash {
    Sha256::digest(of).into()
}

/// The datum sealed for its place, with what discloses it.
fn seal(place: &str, value: &str) -> (String, Disclosed) {
    let key = derived(&format!("key of {place}"));
    let nonce: [u8; 12] = derived(&format!("nonce of {place}"))[..12].try_into().unwrap();
    let payload = Payload { msg: value.as_bytes(), aad: place.as_bytes() };
    let sealed = Aes256Gcm::new(&key.into()).encrypt(&Nonce::from(nonce), payload).unwrap();
    let sealed = URL_SAFE_NO_PAD.encode([&[2], &nonce[..], &sealed].concat());
    (sealed, Disclosed { value: value.to_owned(), key: Text(key) })
}

/// The event of this number. The second is of an invitation with everything that is personal; the third is of the same with
/// the person erased; the fourth needs escapes.
pub fn event(number: u64) -> Event {
    let id = |prefix: &str| format!("{prefix}_01jqv8zk3me4wbhx0r5t{number:06}");
    let (event_id, command_id) = (id("evt"), format!("0195d000-0000-7000-8000-{number:012}"));
    let mut personal = BTreeMap::new();
    let mut sealed = |shown: &str, place: String, value: &str| {
        let (text, disclosed) = seal(&place, value);
        if number != 3 {
            personal.insert(shown.to_owned(), disclosed);
        }
        text
    };
    let (mut ip, mut user_agent) = (None, None);
    let (aggregate_type, event_type, own): (_, _, Value) = match number {
        1 => ("Organization", "OrgCreated", json!({"name": "Acme", "slug": "acme"})),
        2 | 3 => {
            ip = Some(sealed("ip", format!("{command_id}/ip"), "203.0.113.7"));
            user_agent = Some(sealed("userAgent", format!("{command_id}/user_agent"), "curl/8"));
            let email = sealed("payload.email", format!("{event_id}/email"), "ada@example.com");
            let reason = sealed("payload.reason", format!("{event_id}/reason"), AWKWARD);
            let of = |sealed: String| json!({"of": id("inv"), "sealed": sealed});
            ("Invitation", "MemberInvited", json!({"email": of(email), "reason": of(reason), "roles": ["admin"]}))
        }
        4 => ("Project", "ProjectCreated", json!({"name": AWKWARD, "metadata": {"stars": 1.5, "empty": null}})),
        _ => ("Project", "ProjectRenamed", json!({"name": format!("p{number}")})),
    };
    let text = |text: &str| Some(text.to_owned());
    let columns = Leaf {
        aggregate_type: text(aggregate_type),
        aggregate_id: Some(id(&aggregate_type[..3].to_lowercase())),
        sequence: text("1"),
        event_type: text(event_type),
        event_version: text("1.0"),
        payload: Some(json!({event_type: own}).to_string()),
        metadata: text("{}"),
        organization_id: text(ORGANIZATION),
        audit_sequence: Some(number.to_string()),
        event_id: Some(event_id),
        command_id: Some(command_id.clone()),
        actor: text("user:usr_01jqv8zk3me4wbhx0r5t6y7p2d"),
        on_behalf_of: (number == 4).then(|| "user:usr_01jqv8zk3me4wbhx0r5t6y7p2e".to_owned()),
        ip,
        user_agent,
        request_id: (number < 3).then(|| id("req")),
        correlation_id: Some(command_id),
        causation_id: (number == 3).then(|| "evt_01jqv8zk3me4wbhx0r5t000002".to_owned()),
        recorded_at: Some(format!("2026-01-31T08:05:09.{number:06}Z")),
    };
    Event { columns, personal, proof: None }
}

/// The hashes of the first events.
pub fn hashes(count: u64) -> Vec<Hash> {
    (1..=count).map(|number| event(number).columns.hash()).collect()
}

fn root(leaves: &[Hash]) -> Hash {
    let mut tree = Frontier::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf, |_, _| {}));
    tree.root()
}

/// The checkpoint of so many events.
pub fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint { origin: format!("{NAME}/{ORGANIZATION}"), size, root: root(&hashes(size)) }
}

/// Its note, signed by the first key.
pub fn note(size: u64) -> String {
    sign(&checkpoint(size).to_string(), &signers()[..1])
}

fn perfect(leaves: &[Hash]) -> Hash {
    match leaves {
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(leaves.len() / 2);
            node_hash(&perfect(left), &perfect(right))
        }
    }
}

/// The roots of the complete subtrees of a range.
fn subtrees(leaves: &[Hash], range: (u64, u64)) -> Vec<Hash> {
    let place = |number: u64| usize::try_from(number).unwrap();
    complete_subtrees(range)
        .into_iter()
        .map(|(height, at)| perfect(&leaves[place(at)..place(at + (1 << height))]))
        .collect()
}

fn text(lines: Vec<Line>) -> String {
    lines.iter().map(|line| line.text().unwrap()).collect()
}

fn beginning(from: u64, to: u64, complete: bool, note: String) -> Vec<Line> {
    let before = if complete { subtrees(&hashes(from - 1), (0, from - 1)) } else { vec![] };
    let before = before.into_iter().map(Text).collect();
    let header = Header { format: FORMAT.into(), organization: ORGANIZATION.into(), from, to, complete, before };
    vec![Line::Header(header), Line::Checkpoint(Signed { note })]
}

/// All events of a range, in runs that end at multiples of `run`.
pub fn all_in_runs(from: u64, to: u64, run: u64, note: String) -> String {
    let mut lines = beginning(from, to, true, note);
    let mut first = from;
    while first <= to {
        let last = (first.div_ceil(run) * run).min(to);
        lines.extend((first..=last).map(|number| Line::Event(Box::new(event(number)))));
        let hashes = (first..=last).map(|number| Text(event(number).columns.hash())).collect();
        lines.push(Line::Hashes(Hashes { first, hashes }));
        first = last + 1;
    }
    lines.push(Line::End {});
    text(lines)
}

/// All events of a range.
pub fn all(from: u64, to: u64) -> String {
    all_in_runs(from, to, 256, note(to))
}

/// Some events, each with its proof.
pub fn some(numbers: &[u64], to: u64) -> String {
    let leaves = hashes(to);
    let mut lines = beginning(1, to, false, note(to));
    for number in numbers {
        let ranges = inclusion_ranges(number - 1, to).unwrap();
        let proof = ranges.iter().map(|range| Text(join(&subtrees(&leaves, *range)).unwrap())).collect();
        lines.push(Line::Event(Box::new(Event { proof: Some(proof), ..event(*number) })));
    }
    lines.push(Line::End {});
    text(lines)
}

/// The record of the access trail of this number: one, one with an address, the repetition of that, and one with an address that
/// is erased.
pub fn record(number: u64) -> AccessRecord {
    let text = |text: &str| Some(text.to_owned());
    let id = |number: u64| format!("acc_01jqv8zk3me4wbhx0r5t{number:06}");
    let (mut ip, mut personal) = (None, BTreeMap::new());
    if number == 2 || number == 4 {
        let (sealed, disclosed) = seal(&format!("{}/ip", id(number)), "192.0.2.7");
        ip = Some(sealed);
        personal.extend((number == 2).then(|| ("ip".to_owned(), disclosed)));
    }
    let is_repeat = number == 3;
    let of_record = |value: &str| text(value).filter(|_| !is_repeat);
    let columns = Record {
        part: text(if is_repeat { "repeat" } else { "record" }),
        id: Some(id(if is_repeat { 2 } else { number })),
        created_at: Some(format!("2026-01-31T08:05:09.{number:06}Z")),
        kind: of_record("REFUSED"),
        actor: of_record("user:usr_01jqv8zk3me4wbhx0r5t6y7p2e"),
        operation: of_record("createProject"),
        organization_id: of_record(ORGANIZATION).filter(|_| number != 4),
        reached_organization_id: of_record(ORGANIZATION).filter(|_| number == 4),
        target_id: of_record("prj_01jqv8zk3me4wbhx0r5t6y7p2f"),
        times: Some(number.to_string()),
        ip,
    };
    AccessRecord { columns, personal }
}

/// The records of a range of the access trail.
pub fn access(from: u64, to: u64) -> String {
    let leaves: Vec<Hash> = (1..=to).map(|number| record(number).columns.hash()).collect();
    let checkpoint = Checkpoint { origin: format!("{NAME}/access"), size: to, root: root(&leaves) };
    let before = subtrees(&leaves, (0, from - 1)).into_iter().map(Text).collect();
    let header = Header { format: FORMAT.into(), organization: "access".into(), from, to, complete: true, before };
    let note = sign(&checkpoint.to_string(), &signers()[..1]);
    let mut lines = vec![Line::Header(header), Line::Checkpoint(Signed { note })];
    lines.extend((from..=to).map(|number| Line::Record(Box::new(record(number)))));
    let hashes = (from..=to).map(|number| Text(record(number).columns.hash())).collect();
    lines.extend([Line::Hashes(Hashes { first: from, hashes }), Line::End {}]);
    text(lines)
}
