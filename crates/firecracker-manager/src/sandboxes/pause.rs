//! Pausing: the machine's whole state goes to disk, and its process goes.
//!
//! ```text
//!   Ready ─► freeze ─► save ─► place ═► end ─► Paused
//!              └── fails ──┴─ thaw ─► Ready
//! ```
//!
//! Once the state is placed it is the truth: the machine has not run since it was saved, and is never thawed again.

use emergent_types::error_chain;
use std::sync::Arc;

use emergent_microvm::disks;

use super::{Inner, Sandboxes, disk_files::blocking, entry::Entry, fresh_directory, place, remove_directory};
use crate::{
    SandboxError, SandboxId,
    record::{Phase, Record},
    step::PauseStep,
};

// === impl Sandboxes ===

impl Sandboxes {
    /// Pauses a sandbox; one that is paused stays so. On an error, such as a full disk, it goes on as it was.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub async fn pause(&self, id: SandboxId) -> Result<Record, SandboxError> {
        let (inner, entry) = (Arc::clone(&self.0), self.0.entry(id)?);
        self.run(async move {
            let _turn = entry.turn().await;
            match entry.phase() {
                Phase::Paused => {}
                Phase::Ready => inner.pause(&entry).await?,
                phase => return Err(SandboxError::WrongState { operation: "be paused", phase }),
            }
            Ok(entry.record())
        })
        .await
    }
}

// === impl Inner ===

impl Inner {
    async fn pause(&self, entry: &Entry) -> Result<(), SandboxError> {
        // Whoever finds the intent takes the state that is placed for this pause's.
        remove_directory(&self.layout.paused(entry.id)).await?;
        self.record(entry, Phase::Pausing, None)?;
        self.pass(PauseStep::IntentRecorded.name()).await;
        // So that its disks alone can be copied while it is paused. Its state has all of it in any case.
        let synced = self.sync(entry).await;
        if let Err(error) = &synced {
            tracing::warn!(
                sandbox = %entry.id, reason = error_chain(error),
                "a guest is paused with what it has not written; it cannot be copied until it is resumed"
            );
        }
        let mut record = entry.record();
        record.unsynced = synced.is_err();
        entry.set_record(record);
        entry.guest().suspend();
        if let Err(error) = self.save(entry).await {
            self.go_on(entry).await?;
            return Err(error);
        }
        self.pass(PauseStep::StatePlaced.name()).await;
        self.finish_pause(entry).await
    }

    async fn save(&self, entry: &Entry) -> Result<(), SandboxError> {
        let (directory, partial) = (self.directory(entry), self.layout.pausing(entry.id));
        self.vmm.freeze(&directory).await.map_err(SandboxError::vmm("freeze the machine"))?;
        self.pass(PauseStep::MachineFrozen.name()).await;
        fresh_directory(&partial).await?;
        // The state goes on with these very blocks, also when the host has lost its power meanwhile.
        let disks = [self.layout.root_disk(entry.id), self.layout.data_disk(entry.id)];
        blocking(move || disks.iter().try_for_each(|disk| disks::sync(disk))).await?;
        self.vmm.save(&directory, &partial).await.map_err(|error| saving(error, &partial))?;
        self.pass(PauseStep::StateSaved.name()).await;
        place(&partial, &self.layout.paused(entry.id)).await
    }

    /// The state is placed: ends the machine that it is of.
    pub(super) async fn finish_pause(&self, entry: &Entry) -> Result<(), SandboxError> {
        self.vmm.end(&self.directory(entry)).await.map_err(SandboxError::vmm("end the machine"))?;
        self.pass(PauseStep::MachineEnded.name()).await;
        self.record(entry, Phase::Paused, None)?;
        self.pass(PauseStep::PausedRecorded.name()).await;
        self.release_place(entry.id);
        Ok(())
    }

    /// Undoes a pause that came to nothing.
    pub(super) async fn go_on(&self, entry: &Entry) -> Result<(), SandboxError> {
        if let Err(error) = remove_directory(&self.layout.pausing(entry.id)).await {
            tracing::warn!(sandbox = %entry.id, reason = error_chain(&error), "half a state is left; it is replaced or removed later");
        }
        self.thaw_or_stop(entry, "a pause that failed").await?;
        self.record(entry, Phase::Ready, None)
    }
}

/// A failure to save; a full disk is named as such.
pub(super) fn saving(error: emergent_microvm::SaveError, into: &std::path::Path) -> SandboxError {
    match error {
        emergent_microvm::SaveError::NoRoom { .. } => SandboxError::DiskFull { place: into.display().to_string() },
        error => SandboxError::Save(error),
    }
}
