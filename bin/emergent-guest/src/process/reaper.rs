//! The reaper of every process that ends: the guest's own children and, as PID 1, all orphans.

#![expect(unsafe_code, reason = "waitid(2) is the only call that tells which child ended without reaping it")]

use std::{collections::HashMap, io, sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use tokio::sync::oneshot;

use super::{
    signal,
    spawn::{Plan, SpawnError, spawn},
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The process called `exit` with this code.
    Code(i32),
    /// This signal ended the process.
    Signal(i32),
}

/// Makes processes and reports their ends.
#[derive(Debug)]
pub struct Reaper {
    /// Shared by callers that spawn, exclusive to the reaping thread: a child that ends before it is registered, or
    /// that its spawner waits for itself, is not reaped here.
    gate: RwLock<()>,
    waiting: Mutex<HashMap<i32, oneshot::Sender<Exit>>>,
    /// Notified when there is a child to wait for.
    born: Condvar,
}

/// The time for which an orphan may stay unreaped when the guest has no child of its own; nothing reports orphans then.
const ORPHAN_POLL: Duration = Duration::from_millis(500);

impl Reaper {
    /// Starts the thread that reaps.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start() -> io::Result<Arc<Self>> {
        let reaper = Arc::new(Self { gate: RwLock::default(), waiting: Mutex::default(), born: Condvar::new() });
        let reaping = Arc::clone(&reaper);
        thread::Builder::new().name("reaper".into()).spawn(move || reaping.run())?;
        Ok(reaper)
    }

    /// Makes a process. Blocks until it runs its program.
    ///
    /// # Errors
    /// [`SpawnError`] names the failed step; no process is left then.
    pub fn spawn(&self, plan: &Plan<'_>) -> Result<(i32, oneshot::Receiver<Exit>), SpawnError> {
        let _gate = self.gate.read();
        let pid = spawn(plan)?;
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(pid, sender);
        self.born.notify_one();
        Ok((pid, receiver))
    }

    /// Sends a signal to the process group that a child leads; `false` when the child has ended.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn signal_group(&self, pid: i32, number: i32) -> io::Result<bool> {
        // Under this lock the child is not reaped, so its id cannot have passed to another process.
        let waiting = self.waiting();
        if !waiting.contains_key(&pid) {
            return Ok(false);
        }
        signal::send(-pid, number).map(|()| true)
    }

    fn run(&self) {
        loop {
            match wait_for_any() {
                Ok(pid) => self.reap(pid),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    let mut waiting = self.waiting();
                    if waiting.is_empty() {
                        self.born.wait_for(&mut waiting, ORPHAN_POLL);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "waiting for processes failed");
                    thread::sleep(ORPHAN_POLL);
                }
            }
        }
    }

    fn reap(&self, pid: i32) {
        let _gate = self.gate.write();
        let mut waiting = self.waiting();
        let mut status = 0;
        // SAFETY: writes one integer.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } != pid {
            return; // Its spawner has waited for it: the program could not be run.
        }
        let exit = if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        };
        if let Some(sender) = waiting.remove(&pid) {
            // Nobody may be interested any more.
            let _ = sender.send(exit);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Exit>>> {
        self.waiting.lock()
    }
}

/// Blocks until some child has ended, and leaves it to be reaped.
fn wait_for_any() -> io::Result<i32> {
    // SAFETY: `info` is plain data that the kernel fills; `si_pid` is valid after a successful waitid.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        match libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT) {
            0 => Ok(info.si_pid()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
