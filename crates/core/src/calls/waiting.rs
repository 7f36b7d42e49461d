//! Commands that are waited for, over pauses of their workspace: whoever paused it has stopped the command's time, and
//! neither ended it nor its caller's wait.

use std::time::Duration;

use emergent_guest_client::{Guest, GuestCallError, Interruption, new_execution_id};
use emergent_guest_proto::{
    DEFAULT_TIMEOUT_MS, ErrorCode, ExecutionId, MAX_TIMEOUT_MS,
    tools::{BashRequest, BashResult},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{CallError, guest_session::GuestSession, output::awake};
use crate::workspace::{entry::RuntimePhase, state::WorkspaceStatus};

// === impl GuestSession ===

impl GuestSession {
    /// Runs a command and waits for the shell to exit, as the guest does. A pause is waited out within the command's
    /// time.
    ///
    /// # Errors
    /// [`CallError`]; `StillPaused` when the workspace was not resumed within the command's time.
    pub async fn bash(&self, mut request: BashRequest) -> Result<BashResult, CallError> {
        let id = request.execution_id.get_or_insert_with(new_execution_id).clone();
        let time = request.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS).min(MAX_TIMEOUT_MS);
        let deadline = Instant::now() + Duration::from_millis(time);
        let mut guest = self.guest().clone();
        loop {
            if let Some(ended) = self.unless_paused(guest.bash(request.clone())).await {
                return self.told(ended).await;
            }
            let sent_in = boot_of(&guest);
            guest = self.resumed(&id, deadline).await?;
            match self.waited(&guest, &id, deadline).await {
                // It never arrived, unless the guest is another one by now.
                Err(CallError::Guest(error)) if error.code == ErrorCode::UnknownExecution => {
                    if sent_in.is_none() || boot_of(&guest) != sent_in {
                        let source = Interruption::Restarted;
                        return Err(
                            GuestCallError::Interrupted { execution_id: Some(id), call_id: None, source }.into()
                        );
                    }
                }
                ended => return ended,
            }
        }
    }

    /// Waits until an execution has ended, over pauses, too.
    ///
    /// # Errors
    /// [`CallError`]; `StillPaused` when the workspace is not resumed within a day.
    pub async fn wait(&self, id: &ExecutionId) -> Result<BashResult, CallError> {
        let deadline = Instant::now() + Duration::from_millis(MAX_TIMEOUT_MS);
        self.waited(self.guest(), id, deadline).await
    }

    async fn waited(&self, guest: &Guest, id: &ExecutionId, deadline: Instant) -> Result<BashResult, CallError> {
        let mut guest = guest.clone();
        loop {
            if let Some(ended) = self.unless_paused(guest.wait(id)).await {
                return self.told(ended).await;
            }
            guest = self.resumed(id, deadline).await?;
        }
    }

    async fn told<T>(&self, ended: Result<T, GuestCallError>) -> Result<T, CallError> {
        match ended {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.explained(error).await),
        }
    }

    /// How a call ended; `None`: the workspace is paused, whatever became of the call.
    async fn unless_paused<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut phase = self.entry.phases();
        tokio::select! {
            // The phase says so before the connections are cut, so that what a pause does to a call is never seen.
            biased;
            () = paused(&mut phase) => None,
            ended = call => Some(ended),
        }
    }

    /// The guest of a workspace that was paused, when somebody has resumed it.
    async fn resumed(&self, id: &ExecutionId, deadline: Instant) -> Result<Guest, CallError> {
        let mut phase = self.entry.phases();
        let resumed = timeout_at(deadline, awake(&mut phase, id)).await;
        resumed.unwrap_or_else(|_| Err(CallError::StillPaused { execution: id.clone() }))
    }
}

async fn paused(phase: &mut watch::Receiver<RuntimePhase>) {
    let paused = phase.wait_for(|phase| matches!(phase.status(), WorkspaceStatus::Paused(_))).await;
    // The sender lives in the entry, which the session holds.
    drop(paused);
}

fn boot_of(guest: &Guest) -> Option<String> {
    guest.last_hello().map(|hello| hello.boot_id.clone())
}
