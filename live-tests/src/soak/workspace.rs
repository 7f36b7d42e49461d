//! One workspace, as its owner knows it.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{
    fault::Fault,
    files::Files,
    phase::{Phase, Phases},
};

/// How long after its expiry a workspace may still be there: a round of clean-up, and the time it takes.
pub const CLEANUP: Duration = Duration::from_secs(60 + 45);

/// What its owner knows of it.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Which server has it.
    pub server: usize,
    /// Where it may stand.
    pub phases: Phases,
    /// What is in it.
    pub contents: Contents,
    /// Its background processes that are worth looking at.
    pub processes: Vec<Process>,
    /// When it expires.
    pub expires: Option<Instant>,
    /// Where it comes to rest when nobody uses it.
    pub rests: Option<Phase>,
    /// Who holds it.
    pub holder: Holder,
    /// Until when the phase takes everything into account.
    pub looked: Instant,
    /// A fault of its own is at work, and which.
    pub struck: Option<Fault>,
    /// What may still come of a fault of its own, and until when.
    pub lingers: Option<(Fault, Instant)>,
    /// When it was made.
    pub made: Instant,
    /// The engine cannot start its container any more, since it was killed in the middle of that.
    pub wedged: bool,
}

/// What is in a workspace, and comes along into snapshots and copies.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Its files, below `/workspace/files` and outside.
    pub files: Files,
    /// The messages of the commits in `/workspace/repository`, oldest first; `None` before there is one.
    pub commits: Option<Commits>,
    /// Names what is made in it: a copy must not call anything as its origin has.
    pub counter: u32,
}

/// Who holds a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    #[default]
    Nobody,
    /// The session with this id.
    Session(Uuid),
    /// An attachment or its end was not acknowledged.
    Doubtful,
}

/// A history.
#[derive(Debug, Clone, Default)]
pub struct Commits {
    /// Commits that were acknowledged.
    pub certain: Vec<String>,
    /// One more that may have been made.
    pub doubtful: Option<String>,
}

/// A background process that counts, a line for each number.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its execution id, chosen by the owner.
    pub id: String,
    /// How many lines it writes.
    pub lines: usize,
    /// When it was started.
    pub started: Instant,
    /// How much of its output has been read and found right.
    pub read: usize,
    /// The sandbox may have ended under it.
    pub may_be_lost: bool,
    /// Its start was not acknowledged: it may not exist.
    pub may_be_unknown: bool,
}

// === impl Known ===

impl Known {
    /// One that has just been made, with what is in it.
    pub fn new(id: String, server: usize, phases: Phases, contents: Contents) -> Self {
        Self {
            id,
            server,
            phases,
            contents,
            processes: Vec::new(),
            expires: None,
            rests: None,
            holder: Holder::Nobody,
            looked: Instant::now(),
            struck: None,
            lingers: None,
            made: Instant::now(),
            wedged: false,
        }
    }

    /// The session that holds it, where that is certain.
    pub fn session(&self) -> Option<Uuid> {
        match self.holder {
            Holder::Session(id) => Some(id),
            Holder::Nobody | Holder::Doubtful => None,
        }
    }

    /// A new name for something in it.
    pub fn fresh(&mut self, what: &str) -> String {
        self.contents.counter += 1;
        format!("{what}-{}", self.contents.counter)
    }

    /// Its sandbox may have ended, and with it what ran in it.
    pub fn sandbox_may_have_ended(&mut self) {
        for process in &mut self.processes {
            process.may_be_lost = true;
        }
    }

    /// The fault of its own whose consequences may still show: under gVisor the sandbox may end some time after the
    /// command was answered whose processes the kernel chose first for want of memory, and an engine under load tells
    /// of an end seconds after it.
    pub fn lingering(&self) -> Option<Fault> {
        self.lingers.filter(|(_, until)| Instant::now() < *until).map(|(fault, _)| fault)
    }

    /// Whether it has expired, so that it may be gone at any moment.
    pub fn has_expired(&self) -> bool {
        self.expires.is_some_and(|expires| Instant::now() >= expires)
    }

    /// Whether it must be gone by now.
    pub fn is_overdue(&self) -> bool {
        self.expires.is_some_and(|expires| Instant::now() >= expires + CLEANUP)
    }
}

// === impl Process ===

/// Bytes of one line: seven digits and the end of line.
const LINE: usize = 8;

impl Process {
    /// The command, which writes a hundred lines, waits, and so on.
    pub fn command(&self) -> String {
        let lines = self.lines;
        format!(
            "i=0; while [ $i -lt {lines} ]; do printf '%07d\\n' $i; i=$((i+1)); [ $((i%100)) -ne 0 ] || sleep 0.3; done"
        )
    }

    /// All that it writes, from an offset on.
    pub fn output_from(&self, offset: usize) -> Vec<u8> {
        let all: Vec<u8> =
            (offset / LINE..self.lines).flat_map(|number| format!("{number:07}\n").into_bytes()).collect();
        all.get(offset % LINE..).unwrap_or_default().to_vec()
    }

    /// How many bytes it writes.
    pub fn len(&self) -> usize {
        self.lines * LINE
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_from_an_offset_is_the_rest_of_all_output() {
        let process = Process {
            id: String::new(),
            lines: 12,
            started: Instant::now(),
            read: 0,
            may_be_lost: false,
            may_be_unknown: false,
        };
        let all = process.output_from(0);
        assert_eq!(all.len(), process.len());
        for offset in [0, 1, 8, 13, 95, 96] {
            assert_eq!(process.output_from(offset), all[offset..], "{offset}");
        }
    }
}
