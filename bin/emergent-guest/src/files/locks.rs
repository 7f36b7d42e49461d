//! One change of a file at a time. An edit reads, changes and replaces: without this, two at once would both succeed and
//! one would be lost.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher as _},
    sync::Arc,
};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Files share this many locks, so that they need a bounded memory whatever is edited.
const LOCKS: usize = 64;

/// The locks of all files.
#[derive(Debug)]
pub struct FileLocks([Arc<Mutex<()>>; LOCKS]);

/// Names the lock of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockKey(usize);

/// While it lives, nobody else changes the files that it was taken for.
#[derive(Debug)]
pub struct FileGuard {
    _guards: Vec<OwnedMutexGuard<()>>,
}

// === impl LockKey ===

impl LockKey {
    /// The key of what identifies a file, such as its directory and its name.
    pub fn of(identity: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        Self(usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or(0))
    }
}

// === impl FileLocks ===

impl FileLocks {
    /// Takes the locks if nobody has one of them.
    pub fn try_lock(&self, keys: &[LockKey]) -> Option<FileGuard> {
        let guards = self.in_order(keys).map(|lock| lock.try_lock_owned().ok());
        guards.collect::<Option<_>>().map(|guards| FileGuard { _guards: guards })
    }

    /// Waits until it has the locks.
    pub async fn lock(&self, keys: &[LockKey]) -> FileGuard {
        let mut guards = Vec::with_capacity(keys.len());
        for lock in self.in_order(keys) {
            guards.push(lock.lock_owned().await);
        }
        FileGuard { _guards: guards }
    }

    /// Everybody takes several locks in the same order, each once, so that nobody waits in a circle.
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
