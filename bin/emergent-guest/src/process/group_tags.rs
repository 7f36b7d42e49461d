//! Marks on the processes of executions: each is a supplementary group id that no other execution has.
//!
//! An unprivileged process can leave its session and its parent, but not its groups, and `/proc/PID/status` shows them
//! on Linux and on gVisor. So the whole tree can always be found again.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

/// The first id of a range far beyond the ids that images use, and the size of the range.
const FIRST: u32 = 0x4000_0000;
const COUNT: u32 = 0x3000_0000;

/// Gives out group tags.
#[derive(Debug)]
pub struct GroupTags {
    available: bool,
    next: AtomicU32,
}

impl GroupTags {
    /// Marks from a `seed` on, which keeps guests that share a kernel apart. If the user namespace does not map the
    /// ids, there are no tags, and trees are found by session and descent alone.
    pub fn of_namespace(seed: u32) -> Self {
        let map = fs::read_to_string(Path::new("/proc/self/gid_map")).unwrap_or_default();
        Self { available: maps(&map, u64::from(FIRST), u64::from(COUNT)), next: AtomicU32::new(seed) }
    }

    /// Returns a tag that no live execution has.
    pub fn next(&self) -> Option<u32> {
        self.available.then(|| FIRST + self.next.fetch_add(1, Ordering::Relaxed) % COUNT)
    }
}

/// Whether a line of `gid_map` covers `count` ids from `first`. An empty map means a kernel without user namespaces.
fn maps(map: &str, first: u64, count: u64) -> bool {
    let covers = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inside)), _, Some(Ok(length))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        inside <= first && first + count <= inside.saturating_add(length)
    };
    map.trim().is_empty() || map.lines().any(covers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_used_only_where_the_namespace_maps_them() {
        assert!(maps("         0          0 4294967295\n", FIRST.into(), COUNT.into()));
        assert!(maps("", FIRST.into(), COUNT.into()));
        assert!(!maps("0 100000 65536\n", FIRST.into(), COUNT.into()));
        assert!(!maps("rubbish\n", FIRST.into(), COUNT.into()));
    }
}
