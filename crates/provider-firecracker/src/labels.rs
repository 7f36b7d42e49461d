//! The labels that name a snapshot's server, and the sandbox that it was taken of.

use std::collections::BTreeMap;

use emergent_provider::{Origin, SERVER_LABEL};
use emergent_types::{SandboxId, ServerId};

/// The label with the workspace of a snapshot.
const SOURCE: &str = "emergent.source";

/// Returns the labels of a snapshot: its server, its workspace, and the origin in the labels of that workspace's
/// sandbox.
pub(crate) fn of_snapshot(
    server: ServerId,
    workspace: SandboxId,
    sandbox: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let own = [(SERVER_LABEL.to_owned(), server.to_string()), (SOURCE.to_owned(), workspace.to_string())];
    let origin = Origin::from_labels(sandbox).map(|origin| origin.to_labels()).into_iter().flatten();
    own.into_iter().chain(origin).collect()
}

/// Returns the workspace of a snapshot, and the origin of that workspace's sandbox.
pub(crate) fn source_of(labels: &BTreeMap<String, String>) -> Option<(SandboxId, Origin)> {
    Some((labels.get(SOURCE)?.parse().ok()?, Origin::from_labels(labels)?))
}

/// Returns the server that made a snapshot.
pub(crate) fn server_of(labels: &BTreeMap<String, String>) -> Option<ServerId> {
    labels.get(SERVER_LABEL)?.parse().ok()
}
