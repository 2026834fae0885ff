//! Two thousand mutants of good bundles, from a fixed seed: the program and the Python example judge each alike, and accept
//! none but those of which the page says so. `AUDIT_MUTANTS_SEED` looks at others.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tenancy::audit::bundle::Line;
use tenancy::audit::note::sign;

use crate::history::{NAME, access, all, checkpoint, note, signers, some, witnesses};
use crate::{Case, judge, judge_in_python};

const SEED: u64 = 20_261_130;
const MUTANTS: usize = 2_000;

/// What is done to a text.
type Mutation = fn(&mut StdRng, &mut Vec<u8>);

const MUTATIONS: &[(&str, Mutation)] = &[
    ("a bit is flipped", |random, text| flip(random, text)),
    ("a byte is removed", remove_byte),
    ("a byte is added", add_byte),
    ("a byte is another", |random, text| other_byte(random, text)),
    ("the end is cut", cut),
    ("something follows the end", follow),
    ("a line is removed", remove_line),
    ("a line is doubled", double_line),
    ("lines change places", swap_lines),
    ("a line moves", move_line),
    ("white space is added", add_space),
    ("members change places", swap_members),
    ("a member is removed", remove_member),
    ("a member is doubled", double_member),
    ("a member is added", add_member),
    ("a member has another name", rename_member),
    ("a number has another spelling", respell_number),
    ("base64 has another spelling", respell_base64),
    ("a string has another spelling", respell_string),
    ("a letter has the other case", |random, text| other_case(random, text)),
    ("a value is of another type", retype),
    ("signature lines are others", other_signatures),
    ("hashes are split", split_hashes),
    ("hashes are joined", join_hashes),
    ("entries of `personal` are others", other_personal),
];

// ---------------------------------------------------------------- bytes and lines

fn at(random: &mut StdRng, text: &[u8]) -> usize {
    random.random_range(0..text.len().max(1)).min(text.len().saturating_sub(1))
}

fn flip(random: &mut StdRng, text: &mut [u8]) {
    let at = at(random, text);
    text[at] ^= 1 << random.random_range(0..8);
}

fn remove_byte(random: &mut StdRng, text: &mut Vec<u8>) {
    text.remove(at(random, text));
}

fn add_byte(random: &mut StdRng, text: &mut Vec<u8>) {
    text.insert(at(random, text), random.random());
}

fn other_byte(random: &mut StdRng, text: &mut [u8]) {
    let at = at(random, text);
    text[at] = *b" \"\\,:{}[]\n\r\t0=A/+-".choose(random).unwrap();
}

fn cut(random: &mut StdRng, text: &mut Vec<u8>) {
    let length = match random.random_range(0..3) {
        0 => text.len() - 1,
        _ => at(random, text),
    };
    text.truncate(length);
}

fn follow(random: &mut StdRng, text: &mut Vec<u8>) {
    let more: [&[u8]; 5] = [b"\n", b" ", b"{\"type\":\"end\"}\n", b"{\"type\":\"end\"}", b"\0"];
    match random.random_range(0..4) {
        0 => text.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
        1 => text.insert(0, b'\n'),
        _ => text.extend_from_slice(more.choose(random).unwrap()),
    }
}

fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn in_lines(text: &mut Vec<u8>, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut lines = lines(text);
    change(&mut lines);
    *text = lines.concat();
}

fn remove_line(random: &mut StdRng, text: &mut Vec<u8>) {
    in_lines(text, |lines| _ = lines.remove(random.random_range(0..lines.len())));
}

fn double_line(random: &mut StdRng, text: &mut Vec<u8>) {
    in_lines(text, |lines| {
        let line = lines.choose(random).unwrap().clone();
        lines.insert(random.random_range(0..=lines.len()), line);
    });
}

fn swap_lines(random: &mut StdRng, text: &mut Vec<u8>) {
    in_lines(text, |lines| {
        let (one, other) = (random.random_range(0..lines.len()), random.random_range(0..lines.len()));
        lines.swap(one, other);
    });
}

fn move_line(random: &mut StdRng, text: &mut Vec<u8>) {
    in_lines(text, |lines| {
        let line = lines.remove(random.random_range(0..lines.len()));
        lines.insert(random.random_range(0..=lines.len()), line);
    });
}

// ---------------------------------------------------------------- JSON, by its signs

/// The ranges of strings, with their quotes.
fn strings(text: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut start, mut escaped) = (vec![], None, false);
    for (at, byte) in text.iter().enumerate() {
        match (start, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(from), b'"') => {
                found.push(from..at + 1);
                start = None;
            }
            (None, b'"') => start = Some(at),
            _ => {}
        }
    }
    found
}

/// The places outside strings.
fn outside(text: &[u8]) -> Vec<usize> {
    let strings = strings(text);
    let mut at = 0;
    let mut found = vec![];
    for string in strings {
        found.extend(at..string.start);
        at = string.end;
    }
    found.extend(at..text.len());
    found
}

/// The members of each object (or the items of each list) that has any.
fn containers(text: &[u8], open: u8, close: u8) -> Vec<Vec<Range<usize>>> {
    let mut stack: Vec<(u8, usize, Vec<Range<usize>>)> = vec![];
    let mut found = vec![];
    for at in outside(text) {
        match text[at] {
            byte @ (b'{' | b'[') => stack.push((byte, at + 1, vec![])),
            b',' => {
                if let Some((_, start, members)) = stack.last_mut() {
                    members.push(*start..at);
                    *start = at + 1;
                }
            }
            byte @ (b'}' | b']') => {
                if let Some((opened, start, mut members)) = stack.pop()
                    && at > start
                {
                    members.push(start..at);
                    if opened == open && byte == close {
                        found.push(members);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// One of the objects; small ones as likely as large ones.
fn object(random: &mut StdRng, text: &[u8]) -> Vec<Range<usize>> {
    let objects = containers(text, b'{', b'}');
    let sizes: Vec<usize> = {
        let mut sizes: Vec<usize> = objects.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    };
    let size = *sizes.choose(random).unwrap();
    let of_size: Vec<_> = objects.into_iter().filter(|members| members.len() == size).collect();
    of_size.choose(random).unwrap().clone()
}

fn put(text: &mut Vec<u8>, range: Range<usize>, with: &[u8]) {
    text.splice(range, with.iter().copied()).for_each(drop);
}

/// The members in another order, or others.
fn remake(text: &mut Vec<u8>, members: &[Range<usize>], change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut parts: Vec<Vec<u8>> = members.iter().map(|member| text[member.clone()].to_vec()).collect();
    change(&mut parts);
    put(text, members[0].start..members[members.len() - 1].end, &parts.join(&b','));
}

fn swap_members(random: &mut StdRng, text: &mut Vec<u8>) {
    let lists = containers(text, b'[', b']');
    let list = lists.choose(random).filter(|_| random.random()).cloned();
    let members = list.unwrap_or_else(|| object(random, text));
    remake(text, &members, |parts| {
        let (one, other) = (random.random_range(0..parts.len()), random.random_range(0..parts.len()));
        parts.swap(one, other);
    });
}

fn remove_member(random: &mut StdRng, text: &mut Vec<u8>) {
    let members = object(random, text);
    remake(text, &members, |parts| _ = parts.remove(random.random_range(0..parts.len())));
}

fn double_member(random: &mut StdRng, text: &mut Vec<u8>) {
    let members = object(random, text);
    remake(text, &members, |parts| {
        let part = parts.choose(random).unwrap().clone();
        parts.insert(random.random_range(0..=parts.len()), part);
    });
}

fn add_member(random: &mut StdRng, text: &mut Vec<u8>) {
    let more: [&[u8]; 5] = [b"\"x\":1", b"\"proof\":[]", b"\"proof\":null", b"\"personal\":{}", b"\"type\":\"end\""];
    let members = object(random, text);
    remake(text, &members, |parts| {
        let part = more.choose(random).unwrap().to_vec();
        parts.insert(random.random_range(0..=parts.len()), part);
    });
}

fn rename_member(random: &mut StdRng, text: &mut Vec<u8>) {
    let member = object(random, text).choose(random).unwrap().clone();
    let names: [&[u8]; 6] = [b"\"\"", b"\"Type\"", b"\"payload.name\"", b"\"ip\"", b"\"userAgent\"", b"\"value\""];
    if let Some(name) = strings(&text[member.clone()]).first() {
        put(text, member.start + name.start..member.start + name.end, names.choose(random).unwrap());
    }
}

fn add_space(random: &mut StdRng, text: &mut Vec<u8>) {
    let at = *outside(text).choose(random).unwrap();
    text.insert(at, *b" \t\r\n\x0c".choose(random).unwrap());
}

fn respell_number(random: &mut StdRng, text: &mut Vec<u8>) {
    // Numbers of JSON, and those that stand in strings.
    let inner = |string: &Range<usize>| string.start + 1..string.end - 1;
    let is_number = |range: &Range<usize>| !range.is_empty() && text[range.clone()].iter().all(u8::is_ascii_digit);
    let mut numbers: Vec<Range<usize>> = vec![];
    for at in outside(text) {
        match numbers.last_mut() {
            _ if !text[at].is_ascii_digit() => {}
            Some(last) if last.end == at => last.end += 1,
            _ => numbers.push(at..at + 1),
        }
    }
    let in_strings = strings(text).iter().map(inner).filter(is_number).collect::<Vec<_>>();
    let range = match random.random() {
        true => numbers.choose(random),
        false => in_strings.choose(random),
    };
    let Some(range) = range.cloned() else { return };
    let number = String::from_utf8(text[range.clone()].to_vec()).unwrap();
    let one_more = (number.parse::<u64>().unwrap() + 1).to_string();
    let spellings = [
        format!("{number}.0"),
        format!("{number}e0"),
        format!("{number}E0"),
        format!("0{number}"),
        format!("+{number}"),
        format!("-{number}"),
        format!(" {number}"),
        format!("{number} "),
        format!("{number}_0"),
        format!("0x{number}"),
        format!("\"{number}\""),
        format!("{number}00000000000000000000"),
        number.replace(|_: char| true, "\u{663}"),
        one_more,
        "-0".into(),
        "NaN".into(),
        "Infinity".into(),
        "true".into(),
    ];
    put(text, range, spellings.choose(random).unwrap().as_bytes());
}

fn respell_base64(random: &mut StdRng, text: &mut Vec<u8>) {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte);
    // Within strings too: signatures, and what is sealed.
    let mut runs: Vec<Range<usize>> = vec![];
    for (at, byte) in text.iter().enumerate() {
        match runs.last_mut() {
            _ if !letter(byte) => {}
            Some(last) if last.end == at => last.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs.retain(|run| run.len() >= 43);
    let Some(run) = runs.choose(random).cloned() else { return };
    let was = String::from_utf8(text[run.clone()].to_vec()).unwrap();
    let body = was.trim_end_matches('=');
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let last = letters.find(&body[body.len() - 1..]).unwrap_or_default();
    let bits = format!("{}{}", &body[..body.len() - 1], &letters[last ^ 1..][..1]);
    let split = random.random_range(0..was.len());
    let spellings = [
        body.to_owned(),
        format!("{was}="),
        format!("{body}=="),
        was.replace('+', "-").replace('/', "_"),
        was.replace('-', "+").replace('_', "/"),
        was.replace(body, &bits),
        format!("{}\\n{}", &was[..split], &was[split..]),
        format!("{} {}", &was[..split], &was[split..]),
        format!("{}!{}", &was[..split], &was[split..]),
        format!("{was}AAAA"),
        was[..was.len() - 4].to_owned(),
        String::new(),
    ];
    put(text, run, spellings.choose(random).unwrap().as_bytes());
}

fn respell_string(random: &mut StdRng, text: &mut Vec<u8>) {
    let string = strings(text).choose(random).unwrap().clone();
    let Ok(was) = String::from_utf8(text[string.start + 1..string.end - 1].to_vec()) else { return };
    let places: Vec<(usize, char)> = was.char_indices().collect();
    let Some((at, letter)) = places.choose(random).copied() else { return };
    let mut units = [0; 2];
    let mut escape =
        |digits: fn(&u16) -> String| letter.encode_utf16(&mut units).iter().map(digits).collect::<String>();
    let lower = escape(|unit| format!("\\u{unit:04x}"));
    let upper = escape(|unit| format!("\\u{unit:04X}"));
    let with = match random.random_range(0..6) {
        0 | 1 => lower,
        2 => upper,
        3 => format!("\\{letter}"),
        4 => format!("{letter}\u{301}"),
        _ => ["\\ud800", "\\u0000", "\\/", "\\\"", "\u{7f}", "\u{2028}", "\\u001f", "\\n"]
            .choose(random)
            .unwrap()
            .to_string(),
    };
    let now = format!("{}{with}{}", &was[..at], &was[at + letter.len_utf8()..]);
    put(text, string.start + 1..string.end - 1, now.as_bytes());
}

fn other_case(random: &mut StdRng, text: &mut [u8]) {
    let letters: Vec<usize> = (0..text.len()).filter(|at| text[*at].is_ascii_alphabetic()).collect();
    text[*letters.choose(random).unwrap()] ^= 0x20;
}

fn retype(random: &mut StdRng, text: &mut Vec<u8>) {
    let member = object(random, text).choose(random).unwrap().clone();
    let values: [&[u8]; 9] = [b"null", b"true", b"false", b"0", b"1.5", b"\"\"", b"[]", b"{}", b"[null]"];
    if let Some(name) = strings(&text[member.clone()]).first() {
        put(text, member.start + name.end + 1..member.end, values.choose(random).unwrap());
    }
}

// ---------------------------------------------------------------- what belongs to bundles

/// The note in a bundle, which stands in the first string that has a blank line, or a note alone.
fn in_note(text: &mut Vec<u8>, change: impl FnOnce(&mut Vec<String>)) {
    let is_bundle = text.starts_with(b"{");
    let newline = if is_bundle { "\\n" } else { "\n" };
    let blank = newline.repeat(2);
    let range = match is_bundle {
        false => 0..text.len(),
        true => {
            let has_blank = |string: &Range<usize>| String::from_utf8_lossy(&text[string.clone()]).contains(&blank);
            let Some(string) = strings(text).into_iter().find(has_blank) else { return };
            string.start + 1..string.end - 1
        }
    };
    let Ok(note) = String::from_utf8(text[range.clone()].to_vec()) else { return };
    let Some((before, signatures)) = note.split_once(&blank) else { return };
    let mut lines: Vec<String> = signatures.split_inclusive(newline).map(str::to_owned).collect();
    if lines.is_empty() {
        return;
    }
    change(&mut lines);
    put(text, range, format!("{before}{blank}{}", lines.concat()).as_bytes());
}

fn other_signatures(random: &mut StdRng, text: &mut Vec<u8>) {
    let newline = if text.starts_with(b"{") { "\\n" } else { "\n" };
    let mut more = |length: usize| {
        use base64::Engine;
        let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let (usual, short, none, long) = (more(68), more(5), more(4), more(2500));
    in_note(text, |lines| {
        let any = random.random_range(0..lines.len());
        let line = lines[any].clone();
        let added = [
            format!("\u{2014} witness.example {usual}{newline}"),
            format!("\u{2014} {NAME} {usual}{newline}"),
            format!("\u{2014} witness.example {short}{newline}"),
            format!("\u{2014} witness.example {none}{newline}"),
            format!("\u{2014} witness.example {long}{newline}"),
            format!("\u{2014} witness.example {}{newline}", usual.replace('=', "")),
            format!("\u{2014} witness.example {usual}"),
            format!("\u{2014} witness.example {usual} {newline}"),
            format!("\u{2014}  witness.example {usual}{newline}"),
            format!("\u{2014} wit\u{85}ness {usual}{newline}"),
            format!("\u{2014} wit\u{3000}ness {usual}{newline}"),
            format!("\u{2014} wit+ness {usual}{newline}"),
            format!("\u{2014} {usual}{newline}"),
            format!("- witness.example {usual}{newline}"),
            newline.to_owned(),
            line.clone(),
            line.replace(NAME, "other.example"),
            line.to_uppercase(),
        ];
        match random.random_range(0..20) {
            0 => _ = lines.remove(any),
            1 => lines.shuffle(random),
            2 => lines.extend(std::iter::repeat_n(added[0].clone(), random.random_range(60..66))),
            3 => lines[any] = line.trim_end_matches(newline).to_owned(),
            _ => lines.insert(random.random_range(0..=lines.len()), added.choose(random).unwrap().clone()),
        }
    });
}

fn is_hashes(line: &[u8]) -> bool {
    line.starts_with(b"{\"type\":\"hashes\"")
}

fn as_line(line: &[u8]) -> Option<Line> {
    serde_json::from_slice(line).ok()
}

fn split_hashes(random: &mut StdRng, text: &mut Vec<u8>) {
    in_lines(text, |lines| {
        let places: Vec<usize> = (0..lines.len()).filter(|at| is_hashes(&lines[*at])).collect();
        let Some(place) = places.choose(random).copied() else { return };
        let Some(Line::Hashes(mut hashes)) = as_line(&lines[place]) else { return };
        let split = random.random_range(0..=hashes.hashes.len());
        let mut rest = hashes.clone();
        rest.hashes = hashes.hashes.split_off(split);
        rest.first += split as u64;
        let text = |hashes| Line::Hashes(hashes).text().unwrap().into_bytes();
        let events = rest.hashes.len();
        lines[place] = text(rest);
        // Right after its events, or with all of them before both.
        let before = if random.random() { place.saturating_sub(events) } else { place };
        lines.insert(before, text(hashes));
    });
}

fn join_hashes(_: &mut StdRng, text: &mut Vec<u8>) {
    in_lines(text, |lines| {
        let places: Vec<usize> = (0..lines.len()).filter(|at| is_hashes(&lines[*at])).collect();
        let [first, second, ..] = places[..] else { return };
        let (Some(Line::Hashes(mut one)), Some(Line::Hashes(other))) =
            (as_line(&lines[first]), as_line(&lines[second]))
        else {
            return;
        };
        one.hashes.extend(other.hashes);
        lines[second] = Line::Hashes(one).text().unwrap().into_bytes();
        lines.remove(first);
    });
}

fn other_personal(random: &mut StdRng, text: &mut Vec<u8>) {
    in_lines(text, |lines| {
        let is_personal =
            |at: &usize| matches!(as_line(&lines[*at]), Some(Line::Event(event)) if !event.personal.is_empty());
        let places: Vec<usize> = (0..lines.len()).filter(is_personal).collect();
        let Some(place) = places.choose(random).copied() else { return };
        let Some(Line::Event(mut event)) = as_line(&lines[place]) else { return };
        let names: Vec<String> = event.personal.keys().cloned().collect();
        let (one, other) = (names.choose(random).unwrap().clone(), names.choose(random).unwrap().clone());
        let datum = event.personal[&one].clone();
        match random.random_range(0..7) {
            0 => event.personal.clear(),
            1 => _ = event.personal.remove(&one),
            2 => _ = event.personal.insert(other, datum),
            3 => event.personal.get_mut(&one).unwrap().value.push('x'),
            4 => event.personal.get_mut(&one).unwrap().key.0[random.random_range(0..32)] ^= 1,
            5 => _ = event.personal.insert("payload.nothing".into(), datum),
            _ => event.personal = BTreeMap::from([("metadata".to_owned(), datum)]),
        }
        lines[place] = Line::Event(event).text().unwrap().into_bytes();
    });
}

// ---------------------------------------------------------------- the judgement

/// Whether the page says that a bundle which differs so is accepted. It says what is not shown: that entries of `personal`
/// are missing, that lines of keys are that signed besides, and, where events have proofs of their own, where the search for
/// them began and that others are missing.
fn is_permitted(was: &[u8], is: &[u8]) -> bool {
    let (was, is) = (essence(was, false), essence(is, false));
    let is_partial = was.first().is_some_and(|header| String::from_utf8_lossy(header).contains("\"complete\":false"));
    let mut rest = was.iter();
    was == is
        || (is_partial
            && was.get(..2) == is.get(..2)
            && was.last() == is.last()
            && is.iter().all(|line| rest.any(|other| other == line)))
}

/// What of a bundle or a note has to be as it was, but for that.
fn essence(text: &[u8], beginning_only: bool) -> Vec<Vec<u8>> {
    if !text.starts_with(b"{") {
        let end = text.windows(2).rposition(|pair| pair == b"\n\n").unwrap_or(text.len());
        return vec![text[..end].to_vec()];
    }
    let lines = lines(text).into_iter().take(if beginning_only { 2 } else { usize::MAX });
    let essential = |line: Vec<u8>| match as_line(&line) {
        Some(Line::Event(mut event)) => {
            event.personal.clear();
            Line::Event(event).text().unwrap().into_bytes()
        }
        Some(Line::Record(mut record)) => {
            record.personal.clear();
            Line::Record(record).text().unwrap().into_bytes()
        }
        // Where there is no `before`, nothing depends on `from`; and of an older bundle nothing but the note counts.
        Some(Line::Header(mut header)) if beginning_only || !header.complete => {
            (header.from, header.complete, header.before) = (1, false, vec![]);
            Line::Header(header).text().unwrap().into_bytes()
        }
        Some(Line::Checkpoint(signed)) => signed.note.rsplit_once("\n\n").map_or(line, |(text, _)| text.into()),
        _ => line,
    };
    lines.map(essential).collect()
}

fn originals() -> Vec<Case> {
    let keys = signers().map(|signer| signer.verifier().to_string());
    let both = all(1, 6).replace(&serde_text(&note(6)), &serde_text(&sign(&checkpoint(6).to_string(), &signers())));
    let case = |bundle: String, keys: &[String], older: Option<String>| Case {
        bundle: bundle.into_bytes(),
        keys: keys.to_vec(),
        older: older.map(String::into_bytes),
        witnesses: (vec![], None),
    };
    let cosigned: String = witnesses().iter().map(|one| one.line(&checkpoint(6).to_string(), 1_700_000_000)).collect();
    let cosigned = all(1, 6).replace(&serde_text(&note(6)), &serde_text(&(note(6) + &cosigned)));
    let known = witnesses().map(|one| one.verifier().to_string()).to_vec();
    vec![
        case(access(1, 4), &keys[..1], None),
        Case { witnesses: (known, Some(2)), ..case(cosigned, &keys[..1], None) },
        case(all(1, 6), &keys[..1], None),
        case(both.clone(), &keys, None),
        case(all(255, 258), &keys[..1], None),
        case(some(&[2, 4, 258], 258), &keys[..1], None),
        case(all(1, 6), &keys[..1], Some(note(4))),
        // Of an older bundle no other lines are looked at.
        case(both, &keys, Some(all(1, 4).split_inclusive('\n').take(2).collect())),
    ]
}

fn serde_text(note: &str) -> String {
    serde_json::to_string(note).unwrap()
}

/// A mutant: of which original, what was done, and what came of it.
struct Mutant {
    original: usize,
    done: Vec<&'static str>,
    case: Case,
}

fn mutants(originals: &[Case]) -> Vec<Mutant> {
    let seed = std::env::var("AUDIT_MUTANTS_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let mutant = |number: usize| {
        let original = random.random_range(0..originals.len());
        let mut case = originals[original].clone();
        // Each mutation in turn; now and then another one on top.
        let mut done = vec![number % MUTATIONS.len()];
        if random.random_range(0..10) == 0 {
            done.push(random.random_range(0..MUTATIONS.len()));
        }
        for mutation in &done {
            let older = case.older.as_mut().filter(|older| !older.is_empty() && random.random_range(0..4) != 0);
            let is_note = older.as_ref().is_some_and(|older| !older.starts_with(b"{"));
            let (_, mutate) = MUTATIONS[*mutation];
            let text = older.unwrap_or(&mut case.bundle);
            let of_json = matches!(*mutation, 10..=18 | 20);
            match is_note && of_json || text.is_empty() || (of_json && containers(text, b'{', b'}').is_empty()) {
                true => other_signatures(&mut random, text),
                false => mutate(&mut random, text),
            }
        }
        Mutant { original, done: done.into_iter().map(|mutation| MUTATIONS[mutation].0).collect(), case }
    };
    (0..MUTANTS).map(mutant).collect()
}

#[test]
fn the_program_and_the_example_judge_two_thousand_mutants_alike() {
    let originals = originals();
    for original in &originals {
        assert_eq!(judge(original), None);
    }
    let mutants = mutants(&originals);
    let verdicts: Vec<Option<String>> = mutants.iter().map(|mutant| judge(&mutant.case)).collect();
    let keep = |number: usize, case: &Case| {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(folder.join(format!("mutant-{number}.ndjson")), &case.bundle).unwrap();
        if let Some(older) = &case.older {
            std::fs::write(folder.join(format!("mutant-{number}.older")), older).unwrap();
        }
        format!("mutant {number}, kept in {}", folder.display())
    };
    let (mut same, mut permitted, mut wrong) = (0, 0, vec![]);
    for (number, (Mutant { original, done, case }, reason)) in mutants.iter().zip(&verdicts).enumerate() {
        let was = &originals[*original];
        let is_same = case.bundle == was.bundle && case.older == was.older;
        let is_permitted = is_permitted(&was.bundle, &case.bundle)
            && case.older.as_deref().map(|text| essence(text, true))
                == was.older.as_deref().map(|text| essence(text, true));
        match reason {
            None if is_same => same += 1,
            None if is_permitted => permitted += 1,
            None => wrong.push(format!("{}: {done:?}: accepted", keep(number, case))),
            Some(reason) if is_same => wrong.push(format!("{}: {done:?}: {reason}", keep(number, case))),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{MUTANTS} mutants, of which {same} are as they were and {permitted} differ in what the page permits");
    assert!(same < MUTANTS / 5 && permitted > 10 && permitted < MUTANTS / 10, "{same} {permitted}");
    let cases: Vec<Case> = mutants.iter().map(|mutant| mutant.case.clone()).collect();
    let Some(others) = judge_in_python(&cases) else { return };
    for (number, (mine, other)) in verdicts.iter().zip(&others).enumerate() {
        if mine.is_none() != other.is_none() {
            let Mutant { done, case, .. } = &mutants[number];
            wrong.push(format!("{}: {done:?}: {mine:?}, in Python {other:?}", keep(number, case)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
