//! Faults: two or three services on one PostgreSQL, many clients, and everything around them breaking; and then a
//! checker that shares no code with the service and reads what is left.
//!
//! `cargo run --release -p faults -- --seconds 60 --seed 42` runs it; `--help` says what else there is. The exit code
//! is 0 only if everything held. What is checked stands in [`check`].

// A test program: where it cannot go on, it should end and say where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod check;
mod cli;
mod clients;
mod cluster;
mod graphql;
mod health;
mod history;
mod injector;
mod kinds;
mod proxy;
mod readers;
mod receiver;
mod replica;
mod run;
mod seeds;
mod volume;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    // An interrupted run still takes down what it has started.
    let held = tokio::select! {
        held = work(cli::Cli::parse()) => held,
        () = interrupted() => Err("interrupted".to_owned()),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::from(2)
        }
    }
}

async fn work(cli: cli::Cli) -> Result<bool, String> {
    match cli.command {
        None => run::run(cli.run).await,
        Some(cli::Command::Check { database_url, history, clocks_were_set }) => {
            run::check_alone(&database_url, history.as_deref(), clocks_were_set).await
        }
    }
}

async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
