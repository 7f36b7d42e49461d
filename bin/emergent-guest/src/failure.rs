//! The errors for callers that failed system calls become.

use std::{io, path::Path};

use emergent_guest_proto::{ErrorCode, GuestError};
use rustix::io::Errno;

/// Returns the code for an input/output error.
pub fn code_of(error: &io::Error) -> ErrorCode {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => ErrorCode::NotFound,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ErrorCode::PermissionDenied,
        Some(Errno::EXIST | Errno::NOTEMPTY) => ErrorCode::AlreadyExists,
        Some(Errno::ISDIR) => ErrorCode::IsDirectory,
        Some(Errno::NOTDIR) => ErrorCode::NotADirectory,
        Some(Errno::NOSPC | Errno::DQUOT) => ErrorCode::DiskFull,
        Some(Errno::FBIG) => ErrorCode::TooLarge,
        Some(Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::AGAIN) => ErrorCode::ResourceLimit,
        Some(Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL | Errno::NXIO | Errno::BUSY) => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    }
}

/// Makes the error of an operation on `path`, such as "read".
pub fn at(path: &Path, operation: &str, error: &io::Error) -> GuestError {
    let reason = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => "it does not exist".to_owned(),
        Some(Errno::ACCESS | Errno::PERM) => "the workspace's user may not do this".to_owned(),
        Some(Errno::LOOP) => "its symbolic links form a loop".to_owned(),
        Some(Errno::NOSPC | Errno::DQUOT) => "no space is left on the disk; remove something first".to_owned(),
        Some(Errno::NXIO) => "it is a socket or device, not a file".to_owned(),
        _ => error.to_string(),
    };
    GuestError::new(code_of(error), format!("cannot {operation} {}: {reason}", path.display())).with_path(path)
}

/// Makes the error of a malformed or unacceptable value of a request field.
pub fn invalid(field: &str, message: impl Into<String>) -> GuestError {
    GuestError::new(ErrorCode::InvalidRequest, message).with_field(field)
}
