//! The size of the files in directories. Counting takes long, so that it runs beside the calls: a call gets the last
//! count, and counting takes no more than a tenth of the time.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

/// The time that a call waits for a count that is under way.
const PATIENCE: Duration = Duration::from_millis(200);
/// The number of times that the duration of a count must pass before the next count.
const REST: u32 = 9;
/// The most directories that wait to be counted, and the most files with several names that are remembered: beyond
/// that, the count is less exact.
const REMEMBERED: usize = 100_000;

/// Counts some directories. Clones are the same counter.
#[derive(Debug, Clone, Default)]
pub struct Tree(watch::Sender<Count>);

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    bytes: Option<u64>,
    is_under_way: bool,
    not_before: Option<Instant>,
}

// === impl Tree ===

impl Tree {
    /// Returns the bytes that the files below `roots` take on their file systems, at the last count.
    pub async fn bytes(&self, roots: &[PathBuf]) -> Option<u64> {
        let is_due = |count: &mut Count| {
            let rests = count.not_before.is_some_and(|at| Instant::now() < at);
            let begins = !count.is_under_way && !rests;
            count.is_under_way |= begins;
            begins
        };
        if self.0.send_if_modified(is_due) {
            let (count, roots) = (self.0.clone(), roots.to_owned());
            tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                let bytes = roots.iter().map(|root| measure(root)).fold(0, u64::saturating_add);
                let not_before = Some(Instant::now() + began.elapsed() * REST);
                count.send_replace(Count { bytes: Some(bytes), is_under_way: false, not_before });
            });
        }
        let mut counts = self.0.subscribe();
        timeout(PATIENCE, counts.wait_for(|count| !count.is_under_way)).await.ok();
        self.0.borrow().bytes
    }
}

/// Counts the bytes of files below `root` on the same file system. Files that cannot be read are left out.
fn measure(root: &Path) -> u64 {
    let Ok(top) = fs::symlink_metadata(root) else { return 0 };
    let mut bytes = 0_u64;
    let mut several_names = HashSet::new();
    let mut waiting: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != top.dev() {
                continue;
            }
            let is_directory = metadata.is_dir();
            if !is_directory
                && metadata.nlink() > 1
                && several_names.len() < REMEMBERED
                && !several_names.insert(metadata.ino())
            {
                continue;
            }
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            if is_directory && waiting.len() < REMEMBERED {
                waiting.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_counted_once_whatever_their_names_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("root"), directory.path().join("outside"));
        fs::create_dir_all(root.join("deep/er")).unwrap();
        fs::write(root.join("deep/er/file"), vec![1; 1 << 20]).unwrap();
        fs::write(&outside, vec![1; 8 << 20]).unwrap();
        let before = measure(&root);
        assert!((1 << 20..2 << 20).contains(&before), "{before}");
        fs::hard_link(root.join("deep/er/file"), root.join("again")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        assert!(measure(&root) < 2 << 20);
        let tree = Tree::default();
        assert_eq!(tree.bytes(&[root.clone(), root.clone()]).await, Some(2 * measure(&root)));
    }
}
