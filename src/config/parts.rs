//! Values that have parts: lists of tables, each part with a message of its own.
//!
//! In the file they are tables, such as `[[access.providers]]`. In the environment the whole list is one value, written as
//! TOML (`[{issuer = "…", audience = "…"}]`) or as JSON.

use toml::{Table, Value};

use super::sources::{Error, Source};

/// What is wrong, and where in the value, such as `[1].issuer`.
pub(in crate::config) struct WrongPart {
    at: String,
    why: Why,
}

enum Why {
    Unknown { nearest: Option<String> },
    Value { value: String, right: String },
}

impl WrongPart {
    /// As an error of the value at `key`.
    pub fn error(self, key: &str, source: &Source) -> Error {
        let Self { at, why } = self;
        match why {
            Why::Unknown { nearest } => Error::Unknown { source_of: source.part(&at), nearest },
            Why::Value { value, right } => {
                Error::Value { source_of: source.clone(), key: format!("{key}{at}"), value, right }
            }
        }
    }

    /// What would be right, for where the part itself cannot be named.
    pub fn right(self) -> String {
        match self.why {
            Why::Value { right, .. } => right,
            Why::Unknown { .. } => "what is known".to_owned(),
        }
    }
}

/// The list that a text of the environment stands for.
pub(super) fn of_text(text: &str) -> Value {
    let json = serde_json::from_str(text).ok();
    let toml = || {
        let mut table = format!("list = {text}").parse::<Table>().ok()?;
        table.remove("list").filter(|_| table.is_empty())
    };
    json.or_else(toml).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The tables of a list, if it is one of at most so many.
pub(super) fn tables(value: &Value, most: usize) -> Option<Vec<&Table>> {
    let entries = value.as_array().filter(|entries| entries.len() <= most)?;
    entries.iter().map(Value::as_table).collect()
}

/// One table of the list.
pub(super) struct Part<'a> {
    pub at: String,
    pub table: &'a Table,
}

impl<'a> Part<'a> {
    /// The table with this number, which may have these keys.
    pub fn new(number: usize, table: &'a Table, keys: &[&str]) -> Result<Self, WrongPart> {
        let at = format!("[{number}]");
        let Some(unknown) = table.keys().find(|key| !keys.contains(&key.as_str())) else {
            return Ok(Self { at, table });
        };
        let near = keys.iter().map(|known| (strsim::damerau_levenshtein(known, unknown), known)).min();
        let nearest = near.filter(|(distance, _)| *distance <= 3).map(|(_, known)| (*known).to_owned());
        Err(WrongPart { at: format!("{at}.{unknown}"), why: Why::Unknown { nearest } })
    }

    /// The value of this key is wrong, or missing.
    pub fn wrong(&self, key: &str, right: &str) -> WrongPart {
        let value = self.table.get(key).map_or_else(|| "missing".to_owned(), super::sources::short);
        WrongPart { at: format!("{}.{key}", self.at), why: Why::Value { value, right: right.to_owned() } }
    }

    /// The same of a value that is not repeated.
    pub fn wrong_secret(&self, key: &str, right: &str) -> WrongPart {
        let value = if self.table.contains_key(key) { "what it is" } else { "missing" };
        let why = Why::Value { value: value.to_owned(), right: right.to_owned() };
        WrongPart { at: format!("{}.{key}", self.at), why }
    }
}
