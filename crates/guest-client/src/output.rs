//! Following an execution's output across broken connections.

use bytes::BytesMut;
use emergent_guest_proto::{
    ExecutionId, Route, Stream as OutputStream,
    execution::OutputQuery,
    frame::{Frame, FrameError},
};
use futures::Stream;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    Guest, GuestCallError, Interruption,
    body::BodyError,
    call::{self, Answer, Call, USUAL},
};

/// The number of times that the stream is taken up again without one byte of progress.
const TRIES: u32 = 5;
/// The bytes that one stream may bring over the connection for calls before it goes on over the one for bulk.
const SMALL: u64 = 128 * 1024;

/// The place in an execution's output from which the reader wants to go on.
struct Position {
    query: OutputQuery,
    received: u64,
}

// === impl Guest ===

impl Guest {
    /// The output of an execution from the offsets of `from`, ending with its status. A broken connection is not
    /// seen: the stream goes on at the right offset on a new one. An error is the last item.
    pub fn output(
        &self,
        id: ExecutionId,
        from: OutputQuery,
    ) -> impl Stream<Item = Result<Frame, GuestCallError>> + Send + 'static {
        let guest = self.clone();
        async_stream::stream! {
            let _room = match call::room_for_stream().await {
                Ok(room) => room,
                Err(error) => {
                    yield Err(error.of_execution(&id));
                    return;
                }
            };
            let mut position = Position { query: from, received: 0 };
            let mut tries = 0;
            loop {
                let before = position.received;
                let broken = match guest.open_output(&id, &position).await {
                    Ok(mut reader) => loop {
                        match reader.next(&mut position).await {
                            Ok(Step::Frame(frame)) => yield Ok(frame),
                            Ok(Step::Last(frame)) => {
                                yield Ok(frame);
                                return;
                            }
                            Ok(Step::Elsewhere) => break None,
                            Err(error) => break Some(error),
                        }
                    },
                    Err(error) => Some(error),
                };
                tries = if position.received > before { 0 } else { tries + 1 };
                if let Some(error) = broken && (tries >= TRIES || !is_passing(&error)) {
                    yield Err(error.of_execution(&id));
                    return;
                }
            }
        }
    }

    async fn open_output(&self, id: &ExecutionId, position: &Position) -> Result<Reader, GuestCallError> {
        let bulky = position.received >= SMALL;
        let reconnector = if bulky { &self.bulk } else { &self.calls };
        let call = Call::about(Route::ExecutionOutput, id).query(&position.query)?;
        let Answer { response, connection } = call.for_answer(reconnector).await?;
        let body = response.into_body();
        Ok(Reader { body, buffer: BytesMut::new(), follow: position.query.follow, bulky, _connection: connection })
    }
}

/// Whether the stream may go on after such an error.
fn is_passing(error: &GuestCallError) -> bool {
    matches!(error, GuestCallError::Interrupted { .. } | GuestCallError::Timeout { .. })
}

/// Reads the frames of one answer.
struct Reader {
    body: Incoming,
    buffer: BytesMut,
    follow: bool,
    bulky: bool,
    /// Held so that the connection stays while the body is read.
    _connection: crate::connection::Connection,
}

enum Step {
    Frame(Frame),
    Last(Frame),
    /// The rest should come over the bulk connection.
    Elsewhere,
}

// === impl Reader ===

impl Reader {
    /// The next frame that the caller wants to see. The position has moved past it when this returns.
    async fn next(&mut self, position: &mut Position) -> Result<Step, GuestCallError> {
        loop {
            while let Some(frame) = Frame::decode(&mut self.buffer).map_err(malformed)? {
                match frame {
                    Frame::KeepAlive => {}
                    Frame::Status(execution) => {
                        let last = !self.follow || execution.state.has_ended();
                        let frame = Frame::Status(execution);
                        return Ok(if last { Step::Last(frame) } else { Step::Frame(frame) });
                    }
                    Frame::Data { stream, offset, bytes } => {
                        if let Some(frame) = position.advance(stream, offset, bytes)? {
                            return Ok(Step::Frame(frame));
                        }
                    }
                }
            }
            if !self.bulky && position.received >= SMALL {
                return Ok(Step::Elsewhere);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), GuestCallError> {
        // A command may be silent for as long as it likes; then only PING says whether the guest is there.
        let frame = match self.follow {
            true => self.body.frame().await,
            false => timeout(USUAL, self.body.frame()).await.map_err(|_| GuestCallError::timeout(USUAL))?,
        };
        let frame = frame.ok_or_else(cut_short)?.map_err(BodyError::Lost)?;
        if let Ok(bytes) = frame.into_data() {
            self.buffer.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

// === impl Position ===

impl Position {
    /// Moves past a piece, and gives what of it is new. Offsets only grow; a guest that says otherwise is refused.
    fn advance(
        &mut self,
        stream: OutputStream,
        offset: u64,
        mut bytes: bytes::Bytes,
    ) -> Result<Option<Frame>, GuestCallError> {
        let wanted = match stream {
            OutputStream::Stdout => &mut self.query.stdout,
            OutputStream::Stderr => &mut self.query.stderr,
        };
        let Some(next) = wanted else {
            return Err(GuestCallError::Nonsense("output that was not asked for".to_owned()));
        };
        let end = offset.checked_add(bytes.len() as u64);
        let end = end
            .ok_or_else(|| GuestCallError::Nonsense("the guest sent output at an offset that overflows".to_owned()))?;
        self.received += bytes.len() as u64;
        if end <= *next {
            return Ok(None);
        }
        let seen = next.saturating_sub(offset);
        // `seen` is below the length, which is a usize, since `end` lies beyond `next`.
        drop(bytes.split_to(usize::try_from(seen).unwrap_or(bytes.len())));
        *next = end;
        Ok(Some(Frame::Data { stream, offset: offset + seen, bytes }))
    }
}

fn malformed(error: FrameError) -> GuestCallError {
    GuestCallError::Nonsense(format!("output that is not in frames: {error}"))
}

/// The guest ends every answer with a status: without one the connection was lost.
fn cut_short() -> GuestCallError {
    GuestCallError::Interrupted { execution_id: None, call_id: None, source: Interruption::CutShort }
}
