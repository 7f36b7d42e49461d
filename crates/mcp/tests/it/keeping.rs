//! A launcher whose children outlive the bridge, as those in a container do.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_mcp::{
    Child, ChildError, ChildId, ChildNote, ChildReader, ChildWriter, Exit, LaunchError, Launcher, ProcessLauncher,
};
use tokio::sync::{Mutex as AsyncMutex, Notify};

/// Keeps what it launched; clones are the same keeper.
#[derive(Clone)]
pub(crate) struct Keeper {
    inner: ProcessLauncher,
    kept: Arc<Mutex<Vec<Arc<Kept>>>>,
}

struct Kept {
    child: Box<dyn Child>,
    output: Mutex<Output>,
    more: Notify,
    writer: Arc<AsyncMutex<Box<dyn ChildWriter>>>,
}

#[derive(Default)]
struct Output {
    /// What was not acknowledged.
    bytes: VecDeque<u8>,
    closed: bool,
}

struct Handle {
    kept: Arc<Kept>,
    taken: bool,
}

struct Reader {
    kept: Arc<Kept>,
    /// Read, but not acknowledged.
    ahead: usize,
}

struct Writer(Arc<AsyncMutex<Box<dyn ChildWriter>>>);

// === impl Keeper ===

impl Keeper {
    pub(crate) fn new(inner: ProcessLauncher) -> Self {
        Self { inner, kept: Arc::default() }
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
        let kept = Arc::new(Kept { child, output: Mutex::default(), more: Notify::new(), writer });
        let reading = Arc::clone(&kept);
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = reader.read().await {
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
        self.kept.child.set_note(note).await
    }

    fn take_io(&mut self) -> Option<(Box<dyn ChildReader>, Box<dyn ChildWriter>)> {
        if std::mem::replace(&mut self.taken, true) {
            return None;
        }
        let reader = Reader { kept: Arc::clone(&self.kept), ahead: 0 };
        Some((Box::new(reader), Box::new(Writer(Arc::clone(&self.kept.writer)))))
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
                    let chunk: Bytes = output.bytes.iter().skip(self.ahead).copied().collect();
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
    }
}

#[async_trait]
impl ChildWriter for Writer {
    async fn write(&mut self, line: Bytes) -> io::Result<()> {
        let writer = Arc::clone(&self.0);
        // Whole or not at all, even if the bridge goes away meanwhile.
        tokio::spawn(async move { writer.lock().await.write(line).await }).await.map_err(io::Error::other)?
    }

    async fn close(&mut self) {
        self.0.lock().await.close().await;
    }
}
