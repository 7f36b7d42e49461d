//! Keeping the output of all executions within a budget: the oldest finished logs go first, then the beginnings of the
//! running ones.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use emergent_guest_proto::Stream;
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{
    execution::Run,
    journal::{Journal, Line},
    logs::{index, paths},
};

/// Holes are made in whole pieces of this size; file systems free only whole blocks.
const BLOCK: u64 = 64 * 1024;

/// A log and what it takes on the disk.
struct Log {
    run: Arc<Run>,
    stream: Stream,
    size: u64,
    taken: u64,
}

/// Frees space until the output of `runs` (oldest first) is within `budget`. Blocks.
///
/// Each cut is told before it is made: to readers, who look after they have read and so never take a hole for output,
/// and to the journal, so that the next guest does not either.
pub fn enforce(directory: &Path, runs: &[Arc<Run>], budget: u64, journal: &Journal) {
    let mut logs: Vec<Log> = runs.iter().flat_map(|run| logs_of(directory, run)).collect();
    let mut excess = logs.iter().map(|log| log.taken).sum::<u64>().saturating_sub(budget);
    if excess == 0 {
        return;
    }
    // Stable: within each kind the oldest stays first.
    logs.sort_by_key(|log| log.run.ending().is_none());
    let mut cuts = Vec::new();
    for log in logs {
        if excess == 0 {
            break;
        }
        // Of each log the newest part is kept, as far as the budget goes. A process may write on while this is done, so
        // that nothing beyond the size that was seen may go.
        let offset = log.size.saturating_sub(log.taken.saturating_sub(excess));
        let cut = offset.next_multiple_of(BLOCK).min(log.size);
        let before = log.run.dropped(log.stream);
        log.run.drop_before(log.stream, cut);
        excess = excess.saturating_sub(cut.saturating_sub(before).min(log.taken));
        cuts.push((log, cut));
    }
    let dropped = |(log, _): &(Log, u64)| Line::Dropped {
        id: log.run.id.clone(),
        bytes: [Stream::Stdout, Stream::Stderr].map(|stream| log.run.dropped(stream)),
    };
    journal.keep(cuts.iter().map(dropped));
    for (log, cut) in cuts {
        if let Err(error) = log.free(directory, cut) {
            tracing::warn!(%error, id = %log.run.id, "output beyond the budget cannot be dropped");
        }
    }
}

fn logs_of(directory: &Path, run: &Arc<Run>) -> Vec<Log> {
    let paths = paths(directory, &run.id);
    let log = |stream| {
        let metadata = fs::metadata(&paths[index(stream)]).ok()?;
        let taken = metadata.blocks() * 512;
        Some(Log { run: Arc::clone(run), stream, size: metadata.len(), taken })
    };
    [Stream::Stdout, Stream::Stderr].into_iter().filter_map(log).filter(|log| log.taken > 0).collect()
}

impl Log {
    /// Frees the bytes before `cut`; the offsets of the others stay what they are.
    fn free(&self, directory: &Path, cut: u64) -> io::Result<()> {
        let path = &paths(directory, &self.run.id)[index(self.stream)];
        let punched =
            File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path).and_then(|file| {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, hole, 0, cut).map_err(io::Error::from)
            });
        match punched {
            // Then a finished log goes as a whole, and a running one cannot be helped.
            Err(error) if is_unsupported(&error) && self.run.ending().is_some() => {
                self.run.drop_before(self.stream, self.size);
                fs::remove_file(path)
            }
            other => other,
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL))
}
