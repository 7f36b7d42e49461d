//! The state that every request handler has at hand.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use emergent_guest_proto::{ErrorCode, GENERATION, GuestError, GuestPath, Hello, RunAs, machine::Restored};
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use crate::{
    account::{Account, Accounts},
    args::Settings,
    children::Children,
    configuration::KeptConfiguration,
    credentials,
    executions::Executions,
    file_locks::{FileLocks, LockKey},
    ledger::Ledger,
    machine::restored::Machine,
    tree_size::Tree,
};

/// The daemon: one per workspace.
#[derive(Debug)]
pub struct Guest {
    /// How it was started.
    pub settings: Settings,
    /// The properties of the workspace that the server has handed over.
    pub configuration: Arc<KeptConfiguration>,
    /// The accounts that commands and file calls act as.
    pub accounts: Arc<Accounts>,
    /// The commands of this workspace.
    pub executions: Arc<Executions>,
    /// The processes that somebody talks to.
    pub children: Arc<Children>,
    /// Has one call at a time change a file.
    pub file_locks: Arc<FileLocks>,
    /// The calls that change something.
    pub ledger: Arc<Ledger>,
    /// When it was started.
    pub started: Instant,
    /// Drawn at random at the start, and again when the machine turns out to be a copy.
    pub boot_id: RwLock<String>,
    /// The virtual machine, where the guest is its first process.
    pub machine: Option<Machine>,
    /// How much the files of the workspace take.
    pub tree: Tree,
    /// How much the files of its other volumes take.
    pub volumes: Tree,
    /// Told when the guest is to end.
    pub shutdown: Notify,
    /// Tells the channels to finish what they have begun; each keeps a receiver until it has.
    pub closing: watch::Sender<()>,
}

impl Guest {
    /// The guest's greeting, which says who it is.
    pub fn hello(&self) -> Hello {
        Hello {
            generation: GENERATION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id.read().clone(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            is_configured: self.configuration.is_complete(),
        }
    }

    /// Adapts the guest to a restore of its machine. Repeatable.
    ///
    /// # Errors
    /// The failed step; the machine must not be used then.
    pub async fn restored(&self, restored: Restored) -> Result<(), GuestError> {
        let Some(machine) = &self.machine else {
            let message = "only a guest that is PID 1 of a virtual machine can be restored";
            return Err(GuestError::new(ErrorCode::Unsupported, message));
        };
        if let Some(boot_id) = machine.adapt(restored).await? {
            *self.boot_id.write() = boot_id;
        }
        Ok(())
    }

    /// The path as the file system takes it: relative ones start in the workspace.
    pub fn resolve(&self, path: &GuestPath) -> PathBuf {
        // `components` drops doubled slashes and `.`; `..` stays, as it depends on links.
        self.settings.workspace.join(path.as_path()).components().collect()
    }

    /// The directory named by an optional path; the workspace by default.
    pub fn resolve_or_workspace(&self, path: Option<&GuestPath>) -> PathBuf {
        path.map_or_else(|| self.settings.workspace.clone(), |path| self.resolve(path))
    }

    /// The account that a call acts as.
    ///
    /// # Errors
    /// `permission_denied` when the call asks for root and the workspace does not allow it.
    pub fn account(&self, user: RunAs) -> Result<&Account, GuestError> {
        self.permit(user)?;
        Ok(self.accounts.get(user))
    }

    /// Whether a call may act as `user`.
    ///
    /// # Errors
    /// `permission_denied` when it may not.
    pub fn permit(&self, user: RunAs) -> Result<(), GuestError> {
        if user == RunAs::Root && !self.configuration.allows_root() {
            let message =
                "this workspace does not allow root; call without `user`, or create a workspace with allow_root";
            return Err(GuestError::new(ErrorCode::PermissionDenied, message).with_field("user"));
        }
        Ok(())
    }

    /// Runs a job on the file system with the agent's rights.
    ///
    /// # Errors
    /// Those of the job.
    pub async fn as_agent<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, GuestError> + Send + 'static,
    ) -> Result<T, GuestError> {
        credentials::with(&self.accounts.agent, job).await
    }

    /// Changes files with the rights of an account, while no other call changes them. `find` tells their locks, and
    /// what
    /// `change` needs.
    ///
    /// # Errors
    /// Those of either.
    pub async fn change<F: Send + 'static, T: Send + 'static>(
        &self,
        account: &Account,
        find: impl FnOnce() -> Result<(Vec<LockKey>, F), GuestError> + Send + 'static,
        change: impl FnOnce(F) -> Result<T, GuestError> + Send + 'static,
    ) -> Result<T, GuestError> {
        let locks = Arc::clone(&self.file_locks);
        let at_once = credentials::with(account, move || {
            let (keys, found) = find()?;
            match locks.try_lock(&keys) {
                Some(_guard) => change(found).map(Ok),
                None => Ok(Err((keys, found, change))),
            }
        });
        match at_once.await? {
            Ok(changed) => Ok(changed),
            // Waits without a thread.
            Err((keys, found, change)) => {
                let guard = self.file_locks.lock(&keys).await;
                credentials::with(account, move || {
                    let _guard = guard;
                    change(found)
                })
                .await
            }
        }
    }

    /// The workspace's directory.
    pub fn workspace(&self) -> &Path {
        &self.settings.workspace
    }
}
