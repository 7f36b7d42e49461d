//! The names and labels by which an engine's containers, volumes and networks are found again.

use std::collections::HashMap;

use emergent_provider::{SnapshotId, WORKSPACE_LABEL, WorkspaceId};

/// What every label of ours begins with.
pub(crate) const PREFIX: &str = "emergent.";
/// Which snapshot a volume or an image is. A container has it from its image: it was made from that snapshot.
pub(crate) const SNAPSHOT: &str = "emergent.snapshot";
/// Which of a sandbox's named volumes a volume is.
pub(crate) const VOLUME: &str = "emergent.volume";
/// Marks what belongs to all workspaces: networks, the guest's volume, its carrier.
pub(crate) const SHARED: &str = "emergent.shared";
/// Of which workspace a snapshot is.
pub(crate) const SOURCE: &str = "emergent.source";
/// Marks the volume that stands for the hand-over of a sandbox that was made ahead of need.
pub(crate) const HANDED_OVER: &str = "emergent.handed-over";
/// What a volume that records a holder is marked with.
pub(crate) const HOLDER: &str = "holder";
/// What a volume with a build of the guest is marked with.
pub(crate) const GUEST: &str = "guest";
/// What a volume that sandboxes fill for others is marked with.
pub(crate) const FILLED: &str = "filled";

/// The name of a workspace's container, and of its volume.
pub(crate) fn name_of(workspace: WorkspaceId) -> String {
    format!("emergent-{workspace}")
}

/// The name of the volume that stands for a sandbox's hand-over. An engine's labels cannot be changed later, and a volume
/// that carries the sandbox's label goes with it.
pub(crate) fn name_of_hand_over(workspace: WorkspaceId) -> String {
    format!("emergent-{workspace}.handed-over")
}

/// The name of a volume for all sandboxes of the engine.
pub(crate) fn name_of_engine_volume(volume: &str) -> String {
    format!("emergent-shared-{volume}")
}

/// The name of a snapshot's volume, and of its image's repository.
pub(crate) fn name_of_snapshot(snapshot: SnapshotId) -> String {
    format!("emergent-snapshot-{snapshot}")
}

/// The filter that finds what a sandbox has.
pub(crate) fn of(workspace: WorkspaceId) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{WORKSPACE_LABEL}={workspace}")])])
}

/// The filter that finds what carries a label.
pub(crate) fn having(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}
