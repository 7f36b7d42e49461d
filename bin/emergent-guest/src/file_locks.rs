//! The locks that let one change of a file run at a time. An edit reads, changes and replaces: without a lock, two at
//! once would both succeed and one would be lost.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher as _},
    sync::Arc,
};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// The number of locks, which all files share, so that they need a bounded memory.
const LOCKS: usize = 64;

/// The locks of all files.
#[derive(Debug)]
pub struct FileLocks([Arc<Mutex<()>>; LOCKS]);

/// The key of a file's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockKey(usize);

/// While this lives, no other call changes the files that it was taken for.
#[derive(Debug)]
pub struct FileGuard {
    _guards: Vec<OwnedMutexGuard<()>>,
}

// === impl LockKey ===

impl LockKey {
    /// Returns the key for the identity of a file, such as its directory and its name.
    pub fn of(identity: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        Self(usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or(0))
    }
}

// === impl FileLocks ===

impl FileLocks {
    /// Takes the locks if none of them is taken.
    pub fn try_lock(&self, keys: &[LockKey]) -> Option<FileGuard> {
        let guards = self.in_order(keys).map(|lock| lock.try_lock_owned().ok());
        guards.collect::<Option<_>>().map(|guards| FileGuard { _guards: guards })
    }

    /// Waits for the locks and takes them.
    pub async fn lock(&self, keys: &[LockKey]) -> FileGuard {
        let mut guards = Vec::with_capacity(keys.len());
        for lock in self.in_order(keys) {
            guards.push(lock.lock_owned().await);
        }
        FileGuard { _guards: guards }
    }

    /// Returns the locks in an order that is the same for all callers, each once, so that no deadlock occurs.
    fn in_order(&self, keys: &[LockKey]) -> impl Iterator<Item = Arc<Mutex<()>>> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().filter_map(|LockKey(index)| self.0.get(index).cloned())
    }
}

impl Default for FileLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_files_are_locked_whatever_their_order_also_when_they_share_a_lock() {
        let locks = FileLocks::default();
        let (one, other) = (LockKey(3), LockKey(5));
        let held = locks.lock(&[other, one, one]).await;
        assert!(locks.try_lock(&[one]).is_none() && locks.try_lock(&[LockKey(4), other]).is_none());
        assert!(locks.try_lock(&[LockKey(4)]).is_some(), "what could not be taken whole is given back");
        drop(held);
        assert!(locks.try_lock(&[one, other]).is_some());
    }
}
