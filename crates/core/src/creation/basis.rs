//! The snapshot that a workspace is made from, and the properties that the workspace takes over from it.

use emergent_provider::ProviderKind;
use emergent_store::{MadeFrom, NewSnapshotRow, ProjectId, SnapshotStateKind};
use tokio::sync::OwnedRwLockReadGuard;

use super::{Creation, NewWorkspaceError, SnapshotUnusable};
use crate::workspace::{
    request::{LimitsRequest, NewWorkspace},
    validate::invalid,
};

/// A snapshot that a workspace is made from. While it lives, the snapshot is not deleted.
pub(crate) struct Basis {
    pub(crate) origin: MadeFrom,
    /// Names of the variables that workspaces from the snapshot have from the beginning.
    pub(crate) environment_keys: Vec<String>,
    /// The number of bytes that are copied for each workspace, where that is known.
    pub(crate) bytes: u64,
    _shared: Option<OwnedRwLockReadGuard<()>>,
}

// === impl Basis ===

impl Basis {
    /// Makes the basis of a snapshot whose lock the caller has.
    pub(crate) fn locked(snapshot: &NewSnapshotRow) -> Self {
        Self::of(snapshot, 0, None)
    }

    fn of(snapshot: &NewSnapshotRow, bytes: u64, shared: Option<OwnedRwLockReadGuard<()>>) -> Self {
        let origin = MadeFrom { snapshot: snapshot.id, workspace: snapshot.workspace };
        Self { origin, environment_keys: snapshot.spec.environment_keys.clone(), bytes, _shared: shared }
    }
}

// === impl Creation ===

impl Creation {
    /// Finds the snapshot that a request names, and fills in the properties that the request leaves open.
    pub(super) async fn basis_of(
        &self,
        project: ProjectId,
        request: NewWorkspace,
    ) -> Result<(NewWorkspace, Option<Basis>), NewWorkspaceError> {
        let Some(id) = request.snapshot else { return Ok((request, None)) };
        // Before its state is looked at, which then stays what it is.
        let shared = self.locks.of(id).try_read_owned();
        let row = self.store.snapshots_get(project, id).await?.filter(|row| !row.new.temporary);
        let row = row.ok_or(SnapshotUnusable::NotFound)?;
        if row.new.server != self.store.server_id() {
            return Err(SnapshotUnusable::Elsewhere(row.new.server).into());
        }
        match (shared, row.state.word()) {
            (Ok(shared), SnapshotStateKind::Ready) => {
                let request = fill_in(request, &row.new)?;
                let bytes = row.taken.map_or(0, |taken| taken.workspace_bytes);
                Ok((request, Some(Basis::of(&row.new, bytes, Some(shared)))))
            }
            // Its row is a moment ahead of whoever deletes it.
            (Err(_), SnapshotStateKind::Ready) => Err(SnapshotUnusable::NotReady(SnapshotStateKind::Deleting).into()),
            (_, state) => Err(SnapshotUnusable::NotReady(state).into()),
        }
    }
}

/// Fills in the properties that a request leaves open with those of the snapshot's workspace, except the name. Refuses
/// another image or provider.
pub(crate) fn fill_in(request: NewWorkspace, from: &NewSnapshotRow) -> Result<NewWorkspace, NewWorkspaceError> {
    if request.image.is_some() {
        return Err(invalid("image", "leave it out: a snapshot has its own").into());
    }
    let kind: ProviderKind = from.provider;
    if request.provider.is_some_and(|named| named != kind) {
        return Err(invalid("provider", format!("leave it out: the snapshot is on {kind}")).into());
    }
    let limits = LimitsRequest {
        cpu: request.limits.cpu.or(Some(from.spec.limits.cpu)),
        memory_bytes: request.limits.memory_bytes.or(Some(from.spec.limits.memory_bytes)),
        disk_bytes: request.limits.disk_bytes.or(Some(from.spec.limits.disk_bytes)),
        pids: request.limits.pids.or(Some(from.spec.limits.pids)),
    };
    Ok(NewWorkspace {
        labels: if request.labels.is_empty() { from.labels.clone() } else { request.labels },
        kind: from.spec.kind,
        provider: Some(kind),
        image: Some(from.spec.image.clone()),
        limits,
        network: request.network.or(Some(from.spec.network)),
        allow_root: request.allow_root.or(Some(from.spec.allow_root)),
        ..request
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use emergent_provider::ContainerKind;
    use emergent_store::WorkspaceSpec;
    use emergent_types::{NetworkPolicy, ResourceLimits, ServerId, SnapshotId, WorkspaceId};

    use super::*;

    fn snapshot() -> NewSnapshotRow {
        NewSnapshotRow {
            id: SnapshotId::generate(),
            project: ProjectId::generate(),
            server: ServerId::generate(),
            workspace: WorkspaceId::generate(),
            provider: ProviderKind::Docker,
            name: Some("before the change".to_owned()),
            labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
            temporary: false,
            spec: WorkspaceSpec {
                kind: ContainerKind::AgentWorkspace,
                image: "ubuntu:22.04".parse().unwrap(),
                limits: ResourceLimits { cpu: 0.5, memory_bytes: 1 << 30, disk_bytes: 2 << 30, pids: 128 },
                network: NetworkPolicy::None,
                allow_root: true,
                environment_keys: vec!["TOKEN".to_owned()],
            },
        }
    }

    #[test]
    fn what_a_request_leaves_open_is_the_snapshots() {
        let from = snapshot();
        let made = fill_in(NewWorkspace::default(), &from).unwrap();
        assert_eq!((made.name, made.labels, made.image), (None, from.labels, Some(from.spec.image)));
        assert_eq!((made.network, made.allow_root), (Some(NetworkPolicy::None), Some(true)));
        assert_eq!((made.limits.cpu, made.limits.pids, made.provider), (Some(0.5), Some(128), Some(from.provider)));
    }

    #[test]
    fn what_a_request_says_goes_before() {
        let request = NewWorkspace {
            name: Some("mine".to_owned()),
            labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
            limits: LimitsRequest { cpu: Some(2.0), ..LimitsRequest::default() },
            network: Some(NetworkPolicy::Outbound),
            allow_root: Some(false),
            ..NewWorkspace::default()
        };
        let made = fill_in(request.clone(), &snapshot()).unwrap();
        assert_eq!((made.name, made.labels), (request.name, request.labels));
        assert_eq!((made.network, made.allow_root), (Some(NetworkPolicy::Outbound), Some(false)));
        assert_eq!((made.limits.cpu, made.limits.pids), (Some(2.0), Some(128)));
    }

    #[test]
    fn image_and_provider_are_the_snapshots_and_no_others() {
        let image = NewWorkspace { image: Some("debian:12".parse().unwrap()), ..NewWorkspace::default() };
        assert!(
            matches!(fill_in(image, &snapshot()), Err(NewWorkspaceError::Invalid { field, .. }) if field == "image")
        );
        let provider = NewWorkspace { provider: Some(ProviderKind::E2b), ..NewWorkspace::default() };
        let refused = fill_in(provider, &snapshot());
        assert!(matches!(refused, Err(NewWorkspaceError::Invalid { field, .. }) if field == "provider"));
    }
}
