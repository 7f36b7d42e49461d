//! What is asked of a provider.

use std::{fmt, str::FromStr};

use crate::{SnapshotId, WorkspaceId};

/// One sandbox to make. What belongs to the workspace rather than to the sandbox (its environment, whether root is
/// allowed) is handed over to the guest once it answers, so that no engine shows it.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// Whose sandbox it is; names and labels follow from it.
    pub workspace: WorkspaceId,
    /// What it is for.
    pub kind: ContainerKind,
    /// What it runs.
    pub image: ImageRef,
    /// The snapshot whose files it begins with, those outside `/workspace` too; `None` begins with the image's. The
    /// snapshot is of a sandbox that ran the same image, and stays while the sandbox is being made.
    pub snapshot: Option<SnapshotId>,
    /// How to log in to the image's registry, where that is needed.
    pub registry: Option<RegistryCredentials>,
    /// What it may use.
    pub limits: ResourceLimits,
    /// What it may reach.
    pub network: NetworkPolicy,
    /// Directories that outlive the sandbox, besides `/workspace`.
    pub volumes: Vec<NamedVolume>,
}

/// A directory that outlives the sandbox: it goes when the sandbox is destroyed, not when it is discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVolume {
    /// Its name among the sandbox's volumes: 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub name: String,
    /// Where it is inside: an absolute path.
    pub path: String,
}

/// What an image runs by itself, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCommand {
    /// Its entry point and command; empty when it names neither.
    pub argv: Vec<String>,
    /// Its working directory.
    pub workdir: Option<String>,
}

/// What a sandbox is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// An agent's workspace: ephemeral, with a time to live.
    AgentWorkspace,
    /// A hosted MCP server: persistent.
    McpServer,
}

/// What a sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResourceLimits {
    /// CPU cores; 0.5 is half a core.
    pub cpu: f64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Disk, in bytes; enforced where the engine can, else watched.
    pub disk_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// What a sandbox may reach. The words mean the same on every provider; the server's own channel always works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NetworkPolicy {
    /// Nothing: loopback only.
    None,
    /// A network interface, but nothing beyond it: no internet, no other sandbox, not the host.
    Isolated,
    /// The internet, but not the host, private ranges, the metadata address or other sandboxes.
    #[default]
    Outbound,
}

/// An image reference such as `ubuntu:22.04` or `registry.example/team/image@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef(String);

/// A text that cannot be an [`ImageRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an image reference is [host[:port]/]name[:tag][@digest] in lower case, 255 characters at most")]
pub struct InvalidImage;

impl ImageRef {
    /// The reference as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The registry's host where the reference names one; `None` means the engine's default registry.
    pub fn registry_host(&self) -> Option<&str> {
        let (first, _) = self.0.split_once('/')?;
        (first.contains(['.', ':']) || first == "localhost").then_some(first)
    }
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

// === impl NetworkPolicy ===

impl NetworkPolicy {
    /// The word for it in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Isolated => "isolated",
            Self::Outbound => "outbound",
        }
    }
}

// === impl ImageRef ===

impl FromStr for ImageRef {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let well_formed = (1..=255).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.ends_with(|last: char| last.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./:@_-".contains(&byte))
            && !["//", "::", "@@", ".."].iter().any(|doubled| text.contains(doubled));
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidImage) }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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

    #[test]
    fn only_what_can_be_an_image_is_taken() {
        for good in ["ubuntu", "ubuntu:22.04", "host:5000/a/b:1", "a@sha256:0123"] {
            assert!(good.parse::<ImageRef>().is_ok(), "{good}");
        }
        for bad in ["", "-x", "a b", "a//b", "../a", "a:", "a\n"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
        assert_eq!("host:5000/a".parse::<ImageRef>().unwrap().registry_host(), Some("host:5000"));
        assert_eq!("team/a".parse::<ImageRef>().unwrap().registry_host(), None);
    }
}
