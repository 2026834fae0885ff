//! The committed test vectors: bundles, verifier keys, older checkpoints, and the verdict that is right of each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Once;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use tenancy::audit::bundle::Line;
use tenancy::audit::cosignature::Cosigner;
use tenancy::audit::merkle::{empty_root, leaf_hash};
use tenancy::audit::note::{Checkpoint, sign};

use crate::history::{
    NAME, ORGANIZATION, access, all, all_in_runs, checkpoint, event, note, record, signer, signers, some, witnesses,
};
use crate::{Case, judge, judge_in_python};

struct Vector {
    name: &'static str,
    accepted: bool,
    /// What it shows.
    about: &'static str,
    bundle: String,
    keys: Vec<String>,
    older: Option<(&'static str, String)>,
    witnesses: (Vec<String>, Option<usize>),
}

fn key(number: usize) -> String {
    signers()[number].verifier().to_string()
}

fn vector(accepted: bool, name: &'static str, about: &'static str, bundle: String) -> Vector {
    Vector { name, accepted, about, bundle, keys: vec![key(0)], older: None, witnesses: (vec![], None) }
}

fn good(name: &'static str, about: &'static str, bundle: String) -> Vector {
    vector(true, name, about, bundle)
}

fn bad(name: &'static str, about: &'static str, bundle: String) -> Vector {
    vector(false, name, about, bundle)
}

impl Vector {
    fn keys(self, keys: &[usize]) -> Self {
        Self { keys: keys.iter().map(|number| key(*number)).collect(), ..self }
    }

    fn named(self, key: &str) -> Self {
        Self { keys: vec![key.to_owned()], ..self }
    }

    fn witnessed(self, witnesses: &[String], quorum: Option<usize>) -> Self {
        Self { witnesses: (witnesses.to_vec(), quorum), ..self }
    }

    fn since(self, file: &'static str, older: String) -> Self {
        Self { older: Some((file, older)), ..self }
    }
}

/// The bundle with one thing in it written otherwise.
fn altered(bundle: &str, from: &str, to: &str) -> String {
    assert!(bundle.contains(from), "there is no {from} in {bundle}");
    bundle.replacen(from, to, 1)
}

/// The bundle with these lines in this order, counted from 1.
fn picked(bundle: &str, numbers: &[usize]) -> String {
    let lines: Vec<&str> = bundle.lines().collect();
    numbers.iter().map(|number| format!("{}\n", lines[number - 1])).collect()
}

/// The bundle under another note.
fn under(bundle: &str, note: &str) -> String {
    let lines: Vec<&str> = bundle.lines().collect();
    let line = json!({"note": note, "type": "checkpoint"});
    let line = format!("{{\"type\":\"checkpoint\",\"note\":{}}}", line["note"]);
    let lines = lines.iter().enumerate().map(|(at, text)| if at == 1 { &line } else { *text });
    lines.map(|line| format!("{line}\n")).collect()
}

/// The note of six events with more lines.
fn and(lines: &str) -> String {
    note(6) + lines
}

/// A signature line of these bytes.
fn signature(name: &str, bytes: &[u8]) -> String {
    format!("\u{2014} {name} {}\n", STANDARD.encode(bytes))
}

fn others(count: u8) -> String {
    (0..count).map(|number| signature(&format!("witness.example/{number}"), &[number; 68])).collect()
}

fn named(origin: &str) -> String {
    sign(&Checkpoint { origin: origin.into(), ..checkpoint(6) }.to_string(), &signers()[..1])
}

fn of_whole_bundles() -> Vec<Vector> {
    let six = all(1, 6);
    let rest = all(255, 258);
    vec![
        good(
            "all",
            "All events of a tree of six, in one run. The second has everything that is personal, the third the same erased, the fourth strings with every escape.",
            six.clone(),
        ),
        good("rest", "The events after 254: `before` has seven subtrees, and the first run ends at 256.", rest.clone()),
        good("none", "No events after the last: `from` is `to` + 1.", all(259, 258)),
        good("some", "Some events, each with its proof.", some(&[2, 4, 256, 258], 258)),
        good("some-none", "No events of some.", some(&[], 258)),
        good(
            "disclosed-less",
            "An entry is missing from `personal`, as that of an erased person: accepted, and nothing shows it.",
            {
                let entry = six.find("\"payload.email\":").unwrap();
                let end = six[entry..].find("},").unwrap();
                six[..entry].to_owned() + &six[entry + end + 2..]
            },
        ),
        bad(
            "payload",
            "A letter of a payload is altered.",
            altered(&six, "\\\"slug\\\":\\\"acme\\\"", "\\\"slug\\\":\\\"acne\\\""),
        ),
        bad("column", "A column is altered.", altered(&six, "08:05:09.000005Z", "08:05:09.000006Z")),
        bad(
            "column-null",
            "A column that is never null is null.",
            altered(&six, "\"metadata\":\"{}\"", "\"metadata\":null"),
        ),
        bad(
            "column-empty",
            "A missing value is an empty one.",
            altered(&six, "\"onBehalfOf\":null", "\"onBehalfOf\":\"\""),
        ),
        bad(
            "sequence-zero",
            "An audit sequence has a zero before it.",
            altered(&six, "\"auditSequence\":\"5\"", "\"auditSequence\":\"05\""),
        ),
        bad("missing", "An event is missing.", picked(&six, &[1, 2, 3, 4, 6, 7, 8, 9, 10])),
        bad("doubled", "An event is there twice.", picked(&six, &[1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10])),
        bad("swapped", "Two events have changed places.", picked(&six, &[1, 2, 3, 5, 4, 6, 7, 8, 9, 10])),
        bad("no-hashes", "The hashes of a run are missing.", picked(&six, &[1, 2, 3, 4, 5, 6, 7, 8, 10])),
        bad("hashes-twice", "The hashes of a run are there twice.", picked(&six, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10])),
        bad(
            "hashes-empty",
            "A line of no hashes.",
            altered(&six, "{\"type\":\"end\"}", "{\"type\":\"hashes\",\"first\":7,\"hashes\":[]}\n{\"type\":\"end\"}"),
        ),
        bad("hashes-first", "The hashes say another first event.", altered(&six, "\"first\":1", "\"first\":2")),
        bad(
            "hashes-altered",
            "A hash of a run is another, the events are whole.",
            altered(&six, &STANDARD.encode(event(5).columns.hash()), &STANDARD.encode([5; 32])),
        ),
        bad("runs-of-128", "Runs end at other multiples than those of 256.", all_in_runs(125, 130, 128, note(130))),
        bad("run-of-300", "A run goes past a multiple of 256.", all_in_runs(255, 258, 300, note(258))),
        bad("no-end", "The last line is missing.", picked(&six, &[1, 2, 3, 4, 5, 6, 7, 8, 9])),
        bad("end-cut", "The last newline is missing.", six.trim_end().to_owned()),
        bad("end-twice", "A line follows the end.", six.clone() + "{\"type\":\"end\"}\n"),
        bad("end-blank", "An empty line follows the end.", six.clone() + "\n"),
        bad("cut", "The last event and its hash are missing.", picked(&six, &[1, 2, 3, 4, 5, 6, 7, 10])),
        bad("header-twice", "The header is there twice.", picked(&six, &[1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])),
        bad("empty", "Nothing at all.", String::new()),
        bad("before-altered", "A subtree of what comes before is another.", {
            let start = rest.find("\"before\":[\"").unwrap() + 11;
            rest[..start].to_owned() + &STANDARD.encode([0; 32]) + &rest[start + 44..]
        }),
        bad("before-short", "A subtree of what comes before is missing.", {
            let start = rest.find("\"before\":[").unwrap() + 10;
            rest[..start].to_owned() + &rest[start + 47..]
        }),
        bad("from", "The header says an earlier beginning.", altered(&rest, "\"from\":255", "\"from\":254")),
        bad("to", "The header says an earlier end.", altered(&six, "\"to\":6", "\"to\":5")),
        bad(
            "organization",
            "The header names another organization.",
            altered(&six, &format!("\"organization\":\"{ORGANIZATION}\""), "\"organization\":\"org_x\""),
        ),
        bad("format", "The format is another version.", altered(&six, "tenancy-audit/1", "tenancy-audit/2")),
        bad("complete", "All events are called some.", altered(&six, "\"complete\":true", "\"complete\":false")),
    ]
}

fn of_some_events() -> Vec<Vector> {
    let bundle = some(&[2, 4, 258], 258);
    let line = |number: usize| bundle.lines().nth(number - 1).unwrap().to_owned();
    let without = line(4)[..line(4).find(",\"proof\"").unwrap()].to_owned() + "}";
    vec![
        bad(
            "some-altered",
            "An event with a proof is altered.",
            altered(&bundle, "08:05:09.000004Z", "08:05:09.000005Z"),
        ),
        bad("some-no-proof", "An event has no proof.", altered(&bundle, &line(4), &without)),
        bad(
            "some-proof-null",
            "A proof is null.",
            altered(&bundle, &line(4), &(without[..without.len() - 1].to_owned() + ",\"proof\":null}")),
        ),
        bad(
            "some-proof-long",
            "A proof has a hash too many.",
            altered(&bundle, "]}\n", &format!(",\"{}\"]}}\n", STANDARD.encode([1; 32]))),
        ),
        bad("some-swapped", "Events with proofs stand out of order.", picked(&bundle, &[1, 2, 4, 3, 5, 6])),
        bad("some-twice", "An event with a proof is there twice.", picked(&bundle, &[1, 2, 3, 3, 4, 5, 6])),
        bad(
            "some-hashes",
            "There are hashes though events have proofs.",
            altered(
                &bundle,
                "{\"type\":\"end\"}",
                &format!(
                    "{{\"type\":\"hashes\",\"first\":1,\"hashes\":[\"{}\"]}}\n{{\"type\":\"end\"}}",
                    STANDARD.encode([1; 32])
                ),
            ),
        ),
        bad(
            "some-before",
            "There is something before though events have proofs.",
            altered(&bundle, "\"before\":[]", &format!("\"before\":[\"{}\"]", STANDARD.encode([1; 32]))),
        ),
        bad(
            "all-proof",
            "An event of a complete bundle has a proof.",
            altered(&all(1, 6), "}}\n", "},\"proof\":[]}\n"),
        ),
    ]
}

fn of_spellings() -> Vec<Vector> {
    let six = all(1, 6);
    let hash = STANDARD.encode(event(1).columns.hash());
    // 32 bytes in base64 leave two bits over in the last letter.
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let place = letters.find(&hash[42..43]).unwrap();
    let trailing = format!("{}{}=", &hash[..42], &letters[place + 1..place + 2]);
    vec![
        bad("spelling-space", "A space after a colon.", altered(&six, "\"from\":1", "\"from\": 1")),
        bad("spelling-crlf", "A carriage return before a newline.", altered(&six, "}\n", "}\r\n")),
        bad("spelling-bom", "A byte order mark before everything.", format!("\u{feff}{six}")),
        bad(
            "spelling-order",
            "Two members have changed places.",
            altered(&six, "\"from\":1,\"to\":6", "\"to\":6,\"from\":1"),
        ),
        bad("spelling-personal-order", "Entries of `personal` are not in order.", {
            let (start, end) = (six.find("\"ip\":{\"value\"").unwrap(), six.find("\"payload.email\":{").unwrap());
            let last = six[end..].find("},").unwrap() + end;
            format!("{}{},{}{}", &six[..start], &six[end..=last], &six[start..end - 1], &six[last + 1..])
        }),
        bad("spelling-datum-order", "Value and key of a datum have changed places.", {
            let start = six.find("{\"value\":\"203.0.113.7\",").unwrap();
            let key = &six[start + 23..start + 23 + 52];
            altered(&six, &format!("\"value\":\"203.0.113.7\",{key}"), &format!("{key},\"value\":\"203.0.113.7\""))
        }),
        bad(
            "spelling-member",
            "A member that is not known.",
            altered(&six, "\"complete\":true", "\"complete\":true,\"x\":1"),
        ),
        bad("spelling-member-twice", "A member twice.", altered(&six, "\"from\":1", "\"from\":1,\"from\":1")),
        bad("spelling-number", "A number with a fraction.", altered(&six, "\"from\":1", "\"from\":1.0")),
        bad("spelling-exponent", "A number with an exponent.", altered(&six, "\"from\":1", "\"from\":1e0")),
        bad("spelling-number-text", "A number as a string.", altered(&six, "\"from\":1", "\"from\":\"1\"")),
        bad("spelling-number-true", "A number as a truth.", altered(&six, "\"from\":1", "\"from\":true")),
        bad(
            "spelling-text-number",
            "A string as a number.",
            altered(&six, "\"auditSequence\":\"5\"", "\"auditSequence\":5"),
        ),
        bad("spelling-base64-padding", "Base64 without its padding.", altered(&six, &hash, hash.trim_end_matches('='))),
        bad(
            "spelling-base64-bits",
            "Base64 whose last letter has bits that count for nothing.",
            altered(&six, &hash, &trailing),
        ),
        bad("spelling-escape-slash", "A slash with an escape.", altered(&six, "tenancy-audit/1", "tenancy-audit\\/1")),
        bad("spelling-escape-letter", "A letter as an escape.", altered(&six, "\"header\"", "\"\\u0068eader\"")),
        bad("spelling-escape-case", "An escape with capital digits.", altered(&six, "\\\\u001f", "\\\\u001F")),
        bad(
            "spelling-escape-value",
            "A control character of a value has the long escape.",
            altered(&six, "\\b\\t\\n\\f\\r", "\\u0008\\t\\n\\f\\r"),
        ),
        bad(
            "spelling-escape-value-case",
            "The long escape of a value has capital digits.",
            altered(&six, " \\u001f", " \\u001F"),
        ),
        bad("spelling-escape-del", "A character that is not escaped is.", altered(&six, "\u{7f}", "\\u007f")),
        bad(
            "personal-value",
            "A readable datum says something else.",
            altered(&six, "ada@example.com", "eve@example.com"),
        ),
        bad("personal-key", "The key of a datum is another.", {
            let start = six.find("\"value\":\"203.0.113.7\",\"key\":\"").unwrap() + 30;
            six[..start].to_owned() + &STANDARD.encode([9; 32]) + &six[start + 44..]
        }),
        bad(
            "personal-place",
            "A datum of a place that there is not.",
            altered(&six, "\"payload.reason\":", "\"payload.season\":"),
        ),
        bad(
            "personal-number",
            "The value of a datum is a number.",
            altered(&six, "\"value\":\"curl/8\"", "\"value\":8"),
        ),
        bad(
            "personal-null",
            "Nothing is null instead of an empty object.",
            altered(&six, "\"personal\":{}", "\"personal\":null"),
        ),
    ]
}

fn of_notes() -> Vec<Vector> {
    let six = all(1, 6);
    let both = under(&six, &sign(&checkpoint(6).to_string(), &signers()));
    let with = |lines: &str| under(&six, &and(lines));
    let own = note(6).lines().last().unwrap().to_owned() + "\n";
    let id = |bytes: &[u8]| {
        key(0)[NAME.len() + 1..][..8]
            .to_owned()
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .chain(bytes.iter().copied())
            .collect::<Vec<u8>>()
    };
    vec![
        good("note-two-keys", "Both keys signed, and both are known.", both.clone()).keys(&[0, 1]),
        good("note-two-keys-one-known", "Both keys signed, and the second is known.", both.clone()).keys(&[1]),
        good("note-known-keys", "One key signed, and two are known.", six.clone()).keys(&[1, 0]),
        bad("note-unknown-key", "Another key signed than is known.", six.clone()).keys(&[1]),
        good("note-others", "Keys that are not known signed besides: their lines are left out.", with(&others(15))),
        good(
            "note-others-twice",
            "A key that is not known signed twice: its lines are left out.",
            with(&(others(1) + &others(1))),
        ),
        good(
            "note-same-name",
            "A key that is not known has the name of a known one.",
            with(&signature(NAME, &[1; 68])),
        ),
        good(
            "note-same-id",
            "A key that is not known has the id of a known one.",
            with(&signature("witness.example", &id(&[1; 64]))),
        ),
        good(
            "note-long-signature",
            "A signature by an algorithm that is not known.",
            with(&signature("witness.example", &[1; 3000])),
        ),
        good(
            "note-short-signature",
            "A signature of one byte, by an algorithm that is not known.",
            with(&signature("witness.example", &[1; 5])),
        ),
        bad(
            "note-no-signature",
            "An id without a signature makes the note none, whoever's it is.",
            with(&signature("witness.example", &[1; 4])),
        ),
        bad(
            "note-malformed",
            "A line that is none makes the note none, whoever's it is.",
            with("\u{2014} witness.example not-base64\n"),
        ),
        bad(
            "note-padding",
            "A signature of a key that is not known, without its padding.",
            with(signature("witness.example", &[1; 68]).replace('=', "").as_str()),
        ),
        bad("note-dash", "A line with another dash.", with(&others(1).replace('\u{2014}', "-"))),
        bad("note-space", "A line with a space too many.", with(&others(1).replace(' ', "  "))),
        bad("note-plus", "The name of a key has a plus.", with(&signature("witness+example", &[1; 68]))),
        bad(
            "note-unicode-space",
            "The name of a key has a space of Unicode (U+2003).",
            with(&signature("witness\u{2003}example", &[1; 68])),
        ),
        good(
            "note-no-space",
            "The name of a key has U+200B, which is no space.",
            with(&signature("witness\u{200b}example", &[1; 68])),
        ),
        bad("note-doubled", "A known key signed twice.", with(&own)),
        bad(
            "note-bad-signature",
            "A line of a known key that is no signature of it, beside a good one.",
            with(&signature(NAME, &id(&[1; 64]))),
        ),
        bad(
            "note-other-length",
            "A signature of a known key is a byte too long.",
            under(
                &six,
                &note(6).replace(
                    own.split(' ').nth(2).unwrap().trim(),
                    &STANDARD
                        .encode([STANDARD.decode(own.split(' ').nth(2).unwrap().trim()).unwrap(), vec![0]].concat()),
                ),
            ),
        ),
        good("note-64", "As many signatures as are looked at.", with(&others(63))),
        bad("note-65", "A signature more than are looked at.", with(&others(64))),
        bad("note-no-line", "There is no signature.", under(&six, &format!("{}\n", checkpoint(6)))),
        bad("note-no-newline", "The last signature has no newline.", under(&six, note(6).trim_end())),
        bad("note-blank", "A blank line follows the signatures.", with("\n")),
        bad("note-control", "The note has a control character.", with(&signature("witness\u{1}example", &[1; 68]))),
        bad(
            "note-size",
            "The text of the note was altered.",
            under(&all(1, 6), &note(6).replacen("\n6\n", "\n7\n", 1)),
        ),
        bad("note-of-five", "The checkpoint is of five events.", under(&six, &note(5))),
        bad(
            "note-root",
            "The checkpoint is of another history.",
            under(&six, &sign(&Checkpoint { root: leaf_hash(b"x"), ..checkpoint(6) }.to_string(), &signers()[..1])),
        ),
        good(
            "note-extension",
            "The checkpoint has a fourth line: it is left out.",
            under(&six, &sign(&format!("{}extension\n", checkpoint(6)), &signers()[..1])),
        ),
        bad(
            "note-extension-empty",
            "The checkpoint has an empty line.",
            under(&six, &sign(&format!("{}\nextension\n", checkpoint(6)), &signers()[..1])),
        ),
        bad(
            "note-size-zero",
            "The size has a zero before it.",
            under(&six, &sign(&checkpoint(6).to_string().replacen("\n6\n", "\n06\n", 1), &signers()[..1])),
        ),
        good(
            "origin-epoch",
            "The origin ends with an epoch.",
            under(&six, &named(&format!("{NAME}/{ORGANIZATION}/7"))),
        ),
        bad(
            "origin-epoch-zero",
            "The epoch has a zero before it.",
            under(&six, &named(&format!("{NAME}/{ORGANIZATION}/07"))),
        ),
        bad("origin-epoch-word", "The epoch is no number.", under(&six, &named(&format!("{NAME}/{ORGANIZATION}/x")))),
        bad(
            "origin-two-epochs",
            "The origin has two epochs.",
            under(&six, &named(&format!("{NAME}/{ORGANIZATION}/7/7"))),
        ),
        bad(
            "origin-organization",
            "The origin is another organization's.",
            under(&six, &named(&format!("{NAME}/org_x"))),
        ),
        bad(
            "origin-name",
            "The origin begins with a name that is not that of the key.",
            under(&six, &named(&format!("other.example/{ORGANIZATION}"))),
        ),
        good(
            "origin-of-second",
            "Two known keys signed, and the origin begins with the name of the second.",
            under(&six, &sign(&checkpoint(6).to_string(), &[signer("other.example", 3), signers()[0].clone()])),
        )
        .keys(&[0])
        .known(3),
    ]
}

impl Vector {
    /// A key of another name is known too.
    fn known(mut self, number: u8) -> Self {
        self.keys.insert(0, signer("other.example", number).verifier().to_string());
        self
    }
}

fn of_keys() -> Vec<Vector> {
    let six = || all(1, 6);
    let with = |vector: Vector, key: String| Vector { keys: vec![key], ..vector };
    let (name, rest) = (NAME, key(0)[NAME.len() + 1..].to_owned());
    vec![
        with(bad("key-id", "The id of the verifier key is another.", six()), format!("{name}+00000000{}", &rest[8..])),
        with(
            bad("key-id-capitals", "The id of the verifier key has capital digits.", six()),
            format!("{name}+{}{}", rest[..8].to_uppercase(), &rest[8..]),
        ),
        with(bad("key-name", "The verifier key has another name.", six()), format!("other.example+{rest}")),
        with(bad("key-short", "The verifier key is cut.", six()), key(0)[..key(0).len() - 4].to_owned()),
    ]
}

fn of_older() -> Vec<Vector> {
    let six = || all(1, 6);
    let other = |checkpoint: Checkpoint| sign(&checkpoint.to_string(), &signers()[..1]);
    vec![
        good("older-note", "The first four events are those that an older checkpoint covers.", six())
            .since("4.note", note(4)),
        good("older-bundle", "The older checkpoint is that of a bundle.", six()).since("4.ndjson", all(1, 4)),
        good("older-bundle-cut", "Of an older bundle nothing but the first two lines counts.", six())
            .since("4-cut.ndjson", picked(&all(1, 4), &[1, 2]) + "x"),
        good("older-same", "The older checkpoint is the same.", six()).since("6.note", note(6)),
        good("older-none", "The older checkpoint is of no events.", six())
            .since("0.note", other(Checkpoint { size: 0, root: empty_root(), ..checkpoint(0) })),
        good("older-rest", "The bundle begins right after what the older checkpoint covers.", all(255, 258))
            .since("254.note", note(254)),
        good("older-some-same", "Some events, and the older checkpoint is the same.", some(&[2], 258))
            .since("258.note", note(258)),
        good(
            "older-epoch",
            "The older checkpoint is of another epoch of the same history: it is judged as one of this.",
            six(),
        )
        .since("4-epoch.note", other(Checkpoint { origin: format!("{NAME}/{ORGANIZATION}/3"), ..checkpoint(4) })),
        bad("older-newer", "The older checkpoint covers more events: the end is cut.", six())
            .since("258.note", note(258)),
        bad("older-rewritten", "The older checkpoint is of another history.", six())
            .since("4-other.note", other(Checkpoint { root: leaf_hash(b"x"), ..checkpoint(4) })),
        bad("older-rewritten-same", "The older checkpoint is of another history of the same size.", six())
            .since("6-other.note", other(Checkpoint { root: leaf_hash(b"x"), ..checkpoint(6) })),
        bad(
            "older-epoch-rewritten",
            "The older checkpoint is of another epoch, in which the history was another.",
            six(),
        )
        .since(
            "4-other-epoch.note",
            other(Checkpoint { origin: format!("{NAME}/{ORGANIZATION}/3"), root: leaf_hash(b"x"), ..checkpoint(4) }),
        ),
        bad(
            "older-epoch-newer",
            "The older checkpoint is of another epoch and covers more events: those are lost.",
            six(),
        )
        .since("8-epoch.note", other(Checkpoint { origin: format!("{NAME}/{ORGANIZATION}/3"), ..checkpoint(8) })),
        bad("older-other-tree", "The older checkpoint is another organization's.", six())
            .since("4-tree.note", other(Checkpoint { origin: format!("{NAME}/org_x"), ..checkpoint(4) })),
        bad(
            "older-rest-late",
            "The bundle begins later than the older checkpoint ends: nothing shows what lies between.",
            all(255, 258),
        )
        .since("4.note", note(4)),
        bad("older-some", "Some events never show what an older checkpoint covers.", some(&[2], 258))
            .since("4.note", note(4)),
        bad("older-unsigned", "The older checkpoint is signed by nobody known.", six())
            .since("4-second.note", sign(&checkpoint(4).to_string(), &signers()[1..])),
        bad("older-doubled", "A known key signed the older checkpoint twice.", six())
            .since("4-doubled.note", note(4) + note(4).lines().last().unwrap() + "\n"),
        bad(
            "older-bundle-altered",
            "The second line of the older bundle is not written as an export writes it.",
            six(),
        )
        .since("4-altered.ndjson", altered(&all(1, 4), "\"checkpoint\",", "\"checkpoint\", ")),
        bad("older-bundle-header", "The header of the older bundle says another size than its checkpoint.", six())
            .since("4-header.ndjson", altered(&all(1, 4), "\"to\":4", "\"to\":5")),
    ]
}

fn of_witnesses() -> Vec<Vector> {
    let six = all(1, 6);
    let [one, two, three] = witnesses();
    let key = |witness: &Cosigner| witness.verifier().to_string();
    let (text, at) = (checkpoint(6).to_string(), 1_700_000_000);
    let (first, second) = (one.line(&text, at), two.line(&text, at + 1));
    let with = |lines: &str| under(&six, &and(lines));
    let both = with(&(first.clone() + &second));
    let known = [key(&one), key(&two), key(&three)];
    let renamed = Cosigner::new("w4.example", SigningKey::from_bytes(&[101; 32])).unwrap();
    let signed = |seconds: u64, bytes: &[u8]| {
        let id = u32::from_str_radix(&known[0]["w1.example+".len()..][..8], 16).unwrap().to_be_bytes();
        signature("w1.example", &[&id[..], &seconds.to_be_bytes(), bytes].concat())
    };
    vec![
        good("witnesses", "Two witnesses cosigned, and both are needed.", both.clone()).witnessed(&known[..2], Some(2)),
        good("witnesses-all", "Without a quorum all of the known ones are needed.", both.clone())
            .witnessed(&known[..2], None),
        bad("witnesses-all-missing", "Without a quorum all of the known ones are needed.", both.clone())
            .witnessed(&known, None),
        good("witnesses-two-of-three", "Two of three are needed.", both.clone()).witnessed(&known, Some(2)),
        bad("witnesses-too-few", "One of two cosigned that are needed.", with(&first)).witnessed(&known, Some(2)),
        good("witnesses-before", "A cosignature stands before the signature of the log.", {
            under(&six, &note(6).replace("\n\n", &format!("\n\n{first}")))
        })
        .witnessed(&known, Some(1)),
        good("witnesses-unknown", "Nobody knows the witnesses: their lines are left out.", both.clone()),
        bad("witnesses-none", "No witness cosigned.", six.clone()).witnessed(&known, Some(1)),
        bad("witnesses-no-log", "Witnesses cosigned what no key of the log signed.", {
            under(&six, &format!("{text}\n{first}{second}"))
        })
        .witnessed(&known, Some(2)),
        bad("witnesses-doubled", "One witness cosigned twice, at two times.", {
            with(&(first.clone() + &second + &one.line(&text, at + 9)))
        })
        .witnessed(&known, Some(2)),
        bad("witnesses-other-text", "A known witness cosigned another tree: refused, though enough others did.", {
            with(&(first.clone() + &two.line(&checkpoint(4).to_string(), at)))
        })
        .witnessed(&known, Some(1)),
        bad(
            "witnesses-time",
            "The time of a cosignature is another one.",
            with(&{
                use ed25519_dalek::Signer;
                let message = format!("cosignature/v1\ntime {at}\n{text}");
                signed(at + 1, &SigningKey::from_bytes(&[101; 32]).sign(message.as_bytes()).to_bytes())
            }),
        )
        .witnessed(&known, Some(1)),
        bad("witnesses-short", "A cosignature is a byte too short.", with(&signed(at, &[7; 63])))
            .witnessed(&known, Some(1)),
        bad(
            "witnesses-late",
            "A time is 2 to the 63.",
            with(&{
                use ed25519_dalek::Signer;
                let message = format!("cosignature/v1\ntime {}\n{text}", 1u64 << 63);
                signed(1 << 63, &SigningKey::from_bytes(&[101; 32]).sign(message.as_bytes()).to_bytes())
            }),
        )
        .witnessed(&known, Some(1)),
        good("witnesses-future", "A time is far in the future: it is not compared with any clock.", {
            with(&one.line(&text, 1 << 40))
        })
        .witnessed(&known, Some(1)),
        bad("witnesses-two-names", "One key is known under two names: it would count twice.", {
            with(&(first.clone() + &renamed.line(&text, at)))
        })
        .witnessed(&[key(&one), key(&renamed)], Some(2)),
        bad("witnesses-one-name", "Two keys are known under one name.", both.clone()).witnessed(
            &[key(&one), key(&Cosigner::new("w1.example", SigningKey::from_bytes(&[99; 32])).unwrap())],
            Some(1),
        ),
        bad("witnesses-quorum", "More are needed than are known.", both.clone()).witnessed(&known[..2], Some(3)),
        bad("witnesses-quorum-zero", "Witnesses are known and none is needed.", both.clone())
            .witnessed(&known[..2], Some(0)),
        bad("witnesses-log-key", "The key of a witness is a key of a log.", both.clone())
            .witnessed(&[signers()[0].verifier().to_string()], Some(1)),
        bad("witnesses-key-of-log", "The key of a log is the key of a witness.", both.clone()).named(&known[0]),
        good("witnesses-older", "An older checkpoint needs no cosignature.", both)
            .witnessed(&known, Some(2))
            .since("4.note", note(4)),
    ]
}

fn of_access() -> Vec<Vector> {
    let four = access(1, 4);
    let event = serde_json::to_string(&Line::Event(Box::new(event(1)))).unwrap();
    let line = serde_json::to_string(&Line::Record(Box::new(record(1)))).unwrap();
    let datum = |of: &str| {
        let start = of.find("\"ip\":{").unwrap();
        of[start..=start + of[start..].find('}').unwrap()].to_owned()
    };
    vec![
        good(
            "access",
            "Records of the access trail: one, one with an address, its repetition, one with an erased address.",
            four.clone(),
        ),
        good("access-rest", "Records after the first two, which were dropped with age.", access(3, 4)),
        good("access-disclosed-less", "An address is missing from `personal`.", altered(&four, &datum(&four), "")),
        bad("access-column", "A column of a record is altered.", altered(&four, "createProject", "deleteProject")),
        bad("access-missing", "A record is missing.", picked(&four, &[1, 2, 3, 4, 6, 7, 8])),
        bad("access-swapped", "Two records changed places.", picked(&four, &[1, 2, 4, 3, 5, 6, 7, 8])),
        bad(
            "access-null",
            "A record has no id.",
            altered(&four, "\"id\":\"acc_01jqv8zk3me4wbhx0r5t000001\"", "\"id\":null"),
        ),
        bad("access-value", "A readable address is altered.", altered(&four, "192.0.2.7", "192.0.2.8")),
        bad(
            "access-place",
            "Something is readable at a place that a record does not have.",
            altered(&four, "\"ip\":{", "\"userAgent\":{"),
        ),
        bad("access-event", "An event stands among records.", altered(&four, &line, &event)),
        bad("record-among-events", "A record stands among events.", altered(&all(1, 6), &event, &line)),
        bad(
            "access-some",
            "A bundle of the access trail is complete.",
            altered(&four, "\"complete\":true", "\"complete\":false"),
        ),
        bad(
            "access-organization",
            "The header says another trail.",
            altered(&four, "\"organization\":\"access\"", "\"organization\":\"installation\""),
        ),
    ]
}

fn vectors() -> Vec<Vector> {
    let parts = [
        of_whole_bundles(),
        of_some_events(),
        of_spellings(),
        of_notes(),
        of_keys(),
        of_older(),
        of_witnesses(),
        of_access(),
    ];
    parts.into_iter().flatten().collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit-vectors")
}

/// The files by name.
fn files() -> Vec<(String, Vec<u8>)> {
    let (mut files, mut listed) = (vec![], vec![]);
    for vector in vectors() {
        let bundle = format!("{}.ndjson", vector.name);
        let older = vector.older.as_ref().map(|(name, _)| format!("older/{name}"));
        listed.push(json!({
            "bundle": bundle,
            "keys": vector.keys,
            "older": older,
            "witnesses": vector.witnesses.0,
            "quorum": vector.witnesses.1,
            "verdict": if vector.accepted { "accepted" } else { "refused" },
            "about": vector.about,
        }));
        files.push((bundle, vector.bundle.into_bytes()));
        if let (Some(name), Some((_, text))) = (older, vector.older) {
            files.push((name, text.into_bytes()));
        }
    }
    let list = serde_json::to_string_pretty(&Value::Array(listed)).unwrap() + "\n";
    files.push(("vectors.json".into(), list.into_bytes()));
    files
}

/// Writes the files where the run blesses, once for all tests.
fn bless() {
    static BLESSED: Once = Once::new();
    if std::env::var_os("BLESS").is_none() {
        return;
    }
    BLESSED.call_once(|| {
        let _ = std::fs::remove_dir_all(folder());
        for (name, bytes) in files() {
            let path = folder().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    });
}

/// What there is, by name.
fn found(folder: &Path, before: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = format!("{before}{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => names.extend(found(&entry.path(), &format!("{name}/"))),
            false => _ = names.insert(name),
        }
    }
    names
}

#[test]
fn the_committed_vectors_are_those_that_the_code_makes() {
    bless();
    let files = files();
    for (name, bytes) in &files {
        let committed = std::fs::read(folder().join(name)).unwrap_or_default();
        assert!(committed == *bytes, "{name} is not what the code makes: `BLESS=1 cargo test` writes it");
    }
    let names: BTreeSet<String> = files.into_iter().map(|(name, _)| name).collect();
    assert_eq!(found(&folder(), ""), names, "a file is of no vector, or a name is there twice");
    assert_eq!(vectors().iter().map(|vector| vector.name).collect::<BTreeSet<_>>().len(), vectors().len());
}

/// From the files, as another implementer would.
#[test]
fn the_program_and_the_example_judge_the_vectors_as_they_say() {
    bless();
    let read = |name: &Value| std::fs::read(folder().join(name.as_str().unwrap())).unwrap();
    let listed: Vec<Value> = serde_json::from_slice(&read(&json!("vectors.json"))).unwrap();
    let case = |vector: &Value| Case {
        bundle: read(&vector["bundle"]),
        keys: serde_json::from_value(vector["keys"].clone()).unwrap(),
        older: Some(&vector["older"]).filter(|older| !older.is_null()).map(read),
        witnesses: (
            serde_json::from_value(vector["witnesses"].clone()).unwrap(),
            serde_json::from_value(vector["quorum"].clone()).unwrap(),
        ),
    };
    let cases: Vec<Case> = listed.iter().map(case).collect();
    let verdict = |reason: &Option<String>| if reason.is_none() { "accepted" } else { "refused" };
    for (vector, case) in listed.iter().zip(&cases) {
        let reason = judge(case);
        assert_eq!(verdict(&reason), vector["verdict"], "{}: {reason:?}", vector["bundle"]);
    }
    let Some(others) = judge_in_python(&cases) else { return };
    for (vector, reason) in listed.iter().zip(&others) {
        assert_eq!(verdict(reason), vector["verdict"], "in Python: {}: {reason:?}", vector["bundle"]);
    }
    assert!(listed.len() > 100);
}
