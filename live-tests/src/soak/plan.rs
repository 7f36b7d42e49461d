//! What a worker does next: chosen by its own random numbers, and nothing else.

use rand::{RngExt as _, rngs::StdRng};

use super::{phase::Phase, workspace::Known};

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
    /// It is certainly ready.
    Ready,
    /// It is certainly paused.
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

// === impl When ===

impl When {
    fn holds(self, known: &Known) -> bool {
        let may_be = |phase| known.phases.may_be(phase);
        let takes = may_be(Phase::Ready) || may_be(Phase::Broken);
        match self {
            Self::Always => true,
            Self::Takes => takes && !known.wedged,
            Self::HasText => takes && !known.wedged && known.files.certain_texts().next().is_some(),
            Self::HasProcess => takes && !known.wedged && !known.processes.is_empty(),
            Self::Ready => known.phases.is(Phase::Ready),
            Self::Paused => known.phases.is(Phase::Paused),
            Self::Resting => may_be(Phase::Paused) || may_be(Phase::Stopped) || may_be(Phase::Broken),
            Self::Useless => known.wedged || !takes && !may_be(Phase::Paused) && !may_be(Phase::Stopped),
        }
    }
}
