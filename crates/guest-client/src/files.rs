//! Raw files and archives, streamed over the bulk connection.
//!
//! A transfer has no time limit as a whole: it may be of any size. It fails when the guest makes no progress for a
//! minute although the caller does.

use std::{io, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use emergent_budget::Account;
use emergent_guest_proto::{
    CallId, EXPECTED_HASH_SINCE, ErrorCode, ExecutionId, GuestError, Route,
    execution::StdinQuery,
    files::{FileInfo, FileList, MoveRequest, PathQuery, PathRequest, RemoveRequest, UploadQuery},
};
use futures::{Stream, StreamExt as _, future::poll_fn, stream::BoxStream};
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    Guest, GuestCallError,
    body::{self, BodyError},
    call::{self, Answer, Call},
    changes::CALL,
    limits,
    reconnector::OPEN_BUDGET,
};

/// The time for which the guest may make no progress with a transfer.
const STALL: Duration = Duration::from_secs(60);

/// Bytes from a guest, as they come. An error is the last item.
pub type ByteBody = BoxStream<'static, Result<Bytes, GuestCallError>>;

/// A file, or the part of it that was asked for.
pub struct Download {
    /// Bytes that `body` will have; a body that ends earlier ends with an error.
    pub size: u64,
    /// Bytes of the whole file.
    pub total: u64,
    /// Offset of the first byte of `body` in the file.
    pub offset: u64,
    /// The media type, where the guest says one.
    pub content_type: Option<String>,
    /// The bytes.
    pub body: ByteBody,
}

// === impl Guest ===

impl Guest {
    /// Reads a file, or the bytes of `range`: its first and, if given, its last offset.
    pub async fn download(
        &self,
        query: &PathQuery,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<Download, GuestCallError> {
        let mut call = Call::to(Route::Download).query(query)?;
        if let Some((first, last)) = range {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            call = call.header(header::RANGE, format!("bytes={first}-{last}"));
        }
        let room = call::room_for_stream().await?;
        let answer = call.for_answer(&self.bulk).await?;
        call::expect_status(&answer, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT])?;
        let nonsense = || GuestCallError::Nonsense("a file's length is missing or wrong".to_owned());
        let size = length(&answer).ok_or_else(nonsense)?;
        let (offset, total) = match answer.response.status() {
            StatusCode::PARTIAL_CONTENT => content_range(&answer, size).ok_or_else(nonsense)?,
            _ => (0, size),
        };
        let content_type = answer.response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Download { size, total, offset, content_type, body: incoming(answer, Some(size), room).boxed() })
    }

    /// Writes a file from a stream, atomically: one that ends with an error changes nothing.
    pub async fn upload(
        &self,
        id: &CallId,
        query: &UploadQuery,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<FileInfo, GuestCallError> {
        if query.expected_sha256.is_some() {
            self.require(EXPECTED_HASH_SINCE).await?;
        }
        let path = call::with_query(Route::Upload.path(), query)?;
        let request = body::request(Route::Upload, &path);
        self.send_change(id, request, bytes, async |answer| body::json(answer.response.into_body(), limits::FEW).await)
            .await
    }

    /// Reads a file or directory as an uncompressed tar.
    pub async fn archive_download(&self, query: &PathQuery) -> Result<ByteBody, GuestCallError> {
        let room = call::room_for_stream().await?;
        let answer = Call::to(Route::Pack).query(query)?.for_answer(&self.bulk).await?;
        Ok(incoming(answer, None, room).boxed())
    }

    /// Unpacks an uncompressed tar below a directory.
    pub async fn archive_upload(
        &self,
        id: &CallId,
        query: &PathQuery,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), GuestCallError> {
        let path = call::with_query(Route::Unpack.path(), query)?;
        self.send_change(id, body::request(Route::Unpack, &path), bytes, async |_| Ok(())).await
    }

    /// Describes the file or directory at a path.
    pub async fn stat(&self, query: &PathQuery) -> Result<FileInfo, GuestCallError> {
        Call::to(Route::DescribeFile).query(query)?.for_json(&self.calls).await
    }

    /// Lists a directory.
    pub async fn list_files(&self, query: &PathQuery) -> Result<FileList, GuestCallError> {
        Call::to(Route::ListFiles).query(query)?.answers(limits::FILES).for_json(&self.calls).await
    }

    /// Makes a directory, and its parents.
    pub async fn mkdir(&self, id: &CallId, request: &PathRequest) -> Result<FileInfo, GuestCallError> {
        self.change(id, Call::to(Route::MakeDirectory).json(request)?).await
    }

    /// Moves a file or directory. Named for what the route is called: `move` is a word of Rust.
    pub async fn move_path(&self, id: &CallId, request: &MoveRequest) -> Result<FileInfo, GuestCallError> {
        self.change(id, Call::to(Route::MoveFile).json(request)?).await
    }

    /// Removes a file or directory.
    pub async fn remove(&self, id: &CallId, request: &RemoveRequest) -> Result<(), GuestCallError> {
        self.change(id, Call::to(Route::RemoveFile).json(request)?).await
    }

    pub(crate) async fn send_stdin(
        &self,
        id: &ExecutionId,
        query: &StdinQuery,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), GuestCallError> {
        let path = call::with_query(&Route::ExecutionInput.path_of(id), query)?;
        let request = body::request(Route::ExecutionInput, &path);
        self.send_stream(request, bytes, None).await.map(drop)
    }

    /// Sends a change whose body is a stream. When the connection breaks, the guest is asked what came of it.
    async fn send_change<T: DeserializeOwned>(
        &self,
        id: &CallId,
        request: http::request::Builder,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        read: impl AsyncFnOnce(Answer) -> Result<T, BodyError>,
    ) -> Result<T, GuestCallError> {
        let sent_at = Instant::now();
        let request = request.header(CALL, id.as_str());
        let sent = async { Ok(read(self.send_stream(request, bytes, Some(STALL)).await?).await?) };
        let ended = match sent.await {
            Err(broken @ GuestCallError::Interrupted { .. }) => self.came_of(id, sent_at, broken).await,
            ended => ended,
        };
        ended.map_err(|error| error.of_call(id))
    }

    /// Refuses what a guest of an earlier generation would misunderstand.
    async fn require(&self, generation: u32) -> Result<(), GuestCallError> {
        let connection = self.bulk.connection(Instant::now() + OPEN_BUDGET).await;
        let connection = connection.map_err(GuestCallError::Unreachable)?;
        if connection.hello.generation >= generation {
            return Ok(());
        }
        let message = "the workspace runs an older guest, which does not compare hashes; stop and start the workspace";
        Err(GuestCallError::Refused(GuestError::new(ErrorCode::Unsupported, message)))
    }

    /// Sends a body that can be sent only once. `stall` bounds how long the guest may neither take bytes nor answer.
    async fn send_stream(
        &self,
        request: http::request::Builder,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        stall: Option<Duration>,
    ) -> Result<Answer, GuestCallError> {
        let connection = self.bulk.connection(Instant::now() + OPEN_BUDGET).await;
        let connection = connection.map_err(GuestCallError::Unreachable)?;
        let progress = Progress::begin();
        let body = body::streamed(progress.clone().watch(bytes));
        let request = request.body(body).map_err(call::unwritable)?;
        let sent = async {
            match connection.send(request).await {
                Ok(response) => call::accepted(Answer { response, connection: connection.clone() }).await,
                Err(lost) => Err(lost.into()),
            }
        };
        tokio::select! {
            answer = sent => answer,
            after = progress.stalled(stall) => Err(GuestCallError::timeout(after)),
        }
    }
}

/// The body of an answer as a stream that ends with an error when it is cut short, too long, or stalls.
fn incoming(
    answer: Answer,
    size: Option<u64>,
    room: Option<Account>,
) -> impl Stream<Item = Result<Bytes, GuestCallError>> + Send {
    async_stream::try_stream! {
        let Answer { response, connection } = answer;
        let mut body = response.into_body();
        let mut received = 0_u64;
        loop {
            let frame = timeout(STALL, body.frame()).await;
            let frame = frame.map_err(|_| GuestCallError::timeout(STALL))?;
            let Some(frame) = frame else { break };
            let Ok(bytes) = frame.map_err(BodyError::Lost)?.into_data() else { continue };
            received += bytes.len() as u64;
            if size.is_some_and(|size| received > size) {
                break;
            }
            yield bytes;
        }
        if size.is_some_and(|size| received != size) {
            Err(GuestCallError::Nonsense("a file is not as long as was said".to_owned()))?;
        }
        drop((connection, room));
    }
}

fn length(answer: &Answer) -> Option<u64> {
    answer.response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The offset and the total of `bytes FIRST-LAST/TOTAL`, if it agrees with the size.
fn content_range(answer: &Answer, size: u64) -> Option<(u64, u64)> {
    let text = answer.response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (last < total && last.checked_sub(first)?.checked_add(1)? == size).then_some((first, total))
}

/// The side that has to act next in the sending of a body, and since when.
#[derive(Clone)]
struct Progress(Arc<Mutex<Turn>>);

#[derive(Clone, Copy)]
enum Turn {
    /// The caller's stream was asked for bytes and has none.
    Caller,
    /// The guest has taken nothing since then.
    Guest(Instant),
}

// === impl Progress ===

impl Progress {
    fn begin() -> Self {
        Self(Arc::new(Mutex::new(Turn::Guest(Instant::now()))))
    }

    /// The same stream, with each of its steps noted.
    fn watch<T>(self, stream: impl Stream<Item = T> + Send + 'static) -> impl Stream<Item = T> + Send + 'static {
        let mut stream = Box::pin(stream);
        futures::stream::poll_fn(move |context| {
            let polled = stream.poll_next_unpin(context);
            self.set(if polled.is_pending() { Turn::Caller } else { Turn::Guest(Instant::now()) });
            polled
        })
    }

    /// Ready when it has been the guest's turn for `stall`; never when there is no such limit.
    async fn stalled(&self, stall: Option<Duration>) -> Duration {
        let Some(stall) = stall else { return poll_fn(|_| Poll::Pending).await };
        loop {
            match self.get() {
                Turn::Guest(since) if since.elapsed() >= stall => return stall,
                Turn::Guest(since) => sleep_until(since + stall).await,
                Turn::Caller => tokio::time::sleep(stall).await,
            }
        }
    }

    fn set(&self, turn: Turn) {
        *self.0.lock() = turn;
    }

    fn get(&self) -> Turn {
        *self.0.lock()
    }
}
