//! The journal, which survives a restart of the guest: one record when an execution starts and one when it ends.
//!
//! A thread of its own appends records, and never syncs them: losing the newest ones with the machine costs no more
//! than calling an execution lost. A record that is not whole is passed over. On a full disk the guest goes on all the
//! same: records wait in memory, and [`Journal::problem`] says so.

mod known;
mod record;
mod reserve;
mod writer;

use std::{io, path::Path, sync::mpsc, thread};

use emergent_guest_proto::{ExecutionId, Outcome};
use serde::{Deserialize, Serialize};

use self::{
    known::JournalState,
    writer::{Problem, Writer},
};
use super::execution::{Ending, Run};

/// Records that wait for the thread at most.
const QUEUE: usize = 4_096;

/// The contents of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// An execution's process was made.
    Started(Started),
    /// An execution's process is gone.
    Ended {
        /// The execution's id.
        id: ExecutionId,
        /// The outcome of the execution.
        ending: Ending,
    },
    /// The beginning of an execution's output is no longer kept.
    Dropped {
        /// The execution's id.
        id: ExecutionId,
        /// The number of bytes of standard output and error.
        bytes: [u64; 2],
    },
    /// An execution is forgotten.
    Forgotten {
        /// The execution's id.
        id: ExecutionId,
    },
}

/// An execution's process was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// The execution's id.
    pub id: ExecutionId,
    /// The execution's command, cut.
    pub command: String,
    /// The id of the execution's process.
    pub pid: u32,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
}

/// Writes records.
#[derive(Debug)]
pub struct Journal {
    messages: mpsc::SyncSender<Message>,
    problem: Problem,
}

/// The executions of an earlier guest.
#[derive(Debug)]
pub struct Remembered {
    /// All of them, in the order of their start.
    pub runs: Vec<Run>,
    /// Those that ran when that guest ended, and are lost.
    pub lost: Vec<ExecutionId>,
}

#[derive(Debug)]
enum Message {
    Line(Line),
    Flush(mpsc::SyncSender<()>),
}

impl Journal {
    /// Reads what an earlier guest left at `path`, and starts to write. What had not ended is lost.
    ///
    /// # Errors
    /// When no thread can be made. A disk that takes nothing is a [`problem`](Self::problem) and no error.
    pub fn open(path: &Path) -> io::Result<(Self, Remembered)> {
        let mut known = JournalState::read(path);
        let stale = known.records.saturating_sub(known.lines().len());
        let problem = Problem::default();
        let mut writer = Writer::new(path, stale, Problem::clone(&problem));
        let lost = known.unfinished();
        for id in &lost {
            writer.add(&known.ended(id.clone(), ending_of_lost()));
        }
        let runs = known.into_runs();
        let (messages, queue) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().name("journal".into()).spawn(move || writer.run(&queue))?;
        Ok((Self { messages, problem }, Remembered { runs, lost }))
    }

    /// Queues a record. When the thread cannot keep up it is dropped: a caller is never held up.
    pub fn write(&self, line: Line) {
        let _ = self.messages.try_send(Message::Line(line));
    }

    /// Writes records, whatever else waits for the disk, and returns when they are in the file or the disk takes
    /// nothing. Blocks.
    pub fn keep(&self, lines: impl Iterator<Item = Line>) {
        for line in lines {
            // The thread that writes lives as long as this.
            let _ = self.messages.send(Message::Line(line));
        }
        self.flush();
    }

    /// Waits until every record queued so far is in the file, or the disk takes nothing. Blocks.
    pub fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.messages.send(Message::Flush(done)).is_ok() {
            let _ = written.recv();
        }
    }

    /// Returns the reason why executions may not be recorded, and the remedy; for people.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}

fn ending_of_lost() -> Ending {
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

#[cfg(test)]
mod tests;
