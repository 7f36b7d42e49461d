//! A root file system as files in a directory, on its way into an image.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use emergent_guest_proto::{GUEST_BINARY, IMAGE_ENVIRONMENT, WORKSPACE_DIR};

/// Directories that a machine mounts something on.
const MOUNT_POINTS: &[&str] = &["dev", "proc", "sys", "run", "tmp"];

/// Unpacks a tar with all that it says of its files. Names that lead out of `tree` are not followed.
pub(super) fn unpack(archive: impl Read, tree: &Path) -> io::Result<()> {
    fs::create_dir_all(tree)?;
    archive_of(archive).unpack(tree)
}

/// A tar that keeps owners, where the caller may give files away, and permissions.
pub(super) fn archive_of<R: Read>(archive: R) -> tar::Archive<R> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    archive.set_overwrite(true);
    archive
}

/// Copies a tree with everything that its files have.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let output = Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Adds what a machine needs besides what a container has.
pub(super) fn inject(tree: &Path, guest: &[u8], environment: &[(String, String)]) -> io::Result<()> {
    let inside = |path: &str| tree.join(path.trim_start_matches('/'));
    for directory in MOUNT_POINTS {
        // An image may have a link there: `run` to `var/run`, say. It is the image's to make sense of.
        if inside(directory).symlink_metadata().is_err() {
            fs::create_dir(inside(directory))?;
        }
    }
    fs::set_permissions(inside("tmp"), fs::Permissions::from_mode(0o1777))?;
    let workspace = inside(WORKSPACE_DIR);
    if workspace.symlink_metadata().is_err() {
        fs::create_dir(&workspace)?;
    }
    // Ours alone: a link of the image's would lead elsewhere on the host.
    let own = inside(GUEST_BINARY).parent().map(Path::to_owned).unwrap_or_default();
    match own.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&own)?,
        Ok(_) => fs::remove_file(&own)?,
        Err(_) => {}
    }
    fs::create_dir(&own)?;
    fs::write(inside(GUEST_BINARY), guest)?;
    fs::set_permissions(inside(GUEST_BINARY), fs::Permissions::from_mode(0o755))?;
    fs::write(inside(IMAGE_ENVIRONMENT), serde_json::to_vec(environment)?)
}

/// `NAME=VALUE` as names and values.
pub(super) fn variables(assignments: Vec<String>) -> Vec<(String, String)> {
    let pairs = assignments.iter().filter_map(|assignment| assignment.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
