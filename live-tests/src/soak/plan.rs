//! What a worker does next: chosen by its own random numbers, and nothing else.

use rand::{RngExt as _, rngs::StdRng};

use super::{
    phase::Phase,
    snapshot::{Kept, State},
    workspace::Known,
};

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $step:ident = $weight:literal, $when:ident;)+) => {
        /// Something that a worker does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step {
            $($(#[doc = $doc])+ $step,)+
        }

        const STEPS: &[(Step, u32, When)] = &[$((Step::$step, $weight, When::$when),)+];
    };
}

/// Something that a worker does with a snapshot that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptStep {
    /// Look at it.
    Look,
    /// List all snapshots and find it among them.
    List,
    /// Make a workspace from it.
    MakeFrom,
    /// Delete it.
    Delete,
}

/// In which situations a step makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Whatever the phase.
    Always,
    /// The workspace takes calls, as far as is known.
    Takes,
    /// It takes calls and has a file.
    HasText,
    /// It takes calls and has a background process.
    HasProcess,
    /// It has files that can be copied.
    HasFiles,
    /// It is certainly ready, and comes to rest by itself when nothing goes on in it.
    Idles,
    /// It takes calls, and nobody is known to hold it.
    Free,
    /// It takes calls, and one of its owner's sessions holds it.
    Held,
    /// It is certainly ready, and stays so.
    Ready,
    /// It is certainly paused, and stays so.
    Paused,
    /// It is paused, stopped or broken.
    Resting,
    /// It is of no use any more.
    Useless,
}

steps! {
    /// Look at it.
    Look = 6, Always;
    /// List all workspaces and find it among them.
    List = 2, Always;
    /// Call it although it takes none.
    CallInVain = 3, Resting;
    /// Resume it.
    Resume = 14, Resting;
    /// Destroy it.
    Destroy = 2, Always;
    /// Destroy it.
    Discard = 20, Useless;
    /// Stop it.
    Stop = 3, Takes;
    /// Pause it.
    Pause = 3, Takes;
    /// Write a file.
    Write = 14, Takes;
    /// Read a file.
    Read = 12, HasText;
    /// Edit a file.
    Edit = 8, HasText;
    /// Find files by name.
    Glob = 4, Takes;
    /// Find a line.
    Grep = 5, HasText;
    /// Remove a file.
    Remove = 3, HasText;
    /// Run a command.
    Bash = 12, Takes;
    /// Run a command that takes too long.
    BashTimeout = 1, Takes;
    /// Upload bytes.
    Upload = 5, Takes;
    /// Download a file.
    Download = 5, HasText;
    /// Commit.
    Commit = 3, Takes;
    /// Look at the history.
    Log = 3, Takes;
    /// Start a background process.
    Start = 5, Takes;
    /// Follow the output of one, and go away in the middle.
    Follow = 9, HasProcess;
    /// Wait for one, and read all of its output.
    Finish = 6, HasProcess;
    /// Cancel one.
    Cancel = 1, HasProcess;
    /// Many calls at once.
    Burst = 3, HasText;
    /// Leave it alone until it comes to rest.
    AwaitRest = 6, Idles;
    /// Attach to it.
    Attach = 4, Free;
    /// Attach and call for somebody who does not hold it.
    Contend = 3, Held;
    /// Take it over for another session.
    TakeOver = 1, Held;
    /// Detach.
    Detach = 3, Held;
    /// Take a snapshot.
    Snapshot = 4, HasFiles;
    /// Make copies of it.
    Fork = 2, HasFiles;
    /// `docker kill`.
    StrikeKill = 2, Ready;
    /// `docker rm --force`.
    StrikeRemove = 1, Ready;
    /// `docker pause`.
    StrikePause = 2, Ready;
    /// `docker unpause`.
    StrikeUnpause = 6, Paused;
    /// A command that wants too much memory.
    StrikeMemory = 1, Ready;
    /// An upload that breaks off.
    StrikeUpload = 2, HasText;
}

/// What the next step with this workspace is.
pub fn next(random: &mut StdRng, known: &Known) -> Step {
    let possible = STEPS.iter().filter(|(_, _, when)| when.holds(known));
    let total: u32 = possible.clone().map(|(_, weight, _)| weight).sum();
    let mut left = random.random_range(0..total.max(1));
    for (step, weight, _) in possible {
        if left < *weight {
            return *step;
        }
        left -= weight;
    }
    Step::Look
}

/// What the next step with this snapshot is.
pub fn next_with_snapshot(random: &mut StdRng, kept: &Kept) -> KeptStep {
    match random.random_range(0..10) {
        _ if !kept.states.may_be(State::Whole) => KeptStep::Delete,
        0..=1 => KeptStep::Look,
        2 => KeptStep::List,
        3..=6 => KeptStep::MakeFrom,
        _ => KeptStep::Delete,
    }
}

// === impl When ===

impl When {
    fn holds(self, known: &Known) -> bool {
        let phases = &known.phases;
        let may_be = |phase| phases.may_be(phase);
        let takes = !known.wedged && phases.some(Phase::takes_calls);
        let stays = known.rests.is_none();
        match self {
            Self::Always => true,
            Self::Takes => takes,
            Self::HasText => takes && known.contents.files.certain_texts().next().is_some(),
            Self::HasProcess => takes && !known.processes.is_empty(),
            Self::HasFiles => !known.wedged && phases.all(Phase::has_files),
            Self::Idles => phases.is(Phase::Ready) && !stays && known.processes.is_empty(),
            Self::Free => takes && known.session().is_none(),
            Self::Held => takes && phases.all(Phase::has_files) && known.session().is_some(),
            Self::Ready => stays && phases.is(Phase::Ready),
            Self::Paused => stays && phases.is(Phase::Paused),
            Self::Resting => may_be(Phase::Paused) || may_be(Phase::Stopped) || may_be(Phase::Broken),
            Self::Useless => known.wedged || !phases.some(Phase::has_files),
        }
    }
}
