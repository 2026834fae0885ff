//! What the process of the service takes: memory when idle, time to start, size of the program.
//!
//! Memory is resident memory of the service's process (`VmRSS`), some seconds after it started on the tenants'
//! database; under load it is measured with the requests and with the dashboard (`VmHWM`, the most that there ever
//! was). PostgreSQL's is its own.
//!
//! Start-up is from starting the process until `/health/ready` answers 200, on a database that holds all tenants,
//! with PostgreSQL running; and, as a further line, with a private PostgreSQL that has to be started too, on a data
//! directory that was stopped before.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Service;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::server::Database;

const GROUP: &str = "process";
const STARTS: usize = 5;
const IDLE: Duration = Duration::from_secs(3);

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    let world = context.world().await;
    let mut starts = vec![];
    let mut memory = vec![];
    for _ in 0..STARTS {
        let (took, service) = start(&context.program, &world.database, false).await;
        starts.push(took);
        if memory.len() < context.options.rounds {
            tokio::time::sleep(IDLE).await;
            memory.push(service.memory("VmRSS"));
        }
        service.stop().await;
    }
    let size = std::fs::metadata(&context.program).map_or(f64::NAN, |file| file.len() as f64 / 1024.0 / 1024.0);
    vec![
        Figure::alone(GROUP, "resident memory, idle", "MiB", memory, Goal::AtMost(60.0)),
        Figure::alone(GROUP, "start-up, database running", "s", starts, Goal::AtMost(0.5)),
        Figure::alone(GROUP, "… private PostgreSQL to be started too", "s", private(context).await, Goal::AtMost(0.5)),
        Figure::alone(GROUP, "size of the program", "MiB", vec![size], Goal::Shown),
    ]
}

/// Starts a service, and says after how many seconds it was ready.
async fn start(program: &Path, database: &Database, private: bool) -> (f64, Service) {
    let begin = Instant::now();
    let service = Service::start_with(program, database, private).await;
    while !ready(&service).await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (begin.elapsed().as_secs_f64(), service)
}

async fn ready(service: &Service) -> bool {
    let Ok(mut stream) = TcpStream::connect(service.address).await else { return false };
    let mut answer = vec![];
    let asked = stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    asked.is_ok() && stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

async fn private(context: &Context) -> Vec<f64> {
    let database = context.server.nowhere("private");
    let mut starts = vec![];
    // The first makes the database.
    for number in 0..=STARTS {
        let (took, service) = start(&context.program, &database, true).await;
        service.stop().await;
        if number > 0 {
            starts.push(took);
        }
    }
    starts
}
