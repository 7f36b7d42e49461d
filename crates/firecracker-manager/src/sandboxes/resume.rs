//! Resuming: a new machine goes on from a state on disk, or boots from its disks where there is no state.

use emergent_types::error_chain;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use emergent_microvm::{GoneReason, MachineState};

use super::{Inner, Sandboxes, entry::Entry, remove_directory};
use crate::{
    SandboxError, SandboxId,
    record::{Phase, Record},
    step::{BootStep, ResumeStep},
    template,
};

// === impl Sandboxes ===

impl Sandboxes {
    /// Lets a sandbox go on: a paused one with its processes, a stopped one from its disks; one that runs does already.
    /// On an error it is what it was.
    ///
    /// # Errors
    /// [`SandboxError`]; [`SandboxError::NoRoom`] when there is no place for its machine.
    pub async fn resume(&self, id: SandboxId) -> Result<Record, SandboxError> {
        let (inner, entry) = (Arc::clone(&self.0), self.0.entry(id)?);
        self.run(async move {
            let _turn = entry.turn().await;
            match entry.phase() {
                Phase::Ready => {}
                Phase::Paused => inner.resume(&entry).await?,
                Phase::Stopped => inner.start(&entry).await?,
                // Whoever made it gave it up while this waited for its turn.
                Phase::Creating | Phase::Destroying => return Err(SandboxError::NotFound(id)),
                phase => return Err(SandboxError::WrongState { operation: "be resumed", phase }),
            }
            Ok(entry.record())
        })
        .await
    }
}

// === impl Inner ===

impl Inner {
    pub(super) async fn resume(&self, entry: &Entry) -> Result<(), SandboxError> {
        self.take_place(entry)?;
        let begun = self.record(entry, Phase::Resuming, None);
        if let Err(error) = begun {
            self.release_place(entry.id);
            return Err(error);
        }
        self.pass(ResumeStep::IntentRecorded.name()).await;
        if let Err(error) = self.restore(entry, &self.layout.paused(entry.id), false).await {
            self.give_up_resume(entry).await?;
            return Err(error);
        }
        self.finish_resume(entry).await
    }

    /// Makes a machine from a state, and waits for its guest; `copy` says that the state is another sandbox's. What
    /// fails leaves things as they are.
    pub(super) async fn restore(&self, entry: &Entry, state: &Path, copy: bool) -> Result<(), SandboxError> {
        let record = entry.record();
        let kernel = template::find(&self.layout, &record.template)?.kernel;
        let tap = self.attach(entry).await?;
        self.pass(ResumeStep::NetworkAttached.name()).await;
        let spec = self.spec(&record, kernel, tap);
        self.vmm.restore(&spec, state).await.map_err(SandboxError::Restore)?;
        self.pass(ResumeStep::MachineRestored.name()).await;
        self.wake(entry, spec.network.as_ref(), copy).await?;
        self.pass(ResumeStep::GuestAnswered.name()).await;
        Ok(())
    }

    /// The machine runs and its guest knows: the state on disk is of the past.
    pub(super) async fn finish_resume(&self, entry: &Entry) -> Result<(), SandboxError> {
        self.record(entry, Phase::Ready, None)?;
        self.pass(ResumeStep::ReadyRecorded.name()).await;
        if let Err(error) = remove_directory(&self.layout.paused(entry.id)).await {
            tracing::warn!(
                sandbox = %entry.id,
                reason = error_chain(&error),
                "the saved state of a resumed machine could not be removed; the next start removes it"
            );
        }
        self.pass(ResumeStep::StateRemoved.name()).await;
        Ok(())
    }

    /// Undoes a resume that came to nothing. The state is still good unless the machine has run: then its disks are
    /// ahead of it, and going on from it would destroy what is on them.
    pub(super) async fn give_up_resume(&self, entry: &Entry) -> Result<(), SandboxError> {
        let directory = self.directory(entry);
        // What told whether it ran may be lost with the host's power, and so may the times of the disks.
        let unknown = self.host_has_restarted(entry);
        let ran = match self.vmm.state(&directory).await {
            Ok(MachineState::Gone(GoneReason::NeverBooted)) => false,
            Ok(_) | Err(_) => self.disks_are_ahead(entry),
        };
        entry.guest().suspend();
        self.vmm.end(&directory).await.map_err(SandboxError::vmm("end the machine"))?;
        // A machine that was alive when it was looked at may have written until now.
        if unknown || ran || self.disks_are_ahead(entry) {
            let reason =
                "its machine ended while it was resumed; its files are kept, its processes are lost".to_owned();
            return self.fall_to_stopped(entry, reason).await;
        }
        self.release_place(entry.id);
        self.record(entry, Phase::Paused, None)
    }

    /// Whether a disk was written to since the state was saved.
    fn disks_are_ahead(&self, entry: &Entry) -> bool {
        let disks = [self.layout.root_disk(entry.id), self.layout.data_disk(entry.id)];
        let saved = newest_in(&self.layout.paused(entry.id));
        let Some(saved) = saved else { return true };
        disks.iter().any(|disk| modified(disk).is_none_or(|written| written > saved))
    }

    /// Boots a stopped sandbox from its disks.
    async fn start(&self, entry: &Entry) -> Result<(), SandboxError> {
        self.take_place(entry)?;
        if let Err(error) = self.record(entry, Phase::Starting, None) {
            self.release_place(entry.id);
            return Err(error);
        }
        self.pass(BootStep::IntentRecorded.name()).await;
        // What the ended machine's driver has left would be in the way.
        let booted = async {
            self.vmm.end(&self.directory(entry)).await.map_err(SandboxError::vmm("end the machine"))?;
            self.boot(entry).await
        };
        if let Err(error) = booted.await {
            self.fall_to_stopped(entry, format!("it could not be started: {}", error_chain(&error))).await?;
            return Err(error);
        }
        Ok(())
    }
}

fn newest_in(directory: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(directory).ok()?;
    entries.flatten().filter_map(|entry| modified(&entry.path())).max()
}

fn modified(path: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}
