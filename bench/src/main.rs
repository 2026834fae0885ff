//! Measures tenancy: each figure beside a reference of the same run.
//!
//! One PostgreSQL is started as the service starts its own; ours and the references have databases in it. What is
//! measured, how, what the reference does and why that is fair stands at the top of each file in `figures`.
//!
//! Results go to stdout (a table) and to a file (JSON, with every round); progress goes to stderr.

// It measures, and serves nobody: whatever goes wrong ends the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cpu;
mod crates;
mod figures;
mod fill;
mod http;
mod logs;
mod machine;
mod parallel;
mod pgbench;
mod process;
mod progress;
mod receiver;
mod report;
mod run;
mod server;
mod sql;
mod stats;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use report::Figure;
use run::{Context, GROUPS, Options};
use server::Server;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let program = match process::program(options.service.clone()).await {
        Ok(program) => program,
        Err(error) => return fail(&error),
    };
    let server = match Server::start(&options.dir).await {
        Ok(server) => server,
        Err(error) => return fail(&error),
    };
    let server = Arc::new(server);
    let mut context = Context::new(options.settle(), server.clone(), program);
    let mut measuring = tokio::spawn(async move { measure(&mut context).await });
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be heard");
    // Whatever ends the run, a panic too, PostgreSQL is stopped.
    let result = tokio::select! {
        result = &mut measuring => result.unwrap_or_else(|error| Err(error.to_string())),
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        _ = terminated.recv() => Err("terminated".to_owned()),
    };
    measuring.abort();
    server.stop().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

/// Measures what is wanted, prints it, and writes it down.
async fn measure(context: &mut Context) -> Result<(), String> {
    let begin = Instant::now();
    if let Err(why) = &context.pgbench {
        context.say(why);
    }
    let machine = machine::describe(&context.server.pool, context.server.directory()).await;
    let mut measured: Vec<Figure> = vec![];
    for group in GROUPS.into_iter().filter(|group| context.options.wants(group)).collect::<Vec<_>>() {
        context.say(&format!("measuring: {group}"));
        measured.extend(group_of(group, context).await);
    }
    let given = &context.options.given;
    let run = json!({
        "at": chrono::Utc::now().to_rfc3339(), "version": env!("CARGO_PKG_VERSION"), "quick": given.quick,
        "full": given.full, "rounds": context.options.rounds, "seconds": begin.elapsed().as_secs_f64(),
    });
    println!("{}", report::table(&measured));
    let text = serde_json::to_string_pretty(&report::document(&measured, machine, run)).unwrap_or_default();
    let path = given.json.clone().unwrap_or_else(beside_the_program);
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    context.say(&format!("done; every round stands in {}", path.display()));
    Ok(())
}

async fn group_of(group: &str, context: &mut Context) -> Vec<Figure> {
    match group {
        "commands" => figures::commands::measure(context).await,
        "idle" => figures::idle::measure(context).await,
        "lag" => figures::lag::measure(context).await,
        "requests" => figures::requests::measure(context).await,
        "dashboard" => figures::dashboard::measure(context).await,
        "process" => figures::process::measure(context).await,
        "audit" => figures::audit::measure(context).await,
        "scope" => figures::scope::measure(context).await,
        "webhooks" => figures::webhooks::measure(context).await,
        "growth" => figures::growth::measure(context).await,
        _ => figures::rebuild::measure(context).await,
    }
}

/// `target/bench.json`.
fn beside_the_program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().and_then(|profile| profile.parent()).map(|target| target.join("bench.json")).unwrap_or_default()
}
