//! A receiver of webhooks that is well most of the time, and now and then, for a while, everything but that: it refuses,
//! asks for peace, redirects, hangs, drips, closes early, sends far too much, or says that it is gone. What came, and
//! what it answered, is kept for the checker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::clients::{Office, Planned};
use crate::cluster::Cluster;
use crate::history::Received;
use crate::seeds;

/// How long a path is well, or ill, at most.
const WELL_MS: u64 = 6_000;
const ILL_MS: u64 = 2_500;
/// How much a flood has, in bytes.
const FLOOD_BYTES: usize = 64 << 20;
/// How often it is looked which endpoints are disabled.
const ENABLE_EVERY: Duration = Duration::from_millis(700);

/// How a path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Well,
    Refuses,
    Busy,
    Unavailable,
    Redirects,
    Hangs,
    Drips,
    ClosesEarly,
    Floods,
    Gone,
}

const ILL: [Behaviour; 9] = [
    Behaviour::Refuses,
    Behaviour::Busy,
    Behaviour::Unavailable,
    Behaviour::Redirects,
    Behaviour::Hangs,
    Behaviour::Drips,
    Behaviour::ClosesEarly,
    Behaviour::Floods,
    Behaviour::Gone,
];

/// A running receiver.
pub struct Receiver {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    in_peace: AtomicBool,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    /// By path: how it answers, and until when.
    paths: HashMap<String, (Behaviour, Instant)>,
    received: Vec<Received>,
}

impl Receiver {
    /// Starts one. Times are of the run that began then.
    pub async fn open(seed: u64, began: Instant) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = State { random: seeds::stream(seed, "receiver"), paths: HashMap::new(), received: vec![] };
        let shared = Arc::new(Shared { began, in_peace: AtomicBool::new(false), state: Mutex::new(state) });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Ok(Self { port, shared })
    }

    /// From now on everything is well.
    pub fn leave_in_peace(&self) {
        self.shared.in_peace.store(true, Ordering::Relaxed);
    }

    /// What came.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.shared.state.lock().unwrap().received)
    }
}

impl Shared {
    fn behaviour(&self, path: &str) -> Behaviour {
        if self.in_peace.load(Ordering::Relaxed) {
            return Behaviour::Well;
        }
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        if let Some((behaviour, until)) = state.paths.get(path)
            && now < *until
        {
            return *behaviour;
        }
        let was_well = state.paths.get(path).is_some_and(|(behaviour, _)| *behaviour == Behaviour::Well);
        let (behaviour, most) = match was_well {
            true => (ILL[state.random.random_range(0..ILL.len())], ILL_MS),
            false => (Behaviour::Well, WELL_MS),
        };
        let until = now + Duration::from_millis(state.random.random_range(100..most));
        state.paths.insert(path.to_owned(), (behaviour, until));
        behaviour
    }

    fn note(&self, path: &str, event: &str, taken: bool) {
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let received = Received { path: path.to_owned(), event: event.to_owned(), at_ms, taken };
        self.state.lock().unwrap().received.push(received);
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some((path, event)) = request(&mut stream, &mut buffer).await {
        let behaviour = shared.behaviour(&path);
        // What is answered with success counts as taken when that is decided: its sender may never hear of it.
        let taken = matches!(behaviour, Behaviour::Well | Behaviour::Drips | Behaviour::Floods);
        shared.note(&path, &event, taken);
        if answer(&mut stream, behaviour).await.is_none() {
            return;
        }
    }
}

/// Answers; `None` where the connection is not to be used again.
async fn answer(stream: &mut TcpStream, behaviour: Behaviour) -> Option<()> {
    let head = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    match behaviour {
        Behaviour::Well => stream.write_all(head("200 OK").as_bytes()).await.ok(),
        Behaviour::Refuses => stream.write_all(head("500 Wrong").as_bytes()).await.ok(),
        Behaviour::Busy => stream.write_all(head("429 Busy\r\nretry-after: 1").as_bytes()).await.ok(),
        Behaviour::Unavailable => stream.write_all(head("503 Away").as_bytes()).await.ok(),
        Behaviour::Redirects => stream.write_all(head("302 There\r\nlocation: /elsewhere").as_bytes()).await.ok(),
        Behaviour::Gone => stream.write_all(head("410 Gone").as_bytes()).await.ok(),
        Behaviour::ClosesEarly => None,
        Behaviour::Hangs => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            None
        }
        Behaviour::Drips => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.ok()?;
            for _ in 0..50 {
                stream.write_all(b".").await.ok()?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            None
        }
        Behaviour::Floods => {
            let begin = format!("HTTP/1.1 200 OK\r\ncontent-length: {FLOOD_BYTES}\r\n\r\n");
            stream.write_all(begin.as_bytes()).await.ok()?;
            let block = vec![b'x'; 1 << 16];
            for _ in 0..FLOOD_BYTES / block.len() {
                stream.write_all(&block).await.ok()?;
            }
            Some(())
        }
    }
}

/// Reads one request: its path and message id.
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
            let whole = end + 4 + header("content-length")?.parse::<usize>().ok()?;
            if buffer.len() >= whole {
                buffer.drain(..whole);
                let path = head.split(' ').nth(1)?.trim_start_matches('/').to_owned();
                return Some((path, header("webhook-id")?));
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Enables endpoints that were disabled, as an operator, until `finish` says so; where the organization's status does not
/// allow it, they stay as they are.
pub async fn keep_enabled(cluster: Arc<Cluster>, office: Arc<Office>, mut random: StdRng, finish: Arc<AtomicBool>) {
    while !finish.load(Ordering::Relaxed) {
        tokio::time::sleep(ENABLE_EVERY).await;
        let _ = enable_all(&cluster, &office, &mut random).await;
    }
}

/// Enables them once; how many are disabled.
pub async fn enable_all(cluster: &Cluster, office: &Office, random: &mut StdRng) -> Result<usize, String> {
    let mut connection = cluster.connect().await.map_err(|error| error.to_string())?;
    let statement = "SELECT id FROM webhooks_1.webhook_endpoints WHERE state = 'DISABLED' AND NOT deleted";
    let disabled: Vec<String> =
        sqlx::query_scalar(statement).fetch_all(&mut connection).await.map_err(|error| error.to_string())?;
    for endpoint in &disabled {
        let replica = random.random_range(0..office.replicas.len());
        let input = serde_json::json!({"endpointId": endpoint, "reason": "a run of faults"});
        let user = office.world.operators[0].clone();
        let planned = Planned { operation: "enableWebhookEndpoint", user, input, version: None };
        office.give(&planned, replica, Duration::from_secs(5)).await;
    }
    Ok(disabled.len())
}
