//! The steps of the operations that leave something in the engine, named so that a crash can be tested at each.

use crate::{SandboxId, SnapshotId};

/// The steps of one operation: an enum in their order, whose names are `operation.step`. For other crates' operations
/// too.
#[macro_export]
macro_rules! steps {
    ($(#[$doc:meta])* $name:ident, $operation:literal { $($(#[$step_doc:meta])* $step:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$step_doc])* $step,)+
        }

        impl $name {
            /// All steps, in order.
            pub const ALL: &'static [Self] = &[$(Self::$step,)+];

            /// The step's name, `operation.step`: unique over all operations.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => concat!($operation, ".", $word),)+
                }
            }
        }
    };
}

steps! {
    /// The points that a create passes, each named by what has been done by then.
    CreateStep, "create" {
        /// The row says that the sandbox is wanted.
        IntentRecorded = "intent_recorded",
        /// The image is on the engine.
        ImagePresent = "image_present",
        /// The volume for `/workspace` exists.
        VolumeCreated = "volume_created",
        /// The volume has the files that it begins with: none, or the snapshot's.
        VolumeFilled = "volume_filled",
        /// The sandbox exists and is not started.
        SandboxCreated = "sandbox_created",
        /// The sandbox runs.
        SandboxStarted = "sandbox_started",
        /// The guest answered.
        GuestAnswered = "guest_answered",
        /// The guest has what belongs to the workspace.
        HandedOver = "handed_over",
        /// The row says ready.
        ReadyRecorded = "ready_recorded",
    }
}

steps! {
    /// The points that a stop passes, each named by what has been done by then.
    StopStep, "stop" {
        /// The row says that the sandbox is to stop.
        IntentRecorded = "intent_recorded",
        /// The sandbox does not run.
        SandboxStopped = "sandbox_stopped",
        /// The row says stopped.
        StoppedRecorded = "stopped_recorded",
    }
}

steps! {
    /// The points that a destroy passes, each named by what has been done by then.
    DestroyStep, "destroy" {
        /// The row says that the sandbox is to go.
        IntentRecorded = "intent_recorded",
        /// The sandbox is gone.
        SandboxRemoved = "sandbox_removed",
        /// The sandbox's volumes are gone.
        VolumesRemoved = "volumes_removed",
        /// The row says destroyed.
        DestroyedRecorded = "destroyed_recorded",
    }
}

steps! {
    /// The points that the taking of a snapshot passes, each named by what has been done by then.
    SnapshotStep, "snapshot" {
        /// The row says that the snapshot is wanted.
        IntentRecorded = "intent_recorded",
        /// There is a place for the files of `/workspace`.
        VolumeCreated = "volume_created",
        /// No process of the sandbox runs: it is frozen, or was not running anyway.
        SandboxFrozen = "sandbox_frozen",
        /// The files are copied, those of `/workspace` and those outside.
        FilesCopied = "files_copied",
        /// The sandbox is as it was before.
        SandboxThawed = "sandbox_thawed",
        /// The row says ready.
        ReadyRecorded = "ready_recorded",
    }
}

/// How far the pull of an image is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes known to be needed; grows while layers are discovered.
    pub total_bytes: u64,
    /// The engine's words, such as `Extracting`.
    pub status: String,
}

/// Told of each step of an operation as it is done. Calls are cheap and never block for long.
pub trait StepObserver: Send + Sync {
    /// A step of a create is done.
    fn created(&self, workspace: SandboxId, step: CreateStep);
    /// A step of a destroy is done.
    fn destroyed(&self, workspace: SandboxId, step: DestroyStep);
    /// A step of the taking of a snapshot is done.
    fn snapshot_taken(&self, snapshot: SnapshotId, step: SnapshotStep);
    /// A pull has got further.
    fn pulling(&self, workspace: SandboxId, progress: PullProgress);
}
