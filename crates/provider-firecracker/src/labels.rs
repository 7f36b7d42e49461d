//! The labels by which a snapshot is found to be a server's.

use std::collections::BTreeMap;

use emergent_provider::{Origin, SERVER_LABEL, ServerId, WorkspaceId};

/// Of which workspace a snapshot is.
const SOURCE: &str = "emergent.source";

/// The labels of a snapshot: whose it is, and what it is of, given the labels of that sandbox.
pub(crate) fn of_snapshot(
    server: ServerId,
    workspace: WorkspaceId,
    sandbox: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let own = [(SERVER_LABEL.to_owned(), server.to_string()), (SOURCE.to_owned(), workspace.to_string())];
    let origin = Origin::from_labels(sandbox).map(|origin| origin.to_labels()).into_iter().flatten();
    own.into_iter().chain(origin).collect()
}

/// Of which workspace a snapshot is, and what that was made of.
pub(crate) fn source_of(labels: &BTreeMap<String, String>) -> Option<(WorkspaceId, Origin)> {
    Some((labels.get(SOURCE)?.parse().ok()?, Origin::from_labels(labels)?))
}

/// Which server made it.
pub(crate) fn server_of(labels: &BTreeMap<String, String>) -> Option<ServerId> {
    labels.get(SERVER_LABEL)?.parse().ok()
}
