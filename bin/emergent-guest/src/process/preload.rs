//! Programs that the kernel refuses to serve. `ls -l` and `stat` of newer GNU coreutils ask statx(2) not to mount
//! anything; gVisor up to 2023 answers that it does not know the flag, and they give up. There every program gets a
//! small library before its others (`LD_PRELOAD`), whose statx leaves the flag out.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use emergent_guest_proto::PRELOAD_FILE;
use rustix::{
    fs::{AtFlags, CWD, StatxFlags},
    io::Errno,
};

use crate::own_files;

const VARIABLE: &str = "LD_PRELOAD";
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preload.so"));

/// The library, in a file that every program may read.
#[derive(Debug)]
pub struct Preload(PathBuf);

impl Preload {
    /// Puts the library into a directory, if this kernel refuses the flag.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn where_needed(directory: &Path) -> io::Result<Option<Self>> {
        let asked = rustix::fs::statx(CWD, "/", AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS);
        if asked.err() == Some(Errno::INVAL) { Self::put(directory).map(Some) } else { Ok(None) }
    }

    fn put(directory: &Path) -> io::Result<Self> {
        let path = directory.join(PRELOAD_FILE);
        // One that is there is not written again: also on a full disk a guest starts.
        if own_files::read(&path)?.is_none_or(|there| there != LIBRARY) {
            own_files::replace(&path, 0o644, &[LIBRARY])?;
        }
        Ok(Self(path))
    }

    /// Adds the library to what a program's environment names already.
    pub fn add_to(&self, environment: &mut Vec<(OsString, OsString)>) {
        let mut libraries = OsString::from(&self.0);
        match environment.iter_mut().find(|(key, _)| key == VARIABLE) {
            Some((_, others)) => {
                libraries.push(":");
                libraries.push(&*others);
                *others = libraries;
            }
            None => environment.push((VARIABLE.into(), libraries)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn programs_take_the_library_and_see_files_through_it() {
        let folder = tempfile::tempdir().unwrap();
        let preload = Preload::put(folder.path()).unwrap();
        let mut environment = Vec::new();
        preload.add_to(&mut environment);
        for (arguments, works) in [(["-l", "/proc/self/maps"], true), (["-l", "/nowhere"], false)] {
            let shown = Command::new("ls").args(arguments).envs(environment.clone()).output().unwrap();
            let said = String::from_utf8_lossy(&shown.stderr);
            assert_eq!((shown.status.success(), said.contains("LD_PRELOAD")), (works, false), "{said}");
        }
        let maps = Command::new("cat").arg("/proc/self/maps").envs(environment).output().unwrap();
        assert!(String::from_utf8_lossy(&maps.stdout).contains("preload.so"), "it was not loaded");
    }

    #[test]
    fn libraries_that_a_caller_names_stay() {
        let mut environment = vec![("LD_PRELOAD".into(), "/a.so".into())];
        Preload("/b.so".into()).add_to(&mut environment);
        assert_eq!(environment, [("LD_PRELOAD".into(), "/b.so:/a.so".into())]);
    }
}
