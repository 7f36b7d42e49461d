//! Directories as tar streams.
//!
//! A directory's archive holds its contents, by paths relative to it; a file's archive holds the file by its name. So
//! the archive of one directory can be unpacked into another.

mod tree;

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path},
    sync::LazyLock,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use emergent_guest_proto::{ErrorCode, GuestError, RunAs, files::PathQuery};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::timeout,
};

use super::open::{Opened, open};
use crate::{
    credentials,
    failure::{self, invalid},
    guest::Guest,
    message::{Reply, stream},
};

/// The limit of simultaneous archives: each keeps a blocking thread for as long as its caller takes.
static AT_ONCE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(6));

/// The size of a chunk in bytes, and the number of chunks that may wait.
const CHUNK: usize = 256 * 1024;
const QUEUE: usize = 4;

/// The time for which a caller may neither take bytes of an archive nor send any.
const STALL: Duration = Duration::from_secs(120);

/// The largest file that is packed as of one moment, with its length at that moment.
const SMALL: u64 = 1 << 20;

/// Sends a file or directory as a tar.
///
/// # Errors
/// The file system's error for the path itself. A later error breaks the stream off.
pub async fn pack(guest: &Guest, wanted: PathQuery) -> Result<Reply, GuestError> {
    let path = guest.resolve(&wanted.path);
    let account = guest.account(wanted.user)?.clone();
    let permit = turn().await?;
    let checked = path.clone();
    credentials::with(&account, move || open(&checked).map(drop)).await?;
    let (sender, mut chunks) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let failed = sender.clone();
        let packed = credentials::with(&account, move || {
            pack_into(&path, ChunkWriter::new(sender, STALL)).map_err(|error| failure::at(&path, "pack", &error))
        });
        if let Err(error) = packed.await {
            // The caller may be gone; that is the usual reason.
            let _ = failed.send(Err(io::Error::other(error))).await;
        }
        drop(permit);
    });
    Ok(stream(futures::stream::poll_fn(move |context| chunks.poll_recv(context)).boxed()))
}

/// Unpacks a tar below a directory, which is made if it is missing.
///
/// # Errors
/// `invalid_request` for a body that is no tar or names a path outside the directory, or the file system's error. Files
/// that were unpacked before stay.
pub async fn unpack(guest: &Guest, wanted: PathQuery, mut body: Incoming) -> Result<(), GuestError> {
    let path = guest.resolve(&wanted.path);
    let account = guest.account(wanted.user)?.clone();
    let _permit = turn().await?;
    let (sender, chunks) = mpsc::channel(QUEUE);
    let user = wanted.user;
    let unpacking = credentials::with(&account, move || unpack_from(&path, ChunkReader::new(chunks, STALL), user));
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
            pack_file(&mut builder, Path::new(path.file_name().unwrap_or_default()), &mut file)?;
        }
    }
    builder.into_inner()?.finish()
}

/// Adds a file, which others may write to meanwhile: exactly as many bytes follow its header as the header says.
fn pack_file<W: Write>(builder: &mut tar::Builder<W>, name: &Path, file: &mut File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    if metadata.len() > SMALL {
        let mut contents = Exactly { file, left: metadata.len() };
        return builder.append_data(&mut header, name, &mut contents);
    }
    let mut contents = Vec::new();
    file.take(SMALL).read_to_end(&mut contents)?;
    header.set_size(contents.len() as u64);
    builder.append_data(&mut header, name, &*contents)
}

/// Reads exactly the promised number of bytes of a file. A file that has become shorter breaks the archive off, as its
/// header cannot be corrected any more.
struct Exactly<'a> {
    file: &'a mut File,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::other("a file has become shorter while it was packed"));
        }
        self.left -= count as u64;
        Ok(count)
    }
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

/// Makes the error of a file that was not unpacked; the `tar` crate wraps the kernel's error in its own.
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
    stall: Duration,
}

/// Hands bytes from a stream to a blocking thread.
struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    stall: Duration,
}

// === impl ChunkWriter ===

impl ChunkWriter {
    fn new(sender: mpsc::Sender<io::Result<Bytes>>, stall: Duration) -> Self {
        Self { sender, buffer: Vec::with_capacity(CHUNK), stall }
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
        let sent = timeout(self.stall, self.sender.send(Ok(chunk.into())));
        match Handle::current().block_on(sent) {
            Ok(sent) => sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(stalled("takes nothing")),
        }
    }
}

// === impl ChunkReader ===

impl ChunkReader {
    fn new(chunks: mpsc::Receiver<io::Result<Bytes>>, stall: Duration) -> Self {
        Self { chunks, current: Bytes::new(), stall }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match Handle::current().block_on(async { timeout(self.stall, self.chunks.recv()).await }) {
                Ok(Some(chunk)) => self.current = chunk?,
                Ok(None) => return Ok(0),
                Err(_) => return Err(stalled("sends nothing")),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

fn stalled(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the caller {how} for too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_that_stalls_is_cut() {
        const SHORT: Duration = Duration::from_millis(20);
        let (sender, _chunks) = mpsc::channel(1);
        let mut writer = ChunkWriter::new(sender, SHORT);
        let written = tokio::task::spawn_blocking(move || writer.write_all(&vec![0; CHUNK * 3]));
        assert_eq!(written.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (_sender, chunks) = mpsc::channel(1);
        let mut reader = ChunkReader::new(chunks, SHORT);
        let read = tokio::task::spawn_blocking(move || reader.read(&mut [0]));
        assert_eq!(read.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn an_archive_is_whole_whatever_is_written_meanwhile() {
        for size in [10, SMALL, SMALL + 1, 3 * SMALL] {
            let folder = tempfile::tempdir().unwrap();
            for name in ["a", "b"] {
                File::create(folder.path().join(name)).unwrap().set_len(size).unwrap();
            }
            let (sender, mut chunks) = mpsc::channel(1);
            let root = folder.path().to_owned();
            let packing = tokio::task::spawn_blocking(move || pack_into(&root, ChunkWriter::new(sender, STALL)));
            let mut archive = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                archive.extend_from_slice(&chunk.unwrap());
                // Faster than anybody reads.
                for name in ["a", "b"] {
                    let file = File::options().write(true).open(folder.path().join(name)).unwrap();
                    file.set_len(file.metadata().unwrap().len() + 2 * SMALL).unwrap();
                }
            }
            packing.await.unwrap().unwrap();
            let mut archive = tar::Archive::new(&archive[..]);
            let mut count = 0;
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let promised = entry.size();
                assert_eq!(io::copy(&mut entry, &mut io::sink()).unwrap(), promised);
                count += 1;
            }
            assert_eq!(count, 2, "of {size} bytes each");
        }
    }
}
