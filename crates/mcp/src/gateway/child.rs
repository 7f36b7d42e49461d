//! The gateway as a bridge sees it: lines in, lines out.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};

use super::{Catalogues, Upstreams, session::GatewaySession};
use crate::child::{Child, ChildError, ChildId, ChildNote, ChildReader, ChildWriter, Exit};

/// The number of lines that may wait for the bridge to read them; a writer of more waits.
const WAITING_LINES: usize = 64;

/// One gateway.
pub(super) struct GatewayChild {
    id: ChildId,
    note: Mutex<ChildNote>,
    io: Option<(Reader, Writer)>,
    gateway: Arc<GatewaySession>,
}

struct Reader {
    lines: mpsc::Receiver<Bytes>,
    gateway: Arc<GatewaySession>,
}

struct Writer(Arc<GatewaySession>);

// === impl GatewayChild ===

impl GatewayChild {
    pub(super) fn start(
        id: ChildId,
        note: ChildNote,
        upstreams: Arc<dyn Upstreams>,
        catalogues: Arc<Catalogues>,
    ) -> Self {
        let (out, lines) = mpsc::channel(WAITING_LINES);
        let gateway = GatewaySession::start(upstreams, catalogues, out);
        let io = Some((Reader { lines, gateway: Arc::clone(&gateway) }, Writer(Arc::clone(&gateway))));
        Self { id, note: Mutex::new(note), io, gateway }
    }
}

#[async_trait]
impl Child for GatewayChild {
    fn id(&self) -> &ChildId {
        &self.id
    }

    fn note(&self) -> ChildNote {
        self.note.lock().clone()
    }

    async fn set_note(&self, note: ChildNote) -> Result<(), ChildError> {
        *self.note.lock() = note;
        Ok(())
    }

    fn take_io(&mut self) -> Option<(Box<dyn ChildReader>, Box<dyn ChildWriter>)> {
        self.io.take().map(|(reader, writer)| (Box::new(reader) as _, Box::new(writer) as _))
    }

    async fn exited(&self) -> Exit {
        self.gateway.stopped().await;
        Exit { code: Some(0), ..Exit::default() }
    }

    async fn end(&self, grace: Duration) -> Exit {
        // Sessions that are not ended now end by themselves, when nobody has used them for a while.
        let _ = timeout(grace, self.gateway.end()).await;
        self.exited().await
    }
}

impl Drop for GatewayChild {
    fn drop(&mut self) {
        self.gateway.stop();
    }
}

#[async_trait]
impl ChildReader for Reader {
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let line = tokio::select! {
            line = self.lines.recv() => line,
            () = self.gateway.stopped() => None,
        };
        Ok(line.map(|line| {
            let mut framed = BytesMut::with_capacity(line.len() + 1);
            framed.put_slice(&line);
            framed.put_u8(b'\n');
            framed.freeze()
        }))
    }

    fn acknowledge(&mut self, _bytes: usize) {}
}

#[async_trait]
impl ChildWriter for Writer {
    async fn write(&mut self, line: Bytes) -> io::Result<()> {
        self.0.take(line);
        Ok(())
    }

    async fn close(&mut self) {}
}
