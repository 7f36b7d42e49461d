//! The owner of a sandbox, as the labels on the engine's objects say.

use emergent_types::{SandboxId, ServerId};

use crate::ContainerKind;

/// The label that says whose a sandbox, or something of it, is.
pub const WORKSPACE_LABEL: &str = "emergent.workspace";
/// The label that says what it is for.
pub const KIND_LABEL: &str = "emergent.kind";
/// The label that says which server made it.
pub const SERVER_LABEL: &str = "emergent.server";

/// The owner of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The workspace.
    pub workspace: SandboxId,
    /// The server that made the sandbox.
    pub server: ServerId,
    /// The sandbox's purpose.
    pub kind: ContainerKind,
}

// === impl Owner ===

impl Owner {
    /// The labels that say so.
    pub fn to_labels(self) -> [(String, String); 3] {
        [
            (WORKSPACE_LABEL.to_owned(), self.workspace.to_string()),
            (KIND_LABEL.to_owned(), self.kind.as_str().to_owned()),
            (SERVER_LABEL.to_owned(), self.server.to_string()),
        ]
    }

    /// Reads them; `None` when they are not ours or not whole.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Option<Self> {
        let (mut workspace, mut server, mut kind) = (None, None, None);
        for (name, value) in labels {
            match name.as_str() {
                WORKSPACE_LABEL => workspace = value.parse().ok(),
                SERVER_LABEL => server = value.parse().ok(),
                KIND_LABEL => kind = ContainerKind::ALL.into_iter().find(|kind| kind.as_str() == value),
                _ => {}
            }
        }
        Some(Self { workspace: workspace?, server: server?, kind: kind? })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn labels_name_their_owner_again() {
        let owner =
            Owner { workspace: SandboxId::generate(), server: ServerId::generate(), kind: ContainerKind::McpServer };
        assert_eq!(Owner::from_labels(&HashMap::from(owner.to_labels())), Some(owner));
    }

    #[test]
    fn incomplete_labels_name_nobody() {
        assert_eq!(Owner::from_labels(&HashMap::from([(WORKSPACE_LABEL.to_owned(), "x".to_owned())])), None);
    }
}
