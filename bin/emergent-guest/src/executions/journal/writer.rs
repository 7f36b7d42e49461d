//! The thread that appends records, and what it does while the disk does not take them.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::Duration,
};

use emergent_guest_proto::ErrorCode;
use parking_lot::Mutex;

use super::{Line, Message, QUEUE, known::JournalState, record, reserve::Reserve};
use crate::{failure, own_files};

/// After so many records the journal is written anew without those that say nothing any more.
pub(super) const COMPACT_AFTER: usize = 8_000;

/// Commands may be root's, and agents may look into the directory.
const MODE: u32 = 0o600;

/// Bytes that wait in memory for the disk, at the most; then records are dropped.
const MAX_WAITING: usize = 1 << 20;

/// The interval between attempts to write to the disk.
const RETRY: Duration = Duration::from_secs(1);

/// The reason for which records are not in the file, while they are not; for people.
pub(super) type Problem = Arc<Mutex<Option<String>>>;

/// Appends records.
pub(super) struct Writer {
    path: PathBuf,
    file: Option<File>,
    reserve: Reserve,
    /// Records that are not in the file yet, the first one perhaps in part.
    waiting: Vec<u8>,
    /// The most records of the file that say nothing any more.
    stale: usize,
    problem: Problem,
}

impl Writer {
    /// Goes on with the journal at `path`, of whose records so many say nothing any more.
    pub(super) fn new(path: &Path, stale: usize, problem: Problem) -> Self {
        let reserve = Reserve::at(path.with_extension("reserve"));
        Self { path: path.to_owned(), file: None, reserve, waiting: Vec::new(), stale, problem }
    }

    /// Appends what comes, until nothing can come any more.
    pub(super) fn run(&mut self, queue: &Receiver<Message>) {
        let mut flushed: Vec<SyncSender<()>> = Vec::new();
        loop {
            self.save();
            for done in flushed.drain(..) {
                let _ = done.send(());
            }
            let next = if self.waiting.is_empty() && self.reserve.is_kept() {
                queue.recv().map_err(RecvTimeoutError::from)
            } else {
                queue.recv_timeout(RETRY)
            };
            let first = match next {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // One write for all the records that are there.
            for message in std::iter::once(first).chain(queue.try_iter().take(QUEUE)) {
                match message {
                    Message::Line(line) => self.add(&line),
                    Message::Flush(done) => flushed.push(done),
                }
            }
        }
    }

    /// Has a record wait for [`save`](Self::save).
    pub(super) fn add(&mut self, line: &Line) {
        if self.waiting.len() >= MAX_WAITING {
            return;
        }
        match record::add(&mut self.waiting, line) {
            Ok(()) => self.stale += 1,
            Err(error) => tracing::warn!(%error, "an execution cannot be recorded"),
        }
    }

    /// Appends what waits. What the disk does not take waits on, and [`Problem`] says why.
    fn save(&mut self) {
        let saved = match self.append() {
            Err(error) if is_full(&error) && self.reserve.give_back() => self.append(),
            saved => saved,
        };
        let saved = saved.and_then(|()| {
            self.compact();
            self.reserve.take()
        });
        let problem = saved.err().map(|error| self.told(&error));
        let mut told = self.problem.lock();
        if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
            tracing::warn!(waiting = self.waiting.len(), "{problem}");
        }
        *told = problem;
    }

    fn append(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(own_files::open_to_append(&self.path, MODE)?),
        };
        while !self.waiting.is_empty() {
            match file.write(&self.waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the journal anew where much of it says nothing any more; if that fails, the old one goes on.
    fn compact(&mut self) {
        if self.stale <= COMPACT_AFTER {
            return;
        }
        match write_anew(&self.path, &JournalState::read(&self.path)) {
            Ok(file) => self.file = Some(file),
            Err(error) => tracing::warn!(%error, "the journal of executions cannot be written anew"),
        }
        self.stale = 0;
    }

    fn told(&self, error: &io::Error) -> String {
        let directory = self.path.parent().unwrap_or(&self.path).display();
        if is_full(error) {
            format!(
                "no space is left on the disk that holds {directory}, where executions are recorded: those that end now may \
                 be unknown or lost after a stop; remove files from it, such as in /tmp"
            )
        } else {
            format!("executions cannot be recorded in {directory} and may be unknown or lost after a stop: {error}")
        }
    }
}

/// Whether an error says that there is no space.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull || failure::code_of(error) == ErrorCode::DiskFull
}

/// Writes the journal anew, in one step.
fn write_anew(path: &Path, known: &JournalState) -> io::Result<File> {
    let new = path.with_extension("new");
    let written = || -> io::Result<File> {
        let mut records = Vec::new();
        for line in known.lines() {
            record::add(&mut records, &line)?;
        }
        let mut file = own_files::create(&new, MODE)?;
        file.write_all(&records)?;
        // The old one goes only when the new one is there for good.
        file.sync_data()?;
        own_files::put_in_place(&new, path)?;
        Ok(file)
    };
    written().inspect_err(|_| drop(own_files::clear(&new)))
}
