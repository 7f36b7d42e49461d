//! The specification of a workspace: the properties that its sandbox is made by, and that its snapshots keep.

use emergent_provider::{ContainerKind, ImageRef};
use emergent_types::{NetworkPolicy, ResourceLimits};

/// The properties by which a workspace is made, and made again from a snapshot. The values of its environment are not
/// among them: they may be secrets, and only the guest needs them.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkspaceSpec {
    /// The workspace's purpose.
    pub kind: ContainerKind,
    /// The image that the workspace runs.
    pub image: ImageRef,
    /// The resources that the workspace may use.
    pub limits: ResourceLimits,
    /// The networks that the workspace may reach.
    pub network: NetworkPolicy,
    /// Calls may run commands as root in the workspace.
    pub allow_root: bool,
    /// Names of the workspace's environment variables, without their values.
    pub environment_keys: Vec<String>,
}

/// Reads the specification from a row of workspaces or of snapshots, whose tables have the same columns for it.
macro_rules! read_spec {
    ($row:expr) => {
        $crate::WorkspaceSpec {
            kind: $crate::model::words::from_word("kind", &$row.kind)?,
            image: emergent_provider::ImageRef::recorded(&$row.image),
            limits: emergent_types::ResourceLimits {
                cpu: $row.cpu,
                memory_bytes: $crate::model::words::from_integer("memory_bytes", $row.memory_bytes)?,
                disk_bytes: $crate::model::words::from_integer("disk_bytes", $row.disk_bytes)?,
                pids: $crate::model::words::from_integer("pids", $row.pids)?,
            },
            network: $crate::model::words::from_word("network", &$row.network)?,
            allow_root: $row.allow_root,
            environment_keys: $crate::model::words::from_json("environment_keys", $row.environment_keys)?,
        }
    };
}
pub(crate) use read_spec;
