//! Children: the calls about them, and the two streams that join this process to one, across broken connections.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf as _, Bytes};
use emergent_budget::Limits;
use emergent_guest_proto::{
    ChildId, ChildStatus, GuestError, Route,
    child::{ChildList, EndRequest, NoteRequest, OFFSET_HEADER, OffsetQuery, STDIN_WINDOW, SpawnChild},
    execution::SignalRequest,
};
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};

use crate::{
    Guest, GuestCallError, OpenError,
    body::{self, RequestBody},
    call::{Answer, Call, USUAL, accepted, send, with_query},
    limits,
};

/// The longest tail of standard error that is taken.
const STDERR_LIMIT: usize = 1 << 20;
/// The number of times that a stream is taken up again without one byte of progress.
const TRIES: u32 = 5;
/// The pause before that.
const PAUSE: Duration = Duration::from_millis(50);
/// The time for which a wait is asked for at once.
const WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// The most that one piece of input has, in bytes.
const PIECE: usize = 32 * 1024;
/// Pieces of input between the caller and the connection.
const QUEUE: usize = 4;

/// A child's output, read by one.
pub struct ChildOutput {
    guest: Guest,
    id: ChildId,
    position: u64,
    acknowledged: watch::Sender<u64>,
    answer: Option<Answer>,
    tries: u32,
}

/// A child's input, written by one: whole lines. Dropping it leaves the child's input open.
pub struct ChildInput {
    lines: mpsc::Sender<Bytes>,
    /// The reason why the child takes no more input; `None` while it takes some.
    ended: watch::Receiver<Option<String>>,
}

/// The driver that carries a child's input on.
struct InputDriver {
    guest: Guest,
    id: ChildId,
    /// Lines that the guest may not have, the oldest first.
    unsettled: VecDeque<Bytes>,
    /// The offset of the first of them.
    settled: u64,
    known: bool,
}

// === impl Guest ===

impl Guest {
    /// Starts a child. Its id makes this safe to repeat: one that was started before is answered as it is.
    pub async fn spawn_child(&self, request: &SpawnChild) -> Result<ChildStatus, GuestCallError> {
        match Call::to(Route::SpawnChild).json(request)?.answers(limits::CHILDREN).for_json(&self.calls).await {
            Err(error @ GuestCallError::Interrupted { .. }) => self.child(&request.child_id).await.map_err(|_| error),
            ended => ended,
        }
    }

    /// All children.
    pub async fn children(&self) -> Result<ChildList, GuestCallError> {
        Call::to(Route::ListChildren).answers(limits::CHILDREN).for_json(&self.calls).await
    }

    /// One child as it is now.
    pub async fn child(&self, id: &ChildId) -> Result<ChildStatus, GuestCallError> {
        Call::about(Route::Child, id).answers(limits::CHILDREN).for_json(&self.calls).await
    }

    /// Forgets a child that has ended.
    pub async fn forget_child(&self, id: &ChildId) -> Result<(), GuestCallError> {
        Call::about(Route::ForgetChild, id).for_nothing(&self.calls).await
    }

    /// Keeps another note with a child.
    pub async fn set_child_note(&self, id: &ChildId, note: String) -> Result<(), GuestCallError> {
        Call::about(Route::SetChildNote, id).json(&NoteRequest { note })?.repeatable().for_nothing(&self.calls).await
    }

    /// Sends a signal to a child's process group.
    pub async fn signal_child(&self, id: &ChildId, request: &SignalRequest) -> Result<(), GuestCallError> {
        Call::about(Route::SignalChild, id).json(request)?.for_nothing(&self.calls).await
    }

    /// Closes a child's standard input.
    pub async fn close_child_input(&self, id: &ChildId) -> Result<(), GuestCallError> {
        Call::about(Route::CloseChildInput, id).repeatable().for_nothing(&self.calls).await
    }

    /// Ends a child and answers when its tree is gone.
    pub async fn end_child(
        &self,
        id: &ChildId,
        after_eof: Duration,
        grace: Duration,
    ) -> Result<ChildStatus, GuestCallError> {
        let [eof_ms, grace_ms] = [after_eof, grace].map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let call = Call::about(Route::EndChild, id).json(&EndRequest { eof_ms, grace_ms })?;
        call.repeatable().within(after_eof + grace + USUAL).answers(limits::CHILDREN).for_json(&self.calls).await
    }

    /// Waits until a child has ended.
    ///
    /// # Errors
    /// When it is not there any more, or cannot be reached; a broken connection alone is tried again once.
    pub async fn wait_for_child(&self, id: &ChildId) -> Result<ChildStatus, GuestCallError> {
        Call::about(Route::WaitForChild, id).within(WAIT).answers(limits::CHILDREN).for_json(&self.calls).await
    }

    /// Returns the kept part of a child's standard error from an offset on, and the offset at which that begins.
    pub async fn child_errors(&self, id: &ChildId, offset: u64) -> Result<(u64, Bytes), GuestCallError> {
        let query = OffsetQuery { offset: Some(offset) };
        let call = Call::about(Route::ChildErrors, id).query(&query)?;
        let answer = call.for_answer(&self.calls).await?;
        let begin = offset_of(&answer)?;
        Ok((begin, body::collect(answer.response.into_body(), Limits::bytes(STDERR_LIMIT)).await?))
    }

    /// A child's output from an offset on, which is acknowledged at once.
    pub fn child_output(&self, id: ChildId, from: u64) -> ChildOutput {
        let acknowledged = watch::Sender::new(from);
        ChildOutput { guest: self.clone(), id, position: from, acknowledged, answer: None, tries: 0 }
    }

    /// A child's input. A task carries it on for as long as the child takes any and this is kept.
    pub fn child_input(&self, id: ChildId) -> ChildInput {
        let (lines, queue) = mpsc::channel(1);
        let (ended, why) = watch::channel(None);
        let driver = InputDriver { guest: self.clone(), id, unsettled: VecDeque::new(), settled: 0, known: false };
        tokio::spawn(async move {
            if let Err(reason) = driver.run(queue).await {
                ended.send_replace(Some(reason));
            }
        });
        ChildInput { lines, ended: why }
    }
}

// === impl ChildOutput ===

impl ChildOutput {
    /// The next bytes, never none; `None` at the end of output. Cancel-safe.
    ///
    /// # Errors
    /// When the child is not there any more, or cannot be reached; a broken connection alone is taken up again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GuestCallError> {
        loop {
            match self.next_of_one_answer().await {
                Err(error @ GuestCallError::Interrupted { .. }) => {
                    self.answer = None;
                    self.tries += 1;
                    if self.tries >= TRIES {
                        return Err(error);
                    }
                    sleep(PAUSE * (self.tries - 1)).await;
                }
                ended => return ended,
            }
        }
    }

    /// The offset of the next byte that [`next`](Self::next) answers.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Everything before this offset is done with.
    pub fn acknowledge(&self, offset: u64) {
        self.acknowledged.send_if_modified(|acknowledged| {
            let further = offset > *acknowledged;
            *acknowledged = (*acknowledged).max(offset);
            further
        });
    }

    /// The same, until the connection breaks.
    async fn next_of_one_answer(&mut self) -> Result<Option<Bytes>, GuestCallError> {
        loop {
            let Some(answer) = &mut self.answer else {
                self.answer = Some(self.attach().await?);
                continue;
            };
            let Some(frame) = answer.response.body_mut().frame().await else { return Ok(None) };
            if let Ok(data) = frame.map_err(body::BodyError::Lost)?.into_data()
                && !data.is_empty()
            {
                self.tries = 0;
                self.position += data.len() as u64;
                return Ok(Some(data));
            }
        }
    }

    async fn attach(&self) -> Result<Answer, GuestCallError> {
        let path = Route::ChildOutput.path_of(&self.id);
        let path = with_query(&path, &OffsetQuery { offset: Some(self.position) })?;
        let acknowledged = &self.acknowledged;
        let request = || {
            let offsets = WatchStream::new(acknowledged.subscribe());
            let words = offsets.map(|offset| Ok(Bytes::copy_from_slice(&offset.to_be_bytes())));
            body::request(Route::ChildOutput, &path).body(body::streamed(words))
        };
        let answer = open(&self.guest, request).await?;
        if offset_of(&answer)? != self.position {
            return Err(nonsense("a child's output begins elsewhere than was asked for"));
        }
        Ok(answer)
    }
}

// === impl ChildInput ===

impl ChildInput {
    /// Writes a line, its newline included. Waits while the child does not read.
    ///
    /// # Errors
    /// Why the child takes no more.
    pub async fn write(&mut self, line: Bytes) -> Result<(), String> {
        if self.lines.send(line).await.is_ok() {
            return Ok(());
        }
        let ended = self.ended.wait_for(Option::is_some).await;
        Err(ended.ok().and_then(|why| why.clone()).unwrap_or_else(|| "its input is closed".to_owned()))
    }

    /// Waits until the guest has all that was written, or takes no more.
    pub async fn finish(self) {
        let Self { lines, mut ended } = self;
        drop(lines);
        // The driver's end drops the sender.
        while ended.changed().await.is_ok() {}
    }
}

// === impl InputDriver ===

impl InputDriver {
    /// Carries lines on until there are no more, or nobody takes them.
    async fn run(mut self, mut lines: mpsc::Receiver<Bytes>) -> Result<(), String> {
        let mut tries = 0;
        loop {
            let before = self.settled;
            match self.run_once(&mut lines).await {
                Ok(()) => return Ok(()),
                Err(error) if is_final(&error) => return Err(error.to_string()),
                Err(error) => {
                    tries = if self.settled > before { 0 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(error.to_string());
                    }
                    sleep(PAUSE * tries).await;
                }
            }
        }
    }

    /// One stream, from its beginning to its break; or to the end of the lines, once the guest has all of them.
    async fn run_once(&mut self, lines: &mut mpsc::Receiver<Bytes>) -> Result<(), GuestCallError> {
        let path = Route::ChildInput.path_of(&self.id);
        let sender = std::sync::Mutex::new(None);
        let request = || {
            let (pieces, body) = mpsc::channel(QUEUE);
            if let Ok(mut sender) = sender.lock() {
                *sender = Some(pieces);
            }
            body::request(Route::ChildInput, &path).body(body::streamed(ReceiverStream::new(body).map(Ok)))
        };
        let answer = open(&self.guest, request).await?;
        let pieces = sender.into_inner().ok().flatten();
        let pieces = pieces.ok_or_else(|| nonsense("a stream without a sender"))?;
        let begin = offset_of(&answer)?;
        self.settle(begin);
        if self.settled != begin {
            return Err(nonsense("a child has taken input that was never sent"));
        }
        let mut come = Offsets { body: answer.response.into_body(), partial: Vec::new() };
        let (mut next, mut sent, mut got) = (0, begin, begin);
        let mut piece = Bytes::new();
        let mut no_more = false;
        loop {
            if piece.is_empty() && next < self.unsettled.len() {
                piece = self.unsettled[next].clone();
                next += 1;
            }
            if no_more && piece.is_empty() && got >= sent {
                return Ok(());
            }
            let may_send = !piece.is_empty() && sent - got < STDIN_WINDOW;
            tokio::select! {
                offset = come.next() => {
                    got = offset?;
                    if !(begin..=sent).contains(&got) {
                        return Err(nonsense("a child has taken input that was never sent"));
                    }
                    next = next.saturating_sub(self.settle(got));
                }
                room = pieces.reserve(), if may_send => {
                    let room = room.map_err(|_| cut_short())?;
                    let part = piece.split_to(piece.len().min(PIECE));
                    sent += part.len() as u64;
                    room.send(part);
                }
                line = lines.recv(), if piece.is_empty() && !no_more && next == self.unsettled.len() => match line {
                    Some(line) => self.unsettled.push_back(line),
                    None => no_more = true,
                },
            }
        }
    }

    /// Forgets the lines that the guest has; answers how many.
    fn settle(&mut self, offset: u64) -> usize {
        if !self.known {
            (self.known, self.settled) = (true, offset);
        }
        let mut count = 0;
        while let Some(line) = self.unsettled.front()
            && self.settled + line.len() as u64 <= offset
        {
            self.settled += line.len() as u64;
            self.unsettled.pop_front();
            count += 1;
        }
        count
    }
}

/// Offsets as they come in a body, eight bytes each, however it is cut into pieces.
struct Offsets {
    body: Incoming,
    partial: Vec<u8>,
}

impl Offsets {
    /// The last of those that have come. Cancel-safe.
    async fn next(&mut self) -> Result<u64, GuestCallError> {
        loop {
            let frame = self.body.frame().await.ok_or_else(cut_short)?.map_err(body::BodyError::Lost)?;
            let Ok(data) = frame.into_data() else { continue };
            self.partial.extend_from_slice(&data);
            let whole = self.partial.len() / 8 * 8;
            if let Some(mut last) = whole.checked_sub(8).and_then(|begin| self.partial.get(begin..whole)) {
                let offset = last.get_u64();
                self.partial.drain(..whole);
                return Ok(offset);
            }
        }
    }
}

/// Opens a stream that both sides write to; only the head of the answer is waited for.
async fn open(
    guest: &Guest,
    request: impl Fn() -> Result<Request<RequestBody>, http::Error>,
) -> Result<Answer, GuestCallError> {
    let deadline = Instant::now() + USUAL;
    let sent = tokio::time::timeout_at(deadline, send(&guest.calls, deadline, request)).await;
    accepted(sent.map_err(|_| GuestCallError::timeout(USUAL))??).await
}

/// Whether another try cannot help.
fn is_final(error: &GuestCallError) -> bool {
    match error {
        GuestCallError::Refused(GuestError { .. }) | GuestCallError::Exhausted(_) | GuestCallError::Nonsense(_) => true,
        GuestCallError::Unreachable(source) => matches!(**source, OpenError::Closed) || !source.is_worth_a_retry(),
        GuestCallError::Interrupted { .. } | GuestCallError::Timeout { .. } => false,
    }
}

fn cut_short() -> GuestCallError {
    GuestCallError::Interrupted { execution_id: None, call_id: None, source: crate::Interruption::CutShort }
}

fn offset_of(answer: &Answer) -> Result<u64, GuestCallError> {
    let offset = answer.response.headers().get(OFFSET_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    offset.ok_or_else(|| nonsense("a stream that does not say where it begins"))
}

fn nonsense(what: &str) -> GuestCallError {
    GuestCallError::Nonsense(what.to_owned())
}
