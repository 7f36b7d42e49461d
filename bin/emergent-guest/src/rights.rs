//! Seeing the file system as another user does, on one thread.
//!
//! Linux keeps credentials per thread. A blocking job that works on the agent's files gives its thread the agent's
//! *effective* ids first: the kernel then checks every path as it would for the agent, and the real and saved ids stay
//! root's, so that no process of the agent may signal or trace the thread.

use emergent_guest_proto::{ErrorCode, GuestError};
use rustix::{
    fs::{Gid, Uid},
    thread::{set_thread_res_gid, set_thread_res_uid},
};

use crate::account::Account;

/// While it lives, the thread acts as another user; dropped also when the job panics.
struct Assumed;

/// Runs `job` on a blocking thread with the rights of `account`.
///
/// # Errors
/// What the job returns, or `internal` when it panicked.
pub async fn with<T: Send + 'static>(
    account: &Account,
    job: impl FnOnce() -> Result<T, GuestError> + Send + 'static,
) -> Result<T, GuestError> {
    let (uid, gid) = (account.uid, account.gid);
    let job = move || {
        let _assumed = Assumed::new(uid, gid)?;
        job()
    };
    blocking(job).await
}

/// Runs `job` on a blocking thread as root.
///
/// # Errors
/// What the job returns, or `internal` when it panicked.
pub async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, GuestError> + Send + 'static,
) -> Result<T, GuestError> {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => Err(GuestError::new(ErrorCode::Internal, format!("a job of the guest failed: {error}"))),
    }
}

// === impl Assumed ===

impl Assumed {
    fn new(uid: u32, gid: u32) -> Result<Self, GuestError> {
        let refused = |error| GuestError::new(ErrorCode::Internal, format!("cannot act as user {uid}: {error}"));
        set_thread_res_gid(None, Gid::from_raw(gid), None).map_err(refused)?;
        let assumed = Self;
        set_thread_res_uid(None, Uid::from_raw(uid), None).map_err(refused)?;
        Ok(assumed)
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        let user = set_thread_res_uid(None, Uid::ROOT, None);
        let group = set_thread_res_gid(None, Gid::ROOT, None);
        if user.is_err() || group.is_err() {
            // A thread that stays the agent's would make later calls fail, and one that stays root's would let the
            // agent read everything: neither may go back to the pool.
            std::process::abort();
        }
    }
}
