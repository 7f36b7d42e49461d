//! What survives a restart of the guest: one JSON line when an execution starts and one when it ends.
//!
//! Lines are written by a thread of their own and never synced: losing the newest ones with the machine costs no more
//! than calling an execution lost. A line that cannot be read is skipped.

use std::{
    collections::HashMap,
    fs::{File, Permissions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use emergent_guest_proto::{ExecutionId, Outcome};
use serde::{Deserialize, Serialize};

use super::run::{Ending, Run};

/// After so many lines the journal is written anew without those that say nothing any more.
const COMPACT_AFTER: usize = 8_000;

/// Lines waiting for the disk at most.
const QUEUE: usize = 4_096;

/// A line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// An execution's process was made.
    Started(Started),
    /// An execution's process is gone.
    Ended {
        /// Its id.
        id: ExecutionId,
        /// How.
        ending: Ending,
    },
    /// The beginning of an execution's output is no longer kept.
    Dropped {
        /// Its id.
        id: ExecutionId,
        /// How many bytes of standard output and error.
        bytes: [u64; 2],
    },
    /// An execution is forgotten.
    Forgotten {
        /// Its id.
        id: ExecutionId,
    },
}

/// An execution's process was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// Its id.
    pub id: ExecutionId,
    /// Its command, cut.
    pub command: String,
    /// Its process.
    pub pid: u32,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
}

/// Writes lines.
#[derive(Debug)]
pub struct Journal {
    lines: mpsc::SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Line),
    Flush(mpsc::SyncSender<()>),
}

struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    lines: usize,
}

/// The executions of a journal, oldest first.
#[derive(Debug, Default)]
struct Known {
    order: Vec<ExecutionId>,
    runs: HashMap<ExecutionId, Noted>,
}

/// The journal's knowledge of an execution.
#[derive(Debug)]
struct Noted {
    started: Started,
    ending: Option<Ending>,
    dropped: [u64; 2],
}

impl Journal {
    /// Reads what an earlier guest left at `path`, oldest first, and starts to write. What had not ended is lost.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Run>)> {
        let mut known = Known::read(path);
        for noted in known.runs.values_mut() {
            noted.ending.get_or_insert_with(lost);
        }
        let mut writer = known.write(path)?;
        let runs = known.into_runs();
        let (lines, queue) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().name("journal".into()).spawn(move || writer.run(&queue))?;
        Ok((Self { lines }, runs))
    }

    /// Queues a line. When the disk cannot keep up it is dropped: a caller is never held up.
    pub fn write(&self, line: Line) {
        let _ = self.lines.try_send(Message::Line(line));
    }

    /// Writes lines, whatever else waits for the disk, and returns when they are in the file. Blocks.
    pub fn keep(&self, lines: impl Iterator<Item = Line>) {
        for line in lines {
            // The thread that writes lives as long as this.
            let _ = self.lines.send(Message::Line(line));
        }
        self.flush();
    }

    /// Waits until every line queued so far is in the file. Blocks.
    pub fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.lines.send(Message::Flush(done)).is_ok() {
            let _ = written.recv();
        }
    }
}

fn larger(one: [u64; 2], other: [u64; 2]) -> [u64; 2] {
    [one[0].max(other[0]), one[1].max(other[1])]
}

fn lost() -> Ending {
    Ending {
        outcome: Outcome::Lost,
        exit_code: None,
        signal: None,
        duration_ms: 0,
        reason: Some("the workspace stopped while the command was running".into()),
        written: [0; 2],
        dropped: [0; 2],
    }
}

// === impl Writer ===

impl Writer {
    fn run(&mut self, queue: &mpsc::Receiver<Message>) {
        while let Ok(message) = queue.recv() {
            let written = match message {
                Message::Line(line) => self.write(&line),
                Message::Flush(done) => self.file.flush().map(|()| done.send(()).unwrap_or_default()),
            };
            // One write for all the lines that are there.
            let idle = queue.try_recv();
            let more = match idle {
                Ok(Message::Line(line)) => self.write(&line),
                Ok(Message::Flush(done)) => self.file.flush().map(|()| done.send(()).unwrap_or_default()),
                Err(_) => self.file.flush(),
            };
            if let Err(error) = written.and(more) {
                tracing::warn!(%error, "the journal of executions cannot be written");
            }
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.file.write_all(b"\n")?;
        self.lines += 1;
        if self.lines > COMPACT_AFTER {
            self.file.flush()?;
            *self = Known::read(&self.path).write(&self.path)?;
        }
        Ok(())
    }
}

// === impl Known ===

impl Known {
    fn read(path: &Path) -> Self {
        let mut known = Self::default();
        let Ok(file) = File::open(path) else { return known };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            match serde_json::from_slice(&line) {
                Ok(Line::Started(started)) => {
                    known.order.push(started.id.clone());
                    known.runs.insert(started.id.clone(), Noted { started, ending: None, dropped: [0; 2] });
                }
                Ok(Line::Ended { id, ending }) => {
                    if let Some(noted) = known.runs.get_mut(&id) {
                        noted.ending = Some(ending);
                    }
                }
                Ok(Line::Dropped { id, bytes }) => {
                    if let Some(noted) = known.runs.get_mut(&id) {
                        noted.dropped = larger(noted.dropped, bytes);
                    }
                }
                Ok(Line::Forgotten { id }) => drop(known.runs.remove(&id)),
                Err(_) => {} // Cut off by the end of an earlier guest.
            }
        }
        known
    }

    /// Writes the journal anew, in one step, and goes on with it.
    fn write(&self, path: &Path) -> io::Result<Writer> {
        let new = path.with_extension("new");
        // Commands may be root's, and agents may look into the directory.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        let mut writer = Writer { path: path.to_owned(), file: BufWriter::new(file), lines: 0 };
        for Noted { started, ending, dropped } in self.order.iter().filter_map(|id| self.runs.get(id)) {
            let id = || started.id.clone();
            let dropped = (*dropped != [0; 2]).then(|| Line::Dropped { id: id(), bytes: *dropped });
            let ended = ending.clone().map(|ending| Line::Ended { id: id(), ending });
            for line in [Some(Line::Started(started.clone())), dropped, ended].into_iter().flatten() {
                serde_json::to_writer(&mut writer.file, &line)?;
                writer.file.write_all(b"\n")?;
            }
        }
        writer.file.flush()?;
        std::fs::rename(&new, path)?;
        Ok(writer)
    }

    fn into_runs(mut self) -> Vec<Run> {
        let runs = self.order.iter().filter_map(|id| self.runs.remove(id));
        let runs = runs.map(|Noted { started, ending, dropped }| {
            let Started { id, command, pid, started_at_ms } = started;
            let mut ending = ending.unwrap_or_else(lost);
            ending.dropped = larger(ending.dropped, dropped);
            Run::remembered(id, command, pid, started_at_ms, ending)
        });
        runs.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(id: &str) -> Line {
        let id = ExecutionId::new(id).unwrap();
        Line::Started(Started { id, command: "true".into(), pid: 7, started_at_ms: 1 })
    }

    #[test]
    fn what_had_not_ended_is_lost_and_what_is_forgotten_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (journal, runs) = Journal::open(&path).unwrap();
        assert!(runs.is_empty());
        for id in ["a", "b", "c"] {
            journal.write(started(id));
        }
        let ending = Ending { outcome: Outcome::Exited, exit_code: Some(3), reason: None, written: [5, 0], ..lost() };
        journal.write(Line::Ended { id: ExecutionId::new("b").unwrap(), ending: ending.clone() });
        journal.write(Line::Forgotten { id: ExecutionId::new("a").unwrap() });
        journal.flush();
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"event\":\"star").unwrap();
        let (_, runs) = Journal::open(&path).unwrap();
        let endings: Vec<_> = runs.iter().map(|run| (run.id.as_str(), run.ending().unwrap().outcome)).collect();
        assert_eq!(endings, [("b", Outcome::Exited), ("c", Outcome::Lost)]);
        assert_eq!(runs[0].ending(), Some(ending));
    }

    #[test]
    fn the_journal_does_not_grow_without_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut writer = Known::default().write(&path).unwrap();
        for number in 0..COMPACT_AFTER {
            let id = ExecutionId::new(number.to_string()).unwrap();
            writer.write(&started(id.as_str())).unwrap();
            writer.write(&Line::Forgotten { id }).unwrap();
        }
        writer.file.flush().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 200 * COMPACT_AFTER as u64);
    }
}
