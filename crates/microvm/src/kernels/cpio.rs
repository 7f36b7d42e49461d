//! The archive that a kernel unpacks as its initial file system (`newc` of cpio(5)), written whole in memory.

use std::io::Write as _;

/// An archive to which entries are added.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    /// The number of entries. Each entry has its own inode number, or the kernel takes entries for links to each other.
    entries: u32,
}

impl Archive {
    pub(crate) fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), &[]);
    }

    pub(crate) fn file(&mut self, name: &str, permissions: u32, contents: &[u8]) {
        self.entry(name, 0o100_000 | permissions, (0, 0), contents);
    }

    /// Adds the kernel's console: a character device, 5:1.
    pub(crate) fn console(&mut self, name: &str) {
        self.entry(name, 0o020_600, (5, 1), &[]);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        // Number, mode, owner, group, links, time, size, device, device of a device, length of the name, checksum.
        let (number, size, name_size) = (self.entries, contents.len(), name.len() + 1);
        let (major, minor) = device;
        let header = format!(
            "070701{number:08x}{mode:08x}{zero:08x}{zero:08x}{one:08x}{zero:08x}{size:08x}{zero:08x}{zero:08x}\
             {major:08x}{minor:08x}{name_size:08x}{zero:08x}{name}\0",
            zero = 0,
            one = 1,
        );
        // Writing to memory does not fail.
        let _ = self.bytes.write_all(header.as_bytes());
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_other_programs_take_for_one() {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.file("dev/five", 0o644, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 3);
        assert!(text.contains("dev/five\0"));
        assert!(text.contains("TRAILER!!!\0"));
    }
}
