//! The types of values: how each is read, what is refused and how it is shown.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ipnet::IpNet;
use toml::Value;
use url::Url;

use super::parts::WrongPart;
use super::settings::Shown;

/// The largest number that GraphQL's `Long` carries: JSON readers lose digits beyond it.
pub(super) const LONG_MAX: u64 = (1 << 53) - 1;
/// Where builds of PostgreSQL are published. A mirror has the same files at the same paths below it.
pub const POSTGRES_RELEASES: &str = "https://github.com/theseus-rs/postgresql-binaries/releases/download";

/// Smallest and largest, where a key has limits.
pub(super) type Range = Option<(u64, u64)>;

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// The TOML value that a text of the environment or of a flag stands for.
    fn of_text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    /// The value, or what would be right.
    fn of_toml(value: &Value, range: Range) -> Result<Self, String>;

    /// The part that is wrong, of a value that has parts and is refused.
    fn wrong_part(_: &Value) -> Option<WrongPart> {
        None
    }

    /// As the report shows it.
    fn shown(&self) -> Shown;

    /// Whether a wrong value must not be repeated in messages.
    const SECRET: bool = false;
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn of_text(text: &str) -> Value {
                text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer)
            }

            fn of_toml(value: &Value, range: Range) -> Result<Self, String> {
                let (smallest, largest) = range.unwrap_or((0, LONG_MAX));
                value
                    .as_integer()
                    .and_then(|number| u64::try_from(number).ok())
                    .filter(|number| (smallest..=largest).contains(number))
                    .and_then(|number| Self::try_from(number).ok())
                    .ok_or_else(|| format!("a whole number from {smallest} to {largest}"))
            }

            fn shown(&self) -> Shown {
                i64::try_from(*self).ok().map(Value::Integer)
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, usize);

impl Setting for bool {
    fn of_text(text: &str) -> Value {
        text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Boolean)
    }

    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "true or false".to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::Boolean(*self))
    }
}

impl Setting for String {
    fn of_toml(value: &Value, range: Range) -> Result<Self, String> {
        let (smallest, largest) = range.unwrap_or((1, 10_000));
        let fits = |text: &&str| (smallest..=largest).contains(&(text.trim().len() as u64));
        let plain = |text: &&str| !text.chars().any(char::is_control);
        let text = value.as_str().filter(fits).filter(plain);
        text.map(|text| text.trim().to_owned())
            .ok_or_else(|| format!("text of {smallest} to {largest} bytes without control characters"))
    }

    fn shown(&self) -> Shown {
        Some(Value::String(self.clone()))
    }
}

impl Setting for SocketAddr {
    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let right = "an address and a port, such as \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::]:8080\"";
        value.as_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| right.to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::String(self.to_string()))
    }
}

/// Only a shell unfolds `~`, so a path that starts with it is refused instead of making a folder of that name.
impl Setting for PathBuf {
    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let fits = |text: &&str| !text.is_empty() && !text.starts_with('~') && !text.contains('\0');
        let path = value.as_str().filter(fits).map(Self::from);
        path.ok_or_else(|| "a path; \"~\" is not unfolded here, write the whole path".to_owned())
    }

    fn shown(&self) -> Shown {
        (!self.as_os_str().is_empty()).then(|| Value::String(self.display().to_string()))
    }
}

impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;

    fn of_text(text: &str) -> Value {
        T::of_text(text)
    }

    fn of_toml(value: &Value, range: Range) -> Result<Self, String> {
        T::of_toml(value, range).map(Some)
    }

    fn shown(&self) -> Shown {
        self.as_ref().and_then(T::shown)
    }
}

/// In the environment a list is separated by commas.
impl<T: Setting> Setting for Vec<T> {
    fn of_text(text: &str) -> Value {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Value::Array(entries.map(T::of_text).collect())
    }

    fn of_toml(value: &Value, range: Range) -> Result<Self, String> {
        let (_, largest) = range.unwrap_or((0, 10_000));
        let entries = value.as_array().filter(|entries| entries.len() as u64 <= largest);
        let entries = entries.ok_or_else(|| format!("a list of at most {largest} entries"))?;
        let read = |entry| T::of_toml(entry, None).map_err(|right| format!("a list in which each entry is {right}"));
        entries.iter().map(read).collect()
    }

    fn shown(&self) -> Shown {
        Some(Value::Array(self.iter().filter_map(T::shown).collect()))
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Setting for LogFormat {
    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        match value.as_str().map(str::trim) {
            Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            _ => Err("\"text\" or \"json\"".to_owned()),
        }
    }

    fn shown(&self) -> Shown {
        let text = match self {
            Self::Text => "text",
            Self::Json => "json",
        };
        Some(Value::String(text.to_owned()))
    }
}

/// What a user without an organization gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Nothing.
    Nothing,
    /// An organization of the user's own.
    Own,
    /// To be a member of one that is configured.
    Default,
}

impl Setting for Home {
    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        match value.as_str().map(str::trim) {
            Some("nothing") => Ok(Self::Nothing),
            Some("own") => Ok(Self::Own),
            Some("default") => Ok(Self::Default),
            _ => Err("\"nothing\", \"own\" or \"default\"".to_owned()),
        }
    }

    fn shown(&self) -> Shown {
        let text = match self {
            Self::Nothing => "nothing",
            Self::Own => "own",
            Self::Default => "default",
        };
        Some(Value::String(text.to_owned()))
    }
}

/// The address of a database with the password in it; only [`DatabaseUrl::expose`] gives that.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole address, for the driver alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The address with every password replaced. Hides rather too much: a password with an "@" or "/" in it that
    /// was not escaped is hidden as well, and so is any parameter with "password" in its name.
    #[must_use]
    pub fn without_password(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (address, query) = match rest.rsplit_once('@') {
            Some((user, place)) => {
                let hidden = user.split_once(':').map_or_else(|| user.to_owned(), |(name, _)| format!("{name}:***"));
                let (place, query) = place.split_once('?').unwrap_or((place, ""));
                (format!("{hidden}@{place}"), query)
            }
            None => rest.split_once('?').map_or((rest.to_owned(), ""), |(place, query)| (place.to_owned(), query)),
        };
        let parameters: Vec<String> = query.split('&').filter(|text| !text.is_empty()).map(hidden_parameter).collect();
        let mark = if parameters.is_empty() { "" } else { "?" };
        format!("{scheme}://{address}{mark}{}", parameters.join("&"))
    }
}

fn hidden_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=***"),
        _ => parameter.to_owned(),
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_password())
    }
}

impl Setting for DatabaseUrl {
    const SECRET: bool = true;

    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let right = "an address such as \"postgres://user:password@host:5432/database\"";
        let known = |text: &&str| text.starts_with("postgres://") || text.starts_with("postgresql://");
        let plain = |text: &&str| !text.chars().any(|c| c.is_control() || c.is_whitespace());
        let text = value.as_str().map(str::trim).filter(known).filter(plain);
        text.map(|text| Self(text.to_owned())).ok_or_else(|| right.to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::String(self.without_password()))
    }
}

/// Where builds of PostgreSQL are fetched from; without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchUrl(String);

impl FetchUrl {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for FetchUrl {
    fn default() -> Self {
        Self(POSTGRES_RELEASES.to_owned())
    }
}

/// Messages repeat the address when nothing can be fetched from it, so it has no password in it.
impl Setting for FetchUrl {
    const SECRET: bool = true;

    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let right = "an address such as \"https://mirror.example.com/postgresql\", without a name or password";
        let known = |text: &&str| text.starts_with("https://") || text.starts_with("http://");
        let plain = |text: &&str| !text.contains(|c: char| c.is_control() || c.is_whitespace() || "@?#".contains(c));
        // Without the slashes at its end an address without a host is not known any more.
        let text = value.as_str().map(|text| text.trim().trim_end_matches('/')).filter(known).filter(plain);
        text.map(|text| Self(text.to_owned())).ok_or_else(|| right.to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::String(self.0.clone()))
    }
}

/// Ports that may be connected to: one, or those from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl Ports {
    /// Those of the web, and those that nothing old listens on: mail servers and the like are not to be spoken to.
    pub fn usual() -> Vec<Self> {
        vec![Self(80..=80), Self(443..=443), Self(1_024..=65_535)]
    }
}

impl Setting for Ports {
    fn of_text(text: &str) -> Value {
        text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer)
    }

    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let ports = match value {
            Value::Integer(number) => port(&number.to_string()).map(|port| port..=port),
            Value::String(text) => match text.split_once('-') {
                Some((first, last)) => port(first).zip(port(last)).map(|(first, last)| first..=last),
                None => port(text).map(|port| port..=port),
            },
            _ => None,
        };
        let right = "a port such as 443, or ports such as \"1024-65535\"";
        ports.filter(|ports| !ports.is_empty()).map(Self).ok_or_else(|| right.to_owned())
    }

    fn shown(&self) -> Shown {
        let (first, last) = (self.0.start(), self.0.end());
        Some(if first == last { Value::Integer((*first).into()) } else { Value::String(format!("{first}-{last}")) })
    }
}

/// A block of network addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Setting for Network {
    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let right = "a block of addresses such as \"10.1.0.0/16\", \"192.0.2.7\" or \"fd12::/16\"";
        let text = value.as_str().map(str::trim).unwrap_or_default();
        let block = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        block.map(Self).map_err(|_| right.to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::String(self.0.to_string()))
    }
}

/// An origin of web pages, as browsers send it: scheme, host and port, and nothing behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(pub HeaderValue);

impl Setting for Origin {
    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let right = "an origin such as \"https://app.example.com\": no path, no star";
        let text = value.as_str().map(str::trim).unwrap_or_default();
        let origin = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        // Written otherwise than a browser does, it would match nothing.
        let origin = origin.map(|url| url.origin().ascii_serialization()).filter(|origin| origin == text);
        let header = origin.and_then(|origin| HeaderValue::try_from(origin).ok());
        header.map(Self).ok_or_else(|| right.to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::String(self.0.to_str().unwrap_or_default().to_owned()))
    }
}

/// The key that everything encrypted hangs on; printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// The bytes, for the keeper of keys alone.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for MasterKey {
    const SECRET: bool = true;

    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text.trim()).ok());
        let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        key.map(Self).ok_or_else(|| "32 bytes in base64, as `openssl rand -base64 32` makes them".to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::String("***".to_owned()))
    }
}

/// Somebody who operates the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// By verified address, in the form in which addresses compare.
    Email(String),
    /// By the identity that an issuer gives.
    Subject {
        /// The token's "iss".
        issuer: String,
        /// The token's "sub".
        subject: String,
    },
}

impl FromStr for Operator {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        if text.is_empty() || text.len() > 512 || text.chars().any(char::is_control) {
            return Err(());
        }
        if let Some((issuer, subject)) = text.split_once('|') {
            let whole = !issuer.is_empty() && !subject.is_empty();
            return whole.then(|| Self::Subject { issuer: issuer.to_owned(), subject: subject.to_owned() }).ok_or(());
        }
        match aggregates::text::email("operators", text) {
            Ok(address) => Ok(Self::Email(aggregates::text::email_key(&address))),
            Err(_) => Err(()),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email(email) => f.write_str(email),
            Self::Subject { issuer, subject } => write!(f, "{issuer}|{subject}"),
        }
    }
}

impl Setting for Operator {
    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let operator = value.as_str().and_then(|text| text.parse().ok());
        operator.ok_or_else(|| "an e-mail address or \"issuer|subject\"".to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::String(self.to_string()))
    }
}

/// What an organization may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Maximum by limit (`members`, `projects`); what is not named is unlimited.
    pub limits: BTreeMap<String, u64>,
}

/// The name of a plan: 1–40 of a–z, 0–9 and "_", so that it has a name in the environment too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlanName(String);

impl PlanName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a name has to be.
    pub(super) const RIGHT: &str = "a name of 1–40 of a–z, 0–9 and single \"_\", first and last a letter or digit";
}

impl Default for PlanName {
    fn default() -> Self {
        Self("free".to_owned())
    }
}

impl FromStr for PlanName {
    type Err = ();

    /// Two "_" in a row separate levels in the environment, so a name has none.
    fn from_str(text: &str) -> Result<Self, ()> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let edges = text.starts_with('_') || text.ends_with('_') || text.contains("__");
        let fits = (1..=40).contains(&text.len()) && !edges && text.chars().all(known);
        if fits { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

/// So that plans can be looked up by plain text.
impl Borrow<str> for PlanName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for PlanName {
    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        value.as_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| Self::RIGHT.to_owned())
    }

    fn shown(&self) -> Shown {
        Some(Value::String(self.0.clone()))
    }
}
