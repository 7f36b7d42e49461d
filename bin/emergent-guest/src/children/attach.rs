//! The streams between a child and the client that is attached to it.
//!
//! Output and input are two streams, so that a child that does not read never holds up the acknowledgements that let it
//! go on. A new client takes the place of the previous one: a server that was cut off need not wait for its own old
//! connection.

use std::{io, sync::Arc};

use bytes::{Buf as _, Bytes, BytesMut};
use emergent_guest_proto::{
    GuestError,
    child::{MAX_LINE, OFFSET_HEADER, OffsetQuery},
};
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{io::AsyncWriteExt as _, sync::watch};

use super::child::{Child, Stdin};
use crate::{
    failure::invalid,
    message::{Reply, query, stream},
};

/// Sends output from an offset on until another reader comes, and receives acknowledgements meanwhile. The body ends
/// cleanly only at the end of the output.
///
/// # Errors
/// `invalid_request` for an offset that is not kept.
pub fn output(child: Arc<Child>, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let OffsetQuery { offset } = query(request.uri())?;
    let (start, end) = child.stdout.offsets();
    let mut offset = offset.unwrap_or(start);
    if !(start..=end).contains(&offset) {
        return Err(invalid("offset", format!("output is kept from {start} to {end}, and {offset} is not in there")));
    }
    let mut place = Attachment::take(&child.readers);
    let mut acknowledging = place.clone();
    let acknowledged = Arc::clone(&child);
    tokio::spawn(async move {
        let read = offsets(request.into_body(), |offset| acknowledged.stdout.acknowledge(offset));
        tokio::select! {
            () = read => {}
            () = acknowledging.lost() => {}
        }
    });
    let begin = offset;
    let bytes = async_stream::try_stream! {
        loop {
            let next = tokio::select! {
                biased;
                () = place.lost() => Err(io::Error::other("another reader has come")),
                next = child.stdout.next(offset) => Ok(next),
            };
            let Some(piece) = next? else { return };
            offset += piece.len() as u64;
            yield piece;
        }
    };
    let mut reply = stream(bytes);
    reply.headers_mut().insert(OFFSET_HEADER, HeaderValue::from(begin));
    Ok(reply)
}

/// Receives input from the offset that the answer names until another writer comes, and reports the offset that was
/// reached.
///
/// # Errors
/// `not_running` when the child takes no input.
pub async fn input(child: Arc<Child>, request: Request<Incoming>) -> Result<Reply, GuestError> {
    let mut place = Attachment::take(&child.writers);
    let mut stdin = Arc::clone(&child.stdin).lock_owned().await;
    if stdin.pipe.is_none() || place.is_lost() {
        return Err(child.not_running());
    }
    let begin = stdin.taken;
    let come = watch::Sender::new(begin);
    let mut told = come.subscribe();
    tokio::spawn(async move {
        tokio::select! {
            () = write(&mut stdin, request.into_body(), &come) => {}
            () = place.lost() => {}
        }
    });
    let bytes = async_stream::try_stream! {
        // Ends when the writer's task has dropped its side.
        while told.changed().await.is_ok() {
            let offset = *told.borrow_and_update();
            yield Bytes::copy_from_slice(&offset.to_be_bytes());
        }
    };
    let mut reply = stream(bytes);
    reply.headers_mut().insert(OFFSET_HEADER, HeaderValue::from(begin));
    Ok(reply)
}

/// Writes the whole lines of a body to the pipe, at the pace at which the child reads. If it is cut off anywhere,
/// `stdin` has the state that the next writer needs to go on.
async fn write(stdin: &mut Stdin, mut body: Incoming, come: &watch::Sender<u64>) {
    let mut line = BytesMut::new();
    loop {
        // What another writer has left comes first.
        while !stdin.pending.is_empty() {
            let Some(pipe) = stdin.pipe.as_mut() else { return };
            match pipe.write(&stdin.pending).await {
                Ok(count) => stdin.pending.advance(count),
                Err(_) => {
                    stdin.pipe = None;
                    return;
                }
            }
        }
        come.send_replace(stdin.taken + line.len() as u64);
        let Some(Ok(frame)) = body.frame().await else { return };
        let Ok(data) = frame.into_data() else { continue };
        let end = memchr::memrchr(b'\n', &data);
        line.extend_from_slice(&data);
        if let Some(end) = end {
            let rest = data.len() - (end + 1);
            stdin.pending = line.split_to(line.len() - rest).freeze();
            stdin.taken += stdin.pending.len() as u64;
        }
        if line.len() > MAX_LINE {
            tracing::warn!("a line of input is longer than {MAX_LINE} bytes");
            return;
        }
    }
}

/// Reads a body of offsets; its pieces may end anywhere.
async fn offsets(mut body: Incoming, mut take: impl FnMut(u64)) {
    let (mut word, mut length) = ([0; 8], 0);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for byte in data {
            word[length] = byte;
            length += 1;
            if length == word.len() {
                take(u64::from_be_bytes(word));
                length = 0;
            }
        }
    }
}

/// The place of a reader or writer.
#[derive(Debug, Clone)]
struct Attachment {
    number: u64,
    newest: watch::Receiver<u64>,
}

// === impl Attachment ===

impl Attachment {
    fn take(newest: &watch::Sender<u64>) -> Self {
        let mut number = 0;
        newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        Self { number, newest: newest.subscribe() }
    }

    fn is_lost(&self) -> bool {
        *self.newest.borrow() != self.number
    }

    /// Completes when another client has come.
    async fn lost(&mut self) {
        let number = self.number;
        // An error means that the child was forgotten.
        let _ = self.newest.wait_for(|newest| *newest != number).await;
    }
}
