//! The moving of a file or directory, across file systems too.

use std::{fs, io, os::unix::fs as unix, path::Path};

use emergent_guest_proto::{
    ErrorCode, GuestError,
    files::{FileInfo, MoveRequest},
};

use super::{entries::info_of, open, target::Target};
use crate::{credentials, failure, guest::Guest, random::random_name};

/// Moves a file or directory. An existing file at the new path is replaced, a directory is not.
///
/// # Errors
/// `already_exists`, or the file system's error.
pub async fn rename(guest: &Guest, request: MoveRequest) -> Result<FileInfo, GuestError> {
    let (from, to) = (guest.resolve(&request.from), guest.resolve(&request.to));
    let find = move || {
        let [one, other] = [&from, &to].map(|path| Target::at(path.clone())?.key_of_name());
        Ok((vec![one?, other?], (from, to)))
    };
    // Across file systems it may take long.
    let permit = credentials::walk_permit().await?;
    guest
        .change(&guest.accounts.agent, find, move |(from, to)| {
            let _permit = permit;
            let source = fs::symlink_metadata(&from).map_err(|error| failure::at(&from, "move", &error))?;
            if let Ok(target) = fs::symlink_metadata(&to)
                && (target.is_dir() || source.is_dir())
            {
                let message = format!("{} exists; name a path where nothing stands", to.display());
                return Err(GuestError::new(ErrorCode::AlreadyExists, message).with_path(to.as_path()));
            }
            match fs::rename(&from, &to) {
                Err(error) if error.raw_os_error() == Some(libc::EXDEV) => move_across(&from, &to),
                renamed => renamed.map_err(|error| failure::at(&from, "move", &error)),
            }?;
            info_of(&to)
        })
        .await
}

/// Copies to a temporary name beside the new path, renames the copy, and removes the original.
fn move_across(from: &Path, to: &Path) -> Result<(), GuestError> {
    let failed = |error: io::Error| failure::at(from, "move", &error);
    let temporary = to.with_file_name(format!(".emergent-upload-{}", random_name().map_err(failed)?));
    let copied = copy(from, &temporary).and_then(|()| fs::rename(&temporary, to).map_err(failed));
    if let Err(error) = copied {
        // What was copied so far must not stay; the error that matters is the first.
        let _ = remove(&temporary);
        return Err(error);
    }
    remove(from).map_err(failed)
}

fn copy(from: &Path, to: &Path) -> Result<(), GuestError> {
    let failed = |error: io::Error| failure::at(from, "copy", &error);
    let metadata = fs::symlink_metadata(from).map_err(failed)?;
    if metadata.is_symlink() {
        let target = fs::read_link(from).map_err(failed)?;
        return unix::symlink(target, to).map_err(failed);
    }
    if metadata.is_dir() {
        fs::create_dir(to).map_err(failed)?;
        for entry in fs::read_dir(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        // Never waits on a pipe.
        let (mut source, _) = open::open_file(from)?;
        let mut target = fs::File::create_new(to).map_err(failed)?;
        io::copy(&mut source, &mut target).map_err(failed)?;
        let modified = metadata.modified().map_err(failed)?;
        target.set_modified(modified).map_err(failed)?;
    }
    fs::set_permissions(to, metadata.permissions()).map_err(failed)
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
