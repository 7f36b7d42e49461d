//! The names and labels by which an engine's containers, volumes and networks are found again.

use std::collections::HashMap;

use emergent_provider::WORKSPACE_LABEL;
use emergent_types::{SandboxId, SnapshotId};

/// The prefix of every label of ours.
pub(crate) const PREFIX: &str = "emergent.";
/// The label with the snapshot of a volume or an image. A container inherits it from its image: it was made from that
/// snapshot.
pub(crate) const SNAPSHOT: &str = "emergent.snapshot";
/// The label that tells a sandbox's named volumes apart.
pub(crate) const VOLUME: &str = "emergent.volume";
/// The label of objects that belong to all workspaces: networks, the guest's volume, its carrier.
pub(crate) const SHARED: &str = "emergent.shared";
/// The label with the workspace of a snapshot.
pub(crate) const SOURCE: &str = "emergent.source";
/// The label of the volume that marks the hand-over of a sandbox that was made ahead of need.
pub(crate) const HANDED_OVER: &str = "emergent.handed-over";
/// The value of [`SHARED`] on a volume that records a holder.
pub(crate) const HOLDER: &str = "holder";
/// The value of [`SHARED`] on a volume with a build of the guest.
pub(crate) const GUEST: &str = "guest";
/// The value of [`SHARED`] on a volume that sandboxes fill for others.
pub(crate) const FILLED: &str = "filled";

/// The name of a workspace's container, and of its volume.
pub(crate) fn name_of(workspace: SandboxId) -> String {
    format!("emergent-{workspace}")
}

/// The name of the volume that marks a sandbox's hand-over. An engine's labels cannot be changed later; a volume that
/// carries the sandbox's label is removed with the sandbox.
pub(crate) fn name_of_claim(workspace: SandboxId) -> String {
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

/// The filter that finds the objects of a sandbox.
pub(crate) fn of(workspace: SandboxId) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{WORKSPACE_LABEL}={workspace}")])])
}

/// The filter that finds the objects with a label.
pub(crate) fn having(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}
