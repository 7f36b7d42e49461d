//! A row of the table: ours, the baseline, and whether the target is met.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Samples;

/// The target of a row: a bound of the ratio of ours to the baseline, or of ours.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// At most so much: less is better.
    AtMost(f64),
    /// At least so much: more is better.
    AtLeast(f64),
    /// Ours, not the ratio, at most so much in the row's unit.
    OursAtMost(f64),
}

/// A row.
#[derive(Debug, Clone)]
pub struct Row {
    /// The name of the measurement.
    pub name: &'static str,
    /// The runtime or the driver.
    pub runtime: &'static str,
    /// The unit of ours and the baseline.
    pub unit: &'static str,
    /// The target.
    pub target: Target,
    /// Ours and the baseline, or the reason why there is nothing.
    pub measured: Result<(Samples, Option<Samples>), String>,
}

impl Row {
    /// A row that could not be measured.
    pub fn missing(name: &'static str, runtime: &'static str, unit: &'static str, target: Target, why: &str) -> Self {
        Self { name, runtime, unit, target, measured: Err(why.to_owned()) }
    }

    fn ratio(&self) -> Option<f64> {
        let (ours, baseline) = self.measured.as_ref().ok()?;
        Some(ours.percentile(50) / baseline.as_ref()?.percentile(50))
    }

    fn ok(&self) -> bool {
        let Ok((ours, _)) = &self.measured else { return false };
        match self.target {
            Target::AtMost(most) => self.ratio().is_some_and(|ratio| ratio <= most),
            Target::AtLeast(least) => self.ratio().is_some_and(|ratio| ratio >= least),
            Target::OursAtMost(most) => ours.percentile(50) <= most,
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::AtMost(most) if most <= 0.5 => format!("ratio <= 1/{:.0}", 1.0 / most),
            Target::AtMost(most) => format!("ratio <= {most}"),
            Target::AtLeast(least) => format!("ratio >= {least}"),
            Target::OursAtMost(most) => format!("<= {most} {}", self.unit),
        }
    }

    fn to_json(&self) -> Value {
        let figures = |samples: &Samples| json!({ "p50": samples.percentile(50), "p99": samples.percentile(99) });
        let (ours, baseline) = match &self.measured {
            Ok((ours, baseline)) => (Some(ours), baseline.as_ref()),
            Err(_) => (None, None),
        };
        json!({
            "name": self.name,
            "runtime": self.runtime,
            "ours": ours.map(figures),
            "baseline": baseline.map(figures),
            "unit": self.unit,
            "ratio": self.ratio(),
            "target": self.target_text(),
            "ok": self.ok(),
            "samples": ours.map_or(0, Samples::count),
            "reason": self.measured.as_ref().err(),
        })
    }
}

/// Writes the rows as a list.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let list: Vec<_> = rows.iter().map(Row::to_json).collect();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(path, serde_json::to_vec_pretty(&list)?).with_context(|| format!("writing {}", path.display()))
}

/// Prints the rows for people.
#[expect(clippy::print_stdout, reason = "the table is what the benchmark is run for")]
pub fn print_table(rows: &[Row]) {
    println!(
        "| {:<44} | {:<11} | {:>22} | {:>22} | {:<6} | {:>8} | {:<14} | ok |",
        "what", "runtime", "ours p50 / p99", "baseline p50 / p99", "unit", "ratio", "target"
    );
    println!(
        "|{}|",
        [
            "-".repeat(46),
            "-".repeat(13),
            "-".repeat(24),
            "-".repeat(24),
            "-".repeat(8),
            "-".repeat(10),
            "-".repeat(16),
            "-".repeat(4)
        ]
        .join("|")
    );
    for row in rows {
        let figures = |samples: &Samples| format!("{:.2} / {:.2}", samples.percentile(50), samples.percentile(99));
        let (ours, baseline) = match &row.measured {
            Ok((ours, baseline)) => (figures(ours), baseline.as_ref().map_or_else(|| "-".to_owned(), figures)),
            Err(_) => ("-".to_owned(), "-".to_owned()),
        };
        println!(
            "| {:<44} | {:<11} | {ours:>22} | {baseline:>22} | {:<6} | {:>8} | {:<14} | {} |",
            row.name,
            row.runtime,
            row.unit,
            row.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
            row.target_text(),
            if row.ok() { "y " } else { "NO" },
        );
        if let Err(why) = &row.measured {
            println!("|   not measured: {why}");
        }
    }
}
