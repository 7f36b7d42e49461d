//! The labels by which a sandbox, or a snapshot, is found to be a workspace's.

use std::collections::BTreeMap;

use emergent_provider::{ContainerKind, ServerId, WorkspaceId};

/// Whose sandbox it is.
const WORKSPACE: &str = "emergent.workspace";
/// What it is for.
const KIND: &str = "emergent.kind";
/// Which server made it.
const SERVER: &str = "emergent.server";

/// The owner of a sandbox, as its labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) workspace: WorkspaceId,
    pub(crate) server: ServerId,
    pub(crate) kind: ContainerKind,
}

// === impl Owner ===

impl Owner {
    /// The labels that say so.
    pub(crate) fn to_labels(self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (WORKSPACE.to_owned(), self.workspace.to_string()),
            (KIND.to_owned(), self.kind.as_str().to_owned()),
            (SERVER.to_owned(), self.server.to_string()),
        ])
    }

    /// Reads them; `None` when they are not ours or not whole.
    pub(crate) fn from_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let kinds = [ContainerKind::AgentWorkspace, ContainerKind::McpServer];
        let kind = labels.get(KIND)?;
        Some(Self {
            workspace: labels.get(WORKSPACE)?.parse().ok()?,
            server: server_of(labels)?,
            kind: kinds.into_iter().find(|known| known.as_str() == kind)?,
        })
    }
}

/// The labels of a snapshot.
pub(crate) fn of_snapshot(server: ServerId) -> BTreeMap<String, String> {
    BTreeMap::from([(SERVER.to_owned(), server.to_string())])
}

/// Which server made it.
pub(crate) fn server_of(labels: &BTreeMap<String, String>) -> Option<ServerId> {
    labels.get(SERVER)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_their_owner_again() {
        let owner =
            Owner { workspace: WorkspaceId::generate(), server: ServerId::generate(), kind: ContainerKind::McpServer };
        assert_eq!(Owner::from_labels(&owner.to_labels()), Some(owner));
        assert_eq!(Owner::from_labels(&BTreeMap::from([(WORKSPACE.to_owned(), "x".to_owned())])), None);
    }
}
