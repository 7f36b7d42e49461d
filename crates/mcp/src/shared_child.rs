//! Children that are kept warm: started when they are first needed, and again after they ended.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{sync::watch, time::timeout};

use crate::{
    answer::{self, Answer},
    bridge::Inner,
    child::{Exit, LaunchError},
    child_connection::{Ask, AskError, ChildConnection, Serves, next_id},
    child_record::{ChildRecord, SharedNote},
    config::Sharing,
    context::Context,
    envelope::{Kind, Message},
    event_buffer::EventBuffer,
    rpc,
};

/// The protocol version that we ask servers of the older era for.
const LEGACY_VERSION: &str = "2025-11-25";

/// A place for one warm child at most, with the facts about it.
pub(crate) struct SharedChild<T>(Mutex<State<T>>);

/// A child that lives, with the facts about it.
pub(crate) type Kept<T> = (Arc<ChildConnection>, Arc<T>);

/// The outcome of a start, once it is known.
type Outcome<T> = watch::Receiver<Option<Result<Kept<T>, StartError>>>;

struct State<T> {
    now: Option<Kept<T>>,
    starting: Option<Outcome<T>>,
}

/// The answer of a server of the older era to `initialize`.
#[derive(Debug)]
pub(crate) struct Initialized {
    pub(crate) version: String,
    pub(crate) result: Box<RawValue>,
}

/// Why there is no child that can be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the server's process {0} before it was ready")]
    Exited(Exit),
    #[error("the server was not ready within {0} s")]
    Late(u64),
    #[error("the server refused to start a session: {0}")]
    Refused(String),
    #[error("the server speaks MCP 2025-11-25 and older: send `initialize` first")]
    NotModern,
}

/// A guard that ends a child unless somebody takes it over.
pub(crate) struct EndUnlessKept(Option<Arc<ChildConnection>>);

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

#[derive(Deserialize)]
struct InitializeResult {
    #[serde(rename = "protocolVersion")]
    version: String,
}

// === impl SharedChild ===

impl<T> Default for SharedChild<T> {
    fn default() -> Self {
        Self(Mutex::new(State { now: None, starting: None }))
    }
}

impl<T: Send + Sync + 'static> SharedChild<T> {
    /// The child, if one lives.
    pub(crate) fn alive(&self) -> Option<Kept<T>> {
        self.lock().now.clone().filter(|(link, _)| link.is_alive())
    }

    /// The child, or else the outcome of its start. The start is a task of its own: it goes on when those who wait for
    /// it go away, and serves the next caller.
    pub(crate) async fn alive_or_started<F>(
        &self,
        context: &Context,
        start: impl FnOnce() -> F,
    ) -> Result<Kept<T>, StartError>
    where
        F: Future<Output = Result<Kept<T>, StartError>> + Send + 'static,
    {
        let mut outcome = {
            let mut state = self.lock();
            if let Some(alive) = state.now.clone().filter(|(link, _)| link.is_alive()) {
                return Ok(alive);
            }
            match state.starting.clone().filter(|outcome| outcome.borrow().is_none() && outcome.has_changed().is_ok()) {
                Some(under_way) => under_way,
                None => {
                    let (tell, outcome) = watch::channel(None);
                    let (stop, starting) = (context.stop.clone(), start());
                    context.tasks.spawn(async move {
                        // Nobody may be waiting any more.
                        tell.send_replace(stop.run_until_cancelled(starting).await);
                    });
                    state.starting = Some(outcome.clone());
                    outcome
                }
            }
        };
        let told = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        told.unwrap_or_else(
            || Err(LaunchError::Unavailable { reason: "the server is shutting down".to_owned() }.into()),
        )
    }

    /// Keeps a child that was started.
    pub(crate) fn put(&self, link: Arc<ChildConnection>, known: T) -> Kept<T> {
        let kept = (link, Arc::new(known));
        self.lock().now = Some(kept.clone());
        kept
    }

    /// Forgets the child.
    pub(crate) fn clear(&self) {
        self.lock().now = None;
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock()
    }
}

// === impl Initialized ===

impl Initialized {
    pub(crate) fn of(version: String, result: Box<RawValue>) -> Self {
        Self { version, result }
    }
}

// === impl StartError ===

impl StartError {
    /// The error as the answer to a request.
    pub(crate) fn answer(&self, id: Option<&str>) -> Answer {
        match self {
            Self::Launch(LaunchError::Unavailable { .. }) => {
                answer::busy(StatusCode::SERVICE_UNAVAILABLE, id, &self.to_string())
            }
            // Whoever tries the newer era first must be able to tell that this is none of its errors.
            Self::NotModern => answer::error(StatusCode::BAD_REQUEST, id, rpc::REFUSED, &self.to_string()),
            _ => answer::error(StatusCode::BAD_GATEWAY, id, rpc::INTERNAL_ERROR, &self.to_string()),
        }
    }
}

// === impl EndUnlessKept ===

impl EndUnlessKept {
    pub(crate) fn new(link: &Arc<ChildConnection>) -> Self {
        Self(Some(Arc::clone(link)))
    }

    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for EndUnlessKept {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.end_soon();
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Starts a child, with a guard that ends it unless it is kept.
    pub(crate) async fn launch(&self, serves: Serves) -> Result<(Arc<ChildConnection>, EndUnlessKept), StartError> {
        if self.context.tasks.is_closed() {
            return Err(LaunchError::Unavailable { reason: "it is shutting down".to_owned() }.into());
        }
        let launching = self.context.launcher.launch(ChildRecord::Starting.to_child());
        let limit = self.context.config.start_timeout;
        let child = timeout(limit, launching).await.map_err(|_| StartError::Late(limit.as_secs()))??;
        let taken = || LaunchError::Unavailable { reason: "its stdio is in use".to_owned() };
        let link = ChildConnection::start(&self.context, child, serves, false).ok_or_else(taken)?;
        let guard = EndUnlessKept::new(&link);
        Ok((link, guard))
    }

    /// Asks a child a question of the bridge's own and returns the whole answer.
    pub(crate) async fn ask_self(
        &self,
        link: &ChildConnection,
        method: &str,
        params: &str,
    ) -> Result<Message, StartError> {
        let request = rpc::request(&next_id().to_string(), method, params);
        let request = Message::parse(request).map_err(|_| StartError::Refused("bad parameters".to_owned()))?;
        let gone = || StartError::Exited(link.exit().unwrap_or_default());
        let (event_buffer, mut reader) = EventBuffer::answering(0, 1, self.context.limits_once());
        let limit = self.context.config.start_timeout;
        let ask = Ask { message: &request, event_buffer: &event_buffer, session: None, patience: Some(limit) };
        link.ask(ask).await.map_err(|error| match error {
            AskError::Gone => gone(),
            other => StartError::Refused(other.to_string()),
        })?;
        while let Some(event) = reader.next().await {
            if let Ok(message) = Message::parse(event.line)
                && matches!(message.kind, Kind::Result | Kind::Error { .. })
            {
                if link.exit().is_some() {
                    return Err(gone());
                }
                if message.kind == (Kind::Error { code: rpc::TIMED_OUT }) {
                    return Err(StartError::Late(limit.as_secs()));
                }
                return Ok(message);
            }
        }
        Err(gone())
    }

    /// The warm child of the older era, initialized by us: for plain calls and, where sessions share it, for them.
    pub(crate) async fn warm_link(self: &Arc<Self>) -> Result<Kept<Initialized>, StartError> {
        let inner = Arc::clone(self);
        self.warm.alive_or_started(&self.context, || async move { inner.start_warm().await }).await
    }

    async fn start_warm(&self) -> Result<Kept<Initialized>, StartError> {
        let shared = self.context.config.sharing == Sharing::Shared;
        let (link, guard) = self.launch(if shared { Serves::Sessions } else { Serves::Requests }).await?;
        // Sessions that share a child may have any of these; a request goes to none that has not.
        let capabilities =
            if shared { r#"{"roots":{"listChanged":true},"sampling":{},"elicitation":{}}"# } else { "{}" };
        let client = client_info();
        let params =
            format!(r#"{{"protocolVersion":"{LEGACY_VERSION}","capabilities":{capabilities},"clientInfo":{client}}}"#);
        let message = self.ask_self(&link, "initialize", &params).await?;
        let (version, result) = initialized(&message)?;
        let initialized = rpc::notification("notifications/initialized", "{}");
        link.send(initialized).await.map_err(|_| StartError::Exited(link.exit().unwrap_or_default()))?;
        link.note(&if shared {
            ChildRecord::Shared(SharedNote::of(version.clone(), result.get().to_owned(), Vec::new()))
        } else {
            ChildRecord::Calls { version: version.clone() }
        })
        .await;
        guard.keep();
        Ok(self.warm.put(link, Initialized::of(version, result)))
    }
}

/// Version and result of an answer to `initialize`.
pub(crate) fn initialized(message: &Message) -> Result<(String, Box<RawValue>), StartError> {
    let result = result_of(&message.line).map_err(StartError::Refused)?;
    let version = serde_json::from_str::<InitializeResult>(result.get()).map(|result| result.version);
    let version = version.map_err(|_| StartError::Refused("its result has no protocolVersion".to_owned()))?;
    Ok((version, result.to_owned()))
}

/// The result that an answer carries, or the message of its error.
pub(crate) fn result_of(line: &Bytes) -> Result<&RawValue, String> {
    let response: Response<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    match (response.result, response.error) {
        (Some(result), _) => Ok(result),
        (None, error) => {
            let error = error.unwrap_or(RawValue::NULL).get();
            Err(serde_json::from_str(error).map_or_else(|_| error.to_owned(), |ErrorBody { message }| message))
        }
    }
}

/// The bridge's `clientInfo`.
pub(crate) fn client_info() -> String {
    format!(r#"{{"name":"emergent","version":"{}"}}"#, env!("CARGO_PKG_VERSION"))
}
