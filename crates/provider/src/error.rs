//! The errors of providers. Display never repeats the cause; print the chain.

use emergent_types::SnapshotId;

use crate::ImageRef;

/// The engine's own error, whatever its type.
pub type EngineCause = Box<dyn std::error::Error + Send + Sync>;

/// The reason for which a sandbox was not made. Nothing of it is left behind, unless the engine went away in the
/// middle; then reconciliation finds it by its labels.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The engine does not answer.
    #[error("{engine} does not answer; {advice}")]
    EngineUnavailable {
        /// The engine, such as `Docker at unix:///var/run/docker.sock`.
        engine: String,
        /// The user's next step.
        advice: String,
        /// The engine's error.
        #[source]
        source: EngineCause,
    },
    /// The image is not there, or not for this project, and cannot be pulled.
    #[error("image {image} cannot be had: {reason}")]
    ImageUnavailable {
        /// The image.
        image: ImageRef,
        /// The registry's words, and what to do.
        reason: String,
    },
    /// The image is in a registry that the engine is not to be sent to.
    #[error("image {image} is not pulled: {reason}")]
    RegistryRefused {
        /// The image.
        image: ImageRef,
        /// The reason, and the setting that would change it.
        reason: String,
    },
    /// The image is there but cannot start.
    #[error("image {image} could not be started: {reason}")]
    StartFailed {
        /// The image.
        image: ImageRef,
        /// The engine's words, and what to do.
        reason: String,
    },
    /// The engine does not take the request as it is, and takes others.
    #[error("{engine} does not {step} that the request asks for")]
    Unfit {
        /// The engine.
        engine: String,
        /// The step, in words.
        step: &'static str,
        /// The engine's error.
        #[source]
        source: EngineCause,
    },
    /// The snapshot that it is to be made from is not on the engine, or not whole.
    #[error("snapshot {snapshot} is not on the engine any more; take another")]
    SnapshotMissing {
        /// The snapshot's id.
        snapshot: SnapshotId,
    },
    /// The files of the snapshot could not be copied.
    #[error("the files of snapshot {snapshot} could not be copied: {reason}")]
    CopyFailed {
        /// The snapshot's id.
        snapshot: SnapshotId,
        /// The cause, and the user's next step.
        reason: String,
    },
    /// The provider is too weak for `WORKSPACE_REQUIRE_ISOLATION`.
    #[error("isolation {required} is required and this engine gives {offered}; {advice}")]
    IsolationTooWeak {
        /// The isolation that is required.
        required: &'static str,
        /// The isolation that the provider offers.
        offered: &'static str,
        /// The user's next step.
        advice: String,
    },
    /// The engine refused a step for another reason.
    #[error("{engine} refused to {step}")]
    Refused {
        /// The engine.
        engine: String,
        /// The step, in words.
        step: &'static str,
        /// The engine's error.
        #[source]
        source: EngineCause,
    },
}

/// The reason for which an operation on a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The engine does not answer.
    #[error("{engine} does not answer; {advice}")]
    EngineUnavailable {
        /// The engine.
        engine: String,
        /// The user's next step.
        advice: String,
        /// The engine's error.
        #[source]
        source: EngineCause,
    },
    /// The engine has no such sandbox.
    #[error("the engine no longer has this sandbox")]
    Gone,
    /// The provider cannot do this at all.
    #[error("{operation} is not supported here: {reason}")]
    Unsupported {
        /// The operation that was asked for.
        operation: &'static str,
        /// The reason, and the setting that would change it.
        reason: String,
    },
    /// The engine refused.
    #[error("{engine} refused to {operation} the sandbox")]
    Refused {
        /// The engine.
        engine: String,
        /// The operation that was asked for.
        operation: &'static str,
        /// The engine's error.
        #[source]
        source: EngineCause,
    },
}

/// The reason for which no byte stream to a guest could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The engine does not answer.
    #[error("{engine} does not answer; {advice}")]
    EngineUnavailable {
        /// The engine.
        engine: String,
        /// The user's next step.
        advice: String,
        /// The engine's error.
        #[source]
        source: EngineCause,
    },
    /// The sandbox is not running.
    #[error("the sandbox is not running")]
    NotRunning,
    /// The engine refused.
    #[error("{engine} refused to open a channel")]
    Refused {
        /// The engine.
        engine: String,
        /// The engine's error.
        #[source]
        source: EngineCause,
    },
}
