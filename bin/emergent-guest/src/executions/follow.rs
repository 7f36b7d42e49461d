//! The stream of an execution's output, from any offset.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use emergent_guest_proto::{
    Stream,
    execution::OutputQuery,
    frame::{Frame, MAX_PAYLOAD},
};
use futures::Stream as FrameStream;
use tokio::time::Instant;

use super::{execution::Run, logs::Logs};

/// How soon to check for new output: at first, and at last when none comes.
const SHORTEST_POLL: Duration = Duration::from_millis(2);
const LONGEST_POLL: Duration = Duration::from_millis(50);

/// The time for which the stream may be silent before a keep-alive is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Returns encoded frames: data from the requested offsets, then the status.
///
/// The files are polled rather than watched: that costs nothing while nobody follows, works on every sandbox, and
/// cannot miss a wake-up. The end of the execution wakes the stream at once.
pub fn follow(run: Arc<Run>, query: OutputQuery, directory: PathBuf) -> impl FrameStream<Item = io::Result<Bytes>> {
    async_stream::try_stream! {
        let mut cursors: Vec<(Stream, u64)> = [(Stream::Stdout, query.stdout), (Stream::Stderr, query.stderr)]
            .into_iter()
            .filter_map(|(stream, offset)| offset.map(|offset| (stream, offset)))
            .collect();
        let logs = match run.open_logs() {
            Some(logs) => Some(logs),
            None => open(&run, directory.clone()).await,
        };
        let mut state = run.state.subscribe();
        let mut poll = SHORTEST_POLL;
        let mut silent_since = Instant::now();
        loop {
            // Looked at before the files: what was written before the end is then sent before the status.
            state.borrow_and_update();
            let last = !query.follow || run.ending().is_some();
            let mut sent = false;
            for (stream, cursor) in &mut cursors {
                if let Some(bytes) = next(&run, logs.as_ref(), *stream, cursor).await? {
                    sent = true;
                    let frame = Frame::Data { stream: *stream, offset: *cursor, bytes: bytes.clone() };
                    *cursor += bytes.len() as u64;
                    yield encoded(&frame)?;
                }
            }
            if sent {
                (poll, silent_since) = (SHORTEST_POLL, Instant::now());
                continue;
            }
            if last {
                break;
            }
            if silent_since.elapsed() >= KEEP_ALIVE {
                silent_since = Instant::now();
                yield encoded(&Frame::KeepAlive)?;
            }
            // Whether it changed or the time is up, the next round looks.
            let _ = tokio::time::timeout(poll, state.changed()).await;
            poll = (poll * 2).min(LONGEST_POLL);
        }
        yield encoded(&Frame::Status(Box::new(run.describe(&directory))))?;
    }
}

async fn open(run: &Run, directory: PathBuf) -> Option<Arc<Logs>> {
    let id = run.id.clone();
    let opened = tokio::task::spawn_blocking(move || Logs::open(&directory, &id)).await;
    opened.ok().flatten().map(Arc::new)
}

/// Returns the next bytes of a stream; moves `cursor` over bytes that are no longer kept.
async fn next(run: &Run, logs: Option<&Arc<Logs>>, stream: Stream, cursor: &mut u64) -> io::Result<Option<Bytes>> {
    let Some(logs) = logs else {
        *cursor = (*cursor).max(run.written(stream));
        return Ok(None);
    };
    loop {
        *cursor = (*cursor).max(run.dropped(stream));
        if logs.size(stream) <= *cursor {
            return Ok(None);
        }
        let (reading, offset) = (Arc::clone(logs), *cursor);
        let read = tokio::task::spawn_blocking(move || reading.read(stream, offset, MAX_PAYLOAD));
        let bytes = read.await.map_err(io::Error::other)??;
        // Dropped while it was read, the bytes may be the zeros of a hole.
        if run.dropped(stream) <= *cursor {
            return Ok((!bytes.is_empty()).then(|| bytes.into()));
        }
    }
}

fn encoded(frame: &Frame) -> io::Result<Bytes> {
    frame.encode().map_err(io::Error::other)
}
