//! The connection to the Docker Engine: made when first needed, every call bounded in time, every error of one type.

use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use emergent_provider::{ChannelError, CreateError, OperationError};
use tokio::{sync::OnceCell, time::timeout};

/// The time that the engine may take for a call that waits for nothing else.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(9);
/// The client library's own deadline, for the head of an answer; longer than any of ours.
const LIBRARY_DEADLINE_SECONDS: u64 = 600;

/// One Docker Engine, whether it is up or not.
pub(crate) struct Engine {
    host: String,
    /// The client, once the engine has named the version of its API.
    client: OnceCell<Docker>,
}

/// The reason why a call of the engine failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The engine refused, or could not be asked.
    #[error(transparent)]
    Docker(#[from] Error),
    /// The engine was not asked, since it would read a file of the container that it is not to read.
    #[error(transparent)]
    Unfit(#[from] UnfitFile),
    /// The engine was not asked, since it would mount a volume elsewhere than at its path.
    #[error(transparent)]
    Misplaced(#[from] MisplacedMount),
    /// The files of a container could not be looked at, so that the engine was not asked.
    #[error("the container's files cannot be looked at on this machine: {0}")]
    Unseen(std::io::Error),
}

/// A file that the engine is not given to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "/{file} in the workspace is {found}, and the server lets Docker read only a regular file of at most 1 MiB there; \
     replace the file while the workspace runs, or make the workspace anew"
)]
pub(crate) struct UnfitFile {
    pub(crate) file: &'static str,
    pub(crate) found: String,
}

/// A mount that a link in the container's files leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the workspace has a volume at {path}, where a link leads to {leads_to}, so that the volume would hide other files; \
     make the workspace anew, from an image or a snapshot that has no link there"
)]
pub(crate) struct MisplacedMount {
    pub(crate) path: String,
    pub(crate) leads_to: String,
}

// === impl Engine ===

impl Engine {
    pub(crate) fn new(host: String) -> Self {
        Self { host, client: OnceCell::new() }
    }

    /// The engine's name in messages.
    pub(crate) fn name(&self) -> String {
        format!("Docker at {}", self.host)
    }

    /// Returns a remedy for an engine that does not answer.
    pub(crate) fn advice(&self) -> String {
        match self.host.strip_prefix("unix://") {
            Some(path) => format!("start Docker (`systemctl start docker`), and see that this user may use {path}"),
            None => format!("start Docker, and see that {} can be reached", self.host),
        }
    }

    /// Whether the engine runs on this machine, by its address.
    pub(crate) fn is_local(&self) -> bool {
        self.host.starts_with("unix://")
    }

    /// Returns a client that speaks the engine's version of the API.
    pub(crate) async fn client(&self) -> Result<&Docker, EngineError> {
        let connect = async {
            let docker = if let Some(path) = self.host.strip_prefix("unix://") {
                Docker::connect_with_local(path, LIBRARY_DEADLINE_SECONDS, API_DEFAULT_VERSION)
            } else if self.host.starts_with("npipe://") {
                Docker::connect_with_local(&self.host, LIBRARY_DEADLINE_SECONDS, API_DEFAULT_VERSION)
            } else {
                Docker::connect_with_http(&self.host, LIBRARY_DEADLINE_SECONDS, API_DEFAULT_VERSION)
            };
            bounded(docker?.negotiate_version()).await
        };
        self.client.get_or_try_init(|| connect).await
    }

    pub(crate) fn create_error(&self, step: &'static str, error: EngineError) -> CreateError {
        let engine = self.name();
        match error.is_engine_down() {
            true => CreateError::EngineUnavailable { engine, advice: self.advice(), source: error.into() },
            false => CreateError::Refused { engine, step, source: error.into() },
        }
    }

    /// Returns the error of a step that depends on what the request asks for: a refusal says nothing of other requests.
    pub(crate) fn request_error(&self, step: &'static str, error: EngineError) -> CreateError {
        match error.status() {
            Some(400..500) => CreateError::Unfit { engine: self.name(), step, source: error.into() },
            _ => self.create_error(step, error),
        }
    }

    pub(crate) fn operation_error(&self, operation: &'static str, error: EngineError) -> OperationError {
        let engine = self.name();
        match () {
            () if error.is_missing() => OperationError::Gone,
            () if error.is_engine_down() => {
                OperationError::EngineUnavailable { engine, advice: self.advice(), source: error.into() }
            }
            () => OperationError::Refused { engine, operation, source: error.into() },
        }
    }

    pub(crate) fn channel_error(&self, error: EngineError) -> ChannelError {
        let engine = self.name();
        match () {
            // Docker answers 409 for a container that is stopped or paused.
            () if error.is_missing() || error.is_conflict() => ChannelError::NotRunning,
            () if error.is_engine_down() => {
                ChannelError::EngineUnavailable { engine, advice: self.advice(), source: error.into() }
            }
            () => ChannelError::Refused { engine, source: error.into() },
        }
    }
}

/// Runs a call with the usual deadline.
pub(crate) async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
    within(CALL_DEADLINE, call).await
}

/// Runs a call with a deadline of its own.
pub(crate) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    match timeout(deadline, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(EngineError::Silent(deadline)),
    }
}

// === impl EngineError ===

impl EngineError {
    /// Whether nothing of that name exists.
    pub(crate) fn is_missing(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the name is taken, the volume is in use, or the container is not in the right state.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// Returns the engine's message, if it sent one.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Docker(Error::DockerResponseServerError { message, .. }) => message.clone(),
            Self::Docker(Error::DockerStreamError { error }) => error.clone(),
            other => other.to_string(),
        }
    }

    /// Whether no answer came, for a reason other than the request.
    pub(crate) fn is_engine_down(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            Self::Unfit(_) | Self::Misplaced(_) | Self::Unseen(_) => false,
            Self::Docker(error) => matches!(
                error,
                Error::HyperLegacyError { .. }
                    | Error::HyperResponseError { .. }
                    | Error::IOError { .. }
                    | Error::RequestTimeoutError
                    | Error::SocketNotFoundError(_)
            ),
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Docker(Error::DockerResponseServerError { status_code, .. }) => Some(*status_code),
            _ => None,
        }
    }
}

/// Turns "nothing of that name" into `None`.
pub(crate) fn found<T>(answer: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
