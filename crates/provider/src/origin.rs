//! Origins: what a sandbox was made of, as the labels on it say, for the case that no row knows it any more.

use emergent_types::{NetworkPolicy, ResourceLimits};

use crate::{ImageRef, SandboxSpec};

const IMAGE: &str = "emergent.image";
const NETWORK: &str = "emergent.network";
const CPU: &str = "emergent.cpu";
const MEMORY: &str = "emergent.memory";
const DISK: &str = "emergent.disk";
const PIDS: &str = "emergent.pids";
/// The label of a sandbox that was made ahead of need.
const WARM: &str = "emergent.warm";

/// The image, limits and network that a sandbox was made with.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The image.
    pub image: ImageRef,
    /// The limits when the sandbox was made.
    pub limits: ResourceLimits,
    /// The networks that the sandbox may reach.
    pub network: NetworkPolicy,
}

// === impl Origin ===

impl Origin {
    /// The labels that say what a sandbox is made of.
    pub fn to_labels(&self) -> [(String, String); 6] {
        let ResourceLimits { cpu, memory_bytes, disk_bytes, pids } = self.limits;
        [
            (IMAGE, self.image.to_string()),
            (NETWORK, self.network.as_str().to_owned()),
            (CPU, cpu.to_string()),
            (MEMORY, memory_bytes.to_string()),
            (DISK, disk_bytes.to_string()),
            (PIDS, pids.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// Reads them; `None` when they are not whole.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Option<Self> {
        let (mut image, mut network) = (None, None);
        let (mut cpu, mut memory_bytes, mut disk_bytes, mut pids) = (None, None, None, None);
        for (name, value) in labels {
            match name.as_str() {
                IMAGE => image = value.parse().ok(),
                NETWORK => network = NetworkPolicy::ALL.into_iter().find(|network| network.as_str() == value),
                CPU => cpu = value.parse().ok(),
                MEMORY => memory_bytes = value.parse().ok(),
                DISK => disk_bytes = value.parse().ok(),
                PIDS => pids = value.parse().ok(),
                _ => {}
            }
        }
        let limits = ResourceLimits { cpu: cpu?, memory_bytes: memory_bytes?, disk_bytes: disk_bytes?, pids: pids? };
        Some(Self { image: image?, limits, network: network? })
    }

    /// Whether labels are of a sandbox that was made ahead of need, and so begins as nobody's.
    pub fn is_warm<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> bool {
        labels.into_iter().any(|(name, _)| name == WARM)
    }
}

// === impl SandboxSpec ===

impl SandboxSpec {
    /// The labels that say what the sandbox is made of, and whether it is made ahead of need.
    pub fn origin_labels(&self) -> Vec<(String, String)> {
        let origin = Origin { image: self.image.clone(), limits: self.limits, network: self.network };
        origin.to_labels().into_iter().chain(self.warm_label()).collect()
    }

    /// The label of everything that is made for the sandbox ahead of need; `None` where the sandbox is somebody's from
    /// the beginning.
    pub fn warm_label(&self) -> Option<(String, String)> {
        self.warm.then(|| (WARM.to_owned(), "true".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn labels_say_what_a_sandbox_was_made_of() {
        let origin = Origin {
            image: "ubuntu:22.04".parse().unwrap(),
            limits: ResourceLimits { cpu: 0.5, memory_bytes: 1 << 30, disk_bytes: 2 << 30, pids: 7 },
            network: NetworkPolicy::Isolated,
        };
        let mut labels = HashMap::from(origin.to_labels());
        assert_eq!(Origin::from_labels(&labels), Some(origin));
        assert!(!Origin::is_warm(&labels));
        labels.remove(CPU);
        assert_eq!(Origin::from_labels(&labels), None);
    }
}
