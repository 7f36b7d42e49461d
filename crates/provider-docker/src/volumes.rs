//! The volumes of a sandbox: `/workspace`, the guest's hand-over, the directories that the spec names, and those that
//! the image declares.
//!
//! A declared directory (`VOLUME /data`) would get a volume without a name from the engine, which nobody could copy,
//! count or keep. A volume's name is the container's name with a suffix for the volume's purpose, and a snapshot's
//! volume has the snapshot's name with the same suffix, so that related volumes are found by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use bollard::{
    Docker,
    models::{ContainerInspectResponse, Mount, MountPoint, MountType, MountVolumeOptions},
    query_parameters::ListVolumesOptionsBuilder,
};
use emergent_guest_proto::{GUEST_MOUNT, PRIVATE_DIR, STATE_DIR, WORKSPACE_DIR};
use emergent_provider::{SandboxSpec, VolumeSource};
use emergent_types::{SandboxId, SnapshotId};

use crate::{
    engine::{EngineError, bounded},
    guest_binary::sha256,
    guest_volume,
    labels::{self, name_of, name_of_snapshot},
    removal,
};

/// The suffix of the volume with the hand-over. Names in a spec have no dot.
const PRIVATE: &str = ".private";
/// The prefix of the suffixes of declared directories.
const DECLARED: &str = ".declared-";
/// The most directories that an image may declare.
const MOST_DECLARED: usize = 32;
/// A directory in `/tmp` where the guest's volume is mounted, so that gVisor does not see `/tmp` as an empty directory.
pub(crate) const IN_TMP: &str = "/tmp/.emergent";
/// The paths where no image may have a volume: the guest's own, and the kernel's file systems.
const TAKEN: [&str; 6] = [GUEST_MOUNT, STATE_DIR, IN_TMP, "/proc", "/sys", "/dev"];

/// One volume of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxVolume {
    /// The part of the volume's name after the sandbox's name.
    suffix: String,
    /// The volume's path inside the sandbox.
    pub(crate) path: String,
    /// The value of the volume's label, which tells the sandbox's volumes apart: a path if the image declares the
    /// volume. `None` for `/workspace`.
    pub(crate) label: Option<String>,
    pub(crate) role: Role,
}

/// The purpose of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `/workspace`.
    Workspace,
    /// The guest's hand-over.
    Private,
    /// A directory that the spec names; the agent owns it.
    Named,
    /// A directory that the image declares; it keeps its owner.
    Declared,
}

/// Returns all volumes of a sandbox whose image declares these directories. The reason of a refusal is for people.
pub(crate) fn of_sandbox(spec: &SandboxSpec, declared: &[String]) -> Result<Vec<SandboxVolume>, String> {
    let workspace =
        SandboxVolume { suffix: String::new(), path: WORKSPACE_DIR.to_owned(), label: None, role: Role::Workspace };
    let private = SandboxVolume {
        suffix: PRIVATE.to_owned(),
        path: PRIVATE_DIR.to_owned(),
        label: Some(PRIVATE.to_owned()),
        role: Role::Private,
    };
    let own = spec.volumes.iter().filter(|volume| volume.source == VolumeSource::Own);
    let named = own.map(|volume| SandboxVolume {
        suffix: format!("-{}", volume.name),
        path: volume.path.clone(),
        label: Some(volume.name.clone()),
        role: Role::Named,
    });
    let mut volumes = [workspace, private].into_iter().chain(named).collect::<Vec<_>>();
    if declared.len() > MOST_DECLARED {
        return Err(format!("the image declares {} volumes; at most {MOST_DECLARED} are supported", declared.len()));
    }
    let mut known = volumes.iter().map(|volume| volume.path.clone()).collect::<BTreeSet<_>>();
    for path in declared {
        let path = clean(path).ok_or_else(|| format!("it declares {path:?} as a volume, which is no absolute path"))?;
        if TAKEN.iter().any(|taken| is_within(&path, taken)) {
            return Err(format!("the image declares a volume at {path}, which is reserved for the workspace"));
        }
        // What is in another volume may become a link while another sandbox shares that.
        if let Some(outer) = volumes.iter().find(|outer| path != outer.path && is_within(&path, &outer.path)) {
            return Err(format!("it declares a volume at {path}, inside {}, which is a volume already", outer.path));
        }
        if known.insert(path.clone()) {
            volumes.push(SandboxVolume {
                suffix: declared_suffix(&path),
                label: Some(path.clone()),
                path,
                role: Role::Declared,
            });
        }
    }
    Ok(volumes)
}

/// Returns whether a mount may go where links in the container's files lead it. Only what an image declares may, and
/// only where nothing else is hidden.
pub(crate) fn may_lead_to<'a>(path: &str, leads_to: &str, others: impl Iterator<Item = &'a str>) -> bool {
    let own = [GUEST_MOUNT, PRIVATE_DIR, IN_TMP, WORKSPACE_DIR];
    let mut kept = TAKEN.into_iter().chain(own).chain(others);
    !own.contains(&path) && leads_to != "/" && !kept.any(|kept| is_within(leads_to, kept) || is_within(kept, leads_to))
}

fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns an absolute path without doubled or trailing slashes; `None` for a path that is relative or has `..`.
fn clean(path: &str) -> Option<String> {
    let parts = path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>();
    let leads_down = !parts.is_empty() && !parts.contains(&"..") && !path.contains('\0');
    leads_down.then(|| format!("/{}", parts.join("/")))
}

fn declared_suffix(path: &str) -> String {
    let hash = sha256(path.as_bytes());
    format!("{DECLARED}{}", &hash[..16])
}

// === impl SandboxVolume ===

impl SandboxVolume {
    /// The volume's name in the sandbox.
    pub(crate) fn name(&self, workspace: SandboxId) -> String {
        format!("{}{}", name_of(workspace), self.suffix)
    }

    /// The volume's name in a snapshot.
    pub(crate) fn name_in(&self, snapshot: SnapshotId) -> String {
        format!("{}{}", name_of_snapshot(snapshot), self.suffix)
    }

    /// Returns the volume's mount in the sandbox. `is_filled`: the volume has files already, or is to be empty; else
    /// the engine copies the image's files at that path into it.
    pub(crate) fn mount(&self, workspace: SandboxId, is_filled: bool) -> Mount {
        let no_copy = is_filled || self.role == Role::Private;
        Mount {
            target: Some(self.path.clone()),
            source: Some(self.name(workspace)),
            typ: Some(MountType::VOLUME),
            volume_options: no_copy
                .then(|| MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
            ..Mount::default()
        }
    }
}

/// Returns the volumes of a container that a snapshot copies, each with the name of its copy; `/workspace` first.
/// (Containers of earlier releases have volumes without names for the directories that their images declare.)
pub(crate) fn to_copy(
    container: &ContainerInspectResponse,
    workspace: SandboxId,
    snapshot: SnapshotId,
) -> Vec<(String, String)> {
    let (own, copied) = (name_of(workspace), name_of_snapshot(snapshot));
    let mut pairs = BTreeMap::from([(String::new(), own.clone())]);
    for mount in container.mounts.iter().flatten() {
        let MountPoint { name: Some(name), destination: Some(path), .. } = mount else { continue };
        let suffix = match name.strip_prefix(&own) {
            Some(suffix) => suffix.to_owned(),
            None if guest_volume::is_one(name) => continue,
            None => declared_suffix(path),
        };
        pairs.insert(suffix, name.clone());
    }
    pairs.into_iter().map(|(suffix, name)| (name, format!("{copied}{suffix}"))).collect()
}

/// Removes the volumes of a sandbox that are not among `wanted`.
pub(crate) async fn remove_besides(
    docker: &Docker,
    workspace: SandboxId,
    wanted: &[SandboxVolume],
) -> Result<(), EngineError> {
    let wanted = |label: &str| wanted.iter().any(|volume| volume.label.as_deref() == Some(label));
    let options = ListVolumesOptionsBuilder::default().filters(&labels::of(workspace)).build();
    for found in bounded(docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default() {
        if found.labels.get(labels::VOLUME).is_some_and(|name| !wanted(name)) {
            removal::volume(docker, &found.name).await?;
        }
    }
    Ok(())
}

/// Returns the volumes of a snapshot by their names, each with the path of its files on the engine's machine.
pub(crate) async fn of_snapshot(
    docker: &Docker,
    snapshot: SnapshotId,
) -> Result<BTreeMap<String, PathBuf>, EngineError> {
    let filters = labels::having(&format!("{}={snapshot}", labels::SNAPSHOT));
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let volumes = bounded(docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
    Ok(volumes.into_iter().map(|volume| (volume.name, volume.mountpoint.into())).collect())
}

#[cfg(test)]
mod tests {
    use emergent_provider::{ContainerKind, ImageAccess, NamedVolume};
    use emergent_types::{NetworkPolicy, ResourceLimits};

    use super::*;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            warm: false,
            workspace: SandboxId::generate(),
            kind: ContainerKind::AgentWorkspace,
            image: "a:1".parse().unwrap(),
            access: ImageAccess::Operator,
            snapshot: None,
            registry: None,
            limits: ResourceLimits { cpu: 1.0, memory_bytes: 0, disk_bytes: 0, pids: 0 },
            network: NetworkPolicy::None,
            volumes: vec![NamedVolume {
                name: "cache".to_owned(),
                path: "/cache".to_owned(),
                source: VolumeSource::Own,
            }],
        }
    }

    fn declared(paths: &[&str]) -> Result<Vec<String>, String> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let volumes = of_sandbox(&spec(), &paths)?;
        Ok(volumes.into_iter().filter(|it| it.role == Role::Declared).map(|it| it.path).collect())
    }

    #[test]
    fn each_declared_directory_has_one_volume() {
        assert_eq!(declared(&["/data/", "//data", "/var/./lib/x"]).unwrap(), ["/data", "/var/lib/x"]);
        assert_eq!(declared(&["/workspace", "/cache"]).unwrap(), [""; 0], "these are there already");
    }

    #[test]
    fn a_directory_that_cannot_be_kept_is_refused() {
        let guests = ["/.emergent", "/.emergent/x", "/var/lib/emergent/private", IN_TMP, "/proc/sys"];
        for bad in ["data", "/", "/a/../b", "/workspace/x", "/cache/x/y"].into_iter().chain(guests) {
            assert!(declared(&[bad]).is_err(), "{bad}");
        }
        assert_eq!(declared(&["/.emergent-not", "/device"]).unwrap().len(), 2);
        let many = (0..=MOST_DECLARED).map(|number| format!("/{number}")).collect::<Vec<_>>();
        assert!(declared(&many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err().contains("33"));
    }

    #[test]
    fn a_link_leads_a_declared_directory_only_where_nothing_is_hidden() {
        let leads = |path: &str, leads_to: &str| may_lead_to(path, leads_to, ["/cache"].into_iter());
        assert!(leads("/var/run/data", "/run/data"));
        for hidden in ["/.emergent", "/.emergent/x", "/", "/var", "/cache", "/cache/x", "/workspace/x", "/dev/shm"] {
            assert!(!leads("/x/y", hidden), "{hidden}");
        }
        for own in [GUEST_MOUNT, PRIVATE_DIR, IN_TMP, WORKSPACE_DIR] {
            assert!(!leads(own, "/elsewhere"), "{own}");
        }
    }

    #[test]
    fn a_snapshot_takes_along_what_the_sandbox_has() {
        let (spec, snapshot) = (spec(), SnapshotId::generate());
        let mount = |name: String, path: &str| MountPoint {
            name: Some(name),
            destination: Some(path.to_owned()),
            ..MountPoint::default()
        };
        let all = of_sandbox(&spec, &["/data".to_owned()]).unwrap();
        let mut mounts = all.iter().map(|it| mount(it.name(spec.workspace), &it.path)).collect::<Vec<_>>();
        mounts.push(mount("emergent-guest-0123".to_owned(), GUEST_MOUNT));
        mounts.push(mount("0123abcd".to_owned(), "/of-before"));
        let container = ContainerInspectResponse { mounts: Some(mounts), ..ContainerInspectResponse::default() };
        let pairs = to_copy(&container, spec.workspace, snapshot);
        assert_eq!(pairs[0], (name_of(spec.workspace), name_of_snapshot(snapshot)));
        for volume in &all {
            assert!(pairs.contains(&(volume.name(spec.workspace), volume.name_in(snapshot))), "{volume:?}");
        }
        let former = format!("{}{}", name_of_snapshot(snapshot), declared_suffix("/of-before"));
        assert!(pairs.contains(&("0123abcd".to_owned(), former)) && pairs.len() == all.len() + 1, "{pairs:?}");
    }
}
