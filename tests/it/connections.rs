//! Connections that ask for nothing end, and do not keep others out.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Database, Server};

const SHORT: [(&str, &str); 2] =
    [("TENANCY_HTTP__HEADER_TIMEOUT_SECONDS", "1"), ("TENANCY_HTTP__IDLE_TIMEOUT_SECONDS", "2")];
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
    assert!(after > Duration::from_secs(1) && after < Duration::from_secs(5), "{after:?}");
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
    let token = server.token("ada@example.com", false);
    // Bodies that are awaited keep the service at work.
    let mut at_work = vec![];
    for _ in 0..4 {
        let mut stream = connect(&server).await;
        let head = format!(
            "POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: 100\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        at_work.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut other = connect(&server).await;
    assert_eq!(ask(&mut other, LIVE).await, "HTTP/1.1 200 OK");
    let mut other = connect(&server).await;
    let refused = ask(&mut other, "GET /webhooks/catalog HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(refused, "HTTP/1.1 503 Service Unavailable");
    drop(at_work);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_service_waits_for_nobody_who_has_asked_for_nothing() {
    let database = Database::new().await;
    let server = database.serve().await;
    let mut dripping = connect(&server).await;
    dripping.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nx: ").await.unwrap();
    let mut silent = connect(&server).await;
    let mut kept = connect(&server).await;
    assert_eq!(ask(&mut kept, LIVE).await, "HTTP/1.1 200 OK");
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for stream in [&mut dripping, &mut silent, &mut kept] {
        closed_after(stream).await;
    }
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
