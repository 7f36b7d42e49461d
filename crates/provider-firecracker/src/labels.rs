//! The labels by which a snapshot is found to be a server's.

use std::collections::BTreeMap;

use emergent_provider::{SERVER_LABEL, ServerId};

/// The labels of a snapshot.
pub(crate) fn of_snapshot(server: ServerId) -> BTreeMap<String, String> {
    BTreeMap::from([(SERVER_LABEL.to_owned(), server.to_string())])
}

/// Which server made it.
pub(crate) fn server_of(labels: &BTreeMap<String, String>) -> Option<ServerId> {
    labels.get(SERVER_LABEL)?.parse().ok()
}
