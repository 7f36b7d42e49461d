//! The opening of a path that a caller names, without waiting on a pipe and without touching a device.

use std::{
    fs::{File, Metadata, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use emergent_guest_proto::{ErrorCode, GuestError};

use crate::failure;

/// A file or directory, opened for reading.
#[derive(Debug)]
pub enum Opened {
    /// A regular file.
    File(File, Metadata),
    /// A directory.
    Directory,
}

/// Opens a file or directory.
///
/// # Errors
/// The file system's error, or `invalid_request` for a pipe, socket or device.
pub fn open(path: &Path) -> Result<Opened, GuestError> {
    // Without O_NONBLOCK the opening of a pipe waits for a writer.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| failure::at(path, "open", &error))?;
    let metadata = file.metadata().map_err(|error| failure::at(path, "open", &error))?;
    match () {
        () if metadata.is_file() => Ok(Opened::File(file, metadata)),
        () if metadata.is_dir() => Ok(Opened::Directory),
        () => Err(not_a_file(path)),
    }
}

/// Opens a regular file.
///
/// # Errors
/// The errors of [`open`], and `is_directory`.
pub fn open_file(path: &Path) -> Result<(File, Metadata), GuestError> {
    match open(path)? {
        Opened::File(file, metadata) => Ok((file, metadata)),
        Opened::Directory => {
            let message = format!("{} is a directory; name a file", path.display());
            Err(GuestError::new(ErrorCode::IsDirectory, message).with_path(path))
        }
    }
}

/// Makes the error of a path that is a pipe, socket or device.
pub fn not_a_file(path: &Path) -> GuestError {
    let message = format!("{} is a pipe, socket or device, not a file", path.display());
    GuestError::new(ErrorCode::InvalidRequest, message).with_path(path)
}
