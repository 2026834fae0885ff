//! Figures, the table and the JSON.

use serde_json::{Value, json};

use crate::stats::{median, spread};

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At least so many times the reference; and what is aimed at.
    Times(f64, f64),
    /// At most so many times the reference.
    AtMostTimes(f64),
    /// At most so much more than the reference.
    Over(f64),
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
    /// None: extra information.
    Shown,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Figure {
    /// The group, as `--only` names it.
    pub group: &'static str,
    /// What was measured.
    pub title: String,
    /// In what.
    pub unit: &'static str,
    /// Each round.
    pub ours: Vec<f64>,
    /// What it is compared with, each round; empty where it could not be had, and then `note` says why.
    pub reference: Vec<f64>,
    /// What the reference is.
    pub reference_title: String,
    /// What it has to reach.
    pub goal: Goal,
    /// What else a reader should know.
    pub note: String,
}

impl Figure {
    /// A figure without a reference.
    pub fn alone(
        group: &'static str,
        title: impl Into<String>,
        unit: &'static str,
        ours: Vec<f64>,
        goal: Goal,
    ) -> Self {
        let (reference, reference_title, note) = (vec![], String::new(), String::new());
        Self { group, title: title.into(), unit, ours, reference, reference_title, goal, note }
    }

    /// Beside a reference of the same rounds.
    pub fn beside(mut self, title: impl Into<String>, reference: &Result<Vec<f64>, String>) -> Self {
        self.reference_title = title.into();
        match reference {
            Ok(values) => self.reference = values.clone(),
            Err(why) => self.note = why.clone(),
        }
        self
    }

    /// With a remark.
    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// The ratio of each round.
    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.reference).map(|(ours, reference)| ours / reference).collect()
    }

    /// Whether it is met; `None` where that cannot be said.
    pub fn met(&self) -> Option<bool> {
        let (ours, ratio) = (median(&self.ours), median(&self.ratios()));
        let known = |value: f64, met: bool| (!value.is_nan()).then_some(met);
        match self.goal {
            Goal::Times(reach, _) => known(ratio, ratio >= reach),
            Goal::AtMostTimes(most) => known(ratio, ratio <= most),
            Goal::Over(most) => {
                let over = ours - median(&self.reference);
                known(over, over <= most)
            }
            Goal::AtMost(most) => known(ours, ours <= most),
            Goal::AtLeast(least) => known(ours, ours >= least),
            Goal::Shown => None,
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::Times(reach, aim) if aim > reach => format!("≥ {reach} × (aim {aim})"),
            Goal::Times(reach, _) => format!("≥ {reach} ×"),
            Goal::AtMostTimes(most) => format!("≤ {most} ×"),
            Goal::Over(most) => format!("≤ + {most} {}", self.unit),
            Goal::AtMost(most) => format!("≤ {most} {}", self.unit),
            Goal::AtLeast(least) => format!("≥ {least} {}", self.unit),
            Goal::Shown => "shown".to_owned(),
        }
    }

    fn ratio_text(&self) -> String {
        let ratios = self.ratios();
        if ratios.is_empty() {
            return "–".to_owned();
        }
        let (low, high) = spread(&ratios);
        match self.goal {
            Goal::Over(_) => format!("{:+.2}", median(&self.ours) - median(&self.reference)),
            _ => format!("{:.2} × ({low:.2}–{high:.2})", median(&ratios)),
        }
    }

    fn row(&self) -> [String; 6] {
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let title = if self.reference_title.is_empty() {
            self.title.clone()
        } else {
            format!("{} / {}", self.title, self.reference_title)
        };
        [
            title,
            number(median(&self.ours), self.unit),
            number(median(&self.reference), self.unit),
            self.ratio_text(),
            self.goal_text(),
            met.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "group": self.group, "title": self.title, "unit": self.unit, "ours": self.ours,
            "reference": self.reference, "reference_title": self.reference_title,
            "median": finite(median(&self.ours)), "median_reference": finite(median(&self.reference)),
            "ratios": self.ratios(), "ratio": finite(median(&self.ratios())),
            "goal": self.goal_text(), "met": self.met(), "note": self.note,
        })
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn number(value: f64, unit: &str) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value.abs() >= 100.0 => format!("{value:.0} {unit}"),
        value if value.abs() >= 10.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.2} {unit}"),
    }
}

/// All figures as a table, remarks below it.
pub fn table(figures: &[Figure]) -> String {
    let mut rows = vec![["figure / reference", "ours", "reference", "ratio", "goal", "met"].map(str::to_owned)];
    rows.extend(figures.iter().map(Figure::row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                1 | 2 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            })
            .collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if number == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text.push_str(&format!("| {} |\n", rules.join(" | ")));
        }
    }
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        text.push_str(&format!("{}: {}\n", figure.title, figure.note));
    }
    text
}

/// All figures and the machine as JSON.
pub fn document(figures: &[Figure], machine: Value, run: Value) -> Value {
    json!({"machine": machine, "run": run, "figures": figures.iter().map(Figure::json).collect::<Vec<_>>()})
}
