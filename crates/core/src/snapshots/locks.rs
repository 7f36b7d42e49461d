//! The locks of snapshots that somebody works with.

use std::{collections::HashMap, sync::Arc};

use emergent_types::SnapshotId;
use parking_lot::Mutex;
use tokio::sync::RwLock;

/// One lock for each snapshot, there only while somebody holds it or waits for it.
#[derive(Default)]
pub(crate) struct Locks(Mutex<HashMap<SnapshotId, Arc<RwLock<()>>>>);

// === impl Locks ===

impl Locks {
    pub(crate) fn of(&self, snapshot: SnapshotId) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock();
        // A guard has a reference of its own.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(snapshot).or_default())
    }
}
