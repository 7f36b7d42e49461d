//! The properties of a machine that have to be the same where it is restored.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Acceleration, MachineSpec, manifest::Shape};

/// A machine's version, processor and shape, kept in its directory and with its saved state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) version: String,
    pub(crate) processor: String,
    pub(crate) shape: Shape,
}

// === impl Identity ===

impl Identity {
    /// The identity of a machine that is about to be started.
    pub(crate) fn new(spec: &MachineSpec, acceleration: Acceleration, version: &str) -> Self {
        let processor = match acceleration {
            Acceleration::Emulated => "emulated".to_owned(),
            Acceleration::Kvm => host_processor(),
        };
        Self { version: version.to_owned(), processor, shape: Shape::of(spec) }
    }

    /// Returns the path of the identity in a machine's directory.
    pub(crate) fn file(dir: &Path) -> PathBuf {
        dir.join("identity.json")
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(Self::file(dir), serde_json::to_vec(self)?)
    }

    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(Self::file(dir))?)?)
    }
}

/// The processor, as the kernel names it.
fn host_processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
