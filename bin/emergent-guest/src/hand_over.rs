//! What belongs to the workspace rather than to its sandbox: handed over by the server once the sandbox has become
//! somebody's workspace, and kept on the root file system, so that it outlives restarts and goes along with a copy.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use emergent_guest_proto::HandOver;

const FILE: &str = "hand-over.json";
/// What was handed over to the workspace that this one is a copy of.
const INHERITED: &str = "inherited.json";

/// What has been handed over, if anything.
#[derive(Debug)]
pub struct HandedOver {
    file: PathBuf,
    inherited: BTreeMap<String, String>,
    current: RwLock<Option<HandOver>>,
}

impl HandedOver {
    /// Takes up what an earlier guest of this sandbox was given. A file that cannot be understood counts as none: the
    /// server does not take such a sandbox for a workspace.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let file = state_dir.join(FILE);
        let inherited = read(&state_dir.join(INHERITED))?.map(|hand_over| hand_over.environment).unwrap_or_default();
        Ok(Self { current: RwLock::new(read(&file)?), inherited, file })
    }

    /// Takes a hand-over, over the environment that a copy has inherited. It is kept before it counts.
    ///
    /// # Errors
    /// When it cannot be kept; then what was handed over before still counts.
    pub fn take(&self, mut hand_over: HandOver) -> io::Result<()> {
        for (name, value) in &self.inherited {
            hand_over.environment.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let aside = self.file.with_extension("new");
        // Its values may be secrets, and agents read the directory.
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&serde_json::to_vec(&hand_over)?)?;
        fs::rename(&aside, &self.file)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(hand_over);
        Ok(())
    }

    /// Whether there has been one.
    pub fn is_complete(&self) -> bool {
        self.with(|hand_over| hand_over.is_some())
    }

    /// Whether calls may act as root.
    pub fn allows_root(&self) -> bool {
        self.with(|hand_over| hand_over.is_some_and(|hand_over| hand_over.allow_root))
    }

    /// The workspace's environment.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        self.with(|hand_over| {
            let pairs = hand_over.into_iter().flat_map(|hand_over| &hand_over.environment);
            pairs.map(|(key, value)| (key.into(), value.into())).collect()
        })
    }

    fn with<T>(&self, look: impl FnOnce(Option<&HandOver>) -> T) -> T {
        look(self.current.read().unwrap_or_else(PoisonError::into_inner).as_ref())
    }
}

/// Makes what was handed over to an earlier owner what the next one inherits. Nothing has been handed over to that one.
///
/// # Errors
/// When it cannot be renamed.
pub fn bequeath(state_dir: &Path) -> io::Result<()> {
    match fs::rename(state_dir.join(FILE), state_dir.join(INHERITED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(file: &Path) -> io::Result<Option<HandOver>> {
    match fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
