//! The next step of a worker: chosen by its own random numbers, and nothing else.

use rand::{RngExt as _, rngs::StdRng};

use super::{
    phase::Phase,
    snapshot::{KnownSnapshot, State},
    workspace::KnownWorkspace,
};

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $step:ident = $weight:literal, $when:ident;)+) => {
        /// A step of a worker.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step {
            $($(#[doc = $doc])+ $step,)+
        }

        const STEPS: &[(Step, u32, When)] = &[$((Step::$step, $weight, When::$when),)+];
    };
}

/// A step of a worker with a snapshot that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptStep {
    /// Look at the snapshot.
    Look,
    /// List all snapshots and find this one among them.
    List,
    /// Make a workspace from the snapshot.
    MakeFrom,
    /// Delete the snapshot.
    Delete,
}

/// The situations in which a step makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// The phase does not matter.
    Always,
    /// The workspace takes calls, as far as is known.
    Takes,
    /// The workspace takes calls and has a file.
    HasText,
    /// The workspace takes calls and has a background process.
    HasProcess,
    /// The workspace has files that can be copied.
    HasFiles,
    /// The workspace is certainly ready, and comes to rest by itself when nothing goes on in it.
    Idles,
    /// The workspace takes calls, and nobody is known to hold it.
    Free,
    /// The workspace takes calls, and one of its owner's sessions holds it.
    Held,
    /// The workspace is certainly ready, and stays so.
    Ready,
    /// The workspace is certainly paused, and stays so.
    Paused,
    /// The workspace is paused, stopped or broken.
    Resting,
    /// The workspace is of no use any more.
    Useless,
}

steps! {
    /// Look at the workspace.
    Look = 6, Always;
    /// List all workspaces and find this one among them.
    List = 2, Always;
    /// Call the workspace although it takes no calls.
    CallInVain = 3, Resting;
    /// Resume the workspace.
    Resume = 14, Resting;
    /// Destroy the workspace.
    Destroy = 2, Always;
    /// Destroy a workspace that is of no use any more.
    Discard = 20, Useless;
    /// Stop the workspace.
    Stop = 3, Takes;
    /// Pause the workspace.
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
    /// Follow the output of a background process, and go away in the middle.
    Follow = 9, HasProcess;
    /// Wait for a background process, and read all of its output.
    Finish = 6, HasProcess;
    /// Cancel a background process.
    Cancel = 1, HasProcess;
    /// Send many calls at once.
    Burst = 3, HasText;
    /// Leave the workspace alone until it comes to rest.
    AwaitRest = 6, Idles;
    /// Attach to the workspace.
    Attach = 4, Free;
    /// Attach and call for somebody who does not hold the workspace.
    Contend = 3, Held;
    /// Take the workspace over for another session.
    TakeOver = 1, Held;
    /// Detach from the workspace.
    Detach = 3, Held;
    /// Take a snapshot.
    Snapshot = 4, HasFiles;
    /// Make copies of the workspace.
    Fork = 2, HasFiles;
    /// `docker kill`.
    StrikeKill = 2, Ready;
    /// `docker rm --force`.
    StrikeRemove = 1, Ready;
    /// SIGKILL of the container's shim.
    StrikeShim = 1, Ready;
    /// `docker pause`.
    StrikePause = 2, Ready;
    /// `docker unpause`.
    StrikeUnpause = 6, Paused;
    /// A command that wants too much memory.
    StrikeMemory = 1, Ready;
    /// An upload that breaks off.
    StrikeUpload = 2, HasText;
}

/// Chooses the next step with this workspace.
pub fn next(random: &mut StdRng, known: &KnownWorkspace) -> Step {
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

/// Chooses the next step with this snapshot.
pub fn next_with_snapshot(random: &mut StdRng, kept: &KnownSnapshot) -> KeptStep {
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
    fn holds(self, known: &KnownWorkspace) -> bool {
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
