//! One sandbox in memory: its record, its guest, and the lock that orders its changes.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use emergent_guest_client::{Guest, Open};
use emergent_microvm::{Vmm, VmmError};
use emergent_provider::{ByteStream, ChannelError};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OwnedMutexGuard;

use crate::{
    SandboxError, SandboxId,
    record::{Phase, Record},
};

/// One sandbox.
pub(super) struct Entry {
    pub(super) id: SandboxId,
    record: Mutex<Record>,
    turn: Arc<tokio::sync::Mutex<()>>,
    guest: Guest,
}

/// The right to change a sandbox.
pub(super) type SandboxGuard = OwnedMutexGuard<()>;

/// Opens channels to one machine's guest.
struct Opener {
    vmm: Arc<dyn Vmm>,
    directory: PathBuf,
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(record: Record, vmm: Arc<dyn Vmm>, directory: PathBuf) -> Self {
        let guest = Guest::new(Arc::new(Opener { vmm, directory }), None);
        Self { id: record.id(), record: Mutex::new(record), turn: Arc::default(), guest }
    }

    /// Waits for the right to change the sandbox.
    pub(super) async fn turn(&self) -> SandboxGuard {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Returns the right to change the sandbox, unless another operation has it.
    pub(super) fn try_turn(&self) -> Option<SandboxGuard> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    pub(super) fn guest(&self) -> &Guest {
        &self.guest
    }

    pub(super) fn record(&self) -> Record {
        self.lock().clone()
    }

    pub(super) fn set_record(&self, record: Record) {
        *self.lock() = record;
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Refuses an operation in any phase but one.
    pub(super) fn require(&self, wanted: Phase, operation: &'static str) -> Result<(), SandboxError> {
        match self.phase() {
            phase if phase == wanted => Ok(()),
            phase => Err(SandboxError::WrongState { operation, phase }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock()
    }
}

#[async_trait]
impl Open for Opener {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        self.vmm.open(&self.directory).await.map_err(|error| match error {
            VmmError::Gone(_) => ChannelError::NotRunning,
            error => ChannelError::Refused { engine: self.vmm.kind().to_string(), source: Box::new(error) },
        })
    }
}
