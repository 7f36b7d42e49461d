//! A launcher whose children outlive the bridge, as those in a container do.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_mcp::{
    Child, ChildError, ChildId, ChildNote, ChildReader, ChildWriter, Exit, LaunchError, Launcher, ProcessLauncher,
};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, watch},
    time::timeout,
};

/// A launcher that keeps the children that it launched; clones are the same keeper.
#[derive(Clone)]
pub(crate) struct Keeper {
    inner: ProcessLauncher,
    /// How much output is kept of each child before it is held up.
    room: usize,
    overtaking: bool,
    unwritable: bool,
    kept: Arc<Mutex<Vec<Arc<Kept>>>>,
}

struct Kept {
    child: Box<dyn Child>,
    output: Mutex<Output>,
    more: Notify,
    /// Notified when there is room again.
    room: Notify,
    /// Counts notes that were set; every second one waits a while for the next to overtake it.
    noted: Option<watch::Sender<usize>>,
    begun: AtomicUsize,
    unwritable: bool,
    writer: Arc<AsyncMutex<Box<dyn ChildWriter>>>,
}

#[derive(Default)]
struct Output {
    /// The output that was not acknowledged.
    bytes: VecDeque<u8>,
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
        Self { inner, room, overtaking: false, unwritable: false, kept: Arc::default() }
    }

    /// Sets every second note of a child only when the next one was set, if that comes soon.
    pub(crate) fn overtaking(inner: ProcessLauncher) -> Self {
        Self { overtaking: true, ..Self::new(inner) }
    }

    /// A keeper whose children run and take no input.
    pub(crate) fn unwritable(inner: ProcessLauncher) -> Self {
        Self { unwritable: true, ..Self::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
            noted: self.overtaking.then(watch::Sender::default),
            begun: AtomicUsize::new(0),
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
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some(noted) = &self.kept.noted else { return self.kept.child.set_note(note).await };
        let mut others = noted.subscribe();
        if self.kept.begun.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            // Whether one comes or none, this one is set.
            let _ = timeout(Duration::from_millis(500), others.changed()).await;
        }
        let set = self.kept.child.set_note(note).await;
        noted.send_modify(|count| *count += 1);
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
        loop {
            let kept = Arc::clone(&self.kept);
            let more = kept.more.notified();
            {
                let output = self.kept.lock();
                if output.bytes.len() > self.ahead {
                    let chunk: Bytes = output.bytes.range(self.ahead..).copied().collect();
                    self.ahead += chunk.len();
                    return Ok(Some(chunk));
                }
                if output.closed {
                    return Ok(None);
                }
            }
            more.await;
        }
    }

    fn acknowledge(&mut self, bytes: usize) {
        self.kept.lock().bytes.drain(..bytes);
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
