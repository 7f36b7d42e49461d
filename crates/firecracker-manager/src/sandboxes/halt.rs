//! The stop of a sandbox: the machine ends in order, and its disks stay.

use emergent_types::error_chain;
use std::{sync::Arc, time::Duration};

use super::{Inner, Sandboxes, entry::Entry, remove_directory};
use crate::{
    SandboxError, SandboxId,
    record::{Phase, Record},
    step::HaltStep,
};

/// The time that the guest gets to end its processes and its machine.
const GRACE: Duration = Duration::from_secs(10);
/// The interval between checks of the machine's state meanwhile.
const LOOK: Duration = Duration::from_millis(20);

// === impl Sandboxes ===

impl Sandboxes {
    /// Stops a sandbox in any state; its files stay, its processes end. A stopped sandbox stays stopped.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub async fn stop(&self, id: SandboxId) -> Result<Record, SandboxError> {
        let (inner, entry) = (Arc::clone(&self.0), self.0.entry(id)?);
        self.run(async move {
            let _turn = entry.turn().await;
            match entry.phase() {
                Phase::Stopped => {}
                // Its caches are in its state: what it wrote last is on its disks only once it has run again.
                Phase::Paused => {
                    inner.resume(&entry).await?;
                    inner.halt(&entry).await?;
                }
                Phase::Ready => inner.halt(&entry).await?,
                phase => return Err(SandboxError::WrongState { operation: "be stopped", phase }),
            }
            Ok(entry.record())
        })
        .await
    }
}

// === impl Inner ===

impl Inner {
    async fn halt(&self, entry: &Entry) -> Result<(), SandboxError> {
        self.record(entry, Phase::Stopping, None)?;
        self.pass(HaltStep::IntentRecorded.name()).await;
        let orderly = async {
            if let Err(error) = entry.guest().shutdown().await {
                tracing::debug!(sandbox = %entry.id, reason = error_chain(&error), "the guest does not end in order");
            }
            while self.has_machine(entry).await.unwrap_or(false) {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(GRACE, orderly).await.is_err() {
            tracing::warn!(sandbox = %entry.id, "the guest did not end in time; its machine is ended");
        }
        self.finish_halt(entry, None).await
    }

    /// Ends the machine if it still exists, and records that the sandbox is stopped.
    pub(super) async fn finish_halt(&self, entry: &Entry, reason: Option<String>) -> Result<(), SandboxError> {
        entry.guest().suspend();
        self.vmm.end(&self.directory(entry)).await.map_err(SandboxError::vmm("end the machine"))?;
        self.pass(HaltStep::MachineEnded.name()).await;
        self.record(entry, Phase::Stopped, reason)?;
        self.pass(HaltStep::StoppedRecorded.name()).await;
        self.release_place(entry.id);
        // States of before are of no use: the disks are ahead of them.
        for old in [self.layout.paused(entry.id), self.layout.pausing(entry.id)] {
            if let Err(error) = remove_directory(&old).await {
                tracing::warn!(
                    sandbox = %entry.id,
                    reason = error_chain(&error),
                    "the saved state of a stopped machine could not be removed; the next start removes it"
                );
            }
        }
        Ok(())
    }

    /// Records that the sandbox stopped without a request.
    pub(super) async fn fall_to_stopped(&self, entry: &Entry, reason: String) -> Result<(), SandboxError> {
        tracing::warn!(sandbox = %entry.id, reason, "a sandbox is stopped");
        self.finish_halt(entry, Some(reason)).await
    }
}
