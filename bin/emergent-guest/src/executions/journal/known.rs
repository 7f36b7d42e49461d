//! The executions that a journal knows when it is read.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use emergent_guest_proto::ExecutionId;

use super::{Line, Started, record};
use crate::{
    executions::execution::{Ending, Run},
    own_files,
};

/// The most bytes that are read of a journal, many times what is ever in one.
const MOST: u64 = 64 << 20;

/// The executions of a journal.
#[derive(Debug, Default)]
pub(super) struct JournalState {
    runs: HashMap<ExecutionId, Noted>,
    /// The number of records in the file.
    pub(super) records: usize,
}

/// The journal's knowledge of an execution.
#[derive(Debug)]
struct Noted {
    /// The place of its start among the records.
    place: usize,
    started: Started,
    ending: Option<Ending>,
    dropped: [u64; 2],
}

impl JournalState {
    /// Reads a journal. What is not whole in it is passed over.
    pub(super) fn read(path: &Path) -> Self {
        let mut known = Self::default();
        let Ok(Some(file)) = own_files::open(path) else { return known };
        for line in BufReader::new(file.take(MOST)).split(b'\n').map_while(Result::ok).filter(|line| !line.is_empty()) {
            known.records += 1;
            if let Some(line) = record::read(&line) {
                known.note(line);
            }
        }
        known
    }

    fn note(&mut self, line: Line) {
        match line {
            Line::Started(started) => {
                let noted = Noted { place: self.records, started, ending: None, dropped: [0; 2] };
                self.runs.insert(noted.started.id.clone(), noted);
            }
            Line::Ended { id, ending } => {
                if let Some(noted) = self.runs.get_mut(&id) {
                    noted.ending = Some(ending);
                }
            }
            Line::Dropped { id, bytes } => {
                if let Some(noted) = self.runs.get_mut(&id) {
                    noted.dropped = larger(noted.dropped, bytes);
                }
            }
            Line::Forgotten { id } => drop(self.runs.remove(&id)),
        }
    }

    /// The executions whose end it does not know.
    pub(super) fn unfinished(&self) -> Vec<ExecutionId> {
        self.runs.values().filter(|noted| noted.ending.is_none()).map(|noted| noted.started.id.clone()).collect()
    }

    /// Notes the end of an execution.
    pub(super) fn ended(&mut self, id: ExecutionId, ending: Ending) -> Line {
        let line = Line::Ended { id, ending };
        self.note(line.clone());
        line
    }

    /// The records that say the same in the fewest lines.
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut runs: Vec<_> = self.runs.values().collect();
        runs.sort_by_key(|noted| noted.place);
        let lines = runs.into_iter().flat_map(|Noted { started, ending, dropped, .. }| {
            let id = || started.id.clone();
            let dropped = (*dropped != [0; 2]).then(|| Line::Dropped { id: id(), bytes: *dropped });
            let ended = ending.clone().map(|ending| Line::Ended { id: id(), ending });
            [Some(Line::Started(started.clone())), dropped, ended].into_iter().flatten()
        });
        lines.collect()
    }

    /// The executions that have ended, in the order of their start.
    pub(super) fn into_runs(self) -> Vec<Run> {
        let mut runs: Vec<_> = self.runs.into_values().collect();
        runs.sort_by_key(|noted| noted.place);
        let runs = runs.into_iter().filter_map(|Noted { started, ending, dropped, .. }| {
            let Started { id, command, pid, started_at_ms } = started;
            let mut ending = ending?;
            ending.dropped = larger(ending.dropped, dropped);
            Some(Run::remembered(id, command, pid, started_at_ms, ending))
        });
        runs.collect()
    }
}

fn larger(one: [u64; 2], other: [u64; 2]) -> [u64; 2] {
    [one[0].max(other[0]), one[1].max(other[1])]
}
