//! Calls without a client: one method, one answer.

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use crate::{
    Bridge,
    bridge_state::BridgeState,
    child::{Exit, LaunchError},
    child_connection::{Ask, AskError, ChildConnection, next_id},
    config::Sharing,
    envelope::{Kind, Message},
    event::Era,
    event_buffer::EventBuffer,
    handshake::{Discovered, result_of},
    rpc,
    shared_child::StartError,
};

/// The reason for which a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server answered with an error.
    #[error("the server answered with error {code}: {message}")]
    Rpc {
        /// The error's code.
        code: i64,
        /// The error's message.
        message: String,
        /// The error's data, as it was written.
        data: Option<Box<RawValue>>,
    },
    /// No answer in time. The call was cancelled; the server goes on.
    #[error("no answer from the server within {} s", .after.as_secs_f32())]
    TimedOut {
        /// The time that the call had.
        after: Duration,
    },
    /// The server's process ended before it answered.
    #[error("the server's process {0} before it answered")]
    Exited(Exit),
    /// The server's process was not started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The server did not get ready for calls.
    #[error("the server did not get ready: {reason}")]
    NotReady {
        /// The reason.
        reason: String,
    },
    /// The parameters are no JSON object.
    #[error("the parameters of a call are a JSON object")]
    Parameters,
    /// More calls are in flight than may be.
    #[error("too many calls are in flight; try again later")]
    Busy,
}

#[derive(serde::Deserialize)]
struct ErrorResponse {
    error: ErrorBody,
}

#[derive(serde::Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    data: Option<Box<RawValue>>,
}

// === impl Bridge ===

impl Bridge {
    /// Calls a method of the server. The session, or its replacement in the newer era, is the bridge's own.
    /// Cancel-safe: dropping the future cancels the call.
    ///
    /// # Errors
    /// When there is no result, for any reason; nothing is restarted because of it.
    pub async fn call(
        &self,
        method: &str,
        params: Option<&RawValue>,
        patience: Duration,
    ) -> Result<Box<RawValue>, CallError> {
        let began = Instant::now();
        match timeout(patience, self.state.call(method, params)).await {
            Ok(answered) => answered,
            Err(_) => {
                let modern = self.state.modern.alive().map(|(connection, _)| connection);
                if let Some(connection) = modern.or_else(|| self.state.legacy.alive().map(|(connection, _)| connection))
                {
                    self.state.context.tell_timed_out(connection.id().clone(), method.to_owned(), Some(began));
                }
                Err(CallError::TimedOut { after: patience })
            }
        }
    }

    /// Makes sure that the child of plain calls is there and has answered its first question.
    ///
    /// # Errors
    /// When the server's program does not start, ends, or does not answer in time.
    pub async fn warm_up(&self) -> Result<(), CallError> {
        self.state.ready_for_calls().await.map(drop)
    }
}

// === impl BridgeState ===

impl BridgeState {
    /// The child of plain calls, with the facts about it where it speaks the newer era.
    async fn ready_for_calls(self: &Arc<Self>) -> Result<(Arc<ChildConnection>, Option<Arc<Discovered>>), CallError> {
        let shared = self.context.config.sharing == Sharing::Shared;
        if !shared && self.era() != Some(Era::Legacy) {
            match self.modern_child().await {
                Ok((connection, modern)) => return Ok((connection, Some(modern))),
                Err(StartError::NotModern) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (connection, _) = self.legacy_child().await?;
        if !shared {
            // One that ended when it was asked for the newer era, and answers the older one, is not asked again.
            self.assume_legacy();
        }
        Ok((connection, None))
    }

    async fn call(self: &Arc<Self>, method: &str, params: Option<&RawValue>) -> Result<Box<RawValue>, CallError> {
        let (connection, modern) = self.ready_for_calls().await?;
        let params = params.map_or("{}", RawValue::get);
        let params = match modern {
            Some(modern) => with_meta(params, &modern.meta()).ok_or(CallError::Parameters)?,
            None => params.to_owned(),
        };
        if !params.starts_with('{') {
            return Err(CallError::Parameters);
        }
        let request = rpc::request(&next_id().to_string(), method, &params);
        let request = Message::parse(request).map_err(|_| CallError::Parameters)?;
        let (event_buffer, mut reader) = EventBuffer::answering(0, 1, self.context.limits_once());
        let exited = || CallError::Exited(connection.exit().unwrap_or_default());
        let ask = Ask { message: &request, event_buffer: &event_buffer, session: None, patience: None };
        let key = connection.ask(ask).await.map_err(|error| match error {
            AskError::Gone => exited(),
            AskError::Busy | AskError::SameId | AskError::Deaf | AskError::Unheld(_) => CallError::Busy,
        })?;
        let of = connection.clone();
        reader.on_leaving(move || of.abandon(&key, "the call was cancelled"));
        while let Some(event) = reader.next().await {
            let Ok(message) = Message::parse(event.line) else { continue };
            match message.kind {
                Kind::Error { code } => {
                    if code == rpc::INTERNAL_ERROR && connection.exit().is_some() {
                        return Err(exited());
                    }
                    let said: Result<ErrorResponse, _> = serde_json::from_slice(&message.line);
                    let (message, data) = said.map(|said| (said.error.message, said.error.data)).unwrap_or_default();
                    return Err(CallError::Rpc { code, message, data });
                }
                Kind::Result => {
                    let result = result_of(&message.line).map(ToOwned::to_owned);
                    return result.map_err(|reason| CallError::NotReady { reason });
                }
                Kind::Request(_) | Kind::Notification(_) => {}
            }
        }
        Err(exited())
    }
}

impl From<StartError> for CallError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Launch(error) => Self::Launch(error),
            StartError::Exited(exit) => Self::Exited(exit),
            other => Self::NotReady { reason: other.to_string() },
        }
    }
}

/// The parameters with these members added to their `_meta`, unless it names a protocol version already; `None` where
/// the parameters are no object.
fn with_meta(params: &str, members: &str) -> Option<String> {
    let object: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(params).ok()?;
    let Some(meta) = object.get("_meta") else {
        let rest = params.trim_start().strip_prefix('{')?;
        let comma = if object.is_empty() { "" } else { "," };
        return Some(format!(r#"{{"_meta":{{{members}}}{comma}{rest}"#));
    };
    let own: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(meta.get()).ok()?;
    if own.contains_key("io.modelcontextprotocol/protocolVersion") {
        return Some(params.to_owned());
    }
    let start = (meta.get().as_ptr() as usize).checked_sub(params.as_ptr() as usize)? + 1;
    let comma = if own.is_empty() { "" } else { "," };
    Some(format!("{}{members}{comma}{}", params.get(..start)?, params.get(start..)?))
}

#[cfg(test)]
mod tests {
    use super::with_meta;

    #[test]
    fn meta_is_added_beside_what_is_there() {
        let add = |params| with_meta(params, r#""m":1"#);
        assert_eq!(add("{}").as_deref(), Some(r#"{"_meta":{"m":1}}"#));
        assert_eq!(add(r#"{ "a":1.0}"#).as_deref(), Some(r#"{"_meta":{"m":1}, "a":1.0}"#));
        assert_eq!(add(r#"{"a":1,"_meta":{}}"#).as_deref(), Some(r#"{"a":1,"_meta":{"m":1}}"#));
        assert_eq!(add(r#"{"_meta":{"x":2}}"#).as_deref(), Some(r#"{"_meta":{"m":1,"x":2}}"#));
        assert_eq!(add("[1]"), None);
    }
}
