//! One workspace, as its owner knows it.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{
    fault::Fault,
    files::Files,
    phase::{Phase, Phases},
};

/// The time after its expiry for which a workspace may still be there: a round of clean-up, and the time that it takes.
pub const CLEANUP: Duration = Duration::from_secs(60 + 45);

/// The time in which a start that the engine did not answer may still come, and be seen by the server.
const LATE_START: Duration = Duration::from_secs(15);

/// The owner's knowledge of a workspace.
#[derive(Debug, Clone)]
pub struct KnownWorkspace {
    /// The workspace's id.
    pub id: String,
    /// The server that has the workspace.
    pub server: usize,
    /// The phases in which the workspace may be.
    pub phases: Phases,
    /// The contents of the workspace.
    pub contents: Contents,
    /// The workspace's background processes that are worth looking at.
    pub processes: Vec<Process>,
    /// The time at which the workspace expires.
    pub expires: Option<Instant>,
    /// The phase in which the workspace comes to rest when nobody uses it.
    pub rests: Option<Phase>,
    /// The holder of the workspace.
    pub holder: Holder,
    /// The time up to which `phases` takes everything into account.
    pub looked: Instant,
    /// The fault of the workspace's own that is at work.
    pub struck: Option<Fault>,
    /// A fault of the workspace's own that may still have consequences, and until when.
    pub lingers: Option<(Fault, Instant)>,
    /// The time at which the workspace was made.
    pub made: Instant,
    /// A start may still come of a call that the engine did not answer, until this time.
    pub may_start_until: Option<Instant>,
    /// The engine cannot start the workspace's container any more, since the engine was killed during an earlier start.
    pub wedged: bool,
}

/// The contents of a workspace, which come along into snapshots and copies.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The files, below `/workspace/files` and outside.
    pub files: Files,
    /// The messages of the commits in `/workspace/repository`, oldest first; `None` before there is one.
    pub commits: Option<Commits>,
    /// A counter for new names: a copy must not give a name that its origin has given.
    pub counter: u32,
}

/// The holder of a workspace.
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
    pub doubtful: Option<DoubtfulCommit>,
}

/// A commit whose answer was lost.
#[derive(Debug, Clone)]
pub struct DoubtfulCommit {
    /// The fault's message.
    pub message: String,
    /// The call's name, chosen by the owner.
    pub call: String,
    /// When it was sent.
    pub sent: Instant,
}

/// A background process that counts, a line for each number.
#[derive(Debug, Clone)]
pub struct Process {
    /// The process's execution id, chosen by the owner.
    pub id: String,
    /// The number of lines that the process writes.
    pub lines: usize,
    /// The time at which the process was started.
    pub started: Instant,
    /// The number of bytes of its output that have been read and found right.
    pub read: usize,
    /// The sandbox may have ended under the process.
    pub may_be_lost: bool,
    /// The process's start was not acknowledged: the process may not exist.
    pub may_be_unknown: bool,
}

// === impl KnownWorkspace ===

impl KnownWorkspace {
    /// A workspace that has just been made, with its contents.
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
            may_start_until: None,
            wedged: false,
        }
    }

    /// Takes note that the engine did not answer an operation that may have begun with a start.
    pub fn may_start_late(&mut self) {
        self.may_start_until = Some(Instant::now() + LATE_START);
    }

    /// Takes note of the phase that a look showed; false when it was not possible. A start whose answer was lost may
    /// come after the look.
    pub fn see(&mut self, phase: Phase) -> bool {
        let possible = self.phases.see(phase);
        if phase.needs_start() && self.may_start_until.is_some_and(|until| Instant::now() < until) {
            self.phases.or(Phase::Ready);
        }
        self.may_still_end();
        possible
    }

    /// Takes note that a fault of a moment ago may end the sandbox although it is alive now.
    pub fn may_still_end(&mut self) {
        if self.lingering().is_some() && self.phases.may_be(Phase::Ready) {
            self.phases.or(Phase::Broken);
        }
    }

    /// The session that holds the workspace, where that is certain.
    pub fn session(&self) -> Option<Uuid> {
        match self.holder {
            Holder::Session(id) => Some(id),
            Holder::Nobody | Holder::Doubtful => None,
        }
    }

    /// A new name for something in the workspace.
    pub fn fresh(&mut self, what: &str) -> String {
        self.contents.counter += 1;
        format!("{what}-{}", self.contents.counter)
    }

    /// Takes note that the sandbox may have ended, and with it all that ran in it.
    pub fn sandbox_may_have_ended(&mut self) {
        for process in &mut self.processes {
            process.may_be_lost = true;
        }
    }

    /// The fault of the workspace's own whose consequences may still show. Under gVisor, the sandbox may end some time
    /// after an answer to the command whose processes the kernel chose first for want of memory; an engine under load
    /// tells of an end seconds after it.
    pub fn lingering(&self) -> Option<Fault> {
        self.lingers.filter(|(_, until)| Instant::now() < *until).map(|(fault, _)| fault)
    }

    /// Whether the workspace has expired, so that it may be gone at any moment.
    pub fn has_expired(&self) -> bool {
        self.expires.is_some_and(|expires| Instant::now() >= expires)
    }

    /// Whether the workspace must be gone by now.
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

    /// All output of the process, from an offset on.
    pub fn output_from(&self, offset: usize) -> Vec<u8> {
        let all: Vec<u8> =
            (offset / LINE..self.lines).flat_map(|number| format!("{number:07}\n").into_bytes()).collect();
        all.get(offset % LINE..).unwrap_or_default().to_vec()
    }

    /// The number of bytes that the process writes.
    pub fn len(&self) -> usize {
        self.lines * LINE
    }

    /// Whether the process writes nothing.
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

    #[test]
    fn a_start_that_the_engine_did_not_answer_may_come_after_a_look() {
        let asleep = || Phases::only(Phase::Asleep);
        let mut known = KnownWorkspace::new("id".to_owned(), 0, asleep(), Contents::default());
        assert!(known.see(Phase::Asleep) && known.phases.is(Phase::Asleep));
        known.may_start_late();
        assert!(known.see(Phase::Asleep) && known.see(Phase::Ready) && known.phases.is(Phase::Ready));
    }

    #[test]
    fn a_sandbox_that_was_struck_may_end_after_a_look() {
        let mut known = KnownWorkspace::new("id".to_owned(), 0, Phases::only(Phase::Ready), Contents::default());
        known.lingers = Some((Fault::ShimKilled, Instant::now() + LATE_START));
        assert!(known.see(Phase::Ready) && known.see(Phase::Broken));
    }
}
