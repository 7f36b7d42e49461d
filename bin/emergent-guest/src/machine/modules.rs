//! The kernel's modules, from the initial file system.

use std::{
    fs::{self, File},
    path::Path,
};

use rustix::io::Errno;

/// The list of modules, one file name in a line, each after the modules that it needs.
const ORDER: &str = "order";

/// Loads the modules that the list in `directory` names. A module that does not load is reported and skipped: a missing
/// device shows later, and most machines do not need all of them.
pub fn load(directory: &Path) {
    let order = fs::read_to_string(directory.join(ORDER)).unwrap_or_default();
    for name in order.lines().filter(|name| !name.is_empty()) {
        let loaded = File::open(directory.join(name))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|file| rustix::system::finit_module(&file, c"", 0));
        match loaded {
            // It may be built into the kernel, or have no device to drive.
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
            Err(error) => tracing::warn!("the module {name} does not load: {error}"),
        }
    }
}
