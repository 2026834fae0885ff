//! What a check found to be wrong, with the first few examples of it.

use std::collections::BTreeMap;

/// How many examples of one violation are kept.
const EXAMPLES_MAX: usize = 6;

/// Violations by check.
#[derive(Debug, Default)]
pub struct Findings(BTreeMap<&'static str, (u64, Vec<String>)>);

impl Findings {
    /// Adds a violation of `check`.
    pub fn add(&mut self, check: &'static str, example: impl FnOnce() -> String) {
        let (count, examples) = self.0.entry(check).or_default();
        *count += 1;
        if examples.len() < EXAMPLES_MAX {
            examples.push(example());
        }
    }

    /// Takes over what was found elsewhere.
    pub fn take_over(&mut self, other: Self) {
        for (check, (count, examples)) in other.0 {
            let (own, kept) = self.0.entry(check).or_default();
            *own += count;
            kept.extend(examples);
        }
    }

    /// Whether everything held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The checks that were violated.
    #[cfg(test)]
    pub fn checks(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }

    /// Every violated check with its count and first examples.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (check, (count, examples)) in &self.0 {
            text.push_str(&format!("VIOLATED {check}: {count} times\n"));
            examples.iter().for_each(|example| text.push_str(&format!("    {example}\n")));
        }
        text
    }
}
