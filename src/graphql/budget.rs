//! How many bytes an answer may still hold, spent while it is made: what is asked for is refused before it is there.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_graphql::Error;
use serde_json::Value;

use super::errors::coded;

/// What is left of an answer's bytes.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
    maximum: usize,
    /// The setting that sets the maximum.
    setting: &'static str,
}

impl Budget {
    /// Of this many bytes, by this setting.
    pub const fn new(maximum: usize, setting: &'static str) -> Self {
        Self { left: AtomicUsize::new(maximum), maximum, setting }
    }

    /// Takes so many bytes more; QUERY_TOO_EXPENSIVE where they are not left. Then nothing is left for the rest of the
    /// answer either.
    pub fn spend(&self, bytes: usize) -> Result<(), Error> {
        let spent =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
        match spent {
            Ok(left) if left >= bytes => Ok(()),
            Ok(_) | Err(_) => Err(self.exceeded()),
        }
    }

    /// Takes what a document is as text.
    pub fn spend_on(&self, document: &Value) -> Result<(), Error> {
        let mut written = Counted(0);
        // Nothing is written, so nothing fails.
        let _ = serde_json::to_writer(&mut written, document);
        self.spend(written.0)
    }

    /// Why there is no answer.
    fn exceeded(&self) -> Error {
        let (maximum, setting) = (self.maximum, self.setting);
        let message = format!(
            "the answer would be longer than {maximum} bytes ({setting}): ask for less, or in several requests"
        );
        coded("QUERY_TOO_EXPENSIVE", message)
    }
}

/// Counts what is written.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_gone_and_one_past_it_is_refused() {
        let budget = Budget::new(10, "limits.some_bytes_max");
        assert!(budget.spend(4).is_ok() && budget.spend(6).is_ok());
        let refused = budget.spend(1).err().map(|error| error.message).unwrap_or_default();
        assert!(refused.contains("10 bytes (limits.some_bytes_max)"), "{refused}");
        assert!(Budget::new(10, "").spend(11).is_err());
        let document = serde_json::json!({"a": [1, 2]});
        assert!(Budget::new(11, "").spend_on(&document).is_ok());
        assert!(Budget::new(10, "").spend_on(&document).is_err());
    }
}
