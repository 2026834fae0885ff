//! What those who run the service look at: health and metrics.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::database::Connections;
use crate::streams::{self, StreamStatus};
use crate::webhooks;

/// How long the database may take to answer before the service is not ready.
const DATABASE_WAIT: Duration = Duration::from_secs(2);

/// What health and metrics are judged by.
pub struct Health {
    /// The database.
    pub pool: Connections,
    /// Whether the service is stopping.
    pub stopping: CancellationToken,
    /// Whether the read models have shown once what the log held when the service started.
    pub filled: watch::Receiver<bool>,
    /// The names of the audit trail's streams that are configured.
    pub streams: Vec<String>,
    /// Where metrics are collected; none where somebody else collects them.
    pub metrics: Option<PrometheusHandle>,
}

/// Collects the metrics of this process. There is one collector a process.
pub fn install_metrics() -> Option<PrometheusHandle> {
    static COLLECTOR: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let install = || PrometheusBuilder::new().set_buckets(&buckets).ok()?.install_recorder().ok();
    COLLECTOR.get_or_init(install).clone()
}

/// The answer of a health check.
#[derive(Serialize)]
pub struct Ready {
    status: &'static str,
    reasons: Vec<String>,
}

/// The process answers.
pub async fn live() -> Json<Ready> {
    Json(Ready { status: "live", reasons: vec![] })
}

/// Whether requests should be sent here, and why not. A read model that an event stopped is named; the service
/// still answers then, from a state that is known to be old there.
pub async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let mut reasons = vec![];
    let mut status = StatusCode::OK;
    if shared.health.stopping.is_cancelled() {
        status = StatusCode::SERVICE_UNAVAILABLE;
        reasons.push("the service is stopping".to_owned());
    }
    if shared.app.commands.log().is_closed() {
        status = StatusCode::SERVICE_UNAVAILABLE;
        reasons.push("the writer of the log has ended".to_owned());
    }
    match tokio::time::timeout(DATABASE_WAIT, projections::status(&shared.health.pool)).await {
        Ok(Ok(projections)) => {
            reasons.extend(projections.iter().filter(|status| !status.parked.is_empty()).map(parked));
            if !*shared.health.filled.borrow() {
                status = StatusCode::SERVICE_UNAVAILABLE;
                let behind: i64 = projections.iter().map(projections::Status::lag_events).sum();
                reasons.push(format!("the read models are being filled: {behind} events to go"));
            }
        }
        Ok(Err(_)) | Err(_) => {
            status = StatusCode::SERVICE_UNAVAILABLE;
            reasons.push("the database does not answer".to_owned());
        }
    }
    let alarms = shared.app.commands.log().alarms().all().len();
    if alarms > 0 {
        // Anybody may ask for this: what it is about is for operators.
        reasons.push(format!("the log is not as the service wrote it ({alarms}): see `tenancy audit status`"));
    }
    for stream in stream_states(&shared.health).await.iter().filter(|stream| stream.failing_since.is_some()) {
        reasons.push(format!("audit stream {} does not get through: see `tenancy audit streams`", stream.name));
    }
    let text = match (status.is_success(), reasons.is_empty()) {
        (true, true) => "ready",
        (true, false) => "degraded",
        (false, _) => "unavailable",
    };
    (status, Json(Ready { status: text, reasons })).into_response()
}

/// How the streams stand that are configured; nothing while the database does not answer.
async fn stream_states(health: &Health) -> Vec<StreamStatus> {
    if health.streams.is_empty() {
        return vec![];
    }
    let states = tokio::time::timeout(DATABASE_WAIT, streams::status(&health.pool)).await;
    let states = states.ok().and_then(Result::ok).unwrap_or_default();
    states.into_iter().filter(|stream| health.streams.contains(&stream.name)).collect()
}

fn parked(status: &projections::Status) -> String {
    let first = status.parked.first();
    let failure = first.map(|stream| format!("{}: {}", stream.aggregate_id, stream.failure)).unwrap_or_default();
    format!("projection {} leaves out {} streams; {failure}", status.projection.name(), status.parked.len())
}

/// Metrics in Prometheus' text format.
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let Some(collector) = &shared.health.metrics else { return StatusCode::NOT_FOUND.into_response() };
    if let Ok(Ok(projections)) = tokio::time::timeout(DATABASE_WAIT, projections::status(&shared.health.pool)).await {
        for status in projections {
            let name = status.projection.name();
            for row in &status.partitions {
                let labels = [("projection", name.to_owned()), ("partition", row.partition.to_string())];
                metrics::gauge!("tenancy_projection_lag_events", &labels).set(row.lag_events() as f64);
                metrics::gauge!("tenancy_projection_lag_seconds", &labels).set(row.lag_seconds);
            }
            metrics::gauge!("tenancy_projection_parked_streams", "projection" => name).set(status.parked.len() as f64);
        }
    }
    if let Ok(Ok(webhooks)) = tokio::time::timeout(DATABASE_WAIT, webhooks::queue_state(&shared.health.pool)).await {
        metrics::gauge!("tenancy_webhook_oldest_due_seconds").set(webhooks.oldest_due_seconds);
        metrics::gauge!("tenancy_webhook_endpoints_disabled").set(webhooks.endpoints_disabled as f64);
        metrics::gauge!("tenancy_webhook_endpoints_failing").set(webhooks.endpoints_failing as f64);
    }
    for stream in stream_states(&shared.health).await {
        let failing = stream.failing_since.map_or(0.0, |since| (Utc::now() - since).as_seconds_f64().max(0.0));
        let labels = [("stream", stream.name)];
        metrics::gauge!("tenancy_audit_stream_lag_events", &labels).set(stream.lag_events as f64);
        metrics::gauge!("tenancy_audit_stream_lag_seconds", &labels).set(stream.lag_seconds);
        metrics::gauge!("tenancy_audit_stream_failing_seconds", &labels).set(failing);
    }
    metrics::gauge!("tenancy_audit_alarms").set(shared.app.commands.log().alarms().all().len() as f64);
    if let Some(age) = shared.app.verified.age_seconds() {
        metrics::gauge!("tenancy_audit_verified_age_seconds").set(age);
    }
    metrics::gauge!("tenancy_database_connections").set(f64::from(shared.health.pool.size()));
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, collector.render()).into_response()
}

/// What there is instead.
pub async fn no_such_route() -> Response {
    let text = "There is nothing here. Try /graphql, /health/ready or /metrics.\n";
    (StatusCode::NOT_FOUND, text).into_response()
}
