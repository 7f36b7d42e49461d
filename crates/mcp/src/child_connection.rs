//! One running child: its stdio, the requests that it has not answered, and the routes of its messages.
//!
//! ```text
//!  handlers ── ask ──▶ pending ── lines ──▶ writer task ──▶ stdin
//!                        │
//!  buffers ◀── route ────┴───────────────── reader task ◀── stdout
//! ```
//!
//! The child of one session sees that session's ids untouched. Children that serve several clients see ids and
//! progress tokens of ours, because two clients may choose the same.

mod route;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use emergent_budget::{Account, Exhausted, Growing, SMALL};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, timeout},
};

use crate::{
    child::{Child, ChildId, ChildReader, ChildWriter, Exit},
    child_record::ChildRecord,
    context::Context,
    envelope::{IdKey, Kind, Message},
    event::BridgeEvent,
    event_buffer::{EventBuffer, Receipt},
    lines::Lines,
    rpc,
    session_client::SessionClient,
};

/// The number of lines that may wait for the child to read them.
const WAITING_LINES: usize = 16;

/// The number of bytes of lines that may wait for the child to read them; a longer line waits until no other does.
const WAITING_BYTES: usize = 16 << 20;

/// The number of bytes of output that may be read, and neither delivered nor acknowledged, beside one message of the
/// longest kind.
const UNDELIVERED: usize = 1 << 20;

/// The time for which stdout is still read after the child's end, for its last output.
const DRAIN: Duration = Duration::from_millis(200);

/// The time that a child that takes no more input has to end by itself.
const UNWRITABLE: Duration = Duration::from_secs(5);

/// The time for which the answer to a cancelled request is waited for before its stream ends without one.
const AFTER_CANCEL: Duration = Duration::from_secs(2);

/// A running child.
pub(crate) struct ChildConnection {
    /// The clients that the child serves.
    pub(crate) serves: Serves,
    context: Arc<Context>,
    child: Arc<dyn Child>,
    lines: mpsc::Sender<Waiting>,
    /// The bytes that lines which wait for the child may still take.
    room: Arc<Semaphore>,
    state: Mutex<State>,
    ending: AtomicBool,
    /// Whether the child has told of a change of its tools since this was last looked at.
    pub(crate) tools_changed: AtomicBool,
    gone: watch::Sender<Option<Exit>>,
    /// Whether the child was started by a bridge before this one.
    adopted: bool,
}

/// The connections of one bridge; those whose child is gone are dropped when one is added.
#[derive(Default)]
pub(crate) struct Connections(Mutex<Vec<Weak<ChildConnection>>>);

/// The clients that a child serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serves {
    /// One session, whose ids it sees.
    Session,
    /// Any number of sessions.
    Sessions,
    /// Requests that belong to no session.
    Requests,
}

/// A request that goes to the child.
pub(crate) struct Ask<'a> {
    pub(crate) message: &'a Message,
    pub(crate) event_buffer: &'a Arc<EventBuffer>,
    pub(crate) session: Option<&'a Arc<SessionClient>>,
    /// The time that the answer may take; `None` waits for ever.
    pub(crate) patience: Option<Duration>,
}

/// The reason for which a request did not go to the child.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the server's process has ended")]
    Gone,
    #[error("too many requests are in flight")]
    Busy,
    #[error(
        "the server does not read its input, and no more may wait for it (16 messages, or 16 MiB); restart the server if \
         this goes on"
    )]
    Deaf,
    #[error("the message cannot be held until the server reads it: {0}")]
    Unheld(Exhausted),
    #[error("this id is in use by a request that was not answered yet")]
    SameId,
}

/// One line that waits for the child to read it.
struct Waiting {
    line: Bytes,
    /// The line's share of [`WAITING_BYTES`]; short lines of the bridge's own have none.
    _room: Option<OwnedSemaphorePermit>,
}

/// The room for one line among those that wait for the child.
struct Room<'a> {
    slot: mpsc::Permit<'a, Waiting>,
    bytes: OwnedSemaphorePermit,
    account: Option<Account>,
}

/// The output that was read from a child and not acknowledged, the oldest first: after a restart it is read again.
#[derive(Default)]
struct Unacknowledged {
    lines: VecDeque<(usize, Weak<Receipt>)>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    pending: HashMap<IdKey, Pending>,
    /// The progress tokens that the child knows, each with the key of its request.
    tokens: HashMap<IdKey, IdKey>,
    /// The child's requests to sessions, each with the session that was asked.
    asked: HashMap<IdKey, Weak<SessionClient>>,
    sessions: Vec<Weak<SessionClient>>,
    rubbish: bool,
}

struct Pending {
    /// The client's id as it was written.
    id: Box<str>,
    method: Box<str>,
    event_buffer: Arc<EventBuffer>,
    session: Option<Weak<SessionClient>>,
    /// The progress token, as the child and as the client know it.
    token: Option<(IdKey, Box<str>)>,
    /// Whether the request asked for log messages.
    logs: bool,
    patience: Option<Duration>,
    until: Option<Instant>,
    cancelled: bool,
}

// === impl ChildConnection ===

impl ChildConnection {
    /// Takes a child over, as one of these connections. `None` when its stdio was taken before.
    pub(crate) fn start(
        context: &Arc<Context>,
        connections: &Connections,
        mut child: Box<dyn Child>,
        serves: Serves,
        adopted: bool,
    ) -> Option<Arc<Self>> {
        let (reader, writer) = child.take_io()?;
        let (lines, waiting) = mpsc::channel(WAITING_LINES);
        let connection = Arc::new(Self {
            serves,
            context: Arc::clone(context),
            child: Arc::from(child),
            lines,
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
            state: Mutex::default(),
            ending: AtomicBool::new(false),
            tools_changed: AtomicBool::new(false),
            gone: watch::Sender::new(None),
            adopted,
        });
        connections.add(&connection);
        if !adopted {
            context.tell(BridgeEvent::Started { child: connection.child.id().clone() });
        }
        let stop = context.stop.clone();
        let writing = write(writer, waiting, Arc::downgrade(&connection), connection.gone.subscribe());
        context.tasks.spawn(async move { stop.run_until_cancelled(writing).await });
        let (stop, reading) = (context.stop.clone(), Arc::clone(&connection).run(reader));
        context.tasks.spawn(async move { stop.run_until_cancelled(reading).await });
        Some(connection)
    }

    /// The child's name.
    pub(crate) fn id(&self) -> &ChildId {
        self.child.id()
    }

    /// The child's end, if it has ended.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.gone.borrow().clone()
    }

    /// Whether the child can be asked.
    pub(crate) fn is_alive(&self) -> bool {
        self.gone.borrow().is_none() && !self.ending.load(Ordering::Acquire)
    }

    /// The number of requests without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().pending.len()
    }

    /// Whether this session waits for an answer.
    pub(crate) fn waits(&self, session: &SessionClient) -> bool {
        let of_session = |one: &Weak<SessionClient>| std::ptr::eq(one.as_ptr(), session);
        self.lock().pending.values().any(|pending| pending.session.as_ref().is_some_and(of_session))
    }

    /// Adds a session to those that the child serves.
    pub(crate) fn join(&self, session: &Arc<SessionClient>) {
        let mut state = self.lock();
        state.sessions.retain(|session| session.strong_count() > 0);
        state.sessions.push(Arc::downgrade(session));
    }

    /// Takes a session out, with its requests in flight.
    pub(crate) fn leave(&self, session: &Arc<SessionClient>) {
        let of_session = |one: &Weak<SessionClient>| one.as_ptr() == Arc::as_ptr(session);
        let left: Vec<IdKey> = {
            let mut state = self.lock();
            state.sessions.retain(|one| !of_session(one));
            state.asked.retain(|_, one| !of_session(one));
            let left = state.pending.iter().filter(|(_, pending)| pending.session.as_ref().is_some_and(of_session));
            left.map(|(key, _)| key.clone()).collect()
        };
        for key in left {
            self.abandon(&key, "the client ended its session");
        }
    }

    /// Writes the child's purpose into its note.
    pub(crate) async fn note(&self, note: &ChildRecord) {
        if let Err(error) = self.child.set_note(note.to_child()).await {
            tracing::warn!(child = %self.id(), %error, "the child's note could not be kept; a restart will end it");
        }
    }

    /// Sends a request; its answer, and the messages that belong to it, go to the event buffer. Returns the key by
    /// which the child knows the request. Cancel-safe: the request was sent, or it was not.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<IdKey, AskError> {
        let patience = ask.patience.unwrap_or(self.context.config.call_timeout);
        let message = ask.message;
        let room = self.room(message.line.len(), patience).await?;
        let (Some(id), Kind::Request(method)) = (message.raw_id(), &message.kind) else {
            return Err(AskError::SameId);
        };
        let meta = message.params().meta();
        let token = meta.as_ref().and_then(|meta| meta.progress_token);
        let logs = meta.as_ref().is_some_and(|meta| meta.log_level.is_some());
        let keep = self.serves == Serves::Session;

        let mut edits = Vec::new();
        let key = if keep {
            IdKey::of(id)
        } else {
            let own = next_id();
            edits.push((message.id.clone(), own.to_string()));
            IdKey::of(&own.to_string())
        };
        let token = token.map(|token| {
            if keep {
                return (IdKey::of(token.get()), Box::from(token.get()));
            }
            let own = next_id().to_string();
            edits.push((message.place(token), own.clone()));
            (IdKey::of(&own), Box::from(token.get()))
        });
        let pending = Pending {
            id: id.into(),
            method: method.clone(),
            event_buffer: Arc::clone(ask.event_buffer),
            session: ask.session.map(Arc::downgrade),
            token,
            logs,
            patience: ask.patience,
            until: ask.patience.map(|patience| Instant::now() + patience),
            cancelled: false,
        };
        {
            // The end of the child is told before what is pending is failed, under this lock: no request stays behind.
            let mut state = self.lock();
            if !self.is_alive() {
                return Err(AskError::Gone);
            }
            if state.pending.len() >= self.context.config.max_in_flight {
                return Err(AskError::Busy);
            }
            if state.pending.contains_key(&key) {
                return Err(AskError::SameId);
            }
            if let Some((token, _)) = &pending.token {
                state.tokens.insert(token.clone(), key.clone());
            }
            state.pending.insert(key.clone(), pending);
        }
        room.send(&message.with(edits));
        Ok(key)
    }

    /// Sends a message that has no answer.
    pub(crate) async fn send(&self, line: Bytes) -> Result<(), AskError> {
        let room = self.room(line.len(), self.context.config.call_timeout).await?;
        room.send(&line);
        Ok(())
    }

    /// Waits until there is room for one more line among those that wait for the child, and holds a long one on its
    /// owner's account.
    async fn room(&self, bytes: usize, patience: Duration) -> Result<Room<'_>, AskError> {
        let share = u32::try_from(bytes.min(WAITING_BYTES)).unwrap_or(u32::MAX);
        let waiting = async {
            let slot = self.lines.reserve().await.map_err(|_| AskError::Gone)?;
            let bytes = Arc::clone(&self.room).acquire_many_owned(share).await.map_err(|_| AskError::Gone)?;
            Ok((slot, bytes))
        };
        let (slot, room) = timeout(patience, waiting).await.map_err(|_| AskError::Deaf)??;
        let owner = self.context.config.account.as_ref().filter(|_| bytes > SMALL);
        let account = owner.map(Account::another);
        if let Some(account) = &account {
            account.hold(bytes).await.map_err(AskError::Unheld)?;
        }
        Ok(Room { slot, bytes: room, account })
    }

    /// Sends a short line of the bridge's own, unless as many wait as may: a child that reads nothing is not told.
    fn try_send(&self, line: &Bytes) {
        let _ = self.lines.try_send(Waiting { line: framed(line), _room: None });
    }

    /// Cancels a request that its client no longer wants; returns the message for the child, or `None` when there is no
    /// such request.
    pub(crate) fn cancel(&self, message: &Message, session: Option<&Arc<SessionClient>>) -> Option<Bytes> {
        let params = message.params();
        let wanted = params.request_id?;
        let client = IdKey::of(wanted.get());
        let mut state = self.lock();
        let (key, pending) = state.pending.iter_mut().find(|(key, pending)| {
            let same_session = match (&pending.session, session) {
                (Some(one), Some(other)) => one.as_ptr() == Arc::as_ptr(other),
                _ => false,
            };
            same_session
                && if self.serves == Serves::Session { **key == client } else { IdKey::of(&pending.id) == client }
        })?;
        pending.cancelled = true;
        pending.until = Some(Instant::now() + AFTER_CANCEL);
        let own = key.written();
        Some(message.with((self.serves != Serves::Session).then(|| (message.place(wanted), own))))
    }

    /// Gives a request up: nobody waits for its answer any more. Tells the child.
    pub(crate) fn abandon(&self, key: &IdKey, reason: &str) {
        let Some(pending) = self.lock().take(key) else { return };
        pending.event_buffer.give_up_one();
        let id = if self.serves == Serves::Session { pending.id.to_string() } else { key.written() };
        // The answer of a child that is not told will be nobody's.
        self.try_send(&rpc::cancelled(&id, reason));
    }

    /// Answers and cancels the requests that have waited too long.
    pub(crate) fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        {
            let mut state = self.lock();
            let keys: Vec<IdKey> = state
                .pending
                .iter()
                .filter(|(_, p)| p.until.is_some_and(|at| at <= now))
                .map(|(k, _)| k.clone())
                .collect();
            for key in keys {
                expired.extend(state.take(&key).map(|pending| (key, pending)));
            }
        }
        for (key, pending) in expired {
            if pending.cancelled {
                // Others of a batch have the same stream.
                pending.event_buffer.give_up_one();
                continue;
            }
            let seconds = pending.patience.unwrap_or_default().as_secs();
            let text = format!("no answer from the server within {seconds} s; the request was cancelled");
            pending.event_buffer.push_now(rpc::error(Some(&pending.id), rpc::TIMED_OUT, &text), true);
            let id = if self.serves == Serves::Session { pending.id.to_string() } else { key.written() };
            self.try_send(&rpc::cancelled(&id, "no answer in time"));
            let began = pending.until.and_then(|until| until.checked_sub(pending.patience?));
            self.context.tell_timed_out(self.id().clone(), pending.method.into(), began);
        }
    }

    /// Ends the child and waits for its end.
    pub(crate) async fn end(&self, grace: Duration) -> Exit {
        self.ending.store(true, Ordering::Release);
        let exit = self.child.end(grace).await;
        self.finish(exit.clone());
        exit
    }

    /// Ends the child in the background.
    pub(crate) fn end_soon(self: &Arc<Self>) {
        if !self.ending.swap(true, Ordering::AcqRel) {
            let connection = Arc::clone(self);
            let grace = self.context.config.grace;
            self.context.tasks.spawn(async move { connection.end(grace).await });
        }
    }

    /// Reads the child's output until it ends.
    async fn run(self: Arc<Self>, mut reader: Box<dyn ChildReader>) {
        let mut lines = Lines::new(self.context.config.line_limit);
        let mut exited = std::pin::pin!(self.child.exited());
        let mut exit = None;
        let (delivered, mut unacknowledged) = (Arc::new(Notify::new()), Unacknowledged::default());
        let mut unfinished = Growing::new(self.context.config.account.clone());
        loop {
            let room = self.context.config.line_limit + UNDELIVERED;
            unacknowledged.settle(&mut *reader, room.saturating_sub(lines.unfinished()));
            let read = if exit.is_some() {
                timeout(DRAIN, reader.read()).await.unwrap_or(Ok(None))
            } else {
                tokio::select! {
                    biased;
                    read = reader.read() => read,
                    ended = &mut exited => { exit = Some(ended); continue }
                    () = delivered.notified() => continue,
                }
            };
            let Ok(Some(chunk)) = read else { break };
            lines.push(&chunk);
            drop(chunk);
            while let Some((line, taken)) = lines.next() {
                let account = unfinished.take();
                // Only a session finds its answers again: whoever else waits is not known after a restart.
                let found_again = self.serves == Serves::Session;
                let receipt = || Arc::new(Receipt { delivered: Arc::clone(&delivered), account: account.clone() });
                let receipt = (found_again || account.is_some()).then(receipt);
                let held = receipt.as_ref().filter(|_| found_again).map(Arc::downgrade).unwrap_or_default();
                drop(account);
                self.route(line, receipt).await;
                unacknowledged.add(taken, held);
            }
            if let Err(exhausted) = unfinished.hold(lines.unfinished()).await {
                lines.give_up(exhausted);
            }
            unacknowledged.add(lines.discarded(), Weak::new());
        }
        let exit = match exit {
            Some(exit) => exit,
            // Its stdout is closed: nothing more can come of it. Most have ended, or are about to.
            None => match timeout(DRAIN, &mut exited).await {
                Ok(exit) => exit,
                Err(_) => self.child.end(self.context.config.grace).await,
            },
        };
        self.finish(exit);
    }

    /// Records the child's end and fails the requests in flight, once.
    fn finish(&self, exit: Exit) {
        let (pending, sessions) = {
            let mut state = self.lock();
            if self.gone.borrow().is_some() {
                return;
            }
            self.gone.send_replace(Some(exit.clone()));
            state.tokens.clear();
            state.asked.clear();
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.sessions))
        };
        let child = self.id().clone();
        let text = format!("the server's process {exit} before it answered");
        let data = serde_json::json!({ "exit_code": exit.code, "signal": exit.signal });
        for (_, pending) in pending {
            let error = rpc::error_with(Some(&pending.id), rpc::INTERNAL_ERROR, &text, Some(&data));
            pending.event_buffer.push_now(error, true);
        }
        for session in sessions.iter().filter_map(Weak::upgrade) {
            session.close();
        }
        self.context.tell(if self.ending.load(Ordering::Acquire) {
            BridgeEvent::Ended { child, exit }
        } else {
            BridgeEvent::Crashed { child, exit }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl fmt::Debug for ChildConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildConnection")
            .field("child", self.id())
            .field("serves", &self.serves)
            .finish_non_exhaustive()
    }
}

// === impl Connections ===

impl Connections {
    /// The connections to children that have not ended.
    pub(crate) fn alive(&self) -> Vec<Arc<ChildConnection>> {
        let connections = self.0.lock();
        let connections = connections.iter().filter_map(Weak::upgrade);
        connections.filter(|connection| connection.exit().is_none()).collect()
    }

    fn add(&self, connection: &Arc<ChildConnection>) {
        let mut connections = self.0.lock();
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(connection));
    }
}

// === impl Room ===

impl Room<'_> {
    /// Sends the line; what it holds is given back once the child has read it.
    fn send(self, line: &Bytes) {
        let line = framed(line);
        let line = match self.account {
            Some(account) => account.keep(line),
            None => line,
        };
        self.slot.send(Waiting { line, _room: Some(self.bytes) });
    }
}

// === impl Unacknowledged ===

impl Unacknowledged {
    /// Adds bytes that are done with when the receipt is dropped.
    fn add(&mut self, bytes: usize, receipt: Weak<Receipt>) {
        self.bytes += bytes;
        match self.lines.back_mut() {
            // A child may write empty lines without end.
            Some((last, held)) if held.strong_count() == 0 && receipt.strong_count() == 0 => *last += bytes,
            _ => self.lines.push_back((bytes, receipt)),
        }
    }

    /// Acknowledges the output that was delivered, and the oldest of the rest while there is more of it than may be
    /// kept: a child whose output nobody acknowledges is held up.
    fn settle(&mut self, reader: &mut dyn ChildReader, most: usize) {
        while let Some((bytes, receipt)) = self.lines.front()
            && (receipt.strong_count() == 0 || self.bytes > most)
        {
            reader.acknowledge(*bytes);
            self.bytes -= bytes;
            self.lines.pop_front();
        }
    }
}

// === impl State ===

impl State {
    /// Takes a request out, with its progress token.
    fn take(&mut self, key: &IdKey) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        if let Some((token, _)) = &pending.token
            && self.tokens.get(token) == Some(key)
        {
            self.tokens.remove(token);
        }
        Some(pending)
    }
}

/// Writes the waiting lines to the child's stdin, as its only writer. A child that cannot be written to any more, and
/// does not end by itself, is ended: nobody could use it.
async fn write(
    mut writer: Box<dyn ChildWriter>,
    mut waiting: mpsc::Receiver<Waiting>,
    connection: Weak<ChildConnection>,
    mut gone: watch::Receiver<Option<Exit>>,
) {
    let writing = async {
        while let Some(Waiting { line, _room }) = waiting.recv().await {
            if let Err(error) = writer.write(line).await {
                tracing::debug!(%error, "a child's stdin cannot be written");
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        _ = gone.wait_for(Option::is_some) => return,
    }
    if timeout(UNWRITABLE, gone.wait_for(Option::is_some)).await.is_err()
        && let Some(connection) = connection.upgrade()
    {
        tracing::warn!(child = %connection.id(), "a process of an MCP server takes no more input and is ended");
        connection.end_soon();
    }
}

/// One line with its end.
fn framed(line: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(line.len() + 1);
    framed.put_slice(line);
    framed.put_u8(b'\n');
    framed.freeze()
}

/// An id that no child was given before, even by a bridge before this one: it counts on from the time of the start.
/// Every serializer keeps it, since it is below 2^53.
pub(crate) fn next_id() -> u64 {
    static NEXT: OnceLock<AtomicU64> = OnceLock::new();
    let start = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        AtomicU64::new(u64::try_from(now).unwrap_or(1) % (1 << 52))
    };
    NEXT.get_or_init(start).fetch_add(1, Ordering::Relaxed)
}
