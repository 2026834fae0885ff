//! How the audit trail's streams stand.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::operate::exit;
use super::{Failure, failed, print};
use crate::audit::leaf::time;
use crate::config::Config;
use crate::database::embedded::Purpose;
use crate::log::Position;
use crate::service::Core;
use crate::streams::{self, StreamStatus};

/// All streams, also those that are not configured any more. Exit code 1 if one that is configured does not get through.
pub(super) async fn streams(config: &Config, as_json: bool) -> Result<ExitCode, Failure> {
    let core = Core::open(config, Purpose::Command).await?;
    let (status, epoch) = (streams::status(&core.database.pool).await, core.commands.log().epoch());
    core.close().await?;
    let mut status = status.map_err(|error| failed(error, None))?;
    let configured = |name: &str| config.audit.streams.0.iter().any(|stream| stream.name == name);
    for stream in &config.audit.streams.0 {
        if !status.iter().any(|known| known.name == stream.name) {
            status.push(StreamStatus { name: stream.name.clone(), ..StreamStatus::default() });
        }
    }
    let text = status.iter().map(|stream| match as_json {
        true => line_json(stream, configured(&stream.name), epoch),
        false => line_text(stream, configured(&stream.name), epoch),
    });
    let text = text.collect::<String>();
    print(if text.is_empty() { "no stream is configured (audit.streams)\n" } else { &text });
    Ok(exit(!status.iter().any(|stream| configured(&stream.name) && stream.failing_since.is_some())))
}

/// `sending`, `failing`, `not begun`, or `not configured`.
fn state(stream: &StreamStatus, configured: bool) -> &'static str {
    match (configured, stream.partitions.is_empty(), &stream.failing_since) {
        (false, ..) => "not configured",
        (true, true, _) => "not begun",
        (true, false, Some(_)) => "failing",
        (true, false, None) => "sending",
    }
}

fn position(stream: &StreamStatus, epoch: i64) -> Position {
    Position { epoch, offsets: stream.partitions.iter().copied().zip(stream.offsets.iter().copied()).collect() }
}

fn line_text(stream: &StreamStatus, configured: bool, epoch: i64) -> String {
    let (name, state, lag, seconds) = (&stream.name, state(stream, configured), stream.lag_events, stream.lag_seconds);
    let mut text = format!("{name}: {state}, {lag} events behind ({seconds:.1} s), {} sent", stream.sent);
    if let Some(at) = stream.sent_at {
        text += &format!(", the last at {}", time(at));
    }
    if !stream.partitions.is_empty() {
        text += &format!("\n  position {}", position(stream, epoch));
    }
    if let (Some(since), Some(at)) = (stream.failing_since, stream.failed_at) {
        let failure = stream.failure.as_deref().unwrap_or_default();
        text += &format!("\n  failing since {}, last at {}: {failure}", time(since), time(at));
    }
    text + "\n"
}

fn line_json(stream: &StreamStatus, configured: bool, epoch: i64) -> String {
    let at = |at: Option<DateTime<Utc>>| at.map_or(Value::Null, |at| Value::String(time(at)));
    let line = json!({
        "name": stream.name, "state": state(stream, configured), "lagEvents": stream.lag_events,
        "lagSeconds": stream.lag_seconds, "sent": stream.sent, "sentAt": at(stream.sent_at),
        "position": position(stream, epoch).to_string(), "failingSince": at(stream.failing_since),
        "failedAt": at(stream.failed_at), "failure": stream.failure,
    });
    format!("{line}\n")
}
