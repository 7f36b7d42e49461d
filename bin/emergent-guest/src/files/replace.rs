//! The replacement of a file in one step: the new contents are written beside it and then take its name.
//!
//! The file's other properties stay: its mode, its owner and group, its access list and extended attributes. Where a
//! new file could not have them, the contents are written into the file itself (`in_place`).

use std::{
    fs::{File, Metadata, Permissions},
    io::{self, Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    sync::Arc,
};

use emergent_guest_proto::{ErrorCode, GuestError, Sha256Hex};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::{
    hash::Hasher,
    in_place,
    target::{Target, must_be_kept},
};
use crate::{copy::attributes, random::random_name};

/// The permissions of a new file.
const NEW_FILE: u32 = 0o644;

/// A file that is about to take a name. If it is dropped before, no file is left.
#[derive(Debug)]
pub struct Replacement {
    /// The new contents.
    pub file: File,
    target: Arc<Target>,
    temporary: String,
    settled: bool,
}

/// The contents that a file must still have when it is replaced.
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// Any contents.
    Anything,
    /// Just these bytes.
    Bytes(&'a [u8]),
    /// Bytes with this hash.
    Hash(&'a Sha256Hex),
}

/// Writes `contents` to a file, if it holds the expected contents; returns whether the file is new.
///
/// # Errors
/// The file system's error, or `content_changed`; the old contents are kept then.
pub fn replace(target: &Arc<Target>, contents: &[u8], expected: Expected<'_>) -> Result<bool, GuestError> {
    match Replacement::begin(target) {
        Ok(mut replacement) => {
            let written = replacement.file.write_all(contents);
            written.map_err(|error| target.failed("write", &error))?;
            replacement.settle(None, expected)
        }
        Err(error) if error.code == ErrorCode::PermissionDenied => {
            // A file that may be written to, in a directory that takes no other.
            let Some((file, _)) = target.open_for_writing()? else { return Err(error) };
            expected.check(target)?;
            overwrite(target, &file, contents)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn overwrite(target: &Target, file: &File, from: &(impl in_place::ReadAt + ?Sized)) -> Result<(), GuestError> {
    let before = target.open().ok().flatten().map(|(before, _)| before);
    in_place::overwrite(file, before.as_ref(), from).map_err(|error| target.failed("write", &error))
}

// === impl Replacement ===

impl Replacement {
    /// Makes an empty file beside the target.
    ///
    /// # Errors
    /// The file system's error, `is_directory`, or `permission_denied` when the existing file may not be written.
    pub fn begin(target: &Arc<Target>) -> Result<Self, GuestError> {
        // Taking the name of a file would not ask for the right to write to it.
        drop(target.open_for_writing()?);
        let failed = |error: io::Error| target.failed("write", &error);
        let temporary = format!(".emergent-upload-{}", random_name().map_err(failed)?);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(target.directory(), &temporary, flags, Mode::from_raw_mode(0o600));
        let file = file.map_err(|error| failed(error.into()))?.into();
        Ok(Self { file, target: Arc::clone(target), temporary, settled: false })
    }

    /// Returns the file that is to be replaced.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Gives the target the new contents, if it holds the expected ones, and `mode`, or else the permissions that it
    /// has. Returns whether the file is new.
    ///
    /// # Errors
    /// The file system's error, or `content_changed`; the existing file is kept then.
    pub fn settle(mut self, mode: Option<u32>, expected: Expected<'_>) -> Result<bool, GuestError> {
        let failed = |error: io::Error| self.target.failed("write", &error);
        let standing = self.target.stat()?;
        let writable = self.target.open_for_writing()?;
        expected.check(&self.target)?;
        let inherited = match &writable {
            Some((file, metadata)) if must_be_kept(metadata) || self.take_after(file, metadata).is_err() => {
                overwrite(&self.target, file, &self.file)?;
                if let Some(mode) = mode {
                    file.set_permissions(Permissions::from_mode(mode & 0o7777)).map_err(failed)?;
                }
                return Ok(false);
            }
            Some(_) => None,
            // A new file, or a program that runs.
            None => Some(standing.map_or(NEW_FILE, |stat| stat.st_mode)),
        };
        if let Some(mode) = mode.or(inherited) {
            self.file.set_permissions(Permissions::from_mode(mode & 0o7777)).map_err(failed)?;
        }
        rustix::fs::renameat(self.target.directory(), &self.temporary, self.target.directory(), self.target.name())
            .map_err(|error| failed(error.into()))?;
        self.settled = true;
        Ok(standing.is_none())
    }

    /// Gives the new file the old one's properties besides its contents.
    fn take_after(&self, old: &File, metadata: &Metadata) -> io::Result<()> {
        let made = self.file.metadata()?;
        if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
            std::os::unix::fs::fchown(&self.file, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        self.file.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
        Ok(attributes::copy_extended(old.as_fd(), self.file.as_fd())?)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.settled {
            // Its name is random: nothing else can stand there.
            let _ = rustix::fs::unlinkat(self.target.directory(), &self.temporary, AtFlags::empty());
        }
    }
}

// === impl Expected ===

impl Expected<'_> {
    /// # Errors
    /// `content_changed` when the contents are others, or the file system's error.
    fn check(self, target: &Target) -> Result<(), GuestError> {
        match self {
            Self::Anything => Ok(()),
            Self::Bytes(bytes) => match target.open()? {
                Some((file, _)) if holds(&file, bytes).map_err(|error| target.failed("read", &error))? => Ok(()),
                Some(_) | None => Err(changed(target, "has changed meanwhile; read it again")),
            },
            Self::Hash(hash) => {
                let Some((mut file, _)) = target.open()? else {
                    return Err(changed(target, "does not exist; leave expected_sha256 out to make it"));
                };
                let mut hasher = Hasher::default();
                io::copy(&mut file, &mut hasher).map_err(|error| target.failed("read", &error))?;
                let present = hasher.finish();
                if present == *hash {
                    return Ok(());
                }
                Err(changed(target, &format!("holds other contents, whose SHA-256 is {present}; read it again")))
            }
        }
    }
}

fn holds(file: &File, bytes: &[u8]) -> io::Result<bool> {
    let mut found = Vec::with_capacity(bytes.len() + 1);
    file.take(bytes.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(found == bytes)
}

fn changed(target: &Target, how: &str) -> GuestError {
    let message = format!("{} {how}", target.path().display());
    GuestError::new(ErrorCode::ContentChanged, message).with_path(target.path())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_changed_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let target = Arc::new(Target::find(&path).unwrap());
        let replaced =
            |expected: &[u8]| replace(&target, b"new", Expected::Bytes(expected)).map_err(|error| error.code);
        assert_eq!(replaced(b"old"), Err(ErrorCode::ContentChanged));
        assert!(!path.exists());
        for meanwhile in ["ol", "old and more", "another"] {
            fs::write(&path, meanwhile).unwrap();
            assert_eq!(replaced(b"old"), Err(ErrorCode::ContentChanged));
            assert_eq!(fs::read_to_string(&path).unwrap(), meanwhile);
        }
        fs::write(&path, "old").unwrap();
        assert_eq!(replaced(b"old"), Ok(false));
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is left beside it");
    }
}
