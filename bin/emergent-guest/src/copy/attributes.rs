//! The attributes of a file besides its contents: extended attributes, owner, mode and times, copied in an order in
//! which none undoes another.

use std::{ffi::CStr, os::fd::BorrowedFd};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

/// The most bytes of the kernel's lists of names, and of its values.
const LONGEST: usize = 64 * 1024;
/// The prefixes of attributes that a workspace can set. Others belong to the host's security modules.
const KINDS: [&[u8]; 2] = [b"user.", b"system.posix_acl_"];

/// Copies the attributes of one open file or directory to another.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    copy_extended(from, to)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(to, &times(stat))
}

/// Copies the attributes of a file that cannot be opened: a link, a pipe or a socket.
pub(super) fn copy_to_name(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (owner, group) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(directory, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(directory, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    rustix::fs::utimensat(directory, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    // Below a billion, whatever integer holds them.
    let time =
        |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Copies the extended attributes of one open file or directory to another, with the access lists.
pub(crate) fn copy_extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut names = [0_u8; LONGEST];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        // Most files have none.
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(length) => length,
        Err(error) => return Err(error),
    };
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if !KINDS.iter().any(|kind| name.to_bytes().starts_with(kind)) {
            continue;
        }
        let mut value = vec![0_u8; LONGEST];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
