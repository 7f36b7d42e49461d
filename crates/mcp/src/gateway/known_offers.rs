//! One client's knowledge of the servers' offers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::watch;

use super::catalogue::{Catalogue, Offer};

/// A server, by name, and one kind of its offers.
pub(super) type Key = (String, Offer);

/// One client's knowledge of the servers' offers.
#[derive(Default)]
pub(super) struct KnownOffers {
    /// The offers that the client's own connections have found.
    pub(super) own: HashMap<Key, OwnOffers>,
    /// The offers that are being read; the receiver shows `true` when there is something to show.
    pub(super) reading: HashMap<Key, watch::Receiver<bool>>,
    /// The lists that a server has changed while they are being read: they are read once more.
    pub(super) again: HashSet<Key>,
    /// The offers that lists were answered without.
    pub(super) left_out: HashSet<Key>,
    /// The reasons why servers could not be read, by server.
    pub(super) failures: BTreeMap<String, String>,
    /// The reasons why servers are left out that the client was told, by server.
    pub(super) told: BTreeMap<String, String>,
}

/// The offers that a client's own connection has found, and the version of the server that has them.
pub(super) struct OwnOffers {
    pub(super) version: String,
    pub(super) catalogue: Arc<Catalogue>,
}
