//! A launcher whose children outlive the bridge, as those in a container do.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_mcp::{
    Child, ChildError, ChildId, ChildNote, ChildReader, ChildWriter, Exit, LaunchError, Launcher, ProcessLauncher,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, watch},
    task::yield_now,
};

/// A launcher that keeps the children that it launched; clones are the same keeper.
#[derive(Clone)]
pub(crate) struct Keeper {
    inner: ProcessLauncher,
    /// How much output is kept of each child before it is held up.
    room: usize,
    unwritable: bool,
    /// A note is set in steps: whoever polls decides which of two is ahead.
    in_steps: bool,
    /// The number of lines of the output of each child that its reader gets.
    lines: watch::Sender<usize>,
    kept: Arc<Mutex<Vec<Arc<Kept>>>>,
}

struct Kept {
    child: Box<dyn Child>,
    output: Mutex<Output>,
    more: Notify,
    /// Notified when there is room again.
    room: Notify,
    in_steps: bool,
    lines: watch::Receiver<usize>,
    unwritable: bool,
    writer: Arc<AsyncMutex<Box<dyn ChildWriter>>>,
}

#[derive(Default)]
struct Output {
    /// The output that was not acknowledged.
    bytes: VecDeque<u8>,
    acknowledged_lines: usize,
    closed: bool,
}

struct Handle {
    kept: Arc<Kept>,
    taken: bool,
}

struct Reader {
    kept: Arc<Kept>,
    /// The number of bytes that were read, but not acknowledged.
    ahead: usize,
}

struct Writer {
    writer: Arc<AsyncMutex<Box<dyn ChildWriter>>>,
    broken: bool,
}

// === impl Keeper ===

impl Keeper {
    pub(crate) fn new(inner: ProcessLauncher) -> Self {
        Self::with_room(inner, usize::MAX)
    }

    /// Keeps so many bytes of the output of each child that were not acknowledged.
    pub(crate) fn with_room(inner: ProcessLauncher, room: usize) -> Self {
        let (lines, kept) = (watch::Sender::new(usize::MAX), Arc::default());
        Self { inner, room, unwritable: false, in_steps: false, lines, kept }
    }

    /// A keeper that sets a note in steps: nothing of it, then the note, then an answer.
    pub(crate) fn in_steps(inner: ProcessLauncher) -> Self {
        Self { in_steps: true, ..Self::new(inner) }
    }

    /// Lets so many lines of the output of each child through, and holds the others up.
    pub(crate) fn let_through(&self, lines: usize) {
        self.lines.send_replace(lines);
    }

    /// Returns how many lines of the children's output were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.lock().iter().map(|kept| kept.lock().acknowledged_lines).sum()
    }

    /// A keeper whose children run and take no input.
    pub(crate) fn unwritable(inner: ProcessLauncher) -> Self {
        Self { unwritable: true, ..Self::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Kept>>> {
        self.kept.lock()
    }
}

#[async_trait]
impl Launcher for Keeper {
    async fn launch(&self, note: ChildNote) -> Result<Box<dyn Child>, LaunchError> {
        let mut child = self.inner.launch(note).await?;
        let (mut reader, writer) = child.take_io().expect("a fresh child");
        let writer = Arc::new(AsyncMutex::new(writer));
        let kept = Arc::new(Kept {
            child,
            output: Mutex::default(),
            more: Notify::new(),
            room: Notify::new(),
            in_steps: self.in_steps,
            lines: self.lines.subscribe(),
            unwritable: self.unwritable,
            writer,
        });
        let (reading, room) = (Arc::clone(&kept), self.room);
        tokio::spawn(async move {
            loop {
                while reading.lock().bytes.len() >= room {
                    reading.room.notified().await;
                }
                let Ok(Some(chunk)) = reader.read().await else { break };
                reading.lock().bytes.extend(chunk);
                reading.more.notify_waiters();
            }
            reading.lock().closed = true;
            reading.more.notify_waiters();
        });
        self.lock().push(Arc::clone(&kept));
        Ok(Box::new(Handle { kept, taken: false }))
    }

    async fn adopt(&self) -> Result<Vec<Box<dyn Child>>, LaunchError> {
        let mut kept = self.lock();
        kept.retain(|kept| !kept.lock().closed);
        Ok(kept.iter().map(|kept| Box::new(Handle { kept: Arc::clone(kept), taken: false }) as _).collect())
    }
}

// === impl Kept ===

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock()
    }
}

// === impl Output ===

impl Output {
    /// Returns how many of the bytes are in the first lines of all output.
    fn within(&self, lines: usize) -> usize {
        let Some(lines) = lines.checked_sub(self.acknowledged_lines) else { return 0 };
        let mut ends = self.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        match lines {
            0 => 0,
            _ => ends.nth(lines - 1).unwrap_or(self.bytes.len()),
        }
    }
}

// === impl Handle ===

#[async_trait]
impl Child for Handle {
    fn id(&self) -> &ChildId {
        self.kept.child.id()
    }

    fn note(&self) -> ChildNote {
        self.kept.child.note()
    }

    async fn set_note(&self, note: ChildNote) -> Result<(), ChildError> {
        if !self.kept.in_steps {
            return self.kept.child.set_note(note).await;
        }
        yield_now().await;
        let set = self.kept.child.set_note(note).await;
        yield_now().await;
        set
    }

    fn take_io(&mut self) -> Option<(Box<dyn ChildReader>, Box<dyn ChildWriter>)> {
        if std::mem::replace(&mut self.taken, true) {
            return None;
        }
        let reader = Reader { kept: Arc::clone(&self.kept), ahead: 0 };
        let writer = Writer { writer: Arc::clone(&self.kept.writer), broken: self.kept.unwritable };
        Some((Box::new(reader), Box::new(writer)))
    }

    async fn exited(&self) -> Exit {
        self.kept.child.exited().await
    }

    async fn end(&self, grace: Duration) -> Exit {
        self.kept.child.end(grace).await
    }
}

#[async_trait]
impl ChildReader for Reader {
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let kept = Arc::clone(&self.kept);
        let mut lines = kept.lines.clone();
        loop {
            let more = kept.more.notified();
            let let_through = *lines.borrow_and_update();
            {
                let output = kept.lock();
                let end = output.within(let_through);
                if end > self.ahead {
                    let chunk: Bytes = output.bytes.range(self.ahead..end).copied().collect();
                    self.ahead += chunk.len();
                    return Ok(Some(chunk));
                }
                if output.closed && end == output.bytes.len() {
                    return Ok(None);
                }
            }
            tokio::select! {
                () = more => {}
                Ok(()) = lines.changed() => {}
            }
        }
    }

    fn acknowledge(&mut self, bytes: usize) {
        let mut output = self.kept.lock();
        let lines = output.bytes.drain(..bytes).filter(|byte| *byte == b'\n').count();
        output.acknowledged_lines += lines;
        drop(output);
        self.ahead -= bytes;
        self.kept.room.notify_one();
    }
}

#[async_trait]
impl ChildWriter for Writer {
    async fn write(&mut self, line: Bytes) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let writer = Arc::clone(&self.writer);
        // Whole or not at all, even if the bridge goes away meanwhile.
        tokio::spawn(async move { writer.lock().await.write(line).await }).await.map_err(io::Error::other)?
    }

    async fn close(&mut self) {
        self.writer.lock().await.close().await;
    }
}
