//! The steps of operations that leave something on disk or running, named so that a crash can be tested at each.

use std::sync::Arc;

use emergent_types::Fault;
use futures::future::BoxFuture;

emergent_types::steps! {
    /// The steps of a create, or of the start of a stopped sandbox, each named by the work that is done then.
    BootStep, "boot" {
        /// The record holds the intent.
        IntentRecorded = "intent_recorded",
        /// The sandbox has its disks.
        DisksMade = "disks_made",
        /// The sandbox has its network interface.
        NetworkAttached = "network_attached",
        /// The VMM runs.
        MachineBooted = "machine_booted",
        /// The machine is saved as a start for others of its template, and goes on.
        SnapshotKept = "snapshot_kept",
        /// The guest answered.
        GuestAnswered = "guest_answered",
        /// The record says ready.
        ReadyRecorded = "ready_recorded",
    }
}

emergent_types::steps! {
    /// The steps of a pause, each named by the work that is done then.
    PauseStep, "pause" {
        /// The record says that the sandbox is to be paused.
        IntentRecorded = "intent_recorded",
        /// The machine stands still.
        MachineFrozen = "machine_frozen",
        /// The machine's state is on disk.
        StateSaved = "state_saved",
        /// The state is in its final place: from here on it is valid.
        StatePlaced = "state_placed",
        /// The VMM is gone.
        MachineEnded = "machine_ended",
        /// The record says paused.
        PausedRecorded = "paused_recorded",
    }
}

emergent_types::steps! {
    /// The steps of a resume, each named by the work that is done then.
    ResumeStep, "resume" {
        /// The record says that the sandbox is to go on.
        IntentRecorded = "intent_recorded",
        /// The sandbox has its network interface.
        NetworkAttached = "network_attached",
        /// A new VMM runs.
        MachineRestored = "machine_restored",
        /// The guest answered, and knows the time.
        GuestAnswered = "guest_answered",
        /// The record says ready.
        ReadyRecorded = "ready_recorded",
        /// The state on disk, no longer of use, is removed.
        StateRemoved = "state_removed",
    }
}

emergent_types::steps! {
    /// The steps of a halt, each named by the work that is done then: the sandbox keeps its disks and nothing else.
    HaltStep, "halt" {
        /// The record says that the sandbox is to stop.
        IntentRecorded = "intent_recorded",
        /// The VMM is gone.
        MachineEnded = "machine_ended",
        /// The record says stopped.
        StoppedRecorded = "stopped_recorded",
    }
}

emergent_types::steps! {
    /// The steps of taking a snapshot, each named by the work that is done then.
    CopyStep, "copy" {
        /// The snapshot's directory exists.
        DirectoryMade = "directory_made",
        /// The machine stands still.
        MachineFrozen = "machine_frozen",
        /// The machine's disks are copied, and its state if it was asked for.
        Copied = "copied",
        /// The machine goes on.
        MachineThawed = "machine_thawed",
        /// The snapshot is in its final place.
        SnapshotPlaced = "snapshot_placed",
    }
}

emergent_types::steps! {
    /// The steps of a removal, each named by the work that is done then.
    RemoveStep, "remove" {
        /// The record says that the sandbox is to be removed.
        IntentRecorded = "intent_recorded",
        /// The VMM is gone.
        MachineEnded = "machine_ended",
        /// The network interface is gone.
        NetworkDetached = "network_detached",
        /// The state on disk is gone.
        StateRemoved = "state_removed",
        /// No file is left.
        FilesRemoved = "files_removed",
    }
}

/// A function that is called at each step once it is done; the operation goes on when the future completes. Tests stop
/// an operation here.
pub type Checkpoint = Arc<dyn Fn(&'static str) -> BoxFuture<'static, ()> + Send + Sync>;

/// The names of all steps, in order.
pub fn step_names() -> impl Iterator<Item = &'static str> {
    let boot = BootStep::ALL.iter().map(|step| step.name());
    let pause = PauseStep::ALL.iter().map(|step| step.name());
    let resume = ResumeStep::ALL.iter().map(|step| step.name());
    let halt = HaltStep::ALL.iter().map(|step| step.name());
    let copy = CopyStep::ALL.iter().map(|step| step.name());
    let remove = RemoveStep::ALL.iter().map(|step| step.name());
    boot.chain(pause).chain(resume).chain(halt).chain(copy).chain(remove)
}

/// A checkpoint that ends this process at the step, as abruptly as a crash.
pub fn ended_by(fault: Fault) -> Checkpoint {
    Arc::new(move |step| {
        fault.strike(step);
        Box::pin(std::future::ready(()))
    })
}

/// A checkpoint that stops no operation.
pub fn unhindered() -> Checkpoint {
    Arc::new(|_| Box::pin(std::future::ready(())))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let names: Vec<_> = step_names().collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    }
}
