//! Templates: root file systems that sandboxes begin with, and the kernels that they boot.

use emergent_types::error_chain;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use emergent_microvm::{Kernel, durable, kernels};
use sha2::{Digest as _, Sha256};

use crate::{SandboxError, layout::Layout};

/// The template of requests that name none.
pub const DEFAULT: &str = "default";
/// How the file of a template ends.
const ROOT_SUFFIX: &str = "-rootfs.ext4";
/// The longest name.
const NAME_LIMIT: usize = 128;

/// A template.
#[derive(Debug, Clone)]
pub struct Template {
    /// The template's root file system, only ever copied.
    pub root: PathBuf,
    /// The kernel that the template boots.
    pub kernel: Kernel,
    /// The note about the kernel and the initial file system, with the SHA-256 of both.
    kernel_note: PathBuf,
}

/// The names of all templates, sorted.
fn names(layout: &Layout) -> Vec<String> {
    let entries = fs::read_dir(layout.templates()).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(ROOT_SUFFIX)?.to_owned()));
    let mut names: Vec<_> = named.collect();
    names.sort();
    names
}

/// All templates by their names, each with its [fingerprint](Template::fingerprint), unless something of it is missing.
pub fn all(layout: &Layout) -> BTreeMap<String, Option<String>> {
    let fingerprint = |name: &str| find(layout, name).ok()?.fingerprint().ok();
    let with_fingerprint = |name: String| {
        let its = fingerprint(&name);
        (name, its)
    };
    names(layout).into_iter().map(with_fingerprint).collect()
}

/// Finds a template.
///
/// # Errors
/// [`SandboxError::Invalid`] for what can be no name, [`SandboxError::TemplateMissing`] for one that is not there, or
/// that has no kernel.
pub fn find(layout: &Layout, name: &str) -> Result<Template, SandboxError> {
    let well_formed = (1..=NAME_LIMIT).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !name.starts_with(['.', '-']);
    if !well_formed {
        let message = "a template's name has letters, digits, dots, dashes and underscores, 128 at most".to_owned();
        return Err(SandboxError::Invalid { field: "template", message });
    }
    let missing = |advice| SandboxError::TemplateMissing { name: name.to_owned(), advice };
    let root = layout.templates().join(format!("{name}{ROOT_SUFFIX}"));
    if !root.is_file() {
        let known = match names(layout) {
            names if names.is_empty() => "there is none yet".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        return Err(missing(format!("{known}; make one with `emergent image build --name {name}`")));
    }
    // One kernel serves all templates, but for those that bring their own.
    let named =
        |name| kernels::find(layout.microvm(), name).map(|kernel| (kernel, kernels::note(layout.microvm(), name)));
    let found = named(name).or_else(|_| named(DEFAULT));
    let (kernel, kernel_note) = found.map_err(|error| missing(format!("it has no kernel: {}", error_chain(&error))))?;
    Ok(Template { root, kernel, kernel_note })
}

// === impl Template ===

impl Template {
    /// SHA-256, in hexadecimal, of what tells this template from what had its name before: the kernel and the guest by
    /// their contents, as the import of the kernel noted them, and the root file system by its file, its length and the
    /// time of its last change.
    ///
    /// # Errors
    /// When one of the files cannot be read.
    pub fn fingerprint(&self) -> io::Result<String> {
        use std::os::unix::fs::MetadataExt as _;
        let root = fs::metadata(&self.root)?;
        let mut hash = Sha256::new();
        hash.update(fs::read(&self.kernel_note)?);
        for number in [root.ino(), root.len(), root.mtime().cast_unsigned(), root.mtime_nsec().cast_unsigned()] {
            hash.update(number.to_le_bytes());
        }
        Ok(hex::encode(hash.finalize()))
    }
}

/// The same root file system under a name that it keeps: disks may be overlays over it, and the template of its name
/// may be built anew meanwhile.
///
/// # Errors
/// When the second name cannot be made.
pub fn pinned(layout: &Layout, root: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let root = fs::canonicalize(root)?;
    let (metadata, bases) = (fs::metadata(&root)?, bases(layout));
    fs::create_dir_all(&bases)?;
    let pinned = bases.join(format!("{}-{}", metadata.ino(), metadata.mtime()));
    match fs::hard_link(&root, &pinned) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(pinned),
        // A link to another file system: whoever set that up sees to it that the file stays.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(root),
        linked => {
            linked?;
            // Disks that are made over it are of no use without it.
            [pinned.as_path(), &bases, &layout.templates()].into_iter().try_for_each(durable::sync)?;
            Ok(pinned)
        }
    }
}

/// Lets go of root file systems that were pinned, when there is no disk that could need one.
pub(crate) fn unpin_all(layout: &Layout) {
    // What cannot be removed takes space, and no more.
    fs::remove_dir_all(bases(layout)).ok();
}

fn bases(layout: &Layout) -> PathBuf {
    layout.templates().join(".bases")
}
