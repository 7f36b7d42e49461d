//! Access to the file system with another user's rights, on one thread.
//!
//! Linux keeps credentials per thread. A blocking job that works on the agent's files gives its thread the agent's
//! *effective* ids first: the kernel then checks every path as it would for the agent, and the real and saved ids stay
//! root's, so that no process of the agent may signal or trace the thread.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicBool, Ordering},
};

use emergent_guest_proto::{ErrorCode, GuestError};
use rustix::{
    fs::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::account::Account;

/// The limit of simultaneous walks of trees. Each walk keeps a thread for as long as it takes: with more of them, the
/// start of a command would wait for searches.
static WALKS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(6)));

/// The caller of a job, who may have gone.
#[derive(Debug, Clone, Default)]
pub struct Caller(Arc<AtomicBool>);

/// While this lives, the thread acts as another user; it is dropped also when the job panics.
struct Assumed {
    has_groups: bool,
}

/// Runs `job` on a blocking thread with the rights of `account`.
///
/// # Errors
/// The job's error, or `internal` when it panicked.
pub async fn with<T: Send + 'static>(
    account: &Account,
    job: impl FnOnce() -> Result<T, GuestError> + Send + 'static,
) -> Result<T, GuestError> {
    let (uid, gid) = (account.uid, account.gid);
    let groups: Vec<_> = account.groups.iter().copied().map(Gid::from_raw).collect();
    let job = move || {
        let _assumed = Assumed::new(uid, gid, &groups)?;
        job()
    };
    blocking(job).await
}

/// Waits for the right to walk a tree; the caller keeps it until the walk is done.
///
/// # Errors
/// Never in practice.
pub async fn walk_permit() -> Result<OwnedSemaphorePermit, GuestError> {
    let permit = Arc::clone(&WALKS).acquire_owned().await;
    permit.map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))
}

/// Runs a job that walks a tree, with the rights of `account`, when few enough others walk. The job is told when its
/// caller has gone, and has to end then.
///
/// # Errors
/// The job's error, or `internal` when it panicked.
pub async fn walking<T: Send + 'static>(
    account: &Account,
    job: impl FnOnce(&Caller) -> Result<T, GuestError> + Send + 'static,
) -> Result<T, GuestError> {
    let permit = walk_permit().await?;
    let caller = Caller::default();
    let _leaves = Leaves(caller.clone());
    let job = move || {
        let _permit = permit;
        job(&caller)
    };
    with(account, job).await
}

/// Runs `job` on a blocking thread as root.
///
/// # Errors
/// The job's error, or `internal` when it panicked.
pub async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, GuestError> + Send + 'static,
) -> Result<T, GuestError> {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => Err(GuestError::new(ErrorCode::Internal, format!("a job of the guest failed: {error}"))),
    }
}

/// Tells a job that its caller has gone, when the call drops it.
struct Leaves(Caller);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

// === impl Caller ===

impl Caller {
    /// Whether the caller has gone.
    pub fn is_gone(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Assumed ===

impl Assumed {
    fn new(uid: u32, gid: u32, groups: &[Gid]) -> Result<Self, GuestError> {
        let refused = |error| GuestError::new(ErrorCode::Internal, format!("cannot act as user {uid}: {error}"));
        let assumed = Self { has_groups: !groups.is_empty() };
        // The guest itself has none, and neither have most users.
        if assumed.has_groups {
            set_thread_groups(groups).map_err(refused)?;
        }
        set_thread_res_gid(None, Gid::from_raw(gid), None).map_err(refused)?;
        set_thread_res_uid(None, Uid::from_raw(uid), None).map_err(refused)?;
        Ok(assumed)
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        let user = set_thread_res_uid(None, Uid::ROOT, None);
        let group = set_thread_res_gid(None, Gid::ROOT, None);
        let groups = if self.has_groups { set_thread_groups(&[]) } else { Ok(()) };
        if user.is_err() || group.is_err() || groups.is_err() {
            // A thread that stays the agent's would make later calls fail, and one that stays root's would let the
            // agent read everything: neither may go back to the pool.
            std::process::abort();
        }
    }
}
