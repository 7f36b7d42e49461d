//! How much disk the files of a directory take, counted from outside of the sandbox that writes them.
//!
//! Processes with root's rights inside may change the tree meanwhile, so that nothing is looked up by a path: each
//! directory is opened from the one above, and no link is followed.

use std::{
    collections::HashSet,
    ffi::CStr,
    fs,
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

/// How many directories are open at once on one way down; what is deeper is looked at afterwards.
const DEPTH: usize = 500;
/// How many directories that are deeper wait to be looked at, each with a descriptor.
const DEEPER: usize = 256;
/// Counted for what cannot be looked at, because it is too deep in too many places: more than any limit allows.
const UNCOUNTABLE: u64 = u64::MAX / 2;
/// Taken by a further name of a file that is counted already.
const NAME: u64 = 64;
/// The least room that a file counts for: files without contents fill a file system, too.
const LEAST: u64 = 4096;
/// How many names cost nothing but the room that they take.
const FREE_NAMES: u64 = 65_536;
/// The room that each further name counts for, so that a tree within its limit is counted in bounded time: the part of
/// a disk for which ext4 makes one file.
const ROOM_OF_NAME: u64 = 16 << 10;
/// The prefix by which a name in the layer of an image says that a file was removed.
const MARK: &[u8] = b".wh.";
/// How many files with several names are remembered, at most; the names of others count one by one.
const REMEMBERED: usize = 100_000;

/// A figure of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// The room that it takes: holes take none.
    Blocks,
    /// The room that a copy takes whose maker fills holes.
    Filled,
}

/// A count of files: how much room they take, and how many names they have.
#[derive(Debug)]
pub(crate) struct Count {
    bytes: u64,
    names: u64,
    has_seen_any: bool,
    several_names: HashSet<(u64, u64)>,
    /// The charge above which the count goes no further.
    enough: u64,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walked {
    /// The directory cannot be looked at, or is none.
    Nowhere,
    Through,
    /// The visitor has seen enough.
    CutShort,
    /// The directory is too deep in too many places.
    TooDeep,
}

// === impl Count ===

impl Count {
    /// A count that ends as soon as it is above `enough`.
    pub(crate) fn up_to(enough: u64) -> Self {
        Self { bytes: 0, names: 0, has_seen_any: false, several_names: HashSet::new(), enough }
    }

    /// Adds files, and the files below directories. What cannot be looked at is left out. Blocks.
    pub(crate) fn add(&mut self, roots: &[PathBuf], figure: Figure) {
        for root in roots {
            if self.is_enough() {
                return;
            }
            let walked = walk(root, |_, _, stat| {
                self.add_one(stat, figure);
                if self.is_enough() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match walked {
                Walked::Through | Walked::CutShort => {}
                Walked::TooDeep => self.bytes = UNCOUNTABLE,
                Walked::Nowhere => {
                    let Ok(stat) = rustix::fs::lstat(root) else { continue };
                    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                        continue;
                    }
                    self.add_one(&stat, figure);
                }
            }
            self.has_seen_any = true;
        }
    }

    /// The room that the files take; `None` where none could be looked at, as they are root's.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.has_seen_any.then_some(self.bytes)
    }

    /// Returns the charge against a disk limit: the room that the files take, or that so many names count for,
    /// whichever is more.
    pub(crate) fn charge(&self) -> Option<u64> {
        self.bytes().map(|bytes| bytes.max(self.names.saturating_sub(FREE_NAMES).saturating_mul(ROOM_OF_NAME)))
    }

    fn is_enough(&self) -> bool {
        self.charge().is_some_and(|charge| charge > self.enough)
    }

    fn add_one(&mut self, stat: &Stat, figure: Figure) {
        self.has_seen_any = true;
        self.names += 1;
        let is_known = FileType::from_raw_mode(stat.st_mode) != FileType::Directory
            && stat.st_nlink > 1
            && self.several_names.len() < REMEMBERED
            && !self.several_names.insert((stat.st_dev, stat.st_ino));
        self.bytes = self.bytes.saturating_add(if is_known { NAME } else { taken(stat, figure) });
    }
}

/// The first name in a layer that means a removed file to whoever makes an image of it, as a path inside.
pub(crate) fn mark_of_removal(layer: &Path) -> Option<String> {
    let mut found = None;
    walk(layer, |above, name, _| {
        if !name.to_bytes().starts_with(MARK) {
            return ControlFlow::Continue(());
        }
        let above = above.iter().map(|directory| directory.name.as_slice());
        let path = above.chain([name.to_bytes()]).collect::<Vec<_>>().join(&b'/');
        found = Some(String::from_utf8_lossy(&path).into_owned());
        ControlFlow::Break(())
    });
    found
}

/// Visits all that is below a directory: with the directories above, its name and what it is.
fn walk(root: &Path, mut visit: impl FnMut(&[Open], &CStr, &Stat) -> ControlFlow<()>) -> Walked {
    let Some(mut top) = open(CWD, root.as_os_str().as_encoded_bytes()) else { return Walked::Nowhere };
    top.name.clear();
    let mut open_directories = vec![top];
    let mut deeper = Vec::new();
    while let Some(directory) = open_directories.last_mut() {
        let Some(Ok(entry)) = directory.entries.next() else {
            open_directories.pop();
            if open_directories.is_empty() {
                open_directories.extend(deeper.pop());
            }
            continue;
        };
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        let Ok(stat) = statat(&directory.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if visit(&open_directories, name, &stat).is_break() {
            return Walked::CutShort;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && let Some(directory) = open_directories.last()
            && let Some(below) = open(&directory.descriptor, name.to_bytes())
        {
            match open_directories.len() < DEPTH {
                true => open_directories.push(below),
                false if deeper.len() < DEEPER => deeper.push(below),
                false => return Walked::TooDeep,
            }
        }
    }
    Walked::Through
}

fn taken(stat: &Stat, figure: Figure) -> u64 {
    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512).max(LEAST);
    match figure {
        Figure::Blocks => blocks,
        Figure::Filled => blocks.max(u64::try_from(stat.st_size).unwrap_or(0)),
    }
}

/// Counts the files and directories that are removed, and that processes have open or mapped, run or are in all the
/// same. Blocks. Files in memory do not count.
pub(crate) fn measure_removed(processes: &[String]) -> u64 {
    let mut bytes = 0_u64;
    let mut known = HashSet::new();
    for path in processes.iter().flat_map(|pid| held_by(pid)) {
        // The kernel's links lead to the very files, whatever their names were.
        let Ok(stat) = rustix::fs::stat(&path) else { continue };
        let is_file = [FileType::RegularFile, FileType::Directory].contains(&FileType::from_raw_mode(stat.st_mode));
        if is_file && stat.st_nlink == 0 && known.insert((stat.st_dev, stat.st_ino)) && !is_in_memory(&path) {
            bytes = bytes.saturating_add(taken(&stat, Figure::Blocks));
        }
    }
    bytes
}

/// The kernel's links to what a process holds. Each thread may have descriptors and a directory of its own. Memory is
/// one for all threads, and is shown at each that has not ended, also where the first one has.
fn held_by(pid: &str) -> impl Iterator<Item = PathBuf> {
    let threads = entries(format!("/proc/{pid}/task").into()).collect::<Vec<_>>();
    // A thread's number leads to a place like a process's, which is not listed.
    let mut places = threads.iter().filter_map(|thread| thread.file_name()).map(|id| Path::new("/proc").join(id));
    let memory = places.find(|place| rustix::fs::stat(place.join("exe")).is_ok());
    let mapped = memory.into_iter().flat_map(|place| entries(place.join("map_files")).chain([place.join("exe")]));
    let own = threads.into_iter().flat_map(|thread| entries(thread.join("fd")).chain([thread.join("cwd")]));
    mapped.chain(own)
}

/// The paths of what is in a directory; none where it cannot be read.
fn entries(directory: PathBuf) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
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
    name: Vec<u8>,
    descriptor: OwnedFd,
    entries: Dir,
}

fn open(above: impl std::os::fd::AsFd, name: &[u8]) -> Option<Open> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = openat(above, name, flags, Mode::empty()).ok()?;
    let entries = Dir::read_from(&descriptor).ok()?;
    Some(Open { name: name.to_vec(), descriptor, entries })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn measure(roots: &[PathBuf], figure: Figure) -> Option<u64> {
        let mut count = Count::up_to(u64::MAX);
        count.add(roots, figure);
        count.bytes()
    }

    #[test]
    fn a_tree_of_many_names_counts_as_large_and_is_counted_no_further_than_needed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let further = 1_000;
        for number in 0..FREE_NAMES + further - 3 {
            let first = root.join(format!("file-{}", number / 40_000));
            match number % 40_000 {
                0 => fs::write(first, "").unwrap(),
                _ => fs::hard_link(first, root.join(number.to_string())).unwrap(),
            }
        }
        let count = |enough| {
            let mut count = Count::up_to(enough);
            count.add(std::slice::from_ref(&root), Figure::Blocks);
            (count.bytes().unwrap(), count.charge().unwrap(), count.names)
        };
        let (bytes, charge, names) = count(u64::MAX);
        assert_eq!(names, FREE_NAMES + further - 3);
        assert_eq!(charge, (further - 3) * ROOM_OF_NAME, "{bytes} bytes");
        let (_, charge, names) = count(500 * ROOM_OF_NAME);
        assert_eq!((charge, names), (501 * ROOM_OF_NAME, FREE_NAMES + 501));
    }

    #[test]
    fn a_name_that_means_a_removed_file_is_found_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b.wh.c");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(mark_of_removal(directory.path()), None);
        fs::write(deep.join(".wh.passwd"), "").unwrap();
        assert_eq!(mark_of_removal(directory.path()).as_deref(), Some("/a/b.wh.c/.wh.passwd"));
    }

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
    fn a_removed_file_counts_while_it_runs() {
        let program = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let mut tool = fs::read("/bin/sleep").unwrap();
        tool.resize(8 << 20, 1);
        let path = directory.path().join("runs");
        fs::write(&path, &tool).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).arg("60").spawn().unwrap();
        let of_child = [child.id().to_string()];
        let before = measure_removed(&of_child);
        fs::remove_file(&path).unwrap();
        let counted = measure_removed(&of_child);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(counted >= before + (8 << 20), "{before}, then {counted}");
    }

    #[test]
    fn a_removed_directory_and_an_empty_file_count_while_they_are_open() {
        let own = [std::process::id().to_string()];
        let program = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let held: Vec<_> = (0..2_000)
            .map(|number: u32| {
                let path = directory.path().join(number.to_string());
                if number.is_multiple_of(2) {
                    fs::create_dir(&path).unwrap();
                    let open = fs::File::open(&path).unwrap();
                    fs::remove_dir(&path).unwrap();
                    return open;
                }
                let open = fs::File::create(&path).unwrap();
                fs::remove_file(&path).unwrap();
                open
            })
            .collect();
        let counted = measure_removed(&own);
        drop(held);
        assert!(counted >= 2_000 * LEAST, "{counted}");
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
        assert_eq!(measure(std::slice::from_ref(&missing), Figure::Blocks), None);
        let counted = measure(&[root.clone(), missing], Figure::Blocks).unwrap();
        assert!((1 << 20..2 << 20).contains(&counted), "{counted}");
        for number in 0..100 {
            fs::write(root.join(format!("empty-{number}")), "").unwrap();
        }
        assert!(measure(&[root], Figure::Blocks) >= Some(counted + 100 * LEAST), "files without contents count");
    }

    #[test]
    fn what_is_deep_sparse_or_a_file_alone_counts() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        let mut deep = root.clone();
        deep.extend(std::iter::repeat_n("d", DEPTH + 100));
        fs::create_dir_all(&deep).unwrap();
        let plain = measure(std::slice::from_ref(&root), Figure::Blocks).unwrap();
        fs::write(deep.join("file"), vec![1; 4 << 20]).unwrap();
        let counted = measure(std::slice::from_ref(&root), Figure::Blocks).unwrap();
        assert!(counted >= plain + (4 << 20), "{plain}, then {counted}");

        let sparse = directory.path().join("sparse");
        fs::File::create(&sparse).unwrap().set_len(1 << 30).unwrap();
        assert!(measure(std::slice::from_ref(&sparse), Figure::Blocks) < Some(1 << 20));
        assert_eq!(measure(std::slice::from_ref(&sparse), Figure::Filled), Some(1 << 30));
    }
}
