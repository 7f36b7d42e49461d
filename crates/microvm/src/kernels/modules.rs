//! The kernel modules that a machine needs, in the order of loading.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use memchr::memmem;

/// The drivers of a machine's devices: disks, network, channels, random numbers, on the buses of both monitors. A
/// kernel that does not have one of them as a module has it built in, or lacks it; the boot shows which.
const WANTED: &[&str] = &[
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
];

/// A module, uncompressed.
#[derive(Debug)]
pub(crate) struct Module {
    /// The module's name, with underscores.
    pub(crate) name: String,
    /// The file.
    pub(crate) contents: Vec<u8>,
}

/// Reads the wanted modules below `tree`, each after those that it depends on.
pub(crate) fn needed(tree: &Path) -> io::Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    collect(tree, &mut files)?;
    let mut ordered = Vec::new();
    for name in WANTED {
        add(name, &files, &mut ordered)?;
    }
    Ok(ordered)
}

/// Adds a module after its dependencies, unless it is there.
fn add(name: &str, files: &BTreeMap<String, PathBuf>, ordered: &mut Vec<Module>) -> io::Result<()> {
    let Some(path) = files.get(name) else { return Ok(()) };
    if ordered.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let contents = read(path)?;
    for dependency in dependencies(&contents) {
        add(&dependency, files, ordered)?;
    }
    ordered.push(Module { name: name.to_owned(), contents });
    Ok(())
}

fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// The name of the module in a file of this name.
fn module_name(file: &str) -> Option<String> {
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].into_iter().find_map(|suffix| file.strip_suffix(suffix))?;
    Some(stem.replace('-', "_"))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path),
    };
    let output = Command::new(program).arg("-dc").arg(path).output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(io::Error::other(format!("{program} cannot unpack {}", path.display()))),
    }
}

/// Returns the names of the modules that the module depends on.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(start) = memmem::find(module, FIELD) else { return Vec::new() };
    let value = module.get(start + FIELD.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_those_that_they_need() {
        let tree = tempfile::tempdir().unwrap();
        let module = |file: &str, depends: &str| {
            fs::write(tree.path().join(file), format!("ELF\0license=GPL\0depends={depends}\0name=x\0")).unwrap();
        };
        module("virtio_blk.ko", "virtio_ring,virtio");
        module("virtio.ko", "virtio_ring");
        module("virtio_ring.ko", "");
        module("virtio-rng.ko", "virtio");
        module("unrelated.ko", "");
        let names: Vec<_> = needed(tree.path()).unwrap().into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_blk", "virtio_rng"]);
    }
}
