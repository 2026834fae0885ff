//! A report for a terminal.

use super::Report;
use super::tables::{Section, head, proofs, sections};

/// The widest that a column is made by a cell; a wider cell moves what follows it.
const COLUMN_CHARS_MAX: usize = 44;

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut text = String::from("AUDIT REPORT\n\n");
    pairs(&mut text, &head(report));
    for section in sections(report) {
        write_section(&mut text, &section);
    }
    heading(&mut text, "Proofs");
    pairs(&mut text, &proofs(report));
    text.push_str("\nTo check (the last command needs no service and runs on any machine):\n");
    for command in &report.proofs.commands {
        text.push_str(&format!("  {}\n", clean(command)));
    }
    text
}

/// Without what a terminal would obey: controls, and marks that turn the direction of what follows.
pub(crate) fn clean(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

fn heading(text: &mut String, title: &str) {
    text.push_str(&format!("\n{title}\n{}\n", "─".repeat(title.chars().count())));
}

fn pairs(text: &mut String, pairs: &[(&'static str, String)]) {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in pairs {
        text.push_str(&format!("{name:width$}  {}\n", clean(value)));
    }
}

fn write_section(text: &mut String, section: &Section) {
    heading(text, section.title);
    if let Some(note) = &section.note {
        text.push_str(&format!("{note}\n"));
    }
    if section.rows.is_empty() {
        text.push_str(&format!("{}\n", section.empty));
        return;
    }
    let titles: Vec<String> = section.columns.iter().map(|title| (*title).to_owned()).collect();
    let rows: Vec<Vec<String>> = section.rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&titles).chain(&rows).map(|row| row[column].chars().count());
        cells.filter(|width| *width <= COLUMN_CHARS_MAX).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    if let Some(more) = &section.more {
        text.push_str(&format!("… {more}\n"));
    }
}
