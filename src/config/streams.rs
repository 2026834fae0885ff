//! Receivers that the audit trail is streamed to.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue};
use toml::{Table, Value};
use url::Url;

use super::parts::{self, Part, WrongPart};
use super::providers::web_address;
use super::settings::Shown;
use super::values::{Range, Setting};

/// What can be set of a stream.
const KEYS: [&str; 17] = [
    "name",
    "kind",
    "address",
    "message_bytes_max",
    "url",
    "format",
    "gzip",
    "header",
    "token",
    "ca",
    "certificate",
    "key",
    "trails",
    "start",
    "batch_events_max",
    "batch_wait_ms",
    "timeout_ms",
];
const STREAMS_MAX: usize = 8;
const NAME_CHARS_MAX: usize = 40;
const HOST_BYTES_MAX: usize = 253;
const TOKEN_BYTES_MAX: usize = 4_096;

/// A receiver of the audit trail, and how it is sent there.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditStream {
    /// By which its position is remembered.
    pub name: String,
    /// Where to.
    pub to: StreamReceiver,
    /// The certificates that the receiver's has to be signed by; `None`: those that this program and this machine believe.
    pub ca: Option<PathBuf>,
    /// The certificates and the key that this service shows the receiver.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether events of organizations are sent.
    pub organizations: bool,
    /// Whether events of the installation are sent.
    pub installation: bool,
    /// Whether a new stream begins with what is recorded from now on; else with the first event.
    pub from_now: bool,
    /// Most events that are sent together.
    pub batch_events_max: u32,
    /// How long events are gathered, in milliseconds.
    pub batch_wait_ms: u64,
    /// Longest time of sending them, in milliseconds.
    pub timeout_ms: u64,
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamReceiver {
    /// RFC 5424 over TLS, as RFC 5425 has it.
    Syslog {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The longest message that it takes, in bytes.
        message_bytes_max: usize,
    },
    /// Posted.
    Http {
        /// Where to.
        url: Url,
        /// Whether each batch is one JSON array; else a line an event.
        array: bool,
        /// Whether bodies are compressed.
        gzip: bool,
        /// What says that the service may send there.
        header: Option<(HeaderName, HeaderValue)>,
    },
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditStreams(pub Vec<AuditStream>);

impl Setting for AuditStreams {
    const SECRET: bool = true;

    fn of_text(text: &str) -> Value {
        parts::of_text(text)
    }

    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let tables = parts::tables(value, STREAMS_MAX).ok_or_else(|| {
            format!(
                "at most {STREAMS_MAX} tables, such as [{{ name = \"siem\", kind = \"http\", url = \"https://…\" }}]"
            )
        })?;
        read_all(&tables).map(Self).map_err(WrongPart::right)
    }

    fn wrong_part(value: &Value) -> Option<WrongPart> {
        read_all(&parts::tables(value, STREAMS_MAX)?).err()
    }

    fn shown(&self) -> Shown {
        let shown = |stream: &AuditStream| Value::Table(stream.shown());
        (!self.0.is_empty()).then(|| Value::Array(self.0.iter().map(shown).collect()))
    }
}

fn read_all(tables: &[&Table]) -> Result<Vec<AuditStream>, WrongPart> {
    let mut streams: Vec<AuditStream> = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        let part = Part::new(number, table, &KEYS)?;
        let stream = part.stream()?;
        if streams.iter().any(|other| other.name == stream.name) {
            return Err(part.wrong("name", "a name that stands in the list once"));
        }
        streams.push(stream);
    }
    Ok(streams)
}

impl Part<'_> {
    fn stream(&self) -> Result<AuditStream, WrongPart> {
        let (organizations, installation) = self.trails()?;
        Ok(AuditStream {
            name: self.name()?,
            to: self.receiver()?,
            ca: self.path("ca")?,
            identity: self.identity()?,
            organizations,
            installation,
            from_now: self.one_of("start", ["beginning", "now"])? == "now",
            batch_events_max: self.number("batch_events_max", 100, 1, 1_000)?,
            batch_wait_ms: self.number("batch_wait_ms", 1_000, 0, 60_000)?.into(),
            timeout_ms: self.number("timeout_ms", 15_000, 100, 120_000)?.into(),
        })
    }

    fn name(&self) -> Result<String, WrongPart> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = |text: &&str| (1..=NAME_CHARS_MAX).contains(&text.len()) && text.chars().all(known);
        let name = self.text("name").filter(fits);
        let right =
            format!("a name of 1 to {NAME_CHARS_MAX} of a–z, 0–9 and \"-\", by which its position is remembered");
        name.map(str::to_owned).ok_or_else(|| self.wrong("name", &right))
    }

    fn receiver(&self) -> Result<StreamReceiver, WrongPart> {
        let kind = self.text("kind");
        let others: &[&str] = match kind {
            Some("syslog") => &["url", "format", "gzip", "header", "token"],
            Some("http") => &["address", "message_bytes_max"],
            _ => return Err(self.wrong("kind", "\"syslog\" or \"http\"")),
        };
        if let Some(other) = others.iter().find(|key| self.table.contains_key(**key)) {
            return Err(self.wrong_secret(other, "nothing: it belongs to streams of the other kind"));
        }
        match kind {
            Some("syslog") => self.syslog(),
            _ => self.http(),
        }
    }

    fn syslog(&self) -> Result<StreamReceiver, WrongPart> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let parts = self.text("address").and_then(|text| text.rsplit_once(':'));
        let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port > 0)?)));
        // Colons are part of an address of IPv6, which stands in brackets.
        let host = |host: &str| match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|address| address.to_string()),
            None => {
                let fits = (1..=HOST_BYTES_MAX).contains(&host.len()) && host.chars().all(known) && !host.contains(':');
                fits.then(|| host.to_owned())
            }
        };
        let right = "a host and a port, such as \"siem.example.com:6514\"; TLS is always spoken there";
        let (host, port) =
            parts.and_then(|(name, port)| Some((host(name)?, port))).ok_or_else(|| self.wrong("address", right))?;
        let message_bytes_max = self.number("message_bytes_max", 8_192, 2_048, 1_048_576)?;
        Ok(StreamReceiver::Syslog { host, port, message_bytes_max: message_bytes_max as usize })
    }

    fn http(&self) -> Result<StreamReceiver, WrongPart> {
        let right = "an address such as \"https://siem.example.com/ingest\" (http:// only on this machine), without user \
            and \"#\"";
        let url = self.text("url").and_then(web_address).ok_or_else(|| self.wrong_secret("url", right))?;
        let array = self.one_of("format", ["ndjson", "array"])? == "array";
        let gzip = match self.table.get("gzip") {
            None => false,
            Some(value) => value.as_bool().ok_or_else(|| self.wrong("gzip", "true or false"))?,
        };
        Ok(StreamReceiver::Http { url, array, gzip, header: self.header()? })
    }

    fn header(&self) -> Result<Option<(HeaderName, HeaderValue)>, WrongPart> {
        let Some(token) = self.table.get("token") else {
            let right = "nothing: it counts only where there is a token";
            return self.table.get("header").map_or(Ok(None), |_| Err(self.wrong("header", right)));
        };
        let name = match self.table.get("header") {
            None => Some(http::header::AUTHORIZATION),
            // What carries the body says how.
            Some(value) => value.as_str().and_then(|name| name.parse::<HeaderName>().ok()).filter(|name| {
                use http::header::{
                    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING,
                };
                ![CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING].contains(name)
            }),
        };
        let name = name.ok_or_else(|| self.wrong("header", "the name of a header, such as \"Authorization\""))?;
        let fits = |text: &&str| (1..=TOKEN_BYTES_MAX).contains(&text.len());
        let value = token.as_str().filter(fits).and_then(|text| HeaderValue::from_str(text).ok());
        let right = format!("the whole value of that header, such as \"Bearer …\", of at most {TOKEN_BYTES_MAX} bytes");
        let mut value = value.ok_or_else(|| self.wrong_secret("token", &right))?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }

    fn identity(&self) -> Result<Option<(PathBuf, PathBuf)>, WrongPart> {
        match (self.path("certificate")?, self.path("key")?) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(self.wrong("key", "the file with the certificate's key (PEM)")),
            (None, Some(_)) => Err(self.wrong("certificate", "the file with the key's certificate (PEM)")),
        }
    }

    /// Whether organizations', and whether the installation's.
    fn trails(&self) -> Result<(bool, bool), WrongPart> {
        let Some(value) = self.table.get("trails") else { return Ok((true, true)) };
        let known = |value: &Value| match value.as_str() {
            Some("organizations") => Some((true, false)),
            Some("installation") => Some((false, true)),
            _ => None,
        };
        let trails = value.as_array().filter(|list| !list.is_empty());
        let trails = trails.and_then(|list| list.iter().map(known).collect::<Option<Vec<_>>>());
        let trails = trails.map(|list| (list.iter().any(|(one, _)| *one), list.iter().any(|(_, other)| *other)));
        trails.ok_or_else(|| self.wrong("trails", "a list of \"organizations\", \"installation\" or both"))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.table.get(key).and_then(Value::as_str)
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, WrongPart> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        PathBuf::of_toml(value, None).map(Some).map_err(|right| self.wrong(key, &right))
    }

    /// One of two words, the first without any.
    fn one_of(&self, key: &str, words: [&'static str; 2]) -> Result<&'static str, WrongPart> {
        let Some(value) = self.table.get(key) else { return Ok(words[0]) };
        let word = words.into_iter().find(|word| value.as_str() == Some(word));
        word.ok_or_else(|| self.wrong(key, &format!("{:?} or {:?}", words[0], words[1])))
    }

    fn number(&self, key: &str, usual: u32, smallest: u32, largest: u32) -> Result<u32, WrongPart> {
        let Some(value) = self.table.get(key) else { return Ok(usual) };
        let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (smallest..=largest).contains(number));
        number.ok_or_else(|| self.wrong(key, &format!("a whole number from {smallest} to {largest}")))
    }
}

impl AuditStream {
    /// As it can be read again, but for its secrets.
    fn shown(&self) -> Table {
        let text = |text: &str| Value::String(text.to_owned());
        let path = |path: &PathBuf| Value::String(path.display().to_string());
        let number = |number: u64| Value::Integer(number.cast_signed());
        let trails = [("organizations", self.organizations), ("installation", self.installation)];
        let trails = trails.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| text(name));
        let mut table = Table::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                table.insert(key.to_owned(), value);
            }
        };
        set("name", Some(text(&self.name)));
        match &self.to {
            StreamReceiver::Syslog { host, port, message_bytes_max } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                set("kind", Some(text("syslog")));
                set("address", Some(text(&format!("{host}:{port}"))));
                set("message_bytes_max", Some(number(*message_bytes_max as u64)));
            }
            StreamReceiver::Http { url, array, gzip, header } => {
                // Some receivers take their secret there.
                let mut shown = url.clone();
                shown.set_query(url.query().map(|_| "***"));
                set("kind", Some(text("http")));
                set("url", Some(text(shown.as_str())));
                set("format", Some(text(if *array { "array" } else { "ndjson" })));
                set("gzip", Some(Value::Boolean(*gzip)));
                set("header", header.as_ref().map(|(name, _)| text(name.as_str())));
                set("token", header.as_ref().map(|_| text("***")));
            }
        }
        set("ca", self.ca.as_ref().map(path));
        set("certificate", self.identity.as_ref().map(|(certificate, _)| path(certificate)));
        set("key", self.identity.as_ref().map(|(_, key)| path(key)));
        set("trails", Some(Value::Array(trails.collect())));
        set("start", Some(text(if self.from_now { "now" } else { "beginning" })));
        set("batch_events_max", Some(number(self.batch_events_max.into())));
        set("batch_wait_ms", Some(number(self.batch_wait_ms)));
        set("timeout_ms", Some(number(self.timeout_ms)));
        table
    }
}
