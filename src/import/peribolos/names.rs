//! The rules for names: what GitHub takes, and what tenancy makes of it.

/// Longest login that GitHub gives.
pub const LOGIN_CHARS_MAX: usize = 39;
/// Longest repository name that GitHub gives.
pub const REPOSITORY_CHARS_MAX: usize = 100;
/// Longest slug.
pub const SLUG_CHARS_MAX: usize = 63;

/// The slug of a GitHub name, or `None` for what GitHub would not take as a name.
///
/// Most names are slugs once in lower case. The others follow a rule that looks at the name alone, so it gives the
/// same slug in every import: a `.`, `-` or `_` at an end is spelt out (`.github` is `dot-github`), and what is
/// longer than 63 characters keeps its first 46 and gets 16 digits of a hash of the whole name.
#[must_use]
pub fn slug_of(name: &str) -> Option<String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let length = name.len();
    if length == 0 || length > REPOSITORY_CHARS_MAX || matches!(name, "." | "..") || !name.chars().all(known) {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let head = lower.chars().next().and_then(spelt).map(|word| format!("{word}-"));
    let tail = lower.chars().next_back().and_then(spelt).map(|word| format!("-{word}"));
    let core = lower.trim_matches(['.', '-', '_']);
    if core.is_empty() {
        return None;
    }
    // Only the outermost character is spelt out, so `..a` must not become what `.a` becomes.
    let ends = usize::from(head.is_some()) + usize::from(tail.is_some());
    let unusual = core.len() + ends != lower.len();
    let slug = format!("{}{core}{}", head.unwrap_or_default(), tail.unwrap_or_default());
    Some(if unusual || slug.len() > SLUG_CHARS_MAX { shortened(&slug, &lower) } else { slug })
}

fn spelt(end: char) -> Option<&'static str> {
    match end {
        '.' => Some("dot"),
        '-' => Some("dash"),
        '_' => Some("underscore"),
        _ => None,
    }
}

/// FNV-1a, because the standard library's hash may change between releases and slugs may not; nobody can gain by a
/// collision here, it only leaves a repository out.
fn shortened(slug: &str, whole: &str) -> String {
    let hash = whole
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let kept: String = slug.chars().take(SLUG_CHARS_MAX - 17).collect();
    format!("{kept}-{hash:016x}")
}

pub(super) const NO_LOGIN: &str =
    "that is no GitHub login (1–39 of letters, digits, \"-\" and \"_\", first a letter or digit)";

/// The login without white space around it. Old logins may end with a hyphen, those of managed users hold one `_`.
pub(super) fn login_of(text: &str) -> Option<String> {
    let login = text.trim();
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let fits = login.len() <= LOGIN_CHARS_MAX && login.starts_with(|c: char| c.is_ascii_alphanumeric());
    (fits && login.chars().all(known)).then(|| login.to_owned())
}

/// GitHub lets companies name roles of their own, so any short word is one.
pub(super) fn is_permission(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && !text.chars().any(char::is_control)
}

/// A coarse look; the service's own rule decides when the address is stored.
pub(super) fn is_email(text: &str) -> bool {
    let plain = text.len() <= 254 && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    plain
        && matches!(text.split_once('@'), Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
}

/// Text from outside, safe on a terminal and short enough for one line.
pub(super) fn shown(text: &str) -> String {
    let mut line: String =
        text.chars().take(200).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(200).is_some() {
        line.push('…');
    }
    line
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}
