//! Directories as tar streams.
//!
//! A directory's archive holds what is in it, by paths relative to it; a file's archive holds the file by its name. So
//! what was packed from one directory can be unpacked into another.

mod tree;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path},
    sync::LazyLock,
};

use bytes::{Buf as _, Bytes};
use emergent_guest_proto::{ErrorCode, GuestError, RunAs, files::PathQuery};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::{
    failure::{self, invalid},
    guest::Guest,
    http::message::{Reply, stream},
    rights,
    tools::open::{Opened, open},
};

/// An archive keeps a blocking thread for as long as its caller takes, so only so many are made at once.
static AT_ONCE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(8));

/// Bytes that are handed over at once, and how often that may be done ahead.
const CHUNK: usize = 256 * 1024;
const QUEUE: usize = 4;

/// Sends a file or directory as a tar.
///
/// # Errors
/// That of the file system for the path itself. A later one breaks the stream off.
pub async fn pack(guest: &Guest, wanted: PathQuery) -> Result<Reply, GuestError> {
    let path = guest.resolve(&wanted.path);
    let account = guest.account(wanted.user)?.clone();
    let permit = turn().await?;
    let checked = path.clone();
    rights::with(&account, move || open(&checked).map(drop)).await?;
    let (sender, mut chunks) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let failed = sender.clone();
        let packed = rights::with(&account, move || {
            pack_into(&path, ChunkWriter::new(sender)).map_err(|error| failure::at(&path, "pack", &error))
        });
        if let Err(error) = packed.await {
            // The caller may be gone; that is the usual reason.
            let _ = failed.send(Err(io::Error::other(error))).await;
        }
        drop(permit);
    });
    Ok(stream(futures::stream::poll_fn(move |context| chunks.poll_recv(context)).boxed()))
}

/// Unpacks a tar below a directory, which is made if need be.
///
/// # Errors
/// `invalid_request` for what is no tar or names a path outside the directory, or that of the file system. What was
/// unpacked before stays.
pub async fn unpack(guest: &Guest, wanted: PathQuery, mut body: Incoming) -> Result<(), GuestError> {
    let path = guest.resolve(&wanted.path);
    let account = guest.account(wanted.user)?.clone();
    let _permit = turn().await?;
    let (sender, chunks) = mpsc::channel(QUEUE);
    let user = wanted.user;
    let unpacking = rights::with(&account, move || unpack_from(&path, ChunkReader::new(chunks), user));
    let feeding = async move {
        while let Some(frame) = body.frame().await {
            let data = match frame {
                Ok(frame) => frame.into_data().map_err(|_| ()),
                Err(error) => {
                    let _ = sender.send(Err(io::Error::other(error))).await;
                    return;
                }
            };
            if let Ok(data) = data
                && sender.send(Ok(data)).await.is_err()
            {
                return; // Unpacking has failed, and says why.
            }
        }
    };
    let (unpacked, ()) = tokio::join!(unpacking, feeding);
    unpacked
}

async fn turn() -> Result<SemaphorePermit<'static>, GuestError> {
    AT_ONCE.acquire().await.map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))
}

fn pack_into(path: &Path, writer: ChunkWriter) -> io::Result<()> {
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    match open(path).map_err(io::Error::other)? {
        Opened::Directory => {
            let flags = libc::O_DIRECTORY | libc::O_NONBLOCK;
            let directory = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
            tree::pack(&mut builder, directory.into())?;
        }
        Opened::File(mut file, _) => {
            let name = path.file_name().unwrap_or_default();
            builder.append_file(name, &mut file)?;
        }
    }
    builder.into_inner()?.finish()
}

fn unpack_from(path: &Path, reader: ChunkReader, user: RunAs) -> Result<(), GuestError> {
    let failed = |error: io::Error| failure::at(path, "unpack into", &error);
    fs::create_dir_all(path).map_err(failed)?;
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(user == RunAs::Root);
    let malformed = |error: io::Error| match error.raw_os_error() {
        Some(_) => failed(error),
        None => invalid("body", format!("the archive cannot be read: {error}")),
    };
    for entry in archive.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        let name = entry.path().map_err(malformed)?.into_owned();
        if name
            .components()
            .any(|part| matches!(part, Component::ParentDir | Component::RootDir | Component::Prefix(_)))
        {
            return Err(invalid("body", format!("the archive names {}, outside the directory", name.display())));
        }
        // Refuses to write through links that lead outside, and hard links to what is there.
        entry.unpack_in(path).map_err(|error| explain(path, &name, error))?;
    }
    Ok(())
}

/// The `tar` crate wraps the kernel's error in its own.
fn explain(path: &Path, name: &Path, error: io::Error) -> GuestError {
    let target = path.join(name);
    let sources =
        std::iter::successors(error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)), |error| {
            error.source()
        });
    let kernel = sources.filter_map(|source| source.downcast_ref::<io::Error>()).find_map(io::Error::raw_os_error);
    match kernel.or(error.raw_os_error()) {
        Some(code) => failure::at(&target, "unpack", &io::Error::from_raw_os_error(code)),
        None => invalid("body", format!("cannot unpack {}: {error}", target.display())),
    }
}

/// Hands bytes from a blocking thread to a stream.
struct ChunkWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

/// Hands bytes from a stream to a blocking thread.
struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

// === impl ChunkWriter ===

impl ChunkWriter {
    fn new(sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { sender, buffer: Vec::with_capacity(CHUNK) }
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

// === impl ChunkReader ===

impl ChunkReader {
    fn new(chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { chunks, current: Bytes::new() }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
