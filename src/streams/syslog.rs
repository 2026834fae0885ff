//! Syslog over TLS: messages of RFC 5424, framed by octet counting as RFC 5425 has it.
//!
//! Syslog acknowledges nothing. So each batch has a connection of its own, which this side ends first; a receiver ends it
//! too when it has read everything (RFC 5425, section 4.4), and its system resets the connection where it has not. Only then
//! is the batch sent.

use std::io::{Error, ErrorKind};
use std::sync::Arc;

use chrono::SecondsFormat;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{Failed, Line};

/// Facility "log audit" (13), severity "informational" (6).
const PRIORITY: u16 = 13 * 8 + 6;
/// What RFC 5424 allows of a host's name and of the kind of a message.
const HOST_CHARS_MAX: usize = 255;
const KIND_CHARS_MAX: usize = 32;
/// How much a receiver may say, which is nothing to us, in bytes.
const ANSWER_BYTES_MAX: usize = 65_536;

/// A receiver.
pub struct Syslog {
    host: String,
    port: u16,
    server: ServerName<'static>,
    connector: TlsConnector,
    /// Whose messages these are.
    origin: String,
    message_bytes_max: usize,
}

impl Syslog {
    /// At this address. `origin` is the name of this log, of which the domain stands in messages.
    pub fn new(
        (host, port): (String, u16),
        tls: Arc<ClientConfig>,
        origin: &str,
        message_bytes_max: usize,
    ) -> Result<Self, String> {
        let server = ServerName::try_from(host.clone()).map_err(|error| format!("{host}: {error}"))?;
        let domain = origin.split('/').next().unwrap_or_default();
        let printable = |c: &char| c.is_ascii_graphic();
        let origin: String = domain.chars().filter(printable).take(HOST_CHARS_MAX).collect();
        let origin = if origin.is_empty() { "-".to_owned() } else { origin };
        Ok(Self { host, port, server, connector: TlsConnector::from(tls), origin, message_bytes_max })
    }

    pub(super) async fn send(&self, lines: &[Line]) -> Result<(), Failed> {
        let mut frames = Vec::new();
        for line in lines {
            let message = self.message(line);
            frames.extend_from_slice(format!("{} ", message.len()).as_bytes());
            frames.extend_from_slice(message.as_bytes());
        }
        let connected = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = connected.map_err(|error| Failed::new(format!("no connection came about: {error}")))?;
        tcp.set_nodelay(true).map_err(|error| Failed::new(format!("no connection came about: {error}")))?;
        let connected = self.connector.connect(self.server.clone(), tcp).await;
        let mut tls = connected.map_err(|error| Failed::new(format!("no TLS connection came about: {error}")))?;
        let exchange = async {
            tls.write_all(&frames).await?;
            tls.shutdown().await?;
            ended(&mut tls).await
        };
        exchange.await.map_err(|error| Failed::new(format!("the connection broke off: {error}")))
    }

    /// One message. The text is JSON, so it has no control characters; it begins without a byte order mark, which would not
    /// be JSON.
    fn message(&self, line: &Line) -> String {
        let time = line.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let kind: String = line.event_type.chars().filter(char::is_ascii_graphic).take(KIND_CHARS_MAX).collect();
        let head = format!("<{PRIORITY}>1 {time} {} tenancy - {kind} - ", self.origin);
        match head.len() + line.json.len() > self.message_bytes_max {
            true => head + &without_data(&line.json),
            false => head + &line.json,
        }
    }
}

/// A long line without the event's own fields: a receiver would cut it off anywhere.
fn without_data(json: &str) -> String {
    let Ok(mut line) = serde_json::from_str::<Value>(json) else { return json.to_owned() };
    if let Some(unmapped) = line.get_mut("unmapped").and_then(Value::as_object_mut) {
        unmapped.remove("data");
        unmapped.insert("data_left_out".to_owned(), Value::Bool(true));
    }
    line.to_string()
}

/// Waits until the receiver has ended the connection: in order, or at least without a reset.
async fn ended(connection: &mut (impl AsyncRead + Unpin)) -> Result<(), Error> {
    let (mut answer, mut left) = ([0; 4_096], ANSWER_BYTES_MAX);
    loop {
        match connection.read(&mut answer).await {
            Ok(0) => return Ok(()),
            Ok(read) if read > left => {
                return Err(Error::other("the receiver answers, which no receiver of syslog does"));
            }
            Ok(read) => left -= read,
            // It ended the connection below TLS only, as many do.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::streams::Files;

    fn syslog(message_bytes_max: usize) -> Syslog {
        let tls = Files::default().client("test").unwrap();
        Syslog::new(("siem.example".into(), 6514), tls, "tenancy.example/audit", message_bytes_max).unwrap()
    }

    fn line(json: &str) -> Line {
        let recorded_at = "2026-01-31T08:05:09.000123Z".parse().unwrap();
        Line { recorded_at, event_type: "OrgVerified".into(), json: json.into() }
    }

    #[test]
    fn a_message_has_the_parts_of_rfc_5424() {
        let message = syslog(8_192).message(&line(r#"{"message":"org.verified"}"#));
        let head = "<110>1 2026-01-31T08:05:09.000123Z tenancy.example tenancy - OrgVerified - ";
        assert_eq!(message, format!(r#"{head}{{"message":"org.verified"}}"#));
    }

    #[test]
    fn a_long_message_goes_without_the_events_own_fields_and_says_so() {
        let json = format!(r#"{{"message":"x","unmapped":{{"data":"{}","subject":{{}}}}}}"#, "y".repeat(3_000));
        let message = syslog(2_048).message(&line(&json));
        assert!(message.ends_with(r#" - {"message":"x","unmapped":{"data_left_out":true,"subject":{}}}"#), "{message}");
        assert!(syslog(8_192).message(&line(&json)).ends_with(&json));
    }
}
