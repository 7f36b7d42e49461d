//! The directories of microVMs.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown},
    path::Path,
};

use tokio::process::Command;

use super::finding::{Finding, State};
use crate::cli::SetupArgs;

const DIRECTORIES: [&str; 4] = ["kernels", "rootfs", "sandboxes", "snapshots"];

/// Makes the missing directories, and gives them to the manager's user.
pub(super) async fn make(arguments: &SetupArgs) -> Vec<Finding> {
    let owner = match &arguments.user {
        Some(user) => match ids_of(user).await {
            Some(ids) => Some(ids),
            None => {
                let advice = format!("make it: useradd --system --no-create-home {user}");
                return vec![Finding::missing("user", format!("there is no user {user}"), advice)];
            }
        },
        None => None,
    };
    let paths = [arguments.base.clone()].into_iter().chain(DIRECTORIES.map(|name| arguments.base.join(name)));
    paths.map(|path| directory(&path, owner, arguments.dry_run)).collect()
}

fn directory(path: &Path, owner: Option<(u32, u32)>, dry_run: bool) -> Finding {
    let (name, shown) = ("directory", path.display().to_string());
    let present = path.metadata().ok();
    let has_owner = |metadata: &std::fs::Metadata| owner.is_none_or(|owner| (metadata.uid(), metadata.gid()) == owner);
    match &present {
        Some(metadata) if !metadata.is_dir() => {
            return Finding::missing(name, format!("{shown} is there and is no directory"), "move it away");
        }
        Some(metadata) if has_owner(metadata) => return Finding::new(name, State::Present, shown),
        Some(_) | None if dry_run => return Finding::new(name, State::Would, format!("make {shown}")),
        Some(_) | None => {}
    }
    match make_one(path, owner) {
        Ok(()) => Finding::new(name, State::Done, shown),
        Err(error) => Finding::missing(name, format!("{shown}: {error}"), "run this as root, or name another --base"),
    }
}

/// Makes a directory that other users cannot read: it holds guests' files.
fn make_one(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    match owner {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Returns a user's uid and gid.
async fn ids_of(user: &str) -> Option<(u32, u32)> {
    let ask = async |what: &str| {
        let output = Command::new("id").args([what, "--", user]).output().await.ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    Some((ask("--user").await?, ask("--group").await?))
}
