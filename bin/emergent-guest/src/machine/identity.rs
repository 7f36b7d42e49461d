//! The marks that tell the machine from its copies: its host name, and the identity in `/etc/machine-id`.

use std::{io, path::Path};

use rustix::system::sethostname;

use crate::own_files;

/// The file in which programs look for the machine's identity, machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";

/// Takes a host name and an identity on; what is absent stays. A root file system that nobody may write to keeps its
/// identity.
///
/// # Errors
/// When the kernel refuses the name, or the identity cannot be written.
pub fn assume(host_name: Option<&str>, machine_id: Option<&str>) -> io::Result<()> {
    if let Some(name) = host_name {
        sethostname(name.as_bytes())?;
    }
    machine_id.map_or(Ok(()), |id| write(Path::new(MACHINE_ID), id))
}

/// Writes an identity, unless it is the one that is there.
fn write(file: &Path, id: &str) -> io::Result<()> {
    let line = format!("{id}\n");
    if own_files::read(file).is_ok_and(|there| there.as_deref() == Some(line.as_bytes())) {
        return Ok(());
    }
    match own_files::replace(file, 0o644, &[line.as_bytes()]) {
        // An image without `/etc` has no programs that would look there.
        Err(error) if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound) => Ok(()),
        written => written,
    }
}

/// Whether a text can be a machine's identity: 32 hexadecimal digits.
pub fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_identity_replaces_the_one_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine-id");
        fs::write(&file, "uninitialized\n").unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        write(&file, id).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{id}\n"));
        assert!(write(&folder.path().join("none/machine-id"), id).is_ok());
    }

    #[test]
    fn only_what_programs_would_read_as_one_is_an_identity() {
        assert!(is_machine_id("0123456789abcdef0123456789abcdef"));
        for wrong in ["", "0123456789ABCDEF0123456789abcdef", "0123456789abcdef0123456789abcde\n"] {
            assert!(!is_machine_id(wrong), "{wrong:?}");
        }
    }
}
