//! The removal of a sandbox and all its parts.

use std::sync::Arc;

use super::{Inner, Sandboxes, entry::Entry, remove_directory};
use crate::{SandboxError, SandboxId, record::Phase, step::RemoveStep};

// === impl Sandboxes ===

impl Sandboxes {
    /// Removes a sandbox in any state. Parts that cannot be removed at once are tried again until they are gone.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub async fn destroy(&self, id: SandboxId) -> Result<(), SandboxError> {
        let (inner, entry) = (Arc::clone(&self.0), self.0.entry(id)?);
        self.run(async move {
            let _turn = entry.turn().await;
            // Somebody else may have removed it while this waited.
            if inner.entry(id).is_err() {
                return Ok(());
            }
            inner.remove(&entry).await
        })
        .await
    }
}

// === impl Inner ===

impl Inner {
    /// Removes all parts of a sandbox, then forgets it.
    pub(super) async fn remove(&self, entry: &Entry) -> Result<(), SandboxError> {
        let directory = self.directory(entry);
        if directory.exists() {
            self.record_leaving(entry)?;
            self.pass(RemoveStep::IntentRecorded.name()).await;
        }
        entry.guest().close();
        self.vmm.end(&directory).await.map_err(SandboxError::vmm("end the machine"))?;
        self.pass(RemoveStep::MachineEnded.name()).await;
        self.network.detach(entry.id).await.map_err(SandboxError::Network)?;
        self.pass(RemoveStep::NetworkDetached.name()).await;
        for state in [self.layout.paused(entry.id), self.layout.pausing(entry.id)] {
            remove_directory(&state).await?;
        }
        self.pass(RemoveStep::StateRemoved.name()).await;
        remove_directory(&directory).await?;
        self.pass(RemoveStep::FilesRemoved.name()).await;
        self.release_place(entry.id);
        self.lock_entries().remove(&entry.id);
        Ok(())
    }

    /// Records the intent, on disk if there is room for it: a full disk must not prevent the removal of a sandbox that
    /// fills it.
    fn record_leaving(&self, entry: &Entry) -> Result<(), SandboxError> {
        match self.record(entry, Phase::Destroying, None) {
            Err(SandboxError::DiskFull { .. }) => {
                let mut record = entry.record();
                record.phase = Phase::Destroying;
                entry.set_record(record);
                Ok(())
            }
            ended => ended,
        }
    }
}
