//! Files and directories by name: their description, creation and removal.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use emergent_guest_proto::{
    ErrorCode, GuestError, GuestPath,
    files::{FileInfo, FileKind, FileList, PathQuery, PathRequest, RemoveRequest},
};

use super::target::Target;
use crate::{credentials, failure, guest::Guest};

/// The most entries of a directory in one answer.
const LIST_LIMIT: usize = 10_000;

/// Describes the file or directory at a path.
///
/// # Errors
/// The file system's error.
pub async fn stat(guest: &Guest, wanted: PathQuery) -> Result<FileInfo, GuestError> {
    let path = guest.resolve(&wanted.path);
    credentials::with(guest.account(wanted.user)?, move || info_of(&path)).await
}

/// Lists the entries of a directory.
///
/// # Errors
/// The file system's error.
pub async fn list(guest: &Guest, wanted: PathQuery) -> Result<FileList, GuestError> {
    let path = guest.resolve(&wanted.path);
    credentials::with(guest.account(wanted.user)?, move || {
        let names = names(&path).map_err(|error| failure::at(&path, "list", &error))?;
        let truncated = names.len() > LIST_LIMIT;
        // An entry that has just gone is left out.
        let entries = names.iter().take(LIST_LIMIT).filter_map(|name| info_of(&path.join(name)).ok()).collect();
        Ok(FileList { entries, truncated })
    })
    .await
}

/// Makes a directory and its parents. An existing one is no error.
///
/// # Errors
/// The file system's error.
pub async fn make_directory(guest: &Guest, wanted: PathRequest) -> Result<FileInfo, GuestError> {
    let path = guest.resolve(&wanted.path);
    guest
        .as_agent(move || {
            fs::create_dir_all(&path).map_err(|error| failure::at(&path, "make the directory", &error))?;
            info_of(&path)
        })
        .await
}

/// Removes a file, a link or a directory.
///
/// # Errors
/// The file system's error; with `recursive` some files may be removed then.
pub async fn remove(guest: &Guest, wanted: RemoveRequest) -> Result<(), GuestError> {
    let path = guest.resolve(&wanted.path);
    if is_or_holds(&path, guest.workspace()) {
        let message = "the workspace's own directory cannot be removed; remove what is in it";
        return Err(GuestError::new(ErrorCode::InvalidRequest, message).with_field("path"));
    }
    let permit = if wanted.recursive { Some(credentials::walk_permit().await?) } else { None };
    let find = move || Ok((vec![Target::at(path.clone())?.key_of_name()?], path));
    guest
        .change(&guest.accounts.agent, find, move |path: PathBuf| {
            let _permit = permit;
            remove_at(&path, wanted.recursive).map_err(|error| failure::at(&path, "remove", &error))
        })
        .await
}

/// Whether removing `path` would remove `directory`.
fn is_or_holds(path: &Path, directory: &Path) -> bool {
    let plain: PathBuf = path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
        plain
    });
    directory.starts_with(plain)
}

fn remove_at(path: &Path, recursive: bool) -> io::Result<()> {
    let is_directory = fs::symlink_metadata(path)?.is_dir();
    match (is_directory, recursive) {
        (false, _) => fs::remove_file(path),
        (true, false) => fs::remove_dir(path),
        (true, true) => fs::remove_dir_all(path),
    }
}

/// Returns the names in a directory, sorted as bytes: all of them, since a sorted part needs all.
fn names(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Describes the file or directory at a path; a link is not followed.
///
/// # Errors
/// The file system's error.
pub fn info_of(path: &Path) -> Result<FileInfo, GuestError> {
    let metadata = fs::symlink_metadata(path).map_err(|error| failure::at(path, "look at", &error))?;
    let kind = match metadata.file_type() {
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let target = (kind == FileKind::Symlink).then(|| fs::read_link(path).ok()).flatten();
    Ok(FileInfo {
        path: GuestPath::from(path),
        kind,
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified_at_ms: metadata.mtime().saturating_mul(1_000).saturating_add(metadata.mtime_nsec() / 1_000_000),
        target: target.as_deref().map(GuestPath::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_the_workspace_is_recognised_under_any_name() {
        let workspace = Path::new("/workspace");
        for path in ["/", "/workspace", "/workspace/a/..", "/workspace/../workspace"] {
            assert!(is_or_holds(Path::new(path), workspace), "{path}");
        }
        for path in ["/workspace/a", "/work", "/workspaces"] {
            assert!(!is_or_holds(Path::new(path), workspace), "{path}");
        }
    }
}
