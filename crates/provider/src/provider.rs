//! The trait that a way of making workspaces implements, split by concern.
//!
//! Operations are idempotent towards the state that they lead to (starting what runs is no error), and cancelling one
//! by dropping its future may leave the engine between two steps: callers that care drive it to its end in a task.

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;

use emergent_types::{ResourceLimits, SandboxId, SnapshotId, StepObserver};

use crate::{
    ByteStream, Capabilities, ChannelError, CreateError, EngineEvent, ExitReason, Health, Holders, HostRoom,
    ImageCommand, ImageRef, Observed, OperationError, Origin, SandboxSpec, Snapshots,
};

/// The providers that this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProviderKind {
    /// Containers of the Docker Engine, under gVisor where it is installed.
    Docker,
    /// Firecracker microVMs.
    Firecracker,
    /// E2B's cloud.
    E2b,
}

/// A way of making workspaces.
#[async_trait]
pub trait Provider: Lifecycle + Channels + Inventory + Snapshots + Holders {
    /// Returns the provider's kind.
    fn kind(&self) -> ProviderKind;

    /// The provider's abilities, as last probed.
    fn capabilities(&self) -> Capabilities;

    /// Asks the engine whether it works. Answers within 10 s whatever the engine does.
    async fn health(&self) -> Health;
}

/// The answer to a create.
pub struct Created {
    /// The first channel, attached to the guest's own stdio before the start, where the engine can.
    pub first_channel: Option<ByteStream>,
    /// Promises that are weaker than asked for, such as the standard runtime in place of gVisor; shown on the
    /// workspace.
    pub warnings: Vec<String>,
    /// The isolation that this sandbox really has.
    pub isolation: crate::Isolation,
    /// The name of the runtime, such as `runsc`, `runc`.
    pub runtime: String,
    /// The image that it was made from, where the engine knows images by ids.
    pub image: Option<UsedImage>,
}

/// An image on an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedImage {
    /// The image's id, which stands for no other image.
    pub id: String,
    /// The image's size on the engine's disk, in bytes, with layers that it shares with others.
    pub bytes: u64,
}

/// Makes and ends sandboxes.
#[async_trait]
pub trait Lifecycle: Send + Sync {
    /// Makes a sandbox, from its image or from a snapshot, and starts it; the guest may not answer yet. Passes
    /// [`CreateStep`](emergent_types::CreateStep)s `ImagePresent` to `SandboxStarted`. On an error nothing is left behind.
    async fn create(&self, spec: &SandboxSpec, observer: &dyn StepObserver) -> Result<Created, CreateError>;

    /// Starts a stopped sandbox, with a first channel where the engine can.
    async fn start(&self, workspace: SandboxId) -> Result<Option<ByteStream>, OperationError>;

    /// Stops a sandbox, a paused one too; its files stay. The guest gets 10 s to end its processes.
    async fn stop(&self, workspace: SandboxId) -> Result<(), OperationError>;

    /// Ends a running sandbox at once; its files stay. `why` is what is said of its end, by events and by
    /// [`Inventory::inspect`], until it is started again.
    async fn end(&self, _workspace: SandboxId, _why: ExitReason) -> Result<(), OperationError> {
        let reason = "this provider ends no sandbox that takes too much".to_owned();
        Err(OperationError::Unsupported { operation: "end", reason })
    }

    /// Freezes all processes.
    async fn pause(&self, workspace: SandboxId) -> Result<(), OperationError>;

    /// Lets them go on.
    async fn unpause(&self, workspace: SandboxId) -> Result<(), OperationError>;

    /// Changes what a running sandbox may use, where [`Capabilities::live_limits`] says that this can be. The disk
    /// limit is not the engine's.
    async fn update_limits(&self, workspace: SandboxId, limits: ResourceLimits) -> Result<(), OperationError>;

    /// Marks a sandbox that was made ahead of need as somebody's, so that [`Observed::claimed`] says so from now
    /// on.
    async fn mark_claimed(&self, _workspace: SandboxId) -> Result<(), OperationError> {
        Ok(())
    }

    /// Removes a sandbox, in whatever state it is, and keeps its volumes, `/workspace` too: a create for the same id,
    /// of kind `mcp_server`, finds them again. Removing what is gone succeeds.
    async fn discard(&self, _workspace: SandboxId) -> Result<(), OperationError> {
        let reason = "this provider keeps no files without their sandbox".to_owned();
        Err(OperationError::Unsupported { operation: "discard", reason })
    }

    /// Removes a sandbox and all that belongs to it, in whatever state it is; removing what is gone succeeds.
    /// Passes [`DestroyStep`](emergent_types::DestroyStep)s `SandboxRemoved` and `VolumesRemoved`.
    async fn destroy(&self, workspace: SandboxId, observer: &dyn StepObserver) -> Result<(), OperationError>;
}

/// Opens channels to guests.
#[async_trait]
pub trait Channels: Send + Sync {
    /// Opens a byte stream to a running sandbox's guest. May be called while others are open.
    async fn open(&self, workspace: SandboxId) -> Result<ByteStream, ChannelError>;
}

/// Says what the engine has.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// One sandbox; `None` when nothing of it is left.
    async fn inspect(&self, workspace: SandboxId) -> Result<Option<Observed>, OperationError>;

    /// Every sandbox, and every remainder of one, that carries our labels, whichever server made it.
    async fn list(&self) -> Result<Vec<Observed>, OperationError>;

    /// The parts that a sandbox was made of, as far as the engine knows them; `None` when there is no such sandbox, or
    /// when an older release made it.
    async fn origin(&self, workspace: SandboxId) -> Result<Option<Origin>, OperationError>;

    /// Returns the origin of the sandbox that a snapshot was taken of, and its workspace.
    async fn origin_of_snapshot(&self, snapshot: SnapshotId) -> Result<Option<(SandboxId, Origin)>, OperationError>;

    /// Returns the number of bytes that a sandbox keeps outside `/workspace` beyond its image's, as the engine counts
    /// them; `None` where it does not. Costs the engine a walk through them.
    async fn written_outside(&self, _workspace: SandboxId) -> Result<Option<u64>, OperationError> {
        Ok(None)
    }

    /// Returns the number of bytes that the files of a sandbox take on the engine's machine, those beyond its image's:
    /// all that counts towards its disk limit. `None` where there is no such sandbox or where that cannot be looked at.
    /// Costs a walk through them, which may end as soon as they are more than `enough`.
    async fn disk_use(&self, _workspace: SandboxId, _enough: u64) -> Result<Option<u64>, OperationError> {
        Ok(None)
    }

    /// Returns the number of bytes that a copy of a sandbox takes on the engine's machine, where that differs from what
    /// the sandbox takes; `None` as in [`disk_use`](Self::disk_use).
    async fn copy_use(&self, workspace: SandboxId) -> Result<Option<u64>, OperationError> {
        self.disk_use(workspace, u64::MAX).await
    }

    /// Returns the number of tasks of the engine's machine that a running sandbox takes; `None` as in
    /// [`disk_use`](Self::disk_use).
    async fn task_use(&self, _workspace: SandboxId) -> Result<Option<u64>, OperationError> {
        Ok(None)
    }

    /// The room left on the engine's machine; `None` where it is another machine, or not known yet. Cheap.
    fn host_room(&self) -> Option<HostRoom> {
        None
    }

    /// The image that a reference stands for on the engine now, such as a digest; `None` when no image there carries
    /// that very reference, or when the image is one of the provider's own, such as a snapshot's.
    async fn image_id(&self, image: &ImageRef) -> Result<Option<String>, OperationError>;

    /// The command that an image runs by itself; `None` when the image is not on the engine, or when the engine cannot
    /// tell.
    async fn image_command(&self, _image: &ImageRef) -> Result<Option<ImageCommand>, OperationError> {
        Ok(None)
    }

    /// Whether images are pulled from registries when a sandbox is made; else what images there are is the operator's
    /// doing.
    fn pulls_images(&self) -> bool {
        false
    }

    /// Removes a reference, and the image with it when nothing else refers to it, if the reference stands for that id.
    /// False when the image stays, since a sandbox uses it. Removing what is gone, or stands for another image,
    /// succeeds.
    async fn remove_image(&self, _image: &ImageRef, _id: &str) -> Result<bool, OperationError> {
        Ok(true)
    }

    /// Removes what belongs to no workspace, is of no use to this server, was made longer ago than that, and that
    /// nobody uses, such as an older build of the guest; answers what it removed. Most providers have nothing of the
    /// kind.
    async fn tidy(&self, _older_than: Duration) -> Result<Vec<String>, OperationError> {
        Ok(Vec::new())
    }

    /// Returns an id of the engine that no other engine has: two servers that get the same id drive the same engine.
    /// `None` where the engine has no such id, or where nobody else could drive what this one has.
    async fn engine_id(&self) -> Result<Option<String>, OperationError> {
        Ok(None)
    }

    /// The engine's events from now on. The stream ends when the engine goes away; the caller asks again, and lists to
    /// catch up.
    async fn events(&self) -> Result<BoxStream<'static, EngineEvent>, OperationError>;
}

/// A word that names no provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no provider is called {0:?}; there are gvisor, firecracker and e2b")]
pub struct UnknownProvider(String);

// === impl ProviderKind ===

impl ProviderKind {
    /// All providers.
    pub const ALL: [Self; 3] = [Self::Docker, Self::Firecracker, Self::E2b];

    /// The word for it in settings, rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "gvisor",
            Self::Firecracker => "firecracker",
            Self::E2b => "e2b",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProviderKind {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownProvider(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_can_be_a_trait_object() {
        fn _takes(_: &dyn Provider) {}
    }
}
