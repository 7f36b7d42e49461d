//! The places of a sandbox on the engine's machine.

use std::path::PathBuf;

use crate::disk::{Count, Figure};

/// The places of a sandbox's files, and of its processes while it runs.
pub(crate) struct Places {
    /// The sandbox's volumes, and the files that the engine keeps for it.
    pub(crate) roots: Vec<PathBuf>,
    /// The directory with its changes to its image.
    pub(crate) layer: Option<PathBuf>,
    pub(crate) group: Option<PathBuf>,
}

// === impl Places ===

impl Places {
    /// Counts its files: those of volumes by the room that they take, those of its layer by a figure.
    pub(crate) fn measure(&self, layer: Figure, enough: u64) -> Count {
        let mut count = Count::up_to(enough);
        count.add(&self.roots, Figure::Blocks);
        count.add(self.layer.as_slice(), layer);
        count
    }
}
