//! What people type: names, slugs, addresses, reasons, JSON documents. Each has its limits here, and each refusal
//! says what was wrong and what would be right.

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use unicode_security::MixedScript;

use crate::error::Refusal;
use crate::ids::UserId;
use crate::personal::Personal;

/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 200;
/// The longest slug, in characters.
pub const SLUG_CHARS_MAX: usize = 63;
/// The longest e-mail address, in bytes (RFC 5321).
pub const EMAIL_BYTES_MAX: usize = 254;
/// The longest reason or description, in characters.
pub const REASON_CHARS_MAX: usize = 1000;
/// The longest external id, in bytes.
pub const EXTERNAL_ID_BYTES_MAX: usize = 200;
/// The largest metadata of a project, in bytes of JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// The largest settings document of one namespace, in bytes of JSON.
pub const SETTINGS_BYTES_MAX: usize = 64 * 1024;
/// The deepest nesting of a JSON document.
pub const JSON_DEPTH_MAX: usize = 32;

/// A display name: trimmed, in NFC, 1–200 characters, nothing invisible, no word that mixes scripts.
pub fn name(path: &'static str, text: &str) -> Result<String, Refusal> {
    let name: String = text.trim().nfc().collect();
    let chars = name.chars().count();
    if !name.chars().any(is_visible) || chars > NAME_CHARS_MAX {
        return Err(Refusal::input(
            path,
            format!("{path} has {chars} characters: give 1 to {NAME_CHARS_MAX}, some of them visible"),
        ));
    }
    if let Some(bad) = name.chars().find(|c| is_invisible(*c) || *c == '\n' || *c == '\t') {
        let code = u32::from(bad);
        return Err(Refusal::input(path, format!("{path} holds the invisible character U+{code:04X}: leave it out")));
    }
    if let Some(word) = name.split(|c: char| !c.is_alphabetic()).find(|word| !word.is_single_script()) {
        return Err(Refusal::input(
            path,
            format!("{path}: '{word}' mixes letters of several scripts: use one script in a word"),
        ));
    }
    Ok(name)
}

/// The longest name of an organization's own role, in characters.
pub const ROLE_CHARS_MAX: usize = 40;

/// The name of a role: 1–40 of a–z, 0–9, `-`, `_`, the first a letter.
pub fn role_name(path: &'static str, text: &str) -> Result<String, Refusal> {
    let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if letters && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= ROLE_CHARS_MAX {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(80).collect();
    let rule = format!("give 1 to {ROLE_CHARS_MAX} of a-z, 0-9, '-', '_', the first a letter");
    Err(Refusal::input(path, format!("{path} {shown:?} is no name of a role: {rule}")))
}

/// A description: as a reason, and not left out.
pub fn description(path: &'static str, text: &str) -> Result<String, Refusal> {
    reason(path, Some(text))?.ok_or_else(|| Refusal::input(path, format!("{path} is empty: say for whom it is")))
}

/// A slug: 1–63 of a–z, 0–9, `-`, `_`, `.`, first and last a letter or digit; upper case is folded.
pub fn slug(path: &'static str, text: &str) -> Result<String, Refusal> {
    let slug = text.to_ascii_lowercase();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = slug.starts_with(fits) && slug.ends_with(fits);
    if !ends || slug.len() > SLUG_CHARS_MAX || !slug.chars().all(|c| fits(c) || matches!(c, '-' | '_' | '.')) {
        let shown: String = text.chars().take(80).collect();
        return Err(Refusal::input(
            path,
            format!(
                "{path} {shown:?} is no slug: give 1 to {SLUG_CHARS_MAX} of a-z, 0-9, '-', '_', '.', the first and last a letter or digit"
            ),
        ));
    }
    Ok(slug)
}

/// An e-mail address, as it was given. It compares by [`email_key`].
///
/// Nothing is trimmed: an address with spaces or control characters around it is another text than the one that was
/// verified, and is refused.
pub fn email(path: &'static str, address: &str) -> Result<String, Refusal> {
    let valid = address.len() <= EMAIL_BYTES_MAX
        && !address.chars().any(|c| is_invisible(c) || c.is_whitespace() || c.is_control())
        && email_address::EmailAddress::parse_with_options(
            address,
            email_address::Options::default().without_display_text().without_domain_literal(),
        )
        .is_ok()
        && address.rsplit_once('@').is_some_and(|(_, domain)| idna::domain_to_ascii(domain).is_ok());
    if valid {
        return Ok(address.to_owned());
    }
    let shown: String = address.chars().take(80).collect();
    Err(Refusal::input(
        path,
        format!(
            "{path} {shown:?} is no e-mail address: give one like ada@example.com, at most {EMAIL_BYTES_MAX} bytes, without spaces around it"
        ),
    ))
}

/// The form in which addresses compare. Of the local part only the case of ASCII letters does not count: what other
/// letters fold to is for the receiving host to say (RFC 6531, section 3.2), and U+212A (Kelvin sign) is no `k` there. The
/// domain compares as IDNA (UTS 46) resolves it.
pub fn email_key(address: &str) -> String {
    let Some((local, domain)) = address.rsplit_once('@') else { return address.to_ascii_lowercase() };
    let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_ascii_lowercase());
    format!("{}@{domain}", local.to_ascii_lowercase())
}

/// Free text such as a reason: trimmed, at most 1000 characters; nothing but spaces is no text.
pub fn reason(path: &'static str, text: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(text) = text.map(str::trim).filter(|text| text.chars().any(|c| is_visible(c) || is_invisible(c))) else {
        return Ok(None);
    };
    let chars = text.chars().count();
    if chars > REASON_CHARS_MAX {
        return Err(Refusal::input(path, format!("{path} has {chars} characters: give at most {REASON_CHARS_MAX}")));
    }
    if let Some(bad) = text.chars().find(|c| is_invisible(*c)) {
        return Err(Refusal::input(
            path,
            format!("{path} holds the invisible character U+{:04X}: leave it out", u32::from(bad)),
        ));
    }
    Ok(Some(text.to_owned()))
}

/// Why an operator did something to a person who is erased by it: under the operator's key.
pub fn reason_of_operator(because: Option<(UserId, String)>) -> Result<Option<Personal>, Refusal> {
    let Some((operator, text)) = because else { return Ok(None) };
    Ok(reason("reason", Some(&text))?.map(|text| Personal::new(operator.as_ref(), text)))
}

/// A reason that must be given.
pub fn required_reason(text: Option<&str>) -> Result<String, Refusal> {
    reason("reason", text)?
        .ok_or_else(|| Refusal::input("reason", "reason is empty: say why, it stands in the audit trail"))
}

/// An id in the operators' own systems: 1–200 visible ASCII characters.
pub fn external_id(text: &str) -> Result<String, Refusal> {
    let valid = !text.is_empty() && text.len() <= EXTERNAL_ID_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    if valid {
        return Ok(text.to_owned());
    }
    Err(Refusal::input(
        "externalId",
        format!("externalId is not usable: give 1 to {EXTERNAL_ID_BYTES_MAX} visible ASCII characters"),
    ))
}

/// A JSON document of at most `bytes_max` bytes and [`JSON_DEPTH_MAX`] levels, without U+0000 (PostgreSQL stores none).
pub fn json(path: &'static str, value: &Value, bytes_max: usize) -> Result<(), Refusal> {
    let bytes = value.to_string().len();
    if bytes > bytes_max {
        return Err(Refusal::input(path, format!("{path} has {bytes} bytes of JSON: give at most {bytes_max}")));
    }
    json_content(path, value, JSON_DEPTH_MAX)
}

fn json_content(path: &'static str, value: &Value, levels: usize) -> Result<(), Refusal> {
    if levels == 0 {
        return Err(Refusal::input(path, format!("{path} is nested too deep: at most {JSON_DEPTH_MAX} levels")));
    }
    let no_nul = |text: &str| {
        if text.contains('\0') {
            return Err(Refusal::input(path, format!("{path} holds the character U+0000: leave it out")));
        }
        Ok(())
    };
    match value {
        Value::String(text) => no_nul(text),
        Value::Array(items) => items.iter().try_for_each(|item| json_content(path, item, levels - 1)),
        Value::Object(entries) => entries.iter().try_for_each(|(key, item)| {
            no_nul(key)?;
            json_content(path, item, levels - 1)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Text of others as it may be shown: what a reader cannot see, or what changes how the rest is shown (escape sequences
/// of terminals, turned directions), is replaced by U+FFFD.
pub fn legible(text: &str) -> String {
    text.chars().map(|c| if is_invisible(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A letter, a digit, a sign or a symbol: something that a reader can see by itself.
fn is_visible(c: char) -> bool {
    let shown = c.is_alphanumeric() || c.is_ascii_graphic();
    (shown || matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')) && !is_invisible(c)
}

/// Control and format characters: what a reader cannot see but a comparison can. Joiners between letters are left
/// alone, because several languages need them.
fn is_invisible(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_trimmed_and_composed() {
        assert_eq!(name("name", "  Cafe\u{301} Nr. 1 ").unwrap(), "Caf\u{e9} Nr. 1");
        for good in ["Toyota トヨタ", "日本語の会社", "Компания", "O'Neill & Söhne GmbH", "東京ラーメン", "🚀", "!?"]
        {
            assert!(name("name", good).is_ok(), "{good}");
        }
        assert!(name("name", &"x".repeat(NAME_CHARS_MAX)).is_ok());
    }

    #[test]
    fn names_that_mislead_are_refused() {
        let long = "x".repeat(NAME_CHARS_MAX + 1);
        for bad in [
            "",
            "   ",
            "\u{200d}",
            "\u{3164}",
            "a\u{2800}",
            long.as_str(),
            "a\u{0}b",
            "a\nb",
            "pay\u{200b}pal",
            "Pаypal",
            "abc\u{202e}fed",
        ] {
            assert!(matches!(name("name", bad), Err(Refusal::InvalidInput { .. })), "{bad:?}");
        }
    }

    #[test]
    fn what_others_say_is_shown_as_it_reads() {
        assert_eq!(
            legible("no\u{1b}[31m \u{202e}live\u{2066}\n\tend é"),
            "no\u{fffd}[31m \u{fffd}live\u{fffd}\n\tend é"
        );
    }

    #[test]
    fn slugs_are_folded_and_checked() {
        assert_eq!(slug("slug", "K8s.io").unwrap(), "k8s.io");
        assert!(slug("slug", &"a".repeat(SLUG_CHARS_MAX)).is_ok());
        let long = "a".repeat(SLUG_CHARS_MAX + 1);
        for bad in ["", "-a", "a-", ".", "a b", "ä", "a/b", long.as_str(), "a\u{0}"] {
            assert!(slug("slug", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_compare_without_case() {
        assert_eq!(email_key(&email("email", "Ada@Example.COM").unwrap()), "ada@example.com");
        for bad in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "a b@example.com",
            "Ada <ada@example.com>",
            "a@b@c",
            "a@[127.0.0.1]",
            " ada@example.com",
            "ada@example.com ",
            "ada@example.com\n",
            "\u{0}ada@example.com",
            "ada@xn--a.example",
        ] {
            assert!(email("email", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_other_letter_stands_for_an_ascii_one_in_a_local_part() {
        let key = |address: &str| email_key(&email("email", address).unwrap());
        // U+212A and U+017F fold to k and s by Unicode's rules.
        assert_ne!(key("mi\u{212a}e@example.com"), key("mike@example.com"));
        assert_ne!(key("\u{17f}am@example.com"), key("sam@example.com"));
        // A domain is looked up as IDNA says, so these are one.
        assert_eq!(key("ada@B\u{fc}cher.example"), key("ADA@xn--bcher-kva.example"));
    }

    #[test]
    fn json_has_a_size_a_depth_and_no_nul() {
        assert!(json("metadata", &json!({"a": "x".repeat(METADATA_BYTES_MAX - 8)}), METADATA_BYTES_MAX).is_ok());
        assert!(json("metadata", &json!({"a": "x".repeat(METADATA_BYTES_MAX - 7)}), METADATA_BYTES_MAX).is_err());
        assert!(json("metadata", &json!({"a": ["b\u{0}"]}), METADATA_BYTES_MAX).is_err());
        assert!(json("metadata", &json!({"a\u{0}": 1}), METADATA_BYTES_MAX).is_err());
        let nested = |levels: usize| (1..levels).fold(json!([]), |inner, _| json!([inner]));
        assert!(json("metadata", &nested(JSON_DEPTH_MAX), METADATA_BYTES_MAX).is_ok());
        assert!(json("metadata", &nested(JSON_DEPTH_MAX + 1), METADATA_BYTES_MAX).is_err());
    }
}
