//! A tree of files from an untrusted source. Its links may lead anywhere: the kernel looks up each path as if the tree
//! were the whole file system, so that no path leads out of it.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2, statat, unlinkat,
    },
    io::Errno,
};

/// The top of a foreign tree.
pub(super) struct Root(OwnedFd);

// === impl Root ===

impl Root {
    /// Opens a directory that is ours and has a foreign tree in it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a directory inside, through any links that lead to it in the tree.
    pub(super) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.inside(path, OFlags::DIRECTORY)
    }

    /// Opens a regular file inside, through any links that lead to it in the tree.
    pub(super) fn file(&self, path: &Path) -> io::Result<File> {
        // A pipe would be waited for.
        let file = self.inside(path, OFlags::NONBLOCK)?;
        match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        }
    }

    /// Makes a directory at the top, unless something of that name is there, be it a link.
    pub(super) fn ensure_directory(&self, name: &str) -> io::Result<()> {
        match mkdirat(&self.0, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets the permissions of a directory inside, if there is one.
    pub(super) fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        match self.directory(path) {
            Ok(directory) => Ok(fchmod(directory, Mode::from_raw_mode(mode))?),
            // A link to nothing, or to itself. It is the image's to make sense of.
            Err(error) if is_nowhere(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes an empty directory of our own at the top, in place of any entry of its name.
    pub(super) fn own_directory(&self, name: &str) -> io::Result<OwnedFd> {
        discard(self.0.as_fd(), Path::new(name))?;
        mkdirat(&self.0, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&self.0, name, flags, Mode::empty())?;
        fchmod(&directory, Mode::from_raw_mode(0o755))?;
        Ok(directory)
    }

    fn inside(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.0, path, flags, Mode::empty(), resolve)?)
    }
}

/// Whether a path leads to no directory.
pub(super) fn is_nowhere(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Removes a name from a directory, with all that is below it. A missing name is no error.
pub(super) fn discard(directory: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Ok(unlinkat(directory, name, AtFlags::empty())?);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    empty(&openat(directory, name, flags, Mode::empty())?)?;
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

/// Removes all that is in a directory.
pub(super) fn empty(directory: &OwnedFd) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    // Read to its end first: a directory that changes while it is read may leave names out.
    let names = rustix::fs::Dir::read_from(directory)?.collect::<Result<Vec<_>, _>>()?;
    let names = names.iter().map(|entry| entry.file_name().to_bytes()).filter(|name| !matches!(*name, b"." | b".."));
    { names }.try_for_each(|name| discard(directory.as_fd(), Path::new(std::ffi::OsStr::from_bytes(name))))
}

/// Writes a new file into a directory that is ours.
pub(super) fn write(directory: &OwnedFd, name: &str, contents: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, name, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(contents)?;
    Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_link_leads_to_what_it_means_in_the_tree() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, outside) = (folder.path().join("tree"), folder.path().join("outside"));
        fs::create_dir_all(tree.join("var/tmp")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "").unwrap();
        symlink("/var/tmp", tree.join("absolute")).unwrap();
        symlink(&outside, tree.join("out")).unwrap();
        symlink("../../../../..", tree.join("up")).unwrap();
        symlink("loop", tree.join("loop")).unwrap();
        symlink(outside.join("secret"), tree.join("file")).unwrap();
        let root = Root::open(&tree).unwrap();
        assert!(root.directory(Path::new("absolute")).is_ok());
        for out in ["out", "loop", "up/outside", "nothing"] {
            assert!(is_nowhere(&root.directory(Path::new(out)).unwrap_err()), "{out}");
        }
        assert!(root.file(Path::new("file")).is_err() && root.file(Path::new("var")).is_err());
        symlink(&tree, folder.path().join("link")).unwrap();
        assert!(Root::open(&folder.path().join("link")).is_err(), "the top itself is no link");
    }

    #[test]
    fn what_is_removed_is_removed_in_the_tree_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, outside) = (folder.path().join("tree"), folder.path().join("outside"));
        fs::create_dir_all(tree.join("own/deep/er")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        symlink(&outside, tree.join("own/deep/link")).unwrap();
        let root = Root::open(&tree).unwrap();
        let own = root.own_directory("own").unwrap();
        write(&own, "file", b"x", 0o755).unwrap();
        assert_eq!(fs::read_dir(tree.join("own")).unwrap().count(), 1);
        symlink(&outside, tree.join("linked")).unwrap();
        write(&root.own_directory("linked").unwrap(), "file", b"x", 0o600).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "only what was kept");
        assert!(write(&own, "file", b"y", 0o755).is_err(), "nothing is written over");
    }
}
