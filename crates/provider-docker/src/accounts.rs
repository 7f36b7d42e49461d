//! `/etc/passwd` and `/etc/group` of a container, which the engine's own process reads.
//!
//! Docker looks up the user of a process there, at each start of a container, and at each exec of a container that was made
//! with a user (`getUser` in its `daemon/oci_linux.go`). It reads the files whole, outside of the container's control
//! group, and root inside writes them. The server therefore looks at both files first, without opening them, and lets the
//! engine go on only if each is a regular file of at most 1 MiB, or is absent.
//!
//! No process runs in a stopped container, so the check before a start is exact. In a running container root may change a
//! file between the check and the engine's reading. The engine reads nothing there unless the image names a user, because
//! only then the container is made with one (`create.rs`); the runtime reads the files inside, at the container's cost.

use rustix::fs::FileType;

use crate::{
    engine::{EngineError, UnfitFile, bounded},
    layers::{self, RootFs},
    parts::Parts,
};

/// The files, below the root of a container.
const FILES: [&str; 2] = ["etc/passwd", "etc/group"];
/// The largest size of a file, in bytes.
const LARGEST: u64 = 1 << 20;

/// Checks the files below the root of a container.
pub(crate) fn check(root: &RootFs) -> Result<(), UnfitFile> {
    for file in FILES {
        let unseen = |error| UnfitFile { file, found: format!("not to be looked at ({error})") };
        let found = root.find(file).map_err(unseen)?;
        match found.file {
            Some(stat) => judge(file, FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile, stat.st_size)?,
            None if found.is_directory => judge(file, false, 0)?,
            None => {}
        }
    }
    Ok(())
}

/// Checks the files of a container that runs. Where this process does not see the engine's files, the check passes.
pub(crate) async fn check_running(parts: &Parts, container: &str) -> Result<(), EngineError> {
    if !parts.engine.is_local() {
        return Ok(());
    }
    let container = bounded(parts.engine.client().await?.inspect_container(container, None)).await?;
    layers::look(container, |root, _| Ok(check(root)?)).await
}

fn judge(file: &'static str, is_regular: bool, size: i64) -> Result<(), UnfitFile> {
    match is_regular {
        true if u64::try_from(size).is_ok_and(|size| size <= LARGEST) => Ok(()),
        true => Err(UnfitFile { file, found: format!("{size} bytes long") }),
        false => Err(UnfitFile { file, found: "no regular file".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, os::unix::fs::symlink};

    use rustix::fs::{CWD, Mode};

    use super::*;

    #[test]
    fn only_a_small_regular_file_is_left_to_the_engine_and_links_do_not_lead_out() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("root"), directory.path().join("large"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir(root.join("large")).unwrap();
        let path = root.join(FILES[0]);
        let looked = || check(&RootFs::open(&[root.to_str().unwrap()], HashMap::new()).unwrap().unwrap());
        assert_eq!(looked(), Ok(()), "no file");
        fs::write(&path, "root:x:0:0::/root:/bin/sh\n").unwrap();
        assert_eq!(looked(), Ok(()));
        fs::File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(looked().unwrap_err().to_string().contains("/etc/passwd in the workspace is 1048577 bytes"));
        fs::rename(&path, &outside).unwrap();
        symlink(&outside, &path).unwrap();
        assert_eq!(looked(), Ok(()), "an absolute link begins at the container's root, where nothing is");
        fs::remove_file(&path).unwrap();
        symlink("../../../../large", &path).unwrap();
        assert_eq!(looked().unwrap_err().found, "no regular file", "what is above the root is the root");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(looked().unwrap_err().found, "no regular file");
    }
}
