//! Events for spreadsheets, without proofs.

use aggregates::Recorded;
use serde_json::Value;

use super::data::data;
use super::leaf::time;
use crate::log::StoredEvent;

/// The columns of the table.
const COLUMNS: [&str; 13] = [
    "audit_sequence",
    "recorded_at",
    "action",
    "actor",
    "on_behalf_of",
    "subject_id",
    "ip",
    "user_agent",
    "request_id",
    "correlation_id",
    "causation_id",
    "event_id",
    "data",
];

/// The first line of the table.
pub fn csv_head() -> String {
    COLUMNS.join(",") + "\r\n"
}

/// A cell as RFC 4180 has it. What a spreadsheet would take for a formula gets an apostrophe, which it takes for text: at
/// the beginning, and behind whatever separates cells where a comma does not (a semicolon, a tab), for quotes hold only
/// where the separator is the one that was meant.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 2);
    let mut begins = true;
    for c in text.chars() {
        if begins && matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r') {
            safe.push('\'');
        }
        begins = matches!(c, ';' | ',' | '\t' | '|' | '\n' | '\r') || (begins && matches!(c, ' ' | '"'));
        safe.push(c);
    }
    match safe.contains(['"', ',', ';', '\t', '\n', '\r']) {
        true => format!("\"{}\"", safe.replace('"', "\"\"")),
        false => safe,
    }
}

/// `org.verified`; the stored name of what this program does not know.
pub(super) fn action(row: &StoredEvent, read: Option<&Recorded>) -> String {
    read.map_or_else(|| row.event_type.clone(), |recorded| recorded.event.descriptor().action())
}

fn own(read: Option<&Recorded>) -> Value {
    read.map_or(Value::Null, |recorded| Value::Object(data(recorded)))
}

/// An event as a line of the table; one that cannot be read any more without what is its own.
pub fn csv(row: &StoredEvent, read: Option<&Recorded>) -> String {
    let origin = read.map(|recorded| &recorded.origin);
    let cells: [Option<String>; COLUMNS.len()] = [
        row.audit_sequence.map(|number| number.to_string()),
        Some(time(row.recorded_at)),
        Some(action(row, read)),
        Some(row.actor.clone()),
        row.on_behalf_of.clone(),
        Some(row.aggregate_id.clone()),
        origin.and_then(|origin| origin.ip.clone()),
        origin.and_then(|origin| origin.user_agent.clone()),
        row.request_id.clone(),
        Some(row.correlation_id.to_string()),
        row.causation_id.clone(),
        Some(row.event_id.clone()),
        Some(own(read).to_string()),
    ];
    cells.map(|text| cell(&text.unwrap_or_default())).join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The cells of the only record that a reader of this separator finds.
    fn read(line: &str, separator: u8) -> Vec<String> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).delimiter(separator).from_reader(line.as_bytes());
        let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap_or_default();
        assert!(records.len() <= 1, "{line}");
        records.iter().flatten().map(str::to_owned).collect()
    }

    proptest! {
        /// Cells of what separates, quotes and begins formulas.
        #[test]
        fn a_reader_finds_the_cells_and_no_formula(texts in prop::collection::vec(r#"[=+\-@;,\t|\r\n "a]{0,12}"#, 2..5)) {
            let line = texts.iter().map(|text| cell(text)).collect::<Vec<_>>().join(",") + "\r\n";
            let cells = read(&line, b',');
            prop_assert_eq!(cells.len(), texts.len());
            for (cell, text) in cells.iter().zip(&texts) {
                prop_assert_eq!(cell.replace('\'', ""), text.as_str());
                prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{}", cell);
            }
        }
    }

    #[test]
    fn cells_are_quoted_and_no_formulas() {
        assert_eq!(cell("plain"), "plain");
        assert_eq!(cell("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(cell("@SUM(A1,A2)"), "\"'@SUM(A1,A2)\"");
        // Where semicolons separate, the quotes are in the middle of a cell and hold nothing.
        assert_eq!(cell("a;=1+1"), "\"a;'=1+1\"");
        assert_eq!(cell("a; =1+1"), "\"a; '=1+1\"");
        assert_eq!(cell("a\n@x"), "\"a\n'@x\"");
        assert_eq!(cell("a-b=c"), "a-b=c");
        assert_eq!(cell("{\"a\":1}"), "\"{\"\"a\"\":1}\"");
    }
}
