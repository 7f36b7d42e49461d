//! The workspaces that this process drives. Every workspace of this server that is not destroyed has an [`Entry`].

use std::{collections::HashMap, sync::Arc};

use emergent_types::WorkspaceId;
use parking_lot::RwLock;

use crate::workspace::entry::Entry;

/// All entries, by id.
#[derive(Default)]
pub(crate) struct Registry {
    entries: RwLock<HashMap<WorkspaceId, Arc<Entry>>>,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn get(&self, id: WorkspaceId) -> Option<Arc<Entry>> {
        self.entries.read().get(&id).cloned()
    }

    pub(crate) fn insert(&self, entry: Arc<Entry>) {
        self.entries.write().insert(entry.id, entry);
    }

    pub(crate) fn remove(&self, id: WorkspaceId) {
        self.entries.write().remove(&id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.read().values().cloned().collect()
    }
}
