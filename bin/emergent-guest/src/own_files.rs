//! The guest's own files, in directories where the workspace's root may put anything in their place: a pipe that nobody
//! writes to, a link, a device, a directory, or a file without end. Whatever is no plain file counts as no file, and is
//! replaced. Nothing here waits.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// The most that is read of a file.
const MOST: u64 = 64 << 20;
/// Opening a pipe for reading would wait for a writer.
const WITHOUT_WAITING: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// Opens a plain file for reading; `None` where there is none.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    plain(OpenOptions::new().read(true), path, WITHOUT_WAITING | libc::O_NOFOLLOW)
}

/// Opens a plain file for writing over its contents; `None` where there is none.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn open_to_write(path: &Path) -> io::Result<Option<File>> {
    plain(OpenOptions::new().write(true), path, WITHOUT_WAITING | libc::O_NOFOLLOW)
}

/// Opens a plain file for appending to it, with this mode; an empty one in place of whatever else is there.
///
/// # Errors
/// When it cannot be opened or made.
pub(crate) fn open_to_append(path: &Path, mode: u32) -> io::Result<File> {
    match plain(OpenOptions::new().append(true), path, WITHOUT_WAITING | libc::O_NOFOLLOW)? {
        Some(file) => {
            file.set_permissions(Permissions::from_mode(mode))?;
            Ok(file)
        }
        None => create(path, mode),
    }
}

/// The contents of a plain file; `None` where there is none, or one that is larger than any of the guest's.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    open(path)?.map_or(Ok(None), contents)
}

/// The contents of a file of the image, which may be a link to another; `None` where there is no plain file that can be
/// read.
pub(crate) fn read_of_image(path: &Path) -> Option<Vec<u8>> {
    plain(OpenOptions::new().read(true), path, WITHOUT_WAITING)
        .ok()
        .flatten()
        .and_then(|file| contents(file).ok().flatten())
}

/// Makes an empty file in place of whatever is there.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn create(path: &Path, mode: u32) -> io::Result<File> {
    clear(path)?;
    OpenOptions::new().read(true).append(true).create_new(true).mode(mode).open(path)
}

/// Replaces a file as a whole.
///
/// # Errors
/// When it cannot be written; then the former one stays.
pub(crate) fn replace(path: &Path, mode: u32, parts: &[&[u8]]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut new = create(&aside, mode)?;
    for part in parts {
        new.write_all(part)?;
    }
    put_in_place(&aside, path)
}

/// Renames a file, to where a directory may be.
///
/// # Errors
/// When it cannot be renamed.
pub(crate) fn put_in_place(file: &Path, path: &Path) -> io::Result<()> {
    match fs::rename(file, path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            clear(path)?;
            fs::rename(file, path)
        }
        renamed => renamed,
    }
}

/// Makes a directory with this mode, in place of whatever else is there. One that is there stays as it is, but for its
/// mode.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn directory(path: &Path, mode: u32) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
        fs::remove_file(path)?;
    }
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Removes whatever is there.
///
/// # Errors
/// When it cannot be removed.
pub(crate) fn clear(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn plain(options: &mut OpenOptions, path: &Path, flags: i32) -> io::Result<Option<File>> {
    let file = match options.custom_flags(flags).open(path) {
        Ok(file) => file,
        // A link, a socket or a pipe, a device that is not there, or a directory.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::ENODEV | libc::EISDIR)) => {
            return Ok(None);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

fn contents(file: File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MOST).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_plain_file_is_none_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        let plant: [&dyn Fn(&Path); 5] = [
            &|path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            &|path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
            &|path| drop(UnixListener::bind(path).unwrap()),
            &|path| fs::create_dir_all(path.join("deep")).unwrap(),
            &|path| File::create(path).unwrap().set_len(1 << 40).unwrap(),
        ];
        for plant in plant {
            plant(&path);
            plant(&path.with_extension("new"));
            assert_eq!(read(&path).unwrap(), None);
            replace(&path, 0o600, &[b"on", b"e"]).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), b"one");
            clear(&path).unwrap();
            plant(&path);
            directory(&path, 0o700).unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().is_dir());
            clear(&path).unwrap();
            assert_eq!(read(&path).unwrap(), None);
        }
        assert_eq!(read_of_image(Path::new("/dev/zero")), None);
        std::os::unix::fs::symlink(folder.path().join("other"), &path).unwrap();
        assert_eq!(read_of_image(&path), None);
        fs::write(folder.path().join("other"), "of the image").unwrap();
        assert_eq!(read_of_image(&path).unwrap(), b"of the image");
    }
}
