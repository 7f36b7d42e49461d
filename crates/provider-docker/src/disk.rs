//! How much disk the files of a directory take, counted from outside of the sandbox that writes them.
//!
//! Whoever has root inside may change the tree meanwhile, so that nothing is looked up by a path: each directory is
//! opened from the one above, and no link is followed.

use std::{
    collections::HashSet,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

/// How deep directories are looked into: one descriptor is open for each level.
const DEPTH: usize = 500;
/// What a file takes at least: files without contents fill a file system, too.
const LEAST: u64 = 4096;
/// How many files with several names are remembered, at most; the names of others count one by one.
const REMEMBERED: usize = 100_000;

/// Counts the files below several directories; `None` where none of them can be looked at, as they are root's. Blocks.
/// What else cannot be looked at is left out.
pub(crate) fn measure(roots: &[PathBuf]) -> Option<u64> {
    let mut bytes = None;
    let mut several_names = HashSet::new();
    for root in roots {
        let Some(top) = open(CWD, root.as_os_str().as_encoded_bytes()) else { continue };
        let mut counted = bytes.unwrap_or(0_u64);
        let mut open_directories = vec![top];
        while let Some(directory) = open_directories.last_mut() {
            let Some(Ok(entry)) = directory.entries.next() else {
                open_directories.pop();
                continue;
            };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let Ok(stat) = statat(&directory.descriptor, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let is_known = !is_directory
                && stat.st_nlink > 1
                && several_names.len() < REMEMBERED
                && !several_names.insert((stat.st_dev, stat.st_ino));
            if is_known {
                continue;
            }
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            counted = counted.saturating_add(blocks.saturating_mul(512).max(LEAST));
            if is_directory
                && open_directories.len() < DEPTH
                && let Some(directory) = open_directories.last()
                && let Some(below) = open(&directory.descriptor, name)
            {
                open_directories.push(below);
            }
        }
        bytes = Some(counted);
    }
    bytes
}

/// Counts the files that are removed, and that processes have open or mapped all the same. Blocks. Files in memory do
/// not count.
pub(crate) fn measure_removed(processes: &[String]) -> u64 {
    let mut bytes = 0_u64;
    let mut known = HashSet::new();
    for directory in processes.iter().flat_map(|pid| ["fd", "map_files"].map(|kind| format!("/proc/{pid}/{kind}"))) {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            // The kernel's links lead to the very files, whatever their names were.
            let Ok(stat) = rustix::fs::stat(&path) else { continue };
            let is_removed = stat.st_nlink == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_removed && known.insert((stat.st_dev, stat.st_ino)) && !is_in_memory(&path) {
                let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                bytes = bytes.saturating_add(blocks.saturating_mul(512));
            }
        }
    }
    bytes
}

/// Whether a file's contents are memory's, as those of a tmpfs are.
fn is_in_memory(path: &Path) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const HUGE_PAGES: i64 = 0x9584_58f6;
    let kind = rustix::fs::statfs(path).map(|system| system.f_type);
    kind.is_ok_and(|kind| [TMPFS, HUGE_PAGES].contains(&kind))
}

/// A directory that is being looked through.
struct Open {
    descriptor: OwnedFd,
    entries: Dir,
}

fn open(above: impl std::os::fd::AsFd, name: &[u8]) -> Option<Open> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = openat(above, name, flags, Mode::empty()).ok()?;
    let entries = Dir::read_from(&descriptor).ok()?;
    Some(Open { descriptor, entries })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_removed_file_counts_while_it_is_open() {
        let own = [std::process::id().to_string()];
        // Not where files may be in memory.
        let program = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let path = directory.path().join("file");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&vec![1; 8 << 20]).unwrap();
        file.sync_all().unwrap();
        let before = measure_removed(&own);
        fs::remove_file(&path).unwrap();
        let counted = measure_removed(&own);
        assert!(counted >= before + (8 << 20), "{before}, then {counted}");
    }

    #[test]
    fn files_are_counted_once_and_links_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("root"), directory.path().join("outside"));
        fs::create_dir_all(root.join("deep/er")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(root.join("deep/er/file"), vec![1; 1 << 20]).unwrap();
        fs::write(outside.join("file"), vec![1; 8 << 20]).unwrap();
        fs::hard_link(root.join("deep/er/file"), root.join("again")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let missing = directory.path().join("missing");
        assert_eq!(measure(std::slice::from_ref(&missing)), None);
        let counted = measure(&[root.clone(), missing]).unwrap();
        assert!((1 << 20..2 << 20).contains(&counted), "{counted}");
        for number in 0..100 {
            fs::write(root.join(format!("empty-{number}")), "").unwrap();
        }
        assert!(measure(&[root]) >= Some(counted + 100 * LEAST), "files without contents count");
    }
}
