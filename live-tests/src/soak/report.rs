//! The numbers and the findings of a run, and its summary.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{answer::Answer, fault::Fault};

/// The number of findings after which a run need not go on.
const ENOUGH: usize = 20;

/// The numbers and the findings so far.
pub struct Report {
    seed: u64,
    began: Instant,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    operations: BTreeMap<String, Operation>,
    faults: BTreeMap<Fault, Struck>,
    /// The outcomes of changes whose answers were lost, with their numbers.
    outcomes: BTreeMap<String, u64>,
    findings: Vec<String>,
}

#[derive(Default)]
struct Operation {
    done: u64,
    refused: BTreeMap<String, u64>,
    longest: Duration,
}

/// The consequences of the faults of one kind.
#[derive(Default)]
struct Struck {
    times: u64,
    /// The answers of calls while the fault was at work, with their numbers.
    answers: BTreeMap<String, u64>,
    /// The observations of the workspaces afterwards, with their numbers.
    seen: BTreeMap<String, u64>,
    longest_recovery: Duration,
}

// === impl Report ===

impl Report {
    /// Makes an empty report.
    pub fn new(seed: u64) -> Self {
        Self { seed, began: Instant::now(), counts: Mutex::default() }
    }

    /// Counts an operation that was answered.
    pub fn answered(&self, operation: &str, answer: &Answer, took: Duration) {
        self.counts(|counts| {
            let entry = counts.operations.entry(operation.to_owned()).or_default();
            entry.longest = entry.longest.max(took);
            match answer.is_success() {
                true => entry.done += 1,
                false => *entry.refused.entry(answer.words()).or_default() += 1,
            }
        });
    }

    /// Counts a fault that was made.
    pub fn struck(&self, fault: Fault) {
        self.counts(|counts| counts.faults.entry(fault).or_default().times += 1);
        self.note(fault.name());
    }

    /// Counts a call that was answered while a fault was at work.
    pub fn answered_under(&self, fault: Fault, answer: &Answer) {
        self.counts(|counts| *counts.faults.entry(fault).or_default().answers.entry(answer.words()).or_default() += 1);
    }

    /// Counts a consequence of a fault.
    pub fn seen(&self, fault: Fault, what: &str) {
        self.counts(|counts| *counts.faults.entry(fault).or_default().seen.entry(what.to_owned()).or_default() += 1);
    }

    /// Counts the outcome of a change whose answer was lost.
    pub fn lost_answer(&self, outcome: &str) {
        self.counts(|counts| *counts.outcomes.entry(outcome.to_owned()).or_default() += 1);
    }

    /// Records the time after a fault until all was well again.
    pub fn recovered(&self, fault: Fault, took: Duration) {
        self.counts(|counts| {
            let struck = counts.faults.entry(fault).or_default();
            struck.longest_recovery = struck.longest_recovery.max(took);
        });
    }

    /// Records something that is not as it must be.
    pub fn finding(&self, what: impl Into<String>) {
        let what = format!("seed {} at {:.1} s: {}", self.seed, self.began.elapsed().as_secs_f64(), what.into());
        let count = self.counts(|counts| {
            counts.findings.push(what.clone());
            counts.findings.len()
        });
        if count <= 2 * ENOUGH {
            say(&format!("FINDING {what}"));
        }
    }

    /// Whether there is no point in going on.
    pub fn has_enough(&self) -> bool {
        self.counts(|counts| counts.findings.len() >= ENOUGH)
    }

    /// All findings.
    pub fn findings(&self) -> Vec<String> {
        self.counts(|counts| counts.findings.clone())
    }

    /// The number of faults of this kind that were made.
    pub fn times(&self, fault: Fault) -> u64 {
        self.counts(|counts| counts.faults.get(&fault).map_or(0, |struck| struck.times))
    }

    /// Prints a message about the progress.
    pub fn note(&self, what: &str) {
        say(&format!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64()));
    }

    /// The summary: two tables.
    pub fn summary(&self) -> String {
        self.counts(|counts| {
            let mut text = format!("\nseed {}, {:.0} s\n\n", self.seed, self.began.elapsed().as_secs_f64());
            text += "| operation | done | refused | longest | refusals |\n| --- | ---: | ---: | ---: | --- |\n";
            for (name, operation) in &counts.operations {
                let refused: u64 = operation.refused.values().sum();
                let (done, longest) = (operation.done, operation.longest.as_secs_f64());
                let line =
                    writeln!(text, "| {name} | {done} | {refused} | {longest:.1} s | {} |", listed(&operation.refused));
                line.ok();
            }
            text += "\n| fault | times | what happened | what users saw meanwhile | longest until all was well |\n";
            text += "| --- | ---: | --- | --- | ---: |\n";
            for fault in Fault::ALL {
                let nothing = Struck::default();
                let struck = counts.faults.get(fault).unwrap_or(&nothing);
                let recovery = match struck.longest_recovery {
                    Duration::ZERO => "-".to_owned(),
                    took => format!("{:.1} s", took.as_secs_f64()),
                };
                let (seen, answers) = (listed(&struck.seen), listed(&struck.answers));
                writeln!(text, "| {} | {} | {seen} | {answers} | {recovery} |", fault.name(), struck.times).ok();
            }
            writeln!(text, "\nchanges whose answers were lost, by their outcomes: {}", listed(&counts.outcomes)).ok();
            text
        })
    }

    fn counts<T>(&self, look: impl FnOnce(&mut Counts) -> T) -> T {
        look(&mut self.counts.lock())
    }
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> = sorted.into_iter().map(|(what, count)| format!("{what}: {count}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

/// Prints a line.
#[expect(clippy::print_stdout, reason = "what a soak says is what it is run for")]
pub fn say(line: &str) {
    println!("{line}");
}
