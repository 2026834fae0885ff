//! TLS as a receiver wants it: whose certificates are believed, and what the service shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// The files that the configuration names.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The certificates that the receiver's has to be signed by; without: those that this program and this machine believe.
    pub ca: Option<PathBuf>,
    /// The certificates and the key that the service shows.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a stream cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error("the audit stream {stream} cannot use {path}: {why}")]
    File {
        /// Which stream.
        stream: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Something else of TLS or HTTP.
    #[error("the audit stream {stream} cannot begin: {why}")]
    Client {
        /// Which stream.
        stream: String,
        /// Why.
        why: String,
    },
}

impl Files {
    /// The settings of TLS.
    pub fn client(&self, stream: &str) -> Result<Arc<ClientConfig>, Error> {
        let wrong = |why: rustls::Error| Error::Client { stream: stream.to_owned(), why: why.to_string() };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_root_certificates(self.roots(stream)?);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificates = certificates(stream, certificate)?;
                let read = PrivateKeyDer::from_pem_file(key).map_err(|error| file(stream, key, error))?;
                builder.with_client_auth_cert(certificates, read).map_err(|error| file(stream, key, error))?
            }
        };
        Ok(Arc::new(config))
    }

    fn roots(&self, stream: &str) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates(stream, path)? {
                    roots.add(certificate).map_err(|error| file(stream, path, error))?;
                }
            }
            // As for everything else that this program fetches: roots of its own, and the machine's.
            None => {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(roots)
    }
}

fn certificates(stream: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| file(stream, path, error))?;
    let read = read.collect::<Result<Vec<_>, _>>().map_err(|error| file(stream, path, error))?;
    if read.is_empty() { Err(file(stream, path, "it holds no certificate (PEM)")) } else { Ok(read) }
}

fn file(stream: &str, path: &Path, why: impl ToString) -> Error {
    Error::File { stream: stream.to_owned(), path: path.to_owned(), why: why.to_string() }
}
