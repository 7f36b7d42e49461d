//! The disk files of sandboxes and snapshots: cloned, sealed and compared with their seals, on threads for blocking
//! work.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use emergent_microvm::{
    Disk, Seal,
    disks::{self, CloneMethod, DiskError},
};

use crate::SandboxError;

/// Clones a disk that nobody writes to; the clone is on the host's disk when this returns.
pub(super) async fn copy_disk(from: Disk, to: PathBuf) -> Result<(), SandboxError> {
    blocking(move || disks::clone(&from, &to).map(drop)).await
}

/// Clones a disk for others to begin with, and seals the clone. One that shares its blocks with the original is not
/// read.
pub(super) async fn keep_disk(from: Disk, to: PathBuf) -> Result<Seal, SandboxError> {
    let (target, path) = (to.clone(), to);
    let method = blocking(move || disks::clone(&from, &target).map(|(_, method)| method)).await?;
    let file = path.clone();
    let sealed = tokio::task::spawn_blocking(move || match method {
        CloneMethod::Copied => Seal::of_contents(&file),
        CloneMethod::Shared | CloneMethod::Overlay => Seal::of_length(&file),
    });
    let sealed = sealed.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    sealed.map_err(SandboxError::io("the sealing of a disk", &path))
}

/// Compares the files of a directory with their seals; answers what is wrong with the first that is.
pub(super) async fn broken(directory: &Path, seals: &BTreeMap<String, Seal>) -> Result<Option<String>, SandboxError> {
    let (inside, seals) = (directory.to_owned(), seals.clone());
    let compared = tokio::task::spawn_blocking(move || {
        for (name, seal) in seals {
            if let Some(reason) = seal.broken_by(&inside.join(&name))? {
                return Ok(Some(format!("{name}: {reason}")));
            }
        }
        Ok(None)
    });
    let compared = compared.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    compared.map_err(SandboxError::io("the reading of a snapshot", directory))
}

/// Runs work on disks; a disk of the host that is full is named as such.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, SandboxError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done =
        done.map_err(|error| SandboxError::Io { what: "work on a disk", source: std::io::Error::other(error) })?;
    done.map_err(|error| match error {
        DiskError::NoRoom(place) => SandboxError::DiskFull { place: place.display().to_string() },
        error => SandboxError::Disk(error),
    })
}
