//! The top-level modules of `src/` are rooms. A room may name only those that its row here lists, and rows name only
//! rooms further down: so no circle can come up.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each room and the rooms that it may name, from the entrance down.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "service", "witness", "import", "demo", "graphql", "streams", "access", "commands", "requests", "audit",
            "log", "database", "config", "erased",
        ],
    ),
    (
        "service",
        &[
            "http",
            "graphql",
            "webhooks",
            "streams",
            "feed",
            "access",
            "commands",
            "requests",
            "endpoints",
            "audit",
            "log",
            "database",
            "config",
            "erased",
            "private_file",
        ],
    ),
    ("witness", &["http", "audit"]),
    (
        "http",
        &[
            "graphql", "webhooks", "streams", "feed", "access", "commands", "requests", "audit", "log", "database",
            "config",
        ],
    ),
    ("import", &["graphql", "commands", "log"]),
    ("demo", &["graphql", "commands"]),
    ("graphql", &["webhooks", "feed", "commands", "requests", "audit", "log", "database"]),
    ("webhooks", &["commands", "endpoints", "audit", "log"]),
    ("streams", &["audit", "log"]),
    ("feed", &["commands", "log"]),
    ("access", &["commands", "config", "private_file"]),
    ("commands", &["requests", "endpoints", "log", "erased"]),
    ("requests", &["log", "database", "config"]),
    ("endpoints", &["log"]),
    ("audit", &["log", "database", "private_file"]),
    // Connections that requests borrow.
    ("log", &["database", "erased"]),
    ("database", &["config"]),
    ("config", &[]),
    ("erased", &[]),
    ("private_file", &[]),
];

#[test]
fn rooms_name_only_what_their_row_allows() {
    let mut unused: BTreeSet<(&str, &str)> =
        ROOMS.iter().flat_map(|(from, to)| to.iter().map(|to| (*from, *to))).collect();
    let mut problems = Vec::new();
    for (room, file) in files() {
        let Some((from, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            problems.push(format!("{}: the room {room} has no row in ROOMS: give it one", file.display()));
            continue;
        };
        for to in named_rooms(&code_of(&std::fs::read_to_string(&file).unwrap())) {
            unused.remove(&(*from, to));
            if to != *from && !allowed.contains(&to) {
                problems.push(format!("{}: {from} -> {to} is not allowed", file.display()));
            }
        }
    }
    problems
        .extend(unused.iter().map(|(from, to)| format!("{from} -> {to} is in ROOMS, but no file needs it: remove it")));
    assert!(
        problems.is_empty(),
        "{}\nPut what both rooms need into the lower one, or hand it over from above. A new arrow that points down may be \
         added to its row in tests/rooms.rs.",
        problems.join("\n")
    );
}

#[test]
fn rows_name_only_rooms_further_down() {
    for (place, (from, allowed)) in ROOMS.iter().enumerate() {
        for to in *allowed {
            let below = ROOMS[place + 1..].iter().any(|(name, _)| name == to);
            assert!(below, "{from} -> {to} points to no room further down in ROOMS: move the rows, or cut the circle");
        }
    }
}

#[test]
fn rooms_are_found_in_uses_and_paths_only() {
    let text = "use crate::{audit, log::{Log, feed}};\n// crate::http\nfn f() { crate::config::load() }\n\
                #[cfg(test)]\nmod tests {\n    use crate::graphql;\n}\nfn g() { crate::erased::f() }";
    assert_eq!(named_rooms(&code_of(text)), BTreeSet::from(["audit", "config", "erased", "log"]));
}

/// The files of `src/`, each with its room.
fn files() -> Vec<(String, PathBuf)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![src.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let room = Path::new(path.strip_prefix(&src).unwrap().iter().next().unwrap()).file_stem().unwrap();
            let is_code = path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs");
            if is_code && room != "lib" && room != "main" {
                found.push((room.to_str().unwrap().to_owned(), path));
            }
        }
    }
    found
}

/// The text without comments and without modules of tests.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{')) {
            lines.by_ref().find(|line| *line == "}");
        } else if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// The rooms behind each `crate::`, also those of `crate::{a, b::{c, d}}`.
fn named_rooms(code: &str) -> BTreeSet<&'static str> {
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(rest);
            continue;
        };
        let (mut depth, mut start) = (1, 0);
        for (place, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    names.push(&group[start..place]);
                    start = place + 1;
                }
                _ => {}
            }
            if depth == 0 {
                names.push(&group[start..place]);
                break;
            }
        }
    }
    let first = |name: &&str| name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    let names: BTreeSet<String> = names.iter().map(first).collect();
    ROOMS.iter().map(|(room, _)| *room).filter(|room| names.contains(*room)).collect()
}
