//! The room that the engine's machine has left, and the room that a sandbox takes of it. All of it is looked at in the
//! machine's own file system, and so only where the engine runs on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use emergent_provider::HostRoom;
use emergent_types::SandboxId;
use rustix::fs::StatVfs;

use crate::{
    disk::{self, Figure},
    engine::{EngineError, bounded, found},
    labels::name_of,
    parts::Parts,
    places::Places,
};

/// The directories of the control groups that limit the tasks of all containers together, with one hierarchy and with
/// several.
const CONTAINERS: [&str; 4] = [
    "/sys/fs/cgroup/docker",
    "/sys/fs/cgroup/system.slice",
    "/sys/fs/cgroup/pids/docker",
    "/sys/fs/cgroup/pids/system.slice",
];
/// Returns the room that the machine has left; `None` where the engine runs elsewhere, or has not said where it keeps
/// its files.
pub(crate) fn room(parts: &Parts) -> Option<HostRoom> {
    let facts = parts.known_facts().filter(|_| parts.engine.is_local())?;
    let disk = rustix::fs::statvfs(facts.root_dir.as_ref()?).ok()?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let (_, tasks) = load.split_whitespace().nth(3)?.split_once('/')?;
    Some(HostRoom {
        disk_free: disk_free(&disk),
        tasks: tasks.parse().ok()?,
        most_tasks: most_tasks()?,
        cores: facts.cores,
    })
}

/// Bytes that are left on a file system; where it runs out of files first, as many as go with the files that are left.
fn disk_free(disk: &StatVfs) -> u64 {
    let bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let all = u128::from(disk.f_blocks) * u128::from(disk.f_frsize);
    // One that makes room for files as they come tells of none.
    let of_files = (all * u128::from(disk.f_favail)).checked_div(disk.f_files.into());
    of_files.and_then(|of_files| u64::try_from(of_files).ok()).map_or(bytes, |of_files| of_files.min(bytes))
}

/// Returns the number of tasks that the machine may have; `None` where the engine runs elsewhere.
pub(crate) fn tasks_of(parts: &Parts) -> Option<u64> {
    if parts.engine.is_local() { most_tasks() } else { None }
}

fn most_tasks() -> Option<u64> {
    let groups = CONTAINERS.iter().filter_map(|group| number(&Path::new(group).join("pids.max")));
    let kernel = ["pid_max", "threads-max"].iter().map(|name| number(&Path::new("/proc/sys/kernel").join(name)));
    kernel.flatten().chain(groups).min()
}

/// Returns the number of bytes that the files of a sandbox take: those of its own layer and of its volumes. The count
/// stops when it is more than `enough`.
pub(crate) async fn disk_use(parts: &Parts, workspace: SandboxId, enough: u64) -> Result<Option<u64>, EngineError> {
    if !parts.engine.is_local() {
        return Ok(None);
    }
    let Some(places) = places(parts, workspace).await? else { return Ok(None) };
    let count = move || {
        let kept = places.measure(Figure::Blocks, enough).charge()?;
        // What is removed while a process still has it open takes room all the same.
        let group = places.group.as_deref().filter(|_| kept <= enough);
        let open = group.map_or(0, |group| disk::measure_removed(&processes(group)));
        Some(kept.saturating_add(open))
    };
    Ok(tokio::task::spawn_blocking(count).await.ok().flatten())
}

/// Returns the number of bytes that a copy of a sandbox takes. The engine fills the holes of files outside of volumes.
pub(crate) async fn copy_use(parts: &Parts, workspace: SandboxId) -> Result<Option<u64>, EngineError> {
    if !parts.engine.is_local() {
        return Ok(None);
    }
    let Some(places) = places(parts, workspace).await? else { return Ok(None) };
    Ok(tokio::task::spawn_blocking(move || places.measure(Figure::Filled, u64::MAX).bytes()).await.ok().flatten())
}

/// A file of a sandbox that an image of its layer would not have: its name means to the engine that another one was
/// removed. `None` also where the layer cannot be looked at.
pub(crate) async fn mark_of_removal(parts: &Parts, workspace: SandboxId) -> Result<Option<String>, EngineError> {
    if !parts.engine.is_local() {
        return Ok(None);
    }
    let Some(places) = places(parts, workspace).await? else { return Ok(None) };
    let find = move || places.layer.as_deref().and_then(disk::mark_of_removal);
    Ok(tokio::task::spawn_blocking(find).await.ok().flatten())
}

/// Returns the places of a sandbox's files and processes; `None` where there is no such sandbox.
async fn places(parts: &Parts, workspace: SandboxId) -> Result<Option<Arc<Places>>, EngineError> {
    if let Some(known) = parts.known_places(workspace) {
        return Ok(Some(known));
    }
    let docker = parts.engine.client().await?;
    let Some(container) = found(bounded(docker.inspect_container(&name_of(workspace), None)).await)? else {
        return Ok(None);
    };
    let layer = container.graph_driver.and_then(|driver| driver.data.get("UpperDir").cloned());
    let volumes = container.mounts.unwrap_or_default().into_iter().filter(|mount| mount.rw == Some(true));
    // Mounted into the container, and root there may write to them.
    let of_engine = [container.hosts_path, container.hostname_path, container.resolv_conf_path].into_iter().flatten();
    let of_engine = of_engine.filter(|path| !path.is_empty());
    let roots = volumes.filter_map(|mount| mount.source).chain(of_engine).map(PathBuf::from).collect();
    let layer = layer.map(PathBuf::from);
    let group = container.state.and_then(|state| state.pid).and_then(group_of);
    let places = Arc::new(Places { roots, layer, group });
    // One that does not run has its processes elsewhere when it does.
    if places.group.is_some() {
        parts.note_places(workspace, &places);
    }
    Ok(Some(places))
}

/// The processes of a control group. There are no more than a sandbox's share of the machine's tasks.
fn processes(group: &Path) -> Vec<String> {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    listed.lines().map(str::to_owned).collect()
}

/// Whether the files of sandboxes can be counted: they are root's.
pub(crate) fn sees_files(parts: &Parts) -> bool {
    let root_dir = parts.known_facts().filter(|_| parts.engine.is_local()).and_then(|facts| facts.root_dir.clone());
    root_dir.is_some_and(|root_dir| fs::read_dir(root_dir.join("volumes")).is_ok())
}

/// Returns the number of tasks of the machine that a sandbox takes.
pub(crate) async fn task_use(parts: &Parts, workspace: SandboxId) -> Result<Option<u64>, EngineError> {
    if !parts.engine.is_local() {
        return Ok(None);
    }
    let docker = parts.engine.client().await?;
    let container = found(bounded(docker.inspect_container(&name_of(workspace), None)).await)?;
    let group = container.and_then(|container| group_of(container.state?.pid?));
    Ok(group.and_then(|group| number(&group.join("pids.current"))))
}

/// The control group that limits the tasks of a process; `None` for 0, which is no process.
fn group_of(pid: i64) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    groups.lines().find_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let hierarchy = match controllers {
            "" => "",
            listed if listed.split(',').any(|controller| controller == "pids") => "pids",
            _ => return None,
        };
        Some(Path::new("/sys/fs/cgroup").join(hierarchy).join(group.trim_start_matches('/')))
    })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_files_left_is_as_full_as_one_without_bytes() {
        let mut disk = rustix::fs::statvfs("/").unwrap();
        (disk.f_frsize, disk.f_blocks, disk.f_bavail) = (4096, 1_000_000, 500_000);
        (disk.f_files, disk.f_favail) = (200_000, 150_000);
        assert_eq!(disk_free(&disk), 500_000 * 4096, "bytes run out first");
        disk.f_favail = 2_000;
        assert_eq!(disk_free(&disk), 10_000 * 4096, "a hundredth of the files is left");
        disk.f_favail = 0;
        assert_eq!(disk_free(&disk), 0);
        disk.f_files = 0;
        assert_eq!(disk_free(&disk), 500_000 * 4096, "the file system has no fixed number of files");
    }
}
