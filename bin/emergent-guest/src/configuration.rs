//! The properties of the workspace rather than of its sandbox: handed over by the server once the sandbox has become
//! somebody's workspace, and kept in a directory of root's, so that it outlives restarts.
//!
//! The directory is no part of the root file system where an image can be made of that: whoever gets such an image gets
//! no value of the environment with it. The server copies the directory along with the files of a snapshot.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use emergent_guest_proto::Configuration;
use parking_lot::RwLock;

use crate::{authorities, own_files};

/// The directory, below the guest's own.
const DIRECTORY: &str = "private";
const FILE: &str = "hand-over.json";
/// The file with the properties of the workspace that this one is a copy of.
const INHERITED: &str = "inherited.json";
/// The length of the file before anything is handed over: blanks, which are no JSON. What fits is written over them, so
/// that a disk has to take neither a new file nor a new length while somebody waits for the workspace.
const BLANK: usize = 4096;

/// The properties that have been handed over, if any.
#[derive(Debug)]
pub struct KeptConfiguration {
    file: PathBuf,
    /// The authorities' certificates, where commands find them.
    bundle: PathBuf,
    inherited: BTreeMap<String, String>,
    current: RwLock<Option<Configuration>>,
}

impl KeptConfiguration {
    /// Takes up what an earlier guest of this sandbox was given. A file that cannot be understood counts as none: the
    /// server does not take such a sandbox for a workspace.
    ///
    /// # Errors
    /// When the directory cannot be made root's alone, or a file is there and cannot be read.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let directory = directory(state_dir)?;
        let file = directory.join(FILE);
        let inherited =
            read(&directory.join(INHERITED))?.map(|configuration| configuration.environment).unwrap_or_default();
        let current = read(&file)?;
        let bundle = state_dir.join(authorities::BUNDLE);
        if let Some(configuration) = &current {
            // Not every sandbox keeps its root file system over a stop.
            authorities::write(&bundle, &configuration.defaults)?;
        } else if let Err(error) = write(&file, &[b' '; BLANK]) {
            // A disk that is full now may have room by the time that something is handed over.
            tracing::warn!(%error, "nothing can be kept ready for a hand-over");
        }
        Ok(Self { current: RwLock::new(current), inherited, file, bundle })
    }

    /// Takes a hand-over, over the environment that a copy has inherited. It is kept before it counts.
    ///
    /// # Errors
    /// When it cannot be kept; then what was handed over before still counts.
    pub fn take(&self, mut configuration: Configuration) -> io::Result<()> {
        for (name, value) in &self.inherited {
            configuration.environment.entry(name.clone()).or_insert_with(|| value.clone());
        }
        authorities::write(&self.bundle, &configuration.defaults)?;
        let mut current = self.current.write();
        if current.as_ref() == Some(&configuration) {
            // It is kept already: whoever starts a machine hands over again, also where its disk is full.
            return Ok(());
        }
        let text = serde_json::to_vec(&configuration)?;
        let is_kept = current.is_none() && fill(&self.file, &text)?;
        if !is_kept {
            write(&self.file, &text)?;
        }
        *current = Some(configuration);
        Ok(())
    }

    /// Whether there has been one.
    pub fn is_complete(&self) -> bool {
        self.with(|configuration| configuration.is_some())
    }

    /// Whether calls may act as root.
    pub fn allows_root(&self) -> bool {
        self.with(|configuration| configuration.is_some_and(|configuration| configuration.allow_root))
    }

    /// The workspace's environment, over the operator's defaults.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        self.with(|configuration| {
            let Some(configuration) = configuration else { return Vec::new() };
            let mut environment = authorities::variables(&self.bundle, &configuration.defaults);
            environment.extend(configuration.defaults.environment.clone());
            environment.extend(configuration.environment.clone());
            environment.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
        })
    }

    fn with<T>(&self, look: impl FnOnce(Option<&Configuration>) -> T) -> T {
        look(self.current.read().as_ref())
    }
}

/// Makes what was handed over to an earlier owner what the next one inherits. Nothing has been handed over to that one.
///
/// # Errors
/// When it cannot be renamed.
pub fn bequeath(state_dir: &Path) -> io::Result<()> {
    let directory = directory(state_dir)?;
    match own_files::put_in_place(&directory.join(FILE), &directory.join(INHERITED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directory, which is there and root's alone when this returns. What guests of before kept beside it is in it
/// then.
fn directory(state_dir: &Path) -> io::Result<PathBuf> {
    let directory = state_dir.join(DIRECTORY);
    own_files::directory(&directory, 0o700)?;
    for name in [FILE, INHERITED] {
        let former = state_dir.join(name);
        if let Some(configuration) = read(&former)? {
            write(&directory.join(name), &serde_json::to_vec(&configuration)?)?;
            fs::remove_file(former)?;
        }
    }
    Ok(directory)
}

/// Replaces a file as a whole. The new one is on the disk when this returns.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = file.with_extension("new");
    let mut new = own_files::create(&aside, 0o600)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    own_files::put_in_place(&aside, file)?;
    // The file's name, too, has to outlive a power cut.
    file.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

/// Writes over the blanks of a file that is as long as they are; `false` where there is none, or it has no room. A
/// crash leaves the blanks, the whole text, or no JSON.
fn fill(file: &Path, text: &[u8]) -> io::Result<bool> {
    let Some(file) = own_files::open_to_write(file)? else { return Ok(false) };
    if text.len() > BLANK || file.metadata()?.len() != BLANK as u64 {
        return Ok(false);
    }
    let mut padded = [b' '; BLANK];
    padded[..text.len()].copy_from_slice(text);
    file.write_all_at(&padded, 0)?;
    file.sync_data()?;
    Ok(true)
}

fn read(file: &Path) -> io::Result<Option<Configuration>> {
    Ok(own_files::read(file)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
