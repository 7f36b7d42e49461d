//! A monitor's process: found again by whoever has the machine's directory, never taken for another one.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// How long a killed process may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A process that is alive, held so that its number cannot become another's.
#[derive(Debug)]
pub(crate) struct Process {
    handle: OwnedFd,
}

impl Process {
    /// The process whose number is in `pid_file`, if it lives and was started for the machine in `dir`, which its
    /// command line says.
    pub(crate) fn find(pid_file: &Path, dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(pid_file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Read after the handle is held. A process that has ended and was not waited for has an empty command line.
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let ours = memchr::memmem::find(&line, dir.as_os_str().as_bytes()).is_some();
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
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_number_that_is_another_process_s_now_is_not_taken_for_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        assert!(Process::find(&pid_file, dir.path()).unwrap().is_none());
        fs::write(&pid_file, std::process::id().to_string()).unwrap();
        assert!(Process::find(&pid_file, dir.path()).unwrap().is_none());

        // It ends with the test, however that ends.
        let mut cat = Command::new("cat");
        let mut child = cat.arg("-").arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Before it runs, its command line is not there to be read.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        fs::write(&pid_file, child.id().to_string()).unwrap();
        let process = Process::find(&pid_file, dir.path()).unwrap().expect("its command line names the directory");
        process.end().unwrap();
        child.wait().unwrap();
        assert!(Process::find(&pid_file, dir.path()).unwrap().is_none());
        process.end().unwrap();
    }
}
