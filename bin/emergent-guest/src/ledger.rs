//! The calls that change something, and how they ended: whoever lost an answer asks here.
//!
//! A change is a task of the guest's own: it goes on when its caller vanishes, and its outcome is kept under the id
//! that the caller gave it. A call that is asked for before it comes never begins, so that no change comes after its
//! failure was told.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use emergent_guest_proto::{
    CallId, CallOutcome, ErrorCode, GuestError,
    call::{AGAIN_HEADER, CALL_HEADER},
};
use http::HeaderMap;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    failure::invalid,
    message::{Reply, no_content, ok_json},
};

/// The number of ended calls that are kept, and the number of bytes of their outcomes.
const MOST: usize = 4_096;
const MOST_BYTES: usize = 4 << 20;

/// The name under which a request asks for its change.
#[derive(Debug, Clone)]
pub struct Named {
    /// The id, where the caller gives one.
    call: Option<CallId>,
    /// The caller may have sent it before.
    again: bool,
}

/// The calls of this guest, since it was started.
#[derive(Debug)]
pub struct Ledger(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    calls: HashMap<CallId, Entry>,
    /// Those that may be forgotten, oldest first.
    ended: VecDeque<CallId>,
    /// The bytes that the outcomes take.
    bytes: usize,
    /// Every call that began later is known.
    complete_since: Instant,
}

#[derive(Debug)]
enum Entry {
    /// The call began.
    Begun { at: Instant, outcome: watch::Receiver<Option<Outcome>> },
    /// The call was asked for before it came.
    Fenced,
}

/// A call's answer, as JSON, or why there is none.
type Outcome = Result<Bytes, GuestError>;

// === impl Named ===

impl Named {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn of(headers: &HeaderMap) -> Result<Self, GuestError> {
        let read = |value: &http::HeaderValue| {
            let call = value.to_str().ok().and_then(|text| CallId::new(text).ok());
            call.ok_or_else(|| invalid(CALL_HEADER, emergent_guest_proto::call::InvalidCallId.to_string()))
        };
        let call = headers.get(CALL_HEADER).map(read).transpose()?;
        Ok(Self { call, again: headers.contains_key(AGAIN_HEADER) })
    }
}

// === impl Ledger ===

impl Default for Ledger {
    fn default() -> Self {
        let complete_since = Instant::now();
        Self(Mutex::new(Inner { calls: HashMap::new(), ended: VecDeque::new(), bytes: 0, complete_since }))
    }
}

impl Ledger {
    /// Does `work` to its end, also when the caller vanishes, and answers what came of it. A request that was sent
    /// again is answered with what came of the first.
    ///
    /// # Errors
    /// Those of `work`, or `call_exists`.
    pub async fn run<T: Serialize + Send + 'static>(
        self: &Arc<Self>,
        named: Named,
        work: impl Future<Output = Result<T, GuestError>> + Send + 'static,
    ) -> Result<Reply, GuestError> {
        let (sender, receiver) = watch::channel(None);
        let outcome = match &named.call {
            Some(call) => self.begin(call, named.again, receiver.clone())?,
            None => None,
        };
        if let Some(known) = outcome {
            return answer_of(known).await;
        }
        let ledger = Arc::clone(self);
        tokio::spawn(async move {
            // In a task of its own, so that a defect ends with an outcome, too.
            let worked = tokio::spawn(work).await;
            let worked = worked.unwrap_or_else(|error| Err(GuestError::new(ErrorCode::Internal, error.to_string())));
            let outcome = worked.and_then(|answer| as_json(&answer));
            ledger.end(named.call, &sender, outcome);
        });
        answer_of(receiver).await
    }

    /// Returns the outcome of a call. A call that has not come never will.
    pub async fn outcome(&self, call: &CallId, wait: bool) -> CallOutcome {
        let mut outcome = {
            let mut inner = self.inner();
            match inner.calls.get(call) {
                Some(Entry::Begun { outcome, .. }) => outcome.clone(),
                Some(Entry::Fenced) => return inner.not_begun(),
                None => {
                    inner.calls.insert(call.clone(), Entry::Fenced);
                    inner.ended.push_back(call.clone());
                    inner.forget_the_oldest();
                    return inner.not_begun();
                }
            }
        };
        if wait {
            // Its task always says how it ended.
            let _ = outcome.wait_for(Option::is_some).await;
        }
        let outcome = outcome.borrow().clone();
        match outcome {
            None => CallOutcome::Running,
            Some(Ok(json)) => CallOutcome::Done { answer: serde_json::from_slice(&json).unwrap_or(Value::Null) },
            Some(Err(error)) => CallOutcome::Refused { error },
        }
    }

    /// Notes that a call begins, or tells where its outcome is to be found.
    fn begin(
        &self,
        call: &CallId,
        again: bool,
        outcome: watch::Receiver<Option<Outcome>>,
    ) -> Result<Option<watch::Receiver<Option<Outcome>>>, GuestError> {
        let mut inner = self.inner();
        match inner.calls.get(call) {
            None => {
                inner.calls.insert(call.clone(), Entry::Begun { at: Instant::now(), outcome });
                Ok(None)
            }
            Some(Entry::Begun { outcome, .. }) if again => Ok(Some(outcome.clone())),
            Some(Entry::Begun { .. }) => {
                let message =
                    format!("another call has the id {call}; ask for its outcome, and give each call its own");
                Err(GuestError::new(ErrorCode::CallExists, message))
            }
            Some(Entry::Fenced) => {
                let message = format!("the call {call} was asked for before it came, and is not done; use another id");
                Err(GuestError::new(ErrorCode::CallExists, message))
            }
        }
    }

    fn end(&self, call: Option<CallId>, sender: &watch::Sender<Option<Outcome>>, outcome: Outcome) {
        let bytes = outcome.as_ref().map_or(0, Bytes::len);
        sender.send_replace(Some(outcome));
        if let Some(call) = call {
            let mut inner = self.inner();
            inner.bytes += bytes;
            inner.ended.push_back(call);
            inner.forget_the_oldest();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }
}

// === impl Inner ===

impl Inner {
    fn not_begun(&self) -> CallOutcome {
        CallOutcome::NotBegun { known_for_ms: milliseconds(self.complete_since.elapsed()) }
    }

    fn forget_the_oldest(&mut self) {
        while self.ended.len() > MOST || self.bytes > MOST_BYTES {
            let Some(oldest) = self.ended.pop_front() else { return };
            if let Some(Entry::Begun { at, outcome }) = self.calls.remove(&oldest) {
                self.complete_since = self.complete_since.max(at);
                self.bytes -= outcome.borrow().as_ref().map_or(0, |outcome| outcome.as_ref().map_or(0, Bytes::len));
            }
        }
    }
}

fn as_json<T: Serialize>(answer: &T) -> Outcome {
    let json = serde_json::to_vec(answer);
    json.map(Bytes::from)
        .map_err(|error| GuestError::new(ErrorCode::Internal, format!("the answer is not JSON: {error}")))
}

async fn answer_of(mut outcome: watch::Receiver<Option<Outcome>>) -> Result<Reply, GuestError> {
    let ended = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
    match ended {
        Ok(Some(Ok(json))) if *json == *b"null" => Ok(no_content()),
        Ok(Some(Ok(json))) => Ok(ok_json(json)),
        Ok(Some(Err(error))) => Err(error),
        Ok(None) | Err(_) => Err(GuestError::new(ErrorCode::Internal, "the call ended without an outcome")),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
