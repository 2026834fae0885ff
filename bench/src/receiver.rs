//! A receiver of webhooks that costs little: it reads requests as bytes, answers each with 200, and says when which
//! message came. It shares the machine with what sends to it, so whatever it saves is the service's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A message that came.
pub struct Came {
    /// Its `webhook-id`.
    pub id: String,
    /// The path that it came to.
    pub path: String,
    /// When.
    pub at: Instant,
}

/// A running receiver. What comes to `/hang` is never answered.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<AtomicU64>,
    telling: Arc<AtomicBool>,
    came: mpsc::UnboundedReceiver<Came>,
}

impl Receiver {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address is free");
        let address = listener.local_addr().expect("it has an address");
        let (received, telling) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (sender, came) = mpsc::unbounded_channel();
        let shared = (received.clone(), telling.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (received, telling) = shared.clone();
                tokio::spawn(serve(stream, received, telling, sender.clone()));
            }
        });
        Self { address, received, telling, came }
    }

    /// How many messages came.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether single messages are told.
    pub fn tell(&self, telling: bool) {
        self.telling.store(telling, Ordering::Relaxed);
    }

    /// The next message that is told.
    pub async fn next(&mut self) -> Came {
        self.came.recv().await.expect("it runs as long as it is asked")
    }

    /// What was told and not asked for.
    pub fn rest(&mut self) -> Vec<Came> {
        std::iter::from_fn(|| self.came.try_recv().ok()).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    received: Arc<AtomicU64>,
    telling: Arc<AtomicBool>,
    sender: mpsc::UnboundedSender<Came>,
) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some((path, id)) = request(&mut stream, &mut buffer).await else { return };
        if path == "/hang" {
            std::future::pending::<()>().await;
        }
        received.fetch_add(1, Ordering::Relaxed);
        if telling.load(Ordering::Relaxed) {
            let _ = sender.send(Came { id, path, at: Instant::now() });
        }
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

/// Reads one request; its path and message id. `None` when the other side has gone.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let header = |name: &str| {
                head.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let length: usize = header("content-length")?.parse().ok()?;
            let whole = end + 4 + length;
            if buffer.len() >= whole {
                buffer.drain(..whole);
                let path = head.split(' ').nth(1)?.to_owned();
                return Some((path, header("webhook-id").unwrap_or_default()));
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
