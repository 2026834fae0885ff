//! What services and server say of themselves: failed batches and why, panics, and errors that must not be.
//!
//! The unique keys of the tables stand behind the append: a defect in it becomes an error there, the batch is tried
//! again from what the log says, and nothing wrong is left to be found. So the error itself is what is to be found.
//! The append decides under the locks of its partitions and of the global keys, from what it has just read there, and
//! looks up what was in doubt before it tries again. Hence no fault of this harness makes it break a constraint: after
//! a commit in doubt the old session holds the locks until it has ended, and what it wrote is then seen. The one way
//! without a defect is a client that uses one idempotency key for two organizations at once, which these clients do
//! not. So each error of class 23 in a session of a writer counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::check::Findings;
use crate::clients::Office;

/// Why batches failed, by reason, as the services' logs say; and what must not be, as violations.
pub fn read_service_log(path: &Path, reasons: &mut BTreeMap<String, u64>, findings: &mut Findings) {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    for line in text.lines() {
        if line.contains("panicked at") {
            findings.add("a service does not panic", || line.to_owned());
        }
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let fields = &entry["fields"];
        let error = fields["error"].as_str().unwrap_or_default();
        match fields["message"].as_str().unwrap_or_default() {
            "a batch failed" => {
                *reasons.entry(reason(error)).or_default() += 1;
                if error.contains("the log holds what cannot be") {
                    findings.add("the append meets nothing that cannot be", || line.to_owned());
                }
            }
            "a request met what should not be" => {
                findings.add("no request meets what should not be", || line.to_owned());
            }
            "an event stops its partition of a projection" => {
                findings.add("no event stops a projection", || line.to_owned());
            }
            _ => {}
        }
    }
}

/// A reason without what differs from case to case.
fn reason(error: &str) -> String {
    let short = error.replace("the database failed: ", "").replace("error returned from database: ", "");
    short.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).take(90).collect()
}

/// Errors in the writers' sessions by SQLSTATE, as the server's log says.
pub fn read_server_log(path: &Path, findings: &mut Findings) -> BTreeMap<String, u64> {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let mut states = BTreeMap::new();
    for line in text.lines() {
        let Some(state) = error_of_writer(line) else { continue };
        *states.entry(state.to_owned()).or_default() += 1;
        if state.starts_with("23") {
            findings.add("the append does not rely on the keys behind it", || line.to_owned());
        }
    }
    states
}

/// The SQLSTATE of an error in a writer's session.
fn error_of_writer(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("(tenancy writer) ")?;
    let (state, said) = rest.split_once(' ')?;
    ["ERROR:", "FATAL:", "PANIC:"].iter().any(|level| said.starts_with(level)).then_some(state)
}

/// Counts failed batches by the services' metrics; a service that starts again starts at none.
#[derive(Default)]
pub struct FailedBatches {
    last: Vec<u64>,
    total: u64,
}

impl FailedBatches {
    /// Looks at all replicas.
    pub async fn look(&mut self, office: &Office) {
        self.last.resize(office.replicas.len(), 0);
        for (replica, last) in office.replicas.iter().zip(&mut self.last) {
            let request = office.http.get(replica.url("/metrics")).timeout(Duration::from_secs(2)).send();
            let Ok(Ok(text)) = tokio::time::timeout(Duration::from_secs(2), async {
                match request.await {
                    Ok(response) => response.text().await,
                    Err(error) => Err(error),
                }
            })
            .await
            else {
                continue;
            };
            let now = counter(&text, "tenancy_append_batches_failed_total");
            self.total += if now >= *last { now - *last } else { now };
            *last = now;
        }
    }

    /// How many were seen.
    pub fn total(&self) -> u64 {
        self.total
    }
}

fn counter(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_writers_are_told_from_others() {
        let line = "2026-01-01 00:00:00 UTC [7] (tenancy writer) 23505 ERROR:  duplicate key value";
        assert_eq!(error_of_writer(line), Some("23505"));
        assert_eq!(error_of_writer(&line.replace(" writer", "")), None);
        assert_eq!(error_of_writer(&line.replace("ERROR", "DETAIL")), None);
    }

    #[test]
    fn counters_are_read_and_reasons_are_told_apart() {
        assert_eq!(counter("# TYPE x counter\nx 3\ny 4\n", "x"), 3);
        assert_eq!(counter("", "x"), 0);
        assert_eq!(reason("the database failed: pool 12"), "pool ##");
    }
}
