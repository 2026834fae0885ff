//! A generator of HTTP load that costs little: it writes requests as bytes on connections that it keeps, and looks
//! at no more of an answer than it needs to know that it is whole and a success.
//!
//! It shares the machine with what it loads, so whatever it saves is the service's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::USER_AGENT;

/// How long a load runs before it is counted.
pub const WARM_UP: Duration = Duration::from_millis(700);

/// One connection.
pub struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// Opens one.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the service takes connections");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, request: Vec::with_capacity(4096), answer: Vec::with_capacity(16 * 1024) }
    }

    /// Posts a GraphQL request, and gives the body of the answer, which has to be one of success.
    pub async fn post(&mut self, token: &str, body: &str) -> &[u8] {
        use std::io::Write;
        self.request.clear();
        let written = write!(
            self.request,
            "POST /graphql HTTP/1.1\r\nhost: localhost\r\nuser-agent: {USER_AGENT}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\naccept: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        written.expect("memory can be written");
        self.stream.write_all(&self.request).await.expect("the service reads");
        let body = self.receive().await;
        let answer = &self.answer[body..];
        let failed = self.answer.get(9..12) != Some(b"200") || answer.starts_with(b"{\"errors\"");
        assert!(!failed, "the service refused: {}", String::from_utf8_lossy(&self.answer));
        answer
    }

    /// Reads an answer, and says where its body begins.
    async fn receive(&mut self) -> usize {
        self.answer.clear();
        let mut end_of_head = None;
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.expect("the service answers");
            assert_ne!(read, 0, "the service hung up");
            if end_of_head.is_none() {
                end_of_head = find(&self.answer, b"\r\n\r\n").map(|at| (at + 4, content_length(&self.answer[..at])));
            }
            if let Some((body, length)) = end_of_head
                && self.answer.len() >= body + length
            {
                return body;
            }
        }
    }
}

/// Where `needle` is in `text`.
pub fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

fn content_length(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).expect("a head is text");
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    line.expect("every answer says how long it is")
}

/// A GraphQL request.
pub fn body(query: &str, variables: &Value) -> String {
    serde_json::json!({"query": query, "variables": variables}).to_string()
}

/// Loads a service by `connections` at once for `time`; `next` makes requests, each a token and a body, and `check`
/// looks at answers.
pub async fn load<N, C>(address: SocketAddr, connections: usize, time: Duration, next: N, check: C) -> Counted
where
    N: Fn(&mut StdRng) -> (String, String) + Send + Sync + 'static,
    C: Fn(&[u8]) -> bool + Send + Sync + 'static,
{
    let (answers, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let shared = Arc::new((next, check));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (answers, over, shared) = (answers.clone(), over.clone(), shared.clone());
        workers.spawn(async move {
            let (next, check) = &*shared;
            let mut random = StdRng::from_os_rng();
            let mut connection = Connection::open(address).await;
            while !over.load(Ordering::Relaxed) {
                let (token, body) = next(&mut random);
                let answer = connection.post(&token, &body).await;
                assert!(check(answer), "not the answer that was wanted: {}", String::from_utf8_lossy(answer));
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let rate = count(&answers, time).await;
    over.store(true, Ordering::Relaxed);
    while let Some(done) = workers.join_next().await {
        done.expect("a connection ends well");
    }
    Counted { rate, all: answers.load(Ordering::Relaxed) }
}

/// Sends each of these requests once, over so many connections; how many a second.
pub async fn each_once(address: SocketAddr, connections: usize, requests: Vec<(String, String)>) -> Counted {
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicU64::new(0)));
    let begin = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (requests, next) = (requests.clone(), next.clone());
        workers.spawn(async move {
            let mut connection = Connection::open(address).await;
            while let Some((token, body)) = requests.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                connection.post(token, body).await;
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.expect("a connection ends well");
    }
    Counted { rate: requests.len() as f64 / begin.elapsed().as_secs_f64(), all: requests.len() as u64 }
}

/// What was done.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// How much a second.
    pub rate: f64,
    /// How much in all, before and after the counted time too.
    pub all: u64,
}

/// How much a counter grows a second, after a warm-up.
pub async fn count(counter: &AtomicU64, time: Duration) -> f64 {
    tokio::time::sleep(WARM_UP).await;
    let (before, begin) = (counter.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    (counter.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
}
