//! The ids of machines.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A microVM's id. Its interface, its hardware address and the place in the pool where its address is looked for
/// first all follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MachineId(pub Uuid);

// === impl MachineId ===

impl MachineId {
    /// The part that is random in every version of UUID in use here (4 and 7), for names and numbers.
    pub(crate) fn tail(self) -> [u8; 6] {
        let [.., a, b, c, d, e, f] = self.0.into_bytes();
        [a, b, c, d, e, f]
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
