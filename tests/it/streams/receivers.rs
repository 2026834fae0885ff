//! Receivers of streams: syslog over TLS, and HTTP, which can be told to misbehave.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// An authority, and what it signed for this machine.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two with one name would be taken for each other at first.
        let name = uuid::Uuid::new_v4().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn signed(&self, names: &[&str]) -> (CertificateDer<'static>, KeyPair, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), key, certificate.pem())
    }

    /// A certificate and its key for a client, as files.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        let (_, key, pem) = self.signed(&["client.example"]);
        let (certificate, file) = (self.folder.path().join("client.pem"), self.folder.path().join("client-key.pem"));
        std::fs::write(&certificate, pem).unwrap();
        std::fs::write(&file, key.serialize_pem()).unwrap();
        (certificate, file)
    }

    fn acceptor(&self, clients: bool) -> TlsAcceptor {
        let (certificate, key, _) = self.signed(&["localhost", "127.0.0.1"]);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let config = match clients {
            false => config.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                config.with_client_cert_verifier(verifier)
            }
        };
        TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
    }
}

/// What a receiver of syslog got.
#[derive(Default)]
pub struct Taken {
    pub messages: Mutex<Vec<String>>,
    /// So many connections are cut in the middle.
    pub cuts: AtomicUsize,
}

impl Taken {
    pub fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    /// The texts of all messages, without the header of RFC 5424.
    pub fn texts(&self) -> Vec<String> {
        let text = |message: &String| message.splitn(8, ' ').last().unwrap().to_owned();
        self.messages.lock().unwrap().iter().map(text).collect()
    }
}

pub struct SyslogReceiver {
    pub address: SocketAddr,
    pub taken: Arc<Taken>,
    serving: JoinHandle<()>,
}

impl SyslogReceiver {
    pub async fn start(authority: &Authority) -> Self {
        Self::at(authority, "127.0.0.1:0".parse().unwrap(), Arc::default(), false).await
    }

    pub async fn at(authority: &Authority, address: SocketAddr, taken: Arc<Taken>, clients: bool) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(16).unwrap();
        let (address, acceptor, all) = (listener.local_addr().unwrap(), authority.acceptor(clients), taken.clone());
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(take(acceptor.clone(), connection, all.clone()));
            }
        });
        Self { address, taken, serving }
    }

    pub fn stop(self) -> (SocketAddr, Arc<Taken>) {
        self.serving.abort();
        (self.address, self.taken.clone())
    }
}

/// Takes one connection's frames (RFC 5425): a length, a space, a message.
async fn take(acceptor: TlsAcceptor, connection: TcpStream, taken: Arc<Taken>) {
    let Ok(mut tls) = acceptor.accept(connection).await else { return };
    let cut = taken.cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |cuts| cuts.checked_sub(1)).is_ok();
    let (mut bytes, mut piece) = (vec![], [0; 1_000]);
    loop {
        let read = tls.read(&mut piece).await.unwrap_or_default();
        bytes.extend_from_slice(&piece[..read]);
        while let Some(space) = bytes.iter().position(|byte| *byte == b' ') {
            let length: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
            if bytes.len() < space + 1 + length {
                break;
            }
            let message = String::from_utf8(bytes[space + 1..space + 1 + length].to_vec()).unwrap();
            taken.messages.lock().unwrap().push(message);
            bytes.drain(..space + 1 + length);
        }
        if read == 0 {
            assert!(bytes.is_empty() || cut, "half a frame: {}", String::from_utf8_lossy(&bytes));
            let _ = tls.shutdown().await;
            return;
        }
        if cut {
            // The socket has unread bytes, or will have: whoever sends them is reset.
            let _ = tls.get_ref().0.set_zero_linger();
            return;
        }
    }
}

/// A request that a receiver got.
pub struct Posted {
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Default)]
pub struct Posts {
    pub taken: Mutex<Vec<Posted>>,
    /// What is answered first, request by request; 200 afterwards.
    pub answers: Mutex<VecDeque<u16>>,
    /// A larger body is answered 413.
    pub bytes_max: AtomicUsize,
}

pub async fn http_receiver(posts: Arc<Posts>) -> SocketAddr {
    async fn post(State(posts): State<Arc<Posts>>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let largest = posts.bytes_max.load(Ordering::Relaxed);
        if largest > 0 && body.len() > largest {
            return StatusCode::PAYLOAD_TOO_LARGE;
        }
        let status = posts.answers.lock().unwrap().pop_front().unwrap_or(200);
        if status == 200 {
            posts.taken.lock().unwrap().push(Posted { headers, body });
        }
        StatusCode::from_u16(status).unwrap()
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/ingest", axum::routing::post(post)).with_state(posts);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// The configuration of one stream by syslog.
pub fn syslog(name: &str, address: SocketAddr, ca: &Path, more: &str) -> String {
    format!(
        "{{name = '{name}', kind = 'syslog', address = '{address}', ca = '{}', batch_wait_ms = 50, timeout_ms = 3000{more}}}",
        ca.display()
    )
}

pub const A_MOMENT: Duration = Duration::from_millis(300);
