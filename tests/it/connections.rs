//! Connections that ask for nothing end, and do not keep others out.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Database, Server, eventually};

const SHORT: [(&str, &str); 2] =
    [("TENANCY_HTTP__HEADER_TIMEOUT_SECONDS", "1"), ("TENANCY_HTTP__IDLE_TIMEOUT_SECONDS", "3")];
const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.service().address).await.unwrap()
}

/// Sends this and gives the answer's first line.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.unwrap().unwrap_or(0);
    String::from_utf8_lossy(&buffer[..read]).lines().next().unwrap_or_default().to_owned()
}

/// How long it takes until the other side closes.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    let mut buffer = [0; 1024];
    let read = async { while stream.read(&mut buffer).await.unwrap_or(0) > 0 {} };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("it is never closed");
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_nothing_is_closed() {
    let database = Database::new().await;
    let server = database.serve_with(&SHORT).await;
    // Silent; a preface of HTTP/2 and nothing else; headers that drip.
    let mut silent = connect(&server).await;
    let mut preface = connect(&server).await;
    preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let (mut dripping, mut drips) = connect(&server).await.into_split();
    let drip = tokio::spawn(async move {
        let _ = drips.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n").await;
        while drips.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut buffer = [0; 1024];
    let started = Instant::now();
    let (silent, preface, dripped) = tokio::join!(closed_after(&mut silent), closed_after(&mut preface), async {
        while dripping.read(&mut buffer).await.unwrap_or(0) > 0 {}
        started.elapsed()
    });
    for (what, after) in [("silent", silent), ("preface", preface), ("dripping", dripped)] {
        assert!(after < Duration::from_secs(4), "{what}: {after:?}");
        assert!(after > Duration::from_millis(500), "{what}: {after:?}");
    }
    drip.abort();
    // Between requests it may take longer.
    let mut kept = connect(&server).await;
    assert_eq!(ask(&mut kept, LIVE).await, "HTTP/1.1 200 OK");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(ask(&mut kept, LIVE).await, "HTTP/1.1 200 OK");
    let after = closed_after(&mut kept).await;
    assert!(after > Duration::from_secs(1) && after < Duration::from_secs(8), "{after:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_for_nothing_make_room() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_HTTP__CONNECTIONS_MAX", "8")]).await;
    let mut idle = vec![];
    for _ in 0..60 {
        idle.push(connect(&server).await);
    }
    for _ in 0..20 {
        let mut stream = connect(&server).await;
        assert_eq!(ask(&mut stream, LIVE).await, "HTTP/1.1 200 OK");
        idle.push(stream);
    }
    // The oldest are gone.
    assert!(closed_after(&mut idle[0]).await < Duration::from_secs(1));
    server.stop().await;

    let server = database.serve_with(&[("TENANCY_HTTP__CONNECTIONS_PER_ADDRESS_MAX", "4")]).await;
    let mut idle = vec![];
    for _ in 0..20 {
        idle.push(connect(&server).await);
    }
    assert_eq!(ask(&mut connect(&server).await, LIVE).await, "HTTP/1.1 200 OK");
    assert!(closed_after(&mut idle[0]).await < Duration::from_secs(1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_are_at_work_health_is_answered() {
    let database = Database::new().await;
    let server = database.serve_with(&[("TENANCY_HTTP__CONNECTIONS_MAX", "4")]).await;
    let owner = server.user("ada@example.com");
    let id = server.verified("acme", &owner).await;
    // What only waits for its client keeps nobody out: a body that does not come.
    for _ in 0..8 {
        let mut stream = connect(&server).await;
        stream.write_all(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").await.unwrap();
        std::mem::forget(stream);
    }
    // Feeds keep the service at work. Each has a connection of its own: the client's idle one may be closed meanwhile.
    let query = format!("subscription {{ auditEvents(organizationId: \"{id}\") {{ position }} }}");
    let mut at_work = vec![];
    for _ in 0..4 {
        let feed = reqwest::Client::new().post(server.url("/graphql/sse")).bearer_auth(owner.token.as_deref().unwrap());
        let feed = feed.json(&serde_json::json!({"query": query})).send().await.unwrap();
        assert_eq!(feed.status(), 200);
        at_work.push(feed);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut other = connect(&server).await;
    assert_eq!(ask(&mut other, LIVE).await, "HTTP/1.1 200 OK");
    let mut other = connect(&server).await;
    let refused = ask(&mut other, "GET /webhooks/catalog HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(refused, "HTTP/1.1 503 Service Unavailable");
    // Once there is room, the same connection is answered about everything.
    drop(at_work);
    eventually("there is room again", || async {
        ask(&mut connect(&server).await, "GET /webhooks/catalog HTTP/1.1\r\nHost: x\r\n\r\n").await == "HTTP/1.1 200 OK"
    })
    .await;
    server.stop().await;
}

/// A large answer: settings of 60 KB, very often.
async fn large(server: &Server) -> (String, usize) {
    let owner = server.user("ada@example.com");
    let id = server.verified("acme", &owner).await;
    let value = serde_json::json!({"text": "x".repeat(60_000)});
    let input = serde_json::json!({"organizationId": id, "namespace": "branding", "value": value});
    let set = owner.run("updateOrganizationSettings", "UpdateOrganizationSettingsInput", input, "__typename").await;
    assert!(set.accepted(), "{set:?}");
    let fields: String = (0..50).map(|n| format!("s{n}: settings(namespace: \\\"branding\\\") ")).collect();
    let body = format!(r#"{{"query": "{{ organization(by: {{id: \"{id}\"}}) {{ {fields} }} }}"}}"#);
    let head = format!(
        "POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        owner.token.as_deref().unwrap(),
        body.len()
    );
    (head, 50 * 60_000)
}

/// Reads up to so many bytes, a part at a time with a pause behind each; gives how many came.
async fn take(stream: &mut TcpStream, bytes: usize, pause: Duration) -> usize {
    let (mut buffer, mut taken) = (vec![0; 64 * 1024], 0);
    while taken < bytes {
        match tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.unwrap().unwrap_or(0) {
            0 => break,
            read => taken += read,
        }
        tokio::time::sleep(pause).await;
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_download_goes_on_and_one_that_stands_still_ends() {
    let database = Database::new().await;
    let server = database.serve_with(&SHORT).await;
    let (request, length) = large(&server).await;
    // It takes far longer than a connection may be idle.
    let mut slow = connect(&server).await;
    slow.write_all(request.as_bytes()).await.unwrap();
    let started = Instant::now();
    let taken = take(&mut slow, length, Duration::from_millis(100)).await;
    assert!(taken >= length, "{taken} of {length} bytes");
    assert!(started.elapsed() > Duration::from_secs(3), "{:?}", started.elapsed());
    // Nothing is read, of one answer or of many. The small buffer holds no whole answer.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut still = socket.connect(server.service().address).await.unwrap();
    still.write_all(request.as_bytes()).await.unwrap();
    let mut many = connect(&server).await;
    for _ in 0..20 {
        many.write_all(request.as_bytes()).await.unwrap();
    }
    // The service closes it while there are requests that it has not read, and so the system resets it.
    let reset = async { while !many.ready(Interest::ERROR).await.unwrap().is_error() {} };
    tokio::time::timeout(Duration::from_secs(90), reset).await.expect("it is closed");
    let taken = take(&mut still, usize::MAX, Duration::ZERO).await;
    assert!(taken < length, "it was closed: {taken} of {length} bytes");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_service_finishes_an_answer_that_is_being_taken() {
    let database = Database::new().await;
    let server = database.serve().await;
    let (request, length) = large(&server).await;
    let mut slow = connect(&server).await;
    slow.write_all(request.as_bytes()).await.unwrap();
    let begun = take(&mut slow, 1, Duration::ZERO).await;
    let stopping = tokio::spawn(server.stop());
    let rest = take(&mut slow, length - begun, Duration::from_millis(60)).await;
    assert!(begun + rest >= length, "{begun} + {rest} of {length} bytes");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_service_waits_for_nobody_who_has_asked_for_nothing() {
    let database = Database::new().await;
    let server = database.serve().await;
    let mut dripping = connect(&server).await;
    dripping.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nx: ").await.unwrap();
    let _silent = connect(&server).await;
    let mut kept = connect(&server).await;
    assert_eq!(ask(&mut kept, LIVE).await, "HTTP/1.1 200 OK");
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_contradict_each_other_are_refused() {
    let database = Database::new().await;
    let server = database.serve().await;
    for (headers, status) in [
        ("", "HTTP/1.1 400 Bad Request"),
        ("Host: x\r\nHost: y\r\n", "HTTP/1.1 400 Bad Request"),
        ("Host: x\r\nHost: x\r\n", "HTTP/1.1 400 Bad Request"),
        ("Host: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n", "HTTP/1.1 400 Bad Request"),
        ("Host: x\r\n", "HTTP/1.1 200 OK"),
    ] {
        let mut stream = connect(&server).await;
        assert_eq!(ask(&mut stream, &format!("GET /health/live HTTP/1.1\r\n{headers}\r\n")).await, status, "{headers}");
    }
    let mut old = connect(&server).await;
    assert_eq!(ask(&mut old, "GET /health/live HTTP/1.0\r\n\r\n").await, "HTTP/1.0 200 OK");
    server.stop().await;
}
