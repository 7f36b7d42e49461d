//! A monitor's process, found again by its machine's directory, and never mistaken for another one.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};

/// The time that a killed process may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// The time that a process that is ending may take until the system says how it ended.
const STATUS_PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A process that is alive, held so that its number cannot become another's.
#[derive(Debug)]
pub(crate) struct Process {
    handle: OwnedFd,
}

/// How a process of ours ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessEnd {
    /// By itself.
    Exited,
    /// By a signal.
    Killed,
}

impl ProcessEnd {
    /// Returns how the process ended whose number is in `pid_file` and which [`Process::find`] does not find; `None`
    /// when it is no child of this process. The answer stays the same until [`ProcessEnd::forget`].
    pub(crate) fn of(pid_file: &Path) -> Option<Self> {
        Self::wait(pid_file, WaitIdOptions::NOWAIT)
    }

    /// Lets the system forget a child that has ended.
    pub(crate) fn forget(pid_file: &Path) {
        Self::wait(pid_file, WaitIdOptions::empty());
    }

    fn wait(pid_file: &Path, how: WaitIdOptions) -> Option<Self> {
        let (_, handle) = open(pid_file).ok()??;
        let ask = || waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | how);
        let status = match ask().ok()? {
            Some(status) => status,
            // A child that is just ending: it has no command line any more, and no status yet.
            None => {
                rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&STATUS_PATIENCE)).ok()?;
                ask().ok()??
            }
        };
        Some(if status.exited() { Self::Exited } else { Self::Killed })
    }
}

/// Opens the process whose number is in a file, whichever process has the number now.
fn open(pid_file: &Path) -> io::Result<Option<(Pid, OwnedFd)>> {
    let text = match fs::read_to_string(pid_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Ok(Some((pid, handle))),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Process {
    /// Finds the process whose number is in `pid_file`, if it lives and was started for this machine: its command line
    /// contains `mark`.
    pub(crate) fn find(pid_file: &Path, mark: &[u8]) -> io::Result<Option<Self>> {
        let Some((pid, handle)) = open(pid_file)? else { return Ok(None) };
        // Read after the handle is held. A process that has ended and was not waited for has an empty command line.
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let ours = memchr::memmem::find(&line, mark).is_some();
        Ok(ours.then_some(Self { handle }))
    }

    /// Kills the process and waits until it is gone. Blocks.
    pub(crate) fn end(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, Signal::KILL) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let patience = Timespec { tv_sec: i64::try_from(END_PATIENCE.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
        let mut handle = [PollFd::new(&self.handle, PollFlags::IN)];
        match rustix::event::poll(&mut handle, Some(&patience))? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "the process was killed and is still there")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::ffi::OsStrExt as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_number_that_is_another_process_s_now_is_not_taken_for_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        assert!(Process::find(&pid_file, dir.path().as_os_str().as_bytes()).unwrap().is_none());
        fs::write(&pid_file, std::process::id().to_string()).unwrap();
        assert!(Process::find(&pid_file, dir.path().as_os_str().as_bytes()).unwrap().is_none());

        // It ends with the test, however that ends.
        let mut cat = Command::new("cat");
        let mut child = cat.arg("-").arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Before it runs, its command line is not there to be read.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        fs::write(&pid_file, child.id().to_string()).unwrap();
        let process = Process::find(&pid_file, dir.path().as_os_str().as_bytes())
            .unwrap()
            .expect("its command line names the directory");
        process.end().unwrap();
        child.wait().unwrap();
        assert!(Process::find(&pid_file, dir.path().as_os_str().as_bytes()).unwrap().is_none());
        process.end().unwrap();
    }

    #[expect(clippy::zombie_processes, reason = "that nobody has waited is what is tested; the last call does")]
    #[test]
    fn an_end_by_itself_is_told_from_one_by_a_signal_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        for (command, ending) in [("exit 3", ProcessEnd::Exited), ("kill -9 $$", ProcessEnd::Killed)] {
            let mut child = Command::new("sh").args(["-c", command]).stdout(Stdio::piped()).spawn().unwrap();
            fs::write(&pid_file, child.id().to_string()).unwrap();
            // It has ended, or is about to, when its output has.
            child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
            let (_, handle) = open(&pid_file).unwrap().unwrap();
            rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], None).unwrap();
            assert_eq!(
                (ProcessEnd::of(&pid_file), ProcessEnd::of(&pid_file)),
                (Some(ending), Some(ending)),
                "{command}"
            );
            ProcessEnd::forget(&pid_file);
            assert_eq!(ProcessEnd::of(&pid_file), None, "{command}");
        }
    }
}
