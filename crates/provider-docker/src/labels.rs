//! The names and labels by which an engine's containers, volumes and networks are found again.

use std::collections::HashMap;

use emergent_provider::{ContainerKind, ServerId, SnapshotId, WorkspaceId};

/// Whose container or volume it is.
pub(crate) const WORKSPACE: &str = "emergent.workspace";
/// What it is for.
pub(crate) const KIND: &str = "emergent.kind";
/// Which server made it.
pub(crate) const SERVER: &str = "emergent.server";
/// Which snapshot a volume or an image is. A container has it from its image: it was made from that snapshot.
pub(crate) const SNAPSHOT: &str = "emergent.snapshot";
/// Which of a sandbox's named volumes a volume is.
pub(crate) const VOLUME: &str = "emergent.volume";
/// Marks what belongs to all workspaces: networks, the guest's volume, its carrier.
pub(crate) const SHARED: &str = "emergent.shared";
/// What a volume with a build of the guest is marked with.
pub(crate) const GUEST: &str = "guest";

/// The owner of an engine's object, as its labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) workspace: WorkspaceId,
    pub(crate) server: ServerId,
    pub(crate) kind: ContainerKind,
}

// === impl Owner ===

impl Owner {
    /// The labels that say so.
    pub(crate) fn to_labels(self) -> HashMap<String, String> {
        HashMap::from([
            (WORKSPACE.to_owned(), self.workspace.to_string()),
            (KIND.to_owned(), self.kind.as_str().to_owned()),
            (SERVER.to_owned(), self.server.to_string()),
        ])
    }

    /// Reads them; `None` when they are not ours or not whole.
    pub(crate) fn from_labels(labels: &HashMap<String, String>) -> Option<Self> {
        let kinds = [ContainerKind::AgentWorkspace, ContainerKind::McpServer];
        let kind = labels.get(KIND)?;
        Some(Self {
            workspace: labels.get(WORKSPACE)?.parse().ok()?,
            server: labels.get(SERVER)?.parse().ok()?,
            kind: kinds.into_iter().find(|known| known.as_str() == kind)?,
        })
    }
}

/// The name of a workspace's container, and of its volume.
pub(crate) fn name_of(workspace: WorkspaceId) -> String {
    format!("emergent-{workspace}")
}

/// The name of a sandbox's named volume.
pub(crate) fn name_of_volume(workspace: WorkspaceId, volume: &str) -> String {
    format!("emergent-{workspace}-{volume}")
}

/// The name of a snapshot's volume, and of its image's repository.
pub(crate) fn name_of_snapshot(snapshot: SnapshotId) -> String {
    format!("emergent-snapshot-{snapshot}")
}

/// The filter that finds what a sandbox has.
pub(crate) fn of(workspace: WorkspaceId) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{WORKSPACE}={workspace}")])])
}

/// The filter that finds what carries a label.
pub(crate) fn having(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_their_owner_again() {
        let owner =
            Owner { workspace: WorkspaceId::generate(), server: ServerId::generate(), kind: ContainerKind::McpServer };
        assert_eq!(Owner::from_labels(&owner.to_labels()), Some(owner));
    }

    #[test]
    fn incomplete_labels_name_nobody() {
        assert_eq!(Owner::from_labels(&HashMap::from([(WORKSPACE.to_owned(), "x".to_owned())])), None);
    }
}
