//! The locks of snapshots that somebody works with.
//!
//! A task that takes or deletes a snapshot holds the snapshot's lock alone; a task that makes a workspace from the
//! snapshot shares the lock. So a snapshot is never deleted from under a create, and a row in a state between two that
//! nobody holds was left by a process that ended.

use std::{collections::HashMap, sync::Arc};

use emergent_types::SnapshotId;
use parking_lot::Mutex;
use tokio::sync::RwLock;

/// One lock for each snapshot, there only while somebody holds it or waits for it.
#[derive(Default)]
pub(crate) struct SnapshotLocks(Mutex<HashMap<SnapshotId, Arc<RwLock<()>>>>);

// === impl SnapshotLocks ===

impl SnapshotLocks {
    pub(crate) fn of(&self, snapshot: SnapshotId) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock();
        // A guard has a reference of its own.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(snapshot).or_default())
    }
}
