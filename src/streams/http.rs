//! Batches of OCSF over HTTP: a JSON array, or a line an event.

use std::error::Error as StdError;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, StatusCode, Url};

use super::tls::{Error, Files};
use super::{Failed, Line};

/// How long a connection may take, and rest.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A receiver.
pub struct Http {
    client: Client,
    url: Url,
    array: bool,
    gzip: bool,
}

impl Http {
    /// At this address. `header` is sent with every batch.
    pub fn new(
        stream: &str,
        url: Url,
        (array, gzip): (bool, bool),
        header: Option<(HeaderName, HeaderValue)>,
        files: &Files,
    ) -> Result<Self, Error> {
        let read = |path: &std::path::Path| {
            let why = |error: std::io::Error| error.to_string();
            std::fs::read(path).map_err(|error| Error::File {
                stream: stream.to_owned(),
                path: path.to_owned(),
                why: why(error),
            })
        };
        let wrong = |why: reqwest::Error| Error::Client { stream: stream.to_owned(), why: chain(&why.without_url()) };
        let mut client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            .default_headers(header.into_iter().collect::<HeaderMap>())
            .user_agent(concat!("tenancy-audit-streams/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &files.ca {
            client = client.tls_built_in_root_certs(false);
            let certificates = Certificate::from_pem_bundle(&read(path)?).map_err(wrong)?;
            for certificate in certificates {
                client = client.add_root_certificate(certificate);
            }
        }
        if let Some((certificate, key)) = &files.identity {
            let pem = [read(certificate)?, read(key)?].join(&b'\n');
            client = client.identity(Identity::from_pem(&pem).map_err(wrong)?);
        }
        // The same files as for syslog, and the same messages where one of them holds nothing.
        files.client(stream)?;
        Ok(Self { client: client.build().map_err(wrong)?, url, array, gzip })
    }

    pub(super) async fn send(&self, lines: &[Line]) -> Result<(), Failed> {
        let (body, kind) = self.body(lines);
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, kind);
        let body = match self.gzip {
            true => {
                request = request.header(CONTENT_ENCODING, "gzip");
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                let packed = packed.write_all(body.as_bytes()).and_then(|()| packed.finish());
                packed.map_err(Failed::new)?
            }
            false => body.into_bytes(),
        };
        let sent = request.body(body).send().await;
        // A secret may stand in the address.
        let response = sent.map_err(|error| Failed::new(chain(&error.without_url())))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(Failed {
                too_large: status == StatusCode::PAYLOAD_TOO_LARGE,
                ..Failed::new(format!("the receiver answered {status}"))
            }),
        }
    }

    fn body(&self, lines: &[Line]) -> (String, &'static str) {
        let texts = lines.iter().map(|line| line.json.as_str());
        match self.array {
            true => (format!("[{}]", texts.collect::<Vec<_>>().join(",")), "application/json"),
            false => (texts.flat_map(|text| [text, "\n"]).collect(), "application/x-ndjson"),
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn StdError) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&(dyn StdError + 'static)| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
