//! Follows an execution's output over everything that does not end the execution: a lost channel, a pause, the
//! engine being away for a while.

use std::{pin::pin, sync::Arc, time::Duration};

use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::{ExecutionId, Stream as OutputStream, execution::OutputQuery, frame::Frame};
use futures::{Stream, StreamExt as _};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    CallError, WorkspaceEnd,
    guest_session::{GuestSession, refusal},
};
use crate::workspace::{entry::RuntimePhase, state::WorkspaceStatus};

/// The time for which a workspace that should answer may be silent before the stream ends with an error.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

// === impl GuestSession ===

impl GuestSession {
    /// The output of an execution, from the offsets of `from`, ending with its status. With `follow` it goes on over
    /// a lost channel and over a pause, missing nothing and repeating nothing, until the execution has ended. An error
    /// is the last item.
    pub fn follow_output(
        &self,
        id: ExecutionId,
        from: OutputQuery,
    ) -> impl Stream<Item = Result<Frame, CallError>> + Send + use<> {
        let (entry, under_way) = (Arc::clone(&self.entry), self.clone());
        async_stream::stream! {
            let _under_way = under_way;
            let mut phase = entry.phases();
            let mut wanted = from;
            let mut progress_at = Instant::now();
            let mut backoff = FIRST_BACKOFF;
            loop {
                let guest = match awake(&mut phase, &id).await {
                    Ok(guest) => guest,
                    Err(error) => {
                        yield Err(error);
                        return;
                    }
                };
                let mut output = pin!(guest.output(id.clone(), wanted));
                let broken = loop {
                    tokio::select! {
                        item = output.next() => match item {
                            Some(Ok(frame)) => {
                                advance(&mut wanted, &frame);
                                (progress_at, backoff) = (Instant::now(), FIRST_BACKOFF);
                                yield Ok(frame);
                            }
                            Some(Err(error)) => break Some(error),
                            None => return,
                        },
                        () = left_ready(&mut phase) => break None,
                    }
                };
                match broken {
                    // The time that it is paused is not silence.
                    None => progress_at = Instant::now(),
                    Some(error) if is_final(&error) || progress_at.elapsed() > PATIENCE => {
                        yield Err(error.into());
                        return;
                    }
                    Some(_) => {
                        sleep(backoff).await;
                        backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    }
                }
            }
        }
    }
}

fn is_final(error: &GuestCallError) -> bool {
    match error {
        GuestCallError::Refused(_) | GuestCallError::Exhausted(_) | GuestCallError::Nonsense(_) => true,
        GuestCallError::Unreachable(_) | GuestCallError::Interrupted { .. } | GuestCallError::Timeout { .. } => false,
    }
}

/// The guest, as soon as the workspace takes calls. A workspace that has ended is not started for the sake of a
/// stream: its executions are lost.
pub(crate) async fn awake(
    phase: &mut watch::Receiver<RuntimePhase>,
    execution: &ExecutionId,
) -> Result<Guest, CallError> {
    let is_settled =
        |phase: &RuntimePhase| !matches!(phase.status(), WorkspaceStatus::Paused(_) | WorkspaceStatus::Starting);
    // The sender lives in the entry, which this stream holds.
    let settled = phase.wait_for(is_settled).await.map_err(|_| refusal(WorkspaceStatus::Destroyed))?;
    if let RuntimePhase::Ready { guest } = &*settled {
        return Ok(guest.clone());
    }
    let status = settled.status();
    Err(WorkspaceEnd::of(status).map_or_else(
        || refusal(status),
        |ending| CallError::Ended { ending, execution: Some(execution.clone()), may_have_happened: true },
    ))
}

async fn left_ready(phase: &mut watch::Receiver<RuntimePhase>) {
    phase.wait_for(|phase| phase.status() != WorkspaceStatus::Ready).await.ok();
}

fn advance(wanted: &mut OutputQuery, frame: &Frame) {
    if let Frame::Data { stream, offset, bytes } = frame {
        let next = Some(offset + bytes.len() as u64);
        match stream {
            OutputStream::Stdout => wanted.stdout = next,
            OutputStream::Stderr => wanted.stderr = next,
        }
    }
}
