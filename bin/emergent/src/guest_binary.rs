//! Finds the guest binary, which the server puts into workspaces.

use std::path::{Path, PathBuf};

/// The guest binary's name beside this program.
const NAME: &str = "emergent-guest";

/// The reason why there is no guest binary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestBinaryError {
    /// The path is not set, and there is no file beside this program.
    #[error("the guest binary {} is not there; build it with `make build`, or set EMERGENT_GUEST_PATH", .0.display())]
    Missing(PathBuf),
    /// This program's own path is not known.
    #[error("the directory of this program is not known; set EMERGENT_GUEST_PATH")]
    NoProgramPath(#[source] std::io::Error),
}

/// Returns the path of the guest binary: the given path, else the one beside this program.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, GuestBinaryError> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().map_err(GuestBinaryError::NoProgramPath)?.with_file_name(NAME),
    };
    if path.is_file() { Ok(path) } else { Err(GuestBinaryError::Missing(path)) }
}

/// Whether an ELF file needs no dynamic loader: it has no `PT_INTERP` header.
pub(crate) fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let word = |at: usize, length: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let has_interpreter = || -> Option<bool> {
        let table = usize::try_from(word(32, 8)?).ok()?;
        let (entry_size, entries) = (usize::try_from(word(54, 2)?).ok()?, usize::try_from(word(56, 2)?).ok()?);
        let kinds = (0..entries).map(|index| word(table + index * entry_size, 4));
        Some(kinds.flatten().any(|kind| kind == u64::from(PT_INTERP)))
    };
    elf.starts_with(b"\x7fELF\x02\x01") && has_interpreter() == Some(false)
}
