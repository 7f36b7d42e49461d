//! Requests to a provider.

use std::fmt;

use emergent_types::{NetworkPolicy, ResourceLimits, SandboxId, SnapshotId};

use crate::ImageRef;

/// One sandbox to make. What belongs to the workspace rather than to the sandbox (its environment, whether root is
/// allowed) is handed over to the guest once it answers, so that no engine shows it.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The workspace that the sandbox belongs to; names and labels follow from it.
    pub workspace: SandboxId,
    /// The sandbox's purpose.
    pub kind: ContainerKind,
    /// The image that the sandbox runs.
    pub image: ImageRef,
    /// The snapshot whose files it begins with, those outside `/workspace` too; `None` begins with the image's. The
    /// snapshot is of a sandbox that ran the same image, and stays while the sandbox is being made.
    pub snapshot: Option<SnapshotId>,
    /// The rule for which image may be taken for the reference, and from where.
    pub access: ImageAccess,
    /// How to log in to the image's registry, where that is needed.
    pub registry: Option<RegistryCredentials>,
    /// The resources that the sandbox may use.
    pub limits: ResourceLimits,
    /// The networks that the sandbox may reach.
    pub network: NetworkPolicy,
    /// Directories that outlive the sandbox, besides `/workspace`.
    pub volumes: Vec<NamedVolume>,
    /// The sandbox is made ahead of need and belongs to nobody until it is handed over.
    pub warm: bool,
}

/// The rule for which image may be taken for a reference. An engine may have images that are nobody's business here,
/// and images that one project has pulled with a login that another one does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageAccess {
    /// The operator's own choice, such as the default image: what the engine has is taken, and any registry is asked.
    Operator,
    /// The operator admits it by name: what the engine has is taken. A registry in a private network is asked only
    /// where the operator names it.
    Admitted,
    /// The engine's copy is taken only if it is the image that the project has pulled, by its id; else the image is
    /// pulled with the project's login. Registries as for [`Admitted`](Self::Admitted).
    Pulled(Option<String>),
}

/// A directory of a sandbox that is not part of its root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVolume {
    /// The volume's name among the sandbox's volumes: 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub name: String,
    /// The volume's place inside: an absolute path.
    pub path: String,
    /// The owner of the volume.
    pub source: VolumeSource,
}

/// The owner of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeSource {
    /// The sandbox's own: it outlives the sandbox, and goes when that is destroyed, not when it is discarded.
    Own,
    /// The `/workspace` of a workspace on this engine, which has to be there. When the workspace is destroyed, the
    /// sandbox is discarded first.
    Workspace {
        /// The workspace.
        workspace: SandboxId,
        /// The sandbox cannot write there.
        read_only: bool,
    },
    /// One for all sandboxes of the engine, by the volume's name; it is made when it is first asked for, and stays.
    Engine {
        /// The sandbox cannot write there.
        read_only: bool,
    },
}

/// The command that an image runs by itself, and its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCommand {
    /// The image's entry point and command; empty when it names neither.
    pub argv: Vec<String>,
    /// The image's working directory.
    pub workdir: Option<String>,
}

/// The purpose of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// An agent's workspace: ephemeral, with a time to live.
    AgentWorkspace,
    /// A hosted MCP server: persistent.
    McpServer,
}

/// How to log in to a registry.
#[derive(Clone)]
pub struct RegistryCredentials {
    /// User name.
    pub username: String,
    /// Password or token. Never shown, logged or stored by a provider.
    pub password: String,
}

// === impl ContainerKind ===

impl ContainerKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::AgentWorkspace, Self::McpServer];

    /// The word for it in labels, rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentWorkspace => "agent_workspace",
            Self::McpServer => "mcp_server",
        }
    }
}

// === impl RegistryCredentials ===

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_the_debug_form() {
        let credentials = RegistryCredentials { username: "me".to_owned(), password: "hidden".to_owned() };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("me") && !shown.contains("hidden"), "{shown}");
    }
}
