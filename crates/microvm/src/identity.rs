//! The properties of a machine that have to be the same where it is restored.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Acceleration, MachineSpec};

/// A machine's version, processor and shape, kept in its directory and with its saved state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) version: String,
    pub(crate) processor: String,
    pub(crate) shape: Shape,
}

/// The parts of a machine's specification that have to be the same in the machine that is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    memory_mib: u32,
    vcpus: u8,
    data_disk: bool,
    network: bool,
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

// === impl Shape ===

impl Shape {
    /// Memory, in MiB.
    pub(crate) fn memory_mib(&self) -> u32 {
        self.memory_mib
    }

    /// The shape of a machine.
    pub(crate) fn of(spec: &MachineSpec) -> Self {
        Self {
            memory_mib: spec.memory_mib,
            vcpus: spec.vcpus,
            data_disk: spec.data.is_some(),
            network: spec.network.is_some(),
        }
    }
}

/// The processor, as the kernel names it.
fn host_processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
