//! A network between a service and its database that can be made bad: slow, stalled, cut in the middle of a message,
//! cut between a COMMIT and its answer, or closed for a while. One proxy a replica.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::seeds;

/// The length of the message by which a client asks whether it may encrypt.
const ENCRYPTION_REQUEST_BYTES: usize = 8;

/// Which way something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the service to the database.
    ToServer,
    /// From the database to the service.
    ToClient,
}

/// One cut of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The next chunk in this direction is passed on in part.
    Within(Direction),
    /// The next COMMIT of a writer is passed on in part: nothing may come of it.
    BeforeCommit,
    /// The next COMMIT of a writer is passed on and its answer is not: nobody knows what came of it.
    AfterCommit,
}

struct State {
    delay_ms_max: u64,
    stalled_until: Instant,
    refused_until: Instant,
    full_until: Instant,
    cuts: Vec<Cut>,
    random: StdRng,
}

/// The faults of one proxy, now.
pub struct Controls {
    state: Mutex<State>,
    /// Changes when all connections are to be dropped.
    dropped: watch::Sender<u64>,
    /// How many cuts were made.
    pub cuts_made: AtomicU64,
    /// How often a full disk was played.
    pub full_played: AtomicU64,
}

/// What becomes of a chunk.
struct Verdict {
    wait: Duration,
    /// How many of its bytes are passed on.
    passed: usize,
    then: Then,
}

#[derive(PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
    /// The answer is not passed on; a moment later the connection is closed.
    Mute,
    /// The service is told that the disk is full, and the connection is closed.
    SayFull,
}

/// A listener in front of a database.
pub struct Proxy {
    /// Where services connect to.
    pub port: u16,
    /// Its faults.
    pub controls: Arc<Controls>,
}

impl Proxy {
    /// Opens a proxy to 127.0.0.1:`upstream`.
    pub async fn open(upstream: u16, seed: u64, number: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let now = Instant::now();
        let state = State {
            delay_ms_max: 0,
            stalled_until: now,
            refused_until: now,
            full_until: now,
            cuts: vec![],
            random: seeds::stream(seed, &format!("proxy {number}")),
        };
        let controls = Arc::new(Controls {
            state: Mutex::new(state),
            dropped: watch::channel(0).0,
            cuts_made: AtomicU64::new(0),
            full_played: AtomicU64::new(0),
        });
        tokio::spawn(accept(listener, SocketAddr::from(([127, 0, 0, 1], upstream)), controls.clone()));
        Ok(Self { port, controls })
    }
}

impl Controls {
    /// Delays each chunk by up to so many milliseconds.
    pub fn delay(&self, milliseconds: u64) {
        self.state.lock().unwrap().delay_ms_max = milliseconds;
    }

    /// Passes nothing on for a while.
    pub fn stall(&self, span: Duration) {
        self.state.lock().unwrap().stalled_until = Instant::now() + span;
    }

    /// Takes no new connections for a while.
    pub fn refuse(&self, span: Duration) {
        self.state.lock().unwrap().refused_until = Instant::now() + span;
    }

    /// Plays a full disk for a while.
    pub fn play_full(&self, span: Duration) {
        self.state.lock().unwrap().full_until = Instant::now() + span;
    }

    /// Makes one cut at the next occasion.
    pub fn cut(&self, cut: Cut) {
        self.state.lock().unwrap().cuts.push(cut);
    }

    /// Drops all connections.
    pub fn drop_all(&self) {
        self.dropped.send_modify(|times| *times += 1);
    }

    /// Behaves from now on.
    pub fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        (state.delay_ms_max, state.stalled_until, state.refused_until, state.full_until) = (0, now, now, now);
        state.cuts.clear();
    }

    fn refuses(&self) -> bool {
        self.state.lock().unwrap().refused_until > Instant::now()
    }

    fn judge(&self, direction: Direction, chunk: &[u8], writer: bool) -> Verdict {
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        let delay = Duration::from_millis(match state.delay_ms_max {
            0 => 0,
            max => state.random.random_range(0..=max),
        });
        let wait = delay.max(state.stalled_until.saturating_duration_since(now));
        let commit = direction == Direction::ToServer && says_commit(chunk);
        let fits = |cut: &Cut| match cut {
            Cut::Within(wanted) => *wanted == direction && chunk.len() > 1,
            Cut::BeforeCommit | Cut::AfterCommit => commit && writer,
        };
        let whole = Verdict { wait, passed: chunk.len(), then: Then::GoOn };
        if let Some(place) = state.cuts.iter().position(fits) {
            self.cuts_made.fetch_add(1, Ordering::Relaxed);
            return match state.cuts.remove(place) {
                Cut::AfterCommit => Verdict { then: Then::Mute, ..whole },
                Cut::BeforeCommit | Cut::Within(_) => {
                    let passed = state.random.random_range(0..chunk.len());
                    Verdict { passed, then: Then::Close, ..whole }
                }
            };
        }
        if direction == Direction::ToServer && state.full_until > now && writes(chunk) {
            self.full_played.fetch_add(1, Ordering::Relaxed);
            return Verdict { passed: 0, then: Then::SayFull, ..whole };
        }
        whole
    }
}

/// Whether a simple query with nothing but COMMIT begins here. What looks like one inside of data is cut as well,
/// which is only one more place to be cut at.
fn says_commit(chunk: &[u8]) -> bool {
    chunk.windows(8).any(|part| part == b"\x0bCOMMIT\0")
}

/// Whether a connection begins here on which events are appended.
fn is_of_writer(chunk: &[u8]) -> bool {
    let name = b"application_name\0tenancy writer\0";
    chunk.windows(name.len()).any(|part| part == name)
}

/// Whether something is executed that a full disk could refuse: a prepared statement.
fn writes(chunk: &[u8]) -> bool {
    chunk.first() == Some(&b'B') || chunk.first() == Some(&b'P')
}

/// The server's message that the disk is full, as it ends a connection.
fn disk_is_full() -> Vec<u8> {
    let fields = b"SFATAL\0VFATAL\0C53100\0Mcould not extend file: No space left on device\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap_or_default().to_be_bytes();
    [b"E".as_slice(), &length, fields].concat()
}

async fn accept(listener: TcpListener, upstream: SocketAddr, controls: Arc<Controls>) {
    while let Ok((client, _)) = listener.accept().await {
        if controls.refuses() {
            continue;
        }
        let controls = controls.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let dropped = controls.dropped.subscribe();
            carry(client, server, controls, dropped).await;
        });
    }
}

async fn carry(client: TcpStream, server: TcpStream, controls: Arc<Controls>, mut dropped: watch::Receiver<u64>) {
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let muted = Arc::new(AtomicBool::new(false));
    let client_writes = Arc::new(tokio::sync::Mutex::new(client_writes));
    let there = to_server(client_reads, server_writes, client_writes.clone(), &controls, &muted);
    let back = to_client(server_reads, client_writes.clone(), &controls, &muted);
    // Whichever ends first ends the connection, in both directions.
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = dropped.changed() => {}
    }
}

async fn to_server(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    client: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    controls: &Controls,
    muted: &AtomicBool,
) {
    let mut buffer = vec![0u8; 16 * 1024];
    let mut writer = false;
    let mut begun = false;
    while let Ok(length) = from.read(&mut buffer).await {
        let chunk = &buffer[..length];
        if chunk.is_empty() {
            return;
        }
        // The first message says which program asks; only a question for encryption may come before it.
        if !begun && chunk.len() > ENCRYPTION_REQUEST_BYTES {
            (begun, writer) = (true, is_of_writer(chunk));
        }
        let verdict = controls.judge(Direction::ToServer, chunk, writer);
        muted.fetch_or(verdict.then == Then::Mute, Ordering::SeqCst);
        tokio::time::sleep(verdict.wait).await;
        if to.write_all(&chunk[..verdict.passed]).await.is_err() {
            return;
        }
        match verdict.then {
            Then::GoOn => {}
            Then::Close => return,
            Then::Mute => return tokio::time::sleep(Duration::from_millis(20)).await,
            Then::SayFull => return drop(client.lock().await.write_all(&disk_is_full()).await),
        }
    }
}

async fn to_client(
    mut from: OwnedReadHalf,
    to: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    controls: &Controls,
    muted: &AtomicBool,
) {
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        let chunk = &buffer[..length];
        if chunk.is_empty() {
            return;
        }
        if muted.load(Ordering::SeqCst) {
            continue;
        }
        let verdict = controls.judge(Direction::ToClient, chunk, false);
        tokio::time::sleep(verdict.wait).await;
        if to.lock().await.write_all(&chunk[..verdict.passed]).await.is_err() || verdict.then == Then::Close {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{disk_is_full, says_commit};

    #[test]
    fn a_commit_is_recognised_in_its_message() {
        assert!(says_commit(b"Q\0\0\0\x0bCOMMIT\0"));
        assert!(!says_commit(b"Q\0\0\0\x0dROLLBACK\0"));
        assert!(!says_commit(b"Q\0\0\0\x20SELECT 'COMMIT'\0"));
    }

    #[test]
    fn the_message_of_a_full_disk_says_its_own_length() {
        let message = disk_is_full();
        let length = u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize;
        assert_eq!(length + 1, message.len());
    }
}
