//! Runs a witness.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, failed, print, raise_descriptors};
use crate::audit::note::VerifierKey;
use crate::witness::{Error, Witness};

/// Until somebody stops it.
pub(super) async fn run(
    state: &Path,
    name: &str,
    listen: SocketAddr,
    logs: Vec<VerifierKey>,
) -> Result<ExitCode, Failure> {
    raise_descriptors();
    let failure = |error: Error| failed(&error, error.remedy());
    let witness = Witness::open(state, name, logs).map_err(failure)?;
    print(&format!("{}\n", witness.key()));
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| failed(error, None))?;
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| failed(error, None))?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        stopping.cancel();
    });
    let greet = |address| _ = writeln!(std::io::stderr(), "tenancy witness listens on http://{address}");
    witness.run(listen, greet, stop).await.map_err(failure)?;
    Ok(ExitCode::SUCCESS)
}
