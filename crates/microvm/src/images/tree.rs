//! A root file system as files in a directory, on its way into an image.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    process::Command,
};

use emergent_guest_proto::{GUEST_BINARY, GUEST_MOUNT, IMAGE_ENVIRONMENT, WORKSPACE_DIR};

use super::root::{self, Root};

/// Directories that a machine mounts something on.
const MOUNT_POINTS: &[&str] = &["dev", "proc", "sys", "run", "tmp"];

/// Unpacks a tar with all attributes of its files. Names that lead out of `tree` are not followed.
pub(super) fn unpack(archive: impl Read, tree: &Path) -> io::Result<()> {
    fs::create_dir_all(tree)?;
    archive_of(archive).unpack(tree)
}

/// Reads a tar; keeps permissions, and owners where the caller may give files away.
pub(super) fn archive_of<R: Read>(archive: R) -> tar::Archive<R> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    archive.set_overwrite(true);
    archive
}

/// Copies a tree with all attributes of its files. `to` exists when this returns, and is no link even if `from` is one.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let output = Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from.join(".")).arg(to).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Adds the files that a machine needs and a container does not have. An image may have a link in the place of a
/// directory, such as `run` to `var/run`: the link is resolved within the tree, and leads nowhere on this host.
pub(super) fn inject(tree: &Path, guest: &[u8], environment: &[(String, String)]) -> io::Result<()> {
    let root = Root::open(tree)?;
    for directory in MOUNT_POINTS.iter().copied().chain([WORKSPACE_DIR.trim_start_matches('/')]) {
        root.ensure_directory(directory)?;
    }
    root.set_mode(Path::new("tmp"), 0o1777)?;
    let own = root.own_directory(GUEST_MOUNT.trim_start_matches('/'))?;
    root::write(&own, file_in(GUEST_MOUNT, GUEST_BINARY), guest, 0o755)?;
    root::write(&own, file_in(GUEST_MOUNT, IMAGE_ENVIRONMENT), &serde_json::to_vec(environment)?, 0o644)
}

/// The name of a file in a directory.
fn file_in<'a>(directory: &str, path: &'a str) -> &'a str {
    path.strip_prefix(directory).unwrap_or(path).trim_start_matches('/')
}

/// `NAME=VALUE` as names and values.
pub(super) fn variables(assignments: Vec<String>) -> Vec<(String, String)> {
    let pairs = assignments.iter().filter_map(|assignment| assignment.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_link_of_an_image_changes_nothing_on_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, host) = (folder.path().join("tree"), folder.path().join("host"));
        fs::create_dir(&tree).unwrap();
        fs::create_dir(&host).unwrap();
        fs::set_permissions(&host, fs::Permissions::from_mode(0o700)).unwrap();
        for name in ["tmp", "run", "workspace", ".emergent"] {
            symlink(&host, tree.join(name)).unwrap();
        }
        inject(&tree, b"guest", &[]).unwrap();
        assert_eq!((mode(&host), fs::read_dir(&host).unwrap().count()), (0o700, 0));
        assert_eq!(fs::read(tree.join(".emergent/emergent-guest")).unwrap(), b"guest");
        assert_eq!(mode(&tree.join(".emergent/emergent-guest")), 0o755);
        // A link that leads to a directory of the image means that one.
        fs::remove_file(tree.join("tmp")).unwrap();
        fs::create_dir_all(tree.join("var/tmp")).unwrap();
        symlink("/var/tmp", tree.join("tmp")).unwrap();
        inject(&tree, b"guest", &[]).unwrap();
        assert_eq!(mode(&tree.join("var/tmp")), 0o1777);
    }

    #[test]
    fn a_tree_that_is_given_by_a_link_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (theirs, copied) = (folder.path().join("theirs"), folder.path().join("copied"));
        fs::create_dir_all(theirs.join("etc")).unwrap();
        symlink(&theirs, folder.path().join("link")).unwrap();
        copy(&folder.path().join("link"), &copied).unwrap();
        inject(&copied, b"guest", &[]).unwrap();
        assert!(copied.join("etc").is_dir());
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1, "what is the caller's is not changed");
    }
}
