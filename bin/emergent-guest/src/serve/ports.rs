//! Channels on the ports of a virtio-serial bus, which can be saved and restored with the machine.
//!
//! ```text
//!   closed by the host ──► waiting ──► agreeing ──► serving
//!          ▲                               │            │
//!          └────────── the host has closed it ──────────┘
//! ```
//!
//! One task for each port opens it, serves one channel at a time, and opens it again.

#![expect(unsafe_code, reason = "the reactor takes files on the promise that they stay what they are")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use emergent_guest_proto::{
    machine::PORT_PREFIX,
    port::{Kind, MESSAGE, Scanner, message},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll},
    fd::OwnedFd,
    fs::OFlags,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf, unix::AsyncFd};

use crate::{guest::Guest, http};

/// The time for which a port that cannot be used is left alone.
const REST: Duration = Duration::from_secs(1);

/// The directory where the kernel lists the ports and their names.
const PORTS: &str = "/sys/class/virtio-ports";

/// Serves channels on every port that is named for them.
pub(super) fn serve_all(guest: &Arc<Guest>) {
    for device in devices() {
        tokio::spawn(serve(device, Arc::clone(guest)));
    }
}

fn devices() -> Vec<PathBuf> {
    // No directory: a kernel without such ports.
    let Ok(entries) = fs::read_dir(PORTS) else { return Vec::new() };
    let entries = entries.filter_map(Result::ok);
    let meant = entries
        .filter(|entry| fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.starts_with(PORT_PREFIX)));
    meant.map(|entry| Path::new("/dev").join(entry.file_name())).collect()
}

async fn serve(device: PathBuf, guest: Arc<Guest>) {
    loop {
        match begin(&device).await {
            Ok(stream) => http::serve(Arc::clone(&guest), stream).await,
            // The host went away again.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => {
                tracing::warn!(%error, device = %device.display(), "a port carries no channel");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Opens the port and waits until the host has begun a channel on it.
async fn begin(device: &Path) -> io::Result<Port> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(device)?;
    host_is_there(&file).await?;
    // SAFETY: the file stays open, and the same, for as long as it is registered: nobody else has it.
    let mut port = Port { file: unsafe { AsyncFd::register(file)? } };
    agree(&mut port).await?;
    Ok(port)
}

/// Waits until the host has opened its side.
///
/// Until then the port is "hung up", which a reactor would report without end. An epoll instance of its own with
/// edge-triggered events reports only changes, and so can be waited for.
async fn host_is_there(file: &File) -> io::Result<()> {
    let changes = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&changes, file, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
    // SAFETY: as above.
    let changes: AsyncFd<OwnedFd> = unsafe { AsyncFd::register_with_interest(changes, Interest::READABLE)? };
    loop {
        // Looked at after the changes are watched, and again after each: none is missed.
        let mut port = [PollFd::new(file, PollFlags::IN)];
        rustix::event::poll(&mut port, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if !port[0].revents().contains(PollFlags::HUP) {
            return Ok(());
        }
        let mut change = changes.readable().await?;
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        epoll::wait(changes.get_ref(), &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        change.clear_ready();
    }
}

/// Agrees with the host on where the channel begins.
async fn agree<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let (mut scanner, mut heard) = (Scanner::default(), None);
    let mut buffer = [0; MESSAGE];
    loop {
        let wanted = scanner.wanted();
        let read = stream.read(&mut buffer[..wanted]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match scanner.push(&buffer[..read]) {
            Some((Kind::Hello, nonce)) => {
                heard = Some(nonce);
                stream.write_all(&message(Kind::Ready, &nonce)).await?;
            }
            Some((Kind::Begin, nonce)) if heard == Some(nonce) => {
                return stream.write_all(&message(Kind::Begun, &nonce)).await;
            }
            _ => {}
        }
    }
}

/// A port whose host is connected, or was a moment ago.
struct Port {
    file: AsyncFd<File>,
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut readable = ready!(self.file.poll_read_ready(cx))?;
            let unfilled = buffer.initialize_unfilled();
            match readable.try_io(|file| file.get_ref().read(unfilled)) {
                Ok(read) => {
                    return Poll::Ready(read.map(|read| buffer.advance(read)));
                }
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut writable = ready!(self.file.poll_write_ready(cx))?;
            // A port that is hung up stays "ready" for good, and takes nothing: that is its end.
            if writable.ready().is_write_closed() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match writable.try_io(|file| file.get_ref().write(buffer)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_channel_begins_after_whatever_an_older_one_has_left() {
        let (mut host, mut guest) = tokio::io::duplex(1024);
        let agreeing = tokio::spawn(async move { agree(&mut guest).await.map(|()| guest) });
        host.write_all(b"the rest of an older channel").await.unwrap();
        for nonce in [[1; 16], [2; 16]] {
            host.write_all(&message(Kind::Hello, &nonce)).await.unwrap();
        }
        // What the first greeting would have begun is over.
        for nonce in [[1; 16], [2; 16]] {
            host.write_all(&message(Kind::Begin, &nonce)).await.unwrap();
        }
        host.write_all(b"PRI").await.unwrap();
        let mut guest = agreeing.await.unwrap().unwrap();
        let mut first = [0; 3];
        guest.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"PRI");
        let mut answers = [0; 3 * MESSAGE];
        host.read_exact(&mut answers).await.unwrap();
        assert_eq!(answers[2 * MESSAGE..], message(Kind::Begun, &[2; 16]));
    }
}
