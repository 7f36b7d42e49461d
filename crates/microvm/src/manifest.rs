//! The manifest of a saved machine, so that nobody restores half of it, or something of another kind.
//!
//! The manifest is written last, after everything that it speaks of is on the disk.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    RestoreError, SaveError, VmmError, VmmKind, durable,
    identity::{Identity, Shape},
};

const FILE: &str = "manifest.json";

/// Another number means other fields.
const FORMAT: u32 = 1;

/// The description of a machine when it was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// The name of the monitor.
    vmm: String,
    /// The monitor's version: the saved state of one version is not promised to mean the same to another.
    version: String,
    /// The monitor's means of carrying the machine out, and the processor's name where that shows inside.
    processor: String,
    #[serde(flatten)]
    shape: Shape,
    /// The files and their lengths in bytes.
    files: BTreeMap<String, u64>,
}

/// That the disk is full, if that is what lies behind `error`.
pub(crate) fn no_room(error: VmmError, into: &Path) -> SaveError {
    /// Less than this, and the next piece of memory does not fit.
    const NOTHING: u64 = 4 << 20;
    let left = rustix::fs::statvfs(into).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    match left {
        Ok(left) if left < NOTHING => SaveError::NoRoom { into: into.to_owned(), source: error.into() },
        _ => SaveError::Control(error),
    }
}

// === impl Manifest ===

impl Manifest {
    /// Writes the manifest of what is in `into`, after the files themselves have reached the disk.
    pub(crate) fn write(into: &Path, vmm: VmmKind, identity: &Identity, files: &[&str]) -> Result<(), SaveError> {
        let failed = |action, name: &str| {
            let path = into.join(name);
            move |source| SaveError::File { action, path, source }
        };
        let mut lengths = BTreeMap::new();
        for name in files {
            let file = File::open(into.join(name)).map_err(failed("open", name))?;
            file.sync_all().map_err(failed("write", name))?;
            lengths.insert((*name).to_owned(), file.metadata().map_err(failed("look at", name))?.len());
        }
        let manifest = Self {
            format: FORMAT,
            vmm: vmm.to_string(),
            version: identity.version.clone(),
            processor: identity.processor.clone(),
            shape: identity.shape.clone(),
            files: lengths,
        };
        let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from).map_err(failed("write", FILE))?;
        let written = durable::write(&into.join(FILE), &text).and_then(|()| durable::sync(into));
        written.map_err(failed("write", FILE))
    }

    /// Reads a manifest and checks that what it speaks of is all there.
    pub(crate) fn read(from: &Path) -> Result<Self, RestoreError> {
        let damaged = |reason: String| RestoreError::Damaged { from: from.to_owned(), reason };
        let text = fs::read(from.join(FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => damaged("it was not saved to the end; there is no manifest".to_owned()),
            _ => damaged(format!("its manifest cannot be read: {error}")),
        })?;
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| damaged(format!("its manifest makes no sense: {error}")))?;
        for (name, expected) in &manifest.files {
            match fs::metadata(from.join(name)).map(|file| file.len()) {
                Ok(length) if length == *expected => {}
                Ok(length) => return Err(damaged(format!("{name} has {length} bytes instead of {expected}"))),
                Err(error) => return Err(damaged(format!("{name}: {error}"))),
            }
        }
        Ok(manifest)
    }

    /// Refuses what another monitor, version or processor has saved, or a machine of another shape.
    pub(crate) fn fits(&self, from: &Path, vmm: VmmKind, identity: &Identity) -> Result<(), RestoreError> {
        let foreign = |reason| Err(RestoreError::Foreign { from: from.to_owned(), reason });
        let vmm = vmm.to_string();
        if self.format != FORMAT {
            return foreign(format!("it has format {}, and this release reads {FORMAT}", self.format));
        }
        let differences = [
            ("monitor", &self.vmm, vmm.as_str()),
            ("version", &self.version, identity.version.as_str()),
            ("processor", &self.processor, identity.processor.as_str()),
        ];
        if let Some((what, saved, here)) = differences.into_iter().find(|(_, saved, here)| saved != here) {
            return foreign(format!("its {what} is {saved}, and here it is {here}; boot the machine anew"));
        }
        let shape = &identity.shape;
        if self.shape != *shape {
            return foreign(format!("it was saved as {:?}, and {shape:?} is wanted", self.shape));
        }
        Ok(())
    }
}
