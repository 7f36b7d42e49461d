//! Calls that change something. Each is sent under a name, so that it happens once or never: when the connection breaks
//! under one, the client sends it again under the same name, and the guest answers with what came of the first.
//!
//! A call whose body is a stream cannot be sent again; the client asks for its outcome, and the guest refuses it from
//! then on if it has not begun.

use std::{sync::Arc, time::Duration};

use emergent_guest_proto::{
    CALLS_SINCE, CallId, CallOutcome, Route,
    call::{AGAIN_HEADER, CALL_HEADER, OutcomeQuery},
};
use http::HeaderName;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::{
    Guest, GuestCallError, Interruption, OpenError,
    call::{Call, USUAL},
    limits,
};

pub(crate) const CALL: HeaderName = HeaderName::from_static(CALL_HEADER);
const AGAIN: HeaderName = HeaderName::from_static(AGAIN_HEADER);

/// The number of times that a connection may break under a call before the client gives the call up.
const BREAKS: u32 = 8;

// === impl Guest ===

impl Guest {
    /// Returns the outcome of a call that changes something. A call that has not begun never will.
    ///
    /// # Errors
    /// As for every call here.
    pub async fn outcome(&self, id: &CallId) -> Result<CallOutcome, GuestCallError> {
        self.outcome_within(id, false, USUAL).await
    }

    async fn outcome_within(&self, id: &CallId, wait: bool, within: Duration) -> Result<CallOutcome, GuestCallError> {
        let call = Call::about(Route::CallOutcome, id).query(&OutcomeQuery { wait })?;
        call.within(within).answers(limits::GIT).for_json(&self.calls).await
    }

    /// Sends a call that changes something, until it is known what came of it or its time is over.
    pub(crate) async fn change<T: DeserializeOwned>(&self, id: &CallId, call: Call) -> Result<T, GuestCallError> {
        self.change_once(call.header(CALL, id.to_string())).await.map_err(|error| error.of_call(id))
    }

    async fn change_once<T: DeserializeOwned>(&self, mut call: Call) -> Result<T, GuestCallError> {
        let deadline = Instant::now() + call.within;
        let mut sent_in: Option<String> = None;
        let mut broken = GuestCallError::Unreachable(Arc::new(OpenError::Closed));
        for _ in 0..=BREAKS {
            let connection = match self.calls.connection(deadline).await {
                Ok(connection) => connection,
                Err(error) if sent_in.is_some() => return Err(interrupted(Interruption::Unreachable(error))),
                Err(error) => return Err(GuestCallError::Unreachable(error)),
            };
            let hello = &connection.hello;
            if sent_in.as_ref().is_some_and(|boot| *boot != hello.boot_id) {
                return Err(interrupted(Interruption::Restarted));
            }
            match timeout_at(deadline, call.once(&connection)).await {
                Ok(Err(error @ GuestCallError::Interrupted { .. })) if hello.generation >= CALLS_SINCE => {
                    if sent_in.is_none() {
                        sent_in = Some(hello.boot_id.clone());
                        call = call.header(AGAIN, String::new());
                    }
                    broken = error;
                }
                // Not sent: the connection had broken before.
                Ok(Err(GuestCallError::Unreachable(_))) => connection.cut(),
                Ok(ended) => return ended,
                Err(_) => return Err(GuestCallError::timeout(call.within)),
            }
        }
        Err(broken)
    }

    /// Returns the outcome of a call whose body was a stream, and whose connection broke.
    pub(crate) async fn came_of<T: DeserializeOwned>(
        &self,
        id: &CallId,
        sent_at: Instant,
        broken: GuestCallError,
    ) -> Result<T, GuestCallError> {
        match self.outcome_within(id, true, USUAL).await {
            Ok(CallOutcome::Done { answer }) => {
                serde_json::from_value(answer).map_err(|error| GuestCallError::Nonsense(error.to_string()))
            }
            Ok(CallOutcome::Refused { error }) => Err(GuestCallError::Refused(error)),
            Ok(CallOutcome::NotBegun { known_for_ms }) if sent_at.elapsed() <= Duration::from_millis(known_for_ms) => {
                Err(GuestCallError::Unreachable(Arc::new(OpenError::Broke)))
            }
            Ok(CallOutcome::NotBegun { .. } | CallOutcome::Running) | Err(_) => Err(broken),
        }
    }
}

/// A name for a call that nobody else has given.
pub fn new_call_id() -> CallId {
    CallId::new(Uuid::now_v7().simple().to_string()).expect("32 hexadecimal digits are a call id")
}

fn interrupted(source: Interruption) -> GuestCallError {
    GuestCallError::Interrupted { execution_id: None, call_id: None, source }
}
