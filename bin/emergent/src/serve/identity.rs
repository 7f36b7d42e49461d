//! The identity of this server process, and the lock that keeps it unique.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::UNIX_EPOCH,
};

use anyhow::{Context as _, bail};
use emergent_core::ServerId;
use emergent_provider::Holder;
use emergent_store::{DatabaseUrl, ServerIdentity};
use uuid::Uuid;

use super::private_file;

/// The lock on the data directory. It is let go when the process ends, however it ends.
pub(super) struct DataLock {
    _file: File,
    holder: Holder,
}

// === impl DataLock ===

impl DataLock {
    /// Takes the data directory for this process.
    pub(super) fn take(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("server.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("{} cannot be opened", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another server uses the data directory {}; stop it, or set EMERGENT_DATA_DIR to another directory",
                data_dir.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
            }
        }
        // A copy of the directory has another file, which was made at another time; nobody can set that time. A copy of
        // the whole machine has been started by itself.
        let file_of = file.metadata().with_context(|| format!("{} cannot be examined", path.display()))?;
        let made = file_of.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_else(|_| host_name());
        let holder = Holder {
            directory: format!("{}:{}", file_of.ino(), made.as_nanos()),
            boot: boot.trim().to_owned(),
            device: file_of.dev().to_string(),
            process: Uuid::new_v4(),
            host: host_name(),
            path: fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned()).to_string_lossy().into_owned(),
        };
        Ok(Self { _file: file, holder })
    }

    /// Returns the description of this process for engines.
    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Returns the description of this process for the store.
    pub(super) fn identity(&self, url: Option<String>) -> ServerIdentity {
        let Holder { directory, boot, device, host, .. } = &self.holder;
        ServerIdentity { name: Some(host.clone()), url, holder: format!("{boot}:{device}:{directory}") }
    }
}

/// The server's id where several servers share the database: it is kept in the data directory. `None`: it is kept in
/// the database, which has this one server.
pub(super) fn server_id(database: &DatabaseUrl, data_dir: &Path) -> anyhow::Result<Option<ServerId>> {
    if !database.is_shared() {
        return Ok(None);
    }
    let path = data_dir.join("server-id");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = ServerId::generate();
            private_file::write(&path, &id.to_string())
                .with_context(|| format!("{} cannot be written", path.display()))?;
            return Ok(Some(id));
        }
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let id = text.trim().parse().with_context(|| {
        format!(
            "{} holds no server id; put the id back, or remove the file to make this another server",
            path.display()
        )
    })?;
    Ok(Some(id))
}

/// Gives the data directory an id of its own where several servers share the database.
pub(super) fn replace_server_id(data_dir: &Path) -> anyhow::Result<ServerId> {
    let (path, id) = (data_dir.join("server-id"), ServerId::generate());
    private_file::write(&path, &id.to_string()).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(id)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
