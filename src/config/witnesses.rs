//! Witnesses of the audit trail: where each is, and its key. In the environment the whole list is one value, as that of
//! OpenID providers is.

use reqwest::Url;
use toml::{Table, Value};

use super::parts;
use super::providers::{text, web_address};
use super::settings::Shown;
use super::values::{Range, Setting};

const WITNESSES_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 400;

/// A witness that cosigns checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// What `/add-checkpoint` is put behind.
    pub url: Url,
    /// Its key, as it prints it.
    pub key: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witnesses(pub Vec<Witness>);

impl Setting for Witnesses {
    fn of_text(text: &str) -> Value {
        parts::of_text(text)
    }

    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let read = |value: &Value| witness(value.as_table()?);
        let entries = value.as_array().filter(|entries| entries.len() <= WITNESSES_MAX);
        let witnesses = entries.and_then(|entries| entries.iter().map(read).collect());
        witnesses.map(Self).ok_or_else(|| {
            format!(
                "at most {WITNESSES_MAX} tables of two texts, such as [{{ url = \"https://witness.example.org\", \
                 key = \"witness.example.org+1f2e3d4c+BA…\" }}] (http:// only on this machine)"
            )
        })
    }

    fn shown(&self) -> Shown {
        let shown = |witness: &Witness| {
            let entries = [("url", witness.url.as_str()), ("key", witness.key.as_str())];
            Value::Table(
                entries.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text.to_owned()))).collect(),
            )
        };
        (!self.0.is_empty()).then(|| Value::Array(self.0.iter().map(shown).collect()))
    }
}

fn witness(table: &Table) -> Option<Witness> {
    let known = table.keys().all(|key| key == "url" || key == "key");
    let url = table.get("url").and_then(Value::as_str).and_then(web_address).filter(|url| url.query().is_none());
    let key = table.get("key").and_then(|key| text(key, KEY_BYTES_MAX));
    Some(Witness { url: url?, key: key.filter(|_| known)? })
}
