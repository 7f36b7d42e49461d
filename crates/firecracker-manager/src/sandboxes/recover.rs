//! The start: what an earlier process left is adopted, finished or undone. Machines that run are never ended unless
//! their sandbox was on its way out.
//!
//! | record | machine | what is done |
//! | --- | --- | --- |
//! | none | any | all of it is removed: nothing was promised |
//! | creating, destroying | any | all of it is removed |
//! | ready | runs | adopted |
//! | ready | frozen | thawed: a snapshot was being taken; stopped if it does not go on |
//! | ready | gone | stopped |
//! | pausing | any, state placed | ended, paused |
//! | pausing | there, no state | thawed, ready |
//! | paused | — | paused; stopped if its state is gone |
//! | resuming | runs | its guest is woken, ready |
//! | resuming | gone | paused again; stopped if its disks are ahead of its state, or the host has started anew |
//! | stopping, starting | any | ended, stopped |

use emergent_types::error_chain;
use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
};

use emergent_microvm::MachineState;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Inner, Parts, Sandboxes, entry::Entry, remove_directory};
use crate::{
    SandboxError, SandboxId,
    admission::Admission,
    config::ManagerConfig,
    layout::Layout,
    record::{Phase, Record, RecordLookup},
    template,
};

/// The reason for which the manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The base directory cannot be used.
    #[error("the directory {} cannot be used; make it for this user, or name another one", path.display())]
    Base {
        /// The path of the directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("another manager uses {}; stop it, or name another directory", .0.display())]
    Taken(PathBuf),
}

// === impl Sandboxes ===

impl Sandboxes {
    /// Takes over what is below the base directory, and looks after it from now on.
    ///
    /// # Errors
    /// [`StartError`] when the directory cannot be used. A sandbox that cannot be taken over is left alone and logged.
    pub async fn start(config: ManagerConfig, parts: Parts) -> Result<Self, StartError> {
        let layout = Layout::new(&config.base);
        let unusable = |source| StartError::Base { path: config.base.clone(), source };
        layout.make().map_err(unusable)?;
        let lock = lock(&layout)?;
        let inner = Arc::new(Inner {
            admission: Mutex::new(Admission::new(config.budget)),
            layout,
            vmm: parts.vmm,
            network: parts.network,
            checkpoint: parts.checkpoint,
            entries: Mutex::new(HashMap::new()),
            in_use: Mutex::new(HashMap::new()),
            saving: Mutex::new(HashSet::new()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            config,
            _lock: lock,
        });
        inner.recover().await.map_err(|source| StartError::Base { path: inner.layout.base().to_owned(), source })?;
        let sandboxes = Self(inner);
        sandboxes.watch();
        Ok(sandboxes)
    }
}

/// Two processes that act on the same sandboxes would undo each other's work.
fn lock(layout: &Layout) -> Result<File, StartError> {
    let path = layout.base().join("manager.lock");
    let unusable = |source| StartError::Base { path: path.clone(), source };
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Taken(layout.base().to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

// === impl Inner ===

impl Inner {
    async fn recover(&self) -> io::Result<()> {
        for found in std::fs::read_dir(self.layout.sandboxes())? {
            let found = found?;
            let Some(id) = found.file_name().to_str().and_then(|name| name.parse::<SandboxId>().ok()) else {
                tracing::warn!(path = %found.path().display(), "what is no sandbox is left alone");
                continue;
            };
            match Record::read(&self.layout.record(id), id) {
                Ok(RecordLookup::Record(record)) => self.recover_one(*record).await,
                Ok(RecordLookup::Nothing) => {
                    if let Err(error) = self.remove_remains(&found.path()).await {
                        tracing::warn!(sandbox = %id, reason = error_chain(&error), "what is left of a sandbox stays");
                    }
                }
                Err(error) => {
                    tracing::error!(sandbox = %id, reason = error_chain(&error), "a sandbox that cannot be read is left alone");
                }
            }
        }
        self.remove_partial_snapshots().await;
        self.remove_stray_states().await?;
        self.remove_partial_template_snapshots().await;
        self.remove_old_template_snapshots().await;
        let is_empty = |directory: PathBuf| io::Result::Ok(std::fs::read_dir(directory)?.next().is_none());
        let with_disks = [self.layout.sandboxes(), self.layout.named_snapshots(), self.layout.template_snapshots()];
        if with_disks.into_iter().map(is_empty).collect::<io::Result<Vec<_>>>()?.into_iter().all(|empty| empty) {
            template::unpin_all(&self.layout);
        }
        if let Err(error) = self.network.remove_strays(&self.known()).await {
            tracing::warn!(reason = error_chain(&error), "network interfaces of earlier sandboxes may be left");
        }
        Ok(())
    }

    async fn recover_one(&self, record: Record) {
        let id = record.id();
        let (phase, memory) = (record.phase, record.memory_mb);
        let entry = Arc::new(Entry::new(record, Arc::clone(&self.vmm), self.layout.sandbox(id)));
        self.lock_entries().insert(id, Arc::clone(&entry));
        if !matches!(phase, Phase::Paused | Phase::Stopped) {
            self.lock_admission().adopt(id, memory);
        }
        match self.settle(&entry).await {
            Ok(()) if self.entry(id).is_ok() => {
                tracing::info!(sandbox = %id, was = phase.as_str(), is = entry.phase().as_str(), "a sandbox is taken over");
            }
            Ok(()) => tracing::info!(sandbox = %id, was = phase.as_str(), "what was left of a sandbox is removed"),
            Err(error) => {
                tracing::error!(sandbox = %id, was = phase.as_str(), reason = error_chain(&error), "a sandbox is not in order");
            }
        }
    }

    /// Brings a sandbox from whatever an earlier process left to a phase that lasts.
    pub(super) async fn settle(&self, entry: &Arc<Entry>) -> Result<(), SandboxError> {
        let directory = self.directory(entry);
        let state = self.vmm.state(&directory).await.map_err(SandboxError::vmm("say how the machine is"))?;
        match (entry.phase(), state) {
            (Phase::Ready | Phase::Pausing, MachineState::Gone(_))
                if self.host_has_restarted(entry) && !self.layout.paused(entry.id).exists() =>
            {
                let reason = "the host has started anew; its files are kept as its guest had last written them to its disks, \
                              its processes are lost";
                self.fall_to_stopped(entry, reason.to_owned()).await
            }
            (Phase::Creating | Phase::Destroying, _) => self.remove(entry).await,
            (Phase::Ready, MachineState::Running) => Ok(()),
            (Phase::Ready, MachineState::Frozen) => self.thaw_or_stop(entry, "it was left standing still").await,
            (Phase::Ready, MachineState::Gone(reason)) => self.fall_to_stopped(entry, reason.to_string()).await,
            (Phase::Pausing, _) if self.layout.paused(entry.id).exists() => self.finish_pause(entry).await,
            (Phase::Pausing, MachineState::Gone(reason)) => self.fall_to_stopped(entry, reason.to_string()).await,
            (Phase::Pausing, MachineState::Running | MachineState::Frozen) => self.go_on(entry).await,
            (Phase::Paused, _) if self.layout.paused(entry.id).exists() => Ok(()),
            (Phase::Paused, _) => {
                self.fall_to_stopped(entry, "its saved state is gone; its files are kept".to_owned()).await
            }
            (Phase::Resuming, MachineState::Running) => self.settle_resuming(entry).await,
            (Phase::Resuming, MachineState::Frozen | MachineState::Gone(_)) => self.give_up_resume(entry).await,
            (Phase::Stopping, _) => self.finish_halt(entry, None).await,
            (Phase::Starting, _) => {
                self.finish_halt(entry, Some("its start was cut short; resume it".to_owned())).await
            }
            (Phase::Stopped, MachineState::Gone(_)) => Ok(()),
            (Phase::Stopped, MachineState::Running | MachineState::Frozen) => {
                let reason = entry.record().reason;
                self.finish_halt(entry, reason).await
            }
        }
    }

    async fn settle_resuming(&self, entry: &Entry) -> Result<(), SandboxError> {
        let attached = self.attach(entry).await;
        let woken = async { self.wake(entry, attached?.as_ref(), false).await };
        match woken.await {
            Ok(()) => self.finish_resume(entry).await,
            Err(error) => {
                tracing::warn!(sandbox = %entry.id, reason = error_chain(&error), "a machine does not go on");
                self.give_up_resume(entry).await
            }
        }
    }

    /// Removes saved states of sandboxes that no longer exist or have resumed.
    async fn remove_stray_states(&self) -> io::Result<()> {
        let named = self.layout.named_snapshots();
        for found in std::fs::read_dir(self.layout.snapshots())? {
            let path = found?.path();
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<SandboxId>().ok());
            let needed = id.and_then(|id| self.entry(id).ok()).is_some_and(|entry| entry.phase() == Phase::Paused);
            if path == named || needed {
                continue;
            }
            if let Err(error) = remove_directory(&path).await {
                tracing::warn!(path = %path.display(), reason = error_chain(&error), "a state of no sandbox is left");
            }
        }
        Ok(())
    }
}
