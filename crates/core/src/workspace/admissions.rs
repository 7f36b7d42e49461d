//! Workspaces that are being admitted: their rows may be committed at any moment, and the registry does not know them
//! yet. Code that compares rows, registry and engine leaves these workspaces alone.

use std::{collections::HashSet, sync::Arc};

use emergent_types::WorkspaceId;
use parking_lot::Mutex;

/// The workspaces that are being admitted.
#[derive(Clone, Default)]
pub(crate) struct Admissions(Arc<Mutex<HashSet<WorkspaceId>>>);

/// One admission. The workspace counts as being admitted while this value exists: until the registry knows the
/// workspace, or the create has failed.
pub(crate) struct AdmissionGuard {
    id: WorkspaceId,
    all: Admissions,
}

// === impl Admissions ===

impl Admissions {
    /// Notes that a workspace is being admitted. Every id is admitted only once.
    pub(crate) fn begin(&self, id: WorkspaceId) -> AdmissionGuard {
        self.0.lock().insert(id);
        AdmissionGuard { id, all: self.clone() }
    }

    /// Returns whether a workspace is being admitted. Ask this before the registry: a workspace leaves this list only
    /// after it has come into the registry.
    pub(crate) fn has(&self, id: WorkspaceId) -> bool {
        self.0.lock().contains(&id)
    }
}

// === impl AdmissionGuard ===

impl Drop for AdmissionGuard {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.id);
    }
}
