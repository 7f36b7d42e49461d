//! Bodies that are counted as they pass.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

use super::pending::Pending;

/// A request's body.
pub(super) struct Counted {
    body: Body,
    bytes: Arc<AtomicU64>,
}

/// An answer's body whose length is not known, with the call that it belongs to.
pub(super) struct Watched {
    body: Body,
    /// The number of bytes that are still to come, where that was promised.
    promised: Option<u64>,
    pending: Pending,
}

// === impl Counted ===

impl Counted {
    pub(super) fn new(body: Body, bytes: Arc<AtomicU64>) -> Self {
        Self { body, bytes }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.bytes.fetch_add(length(frame.as_ref()), Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(body: Body, promised: Option<u64>, pending: Pending) -> Self {
        Self { body, promised, pending }
    }

    /// Whether this frame is the last that anybody asks for.
    fn is_last(&mut self, length: u64) -> bool {
        self.promised = self.promised.map(|bytes| bytes.saturating_sub(length));
        self.promised == Some(0) || self.body.is_end_stream()
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let length = length(frame.as_ref());
        self.pending.sent(length);
        match &frame {
            None => self.pending.complete(),
            Some(Err(_)) => self.pending.broken(),
            Some(Ok(_)) if self.is_last(length) => self.pending.complete(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn length(frame: Option<&Result<Frame<Bytes>, axum::Error>>) -> u64 {
    frame.and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, |data| data.len() as u64)
}
