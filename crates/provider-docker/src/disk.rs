//! How much disk the files of a directory take, counted from outside of the sandbox that writes them; and how deep
//! directories are made flat before they are removed.
//!
//! Processes with root's rights inside may change the tree meanwhile, so that nothing is looked up by a path: each
//! directory is opened from the one above, and no link is followed.

use std::{
    cmp::Ordering,
    collections::HashSet,
    ffi::CStr,
    fs,
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, renameat, statat},
    io::Errno,
};
use uuid::Uuid;

/// The number of directories that are open at once on one way down; what is deeper is looked at afterwards.
const DEPTH: usize = 500;
/// The number of levels of directories that a tree may have; one with more counts as over its limit.
const MOST_LEVELS: usize = 2_000;
/// The number of levels of a tree that was made flat: few enough for a walk that comes to all of them.
const FLAT: usize = DEPTH - 100;
/// The number of deeper directories that wait to be looked at, each with a descriptor.
const DEEPER: usize = 256;
/// Counted where a tree has too many levels, or too many places to look at below them, or processes hold too much: more
/// than any limit allows.
const UNCOUNTABLE: u64 = u64::MAX / 2;
/// Taken by a further name of a file that is counted already.
const NAME: u64 = 64;
/// The least room that a file counts for: files without contents fill a file system, too.
const LEAST: u64 = 4096;
/// The number of names that cost nothing but the room that they take.
const FREE_NAMES: u64 = 65_536;
/// The room that each further name counts for, so that a tree within its limit is counted in bounded time: the part of
/// a disk for which ext4 makes one file.
const ROOM_OF_NAME: u64 = 16 << 10;
/// The prefix by which a name in the layer of an image says that a file was removed.
const MARK: &[u8] = b".wh.";
/// The most files with several names that are remembered; the names of others count one by one.
const REMEMBERED: usize = 100_000;
/// The most descriptors, mapped files and directories of processes that are looked at for removed files: about a
/// second's work. A sandbox that holds more counts as over its limit, as it could write for as long as the look takes.
const MOST_HELD: usize = 300_000;

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
            let walked = walk(root, |above, _, stat| {
                self.add_one(stat, figure);
                if above.last().is_some_and(|directory| directory.level >= MOST_LEVELS) {
                    self.bytes = UNCOUNTABLE;
                    return ControlFlow::Break(());
                }
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

/// Moves each directory that is too many levels below `root` to just below it, so that whoever removes the tree with a
/// descriptor for each level, as the engine does, needs few. Nobody else may use the tree meanwhile. Blocks.
pub(crate) fn flatten(root: &Path) -> Result<(), Errno> {
    let Some(top) = open(CWD, root.as_os_str().as_encoded_bytes(), 0) else { return Ok(()) };
    let mark = Uuid::new_v4();
    let place = |number: u64| format!(".emergent-{mark}-{number}");
    let (mut moved, mut looked_through) = (0, 0);
    let mut tree = root.to_owned();
    loop {
        let mut failure = None;
        walk(&tree, |above, name, stat| {
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let Some(directory) = above.last().filter(|directory| is_directory && directory.level >= FLAT) else {
                return ControlFlow::Continue(());
            };
            moved += 1;
            failure = renameat(&directory.descriptor, name, &top.descriptor, place(moved)).err();
            if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match failure {
            Some(error) => return Err(error),
            None if looked_through == moved => return Ok(()),
            None => looked_through += 1,
        }
        tree = root.join(place(looked_through));
    }
}

/// Visits all that is below a directory: with the directories above, its name and what it is.
fn walk(root: &Path, mut visit: impl FnMut(&[Open], &CStr, &Stat) -> ControlFlow<()>) -> Walked {
    let Some(mut top) = open(CWD, root.as_os_str().as_encoded_bytes(), 0) else { return Walked::Nowhere };
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
            && let Some(below) = open(&directory.descriptor, name.to_bytes(), directory.level + 1)
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
    removed(processes, MOST_HELD).unwrap_or(UNCOUNTABLE)
}

/// The same; `None` where the processes hold more than `most` files.
fn removed(processes: &[String], most: usize) -> Option<u64> {
    let mut bytes = 0_u64;
    let mut looked_at = 0;
    let mut known = HashSet::new();
    let mut tables = Tables::default();
    for pid in processes {
        for path in held_by(pid, &mut tables) {
            looked_at += 1;
            if looked_at > most {
                return None;
            }
            // The kernel's links lead to the very files, whatever their names were.
            let Ok(stat) = rustix::fs::stat(&path) else { continue };
            let is_file = [FileType::RegularFile, FileType::Directory].contains(&FileType::from_raw_mode(stat.st_mode));
            if is_file && stat.st_nlink == 0 && known.insert((stat.st_dev, stat.st_ino)) && !is_in_memory(&path) {
                bytes = bytes.saturating_add(taken(&stat, Figure::Blocks));
            }
        }
    }
    Some(bytes)
}

/// The kernel's links to what a process holds. Each thread may have a directory of its own, and descriptors, if its
/// table is none of those that are known. Memory is one for all threads, and is shown at each that has not ended, also
/// where the first one has.
fn held_by<'a>(pid: &str, tables: &'a mut Tables) -> impl Iterator<Item = PathBuf> + use<'a> {
    let threads = entries(format!("/proc/{pid}/task").into()).collect::<Vec<_>>();
    // A thread's number leads to a place like a process's, which is not listed.
    let mut places = threads.iter().filter_map(|thread| thread.file_name()).map(|id| Path::new("/proc").join(id));
    let memory = places.find(|place| rustix::fs::stat(place.join("exe")).is_ok());
    let mapped = memory.into_iter().flat_map(|place| entries(place.join("map_files")).chain([place.join("exe")]));
    let own = threads.into_iter().flat_map(|thread| {
        let descriptors = tables.is_new(&thread).then(|| entries(thread.join("fd")));
        descriptors.into_iter().flatten().chain([thread.join("cwd")])
    });
    mapped.chain(own)
}

/// The tables of descriptors that are known, in the kernel's order: most threads share one, and so may processes.
#[derive(Default)]
struct Tables {
    /// A thread with each of them.
    threads: Vec<i32>,
}

impl Tables {
    /// Whether the table of a thread is not known yet, as it is from now on. Where the kernel cannot tell, each is new.
    fn is_new(&mut self, thread: &Path) -> bool {
        let id = thread.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(id) = id else { return true };
        match self.threads.binary_search_by(|known| compare_tables(*known, id).unwrap_or(Ordering::Less)) {
            Ok(_) => false,
            Err(place) => {
                self.threads.insert(place, id);
                true
            }
        }
    }
}

/// The order of the tables of two threads, as the kernel has it; `None` where it does not tell.
#[expect(unsafe_code, reason = "kcmp has no safe wrapper in a crate that is kept well")]
fn compare_tables(one: i32, other: i32) -> Option<Ordering> {
    /// `KCMP_FILES` of `linux/kcmp.h`.
    const FILES: libc::c_int = 2;
    // SAFETY: the call takes integers and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, FILES, 0_usize, 0_usize) } {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    }
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
    /// The number of directories above it, down from the one where the walk began.
    level: usize,
    descriptor: OwnedFd,
    entries: Dir,
}

fn open(above: impl std::os::fd::AsFd, name: &[u8], level: usize) -> Option<Open> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = openat(above, name, flags, Mode::empty()).ok()?;
    let entries = Dir::read_from(&descriptor).ok()?;
    Some(Open { name: name.to_vec(), level, descriptor, entries })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Held by tests that look at this very process, so that none counts what another one removes.
    static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

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
        let _alone = ALONE.lock();
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
    fn what_threads_share_is_looked_at_once_and_too_much_counts_as_over_any_limit() {
        let _alone = ALONE.lock();
        let own = [std::process::id().to_string()];
        let null = fs::File::open("/dev/null").unwrap();
        let held: Vec<_> = (0..500).map(|_| null.try_clone().unwrap()).collect();
        std::thread::scope(|scope| {
            let (ends, threads): (Vec<_>, Vec<_>) = (0..50)
                .map(|_| {
                    let (end, ended) = std::sync::mpsc::channel::<()>();
                    (end, scope.spawn(move || ended.recv().is_err()))
                })
                .unzip();
            // Other tests hold some thousands meanwhile; all the threads' links together are more.
            assert!(removed(&own, 15_000).is_some(), "a table of descriptors is looked at once");
            assert_eq!(removed(&own, 400), None, "fewer than there are");
            drop(ends);
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        });
        drop(held);
    }

    #[test]
    #[expect(unsafe_code, reason = "a thread leaves the table that it shares")]
    fn a_removed_file_counts_that_is_open_in_a_threads_own_table() {
        let _alone = ALONE.lock();
        let own = [std::process::id().to_string()];
        let program = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let path = directory.path().join("file");
        fs::write(&path, vec![1; 8 << 20]).unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        let before = measure_removed(&own);
        let counted = std::thread::scope(|scope| {
            let (is_open, opened) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                // SAFETY: every descriptor that the thread closes from now on, it has opened itself.
                unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }.unwrap();
                let file = fs::File::open(&path).unwrap();
                fs::remove_file(&path).unwrap();
                is_open.send(()).unwrap();
                ended.recv().ok();
                drop(file);
            });
            opened.recv().unwrap();
            let counted = measure_removed(&own);
            drop(end);
            counted
        });
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
        let _alone = ALONE.lock();
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
    fn a_tree_of_too_many_levels_counts_as_over_any_limit_until_it_is_made_flat() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let mut below = fs::File::open(directory.path()).unwrap();
        let mut deepen = |levels: usize| {
            for _ in 0..levels {
                rustix::fs::mkdirat(&below, "d", Mode::RWXU).unwrap();
                below = openat(&below, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap().into();
            }
        };
        let root = [directory.path().to_owned()];
        deepen(MOST_LEVELS);
        assert!(measure(&root, Figure::Blocks) < Some(1 << 30), "as many levels as there may be");
        deepen(1);
        assert_eq!(measure(&root, Figure::Blocks), Some(UNCOUNTABLE));
        flatten(&root[0]).unwrap();
        let (mut names, mut deepest) = (0, 0);
        walk(&root[0], |above, _, _| {
            names += 1;
            deepest = deepest.max(above.last().map_or(0, |directory| directory.level));
            ControlFlow::Continue(())
        });
        assert_eq!(names, 1 + MOST_LEVELS + 1, "nothing is lost");
        assert!(deepest <= FLAT, "{deepest}");
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
