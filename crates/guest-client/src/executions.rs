//! Executions: durable commands. They are named before they are sent, so that none is ever run twice: when the
//! connection breaks under one, the client asks the guest for that name.

use std::time::Duration;

use bytes::Bytes;
use emergent_guest_proto::{
    DEFAULT_TIMEOUT_MS, ErrorCode, Execution, ExecutionId, KILL_GRACE_MS, MAX_TIMEOUT_MS, Route,
    execution::{ExecutionList, SignalRequest, StartRequest, StdinQuery},
    tools::{BashRequest, BashResult},
};
use futures::Stream;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    Guest, GuestCallError, Interruption,
    call::{Call, USUAL},
    limits,
};

/// The time that the guest may take for a command beyond the command's own.
const MARGIN: Duration = Duration::from_secs(10);

// === impl Guest ===

impl Guest {
    /// Runs a command and waits for the shell to exit. A broken connection does not end the wait: it is taken up on a
    /// new one, until the command's own time and a margin are over. A command that a restart of the guest ended, or
    /// may have ended, is `Interrupted`.
    pub async fn bash(&self, mut request: BashRequest) -> Result<BashResult, GuestCallError> {
        let id = request.execution_id.get_or_insert_with(new_execution_id).clone();
        let command_time = request.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS).min(MAX_TIMEOUT_MS);
        let within = Duration::from_millis(command_time + KILL_GRACE_MS) + MARGIN;
        let deadline = Instant::now() + within;
        self.bash_until(&request, &id, deadline).await.map_err(|error| match error {
            GuestCallError::Timeout { .. } => GuestCallError::timeout(within).of_execution(&id),
            other => other.of_execution(&id),
        })
    }

    async fn bash_until(
        &self,
        request: &BashRequest,
        id: &ExecutionId,
        deadline: Instant,
    ) -> Result<BashResult, GuestCallError> {
        let mut sent_in: Option<String> = None;
        loop {
            let boot = self.boot_id_for(deadline).await;
            let remaining = deadline.saturating_duration_since(Instant::now());
            match Call::to(Route::Bash)
                .json(request)?
                .within(remaining)
                .answers(limits::BASH)
                .for_json(&self.calls)
                .await
            {
                Err(GuestCallError::Interrupted { .. }) => sent_in = sent_in.or(boot),
                Err(error) if sent_in.is_some() && error.is_refusal(ErrorCode::ExecutionExists) => {}
                Err(GuestCallError::Unreachable(source)) if sent_in.is_some() => {
                    return Err(interrupted(Interruption::Unreachable(source)));
                }
                ended => return ended,
            }
            match self.wait_until(id, deadline).await {
                Err(error) if error.is_refusal(ErrorCode::UnknownExecution) => self.must_be_boot(sent_in.as_deref())?,
                ended => return ended,
            }
        }
    }

    /// Waits until an execution has ended. Repeatable at will; a broken connection does not end the wait.
    pub async fn wait(&self, id: &ExecutionId) -> Result<BashResult, GuestCallError> {
        let longest = Duration::from_millis(MAX_TIMEOUT_MS + KILL_GRACE_MS) + MARGIN;
        self.wait_until(id, Instant::now() + longest).await.map_err(|error| error.of_execution(id))
    }

    async fn wait_until(&self, id: &ExecutionId, deadline: Instant) -> Result<BashResult, GuestCallError> {
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            let call = Call::about(Route::WaitForExecution, id);
            match call.within(remaining).answers(limits::BASH).for_json(&self.calls).await {
                Err(GuestCallError::Interrupted { .. }) => {}
                Err(GuestCallError::Unreachable(source)) => return Err(interrupted(Interruption::Unreachable(source))),
                ended => return ended,
            }
        }
    }

    /// Starts a command in the background.
    pub async fn start(&self, mut request: StartRequest) -> Result<Execution, GuestCallError> {
        let id = request.execution_id.get_or_insert_with(new_execution_id).clone();
        self.start_once(&request, &id).await.map_err(|error| error.of_execution(&id))
    }

    async fn start_once(&self, request: &StartRequest, id: &ExecutionId) -> Result<Execution, GuestCallError> {
        let boot = self.boot_id_for(Instant::now() + USUAL).await;
        match Call::to(Route::StartExecution).json(request)?.for_json(&self.calls).await {
            Err(GuestCallError::Interrupted { .. }) => {}
            ended => return ended,
        }
        match self.execution(id).await {
            Err(error) if error.is_refusal(ErrorCode::UnknownExecution) => self.must_be_boot(boot.as_deref())?,
            Err(GuestCallError::Unreachable(source)) => return Err(interrupted(Interruption::Unreachable(source))),
            found => return found,
        }
        match Call::to(Route::StartExecution).json(request)?.for_json(&self.calls).await {
            Err(error) if error.is_refusal(ErrorCode::ExecutionExists) => self.execution(id).await,
            ended => ended,
        }
    }

    /// The executions that the guest still knows.
    pub async fn executions(&self) -> Result<ExecutionList, GuestCallError> {
        Call::to(Route::ListExecutions).answers(limits::EXECUTIONS).for_json(&self.calls).await
    }

    /// One execution as it is now.
    pub async fn execution(&self, id: &ExecutionId) -> Result<Execution, GuestCallError> {
        Call::about(Route::Execution, id).for_json(&self.calls).await
    }

    /// Sends a signal to an execution's process group.
    pub async fn signal(&self, id: &ExecutionId, request: &SignalRequest) -> Result<(), GuestCallError> {
        Call::about(Route::SignalExecution, id).json(request)?.for_nothing(&self.calls).await
    }

    /// Ends an execution and its whole tree. Cancelling what has ended is no error, so this is safe to repeat.
    pub async fn cancel(&self, id: &ExecutionId) -> Result<Execution, GuestCallError> {
        let within = USUAL + Duration::from_millis(KILL_GRACE_MS);
        Call::about(Route::CancelExecution, id).repeatable().within(within).for_json(&self.calls).await
    }

    /// Writes to an execution's standard input, and closes it then if `close`. Waits as long as the process does not
    /// read; whoever has no such patience drops the future. The bytes go over the bulk connection, so that a process
    /// that does not read holds up no tool.
    pub async fn stdin(
        &self,
        id: &ExecutionId,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        close: bool,
    ) -> Result<(), GuestCallError> {
        self.send_stdin(id, &StdinQuery { close }, bytes).await
    }

    /// Returns the id of the guest's boot that a request sent now goes to.
    async fn boot_id_for(&self, deadline: Instant) -> Option<String> {
        let connection = self.calls.connection(deadline).await.ok()?;
        Some(connection.hello.boot_id.clone())
    }

    /// A request whose execution is unknown never arrived, if the guest is still the one that it was sent to; else
    /// it may have run in one that is gone.
    fn must_be_boot(&self, sent_in: Option<&str>) -> Result<(), GuestCallError> {
        match self.last_hello() {
            Some(hello) if sent_in == Some(hello.boot_id.as_str()) => Ok(()),
            _ => Err(interrupted(Interruption::Restarted)),
        }
    }
}

/// A name for an execution that nobody else has given.
pub fn new_execution_id() -> ExecutionId {
    ExecutionId::new(Uuid::now_v7().simple().to_string()).expect("32 hexadecimal digits are an execution id")
}

fn interrupted(source: Interruption) -> GuestCallError {
    GuestCallError::Interrupted { execution_id: None, call_id: None, source }
}
