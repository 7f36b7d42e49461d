//! The body of an answer, which knows what its peer has taken of it.
//!
//! HTTP/2 lets a peer take nothing of an answer while its connection is well: only the bytes themselves tell.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use http_body::{Frame, SizeHint};

use super::places::UnderWay;

/// The body of an answer, whose request is under way until all of it was taken.
pub(super) struct Answer {
    body: Body,
    under_way: Arc<UnderWay>,
}

/// Bytes of an answer, until they were taken.
pub(super) struct Piece {
    bytes: Bytes,
    under_way: Arc<UnderWay>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(body: Body, under_way: UnderWay) -> Self {
        Self { body, under_way: Arc::new(under_way) }
    }
}

impl HttpBody for Answer {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let piece = |bytes| Piece::new(bytes, Arc::clone(&self.under_way));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Piece ===

impl Piece {
    fn new(bytes: Bytes, under_way: Arc<UnderWay>) -> Self {
        under_way.give(bytes.len());
        Self { bytes, under_way }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.under_way.taken(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let bytes = self.bytes.copy_to_bytes(count);
        self.under_way.taken(count);
        bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // Of a stream that was reset something is left, which nobody waits for any more.
        self.under_way.taken(self.bytes.len());
    }
}
