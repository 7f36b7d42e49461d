//! The connections of a process to a Unix socket, broken from outside: neither side has a part in it.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::{
    net::{Shutdown, SocketAddrUnix, getpeername, shutdown},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

/// Breaks all connections that a process has made to the socket at `path`; returns their number. Both sides see an end
/// at once, with whatever was under way.
///
/// # Errors
/// When the process is gone, or may not be looked into.
pub fn cut(pid: u32, path: &Path) -> anyhow::Result<usize> {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    let process = pidfd_open(id, PidfdFlags::empty()).context("the process is gone")?;
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).context("the process is gone")?.flatten() {
        let is_socket = fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| is_socket) else {
            continue;
        };
        // A descriptor that the process has closed meanwhile is none any more.
        let Ok(socket) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        if leads_to(&socket).is_some_and(|peer| peer == path) {
            // The socket is the process's own: this descriptor is one more of it. The peer may have ended it already.
            count += usize::from(shutdown(&socket, Shutdown::Both).is_ok());
        }
    }
    Ok(count)
}

/// Returns the path of the socket that a connection was made to, where it has one.
fn leads_to(socket: &OwnedFd) -> Option<PathBuf> {
    let peer = SocketAddrUnix::try_from(getpeername(socket).ok()??).ok()?;
    Some(PathBuf::from(peer.path()?.to_str().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::unix::net::{UnixListener, UnixStream},
    };

    use super::*;

    #[test]
    fn connections_to_one_socket_end_and_others_stay() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (cut_off, other) = (folder.path().join("cut"), folder.path().join("other"));
        let (first, second) = (UnixListener::bind(&cut_off)?, UnixListener::bind(&other)?);
        let (mut ended, stays) = (UnixStream::connect(&cut_off)?, UnixStream::connect(&other)?);
        let _accepted = (first.accept()?, second.accept()?);
        assert_eq!(cut(std::process::id(), &cut_off)?, 1);
        assert_eq!(ended.read(&mut [0])?, 0);
        stays.set_nonblocking(true)?;
        let waiting = (&stays).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(waiting, Err(std::io::ErrorKind::WouldBlock));
        Ok(())
    }
}
